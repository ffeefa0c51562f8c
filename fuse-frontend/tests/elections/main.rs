//! Real mounts of GridFS buckets while servers die, are restarted and hold elections: what a
//! program is writing meanwhile arrives whole, once.

#[cfg(test)]
mod elections;
#[cfg(test)]
#[path = "../../../transport-mongo/tests/mongod/mod.rs"]
mod mongod;
#[cfg(test)]
#[path = "../live/mount.rs"]
#[allow(dead_code, reason = "the tests on Redis use all of it, this program a part")]
mod mount;
#[cfg(test)]
mod server;
#[cfg(test)]
#[path = "../live/shell.rs"]
#[allow(dead_code, reason = "the tests on Redis use all of it, this program a part")]
mod shell;
