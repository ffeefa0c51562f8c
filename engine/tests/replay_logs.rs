//! Logs of old play again, whatever has become of the engine's insides: sessions that
//! `tests/live/record.rs` of the frontend has recorded on real servers, and one of the simulation.
//!
//! A log that cannot be read any more is a defect of the format. One that comes out otherwise tells
//! of a change in what the engine does; when that was meant, it is recorded anew:
//!
//! ```sh
//! rm engine/tests/logs/*.log
//! DBMOUNT_KEEP_LOGS=$PWD/engine/tests/logs cargo test -p dbmount --test live record
//! DBMOUNT_KEEP_LOGS=$PWD/engine/tests/logs cargo test -p dbmount-engine --features sim --test sim tapes
//! ```

use std::fs;
use std::path::Path;

use dbmount_engine::replay::{Decoder, Entry, Player, Recipe, Recorded, Visit};

/// What must hold for a log.
#[derive(Clone, Copy, PartialEq)]
enum Must {
    /// Everything comes out as recorded.
    PlayAlike,
    /// All of it can be read and played; while a layout is still being made, what comes of it may
    /// be something else.
    Play,
}

struct Play<'a>(&'a Path, Decoder, Must);

impl Visit for Play<'_> {
    type Done = u64;

    fn visit<L: Recorded>(mut self, recipe: Recipe<L>) -> u64 {
        let mut player = Player::new(&recipe);
        loop {
            match self.1.next().unwrap_or_else(|error| panic!("{}: {error}", self.0.display())) {
                Entry::Input(now, input) => {
                    player.input(now, input);
                }
                Entry::Outputs(recorded) => {
                    if let (Err(difference), Must::PlayAlike) = (player.compare(&recorded), self.2)
                    {
                        panic!(
                            "{}: {difference}was this change meant? see the top of this test",
                            self.0.display()
                        );
                    }
                }
                Entry::End { torn: 0 } => return player.inputs(),
                end => panic!("{}: {end:?}", self.0.display()),
            }
        }
    }
}

/// Logs of the layout whose names begin with this.
fn play(layout: &str, must: Must) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs");
    let mut logs = 0;
    for entry in fs::read_dir(&dir).expect("the folder of logs") {
        let file = entry.expect("an entry").path();
        if !file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(layout)) {
            continue;
        }
        let mut decoder = Decoder::new();
        decoder.feed(&fs::read(&file).expect("a log"));
        decoder.end();
        let head = decoder.head().expect("a log").expect("all of it was fed");
        assert_eq!(head.layout, layout);
        let inputs = head.visit(Play(&file, decoder, must)).expect("a layout that is known");
        assert!(inputs > 50, "{}: {inputs} inputs", file.display());
        logs += 1;
    }
    assert!(logs > 0, "no log of the {layout} layout");
}

#[test]
fn keys() {
    play("keys", Must::PlayAlike);
}

#[test]
fn gridfs() {
    play("gridfs", Must::Play);
}

#[test]
fn volume() {
    play("volume", Must::Play);
}
