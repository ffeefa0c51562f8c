//! One batch on its way: which command is to be sent next, what a reply means, and what a lost
//! connection leaves open. No IO.
//!
//! A write of one document is numbered on a replica set, so sending it again with the same number
//! applies it once (retryable writes specification). A transaction is begun anew when it was lost
//! before its commit was sent, and afterwards only the commit is sent again, which tells what
//! became of it (transactions specification).

use dbmount_engine::backend::mongo::{Command, Concern, Expect, Mongo, Reply, ServerError};
use dbmount_engine::contract::{Batch, Fault, Mode};
use dbmount_engine::id::BatchId;

use crate::error::{Error, Misuse};
use crate::retry;
use crate::session::{Session, SessionPool};
use crate::topology::is_state_change;
use crate::uri::{WriteAck, WriteConcern};
use crate::wire::build::DocBuf;
use crate::wire::command::Command as WireCommand;
use crate::wire::doc::Doc;

/// How often the same is sent again without a word of the server's that it is no primary any
/// more, before its answer is handed on, or the engine looks what became of it: a command that
/// brings servers down must not do so for ever.
const TRIES: u32 = 3;
/// `BSONObjectTooLarge`: what the server would say of a command that is over its bounds.
const TOO_LARGE: i32 = 10_334;

/// What the connection at hand can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// Writes may be numbered: a replica set or mongos, and `retryWrites` is not off.
    pub(super) numbers: bool,
    /// A member that is no primary and is spoken to directly: reads must say that they know.
    pub(super) says_secondary: bool,
}

/// Sessions for numbered writes and transactions. Ids are unique by a random base and a count.
#[derive(Debug)]
pub(super) struct Sessions {
    pool: SessionPool,
    base: [u8; 16],
    made: u64,
}

/// Sessions of servers end after half an hour without use (`logicalSessionTimeoutMinutes`).
const SESSION_MINUTES: i64 = 30;

impl Sessions {
    pub(super) fn new(base: [u8; 16]) -> Sessions {
        Sessions { pool: SessionPool::default(), base, made: 0 }
    }

    fn take(&mut self, now_ms: i64) -> Session {
        self.made += 1;
        let mut id = self.base;
        for (byte, count) in id.iter_mut().skip(8).zip(self.made.to_be_bytes()) {
            *byte ^= count;
        }
        // The random bits of the variant and version are overwritten; the count is not among them.
        self.pool.take(SESSION_MINUTES, now_ms, id)
    }

    fn give_back(&mut self, mut session: Session, now_ms: i64) {
        session.settle();
        self.pool.give_back(session, now_ms);
    }

    /// The command that ends the idle ones, when the mount ends.
    pub(super) fn end(&mut self) -> Option<WireCommand> {
        self.pool.end()
    }
}

/// What sending a command twice does.
#[derive(Debug)]
enum Twice {
    /// Nothing more: it reads, or makes what is there already.
    Same,
    /// Nothing more once it is numbered; numbered when it is first sent.
    Numbered(Option<Session>),
    /// Perhaps something.
    Differs,
}

#[derive(Debug)]
struct Slot {
    wire: WireCommand,
    expect: Expect,
    reads: bool,
    twice: Twice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The commands.
    Running,
    /// All of a transaction is well: the commit.
    Committing { sent: bool },
    /// It is not: the abort.
    Aborting { sent: bool },
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Job {
    /// `None` when nobody waits for it.
    id: Option<BatchId>,
    mode: Mode,
    commit: WriteConcern,
    slots: Vec<Slot>,
    /// Commands sent on this connection or answered.
    sent: usize,
    replies: Vec<Reply>,
    /// A reply did not say what was expected: nothing more is sent.
    stopped: bool,
    /// What the server would say of the next command, which is over its bounds.
    refusal: Option<Reply>,
    phase: Phase,
    /// Of the transaction.
    session: Option<Session>,
    weight: usize,
    /// How often it was sent again.
    tries: u32,
}

/// What a reply comes to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// There is more to send, or to wait for.
    More,
    /// The batch has ended.
    Done(Result<Vec<Reply>, Fault>),
    /// This server cannot do it now: hang up, and send what is open again, where there is a
    /// primary.
    Elsewhere(Box<ServerError>),
}

/// What a lost connection means for a batch.
#[derive(Debug)]
pub(super) enum Lost {
    /// It goes on with the next connection.
    Keep,
    /// It has ended.
    Done(Result<Vec<Reply>, Fault>),
}

impl Job {
    pub(super) fn new(batch: Batch<Mongo>) -> Job {
        let atomic = batch.mode == Mode::Atomic;
        let concern = batch.commands.iter().map(|it| it.concern).max().unwrap_or_default();
        let weight = batch.commands.iter().map(Command::weight).fold(1, usize::saturating_add);
        let slot = |mut command: Command| {
            let expect = match batch.mode {
                Mode::Independent => Expect::Anything,
                _ => command.expect,
            };
            if !atomic {
                let concern = command.concern;
                concern.write(command.body());
            }
            let (reads, twice) = match command.name() {
                "find" | "aggregate" | "count" | "distinct" => (true, Twice::Same),
                "hello" | "ping" | "createIndexes" | "listIndexes" => (false, Twice::Same),
                _ if command.retryable => (false, Twice::Numbered(None)),
                // A cursor is its server's own: asking another for more gives an error.
                _ => (false, Twice::Differs),
            };
            Slot { wire: WireCommand::from(command), expect, reads, twice }
        };
        Job {
            id: Some(batch.id),
            mode: batch.mode,
            commit: commit_concern(concern),
            slots: batch.commands.into_iter().map(slot).collect(),
            sent: 0,
            replies: Vec::new(),
            stopped: false,
            refusal: None,
            phase: Phase::Running,
            session: None,
            weight,
            tries: 0,
        }
    }

    pub(super) fn id(&self) -> Option<BatchId> {
        self.id
    }

    /// Bytes it carries.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether replies to it are still to come on this connection.
    pub(super) fn is_awaited(&self) -> bool {
        match self.phase {
            Phase::Running => self.sent > self.replies.len(),
            Phase::Committing { .. } | Phase::Aborting { .. } => true,
        }
    }

    /// Whether what stands behind it may be sent: nothing more of it is to come.
    pub(super) fn is_sent(&self) -> bool {
        match self.phase {
            Phase::Running if self.mode == Mode::Atomic => false,
            Phase::Running => self.stopped || self.sent == self.slots.len(),
            Phase::Committing { sent } | Phase::Aborting { sent } => sent,
        }
    }

    /// Nobody waits for it any more. What is on its way is still answered; a transaction still
    /// has to be ended.
    pub(super) fn abandon(&mut self) {
        self.id = None;
        self.stopped = true;
        if self.mode == Mode::Atomic
            && self.phase == Phase::Running
            && self.sent == self.replies.len()
        {
            self.phase = Phase::Aborting { sent: false };
        }
    }

    /// The next command to send now; `None` when a reply must come first or all is sent.
    ///
    /// # Errors
    /// A mistake in the order of a session's use, which ends the batch.
    pub(super) fn next(
        &mut self,
        abilities: Abilities,
        sessions: &mut Sessions,
        now_ms: i64,
    ) -> Result<Option<WireCommand>, Misuse> {
        match &mut self.phase {
            Phase::Running => {}
            Phase::Committing { sent } | Phase::Aborting { sent } if *sent => return Ok(None),
            Phase::Committing { sent } => {
                *sent = true;
                return match &mut self.session {
                    Some(session) => session.commit(&self.commit),
                    None => Ok(None),
                };
            }
            Phase::Aborting { sent } => {
                *sent = true;
                return match &mut self.session {
                    Some(session) => session.abort(),
                    None => Ok(None),
                };
            }
        }
        let open = self.slots.get(self.replies.len()..self.sent).unwrap_or_default();
        if self.stopped || open.iter().any(|slot| slot.expect != Expect::Anything) {
            return Ok(None);
        }
        let Some(slot) = self.slots.get_mut(self.sent) else { return Ok(None) };
        let mut wire;
        if self.mode == Mode::Atomic {
            wire = slot.wire.clone();
            let session = self.session.get_or_insert_with(|| sessions.take(now_ms));
            if self.sent == 0 {
                session.start_transaction()?;
            }
            session.decorate(&mut wire)?;
        } else {
            if let Twice::Numbered(number @ None) = &mut slot.twice
                && abilities.numbers
            {
                let mut session = sessions.take(now_ms);
                session.number_write(&mut slot.wire)?;
                *number = Some(session);
            }
            wire = slot.wire.clone();
        }
        if slot.reads && abilities.says_secondary {
            wire.body().begin("$readPreference").str("mode", "primaryPreferred").end();
        }
        self.sent += 1;
        Ok(Some(wire))
    }

    /// The command that [`Job::next`] gave cannot be sent at all: the batch ends there.
    pub(super) fn on_misuse(&mut self, misuse: &Misuse) -> Verdict {
        let mut refusal = DocBuf::new();
        refusal.f64("ok", 0.0).i32("code", TOO_LARGE).str("errmsg", misuse.to_string());
        match refusal.finish_doc() {
            Ok(refusal) if self.phase == Phase::Running => {
                self.refusal = Some(Reply::Doc(refusal));
                self.sent = self.sent.saturating_sub(1);
                self.stopped = true;
                self.on_answered()
            }
            _ => Verdict::Done(Err(Fault::NotSent)),
        }
    }

    /// Takes the reply to the oldest command without one.
    pub(super) fn on_reply(&mut self, doc: Doc) -> Verdict {
        let reply = Reply::Doc(doc);
        match self.phase {
            Phase::Running => self.answered(reply),
            Phase::Aborting { .. } => Verdict::Done(Ok(self.all_replies())),
            Phase::Committing { .. } => self.committed(reply),
        }
    }

    fn answered(&mut self, reply: Reply) -> Verdict {
        let at = self.replies.len();
        let error = reply.error();
        if let Some(error) = &error
            && self.goes_elsewhere(error)
        {
            return Verdict::Elsewhere(Box::new(error.clone()));
        }
        let Some(slot) = self.slots.get(at) else { return Verdict::Done(Err(Fault::Unknown)) };
        let atomic = self.mode == Mode::Atomic;
        self.stopped |= !reply.meets(slot.expect) || (atomic && error.is_some());
        self.replies.push(reply);
        if !atomic {
            // It gets on; what comes next has not been tried yet.
            self.tries = 0;
        }
        self.on_answered()
    }

    fn on_answered(&mut self) -> Verdict {
        if self.replies.len() < self.sent {
            return Verdict::More;
        }
        let ended = self.stopped || self.sent == self.slots.len();
        match (ended, self.mode == Mode::Atomic) {
            (false, _) => Verdict::More,
            (true, false) => Verdict::Done(Ok(self.all_replies())),
            (true, true) => {
                self.phase = match self.stopped {
                    true => Phase::Aborting { sent: false },
                    false => Phase::Committing { sent: false },
                };
                Verdict::More
            }
        }
    }

    fn committed(&mut self, verdict: Reply) -> Verdict {
        let Some(error) = verdict.error() else { return Verdict::Done(Ok(self.all_replies())) };
        if self.goes_elsewhere(&error) {
            return Verdict::Elsewhere(Box::new(error));
        }
        if !retry::commit(&Error::from(error), i32::MAX) {
            // It did not happen, and every command says why.
            return Verdict::Done(Ok(vec![verdict; self.slots.len()]));
        }
        self.tries += 1;
        if self.tries > TRIES {
            return Verdict::Done(Err(Fault::Unknown));
        }
        self.phase = Phase::Committing { sent: false };
        Verdict::More
    }

    /// Whether this answer is to be had from another server, or from this one later.
    fn goes_elsewhere(&self, error: &ServerError) -> bool {
        if is_state_change(error) {
            return true;
        }
        // Within a transaction the label says that the whole of it may be run again; that is for
        // whoever made the batch to decide.
        let running = self.mode == Mode::Atomic && self.phase == Phase::Running;
        !running && error.has_label(retry::RETRYABLE_WRITE_ERROR) && self.tries < TRIES
    }

    /// The connection is lost. A transaction that may be open on the server is left in `orphans`.
    pub(super) fn on_lost(&mut self, orphans: &mut Vec<Session>) -> Lost {
        self.tries += u32::from(self.is_awaited());
        if self.mode == Mode::Atomic {
            return self.transaction_lost(orphans);
        }
        if self.id.is_none() || self.tries > TRIES {
            return Lost::Done(Err(Fault::Unknown));
        }
        let open = self.slots.get(self.replies.len()..self.sent).unwrap_or_default();
        if open.iter().any(|slot| matches!(slot.twice, Twice::Differs | Twice::Numbered(None))) {
            return Lost::Done(Err(Fault::Unknown));
        }
        self.sent = self.replies.len();
        Lost::Keep
    }

    fn transaction_lost(&mut self, orphans: &mut Vec<Session>) -> Lost {
        match self.phase {
            Phase::Committing { .. } if self.tries > TRIES => Lost::Done(Err(Fault::Unknown)),
            Phase::Committing { .. } => {
                self.phase = Phase::Committing { sent: false };
                Lost::Keep
            }
            Phase::Running => {
                orphans.extend(self.session.take());
                (self.sent, self.stopped) = (0, false);
                self.replies.clear();
                match self.id {
                    Some(_) if self.tries <= TRIES => Lost::Keep,
                    _ => Lost::Done(Err(Fault::NotSent)),
                }
            }
            Phase::Aborting { .. } => {
                orphans.extend(self.session.take());
                Lost::Done(Ok(self.all_replies()))
            }
        }
    }

    fn all_replies(&mut self) -> Vec<Reply> {
        let mut replies = std::mem::take(&mut self.replies);
        replies.extend(self.refusal.take());
        replies.resize(self.slots.len(), Reply::Skipped);
        replies
    }

    /// Gives its sessions back for reuse. Those of a `lost` connection are not used again: the
    /// server may still be busy with them (sessions specification, "dirty").
    pub(super) fn release(self, lost: bool, sessions: &mut Sessions, now_ms: i64) {
        let numbered = self.slots.into_iter().filter_map(|slot| match slot.twice {
            Twice::Numbered(session) => session,
            Twice::Same | Twice::Differs => None,
        });
        for session in numbered.chain(self.session).filter(|_| !lost) {
            sessions.give_back(session, now_ms);
        }
    }
}

/// The abort of a transaction that a lost connection left open: until then, or for a minute, the
/// server keeps its locks. Sent to whichever server is next; one that never knew it says so.
pub(super) fn abort_orphan(mut session: Session) -> Option<WireCommand> {
    session.abort().ok().flatten()
}

fn commit_concern(concern: Concern) -> WriteConcern {
    match concern {
        Concern::Durable => WriteConcern {
            w: Some(WriteAck::Mode("majority".to_owned())),
            journal: Some(true),
            ..WriteConcern::default()
        },
        _ => WriteConcern { w: Some(WriteAck::Nodes(1)), ..WriteConcern::default() },
    }
}
