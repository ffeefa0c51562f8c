//! The volume layout: a POSIX filesystem whose disk is Redis.
//!
//! | file | what it is for |
//! |---|---|
//! | [`key`] | the keys of a volume |
//! | [`record`] | what they hold: superblock, inodes, directory entries |
//! | `options.rs` | what a user may choose |
//! | `tree.rs` | the inodes and names a mount knows |
//! | `attach.rs` | the first look at the server; making a volume |
//! | `facts.rs` | wants to questions, answers to facts |
//! | `lower.rs` | plans to steps of the commit script |
//! | `commit.rs` | the commit script's verdict, and what is known after it |
//! | `list.rs` | directory pages |
//! | `data.rs` | reading and writing blocks |
//! | `append.rs` | bytes put at the end, wherever that is |
//! | `locks.rs` | locks between mounts |
//! | `clean.rs` | bytes beyond the end of contents removed |
//! | `live.rs` | what pushes mean for what is known |
//! | `tasks.rs` | work of its own accord: looking again, the lease, reclaiming |
//! | `recorded.rs` | what a log of a session must know |
//! | [`scripts`] | the server-side scripts |
//! | [`tool`] | procedures over the whole volume: |
//! | [`fsck`] | checking and mending |
//! | [`gc`] | reclaiming at once |
//! | [`info`] | figures |
//!
//! # Round trips
//!
//! How many batches an operation waits for when the kernel has just looked up the names it is
//! about. `tests/sim/round_trips_posix.rs` counts them, with this table as its data. What this mount
//! changes itself takes nothing away from what its kernel remembers. To shorten a file takes a
//! second batch, which removes what its last block holds beyond the new end.
//!
#![doc = include_str!("round_trips.md")]

mod append;
mod attach;
mod clean;
mod commit;
mod data;
mod facts;
pub mod fsck;
pub mod gc;
pub mod info;
pub mod key;
mod list;
mod live;
mod locks;
mod lower;
mod options;
pub mod record;
mod recorded;
pub mod scripts;
mod tasks;
pub mod tool;
mod tree;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Push, Redis, Reply};
use crate::contract::{Link, Mode};
use crate::decide::{Caps, Plan, Want};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Epoch, Failure, Layout, LockChange, Outcome, Step, Work, WriteOut};
use crate::op::Name;
use crate::time::{Duration, Mono, Wall};

use key::{DataId, Key, Keyspace, MountId};
use live::Live;
pub use options::{BLOCK, Format, Options};
use record::{Corrupt, Stamp};
use tree::Tree;

/// The longest file: sizes stay whole numbers in the scripts, whose numbers have 53 bits.
const FILE_LIMIT: u64 = 1 << 50;
/// The most bytes that one script copies.
const MAX_COPY: u64 = 2 << 20;
/// For how long a mount counts as alive without a sign of life. Longer than an operation may take,
/// so that no commit is sent again whose token is forgotten.
const LEASE: Duration = Duration::from_secs(90);
/// Commits of one mount that are remembered at a time: as many as can be on their way.
const TOKEN_SLOTS: u64 = 4096;
/// How many inode numbers are taken at a time.
const NUMBERS: u64 = 4096;

/// A POSIX filesystem in Redis.
#[derive(Clone, Debug)]
pub struct Volume {
    options: Options,
    keys: Keyspace,
    tree: Tree,
    live: Live,
    /// Bytes of a block.
    block: u32,
    /// Limits of the volume; 0 for none.
    capacity: u64,
    inodes: u64,
    mount: MountId,
    /// Counts this mount's changes.
    serial: u64,
    /// Numbers that are ours to give out: the next, and the one behind the last.
    numbers: (u64, u64),
    epoch: Epoch,
}

/// What the layout waits for.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub enum Ticket {
    /// See `attach.rs`.
    Attach(attach::Stage),
    /// See `facts.rs`.
    Facts(facts::Asked),
    /// See `commit.rs`.
    Commit(Box<commit::Committing>),
    /// See `list.rs`.
    List(list::Asked),
    /// See `data.rs`.
    Read(data::Reading),
    /// See `data.rs`.
    Write(Box<data::Writing>),
    /// See `append.rs`.
    Append(Box<append::Appending>),
    /// See `locks.rs`.
    Lock(locks::Locking),
    /// See `clean.rs`.
    Clean(Box<clean::Cleaning>),
    /// See `tasks.rs`.
    Task(tasks::Task),
    /// Nothing is to be learnt from the replies.
    Nothing,
}

impl Volume {
    /// A volume that has not been looked at yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Volume {
            keys: options.keys.clone(),
            options,
            tree: Tree::default(),
            live: Live::default(),
            block: BLOCK,
            capacity: 0,
            inodes: 0,
            mount: MountId(0),
            serial: 0,
            numbers: (0, 0),
            epoch: Epoch(1),
        }
    }

    /// How many inodes are remembered.
    #[must_use]
    pub fn known_inodes(&self) -> usize {
        self.tree.len()
    }

    fn key(&self, key: Key) -> Bytes {
        self.keys.key(key)
    }

    /// The stamp of the next change.
    fn next_stamp(&mut self) -> Stamp {
        self.serial += 1;
        Stamp { mount: self.mount, serial: self.serial }
    }

    /// A number that nothing has had yet.
    fn fresh_number(&mut self) -> Option<u64> {
        let (next, end) = self.numbers;
        (next < end).then(|| {
            self.numbers.0 += 1;
            next
        })
    }

    fn take_numbers(&mut self, reply: Option<&Reply>) -> bool {
        let Some(last) = reply.and_then(Reply::as_int).and_then(|n| u64::try_from(n).ok()) else {
            return false;
        };
        self.numbers = ((last + 1).saturating_sub(NUMBERS), last + 1);
        true
    }

    fn ask_for_numbers(&self) -> Command {
        let by = decimal(NUMBERS);
        let words = ["HINCRBY", "ino"].map(|word| Bytes::from_static(word.as_bytes()));
        let [command, field] = words;
        Command::plain([command, self.key(Key::Usage), field, by])
    }

    fn block_key(&self, data: DataId, n: u64) -> Bytes {
        self.key(Key::Block(data, n))
    }

    /// An error line of the server as a failure, with what was being done.
    fn refused(&self, line: &str, what: &str) -> Failure {
        let errno = match line.split(' ').next().unwrap_or_default() {
            "OOM" | "MISCONF" => Errno::ENOSPC,
            "READONLY" => Errno::EROFS,
            "NOPERM" => Errno::EACCES,
            _ if line.contains("OOM command not allowed") => Errno::ENOSPC,
            _ if line.contains("no permissions") || line.contains("has no permission") => {
                Errno::EACCES
            }
            _ if line.contains("read only replica") => Errno::EROFS,
            _ => Errno::EIO,
        };
        let advice = match errno {
            Errno::ENOSPC => "; free memory or raise maxmemory on the server",
            Errno::EACCES => "; ask for the right on the server (ACL SETUSER)",
            _ => "",
        };
        let text = format!("{what}: the server says: {line}{advice}");
        Failure { errno, text: Some(text) }
    }

    /// A reply of a shape that the commands cannot have.
    fn odd(&self, what: &str, reply: Option<&Reply>) -> Failure {
        let text = match reply {
            Some(Reply::Error(line)) => return self.refused(line, what),
            _ => format!("{what}: the server's reply makes no sense: {reply:?}"),
        };
        Failure { errno: Errno::EIO, text: Some(text) }
    }

    fn corrupt(&self, corrupt: &Corrupt) -> Failure {
        let text = format!("volume {}: {corrupt}", self.keys.name());
        Failure { errno: Errno::EIO, text: Some(text) }
    }

    fn full(&self, what: &str) -> Failure {
        let text = format!("{what}: the volume has reached its limit (see df, df -i)");
        Failure { errno: Errno::ENOSPC, text: Some(text) }
    }

    fn work(lane: Lane, commands: Vec<Command>, ticket: Ticket) -> Work<Self> {
        Work { lane, mode: Mode::Ordered, commands, ticket }
    }
}

fn decimal(n: u64) -> Bytes {
    Bytes::from(format!("{n}"))
}

/// A number in a reply of a script.
fn count(reply: Option<&Reply>) -> Option<u64> {
    reply.and_then(Reply::as_int).and_then(|n| u64::try_from(n).ok())
}

impl Layout for Volume {
    type Backend = Redis;
    type Ticket = Ticket;
    /// The last entry that was listed.
    type Cursor = Vec<u8>;

    fn caps(&self) -> Caps {
        Caps {
            hard_links: true,
            special_files: true,
            exchange: true,
            max_file_size: FILE_LIMIT,
            max_links: u32::MAX >> 1,
            max_xattr_size: 65_536,
            reserved_xattrs: &[],
            dir_nlink: true,
            rename_ctime: true,
            append: true,
            locks: !self.options.read_only,
            acls: true,
            atime: true,
            holes: true,
            max_copy: MAX_COPY,
            attrs_with_data: false,
        }
    }

    fn attach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_attach(cx)
    }

    fn detach(&mut self, _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_detach()
    }

    fn fetch(&mut self, wants: &[Want], _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_fetch(wants)
    }

    fn commit(&mut self, plan: &Plan, token: Token, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_commit(plan.clone(), token, cx)
    }

    fn list(&mut self, dir: Ino, from: &Vec<u8>, limit: usize, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_list(dir, from, limit, cx)
    }

    fn open(&mut self, ino: Ino, _write: bool) -> Result<(), Errno> {
        // The kernel looks a name up anew then.
        self.tree.get(ino).filter(|node| !node.doomed).map(|_| ()).ok_or(Errno::ESTALE)
    }

    fn read(&mut self, ino: Ino, offset: u64, len: u32, _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_data_read(ino, offset, len)
    }

    fn write(&mut self, ino: Ino, out: &WriteOut, cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_data_write(ino, out.clone(), 0, cx)
    }

    fn append(
        &mut self,
        ino: Ino,
        data: &Bytes,
        mtime: Wall,
        token: Token,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let appending = append::Appending::new(ino, data.clone(), mtime, token);
        self.start_append(appending, cx)
    }

    fn lock(&mut self, ino: Ino, change: &LockChange, _cx: &mut Cx<Redis>) -> Step<Self> {
        self.start_lock(ino, change)
    }

    fn block_bytes(&self, _ino: Ino) -> Option<u32> {
        Some(self.block)
    }

    fn release(&mut self, ino: Ino, _cx: &mut Cx<Redis>) {
        if let Some(node) = self.tree.get_mut(ino)
            && core::mem::take(&mut node.held)
        {
            self.live.let_go(ino);
        }
    }

    fn is_held(&self, ino: Ino) -> bool {
        self.tree.get(ino).is_some_and(|node| node.held)
    }

    fn forget(&mut self, ino: Ino) {
        self.tree.forget(ino);
    }

    fn resume(&mut self, ticket: Ticket, replies: Vec<Reply>, cx: &mut Cx<Redis>) -> Step<Self> {
        match ticket {
            Ticket::Attach(stage) => self.attached(stage, &replies, cx),
            Ticket::Facts(asked) => self.fetched(asked, &replies, cx),
            Ticket::Commit(committing) => self.committed(*committing, &replies, cx),
            Ticket::List(asked) => self.listed(&asked, &replies, cx),
            Ticket::Read(reading) => self.data_read(reading, replies),
            Ticket::Write(writing) => self.data_written(*writing, &replies, cx),
            Ticket::Append(appending) => self.appended(*appending, &replies, cx),
            Ticket::Lock(locking) => self.locked(locking, &replies, cx),
            Ticket::Clean(cleaning) => self.cleaned(*cleaning, &replies, cx),
            Ticket::Task(task) => self.task_done(task, &replies, cx),
            Ticket::Nothing => Step::Done(Outcome::Done),
        }
    }

    fn given_up(&mut self, ticket: Ticket, cx: &mut Cx<Redis>) {
        match ticket {
            Ticket::Commit(committing) => self.commit_given_up(&committing, cx),
            Ticket::Append(appending) => self.append_given_up(&appending, cx),
            _ => {}
        }
    }

    fn task(&mut self, cx: &mut Cx<Redis>) -> Option<Work<Self>> {
        self.next_task(cx)
    }

    fn task_due(&self) -> Option<Mono> {
        self.live.due()
    }

    fn push(&mut self, push: Push, cx: &mut Cx<Redis>) {
        self.pushed(&push, cx);
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

    fn parent(&self, ino: Ino) -> Ino {
        self.tree.get(ino).map_or(Ino::ROOT, |node| node.parent)
    }

    fn describe(&self, ino: Ino) -> String {
        self.tree.path(ino).unwrap_or_else(|| format!("inode {}", ino.0))
    }
}
