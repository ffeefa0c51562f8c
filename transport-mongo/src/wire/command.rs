//! Commands: what a request's body and sequences look like before they are numbered and sent.

use std::borrow::Cow;

use super::build::{DocBuf, Segments};
use super::doc::Doc;
use super::frame::RequestId;
use super::limits::Limits;
use super::msg::{Flags, Request, Sequence};
use crate::error::Misuse;

/// A command being put together. The body stays open, so that the session and the connection
/// can add their own fields (`lsid`, `txnNumber`, `$clusterTime`) before it is sent.
///
/// ```
/// use dbmount_transport_mongo::wire::command::Command;
/// let mut find = Command::on("find", "docs", "fs.files");
/// find.body().begin("filter").str("filename", "a.txt").end().i32("limit", 1);
/// assert_eq!(find.name(), "find");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    name: &'static str,
    body: DocBuf,
    sequences: Vec<Sequence>,
    flags: Flags,
}

impl Command {
    /// A command whose first value is 1, against database `db`: `{hello: 1, $db: "admin"}`.
    pub fn new(name: &'static str, db: &str) -> Command {
        let mut body = DocBuf::new();
        body.i32(name, 1).str("$db", db);
        Command { name, body, sequences: Vec::new(), flags: Flags::NONE }
    }

    /// A command against a collection: `{find: "fs.files", $db: "docs"}`.
    pub fn on(name: &'static str, db: &str, collection: &str) -> Command {
        let mut body = DocBuf::new();
        body.str(name, collection).str("$db", db);
        Command { name, body, sequences: Vec::new(), flags: Flags::NONE }
    }

    /// A `getMore` on a cursor, its batch bounded by count when `batch` is not 0.
    pub fn get_more(db: &str, collection: &str, cursor: i64, batch: i32) -> Command {
        let mut body = DocBuf::new();
        body.i64("getMore", cursor).str("collection", collection).str("$db", db);
        if batch > 0 {
            body.i32("batchSize", batch);
        }
        Command { name: "getMore", body, sequences: Vec::new(), flags: Flags::NONE }
    }

    /// A command whose first field holds something else than 1 or a collection:
    /// `{endSessions: [..], $db: "admin"}`.
    pub fn of(name: &'static str, db: &str, value: impl FnOnce(&mut DocBuf, &str)) -> Command {
        let mut body = DocBuf::new();
        value(&mut body, name);
        body.str("$db", db);
        Command { name, body, sequences: Vec::new(), flags: Flags::NONE }
    }

    /// The command's name, its first field.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The open body, for more fields.
    pub fn body(&mut self) -> &mut DocBuf {
        &mut self.body
    }

    /// Adds a document sequence (`documents`, `updates`, `deletes`): payloads in it are sent
    /// without a copy, and it does not count towards the body's document bound.
    pub fn sequence(&mut self, name: impl Into<Cow<'static, str>>, docs: Vec<Segments>) {
        self.sequences.push(Sequence { name: name.into(), docs });
    }

    /// Takes several replies to this one request (`hello` with `topologyVersion`, `getMore`).
    pub fn allow_exhaust(&mut self) {
        self.flags = self.flags.with(Flags::EXHAUST_ALLOWED);
    }

    /// Wants no reply at all (`w: 0` writes).
    pub fn without_reply(&mut self) {
        self.flags = self.flags.with(Flags::MORE_TO_COME);
    }

    /// The flags it will be sent with.
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// Encodes it as request `id`.
    ///
    /// # Errors
    /// A mistake made while writing the body, or anything over `limits`.
    pub fn encode(self, id: RequestId, limits: &Limits) -> Result<Segments, Misuse> {
        let body = self.body.finish()?;
        Request { flags: self.flags, body, sequences: self.sequences }.encode(id, limits)
    }
}

/// The engine's command as it stands; its write concern is the connection's to add, since a
/// transaction states one only when it commits.
impl From<dbmount_engine::backend::mongo::Command> for Command {
    fn from(command: dbmount_engine::backend::mongo::Command) -> Command {
        let (name, body, sequences) = command.into_parts();
        Command { name, body, sequences, flags: Flags::NONE }
    }
}

/// A cursor's batch inside a reply: `{cursor: {id, ns, firstBatch | nextBatch}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorBatch {
    /// The cursor to ask for more, 0 when it is exhausted.
    pub id: i64,
    /// The documents: an array, read in place.
    pub batch: Doc,
    /// Where a change stream can be taken up again (`postBatchResumeToken`).
    pub resume_token: Option<Doc>,
}

impl CursorBatch {
    /// Finds the cursor in a reply, `None` when it holds none or one of another shape.
    pub fn from_reply(reply: &Doc) -> Option<CursorBatch> {
        let cursor = reply.get("cursor")?;
        let (mut id, mut batch, mut resume_token) = (None, None, None);
        for element in cursor.as_doc()?.iter() {
            match element.name {
                b"id" => id = element.value.as_i64(),
                b"firstBatch" | b"nextBatch" => batch = element.value.as_array().cloned(),
                b"postBatchResumeToken" => resume_token = element.value.as_doc().cloned(),
                _ => {}
            }
        }
        Some(CursorBatch { id: id?, batch: batch?, resume_token })
    }

    /// The documents of the batch; anything else in it is skipped.
    pub fn docs(&self) -> impl Iterator<Item = Doc> + '_ {
        self.batch.iter().filter_map(|e| e.value.as_doc().cloned())
    }
}
