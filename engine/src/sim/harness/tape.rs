//! What the mounts of a world do, as logs to be replayed.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::contract::{Input, Output};
use crate::replay::{Recipe, Recorded, Recorder};
use crate::time::Now;

/// The logs of a world's mounts, one for each time that one was mounted, or none.
///
/// They are held from outside as well, so that they outlive a panic. A copy of a world is there to
/// look around in: what happens in it is on no tape, so a clone of this records nothing.
#[derive(Debug)]
pub struct Tapes<L: Recorded>(Option<Rc<Reels<L>>>);

#[derive(Debug)]
struct Reels<L: Recorded> {
    contents: bool,
    logs: RefCell<Vec<Recorder<L>>>,
}

impl<L: Recorded> Default for Tapes<L> {
    /// Nothing is recorded.
    fn default() -> Self {
        Tapes(None)
    }
}

impl<L: Recorded> Clone for Tapes<L> {
    fn clone(&self) -> Self {
        Tapes(None)
    }
}

impl<L: Recorded> Tapes<L> {
    /// Everything is recorded, but for the contents of files where these are not wanted.
    #[must_use]
    pub fn recording(contents: bool) -> Self {
        Tapes(Some(Rc::new(Reels { contents, logs: RefCell::default() })))
    }

    /// Another hold on the same tapes.
    #[must_use]
    pub fn share(&self) -> Self {
        Tapes(self.0.clone())
    }

    /// The logs so far.
    #[must_use]
    pub fn logs(&self) -> Vec<Vec<u8>> {
        let tapes = self.0.iter().flat_map(|reels| reels.logs.borrow().clone());
        tapes.map(|mut tape| tape.take(true)).collect()
    }

    /// Begins a log.
    pub(super) fn begin(&self, recipe: &Recipe<L>) -> Tape<L> {
        let Some(reels) = &self.0 else { return Tape::default() };
        // Options that cannot be written are met by every test of logs.
        let Ok(recorder) = Recorder::new(recipe, "the simulation", reels.contents) else {
            return Tape::default();
        };
        let mut logs = reels.logs.borrow_mut();
        logs.push(recorder);
        let at = logs.len() - 1;
        Tape { tapes: self.share(), at }
    }
}

/// The log of one mount.
#[derive(Clone, Debug)]
pub(super) struct Tape<L: Recorded> {
    tapes: Tapes<L>,
    at: usize,
}

impl<L: Recorded> Default for Tape<L> {
    fn default() -> Self {
        Tape { tapes: Tapes::default(), at: 0 }
    }
}

impl<L: Recorded> Tape<L> {
    pub(super) fn input(&self, now: Now, input: &Input<L::Backend>) {
        self.with(|recorder| recorder.input(now, input).is_ok());
    }

    pub(super) fn outputs(&self, outputs: &[Output<L::Backend>]) {
        self.with(|recorder| recorder.outputs(outputs).is_ok());
    }

    fn with(&self, write: impl FnOnce(&mut Recorder<L>) -> bool) {
        if let Some(reels) = &self.tapes.0
            && let Some(recorder) = reels.logs.borrow_mut().get_mut(self.at)
        {
            assert!(write(recorder), "everything that happens in a world can be written");
        }
    }
}
