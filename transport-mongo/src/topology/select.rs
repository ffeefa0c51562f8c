//! Server selection: which servers may take an operation, and which of them does.
//!
//! Sources: the server selection and max staleness specifications.

use super::server::{ServerDescription, ServerType};
use super::{Topology, TopologyType};
use crate::error::Misuse;
use crate::uri::{ReadPreference, ReadPreferenceMode, ServerAddress, TagSet};

/// What an operation wants of its server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Criteria<'a> {
    /// It writes.
    Write,
    /// It reads, under this preference.
    Read(&'a ReadPreference),
}

/// `localThresholdMS` unless the connection string says otherwise.
pub const LOCAL_THRESHOLD_MS: f64 = 15.0;
/// `heartbeatFrequencyMS` unless the connection string says otherwise.
pub const HEARTBEAT_FREQUENCY_MS: i64 = 10_000;
/// How often an idle primary writes (max staleness spec).
const IDLE_WRITE_PERIOD_MS: i64 = 10_000;
/// The least `maxStalenessSeconds` (max staleness spec).
const LEAST_STALENESS_MS: i64 = 90_000;

impl Topology {
    /// All servers that may take the operation. `deprioritized` are taken only when no other
    /// can (those a retry has just failed on).
    ///
    /// # Errors
    /// [`Misuse::Selection`] for a read preference no server can ever satisfy.
    pub fn suitable(
        &self,
        criteria: Criteria<'_>,
        heartbeat_ms: i64,
        deprioritized: &[ServerAddress],
    ) -> Result<Vec<&ServerDescription>, Misuse> {
        if let Criteria::Read(preference) = criteria {
            self.check(preference, heartbeat_ms)?;
        }
        let all: Vec<_> = self.servers().collect();
        let fresh: Vec<_> =
            all.iter().copied().filter(|s| !deprioritized.contains(&s.address)).collect();
        let found = self.among(criteria, heartbeat_ms, &fresh);
        if found.is_empty() { Ok(self.among(criteria, heartbeat_ms, &all)) } else { Ok(found) }
    }

    fn check(&self, preference: &ReadPreference, heartbeat_ms: i64) -> Result<(), Misuse> {
        let is_primary = preference.mode == ReadPreferenceMode::Primary;
        if is_primary && preference.tag_sets.iter().any(|tags| !tags.is_empty()) {
            return Err(Misuse::Selection("tags make no sense with mode primary"));
        }
        let Some(staleness) = preference.max_staleness else { return Ok(()) };
        if is_primary {
            return Err(Misuse::Selection("maxStalenessSeconds makes no sense with mode primary"));
        }
        let least = LEAST_STALENESS_MS.max(heartbeat_ms + IDLE_WRITE_PERIOD_MS);
        let in_set = matches!(
            self.topology_type,
            TopologyType::ReplicaSetNoPrimary | TopologyType::ReplicaSetWithPrimary
        );
        if in_set && (staleness.as_millis() as i64) < least {
            return Err(Misuse::Selection("maxStalenessSeconds is too small"));
        }
        Ok(())
    }

    fn among<'s>(
        &self,
        criteria: Criteria<'_>,
        heartbeat_ms: i64,
        servers: &[&'s ServerDescription],
    ) -> Vec<&'s ServerDescription> {
        let of = |kind| servers.iter().copied().filter(move |s| s.server_type == kind);
        match self.topology_type {
            TopologyType::Unknown => Vec::new(),
            TopologyType::Single | TopologyType::LoadBalanced => {
                servers.iter().copied().filter(|s| s.server_type != ServerType::Unknown).collect()
            }
            TopologyType::Sharded => of(ServerType::Mongos).collect(),
            TopologyType::ReplicaSetNoPrimary | TopologyType::ReplicaSetWithPrimary => {
                let primary = || of(ServerType::RsPrimary).collect::<Vec<_>>();
                let Criteria::Read(preference) = criteria else { return primary() };
                let secondaries = || {
                    let all = of(ServerType::RsSecondary).collect();
                    tagged(self.not_stale(all, preference, heartbeat_ms), &preference.tag_sets)
                };
                match preference.mode {
                    ReadPreferenceMode::Primary => primary(),
                    ReadPreferenceMode::PrimaryPreferred => or_else(primary(), secondaries),
                    ReadPreferenceMode::Secondary => secondaries(),
                    ReadPreferenceMode::SecondaryPreferred => or_else(secondaries(), primary),
                    ReadPreferenceMode::Nearest => {
                        let mut all = primary();
                        all.extend(of(ServerType::RsSecondary));
                        tagged(self.not_stale(all, preference, heartbeat_ms), &preference.tag_sets)
                    }
                }
            }
        }
    }

    /// Drops secondaries that are too far behind; a primary is never stale.
    fn not_stale<'s>(
        &self,
        servers: Vec<&'s ServerDescription>,
        preference: &ReadPreference,
        heartbeat_ms: i64,
    ) -> Vec<&'s ServerDescription> {
        let Some(bound) = preference.max_staleness else { return servers };
        let bound = bound.as_millis() as i64;
        let lag = |server: &ServerDescription| {
            // Without a date it cannot be judged; such servers are older than any we speak to.
            let last_write = server.last_write_ms?;
            let behind = match self.primary() {
                Some(primary) => {
                    let own = server.last_update_ms.saturating_sub(last_write);
                    own.saturating_sub(
                        primary.last_update_ms.saturating_sub(primary.last_write_ms?),
                    )
                }
                None => {
                    let secondaries =
                        self.servers().filter(|s| s.server_type == ServerType::RsSecondary);
                    secondaries.filter_map(|s| s.last_write_ms).max()?.saturating_sub(last_write)
                }
            };
            Some(behind.saturating_add(heartbeat_ms))
        };
        let fresh = |server: &&ServerDescription| {
            server.server_type == ServerType::RsPrimary
                || lag(server).is_some_and(|lag| lag <= bound)
        };
        servers.into_iter().filter(fresh).collect()
    }
}

fn or_else<'s>(
    first: Vec<&'s ServerDescription>,
    second: impl FnOnce() -> Vec<&'s ServerDescription>,
) -> Vec<&'s ServerDescription> {
    if first.is_empty() { second() } else { first }
}

/// The servers that match the first tag set any server matches; all of them without tag sets.
fn tagged<'s>(servers: Vec<&'s ServerDescription>, sets: &[TagSet]) -> Vec<&'s ServerDescription> {
    if sets.is_empty() {
        return servers;
    }
    let matches = |server: &ServerDescription, set: &TagSet| {
        set.iter().all(|(name, value)| server.tags.get(name) == Some(value))
    };
    for set in sets {
        let found: Vec<_> = servers.iter().copied().filter(|s| matches(s, set)).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// The servers within `threshold_ms` of the nearest one; a server whose round trip is not known
/// yet counts as infinitely far.
pub fn in_latency_window<'s>(
    servers: &[&'s ServerDescription],
    threshold_ms: f64,
) -> Vec<&'s ServerDescription> {
    let rtt = |server: &ServerDescription| server.average_rtt_ms.unwrap_or(f64::INFINITY);
    let nearest = servers.iter().map(|s| rtt(s)).fold(f64::INFINITY, f64::min);
    servers.iter().copied().filter(|s| rtt(s) <= nearest + threshold_ms).collect()
}

/// Of two servers of the window picked at random, the one with fewer operations in flight
/// ("power of two choices"). `random` is any 64 random bits.
pub fn pick_by_load<'s>(
    window: &[&'s ServerDescription],
    in_flight: impl Fn(&ServerAddress) -> u64,
    random: u64,
) -> Option<&'s ServerDescription> {
    let n = window.len() as u64;
    if n < 2 {
        return window.first().copied();
    }
    let first = (random >> 32) % n;
    let second = (first + 1 + (random & 0xffff_ffff) % (n - 1)) % n;
    let (a, b) = (window[first as usize], window[second as usize]);
    Some(if in_flight(&b.address) < in_flight(&a.address) { b } else { a })
}
