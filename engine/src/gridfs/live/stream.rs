//! What a transport adds to a `$changeStream`: whose changes are told, and what of them.

use alloc::format;

use crate::backend::bson::{Doc, DocBuf};

use super::super::{OURS, ours};

/// [`change_stream_pipeline`] behind stages that leave out what a session did itself. Its writer
/// knows that already, and the server need not look the documents up: the first stage reads only
/// what the server has before it does.
#[must_use]
pub fn change_stream_of_others(session: u64) -> Doc {
    let session = session as i64;
    let mut stages = DocBuf::new();
    // See `own_mark`. The names of the fields hold dots, so all of them are looked at.
    stages.begin("0").begin("$match").begin("$expr").begin_array("$not").begin("0");
    stages.begin_array("$in").i64("0", session).begin("1").begin("$map");
    stages.begin("input").begin("$objectToArray").begin_array("$ifNull");
    stages.str("0", "$updateDescription.updatedFields").begin("1").end().end().end().end();
    stages.str("in", "$$this.v.s").end().end().end().end().end().end().end().end();
    stages.begin("1").begin("$match").begin_array("$or");
    stages.begin("0").begin("operationType").begin_array("$nin");
    stages.str("0", "insert").str("1", "replace").end().end().end();
    stages.begin("1");
    for mark in ["w.s", "gone.s"] {
        stages.begin(&format!("fullDocument.{}", ours(mark))).i64("$ne", session).end();
    }
    stages.end().end().end().end();
    for (n, stage) in change_stream_pipeline().iter().enumerate() {
        stages.value(&format!("{}", n + 2), &stage.value);
    }
    stages.finish_doc().unwrap_or_else(|_| Doc::empty())
}

/// The stages behind `$changeStream` that a transport adds: what the layout reads of an event,
/// and nothing that may be large.
#[must_use]
pub fn change_stream_pipeline() -> Doc {
    let mut stages = DocBuf::new();
    stages.begin("0").begin("$project").i32("_id", 1).i32("operationType", 1).i32("documentKey", 1);
    stages.i32("updateDescription.updatedFields", 1);
    for field in ["_id", "filename", "length", "chunkSize", "uploadDate", "stat", "visible", OURS] {
        stages.i32(&format!("fullDocument.{field}"), 1);
    }
    stages.end().end();
    stages.finish_doc().unwrap_or_else(|_| Doc::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_changes_are_left_out_before_anything_else_is_done() {
        let stages = change_stream_of_others(u64::MAX);
        let stage = |n: usize| stages.iter().nth(n).and_then(|it| it.value.as_doc().cloned());
        let matching = |n: usize| stage(n)?.get("$match")?.as_doc().cloned();
        assert!(matching(0).is_some_and(|it| it.get("$expr").is_some()));
        assert!(matching(1).is_some_and(|it| it.get("$or").is_some()));
        assert_eq!(stage(2), change_stream_pipeline().get("0").and_then(|it| it.as_doc().cloned()));
        assert_eq!(stages.iter().count(), 3);
    }
}
