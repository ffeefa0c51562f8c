//! MongoDB connections for dbmount: a self-contained wire codec, connection strings, SCRAM,
//! topology, sessions, and the sockets below them.
//!
//! Everything but [`connection`] and the threads of [`lanes`] is sans-IO: bytes, integers of time and random
//! nonces come in as arguments, values go out. So the codec, the connection string parser, the
//! authentication exchange and the topology are tested without a server, from the vectors of
//! the RFCs and the official MongoDB specification tests.
//!
//! | module | what it is |
//! |---|---|
//! | [`wire`] | BSON, OP_MSG, OP_COMPRESSED, framing, limits |
//! | [`uri`] | connection strings |
//! | [`auth`] | SCRAM and the commands that carry it |
//! | [`hello`] | the handshake |
//! | [`topology`] | discovery, monitoring, server selection |
//! | [`session`], [`retry`] | session ids, transactions, what may be sent again |
//! | [`change_stream`] | watching for other writers |
//! | [`connection`] | sockets: connections, pools, monitors, deployments |
//! | [`lanes`] | what an engine's batches travel on |
//! | [`error`] | errors by blame |
//! | [`fuzz`] | bodies of the fuzz targets |
//!
//! Three rules hold everywhere:
//!
//! - **Server bytes are never trusted.** A length is checked against its bound before anything
//!   is allocated for it, nesting is capped, nothing recurses, and what is wrong ends as a
//!   [`error::PeerError`].
//! - **Payloads are never copied.** A chunk goes out as a segment of its own for `writev` and
//!   comes back as a [`bytes::Bytes`] slice of the receive buffer.
//! - **Errors say whose fault it was.** See [`error`].

pub mod auth;
pub mod change_stream;
pub mod connection;
pub mod error;
pub mod fuzz;
pub mod hello;
pub mod lanes;
pub mod retry;
pub mod session;
pub mod topology;
pub mod uri;
pub mod wire;
