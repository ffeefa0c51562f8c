//! Errors, split by whose fault they are: the peer broke the protocol, the server refused a
//! command, the link failed, the credentials failed, or our own caller asked for nonsense.

use std::fmt;
use std::io;

use dbmount_engine::backend::bson::Malformed;
pub use dbmount_engine::backend::bson::PeerError;
pub use dbmount_engine::backend::mongo::error::{Refusal, ServerError, topology_version};

/// Whatever can go wrong between a command and its reply.
#[derive(Debug)]
pub enum Error {
    /// The peer sent bytes that the protocol does not allow. The connection is unusable.
    Peer(PeerError),
    /// The server understood the command and refused it. The connection stays good.
    Server(Box<ServerError>),
    /// The network failed.
    Link(LinkError),
    /// The authentication exchange failed. Trying again with the same credentials will not help.
    Auth(AuthError),
    /// The caller asked for what can never be sent.
    Misuse(Misuse),
}

/// A caller's mistake: found before a byte is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misuse {
    /// A field name or cstring holds a NUL byte.
    NulInName,
    /// A document is over `maxBsonObjectSize`.
    DocumentTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A message is over `maxMessageSizeBytes`.
    MessageTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// More documents in one batch than `maxWriteBatchSize`.
    BatchTooLarge {
        /// How many there are.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// Documents and arrays nested deeper than a server takes.
    TooDeep,
    /// `end` without a matching `begin`, or a document finished while one inside it is open.
    Unbalanced,
    /// A command that must never be compressed was asked to be.
    NotCompressible,
    /// A session operation out of its order (commit without a transaction and the like).
    Session(&'static str),
    /// A server selection that no topology can satisfy (max staleness too small and the like).
    Selection(&'static str),
    /// TLS was asked for, which is not there yet.
    Tls,
    /// A feature this crate does not have.
    Unsupported(&'static str),
}

/// A failed link. What matters to a retry is whether the command can have been executed.
#[derive(Debug)]
pub struct LinkError {
    /// Whether any byte of the command may have reached the server.
    pub sent: Sent,
    /// What the operating system said.
    pub source: io::Error,
}

/// Whether a command can have reached the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Not all of it was sent: it was not executed and may be sent again freely.
    No,
    /// All or part of it was sent and no reply came: it may have been executed.
    Unknown,
}

/// Why an authentication exchange ended without success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// The server's side of the exchange breaks RFC 5802 (names the rule).
    Exchange(&'static str),
    /// The server could not prove that it knows the password: it may be an impostor.
    ServerSignature,
    /// The server wants fewer PBKDF2 rounds than the floor of 4096 (RFC 5802, section 5.1).
    IterationsTooFew(u32),
    /// The password or name holds characters that SASLprep prohibits (RFC 4013).
    Prohibited,
    /// The mechanism is known but this crate does not implement it.
    Mechanism(&'static str),
    /// The server said no: wrong name or password, as a rule.
    Refused(Box<ServerError>),
}

/// A duplicate key in a unique index.
pub const DUPLICATE_KEY: i32 = 11_000;
/// The server does not know the command.
pub const COMMAND_NOT_FOUND: i32 = 59;
/// A change stream on a server that is no member of a replica set.
pub const CHANGE_STREAM_NEEDS_REPLICA_SET: i32 = 40_573;
/// Where a change stream stopped is not to be found any more.
pub const CHANGE_STREAM_HISTORY_LOST: i32 = 286;
/// The user may not do that.
pub const UNAUTHORIZED: i32 = 13;
/// Wrong name or password.
pub const AUTHENTICATION_FAILED: i32 = 18;

impl Error {
    /// Whether the command was certainly not executed.
    pub fn not_sent(&self) -> bool {
        match self {
            Error::Misuse(_) => true,
            Error::Link(link) => link.sent == Sent::No,
            _ => false,
        }
    }

    /// The server's refusal, when it is one.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Error::Server(error) => Some(error),
            Error::Auth(AuthError::Refused(error)) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Peer(error) => error.fmt(f),
            Error::Server(error) => error.fmt(f),
            Error::Link(error) => error.fmt(f),
            Error::Auth(error) => error.fmt(f),
            Error::Misuse(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sent {
            Sent::No => write!(f, "not sent: {}", self.source),
            Sent::Unknown => write!(f, "sent, no reply: {}", self.source),
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthError::Exchange(what) => write!(f, "SCRAM: {what}"),
            AuthError::ServerSignature => {
                f.write_str("SCRAM: the server could not prove that it knows the password")
            }
            AuthError::IterationsTooFew(n) => {
                write!(f, "SCRAM: the server asks for {n} iterations, fewer than 4096")
            }
            AuthError::Prohibited => {
                f.write_str("the user name or password holds characters SASLprep prohibits")
            }
            AuthError::Mechanism(name) => write!(f, "mechanism {name} is not supported"),
            AuthError::Refused(error) => write!(f, "authentication refused: {error}"),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::NulInName => f.write_str("a field name holds a NUL byte"),
            Misuse::DocumentTooLarge { size, max } => {
                write!(f, "a document of {size} bytes is over the server's bound of {max}")
            }
            Misuse::MessageTooLarge { size, max } => {
                write!(f, "a message of {size} bytes is over the server's bound of {max}")
            }
            Misuse::BatchTooLarge { size, max } => {
                write!(f, "a batch of {size} documents is over the server's bound of {max}")
            }
            Misuse::TooDeep => f.write_str("documents nested too deep"),
            Misuse::Unbalanced => f.write_str("a document inside another was left open"),
            Misuse::NotCompressible => f.write_str("this command must never be compressed"),
            Misuse::Session(what) => write!(f, "session: {what}"),
            Misuse::Selection(what) => write!(f, "server selection: {what}"),
            Misuse::Tls => f.write_str(
                "TLS is not there yet; leave out tls=true, and where the network is not to be \
                 trusted reach the server through a tunnel, such as `ssh -L`",
            ),
            Misuse::Unsupported(what) => write!(f, "{what} is not supported"),
        }
    }
}

impl std::error::Error for AuthError {}
impl std::error::Error for Misuse {}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Link(link) => Some(&link.source),
            _ => None,
        }
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Error {
        Error::Peer(error)
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Error {
        Error::Server(Box::new(error))
    }
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Error {
        Error::Auth(error)
    }
}

impl From<Misuse> for Error {
    fn from(error: Misuse) -> Error {
        Error::Misuse(error)
    }
}

impl From<Malformed> for Misuse {
    fn from(mistake: Malformed) -> Misuse {
        match mistake {
            Malformed::NulInName => Misuse::NulInName,
            Malformed::TooLarge { size, max } => Misuse::DocumentTooLarge { size, max },
            Malformed::TooDeep => Misuse::TooDeep,
            Malformed::Unbalanced => Misuse::Unbalanced,
        }
    }
}

impl From<Malformed> for Error {
    fn from(mistake: Malformed) -> Error {
        Error::Misuse(mistake.into())
    }
}
