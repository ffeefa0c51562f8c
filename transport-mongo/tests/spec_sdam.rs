//! The official cases of Server Discovery and Monitoring: replies and errors in, the topology
//! out.

mod common;
#[path = "common/ejson.rs"]
mod ejson;

use common::{Tally, files, same};
use dbmount_transport_mongo::error::ServerError;
use dbmount_transport_mongo::hello::HelloReply;
use dbmount_transport_mongo::topology::{
    ApplicationError, ErrorKind, HandshakeStage, PoolGeneration, ServerType, Topology, TopologyType,
};
use dbmount_transport_mongo::uri::{ConnectionString, ServerAddress};
use serde_json::Value as Json;

#[test]
fn server_discovery_and_monitoring() {
    let left_out: &[_] = &[
        (
            "server-discovery-and-monitoring/monitoring/",
            "checks published events; nothing is published here, the topology is plain data",
        ),
        (
            "server-discovery-and-monitoring/unified/",
            "needs servers with failPoint and a driver's whole client interface",
        ),
    ];
    let folder = "server-discovery-and-monitoring";
    let Some(files) = files(folder) else { return };
    let mut tally = Tally::new(folder, left_out);
    for (file, case) in &files {
        tally.case(file, || run(case));
    }
    tally.finish();
}

fn run(case: &Json) -> Result<(), String> {
    let uri = case["uri"].as_str().expect("a uri");
    let uri = ConnectionString::parse(uri).map_err(|e| e.to_string())?;
    let mut topology = Topology::from_uri(&uri);
    for (i, phase) in case["phases"].as_array().expect("phases").iter().enumerate() {
        for response in phase["responses"].as_array().into_iter().flatten() {
            respond(&mut topology, response);
        }
        for error in phase["applicationErrors"].as_array().into_iter().flatten() {
            fail(&mut topology, error);
        }
        compare(&topology, &phase["outcome"]).map_err(|why| format!("phase {i}: {why}"))?;
    }
    Ok(())
}

fn address(json: &Json) -> ServerAddress {
    ServerAddress::parse(json.as_str().expect("an address")).expect("an address")
}

fn respond(topology: &mut Topology, response: &Json) {
    let server = address(&response[0]);
    if response[1].as_object().is_some_and(|reply| reply.is_empty()) {
        return topology.on_check_failed(&server, "network error");
    }
    match HelloReply::from_doc(&ejson::doc(&response[1])) {
        Ok(reply) => topology.on_hello(&server, &reply, Some(1.0), 0),
        Err(error) => topology.on_check_failed(&server, &error.to_string()),
    }
}

fn fail(topology: &mut Topology, error: &Json) {
    let server = address(&error["address"]);
    let kind = match error["type"].as_str() {
        Some("network") => ErrorKind::Network,
        Some("timeout") => ErrorKind::Timeout,
        _ => {
            let reply = ServerError::from_reply(&ejson::doc(&error["response"]));
            ErrorKind::Command(Box::new(reply.expect("an error")))
        }
    };
    let stage = match error["when"].as_str() {
        Some("beforeHandshakeCompletes") => HandshakeStage::BeforeHandshakeCompletes,
        _ => HandshakeStage::AfterHandshakeCompletes,
    };
    let generation = match error["generation"].as_u64() {
        Some(generation) => PoolGeneration(generation),
        None => topology.generation(&server),
    };
    let max_wire_version = error["maxWireVersion"].as_i64().expect("a version") as i32;
    let error = ApplicationError { generation, max_wire_version, stage, kind };
    topology.on_application_error(&server, &error);
}

fn compare(topology: &Topology, want: &Json) -> Result<(), String> {
    same("topology type", type_name(topology.topology_type()), want["topologyType"].as_str())?;
    same("set name", topology.set_name(), want["setName"].as_str())?;
    if let Some(compatible) = want["compatible"].as_bool() {
        same("compatible", topology.incompatible().is_none(), compatible)?;
    }
    if let Some(minutes) = want.get("logicalSessionTimeoutMinutes") {
        same("session timeout", topology.logical_session_timeout_minutes(), minutes.as_i64())?;
    }
    if let Some(version) = want.get("maxSetVersion") {
        same("max set version", topology.max_set_version(), version.as_i64())?;
    }
    if let Some(id) = want.get("maxElectionId") {
        same("max election id", topology.max_election_id(), ejson::object_id(id))?;
    }
    let servers = want["servers"].as_object().expect("servers");
    same("servers", topology.servers().count(), servers.len())?;
    for (name, want) in servers {
        let at = ServerAddress::parse(name).expect("an address");
        let server = topology.server(&at).ok_or(format!("no server {name}"))?;
        let check = |field: &str, got: Option<String>| match want.get(field) {
            Some(want) => {
                let plain = want.as_str().map(str::to_owned);
                let want = plain.or_else(|| ejson::number(want).map(|n| n.to_string()));
                same(&format!("{name}: {field}"), got, want)
            }
            None => Ok(()),
        };
        if want["type"] == "PossiblePrimary" {
            // Only for drivers with one thread; to all others it is an unknown server.
            same("type", server.server_type, ServerType::Unknown)?;
            continue;
        }
        check("type", server_type(server.server_type).map(str::to_owned))?;
        check("setName", server.set_name.clone())?;
        check("setVersion", server.set_version.map(|v| v.to_string()))?;
        if let Some(error) = want["error"].as_str() {
            same("error", server.error.as_deref(), Some(error))?;
        }
        if let Some(id) = want.get("electionId") {
            same("election id", server.election_id, ejson::object_id(id))?;
        }
        if let Some(minutes) = want.get("logicalSessionTimeoutMinutes") {
            same("timeout", server.logical_session_timeout_minutes, minutes.as_i64())?;
        }
        if let Some(version) = want.get("topologyVersion") {
            let pair =
                ejson::object_id(&version["processId"]).zip(ejson::number(&version["counter"]));
            same(&format!("{name}: topology version"), server.topology_version, pair)?;
        }
        if let Some(generation) = want["pool"]["generation"].as_u64() {
            let got = topology.generation(&at);
            same(&format!("{name}: generation"), got, PoolGeneration(generation))?;
        }
        // The two wire versions are only ever given as null, for a load balancer.
        if want.get("minWireVersion").is_some() {
            same("wire", (server.min_wire_version, server.max_wire_version), (0, 0))?;
        }
    }
    Ok(())
}

fn type_name(topology: TopologyType) -> Option<&'static str> {
    Some(match topology {
        TopologyType::Single => "Single",
        TopologyType::ReplicaSetNoPrimary => "ReplicaSetNoPrimary",
        TopologyType::ReplicaSetWithPrimary => "ReplicaSetWithPrimary",
        TopologyType::Sharded => "Sharded",
        TopologyType::LoadBalanced => "LoadBalanced",
        TopologyType::Unknown => "Unknown",
    })
}

fn server_type(server: ServerType) -> Option<&'static str> {
    Some(match server {
        ServerType::Standalone => "Standalone",
        ServerType::Mongos => "Mongos",
        ServerType::RsPrimary => "RSPrimary",
        ServerType::RsSecondary => "RSSecondary",
        ServerType::RsArbiter => "RSArbiter",
        ServerType::RsOther => "RSOther",
        ServerType::RsGhost => "RSGhost",
        ServerType::LoadBalancer => "LoadBalancer",
        ServerType::Unknown => "Unknown",
    })
}
