//! Shortest scripts of what once went wrong, one for each, named for what must hold.

use std::time::Duration;

use dbmount_engine::backend::redis::Command;
use dbmount_engine::keys::Attrs;
use dbmount_engine::op::{RenameMode, XattrMode};
use dbmount_engine::sim::harness::{Bucket, LoneBucket, Weather};
use dbmount_engine::sim::ops::{How, Op, Path, Slot};
use dbmount_engine::sim::play::{self, against_model, as_one, broken_everywhere};

use crate::check::{Setup, Stage, Step, check};
use crate::shared::as_the_keys;

fn stage() -> Stage {
    Stage { every: 1, aside: true, ..Stage::new(1, Weather::CALM) }
}

fn holds(stage: &Stage, ops: impl IntoIterator<Item = Op>) {
    check(stage, ops.into_iter().map(|op| Step::Run(0, op)).collect(), against_model);
}

fn path(text: &str) -> Path {
    Path::parse(text)
}

fn create(slot: u8, text: &str, perm: u16) -> Op {
    let how = How { create: Some(perm), write: true, ..How::default() };
    Op::Open { slot: Slot(slot), path: path(text), how }
}

fn truncate(slot: u8, text: &str) -> Op {
    let how = How { write: true, truncate: true, ..How::default() };
    Op::Open { slot: Slot(slot), path: path(text), how }
}

fn write(slot: u8, offset: u64) -> Op {
    Op::Write { slot: Slot(slot), offset, data: b"data".to_vec() }
}

fn close(slot: u8) -> Op {
    Op::Close { slot: Slot(slot) }
}

fn read(slot: u8, offset: u64, len: u32) -> Op {
    Op::Read { slot: Slot(slot), offset, len }
}

fn mkdir(text: &str) -> Op {
    Op::Mkdir { path: path(text), perm: 0o700 }
}

fn rename(from: &str, to: &str) -> Op {
    Op::Rename { from: path(from), to: path(to), mode: RenameMode::Replace }
}

fn symlink(text: &str) -> Op {
    Op::Symlink { path: path(text), target: b"nowhere".to_vec() }
}

fn set_xattr(text: &str) -> Op {
    let name = "user.a".into();
    Op::SetXattr { path: path(text), name, value: b"v".to_vec(), mode: XattrMode::Any }
}

fn chgrp(text: &str) -> Op {
    Op::Chown { path: path(text), uid: None, gid: Some(0) }
}

#[test]
fn an_xattr_moves_the_ctime_of_a_record() {
    holds(&stage(), [create(0, "f", 0o711), set_xattr("f"), mkdir("d"), set_xattr("d")]);
}

#[test]
fn a_directory_that_moves_touches_both_parents() {
    holds(&stage(), [mkdir("b"), mkdir("b/foo"), rename("b/foo", "x"), rename("x", "b/y")]);
}

#[test]
fn a_hole_before_dirty_data_reads_as_zeros() {
    holds(&stage(), [create(0, "f", 0o644), write(0, 18_546), read(0, 46, 2000), read(0, 0, 40)]);
}

#[test]
fn a_file_truncated_at_open_reads_as_nothing() {
    let stage = Stage { weather: Weather::BREEZE, ..stage() };
    for seed in 0..8 {
        let ops = [mkdir("d"), create(0, "d/a", 0o644), truncate(1, "d/a"), read(0, 0, 4857)];
        holds(&Stage { seed, ..stage.clone() }, ops);
    }
}

#[test]
fn a_symlink_stands_beside_a_hash_of_its_name() {
    holds(&stage(), [create(0, "a.c", 0o644), symlink("a"), symlink("a.d")]);
    holds(&stage(), [symlink("a"), create(0, "a.c", 0o644)]);
}

#[test]
fn write_back_turns_no_ctime_back() {
    holds(&stage(), [create(0, "f", 0o711), write(0, 0), chgrp("f"), close(0)]);
    let times = Op::Utimens { path: path("f"), atime: None, mtime: Some(dbmount_engine::Wall(-1)) };
    holds(&stage(), [create(0, "f", 0o711), write(0, 0), times, close(0)]);
}

#[test]
fn a_file_without_a_name_leaves_the_next_of_that_name_alone() {
    let resize = Op::FTruncate { slot: Slot(1), size: 6 };
    holds(&stage(), [create(0, "b", 0o644), create(1, "a", 0o644), rename("b", "a"), resize]);
}

#[test]
fn a_write_to_one_field_leaves_the_times_of_the_others() {
    let ops = [create(0, "b.c", 0o644), create(1, "b", 0o644), create(2, "b.o", 0o644), close(1)];
    let mut steps: Vec<Step> = ops.into_iter().map(|op| Step::Run(0, op)).collect();
    // Longer than an echo may take.
    steps.push(Step::Sleep(Duration::from_secs(1)));
    steps.extend([write(0, 0), close(0)].map(|op| Step::Run(0, op)));
    steps.push(Step::Sleep(Duration::from_secs(1)));
    steps.push(Step::Run(0, Op::Unlink { path: path("b.o") }));
    check(&stage(), steps, against_model);
}

#[test]
fn a_renamed_directory_leaves_the_times_of_its_files() {
    let ops = [mkdir("d"), create(0, "d/f", 0o644), close(0)].map(|op| Step::Run(0, op));
    let mut steps = Vec::from(ops);
    steps.push(Step::Sleep(Duration::from_secs(1)));
    steps.push(Step::Run(0, rename("d", "e")));
    check(&stage(), steps, against_model);
}

#[test]
fn a_removed_directory_is_there_for_who_stands_in_it() {
    let ops = [
        mkdir("d"),
        Op::OpenDir { slot: Slot(0), path: path("d") },
        Op::Rmdir { path: path("d") },
        Op::FStat { slot: Slot(0) },
        Op::ReadDir { slot: Slot(0), count: 5 },
    ];
    holds(&stage(), ops);
}

#[test]
fn a_directory_with_xattrs_replaces_another() {
    let ops = [mkdir("a"), set_xattr("a"), mkdir("b"), set_xattr("b"), rename("a", "b")];
    holds(&stage(), ops);
}

#[test]
fn empty_directories_in_memory_move_with_their_parent() {
    let mut stage = stage();
    stage.setups[0].options.attrs = Attrs::Session;
    holds(&stage, [mkdir("a"), mkdir("a/b"), mkdir("a/b/c"), rename("a", "x"), symlink("x/b/l")]);
}

#[test]
fn a_mode_goes_with_its_record_when_another_mount_replaces_the_file() {
    let setup = Setup::default();
    let stage = Stage { setups: vec![setup.clone(), setup], ..stage() };
    let steps = vec![
        Step::Run(0, create(0, "a", 0o777)),
        Step::Run(0, close(0)),
        Step::Look,
        Step::Run(1, create(0, "b", 0o644)),
        Step::Run(1, close(0)),
        Step::Run(1, rename("b", "a")),
        Step::Look,
    ];
    check(&stage, steps, as_one);
}

#[test]
fn the_empty_key_is_a_key() {
    for words in [vec!["HSET", "", "b", "1"], vec!["LPUSH", "", "x"], vec!["SET", "", "x"]] {
        let steps = vec![Step::Foreign(Command::plain(words)), Step::Look];
        check(&stage(), steps, as_the_keys);
    }
}

/// Replies that cross the push of a `FLUSHDB` tell of what was there before.
#[test]
fn nothing_is_left_after_a_flushdb() {
    for seed in 0..40 {
        let stage = Stage { seed, weather: Weather::BREEZE, ..stage() };
        let mut steps: Vec<Step> = ["a", "b", "c", "b/d"].map(|it| Step::Run(0, mkdir(it))).into();
        steps.extend([Step::Foreign(Command::plain(["FLUSHDB"])), Step::Look]);
        check(&stage, steps, as_the_keys);
    }
}

/// Their side hashes had come to the same count of changes.
#[test]
fn a_directory_in_the_place_of_another_is_seen_by_the_other_mount() {
    let setup = Setup::default();
    let caching = Setup { kernel_caches: true, ..setup.clone() };
    for seed in 0..20 {
        let setups = vec![caching.clone(), setup.clone()];
        let stage = Stage { seed, weather: Weather::BREEZE, setups, ..stage() };
        let odd = |text: &str| Op::Mkdir { path: path(text), perm: 0 };
        let steps = vec![
            Step::Run(1, mkdir("a")),
            Step::Run(1, odd("a/b")),
            Step::Run(0, mkdir("c")),
            Step::Run(1, mkdir("c/d")),
            Step::Look,
            Step::Run(1, rename("c/d", "a/b")),
            Step::Look,
            Step::Run(1, Op::Rmdir { path: path("a/b") }),
            Step::Run(1, odd("a/b")),
            Step::Look,
            Step::Run(1, Op::Rmdir { path: path("a/b") }),
            Step::Run(1, mkdir("a/b")),
            Step::Look,
        ];
        check(&stage, steps, as_one);
    }
}

#[test]
fn a_rewrite_that_is_published_late_does_not_take_back_a_change_time() {
    let stage = play::Stage::<Bucket>::new(1, Weather::CALM);
    let link = |from: &str, to: &str| Op::Link { from: path(from), to: path(to) };
    let ops = vec![
        create(5, "a", 0o644),
        Op::FTruncate { slot: Slot(5), size: 55 },
        truncate(0, "a"),
        link("a", "b"),
        close(5),
        close(0),
    ];
    let steps = ops.into_iter().map(|op| play::Step::Run(0, op)).collect();
    check(&stage, steps, against_model);
}

/// Played on a standalone, where nothing is all or none, with a break after each command.
fn holds_broken(ops: Vec<Op>) {
    let stage = play::Stage::<LoneBucket>::new(1, Weather::CALM);
    let steps: Vec<play::Step<LoneBucket>> =
        ops.into_iter().map(|op| play::Step::Run(0, op)).collect();
    check(&stage, steps.clone(), against_model);
    check(&stage, steps, broken_everywhere);
}

#[test]
fn a_directory_does_not_replace_the_one_it_is_in() {
    holds_broken(vec![mkdir("a"), mkdir("a/b"), rename("a/b", "a")]);
}

#[test]
fn a_directory_that_may_not_replace_another_stays_where_it_was() {
    holds_broken(vec![mkdir("a"), mkdir("b"), symlink("b/l"), rename("a", "b")]);
}

#[test]
fn a_directory_is_not_removed_with_what_is_in_it_when_a_reply_is_lost() {
    holds_broken(vec![mkdir("a"), symlink("a/l"), Op::Rmdir { path: path("a") }]);
}
