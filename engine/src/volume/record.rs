//! The records of a volume: the superblock, inodes, directory entries. Fields that this version
//! does not know are left as they are.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::backend::redis::Reply;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;

use super::key::{DataId, MountId, number};

/// The newest format this program reads and writes. A volume of a newer one is refused.
pub const VERSION: u64 = 1;

/// A record that cannot be what this program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// What is wrong with it.
    pub what: String,
    /// Which record.
    pub at: String,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; run dbmount fsck", self.at, self.what)
    }
}

/// What `format` decided: the hash `{NAME}:super`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Super {
    /// The format, field `v`.
    pub version: u64,
    /// Tells volumes apart, field `uuid`.
    pub uuid: String,
    /// Bytes a data block holds, field `block`. A power of two.
    pub block: u32,
    /// When it was made, field `created`, in nanoseconds since the epoch.
    pub created: Wall,
    /// The most bytes all files may hold together, field `capacity`; 0 for no limit.
    pub capacity: u64,
    /// The most inodes there may be, field `inodes`; 0 for no limit.
    pub inodes: u64,
}

/// The smallest and largest blocks there may be, in bytes.
pub const BLOCK_SIZES: core::ops::RangeInclusive<u32> = 4 << 10..=16 << 20;

impl Super {
    /// The fields, in the order in which [`parse`](Self::parse) takes their values.
    pub const FIELDS: [&str; 6] = ["v", "uuid", "block", "created", "capacity", "inodes"];

    /// Fields and values, for `HSET`.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, Bytes)> {
        let decimal = |n: u64| Bytes::from(format!("{n}"));
        let values = [
            decimal(self.version),
            Bytes::from(self.uuid.clone()),
            decimal(u64::from(self.block)),
            Bytes::from(format!("{}", self.created.0)),
            decimal(self.capacity),
            decimal(self.inodes),
        ];
        Self::FIELDS.into_iter().zip(values).collect()
    }

    /// From the values of [`FIELDS`](Self::FIELDS) as `HMGET` gives them; `None` when there is no
    /// such volume.
    ///
    /// # Errors
    /// When there is something that is no superblock. A newer format is none: look at `version`
    /// before anything else.
    pub fn parse(values: &[Reply]) -> Result<Option<Super>, Corrupt> {
        let wrong = |what: &str| Corrupt { what: format!("bad {what}"), at: String::from("super") };
        let text = |at: usize| values.get(at).and_then(Reply::as_bytes);
        if values.iter().all(|value| value.as_bytes().is_none()) {
            return Ok(None);
        }
        let version = text(0).and_then(number).ok_or_else(|| wrong("v"))?;
        let uuid = text(1).map(|uuid| String::from_utf8_lossy(uuid).into_owned());
        if version > VERSION {
            let uuid = uuid.unwrap_or_default();
            let unknown =
                Super { version, uuid, block: 0, created: Wall(0), capacity: 0, inodes: 0 };
            return Ok(Some(unknown));
        }
        let block = text(2).and_then(number).and_then(|n| u32::try_from(n).ok());
        let block = block.filter(|n| n.is_power_of_two() && BLOCK_SIZES.contains(n));
        // What came with a later version of the same format may be missing.
        let limit = |at: usize| text(at).map_or(Some(0), number);
        Ok(Some(Super {
            version,
            uuid: uuid.ok_or_else(|| wrong("uuid"))?,
            block: block.ok_or_else(|| wrong("block"))?,
            created: Wall(text(3).and_then(signed).unwrap_or(0)),
            capacity: limit(4).ok_or_else(|| wrong("capacity"))?,
            inodes: limit(5).ok_or_else(|| wrong("inodes"))?,
        }))
    }
}

/// Says who changed an inode last and tells two states of it apart: field `change`, `MOUNT.SERIAL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The mount that did it.
    pub mount: MountId,
    /// Counts the changes that mount made.
    pub serial: u64,
}

impl Stamp {
    /// As it stands in the record.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        Bytes::from(format!("{}.{}", self.mount.0, self.serial))
    }

    /// From the record; what is no stamp is one that nobody made.
    #[must_use]
    pub fn parse(text: &[u8]) -> Stamp {
        let parts = || {
            let at = text.iter().position(|byte| *byte == b'.')?;
            Some((number(&text[..at])?, number(&text[at + 1..])?))
        };
        let (mount, serial) = parts().unwrap_or_default();
        Stamp { mount: MountId(mount), serial }
    }
}

/// An inode: the hash `{NAME}:i:INO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Fields `kind` (a [letter](kind_letter)), `mode` (the lower twelve bits, decimal), `nlink`
    /// (0: it has lost its last name), `uid`, `gid`, `rdev`, `size`, and `atime`, `mtime`, `ctime`
    /// in nanoseconds since the epoch. A missing `rdev` is 0.
    pub attr: Attr,
    /// Of a directory, field `parent`: the directory it is in. The root is its own.
    pub parent: Option<Ino>,
    /// Field `data`: under which number its blocks stand; missing, under its own.
    pub data: DataId,
    /// Field `change`.
    pub change: Stamp,
    /// Field `stale`: up to here there may be bytes beyond `size` in its blocks, which must be
    /// removed before it grows again. Missing, there are none.
    pub stale: u64,
    /// Field `acl`: among its extended attributes are POSIX ACLs, or were once. Missing, there are
    /// none, and nobody need look.
    pub acl: bool,
}

impl Inode {
    /// The fields, in the order in which [`parse`](Self::parse) takes their values. A symlink has
    /// `target` beside them.
    pub const FIELDS: [&str; 15] = [
        "kind", "mode", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime", "change", "rdev",
        "parent", "data", "stale", "acl",
    ];

    /// A fresh inode.
    #[must_use]
    pub fn new(attr: Attr, parent: Option<Ino>, change: Stamp) -> Inode {
        Inode { attr, parent, data: DataId(attr.ino.0), change, stale: 0, acl: false }
    }

    /// Fields and values, for `HSET`; what is missing for its default is left out.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&'static str, Bytes)> {
        let decimal = |n: u64| Bytes::from(format!("{n}"));
        let time = |at: Wall| Bytes::from(format!("{}", at.0));
        let attr = &self.attr;
        let mut pairs = alloc::vec![
            ("kind", Bytes::from_static(kind_letter(attr.kind))),
            ("mode", decimal(u64::from(attr.perm))),
            ("nlink", decimal(u64::from(attr.nlink))),
            ("uid", decimal(u64::from(attr.uid))),
            ("gid", decimal(u64::from(attr.gid))),
            ("size", decimal(attr.size)),
            ("atime", time(attr.atime)),
            ("mtime", time(attr.mtime)),
            ("ctime", time(attr.ctime)),
            ("change", self.change.to_bytes()),
        ];
        if attr.rdev != 0 {
            pairs.push(("rdev", decimal(u64::from(attr.rdev))));
        }
        if let Some(parent) = self.parent {
            pairs.push(("parent", decimal(parent.0)));
        }
        if self.data.0 != attr.ino.0 {
            pairs.push(("data", decimal(self.data.0)));
        }
        if self.stale != 0 {
            pairs.push(("stale", decimal(self.stale)));
        }
        if self.acl {
            pairs.push(("acl", decimal(1)));
        }
        pairs
    }

    /// From the values of [`FIELDS`](Self::FIELDS) as `HMGET` gives them; `None` when there is no
    /// such inode.
    ///
    /// # Errors
    /// When there is something that is no inode.
    pub fn parse(ino: Ino, values: &[Reply]) -> Result<Option<Inode>, Corrupt> {
        if values.iter().all(|value| value.as_bytes().is_none()) {
            return Ok(None);
        }
        let wrong = |at: usize| Corrupt {
            what: format!("bad {}", Self::FIELDS.get(at).copied().unwrap_or("record")),
            at: format!("inode {}", ino.0),
        };
        let text = |at: usize| values.get(at).and_then(Reply::as_bytes);
        let needed = |at: usize| text(at).and_then(number).ok_or_else(|| wrong(at));
        let short = |at: usize| u32::try_from(needed(at)?).map_err(|_| wrong(at));
        let time = |at: usize| text(at).and_then(signed).map(Wall).ok_or_else(|| wrong(at));
        let perm = u16::try_from(needed(1)?).ok().filter(|perm| *perm <= 0o7777);
        let optional = |at: usize| match text(at) {
            None => Ok(None),
            Some(digits) => number(digits).map(Some).ok_or_else(|| wrong(at)),
        };
        let attr = Attr {
            ino,
            kind: text(0).and_then(kind_of).ok_or_else(|| wrong(0))?,
            perm: perm.ok_or_else(|| wrong(1))?,
            nlink: short(2)?,
            uid: short(3)?,
            gid: short(4)?,
            size: needed(5)?,
            atime: time(6)?,
            mtime: time(7)?,
            ctime: time(8)?,
            rdev: optional(10)?.map_or(Ok(0), u32::try_from).map_err(|_| wrong(10))?,
        };
        Ok(Some(Inode {
            attr,
            parent: optional(11)?.map(Ino),
            data: DataId(optional(12)?.unwrap_or(ino.0)),
            change: text(9).map_or(Stamp::default(), Stamp::parse),
            stale: optional(13)?.unwrap_or(0),
            acl: optional(14)?.is_some_and(|acl| acl != 0),
        }))
    }
}

/// An entry of a directory: a member of the sorted set `{NAME}:d:INO`, all of whose scores are 0.
/// It is the name, NUL, the letter of the kind, and the inode's number: members sort by name, and
/// a name is found as the one member that begins with it and NUL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The name.
    pub name: Name,
    /// The kind of what it leads to.
    pub kind: Kind,
    /// The inode it leads to.
    pub ino: Ino,
}

impl Member {
    /// As it stands in the set.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        member(&self.name, self.kind, self.ino)
    }

    /// From the set.
    ///
    /// # Errors
    /// When it is no entry; `dir` is for the message.
    pub fn parse(dir: Ino, member: &[u8]) -> Result<Member, Corrupt> {
        let parts = || {
            let at = member.iter().position(|byte| *byte == 0)?;
            let (name, rest) = (&member[..at], &member[at + 1..]);
            let ok = !name.is_empty() && name.len() <= Name::MAX && !name.contains(&b'/');
            let kind = kind_of(rest.get(..1)?)?;
            ok.then_some(())?;
            Some(Member { name: Name::from(name), kind, ino: Ino(number(&rest[1..])?) })
        };
        parts().ok_or_else(|| Corrupt {
            what: format!("bad entry \"{}\"", member.escape_ascii()),
            at: format!("directory {}", dir.0),
        })
    }
}

/// As [`Member::to_bytes`].
#[must_use]
pub fn member(name: &Name, kind: Kind, ino: Ino) -> Bytes {
    let number = format!("{}", ino.0);
    let parts = [name.as_bytes(), b"\0", kind_letter(kind), number.as_bytes()];
    Bytes::from(parts.concat())
}

/// Whether an extended attribute is one that field `acl` of its inode tells of.
#[must_use]
pub fn is_acl(name: &Name) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}

/// The letter for a kind, in inodes and entries.
#[must_use]
pub fn kind_letter(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::File => b"f",
        Kind::Dir => b"d",
        Kind::Symlink => b"l",
        Kind::Fifo => b"p",
        Kind::Socket => b"s",
        Kind::CharDevice => b"c",
        Kind::BlockDevice => b"b",
    }
}

/// The kind of a letter.
#[must_use]
pub fn kind_of(letter: &[u8]) -> Option<Kind> {
    Some(match letter {
        b"f" => Kind::File,
        b"d" => Kind::Dir,
        b"l" => Kind::Symlink,
        b"p" => Kind::Fifo,
        b"s" => Kind::Socket,
        b"c" => Kind::CharDevice,
        b"b" => Kind::BlockDevice,
        _ => return None,
    })
}

fn signed(digits: &[u8]) -> Option<i64> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hmget(fields: &[&str], pairs: &[(&'static str, Bytes)]) -> Vec<Reply> {
        let find = |name: &&str| pairs.iter().find(|(field, _)| field == name);
        fields
            .iter()
            .map(|name| find(name).map_or(Reply::Nil, |(_, value)| Reply::Bulk(value.clone())))
            .collect()
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::File),
            Just(Kind::Dir),
            Just(Kind::Symlink),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            Just(Kind::CharDevice),
            Just(Kind::BlockDevice),
        ]
    }

    proptest! {
        #[test]
        fn an_inode_reads_back(
            (ino, kind, perm, nlink) in (any::<u64>(), kinds(), 0u16..=0o7777, any::<u32>()),
            (uid, gid, rdev, size) in any::<(u32, u32, u32, u64)>(),
            (atime, mtime, ctime) in any::<(i64, i64, i64)>(),
            (parent, data, mount, serial, stale) in any::<(Option<u64>, u64, u64, u64, u64)>(),
            acl in any::<bool>(),
        ) {
            let (atime, mtime, ctime) = (Wall(atime), Wall(mtime), Wall(ctime));
            let attr = Attr {
                ino: Ino(ino), kind, perm, nlink, uid, gid, rdev, size, atime, mtime, ctime,
            };
            let change = Stamp { mount: MountId(mount), serial };
            let inode =
                Inode { attr, parent: parent.map(Ino), data: DataId(data), change, stale, acl };
            let values = hmget(&Inode::FIELDS, &inode.pairs());
            prop_assert_eq!(Inode::parse(Ino(ino), &values), Ok(Some(inode)));
        }

        #[test]
        fn an_entry_reads_back_and_sorts_by_name(
            names in proptest::collection::vec("[^/\0]{1,9}", 2),
            kind in kinds(),
            inos in any::<(u64, u64)>(),
        ) {
            let entry = |name: &str, ino| Member { name: Name::from(name), kind, ino: Ino(ino) };
            let (a, b) = (entry(&names[0], inos.0), entry(&names[1], inos.1));
            prop_assert_eq!(Member::parse(Ino(1), &a.to_bytes()), Ok(a.clone()));
            if a.name != b.name {
                prop_assert_eq!(a.name.cmp(&b.name), a.to_bytes().cmp(&b.to_bytes()));
            }
        }

        #[test]
        fn no_bytes_are_too_odd(
            values in proptest::collection::vec(proptest::option::of(any::<Vec<u8>>()), 0..16),
            member in any::<Vec<u8>>(),
        ) {
            let bulk = |value: Option<Vec<u8>>| value.map_or(Reply::Nil, |it| Reply::Bulk(it.into()));
            let values: Vec<Reply> = values.into_iter().map(bulk).collect();
            let _ = Inode::parse(Ino(7), &values);
            let _ = Super::parse(&values);
            let _ = Member::parse(Ino(7), &member);
        }
    }

    #[test]
    fn what_is_no_inode_says_which_field() {
        let attr = Attr {
            ino: Ino(5),
            kind: Kind::File,
            perm: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 3,
            atime: Wall(1),
            mtime: Wall(2),
            ctime: Wall(3),
        };
        let good = hmget(&Inode::FIELDS, &Inode::new(attr, None, Stamp::default()).pairs());
        for (at, field) in Inode::FIELDS.iter().enumerate().filter(|(at, _)| *at != 9) {
            let mut values = good.clone();
            values[at] = Reply::Bulk(Bytes::from_static(b"x"));
            let corrupt = Inode::parse(Ino(5), &values).unwrap_err();
            assert_eq!(format!("{corrupt}"), format!("inode 5: bad {field}; run dbmount fsck"));
        }
        assert_eq!(Inode::parse(Ino(5), &[Reply::Nil, Reply::Nil]), Ok(None));
    }

    #[test]
    fn a_superblock_reads_back_and_a_newer_one_says_so() {
        let made = Super {
            version: VERSION,
            uuid: String::from("0f"),
            block: 128 << 10,
            created: Wall(-4),
            capacity: 0,
            inodes: 9,
        };
        let mut values = hmget(&Super::FIELDS, &made.pairs());
        assert_eq!(Super::parse(&values), Ok(Some(made)));
        values[0] = Reply::Bulk(Bytes::from_static(b"2"));
        values[2] = Reply::Bulk(Bytes::from_static(b"a new way to say it"));
        assert_eq!(Super::parse(&values).unwrap().unwrap().version, 2);
        values[0] = Reply::Nil;
        assert!(Super::parse(&values).is_err());
    }
}
