//! Holds the simulated Redis to the real one: the same generated commands run on both and are
//! compared reply by reply, then the whole keyspace is; a difference is shrunk and printed.
#![cfg(feature = "sim")]

#[path = "sim_redis/batches.rs"]
mod batches;
#[path = "sim_redis/commands.rs"]
mod commands;
#[path = "sim_redis/compare.rs"]
mod compare;
#[path = "sim_redis/hostile.rs"]
mod hostile;
#[path = "sim_redis/pushes.rs"]
mod pushes;
#[path = "sim_redis/scripts.rs"]
mod scripts;
mod support;
#[path = "sim_redis/volume.rs"]
mod volume;
