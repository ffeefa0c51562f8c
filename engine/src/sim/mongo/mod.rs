//! A deterministic in-memory MongoDB 6.0 that executes [`Command`]s and answers [`Reply`]s: a
//! standalone, or the primary of a replica set.
//!
//! ```
//! use dbmount_engine::Now;
//! use dbmount_engine::backend::mongo::Command;
//! use dbmount_engine::sim::mongo::{ClientId, Server};
//!
//! let mut server = Server::new(Now::default());
//! let mut insert = Command::on("insert", "docs", "fs.files");
//! insert.body().begin_array("documents").begin("0").i32("_id", 1).end().end();
//! server.execute(Now::default(), ClientId(1), &insert);
//! let found = server.execute(Now::default(), ClientId(1), &Command::on("find", "docs", "fs.files"));
//! assert_eq!(found.batch().0.len(), 1);
//! ```
//!
//! What is not built is refused as `not simulated: …`, with code 238, never passed over.
//!
//! | file | what it is for |
//! |---|---|
//! | `server.rs` | the server, sessions, transactions, faults |
//! | `batch.rs` | batches as a transport sends them, change streams as it listens |
//! | `request.rs`, `failure.rs` | commands read, refusals written |
//! | `cx.rs` | which command is which, and the one place where documents are changed |
//! | `read.rs`, `write.rs`, `admin.rs` | the commands |
//! | `collection.rs`, `index.rs` | documents, keys, uniqueness, the way a query takes |
//! | `cursor.rs`, `oplog.rs` | what is still to be handed over; what happened, and what is safe |
//! | `transaction.rs` | what is isolated from what |
//! | `filter.rs`, `project.rs`, `update.rs`, `pipeline.rs`, `expr.rs` | the language |
//! | `diff.rs` | what an update by a pipeline is logged as |
//! | `value.rs` | BSON values and their order |
//!
//! # How it differs from mongod 6.0
//!
//! | where | here | there | why |
//! |---|---|---|---|
//! | a command | executes at once | may let others in between its documents | batches break between commands only |
//! | a write to what an open transaction has written | waits: [`Server::attempt`] is `None`, [`Server::execute`] a conflict | waits | there is no thread to wait |
//! | the order without `sort` or `hint` | that of the plan, chosen by the number of fields an index narrows | that of the plan, chosen by trying some | promised to nobody |
//! | collation, regular expressions, decimals in comparisons | refused; decimals by their bytes | work | not used |
//! | the text of errors | the code's own words, values left out | with values, and "caused by" | nobody reads them but people |
//! | a numbered command with several statements of which one failed | done again as a whole | only what failed | the engine numbers single statements |
//! | DDL in or beside transactions | seen by all at once | refused or waited for | indexes are made before the first file |
//! | cursors | 1,000, not bound to sessions | until idle for ten minutes | a bound |
//! | `$clusterTime`, `operationTime`, `opTime`, `electionId` in replies | left out | there | nothing here reads them |
//! | resume tokens | the place in the log | opaque | nothing here looks inside |
//!
//! [`Command`]: crate::backend::mongo::Command
//! [`Reply`]: crate::backend::mongo::Reply

mod admin;
mod batch;
mod collection;
mod cursor;
mod cx;
mod diff;
mod expr;
mod failure;
mod filter;
mod index;
mod oplog;
mod pipeline;
mod project;
mod read;
mod request;
mod server;
mod transaction;
mod update;
mod value;
mod write;

pub use batch::{Progress, Running, change_stream};
pub use server::{ClientId, Server, Settings};
