//! Something breaks after each command of each operation: the mount dies, or loses its connection.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use super::doubt::{Doubt, look, note_dirty, slot_of};
use super::{Stage, Step, end, timeless, without_time};
use crate::sim::harness::{Break, Site, World};
use crate::sim::model::Model;
use crate::sim::ops::{Executor, Judge, ModelReply, Op, Slot, tree_difference};
use crate::time::Wall;

/// The outcome of an operation is one of its two wherever it is interrupted by the death of its
/// mount, and the operation is done after all where only a connection was lost.
///
/// A break at a place of an operation is tried in a copy of the world, so that the next operation
/// meets what an undisturbed one has left.
pub fn broken_everywhere<S: Site>(stage: &Stage<S>, steps: &[Step<S>]) -> Option<String> {
    let mut world = stage.world();
    let mut model = stage.model();
    let mut judge = Judge::default();
    let mut dirty: BTreeSet<Slot> = BTreeSet::new();
    for (n, step) in steps.iter().enumerate() {
        let Step::Run(_, op) = step else { return Some(String::from("not in this play")) };
        let now = Wall(n as i64 + 1);
        let (world_before, before) = (world.clone(), model.clone());
        let judge_before = judge.clone();
        let dirty_before = dirty.clone();
        let sent = world.executed(0);
        let should = without_time(model.apply(op, now));
        let is = world.fs(0).run(op, now);
        world.settle();
        note_dirty(&mut dirty, op, is.is_ok());
        if let Err(why) = judge.judge(op, &should, &is) {
            return Some(format!("step {n}, {op:?}: {why}"));
        }
        for after in 0..=world.executed(0) - sent {
            let at = Broken { after, op, now, should: &should, models: [&before, &model] };
            let mut dirty = dirty_before.clone();
            dirty.extend(slot_of(op));
            let why = at
                .by_death(world_before.clone(), &dirty)
                .or_else(|| at.by_connection(world_before.clone(), judge_before.clone()));
            if let Some(why) = why {
                return Some(format!("step {n}, {op:?}, {why}"));
            }
        }
    }
    end(&mut world)
}

/// An operation that something happens to.
struct Broken<'a> {
    /// After so many commands.
    after: u64,
    op: &'a Op,
    now: Wall,
    should: &'a ModelReply,
    /// Without the operation, and with it.
    models: [&'a Model; 2],
}

impl Broken<'_> {
    fn by_death<S: Site>(&self, mut world: World<S>, dirty: &BTreeSet<Slot>) -> Option<String> {
        world.break_after(0, self.after, Break::Mount);
        let _ = world.fs(0).run(self.op, self.now);
        let doubt = Doubt::new(self.models.map(Model::clone), dirty);
        let why = doubt.after_a_crash(&mut world, 0).err().or_else(|| end(&mut world))?;
        Some(format!("death after {} commands: {why}", self.after))
    }

    fn by_connection<S: Site>(&self, mut world: World<S>, mut judge: Judge) -> Option<String> {
        world.break_after(0, self.after, Break::Connection);
        let is = world.fs(0).run(self.op, self.now);
        let tell = |why| Some(format!("no connection after {} commands: {why}", self.after));
        if let Err(why) = judge.judge(self.op, self.should, &is) {
            return tell(why);
        }
        let mut should = self.models[1].tree();
        timeless(&mut should);
        tree_difference(&should, &look(&mut world, 0)).and_then(tell)
    }
}
