//! MongoDB behind the driver: the connections of a GridFS mount.

use std::sync::Arc;
use std::time::Duration;

use dbmount_engine::backend::mongo::Mongo;
use dbmount_engine::gridfs;
use dbmount_engine::{Batch, BatchId, Input};
use dbmount_transport_mongo::change_stream::ChangeStream;
use dbmount_transport_mongo::lanes::{Options, Transport as Lanes};
use dbmount_transport_mongo::uri::ConnectionString;

use crate::driver::Driver;
use crate::machine::{Machine, Sink, Transport};

/// Begins to watch the servers of a bucket and to connect to them.
///
/// # Errors
/// A connection string that cannot be used, or threads that cannot be had.
pub fn connect<M: Machine<Backend = Mongo>>(
    uri: &ConnectionString,
    options: &gridfs::Options,
    session: u64,
    timeout: Duration,
    driver: Arc<Driver<M>>,
) -> Result<Box<dyn Transport<Mongo>>, String> {
    let pipeline = gridfs::change_stream_of_others(session);
    let stream = ChangeStream::new(&options.db, Some(&options.files()), pipeline).with_documents();
    let lanes = Options { timeout, ..Options::default() };
    let lanes = Lanes::start(uri, stream, lanes, Arc::new(Deliver(driver)));
    Ok(Box::new(MongoTransport(lanes.map_err(|error| error.to_string())?)))
}

struct MongoTransport(Lanes);

impl Transport<Mongo> for MongoTransport {
    fn submit(&self, batch: Batch<Mongo>) {
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

impl<M: Machine<Backend = Mongo>> dbmount_transport_mongo::lanes::Sink for Deliver<M> {
    fn deliver(&self, inputs: Vec<Input<Mongo>>) {
        self.0.deliver(inputs);
    }
}
