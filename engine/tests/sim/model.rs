//! One mount against the reference model: step by step, across remounts, with other options.

use std::collections::BTreeMap;

use dbmount_engine::keys::name::Naming;
use dbmount_engine::keys::{Attrs, Options};
use dbmount_engine::sim::harness::Weather;
use dbmount_engine::sim::ops::{Executor, How, Op, Outcome, Path, Slot};
use dbmount_engine::sim::play::{against_model, interspersed, operations};
use dbmount_engine::{Name, Wall};

use crate::check::{Setup, Stage, Step, World, check};

#[test]
fn a_mount_is_the_model() {
    for seed in 0..25 {
        let stage = Stage::new(seed, Weather::CALM);
        check(&stage, operations(&stage, 150), against_model);
    }
}

#[test]
fn a_mount_is_the_model_whatever_comes_first() {
    for seed in 1000..1025 {
        let stage = Stage::new(seed, Weather::BREEZE);
        check(&stage, operations(&stage, 150), against_model);
    }
}

#[test]
fn everything_survives_a_remount_but_times_nobody_set() {
    for seed in 2000..2025 {
        let weather = if seed % 2 == 0 { Weather::CALM } else { Weather::BREEZE };
        let stage = Stage::new(seed, weather);
        let steps = interspersed(operations(&stage, 120), seed, |_| Step::Remount(0));
        check(&stage, steps, against_model);
    }
}

fn with_options(seeds: core::ops::Range<u64>, remounts: bool, options: impl Fn(u64) -> Options) {
    for seed in seeds {
        let mut stage = Stage::new(seed, Weather::BREEZE);
        let before = stage.setups[0].options.clone();
        let options = Options { uid: before.uid, gid: before.gid, ..options(seed) };
        stage.setups[0].options = options;
        let mut steps = operations(&stage, 100);
        if remounts {
            steps = interspersed(steps, seed, |_| Step::Remount(0));
        }
        check(&stage, steps, against_model);
    }
}

#[test]
fn a_prefix_and_other_delimiters_change_nothing() {
    with_options(3000..3020, true, |seed| {
        let delimiter = [b'/', b'|', b'-', b'a', b' '][seed as usize % 5];
        let naming = Naming::new(delimiter).unwrap();
        // Without it the names of the generator would meet dbmount's own keys.
        Options { naming, prefix: b"app".to_vec(), ..Options::default() }
    });
}

#[test]
fn attributes_in_memory_last_for_the_session() {
    with_options(3100..3120, false, |_| Options { attrs: Attrs::Session, ..Options::default() });
}

#[test]
fn large_directories_are_renamed_step_by_step() {
    with_options(3200..3215, true, |_| Options { tree_keys: 1, ..Options::default() });
}

#[test]
fn a_server_that_tells_nothing_is_asked_again() {
    for seed in 3300..3310 {
        let mut stage = Stage::new(seed, Weather::BREEZE);
        stage.setups[0].tracking = false;
        check(&stage, operations(&stage, 100), against_model);
    }
}

#[test]
fn small_caches_forget_and_ask_again() {
    for seed in 3400..3415 {
        let mut stage = Stage::new(seed, Weather::BREEZE);
        let config = &mut stage.setups[0].config;
        config.fact_entries = 1 + seed as usize % 7;
        config.cache_bytes = 4096;
        config.dirty_bytes = 8192;
        config.flush_bytes = 2048;
        config.block_bytes = 1024;
        config.readahead_bytes = 4096;
        config.listing_entries = 1 + seed as usize % 3;
        check(&stage, operations(&stage, 120), against_model);
    }
}

/// Times that somebody set are attributes like any other.
#[test]
fn times_that_were_set_survive_a_remount() {
    let mut world = World::new(1, Weather::CALM);
    let at = world.mount(&Setup::default());
    let (slot, path) = (Slot(0), Path::parse("dir/file.txt"));
    let how = How { create: Some(0o644), write: true, ..How::default() };
    let mtime = Some(Wall(1_234_567_890_123_456_789));
    let ops = [
        Op::Mkdir { path: Path::parse("dir"), perm: 0o755 },
        Op::Open { slot, path: path.clone(), how },
        Op::Write { slot, offset: 0, data: b"text".to_vec() },
        Op::Utimens { path: path.clone(), atime: None, mtime },
        Op::Close { slot },
        Op::Utimens { path: Path::parse("dir"), atime: None, mtime },
    ];
    for (op, now) in ops.iter().zip(1..) {
        let done = world.fs(at).run(op, Wall(now));
        assert!(matches!(done, Ok(Outcome::Done | Outcome::Written(4))), "{op:?}: {done:?}");
    }
    world.remount(at);
    let tree = world.fs(at).tree();
    let times: BTreeMap<&Path, _> = tree.iter().map(|(path, it)| (path, it.mtime)).collect();
    assert_eq!(times[&path], mtime);
    assert_eq!(times[&Path::parse("dir")], mtime);
}

/// `echo x > f` leaves one key and nothing else.
#[test]
fn what_is_as_usual_leaves_one_key() {
    let mut world = World::new(1, Weather::CALM);
    let at = world.mount(&Setup::default());
    let how = How { create: Some(0o644), write: true, truncate: true, ..How::default() };
    for name in ["f", "g.txt"] {
        let slot = Slot(0);
        let path = Path(vec![Name::from(name)]);
        for op in [
            Op::Open { slot, path, how },
            Op::Write { slot, offset: 0, data: b"x\n".to_vec() },
            Op::Close { slot },
        ] {
            world.fs(at).run(&op, Wall(1)).unwrap();
        }
    }
    world.settle();
    assert_eq!(world.server().keys(0), ["f", "g"]);
}
