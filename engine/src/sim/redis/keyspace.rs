//! Commands on keys of any type: existence, expiry, renames, scans.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::db::Db;
use super::text::{c_text, glob, parse_cursor, parse_i64};
use super::{Answer, NOT_AN_INTEGER, SYNTAX, count, fail, status};
use crate::backend::redis::Reply;

/// The number of a database there is.
fn db_index(cx: &Cx<'_>, text: &[u8]) -> Result<usize, Reply> {
    let n = parse_i64(text).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    if i32::try_from(n).is_err() {
        return Err(fail(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    let n = usize::try_from(n).ok().filter(|n| *n < cx.server.databases.len());
    n.ok_or_else(|| fail("ERR DB index is out of range"))
}

pub(super) fn select(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let index = db_index(cx, &args[1])?;
    let client = cx.client;
    // A script has a selection of its own, which ends with it.
    if cx.writer.is_some() {
        cx.server.client(client).db = index;
    }
    cx.db = index;
    Ok(status("OK"))
}

pub(super) fn dbsize(cx: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    Ok(count(cx.database().keys.len()))
}

fn flush_mode(args: &[Bytes]) -> Result<(), Reply> {
    match args {
        [_] => Ok(()),
        [_, mode] if mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async") => {
            Ok(())
        }
        _ => Err(fail(SYNTAX)),
    }
}

pub(super) fn flushdb(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    flush_mode(args)?;
    *cx.database() = Db::default();
    cx.server.version += 1;
    cx.server.invalidate_all();
    Ok(status("OK"))
}

pub(super) fn flushall(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    flush_mode(args)?;
    cx.server.databases.fill(Db::default());
    cx.server.version += 1;
    cx.server.invalidate_all();
    Ok(status("OK"))
}

pub(super) fn exists(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(args[1..].iter().filter(|key| cx.exists(key)).count()))
}

pub(super) fn del(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(args[1..].iter().filter(|key| cx.delete(key)).count()))
}

pub(super) fn kind(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(status(cx.get(&args[1]).map_or("none", |entry| entry.value.kind())))
}

pub(super) fn object_encoding(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let encoding = cx.get(&args[2]).map(|entry| entry.value.encoding());
    Ok(encoding.map_or(Reply::Nil, |name| Reply::Bulk(Bytes::from_static(name.as_bytes()))))
}

pub(super) fn rename(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if !cx.exists(&args[1]) {
        return Err(fail("ERR no such key"));
    }
    if args[1] != args[2] {
        move_key(cx, &args[1], &args[2]);
    }
    Ok(status("OK"))
}

pub(super) fn renamenx(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if !cx.exists(&args[1]) {
        return Err(fail("ERR no such key"));
    }
    if cx.exists(&args[2]) {
        return Ok(Reply::Int(0));
    }
    move_key(cx, &args[1], &args[2]);
    Ok(Reply::Int(1))
}

fn move_key(cx: &mut Cx<'_>, from: &Bytes, to: &Bytes) {
    // A target that has expired is gone before it is replaced, and counts as expired.
    cx.exists(to);
    if let Some(entry) = cx.database().remove(from) {
        let expires = entry.expires();
        cx.signal(from);
        cx.put(to, entry.value, expires);
    }
}

/// `COPY from to [DB n] [REPLACE]`
pub(super) fn copy(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (from, to, here) = (&args[1], &args[2], cx.db);
    let (mut target, mut replace, mut at) = (here, false, 3);
    while at < args.len() {
        if args[at].eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if args[at].eq_ignore_ascii_case(b"db") && at + 1 < args.len() {
            target = db_index(cx, &args[at + 1])?;
            at += 1;
        } else {
            return Err(fail(SYNTAX));
        }
        at += 1;
    }
    if target == here && from == to {
        return Err(fail("ERR source and destination objects are the same"));
    }
    let Some(entry) = cx.get(from) else { return Ok(Reply::Int(0)) };
    let (value, expires) = (entry.value.clone(), entry.expires());
    cx.db = target;
    let copied = replace || !cx.exists(to);
    if copied {
        cx.put(to, value, expires);
    }
    cx.db = here;
    Ok(Reply::Int(copied.into()))
}

/// The moment `n` (milli)seconds after `base`, in milliseconds, if there is one.
pub(super) fn deadline(n: i64, seconds: bool, base: i64) -> Option<i64> {
    let n = if seconds { n.checked_mul(1000)? } else { n };
    n.checked_add(base)
}

/// `EXPIRE key n [NX|XX|GT|LT]` in all its units.
fn set_expiry(cx: &mut Cx<'_>, args: &[Bytes], name: &str, seconds: bool, base: i64) -> Answer {
    let key = &args[1];
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for option in &args[3..] {
        match &option.to_ascii_uppercase()[..] {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            _ => {
                let mut line = b"ERR Unsupported option ".to_vec();
                line.extend_from_slice(c_text(option, usize::MAX));
                return Err(super::command::error_line(&line));
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err(fail("ERR NX and XX, GT or LT options at the same time are not compatible"));
    }
    if gt && lt {
        return Err(fail("ERR GT and LT options at the same time are not compatible"));
    }
    let n = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let when = deadline(n, seconds, base);
    let when =
        when.ok_or_else(|| Reply::Error(format!("ERR invalid expire time in '{name}' command")))?;
    let Some(entry) = cx.get(key) else { return Ok(Reply::Int(0)) };
    let current = entry.expires();
    // No expiry at all counts as one that is infinitely far.
    let refused = (nx && current.is_some())
        || (xx && current.is_none())
        || (gt && current.is_none_or(|current| when <= current))
        || (lt && current.is_some_and(|current| when >= current));
    if refused {
        return Ok(Reply::Int(0));
    }
    if when <= cx.server.millis() {
        cx.delete(key);
    } else {
        cx.database().set_expiry(key, Some(when));
        cx.signal(key);
    }
    Ok(Reply::Int(1))
}

pub(super) fn expire(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let base = cx.server.millis();
    set_expiry(cx, args, "expire", true, base)
}

pub(super) fn expireat(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    set_expiry(cx, args, "expireat", true, 0)
}

pub(super) fn pexpire(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let base = cx.server.millis();
    set_expiry(cx, args, "pexpire", false, base)
}

pub(super) fn pexpireat(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    set_expiry(cx, args, "pexpireat", false, 0)
}

pub(super) fn persist(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if cx.get(&args[1]).and_then(|entry| entry.expires()).is_none() {
        return Ok(Reply::Int(0));
    }
    cx.database().set_expiry(&args[1], None);
    cx.signal(&args[1]);
    Ok(Reply::Int(1))
}

/// What is left of a key's life, put into its unit by `show`.
fn remaining(cx: &mut Cx<'_>, key: &[u8], show: fn(when: i64, now: i64) -> i64) -> Answer {
    let now = cx.server.millis();
    Ok(Reply::Int(match cx.get(key).map(|entry| entry.expires()) {
        None => -2,
        Some(None) => -1,
        Some(Some(when)) => show(when, now),
    }))
}

pub(super) fn ttl(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    remaining(cx, &args[1], |when, now| when.saturating_sub(now).max(0).saturating_add(500) / 1000)
}

pub(super) fn pttl(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    remaining(cx, &args[1], |when, now| when.saturating_sub(now).max(0))
}

pub(super) fn pexpiretime(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    remaining(cx, &args[1], |when, _| when)
}

pub(super) fn keys(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let now = cx.server.millis();
    let entries = cx.database().keys.iter();
    let live = entries.filter(|(_, entry)| entry.expires().is_none_or(|when| when >= now));
    let matching = live.filter(|(key, _)| glob(&args[1], key));
    Ok(Reply::Array(matching.map(|(key, _)| Reply::Bulk(key.clone())).collect()))
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE type]`
pub(super) fn scan(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let cursor = ScanOptions::cursor(&args[1])?;
    let options = ScanOptions::parse(&args[2..], true)?;
    let mut found = Vec::new();
    let next = cx.database().keys.scan(cursor, options.count, |key, _| {
        if options.matches(key) {
            found.push(key.clone());
        }
    });
    // Looking at a key lets it expire, whatever its type is.
    found.retain(|key| {
        let kind = cx.get(key).map(|entry| entry.value.kind());
        kind.is_some_and(|kind| options.kind.as_ref().is_none_or(|wanted| *wanted == kind))
    });
    Ok(ScanOptions::page(next, found.into_iter().map(Reply::Bulk).collect()))
}

/// What follows the cursor of `SCAN`, `HSCAN`, `SSCAN` and `ZSCAN`.
pub(super) struct ScanOptions {
    pub(super) count: usize,
    pattern: Option<Bytes>,
    kind: Option<String>,
}

impl ScanOptions {
    pub(super) fn cursor(text: &[u8]) -> Result<u64, Reply> {
        parse_cursor(text).ok_or_else(|| fail("ERR invalid cursor"))
    }

    pub(super) fn parse(args: &[Bytes], keyspace: bool) -> Result<ScanOptions, Reply> {
        let mut options = ScanOptions { count: 10, pattern: None, kind: None };
        for pair in args.chunks(2) {
            let [name, value] = pair else { return Err(fail(SYNTAX)) };
            match &name.to_ascii_lowercase()[..] {
                b"count" => {
                    let n = parse_i64(value).ok_or_else(|| fail(NOT_AN_INTEGER))?;
                    let n = usize::try_from(n).ok().filter(|n| *n > 0);
                    options.count = n.ok_or_else(|| fail(SYNTAX))?;
                }
                b"match" => options.pattern = (value != "*").then(|| value.clone()),
                b"type" if keyspace => {
                    options.kind = Some(String::from_utf8_lossy(value).to_ascii_lowercase());
                }
                _ => return Err(fail(SYNTAX)),
            }
        }
        Ok(options)
    }

    pub(super) fn matches(&self, element: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob(pattern, element))
    }

    pub(super) fn page(next: u64, items: Vec<Reply>) -> Reply {
        Reply::Array([Reply::Bulk(format!("{next}").into()), Reply::Array(items)].into())
    }

    pub(super) fn nothing() -> Reply {
        ScanOptions::page(0, Vec::new())
    }
}
