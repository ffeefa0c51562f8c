//! What each kind of server is told and answers. Values only; the transports own the bytes.

pub mod bson;
pub mod mongo;
pub mod redis;

use core::fmt::Debug;

/// A kind of server: the types of what is said to it and by it.
pub trait Backend: Clone + Debug + PartialEq {
    /// One command.
    type Command: Clone + Debug + PartialEq;
    /// The answer to one command.
    type Reply: Clone + Debug + PartialEq;
    /// Something the server says unasked.
    type Push: Clone + Debug + PartialEq;
}
