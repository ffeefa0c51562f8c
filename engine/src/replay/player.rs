//! Plays a log: an engine is handed the recorded inputs, and its outputs are held to the recorded
//! ones, byte for byte.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ciborium::Value;

use super::difference::{self, Difference};
use super::log::{self, LogError};
use super::{Recipe, Recorded};
use crate::contract::{Input, Output};
use crate::engine::Engine;
use crate::time::Now;

/// An engine that is held to what was recorded.
#[derive(Clone, Debug)]
pub struct Player<L: Recorded> {
    engine: Engine<L>,
    inputs: u64,
    outputs: Vec<Output<L::Backend>>,
}

impl<L: Recorded> Player<L> {
    /// Sets up the engine of a log.
    #[must_use]
    pub fn new(recipe: &Recipe<L>) -> Self {
        Player { engine: recipe.engine(), inputs: 0, outputs: Vec::new() }
    }

    /// Hands in an input; returns what comes of it.
    pub fn input(&mut self, now: Now, input: Input<L::Backend>) -> &[Output<L::Backend>] {
        self.inputs += 1;
        self.outputs.clear();
        self.engine.handle(now, input);
        while let Some(output) = self.engine.poll() {
            self.outputs.push(output);
        }
        &self.outputs
    }

    /// How many inputs there have been.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// The engine as it stands.
    pub fn engine(&self) -> &Engine<L> {
        &self.engine
    }

    /// Compares what came of the last input with what was recorded.
    ///
    /// # Errors
    /// Where they differ. Whatever comes after it means nothing.
    pub fn compare(&self, recorded: &[u8]) -> Result<(), Box<Difference>> {
        let mut replayed = Vec::new();
        let unlike =
            |why: LogError| Box::new(Difference::unreadable(self.inputs, alloc::format!("{why}")));
        log::write(&self.outputs, &mut replayed).map_err(unlike)?;
        if replayed == recorded {
            return Ok(());
        }
        let read = |bytes: &[u8]| -> Result<Vec<Value>, Box<Difference>> {
            log::read(bytes).map_err(|why| Box::new(Difference::unreadable(self.inputs, why)))
        };
        difference::compare(self.inputs, &read(recorded)?, &read(&replayed)?)
    }
}
