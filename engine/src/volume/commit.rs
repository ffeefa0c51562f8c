//! Plans committed, and what is known after the commit script's verdict.

use alloc::boxed::Box;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::decide::{Change, Facts, Patch, Plan};
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Outcome, Step, Work};
use crate::op::{Attr, Name};
use crate::time::Mono;

use super::clean::Then;
use super::key::DataId;
use super::lower::{Answered, Program};
use super::record::{Inode, Stamp, is_acl};
use super::{Ticket, Volume, count};

/// How many whole blocks one step zeroes.
const ZEROED: u64 = 256;

/// A plan on its way to the server.
#[derive(Clone, Debug)]
pub struct Committing {
    plan: Plan,
    token: Token,
    /// `None`: waits for fresh numbers.
    program: Option<Program>,
}

/// What had to be cleaned away, and what the commit came to.
struct Left {
    ino: Ino,
    size: u64,
    stale: u64,
    data: DataId,
}

impl Volume {
    pub(super) fn start_commit(
        &mut self,
        plan: Plan,
        token: Token,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let empties = |change: &Change| {
            matches!(change, Change::SetAttr { patch: Patch { size: Some(0), .. }, .. })
        };
        if plan.changes.iter().any(empties) && self.numbers.0 >= self.numbers.1 {
            let committing = Committing { plan, token, program: None };
            let commands = alloc::vec![self.ask_for_numbers()];
            let ticket = Ticket::Commit(Box::new(committing));
            return Step::Work(Self::work(Lane::Meta, commands, ticket));
        }
        if let Some((removed, plan)) = self.whole_blocks(&plan) {
            let committing = Committing { plan, token, program: None };
            let ticket = Ticket::Commit(Box::new(committing));
            return Step::Work(Self::work(Lane::Meta, alloc::vec![removed], ticket));
        }
        let Some(program) = self.lower(&plan, token) else {
            return Step::Done(Outcome::Conflict);
        };
        for ino in &program.changed {
            self.own(*ino, cx.now.mono);
        }
        let command = program.command();
        let ticket = Ticket::Commit(Box::new(Committing { plan, token, program: Some(program) }));
        let work = Self::work(Lane::Meta, alloc::vec![command], ticket);
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    /// A range to be zeroed may have more blocks than one script should remove: so many of them
    /// are removed first, and what is left is the plan then. A hole that is half made does no harm.
    fn whole_blocks(&self, plan: &Plan) -> Option<(Command, Plan)> {
        let block = u64::from(self.block);
        let wide = |change: &Change| match change {
            Change::Zero { ino, from, to } => {
                let node = self.tree.get(*ino)?;
                let (first, end) = (from.div_ceil(block), (*to).min(node.size) / block);
                (end > first + ZEROED).then_some((*ino, *from, *to, first, node.data))
            }
            _ => None,
        };
        let (at, (ino, from, to, first, data)) =
            plan.changes.iter().enumerate().find_map(|(n, it)| Some((n, wide(it)?)))?;
        let mut command: Args = smallvec![Bytes::from_static(b"UNLINK")];
        command.extend(self.blocks_of(data, first..first + ZEROED));
        let mut plan = plan.clone();
        plan.changes[at] = Change::Zero { ino, from: (first + ZEROED) * block, to };
        if from < first * block {
            plan.changes.insert(at, Change::Zero { ino, from, to: first * block });
        }
        Some((Command::Plain(command), plan))
    }

    pub(super) fn commit_given_up(&mut self, committing: &Committing, cx: &mut Cx<Redis>) {
        if let Some(Program { stamp, changed, .. }) = &committing.program {
            self.change_given_up(*stamp, changed, cx);
        }
    }

    pub(super) fn committed(
        &mut self,
        committing: Committing,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Committing { plan, token, program } = committing;
        let Some(program) = program else {
            if replies.first().is_none_or(|reply| reply.as_error().is_some()) {
                return Step::Fail(self.odd("preparing a change", replies.first()));
            }
            // Fresh numbers came, unless it were blocks that went.
            if self.numbers.0 >= self.numbers.1 {
                self.take_numbers(replies.first());
            }
            return self.start_commit(plan, token, cx);
        };
        let answer = match replies.first() {
            Some(Reply::Array(answer)) => &answer[..],
            other => return Step::Fail(self.odd("committing a change", other)),
        };
        let Some((verdict, rest)) = answer.split_first() else {
            return Step::Fail(self.odd("committing a change", replies.first()));
        };
        match verdict.as_bytes() {
            Some(b"ok") => self.applied(&plan, &program, Some(rest), cx),
            // It was applied, and what came of it is not told again.
            Some(b"done") => self.applied(&plan, &program, None, cx),
            Some(b"no") => {
                for ino in &program.seen {
                    self.forget_names_of(*ino, &plan, cx);
                }
                Step::Done(Outcome::Conflict)
            }
            Some(b"full") => Step::Fail(self.full("making or growing a file")),
            Some(b"stale") => {
                let ino = program.results.iter().find_map(|it| match it {
                    Answered::Sized(ino, _) | Answered::Grown(ino, _) => Some(*ino),
                    Answered::Dropped(_) => None,
                });
                match (ino, count(rest.first()), count(rest.get(1))) {
                    (Some(ino), Some(size), Some(stale)) => {
                        let data = count(rest.get(2)).unwrap_or(ino.0);
                        let then = Then::Commit(plan, token);
                        self.start_clean(ino, (size, stale), DataId(data), then, cx)
                    }
                    _ => Step::Fail(self.odd("committing a change", replies.first())),
                }
            }
            _ => Step::Fail(self.odd("committing a change", replies.first())),
        }
    }

    fn applied(
        &mut self,
        plan: &Plan,
        program: &Program,
        told: Option<&[Reply]>,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let mut told = told.map(<[Reply]>::iter);
        for ino in &program.seen {
            let former = told.as_mut().map(|it| {
                it.next().and_then(Reply::as_bytes).map_or(Stamp::default(), Stamp::parse)
            });
            if program.changed.contains(ino) {
                self.own(*ino, cx.now.mono);
                self.stamped(*ino, former, program.stamp, cx);
            }
        }
        let sure = told.is_some();
        for change in &plan.changes {
            match change {
                Change::Create { dir, name, attr, .. } if sure => {
                    self.made(attr, (*dir, name), program.stamp, cx.now.mono);
                }
                change => self.follow(change, program),
            }
        }
        let mut left = None;
        for result in &program.results {
            let answer = told.as_mut().and_then(Iterator::next);
            let answer = answer.and_then(Reply::as_array).unwrap_or_default();
            match *result {
                Answered::Dropped(ino) => self.dropped(ino, answer, cx),
                Answered::Sized(ino, size) => left = self.sized(ino, size, answer),
                Answered::Grown(ino, size) => {
                    let size = size.max(count(answer.first()).unwrap_or(0));
                    let _clean_already = self.sized(ino, size, answer);
                }
            }
        }
        for change in &plan.changes {
            if let Change::Unlink { ino, last: true, held: true, .. } = change
                && let Some(node) = self.tree.get_mut(*ino)
            {
                node.held = true;
            }
        }
        match left {
            Some(Left { ino, size, stale, data }) => {
                self.start_clean(ino, (size, stale), data, Then::Applied, cx)
            }
            None => Step::Done(Outcome::Applied(Facts::new())),
        }
    }

    /// An inode was made, and the reply is from that very moment. Its push is an echo like that of
    /// any change of ours, although there was nothing to be marked as such before.
    fn made(&mut self, attr: &Attr, (dir, name): (Ino, &Name), stamp: Stamp, now: Mono) {
        let pushed = self.tree.made(&Inode::new(*attr, None, stamp), (dir, name.clone()));
        self.tree.learn_name(dir, name, Some((attr.kind, attr.ino)));
        self.own(attr.ino, now);
        if pushed {
            self.verify(attr.ino, now);
        }
    }

    /// Brings what is known up to date with a change that was applied.
    fn follow(&mut self, change: &Change, program: &Program) {
        let kind_of = |volume: &Self, ino| volume.tree.get(ino).map(|node| node.kind);
        match change {
            Change::Create { dir, name, attr, .. } => {
                let inode = Inode::new(*attr, None, program.stamp);
                self.tree.learn(&inode, Some((*dir, name.clone())));
                self.tree.learn_name(*dir, name, Some((attr.kind, attr.ino)));
            }
            Change::Link { ino, dir, name } => {
                if let Some(kind) = kind_of(self, *ino) {
                    self.tree.learn_name(*dir, name, Some((kind, *ino)));
                }
                if let Some(node) = self.tree.get_mut(*ino) {
                    node.nlink += 1;
                }
            }
            Change::Unlink { dir, name, ino, last, .. } => {
                self.tree.learn_name(*dir, name, None);
                if let Some(node) = self.tree.get_mut(*ino) {
                    node.nlink = if *last { 0 } else { node.nlink.saturating_sub(1) };
                }
            }
            Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
                self.tree.learn_name(*dir, name, None);
                self.tree.learn_name(*to_dir, to_name, Some((*kind, *ino)));
                if let Some(node) = self.tree.get_mut(*ino) {
                    (node.parent, node.name) = (*to_dir, to_name.clone());
                }
            }
            Change::Exchange { a, b } => {
                for ((dir, name, _), ino) in [(a, b.2), (b, a.2)] {
                    if let Some(kind) = kind_of(self, ino) {
                        self.tree.learn_name(*dir, name, Some((kind, ino)));
                    }
                    if let Some(node) = self.tree.get_mut(ino) {
                        (node.parent, node.name) = (*dir, name.clone());
                    }
                }
            }
            Change::SetAttr { ino, patch } => {
                if let (Some(node), Some(ctime)) = (self.tree.get_mut(*ino), patch.ctime) {
                    node.ctime = ctime;
                }
            }
            Change::Xattr { ino, name, value: Some(_), .. } if is_acl(name) => {
                if let Some(node) = self.tree.get_mut(*ino) {
                    node.acl = Some(true);
                }
            }
            Change::Touch { .. }
            | Change::Xattr { .. }
            | Change::Zero { .. }
            | Change::Grow { .. }
            | Change::Copy { .. } => {}
        }
    }

    fn dropped(&mut self, ino: Ino, answer: &[Reply], cx: &Cx<Redis>) {
        match answer.first().and_then(Reply::as_bytes) {
            Some(b"gone") => {
                let data = count(answer.get(1)).unwrap_or(ino.0);
                self.live.reclaim(DataId(data), count(answer.get(2)).unwrap_or(0), cx.now.mono);
            }
            _ => self.live.look_at_graves(cx.now.mono),
        }
    }

    /// A length was set. What is to be cleaned away behind it.
    fn sized(&mut self, ino: Ino, size: u64, answer: &[Reply]) -> Option<Left> {
        let epoch = self.next_epoch();
        let (was, stale) = (count(answer.first())?, count(answer.get(1))?);
        let data = DataId(count(answer.get(2))?);
        let now = self.live.now();
        let node = self.tree.get_mut(ino)?;
        let before = core::mem::replace(&mut node.data, data);
        // What was asked on another lane may be answered with the length of before.
        node.tainted = epoch;
        (node.size, node.stale) = (size, stale);
        if before != data {
            self.live.reclaim(before, was, now);
        }
        (stale > size).then_some(Left { ino, size, stale, data })
    }
}
