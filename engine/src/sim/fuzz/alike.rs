//! The same operations on every layout: what all of them can do comes to the same on all of them.
//!
//! Each layout is held to the reference model elsewhere. Here no model judges, so that what the
//! model leaves open is seen too: it only tells which operations all layouts can do.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Numbers, OPERATIONS};
use crate::sim::generate::{Draw, Swarm};
use crate::sim::harness::{Bucket, Disk, Keyspace, Site, Weather, World};
use crate::sim::model::Model;
use crate::sim::ops::tree_difference;
use crate::sim::ops::{Executor, Judge, ModelReply, Op, Outcome, Path, Reply, Summary};
use crate::sim::play::{Stage, timeless};
use crate::time::Wall;

/// A mount of some layout, and what is known of it.
trait Side {
    fn name(&self) -> &'static str;
    fn model(&mut self) -> &mut Model;
    fn run(&mut self, op: &Op, now: Wall) -> Reply;
    fn tree(&mut self) -> BTreeMap<Path, Summary>;
}

struct Mounted<S: Site> {
    world: World<S>,
    model: Model,
}

fn side<S: Site>(seed: u64, weather: Weather) -> Box<dyn Side> {
    let stage = Stage::<S>::new(seed, weather);
    Box::new(Mounted { world: stage.world(), model: stage.model() })
}

impl<S: Site> Side for Mounted<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    fn run(&mut self, op: &Op, now: Wall) -> Reply {
        self.world.fs(0).run(op, now)
    }

    fn tree(&mut self) -> BTreeMap<Path, Summary> {
        self.world.settle();
        self.world.fs(0).tree()
    }
}

/// Plays `data` as operations on all layouts side by side.
pub(super) fn alike(data: &[u8]) {
    let mut numbers = Numbers::new(data);
    let weather = [Weather::CALM, Weather::BREEZE][numbers.below(2)];
    let seed = u64::from(numbers.short());
    // Keys come first: they can do the least, so operations that are drawn for them mean something
    // on the others.
    let mut sides = [
        side::<Keyspace>(seed, weather),
        side::<Bucket>(seed, weather),
        side::<Disk>(seed, weather),
    ];
    let swarm = Swarm::all();
    let mut done: Vec<Op> = Vec::new();
    let mut draws = 0;
    while !numbers.is_empty() && draws < OPERATIONS {
        draws += 1;
        let verb = u32::from(numbers.byte());
        let (a, b, c) = (numbers.short(), numbers.short(), numbers.short());
        let op = swarm.op(Draw { verb, a, b, c: c << 16 | c }, sides[0].model());
        let now = Wall(draws as i64);
        if is_of_stream(&op, sides[0].model()) || !all_can(&mut sides, &op, now) {
            continue;
        }
        done.push(op.clone());
        let replies: Vec<Reply> = sides.iter_mut().map(|side| side.run(&op, now)).collect();
        for (side, reply) in sides.iter().zip(&replies).skip(1) {
            if let Some(why) = difference(&op, &replies[0], reply) {
                let (one, other) = (sides[0].name(), side.name());
                panic!("{one} and {other}: {why}\nseed {seed} in {weather:?}, after {done:#?}");
            }
        }
    }
    let trees: Vec<_> = sides.iter_mut().map(|side| comparable(side.tree())).collect();
    for (side, tree) in sides.iter().zip(&trees).skip(1) {
        if let Some(why) = tree_difference(&trees[0], tree) {
            let (one, other) = (sides[0].name(), side.name());
            panic!("{one} and {other} show: {why}\nseed {seed} in {weather:?}, after {done:#?}");
        }
    }
}

/// `fstat` of a directory: one that was removed while it is open is remembered by keys, mostly by
/// buckets, and not by volumes (`ESTALE`), so that it is not compared.
fn is_of_stream(op: &Op, model: &Model) -> bool {
    matches!(op, Op::FStat { slot } if model.slots().contains(&(*slot, true)))
}

/// Whether an operation should come to the same on all of them. If so, the models have done it.
fn all_can(sides: &mut [Box<dyn Side>], op: &Op, now: Wall) -> bool {
    let mut after: Vec<Model> = sides.iter_mut().map(|side| side.model().clone()).collect();
    let should: Vec<ModelReply> = after.iter_mut().map(|model| model.apply(op, now)).collect();
    let all = should.iter().skip(1).all(|other| match (&should[0], other) {
        (ModelReply::Is(one), ModelReply::Is(other)) => difference(op, one, other).is_none(),
        (one, other) => one == other,
    });
    if all {
        for (side, after) in sides.iter_mut().zip(after) {
            *side.model() = after;
        }
    }
    all
}

/// How two replies to one operation differ.
fn difference(op: &Op, one: &Reply, other: &Reply) -> Option<String> {
    let judge = |should: &Reply, is: &Reply| {
        Judge::default().judge(op, &ModelReply::Is(should.clone()), is).is_ok()
    };
    match (one, other) {
        // The order of a listing is each layout's own; all entries are compared at the end.
        (Ok(Outcome::Page { .. }), Ok(Outcome::Page { .. })) => None,
        (Ok(Outcome::Stat(one)), Ok(Outcome::Stat(other))) => {
            let mut pair = [one.clone(), other.clone()];
            pair.iter_mut().for_each(strip);
            pair[0].difference(&pair[1])
        }
        _ if judge(one, other) || judge(other, one) => None,
        _ => Some(format!("{op:?} is {one:?} and {other:?}")),
    }
}

/// Takes out what each layout keeps in its own way.
fn strip(summary: &mut Summary) {
    // A layout that keeps no hard links counts no subdirectories either.
    summary.nlink = None;
    (summary.mtime, summary.ctime) = (None, None);
}

fn comparable(mut tree: BTreeMap<Path, Summary>) -> BTreeMap<Path, Summary> {
    timeless(&mut tree);
    tree.values_mut().for_each(strip);
    tree
}
