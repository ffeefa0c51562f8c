//! A break after each command of each operation, on every layout.

use dbmount_engine::sim::harness::{Bucket, Disk, Keyspace, LoneBucket, Site, Weather};
use dbmount_engine::sim::play::{Stage, broken_everywhere, operations};

use crate::check::check;

fn breaks_nothing<S: Site>(seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let stage = Stage::<S>::new(seed, Weather::CALM);
        check(&stage, operations(&stage, 40), broken_everywhere);
    }
}

#[test]
fn no_break_harms_a_keyspace() {
    breaks_nothing::<Keyspace>(9000..9004);
}

#[test]
fn no_break_harms_a_bucket() {
    breaks_nothing::<Bucket>(9000..9002);
}

#[test]
fn no_break_harms_a_bucket_on_a_standalone() {
    breaks_nothing::<LoneBucket>(9000..9002);
}

#[test]
fn no_break_harms_a_volume() {
    breaks_nothing::<Disk>(9000..9004);
}
