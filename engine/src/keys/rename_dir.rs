//! Directories renamed: all keys below, in one script while they are few enough, otherwise
//! stepwise behind a marker, so that an interrupted rename is finished by the next mount.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Level;
use crate::decide::{Change, Facts, Plan};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Failure, Outcome, Step};
use crate::op::{Kind, Name};
use crate::time::Duration;

use super::lower::Program;
use super::place::{first_version, renames_key, side_key, xattr_key};
use super::record::Record;
use super::{Keys, RESERVED, Ticket, scripts};

/// Pairs of keys that one step of a large rename takes.
const STEP_PAIRS: usize = 512;

/// A step that takes longer than this no longer keeps keys from being looked at.
const STEP_TIME: Duration = Duration::from_secs(5);

/// A directory rename on its way.
#[derive(Clone, Debug)]
pub struct Moving {
    /// `None` for one that an earlier mount left behind.
    plan: Option<Plan>,
    from: Vec<u8>,
    to: Vec<u8>,
    /// All pairs, in the order in which they are renamed.
    pairs: Vec<(Bytes, Bytes)>,
    /// How many of them are renamed when the replies come.
    done: usize,
    stage: Stage,
    /// What the counts of side hashes start at in their new places.
    first: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// One script did it all.
    Whole,
    /// The checks held and the marker is set.
    Marked,
    /// A step was made.
    Stepping,
    /// The marker is gone.
    Unmarked,
}

impl Moving {
    fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.pairs.iter().flat_map(|(from, to)| [from, to])
    }
}

impl Keys {
    pub(super) fn start_rename_dir(
        &mut self,
        plan: &Plan,
        (dir, name): (Ino, Name),
        (to_dir, to_name): (Ino, Name),
        token: Token,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if !self.live.is_ready() {
            return Step::Park;
        }
        if self.options.is_ignored(to_name.as_bytes()) {
            return Step::fail(Errno::EPERM);
        }
        let (from, to) = (self.place(dir, &name), self.place(to_dir, &to_name));
        let (Some(from), Some(to)) = (from, to) else { return Step::fail(Errno::EPERM) };
        let (Some(from_dir), Some(below)) = (from.dir.clone(), to.dir.clone()) else {
            return Step::fail(Errno::EPERM);
        };
        let mut program = self.program(true, token);
        for check in &plan.checks {
            match self.lower_check(check, &mut program) {
                Ok(true) => {}
                Ok(false) => return Step::Done(Outcome::Conflict),
                Err(failure) => return Step::Fail(failure),
            }
        }
        let own = from.full.clone().zip(to.full.clone());
        let pairs = self.tree_pairs(&from_dir, &below, own);
        let stored = self.stores_records();
        let target_side = program.key(Some(side_key(&below)));
        if plan.changes.iter().any(|it| matches!(it, Change::Unlink { .. })) {
            let x = program.key(Some(xattr_key(&below, b"")));
            let steps = [Bytes::from_static(b"unmark"), target_side.clone(), x];
            program.changes.extend(steps);
        }
        if stored && dir != Ino::ROOT {
            self.mark_dir(dir, &mut program);
        }
        for change in plan.changes.iter().filter(|it| matches!(it, Change::Touch { .. })) {
            if let Err(failure) = self.lower_change(change, false, token, &mut program) {
                return Step::Fail(failure);
            }
        }
        let stage = if pairs.len() <= self.options.tree_keys {
            self.push_tree((&from_dir, &pairs), &from.full, target_side, &mut program);
            Stage::Whole
        } else {
            let marker = program.key(Some(renames_key()));
            let steps = [Bytes::from_static(b"xset"), marker, from_dir.clone(), below.clone()];
            program.changes.extend(steps);
            Stage::Marked
        };
        let moving = Moving {
            plan: Some(plan.clone()),
            from: from_dir.to_vec(),
            to: below.to_vec(),
            pairs,
            done: 0,
            stage,
            first: first_version(token),
        };
        self.live.own_keys(moving.keys(), cx.now.mono);
        if moving.stage == Stage::Marked {
            self.live.hold(Some(cx.now.mono.after(STEP_TIME)));
        }
        let commands = alloc::vec![program.command(token, true)];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Tree(Box::new(moving))))
    }

    /// The keys of a directory and what they become: values, side hashes, xattrs, and the own
    /// value of the directory if there is one.
    fn tree_pairs(
        &self,
        from: &[u8],
        to: &[u8],
        own: Option<(Bytes, Bytes)>,
    ) -> Vec<(Bytes, Bytes)> {
        let renamed = |head: &[u8], path: &[u8]| {
            Bytes::from([head, to, path.strip_prefix(from).unwrap_or(path)].concat())
        };
        let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
        pairs.extend(own.filter(|(key, _)| self.index.contains_key(key)));
        for key in self.index.keys_below(from) {
            pairs.push((Bytes::copy_from_slice(key), renamed(b"", key)));
        }
        if self.stores_records() {
            let side = [RESERVED, b"a:"].concat();
            for dir in self.index.sides_below(from) {
                pairs.push((side_key(dir), renamed(&side, dir)));
            }
        }
        let head = [RESERVED, b"x:"].concat();
        for key in self.index.xattrs_below(&[head.as_slice(), from].concat()) {
            let path = key.strip_prefix(head.as_slice()).unwrap_or(key);
            pairs.push((Bytes::copy_from_slice(key), renamed(&head, path)));
        }
        // The directory's own extended attributes come last, see `push_tree`.
        let own = xattr_key(from, b"");
        if let Some(at) = pairs.iter().position(|(key, _)| *key == own) {
            let pair = pairs.remove(at);
            pairs.push(pair);
        }
        pairs
    }

    fn push_tree(
        &self,
        (from, pairs): (&[u8], &[(Bytes, Bytes)]),
        own: &Option<Bytes>,
        target_side: Bytes,
        program: &mut Program,
    ) {
        // The pairs stand together at the end, also those whose keys stand before already.
        let first = program.keys.len() + 1;
        let mut own_at = 0;
        for (from, to) in pairs {
            if own.as_ref() == Some(from) {
                own_at = program.keys.len() + 1;
            }
            program.keys.push(from.clone());
            program.keys.push(to.clone());
        }
        let number = |n: usize| Bytes::from(format!("{n}"));
        // Those of a directory that is replaced go away before, like its side hash.
        let own_xattrs = pairs.last().is_some_and(|(key, _)| *key == xattr_key(from, b""));
        let checked = program.keys.len() - if own_xattrs { 2 } else { 0 };
        let (first, last) = (number(first), number(program.keys.len()));
        let vacant = Bytes::from_static(b"vacant");
        program.checks.extend([vacant, first.clone(), number(checked), target_side]);
        program.changes.extend([Bytes::from_static(b"tree"), first, last, number(own_at)]);
    }

    /// The directory that the renamed one leaves goes on to exist.
    fn mark_dir(&self, dir: Ino, program: &mut Program) {
        let (Some(node), Some(prefix)) = (self.tree.get(dir), self.dir_prefix(dir)) else { return };
        let side = program.key(Some(side_key(&prefix)));
        let record = Record::of(&node.attr, None).format();
        let none = Bytes::from_static(b"0");
        program.changes.extend([Bytes::from_static(b"mark"), side, record, none]);
    }

    pub(super) fn moved(
        &mut self,
        mut moving: Moving,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        self.live.hold(None);
        let reply = replies.first();
        if let Some(line) = reply.and_then(Reply::as_error) {
            return Step::Fail(self.refused(line, "renaming a directory"));
        }
        match moving.stage {
            Stage::Whole | Stage::Marked => {
                let verdict = reply.and_then(Reply::as_array).and_then(|it| it.first()?.as_bytes());
                match verdict {
                    Some(b"no") => return Step::Done(Outcome::Conflict),
                    Some(b"ok" | b"done") => {}
                    _ => return Step::Fail(self.odd("renaming a directory", reply)),
                }
                if moving.stage == Stage::Whole {
                    return self.tree_renamed(moving, cx);
                }
            }
            Stage::Stepping => {
                if reply.and_then(Reply::as_int) == Some(-1) {
                    let text = format!(
                        "renaming {} to {}: keys of the new name exist already; the rename stops \
                         half way, remove them and mount again to finish it",
                        moving.from.escape_ascii(),
                        moving.to.escape_ascii()
                    );
                    return Step::Fail(Failure { errno: Errno::EEXIST, text: Some(text) });
                }
            }
            Stage::Unmarked => return self.tree_renamed(moving, cx),
        }
        self.live.hold(Some(cx.now.mono.after(STEP_TIME)));
        let next = &moving.pairs[moving.done..];
        let command = if next.is_empty() {
            moving.stage = Stage::Unmarked;
            let from = Bytes::copy_from_slice(&moving.from);
            Command::Plain(smallvec![Bytes::from_static(b"HDEL"), renames_key(), from])
        } else {
            moving.stage = Stage::Stepping;
            let step = &next[..next.len().min(STEP_PAIRS)];
            moving.done += step.len();
            retree(step, &moving.from, moving.first)
        };
        Step::Work(Self::work(Lane::Meta, alloc::vec![command], Ticket::Tree(Box::new(moving))))
    }

    /// Brings index, memory and tree up to date with a directory that was renamed.
    fn tree_renamed(&mut self, moving: Moving, cx: &mut Cx<Redis>) -> Step<Self> {
        self.live.own_keys(moving.keys(), cx.now.mono);
        let side = [RESERVED, b"a:"].concat();
        let xattrs = [RESERVED, b"x:"].concat();
        let replaced = side_key(&moving.to);
        if !moving.pairs.iter().any(|(_, to)| *to == replaced) {
            self.index_side(&moving.to, false);
        }
        for (from, to) in &moving.pairs {
            if let (Some(from), Some(to)) =
                (from.strip_prefix(side.as_slice()), to.strip_prefix(side.as_slice()))
            {
                self.index_side(from, false);
                self.index_side(to, true);
                self.live.forget_version(from);
                self.live.forget_version(to);
                self.live.refresh_side(to);
            } else if from.starts_with(&xattrs) {
                self.index_xattrs(from, false);
                self.index_xattrs(to, true);
            } else {
                self.index_key(from, false);
                self.index_key(to, true);
            }
        }
        // The own value may have been a hash, which is none.
        if let Some((from, to)) = moving.pairs.first() {
            self.live.refresh_key(from);
            self.live.refresh_key(to);
        }
        let Some(plan) = moving.plan else { return Step::Done(Outcome::Done) };
        if !self.stores_records() {
            // In memory, the directories that are there for their own sake move like keys.
            let below: Vec<Vec<u8>> =
                self.index.sides_below(&moving.from).map(<[u8]>::to_vec).collect();
            for dir in below {
                let renamed = [&moving.to, &dir[moving.from.len()..]].concat();
                self.index_side(&dir, false);
                self.index_side(&renamed, true);
            }
            self.index_side(&moving.to, true);
        }
        self.memory.rename_dir(&moving.from, &moving.to);
        for change in &plan.changes {
            if let Change::Rename { dir, kind: Kind::Dir, .. } = change
                && *dir != Ino::ROOT
                && let Some(prefix) = self.dir_prefix(*dir)
            {
                self.index_side(&prefix, true);
            }
        }
        // Whatever else is in the plan follows without the index: it is done.
        self.apply(&renames_only(&plan), &[], "");
        Step::Done(Outcome::Applied(Facts::new()))
    }

    /// Renames that earlier mounts left half done: from and to, in turn.
    pub(super) fn finish_renames(&mut self, replies: &[Reply], cx: &mut Cx<Redis>) -> Step<Self> {
        let pairs = replies.first().and_then(Reply::as_array).unwrap_or_default();
        let Some((from, to)) = pairs.first().zip(pairs.get(1)) else {
            return Step::Done(Outcome::Done);
        };
        let (Some(from), Some(to)) = (from.as_bytes(), to.as_bytes()) else {
            return Step::Done(Outcome::Done);
        };
        let text = format!(
            "finishing the interrupted rename of {} to {}",
            from.escape_ascii(),
            to.escape_ascii()
        );
        cx.notice(Level::Warn, text);
        let delimiter = [self.options.naming.delimiter()];
        let own = from.strip_suffix(&delimiter).zip(to.strip_suffix(&delimiter));
        let own = own.map(|(a, b)| (Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)));
        let moving = Moving {
            plan: None,
            from: from.to_vec(),
            to: to.to_vec(),
            pairs: self.tree_pairs(from, to, own),
            done: 0,
            stage: Stage::Stepping,
            first: first_version(Token { session: self.live.session(), serial: 0 }),
        };
        // There may be more of them.
        self.live.check_renames_again();
        self.moved(moving, &[Reply::Int(0)], cx)
    }
}

/// One step of a large rename.
fn retree(step: &[(Bytes, Bytes)], from: &[u8], first: i64) -> Command {
    let own = from.split_last().map_or(from, |(_, own)| own);
    let at = step.iter().position(|(key, _)| key == own).map_or(0, |n| 2 * n + 1);
    let keys: Args = step.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect();
    let args = smallvec![Bytes::from(format!("{at}")), Bytes::from(format!("{first}"))];
    Command::Script { script: &scripts::RETREE, keys, args }
}

/// The plan without what its script has done beyond renaming: a replaced directory is detached by
/// the rename itself.
fn renames_only(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.changes.retain(|change| {
        matches!(change, Change::Rename { .. } | Change::Touch { .. } | Change::SetAttr { .. })
    });
    plan
}
