//! The only loop and the only clock: steps the machine under a short lock, gives what it wants
//! sent to the transport, and answers the kernel on the very thread that completed the request.
//!
//! Three kinds of threads come in here: FUSE workers with requests, a transport's readers with
//! replies and pushes, and one timer. All take the same path, `Driver::step`:
//!
//! 1. lock, hand in the inputs, drain the outputs. Batches go to the transport while the lock is
//!    held, so that the order on a lane is the machine's own (a transport's `submit` never
//!    blocks); everything else is collected.
//! 2. unlock; answer the kernel, queue invalidations, log notices.
//! 3. let a transport without threads do its work ([`Transport::after_step`]).

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::{fmt, io};

use dbmount_engine::contract::Level;
use dbmount_engine::decide::Caps;
use dbmount_engine::engine::{InFlight, Progress};
use dbmount_engine::{
    Errno, Ino, Input, Invalidation, Mono, Notice, OpId, Output, Request, Response,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::interrupts::Interrupts;
use crate::invalidate::Invalidations;
use crate::machine::{Clock, Machine, Sink, Transport};
use crate::reply::Reply;

/// Bytes of writes that may wait for the machine's credit before the FUSE workers stop taking
/// requests. The kernel holds the rest, and its writers wait there.
const HELD_BYTES: usize = 32 << 20;

/// Drives one machine; shared by every thread of a mount.
pub struct Driver<M: Machine> {
    core: Mutex<Core<M>>,
    /// Signalled when held writes were taken by the machine.
    room: Condvar,
    transport: OnceLock<Box<dyn Transport<M::Backend>>>,
    invalidations: Arc<Invalidations>,
    interrupts: Interrupts,
    clock: Clock,
    timer: Timer,
}

struct Core<M: Machine> {
    machine: M,
    /// Replies that the kernel waits for.
    pending: FxHashMap<OpId, Reply>,
    /// Requests that the machine has no credit for yet, oldest first.
    held: VecDeque<(OpId, Request)>,
    held_bytes: usize,
    next_op: u64,
    /// When the timer thread will wake; never later than the machine's own timeout.
    armed: Mono,
}

#[derive(Default)]
struct Timer {
    state: Mutex<TimerState>,
    changed: Condvar,
}

struct TimerState {
    deadline: Mono,
    stopped: bool,
}

impl Default for TimerState {
    fn default() -> Self {
        TimerState { deadline: Mono::NEVER, stopped: false }
    }
}

/// What a step leaves to be done without the lock.
#[derive(Default)]
struct Outbox {
    responses: SmallVec<[(Reply, Result<Response, Errno>); 1]>,
    invalidations: Vec<Invalidation>,
    notices: Vec<Notice>,
}

impl<M: Machine> Driver<M> {
    /// A driver of a machine, with the transport that `connect` makes. No input reaches the
    /// machine before `connect` has returned.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn start<E>(
        machine: M,
        clock: Clock,
        connect: impl FnOnce(Arc<Self>) -> Result<Box<dyn Transport<M::Backend>>, E>,
    ) -> Result<Arc<Self>, E> {
        let driver = Arc::new(Driver {
            core: Mutex::new(Core {
                machine,
                pending: FxHashMap::default(),
                held: VecDeque::new(),
                held_bytes: 0,
                next_op: 1,
                armed: Mono::NEVER,
            }),
            room: Condvar::new(),
            transport: OnceLock::new(),
            invalidations: Arc::new(Invalidations::new()),
            interrupts: Interrupts::default(),
            clock,
            timer: Timer::default(),
        });
        // A transport's threads may deliver before it is stored here; they wait for this lock.
        let core = driver.lock();
        let transport = connect(Arc::clone(&driver))?;
        let stored = driver.transport.set(transport).is_ok();
        debug_assert!(stored, "a new driver has no transport");
        drop(core);
        Ok(driver)
    }

    /// Starts the thread that hands in `Tick` when a timer of the machine is due.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn_timer(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let driver = Arc::clone(self);
        std::thread::Builder::new().name("timer".into()).spawn(move || driver.run_timer())
    }

    /// Starts the thread that cancels requests whose callers have a signal to take.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn_interrupts(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let driver = Arc::clone(self);
        std::thread::Builder::new().name("interrupts".into()).spawn(move || {
            while let Some(interrupted) = driver.interrupts.next() {
                driver.deliver(interrupted.into_iter().map(Input::Cancel).collect());
            }
        })
    }

    /// The queue of what the kernel is to forget.
    #[must_use]
    pub fn invalidations(&self) -> &Arc<Invalidations> {
        &self.invalidations
    }

    /// Takes a request; `reply` is answered when the machine responds, on whichever thread that
    /// happens, possibly before this returns.
    pub fn request(&self, request: Request, reply: Reply) {
        self.take(request, reply, None);
    }

    /// As [`request`](Self::request), of one that may wait for ever: it is cancelled when the
    /// thread that waits for it has a signal to take.
    pub fn request_interruptible(&self, request: Request, reply: Reply, tid: u32) {
        self.take(request, reply, Some(tid));
    }

    fn take(&self, request: Request, reply: Reply, tid: Option<u32>) {
        let mut full = false;
        self.step(|core, driver, out| {
            let op = OpId(core.next_op);
            core.next_op += 1;
            core.pending.insert(op, reply);
            if let Some(tid) = tid {
                driver.interrupts.watch(op, tid);
            }
            if core.may_take(&request) {
                core.input(driver, Input::Request(op, request), out);
            } else {
                core.hold(op, request);
                full = core.held_bytes > HELD_BYTES;
            }
        });
        if full {
            self.wait_for_room();
        }
    }

    /// The kernel forgets lookups: `(inode, how many)`. There is no answer.
    pub fn forget(&self, forgets: impl IntoIterator<Item = (Ino, u64)>) {
        self.step(|core, driver, out| {
            for (ino, count) in forgets {
                let op = OpId(core.next_op);
                core.next_op += 1;
                core.input(driver, Input::Request(op, Request::Forget { ino, count }), out);
            }
        });
    }

    /// Takes a request whose answer the caller waits for on the channel that is returned.
    pub fn call(&self, request: Request) -> Receiver<Result<Response, Errno>> {
        let (sender, receiver) = sync_channel(1);
        self.request(request, Reply::Call(sender));
        receiver
    }

    /// What is pending in the machine, for hang reports.
    #[must_use]
    pub fn in_flight(&self) -> Vec<InFlight> {
        self.lock().machine.in_flight()
    }

    /// How far the machine's background work is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.lock().machine.progress()
    }

    /// What the machine can hold.
    #[must_use]
    pub fn caps(&self) -> Caps {
        self.lock().machine.caps()
    }

    /// Ends the timer and the invalidations, and closes the transport. Requests that are still
    /// pending are answered with `EIO`.
    pub fn shutdown(&self) {
        {
            let mut timer = self.timer.state.lock().unwrap_or_else(PoisonError::into_inner);
            timer.stopped = true;
            self.timer.changed.notify_all();
        }
        self.invalidations.close();
        self.interrupts.close();
        if let Some(transport) = self.transport.get() {
            transport.shutdown();
        }
        let pending = {
            let mut core = self.lock();
            core.held.clear();
            core.held_bytes = 0;
            self.room.notify_all();
            std::mem::take(&mut core.pending)
        };
        for reply in pending.into_values() {
            reply.send(Err(Errno::EIO), &mut Vec::new());
        }
    }

    /// A panic while the lock was held ends the process through the panic hook, so whoever finds
    /// the lock poisoned is on the way out too.
    fn lock(&self) -> MutexGuard<'_, Core<M>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, work: impl FnOnce(&mut Core<M>, &Self, &mut Outbox)) {
        let mut out = Outbox::default();
        {
            let mut core = self.lock();
            work(&mut core, self, &mut out);
            core.take_held(self, &mut out);
            self.rearm(&mut core);
        }
        self.settle(out);
        if let Some(transport) = self.transport.get() {
            transport.after_step(self);
        }
    }

    /// Everything that a step left to be done without the lock.
    fn settle(&self, out: Outbox) {
        let mut unsent = Vec::new();
        let mut after: SmallVec<[_; 1]> = SmallVec::new();
        for (reply, result) in out.responses {
            match reply {
                Reply::Locked(_) => after.push((reply, result)),
                reply => reply.send(result, &mut unsent),
            }
        }
        if !out.invalidations.is_empty() {
            self.invalidations.push(out.invalidations);
        }
        for (reply, result) in after {
            // Whoever has a lock reads what the last one to have it wrote.
            self.invalidations.then(move || reply.send(result, &mut Vec::new()));
        }
        for notice in out.notices {
            match notice.level {
                Level::Error => tracing::error!("{}", notice.text),
                Level::Warn => tracing::warn!("{}", notice.text),
                Level::Info => tracing::info!("{}", notice.text),
            }
        }
        if !unsent.is_empty() {
            // Entries of a listing that did not fit: the kernel never saw these lookups.
            self.forget(unsent.into_iter().map(|ino| (ino, 1)));
        }
    }

    /// Backpressure: a FUSE worker that comes with more than may be held waits here, and the
    /// kernel keeps the next requests to itself.
    fn wait_for_room(&self) {
        let mut core = self.lock();
        while core.held_bytes > HELD_BYTES {
            core = self.room.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes the timer thread, but only when the next deadline got earlier: a deadline that moved
    /// away costs one early wake-up later instead of one now.
    fn rearm(&self, core: &mut Core<M>) {
        let due = core.machine.poll_timeout().unwrap_or(Mono::NEVER);
        if due < core.armed {
            core.armed = due;
            self.timer.state.lock().unwrap_or_else(PoisonError::into_inner).deadline = due;
            self.timer.changed.notify_one();
        }
    }

    fn run_timer(&self) {
        let mut state = self.timer.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.stopped {
            let now = self.clock.mono();
            if state.deadline == Mono::NEVER {
                state = self.timer.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if now < state.deadline {
                let wait = state.deadline.since(now);
                let waited = self.timer.changed.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            } else {
                state.deadline = Mono::NEVER;
                // The order of the locks is machine, then timer.
                drop(state);
                self.step(|core, driver, out| {
                    core.armed = Mono::NEVER;
                    let due = core.machine.poll_timeout().unwrap_or(Mono::NEVER);
                    if due <= driver.clock.mono() {
                        core.input(driver, Input::Tick, out);
                    }
                });
                state = self.timer.state.lock().unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl<M: Machine> Core<M> {
    fn input(&mut self, driver: &Driver<M>, input: Input<M::Backend>, out: &mut Outbox) {
        self.machine.handle(driver.clock.now(), input);
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Submit(batch) => {
                    if let Some(transport) = driver.transport.get() {
                        transport.submit(batch);
                    }
                }
                Output::Abandon(batch) => {
                    if let Some(transport) = driver.transport.get() {
                        transport.abandon(batch);
                    }
                }
                Output::Respond(op, result) => match self.pending.remove(&op) {
                    Some(reply) => {
                        if matches!(reply, Reply::Locked(_)) {
                            driver.interrupts.done(op);
                        }
                        out.responses.push((reply, result));
                    }
                    None => tracing::error!(?op, ?result, "a response that nobody asked for"),
                },
                Output::Invalidate(item) => out.invalidations.push(item),
                Output::Notice(notice) => out.notices.push(notice),
            }
        }
    }

    /// Whether the machine has credit for a request. One that ends something, or that the machine
    /// cannot start without, is never held back; a write waits behind the writes before it.
    fn may_take(&self, request: &Request) -> bool {
        match request {
            Request::Attach | Request::Detach | Request::Forget { .. } => true,
            Request::Write { .. } => {
                let credit = self.machine.credit();
                self.held.is_empty() && credit.ops > 0 && credit.bytes > 0
            }
            _ => self.machine.credit().ops > 0,
        }
    }

    fn hold(&mut self, op: OpId, request: Request) {
        self.held_bytes += weight(&request);
        self.held.push_back((op, request));
    }

    /// Hands in what was held for want of credit, as far as there is credit again.
    fn take_held(&mut self, driver: &Driver<M>, out: &mut Outbox) {
        while let Some((_, request)) = self.held.front() {
            let credit = self.machine.credit();
            let bytes_wanted = matches!(request, Request::Write { .. });
            if credit.ops == 0 || (bytes_wanted && credit.bytes == 0) {
                return;
            }
            let Some((op, request)) = self.held.pop_front() else { return };
            self.held_bytes -= weight(&request);
            driver.room.notify_all();
            self.input(driver, Input::Request(op, request), out);
        }
    }
}

fn weight(request: &Request) -> usize {
    match request {
        Request::Write { data, .. } => data.len(),
        _ => 0,
    }
}

impl<M: Machine> Sink<M::Backend> for Driver<M> {
    fn deliver(&self, inputs: Vec<Input<M::Backend>>) {
        self.step(|core, driver, out| {
            for input in inputs {
                core.input(driver, input, out);
            }
        });
    }
}

impl<M: Machine> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.lock();
        f.debug_struct("Driver")
            .field("pending", &core.pending.len())
            .field("held", &core.held.len())
            .finish_non_exhaustive()
    }
}
