//! The twin of `reap.lua`: leases of mounts, and inodes laid to rest.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::super::text::decimal;
use super::super::{ScriptContext, malformed};
use super::{bulk, items, number, value};
use crate::backend::redis::Reply;

/// `reap.lua`
pub(in super::super) fn reap(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let [sessions, graves, queue, usage] = keys else { return Err(malformed("four keys")) };
    let [prefix, me, lease, bound, seen, floor, holds, rest @ ..] = args else {
        return Err(malformed("too few arguments"));
    };
    let key = |kind: &str, of: &[u8]| Bytes::from([&prefix[..], kind.as_bytes(), of].concat());
    let (lease, now) = (number(lease)?, s.millis()?);
    let (mut seen, grave) = (number(seen)?, Bytes::from_static(b"grave"));
    let mine = key("o:", me);
    if lease > 0 {
        at_least(s, usage, "mount", me)?;
        at_least(s, usage, "ino", floor)?;
        if seen > value(Some(&s.redis("HGET", &[usage, &grave])?))? {
            seen = 0;
        }
        s.redis("ZADD", &[sessions, &decimal(now.saturating_add(lease)), me])?;
        s.set(&key("t:", me), &[("seen", decimal(seen))])?;
        let holds = usize::try_from(number(holds)?).unwrap_or(0).min(rest.len());
        for ino in &rest[..holds] {
            s.redis("SADD", &[&mine, ino])?;
        }
        for ino in &rest[holds..] {
            s.redis("SREM", &[&mine, ino])?;
            let_go(s, graves, ino)?;
        }
    } else {
        ended(s, (sessions, graves), me, &key)?;
    }
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let (least, limit, zero) = (word("-inf"), word("LIMIT"), word("0"));
    let expired = Bytes::from([b"(", &decimal(now)[..]].concat());
    let dead = [sessions, &least, &expired, &limit, &zero, &word("16")];
    for dead in members(s.redis("ZRANGEBYSCORE", &dead)?) {
        ended(s, (sessions, graves), &dead, &key)?;
    }
    let dug = [graves, &word("-1"), &word("-1"), &limit, &zero, bound];
    let dug = members(s.redis("ZRANGEBYSCORE", &dug)?);
    for ino in &dug {
        let next = s.increase(usage, "grave", 1)?;
        s.redis("ZADD", &[graves, &decimal(next), ino])?;
    }
    let live = members(s.redis("ZRANGE", &[sessions, &zero, &word("-1")])?);
    let mut all: Option<i64> = None;
    for mount in &live {
        let its = s.redis("HGET", &[&key("t:", mount), &word("seen")])?;
        let its = value(Some(&its))?;
        all = Some(all.map_or(its, |all| all.min(its)));
    }
    let before = all.map_or(word("(inf"), decimal);
    let due = [graves, &zero, &before, &limit, &zero, bound];
    let due = members(s.redis("ZRANGEBYSCORE", &due)?);
    let mut freed = Vec::new();
    for ino in &due {
        let mut held = false;
        for mount in &live {
            held = held || s.number("SISMEMBER", &[&key("o:", mount), ino])? == 1;
        }
        if held {
            s.redis("ZADD", &[graves, &word("inf"), ino])?;
        } else {
            freed.extend(bury(s, (queue, usage), ino, &key)?);
            s.redis("ZREM", &[graves, ino])?;
        }
    }
    let mut unseen = Vec::new();
    let bound = number(bound)?;
    if lease > 0 {
        let from = Bytes::from([b"(", &decimal(seen)[..]].concat());
        let most = decimal(bound.saturating_mul(4));
        let others = [graves, &from, &word("(inf"), &limit, &zero, &most];
        for ino in members(s.redis("ZRANGEBYSCORE", &others)?) {
            let score = s.redis("ZSCORE", &[graves, &ino])?;
            unseen.extend([Reply::Bulk(ino), score]);
        }
    }
    let more = [&dug, &due].iter().any(|all| i64::try_from(all.len()) == Ok(bound));
    let left = s.number("ZCARD", &[graves])?;
    let seen = Reply::Bulk(decimal(seen));
    let (freed, unseen) = (Reply::Array(freed), Reply::Array(unseen));
    Ok(Reply::Array([Reply::Int(left), freed, unseen, seen, Reply::Int(more.into())].into()))
}

/// A counter is not below what was given out.
fn at_least(
    s: &mut ScriptContext<'_>,
    usage: &Bytes,
    counter: &'static str,
    n: &Bytes,
) -> Result<(), Reply> {
    let now = s.redis("HGET", &[usage, &Bytes::from_static(counter.as_bytes())])?;
    if value(Some(&now))? < number(n)? {
        s.set(usage, &[(counter, n.clone())])?;
    }
    Ok(())
}

/// A mount does not hold an inode any more.
fn let_go(s: &mut ScriptContext<'_>, graves: &Bytes, ino: &Bytes) -> Result<(), Reply> {
    if s.redis("ZSCORE", &[graves, ino])? == Reply::Bulk(Bytes::from_static(b"inf")) {
        s.redis("ZADD", &[graves, &decimal(0), ino])?;
    }
    Ok(())
}

/// What a mount had ends with it.
fn ended(
    s: &mut ScriptContext<'_>,
    (sessions, graves): (&Bytes, &Bytes),
    mount: &Bytes,
    key: &dyn Fn(&str, &[u8]) -> Bytes,
) -> Result<(), Reply> {
    for ino in members(s.redis("SMEMBERS", &[&key("o:", mount)])?) {
        let_go(s, graves, &ino)?;
    }
    for ino in members(s.redis("SMEMBERS", &[&key("k:", mount)])?) {
        s.redis("HDEL", &[&key("l:", &ino), mount])?;
    }
    s.redis("DEL", &[&key("o:", mount), &key("t:", mount), &key("k:", mount)])?;
    s.redis("ZREM", &[sessions, mount]).map(drop)
}

/// Removes an inode that has no name. Returns the contents that are left of it.
fn bury(
    s: &mut ScriptContext<'_>,
    (queue, usage): (&Bytes, &Bytes),
    ino: &Bytes,
    key: &dyn Fn(&str, &[u8]) -> Bytes,
) -> Result<Vec<Reply>, Reply> {
    let inode = key("i:", ino);
    let was = s.fields(&inode, &["nlink", "kind", "size", "data", "stale"])?;
    if bulk(was.first()).is_none_or(|nlink| &nlink[..] != b"0") {
        return Ok(Vec::new());
    }
    s.redis("DEL", &[&inode, &key("x:", ino), &key("d:", ino)])?;
    s.increase(usage, "inodes", -1)?;
    if bulk(was.get(1)).is_none_or(|kind| &kind[..] != b"f") {
        return Ok(Vec::new());
    }
    let data = bulk(was.get(3)).unwrap_or_else(|| ino.clone());
    let size = value(was.get(2))?;
    if size > 0 {
        s.increase(usage, "bytes", -size)?;
    }
    let left = size.max(value(was.get(4))?);
    if left == 0 {
        return Ok(Vec::new());
    }
    s.redis("HSET", &[queue, &data, &decimal(left)])?;
    Ok(Vec::from([Reply::Bulk(data), Reply::Bulk(decimal(left))]))
}

fn members(reply: Reply) -> Vec<Bytes> {
    items(reply).iter().filter_map(|it| bulk(Some(it))).collect()
}
