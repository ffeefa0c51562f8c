//! The keys layout over the simulated Redis.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Push, Redis, Reply};
use crate::contract::{Batch, Mode};
use crate::keys::{Keys, Options, RESERVED};
use crate::layout::Layout;
use crate::sim::redis;
use crate::time::Now;

use super::site::{ClientId, Progress, Server, Site};
use super::{CALLER, Sabotage, Setup, World};

impl From<ClientId> for redis::ClientId {
    fn from(client: ClientId) -> Self {
        redis::ClientId(client.0)
    }
}

/// A batch, how many of its commands were executed, and the replies to those.
#[derive(Clone, Debug)]
pub struct Running {
    batch: Batch<Redis>,
    at: usize,
    replies: Vec<Reply>,
}

impl Server for redis::Server {
    type Backend = Redis;

    type Running = Running;

    fn begin(&mut self, _client: ClientId, batch: Batch<Redis>) -> Running {
        Running { batch, at: 0, replies: Vec::new() }
    }

    fn step(&mut self, now: Now, client: ClientId, running: &mut Running) -> Progress<Redis> {
        let Running { batch, at, replies } = running;
        let rest = batch.commands.len() - *at;
        // `MULTI` … `EXEC` is one step.
        let some = if batch.mode == Mode::Atomic { rest } else { rest.min(1) };
        let commands = batch.commands[*at..*at + some].to_vec();
        let piece = Batch { commands, ..batch.clone() };
        replies.extend(self.run(now, client.into(), &piece));
        *at += some;
        match *at < batch.commands.len() {
            true => Progress::Executed,
            false => Progress::Done(core::mem::take(replies)),
        }
    }

    fn command(&mut self, now: Now, client: ClientId, command: &Command) -> Reply {
        self.execute(now, client.into(), command)
    }

    fn take_pushes(&mut self, client: ClientId) -> Vec<Push> {
        self.take_pushes(client.into())
    }

    fn tick(&mut self, now: Now) {
        self.tick(now);
    }

    fn disconnect(&mut self, client: ClientId) {
        self.disconnect(client.into());
    }
}

/// A Redis keyspace as files.
#[derive(Clone, Copy, Debug)]
pub enum Keyspace {}

impl Site for Keyspace {
    type Layout = Keys;
    type Options = Options;
    type Server = redis::Server;

    const NAME: &'static str = "keys";
    const KEEPS_TIMES: bool = false;

    fn server(now: Now) -> redis::Server {
        redis::Server::new(now)
    }

    fn options() -> Options {
        Options { uid: CALLER.uid, gid: CALLER.gid, ..Options::default() }
    }

    /// The prefixes a mount wants to hear of, as the frontend chooses them.
    fn subscribe(
        server: &mut redis::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool {
        let mut words = Vec::from(["CLIENT", "TRACKING", "ON", "BCAST"].map(Bytes::from));
        if !setup.options.prefix.is_empty() {
            let prefix = Bytes::from(setup.options.clone().normalised().prefix);
            for prefix in [prefix, Bytes::from_static(RESERVED)] {
                words.extend([Bytes::from_static(b"PREFIX"), prefix]);
            }
        }
        server.execute(now, client.into(), &Command::plain(words));
        true
    }

    fn tamper(sabotage: Sabotage, command: &mut Command) {
        sabotage.redis(command);
    }
}

impl<S> World<S>
where
    S: Site<Server = redis::Server>,
    S::Layout: Layout<Backend = Redis>,
{
    /// As [`command`](Self::command), from words.
    pub fn redis<A: Into<Bytes>>(&mut self, words: impl IntoIterator<Item = A>) -> Reply {
        self.command(&Command::plain(words))
    }
}
