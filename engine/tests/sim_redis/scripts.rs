//! The Lua scripts on the real server against their twins on the simulated one: over random
//! keyspaces, with the reply, the pushes and the whole keyspace compared after each call.

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Reply, Script};
use dbmount_engine::keys::scripts;
use dbmount_engine::sim::redis::{ClientId, twin};
use proptest::prelude::*;

use crate::compare::{Pair, now, runner};

/// Every key there is. Scripts of the engine name the first, an empty session, or `SESSION`.
const KEYS: [&str; 14] =
    ["", "a", "a.b", "c", "c.x", ".s1", ".s2", ".x1", ".x2", ".o1", ".o2", "d", "d.b", ".sess"];
const FULL: &[i64] = &[2, 3, 4, 5, 12, 13, 0, 3];
const BARE: &[i64] = &[2, 4, 12, 0, 2];
const SIDE: &[i64] = &[6, 7, 0, 6];
const XATTRS: &[i64] = &[0, 8, 9];
const ORPHAN: &[i64] = &[0, 10, 11];
const DIRS: &[i64] = &[0, 6, 7];

const FIELDS: &[&str] = &["b", "", "x", "b"];
const NAMES: &[&str] = &["a.b", "c", "/", "n", "a", "a.x"];
const RECORDS: &[&str] = &[
    "f 644 0 0 1 2 3 0",
    "d 755 1 1 1 2 3 0",
    "l 777 0 0 1 2 3 0 to/a place",
    "p 600 0 0 1 2 3 8",
    "",
    "f 1 2 3 4 5 6",
    "l 1 2 3 4 5 6 7",
    "x",
    " y",
    "f\t644 0",
];

/// What fills the keyspace.
const SETUP: &[&str] = &[
    "SET a {v}",
    "SET a.b {v}",
    "SET c {v}",
    "SET c.x {v}",
    "SET d {v}",
    "SET d.b {v}",
    "HSET a b {v}",
    "HSET a b {v} x {v}",
    "HSET a  {v}",
    "HSET c x {v}",
    "HSET d b {v}",
    "RPUSH c {v} {v}",
    "SADD c {v} {v} {v}",
    "SADD a.b 3 1 2",
    "ZADD a.b 1 {v} 1.5 {v}",
    "XADD c * {v} {v}",
    "XADD d 1-1 {v} {v} {v} {v}",
    "DEL a",
    "DEL c",
    "DEL a.b",
    "HSET .s1 a.b {r}",
    "HSET .s1 / {r}",
    "HSET .s1 c {r} n {r}",
    "HSET .s2 a.x {r} / {r}",
    "HSET .s2 a {r} a.b {r}",
    "HSET .x1 user.k {v}",
    "HSET .x2 user.k {v} user.l {v}",
    "SET .o1 {v}",
    "SET .s1 wrong",
    "SET .x1 wrong",
    "HSET .s1 /v 41",
    "PEXPIRE a 5000000",
    "PEXPIRE a.b 5000000",
    "PEXPIRE c 5000000",
    "PEXPIRE d 5000000",
    "PERSIST a.b",
    "CONFIG SET maxmemory 1",
    "CONFIG SET maxmemory 0",
    "CONFIG SET maxmemory 0",
    "BIG",
];

/// Random choices, in turn.
struct Choices<'a> {
    seeds: &'a [u32],
    at: usize,
}

impl Choices<'_> {
    fn next(&mut self) -> u32 {
        // Past the end everything is the first choice, which shrinks well.
        let seed = self.seeds.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        seed
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    fn index(&mut self, of: &[i64]) -> String {
        of[self.below(of.len())].to_string()
    }

    fn word(&mut self, of: &[&str]) -> String {
        of[self.below(of.len())].to_owned()
    }

    fn value(&mut self) -> Bytes {
        const WORDS: [&[u8]; 8] =
            [b"", b"v", b"hello", b"17", b"a\\b\nc d", b"\x00\xff\n", b"\xc3\xa9", b"zz"];
        const LENGTHS: [usize; 4] = [45, 65, 300, 70_000];
        let n = self.below(WORDS.len() * 2 + LENGTHS.len());
        match n.checked_sub(WORDS.len() * 2) {
            Some(long) => vec![b'x'; LENGTHS[long]].into(),
            None => Bytes::from_static(WORDS[n % WORDS.len()]),
        }
    }

    fn offset(&mut self) -> String {
        ["0", "1", "3", "5", "70", "300", "69999"][self.below(7)].into()
    }

    fn place(&mut self) -> Vec<Bytes> {
        let (full, bare) = (self.index(FULL), self.index(BARE));
        vec![full.into(), bare.into(), self.word(FIELDS).into()]
    }

    /// The pairs of keys that tree renames use.
    fn pairs(&mut self) -> Vec<Bytes> {
        let (first, last) = [(2, 3), (2, 5), (4, 5), (12, 13), (4, 3)][self.below(5)];
        vec![first.to_string().into(), last.to_string().into()]
    }
}

fn setup(c: &mut Choices<'_>) -> Command {
    let line = SETUP[c.below(SETUP.len())];
    if line == "BIG" {
        let fields = (0..270).flat_map(|n| [format!("f{n}"), format!("{n}")]);
        return Command::plain(["HSET".into(), "d".into()].into_iter().chain(fields));
    }
    Command::plain(line.split(' ').map(|word| match word {
        "{v}" => c.value(),
        "{r}" => c.word(RECORDS).into(),
        // A time as an id would differ.
        "*" => format!("{}-*", 5 + c.below(3)).into(),
        literal => Bytes::copy_from_slice(literal.as_bytes()),
    }))
}

fn script(script: &'static Script, keys: Vec<Bytes>, args: Vec<Bytes>) -> Command {
    Command::Script { script, keys: keys.into(), args: args.into() }
}

/// Two or three keys; the reserved prefix alone stands for none.
fn few_keys(c: &mut Choices<'_>, third: &[&str]) -> Vec<Bytes> {
    let mut keys = vec![
        c.word(&["a.b", "a", "c", "d", "", ".dbmount:", "c.x"]).into(),
        c.word(&["a", "c", "d", "", ".dbmount:", "a"]).into(),
    ];
    if !third.is_empty() {
        keys.push(c.word(third).into());
    }
    keys
}

fn stat(c: &mut Choices<'_>) -> Command {
    let mut keys: Vec<Bytes> = KEYS.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    keys[0] = c.word(&[".s1", ".s2"]).into();
    let mut args: Vec<Bytes> = Vec::new();
    for _ in 0..=c.below(3) {
        match c.below(5) {
            0 | 1 => {
                args.extend(["N".into(), c.word(NAMES).into()]);
                args.extend(c.place());
                args.push(c.index(DIRS).into());
            }
            2 => args.extend([
                "L".into(),
                c.word(NAMES).into(),
                "a".into(),
                c.index(&FULL[..6]).into(),
            ]),
            3 => args.extend([
                "H".into(),
                "a".into(),
                c.index(&FULL[..6]).into(),
                "0".into(),
                "1000".into(),
            ]),
            _ if c.below(2) == 0 => args.extend(["D".into(), c.index(DIRS).into()]),
            _ => args.extend(["V".into(), c.index(&[6, 7]).into()]),
        }
    }
    script(&scripts::STAT, keys, args)
}

fn read(c: &mut Choices<'_>) -> Command {
    let keys = few_keys(c, &[]);
    let args = vec![c.word(FIELDS).into(), c.offset().into(), c.offset().into()];
    script(&scripts::READ, keys, args)
}

fn write(c: &mut Choices<'_>) -> Command {
    let keys = few_keys(c, &[".s1", ".s2", ""]);
    let mut args: Vec<Bytes> = vec![c.word(FIELDS).into(), c.word(NAMES).into()];
    args.extend([c.word(&["w", "r"]).into(), c.word(&["s", "f"]).into(), "99".into()]);
    args.push(c.word(&["1000000", "1000000", "100", "3000000"]).into());
    for _ in 0..c.below(4) {
        args.extend([c.offset().into(), c.value()]);
    }
    script(&scripts::WRITE, keys, args)
}

fn stage(c: &mut Choices<'_>) -> Command {
    let mut keys: Vec<Bytes> = vec![c.word(&[".st1", ".st2"]).into()];
    keys.extend(few_keys(c, &[]));
    let mut args: Vec<Bytes> = vec![c.word(FIELDS).into(), c.word(&["0", "1"]).into()];
    args.extend([c.word(&["0", "3", "200"]).into(), "9000000".into()]);
    script(&scripts::STAGE, keys, args)
}

fn publish(c: &mut Choices<'_>) -> Command {
    // Strings of the keyspace stand for stages too, so that there is something to publish.
    let mut keys: Vec<Bytes> = vec![c.word(&[".st1", ".st2", "a", "d"]).into()];
    keys.extend(few_keys(c, &[".s1", ".s2", ""]));
    let args =
        vec![c.word(FIELDS).into(), c.word(NAMES).into(), c.word(&["s", "f"]).into(), "99".into()];
    script(&scripts::PUBLISH, keys, args)
}

fn unmake(c: &mut Choices<'_>) -> Command {
    let keys = vec![c.word(&["a", "d", "a.b", ".st1", "none"]).into()];
    script(&scripts::UNMAKE, keys, vec![c.offset().into(), c.offset().into()])
}

fn xattr(c: &mut Choices<'_>) -> Command {
    let keys = few_keys(c, &[".x1", ".x2", ""]);
    let mut args: Vec<Bytes> = vec![c.word(FIELDS).into()];
    for _ in 0..c.below(4) {
        let made = ["user.redis.type", "user.redis.ttl", "user.redis.encoding", "user.redis.sha1"];
        args.push(c.word(&[made[0], made[1], made[2], made[3], "user.k", "user.none"]).into());
    }
    script(&scripts::XATTR, keys, args)
}

fn retree(c: &mut Choices<'_>) -> Command {
    let names = ["a", "c", "d", "a.b", "c.x", "e", "f"];
    let keys = (0..=c.below(3)).flat_map(|_| [c.word(&names).into(), c.word(&names).into()]);
    let keys = keys.collect();
    script(&scripts::RETREE, keys, vec![c.word(&["0", "1", "3"]).into(), "4096".into()])
}

fn probe(c: &mut Choices<'_>) -> Command {
    script(
        &scripts::PROBE,
        vec![c.word(&["nothing", "a"]).into()],
        vec![c.word(&["read", "write"]).into()],
    )
}

fn commit(c: &mut Choices<'_>) -> Command {
    let mut keys: Vec<Bytes> = KEYS.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    if c.below(3) == 0 {
        keys[0] = ".sess".into();
    }
    let mut args: Vec<Bytes> = vec![
        c.word(&["1", "2"]).into(),
        c.word(&["7", "8"]).into(),
        "9000000".into(),
        "4096".into(),
    ];
    for _ in 0..=c.below(2) {
        step(c, &mut args, true);
    }
    for _ in 0..c.below(5) {
        step(c, &mut args, false);
    }
    let which = if c.below(2) == 0 { &scripts::COMMIT } else { &scripts::COMMIT_FREEING };
    script(which, keys, args)
}

/// Adds one step of a plan.
fn step(c: &mut Choices<'_>, args: &mut Vec<Bytes>, checks: bool) {
    const CHECKS: &[&str] = &["free", "is", "room", "void", "vacant", "has"];
    const CHANGES: &[&str] = &[
        "make", "record", "remove", "move", "move", "length", "tree", "patch", "touch", "mark",
        "unmark", "xset", "xdel",
    ];
    // Mostly changes: a check that fails ends the plan.
    let words = if checks && c.below(3) == 0 { CHECKS } else { CHANGES };
    let word = c.word(words);
    args.push(word.clone().into());
    match word.as_str() {
        "free" | "is" => {
            args.extend(c.place());
            args.extend([c.index(SIDE).into(), c.word(NAMES).into()]);
            args.push(
                if word == "is" { c.word(&["v", "c", "l", "p", ""]) } else { c.index(DIRS) }.into(),
            );
        }
        "room" => {
            args.extend(c.place());
            args.push(c.word(&["s", "f"]).into());
        }
        "void" => args.push(c.index(&[6, 7]).into()),
        "vacant" => {
            args.extend(c.pairs());
            args.push(c.index(&[0, 3, 5]).into());
        }
        "has" => args.extend([
            c.index(&[8, 9]).into(),
            c.word(&["user.k", "none"]).into(),
            c.word(&["1", "0"]).into(),
        ]),
        "make" => {
            args.extend(c.place());
            args.extend(
                [c.word(&["s", "f"]), c.index(SIDE), c.word(NAMES), c.word(RECORDS)]
                    .map(Bytes::from),
            );
        }
        "record" => args.extend([c.index(SIDE), c.word(NAMES), c.word(RECORDS)].map(Bytes::from)),
        "remove" => {
            args.extend(c.place());
            args.extend(
                [c.index(SIDE), c.word(NAMES), c.index(XATTRS), c.index(ORPHAN), "800000".into()]
                    .map(Bytes::from),
            );
        }
        "move" => {
            args.extend(c.place());
            args.extend([c.index(SIDE), c.word(NAMES), c.index(XATTRS)].map(Bytes::from));
            args.extend(c.place());
            args.extend([c.index(SIDE), c.word(NAMES), c.index(&[8, 9, 9])].map(Bytes::from));
            args.extend([c.word(&["s", "f"]), c.index(ORPHAN), "800000".into()].map(Bytes::from));
        }
        "length" => {
            args.extend(c.place());
            args.push(c.offset().into());
        }
        "tree" => {
            args.extend(c.pairs());
            args.push(c.index(&[0, 2, 4]).into());
        }
        "patch" => {
            args.extend([c.index(SIDE), c.word(NAMES), c.word(RECORDS)].map(Bytes::from));
            for _ in 0..c.below(3) {
                args.extend(
                    [c.word(&["1", "2", "5", "8", "9"]), c.word(&["7", "l", "600"])]
                        .map(Bytes::from),
                );
            }
            args.push(";".into());
        }
        "touch" => args.extend([c.index(SIDE), "77".into()].map(Bytes::from)),
        "mark" => {
            args.extend([c.index(SIDE), c.word(RECORDS), c.index(&[0, 2, 4])].map(Bytes::from))
        }
        "unmark" => args.extend([c.index(&[6, 7]), c.index(XATTRS)].map(Bytes::from)),
        "xset" => args.extend(
            [c.index(&[8, 9]), c.word(&["user.k", "user.m"]), c.word(&["1", "two"])]
                .map(Bytes::from),
        ),
        _ => args.extend([c.index(&[8, 9]), c.word(&["user.k", "none"])].map(Bytes::from)),
    }
}

/// The same reply whatever the order in which a server tells the fields of a large hash.
fn normal(command: &Command, reply: Reply) -> Reply {
    let Command::Script { script, args, .. } = command else { return reply };
    let Reply::Array(mut items) = reply else { return reply };
    match script.name {
        "stat" => {
            for answer in &mut items {
                let Reply::Array(parts) = answer else { continue };
                let head = match parts.first().and_then(Reply::as_bytes) {
                    Some(b"hash") => 3,
                    Some(b"0") => 2,
                    _ => continue,
                };
                let mut fields: Vec<Vec<Reply>> =
                    parts[head..].chunks(4).map(<[Reply]>::to_vec).collect();
                fields.sort_by_key(|field| format!("{field:?}"));
                parts.truncate(head);
                parts.extend(fields.concat());
            }
        }
        "xattr" if args.len() == 1 => items.sort_by_key(|name| format!("{name:?}")),
        _ => {}
    }
    Reply::Array(items)
}

/// Equal but for the moment at which a lifetime was asked for, and for the words in which Lua
/// complains about arguments it was not made for.
fn alike(sim: &Reply, real: &Reply) -> bool {
    let seconds = |reply: &Reply| {
        let text = std::str::from_utf8(reply.as_bytes()?).ok()?;
        text.contains('.').then(|| text.parse::<f64>().ok()).flatten()
    };
    match (sim, real) {
        (Reply::Int(a), Reply::Int(b)) if *a > 500_000 => (a - b).abs() < 5000,
        (Reply::Bulk(_), Reply::Bulk(_)) if sim != real => {
            seconds(sim).zip(seconds(real)).is_some_and(|(a, b)| (a - b).abs() < 5.0)
        }
        (Reply::Array(a), Reply::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (Reply::Error(a), Reply::Error(b)) if a.starts_with("ERR user_script: ") => {
            b.starts_with("ERR ")
        }
        (Reply::Error(a), Reply::Error(b)) => b
            .strip_prefix(a.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(" script: ")),
        _ => sim == real,
    }
}

fn compare(build: fn(&mut Choices<'_>) -> Command, cases: u32) {
    let pair = std::cell::RefCell::new(Pair::start(3));
    let step = (0..4_u8, prop::collection::vec(any::<u32>(), 0..60));
    let outcome = runner(cases).run(&prop::collection::vec(step, 1..24), |steps| {
        let mut pair = pair.borrow_mut();
        pair.reset();
        let mut listener = pair.server.connect(3);
        let track = Command::plain(["CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP"]);
        listener.execute(&track);
        pair.sim.execute(now(), ClientId(2), &track);
        let mut history = Vec::new();
        for (kind, seeds) in steps {
            let mut choices = Choices { seeds: &seeds, at: 0 };
            // Three of four fill the keyspace.
            let command = if kind < 3 { setup(&mut choices) } else { build(&mut choices) };
            history.push(command.clone());
            let fail = |what: String| TestCaseError::fail(format!("{what}\nafter {history:#?}"));
            if kind < 3 {
                pair.check(&command).map_err(fail)?;
            } else {
                let (sim, real) = (pair.on_sim(&command), pair.on_real(&command));
                pair.compared += 1;
                let (sim, real) = (normal(&command, sim), normal(&command, real));
                if !alike(&sim, &real) {
                    return Err(fail(format!(
                        "{command:?}\n  simulated: {sim:?}\n  real:      {real:?}"
                    )));
                }
            }
            let (sim, real) = (pair.sim.take_pushes(ClientId(2)), listener.take_pushes());
            if sim != real {
                return Err(fail(format!("pushes\n  simulated: {sim:?}\n  real:      {real:?}")));
            }
            if kind == 3 {
                pair.check_keyspace().map_err(fail)?;
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn stat_script() {
    compare(stat, 400);
}

#[test]
fn read_script() {
    compare(read, 200);
}

#[test]
fn write_script() {
    compare(write, 400);
}

#[test]
fn stage_script() {
    compare(stage, 200);
}

#[test]
fn publish_script() {
    compare(publish, 300);
}

#[test]
fn unmake_script() {
    compare(unmake, 300);
}

#[test]
fn xattr_script() {
    compare(xattr, 300);
}

#[test]
fn retree_script() {
    compare(retree, 300);
}

#[test]
fn probe_script() {
    compare(probe, 50);
}

#[test]
fn commit_script() {
    compare(commit, 1500);
}

#[test]
fn every_script_has_a_twin() {
    for script in scripts::ALL {
        assert!(twin(script.name).is_some(), "{}", script.name);
    }
}
