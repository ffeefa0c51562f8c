//! Engines and a simulated server with a network between them, all in one value: the clock jumps,
//! and what happens next is drawn from a seed.
//!
//! A [`World`] holds one server and any number of mounts. [`World::request`] asks one engine and
//! lets things happen until the answer is there; [`World::fs`] makes a mount an
//! [`Executor`](crate::sim::ops::Executor). On the way the world asserts what every driver of an
//! engine relies on: each request is answered once and in time, due timers fire, nothing runs on
//! for ever. It is plain data, so a test may clone it and look around in the copy.
//!
//! | file | what it is for |
//! |---|---|
//! | `site.rs` | what a world is made of: a layout and its server |
//! | `keyspace.rs` | the keys layout over the simulated Redis |
//! | `bucket.rs` | the gridfs layout over the simulated MongoDB |
//! | `disk.rs` | the volume layout over the simulated Redis |
//! | `net.rs` | lanes: what is on its way, and how it is lost |
//! | `explore.rs` | every order in which things can happen |
//! | `trouble.rs` | what goes wrong by itself, how often, and how often it did |
//! | `kernel.rs` | paths, references and caches of the kernel before a mount |
//! | `sabotage.rs` | faults put in on purpose, for plays to notice |
//! | `programs.rs` | system calls as the requests that the kernel makes of them |

mod bucket;
mod disk;
mod explore;
mod kernel;
mod keyspace;
mod net;
mod programs;
mod sabotage;
mod site;
mod tape;
mod trouble;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::Config;
use crate::contract::{Batch, Input, Invalidation, Notice, Output};
use crate::engine::Engine;
use crate::errno::Errno;
use crate::id::{Lane, OpId};
use crate::op::{Request, Response};
use crate::replay::Recipe;
use crate::sim::generate::{FILE_MAX, Random};
use crate::time::{Duration, Mono, Now, Wall};

pub use bucket::{Bucket, GridFsOn, LoneBucket};
pub use disk::Disk;
pub use explore::{Answers, Explored, explore};
use kernel::Kernel;
pub use kernel::{CALLER, Fs};
pub use keyspace::Keyspace;
pub use net::Break;
use net::Wire;
pub use sabotage::Sabotage;
pub use site::{BackendOf, ClientId, CommandOf, Progress, PushOf, ReplyOf, Server, Site};
use tape::Tape;
pub use tape::Tapes;
pub use trouble::{Tally, Trouble, Weather};

/// Steps after which something is taken to go on for ever.
const STEPS: usize = 200_000;
/// The connection of other programs.
const FOREIGN: ClientId = ClientId(0);

/// How a mount is made.
#[derive(Clone, Debug)]
pub struct Setup<S: Site> {
    /// Of the engine.
    pub config: Config,
    /// Of the layout.
    pub options: S::Options,
    /// The server tells of changes.
    pub tracking: bool,
    /// The kernel in front of the mount believes what it was told for as long as it was told.
    pub kernel_caches: bool,
}

impl<S: Site> Default for Setup<S> {
    fn default() -> Self {
        let (config, options) = (Config::default(), S::options());
        Setup { config, options, tracking: true, kernel_caches: false }
    }
}

/// One server, its mounts, and the time.
#[derive(Clone, Debug)]
pub struct World<S: Site> {
    server: S::Server,
    now: Now,
    weather: Weather,
    random: Random,
    mounts: Vec<Mount<S>>,
    clients: u64,
    tapes: Tapes<S::Layout>,
    sabotage: Option<Sabotage>,
    tally: Tally,
    /// The server does nothing until then.
    server_still_until: Mono,
    /// How often acknowledged writes were lost; the mark, and what it was when all was secured.
    losses: u64,
    mark: usize,
    secured: usize,
}

/// One engine, the kernel before it and the connections behind it.
#[derive(Clone, Debug)]
struct Mount<S: Site> {
    setup: Setup<S>,
    engine: Engine<S::Layout>,
    tape: Tape<S::Layout>,
    wires: BTreeMap<Lane, Wire<S>>,
    kernel: Kernel,
    next_op: u64,
    /// Requests that were not answered yet, with the time by which they must be.
    pending: BTreeMap<OpId, Mono>,
    answers: BTreeMap<OpId, Result<Response, Errno>>,
    notices: Vec<Notice>,
    batches: u64,
    /// The batches of the last request, for messages.
    sent: Vec<Batch<BackendOf<S>>>,
    /// How many of these its answer took.
    took: usize,
    /// What the kernel was told to forget since the last request.
    invalidated: Vec<Invalidation>,
    /// It dies after so many further steps; at 0 it is dead and answers nothing.
    doom: Option<u64>,
    /// The longest write so far.
    largest: usize,
    /// Commands that the server has executed for it.
    executed: u64,
    /// What breaks after how many more of them.
    breaks: Option<(u64, Break)>,
    /// How far the clock on its wall is off.
    skew: i64,
}

impl<S: Site> Mount<S> {
    fn check_bounds(&self) {
        let (engine, config) = (&self.engine, &self.setup.config);
        let bounds = [
            ("dirty bytes", engine.dirty_bytes(), config.dirty_bytes.max(self.largest)),
            // The file that was read last stays, whatever its size.
            ("cached bytes", engine.cached_bytes(), config.cache_bytes + FILE_MAX as usize),
            ("facts", engine.known_facts(), config.fact_entries),
            ("requests", engine.in_flight().len(), config.max_ops),
        ];
        for (what, is, bound) in bounds {
            assert!(is <= bound, "{is} {what} where {bound} may be");
        }
    }
}

/// Something that can happen by itself.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The server executes the next batch of a lane.
    Execute(usize, Lane),
    /// The replies to a batch arrive.
    Replies(usize, Lane),
    /// A push arrives.
    Push(usize),
    /// A lane is connected again.
    Up(usize, Lane),
}

impl<S: Site> World<S> {
    /// An empty server that nobody has mounted.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(0) };
        let mut server = S::server(now);
        if weather.rate(Trouble::Loss) > 0 {
            server.may_lose();
        }
        World {
            server,
            now,
            weather,
            random: Random(seed),
            mounts: Vec::new(),
            clients: FOREIGN.0 + 1,
            tapes: Tapes::default(),
            sabotage: None,
            tally: Tally::default(),
            server_still_until: Mono::default(),
            losses: 0,
            mark: 0,
            secured: 0,
        }
    }

    /// The same with something that goes wrong from now on.
    #[must_use]
    pub fn sabotaged(mut self, sabotage: Option<Sabotage>) -> Self {
        self.sabotage = sabotage;
        self
    }

    /// Mounts the server once more. Mounts are numbered from 0.
    pub fn mount(&mut self, setup: &Setup<S>) -> usize {
        let (engine, tape) = self.engine(setup);
        let at = self.mounts.len();
        self.mounts.push(Mount {
            setup: setup.clone(),
            engine,
            tape,
            wires: BTreeMap::new(),
            kernel: Kernel::new(setup.kernel_caches),
            next_op: 1,
            pending: BTreeMap::new(),
            answers: BTreeMap::new(),
            notices: Vec::new(),
            batches: 0,
            sent: Vec::new(),
            took: 0,
            invalidated: Vec::new(),
            doom: None,
            largest: 0,
            executed: 0,
            breaks: None,
            skew: 0,
        });
        self.attach(at);
        at
    }

    /// A new engine, and what it does from now on.
    fn engine(&mut self, setup: &Setup<S>) -> (Engine<S::Layout>, Tape<S::Layout>) {
        let config = Sabotage::config(self.sabotage, setup);
        let options = setup.options.clone();
        let recipe = Recipe { config, options, seed: self.random.next(), now: self.now };
        (recipe.engine(), self.tapes.begin(&recipe))
    }

    /// Records what every mount does that is mounted from now on.
    pub fn record(&mut self, tapes: &Tapes<S::Layout>) {
        self.tapes = tapes.share();
    }

    /// Counts what goes wrong from now on.
    pub fn count_troubles(&mut self, tally: &Tally) {
        self.tally = tally.clone();
    }

    fn attach(&mut self, at: usize) {
        // A mount that finds no server is refused; that is not what is played here.
        let weather = self.set_weather(self.weather.untroubled());
        self.relieve();
        for lane in Lane::ALL {
            self.mounts[at].wires.insert(lane, Wire::default());
            self.connect(at, lane);
        }
        match self.request(at, Request::Attach) {
            Ok(Response::Attached(_)) => {}
            other => panic!("attach: {other:?}"),
        }
        // Nor is a server that forgets what is mounted.
        self.server.secure();
        self.set_weather(weather);
    }

    /// The mount will die after so many steps, most likely in the middle of something: from then
    /// on all requests come to `ENODEV`, until [`crash`](Self::crash) is called.
    pub fn doom(&mut self, at: usize, steps: u64) {
        self.mounts[at].doom = Some(steps);
    }

    /// Closes what is open, unmounts in good order, and mounts again.
    pub fn remount(&mut self, at: usize) {
        self.fs(at).close_all();
        self.settle();
        let detached = self.request(at, Request::Detach);
        assert_eq!(detached, Ok(Response::Done), "detach");
        self.settle();
        assert!(self.mounts[at].engine.is_idle(), "busy after detach");
        self.crash(at);
    }

    /// The mount dies as it stands, and is mounted again. What it had sent may or may not have
    /// arrived.
    pub fn crash(&mut self, at: usize) {
        for lane in Lane::ALL {
            self.drop_wire(at, lane, true);
        }
        let setup = self.mounts[at].setup.clone();
        let (engine, tape) = self.engine(&setup);
        let mount = &mut self.mounts[at];
        (mount.engine, mount.tape) = (engine, tape);
        mount.kernel = Kernel::new(setup.kernel_caches);
        mount.pending.clear();
        mount.answers.clear();
        (mount.doom, mount.breaks) = (None, None);
        self.attach(at);
    }

    // ---- looking

    /// The mount as programs use it.
    pub fn fs(&mut self, at: usize) -> Fs<'_, S> {
        Fs::new(self, at)
    }

    /// The server, for tests to look into.
    #[must_use]
    pub fn server(&self) -> &S::Server {
        &self.server
    }

    /// The engine of a mount.
    #[must_use]
    pub fn engine_of(&self, at: usize) -> &Engine<S::Layout> {
        &self.mounts[at].engine
    }

    /// How many mounts there are.
    #[must_use]
    pub fn mounts(&self) -> usize {
        self.mounts.len()
    }

    /// How many batches a mount has sent so far.
    #[must_use]
    pub fn batches(&self, at: usize) -> u64 {
        self.mounts[at].batches
    }

    /// The batches that a mount has sent from its last request until that was answered.
    #[must_use]
    pub fn last_batches(&self, at: usize) -> &[Batch<BackendOf<S>>] {
        &self.mounts[at].sent[..self.mounts[at].took]
    }

    /// What a mount has told the kernel to forget since its last request was made.
    #[must_use]
    pub fn last_invalidations(&self, at: usize) -> &[Invalidation] {
        &self.mounts[at].invalidated
    }

    /// What a mount had to say so far.
    #[must_use]
    pub fn notices(&self, at: usize) -> &[Notice] {
        &self.mounts[at].notices
    }

    /// Other programs' part: a command on a connection of its own.
    pub fn command(&mut self, command: &CommandOf<S>) -> ReplyOf<S> {
        let reply = self.server.command(self.now, FOREIGN, command);
        self.collect_pushes();
        reply
    }

    /// What the layout's own check finds on the server; see [`Site::inspect`].
    pub fn inspect(&mut self) -> Option<String> {
        let now = self.now;
        S::inspect(&mut |command| self.command(command), now)
    }

    // ---- time

    /// Changes the weather; returns what it was.
    pub fn set_weather(&mut self, weather: Weather) -> Weather {
        core::mem::replace(&mut self.weather, weather)
    }

    /// Sets the clock on the wall, which nothing else moves but [`sleep`](Self::sleep).
    pub fn set_wall(&mut self, wall: Wall) {
        self.now.wall = wall;
    }

    /// Lets time pass, on both clocks, and everything happen meanwhile.
    pub fn sleep(&mut self, time: Duration) {
        self.settle();
        self.now.wall.0 += i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        self.server.tick(self.now);
        self.collect_pushes();
        self.pass(time);
        self.settle();
    }

    /// Moves the monotonic clock; timers that are due on the way fire.
    fn pass(&mut self, time: Duration) {
        let until = self.now.mono.after(time);
        loop {
            let due = self.mounts.iter().filter_map(|it| it.engine.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= until) else { break };
            self.now.mono = due.max(self.now.mono);
            for at in 0..self.mounts.len() {
                if self.is_due(at) {
                    self.input(at, Input::Tick);
                    assert!(!self.is_due(at), "a timer that was due has not fired");
                }
            }
        }
        self.now.mono = until;
    }

    fn is_due(&self, at: usize) -> bool {
        self.mounts[at].engine.poll_timeout().is_some_and(|due| due <= self.now.mono)
    }

    // ---- requests

    /// Asks, and lets things happen until the answer is there.
    pub fn request(&mut self, at: usize, request: Request) -> Result<Response, Errno> {
        if self.mounts[at].doom == Some(0) {
            return Err(Errno::ENODEV);
        }
        let op = self.start(at, request);
        self.wait(at, op)
    }

    /// Asks.
    pub fn start(&mut self, at: usize, mut request: Request) -> OpId {
        let early = self.sabotage.and_then(|it| it.request(&mut request));
        let mount = &mut self.mounts[at];
        mount.sent.clear();
        mount.took = 0;
        mount.invalidated.clear();
        let op = OpId(mount.next_op);
        mount.next_op += 1;
        let deadline = match &request {
            Request::Forget { .. } => None,
            Request::Attach | Request::SetLock { wait: true, .. } => Some(Mono::NEVER),
            _ => Some(self.now.mono.after(mount.setup.config.op_timeout)),
        };
        if let Some(deadline) = deadline {
            mount.pending.insert(op, deadline);
        }
        if let Request::Write { data, .. } = &request {
            mount.largest = mount.largest.max(data.len());
        }
        match early {
            Some(answer) => {
                mount.pending.remove(&op);
                mount.answers.insert(op, answer);
            }
            None => self.input(at, Input::Request(op, request)),
        }
        op
    }

    /// Lets things happen until a request is answered.
    pub fn wait(&mut self, at: usize, op: OpId) -> Result<Response, Errno> {
        for _ in 0..STEPS {
            if let Some(answer) = self.mounts[at].answers.remove(&op) {
                return answer;
            }
            if let Some(left) = &mut self.mounts[at].doom {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    return Err(Errno::ENODEV);
                }
            }
            self.step();
        }
        panic!("no answer: {:?}", self.mounts[at].engine.in_flight());
    }

    /// The answer to a request, if it is there.
    pub fn answer(&mut self, at: usize, op: OpId) -> Option<Result<Response, Errno>> {
        self.mounts[at].answers.remove(&op)
    }

    /// The caller of a request is interrupted.
    pub fn cancel(&mut self, at: usize, op: OpId) {
        self.input(at, Input::Cancel(op));
    }

    /// One thing happens; if nothing can, time passes until something does.
    pub fn step(&mut self) {
        let events = self.events();
        let quiet = events.is_empty();
        if quiet {
            let timers = self.mounts.iter().filter_map(|it| it.engine.poll_timeout());
            let Some(next) = timers.chain(self.wires_due()).min() else {
                let waiting: Vec<_> = self.mounts.iter().map(|it| it.engine.in_flight()).collect();
                panic!("nothing will ever happen again: {waiting:?}");
            };
            self.pass(next.since(self.now.mono));
            return;
        }
        self.misfortune();
        self.happen(&events);
    }

    /// Lets everything happen that will by itself, in good weather and with a server that refuses
    /// nothing, until nothing is on its way.
    pub fn settle(&mut self) {
        self.server.obey();
        let weather = self.weather;
        self.weather = weather.untroubled();
        for _ in 0..STEPS {
            let events = self.events();
            if !events.is_empty() {
                self.happen(&events);
                continue;
            }
            // Who waits for a lock of another may wait for ever.
            let due = |it: &Mount<S>| it.pending.values().any(|due| *due != Mono::NEVER);
            let waiting = self.mounts.iter().any(due);
            let timers = self.mounts.iter().filter_map(|it| it.engine.poll_timeout());
            let timers = timers.filter(|_| waiting);
            match timers.chain(self.wires_due()).min() {
                Some(next) => self.pass(next.since(self.now.mono)),
                None => {
                    self.weather = weather;
                    return;
                }
            }
        }
        panic!("it never settles");
    }

    /// What can happen now.
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let busy = self.server_still_until > self.now.mono;
        for (at, mount) in self.mounts.iter().enumerate() {
            for (&lane, wire) in &mount.wires {
                if wire.back_at.is_some_and(|at| at <= self.now.mono) {
                    events.push(Event::Up(at, lane));
                }
                if wire.still_until > self.now.mono {
                    continue;
                }
                if !wire.replies.is_empty() {
                    events.push(Event::Replies(at, lane));
                }
                if wire.can_execute() && !busy {
                    events.push(Event::Execute(at, lane));
                }
                if !wire.pushes.is_empty() {
                    events.push(Event::Push(at));
                }
            }
        }
        events
    }

    /// When a lane that is down or stands still goes on.
    fn wires_due(&self) -> impl Iterator<Item = Mono> {
        let wires = self.mounts.iter().flat_map(|mount| mount.wires.values());
        let still = wires.filter_map(|wire| match wire.back_at {
            Some(at) => Some(at),
            None => (wire.still_until > self.now.mono).then_some(wire.still_until),
        });
        let server = self.server_still_until;
        still.chain((server > self.now.mono).then_some(server))
    }

    fn happen(&mut self, events: &[Event]) {
        let event = match self.weather.reorders {
            false => events[0],
            true => events[self.random.next() as usize % events.len()],
        };
        let micros = if self.weather.reorders { 1 + self.random.next() % 400 } else { 20 };
        self.pass(Duration::from_micros(micros));
        self.occur(event);
    }

    fn occur(&mut self, event: Event) {
        match event {
            Event::Execute(at, lane) => self.execute(at, lane),
            Event::Replies(at, lane) => {
                let wire = self.wire(at, lane);
                if let Some((batch, replies)) = wire.replies.pop_front() {
                    self.input(at, Input::Replies(batch, Ok(replies)));
                }
            }
            Event::Push(at) => {
                if let Some(push) = self.wire(at, Lane::Push).pushes.pop_front() {
                    self.input(at, Input::Push(push));
                }
            }
            Event::Up(at, lane) => self.connect(at, lane),
        }
    }

    /// Hands an engine an input and takes what it wants.
    fn input(&mut self, at: usize, input: Input<BackendOf<S>>) {
        let mount = &mut self.mounts[at];
        let now = Now { wall: Wall(self.now.wall.0.saturating_add(mount.skew)), ..self.now };
        mount.tape.input(now, &input);
        mount.engine.handle(now, input);
        let outputs: Vec<_> = core::iter::from_fn(|| mount.engine.poll()).collect();
        mount.tape.outputs(&outputs);
        for output in outputs {
            match output {
                Output::Submit(batch) => {
                    assert!(!batch.commands.is_empty(), "an empty batch");
                    mount.batches += 1;
                    mount.sent.push(batch.clone());
                    if let Some(wire) = mount.wires.get_mut(&batch.lane) {
                        wire.batches.push_back(batch);
                    }
                }
                Output::Respond(op, answer) => {
                    let deadline = mount.pending.remove(&op);
                    assert!(deadline.is_some(), "{op:?} is answered, and nobody asked: {answer:?}");
                    let late = deadline.is_some_and(|deadline| now.mono > deadline);
                    assert!(!late, "{op:?} is answered too late: {answer:?}");
                    mount.took = mount.sent.len();
                    let answer = match self.sabotage {
                        Some(sabotage) => sabotage.answer(answer),
                        None => answer,
                    };
                    mount.answers.insert(op, answer);
                }
                Output::Invalidate(_) if self.sabotage == Some(Sabotage::InvalidationsLost) => {}
                Output::Invalidate(what) => {
                    mount.kernel.invalidate(&what);
                    mount.invalidated.push(what);
                }
                Output::Notice(_) if self.sabotage == Some(Sabotage::NoticesLost) => {}
                Output::Notice(notice) => mount.notices.push(notice),
                Output::Abandon(_) => {}
            }
        }
        mount.check_bounds();
    }
}
