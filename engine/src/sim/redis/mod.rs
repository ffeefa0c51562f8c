//! A deterministic in-memory Redis 7.0 that executes [`Command`]s and answers [`Reply`]s.
//!
//! ```
//! use dbmount_engine::backend::redis::{Command, Reply};
//! use dbmount_engine::sim::redis::{ClientId, Server};
//! use dbmount_engine::Now;
//!
//! let mut server = Server::new(Now::default());
//! let client = ClientId(1);
//! server.execute(Now::default(), client, &Command::plain(["SET", "k", "v"]));
//! let got = server.execute(Now::default(), client, &Command::plain(["GET", "k"]));
//! assert_eq!(got, Reply::Bulk("v".into()));
//! ```
//!
//! # How it differs from redis-server 7.0
//!
//! Everything else that `tests/sim_redis_vs_real.rs` generates is compared reply by reply.
//!
//! | where | here | there | why |
//! |---|---|---|---|
//! | order of `HGETALL`, `HKEYS`, `HVALS`, `SMEMBERS` on `hashtable` encoding, of `SCAN`, `KEYS` | by a fixed hash of the element | by a seeded hash and table size | both are promised to nobody; ours replays |
//! | an error raised by a script | the error alone | ` script: SHA, on @user_script:LINE.` follows | the twin has no Lua lines |
//! | scripts | Rust twins of the known ones; others get an error | Lua | no interpreter here |
//! | `MULTI`, `EXEC`, `WATCH` | not commands: a batch of [`Mode::Atomic`](crate::Mode::Atomic) | commands | the transport sends them, the engine never does |
//! | an argument over `proto-max-bulk-len` | the error as a reply | the error, and the connection closes | a reply is all there is |
//! | keys past their time that nobody looks at | go at [`Server::tick`] | go some at a time, ten times a second | time passes only when it is told to |
//! | a client that takes no pushes | loses them, and is told `InvalidateAll` | is disconnected | there is no connection |
//! | eviction policies | `noeviction` only; `CONFIG SET` refuses the others | eight | a filesystem must not lose files |
//! | `maxmemory` | an estimate of payload and overhead | the allocator's figure | there is no allocator to ask |
//! | `CLIENT TRACKING ON` without `BCAST` | accepted, pushes only after `FLUSHDB`, `FLUSHALL` | per-key tracking | not used |
//! | `SUBSCRIBE` | one reply, for the last channel | one push a channel | a command has one reply here |
//! | options outside those listed in the modules (`ZRANGE BYSCORE`, `XADD MAXLEN`, …) | `ERR syntax error` | work | not used |
//! | `XADD ms-*` when the sequence is used up | the error for an id that is too small | that one or another | the server reports a stale `errno` |
//! | `INFO` | the fields a client looks for | many more | they describe a process |
//! | `ZADD` scores in hexadecimal | refused | read by `strtod` | not worth a parser |
//!
//! [`Command`]: crate::backend::redis::Command
//! [`Reply`]: crate::backend::redis::Reply

mod admin;
mod batch;
mod client;
mod command;
mod cx;
mod db;
mod dict;
mod faults;
mod hashes;
mod keyspace;
mod lists;
mod scripts;
mod server;
mod sets;
mod streams;
mod strings;
mod text;
mod tracking;
mod value;
mod zsets;

pub use scripts::{ScriptContext, Twin, twin};
pub use server::{ClientId, Server, Settings};

use alloc::string::String;

use bytes::Bytes;

use crate::backend::redis::Reply;

/// What a command's function gives: an error goes the short way, by `?`.
type Answer = Result<Reply, Reply>;

const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const SYNTAX: &str = "ERR syntax error";
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// An error reply of this line, its code first.
fn fail(line: &str) -> Reply {
    Reply::Error(String::from(line))
}

/// A status reply.
fn status(text: &str) -> Reply {
    Reply::Status(String::from(text))
}

/// A count or length as a reply.
fn count(n: usize) -> Reply {
    Reply::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A copy that pins nothing else: small payloads arrive as slices of large network buffers.
fn own(bytes: &Bytes) -> Bytes {
    const COPIED: usize = 4096;
    if bytes.len() <= COPIED { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
}
