//! Scripts for a world: what happens in it step by step, what must be true then, and the shortest
//! script that shows that it is not.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use dbmount_engine::Wall;
use dbmount_engine::backend::redis::Command;
use dbmount_engine::sim::generate::{Random, Swarm};
use dbmount_engine::sim::harness::{CALLER, Setup, Weather, World};
use dbmount_engine::sim::model::Model;
use dbmount_engine::sim::ops::{
    Executor, Judge, ModelReply, Op, Path, Summary, shrink, tree_difference,
};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A program does something on a mount.
    Run(usize, Op),
    /// A mount is unmounted and mounted again.
    Remount(usize),
    /// A mount dies and is mounted again.
    Crash(usize),
    /// Another program does something on the server.
    Redis(Command),
    /// Time passes.
    Sleep(Duration),
    /// Everything comes to rest, and what each mount shows is looked at.
    Look,
}

/// A world to play in, and what is looked at there.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// For messages and for the network.
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    /// One for each mount.
    pub(crate) setups: Vec<Setup>,
    /// The tree is looked at after so many steps.
    pub(crate) every: usize,
    /// It is looked at in a copy of the world, so that looking changes nothing.
    pub(crate) aside: bool,
}

impl Stage {
    pub(crate) fn new(seed: u64, weather: Weather) -> Stage {
        let setups = vec![Setup { kernel_caches: seed.is_multiple_of(3), ..Setup::default() }];
        Stage { seed, weather, setups, every: 1 + seed as usize % 4, aside: seed.is_multiple_of(2) }
    }

    pub(crate) fn world(&self) -> World {
        let mut world = World::new(self.seed, self.weather);
        for setup in &self.setups {
            world.mount(setup);
        }
        world
    }

    /// The model of the filesystem that a mount shows at the beginning.
    pub(crate) fn model(&self) -> Model {
        let mut world = Stage { weather: Weather::CALM, ..self.clone() }.world();
        let root = world.fs(0).tree().remove(&Path::default()).expect("a root");
        let caps = dbmount_engine::layout::Layout::caps(world.engine_of(0).layout());
        Model::new(caps, CALLER, &root)
    }
}

/// What fails, with the shortest script that makes it fail.
pub(crate) fn check(
    stage: &Stage,
    steps: Vec<Step>,
    fails: impl Fn(&Stage, &[Step]) -> Option<String>,
) {
    let fails = |steps: &[Step]| quietly(|| fails(stage, steps));
    if fails(&steps).is_none() {
        return;
    }
    let steps = shrink(steps, |steps| fails(steps).is_some());
    let why = fails(&steps).unwrap_or_else(|| String::from("(not again)"));
    let lines: Vec<String> = steps.iter().map(|step| brief(&format!("{step:?}"), 240)).collect();
    let why = brief(&why, 1000);
    let Stage { seed, weather, every, aside, .. } = stage;
    let caches = stage.setups.iter().any(|setup| setup.kernel_caches);
    panic!(
        "seed {seed}: {why}\nafter {lines:#?}\nin {weather:?}, looked at after every {every} steps \
         (in a copy: {aside}), kernel caches: {caches}",
    );
}

/// Runs of the same letter or number in short, and the rest cut off.
fn brief(text: &str, len: usize) -> String {
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

/// A panic is a failure like any other, and prints nothing: shrinking meets it many times.
fn quietly(run: impl FnOnce() -> Option<String>) -> Option<String> {
    static HOOK: Once = Once::new();
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    thread_local!(static WHERE: Cell<String> = const { Cell::new(String::new()) });
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                WHERE.set(info.to_string());
            } else {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.unwrap_or_else(|_| Some(WHERE.take()))
}

/// Operations that mean something one after the other, on one mount.
pub(crate) fn operations(stage: &Stage, count: usize) -> Vec<Step> {
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
pub(crate) fn interspersed(steps: Vec<Step>, seed: u64, other: impl Fn(u64) -> Step) -> Vec<Step> {
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
pub(crate) fn turns(
    stage: &Stage,
    count: usize,
    foreign: impl Fn(&mut Random) -> Option<Step>,
) -> Vec<Step> {
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

/// The mount against the model, step by step.
pub(crate) fn against_model(stage: &Stage, steps: &[Step]) -> Option<String> {
    let mut world = stage.world();
    let mut model = stage.model();
    let mut judge = Judge::default();
    // What the times of files without a record are after a remount is nobody's promise.
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
                times = false;
            }
            Step::Crash(_) | Step::Redis(_) | Step::Look => {
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

/// Nothing is left over when everything is closed.
pub(crate) fn end(world: &mut World) -> Option<String> {
    for at in 0..world.mounts() {
        world.fs(at).close_all();
    }
    world.settle();
    let busy = (0..world.mounts()).find(|at| !world.engine_of(*at).is_idle());
    busy.map(|at| format!("mount {at} is not idle: {:?}", world.engine_of(at).in_flight()))
}

pub(crate) fn timeless(tree: &mut BTreeMap<Path, Summary>) {
    for summary in tree.values_mut() {
        (summary.mtime, summary.ctime) = (None, None);
    }
}

pub(crate) fn without_time(reply: ModelReply) -> ModelReply {
    use dbmount_engine::sim::ops::Outcome;
    match reply {
        ModelReply::Is(Ok(Outcome::Stat(summary))) => {
            ModelReply::Is(Ok(Outcome::Stat(Summary { mtime: None, ctime: None, ..summary })))
        }
        other => other,
    }
}
