//! Simulated servers, a reference model of a filesystem, a generator of operations, and plays in
//! which all of them meet.
//!
//! The servers execute the same commands the transports would send and are plain data: cloned,
//! printed and stepped like the engine itself.

pub mod fuzz;
pub mod generate;
pub mod harness;
pub mod model;
pub mod mongo;
pub mod ops;
pub mod play;
pub mod redis;
