//! Batches on their way: who waits for them, and what a lost connection does to them.
//!
//! Work may be applied twice without harm (see [`Work`]), so both faults are
//! handled alike: the batch waits for its lane to come up and is sent again, in the order in
//! which it was submitted, for as long as somebody waits for it.

use alloc::vec::Vec;

use crate::backend::Backend;
use crate::contract::{Batch, Fault, Level, Output};
use crate::id::{BatchId, Ino, Lane, OpId};
use crate::layout::{Epoch, Layout, Outcome, Step, Work};
use crate::time::Mono;

use super::{Engine, State};

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A request.
    Op(OpId),
    /// The write-back of a file.
    Flush(Ino),
    /// The blocks of a file, for whoever reads them.
    Blocks {
        /// The file.
        ino: Ino,
        /// The first block.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The locks of a file.
    Lock(Ino),
    /// The time of an access.
    Access,
    /// The layout's own work.
    Task,
    /// Nobody any more, but the layout still learns what came of it.
    Nobody,
}

/// A batch on its way, with all that is needed to send it again.
#[derive(Clone, Debug)]
pub(super) struct InFlightBatch<L: Layout> {
    owner: Owner,
    work: Work<L>,
    /// When the layout made it: facts in the replies that crossed an invalidation are not leased.
    since: Epoch,
}

impl<L: Layout> Engine<L> {
    pub(super) fn submit(&mut self, owner: Owner, work: Work<L>) {
        let since = self.layout.epoch();
        self.dispatch(InFlightBatch { owner, work, since });
    }

    fn dispatch(&mut self, batch: InFlightBatch<L>) {
        let lane = batch.work.lane;
        if self.links.get(&lane) != Some(&None) {
            self.stalled.entry(lane).or_default().push(batch);
            return;
        }
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        let deadline = match batch.owner {
            Owner::Op(op) => self.ops.get(&op).map_or(Mono::NEVER, |op| op.deadline),
            _ => self.cx.now.mono.after(self.cx.config.op_timeout),
        };
        self.cx.out.push_back(Output::Submit(Batch {
            id,
            lane,
            mode: batch.work.mode,
            deadline,
            commands: batch.work.commands.clone(),
        }));
        self.batches.insert(id, batch);
    }

    pub(super) fn handle_replies(
        &mut self,
        id: BatchId,
        result: Result<Vec<<L::Backend as Backend>::Reply>, Fault>,
    ) {
        let Some(batch) = self.batches.remove(&id) else { return };
        match result {
            Ok(replies) => {
                let InFlightBatch { owner, work, since } = batch;
                let step = self.layout.resume(work.ticket, replies, &mut self.cx);
                self.void_stale_data();
                self.route(owner, step, since);
            }
            Err(_) if batch.owner == Owner::Nobody => self.never_learnt(batch.work.ticket),
            Err(_) => self.stalled.entry(batch.work.lane).or_default().push(batch),
        }
    }

    pub(super) fn resubmit_stalled(&mut self, lane: Lane) {
        for batch in self.stalled.remove(&lane).unwrap_or_default() {
            let wanted = match batch.owner {
                Owner::Op(op) => self.ops.contains_key(&op),
                Owner::Nobody => false,
                _ => true,
            };
            if wanted {
                self.dispatch(batch);
            } else {
                self.never_learnt(batch.work.ticket);
            }
        }
    }

    /// What nobody waits for any more may have been a change, and may have happened: nothing will
    /// tell, and its push may have been taken for the echo of a later one.
    fn never_learnt(&mut self, ticket: L::Ticket) {
        self.cx.forget_all();
        self.layout.given_up(ticket, &mut self.cx);
    }

    /// The request is being answered before its time; what is on its way for it is not awaited any
    /// more. Of a commit, the layout still has to learn what came of it.
    pub(super) fn abandon_batches_of(&mut self, op: OpId) {
        let committing = match self.ops.get(&op).map(|op| &op.state) {
            Some(State::Txn(txn)) => txn.committing(),
            _ => false,
        };
        let ids: Vec<BatchId> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.owner == Owner::Op(op))
            .map(|(&id, _)| id)
            .collect();
        for id in ids {
            if !committing {
                if let Some(batch) = self.batches.remove(&id) {
                    self.layout.given_up(batch.work.ticket, &mut self.cx);
                }
                self.cx.out.push_back(Output::Abandon(id));
            } else if let Some(batch) = self.batches.get_mut(&id) {
                batch.owner = Owner::Nobody;
            }
        }
    }

    /// Takes the next step of a procedure to whoever waits for it.
    pub(super) fn route(&mut self, owner: Owner, step: Step<L>, since: Epoch) {
        match owner {
            Owner::Op(id) => match self.ops.get(&id).map(|op| &op.state) {
                Some(State::Session) => self.session_step(id, step),
                Some(State::Txn(_)) => self.txn_step(id, step, since),
                Some(State::Piece) => self.piece_step(id, step),
                Some(State::Append) => self.append_step(id, step),
                Some(State::Listing(_)) => self.listing_step(id, step, since),
                Some(
                    State::Start | State::WriteRoom | State::Flush | State::Blocks | State::Lock,
                )
                | None => self.nobodys_step(step),
            },
            Owner::Flush(ino) => self.flush_step(ino, step),
            Owner::Lock(ino) => self.lock_step(ino, step),
            Owner::Blocks { ino, first, count } => self.blocks_step(ino, first, count, step, since),
            Owner::Access => self.access_step(step),
            Owner::Task => match step {
                Step::Work(work) => self.submit(Owner::Task, work),
                Step::Fail(failure) => {
                    if let Some(text) = failure.text {
                        self.cx.notice(Level::Error, text);
                    }
                }
                Step::Done(_) | Step::Park => {}
            },
            Owner::Nobody => self.nobodys_step(step),
        }
    }

    /// A procedure whose caller is gone still runs to its end: it may be half applied.
    fn nobodys_step(&mut self, step: Step<L>) {
        match step {
            Step::Work(work) => self.submit(Owner::Nobody, work),
            // Who knew which facts it changes has been answered already.
            Step::Done(Outcome::Applied(_)) => self.cx.forget_all(),
            _ => {}
        }
    }
}
