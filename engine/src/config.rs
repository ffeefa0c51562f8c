//! The named bounds and policies of an engine. A queue or cache without a line here is a defect.

use serde::{Deserialize, Serialize};

use crate::time::Duration;

/// Bounds and policies that hold for every layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Answer `EROFS` to everything that would change something.
    pub read_only: bool,
    /// How long an operation may take before it is answered with `EIO` (`soft`), measured from
    /// the request.
    pub op_timeout: Duration,
    /// Requests that may be in progress at once; more are refused with `EAGAIN` by the engine, so
    /// a driver asks [`credit`](crate::engine::Engine::credit) first.
    pub max_ops: usize,
    /// Bytes of clean file contents to keep.
    pub cache_bytes: usize,
    /// Bytes written by programs that have not reached the server; a writer over it waits.
    pub dirty_bytes: usize,
    /// Dirty bytes of one file at which full blocks are sent without waiting for a flush.
    pub flush_bytes: usize,
    /// The oldest a dirty byte may get before it is sent.
    pub flush_age: Duration,
    /// Bytes a block of the cache holds: the unit of reading.
    pub block_bytes: u32,
    /// Bytes to read ahead of a sequential reader.
    pub readahead_bytes: u32,
    /// Facts about names and inodes to remember beyond those the kernel holds.
    pub fact_entries: usize,
    /// Names, keys and directories a listing asks about for one page.
    pub listing_entries: usize,
    /// Locks that programs of this mount may hold on one file.
    pub file_locks: usize,
    /// How often a commit is decided anew when others change what it stood on.
    pub max_conflicts: u32,
    /// How long the kernel may keep what pushes keep true.
    pub lease_pushed: Duration,
    /// How long the kernel may keep what nothing keeps true.
    pub lease_polled: Duration,
    /// Mark access times where the layout keeps them
    /// ([`Caps::atime`](crate::decide::Caps::atime)): those that are older than the last change or
    /// a day (`relatime`).
    pub atime: bool,
    /// With `atime`: mark each access (`strictatime`).
    pub strict_atime: bool,
    /// Inodes whose access times may wait to be written, for as long as dirty bytes may.
    pub accesses: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            read_only: false,
            op_timeout: Duration::from_secs(30),
            max_ops: 4096,
            cache_bytes: 64 << 20,
            dirty_bytes: 32 << 20,
            flush_bytes: 1 << 20,
            flush_age: Duration::from_secs(5),
            block_bytes: 128 << 10,
            readahead_bytes: 512 << 10,
            fact_entries: 65_536,
            listing_entries: 512,
            file_locks: 4096,
            max_conflicts: 64,
            lease_pushed: Duration::from_secs(3600),
            lease_polled: Duration::from_secs(1),
            atime: true,
            strict_atime: false,
            accesses: 256,
        }
    }
}
