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
use super::{CALLER, Sabotage, Setup, Trouble, World};

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
    /// Commands whose script the server did not have when they came.
    again: Vec<usize>,
}

impl Running {
    /// As the transport does it: what was meant to come after a script that was not there has come
    /// before it.
    fn ended(&mut self) -> Progress<Redis> {
        match self.again.first() {
            None => Progress::Done(core::mem::take(&mut self.replies)),
            Some(first)
                if self.batch.mode == Mode::Ordered
                    && self.again.len() < self.replies.len() - first =>
            {
                Progress::Failed
            }
            Some(_) => Progress::Again,
        }
    }
}

impl Server for redis::Server {
    type Backend = Redis;

    type Running = Running;

    fn begin(&mut self, _client: ClientId, batch: Batch<Redis>) -> Running {
        Running { batch, at: 0, replies: Vec::new(), again: Vec::new() }
    }

    fn step(&mut self, now: Now, client: ClientId, running: &mut Running) -> Progress<Redis> {
        let client = client.into();
        let Running { batch, at, replies, again } = running;
        let rest = batch.commands.len() - *at;
        if rest == 0 {
            // Once more, with the text of the script.
            if let Some(&next) = again.first() {
                again.remove(0);
                self.has_script(client, &batch.commands[next], true);
                replies[next] = self.execute(now, client, &batch.commands[next]);
            }
            return match again.is_empty() {
                true => Progress::Done(core::mem::take(replies)),
                false => Progress::Executed,
            };
        }
        // `MULTI` … `EXEC` is one step, and has the text of its scripts with it.
        let atomic = batch.mode == Mode::Atomic;
        let some = if atomic { rest } else { 1 };
        let commands = batch.commands[*at..*at + some].to_vec();
        let missing = commands.iter().filter(|it| !self.has_script(client, it, atomic)).count() > 0;
        if let Some(refusal) = self.take_refusal() {
            replies.extend(core::iter::repeat_n(refusal, some));
        } else if missing {
            again.push(*at);
            replies.push(Reply::Nil);
        } else {
            let piece = Batch { commands, ..batch.clone() };
            replies.extend(self.run(now, client, &piece));
        }
        *at += some;
        match *at < batch.commands.len() {
            true => Progress::Executed,
            false => running.ended(),
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

    fn trouble(&mut self, _now: Now, trouble: Trouble, draw: u64) -> bool {
        match trouble {
            Trouble::Refusal => self.refuse_next(1 + draw as usize % 4),
            Trouble::ScriptsForgotten | Trouble::Election => self.forget_scripts(),
            Trouble::Loss => self.fail_over(),
            Trouble::Eviction => return self.evict(draw as usize),
            Trouble::Full if self.settings().maxmemory > 0 => self.relieve(),
            Trouble::Full => self.fill(draw % 4096),
            _ => return false,
        }
        true
    }

    fn relieve(&mut self) {
        self.relieve();
    }

    fn obey(&mut self) {
        self.refuse_next(0);
    }

    fn may_lose(&mut self) {
        self.replicate();
    }

    fn secure(&mut self) {
        self.replicate();
    }

    fn pushes_lost() -> Option<Push> {
        Some(Push::InvalidateAll)
    }
}

/// What goes wrong with Redis and is nobody's loss.
pub(super) const REDIS: [Trouble; 8] = [
    Trouble::Cut,
    Trouble::Stall,
    Trouble::Twice,
    Trouble::PushesLost,
    Trouble::Slow,
    Trouble::ScriptsForgotten,
    Trouble::Election,
    Trouble::Clock,
];

/// A Redis keyspace as files.
#[derive(Clone, Copy, Debug)]
pub enum Keyspace {}

impl Site for Keyspace {
    type Layout = Keys;
    type Options = Options;
    type Server = redis::Server;

    const NAME: &'static str = "keys";
    const KEEPS_TIMES: bool = false;
    const TROUBLES: &'static [Trouble] = &REDIS;

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
