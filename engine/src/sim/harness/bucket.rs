//! The gridfs layout over the simulated MongoDB: a replica set, and a standalone.

use alloc::vec::Vec;

use crate::backend::mongo::{Command, Mongo, Push, Reply};
use crate::contract::Batch;
use crate::gridfs::{GridFs, Options};
use crate::sim::mongo;
use crate::time::{Duration, Now};

use super::site::{ClientId, Progress, Server, Site};
use super::{CALLER, Sabotage, Setup, Trouble};

impl From<ClientId> for mongo::ClientId {
    fn from(client: ClientId) -> Self {
        mongo::ClientId(client.0)
    }
}

impl Server for mongo::Server {
    type Backend = Mongo;
    type Running = mongo::Running;

    fn begin(&mut self, client: ClientId, batch: Batch<Mongo>) -> mongo::Running {
        self.begin(client.into(), &batch)
    }

    fn step(
        &mut self,
        now: Now,
        client: ClientId,
        running: &mut mongo::Running,
    ) -> Progress<Mongo> {
        match self.step(now, client.into(), running) {
            mongo::Progress::Executed => Progress::Executed,
            mongo::Progress::Waits => Progress::Waits,
            mongo::Progress::Done => Progress::Done(running.clone().replies()),
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

    fn trouble(&mut self, now: Now, trouble: Trouble, draw: u64) -> bool {
        match trouble {
            Trouble::Refusal => self.refuse_next(1 + draw as usize % 4),
            Trouble::Election => {
                self.step_down();
                self.step_up();
            }
            Trouble::Loss => self.crash(now),
            Trouble::Abort => return self.abort_transactions(),
            Trouble::Full if self.settings().disk > 0 => self.set_disk(0),
            Trouble::Full => self.fill(draw % 4096),
            _ => return false,
        }
        true
    }

    fn relieve(&mut self) {
        self.set_disk(0);
    }

    fn obey(&mut self) {
        self.refuse_next(0);
    }

    fn may_lose(&mut self) {
        self.set_lag(LAG);
    }

    fn secure(&mut self) {
        self.all_safe();
    }

    fn pushes_lost() -> Option<Push> {
        Some(Push::Lost)
    }
}

/// What goes wrong with MongoDB and is nobody's loss; the last of it is about pushes and
/// transactions, which a standalone does not have.
const MONGO: [Trouble; 8] = [
    Trouble::Cut,
    Trouble::Clock,
    Trouble::Stall,
    Trouble::Slow,
    Trouble::Election,
    Trouble::Twice,
    Trouble::PushesLost,
    Trouble::Abort,
];

/// How long a write that is not safe yet stays so on a server that may lose some.
const LAG: Duration = Duration::from_millis(20);

/// A GridFS bucket as a filesystem, on a replica set or on a standalone.
#[derive(Clone, Copy, Debug)]
pub struct GridFsOn<const REPLICA_SET: bool>;

/// A bucket where there are transactions and change streams.
pub type Bucket = GridFsOn<true>;
/// A bucket where there are none.
pub type LoneBucket = GridFsOn<false>;

impl<const REPLICA_SET: bool> Site for GridFsOn<REPLICA_SET> {
    type Layout = GridFs;
    type Options = Options;
    type Server = mongo::Server;

    const NAME: &'static str = if REPLICA_SET { "gridfs" } else { "gridfs on a standalone" };
    const KEEPS_TIMES: bool = true;
    const KEEPS_SYNCED: bool = true;
    const TROUBLES: &'static [Trouble] = if REPLICA_SET { &MONGO } else { MONGO.split_at(5).0 };
    const READERS_KEEP: Duration = Duration::from_secs(11);

    fn server(now: Now) -> mongo::Server {
        let settings = mongo::Settings { replica_set: REPLICA_SET, ..mongo::Settings::default() };
        mongo::Server::with_settings(now, settings)
    }

    fn options() -> Options {
        // Small chunks, so that a file of a play has several.
        let (uid, gid) = (CALLER.uid, CALLER.gid);
        Options { uid, gid, chunk_size: 4096, ..Options::default() }
    }

    fn subscribe(
        server: &mut mongo::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool {
        let command = mongo::change_stream(&setup.options.db, &setup.options.files());
        server.watch(now, client.into(), &command)
    }

    fn tamper(sabotage: Sabotage, command: &mut Command) {
        sabotage.mongo(command);
    }
}
