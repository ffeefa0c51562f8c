//! Leased facts about names and inodes, bounded, oldest lease first to go.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::decide::{Fact, Want};
use crate::id::Ino;
use crate::op::{Attr, Name};
use crate::time::{Mono, Wall};

#[derive(Clone, Debug)]
struct Leased<T> {
    value: T,
    until: Mono,
    /// Which entry of the queue is this fact's own.
    serial: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Slot {
    Entry(Ino, Name),
    Attr(Ino),
}

/// The cache that decisions look into before they ask a server.
#[derive(Clone, Debug)]
pub(super) struct FactCache {
    entries: HashMap<(Ino, Name), Leased<Option<Ino>>, FxBuildHasher>,
    attrs: HashMap<Ino, Leased<Attr>, FxBuildHasher>,
    /// Directories that were removed here while somebody stands in them or has them open: no
    /// server knows of them any more. Each is one that the kernel holds.
    removed: HashMap<Ino, Attr, FxBuildHasher>,
    /// Accesses that the server has not been told of.
    accessed: BTreeMap<Ino, Wall>,
    queue: VecDeque<(u64, Slot)>,
    serial: u64,
    bound: usize,
    evicted: Vec<Ino>,
}

impl FactCache {
    pub(super) fn new(bound: usize) -> Self {
        FactCache {
            entries: HashMap::default(),
            attrs: HashMap::default(),
            removed: HashMap::default(),
            accessed: BTreeMap::new(),
            queue: VecDeque::new(),
            serial: 0,
            bound,
            evicted: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.attrs.len()
    }

    pub(super) fn learn_entry(&mut self, dir: Ino, name: Name, ino: Option<Ino>, until: Mono) {
        let serial = self.enqueue(Slot::Entry(dir, name.clone()));
        self.entries.insert((dir, name), Leased { value: ino, until, serial });
        self.evict();
    }

    pub(super) fn learn_attr(&mut self, attr: Attr, until: Mono) {
        self.forget_removed(attr.ino);
        let serial = self.enqueue(Slot::Attr(attr.ino));
        let value = self.with_access(attr);
        self.attrs.insert(attr.ino, Leased { value, until, serial });
        self.evict();
    }

    pub(super) fn entry(&self, dir: Ino, name: &Name, now: Mono) -> Option<Option<Ino>> {
        // A lookup by reference would need a borrowed key type for one more allocation's sake;
        // `Name` is a counted reference, so the clone is cheap.
        let leased = self.entries.get(&(dir, name.clone()))?;
        (leased.until > now).then_some(leased.value)
    }

    pub(super) fn attr(&self, ino: Ino, now: Mono) -> Option<Attr> {
        match self.attrs.get(&ino) {
            Some(leased) if leased.until > now => Some(leased.value),
            _ => self.removed.get(&ino).copied(),
        }
    }

    /// A directory that the kernel holds was removed. POSIX rmdir: it goes on to exist, without
    /// entries, until nobody has it open any more; and it does not say that its times change.
    pub(super) fn removed_dir(&mut self, ino: Ino) {
        if let Some(leased) = self.attrs.get(&ino) {
            self.removed.insert(ino, Attr { nlink: 0, ..leased.value });
        }
    }

    /// What was known of an inode last, whether or not it still counts.
    pub(super) fn last_known(&self, ino: Ino) -> Option<Attr> {
        self.attrs.get(&ino).map(|leased| leased.value)
    }

    /// A program read it. Returns how many inodes the server is to be told of.
    pub(super) fn accessed(&mut self, ino: Ino, at: Wall) -> usize {
        self.amend_attr(ino, |attr| attr.atime = at);
        self.accessed.insert(ino, at);
        self.accessed.len()
    }

    /// How many inodes the server is to be told of.
    pub(super) fn accesses(&self) -> usize {
        self.accessed.len()
    }

    /// The accesses that the server is to be told of now.
    pub(super) fn take_accessed(&mut self) -> BTreeMap<Ino, Wall> {
        core::mem::take(&mut self.accessed)
    }

    /// A program has set the time of the last access.
    pub(super) fn forget_access(&mut self, ino: Ino) {
        self.accessed.remove(&ino);
    }

    /// Attributes that the server has told, with an access it does not know of.
    pub(super) fn with_access(&self, attr: Attr) -> Attr {
        let atime = self.accessed.get(&attr.ino).copied().unwrap_or(attr.atime);
        Attr { atime, ..attr }
    }

    /// Nobody holds it, or another has its number now.
    pub(super) fn forget_removed(&mut self, ino: Ino) {
        self.removed.remove(&ino);
    }

    /// Changes remembered attributes in place, keeping their lease.
    pub(super) fn amend_attr(&mut self, ino: Ino, change: impl FnOnce(&mut Attr)) {
        if let Some(leased) = self.attrs.get_mut(&ino) {
            change(&mut leased.value);
        }
    }

    /// The lease ends; the inode is still remembered until it is evicted.
    pub(super) fn forget_attr(&mut self, ino: Ino) {
        if let Some(leased) = self.attrs.get_mut(&ino) {
            leased.until = Mono(0);
        }
    }

    pub(super) fn forget_entry(&mut self, dir: Ino, name: &Name) {
        self.entries.remove(&(dir, name.clone()));
    }

    pub(super) fn drop_attr(&mut self, ino: Ino) {
        self.attrs.remove(&ino);
        self.evicted.push(ino);
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        for leased in self.attrs.values_mut() {
            leased.until = Mono(0);
        }
    }

    pub(super) fn holds(&self, ino: Ino) -> bool {
        self.attrs.contains_key(&ino)
    }

    /// Inodes whose facts went over the bound since the last call.
    pub(super) fn take_evicted(&mut self) -> Vec<Ino> {
        core::mem::take(&mut self.evicted)
    }

    fn enqueue(&mut self, slot: Slot) -> u64 {
        self.serial += 1;
        self.queue.push_back((self.serial, slot));
        self.serial
    }

    fn evict(&mut self) {
        // Renewed facts leave dead entries in the queue; it is as long as twice the bound at most.
        while self.len() > self.bound || self.queue.len() > 2 * self.bound {
            let Some((serial, slot)) = self.queue.pop_front() else { return };
            match slot {
                Slot::Entry(dir, name) => {
                    let key = (dir, name);
                    if self.entries.get(&key).is_some_and(|it| it.serial == serial) {
                        self.entries.remove(&key);
                    }
                }
                Slot::Attr(ino) => {
                    if self.attrs.get(&ino).is_some_and(|it| it.serial == serial) {
                        self.attrs.remove(&ino);
                        self.evicted.push(ino);
                    }
                }
            }
        }
    }
}

/// The cache as decisions see it at one moment.
#[derive(Debug)]
pub(super) struct FactsAt<'a> {
    pub(super) cache: &'a FactCache,
    pub(super) now: Mono,
    /// What programs wrote and the server does not know yet, over attributes.
    pub(super) overlay: &'a dyn Overlay,
}

/// Attributes as programs see them.
pub(super) trait Overlay: core::fmt::Debug {
    /// `attr` with what has been written since.
    fn dress(&self, attr: Attr) -> Attr;
}

impl crate::decide::Cached for FactsAt<'_> {
    fn cached(&self, want: &Want) -> Option<Fact> {
        match want {
            Want::Entry(dir, name) => self.cache.entry(*dir, name, self.now).map(Fact::Entry),
            Want::Attr(ino) => {
                let attr = self.cache.attr(*ino, self.now)?;
                Some(Fact::Attr(Some(self.overlay.dress(attr))))
            }
            _ => None,
        }
    }
}

/// Attributes after a change of contents at `at`.
pub(super) fn modified(mut attr: Attr, size: u64, at: Wall) -> Attr {
    attr.size = size;
    attr.mtime = at;
    attr.ctime = attr.ctime.max(at);
    attr
}
