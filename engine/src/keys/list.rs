//! Directory pages: symlinks and special files from the side hash, subdirectories and keys from
//! the index, fields from the hashes; each page one round trip.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane};
use crate::layout::{self, Epoch, Listed, Outcome, Step};
use crate::op::{Attr, Kind, Name};

use super::facts::{Seen, ask_name, first, stat};
use super::name::{Reading, SELF_NAME};
use super::place::{Place, side_key};
use super::record::{Record, SELF_FIELD};
use super::tree::What;
use super::{Keys, Ticket};

/// Questions in one call of the stat script, so that no call is long.
const QUESTIONS: usize = 48;
/// Side records or fields that one step of a scan looks at.
const SCAN_COUNT: usize = 512;

/// A place in a directory. The order is: its own value, what only side records know,
/// subdirectories, keys; each by the bytes of their components.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// Before everything.
    #[default]
    Start,
    /// In the step of `HSCAN` on the side hash that starts here, behind this name.
    Sides(Bytes, Option<Name>),
    /// Behind this subdirectory.
    Dirs(Option<Vec<u8>>),
    /// Behind this key.
    Keys(Option<Vec<u8>>),
    /// Among the fields of this hash, behind this one.
    Fields(Vec<u8>, Vec<u8>),
    /// In the step of `HSCAN` on this large hash that starts here, behind this field.
    Scan(Vec<u8>, Bytes, Option<Vec<u8>>),
}

/// A page on its way here.
#[derive(Clone, Debug)]
pub struct Page {
    dir: Ino,
    prefix: Vec<u8>,
    asks: Vec<Ask>,
    /// Where to go on when all of it is told; `None` at the end.
    next: Option<Cursor>,
    /// Names of side records that a value may have as well; asked for when the rest was answered.
    doubts: Option<Doubts>,
}

/// The replies to all questions of a page but one: which of these names have a value.
#[derive(Clone, Debug)]
struct Doubts {
    names: Vec<Name>,
    replies: Vec<Reply>,
}

#[derive(Clone, Debug)]
enum Ask {
    /// One `N`.
    Own(Place),
    /// One `HSCAN` command.
    Sides { scan: Bytes, after: Option<Name> },
    /// A subdirectory; one `D` if it has a side hash.
    Dir { component: Vec<u8>, asked: bool },
    /// One `L`; of a hash only the fields behind this one.
    Key { component: Vec<u8>, after: Option<Vec<u8>> },
    /// One `H`.
    Scan { component: Vec<u8>, scan: Bytes, after: Option<Vec<u8>> },
}

/// Collects questions into calls of the stat script.
struct Asker {
    side: Bytes,
    commands: Vec<Command>,
    keys: Args,
    args: Args,
    questions: usize,
}

impl Asker {
    fn key(&mut self, key: Option<Bytes>) {
        let at = match key {
            Some(key) => {
                self.keys.push(key);
                self.keys.len()
            }
            None => 0,
        };
        self.args.push(Bytes::from(format!("{at}")));
    }

    fn word(&mut self, word: impl Into<Bytes>) {
        self.args.push(word.into());
    }

    fn end_question(&mut self) {
        self.questions += 1;
        if self.questions.is_multiple_of(QUESTIONS) {
            self.end_call();
        }
    }

    fn end_call(&mut self) {
        if !self.args.is_empty() {
            let keys = core::mem::replace(&mut self.keys, smallvec![self.side.clone()]);
            self.commands.push(stat(keys, core::mem::take(&mut self.args)));
        }
    }
}

impl Keys {
    pub(super) fn start_list(
        &mut self,
        dir: Ino,
        from: &Cursor,
        limit: usize,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if !self.live.is_ready() {
            return Step::Park;
        }
        let Some(prefix) = self.dir_prefix(dir) else { return Step::fail(Errno::ENOENT) };
        let (asks, next) = self.page_from(dir, &prefix, from, limit);
        let commands = self.ask_page(&prefix, &asks);
        let page = Page { dir, prefix, asks, next, doubts: None };
        if commands.is_empty() {
            return self.listed(page, &[], cx);
        }
        Step::Work(Self::work(Lane::Meta, commands, Ticket::List(alloc::boxed::Box::new(page))))
    }

    /// What to ask for a page from a place on, and the place behind it.
    fn page_from(
        &self,
        dir: Ino,
        prefix: &[u8],
        from: &Cursor,
        limit: usize,
    ) -> (Vec<Ask>, Option<Cursor>) {
        let mut asks = Vec::new();
        let mut at = from.clone();
        loop {
            if asks.len() >= limit {
                return (asks, Some(at));
            }
            at = match at {
                Cursor::Start => {
                    let own = self.place(dir, &Name::from(SELF_NAME)).filter(|place| {
                        [&place.full, &place.bare]
                            .into_iter()
                            .flatten()
                            .any(|key| self.index.contains_key(key))
                    });
                    asks.extend(own.map(Ask::Own));
                    Cursor::Sides(Bytes::from_static(b"0"), None)
                }
                Cursor::Sides(scan, after) => {
                    if self.index.contains_side(prefix) || !self.stores_records() {
                        asks.push(Ask::Sides { scan, after });
                    }
                    Cursor::Dirs(None)
                }
                Cursor::Dirs(after) => match self.index.next_dir(prefix, after.as_deref()) {
                    Some(component) => {
                        let below = self.below(prefix, &component);
                        let asked = self.index.contains_side(&below);
                        asks.push(Ask::Dir { component: component.clone(), asked });
                        Cursor::Dirs(Some(component))
                    }
                    None => Cursor::Keys(None),
                },
                Cursor::Keys(after) => match self.index.next_key(prefix, after.as_deref()) {
                    Some(component) => {
                        asks.push(Ask::Key { component: component.clone(), after: None });
                        Cursor::Keys(Some(component))
                    }
                    None => return (asks, None),
                },
                Cursor::Fields(component, after) => {
                    asks.push(Ask::Key { component: component.clone(), after: Some(after) });
                    Cursor::Keys(Some(component))
                }
                // A step of a large hash is a page of its own.
                Cursor::Scan(component, scan, after) => {
                    asks.push(Ask::Scan { component: component.clone(), scan, after });
                    return (asks, Some(Cursor::Keys(Some(component))));
                }
            };
        }
    }

    fn below(&self, prefix: &[u8], component: &[u8]) -> Vec<u8> {
        [prefix, component, &[self.options.naming.delimiter()]].concat()
    }

    fn ask_page(&self, prefix: &[u8], asks: &[Ask]) -> Vec<Command> {
        let side = side_key(prefix);
        let mut asker = Asker {
            keys: smallvec![side.clone()],
            side: side.clone(),
            commands: Vec::new(),
            args: Args::new(),
            questions: 0,
        };
        let naming = self.options.naming;
        let key = |component: &[u8]| Some(Bytes::from([prefix, component].concat()));
        for ask in asks {
            match ask {
                Ask::Own(place) => {
                    asker.word("N");
                    asker.word(SELF_NAME);
                    asker.key(place.full.clone());
                    asker.key(place.bare.clone());
                    asker.word(place.field.clone());
                    asker.key(None);
                    asker.end_question();
                }
                Ask::Sides { scan, .. } => {
                    if self.stores_records() {
                        let count = Bytes::from(format!("{SCAN_COUNT}"));
                        asker.commands.push(Command::Plain(smallvec![
                            Bytes::from_static(b"HSCAN"),
                            side.clone(),
                            scan.clone(),
                            Bytes::from_static(b"COUNT"),
                            count
                        ]));
                    }
                }
                Ask::Dir { component, asked } => {
                    if *asked {
                        asker.word("D");
                        asker.key(Some(side_key(&self.below(prefix, component))));
                        asker.end_question();
                    }
                }
                Ask::Key { component, .. } => {
                    asker.word("L");
                    asker.word(naming.encode_component(component));
                    asker.word(naming.full_field(component, b""));
                    asker.key(key(component));
                    asker.end_question();
                }
                Ask::Scan { component, scan, .. } => {
                    asker.word("H");
                    asker.word(naming.full_field(component, b""));
                    asker.key(key(component));
                    asker.word(scan.clone());
                    asker.word(format!("{SCAN_COUNT}"));
                    asker.end_question();
                }
            }
        }
        asker.end_call();
        asker.commands
    }

    pub(super) fn listed(
        &mut self,
        mut page: Page,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if let Some(line) = Reply::error_among(replies) {
            return Step::Fail(self.refused(line, "listing a directory"));
        }
        // The scan of the side hash is a command of its own, the first; all others are questions.
        let mut outshone = Vec::new();
        let sides = page.asks.iter().any(|ask| matches!(ask, Ask::Sides { .. }));
        let replies = match page.doubts.take() {
            Some(doubts) => {
                let has_value = |(_, reply): &(Name, &Reply)| {
                    let what = first(Some(reply)).and_then(|answer| answer.first()?.as_bytes());
                    what != Some(b"-")
                };
                let told = doubts.names.into_iter().zip(replies).filter(has_value);
                outshone.extend(told.map(|(name, _)| name));
                doubts.replies
            }
            None if sides => {
                let (names, commands) = self.doubtful(&page, replies);
                if !commands.is_empty() {
                    page.doubts = Some(Doubts { names, replies: replies.to_vec() });
                    let ticket = Ticket::List(alloc::boxed::Box::new(page));
                    return Step::Work(Self::work(Lane::Meta, commands, ticket));
                }
                replies.to_vec()
            }
            None => replies.to_vec(),
        };
        let mut scanned = None;
        let mut answers = Vec::new();
        for (n, reply) in replies.iter().enumerate() {
            if sides && self.stores_records() && n == 0 {
                scanned = reply.as_array();
            } else {
                answers.extend(reply.as_array().unwrap_or_default());
            }
        }
        let mut answers = answers.into_iter().map(|answer| answer.as_array().unwrap_or_default());
        let mut entries: Vec<Listed<Self>> = Vec::new();
        let mut next = page.next.clone();
        for ask in &page.asks {
            match ask {
                Ask::Own(place) => {
                    let name = Name::from(SELF_NAME);
                    let answer = answers.next();
                    if let Some(Some(attr)) =
                        self.see(page.dir, &name, &page.prefix, place, answer, cx)
                    {
                        let after = Cursor::Sides(Bytes::from_static(b"0"), None);
                        entries.push(listed(name, attr, after));
                    }
                }
                Ask::Sides { scan, after } => {
                    let (found, goes_on) = self.side_records(&page.prefix, scanned);
                    let found = found.into_iter().filter(|(name, _)| !outshone.contains(name));
                    self.list_sides(&page, scan, after.as_ref(), found, &mut entries, cx);
                    let more = goes_on.map(|scan| Cursor::Sides(scan, None));
                    if let Some(more) = more {
                        // The rest of the page comes when the scan is through.
                        next = Some(more);
                        break;
                    }
                }
                Ask::Dir { component, asked } => {
                    let answer = asked.then(|| answers.next()).flatten();
                    self.list_dir(&page, component, answer, &mut entries, cx);
                }
                Ask::Key { component, after } => {
                    let Some(answer) = answers.next() else { break };
                    let more =
                        self.list_key(&page, component, after.as_deref(), answer, &mut entries, cx);
                    if let Some(more) = more {
                        next = Some(more);
                        break;
                    }
                }
                Ask::Scan { component, scan, after } => {
                    let Some(answer) = answers.next() else { break };
                    let (goes_on, fields) = answer.split_at_checked(2).unwrap_or_default();
                    let ttl = goes_on.get(1).and_then(Reply::as_int);
                    let at = |field: &[u8]| {
                        Cursor::Scan(component.clone(), scan.clone(), Some(field.to_vec()))
                    };
                    self.list_fields(
                        &page,
                        component,
                        after.as_deref(),
                        (fields, ttl),
                        at,
                        &mut entries,
                        cx,
                    );
                    if let Some(scan) = goes_on.first().and_then(Reply::as_bytes)
                        && scan != b"0"
                    {
                        let scan = Bytes::copy_from_slice(scan);
                        next = Some(Cursor::Scan(component.clone(), scan, None));
                    }
                }
            }
        }
        Step::Done(Outcome::Page(layout::Page { entries, next }))
    }

    /// The side records of symlinks and special files, by name, and where the scan goes on if it
    /// is not through.
    fn side_records(
        &self,
        prefix: &[u8],
        scanned: Option<&[Reply]>,
    ) -> (Vec<(Name, Record)>, Option<Bytes>) {
        let mut found: Vec<(Name, Record)> = Vec::new();
        let mut goes_on = None;
        if let Some([cursor, records]) = scanned {
            goes_on =
                cursor.as_bytes().filter(|cursor| *cursor != b"0").map(Bytes::copy_from_slice);
            for pair in records.as_array().unwrap_or_default().chunks_exact(2) {
                let (Some(name), Some(text)) = (pair[0].as_bytes(), pair[1].as_bytes()) else {
                    continue;
                };
                if let Some(record) = Record::parse(text)
                    && name != SELF_FIELD
                    && !matches!(record.kind, Kind::File | Kind::Dir)
                {
                    found.push((Name::from(name), record));
                }
            }
        } else {
            let inhabitants = self.memory.inhabitants(prefix);
            found.extend(inhabitants.map(|(name, record)| (Name::from(name), record.clone())));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        (found, goes_on)
    }

    /// Side records whose names a key may have as well: a value outshines the record, but a hash
    /// only where it has the field.
    fn doubtful(&self, page: &Page, replies: &[Reply]) -> (Vec<Name>, Vec<Command>) {
        let scanned = replies.first().filter(|_| self.stores_records()).and_then(Reply::as_array);
        let (found, _) = self.side_records(&page.prefix, scanned);
        let there =
            |key: &Option<Bytes>| key.as_ref().is_some_and(|key| self.index.contains_key(key));
        let doubts = found.into_iter().filter_map(|(name, _)| {
            let place = self.place(page.dir, &name)?;
            let doubtful = there(&place.full) || there(&place.bare);
            let ask = doubtful.then(|| ask_name(&page.prefix, name.as_bytes(), &place))?;
            Some((name, ask))
        });
        doubts.unzip()
    }

    /// Symlinks and special files.
    fn list_sides(
        &mut self,
        page: &Page,
        scan: &Bytes,
        after: Option<&Name>,
        found: impl Iterator<Item = (Name, Record)>,
        entries: &mut Vec<Listed<Self>>,
        cx: &mut Cx<Redis>,
    ) {
        for (name, record) in found {
            // A directory of this name outshines the record.
            let outshone = self
                .place(page.dir, &name)
                .is_none_or(|place| place.dir.is_some_and(|dir| self.index.is_dir(&dir)));
            if after.is_some_and(|after| name <= *after) || outshone {
                continue;
            }
            let seen = Seen { what: What::Side, size: 0, record, ttl: None, stored: true };
            let attr = self.place_node(page.dir, &name, &page.prefix, seen, cx);
            entries.push(listed(name.clone(), attr, Cursor::Sides(scan.clone(), Some(name))));
        }
    }

    fn list_dir(
        &mut self,
        page: &Page,
        component: &[u8],
        answer: Option<&[Reply]>,
        entries: &mut Vec<Listed<Self>>,
        cx: &mut Cx<Redis>,
    ) {
        let below = self.below(&page.prefix, component);
        let stored = answer.and_then(|it| it.get(1)?.as_bytes()).and_then(Record::parse);
        let has = stored.is_some();
        let record = self.record_over(&below, SELF_FIELD, stored, Kind::Dir);
        let name = Name::from(self.options.naming.encode_component(component));
        let seen = Seen { what: What::Dir, size: 0, record, ttl: None, stored: has };
        let attr = self.place_node(page.dir, &name, &page.prefix, seen, cx);
        self.remember_component(attr.ino, &page.prefix, &name, component);
        entries.push(listed(name, attr, Cursor::Dirs(Some(component.to_vec()))));
    }

    /// A key, or the fields of a small hash. Returns where to go on if the hash is a large one.
    fn list_key(
        &mut self,
        page: &Page,
        component: &[u8],
        after: Option<&[u8]>,
        answer: &[Reply],
        entries: &mut Vec<Listed<Self>>,
        cx: &mut Cx<Redis>,
    ) -> Option<Cursor> {
        let [kind, size, ttl, rest @ ..] = answer else { return None };
        let kind = kind.as_bytes()?;
        let ttl = ttl.as_int();
        if kind == b"none" {
            return None;
        }
        if kind == b"hash" {
            let fields = size.as_int()?;
            if rest.is_empty() && fields > 0 {
                let scan = Bytes::from_static(b"0");
                return Some(Cursor::Scan(component.to_vec(), scan, None));
            }
            let at = |field: &[u8]| Cursor::Fields(component.to_vec(), field.to_vec());
            self.list_fields(page, component, after, (rest, ttl), at, entries, cx);
            return None;
        }
        // The value of a key that is a directory as well is shown inside it.
        if self.index.is_dir(&self.below(&page.prefix, component)) {
            return None;
        }
        let what = if kind == b"string" { What::String } else { What::Collection };
        let size = size.as_int().and_then(|n| u64::try_from(n).ok())?;
        let stored = rest.first().and_then(Reply::as_bytes).and_then(Record::parse);
        let name = Name::from(self.options.naming.encode_component(component));
        let has = stored.is_some();
        let record = self.record_over(&page.prefix, name.as_bytes(), stored, Kind::File);
        let seen = Seen { what, size, record, ttl, stored: has };
        let attr = self.place_node(page.dir, &name, &page.prefix, seen, cx);
        self.remember_component(attr.ino, &page.prefix, &name, component);
        entries.push(listed(name, attr, Cursor::Keys(Some(component.to_vec()))));
        None
    }

    #[allow(clippy::too_many_arguments, reason = "the two callers differ in the cursor only")]
    fn list_fields(
        &mut self,
        page: &Page,
        component: &[u8],
        after: Option<&[u8]>,
        (fields, ttl): (&[Reply], Option<i64>),
        at: impl Fn(&[u8]) -> Cursor,
        entries: &mut Vec<Listed<Self>>,
        cx: &mut Cx<Redis>,
    ) {
        let naming = self.options.naming;
        let mut fields: Vec<&[Reply]> = fields.chunks_exact(4).collect();
        fields.sort_by(|a, b| a[0].as_bytes().cmp(&b[0].as_bytes()));
        for it in fields {
            let (Some(field), Some(size)) = (it[0].as_bytes(), it[1].as_int()) else { continue };
            if after.is_some_and(|after| field <= after) {
                continue;
            }
            let full = naming.full_field(component, field);
            // The key that has this very name. The script tried what it is nearly always; where
            // the two differ, the index knows the key and takes it for no hash.
            let rival = naming.component_of(&full);
            let usual = [component, b".", field].concat() == rival;
            let shadowed = match usual {
                true => it[3].as_int() == Some(1),
                false => {
                    rival != component
                        && self.index.contains_key(&[&page.prefix[..], &rival].concat())
                }
            };
            let encoded = if shadowed {
                naming.encode_shadowed(component, field)
            } else {
                naming.encode_field(component, field)
            };
            let name = Name::from(encoded);
            if let Reading::Shortened(_) = naming.decode(name.as_bytes()) {
                let long = (component.to_vec(), field.to_vec());
                self.long_fields.insert((page.dir, name.clone()), long);
            }
            // A directory of the same name shows the value inside.
            if !shadowed && self.index.is_dir(&self.below(&page.prefix, &rival)) {
                continue;
            }
            // The script looked up the record by the plain name.
            let prefix = naming.full_field(component, b"");
            let plain: &[&[u8]] =
                if field.is_empty() { &[&prefix] } else { &[&prefix, b".", field] };
            let is_plain = plain.concat() == name.as_bytes();
            let stored = it[2].as_bytes().and_then(Record::parse);
            let has = stored.is_some();
            let record = self.record_over(&page.prefix, name.as_bytes(), stored, Kind::File);
            let size = u64::try_from(size).unwrap_or(0);
            let seen = Seen { what: What::Field, size, record, ttl, stored: has };
            let attr = self.place_node(page.dir, &name, &page.prefix, seen, cx);
            if !is_plain && let Some(node) = self.tree.get_mut(attr.ino) {
                // Its record was not looked up: what is said of it holds for the moment only.
                node.tainted = Epoch(self.epoch.0 + 1);
            }
            entries.push(listed(name, attr, at(field)));
        }
    }
}

fn listed(name: Name, attr: Attr, after: Cursor) -> Listed<Keys> {
    Listed { name, ino: attr.ino, kind: attr.kind, attr: Some(attr), after }
}
