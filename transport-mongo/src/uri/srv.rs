//! `mongodb+srv://`: turning DNS records into seeds and options, with a resolver that the
//! caller brings (no DNS in this crate).
//!
//! Source: the initial DNS seedlist discovery specification.

use super::{ConnectionString, Options, ServerAddress, UriError, credential};

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    /// The host it names, with or without a final dot.
    pub target: String,
    /// Its port.
    pub port: u16,
}

/// Answers DNS questions.
pub trait SrvResolver {
    /// The SRV records under this name.
    ///
    /// # Errors
    /// Whatever keeps it from answering.
    fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, UriError>;

    /// The TXT records under this name, the strings of each joined.
    ///
    /// # Errors
    /// Whatever keeps it from answering; no record is not an error.
    fn txt(&self, name: &str) -> Result<Vec<String>, UriError>;
}

impl ConnectionString {
    /// Fills in `hosts`, and the options of the TXT record that the string itself does not give.
    /// `seed` picks the hosts when `srvMaxHosts` wants fewer than there are. Does nothing to a
    /// plain `mongodb://` string.
    ///
    /// # Errors
    /// No records, records outside the string's own domain, more than one TXT record or options
    /// in it other than `authSource`, `replicaSet` and `loadBalanced`.
    pub fn resolve_srv(
        mut self,
        resolver: &dyn SrvResolver,
        seed: u64,
    ) -> Result<ConnectionString, UriError> {
        let Some(host) = self.srv.take() else { return Ok(self) };
        let service = self.options.srv_service_name.as_deref().unwrap_or("mongodb");
        let records = resolver.srv(&format!("_{service}._tcp.{host}"))?;
        if records.is_empty() {
            return Err(UriError::new("no SRV records"));
        }
        for record in &records {
            let target = record.target.trim_end_matches('.').to_lowercase();
            if !same_domain(&host, &target) {
                return Err(UriError::new("an SRV record outside the domain that was asked"));
            }
            self.hosts.push(ServerAddress::Tcp { host: target, port: record.port });
        }
        let max = self.options.srv_max_hosts.unwrap_or(0) as usize;
        if max > 0 {
            shuffle(&mut self.hosts, seed);
            self.hosts.truncate(max);
        }
        self.add_txt(&resolver.txt(&host)?)?;
        // The rules for SRV strings were checked when it was parsed; those between hosts and
        // options only now can be.
        let keep = (self.options.srv_service_name.take(), self.options.srv_max_hosts);
        if max == 0 {
            self.options.srv_max_hosts = None;
        } else if self.options.replica_set.is_some() || self.options.load_balanced == Some(true) {
            let why = "it excludes replicaSet and loadBalanced=true";
            return Err(UriError::option("srvmaxhosts", why));
        }
        self.options.srv_max_hosts = None;
        self.check_options()?;
        (self.options.srv_service_name, self.options.srv_max_hosts) = keep;
        Ok(self)
    }

    fn add_txt(&mut self, records: &[String]) -> Result<(), UriError> {
        let text = match records {
            [] => return Ok(()),
            [one] => one,
            _ => return Err(UriError::new("more than one TXT record")),
        };
        let allowed = ["authsource", "replicaset", "loadbalanced"];
        for pair in text.split('&') {
            let name = pair.split_once('=').map(|(name, _)| name.to_lowercase());
            if !name.is_some_and(|name| allowed.contains(&name.as_str())) {
                return Err(UriError::new("an option in the TXT record that may not be there"));
            }
        }
        let more = Options::parse(text, &mut self.warnings)?;
        let options = &mut self.options;
        options.auth_source = options.auth_source.take().or(more.auth_source);
        options.replica_set = options.replica_set.take().or(more.replica_set);
        options.load_balanced = options.load_balanced.or(more.load_balanced);
        if let Some(old) = self.credential.take() {
            let reveal = |secret: Option<credential::Secret>| secret.map(|s| s.reveal().to_owned());
            let (username, password) = (reveal(old.username), reveal(old.password));
            let database = self.namespace().map(|(db, _)| db);
            self.credential = credential::build(username, password, database, &self.options)?;
        }
        Ok(())
    }
}

/// Whether `target` lies in the domain of `host`: the host without its first label, or the whole
/// host when it has fewer than three; and has at least one more label than that domain.
fn same_domain(host: &str, target: &str) -> bool {
    let domain = match host.split_once('.') {
        Some((_, rest)) if rest.contains('.') => rest,
        _ => host,
    };
    target.strip_suffix(domain).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
}

/// Fisher-Yates by a small generator: which hosts are taken needs no secrecy.
fn shuffle(hosts: &mut [ServerAddress], seed: u64) {
    let mut state = seed;
    for i in (1..hosts.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        hosts.swap(i, (state >> 33) as usize % (i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<SrvRecord>, Vec<String>);

    impl SrvResolver for Fixed {
        fn srv(&self, name: &str) -> Result<Vec<SrvRecord>, UriError> {
            assert!(name.starts_with("_mongodb._tcp."), "{name}");
            Ok(self.0.clone())
        }
        fn txt(&self, _: &str) -> Result<Vec<String>, UriError> {
            Ok(self.1.clone())
        }
    }

    fn resolve(uri: &str, targets: &[&str], txt: &[&str]) -> Result<ConnectionString, UriError> {
        let record = |t: &&str| SrvRecord { target: (*t).to_owned(), port: 27_018 };
        let resolver = Fixed(
            targets.iter().map(record).collect(),
            txt.iter().map(|t| (*t).to_owned()).collect(),
        );
        ConnectionString::parse(uri)?.resolve_srv(&resolver, 1)
    }

    #[test]
    fn records_become_seeds_and_tls_is_on() {
        let targets = ["a.build.example.com.", "b.build.example.com"];
        let txt = ["replicaSet=rs&authSource=users"];
        let uri = resolve("mongodb+srv://u:p@db.build.example.com/x", &targets, &txt).unwrap();
        assert_eq!(uri.hosts.len(), 2);
        assert_eq!(uri.hosts[0].to_string(), "a.build.example.com:27018");
        assert_eq!(uri.options.tls, Some(true));
        assert_eq!(uri.options.replica_set.as_deref(), Some("rs"));
        assert_eq!(uri.credential.unwrap().source, "users");
        let own = "mongodb+srv://u:p@db.build.example.com/?authSource=mine&replicaSet=r2&tls=false";
        let uri = resolve(own, &targets, &txt).unwrap();
        assert_eq!(uri.options.replica_set.as_deref(), Some("r2"));
        assert_eq!(uri.options.tls, Some(false));
        assert_eq!(uri.credential.unwrap().source, "mine");
    }

    #[test]
    fn what_the_specification_refuses_is_refused() {
        let uri = "mongodb+srv://db.build.example.com/";
        let good = ["a.build.example.com"];
        assert!(resolve(uri, &[], &[]).is_err(), "no records");
        for other in ["a.example.com", "build.example.com", "abuild.example.com", "a.b.evil.com"] {
            assert!(resolve(uri, &[other], &[]).is_err(), "{other}");
        }
        assert!(resolve(uri, &good, &["authSource=a", "authSource=b"]).is_err());
        assert!(resolve(uri, &good, &["socketTimeoutMS=500"]).is_err());
        assert!(resolve(uri, &good, &["authSource"]).is_err());
        let two = ["a.build.example.com", "b.build.example.com"];
        assert!(resolve(uri, &two, &["loadBalanced=true"]).is_err());
        let limited = "mongodb+srv://db.build.example.com/?srvMaxHosts=1";
        assert!(resolve(limited, &two, &["replicaSet=rs"]).is_err());
        assert_eq!(resolve(limited, &two, &[]).unwrap().hosts.len(), 1);
    }

    #[test]
    fn a_host_of_fewer_than_three_labels_is_its_own_domain() {
        assert!(same_domain("localhost", "a.localhost"));
        assert!(same_domain("mongo.local", "a.mongo.local"));
        assert!(!same_domain("mongo.local", "mongo.local"));
        assert!(!same_domain("mongo.local", "a.local"));
    }
}
