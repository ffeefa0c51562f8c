//! What the server refuses: codes, their names, the labels and fields that come along.

use alloc::string::String;
use alloc::vec::Vec;

use super::value::{Document, Val};

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: i32,
    pub(super) message: String,
    pub(super) labels: Vec<&'static str>,
    /// What stands beside the code: `keyPattern`, `keyValue` of a duplicate key.
    pub(super) extra: Document,
}

/// Why a command that writes has not been executed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// It is refused.
    Refused(Failure),
    /// A transaction has written to the same document and has not ended: the server waits for it.
    Waits,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Refused(failure)
    }
}

pub(super) const BAD_VALUE: i32 = 2;
pub(super) const FAILED_TO_PARSE: i32 = 9;
pub(super) const TYPE_MISMATCH: i32 = 14;
pub(super) const ILLEGAL_OPERATION: i32 = 20;
pub(super) const LOCK_TIMEOUT: i32 = 24;
pub(super) const NAMESPACE_NOT_FOUND: i32 = 26;
pub(super) const INDEX_NOT_FOUND: i32 = 27;
pub(super) const PATH_NOT_VIABLE: i32 = 28;
pub(super) const CONFLICTING_UPDATE_OPERATORS: i32 = 40;
pub(super) const CURSOR_NOT_FOUND: i32 = 43;
pub(super) const COMMAND_NOT_FOUND: i32 = 59;
pub(super) const IMMUTABLE_FIELD: i32 = 66;
pub(super) const INVALID_OPTIONS: i32 = 72;
pub(super) const INVALID_NAMESPACE: i32 = 73;
pub(super) const INDEX_OPTIONS_CONFLICT: i32 = 85;
pub(super) const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
pub(super) const WRITE_CONFLICT: i32 = 112;
pub(super) const CANNOT_INDEX_PARALLEL_ARRAYS: i32 = 171;
pub(super) const TRANSACTION_TOO_OLD: i32 = 225;
pub(super) const NO_SUCH_TRANSACTION: i32 = 251;
pub(super) const TRANSACTION_COMMITTED: i32 = 256;
pub(super) const CHANGE_STREAM_HISTORY_LOST: i32 = 286;
pub(super) const NOT_WRITABLE_PRIMARY: i32 = 10_107;
pub(super) const BSON_OBJECT_TOO_LARGE: i32 = 10_334;
pub(super) const DUPLICATE_KEY: i32 = 11_000;
pub(super) const OUT_OF_DISK_SPACE: i32 = 14_031;
/// Of what is not built here.
pub(super) const NOT_SIMULATED: i32 = 238;

const NAMES: [(i32, &str); 26] = [
    (BAD_VALUE, "BadValue"),
    (FAILED_TO_PARSE, "FailedToParse"),
    (TYPE_MISMATCH, "TypeMismatch"),
    (ILLEGAL_OPERATION, "IllegalOperation"),
    (LOCK_TIMEOUT, "LockTimeout"),
    (NAMESPACE_NOT_FOUND, "NamespaceNotFound"),
    (INDEX_NOT_FOUND, "IndexNotFound"),
    (PATH_NOT_VIABLE, "PathNotViable"),
    (CONFLICTING_UPDATE_OPERATORS, "ConflictingUpdateOperators"),
    (CURSOR_NOT_FOUND, "CursorNotFound"),
    (COMMAND_NOT_FOUND, "CommandNotFound"),
    (IMMUTABLE_FIELD, "ImmutableField"),
    (INVALID_OPTIONS, "InvalidOptions"),
    (INVALID_NAMESPACE, "InvalidNamespace"),
    (INDEX_OPTIONS_CONFLICT, "IndexOptionsConflict"),
    (INDEX_KEY_SPECS_CONFLICT, "IndexKeySpecsConflict"),
    (WRITE_CONFLICT, "WriteConflict"),
    (CANNOT_INDEX_PARALLEL_ARRAYS, "CannotIndexParallelArrays"),
    (TRANSACTION_TOO_OLD, "TransactionTooOld"),
    (NO_SUCH_TRANSACTION, "NoSuchTransaction"),
    (TRANSACTION_COMMITTED, "TransactionCommitted"),
    (CHANGE_STREAM_HISTORY_LOST, "ChangeStreamHistoryLost"),
    (NOT_WRITABLE_PRIMARY, "NotWritablePrimary"),
    (BSON_OBJECT_TOO_LARGE, "BSONObjectTooLarge"),
    (DUPLICATE_KEY, "DuplicateKey"),
    (OUT_OF_DISK_SPACE, "OutOfDiskSpace"),
];

/// Put on errors after which a whole transaction may be run again.
pub(super) const TRANSIENT: &str = "TransientTransactionError";
/// Put on errors after which the same numbered write may be sent again.
pub(super) const RETRYABLE: &str = "RetryableWriteError";

impl Failure {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Failure {
        let message = message.into();
        Failure { code, message, labels: Vec::new(), extra: Document::default() }
    }

    /// A part of the real server that nobody has built here, named so that it will be.
    pub(super) fn not_simulated(what: &str) -> Failure {
        Failure::new(NOT_SIMULATED, alloc::format!("not simulated: {what}"))
    }

    #[must_use]
    pub(super) fn labelled(mut self, label: &'static str) -> Failure {
        self.labels.push(label);
        self
    }

    /// The reply of a command that is refused as a whole.
    pub(super) fn reply(&self) -> Document {
        let mut reply = Document::default();
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|it| Val::str(it)).collect();
            reply.set("errorLabels", Val::Array(labels));
        }
        reply.set("ok", Val::Double(0.0));
        reply.set("errmsg", Val::str(&self.message));
        reply.set("code", Val::Int32(self.code));
        reply.set("codeName", Val::str(&name(self.code)));
        for (field, value) in &self.extra.0 {
            reply.set(field, value.clone());
        }
        reply
    }

    /// The entry of one statement in `writeErrors`.
    pub(super) fn write_error(&self, index: usize) -> Val {
        let mut error = Document::default();
        error.set("index", Val::Int32(index as i32));
        error.set("code", Val::Int32(self.code));
        for (field, value) in &self.extra.0 {
            error.set(field, value.clone());
        }
        error.set("errmsg", Val::str(&self.message));
        Val::Doc(error)
    }
}

fn name(code: i32) -> String {
    let known = NAMES.iter().find(|(it, _)| *it == code);
    known.map_or_else(|| alloc::format!("Location{code}"), |(_, name)| String::from(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_names() {
        assert_eq!(name(112), "WriteConflict");
        assert_eq!(name(40573), "Location40573");
    }
}
