//! Locks and appends of several mounts of one volume.

use std::time::Duration;

use dbmount_engine::lock::{Lock, LockKind, LockMode, LockTable};
use dbmount_engine::op::OpenFlags;
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::harness::{CALLER, Disk, Setup, Weather, World};
use dbmount_engine::{Errno, Fh, Ino, LockOwner, OpId, Request, Response};

use LockMode::{Exclusive, Shared};

/// Some mounts of a volume that have all opened one file.
struct Sharers {
    world: World<Disk>,
    files: Vec<(Ino, Fh)>,
}

const APPEND: OpenFlags =
    OpenFlags { write: true, truncate: false, append: true, exclusive: false };

fn shared(seed: u64, weather: Weather, mounts: usize) -> Sharers {
    shared_with(&Setup::default(), seed, weather, mounts)
}

fn shared_with(setup: &Setup<Disk>, seed: u64, weather: Weather, mounts: usize) -> Sharers {
    let mut world = World::new(seed, weather);
    let mut files = Vec::new();
    for at in 0..mounts {
        world.mount(setup);
        let (parent, name) = (Ino::ROOT, "file".into());
        let request = Request::Create { parent, name, perm: 0o644, flags: APPEND, caller: CALLER };
        match world.request(at, request) {
            Ok(Response::Created(entry, opened)) => files.push((entry.attr.ino, opened.fh)),
            other => panic!("create: {other:?}"),
        }
        world.settle();
    }
    Sharers { world, files }
}

fn record(owner: u64, mode: LockMode, start: u64, end: u64) -> Lock {
    Lock { kind: LockKind::Record, mode, start, end, owner: LockOwner(owner), pid: 7 }
}

fn flock(owner: u64, mode: LockMode) -> Lock {
    Lock { kind: LockKind::Flock, ..record(owner, mode, 0, Lock::END) }
}

impl Sharers {
    fn lock(&mut self, at: usize, lock: Lock) -> Result<Response, Errno> {
        let ino = self.files[at].0;
        self.world.request(at, Request::SetLock { ino, lock, wait: false })
    }

    fn unlock(&mut self, at: usize, lock: Lock) -> Result<Response, Errno> {
        let ino = self.files[at].0;
        self.world.request(at, Request::Unlock { ino, lock })
    }

    fn wait_for(&mut self, at: usize, lock: Lock) -> OpId {
        let ino = self.files[at].0;
        self.world.start(at, Request::SetLock { ino, lock, wait: true })
    }

    fn close(&mut self, at: usize, owner: u64) -> Result<Response, Errno> {
        let (ino, fh) = self.files[at];
        self.world.request(at, Request::Flush { ino, fh, owner: LockOwner(owner) })
    }

    fn append(&mut self, at: usize, text: &str) -> OpId {
        let (ino, fh) = self.files[at];
        // The kernel's idea of the end, which may be an old one.
        let data = text.to_owned().into();
        self.world.start(at, Request::Write { ino, fh, offset: 0, data })
    }

    fn contents(&mut self) -> String {
        let (ino, fh) = self.files[0];
        match self.world.request(0, Request::Read { ino, fh, offset: 0, size: 1 << 20 }) {
            Ok(Response::Data(data)) => String::from_utf8(data.to_vec()).expect("text"),
            other => panic!("read: {other:?}"),
        }
    }
}

/// POSIX fcntl: ENOLCK. What is given up, or makes one of two, goes on.
#[test]
fn there_is_a_bound_on_the_locks_of_a_file() {
    let mut setup = Setup::default();
    setup.config.file_locks = 3;
    let mut it = shared_with(&setup, 1, Weather::CALM, 1);
    for at in [0, 2, 4] {
        assert_eq!(it.lock(0, record(1, Exclusive, at, at + 1)), Ok(Response::Done));
    }
    assert_eq!(it.lock(0, record(1, Exclusive, 6, 7)), Err(Errno::ENOLCK));
    assert_eq!(it.lock(0, record(1, Exclusive, 1, 2)), Ok(Response::Done), "two become one");
    assert_eq!(it.lock(0, record(1, Exclusive, 6, 9)), Ok(Response::Done));
    assert_eq!(it.unlock(0, record(1, Exclusive, 7, 8)), Err(Errno::ENOLCK), "one becomes two");
    assert_eq!(it.unlock(0, record(1, Exclusive, 6, 9)), Ok(Response::Done));
}

#[test]
fn a_lock_of_one_mount_keeps_the_other_out_until_it_is_given_up() {
    let mut it = shared(1, Weather::CALM, 2);
    assert_eq!(it.lock(0, flock(1, Exclusive)), Ok(Response::Done));
    assert_eq!(it.lock(1, flock(2, Shared)), Err(Errno::EAGAIN));
    assert_eq!(
        it.lock(1, record(3, Exclusive, 0, Lock::END)),
        Ok(Response::Done),
        "another family"
    );
    let waiter = it.wait_for(1, flock(2, Shared));
    it.world.settle();
    assert_eq!(it.world.answer(1, waiter), None);
    assert_eq!(it.unlock(0, flock(1, Exclusive)), Ok(Response::Done));
    // The push is all it takes: no time passes.
    it.world.settle();
    assert_eq!(it.world.answer(1, waiter), Some(Ok(Response::Done)));
    assert_eq!(it.lock(0, flock(1, Shared)), Ok(Response::Done), "shared");
    assert_eq!(it.lock(0, flock(1, Exclusive)), Err(Errno::EAGAIN), "upgraded");
}

#[test]
fn a_lock_that_is_asked_for_is_shown() {
    let mut it = shared(2, Weather::CALM, 2);
    assert_eq!(it.lock(0, record(1, Shared, 10, 20)), Ok(Response::Done));
    let ask = |it: &mut Sharers, at: usize, lock| {
        let ino = it.files[at].0;
        it.world.request(at, Request::GetLock { ino, lock })
    };
    let elsewhere = Lock { owner: LockOwner(0), pid: 0, ..record(1, Shared, 10, 20) };
    let wanted = record(2, Exclusive, 0, Lock::END);
    assert_eq!(ask(&mut it, 1, wanted), Ok(Response::Lock(Some(elsewhere))));
    assert_eq!(ask(&mut it, 0, wanted), Ok(Response::Lock(Some(record(1, Shared, 10, 20)))));
    assert_eq!(ask(&mut it, 1, record(2, Exclusive, 0, 10)), Ok(Response::Lock(None)));
    assert_eq!(ask(&mut it, 1, record(2, Shared, 0, 100)), Ok(Response::Lock(None)));
}

#[test]
fn closing_gives_up_the_locks_of_the_process_and_of_no_other() {
    let mut it = shared(3, Weather::CALM, 2);
    assert_eq!(it.lock(0, record(1, Exclusive, 0, 10)), Ok(Response::Done));
    assert_eq!(it.lock(0, record(2, Exclusive, 10, 20)), Ok(Response::Done));
    assert_eq!(it.close(0, 1), Ok(Response::Done));
    assert_eq!(it.lock(1, record(3, Exclusive, 0, 10)), Ok(Response::Done));
    assert_eq!(it.lock(1, record(3, Exclusive, 10, 20)), Err(Errno::EAGAIN));
    let (ino, fh) = it.files[0];
    let release = Request::Release { ino, fh, owner: Some(LockOwner(2)) };
    assert_eq!(it.world.request(0, release), Ok(Response::Done));
    it.world.settle();
    assert_eq!(it.lock(1, record(3, Exclusive, 10, 20)), Ok(Response::Done));
}

#[test]
fn locks_go_with_a_mount_that_ends_in_whatever_way() {
    let mut it = shared(4, Weather::CALM, 2);
    assert_eq!(it.lock(0, flock(1, Exclusive)), Ok(Response::Done));
    let waiter = it.wait_for(1, flock(2, Exclusive));
    it.world.remount(0);
    it.world.settle();
    assert_eq!(it.world.answer(1, waiter), Some(Ok(Response::Done)), "in good order");

    it.world.crash(1);
    it.world.settle();
    let ino = it.files[0].0;
    let lookup = Request::Lookup { parent: Ino::ROOT, name: "file".into() };
    assert!(it.world.request(0, lookup).is_ok());
    let request = Request::SetLock { ino, lock: flock(3, Exclusive), wait: true };
    let waiter = it.world.start(0, request);
    it.world.settle();
    assert_eq!(it.world.answer(0, waiter), None, "its lease goes on");
    for _ in 0..10 {
        it.world.sleep(Duration::from_secs(15));
    }
    assert_eq!(it.world.answer(0, waiter), Some(Ok(Response::Done)), "its lease has ended");
}

#[test]
fn a_waiter_can_be_interrupted_and_leaves_nothing_behind() {
    for early in [true, false] {
        let mut it = shared(5, Weather::CALM, 2);
        assert_eq!(it.lock(0, flock(1, Exclusive)), Ok(Response::Done));
        let waiter = it.wait_for(1, flock(2, Exclusive));
        if !early {
            it.world.settle();
        }
        it.world.cancel(1, waiter);
        assert_eq!(it.world.answer(1, waiter), Some(Err(Errno::EINTR)));
        it.world.settle();
        assert_eq!(it.unlock(0, flock(1, Exclusive)), Ok(Response::Done));
        it.world.settle();
        assert_eq!(it.lock(0, flock(3, Exclusive)), Ok(Response::Done), "early: {early}");
    }
}

#[test]
fn a_lock_that_is_had_when_nobody_wants_it_any_more_is_given_back() {
    let mut it = shared(6, Weather::CALM, 2);
    let waiter = it.wait_for(1, flock(2, Exclusive));
    it.world.cancel(1, waiter);
    assert_eq!(it.world.answer(1, waiter), Some(Err(Errno::EINTR)));
    it.world.settle();
    assert_eq!(it.lock(0, flock(1, Exclusive)), Ok(Response::Done));
}

/// What the mounts answer is what one table of all locks says, whatever arrives first.
#[test]
fn locks_of_several_mounts_are_one_table() {
    for seed in 0..40 {
        let mut it = shared(seed, Weather::BREEZE, 2);
        let mut random = Random(seed);
        let mut table = LockTable::default();
        for step in 0..60 {
            let at = (random.next() % 2) as usize;
            // Owners of different mounts are different, whatever their numbers.
            let owner = 1 + random.next() % 2;
            let start = random.next() % 8;
            let mode = if random.next().is_multiple_of(2) { Shared } else { Exclusive };
            let lock = record(owner, mode, start, start + 1 + random.next() % 8);
            let known = Lock { owner: LockOwner(owner + 10 * at as u64), ..lock };
            let what = random.next() % 8;
            let (got, want) = match what {
                0 => {
                    table.release(known.owner);
                    (it.close(at, owner), Ok(Response::Done))
                }
                1 | 2 => {
                    table.unset(&known);
                    (it.unlock(at, lock), Ok(Response::Done))
                }
                _ => {
                    let free = table.conflict(&known).is_none();
                    if free {
                        table.set(known);
                    }
                    let want = if free { Ok(Response::Done) } else { Err(Errno::EAGAIN) };
                    (it.lock(at, lock), want)
                }
            };
            assert_eq!(got, want, "seed {seed}, step {step}: {what} {lock:?} of mount {at}");
        }
    }
}

/// Whoever has the lock counts up; nobody's count is lost, and everybody gets it in the end.
#[test]
fn waiters_take_turns() {
    for seed in 100..120 {
        let mut it = shared(seed, Weather::BREEZE, 2);
        let (mut holder, mut served) = (None, 0);
        let mut waiting: Vec<(usize, u64, OpId)> = Vec::new();
        for at in 0..2 {
            for owner in 1..5 {
                waiting.push((at, owner, it.wait_for(at, flock(owner, Exclusive))));
            }
        }
        while served < 8 {
            it.world.settle();
            let mut still = Vec::new();
            for (at, owner, op) in waiting {
                match it.world.answer(at, op) {
                    Some(Ok(Response::Done)) => {
                        assert_eq!(holder, None, "seed {seed}: two have it");
                        holder = Some((at, owner));
                    }
                    Some(other) => panic!("seed {seed}: {other:?}"),
                    None => still.push((at, owner, op)),
                }
            }
            waiting = still;
            let (at, owner) = holder.take().unwrap_or_else(|| panic!("seed {seed}: nobody has it"));
            served += 1;
            assert_eq!(it.unlock(at, flock(owner, Exclusive)), Ok(Response::Done));
        }
    }
}

#[test]
fn appends_of_several_mounts_are_all_there_once() {
    for (seed, weather) in (200..220)
        .map(|seed| (seed, Weather::BREEZE))
        .chain((220..240).map(|seed| (seed, Weather::STORM)))
    {
        let mut it = shared(seed, weather.untroubled(), 2);
        it.world.set_weather(weather);
        let mut asked = Vec::new();
        for n in 0..40 {
            let at = n % 2;
            let line = format!("{n:03} of mount {at}{}\n", "!".repeat(n * 7));
            let op = it.append(at, &line);
            asked.push((at, op, line));
            if n % 5 == 4 {
                it.world.step();
            }
        }
        let mut sure = Vec::new();
        let mut unsure = Vec::new();
        for (at, op, line) in asked {
            match it.world.wait(at, op) {
                Ok(Response::Written(bytes)) => {
                    assert_eq!(bytes as usize, line.len());
                    sure.push(line);
                }
                Err(Errno::EIO) => unsure.push(line),
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        it.world.set_weather(Weather::CALM);
        it.world.sleep(Duration::from_secs(120));
        let contents = it.contents();
        for line in &sure {
            assert_eq!(contents.matches(line.as_str()).count(), 1, "seed {seed}: {line:?}");
        }
        for line in &unsure {
            assert!(contents.matches(line.as_str()).count() <= 1, "seed {seed}: {line:?}");
        }
        let whole: usize = sure.iter().map(String::len).sum();
        let perhaps: usize = unsure.iter().map(String::len).sum();
        assert!((whole..=whole + perhaps).contains(&contents.len()), "seed {seed}: nothing else");
    }
}
