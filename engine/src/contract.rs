//! The driver's side of the engine: what goes in, what comes out.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::errno::Errno;
use crate::id::{BatchId, Ino, Lane, OpId};
use crate::op::{Name, Request, Response};
use crate::time::Mono;

/// Everything that can happen to an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub enum Input<B: Backend> {
    /// The kernel asks.
    Request(OpId, Request),
    /// The caller of a request was interrupted: it is answered as soon as it can be.
    Cancel(OpId),
    /// What became of a batch: one reply a command, in order, or a fault of the whole.
    Replies(BatchId, Result<Vec<B::Reply>, Fault>),
    /// The server speaks unasked.
    Push(B::Push),
    /// A lane's connection came up (set up and authenticated) or was lost. Batches that were on
    /// it have had their `Replies` before `Down` is told, but for those a transport keeps, to go on
    /// with the next connection in a way that applies nothing twice. `Up` may be told again without
    /// a `Down` in between: what ended in a fault is then to be sent again.
    Link(Lane, Link),
    /// Time has passed; due timers run. Every input runs them, so this is only needed when
    /// nothing else happens.
    Tick,
}

/// The state of a lane's connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Link {
    /// Usable. `pushes` tells whether the server sends invalidations on it.
    Up {
        /// The server will send pushes on this connection (RESP3).
        pushes: bool,
    },
    /// Lost, or could not be made; the reason as a line for the user. The transport keeps trying.
    Down(String),
    /// The server was reached and said no for good (a wrong password, no such database): trying
    /// again cannot help.
    Refused(String),
}

/// Everything an engine can want.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(bound = "")]
pub enum Output<B: Backend> {
    /// Send these commands.
    Submit(Batch<B>),
    /// Nobody waits for this batch any more. It may still be answered.
    Abandon(BatchId),
    /// Answer the kernel.
    Respond(OpId, Result<Response, Errno>),
    /// Tell the kernel that what it remembers may be wrong. Never from a request handler.
    Invalidate(Invalidation),
    /// Tell the user.
    Notice(Notice),
}

/// Commands that travel together on one lane.
#[derive(Clone, PartialEq, Serialize)]
#[serde(bound = "")]
pub struct Batch<B: Backend> {
    /// For the replies.
    pub id: BatchId,
    /// The connection to use.
    pub lane: Lane,
    /// What the commands are to each other.
    pub mode: Mode,
    /// When its caller stops waiting. The engine keeps that time itself; a transport may give up
    /// then, and need not.
    pub deadline: Mono,
    /// At least one.
    pub commands: Vec<B::Command>,
}

impl<B: Backend> fmt::Debug for Batch<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch {} on {:?} ({:?}) ", self.id.0, self.lane, self.mode)?;
        f.debug_list().entries(&self.commands).finish()
    }
}

/// What the commands of a batch are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Mode {
    /// Any may fail without the others.
    Independent,
    /// Each is executed after the one before it.
    Ordered,
    /// All or none (`MULTI`/`EXEC`, a transaction).
    Atomic,
}

/// Why a batch has no replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fault {
    /// No byte of it left: it may be sent again freely.
    NotSent,
    /// Sent, and the connection was lost before the replies: it may or may not have happened.
    Unknown,
}

/// What the kernel should forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Invalidation {
    /// Attributes and cached contents of an inode.
    Inode(Ino),
    /// A name, whether it leads somewhere or not.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name in it.
        name: Name,
    },
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// What, where, and what to do.
    pub text: String,
}

/// How much a [`Notice`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Level {
    /// Data may be lost or cannot be served.
    Error,
    /// Something is not as it should be, and is being dealt with.
    Warn,
    /// Worth knowing.
    Info,
}
