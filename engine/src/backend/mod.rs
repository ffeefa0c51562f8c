//! What each kind of server is told and answers. Values only; the transports own the bytes.

pub mod bson;
pub mod mongo;
pub mod redis;

use core::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of server: the types of what is said to it and by it.
pub trait Backend: Clone + Debug + PartialEq {
    /// One command. In a replay log it is only compared, so long arguments are told by digest.
    type Command: Clone + Debug + PartialEq + Serialize;
    /// The answer to one command.
    type Reply: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// Something the server says unasked.
    type Push: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
}
