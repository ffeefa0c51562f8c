//! Server addresses: host names, IPv4, IPv6 literals and unix sockets.

use std::fmt;

use super::{UriError, decode};

/// The port of a server that names none.
pub const DEFAULT_PORT: u16 = 27_017;

/// Where a server listens. Host names are kept in lower case (SDAM spec, "address"), so that
/// equality is identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerAddress {
    /// A host name or address, without brackets, and a port.
    Tcp {
        /// Name, IPv4 or IPv6 address in lower case.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// The path of a unix socket; ends in `.sock`.
    Unix(String),
}

impl ServerAddress {
    /// Parses `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or a unix path ending in `.sock`, as
    /// hello replies name members (nothing percent-encoded).
    ///
    /// # Errors
    /// An empty host, a port out of range, brackets or colons that do not fit.
    pub fn parse(text: &str) -> Result<ServerAddress, UriError> {
        if text.contains('/') {
            return match text.ends_with(".sock") {
                true => Ok(ServerAddress::Unix(text.to_owned())),
                false => Err(UriError::new("a unix socket whose name does not end in .sock")),
            };
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let cut = UriError::new("an IPv6 literal without its closing bracket");
                let (host, after) = rest.split_once(']').ok_or(cut)?;
                if host.parse::<std::net::Ipv6Addr>().is_err() && !host.contains('%') {
                    return Err(UriError::new("brackets around what is no IPv6 address"));
                }
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(UriError::new("text behind an IPv6 literal")),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(UriError::new("an empty host"));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) => parse_port(digits)?,
        };
        Ok(ServerAddress::Tcp { host: host.to_lowercase(), port })
    }
}

fn parse_port(digits: &str) -> Result<u16, UriError> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if plain && port > 0 => Ok(port),
        _ => Err(UriError::new("a port that is not from 1 to 65535")),
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            ServerAddress::Unix(path) => f.write_str(path),
        }
    }
}

/// The comma-separated, percent-encoded hosts of a connection string.
pub(super) fn parse_list(hosts: &str) -> Result<Vec<ServerAddress>, UriError> {
    hosts.split(',').map(|host| ServerAddress::parse(&decode(host)?)).collect()
}

/// The one host of a `mongodb+srv` string: a name without a port.
pub(super) fn parse_srv(host: &str) -> Result<String, UriError> {
    if host.contains(',') {
        return Err(UriError::new("mongodb+srv takes exactly one host"));
    }
    if host.contains(':') {
        return Err(UriError::new("mongodb+srv takes no port"));
    }
    match ServerAddress::parse(&decode(host)?)? {
        ServerAddress::Tcp { host, .. } => Ok(host),
        ServerAddress::Unix(_) => Err(UriError::new("mongodb+srv takes a host name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_parse() {
        for text in ["a:27017", "[::1]:1", "/tmp/mongodb-27017.sock", "10.0.0.1:65535"] {
            assert_eq!(ServerAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ServerAddress::parse("A.Example").unwrap().to_string(), "a.example:27017");
    }
}
