//! What may have become of operations whose end nobody has heard of, and finding out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{LEASES, timeless};
use crate::sim::harness::{Site, Weather, World};
use crate::sim::model::Model;
use crate::sim::ops::{Executor, Op, Path, Slot, Summary, tree_difference};
use crate::time::Wall;

type Tree = BTreeMap<Path, Summary>;

/// The tree as a mount shows it when everything has come to rest.
pub(super) fn look<S: Site>(world: &mut World<S>, at: usize) -> Tree {
    world.settle();
    let weather = world.set_weather(Weather::CALM);
    let tree = world.fs(at).tree();
    world.set_weather(weather);
    tree
}

/// What things may be like, and the files whose contents are nobody's promise. Attributes may
/// travel with contents.
#[derive(Debug)]
pub(super) struct Doubt {
    models: Vec<Model>,
    unsure: BTreeSet<Path>,
}

impl Doubt {
    /// One of these, with something written through the dirty slots that nobody has acknowledged.
    pub(super) fn new(models: impl IntoIterator<Item = Model>, dirty: &BTreeSet<Slot>) -> Doubt {
        let mut doubt = Doubt { models: Vec::new(), unsure: BTreeSet::new() };
        models.into_iter().for_each(|model| doubt.add(model, dirty));
        doubt
    }

    pub(super) fn add(&mut self, model: Model, dirty: &BTreeSet<Slot>) {
        // All names of a file that was written.
        let tree = model.tree();
        let open = model.open_paths().into_iter().filter(|(slot, _)| dirty.contains(slot));
        let firsts: BTreeSet<Option<Path>> =
            open.filter_map(|(_, path)| Some(tree.get(&path)?.first.clone())).collect();
        let names = tree.into_iter().filter(|(_, summary)| firsts.contains(&summary.first));
        self.unsure.extend(names.map(|(path, _)| path));
        self.models.push(model);
    }

    /// Where they hold different things, something between them may be there.
    pub(super) fn contents_differ(&mut self) {
        let mut seen: Tree = Tree::new();
        for (path, summary) in self.models.iter().flat_map(Model::tree) {
            match seen.get(&path) {
                Some(other) if other.contents != summary.contents => {
                    self.unsure.insert(path);
                }
                Some(_) => {}
                None => {
                    seen.insert(path, summary);
                }
            }
        }
    }

    /// The mount dies, and another takes its place.
    pub(super) fn after_a_crash<S: Site>(
        self,
        world: &mut World<S>,
        at: usize,
    ) -> Result<Model, String> {
        let weather = world.set_weather(Weather::CALM);
        world.crash(at);
        let model = self.settle(world).map_err(|why| format!("after the crash {why}"));
        world.set_weather(weather);
        model
    }

    /// Which of them it has come to. Everything is closed: what lost its last name meanwhile cannot
    /// be found again by those who have it open.
    pub(super) fn settle<S: Site>(mut self, world: &mut World<S>) -> Result<Model, String> {
        let weather = world.set_weather(Weather::CALM);
        world.relieve();
        world.settle();
        for at in 0..world.mounts() {
            world.fs(at).close_all();
        }
        if world.mounts() > 1 {
            world.sleep(LEASES);
        }
        let found = look(world, 0);
        world.set_weather(weather);
        let mut is = found.clone();
        self.forget_contents(&mut is);
        let mut why = Vec::new();
        for mut model in core::mem::take(&mut self.models) {
            for (slot, _) in model.slots() {
                model.apply(&Op::Close { slot }, Wall(0));
            }
            let mut should = model.tree();
            timeless(&mut should);
            self.forget_contents(&mut should);
            let Some(difference) = tree_difference(&should, &is) else {
                for path in &self.unsure {
                    if let Some(summary) = found.get(path) {
                        model.adopt(path, summary);
                    }
                }
                return Ok(model);
            };
            why.push(difference);
        }
        Err(format!("neither undone nor done: {why:?}"))
    }

    fn forget_contents(&self, tree: &mut Tree) {
        for path in &self.unsure {
            if let Some(summary) = tree.get_mut(path) {
                (summary.size, summary.contents) = (0, None);
                (summary.perm, summary.uid, summary.gid) = (0, 0, 0);
            }
        }
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
