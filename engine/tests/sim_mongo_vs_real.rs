//! Holds the simulated MongoDB to the real one, a standalone and a replica set of one: the same
//! generated commands run on both and are compared reply by reply, and so are the events of a
//! change stream and the batches of the GridFS layout itself. A difference is shrunk and printed.
#![cfg(feature = "sim")]

#[path = "sim_mongo/commands.rs"]
mod commands;
#[path = "sim_mongo/compare.rs"]
mod compare;
#[path = "sim_mongo/layout.rs"]
mod layout;
#[path = "../../transport-mongo/tests/mongod/mod.rs"]
mod mongod;
#[path = "sim_mongo/streams.rs"]
mod streams;
#[path = "sim_mongo/transactions.rs"]
mod transactions;
#[path = "sim_mongo/values.rs"]
mod values;
