//! Everything goes wrong that can with a network and a server, and mounts die: what happened
//! happened once or not at all, and what was acknowledged is there.

use dbmount_engine::sim::harness::{Bucket, Keyspace, LoneBucket, Site, Tally, Trouble, Weather};
use dbmount_engine::sim::play::{self, Step, in_a_storm, operations};

use crate::check::{Stage, check};

#[test]
fn an_operation_happens_once_or_not_at_all() {
    for seed in 4000..4040 {
        let stage = Stage::new(seed, Weather::STORM);
        check(&stage, operations(&stage, 100), in_a_storm);
    }
}

#[test]
fn what_was_acknowledged_outlives_a_crash() {
    for seed in 5000..5080 {
        let weather = if seed % 2 == 0 { Weather::BREEZE } else { Weather::STORM };
        let stage = Stage::new(seed, weather);
        let mut steps = operations(&stage, 20 + seed as usize % 60);
        // The last operation is the one in which the mount dies.
        let last = steps.len() - 1;
        steps.insert(last, Step::Crash(0));
        check(&stage, steps, in_a_storm);
    }
}

/// Each seed has its own mixture of troubles; all of them come, whatever the seeds.
fn outlives_troubles<S: Site>(among: &[Trouble], seeds: core::ops::Range<u64>) {
    let tally = Tally::default();
    for seed in seeds {
        let weather = Weather::swarm(seed, among);
        let stage = play::Stage::<S> { tally: tally.clone(), ..play::Stage::new(seed, weather) };
        check(&stage, operations(&stage, 80), in_a_storm);
    }
    println!("{}: {:?}", S::NAME, tally.counts());
    assert_eq!(tally.missing(among), [], "{:?}", tally.counts());
}

#[test]
fn a_keyspace_outlives_all_troubles() {
    outlives_troubles::<Keyspace>(Keyspace::TROUBLES, 10_000..10_016);
}

#[test]
fn a_bucket_on_a_set_outlives_all_troubles() {
    outlives_troubles::<Bucket>(Bucket::TROUBLES, 10_000..10_016);
}

#[test]
fn a_bucket_on_a_standalone_outlives_all_troubles() {
    outlives_troubles::<LoneBucket>(LoneBucket::TROUBLES, 10_000..10_016);
}
