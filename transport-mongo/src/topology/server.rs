//! What is known of one server.

use crate::hello::HelloReply;
use crate::uri::{ServerAddress, TagSet};

/// What a server is (SDAM spec, "type").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerType {
    /// No replica set, no shards.
    Standalone,
    /// A router of a sharded cluster.
    Mongos,
    /// The primary of a replica set.
    RsPrimary,
    /// A secondary.
    RsSecondary,
    /// An arbiter: votes, holds nothing.
    RsArbiter,
    /// Another member: hidden, starting, recovering.
    RsOther,
    /// A member that is not initiated.
    RsGhost,
    /// A load balancer.
    LoadBalancer,
    /// Not reached yet, or not any more.
    Unknown,
}

impl ServerType {
    /// Whether it can answer operations (SDAM spec, "data-bearing server type").
    pub fn is_data_bearing(self) -> bool {
        matches!(
            self,
            ServerType::Mongos
                | ServerType::RsPrimary
                | ServerType::RsSecondary
                | ServerType::Standalone
                | ServerType::LoadBalancer
        )
    }

    /// For messages.
    pub fn in_words(self) -> &'static str {
        match self {
            ServerType::Standalone => "a standalone server",
            ServerType::Mongos => "a mongos",
            ServerType::RsPrimary => "the primary",
            ServerType::RsSecondary => "a secondary",
            ServerType::RsArbiter => "an arbiter",
            ServerType::RsOther => "a member that cannot serve now",
            ServerType::RsGhost => "a member of a replica set that is not initiated",
            ServerType::LoadBalancer => "a load balancer",
            ServerType::Unknown => "unknown",
        }
    }

    fn of(reply: &HelloReply) -> ServerType {
        if reply.is_replica_set {
            ServerType::RsGhost
        } else if reply.is_mongos {
            ServerType::Mongos
        } else if reply.set_name.is_none() {
            ServerType::Standalone
        } else if reply.hidden {
            ServerType::RsOther
        } else if reply.is_writable_primary {
            ServerType::RsPrimary
        } else if reply.secondary {
            ServerType::RsSecondary
        } else if reply.arbiter_only {
            ServerType::RsArbiter
        } else {
            ServerType::RsOther
        }
    }
}

/// What is known of one server (SDAM spec, "ServerDescription").
#[derive(Debug, Clone, PartialEq)]
pub struct ServerDescription {
    /// Where it listens.
    pub address: ServerAddress,
    /// What it is.
    pub server_type: ServerType,
    /// Why it is unknown, if an error made it so.
    pub error: Option<String>,
    /// Round-trip time in milliseconds, a moving average.
    pub average_rtt_ms: Option<f64>,
    /// When this was learnt, in milliseconds of the caller's clock.
    pub last_update_ms: i64,
    /// Its last write, UTC milliseconds.
    pub last_write_ms: Option<i64>,
    /// Oldest wire version it speaks.
    pub min_wire_version: i32,
    /// Newest wire version it speaks.
    pub max_wire_version: i32,
    /// Its name in the replica set's configuration.
    pub me: Option<ServerAddress>,
    /// All members it knows: hosts, passives, arbiters.
    pub members: Vec<ServerAddress>,
    /// Whom it believes to be primary.
    pub primary: Option<ServerAddress>,
    /// Its replica set's name.
    pub set_name: Option<String>,
    /// Its configuration's version.
    pub set_version: Option<i64>,
    /// The election that made it primary.
    pub election_id: Option<[u8; 12]>,
    /// Its tags.
    pub tags: TagSet,
    /// How long it keeps an idle session, in minutes.
    pub logical_session_timeout_minutes: Option<i64>,
    /// Numbers its states: (process id, counter).
    pub topology_version: Option<([u8; 12], i64)>,
}

/// How much a new round trip weighs (server selection spec, "Calculation of Average Round Trip
/// Times").
const RTT_WEIGHT: f64 = 0.2;

impl ServerDescription {
    /// A server of which nothing is known.
    pub fn unknown(address: ServerAddress, error: Option<String>) -> ServerDescription {
        ServerDescription {
            address,
            server_type: ServerType::Unknown,
            error,
            average_rtt_ms: None,
            last_update_ms: 0,
            last_write_ms: None,
            min_wire_version: 0,
            max_wire_version: 0,
            me: None,
            members: Vec::new(),
            primary: None,
            set_name: None,
            set_version: None,
            election_id: None,
            tags: TagSet::new(),
            logical_session_timeout_minutes: None,
            topology_version: None,
        }
    }

    /// What a hello reply tells, its round trip averaged with the old description's.
    pub fn from_hello(
        address: &ServerAddress,
        reply: &HelloReply,
        old: &ServerDescription,
        rtt_ms: Option<f64>,
        now_ms: i64,
    ) -> ServerDescription {
        let lists = [&reply.hosts, &reply.passives, &reply.arbiters];
        ServerDescription {
            address: address.clone(),
            server_type: ServerType::of(reply),
            error: None,
            average_rtt_ms: match rtt_ms {
                Some(rtt_ms) => Some(average_rtt(old.average_rtt_ms, rtt_ms)),
                None => old.average_rtt_ms,
            },
            last_update_ms: now_ms,
            last_write_ms: reply.last_write_ms,
            min_wire_version: reply.min_wire_version,
            max_wire_version: reply.max_wire_version,
            me: reply.me.clone(),
            members: lists.into_iter().flatten().cloned().collect(),
            primary: reply.primary.clone(),
            set_name: reply.set_name.clone(),
            set_version: reply.set_version,
            election_id: reply.election_id,
            tags: reply.tags.clone(),
            logical_session_timeout_minutes: reply.logical_session_timeout_minutes,
            topology_version: reply.topology_version,
        }
    }
}

/// The moving average of round trips in milliseconds, `old` being `None` before the first.
pub fn average_rtt(old: Option<f64>, new: f64) -> f64 {
    match old {
        Some(old) => RTT_WEIGHT * new + (1.0 - RTT_WEIGHT) * old,
        None => new,
    }
}
