//! The hello command and its reply: who we are, who the server is, what it takes.
//!
//! Sources: the MongoDB handshake and SDAM specifications.

use crate::auth::conversation::Conversation;
use crate::error::{Error, PeerError, ServerError, topology_version};
use crate::uri::{ServerAddress, TagSet};
use crate::wire::command::Command;
use crate::wire::doc::{Doc, Value};
use crate::wire::limits::Limits;

/// The oldest wire version spoken here: 4.2.
pub const MIN_WIRE_VERSION: i32 = 8;

/// The newest wire version known here. A newer server still speaks it.
pub const MAX_WIRE_VERSION: i32 = 27;

/// Members of a replica set that a hello may name; the server's own bound is 50.
const MEMBERS_CAP: usize = 128;

/// The most a client metadata document may take (handshake spec, "Limitations").
const METADATA_CAP: usize = 512;

/// Which name the server knows the command by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HelloName {
    /// `hello`, from 4.2.10 and 4.4.2 on.
    #[default]
    Hello,
    /// `isMaster`, for servers that answer `hello` with CommandNotFound.
    IsMaster,
}

/// The first hello on a connection.
///
/// - `app_name`: the connection string's, at most 128 bytes.
/// - `user`: `database.user`, asks which SCRAM mechanisms that user has.
/// - `speculate`: begins authentication in the same round trip.
/// - `load_balanced`: tells a load balancer's server that we know of it.
pub fn handshake(
    name: HelloName,
    app_name: Option<&str>,
    user: Option<&str>,
    speculate: Option<&Conversation>,
    load_balanced: bool,
) -> Command {
    let mut command = bare(name);
    if load_balanced {
        command.body().bool("loadBalanced", true);
    }
    metadata(&mut command, app_name);
    if let Some(user) = user {
        command.body().str("saslSupportedMechs", user);
    }
    if let Some(conversation) = speculate {
        conversation.speculate(&mut command);
    }
    command
}

/// A later hello on a monitoring connection. With the last reply's `topologyVersion` the server
/// answers only when something changes or after `max_await_ms`, and streams from then on when
/// `exhaust` is set (SDAM monitoring spec, "Streaming Protocol").
pub fn check(
    name: HelloName,
    version: Option<([u8; 12], i64)>,
    max_await_ms: i64,
    exhaust: bool,
) -> Command {
    let mut command = bare(name);
    if let Some((process, counter)) = version {
        let body = command.body();
        body.begin("topologyVersion").object_id("processId", process).i64("counter", counter).end();
        body.i64("maxAwaitTimeMS", max_await_ms);
        if exhaust {
            command.allow_exhaust();
        }
    }
    command
}

fn bare(name: HelloName) -> Command {
    let mut command = match name {
        HelloName::Hello => Command::new("hello", "admin"),
        HelloName::IsMaster => Command::new("isMaster", "admin"),
    };
    command.body().bool("helloOk", true);
    command
}

fn metadata(command: &mut Command, app_name: Option<&str>) {
    // Every part but the name is ours and short; the name is bounded at 128 bytes, so the whole
    // stays below METADATA_CAP.
    debug_assert!(app_name.map_or(0, str::len) <= 128, "at most {METADATA_CAP} bytes in all");
    let body = command.body();
    body.begin("client");
    if let Some(app_name) = app_name {
        body.begin("application").str("name", app_name).end();
    }
    body.begin("driver").str("name", "dbmount").str("version", env!("CARGO_PKG_VERSION")).end();
    body.begin("os");
    body.str("type", std::env::consts::OS).str("architecture", std::env::consts::ARCH).end();
    body.str("platform", "Rust").end();
}

/// A hello reply, or a failed one: every field at its absent value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HelloReply {
    /// Whether the server knows `hello` by that name.
    pub hello_ok: bool,
    /// It takes writes (a primary, a mongos or a standalone).
    pub is_writable_primary: bool,
    /// It is a secondary.
    pub secondary: bool,
    /// It is an arbiter: no data.
    pub arbiter_only: bool,
    /// It is hidden from clients.
    pub hidden: bool,
    /// It is a replica set member that is not initiated.
    pub is_replica_set: bool,
    /// It is a mongos (`msg: "isdbgrid"`).
    pub is_mongos: bool,
    /// Voting, visible members.
    pub hosts: Vec<ServerAddress>,
    /// Members that cannot become primary.
    pub passives: Vec<ServerAddress>,
    /// Arbiters.
    pub arbiters: Vec<ServerAddress>,
    /// Its own name in the replica set's configuration.
    pub me: Option<ServerAddress>,
    /// Whom it believes to be primary.
    pub primary: Option<ServerAddress>,
    /// The replica set's name.
    pub set_name: Option<String>,
    /// The version of the replica set's configuration.
    pub set_version: Option<i64>,
    /// The election that made it primary.
    pub election_id: Option<[u8; 12]>,
    /// Its tags.
    pub tags: TagSet,
    /// Oldest wire version it speaks.
    pub min_wire_version: i32,
    /// Newest wire version it speaks.
    pub max_wire_version: i32,
    /// What it takes.
    pub limits: Limits,
    /// How long it keeps an idle session, in minutes; `None`: no sessions.
    pub logical_session_timeout_minutes: Option<i64>,
    /// Its last write, UTC milliseconds.
    pub last_write_ms: Option<i64>,
    /// Numbers its states, so that stale news can be told: (process id, counter).
    pub topology_version: Option<([u8; 12], i64)>,
    /// The SCRAM mechanisms of the user that was asked about.
    pub sasl_supported_mechs: Option<Vec<String>>,
    /// Its part of the speculative authentication.
    pub speculative_authenticate: Option<Doc>,
    /// Its number for this connection.
    pub connection_id: Option<i64>,
    /// Which server stands behind the load balancer.
    pub service_id: Option<[u8; 12]>,
}

impl HelloReply {
    /// Reads a reply.
    ///
    /// # Errors
    /// [`Error::Server`] for `ok: 0`, [`Error::Peer`] for members whose names are no addresses.
    pub fn from_doc(doc: &Doc) -> Result<HelloReply, Error> {
        if let Some(error) = ServerError::from_reply(doc) {
            return Err(error.into());
        }
        let mut reply = HelloReply::default();
        let (mut max_message, mut max_document, mut max_batch) = (None, None, None);
        for element in doc {
            let value = &element.value;
            let flag = || value.as_bool() == Some(true);
            match element.name {
                b"helloOk" => reply.hello_ok = flag(),
                b"isWritablePrimary" | b"ismaster" => reply.is_writable_primary = flag(),
                b"secondary" => reply.secondary = flag(),
                b"arbiterOnly" => reply.arbiter_only = flag(),
                b"hidden" => reply.hidden = flag(),
                b"isreplicaset" => reply.is_replica_set = flag(),
                b"msg" => reply.is_mongos = value.as_str() == Some("isdbgrid"),
                b"hosts" => reply.hosts = addresses(value)?,
                b"passives" => reply.passives = addresses(value)?,
                b"arbiters" => reply.arbiters = addresses(value)?,
                b"me" => reply.me = Some(address(value)?),
                b"primary" => reply.primary = Some(address(value)?),
                b"setName" => reply.set_name = value.as_str().map(str::to_owned),
                b"setVersion" => reply.set_version = value.as_i64(),
                b"electionId" => reply.election_id = object_id(value),
                b"tags" => reply.tags = tags(value),
                b"minWireVersion" => reply.min_wire_version = wire_version(value),
                b"maxWireVersion" => reply.max_wire_version = wire_version(value),
                b"maxMessageSizeBytes" => max_message = value.as_i64(),
                b"maxBsonObjectSize" => max_document = value.as_i64(),
                b"maxWriteBatchSize" => max_batch = value.as_i64(),
                b"logicalSessionTimeoutMinutes" => {
                    reply.logical_session_timeout_minutes = value.as_i64();
                }
                b"lastWrite" => {
                    let date = value.as_doc().and_then(|doc| doc.get("lastWriteDate"));
                    reply.last_write_ms = match date {
                        Some(Value::DateTime(ms)) => Some(ms),
                        _ => None,
                    };
                }
                b"topologyVersion" => {
                    reply.topology_version = value.as_doc().and_then(topology_version);
                }
                b"saslSupportedMechs" => {
                    let names = value.as_array().map(|list| {
                        let name = |v: &Value<'_>| v.as_str().map(str::to_owned);
                        list.iter().take(16).filter_map(|e| name(&e.value)).collect()
                    });
                    reply.sasl_supported_mechs = names;
                }
                b"speculativeAuthenticate" => {
                    reply.speculative_authenticate = value.as_doc().cloned();
                }
                b"connectionId" => reply.connection_id = value.as_i64(),
                b"serviceId" => reply.service_id = object_id(value),
                _ => {}
            }
        }
        reply.limits = Limits::from_hello(max_message, max_document, max_batch);
        Ok(reply)
    }

    /// Whether we and the server share a wire version.
    pub fn compatible(&self) -> bool {
        self.max_wire_version >= MIN_WIRE_VERSION && self.min_wire_version <= MAX_WIRE_VERSION
    }

    /// Whether transactions, retryable writes and change streams can work: it has sessions and
    /// is a replica set member or a mongos.
    pub fn has_transactions(&self) -> bool {
        self.logical_session_timeout_minutes.is_some()
            && (self.set_name.is_some() || self.is_mongos)
    }
}

const NO_ADDRESS: PeerError = PeerError::new("a hello reply with a member that is no address", 0);

fn address(value: &Value<'_>) -> Result<ServerAddress, PeerError> {
    let text = value.as_str().ok_or(NO_ADDRESS)?;
    ServerAddress::parse(text).map_err(|_| NO_ADDRESS)
}

fn addresses(value: &Value<'_>) -> Result<Vec<ServerAddress>, PeerError> {
    let list = value.as_array().ok_or(NO_ADDRESS)?;
    if list.iter().nth(MEMBERS_CAP).is_some() {
        return Err(PeerError::new("a hello reply with far too many members", 0));
    }
    list.iter().map(|e| address(&e.value)).collect()
}

fn object_id(value: &Value<'_>) -> Option<[u8; 12]> {
    match value {
        Value::ObjectId(id) => Some(*id),
        _ => None,
    }
}

fn wire_version(value: &Value<'_>) -> i32 {
    value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

fn tags(value: &Value<'_>) -> TagSet {
    let Some(doc) = value.as_doc() else { return TagSet::new() };
    let pair = |name: &[u8], value: &Value<'_>| {
        Some((std::str::from_utf8(name).ok()?.to_owned(), value.as_str()?.to_owned()))
    };
    doc.iter().take(MEMBERS_CAP).filter_map(|e| pair(e.name, &e.value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::DocBuf;
    use crate::wire::frame::RequestId;

    #[test]
    fn the_metadata_stays_within_its_bound_and_says_who_we_are() {
        let name = "n".repeat(128);
        let user = Some("admin.user");
        let hello = handshake(HelloName::Hello, Some(&name), user, None, false);
        let bytes = hello.encode(RequestId(1), &Limits::default()).unwrap().concat();
        let doc = Doc::parse(bytes.slice(21..)).unwrap();
        let client = doc.get("client").unwrap();
        let client = client.as_doc().unwrap();
        assert!(client.as_bytes().len() <= METADATA_CAP);
        let driver = client.get("driver").unwrap();
        assert_eq!(driver.as_doc().unwrap().get("name"), Some(Value::Str(b"dbmount")));
        assert_eq!(doc.get("saslSupportedMechs"), Some(Value::Str(b"admin.user")));
    }

    #[test]
    fn a_reply_is_read_and_its_limits_are_kept_in_bounds() {
        let mut doc = DocBuf::new();
        doc.f64("ok", 1.0).bool("ismaster", true).str("setName", "rs").i32("maxWireVersion", 17);
        doc.begin_array("hosts").str("0", "A:27017").str("1", "[::1]:27018").end();
        doc.i32("maxBsonObjectSize", 1 << 20).i64("maxMessageSizeBytes", i64::MAX);
        doc.i64("logicalSessionTimeoutMinutes", 30).begin("tags").str("dc", "ny").end();
        let reply = HelloReply::from_doc(&doc.finish_doc().unwrap()).unwrap();
        assert!(reply.is_writable_primary && reply.compatible() && reply.has_transactions());
        assert_eq!(reply.hosts[0].to_string(), "a:27017");
        assert_eq!(reply.limits.max_document, 1 << 20);
        assert_eq!(reply.limits.max_message, Limits::default().max_message);
        assert_eq!(reply.tags["dc"], "ny");
    }

    #[test]
    fn hostile_member_lists_are_refused() {
        let mut doc = DocBuf::new();
        doc.f64("ok", 1.0).begin_array("hosts");
        for i in 0..=MEMBERS_CAP {
            doc.str(&i.to_string(), "a");
        }
        doc.end();
        assert!(matches!(HelloReply::from_doc(&doc.finish_doc().unwrap()), Err(Error::Peer(_))));
        let mut doc = DocBuf::new();
        doc.f64("ok", 1.0).str("me", "a:b:c");
        assert!(matches!(HelloReply::from_doc(&doc.finish_doc().unwrap()), Err(Error::Peer(_))));
    }
}
