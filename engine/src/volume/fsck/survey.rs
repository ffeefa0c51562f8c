//! What there is of a volume, as it was read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::Ino;
use crate::volume::key::{DataId, Key, MountId};
use crate::volume::record::{Inode, Member, Super};
use crate::volume::tool::Sessions;

/// All records of a volume but the contents themselves. About 200 bytes an inode beside its names,
/// and 32 bytes for each file's contents.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// The superblock; there always is one.
    pub(super) superblock: Option<Super>,
    /// Of `usage`: `inodes`, `bytes`, `ino`, `mount`; `None` for what is no number.
    pub(super) usage: [Option<u64>; 4],
    /// The mounts, and the server's time.
    pub(super) sessions: Sessions,
    /// The inodes.
    pub(super) inodes: BTreeMap<Ino, Node>,
    /// Inodes and directories whose keys hold something else: nothing is concluded from them.
    pub(super) unreadable: BTreeSet<Ino>,
    /// The names in directories.
    pub(super) dirs: BTreeMap<Ino, Vec<Entry>>,
    /// Inodes with extended attributes.
    pub(super) xattrs: BTreeSet<Ino>,
    /// Inodes with locks.
    pub(super) locks: BTreeSet<Ino>,
    /// What mounts say they have open.
    pub(super) held: BTreeSet<MountId>,
    /// Mounts whose commits are remembered.
    pub(super) tokens: BTreeSet<MountId>,
    /// Mounts that have locked something.
    pub(super) locked: BTreeSet<MountId>,
    /// Inodes that lost their last name.
    pub(super) graves: BTreeSet<Ino>,
    /// Contents to be removed, up to where; `None` for what is no number.
    pub(super) queue: BTreeMap<DataId, Option<u64>>,
    /// Where contents end.
    pub(super) blocks: BTreeMap<DataId, Extent>,
    /// Keys that hold what they should not, and what is wrong.
    pub(super) foreign: Vec<(Bytes, String)>,
    /// Members of sets and fields of hashes that mean nothing: their key and themselves.
    pub(super) litter: Vec<(Key, Bytes)>,
}

/// An inode as it was read.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The record; fields in `bad` are made up.
    pub(super) inode: Inode,
    /// Fields that are missing or cannot be.
    pub(super) bad: Vec<&'static str>,
    /// The length of the target, of a symlink that has one.
    pub(super) target: Option<u64>,
}

/// A member of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// As it stands in the set.
    pub(super) raw: Bytes,
    /// What it says; `None` when it makes no sense.
    pub(super) member: Option<Member>,
    /// It does not sort where it should: its score is not 0.
    pub(super) misplaced: bool,
}

/// The blocks of some contents.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    /// Where the last of them ends, in bytes.
    pub(super) end: u64,
    /// How many there are.
    pub(super) count: u64,
    /// Blocks longer than a block, and how long.
    pub(super) overlong: Vec<(u64, u64)>,
}
