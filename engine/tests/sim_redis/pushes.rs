//! What clients are told unasked: invalidations and messages.

use dbmount_engine::backend::redis::{Command, Push};
use dbmount_engine::sim::redis::ClientId;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compare::{Pair, SIM, now, runner};

/// What the writer and the two listeners do.
const LINES: &[&str] = &[
    "SET a 1",
    "SET b 1",
    "SET abc 1",
    "SET zz 1",
    "MSET a 1 b 2 zz 3",
    "GET a",
    "DEL a b",
    "DEL nothing",
    "RENAME a b",
    "RENAME a a",
    "RENAMENX b abc",
    "HSET h f v",
    "HDEL h f",
    "HDEL h none",
    "HINCRBY ah n 1",
    "SADD as 1",
    "SADD as 1",
    "SREM as 1",
    "ZADD az 1 m",
    "ZREM az m",
    "XADD ax * f v",
    "LPUSH al 1",
    "LPOP al",
    "APPEND a x",
    "SETRANGE a 3 x",
    "SETRANGE a 0 ",
    "INCR abcd",
    "PEXPIRE a 1000000",
    "PEXPIRE b -1",
    "PERSIST a",
    "EXPIRE a 100000 NX",
    "FLUSHDB",
    "FLUSHALL",
    "SELECT 1",
    "SELECT 0",
    "COPY a b REPLACE",
    "COPY a zz DB 1 REPLACE",
    "SET a 1 GET",
    "SET nothing 1 XX",
    "GETDEL a",
    "HSET a f v",
    "PUBLISH news hello",
];

#[test]
fn invalidations_and_messages() {
    let pair = std::cell::RefCell::new(Pair::start(3));
    let step = (0..3_usize, select(LINES));
    let outcome = runner(300).run(&prop::collection::vec(step, 1..40), |steps| {
        let mut pair = pair.borrow_mut();
        pair.reset();
        let mut listeners = [pair.server.connect(3), pair.server.connect(3)];
        let setup = [
            ["CLIENT TRACKING ON BCAST", "PING"],
            ["CLIENT TRACKING ON BCAST PREFIX a PREFIX b NOLOOP", "SUBSCRIBE news"],
        ];
        for (n, lines) in setup.iter().enumerate() {
            for line in lines {
                let command = Command::plain(line.split(' '));
                pair.sim.execute(now(), ClientId(n as u64 + 2), &command);
                listeners[n].send(&command);
                // A subscription is confirmed by a push, which says nothing here.
                if !line.starts_with("SUBSCRIBE") {
                    listeners[n].receive();
                }
            }
        }
        for (who, line) in steps {
            let command = Command::plain(line.split(' '));
            if who == 0 {
                // Its reply may hold the moment's time as a stream id.
                pair.sim.execute(now(), SIM, &command);
                pair.real.execute(&command);
            } else {
                pair.sim.execute(now(), ClientId(who as u64 + 1), &command);
                listeners[who - 1].execute(&command);
            }
            for (n, listener) in listeners.iter_mut().enumerate() {
                let (sim, real) =
                    (pair.sim.take_pushes(ClientId(n as u64 + 2)), listener.take_pushes());
                prop_assert_eq!(sim, real, "client {} after {}", n, line);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn an_expired_key_is_told_to_everyone() {
    let mut pair = Pair::start(3);
    let track = Command::plain(["CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP"]);
    pair.check(&track).unwrap();
    pair.check(&Command::plain(["SET", "k", "v", "PX", "20"])).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    pair.check(&Command::plain(["GET", "k"])).unwrap();
    let expected = vec![Push::Invalidate(vec!["k".into()])];
    assert_eq!(pair.real.take_pushes(), expected);
    assert_eq!(pair.sim.take_pushes(SIM), expected);

    pair.on_sim(&Command::plain(["SET", "k", "v", "PX", "5"]));
    assert!(pair.sim.next_expiry().is_some());
    let mut later = now();
    later.wall.0 += 1_000_000_000;
    pair.sim.tick(later);
    assert_eq!(pair.sim.take_pushes(SIM), expected);
    assert_eq!(pair.sim.next_expiry(), None);
}
