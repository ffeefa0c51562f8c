//! A play with a script that fails ends with the shortest script that does.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use dbmount_engine::sim::harness::{Keyspace, Site};
use dbmount_engine::sim::ops::shrink;
use dbmount_engine::sim::play;

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
    let fails = |steps: &[play::Step<S>]| quietly(|| fails(stage, steps));
    if fails(&steps).is_none() {
        return;
    }
    let steps = shrink(steps, |steps| fails(steps).is_some());
    let why = fails(&steps).unwrap_or_else(|| String::from("(not again)"));
    let lines: Vec<String> = steps.iter().map(|step| brief(&format!("{step:?}"), 240)).collect();
    let why = brief(&why, 1000);
    let play::Stage { seed, weather, every, aside, .. } = stage;
    let caches = stage.setups.iter().any(|setup| setup.kernel_caches);
    panic!(
        "{}, seed {seed}: {why}\nafter {lines:#?}\nin {weather:?}, looked at after every {every} steps \
         (in a copy: {aside}), kernel caches: {caches}",
        S::NAME,
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
