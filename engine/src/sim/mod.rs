//! Simulated servers, a reference model of a filesystem, and a generator of operations.

pub mod generate;
pub mod harness;
pub mod model;
pub mod ops;
pub mod redis;
