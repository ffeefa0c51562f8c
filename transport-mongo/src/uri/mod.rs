//! `mongodb://` connection strings: hosts, credentials, default database, typed options.
//!
//! Source: the connection string, URI options, auth and read/write concern specifications.

mod credential;
mod host;
mod options;
mod srv;

use std::fmt;

use percent_encoding::percent_decode_str;

pub use credential::{Credential, Mechanism, Secret};
pub use host::{DEFAULT_PORT, ServerAddress};
pub use options::{
    MonitoringMode, Options, ReadPreference, ReadPreferenceMode, TagSet, WriteAck, WriteConcern,
};
pub use srv::{SrvRecord, SrvResolver};

/// A parsed connection string. Printing it never shows a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// The seeds, in the order given; empty until resolved when `srv` is set.
    pub hosts: Vec<ServerAddress>,
    /// The host of a `mongodb+srv://` string: [`ConnectionString::resolve_srv`] turns it into
    /// `hosts`.
    pub srv: Option<String>,
    /// The path, percent-decoded: a database, or `database.collection`.
    pub path: Option<String>,
    /// Whom to authenticate as, if anyone.
    pub credential: Option<Credential>,
    /// The typed options.
    pub options: Options,
    /// What was ignored, and why.
    pub warnings: Vec<Warning>,
}

/// Something in a connection string that was ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The option's name in lower case.
    pub option: String,
    /// Why it was ignored. Never quotes the value: it may be a secret.
    pub why: &'static str,
}

/// Why a connection string cannot be used. Never quotes it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriError {
    /// The rule that was broken.
    pub what: &'static str,
    /// The option it is about, empty for the other parts.
    pub option: String,
}

impl UriError {
    pub(crate) fn new(what: &'static str) -> UriError {
        UriError { what, option: String::new() }
    }

    pub(crate) fn option(option: &str, what: &'static str) -> UriError {
        UriError { what, option: option.to_owned() }
    }
}

impl fmt::Display for UriError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.option.as_str() {
            "" => write!(f, "connection string: {}", self.what),
            option => write!(f, "connection string, option {option}: {}", self.what),
        }
    }
}

impl std::error::Error for UriError {}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection string, option {}: {}", self.option, self.why)
    }
}

/// Characters no database name may hold (connection string spec, "Database").
const NOT_IN_PATH: [char; 5] = ['/', '\\', ' ', '"', '$'];

impl ConnectionString {
    /// Parses a connection string.
    ///
    /// # Errors
    /// What the specifications call invalid. What they only want ignored becomes a
    /// [`Warning`].
    ///
    /// ```
    /// use dbmount_transport_mongo::uri::ConnectionString;
    /// let uri = ConnectionString::parse("mongodb://127.0.0.1/docs.fs?w=1&colour=red").unwrap();
    /// assert_eq!(uri.namespace(), Some(("docs", Some("fs"))));
    /// assert_eq!(uri.warnings[0].option, "colour");
    /// ```
    pub fn parse(text: &str) -> Result<ConnectionString, UriError> {
        let (rest, is_srv) = match text.split_once("://") {
            Some(("mongodb", rest)) => (rest, false),
            Some(("mongodb+srv", rest)) => (rest, true),
            _ => return Err(UriError::new("it must begin with mongodb:// or mongodb+srv://")),
        };
        let (authority, path, query) = split(rest);
        let (userinfo, hosts) = match authority.rsplit_once('@') {
            Some((userinfo, hosts)) => (Some(userinfo), hosts),
            None => (None, authority),
        };
        let (username, password) = userinfo.map(split_userinfo).transpose()?.unzip();
        let (hosts, srv) = match is_srv {
            true => (Vec::new(), Some(host::parse_srv(hosts)?)),
            false => (host::parse_list(hosts)?, None),
        };
        let path = match path {
            None | Some("") => None,
            Some(path) if path.contains('/') => {
                return Err(UriError::new(
                    "an unescaped slash, in the credentials or the database",
                ));
            }
            Some(path) => Some(decode(path)?),
        };
        if path.as_ref().is_some_and(|path| path.contains(NOT_IN_PATH)) {
            return Err(UriError::new("a character no database name may hold"));
        }
        let mut warnings = Vec::new();
        let mut options = Options::parse(query.unwrap_or(""), &mut warnings)?;
        if is_srv && options.tls.is_none() {
            options.tls = Some(true);
        }
        let mut uri = ConnectionString { hosts, srv, path, credential: None, options, warnings };
        uri.check_options()?;
        uri.credential = credential::build(
            username,
            password.flatten(),
            uri.namespace().map(|(db, _)| db),
            &uri.options,
        )?;
        Ok(uri)
    }

    /// The path as database and collection. A database name cannot hold a dot, so the first one
    /// separates them.
    pub fn namespace(&self) -> Option<(&str, Option<&str>)> {
        let path = self.path.as_deref()?;
        match path.split_once('.') {
            Some((db, collection)) => Some((db, Some(collection))),
            None => Some((path, None)),
        }
    }

    /// Rules between options and hosts (URI options spec, SRV and load balancer specs).
    fn check_options(&self) -> Result<(), UriError> {
        let many = self.hosts.len() > 1;
        let options = &self.options;
        let direct = options.direct_connection == Some(true);
        let balanced = options.load_balanced == Some(true);
        if direct && (many || self.srv.is_some()) {
            let why = "a direct connection takes exactly one host";
            return Err(UriError::option("directconnection", why));
        }
        if balanced && (many || direct || options.replica_set.is_some()) {
            let why = "it excludes several hosts, directConnection=true and replicaSet";
            return Err(UriError::option("loadbalanced", why));
        }
        if self.srv.is_none() {
            let given = [
                ("srvservicename", options.srv_service_name.is_some()),
                ("srvmaxhosts", options.srv_max_hosts.is_some()),
            ];
            if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
                return Err(UriError::option(name, "only mongodb+srv:// takes it"));
            }
        }
        let limited = options.srv_max_hosts.is_some_and(|max| max > 0);
        if limited && (balanced || options.replica_set.is_some()) {
            let why = "it excludes replicaSet and loadBalanced=true";
            return Err(UriError::option("srvmaxhosts", why));
        }
        Ok(())
    }
}

/// Authority, path and query. The authority ends at the first slash or question mark, whichever
/// comes first; the slash may be missing before options.
fn split(rest: &str) -> (&str, Option<&str>, Option<&str>) {
    let (front, query) = match rest.split_once('?') {
        Some((front, query)) => (front, Some(query)),
        None => (rest, None),
    };
    match front.split_once('/') {
        Some((authority, path)) => (authority, Some(path), query),
        None => (front, None, query),
    }
}

fn split_userinfo(userinfo: &str) -> Result<(String, Option<String>), UriError> {
    if userinfo.contains('@') {
        return Err(UriError::new("an unescaped at-sign in the credentials"));
    }
    let (username, password) = match userinfo.split_once(':') {
        Some((_, password)) if password.contains(':') => {
            return Err(UriError::new("an unescaped colon in the credentials"));
        }
        Some((username, password)) => (username, Some(decode(password)?)),
        None => (userinfo, None),
    };
    match username {
        "" => Err(UriError::new("credentials without a user name")),
        _ => Ok((decode(username)?, password)),
    }
}

/// Percent-decodes strictly: a `%` without two hex digits is an error, `+` is itself.
pub(crate) fn decode(text: &str) -> Result<String, UriError> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|b| *b == b'%') {
        let digits = bytes.get(at + found + 1..at + found + 3);
        if !digits.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit)) {
            return Err(UriError::new("a percent sign that is no escape"));
        }
        at += found + 3;
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(UriError::new("an escape that is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_print_shows_a_secret() {
        let text = "mongodb://alice:hunter2@h/db?authMechanism=PLAIN&proxyHost=p&\
                    proxyUsername=proxyuser&proxyPassword=proxysecret&\
                    tlsCertificateKeyFilePassword=keysecret";
        let uri = ConnectionString::parse(text).unwrap();
        let shown = format!("{uri:?} {uri:#?}");
        for secret in ["alice", "hunter2", "proxyuser", "proxysecret", "keysecret"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        for bad in [
            "mongodb://alice:hunter2:x@h",
            "mongodb://alice@hunter2@h",
            "mongodb://alice:hunter2%zz@h",
            "mongodb://alice:hunter2@h:99999999",
            "mongodb://alice:hunter2@h/?authMechanism=hunter2",
            "mongodb://alice:hunter2@h/?authMechanismProperties=hunter2",
        ] {
            match ConnectionString::parse(bad) {
                Err(error) => assert!(!format!("{error} {error:?}").contains("hunter2"), "{bad}"),
                Ok(uri) => assert!(!format!("{uri:?}").contains("hunter2"), "{bad}"),
            }
        }
    }

    #[test]
    fn the_source_of_a_credential_is_the_database_without_the_collection() {
        let uri = ConnectionString::parse("mongodb://u:p@h/docs.fs").unwrap();
        assert_eq!(uri.credential.unwrap().source, "docs");
    }
}
