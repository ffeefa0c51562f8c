//! The keys layout: a Redis keyspace as files. `:` in a key is `/` in a path, hash fields are
//! `key.field`, other types are readable text.
//!
//! | file | what it is for |
//! |---|---|
//! | [`name`] | the bijection between keys and names |
//! | `place.rs` | where the value of a name can be, and the keys beside it |
//! | `index.rs` | which keys there are, and the directories that they imply |
//! | `tree.rs` | the inodes a mount knows |
//! | `record.rs` | side records: what Redis cannot hold of a file |
//! | `attach.rs` | the first look at the server |
//! | `facts.rs` | wants to questions, answers to facts |
//! | `lower.rs` | plans to programs of the commit script |
//! | `commit.rs` | the commit script's verdict, and the index after it |
//! | `rename_dir.rs` | directories renamed, at once or stepwise |
//! | `list.rs` | directory pages |
//! | `data.rs` | reading and writing values |
//! | `live.rs` | what pushes and a second look mean for what is known |
//! | `tasks.rs` | the index built by SCAN, looking again, orphans |
//! | `recorded.rs` | what a replay log must know: how sessions begin, where contents are |
//! | [`scripts`] | the server-side scripts |

mod attach;
mod commit;
mod data;
mod facts;
mod index;
mod list;
mod live;
mod lower;
pub mod name;
mod options;
mod place;
mod record;
mod recorded;
mod rename_dir;
pub mod scripts;
mod tasks;
mod tree;

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Push, Redis, Reply};
use crate::contract::{Link, Mode};
use crate::decide::{Caps, Plan, Want};
use crate::engine::{Cx, Progress};
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Epoch, Failure, Layout, Outcome, Step, Work, WriteOut};
use crate::op::{Kind, Name};
use crate::time::{Duration, Mono, Now, Wall};

use index::Index;
pub use list::Cursor;
use live::Live;
pub use options::{Attrs, Options};
use record::{Memory, Record};
use tree::{Tree, What};

/// Keys that start with this are dbmount's own and are not shown.
pub const RESERVED: &[u8] = b".dbmount:";
/// A redis value's default limit (`proto-max-bulk-len`).
const VALUE_LIMIT: u64 = 512 << 20;
/// For how long the contents of an unlinked, open file are kept without a sign of life.
const ORPHAN_LEASE: Duration = Duration::from_secs(3600);
/// For how long a commit is remembered, so that it is not applied twice.
const TOKEN_LEASE: Duration = Duration::from_secs(600);
/// Commits of one mount that can be remembered at a time: as many as can be on their way (see
/// `Config::max_ops`), or one that was applied would be applied again after a lost connection.
const TOKEN_SLOTS: u64 = 4096;
/// For how long after a write of ours an invalidation is taken for its echo.
const ECHO_WINDOW: Duration = Duration::from_millis(200);

/// A Redis keyspace as a filesystem.
#[derive(Clone, Debug)]
pub struct Keys {
    options: Options,
    index: Index,
    tree: Tree,
    memory: Memory,
    live: Live,
    /// Length limit of a value, from `proto-max-bulk-len`.
    value_limit: u64,
    /// Names of hash fields that are too long for a name, as they were listed.
    long_fields: alloc::collections::BTreeMap<(Ino, Name), (Vec<u8>, Vec<u8>)>,
    /// What shortened names stand for; filled by looking, hence the cell.
    long_names: core::cell::RefCell<place::LongNames>,
    /// Shown for what has no times.
    born: Wall,
    epoch: Epoch,
}

/// What the layout waits for.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// See `attach.rs`.
    #[doc(hidden)]
    Attach,
    /// See `facts.rs`.
    #[doc(hidden)]
    Facts(facts::Asked),
    /// See `commit.rs`.
    #[doc(hidden)]
    Commit(alloc::boxed::Box<commit::Committing>),
    /// See `rename_dir.rs`.
    #[doc(hidden)]
    Tree(alloc::boxed::Box<rename_dir::Moving>),
    /// See `list.rs`.
    #[doc(hidden)]
    List(alloc::boxed::Box<list::Page>),
    /// See `data.rs`.
    #[doc(hidden)]
    Read(alloc::boxed::Box<data::Reading>),
    /// See `data.rs`.
    #[doc(hidden)]
    Write(alloc::boxed::Box<data::Writing>),
    /// See `tasks.rs`.
    #[doc(hidden)]
    Task(tasks::Task),
    /// Nothing is to be learnt from the replies.
    #[doc(hidden)]
    Nothing,
}

impl Keys {
    /// A keys layout that has not looked at the server yet.
    #[must_use]
    pub fn new(options: Options, now: Now) -> Self {
        let options = options.normalised();
        let born = now.wall;
        let root = Record {
            kind: Kind::Dir,
            perm: 0o777 & !options.umask,
            uid: options.uid,
            gid: options.gid,
            atime: born,
            mtime: born,
            ctime: born,
            rdev: 0,
            target: Bytes::new(),
        };
        let bound = match options.attrs {
            Attrs::Stored => Some(options.remembered_times),
            Attrs::Session => None,
        };
        Keys {
            index: Index::new(options.naming.delimiter(), &options.prefix),
            tree: Tree::new(root.attr(Ino::ROOT, 0)),
            memory: Memory::bounded(bound),
            live: Live::default(),
            value_limit: VALUE_LIMIT,
            long_fields: alloc::collections::BTreeMap::new(),
            long_names: core::cell::RefCell::default(),
            born,
            epoch: Epoch(1),
            options,
        }
    }

    /// How many keys the index knows.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// How many inodes are remembered.
    #[must_use]
    pub fn inodes(&self) -> usize {
        self.tree.len()
    }

    /// The record of what has none.
    fn default_record(&self, kind: Kind) -> Record {
        let perm = match kind {
            Kind::Dir => 0o777,
            _ => 0o666,
        };
        Record {
            kind,
            perm: perm & !self.options.umask,
            uid: self.options.uid,
            gid: self.options.gid,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            rdev: 0,
            target: Bytes::new(),
        }
    }

    fn stores_records(&self) -> bool {
        self.options.attrs == Attrs::Stored
    }

    /// An error line of the server as a failure, with what was being done.
    fn refused(&self, line: &str, what: &str) -> Failure {
        let errno = match line.split(' ').next().unwrap_or_default() {
            "OOM" => Errno::ENOSPC,
            "READONLY" => Errno::EROFS,
            "NOPERM" => Errno::EACCES,
            "WRONGTYPE" => Errno::EIO,
            _ if line.contains("OOM command not allowed") => Errno::ENOSPC,
            _ if line.contains("no permissions")
                || line.contains("has no permission")
                || line.contains("user executing the script can't") =>
            {
                Errno::EACCES
            }
            _ if line.contains("read only replica") => Errno::EROFS,
            _ if line.contains("exceeds maximum allowed size") => Errno::EFBIG,
            "MISCONF" => Errno::ENOSPC,
            _ => Errno::EIO,
        };
        let advice = match errno {
            Errno::ENOSPC => "; free memory or raise maxmemory on the server",
            Errno::EACCES => "; ask for the right on the server (ACL SETUSER)",
            _ => "",
        };
        let text = alloc::format!("{what}: the server says: {line}{advice}");
        Failure { errno, text: Some(text) }
    }

    /// A reply of a shape that the commands cannot have.
    fn odd(&self, what: &str, reply: Option<&Reply>) -> Failure {
        let text = alloc::format!("{what}: the server's reply makes no sense: {reply:?}");
        Failure { errno: Errno::EIO, text: Some(text) }
    }

    fn work(
        lane: Lane,
        commands: Vec<crate::backend::redis::Command>,
        ticket: Ticket,
    ) -> Work<Self> {
        Work { lane, mode: Mode::Ordered, commands, ticket }
    }
}

impl Layout for Keys {
    type Backend = Redis;
    type Ticket = Ticket;
    type Cursor = Cursor;

    fn caps(&self) -> Caps {
        Caps {
            hard_links: false,
            special_files: true,
            exchange: false,
            max_file_size: self.value_limit,
            max_links: 1,
            max_xattr_size: 65_536,
            reserved_xattrs: &[b"user.redis."],
            dir_nlink: false,
            rename_ctime: false,
            ..Caps::LEAST
        }
    }

    fn attach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_attach(cx)
    }

    fn detach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_detach(cx)
    }

    fn fetch(&mut self, wants: &[Want], _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_fetch(wants)
    }

    fn commit(&mut self, plan: &Plan, token: Token, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_commit(plan, token, cx)
    }

    fn list(&mut self, dir: Ino, from: &Cursor, limit: usize, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_list(dir, from, limit, cx)
    }

    fn open(&mut self, ino: Ino, write: bool) -> Result<(), Errno> {
        match self.tree.get(ino) {
            None => Err(Errno::ESTALE),
            // Text that is made from a collection cannot be turned back into it.
            Some(node) if write && node.what == What::Collection => Err(Errno::EACCES),
            Some(_) => Ok(()),
        }
    }

    fn read(&mut self, ino: Ino, offset: u64, len: u32, _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_data_read(ino, offset, len)
    }

    fn reads_whole(&self, ino: Ino) -> bool {
        self.is_read_whole(ino)
    }

    fn write(&mut self, ino: Ino, out: &WriteOut, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_data_write(ino, out, cx)
    }

    fn release(&mut self, ino: Ino, _cx: &mut Cx<Redis>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        for key in [node.orphan.take(), node.stage.take()].into_iter().flatten() {
            self.live.drop_orphan(key);
        }
    }

    fn forget(&mut self, ino: Ino) {
        if let Some(node) = self.tree.get(ino)
            && !self.long_fields.is_empty()
        {
            self.long_fields.remove(&(node.parent, node.name.clone()));
        }
        self.tree.forget(ino);
    }

    fn resume(&mut self, ticket: Ticket, replies: Vec<Reply>, cx: &mut Cx<Redis>) -> Step<Self> {
        match ticket {
            Ticket::Attach => self.attached(&replies, cx),
            Ticket::Facts(asked) => self.fetched(asked, &replies, cx),
            Ticket::Commit(committing) => self.committed(*committing, &replies, cx),
            Ticket::Tree(moving) => self.moved(*moving, &replies, cx),
            Ticket::List(page) => self.listed(*page, &replies, cx),
            Ticket::Read(reading) => self.data_read(*reading, replies),
            Ticket::Write(writing) => self.data_written(*writing, &replies, cx),
            Ticket::Task(task) => self.task_done(task, &replies, cx),
            Ticket::Nothing => Step::Done(Outcome::Done),
        }
    }

    fn task(&mut self, cx: &mut Cx<Redis>) -> Option<Work<Self>> {
        self.next_task(cx)
    }

    fn task_due(&self) -> Option<Mono> {
        self.live.due()
    }

    fn push(&mut self, push: Push, cx: &mut Cx<Redis>) {
        self.pushed(push, cx);
    }

    fn link(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Redis>) {
        self.link_changed(lane, link, cx);
    }

    fn entry_lease(&self, dir: Ino, name: &Name, found: Option<Ino>, since: Epoch) -> Duration {
        self.lease_of_entry(dir, name, found, since)
    }

    fn attr_lease(&self, ino: Ino, since: Epoch) -> Duration {
        self.lease_of_attr(ino, since)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn progress(&self) -> Progress {
        self.live.progress(self.index.len())
    }

    fn parent(&self, ino: Ino) -> Ino {
        self.tree.get(ino).map_or(Ino::ROOT, |node| node.parent)
    }

    fn describe(&self, ino: Ino) -> String {
        match self.tree.path(ino) {
            Some(nodes) => {
                let mut path = String::from("/");
                for (n, node) in nodes.iter().enumerate() {
                    if n > 0 {
                        path.push('/');
                    }
                    path.push_str(&alloc::format!("{}", node.name));
                }
                path
            }
            None => alloc::format!("inode {} (unlinked)", ino.0),
        }
    }
}
