//! The twin of `write.lua`: writes ranges of a value.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use super::super::count;
use super::super::text::parse_i64;
use super::super::value::Blob;
use super::place::{Place, What, patch};
use super::{ScriptContext, malformed, text};
use crate::backend::redis::Reply;

/// `write.lua`
pub(super) fn write(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let place = Place::of_keys(keys, args.first())?;
    let side = keys.get(2).ok_or_else(|| malformed("three keys"))?;
    let [_, name, mode, wish, mtime, limit, extents @ ..] = args else {
        return Err(malformed("too few arguments"));
    };
    let what = s.resolve(&place).0;
    if what == Some(What::Collection) {
        return Ok(alone("collection"));
    }
    let limit = parse_i64(limit).ok_or_else(|| malformed("not a number"))?;
    let mut ranges = Vec::with_capacity(extents.len() / 2);
    for pair in extents.chunks(2) {
        let [offset, data] = pair else { return Err(malformed("an odd range")) };
        let at = parse_i64(offset).ok_or_else(|| malformed("not a number"))?;
        let end = at.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
        if end > limit {
            return Ok(alone("big"));
        }
        let at = usize::try_from(at).map_err(|_| malformed("a negative offset"))?;
        ranges.push((offset, at, data));
    }
    // A string's own command checks for itself.
    let longest = ranges.iter().map(|(_, at, data)| at.saturating_add(data.len())).max();
    let size = if &mode[..] == b"r" {
        s.within_reach(longest.unwrap_or(0))?;
        let Some(what) = what.or_else(|| s.room(&place, wish)) else {
            return Ok(alone("collection"));
        };
        let value = match ranges[..] {
            [] => Bytes::new(),
            [(_, 0, data)] => data.clone(),
            _ => {
                let mut value = Blob::Growing(BytesMut::new());
                for (_, at, data) in ranges {
                    value.write(at, data);
                }
                value.to_bytes()
            }
        };
        s.put_value(&place, Some(what), &value)?;
        count(value.len())
    } else {
        match what {
            None => return Ok(alone("gone")),
            Some(What::String) => {
                let full = place.full()?;
                let mut size = s.redis("STRLEN", &[full])?;
                for (offset, _, data) in ranges {
                    size = s.redis("SETRANGE", &[full, offset, data])?;
                }
                size
            }
            Some(_) => {
                s.within_reach(longest.unwrap_or(0))?;
                let size = s.edit_field(&place, |value| {
                    for (_, at, data) in ranges {
                        value.write(at, data);
                    }
                })?;
                count(size)
            }
        }
    };
    let mut version = -1;
    if !side.is_empty()
        && let Reply::Bulk(record) = s.redis("HGET", &[side, name])?
    {
        let record = patch(&record, &[(6, mtime.clone()), (7, mtime.clone())])?;
        s.redis("HSET", &[side, name, &record])?;
        version = s.bump(side)?;
    }
    Ok(Reply::Array([text("ok"), size, Reply::Int(version)].into()))
}

/// An answer of one word.
fn alone(word: &'static str) -> Reply {
    Reply::Array([text(word)].into())
}
