//! What errors of ordinary commands tell about a server (SDAM spec, "Error handling").

use super::{PoolGeneration, ServerDescription, Topology, TopologyType};
use crate::error::{Refusal, ServerError};
use crate::uri::ServerAddress;

/// How far a connection had come when the error happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeStage {
    /// Connecting, hello or authentication.
    BeforeHandshakeCompletes,
    /// In use.
    AfterHandshakeCompletes,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The link broke.
    Network,
    /// Nothing came in time. Says little: the server may be busy.
    Timeout,
    /// The server answered with an error.
    Command(Box<ServerError>),
}

/// An error of an ordinary connection, with what tells whether it is news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationError {
    /// The pool generation the connection was made under.
    pub generation: PoolGeneration,
    /// The server's newest wire version, as that connection's hello had it.
    pub max_wire_version: i32,
    /// How far the connection had come.
    pub stage: HandshakeStage,
    /// What happened.
    pub kind: ErrorKind,
}

/// The wire version of 4.2: from there on a stepdown does not close connections.
const KEEPS_CONNECTIONS: i32 = 8;

impl Topology {
    /// An ordinary connection to `address` failed. Stale news changes nothing; a server that is
    /// no longer primary, or recovering, or gone, becomes unknown until its monitor hears from
    /// it. Returns whether the monitor should ask at once.
    pub fn on_application_error(
        &mut self,
        address: &ServerAddress,
        error: &ApplicationError,
    ) -> bool {
        let Some(server) = self.servers.get(address) else { return false };
        if error.generation < self.generation(address) {
            return false;
        }
        let balanced = self.topology_type == TopologyType::LoadBalanced;
        match &error.kind {
            // A timeout says nothing, and a link that breaks before it is made says that the
            // server is overloaded; its monitor will find out (SDAM spec, "Network error during
            // connection establishment").
            ErrorKind::Timeout => false,
            ErrorKind::Network if error.stage == HandshakeStage::BeforeHandshakeCompletes => false,
            ErrorKind::Network => {
                self.clear_pool(address);
                if !balanced {
                    self.forget(address, "network error", None);
                }
                true
            }
            ErrorKind::Command(reply) => {
                let state = state_change(reply);
                if state.is_none() && error.stage == HandshakeStage::AfterHandshakeCompletes {
                    return false;
                }
                // An error must be newer than what is known; at equal counters it is old news.
                let version = reply.topology_version;
                if is_older(version, server.topology_version)
                    || version.is_some() && version == server.topology_version
                {
                    return false;
                }
                let shutdown = state.is_none_or(|code| SHUTDOWN.contains(&code));
                if shutdown || error.max_wire_version < KEEPS_CONNECTIONS {
                    self.clear_pool(address);
                }
                if !balanced {
                    self.forget(address, "state change error", version);
                }
                true
            }
        }
    }

    fn forget(&mut self, address: &ServerAddress, why: &str, version: Option<([u8; 12], i64)>) {
        let mut unknown = ServerDescription::unknown(address.clone(), Some(why.to_owned()));
        unknown.topology_version = version;
        self.apply(unknown);
    }
}

/// Whether `new` is of the same process as `old` and counts lower.
pub(super) fn is_older(new: Option<([u8; 12], i64)>, old: Option<([u8; 12], i64)>) -> bool {
    match (new, old) {
        (Some((process, counter)), Some((old_process, old_counter))) => {
            process == old_process && counter < old_counter
        }
        _ => false,
    }
}

/// "Not writable primary" codes (SDAM spec).
const NOT_PRIMARY: [i32; 3] = [10_107, 13_435, 10_058];
/// "Node is recovering" codes (SDAM spec).
const RECOVERING: [i32; 5] = [11_600, 11_602, 13_436, 189, 91];
/// Those of them that say that the server goes down.
const SHUTDOWN: [i32; 2] = [11_600, 91];

/// Whether the server says that it is not the primary. The message counts only without a code.
pub fn is_not_primary(error: &ServerError) -> bool {
    match error.code {
        0 => error.message.contains("not master") && !is_recovering(error),
        code => NOT_PRIMARY.contains(&code),
    }
}

/// Whether the server says that it cannot serve for now.
pub fn is_recovering(error: &ServerError) -> bool {
    match error.code {
        0 => {
            error.message.contains("not master or secondary")
                || error.message.contains("node is recovering")
        }
        code => RECOVERING.contains(&code),
    }
}

/// Whether the server says that it is not, or no more, the one to ask ("state change error", SDAM
/// spec): in the command's own error or its write concern error, but not in a single write's.
pub fn is_state_change(error: &ServerError) -> bool {
    state_change(error).is_some()
}

/// The code of a state change error: in the command's own error or its write concern error, but
/// not in a single write's.
fn state_change(error: &ServerError) -> Option<i32> {
    if error.kind == Refusal::Command && (is_not_primary(error) || is_recovering(error)) {
        return Some(error.code);
    }
    let concern = error.write_concern_code?;
    (NOT_PRIMARY.contains(&concern) || RECOVERING.contains(&concern)).then_some(concern)
}
