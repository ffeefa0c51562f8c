//! The twin of `place.lua`: where the value of a name can be, and the records of side hashes.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::text::parse_i64;
use super::super::value::Blob;
use super::{ScriptContext, malformed};
use crate::backend::redis::Reply;
use crate::keys::RESERVED;

/// The string key `full`, or the field `field` of the hash key `bare`.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) full: Option<Bytes>,
    pub(super) bare: Option<Bytes>,
    pub(super) field: Bytes,
}

/// What a place holds, or is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    String,
    Field,
    Collection,
}

impl Place {
    /// From two keys, of which the reserved prefix alone stands for none.
    pub(super) fn of_keys(keys: &[Bytes], field: Option<&Bytes>) -> Result<Place, Reply> {
        let [full, bare, ..] = keys else { return Err(malformed("two keys")) };
        let some = |key: &Bytes| (key != RESERVED).then(|| key.clone());
        let field = field.ok_or_else(|| malformed("a field"))?.clone();
        Ok(Place { full: some(full), bare: some(bare), field })
    }

    pub(super) fn full(&self) -> Result<&Bytes, Reply> {
        self.full.as_ref().ok_or_else(|| malformed("no full key"))
    }

    pub(super) fn bare(&self) -> Result<&Bytes, Reply> {
        self.bare.as_ref().ok_or_else(|| malformed("no bare key"))
    }
}

/// Reads the arguments one after the other; indexes among them point into the keys.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    pub(super) keys: &'a [Bytes],
    args: &'a [Bytes],
    at: usize,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(keys: &'a [Bytes], args: &'a [Bytes], at: usize) -> Self {
        Arguments { keys, args, at }
    }

    pub(super) fn peek(&self) -> Option<&'a Bytes> {
        self.args.get(self.at)
    }

    pub(super) fn arg(&mut self) -> Result<&'a Bytes, Reply> {
        let arg = self.peek().ok_or_else(|| malformed("too few arguments"))?;
        self.at += 1;
        Ok(arg)
    }

    pub(super) fn number(&mut self) -> Result<i64, Reply> {
        parse_i64(self.arg()?).ok_or_else(|| malformed("not a number"))
    }

    /// The key that the next argument points to; 0 points to none.
    pub(super) fn key(&mut self) -> Result<Option<&'a Bytes>, Reply> {
        let n = self.number()?;
        Ok(self.nth(n))
    }

    /// The key that the next argument points to, which must be one.
    pub(super) fn some_key(&mut self) -> Result<&'a Bytes, Reply> {
        self.key()?.ok_or_else(|| malformed("no such key"))
    }

    /// The nth key, counted from 1.
    pub(super) fn nth(&self, n: i64) -> Option<&'a Bytes> {
        self.keys.get(usize::try_from(n.checked_sub(1)?).ok()?)
    }

    pub(super) fn place(&mut self) -> Result<Place, Reply> {
        let (full, bare) = (self.key()?.cloned(), self.key()?.cloned());
        Ok(Place { full, bare, field: self.arg()?.clone() })
    }
}

impl ScriptContext<'_> {
    pub(super) fn typeof_key(&mut self, key: Option<&Bytes>) -> &'static str {
        key.and_then(|key| self.cx.get(key)).map_or("none", |entry| entry.value.kind())
    }

    /// What a place holds, and the type of the key it is in.
    pub(super) fn resolve(&mut self, place: &Place) -> (Option<What>, &'static str) {
        let full = self.typeof_key(place.full.as_ref());
        match full {
            "string" => return (Some(What::String), full),
            "none" | "hash" => {}
            _ => return (Some(What::Collection), full),
        }
        if let Some(bare) = &place.bare {
            let field = self.cx.hash(bare).ok().flatten().and_then(|hash| hash.get(&place.field));
            if field.is_some() {
                return (Some(What::Field), "hash");
            }
        }
        (None, full)
    }

    /// Where a new value goes: not at all when there is no room.
    pub(super) fn room(&mut self, place: &Place, wish: &[u8]) -> Option<What> {
        let full = self.typeof_key(place.full.as_ref());
        let string_fits = place.full.is_some() && full == "none";
        let string = string_fits.then_some(What::String);
        let Some(bare) = &place.bare else { return string };
        let bare = self.typeof_key(Some(bare));
        let field = matches!(bare, "none" | "hash").then_some(What::Field);
        if wish == b"s" { string.or(field) } else { field.or(string) }
    }

    /// The value of a place, which must be there.
    pub(super) fn value_of(&mut self, place: &Place, what: What) -> Result<Bytes, Reply> {
        let reply = if what == What::String {
            self.redis("GET", &[place.full()?])?
        } else {
            self.redis("HGET", &[place.bare()?, &place.field])?
        };
        match reply {
            Reply::Bulk(value) => Ok(value),
            _ => Err(malformed("no value")),
        }
    }

    /// Puts a value; whatever is no string is a field.
    pub(super) fn put_value(
        &mut self,
        place: &Place,
        what: Option<What>,
        value: &Bytes,
    ) -> Result<(), Reply> {
        if what == Some(What::String) {
            self.redis("SET", &[place.full()?, value, &Bytes::from_static(b"KEEPTTL")])?;
        } else {
            self.redis("HSET", &[place.bare()?, &place.field, value])?;
        }
        Ok(())
    }

    /// Refuses a size that Lua could not make either: its strings end where memory does.
    pub(super) fn within_reach(&self, size: usize) -> Result<(), Reply> {
        let fits = size as u64 <= self.cx.server.settings.proto_max_bulk_len;
        if fits { Ok(()) } else { Err(malformed("not enough memory")) }
    }

    /// Edits a field that is there, in place; what fetching, changing and setting it comes to.
    pub(super) fn edit_field(
        &mut self,
        place: &Place,
        change: impl FnOnce(&mut Blob),
    ) -> Result<usize, Reply> {
        let key = place.bare()?;
        let hash = self.cx.hash_mut(key)?;
        let hash = hash.filter(|hash| hash.get(&place.field).is_some());
        let hash = hash.ok_or_else(|| malformed("no such field"))?;
        let mut size = 0;
        hash.update(&place.field, |value| {
            change(value);
            size = value.len();
        });
        self.dirty = true;
        self.cx.modified(key);
        Ok(size)
    }

    /// How many symlinks and special files a side hash holds.
    pub(super) fn inhabitants(&mut self, side: &Bytes) -> Result<usize, Reply> {
        let mut found = 0;
        if let Some(side) = self.cx.hash(side)? {
            side.each(|name, record| {
                let own = &name[..] == b"/" || &name[..] == b"/v";
                found += usize::from(!own && record.as_slice().first() != Some(&b'f'));
            });
        }
        Ok(found)
    }

    /// Counts a change of a side hash; one that holds nothing else goes.
    pub(super) fn bump(&mut self, side: &Bytes, first: Option<&Bytes>) -> Result<i64, Reply> {
        let (version, one) = (Bytes::from_static(b"/v"), Bytes::from_static(b"1"));
        let version = self.number("HINCRBY", &[side, &version, &one])?;
        if self.number("HLEN", &[side])? == 1 {
            self.redis("DEL", &[side])?;
            return Ok(0);
        }
        match first {
            Some(first) if version == 1 => {
                let first_version = parse_i64(first).ok_or_else(|| malformed("not a number"))?;
                self.redis("HSET", &[side, &Bytes::from_static(b"/v"), first])?;
                Ok(first_version)
            }
            _ => Ok(version),
        }
    }
}

/// Replaces the numbered fields (from 1 to 8) of a record.
pub(super) fn patch(record: &Bytes, changes: &[(i64, Bytes)]) -> Result<Bytes, Reply> {
    const FIELDS: i64 = 8;
    let is_symlink = record.first() == Some(&b'l');
    let mut tail = Some(&record[..]);
    let mut text: Vec<u8> = Vec::with_capacity(record.len() + 32);
    for n in 1..=FIELDS {
        let rest = tail.ok_or_else(|| malformed("a short record"))?;
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
        let end = rest.iter().position(blank).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        tail = (end > 0).then(|| after.strip_prefix(b" ").unwrap_or(after));
        // The last of the same number wins, as in a table.
        let change = changes.iter().rfind(|(number, _)| *number == n);
        let word = change.map_or((end > 0).then_some(word), |(_, change)| Some(&change[..]));
        if let Some(word) = word {
            if n > 1 {
                text.push(b' ');
            }
            text.extend_from_slice(word);
        }
    }
    if is_symlink {
        text.push(b' ');
        text.extend_from_slice(tail.ok_or_else(|| malformed("a short record"))?);
    }
    Ok(text.into())
}
