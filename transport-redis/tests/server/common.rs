//! A real server for a test, and a sink that can be waited on.
#![allow(clippy::unwrap_used, reason = "helpers of tests say what they expect by unwrapping")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use dbmount_engine::backend::redis::{Command, Push, Redis, Reply};
use dbmount_engine::contract::{Batch, Fault, Input, Link, Mode};
use dbmount_engine::id::{BatchId, Lane};
use dbmount_engine::time::Mono;
use dbmount_transport_redis::{Options, Sink, Transport};

/// Nothing here takes a tenth of this on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A `redis-server` of the test's own.
pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
    pub(crate) port: u16,
    extra: Vec<String>,
}

impl Server {
    pub(crate) fn start(extra: &[&str]) -> Server {
        // Another process may take the port between the look and the use.
        (0..20)
            .find_map(|_| Server::start_on(free_port(), extra))
            .expect("redis-server does not start with these options")
    }

    /// `None` when it ends at once, as when the port is taken.
    pub(crate) fn start_on(port: u16, extra: &[&str]) -> Option<Server> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dbmount-t-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let extra: Vec<String> = extra.iter().map(|s| s.to_string()).collect();
        let child = spawn(&dir, port, &extra);
        let mut server = Server { child, dir, port, extra };
        answers(&mut server.child, port).then_some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// It keeps its connections and does nothing any more.
    pub(crate) fn freeze(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub(crate) fn again(&mut self) {
        self.child = spawn(&self.dir, self.port, &self.extra);
        assert!(answers(&mut self.child, self.port), "redis-server does not start again");
    }

    /// Runs `redis-cli` and returns what it prints.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let out = Process::new("redis-cli")
            .args(["--no-auth-warning", "-p", &self.port.to_string()])
            .args(args)
            .output()
            .expect("no redis-cli on PATH: apt-get install redis-server");
        String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(dir: &Path, port: u16, extra: &[String]) -> Child {
    Process::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .args(["--appendonly", "no", "--unixsocketperm", "700", "--logfile", "log"])
        .arg("--dir")
        .arg(dir)
        .arg("--unixsocket")
        .arg(dir.join("sock"))
        .args(extra)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("no redis-server on PATH: apt-get install redis-server")
}

/// Waits until it listens, or has ended.
fn answers(child: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            // Not by someone else's grace.
            return child.try_wait().unwrap().is_none();
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Keeps everything that is delivered.
#[derive(Default)]
pub(crate) struct Recorder {
    inputs: Mutex<Vec<Input<Redis>>>,
    more: Condvar,
}

impl Sink for Recorder {
    fn deliver(&self, mut inputs: Vec<Input<Redis>>) {
        assert!(!inputs.is_empty());
        self.inputs.lock().unwrap().append(&mut inputs);
        self.more.notify_all();
    }
}

impl Recorder {
    /// Waits until `find` finds something in all that was delivered so far.
    pub(crate) fn wait<T>(&self, what: &str, find: impl Fn(&[Input<Redis>]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut inputs = self.inputs.lock().unwrap();
        loop {
            if let Some(found) = find(&inputs) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} within {PATIENCE:?}; there was {inputs:?}");
            inputs = self.more.wait_timeout(inputs, left).unwrap().0;
        }
    }

    pub(crate) fn take(&self) -> Vec<Input<Redis>> {
        std::mem::take(&mut *self.inputs.lock().unwrap())
    }

    pub(crate) fn link(&self, lane: Lane, what: &str, is: impl Fn(&Link) -> bool) -> Link {
        self.wait(&format!("{what} on {lane:?}"), |inputs| {
            inputs.iter().rev().find_map(|input| match input {
                Input::Link(l, link) if *l == lane && is(link) => Some(link.clone()),
                _ => None,
            })
        })
    }

    pub(crate) fn up(&self, lane: Lane) -> bool {
        match self.link(lane, "Link::Up", |link| matches!(link, Link::Up { .. })) {
            Link::Up { pushes } => pushes,
            _ => unreachable!(),
        }
    }

    pub(crate) fn all_up(&self) {
        for lane in Lane::ALL {
            self.up(lane);
        }
    }

    pub(crate) fn refused(&self, lane: Lane) -> String {
        match self.link(lane, "Link::Refused", |link| matches!(link, Link::Refused(_))) {
            Link::Refused(line) => line,
            _ => unreachable!(),
        }
    }

    pub(crate) fn down(&self, lane: Lane) -> String {
        match self.link(lane, "Link::Down", |link| matches!(link, Link::Down(_))) {
            Link::Down(line) => line,
            _ => unreachable!(),
        }
    }

    pub(crate) fn replies(&self, id: BatchId) -> Result<Vec<Reply>, Fault> {
        self.wait(&format!("replies to {id:?}"), |inputs| {
            inputs.iter().find_map(|input| match input {
                Input::Replies(i, result) if *i == id => Some(result.clone()),
                _ => None,
            })
        })
    }

    pub(crate) fn push(&self, is: impl Fn(&Push) -> bool) -> Push {
        self.wait("push", |inputs| {
            inputs.iter().find_map(|input| match input {
                Input::Push(push) if is(push) => Some(push.clone()),
                _ => None,
            })
        })
    }
}

/// A transport and its recorder.
pub(crate) struct Client {
    pub(crate) transport: Transport,
    pub(crate) sink: Arc<Recorder>,
    next: AtomicU64,
}

impl Client {
    pub(crate) fn start(url: &str, options: Options) -> Client {
        let sink = Arc::new(Recorder::default());
        let transport = Transport::start(url.parse().unwrap(), options, sink.clone()).unwrap();
        Client { transport, sink, next: AtomicU64::new(1) }
    }

    pub(crate) fn up(url: &str) -> Client {
        let client = Client::start(url, Options::default());
        client.sink.all_up();
        client
    }

    pub(crate) fn submit(&self, lane: Lane, mode: Mode, commands: Vec<Command>) -> BatchId {
        let id = BatchId(self.next.fetch_add(1, Ordering::Relaxed));
        self.transport.submit(Batch { id, lane, mode, deadline: Mono::NEVER, commands });
        id
    }

    pub(crate) fn ask(&self, lane: Lane, mode: Mode, commands: Vec<Command>) -> Vec<Reply> {
        self.sink.replies(self.submit(lane, mode, commands)).unwrap()
    }

    pub(crate) fn one(&self, words: &[&str]) -> Reply {
        let command = Command::plain(words.iter().map(|word| word.as_bytes().to_vec()));
        self.ask(Lane::Meta, Mode::Independent, vec![command]).remove(0)
    }
}
