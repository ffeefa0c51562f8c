//! The state machine: `handle` an input, `poll` outputs.
//!
//! [`Engine`] owns the tables (operations, batches, inodes, handles, files, facts) and routes
//! inputs to the machines that work on them, one file each:
//!
//! | file | machine |
//! |---|---|
//! | `txn.rs` | metadata operations: read facts, decide, commit |
//! | `files.rs` | open files, writing, write-back and flush |
//! | `reads.rs` | reading, blocks, read-ahead |
//! | `accesses.rs` | access times |
//! | `locks.rs` | locks between mounts, and who waits for them |
//! | `listing.rs` | directory listings |
//! | `batches.rs` | batches on their way, faults and re-sending |
//! | `facts.rs` | leased facts |
//! | `inodes.rs` | what the kernel holds |
//!
//! # Round trips
//!
//! How many batches an operation waits for when the kernel has just looked up the names it is
//! about and nobody has changed anything since, over the keys layout. `tests/sim/round_trips.rs`
//! counts them, with this table as its data.
//!
#![doc = include_str!("round_trips.md")]

mod accesses;
mod batches;
mod cx;
mod facts;
mod files;
mod inodes;
mod listing;
mod locks;
mod reads;
mod txn;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::Config;
use crate::contract::{Input, Level, Link, Output};
use crate::errno::Errno;
use crate::id::{BatchId, Fh, Ino, Lane, OpId, Token};
use crate::layout::{Failure, Layout, Outcome, Step};
use crate::op::{Request, Response};
use crate::time::{Duration, Mono, Now};

use batches::{InFlightBatch, Owner};
pub use cx::Cx;
use files::File;
use listing::{DirHandle, Listing};
use locks::FileLocks;
use txn::Txn;

/// How long a request waits for a server that has been away for longer than the timeout.
const HOPELESS: Duration = Duration::from_secs(1);

/// What is in progress, for hang reports and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The request.
    pub op: OpId,
    /// Its name and main arguments.
    pub what: String,
    /// What it waits for.
    pub waits_for: &'static str,
    /// For how long it has been going on.
    pub age: Duration,
}

/// How much more an engine will take before it wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Further requests.
    pub ops: usize,
    /// Further bytes to write, whether there is room for them now or they wait for it.
    pub bytes: usize,
}

/// Background work worth showing: how far the first index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items done.
    pub done: u64,
    /// Items there are, as far as known.
    pub total: Option<u64>,
    /// Nothing more to wait for.
    pub finished: bool,
}

/// A request in progress.
#[derive(Clone, Debug)]
struct Op {
    request: Request,
    started: Mono,
    deadline: Mono,
    state: State,
}

/// What a request in progress expects next.
#[derive(Clone, Debug)]
enum State {
    /// Just taken; or parked and to be started again.
    Start,
    /// `Attach`, `Detach`, or what an fsync ends with: the layout's answer.
    Session,
    /// A metadata transaction: facts or the commit's verdict.
    Txn(Txn),
    /// Room for dirty bytes.
    WriteRoom,
    /// The file's write-back to come to an end.
    Flush,
    /// Blocks of the file.
    Blocks,
    /// A piece of the file that is for this request alone.
    Piece,
    /// The bytes to be at the end of the file.
    Append,
    /// A lock, or the server to know that one is given up.
    Lock,
    /// A page of a directory.
    Listing(Listing),
}

impl State {
    fn waits_for(&self) -> &'static str {
        match self {
            State::Start => "the index",
            State::Session => "the server",
            State::Txn(txn) if txn.committing() => "a commit",
            State::Txn(_) => "facts",
            State::WriteRoom => "room for dirty data",
            State::Flush => "write-back",
            State::Blocks | State::Piece => "data",
            State::Append => "the end of the file",
            State::Lock => "a lock",
            State::Listing(_) => "a page of the directory",
        }
    }
}

/// An open file or directory.
#[derive(Clone, Debug)]
enum Handle<L: Layout> {
    File { ino: Ino, errors_seen: u64, append: bool },
    Dir(DirHandle<L>),
}

/// What a timer is for; the timers of one instant fire in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A request has taken as long as it may.
    Deadline(OpId),
    /// A request was outrun by others and tries again.
    Retry(OpId),
    /// A file has been dirty for as long as it may.
    FlushAge(Ino),
    /// The server is to be told of accesses.
    Accesses,
    /// The layout asked for it.
    Task,
}

/// A filesystem over a layout. See the crate's documentation for how to drive it.
#[derive(Clone, Debug)]
pub struct Engine<L: Layout> {
    layout: L,
    cx: Cx<L::Backend>,
    ops: BTreeMap<OpId, Op>,
    parked: Vec<OpId>,
    batches: BTreeMap<BatchId, InFlightBatch<L>>,
    next_batch: u64,
    /// Batches that a lost connection gave back, in the order in which they were submitted.
    stalled: BTreeMap<Lane, Vec<InFlightBatch<L>>>,
    /// Lanes that were up once: since when they are down, or that they are not.
    links: BTreeMap<Lane, Option<Mono>>,
    attached: bool,
    /// Why there was no connection before anybody asked for one.
    unreachable: Option<String>,
    /// What was said last of the connections: several are lost for one reason.
    said_of_links: String,
    handles: BTreeMap<Fh, Handle<L>>,
    next_fh: u64,
    files: BTreeMap<Ino, File>,
    locks: BTreeMap<Ino, FileLocks>,
    dirty_bytes: usize,
    block_bytes: usize,
    /// Files by when blocks of theirs were kept, oldest first, with `File::kept` as it was then.
    block_queue: VecDeque<(Ino, u64)>,
    blocks_kept: u64,
    write_room: Vec<OpId>,
    /// Something could not be written when the mount was to end.
    lost: bool,
    /// Files whose write-back waits for a commit that changes where it must go.
    deferred: BTreeSet<Ino>,
    timers: BTreeSet<(Mono, Timer)>,
    task_timer: Option<Mono>,
    commits: u64,
    session: u64,
}

impl<L: Layout> Engine<L> {
    /// A new engine. The first request must be `Request::Attach`. The seed decides the session's
    /// identity, so two mounts of one server must not share it.
    pub fn new(config: Config, layout: L, seed: u64, now: Now) -> Self {
        Engine {
            layout,
            cx: Cx::new(config, seed, now),
            ops: BTreeMap::new(),
            parked: Vec::new(),
            batches: BTreeMap::new(),
            next_batch: 1,
            stalled: BTreeMap::new(),
            links: BTreeMap::new(),
            attached: false,
            unreachable: None,
            said_of_links: String::new(),
            handles: BTreeMap::new(),
            next_fh: 1,
            files: BTreeMap::new(),
            locks: BTreeMap::new(),
            dirty_bytes: 0,
            block_bytes: 0,
            block_queue: VecDeque::new(),
            blocks_kept: 0,
            write_room: Vec::new(),
            lost: false,
            deferred: BTreeSet::new(),
            timers: BTreeSet::new(),
            task_timer: None,
            commits: 0,
            session: seed,
        }
    }

    // ---- getters

    /// When the next timer is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How much more it will take.
    pub fn credit(&self) -> Credit {
        // Only what waits counts: it ends at its deadline, whatever becomes of the dirty data,
        // while a write that is kept out for want of credit has none.
        let waiting = self.write_room.iter().filter_map(|id| match &self.ops.get(id)?.request {
            Request::Write { data, .. } => Some(data.len()),
            _ => None,
        });
        Credit {
            ops: self.cx.config.max_ops.saturating_sub(self.ops.len()),
            bytes: self.cx.config.dirty_bytes.saturating_sub(waiting.sum()),
        }
    }

    /// What is pending, oldest first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        let mut pending: Vec<InFlight> = self
            .ops
            .iter()
            .map(|(&op, it)| InFlight {
                op,
                what: it.request.summary(),
                waits_for: it.state.waits_for(),
                age: self.cx.now.mono.since(it.started),
            })
            .collect();
        pending.sort_by_key(|it| core::cmp::Reverse(it.age));
        pending
    }

    /// How far the layout's background work is.
    pub fn progress(&self) -> Progress {
        self.layout.progress()
    }

    /// The layout, for status and tests.
    pub fn layout(&self) -> &L {
        &self.layout
    }

    /// Bytes written by programs that have not reached the server.
    pub fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// Bytes of clean contents that are kept.
    pub fn cached_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Facts about names and inodes that are kept.
    pub fn known_facts(&self) -> usize {
        self.cx.facts.len()
    }

    /// Whether nothing is pending: no request, no batch, no dirty data.
    pub fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.batches.is_empty() && self.dirty_bytes == 0
    }

    // ---- handle

    /// Takes one input. Drain [`poll`](Self::poll) to `None` afterwards.
    pub fn handle(&mut self, now: Now, input: Input<L::Backend>) {
        self.cx.now = now;
        match input {
            Input::Request(op, request) => self.handle_request(op, request),
            Input::Cancel(op) => self.handle_cancel(op),
            Input::Replies(batch, result) => self.handle_replies(batch, result),
            Input::Push(push) => self.layout.push(push, &mut self.cx),
            Input::Link(lane, link) => self.handle_link(lane, link),
            Input::Tick => {}
        }
        self.void_stale_data();
        self.handle_timers();
        self.settle();
    }

    fn handle_request(&mut self, id: OpId, request: Request) {
        if let Request::Forget { ino, count } = request {
            self.forget(ino, count);
            return;
        }
        if self.ops.len() >= self.cx.config.max_ops {
            self.cx.respond(id, Err(Errno::EAGAIN));
            return;
        }
        let deadline = match request {
            // The driver decides how long to wait for the first connection.
            Request::Attach => Mono::NEVER,
            // Another may have the lock for as long as it likes.
            Request::SetLock { wait: true, .. } => Mono::NEVER,
            _ => self.cx.now.mono.after(self.patience()),
        };
        if deadline != Mono::NEVER {
            self.timers.insert((deadline, Timer::Deadline(id)));
        }
        let op = Op { request, started: self.cx.now.mono, deadline, state: State::Start };
        self.ops.insert(id, op);
        self.start(id);
    }

    /// Starts a request, or starts it again.
    fn start(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.state = State::Start;
        match &op.request {
            Request::Attach => {
                if let Some(reason) = self.unreachable.take() {
                    self.finish(id, Ok(Response::Refused(reason)));
                    return;
                }
                op.state = State::Session;
                let step = self.layout.attach(&mut self.cx);
                self.session_step(id, step);
            }
            Request::Detach => self.start_detach(id),
            Request::Open { .. } => self.start_open(id),
            Request::Read { .. } => self.start_read(id),
            Request::Write { .. } => self.start_write(id),
            Request::Flush { .. } | Request::Fsync { .. } => self.start_flush(id),
            Request::Release { .. } => self.start_release(id),
            Request::GetLock { .. } | Request::SetLock { .. } | Request::Unlock { .. } => {
                self.start_lock(id);
            }
            Request::OpenDir { .. } => self.start_open_dir(id),
            Request::ReadDir { .. } => self.start_read_dir(id),
            Request::ReleaseDir { fh, .. } => {
                let fh = *fh;
                self.handles.remove(&fh);
                self.finish(id, Ok(Response::Done));
            }
            // Names are on the server when the operation that made them was answered; that they
            // survive its crash is another thing.
            Request::FsyncDir { ino } => {
                let ino = *ino;
                self.start_sync(id, ino);
            }
            Request::Forget { .. } => self.finish(id, Ok(Response::Done)),
            _ => self.start_txn(id),
        }
    }

    /// What was acknowledged of an inode is to survive.
    fn start_sync(&mut self, id: OpId, ino: Ino) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Session;
        }
        let step = self.layout.sync(ino, &mut self.cx);
        self.session_step(id, step);
    }

    fn session_step(&mut self, id: OpId, step: Step<L>) {
        match step {
            Step::Done(Outcome::Attached(attached)) => {
                self.cx.config.read_only |= attached.read_only;
                self.attached = true;
                self.finish(id, Ok(Response::Attached(attached)));
            }
            Step::Done(Outcome::Refused(line)) => self.finish(id, Ok(Response::Refused(line))),
            Step::Done(_) if self.lost => self.finish(id, Err(Errno::EIO)),
            Step::Done(_) => self.finish(id, Ok(Response::Done)),
            Step::Work(work) => self.submit(Owner::Op(id), work),
            Step::Park => self.park(id),
            Step::Fail(failure) => self.fail(id, failure),
        }
    }

    fn start_detach(&mut self, id: OpId) {
        let dirty: Vec<Ino> = self.files.keys().copied().collect();
        for ino in dirty {
            self.flush_file(ino, true);
        }
        if self.files.values().any(File::is_dirty) {
            if let Some(op) = self.ops.get_mut(&id) {
                op.state = State::Flush;
            }
            self.wait_for_files(id);
            return;
        }
        self.tell_accesses();
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Session;
        }
        let step = self.layout.detach(&mut self.cx);
        self.session_step(id, step);
    }

    fn handle_cancel(&mut self, id: OpId) {
        // Reads and waits can be given up at once; a commit on its way is awaited, since its
        // caller must learn what became of it.
        let give_up = match self.ops.get(&id).map(|op| &op.state) {
            Some(State::Txn(txn)) => !txn.committing(),
            Some(State::Append) => false,
            Some(_) => true,
            None => false,
        };
        if give_up {
            self.wait_no_more(id);
            self.finish(id, Err(Errno::EINTR));
        }
    }

    fn handle_link(&mut self, lane: Lane, link: Link) {
        self.layout.link(lane, &link, &mut self.cx);
        let (reason, level) = match link {
            Link::Up { .. } => {
                self.links.insert(lane, None);
                self.said_of_links.clear();
                self.resubmit_stalled(lane);
                return;
            }
            Link::Down(reason) => (reason, Level::Warn),
            Link::Refused(reason) => (reason, Level::Error),
        };
        let was = self.lane_down(lane);
        if !self.attached {
            // Who has just asked to mount would rather know than wait; whoever reached the server
            // once waits for it to come back.
            let hopeless = was.is_none() || level == Level::Error;
            if hopeless && !self.refuse_attach(&reason) {
                self.unreachable.get_or_insert(reason);
            }
        } else if (was == Some(None) || level == Level::Error) && self.said_of_links != reason {
            self.said_of_links.clone_from(&reason);
            self.cx.notice(level, reason);
        }
    }

    /// Remembers since when a lane is down. Returns what was known of it before.
    fn lane_down(&mut self, lane: Lane) -> Option<Option<Mono>> {
        let was = self.links.get(&lane).copied();
        let since = was.flatten().unwrap_or(self.cx.now.mono);
        self.links.insert(lane, Some(since));
        was
    }

    /// How long a request may take: while the server has been away for longer than that already,
    /// there is little hope, and a program with many requests must not wait for each.
    fn patience(&self) -> Duration {
        let timeout = self.cx.config.op_timeout;
        let hopeless =
            self.links.values().flatten().any(|since| self.cx.now.mono.since(*since) >= timeout);
        if hopeless { timeout.min(HOPELESS) } else { timeout }
    }

    /// Answers a waiting `Attach` with why there is no connection. Returns whether there was one.
    fn refuse_attach(&mut self, reason: &str) -> bool {
        let attaching: Vec<OpId> = self
            .ops
            .iter()
            .filter(|(_, op)| op.request == Request::Attach)
            .map(|(&id, _)| id)
            .collect();
        for &id in &attaching {
            self.finish(id, Ok(Response::Refused(String::from(reason))));
        }
        !attaching.is_empty()
    }

    fn handle_timers(&mut self) {
        while let Some(&(at, timer)) = self.timers.first() {
            if at > self.cx.now.mono {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::Deadline(id) => self.time_out(id),
                Timer::Retry(id) => self.run_txn(id),
                Timer::FlushAge(ino) => self.flush_aged(ino),
                Timer::Accesses => self.accesses_due(),
                Timer::Task => self.task_timer = None,
            }
        }
    }

    /// What follows from any input: parked requests that may go on, the layout's own work, facts
    /// over the bound.
    fn settle(&mut self) {
        if self.cx.take_wake() {
            for id in core::mem::take(&mut self.parked) {
                self.start(id);
            }
        }
        self.try_blocked_locks();
        for ino in core::mem::take(&mut self.deferred) {
            self.flush_deferred(ino);
        }
        while let Some(work) = self.layout.task(&mut self.cx) {
            self.submit(Owner::Task, work);
        }
        if let Some(due) = self.layout.task_due()
            && self.task_timer.is_none_or(|at| due < at)
        {
            if let Some(at) = self.task_timer.replace(due) {
                self.timers.remove(&(at, Timer::Task));
            }
            self.timers.insert((due, Timer::Task));
        }
        for ino in self.cx.facts.take_evicted() {
            self.forget_if_unused(ino);
        }
    }

    // ---- poll

    /// The next output.
    pub fn poll(&mut self) -> Option<Output<L::Backend>> {
        self.cx.out.pop_front()
    }

    // ---- ends of requests

    fn park(&mut self, id: OpId) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Start;
            self.parked.push(id);
        }
    }

    fn fail(&mut self, id: OpId, failure: Failure) {
        if let Some(text) = failure.text {
            self.cx.notice(Level::Error, text);
        }
        self.finish(id, Err(failure.errno));
    }

    fn finish(&mut self, id: OpId, result: Result<Response, Errno>) {
        let Some(op) = self.ops.remove(&id) else { return };
        if op.deadline != Mono::NEVER {
            self.timers.remove(&(op.deadline, Timer::Deadline(id)));
        }
        match &result {
            Ok(Response::Entry(entry) | Response::Created(entry, _)) => {
                self.cx.inodes.looked_up(entry.attr.ino);
            }
            Ok(Response::Dir(entries)) => {
                for entry in entries.iter().filter_map(|it| it.entry.as_ref()) {
                    self.cx.inodes.looked_up(entry.attr.ino);
                }
            }
            _ => {}
        }
        self.cx.respond(id, result);
    }

    fn time_out(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let text = alloc::format!(
            "{} gave up after {} s waiting for {}",
            op.request.summary(),
            self.cx.now.mono.since(op.started).as_secs(),
            op.state.waits_for(),
        );
        self.cx.notice(Level::Error, text);
        self.wait_no_more(id);
        self.finish(id, Err(Errno::EIO));
    }

    /// The request is about to be answered without what it waits for.
    fn wait_no_more(&mut self, id: OpId) {
        match self.ops.get(&id).map(|op| &op.state) {
            Some(State::Start) => self.parked.retain(|it| *it != id),
            Some(State::WriteRoom) => self.write_room.retain(|it| *it != id),
            Some(State::Flush) => self.forget_waiter(id),
            Some(State::Lock) => self.give_up_lock(id),
            _ => self.abandon_batches_of(id),
        }
    }

    // ---- inodes and handles

    fn forget(&mut self, ino: Ino, count: u64) {
        self.cx.inodes.forgotten(ino, count);
        self.forget_if_unused(ino);
    }

    fn forget_if_unused(&mut self, mut ino: Ino) {
        while ino != Ino::ROOT && !self.is_in_use(ino) {
            let dir = self.layout.parent(ino);
            self.drop_file(ino);
            self.cx.facts.forget_removed(ino);
            self.layout.forget(ino);
            // A directory is remembered for the sake of what is known in it.
            ino = dir;
        }
    }

    fn is_in_use(&self, ino: Ino) -> bool {
        self.cx.inodes.is_known(ino)
            || self.cx.facts.holds(ino)
            || self.files.get(&ino).is_some_and(File::is_in_use)
    }

    /// Names the next commit.
    fn next_token(&mut self) -> Token {
        self.commits += 1;
        Token { session: self.session, serial: self.commits }
    }

    fn new_handle(&mut self, handle: Handle<L>) -> Fh {
        let fh = Fh(self.next_fh);
        self.next_fh += 1;
        self.handles.insert(fh, handle);
        fh
    }
}
