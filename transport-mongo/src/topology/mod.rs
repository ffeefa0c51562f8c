//! Replica sets as a pure state machine: hello replies and errors go in, a description of the
//! topology comes out, and server selection reads it.
//!
//! Sources: the Server Discovery and Monitoring (SDAM), server selection and max staleness
//! specifications; the names are theirs.

mod errors;
mod select;
mod server;
mod update;

use std::collections::BTreeMap;

pub use errors::{
    ApplicationError, ErrorKind, HandshakeStage, is_not_primary, is_recovering, is_state_change,
};
pub use select::{
    Criteria, HEARTBEAT_FREQUENCY_MS, LOCAL_THRESHOLD_MS, in_latency_window, pick_by_load,
};
pub use server::{ServerDescription, ServerType, average_rtt};

use crate::hello::{HelloReply, MAX_WIRE_VERSION, MIN_WIRE_VERSION};
use crate::uri::{ConnectionString, ServerAddress};

/// What is known of the deployment as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopologyType {
    /// One server, spoken to directly whatever it is.
    Single,
    /// A replica set of which no primary is known.
    ReplicaSetNoPrimary,
    /// A replica set with a known primary.
    ReplicaSetWithPrimary,
    /// One or more mongos.
    Sharded,
    /// A load balancer.
    LoadBalanced,
    /// Nothing known yet.
    Unknown,
}

/// How connections to one server are told to be of the past: each clearing of its pool adds one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolGeneration(pub u64);

/// The topology as far as it is known. Plain data: give it replies and errors, read its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    topology_type: TopologyType,
    set_name: Option<String>,
    max_election_id: Option<[u8; 12]>,
    max_set_version: Option<i64>,
    servers: BTreeMap<ServerAddress, ServerDescription>,
    generations: BTreeMap<ServerAddress, PoolGeneration>,
    seeds: usize,
    last_removal: Option<(ServerAddress, &'static str)>,
}

impl Topology {
    /// The topology before the first reply, from the seeds and the `replicaSet`,
    /// `directConnection` and `loadBalanced` options (SDAM spec, "Initial TopologyType").
    pub fn new(
        seeds: &[ServerAddress],
        set_name: Option<&str>,
        direct: bool,
        load_balanced: bool,
    ) -> Topology {
        let topology_type = match (load_balanced, direct, set_name) {
            (true, _, _) => TopologyType::LoadBalanced,
            (_, true, _) => TopologyType::Single,
            (_, _, Some(_)) => TopologyType::ReplicaSetNoPrimary,
            _ => TopologyType::Unknown,
        };
        let mut topology = Topology {
            topology_type,
            set_name: set_name.map(str::to_owned),
            max_election_id: None,
            max_set_version: None,
            servers: BTreeMap::new(),
            generations: BTreeMap::new(),
            seeds: seeds.len(),
            last_removal: None,
        };
        for seed in seeds {
            topology.add(seed.clone());
            if load_balanced && let Some(server) = topology.servers.get_mut(seed) {
                server.server_type = ServerType::LoadBalancer;
            }
        }
        topology
    }

    /// As [`Topology::new`], from a connection string whose hosts are resolved.
    pub fn from_uri(uri: &ConnectionString) -> Topology {
        let options = &uri.options;
        Topology::new(
            &uri.hosts,
            options.replica_set.as_deref(),
            options.direct_connection == Some(true),
            options.load_balanced == Some(true),
        )
    }

    /// A topology put together by hand, for selection alone.
    pub fn of(topology_type: TopologyType, servers: Vec<ServerDescription>) -> Topology {
        let mut topology = Topology::new(&[], None, false, false);
        topology.topology_type = topology_type;
        topology.servers = servers.into_iter().map(|s| (s.address.clone(), s)).collect();
        topology
    }

    /// What kind of deployment it is.
    pub fn topology_type(&self) -> TopologyType {
        self.topology_type
    }

    /// The replica set's name, given or learnt.
    pub fn set_name(&self) -> Option<&str> {
        self.set_name.as_deref()
    }

    /// The newest election seen.
    pub fn max_election_id(&self) -> Option<[u8; 12]> {
        self.max_election_id
    }

    /// The newest configuration seen.
    pub fn max_set_version(&self) -> Option<i64> {
        self.max_set_version
    }

    /// All servers to monitor, by address.
    pub fn servers(&self) -> impl Iterator<Item = &ServerDescription> {
        self.servers.values()
    }

    /// One server.
    pub fn server(&self, address: &ServerAddress) -> Option<&ServerDescription> {
        self.servers.get(address)
    }

    /// The server that takes writes in a replica set, if it is known.
    pub fn primary(&self) -> Option<&ServerDescription> {
        self.servers().find(|server| server.server_type == ServerType::RsPrimary)
    }

    /// The pool generation of a server: connections made under an older one are to be closed.
    pub fn generation(&self, address: &ServerAddress) -> PoolGeneration {
        self.generations.get(address).copied().unwrap_or_default()
    }

    /// The server that was removed last and why: what to tell a user when none is left.
    pub fn last_removal(&self) -> Option<(&ServerAddress, &'static str)> {
        self.last_removal.as_ref().map(|(address, why)| (address, *why))
    }

    /// How long every data-bearing server keeps an idle session, in minutes; `None` when one of
    /// them has no sessions or none is known.
    pub fn logical_session_timeout_minutes(&self) -> Option<i64> {
        let bearing = self.servers().filter(|server| server.server_type.is_data_bearing());
        let mut least = None;
        for server in bearing {
            let minutes = server.logical_session_timeout_minutes?;
            least = Some(least.map_or(minutes, |least: i64| least.min(minutes)));
        }
        least
    }

    /// Why no operation can run: the first known server that shares no wire version with us.
    pub fn incompatible(&self) -> Option<String> {
        let known = self
            .servers()
            .filter(|s| !matches!(s.server_type, ServerType::Unknown | ServerType::LoadBalancer));
        for server in known {
            let (min, max) = (server.min_wire_version, server.max_wire_version);
            if max < MIN_WIRE_VERSION {
                return Some(format!(
                    "{} speaks wire versions up to {max}, this needs {MIN_WIRE_VERSION} (MongoDB 4.2)",
                    server.address
                ));
            }
            if min > MAX_WIRE_VERSION {
                return Some(format!(
                    "{} speaks wire versions from {min}, this only knows {MAX_WIRE_VERSION}",
                    server.address
                ));
            }
        }
        None
    }

    /// A monitor's hello was answered. `rtt_ms` is its round trip, `None` for a streamed reply;
    /// `now_ms` is any clock that never goes back.
    pub fn on_hello(
        &mut self,
        address: &ServerAddress,
        reply: &HelloReply,
        rtt_ms: Option<f64>,
        now_ms: i64,
    ) {
        let Some(old) = self.servers.get(address) else { return };
        if self.topology_type == TopologyType::LoadBalanced {
            return;
        }
        if errors::is_older(reply.topology_version, old.topology_version) {
            return;
        }
        let server = ServerDescription::from_hello(address, reply, old, rtt_ms, now_ms);
        self.apply(server);
    }

    /// A monitor's hello failed: the server is unknown until it answers, and its pool is of the
    /// past. `why` is kept for messages.
    pub fn on_check_failed(&mut self, address: &ServerAddress, why: &str) {
        if self.servers.contains_key(address) && self.topology_type != TopologyType::LoadBalanced {
            self.clear_pool(address);
            self.apply(ServerDescription::unknown(address.clone(), Some(why.to_owned())));
        }
    }

    fn clear_pool(&mut self, address: &ServerAddress) {
        self.generations.entry(address.clone()).or_default().0 += 1;
    }

    fn add(&mut self, address: ServerAddress) {
        let fresh = || ServerDescription::unknown(address.clone(), None);
        self.servers.entry(address.clone()).or_insert_with(fresh);
    }

    fn remove(&mut self, address: &ServerAddress, why: &'static str) {
        self.last_removal = Some((address.clone(), why));
        self.servers.remove(address);
        self.generations.remove(address);
    }
}
