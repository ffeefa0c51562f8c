//! A mongod of the benchmark's own, and what one connection gets out of it with bare commands.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dbmount_transport_mongo::connection::{Connection, Setup};
use dbmount_transport_mongo::uri::{ConnectionString, ServerAddress};
use dbmount_transport_mongo::wire::build::DocBuf;
use dbmount_transport_mongo::wire::command::Command as Wire;

use crate::table::{Limit, Table};
use crate::{mounts, timing};

const STARTING: Duration = Duration::from_secs(60);
const ANSWERING: Duration = Duration::from_secs(60);
const DB: &str = "bench";
/// What GridFS puts into one chunk by default, nearly.
const CHUNK: usize = 255 << 10;
/// Small documents, chunks, and how often each rate is taken.
const SMALL: u32 = 2000;
const CHUNKS: u32 = 400;
const RUNS: usize = 3;

/// The server. Dropping it ends its process.
#[derive(Debug)]
pub(crate) struct Mongod {
    child: Child,
    port: u16,
    set: bool,
}

impl Mongod {
    /// Starts one on a free port, with its data below `dir`: a standalone, or a replica set of
    /// one member.
    pub(crate) fn start(dir: &Path, set: bool) -> Result<Self, String> {
        let program = std::env::var_os("DBMOUNT_MONGOD").unwrap_or_else(|| "mongod".into());
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.map_err(|error| format!("no free port: {error}"))?.port();
        let data = dir.join(if set { "mongod-set" } else { "mongod" });
        std::fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        let log = File::create(data.join("log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(&program);
        command.args(["--bind_ip", "127.0.0.1", "--wiredTigerCacheSizeGB", "1", "--port"]);
        command.arg(port.to_string()).arg("--dbpath").arg(&data);
        if set {
            command.args(["--replSet", "bench"]);
        }
        let started = command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null()).spawn();
        let child = started.map_err(|error| {
            let program = program.display();
            format!("{program}: {error} (set DBMOUNT_MONGOD to the path of a mongod)")
        })?;
        let mut server = Mongod { child, port, set };
        server.come_up()?;
        Ok(server)
    }

    fn come_up(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let mut initiated = !self.set;
        loop {
            timing::check()?;
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > STARTING {
                return Err("mongod does not start".to_owned());
            }
            if let Ok(mut connection) = self.connect() {
                if !initiated {
                    let host = format!("127.0.0.1:{}", self.port);
                    let initiate = Wire::of("replSetInitiate", "admin", |body, field| {
                        body.begin(field).str("_id", "bench").begin_array("members");
                        body.begin("0").i32("_id", 0).str("host", host).end().end().end();
                    });
                    ask(&mut connection, initiate)?;
                    initiated = true;
                } else if connection.hello().is_writable_primary {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn connect(&self) -> Result<Connection, String> {
        let uri = ConnectionString::parse("mongodb://h/").map_err(|error| error.to_string())?;
        let setup = Setup::from_uri(&uri).map_err(|error| error.to_string())?;
        let address = ServerAddress::Tcp { host: "127.0.0.1".into(), port: self.port };
        let deadline = Instant::now() + ANSWERING;
        Connection::open(&address, &setup, deadline).map_err(|error| error.to_string())
    }

    /// The source that `dbmount` mounts.
    pub(crate) fn url(&self) -> String {
        let options = if self.set { "?replicaSet=bench" } else { "" };
        format!("mongodb://127.0.0.1:{}/{DB}.fs{options}", self.port)
    }

    /// Takes the bucket away, and all else there is beside it.
    pub(crate) fn empty(&self) -> Result<(), String> {
        ask(&mut self.connect()?, Wire::new("dropDatabase", DB))
    }

    /// One command after another on one connection, acknowledged as metadata is.
    pub(crate) fn measure_limits(&self, table: &mut Table) -> Result<(), String> {
        let mut connection = self.connect()?;
        let mut rates: Vec<(Limit, Vec<f64>)> = Vec::new();
        let chunk = Bytes::from(vec![b'x'; CHUNK]);
        for _ in 0..RUNS {
            self.empty()?;
            let mut run = |limit, count, scale: f64, command: &dyn Fn(i32) -> Wire| {
                let start = Instant::now();
                for n in 0..count {
                    timing::check()?;
                    ask(&mut connection, command(n as i32))?;
                }
                let rate = timing::rate(count, start) * scale;
                match rates.iter_mut().find(|(it, _)| *it == limit) {
                    Some((_, all)) => all.push(rate),
                    None => rates.push((limit, vec![rate])),
                }
                Ok::<_, String>(())
            };
            run(Limit::Insert, SMALL, 1.0, &|n| {
                insert("docs", |body| {
                    body.i32("_id", n).str("filename", format!("some/file{n}"));
                    body.begin("metadata").str("what", "x".repeat(300)).end();
                })
            })?;
            run(Limit::Find, SMALL, 1.0, &|n| {
                let mut find = Wire::on("find", DB, "docs");
                find.body().begin("filter").i32("_id", n).end().i32("limit", 1);
                find
            })?;
            run(Limit::Update, SMALL, 1.0, &|n| {
                let mut update = Wire::on("update", DB, "docs");
                let body = update.body().begin_array("updates").begin("0");
                body.begin("q").i32("_id", n).end();
                body.begin("u").begin("$set").i32("mode", n).end().end().end().end();
                acknowledged(body);
                update
            })?;
            let mib = CHUNK as f64 / f64::from(1 << 20);
            run(Limit::InsertChunk, CHUNKS, mib, &|n| {
                insert("chunks", |body| {
                    body.i32("_id", n).binary("data", 0, chunk.clone());
                })
            })?;
            run(Limit::FindChunk, CHUNKS, mib, &|n| {
                let mut find = Wire::on("find", DB, "chunks");
                find.body().begin("filter").i32("_id", n).end().i32("limit", 1);
                find
            })?;
        }
        for (limit, all) in rates {
            table.mongo_limit(limit, self.set, timing::median(all));
        }
        self.empty()
    }
}

fn insert(collection: &str, document: impl FnOnce(&mut DocBuf)) -> Wire {
    let mut insert = Wire::on("insert", DB, collection);
    let body = insert.body().begin_array("documents").begin("0");
    document(body);
    body.end().end();
    acknowledged(body);
    insert
}

fn acknowledged(body: &mut DocBuf) {
    body.begin("writeConcern").i32("w", 1).end();
}

fn ask(connection: &mut Connection, command: Wire) -> Result<(), String> {
    let deadline = Instant::now() + ANSWERING;
    connection.call(command, Some(deadline)).map(drop).map_err(|error| error.to_string())
}

impl Drop for Mongod {
    fn drop(&mut self) {
        if let Ok(mut connection) = self.connect() {
            let shutdown = Wire::of("shutdown", "admin", |body, field| {
                body.i32(field, 1).bool("force", true);
            });
            // It hangs up instead of answering.
            let _ended = ask(&mut connection, shutdown);
        }
        mounts::end(&mut self.child);
    }
}
