//! MongoDB commands, replies and pushes as values.

pub mod error;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::Backend;
use super::bson::{Doc, DocBuf, Malformed, Segments, Value};
pub use error::{Refusal, ServerError};

/// MongoDB servers: a standalone, a replica set, or a mongos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mongo {}

impl Backend for Mongo {
    type Command = Command;
    type Reply = Reply;
    type Push = Push;
}

/// How safe a write must be before it is acknowledged. Stated on every write: the server's own
/// default waits for a majority, which costs ten times as much.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Concern {
    /// No write concern: a read, or a command that takes none.
    #[default]
    None,
    /// `w: 1`: the primary has it.
    Acknowledged,
    /// `w: "majority", j: true`: it survives a crash and an election.
    Durable,
}

impl Concern {
    /// Writes it as the command's field `writeConcern`. Inside a transaction only the commit
    /// states one.
    pub fn write(self, body: &mut DocBuf) {
        match self {
            Concern::None => {}
            Concern::Acknowledged => {
                body.begin("writeConcern").i32("w", 1).end();
            }
            Concern::Durable => {
                body.begin("writeConcern").str("w", "majority").bool("j", true).end();
            }
        }
    }
}

/// What a reply must say for the commands behind it to be sent. Only batches that are `Ordered`
/// or `Atomic` look at it: what follows is skipped, and a transaction is aborted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Expect {
    /// Nothing: the next command may be sent before the reply is there.
    #[default]
    Anything,
    /// No error.
    Success,
    /// No error, and `n` is this: so many documents were matched, inserted or deleted.
    Count(i64),
    /// No error, and the first batch of the cursor holds so many documents.
    Found(usize),
}

/// A document sequence (section kind 1): how bulk payloads go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The command field it stands for: `documents`, `updates`, `deletes`.
    pub name: Cow<'static, str>,
    /// The documents. Payloads in them are segments of their own and are never copied.
    pub docs: Vec<Segments>,
}

/// One command. Its body stays open, so that the session and the connection can add their own
/// fields (`lsid`, `txnNumber`, `$clusterTime`).
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    name: &'static str,
    body: DocBuf,
    /// Its document sequences.
    pub sequences: Vec<Sequence>,
    /// How safe its writes must be.
    pub concern: Concern,
    /// What the commands behind it rely on.
    pub expect: Expect,
    /// It writes one document, so a session can number it and the server will apply it once.
    pub retryable: bool,
}

impl Command {
    /// A command on a collection: `{find: "fs.files", $db: "docs"}`.
    ///
    /// ```
    /// use dbmount_engine::backend::mongo::Command;
    /// let mut find = Command::on("find", "docs", "fs.files");
    /// find.body().begin("filter").str("filename", "a.txt").end();
    /// assert_eq!(format!("{find:?}"), r#"{find: "fs.files", $db: "docs", filter: {filename: "a.txt"}}"#);
    /// ```
    #[must_use]
    pub fn on(name: &'static str, db: &str, collection: &str) -> Command {
        let mut body = DocBuf::new();
        body.str(name, collection).str("$db", db);
        Command::of(name, body)
    }

    /// A command on a database: `{dbStats: 1, $db: "docs"}`.
    #[must_use]
    pub fn new(name: &'static str, db: &str) -> Command {
        let mut body = DocBuf::new();
        body.i32(name, 1).str("$db", db);
        Command::of(name, body)
    }

    /// A command whose first field has already been written.
    #[must_use]
    pub fn of(name: &'static str, body: DocBuf) -> Command {
        Command {
            name,
            body,
            sequences: Vec::new(),
            concern: Concern::None,
            expect: Expect::Anything,
            retryable: false,
        }
    }

    /// The same, with what its reply must say.
    #[must_use]
    pub fn expecting(mut self, expect: Expect) -> Command {
        self.expect = expect;
        self
    }

    /// The command's name, its first field.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The open body, for more fields.
    pub fn body(&mut self) -> &mut DocBuf {
        &mut self.body
    }

    /// Its parts, for a codec: name, open body, sequences.
    #[must_use]
    pub fn into_parts(self) -> (&'static str, DocBuf, Vec<Sequence>) {
        (self.name, self.body, self.sequences)
    }

    /// The body as it stands, without the write concern.
    ///
    /// # Errors
    /// A mistake made while writing it.
    pub fn document(&self) -> Result<Doc, Malformed> {
        self.body.clone().finish_doc()
    }

    /// How many bytes it carries, for the bounds on what is in flight.
    #[must_use]
    pub fn weight(&self) -> usize {
        let docs = self.sequences.iter().flat_map(|it| &it.docs);
        self.body.len() + docs.map(Segments::len).sum::<usize>()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.document() {
            Ok(doc) => write!(f, "{doc:?}")?,
            Err(mistake) => write!(f, "{}: {mistake:?}", self.name)?,
        }
        for sequence in &self.sequences {
            write!(f, " {}: ", sequence.name)?;
            let docs = sequence.docs.iter().map(|doc| Doc::parse(doc.concat()));
            f.debug_list()
                .entries(docs.map(|doc| doc.unwrap_or_else(|_| Doc::empty())))
                .finish()?;
        }
        match self.concern {
            Concern::None => Ok(()),
            concern => write!(f, " {concern:?}"),
        }
    }
}

/// The answer to one command.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What the server said.
    Doc(Doc),
    /// The command was not executed: the reply to one before it did not say what was expected.
    Skipped,
}

impl Reply {
    /// The server's words; the empty document for what was skipped.
    #[must_use]
    pub fn doc(&self) -> Doc {
        match self {
            Reply::Doc(doc) => doc.clone(),
            Reply::Skipped => Doc::empty(),
        }
    }

    /// The error in it, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<ServerError> {
        match self {
            Reply::Doc(doc) => ServerError::from_reply(doc),
            Reply::Skipped => None,
        }
    }

    /// `n`: how many documents were matched, inserted or deleted; 0 when there is none.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.doc().get("n").and_then(|n| n.as_i64()).unwrap_or(0)
    }

    /// The documents of a cursor's batch, and its id for more of them (0: there are no more).
    #[must_use]
    pub fn batch(&self) -> (Vec<Doc>, i64) {
        let doc = self.doc();
        let Some(Value::Document(cursor)) = doc.get("cursor") else { return (Vec::new(), 0) };
        let mut docs = Vec::new();
        let mut id = 0;
        for element in &cursor {
            match (element.name, &element.value) {
                (b"id", value) => id = value.as_i64().unwrap_or(0),
                (b"firstBatch" | b"nextBatch", Value::Array(batch)) => {
                    docs = batch.iter().filter_map(|it| it.value.as_doc().cloned()).collect();
                }
                _ => {}
            }
        }
        (docs, id)
    }

    /// Whether it says what a command expects.
    #[must_use]
    pub fn meets(&self, expect: Expect) -> bool {
        match expect {
            Expect::Anything => true,
            _ if self == &Reply::Skipped || self.error().is_some() => false,
            Expect::Success => true,
            Expect::Count(count) => self.count() == count,
            Expect::Found(count) => self.batch().0.len() == count,
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Doc(doc) => write!(f, "{doc:?}"),
            Reply::Skipped => f.write_str("skipped"),
        }
    }
}

/// Something the server says unasked: the change stream over the bucket's files collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// A change event (change streams specification): `operationType`, `documentKey`, and with
    /// them `fullDocument` or `updateDescription`.
    Change(Doc),
    /// Events may have been missed: nothing that was known before is sure.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(write: impl FnOnce(&mut DocBuf)) -> Reply {
        let mut doc = DocBuf::new();
        write(&mut doc);
        Reply::Doc(doc.finish_doc().unwrap())
    }

    #[test]
    fn expectations() {
        let ok = reply(|it| {
            it.i32("n", 1).f64("ok", 1.0);
        });
        assert!(ok.meets(Expect::Count(1)) && ok.meets(Expect::Success));
        assert!(!ok.meets(Expect::Count(0)) && ok.meets(Expect::Anything));
        let found = reply(|it| {
            it.begin("cursor").i64("id", 0).begin_array("firstBatch").begin("0").end().end().end();
            it.i32("ok", 1);
        });
        assert!(found.meets(Expect::Found(1)) && !found.meets(Expect::Found(0)));
        let refused = reply(|it| {
            it.i32("ok", 1).begin_array("writeErrors").begin("0").i32("code", 11_000).end().end();
        });
        assert!(!refused.meets(Expect::Success) && refused.meets(Expect::Anything));
        assert_eq!(refused.error().map(|it| it.code), Some(11_000));
        assert!(!Reply::Skipped.meets(Expect::Success) && Reply::Skipped.error().is_none());
    }

    #[test]
    fn write_concerns() {
        let said = |concern: Concern| {
            let mut body = DocBuf::new();
            concern.write(&mut body);
            alloc::format!("{:?}", body.finish_doc().unwrap())
        };
        assert_eq!(said(Concern::None), "{}");
        assert_eq!(said(Concern::Acknowledged), "{writeConcern: {w: Int32(1)}}");
        let durable = "{writeConcern: {w: \"majority\", j: Bool(true)}}";
        assert_eq!(said(Concern::Durable), durable);
    }
}
