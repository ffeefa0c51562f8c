//! The twin of `lock.lua`: locks between mounts.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::{ScriptContext, malformed, text};
use super::{bulk, items};
use crate::backend::redis::Reply;

/// Bytes of a record.
const RECORD: usize = 34;

/// `lock.lua`
pub(in super::super) fn lock(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let [locks, sessions, inode, index] = keys else { return Err(malformed("four keys")) };
    let [me, ino, wanted, change, records] = args else { return Err(malformed("five arguments")) };
    if !wanted.is_empty() {
        let all: Vec<Bytes> =
            items(s.redis("HGETALL", &[locks])?).iter().filter_map(|it| bulk(Some(it))).collect();
        for pair in all.chunks_exact(2) {
            let alive = pair[0] != *me && s.redis("ZSCORE", &[sessions, &pair[0]])? != Reply::Nil;
            let held = pair[1].chunks(RECORD).find(|held| alive && excludes(held, wanted));
            if let Some(held) = held {
                let held = Reply::Bulk(Bytes::copy_from_slice(held));
                return Ok(Reply::Array([text("no"), held].into()));
            }
        }
    }
    if &change[..] == b"1" {
        if records.is_empty() {
            s.redis("HDEL", &[locks, me])?;
            s.redis("SREM", &[index, ino])?;
        } else {
            s.redis("HSET", &[locks, me, records])?;
            s.redis("SADD", &[index, ino])?;
        }
    }
    let stamp = bulk(Some(&s.redis("HGET", &[inode, &Bytes::from_static(b"change")])?));
    Ok(Reply::Array([text("ok"), Reply::Bulk(stamp.unwrap_or_default())].into()))
}

/// Ranges of strings as `string.sub` cuts them: what is not there is empty.
fn excludes(held: &[u8], wanted: &[u8]) -> bool {
    fn sub(it: &[u8], from: usize, to: usize) -> &[u8] {
        it.get(from.min(it.len())..to.min(it.len())).unwrap_or_default()
    }
    let exclusive = sub(wanted, 1, 2) == b"x" || sub(held, 1, 2) == b"x";
    exclusive
        && sub(held, 0, 1) == sub(wanted, 0, 1)
        && sub(held, 2, 18) < sub(wanted, 18, 34)
        && sub(wanted, 2, 18) < sub(held, 18, 34)
}
