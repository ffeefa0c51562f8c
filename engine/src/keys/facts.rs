//! Facts: what is wanted becomes questions to the `stat` and `xattr` scripts, answers become facts
//! and inodes.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::decide::{Fact, Facts, Want};
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Epoch, Outcome, Step};
use crate::op::{Attr, Kind, Name, StatFs};
use crate::time::Duration;

use super::name::{NAME_MAX, Reading};
use super::place::{Place, side_key, xattr_key};
use super::record::{Record, SELF_FIELD};
use super::tree::What;
use super::{Keys, Ticket, scripts};

/// A cut avoids escapes and characters of several bytes, and so may leave a little of the length.
const LONG_SLACK: usize = 64;

/// What was asked, in the order of the commands, and what was known without asking.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    known: Facts,
    questions: Vec<Question>,
}

#[derive(Clone, Debug)]
enum Question {
    /// A name: one `N` of the stat script.
    Name(Box<Named>),
    /// The root's own record: one `D`.
    Root,
    /// An inode without a name: one `N` of its orphan key.
    Orphan(Ino),
    /// Symlinks and special files in a directory: one `V`.
    Inhabitants(Ino),
    /// One xattr, or with `None` their names.
    Xattr(Ino, Option<Name>),
    /// `INFO memory` and `DBSIZE`: two commands.
    StatFs,
}

/// What is asked about a name.
#[derive(Clone, Debug)]
struct Named {
    dir: Ino,
    name: Name,
    prefix: Vec<u8>,
    place: Place,
    want: Want,
}

/// What was seen of a name.
pub(super) struct Seen {
    pub(super) what: What,
    pub(super) size: u64,
    pub(super) record: Record,
    /// In milliseconds; negative for none.
    pub(super) ttl: Option<i64>,
    /// The record is the server's.
    pub(super) stored: bool,
}

/// Asks the stat script about one thing.
pub(super) fn stat(keys: Args, args: Args) -> Command {
    Command::Script { script: &scripts::STAT, keys, args }
}

/// The `N` question about a place.
pub(super) fn ask_name(prefix: &[u8], name: &[u8], place: &Place) -> Command {
    let mut keys: Args = smallvec![side_key(prefix)];
    let mut at = |key: Option<Bytes>| match key {
        Some(key) => {
            keys.push(key);
            Bytes::from(format!("{}", keys.len()))
        }
        None => Bytes::from_static(b"0"),
    };
    let full = at(place.full.clone());
    let bare = at(place.bare.clone());
    let dir = at(place.dir.as_ref().map(|dir| side_key(dir)));
    let args = smallvec![
        Bytes::from_static(b"N"),
        Bytes::copy_from_slice(name),
        full,
        bare,
        place.field.clone(),
        dir
    ];
    stat(keys, args)
}

impl Keys {
    pub(super) fn start_fetch(&mut self, wants: &[Want]) -> Step<Self> {
        let mut asked = Asked::default();
        let mut commands = Vec::new();
        for want in wants {
            if let Some(fact) = self.fact_at_hand(want) {
                asked.known.insert(want.clone(), fact);
                continue;
            }
            let Some((question, asks)) = self.question(want) else {
                // The index must be whole before it can be said that nothing is there.
                if !self.live.is_ready() {
                    return Step::Park;
                }
                asked.known.insert(want.clone(), nothing(want));
                continue;
            };
            asked.questions.push(question);
            commands.extend(asks);
        }
        if commands.is_empty() {
            return Step::Done(Outcome::Facts(asked.known));
        }
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Facts(asked)))
    }

    /// Facts that need no server.
    fn fact_at_hand(&self, want: &Want) -> Option<Fact> {
        match want {
            // A directory removed here, in which somebody stands.
            Want::Attr(ino) => {
                let node = self.tree.get(*ino).filter(|it| it.detached && it.attr.nlink == 0)?;
                (node.what == What::Dir).then_some(Fact::Attr(Some(node.attr)))
            }
            Want::FreshIno(dir, name) => {
                let prefix = self.dir_prefix(*dir)?;
                Some(Fact::FreshIno(self.tree.fresh_ino(&prefix, name.as_bytes())))
            }
            Want::Below { dir, ancestor } => Some(Fact::Below(self.tree.is_below(*dir, *ancestor))),
            Want::Empty(dir) => {
                let prefix = self.dir_prefix(*dir)?;
                if !self.index.is_empty_dir(&prefix)
                    || self.memory.inhabitants(&prefix).next().is_some()
                {
                    return Some(Fact::Empty(false));
                }
                let asks = self.index.contains_side(&prefix);
                (self.live.is_ready() && !asks).then_some(Fact::Empty(true))
            }
            _ => None,
        }
    }

    fn question(&self, want: &Want) -> Option<(Question, Vec<Command>)> {
        match want {
            Want::Entry(dir, name) => self.ask_entry(*dir, name, want),
            Want::Attr(Ino::ROOT) => {
                let keys = smallvec![side_key(&self.options.prefix)];
                let ask = stat(keys, smallvec![Bytes::from_static(b"D"), Bytes::from_static(b"1")]);
                Some((Question::Root, alloc::vec![ask]))
            }
            Want::Attr(ino) | Want::Target(ino) => {
                let node = self.tree.get(*ino)?;
                if let Some(orphan) = &node.orphan {
                    let place = Place { full: Some(orphan.clone()), ..Place::default() };
                    return Some((Question::Orphan(*ino), alloc::vec![ask_name(b"", b"", &place)]));
                }
                if node.detached {
                    return None;
                }
                self.ask_entry(node.parent, &node.name, want)
            }
            Want::Empty(dir) => {
                let keys = smallvec![side_key(&self.dir_prefix(*dir)?)];
                let ask = stat(keys, smallvec![Bytes::from_static(b"V"), Bytes::from_static(b"1")]);
                Some((Question::Inhabitants(*dir), alloc::vec![ask]))
            }
            Want::Xattr(ino, name) => self.ask_xattr(*ino, Some(name)),
            Want::XattrNames(ino) => self.ask_xattr(*ino, None),
            Want::StatFs => {
                let asks =
                    alloc::vec![Command::plain(["INFO", "memory"]), Command::plain(["DBSIZE"]),];
                Some((Question::StatFs, asks))
            }
            Want::FreshIno(..) | Want::Below { .. } | Want::Seek(..) => None,
        }
    }

    fn ask_entry(&self, dir: Ino, name: &Name, want: &Want) -> Option<(Question, Vec<Command>)> {
        let prefix = self.dir_prefix(dir)?;
        let place = self.place(dir, name)?;
        let ask = ask_name(&prefix, name.as_bytes(), &place);
        let (name, want) = (name.clone(), want.clone());
        let named = Named { dir, name, prefix, place, want };
        Some((Question::Name(Box::new(named)), alloc::vec![ask]))
    }

    fn ask_xattr(&self, ino: Ino, name: Option<&Name>) -> Option<(Question, Vec<Command>)> {
        let node = self.tree.get(ino)?;
        let (place, x) = if ino == Ino::ROOT || node.what == What::Dir {
            (Place::default(), xattr_key(&self.dir_prefix(ino)?, b""))
        } else {
            let prefix = self.dir_prefix(node.parent)?;
            (self.place(node.parent, &node.name)?, xattr_key(&prefix, node.name.as_bytes()))
        };
        let keys = place.both_keys().into_iter().chain([x]).collect();
        let mut args: Args = smallvec![place.field];
        args.extend(name.map(|name| Bytes::copy_from_slice(name.as_bytes())));
        let ask = Command::Script { script: &scripts::XATTR, keys, args };
        Some((Question::Xattr(ino, name.cloned()), alloc::vec![ask]))
    }

    pub(super) fn fetched(
        &mut self,
        asked: Asked,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let mut facts = asked.known;
        let mut replies = replies.iter();
        for question in asked.questions {
            let reply = replies.next();
            if let Some(line) = reply.and_then(Reply::as_error) {
                return Step::Fail(self.refused(line, "looking"));
            }
            let learnt = match question {
                Question::Name(named) => {
                    let Named { dir, name, prefix, place, want } = *named;
                    let answer = first(reply);
                    let Some(seen) = self.see(dir, &name, &prefix, &place, answer, cx) else {
                        return Step::Fail(self.odd("stat", reply));
                    };
                    if seen.is_none() && !self.live.is_ready() {
                        // A directory that only keys not scanned yet imply.
                        return Step::Park;
                    }
                    self.name_facts(want, dir, name, seen, &mut facts)
                }
                Question::Root => self.root_fact(first(reply), &mut facts),
                Question::Orphan(ino) => {
                    let size = first(reply)
                        .and_then(|answer| answer.get(1)?.as_int())
                        .and_then(|size| u64::try_from(size).ok());
                    let attr = self.tree.get_mut(ino).map(|node| {
                        node.attr.size = size.unwrap_or(node.attr.size);
                        Attr { nlink: 0, ..node.attr }
                    });
                    facts.insert(Want::Attr(ino), Fact::Attr(attr));
                    Some(())
                }
                Question::Inhabitants(dir) => {
                    let count =
                        reply.and_then(Reply::as_array).and_then(|all| all.first()?.as_int());
                    facts.insert(Want::Empty(dir), Fact::Empty(count == Some(0)));
                    count.map(|_| ())
                }
                Question::Xattr(ino, name) => xattr_fact(ino, name, reply, &mut facts),
                Question::StatFs => {
                    statfs_fact(reply, replies.next(), &mut facts);
                    Some(())
                }
            };
            if learnt.is_none() {
                return Step::Fail(self.odd("looking", reply));
            }
        }
        Step::Done(Outcome::Facts(facts))
    }

    fn name_facts(
        &mut self,
        want: Want,
        dir: Ino,
        name: Name,
        seen: Option<Attr>,
        facts: &mut Facts,
    ) -> Option<()> {
        if let Some(attr) = seen {
            facts.insert(Want::Attr(attr.ino), Fact::Attr(Some(attr)));
        }
        match want {
            Want::Entry(..) => {
                let found = seen.map(|attr| attr.ino);
                facts.insert(Want::Entry(dir, name), Fact::Entry(found));
            }
            Want::Target(ino) => {
                let target = self.tree.get(ino).map(|node| node.target.clone()).unwrap_or_default();
                facts.insert(Want::Target(ino), Fact::Target(target));
            }
            // The name leads to another inode now, or nowhere: this one is gone.
            Want::Attr(ino) if seen.is_none_or(|attr| attr.ino != ino) => {
                facts.insert(want, Fact::Attr(None));
            }
            _ => {}
        }
        Some(())
    }

    fn root_fact(&mut self, answer: Option<&[Reply]>, facts: &mut Facts) -> Option<()> {
        let record = answer?.get(1).and_then(Reply::as_bytes).and_then(Record::parse);
        let prefix = self.options.prefix.clone();
        let record = self.record_over(&prefix, SELF_FIELD, record, Kind::Dir);
        let attr = record.attr(Ino::ROOT, 0);
        if let Some(root) = self.tree.get_mut(Ino::ROOT) {
            root.attr = attr;
        }
        facts.insert(Want::Attr(Ino::ROOT), Fact::Attr(Some(attr)));
        Some(())
    }

    /// The record that counts: the server's, else what is remembered, else the default.
    pub(super) fn record_over(
        &self,
        prefix: &[u8],
        name: &[u8],
        stored: Option<Record>,
        kind: Kind,
    ) -> Record {
        if let Some(record) = stored.filter(|it| it.kind == kind) {
            return record;
        }
        match self.memory.get(prefix, name).filter(|it| it.kind == kind) {
            // What has no record on the server has the usual mode and owner, whatever it had
            // when its times were noted.
            Some(it) if self.stores_records() => Record {
                atime: it.atime,
                mtime: it.mtime,
                ctime: it.ctime,
                ..self.default_record(kind)
            },
            Some(record) => record.clone(),
            None => self.default_record(kind),
        }
    }

    /// Takes the answer to an `N` question: brings the tree up to date and returns the attributes
    /// of what is there. The outer `None` is for an answer that makes no sense.
    pub(super) fn see(
        &mut self,
        dir: Ino,
        name: &Name,
        prefix: &[u8],
        place: &Place,
        answer: Option<&[Reply]>,
        cx: &mut Cx<Redis>,
    ) -> Option<Option<Attr>> {
        let [what, size, _, record, has_dir, dir_record, ttl] = answer? else { return None };
        let record = record.as_bytes().and_then(Record::parse);
        let size = u64::try_from(size.as_int()?).ok()?;
        let below = place
            .dir
            .as_ref()
            .filter(|below| has_dir.as_int() == Some(1) || self.index.is_dir(below));
        let (what, kind) = if below.is_some() {
            (What::Dir, Kind::Dir)
        } else {
            match what.as_bytes()? {
                b"s" => (What::String, Kind::File),
                b"f" => (What::Field, Kind::File),
                b"c" => (What::Collection, Kind::File),
                _ => {
                    let stored = record
                        .clone()
                        .or_else(|| self.memory.get(prefix, name.as_bytes()).cloned());
                    match stored.filter(|it| !matches!(it.kind, Kind::File | Kind::Dir)) {
                        Some(it) => (What::Side, it.kind),
                        None => {
                            self.tree.detach(dir, name);
                            self.tree.remember_absent(dir, name);
                            return Some(None);
                        }
                    }
                }
            }
        };
        let (record, stored) = if let Some(below) = below {
            let stored = dir_record.as_bytes().and_then(Record::parse);
            let has = stored.is_some();
            (self.record_over(below, SELF_FIELD, stored, Kind::Dir), has)
        } else {
            let has = record.is_some();
            (self.record_over(prefix, name.as_bytes(), record, kind), has)
        };
        let seen = Seen { what, size, record, ttl: ttl.as_int(), stored };
        let attr = self.place_node(dir, name, prefix, seen, cx);
        if let Some(component) = place.full.as_ref().and_then(|full| full.strip_prefix(prefix)) {
            self.remember_component(attr.ino, prefix, name, component);
        }
        Some(Some(attr))
    }

    /// Remembers what a name stands for, if it is a shortened one.
    pub(super) fn remember_component(
        &mut self,
        ino: Ino,
        prefix: &[u8],
        name: &Name,
        component: &[u8],
    ) {
        // Only what had to be cut is: such names are as long as a name can be, or nearly so.
        let is_long = name.as_bytes().len() + LONG_SLACK > NAME_MAX;
        if is_long
            && matches!(self.options.naming.decode(name.as_bytes()), Reading::Shortened(_))
            && let Some(node) = self.tree.get_mut(ino)
        {
            node.component = Some(Box::from(component));
            // The inode may be forgotten before it is looked at.
            self.long_names.get_mut().insert(prefix, name.as_bytes(), component);
        }
    }

    /// The inode of a name that is there, made or brought up to date.
    pub(super) fn place_node(
        &mut self,
        dir: Ino,
        name: &Name,
        prefix: &[u8],
        Seen { what, size, record, ttl, stored }: Seen,
        cx: &mut Cx<Redis>,
    ) -> Attr {
        let known = self
            .tree
            .child(dir, name)
            .filter(|ino| self.tree.get(*ino).is_some_and(|node| node.is_same_kind(record.kind)));
        let ino = known.unwrap_or_else(|| self.tree.fresh_ino(prefix, name.as_bytes()));
        let target = record.target.clone();
        let mut attr = record.attr(ino, size);
        if what == What::Collection {
            attr.perm &= !0o222;
        }
        if known.is_some() {
            if let Some(node) = self.tree.get_mut(ino) {
                node.what = what;
                node.attr = attr;
            }
        } else {
            self.tree.attach(dir, name, ino, what, attr);
        }
        if let Some(node) = self.tree.get_mut(ino) {
            node.expires = ttl
                .and_then(|ms| u64::try_from(ms).ok())
                .map(|ms| cx.now.mono.after(Duration::from_millis(ms)));
            node.has_record = stored;
            node.target = target;
        }
        attr
    }

    // ---- leases

    pub(super) fn lease_of_entry(
        &self,
        dir: Ino,
        name: &Name,
        found: Option<Ino>,
        since: Epoch,
    ) -> Duration {
        let Some(node) = self.tree.get(dir) else { return Duration::ZERO };
        if node.children_tainted > since || self.live.dropped_since(since) {
            return Duration::ZERO;
        }
        if !self.live.is_live() {
            return if found.is_some() { self.live.polled() } else { Duration::ZERO };
        }
        match found {
            Some(ino) => self.until_expiry(ino, self.live.pushed()),
            // A new field of a hash is not told by name, so its absence is not remembered.
            None if self.place(dir, name).is_none_or(|it| !it.field.is_empty()) => Duration::ZERO,
            None if node.knows_absent(name) => self.live.pushed(),
            None => Duration::ZERO,
        }
    }

    pub(super) fn lease_of_attr(&self, ino: Ino, since: Epoch) -> Duration {
        let Some(node) = self.tree.get(ino) else { return Duration::ZERO };
        let parent_tainted = self.tree.get(node.parent).is_some_and(|it| it.side_tainted > since);
        if node.tainted > since || parent_tainted || self.live.dropped_since(since) {
            return Duration::ZERO;
        }
        if !self.live.is_live() {
            return self.live.polled();
        }
        self.until_expiry(ino, self.live.pushed())
    }

    /// A lease ends when the key does.
    fn until_expiry(&self, ino: Ino, lease: Duration) -> Duration {
        match self.tree.get(ino).and_then(|node| node.expires) {
            Some(at) => lease.min(at.since(self.live.now())),
            None => lease,
        }
    }
}

/// The first answer of a stat script.
pub(super) fn first(reply: Option<&Reply>) -> Option<&[Reply]> {
    reply?.as_array()?.first()?.as_array()
}

/// The fact that nothing is there.
fn nothing(want: &Want) -> Fact {
    match want {
        Want::Entry(..) => Fact::Entry(None),
        Want::Attr(_) => Fact::Attr(None),
        Want::Empty(_) => Fact::Empty(true),
        Want::Below { .. } => Fact::Below(false),
        Want::Target(_) => Fact::Target(Bytes::new()),
        Want::Xattr(..) => Fact::Xattr(None),
        Want::XattrNames(_) => Fact::XattrNames(Vec::new()),
        Want::StatFs => Fact::StatFs(StatFs::default()),
        Want::Seek(..) => Fact::Seek(None),
        Want::FreshIno(..) => Fact::FreshIno(Ino(0)),
    }
}

fn xattr_fact(
    ino: Ino,
    name: Option<Name>,
    reply: Option<&Reply>,
    facts: &mut Facts,
) -> Option<()> {
    let values = reply?.as_array()?;
    match name {
        Some(name) => {
            let value = match values.first() {
                Some(Reply::Bulk(value)) => Some(value.clone()),
                Some(Reply::Status(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
                _ => None,
            };
            facts.insert(Want::Xattr(ino, name), Fact::Xattr(value));
        }
        None => {
            // What is made up can be asked for by name and is not listed: a copy of the file must
            // not try to set it.
            let listed = values.iter().filter_map(Reply::as_bytes);
            let mut names: Vec<Name> =
                listed.filter(|name| !name.starts_with(b"user.redis.")).map(Name::from).collect();
            names.sort_unstable();
            facts.insert(Want::XattrNames(ino), Fact::XattrNames(names));
        }
    }
    Some(())
}

/// Figures from `INFO memory`: the capacity is `maxmemory`, else the machine's memory.
fn statfs_fact(info: Option<&Reply>, keys: Option<&Reply>, facts: &mut Facts) {
    let text = info.and_then(Reply::as_bytes).unwrap_or_default();
    let figure = |name: &str| {
        core::str::from_utf8(text)
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|value| value.trim().parse::<u64>().ok())
    };
    let used = figure("used_memory").unwrap_or(0);
    let limit = figure("maxmemory").filter(|limit| *limit > 0);
    let total = limit.or_else(|| figure("total_system_memory")).unwrap_or(used);
    let files = keys.and_then(Reply::as_int).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let free = total.saturating_sub(used);
    facts.insert(
        Want::StatFs,
        Fact::StatFs(StatFs {
            bytes_total: total,
            bytes_free: free,
            files_total: files.saturating_add(free / 128),
            files_free: free / 128,
        }),
    );
}
