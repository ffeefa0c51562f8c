//! One numbered database: its keys, when they expire, and what they weigh.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use super::dict::Dict;
use super::own;
use super::value::Value;

/// What a key costs beyond its name and value, for the memory estimate.
const PER_KEY: usize = 96;

/// A key's value and what hangs on it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// Milliseconds since the epoch after which it is gone.
    expires: Option<i64>,
    /// What it weighed when it was last modified: its share in `Db::used`.
    weighed: usize,
}

impl Entry {
    pub(super) fn expires(&self) -> Option<i64> {
        self.expires
    }
}

/// One numbered database.
#[derive(Clone, Debug, Default)]
pub(super) struct Db {
    pub(super) keys: Dict<Entry>,
    expires: BTreeSet<(i64, Bytes)>,
    used: usize,
}

impl Db {
    /// An estimate of the memory it takes.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// How many keys have an expiry.
    pub(super) fn volatile(&self) -> usize {
        self.expires.len()
    }

    /// When the next key expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.expires.first().map(|(when, _)| *when)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.keys.get(key)
    }

    /// The value, to be changed. Ends with [`reweigh`](Self::reweigh).
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        self.keys.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Whether a key's time has passed although it is still here.
    pub(super) fn is_due(&self, key: &[u8], now: i64) -> bool {
        // The set's first element spares the look-up in all but a few cases.
        self.next_expiry().is_some_and(|first| first < now)
            && self.keys.get(key).and_then(Entry::expires).is_some_and(|when| when < now)
    }

    /// Every key whose time has passed, in the order of their times.
    pub(super) fn due(&self, now: i64) -> Vec<Bytes> {
        let due = self.expires.iter().take_while(|(when, _)| *when < now);
        due.map(|(_, key)| key.clone()).collect()
    }

    /// Puts a value in place of whatever was there.
    pub(super) fn insert(&mut self, key: &Bytes, value: Value, expires: Option<i64>) {
        let weighed = PER_KEY + key.len() + value.weight();
        let entry = Entry { value, expires: None, weighed };
        self.used += weighed;
        if let Some(slot) = self.keys.get_mut(key) {
            let old = core::mem::replace(slot, entry);
            self.drop_entry(key, &old);
        } else {
            self.keys.insert(own(key), entry);
        }
        if expires.is_some() {
            self.set_expiry(key, expires);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.keys.remove(key)?;
        self.drop_entry(key, &entry);
        Some(entry)
    }

    fn drop_entry(&mut self, key: &[u8], entry: &Entry) {
        self.used -= entry.weighed;
        if let Some(when) = entry.expires {
            self.expires.remove(&(when, Bytes::copy_from_slice(key)));
        }
    }

    /// Gives a key that is there an expiry, or takes it away.
    pub(super) fn set_expiry(&mut self, key: &[u8], expires: Option<i64>) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        let key = Bytes::copy_from_slice(key);
        if let Some(old) = core::mem::replace(&mut entry.expires, expires) {
            self.expires.remove(&(old, key.clone()));
        }
        if let Some(when) = expires {
            self.expires.insert((when, key));
        }
    }

    /// Takes note of what a key weighs after it was changed in place.
    pub(super) fn reweigh(&mut self, key: &[u8]) {
        if let Some(entry) = self.keys.get_mut(key) {
            let weighed = PER_KEY + key.len() + entry.value.weight();
            self.used = self.used - entry.weighed + weighed;
            entry.weighed = weighed;
        }
    }
}
