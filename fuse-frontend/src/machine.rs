//! The seams of the driver: the state machine it drives, the transport that carries batches, and
//! the clock it hands in.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use dbmount_engine::backend::Backend;
use dbmount_engine::decide::Caps;
use dbmount_engine::engine::{Credit, Engine, InFlight, Progress};
use dbmount_engine::layout::Layout;
use dbmount_engine::{Batch, BatchId, Input, Mono, Now, Output, Wall};

/// A kind of server whose commands, replies and pushes may change threads.
pub trait Wire: Backend<Command: Send, Reply: Send, Push: Send> + Send + 'static {}

impl<B: Backend<Command: Send, Reply: Send, Push: Send> + Send + 'static> Wire for B {}

/// What the driver drives: the API of [`Engine`], as a trait so that the driver and the adapter
/// can be tested with a scripted machine.
pub trait Machine: Send + 'static {
    /// The kind of server it speaks to.
    type Backend: Wire;

    /// Takes one input; see [`Engine::handle`].
    fn handle(&mut self, now: Now, input: Input<Self::Backend>);
    /// The next output; see [`Engine::poll`].
    fn poll(&mut self) -> Option<Output<Self::Backend>>;
    /// When the next timer is due; see [`Engine::poll_timeout`].
    fn poll_timeout(&self) -> Option<Mono>;
    /// How much more it will take; see [`Engine::credit`].
    fn credit(&self) -> Credit;
    /// What is pending, oldest first; see [`Engine::in_flight`].
    fn in_flight(&self) -> Vec<InFlight>;
    /// How far background work is; see [`Engine::progress`].
    fn progress(&self) -> Progress;
    /// What can be held; see [`Layout::caps`].
    fn caps(&self) -> Caps;
}

impl<L> Machine for Engine<L>
where
    L: Layout + Send + 'static,
    L::Backend: Wire,
{
    type Backend = L::Backend;

    fn handle(&mut self, now: Now, input: Input<Self::Backend>) {
        Engine::handle(self, now, input);
    }

    fn poll(&mut self) -> Option<Output<Self::Backend>> {
        Engine::poll(self)
    }

    fn poll_timeout(&self) -> Option<Mono> {
        Engine::poll_timeout(self)
    }

    fn credit(&self) -> Credit {
        Engine::credit(self)
    }

    fn in_flight(&self) -> Vec<InFlight> {
        Engine::in_flight(self)
    }

    fn progress(&self) -> Progress {
        Engine::progress(self)
    }

    fn caps(&self) -> Caps {
        self.layout().caps()
    }
}

/// Carries batches to a server. What comes back goes to a [`Sink`], from threads of its own or
/// from [`after_step`](Transport::after_step).
pub trait Transport<B: Backend>: Send + Sync {
    /// Takes a batch. Called with the machine locked, so that the order of a lane is the order of
    /// the machine; it must neither block nor call the sink.
    fn submit(&self, batch: Batch<B>);

    /// Nobody waits for this batch any more. The same rules as for [`submit`](Self::submit).
    fn abandon(&self, batch: BatchId);

    /// Called by the stepping thread after it released the machine. A transport without threads
    /// of its own does its work here, on the thread that asked; a transport with threads does
    /// nothing.
    fn after_step(&self, _sink: &dyn Sink<B>) {}

    /// Closes every connection and ends every thread. Nothing is delivered afterwards.
    fn shutdown(&self);
}

/// Where a transport delivers replies, pushes and link changes.
pub trait Sink<B: Backend>: Send + Sync {
    /// Hands inputs to the machine in this order and answers what they complete, on the calling
    /// thread.
    fn deliver(&self, inputs: Vec<Input<B>>);
}

/// The one source of time: monotonic from its own start, wall from the system.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    pub fn start() -> Self {
        Clock { origin: Instant::now() }
    }

    /// Both clocks at this moment.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.mono(), wall: wall(SystemTime::now()) }
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn mono(&self) -> Mono {
        Mono::default().after(self.origin.elapsed())
    }
}

/// A time of the system as nanoseconds since the epoch, saturating at the ends of the range
/// (the years 1677 and 2262).
#[must_use]
pub fn wall(time: SystemTime) -> Wall {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Wall(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
        Err(before) => {
            Wall(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos))
        }
    }
}
