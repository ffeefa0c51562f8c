//! What a log of a session must know of this layout.

use alloc::vec::Vec;

use bytes::BytesMut;

use crate::backend::bson::{Doc, Segments, Value};
use crate::backend::mongo::{Command, Reply};
use crate::replay::Recorded;
use crate::time::Now;

use super::{GridFs, Options};

impl Recorded for GridFs {
    const NAME: &'static str = "gridfs";
    type Options = Options;

    fn with(options: Options, now: Now) -> Self {
        GridFs::new(options, now)
    }

    fn blank_command(command: &Command) -> Command {
        let mut command = command.clone();
        for doc in command.sequences.iter_mut().flat_map(|it| &mut it.docs) {
            if let Ok(parsed) = Doc::parse(doc.concat()) {
                let mut blank = Segments::default();
                blank.push(blank_doc(&parsed).into());
                *doc = blank;
            }
        }
        command
    }

    fn asks_contents(command: &Command) -> bool {
        command.name() == "find"
    }

    fn weigh(reply: &Reply) -> usize {
        match reply {
            Reply::Doc(doc) => doc.as_bytes().len(),
            Reply::Skipped => 0,
        }
    }

    fn blank_reply(reply: &Reply) -> Reply {
        match reply {
            Reply::Doc(doc) => Reply::Doc(blank_doc(doc)),
            Reply::Skipped => Reply::Skipped,
        }
    }
}

/// A document with zeros in every binary field `data` (of a chunk).
fn blank_doc(doc: &Doc) -> Doc {
    let base = doc.as_bytes().as_ptr() as usize;
    let mut ranges = Vec::new();
    let mut open = alloc::vec![doc.clone()];
    while let Some(doc) = open.pop() {
        for element in &doc {
            match (element.name, &element.value) {
                (_, Value::Document(inner) | Value::Array(inner)) => open.push(inner.clone()),
                // Inner documents and binaries are slices of the outer one's buffer.
                (b"data", Value::Binary { data, .. }) => {
                    let from = data.as_ptr() as usize - base;
                    ranges.push(from..from + data.len());
                }
                _ => {}
            }
        }
    }
    if ranges.is_empty() {
        return doc.clone();
    }
    let mut bytes = BytesMut::from(&doc.as_bytes()[..]);
    for range in ranges {
        bytes[range].fill(0);
    }
    Doc::parse(bytes.freeze()).unwrap_or_else(|_| Doc::empty())
}
