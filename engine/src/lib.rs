//! The filesystem engine of dbmount: a pure, synchronous, deterministic state machine that turns
//! filesystem requests into backend commands and consumes their replies without doing IO.
//!
//! # The drive contract
//!
//! ```text
//! engine.handle(now, input);                 // the only mutator
//! while let Some(output) = engine.poll() {}  // drain to None after every handle
//! engine.poll_timeout();                     // when to hand in the next Input::Tick
//! ```
//!
//! Same configuration, seed and inputs give the same outputs, byte for byte. Time is an argument
//! ([`Now`]), randomness comes from the seed, maps iterate in an order that only the inputs
//! decide. The crate is `no_std`, so sockets, threads, files and clocks are not even nameable.
//!
//! # The rooms
//!
//! | module | what lives there |
//! |---|---|
//! | [`op`] | the kernel's side: requests, responses, attributes |
//! | [`contract`] | the driver's side: inputs, outputs, batches, faults |
//! | [`backend`] | commands, replies and pushes of each kind of server |
//! | [`decide`] | what an operation means: pure functions from facts to plans |
//! | [`engine`] | the machines that run operations: transactions, reads, write-back, listings |
//! | [`layout`] | the seam between the two: how plans become commands and replies facts |
//! | [`lock`] | file locks: ranges, owners, conflicts |
//! | [`keys`] | the layout that shows a Redis keyspace as files |
//! | [`gridfs`] | the layout that keeps files in a MongoDB GridFS bucket |
//! | [`volume`] | the layout that keeps a POSIX filesystem in Redis |
//! | [`replay`] | the log of a session, and playing it again without a server |
//! | `sim` | simulated servers and a reference model (feature `sim`) |
#![no_std]

extern crate alloc;

pub mod backend;
pub mod config;
pub mod contract;
pub mod decide;
pub mod engine;
pub mod errno;
pub mod extents;
pub mod gridfs;
pub mod id;
pub mod keys;
pub mod layout;
pub mod lock;
pub mod op;
pub mod replay;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod volume;

pub use config::Config;
pub use contract::{Batch, Fault, Input, Invalidation, Mode, Notice, Output};
pub use errno::Errno;
pub use id::{BatchId, Fh, Ino, Lane, LockOwner, OpId};
pub use op::{Attr, Caller, Kind, Name, Request, Response};
pub use time::{Duration, Mono, Now, Wall};
