//! A play with a script that fails ends with the shortest script that does.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use dbmount_engine::sim::harness::{Keyspace, Site, Tapes};
use dbmount_engine::sim::ops::shrink;
use dbmount_engine::sim::play::{self, brief};

pub(crate) type World = dbmount_engine::sim::harness::World<Keyspace>;
pub(crate) type Setup = dbmount_engine::sim::harness::Setup<Keyspace>;
pub(crate) type Stage = play::Stage<Keyspace>;
pub(crate) type Step = play::Step<Keyspace>;

/// What fails, with the shortest script that makes it fail.
pub(crate) fn check<S: Site>(
    stage: &play::Stage<S>,
    steps: Vec<play::Step<S>>,
    fails: impl Fn(&play::Stage<S>, &[play::Step<S>]) -> Option<String>,
) {
    let play = &fails;
    let fails = |steps: &[play::Step<S>]| quietly(|| play(stage, steps));
    if fails(&steps).is_none() {
        return;
    }
    let steps = shrink(steps, |steps| fails(steps).is_some());
    let why = fails(&steps).unwrap_or_else(|| String::from("(not again)"));
    let lines: Vec<String> = steps.iter().map(|step| brief(&format!("{step:?}"), 240)).collect();
    let why = brief(&why, 1000);
    let logs = logs(stage, |stage| {
        // Played once more, on tape.
        let _ = quietly(|| play(stage, &steps));
    });
    let play::Stage { seed, weather, every, aside, .. } = stage;
    let caches = stage.setups.iter().any(|setup| setup.kernel_caches);
    panic!(
        "{}, seed {seed}: {why}\nafter {lines:#?}\nin {weather:?}, looked at after every {every} steps \
         (in a copy: {aside}), kernel caches: {caches}\nsee what the engines did with\n{logs}",
        S::NAME,
    );
}

/// What the mounts of a stage do, in files for `dbmount replay`; how to look at them.
fn logs<S: Site>(stage: &play::Stage<S>, play: impl FnOnce(&play::Stage<S>)) -> String {
    let stage = play::Stage { tapes: Tapes::recording(true), ..stage.clone() };
    play(&stage);
    let dir = std::env::temp_dir();
    let lines = stage.tapes.logs().into_iter().enumerate().map(|(n, log)| {
        let layout = S::NAME.replace(' ', "-");
        let file = dir.join(format!("dbmount-{layout}-seed{}-{}.log", stage.seed, n + 1));
        match std::fs::write(&file, log) {
            Ok(()) => format!("  dbmount replay --trace {}\n", file.display()),
            Err(why) => format!("  {} could not be written: {why}\n", file.display()),
        }
    });
    lines.collect()
}

/// A panic is a failure like any other, and prints nothing: shrinking meets it many times.
pub(crate) fn quietly(run: impl FnOnce() -> Option<String>) -> Option<String> {
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
