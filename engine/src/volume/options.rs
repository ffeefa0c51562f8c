//! What a user may choose about a volume.

use alloc::string::String;

use serde::{Deserialize, Serialize};

use super::key::Keyspace;
use super::record::BLOCK_SIZES;

/// The bytes of a block unless told otherwise. The server's time per byte is the same from 64 KiB
/// to 1 MiB (measured with Redis 7.0); smaller blocks make it more commands, larger ones make a
/// partial overwrite and a random read dearer.
pub const BLOCK: u32 = 128 << 10;

/// The choices, with the defaults of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Which volume.
    pub keys: Keyspace,
    /// Make the volume at attach.
    pub format: Option<Format>,
    /// Use a server that may evict keys all the same.
    pub force: bool,
    /// Nothing is to be written: commands for it are not asked for at attach.
    pub read_only: bool,
}

impl Options {
    /// To mount a volume that exists.
    #[must_use]
    pub fn new(keys: Keyspace) -> Options {
        Options { keys, format: None, force: false, read_only: false }
    }
}

/// What a new volume is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Format {
    /// Bytes of a block.
    pub block: u32,
    /// The most bytes all files may hold together; 0 for no limit.
    pub capacity: u64,
    /// The most inodes there may be; 0 for no limit.
    pub inodes: u64,
    /// The permission bits of the root.
    pub perm: u16,
    /// The owner of the root.
    pub uid: u32,
    /// The group of the root.
    pub gid: u32,
    /// A volume that is there already is used as it is; otherwise it is refused.
    pub keep: bool,
}

impl Default for Format {
    fn default() -> Self {
        Format { block: BLOCK, capacity: 0, inodes: 0, perm: 0o755, uid: 0, gid: 0, keep: false }
    }
}

impl Format {
    /// Whether there can be such a volume.
    ///
    /// # Errors
    /// One line that says what cannot be.
    pub fn check(&self) -> Result<(), String> {
        if !self.block.is_power_of_two() || !BLOCK_SIZES.contains(&self.block) {
            return Err(alloc::format!(
                "a block of {} bytes: it must be a power of two from {} to {}",
                self.block,
                BLOCK_SIZES.start(),
                BLOCK_SIZES.end()
            ));
        }
        Ok(())
    }
}
