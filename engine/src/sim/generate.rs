//! Sequences of operations from a seed: every one of them means something.
//!
//! A [`Draw`] is a handful of plain numbers. It becomes an [`Op`] against a [`Model`] of what there
//! is at that moment: numbers are indices, wrapped into the paths, descriptors and names that are
//! live, so any numbers make a sensible operation, and a sequence that is shortened or changed (by
//! proptest's shrinking, by a fuzzer) stays sensible. [`Generator`] draws the numbers from a seed.

use alloc::vec;
use alloc::vec::Vec;

use crate::op::{FallocateMode, Kind, Name, RenameMode, Whence, XattrMode};
use crate::sim::model::Model;
use crate::sim::ops::{How, Op, Path, Slot};
use crate::time::Wall;

/// Descriptors in use at once, at most.
const SLOTS: u32 = 6;
/// No directory is made deeper than this.
const DEPTH: usize = 4;
/// No file is written or extended beyond this.
pub const FILE_MAX: u32 = 20_000;
/// What `mknod` may make.
const KINDS: [Kind; 5] =
    [Kind::Fifo, Kind::Socket, Kind::File, Kind::CharDevice, Kind::BlockDevice];
/// Bytes written at once, at most.
const WRITE_MAX: u32 = 6_000;

/// Names, few so that they meet. Each is there for something that layouts do with names.
#[must_use]
pub fn names() -> Vec<Name> {
    let mut names: Vec<Name> = [
        // One with and without extensions, so that `a` may be hash and file in turn.
        "a",
        "a.c",
        "a.b.c",
        "a.",
        "b",
        "b.c",
        "foo",
        "foo.c",
        "foo.o",
        // What git and editors make.
        ".git",
        "index",
        "index.lock",
        ".a.swp",
        "a~",
        // What layouts use as delimiters and escapes.
        "x:y",
        ":",
        "100%",
        "%2F",
        "%3A",
        "a%",
        ".dbmount:x",
        // White space and a line end.
        " ",
        "a b",
        "new\nline",
    ]
    .into_iter()
    .map(Name::from)
    .collect();
    // Not UTF-8; with and without an extension.
    names.push(Name::from(&b"\xff\xfe"[..]));
    names.push(Name::from(&b"\xc3.\x28"[..]));
    // Long ones, among them the longest that may be and the first that may not.
    for (letter, len) in [(b'L', 200), (b'M', 255), (b'N', 256)] {
        names.push(Name::from(vec![letter; len]));
    }
    names
}

/// What kind of operation a draw becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the operation of the same name, or a common use of it")]
pub enum Verb {
    Create,
    Open,
    Close,
    Read,
    Write,
    /// An open with `O_APPEND`.
    Append,
    Fsync,
    FTruncate,
    Truncate,
    Mkdir,
    Mknod,
    Symlink,
    Link,
    Unlink,
    /// Of a file that is open.
    UnlinkOpen,
    Rmdir,
    Rename,
    /// A file renamed over a file, as editors and git save.
    Replace,
    Stat,
    FStat,
    ReadLink,
    Chmod,
    Chown,
    Utimens,
    GetXattr,
    ListXattr,
    SetXattr,
    RemoveXattr,
    OpenDir,
    ReadDir,
    RewindDir,
}

/// Every verb, and how often it usually comes.
const WEIGHTS: [(Verb, u32); 31] = [
    (Verb::Create, 14),
    (Verb::Open, 6),
    (Verb::Close, 6),
    (Verb::Read, 6),
    (Verb::Write, 14),
    (Verb::Append, 4),
    (Verb::Fsync, 2),
    (Verb::FTruncate, 4),
    (Verb::Truncate, 3),
    (Verb::Mkdir, 8),
    (Verb::Mknod, 2),
    (Verb::Symlink, 3),
    (Verb::Link, 3),
    (Verb::Unlink, 6),
    (Verb::UnlinkOpen, 3),
    (Verb::Rmdir, 3),
    (Verb::Rename, 12),
    (Verb::Replace, 5),
    (Verb::Stat, 3),
    (Verb::FStat, 2),
    (Verb::ReadLink, 2),
    (Verb::Chmod, 3),
    (Verb::Chown, 2),
    (Verb::Utimens, 2),
    (Verb::GetXattr, 2),
    (Verb::ListXattr, 1),
    (Verb::SetXattr, 4),
    (Verb::RemoveXattr, 2),
    (Verb::OpenDir, 3),
    (Verb::ReadDir, 6),
    (Verb::RewindDir, 2),
];

/// The numbers that become one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Which verb, wrapped into the verbs of the run.
    pub verb: u32,
    /// Which path, descriptor, or the like.
    pub a: u32,
    /// Which other one.
    pub b: u32,
    /// How much, where, how.
    pub c: u32,
}

/// The verbs of a run, each as often as it is to come.
///
/// In swarm testing (Groce et al., 2012) each run leaves out some features altogether: a run
/// without `Unlink` fills directories, one without `Close` runs into descriptors that stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swarm(Vec<Verb>);

impl Swarm {
    /// Every verb, at its usual weight.
    #[must_use]
    pub fn all() -> Swarm {
        Swarm::weighted(|_, weight| weight)
    }

    /// The swarm of a seed: each verb is left out (one in four), usual, or much more frequent.
    /// What makes files is never left out.
    #[must_use]
    pub fn of(seed: u64) -> Swarm {
        let mut random = Random(seed);
        Swarm::weighted(|verb, weight| match random.next() % 8 {
            0 | 1 if !matches!(verb, Verb::Create | Verb::Mkdir) => 0,
            2 => weight * 4,
            _ => weight,
        })
    }

    fn weighted(mut weigh: impl FnMut(Verb, u32) -> u32) -> Swarm {
        let times = |(verb, weight)| core::iter::repeat_n(verb, weigh(verb, weight) as usize);
        Swarm(WEIGHTS.into_iter().flat_map(times).collect())
    }

    /// What `draw` becomes where things are as in `model`.
    #[must_use]
    pub fn op(&self, draw: Draw, model: &Model) -> Op {
        let verb = self.0.get(wrap(draw.verb, self.0.len())).copied().unwrap_or(Verb::Stat);
        let scene = Scene::of(model);
        scene.op(scene.possible(verb, draw.c), draw)
    }
}

/// An endless sequence of operations. It follows along in a model of its own, so that it knows
/// what is there; what runs the operations need not tell it anything.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    swarm: Swarm,
    model: Model,
    now: Wall,
}

impl Generator {
    /// The sequence of `seed`, starting where things are as in `model`.
    #[must_use]
    pub fn new(seed: u64, model: Model) -> Generator {
        let mut random = Random(seed);
        let swarm = Swarm::of(random.next());
        Generator { random, swarm, model, now: Wall::default() }
    }
}

impl Iterator for Generator {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        let op = self.swarm.op(self.random.draw(), &self.model);
        self.now.0 += 1;
        self.model.apply(&op, self.now);
        Some(op)
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and every seed is a good one.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, so it is no Iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The numbers of one operation.
    pub fn draw(&mut self) -> Draw {
        let (x, y) = (self.next(), self.next());
        Draw { verb: x as u32, a: (x >> 32) as u32, b: y as u32, c: (y >> 32) as u32 }
    }
}

fn wrap(index: u32, len: usize) -> usize {
    index as usize % len.max(1)
}

/// A number's low part as a choice among `n`, and the rest for further choices.
fn split(number: u32, n: u32) -> (u32, u32) {
    (number % n, number / n)
}

/// What there is to operate on.
struct Scene {
    paths: Vec<(Path, Kind)>,
    files: Vec<Slot>,
    streams: Vec<Slot>,
    open: Vec<(Slot, Path)>,
    xattr_max: usize,
    holes: bool,
}

impl Scene {
    fn of(model: &Model) -> Scene {
        let slots = model.slots();
        let of_kind = |streams: bool| {
            slots.iter().filter(|(_, s)| *s == streams).map(|(slot, _)| *slot).collect()
        };
        let (files, streams) = (of_kind(false), of_kind(true));
        let (xattr_max, holes) = (model.caps().max_xattr_size, model.caps().holes);
        Scene { paths: model.paths(), files, streams, open: model.open_paths(), xattr_max, holes }
    }

    /// `verb`, or what must come before it; now and then all the same, for `EBADF`.
    fn possible(&self, verb: Verb, number: u32) -> Verb {
        match verb {
            _ if number.is_multiple_of(16) => verb,
            Verb::Close
            | Verb::Read
            | Verb::Write
            | Verb::Fsync
            | Verb::FTruncate
            | Verb::FStat
                if self.files.is_empty() =>
            {
                Verb::Create
            }
            Verb::ReadDir | Verb::RewindDir if self.streams.is_empty() => Verb::OpenDir,
            verb => verb,
        }
    }

    fn op(&self, verb: Verb, Draw { a, b, c, .. }: Draw) -> Op {
        match verb {
            Verb::Create => {
                let (exclusive, rest) = split(b, 4);
                let (truncate, rest) = split(rest, 4);
                let (append, rest) = split(rest, 4);
                let how = How {
                    create: Some(perm(c)),
                    exclusive: exclusive == 0,
                    write: true,
                    truncate: truncate == 0,
                    append: append == 0,
                };
                Op::Open { slot: slot(rest), path: self.to_make(a), how }
            }
            Verb::Open => {
                let (write, rest) = split(b, 4);
                let write = write != 0;
                let how =
                    How { write, truncate: write && rest.is_multiple_of(6), ..How::default() };
                Op::Open { slot: slot(c), path: self.existing(a, is_file), how }
            }
            Verb::Close => Op::Close { slot: self.any_slot(a) },
            Verb::Read => {
                Op::Read { slot: self.file_slot(a), offset: offset(b), len: c % (FILE_MAX + 1) }
            }
            Verb::Write => Op::Write { slot: self.file_slot(a), offset: offset(b), data: data(c) },
            Verb::Append => {
                let how = How { create: Some(0o644), write: true, append: true, ..How::default() };
                Op::Open { slot: slot(b), path: self.existing(a, is_file), how }
            }
            Verb::Fsync => Op::Fsync { slot: self.file_slot(a) },
            // Where there are holes, what makes and finds them comes as often as this.
            Verb::FTruncate if self.holes && !b.is_multiple_of(3) => self.holes_op(a, b, c),
            Verb::Truncate if self.holes && !b.is_multiple_of(3) => self.holes_op(a, b, c),
            Verb::FTruncate => Op::FTruncate { slot: self.file_slot(a), size: offset(b) },
            Verb::Truncate => Op::Truncate { path: self.existing(a, is_file), size: offset(b) },
            Verb::Mkdir => Op::Mkdir { path: self.to_make(a), perm: perm(b) },
            Verb::Mknod => {
                let (kind, rest) = split(b, KINDS.len() as u32);
                let rdev = [0x0103, 0xfff0_0fff, u32::MAX][wrap(rest, 3)];
                let kind = KINDS[kind as usize];
                Op::Mknod { path: self.to_make(a), kind, perm: perm(c), rdev }
            }
            Verb::Symlink => Op::Symlink { path: self.to_make(a), target: target(b) },
            Verb::Link => Op::Link { from: self.existing(a, is_file), to: self.to_make(b) },
            Verb::Unlink => Op::Unlink { path: self.existing(a, is_no_dir) },
            Verb::UnlinkOpen => match self.open.get(wrap(a, self.open.len())) {
                Some((_, path)) => Op::Unlink { path: path.clone() },
                None => Op::Unlink { path: self.existing(a, is_no_dir) },
            },
            Verb::Rmdir => Op::Rmdir { path: self.existing(a, is_dir) },
            Verb::Rename => {
                let mode = match c % 8 {
                    0 => RenameMode::NoReplace,
                    1 => RenameMode::Exchange,
                    _ => RenameMode::Replace,
                };
                // Half onto something that is there, of whatever kind.
                let (onto, rest) = split(b, 2);
                let to = if onto == 0 { self.existing(rest, any) } else { self.to_make(rest) };
                Op::Rename { from: self.existing(a, any), to, mode }
            }
            Verb::Replace => {
                let (from, to) = (self.existing(a, is_file), self.existing(b, is_file));
                Op::Rename { from, to, mode: RenameMode::Replace }
            }
            Verb::Stat => Op::Stat { path: self.existing_or_root(a) },
            Verb::FStat => Op::FStat { slot: self.any_slot(a) },
            Verb::ReadLink => Op::ReadLink { path: self.existing(a, is_symlink) },
            Verb::Chmod => Op::Chmod { path: self.existing_or_root(a), perm: perm(b) },
            Verb::Chown => {
                let id = |n: u32| [None, Some(0), Some(1000), Some(65_534)][wrap(n, 4)];
                Op::Chown { path: self.existing(a, any), uid: id(b), gid: id(c) }
            }
            Verb::Utimens => {
                // Before 1970, after 2038, and the nanosecond.
                let time = |n: u32| {
                    [None, Some(Wall(-1)), Some(Wall(1)), Some(Wall::from_parts(1 << 32, 5))]
                        [wrap(n, 4)]
                };
                Op::Utimens { path: self.existing_or_root(a), atime: time(b), mtime: time(c) }
            }
            Verb::GetXattr => {
                let name = Name::from(["user.a", "user.b", "user.none"][wrap(b, 3)]);
                Op::GetXattr { path: self.existing_or_root(a), name }
            }
            Verb::ListXattr => Op::ListXattr { path: self.existing_or_root(a) },
            Verb::SetXattr => {
                let (mode, rest) = split(b, 4);
                let mode = match mode {
                    0 => XattrMode::Create,
                    1 => XattrMode::Replace,
                    _ => XattrMode::Any,
                };
                let value = self.xattr_value(c);
                let (path, name) = (self.existing_or_root(a), xattr_name(rest));
                Op::SetXattr { path, name, value, mode }
            }
            Verb::RemoveXattr => {
                Op::RemoveXattr { path: self.existing_or_root(a), name: xattr_name(b) }
            }
            Verb::OpenDir => {
                let (root, rest) = split(a, 3);
                let path = if root == 0 { Path::default() } else { self.existing(rest, is_dir) };
                Op::OpenDir { slot: slot(b), path }
            }
            Verb::ReadDir => {
                let count = [1, 2, 5, 1000][wrap(b, 4)];
                Op::ReadDir { slot: self.stream_slot(a), count }
            }
            Verb::RewindDir => Op::RewindDir { slot: self.stream_slot(a) },
        }
    }

    /// Ranges that start and end anywhere, short or of whole blocks.
    fn holes_op(&self, a: u32, b: u32, c: u32) -> Op {
        let (slot, (how, rest)) = (self.file_slot(a), split(b / 3, 8));
        let (way, more) = split(c, 4);
        let len = u64::from(match way {
            0 => 4096,
            1 => 8192 + more % 4096,
            _ => 1 + more % 200,
        });
        let offset = offset(rest);
        let mode =
            |keep_size, punch_hole, zero_range| FallocateMode { keep_size, punch_hole, zero_range };
        match how {
            0 | 1 => Op::Fallocate { slot, offset, len, mode: mode(true, true, false) },
            2 => {
                Op::Fallocate { slot, offset, len, mode: mode(rest.is_multiple_of(2), false, true) }
            }
            3 => Op::Fallocate {
                slot,
                offset,
                len,
                mode: mode(rest.is_multiple_of(2), false, false),
            },
            4 | 5 => {
                let to_offset = self::offset(more);
                Op::CopyRange { slot, offset, to: self.file_slot(a / 7), to_offset, len }
            }
            6 => Op::Seek { slot, offset, whence: Whence::Data },
            _ => Op::Seek { slot, offset, whence: Whence::Hole },
        }
    }

    /// A path that exists, mostly of the kind wanted; now and then of any kind, or one that is
    /// made up, for the errors.
    fn existing(&self, number: u32, wanted: fn(Kind) -> bool) -> Path {
        let (strange, rest) = split(number, 16);
        let of = |wanted: fn(Kind) -> bool| {
            let paths =
                self.paths.iter().filter(move |(path, kind)| wanted(*kind) && !path.0.is_empty());
            let paths: Vec<&Path> = paths.map(|(path, _)| path).collect();
            paths.get(wrap(rest, paths.len())).map(|path| (*path).clone())
        };
        let path = match strange {
            0 => None,
            1 => of(any),
            _ => of(wanted).or_else(|| of(any)),
        };
        path.unwrap_or_else(|| self.to_make(rest))
    }

    fn existing_or_root(&self, number: u32) -> Path {
        match split(number, 12) {
            (0, _) => Path::default(),
            (_, rest) => self.existing(rest, any),
        }
    }

    /// A name of the vocabulary in a directory that exists; now and then below what is none.
    fn to_make(&self, number: u32) -> Path {
        let names = names();
        let (name, rest) = split(number, names.len() as u32);
        let (strange, rest) = split(rest, 16);
        let parents: Vec<&Path> = self
            .paths
            .iter()
            .filter(|(path, kind)| path.0.len() < DEPTH && (*kind == Kind::Dir) == (strange != 0))
            .map(|(path, _)| path)
            .collect();
        let parent = parents.get(wrap(rest, parents.len())).copied().cloned().unwrap_or_default();
        parent.join(names[name as usize].clone())
    }

    /// Mostly short; some as long as may be, and a byte longer.
    fn xattr_value(&self, number: u32) -> Vec<u8> {
        match split(number, 16) {
            (0, rest) => vec![rest as u8; self.xattr_max],
            (1, rest) => vec![rest as u8; self.xattr_max + 1],
            (_, rest) => data(rest).into_iter().take(300).collect(),
        }
    }

    fn file_slot(&self, number: u32) -> Slot {
        self.files.get(wrap(number, self.files.len())).copied().unwrap_or(slot(number))
    }

    fn stream_slot(&self, number: u32) -> Slot {
        self.streams.get(wrap(number, self.streams.len())).copied().unwrap_or(slot(number))
    }

    fn any_slot(&self, number: u32) -> Slot {
        let (stream, rest) = split(number, 4);
        if stream == 0 { self.stream_slot(rest) } else { self.file_slot(rest) }
    }
}

fn any(_: Kind) -> bool {
    true
}

fn is_file(kind: Kind) -> bool {
    kind == Kind::File
}

fn is_dir(kind: Kind) -> bool {
    kind == Kind::Dir
}

fn is_no_dir(kind: Kind) -> bool {
    kind != Kind::Dir
}

fn is_symlink(kind: Kind) -> bool {
    kind == Kind::Symlink
}

fn slot(number: u32) -> Slot {
    Slot((number % SLOTS) as u8)
}

fn perm(number: u32) -> u16 {
    [0o644, 0o755, 0o600, 0o777, 0o444, 0, 0o2755, 0o4755, 0o6711, 0o1777][wrap(number, 10)]
}

/// Mostly small, so that ranges meet; some at and around a page and a block.
fn offset(number: u32) -> u64 {
    let (way, rest) = split(number, 8);
    u64::from(match way {
        0 => 0,
        1 => 4095 + rest % 3,
        2 => 8192,
        3 => rest % FILE_MAX,
        _ => rest % 64,
    })
}

/// Bytes that tell where they come from; zeros too, which a sparse file must not lose.
fn data(number: u32) -> Vec<u8> {
    let (way, rest) = split(number, 8);
    let (len, rest) = match way {
        0 => (0, rest),
        1 => (4096, rest),
        2 => split(rest, WRITE_MAX),
        _ => split(rest, 40),
    };
    let start = if rest.is_multiple_of(5) { return vec![0; len as usize] } else { rest };
    (0..len).map(|i| (start.wrapping_add(i) % 251) as u8).collect()
}

/// Never followed, so anything may stand in it.
fn target(number: u32) -> Vec<u8> {
    match number % 6 {
        0 => b"a".to_vec(),
        1 => b"../a/b".to_vec(),
        2 => b"/nowhere/at:all".to_vec(),
        3 => b"\xff\xfe".to_vec(),
        4 => vec![b't'; 4095],
        _ => b"./.".to_vec(),
    }
}

fn xattr_name(number: u32) -> Name {
    let names = ["user.a", "user.b", "user.a", "user.b", "user.redis.ttl", "other.x", "user."];
    Name::from(names[wrap(number, names.len())])
}
