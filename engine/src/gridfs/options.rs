//! How a bucket is shown as files.

use alloc::format;
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::backend::mongo::Concern;

/// Chunk size of new files unless told otherwise: a power of two, so that blocks of the kernel's
/// requests and chunks share their borders (the drivers' default of 255 KiB does not).
pub const CHUNK_SIZE: u32 = 256 << 10;
/// The smallest and largest chunk size there may be. A chunk document must stay below 16 MiB.
pub const CHUNK_SIZES: core::ops::RangeInclusive<u32> = 4096..=(8 << 20);

/// Options of the GridFS layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// The database.
    pub db: String,
    /// The bucket: the prefix of `.files` and `.chunks`.
    pub bucket: String,
    /// Bytes a chunk of a new file holds; existing files keep theirs.
    pub chunk_size: u32,
    /// How many old revisions of a file that is rewritten stay in the bucket, for drivers that
    /// ask for them. They go with the file's last name.
    pub keep_revisions: u32,
    /// Change nothing.
    pub read_only: bool,
    /// Owner of what has no owner of its own.
    pub uid: u32,
    /// Group of what has no group of its own.
    pub gid: u32,
    /// Bits taken from the mode of what has no mode of its own.
    pub umask: u16,
    /// How safe a change must be before it is acknowledged. Unless told, a set of several members
    /// has a majority wait for each, since an election may lose what fewer have; a single server
    /// acknowledges at once, and what an fsync waits for is in its journal.
    pub concern: Option<Concern>,
    /// Files of other programs that are shown, at most.
    pub foreign_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            db: String::from("test"),
            bucket: String::from("fs"),
            chunk_size: CHUNK_SIZE,
            keep_revisions: 0,
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
            concern: None,
            foreign_files: 1 << 20,
        }
    }
}

impl Options {
    /// The collection of the files documents.
    #[must_use]
    pub fn files(&self) -> String {
        format!("{}.files", self.bucket)
    }

    /// The collection of the chunks.
    #[must_use]
    pub fn chunks(&self) -> String {
        format!("{}.chunks", self.bucket)
    }
}
