//! What a [`World`](super::World) is made of: a layout, and the simulated server that it is kept on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::backend::Backend;
use crate::contract::Batch;
use crate::layout::Layout;
use crate::replay::Recorded;
use crate::time::{Duration, Now};

use super::{Sabotage, Setup, Trouble};

/// A connection to a simulated server, chosen by the world and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// How far a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<B: Backend> {
    /// There is more to do.
    Executed,
    /// Nothing was done: it waits for a batch of somebody else to end.
    Waits,
    /// Some of it has to be sent once more, behind what was sent meanwhile.
    Again,
    /// Some of it was done in another order than it should have been: nothing can be told.
    Failed,
    /// It is done: one reply a command, in order.
    Done(Vec<B::Reply>),
}

/// A simulated server as a network sees it.
pub trait Server: Clone + Debug {
    /// What is said to it and by it.
    type Backend: Backend;

    /// A batch of which some commands have been executed.
    type Running: Clone + Debug;

    /// Takes a batch of a client in.
    fn begin(&mut self, client: ClientId, batch: Batch<Self::Backend>) -> Self::Running;

    /// Executes the next command of a batch that is not atomic, or what else cannot be parted.
    fn step(
        &mut self,
        now: Now,
        client: ClientId,
        running: &mut Self::Running,
    ) -> Progress<Self::Backend>;

    /// Executes a whole batch: one reply a command, in order; none when it waits for the batch of
    /// somebody else.
    fn run(
        &mut self,
        now: Now,
        client: ClientId,
        batch: &Batch<Self::Backend>,
    ) -> Vec<<Self::Backend as Backend>::Reply> {
        let mut running = self.begin(client, batch.clone());
        loop {
            match self.step(now, client, &mut running) {
                Progress::Executed | Progress::Again => {}
                Progress::Waits | Progress::Failed => return Vec::new(),
                Progress::Done(replies) => return replies,
            }
        }
    }

    /// Executes one command of another program.
    fn command(
        &mut self,
        now: Now,
        client: ClientId,
        command: &<Self::Backend as Backend>::Command,
    ) -> <Self::Backend as Backend>::Reply;

    /// Takes what it has to tell a client unasked.
    fn take_pushes(&mut self, client: ClientId) -> Vec<<Self::Backend as Backend>::Push>;

    /// Lets time pass: what expires is gone.
    fn tick(&mut self, now: Now);

    /// A connection has ended.
    fn disconnect(&mut self, client: ClientId);

    /// Something goes wrong with it, where that can be.
    fn trouble(&mut self, _now: Now, _trouble: Trouble, _draw: u64) -> bool {
        false
    }

    /// It has room again.
    fn relieve(&mut self) {}

    /// It refuses nothing any more.
    fn obey(&mut self) {}

    /// From now on it does not secure what it acknowledges at once.
    fn may_lose(&mut self) {}

    /// What it has now is secure: no loss takes it.
    fn secure(&mut self) {}

    /// What it says when it has lost what it had to say.
    fn pushes_lost() -> Option<<Self::Backend as Backend>::Push> {
        None
    }
}

/// A layout on its server.
pub trait Site: Clone + Debug + 'static {
    /// The layout.
    type Layout: Recorded<Options = Self::Options>;
    /// How the layout is mounted. The default is what most plays are played with.
    type Options: Clone + Debug;
    /// Where it is kept.
    type Server: Server<Backend = BackendOf<Self>>;

    /// Its name, for messages.
    const NAME: &'static str;

    /// Times that nobody set are on the server, and the same after a remount.
    const KEEPS_TIMES: bool;

    /// What an fsync has acknowledged outlives the loss of what was acknowledged last.
    const KEEPS_SYNCED: bool = false;

    /// What can go wrong with the network and the server and must not show.
    const TROUBLES: &'static [Trouble] = &[];

    /// For how long who has a file open goes on seeing it as it was opened when another mount
    /// writes it anew.
    const READERS_KEEP: Duration = Duration::ZERO;

    /// A server that can be mounted, with nothing on it.
    fn server(now: Now) -> Self::Server;

    /// Options with which what has no owner of its own belongs to [`CALLER`](super::CALLER).
    fn options() -> Self::Options;

    /// The layout of a new mount.
    fn layout(options: &Self::Options, now: Now) -> Self::Layout {
        Self::Layout::with(options.clone(), now)
    }

    /// Sets up the connection on which the server speaks unasked, as the frontend does. Returns
    /// whether it will.
    fn subscribe(
        server: &mut Self::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool;

    /// What does not fit together on the server when nothing is going on, found by the layout's own
    /// check, where it has one.
    fn inspect(
        _execute: &mut dyn FnMut(&CommandOf<Self>) -> ReplyOf<Self>,
        _now: Now,
    ) -> Option<String> {
        None
    }

    /// Tells the server something else than the engine would.
    fn tamper(_sabotage: Sabotage, _command: &mut CommandOf<Self>) {}
}

/// What the server of a site speaks.
pub type BackendOf<S> = <<S as Site>::Layout as Layout>::Backend;
/// What the server of a site says unasked.
pub type PushOf<S> = <BackendOf<S> as Backend>::Push;
/// What the server of a site is told.
pub type CommandOf<S> = <BackendOf<S> as Backend>::Command;
/// What the server of a site answers.
pub type ReplyOf<S> = <BackendOf<S> as Backend>::Reply;
