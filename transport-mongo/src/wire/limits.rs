//! The bounds of the wire: what a server takes, and what we take from one.

/// Bounds on messages and documents, in bytes and counts. They start at the protocol's defaults
/// and follow the hello reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// `maxMessageSizeBytes`: a whole message with its header. Over it a server drops the
    /// connection.
    pub max_message: usize,
    /// `maxBsonObjectSize`: one stored document.
    pub max_document: usize,
    /// `maxWriteBatchSize`: documents in one write command.
    pub max_batch: usize,
}

/// Bytes of a message header: length, request id, response-to, opcode.
pub const HEADER_LEN: usize = 16;

/// The most any peer may ask us to hold for one message, whatever its hello says.
pub const MAX_MESSAGE: usize = 48_000_000;

/// `maxBsonObjectSize` of every server so far: 16 MiB.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// `maxWriteBatchSize` of every server since 3.6.
pub const MAX_BATCH: usize = 100_000;

/// What a command document may have above `maxBsonObjectSize` (the server's
/// `BSONObjMaxInternalSize`): the command's own fields beside one full-sized document.
pub const COMMAND_SLACK: usize = 16 * 1024;

pub use dbmount_engine::backend::bson::MAX_DEPTH;

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_message: MAX_MESSAGE, max_document: MAX_DOCUMENT, max_batch: MAX_BATCH }
    }
}

impl Limits {
    /// The bounds a hello reply states. Absent or senseless values keep the defaults; a value
    /// above a default is cut to it, so that no server can raise what we allocate.
    pub fn from_hello(
        max_message: Option<i64>,
        max_document: Option<i64>,
        max_batch: Option<i64>,
    ) -> Limits {
        Limits {
            max_message: within(max_message, 4096, MAX_MESSAGE),
            max_document: within(max_document, 1024, MAX_DOCUMENT),
            max_batch: within(max_batch, 1, MAX_BATCH),
        }
    }
}

fn within(stated: Option<i64>, low: usize, high: usize) -> usize {
    match stated.and_then(|n| usize::try_from(n).ok()) {
        Some(n) if n >= low => n.min(high),
        _ => high,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_can_lower_the_bounds_and_never_raise_them() {
        assert_eq!(Limits::from_hello(None, None, None), Limits::default());
        assert_eq!(Limits::from_hello(Some(-1), Some(0), Some(0)), Limits::default());
        let huge = Some(i64::MAX);
        assert_eq!(Limits::from_hello(huge, huge, huge), Limits::default());
        let low = Limits::from_hello(Some(1_000_000), Some(65_536), Some(1_000));
        assert_eq!(low, Limits { max_message: 1_000_000, max_document: 65_536, max_batch: 1_000 });
    }
}
