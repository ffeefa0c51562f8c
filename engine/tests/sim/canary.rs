//! Faults that are put in on purpose: each must be noticed.

use dbmount_engine::Config;
use dbmount_engine::sim::harness::{Bucket, Disk, Keyspace, Sabotage, Site, Trouble, Weather};
use dbmount_engine::sim::play::{
    Stage, Step, against_model, as_one, in_a_storm, operations, turns,
};

use crate::check::quietly;

/// Some seed shows it. Without the fault none of them shows anything.
fn is_noticed<S: Site>(
    sabotage: Sabotage,
    seeds: core::ops::Range<u64>,
    stage: impl Fn(u64) -> Stage<S>,
    script: impl Fn(&Stage<S>) -> Vec<Step<S>>,
    play: fn(&Stage<S>, &[Step<S>]) -> Option<String>,
) {
    for seed in seeds {
        let stage = Stage { sabotage: Some(sabotage), ..stage(seed) };
        let steps = script(&stage);
        if quietly(|| play(&stage, &steps)).is_some() {
            let sound = Stage { sabotage: None, ..stage };
            let why = quietly(|| play(&sound, &steps));
            assert_eq!(why, None, "{}, seed {seed}: nothing was put in", S::NAME);
            return;
        }
    }
    panic!("{}: nobody noticed {sabotage:?}", S::NAME);
}

fn alone<S: Site>(sabotage: Sabotage) {
    let stage = |seed| Stage::<S>::new(seed, Weather::BREEZE);
    is_noticed(sabotage, 0..20, stage, |it| operations(it, 120), against_model);
}

fn together<S: Site>(sabotage: Sabotage) {
    let stage = |seed| Stage::<S>::new(seed, Weather::BREEZE).shared(2);
    is_noticed(sabotage, 6000..6020, stage, |it| turns(it, 80, |_| None), as_one);
}

fn in_storms<S: Site>(sabotage: Sabotage) {
    let stage = |seed| Stage::<S>::new(seed, Weather::STORM);
    is_noticed(sabotage, 4000..4040, stage, |it| operations(it, 100), in_a_storm);
}

#[test]
fn a_commit_that_is_applied_twice_is_noticed() {
    in_storms::<Keyspace>(Sabotage::TokensForgotten);
    in_storms::<Disk>(Sabotage::TokensForgotten);
}

#[test]
fn a_directory_removed_with_all_that_is_in_it_is_noticed() {
    alone::<Disk>(Sabotage::EmptinessUnchecked);
    alone::<Bucket>(Sabotage::EmptinessUnchecked);
}

#[test]
fn a_name_that_is_believed_not_to_be_there_for_too_long_is_noticed() {
    together::<Keyspace>(Sabotage::PushesLost);
    together::<Bucket>(Sabotage::PushesLost);
}

#[test]
fn a_kernel_that_is_not_told_is_noticed() {
    together::<Keyspace>(Sabotage::InvalidationsLost);
}

#[test]
fn a_short_write_that_is_reported_as_whole_is_noticed() {
    alone::<Keyspace>(Sabotage::WritesCutShort);
}

#[test]
fn a_close_that_is_answered_early_is_noticed() {
    together::<Keyspace>(Sabotage::SyncsAnsweredEarly);
}

#[test]
fn an_fsync_that_a_crash_of_the_server_takes_back_is_noticed() {
    let weather = Weather::BREEZE.with(Trouble::Loss);
    let stage = |seed| Stage::<Bucket>::new(seed, weather);
    is_noticed(Sabotage::SyncsUnsafe, 4000..4060, stage, |it| operations(it, 100), in_a_storm);
}

#[test]
fn what_is_left_over_is_noticed() {
    alone::<Disk>(Sabotage::LeftoversKept);
}

#[test]
fn a_failure_that_nobody_speaks_of_is_noticed() {
    in_storms::<Keyspace>(Sabotage::NoticesLost);
}

fn small(sabotage: Sabotage, make_small: fn(&mut Config)) {
    let stage = |seed| {
        let mut stage = Stage::<Keyspace>::new(seed, Weather::BREEZE);
        make_small(&mut stage.setups[0].config);
        stage
    };
    is_noticed(sabotage, 0..20, stage, |it| operations(it, 120), against_model);
}

#[test]
fn a_bound_on_memory_that_is_ignored_is_noticed() {
    small(Sabotage::DirtUnbounded, |config| config.dirty_bytes = 8192);
    small(Sabotage::BlocksUnbounded, |config| config.cache_bytes = 4096);
    small(Sabotage::FactsUnbounded, |config| config.fact_entries = 8);
}

#[test]
fn an_answer_that_comes_too_late_is_noticed() {
    in_storms::<Keyspace>(Sabotage::AnswersLate);
}
