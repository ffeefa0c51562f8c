//! The seam between the engine and a layout: how plans become commands and replies facts.
//!
//! Every procedure of a layout starts with a method that is told what to do and ends with an
//! [`Outcome`]; in between it may hand out [`Work`], whose replies come back to
//! [`Layout::resume`]. A layout keeps what it must remember meanwhile in its ticket.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use bytes::Bytes;

use crate::backend::Backend;
use crate::contract::{Link, Mode};
use crate::decide::{Caps, Facts, Patch, Plan, Want};
use crate::engine::{Cx, Progress};
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::lock::Lock;
use crate::op::{Attached, Attr, Kind, Name};
use crate::time::{Duration, Wall};

/// A way of keeping a filesystem in a database.
pub trait Layout: Clone + Debug {
    /// The kind of server it speaks to.
    type Backend: Backend;
    /// What it must remember to understand the replies to its work.
    type Ticket: Clone + Debug + Send;
    /// A place in a directory: everything before it has been listed.
    type Cursor: Clone + Debug + Default + PartialEq + Send;

    /// What it can hold.
    fn caps(&self) -> Caps;

    /// Looks at the server: can it be served from? Ends with [`Outcome::Attached`] or
    /// [`Outcome::Refused`].
    fn attach(&mut self, cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Gives up what it holds on the server (sessions, leases). Everything has been written back.
    fn detach(&mut self, cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Fetches facts. Ends with [`Outcome::Facts`], which answers every want; an entry comes with
    /// the attributes of what it leads to.
    fn fetch(&mut self, wants: &[Want], cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Applies a plan, all or none. Ends with [`Outcome::Applied`] or [`Outcome::Conflict`].
    fn commit(&mut self, plan: &Plan, token: Token, cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Lists up to `limit` entries of a directory from a place in it. Ends with
    /// [`Outcome::Page`].
    fn list(
        &mut self,
        dir: Ino,
        from: &Self::Cursor,
        limit: usize,
        cx: &mut Cx<Self::Backend>,
    ) -> Step<Self>;

    /// Whether an inode may be opened, and how.
    fn open(&mut self, ino: Ino, write: bool) -> Result<(), Errno>;

    /// Reads a range of a file. Ends with [`Outcome::Data`].
    fn read(&mut self, ino: Ino, offset: u64, len: u32, cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Whether [`read`](Self::read) hands over all of the file, whatever range it is asked for, so
    /// that one read serves everybody who waits.
    fn reads_whole(&self, _ino: Ino) -> bool {
        false
    }

    /// At most this much of a file travels in one write. When the server is slower than the writer,
    /// as much as that gathers while the write before is under way.
    fn write_bytes(&self) -> usize {
        1 << 20
    }

    /// Writes a file's dirty extents. Ends with [`Outcome::Wrote`].
    fn write(&mut self, ino: Ino, out: &WriteOut, cx: &mut Cx<Self::Backend>) -> Step<Self>;

    /// Makes all that was acknowledged of an inode (contents, attributes, names) survive a crash of
    /// the server: an fsync waits for it. What programs wrote has been through
    /// [`write`](Self::write) before. Ends with [`Outcome::Done`], or fails when the server has
    /// lost some of it meanwhile. Not needed where an acknowledgement promises that already.
    fn sync(&mut self, _ino: Ino, _cx: &mut Cx<Self::Backend>) -> Step<Self> {
        Step::Done(Outcome::Done)
    }

    /// Whether the server may have lost what it acknowledged of an inode, so that a close looks
    /// too, by [`sync`](Self::sync).
    fn unsure(&self, _ino: Ino) -> bool {
        false
    }

    /// Puts bytes at the end of a file, wherever others have moved it to meanwhile, and marks its
    /// mtime and ctime. Ends with [`Outcome::Wrote`] and the length right after that. Only of
    /// layouts with [`Caps::append`]. A second application is told from the first by the token.
    fn append(
        &mut self,
        _ino: Ino,
        _data: &Bytes,
        _mtime: Wall,
        _token: Token,
        _cx: &mut Cx<Self::Backend>,
    ) -> Step<Self> {
        Step::fail(Errno::EOPNOTSUPP)
    }

    /// Replaces the locks of this mount on a file, or looks whether it could. Ends with
    /// [`Outcome::Locked`]. Only of layouts with [`Caps::locks`]. The engine has one such procedure
    /// a file under way at a time, and calls it again when [`Cx::unlocked`] is told. Whoever had a
    /// lock before may have written: with a lock that was wanted and is had, the layout says
    /// [`Cx::invalidate_inode`] unless it knows that the file is as it was.
    fn lock(&mut self, _ino: Ino, _change: &LockChange, _cx: &mut Cx<Self::Backend>) -> Step<Self> {
        Step::fail(Errno::ENOSYS)
    }

    /// The bytes in which a file is best read and cached, where the layout cuts its contents into
    /// pieces of its own; else `Config::block_bytes`.
    fn block_bytes(&self, _ino: Ino) -> Option<u32> {
        None
    }

    /// Nothing will be read or written through handles any more: what the server keeps for them
    /// only (the contents of an inode without names, what was written and not published) may go.
    /// The work is done by a later [`task`](Self::task).
    fn release(&mut self, ino: Ino, cx: &mut Cx<Self::Backend>);

    /// Whether the inode has lost its last name, by whomever, and is kept for who has it open here.
    fn is_held(&self, _ino: Ino) -> bool {
        false
    }

    /// Nobody remembers the inode any more: neither the kernel, nor a handle, nor the fact cache.
    fn forget(&mut self, ino: Ino);

    /// Takes the replies to some work.
    fn resume(
        &mut self,
        ticket: Self::Ticket,
        replies: Vec<<Self::Backend as Backend>::Reply>,
        cx: &mut Cx<Self::Backend>,
    ) -> Step<Self>;

    /// Nobody waits any more for the replies to some work, which the server may have done, or may
    /// still do: what it changes is not known to be as it was.
    fn given_up(&mut self, _ticket: Self::Ticket, _cx: &mut Cx<Self::Backend>) {}

    /// Work of its own accord (indexing, revalidating, reclaiming), called after every input
    /// until there is none. Bounded by the layout: it counts its own outstanding tasks. Ends with
    /// [`Outcome::Done`].
    fn task(&mut self, cx: &mut Cx<Self::Backend>) -> Option<Work<Self>>;

    /// When [`task`](Self::task) will have something to do although nothing happens.
    fn task_due(&self) -> Option<crate::time::Mono> {
        None
    }

    /// The server said something unasked.
    fn push(&mut self, push: <Self::Backend as Backend>::Push, cx: &mut Cx<Self::Backend>);

    /// A lane's connection came up or was lost.
    fn link(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Self::Backend>);

    /// How long a fact about a name, fetched at `since`, stays true; zero when something has
    /// happened to it since.
    fn entry_lease(&self, dir: Ino, name: &Name, found: Option<Ino>, since: Epoch) -> Duration;

    /// How long attributes and contents of an inode, fetched at `since`, stay true.
    fn attr_lease(&self, ino: Ino, since: Epoch) -> Duration;

    /// Now, on the scale of the leases: counts the pushes there have been.
    fn epoch(&self) -> Epoch;

    /// How far the background work is that a user waits for.
    fn progress(&self) -> Progress {
        Progress { finished: true, ..Progress::default() }
    }

    /// The directory an inode's name is in; the root is its own.
    fn parent(&self, ino: Ino) -> Ino;

    /// A path for messages: how the user would find the inode.
    fn describe(&self, ino: Ino) -> String;
}

/// Counts a layout's invalidations, so that a reply that crossed one on the way is not believed
/// for longer than the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// What a procedure of a layout comes to.
#[derive(Clone, Debug)]
pub enum Step<L: Layout> {
    /// It has ended.
    Done(Outcome<L>),
    /// It goes on when these commands are answered.
    Work(Work<L>),
    /// It cannot be known yet (the index is being built): start again after `Cx::wake`.
    Park,
    /// It failed.
    Fail(Failure),
}

impl<L: Layout> Step<L> {
    /// It failed with an errno and nothing to say about it.
    #[must_use]
    pub fn fail(errno: Errno) -> Self {
        Step::Fail(Failure { errno, text: None })
    }
}

/// An error for the caller, and a line for the log when there is something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the kernel.
    pub errno: Errno,
    /// For the log: what, where, and what to do.
    pub text: Option<String>,
}

/// Commands whose replies a layout needs. Applying them a second time must do no harm: after a
/// lost connection the engine sends them again.
#[derive(Clone, Debug)]
pub struct Work<L: Layout> {
    /// Where to send them.
    pub lane: Lane,
    /// What they are to each other.
    pub mode: Mode,
    /// The commands.
    pub commands: Vec<<L::Backend as Backend>::Command>,
    /// For the replies.
    pub ticket: L::Ticket,
}

/// How a procedure of a layout ended.
#[derive(Clone, Debug)]
pub enum Outcome<L: Layout> {
    /// The server can be served from.
    Attached(Attached),
    /// It cannot; one line that says why and what to do.
    Refused(String),
    /// The facts.
    Facts(Facts),
    /// The plan is applied; facts that are known anew by that.
    Applied(Facts),
    /// A check of the plan did not hold; nothing was applied.
    Conflict,
    /// Some entries.
    Page(Page<L>),
    /// Some contents.
    Data(Data),
    /// The extents are written, and this is the file's length now.
    Wrote {
        /// In bytes.
        size: u64,
        /// It is where others read it. Otherwise it waits for a write that is to be published.
        published: bool,
    },
    /// The locks are as asked for; or this lock of another mount stands in the way, and nothing
    /// was changed.
    Locked(Result<(), Lock>),
    /// Done, and nothing to tell.
    Done,
}

/// A page of a directory.
#[derive(Clone, Debug)]
pub struct Page<L: Layout> {
    /// The entries, without `.` and `..`.
    pub entries: Vec<Listed<L>>,
    /// Where to go on; `None` when this was the last page.
    pub next: Option<L::Cursor>,
}

/// One entry of a page.
#[derive(Clone, Debug)]
pub struct Listed<L: Layout> {
    /// Its name.
    pub name: Name,
    /// Its inode number.
    pub ino: Ino,
    /// Its type.
    pub kind: Kind,
    /// Its attributes, where they came with the listing.
    pub attr: Option<Attr>,
    /// The place after it.
    pub after: L::Cursor,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// Where it starts; at or before what was asked for.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// The file ends with them.
    pub end: bool,
}

/// What to do about the locks of this mount on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockChange {
    /// It must not be kept out by a lock of another mount. The locks of this mount were looked at
    /// already.
    pub wanted: Option<Lock>,
    /// All locks of this mount on the file from now on; `None` when it is only a question.
    pub hold: Option<Vec<Lock>>,
}

/// What to write of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOut {
    /// The extents are all there is: what the file held before goes away, in one step for every
    /// reader.
    pub replace: bool,
    /// Offset and bytes, in ascending order, without overlap.
    pub extents: Vec<(u64, Bytes)>,
    /// When the last of them was written.
    pub mtime: Wall,
    /// Attributes that were set meanwhile, to be seen no later than the contents. Only of layouts
    /// with [`Caps::attrs_with_data`], and never a length. Such a write may come without extents,
    /// and then [`mtime`](Self::mtime) says nothing.
    pub attrs: Patch,
    /// Somebody waits for it (flush, fsync, close): it must be where others read it. Otherwise a
    /// layout may put it aside until then. Such a write may come without extents.
    pub publish: bool,
}
