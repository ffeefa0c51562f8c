//! Generated sequences of plain commands.

use bytes::Bytes;
use dbmount_engine::backend::redis::Command;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compare::{Pair, runner};

/// Commands with places to be filled: `k` a key, `v` a value, `f` a field, `n` a number, `i` an
/// index, `s` a score, `d` a stream id, `b` a bound of a stream interval, `p` a pattern, `t` a
/// lifetime, `c` a count, `y` a type, `w` any word.
const STRINGS: &[&str] = &[
    "GET {k}",
    "SET {k} {v}",
    "SET {k} {v}",
    "SET {k} {n}",
    "SET {k} {v} NX",
    "SET {k} {v} XX",
    "SET {k} {v} GET",
    "SET {k} {v} NX GET",
    "SET {k} {v} KEEPTTL",
    "SET {k} {v} EX {t}",
    "SET {k} {v} px {t}",
    "SET {k} {v} EX {n}",
    "SET {k} {v} {w}",
    "SET {k} {v} XX NX",
    "SET {k} {v} EX",
    "SET {k} {v} KEEPTTL EX {t}",
    "SET {k} {v} PXAT {n}",
    "SETNX {k} {v}",
    "GETDEL {k}",
    "GETRANGE {k} {i} {i}",
    "GETRANGE {k} {n} {n}",
    "SETRANGE {k} {i} {v}",
    "SETRANGE {k} {n} {v}",
    "STRLEN {k}",
    "APPEND {k} {v}",
    "INCR {k}",
    "DECR {k}",
    "INCRBY {k} {n}",
    "DECRBY {k} {n}",
    "MGET {k} {k} {k}",
    "MSET {k} {v} {k} {v}",
    "MSET {k} {v} {k}",
    "SETRANGE {k} 2097150 {v}",
    "GET",
    "GET {k} {k}",
];
const HASHES: &[&str] = &[
    "HSET {k} {f} {v}",
    "HSET {k} {f} {v} {f} {v}",
    "HSET {k} {f} {n} {f} {v} {f} {v}",
    "HSET {k} {f} {v} {f}",
    "HMSET {k} {f} {v}",
    "HMSET {k} {f} {v} {f}",
    "HSETNX {k} {f} {v}",
    "HGET {k} {f}",
    "HMGET {k} {f} {f} {f}",
    "HDEL {k} {f}",
    "HDEL {k} {f} {f} {f}",
    "HEXISTS {k} {f}",
    "HLEN {k}",
    "HSTRLEN {k} {f}",
    "HKEYS {k}",
    "HVALS {k}",
    "HGETALL {k}",
    "HINCRBY {k} {f} {n}",
    "HINCRBY {k} {f} 1",
    "HSCAN {k} 0",
    "HSCAN {k} 0 MATCH {p} COUNT {c}",
    "HSCAN {k} {w}",
    "HSCAN {k} 0 COUNT {n}",
    "HSCAN {k} 0 TYPE hash",
    "HSET {k} {f}",
    "hget {k}",
];
const COLLECTIONS: &[&str] = &[
    "LPUSH {k} {v}",
    "RPUSH {k} {v} {v} {n}",
    "LPUSHX {k} {v}",
    "RPUSHX {k} {v}",
    "LRANGE {k} {i} {i}",
    "LRANGE {k} {n} {n}",
    "LLEN {k}",
    "LPOP {k}",
    "RPOP {k}",
    "LPOP {k} {i}",
    "RPOP {k} {n}",
    "LPOP {k} 1 1",
    "LSET {k} {i} {v}",
    "LSET {k} {n} {v}",
    "LINDEX {k} {i}",
    "LINDEX {k} {n}",
    "SADD {k} {n}",
    "SADD {k} {n} {n} {n}",
    "SADD {k} {v} {f}",
    "SREM {k} {n} {v}",
    "SMEMBERS {k}",
    "SISMEMBER {k} {n}",
    "SCARD {k}",
    "SSCAN {k} 0 COUNT {c}",
    "SSCAN {k} 0 MATCH {p}",
    "SSCAN {k} {w}",
    "ZADD {k} {s} {f}",
    "ZADD {k} {s} {f} {s} {v}",
    "ZADD {k} {w} {s} {f}",
    "ZADD {k} NX {s} {f}",
    "ZADD {k} XX CH {s} {f}",
    "ZADD {k} GT CH {s} {f} {s} {f}",
    "ZADD {k} LT {s} {f}",
    "ZADD {k} NX XX {s} {f}",
    "ZADD {k} NX GT {s} {f}",
    "ZADD {k} {s}",
    "ZADD {k} {s} {f} {s}",
    "ZREM {k} {f} {f}",
    "ZRANGE {k} {i} {i}",
    "ZRANGE {k} 0 -1 WITHSCORES",
    "ZRANGE {k} {i} {i} REV WITHSCORES",
    "ZRANGE {k} {n} {n}",
    "ZRANGE {k} 0 -1 {w}",
    "ZCARD {k}",
    "ZSCORE {k} {f}",
    "ZSCAN {k} 0 MATCH {p} COUNT {c}",
    "XADD {k} {d} {f} {v}",
    "XADD {k} {d} {f} {v} {f} {n}",
    "XADD {k} {d} {f}",
    "XADD {k} {d} {f} {v} {f}",
    "XRANGE {k} - +",
    "XRANGE {k} {b} {b}",
    "XRANGE {k} {b} {b} COUNT {i}",
    "XREVRANGE {k} {b} {b}",
    "XRANGE {k} - + COUNT",
    "XRANGE {k} - + {w} 1",
    "XLEN {k}",
    "XDEL {k} {d} {d}",
];
const KEYS: &[&str] = &[
    "EXISTS {k} {k} {k}",
    "DEL {k}",
    "DEL {k} {k}",
    "UNLINK {k}",
    "TYPE {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k} DB 1",
    "COPY {k} {k} DB {n} REPLACE",
    "COPY {k} {k} {w}",
    "PEXPIRE {k} {t}",
    "EXPIRE {k} {t}",
    "EXPIRE {k} {n}",
    "EXPIRE {k} {t} NX",
    "EXPIRE {k} {t} XX",
    "EXPIRE {k} {t} GT",
    "EXPIRE {k} {t} LT",
    "EXPIRE {k} {t} NX GT",
    "EXPIRE {k} {t} GT LT",
    "EXPIRE {k} {t} {w}",
    "PEXPIREAT {k} {n}",
    "EXPIREAT {k} {n}",
    "PERSIST {k}",
    "PTTL {k}",
    "TTL {k}",
    "PEXPIRETIME {k}",
    "OBJECT ENCODING {k}",
    "SCAN 0",
    "SCAN 0 COUNT {c}",
    "SCAN 0 MATCH {p}",
    "SCAN 0 TYPE {y}",
    "SCAN 0 MATCH {p} COUNT {c} TYPE {y}",
    "SCAN {w}",
    "SCAN 0 COUNT {n}",
    "SCAN 0 {w}",
    "SCAN 0 COUNT",
    "KEYS {p}",
    "DBSIZE",
    "FLUSHDB",
    "FLUSHDB {w}",
    "FLUSHALL ASYNC",
    "TOUCH {k} {k}",
    "SELECT {n}",
    "SELECT 0",
    "SELECT 1",
];
const ADMIN: &[&str] = &[
    "PING",
    "PING {v}",
    "PING {v} {v}",
    "ECHO {v}",
    "ECHO",
    "CONFIG GET maxmemory",
    "CONFIG GET maxmemory appendonly",
    "CONFIG GET save",
    "CONFIG GET databases",
    "CONFIG GET nothing",
    "CONFIG GET appendf[s]*",
    "CONFIG GET proto-max-bulk-len",
    "CONFIG GET MAXMEMORY-POLICY",
    "CONFIG GET",
    "CONFIG",
    "CONFIG {w}",
    "CLIENT SETNAME {v}",
    "CLIENT GETNAME",
    "CLIENT {w}",
    "CLIENT",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT {w}",
    "COMMAND COUNT",
    "ACL WHOAMI",
    "WAIT 0 0",
    "WAIT {w} 0",
    "WAIT 0 {w}",
    "SCRIPT LOAD return",
    "SCRIPT EXISTS {v} 63143b6f8007b98c53ca2149822777b3566f9241",
    "SCRIPT FLUSH",
    "SCRIPT FLUSH {w}",
    "{w}",
    "{w} {v} {v} {v}",
    "{v}",
    "{v} {k}",
    "OBJECT {w} {k}",
    "OBJECT ENCODING",
    "PUBLISH {v} {v}",
    "CONFIG SET maxmemory 1",
    "CONFIG SET maxmemory 0",
    "CONFIG SET maxmemory foo",
    "CONFIG SET maxmemory 1gb",
    "CONFIG SET maxmemory-policy x",
    "CONFIG SET {w} 1",
    "CONFIG SET maxmemory 1 maxmemory-policy",
    "CLIENT TRACKING {w}",
    "CLIENT TRACKING ON PREFIX a",
    "CLIENT TRACKING ON BCAST PREFIX a PREFIX ab",
    "CLIENT TRACKING ON BCAST PREFIX a",
    "CLIENT TRACKING ON BCAST PREFIX aa",
    "CLIENT TRACKING ON BCAST",
    "CLIENT TRACKING OFF",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING ON {w}",
    "HELLO {w}",
    "HELLO 4",
];

fn pick<'a>(words: &[&'a str], seed: u32) -> &'a str {
    words[seed as usize % words.len()]
}

fn value(seed: u32) -> Bytes {
    const WORDS: [&[u8]; 9] =
        [b"", b"a", b"hallo", b"\x00\xff\r\n", b"0123456789", b"-7", b"ab cd", b"\xc3\xa9", b"'\\"];
    const LENGTHS: [usize; 8] = [20, 44, 45, 64, 65, 200, 5000, 70_000];
    let n = seed as usize % (WORDS.len() * 3 + LENGTHS.len());
    match n.checked_sub(WORDS.len() * 3) {
        Some(long) => vec![b'a' + (seed >> 8) as u8 % 26; LENGTHS[long]].into(),
        None => Bytes::from_static(WORDS[n % WORDS.len()]),
    }
}

fn fill(place: &str, seed: u32) -> Bytes {
    let words: &[&str] = match place {
        "{k}" => &["a", "b", "ab", "a:b", "", "h", "\u{0}k"],
        "{v}" => return value(seed),
        "{f}" => {
            if seed % 11 == 10 {
                return value(seed / 11);
            }
            &["f", "g", "", "x.y", "1", "-2", "f2"]
        }
        "{n}" => &[
            "0",
            "1",
            "-1",
            "42",
            "007",
            "-0",
            "+1",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "1.5",
            "",
            " 1",
            "abc",
            "10000",
            "18446744073709551615",
        ],
        "{i}" => &["0", "1", "2", "-1", "-2", "3", "5", "-5", "10", "-10", "100", "1000000"],
        "{s}" => &[
            "0",
            "1",
            "-1",
            "1.5",
            "0.1",
            "inf",
            "-inf",
            "+inf",
            "nan",
            "1e300",
            "-0",
            "x",
            "3",
            "1e5",
            "1e-7",
            "",
            "123456789012345678",
            "Infinity",
        ],
        "{d}" => &[
            "1-1",
            "1-2",
            "2-0",
            "2",
            "3-*",
            "0-0",
            "0-1",
            "0-*",
            "5-*",
            "x",
            "1-x",
            "-",
            "1-1-1",
            "18446744073709551615-18446744073709551615",
            "007-1",
            "10-*",
        ],
        "{b}" => &[
            "-",
            "+",
            "1",
            "2",
            "(1-1",
            "(2",
            "1-2",
            "(x",
            "x",
            "(18446744073709551615-18446744073709551615",
            "(0-0",
            "(-",
        ],
        "{p}" => &[
            "*", "a*", "?", "[a-b]*", "[^a]", "*b", "\\a", "f*", "", "[", "a[", "[b-a]", "*\\",
            "[\\a]", "**b*",
        ],
        // Long enough that nothing expires while the test runs; or in the past.
        "{t}" => &["1000000", "2000000", "-1", "0", "500000"],
        "{c}" => &["1", "2", "10", "1000"],
        "{y}" => &["string", "hash", "HASH", "list", "zset", "nothing"],
        "{w}" => &["foo", "NX", "12x", "", "\u{0}", "é\r\n", "ON", "a b", "-5x", "bcast"],
        literal => return Bytes::copy_from_slice(literal.as_bytes()),
    };
    Bytes::copy_from_slice(pick(words, seed).as_bytes())
}

fn commands(templates: Vec<&'static str>) -> impl Strategy<Value = Command> {
    (select(templates), prop::collection::vec(any::<u32>(), 8)).prop_map(|(template, seeds)| {
        let words = template.split(' ').enumerate();
        Command::plain(words.map(|(at, word)| fill(word, seeds[at % seeds.len()])))
    })
}

fn compare(families: &[&[&'static str]], protocol: u8, cases: u32, length: usize) {
    let pair = std::cell::RefCell::new(Pair::start(protocol));
    let sequences = prop::collection::vec(commands(families.concat()), 1..length);
    let outcome = runner(cases).run(&sequences, |sequence| {
        let mut pair = pair.borrow_mut();
        pair.reset();
        for command in &sequence {
            pair.check(command).map_err(TestCaseError::fail)?;
        }
        for line in ["CONFIG SET maxmemory 0", "SELECT 0"] {
            pair.check(&Command::plain(line.split(' '))).map_err(TestCaseError::fail)?;
        }
        pair.check_keyspace().map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn strings() {
    compare(&[STRINGS], 3, 300, 60);
}

#[test]
fn hashes() {
    compare(&[HASHES], 3, 300, 60);
}

#[test]
fn collections() {
    compare(&[COLLECTIONS], 3, 500, 80);
}

#[test]
fn collections_in_resp2() {
    compare(&[COLLECTIONS, HASHES], 2, 200, 60);
}

#[test]
fn keys_of_every_type() {
    compare(&[KEYS, STRINGS, HASHES, COLLECTIONS, KEYS], 3, 500, 80);
}

#[test]
fn the_server_and_its_errors() {
    compare(&[ADMIN, STRINGS, KEYS], 3, 400, 60);
}

/// Collections over the limits of the compact encodings.
#[test]
fn large_collections() {
    let mut pair = Pair::start(3);
    let check = |pair: &mut Pair, line: String| {
        pair.check(&Command::plain(line.split(' ').map(String::from)))
            .unwrap_or_else(|e| panic!("{e}"));
    };
    for n in 0..600 {
        for line in [
            format!("HSET h f{n} {n}"),
            format!("SADD ints {}", n * 7 - 300),
            format!("SADD words w{n}"),
            format!("ZADD z {} m{n}", n % 50),
            format!("RPUSH l {n}"),
            format!("SET key:{n} {n}"),
        ] {
            check(&mut pair, line);
        }
        if [127, 128, 129, 511, 512, 513].contains(&n) {
            for key in ["h", "ints", "words", "z", "l"] {
                check(&mut pair, format!("OBJECT ENCODING {key}"));
            }
        }
    }
    for line in [
        "HSCAN h 0 COUNT 7",
        "SSCAN ints 0 COUNT 7",
        "SSCAN words 0 COUNT 7",
        "ZSCAN z 0 COUNT 7",
        "SCAN 0 COUNT 3",
        "SCAN 0 MATCH key:1* COUNT 50",
        "ZRANGE z 100 300 REV WITHSCORES",
        "LRANGE l -100 -50",
    ] {
        check(&mut pair, line.into());
    }
    for n in 0..590 {
        check(&mut pair, format!("HDEL h f{n}"));
        check(&mut pair, format!("SREM ints {}", n * 7 - 300));
        check(&mut pair, format!("ZREM z m{n}"));
    }
    pair.check_keyspace().unwrap_or_else(|e| panic!("{e}"));
}
