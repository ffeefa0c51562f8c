//! The keys layout over the simulated Redis.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Push, Redis, Reply};
use crate::contract::Batch;
use crate::keys::{Keys, Options, RESERVED};
use crate::layout::Layout;
use crate::sim::redis;
use crate::time::Now;

use super::site::{ClientId, Server, Site};
use super::{CALLER, Setup, World};

impl From<ClientId> for redis::ClientId {
    fn from(client: ClientId) -> Self {
        redis::ClientId(client.0)
    }
}

impl Server for redis::Server {
    type Backend = Redis;

    fn run(&mut self, now: Now, client: ClientId, batch: &Batch<Redis>) -> Vec<Reply> {
        self.run(now, client.into(), batch)
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
