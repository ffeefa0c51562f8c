//! The official cases for connection strings: parsing, options, credentials, concerns.

mod common;

use common::{Tally, files, same};
use dbmount_transport_mongo::uri::{
    ConnectionString, Credential, MonitoringMode, Options, ReadPreferenceMode, Secret,
    ServerAddress, WriteAck,
};
use dbmount_transport_mongo::wire::compressed::Compressor;
use serde_json::{Map, Value as Json, json};
use std::time::Duration;

/// Runs every case of a folder through `check`, which sees only strings that must parse.
fn run(
    folder: &'static str,
    left_out: &'static [(&'static str, &'static str)],
    check: impl Fn(&Json, &ConnectionString) -> Result<(), String>,
) {
    let Some(files) = files(folder) else { return };
    let mut tally = Tally::new(folder, left_out);
    for (file, json) in files {
        for case in json["tests"].as_array().expect("a list of tests") {
            let name = format!("{file}: {}", case["description"].as_str().unwrap_or("?"));
            tally.case(&name, || {
                let uri = ConnectionString::parse(case["uri"].as_str().expect("a uri"));
                match (uri, case["valid"].as_bool() == Some(true)) {
                    (Err(_), false) => Ok(()),
                    (Err(error), true) => Err(format!("refused: {error}")),
                    (Ok(_), false) => Err("accepted".to_owned()),
                    (Ok(uri), true) => {
                        if let Some(warning) = case["warning"].as_bool() {
                            same("warning", !uri.warnings.is_empty(), warning)?;
                        }
                        check(case, &uri)
                    }
                }
            });
        }
    }
    tally.finish();
}

#[test]
fn connection_string() {
    run("connection-string", &[], |case, uri| {
        check_hosts(case, uri)?;
        check_userinfo(case, uri)?;
        check_options(case, uri)
    });
}

#[test]
fn uri_options() {
    run("uri-options", &[], |case, uri| {
        check_hosts(case, uri)?;
        check_options(case, uri)
    });
}

#[test]
fn auth() {
    let left_out: &[_] = &[(
        "should throw an exception if username and password provided (MONGODB-AWS)",
        "contradicts the case that uses user name and password; the mechanism is not implemented",
    )];
    run("auth/legacy", left_out, |case, uri| {
        let want = match &case["credential"] {
            Json::Null => return same("no credential", uri.credential.is_none(), true),
            want => want,
        };
        let got = uri.credential.as_ref().ok_or("no credential")?;
        let reveal = |secret: &Option<Secret>| secret.as_ref().map(|s| s.reveal().to_owned());
        let text = |name: &str| want[name].as_str().map(str::to_owned);
        same("username", reveal(&got.username), text("username"))?;
        same("password", reveal(&got.password), text("password"))?;
        same("source", Some(got.source.clone()), text("source"))?;
        same("mechanism", got.mechanism.map(|m| m.name().to_owned()), text("mechanism"))?;
        let want = want["mechanism_properties"].as_object().cloned().unwrap_or_default();
        same("properties", properties(got), want)
    });
}

#[test]
fn read_and_write_concern() {
    let left_out: &[_] = &[(
        "wtimeoutMS as an invalid number",
        "contradicts uri-options, which wants a warning for a negative wTimeoutMS",
    )];
    run("read-write-concern/connection-string", left_out, |case, uri| {
        if let Some(want) = case["readConcern"].as_object() {
            let level = want.get("level").and_then(Json::as_str).map(str::to_owned);
            same("level", uri.options.read_concern_level.clone(), level)?;
        }
        for (name, want) in case["writeConcern"].as_object().into_iter().flatten() {
            same(name, option(&uri.options, name).unwrap_or(Json::Null), want.clone())?;
        }
        if case["writeConcern"].as_object().is_some_and(Map::is_empty) {
            same("no write concern", uri.options.write_concern.clone(), Default::default())?;
        }
        Ok(())
    });
}

fn properties(credential: &Credential) -> Map<String, Json> {
    let pair = |(name, value): (&String, &Secret)| (name.clone(), json!(value.reveal()));
    credential.properties.iter().map(pair).collect()
}

fn check_hosts(case: &Json, uri: &ConnectionString) -> Result<(), String> {
    let Some(want) = case["hosts"].as_array() else { return Ok(()) };
    same("hosts", uri.hosts.len(), want.len())?;
    for (got, want) in uri.hosts.iter().zip(want) {
        let host = want["host"].as_str().expect("a host");
        let want = match want["type"].as_str() {
            Some("unix") => ServerAddress::Unix(host.to_owned()),
            _ => ServerAddress::Tcp {
                host: host.to_lowercase(),
                port: want["port"].as_u64().map_or(27_017, |port| port as u16),
            },
        };
        same("host", got, &want)?;
    }
    Ok(())
}

fn check_userinfo(case: &Json, uri: &ConnectionString) -> Result<(), String> {
    let Some(want) = case["auth"].as_object() else { return Ok(()) };
    let text = |name: &str| want[name].as_str();
    let credential = uri.credential.as_ref();
    let username = credential.and_then(|c| c.username.as_ref()).map(Secret::reveal);
    let password = credential.and_then(|c| c.password.as_ref()).map(Secret::reveal);
    same("username", username, text("username"))?;
    same("password", password, text("password"))?;
    same("db", uri.path.as_deref(), text("db"))
}

fn check_options(case: &Json, uri: &ConnectionString) -> Result<(), String> {
    for (name, want) in case["options"].as_object().into_iter().flatten() {
        let got = match name.to_lowercase().as_str() {
            "authmechanismproperties" => {
                let got = &uri.options.auth_mechanism_properties;
                let pair =
                    |(name, value): (&String, &Secret)| (name.clone(), json!(value.reveal()));
                Some(Json::Object(got.iter().map(pair).collect()))
            }
            _ => option(&uri.options, name),
        };
        same(name, got, Some(want.clone()))?;
    }
    Ok(())
}

/// An option as the cases write it.
fn option(options: &Options, name: &str) -> Option<Json> {
    let ms = |d: Option<Duration>| d.map(|d| json!(d.as_millis() as u64));
    let o = options;
    match name.to_lowercase().as_str() {
        "appname" => o.app_name.as_ref().map(|v| json!(v)),
        "authmechanism" => o.auth_mechanism.map(|v| json!(v.name())),
        "authsource" => o.auth_source.as_ref().map(|v| json!(v)),
        "compressors" => {
            let name = |c: &Compressor| json!(format!("{c:?}").to_lowercase());
            Some(Json::Array(o.compressors.iter().map(name).collect()))
        }
        "zlibcompressionlevel" => o.zlib_compression_level.map(|v| json!(v)),
        "connecttimeoutms" => ms(o.connect_timeout),
        "sockettimeoutms" => ms(o.socket_timeout),
        "serverselectiontimeoutms" => ms(o.server_selection_timeout),
        "timeoutms" => ms(o.timeout),
        "heartbeatfrequencyms" => ms(o.heartbeat_frequency),
        "localthresholdms" => ms(o.local_threshold),
        "maxidletimems" => ms(o.max_idle_time),
        "maxpoolsize" => o.max_pool_size.map(|v| json!(v)),
        "minpoolsize" => o.min_pool_size.map(|v| json!(v)),
        "maxconnecting" => o.max_connecting.map(|v| json!(v)),
        "directconnection" => o.direct_connection.map(|v| json!(v)),
        "loadbalanced" => o.load_balanced.map(|v| json!(v)),
        "replicaset" => o.replica_set.as_ref().map(|v| json!(v)),
        "readconcernlevel" => o.read_concern_level.as_ref().map(|v| json!(v)),
        "readpreference" => Some(json!(match o.read_preference.mode {
            ReadPreferenceMode::Primary => "primary",
            ReadPreferenceMode::PrimaryPreferred => "primaryPreferred",
            ReadPreferenceMode::Secondary => "secondary",
            ReadPreferenceMode::SecondaryPreferred => "secondaryPreferred",
            ReadPreferenceMode::Nearest => "nearest",
        })),
        "readpreferencetags" => Some(json!(o.read_preference.tag_sets)),
        "maxstalenessseconds" => o.read_preference.max_staleness.map(|d| json!(d.as_secs())),
        "w" => o.write_concern.w.as_ref().map(|w| match w {
            WriteAck::Nodes(n) => json!(n),
            WriteAck::Mode(mode) => json!(mode),
        }),
        "wtimeoutms" => ms(o.write_concern.timeout),
        "journal" => o.write_concern.journal.map(|v| json!(v)),
        "retrywrites" => o.retry_writes.map(|v| json!(v)),
        "maxadaptiveretries" => o.max_adaptive_retries.map(|v| json!(v)),
        "enableoverloadretargeting" => o.enable_overload_retargeting.map(|v| json!(v)),
        "servermonitoringmode" => o.server_monitoring_mode.map(|v| {
            json!(match v {
                MonitoringMode::Auto => "auto",
                MonitoringMode::Stream => "stream",
                MonitoringMode::Poll => "poll",
            })
        }),
        "serverselectiontryonce" => o.server_selection_try_once.map(|v| json!(v)),
        "srvmaxhosts" => o.srv_max_hosts.map(|v| json!(v)),
        "srvservicename" => o.srv_service_name.as_ref().map(|v| json!(v)),
        "tls" => o.tls.map(|v| json!(v)),
        "tlsallowinvalidcertificates" => o.tls_allow_invalid_certificates.map(|v| json!(v)),
        "tlsallowinvalidhostnames" => o.tls_allow_invalid_hostnames.map(|v| json!(v)),
        "tlscafile" => o.tls_ca_file.as_ref().map(|v| json!(v)),
        "tlscertificatekeyfile" => o.tls_certificate_key_file.as_ref().map(|v| json!(v)),
        "tlscertificatekeyfilepassword" => {
            o.tls_certificate_key_file_password.as_ref().map(|v| json!(v.reveal()))
        }
        "tlsdisablecertificaterevocationcheck" => {
            o.tls_disable_certificate_revocation_check.map(|v| json!(v))
        }
        "tlsdisableocspendpointcheck" => o.tls_disable_ocsp_endpoint_check.map(|v| json!(v)),
        "tlsinsecure" => o.tls_insecure.map(|v| json!(v)),
        other => Some(json!(format!("the test knows no option {other}"))),
    }
}
