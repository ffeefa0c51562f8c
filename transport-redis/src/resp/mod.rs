//! The Redis serialisation protocol, versions 2 and 3: bytes to replies and commands to bytes.

use std::fmt;
use std::io;

use dbmount_engine::backend::redis::{Push, Reply};

mod decode;
mod encode;

pub use decode::Decoder;
pub use encode::Outbox;

/// One thing a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The answer to the oldest command that has none yet.
    Reply(Reply),
    /// Something it says unasked (RESP3's `>`): its kind, then its fields.
    Push(Vec<Reply>),
}

/// What a push means to the engine; `None` for the kinds that it has no use for.
#[must_use]
pub fn push(mut fields: Vec<Reply>) -> Option<Push> {
    match (fields.first().and_then(Reply::as_bytes)?, fields.len()) {
        (b"invalidate", 2) => match fields.pop()? {
            Reply::Nil => Some(Push::InvalidateAll),
            Reply::Array(keys) => {
                let bytes = |key| match key {
                    Reply::Bulk(key) => Some(key),
                    _ => None,
                };
                // A key that cannot be read is a change that cannot be placed: drop everything.
                let keys: Option<Vec<_>> = keys.into_iter().map(bytes).collect();
                Some(keys.map_or(Push::InvalidateAll, Push::Invalidate))
            }
            _ => Some(Push::InvalidateAll),
        },
        (b"message", 3) | (b"pmessage", 4) | (b"smessage", 3) => {
            match (fields.pop()?, fields.pop()?) {
                (Reply::Bulk(payload), Reply::Bulk(channel)) => {
                    Some(Push::Message { channel, payload })
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// What a server may make us hold for one reply. All of it is checked before memory is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest single string in bytes. A server's own limit is 512 MiB unless its
    /// `proto-max-bulk-len` says otherwise.
    pub bulk: usize,
    /// The bytes of all strings of one reply together.
    pub frame: usize,
    /// The elements of all arrays, maps and sets of one reply together.
    pub elements: usize,
}

impl Limits {
    /// Deeper nesting than this is refused. Nothing Redis sends comes near it.
    pub const DEPTH: usize = 32;
    /// The longest line (a number, a status, an error) in bytes.
    pub const LINE: usize = 16 * 1024;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bulk: 513 << 20, frame: 1 << 30, elements: 16 << 20 }
    }
}

/// Bytes that are not what a Redis server sends. The connection they came on is useless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A value began with a byte that begins no value.
    Marker(u8),
    /// A line without an end.
    LineTooLong,
    /// A line that ended in a bare line feed.
    LineEnd,
    /// A number, boolean or null that is none; what stood there, shortened.
    Malformed(String),
    /// A string longer than the limit.
    TooLong(u64),
    /// More elements than the limit.
    TooMany(u64),
    /// Nested deeper than [`Limits::DEPTH`].
    TooDeep,
    /// A string that did not end where its length said.
    Unterminated,
    /// A push inside another value.
    NestedPush,
    /// A reply when no command was waiting for one.
    Unasked,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marker(byte) => write!(f, "a value begins with '{}'", byte.escape_ascii()),
            Self::LineTooLong => write!(f, "a line is longer than {} bytes", Limits::LINE),
            Self::LineEnd => write!(f, "a line ends without a carriage return"),
            Self::Malformed(text) => write!(f, "'{text}' is not a value"),
            Self::TooLong(len) => write!(f, "a string of {len} bytes is over the limit"),
            Self::TooMany(count) => write!(f, "{count} elements are over the limit"),
            Self::TooDeep => write!(f, "values are nested deeper than {}", Limits::DEPTH),
            Self::Unterminated => write!(f, "a string does not end where its length says"),
            Self::NestedPush => write!(f, "a push stands inside another value"),
            Self::Unasked => write!(f, "a reply came that nothing had asked for"),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// Where a [`Decoder`] gets its bytes: a socket, or a slice in tests.
pub trait Source {
    /// Fills some of `room`, which is never empty. 0 is the end.
    ///
    /// # Errors
    /// Those of the source, `WouldBlock` among them.
    fn fill(&mut self, room: &mut [u8]) -> io::Result<usize>;

    /// Appends to `body` within its spare capacity, which is never empty. 0 is the end.
    ///
    /// # Errors
    /// As for [`Source::fill`].
    fn append(&mut self, body: &mut Vec<u8>) -> io::Result<usize>;
}

impl Source for &[u8] {
    fn fill(&mut self, room: &mut [u8]) -> io::Result<usize> {
        io::Read::read(self, room)
    }

    fn append(&mut self, body: &mut Vec<u8>) -> io::Result<usize> {
        let n = self.len().min(body.capacity() - body.len());
        let (now, later) = self.split_at(n);
        body.extend_from_slice(now);
        *self = later;
        Ok(n)
    }
}
