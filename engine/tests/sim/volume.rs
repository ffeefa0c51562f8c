//! A volume is held to the reference model: alone, across remounts, by two mounts at once, and
//! while lanes break and mounts die.

use std::time::Duration;

use dbmount_engine::Wall;
use dbmount_engine::sim::harness::{Disk, Setup, Weather, World};
use dbmount_engine::sim::ops::{Executor, How, Op, Outcome, Path, Slot};
use dbmount_engine::sim::play::{
    Stage, Step, against_model, as_one, in_a_storm, interspersed, operations, turns,
};

use crate::check::check;

#[test]
fn a_mount_is_the_model() {
    for seed in 0..25 {
        let stage: Stage<Disk> = Stage::new(seed, Weather::CALM);
        check(&stage, operations(&stage, 150), against_model);
    }
}

#[test]
fn a_mount_is_the_model_whatever_comes_first() {
    for seed in 1000..1025 {
        let stage: Stage<Disk> = Stage::new(seed, Weather::BREEZE);
        check(&stage, operations(&stage, 150), against_model);
    }
}

#[test]
fn everything_survives_a_remount() {
    for seed in 2000..2025 {
        let weather = if seed % 2 == 0 { Weather::CALM } else { Weather::BREEZE };
        let stage: Stage<Disk> = Stage::new(seed, weather);
        let steps = interspersed(operations(&stage, 120), seed, |_| Step::Remount(0));
        check(&stage, steps, against_model);
    }
}

#[test]
fn a_server_that_tells_nothing_is_asked_again() {
    for seed in 3300..3310 {
        let mut stage: Stage<Disk> = Stage::new(seed, Weather::BREEZE);
        stage.setups[0].tracking = false;
        check(&stage, operations(&stage, 100), against_model);
    }
}

#[test]
fn an_operation_happens_once_or_not_at_all() {
    for seed in 4000..4030 {
        let stage: Stage<Disk> = Stage::new(seed, Weather::STORM);
        check(&stage, operations(&stage, 100), in_a_storm);
    }
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    for seed in 5000..5040 {
        let weather = if seed % 2 == 0 { Weather::BREEZE } else { Weather::STORM };
        let stage: Stage<Disk> = Stage::new(seed, weather);
        let mut steps = operations(&stage, 20 + seed as usize % 60);
        let last = steps.len() - 1;
        steps.insert(last, Step::Crash(0));
        check(&stage, steps, in_a_storm);
    }
}

#[test]
fn two_mounts_are_one_filesystem() {
    for seed in 6000..6025 {
        let stage: Stage<Disk> = Stage::new(seed, Weather::BREEZE).shared(2);
        // What one of them has just changed itself it makes sure of a moment later.
        let moment = |step| match step {
            Step::Look => vec![Step::Sleep(Duration::from_millis(20)), Step::Look],
            other => vec![other],
        };
        let steps = turns(&stage, 120, |_| None).into_iter().flat_map(moment).collect();
        check(&stage, steps, as_one);
    }
}

/// A mount that left took away what another had open, before that could say so.
#[test]
fn what_another_mount_has_open_outlives_who_removed_it() {
    let mut world: World<Disk> = World::new(1, Weather::CALM);
    let (keeper, leaver) = (world.mount(&Setup::default()), world.mount(&Setup::default()));
    let how = How { create: Some(0o600), write: true, ..How::default() };
    let (slot, path) = (Slot(0), Path::parse("file"));
    let write = Op::Write { slot, offset: 0, data: b"kept".to_vec() };
    for op in [Op::Open { slot, path: path.clone(), how }, write, Op::Fsync { slot }] {
        world.fs(keeper).run(&op, Wall(1)).expect("it can be written");
    }
    world.settle();
    world.fs(leaver).run(&Op::Unlink { path }, Wall(2)).expect("it can be removed");
    world.remount(leaver);
    world.settle();
    let read = world.fs(keeper).run(&Op::Read { slot, offset: 0, len: 9 }, Wall(3));
    assert_eq!(read, Ok(Outcome::Bytes(b"kept".to_vec())), "POSIX: until the last close");
    world.fs(keeper).close_all();
    world.sleep(Duration::from_secs(300));
    assert_eq!(world.inspect(), None);
}
