//! A simulated server and a real one side by side, and what counts as the same answer.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Reply};
use dbmount_engine::sim::redis::{ClientId, Server};
use dbmount_engine::{Mono, Now, Wall};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::{RealClient, RealServer};

/// The simulator's own connection.
pub(crate) const SIM: ClientId = ClientId(1);

/// The same connection to two servers.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) sim: Server,
    pub(crate) real: RealClient,
    /// Keeps the process alive.
    pub(crate) server: RealServer,
    protocol: u8,
    /// How many replies were compared.
    pub(crate) compared: u64,
}

impl Drop for Pair {
    fn drop(&mut self) {
        println!("{} replies compared", self.compared);
    }
}

/// The real clock: both servers must see the same.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let nanos = i64::try_from(since.as_nanos()).expect("before 2262");
    Now { mono: Mono(nanos as u64), wall: Wall(nanos) }
}

/// A generator of cases that are the same in every run. `DBMOUNT_CASES` makes it so many times
/// as many instead of twice.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let times = std::env::var("DBMOUNT_CASES").ok().and_then(|times| times.parse().ok());
    let cases = cases * times.unwrap_or(2);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

impl Pair {
    pub(crate) fn start(protocol: u8) -> Pair {
        let server = RealServer::start();
        let real = server.connect(protocol);
        let mut pair = Pair { sim: Server::new(now()), real, server, protocol, compared: 0 };
        // Only looking at a key lets it expire, as on the simulated server between its ticks.
        pair.on_real(&Command::plain(["DEBUG", "SET-ACTIVE-EXPIRE", "0"]));
        pair.reset();
        pair
    }

    /// Empties both.
    pub(crate) fn reset(&mut self) {
        self.sim = Server::new(now());
        self.on_sim(&Command::plain(["HELLO".into(), self.protocol.to_string()]));
        for line in ["CONFIG SET maxmemory 0", "CONFIG SET proto-max-bulk-len 2mb", "FLUSHALL"] {
            let command = Command::plain(line.split(' ').map(String::from));
            let (sim, real) = (self.on_sim(&command), self.on_real(&command));
            assert_eq!(sim, real, "{command:?}");
        }
        self.on_real(&Command::plain(["HELLO".into(), self.protocol.to_string()]));
        for line in ["SELECT 0", "CLIENT TRACKING OFF", "CLIENT SETNAME ", "SCRIPT FLUSH"] {
            self.on_real(&Command::plain(line.split(' ').map(String::from)));
        }
    }

    pub(crate) fn on_sim(&mut self, command: &Command) -> Reply {
        self.sim.execute(now(), SIM, command)
    }

    pub(crate) fn on_real(&mut self, command: &Command) -> Reply {
        self.real.execute(command)
    }

    /// Runs a command on both. What differs, if anything does.
    pub(crate) fn check(&mut self, command: &Command) -> Result<(), String> {
        let Command::Plain(args) = command else {
            return Err("scripts are compared elsewhere".into());
        };
        self.compared += 1;
        let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
        let (mut sim, mut real) = (self.on_sim(command), self.on_real(command));
        if matches!(name.as_str(), "SCAN" | "HSCAN" | "SSCAN" | "ZSCAN") {
            let at = usize::from(name != "SCAN") + 1;
            sim = follow(sim, args, at, &mut |command| self.on_sim(command));
            real = follow(real, args, at, &mut |command| self.on_real(command));
        } else if self.is_unordered(&name, args) {
            let width = if matches!(name.as_str(), "HGETALL" | "CONFIG") { 2 } else { 1 };
            (sim, real) = (sorted(sim, width), sorted(real, width));
        }
        let same = match name.as_str() {
            "TTL" => close(&sim, &real, 1),
            "PTTL" | "PEXPIRETIME" => close(&sim, &real, 2000),
            _ => sim == real,
        };
        if same {
            return Ok(());
        }
        Err(format!("{command:?}\n  simulated: {sim:?}\n  real:      {real:?}"))
    }

    /// Whether the reply's order is the server's own business.
    fn is_unordered(&mut self, name: &str, args: &[Bytes]) -> bool {
        match name {
            "KEYS" | "CONFIG" => true,
            "HGETALL" | "HKEYS" | "HVALS" | "SMEMBERS" if args.len() > 1 => {
                let key = args[1].clone();
                let encoding =
                    self.on_sim(&Command::plain(["OBJECT".into(), "ENCODING".into(), key]));
                encoding.as_bytes() == Some(b"hashtable")
            }
            _ => false,
        }
    }

    /// Compares everything that is in the selected database.
    pub(crate) fn check_keyspace(&mut self) -> Result<(), String> {
        let keys = self.on_real(&Command::plain(["KEYS", "*"]));
        let mut all: BTreeSet<Bytes> = self.sim.keys(0).into_iter().collect();
        all.extend(keys.as_array().unwrap_or_default().iter().map(|key| match key {
            Reply::Bulk(key) => key.clone(),
            other => panic!("{other:?}"),
        }));
        for key in all {
            let one = |name: &'static str| {
                Command::plain([Bytes::from_static(name.as_bytes()), key.clone()])
            };
            let kind = self.on_real(&one("TYPE"));
            self.check(&one("TYPE"))?;
            if kind.as_bytes() == Some(b"none") {
                continue;
            }
            self.check(&one("PTTL"))?;
            self.check(&Command::plain(["OBJECT".into(), "ENCODING".into(), key.clone()]))?;
            let text: &[&str] = match kind.as_bytes() {
                Some(b"string") => &["GET"],
                Some(b"hash") => &["HGETALL"],
                Some(b"list") => &["LRANGE", "0", "-1"],
                Some(b"set") => &["SMEMBERS"],
                Some(b"zset") => &["ZRANGE", "0", "-1", "WITHSCORES"],
                Some(b"stream") => &["XRANGE", "-", "+"],
                _ => return Err(format!("{key:?} is of type {kind:?}")),
            };
            let mut args = vec![Bytes::from_static(text[0].as_bytes()), key.clone()];
            args.extend(text[1..].iter().map(|arg| Bytes::from_static(arg.as_bytes())));
            self.check(&Command::plain(args))?;
        }
        Ok(())
    }
}

/// The whole of a scan that begins with this page, sorted, each element once.
fn follow(
    first: Reply,
    args: &[Bytes],
    at: usize,
    execute: &mut dyn FnMut(&Command) -> Reply,
) -> Reply {
    let width = if args[0].eq_ignore_ascii_case(b"hscan") || args[0].eq_ignore_ascii_case(b"zscan")
    {
        2
    } else {
        1
    };
    let (mut page, mut all) = (first, BTreeSet::new());
    for _ in 0..10_000 {
        let Reply::Array(parts) = &page else { return page };
        let [Reply::Bulk(cursor), Reply::Array(items)] = &parts[..] else { return page };
        all.extend(
            items
                .chunks(width)
                .map(|chunk| chunk.iter().map(|item| format!("{item:?}")).collect::<Vec<_>>()),
        );
        if cursor == "0" {
            return Reply::Array(
                all.into_iter().map(|item| Reply::Bulk(item.join("=").into())).collect(),
            );
        }
        let mut next = args.to_vec();
        next[at] = cursor.clone();
        page = execute(&Command::plain(next));
    }
    panic!("a scan that does not end");
}

/// The elements, in groups of `width`, in an order of ours.
fn sorted(reply: Reply, width: usize) -> Reply {
    let Reply::Array(items) = reply else { return reply };
    let mut groups: Vec<Vec<Reply>> = items.chunks(width).map(<[Reply]>::to_vec).collect();
    groups.sort_by_key(|group| format!("{group:?}"));
    Reply::Array(groups.concat())
}

fn close(a: &Reply, b: &Reply, by: i64) -> bool {
    match (a, b) {
        (Reply::Int(a), Reply::Int(b)) if *a > 0 && *b > 0 => (a - b).abs() <= by,
        _ => a == b,
    }
}
