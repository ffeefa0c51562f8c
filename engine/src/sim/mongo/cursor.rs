//! Cursors: what is left of a query's result, or a change stream.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cx::{Cx, MAX_DOCUMENT, ok};
use super::failure::{CURSOR_NOT_FOUND, Failure};
use super::oplog::Stream;
use super::pipeline::Stage;
use super::value::{Document, Val};

/// Documents of the first batch when nothing was said of it.
pub(super) const FIRST_BATCH: usize = 101;
/// Cursors that are kept; the oldest goes first.
const CURSORS: usize = 1000;

/// An open cursor.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    pub(super) namespace: String,
    pub(super) source: Source,
}

/// Where its documents come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Found(VecDeque<Document>),
    Changes(Stream, Vec<Stage>),
}

impl Cx<'_> {
    pub(super) fn open_cursor(&mut self, cursor: Cursor) -> i64 {
        let cursors = &mut self.server.cursors;
        if cursors.len() >= CURSORS {
            cursors.pop_first();
        }
        let id = self.server.next_cursor;
        self.server.next_cursor += 1;
        cursors.insert(id, cursor);
        id
    }

    /// The next batch of a cursor as a reply; the cursor is gone when it was the last.
    pub(super) fn batch(
        &mut self,
        id: i64,
        field: &str,
        limit: usize,
        close: bool,
    ) -> Result<Document, Failure> {
        let Some(mut cursor) = self.server.cursors.remove(&id) else {
            return Err(Failure::new(CURSOR_NOT_FOUND, format!("cursor id {id} not found")));
        };
        let mut batch = Vec::new();
        let mut over = close;
        let mut resume = None;
        match &mut cursor.source {
            Source::Found(docs) => {
                let mut bytes = 0;
                while batch.len() < limit
                    && let Some(doc) = docs.pop_front()
                {
                    bytes += doc.size();
                    if bytes > MAX_DOCUMENT && !batch.is_empty() {
                        docs.push_front(doc);
                        break;
                    }
                    batch.push(Val::Doc(doc));
                }
                over |= docs.is_empty();
            }
            Source::Changes(stream, stages) => {
                let events = stream.read(&self.server.log, &self.server.store, limit)?;
                let mut events = events;
                for stage in stages {
                    events = stage.run(events, &|_, _, _| Vec::new())?;
                }
                batch.extend(events.into_iter().map(Val::Doc));
                over |= stream.is_over() && batch.is_empty();
                resume = Some(stream.token());
            }
        }
        let mut out = Document::default().with(field, Val::Array(batch));
        if let Some(token) = resume {
            out.set("postBatchResumeToken", Val::Doc(token));
        }
        out.set("id", Val::Int64(if over { 0 } else { id }));
        out.set("ns", Val::str(&cursor.namespace));
        if !over {
            self.server.cursors.insert(id, cursor);
        }
        let mut reply = Document::default().with("cursor", Val::Doc(out));
        reply.0.extend(ok().0);
        Ok(reply)
    }
}
