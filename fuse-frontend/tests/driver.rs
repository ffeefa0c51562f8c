//! The driver over a scripted machine, without a kernel: order, timers, backpressure.

#[cfg(test)]
mod support;

use std::sync::Arc;
use std::time::Duration;

use dbmount::machine::Clock;
use dbmount_engine::op::OpenFlags;
use dbmount_engine::{Caller, Errno, Ino, Request, Response};
use support::{Memory, driver_of};

/// Longer than anything here takes, so that a lost wake-up fails a test instead of hanging it.
const LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
fn create(name: &str) -> Request {
    Request::Create {
        parent: Ino::ROOT,
        name: name.into(),
        perm: 0o644,
        flags: OpenFlags::default(),
        caller: Caller::default(),
    }
}

#[test]
fn a_request_is_answered_before_the_call_returns() {
    let clock = Clock::start();
    let driver = driver_of(Memory::new(clock.now()), clock);
    let answer = driver.call(Request::GetAttr { ino: Ino::ROOT });
    let answer = answer.try_recv().expect("no other thread is needed");
    assert!(matches!(answer, Ok(Response::Attr(..))), "{answer:?}");
}

#[test]
fn a_timer_wakes_without_any_other_input() {
    let clock = Clock::start();
    let driver = driver_of(Memory::new(clock.now()), clock);
    let timer = driver.spawn_timer().unwrap();
    for _ in 0..3 {
        let name = "user.test.sleep".into();
        let answer = driver.call(Request::GetXattr { ino: Ino::ROOT, name });
        assert_eq!(answer.recv_timeout(LIMIT).unwrap(), Ok(Response::Xattr("slept".into())));
    }
    driver.shutdown();
    timer.join().unwrap();
}

#[test]
fn requests_beyond_the_credit_wait_and_are_all_answered() {
    let clock = Clock::start();
    let mut machine = Memory::new(clock.now());
    machine.max_ops = 2;
    let driver = driver_of(machine, clock);
    let timer = driver.spawn_timer().unwrap();
    let sleep = || Request::GetXattr { ino: Ino::ROOT, name: "user.test.sleep".into() };
    let answers: Vec<_> = (0..7).map(|_| driver.call(sleep())).collect();
    for answer in answers {
        assert!(answer.recv_timeout(LIMIT).unwrap().is_ok());
    }
    driver.shutdown();
    timer.join().unwrap();
}

#[test]
fn threads_share_one_driver_and_lose_nothing() {
    const EACH: usize = 500;
    let clock = Clock::start();
    let driver = driver_of(Memory::new(clock.now()), clock);
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let driver = Arc::clone(&driver);
            std::thread::spawn(move || {
                for number in 0..EACH {
                    // Another thread may execute the batch and answer: wait for it.
                    let answer = driver.call(create(&format!("{worker}-{number}")));
                    assert!(answer.recv_timeout(LIMIT).unwrap().is_ok());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let listing = Request::ReadDir {
        ino: Ino::ROOT,
        fh: dbmount_engine::Fh(7),
        offset: 0,
        budget: u32::MAX,
        plus: false,
    };
    match driver.call(listing).recv_timeout(LIMIT).unwrap() {
        Ok(Response::Dir(entries)) => assert_eq!(entries.len(), 4 * EACH + 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_pending_at_the_end_is_answered_with_an_error() {
    let clock = Clock::start();
    let driver = driver_of(Memory::new(clock.now()), clock);
    // No timer runs, so nobody wakes it.
    let name = "user.test.sleep".into();
    let answer = driver.call(Request::GetXattr { ino: Ino::ROOT, name });
    driver.shutdown();
    assert_eq!(answer.recv_timeout(LIMIT).unwrap(), Err(Errno::EIO));
}
