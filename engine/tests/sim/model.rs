//! The mount against the reference model.

use dbmount_engine::sim::harness::Weather;

use crate::play::{Stage, against_model, check, operations};

#[test]
fn a_mount_is_the_model() {
    for seed in 0..40 {
        let stage = Stage::new(seed, Weather::CALM);
        check(&stage, operations(&stage, 150), against_model);
    }
}

#[test]
fn a_mount_is_the_model_whatever_comes_first() {
    for seed in 1000..1040 {
        let stage = Stage::new(seed, Weather::BREEZE);
        check(&stage, operations(&stage, 150), against_model);
    }
}
