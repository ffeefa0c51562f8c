//! The gridfs layout over the simulated MongoDB: a replica set, and a standalone.

use alloc::vec::Vec;

use crate::backend::mongo::{Command, Mongo, Push, Reply};
use crate::contract::Batch;
use crate::gridfs::{GridFs, Options};
use crate::sim::mongo;
use crate::time::Now;

use super::site::{ClientId, Progress, Server, Site};
use super::{CALLER, Sabotage, Setup};

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
}

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
