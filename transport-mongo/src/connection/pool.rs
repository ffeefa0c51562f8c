//! A bounded pool of authenticated connections to one server.
//!
//! Source: the connection monitoring and pooling specification, without its events. The pool's
//! generation comes from the topology: connections made under an older one are closed.

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::link::link_error;
use super::{Connection, Setup};
use crate::error::{Error, Sent};
use crate::topology::PoolGeneration;
use crate::uri::{Options, ServerAddress};

/// The bounds of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolBounds {
    /// `maxPoolSize`: connections at once, in use and idle.
    pub max_size: usize,
    /// `maxIdleTimeMS`: an idle connection older than that is closed.
    pub max_idle: Option<Duration>,
    /// `connectTimeoutMS`: for connecting and the handshake together.
    pub connect_timeout: Duration,
}

impl PoolBounds {
    /// From the options of a connection string. The defaults suit a mount, which keeps a few
    /// busy connections: 16 of them, never idle for too long, 10 seconds to connect.
    pub fn from_options(options: &Options) -> PoolBounds {
        let default = PoolBounds::default();
        PoolBounds {
            max_size: match options.max_pool_size {
                None => default.max_size,
                // 0 means no bound of the user's; ours then is what a server takes easily.
                Some(0) => 1000,
                Some(size) => size as usize,
            },
            max_idle: options.max_idle_time.filter(|time| !time.is_zero()),
            connect_timeout: match options.connect_timeout {
                None | Some(Duration::ZERO) => default.connect_timeout,
                Some(timeout) => timeout,
            },
        }
    }
}

impl Default for PoolBounds {
    fn default() -> PoolBounds {
        let connect_timeout = Duration::from_secs(10);
        PoolBounds { max_size: 16, max_idle: None, connect_timeout }
    }
}

/// A pool of connections to one server. Clones share it.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: ServerAddress,
    setup: Setup,
    bounds: PoolBounds,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last used at the back: it is taken first, so that the others grow old and go.
    idle: VecDeque<(Connection, PoolGeneration, Instant)>,
    /// Idle, in use and being opened.
    total: usize,
    generation: PoolGeneration,
    closed: bool,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps, so a panic elsewhere leaves it right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(address: ServerAddress, setup: Setup, bounds: PoolBounds) -> Pool {
        let (state, freed) = (Mutex::default(), Condvar::new());
        Pool(Arc::new(Inner { address, setup, bounds, state, freed }))
    }

    /// Where it leads.
    pub fn address(&self) -> &ServerAddress {
        &self.0.address
    }

    /// A connection of the current generation: an idle one that is still good, else a new one,
    /// waiting for room until `deadline`.
    ///
    /// # Errors
    /// As [`Connection::open`]; [`Error::Link`] as not sent when no room comes free in time or
    /// the pool is closed.
    pub fn check_out(&self, deadline: Instant) -> Result<Pooled, Error> {
        let inner = &self.0;
        let mut state = inner.state();
        loop {
            if state.closed {
                return Err(link_error(Sent::No, io::ErrorKind::NotConnected.into()));
            }
            while let Some((connection, generation, since)) = state.idle.pop_back() {
                let old = inner.bounds.max_idle.is_some_and(|max| since.elapsed() > max);
                if generation == state.generation && !old && connection.is_quiet() {
                    return Ok(self.pooled(connection, generation));
                }
                state.total -= 1;
            }
            if state.total < inner.bounds.max_size {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(link_error(Sent::No, io::ErrorKind::TimedOut.into()));
            }
            let waited = inner.freed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.total += 1;
        let generation = state.generation;
        drop(state);
        let until = deadline.min(Instant::now() + inner.bounds.connect_timeout);
        match Connection::open(&inner.address, &inner.setup, until) {
            Ok(connection) => Ok(self.pooled(connection, generation)),
            Err(error) => {
                self.forget_one();
                Err(error)
            }
        }
    }

    fn pooled(&self, connection: Connection, generation: PoolGeneration) -> Pooled {
        Pooled { connection: Some(connection), generation, pool: self.clone() }
    }

    fn forget_one(&self) {
        self.0.state().total -= 1;
        self.0.freed.notify_one();
    }

    /// Closes every connection older than `generation`: idle ones now, those in use when they
    /// come back.
    pub fn clear(&self, generation: PoolGeneration) {
        let mut state = self.0.state();
        if generation > state.generation {
            state.generation = generation;
            state.total -= state.idle.len();
            state.idle.clear();
            self.0.freed.notify_all();
        }
    }

    /// Closes it for good.
    pub fn close(&self) {
        let mut state = self.0.state();
        state.closed = true;
        state.total -= state.idle.len();
        state.idle.clear();
        self.0.freed.notify_all();
    }

    /// Connections in use, idle, or being opened.
    pub fn total(&self) -> usize {
        self.0.state().total
    }

    /// Connections in use or being opened.
    pub fn in_use(&self) -> u64 {
        let state = self.0.state();
        (state.total - state.idle.len()) as u64
    }

    /// Connections that wait for use.
    pub fn idle(&self) -> usize {
        self.0.state().idle.len()
    }
}

/// A connection out of the pool; it goes back when dropped, unless it is not quiet any more.
#[derive(Debug)]
pub struct Pooled {
    /// Always there until the drop.
    connection: Option<Connection>,
    generation: PoolGeneration,
    pool: Pool,
}

impl Pooled {
    /// The generation it was made under, for [`crate::topology::ApplicationError`].
    pub fn generation(&self) -> PoolGeneration {
        self.generation
    }

    /// Takes it out of the pool for good, to be split into its halves. Its room is free again.
    pub fn detach(mut self) -> Option<Connection> {
        let connection = self.connection.take();
        if connection.is_some() {
            self.pool.forget_one();
        }
        connection
    }
}

impl Deref for Pooled {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("only detach and drop take it, and both end the borrow"),
        }
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("only detach and drop take it, and both end the borrow"),
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let quiet = connection.is_quiet();
        let mut state = self.pool.0.state();
        if quiet && !state.closed && self.generation == state.generation {
            state.idle.push_back((connection, self.generation, Instant::now()));
        } else {
            state.total -= 1;
        }
        drop(state);
        self.pool.0.freed.notify_one();
    }
}
