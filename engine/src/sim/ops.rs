//! Operations as programs see them (paths and descriptors), what they come to, and who can run
//! them: the reference model, the engine over a simulated server, a real mount.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::errno::Errno;
use crate::op::{FallocateMode, Kind, Name, RenameMode, Whence, XattrMode};
use crate::time::Wall;

/// A path from the root of the filesystem; the empty one is the root.
///
/// `.`, `..` and symlinks are never resolved: those are the kernel's business, not a filesystem's.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub Vec<Name>);

impl Path {
    /// The path of `name` in the directory that this is the path of.
    #[must_use]
    pub fn join(&self, name: Name) -> Path {
        let mut names = self.0.clone();
        names.push(name);
        Path(names)
    }

    /// From text with slashes.
    #[must_use]
    pub fn parse(text: &str) -> Path {
        Path(text.split('/').filter(|name| !name.is_empty()).map(Name::from).collect())
    }

    fn has_long_name(&self) -> bool {
        self.0.iter().any(|name| name.as_bytes().len() > Name::MAX)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A descriptor, numbered by who writes the sequence of operations. Opening into a slot that is in
/// use closes what was there first, as `dup2(2)` does. Files and directory streams share slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

/// How a file is opened. Every descriptor can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct How {
    /// `O_CREAT`, with these permissions (there is no umask).
    pub create: Option<u16>,
    /// `O_EXCL`.
    pub exclusive: bool,
    /// `O_RDWR`, not `O_RDONLY`.
    pub write: bool,
    /// `O_TRUNC`; only with `write`.
    pub truncate: bool,
    /// `O_APPEND`; only with `write`.
    pub append: bool,
}

/// One call of a program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the system call of the same name")]
pub enum Op {
    /// Of a regular file, with `O_NOFOLLOW` and `O_NONBLOCK`: a directory is `EISDIR`, a symlink
    /// `ELOOP`, any other file `ENXIO`.
    Open {
        slot: Slot,
        path: Path,
        how: How,
    },
    /// Of either kind of slot.
    Close {
        slot: Slot,
    },
    /// `pread`.
    Read {
        slot: Slot,
        offset: u64,
        len: u32,
    },
    /// `pwrite`, or with `O_APPEND` at the end, wherever `offset` points.
    Write {
        slot: Slot,
        offset: u64,
        data: Vec<u8>,
    },
    Fsync {
        slot: Slot,
    },
    FTruncate {
        slot: Slot,
        size: u64,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    /// Reserving, punching holes, zeroing.
    Fallocate {
        slot: Slot,
        offset: u64,
        len: u64,
        mode: FallocateMode,
    },
    /// `lseek` with `SEEK_DATA` or `SEEK_HOLE`.
    Seek {
        slot: Slot,
        offset: u64,
        whence: Whence,
    },
    /// `copy_file_range`.
    CopyRange {
        slot: Slot,
        offset: u64,
        to: Slot,
        to_offset: u64,
        len: u64,
    },
    Mkdir {
        path: Path,
        perm: u16,
    },
    /// `rdev` counts for device nodes only.
    Mknod {
        path: Path,
        kind: Kind,
        perm: u16,
        rdev: u32,
    },
    Symlink {
        path: Path,
        target: Vec<u8>,
    },
    Link {
        from: Path,
        to: Path,
    },
    Unlink {
        path: Path,
    },
    Rmdir {
        path: Path,
    },
    Rename {
        from: Path,
        to: Path,
        mode: RenameMode,
    },
    /// `lstat`.
    Stat {
        path: Path,
    },
    /// `fstat`.
    FStat {
        slot: Slot,
    },
    ReadLink {
        path: Path,
    },
    /// Not following symlinks: of one, `EOPNOTSUPP`.
    Chmod {
        path: Path,
        perm: u16,
    },
    /// `lchown`.
    Chown {
        path: Path,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    /// `utimensat` with `AT_SYMLINK_NOFOLLOW`.
    Utimens {
        path: Path,
        atime: Option<Wall>,
        mtime: Option<Wall>,
    },
    /// `lgetxattr`.
    GetXattr {
        path: Path,
        name: Name,
    },
    /// `llistxattr`.
    ListXattr {
        path: Path,
    },
    /// `lsetxattr`.
    SetXattr {
        path: Path,
        name: Name,
        value: Vec<u8>,
        mode: XattrMode,
    },
    /// `lremovexattr`.
    RemoveXattr {
        path: Path,
        name: Name,
    },
    OpenDir {
        slot: Slot,
        path: Path,
    },
    /// The next entries of a stream: at least one and at most `count` (never 0) unless at the end.
    ReadDir {
        slot: Slot,
        count: u16,
    },
    /// `rewinddir`.
    RewindDir {
        slot: Slot,
    },
}

impl Op {
    /// The paths that it names: none, one or two.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Op::Link { from, to } | Op::Rename { from, to, .. } => alloc::vec![from, to],
            Op::Open { path, .. }
            | Op::Truncate { path, .. }
            | Op::Mkdir { path, .. }
            | Op::Mknod { path, .. }
            | Op::Symlink { path, .. }
            | Op::Unlink { path }
            | Op::Rmdir { path }
            | Op::Stat { path }
            | Op::ReadLink { path }
            | Op::Chmod { path, .. }
            | Op::Chown { path, .. }
            | Op::Utimens { path, .. }
            | Op::GetXattr { path, .. }
            | Op::ListXattr { path }
            | Op::SetXattr { path, .. }
            | Op::RemoveXattr { path, .. }
            | Op::OpenDir { path, .. } => alloc::vec![path],
            Op::Close { .. }
            | Op::Read { .. }
            | Op::Write { .. }
            | Op::Fsync { .. }
            | Op::FTruncate { .. }
            | Op::Fallocate { .. }
            | Op::Seek { .. }
            | Op::CopyRange { .. }
            | Op::FStat { .. }
            | Op::ReadDir { .. }
            | Op::RewindDir { .. } => Vec::new(),
        }
    }
}

/// The shortest part of `ops` found that still makes `fails` true: operations that are not needed
/// for it are left out, in ever smaller runs.
#[must_use]
pub fn shrink<T: Clone>(mut ops: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut run = ops.len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        let before = ops.len();
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..ops.len().min(at + run));
            if fails(&fewer) {
                ops = fewer;
            } else {
                at += run;
            }
        }
        run = if run == 1 && ops.len() < before { 1 } else { run / 2 };
    }
    ops
}

/// What an operation that succeeded came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to tell.
    Done,
    /// Bytes read, a target, a value.
    Bytes(Vec<u8>),
    /// How many bytes were taken.
    Written(u64),
    /// Where something was found.
    Offset(u64),
    /// Of `Stat`: contents and extended attributes are `None`.
    Stat(Summary),
    /// Names of extended attributes, without those that the layout makes up.
    Names(BTreeSet<Name>),
    /// Of `ReadDir`: entries other than `.` and `..`, and whether the end was reached.
    Page {
        /// The entries' names.
        names: Vec<Name>,
        /// There are no more.
        end: bool,
    },
}

/// What one operation came to.
pub type Reply = Result<Outcome, Errno>;

/// Whatever can run operations.
///
/// For the engine: `Path`s are walked by one `Lookup` a component, and looked-up inodes forgotten
/// again (or kept, as the kernel does); a slot keeps its inode and `Fh` from `Open`/`Create`/
/// `OpenDir` to `Release`/`ReleaseDir`, with a `Flush` before it. The executor plays the kernel's
/// part: it answers `ELOOP`, `EISDIR` and `ENXIO` to an open as [`Op::Open`] says and `EBADF` to a
/// slot that is not open, is not of the kind, or may not write (`EINVAL` to `FTruncate` of one);
/// of two paths it walks both up to their last names, the first first, before it asks for more
/// (a path through what is no directory is `ENOTDIR` then); it answers `EEXIST`, `EISDIR` or
/// `EBUSY` itself where the root would be made, unlinked, or removed or renamed. The caller is the
/// same throughout, the model's. `decide/against_model.rs` holds a small one.
///
/// On a real mount (as root, umask 0): the calls named at each [`Op`], relative to a descriptor of
/// the parent opened with `RESOLVE_NO_SYMLINKS`.
pub trait Executor {
    /// Runs `op` at the time `now`.
    fn run(&mut self, op: &Op, now: Wall) -> Reply;

    /// Everything there is, the root included.
    fn tree(&mut self) -> BTreeMap<Path, Summary>;
}

/// What can be seen of a file. `None` means: not looked at, not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// File type.
    pub kind: Kind,
    /// Permission bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node; 0 of anything else.
    pub rdev: u32,
    /// Length of a regular file or symlink; 0 of anything else.
    pub size: u64,
    /// Link count.
    pub nlink: Option<u32>,
    /// Last change of the contents.
    pub mtime: Option<Wall>,
    /// Last change of the status.
    pub ctime: Option<Wall>,
    /// Of a regular file.
    pub contents: Option<Vec<u8>>,
    /// Of a symlink.
    pub target: Option<Vec<u8>>,
    /// Extended attributes, without those that the layout makes up.
    pub xattrs: Option<BTreeMap<Name, Vec<u8>>>,
    /// The first path, in order, that leads to the same inode.
    pub first: Option<Path>,
}

impl Summary {
    /// The first thing in which two summaries differ, among those that both look at.
    #[must_use]
    pub fn difference(&self, other: &Summary) -> Option<String> {
        fn differ<T: PartialEq + fmt::Debug>(what: &str, a: &T, b: &T) -> Option<String> {
            (a != b).then(|| format!("{what}: {a:?} against {b:?}"))
        }
        fn seen<T: PartialEq + fmt::Debug>(
            what: &str,
            a: &Option<T>,
            b: &Option<T>,
        ) -> Option<String> {
            differ(what, a.as_ref()?, b.as_ref()?)
        }
        differ("kind", &self.kind, &other.kind)
            .or_else(|| differ("perm", &self.perm, &other.perm))
            .or_else(|| differ("owner", &(self.uid, self.gid), &(other.uid, other.gid)))
            .or_else(|| differ("rdev", &self.rdev, &other.rdev))
            .or_else(|| differ("size", &self.size, &other.size))
            .or_else(|| seen("nlink", &self.nlink, &other.nlink))
            .or_else(|| seen("mtime", &self.mtime, &other.mtime))
            .or_else(|| seen("ctime", &self.ctime, &other.ctime))
            .or_else(|| seen("contents", &self.contents, &other.contents))
            .or_else(|| seen("target", &self.target, &other.target))
            .or_else(|| seen("xattrs", &self.xattrs, &other.xattrs))
            .or_else(|| seen("first", &self.first, &other.first))
    }
}

/// The first difference between what should be there and what is, as a line.
#[must_use]
pub fn tree_difference(
    should: &BTreeMap<Path, Summary>,
    is: &BTreeMap<Path, Summary>,
) -> Option<String> {
    let paths: BTreeSet<&Path> = should.keys().chain(is.keys()).collect();
    paths.into_iter().find_map(|path| match (should.get(path), is.get(path)) {
        (Some(a), Some(b)) => a.difference(b).map(|what| format!("{path}: {what}")),
        (Some(a), None) => Some(format!("{path}: {:?} is not there", a.kind)),
        (None, Some(b)) => Some(format!("{path}: {:?} should not be there", b.kind)),
        (None, None) => None,
    })
}

/// What the reference model says of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelReply {
    /// It comes to this.
    Is(Reply),
    /// One of these places, or, where `nowhere`, `ENXIO`: how much of what reads as zeros is a hole
    /// is up to the filesystem.
    Place {
        /// Where data, or a hole, may begin.
        places: BTreeSet<u64>,
        /// There may be none.
        nowhere: bool,
    },
    /// A page of a directory stream, which POSIX leaves partly open (readdir: whether an entry
    /// added or removed since the last `opendir` or `rewinddir` is returned is unspecified).
    Stream {
        /// Names that were there all the time: by the end each has come once.
        always: BTreeSet<Name>,
        /// Names that were there at any time: no others come.
        ever: BTreeSet<Name>,
    },
}

/// Holds replies to what the model says; knows what each stream has returned so far.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    seen: BTreeMap<Slot, BTreeSet<Name>>,
}

impl Judge {
    /// Whether `reply` is one that `op` may come to; if not, why.
    pub fn judge(&mut self, op: &Op, should: &ModelReply, is: &Reply) -> Result<(), String> {
        // Whatever begins or ends a stream makes its past not count.
        match op {
            Op::Open { slot, .. }
            | Op::Close { slot }
            | Op::OpenDir { slot, .. }
            | Op::RewindDir { slot } => {
                self.seen.remove(slot);
            }
            _ => {}
        }
        match (should, is) {
            (ModelReply::Is(Ok(Outcome::Stat(should))), Ok(Outcome::Stat(is))) => {
                match should.difference(is) {
                    Some(what) => Err(what),
                    None => Ok(()),
                }
            }
            (ModelReply::Is(Err(should)), Err(is)) if same_errno(op, *should, *is) => Ok(()),
            (ModelReply::Is(should), is) if should == is => Ok(()),
            (ModelReply::Is(should), is) => Err(format!("{is:?}, should be {should:?}")),
            (ModelReply::Place { places, .. }, Ok(Outcome::Offset(at))) if places.contains(at) => {
                Ok(())
            }
            (ModelReply::Place { nowhere: true, .. }, Err(Errno::ENXIO)) => Ok(()),
            (ModelReply::Place { places, nowhere }, is) => {
                let (least, most) = (places.first(), places.last());
                Err(format!("{is:?}, should be within {least:?} to {most:?}, or none: {nowhere}"))
            }
            (ModelReply::Stream { always, ever }, Ok(Outcome::Page { names, end })) => {
                self.page(op, (always, ever), names, *end)
            }
            (ModelReply::Stream { .. }, is) => Err(format!("{is:?}, should be a page")),
        }
    }

    fn page(
        &mut self,
        op: &Op,
        (always, ever): (&BTreeSet<Name>, &BTreeSet<Name>),
        names: &[Name],
        end: bool,
    ) -> Result<(), String> {
        let Op::ReadDir { slot, count } = op else { return Err("a page of no stream".into()) };
        if names.len() > usize::from(*count) || (names.is_empty() && !end) {
            return Err(format!("{} names where 1 to {count} were to come", names.len()));
        }
        let seen = self.seen.entry(*slot).or_default();
        for name in names {
            if !ever.contains(name) {
                return Err(format!("{name} was never there"));
            }
            // A name removed and made again is a new entry that may come again.
            if !seen.insert(name.clone()) && always.contains(name) {
                return Err(format!("{name} comes twice"));
            }
        }
        match always.iter().find(|name| end && !seen.contains(*name)) {
            Some(name) => Err(format!("{name} was there all the time and never came")),
            None => Ok(()),
        }
    }
}

/// Whether the one errno is as good as the other for `op`. POSIX fixes no order between errors
/// (XSH 2.3), and these are where the kernel in front of a filesystem or the letter of POSIX differ
/// from the model's own order.
fn same_errno(op: &Op, should: Errno, is: Errno) -> bool {
    use Errno::{EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOTDIR, ENOTEMPTY, EPERM};
    if should == is {
        return true;
    }
    match (op, should, is) {
        // rename, rmdir: either, says POSIX.
        (Op::Rename { .. } | Op::Rmdir { .. }, ENOTEMPTY, EEXIST) => true,
        // unlink: EPERM says POSIX, EISDIR Linux.
        (Op::Unlink { .. }, EISDIR, EPERM) => true,
        // Something onto its own ancestor: Linux looks at that first.
        (Op::Rename { .. }, EISDIR, ENOTEMPTY) => true,
        // A name that is too long may be refused before anything is looked for.
        (_, _, ENAMETOOLONG) => op.paths().into_iter().any(Path::has_long_name),
        // RESOLVE_NO_SYMLINKS and O_NOFOLLOW.
        (_, ENOTDIR, ELOOP) | (Op::Truncate { .. }, EINVAL, ELOOP) => true,
        _ => false,
    }
}
