//! The table tests' workbench: a small world of facts, and one `check` that decides a row in every
//! way the transaction machine may go about it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    Answer, Cached, Caps, Change, Check, Decision, Fact, Facts, Held, Missing, Patch, Plan, Reply,
    View, Want, acl, decide,
};
use crate::id::Ino;
use crate::op::{Attr, Caller, Kind, Name, Request, Response, StatFs, Whence, XattrMode};
use crate::time::Wall;

/// The time of every decision.
pub(super) const NOW: Wall = Wall(7);
/// Who asks.
pub(super) const ME: Caller = Caller { uid: 10, gid: 20, pid: 1, umask: 0 };

/// What makes a row's world differ from the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twist {
    ReadOnly,
    NoHardLinks,
    NoSpecialFiles,
    NoExchange,
    NoXattrs,
    NoDirNlink,
    NoRenameCtime,
    NoHoles,
    NoAcls,
    Held(u64),
}

/// A rule, a request that it speaks of, and what the request must come to.
#[derive(Debug)]
pub(super) struct Row {
    rule: &'static str,
    twists: &'static [Twist],
    request: Request,
    expect: &'static str,
}

pub(super) fn row(rule: &'static str, request: Request, expect: &'static str) -> Row {
    Row { rule, twists: &[], request, expect }
}

impl Row {
    pub(super) fn with(mut self, twists: &'static [Twist]) -> Row {
        self.twists = twists;
        self
    }
}

/// Decides each row from nothing, from leases, and without assuming anything; each must come to
/// the same in no more round trips than promised.
pub(super) fn check(rows: &[Row]) {
    for Row { rule, twists, request, expect } in rows {
        let world = World::new(twists);
        let cold_rounds = if matches!(request, Request::Rename { .. }) { 2 } else { 1 };
        for (way, leased, assume, rounds) in [
            ("cold", false, true, cold_rounds),
            ("warm", true, true, 0),
            ("after a failed check", false, false, 3),
        ] {
            let outcome = world.settle(request, leased, assume);
            assert_eq!(outcome.text, *expect, "{rule}: {way}: {request:?} {twists:?}");
            // A lease does not tell for sure what is gone, nor what lies below what (asked before
            // an errno that the latter would outweigh): that takes a question more.
            let unsure = u32::from(leased && outcome.unsure);
            assert!(outcome.rounds <= rounds + unsure, "{rule}: {way}: {} rounds", outcome.rounds);
        }
    }
}

struct Outcome {
    /// The decision that stood, as a line.
    text: String,
    /// Round trips before the first decision.
    rounds: u32,
    /// It hung on what is never taken from a lease.
    unsure: bool,
}

/// The tree that rows speak of; its names say what they are.
#[derive(Debug)]
pub(super) struct World {
    names: BTreeMap<(Ino, Name), Ino>,
    attrs: BTreeMap<Ino, Attr>,
    xattrs: BTreeMap<(Ino, Name), Bytes>,
    caps: Caps,
    read_only: bool,
    held: Option<Ino>,
}

impl World {
    pub(super) fn new(twists: &[Twist]) -> World {
        let has = |twist| !twists.contains(&twist);
        let mut world = World {
            names: BTreeMap::new(),
            attrs: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            caps: Caps {
                hard_links: has(Twist::NoHardLinks),
                special_files: has(Twist::NoSpecialFiles),
                exchange: has(Twist::NoExchange),
                max_file_size: 1 << 20,
                max_links: 100,
                max_xattr_size: if has(Twist::NoXattrs) { 44 } else { 0 },
                reserved_xattrs: &[b"user.redis."],
                dir_nlink: has(Twist::NoDirNlink),
                rename_ctime: has(Twist::NoRenameCtime),
                holes: has(Twist::NoHoles),
                acls: has(Twist::NoAcls),
                max_copy: if has(Twist::NoHoles) { 1 << 16 } else { 0 },
                ..Caps::LEAST
            },
            read_only: !has(Twist::ReadOnly),
            held: twists.iter().find_map(|twist| match twist {
                Twist::Held(ino) => Some(Ino(*ino)),
                _ => None,
            }),
        };
        for (dir, name, ino, kind, perm, nlink) in [
            (0, "", 1, Kind::Dir, 0o755, 9),
            (1, "file", 2, Kind::File, 0o644, 1),
            (1, "dir", 3, Kind::Dir, 0o755, 4),
            (3, "sub", 4, Kind::Dir, 0o755, 3),
            (4, "deep", 5, Kind::Dir, 0o755, 2),
            (3, "inner", 6, Kind::File, 0o644, 1),
            (1, "empty", 7, Kind::Dir, 0o755, 2),
            (1, "empty2", 8, Kind::Dir, 0o755, 2),
            (1, "link", 9, Kind::Symlink, 0o777, 1),
            (1, "h1", 10, Kind::File, 0o644, 2),
            (1, "h2", 10, Kind::File, 0o644, 2),
            (1, "fifo", 11, Kind::Fifo, 0o644, 1),
            (1, "sgid", 12, Kind::Dir, 0o2775, 2),
            (1, "suid", 13, Kind::File, 0o6755, 1),
            (1, "mandatory", 14, Kind::File, 0o2644, 1),
            (1, "full", 15, Kind::Dir, 0o755, 100),
            (3, "full", 20, Kind::Dir, 0o755, 100),
            (15, "x", 19, Kind::File, 0o644, 1),
            (1, "hfull", 16, Kind::File, 0o644, 100),
            (1, "other", 17, Kind::File, 0o644, 1),
            (1, "listed", 21, Kind::File, 0o4615, 1),
            (1, "hands on", 22, Kind::Dir, 0o755, 2),
            (1, "hands on modes", 23, Kind::Dir, 0o755, 2),
            (4, "leaf", 18, Kind::File, 0o644, 1),
            (0, "removed dir", 91, Kind::Dir, 0o755, 0),
            (0, "removed file", 92, Kind::File, 0o644, 0),
        ] {
            let (ino, gid) = (Ino(ino), if ino == 12 { 77 } else { 20 });
            if dir != 0 {
                world.names.insert((Ino(dir), name.into()), ino);
            }
            let (rdev, size, at) = (0, 4, Wall(0));
            let (atime, mtime, ctime) = (at, at, at);
            let attr =
                Attr { ino, kind, perm, nlink, uid: 10, gid, rdev, size, atime, mtime, ctime };
            world.attrs.insert(ino, attr);
        }
        world.names.insert((Ino(1), "stale".into()), Ino(90));
        world.names.insert((Ino(3), "up to the root".into()), Ino(1));
        world.xattrs.insert((Ino(2), "user.set".into()), Bytes::from_static(b"v"));
        world.xattrs.insert((Ino(2), "user.redis.ttl".into()), Bytes::from_static(b"9"));
        for (ino, name, list) in [
            (21, acl::ACCESS, acl::some()),
            (22, acl::DEFAULT, acl::some()),
            (23, acl::DEFAULT, acl::minimal()),
        ] {
            world.xattrs.insert((Ino(ino), name.into()), list);
        }
        world
    }

    /// Goes about a request as the transaction machine does: ask, decide, commit; when a check
    /// fails, once more from fresh facts and without assuming anything.
    fn settle(&self, request: &Request, leased: bool, assume: bool) -> Outcome {
        let mut fresh = Facts::new();
        let mut outcome = Outcome { text: String::new(), rounds: 0, unsure: false };
        let (mut leased, mut assume) = (leased, assume);
        let mut refused = false;
        loop {
            match self.decide(request, &fresh, leased, assume) {
                Err(Missing(wants)) => {
                    assert!(!wants.is_empty(), "misses nothing");
                    assert!(!wants.iter().any(|want| fresh.contains_key(want)), "asks twice");
                    for want in wants {
                        self.answer(want, &mut fresh, &mut outcome.unsure);
                    }
                    outcome.rounds += u32::from(!refused);
                }
                Ok(Decision::Commit(plan)) if !plan.checks.iter().all(|c| self.holds(c)) => {
                    assert!(!refused, "a check fails that fresh facts speak for: {plan:?}");
                    (refused, leased, assume) = (true, false, false);
                    fresh.clear();
                }
                Ok(decision) => {
                    assert!(!refused || !matches!(decision, Decision::Commit(_)));
                    outcome.text = line(&decision);
                    return outcome;
                }
            }
        }
    }

    /// One decision, over leases on everything or on nothing.
    fn decide(
        &self,
        request: &Request,
        fresh: &Facts,
        leased: bool,
        assume: bool,
    ) -> Result<Decision, Missing> {
        let none = Leases(Facts::new());
        let cached: &dyn Cached = if leased { self } else { &none };
        decide(request, &self.view(fresh, cached, assume))
    }

    pub(super) fn view<'a>(
        &'a self,
        fresh: &'a Facts,
        cached: &'a dyn Cached,
        assume: bool,
    ) -> View<'a> {
        let (caps, read_only) = (self.caps, self.read_only);
        View { fresh, cached, caps, now: NOW, read_only, assume, held: self }
    }

    /// What a server would answer. Attributes come along with names.
    fn answer(&self, want: Want, facts: &mut Facts, unsure: &mut bool) {
        let fact = self.fact(&want);
        if let Fact::Entry(Some(ino)) = fact {
            let attr = self.fact(&Want::Attr(ino));
            *unsure |= attr == Fact::Attr(None);
            facts.insert(Want::Attr(ino), attr);
        }
        *unsure |= matches!(fact, Fact::Attr(None) | Fact::Below(_));
        facts.insert(want, fact);
    }

    fn fact(&self, want: &Want) -> Fact {
        match want {
            Want::Entry(dir, name) => Fact::Entry(self.names.get(&(*dir, name.clone())).copied()),
            Want::Attr(ino) => Fact::Attr(self.attrs.get(ino).copied()),
            Want::Empty(dir) => Fact::Empty(!self.names.keys().any(|(d, _)| d == dir)),
            Want::Below { dir, ancestor } => Fact::Below(self.below(*dir, *ancestor)),
            Want::Target(_) => Fact::Target(Bytes::from_static(b"file")),
            Want::Xattr(ino, name) => Fact::Xattr(self.xattrs.get(&(*ino, name.clone())).cloned()),
            Want::XattrNames(ino) => Fact::XattrNames(
                self.xattrs.keys().filter(|(i, _)| i == ino).map(|(_, n)| n.clone()).collect(),
            ),
            Want::StatFs => Fact::StatFs(StatFs::default()),
            // The first two bytes of every file are a hole.
            Want::Seek(_, offset, Whence::Data) => Fact::Seek(Some(2.max(*offset))),
            Want::Seek(_, offset, Whence::Hole) if *offset < 2 => Fact::Seek(Some(*offset)),
            Want::Seek(..) => Fact::Seek(None),
            Want::FreshIno(..) => Fact::FreshIno(Ino(100)),
        }
    }

    /// The attributes of an inode.
    pub(super) fn attr(&self, ino: Ino) -> Option<Attr> {
        self.attrs.get(&ino).copied()
    }

    /// The attributes of an inode as a fact.
    pub(super) fn fact_of(&self, ino: Ino) -> Fact {
        self.fact(&Want::Attr(ino))
    }

    fn below(&self, dir: Ino, ancestor: Ino) -> bool {
        let mut at = dir;
        while at != ancestor {
            let up = self.names.iter().find(|(_, ino)| **ino == at && at != Ino::ROOT);
            let Some(((parent, _), _)) = up else { return false };
            at = *parent;
        }
        true
    }

    fn holds(&self, check: &Check) -> bool {
        let leads = |dir: &Ino, name: &Name| self.names.get(&(*dir, name.clone())).copied();
        match check {
            Check::LiveDir(ino) => {
                self.attrs.get(ino).is_some_and(|a| a.kind == Kind::Dir && a.nlink > 0)
            }
            Check::Live(ino) => self.attrs.contains_key(ino),
            Check::Links(ino, links) => self.attrs.get(ino).is_some_and(|a| a.nlink == *links),
            Check::Free(dir, name) => leads(dir, name).is_none(),
            Check::Leads(dir, name, ino) => leads(dir, name) == Some(*ino),
            Check::Empty(dir) => self.fact(&Want::Empty(*dir)) == Fact::Empty(true),
            Check::NotBelow { dir, ancestor } => !self.below(*dir, *ancestor),
            Check::Xattr(ino, name, mode) => {
                let there = self.xattrs.contains_key(&(*ino, name.clone()));
                match mode {
                    XattrMode::Any => true,
                    XattrMode::Create => !there,
                    XattrMode::Replace => there,
                }
            }
        }
    }
}

/// Leases on these facts and no others.
#[derive(Debug)]
pub(super) struct Leases(pub(super) Facts);

impl Cached for Leases {
    fn cached(&self, want: &Want) -> Option<Fact> {
        self.0.get(want).cloned()
    }
}

impl Cached for World {
    fn cached(&self, want: &Want) -> Option<Fact> {
        match want {
            // These change without their directory's or inode's own attributes telling.
            Want::Empty(_) | Want::Below { .. } => None,
            Want::Entry(dir, _) if !self.attrs.contains_key(dir) => None,
            want => Some(self.fact(want)),
        }
    }
}

impl Held for World {
    fn is_held(&self, ino: Ino) -> bool {
        self.held == Some(ino)
    }
}

/// A decision as one line, for tables.
pub(super) fn line(decision: &Decision) -> String {
    match decision {
        Decision::Elsewhere => "elsewhere".to_string(),
        Decision::Reply(Err(errno)) => errno.to_string(),
        Decision::Reply(Ok(reply)) => match reply {
            Reply::Ready(Response::Target(target)) => format!("target {}", target.escape_ascii()),
            Reply::Ready(Response::Xattr(value)) => format!("xattr {}", value.escape_ascii()),
            Reply::Ready(Response::XattrNames(l)) => format!("xattrs {}", l.escape_ascii()),
            Reply::Ready(Response::StatFs(_)) => "statfs".to_string(),
            Reply::Ready(other) => format!("{other:?}"),
            Reply::Entry(attr) => format!("entry {:?}", attr.ino),
            Reply::NoEntry => "no entry".to_string(),
            Reply::Attr(attr) => format!("attr {:?}", attr.ino),
            Reply::OpenExisting(attr) => format!("open {:?}", attr.ino),
        },
        Decision::Commit(Plan { checks, changes, once, answer }) => {
            let checks: Vec<String> = checks.iter().map(check_word).collect();
            let changes: Vec<String> = changes.iter().map(change_word).collect();
            let answer = match answer {
                Answer::Done => String::new(),
                Answer::Entry(ino) => format!(" => entry {ino:?}"),
                Answer::Created(ino) => format!(" => created {ino:?}"),
                Answer::Attr(ino) => format!(" => attr {ino:?}"),
                Answer::Written(bytes) => format!(" => wrote {bytes}"),
            };
            let once = if *once { "once: " } else { "" };
            format!("{once}{} => {}{answer}", checks.join(", "), changes.join(", "))
        }
    }
}

fn check_word(check: &Check) -> String {
    match check {
        Check::LiveDir(dir) => format!("dir {dir:?}"),
        Check::Live(ino) => format!("live {ino:?}"),
        Check::Links(ino, links) => format!("links {ino:?}={links}"),
        Check::Free(dir, name) => format!("free {dir:?}/{name}"),
        Check::Leads(dir, name, ino) => format!("leads {dir:?}/{name}={ino:?}"),
        Check::Empty(dir) => format!("empty {dir:?}"),
        Check::NotBelow { dir, ancestor } => format!("not {dir:?} below {ancestor:?}"),
        Check::Xattr(ino, name, XattrMode::Create) => format!("no xattr {ino:?} {name}"),
        Check::Xattr(ino, name, _) => format!("xattr {ino:?} {name}"),
    }
}

fn change_word(change: &Change) -> String {
    match change {
        Change::Create { dir, name, attr: a, target } => {
            let (Attr { ino, kind, perm, nlink, uid, gid, rdev, size, .. }, m) = (a, a.mtime);
            assert_eq!((a.atime, m, a.ctime), (NOW, NOW, NOW), "a new inode's times");
            let target = target.as_ref().map_or(String::new(), |t| format!(" -> {t:?}"));
            let rdev = if *rdev == 0 { String::new() } else { format!(" dev {rdev}") };
            format!(
                "create {dir:?}/{name} {kind:?} {ino:?} {perm:04o} {uid}:{gid} n{nlink} \
                 s{size}{rdev}{target}"
            )
        }
        Change::Link { ino, dir, name } => format!("link {dir:?}/{name}={ino:?}"),
        Change::Unlink { dir, name, ino, kind, last, held } => {
            let last = if *last { " last" } else { "" };
            let held = if *held { " held" } else { "" };
            format!("unlink {dir:?}/{name} {kind:?} {ino:?}{last}{held}")
        }
        Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
            format!("rename {dir:?}/{name} to {to_dir:?}/{to_name} {kind:?} {ino:?}")
        }
        Change::Exchange { a, b } => {
            format!("exchange {:?}/{} {:?} {:?}/{} {:?}", a.0, a.1, a.2, b.0, b.1, b.2)
        }
        Change::SetAttr { ino, patch } => format!("set {ino:?}{}", patch_word(patch)),
        Change::Touch { dir, at, nlink } => {
            assert_eq!(*at, NOW, "a touch is now");
            let nlink = if *nlink == 0 { String::new() } else { format!(" {nlink:+}") };
            format!("touch {dir:?}{nlink}")
        }
        Change::Zero { ino, from, to } => format!("zero {ino:?} {from}..{to}"),
        Change::Grow { ino, size } => format!("grow {ino:?} {size}"),
        Change::Copy { from, to, length } => {
            format!("copy {:?}+{} to {:?}+{} {length}", from.0, from.1, to.0, to.1)
        }
        Change::Xattr { ino, name, value, at } => {
            assert_eq!(*at, NOW, "an attribute's change is now");
            match value {
                Some(value) if *value == acl::some() => format!("list {ino:?} {name}"),
                Some(value) => format!("xattr {ino:?} {name}={}", value.escape_ascii()),
                None => format!("no xattr {ino:?} {name}"),
            }
        }
    }
}

fn patch_word(patch: &Patch) -> String {
    let Patch { perm, uid, gid, size, atime, mtime, ctime } = patch;
    let time = |name: &str, time: &Option<Wall>| {
        time.map_or(String::new(), |Wall(at)| format!(" {name}={at}"))
    };
    let number = |name: &str, n: Option<u64>| n.map_or(String::new(), |n| format!(" {name}={n}"));
    [
        perm.map_or(String::new(), |perm| format!(" {perm:04o}")),
        number("uid", uid.map(u64::from)),
        number("gid", gid.map(u64::from)),
        number("size", *size),
        time("a", atime),
        time("m", mtime),
        time("c", ctime),
    ]
    .concat()
}
