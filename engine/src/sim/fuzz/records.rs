//! The records of a volume: what can be read is what was written, and everything else says so.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Numbers;
use crate::backend::redis::Reply;
use crate::id::Ino;
use crate::op::Kind;
use crate::volume::key::Keyspace;
use crate::volume::record::{Inode, Member, Stamp, Super, VERSION, kind_letter, member};

/// Reads `data` as each of the records.
pub(super) fn records(data: &[u8]) {
    key(data);
    entry(data);
    stamp(data);
    let mut numbers = Numbers::new(data);
    let mut fields =
        |count: usize| -> Vec<Reply> { (0..count).map(|at| value(&mut numbers, at)).collect() };
    inode(&fields(Inode::FIELDS.len()));
    superblock(&fields(Super::FIELDS.len()));
}

/// A field as a hash may hold it: a number or a letter mostly, or a few bytes.
fn value(numbers: &mut Numbers<'_>, at: usize) -> Reply {
    const TEXTS: [&[u8]; 16] = [
        b"0",
        b"1",
        b"2",
        b"420",
        b"4095",
        b"4096",
        b"65536",
        b"4294967295",
        b"4294967296",
        b"9223372036854775807",
        b"18446744073709551615",
        b"18446744073709551616",
        b"-9223372036854775808",
        b"7.3",
        b"007",
        b"",
    ];
    const KINDS: [Kind; 7] = [
        Kind::File,
        Kind::Dir,
        Kind::Symlink,
        Kind::Fifo,
        Kind::Socket,
        Kind::CharDevice,
        Kind::BlockDevice,
    ];
    let bytes = match numbers.below(8) {
        0 => return Reply::Nil,
        1 => Bytes::copy_from_slice(numbers.bytes(24)),
        2 => return Reply::Int(i64::from(numbers.short())),
        3 => Bytes::from(alloc::format!("{}", numbers.short())),
        // The first field of an inode is its kind, and nothing else is a letter.
        _ if at == 0 && numbers.below(4) > 0 => {
            Bytes::from_static(kind_letter(KINDS[numbers.below(KINDS.len())]))
        }
        _ => Bytes::from_static(TEXTS[numbers.below(TEXTS.len())]),
    };
    Reply::Bulk(bytes)
}

/// The name of a key means one thing, and that thing has no other name.
fn key(data: &[u8]) {
    let keys = Keyspace::new("v").unwrap_or_else(|why| unreachable!("{why}"));
    for name in [data, &[b"{v}:", data].concat(), &[b"v:b:{", data, b"}"].concat()] {
        if let Some(key) = keys.parse(name) {
            assert_eq!(keys.key(key), name, "{key:?}");
        }
    }
}

fn entry(data: &[u8]) {
    if let Ok(read) = Member::parse(Ino::ROOT, data) {
        assert_eq!(read.to_bytes(), data, "{read:?}");
        assert_eq!(member(&read.name, read.kind, read.ino), data, "{read:?}");
    }
}

fn stamp(data: &[u8]) {
    let read = Stamp::parse(data);
    assert_eq!(Stamp::parse(&read.to_bytes()), read);
    if read != Stamp::default() {
        assert_eq!(read.to_bytes(), data, "{read:?}");
    }
}

/// The values of `names`, as `HMGET` gives them, of a hash that holds `pairs`.
fn values(names: &[&str], pairs: &[(&'static str, Bytes)]) -> Vec<Reply> {
    let of = |name: &str| pairs.iter().find(|(field, _)| *field == name);
    let all = names.iter().map(|name| of(name));
    all.map(|pair| pair.map_or(Reply::Nil, |(_, value)| Reply::Bulk(value.clone()))).collect()
}

fn inode(fields: &[Reply]) {
    if let Ok(Some(read)) = Inode::parse(Ino(7), fields) {
        let again = Inode::parse(Ino(7), &values(&Inode::FIELDS, &read.pairs()));
        assert_eq!(again, Ok(Some(read)), "{fields:?}");
    }
}

fn superblock(fields: &[Reply]) {
    if let Ok(Some(read)) = Super::parse(fields)
        && read.version <= VERSION
    {
        let again = Super::parse(&values(&Super::FIELDS, &read.pairs()));
        assert_eq!(again, Ok(Some(read)), "{fields:?}");
    }
}
