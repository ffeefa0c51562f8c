//! Round trips a second through the transport, over TCP and a Unix socket, beside
//! `redis-benchmark` on the same server.
//!
//! `cargo run --release -p dbmount-transport-redis --example roundtrip`
//!
//! Starts a `redis-server` of its own, which has to be on PATH.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Redis};
use dbmount_engine::contract::{Batch, Input, Link, Mode};
use dbmount_engine::id::{BatchId, Lane};
use dbmount_engine::time::Mono;
use dbmount_transport_redis::{Options, Sink, Transport};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Submits the next batch from within the answer to the last, as the engine does, or wakes the
/// caller that waits.
#[derive(Default)]
struct Driver {
    transport: OnceLock<Transport>,
    /// What is submitted over and over, and on which lane.
    job: Mutex<Option<(Lane, Command)>>,
    /// Batches still to submit from within `deliver`, and all that are still to be answered.
    again: AtomicUsize,
    open: AtomicUsize,
    next: AtomicU64,
    up: AtomicUsize,
    done: Mutex<bool>,
    failed: OnceLock<String>,
    wake: Condvar,
}

/// The sink is a handle on the driver.
struct Handle(Arc<Driver>);

impl Sink for Handle {
    fn deliver(&self, inputs: Vec<Input<Redis>>) {
        let driver = &self.0;
        for input in inputs {
            match input {
                Input::Replies(_, Ok(replies))
                    if replies.iter().all(|reply| reply.as_error().is_none()) =>
                {
                    let left = |n: usize| n.checked_sub(1);
                    let order = Ordering::Relaxed;
                    if driver.again.fetch_update(order, order, left).is_ok() {
                        driver.submit();
                    }
                    if driver.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                        driver.finish();
                    }
                }
                Input::Link(_, Link::Up { .. })
                    if driver.up.fetch_add(1, Ordering::Relaxed) + 1 == Lane::ALL.len() =>
                {
                    driver.finish();
                }
                Input::Push(_) | Input::Link(_, Link::Up { .. }) => {}
                wrong => {
                    let _ = driver.failed.set(format!("{wrong:?}"));
                    driver.finish();
                }
            }
        }
    }
}

impl Driver {
    fn start(url: &str) -> Result<Arc<Driver>> {
        let driver = Arc::new(Driver::default());
        let sink = Arc::new(Handle(driver.clone()));
        let transport = Transport::start(url.parse()?, Options::default(), sink)?;
        driver.transport.set(transport).map_err(|_| "set twice")?;
        driver.wait()?;
        Ok(driver)
    }

    fn submit(&self) {
        let job = self.job.lock().ok().and_then(|job| job.clone());
        if let (Some((lane, command)), Some(transport)) = (job, self.transport.get()) {
            let id = BatchId(self.next.fetch_add(1, Ordering::Relaxed));
            let (mode, deadline) = (Mode::Independent, Mono::NEVER);
            transport.submit(Batch { id, lane, mode, deadline, commands: vec![command] });
        }
    }

    fn finish(&self) {
        *self.done.lock().unwrap_or_else(|e| e.into_inner()) = true;
        self.wake.notify_one();
    }

    fn wait(&self) -> Result<()> {
        let done = self.done.lock().unwrap_or_else(|e| e.into_inner());
        let done = self.wake.wait_while(done, |done| !*done);
        *done.unwrap_or_else(|e| e.into_inner()) = false;
        match self.failed.get() {
            Some(what) => Err(what.as_str().into()),
            None => Ok(()),
        }
    }

    fn set_job(&self, lane: Lane, command: &Command) {
        *self.job.lock().unwrap_or_else(|e| e.into_inner()) = Some((lane, command.clone()));
    }

    /// `depth` batches always in flight; answers a second.
    fn piped(&self, lane: Lane, command: &Command, depth: usize, count: usize) -> Result<f64> {
        self.set_job(lane, command);
        self.again.store(count - depth, Ordering::Relaxed);
        self.open.store(count, Ordering::Release);
        let started = Instant::now();
        (0..depth).for_each(|_| self.submit());
        self.wait()?;
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }

    /// A caller that sleeps until it is answered; answers a second.
    fn waited(&self, lane: Lane, command: &Command, count: usize) -> Result<f64> {
        self.set_job(lane, command);
        self.again.store(0, Ordering::Relaxed);
        let started = Instant::now();
        for _ in 0..count {
            self.open.store(1, Ordering::Release);
            self.submit();
            self.wait()?;
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }
}

/// `redis-benchmark`'s own figure for GET.
fn rival(place: &[&str], depth: usize, count: usize) -> Result<f64> {
    let out = Process::new("redis-benchmark")
        .args(place)
        .args(["-t", "get", "-d", "100", "-c", "1", "--csv", "-q"])
        .args(["-P", &depth.to_string(), "-n", &count.to_string()])
        .output()?;
    let text = String::from_utf8(out.stdout)?;
    let line = text.lines().find(|line| line.starts_with("\"GET\"")).ok_or("no figure for GET")?;
    Ok(line.split('"').nth(3).ok_or("no figure")?.parse()?)
}

struct Server(Child, PathBuf);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

fn main() -> Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let dir = std::env::temp_dir().join(format!("dbmount-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let sock = dir.join("sock");
    let child = Process::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--unixsocket")
        .arg(&sock)
        .stdout(Stdio::null())
        .spawn()?;
    let server = Server(child, dir);
    while !sock.exists() || std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(5));
    }

    let sock = sock.to_string_lossy().into_owned();
    let port = port.to_string();
    let key = "key:__rand_int__";
    let get = Command::plain(["GET", key]);
    let set = Command::plain([Bytes::from("SET"), key.into(), vec![b'x'; 100].into()]);
    println!("{:28}{:>12}{:>14}", "GET of 100 bytes, per second", "dbmount", "redis-benchmark");
    for (name, url, place) in [
        ("tcp", format!("redis://127.0.0.1:{port}"), ["-p", &port]),
        ("unix", format!("unix://{sock}"), ["-s", &sock]),
    ] {
        let driver = Driver::start(&url)?;
        driver.piped(Lane::Meta, &set, 1, 1)?;
        let count = 200_000;
        let caller = driver.waited(Lane::Meta, &get, count / 4)?;
        println!("{:28}{caller:>12.0}", format!("{name}, a sleeping caller"));
        for depth in [1, 16] {
            let ours = driver.piped(Lane::Meta, &get, depth, count * depth.min(4))?;
            let theirs = rival(&place, depth, count * depth.min(4))?;
            println!("{:28}{ours:>12.0}{theirs:>14.0}", format!("{name}, {depth} deep"));
        }
        for size in [4 << 10, 64 << 10, 1 << 20] {
            let value = Bytes::from(vec![b'v'; size]);
            let set = Command::plain([Bytes::from("SET"), "blob".into(), value]);
            let end = (size - 1).to_string();
            let get = Command::plain(["GETRANGE", "blob", "0", &end].map(str::to_owned));
            let count = (1 << 30) / size.max(16 << 10);
            let mib = |rate: f64| rate * size as f64 / f64::from(1 << 20);
            let wrote = mib(driver.piped(Lane::Bulk, &set, 4, count)?);
            let read = mib(driver.piped(Lane::Bulk, &get, 4, count)?);
            let name = format!("{name}, {} KiB, 4 deep", size >> 10);
            println!("{name:28}{wrote:>9.0} MiB/s written {read:>9.0} MiB/s read");
        }
        if let Some(transport) = driver.transport.get() {
            transport.shutdown();
        }
    }
    drop(server);
    Ok(())
}
