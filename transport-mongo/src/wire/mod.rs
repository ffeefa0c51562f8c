//! The wire protocol: BSON documents, OP_MSG, OP_COMPRESSED, and the framing of a byte stream.
//!
//! Sources: bsonspec.org 1.1, the OP_MSG and OP_COMPRESSED specifications.

pub mod command;
pub mod compressed;
pub mod frame;
pub mod limits;
pub mod msg;

// BSON is a value type of the engine's; here it is known by its place in the wire protocol.
pub use dbmount_engine::backend::bson::{build, doc};
