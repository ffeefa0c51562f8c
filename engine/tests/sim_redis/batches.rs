//! Batches that are all or nothing, against `MULTI` and `EXEC`.

use dbmount_engine::backend::redis::{Command, Redis, Reply};
use dbmount_engine::keys::scripts;
use dbmount_engine::{Batch, BatchId, Lane, Mode, Mono};
use proptest::prelude::*;
use proptest::sample::select;

use crate::compare::{Pair, SIM, now, runner};

const LINES: &[&str] = &[
    "SET a 1",
    "SET a x",
    "INCR a",
    "HSET a f v",
    "HSET h f v",
    "GET a",
    "DEL a",
    "RENAME a b",
    "RENAME none b",
    "EXPIRE a 100000",
    "PTTL none",
    "GET",
    "NONSENSE a b",
    "CONFIG NONSENSE",
    "DBSIZE",
    "SET k v GET",
];

/// What a transport makes of `MULTI`, the commands and `EXEC`: a reply a command.
pub(crate) fn multi(pair: &mut Pair, commands: &[Command]) -> Vec<Reply> {
    pair.on_real(&Command::plain(["MULTI"]));
    let queued: Vec<Reply> = commands.iter().map(|command| pair.on_real(command)).collect();
    match pair.on_real(&Command::plain(["EXEC"])) {
        Reply::Array(replies) => replies,
        aborted => {
            let own =
                |reply: Reply| if reply.as_error().is_some() { reply } else { aborted.clone() };
            queued.into_iter().map(own).collect()
        }
    }
}

#[test]
fn atomic_batches() {
    let pair = std::cell::RefCell::new(Pair::start(3));
    let batch = prop::collection::vec(prop::option::weighted(0.9, select(LINES)), 1..8);
    let batches = prop::collection::vec((batch, 0..5_u8), 1..8);
    let outcome = runner(300).run(&batches, |batches| {
        let mut pair = pair.borrow_mut();
        pair.reset();
        for (lines, maxmemory) in batches {
            // One in five meets a full server.
            let limit = if maxmemory == 4 { "1" } else { "0" };
            let limit = Command::plain(["CONFIG", "SET", "maxmemory", limit]);
            pair.check(&limit).map_err(TestCaseError::fail)?;
            let command = |line: &Option<&'static str>| match line {
                Some(line) => Command::plain(line.split(' ')),
                None => Command::Script {
                    script: &scripts::READ,
                    keys: ["a".into(), ".dbmount:".into()].into_iter().collect(),
                    args: ["".into(), "0".into(), "9".into()].into_iter().collect(),
                },
            };
            let commands: Vec<Command> = lines.iter().map(command).collect();
            let real = multi(&mut pair, &commands);
            let batch: Batch<Redis> = Batch {
                id: BatchId(1),
                lane: Lane::Meta,
                mode: Mode::Atomic,
                deadline: Mono::NEVER,
                commands,
            };
            let sim = pair.sim.run(now(), SIM, &batch);
            prop_assert_eq!(&sim, &real, "{:?}", batch);
            pair.compared += sim.len() as u64;
        }
        pair.check(&Command::plain(["CONFIG", "SET", "maxmemory", "0"]))
            .map_err(TestCaseError::fail)?;
        pair.check_keyspace().map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The comparison itself: a difference must not go unseen.
#[test]
fn a_difference_is_found() {
    let mut pair = Pair::start(3);
    pair.on_sim(&Command::plain(["SET", "a", "1"]));
    pair.on_real(&Command::plain(["SET", "a", "2"]));
    assert!(pair.check(&Command::plain(["GET", "a"])).is_err());
    assert!(pair.check_keyspace().is_err());
    pair.on_real(&Command::plain(["SET", "a", "1"]));
    assert_eq!(pair.check_keyspace(), Ok(()));
    pair.on_real(&Command::plain(["PEXPIRE", "a", "100000"]));
    assert!(pair.check_keyspace().is_err());
}
