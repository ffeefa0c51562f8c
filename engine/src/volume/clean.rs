//! Bytes beyond the end of contents: what a truncation leaves behind must be gone before the
//! contents grow again, or it would show instead of zeros. How far it may reach is kept in the
//! inode (`stale`) until it is gone, so that a crash in between does no harm.

use alloc::boxed::Box;
use alloc::vec::Vec;

use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::decide::{Facts, Plan};
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Outcome, Step, Work, WriteOut};

use super::append::Appending;
use super::key::{DataId, Key};
use super::{Ticket, Volume, decimal, scripts};

/// How many blocks one step removes.
const STEP: u64 = 256;

/// Contents being cleaned.
#[derive(Clone, Debug)]
pub struct Cleaning {
    ino: Ino,
    size: u64,
    /// Up to where there may be more after this step.
    left: u64,
    data: DataId,
    then: Then,
}

/// What comes when it is clean.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The plan was applied already.
    Applied,
    /// The plan is tried again.
    Commit(Plan, Token),
    /// The write is tried again.
    Write(Ino, WriteOut, u32),
    /// The bytes are put at the end again.
    Append(Box<Appending>),
}

impl Volume {
    /// Removes what contents of this length have between it and `stale`.
    pub(super) fn start_clean(
        &mut self,
        ino: Ino,
        (size, stale): (u64, u64),
        data: DataId,
        then: Then,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if stale <= size {
            return self.clean(then, cx);
        }
        let block = u64::from(self.block);
        let (first, last) = (size / block, (stale - 1) / block);
        let from = first.max(last.saturating_sub(STEP - 1));
        let (keep, left) = match (from == first, size % block) {
            (true, 0) => (None, size),
            (true, part) => (Some(part), size),
            (false, _) => (None, from * block),
        };
        let mut keys: Args = smallvec![self.key(Key::Inode(ino))];
        keys.extend((from..=last).map(|n| self.block_key(data, n)));
        let args: Args = smallvec![
            decimal(size),
            decimal(stale),
            decimal(data.0),
            decimal(ino.0),
            keep.map_or(bytes::Bytes::from_static(b"-1"), decimal),
            decimal(left),
        ];
        let commands = alloc::vec![Command::Script { script: &scripts::CLEAN, keys, args }];
        let ticket = Ticket::Clean(Box::new(Cleaning { ino, size, left, data, then }));
        let work = Self::work(Lane::Meta, commands, ticket);
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    pub(super) fn cleaned(
        &mut self,
        cleaning: Cleaning,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Cleaning { ino, size, left, data, then } = cleaning;
        match replies.first() {
            Some(Reply::Int(1)) => {
                if let Some(node) = self.tree.get_mut(ino) {
                    node.stale = if left > size { left } else { 0 };
                }
                self.start_clean(ino, (size, left), data, then, cx)
            }
            // Somebody else has done it, or has truncated them again: the next look tells.
            Some(Reply::Int(_)) => self.clean(then, cx),
            other => match then {
                // The length is set; what is behind it stays noted for whoever extends it.
                Then::Applied => Step::Done(Outcome::Applied(Facts::new())),
                _ => Step::Fail(self.odd("removing what was cut off", other)),
            },
        }
    }

    fn clean(&mut self, then: Then, cx: &mut Cx<Redis>) -> Step<Self> {
        match then {
            Then::Applied => Step::Done(Outcome::Applied(Facts::new())),
            Then::Commit(plan, token) => self.start_commit(plan, token, cx),
            Then::Write(ino, out, tries) => self.start_data_write(ino, out, tries, cx),
            Then::Append(appending) => self.start_append(*appending, cx),
        }
    }

    /// The keys of all blocks of some contents, to be removed.
    pub(super) fn blocks_of(
        &self,
        data: DataId,
        blocks: core::ops::Range<u64>,
    ) -> Vec<bytes::Bytes> {
        blocks.map(|n| self.block_key(data, n)).collect()
    }
}
