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
    let [prefix, me, lease, bound, holds, rest @ ..] = args else {
        return Err(malformed("too few arguments"));
    };
    let key = |kind: &str, of: &[u8]| Bytes::from([&prefix[..], kind.as_bytes(), of].concat());
    let (lease, now) = (number(lease)?, s.millis()?);
    let mine = key("o:", me);
    if lease > 0 {
        s.redis("ZADD", &[sessions, &decimal(now.saturating_add(lease)), me])?;
        let holds = usize::try_from(number(holds)?).unwrap_or(0).min(rest.len());
        for ino in &rest[..holds] {
            s.redis("SADD", &[&mine, ino])?;
        }
        for ino in &rest[holds..] {
            s.redis("SREM", &[&mine, ino])?;
        }
    } else {
        s.redis("ZREM", &[sessions, me])?;
        s.redis("DEL", &[&mine, &key("t:", me)])?;
        unlock(s, me, &key)?;
    }
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let (least, limit, zero) = (word("-inf"), word("LIMIT"), word("0"));
    let expired = Bytes::from([b"(", &decimal(now)[..]].concat());
    let dead = [sessions, &least, &expired, &limit, &zero, &word("16")];
    for dead in members(s.redis("ZRANGEBYSCORE", &dead)?) {
        s.redis("DEL", &[&key("o:", &dead), &key("t:", &dead)])?;
        s.redis("ZREM", &[sessions, &dead])?;
        unlock(s, &dead, &key)?;
    }
    let live = members(s.redis("ZRANGE", &[sessions, &zero, &word("-1")])?);
    let unnoted = [graves, &word("-1"), &word("-1"), &limit, &zero, bound];
    for ino in members(s.redis("ZRANGEBYSCORE", &unnoted)?) {
        s.redis("ZADD", &[graves, &decimal(now), &ino])?;
    }
    let alone = live.iter().all(|mount| mount == me) && live.len() <= 1;
    let before = match (alone, lease > 0) {
        (true, _) => word("+inf"),
        (false, true) => decimal(now.saturating_sub(lease)),
        (false, false) => word("-inf"),
    };
    let mut freed = Vec::new();
    let due = [graves, &zero, &before, &limit, &zero, bound];
    for ino in members(s.redis("ZRANGEBYSCORE", &due)?) {
        let mut held = false;
        for mount in &live {
            held = held || s.number("SISMEMBER", &[&key("o:", mount), &ino])? == 1;
        }
        if held {
            s.redis("ZADD", &[graves, &decimal(now), &ino])?;
        } else {
            freed.extend(bury(s, (queue, usage), &ino, &key)?);
            s.redis("ZREM", &[graves, &ino])?;
        }
    }
    let left = s.number("ZCARD", &[graves])?;
    Ok(Reply::Array([Reply::Int(left), Reply::Array(freed)].into()))
}

/// A mount's locks end with it.
fn unlock(
    s: &mut ScriptContext<'_>,
    mount: &Bytes,
    key: &dyn Fn(&str, &[u8]) -> Bytes,
) -> Result<(), Reply> {
    let index = key("k:", mount);
    for ino in members(s.redis("SMEMBERS", &[&index])?) {
        s.redis("HDEL", &[&key("l:", &ino), mount])?;
    }
    s.redis("DEL", &[&index]).map(drop)
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
