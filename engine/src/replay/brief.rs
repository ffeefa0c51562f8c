//! Bytes in outputs: short ones as they are, long ones by length and digest. An output is there to
//! be compared, and its contents came in with an input of the same log.

use bytes::Bytes;
use serde::ser::{SerializeMap, SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use twox_hash::xxhash3_64::Hasher;

use crate::backend::mongo;
use crate::backend::redis;

/// Longer bytes are told by their digest.
pub(crate) const LONGEST: usize = 1024;

/// Of `serde(serialize_with)` for fields of outputs.
pub(crate) fn bytes<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    Brief::new(core::slice::from_ref(bytes)).serialize(to)
}

/// Some bytes in pieces; how they are cut does not show.
enum Brief {
    Whole(Bytes),
    Digest { len: u64, xxh3: u64 },
}

impl Brief {
    fn new(parts: &[Bytes]) -> Brief {
        let len: usize = parts.iter().map(Bytes::len).sum();
        if len <= LONGEST {
            return match parts {
                [one] => Brief::Whole(one.clone()),
                many => Brief::Whole(Bytes::from(many.concat())),
            };
        }
        let mut hasher = Hasher::new();
        for part in parts {
            core::hash::Hasher::write(&mut hasher, part);
        }
        Brief::Digest { len: len as u64, xxh3: core::hash::Hasher::finish(&hasher) }
    }
}

impl Serialize for Brief {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Brief::Whole(bytes) => to.serialize_bytes(bytes),
            Brief::Digest { len, xxh3 } => {
                let mut map = to.serialize_struct("Digest", 2)?;
                map.serialize_field("len", len)?;
                map.serialize_field("xxh3", xxh3)?;
                map.end()
            }
        }
    }
}

/// The arguments of a command.
struct Args<'a>(&'a [Bytes]);

impl Serialize for Args<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.0.len()))?;
        for arg in self.0 {
            seq.serialize_element(&Brief::new(core::slice::from_ref(arg)))?;
        }
        seq.end()
    }
}

/// A plain command is the list of its arguments; a script is told by its name.
impl Serialize for redis::Command {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            redis::Command::Plain(args) => Args(args).serialize(to),
            redis::Command::Script { script, keys, args } => {
                let mut map = to.serialize_map(Some(3))?;
                map.serialize_entry("script", script.name)?;
                map.serialize_entry("keys", &Args(keys))?;
                map.serialize_entry("args", &Args(args))?;
                map.end()
            }
        }
    }
}

impl Serialize for mongo::Command {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match self.document() {
            Ok(doc) => map.serialize_entry("body", &Brief::new(&[doc.as_bytes().clone()]))?,
            Err(mistake) => map.serialize_entry("mistake", &alloc::format!("{mistake:?}"))?,
        }
        for sequence in &self.sequences {
            let docs: alloc::vec::Vec<Brief> =
                sequence.docs.iter().map(|doc| Brief::new(doc.parts())).collect();
            map.serialize_entry(&*sequence.name, &docs)?;
        }
        map.serialize_entry("concern", &self.concern)?;
        map.serialize_entry("expect", &self.expect)?;
        map.serialize_entry("retryable", &self.retryable)?;
        map.end()
    }
}
