//! The state machine: `handle` an input, `poll` outputs.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::config::Config;
use crate::contract::{Input, Output};
use crate::id::OpId;
use crate::layout::Layout;
use crate::time::{Duration, Mono, Now};

/// What is in progress, for hang reports and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The request.
    pub op: OpId,
    /// Its name and main arguments.
    pub what: alloc::string::String,
    /// What it waits for.
    pub waits_for: &'static str,
    /// For how long it has been going on.
    pub age: Duration,
}

/// How much more an engine will take before it wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Further requests.
    pub ops: usize,
    /// Further bytes to write.
    pub bytes: usize,
}

/// Background work worth showing: how far the first index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Items done.
    pub done: u64,
    /// Items there are, as far as known.
    pub total: Option<u64>,
    /// Nothing more to wait for.
    pub finished: bool,
}

/// A filesystem over a layout. See the crate's documentation for how to drive it.
#[derive(Clone, Debug)]
pub struct Engine<L: Layout> {
    config: Config,
    layout: L,
    now: Now,
    out: VecDeque<Output<L::Backend>>,
}

impl<L: Layout> Engine<L> {
    /// A new engine. The first request must be `Request::Attach`.
    pub fn new(config: Config, layout: L, _seed: u64, now: Now) -> Self {
        Engine { config, layout, now, out: VecDeque::new() }
    }

    /// Takes one input. Drain [`poll`](Self::poll) to `None` afterwards.
    pub fn handle(&mut self, now: Now, _input: Input<L::Backend>) {
        self.now = now;
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<Output<L::Backend>> {
        self.out.pop_front()
    }

    /// When the next timer is due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// How much more it will take.
    pub fn credit(&self) -> Credit {
        Credit { ops: self.config.max_ops, bytes: self.config.dirty_bytes }
    }

    /// What is pending, oldest first.
    pub fn in_flight(&self) -> Vec<InFlight> {
        Vec::new()
    }

    /// How far the layout's background work is.
    pub fn progress(&self) -> Progress {
        Progress::default()
    }
}
