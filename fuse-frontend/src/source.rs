//! What can be mounted: the grammar of sources, and which engine and transport serve each.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use std::hash::{BuildHasher, Hasher};

use dbmount_engine::Config;
use dbmount_engine::backend::mongo::Concern;
use dbmount_engine::gridfs::{self, GridFs};
use dbmount_engine::keys::{self, name::Naming};
use dbmount_engine::replay::{Recipe, Recorded};
use dbmount_engine::volume::{self, Volume};
use dbmount_transport_mongo::uri::{ConnectionString, WriteAck};
use dbmount_transport_redis::{Endpoint, Secret};

use crate::driver::Driver;
use crate::machine::{Clock, Machine, Sink, Wire};
use crate::record::{self, Record, Recording, Writer};
use crate::sim::{SimMongo, SimTransport};

/// What to mount, as the user named it.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A Redis keyspace; the URL as given, with its credentials.
    Redis(String),
    /// A volume on a Redis server (`?volume=NAME`); the URL as given, with its credentials.
    Volume(String),
    /// A GridFS bucket; the connection string as given, with its credentials.
    Mongo(String),
    /// The keys layout over a simulated server in this process.
    MemKeys,
    /// The GridFS layout over a simulated server in this process.
    MemGridfs,
    /// A volume on a simulated server in this process.
    MemVolume,
}

/// What to say when a source is not understood.
const EXAMPLES: &str = "redis://127.0.0.1:6379/0, unix:///run/redis.sock?db=0, \
                        redis://127.0.0.1/0?volume=home, mongodb://127.0.0.1/db.bucket, \
                        mem:volume, mem:keys, mem:gridfs";

/// The name of the volume of `mem:volume`.
const MEM_VOLUME: &str = "mem";
/// The bucket of `mem:gridfs`; there is nobody at that address.
const MEM_BUCKET: &str = "mongodb://mem/test.fs";

impl Source {
    /// Understands a source.
    ///
    /// # Errors
    /// One line that says what is wrong and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown = redact(text);
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(format!("{shown:?} is not a source; examples: {EXAMPLES}"));
        };
        match scheme {
            "redis" | "unix" if !rest.starts_with("//") => {
                Err(format!("{shown:?}: write {scheme}:// with two slashes; examples: {EXAMPLES}"))
            }
            "redis" | "unix" if query(text).any(|(name, _)| name == "volume") => {
                Ok(Source::Volume(text.to_owned()))
            }
            "redis" | "unix" => Ok(Source::Redis(text.to_owned())),
            "rediss" => Err("rediss:// (TLS) is not there yet; use redis:// through a tunnel, \
                             or unix://"
                .to_owned()),
            "mongodb" if !rest.starts_with("//") => {
                Err(format!("{shown:?}: write mongodb:// with two slashes; examples: {EXAMPLES}"))
            }
            "mongodb" => Ok(Source::Mongo(text.to_owned())),
            "mongodb+srv" => Err("mongodb+srv:// is not there yet; name the hosts in a \
                                  mongodb:// connection string"
                .to_owned()),
            "mem" => match rest {
                "" | "volume" => Ok(Source::MemVolume),
                "keys" => Ok(Source::MemKeys),
                "gridfs" => Ok(Source::MemGridfs),
                _ => Err(format!("{shown:?}: there are mem:volume, mem:keys and mem:gridfs")),
            },
            _ => Err(format!("{shown:?} is not a source; examples: {EXAMPLES}")),
        }
    }

    /// Whether the source itself holds something that must not be seen by others.
    #[must_use]
    pub fn has_secret(&self) -> bool {
        match self {
            Source::Redis(url) | Source::Volume(url) | Source::Mongo(url) => redact(url) != *url,
            Source::MemKeys | Source::MemGridfs | Source::MemVolume => false,
        }
    }

    /// Whether the source itself names a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        let (Source::Redis(url) | Source::Volume(url) | Source::Mongo(url)) = self else {
            return false;
        };
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
        user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
            || query(url).any(|(name, value)| {
                ["password", "pass", "pwd", "auth"].contains(&name) && !value.is_empty()
            })
    }
}

/// Without credentials: for `/proc/mounts`, `ps`, and messages.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Redis(url) | Source::Volume(url) | Source::Mongo(url) => {
                f.write_str(&redact(url))
            }
            Source::MemKeys => f.write_str("mem:keys"),
            Source::MemGridfs => f.write_str("mem:gridfs"),
            Source::MemVolume => f.write_str("mem:volume"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// A URL without user, password, and query values that are passwords. It may cut more than a
/// strict reading of the URL would (a password with an `@` or `/` in it that nobody escaped), and
/// never less.
#[must_use]
pub fn redact(url: &str) -> String {
    let (head, tail) = match url.split_once("://") {
        Some((scheme, rest)) => {
            let rest = match rest.rfind('@') {
                // The path of a socket may hold an `@`; it is a user's name only before the path.
                Some(at) if scheme != "unix" || !rest.starts_with('/') => &rest[at + 1..],
                _ => rest,
            };
            (format!("{scheme}://"), rest)
        }
        None => (String::new(), url),
    };
    let Some((path, query)) = tail.split_once('?') else { return format!("{head}{tail}") };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
            !["password", "pass", "pwd", "auth", "user", "username"].contains(&name.as_str())
        })
        .collect();
    if kept.is_empty() {
        format!("{head}{path}")
    } else {
        format!("{head}{path}?{}", kept.join("&"))
    }
}

fn query(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// How the keys of a server are shown as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysOptions {
    /// Only keys that begin with this, which is left out of the names.
    pub prefix: String,
    /// What separates directories in a key.
    pub delimiter: String,
    /// Names that are refused (shell patterns).
    pub ignore: Vec<String>,
    /// Keep attributes in memory only, instead of in side keys on the server.
    pub session_attrs: bool,
    /// New files with these suffixes are strings, whatever else their name says.
    pub string_suffixes: Vec<String>,
    /// Lists, sets, sorted sets and streams may be removed.
    pub allow_delete: bool,
    /// Owner of what has no owner of its own.
    pub uid: u32,
    /// Group of what has no group of its own.
    pub gid: u32,
    /// Bits taken from the mode of what has no mode of its own.
    pub umask: u16,
}

/// How files are kept in a bucket. Owners and modes are as for keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridfsOptions {
    /// Bytes a chunk of a new file holds.
    pub chunk_size: u32,
    /// Old revisions of a file to keep.
    pub keep_revisions: u32,
}

/// How a volume is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    /// Make it, and refuse one that is there already.
    pub format: Option<volume::Format>,
    /// Use a server that may evict keys all the same.
    pub force: bool,
}

/// Everything that decides how a source is served.
#[derive(Clone)]
pub struct Settings {
    /// For the engine.
    pub config: Config,
    /// For the keys layout.
    pub keys: KeysOptions,
    /// For the GridFS layout.
    pub gridfs: GridfsOptions,
    /// For the volume layout.
    pub volume: VolumeOptions,
    /// The password that is not in the URL, from the environment or a file.
    pub password: Option<String>,
    /// Where the session is recorded, if it is.
    pub record: Option<Record>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("config", &self.config)
            .field("keys", &self.keys)
            .field("gridfs", &self.gridfs)
            .field("volume", &self.volume)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("record", &self.record)
            .finish()
    }
}

/// What is done with the driver of a source. A trait, since each source has a driver of its own
/// type.
pub trait Serve {
    /// Serves from this driver until the mount is gone.
    ///
    /// # Errors
    /// One line that says what went wrong and what to do.
    fn serve<M: Machine>(self, driver: Arc<Driver<M>>) -> Result<(), String>;
}

/// Makes drivers for sources.
pub trait Opener {
    /// Makes the driver of a source and hands it over.
    ///
    /// # Errors
    /// One line that says why the source cannot be opened, or what [`Serve::serve`] returned.
    fn open(&self, source: &Source, settings: &Settings, serve: impl Serve) -> Result<(), String>;
}

/// The sources of this program.
#[derive(Clone, Copy, Debug)]
pub struct Sources;

impl Opener for Sources {
    fn open(&self, source: &Source, settings: &Settings, serve: impl Serve) -> Result<(), String> {
        let clock = Clock::start();
        let options = settings.keys.layout()?;
        match source {
            Source::Redis(url) => {
                let endpoint = settings.endpoint(url)?;
                let connections = crate::redis::options(&options);
                let (engine, log) = settings.engine::<keys::Keys>(options, clock)?;
                let driver = Driver::start(engine, clock, |driver| {
                    crate::redis::connect(endpoint, connections, driver)
                });
                let driver = driver.map_err(|error| format!("{source}: {error}"))?;
                log.of(serve.serve(driver))
            }
            Source::Volume(url) => {
                let endpoint = settings.endpoint(url)?;
                let options = settings.volume(endpoint.volume.as_deref().unwrap_or_default())?;
                let connections = crate::redis::volume_options(&options);
                let (engine, log) = settings.engine::<Volume>(options, clock)?;
                let driver = Driver::start(engine, clock, |driver| {
                    crate::redis::connect(endpoint, connections, driver)
                });
                let driver = driver.map_err(|error| format!("{source}: {error}"))?;
                log.of(serve.serve(driver))
            }
            Source::Mongo(url) => {
                let url = match &settings.password {
                    Some(password) => with_password(url, password),
                    None => url.clone(),
                };
                let uri =
                    ConnectionString::parse(&url).map_err(|error| format!("{source}: {error}"))?;
                for warning in &uri.warnings {
                    tracing::warn!("{source}: {}: {}", warning.option, warning.why);
                }
                let options =
                    settings.gridfs(&uri).map_err(|error| format!("{source}: {error}"))?;
                let seed = seed();
                let (engine, log) = settings.seeded::<GridFs>(options.clone(), seed, clock)?;
                let timeout = settings.config.op_timeout;
                let driver = Driver::start(engine, clock, |driver| {
                    crate::mongo::connect(&uri, &options, seed, timeout, driver)
                });
                let driver = driver.map_err(|error| format!("{source}: {error}"))?;
                log.of(serve.serve(driver))
            }
            Source::MemKeys => {
                let (engine, log) = settings.engine::<keys::Keys>(options, clock)?;
                let server = crate::redis::SimRedis::new(clock.now(), &[]);
                let driver = Driver::start(engine, clock, |_| {
                    Ok::<_, String>(Box::new(SimTransport::new(server, clock)) as _)
                })?;
                driver.deliver(SimTransport::<_, crate::redis::SimRedis>::links_up());
                log.of(serve.serve(driver))
            }
            Source::MemVolume => {
                let mut options = settings.volume(MEM_VOLUME)?;
                let (uid, gid) = (settings.keys.uid, settings.keys.gid);
                let made = volume::Format { uid, gid, keep: true, ..volume::Format::default() };
                options.format.get_or_insert(made);
                let server = crate::redis::SimRedis::new(clock.now(), &options.keys.tracked());
                let (engine, log) = settings.engine::<Volume>(options, clock)?;
                let driver = Driver::start(engine, clock, |_| {
                    Ok::<_, String>(Box::new(SimTransport::new(server, clock)) as _)
                })?;
                driver.deliver(SimTransport::<_, crate::redis::SimRedis>::links_up());
                log.of(serve.serve(driver))
            }
            Source::MemGridfs => {
                let uri = ConnectionString::parse(MEM_BUCKET).map_err(|error| error.to_string())?;
                let options = settings.gridfs(&uri)?;
                let server = SimMongo::new(clock.now(), &options);
                let (engine, log) = settings.engine::<GridFs>(options, clock)?;
                let driver = Driver::start(engine, clock, |_| {
                    Ok::<_, String>(Box::new(SimTransport::new(server, clock)) as _)
                })?;
                driver.deliver(SimTransport::<_, SimMongo>::links_up());
                log.of(serve.serve(driver))
            }
        }
    }
}

/// Every mount of a server must have a seed of its own: it is the mount's identity there.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// A connection string with a password beside its user name.
fn with_password(url: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((user, rest)) = rest.split_once('@') else { return url.to_owned() };
    let user = user.split(':').next().unwrap_or_default();
    let password =
        percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC);
    format!("{scheme}://{user}:{password}@{rest}")
}

impl Settings {
    /// The engine of a layout, recorded if that is wanted.
    fn engine<L>(&self, options: L::Options, clock: Clock) -> Result<(Recording<L>, Writer), String>
    where
        L: Recorded + Send + 'static,
        L::Backend: Wire,
    {
        self.seeded(options, seed(), clock)
    }

    /// The same with a seed that others need to know too.
    fn seeded<L>(
        &self,
        options: L::Options,
        seed: u64,
        clock: Clock,
    ) -> Result<(Recording<L>, Writer), String>
    where
        L: Recorded + Send + 'static,
        L::Backend: Wire,
    {
        let config = self.config.clone();
        let recipe = Recipe { config, options, seed, now: clock.now() };
        record::start(&recipe, self.record.as_ref())
    }

    /// The server of a Redis URL.
    fn endpoint(&self, url: &str) -> Result<Endpoint, String> {
        let mut endpoint: Endpoint = url.parse().map_err(|error| format!("{error}"))?;
        if let Some(password) = &self.password {
            endpoint.set_password(Secret::new(password.as_str()));
        }
        Ok(endpoint)
    }

    /// How a volume is used.
    fn volume(&self, name: &str) -> Result<volume::Options, String> {
        let VolumeOptions { format, force } = self.volume;
        let keys = volume::key::Keyspace::new(name)?;
        Ok(volume::Options { keys, format, force, read_only: self.config.read_only })
    }

    /// How a bucket is shown.
    fn gridfs(&self, uri: &ConnectionString) -> Result<gridfs::Options, String> {
        let Some((db, bucket)) = uri.namespace().filter(|(db, _)| !db.is_empty()) else {
            return Err("name a database, and a bucket in it: mongodb://HOST/DB.BUCKET".to_owned());
        };
        let wanted = &uri.options.write_concern;
        let said = wanted.w.is_some() || wanted.journal.is_some();
        let fast = wanted.journal != Some(true) && matches!(wanted.w, Some(WriteAck::Nodes(_)));
        Ok(gridfs::Options {
            concern: said.then_some(if fast { Concern::Acknowledged } else { Concern::Durable }),
            db: db.to_owned(),
            bucket: bucket.unwrap_or("fs").to_owned(),
            read_only: self.config.read_only,
            uid: self.keys.uid,
            gid: self.keys.gid,
            umask: self.keys.umask,
            chunk_size: self.gridfs.chunk_size,
            keep_revisions: self.gridfs.keep_revisions,
            ..gridfs::Options::default()
        })
    }
}

impl KeysOptions {
    /// For what is no keyspace.
    #[must_use]
    pub fn plain() -> Self {
        KeysOptions {
            prefix: String::new(),
            delimiter: ":".to_owned(),
            ignore: Vec::new(),
            session_attrs: false,
            string_suffixes: Vec::new(),
            allow_delete: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
        }
    }

    /// The options as the layout takes them.
    ///
    /// # Errors
    /// One line about the option that cannot be.
    fn layout(&self) -> Result<keys::Options, String> {
        let bytes = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
        let &[delimiter] = self.delimiter.as_bytes() else {
            return Err(format!("--delimiter {:?}: it must be one byte", self.delimiter));
        };
        let naming = Naming::new(delimiter).map_err(|error| format!("--delimiter: {error}"))?;
        Ok(keys::Options {
            naming,
            prefix: self.prefix.clone().into_bytes(),
            string_suffixes: bytes(&self.string_suffixes),
            ignore: bytes(&self.ignore),
            attrs: if self.session_attrs { keys::Attrs::Session } else { keys::Attrs::Stored },
            allow_delete: self.allow_delete,
            uid: self.uid,
            gid: self.gid,
            umask: self.umask,
            ..keys::Options::default()
        }
        .normalised())
    }
}

/// Reads a password from a file: its first line.
///
/// # Errors
/// One line that says why it cannot be read.
pub fn read_password(file: &PathBuf) -> Result<String, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!("the password file {shown}: {}", crate::mountpoint::plain(&error))
    })?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(format!("the password file {shown} is empty; its first line is the password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_understood() {
        for (text, want) in [
            ("mem:", Source::MemVolume),
            ("mem:volume", Source::MemVolume),
            ("redis://h/0?volume=a", Source::Volume("redis://h/0?volume=a".into())),
            ("unix:///s?db=1&volume=a", Source::Volume("unix:///s?db=1&volume=a".into())),
            ("mem:keys", Source::MemKeys),
            ("mem:gridfs", Source::MemGridfs),
            ("redis://h/0", Source::Redis("redis://h/0".into())),
            ("mongodb://h/db.b", Source::Mongo("mongodb://h/db.b".into())),
            ("unix:///run/r.sock?db=1", Source::Redis("unix:///run/r.sock?db=1".into())),
        ] {
            assert_eq!(Source::parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_source_gets_one_line_with_a_way_out() {
        for (text, said) in [
            ("localhost", "examples:"),
            ("", "examples:"),
            ("/dev/sda1", "examples:"),
            ("http://h", "examples:"),
            ("redis:h", "two slashes"),
            ("rediss://h", "not there yet"),
            ("mongodb:h/db.bucket", "two slashes"),
            ("mongodb+srv://h/db.bucket", "not there yet"),
            ("mem:x", "mem:keys"),
            ("ftp://u:secret@h", "examples:"),
        ] {
            let error = Source::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains('\n') && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_never_show() {
        for (url, shown) in [
            ("redis://h:1/0", "redis://h:1/0"),
            ("redis://:s3cret@h:1/0", "redis://h:1/0"),
            ("redis://u:s3c/r@et@h/0?db=1", "redis://h/0?db=1"),
            ("unix:///run/a@b.sock?db=1&password=s3cret", "unix:///run/a@b.sock?db=1"),
            ("unix://u:s3cret@/run/a.sock", "unix:///run/a.sock"),
            ("redis://h?Pass=s3cret", "redis://h"),
        ] {
            assert_eq!(redact(url), shown);
            assert_eq!(Source::Redis(url.into()).has_secret(), url != shown);
        }
        let source = Source::Redis("redis://:s3cret@h".into());
        assert!(!format!("{source} {source:?}").contains("s3cret"));
    }

    #[test]
    fn a_password_in_the_source_is_seen() {
        for (url, has) in [
            ("redis://h", false),
            ("redis://user@h", false),
            ("redis://:@h", false),
            ("redis://:x@h", true),
            ("redis://u:x@h", true),
            ("unix:///s?password=x", true),
            ("unix:///s?db=1", false),
        ] {
            assert_eq!(Source::Redis(url.into()).has_password(), has, "{url}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        assert!(read_password(&file).unwrap_err().contains("No such file"));
        std::fs::write(&file, "\n").unwrap();
        assert!(read_password(&file).unwrap_err().contains("is empty"));
        std::fs::write(&file, "s3cret\nmore\n").unwrap();
        assert_eq!(read_password(&file), Ok("s3cret".to_owned()));
    }
}
