//! The options of a connection string, typed. Unknown names and senseless values are ignored
//! with a warning; contradictions are errors.
//!
//! Source: the URI options specification.

use std::collections::BTreeMap;
use std::time::Duration;

use super::credential::{Mechanism, Secret};
use super::{UriError, Warning, decode};
use crate::wire::compressed::Compressor;

/// The typed options; `None` where the string says nothing and the default of whoever uses the
/// option holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "every field is the option of the same name")]
pub struct Options {
    pub app_name: Option<String>,
    pub auth_mechanism: Option<Mechanism>,
    pub auth_mechanism_properties: BTreeMap<String, Secret>,
    pub auth_source: Option<String>,
    pub compressors: Vec<Compressor>,
    pub zlib_compression_level: Option<i8>,
    pub connect_timeout: Option<Duration>,
    pub socket_timeout: Option<Duration>,
    pub server_selection_timeout: Option<Duration>,
    pub timeout: Option<Duration>,
    pub heartbeat_frequency: Option<Duration>,
    pub local_threshold: Option<Duration>,
    pub max_idle_time: Option<Duration>,
    pub max_pool_size: Option<u32>,
    pub min_pool_size: Option<u32>,
    pub max_connecting: Option<u32>,
    pub wait_queue_timeout: Option<Duration>,
    pub direct_connection: Option<bool>,
    pub load_balanced: Option<bool>,
    pub replica_set: Option<String>,
    pub read_concern_level: Option<String>,
    pub read_preference: ReadPreference,
    pub write_concern: WriteConcern,
    pub retry_reads: Option<bool>,
    pub retry_writes: Option<bool>,
    pub max_adaptive_retries: Option<u32>,
    pub enable_overload_retargeting: Option<bool>,
    pub server_monitoring_mode: Option<MonitoringMode>,
    pub server_selection_try_once: Option<bool>,
    pub srv_max_hosts: Option<u32>,
    pub srv_service_name: Option<String>,
    pub tls: Option<bool>,
    pub tls_allow_invalid_certificates: Option<bool>,
    pub tls_allow_invalid_hostnames: Option<bool>,
    pub tls_ca_file: Option<String>,
    pub tls_certificate_key_file: Option<String>,
    pub tls_certificate_key_file_password: Option<Secret>,
    pub tls_disable_certificate_revocation_check: Option<bool>,
    pub tls_disable_ocsp_endpoint_check: Option<bool>,
    pub tls_insecure: Option<bool>,
    pub proxy_host: Option<String>,
    pub proxy_port: Option<u16>,
    pub proxy_username: Option<Secret>,
    pub proxy_password: Option<Secret>,
}

/// How a server is watched (SDAM monitoring spec, `serverMonitoringMode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MonitoringMode {
    /// Streaming where the server can.
    #[default]
    Auto,
    /// Streaming.
    Stream,
    /// One hello a heartbeat.
    Poll,
}

/// Which servers may answer a read (server selection spec, "Mode").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the five modes of the specification")]
pub enum ReadPreferenceMode {
    #[default]
    Primary,
    PrimaryPreferred,
    Secondary,
    SecondaryPreferred,
    Nearest,
}

impl ReadPreferenceMode {
    /// The mode of this name (`primary`, `primaryPreferred` and so on).
    pub fn from_name(name: &str) -> Option<ReadPreferenceMode> {
        Some(match name {
            "primary" => ReadPreferenceMode::Primary,
            "primaryPreferred" => ReadPreferenceMode::PrimaryPreferred,
            "secondary" => ReadPreferenceMode::Secondary,
            "secondaryPreferred" => ReadPreferenceMode::SecondaryPreferred,
            "nearest" => ReadPreferenceMode::Nearest,
            _ => return None,
        })
    }
}

/// Tags a server must all have; empty matches every server.
pub type TagSet = BTreeMap<String, String>;

/// A read preference: mode, tag sets in order of preference, staleness bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadPreference {
    /// Which servers may answer.
    pub mode: ReadPreferenceMode,
    /// Tried in order; none means any server.
    pub tag_sets: Vec<TagSet>,
    /// `maxStalenessSeconds`; `None` for no bound.
    pub max_staleness: Option<Duration>,
}

/// Who must have a write before it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteAck {
    /// So many members; 0 wants no reply.
    Nodes(u32),
    /// `majority`, or a mode of the replica set's configuration.
    Mode(String),
}

/// A write concern; `None` where the server's default holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteConcern {
    /// `w`.
    pub w: Option<WriteAck>,
    /// `j`: on disk before it counts.
    pub journal: Option<bool>,
    /// `wtimeout`.
    pub timeout: Option<Duration>,
}

impl Options {
    /// Parses the part behind the question mark.
    pub(super) fn parse(query: &str, warnings: &mut Vec<Warning>) -> Result<Options, UriError> {
        let mut options = Options::default();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) =
                pair.split_once('=').ok_or(UriError::new("an option without a value"))?;
            let name = decode(name)?.to_lowercase();
            // The two names of one option share a place.
            let key = if name == "ssl" { "tls" } else { name.as_str() };
            match seen.get(key) {
                Some(_) if key == "readpreferencetags" => {}
                Some(first) if key == "tls" => {
                    if first != value {
                        return Err(UriError::option("tls", "it is given twice and differs"));
                    }
                    continue;
                }
                Some(_) if key.starts_with("proxy") => {
                    return Err(UriError::option(&name, "it is given twice"));
                }
                Some(_) => {
                    warn(warnings, &name, "it is given twice; the first one counts");
                    continue;
                }
                None => {}
            }
            seen.insert(key.to_owned(), value.to_owned());
            if let Err(why) = options.set(key, value, warnings)? {
                warn(warnings, &name, why);
            }
        }
        if let (Some(old), None) = (seen.get("wtimeout"), options.write_concern.timeout) {
            options.write_concern.timeout = millis(old).ok();
        }
        options.check()?;
        Ok(options)
    }

    /// Sets one option. The inner error is why it was ignored.
    fn set(
        &mut self,
        name: &str,
        raw: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Result<(), &'static str>, UriError> {
        let value = decode(raw)?;
        let text = value.as_str();
        Ok(match name {
            "appname" => put(&mut self.app_name, app_name(text)),
            "authmechanism" => match Mechanism::from_name(text) {
                Some(mechanism) => put(&mut self.auth_mechanism, Ok(mechanism)),
                None => return Err(UriError::option(name, "an unknown mechanism")),
            },
            "authmechanismproperties" => self.set_properties(raw, warnings)?,
            "authsource" if text.is_empty() => {
                return Err(UriError::option(name, "it must not be empty"));
            }
            "authsource" => put(&mut self.auth_source, Ok(value)),
            "compressors" => {
                for one in text.split(',') {
                    match Compressor::from_name(one) {
                        Some(compressor) => self.compressors.push(compressor),
                        None => warn(warnings, name, "an unknown compressor"),
                    }
                }
                Ok(())
            }
            "zlibcompressionlevel" => {
                put(&mut self.zlib_compression_level, number(text, -1, 9).map(|n| n as i8))
            }
            "connecttimeoutms" => put(&mut self.connect_timeout, millis(text)),
            "sockettimeoutms" => put(&mut self.socket_timeout, millis(text)),
            "serverselectiontimeoutms" => put(&mut self.server_selection_timeout, millis(text)),
            "timeoutms" => put(&mut self.timeout, millis(text)),
            "heartbeatfrequencyms" => {
                // Never more often than minHeartbeatFrequencyMS (SDAM monitoring spec).
                let at_least = number(text, 500, i64::from(i32::MAX));
                put(&mut self.heartbeat_frequency, at_least.map(to_millis))
            }
            "localthresholdms" => put(&mut self.local_threshold, millis(text)),
            "maxidletimems" => put(&mut self.max_idle_time, millis(text)),
            "waitqueuetimeoutms" => put(&mut self.wait_queue_timeout, millis(text)),
            "maxpoolsize" => put(&mut self.max_pool_size, count(text, 0)),
            "minpoolsize" => put(&mut self.min_pool_size, count(text, 0)),
            "maxconnecting" => put(&mut self.max_connecting, count(text, 1)),
            "directconnection" => put(&mut self.direct_connection, boolean(text)),
            "loadbalanced" => put(&mut self.load_balanced, boolean(text)),
            "replicaset" => put(&mut self.replica_set, Ok(value)),
            "readconcernlevel" => put(&mut self.read_concern_level, Ok(value)),
            "readpreference" => match ReadPreferenceMode::from_name(text) {
                Some(mode) => {
                    self.read_preference.mode = mode;
                    Ok(())
                }
                None => Err("an unknown read preference"),
            },
            "readpreferencetags" => {
                tag_set(text).map(|tags| self.read_preference.tag_sets.push(tags))
            }
            "maxstalenessseconds" => number(text, -1, i64::from(i32::MAX)).map(|seconds| {
                let bound = u64::try_from(seconds).ok().map(Duration::from_secs);
                self.read_preference.max_staleness = bound;
            }),
            "w" => return self.set_w(text).map(Ok),
            "wtimeoutms" => put(&mut self.write_concern.timeout, millis(text)),
            // Counts only when wTimeoutMS is absent, which is known at the end.
            "wtimeout" => Err("deprecated: use wTimeoutMS"),
            "journal" => put(&mut self.write_concern.journal, boolean(text)),
            "retryreads" => put(&mut self.retry_reads, boolean(text)),
            "retrywrites" => put(&mut self.retry_writes, boolean(text)),
            "maxadaptiveretries" => put(&mut self.max_adaptive_retries, count(text, 0)),
            "enableoverloadretargeting" => {
                put(&mut self.enable_overload_retargeting, boolean(text))
            }
            "servermonitoringmode" => put(&mut self.server_monitoring_mode, monitoring(text)),
            "serverselectiontryonce" => put(&mut self.server_selection_try_once, boolean(text)),
            "srvmaxhosts" => put(&mut self.srv_max_hosts, count(text, 0)),
            "srvservicename" => put(&mut self.srv_service_name, Ok(value)),
            "tls" => put(&mut self.tls, boolean(text)),
            "tlsallowinvalidcertificates" => {
                put(&mut self.tls_allow_invalid_certificates, boolean(text))
            }
            "tlsallowinvalidhostnames" => put(&mut self.tls_allow_invalid_hostnames, boolean(text)),
            "tlscafile" => put(&mut self.tls_ca_file, Ok(value)),
            "tlscertificatekeyfile" => put(&mut self.tls_certificate_key_file, Ok(value)),
            "tlscertificatekeyfilepassword" => {
                put(&mut self.tls_certificate_key_file_password, Ok(Secret::new(value)))
            }
            "tlsdisablecertificaterevocationcheck" => {
                put(&mut self.tls_disable_certificate_revocation_check, boolean(text))
            }
            "tlsdisableocspendpointcheck" => {
                put(&mut self.tls_disable_ocsp_endpoint_check, boolean(text))
            }
            "tlsinsecure" => put(&mut self.tls_insecure, boolean(text)),
            "proxyhost" => put(&mut self.proxy_host, Ok(value)),
            "proxyport" => put(&mut self.proxy_port, number(text, 1, 65_535).map(|n| n as u16)),
            "proxyusername" => put(&mut self.proxy_username, Ok(Secret::new(value))),
            "proxypassword" => put(&mut self.proxy_password, Ok(Secret::new(value))),
            _ => Err("not an option known here"),
        })
    }

    fn set_w(&mut self, text: &str) -> Result<(), UriError> {
        let ack = match text.parse::<i64>() {
            Ok(n) => u32::try_from(n)
                .map(WriteAck::Nodes)
                .map_err(|_| UriError::option("w", "it cannot be negative"))?,
            Err(_) => WriteAck::Mode(text.to_owned()),
        };
        self.write_concern.w = Some(ack);
        Ok(())
    }

    /// `NAME:value` pairs between commas. Split before decoding, so that an escaped comma does
    /// not separate; the value may hold colons.
    fn set_properties(
        &mut self,
        raw: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Result<(), &'static str>, UriError> {
        for pair in raw.split(',') {
            let Some((name, value)) = pair.split_once(':') else {
                return Ok(Err("a property that is no NAME:value pair"));
            };
            let value = decode(value)?;
            if value.contains(',') {
                warn(warnings, "authmechanismproperties", "a property's value holds a comma");
            }
            self.auth_mechanism_properties.insert(decode(name)?, Secret::new(value));
        }
        Ok(Ok(()))
    }

    /// Contradictions between options.
    fn check(&self) -> Result<(), UriError> {
        if self.write_concern.w == Some(WriteAck::Nodes(0))
            && self.write_concern.journal == Some(true)
        {
            return Err(UriError::option("w", "w=0 and journal=true contradict each other"));
        }
        let invalid = ("tlsallowinvalidcertificates", self.tls_allow_invalid_certificates);
        let names = ("tlsallowinvalidhostnames", self.tls_allow_invalid_hostnames);
        let ocsp = ("tlsdisableocspendpointcheck", self.tls_disable_ocsp_endpoint_check);
        let revoked =
            ("tlsdisablecertificaterevocationcheck", self.tls_disable_certificate_revocation_check);
        let insecure = ("tlsinsecure", self.tls_insecure);
        let exclusive = [
            (insecure, invalid),
            (insecure, names),
            (insecure, ocsp),
            (insecure, revoked),
            (invalid, ocsp),
            (invalid, revoked),
            (ocsp, revoked),
        ];
        for ((one, a), (_, b)) in exclusive {
            if a.is_some() && b.is_some() {
                return Err(UriError::option(one, "it excludes another tls option given"));
            }
        }
        let proxied = self.proxy_port.is_some()
            || self.proxy_username.is_some()
            || self.proxy_password.is_some();
        if self.proxy_host.is_none() && proxied {
            return Err(UriError::option("proxyhost", "the other proxy options need it"));
        }
        if self.proxy_username.is_some() != self.proxy_password.is_some() {
            return Err(UriError::option("proxyusername", "name and password come together"));
        }
        Ok(())
    }
}

fn warn(warnings: &mut Vec<Warning>, option: &str, why: &'static str) {
    warnings.push(Warning { option: option.to_owned(), why });
}

/// Stores a value that parsed, passes on why one did not.
fn put<T>(place: &mut Option<T>, value: Result<T, &'static str>) -> Result<(), &'static str> {
    value.map(|value| *place = Some(value))
}

fn number(text: &str, low: i64, high: i64) -> Result<i64, &'static str> {
    match text.parse::<i64>() {
        Ok(n) if (low..=high).contains(&n) => Ok(n),
        Ok(_) => Err("a number out of its range"),
        Err(_) => Err("not a number"),
    }
}

fn count(text: &str, least: i64) -> Result<u32, &'static str> {
    number(text, least, i64::from(i32::MAX)).map(|n| n as u32)
}

fn to_millis(n: i64) -> Duration {
    Duration::from_millis(n.unsigned_abs())
}

fn millis(text: &str) -> Result<Duration, &'static str> {
    number(text, 0, i64::from(i32::MAX)).map(to_millis)
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("neither true nor false"),
    }
}

/// The handshake spec bounds it at 128 bytes: a longer one would make the server refuse us.
fn app_name(text: &str) -> Result<String, &'static str> {
    if text.len() > 128 { Err("longer than 128 bytes") } else { Ok(text.to_owned()) }
}

fn monitoring(text: &str) -> Result<MonitoringMode, &'static str> {
    match text {
        "auto" => Ok(MonitoringMode::Auto),
        "stream" => Ok(MonitoringMode::Stream),
        "poll" => Ok(MonitoringMode::Poll),
        _ => Err("neither auto, stream nor poll"),
    }
}

/// `name:value` pairs between commas; nothing at all is the empty set.
fn tag_set(text: &str) -> Result<TagSet, &'static str> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err("a tag that is no name:value pair"),
        })
        .collect()
}
