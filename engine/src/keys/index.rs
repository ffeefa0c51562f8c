//! The live index: every key of the mount in order, and the directories that they imply.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

/// Which keys and side hashes there are.
///
/// A directory is a prefix that ends in the delimiter. It exists while a key or a side hash is
/// below it, or a side hash is its own, so each is counted once for each prefix of it.
#[derive(Clone, Debug)]
pub(super) struct Index {
    delimiter: u8,
    /// Prefixes shorter than this are above the mount's root.
    root: usize,
    keys: BTreeSet<Box<[u8]>>,
    /// The directories that have a side hash.
    sides: BTreeSet<Box<[u8]>>,
    /// The files and directories that have extended attributes, as their keys name them.
    xattrs: BTreeSet<Box<[u8]>>,
    /// How many keys and side hashes are at or below each directory.
    dirs: BTreeMap<Box<[u8]>, u32>,
}

impl Index {
    pub(super) fn new(delimiter: u8, root: &[u8]) -> Self {
        Index {
            delimiter,
            root: root.len(),
            keys: BTreeSet::new(),
            sides: BTreeSet::new(),
            xattrs: BTreeSet::new(),
            dirs: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether it was not there.
    pub(super) fn insert_key(&mut self, key: &[u8]) -> bool {
        // Asking first saves an allocation for what is there already, the common case of a rescan.
        if self.keys.contains(key) {
            return false;
        }
        self.keys.insert(Box::from(key));
        self.count_up(key);
        true
    }

    /// Returns whether it was there.
    pub(super) fn remove_key(&mut self, key: &[u8]) -> bool {
        let was = self.keys.remove(key);
        if was {
            self.count_down(key);
        }
        was
    }

    pub(super) fn contains_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
    }

    /// The directory has a side hash. Returns whether that is news.
    pub(super) fn insert_side(&mut self, dir: &[u8]) -> bool {
        if self.sides.contains(dir) {
            return false;
        }
        self.sides.insert(Box::from(dir));
        self.count_up(dir);
        true
    }

    /// Returns whether it was there.
    pub(super) fn remove_side(&mut self, dir: &[u8]) -> bool {
        let was = self.sides.remove(dir);
        if was {
            self.count_down(dir);
        }
        was
    }

    pub(super) fn contains_side(&self, dir: &[u8]) -> bool {
        self.sides.contains(dir)
    }

    pub(super) fn set_xattrs(&mut self, of: &[u8], there: bool) {
        if there {
            self.xattrs.insert(Box::from(of));
        } else {
            self.xattrs.remove(of);
        }
    }

    pub(super) fn contains_xattrs(&self, of: &[u8]) -> bool {
        self.xattrs.contains(of)
    }

    pub(super) fn is_dir(&self, dir: &[u8]) -> bool {
        dir.len() <= self.root || self.dirs.contains_key(dir)
    }

    /// Nothing is below the directory but, perhaps, its own side hash.
    pub(super) fn is_empty_dir(&self, dir: &[u8]) -> bool {
        let own = u32::from(self.sides.contains(dir));
        self.dirs.get(dir).is_none_or(|count| *count == own)
    }

    /// Nothing is below the directory but, perhaps, its own side hash and this key.
    pub(super) fn is_empty_without(&self, dir: &[u8], key: &[u8]) -> bool {
        let own = u32::from(self.sides.contains(dir)) + u32::from(self.keys.contains(key));
        self.dirs.get(dir).is_none_or(|count| *count <= own)
    }

    pub(super) fn keys_below(&self, prefix: &[u8]) -> impl Iterator<Item = &[u8]> + use<'_> {
        below(&self.keys, prefix)
    }

    pub(super) fn sides_below(&self, prefix: &[u8]) -> impl Iterator<Item = &[u8]> + use<'_> {
        below(&self.sides, prefix)
    }

    pub(super) fn xattrs_below(&self, prefix: &[u8]) -> impl Iterator<Item = &[u8]> + use<'_> {
        below(&self.xattrs, prefix)
    }

    /// The next subdirectory of `dir` behind the component `after`.
    pub(super) fn next_dir(&self, dir: &[u8], after: Option<&[u8]>) -> Option<Vec<u8>> {
        let start = match after {
            None => Bound::Excluded(dir.to_vec()),
            Some(after) => Bound::Included(self.behind(dir, after)?),
        };
        let range = (start.as_ref().map(Vec::as_slice), Bound::Unbounded);
        let (next, _) = self.dirs.range::<[u8], _>(range).next()?;
        let rest = next.strip_prefix(dir)?;
        rest.split(|byte| *byte == self.delimiter).next().map(<[u8]>::to_vec)
    }

    /// The next key that ends in `dir` itself, behind the component `after`.
    pub(super) fn next_key(&self, dir: &[u8], after: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut from = match after {
            None => dir.to_vec(),
            Some(after) => [dir, after, &[0]].concat(),
        };
        loop {
            let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
            let key = self.keys.range::<[u8], _>(range).next()?;
            let rest = key.strip_prefix(dir)?;
            match rest.iter().position(|byte| *byte == self.delimiter) {
                None => return Some(rest.to_vec()),
                Some(end) => from = self.behind(dir, &rest[..end])?,
            }
        }
    }

    /// The least key that is behind everything below `dir` + `component` + delimiter; `None` when
    /// no key can be.
    fn behind(&self, dir: &[u8], component: &[u8]) -> Option<Vec<u8>> {
        let mut key = [dir, component, &[self.delimiter]].concat();
        while let Some(last) = key.pop() {
            if let Some(next) = last.checked_add(1) {
                key.push(next);
                return Some(key);
            }
        }
        None
    }

    fn count_up(&mut self, path: &[u8]) {
        for end in self.prefix_ends(path) {
            match self.dirs.get_mut(&path[..end]) {
                Some(count) => *count += 1,
                None => {
                    self.dirs.insert(Box::from(&path[..end]), 1);
                }
            }
        }
    }

    fn count_down(&mut self, path: &[u8]) {
        for end in self.prefix_ends(path) {
            if let Some(count) = self.dirs.get_mut(&path[..end]) {
                *count -= 1;
                if *count == 0 {
                    self.dirs.remove(&path[..end]);
                }
            }
        }
    }

    /// Where the prefixes of a path that are directories below the root end.
    fn prefix_ends(&self, path: &[u8]) -> Vec<usize> {
        let (root, delimiter) = (self.root, self.delimiter);
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == delimiter);
        ends.map(|(at, _)| at + 1).filter(|end| *end > root).collect()
    }
}

fn below<'a>(
    set: &'a BTreeSet<Box<[u8]>>,
    prefix: &[u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let keys = set.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
    let prefix = prefix.to_vec();
    keys.map(|key| &**key).take_while(move |key| key.starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(alloc::vec![b'a', b'-', b':', b'~', 0]), 0..7)
    }

    fn walk(mut next: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = Vec::new();
        while let Some(component) = next(all.last().map(Vec::as_slice)) {
            assert!(!all.contains(&component), "{component:?} twice");
            all.push(component);
        }
        all
    }

    proptest! {
        #[test]
        fn lists_what_the_keys_imply(
            keys in prop::collection::btree_set(key(), 0..30),
            sides in prop::collection::btree_set(key(), 0..6),
            gone in prop::collection::vec(any::<bool>(), 36),
        ) {
            let sides: BTreeSet<Vec<u8>> = sides.into_iter().map(|mut s| { s.push(b':'); s }).collect();
            let mut index = Index::new(b':', b"");
            for key in &keys { index.insert_key(key); }
            for side in &sides { index.insert_side(side); }
            let mut flags = gone.into_iter();
            let keys: BTreeSet<_> = keys.into_iter().filter(|key| {
                let stays = flags.next().unwrap_or(true);
                if !stays { index.remove_key(key); }
                stays
            }).collect();
            let sides: BTreeSet<_> = sides.into_iter().filter(|side| {
                let stays = flags.next().unwrap_or(true);
                if !stays { index.remove_side(side); }
                stays
            }).collect();
            for dir in [&b""[..], b"a:", b":", b"a:-:"] {
                let under = |path: &Vec<u8>| path.strip_prefix(dir).map(<[u8]>::to_vec);
                let want_keys: BTreeSet<Vec<u8>> =
                    keys.iter().filter_map(under).filter(|rest| !rest.contains(&b':')).collect();
                let want_dirs: BTreeSet<Vec<u8>> = keys.iter().chain(&sides).filter_map(under)
                    .filter(|rest| rest.contains(&b':'))
                    .map(|rest| rest.split(|b| *b == b':').next().unwrap().to_vec()).collect();
                let got: BTreeSet<Vec<u8>> =
                    walk(|after| index.next_key(dir, after)).into_iter().collect();
                prop_assert_eq!(got, want_keys);
                let got: BTreeSet<Vec<u8>> =
                    walk(|after| index.next_dir(dir, after)).into_iter().collect();
                prop_assert_eq!(&got, &want_dirs);
                for dir_name in &want_dirs {
                    let prefix = [dir, dir_name, b":"].concat();
                    prop_assert!(index.is_dir(&prefix));
                    let empty = keys.iter().all(|key| !key.starts_with(&prefix))
                        && sides.iter().all(|s| !s.starts_with(&prefix) || *s == prefix);
                    prop_assert_eq!(index.is_empty_dir(&prefix), empty);
                }
            }
        }
    }
}
