//! The check of volumes: clean where nothing is wrong, and each sort of damage named, mended, and
//! clean then, with nothing lost that was there.

use std::collections::BTreeMap;

use bytes::Bytes;

use dbmount_engine::backend::redis::{Command, Reply};
use dbmount_engine::op::XattrMode;
use dbmount_engine::sim::harness::{Disk, Setup, Weather, World};
use dbmount_engine::sim::ops::{Executor, How, Op, Path, Slot, Summary};
use dbmount_engine::volume::fsck::{Fsck, Repair, Report};
use dbmount_engine::volume::key::Keyspace;
use dbmount_engine::volume::tool;
use dbmount_engine::{Kind, Name, Wall};

type Tree = BTreeMap<Path, Summary>;

fn path(text: &str) -> Path {
    Path::parse(text)
}

/// A volume with one of everything, unmounted.
fn volume() -> World<Disk> {
    let mut world: World<Disk> = World::new(1, Weather::CALM);
    let at = world.mount(&Setup::default());
    let how = How { create: Some(0o644), write: true, ..How::default() };
    let slot = Slot(0);
    let write = |offset, data: &[u8]| Op::Write { slot, offset, data: data.to_vec() };
    let close = Op::Close { slot };
    let ops = [
        Op::Mkdir { path: path("a"), perm: 0o755 },
        Op::Mkdir { path: path("a/b"), perm: 0o750 },
        Op::Mkdir { path: path("a/b/c"), perm: 0o700 },
        Op::Open { slot, path: path("a/small"), how },
        write(0, b"small"),
        close.clone(),
        Op::Open { slot, path: path("a/b/large"), how },
        write(0, &[b'x'; 10_000]),
        close.clone(),
        Op::Open { slot, path: path("a/b/c/sparse"), how },
        write(100_000, b"end"),
        close,
        Op::Link { from: path("a/small"), to: path("a/b/same") },
        Op::Symlink { path: path("a/link"), target: b"b/large".to_vec() },
        Op::Mknod { path: path("a/fifo"), kind: Kind::Fifo, perm: 0o600, rdev: 0 },
        Op::SetXattr {
            path: path("a/small"),
            name: Name::from("user.a"),
            value: b"1".to_vec(),
            mode: XattrMode::Any,
        },
    ];
    for op in ops {
        let reply = world.fs(at).run(&op, Wall(7));
        assert!(reply.is_ok(), "{op:?}: {reply:?}");
    }
    world.settle();
    world
}

fn check(world: &mut World<Disk>) -> Report {
    let mut fsck = Fsck::new(Keyspace::new("disk").expect("a name"), Wall(9));
    let execute = |commands: Vec<Command>| commands.iter().map(|it| world.command(it)).collect();
    tool::run(&mut fsck, execute).expect("a volume");
    fsck.into_report()
}

fn said(report: &Report) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

fn mend(world: &mut World<Disk>, report: &Report) {
    let mut repair = Repair::new(&report.findings);
    tool::run(&mut repair, |commands| commands.iter().map(|it| world.command(it)).collect())
        .expect("nothing is refused");
}

/// What there is for a mount that comes anew.
fn tree(world: &mut World<Disk>) -> Tree {
    let at = world.mount(&Setup::default());
    let tree = world.fs(at).tree();
    world.settle();
    tree
}

fn redis(world: &mut World<Disk>, line: &[&str]) -> Reply {
    let reply = world.command(&Command::plain(line.iter().map(|it| Bytes::from(it.to_string()))));
    assert!(reply.as_error().is_none(), "{line:?}: {reply:?}");
    reply
}

/// The number of what a path leads to.
fn ino(world: &mut World<Disk>, text: &str) -> String {
    let mut at = "1".to_owned();
    for name in text.split('/') {
        let members = redis(world, &["ZRANGE", &format!("{{disk}}:d:{at}"), "0", "-1"]);
        let members = members.as_array().unwrap_or_default().iter().filter_map(Reply::as_bytes);
        let start = format!("{name}\0");
        let found = members.map(|it| String::from_utf8_lossy(it).into_owned());
        let found = found.into_iter().find_map(|it| Some(it.strip_prefix(&start)?[1..].to_owned()));
        at = found.unwrap_or_else(|| panic!("{text}: no {name}"));
    }
    at
}

/// Damages a volume, sees it named and mended; what was there and what is there then.
fn mended(says: &[&str], damage: impl FnOnce(&mut World<Disk>)) -> (Tree, Tree) {
    let mut world = volume();
    let before = tree(&mut world);
    damage(&mut world);
    let report = check(&mut world);
    let lines = said(&report);
    for part in says {
        assert!(lines.iter().any(|line| line.contains(part)), "{part:?} is not said: {lines:#?}");
    }
    assert!(report.findings.iter().all(|it| it.fix.is_some()), "{lines:#?}");
    mend(&mut world, &report);
    assert_eq!(said(&check(&mut world)), Vec::<String>::new(), "clean after it was mended");
    (before, tree(&mut world))
}

/// The same without a trace of the damage, but for the times and links of what was mended.
fn restored(says: &[&str], damage: impl FnOnce(&mut World<Disk>)) {
    let (before, after) = mended(says, damage);
    assert_eq!(contents(&before), contents(&after));
}

type Contents = (Kind, u64, Option<Vec<u8>>, Option<Vec<u8>>, Option<u32>);

fn contents(tree: &Tree) -> BTreeMap<String, Contents> {
    let of = |it: &Summary| (it.kind, it.size, it.contents.clone(), it.target.clone(), it.nlink);
    tree.iter().map(|(path, it)| (path.to_string(), of(it))).collect()
}

/// Every file's contents are somewhere.
fn nothing_lost(before: &Tree, after: &Tree) {
    for (path, file) in before.iter().filter(|(_, it)| it.contents.is_some()) {
        let there = after.values().any(|it| it.contents == file.contents);
        assert!(there, "the contents of {path} are nowhere");
    }
}

fn key(kind: &str, ino: &str) -> String {
    format!("{{disk}}:{kind}:{ino}")
}

#[test]
fn a_volume_without_damage_is_clean() {
    let report = check(&mut volume());
    assert_eq!(said(&report), Vec::<String>::new());
    assert_eq!((report.inodes, report.dirs), (9, 4));
    assert_eq!(report.bytes, 5 + 10_000 + 100_003);
}

#[test]
fn what_is_no_volume_is_said() {
    let mut world: World<Disk> = World::new(1, Weather::CALM);
    let mut fsck = Fsck::new(Keyspace::new("disk").expect("a name"), Wall(9));
    let why = tool::run(&mut fsck, |it| it.iter().map(|it| world.command(it)).collect());
    assert_eq!(why, Err("there is no volume disk here".to_owned()));

    let mut world = volume();
    redis(&mut world, &["HSET", "{disk}:super", "v", "2"]);
    let mut fsck = Fsck::new(Keyspace::new("disk").expect("a name"), Wall(9));
    let why = tool::run(&mut fsck, |it| it.iter().map(|it| world.command(it)).collect());
    assert!(why.unwrap_err().contains("use a newer dbmount"));
}

#[test]
fn link_counts_are_counted() {
    restored(&["counts 7 links and has 2"], |world| {
        let file = ino(world, "a/small");
        redis(world, &["HSET", &key("i", &file), "nlink", "7"]);
    });
    restored(&["counts 2 links and has 3"], |world| {
        let dir = ino(world, "a/b");
        redis(world, &["HSET", &key("i", &dir), "nlink", "2"]);
    });
}

#[test]
fn numbers_near_the_end_of_the_range_break_nothing() {
    for value in ["18446744073709551615", "9223372036854775807", "-1", "x", ""] {
        restored(&["bad nlink"], |world| {
            let file = ino(world, "a/b/large");
            redis(world, &["HSET", &key("i", &file), "nlink", value]);
        });
        let (before, after) = mended(&["bad size"], |world| {
            let file = ino(world, "a/b/large");
            redis(world, &["HSET", &key("i", &file), "size", value]);
        });
        nothing_lost(&before, &after);
        mended(&["counter"], |world| {
            redis(world, &["HSET", "{disk}:usage", "ino", value, "bytes", value, "inodes", value]);
        });
    }
}

#[test]
fn bad_fields_are_made_up_without_losing_contents() {
    for field in ["kind", "mode", "nlink", "uid", "gid", "size", "atime", "mtime", "ctime"] {
        for path in ["a/b/large", "a/b", "a/link"] {
            let (before, after) = mended(&[&format!("bad {field}")], |world| {
                let it = ino(world, path);
                redis(world, &["HSET", &key("i", &it), field, "?"]);
            });
            assert_eq!(contents(&before), contents(&after), "{path} {field}");
            let (before, after) = mended(&[&format!("bad {field}")], |world| {
                let it = ino(world, path);
                redis(world, &["HDEL", &key("i", &it), field]);
            });
            assert_eq!(contents(&before), contents(&after), "{path} {field}");
        }
    }
}

#[test]
fn an_entry_that_leads_nowhere_is_removed() {
    let (before, after) = mended(&["which is not there"], |world| {
        let fifo = ino(world, "a/fifo");
        redis(world, &["DEL", &key("i", &fifo)]);
    });
    assert_eq!(before.len(), after.len() + 1);
}

#[test]
fn a_lost_inode_is_made_anew_from_its_blocks() {
    let (before, after) = mended(&["has lost its inode", "/a/b"], |world| {
        let file = ino(world, "a/b/large");
        redis(world, &["DEL", &key("i", &file)]);
    });
    let at = path("a/b/large");
    assert_eq!(before[&at].contents, after[&at].contents);
}

#[test]
fn a_lost_directory_inode_keeps_its_names() {
    restored(&["directory", "has lost its inode"], |world| {
        let dir = ino(world, "a/b");
        redis(world, &["DEL", &key("i", &dir)]);
    });
}

#[test]
fn lost_names_go_to_lost_and_found() {
    let (before, after) = mended(&["has no name, put into lost+found"], |world| {
        let dir = ino(world, "a/b");
        redis(world, &["DEL", &key("d", &dir)]);
    });
    nothing_lost(&before, &after);
    assert!(after.keys().any(|path| path.to_string().contains("lost+found/#")));
}

#[test]
fn a_lost_root_is_made_anew() {
    let (before, after) = mended(&["there is no root"], |world| {
        redis(world, &["DEL", "{disk}:i:1", "{disk}:d:1"]);
    });
    nothing_lost(&before, &after);
}

#[test]
fn an_inode_and_its_names_may_both_be_lost() {
    let (before, after) = mended(&["belong to no inode, put into lost+found"], |world| {
        let (dir, file) = (ino(world, "a/b"), ino(world, "a/b/large"));
        redis(world, &["DEL", &key("i", &file)]);
        redis(world, &["ZREM", &key("d", &dir), &format!("large\0f{file}")]);
    });
    nothing_lost(&before, &after);
}

#[test]
fn entries_of_the_wrong_kind_or_place_or_twice() {
    restored(&["has another kind"], |world| {
        let (dir, file) = (ino(world, "a"), ino(world, "a/fifo"));
        redis(world, &["ZREM", &key("d", &dir), &format!("fifo\0p{file}")]);
        redis(world, &["ZADD", &key("d", &dir), "0", &format!("fifo\0f{file}")]);
    });
    restored(&["is not in order"], |world| {
        let (dir, file) = (ino(world, "a"), ino(world, "a/fifo"));
        redis(world, &["ZADD", &key("d", &dir), "3", &format!("fifo\0p{file}")]);
    });
    let (before, after) = mended(&["there are two entries small"], |world| {
        let (dir, file) = (ino(world, "a"), ino(world, "a/b/large"));
        redis(world, &["ZADD", &key("d", &dir), "0", &format!("small\0f{file}")]);
    });
    assert_eq!(after.len(), before.len() + 1);
    restored(&["bad entry"], |world| {
        let dir = ino(world, "a");
        redis(world, &["ZADD", &key("d", &dir), "0", "no entry"]);
    });
    restored(&["leads to the root"], |world| {
        let dir = ino(world, "a");
        redis(world, &["ZADD", &key("d", &dir), "0", "up\0d1"]);
    });
}

#[test]
fn directories_hang_together() {
    restored(&["does not know that it is in"], |world| {
        let dir = ino(world, "a/b/c");
        redis(world, &["HSET", &key("i", &dir), "parent", "1"]);
    });
    restored(&["has another name"], |world| {
        let dir = ino(world, "a/b/c");
        redis(world, &["ZADD", "{disk}:d:1", "0", &format!("again\0d{dir}")]);
    });
    // `b` is moved below `c`, which is in it.
    let (before, after) = mended(&["is below itself"], |world| {
        let (a, b, c) = (ino(world, "a"), ino(world, "a/b"), ino(world, "a/b/c"));
        redis(world, &["ZREM", &key("d", &a), &format!("b\0d{b}")]);
        redis(world, &["ZADD", &key("d", &c), "0", &format!("b\0d{b}")]);
    });
    nothing_lost(&before, &after);
    restored(&["which is no directory"], |world| {
        let fifo = ino(world, "a/fifo");
        redis(world, &["ZADD", &key("d", &fifo), "0", "x\0f99"]);
    });
}

#[test]
fn contents_are_not_taken_for_garbage() {
    restored(&["are to be removed and are those of"], |world| {
        let file = ino(world, "a/b/large");
        redis(world, &["HSET", "{disk}:q", &file, "10000"]);
    });
    restored(&["beyond its end"], |world| {
        let file = ino(world, "a/small");
        redis(world, &["SET", &format!("disk:b:{{{file}:3}}"), "garbage"]);
    });
    restored(&["means nothing here"], |world| {
        redis(world, &["HSET", "{disk}:q", "x", "1"]);
        redis(world, &["ZADD", "{disk}:g", "0", "y"]);
        redis(world, &["ZADD", "{disk}:s", "0", "z"]);
    });
}

#[test]
fn graves_are_for_the_dead() {
    restored(&["has names and is to be removed", "is to be removed and is not there"], |world| {
        let file = ino(world, "a/small");
        redis(world, &["ZADD", "{disk}:g", "0", &file, "0", "777"]);
    });
    mended(&["has no name and nothing will remove it"], |world| {
        let (dir, file) = (ino(world, "a"), ino(world, "a/fifo"));
        redis(world, &["ZREM", &key("d", &dir), &format!("fifo\0p{file}")]);
        redis(world, &["HSET", &key("i", &file), "nlink", "0"]);
    });
}

#[test]
fn leftovers_of_nobody_go() {
    restored(&["which is not there", "which has ended"], |world| {
        redis(world, &["HSET", "{disk}:x:99", "user.a", "1"]);
        redis(world, &["SADD", "{disk}:o:99", "5"]);
        redis(world, &["HSET", "{disk}:t:99", "5", "5"]);
    });
}

#[test]
fn a_symlink_without_a_target_stays_as_a_file() {
    let (_, after) = mended(&["symlink without a target"], |world| {
        let link = ino(world, "a/link");
        redis(world, &["HDEL", &key("i", &link), "target"]);
    });
    assert_eq!(after[&path("a/link")].kind, Kind::File);
}

#[test]
fn what_cannot_be_mended_is_left_alone() {
    let mut world = volume();
    let file = ino(&mut world, "a/small");
    redis(&mut world, &["SET", "{disk}:i:50", "no inode"]);
    redis(&mut world, &["SET", "{disk}:what", "is this"]);
    let data = ino(&mut world, "a/b/large");
    redis(&mut world, &["HSET", &key("i", &file), "data", &data]);
    let report = check(&mut world);
    let lines = said(&report);
    for part in ["another type", "no key of this format", "have the same contents"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    mend(&mut world, &report);
    let left = check(&mut world);
    assert_eq!(left.findings.len(), 3, "{:#?}", said(&left));
    assert!(left.findings.iter().all(|it| it.fix.is_none()));
    assert_eq!(redis(&mut world, &["GET", "{disk}:i:50"]), Reply::Bulk("no inode".into()));
}
