//! A server that others use as well: several mounts, and programs that know nothing of files.

use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::Wall;
use dbmount_engine::backend::redis::Command;
use dbmount_engine::keys::name::Naming;
use dbmount_engine::keys::{Attrs, Options};
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::harness::{CALLER, Tally, Trouble, Weather};
use dbmount_engine::sim::ops::Executor;
use dbmount_engine::sim::play::{as_one, end, turns};

use crate::check::{Stage, Step, check};
use crate::keyspace::{difference, implied, shown};

fn stage(seed: u64, mounts: usize) -> Stage {
    Stage::new(seed, Weather::BREEZE).shared(mounts)
}

#[test]
fn two_mounts_are_one_filesystem() {
    for seed in 6000..6050 {
        let stage = stage(seed, 2);
        check(&stage, turns(&stage, 120, |_| None), as_one);
    }
}

/// What other programs do to keys that a mount shows, and to others.
fn foreign(random: &mut Random) -> Option<Step> {
    const KEYS: [&[u8]; 20] = [
        b"a",
        b"b",
        b"foo",
        b"a.c",
        b"foo.c",
        b"a:b",
        b"a:a.c",
        b"b:c:d",
        b"a:",
        b"",
        b":",
        b"a.",
        b"app:a",
        b"app:foo",
        b"app:b:c",
        b".git:index",
        b"\xff\xfe",
        b"a%2Fb",
        b"a.b:c",
        b"..",
    ];
    const FIELDS: [&[u8]; 6] = [b"c", b"", b"b.c", b"x/y", b"b", b"self"];
    const VALUES: [&[u8]; 4] = [b"", b"1", b"some text\n", b"\\ and\0"];
    let mut pick = |from: &[&[u8]]| {
        let long = [&b"a:"[..], &[b'K'; 300]].concat();
        match random.next() as usize % (from.len() + 1) {
            n if n < from.len() => Bytes::copy_from_slice(from[n]),
            _ => Bytes::from(long),
        }
    };
    let (key, other, field, value) = (pick(&KEYS), pick(&KEYS), pick(&FIELDS), pick(&VALUES));
    let word = |word: &'static str| Bytes::from_static(word.as_bytes());
    let words = match random.next() % 40 {
        0..=4 => vec![word("SET"), key, value],
        5..=9 => vec![word("HSET"), key, field, value],
        10..=12 => vec![word("DEL"), key],
        13..=14 => vec![word("HDEL"), key, field],
        15..=16 => vec![word("RENAME"), key, other],
        17 => vec![word("LPUSH"), key, value],
        18 => vec![word("SADD"), key, value, field],
        19 => vec![word("ZADD"), key, word("1.5"), value],
        20..=21 => vec![word("PEXPIRE"), key, word("50")],
        22 => vec![word("APPEND"), key, value],
        23 => vec![word("FLUSHDB")],
        24 => return Some(Step::Sleep(Duration::from_millis(100))),
        _ => return None,
    };
    Some(Step::Foreign(Command::plain(words)))
}

/// Every mount shows what the keys imply whenever all has come to rest.
pub(crate) fn as_the_keys(stage: &Stage, steps: &[Step]) -> Option<String> {
    let mut world = stage.world();
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Run(at, op) => {
                let _ = world.fs(*at).run(op, Wall(1_000_000_000 + n as i64));
            }
            Step::Foreign(command) => {
                world.command(command);
            }
            Step::Sleep(time) => world.sleep(*time),
            _ => {
                let weather = world.set_weather(stage.weather.untroubled());
                // Keys go when their time comes, not only when somebody looks.
                world.sleep(Duration::from_micros(1));
                for at in 0..world.mounts() {
                    let should = implied(&mut world, &stage.setups[at].options);
                    let is = match world.fs(at).try_tree() {
                        Ok(tree) => shown(tree),
                        Err((path, errno)) => {
                            return Some(format!("step {n}, mount {at}: {path}: {errno}"));
                        }
                    };
                    world.settle();
                    if let Some(why) = difference(&should, &is) {
                        return Some(format!("step {n}, mount {at}: {why}"));
                    }
                }
                world.set_weather(weather);
            }
        }
    }
    world.set_weather(Weather::CALM);
    end(&mut world)
}

#[test]
fn a_mount_shows_what_the_keys_imply() {
    for seed in 7000..7060 {
        let stage = stage(seed, 1 + seed as usize % 2);
        check(&stage, turns(&stage, 120, foreign), as_the_keys);
    }
}

#[test]
fn a_mount_shows_what_evictions_leave() {
    let tally = Tally::default();
    for seed in 7100..7120 {
        let mut stage = stage(seed, 1 + seed as usize % 2);
        stage.weather = Weather::BREEZE.with(Trouble::Eviction);
        stage.tally = tally.clone();
        check(&stage, turns(&stage, 120, foreign), as_the_keys);
    }
    assert_eq!(tally.missing(&[Trouble::Eviction]), []);
}

#[test]
fn a_mount_shows_what_the_keys_imply_whatever_the_options() {
    for seed in 8000..8030 {
        let mut stage = stage(seed, 1);
        let delimiter = [b':', b'/', b'-', b'a'][seed as usize % 4];
        stage.setups[0].options = Options {
            naming: Naming::new(delimiter).unwrap(),
            prefix: if seed % 3 == 0 { b"app:".to_vec() } else { Vec::new() },
            attrs: if seed % 5 == 0 { Attrs::Session } else { Attrs::Stored },
            allow_delete: seed % 2 == 0,
            uid: CALLER.uid,
            gid: CALLER.gid,
            ..Options::default()
        };
        let steps = turns(&stage, 120, foreign);
        // What is in memory only is not implied by keys.
        let session = stage.setups[0].options.attrs == Attrs::Session;
        let steps = steps.into_iter().filter(|step| !(session && matches!(step, Step::Run(..))));
        check(&stage, steps.collect(), as_the_keys);
    }
}
