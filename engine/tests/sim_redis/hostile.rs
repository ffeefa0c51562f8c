//! Arguments that make no sense: the simulated server answers, and does not panic.

use bytes::Bytes;
use dbmount_engine::backend::redis::Command;
use dbmount_engine::keys::scripts;
use dbmount_engine::sim::redis::{ClientId, Server, Settings};
use dbmount_engine::{Mono, Now, Wall};
use proptest::prelude::*;
use proptest::sample::select;

use crate::compare::runner;

const WORDS: &[&str] = &[
    "a",
    "b",
    "h",
    "l",
    "s",
    "z",
    "x",
    "",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
    "18446744073709551615",
    "1048576",
    "1e308",
    "-inf",
    "nan",
    "*",
    "-",
    "+",
    "(1-1",
    "1-1",
    "5-*",
    "NX",
    "XX",
    "EX",
    "PXAT",
    "GET",
    "COUNT",
    "MATCH",
    "REV",
    "WITHSCORES",
    "REPLACE",
    "DB",
    "ON",
    "BCAST",
    "PREFIX",
    "[",
    "s",
    "f",
    "w",
    "r",
    "free",
    "is",
    "room",
    "void",
    "vacant",
    "has",
    "make",
    "record",
    "remove",
    "move",
    "length",
    "tree",
    "patch",
    ";",
    "touch",
    "mark",
    "unmark",
    "xset",
    "xdel",
    "N",
    "L",
    "H",
    "D",
    "V",
    "f 644 0 0 1 2 3 0",
    "l 777 0 0 1 2 3 0 t",
];

const NAMES: &[&str] = &[
    "append",
    "client tracking",
    "client setname",
    "config get",
    "config set",
    "copy",
    "decrby",
    "del",
    "expire",
    "expireat",
    "get",
    "getrange",
    "hdel",
    "hello",
    "hincrby",
    "hscan",
    "hset",
    "hset h",
    "incrby",
    "info",
    "keys",
    "lindex",
    "lpop",
    "lpush",
    "lrange",
    "lset",
    "mget",
    "mset",
    "object encoding",
    "pexpire",
    "pexpireat",
    "pttl",
    "ttl",
    "rename",
    "rpop",
    "rpush l",
    "sadd",
    "sadd s",
    "scan",
    "select",
    "set",
    "setrange",
    "srem",
    "sscan",
    "subscribe",
    "unsubscribe",
    "publish",
    "wait",
    "xadd",
    "xadd x",
    "xdel",
    "xrange",
    "xrevrange",
    "zadd",
    "zadd z",
    "zrange",
    "zrem",
    "zscan",
    "zscore",
    "flushall",
    "script load",
    "nonsense",
    "",
];

fn words(most: usize) -> impl Strategy<Value = Vec<Bytes>> {
    let word = prop_oneof![
        9 => select(WORDS).prop_map(|word| Bytes::from_static(word.as_bytes())),
        1 => prop::collection::vec(any::<u8>(), 0..70).prop_map(Bytes::from),
    ];
    prop::collection::vec(word, 0..most)
}

fn command() -> impl Strategy<Value = Command> {
    let plain = (select(NAMES), words(6)).prop_map(|(name, args)| {
        let name = name.split(' ').map(|word| Bytes::from_static(word.as_bytes()));
        Command::plain(name.chain(args))
    });
    let script =
        (select(&scripts::ALL[..]), words(8), words(24)).prop_map(|(script, keys, args)| {
            Command::Script { script, keys: keys.into(), args: args.into() }
        });
    prop_oneof![2 => plain, 1 => script]
}

#[test]
fn nothing_panics() {
    let step = (command(), select(&[0, 1, 1_000_000_000, i64::MAX, i64::MIN, -1][..]), 0..3_u64);
    let outcome = runner(3000).run(&prop::collection::vec(step, 1..40), |steps| {
        let settings = Settings { proto_max_bulk_len: 1 << 20, maxmemory: 64 << 20, databases: 2 };
        let mut server = Server::with_settings(Now::default(), settings);
        for (command, wall, client) in steps {
            let now = Now { mono: Mono(wall as u64), wall: Wall(wall) };
            server.execute(now, ClientId(client), &command);
            if wall == 1 {
                server.tick(now);
                server.take_pushes(ClientId(client));
            } else if wall == -1 {
                server.disconnect(ClientId(client));
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
