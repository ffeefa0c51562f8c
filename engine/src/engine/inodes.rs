//! What the kernel and open handles hold: lookup counts and open counts.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::decide::Held;
use crate::id::Ino;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Entries answered and not forgotten (`nlookup` of the FUSE protocol).
    lookups: u64,
    /// Open handles.
    opens: u32,
}

/// The inodes somebody holds a reference to. The root is always held.
#[derive(Clone, Debug, Default)]
pub(super) struct Inodes {
    counts: HashMap<Ino, Counts, FxBuildHasher>,
}

impl Inodes {
    pub(super) fn looked_up(&mut self, ino: Ino) {
        self.counts.entry(ino).or_default().lookups += 1;
    }

    pub(super) fn forgotten(&mut self, ino: Ino, count: u64) {
        if let Some(counts) = self.counts.get_mut(&ino) {
            counts.lookups = counts.lookups.saturating_sub(count);
            self.drop_if_unused(ino);
        }
    }

    pub(super) fn opened(&mut self, ino: Ino) {
        self.counts.entry(ino).or_default().opens += 1;
    }

    /// Returns whether that was the last handle.
    pub(super) fn closed(&mut self, ino: Ino) -> bool {
        let Some(counts) = self.counts.get_mut(&ino) else { return false };
        counts.opens = counts.opens.saturating_sub(1);
        let last = counts.opens == 0;
        self.drop_if_unused(ino);
        last
    }

    pub(super) fn is_known(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.counts.contains_key(&ino)
    }

    pub(super) fn is_open(&self, ino: Ino) -> bool {
        self.counts.get(&ino).is_some_and(|it| it.opens > 0)
    }

    fn drop_if_unused(&mut self, ino: Ino) {
        if self.counts.get(&ino).is_some_and(|it| it.lookups == 0 && it.opens == 0) {
            self.counts.remove(&ino);
        }
    }
}

impl Held for Inodes {
    fn is_held(&self, ino: Ino) -> bool {
        self.is_open(ino)
    }
}
