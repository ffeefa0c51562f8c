//! The official cases of server selection and max staleness.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Tally, files, same};
use dbmount_transport_mongo::topology::{
    Criteria, HEARTBEAT_FREQUENCY_MS, LOCAL_THRESHOLD_MS, ServerDescription, ServerType, Topology,
    TopologyType, average_rtt, in_latency_window, pick_by_load,
};
use dbmount_transport_mongo::uri::{ReadPreference, ReadPreferenceMode, ServerAddress};
use serde_json::Value as Json;

#[test]
fn server_selection() {
    let left_out: &[_] =
        &[("server-selection/logging/", "checks a driver's log messages against a live server")];
    let Some(files) = files("server-selection") else { return };
    let mut tally = Tally::new("server-selection", left_out);
    for (file, case) in &files {
        tally.case(file, || match file {
            file if file.contains("/rtt/") => rtt(case),
            file if file.contains("/in_window/") => in_window(case),
            _ => select(case),
        });
    }
    tally.finish();
}

#[test]
fn max_staleness() {
    let Some(files) = files("max-staleness") else { return };
    let mut tally = Tally::new("max-staleness", &[]);
    for (file, case) in &files {
        tally.case(file, || select(case));
    }
    tally.finish();
}

fn rtt(case: &Json) -> Result<(), String> {
    let old = case["avg_rtt_ms"].as_f64();
    let new = average_rtt(old, case["new_rtt_ms"].as_f64().expect("a number"));
    let want = case["new_avg_rtt"].as_f64().expect("a number");
    same("close", (new - want).abs() < 0.001, true)
}

fn select(case: &Json) -> Result<(), String> {
    let topology = topology(&case["topology_description"]);
    let heartbeat = case["heartbeatFrequencyMS"].as_i64().unwrap_or(HEARTBEAT_FREQUENCY_MS);
    let deprioritized = addresses(&case["deprioritized_servers"]);
    let preference = read_preference(&case["read_preference"]);
    let criteria = match case["operation"].as_str() {
        Some("write") => Criteria::Write,
        _ => Criteria::Read(&preference),
    };
    let suitable = match topology.suitable(criteria, heartbeat, &deprioritized) {
        Ok(_) if case["error"] == true => return Err("no error".to_owned()),
        Err(_) if case["error"] == true => return Ok(()),
        Err(error) => return Err(error.to_string()),
        Ok(suitable) => suitable,
    };
    let names = |servers: &[&ServerDescription]| {
        let mut names: Vec<_> = servers.iter().map(|s| s.address.clone()).collect();
        names.sort();
        names
    };
    same("suitable", names(&suitable), addresses(&case["suitable_servers"]))?;
    let window = in_latency_window(&suitable, LOCAL_THRESHOLD_MS);
    same("in window", names(&window), addresses(&case["in_latency_window"]))
}

/// Runs the choice many times; every server must be taken as often as the case expects.
fn in_window(case: &Json) -> Result<(), String> {
    let topology = topology(&case["topology_description"]);
    let read = ReadPreference { mode: ReadPreferenceMode::Nearest, ..Default::default() };
    let suitable = topology
        .suitable(Criteria::Read(&read), HEARTBEAT_FREQUENCY_MS, &[])
        .map_err(|e| e.to_string())?;
    let window = in_latency_window(&suitable, LOCAL_THRESHOLD_MS);
    let load: BTreeMap<ServerAddress, u64> = case["mocked_topology_state"]
        .as_array()
        .expect("a state")
        .iter()
        .map(|s| (address(s), s["operation_count"].as_u64().expect("a count")))
        .collect();
    let iterations = case["iterations"].as_u64().expect("a count");
    let mut taken: BTreeMap<ServerAddress, f64> = BTreeMap::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..iterations {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let in_flight = |at: &ServerAddress| load.get(at).copied().unwrap_or(0);
        let picked = pick_by_load(&window, in_flight, random).ok_or("nothing picked")?;
        *taken.entry(picked.address.clone()).or_default() += 1.0 / iterations as f64;
    }
    let tolerance = case["outcome"]["tolerance"].as_f64().expect("a tolerance");
    for (name, want) in case["outcome"]["expected_frequencies"].as_object().expect("frequencies") {
        let at = ServerAddress::parse(name).expect("an address");
        let got = taken.get(&at).copied().unwrap_or(0.0);
        let want = want.as_f64().expect("a frequency");
        // 0 and 1 are exact, as the specification says.
        let off = if want == 0.0 || want == 1.0 { 1e-9 } else { tolerance };
        same(&format!("{name}: {got}, want {want}"), (got - want).abs() <= off, true)?;
    }
    Ok(())
}

fn address(json: &Json) -> ServerAddress {
    ServerAddress::parse(json["address"].as_str().expect("an address")).expect("an address")
}

fn addresses(json: &Json) -> Vec<ServerAddress> {
    let mut found: Vec<_> = json.as_array().into_iter().flatten().map(address).collect();
    found.sort();
    found
}

fn topology(json: &Json) -> Topology {
    let topology_type = match json["type"].as_str() {
        Some("Single") => TopologyType::Single,
        Some("ReplicaSetNoPrimary") => TopologyType::ReplicaSetNoPrimary,
        Some("ReplicaSetWithPrimary") => TopologyType::ReplicaSetWithPrimary,
        Some("Sharded") => TopologyType::Sharded,
        Some("LoadBalanced") => TopologyType::LoadBalanced,
        Some("Unknown") => TopologyType::Unknown,
        other => panic!("topology type {other:?}"),
    };
    let servers = json["servers"].as_array().expect("servers").iter().map(server);
    Topology::of(topology_type, servers.collect())
}

fn server(json: &Json) -> ServerDescription {
    let mut server = ServerDescription::unknown(address(json), None);
    server.server_type = match json["type"].as_str() {
        Some("Standalone") => ServerType::Standalone,
        Some("Mongos") => ServerType::Mongos,
        Some("RSPrimary") => ServerType::RsPrimary,
        Some("RSSecondary") => ServerType::RsSecondary,
        Some("RSArbiter") => ServerType::RsArbiter,
        Some("RSOther") => ServerType::RsOther,
        Some("RSGhost") => ServerType::RsGhost,
        Some("LoadBalancer") => ServerType::LoadBalancer,
        // A possible primary is an unknown server that a secondary has named.
        Some("Unknown" | "PossiblePrimary") => ServerType::Unknown,
        other => panic!("server type {other:?}"),
    };
    server.average_rtt_ms = json["avg_rtt_ms"].as_f64();
    server.last_update_ms = json["lastUpdateTime"].as_i64().unwrap_or(0);
    server.last_write_ms = json["lastWrite"]["lastWriteDate"]["$numberLong"]
        .as_str()
        .map(|ms| ms.parse().expect("a date"));
    server.tags = tags(&json["tags"]);
    server
}

fn tags(json: &Json) -> BTreeMap<String, String> {
    let text = |value: &Json| value.as_str().expect("a tag").to_owned();
    json.as_object().into_iter().flatten().map(|(n, v)| (n.clone(), text(v))).collect()
}

fn read_preference(json: &Json) -> ReadPreference {
    let name = json["mode"].as_str().unwrap_or("Primary");
    let name = name[..1].to_lowercase() + &name[1..];
    ReadPreference {
        mode: ReadPreferenceMode::from_name(&name).expect("a mode"),
        tag_sets: json["tag_sets"].as_array().into_iter().flatten().map(tags).collect(),
        max_staleness: json["maxStalenessSeconds"].as_u64().map(Duration::from_secs),
    }
}
