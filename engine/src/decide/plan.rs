//! A decision: a reply, or a plan of what must hold and what is to change.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name, Response, XattrMode};
use crate::time::Wall;

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is to change.
    Reply(Result<Reply, Errno>),
    /// Commit this, then answer.
    Commit(Plan),
    /// Not a metadata operation: another machine runs this request. Whoever hands one in has
    /// sent it to the wrong machine.
    Elsewhere,
}

/// A reply of a decision. Leases are the transaction machine's business, so entries and
/// attributes are named here, not filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Ready as it is.
    Ready(Response),
    /// An existing name, to be answered with `Response::Entry`.
    Entry(Attr),
    /// A name that does not exist, to be answered with `Response::NoEntry`.
    NoEntry,
    /// Attributes, to be answered with `Response::Attr`.
    Attr(Attr),
    /// `Create` met an existing file that it may open; it is opened (and truncated) as by `Open`.
    OpenExisting(Attr),
}

/// Preconditions and mutations in the filesystem's own words, applied all or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What must hold when the changes are applied. When one does not, the view is emptied and
    /// the request decided again.
    pub checks: Vec<Check>,
    /// What is to change, in order.
    pub changes: Vec<Change>,
    /// A second application could be told from the first: when the fate of the commit is unknown
    /// it must be settled by its token. Plans that only set values, and creates that may find
    /// their file there, say `false` and are simply applied again.
    pub once: bool,
    /// What to answer when it is done.
    pub answer: Answer,
}

/// A predicate on the server's state. Predicates rather than versions wherever changes commute:
/// many creates in one directory must not conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The directory exists and is not being removed.
    LiveDir(Ino),
    /// The inode exists (one without a name that is held open, too).
    Live(Ino),
    /// The inode has exactly this many names: what [`Change::Unlink`] calls the last name is it.
    /// Only asked of layouts with hard links.
    Links(Ino, u32),
    /// No entry of this name.
    Free(Ino, Name),
    /// The name leads to this inode.
    Leads(Ino, Name, Ino),
    /// The directory has no entries.
    Empty(Ino),
    /// `dir` is neither `ancestor` nor below it (rename into one's own subtree).
    NotBelow {
        /// The directory that receives the name.
        dir: Ino,
        /// The directory that moves.
        ancestor: Ino,
    },
    /// The extended attribute's presence suits the mode (`Create`: absent, `Replace`: present).
    Xattr(Ino, Name, XattrMode),
}

/// A mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new inode with its first name.
    Create {
        /// The directory.
        dir: Ino,
        /// Its name there.
        name: Name,
        /// All attributes; `attr.ino` is the fresh number.
        attr: Attr,
        /// Of a symlink.
        target: Option<Bytes>,
    },
    /// A further name of an inode; its link count grows by one.
    Link {
        /// The inode.
        ino: Ino,
        /// The directory of the new name.
        dir: Ino,
        /// The new name.
        name: Name,
    },
    /// A name goes away and the link count with it; with its last name the inode does too, unless
    /// it is held. A directory is empty ([`Check::Empty`]).
    Unlink {
        /// The directory.
        dir: Ino,
        /// The name.
        name: Name,
        /// What it leads to.
        ino: Ino,
        /// Its kind.
        kind: Kind,
        /// It was the last name.
        last: bool,
        /// Open on this mount: keep the contents until `Release`.
        held: bool,
    },
    /// A name moves. The target name is free, or an `Unlink` of it stands before this.
    Rename {
        /// The directory it leaves.
        dir: Ino,
        /// The name it had.
        name: Name,
        /// The directory it goes to.
        to_dir: Ino,
        /// The name it gets.
        to_name: Name,
        /// What is renamed.
        ino: Ino,
        /// Its kind.
        kind: Kind,
    },
    /// Two names change places.
    Exchange {
        /// One directory, name and inode.
        a: (Ino, Name, Ino),
        /// The other.
        b: (Ino, Name, Ino),
    },
    /// Attributes are set.
    SetAttr {
        /// Of which inode.
        ino: Ino,
        /// To which values.
        patch: Patch,
    },
    /// A directory's times follow a change of its entries; its link count moves by `nlink`.
    Touch {
        /// The directory.
        dir: Ino,
        /// The new mtime and ctime.
        at: Wall,
        /// By how much the number of its subdirectories changes.
        nlink: i32,
    },
    /// A range of a file holds zeros from now on; blocks that lie in it wholly need not be kept.
    /// Its length stays. Only of layouts with holes.
    Zero {
        /// Of which file.
        ino: Ino,
        /// The first byte.
        from: u64,
        /// Behind the last byte; it may lie behind the end of the file.
        to: u64,
    },
    /// A file is at least so long from now on; what is new are zeros. Only of layouts with holes.
    Grow {
        /// Of which file.
        ino: Ino,
        /// In bytes.
        size: u64,
    },
    /// Contents are copied on the server, at most [`Caps::max_copy`](super::Caps::max_copy) bytes.
    /// A [`Change::Grow`] for where they end stands after it. Ranges of one file do not overlap.
    Copy {
        /// The file they come from, and the first byte there.
        from: (Ino, u64),
        /// The file they go to, and the first byte there.
        to: (Ino, u64),
        /// How many bytes; they end at the source's end or before it.
        length: u64,
    },
    /// An extended attribute is set (see [`Check::Xattr`]) or, without a value, removed.
    Xattr {
        /// Of which inode.
        ino: Ino,
        /// Its name.
        name: Name,
        /// Its value.
        value: Option<Bytes>,
        /// The new ctime of the inode.
        at: Wall,
    },
}

/// Concrete values for attributes; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the fields are those of Attr")]
pub struct Patch {
    pub perm: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Wall>,
    pub mtime: Option<Wall>,
    pub ctime: Option<Wall>,
}

/// What a committed plan answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `Response::Done`.
    Done,
    /// The new or linked name, as `Response::Entry` of this inode.
    Entry(Ino),
    /// The new file, created and opened, as `Response::Created`.
    Created(Ino),
    /// The attributes as they are now, as `Response::Attr`.
    Attr(Ino),
    /// So many bytes were copied, as `Response::Written`.
    Written(u32),
}
