//! Commands on hashes.

use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::keyspace::ScanOptions;
use super::text::{decimal, parse_i64};
use super::value::Blob;
use super::{Answer, NOT_AN_INTEGER, command, count, fail, status};
use crate::backend::redis::Reply;

fn bulk(value: Option<&Blob>) -> Reply {
    value.map_or(Reply::Nil, |value| Reply::Bulk(value.to_bytes()))
}

pub(super) fn hget(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(bulk(cx.hash(&args[1])?.and_then(|hash| hash.get(&args[2]))))
}

pub(super) fn hmget(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let hash = cx.hash(&args[1])?;
    let values = args[2..].iter().map(|field| bulk(hash.and_then(|hash| hash.get(field))));
    Ok(Reply::Array(values.collect()))
}

pub(super) fn hexists(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let there = cx.hash(&args[1])?.is_some_and(|hash| hash.get(&args[2]).is_some());
    Ok(Reply::Int(there.into()))
}

pub(super) fn hlen(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.hash(&args[1])?.map_or(0, |hash| hash.len())))
}

pub(super) fn hstrlen(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let value = cx.hash(&args[1])?.and_then(|hash| hash.get(&args[2]));
    Ok(count(value.map_or(0, Blob::len)))
}

pub(super) fn hset(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    set_fields(cx, args, "hset").map(count)
}

pub(super) fn hmset(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    set_fields(cx, args, "hmset").map(|_| status("OK"))
}

fn set_fields(cx: &mut Cx<'_>, args: &[Bytes], name: &str) -> Result<usize, Reply> {
    if args.len() % 2 == 1 {
        return Err(command::arity(name));
    }
    let hash = cx.hash_or_new(&args[1])?;
    hash.fit(&args[2..]);
    let mut added = 0;
    for pair in args[2..].chunks_exact(2) {
        added += usize::from(hash.set(&pair[0], &pair[1]));
    }
    cx.modified(&args[1]);
    Ok(added)
}

pub(super) fn hsetnx(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let hash = cx.hash_or_new(&args[1])?;
    if hash.get(&args[2]).is_some() {
        return Ok(Reply::Int(0));
    }
    hash.fit(&args[2..]);
    hash.set(&args[2], &args[3]);
    cx.modified(&args[1]);
    Ok(Reply::Int(1))
}

pub(super) fn hdel(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let Some(hash) = cx.hash_mut(&args[1])? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for field in &args[2..] {
        removed += usize::from(hash.remove(field));
    }
    let empty = hash.len() == 0;
    if removed > 0 {
        cx.shrunk(&args[1], empty);
    }
    Ok(count(removed))
}

fn listing(cx: &mut Cx<'_>, key: &[u8], fields: bool, values: bool) -> Answer {
    let mut items = Vec::new();
    if let Some(hash) = cx.hash(key)? {
        items.reserve(hash.len() * (usize::from(fields) + usize::from(values)));
        hash.each(|field, value| {
            if fields {
                items.push(Reply::Bulk(field.clone()));
            }
            if values {
                items.push(Reply::Bulk(value.to_bytes()));
            }
        });
    }
    Ok(Reply::Array(items))
}

pub(super) fn hkeys(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    listing(cx, &args[1], true, false)
}

pub(super) fn hvals(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    listing(cx, &args[1], false, true)
}

pub(super) fn hgetall(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    listing(cx, &args[1], true, true)
}

pub(super) fn hincrby(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let by = parse_i64(&args[3]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let hash = cx.hash(&args[1])?;
    let value = match hash.and_then(|hash| hash.get(&args[2])) {
        None => 0,
        Some(value) => {
            parse_i64(value.as_slice()).ok_or_else(|| fail("ERR hash value is not an integer"))?
        }
    };
    let sum = value.checked_add(by);
    let sum = sum.ok_or_else(|| fail("ERR increment or decrement would overflow"))?;
    cx.hash_or_new(&args[1])?.set(&args[2], &decimal(sum));
    cx.modified(&args[1]);
    Ok(Reply::Int(sum))
}

pub(super) fn hscan(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let cursor = ScanOptions::cursor(&args[2])?;
    let Some(hash) = cx.hash(&args[1])? else { return Ok(ScanOptions::nothing()) };
    let options = ScanOptions::parse(&args[3..], false)?;
    let mut items = Vec::new();
    let next = hash.scan(cursor, options.count, &mut |field, value| {
        if options.matches(field) {
            items.push(Reply::Bulk(field.clone()));
            items.push(Reply::Bulk(value.to_bytes()));
        }
    });
    Ok(ScanOptions::page(next, items))
}
