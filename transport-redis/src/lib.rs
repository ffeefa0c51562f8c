//! Redis connections for dbmount: the RESP codec, the connections with their hand-shakes,
//! pipelining, pushes and reconnects. It knows commands and replies and nothing of files.
//!
//! [`Transport`] keeps one connection for metadata and pushes and one for bulk data. Whoever runs
//! the engine calls [`Transport::submit`], which never blocks, from any thread; what comes back
//! is given to a [`Sink`] by the connections' own threads.

#[doc(hidden)]
pub mod fuzz;
pub mod resp;

mod handshake;
mod lane;
mod pipeline;
mod reader;
mod socket;
mod transport;
mod url;

pub use transport::{Options, Sink, Transport};
pub use url::{Address, Endpoint, Secret, UrlError};
