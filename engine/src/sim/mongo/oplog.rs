//! The log of writes: what is safe and what a crash loses, and the change streams that read it.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::collection::Store;
use super::failure::{CHANGE_STREAM_HISTORY_LOST, Failure};
use super::index::RecordId;
use super::request::SessionId;
use super::update::Description;
use super::value::{Document, Val};
use crate::time::{Duration, Mono, Wall};

/// Entries that are kept, and the bytes of their documents: the log is a ring there, too.
const ENTRIES: usize = 100_000;
const BYTES: usize = 32 << 20;

/// What happened to a document, or to a collection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Insert(Arc<Document>),
    Update(Val, Description),
    Replace(Arc<Document>),
    Delete(Val),
    Drop,
}

/// One change, and how it is taken back.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) namespace: Arc<str>,
    pub(super) record: RecordId,
    pub(super) old: Option<Arc<Document>>,
    pub(super) event: Event,
}

#[derive(Clone, Debug)]
struct Entry {
    namespace: Arc<str>,
    event: Event,
    wall: Wall,
    at: Mono,
    /// What a crash needs, until the write is safe.
    undo: Option<(RecordId, Option<Arc<Document>>)>,
    /// The session and number it was written under.
    numbered: Option<(SessionId, i64)>,
    transaction: bool,
}

impl Entry {
    fn weight(&self) -> usize {
        match &self.event {
            Event::Insert(doc) | Event::Replace(doc) => doc.size(),
            Event::Update(_, it) => it.updated.iter().map(|(_, it)| it.size()).sum(),
            Event::Delete(_) | Event::Drop => 0,
        }
    }
}

/// The log.
#[derive(Clone, Debug, Default)]
pub(super) struct Oplog {
    entries: VecDeque<Entry>,
    /// The number of the first entry that is still there.
    first: u64,
    /// Entries below this number are safe.
    safe: u64,
    bytes: usize,
}

impl Oplog {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn push(
        &mut self,
        write: Write,
        (mono, wall): (Mono, Wall),
        numbered: Option<(SessionId, i64)>,
        transaction: bool,
    ) {
        let Write { namespace, record, old, event } = write;
        let undo = Some((record, old));
        let entry = Entry { namespace, event, wall, at: mono, undo, numbered, transaction };
        self.bytes += entry.weight();
        self.entries.push_back(entry);
        while (self.entries.len() > ENTRIES || self.bytes > BYTES) && self.first < self.safe {
            let gone = self.entries.pop_front();
            self.bytes -= gone.map_or(0, |it| it.weight());
            self.first += 1;
        }
    }

    /// Everything that was written is safe from now on.
    pub(super) fn all_safe(&mut self) {
        self.safe_up_to(self.end());
    }

    /// What is older than the lag is safe.
    pub(super) fn settle(&mut self, now: Mono, lag: Duration) {
        let unsafe_from = (self.safe - self.first) as usize;
        let old = self.entries.iter().skip(unsafe_from);
        let settled = old.take_while(|it| it.at.after(lag) <= now).count() as u64;
        if settled > 0 {
            self.safe_up_to(self.safe + settled);
        }
    }

    fn safe_up_to(&mut self, end: u64) {
        let from = (self.safe - self.first) as usize;
        let count = end.saturating_sub(self.safe) as usize;
        self.entries.iter_mut().skip(from).take(count).for_each(|it| it.undo = None);
        self.safe = self.safe.max(end);
    }

    /// How many writes a crash would lose.
    pub(super) fn unsafe_writes(&self) -> usize {
        (self.end() - self.safe) as usize
    }

    /// Takes back what is not safe, the last first. The numbered writes among it were never made.
    pub(super) fn lose(&mut self, store: &mut Store) -> Vec<(SessionId, i64)> {
        let mut lost = Vec::new();
        while self.end() > self.safe
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.weight();
            if let Some((record, old)) = entry.undo {
                store.make(&entry.namespace).restore(record, old);
            }
            lost.extend(entry.numbered);
        }
        lost
    }
}

/// A change stream over one collection.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) namespace: String,
    /// The next entry to look at.
    at: u64,
    /// Updates come with the document as it is when the event is read.
    look_up: bool,
    /// The collection has gone: one more event, and then the end.
    ended: bool,
}

/// Where a stream is, as a resume token.
fn token(at: u64) -> Document {
    Document::default().with("_data", Val::str(&format!("{at:016X}")))
}

impl Stream {
    /// `options` is the document of `$changeStream`.
    pub(super) fn open(
        namespace: &str,
        options: &Document,
        log: &Oplog,
    ) -> Result<Stream, Failure> {
        let (mut at, mut look_up) = (log.safe, false);
        for (name, value) in &options.0 {
            match (name.as_str(), value) {
                ("fullDocument", value) => match value.as_text() {
                    Some("updateLookup") => look_up = true,
                    Some("default") => {}
                    _ => return Err(Failure::not_simulated("this fullDocument")),
                },
                ("resumeAfter" | "startAfter", Val::Doc(from)) => {
                    let data = from.get("_data").and_then(Val::as_text).unwrap_or_default();
                    at = u64::from_str_radix(data, 16).map_err(|_| {
                        Failure::new(
                            260,
                            "Attempting to resume a change stream with an invalid token",
                        )
                    })?;
                }
                ("startAtOperationTime", Val::Timestamp(_, ordinal)) => at = u64::from(*ordinal),
                _ => {
                    let what = format!("the option {name} of $changeStream");
                    return Err(Failure::not_simulated(&what));
                }
            }
        }
        if at < log.first {
            let message = "Resume of change stream was not possible, as the resume point may no \
                           longer be in the oplog.";
            return Err(Failure::new(CHANGE_STREAM_HISTORY_LOST, message));
        }
        let namespace = String::from(namespace);
        Ok(Stream { namespace, at, look_up, ended: false })
    }

    pub(super) fn token(&self) -> Document {
        token(self.at)
    }

    /// Whether nothing will come any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    /// The events since the last call that are safe; only these are seen.
    pub(super) fn read(
        &mut self,
        log: &Oplog,
        store: &Store,
        limit: usize,
    ) -> Result<Vec<Document>, Failure> {
        if self.at < log.first {
            let message = "the change stream has fallen off the oplog";
            return Err(Failure::new(CHANGE_STREAM_HISTORY_LOST, message));
        }
        let mut events = Vec::new();
        while self.at < log.safe && events.len() < limit && !self.ended {
            let Some(entry) = log.entries.get((self.at - log.first) as usize) else { break };
            self.at += 1;
            if *entry.namespace != *self.namespace {
                continue;
            }
            events.push(self.event(entry, store));
            if entry.event == Event::Drop {
                self.ended = true;
                let end = Document::default()
                    .with("_id", Val::Doc(token(self.at)))
                    .with("operationType", Val::str("invalidate"))
                    .with("clusterTime", Val::Timestamp(seconds(entry.wall), self.at as u32))
                    .with("wallTime", Val::Date(entry.wall.0.div_euclid(1_000_000)));
                events.push(end);
            }
        }
        Ok(events)
    }

    fn event(&self, entry: &Entry, store: &Store) -> Document {
        let (kind, id) = match &entry.event {
            Event::Insert(doc) => ("insert", Some(doc.id())),
            Event::Update(id, _) => ("update", Some(id.clone())),
            Event::Replace(doc) => ("replace", Some(doc.id())),
            Event::Delete(id) => ("delete", Some(id.clone())),
            Event::Drop => ("drop", None),
        };
        let mut out = Document::default()
            .with("_id", Val::Doc(token(self.at)))
            .with("operationType", Val::str(kind))
            .with("clusterTime", Val::Timestamp(seconds(entry.wall), self.at as u32))
            .with("wallTime", Val::Date(entry.wall.0.div_euclid(1_000_000)));
        if entry.transaction
            && let Some((_, number)) = &entry.numbered
        {
            out.set("txnNumber", Val::Int64(*number));
        }
        match &entry.event {
            Event::Insert(doc) | Event::Replace(doc) => {
                out.set("fullDocument", Val::Doc((**doc).clone()));
            }
            Event::Update(id, _) if self.look_up => {
                let now = store.get(&entry.namespace).and_then(|it| it.by_id(id));
                out.set("fullDocument", now.map_or(Val::Null, |it| Val::Doc((**it).clone())));
            }
            Event::Update(..) | Event::Delete(_) | Event::Drop => {}
        }
        let (db, collection) = entry.namespace.split_once('.').unwrap_or(("", ""));
        let namespace =
            Document::default().with("db", Val::str(db)).with("coll", Val::str(collection));
        out.set("ns", Val::Doc(namespace));
        if let Some(id) = id {
            out.set("documentKey", Val::Doc(Document::default().with("_id", id)));
        }
        if let Event::Update(_, it) = &entry.event {
            out.set("updateDescription", Val::Doc(describe(it)));
        }
        out
    }
}

fn seconds(wall: Wall) -> u32 {
    wall.parts().0 as u32
}

fn describe(it: &Description) -> Document {
    let removed = it.removed.iter().map(|name| Val::str(name)).collect();
    let truncated = it.truncated.iter().map(|(name, len)| {
        let one = Document::default().with("field", Val::str(name));
        Val::Doc(one.with("newSize", Val::Int32(*len as i32)))
    });
    Document::default()
        .with("updatedFields", Val::Doc(Document(it.updated.clone())))
        .with("removedFields", Val::Array(removed))
        .with("truncatedArrays", Val::Array(truncated.collect()))
}
