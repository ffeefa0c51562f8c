//! The transport against servers, real and hostile.

mod common;
mod hostile;
mod live;
mod reentrant;
