//! The wire protocol: BSON documents, OP_MSG, OP_COMPRESSED, and the framing of a byte stream.
//!
//! Sources: bsonspec.org 1.1, the OP_MSG and OP_COMPRESSED specifications.

pub mod build;
pub mod command;
pub mod compressed;
pub mod doc;
pub mod frame;
pub mod limits;
pub mod msg;
