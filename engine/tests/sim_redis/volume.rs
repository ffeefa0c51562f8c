//! The scripts of the volume layout on the real server against their twins: what mounts say to
//! the simulated server while programs use them is said to a real one, word for word, and the
//! answers and the whole keyspace are compared.

use std::cell::RefCell;

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Push, Redis, Reply};
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::harness::{ClientId, Disk, Progress, Server, Setup, Site, Weather};
use dbmount_engine::sim::ops::Executor;
use dbmount_engine::sim::play::{Stage, Step, turns};
use dbmount_engine::sim::redis;
use dbmount_engine::volume::{Format, Options, Volume, scripts};
use dbmount_engine::{Batch, Mode, Now, Wall};

use crate::batches::multi;
use crate::compare::{Pair, SIM, now};

thread_local!(static SAID: RefCell<Vec<Batch<Redis>>> = const { RefCell::new(Vec::new()) });

/// A server that writes down what is said to it.
#[derive(Clone, Debug)]
struct Scribe(redis::Server);

impl Server for Scribe {
    type Backend = Redis;

    /// Whole: a real server gets them one after the other.
    type Running = Batch<Redis>;

    fn begin(&mut self, _client: ClientId, batch: Batch<Redis>) -> Batch<Redis> {
        batch
    }

    fn step(&mut self, now: Now, client: ClientId, batch: &mut Batch<Redis>) -> Progress<Redis> {
        SAID.with_borrow_mut(|said| said.push(batch.clone()));
        Progress::Done(self.0.run(now, client.into(), batch))
    }

    fn command(&mut self, now: Now, client: ClientId, command: &Command) -> Reply {
        Server::command(&mut self.0, now, client, command)
    }

    fn take_pushes(&mut self, client: ClientId) -> Vec<Push> {
        Server::take_pushes(&mut self.0, client)
    }

    fn tick(&mut self, now: Now) {
        Server::tick(&mut self.0, now);
    }

    fn disconnect(&mut self, client: ClientId) {
        Server::disconnect(&mut self.0, client);
    }
}

/// A volume on such a server.
#[derive(Clone, Copy, Debug)]
enum Overheard {}

impl Site for Overheard {
    type Layout = Volume;
    type Options = Options;
    type Server = Scribe;

    const NAME: &'static str = "volume, overheard";
    const KEEPS_TIMES: bool = true;

    fn server(now: Now) -> Scribe {
        Scribe(Disk::server(now))
    }

    fn options() -> Options {
        Disk::options()
    }

    fn layout(options: &Options, now: Now) -> Volume {
        Disk::layout(options, now)
    }

    fn subscribe(server: &mut Scribe, now: Now, client: ClientId, setup: &Setup<Self>) -> bool {
        let setup = Setup { options: setup.options.clone(), ..Setup::<Disk>::default() };
        Disk::subscribe(&mut server.0, now, client, &setup)
    }
}

/// What mounts say while programs use them.
fn overhear(stage: &Stage<Overheard>) -> Vec<Batch<Redis>> {
    let steps = turns(stage, 120, |_| None);
    SAID.take();
    let mut world = stage.world();
    for (n, step) in steps.iter().enumerate() {
        if let Step::Run(at, op) = step {
            let _ = world.fs(*at).run(op, Wall(n as i64 + 1));
        }
    }
    for at in 0..world.mounts() {
        world.fs(at).close_all();
    }
    world.sleep(std::time::Duration::from_secs(120));
    world.settle();
    SAID.take()
}

/// What of an answer is the same on every server: not how much memory it has.
fn same(command: &Command, sim: &Reply, real: &Reply) -> bool {
    match command {
        Command::Plain(args) => args[0].eq_ignore_ascii_case(b"info") || sim == real,
        Command::Script { script, .. } if script.name == "volume-figures" => {
            let used = |reply: &Reply| reply.as_array().map(|items| items[..2].to_vec());
            used(sim) == used(real)
        }
        Command::Script { .. } => sim == real,
    }
}

fn compare(pair: &mut Pair, said: &[Batch<Redis>]) -> Result<(), String> {
    pair.reset();
    for batch in said {
        let sim = pair.sim.run(now(), SIM, batch);
        let real = match batch.mode {
            Mode::Atomic => multi(pair, &batch.commands),
            Mode::Independent | Mode::Ordered => {
                batch.commands.iter().map(|command| pair.on_real(command)).collect()
            }
        };
        for ((command, sim), real) in batch.commands.iter().zip(&sim).zip(&real) {
            pair.compared += 1;
            if !same(command, sim, real) {
                return Err(format!("{command:?}\n  simulated: {sim:?}\n  real:      {real:?}"));
            }
        }
    }
    // Times by the servers' clocks.
    for key in ["{disk}:s", "{disk}:g"] {
        let scores = Command::plain(["DEL", key]);
        pair.on_sim(&scores);
        pair.on_real(&scores);
    }
    pair.check_keyspace()
}

#[test]
fn volume_scripts() {
    let mut pair = Pair::start(3);
    let mut scripts = std::collections::BTreeSet::new();
    for seed in 0..24 {
        let weather = if seed % 2 == 0 { Weather::CALM } else { Weather::BREEZE };
        let mut stage: Stage<Overheard> = Stage::new(seed, weather).shared(1 + seed as usize % 2);
        for setup in &mut stage.setups {
            // Some meet their limits.
            let limits = if seed % 4 == 3 { (20_000, 12) } else { (0, 0) };
            let format = setup.options.format.unwrap_or_default();
            setup.options.format = Some(Format { capacity: limits.0, inodes: limits.1, ..format });
        }
        let said = overhear(&stage);
        for command in said.iter().flat_map(|batch| &batch.commands) {
            if let Command::Script { script, .. } = command {
                scripts.insert(script.name);
            }
        }
        if let Err(why) = compare(&mut pair, &said) {
            panic!("seed {seed}: {why}");
        }
    }
    for script in dbmount_engine::volume::scripts::ALL {
        // The operations that take these are not generated; see below.
        // The last one is held to the server by a test of its own.
        let rare = ["volume-chain", "volume-figures", "volume-clean", "volume-seek", "volume-lock"];
        let rare = rare.contains(&script.name);
        assert!(rare || scripts.contains(script.name), "{} was never run", script.name);
    }
}

/// The steps of the commit script that change blocks, and the search for holes, on blocks that
/// are there, short, or missing.
#[test]
fn blocks_zeroed_copied_and_sought() {
    use dbmount_engine::volume::scripts::{COMMIT, SEEK};
    let mut pair = Pair::start(3);
    let words = |line: &str| -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    };
    for seed in 0_u64..200 {
        pair.reset();
        for line in
            ["HSET i size 30 nlink 1 data 9", "SET v:b:{9:0} 0123456789", "SET v:b:{9:2} abc"]
        {
            pair.check(&Command::plain(words(line))).unwrap();
        }
        let draw = |n: u64, below: u64| (seed.wrapping_mul(0x9e37_79b9) >> (n * 5)) % below;
        let (from, to) = (7 + draw(0, 3), 7 + draw(1, 3));
        let (at, to_at, n) = (draw(2, 6), draw(3, 6), 1 + draw(4, 4));
        let step = match seed % 4 {
            0 => format!("zero {from} {at} {n}"),
            1 => format!("zero {from} -1 10"),
            2 => format!("copy {from} {at} {n} {to} {to_at}"),
            _ => format!("grow 10 5 {}", 20 + draw(5, 40)),
        };
        let args = words(&format!("0 0 1.1 0 0 holds 10 5 9 {step} set 10 2 mtime 7"));
        let keys = words(" u s g q o v:b:{9:0} v:b:{9:1} v:b:{9:2} i");
        let commit = Command::Script { script: &COMMIT, keys: keys.into(), args: args.into() };
        let mut commands = vec![commit];
        for want in ["d", "h"] {
            let args = words(&format!("v:b:{{ 5 10 {} {want} {}", draw(6, 32), 1 + draw(7, 4)));
            commands.push(Command::Script {
                script: &SEEK,
                keys: words("i").into(),
                args: args.into(),
            });
        }
        for command in commands {
            let (sim, real) = (pair.on_sim(&command), pair.on_real(&command));
            assert_eq!(sim, real, "seed {seed}: {command:?}");
        }
        pair.check_keyspace().unwrap();
    }
}

/// Locks of mounts that live, of one that has ended, and their end.
#[test]
fn locks_of_mounts() {
    let mut pair = Pair::start(3);
    let mut random = Random(7);
    let both = |pair: &mut Pair, command: &Command| {
        let (sim, real) = (pair.on_sim(command), pair.on_real(command));
        // Which of several locks is named hangs on the order of the hash.
        let kept_out = |reply: &Reply| {
            reply
                .as_array()
                .is_some_and(|items| items.first().and_then(Reply::as_bytes) == Some(b"no"))
        };
        assert!(
            sim == real || (kept_out(&sim) && kept_out(&real)),
            "{command:?}: {sim:?} {real:?}"
        );
        sim
    };
    both(&mut pair, &Command::plain(["ZADD", "{v}:s", "9e15", "1", "9e15", "2"]));
    both(&mut pair, &Command::plain(["HSET", "{v}:i:5", "change", "1.7"]));
    let record = |random: &mut Random| {
        let kind = ["r", "f"][random.next() as usize % 2];
        let mode = ["s", "x"][random.next() as usize % 2];
        let start = random.next() % 8;
        let end = if random.next().is_multiple_of(8) { 1 << 63 } else { start + 1 + start % 5 };
        format!("{kind}{mode}{start:016x}{end:016x}")
    };
    let (mut kept_out, mut had) = (0, 0);
    for _ in 0..400 {
        let mount = (1 + random.next() % 3).to_string();
        let ino = ["5", "6"][random.next() as usize % 2];
        let wanted =
            if random.next().is_multiple_of(4) { String::new() } else { record(&mut random) };
        let change = if random.next().is_multiple_of(5) { "0" } else { "1" };
        let held: String = (0..random.next() % 4).map(|_| record(&mut random)).collect();
        let keys = [
            format!("{{v}}:l:{ino}"),
            "{v}:s".into(),
            format!("{{v}}:i:{ino}"),
            format!("{{v}}:k:{mount}"),
        ];
        let args = [mount, ino.to_owned(), wanted, change.to_owned(), held];
        let answer = both(
            &mut pair,
            &Command::Script {
                script: &scripts::LOCK,
                keys: keys.map(Bytes::from).into_iter().collect(),
                args: args.map(Bytes::from).into_iter().collect(),
            },
        );
        match answer.as_array().and_then(|items| items[0].as_bytes()) {
            Some(b"no") => kept_out += 1,
            _ => had += 1,
        }
    }
    assert!(kept_out > 50 && had > 50, "{kept_out} were kept out, {had} were not");
    let leave = |mount: &'static str| Command::Script {
        script: &scripts::REAP,
        keys: ["{v}:s", "{v}:g", "{v}:q", "{v}:usage"].map(Bytes::from).into_iter().collect(),
        args: ["{v}:", mount, "0", "64", "0", "0", "0"].map(Bytes::from).into_iter().collect(),
    };
    for mount in ["1", "2", "3"] {
        both(&mut pair, &leave(mount));
        pair.check_keyspace().unwrap();
    }
    let keys = both(&mut pair, &Command::plain(["KEYS", "*"]));
    assert_eq!(keys, Reply::Array(vec![Reply::Bulk("{v}:i:5".into())]), "nothing is locked");
}

/// `ZRANGEBYLEX` and `ZRANGEBYSCORE`, with every kind of bound.
#[test]
fn ranges_of_sorted_sets() {
    let mut pair = Pair::start(3);
    for member in ["a", "b", "ab", "a\0b", "a\0", "\u{ff}", "c"] {
        pair.check(&Command::plain(["ZADD", "lex", "0", member])).unwrap();
    }
    for (score, member) in [("-1", "a"), ("0", "b"), ("1.5", "c"), ("inf", "d"), ("1.5", "e")] {
        pair.check(&Command::plain(["ZADD", "score", score, member])).unwrap();
    }
    pair.check(&Command::plain(["SET", "text", "x"])).unwrap();
    let lex = ["-", "+", "[a", "(a", "[a\0", "(ab", "[c", "[", "(", "a", ""];
    let scores = ["-inf", "+inf", "inf", "0", "(0", "1.5", "(1.5", "-1", "(-inf", "x", "", "nan"];
    let limits: [&[&str]; 8] = [
        &[],
        &["LIMIT", "0", "1"],
        &["LIMIT", "1", "2"],
        &["LIMIT", "0", "-1"],
        &["LIMIT", "-1", "2"],
        &["LIMIT", "0", "0"],
        &["LIMIT", "0"],
        &["LIMIT", "x", "1"],
    ];
    for (name, key, bounds) in
        [("ZRANGEBYLEX", "lex", &lex[..]), ("ZRANGEBYSCORE", "score", &scores[..])]
    {
        for min in bounds {
            for max in bounds {
                for limit in limits {
                    for key in [key, "none", "text"] {
                        let words = [name, key, min, max].into_iter().chain(limit.iter().copied());
                        let command = Command::plain(words.map(Bytes::from));
                        if let Err(why) = pair.check(&command) {
                            panic!("{why}");
                        }
                    }
                }
            }
        }
    }
}
