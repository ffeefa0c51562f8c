//! The kernel's side of the engine: what may be asked, what is answered, what a file is.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{Fh, Ino, LockOwner};
use crate::lock::Lock;
use crate::replay::brief;
use crate::time::{Duration, Wall};

/// One component of a path: any bytes without `/` and NUL, as the kernel hands them in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Bytes);

impl Name {
    /// The longest name a directory entry may have (`NAME_MAX`), in bytes.
    pub const MAX: usize = 255;

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Name {
    fn from(bytes: &[u8]) -> Self {
        Name(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Name::from(text.as_bytes())
    }
}

impl From<Vec<u8>> for Name {
    fn from(bytes: Vec<u8>) -> Self {
        Name(Bytes::from(bytes))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Who asks: the filesystem ids of the calling process, and what it wants of new files.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(default)]
pub struct Caller {
    /// Its `fsuid`.
    pub uid: u32,
    /// Its `fsgid`.
    pub gid: u32,
    /// Its thread id, for messages only.
    pub pid: u32,
    /// The permissions that what it makes is not to have (`umask(2)`), `0777`; 0 where the kernel
    /// has applied that itself.
    pub umask: u16,
}

/// What kind of file an inode is (`S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of inode(7)")]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// Attributes of an inode, as `stat` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// File type.
    pub kind: Kind,
    /// Permission, set-id and sticky bits: `07777`.
    pub perm: u16,
    /// Number of names; for a directory, two and one for each directory in it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it.
    pub rdev: u32,
    /// Length of the contents in bytes; of a symlink, of its target.
    pub size: u64,
    /// Last read, where the layout keeps it.
    pub atime: Wall,
    /// Last change of the contents.
    pub mtime: Wall,
    /// Last change of the attributes or the contents.
    pub ctime: Wall,
}

/// The attributes that a `SetAttr` changes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SetAttr {
    /// New permission bits, `07777`.
    pub perm: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length: truncate or extend with zeros.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// A time to set, as `utimensat(2)` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SetTime {
    /// `UTIME_NOW`.
    Now,
    /// This time.
    At(Wall),
}

/// How `rename` treats an existing target (`renameat2(2)`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum RenameMode {
    /// Replace it.
    #[default]
    Replace,
    /// `RENAME_NOREPLACE`: fail with `EEXIST`.
    NoReplace,
    /// `RENAME_EXCHANGE`: swap the two names.
    Exchange,
}

/// How `setxattr` treats an existing attribute (`setxattr(2)`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum XattrMode {
    /// Create or replace.
    #[default]
    Any,
    /// `XATTR_CREATE`: fail with `EEXIST` if it exists.
    Create,
    /// `XATTR_REPLACE`: fail with `ENODATA` if it does not.
    Replace,
}

/// The open flags that mean something to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenFlags {
    /// Opened for writing.
    pub write: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_EXCL` (with `O_CREAT`).
    pub exclusive: bool,
}

/// What `fallocate(2)` is to do with a range. The modes that move what lies behind it
/// (`FALLOC_FL_COLLAPSE_RANGE`, `FALLOC_FL_INSERT_RANGE`) and those that share or unshare blocks are
/// no operations of any layout; the frontend refuses them with `EOPNOTSUPP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FallocateMode {
    /// `FALLOC_FL_KEEP_SIZE`.
    pub keep_size: bool,
    /// `FALLOC_FL_PUNCH_HOLE`.
    pub punch_hole: bool,
    /// `FALLOC_FL_ZERO_RANGE`.
    pub zero_range: bool,
}

/// What `lseek(2)` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Whence {
    /// `SEEK_DATA`: the next place that is not in a hole.
    Data,
    /// `SEEK_HOLE`: the next hole; every file ends with one.
    Hole,
}

/// A request of the kernel (or of the driver, for [`Request::Attach`] and [`Request::Detach`]).
///
/// Replay logs hold requests by the names of their variants and fields: none of these is ever
/// renamed, and a field that is added to an existing variant says `#[serde(default)]`.
///
/// Each is answered once by `Output::Respond`, but for [`Request::Forget`], which has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields are those of the FUSE operation of the same name")]
pub enum Request {
    /// Reach the server, check that it can be served from, and start the layout's background
    /// work. Answered by [`Response::Attached`] or [`Response::Refused`].
    Attach,
    /// Write back everything and give up sessions. Answered by [`Response::Done`], or the first
    /// write error.
    Detach,
    Lookup {
        parent: Ino,
        name: Name,
    },
    Forget {
        ino: Ino,
        count: u64,
    },
    GetAttr {
        ino: Ino,
    },
    SetAttr {
        ino: Ino,
        set: SetAttr,
        caller: Caller,
    },
    ReadLink {
        ino: Ino,
    },
    /// Regular files too, when `kind` is `File`.
    Mknod {
        parent: Ino,
        name: Name,
        kind: Kind,
        perm: u16,
        rdev: u32,
        caller: Caller,
    },
    Mkdir {
        parent: Ino,
        name: Name,
        perm: u16,
        caller: Caller,
    },
    Symlink {
        parent: Ino,
        name: Name,
        target: Bytes,
        caller: Caller,
    },
    Unlink {
        parent: Ino,
        name: Name,
    },
    Rmdir {
        parent: Ino,
        name: Name,
    },
    Rename {
        parent: Ino,
        name: Name,
        to_parent: Ino,
        to_name: Name,
        mode: RenameMode,
    },
    Link {
        ino: Ino,
        parent: Ino,
        name: Name,
    },
    Create {
        parent: Ino,
        name: Name,
        perm: u16,
        flags: OpenFlags,
        caller: Caller,
    },
    Open {
        ino: Ino,
        flags: OpenFlags,
    },
    Read {
        ino: Ino,
        fh: Fh,
        offset: u64,
        size: u32,
    },
    Write {
        ino: Ino,
        fh: Fh,
        offset: u64,
        data: Bytes,
    },
    /// One descriptor was closed. POSIX `close`: with it, all record locks of the process on the
    /// file go; `owner` is that process.
    Flush {
        ino: Ino,
        fh: Fh,
        #[serde(default)]
        owner: LockOwner,
    },
    /// The last descriptor was closed. `owner` is given when the description may hold an `flock`.
    Release {
        ino: Ino,
        fh: Fh,
        #[serde(default)]
        owner: Option<LockOwner>,
    },
    Fsync {
        ino: Ino,
        fh: Fh,
        data_only: bool,
    },
    Fallocate {
        ino: Ino,
        fh: Fh,
        offset: u64,
        length: u64,
        mode: FallocateMode,
    },
    /// `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`.
    Seek {
        ino: Ino,
        fh: Fh,
        offset: u64,
        whence: Whence,
    },
    /// `copy_file_range(2)`, which may copy less than `length`.
    CopyRange {
        ino: Ino,
        fh: Fh,
        offset: u64,
        to_ino: Ino,
        to_fh: Fh,
        to_offset: u64,
        length: u64,
    },
    /// `F_GETLK`: the first lock of another owner that stands against this one.
    GetLock {
        ino: Ino,
        lock: Lock,
    },
    /// `fcntl(F_SETLK, F_SETLKW)` and `flock(2)`. With `wait` it may take for ever, until it is
    /// cancelled.
    SetLock {
        ino: Ino,
        lock: Lock,
        wait: bool,
    },
    /// Gives up the owner's locks in the range of `lock`, whatever their mode. Of a range that is
    /// the whole file both kinds go: an owner only ever has locks of one.
    Unlock {
        ino: Ino,
        lock: Lock,
    },
    OpenDir {
        ino: Ino,
    },
    /// `budget` is in bytes of the kernel's reply buffer, see [`DirEntry::cost`].
    ReadDir {
        ino: Ino,
        fh: Fh,
        offset: u64,
        budget: u32,
        plus: bool,
    },
    ReleaseDir {
        ino: Ino,
        fh: Fh,
    },
    FsyncDir {
        ino: Ino,
    },
    StatFs,
    GetXattr {
        ino: Ino,
        name: Name,
    },
    ListXattr {
        ino: Ino,
    },
    SetXattr {
        ino: Ino,
        name: Name,
        value: Bytes,
        mode: XattrMode,
    },
    RemoveXattr {
        ino: Ino,
        name: Name,
    },
}

impl Request {
    /// Its name and what it is about, without contents, for messages and reports.
    #[must_use]
    pub fn summary(&self) -> String {
        use alloc::format;
        match self {
            Request::Write { ino, offset, data, .. } => {
                format!("write {ino:?} {offset}+{}", data.len())
            }
            Request::SetXattr { ino, name, value, .. } => {
                format!("setxattr {ino:?} {name} ({} bytes)", value.len())
            }
            other => format!("{other:?}"),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Response {
    /// It is done and there is nothing to tell.
    Done,
    /// The mount can serve.
    Attached(Attached),
    /// The mount cannot serve; one line that says why and what to do.
    Refused(String),
    /// A name that exists. Counts one lookup of its inode.
    Entry(Entry),
    /// A name that does not exist, which the kernel may remember for this long.
    NoEntry(Duration),
    /// Attributes, and how long the kernel may keep them.
    Attr(Attr, Duration),
    /// The target of a symlink.
    #[serde(serialize_with = "brief::bytes")]
    Target(Bytes),
    /// An opened file or directory.
    Opened(Opened),
    /// A created and opened file. Counts one lookup of its inode.
    Created(Entry, Opened),
    /// Contents; shorter than asked only at the end of the file.
    #[serde(serialize_with = "brief::bytes")]
    Data(Bytes),
    /// How many bytes were taken, or copied.
    Written(u32),
    /// Where the data or the hole begins.
    Offset(u64),
    /// The lock that stands in the way of a [`Request::GetLock`]; `None` when it could be had. The
    /// process of another mount shows as 0.
    Lock(Option<Lock>),
    /// A page of a directory; empty at its end. With `plus`, each entry whose `entry` is present
    /// counts one lookup (never `.` and `..`).
    Dir(Vec<DirEntry>),
    /// Figures of the filesystem.
    StatFs(StatFs),
    /// The value of an extended attribute.
    #[serde(serialize_with = "brief::bytes")]
    Xattr(Bytes),
    /// The names of the extended attributes, each followed by NUL (`listxattr(2)`).
    #[serde(serialize_with = "brief::bytes")]
    XattrNames(Bytes),
}

/// What the driver should know of a mount that can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Attached {
    /// The server or its rights allow no writing.
    pub read_only: bool,
    /// Things to tell the user once, a line each.
    pub notes: Vec<String>,
}

/// A looked-up name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Entry {
    /// The attributes of its inode.
    pub attr: Attr,
    /// How long the kernel may believe that the name leads there.
    pub entry_ttl: Duration,
    /// How long the kernel may believe the attributes.
    pub attr_ttl: Duration,
}

/// An opened file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Opened {
    /// Its handle.
    pub fh: Fh,
    /// The kernel's cached pages are still true.
    pub keep_cache: bool,
    /// Do not cache at all: the length in the attributes may be wrong.
    pub direct_io: bool,
}

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct DirEntry {
    /// Its inode number.
    pub ino: Ino,
    /// Where to go on after this entry; never 0.
    pub offset: u64,
    /// Its type.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
    /// Its attributes, in a listing with attributes.
    pub entry: Option<Entry>,
}

impl DirEntry {
    /// The bytes an entry takes in the kernel's buffer: `fuse_dirent` is 24 bytes and the name,
    /// padded to 8; `fuse_direntplus` has a `fuse_entry_out` of 128 bytes before it.
    #[must_use]
    pub fn cost(name_len: usize, plus: bool) -> usize {
        (24 + name_len).next_multiple_of(8) + if plus { 128 } else { 0 }
    }
}

/// Figures of the filesystem, as `statvfs(3)` shows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct StatFs {
    /// Capacity in bytes.
    pub bytes_total: u64,
    /// Bytes not in use.
    pub bytes_free: u64,
    /// Files there are and could be.
    pub files_total: u64,
    /// Files there could still be.
    pub files_free: u64,
}
