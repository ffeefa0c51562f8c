//! Commands on sets.

use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::keyspace::ScanOptions;
use super::{Answer, count};
use crate::backend::redis::Reply;

pub(super) fn sadd(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let set = cx.set_or_new(&args[1])?;
    let mut added = 0;
    for member in &args[2..] {
        added += usize::from(set.insert(member));
    }
    if added > 0 {
        cx.modified(&args[1]);
    }
    Ok(count(added))
}

pub(super) fn srem(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let Some(set) = cx.set_mut(&args[1])? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for member in &args[2..] {
        removed += usize::from(set.remove(member));
    }
    let empty = set.len() == 0;
    if removed > 0 {
        cx.shrunk(&args[1], empty);
    }
    Ok(count(removed))
}

pub(super) fn scard(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.set(&args[1])?.map_or(0, |set| set.len())))
}

pub(super) fn sismember(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let there = cx.set(&args[1])?.is_some_and(|set| set.contains(&args[2]));
    Ok(Reply::Int(there.into()))
}

pub(super) fn smembers(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mut members = Vec::new();
    if let Some(set) = cx.set(&args[1])? {
        set.scan(0, usize::MAX, &mut |member| members.push(Reply::Bulk(member)));
    }
    Ok(Reply::Array(members))
}

pub(super) fn sscan(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let cursor = ScanOptions::cursor(&args[2])?;
    let Some(set) = cx.set(&args[1])? else { return Ok(ScanOptions::nothing()) };
    let options = ScanOptions::parse(&args[3..], false)?;
    let mut items = Vec::new();
    let next = set.scan(cursor, options.count, &mut |member| {
        if options.matches(&member) {
            items.push(Reply::Bulk(member));
        }
    });
    Ok(ScanOptions::page(next, items))
}
