//! Authentication: the SCRAM exchange, and the commands that carry it.

pub mod conversation;
pub mod scram;
