//! The twin of the volume's `commit.lua`: all checks of a plan, then all its changes, or nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::super::super::text::decimal;
use super::super::place::Arguments;
use super::super::{ScriptContext, malformed, text};
use super::{bulk, nth, number, value};
use crate::backend::redis::Reply;

/// The keys that come before those that steps point to.
const FIXED_KEYS: usize = 6;
/// The arguments that come before the steps.
const FIXED_ARGS: usize = 5;

/// `commit.lua`
pub(in super::super) fn commit(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    if keys.len() < FIXED_KEYS || args.len() < FIXED_ARGS {
        return Err(malformed("too few arguments"));
    }
    let (tokens, usage) = (&keys[0], &keys[1]);
    if !args[0].is_empty() && s.redis("HGET", &[tokens, &args[0]])? == Reply::Bulk(args[1].clone())
    {
        return Ok(Reply::Array([text("done")].into()));
    }
    let mut commit = Commit {
        s,
        keys,
        arguments: Arguments::new(keys, args, FIXED_ARGS),
        stamp: &args[2],
        most_bytes: number(&args[3])?,
        most_inodes: number(&args[4])?,
        seen: BTreeMap::new(),
        order: Vec::new(),
        results: Vec::new(),
        inodes: 0,
        bytes: 0,
        failed: None,
    };
    let mut step = 0;
    while commit.arguments.peek().is_some() {
        let word = commit.arguments.arg()?;
        if let Some(holds) = commit.check(word)? {
            step += 1;
            if !holds {
                return Ok(Reply::Array([text("no"), Reply::Int(step)].into()));
            }
            continue;
        }
        if let Some(failed) = commit.failed {
            return Ok(failed);
        }
        commit.change(word)?;
    }
    let Commit { seen, order, results, inodes, bytes, .. } = commit;
    if inodes != 0 {
        s.increase(usage, "inodes", inodes)?;
    }
    if bytes != 0 {
        s.increase(usage, "bytes", bytes)?;
    }
    if !args[0].is_empty() {
        s.redis("HSET", &[tokens, &args[0], &args[1]])?;
    }
    let mut answer = Vec::from([text("ok")]);
    for n in order {
        let stamp = seen.get(&n).and_then(|(_, stamp)| stamp.clone());
        answer.push(Reply::Bulk(stamp.unwrap_or_default()));
    }
    answer.extend(results);
    Ok(Reply::Array(answer))
}

/// An inode as it was before: its number of names and its stamp.
type Seen = (Option<Bytes>, Option<Bytes>);

/// A plan being applied.
struct Commit<'c, 's, 'a> {
    s: &'c mut ScriptContext<'s>,
    keys: &'a [Bytes],
    arguments: Arguments<'a>,
    stamp: &'a Bytes,
    most_bytes: i64,
    most_inodes: i64,
    seen: BTreeMap<i64, Seen>,
    order: Vec<i64>,
    results: Vec<Reply>,
    inodes: i64,
    bytes: i64,
    /// Why nothing is to be changed, though the checks hold.
    failed: Option<Reply>,
}

impl<'a> Commit<'_, '_, 'a> {
    fn key(&mut self) -> Result<&'a Bytes, Reply> {
        self.arguments.some_key()
    }

    fn nth(&self, n: i64) -> Result<&'a Bytes, Reply> {
        self.arguments.nth(n).ok_or_else(|| malformed("no such key"))
    }

    fn look(&mut self) -> Result<(i64, Seen), Reply> {
        let n = self.arguments.number()?;
        if !self.seen.contains_key(&n) {
            let key = self.nth(n)?;
            let now = self.s.fields(key, &["nlink", "change"])?;
            self.seen.insert(n, (bulk(now.first()), bulk(now.get(1))));
            self.order.push(n);
        }
        Ok((n, self.seen.get(&n).cloned().unwrap_or_default()))
    }

    fn used(&mut self, what: &'static str) -> Result<i64, Reply> {
        let used = self.s.redis("HGET", &[&self.keys[1], &Bytes::from_static(what.as_bytes())])?;
        value(Some(&used))
    }

    /// Whether a check holds; `None` when the word is not one.
    fn check(&mut self, word: &[u8]) -> Result<Option<bool>, Reply> {
        let holds = match word {
            b"dir" => self.look()?.1.0.is_some_and(|nlink| &nlink[..] != b"0"),
            b"live" => self.look()?.1.0.is_some(),
            b"links" => {
                let (_, (nlink, _)) = self.look()?;
                nlink.as_ref() == Some(self.arguments.arg()?)
            }
            b"free" => {
                let (dir, name) = (self.key()?, self.arguments.arg()?);
                self.s.entry(dir, name)?.is_none()
            }
            b"leads" => {
                let (dir, entry) = (self.key()?, self.arguments.arg()?);
                self.s.redis("ZSCORE", &[dir, entry])? != Reply::Nil
            }
            b"fresh" | b"empty" => {
                let dir = self.key()?;
                self.s.number("EXISTS", &[dir])? == 0
            }
            b"parent" => {
                let (inode, up) = (self.key()?, self.arguments.arg()?);
                let parent = Bytes::from_static(b"parent");
                self.s.redis("HGET", &[inode, &parent])? == Reply::Bulk(up.clone())
            }
            b"has" => {
                let (xattrs, name) = (self.key()?, self.arguments.arg()?);
                let yes = self.arguments.number()?;
                self.s.number("HEXISTS", &[xattrs, name])? == yes
            }
            b"fits" => {
                let (inode, size) = (self.key()?, self.arguments.number()?);
                self.fits(inode, size)?;
                true
            }
            b"holds" => {
                let (inode, ino) = (self.key()?, self.arguments.arg()?);
                let data = self.s.redis("HGET", &[inode, &Bytes::from_static(b"data")])?;
                bulk(Some(&data)).as_ref().unwrap_or(ino) == self.arguments.arg()?
            }
            b"room" => {
                let more = self.arguments.number()?;
                if self.most_inodes > 0 && self.used("inodes")? + more > self.most_inodes {
                    self.failed = Some(Reply::Array([text("full")].into()));
                }
                true
            }
            _ => return Ok(None),
        };
        Ok(Some(holds))
    }

    fn fits(&mut self, inode: &Bytes, size: i64) -> Result<(), Reply> {
        let now = self.s.fields(inode, &["size", "stale", "data"])?;
        let (was, stale) = (value(now.first())?, value(now.get(1))?);
        if size > was && stale > was {
            let data = bulk(now.get(2)).unwrap_or_default();
            let [was, stale] = [was, stale].map(|n| Reply::Bulk(decimal(n)));
            self.failed = Some(Reply::Array([text("stale"), was, stale, Reply::Bulk(data)].into()));
        }
        if size > was && self.most_bytes > 0 && self.used("bytes")? + size - was > self.most_bytes {
            self.failed = Some(Reply::Array([text("full")].into()));
        }
        Ok(())
    }

    /// As many arguments as the next one says.
    fn some(&mut self) -> Result<Vec<Bytes>, Reply> {
        let n = self.arguments.number()?;
        (0..n).map(|_| self.arguments.arg().cloned()).collect()
    }

    fn change(&mut self, word: &[u8]) -> Result<(), Reply> {
        match word {
            b"new" => {
                let inode = self.key()?;
                let fields = self.some()?;
                self.s.many("HSET", inode, &fields)?;
                self.inodes += 1;
            }
            b"set" => {
                let (n, _) = self.look()?;
                let inode = self.nth(n)?;
                let mut fields = Vec::from([Bytes::from_static(b"change"), self.stamp.clone()]);
                fields.extend(self.some()?);
                self.s.many("HSET", inode, &fields)?;
            }
            b"inc" => {
                let (inode, by) = (self.key()?, self.arguments.number()?);
                self.s.increase(inode, "nlink", by)?;
            }
            b"add" => {
                let (dir, entry) = (self.key()?, self.arguments.arg()?);
                self.s.redis("ZADD", &[dir, &Bytes::from_static(b"0"), entry])?;
            }
            b"rem" => {
                let (dir, entry) = (self.key()?, self.arguments.arg()?);
                self.s.redis("ZREM", &[dir, entry])?;
            }
            b"drop" => self.drop_inode()?,
            b"size" => self.size()?,
            b"grow" => self.grow()?,
            b"zero" => {
                let (block, at) = (self.key()?, self.arguments.number()?);
                let n = self.arguments.number()?;
                if at < 0 {
                    self.s.redis("DEL", &[block])?;
                } else {
                    self.zero(block, at, n)?;
                }
            }
            b"copy" => {
                let (block, at) = (self.key()?, self.arguments.number()?);
                let n = self.arguments.number()?;
                let (to, to_at) = (self.key()?, self.arguments.number()?);
                let some =
                    self.s.redis("GETRANGE", &[block, &decimal(at), &decimal(at + n - 1)])?;
                let some = bulk(Some(&some)).unwrap_or_default();
                let len = i64::try_from(some.len()).unwrap_or(i64::MAX);
                if len > 0 {
                    self.s.redis("SETRANGE", &[to, &decimal(to_at), &some])?;
                }
                if len < n {
                    self.zero(to, to_at + len, n - len)?;
                }
            }
            b"xset" => {
                let xattrs = self.key()?;
                let (name, value) = (self.arguments.arg()?, self.arguments.arg()?);
                self.s.redis("HSET", &[xattrs, name, value])?;
            }
            b"xdel" => {
                let (xattrs, name) = (self.key()?, self.arguments.arg()?);
                self.s.redis("HDEL", &[xattrs, name])?;
            }
            _ => return Err(malformed("no such step")),
        }
        Ok(())
    }

    fn drop_inode(&mut self) -> Result<(), Reply> {
        let (n, _) = self.look()?;
        let (inode, xattrs) = (self.nth(n)?, self.key()?);
        let (ino, open) = (self.arguments.arg()?, self.arguments.arg()?);
        let (block, known) = (self.arguments.number()?, self.arguments.arg()?);
        let most = self.arguments.number()?;
        let [sessions, graves, queue, held] = [2, 3, 4, 5].map(|n| &self.keys[n]);
        if &open[..] == b"1" || self.s.number("ZCARD", &[sessions])? > 1 {
            self.s.set(inode, &[("change", self.stamp.clone()), ("nlink", decimal(0))])?;
            self.s.redis("ZADD", &[graves, &decimal(-1), ino])?;
            if &open[..] == b"1" {
                self.s.redis("SADD", &[held, ino])?;
            }
            self.results.push(Reply::Array([text("grave")].into()));
            return Ok(());
        }
        let now = self.s.fields(inode, &["kind", "size", "data", "stale"])?;
        self.s.redis("DEL", &[inode, xattrs])?;
        self.inodes -= 1;
        let data = bulk(now.get(2)).unwrap_or_else(|| ino.clone());
        let mut left = 0;
        if bulk(now.first()).is_some_and(|kind| &kind[..] == b"f") {
            let size = value(now.get(1))?;
            self.bytes -= size;
            left = size.max(value(now.get(3))?);
            if block > 0 && data == *known && left <= most {
                let block = self.nth(block)?;
                self.s.redis("DEL", &[block])?;
                left = 0;
            } else if left > 0 {
                self.s.redis("HSET", &[queue, &data, &decimal(left)])?;
            }
        }
        let gone = [text("gone"), Reply::Bulk(data), Reply::Bulk(decimal(left))];
        self.results.push(Reply::Array(gone.into()));
        Ok(())
    }

    fn grow(&mut self) -> Result<(), Reply> {
        let (inode, ino) = (self.key()?, self.arguments.arg()?);
        let size = self.arguments.number()?;
        let now = self.s.fields(inode, &["size", "stale", "data"])?;
        let (was, stale) = (value(now.first())?, value(now.get(1))?);
        if size > was {
            self.s.set(inode, &[("size", decimal(size))])?;
            self.bytes += size - was;
        }
        let data = bulk(now.get(2)).unwrap_or_else(|| ino.clone());
        let [was, stale] = [was, stale].map(|n| Reply::Bulk(decimal(n)));
        self.results.push(Reply::Array([was, stale, Reply::Bulk(data)].into()));
        Ok(())
    }

    fn zero(&mut self, block: &Bytes, at: i64, n: i64) -> Result<(), Reply> {
        let len = self.s.number("STRLEN", &[block])?;
        if at >= len {
            return Ok(());
        }
        if at + n >= len {
            let before = if at > 0 {
                let zero = Bytes::from_static(b"0");
                let kept = self.s.redis("GETRANGE", &[block, &zero, &decimal(at - 1)])?;
                bulk(Some(&kept)).unwrap_or_default()
            } else {
                Bytes::new()
            };
            self.s.redis("SET", &[block, &before])?;
        } else {
            let zeros = alloc::vec![0; usize::try_from(n).unwrap_or(0)];
            self.s.redis("SETRANGE", &[block, &decimal(at), &Bytes::from(zeros)])?;
        }
        Ok(())
    }

    fn size(&mut self) -> Result<(), Reply> {
        let (inode, ino) = (self.key()?, self.arguments.arg()?);
        let (size, fresh) = (self.arguments.number()?, self.arguments.arg()?);
        let now = self.s.fields(inode, &["size", "stale", "data"])?;
        let (was, mut stale) = (value(now.first())?, value(now.get(1))?);
        let mut data = bulk(now.get(2)).unwrap_or_else(|| ino.clone());
        self.bytes += size - was;
        let reach = was.max(stale);
        if size == 0 && reach > 0 {
            let queue = nth(self.keys, 4)?;
            self.s.redis("HSET", &[queue, &data, &decimal(reach)])?;
            self.s.set(inode, &[("size", decimal(0)), ("data", fresh.clone())])?;
            if now.get(1) != Some(&Reply::Nil) {
                self.s.redis("HDEL", &[inode, &Bytes::from_static(b"stale")])?;
            }
            (stale, data) = (0, fresh.clone());
        } else if size < was {
            self.s.set(inode, &[("size", decimal(size)), ("stale", decimal(reach))])?;
            stale = reach;
        } else {
            self.s.set(inode, &[("size", decimal(size))])?;
        }
        let [was, stale] = [was, stale].map(|n| Reply::Bulk(decimal(n)));
        self.results.push(Reply::Array([was, stale, Reply::Bulk(data)].into()));
        Ok(())
    }
}
