//! What a [`World`](super::World) is made of: a layout, and the simulated server that it is kept on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::backend::Backend;
use crate::contract::Batch;
use crate::layout::Layout;
use crate::replay::Recorded;
use crate::time::Now;

use super::Setup;

/// A connection to a simulated server, chosen by the world and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// A simulated server as a network sees it.
pub trait Server: Clone + Debug {
    /// What is said to it and by it.
    type Backend: Backend;

    /// Executes a batch for a client: one reply a command, in order.
    fn run(
        &mut self,
        now: Now,
        client: ClientId,
        batch: &Batch<Self::Backend>,
    ) -> Vec<<Self::Backend as Backend>::Reply>;

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
}

/// What the server of a site speaks.
pub type BackendOf<S> = <<S as Site>::Layout as Layout>::Backend;
/// What the server of a site is told.
pub type CommandOf<S> = <BackendOf<S> as Backend>::Command;
/// What the server of a site answers.
pub type ReplyOf<S> = <BackendOf<S> as Backend>::Reply;
