//! A redis-server of a test's own, on a unix socket and a free port of the loopback device.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::resp::Client;
use crate::shell::{needs, until};

/// Ports are tried this often: another program may be quicker.
const TRIES: usize = 5;

/// A running server. It dies with this value, and what it stored as well.
pub(crate) struct Server {
    dir: TempDir,
    child: Child,
    port: u16,
    options: Vec<String>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Server::with(&[])
    }

    /// A server with these options beside the usual ones.
    pub(crate) fn with(options: &[&str]) -> Self {
        needs("redis-server", "redis-server");
        let dir = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        for _ in 0..TRIES {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = start(dir.path(), port, &options) {
                return Server { dir, child, port, options };
            }
        }
        let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        panic!("redis-server does not start:\n{log}");
    }

    /// What to mount.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// As a power cut would end it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on what it stored.
    pub(crate) fn start_again(&mut self) {
        let started = start(self.dir.path(), self.port, &self.options);
        self.child = started.expect("the server starts again");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `None` when the server ended at once, as it does when its port is taken.
fn start(dir: &Path, port: u16, options: &[String]) -> Option<Child> {
    let socket = dir.join("socket");
    let _left_by_a_killed_one = fs::remove_file(&socket);
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let port = port.to_string();
    let mut child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port, "--dir", dir.to_str().unwrap()])
        .args(["--unixsocket", socket.to_str().unwrap(), "--save", "", "--daemonize", "no"])
        .args(options)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut ended = false;
    until("redis-server answers", || {
        ended = child.try_wait().unwrap().is_some();
        // One that asks for a password answers too.
        ended || Client::connect(&socket).is_ok_and(|mut client| client.answers())
    });
    (!ended).then_some(child)
}
