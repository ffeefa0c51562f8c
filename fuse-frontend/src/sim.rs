//! The transport of `mem:` mounts: a simulated server in the same process, run by whichever
//! thread wants something of it. No thread is woken, so a request is answered before the FUSE
//! worker takes the next one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError, TryLockError};

use dbmount_engine::backend::mongo::{Mongo, Push, Reply};
use dbmount_engine::contract::Link;
use dbmount_engine::gridfs;
use dbmount_engine::sim::mongo::{ClientId, Server, change_stream};
use dbmount_engine::{Batch, BatchId, Input, Lane, Now};

use crate::machine::{Clock, Sink, Transport, Wire};

/// A server in this process.
pub trait SimServer<B: Wire>: Send {
    /// Executes the commands of a batch at this time: one reply each, in order. What expired
    /// since the last call is gone.
    fn execute(&mut self, now: Now, batch: &Batch<B>) -> Vec<B::Reply>;

    /// What the server has said unasked since the last call.
    fn take_pushes(&mut self) -> Vec<B::Push>;
}

/// Executes batches on a [`SimServer`].
///
/// Batches queue up under the machine's lock, in the machine's order. They are executed and
/// delivered after it was released, by one thread at a time: whoever holds `server` goes on until
/// the queue is empty, and who finds it held leaves its batches to the holder. So the order of
/// replies is the order of submission, nobody waits, and the steps that replies cause (which come
/// back here from within `deliver`) only lengthen the queue and never nest.
pub struct SimTransport<B: Wire, S> {
    queue: Mutex<VecDeque<Batch<B>>>,
    server: Mutex<S>,
    clock: Clock,
}

impl<B: Wire, S: SimServer<B>> SimTransport<B, S> {
    /// A transport to a server that lives by the driver's clock.
    pub fn new(server: S, clock: Clock) -> Self {
        SimTransport { queue: Mutex::default(), server: Mutex::new(server), clock }
    }

    /// What to deliver first: every lane of a server in the same process is up.
    #[must_use]
    pub fn links_up() -> Vec<Input<B>> {
        Lane::ALL.map(|lane| Input::Link(lane, Link::Up { pushes: true })).to_vec()
    }

    fn next(&self) -> Option<Batch<B>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_idle(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl<B: Wire, S: SimServer<B>> Transport<B> for SimTransport<B, S> {
    fn submit(&self, batch: Batch<B>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(batch);
    }

    fn abandon(&self, _batch: BatchId) {}

    fn after_step(&self, sink: &dyn Sink<B>) {
        // Looking again after the server was released: a thread that found it held has left its
        // batches in the queue, maybe after the last look inside.
        while !self.is_idle() {
            let mut server = match self.server.try_lock() {
                Ok(server) => server,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while let Some(batch) = self.next() {
                let replies = server.execute(self.clock.now(), &batch);
                let mut inputs = vec![Input::Replies(batch.id, Ok(replies))];
                inputs.extend(server.take_pushes().into_iter().map(Input::Push));
                sink.deliver(inputs);
            }
        }
    }

    fn shutdown(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<B: Wire, S> fmt::Debug for SimTransport<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTransport").finish_non_exhaustive()
    }
}

/// A simulated replica set with one client for each lane.
#[derive(Debug)]
pub struct SimMongo {
    server: Server,
}

impl SimMongo {
    /// An empty server whose push client watches the bucket.
    #[must_use]
    pub fn new(now: Now, options: &gridfs::Options) -> Self {
        let mut server = Server::new(now);
        server.watch(now, client(Lane::Push), &change_stream(&options.db, &options.files()));
        SimMongo { server }
    }
}

impl SimServer<Mongo> for SimMongo {
    fn execute(&mut self, now: Now, batch: &Batch<Mongo>) -> Vec<Reply> {
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
