//! Lanes break and stand still, mounts die: what happened happened once or not at all, and what was
//! acknowledged is there.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Stage, Step, end, timeless, without_time};
use crate::errno::Errno;
use crate::sim::generate::Random;
use crate::sim::harness::{Site, Weather, World};
use crate::sim::model::Model;
use crate::sim::ops::{Executor, Judge, Op, Path, Slot, Summary, tree_difference};
use crate::time::Wall;

type Tree = BTreeMap<Path, Summary>;

/// The tree as it is when everything has come to rest.
pub(super) fn look<S: Site>(world: &mut World<S>) -> Tree {
    world.settle();
    let weather = world.set_weather(Weather::CALM);
    let tree = world.fs(0).tree();
    world.set_weather(weather);
    tree
}

fn close_all(model: &mut Model) {
    for (slot, _) in model.slots() {
        model.apply(&Op::Close { slot }, Wall(0));
    }
}

/// What happened happened once or not at all, and what was acknowledged outlives a crash.
pub fn in_a_storm<S: Site>(stage: &Stage<S>, steps: &[Step<S>]) -> Option<String> {
    let mut world = stage.world();
    let mut model = stage.model();
    let mut judge = Judge::default();
    let mut dies = false;
    // Slots through which something was written that nobody has acknowledged yet.
    let mut dirty: BTreeSet<Slot> = BTreeSet::new();
    for (n, step) in steps.iter().enumerate() {
        let now = Wall(n as i64 + 1);
        let op = match step {
            Step::Run(_, op) => op,
            Step::Crash(at) => {
                world.doom(*at, 1 + Random(stage.seed).next() % 24);
                dies = true;
                continue;
            }
            other => return Some(format!("not in this play: {other:?}")),
        };
        let before = model.clone();
        let said = world.notices(0).len();
        let should = without_time(model.apply(op, now));
        let is = world.fs(0).run(op, now);
        note_dirty(&mut dirty, op, is.is_ok());
        if dies {
            // It may have ended in the middle, or done it all and died afterwards.
            dirty.extend(slot_of(op));
            return after_the_crash(&mut world, [before, model], &dirty);
        }
        if is == Err(Errno::EIO) {
            let gave_up = |text: &str| text.contains("gave up");
            if !world.notices(0)[said..].iter().any(|notice| gave_up(&notice.text)) {
                return Some(format!("step {n}: EIO, and nobody gave up"));
            }
            model = match one_of_two(&mut world, before, model) {
                Ok(model) => model,
                Err(why) => return Some(format!("step {n}: {why}")),
            };
            (judge, dirty) = (Judge::default(), BTreeSet::new());
            continue;
        }
        if let Err(why) = judge.judge(op, &should, &is) {
            return Some(format!("step {n}, {op:?}: {why}; {:?}", world.notices(0).last()));
        }
        if (n + 1) % stage.every == 0 {
            let mut should = model.tree();
            timeless(&mut should);
            if let Some(why) = tree_difference(&should, &look(&mut world)) {
                return Some(format!("step {n}: {why}"));
            }
        }
    }
    world.set_weather(Weather::CALM);
    end(&mut world)
}

/// Which of the two an operation of unknown fate has come to.
fn one_of_two<S: Site>(
    world: &mut World<S>,
    mut before: Model,
    mut after: Model,
) -> Result<Model, String> {
    // What lost its last name in an operation of unknown fate cannot be found again by those who
    // have it open.
    world.settle();
    world.fs(0).close_all();
    close_all(&mut before);
    close_all(&mut after);
    let is = look(world);
    let differs = |model: &Model| {
        let mut should = model.tree();
        timeless(&mut should);
        tree_difference(&should, &is)
    };
    match (differs(&before), differs(&after)) {
        (_, None) => Ok(after),
        (None, _) => Ok(before),
        (Some(not), Some(done)) => Err(format!("neither undone ({not}) nor done ({done})")),
    }
}

pub(super) fn slot_of(op: &Op) -> Option<Slot> {
    match op {
        Op::Open { slot, .. }
        | Op::Close { slot }
        | Op::Write { slot, .. }
        | Op::FTruncate { slot, .. }
        | Op::Fallocate { slot, .. }
        | Op::CopyRange { to: slot, .. } => Some(*slot),
        _ => None,
    }
}

pub(super) fn note_dirty(dirty: &mut BTreeSet<Slot>, op: &Op, done: bool) {
    match op {
        Op::Write { slot, .. } => {
            dirty.insert(*slot);
        }
        Op::Open { slot, how, .. } if how.truncate => {
            dirty.insert(*slot);
        }
        Op::Close { slot } | Op::Fsync { slot } if done => {
            dirty.remove(slot);
        }
        _ => {}
    }
}

/// What must be there after a crash: all names and attributes, and the contents that a close or
/// fsync has acknowledged; attributes may travel with contents.
pub(super) fn after_the_crash<S: Site>(
    world: &mut World<S>,
    models: [Model; 2],
    dirty: &BTreeSet<Slot>,
) -> Option<String> {
    // All names of a file that was written.
    let written = |model: &Model| {
        let tree = model.tree();
        let open = model.open_paths().into_iter().filter(|(slot, _)| dirty.contains(slot));
        let firsts: BTreeSet<Option<Path>> =
            open.filter_map(|(_, path)| Some(tree.get(&path)?.first.clone())).collect();
        let names = tree.into_iter().filter(|(_, summary)| firsts.contains(&summary.first));
        names.map(|(path, _)| path).collect::<Vec<_>>()
    };
    let unsure: BTreeSet<Path> = models.iter().flat_map(written).collect();
    world.set_weather(Weather::CALM);
    world.crash(0);
    let mut is = look(world);
    let mut why = Vec::new();
    for mut model in models {
        close_all(&mut model);
        let mut should = model.tree();
        timeless(&mut should);
        for path in &unsure {
            for tree in [&mut should, &mut is] {
                if let Some(summary) = tree.get_mut(path) {
                    (summary.size, summary.contents) = (0, None);
                    (summary.perm, summary.uid, summary.gid) = (0, 0, 0);
                }
            }
        }
        match tree_difference(&should, &is) {
            None => return end(world),
            Some(difference) => why.push(difference),
        }
    }
    Some(format!("after the crash neither undone nor done: {why:?}"))
}
