//! BSON: reading server bytes in place, writing documents as segments for `writev`.
//!
//! Server bytes are checked once, without recursion, and never copied. Source: bsonspec.org 1.1.

pub mod build;
pub mod doc;

use core::fmt;

pub use build::{DocBuf, Gather, Segments};
pub use doc::{Doc, Element, Value};

/// How deep documents and arrays may nest. A server stores at most 200 levels
/// (`maxBSONDepth`); a reply wraps a stored document in a few more.
pub const MAX_DEPTH: usize = 220;

/// A peer's violation of BSON, of the wire protocol, or of a command's reply shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerError {
    /// Which rule was broken.
    pub what: &'static str,
    /// Byte offset inside the frame or document at which it showed, 0 when it has no place.
    pub at: usize,
}

impl PeerError {
    /// A violation of `what`, seen at byte `at`.
    pub const fn new(what: &'static str, at: usize) -> PeerError {
        PeerError { what, at }
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server broke the protocol: {} (at byte {})", self.what, self.at)
    }
}

impl core::error::Error for PeerError {}

/// A mistake in writing a document, found when it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// A field name or cstring holds a NUL byte.
    NulInName,
    /// Longer than any document may be.
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// Documents and arrays nested deeper than a server takes.
    TooDeep,
    /// `end` without a matching `begin`, or a document finished while one inside it is open.
    Unbalanced,
}
