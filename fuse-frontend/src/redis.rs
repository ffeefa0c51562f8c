//! Redis behind the driver: real connections, and the simulated server of `mem:` mounts.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dbmount_engine::backend::redis::{Push, Redis, Reply};
use dbmount_engine::keys;
use dbmount_engine::sim::redis::{ClientId, Server};
use dbmount_engine::volume;
use dbmount_engine::{Batch, BatchId, Input, Lane, Now};
use dbmount_transport_redis::{Endpoint, Options, Transport as Connections};

use crate::driver::Driver;
use crate::machine::{Machine, Sink, Transport};
use crate::sim::SimServer;

/// What the connections of a keys mount are to do.
#[must_use]
pub fn options(keys: &keys::Options) -> Options {
    let mut prefixes = Vec::new();
    if !keys.prefix.is_empty() {
        prefixes.push(Bytes::from(keys.prefix.clone()));
        prefixes.push(Bytes::from_static(keys::RESERVED));
    }
    Options {
        scripts: keys::scripts::ALL.to_vec(),
        tracking_prefixes: prefixes,
        ..Options::default()
    }
}

/// What the connections of a volume are to do.
#[must_use]
pub fn volume_options(volume: &volume::Options) -> Options {
    Options {
        scripts: volume::scripts::ALL.to_vec(),
        tracking_prefixes: volume.keys.tracked(),
        ..Options::default()
    }
}

/// Connects to a server.
///
/// # Errors
/// When threads or file descriptors run out.
pub fn connect<M: Machine<Backend = Redis>>(
    endpoint: Endpoint,
    options: Options,
    driver: Arc<Driver<M>>,
) -> io::Result<Box<dyn Transport<Redis>>> {
    let connections = Connections::start(endpoint, options, Arc::new(Deliver(driver)))?;
    Ok(Box::new(RedisTransport(connections)))
}

struct RedisTransport(Connections);

impl Transport<Redis> for RedisTransport {
    fn submit(&self, batch: Batch<Redis>) {
        self.0.submit(batch);
    }

    fn abandon(&self, batch: BatchId) {
        self.0.abandon(batch);
    }

    fn shutdown(&self) {
        self.0.shutdown();
    }
}

struct Deliver<M: Machine>(Arc<Driver<M>>);

impl<M: Machine<Backend = Redis>> dbmount_transport_redis::Sink for Deliver<M> {
    fn deliver(&self, inputs: Vec<Input<Redis>>) {
        self.0.deliver(inputs);
    }
}

/// The simulated server with one client for each lane.
#[derive(Debug)]
pub struct SimRedis {
    server: Server,
}

impl SimRedis {
    /// An empty server whose push client is told of every change of keys with these prefixes (of
    /// all keys, when there are none).
    #[must_use]
    pub fn new(now: Now, prefixes: &[Bytes]) -> Self {
        let mut server = Server::new(now);
        let mut words = ["CLIENT", "TRACKING", "ON", "BCAST"].map(Bytes::from).to_vec();
        for prefix in prefixes {
            words.extend([Bytes::from_static(b"PREFIX"), prefix.clone()]);
        }
        let tracking = dbmount_engine::backend::redis::Command::plain(words);
        server.execute(now, client(Lane::Push), &tracking);
        SimRedis { server }
    }
}

impl SimServer<Redis> for SimRedis {
    fn execute(&mut self, now: Now, batch: &Batch<Redis>) -> Vec<Reply> {
        self.server.run(now, client(batch.lane), batch)
    }

    fn take_pushes(&mut self) -> Vec<Push> {
        self.server.take_pushes(client(Lane::Push))
    }
}

fn client(lane: Lane) -> ClientId {
    ClientId(match lane {
        Lane::Push => 1,
        Lane::Meta => 2,
        Lane::Bulk => 3,
    })
}
