//! What the threads that submit and the thread that reads share of one connection.

use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use dbmount_engine::backend::redis::Redis;
use dbmount_engine::contract::{Batch, Fault, Input};
use dbmount_engine::id::{BatchId, Lane};

use crate::pipeline::Pipeline;
use crate::socket::{Bell, Socket};
use crate::transport::{Options, Sink};
use crate::url::Endpoint;

/// The connections, by the lane whose batches they carry. Pushes share the one for metadata: a
/// server writes the push that a change causes together with its reply, so that our own changes
/// cost neither the server another write nor us another thread that wakes for it.
pub(crate) const CONNECTIONS: [Lane; 2] = [Lane::Meta, Lane::Bulk];

/// One connection.
pub(crate) struct Shared {
    pub(crate) lane: Lane,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) options: Arc<Options>,
    pub(crate) sink: Arc<dyn Sink>,
    /// Wakes the reader.
    pub(crate) bell: Arc<Bell>,
    state: Mutex<State>,
    reader: OnceLock<ThreadId>,
}

pub(crate) struct State {
    pub(crate) pipe: Pipeline,
    /// While the connection is of use.
    pub(crate) socket: Option<Arc<Socket>>,
    /// Inputs that need no server, for the reader to deliver.
    pub(crate) ready: Vec<Input<Redis>>,
    /// The reader knows that there are bytes to write, or has been told.
    pub(crate) writing: bool,
    /// The reader is delivering and writes afterwards what is submitted from within: several
    /// answers then cost one write and not one each.
    pub(crate) corked: bool,
    /// A write failed; the reader finds out the rest.
    pub(crate) broken: Option<io::Error>,
    pub(crate) closing: bool,
}

impl Shared {
    pub(crate) fn new(
        lane: Lane,
        endpoint: Arc<Endpoint>,
        options: Arc<Options>,
        sink: Arc<dyn Sink>,
    ) -> io::Result<Shared> {
        let bound = if lane == Lane::Bulk { options.bulk_in_flight } else { usize::MAX };
        let state = State {
            pipe: Pipeline::new(bound),
            socket: None,
            ready: Vec::new(),
            writing: false,
            corked: false,
            broken: None,
            closing: false,
        };
        let bell = Arc::new(Bell::new()?);
        let reader = OnceLock::new();
        Ok(Shared { lane, endpoint, options, sink, bell, state: Mutex::new(state), reader })
    }

    /// The lanes that are up and down with the connection.
    pub(crate) fn lanes(&self) -> &'static [Lane] {
        match self.lane {
            Lane::Bulk => &[Lane::Bulk],
            Lane::Meta | Lane::Push => &[Lane::Push, Lane::Meta],
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn submit(&self, batch: Batch<Redis>) {
        let mut state = self.lock();
        if batch.commands.is_empty() {
            state.ready.push(Input::Replies(batch.id, Ok(Vec::new())));
        } else if state.socket.is_some() {
            state.pipe.push(batch);
            if state.writing || (state.corked && self.is_own_thread()) || state.flush() {
                return;
            }
            state.writing = true;
        } else {
            // Not from here: the caller holds the engine's lock.
            state.ready.push(Input::Replies(batch.id, Err(Fault::NotSent)));
        }
        drop(state);
        self.bell.ring();
    }

    pub(crate) fn abandon(&self, id: BatchId) {
        self.lock().pipe.abandon(id);
    }

    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.bell.ring();
    }

    /// Delivers what needs no server; whether the lane stays open.
    pub(crate) fn deliver_ready(&self) -> bool {
        let mut state = self.lock();
        let ready = mem::take(&mut state.ready);
        let open = !state.closing;
        drop(state);
        self.deliver(ready);
        open
    }

    pub(crate) fn deliver(&self, inputs: Vec<Input<Redis>>) {
        if !inputs.is_empty() {
            self.sink.deliver(inputs);
        }
    }

    /// Names the calling thread as the one that reads.
    pub(crate) fn adopt(&self) {
        let _ = self.reader.set(thread::current().id());
    }

    pub(crate) fn is_own_thread(&self) -> bool {
        self.reader.get() == Some(&thread::current().id())
    }
}

impl State {
    /// Writes what the socket takes; whether nothing is left to do about it.
    pub(crate) fn flush(&mut self) -> bool {
        let Some(socket) = &self.socket else { return true };
        if self.broken.is_some() {
            return false;
        }
        match self.pipe.flush(|slices| socket.send(slices)) {
            Ok(()) => !self.pipe.has_output(),
            Err(e) => {
                self.broken = Some(e);
                false
            }
        }
    }
}
