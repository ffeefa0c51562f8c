//! Faults put in on purpose, one for each property that plays hold an engine to: a play that does
//! not notice is worth nothing.
//!
//! They are made of what passes between the engine and its kernel and server, so the engine itself
//! has no switches that break it. `tests/sim/canary.rs` plays them.
//!
//! | property | held to by | noticed there |
//! |---|---|---|
//! | an operation does what the model does | `against_model` | [`WritesCutShort`](Sabotage::WritesCutShort), [`EmptinessUnchecked`](Sabotage::EmptinessUnchecked) |
//! | what happens happens once or not at all | `in_a_storm` | [`TokensForgotten`](Sabotage::TokensForgotten) |
//! | what a close acknowledged is there for all | `as_one` | [`SyncsAnsweredEarly`](Sabotage::SyncsAnsweredEarly) |
//! | what an fsync acknowledged outlives the server | `in_a_storm` with [`Trouble::Loss`](super::Trouble::Loss) | [`SyncsUnsafe`](Sabotage::SyncsUnsafe) |
//! | nothing is left over that nobody needs | the layout's own check at the end | [`LeftoversKept`](Sabotage::LeftoversKept) |
//! | what fails says why | `in_a_storm` | [`NoticesLost`](Sabotage::NoticesLost) |
//! | every request is answered in time | the world itself | [`AnswersLate`](Sabotage::AnswersLate) |
//! | memory has its bounds | the world itself | [`DirtUnbounded`](Sabotage::DirtUnbounded), [`BlocksUnbounded`](Sabotage::BlocksUnbounded), [`FactsUnbounded`](Sabotage::FactsUnbounded) |
//! | nothing is believed that a push has voided | `as_one` | [`PushesLost`](Sabotage::PushesLost), [`InvalidationsLost`](Sabotage::InvalidationsLost) |

use bytes::Bytes;

use crate::backend::{mongo, redis};
use crate::config::Config;
use crate::errno::Errno;
use crate::op::{Request, Response};

use super::Setup;
use super::site::Site;

/// What goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sabotage {
    /// Commits leave no token: one that is sent again is applied again.
    TokensForgotten,
    /// No commit looks whether a directory is empty.
    EmptinessUnchecked,
    /// The server's pushes are lost, and nobody notices.
    PushesLost,
    /// The kernel is never told to forget anything.
    InvalidationsLost,
    /// The last byte of a write is lost, and the write reported as whole.
    WritesCutShort,
    /// `fsync` and `close` are answered before anything is done.
    SyncsAnsweredEarly,
    /// The server need not keep what an `fsync` waits for.
    SyncsUnsafe,
    /// The server removes nothing that was only one of a file's pieces.
    LeftoversKept,
    /// What an engine has to say for the log is lost.
    NoticesLost,
    /// There is no bound on what waits to be written.
    DirtUnbounded,
    /// There is no bound on contents that are kept.
    BlocksUnbounded,
    /// There is no bound on facts that are kept.
    FactsUnbounded,
    /// Requests are answered later than they must be.
    AnswersLate,
}

impl Sabotage {
    /// The configuration of an engine that does not keep to the one it should have.
    pub(super) fn config<S: Site>(of: Option<Sabotage>, setup: &Setup<S>) -> Config {
        let mut config = setup.config.clone();
        match of {
            Some(Sabotage::DirtUnbounded) => {
                (config.dirty_bytes, config.flush_bytes) = (usize::MAX, usize::MAX);
            }
            Some(Sabotage::BlocksUnbounded) => config.cache_bytes = 1 << 30,
            Some(Sabotage::FactsUnbounded) => config.fact_entries = 1 << 20,
            Some(Sabotage::AnswersLate) => config.op_timeout *= 2,
            _ => {}
        }
        config
    }

    /// Does something else to a request than the engine would. Returns the answer if the engine is
    /// not asked at all.
    pub(super) fn request(self, request: &mut Request) -> Option<Result<Response, Errno>> {
        match (self, request) {
            (Sabotage::WritesCutShort, Request::Write { data, .. }) => {
                data.truncate(data.len() - 1);
                None
            }
            (
                Sabotage::SyncsAnsweredEarly,
                Request::Flush { .. } | Request::Fsync { .. } | Request::Release { .. },
            ) => Some(Ok(Response::Done)),
            _ => None,
        }
    }

    /// What the kernel is told instead of an answer.
    pub(super) fn answer(self, answer: Result<Response, Errno>) -> Result<Response, Errno> {
        match (self, answer) {
            (Sabotage::WritesCutShort, Ok(Response::Written(len))) => {
                Ok(Response::Written(len + 1))
            }
            (_, answer) => answer,
        }
    }

    /// What a Redis server is told instead of a command.
    pub(super) fn redis(self, command: &mut redis::Command) {
        if let (Sabotage::LeftoversKept, redis::Command::Plain(args)) = (self, &mut *command)
            && args[0] == "UNLINK"
        {
            args[0] = Bytes::from_static(b"EXISTS");
        }
        let redis::Command::Script { script, keys, args } = command else { return };
        if !script.name.contains("commit") {
            return;
        }
        match self {
            // A plan that may be applied twice has an empty key of its token in the one layout, and
            // an empty slot in the other.
            Sabotage::TokensForgotten => {
                keys[0] = Bytes::new();
                args[0] = Bytes::new();
            }
            // `room 0` always holds.
            Sabotage::EmptinessUnchecked => {
                for at in 0..args.len().saturating_sub(1) {
                    if args[at] == "empty" {
                        args[at] = Bytes::from_static(b"room");
                        args[at + 1] = Bytes::from_static(b"0");
                    }
                }
            }
            _ => {}
        }
    }

    /// What a MongoDB server is told instead of a command.
    pub(super) fn mongo(self, command: &mut mongo::Command) {
        if self == Sabotage::SyncsUnsafe && command.concern == mongo::Concern::Durable {
            command.concern = mongo::Concern::Acknowledged;
        }
        let looks_for_children = command.name() == "find"
            && command.expect == mongo::Expect::Found(0)
            && self == Sabotage::EmptinessUnchecked;
        if looks_for_children {
            *command = mongo::Command::on("find", "nowhere", "nothing").expecting(command.expect);
        }
    }
}
