//! What a key holds: the six types, their encodings, and what they weigh.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use bytes::{Bytes, BytesMut};

use super::dict::Dict;
use super::own;
use super::text::parse_i64;

/// What an element of a collection costs beyond its bytes, for the memory estimate.
const PER_ELEMENT: usize = 48;

/// Limits of the compact encodings: the defaults of 7.0.
const LISTPACK_ENTRIES: usize = 512;
const LISTPACK_ZSET_ENTRIES: usize = 128;
const LISTPACK_VALUE: usize = 64;
const INTSET_ENTRIES: usize = 512;

/// A value of a key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(Text),
    Hash(Box<Hash>),
    List(Box<List>),
    Set(Box<Set>),
    Zset(Box<Zset>),
    Stream(Box<Stream>),
}

impl Value {
    /// The name that `TYPE` gives.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "string",
            Value::Hash(_) => "hash",
            Value::List(_) => "list",
            Value::Set(_) => "set",
            Value::Zset(_) => "zset",
            Value::Stream(_) => "stream",
        }
    }

    /// The name that `OBJECT ENCODING` gives.
    pub(super) fn encoding(&self) -> &'static str {
        match self {
            Value::Text(text) => match text.encoding {
                Encoding::Int => "int",
                Encoding::Embstr => "embstr",
                Encoding::Raw => "raw",
            },
            Value::Hash(hash) => match hash.fields {
                Fields::Packed(_) => "listpack",
                Fields::Table(_) => "hashtable",
            },
            Value::List(_) => "quicklist",
            Value::Set(set) => match set.members {
                Members::Ints(_) => "intset",
                Members::Table(_) => "hashtable",
            },
            Value::Zset(zset) => {
                if zset.packed {
                    "listpack"
                } else {
                    "skiplist"
                }
            }
            Value::Stream(_) => "stream",
        }
    }

    /// An estimate of the memory it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Value::Text(text) => text.bytes.len(),
            Value::Hash(hash) => hash.bytes + hash.len() * 2 * PER_ELEMENT,
            Value::List(list) => list.bytes + list.items.len() * PER_ELEMENT,
            Value::Set(set) => match &set.members {
                Members::Ints(ints) => ints.len() * 8,
                Members::Table(table) => set.bytes + table.len() * PER_ELEMENT,
            },
            Value::Zset(zset) => zset.bytes + zset.scores.len() * 2 * PER_ELEMENT,
            Value::Stream(stream) => stream.bytes + stream.entries.len() * PER_ELEMENT,
        }
    }
}

/// Bytes that are shared while they are only read, and grow in place once they are edited.
#[derive(Clone)]
pub(super) enum Blob {
    Frozen(Bytes),
    Growing(BytesMut),
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let bytes = self.as_slice();
        write!(f, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN {
            write!(f, "…({} bytes)", bytes.len())?;
        }
        Ok(())
    }
}

impl Blob {
    pub(super) fn new(bytes: &Bytes) -> Blob {
        Blob::Frozen(own(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Blob::Frozen(bytes) => bytes,
            Blob::Growing(bytes) => bytes,
        }
    }

    /// All of it. Free unless it has been edited since it was set.
    pub(super) fn to_bytes(&self) -> Bytes {
        match self {
            Blob::Frozen(bytes) => bytes.clone(),
            Blob::Growing(bytes) => Bytes::copy_from_slice(bytes),
        }
    }

    /// The bytes from `from` up to `to`; both must lie within.
    pub(super) fn slice(&self, from: usize, to: usize) -> Bytes {
        // A small slice is copied: sharing it would make the next edit copy everything.
        const COPIED: usize = 4096;
        match self {
            Blob::Frozen(bytes) if to - from > COPIED => bytes.slice(from..to),
            _ => Bytes::copy_from_slice(&self.as_slice()[from..to]),
        }
    }

    /// The bytes, ready to be changed. Copies only when a reader still holds them.
    pub(super) fn edit(&mut self) -> &mut BytesMut {
        if let Blob::Frozen(bytes) = self {
            let grown = match core::mem::take(bytes).try_into_mut() {
                Ok(unique) => unique,
                Err(shared) => BytesMut::from(&shared[..]),
            };
            *self = Blob::Growing(grown);
        }
        match self {
            Blob::Growing(bytes) => bytes,
            Blob::Frozen(_) => unreachable!("just thawed"),
        }
    }

    /// Overwrites from `offset` on, filling a gap with zeros.
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        let bytes = self.edit();
        let end = offset + data.len();
        if offset >= bytes.len() {
            bytes.resize(offset, 0);
            bytes.extend_from_slice(data);
        } else {
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset..end].copy_from_slice(data);
        }
    }
}

/// A string and the encoding that `OBJECT ENCODING` would tell of it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) bytes: Blob,
    encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Int,
    Embstr,
    Raw,
}

impl Text {
    /// As `SET` stores it.
    pub(super) fn new(bytes: &Bytes) -> Text {
        const EMBSTR: usize = 44;
        let encoding = if parse_i64(bytes).is_some() {
            Encoding::Int
        } else if bytes.len() <= EMBSTR {
            Encoding::Embstr
        } else {
            Encoding::Raw
        };
        Text { bytes: Blob::new(bytes), encoding }
    }

    /// Nothing yet, to be edited: always `raw`.
    pub(super) fn empty() -> Text {
        Text { bytes: Blob::Frozen(Bytes::new()), encoding: Encoding::Raw }
    }

    /// The bytes, to be edited, which makes it `raw` for good.
    pub(super) fn edit(&mut self) -> &mut Blob {
        self.encoding = Encoding::Raw;
        &mut self.bytes
    }
}

/// A hash: a short one keeps the order in which its fields came.
#[derive(Clone, Debug)]
pub(super) struct Hash {
    fields: Fields,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Fields {
    Packed(Vec<(Bytes, Blob)>),
    Table(Dict<Blob>),
}

impl Default for Hash {
    fn default() -> Self {
        Hash { fields: Fields::Packed(Vec::new()), bytes: 0 }
    }
}

impl Hash {
    pub(super) fn len(&self) -> usize {
        match &self.fields {
            Fields::Packed(fields) => fields.len(),
            Fields::Table(table) => table.len(),
        }
    }

    pub(super) fn get(&self, field: &[u8]) -> Option<&Blob> {
        match &self.fields {
            Fields::Packed(fields) => fields.iter().find(|(f, _)| f == field).map(|(_, v)| v),
            Fields::Table(table) => table.get(field),
        }
    }

    /// Changes a field in place; a field that was not there starts empty. Whether it is new.
    pub(super) fn update(&mut self, field: &Bytes, change: impl FnOnce(&mut Blob)) -> bool {
        let slot = match &mut self.fields {
            Fields::Packed(fields) => {
                fields.iter_mut().find(|(f, _)| f == field).map(|(_, value)| value)
            }
            Fields::Table(table) => table.get_mut(field),
        };
        if let Some(value) = slot {
            self.bytes -= value.len();
            change(value);
            self.bytes += value.len();
            let long = value.len() > LISTPACK_VALUE;
            if long {
                self.unpack();
            }
            return false;
        }
        let mut value = Blob::Frozen(Bytes::new());
        change(&mut value);
        self.bytes += field.len() + value.len();
        if field.len() > LISTPACK_VALUE || value.len() > LISTPACK_VALUE {
            self.unpack();
        }
        let field = own(field);
        match &mut self.fields {
            Fields::Packed(fields) => fields.push((field, value)),
            Fields::Table(table) => {
                table.insert(field, value);
            }
        }
        if self.len() > LISTPACK_ENTRIES {
            self.unpack();
        }
        true
    }

    /// Sets a field. Whether it is new.
    pub(super) fn set(&mut self, field: &Bytes, value: &Bytes) -> bool {
        self.update(field, |slot| *slot = Blob::new(value))
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = match &mut self.fields {
            Fields::Packed(fields) => {
                fields.iter().position(|(f, _)| f == field).map(|at| fields.remove(at).1)
            }
            Fields::Table(table) => table.remove(field),
        };
        if let Some(value) = &removed {
            self.bytes -= field.len() + value.len();
        }
        removed.is_some()
    }

    /// Goes over to the table for good when any of these is too long for a listpack. `HSET`
    /// looks at all its arguments before it sets the first.
    pub(super) fn fit<'a>(&mut self, arguments: impl IntoIterator<Item = &'a Bytes>) {
        if arguments.into_iter().any(|argument| argument.len() > LISTPACK_VALUE) {
            self.unpack();
        }
    }

    fn unpack(&mut self) {
        if let Fields::Packed(fields) = &mut self.fields {
            let mut table = Dict::default();
            for (field, value) in core::mem::take(fields) {
                table.insert(field, value);
            }
            self.fields = Fields::Table(table);
        }
    }

    /// Every field and value, in the order in which `HGETALL` tells them.
    pub(super) fn each(&self, mut visit: impl FnMut(&Bytes, &Blob)) {
        self.scan(0, usize::MAX, &mut visit);
    }

    /// Visits about `count` fields; the next cursor. A short hash comes whole.
    pub(super) fn scan(
        &self,
        cursor: u64,
        count: usize,
        visit: &mut dyn FnMut(&Bytes, &Blob),
    ) -> u64 {
        match &self.fields {
            Fields::Packed(fields) => {
                for (field, value) in fields {
                    visit(field, value);
                }
                0
            }
            Fields::Table(table) => table.scan(cursor, count, visit),
        }
    }
}

/// A list.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) items: VecDeque<Bytes>,
    pub(super) bytes: usize,
}

/// A set.
#[derive(Clone, Debug)]
pub(super) struct Set {
    members: Members,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Members {
    /// Sorted.
    Ints(Vec<i64>),
    Table(Dict<()>),
}

impl Default for Set {
    fn default() -> Self {
        Set { members: Members::Ints(Vec::new()), bytes: 0 }
    }
}

impl Set {
    pub(super) fn len(&self) -> usize {
        match &self.members {
            Members::Ints(ints) => ints.len(),
            Members::Table(table) => table.len(),
        }
    }

    pub(super) fn contains(&self, member: &[u8]) -> bool {
        match &self.members {
            Members::Ints(ints) => {
                parse_i64(member).is_some_and(|int| ints.binary_search(&int).is_ok())
            }
            Members::Table(table) => table.contains(member),
        }
    }

    pub(super) fn insert(&mut self, member: &Bytes) -> bool {
        if let Members::Ints(ints) = &mut self.members {
            if let Some(int) = parse_i64(member) {
                let Err(at) = ints.binary_search(&int) else { return false };
                ints.insert(at, int);
                if ints.len() > INTSET_ENTRIES {
                    self.unpack();
                }
                return true;
            }
            self.unpack();
        }
        let Members::Table(table) = &mut self.members else { return false };
        let added = table.insert(own(member), ()).is_none();
        if added {
            self.bytes += member.len();
        }
        added
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.members {
            Members::Ints(ints) => {
                let at = parse_i64(member).and_then(|int| ints.binary_search(&int).ok());
                at.map(|at| ints.remove(at)).is_some()
            }
            Members::Table(table) => {
                let removed = table.remove(member).is_some();
                if removed {
                    self.bytes -= member.len();
                }
                removed
            }
        }
    }

    fn unpack(&mut self) {
        if let Members::Ints(ints) = &self.members {
            let mut table = Dict::default();
            for int in ints {
                let text = super::text::decimal(*int);
                self.bytes += text.len();
                table.insert(text, ());
            }
            self.members = Members::Table(table);
        }
    }

    /// Visits about `count` members; the next cursor. A set of integers comes whole, ascending.
    pub(super) fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(Bytes)) -> u64 {
        match &self.members {
            Members::Ints(ints) => {
                for int in ints {
                    visit(super::text::decimal(*int));
                }
                0
            }
            Members::Table(table) => table.scan(cursor, count, |member, ()| visit(member.clone())),
        }
    }
}

/// A score in the order in which sorted sets keep it. Never NaN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score(pub(super) f64);

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // Not total_cmp: -0 and 0 are the same score.
        self.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

/// A sorted set.
#[derive(Clone, Debug)]
pub(super) struct Zset {
    pub(super) scores: Dict<f64>,
    /// By score, then by member. The value is the score as it was given: the key takes -0 for 0.
    pub(super) order: BTreeMap<(Score, Bytes), f64>,
    packed: bool,
    bytes: usize,
}

impl Default for Zset {
    fn default() -> Self {
        Zset { scores: Dict::default(), order: BTreeMap::new(), packed: true, bytes: 0 }
    }
}

impl Zset {
    pub(super) fn insert(&mut self, member: &Bytes, score: f64) {
        let member = own(member);
        let entries = self.scores.len() + usize::from(!self.scores.contains(&member));
        if member.len() > LISTPACK_VALUE || entries > LISTPACK_ZSET_ENTRIES {
            self.packed = false;
        }
        // A listpack keeps whole scores as integers, which have no -0.
        let score = if self.packed && score == 0.0 { 0.0 } else { score };
        match self.scores.insert(member.clone(), score) {
            Some(old) => {
                self.order.remove(&(Score(old), member.clone()));
            }
            None => self.bytes += member.len(),
        }
        self.order.insert((Score(score), member), score);
    }

    pub(super) fn remove(&mut self, member: &Bytes) -> bool {
        let Some(score) = self.scores.remove(member) else { return false };
        self.order.remove(&(Score(score), member.clone()));
        self.bytes -= member.len();
        true
    }

    /// Whether it is short enough that `ZSCAN` gives it whole, in order.
    pub(super) fn is_packed(&self) -> bool {
        self.packed
    }
}

/// The number of a stream entry: milliseconds and a sequence within them.
pub(super) type StreamId = (u64, u64);

/// A stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    /// Fields and values, alternating.
    pub(super) entries: BTreeMap<StreamId, Vec<Bytes>>,
    pub(super) last: StreamId,
    pub(super) bytes: usize,
}
