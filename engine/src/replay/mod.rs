//! The log of a session, and playing it again without a server.
//!
//! An engine is deterministic, so its inputs are all there is to know of a session. A log holds
//! them, and beside each the outputs they led to, to be compared:
//!
//! ```text
//! "dbmount replay log 1\n"          the format's version, readable by `head -1`
//! frame: Head                       how the engine was made: layout, options, config, seed, clock
//! frame: Input, Outputs, Input, …   frames of about 64 KiB
//! ```
//!
//! A frame is compressed and carries a digest, so a log whose end was torn off by a crash plays up
//! to the tear. Everything is written by name (CBOR): a log outlives new variants, and new fields
//! that have a default. What must never happen is renaming; `tests/replay_logs.rs` plays logs of
//! old to see to it.
//!
//! | file | what it holds |
//! |---|---|
//! | `log.rs` | the format: [`Encoder`] and [`Decoder`], which know nothing of files |
//! | `player.rs` | [`Player`]: an engine that is held to what was recorded |
//! | `difference.rs` | where two sets of outputs part, in words |
//! | `recorder.rs` | [`Recorder`]: what goes into a log, with or without contents of files |
//! | `brief.rs` | how bytes are told in outputs |
//! | `trace.rs` | inputs and outputs as lines for the user |

pub(crate) mod brief;
mod difference;
mod log;
mod player;
mod recorder;
mod trace;

use alloc::string::String;
use core::fmt::Debug;

use ciborium::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::config::Config;
use crate::engine::Engine;
use crate::gridfs::GridFs;
use crate::keys::Keys;
use crate::layout::Layout;
use crate::time::Now;
use crate::volume::Volume;

pub use difference::Difference;
pub use log::{Decoder, Encoder, Entry, FORMAT, LogError};
pub use player::Player;
pub use recorder::Recorder;
pub(crate) use recorder::zeros;
pub use trace::{trace_input, trace_output};

/// A layout whose sessions can be recorded.
pub trait Recorded: Layout {
    /// Its name in logs, for ever.
    const NAME: &'static str;
    /// What a user may choose about it. New ones have defaults, for the logs of before.
    type Options: Clone + Debug + Serialize + DeserializeOwned;

    /// A layout that has not looked at the server yet.
    fn with(options: Self::Options, now: Now) -> Self;

    /// The command with contents of files replaced by zeros.
    fn blank_command(
        command: &<Self::Backend as Backend>::Command,
    ) -> <Self::Backend as Backend>::Command;

    /// Whether the reply to a command holds contents of files.
    fn asks_contents(command: &<Self::Backend as Backend>::Command) -> bool;

    /// The bytes of a reply, for the bounds on what waits to be written.
    fn weigh(reply: &<Self::Backend as Backend>::Reply) -> usize;

    /// A reply that holds contents, with zeros in their place.
    fn blank_reply(reply: &<Self::Backend as Backend>::Reply) -> <Self::Backend as Backend>::Reply;
}

/// How an engine is made: all that decides what it does with its inputs.
#[derive(Clone, Debug)]
pub struct Recipe<L: Recorded> {
    /// Of the engine.
    pub config: Config,
    /// Of the layout.
    pub options: L::Options,
    /// The mount's identity on its server.
    pub seed: u64,
    /// The clocks at the beginning.
    pub now: Now,
}

impl<L: Recorded> Recipe<L> {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> Engine<L> {
        let layout = L::with(self.options.clone(), self.now);
        Engine::new(self.config.clone(), layout, self.seed, self.now)
    }

    /// The beginning of a log.
    ///
    /// # Errors
    /// Options that cannot be written.
    pub fn head(&self, program: &str, contents: bool) -> Result<Head, LogError> {
        let options = Value::serialized(&self.options);
        Ok(Head {
            layout: String::from(L::NAME),
            program: String::from(program),
            contents,
            config: self.config.clone(),
            options: options.map_err(|error| LogError::unwritable(&error))?,
            seed: self.seed,
            now: self.now,
        })
    }

    /// The recipe at the beginning of a log.
    ///
    /// # Errors
    /// [`LogError::Corrupt`]: another layout's, or options that make no sense.
    pub fn of(head: &Head) -> Result<Self, LogError> {
        if head.layout != L::NAME {
            return Err(LogError::Layout(head.layout.clone()));
        }
        let options = head.options.deserialized().map_err(|error| LogError::Corrupt {
            at: 0,
            what: alloc::format!("the options of the layout: {error}"),
        })?;
        Ok(Recipe { config: head.config.clone(), options, seed: head.seed, now: head.now })
    }
}

/// The beginning of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`Recorded::NAME`].
    pub layout: String,
    /// Who wrote it, for people.
    pub program: String,
    /// Contents of files are in it. Otherwise they are zeros of the same length; names, symlink
    /// targets, attributes and extended attributes are in it all the same.
    pub contents: bool,
    /// Of the engine.
    pub config: Config,
    /// Of the layout.
    options: Value,
    /// See [`Recipe::seed`].
    pub seed: u64,
    /// See [`Recipe::now`].
    pub now: Now,
}

/// Something that is done with a log whatever its layout is.
pub trait Visit {
    /// What comes of it.
    type Done;

    /// Does it.
    fn visit<L: Recorded>(self, recipe: Recipe<L>) -> Self::Done;
}

impl Head {
    /// Calls back with the layout's own type.
    ///
    /// # Errors
    /// [`LogError::Layout`] when this program does not know the layout; what [`Recipe::of`] says.
    pub fn visit<V: Visit>(&self, visit: V) -> Result<V::Done, LogError> {
        match self.layout.as_str() {
            Keys::NAME => Ok(visit.visit(Recipe::<Keys>::of(self)?)),
            GridFs::NAME => Ok(visit.visit(Recipe::<GridFs>::of(self)?)),
            Volume::NAME => Ok(visit.visit(Recipe::<Volume>::of(self)?)),
            other => Err(LogError::Layout(String::from(other))),
        }
    }
}
