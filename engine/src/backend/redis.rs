//! Redis commands, replies and pushes as values.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Backend;

/// The Redis family of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redis {}

impl Backend for Redis {
    type Command = Command;
    type Reply = Reply;
    type Push = Push;
}

/// The arguments of a command; the first is its name.
pub type Args = SmallVec<[Bytes; 4]>;

/// One command.
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// A plain command: its name and arguments.
    Plain(Args),
    /// A script. The transport sends `EVALSHA`; when the server answers `NOSCRIPT` it sends the
    /// body in the same place, so the engine never sees that error.
    Script {
        /// Which.
        script: &'static Script,
        /// `KEYS`: every key it touches that is known beforehand.
        keys: Args,
        /// `ARGV`.
        args: Args,
    },
}

impl Command {
    /// A plain command.
    ///
    /// ```
    /// use dbmount_engine::backend::redis::Command;
    /// let get = Command::plain(["GET", "greeting"]);
    /// assert_eq!(format!("{get:?}"), "GET greeting");
    /// ```
    pub fn plain<A: Into<Bytes>>(args: impl IntoIterator<Item = A>) -> Command {
        Command::Plain(args.into_iter().map(Into::into).collect())
    }

    /// How many bytes of payload it carries, for the bounds on what is in flight.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Command::Plain(args) => args.iter().map(Bytes::len).sum(),
            Command::Script { keys, args, .. } => keys.iter().chain(args).map(Bytes::len).sum(),
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args = match self {
            Command::Plain(args) => args,
            Command::Script { script, keys, args } => {
                write!(f, "@{} {}", script.name, keys.len())?;
                for key in keys {
                    write!(f, " ")?;
                    brief(f, key)?;
                }
                if !args.is_empty() {
                    write!(f, " ")?;
                }
                args
            }
        };
        for (i, arg) in args.iter().enumerate() {
            if i > 0 {
                write!(f, " ")?;
            }
            brief(f, arg)?;
        }
        Ok(())
    }
}

/// Writes at most the first 64 bytes, escaped: a log line must not hold a megabyte.
fn brief(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    const SHOWN: usize = 64;
    if bytes.is_empty() {
        return write!(f, "\"\"");
    }
    write!(f, "{}", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
    if bytes.len() > SHOWN {
        write!(f, "…({} bytes)", bytes.len())?;
    }
    Ok(())
}

/// A server-side script. There is a fixed, small number of them, all `static`.
#[derive(PartialEq, Eq)]
pub struct Script {
    /// Its name, unique among the scripts.
    pub name: &'static str,
    /// Its Lua text. The first line may carry flags (`#!lua flags=allow-oom`); a transport leaves
    /// it out for servers that do not know it.
    pub body: &'static str,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.name)
    }
}

/// The answer to one command, the same whether the connection speaks RESP2 or RESP3: maps come
/// flattened, as arrays of key, value, key, value; sets as arrays; doubles as text; booleans as
/// integers 0 and 1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer.
    Int(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// A simple string such as `OK`.
    Status(String),
    /// An error line, its code first (`WRONGTYPE …`).
    Error(String),
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// The bytes of a bulk string or a status.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bulk(bytes) => Some(bytes),
            Reply::Status(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    /// The integer, also when it came as decimal text.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Reply::Int(n) => Some(*n),
            other => core::str::from_utf8(other.as_bytes()?).ok()?.parse().ok(),
        }
    }

    /// The elements of an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) => Some(items),
            _ => None,
        }
    }

    /// How many bytes it carries.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Reply::Nil | Reply::Int(_) => 0,
            Reply::Bulk(bytes) => bytes.len(),
            Reply::Status(text) | Reply::Error(text) => text.len(),
            Reply::Array(items) => items.iter().map(|it| size_of::<Reply>() + it.weight()).sum(),
        }
    }

    /// The error line.
    #[must_use]
    pub fn as_error(&self) -> Option<&str> {
        match self {
            Reply::Error(line) => Some(line),
            _ => None,
        }
    }

    /// The error line of replies that tells most: `EXECABORT` only says that another command of
    /// the same `MULTI` was refused, whose line says why.
    #[must_use]
    pub fn error_among(replies: &[Reply]) -> Option<&str> {
        let lines = || replies.iter().filter_map(Reply::as_error);
        lines().find(|line| !line.starts_with("EXECABORT")).or_else(|| lines().next())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Nil => write!(f, "nil"),
            Reply::Int(n) => write!(f, "{n}"),
            Reply::Bulk(bytes) => brief(f, bytes),
            Reply::Status(text) => write!(f, "+{text}"),
            Reply::Error(line) => write!(f, "-{line}"),
            Reply::Array(items) => f.debug_list().entries(items).finish(),
        }
    }
}

/// Something the server says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// These keys were written, deleted, or expired (`CLIENT TRACKING`).
    Invalidate(Vec<Bytes>),
    /// Everything was (`FLUSHALL`, `FLUSHDB`, or the tracking table was given up).
    InvalidateAll,
    /// A message on a channel.
    Message {
        /// The channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
    },
}
