//! Real mounts of real redis-servers through the built program: what a user sees working, and
//! what a user is told when it cannot work.
//!
//! Every test has a server and a mount of its own (`server.rs`, `mount.rs`), and every wait a
//! deadline. What stands in the assertions is the rule of POSIX or the promise that is checked.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod copies;
#[cfg(test)]
mod editors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod foreign;
#[cfg(test)]
mod git;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod mem;
#[cfg(test)]
#[path = "../../../transport-mongo/tests/mongod/mod.rs"]
mod mongod;
#[cfg(test)]
mod mount;
#[cfg(test)]
mod names;
#[cfg(test)]
mod options;
#[cfg(test)]
mod record;
#[cfg(test)]
mod resp;
#[cfg(test)]
mod server;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod shell;
