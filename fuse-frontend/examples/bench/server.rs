//! A redis-server of the benchmark's own, and what `redis-benchmark` gets out of it.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::table::{Limit, Table};
use crate::{mounts, timing};

const STARTING: Duration = Duration::from_secs(10);
/// What a commit does at the least: look at one key, write another.
const SMALL_SCRIPT: &str = "if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end \
                            redis.call('SET', KEYS[1], ARGV[1]) return 1";
const MIB: usize = 1 << 20;

/// The server. Dropping it ends its process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
    socket: PathBuf,
}

/// How a client reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Loopback.
    Tcp,
    /// A unix socket.
    Unix,
}

impl Server {
    /// Starts one on a free port and a socket in `dir`; it writes nothing to disk.
    pub(crate) fn start(dir: &Path) -> Result<Self, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let port = free.map_err(|error| format!("no free port: {error}"))?.port();
        let socket = dir.join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server: {error} (is it installed?)"))?;
        let mut server = Server { child, port, socket };
        let started = Instant::now();
        while server.cli(&["PING"]).is_err() {
            timing::check()?;
            let ended = server.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > STARTING {
                return Err("redis-server does not start".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// A database of it, over TCP.
    pub(crate) fn tcp_url(&self, db: u32) -> String {
        format!("redis://127.0.0.1:{}/{db}", self.port)
    }

    /// A database of it, over the unix socket.
    pub(crate) fn unix_url(&self, db: u32) -> String {
        format!("unix://{}?db={db}", self.socket.display())
    }

    /// Takes all keys away.
    pub(crate) fn empty(&self) -> Result<(), String> {
        self.cli(&["FLUSHALL", "SYNC"]).map(|_| ())
    }

    /// Makes keys as applications have them: seven of ten are strings, the others hashes of two
    /// fields, in directories of a thousand.
    pub(crate) fn populate(&self, keys: u32) -> Result<(), String> {
        const SCRIPT: &str = "for i = ARGV[1], ARGV[2] do \
            local key = string.format('user:%d:name%d', i / 1000, i) \
            if i % 10 < 7 then redis.call('SET', key, 'value of sixteen') \
            else redis.call('HSET', key, 'name', i, 'mail', i) end end";
        const AT_ONCE: u32 = 20_000;
        for from in (0..keys).step_by(AT_ONCE as usize) {
            timing::check()?;
            let to = (from + AT_ONCE).min(keys) - 1;
            self.cli(&["EVAL", SCRIPT, "0", &from.to_string(), &to.to_string()])?;
        }
        Ok(())
    }

    /// How many keys a second a scan gets that never leaves the server.
    pub(crate) fn scan_rate(&self, keys: u32) -> Result<f64, String> {
        const SCRIPT: &str = "local at = '0' repeat \
            at = redis.call('SCAN', at, 'COUNT', 1000)[1] until at == '0'";
        let start = Instant::now();
        self.cli(&["EVAL", SCRIPT, "0"])?;
        Ok(timing::rate(keys, start))
    }

    /// Asks `redis-benchmark`, one client, for the rates that bound what is measured here.
    pub(crate) fn measure_limits(&self, table: &mut Table) -> Result<(), String> {
        let digest = self.cli(&["SCRIPT", "LOAD", SMALL_SCRIPT])?;
        let small = "x".repeat(100);
        let set = ["SET", "limit:__rand_int__", &small];
        let get = ["GET", "limit:__rand_int__"];
        let script = ["EVALSHA", &digest, "2", "limit:__rand_int__", "limit:none", ""];
        let read_page = ["GETRANGE", "limit:large", "4096", "8191"];
        let write_page = ["SETRANGE", "limit:large", "4096"];
        let read_mib = ["GETRANGE", "limit:large", "0", "1048575"];
        let write_mib = ["SETRANGE", "limit:large", "0"];
        // What, arguments, a last argument of so many bytes, how often, how many at once. Often
        // enough, because redis-benchmark looks at the clock four times a second.
        let all: [(Limit, &[&str], usize, u32, u32); 7] = [
            (Limit::Set, &set, 0, 50_000, 1),
            (Limit::Get, &get, 0, 50_000, 1),
            (Limit::Script, &script, 0, 50_000, 1),
            (Limit::WriteMib, &write_mib, MIB, 500, 4),
            (Limit::ReadMib, &read_mib, 0, 500, 4),
            (Limit::WritePage, &write_page, 4096, 50_000, 1),
            (Limit::ReadPage, &read_page, 0, 50_000, 1),
        ];
        eprintln!("limits …");
        for over in [Over::Tcp, Over::Unix] {
            for (limit, arguments, body, count, depth) in all {
                let mut runs = Vec::new();
                for _ in 0..3 {
                    timing::check()?;
                    runs.push(self.rate_of(over, arguments, body, count, depth)?);
                }
                table.limit(limit, over, timing::median(runs));
            }
        }
        Ok(())
    }

    fn rate_of(
        &self,
        over: Over,
        arguments: &[&str],
        body: usize,
        count: u32,
        depth: u32,
    ) -> Result<f64, String> {
        let mut command = self.command("redis-benchmark", over);
        command.args(["--csv", "-c", "1", "-r", "5000", "-n", &count.to_string()]);
        command.args(["-P", &depth.to_string()]);
        let output = if body > 0 {
            with_input(command.arg("-x").args(arguments), &vec![b'x'; body])
        } else {
            command.args(arguments).output()
        };
        let text = stdout("redis-benchmark", output)?;
        // The command, which may hold anything, then the rate and six latencies.
        let rate = text.trim().rsplit("\",\"").nth(6).and_then(|field| field.parse::<f64>().ok());
        let tail: String = text.chars().rev().take(200).collect::<Vec<_>>().iter().rev().collect();
        rate.filter(|rate| *rate > 0.0).ok_or_else(|| format!("redis-benchmark said {tail:?}"))
    }

    fn cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command("redis-cli", Over::Unix);
        stdout("redis-cli", command.arg("-e").args(arguments).output())
    }

    fn command(&self, program: &str, over: Over) -> Command {
        let mut command = Command::new(program);
        match over {
            Over::Tcp => command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]),
            Over::Unix => command.arg("-s").arg(&self.socket),
        };
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _asked = self.cli(&["SHUTDOWN", "NOSAVE"]);
        mounts::end(&mut self.child);
    }
}

fn with_input(command: &mut Command, body: &[u8]) -> std::io::Result<Output> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(body)?;
    }
    child.wait_with_output()
}

fn stdout(program: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("{program}: {error} (is it installed?)"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{program}: {} {}", text(&output.stdout), text(&output.stderr)))
}
