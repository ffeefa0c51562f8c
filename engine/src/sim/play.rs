//! Scripts for a world: what happens in it step by step, and what must be true then.
//!
//! A play is a function from a [`Stage`] and its [`Step`]s to what is wrong, if anything; it holds
//! no state, so a script that fails can be shortened and played again.
//!
//! | file | plays |
//! |---|---|
//! | `alone.rs` | one mount against the reference model |
//! | `together.rs` | several mounts that must show one filesystem |
//! | `storm.rs` | all that can go wrong, and mounts that die |
//! | `doubt.rs` | what may have become of an operation, and finding out |
//! | `prefix.rs` | the same after each command of each operation |

mod alone;
mod doubt;
mod prefix;
mod storm;
mod together;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::layout::Layout;
use crate::sim::generate::{Random, Swarm};
use crate::sim::harness::{CALLER, CommandOf, Sabotage, Setup, Site, Tally, Tapes, Weather, World};
use crate::sim::model::Model;
use crate::sim::ops::{Executor, ModelReply, Op, Outcome, Path, Summary};
use crate::time::{Duration, Wall};

pub use alone::{against_model, end};
pub use prefix::broken_everywhere;
pub use storm::in_a_storm;
pub use together::as_one;

/// After so long nothing is believed any more that nobody keeps true.
const LEASES: Duration = Duration::from_secs(2);

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step<S: Site> {
    /// A program does something on a mount.
    Run(usize, Op),
    /// A mount is unmounted and mounted again.
    Remount(usize),
    /// A mount dies and is mounted again.
    Crash(usize),
    /// Another program does something on the server.
    Foreign(CommandOf<S>),
    /// Time passes.
    Sleep(Duration),
    /// Everything comes to rest, and what each mount shows is looked at.
    Look,
}

/// A world to play in, and what is looked at there.
#[derive(Clone, Debug)]
pub struct Stage<S: Site> {
    /// For messages and for the network.
    pub seed: u64,
    /// What the network does.
    pub weather: Weather,
    /// One for each mount.
    pub setups: Vec<Setup<S>>,
    /// The tree is looked at after so many steps.
    pub every: usize,
    /// It is looked at in a copy of the world, so that looking changes nothing.
    pub aside: bool,
    /// What the mounts do; a copy of the stage records nothing.
    pub tapes: Tapes<S::Layout>,
    /// What goes wrong on purpose.
    pub sabotage: Option<Sabotage>,
    /// How often what has gone wrong by itself.
    pub tally: Tally,
}

impl<S: Site> Stage<S> {
    /// One mount. The seed decides how it is looked at, too.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        let kernel_caches = seed.is_multiple_of(3);
        let setups = alloc::vec![Setup { kernel_caches, ..Setup::default() }];
        let every = 1 + (seed % 4) as usize;
        let aside = seed.is_multiple_of(2);
        let (tapes, tally) = (Tapes::default(), Tally::default());
        Stage { seed, weather, setups, every, aside, tapes, sabotage: None, tally }
    }

    /// The same with several mounts; the kernel before every other one caches.
    #[must_use]
    pub fn shared(mut self, mounts: usize) -> Self {
        let Some(first) = self.setups.first().cloned() else { return self };
        let other = |n: usize| Setup {
            kernel_caches: first.kernel_caches != n.is_multiple_of(2),
            ..first.clone()
        };
        self.setups = (0..mounts).map(other).collect();
        self
    }

    /// The world as it is before the first step.
    #[must_use]
    pub fn world(&self) -> World<S> {
        let mut world = World::new(self.seed, self.weather).sabotaged(self.sabotage);
        world.record(&self.tapes);
        world.count_troubles(&self.tally);
        for setup in &self.setups {
            world.mount(setup);
        }
        world
    }

    /// The model of the filesystem that a mount shows at the beginning.
    #[must_use]
    pub fn model(&self) -> Model {
        let mut world = Stage { weather: Weather::CALM, sabotage: None, ..self.clone() }.world();
        let root = world.fs(0).tree().remove(&Path::default());
        let root = root.unwrap_or_else(|| unreachable!("every tree has a root"));
        Model::new(world.engine_of(0).layout().caps(), CALLER, &root)
    }
}

/// Operations that mean something one after the other, on one mount.
#[must_use]
pub fn operations<S: Site>(stage: &Stage<S>, count: usize) -> Vec<Step<S>> {
    let mut random = Random(stage.seed ^ 0x5eed);
    let swarm = Swarm::of(random.next());
    let mut model = stage.model();
    (0..count)
        .map(|n| {
            let op = swarm.op(random.draw(), &model);
            model.apply(&op, Wall(n as i64));
            Step::Run(0, op)
        })
        .collect()
}

/// The same with something else after every so many operations, drawn from the seed.
#[must_use]
pub fn interspersed<S: Site>(
    steps: Vec<Step<S>>,
    seed: u64,
    other: impl Fn(u64) -> Step<S>,
) -> Vec<Step<S>> {
    let mut random = Random(seed ^ 0xd1ce);
    let mut all = Vec::new();
    for step in steps {
        all.push(step);
        let draw = random.next();
        if draw.is_multiple_of(25) {
            all.push(other(draw));
        }
    }
    all
}

/// Operations on several mounts in turn. Before another mount has its turn all is closed: between
/// mounts consistency is from close to open.
#[must_use]
pub fn turns<S: Site>(
    stage: &Stage<S>,
    count: usize,
    foreign: impl Fn(&mut Random) -> Option<Step<S>>,
) -> Vec<Step<S>> {
    let mut random = Random(stage.seed ^ 0x7e45);
    let swarm = Swarm::of(random.next());
    let mut model = stage.model();
    let mut steps = Vec::new();
    while steps.len() < count {
        let at = random.next() as usize % stage.setups.len();
        for _ in 0..1 + random.next() % 12 {
            let op = swarm.op(random.draw(), &model);
            model.apply(&op, Wall(0));
            steps.push(Step::Run(at, op));
        }
        for (slot, _) in model.slots() {
            model.apply(&Op::Close { slot }, Wall(0));
            steps.push(Step::Run(at, Op::Close { slot }));
        }
        while let Some(step) = foreign(&mut random) {
            steps.push(step);
        }
        steps.push(Step::Look);
    }
    steps
}

/// Leaves the times out of what is compared.
pub fn timeless(tree: &mut BTreeMap<Path, Summary>) {
    for summary in tree.values_mut() {
        (summary.mtime, summary.ctime) = (None, None);
    }
}

/// The same for one reply.
#[must_use]
pub fn without_time(reply: ModelReply) -> ModelReply {
    match reply {
        ModelReply::Is(Ok(Outcome::Stat(summary))) => {
            ModelReply::Is(Ok(Outcome::Stat(Summary { mtime: None, ctime: None, ..summary })))
        }
        other => other,
    }
}

/// A step in one line for people: runs of the same number in short, and the rest cut off.
#[must_use]
pub fn brief(text: &str, len: usize) -> String {
    let mut short: Vec<&str> = Vec::new();
    let mut run = 0;
    for piece in text.split_inclusive([' ', 'L', 'M', 't', '/']) {
        run = if short.last() == Some(&piece) { run + 1 } else { 0 };
        if run < 4 {
            short.push(piece);
        }
    }
    short.concat().chars().take(len).collect()
}
