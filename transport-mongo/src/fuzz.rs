//! Bodies of the fuzz targets: each takes arbitrary bytes and asserts what must hold for all of
//! them. They live here so that a target is one line and the tests run them too.

use bytes::Bytes;

use crate::auth::conversation::{Conversation, Step};
use crate::auth::scram::KeyCache;
use crate::change_stream::ChangeStream;
use crate::error::ServerError;
use crate::hello::HelloReply;
use crate::uri::{ConnectionString, Mechanism};
use crate::wire::command::CursorBatch;
use crate::wire::doc::{Doc, Value};
use crate::wire::frame::Framer;
use crate::wire::limits::{Limits, MAX_DEPTH};
use crate::wire::msg::Message;

/// A server's byte stream, in pieces whose sizes the bytes themselves choose.
pub fn stream(data: &[u8]) {
    let mut framer = Framer::new(Limits::default());
    let mut rest = data;
    while let Some((size, after)) = rest.split_first() {
        let (now, later) = after.split_at(after.len().min(usize::from(*size) + 1));
        framer.space().extend_from_slice(now);
        rest = later;
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => {
                    if let Ok(message) = frame.message(framer.limits()) {
                        reply(&message.body);
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// The body of one OP_MSG.
pub fn message(data: &[u8]) {
    if let Ok(message) = Message::decode(&Bytes::copy_from_slice(data)) {
        reply(&message.body);
        message.sequences.iter().flat_map(|(_, docs)| docs).for_each(|doc| {
            visit(doc);
        });
    }
}

/// One document. What parses is read whole, and again from its own bytes.
pub fn document(data: &[u8]) {
    if let Ok(doc) = Doc::parse(Bytes::copy_from_slice(data)) {
        visit(&doc);
        assert_eq!(doc.as_bytes(), data, "a document is its bytes");
        assert_eq!(Doc::parse(doc.as_bytes().clone()), Ok(doc));
    }
}

/// A connection string.
pub fn connection_string(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let parsed = ConnectionString::parse(text);
        let _ = format!("{parsed:?}");
    }
}

/// A reply, as everything that reads replies sees it.
fn reply(doc: &Doc) {
    visit(doc);
    let _ = (ServerError::from_reply(doc), HelloReply::from_doc(doc), CursorBatch::from_reply(doc));
    let _ = ChangeStream::new("db", None, Doc::empty()).on_reply(doc);
    let Ok(uri) = ConnectionString::parse("mongodb://user:pencil@h/") else { return };
    let Some(credential) = uri.credential else { return };
    if let Ok(begun) = Conversation::new(&credential, Mechanism::ScramSha256, "nonce") {
        let step = begun.on_reply(doc, &mut KeyCache::default());
        assert!(!matches!(step, Ok(Step::Done)), "never authenticated by one reply");
    }
}

/// Touches every value of the tree, without recursion.
fn visit(doc: &Doc) {
    let mut open = vec![(doc.clone(), 1)];
    while let Some((doc, depth)) = open.pop() {
        assert!(depth <= MAX_DEPTH, "the depth was checked");
        for element in &doc {
            match element.value {
                Value::Document(inner) | Value::Array(inner) => open.push((inner, depth + 1)),
                value => {
                    let _ = (value.as_i64(), value.as_f64(), value.as_bool(), value.as_str());
                }
            }
        }
    }
}
