//! The server as a value: its databases, clients and clock, and how a command gets executed.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::db::Db;
use super::faults::Faults;
use super::tracking::{Tracked, Tracking};
use super::{Answer, OOM, command, fail, scripts};
use crate::backend::redis::{Command, Push, Reply};
use crate::time::{Mono, Now, Wall};

/// A connection, chosen by the caller. One that is new is connected by its first command, with
/// RESP3 spoken and database 0 selected; [`Server::disconnect`] ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What `redis.conf` would hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How many databases there are.
    pub databases: usize,
    /// Bytes over which commands that need memory are refused; 0 for no limit.
    pub maxmemory: u64,
    /// The longest string, in bytes.
    pub proto_max_bulk_len: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { databases: 16, maxmemory: 0, proto_max_bulk_len: 512 << 20 }
    }
}

/// What an empty server takes, for the memory estimate.
const EMPTY: u64 = 1 << 20;

/// Pushes that wait for a client to take them.
const MAX_PUSHES: usize = 100_000;

/// A Redis server in memory. See the [module](super) for what it promises.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) settings: Settings,
    pub(super) databases: Vec<Db>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) tracking: Tracking,
    /// The digests of the scripts that were loaded.
    pub(super) loaded: BTreeSet<String>,
    pub(super) faults: Faults,
    pub(super) now: Now,
    pub(super) started: Mono,
    pub(super) version: u64,
    pub(super) executed: u64,
    pub(super) expired: u64,
}

/// A connection's state.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) db: usize,
    pub(super) resp3: bool,
    pub(super) name: Bytes,
    pub(super) tracked: Option<Tracked>,
    pub(super) channels: BTreeSet<Bytes>,
    pub(super) pushes: VecDeque<Push>,
    /// Scripts whose text it has sent.
    pub(super) scripts: BTreeSet<&'static str>,
}

impl Default for Client {
    fn default() -> Self {
        Client {
            db: 0,
            resp3: true,
            name: Bytes::new(),
            tracked: None,
            channels: BTreeSet::new(),
            pushes: VecDeque::new(),
            scripts: BTreeSet::new(),
        }
    }
}

impl Client {
    /// Queues a push. A client that takes none loses them all rather than fill the memory; a
    /// real server closes its connection at `client-output-buffer-limit`.
    pub(super) fn tell(&mut self, push: Push) {
        if self.pushes.len() >= MAX_PUSHES {
            self.pushes.clear();
            self.pushes.push_back(Push::InvalidateAll);
        }
        self.pushes.push_back(push);
    }
}

impl Server {
    /// An empty server with the defaults of `redis.conf`.
    #[must_use]
    pub fn new(now: Now) -> Server {
        Server::with_settings(now, Settings::default())
    }

    /// An empty server. There is at least one database.
    #[must_use]
    pub fn with_settings(now: Now, settings: Settings) -> Server {
        let databases = (0..settings.databases.max(1)).map(|_| Db::default()).collect();
        Server {
            settings,
            databases,
            clients: BTreeMap::new(),
            tracking: Tracking::default(),
            loaded: BTreeSet::new(),
            faults: Faults::default(),
            now,
            started: now.mono,
            version: 0,
            executed: 0,
            expired: 0,
        }
    }

    /// Counts every modification of any key: the same value twice means nothing has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The settings as they are now; `CONFIG SET` changes them.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// An estimate of the memory it takes, in bytes.
    #[must_use]
    pub fn used_memory(&self) -> u64 {
        EMPTY + self.databases.iter().map(|db| db.used() as u64).sum::<u64>()
    }

    /// Every key of a database, sorted; keys that are due to expire may still be among them.
    #[must_use]
    pub fn keys(&self, db: usize) -> Vec<Bytes> {
        let entries = self.databases.get(db).into_iter().flat_map(|db| db.keys.iter());
        let mut keys: Vec<Bytes> = entries.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// When the next key expires on the wall clock: [`tick`](Self::tick) after it.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Wall> {
        let first = self.databases.iter().filter_map(Db::next_expiry).min()?;
        // The key is gone once this millisecond has passed.
        Some(Wall(first.saturating_add(1).saturating_mul(1_000_000)))
    }

    /// Executes one command for a client. A script's error comes as the script raised it.
    pub fn execute(&mut self, now: Now, client: ClientId, command: &Command) -> Reply {
        self.now = now;
        self.executed += 1;
        match command {
            Command::Plain(args) => self.plain(client, args),
            Command::Script { script, keys, args } => {
                scripts::run(self, client, script, keys, args)
            }
        }
    }

    /// Lets time pass: removes what has expired and ends the turn.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        let millis = self.millis();
        for db in 0..self.databases.len() {
            for key in self.databases[db].due(millis) {
                self.expire(db, &key);
            }
        }
        self.end_turn();
    }

    /// Ends a connection: its subscriptions and tracking go with it.
    pub fn disconnect(&mut self, client: ClientId) {
        if let Some(gone) = self.clients.remove(&client)
            && let Some(tracked) = gone.tracked
        {
            self.tracking.forget(client, &tracked);
        }
    }

    /// The wall clock in milliseconds, as Redis keeps it.
    pub(super) fn millis(&self) -> i64 {
        self.now.wall.0.div_euclid(1_000_000)
    }

    /// Whether commands that need memory are refused.
    pub(super) fn is_full(&self) -> bool {
        self.settings.maxmemory > 0 && self.used_memory() > self.settings.maxmemory
    }

    /// Removes a key whose time has passed. Nobody wrote it, so everyone is told.
    pub(super) fn expire(&mut self, db: usize, key: &[u8]) {
        if self.databases[db].remove(key).is_some() {
            self.expired += 1;
            self.version += 1;
            self.tracking.remember(key, None);
        }
    }

    pub(super) fn client(&mut self, id: ClientId) -> &mut Client {
        self.clients.entry(id).or_default()
    }

    fn plain(&mut self, id: ClientId, args: &[Bytes]) -> Reply {
        let checked = self.admit(args);
        checked.and_then(|spec| self.call(id, spec, args)).unwrap_or_else(|error| error)
    }

    /// Everything that is checked before a command's own function runs.
    pub(super) fn admit(&self, args: &[Bytes]) -> Result<&'static command::Spec, Reply> {
        if args.iter().any(|arg| arg.len() as u64 > self.settings.proto_max_bulk_len) {
            return Err(fail("ERR Protocol error: invalid bulk length"));
        }
        let spec = command::look_up(args)?;
        if spec.needs_memory() && self.is_full() {
            return Err(fail(OOM));
        }
        Ok(spec)
    }

    /// Runs an admitted command's function.
    pub(super) fn call(&mut self, id: ClientId, spec: &command::Spec, args: &[Bytes]) -> Answer {
        let client = self.client(id);
        let (db, resp3) = (client.db, client.resp3);
        (spec.run)(&mut Cx { server: self, db, client: id, writer: Some(id), resp3 }, args)
    }
}
