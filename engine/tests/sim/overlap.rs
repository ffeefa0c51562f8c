//! Requests that overlap with each other and with write-back.

use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::backend::redis::Reply;
use dbmount_engine::config::Config;
use dbmount_engine::op::{OpenFlags, RenameMode};
use dbmount_engine::sim::harness::{CALLER, Weather};
use dbmount_engine::{Errno, Fh, Ino, LockOwner, OpId, Request, Response};

use crate::check::{Setup, World};

const WRITE: OpenFlags =
    OpenFlags { write: true, truncate: false, append: false, exclusive: false };

/// A world with one mount that sends what is written as soon as it is written.
fn eager(weather: Weather, seed: u64) -> World {
    let config = Config { flush_bytes: 1, ..Config::default() };
    let mut world = World::new(seed, weather);
    world.mount(&Setup { config, ..Setup::default() });
    world
}

fn create(world: &mut World, name: &str) -> (Ino, Fh) {
    let (parent, name) = (Ino::ROOT, name.into());
    let request = Request::Create { parent, name, perm: 0o644, flags: WRITE, caller: CALLER };
    match world.request(0, request) {
        Ok(Response::Created(entry, opened)) => (entry.attr.ino, opened.fh),
        other => panic!("create: {other:?}"),
    }
}

fn open(world: &mut World, name: &str, truncate: bool) -> (Ino, Fh) {
    let request = Request::Lookup { parent: Ino::ROOT, name: name.into() };
    let ino = match world.request(0, request) {
        Ok(Response::Entry(entry)) => entry.attr.ino,
        other => panic!("lookup: {other:?}"),
    };
    match world.request(0, Request::Open { ino, flags: OpenFlags { truncate, ..WRITE } }) {
        Ok(Response::Opened(opened)) => (ino, opened.fh),
        other => panic!("open: {other:?}"),
    }
}

fn write((ino, fh): (Ino, Fh), offset: u64, data: impl Into<Bytes>) -> Request {
    Request::Write { ino, fh, offset, data: data.into() }
}

fn read(world: &mut World, (ino, fh): (Ino, Fh), offset: u64, size: u32) -> Bytes {
    match world.request(0, Request::Read { ino, fh, offset, size }) {
        Ok(Response::Data(data)) => data,
        other => panic!("read: {other:?}"),
    }
}

fn flush((ino, fh): (Ino, Fh)) -> Request {
    Request::Flush { ino, fh, owner: LockOwner(0) }
}

fn close(world: &mut World, file: (Ino, Fh)) -> Result<Response, Errno> {
    let flushed = world.request(0, flush(file));
    world.request(0, Request::Release { ino: file.0, fh: file.1, owner: None }).expect("release");
    flushed
}

fn rename(name: &str, to_name: &str) -> Request {
    let (parent, to_parent) = (Ino::ROOT, Ino::ROOT);
    let (name, to_name) = (name.into(), to_name.into());
    Request::Rename { parent, name, to_parent, to_name, mode: RenameMode::Replace }
}

fn is_pending(world: &World, op: OpId) -> bool {
    world.engine_of(0).in_flight().iter().any(|it| it.op == op)
}

#[test]
fn a_file_is_renamed_while_it_is_written() {
    for seed in 0..40 {
        let mut world = eager(Weather::BREEZE, seed);
        world.redis(["SET", "log", "older"]);
        world.settle();
        let file = open(&mut world, "log", seed % 2 == 0);
        world.request(0, write(file, 0, "first")).unwrap();
        let moved = world.start(0, rename("log", "log.1"));
        world.request(0, write(file, 5, " second")).unwrap();
        assert_eq!(world.wait(0, moved), Ok(Response::Done), "seed {seed}");
        assert_eq!(close(&mut world, file), Ok(Response::Done), "seed {seed}");
        world.settle();
        assert_eq!(world.redis(["EXISTS", "log"]), Reply::Int(0), "seed {seed}");
        let moved = world.redis(["GET", "log.1"]);
        assert_eq!(moved.as_bytes(), Some(&b"first second"[..]), "seed {seed}");
    }
}

#[test]
fn a_file_is_removed_while_it_is_written() {
    for seed in 0..40 {
        let mut world = eager(Weather::BREEZE, seed);
        world.redis(["SET", "log", "older"]);
        world.settle();
        let file = open(&mut world, "log", true);
        world.request(0, write(file, 0, "first")).unwrap();
        let removed = world.start(0, Request::Unlink { parent: Ino::ROOT, name: "log".into() });
        world.request(0, write(file, 5, " second")).unwrap();
        assert_eq!(world.wait(0, removed), Ok(Response::Done), "seed {seed}");
        world.settle();
        assert_eq!(world.redis(["EXISTS", "log"]), Reply::Int(0), "seed {seed}");
        assert_eq!(read(&mut world, file, 0, 100), "first second", "seed {seed}");
        close(&mut world, file).unwrap();
        world.settle();
        let Reply::Array(left) = world.redis(["KEYS", ".dbmount:[ow]:*"]) else { panic!() };
        assert!(left.is_empty(), "seed {seed}: {left:?}");
    }
}

#[test]
fn a_file_is_closed_while_it_is_removed() {
    let mut world = eager(Weather::CALM, 1);
    let file = create(&mut world, "log");
    world.request(0, write(file, 0, "first")).unwrap();
    world.request(0, flush(file)).unwrap();
    let removed = world.start(0, Request::Unlink { parent: Ino::ROOT, name: "log".into() });
    world.request(0, Request::Release { ino: file.0, fh: file.1, owner: None }).unwrap();
    world.wait(0, removed).unwrap();
    world.settle();
    let Reply::Array(left) = world.redis(["KEYS", "*"]) else { panic!() };
    let session = |key: &Reply| key.as_bytes().is_some_and(|it| it.starts_with(b".dbmount:s:"));
    assert!(left.iter().all(session), "{left:?}");
}

#[test]
fn a_writer_does_not_keep_others_from_closing() {
    let mut world = eager(Weather::CALM, 1);
    let file = create(&mut world, "log");
    world.request(0, write(file, 0, "first")).unwrap();
    let closing = world.start(0, flush(file));
    let mut writing = None;
    for n in 0..100 {
        if writing.is_none_or(|op| !is_pending(&world, op)) {
            writing = Some(world.start(0, write(file, 5 + n, "x")));
        }
        world.step();
        if !is_pending(&world, closing) {
            break;
        }
    }
    assert!(!is_pending(&world, closing), "{:?}", world.engine_of(0).in_flight());
    assert_eq!(world.wait(0, closing), Ok(Response::Done));
    if let Some(writing) = writing.filter(|op| is_pending(&world, *op)) {
        world.wait(0, writing).unwrap();
    }
    close(&mut world, file).unwrap();
}

/// `cp` to a full server must end.
#[test]
fn a_writer_is_told_that_nothing_can_be_written() {
    let mut world = World::new(1, Weather::CALM);
    world.mount(&Setup::default());
    let file = create(&mut world, "big");
    world.redis(["DEL", "big"]);
    world.redis(["RPUSH", "big", "x"]);
    world.settle();
    let piece = Bytes::from(vec![b'x'; 128 << 10]);
    let mut result = Ok(Response::Done);
    for n in 0..1000 {
        assert!(world.engine_of(0).credit().bytes > 0, "the driver keeps write {n} to itself");
        result = world.request(0, write(file, n << 17, piece.clone()));
        if result.is_err() {
            break;
        }
        world.settle();
    }
    assert_eq!(result, Err(Errno::EIO));
    assert!(world.engine_of(0).dirty_bytes() < 4 << 20);
    assert_eq!(close(&mut world, file), Err(Errno::EIO));
}

#[test]
fn a_hole_is_read_as_zeros_where_the_file_ended() {
    let mut world = World::new(1, Weather::CALM);
    // The echo of a write would void what was read before.
    world.mount(&Setup { tracking: false, ..Setup::default() });
    let file = create(&mut world, "sparse");
    world.request(0, write(file, 0, "data")).unwrap();
    world.request(0, flush(file)).unwrap();
    world.settle();
    assert_eq!(read(&mut world, file, 0, 300_000), "data");
    world.request(0, write(file, 1 << 20, "end")).unwrap();
    world.request(0, flush(file)).unwrap();
    world.settle();
    for offset in [0, 4096, 131_072] {
        assert_eq!(read(&mut world, file, offset, 4096).len(), 4096, "at {offset}");
    }
}

#[test]
fn without_pushes_an_open_file_is_not_old_for_long() {
    let mut world = World::new(1, Weather::CALM);
    world.mount(&Setup { tracking: false, ..Setup::default() });
    world.redis(["SET", "log", "first"]);
    world.sleep(Duration::from_secs(10));
    let file = open(&mut world, "log", false);
    assert_eq!(read(&mut world, file, 0, 100), "first");
    world.redis(["APPEND", "log", " second"]);
    world.sleep(Duration::from_secs(10));
    assert_eq!(read(&mut world, file, 0, 100), "first second");
}

#[test]
fn reading_leaves_nothing_behind() {
    let mut world = World::new(1, Weather::CALM);
    let config = Config { fact_entries: 16, ..Config::default() };
    world.mount(&Setup { config, ..Setup::default() });
    world.redis(["SET", "log", "first"]);
    world.settle();
    let mut size_after = |times: usize| {
        for _ in 0..times {
            let file = open(&mut world, "log", false);
            read(&mut world, file, 0, 100);
            close(&mut world, file).unwrap();
            world.request(0, Request::GetAttr { ino: file.0 }).unwrap();
        }
        format!("{:?}", world.engine_of(0)).len()
    };
    let before = size_after(500);
    let after = size_after(500);
    assert!(after < before + 200, "{before} and {after}");
}

/// What is gone must not come back as zeros around the piece that was being written.
#[test]
fn a_large_field_that_was_deleted_stays_deleted() {
    let mut world = eager(Weather::CALM, 1);
    let value = vec![b'v'; 600_000];
    world.redis([&b"HSET"[..], b"h", b"big", &value, b"other", b"x"].map(Bytes::copy_from_slice));
    world.settle();
    let file = open(&mut world, "h.big", false);
    world.redis(["HDEL", "h", "big"]);
    world.settle();
    world.request(0, write(file, 1000, vec![b'w'; 300_000])).unwrap();
    world.settle();
    assert_eq!(close(&mut world, file), Err(Errno::ESTALE));
    world.settle();
    assert_eq!(world.redis(["HEXISTS", "h", "big"]), Reply::Int(0));
    let Reply::Array(left) = world.redis(["KEYS", ".dbmount:w:*"]) else { panic!() };
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn unmounting_tells_what_could_not_be_written() {
    let mut world = World::new(1, Weather::CALM);
    world.mount(&Setup::default());
    let file = create(&mut world, "file");
    world.request(0, write(file, 0, "data")).unwrap();
    world.redis(["DEL", "file"]);
    world.redis(["RPUSH", "file", "x"]);
    world.settle();
    assert_eq!(world.request(0, Request::Detach), Err(Errno::EIO));
}

#[test]
fn a_walk_leaves_nothing_behind() {
    let mut world = World::new(1, Weather::CALM);
    let config = Config { fact_entries: 16, ..Config::default() };
    world.mount(&Setup { config, ..Setup::default() });
    for n in 0..400 {
        world.redis([String::from("SET"), format!("d{n:03}:f"), String::from("x")]);
    }
    world.settle();
    let mut look = |parent, name: String| {
        let request = Request::Lookup { parent, name: name.as_str().into() };
        match world.request(0, request) {
            Ok(Response::Entry(entry)) => entry.attr.ino,
            other => panic!("lookup: {other:?}"),
        }
    };
    let mut found = Vec::new();
    for n in 0..400 {
        let dir = look(Ino::ROOT, format!("d{n:03}"));
        found.extend([dir, look(dir, "f".into())]);
    }
    let before = format!("{:?}", world.engine_of(0)).len();
    for ino in found {
        world.start(0, Request::Forget { ino, count: 1 });
    }
    let after = format!("{:?}", world.engine_of(0)).len();
    assert!(after < before / 4, "{before} and {after}");
}
