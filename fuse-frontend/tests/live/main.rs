//! Real mounts of real redis-servers through the built program: what a user sees working, and
//! what a user is told when it cannot work.
//!
//! Every test has a server and a mount of its own (`server.rs`, `mount.rs`), and every wait a
//! deadline. What stands in the assertions is the rule of POSIX or the promise that is checked.

mod bad_input;
mod copies;
mod editors;
mod faults;
mod foreign;
mod git;
mod hostile;
mod mount;
mod options;
mod resp;
mod server;
mod sharing;
mod shell;
