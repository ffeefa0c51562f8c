//! The GridFS layout: a bucket as a POSIX tree whose files every driver can read.
//!
//! An inode is one files document and its names are in it, so a lookup or a listing with
//! attributes is one query, and most changes are one update of one document. What is ours rides
//! under `metadata.dbmount`:
//!
//! | field | what it is |
//! |---|---|
//! | `v` | version of all this: 1 |
//! | `ino` | inode number, unique |
//! | `kind mode uid gid rdev nlink` | as `stat` shows them; `nlink` of directories only |
//! | `atime mtime ctime btime` | nanoseconds since the epoch |
//! | `links` | every name: `[{p: inode of the directory, n: name}]`, unique over the bucket |
//! | `target` | of a symlink |
//! | `xattrs` | extended attributes: `[{n: name, v: value}]` |
//! | `w` | the commit that wrote it last: settles unknown outcomes, tells echoes |
//! | `gone` | its last name went: who took it, when; the document goes when nobody has it open |
//! | `wr` | its chunks and its length may not fit to each other: who is writing, since when |
//! | `revs` | old revisions of it are kept |
//! | `rev` | nothing else: it is an old revision of the inode of this number |
//! | `moved` | a directory whose rename has not reached the `filename`s below it yet |
//!
//! # Round trips
//!
//! How many batches an operation waits for when the kernel has just looked up the names it is
//! about. `tests/sim/round_trips_posix.rs` counts them, with this table as its data. A batch whose
//! later commands rely on the earlier ones takes more than one turn on the wire.
//!
#![doc = include_str!("round_trips.md")]
//!
//! # Files
//!
//! | file | what it is for |
//! |---|---|
//! | `document.rs` | files documents, whoever wrote them |
//! | `foreign.rs` | the index of other programs' files |
//! | `tree.rs` | the inodes a mount knows |
//! | `whole.rs` | the directories of which it knows every name |
//! | `attach.rs` | the first look at the server, indexes |
//! | `facts.rs` | wants to queries, documents to facts |
//! | `list.rs` | directory pages |
//! | `commit.rs`, `lower.rs` | plans to commands |
//! | `adopt.rs` | other programs' files made inodes |
//! | `pinned.rs` | who reads goes on reading the revision that was opened |
//! | `data.rs`, `write.rs` | chunks read and written |
//! | `write/publish.rs`, `write/commands.rs` | new revisions; chunks, lengths, marks |
//! | `durable.rs` | what an fsync promises, and how it is kept |
//! | `recorded.rs` | what a replay log must know: how sessions begin, where contents are |
//! | `live.rs` | the change stream, leases, background work |
//! | `live/repath.rs` | `filename`s follow a directory that was renamed |
//! | `live/stream.rs` | which change events are wanted, and what of them |
//! | `live/sweep.rs` | what must go, and what crashes left behind |

mod adopt;
mod attach;
mod commit;
mod data;
mod document;
mod durable;
mod facts;
mod foreign;
mod list;
mod live;
mod lower;
mod options;
mod pinned;
mod recorded;
mod tree;
mod whole;
mod write;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backend::bson::DocBuf;
use crate::backend::mongo::{Command, Concern, Mongo, Push, Reply, Sequence, ServerError};
use crate::contract::{Level, Link, Mode};
use crate::decide::{Caps, Plan, Want};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Epoch, Failure, Layout, Outcome, Step, Work, WriteOut};
use crate::op::{Kind, Name};
use crate::time::{Duration, Mono, Now, Wall};

pub use foreign::SELF_NAME;
pub use list::Cursor;
pub use live::{change_stream_of_others, change_stream_pipeline};
pub use options::{CHUNK_SIZE, CHUNK_SIZES, Options};

use document::{Bad, Id};
use durable::Durable;
use foreign::Foreign;
use live::Live;
use tree::Tree;
use whole::Wholes;

/// Documents that are complained about, each once.
const COMPLAINTS: usize = 1024;
/// Chunk sizes that are good blocks of the engine's cache.
const BLOCKS: core::ops::RangeInclusive<u32> = (64 << 10)..=(4 << 20);
/// Bytes of one write: a mongod takes chunks of 256 KiB two or three times as fast in batches of 16
/// as one by one, and each write sets the length besides.
const WRITE_BYTES: usize = 4 << 20;
/// `metadata.dbmount`, as the paths of updates begin.
pub(crate) const OURS: &str = "metadata.dbmount";

/// A GridFS bucket as a filesystem.
#[derive(Clone, Debug)]
pub struct GridFs {
    options: Options,
    tree: Tree,
    wholes: Wholes,
    foreign: Foreign,
    live: Live,
    durable: Durable,
    /// The server has transactions.
    transactions: bool,
    /// How safe a change must be before it is acknowledged.
    concern: Concern,
    /// Identifies this mount in tokens and ids.
    session: u64,
    /// Numbers ids and inode numbers.
    serial: u64,
    complained: BTreeSet<String>,
    /// When it was made. The time of day is shown for what has no times.
    born: Now,
    epoch: Epoch,
    /// When the documents were asked for that are being read.
    since: Epoch,
}

/// What the layout waits for.
#[derive(Clone, Debug)]
pub enum Ticket {
    /// See `attach.rs`.
    #[doc(hidden)]
    Attach(attach::Stage),
    /// See `facts.rs`.
    #[doc(hidden)]
    Facts(facts::Asked),
    /// See `commit.rs`.
    #[doc(hidden)]
    Commit(alloc::boxed::Box<commit::Committing>),
    /// See `list.rs`.
    #[doc(hidden)]
    List(list::Asked),
    /// See `data.rs`.
    #[doc(hidden)]
    Read(data::Reading),
    /// See `write.rs`.
    #[doc(hidden)]
    Write(alloc::boxed::Box<write::Writing>),
    /// See `durable.rs`.
    #[doc(hidden)]
    Sync(durable::Syncing),
    /// See `live.rs`.
    #[doc(hidden)]
    Task(live::Task),
    /// See `attach.rs`.
    #[doc(hidden)]
    Detach,
    /// Nothing is to be learnt from the replies.
    #[doc(hidden)]
    Nothing,
}

impl GridFs {
    /// A layout that has not looked at the server yet.
    #[must_use]
    pub fn new(options: Options, now: Now) -> Self {
        GridFs {
            options,
            tree: Tree::new(),
            wholes: Wholes::default(),
            foreign: Foreign::default(),
            live: Live::default(),
            durable: Durable::default(),
            transactions: false,
            concern: Concern::Durable,
            session: 0,
            serial: 0,
            complained: BTreeSet::new(),
            born: now,
            epoch: Epoch(1),
            since: Epoch::default(),
        }
    }

    /// The time of day that leases on the server go by: what it was when this mount began, and what
    /// has passed since. Who sets this machine's clock ends nobody's lease.
    fn lease_clock(&self, now: Mono) -> Wall {
        let passed = now.since(self.born.mono).as_nanos() as i64;
        Wall(self.born.wall.0.saturating_add(passed))
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// How many files of other programs it shows.
    #[must_use]
    pub fn foreign_files(&self) -> usize {
        self.foreign.len()
    }

    fn files(&self, name: &'static str) -> Command {
        Command::on(name, &self.options.db, &self.options.files())
    }

    fn chunks(&self, name: &'static str) -> Command {
        Command::on(name, &self.options.db, &self.options.chunks())
    }

    /// An `update` of the files collection with one statement: filter and update.
    fn update(&self, write: impl FnOnce(&mut DocBuf)) -> Command {
        let mut command = self.updates(self.files("update"), alloc::vec![statement(write)]);
        command.retryable = self.is_numbered();
        command
    }

    /// Whether the transport numbers changes, so that the server knows one that is sent again:
    /// where there are others to be sent to. A single server would keep a second document for each
    /// of them, which costs it as much as the change itself; what became of one whose reply was
    /// lost is told by its token.
    fn is_numbered(&self) -> bool {
        self.concern == Concern::Durable
    }

    /// Statements for an `update`, in order.
    fn updates(&self, mut command: Command, statements: Vec<DocBuf>) -> Command {
        sequence(&mut command, "updates", statements);
        command.concern = self.concern;
        command
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn new_id(&mut self, at: Wall) -> Id {
        let serial = self.next_serial();
        Id::made(at, self.session, serial)
    }

    /// An error of the server as a failure, with what was being done.
    fn refused(&self, error: &ServerError, what: &str) -> Failure {
        let errno = match error.code {
            // Unauthorized, AuthenticationFailed.
            13 | 18 => Errno::EACCES,
            // NotWritablePrimary, NotPrimaryNoSecondaryOk, and a server in maintenance.
            10107 | 13435 | 13436 => Errno::EROFS,
            // OutOfDiskSpace, and a quota of a hosted service (AtlasError).
            14_031 | 8000 => Errno::ENOSPC,
            // BSONObjectTooLarge and its kin: names and attributes fill the document.
            10_334 | 17_280 | 17_419 | 17_420 => Errno::ENOSPC,
            // MaxTimeMSExpired, WriteConcernFailed.
            50 | 64 => Errno::ETIMEDOUT,
            _ => Errno::EIO,
        };
        let advice = match errno {
            Errno::EACCES => "; grant the user readWrite on the database",
            Errno::ENOSPC => "; free space on the server",
            _ => "",
        };
        Failure { errno, text: Some(format!("{what}: the server says: {error}{advice}")) }
    }

    /// A document that cannot be shown: it is left out, and said once.
    fn complain(&mut self, bad: &Bad, cx: &mut Cx<Mongo>) {
        if self.complained.len() >= COMPLAINTS || !self.complained.insert(bad.id.clone()) {
            return;
        }
        let files = self.options.files();
        let text = format!("{files} {}: {}; it is left as it is", bad.id, bad.what);
        cx.notice(Level::Warn, text);
    }

    fn work(lane: Lane, commands: Vec<Command>, ticket: Ticket) -> Work<Self> {
        Work { lane, mode: Mode::Ordered, commands, ticket }
    }
}

/// A statement of an `update` or `delete`.
fn statement(write: impl FnOnce(&mut DocBuf)) -> DocBuf {
    let mut body = DocBuf::new();
    write(&mut body);
    body
}

/// Adds a document sequence. What could not be written stays out; its command then matches
/// nothing, which its reply tells. The only mistake there can be is a document over every bound.
fn sequence(command: &mut Command, name: &'static str, docs: Vec<DocBuf>) {
    let docs = docs.into_iter().filter_map(|doc| doc.finish().ok()).collect();
    command.sequences.push(Sequence { name: name.into(), docs });
}

/// The path of a field of ours.
fn ours(field: &str) -> String {
    format!("{OURS}.{field}")
}

impl Layout for GridFs {
    type Backend = Mongo;
    type Ticket = Ticket;
    type Cursor = Cursor;

    fn caps(&self) -> Caps {
        Caps {
            hard_links: true,
            special_files: true,
            exchange: self.transactions,
            // `n` is a 32-bit integer.
            max_file_size: u64::from(self.options.chunk_size) << 31,
            max_links: 32_000,
            max_xattr_size: 65_536,
            reserved_xattrs: &[b"user.gridfs."],
            // Two documents change together only where there are transactions.
            dir_nlink: self.transactions,
            rename_ctime: true,
            attrs_with_data: true,
            ..Caps::LEAST
        }
    }

    fn attach(&mut self, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_attach(cx)
    }

    fn detach(&mut self, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_detach(cx)
    }

    fn fetch(&mut self, wants: &[Want], cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_fetch(wants, cx)
    }

    fn commit(&mut self, plan: &Plan, token: Token, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_commit(plan, token, cx)
    }

    fn list(&mut self, dir: Ino, from: &Cursor, limit: usize, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_list(dir, from, limit, cx)
    }

    fn block_bytes(&self, ino: Ino) -> Option<u32> {
        let (_, content) = self.contents(ino)?;
        // One query for each block: not for tiny chunks, and no giants in the cache.
        content.ok().map(|content| content.chunk).filter(|chunk| BLOCKS.contains(chunk))
    }

    fn open(&mut self, ino: Ino, write: bool) -> Result<(), Errno> {
        let Some(node) = self.tree.get(ino) else { return Err(Errno::ESTALE) };
        match node.content {
            Err(what) if node.attr.kind == Kind::File => {
                let id = node.id.as_ref().map_or_else(String::new, Id::show);
                self.live.say(format!("{}: {id}: {what}", self.describe(ino)));
                Err(Errno::EIO)
            }
            _ => {
                if let Some(node) = self.tree.get_mut(ino) {
                    node.pin(write);
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, ino: Ino, offset: u64, len: u32, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.unpin_outdated(ino, cx);
        if let Some(node) = self.tree.get_mut(ino) {
            // The open has been answered, and the kernel's pages went with it.
            node.unseen = false;
        }
        self.start_read(ino, offset, len)
    }

    fn write_bytes(&self) -> usize {
        WRITE_BYTES
    }

    fn write(&mut self, ino: Ino, out: &WriteOut, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_write(ino, out, cx)
    }

    fn sync(&mut self, ino: Ino, _cx: &mut Cx<Mongo>) -> Step<Self> {
        self.start_sync(ino)
    }

    fn unsure(&self, ino: Ino) -> bool {
        self.is_unsure(ino)
    }

    fn release(&mut self, ino: Ino, _cx: &mut Cx<Mongo>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        let staged = node.staged.take().map(|staged| staged.id);
        let gone = node.id.clone().filter(|_| node.gone);
        for id in [staged, gone].into_iter().flatten() {
            self.live.reclaim(id);
        }
    }

    fn forget(&mut self, ino: Ino) {
        self.tree.forget(ino);
        self.wholes.forget(ino);
    }

    fn resume(&mut self, ticket: Ticket, replies: Vec<Reply>, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.since = match &ticket {
            Ticket::Facts(asked) => asked.since,
            Ticket::List(asked) => asked.since,
            _ => Epoch::default(),
        };
        match ticket {
            Ticket::Attach(stage) => self.attached(stage, &replies, cx),
            Ticket::Facts(asked) => self.fetched(asked, &replies, cx),
            Ticket::Commit(committing) => self.committed(*committing, &replies, cx),
            Ticket::List(asked) => self.listed(asked, &replies, cx),
            Ticket::Read(reading) => self.data_read(reading, &replies, cx),
            Ticket::Write(writing) => self.data_written(*writing, &replies, cx),
            Ticket::Sync(syncing) => self.synced(syncing, &replies, cx),
            Ticket::Task(task) => self.task_done(task, &replies, cx),
            Ticket::Detach => self.detaching(&replies),
            Ticket::Nothing => Step::Done(Outcome::Done),
        }
    }

    fn task(&mut self, cx: &mut Cx<Mongo>) -> Option<Work<Self>> {
        self.next_task(cx)
    }

    fn task_due(&self) -> Option<Mono> {
        self.live.due()
    }

    fn push(&mut self, push: Push, cx: &mut Cx<Mongo>) {
        self.pushed(push, cx);
    }

    fn link(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Mongo>) {
        self.link_changed(lane, link, cx);
    }

    fn entry_lease(&self, dir: Ino, _name: &Name, _found: Option<Ino>, since: Epoch) -> Duration {
        let tainted = self.tree.get(dir).map_or(Epoch::default(), |node| node.names_tainted);
        self.live.lease(tainted, since)
    }

    fn attr_lease(&self, ino: Ino, since: Epoch) -> Duration {
        let node = self.tree.get(ino);
        if node.is_some_and(|node| node.unseen || node.is_outlived()) {
            return Duration::ZERO;
        }
        self.live.lease(node.map_or(Epoch::default(), |node| node.tainted), since)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn parent(&self, ino: Ino) -> Ino {
        self.tree.get(ino).map_or(Ino::ROOT, |node| node.parent)
    }

    fn describe(&self, ino: Ino) -> String {
        match self.tree.path(ino) {
            Some(names) if names.is_empty() => String::from("/"),
            Some(names) => names.iter().map(|name| format!("/{name}")).collect(),
            None => format!("inode {} (unlinked)", ino.0),
        }
    }
}
