//! The model's own tests: POSIX's rules by example, and what holds after any sequence.

use alloc::string::String;

use super::*;
use crate::op::Kind::{Dir, Fifo, File, Symlink};
use crate::op::RenameMode;
use crate::sim::generate::{Generator, Random, Swarm};
use crate::sim::ops::{Judge, tree_difference};

const ME: Caller = Caller { uid: 1000, gid: 1000, pid: 1, umask: 0 };

fn caps() -> Caps {
    Caps {
        hard_links: true,
        special_files: true,
        exchange: true,
        max_file_size: 1 << 16,
        max_links: 1000,
        max_xattr_size: 256,
        reserved_xattrs: &[b"user.redis."],
        dir_nlink: true,
        rename_ctime: true,
        ..Caps::LEAST
    }
}

fn model_with(caps: Caps) -> Model {
    let root = Summary {
        kind: Dir,
        perm: 0o755,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        nlink: None,
        mtime: Some(Wall(0)),
        ctime: Some(Wall(0)),
        contents: None,
        target: None,
        xattrs: None,
        first: None,
    };
    Model::new(caps, ME, &root)
}

/// A model and a clock that ticks with each operation.
struct World(Model, Wall);

impl World {
    fn new() -> World {
        World(model_with(caps()), Wall(0))
    }

    fn run(&mut self, op: Op) -> Reply {
        self.1.0 += 1;
        match self.0.apply(&op, self.1) {
            ModelReply::Is(reply) => reply,
            ModelReply::Stream { .. } | ModelReply::Place { .. } => Ok(Outcome::Done),
        }
    }

    fn ok(&mut self, op: Op) -> Outcome {
        self.run(op.clone()).unwrap_or_else(|errno| panic!("{op:?}: {errno}"))
    }

    fn mkdir(&mut self, path: &str) {
        self.ok(Op::Mkdir { path: Path::parse(path), perm: 0o755 });
    }

    /// A file that holds its own path.
    fn file(&mut self, path: &str) {
        let slot = Slot(99);
        let how = How { create: Some(0o644), write: true, ..How::default() };
        self.ok(Op::Open { slot, path: Path::parse(path), how });
        self.ok(Op::Write { slot, offset: 0, data: path.as_bytes().to_vec() });
        self.ok(Op::Close { slot });
    }

    fn mv(&mut self, from: &str, to: &str, mode: RenameMode) -> Reply {
        self.run(Op::Rename { from: Path::parse(from), to: Path::parse(to), mode })
    }

    fn at(&self, path: &str) -> Option<Summary> {
        self.0.tree().get(&Path::parse(path)).cloned()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.at(path).unwrap().contents.unwrap()).unwrap()
    }
}

#[test]
fn rename_follows_its_table() {
    use Errno::*;
    use RenameMode::{Exchange, NoReplace, Replace};
    for (from, to, mode, expect) in [
        ("f", "g", Replace, Ok(())),
        ("f", "new", Replace, Ok(())),
        ("f", "d", Replace, Err(EISDIR)),
        ("d", "f", Replace, Err(ENOTDIR)),
        ("d", "e", Replace, Ok(())),
        ("e", "d", Replace, Err(ENOTEMPTY)),
        ("d", "d/x", Replace, Err(EINVAL)),
        ("d", "d/s/x", Replace, Err(EINVAL)),
        ("d", "d/s/f", Replace, Err(EINVAL)),
        ("d/s", "d", Replace, Err(ENOTEMPTY)),
        ("none", "g", Replace, Err(ENOENT)),
        ("f", "none/x", Replace, Err(ENOENT)),
        ("f", "g/x", Replace, Err(ENOTDIR)),
        ("f", "", Replace, Err(EBUSY)),
        ("f", "f", Replace, Ok(())),
        ("h", "i", Replace, Ok(())),
        ("f", "g", NoReplace, Err(EEXIST)),
        ("h", "i", NoReplace, Err(EEXIST)),
        ("f", "new", NoReplace, Ok(())),
        ("f", "d", Exchange, Ok(())),
        ("f", "new", Exchange, Err(ENOENT)),
        ("d", "d/s", Exchange, Err(EINVAL)),
        ("d/s", "d", Exchange, Err(EINVAL)),
    ] {
        let mut world = World::new();
        for path in ["d", "d/s", "e"] {
            world.mkdir(path);
        }
        for path in ["f", "g", "h", "d/s/f"] {
            world.file(path);
        }
        world.ok(Op::Link { from: Path::parse("h"), to: Path::parse("i") });
        let before = world.0.tree();
        let reply = world.mv(from, to, mode).map(drop);
        assert_eq!(reply, expect, "{from} to {to}, {mode:?}");
        if expect.is_err() || from == to || from == "h" {
            assert_eq!(world.0.tree(), before, "{from} to {to} changes nothing");
        } else {
            assert_eq!(world.at(from).is_some(), mode == Exchange);
            assert_eq!(world.at(to).unwrap().kind, before[&Path::parse(from)].kind);
        }
    }
}

#[test]
fn a_directory_takes_what_is_below_along() {
    let mut world = World::new();
    for path in ["a", "a/b", "c"] {
        world.mkdir(path);
    }
    world.file("a/b/f");
    world.mv("a/b", "c/d", RenameMode::Replace).unwrap();
    assert_eq!(world.text("c/d/f"), "a/b/f");
    assert_eq!(world.at("a").unwrap().nlink, Some(2));
    assert_eq!(world.at("c").unwrap().nlink, Some(3));
}

#[test]
fn an_unlinked_file_lives_as_long_as_it_is_open() {
    let mut world = World::new();
    world.file("f");
    let (slot, path) = (Slot(0), Path::parse("f"));
    let how = How { write: true, ..How::default() };
    world.ok(Op::Open { slot, path: path.clone(), how });
    world.ok(Op::Unlink { path });
    world.file("f");
    world.ok(Op::Write { slot, offset: 3, data: b"old".to_vec() });
    let read = world.ok(Op::Read { slot, offset: 0, len: 9 });
    assert_eq!(read, Outcome::Bytes(b"f\0\0old".to_vec()));
    let Outcome::Stat(stat) = world.ok(Op::FStat { slot }) else { panic!() };
    assert_eq!((stat.nlink, stat.size), (Some(0), 6));
    assert_eq!(world.text("f"), "f");
    world.ok(Op::Close { slot });
    assert_eq!(world.run(Op::FStat { slot }), Err(Errno::EBADF));
    assert_eq!(world.0.nodes.len(), 2);
}

#[test]
fn hard_links_share_everything_and_are_told_by_their_first_path() {
    let mut world = World::new();
    world.file("b");
    world.ok(Op::Link { from: Path::parse("b"), to: Path::parse("a") });
    world.ok(Op::Truncate { path: Path::parse("a"), size: 0 });
    assert_eq!(world.text("b"), "");
    let b = world.at("b").unwrap();
    assert_eq!((b.nlink, b.first), (Some(2), Some(Path::parse("a"))));
    let mut world = World(model_with(Caps { hard_links: false, ..caps() }), Wall(0));
    world.file("b");
    let reply = world.run(Op::Link { from: Path::parse("b"), to: Path::parse("a") });
    assert_eq!(reply, Err(Errno::EPERM));
}

#[test]
fn appends_go_to_the_end_and_truncates_fill_with_zeros() {
    let mut world = World::new();
    let (slot, path) = (Slot(0), Path::parse("f"));
    let how = How { create: Some(0o600), write: true, append: true, ..How::default() };
    world.ok(Op::Open { slot, path: path.clone(), how });
    world.ok(Op::Write { slot, offset: 7, data: b"ab".to_vec() });
    world.ok(Op::FTruncate { slot, size: 3 });
    world.ok(Op::Write { slot, offset: 0, data: b"c".to_vec() });
    assert_eq!(world.text("f"), "ab\0c");
    assert_eq!(world.run(Op::Truncate { path, size: 1 << 17 }), Err(Errno::EFBIG));
}

#[test]
fn times_follow_what_changes() {
    let mut world = World::new();
    world.mkdir("d"); // 1
    world.file("d/f"); // open 2, write 3, close 4
    let times = |world: &World, path: &str| {
        let at = world.at(path).unwrap();
        (at.mtime.unwrap().0, at.ctime.unwrap().0)
    };
    assert_eq!((times(&world, "d"), times(&world, "d/f")), ((2, 2), (3, 3)));
    world.ok(Op::Chmod { path: Path::parse("d/f"), perm: 0o600 }); // 5
    assert_eq!((times(&world, "d"), times(&world, "d/f")), ((2, 2), (3, 5)));
    world.mv("d/f", "g", RenameMode::Replace).unwrap(); // 6
    assert_eq!((times(&world, "d"), times(&world, "g")), ((6, 6), (3, 6)));
    world.ok(Op::Utimens { path: Path::parse("g"), atime: None, mtime: Some(Wall(-5)) }); // 7
    assert_eq!(times(&world, "g"), (-5, 7));
    assert_eq!(times(&world, ""), (6, 6));
}

#[test]
fn set_group_id_directories_hand_it_on_and_chown_takes_set_id_bits() {
    let mut world = World::new();
    world.mkdir("d");
    world.ok(Op::Chown { path: Path::parse("d"), uid: None, gid: Some(7) });
    world.ok(Op::Chmod { path: Path::parse("d"), perm: 0o2775 });
    world.mkdir("d/e");
    world.file("d/f");
    let (e, f) = (world.at("d/e").unwrap(), world.at("d/f").unwrap());
    assert_eq!((e.perm, e.gid, f.perm, f.gid, f.uid), (0o2755, 7, 0o644, 7, 1000));
    for (perm, left) in [(0o6755, 0o755), (0o6745, 0o2745), (0o4644, 0o644)] {
        world.ok(Op::Chmod { path: Path::parse("d/f"), perm });
        world.ok(Op::Chown { path: Path::parse("d/f"), uid: Some(5), gid: None });
        assert_eq!(world.at("d/f").unwrap().perm, left);
    }
}

#[test]
fn symlinks_fifos_and_xattrs() {
    let mut world = World::new();
    world.ok(Op::Symlink { path: Path::parse("l"), target: b"f".to_vec() });
    world.ok(Op::Mknod { path: Path::parse("p"), kind: Fifo, perm: 0o600, rdev: 5 });
    world.file("f");
    let open = |path| Op::Open { slot: Slot(0), path: Path::parse(path), how: How::default() };
    assert_eq!(world.run(open("l")), Err(Errno::ELOOP));
    assert_eq!(world.run(open("p")), Err(Errno::ENXIO));
    assert_eq!(world.run(open("l/x")), Err(Errno::ENOTDIR));
    assert_eq!(world.at("l").unwrap().kind, Symlink);
    assert_eq!(world.at("f").unwrap().kind, File);
    let mut set = |path, name: &str, mode| {
        let (path, name) = (Path::parse(path), Name::from(name));
        world.run(Op::SetXattr { path, name, value: b"v".to_vec(), mode }).err()
    };
    use XattrMode::{Any, Create, Replace};
    assert_eq!(set("f", "user.a", Replace), Some(Errno::ENODATA));
    assert_eq!(set("f", "user.a", Create), None);
    assert_eq!(set("f", "user.a", Create), Some(Errno::EEXIST));
    assert_eq!(set("l", "user.a", Any), Some(Errno::EPERM));
    assert_eq!(set("p", "user.a", Any), Some(Errno::EPERM));
    assert_eq!(set("f", "user.redis.ttl", Any), Some(Errno::EPERM));
    assert_eq!(set("f", "other.a", Any), Some(Errno::EOPNOTSUPP));
    assert_eq!(set("none", "user.a", Any), Some(Errno::ENOENT));
}

#[test]
fn a_stream_may_or_may_not_return_what_comes_and_goes() {
    let mut world = World::new();
    for path in ["a", "b", "c"] {
        world.file(path);
    }
    let slot = Slot(1);
    let open = Op::OpenDir { slot, path: Path::default() };
    world.ok(open.clone());
    world.ok(Op::Unlink { path: Path::parse("b") });
    world.file("d");
    let read = Op::ReadDir { slot, count: 9 };
    let should = world.0.apply(&read, Wall(0));
    let mut judge = Judge::default();
    let page = |names: &[&str], end| {
        Ok(Outcome::Page { names: names.iter().map(|n| Name::from(*n)).collect(), end })
    };
    assert_eq!(judge.judge(&open, &ModelReply::Is(Ok(Outcome::Done)), &Ok(Outcome::Done)), Ok(()));
    assert_eq!(judge.judge(&read, &should, &page(&["a", "d"], false)), Ok(()));
    assert!(judge.clone().judge(&read, &should, &page(&["a"], false)).is_err(), "twice");
    assert!(judge.clone().judge(&read, &should, &page(&["x"], false)).is_err(), "never there");
    assert!(judge.clone().judge(&read, &should, &page(&[], false)).is_err(), "no progress");
    assert!(judge.clone().judge(&read, &should, &page(&["b"], true)).is_err(), "c is missing");
    assert!(judge.clone().judge(&read, &should, &Err(Errno::EIO)).is_err());
    assert_eq!(judge.judge(&read, &should, &page(&["c"], true)), Ok(()));
    world.ok(Op::RewindDir { slot });
    let rewind = Op::RewindDir { slot };
    assert_eq!(
        judge.judge(&rewind, &ModelReply::Is(Ok(Outcome::Done)), &Ok(Outcome::Done)),
        Ok(())
    );
    let should = world.0.apply(&read, Wall(0));
    assert!(judge.clone().judge(&read, &should, &page(&["a", "b", "c", "d"], true)).is_err());
    assert_eq!(judge.judge(&read, &should, &page(&["d", "c", "a"], true)), Ok(()));
}

/// A sequence is its seed: nothing else goes into it.
#[test]
fn sequences_are_the_same_by_seed_and_differ_between_seeds() {
    let run = |seed| -> Vec<Op> { Generator::new(seed, model_with(caps())).take(300).collect() };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

/// What generated operations come to is what the generator is for: most succeed, every kind of
/// error comes, and every verb is used.
#[test]
fn generated_operations_mean_something() {
    let (mut good, mut bad) = (0, BTreeMap::<Errno, u32>::new());
    let mut verbs = BTreeSet::new();
    for seed in 0..60 {
        let mut model = model_with(caps());
        for (step, op) in Generator::new(seed, model.clone()).take(200).enumerate() {
            let reply = model.apply(&op, Wall(step as i64));
            let debug = alloc::format!("{op:?}");
            verbs.insert(String::from(debug.split(' ').next().unwrap()));
            match reply {
                ModelReply::Is(Err(errno)) => *bad.entry(errno).or_default() += 1,
                _ => good += 1,
            }
        }
    }
    let errors: u32 = bad.values().sum();
    assert!(good > 2 * errors, "{good} succeed, {bad:?}");
    use Errno::*;
    for errno in [
        EBADF,
        EEXIST,
        EINVAL,
        EISDIR,
        ELOOP,
        ENAMETOOLONG,
        ENODATA,
        ENOENT,
        ENOTDIR,
        ENOTEMPTY,
        ENXIO,
        EOPNOTSUPP,
        EPERM,
        E2BIG,
    ] {
        assert!(bad.contains_key(&errno), "{errno} never comes: {bad:?}");
    }
    assert_eq!(verbs.len(), 27, "{verbs:?}");
}

/// Whatever is done, the tree stays one: parents are directories, counts add up, an operation that
/// fails changes nothing, and what is told of one path by `Stat` is what the tree says.
#[test]
fn the_tree_stays_sound_under_any_sequence() {
    for seed in 0..15 {
        let mut random = Random(seed);
        let swarm = Swarm::of(seed);
        let mut model = model_with(caps());
        for step in 1..200 {
            let op = swarm.op(random.draw(), &model);
            let before = model.clone();
            let reply = model.apply(&op, Wall(step));
            let tree = model.tree();
            // (A slot opened into is closed first, whatever becomes of the opening.)
            if let ModelReply::Is(Err(_)) = reply {
                assert_eq!(tree_difference(&before.tree(), &tree), None, "{seed} {op:?}");
            }
            let mut names: BTreeMap<&Path, u32> = BTreeMap::new();
            let mut subdirs: BTreeMap<Path, u32> = BTreeMap::new();
            for (path, summary) in &tree {
                *names.entry(summary.first.as_ref().unwrap()).or_default() += 1;
                if let Some((_, parent)) = path.0.split_last() {
                    let parent = Path(parent.to_vec());
                    assert_eq!(tree[&parent].kind, Dir);
                    *subdirs.entry(parent).or_default() += u32::from(summary.kind == Dir);
                }
                let stat = model.apply(&Op::Stat { path: path.clone() }, Wall(0));
                let ModelReply::Is(Ok(Outcome::Stat(stat))) = stat else { panic!("{path}") };
                assert_eq!(summary.difference(&stat), None);
            }
            for (path, summary) in &tree {
                let links = match summary.kind {
                    Dir => 2 + subdirs.get(path).copied().unwrap_or(0),
                    _ => names[summary.first.as_ref().unwrap()],
                };
                assert_eq!(summary.nlink, Some(links), "{path} after {op:?}");
            }
            let open: BTreeSet<Id> = model.handles.values().map(Handle::id).collect();
            assert!(model.nodes.len() <= tree.len() + open.len(), "nothing is left behind");
        }
    }
}
