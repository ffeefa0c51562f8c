//! Lanes: the connections an engine's batches travel on, one for each lane, and the change stream.
//!
//! | file | what it is |
//! |---|---|
//! | `job` | one batch: what to send next, what a reply means, what a lost connection leaves open |
//! | `pipe` | the batches of one connection, in order |
//! | `reader` | a lane's thread: connects, reads, delivers, connects again |
//! | `watch` | the push lane's thread: the change stream |
//!
//! [`Transport::submit`] writes from the thread that calls it and never blocks. Replies are
//! delivered by the thread that read them. Across an election or a lost connection a batch goes on
//! where it was, as far as that applies nothing twice: reads and numbered writes are sent again,
//! a transaction is begun anew or its commit asked for again. Whatever else was on its way ends
//! as [`Fault::Unknown`](dbmount_engine::contract::Fault), and the engine looks what became of it.

mod job;
mod pipe;
mod reader;
mod watch;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use dbmount_engine::backend::mongo::Mongo;
use dbmount_engine::contract::{Batch, Input, Link};
use dbmount_engine::id::{BatchId, Lane};

use crate::change_stream::ChangeStream;
use crate::connection::{Deployment, Sender, random};
use crate::error::{Error, Sent};
use crate::uri::ConnectionString;
use pipe::Pipe;

/// Takes what the server says and what became of the connections.
pub trait Sink: Send + Sync + 'static {
    /// Called by the lanes' own threads, one call at a time for each lane, in the order in which
    /// things happened on it. No lock is held, so it may call [`Transport::submit`].
    fn deliver(&self, inputs: Vec<Input<Mongo>>);
}

/// What may be chosen about the lanes.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many bytes of batches are on the wire of [`Lane::Bulk`] at most; one batch may be more
    /// by itself.
    pub bulk_in_flight: usize,
    /// How long one search for a primary goes on before the engine is told that there is none.
    /// The search itself does not end.
    pub select: Duration,
    /// How long to wait before trying again after an attempt failed.
    pub pause: Duration,
    /// How long the server may take for a command of the change stream.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            bulk_in_flight: 2 << 20,
            select: Duration::from_secs(5),
            pause: Duration::from_millis(100),
            timeout: Duration::from_secs(30),
        }
    }
}

/// The connections to one deployment.
///
/// [`Lane::Meta`] and [`Lane::Bulk`] have a connection to the primary and a thread that reads it;
/// [`Lane::Push`] has the change stream. Dropping it is a [`Transport::shutdown`].
pub struct Transport {
    lanes: Vec<Arc<Shared>>,
    /// Disconnected when the last thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// How long [`Transport::shutdown`] waits for the threads.
const JOIN: Duration = Duration::from_secs(2);

/// What the threads of one lane share.
struct Shared {
    lane: Lane,
    deployment: Deployment,
    options: Options,
    /// Writes may be numbered, as far as the user is concerned (`retryWrites`).
    retry_writes: bool,
    sink: Arc<dyn Sink>,
    begun: Instant,
    state: Mutex<State>,
}

struct State {
    pipe: Pipe,
    /// While there is a connection.
    sender: Option<Sender>,
    /// Inputs that need no server, for the reader to deliver.
    ready: Vec<Input<Mongo>>,
    closing: bool,
}

impl Transport {
    /// Begins to watch the servers and to connect. What becomes of it is told to the sink as
    /// [`Input::Link`], lane by lane.
    ///
    /// # Errors
    /// What [`Deployment::start`] says of the connection string; threads or randomness that
    /// cannot be had.
    pub fn start(
        uri: &ConnectionString,
        stream: ChangeStream,
        options: Options,
        sink: Arc<dyn Sink>,
    ) -> Result<Transport, Error> {
        let deployment = Deployment::start(uri)?;
        let (alive, ended) = mpsc::channel();
        let mut transport = Transport { lanes: Vec::new(), ended: Mutex::new(ended) };
        let mut stream = Some(stream);
        for lane in Lane::ALL {
            let bound = if lane == Lane::Bulk { options.bulk_in_flight } else { usize::MAX };
            let state = State {
                pipe: Pipe::new(bound, random()?),
                sender: None,
                ready: Vec::new(),
                closing: false,
            };
            let shared = Arc::new(Shared {
                lane,
                deployment: deployment.clone(),
                options: options.clone(),
                retry_writes: uri.options.retry_writes != Some(false),
                sink: sink.clone(),
                begun: Instant::now(),
                state: Mutex::new(state),
            });
            transport.lanes.push(shared.clone());
            let stream = if lane == Lane::Push { stream.take() } else { None };
            let alive = alive.clone();
            thread::Builder::new()
                .name(format!("mongo-{lane:?}").to_lowercase())
                .spawn(move || {
                    match stream {
                        Some(stream) => watch::run(&shared, stream),
                        None => reader::run(&shared),
                    }
                    drop(alive);
                })
                .map_err(|source| crate::connection::link_error(Sent::No, source))?;
        }
        Ok(transport)
    }

    /// Sends a batch on its lane. Never blocks and never calls the sink.
    ///
    /// The order of submits on a lane is the order on the wire. Every batch gets one
    /// [`Input::Replies`], unless it is abandoned; while there is no connection it waits for one.
    pub fn submit(&self, batch: Batch<Mongo>) {
        if let Some(shared) = self.lanes.iter().find(|shared| shared.lane == batch.lane) {
            shared.submit(batch);
        }
    }

    /// Nobody waits for this batch any more. It is not sent if it was not yet; its replies, if
    /// they come, are dropped.
    pub fn abandon(&self, id: BatchId) {
        self.lanes.iter().for_each(|shared| shared.abandon(id));
    }

    /// Ends the threads and closes the connections; nothing is delivered afterwards. Waits for
    /// the threads for at most two seconds.
    pub fn shutdown(&self) {
        self.lanes.iter().for_each(|shared| shared.close());
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread that is connecting ends when that does; nobody needs to wait for it.
        let _ = ended.recv_timeout(JOIN);
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|shared| shared.close());
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lanes.iter().map(|shared| shared.lane)).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> i64 {
        self.begun.elapsed().as_millis() as i64
    }

    fn submit(&self, batch: Batch<Mongo>) {
        let mut state = self.lock();
        if batch.commands.is_empty() {
            state.ready.push(Input::Replies(batch.id, Ok(Vec::new())));
        } else {
            state.pipe.push(batch);
            state.send(self.now_ms());
        }
        state.wake_if_ready();
    }

    fn abandon(&self, id: BatchId) {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        state.pipe.abandon(id, now_ms);
        state.send(now_ms);
        state.wake_if_ready();
    }

    fn close(&self) {
        let mut state = self.lock();
        if !state.closing {
            state.closing = true;
            state.end_sessions();
        }
        state.sender.iter().for_each(Sender::close);
    }

    fn is_closing(&self) -> bool {
        self.lock().closing
    }

    fn deliver(&self, inputs: Vec<Input<Mongo>>) {
        if !inputs.is_empty() && !self.is_closing() {
            self.sink.deliver(inputs);
        }
    }

    fn tell(&self, link: Link) {
        self.deliver(vec![Input::Link(self.lane, link)]);
    }
}

impl State {
    /// Sends all that may be sent now.
    fn send(&mut self, now_ms: i64) {
        let Some(sender) = &self.sender else { return };
        while let Some(command) = self.pipe.next(now_ms) {
            match sender.send(command) {
                Ok(id) => self.pipe.sent(id),
                Err(Error::Misuse(misuse)) => {
                    self.pipe.not_sendable(&misuse, now_ms, &mut self.ready);
                }
                // The reader finds out the rest.
                Err(_) => return sender.close(),
            }
        }
    }

    fn wake_if_ready(&self) {
        if !self.ready.is_empty() {
            self.sender.iter().for_each(Sender::wake);
        }
    }

    /// Spares the server from keeping the sessions of this mount for half an hour.
    fn end_sessions(&mut self) {
        if let (Some(sender), Some(end)) = (&self.sender, self.pipe.end_sessions()) {
            // Nobody waits for the answer.
            let _ = sender.send(end);
        }
    }
}
