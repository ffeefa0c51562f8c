//! File locks, of `flock(2)` and of `fcntl(2)`: ranges, owners, what excludes what, and the table
//! of the locks on one file.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::LockOwner;

/// Which of the two families a lock belongs to. They do not know of each other (`flock(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// A record lock, `fcntl(F_SETLK)`: of a process, over a range of bytes.
    Record,
    /// `flock(2)`: of an open file description, always over the whole file.
    Flock,
}

/// What others may do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// `F_RDLCK`, `LOCK_SH`: others may have shared locks too.
    Shared,
    /// `F_WRLCK`, `LOCK_EX`: others may have none.
    Exclusive,
}

/// A lock that is held or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lock {
    /// Its family.
    pub kind: LockKind,
    /// What it excludes.
    pub mode: LockMode,
    /// The first byte.
    pub start: u64,
    /// Behind the last byte; [`Lock::END`] reaches to the end of any file.
    pub end: u64,
    /// Who holds it.
    pub owner: LockOwner,
    /// The process to tell in `F_GETLK`; 0 when it is one of another host.
    pub pid: u32,
}

impl Lock {
    /// Behind the largest offset there is (`OFF_T_MAX`).
    pub const END: u64 = 1 << 63;

    /// Whether they have bytes in common.
    #[must_use]
    pub fn overlaps(&self, other: &Lock) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether one keeps the other out, were they of different owners.
    #[must_use]
    pub fn excludes(&self, other: &Lock) -> bool {
        let exclusive = self.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
        self.kind == other.kind && exclusive && self.overlaps(other)
    }

    /// Whether it covers all that can be locked, as every `flock` does.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.start == 0 && self.end == Lock::END
    }
}

/// The locks on one file, of any number of owners. No two of them exclude each other, and those of
/// one owner and kind do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LockTable {
    /// In the order of owner, kind and range.
    locks: Vec<Lock>,
}

impl LockTable {
    /// The locks, in the order of owner, kind and range.
    #[must_use]
    pub fn locks(&self) -> &[Lock] {
        &self.locks
    }

    /// Nothing is locked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty()
    }

    /// Whether an owner has a lock.
    #[must_use]
    pub fn has(&self, owner: LockOwner) -> bool {
        self.locks.iter().any(|it| it.owner == owner)
    }

    /// The first lock, by its range, of another owner that keeps this one out.
    #[must_use]
    pub fn conflict(&self, wanted: &Lock) -> Option<&Lock> {
        let mut against: Vec<&Lock> = self
            .locks
            .iter()
            .filter(|it| it.owner != wanted.owner && it.excludes(wanted))
            .collect();
        against.sort_by_key(|it| (it.start, it.end));
        against.first().copied()
    }

    /// Puts a lock in place of what its owner has of that kind in its range: this is how a lock is
    /// upgraded and downgraded. The caller has seen to it that there is no conflict.
    pub fn set(&mut self, lock: Lock) {
        self.cut(&lock, |it| it.kind == lock.kind);
        // Neighbours of the same mode become one.
        let mut whole = lock;
        self.locks.retain(|it| {
            let same = (it.owner, it.kind, it.mode) == (lock.owner, lock.kind, lock.mode);
            let joins = same && (it.end == whole.start || it.start == whole.end);
            if joins {
                whole.start = whole.start.min(it.start);
                whole.end = whole.end.max(it.end);
            }
            !joins
        });
        self.locks.push(whole);
        self.sort();
    }

    /// Takes away what the owner has in the range, of both kinds when that is the whole file: an
    /// owner only ever has locks of one kind.
    pub fn unset(&mut self, lock: &Lock) {
        let whole = lock.is_whole();
        self.cut(lock, |it| whole || it.kind == lock.kind);
        self.sort();
    }

    /// Takes away all that an owner has. Returns whether that was anything.
    pub fn release(&mut self, owner: LockOwner) -> bool {
        let before = self.locks.len();
        self.locks.retain(|it| it.owner != owner);
        self.locks.len() != before
    }

    fn cut(&mut self, range: &Lock, also: impl Fn(&Lock) -> bool) {
        let mut rests: Vec<Lock> = Vec::new();
        self.locks.retain(|it| {
            if it.owner != range.owner || !it.overlaps(range) || !also(it) {
                return true;
            }
            if it.start < range.start {
                rests.push(Lock { end: range.start, ..*it });
            }
            if it.end > range.end {
                rests.push(Lock { start: range.end, ..*it });
            }
            false
        });
        self.locks.append(&mut rests);
    }

    fn sort(&mut self) {
        self.locks.sort_by_key(|it| (it.owner, it.kind, it.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: u64 = 24;

    fn lock(owner: u64, mode: LockMode, start: u64, end: u64) -> Lock {
        let (kind, owner) = (LockKind::Record, LockOwner(owner));
        Lock { kind, mode, start, end, owner, pid: owner.0 as u32 }
    }

    use LockMode::{Exclusive, Shared};

    fn shown(table: &LockTable) -> Vec<(u64, LockMode, u64, u64)> {
        table.locks().iter().map(|it| (it.owner.0, it.mode, it.start, it.end)).collect()
    }

    #[test]
    fn shared_locks_live_together_and_exclusive_ones_do_not() {
        let mut table = LockTable::default();
        table.set(lock(1, Shared, 0, 10));
        assert_eq!(table.conflict(&lock(2, Shared, 5, 15)), None);
        assert_eq!(table.conflict(&lock(2, Exclusive, 9, 10)), Some(&lock(1, Shared, 0, 10)));
        assert_eq!(table.conflict(&lock(2, Exclusive, 10, 11)), None);
        assert_eq!(table.conflict(&lock(1, Exclusive, 0, 10)), None, "one's own");
        let flock = Lock { kind: LockKind::Flock, ..lock(2, Exclusive, 0, Lock::END) };
        assert_eq!(table.conflict(&flock), None, "of the other family");
    }

    #[test]
    fn changing_the_middle_leaves_three_and_changing_it_back_one() {
        let mut table = LockTable::default();
        table.set(lock(1, Shared, 0, 30));
        table.set(lock(1, Exclusive, 10, 20));
        let three = [(1, Shared, 0, 10), (1, Exclusive, 10, 20), (1, Shared, 20, 30)];
        assert_eq!(shown(&table), three);
        table.set(lock(1, Shared, 10, 20));
        assert_eq!(shown(&table), [(1, Shared, 0, 30)]);
        table.unset(&lock(1, Shared, 5, 6));
        assert_eq!(shown(&table), [(1, Shared, 0, 5), (1, Shared, 6, 30)]);
    }

    #[test]
    fn giving_up_the_whole_file_gives_up_both_families() {
        let mut table = LockTable::default();
        table.set(Lock { kind: LockKind::Flock, ..lock(1, Exclusive, 0, Lock::END) });
        table.unset(&lock(1, Shared, 0, 10));
        assert!(!table.is_empty(), "a range is of record locks");
        table.unset(&lock(1, Shared, 0, Lock::END));
        assert!(table.is_empty());
    }

    proptest! {
        /// The table says of each byte what a plain array of bytes by owner says.
        #[test]
        fn is_like_an_array_of_bytes(
            steps in prop::collection::vec((1u64..4, 0u8..3, 0..BYTES, 1..BYTES), 1..40)
        ) {
            let mut table = LockTable::default();
            let mut bytes = [[None::<LockMode>; BYTES as usize * 2]; 4];
            for (owner, what, start, len) in steps {
                let mode = if what == 1 { Shared } else { Exclusive };
                let wanted = lock(owner, mode, start, start + len);
                let range = start as usize..(start + len) as usize;
                if what == 0 {
                    table.unset(&wanted);
                    bytes[owner as usize][range].fill(None);
                    continue;
                }
                let against = (1..4).filter(|other| *other != owner as usize).any(|other| {
                    let held = |held: &Option<LockMode>| {
                        held.is_some_and(|held| held == Exclusive || mode == Exclusive)
                    };
                    bytes[other][range.clone()].iter().any(held)
                });
                prop_assert_eq!(table.conflict(&wanted).is_some(), against);
                if !against {
                    table.set(wanted);
                    bytes[owner as usize][range].fill(Some(mode));
                }
            }
            let mut seen = [[None::<LockMode>; BYTES as usize * 2]; 4];
            for held in table.locks() {
                prop_assert!(held.start < held.end);
                for at in held.start..held.end {
                    let byte = &mut seen[held.owner.0 as usize][at as usize];
                    prop_assert_eq!(*byte, None, "held twice");
                    *byte = Some(held.mode);
                }
            }
            prop_assert_eq!(seen, bytes);
            for pair in table.locks().windows(2) {
                let joined = pair[0].owner == pair[1].owner
                    && pair[0].mode == pair[1].mode
                    && pair[0].end == pair[1].start;
                prop_assert!(!joined, "neighbours of one mode are one");
            }
        }
    }
}
