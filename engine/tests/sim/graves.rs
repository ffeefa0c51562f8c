//! Removed files of volumes that several mounts use: kept for whoever has them open, and freed at
//! once when nobody has.

use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Reply};
use dbmount_engine::op::OpenFlags;
use dbmount_engine::sim::harness::{Break, Disk, Setup, Weather, World};
use dbmount_engine::sim::ops::{Executor, How, Op, Outcome, Path, Slot};
use dbmount_engine::{Errno, Ino, Request, Response, Wall};

const SLOT: Slot = Slot(0);

fn run(world: &mut World<Disk>, at: usize, op: &Op) -> Outcome {
    let reply = world.fs(at).run(op, Wall(1));
    reply.unwrap_or_else(|errno| panic!("{op:?} on {at}: {errno}"))
}

fn redis(world: &mut World<Disk>, words: &[&str]) -> Reply {
    let words = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes()));
    world.command(&Command::plain(words))
}

fn write(world: &mut World<Disk>, at: usize, path: &str, data: &[u8]) {
    let how = How { create: Some(0o600), write: true, ..How::default() };
    run(world, at, &Op::Open { slot: SLOT, path: Path::parse(path), how });
    run(world, at, &Op::Write { slot: SLOT, offset: 0, data: data.to_vec() });
    run(world, at, &Op::Fsync { slot: SLOT });
}

fn unlink(world: &mut World<Disk>, at: usize, path: &str) {
    run(world, at, &Op::Unlink { path: Path::parse(path) });
}

/// Inodes and blocks there are, beside the root.
fn left(world: &mut World<Disk>) -> usize {
    let mut count = |pattern| match redis(world, &["KEYS", pattern]) {
        Reply::Array(keys) => keys.len(),
        other => panic!("{other:?}"),
    };
    count("{disk}:i:*") - 1 + count("disk:b:*")
}

/// Two seconds later; what is asked for is answered in between.
fn soon(world: &mut World<Disk>) {
    for _ in 0..20 {
        world.sleep(Duration::from_millis(100));
    }
}

fn two() -> (World<Disk>, usize, usize) {
    let mut world: World<Disk> = World::new(1, Weather::CALM);
    let (one, two) = (world.mount(&Setup::default()), world.mount(&Setup::default()));
    (world, one, two)
}

#[test]
fn what_nobody_has_open_is_freed_at_once() {
    let (mut world, one, two) = two();
    run(&mut world, one, &Op::Mkdir { path: Path::parse("d"), perm: 0o755 });
    for n in 0..500 {
        write(&mut world, one, &format!("d/{n}"), &[b'x'; 5000]);
    }
    world.fs(one).close_all();
    // The other knows them all.
    world.fs(two).tree();
    for n in 0..500 {
        unlink(&mut world, one, &format!("d/{n}"));
    }
    soon(&mut world);
    assert_eq!(left(&mut world), 1, "the directory");
    assert_eq!(redis(&mut world, &["ZCARD", "{disk}:g"]), Reply::Int(0));
    assert_eq!(world.inspect(), None);
}

/// Many that are held do not keep others from being freed, and each goes when it is closed.
#[test]
fn what_another_mount_has_open_is_kept_until_it_is_closed() {
    let (mut world, one, two) = two();
    let how = How { create: Some(0o600), write: true, ..How::default() };
    for n in 0..200 {
        let path = Path::parse(&format!("held{n}"));
        run(&mut world, two, &Op::Open { slot: Slot(n), path, how });
        let data = vec![n; 100];
        run(&mut world, two, &Op::Write { slot: Slot(n), offset: 0, data });
        run(&mut world, two, &Op::Fsync { slot: Slot(n) });
        write(&mut world, one, &format!("other{n}"), b"other");
    }
    world.fs(one).close_all();
    for n in 0..200 {
        unlink(&mut world, one, &format!("held{n}"));
        unlink(&mut world, one, &format!("other{n}"));
    }
    soon(&mut world);
    assert_eq!(left(&mut world), 400, "inodes and blocks of those that are held");
    for n in 0..200 {
        let read = run(&mut world, two, &Op::Read { slot: Slot(n), offset: 0, len: 200 });
        assert_eq!(read, Outcome::Bytes(vec![n; 100]));
        if n % 2 == 0 {
            run(&mut world, two, &Op::Close { slot: Slot(n) });
        }
    }
    soon(&mut world);
    assert_eq!(left(&mut world), 200);
    // What a mount held that died goes when its lease has ended.
    world.crash(two);
    world.sleep(Duration::from_secs(100));
    world.sleep(Duration::from_secs(100));
    soon(&mut world);
    assert_eq!(left(&mut world), 0);
    assert_eq!(world.inspect(), None);
}

/// The kernel may remember a name for a moment longer than there is one.
#[test]
fn what_was_seen_to_be_removed_cannot_be_opened() {
    let (mut world, one, two) = two();
    write(&mut world, one, "file", b"x");
    world.fs(one).close_all();
    world.settle();
    let lookup = Request::Lookup { parent: Ino::ROOT, name: "file".into() };
    let ino = match world.request(two, lookup) {
        Ok(Response::Entry(entry)) => entry.attr.ino,
        other => panic!("{other:?}"),
    };
    unlink(&mut world, one, "file");
    soon(&mut world);
    let open = world.request(two, Request::Open { ino, flags: OpenFlags::default() });
    assert_eq!(open, Err(Errno::ESTALE), "the kernel looks the name up again");
    let keys = redis(&mut world, &["KEYS", "*"]);
    assert_eq!(left(&mut world), 0, "{keys:?}");
}

/// A server that was killed may come back without its last second: what it gave out then must not
/// be given out again, and what a mount told it must be told again.
#[test]
fn a_server_that_has_forgotten_its_last_second_is_told_again() {
    let (mut world, one, two) = two();
    write(&mut world, one, "kept", b"kept");
    write(&mut world, two, "other", b"other");
    unlink(&mut world, one, "kept");
    soon(&mut world);
    // As if both mounts had come in that second.
    redis(&mut world, &["HSET", "{disk}:usage", "ino", "1", "mount", "0", "grave", "0"]);
    redis(&mut world, &["DEL", "{disk}:s", "{disk}:o:1", "{disk}:t:1", "{disk}:t:2"]);
    for at in [one, two] {
        world.break_after(at, 0, Break::Connection);
        run(&mut world, at, &Op::Mkdir { path: Path::parse(&format!("again{at}")), perm: 0o755 });
    }
    soon(&mut world);
    let numbers = redis(&mut world, &["HMGET", "{disk}:usage", "ino", "mount"]);
    assert_eq!(numbers, Reply::Array(vec![Reply::Bulk("8193".into()), Reply::Bulk("2".into())]));
    let held = run(&mut world, one, &Op::Read { slot: SLOT, offset: 0, len: 9 });
    assert_eq!(held, Outcome::Bytes(b"kept".to_vec()));
    // A third mount makes files, and the first two go on with theirs.
    let three = world.mount(&Setup::default());
    for n in 0..3 {
        for at in [one, two, three] {
            let path = Path::parse(&format!("{at}.{n}"));
            run(&mut world, at, &Op::Mkdir { path, perm: 0o755 });
        }
    }
    world.fs(one).close_all();
    soon(&mut world);
    assert_eq!(world.inspect(), None);
    assert_eq!(world.fs(three).tree().len(), 13, "eleven directories, a file and the root");
}

/// Whoever takes a number that is in use does not overwrite what has it.
#[test]
fn a_number_that_is_taken_is_not_taken_again() {
    let mut world: World<Disk> = World::new(1, Weather::CALM);
    let one = world.mount(&Setup::default());
    redis(&mut world, &["HSET", "{disk}:i:3", "nlink", "1", "kind", "f", "size", "0"]);
    for name in ["a", "b", "c"] {
        run(&mut world, one, &Op::Mkdir { path: Path::parse(name), perm: 0o755 });
    }
    assert_eq!(redis(&mut world, &["HGET", "{disk}:i:3", "kind"]), Reply::Bulk("f".into()));
}
