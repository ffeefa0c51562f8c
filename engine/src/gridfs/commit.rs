//! Commits: adopt what is other programs', apply, judge by the replies, settle what is open, take
//! back what came too late.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::backend::mongo::{Expect, Mongo, Reply};
use crate::contract::Mode;
use crate::decide::{Answer, Change, Facts, Plan};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Outcome, Step, Work};
use crate::op::{Attr, Kind, Name};

use super::adopt::Adopting;
use super::document::{Id, Link, write_token};
use super::lower::Program;
use super::{GridFs, Ticket, ours};

/// `DuplicateKey`: a name or number is taken.
const DUPLICATE_KEY: i32 = 11_000;
/// The label of errors after which a transaction may be run again, and what a server without
/// labels says (`WriteConflict`, `NoSuchTransaction`).
const TRANSIENT: &str = "TransientTransactionError";
const CONFLICTS: [i32; 2] = [112, 251];

/// A plan on its way to the server.
#[derive(Clone, Debug)]
pub struct Committing {
    plan: Plan,
    token: Token,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Symlinks that GridFUSE made: their targets, which stay with them when they are adopted.
    Targets(Vec<Ino>),
    /// Files of other programs are made inodes first.
    Adopting(Adopting),
    /// The way up from this directory is asked for, to know a path.
    Tracing(Ino),
    /// The program.
    Running(Box<Program>),
    /// The primary command did not change what it should have: because it did before, and its
    /// reply was lost? Without a transaction what stands behind it is done once more, the checks
    /// among it: nobody knows how they came out.
    Settling(Box<Program>, Mode),
    /// A check did not hold after the primary command had been applied.
    Undoing,
}

impl GridFs {
    pub(super) fn start_commit(
        &mut self,
        plan: &Plan,
        token: Token,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let plan = plan.clone();
        self.note_names(&plan);
        let foreign = self.foreign_in(&plan);
        let unread = |ino: &Ino| {
            let node = self.tree.get(*ino)?;
            let unread = node.attr.kind == Kind::Symlink && node.target.is_empty();
            node.id.as_ref().filter(|_| unread)
        };
        let targets: Vec<Ino> =
            foreign.iter().copied().filter(|ino| unread(ino).is_some()).collect();
        if !targets.is_empty() {
            let ids = targets.iter().filter_map(unread);
            let commands = ids.map(|id| self.find_chunks(id, 0, 0)).collect();
            let stage = Stage::Targets(targets);
            return self.go_on(Committing { plan, token, stage }, commands, Mode::Ordered);
        }
        self.adopt_for(plan, token, &foreign, cx)
    }

    /// What becomes of it is not known at once, and of a name that nobody waits for any more
    /// perhaps never.
    fn note_names(&mut self, plan: &Plan) {
        for change in &plan.changes {
            match change {
                Change::Create { dir, name, attr, .. } => {
                    self.wholes.naming(*dir, name);
                    if attr.kind == Kind::Dir {
                        self.wholes.made(attr.ino, self.epoch);
                    }
                }
                Change::Link { dir, name, .. } => self.wholes.naming(*dir, name),
                Change::Rename { to_dir, to_name, .. } => self.wholes.naming(*to_dir, to_name),
                _ => {}
            }
        }
    }

    fn adopt_for(
        &mut self,
        plan: Plan,
        token: Token,
        foreign: &[Ino],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        if !foreign.is_empty() {
            return match self.adopt(foreign, token, cx) {
                Ok((adopting, commands)) => {
                    let stage = Stage::Adopting(adopting);
                    self.go_on(Committing { plan, token, stage }, commands, Mode::Ordered)
                }
                Err(failure) => Step::Fail(failure),
            };
        }
        self.run_plan(plan, token, cx)
    }

    fn run_plan(&mut self, plan: Plan, token: Token, cx: &mut Cx<Mongo>) -> Step<Self> {
        match self.untraced(&plan) {
            Some(dir) => self.trace(dir, plan, token),
            None => self.run_traced(plan, token, cx),
        }
    }

    /// A directory whose own directory must be known first: a file that loses its first name gets
    /// the path of the next as its `filename`, and nobody may have looked there yet.
    fn untraced(&self, plan: &Plan) -> Option<Ino> {
        plan.changes.iter().find_map(|change| {
            let Change::Unlink { dir, name, ino, last: false, .. } = change else { return None };
            let node = self.tree.get(*ino).filter(|node| node.attr.kind == Kind::File)?;
            let first = node.links.first()?;
            let next = node.links.iter().find(|it| *it != first)?;
            let renamed = first.parent == *dir && first.name == *name;
            renamed.then(|| self.tree.unknown_above(next.parent))?
        })
    }

    fn trace(&self, dir: Ino, plan: Plan, token: Token) -> Step<Self> {
        let ask = self.find(1, |it| {
            it.i64(&ours("ino"), dir.0 as i64);
        });
        let stage = Stage::Tracing(dir);
        self.go_on(Committing { plan, token, stage }, alloc::vec![ask], Mode::Ordered)
    }

    fn run_traced(&mut self, plan: Plan, token: Token, cx: &mut Cx<Mongo>) -> Step<Self> {
        // A length needs chunks changed first.
        let resized = plan.changes.iter().find_map(|change| match change {
            Change::SetAttr { ino, patch } => patch.size.map(|size| (*ino, size)),
            _ => None,
        });
        if let Some((ino, size)) = resized {
            return self.start_resize(ino, size, plan, token, cx);
        }
        for change in &plan.changes {
            // Entries of other programs are not the server's to find.
            if let Change::Unlink { ino, kind: Kind::Dir, .. } = change
                && self.tree.key(*ino).is_some_and(|key| self.foreign.has_below(&key))
            {
                return Step::Done(Outcome::Conflict);
            }
        }
        let Some(program) = self.lower(&plan, token, self.lease_clock(cx.now.mono)) else {
            return Step::Done(Outcome::Applied(Facts::new()));
        };
        let (commands, mode) = (program.commands.clone(), program.mode);
        let stage = Stage::Running(Box::new(program));
        self.go_on(Committing { plan, token, stage }, commands, mode)
    }

    fn go_on(
        &self,
        committing: Committing,
        commands: Vec<crate::backend::mongo::Command>,
        mode: Mode,
    ) -> Step<Self> {
        let ticket = Ticket::Commit(Box::new(committing));
        Step::Work(Work { lane: Lane::Meta, mode, commands, ticket })
    }

    pub(super) fn committed(
        &mut self,
        committing: Committing,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let Committing { plan, token, stage } = committing;
        match stage {
            Stage::Targets(links) => {
                for (ino, reply) in links.iter().zip(replies) {
                    self.learn_target(*ino, &reply.batch().0);
                }
                let foreign = self.foreign_in(&plan);
                self.adopt_for(plan, token, &foreign, cx)
            }
            Stage::Adopting(adopting) => match self.adopted(adopting, replies, cx) {
                Ok(()) => self.run_plan(plan, token, cx),
                Err(Some(failure)) => Step::Fail(failure),
                Err(None) => Step::Done(Outcome::Conflict),
            },
            Stage::Tracing(dir) => {
                let docs = replies.first().map(|reply| reply.batch().0).unwrap_or_default();
                for doc in &docs {
                    self.see(doc, None, cx);
                }
                match self.untraced(&plan) {
                    Some(next) if next != dir => self.trace(next, plan, token),
                    // There is no way up to be found.
                    Some(_) | None => self.run_traced(plan, token, cx),
                }
            }
            Stage::Running(program) => self.judge(plan, token, program, replies, cx),
            Stage::Settling(program, mode) => {
                let Some(reply) = replies.first() else { return Step::fail(Errno::EIO) };
                if let Some(error) = reply.error() {
                    return Step::Fail(self.refused(&error, "changing"));
                }
                if !reply.batch().0.is_empty() {
                    let before = program.primary;
                    let holds = program.must.iter().filter(|at| **at > before).all(|at| {
                        replies.get(at - before).is_some_and(|reply| is_met(reply, false))
                    });
                    if mode != Mode::Ordered || holds || program.undo.is_empty() {
                        return self.succeed(&plan, token, program.id.as_ref(), cx);
                    }
                    let undo = program.undo.clone();
                    let committing = Committing { plan, token, stage: Stage::Undoing };
                    return self.go_on(committing, undo, Mode::Ordered);
                }
                // Half of a replacing rename may have happened.
                if program.count > 1 && mode == Mode::Ordered && !program.undo.is_empty() {
                    let undo = program.undo.clone();
                    let committing = Committing { plan, token, stage: Stage::Undoing };
                    return self.go_on(committing, undo, Mode::Ordered);
                }
                Step::Done(Outcome::Conflict)
            }
            Stage::Undoing => Step::Done(Outcome::Conflict),
        }
    }

    fn judge(
        &mut self,
        plan: Plan,
        token: Token,
        program: Box<Program>,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        for reply in replies {
            let Some(error) = reply.error() else { continue };
            if error.has_label(TRANSIENT) || CONFLICTS.contains(&error.code) {
                return Step::Done(Outcome::Conflict);
            }
            if error.code != DUPLICATE_KEY {
                return Step::Fail(self.refused(&error, "changing"));
            }
        }
        let reply = replies.get(program.primary);
        let applied = reply.is_some_and(|it| it.error().is_none() && it.count() == program.count);
        let holds =
            |at: &usize| replies.get(*at).is_some_and(|reply| is_met(reply, *at < program.primary));
        let checked = program.must.iter().all(holds);
        if applied && checked {
            return self.succeed(&plan, token, program.id.as_ref(), cx);
        }
        if applied && program.mode == Mode::Ordered {
            let undo = program.undo.clone();
            if !undo.is_empty() {
                let committing = Committing { plan, token, stage: Stage::Undoing };
                return self.go_on(committing, undo, Mode::Ordered);
            }
        }
        if applied {
            return Step::Done(Outcome::Conflict);
        }
        let find = self.find(1, |it| {
            it.i64(&ours("ino"), program.ino.0 as i64);
            write_token(&ours("w"), token, it);
        });
        let mode = program.mode;
        let mut commands = alloc::vec![find.expecting(Expect::Found(1))];
        if mode == Mode::Ordered {
            commands.extend(program.commands.iter().skip(program.primary + 1).cloned());
        }
        let committing = Committing { plan, token, stage: Stage::Settling(program, mode) };
        self.go_on(committing, commands, Mode::Ordered)
    }

    fn succeed(
        &mut self,
        plan: &Plan,
        token: Token,
        id: Option<&Id>,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        // Who reads what another file takes the place of, as an atomic save does, reads to its end.
        let replaced = plan.changes.iter().any(|it| matches!(it, Change::Rename { .. }));
        for change in &plan.changes {
            for ino in marked_by(change) {
                self.acknowledged(ino, token);
            }
            match change {
                Change::Create { dir, name, attr, target } => {
                    self.created((*dir, name), attr, target.as_ref(), token);
                    // Others may have found it already, and told of what they made there.
                    if self.wholes.since(attr.ino) != Some(self.epoch) {
                        self.wholes.forget(attr.ino);
                    }
                    let seen = (Vec::new(), self.epoch, cx.now.mono);
                    let opened = matches!(plan.answer, Answer::Created(_));
                    if let Some(node) = self.tree.get_mut(attr.ino) {
                        node.xattrs = Some(seen);
                        node.marked = opened.then_some(cx.now.mono);
                    }
                    if opened {
                        self.live.marked(attr.ino, cx.now.mono);
                    }
                    if let Some(id) = id {
                        self.tree.set_id(attr.ino, id);
                    }
                }
                Change::Link { ino, dir, name } => {
                    if let Some(node) = self.tree.get_mut(*ino) {
                        node.links.push(Link { parent: *dir, name: name.clone() });
                    }
                }
                Change::Unlink { dir, name, ino, last, held, .. } => {
                    let Some(id) = self.unlinked(*dir, name, *ino, *last) else { continue };
                    // It may have been closed while this was on its way.
                    if *held && cx.is_open(*ino) {
                        self.live.hold(*ino);
                    } else if replaced {
                        self.live.reclaim_later(id, cx.now.mono);
                    } else {
                        self.live.reclaim(id);
                    }
                }
                Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
                    self.foreign_moved((*dir, name), (*to_dir, to_name));
                    self.renamed(*ino, (*dir, name), (*to_dir, to_name));
                    if *kind == Kind::Dir {
                        self.live.repath(*ino);
                    }
                }
                Change::Exchange { a, b } => {
                    self.foreign_exchanged((a.0, &a.1), (b.0, &b.1));
                    self.renamed(a.2, (a.0, &a.1), (b.0, &b.1));
                    self.renamed(b.2, (b.0, &b.1), (a.0, &a.1));
                    for ino in [a.2, b.2] {
                        if self.tree.get(ino).is_some_and(|it| it.attr.kind == Kind::Dir) {
                            self.live.repath(ino);
                        }
                    }
                }
                Change::SetAttr { ino, patch } => {
                    if let Some(node) = self.tree.get_mut(*ino) {
                        patch.apply_to(&mut node.attr);
                    }
                }
                Change::Xattr { ino, .. } => {
                    if let Some(node) = self.tree.get_mut(*ino) {
                        node.xattrs = None;
                    }
                }
                Change::Touch { .. }
                | Change::Zero { .. }
                | Change::Grow { .. }
                | Change::Copy { .. } => {}
            }
        }
        self.live.wrote(token, cx.now.mono);
        Step::Done(Outcome::Applied(Facts::new()))
    }

    fn created(
        &mut self,
        (dir, name): (Ino, &Name),
        attr: &Attr,
        target: Option<&bytes::Bytes>,
        token: Token,
    ) {
        let chunk = self.options.chunk_size;
        let node = self.tree.node(dir, name, *attr);
        node.content = Ok(super::document::Content { length: 0, chunk });
        node.links = alloc::vec![Link { parent: dir, name: name.clone() }];
        node.target = target.cloned().unwrap_or_default();
        self.acknowledged(attr.ino, token);
    }

    /// A name went; the document that is to go when it was the last.
    fn unlinked(&mut self, dir: Ino, name: &Name, ino: Ino, last: bool) -> Option<Id> {
        if let Some(key) = self.foreign_key_of(dir, name)
            && self.foreign.remove(&key).is_some()
        {
            // Older revisions went too.
            self.live.sweep_soon();
        }
        let node = self.tree.get_mut(ino)?;
        if last && node.revisions {
            self.live.sweep_soon();
        }
        node.links.retain(|link| link.parent != dir || link.name != *name);
        if let Some(link) = node.links.first() {
            (node.parent, node.name) = (link.parent, link.name.clone());
        }
        if !last {
            return None;
        }
        node.gone = true;
        node.attr.nlink = 0;
        node.id.clone()
    }

    /// The files of other programs below a directory followed it; the older revisions of a file
    /// that was adopted too.
    fn foreign_moved(&mut self, from: (Ino, &Name), to: (Ino, &Name)) {
        let Some(from) = self.foreign_key_of(from.0, from.1) else { return };
        let Some(to) = self.foreign_key_of(to.0, to.1) else { return };
        self.foreign.remove(&to);
        if self.foreign.remove(&from).is_some() {
            // Where older revisions went shows when they are looked for again.
            self.live.rescan_soon();
        }
        if self.foreign.move_below(&from, &to) {
            self.live.rescan_soon();
        }
    }

    fn foreign_exchanged(&mut self, a: (Ino, &Name), b: (Ino, &Name)) {
        let Some(a) = self.foreign_key_of(a.0, a.1) else { return };
        let Some(b) = self.foreign_key_of(b.0, b.1) else { return };
        let aside = alloc::vec![0xff];
        let moved = [
            self.foreign.move_below(&a, &aside),
            self.foreign.move_below(&b, &a),
            self.foreign.move_below(&aside, &b),
        ];
        if moved.contains(&true) {
            self.live.rescan_soon();
        }
    }

    fn renamed(&mut self, ino: Ino, from: (Ino, &Name), to: (Ino, &Name)) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        (node.parent, node.name) = (to.0, to.1.clone());
        let moved = node.links.iter_mut().find(|it| it.parent == from.0 && it.name == *from.1);
        if let Some(link) = moved {
            *link = Link { parent: to.0, name: to.1.clone() };
        }
    }
}

/// Whether the reply to a check, or to an update that must match one document, says that all is
/// well.
fn is_met(reply: &Reply, is_check: bool) -> bool {
    match reply {
        Reply::Doc(doc) if is_check || doc.get("cursor").is_some() => reply.batch().0.is_empty(),
        Reply::Doc(doc) => doc.get("n").and_then(|n| n.as_i64()) == Some(1),
        // Not asked, as one before it failed.
        Reply::Skipped => false,
    }
}

/// The inodes into whose documents a change writes its token, the new one of a create aside.
fn marked_by(change: &Change) -> Vec<Ino> {
    match change {
        Change::Create { dir, .. } | Change::Touch { dir, .. } => alloc::vec![*dir],
        Change::Link { ino, .. }
        | Change::Unlink { ino, .. }
        | Change::Rename { ino, .. }
        | Change::SetAttr { ino, .. }
        | Change::Xattr { ino, .. } => alloc::vec![*ino],
        Change::Exchange { a, b } => alloc::vec![a.2, b.2],
        // Not among the capabilities of this layout.
        Change::Zero { .. } | Change::Grow { .. } | Change::Copy { .. } => Vec::new(),
    }
}
