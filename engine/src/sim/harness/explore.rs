//! Every order in which things can happen to mounts that are asked a few things at once, and a lane
//! that breaks anywhere.
//!
//! A world stands still between two events, so it is cloned at each choice and tried on from there.
//! What has been seen before, to the last byte of what engines, server and network hold, is not
//! tried again.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::hash::Hasher;

use rustc_hash::FxHasher;

use crate::errno::Errno;
use crate::id::{Lane, OpId};
use crate::op::{Request, Response};

use super::World;
use super::site::Site;
use super::trouble::Weather;

/// The most states of one exploration: more is a mistake in what was asked for.
const STATES: usize = 200_000;

/// What each mount was answered, in the order in which it asked.
pub type Answers = Vec<Vec<Result<Response, Errno>>>;

/// How much there was to explore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Choices that led to a state which was known already.
    pub known: usize,
    /// States in which everything was answered and nothing on its way.
    pub ends: usize,
}

/// A world in the midst of it.
#[derive(Clone, Debug)]
struct State<S: Site> {
    world: World<S>,
    /// What each mount waits for.
    waiting: Vec<Option<OpId>>,
    answers: Answers,
    /// So many lanes may break yet.
    breaks: usize,
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Ask(usize),
    Event(usize),
    Break(usize, Lane),
    /// Nothing can, so time passes.
    Time,
}

/// Lets each mount of a world that has come to rest ask its requests one after the other, in every
/// order that the network allows, with at most so many lanes breaking. `wrong` is asked at each end.
///
/// # Errors
///
/// What `wrong` says, with the choices that led there.
pub fn explore<S: Site>(
    world: &World<S>,
    scripts: &[Vec<Request>],
    breaks: usize,
    mut wrong: impl FnMut(&mut World<S>, &Answers) -> Option<String>,
) -> Result<Explored, String> {
    let mut world = world.clone();
    world.set_weather(Weather::UNORDERED);
    let count = world.mounts();
    let (waiting, answers) = (alloc::vec![None; count], alloc::vec![Vec::new(); count]);
    let mut stack = alloc::vec![(State { world, waiting, answers, breaks }, Vec::new())];
    let (mut seen, mut explored) = (BTreeSet::new(), Explored::default());
    while let Some((mut state, path)) = stack.pop() {
        state.hear();
        if !seen.insert(state.fingerprint()) {
            explored.known += 1;
            continue;
        }
        explored.states += 1;
        assert!(explored.states <= STATES, "there is no end to it");
        let choices = state.choices(scripts);
        if choices.is_empty() {
            explored.ends += 1;
            let answers = state.answers.clone();
            if let Some(why) = wrong(&mut state.world, &answers) {
                return Err(format!("{why}, after {path:?}, answered {answers:?}"));
            }
        }
        for choice in choices {
            let mut next = state.clone();
            next.choose(choice, scripts);
            let mut path = path.clone();
            path.push(choice);
            stack.push((next, path));
        }
    }
    Ok(explored)
}

impl<S: Site> State<S> {
    /// Takes the answers that have come.
    fn hear(&mut self) {
        for at in 0..self.waiting.len() {
            if let Some(op) = self.waiting[at]
                && let Some(answer) = self.world.answer(at, op)
            {
                self.waiting[at] = None;
                self.answers[at].push(answer);
            }
        }
    }

    fn choices(&self, scripts: &[Vec<Request>]) -> Vec<Choice> {
        let may_ask = |at: &usize| {
            self.waiting[*at].is_none() && self.answers[*at].len() < scripts[*at].len()
        };
        let mut choices: Vec<Choice> =
            (0..scripts.len()).filter(may_ask).map(Choice::Ask).collect();
        choices.extend((0..self.world.events().len()).map(Choice::Event));
        if choices.is_empty() && self.waiting.iter().any(Option::is_some) {
            choices.push(Choice::Time);
        }
        if self.breaks > 0 {
            for at in 0..scripts.len() {
                let busy = |lane: &Lane| self.world.is_busy(at, *lane);
                choices.extend(Lane::ALL.into_iter().filter(busy).map(|it| Choice::Break(at, it)));
            }
        }
        choices
    }

    fn choose(&mut self, choice: Choice, scripts: &[Vec<Request>]) {
        match choice {
            Choice::Ask(at) => {
                let request = scripts[at][self.answers[at].len()].clone();
                self.waiting[at] = Some(self.world.start(at, request));
            }
            Choice::Event(n) => {
                let event = self.world.events()[n];
                self.world.occur(event);
            }
            Choice::Break(at, lane) => {
                self.breaks -= 1;
                self.world.cut_now(at, lane);
            }
            Choice::Time => self.world.step(),
        }
    }

    /// A digest of all that it holds.
    fn fingerprint(&self) -> u64 {
        struct Digest(FxHasher);
        impl fmt::Write for Digest {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let mut digest = Digest(FxHasher::default());
        // A digest takes everything.
        let _ = write!(digest, "{self:?}");
        digest.0.finish()
    }
}
