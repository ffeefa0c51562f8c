//! What a command's function works with: the collections, what it has written so far, and the one
//! place where a document is changed.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::failure::{
    BSON_OBJECT_TOO_LARGE, COMMAND_NOT_FOUND, Failure, NOT_WRITABLE_PRIMARY, OUT_OF_DISK_SPACE,
    RETRYABLE, Stop,
};
use super::index::RecordId;
use super::oplog::{Event, Write};
use super::request::Request;
use super::server::{ClientId, Server};
use super::transaction::{Claim, claims, write_conflict};
use super::value::{Document, Val};
use super::{admin, read, write};

/// The largest document there may be, in bytes.
pub(super) const MAX_DOCUMENT: usize = 16 << 20;

/// What a command has done.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) writes: Vec<Write>,
    pub(super) claims: Vec<Claim>,
    /// It is a command that writes, whether or not it found something to change.
    pub(super) is_write: bool,
    /// It has changed something else than documents.
    pub(super) other: bool,
}

/// The surroundings of one command.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) server: &'a mut Server,
    pub(super) client: ClientId,
    pub(super) log: Log,
    /// It runs in a transaction: what others have written that this one does not see.
    pub(super) missed: Option<BTreeSet<Claim>>,
    /// It is numbered, to happen once.
    pub(super) numbered: bool,
}

/// `{ok: 1}`.
pub(super) fn ok() -> Document {
    Document::default().with("ok", Val::Double(1.0))
}

/// Commands a transaction may hold.
const IN_TRANSACTIONS: [&str; 7] =
    ["find", "getMore", "aggregate", "insert", "update", "delete", "findAndModify"];
/// Commands that only a primary executes.
const WRITES: [&str; 9] = [
    "insert",
    "update",
    "delete",
    "findAndModify",
    "create",
    "createIndexes",
    "dropIndexes",
    "drop",
    "dropDatabase",
];

impl Cx<'_> {
    pub(super) fn run(&mut self, request: &Request) -> Result<Document, Stop> {
        let name = request.name.as_str();
        if self.missed.is_some() && !IN_TRANSACTIONS.contains(&name) {
            let text = format!("Cannot run '{name}' in a multi-document transaction.");
            return Err(Failure::new(263, text).into());
        }
        if WRITES.contains(&name) {
            if !self.server.primary {
                let failure = Failure::new(NOT_WRITABLE_PRIMARY, "not primary");
                return Err(failure.labelled(RETRYABLE).into());
            }
            self.log.is_write = true;
        }
        match name {
            "find" => Ok(read::find(self, request)?),
            "getMore" => Ok(read::get_more(self, request)?),
            "killCursors" => Ok(read::kill_cursors(self, request)?),
            "aggregate" => Ok(read::aggregate(self, request)?),
            "count" => Ok(read::count(self, request)?),
            "insert" => write::insert(self, request),
            "update" => write::update(self, request),
            "delete" => write::delete(self, request),
            "findAndModify" => write::find_and_modify(self, request),
            "create" => Ok(admin::create(self, request)?),
            "createIndexes" => Ok(admin::create_indexes(self, request)?),
            "dropIndexes" => Ok(admin::drop_indexes(self, request)?),
            "listIndexes" => Ok(admin::list_indexes(self, request)?),
            "listCollections" => Ok(admin::list_collections(self, request)?),
            "drop" => Ok(admin::drop(self, request)?),
            "dropDatabase" => Ok(admin::drop_database(self, request)?),
            "hello" | "isMaster" | "ismaster" => Ok(admin::hello(self)),
            "ping" | "endSessions" => Ok(ok()),
            "killSessions" => Ok(admin::kill_sessions(self, request)?),
            "buildInfo" => Ok(admin::build_info()),
            "dbStats" => Ok(admin::db_stats(self, request)),
            "collStats" => Ok(admin::coll_stats(self, request)?),
            "commitTransaction" | "abortTransaction" => {
                let text = format!("{name} must be run within a transaction");
                Err(Failure::new(125, text).into())
            }
            other => {
                let failure = Failure::not_simulated(&format!("the command {other}"));
                Err(Failure { code: COMMAND_NOT_FOUND, ..failure }.into())
            }
        }
    }

    /// Changes, makes or removes one document.
    pub(super) fn put(
        &mut self,
        namespace: &Arc<str>,
        record: RecordId,
        new: Option<Arc<Document>>,
        event: Event,
    ) -> Result<(), Stop> {
        if let Some(new) = &new {
            self.check_size(new)?;
        }
        let store = &self.server.store;
        let others = self.missed.is_some() || !self.server.transactions.is_empty();
        let change = match store.get(namespace) {
            Some(collection) => collection.prepare(record, new)?,
            None => self.server.store.make(namespace).prepare(record, new)?,
        };
        let claimed =
            if others { claims(namespace, &self.server.store, &change) } else { Vec::new() };
        self.check_claims(&claimed)?;
        let collection = self.server.store.make(namespace);
        if let Some(duplicate) = collection.taken(&change, namespace) {
            return Err(duplicate.into());
        }
        let old = collection.apply(change);
        self.log.writes.push(Write { namespace: namespace.clone(), record, old, event });
        self.log.claims.extend(claimed);
        Ok(())
    }

    fn check_size(&self, new: &Document) -> Result<(), Failure> {
        let size = new.size();
        if size > MAX_DOCUMENT {
            let text =
                format!("BSONObj size: {size} is invalid. Size must be between 0 and 16793600");
            return Err(Failure::new(BSON_OBJECT_TOO_LARGE, text));
        }
        let disk = self.server.settings.disk;
        if disk > 0 && self.server.store.bytes() + size as u64 > disk {
            let text = "No space left on device: available disk space is less than required";
            return Err(Failure::new(OUT_OF_DISK_SPACE, text));
        }
        Ok(())
    }

    fn check_claims(&self, claimed: &[Claim]) -> Result<(), Stop> {
        let transactions = &self.server.transactions;
        let written = |it: &Claim| transactions.values().any(|open| open.claims.contains(it));
        match &self.missed {
            Some(missed) if claimed.iter().any(|it| missed.contains(it) || written(it)) => {
                Err(write_conflict().into())
            }
            None if claimed.iter().any(written) => Err(Stop::Waits),
            _ => Ok(()),
        }
    }

    pub(super) fn new_record(&mut self) -> RecordId {
        self.server.next_record += 1;
        RecordId(self.server.next_record)
    }

    /// An `_id` for a document that came without.
    pub(super) fn new_id(&mut self) -> Val {
        self.server.next_id += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&(self.server.now.wall.parts().0 as u32).to_be_bytes());
        id[4..].copy_from_slice(&self.server.next_id.to_be_bytes());
        Val::ObjectId(id)
    }
}
