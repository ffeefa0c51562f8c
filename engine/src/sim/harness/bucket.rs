//! The GridFS layout over the simulated MongoDB: a replica set, and a standalone.

use alloc::vec::Vec;

use crate::backend::mongo::{Command, Mongo, Push, Reply};
use crate::contract::Batch;
use crate::gridfs::{GridFs, Options};
use crate::sim::mongo;
use crate::time::Now;

use super::site::{ClientId, Server, Site};
use super::{CALLER, Setup};

impl From<ClientId> for mongo::ClientId {
    fn from(client: ClientId) -> Self {
        mongo::ClientId(client.0)
    }
}

impl Server for mongo::Server {
    type Backend = Mongo;

    fn run(&mut self, now: Now, client: ClientId, batch: &Batch<Mongo>) -> Vec<Reply> {
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

fn options() -> Options {
    Options { uid: CALLER.uid, gid: CALLER.gid, ..Options::default() }
}

fn subscribe(server: &mut mongo::Server, now: Now, client: ClientId, options: &Options) -> bool {
    server.watch(now, client.into(), &mongo::change_stream(&options.db, &options.files()))
}

/// A GridFS bucket on a replica set, as files.
#[derive(Clone, Copy, Debug)]
pub enum Bucket {}

impl Site for Bucket {
    type Layout = GridFs;
    type Options = Options;
    type Server = mongo::Server;

    const NAME: &'static str = "gridfs";
    const KEEPS_TIMES: bool = true;

    fn server(now: Now) -> mongo::Server {
        mongo::Server::new(now)
    }

    fn options() -> Options {
        options()
    }

    fn subscribe(
        server: &mut mongo::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool {
        subscribe(server, now, client, &setup.options)
    }
}

/// A GridFS bucket on a standalone, as files: no transactions, and nothing is told.
#[derive(Clone, Copy, Debug)]
pub enum LoneBucket {}

impl Site for LoneBucket {
    type Layout = GridFs;
    type Options = Options;
    type Server = mongo::Server;

    const NAME: &'static str = "gridfs on a standalone";
    const KEEPS_TIMES: bool = true;

    fn server(now: Now) -> mongo::Server {
        let settings = mongo::Settings { replica_set: false, ..mongo::Settings::default() };
        mongo::Server::with_settings(now, settings)
    }

    fn options() -> Options {
        options()
    }

    fn subscribe(
        server: &mut mongo::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool {
        subscribe(server, now, client, &setup.options)
    }
}
