//! Change streams as a pure state machine: which command to send next, what a reply tells, and
//! what to do when the stream breaks.
//!
//! Source: the change streams specification.

use crate::error::{CHANGE_STREAM_NEEDS_REPLICA_SET, Error, PeerError, UNAUTHORIZED};
use crate::wire::build::DocBuf;
use crate::wire::command::{Command, CursorBatch};
use crate::wire::doc::{Doc, Value};

/// A change stream over a database or one collection of it.
#[derive(Debug, Clone)]
pub struct ChangeStream {
    db: String,
    /// `None`: the whole database.
    collection: Option<String>,
    /// Stages behind `$changeStream`: an array of documents.
    pipeline: Doc,
    batch: i32,
    /// Updates come with the document as it is when the event is read.
    look_up: bool,
    cursor: i64,
    /// Where to take up again.
    resume_token: Option<Doc>,
    /// The operation time of the first reply: where to take up again before any event.
    started_at: Option<(u32, u32)>,
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterError {
    /// Open it again where it broke: nothing is lost.
    Resume,
    /// Open it afresh and drop all that is cached: events are lost for good.
    Restart,
    /// This deployment or user has no change streams: fall back to revalidation.
    Unavailable,
    /// Nothing helps.
    Fatal,
}

/// The label servers from 4.4 on put on errors a stream survives.
const RESUMABLE: &str = "ResumableChangeStreamError";

/// Codes after which older servers' streams can be resumed (change streams spec, "Resumable
/// Error"), `CursorNotFound` (43) among them, which counts for every server.
const RESUMABLE_CODES: [i32; 18] = [
    6, 7, 89, 91, 189, 262, 9_001, 10_107, 11_600, 11_602, 13_435, 13_436, 63, 150, 13_388, 234,
    133, 43,
];

/// `ChangeStreamFatalError`, `ChangeStreamHistoryLost`, `CappedPositionLost`,
/// `InvalidResumeToken`: where it broke is no longer in the oplog.
const LOST: [i32; 4] = [280, 286, 136, 260];

impl ChangeStream {
    /// A stream over `db`, or over one collection of it. `pipeline` is an array of further
    /// stages; they must not change `_id`, which is the resume token.
    pub fn new(db: &str, collection: Option<&str>, pipeline: Doc) -> ChangeStream {
        ChangeStream {
            db: db.to_owned(),
            collection: collection.map(str::to_owned),
            pipeline,
            batch: 0,
            look_up: false,
            cursor: 0,
            resume_token: None,
            started_at: None,
        }
    }

    /// Takes at most so many events a reply; 0 leaves it to the server.
    #[must_use]
    pub fn with_batch(mut self, batch: i32) -> ChangeStream {
        self.batch = batch;
        self
    }

    /// Has the server add the document to each update, as it is by then (`updateLookup`).
    #[must_use]
    pub fn with_documents(mut self) -> ChangeStream {
        self.look_up = true;
        self
    }

    /// Whether a cursor is open on the server.
    pub fn is_open(&self) -> bool {
        self.cursor != 0
    }

    /// Where to take it up again, for keeping across restarts.
    pub fn resume_token(&self) -> Option<&Doc> {
        self.resume_token.as_ref()
    }

    /// The `aggregate` that opens it, at the last event seen if there is one.
    pub fn open(&self) -> Command {
        let mut command = match &self.collection {
            Some(collection) => Command::on("aggregate", &self.db, collection),
            None => Command::new("aggregate", &self.db),
        };
        let body = command.body();
        body.begin_array("pipeline").begin("0").begin("$changeStream");
        match (&self.resume_token, self.started_at) {
            (Some(token), _) => body.doc("resumeAfter", token),
            (None, Some((seconds, ordinal))) => {
                body.timestamp("startAtOperationTime", seconds, ordinal)
            }
            (None, None) => body,
        };
        if self.look_up {
            body.str("fullDocument", "updateLookup");
        }
        body.end().end();
        for (i, stage) in self.pipeline.iter().enumerate() {
            body.value(&(i + 1).to_string(), &stage.value);
        }
        body.end().begin("cursor");
        self.write_batch(body);
        body.end();
        // Only what a majority has may be seen: it cannot be rolled back.
        body.begin("readConcern").str("level", "majority").end();
        command
    }

    /// The `getMore` that waits up to `max_await_ms` for events. With `exhaust` the server goes
    /// on sending replies without being asked again.
    pub fn more(&self, max_await_ms: i64, exhaust: bool) -> Command {
        let collection = self.collection.as_deref().unwrap_or("$cmd.aggregate");
        let mut command = Command::get_more(&self.db, collection, self.cursor, self.batch);
        command.body().i64("maxTimeMS", max_await_ms);
        if exhaust {
            command.allow_exhaust();
        }
        command
    }

    fn write_batch(&self, body: &mut DocBuf) {
        if self.batch > 0 {
            body.i32("batchSize", self.batch);
        }
    }

    /// Takes a reply to either command and gives its events, in order, as slices of it.
    ///
    /// # Errors
    /// A reply of another shape; an event without a resume token.
    pub fn on_reply(&mut self, reply: &Doc) -> Result<Vec<Doc>, PeerError> {
        let batch = CursorBatch::from_reply(reply)
            .ok_or(PeerError::new("a change stream reply without a cursor", 0))?;
        if self.started_at.is_none()
            && let Some(Value::Timestamp(seconds, ordinal)) = reply.get("operationTime")
        {
            self.started_at = Some((seconds, ordinal));
        }
        self.cursor = batch.id;
        let events: Vec<Doc> = batch.docs().collect();
        let last = match events.last() {
            Some(event) => match event.get("_id") {
                Some(Value::Document(token)) => Some(token),
                _ => return Err(PeerError::new("a change event without a resume token", 0)),
            },
            None => None,
        };
        // The token behind the batch is newer than the last event's.
        if let Some(token) = batch.resume_token.or(last) {
            self.resume_token = Some(token.detached());
        }
        Ok(events)
    }

    /// Whether an event says that the stream ends here (`invalidate`: what it watched is gone).
    pub fn is_invalidate(event: &Doc) -> bool {
        event.get("operationType").is_some_and(|kind| kind.as_str() == Some("invalidate"))
    }

    /// What to do after an error. Forgets what the answer makes useless, so that
    /// [`ChangeStream::open`] gives the right command.
    pub fn on_error(&mut self, error: &Error) -> AfterError {
        self.cursor = 0;
        let after = match error {
            Error::Link(_) => AfterError::Resume,
            Error::Server(error) if LOST.contains(&error.code) => AfterError::Restart,
            Error::Server(error)
                if error.has_label(RESUMABLE) || RESUMABLE_CODES.contains(&error.code) =>
            {
                AfterError::Resume
            }
            Error::Server(error)
                if [CHANGE_STREAM_NEEDS_REPLICA_SET, UNAUTHORIZED].contains(&error.code) =>
            {
                AfterError::Unavailable
            }
            _ => AfterError::Fatal,
        };
        if after == AfterError::Restart {
            self.resume_token = None;
            self.started_at = None;
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerError;
    use crate::wire::frame::RequestId;
    use crate::wire::limits::Limits;

    fn body(command: Command) -> Doc {
        let bytes = command.encode(RequestId(1), &Limits::default()).unwrap().concat();
        Doc::parse(bytes.slice(21..)).unwrap()
    }

    fn stage(stream: &ChangeStream) -> Doc {
        let sent = body(stream.open());
        let pipeline = sent.get("pipeline").unwrap();
        let first = pipeline.as_array().unwrap().get("0").unwrap();
        first.as_doc().unwrap().get("$changeStream").unwrap().as_doc().unwrap().clone()
    }

    fn reply(events: &[&str], token: Option<&str>) -> Doc {
        let mut doc = DocBuf::new();
        doc.begin("cursor").i64("id", 9).begin_array("nextBatch");
        for (i, event) in events.iter().enumerate() {
            doc.begin(&i.to_string()).begin("_id").str("_data", event).end().end();
        }
        doc.end();
        if let Some(token) = token {
            doc.begin("postBatchResumeToken").str("_data", token).end();
        }
        doc.end().timestamp("operationTime", 5, 6);
        doc.finish_doc().unwrap()
    }

    #[test]
    fn it_resumes_behind_the_last_batch() {
        let mut stream = ChangeStream::new("db", Some("fs.files"), Doc::empty());
        assert!(stage(&stream).is_empty() && !stream.is_open());
        assert!(stream.on_reply(&reply(&[], None)).unwrap().is_empty());
        assert!(stream.is_open());
        let at = stage(&stream).get("startAtOperationTime") == Some(Value::Timestamp(5, 6));
        assert!(at, "before any event, at the time it was opened");
        assert_eq!(stream.on_reply(&reply(&["a", "b"], None)).unwrap().len(), 2);
        let token = |stream: &ChangeStream| format!("{:?}", stage(stream).get("resumeAfter"));
        assert!(token(&stream).contains("\"b\""));
        stream.on_reply(&reply(&["c"], Some("z"))).unwrap();
        assert!(token(&stream).contains("\"z\""));
        assert_eq!(body(stream.more(1000, false)).get("getMore"), Some(Value::Int64(9)));
        assert!(stream.on_reply(&Doc::empty()).is_err());
    }

    #[test]
    fn errors_say_how_to_go_on() {
        let mut stream = ChangeStream::new("db", None, Doc::empty());
        stream.on_reply(&reply(&["a"], None)).unwrap();
        let mut after = |code| stream.on_error(&ServerError { code, ..Default::default() }.into());
        assert_eq!(after(43), AfterError::Resume);
        assert_eq!(after(40_573), AfterError::Unavailable);
        assert_eq!(after(2), AfterError::Fatal);
        assert_eq!(after(286), AfterError::Restart);
        assert!(stage(&stream).is_empty(), "nothing to resume from any more");
    }
}
