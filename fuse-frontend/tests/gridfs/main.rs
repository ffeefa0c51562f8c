//! Real mounts of GridFS buckets on a real mongod: what a user sees working, and what a user is
//! told when it cannot work.
//!
//! Every test has a server and a mount of its own, and every wait a deadline. Most run twice, on a
//! standalone server and on a replica set of one member (`server.rs`), which differ in
//! transactions and in how changes of others become known. What a driver does is done by PyMongo
//! (`driver.rs`).

#[cfg(test)]
mod copies;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod driver;
#[cfg(test)]
mod elections;
#[cfg(test)]
#[path = "../live/stack.rs"]
mod everywhere;
#[cfg(test)]
mod gridfuse;
#[cfg(test)]
mod interchange;
#[cfg(test)]
mod live_view;
#[cfg(test)]
mod malformed;
#[cfg(test)]
#[path = "../../../transport-mongo/tests/mongod/mod.rs"]
mod mongod;
#[cfg(test)]
#[path = "../live/mount.rs"]
#[allow(dead_code, reason = "the tests on Redis use all of it, this program a part")]
mod mount;
#[cfg(test)]
#[path = "../live/suites.rs"]
mod outside;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod server;
#[cfg(test)]
mod session;
#[cfg(test)]
#[path = "../live/shell.rs"]
#[allow(dead_code, reason = "the tests on Redis use all of it, this program a part")]
mod shell;
#[cfg(test)]
mod spec;
#[cfg(test)]
mod stack;
#[cfg(test)]
mod suites;
#[cfg(test)]
mod tree;
