//! Several mounts of one server.

use alloc::format;
use alloc::string::String;

use super::{Stage, Step, end, timeless};
use crate::sim::harness::Site;
use crate::sim::ops::{Executor, tree_difference};
use crate::time::Wall;

/// Every mount shows the model whenever all has come to rest.
pub fn as_one<S: Site>(stage: &Stage<S>, steps: &[Step<S>]) -> Option<String> {
    let (mut world, mut model) = (stage.world(), stage.model());
    for (n, step) in steps.iter().enumerate() {
        match step {
            Step::Run(at, op) => {
                model.apply(op, Wall(n as i64));
                let _ = world.fs(*at).run(op, Wall(n as i64));
            }
            Step::Sleep(time) => world.sleep(*time),
            _ => {
                if !S::READERS_KEEP.is_zero() {
                    world.sleep(S::READERS_KEEP);
                }
                let mut should = model.tree();
                timeless(&mut should);
                for at in 0..world.mounts() {
                    world.settle();
                    if let Some(why) = tree_difference(&should, &world.fs(at).tree()) {
                        return Some(format!("step {n}, mount {at}: {why}"));
                    }
                }
            }
        }
    }
    end(&mut world)
}
