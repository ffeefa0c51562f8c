//! The public face: the connections of the lanes, and what may be asked of them.

use std::fmt;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::backend::redis::{Redis, Script};
use dbmount_engine::contract::{Batch, Input};
use dbmount_engine::id::{BatchId, Lane};

use crate::lane::{CONNECTIONS, Shared};
use crate::reader;
use crate::resp::Limits;
use crate::url::Endpoint;

/// Takes what the server says and what became of the connections.
pub trait Sink: Send + Sync + 'static {
    /// Called by the connections' own threads, one call at a time for each lane, in the order in
    /// which things happened on it. No lock is held, so it may call [`Transport::submit`].
    fn deliver(&self, inputs: Vec<Input<Redis>>);
}

/// What may be chosen about the connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// The scripts that batches will use, loaded into the server when a connection is made. One
    /// that is not here works too; its first use carries its body.
    pub scripts: Vec<&'static Script>,
    /// Ask the server to tell what other clients change, on [`Lane::Push`].
    pub tracking: bool,
    /// Only keys with one of these prefixes; all keys when empty. None may begin with another.
    pub tracking_prefixes: Vec<Bytes>,
    /// For finding the server and connecting to it.
    pub connect_timeout: Duration,
    /// For authentication and all else until the connection is of use.
    pub handshake_timeout: Duration,
    /// The pause before the first attempt to connect again. It doubles, with some jitter.
    pub retry_first: Duration,
    /// The longest such pause.
    pub retry_cap: Duration,
    /// How many bytes of batches are on the wire of [`Lane::Bulk`] at most; one batch may be
    /// more by itself.
    pub bulk_in_flight: usize,
    /// A connection on which nothing was heard for so long is asked for a sign of life,
    pub ping_after: Duration,
    /// which it has to give within this.
    pub ping_timeout: Duration,
    /// What a server may make us hold for one reply.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            scripts: Vec::new(),
            tracking: true,
            tracking_prefixes: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            retry_first: Duration::from_millis(50),
            retry_cap: Duration::from_secs(1),
            bulk_in_flight: 2 << 20,
            ping_after: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// The connections to one server.
///
/// [`Lane::Bulk`] has a connection, [`Lane::Meta`] and [`Lane::Push`] have one together. Each has
/// one thread, which reads, reconnects, and writes what a [`Transport::submit`] could not. Dropping it is a [`Transport::shutdown`].
pub struct Transport {
    lanes: Vec<Arc<Shared>>,
    /// Disconnected when the last thread has ended.
    ended: std::sync::Mutex<mpsc::Receiver<()>>,
}

/// How long [`Transport::shutdown`] waits for the threads.
const JOIN: Duration = Duration::from_secs(2);

impl Transport {
    /// Starts connecting. What becomes of it is told to the sink as
    /// [`Input::Link`], lane by lane.
    ///
    /// # Errors
    /// When the system gives no more threads or file descriptors.
    pub fn start(
        endpoint: Endpoint,
        options: Options,
        sink: Arc<dyn Sink>,
    ) -> io::Result<Transport> {
        let (alive, ended) = mpsc::channel();
        let (endpoint, options) = (Arc::new(endpoint), Arc::new(options));
        let mut transport = Transport { lanes: Vec::new(), ended: std::sync::Mutex::new(ended) };
        for lane in CONNECTIONS {
            let shared = Shared::new(lane, endpoint.clone(), options.clone(), sink.clone())?;
            let shared = Arc::new(shared);
            let (mine, alive) = (shared.clone(), alive.clone());
            let name = format!("redis-{lane:?}").to_lowercase();
            thread::Builder::new().name(name).spawn(move || {
                reader::run(&mine);
                drop(alive);
            })?;
            transport.lanes.push(shared);
        }
        Ok(transport)
    }

    /// Sends a batch on its lane. Never blocks and never calls the sink.
    ///
    /// The order of submits on a lane is the order on the wire, with one exception: when the
    /// server has lost a script (`SCRIPT FLUSH`), the commands that needed it are sent again
    /// behind what is in flight. Every batch gets one `Input::Replies`, unless it is abandoned.
    /// While the lane has no connection that is `Fault::NotSent`, at once.
    ///
    /// Commands that change what the server answers with (`SUBSCRIBE`, `MONITOR`, `RESET`,
    /// `CLIENT REPLY`, `HELLO`, `SELECT`) must not be sent.
    pub fn submit(&self, batch: Batch<Redis>) {
        if let Some(lane) = self.lane(batch.lane) {
            lane.submit(batch);
        }
    }

    /// Nobody waits for this batch any more. It is not sent if it was not yet; its replies, if
    /// they come, are dropped.
    pub fn abandon(&self, id: BatchId) {
        self.lanes.iter().for_each(|lane| lane.abandon(id));
    }

    /// Ends the threads and closes the connections. What is in flight gets its fault. Waits for
    /// the threads for at most two seconds, and not at all when one of them calls it.
    pub fn shutdown(&self) {
        self.lanes.iter().for_each(|lane| lane.close());
        if self.lanes.iter().any(|lane| lane.is_own_thread()) {
            return;
        }
        let ended = self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(JOIN) {
            tracing::warn!("a connection's thread did not end in time");
        }
    }

    fn lane(&self, lane: Lane) -> Option<&Arc<Shared>> {
        self.lanes.iter().find(|shared| shared.lanes().contains(&lane))
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.lanes.iter().map(|lane| lane.lane)).finish()
    }
}
