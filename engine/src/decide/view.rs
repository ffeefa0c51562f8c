//! The facts a decision stands on, and the wish list of those that are missing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::id::Ino;
use crate::op::{Attr, Name, StatFs, Whence};
use crate::time::Wall;

/// A fact that a decision asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// Where a name leads, and the attributes of what is there.
    Entry(Ino, Name),
    /// The attributes of an inode.
    Attr(Ino),
    /// Whether a directory has no entries.
    Empty(Ino),
    /// Whether `dir` is `ancestor` or below it.
    Below {
        /// The directory in question.
        dir: Ino,
        /// What may be above it.
        ancestor: Ino,
    },
    /// The target of a symlink.
    Target(Ino),
    /// One extended attribute.
    Xattr(Ino, Name),
    /// The names of all extended attributes.
    XattrNames(Ino),
    /// Figures of the filesystem.
    StatFs,
    /// Where, from an offset on, the first data or the first hole of a file is. Only asked of
    /// layouts with [`Caps::holes`], when everything written here is on the server.
    Seek(Ino, u64, Whence),
    /// An inode number that is free, for a new inode that will first be called `1` in `0`.
    FreshIno(Ino, Name),
}

/// A fact, as it was when the server answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// Of [`Want::Entry`]: the inode the name leads to, or that there is none.
    Entry(Option<Ino>),
    /// Of [`Want::Attr`]; `None` when the inode is gone.
    Attr(Option<Attr>),
    /// Of [`Want::Empty`].
    Empty(bool),
    /// Of [`Want::Below`].
    Below(bool),
    /// Of [`Want::Target`]; empty for what is no symlink.
    Target(Bytes),
    /// Of [`Want::Xattr`]; `None` when there is no such attribute.
    Xattr(Option<Bytes>),
    /// Of [`Want::XattrNames`].
    XattrNames(Vec<Name>),
    /// Of [`Want::StatFs`].
    StatFs(StatFs),
    /// Of [`Want::Seek`]; `None` when there is no more data. What it says of the file behind its
    /// end does not matter.
    Seek(Option<u64>),
    /// Of [`Want::FreshIno`].
    FreshIno(Ino),
}

/// Facts by what was asked.
pub type Facts = BTreeMap<Want, Fact>;

/// The facts that a decision lacks; fetched together, in one round trip where that is possible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing(pub Vec<Want>);

impl Missing {
    /// The union: what both lack stands in it once.
    #[must_use]
    pub fn and(mut self, other: Missing) -> Missing {
        for want in other.0 {
            if !self.0.contains(&want) {
                self.0.push(want);
            }
        }
        self
    }

    /// The union of two wish lists: `both(a, b)?` asks for all that either lacks at once.
    pub fn both<A, B>(a: Result<A, Missing>, b: Result<B, Missing>) -> Result<(A, B), Missing> {
        match (a, b) {
            (Ok(a), Ok(b)) => Ok((a, b)),
            (Err(a), Err(b)) => Err(a.and(b)),
            (Err(missing), Ok(_)) | (Ok(_), Err(missing)) => Err(missing),
        }
    }
}

/// What a layout can hold; a rule asks this before it plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caps {
    /// An inode may have several names.
    pub hard_links: bool,
    /// Fifos, sockets and device nodes.
    pub special_files: bool,
    /// `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// The longest file there can be, in bytes.
    pub max_file_size: u64,
    /// The most names an inode may have, and with `dir_nlink` the most a directory counts.
    pub max_links: u32,
    /// The longest value of an extended attribute, in bytes; 0 if there are none at all.
    pub max_xattr_size: usize,
    /// Prefixes of the extended attributes that the layout makes up: they can be read, not set.
    pub reserved_xattrs: &'static [&'static [u8]],
    /// The directories' link counts follow their subdirectories (else they are always 1, which
    /// tells `find` not to count on them).
    pub dir_nlink: bool,
    /// A rename marks the ctime of what it renames, as Linux's own filesystems do. POSIX leaves
    /// it open, and a layout where that would cost a record of its own says no.
    pub rename_ctime: bool,
    /// What was never written takes no room, can be found ([`Want::Seek`]), and be made again
    /// ([`Change::Zero`](super::Change::Zero)).
    pub holes: bool,
    /// The most bytes that one commit copies from file to file on the server
    /// ([`Change::Copy`](super::Change::Copy)); 0 when it cannot.
    pub max_copy: u64,
    /// Writes at the end of a file that other mounts write to as well find that end on the server
    /// ([`Layout::append`](crate::layout::Layout::append)).
    pub append: bool,
    /// Locks hold between mounts ([`Layout::lock`](crate::layout::Layout::lock)). Otherwise the
    /// kernel keeps them, for one mount.
    pub locks: bool,
    /// POSIX ACLs: inodes have the extended attributes `system.posix_acl_*` as well.
    pub acls: bool,
    /// Access times that are no program's doing take no record of their own.
    pub atime: bool,
    /// Attributes that are set on a file whose contents are still to be written go with them
    /// ([`WriteOut::attrs`](crate::layout::WriteOut::attrs)).
    pub attrs_with_data: bool,
}

impl Caps {
    /// The least a layout can hold; the rest of its capabilities stands beside this.
    pub const LEAST: Caps = Caps {
        hard_links: false,
        special_files: false,
        exchange: false,
        max_file_size: 0,
        max_links: 1,
        max_xattr_size: 0,
        reserved_xattrs: &[],
        dir_nlink: false,
        rename_ctime: false,
        holes: false,
        max_copy: 0,
        append: false,
        locks: false,
        acls: false,
        atime: false,
        attrs_with_data: false,
    };
}

/// The facts at hand, over what the cache holds.
#[derive(Debug)]
pub struct View<'a> {
    /// Facts fetched for this very decision.
    pub fresh: &'a Facts,
    /// Leased facts of earlier operations.
    pub cached: &'a dyn Cached,
    /// What the layout can hold.
    pub caps: Caps,
    /// The time to write into timestamps.
    pub now: Wall,
    /// The mount changes nothing.
    pub read_only: bool,
    /// What hardly ever speaks against an operation (the directory is empty, the target is not
    /// below the source) is assumed when it is not known, and left to the checks of the plan:
    /// that saves a round trip. The transaction machine says `false` once a check has failed, and
    /// the decision then asks for everything it stands on.
    pub assume: bool,
    /// Whether an inode is open here: its contents must outlive its last name.
    pub held: &'a dyn Held,
}

/// Leased facts, see [`View::cached`].
pub trait Cached: core::fmt::Debug {
    /// The fact that answers `want`, if a lease on it is still good.
    fn cached(&self, want: &Want) -> Option<Fact>;
}

/// Open inodes, see [`View::held`].
pub trait Held: core::fmt::Debug {
    /// Whether a handle is open on `ino` on this mount.
    fn is_held(&self, ino: Ino) -> bool;
}

impl View<'_> {
    /// Whether `want` was answered for this very decision, not taken from a lease.
    #[must_use]
    pub fn is_fresh(&self, want: &Want) -> bool {
        self.fresh.contains_key(want)
    }

    fn fact(&self, want: Want) -> Result<Fact, Missing> {
        match self.fresh.get(&want) {
            Some(fact) => Ok(fact.clone()),
            None => self.cached.cached(&want).ok_or_else(|| Missing(alloc::vec![want])),
        }
    }

    /// Where `name` in `dir` leads.
    pub fn entry(&self, dir: Ino, name: &Name) -> Result<Option<Ino>, Missing> {
        let want = Want::Entry(dir, name.clone());
        match self.fact(want.clone())? {
            Fact::Entry(ino) => Ok(ino),
            _ => Err(Missing(alloc::vec![want])),
        }
    }

    /// The attributes of `ino`; `None` when it is gone.
    pub fn attr(&self, ino: Ino) -> Result<Option<Attr>, Missing> {
        match self.fact(Want::Attr(ino))? {
            Fact::Attr(attr) => Ok(attr),
            _ => Err(Missing(alloc::vec![Want::Attr(ino)])),
        }
    }

    /// Whether the directory has no entries; unknown is yes while that may be assumed.
    pub fn empty_enough(&self, dir: Ino) -> Result<bool, Missing> {
        self.empty(dir).or_else(|missing| if self.assume { Ok(true) } else { Err(missing) })
    }

    /// Whether `dir` is `ancestor` or below it.
    pub fn below(&self, dir: Ino, ancestor: Ino) -> Result<bool, Missing> {
        let want = Want::Below { dir, ancestor };
        match self.fact(want.clone())? {
            Fact::Below(below) => Ok(below),
            _ => Err(Missing(alloc::vec![want])),
        }
    }

    /// Whether the directory has no entries.
    pub fn empty(&self, dir: Ino) -> Result<bool, Missing> {
        match self.fact(Want::Empty(dir))? {
            Fact::Empty(empty) => Ok(empty),
            _ => Err(Missing(alloc::vec![Want::Empty(dir)])),
        }
    }

    /// The target of a symlink.
    pub fn target(&self, ino: Ino) -> Result<Bytes, Missing> {
        match self.fact(Want::Target(ino))? {
            Fact::Target(target) => Ok(target),
            _ => Err(Missing(alloc::vec![Want::Target(ino)])),
        }
    }

    /// One extended attribute.
    pub fn xattr(&self, ino: Ino, name: &Name) -> Result<Option<Bytes>, Missing> {
        let want = Want::Xattr(ino, name.clone());
        match self.fact(want.clone())? {
            Fact::Xattr(value) => Ok(value),
            _ => Err(Missing(alloc::vec![want])),
        }
    }

    /// The names of the extended attributes.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Name>, Missing> {
        match self.fact(Want::XattrNames(ino))? {
            Fact::XattrNames(names) => Ok(names),
            _ => Err(Missing(alloc::vec![Want::XattrNames(ino)])),
        }
    }

    /// Figures of the filesystem.
    pub fn statfs(&self) -> Result<StatFs, Missing> {
        match self.fact(Want::StatFs)? {
            Fact::StatFs(figures) => Ok(figures),
            _ => Err(Missing(alloc::vec![Want::StatFs])),
        }
    }

    /// Where, from `offset` on, the first data or hole is; see [`Want::Seek`].
    pub fn seek(&self, ino: Ino, offset: u64, whence: Whence) -> Result<Option<u64>, Missing> {
        let want = Want::Seek(ino, offset, whence);
        match self.fact(want.clone())? {
            Fact::Seek(found) => Ok(found),
            _ => Err(Missing(alloc::vec![want])),
        }
    }

    /// A free inode number for what will be called `name` in `dir`.
    pub fn fresh_ino(&self, dir: Ino, name: &Name) -> Result<Ino, Missing> {
        let want = Want::FreshIno(dir, name.clone());
        match self.fact(want.clone())? {
            Fact::FreshIno(ino) => Ok(ino),
            _ => Err(Missing(alloc::vec![want])),
        }
    }
}
