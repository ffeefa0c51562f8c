//! The table of commands, and the errors for what is not in it.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;
use smallvec::SmallVec;

use super::cx::Cx;
use super::text::c_text;
use super::{Answer, admin, client, hashes, keyspace, lists, sets, streams, strings, zsets};
use crate::backend::redis::Reply;

/// A command: `name` with its subcommand after a bar; `arity` as `COMMAND INFO` tells it.
pub(super) struct Spec {
    name: &'static str,
    arity: isize,
    flags: u8,
    pub(super) run: fn(&mut Cx<'_>, &[Bytes]) -> Answer,
}

impl core::fmt::Debug for Spec {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Spec({})", self.name)
    }
}

impl Spec {
    /// Refused over `maxmemory`.
    pub(super) fn needs_memory(&self) -> bool {
        self.flags & M == M
    }

    /// Changes the keyspace.
    pub(super) fn writes(&self) -> bool {
        self.flags & W != 0
    }

    /// Not to be called by a script.
    pub(super) fn is_barred_from_scripts(&self) -> bool {
        self.flags & N != 0
    }
}

/// Reads.
const R: u8 = 0;
/// Writes.
const W: u8 = 1;
/// Writes, and needs memory for it.
const M: u8 = 3;
/// Is a container: the next argument is part of the name.
const C: u8 = 4;
/// Not in scripts.
const N: u8 = 8;

const fn spec(
    name: &'static str,
    arity: isize,
    flags: u8,
    run: fn(&mut Cx<'_>, &[Bytes]) -> Answer,
) -> Spec {
    Spec { name, arity, flags, run }
}

/// Sorted by name, for the binary search.
static TABLE: &[Spec] = &[
    spec("acl", -2, C | N, admin::container),
    spec("acl|whoami", 2, N, admin::acl_whoami),
    spec("append", 3, M, strings::append),
    spec("client", -2, C | N, admin::container),
    spec("client|getname", 2, N, client::getname),
    spec("client|id", 2, N, client::id),
    spec("client|no-evict", 3, N, client::no_evict),
    spec("client|setname", 3, N, client::setname),
    spec("client|tracking", -3, N, client::tracking),
    spec("command", -1, C, admin::container),
    spec("command|count", 2, R, admin::command_count),
    spec("config", -2, C | N, admin::container),
    spec("config|get", -3, N, admin::config_get),
    spec("config|set", -4, N, admin::config_set),
    spec("copy", -3, M, keyspace::copy),
    spec("dbsize", 1, R, keyspace::dbsize),
    spec("decr", 2, M, strings::decr),
    spec("decrby", 3, M, strings::decrby),
    spec("del", -2, W, keyspace::del),
    spec("echo", 2, R, admin::echo),
    spec("exists", -2, R, keyspace::exists),
    spec("expire", -3, W, keyspace::expire),
    spec("expireat", -3, W, keyspace::expireat),
    spec("flushall", -1, W, keyspace::flushall),
    spec("flushdb", -1, W, keyspace::flushdb),
    spec("get", 2, R, strings::get),
    spec("getdel", 2, W, strings::getdel),
    spec("getrange", 4, R, strings::getrange),
    spec("hdel", -3, W, hashes::hdel),
    spec("hello", -1, N, client::hello),
    spec("hexists", 3, R, hashes::hexists),
    spec("hget", 3, R, hashes::hget),
    spec("hgetall", 2, R, hashes::hgetall),
    spec("hincrby", 4, M, hashes::hincrby),
    spec("hkeys", 2, R, hashes::hkeys),
    spec("hlen", 2, R, hashes::hlen),
    spec("hmget", -3, R, hashes::hmget),
    spec("hmset", -4, M, hashes::hmset),
    spec("hscan", -3, R, hashes::hscan),
    spec("hset", -4, M, hashes::hset),
    spec("hsetnx", 4, M, hashes::hsetnx),
    spec("hstrlen", 3, R, hashes::hstrlen),
    spec("hvals", 2, R, hashes::hvals),
    spec("incr", 2, M, strings::incr),
    spec("incrby", 3, M, strings::incrby),
    spec("info", -1, R, admin::info),
    spec("keys", 2, R, keyspace::keys),
    spec("lindex", 3, R, lists::lindex),
    spec("llen", 2, R, lists::llen),
    spec("lpop", -2, W, lists::lpop),
    spec("lpush", -3, M, lists::lpush),
    spec("lpushx", -3, M, lists::lpushx),
    spec("lrange", 4, R, lists::lrange),
    spec("lset", 4, M, lists::lset),
    spec("mget", -2, R, strings::mget),
    spec("mset", -3, M, strings::mset),
    spec("object", -2, C, admin::container),
    spec("object|encoding", 3, R, keyspace::object_encoding),
    spec("persist", 2, W, keyspace::persist),
    spec("pexpire", -3, W, keyspace::pexpire),
    spec("pexpireat", -3, W, keyspace::pexpireat),
    spec("pexpiretime", 2, R, keyspace::pexpiretime),
    spec("ping", -1, R, admin::ping),
    spec("pttl", 2, R, keyspace::pttl),
    spec("publish", 3, R, client::publish),
    spec("rename", 3, W, keyspace::rename),
    spec("renamenx", 3, W, keyspace::renamenx),
    spec("rpop", -2, W, lists::rpop),
    spec("rpush", -3, M, lists::rpush),
    spec("rpushx", -3, M, lists::rpushx),
    spec("sadd", -3, M, sets::sadd),
    spec("scan", -2, R, keyspace::scan),
    spec("scard", 2, R, sets::scard),
    spec("script", -2, C | N, admin::container),
    spec("script|exists", -3, N, admin::script_exists),
    spec("script|flush", -2, N, admin::script_flush),
    spec("script|load", 3, N, admin::script_load),
    spec("select", 2, R, keyspace::select),
    spec("set", -3, M, strings::set),
    spec("setnx", 3, M, strings::setnx),
    spec("setrange", 4, M, strings::setrange),
    spec("sismember", 3, R, sets::sismember),
    spec("smembers", 2, R, sets::smembers),
    spec("srem", -3, W, sets::srem),
    spec("sscan", -3, R, sets::sscan),
    spec("strlen", 2, R, strings::strlen),
    spec("subscribe", -2, N, client::subscribe),
    spec("time", 1, R, admin::time),
    spec("touch", -2, R, keyspace::exists),
    spec("ttl", 2, R, keyspace::ttl),
    spec("type", 2, R, keyspace::kind),
    spec("unlink", -2, W, keyspace::del),
    spec("unsubscribe", -1, N, client::unsubscribe),
    spec("wait", 3, N, admin::wait),
    spec("xadd", -5, M, streams::xadd),
    spec("xdel", -3, W, streams::xdel),
    spec("xlen", 2, R, streams::xlen),
    spec("xrange", -4, R, streams::xrange),
    spec("xrevrange", -4, R, streams::xrevrange),
    spec("zadd", -4, M, zsets::zadd),
    spec("zcard", 2, R, zsets::zcard),
    spec("zrange", -4, R, zsets::zrange),
    spec("zrangebylex", -4, R, zsets::zrangebylex),
    spec("zrangebyscore", -4, R, zsets::zrangebyscore),
    spec("zrem", -3, W, zsets::zrem),
    spec("zscan", -3, R, zsets::zscan),
    spec("zscore", 3, R, zsets::zscore),
];

fn find(name: &[u8]) -> Option<&'static Spec> {
    let at = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(name)).ok()?;
    Some(&TABLE[at])
}

/// The command that these arguments call, its arity checked.
pub(super) fn look_up(args: &[Bytes]) -> Result<&'static Spec, Reply> {
    let Some(first) = args.first() else { return Err(unknown(&[Bytes::new()])) };
    let mut name: SmallVec<[u8; 32]> = first.iter().map(u8::to_ascii_lowercase).collect();
    let mut spec = find(&name).ok_or_else(|| unknown(args))?;
    if spec.flags & C != 0
        && let Some(sub) = args.get(1)
    {
        name.push(b'|');
        name.extend(sub.iter().map(u8::to_ascii_lowercase));
        spec = find(&name).ok_or_else(|| unknown_sub(first, sub))?;
    }
    let given = args.len() as isize;
    let fits = if spec.arity >= 0 { given == spec.arity } else { given >= -spec.arity };
    if fits { Ok(spec) } else { Err(arity(spec.name)) }
}

/// The error for a wrong number of arguments.
pub(super) fn arity(name: &str) -> Reply {
    Reply::Error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn unknown(args: &[Bytes]) -> Reply {
    // As in C: text ends at a NUL, and lengths are those of the server's own buffer.
    const SHOWN: usize = 128;
    let mut rest: alloc::vec::Vec<u8> = alloc::vec::Vec::new();
    for arg in &args[1..] {
        if rest.len() >= SHOWN {
            break;
        }
        let room = SHOWN - rest.len();
        rest.push(b'\'');
        rest.extend_from_slice(c_text(arg, room));
        rest.extend_from_slice(b"' ");
    }
    let mut line = b"ERR unknown command '".to_vec();
    line.extend_from_slice(c_text(&args[0], SHOWN));
    line.extend_from_slice(b"', with args beginning with: ");
    line.extend_from_slice(&rest);
    one_line(&line)
}

fn unknown_sub(container: &[u8], sub: &[u8]) -> Reply {
    let mut line = b"ERR unknown subcommand '".to_vec();
    line.extend_from_slice(c_text(sub, 128));
    line.extend_from_slice(b"'. Try ");
    line.extend(c_text(container, usize::MAX).iter().map(u8::to_ascii_uppercase));
    line.extend_from_slice(b" HELP.");
    one_line(&line)
}

/// An error that carries the caller's bytes: no line breaks around it or in it.
pub(super) fn error_line(line: &[u8]) -> Reply {
    let end = line.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |at| at + 1);
    one_line(&line[..end])
}

/// Line breaks are blanks, and what is not text is replaced.
fn one_line(line: &[u8]) -> Reply {
    let line: String = String::from_utf8_lossy(line).replace(['\r', '\n'], " ");
    Reply::Error(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
    }
}
