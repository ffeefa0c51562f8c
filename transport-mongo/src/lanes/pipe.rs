//! What is on its way on one connection: batches in order, the replies they wait for, and what of
//! them outlives the connection. No IO.
//!
//! A batch is sent when all of the one before it has been sent: whatever the engine submits first
//! is executed first and answered first. One that must wait for a reply of its own before it can
//! go on (an expectation, a transaction) keeps those behind it waiting until then.

use std::collections::VecDeque;

use dbmount_engine::backend::mongo::{Mongo, ServerError};
use dbmount_engine::contract::{Batch, Input};
use dbmount_engine::id::BatchId;

use super::job::{Abilities, Job, Lost, Sessions, Verdict, abort_orphan};
use crate::connection::{Answer, InFlight, Incoming};
use crate::error::{Misuse, PeerError};
use crate::session::Session;
use crate::wire::command::Command as WireCommand;
use crate::wire::frame::RequestId;

/// Commands on the wire of one connection at most.
const MOST_COMMANDS: usize = 1024;

/// Tells the batches of one pipe apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key(u64);

#[derive(Debug)]
struct Entry {
    key: Key,
    job: Job,
    /// Its weight is part of what is on the wire.
    weighed: bool,
}

/// The batches of one connection, from submit to reply.
#[derive(Debug)]
pub(super) struct Pipe {
    jobs: VecDeque<Entry>,
    next_key: u64,
    /// Whom the replies to come are for, in the order of the wire; `None`: nobody.
    awaited: InFlight<Option<Key>>,
    /// Whose command was handed out last.
    sending: Option<Key>,
    abilities: Abilities,
    sessions: Sessions,
    /// Transactions that lost connections left open.
    orphans: Vec<Session>,
    /// The weight of what is on the wire, and what it is kept below.
    weight: usize,
    bound: usize,
}

impl Pipe {
    /// `bound` is the weight in bytes above which batches wait; one is always let through. `base`
    /// is random, for the ids of sessions.
    pub(super) fn new(bound: usize, base: [u8; 16]) -> Pipe {
        Pipe {
            jobs: VecDeque::new(),
            next_key: 0,
            awaited: InFlight::new(MOST_COMMANDS),
            sending: None,
            abilities: Abilities::default(),
            sessions: Sessions::new(base),
            orphans: Vec::new(),
            weight: 0,
            bound,
        }
    }

    /// There is a new connection, and this is what it can do.
    pub(super) fn connected(&mut self, abilities: Abilities) {
        self.abilities = abilities;
    }

    /// Takes a batch of at least one command.
    pub(super) fn push(&mut self, batch: Batch<Mongo>) {
        self.next_key += 1;
        let (key, job) = (Key(self.next_key), Job::new(batch));
        self.jobs.push_back(Entry { key, job, weighed: false });
    }

    /// Nobody waits for this batch any more. There may be something to send for it all the same:
    /// the end of its transaction.
    pub(super) fn abandon(&mut self, id: BatchId, now_ms: i64) {
        let Some(at) = self.jobs.iter().position(|it| it.job.id() == Some(id)) else { return };
        let Some(Entry { job, .. }) = self.jobs.get_mut(at) else { return };
        job.abandon();
        if !job.is_awaited() {
            self.finish(at, false, now_ms);
        }
    }

    /// The next command to send, if one may be sent now. Say [`Pipe::sent`] of it, or
    /// [`Pipe::not_sendable`].
    pub(super) fn next(&mut self, now_ms: i64) -> Option<WireCommand> {
        if !self.awaited.has_room() {
            return None;
        }
        while let Some(orphan) = self.orphans.pop() {
            if let Some(abort) = abort_orphan(orphan) {
                self.sending = None;
                return Some(abort);
            }
        }
        let Entry { key, job, weighed } = self.jobs.iter_mut().find(|it| !it.job.is_sent())?;
        let weight = self.weight.saturating_add(job.weight());
        if !*weighed && self.weight > 0 && weight > self.bound {
            return None;
        }
        // A session used out of its order is a mistake of this file; the batch then waits for its
        // deadline instead of taking the process down.
        let command = job.next(self.abilities, &mut self.sessions, now_ms).ok().flatten()?;
        if !*weighed {
            (*weighed, self.weight) = (true, weight);
        }
        self.sending = Some(*key);
        Some(command)
    }

    /// The command handed out last is on its way under this number.
    pub(super) fn sent(&mut self, id: RequestId) {
        // Room was looked for before.
        let _ = self.awaited.insert(id, self.sending);
    }

    /// The command handed out last can never be sent.
    pub(super) fn not_sendable(
        &mut self,
        misuse: &Misuse,
        now_ms: i64,
        inputs: &mut Vec<Input<Mongo>>,
    ) {
        let Some((at, job)) = self.sending.and_then(|key| self.job(key)) else { return };
        if let Verdict::Done(result) = job.on_misuse(misuse) {
            inputs.extend(job.id().map(|id| Input::Replies(id, result)));
            self.finish(at, false, now_ms);
        }
    }

    /// Takes a message of the server. What it finishes goes to `inputs`; an error of the server is
    /// given back when the connection is to be given up for another one.
    ///
    /// # Errors
    /// It answers nothing that was asked.
    pub(super) fn on_message(
        &mut self,
        incoming: Incoming,
        now_ms: i64,
        inputs: &mut Vec<Input<Mongo>>,
    ) -> Result<Option<Box<ServerError>>, PeerError> {
        let key = match self.awaited.answer(&incoming)? {
            Answer::Last(key) => key,
            Answer::More(_) => return Err(PeerError::new("a stream that was not asked for", 16)),
        };
        let Some((at, job)) = key.and_then(|key| self.job(key)) else { return Ok(None) };
        match job.on_reply(incoming.message.body) {
            Verdict::More => Ok(None),
            Verdict::Done(result) => {
                inputs.extend(job.id().map(|id| Input::Replies(id, result)));
                self.finish(at, false, now_ms);
                Ok(None)
            }
            Verdict::Elsewhere(error) => Ok(Some(error)),
        }
    }

    /// The connection is lost. What cannot go on with the next one ends now, oldest first.
    pub(super) fn lost(&mut self, now_ms: i64, inputs: &mut Vec<Input<Mongo>>) {
        self.awaited.drain().for_each(drop);
        self.sending = None;
        self.weight = 0;
        let mut at = 0;
        while let Some(entry) = self.jobs.get_mut(at) {
            entry.weighed = false;
            match entry.job.on_lost(&mut self.orphans) {
                Lost::Keep => at += 1,
                Lost::Done(result) => {
                    inputs.extend(entry.job.id().map(|id| Input::Replies(id, result)));
                    self.finish(at, true, now_ms);
                }
            }
        }
        // A server forgets what it is not reminded of within a minute.
        self.orphans.truncate(MOST_COMMANDS);
    }

    /// Whether a reply is awaited or something waits to be sent.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.awaited.is_empty() && self.orphans.is_empty()
    }

    /// The command that ends this pipe's sessions on the server.
    pub(super) fn end_sessions(&mut self) -> Option<WireCommand> {
        self.sessions.end()
    }

    fn job(&mut self, key: Key) -> Option<(usize, &mut Job)> {
        let at = self.jobs.iter().position(|it| it.key == key)?;
        self.jobs.get_mut(at).map(|it| (at, &mut it.job))
    }

    fn finish(&mut self, at: usize, lost: bool, now_ms: i64) {
        let Some(Entry { job, weighed, .. }) = self.jobs.remove(at) else { return };
        if weighed {
            self.weight -= job.weight();
        }
        job.release(lost, &mut self.sessions, now_ms);
    }
}

#[cfg(test)]
#[path = "pipe_tests.rs"]
mod tests;
