//! What a server refuses: `ok: 0`, write errors, write concern errors.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::backend::bson::{Doc, Value};

/// A server's refusal: `ok: 0`, a write error or a write concern error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// The numeric code, 0 when the server gave none.
    pub code: i32,
    /// The code's name, empty when the server gave none.
    pub code_name: String,
    /// The server's words, cut at 1,024 bytes.
    pub message: String,
    /// `errorLabels`, at most 16 of them.
    pub labels: Vec<String>,
    /// Where in the reply it stood.
    pub kind: Refusal,
    /// The `topologyVersion` beside it: (process id, counter).
    pub topology_version: Option<([u8; 12], i64)>,
    /// The code of the write concern error inside an otherwise different reply, if any.
    pub write_concern_code: Option<i32>,
}

/// Where in a reply an error stood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Refusal {
    /// The command as a whole (`ok: 0`).
    #[default]
    Command,
    /// One of its writes (`writeErrors`).
    Write,
    /// Its write concern (`writeConcernError`): the write happened but is not yet safe.
    WriteConcern,
}

const MESSAGE_CAP: usize = 1024;
const LABELS_CAP: usize = 16;

impl ServerError {
    /// The error a reply carries, if any: `ok: 0` first, then the first of `writeErrors`, then
    /// `writeConcernError` (retryable-writes spec, "Determining Retryable Errors").
    pub fn from_reply(reply: &Doc) -> Option<ServerError> {
        let mut found = Reply::default();
        for element in reply.iter() {
            match (element.name, &element.value) {
                (b"ok", value) => found.ok = value.as_f64().unwrap_or(0.0) == 1.0,
                (b"code", value) => found.top.code = clamp_i32(value.as_i64()),
                (b"codeName", value) => found.top.code_name = capped(value),
                (b"errmsg" | b"$err", value) => found.top.message = capped(value),
                (b"errorLabels", Value::Array(labels)) => {
                    found.top.labels =
                        labels.iter().take(LABELS_CAP).map(|l| capped(&l.value)).collect();
                }
                (b"topologyVersion", Value::Document(version)) => {
                    found.top.topology_version = topology_version(version);
                }
                (b"writeErrors", Value::Array(errors)) => {
                    found.write = errors.iter().next().and_then(|e| e.value.as_doc().cloned());
                }
                (b"writeConcernError", Value::Document(error)) => {
                    found.concern = Some(error.clone());
                }
                _ => {}
            }
        }
        let concern_code =
            found.concern.as_ref().map(|c| clamp_i32(c.get("code").and_then(|v| v.as_i64())));
        let mut error = found.top;
        error.write_concern_code = concern_code;
        if !found.ok {
            return Some(error);
        }
        let (inner, kind) = match (found.write, found.concern) {
            (Some(write), _) => (write, Refusal::Write),
            (None, Some(concern)) => (concern, Refusal::WriteConcern),
            (None, None) => return None,
        };
        error.kind = kind;
        for element in inner.iter() {
            match (element.name, &element.value) {
                (b"code", value) => error.code = clamp_i32(value.as_i64()),
                (b"codeName", value) => error.code_name = capped(value),
                (b"errmsg", value) => error.message = capped(value),
                (b"errorLabels", Value::Array(labels)) => {
                    let more = labels.iter().take(LABELS_CAP).map(|l| capped(&l.value));
                    error.labels.extend(more);
                }
                _ => {}
            }
        }
        Some(error)
    }

    /// Whether the server put this label on the error.
    pub fn has_label(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }
}

#[derive(Default)]
struct Reply {
    ok: bool,
    top: ServerError,
    write: Option<Doc>,
    concern: Option<Doc>,
}

/// `{processId: ObjectId, counter: int64}` as a pair, `None` when it has another shape.
pub fn topology_version(doc: &Doc) -> Option<([u8; 12], i64)> {
    let process = match doc.get("processId")? {
        Value::ObjectId(id) => id,
        _ => return None,
    };
    Some((process, doc.get("counter")?.as_i64()?))
}

fn clamp_i32(code: Option<i64>) -> i32 {
    code.and_then(|c| i32::try_from(c).ok()).unwrap_or(0)
}

fn capped(value: &Value<'_>) -> String {
    let bytes = match value {
        Value::Str(bytes) => bytes,
        _ => return String::new(),
    };
    String::from_utf8_lossy(&bytes[..bytes.len().min(MESSAGE_CAP)]).into_owned()
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Refusal::Command => "command",
            Refusal::Write => "write",
            Refusal::WriteConcern => "write concern",
        };
        write!(f, "{kind} error {} ({}): {}", self.code, self.code_name, self.message)
    }
}

impl core::error::Error for ServerError {}
