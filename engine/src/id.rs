//! Newtypes for everything that has a number, each with its life cycle.

use core::fmt;

use serde::{Deserialize, Serialize};

/// An inode number as the kernel sees it (its `nodeid` and `st_ino`).
///
/// Given out by the layout when a name is first looked up or created; kept, through renames,
/// for as long as the kernel remembers it or a handle is open on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory, by FUSE's own convention.
    pub const ROOT: Ino = Ino(1);
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A request in progress. Chosen by the driver, unique until it is responded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// A batch of commands on its way. Chosen by the engine, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchId(pub u64);

/// An open file or directory. Given at open, gone at release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fh(pub u64);

/// Who holds a lock: a process (record locks) or an open file description (`flock`), as the kernel
/// numbers them. Unique on one mount for as long as it holds anything.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LockOwner(pub u64);

/// One ordered stream of batches: a lane is one connection, used in order. Batches on different
/// lanes may finish in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Small metadata commands; never waits behind bulk data.
    Meta,
    /// File contents.
    Bulk,
    /// Subscriptions: the server speaks first here. Always drained. A transport may put it on the
    /// connection of another lane.
    Push,
}

impl Lane {
    /// Every lane, in the order in which they are set up.
    pub const ALL: [Lane; 3] = [Lane::Push, Lane::Meta, Lane::Bulk];
}

/// Identifies one commit for ever, so that a second look can tell whether it happened.
///
/// Unique across mounts (`session` is random) and across commits of one mount (`serial`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The mount that made the commit, drawn from the seed.
    pub session: u64,
    /// Counts the commits of that mount.
    pub serial: u64,
}
