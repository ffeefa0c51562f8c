//! The GridFS layout over the simulated MongoDB, a replica set and a standalone, against the
//! reference model.

use dbmount_engine::sim::harness::{Bucket, LoneBucket, Site, Weather};
use dbmount_engine::sim::ops::Op;
use dbmount_engine::sim::play::{Stage, Step, against_model, interspersed, operations};

use crate::check::check;

fn is_the_model<S: Site>(seeds: core::ops::Range<u64>, weather: Weather) {
    for seed in seeds {
        let stage = Stage::<S>::new(seed, weather);
        let mut steps = operations(&stage, 60);
        // The world's kernel does not know of hard links yet.
        steps.retain(|step| !matches!(step, Step::Run(_, Op::Link { .. })));
        let steps = interspersed(steps, seed, |_| Step::Remount(0));
        check(&stage, steps, against_model);
    }
}

#[test]
fn a_bucket_on_a_replica_set_is_the_model() {
    is_the_model::<Bucket>(5000..5005, Weather::CALM);
}

#[test]
fn a_bucket_on_a_standalone_is_the_model() {
    is_the_model::<LoneBucket>(5100..5104, Weather::CALM);
}
