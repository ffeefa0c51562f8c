//! The frontend of dbmount: the command line, the FUSE session, and the only loop and clock.
//!
//! | module | what lives there |
//! |---|---|
//! | [`driver`] | steps the engine, answers the kernel, keeps the timer |
//! | [`machine`] | the seams of the driver: machine, transport, sink, clock |
//! | [`adapter`], [`reply`], [`convert`] | FUSE operations to requests, responses to replies |
//! | [`invalidate`] | what the kernel is told to forget |
//! | [`sim`] | the transport of `mem:` mounts |

pub mod adapter;
pub mod convert;
pub mod driver;
pub mod invalidate;
pub mod kernel;
pub mod machine;
pub mod mountpoint;
pub mod reply;
pub mod sim;
