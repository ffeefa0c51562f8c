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
    let (size, what) = if &mode[..] == b"r" {
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
        (count(value.len()), what)
    } else {
        match what {
            None => return Ok(alone("gone")),
            Some(What::String) => {
                let full = place.full()?;
                let mut size = s.redis("STRLEN", &[full])?;
                for (offset, _, data) in ranges {
                    size = s.redis("SETRANGE", &[full, offset, data])?;
                }
                (size, What::String)
            }
            Some(what) => {
                s.within_reach(longest.unwrap_or(0))?;
                let size = s.edit_field(&place, |value| {
                    for (_, at, data) in ranges {
                        value.write(at, data);
                    }
                })?;
                (count(size), what)
            }
        }
    };
    let version = mark_written(s, side, name, mtime)?;
    Ok(Reply::Array([text("ok"), size, Reply::Int(version), letter(what)].into()))
}

/// `stage.lua`
pub(super) fn stage(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let [stage, place @ ..] = keys else { return Err(malformed("three keys")) };
    let place = Place::of_keys(place, args.first())?;
    let [_, keep, length, ms] = args else { return Err(malformed("four arguments")) };
    let px = Bytes::from_static(b"PX");
    if &keep[..] == b"0" {
        s.redis("SET", &[stage, &Bytes::new(), &px, ms])?;
        return Ok(text("ok"));
    }
    let why = Bytes::from_static(b"why");
    match s.typeof_key(Some(stage)) {
        "none" => {}
        "hash" => return s.redis("HGET", &[stage, &why]),
        _ => {
            s.redis("PEXPIRE", &[stage, ms])?;
            return Ok(text("ok"));
        }
    }
    let refuse = |s: &mut ScriptContext<'_>, word: &'static str| {
        s.redis("HSET", &[stage, &why, &Bytes::from_static(word.as_bytes())])?;
        s.redis("PEXPIRE", &[stage, ms])?;
        Ok(text(word))
    };
    let Some(what) = s.resolve(&place).0.filter(|it| *it != What::Collection) else {
        return refuse(s, "gone");
    };
    let value = s.value_of(&place, what)?;
    let length = parse_i64(length).ok_or_else(|| malformed("not a number"))?;
    if i64::try_from(value.len()).unwrap_or(i64::MAX) < length {
        return refuse(s, "lost");
    }
    s.redis("SET", &[stage, &value, &px, ms])?;
    Ok(text("ok"))
}

/// `publish.lua`
pub(super) fn publish(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let [stage, place @ .., side] = keys else { return Err(malformed("four keys")) };
    let place = Place::of_keys(place, args.first())?;
    let [_, name, wish, mtime] = args else { return Err(malformed("four arguments")) };
    if s.typeof_key(Some(stage)) != "string" {
        return Ok(alone("lost"));
    }
    let Reply::Bulk(value) = s.redis("GET", &[stage])? else { return Ok(alone("lost")) };
    let what = s.resolve(&place).0.or_else(|| s.room(&place, wish));
    let Some(what) = what.filter(|what| *what != What::Collection) else {
        return Ok(alone("collection"));
    };
    s.put_value(&place, Some(what), &value)?;
    s.redis("DEL", &[stage])?;
    let version = mark_written(s, side, name, mtime)?;
    Ok(Reply::Array([text("ok"), count(value.len()), Reply::Int(version), letter(what)].into()))
}

/// `unmake.lua`
pub(super) fn unmake(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let key = keys.first().ok_or_else(|| malformed("no key"))?;
    let number = |n: usize| args.get(n).and_then(|arg| parse_i64(arg));
    let (Some(first), Some(last)) = (number(0), number(1)) else {
        return Err(malformed("not a number"));
    };
    if s.typeof_key(Some(key)) != "string" || s.number("STRLEN", &[key])? != last {
        return Ok(Reply::Int(0));
    }
    if first > 0 {
        let end = super::super::text::decimal(first.min(4096) - 1);
        let head = s.redis("GETRANGE", &[key, &Bytes::from_static(b"0"), &end])?;
        if head.as_bytes().is_some_and(|head| head.iter().any(|byte| *byte != 0)) {
            return Ok(Reply::Int(0));
        }
    }
    s.redis("DEL", &[key])
}

/// The times of a file that was written, if it has a record; the version of the side hash.
fn mark_written(
    s: &mut ScriptContext<'_>,
    side: &Bytes,
    name: &Bytes,
    mtime: &Bytes,
) -> Result<i64, Reply> {
    if side.is_empty() {
        return Ok(-1);
    }
    let Reply::Bulk(record) = s.redis("HGET", &[side, name])? else { return Ok(-1) };
    // Lua compares as floating point.
    let number = |text: &[u8]| core::str::from_utf8(text).ok()?.parse::<f64>().ok();
    let changed = record.split(|byte| *byte == b' ').nth(6).and_then(number).unwrap_or(0.0);
    let at = number(mtime).ok_or_else(|| malformed("not a number"))?;
    let ctime = (changed < at).then(|| (7, mtime.clone()));
    let times: Vec<(i64, Bytes)> = core::iter::once((6, mtime.clone())).chain(ctime).collect();
    let record = patch(&record, &times)?;
    s.redis("HSET", &[side, name, &record])?;
    s.bump(side, None)
}

/// How the scripts call what a value is.
fn letter(what: What) -> Reply {
    text(if what == What::String { "s" } else { "f" })
}

/// An answer of one word.
fn alone(word: &'static str) -> Reply {
    Reply::Array([text(word)].into())
}
