//! What the mounts of a world do plays again from their logs, with contents of files and without.

use dbmount_engine::replay::{Decoder, Entry, Player, Recipe, Recorded};
use dbmount_engine::sim::harness::{Bucket, Disk, Keyspace, LoneBucket, Site, Tapes, Weather};
use dbmount_engine::sim::play::{Stage, Step, against_model, in_a_storm, interspersed, operations};

/// How many inputs a log holds; each came to the same outputs.
fn play<L: Recorded>(log: &[u8]) -> u64 {
    let mut decoder = Decoder::new();
    decoder.feed(log);
    decoder.end();
    let head = decoder.head().expect("a log").expect("all of it was fed");
    let mut player = Player::<L>::new(&Recipe::of(&head).expect("its own layout"));
    loop {
        match decoder.next().expect("a whole log") {
            Entry::Input(now, input) => {
                player.input(now, input);
            }
            Entry::Outputs(recorded) => {
                if let Err(difference) = player.compare(&recorded) {
                    panic!("{} layout: {difference}", L::NAME);
                }
            }
            Entry::More => panic!("all of it was fed"),
            Entry::End { torn } => {
                assert_eq!(torn, 0);
                return player.inputs();
            }
        }
    }
}

fn plays_again<S: Site>() {
    for seed in 0..2 {
        for contents in [true, false] {
            let storm = seed % 2 == 0;
            let weather = if storm { Weather::STORM } else { Weather::BREEZE };
            let mut stage = Stage::<S>::new(seed, weather);
            stage.tapes = Tapes::recording(contents);
            let steps = operations(&stage, 60);
            let wrong = if storm {
                in_a_storm(&stage, &steps)
            } else {
                against_model(&stage, &interspersed(steps, seed, |_| Step::Remount(0)))
            };
            assert_eq!(wrong, None, "seed {seed}");
            if let (Some(dir), true) =
                (std::env::var_os("DBMOUNT_KEEP_LOGS"), contents && seed == 1)
            {
                // Test data for `tests/replay_logs.rs`.
                let name = format!("{}-simulated.log", S::NAME.replace(' ', "-"));
                let log = stage.tapes.logs().swap_remove(0);
                std::fs::write(std::path::Path::new(&dir).join(name), log).expect("written");
            }
            let inputs: u64 = stage.tapes.logs().iter().map(|log| play::<S::Layout>(log)).sum();
            assert!(inputs > 100, "seed {seed}: {inputs} inputs");
        }
    }
}

#[test]
fn sessions_on_keys_play_again() {
    plays_again::<Keyspace>();
}

#[test]
fn sessions_on_gridfs_play_again() {
    plays_again::<Bucket>();
    plays_again::<LoneBucket>();
}

#[test]
fn sessions_on_volumes_play_again() {
    plays_again::<Disk>();
}
