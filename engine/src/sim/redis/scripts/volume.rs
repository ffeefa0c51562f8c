//! The twins of the scripts of the volume layout, but for `commit.lua` and `reap.lua`, which have
//! files of their own.

mod commit;
mod lock;
mod reap;

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::text::{decimal, parse_i64};
use super::{ScriptContext, malformed, text};
use crate::backend::redis::{Args, Reply};

pub(super) use commit::commit;
pub(super) use lock::lock;
pub(super) use reap::reap;

fn number(bytes: &[u8]) -> Result<i64, Reply> {
    parse_i64(bytes).ok_or_else(|| malformed("not a number"))
}

/// A value of `HMGET` as a number; what is missing is 0.
fn value(reply: Option<&Reply>) -> Result<i64, Reply> {
    match reply.and_then(Reply::as_bytes) {
        Some(digits) => number(digits),
        None => Ok(0),
    }
}

fn bulk(reply: Option<&Reply>) -> Option<Bytes> {
    match reply {
        Some(Reply::Bulk(bytes)) => Some(bytes.clone()),
        _ => None,
    }
}

fn items(reply: Reply) -> Vec<Reply> {
    match reply {
        Reply::Array(items) => items,
        _ => Vec::new(),
    }
}

/// The first of some arguments, which must be there.
fn nth(list: &[Bytes], n: usize) -> Result<&Bytes, Reply> {
    list.get(n).ok_or_else(|| malformed("too few arguments"))
}

impl ScriptContext<'_> {
    fn many(&mut self, name: &'static str, key: &Bytes, rest: &[Bytes]) -> Result<Reply, Reply> {
        let mut all = Args::with_capacity(rest.len() + 2);
        all.push(Bytes::from_static(name.as_bytes()));
        all.push(key.clone());
        all.extend(rest.iter().cloned());
        self.call(&all)
    }

    fn fields(&mut self, key: &Bytes, fields: &[&'static str]) -> Result<Vec<Reply>, Reply> {
        let fields: Vec<Bytes> =
            fields.iter().map(|it| Bytes::from_static(it.as_bytes())).collect();
        Ok(items(self.many("HMGET", key, &fields)?))
    }

    fn set(&mut self, key: &Bytes, pairs: &[(&'static str, Bytes)]) -> Result<(), Reply> {
        let word = |name: &'static str| Bytes::from_static(name.as_bytes());
        let rest: Vec<Bytes> =
            pairs.iter().flat_map(|(name, value)| [word(name), value.clone()]).collect();
        self.many("HSET", key, &rest).map(drop)
    }

    fn increase(&mut self, key: &Bytes, field: &'static str, by: i64) -> Result<i64, Reply> {
        let field = Bytes::from_static(field.as_bytes());
        self.number("HINCRBY", &[key, &field, &decimal(by)])
    }

    /// The entry of a name: the first member that begins with it and NUL.
    fn entry(&mut self, dir: &Bytes, name: &[u8]) -> Result<Option<Bytes>, Reply> {
        let from = Bytes::from([b"[", name, b"\0"].concat());
        let to = Bytes::from([&from[..], b"\xff"].concat());
        let [limit, zero, one] = ["LIMIT", "0", "1"].map(|it| Bytes::from_static(it.as_bytes()));
        let found = self.redis("ZRANGEBYLEX", &[dir, &from, &to, &limit, &zero, &one])?;
        Ok(bulk(items(found).first()))
    }

    fn millis(&mut self) -> Result<i64, Reply> {
        let time = items(self.redis("TIME", &[])?);
        let (seconds, micros) = (value(time.first())?, value(time.get(1))?);
        Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
    }
}

/// `format.lua`
pub(super) fn format(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let (superblock, usage, root) = (nth(keys, 0)?, nth(keys, 1)?, nth(keys, 2)?);
    if s.number("EXISTS", &[superblock])? == 1 {
        return Ok(Reply::Int(0));
    }
    let n = usize::try_from(number(nth(args, 0)?)?).unwrap_or(0);
    let (of_super, of_root) =
        args[1..].split_at_checked(n).ok_or_else(|| malformed("too few arguments"))?;
    s.many("HSET", root, of_root)?;
    let zero = || Bytes::from_static(b"0");
    let one = || Bytes::from_static(b"1");
    s.set(usage, &[("inodes", one()), ("bytes", zero()), ("ino", one()), ("mount", zero())])?;
    s.many("HSET", superblock, of_super)?;
    Ok(Reply::Int(1))
}

/// `enter.lua`
pub(super) fn enter(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let (usage, sessions) = (nth(keys, 0)?, nth(keys, 1)?);
    let mount = s.increase(usage, "mount", 1)?;
    let ino = s.increase(usage, "ino", number(nth(args, 0)?)?)?;
    let until = s.millis()?.saturating_add(number(nth(args, 1)?)?);
    s.redis("ZADD", &[sessions, &decimal(until), &decimal(mount)])?;
    let seen = s.redis("HGET", &[usage, &Bytes::from_static(b"grave")])?;
    let seen = bulk(Some(&seen)).unwrap_or_else(|| decimal(0));
    let tokens = Bytes::from([nth(args, 2)?, &b"t:"[..], &decimal(mount)[..]].concat());
    s.redis("HSET", &[&tokens, &Bytes::from_static(b"seen"), &seen])?;
    Ok(Reply::Array([Reply::Int(mount), Reply::Int(ino)].into()))
}

/// `look.lua`
pub(super) fn look(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let (prefix, name) = (nth(args, 0)?, nth(args, 1)?);
    let Some(entry) = s.entry(nth(keys, 0)?, name)? else { return Ok(Reply::Nil) };
    let ino = entry.get(name.len() + 2..).unwrap_or_default();
    let inode = Bytes::from([prefix, ino].concat());
    let values = s.many("HMGET", &inode, &args[2..])?;
    Ok(Reply::Array([Reply::Bulk(entry), values].into()))
}

/// `page.lua`
pub(super) fn page(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let (dir, inode) = (nth(keys, 0)?, nth(keys, 1)?);
    let [prefix, from, limit, fields @ ..] = args else { return Err(malformed("arguments")) };
    let stamp = s.redis("HGET", &[inode, &Bytes::from_static(b"change")])?;
    let mut page = Vec::from([stamp]);
    let [most, word, zero] = ["+", "LIMIT", "0"].map(|it| Bytes::from_static(it.as_bytes()));
    let found = s.redis("ZRANGEBYLEX", &[dir, from, &most, &word, &zero, limit])?;
    for member in items(found).iter().filter_map(|it| bulk(Some(it))) {
        page.push(Reply::Bulk(member.clone()));
        if fields.first().is_some_and(|field| !field.is_empty()) {
            let nul = member.iter().position(|byte| *byte == 0);
            let nul = nul.ok_or_else(|| malformed("no entry"))?;
            let ino = member.get(nul + 2..).unwrap_or_default();
            let inode = Bytes::from([prefix, ino].concat());
            page.push(s.many("HMGET", &inode, fields)?);
        }
    }
    Ok(Reply::Array(page))
}

/// `chain.lua`
pub(super) fn chain(
    s: &mut ScriptContext<'_>,
    _: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let (prefix, mut at) = (nth(args, 0)?, nth(args, 1)?.clone());
    let mut chain = Vec::new();
    for _ in 0..number(nth(args, 2)?)? {
        let inode = Bytes::from([&prefix[..], &at[..]].concat());
        let parent = Bytes::from_static(b"parent");
        match bulk(Some(&s.redis("HGET", &[&inode, &parent])?)) {
            Some(up) if up != at => {
                chain.push(Reply::Bulk(up.clone()));
                at = up;
            }
            _ => break,
        }
    }
    Ok(Reply::Array(chain))
}

/// `figures.lua`
pub(super) fn figures(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    _: &[Bytes],
) -> Result<Reply, Reply> {
    let usage = s.fields(nth(keys, 0)?, &["inodes", "bytes"])?;
    let info = s.redis("INFO", &[&Bytes::from_static(b"memory")])?;
    let info = info.as_bytes().and_then(|it| core::str::from_utf8(it).ok()).unwrap_or_default();
    let figure = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Bytes::copy_from_slice(line.unwrap_or("0").trim().as_bytes())
    };
    let used = |n: usize| bulk(usage.get(n)).unwrap_or(Bytes::from_static(b"0"));
    let server = ["used_memory", "maxmemory", "total_system_memory"].map(figure);
    Ok(Reply::Array([used(0), used(1)].into_iter().chain(server).map(Reply::Bulk).collect()))
}

/// `write.lua`
pub(super) fn write(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    // Or the tokens, for what is put behind.
    let (inode, usage, queue) = (nth(keys, 0)?, nth(keys, 1)?, nth(keys, 2)?);
    let few = || malformed("too few arguments");
    let [how, stamp, mtime, reach, ino, into, at, most, pieces @ ..] = args else {
        return Err(malformed("too few arguments"));
    };
    let now = s.fields(inode, &["nlink", "size", "stale", "data", "change", "ctime"])?;
    let [nlink, size, stale, data, change, ctime] = &now[..] else {
        return Err(malformed("no fields"));
    };
    if *nlink == Reply::Nil {
        return Ok(Reply::Array([text("gone")].into()));
    }
    // Compared as Lua does it, in doubles.
    let ctime = match bulk(Some(ctime)) {
        Some(ctime) if number(&ctime)? as f64 > number(mtime)? as f64 => ctime,
        _ => mtime.clone(),
    };
    let has_stale = *stale != Reply::Nil;
    let (size, mut stale) = (value(Some(size))?, value(Some(stale))?);
    let (reach, most) = (number(reach)?, number(most)?);
    let data = bulk(Some(data)).unwrap_or_else(|| ino.clone());
    let behind = &how[..] == b"a";
    let (token, pieces) = pieces.split_at_checked(if behind { 2 } else { 0 }).ok_or_else(few)?;
    if let [slot, serial] = token
        && bulk(Some(&s.redis("HGET", &[queue, slot])?)).as_ref() == Some(serial)
    {
        let answer = [text("ok"), Reply::Bulk(decimal(size)), Reply::Bulk(stamp.clone())];
        return Ok(Reply::Array(answer.into()));
    }
    let in_place_of = &how[..] == b"r";
    let length = |n: i64| Reply::Bulk(decimal(n));
    let moved = behind && size != number(at)?;
    if (!in_place_of && data != *into) || moved {
        return Ok(Reply::Array([text("moved"), Reply::Bulk(data), length(size)].into()));
    }
    let replace = in_place_of && data != *into;
    let new = if replace { reach } else { size.max(reach) };
    let refusal = if reach > size && stale > size && !replace {
        Some("stale")
    } else if new > size
        && most > 0
        && value(Some(&s.redis("HGET", &[usage, &Bytes::from_static(b"bytes")])?))? + new - size
            > most
    {
        Some("full")
    } else {
        None
    };
    if let Some(word) = refusal {
        if !replace && pieces.is_empty() && reach > stale {
            s.set(inode, &[("stale", decimal(reach))])?;
            stale = reach;
        }
        return Ok(Reply::Array([text(word), length(size), length(stale)].into()));
    }
    for piece in pieces.chunks(3) {
        let [block, at, bytes] = piece else { return Err(malformed("too few arguments")) };
        let block = usize::try_from(number(block)? - 1).ok().and_then(|n| keys.get(n));
        let block = block.ok_or_else(|| malformed("no such key"))?;
        if &at[..] == b"-1" {
            s.redis("SET", &[block, bytes])?;
        } else {
            s.redis("SETRANGE", &[block, at, bytes])?;
        }
    }
    if let [slot, serial] = token {
        s.redis("HSET", &[queue, slot, serial])?;
    }
    if new != size {
        s.increase(usage, "bytes", new - size)?;
    }
    let mut pairs = Vec::new();
    if replace {
        let old = size.max(stale);
        if old > 0 {
            s.redis("HSET", &[queue, &data, &decimal(old)])?;
        }
        if has_stale {
            s.redis("HDEL", &[inode, &Bytes::from_static(b"stale")])?;
        }
        pairs.push(("data", into.clone()));
    }
    pairs.extend([("size", decimal(new)), ("mtime", mtime.clone()), ("ctime", ctime)]);
    pairs.push(("change", stamp.clone()));
    s.set(inode, &pairs)?;
    let former = bulk(Some(change)).unwrap_or_default();
    Ok(Reply::Array([text("ok"), length(new), Reply::Bulk(former)].into()))
}

/// `seek.lua`
pub(super) fn seek(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let [prefix, ino, block, from, want, steps] = args else { return Err(malformed("arguments")) };
    let now = s.fields(nth(keys, 0)?, &["size", "data"])?;
    let size = value(now.first())?;
    let data = bulk(now.get(1)).unwrap_or_else(|| ino.clone());
    let (block, from, steps) = (number(block)?.max(1), number(from)?, number(steps)?);
    let answer = |n, at: i64| Reply::Array([Reply::Int(n), Reply::Bulk(decimal(at))].into());
    let first = from / block;
    for n in first..first.saturating_add(steps) {
        let start = n.saturating_mul(block);
        if start >= size {
            return Ok(Reply::Array([Reply::Int(0)].into()));
        }
        let key = [&prefix[..], &data[..], b":", &decimal(n)[..], b"}"].concat();
        let len = s.number("STRLEN", &[&Bytes::from(key)])?;
        if &want[..] == b"d" && len > 0 && start + len > from {
            return Ok(answer(1, start.max(from)));
        }
        if &want[..] == b"h" && len < block {
            return Ok(answer(1, (start + len).max(from)));
        }
    }
    Ok(answer(2, first.saturating_add(steps).saturating_mul(block)))
}

/// `clean.lua`
pub(super) fn clean(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let inode = nth(keys, 0)?;
    let [size, stale, data, ino, keep, left] = args else { return Err(malformed("arguments")) };
    let now = s.fields(inode, &["size", "stale", "data"])?;
    let same = bulk(now.first()).as_ref() == Some(size)
        && bulk(now.get(1)).as_ref() == Some(stale)
        && bulk(now.get(2)).as_ref().unwrap_or(ino) == data;
    if !same {
        return Ok(Reply::Int(0));
    }
    let keep = number(keep)?;
    let mut rest = &keys[1..];
    if keep >= 0 {
        let (first, others) = rest.split_first().ok_or_else(|| malformed("no block"))?;
        rest = others;
        if s.number("STRLEN", &[first])? > keep {
            let [from, to] = [Bytes::from_static(b"0"), decimal(keep - 1)];
            let kept = s.redis("GETRANGE", &[first, &from, &to])?;
            s.redis("SET", &[first, &bulk(Some(&kept)).unwrap_or_default()])?;
        }
    }
    if let Some((first, others)) = rest.split_first() {
        s.many("UNLINK", first, others)?;
    }
    if left == size {
        s.redis("HDEL", &[inode, &Bytes::from_static(b"stale")])?;
    } else {
        s.set(inode, &[("stale", left.clone())])?;
    }
    Ok(Reply::Int(1))
}

/// `probe.lua`: everyone may do everything here.
pub(super) fn probe(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let key = nth(keys, 0)?;
    if args.first().is_some_and(|mode| &mode[..] == b"write") {
        let word = Bytes::from_static;
        for (name, rest) in [
            ("DEL", &[][..]),
            ("SET", &[word(b""), word(b"XX")]),
            ("SETRANGE", &[word(b"0"), word(b"")]),
            ("HSET", &[word(b"f"), word(b"1")]),
            ("HINCRBY", &[word(b"f"), word(b"1")]),
            ("DEL", &[]),
            ("ZADD", &[word(b"0"), word(b"m")]),
            ("DEL", &[]),
            ("SADD", &[word(b"m")]),
            ("DEL", &[]),
        ] {
            let all: Vec<&Bytes> = core::iter::once(key).chain(rest).collect();
            // What a try comes to says nothing here: only a refused permission would.
            let _ = s.redis(name, &all);
        }
    }
    Ok(Reply::Array([Reply::Array(Vec::new()), Reply::Array(Vec::new()), Reply::Int(0)].into()))
}
