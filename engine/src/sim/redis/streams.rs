//! Commands on streams. No consumer groups, no trimming.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::text::parse_i64;
use super::value::StreamId;
use super::{Answer, NOT_AN_INTEGER, SYNTAX, command, count, fail, own};
use crate::backend::redis::Reply;

const BAD_ID: &str = "ERR Invalid stream ID specified as stream command argument";

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// An id whose sequence may be missing (`None`) or, when `auto`, a star (`None` too).
fn parse_id(text: &[u8], auto: bool) -> Option<(u64, Option<u64>)> {
    match text.iter().position(|byte| *byte == b'-') {
        None => Some((number(text)?, None)),
        Some(dash) => {
            let (millis, sequence) = (number(&text[..dash])?, &text[dash + 1..]);
            if auto && sequence == b"*" {
                return Some((millis, None));
            }
            Some((millis, Some(number(sequence)?)))
        }
    }
}

fn show(id: StreamId) -> Reply {
    Reply::Bulk(format!("{}-{}", id.0, id.1).into())
}

/// `XADD key id field value …`; the id may be `*` or `ms-*`.
pub(super) fn xadd(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (key, text) = (&args[1], &args[2]);
    let millis = u64::try_from(cx.server.millis()).unwrap_or(0);
    let wanted = if text == "*" {
        None
    } else {
        let (ms, sequence) = parse_id(text, true).ok_or_else(|| fail(BAD_ID))?;
        // A bare number means sequence 0; only `ms-*` leaves it open.
        let open = text.ends_with(b"*");
        Some((ms, if open { None } else { Some(sequence.unwrap_or(0)) }))
    };
    if args.len().is_multiple_of(2) {
        return Err(command::arity("xadd"));
    }
    if wanted == Some((0, Some(0))) {
        return Err(fail("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let last = cx.stream(key)?.map_or((0, 0), |stream| stream.last);
    if last == (u64::MAX, u64::MAX) {
        return Err(fail(
            "ERR The stream has exhausted the last possible ID, unable to add more items",
        ));
    }
    let next = |id: StreamId| match id.1.checked_add(1) {
        Some(sequence) => Some((id.0, sequence)),
        None => Some((id.0.checked_add(1)?, 0)),
    };
    let id = match wanted {
        None if millis > last.0 => Some((millis, 0)),
        None => next(last),
        Some((ms, Some(sequence))) => Some((ms, sequence)),
        Some((ms, None)) if ms == last.0 => last.1.checked_add(1).map(|sequence| (ms, sequence)),
        Some((ms, None)) => Some((ms, 0)),
    };
    let id = id.filter(|id| *id > last).ok_or_else(|| {
        fail("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    })?;
    let stream = cx.stream_or_new(key)?;
    let fields: Vec<Bytes> = args[3..].iter().map(own).collect();
    stream.bytes += fields.iter().map(Bytes::len).sum::<usize>();
    stream.entries.insert(id, fields);
    stream.last = id;
    cx.modified(key);
    Ok(show(id))
}

pub(super) fn xlen(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.stream(&args[1])?.map_or(0, |stream| stream.entries.len())))
}

pub(super) fn xdel(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if cx.stream(&args[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let ids = args[2..].iter().map(|text| parse_id(text, false));
    let ids: Option<Vec<_>> = ids.collect();
    let ids = ids.ok_or_else(|| fail(BAD_ID))?;
    let Some(stream) = cx.stream_mut(&args[1])? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for (ms, sequence) in ids {
        if let Some(fields) = stream.entries.remove(&(ms, sequence.unwrap_or(0))) {
            stream.bytes -= fields.iter().map(Bytes::len).sum::<usize>();
            removed += 1;
        }
    }
    if removed > 0 {
        cx.modified(&args[1]);
    }
    Ok(count(removed))
}

/// One end of an interval: `-`, `+`, an id, or `(` before an id to leave it out.
fn parse_bound(text: &[u8], upper: bool) -> Result<StreamId, Reply> {
    let exclusive = text.len() > 1 && text[0] == b'(';
    let text = if exclusive { &text[1..] } else { text };
    let id = match text {
        b"-" if !exclusive => (0, 0),
        b"+" if !exclusive => (u64::MAX, u64::MAX),
        _ => {
            let (ms, sequence) = parse_id(text, false).ok_or_else(|| fail(BAD_ID))?;
            (ms, sequence.unwrap_or(if upper { u64::MAX } else { 0 }))
        }
    };
    if !exclusive {
        return Ok(id);
    }
    let flat = (u128::from(id.0) << 64) | u128::from(id.1);
    let flat = if upper { flat.checked_sub(1) } else { flat.checked_add(1) };
    let flat = flat.ok_or_else(|| {
        let which = if upper { "end" } else { "start" };
        Reply::Error(format!("ERR invalid {which} ID for the interval"))
    })?;
    Ok(((flat >> 64) as u64, flat as u64))
}

pub(super) fn xrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let start = parse_bound(&args[2], false)?;
    let end = parse_bound(&args[3], true)?;
    between(cx, args, start, end, false)
}

pub(super) fn xrevrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let start = parse_bound(&args[3], false)?;
    let end = parse_bound(&args[2], true)?;
    between(cx, args, start, end, true)
}

fn between(
    cx: &mut Cx<'_>,
    args: &[Bytes],
    start: StreamId,
    end: StreamId,
    reverse: bool,
) -> Answer {
    let mut most = None;
    for pair in args[4..].chunks(2) {
        match pair {
            [name, n] if name.eq_ignore_ascii_case(b"count") => {
                let n = parse_i64(n).ok_or_else(|| fail(NOT_AN_INTEGER))?;
                most = Some(usize::try_from(n).unwrap_or(0));
            }
            _ => return Err(fail(SYNTAX)),
        }
    }
    let Some(stream) = cx.stream(&args[1])? else { return Ok(Reply::Array(Vec::new())) };
    if most == Some(0) {
        return Ok(Reply::Nil);
    }
    if start > end {
        return Ok(Reply::Array(Vec::new()));
    }
    let entry = |(id, fields): (&StreamId, &Vec<Bytes>)| {
        let fields = fields.iter().cloned().map(Reply::Bulk).collect();
        Reply::Array([show(*id), Reply::Array(fields)].into())
    };
    let (range, most) = (stream.entries.range(start..=end), most.unwrap_or(usize::MAX));
    Ok(Reply::Array(if reverse {
        range.rev().take(most).map(entry).collect()
    } else {
        range.take(most).map(entry).collect()
    }))
}
