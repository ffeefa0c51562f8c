//! The table of the SDAM specification: (topology type, new server type) -> what changes.

use super::server::{ServerDescription, ServerType};
use super::{Topology, TopologyType};
use crate::uri::ServerAddress;

/// The wire version of 6.0: from there on the election id counts before the set version.
const ELECTION_ID_FIRST: i32 = 17;

// Why a server is removed, in words for a user.
const STANDALONE: &str = "it is not in a replica set, and one is expected";
const OTHER_SET: &str = "it is in a replica set of another name";
const OTHER_NAME: &str = "it is known to its replica set under another name";

impl Topology {
    /// Takes a new description of a server that is in the topology.
    pub(super) fn apply(&mut self, mut server: ServerDescription) {
        use ServerType as S;
        use TopologyType as T;
        let address = server.address.clone();
        if self.topology_type == T::Single {
            // The one server stays whatever it says, but one of another set cannot be used.
            if server.server_type != S::Unknown
                && self.set_name.is_some()
                && server.set_name != self.set_name
            {
                let why = format!("it is not a member of replica set {:?}", self.set_name());
                server = ServerDescription::unknown(address.clone(), Some(why));
            }
            self.servers.insert(address, server);
            return;
        }
        let server_type = server.server_type;
        self.servers.insert(address.clone(), server.clone());
        match (self.topology_type, server_type) {
            (T::Single | T::LoadBalanced, _) => {}
            (T::Unknown, S::Unknown | S::RsGhost | S::LoadBalancer) => {}
            (T::Unknown, S::Standalone) if self.seeds == 1 => self.topology_type = T::Single,
            (T::Unknown, S::Standalone) => self.remove(&address, STANDALONE),
            (T::Unknown, S::Mongos) => self.topology_type = T::Sharded,
            (T::Sharded, S::Unknown | S::Mongos) => {}
            (T::Sharded, _) => self.remove(&address, "it is no mongos, and others are"),
            (_, S::RsPrimary) => self.update_from_primary(server),
            (T::Unknown | T::ReplicaSetNoPrimary, S::RsSecondary | S::RsArbiter | S::RsOther) => {
                self.topology_type = T::ReplicaSetNoPrimary;
                self.update_without_primary(&server);
            }
            (T::ReplicaSetWithPrimary, S::RsSecondary | S::RsArbiter | S::RsOther) => {
                self.update_with_primary_from_member(&server);
            }
            (_, S::Unknown | S::RsGhost | S::LoadBalancer) => self.check_if_has_primary(),
            (_, S::Standalone | S::Mongos) => {
                self.remove(&address, STANDALONE);
                self.check_if_has_primary();
            }
        }
    }

    /// `updateRSFromPrimary`: a primary of the right set and the newest election decides who is
    /// a member.
    fn update_from_primary(&mut self, server: ServerDescription) {
        let address = server.address.clone();
        if self.set_name.is_none() {
            self.set_name = server.set_name.clone();
        } else if self.set_name != server.set_name {
            self.remove(&address, OTHER_SET);
            return self.check_if_has_primary();
        }
        if !self.accept_election(&server) {
            let why = "primary marked stale due to electionId/setVersion mismatch".to_owned();
            self.servers.insert(address.clone(), ServerDescription::unknown(address, Some(why)));
            return self.check_if_has_primary();
        }
        for other in self.servers.values_mut() {
            if other.server_type == ServerType::RsPrimary && other.address != address {
                let why = "primary marked stale due to discovery of newer primary".to_owned();
                *other = ServerDescription::unknown(other.address.clone(), Some(why));
            }
        }
        for member in &server.members {
            self.add(member.clone());
        }
        let gone: Vec<ServerAddress> =
            self.servers.keys().filter(|known| !server.members.contains(known)).cloned().collect();
        let why = "the primary does not name it as a member";
        gone.iter().for_each(|address| self.remove(address, why));
        self.check_if_has_primary();
    }

    /// Whether the primary's election is not older than the newest one known; takes it over.
    fn accept_election(&mut self, server: &ServerDescription) -> bool {
        let (election, version) = (server.election_id, server.set_version);
        if server.max_wire_version >= ELECTION_ID_FIRST {
            // Absent counts as less than everything, which is how `Option` orders.
            if (election, version) < (self.max_election_id, self.max_set_version) {
                return false;
            }
            (self.max_election_id, self.max_set_version) = (election, version);
            return true;
        }
        if let (Some(election), Some(version)) = (election, version) {
            if let (Some(max_election), Some(max_version)) =
                (self.max_election_id, self.max_set_version)
                && (version, election) < (max_version, max_election)
            {
                return false;
            }
            self.max_election_id = Some(election);
        }
        if version.is_some() && version > self.max_set_version {
            self.max_set_version = version;
        }
        true
    }

    /// `updateRSWithoutPrimary`: while no primary is known, every member may name others.
    fn update_without_primary(&mut self, server: &ServerDescription) {
        if self.set_name.is_none() {
            self.set_name = server.set_name.clone();
        } else if self.set_name != server.set_name {
            return self.remove(&server.address, OTHER_SET);
        }
        for member in &server.members {
            self.add(member.clone());
        }
        if server.me.as_ref().is_some_and(|me| *me != server.address) {
            self.remove(&server.address, OTHER_NAME);
        }
    }

    /// `updateRSWithPrimaryFromMember`: with a primary known, a member can only leave.
    fn update_with_primary_from_member(&mut self, server: &ServerDescription) {
        if self.set_name != server.set_name {
            self.remove(&server.address, OTHER_SET);
        } else if server.me.as_ref().is_some_and(|me| *me != server.address) {
            self.remove(&server.address, OTHER_NAME);
        }
        self.check_if_has_primary();
    }

    fn check_if_has_primary(&mut self) {
        self.topology_type = match self.primary() {
            Some(_) => TopologyType::ReplicaSetWithPrimary,
            None if self.topology_type == TopologyType::Unknown => TopologyType::Unknown,
            None => TopologyType::ReplicaSetNoPrimary,
        };
    }
}
