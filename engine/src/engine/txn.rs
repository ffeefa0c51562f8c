//! The transaction machine: read facts, decide, commit; the same for every metadata operation.

use alloc::vec::Vec;

use crate::decide::{
    Answer, Change, Check, Decision, Fact, Facts, Missing, Patch, Plan, Reply, View, Want, decide,
};
use crate::errno::Errno;
use crate::id::{Ino, OpId, Token};
use crate::layout::{Epoch, Layout, Outcome, Step};
use crate::op::{Attr, Entry, Kind, Name, OpenFlags, Request, Response};
use crate::time::Duration;

use super::batches::Owner;
use super::facts::{FactsAt, Overlay};
use super::files::File;
use super::{Engine, State, Timer};

/// A decision that needs facts more often than this is a bug of ours.
const MAX_ROUNDS: u32 = 16;

/// So many conflicts are tried again at once; others are on the same directory or file.
const EAGER: u32 = 3;
/// The longest pause before a conflict is tried again.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// A metadata operation in progress.
#[derive(Clone, Debug)]
pub(super) struct Txn {
    fresh: Facts,
    since: Epoch,
    rounds: u32,
    conflicts: u32,
    /// The plan on its way, with the token that tells whether it was applied.
    commit: Option<Plan>,
}

impl Txn {
    pub(super) fn committing(&self) -> bool {
        self.commit.is_some()
    }

    /// A commit on its way changes where the contents of the file belong, or their length.
    pub(super) fn moves(&self, ino: Ino) -> bool {
        self.commit.as_ref().is_some_and(|plan| moves(plan, ino))
    }
}

impl<L: Layout> Engine<L> {
    pub(super) fn start_txn(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        // A length is set on what has been written, not under it, and a time is not undone by
        // writes from before it: those travel on another lane, and what goes with them too.
        let ordered = match &op.request {
            Request::SetAttr { ino, set, .. } if set.size.is_some() => Some(*ino),
            Request::SetAttr { ino, .. } if self.takes_attrs(*ino) => None,
            Request::SetAttr { ino, set, .. }
                if set.mtime.is_some() || self.files.get(ino).is_some_and(File::has_attrs) =>
            {
                Some(*ino)
            }
            Request::Fallocate { ino, .. } | Request::Seek { ino, .. } => Some(*ino),
            Request::CopyRange { ino, to_ino, .. } => {
                let dirty = |it: &Ino| self.files.get(it).is_some_and(File::is_dirty);
                [*ino, *to_ino].into_iter().find(dirty)
            }
            _ => None,
        };
        if let Some(ino) = ordered
            && self.files.get(&ino).is_some_and(File::is_dirty)
        {
            self.wait_for_flush(id, ino);
            return;
        }
        let Some(op) = self.ops.get_mut(&id) else { return };
        let txn = Txn {
            fresh: Facts::new(),
            since: self.layout.epoch(),
            rounds: 0,
            conflicts: 0,
            commit: None,
        };
        op.state = State::Txn(txn);
        self.run_txn(id);
    }

    /// Decides on the facts at hand, and fetches, commits or answers accordingly.
    pub(super) fn run_txn(&mut self, id: OpId) {
        loop {
            let Some(op) = self.ops.get_mut(&id) else { return };
            let State::Txn(txn) = &mut op.state else { return };
            txn.rounds += 1;
            if txn.rounds > MAX_ROUNDS + self.cx.config.max_conflicts {
                self.finish(id, Err(Errno::EIO));
                return;
            }
            let cached = FactsAt {
                cache: &self.cx.facts,
                now: self.cx.now.mono,
                overlay: &self.files as &dyn Overlay,
            };
            let view = View {
                fresh: &txn.fresh,
                cached: &cached,
                caps: self.layout.caps(),
                now: self.cx.now.wall,
                read_only: self.cx.config.read_only,
                assume: txn.conflicts == 0,
                held: &self.cx.inodes,
            };
            let mut stands_on: Vec<Attr> = Vec::new();
            let step = match decide(&op.request, &view) {
                Ok(Decision::Reply(result)) => {
                    let since = txn.since;
                    match result {
                        Ok(reply) => self.answer(id, reply, since),
                        Err(errno) => self.finish(id, Err(errno)),
                    }
                    return;
                }
                Ok(Decision::Elsewhere) => {
                    self.finish(id, Err(Errno::ENOSYS));
                    return;
                }
                Ok(Decision::Commit(plan)) => {
                    if let Some((ino, patch)) = alone(&plan)
                        && view.caps.attrs_with_data
                        && self.files.get(&ino).is_some_and(File::takes_attrs)
                        && let Ok(Some(attr)) = view.attr(ino)
                    {
                        let since = txn.since;
                        let fresh = Facts::from([(Want::Attr(ino), Fact::Attr(Some(attr)))]);
                        self.set_with_data(ino, &patch);
                        self.answer_commit(id, &plan, &fresh, &Facts::new(), since);
                        return;
                    }
                    // Data travels on another lane than names: what is on its way to a name must
                    // be there before the name goes, or it would bring the name back without the
                    // rest of the file, or reach the file that has the name next.
                    let mut files = self.files.iter();
                    let sending = files.find(|(ino, it)| it.is_sending() && moves(&plan, **ino));
                    if let Some((&ino, _)) = sending {
                        self.wait_for_flush(id, ino);
                        return;
                    }
                    self.commits += 1;
                    let token = Token { session: self.session, serial: self.commits };
                    // What the plan stands on is kept for its answer: an invalidation may void the
                    // lease while the commit is on its way.
                    for ino in changed_inodes(&plan) {
                        if let Ok(Some(attr)) = view.attr(ino) {
                            stands_on.push(attr);
                        }
                    }
                    for attr in stands_on {
                        txn.fresh.insert(Want::Attr(attr.ino), Fact::Attr(Some(attr)));
                    }
                    let step = self.layout.commit(&plan, token, &mut self.cx);
                    txn.commit = Some(plan);
                    step
                }
                Err(Missing(wants)) => self.layout.fetch(&wants, &mut self.cx),
            };
            match step {
                Step::Work(work) => {
                    self.submit(Owner::Op(id), work);
                    return;
                }
                other => {
                    let since = self.layout.epoch();
                    if !self.txn_outcome(id, other, since) {
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn txn_step(&mut self, id: OpId, step: Step<L>, since: Epoch) {
        match step {
            Step::Work(work) => self.submit(Owner::Op(id), work),
            other => {
                if self.txn_outcome(id, other, since) {
                    self.run_txn(id);
                }
            }
        }
    }

    /// Takes the end of a fetch or a commit. Returns whether to decide again.
    fn txn_outcome(&mut self, id: OpId, step: Step<L>, since: Epoch) -> bool {
        let Some(op) = self.ops.get_mut(&id) else { return false };
        let State::Txn(txn) = &mut op.state else { return false };
        match step {
            Step::Done(Outcome::Facts(facts)) => {
                self.learn(&facts, since);
                let Some(op) = self.ops.get_mut(&id) else { return false };
                let State::Txn(txn) = &mut op.state else { return false };
                txn.since = txn.since.min(since);
                for (want, fact) in facts {
                    let fact = match fact {
                        Fact::Attr(Some(attr)) => {
                            let attr = self.cx.facts.with_access(attr);
                            Fact::Attr(Some(self.files.dress(attr)))
                        }
                        other => other,
                    };
                    txn.fresh.insert(want, fact);
                }
                true
            }
            Step::Done(Outcome::Applied(facts)) => {
                let Some(plan) = txn.commit.take() else { return false };
                let fresh = core::mem::take(&mut txn.fresh);
                // It is told what it changes, not what happened to that since the plan was made.
                let since = since.min(txn.since);
                self.applied(&plan, &fresh, &facts, since);
                self.answer_commit(id, &plan, &fresh, &facts, since);
                false
            }
            Step::Done(Outcome::Conflict) => {
                let plan = txn.commit.take();
                txn.fresh.clear();
                txn.conflicts += 1;
                txn.rounds = 0;
                let conflicts = txn.conflicts;
                if txn.conflicts > self.cx.config.max_conflicts {
                    self.finish(id, Err(Errno::EBUSY));
                    return false;
                }
                if let Some(plan) = plan {
                    self.distrust(&plan);
                }
                self.pause(id, conflicts)
            }
            Step::Done(_) => {
                self.finish(id, Err(Errno::EIO));
                false
            }
            Step::Park => {
                self.park(id);
                false
            }
            Step::Fail(failure) => {
                if let Some(plan) = txn.commit.take() {
                    self.distrust(&plan);
                }
                self.fail(id, failure);
                false
            }
            // The callers submit work themselves.
            Step::Work(work) => {
                self.submit(Owner::Op(id), work);
                false
            }
        }
    }

    /// Whether to decide again at once. A conflict that keeps coming back may be with something
    /// that takes its time (a transaction of a client that died), so the pauses grow; they differ
    /// between requests, or two of them would meet again and again.
    fn pause(&mut self, id: OpId, conflicts: u32) -> bool {
        if conflicts <= EAGER {
            return true;
        }
        let most = Duration::from_millis(1 << (conflicts - EAGER).min(8)).min(MAX_PAUSE);
        let spread = (self.session ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 56;
        let pause = Duration::from_micros(most.as_micros() as u64 * (128 + spread / 2) / 256);
        self.timers.insert((self.cx.now.mono.after(pause), Timer::Retry(id)));
        false
    }

    /// Remembers facts for as long as their leases say.
    pub(super) fn learn(&mut self, facts: &Facts, since: Epoch) {
        for (want, fact) in facts {
            match (want, fact) {
                (Want::Entry(dir, name), Fact::Entry(ino)) => {
                    let lease = self.layout.entry_lease(*dir, name, *ino, since);
                    self.learn_entry(*dir, name.clone(), *ino, lease);
                }
                (Want::Attr(_), Fact::Attr(Some(attr))) => {
                    let lease = self.layout.attr_lease(attr.ino, since);
                    let until = self.cx.now.mono.after(lease);
                    self.cx.facts.learn_attr(*attr, until);
                }
                (Want::Attr(ino), Fact::Attr(None)) => self.cx.facts.drop_attr(*ino),
                _ => {}
            }
        }
    }

    pub(super) fn learn_entry(&mut self, dir: Ino, name: Name, ino: Option<Ino>, lease: Duration) {
        if lease.is_zero() {
            self.cx.facts.forget_entry(dir, &name);
        } else {
            let until = self.cx.now.mono.after(lease);
            self.cx.facts.learn_entry(dir, name, ino, until);
        }
    }

    /// What stood in the way of a plan is not believed any more.
    fn distrust(&mut self, plan: &Plan) {
        for check in &plan.checks {
            match check {
                Check::LiveDir(dir) | Check::Empty(dir) => self.cx.facts.forget_attr(*dir),
                Check::Free(dir, name) => self.cx.facts.forget_entry(*dir, name),
                Check::Leads(dir, name, ino) => {
                    self.cx.facts.forget_entry(*dir, name);
                    self.cx.facts.forget_attr(*ino);
                }
                Check::NotBelow { dir, .. } => self.cx.facts.forget_attr(*dir),
                Check::Live(ino) | Check::Links(ino, _) | Check::Xattr(ino, ..) => {
                    self.cx.facts.forget_removed(*ino);
                    self.cx.facts.forget_attr(*ino);
                }
            }
        }
    }

    /// Brings the facts up to date with a plan that was applied.
    fn applied(&mut self, plan: &Plan, fresh: &Facts, facts: &Facts, since: Epoch) {
        for change in &plan.changes {
            match change {
                Change::Create { dir, name, attr, .. } => {
                    let until = self.cx.now.mono.after(self.layout.attr_lease(attr.ino, since));
                    self.cx.facts.learn_attr(*attr, until);
                    let lease = self.layout.entry_lease(*dir, name, Some(attr.ino), since);
                    self.learn_entry(*dir, name.clone(), Some(attr.ino), lease);
                }
                Change::Link { ino, dir, name } => {
                    let lease = self.layout.entry_lease(*dir, name, Some(*ino), since);
                    self.learn_entry(*dir, name.clone(), Some(*ino), lease);
                }
                Change::Unlink { dir, name, ino, kind, last, held } => {
                    self.cx.facts.forget_entry(*dir, name);
                    if *kind == Kind::Dir && self.cx.inodes.is_known(*ino) {
                        self.cx.facts.removed_dir(*ino);
                    }
                    if *last && !held {
                        self.cx.facts.drop_attr(*ino);
                    }
                    if *last {
                        self.unlinked(*ino, *held);
                    }
                }
                Change::Rename { dir, name, to_dir, to_name, ino, .. } => {
                    self.cx.facts.forget_entry(*dir, name);
                    let lease = self.layout.entry_lease(*to_dir, to_name, Some(*ino), since);
                    self.learn_entry(*to_dir, to_name.clone(), Some(*ino), lease);
                }
                Change::Exchange { a, b } => {
                    self.cx.facts.forget_entry(a.0, &a.1);
                    self.cx.facts.forget_entry(b.0, &b.1);
                }
                Change::SetAttr { ino, patch } => self.attrs_set(*ino, patch),
                Change::Zero { ino, .. }
                | Change::Grow { ino, .. }
                | Change::Copy { to: (ino, _), .. } => self.contents_changed(*ino),
                Change::Touch { .. } | Change::Xattr { .. } => {}
            }
        }
        for ino in changed_inodes(plan) {
            if let Some(attr) = self.attr_after(plan, fresh, facts, ino) {
                let until = self.cx.now.mono.after(self.layout.attr_lease(ino, since));
                self.cx.facts.learn_attr(attr, until);
            }
        }
    }

    /// The attributes of an inode after a plan, from those before it.
    fn attr_after(&self, plan: &Plan, fresh: &Facts, facts: &Facts, ino: Ino) -> Option<Attr> {
        let told = |facts: &Facts| match facts.get(&Want::Attr(ino)) {
            Some(Fact::Attr(attr)) => *attr,
            _ => None,
        };
        if let Some(attr) = told(facts) {
            return Some(attr);
        }
        let mut attr = told(fresh).or_else(|| self.cx.facts.attr(ino, self.cx.now.mono));
        for change in &plan.changes {
            match change {
                Change::Create { attr: new, .. } if new.ino == ino => attr = Some(*new),
                other => {
                    if let Some(attr) = &mut attr {
                        other.apply_to(attr);
                    }
                }
            }
        }
        attr
    }

    fn answer_commit(&mut self, id: OpId, plan: &Plan, fresh: &Facts, facts: &Facts, since: Epoch) {
        let attr = |engine: &Self, ino| {
            engine.attr_after(plan, fresh, facts, ino).map(|attr| engine.files.dress(attr))
        };
        let result = match plan.answer {
            Answer::Done => Ok(Response::Done),
            Answer::Written(bytes) => Ok(Response::Written(bytes)),
            Answer::Entry(ino) => match attr(self, ino) {
                Some(attr) => Ok(Response::Entry(self.entry_of(plan, attr, since))),
                None => Err(Errno::EIO),
            },
            Answer::Attr(ino) => match attr(self, ino) {
                Some(attr) => Ok(Response::Attr(attr, self.layout.attr_lease(ino, since))),
                None => Err(Errno::EIO),
            },
            Answer::Created(ino) => match attr(self, ino) {
                Some(attr) => {
                    let entry = self.entry_of(plan, attr, since);
                    let append = matches!(
                        self.ops.get(&id).map(|op| &op.request),
                        Some(Request::Create { flags, .. }) if flags.append
                    );
                    let opened = self.open_file(ino, append);
                    Ok(Response::Created(entry, opened))
                }
                None => Err(Errno::EIO),
            },
        };
        self.finish(id, result);
    }

    fn entry_of(&self, plan: &Plan, attr: Attr, since: Epoch) -> Entry {
        let named = plan.changes.iter().find_map(|change| match change {
            Change::Create { dir, name, .. } | Change::Link { dir, name, .. } => Some((*dir, name)),
            _ => None,
        });
        let entry_ttl = named.map_or(Duration::ZERO, |(dir, name)| {
            self.layout.entry_lease(dir, name, Some(attr.ino), since)
        });
        Entry { attr, entry_ttl, attr_ttl: self.layout.attr_lease(attr.ino, since) }
    }

    fn answer(&mut self, id: OpId, reply: Reply, since: Epoch) {
        let Some(op) = self.ops.get(&id) else { return };
        let named = match &op.request {
            Request::Lookup { parent, name } | Request::Create { parent, name, .. } => {
                Some((*parent, name.clone()))
            }
            _ => None,
        };
        let entry_lease = |engine: &Self, ino| {
            named.as_ref().map_or(Duration::ZERO, |(dir, name)| {
                engine.layout.entry_lease(*dir, name, ino, since)
            })
        };
        let entry = |engine: &Self, attr: Attr| Entry {
            attr,
            entry_ttl: entry_lease(engine, Some(attr.ino)),
            attr_ttl: engine.layout.attr_lease(attr.ino, since),
        };
        let result = match reply {
            Reply::Ready(response) => Ok(response),
            Reply::Entry(attr) => Ok(Response::Entry(entry(self, attr))),
            Reply::NoEntry => Ok(Response::NoEntry(entry_lease(self, None))),
            Reply::Attr(attr) => Ok(Response::Attr(attr, self.layout.attr_lease(attr.ino, since))),
            Reply::OpenExisting(mut attr) => {
                let OpenFlags { write, truncate, append, .. } = match &op.request {
                    Request::Create { flags, .. } => *flags,
                    _ => OpenFlags::default(),
                };
                match self.layout.open(attr.ino, write || truncate) {
                    Err(errno) => Err(errno),
                    Ok(()) => {
                        let opened = self.open_file(attr.ino, append);
                        if truncate {
                            self.truncate_lazily(attr.ino);
                            attr = self.files.dress(attr);
                        }
                        Ok(Response::Created(entry(self, attr), opened))
                    }
                }
            }
        };
        self.finish(id, result);
    }
}

/// Whether a plan changes where the contents of a file belong, or their length.
fn moves(plan: &Plan, file: Ino) -> bool {
    plan.changes.iter().any(|change| match change {
        Change::Unlink { ino, .. } => *ino == file,
        Change::Rename { ino, kind, .. } => *ino == file || *kind == Kind::Dir,
        Change::SetAttr { ino, patch } => *ino == file && patch.size.is_some(),
        Change::Zero { ino, .. } | Change::Grow { ino, .. } => *ino == file,
        Change::Copy { from, to, .. } => from.0 == file || to.0 == file,
        Change::Exchange { .. } => true,
        _ => false,
    })
}

/// The attributes that a plan sets of one inode, when that is all it does and no length is among
/// them.
fn alone(plan: &Plan) -> Option<(Ino, Patch)> {
    match plan.changes[..] {
        [Change::SetAttr { ino, patch }] if patch.size.is_none() => Some((ino, patch)),
        _ => None,
    }
}

/// The inodes whose attributes a plan changes.
fn changed_inodes(plan: &Plan) -> impl Iterator<Item = Ino> + '_ {
    plan.changes.iter().filter_map(|change| match change {
        Change::Create { .. } => None,
        Change::Link { ino, .. }
        | Change::Rename { ino, .. }
        | Change::SetAttr { ino, .. }
        | Change::Grow { ino, .. }
        | Change::Xattr { ino, .. } => Some(*ino),
        Change::Unlink { ino, last, held, .. } => (!last || *held).then_some(*ino),
        Change::Touch { dir, .. } => Some(*dir),
        Change::Exchange { .. } | Change::Zero { .. } | Change::Copy { .. } => None,
    })
}

impl Patch {
    /// Whether it sets nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Patch::default()
    }

    /// This patch, and then a later one.
    #[must_use]
    pub fn then(self, later: Patch) -> Patch {
        Patch {
            perm: later.perm.or(self.perm),
            uid: later.uid.or(self.uid),
            gid: later.gid.or(self.gid),
            size: later.size.or(self.size),
            atime: later.atime.or(self.atime),
            mtime: later.mtime.or(self.mtime),
            ctime: later.ctime.max(self.ctime),
        }
    }

    /// Sets what the patch sets.
    pub fn apply_to(&self, attr: &mut Attr) {
        attr.perm = self.perm.unwrap_or(attr.perm);
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
        attr.size = self.size.unwrap_or(attr.size);
        attr.atime = self.atime.unwrap_or(attr.atime);
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
        attr.ctime = self.ctime.unwrap_or(attr.ctime);
    }
}

impl Change {
    /// What the change does to the attributes of an inode that exists before it.
    fn apply_to(&self, attr: &mut Attr) {
        match self {
            Change::SetAttr { ino, patch } if *ino == attr.ino => patch.apply_to(attr),
            Change::Touch { dir, at, nlink } if *dir == attr.ino => {
                attr.mtime = *at;
                attr.ctime = *at;
                attr.nlink = attr.nlink.saturating_add_signed(*nlink);
            }
            Change::Grow { ino, size } if *ino == attr.ino => attr.size = attr.size.max(*size),
            Change::Xattr { ino, at, .. } if *ino == attr.ino => attr.ctime = *at,
            Change::Link { ino, .. } if *ino == attr.ino => attr.nlink += 1,
            Change::Unlink { ino, .. } if *ino == attr.ino => {
                attr.nlink = attr.nlink.saturating_sub(1);
            }
            _ => {}
        }
    }
}
