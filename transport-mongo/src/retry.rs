//! Which errors may be answered by sending the same thing again.
//!
//! Sources: the retryable writes, retryable reads and transactions specifications.

use crate::error::{Error, Refusal, ServerError};

/// Put on errors after which the same numbered write may be sent again. Servers from 4.4 on set
/// it themselves.
pub const RETRYABLE_WRITE_ERROR: &str = "RetryableWriteError";
/// Put on errors after which a whole transaction may be run again.
pub const TRANSIENT_TRANSACTION_ERROR: &str = "TransientTransactionError";
/// Put on errors after which it is open whether a commit happened: commit again.
pub const UNKNOWN_TRANSACTION_COMMIT_RESULT: &str = "UnknownTransactionCommitResult";
/// Put on errors of attempts that have changed nothing.
pub const NO_WRITES_PERFORMED: &str = "NoWritesPerformed";

/// The wire version of 4.4, from which on the server labels its errors.
const LABELS_ERRORS: i32 = 9;

/// Codes that make a write retryable on servers that do not label (retryable writes spec,
/// "RetryableWriteError Labels").
const RETRYABLE_WRITE: [i32; 12] =
    [11_600, 11_602, 10_107, 13_435, 13_436, 189, 91, 7, 6, 89, 9_001, 262];

/// Codes that make a read retryable (retryable reads spec, "Retryable Error").
const RETRYABLE_READ: [i32; 13] =
    [11_600, 11_602, 10_107, 13_435, 13_436, 189, 91, 7, 6, 89, 9_001, 262, 134];

/// `MaxTimeMSExpired`: the commit may still happen.
const MAX_TIME_MS_EXPIRED: i32 = 50;

/// Write concerns that can never be met, known before the commit: `UnknownReplWriteConcern`,
/// `UnsatisfiableWriteConcern` (transactions spec, "UnknownTransactionCommitResult").
const HOPELESS_CONCERN: [i32; 2] = [79, 100];

/// Servers with the MMAPv1 engine answer a numbered write so; a standalone does too.
const TRANSACTION_NUMBERS_NOT_SUPPORTED: i32 = 20;

/// Whether a write numbered by [`crate::session::Session::number_write`] may be sent again, with
/// the same number, once a server is selected anew. `max_wire_version` is that of the server
/// which answered.
pub fn write(error: &Error, max_wire_version: i32) -> bool {
    match error {
        Error::Link(_) => true,
        Error::Server(error) if max_wire_version >= LABELS_ERRORS => {
            error.has_label(RETRYABLE_WRITE_ERROR)
        }
        Error::Server(error) => {
            error.has_label(RETRYABLE_WRITE_ERROR)
                || error.kind != Refusal::Write && has_code(error, &RETRYABLE_WRITE)
        }
        _ => false,
    }
}

/// Whether a read may be sent again.
pub fn read(error: &Error) -> bool {
    match error {
        Error::Link(_) => true,
        Error::Server(error) => RETRYABLE_READ.contains(&error.code),
        _ => false,
    }
}

/// Whether the whole transaction may be run again from its start. A link that broke before the
/// commit was sent counts: the server aborts what it never hears of again.
pub fn transaction(error: &Error) -> bool {
    match error {
        Error::Link(_) => true,
        Error::Server(error) => error.has_label(TRANSIENT_TRANSACTION_ERROR),
        _ => false,
    }
}

/// Whether a commit may have happened all the same: send the commit again.
pub fn commit(error: &Error, max_wire_version: i32) -> bool {
    if write(error, max_wire_version) {
        return true;
    }
    match error {
        Error::Server(error) => {
            error.has_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                || error.code == MAX_TIME_MS_EXPIRED
                || error.write_concern_code.is_some_and(|code| !HOPELESS_CONCERN.contains(&code))
        }
        _ => false,
    }
}

/// Whether the deployment has no retryable writes at all: a standalone, which refuses
/// `txnNumber` in words of its own.
pub fn not_supported(error: &ServerError) -> bool {
    error.code == TRANSACTION_NUMBERS_NOT_SUPPORTED
        && error.message.starts_with("Transaction numbers")
}

fn has_code(error: &ServerError, codes: &[i32]) -> bool {
    codes.contains(&error.code)
        || error.write_concern_code.is_some_and(|code| codes.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::{LinkError, Misuse, PeerError, Sent};

    fn server(code: i32, label: Option<&str>) -> Error {
        let labels = label.map(str::to_owned).into_iter().collect();
        ServerError { code, labels, ..Default::default() }.into()
    }

    #[test]
    fn labels_decide_where_the_server_sets_them_and_codes_where_it_does_not() {
        assert!(write(&server(10_107, None), 8));
        assert!(!write(&server(10_107, None), 9));
        assert!(write(&server(0, Some(RETRYABLE_WRITE_ERROR)), 9));
        assert!(!write(&server(11_000, None), 8));
        let concern = ServerError { write_concern_code: Some(91), ..Default::default() };
        assert!(write(&concern.into(), 8));
        let single = ServerError { code: 91, kind: Refusal::Write, ..Default::default() };
        assert!(!write(&single.into(), 8), "a single write's error is final");
    }

    #[test]
    fn reads_transactions_and_commits_have_rules_of_their_own() {
        assert!(read(&server(134, None)) && !read(&server(2, None)));
        assert!(transaction(&server(112, Some(TRANSIENT_TRANSACTION_ERROR))));
        assert!(!transaction(&server(112, None)));
        assert!(commit(&server(50, None), 17) && !commit(&server(251, None), 17));
        let concern = |code| {
            let write_concern_code = Some(code);
            Error::from(ServerError { write_concern_code, ..Default::default() })
        };
        assert!(commit(&concern(64), 17) && !commit(&concern(79), 17));
    }

    #[test]
    fn a_broken_link_is_retried_and_broken_rules_are_not() {
        let source = io::Error::from(io::ErrorKind::ConnectionReset);
        let link = Error::Link(LinkError { sent: Sent::Unknown, source });
        assert!(write(&link, 17) && read(&link) && transaction(&link) && commit(&link, 17));
        for error in [Error::Misuse(Misuse::TooDeep), PeerError::new("x", 0).into()] {
            assert!(!write(&error, 8) && !read(&error) && !transaction(&error));
        }
    }
}
