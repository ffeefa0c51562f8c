//! A map from byte strings whose order is a fixed hash of the key, so that a cursor is simply the
//! next hash: `SCAN` then misses nothing that was there throughout, whatever comes and goes.

use alloc::collections::BTreeMap;
use core::fmt;

use bytes::Bytes;
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

/// A map from byte strings to `V`.
#[derive(Clone)]
pub(super) struct Dict<V> {
    // Almost every bucket holds one entry: the hash has 64 bits.
    buckets: BTreeMap<u64, SmallVec<[(Bytes, V); 1]>>,
    len: usize,
}

impl<V> Default for Dict<V> {
    fn default() -> Self {
        Dict { buckets: BTreeMap::new(), len: 0 }
    }
}

impl<V: fmt::Debug> fmt::Debug for Dict<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Fixed keys: the same inputs must scan in the same order in every run.
fn hash(key: &[u8]) -> u64 {
    SipHasher13::new_with_keys(0x64_62_6d_6f_75_6e_74, 0x73_69_6d).hash(key)
}

impl<V> Dict<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        self.buckets.get(&hash(key))?.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.buckets.get_mut(&hash(key))?.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Puts a value; the one it replaces. The key is kept as it is handed in.
    pub(super) fn insert(&mut self, key: Bytes, value: V) -> Option<V> {
        let bucket = self.buckets.entry(hash(&key)).or_default();
        if let Some((_, old)) = bucket.iter_mut().find(|(k, _)| *k == key) {
            return Some(core::mem::replace(old, value));
        }
        bucket.push((key, value));
        self.len += 1;
        None
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let hash = hash(key);
        let bucket = self.buckets.get_mut(&hash)?;
        let at = bucket.iter().position(|(k, _)| k == key)?;
        let (_, value) = bucket.remove(at);
        if bucket.is_empty() {
            self.buckets.remove(&hash);
        }
        self.len -= 1;
        Some(value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &V)> {
        self.buckets.values().flatten().map(|(k, v)| (k, v))
    }

    /// Visits about `count` entries from a cursor on; the cursor to go on from, 0 at the end.
    pub(super) fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Bytes, &V)) -> u64 {
        let mut seen = 0;
        for (hash, bucket) in self.buckets.range(cursor..) {
            if seen >= count {
                return *hash;
            }
            for (key, value) in bucket {
                visit(key, value);
                seen += 1;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::format;

    #[test]
    fn a_scan_returns_what_stays_while_others_come_and_go() {
        let mut dict = Dict::default();
        for i in 0..500 {
            dict.insert(Bytes::from(format!("stay{i}")), ());
            dict.insert(Bytes::from(format!("go{i}")), ());
        }
        let (mut seen, mut cursor, mut round) = (BTreeSet::new(), 0, 0);
        loop {
            cursor = dict.scan(cursor, 10, |key, ()| {
                seen.insert(key.clone());
            });
            dict.remove(format!("go{round}").as_bytes());
            dict.insert(Bytes::from(format!("new{round}")), ());
            round += 1;
            if cursor == 0 {
                break;
            }
        }
        assert!((0..500).all(|i| seen.contains(format!("stay{i}").as_bytes())));
    }
}
