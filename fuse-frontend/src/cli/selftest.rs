//! `dbmount selftest`: the simulation that the tests run, for as long as wanted.
//!
//! Each seed is played alone, shared between two mounts, in a storm, and with a crash. What fails
//! is shortened, told with its seed, and left as logs for `dbmount replay`.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use dbmount_engine::sim::harness::{Site, Tapes, Weather};
use dbmount_engine::sim::ops::shrink;
use dbmount_engine::sim::play::{
    Stage, Step, against_model, as_one, brief, in_a_storm, interspersed, operations, turns,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use super::args::{SelftestArgs, SelftestLayout};
use crate::mountpoint::plain;

/// After so long nothing is believed any more that nobody keeps true.
const LEASES: Duration = Duration::from_secs(2);

/// Characters of a step that are shown.
const STEP: usize = 240;

/// Plays the seeds that were asked for.
pub(super) fn run(args: &SelftestArgs) -> Result<(), Failure> {
    use dbmount_engine::sim::harness;
    hear_panics();
    match args.layout {
        SelftestLayout::Keys => play_all::<harness::Keyspace>(args),
        SelftestLayout::Gridfs => play_all::<harness::Bucket>(args),
        SelftestLayout::GridfsStandalone => play_all::<harness::LoneBucket>(args),
        SelftestLayout::Volume => play_all::<harness::Disk>(args),
    }
}

/// Where something happens, and what.
type Script<S> = (Stage<S>, Vec<Step<S>>);

/// A way to play a seed.
struct Play<S: Site> {
    name: &'static str,
    script: fn(u64) -> Script<S>,
    wrong: fn(&Stage<S>, &[Step<S>]) -> Option<String>,
}

fn plays<S: Site>() -> [Play<S>; 4] {
    [
        Play {
            name: "alone",
            script: |seed| {
                let weather = if seed.is_multiple_of(2) { Weather::CALM } else { Weather::BREEZE };
                let stage = Stage::new(seed, weather);
                let steps = operations(&stage, 120);
                let steps = interspersed(steps, seed, |_| Step::Remount(0));
                (stage, steps)
            },
            wrong: against_model,
        },
        Play {
            name: "shared",
            script: |seed| {
                let stage = Stage::new(seed, Weather::BREEZE).shared(2);
                let steps = turns(&stage, 100, |_| None).into_iter().flat_map(|step| match step {
                    Step::Look => vec![Step::Sleep(LEASES), Step::Look],
                    other => vec![other],
                });
                (stage, steps.collect())
            },
            wrong: as_one,
        },
        Play {
            name: "storm",
            script: |seed| {
                let stage = Stage::new(seed, Weather::STORM);
                let steps = operations(&stage, 100);
                (stage, steps)
            },
            wrong: in_a_storm,
        },
        Play {
            name: "crash",
            script: |seed| {
                let weather = if seed.is_multiple_of(2) { Weather::BREEZE } else { Weather::STORM };
                let stage = Stage::new(seed, weather);
                let mut steps = operations(&stage, 20 + (seed % 60) as usize);
                // The last operation is the one in which the mount dies.
                steps.insert(steps.len() - 1, Step::Crash(0));
                (stage, steps)
            },
            wrong: in_a_storm,
        },
    ]
}

fn play_all<S: Site>(args: &SelftestArgs) -> Result<(), Failure> {
    let plays = plays::<S>();
    // Drawn only when somebody watches.
    let bar = ProgressBar::new(args.seeds);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {pos} of {len} seeds, {per_sec}, {elapsed} {msg}")
    {
        bar.set_style(style);
    }
    for seed in (args.seed..).take(usize::try_from(args.seeds).unwrap_or(usize::MAX)) {
        for play in &plays {
            bar.set_message(format!("(seed {seed}, {})", play.name));
            if let Some(failure) = fails(play, seed) {
                bar.finish_and_clear();
                return Err(Failure::Failed(failure));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!(
        "{} seeds from {} of the {} layout: {} plays, and nothing was wrong",
        args.seeds,
        args.seed,
        S::NAME,
        args.seeds.saturating_mul(plays.len() as u64)
    );
    Ok(())
}

/// What is wrong with a seed, in words.
fn fails<S: Site>(play: &Play<S>, seed: u64) -> Option<String> {
    // Making the script takes a mount already.
    let (mut stage, steps) = match quietly(|| Ok((play.script)(seed))) {
        Ok(made) => made,
        Err(why) => return Some(format!("seed {seed} of the {} layout: {why}", S::NAME)),
    };
    let wrong = |stage: &Stage<S>, steps: &[Step<S>]| {
        quietly(|| (play.wrong)(stage, steps).map_or(Ok(()), Err)).err()
    };
    wrong(&stage, &steps)?;
    let steps = shrink(steps, |steps| wrong(&stage, steps).is_some());
    stage.tapes = Tapes::recording(true);
    let why = wrong(&stage, &steps).unwrap_or_else(|| "not again".to_owned());
    let why = brief(&why, 4 * STEP);
    let lines: Vec<String> =
        steps.iter().map(|step| format!("  {}\n", brief(&format!("{step:?}"), STEP))).collect();
    let layout = S::NAME.replace(' ', "-");
    let logs: Vec<String> = stage
        .tapes
        .logs()
        .iter()
        .enumerate()
        .map(|(n, log)| {
            let name = format!("dbmount-{layout}-{}-{seed}-{}.log", play.name, n + 1);
            let file: PathBuf = std::env::temp_dir().join(name);
            match std::fs::write(&file, log) {
                Ok(()) => format!("  dbmount replay --trace {}\n", file.display()),
                Err(error) => {
                    format!("  {} could not be written: {}\n", file.display(), plain(&error))
                }
            }
        })
        .collect();
    Some(format!(
        "seed {seed} of the {layout} layout fails, {}: {why}\nafter\n{}in {:?}\nsee what the engine \
         did with\n{}again with\n  dbmount selftest --seed {seed} --seeds 1 --layout …",
        play.name,
        lines.concat(),
        stage.weather,
        logs.concat(),
    ))
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: Cell<String> = const { Cell::new(String::new()) };
}

/// From here on panics inside of [`quietly`] are failures of a play and print nothing.
fn hear_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if QUIET.get() {
            SAID.set(info.to_string());
        } else {
            loud(info);
        }
    }));
}

fn quietly<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    result.unwrap_or_else(|_| Err(SAID.take()))
}
