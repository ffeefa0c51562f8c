//! Directories that this mount has made and of which it knows every name: what is looked for in
//! them and not there need not be asked for. A copy looks for every name before it makes it.

use hashbrown::{HashMap, HashSet};
use rustc_hash::{FxBuildHasher, FxHasher};

use core::hash::{Hash, Hasher};

use crate::id::Ino;
use crate::layout::Epoch;
use crate::op::Name;

/// Names and directories that are remembered at most.
const MOST: usize = 1 << 16;

/// Such directories. Of a name only a hash is kept: where two names have the same one, the server
/// is asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Wholes {
    dirs: HashMap<Ino, (Epoch, HashSet<u64, FxBuildHasher>), FxBuildHasher>,
    kept: usize,
}

impl Wholes {
    /// A directory is about to be made. Until then, what others do in it cannot be told from what
    /// they do elsewhere.
    pub(super) fn made(&mut self, dir: Ino, now: Epoch) {
        self.make_room();
        if self.dirs.insert(dir, (now, HashSet::default())).is_none() {
            self.kept += 1;
        }
    }

    /// A name is about to be made in it. One that comes to nothing stays, and costs a question.
    pub(super) fn naming(&mut self, dir: Ino, name: &Name) {
        self.make_room();
        if let Some((_, names)) = self.dirs.get_mut(&dir)
            && names.insert(hash(name))
        {
            self.kept += 1;
        }
    }

    /// As of when it is known that there is no such name.
    pub(super) fn lacks(&self, dir: Ino, name: &Name) -> Option<Epoch> {
        let (since, names) = self.dirs.get(&dir)?;
        (!names.contains(&hash(name))).then_some(*since)
    }

    pub(super) fn since(&self, dir: Ino) -> Option<Epoch> {
        self.dirs.get(&dir).map(|(since, _)| *since)
    }

    pub(super) fn forget(&mut self, dir: Ino) {
        if let Some((_, names)) = self.dirs.remove(&dir) {
            self.kept -= 1 + names.len();
        }
    }

    fn make_room(&mut self) {
        if self.kept >= MOST {
            *self = Wholes::default();
        }
    }
}

fn hash(name: &Name) -> u64 {
    let mut hasher = FxHasher::default();
    name.as_bytes().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_named_is_missing() {
        let (dir, other) = (Ino(7), Ino(8));
        let mut wholes = Wholes::default();
        wholes.naming(dir, &Name::from("before"));
        assert_eq!(wholes.lacks(dir, &Name::from("a")), None, "nothing is known of it");
        wholes.made(dir, Epoch(3));
        wholes.naming(dir, &Name::from("a"));
        wholes.naming(dir, &Name::from("a"));
        assert_eq!(wholes.lacks(dir, &Name::from("a")), None);
        assert_eq!(wholes.lacks(dir, &Name::from("b")), Some(Epoch(3)));
        assert_eq!(wholes.lacks(other, &Name::from("b")), None);
        assert_eq!(wholes.kept, 2);
        wholes.forget(dir);
        assert_eq!((wholes.kept, wholes.lacks(dir, &Name::from("b"))), (0, None));
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut wholes = Wholes::default();
        wholes.made(Ino(2), Epoch(1));
        for n in 0..=MOST {
            wholes.naming(Ino(2), &Name::from(&*alloc::format!("{n}")));
            assert!(wholes.kept <= MOST);
        }
        assert_eq!(wholes.lacks(Ino(2), &Name::from("new")), None);
    }
}
