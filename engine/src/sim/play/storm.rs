//! Whatever goes wrong by itself goes wrong, and mounts die: what happened happened once or not at
//! all, and what was acknowledged is there.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::doubt::{Doubt, look, note_dirty, slot_of};
use super::{LEASES, Stage, Step, end, timeless, without_time};
use crate::errno::Errno;
use crate::sim::generate::Random;
use crate::sim::harness::{Site, Trouble, Weather, World};
use crate::sim::model::Model;
use crate::sim::ops::{Executor, Judge, Op, Reply, Slot, tree_difference};
use crate::time::Wall;

/// What happened happened once or not at all, and what was acknowledged outlives a crash. What a
/// server has lost that had acknowledged it is the end of what was done, not some of its middle.
pub fn in_a_storm<S: Site>(stage: &Stage<S>, steps: &[Step<S>]) -> Option<String> {
    let mut storm = Storm {
        stage,
        world: stage.world(),
        model: stage.model(),
        judge: Judge::default(),
        dirty: BTreeSet::new(),
        past: Vec::new(),
        synced: 0,
        dying: false,
    };
    for (n, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Run(at, op) => storm.run(n, *at, op),
            Step::Crash(at) => {
                storm.world.doom(*at, 1 + Random(stage.seed ^ n as u64).next() % 24);
                storm.dying = true;
                Ok(())
            }
            Step::Look => storm.look_everywhere(),
            other => Err(format!("not in this play: {other:?}")),
        };
        if let Err(why) = done {
            return Some(format!("step {n}, {step:?}: {why}"));
        }
    }
    storm.world.set_weather(Weather::CALM);
    storm.world.relieve();
    end(&mut storm.world)
}

struct Storm<'a, S: Site> {
    stage: &'a Stage<S>,
    world: World<S>,
    model: Model,
    judge: Judge,
    /// Slots through which something was written that nobody has acknowledged yet.
    dirty: BTreeSet<Slot>,
    /// What a loss may go back to: the model and what was dirty, before the step of this number.
    past: Vec<(usize, Model, BTreeSet<Slot>)>,
    /// What is before this step has been made durable.
    synced: usize,
    /// A mount dies in the next operation.
    dying: bool,
}

impl<S: Site> Storm<'_, S> {
    fn run(&mut self, n: usize, at: usize, op: &Op) -> Result<(), String> {
        self.world.mark(n);
        if self.may(Trouble::Loss) {
            let floor = self.world.secured().max(self.synced);
            self.past.retain(|(step, ..)| *step >= floor);
            self.past.push((n, self.model.clone(), self.dirty.clone()));
        }
        let before = self.model.clone();
        let (losses, said) = (self.world.losses(), self.world.notices(at).len());
        let now = Wall(n as i64 + 1);
        let should = without_time(self.model.apply(op, now));
        let is = self.world.fs(at).run(op, now);
        note_dirty(&mut self.dirty, op, is.is_ok());
        let dying = core::mem::take(&mut self.dying);
        if self.world.losses() > losses {
            return self.after_a_loss(at, op, dying);
        }
        if dying {
            // It may have ended in the middle, or done it all and died afterwards.
            self.dirty.extend(slot_of(op));
            let doubt = Doubt::new([before, self.model.clone()], &self.dirty);
            self.model = doubt.after_a_crash(&mut self.world, at)?;
            self.begin_anew();
            return Ok(());
        }
        if self.is_of_unknown_fate(at, said, &is)? {
            // Where connections are all that fails, what waits is written yet.
            let lasting = [Trouble::Refusal, Trouble::Full].iter().any(|it| self.may(*it));
            if lasting {
                self.dirty.extend(slot_of(op));
            } else {
                self.dirty.clear();
            }
            let doubt = Doubt::new([before, self.model.clone()], &self.dirty);
            self.model = doubt.settle(&mut self.world)?;
            self.begin_anew();
            return Ok(());
        }
        let last = |world: &World<S>| world.notices(at).last().cloned();
        self.judge
            .judge(op, &should, &is)
            .map_err(|why| format!("{why}; {:?}", last(&self.world)))?;
        self.note_synced(op);
        if (n + 1).is_multiple_of(self.stage.every) {
            let losses = self.world.losses();
            let is = look(&mut self.world, at);
            debug_assert_eq!(losses, self.world.losses(), "good weather");
            let mut should = self.model.tree();
            timeless(&mut should);
            tree_difference(&should, &is).map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    fn may(&self, trouble: Trouble) -> bool {
        self.stage.weather.rate(trouble) > 0
    }

    /// Whether an operation has failed for want of a server, and somebody said so.
    fn is_of_unknown_fate(&self, at: usize, said: usize, is: &Reply) -> Result<bool, String> {
        let said = |words: &str| {
            self.world.notices(at)[said..].iter().any(|notice| notice.text.contains(words))
        };
        match is {
            Err(Errno::ENOSPC) if self.may(Trouble::Full) => Ok(true),
            Err(Errno::EIO) if said("gave up") => Ok(true),
            Err(Errno::EIO) if self.may(Trouble::Refusal) && said("the server says") => Ok(true),
            Err(Errno::EIO) => Err(String::from("EIO, and nobody said why")),
            _ => Ok(false),
        }
    }

    /// A server went on without what it had acknowledged last, in the midst of an operation.
    fn after_a_loss(&mut self, at: usize, op: &Op, dying: bool) -> Result<(), String> {
        let floor = self.world.secured().max(self.synced);
        let mut doubt = Doubt::new([self.model.clone()], &self.dirty);
        for (step, model, dirty) in self.past.drain(..) {
            if step < floor {
                continue;
            }
            // On its way, and applied to what was left.
            let mut with = model.clone();
            with.apply(op, Wall(0));
            doubt.add(with, &dirty);
            doubt.add(model, &dirty);
        }
        doubt.contents_differ();
        self.model = match dying {
            true => doubt.after_a_crash(&mut self.world, at)?,
            false => doubt.settle(&mut self.world)?,
        };
        self.world.secure_all();
        self.begin_anew();
        Ok(())
    }

    fn begin_anew(&mut self) {
        (self.judge, self.dirty) = (Judge::default(), BTreeSet::new());
    }

    /// What was as it is now when something was made durable stays as it is.
    fn note_synced(&mut self, op: &Op) {
        let Op::Fsync { slot } = op else { return };
        if !S::KEEPS_SYNCED {
            return;
        }
        let same = |it: &&(usize, Model, _)| it.1.holds_file_of(&self.model, *slot);
        let since = self.past.iter().rev().take_while(same).last();
        self.synced = self.synced.max(since.map_or(usize::MAX, |it| it.0).min(self.now()));
    }

    /// The number of the step after the last.
    fn now(&self) -> usize {
        self.past.last().map_or(0, |it| it.0 + 1)
    }

    /// Every mount shows the same when all has come to rest.
    fn look_everywhere(&mut self) -> Result<(), String> {
        let mut should = self.model.tree();
        timeless(&mut should);
        let weather = self.world.set_weather(Weather::CALM);
        self.world.relieve();
        self.world.sleep(LEASES);
        for at in 0..self.world.mounts() {
            if let Some(why) = tree_difference(&should, &look(&mut self.world, at)) {
                return Err(format!("mount {at}: {why}"));
            }
        }
        self.world.set_weather(weather);
        Ok(())
    }
}
