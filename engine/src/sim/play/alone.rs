//! One mount against the reference model, step by step.

use alloc::format;
use alloc::string::String;

use super::{Stage, Step, timeless, without_time};
use crate::sim::harness::{Site, Weather, World};
use crate::sim::ops::{Executor, Judge, Op, tree_difference};
use crate::time::Wall;

/// The first mount does what the model does, and shows what the model shows.
pub fn against_model<S: Site>(stage: &Stage<S>, steps: &[Step<S>]) -> Option<String> {
    let mut world = stage.world();
    let mut model = stage.model();
    let mut judge = Judge::default();
    let mut times = true;
    for (n, step) in steps.iter().enumerate() {
        let now = Wall(n as i64 + 1);
        match step {
            Step::Run(at, op) => {
                let should = model.apply(op, now);
                let is = world.fs(*at).run(op, now);
                if stage.weather == Weather::CALM {
                    world.settle();
                }
                let should = if times { should } else { without_time(should) };
                if let Err(why) = judge.judge(op, &should, &is) {
                    return Some(format!("step {n}: {why}; {:?}", world.notices(*at).last()));
                }
            }
            Step::Remount(at) => {
                for (slot, _) in model.slots() {
                    model.apply(&Op::Close { slot }, now);
                    judge = Judge::default();
                }
                world.remount(*at);
                // Otherwise times that nobody set are nobody's promise.
                times &= S::KEEPS_TIMES;
            }
            Step::Crash(_) | Step::Foreign(_) | Step::Look => {
                return Some(String::from("not in this play"));
            }
            Step::Sleep(time) => world.sleep(*time),
        }
        if (n + 1) % stage.every == 0 || n + 1 == steps.len() {
            let mut should = model.tree();
            if !times {
                timeless(&mut should);
            }
            let is = if stage.aside { world.clone().fs(0).tree() } else { world.fs(0).tree() };
            if let Some(why) = tree_difference(&should, &is) {
                return Some(format!("step {n}: {why}"));
            }
        }
    }
    end(&mut world)
}

/// Nothing is left over when everything is closed, and the layout's own check finds nothing.
pub fn end<S: Site>(world: &mut World<S>) -> Option<String> {
    for at in 0..world.mounts() {
        world.fs(at).close_all();
    }
    world.settle();
    let busy = (0..world.mounts()).find(|at| !world.engine_of(*at).is_idle());
    busy.map(|at| format!("mount {at} is not idle: {:?}", world.engine_of(at).in_flight()))
        .or_else(|| world.inspect())
}
