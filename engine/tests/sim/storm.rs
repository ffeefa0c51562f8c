//! Lanes break and stand still, mounts die: what happened happened once or not at all, and what was
//! acknowledged is there.

use dbmount_engine::sim::harness::Weather;
use dbmount_engine::sim::play::{Step, in_a_storm, operations};

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
