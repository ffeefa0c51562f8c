//! Where a server is and who we are to it: the URL that a user gives, and what is wrong with it.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const EXAMPLE: &str = "redis://:PASSWORD@127.0.0.1:6379/0 or unix:///run/redis/redis.sock?db=0";
const DEFAULT_PORT: u16 = 6379;

/// A password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// From the bytes of the password.
    pub fn new(password: impl Into<Vec<u8>>) -> Secret {
        Secret(password.into())
    }

    /// The password itself, for the one command that needs it.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret(…)")
    }
}

/// How to reach a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp {
        /// A name or an address; an IPv6 address stands without brackets.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// Through a Unix socket.
    Unix(PathBuf),
}

/// A server, a database on it, and the credentials for it.
///
/// Printed as its URL without credentials, it is fit for logs and for `/proc/mounts`.
///
/// ```
/// use dbmount_transport_redis::Endpoint;
/// let endpoint: Endpoint = "redis://alice:s3cret@[::1]/2?volume=home".parse()?;
/// assert_eq!(endpoint.to_string(), "redis://[::1]:6379/2?volume=home");
/// assert!(!format!("{endpoint:?}").contains("s3cret"));
/// # Ok::<(), dbmount_transport_redis::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How to reach it.
    pub address: Address,
    /// The ACL user; the server's `default` when absent.
    pub user: Option<String>,
    /// The password, if one was given.
    pub password: Option<Secret>,
    /// The number of the database.
    pub db: u32,
    /// The volume, for the layout of that name. The transport makes no use of it.
    pub volume: Option<String>,
    /// What the server shows us as in `CLIENT LIST`.
    pub client_name: String,
}

impl Endpoint {
    /// Sets the password, as one that came from outside the URL.
    pub fn set_password(&mut self, password: Secret) {
        self.password = Some(password);
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const TEXT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
        const PATH: &AsciiSet = &TEXT.remove(b'/');
        let mut joint = '?';
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "redis://[{host}]:{port}/{}", self.db)?;
            }
            Address::Tcp { host, port } => write!(f, "redis://{host}:{port}/{}", self.db)?,
            Address::Unix(path) => {
                let path = percent_encode(path.as_os_str().as_bytes(), PATH);
                write!(f, "unix://{path}?db={}", self.db)?;
                joint = '&';
            }
        }
        match &self.volume {
            Some(volume) => write!(f, "{joint}volume={}", percent_encode(volume.as_bytes(), TEXT)),
            None => Ok(()),
        }
    }
}

/// What is wrong with a URL: one line, without anything that may be a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlError(String);

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; a right one looks like {EXAMPLE}", self.0)
    }
}

impl std::error::Error for UrlError {}

fn wrong<T>(what: impl Into<String>) -> Result<T, UrlError> {
    Err(UrlError(what.into()))
}

impl FromStr for Endpoint {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Endpoint, UrlError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("the source is not a URL (there is no '://' in it)");
        };
        let unix = match scheme.to_ascii_lowercase().as_str() {
            "redis" => false,
            "unix" | "redis+unix" => true,
            "rediss" => return wrong("TLS (rediss://) is not supported yet; use redis://"),
            // What stands there may be a mistyped password; only a plain word is repeated.
            other if other.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+') => {
                return wrong(format!("'{other}://' is not a kind of Redis URL"));
            }
            _ => return wrong("what stands before '://' is not a kind of Redis URL"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        // A password with a bare '/' or '?' in it shows itself by the '@' that follows. Checked
        // first, because every other message repeats a part of the URL.
        if tail.contains('@') {
            return wrong(
                "an '@' stands behind the host: in a user name, password or path write \
                 '/' as %2F, '?' as %3F, '#' as %23 and '@' as %40",
            );
        }
        if tail.contains('#') {
            return wrong("a '#' has no meaning in this URL (write it as %23)");
        }
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let (user, password) = match credentials {
            Some(text) => parse_credentials(text)?,
            None => (None, None),
        };
        let query = parse_query(query)?;
        let (address, path_db) = if unix {
            (parse_unix(host, path)?, None)
        } else {
            (parse_host(host)?, parse_path(path)?)
        };
        let db = match (path_db, query.db) {
            (Some(a), Some(b)) if a != b => {
                return wrong(format!("the path says database {a} but 'db' says {b}"));
            }
            (a, b) => a.or(b).unwrap_or(0),
        };
        let client_name = query.client_name.unwrap_or_else(|| "dbmount".into());
        Ok(Endpoint { address, user, password, db, volume: query.volume, client_name })
    }
}

fn parse_credentials(text: &str) -> Result<(Option<String>, Option<Secret>), UrlError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = match decode(user, "the user name")? {
        user if user.is_empty() => None,
        user => match String::from_utf8(user) {
            Ok(user) => Some(user),
            Err(_) => return wrong("the user name is not UTF-8"),
        },
    };
    let password = match password {
        None | Some("") => None,
        Some(password) => Some(Secret::new(decode(password, "the password")?)),
    };
    Ok((user, password))
}

fn parse_host(text: &str) -> Result<Address, UrlError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return wrong(format!("'{text}' opens a bracket and does not close it"));
        };
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return wrong(format!("'{host}' is not an IPv6 address"));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return wrong(format!("'{rest}' stands between the host and the port")),
        }
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return wrong(format!("an IPv6 address goes in brackets: [{text}]"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return wrong("the URL names no host");
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b) || b >= 0x80;
    if !host.bytes().all(named) {
        return wrong(format!("'{}' is not a host name", host.escape_debug()));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => {
                return wrong(format!("'{}' is not a port (1 to 65535)", port.escape_debug()));
            }
            Ok(port) => port,
        },
    };
    Ok(Address::Tcp { host: host.into(), port })
}

fn parse_unix(host: &str, path: &str) -> Result<Address, UrlError> {
    if !host.is_empty() {
        return wrong(format!(
            "'{}' stands where the path of the socket begins; it takes three slashes",
            host.escape_debug()
        ));
    }
    let path = decode(path, "the path")?;
    if path.len() < 2 || path.contains(&0) {
        return wrong("the URL names no socket");
    }
    Ok(Address::Unix(PathBuf::from(OsString::from_vec(path))))
}

fn parse_path(path: &str) -> Result<Option<u32>, UrlError> {
    match path.strip_prefix('/').unwrap_or(path) {
        "" => Ok(None),
        db => parse_db(db).map(Some),
    }
}

fn parse_db(text: &str) -> Result<u32, UrlError> {
    match text.parse::<u32>() {
        Ok(db) if db <= i32::MAX as u32 && !text.starts_with('+') => Ok(db),
        _ => wrong(format!("'{}' is not the number of a database", text.escape_debug())),
    }
}

#[derive(Default)]
struct Query {
    db: Option<u32>,
    volume: Option<String>,
    client_name: Option<String>,
}

fn parse_query(text: &str) -> Result<Query, UrlError> {
    let mut query = Query::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Ok(value) = String::from_utf8(decode(value, "a parameter")?) else {
            return wrong(format!("the value of '{}' is not UTF-8", name.escape_debug()));
        };
        let twice = match name {
            "db" => query.db.replace(parse_db(&value)?).is_some(),
            "volume" if value.is_empty() => return wrong("'volume' names no volume"),
            "volume" => query.volume.replace(value).is_some(),
            "client_name" if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) => {
                return wrong("'client_name' takes visible ASCII characters without spaces");
            }
            "client_name" => query.client_name.replace(value).is_some(),
            _ => {
                return wrong(format!(
                    "'{}' is not a parameter (there are db, volume and client_name)",
                    name.escape_debug()
                ));
            }
        };
        if twice {
            return wrong(format!("'{name}' is given twice"));
        }
    }
    Ok(query)
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, UrlError> {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
        if byte == b'%' && !(hex(bytes.next()) && hex(bytes.next())) {
            return wrong(format!("{what} has a '%' without two hex digits (write '%' as %25)"));
        }
    }
    Ok(percent_decode_str(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Endpoint {
        url.parse().unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    #[test]
    fn urls_are_read_and_printed() {
        for (url, printed) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://localhost/", "redis://localhost:6379/0"),
            ("REDIS://h:1/15", "redis://h:1/15"),
            ("redis://h?db=3", "redis://h:6379/3"),
            ("redis://h/3?db=3&volume=a%20b", "redis://h:6379/3?volume=a%20b"),
            ("redis://u:p@[::1]:7000/1", "redis://[::1]:7000/1"),
            ("redis://:p%40%2F@h", "redis://h:6379/0"),
            ("unix:///run/r.sock", "unix:///run/r.sock?db=0"),
            ("redis+unix://u:p@/run/r%20s?db=2&volume=v", "unix:///run/r%20s?db=2&volume=v"),
        ] {
            let endpoint = parse(url);
            assert_eq!(endpoint.to_string(), printed, "{url}");
            let again = parse(printed);
            assert_eq!((&again.address, again.db), (&endpoint.address, endpoint.db));
            assert_eq!(again.volume, endpoint.volume);
        }
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let endpoint = parse("redis://al%3Aice:p%40ss%00@h/1?client_name=me");
        assert_eq!(endpoint.user.as_deref(), Some("al:ice"));
        assert_eq!(endpoint.password.as_ref().map(Secret::expose), Some(&b"p@ss\0"[..]));
        assert_eq!(endpoint.client_name, "me");
        for shown in [format!("{endpoint:?}"), format!("{endpoint:#?}"), endpoint.to_string()] {
            assert!(!shown.contains("p@ss") && !shown.contains("112, 64"), "{shown}");
        }
        assert_eq!(parse("redis://bob@h").user.as_deref(), Some("bob"));
        assert_eq!(parse("redis://bob@h").password, None);
        let mut endpoint = parse("redis://bob@h");
        endpoint.set_password(Secret::new("x"));
        assert_eq!(endpoint.password, Some(Secret::new("x")));
    }

    #[test]
    fn mistakes_are_named_in_one_line_with_an_example() {
        for (url, says) in [
            ("localhost:6379", "not a URL"),
            ("rediss://h", "TLS"),
            ("http://h", "'http://'"),
            ("redis://", "no host"),
            ("redis://:6379", "no host"),
            ("redis://h:0", "'0' is not a port"),
            ("redis://h:66666", "'66666' is not a port"),
            ("redis://::1", "brackets"),
            ("redis://[::1", "bracket"),
            ("redis://[h]", "not an IPv6"),
            ("redis://a b", "not a host name"),
            ("redis://h/x", "'x' is not the number"),
            ("redis://h/-1", "'-1' is not the number"),
            ("redis://h/4294967295", "is not the number"),
            ("redis://h/1?db=2", "database 1 but 'db' says 2"),
            ("redis://h?dn=2", "'dn' is not a parameter"),
            ("redis://h?db=2&db=2", "twice"),
            ("redis://h?volume=", "names no volume"),
            ("redis://h?volume=%zz", "two hex digits"),
            ("redis://h?client_name=a%20b", "client_name"),
            ("redis://h#x", "'#'"),
            ("unix://run/r.sock", "three slashes"),
            ("unix://", "no socket"),
        ] {
            let error = url.parse::<Endpoint>().expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
            assert!(error.contains("redis://:PASSWORD@") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_mistake_in_a_password_does_not_print_it() {
        for url in [
            "redis://:hun/ter2@h",
            "redis://:hun?ter2@h",
            "redis://:hun#ter2@h",
            "redis://u:123?ter2@h/0",
            "redis://:ter2%zz@h",
            "redis://:ter2@h:x",
            "ter2:ter2://h",
        ] {
            let error = url.parse::<Endpoint>().expect_err(url).to_string();
            assert!(!error.contains("ter2") && !error.contains("hun"), "{url}: {error}");
        }
    }
}
