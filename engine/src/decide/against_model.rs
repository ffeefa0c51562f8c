//! The decisions against the reference model: plans applied to plain maps must make the same
//! filesystem, step by step.

mod store;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Caps;
use super::testing::ME;
use crate::sim::generate::Generator;
use crate::sim::model::Model;
use crate::sim::ops::{Executor, Judge, Op, Path, shrink, tree_difference};
use crate::time::Wall;
use store::Store;

/// Every step of every sequence comes to the same, and leaves the same tree.
fn agrees(caps: Caps, seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let ops: Vec<Op> = Generator::new(seed, model(caps)).take(150).collect();
        if disagreement(caps, &ops).is_none() {
            continue;
        }
        let ops = shrink(ops, |ops| disagreement(caps, ops).is_some());
        let why = disagreement(caps, &ops).unwrap();
        let lines: Vec<String> = ops.iter().map(|op| format!("{op:?}")).collect();
        let lines: Vec<&str> = lines.iter().map(|line| &line[..line.len().min(200)]).collect();
        panic!("seed {seed}: {why} after {lines:#?}");
    }
}

fn model(caps: Caps) -> Model {
    let root = Store::new(caps).tree().remove(&Path::default()).unwrap();
    Model::new(caps, ME, &root)
}

fn disagreement(caps: Caps, ops: &[Op]) -> Option<String> {
    let (mut model, mut store, mut judge) = (model(caps), Store::new(caps), Judge::default());
    ops.iter().zip(1..).find_map(|(op, now)| {
        let (should, is) = (model.apply(op, Wall(now)), store.run(op, Wall(now)));
        if let Err(why) = judge.judge(op, &should, &is) {
            return Some(why);
        }
        if let Some(ino) = store.lost() {
            return Some(format!("{ino:?} is lost"));
        }
        tree_difference(&model.tree(), &store.tree())
    })
}

const FULL: Caps = Caps {
    hard_links: true,
    special_files: true,
    exchange: true,
    max_file_size: 1 << 14,
    max_links: 6,
    max_xattr_size: 256,
    reserved_xattrs: &[b"user.redis."],
    dir_nlink: true,
    rename_ctime: true,
    ..Caps::LEAST
};

#[test]
fn decisions_agree_with_the_model_where_everything_can_be_held() {
    agrees(FULL, 0..150);
}

#[test]
fn decisions_agree_with_the_model_where_little_can_be_held() {
    let little = Caps {
        hard_links: false,
        special_files: false,
        exchange: false,
        max_xattr_size: 0,
        dir_nlink: false,
        rename_ctime: false,
        ..FULL
    };
    agrees(little, 1000..1100);
}
