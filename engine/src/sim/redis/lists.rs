//! Commands on lists.

use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::text::parse_i64;
use super::{Answer, NOT_AN_INTEGER, command, count, fail, own, status};
use crate::backend::redis::Reply;

pub(super) fn llen(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.list(&args[1])?.map_or(0, |list| list.items.len())))
}

/// The elements that `start stop` mean of `len` ones, as from and to.
pub(super) fn index_range(start: i64, stop: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).ok()?;
    let start = if start < 0 { start.saturating_add(len).max(0) } else { start };
    let stop = if stop < 0 { stop.saturating_add(len) } else { stop };
    if start > stop || start >= len {
        return None;
    }
    Some((start as usize, stop.min(len - 1) as usize + 1))
}

pub(super) fn lrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let start = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let stop = parse_i64(&args[3]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let Some(list) = cx.list(&args[1])? else { return Ok(Reply::Array(Vec::new())) };
    let range = index_range(start, stop, list.items.len());
    let (from, to) = range.unwrap_or((0, 0));
    Ok(Reply::Array(list.items.range(from..to).cloned().map(Reply::Bulk).collect()))
}

/// Where an index points, counted from the end when negative.
fn position(index: i64, len: usize) -> Option<usize> {
    let from_start = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(from_start).ok().filter(|at| *at < len)
}

pub(super) fn lindex(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let Some(list) = cx.list(&args[1])? else { return Ok(Reply::Nil) };
    let index = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let at = position(index, list.items.len());
    Ok(at.and_then(|at| list.items.get(at)).cloned().map_or(Reply::Nil, Reply::Bulk))
}

pub(super) fn lset(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let Some(list) = cx.list_mut(&args[1])? else { return Err(fail("ERR no such key")) };
    let index = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let slot = position(index, list.items.len()).and_then(|at| list.items.get_mut(at));
    let Some(slot) = slot else { return Err(fail("ERR index out of range")) };
    let old = core::mem::replace(slot, own(&args[3]));
    list.bytes = list.bytes - old.len() + args[3].len();
    cx.modified(&args[1]);
    Ok(status("OK"))
}

fn push(cx: &mut Cx<'_>, args: &[Bytes], front: bool, only_existing: bool) -> Answer {
    if only_existing && cx.list(&args[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let list = cx.list_or_new(&args[1])?;
    for item in &args[2..] {
        list.bytes += item.len();
        if front {
            list.items.push_front(own(item));
        } else {
            list.items.push_back(own(item));
        }
    }
    let len = list.items.len();
    cx.modified(&args[1]);
    Ok(count(len))
}

pub(super) fn lpush(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    push(cx, args, true, false)
}

pub(super) fn rpush(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    push(cx, args, false, false)
}

pub(super) fn lpushx(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    push(cx, args, true, true)
}

pub(super) fn rpushx(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    push(cx, args, false, true)
}

fn pop(cx: &mut Cx<'_>, args: &[Bytes], name: &str, front: bool) -> Answer {
    let wanted = match args {
        [_, _] => None,
        [_, _, n] => {
            let n = parse_i64(n).and_then(|n| usize::try_from(n).ok());
            Some(n.ok_or_else(|| fail("ERR value is out of range, must be positive"))?)
        }
        _ => return Err(command::arity(name)),
    };
    let Some(list) = cx.list_mut(&args[1])? else { return Ok(Reply::Nil) };
    let mut popped = Vec::new();
    for _ in 0..wanted.unwrap_or(1).min(list.items.len()) {
        let item = if front { list.items.pop_front() } else { list.items.pop_back() };
        let Some(item) = item else { break };
        list.bytes -= item.len();
        popped.push(Reply::Bulk(item));
    }
    let empty = list.items.is_empty();
    if !popped.is_empty() {
        cx.shrunk(&args[1], empty);
    }
    Ok(match wanted {
        Some(_) => Reply::Array(popped),
        None => popped.pop().unwrap_or(Reply::Nil),
    })
}

pub(super) fn lpop(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    pop(cx, args, "lpop", true)
}

pub(super) fn rpop(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    pop(cx, args, "rpop", false)
}
