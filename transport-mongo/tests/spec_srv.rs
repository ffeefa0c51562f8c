//! The official cases of the initial DNS seedlist discovery, with a resolver of the test's own.

mod common;

use common::{Tally, files, same};
use dbmount_transport_mongo::uri::{
    ConnectionString, Secret, ServerAddress, SrvRecord, SrvResolver, UriError,
};
use serde_json::Value as Json;

type Records = (&'static str, &'static [(&'static str, u16)], &'static [&'static str]);

/// The records the specification asks its test domain to hold: name, SRV targets and ports, TXT
/// records. Targets without a dot are under `test.build.10gen.cc`.
const RECORDS: [Records; 22] = [
    ("test1", &[("localhost", 27_017), ("localhost", 27_018)], &[]),
    ("test2", &[("localhost", 27_018), ("localhost", 27_019)], &[]),
    ("test3", &[("localhost", 27_017)], &[]),
    ("test5", &[("localhost", 27_017)], &["replicaSet=repl0&authSource=thisDB"]),
    ("test6", &[("localhost", 27_017)], &["replicaSet=repl0", "authSource=otherDB"]),
    ("test7", &[("localhost", 27_017)], &["ssl=false"]),
    ("test8", &[("localhost", 27_017)], &["authSource"]),
    ("test10", &[("localhost", 27_017)], &["socketTimeoutMS=500"]),
    // Three strings of one record, joined.
    ("test11", &[("localhost", 27_017)], &["replicaSet=repl0"]),
    ("test12", &[("localhost.build.10gen.cc", 27_017)], &[]),
    ("test13", &[("test.build.10gen.cc", 27_017)], &[]),
    ("test14", &[("localhost.not-test.build.10gen.cc", 27_017)], &[]),
    ("test15", &[("localhost.test.not-build.10gen.cc", 27_017)], &[]),
    ("test16", &[("localhost.test.build.not-10gen.cc", 27_017)], &[]),
    ("test17", &[("localhost.test.build.10gen.not-cc", 27_017)], &[]),
    ("test18", &[("localhost.sub.test.build.10gen.cc", 27_017)], &[]),
    ("test19", &[("localhost.evil.build.10gen.cc", 27_017), ("localhost", 27_017)], &[]),
    ("test20", &[("localhost", 27_017)], &["loadBalanced=true"]),
    ("test21", &[("localhost", 27_017)], &["loadBalanced=false"]),
    ("test22", &[("localhost", 27_017), ("localhost", 27_018)], &[]),
    ("test23", &[("localhost", 8_000)], &[]),
    ("test24", &[("localhost", 8_000)], &["loadBalanced=true"]),
];

const DOMAIN: &str = "test.build.10gen.cc";

struct TestDomain;

impl SrvResolver for TestDomain {
    fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, UriError> {
        let found = RECORDS.iter().find(|(host, ..)| {
            let service = if *host == "test22" { "customname" } else { "mongodb" };
            name == format!("_{service}._tcp.{host}.{DOMAIN}")
        });
        let record = |(target, port): &(&str, u16)| {
            let full = target.contains('.');
            let target = if full { (*target).to_owned() } else { format!("{target}.{DOMAIN}.") };
            SrvRecord { target, port: *port }
        };
        Ok(found.map(|(_, targets, _)| targets.iter().map(record).collect()).unwrap_or_default())
    }

    fn txt(&self, name: &str) -> Result<Vec<String>, UriError> {
        let found = RECORDS.iter().find(|(host, ..)| name == format!("{host}.{DOMAIN}"));
        let texts = found.map(|(.., texts)| *texts).unwrap_or_default();
        Ok(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

#[test]
fn initial_dns_seedlist_discovery() {
    let Some(files) = files("initial-dns-seedlist-discovery") else { return };
    let mut tally = Tally::new("initial-dns-seedlist-discovery", &[]);
    for (file, case) in &files {
        tally.case(file, || run(case));
    }
    tally.finish();
}

fn run(case: &Json) -> Result<(), String> {
    let uri = ConnectionString::parse(case["uri"].as_str().expect("a uri"))
        .and_then(|uri| uri.resolve_srv(&TestDomain, 7));
    let uri = match (uri, case["error"] == true) {
        (Err(_), true) => return Ok(()),
        (Ok(_), true) => return Err("accepted".to_owned()),
        (Err(error), false) => return Err(error.to_string()),
        (Ok(uri), false) => uri,
    };
    if let Some(seeds) = case["seeds"].as_array() {
        let parse = |seed: &Json| ServerAddress::parse(seed.as_str().expect("a seed"));
        let mut want: Vec<_> = seeds.iter().map(|s| parse(s).expect("an address")).collect();
        let mut got = uri.hosts.clone();
        want.sort();
        got.sort();
        same("seeds", got, want)?;
    }
    if let Some(count) = case["numSeeds"].as_u64() {
        same("seeds", uri.hosts.len() as u64, count)?;
    }
    let options = &uri.options;
    for (name, want) in case["options"].as_object().into_iter().flatten() {
        match name.as_str() {
            "replicaSet" => same(name, options.replica_set.as_deref(), want.as_str())?,
            "authSource" => same(name, options.auth_source.as_deref(), want.as_str())?,
            "ssl" => same(name, options.tls, want.as_bool())?,
            "loadBalanced" => same(name, options.load_balanced, want.as_bool())?,
            "directConnection" => same(name, options.direct_connection, want.as_bool())?,
            "srvServiceName" => same(name, options.srv_service_name.as_deref(), want.as_str())?,
            "srvMaxHosts" => {
                same(name, options.srv_max_hosts.map(u64::from), want.as_u64())?;
            }
            other => return Err(format!("the test knows no option {other}")),
        }
    }
    let reveal = |secret: Option<&Secret>| secret.map(|s| s.reveal().to_owned());
    for (name, want) in case["parsed_options"].as_object().into_iter().flatten() {
        let credential = uri.credential.as_ref();
        let got = match name.as_str() {
            "user" => reveal(credential.and_then(|c| c.username.as_ref())),
            "password" => reveal(credential.and_then(|c| c.password.as_ref())),
            "db" | "defaultDatabase" | "auth_database" => uri.path.clone(),
            other => return Err(format!("the test knows no parsed option {other}")),
        };
        same(name, got.as_deref(), want.as_str())?;
    }
    Ok(())
}
