//! Commands on strings.

use bytes::Bytes;

use super::cx::Cx;
use super::text::{decimal, parse_i64};
use super::value::{Text, Value};
use super::{Answer, NOT_AN_INTEGER, SYNTAX, command, count, fail, keyspace, status};
use crate::backend::redis::Reply;

pub(super) fn get(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(cx.text(&args[1])?.map_or(Reply::Nil, |text| Reply::Bulk(text.bytes.to_bytes())))
}

pub(super) fn getdel(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let value = get(cx, args)?;
    cx.delete(&args[1]);
    Ok(value)
}

/// `SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]`
pub(super) fn set(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (key, value) = (&args[1], &args[2]);
    let (mut nx, mut xx, mut want_old, mut keep) = (false, false, false, false);
    let mut expiry = None;
    let mut at = 3;
    while at < args.len() {
        let option = args[at].to_ascii_uppercase();
        match &option[..] {
            b"NX" if !xx => nx = true,
            b"XX" if !nx => xx = true,
            b"GET" => want_old = true,
            b"KEEPTTL" if expiry.is_none() => keep = true,
            b"EX" | b"PX" | b"EXAT" | b"PXAT"
                if expiry.is_none() && !keep && at + 1 < args.len() =>
            {
                let seconds = !option.starts_with(b"P");
                let relative = !option.ends_with(b"AT");
                expiry = Some((&args[at + 1], seconds, relative));
                at += 1;
            }
            _ => return Err(fail(SYNTAX)),
        }
        at += 1;
    }
    let expires = match expiry {
        None => None,
        Some((text, seconds, relative)) => {
            let n = parse_i64(text).ok_or_else(|| fail(NOT_AN_INTEGER))?;
            let invalid = || fail("ERR invalid expire time in 'set' command");
            if n <= 0 {
                return Err(invalid());
            }
            let base = if relative { cx.server.millis() } else { 0 };
            Some(keyspace::deadline(n, seconds, base).ok_or_else(invalid)?)
        }
    };
    let old = if want_old { Some(get(cx, args)?) } else { None };
    let found = cx.exists(key);
    if (nx && found) || (xx && !found) {
        return Ok(old.unwrap_or(Reply::Nil));
    }
    let kept = if keep { cx.get(key).and_then(|entry| entry.expires()) } else { None };
    cx.put(key, Value::Text(Text::new(value)), expires.or(kept));
    Ok(old.unwrap_or_else(|| status("OK")))
}

pub(super) fn setnx(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if cx.exists(&args[1]) {
        return Ok(Reply::Int(0));
    }
    cx.put(&args[1], Value::Text(Text::new(&args[2])), None);
    Ok(Reply::Int(1))
}

pub(super) fn mset(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if args.len().is_multiple_of(2) {
        return Err(command::arity("mset"));
    }
    for pair in args[1..].chunks_exact(2) {
        cx.put(&pair[0], Value::Text(Text::new(&pair[1])), None);
    }
    Ok(status("OK"))
}

pub(super) fn mget(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mut values = alloc::vec::Vec::with_capacity(args.len() - 1);
    for key in &args[1..] {
        // A value of another type is simply not a string.
        let text = cx.text(key).ok().flatten();
        values.push(text.map_or(Reply::Nil, |text| Reply::Bulk(text.bytes.to_bytes())));
    }
    Ok(Reply::Array(values))
}

pub(super) fn strlen(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.text(&args[1])?.map_or(0, |text| text.bytes.len())))
}

pub(super) fn getrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let start = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let end = parse_i64(&args[3]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let Some(text) = cx.text(&args[1])? else { return Ok(Reply::Bulk(Bytes::new())) };
    let range = range(start, end, text.bytes.len());
    Ok(Reply::Bulk(range.map_or_else(Bytes::new, |(from, to)| text.bytes.slice(from, to))))
}

/// The bytes that `GETRANGE start end` means of a string of this length, as from and to.
fn range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = i64::try_from(len).ok()?;
    let clip = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (clip(start), clip(end).min(len - 1));
    (start <= end).then(|| (start as usize, end as usize + 1))
}

pub(super) fn setrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (key, data) = (&args[1], &args[3]);
    let offset = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let offset = usize::try_from(offset).map_err(|_| fail("ERR offset is out of range"))?;
    let len = cx.text(key)?.map_or(0, |text| text.bytes.len());
    if data.is_empty() {
        return Ok(count(len));
    }
    fits(cx, offset, data.len())?;
    let bytes = cx.text_or_new(key)?.edit();
    bytes.write(offset, data);
    let len = bytes.len();
    cx.modified(key);
    Ok(count(len))
}

/// Whether a string of `len` and `more` bytes may be.
fn fits(cx: &Cx<'_>, len: usize, more: usize) -> Result<(), Reply> {
    let total = (len as u64).checked_add(more as u64);
    if total.is_some_and(|total| total <= cx.server.settings.proto_max_bulk_len) {
        return Ok(());
    }
    Err(fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

pub(super) fn append(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (key, data) = (&args[1], &args[2]);
    let Some(len) = cx.text(key)?.map(|text| text.bytes.len()) else {
        cx.put(key, Value::Text(Text::new(data)), None);
        return Ok(count(data.len()));
    };
    fits(cx, len, data.len())?;
    if let Some(text) = cx.text_mut(key)? {
        text.edit().edit().extend_from_slice(data);
    }
    cx.modified(key);
    Ok(count(len + data.len()))
}

pub(super) fn incr(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    add(cx, &args[1], 1)
}

pub(super) fn decr(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    add(cx, &args[1], -1)
}

pub(super) fn incrby(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let by = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    add(cx, &args[1], by)
}

pub(super) fn decrby(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let by = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let by = by.checked_neg().ok_or_else(|| fail("ERR decrement would overflow"))?;
    add(cx, &args[1], by)
}

fn add(cx: &mut Cx<'_>, key: &Bytes, by: i64) -> Answer {
    let value = match cx.text(key)? {
        None => 0,
        Some(text) => parse_i64(text.bytes.as_slice()).ok_or_else(|| fail(NOT_AN_INTEGER))?,
    };
    let sum = value.checked_add(by);
    let sum = sum.ok_or_else(|| fail("ERR increment or decrement would overflow"))?;
    let expires = cx.get(key).and_then(|entry| entry.expires());
    cx.put(key, Value::Text(Text::new(&decimal(sum))), expires);
    Ok(Reply::Int(sum))
}
