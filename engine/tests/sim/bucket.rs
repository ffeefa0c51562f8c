//! GridFS buckets, on a replica set and on a standalone, in every play.

use dbmount_engine::sim::harness::{Bucket, LoneBucket, Site, Weather};
use dbmount_engine::sim::play::{
    Stage, Step, against_model, as_one, in_a_storm, interspersed, operations, turns,
};

use crate::check::check;

fn is_the_model<S: Site>(seeds: core::ops::Range<u64>, weather: Weather) {
    for seed in seeds {
        let stage = Stage::<S>::new(seed, weather);
        check(&stage, operations(&stage, 120), against_model);
    }
}

fn survives_remounts<S: Site>(seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let weather = if seed % 2 == 0 { Weather::CALM } else { Weather::BREEZE };
        let stage = Stage::<S>::new(seed, weather);
        let steps = interspersed(operations(&stage, 100), seed, |_| Step::Remount(0));
        check(&stage, steps, against_model);
    }
}

fn is_one_filesystem<S: Site>(seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let stage = Stage::<S>::new(seed, Weather::BREEZE).shared(2);
        check(&stage, turns(&stage, 80, |_| None), as_one);
    }
}

fn outlives_storms<S: Site>(seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let stage = Stage::<S>::new(seed, Weather::STORM);
        check(&stage, operations(&stage, 80), in_a_storm);
    }
}

fn outlives_crashes<S: Site>(seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let weather = if seed % 2 == 0 { Weather::BREEZE } else { Weather::STORM };
        let stage = Stage::<S>::new(seed, weather);
        let mut steps = operations(&stage, 20 + seed as usize % 60);
        // The last operation is the one in which the mount dies.
        let last = steps.len() - 1;
        steps.insert(last, Step::Crash(0));
        check(&stage, steps, in_a_storm);
    }
}

#[test]
fn a_mount_on_a_set_is_the_model() {
    is_the_model::<Bucket>(0..8, Weather::CALM);
}

#[test]
fn a_mount_on_a_set_is_the_model_whatever_comes_first() {
    is_the_model::<Bucket>(1000..1008, Weather::BREEZE);
}

#[test]
fn a_mount_on_a_standalone_is_the_model() {
    is_the_model::<LoneBucket>(0..8, Weather::CALM);
}

#[test]
fn a_mount_on_a_standalone_is_the_model_whatever_comes_first() {
    is_the_model::<LoneBucket>(1000..1008, Weather::BREEZE);
}

#[test]
fn everything_on_a_set_survives_a_remount() {
    survives_remounts::<Bucket>(2000..2008);
}

#[test]
fn everything_on_a_standalone_survives_a_remount() {
    survives_remounts::<LoneBucket>(2000..2008);
}

#[test]
fn two_mounts_of_a_set_are_one_filesystem() {
    is_one_filesystem::<Bucket>(6000..6012);
}

#[test]
fn an_operation_on_a_set_happens_once_or_not_at_all() {
    outlives_storms::<Bucket>(4000..4012);
}

#[test]
fn an_operation_on_a_standalone_happens_once_or_not_at_all() {
    outlives_storms::<LoneBucket>(4000..4012);
}

#[test]
fn what_a_set_acknowledged_outlives_a_crash() {
    outlives_crashes::<Bucket>(5000..5020);
}

#[test]
fn what_a_standalone_acknowledged_outlives_a_crash() {
    outlives_crashes::<LoneBucket>(5000..5020);
}
