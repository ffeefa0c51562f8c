//! Side records: what Redis cannot hold of a file, as a line of text in a side hash.
//!
//! `kind perm uid gid atime mtime ctime rdev`, for a symlink followed by its target. The kind is
//! the letter that `ls -l` shows (`f` for a regular file), `perm` is octal, times are nanoseconds
//! since the epoch.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::decide::Patch;
use crate::id::Ino;
use crate::op::{Attr, Kind};
use crate::time::Wall;

/// The field of a side hash that is about the directory itself. No name holds a slash.
pub(super) const SELF_FIELD: &[u8] = b"/";

/// One side record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: Wall,
    pub(super) mtime: Wall,
    pub(super) ctime: Wall,
    pub(super) rdev: u32,
    pub(super) target: Bytes,
}

impl Record {
    pub(super) fn of(attr: &Attr, target: Option<&Bytes>) -> Record {
        Record {
            kind: attr.kind,
            perm: attr.perm,
            uid: attr.uid,
            gid: attr.gid,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            rdev: attr.rdev,
            target: target.cloned().unwrap_or_default(),
        }
    }

    pub(super) fn attr(&self, ino: Ino, size: u64) -> Attr {
        Attr {
            ino,
            kind: self.kind,
            perm: self.perm,
            nlink: 1,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: if self.kind == Kind::Symlink { self.target.len() as u64 } else { size },
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
        }
    }

    pub(super) fn apply(&mut self, patch: &Patch) {
        self.perm = patch.perm.unwrap_or(self.perm);
        self.uid = patch.uid.unwrap_or(self.uid);
        self.gid = patch.gid.unwrap_or(self.gid);
        self.atime = patch.atime.unwrap_or(self.atime);
        self.mtime = patch.mtime.unwrap_or(self.mtime);
        self.ctime = patch.ctime.unwrap_or(self.ctime);
    }

    pub(super) fn format(&self) -> Bytes {
        let mut text = format!(
            "{} {:o} {} {} {} {} {} {}",
            letter(self.kind),
            self.perm,
            self.uid,
            self.gid,
            self.atime.0,
            self.mtime.0,
            self.ctime.0,
            self.rdev
        )
        .into_bytes();
        if self.kind == Kind::Symlink {
            text.push(b' ');
            text.extend_from_slice(&self.target);
        }
        Bytes::from(text)
    }

    /// `None` for what is no record.
    pub(super) fn parse(text: &[u8]) -> Option<Record> {
        let mut words = text.splitn(9, |byte| *byte == b' ');
        let mut word = || core::str::from_utf8(words.next()?).ok();
        let kind = kind_of(word()?)?;
        let record = Record {
            kind,
            perm: u16::from_str_radix(word()?, 8).ok()? & 0o7777,
            uid: word()?.parse().ok()?,
            gid: word()?.parse().ok()?,
            atime: Wall(word()?.parse().ok()?),
            mtime: Wall(word()?.parse().ok()?),
            ctime: Wall(word()?.parse().ok()?),
            rdev: word()?.parse().ok()?,
            target: Bytes::new(),
        };
        match (kind, words.next()) {
            (Kind::Symlink, Some(target)) => {
                Some(Record { target: Bytes::copy_from_slice(target), ..record })
            }
            (Kind::Symlink, None) | (_, Some(_)) => None,
            (_, None) => Some(record),
        }
    }
}

/// The numbered fields that a patch changes, as the `patch` step of the commit script takes them.
pub(super) fn patched_fields(patch: &Patch) -> Vec<(&'static str, Bytes)> {
    let decimal = |n: i64| Bytes::from(format!("{n}"));
    let mut fields = Vec::new();
    let mut put = |number, value: Option<Bytes>| {
        if let Some(value) = value {
            fields.push((number, value));
        }
    };
    put("2", patch.perm.map(|perm| Bytes::from(format!("{perm:o}"))));
    put("3", patch.uid.map(|uid| decimal(i64::from(uid))));
    put("4", patch.gid.map(|gid| decimal(i64::from(gid))));
    put("5", patch.atime.map(|time| decimal(time.0)));
    put("6", patch.mtime.map(|time| decimal(time.0)));
    put("7", patch.ctime.map(|time| decimal(time.0)));
    fields
}

pub(super) fn letter(kind: Kind) -> char {
    match kind {
        Kind::File => 'f',
        Kind::Dir => 'd',
        Kind::Symlink => 'l',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
        Kind::CharDevice => 'c',
        Kind::BlockDevice => 'b',
    }
}

fn kind_of(letter: &str) -> Option<Kind> {
    Some(match letter {
        "f" => Kind::File,
        "d" => Kind::Dir,
        "l" => Kind::Symlink,
        "p" => Kind::Fifo,
        "s" => Kind::Socket,
        "c" => Kind::CharDevice,
        "b" => Kind::BlockDevice,
        _ => return None,
    })
}

/// Records in memory, by directory prefix and name: all of them when nothing is to be stored,
/// otherwise the times of files that have no record, so that a file written in this session keeps
/// its modification time.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    records: BTreeMap<Vec<u8>, Record>,
    order: VecDeque<Vec<u8>>,
    /// `None` for no bound.
    bound: Option<usize>,
}

impl Memory {
    pub(super) fn bounded(bound: Option<usize>) -> Self {
        Memory { bound, ..Memory::default() }
    }

    fn key(dir: &[u8], name: &[u8]) -> Vec<u8> {
        // No name holds a slash, so the last one splits the two again.
        [dir, b"/", name].concat()
    }

    pub(super) fn get(&self, dir: &[u8], name: &[u8]) -> Option<&Record> {
        self.records.get(&Self::key(dir, name))
    }

    pub(super) fn get_mut(&mut self, dir: &[u8], name: &[u8]) -> Option<&mut Record> {
        self.records.get_mut(&Self::key(dir, name))
    }

    pub(super) fn put(&mut self, dir: &[u8], name: &[u8], record: Record) {
        let key = Self::key(dir, name);
        if self.records.insert(key.clone(), record).is_none()
            && let Some(bound) = self.bound
        {
            self.order.push_back(key);
            while self.order.len() > bound {
                if let Some(oldest) = self.order.pop_front() {
                    self.records.remove(&oldest);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, dir: &[u8], name: &[u8]) -> Option<Record> {
        self.records.remove(&Self::key(dir, name))
    }

    /// The names in a directory that have no value on the server: symlinks and special files.
    pub(super) fn inhabitants(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], &Record)> {
        let start = Self::key(dir, b"");
        self.records
            .range(start.clone()..)
            .take_while(move |(key, _)| key.starts_with(&start))
            .map(move |(key, record)| (&key[dir.len() + 1..], record))
            .filter(|(name, record)| {
                !name.contains(&b'/')
                    && !name.is_empty()
                    && *name != SELF_FIELD
                    && !matches!(record.kind, Kind::File | Kind::Dir)
            })
    }

    fn below(&self, dir: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Record)> {
        self.records.range(dir.to_vec()..).take_while(move |(key, _)| key.starts_with(dir))
    }

    /// A directory was renamed: its records and those below move along.
    pub(super) fn rename_dir(&mut self, from: &[u8], to: &[u8]) {
        let moving: Vec<Vec<u8>> = self.below(from).map(|(key, _)| key.clone()).collect();
        for key in moving {
            if let Some(record) = self.records.remove(&key) {
                self.records.insert([to, &key[from.len()..]].concat(), record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: Kind, target: &[u8]) -> Record {
        Record {
            kind,
            perm: 0o644,
            uid: 1,
            gid: 2,
            atime: Wall(-3),
            mtime: Wall(4),
            ctime: Wall(i64::MAX),
            rdev: 6,
            target: Bytes::copy_from_slice(target),
        }
    }

    #[test]
    fn records_are_readable_text() {
        assert_eq!(record(Kind::File, b"").format(), "f 644 1 2 -3 4 9223372036854775807 6");
        assert_eq!(
            record(Kind::Symlink, b"a b").format(),
            "l 644 1 2 -3 4 9223372036854775807 6 a b"
        );
    }

    proptest! {
        #[test]
        fn records_round_trip(target in prop::collection::vec(any::<u8>(), 0..20)) {
            let link = record(Kind::Symlink, &target);
            prop_assert_eq!(Record::parse(&link.format()), Some(link));
        }

        #[test]
        fn foreign_bytes_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(parsed) = Record::parse(&bytes) {
                prop_assert_eq!(Record::parse(&parsed.format()), Some(parsed));
            }
        }
    }
}
