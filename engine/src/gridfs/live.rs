//! The live view: the change stream's events become invalidations, leases follow from it, and
//! work of the layout's own accord is done in the background.

mod repath;
mod stream;
mod sweep;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backend::bson::{Doc, Value};
use crate::backend::mongo::{Command, Mongo, Push, Reply};
use crate::contract::{Level, Link};
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Epoch, Outcome, Step, Work};
use crate::time::{Duration, Mono};

use super::document::{FileDoc, Id, Whose, token};
use super::foreign::{Foreign, path_of};
use super::{GridFs, Ticket};

pub use stream::{change_stream_of_others, change_stream_pipeline};

/// Documents removed in one batch, and how long the first of them waits for the others: three
/// commands for each batch are next to nothing, for each document they would be most of an `rm -r`.
const RECLAIM: usize = 256;
const RECLAIM_PAUSE: Duration = Duration::from_millis(200);
/// For how long a document that is gone is kept without a sign of life of who holds it.
const GONE_LEASE: Duration = Duration::from_secs(600);
/// For how long a file may be half written before its writer counts as dead.
const WRITE_LEASE: Duration = Duration::from_secs(60);
/// For how long a file that was made and not written yet says that it is being written: well
/// below the time after which others may take its writer for dead.
const MARK_LEASE: Duration = Duration::from_secs(5);
/// So many of them at most say so.
const MARKS: usize = 4096;
/// How often it is looked for what others left behind.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How old a document must be that stepped aside for another which never came: the two are one
/// command, so only a server that crashed in between leaves one.
const ASIDE: Duration = Duration::from_secs(10);
/// For how long the chunks of a replaced revision are kept for those who are reading it.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// How often a server without a change stream is asked for other programs' files, at the most.
const RESCAN_EVERY: Duration = Duration::from_secs(2);
/// Asking takes at most this share of the time in between.
const RESCAN_SHARE: u32 = 8;

/// What the live view needs to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    session: u64,
    attached: bool,
    writable: bool,
    /// The push lane is up; whether events come on it.
    link: Option<bool>,
    /// Everything that was known before is void.
    lost: Epoch,
    reclaims: VecDeque<(Mono, Id)>,
    /// When those go that need not be kept.
    next_batch: Mono,
    /// What a task is removing.
    reclaiming: Vec<Id>,
    /// Unlinked and open.
    held: BTreeSet<Ino>,
    /// Made and marked as being written, oldest first.
    marked: VecDeque<(Mono, Ino)>,
    /// With a revision that is being written.
    staging: BTreeSet<Ino>,
    /// Replaced revisions that are to be kept, and of which inode.
    keeps: VecDeque<(Id, Ino)>,
    /// Directories whose `filename`s below are to follow.
    repaths: VecDeque<Ino>,
    next_scan: Option<Mono>,
    next_heartbeat: Option<Mono>,
    next_sweep: Mono,
    scan: Option<(Foreign, Mono)>,
    busy: bool,
    now: Mono,
    pushed_lease: Duration,
    polled_lease: Duration,
    says: Vec<String>,
    said: BTreeMap<&'static str, ()>,
}

/// Work of the layout's own accord.
#[derive(Clone, Debug)]
pub enum Task {
    /// The files of other programs, once more.
    Scan,
    /// Nothing is learnt from the replies.
    Housekeeping,
    /// What crashed mounts left: documents that are gone, directories that were renamed.
    Sweep,
    /// Documents to remove: which of them are gone?
    Reclaim,
    /// A revision is kept; are there too many now?
    Keep,
    /// `filename`s below a renamed directory.
    Repath(repath::Walk),
    /// Files whose writers died: their last chunks.
    Trim(Vec<sweep::HalfWritten>),
    /// Documents that stepped aside for others: did those come?
    Restore(Vec<Aside>),
}

/// A document that stepped aside: its `gone`.
#[derive(Clone, Debug)]
pub struct Aside {
    id: Id,
    gone: Doc,
}

impl Live {
    pub(super) fn attached(&mut self, cx: &Cx<Mongo>) {
        self.session = cx.seed;
        self.pushed_lease = cx.config.lease_pushed;
        self.polled_lease = cx.config.lease_polled;
        self.now = cx.now.mono;
    }

    pub(super) fn writable(&mut self, writable: bool) {
        self.writable = writable;
        self.attached = true;
    }

    fn is_live(&self) -> bool {
        self.link == Some(true)
    }

    /// Whether what was known at a time is still true, as others' changes are told.
    pub(super) fn is_told(&self, tainted: Epoch, since: Epoch) -> bool {
        self.is_live() && tainted <= since && self.lost <= since
    }

    pub(super) fn lease(&self, tainted: Epoch, since: Epoch) -> Duration {
        match self.is_live() {
            true if tainted > since || self.lost > since => Duration::ZERO,
            true => self.pushed_lease,
            false => self.polled_lease,
        }
    }

    pub(super) fn due(&self) -> Option<Mono> {
        let reclaim = self.reclaims.iter().map(|(at, _)| *at).min();
        let marked = self.marked.front().map(|(at, _)| at.after(MARK_LEASE));
        let scan = self.next_scan.filter(|_| !self.is_live());
        let sweep = Some(self.next_sweep).filter(|_| self.attached && self.writable);
        [reclaim, marked, scan, self.next_heartbeat, sweep]
            .into_iter()
            .flatten()
            .filter(|at| *at > self.now)
            .min()
    }

    pub(super) fn reclaim(&mut self, id: Id) {
        // What comes while a batch waits goes with it.
        if self.next_batch <= self.now {
            self.next_batch = self.now.after(RECLAIM_PAUSE);
        }
        self.reclaims.push_back((self.next_batch, id));
    }

    pub(super) fn reclaim_later(&mut self, id: Id, now: Mono) {
        self.reclaims.push_back((now.after(GRACE), id));
    }

    /// Everything that is to be removed at some time, and what is unlinked and was open, as
    /// nobody can have it open any more.
    pub(super) fn take_all_reclaims(&mut self) -> (Vec<Id>, BTreeSet<Ino>) {
        let waiting = self.reclaims.drain(..).map(|(_, id)| id);
        let ids = waiting.chain(core::mem::take(&mut self.reclaiming)).collect();
        (ids, core::mem::take(&mut self.held))
    }

    pub(super) fn hold(&mut self, ino: Ino) {
        self.held.insert(ino);
        self.next_heartbeat.get_or_insert(self.now.after(GONE_LEASE / 3));
    }

    pub(super) fn stages(&mut self, ino: Ino) {
        self.staging.insert(ino);
        self.next_heartbeat.get_or_insert(self.now.after(GONE_LEASE / 3));
    }

    pub(super) fn marked(&mut self, ino: Ino, now: Mono) {
        self.marked.push_back((now, ino));
    }

    pub(super) fn keep(&mut self, id: Id, of: Ino) {
        self.keeps.push_back((id, of));
    }

    pub(super) fn repath(&mut self, dir: Ino) {
        self.repaths.push_back(dir);
    }

    pub(super) fn sweep_soon(&mut self) {
        self.next_sweep = self.now;
    }

    pub(super) fn rescan_soon(&mut self) {
        self.next_scan = Some(self.now);
        self.scan = None;
    }

    pub(super) fn scanned(&mut self, cx: &Cx<Mongo>) {
        self.now = cx.now.mono;
        self.next_scan = Some(self.now.after(RESCAN_EVERY));
    }

    /// A change of ours was acknowledged.
    pub(super) fn wrote(&mut self, _token: Token, now: Mono) {
        self.now = now;
    }

    pub(super) fn say(&mut self, text: String) {
        self.says.push(text);
    }

    pub(super) fn say_once(&mut self, what: &'static str, text: String, cx: &mut Cx<Mongo>) {
        if self.said.insert(what, ()).is_none() {
            cx.notice(Level::Warn, text);
        }
    }
}

impl GridFs {
    pub(super) fn link_changed(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Mongo>) {
        if lane != Lane::Push {
            if !matches!(link, Link::Up { .. }) {
                self.durable.life_ended();
            }
            return;
        }
        let was = self.live.is_live();
        self.live.link = match link {
            Link::Up { pushes } => Some(*pushes),
            Link::Down(_) | Link::Refused(_) => None,
        };
        // What happened while nobody listened is not known.
        if was != self.live.is_live() {
            self.drop_all(cx);
        }
    }

    fn drop_all(&mut self, cx: &mut Cx<Mongo>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.live.lost = self.epoch;
        cx.forget_all();
        for ino in self.tree.inos() {
            if cx.is_known(ino) {
                cx.invalidate_inode(ino);
            }
            if let Some(node) = self.tree.get(ino)
                && !node.gone
                && ino != Ino::ROOT
            {
                cx.invalidate_entry(node.parent, node.name.clone());
            }
        }
        if self.live.attached {
            self.live.rescan_soon();
        }
    }

    pub(super) fn pushed(&mut self, push: Push, cx: &mut Cx<Mongo>) {
        self.live.now = cx.now.mono;
        match push {
            Push::Lost => self.drop_all(cx),
            Push::Change(event) => self.changed(&event, cx),
        }
    }

    /// One change event. Our own are told by the token that this very event wrote, as the
    /// document that comes along may be of a later time.
    fn changed(&mut self, event: &Doc, cx: &mut Cx<Mongo>) {
        let kind = event.get("operationType");
        let kind = kind.as_ref().and_then(|it| it.as_str()).unwrap_or_default();
        if !matches!(kind, "insert" | "update" | "replace" | "delete") {
            // The collection was dropped or renamed, or the stream ends.
            self.drop_all(cx);
            return;
        }
        let key = event.get("documentKey");
        let id = key.as_ref().and_then(|it| Id::of(&it.as_doc()?.get("_id")?));
        let full = event.get("fullDocument").and_then(|it| it.as_doc().cloned());
        let writer = match event.get("updateDescription") {
            Some(Value::Document(update)) => update
                .get("updatedFields")
                .and_then(|it| it.as_doc().and_then(|fields| self.own_mark(fields))),
            _ => full.as_ref().and_then(|doc| {
                let metadata = doc.get("metadata")?.as_doc()?.clone();
                let ours = metadata.get("dbmount")?.as_doc()?.clone();
                Some(token(ours.get("w")?.as_doc()?)?.session)
            }),
        };
        if writer.is_some_and(|writer| writer == self.session) {
            return;
        }
        self.epoch = Epoch(self.epoch.0 + 1);
        let known = id.as_ref().and_then(|id| self.tree.by_id(id));
        // Our own removals carry no token: a document that is gone here is no news.
        if kind == "delete" && known.is_some_and(|ino| self.tree.get(ino).is_some_and(|it| it.gone))
        {
            return;
        }
        if let Some(ino) = known {
            self.taint(ino, cx);
        }
        let file = full.as_ref().and_then(|doc| FileDoc::parse(doc).ok());
        match file {
            Some(FileDoc { whose: Whose::Ours(inode), .. }) => {
                if known != Some(inode.attr.ino) {
                    self.taint(inode.attr.ino, cx);
                }
                for link in inode.links {
                    self.taint_name(link.parent, &link.name, cx);
                }
            }
            Some(FileDoc { whose: Whose::Passing, .. }) => {}
            file => self.foreign_changed(id.as_ref(), file, cx),
        }
    }

    /// Whose change this is, if it is this mount's: a token (`w`), a file that it writes (`wr`) or
    /// that it took away (`gone`) say `s`.
    fn own_mark(&self, fields: &Doc) -> Option<u64> {
        let session = |value: &Value<'_>| value.as_doc()?.get("s")?.as_i64().map(|it| it as u64);
        let mut all = fields.iter().filter_map(|it| session(&it.value));
        all.find(|it| *it == self.session)
    }

    fn taint(&mut self, ino: Ino, cx: &mut Cx<Mongo>) {
        let epoch = self.epoch;
        let Some(node) = self.tree.get_mut(ino) else { return };
        node.tainted = epoch;
        // The kernel is told, and may be asked for them before that.
        node.old_pages = true;
        node.outdate(cx.now.mono);
        let name = (node.parent, node.name.clone());
        let links: Vec<_> = node.links.iter().map(|it| (it.parent, it.name.clone())).collect();
        cx.invalidate_inode(ino);
        for (parent, name) in links.into_iter().chain([name]) {
            self.taint_name(parent, &name, cx);
        }
    }

    fn taint_name(&mut self, dir: Ino, name: &crate::op::Name, cx: &mut Cx<Mongo>) {
        let epoch = self.epoch;
        if let Some(node) = self.tree.get_mut(dir) {
            node.names_tainted = epoch;
            cx.invalidate_entry(dir, name.clone());
            // The kernel's own listing of the directory is void too.
            cx.invalidate_inode(dir);
        }
    }

    /// A file of another program came, changed or went.
    fn foreign_changed(&mut self, id: Option<&Id>, file: Option<FileDoc>, cx: &mut Cx<Mongo>) {
        let mut keys = Vec::new();
        if let Some(key) = id.and_then(|id| self.foreign.key_of_id(id)) {
            self.foreign.remove(&key);
            // An older revision may show now.
            self.live.rescan_soon();
            keys.push(key);
        }
        if let Some(file) = file.filter(|_| self.foreign.len() < self.options.foreign_files) {
            keys.extend(self.foreign.insert(file));
        }
        for key in keys {
            self.taint_key(&key, cx);
        }
    }

    /// Every name on the way to a key, as far as it is known, since directories may have come or
    /// gone with it.
    fn taint_key(&mut self, key: &[u8], cx: &mut Cx<Mongo>) {
        let mut dir = Ino::ROOT;
        let mut at = Vec::new();
        for part in key.split(|byte| *byte == 0) {
            let name = crate::op::Name::from(part);
            self.taint_name(dir, &name, cx);
            at = super::foreign::below(&at, part);
            let next = self.tree.inos().into_iter().find(|ino| {
                self.tree
                    .get(*ino)
                    .is_some_and(|it| it.parent == dir && it.name == name && *ino != dir)
            });
            match next {
                Some(ino) => dir = ino,
                None => return,
            }
        }
        self.taint(dir, cx);
    }

    // ---- work of its own accord

    pub(super) fn next_task(&mut self, cx: &mut Cx<Mongo>) -> Option<Work<Self>> {
        self.live.now = cx.now.mono;
        for text in core::mem::take(&mut self.live.says) {
            cx.notice(Level::Error, text);
        }
        if !self.live.attached || self.live.busy {
            return None;
        }
        let (lane, commands, task) = self.task_now(cx)?;
        self.live.busy = true;
        Some(Self::work(lane, commands, Ticket::Task(task)))
    }

    fn task_now(&mut self, cx: &Cx<Mongo>) -> Option<(Lane, Vec<Command>, Task)> {
        let now = cx.now.mono;
        if self.live.writable {
            if self.live.next_sweep <= now {
                self.live.next_sweep = now.after(SWEEP_EVERY);
                return Some((Lane::Bulk, self.sweep(cx), Task::Sweep));
            }
            while let Some(dir) = self.live.repaths.pop_front() {
                if let Some((commands, walk)) = self.start_repath(dir) {
                    return Some((Lane::Bulk, commands, Task::Repath(walk)));
                }
            }
            if let Some((id, of)) = self.live.keeps.pop_front() {
                return Some((Lane::Bulk, self.keep(&id, of), Task::Keep));
            }
            let due: Vec<Id> = {
                let live = &mut self.live;
                let mut due = Vec::new();
                live.reclaims.retain(|(at, id)| {
                    let take = *at <= now && due.len() < RECLAIM;
                    if take {
                        due.push(id.clone());
                    }
                    !take
                });
                due
            };
            if !due.is_empty() {
                self.live.reclaiming.clone_from(&due);
                return Some((Lane::Bulk, alloc::vec![self.ask_gone(&due)], Task::Reclaim));
            }
            if let Some(unmark) = self.unmark_idle(now) {
                return Some((Lane::Bulk, alloc::vec![unmark], Task::Housekeeping));
            }
            if self.live.next_heartbeat.is_some_and(|at| at <= now) {
                return self.heartbeat(cx);
            }
        }
        if self.live.next_scan.is_some_and(|at| at <= now) {
            self.live.next_scan = None;
            self.live.scan = Some((Foreign::default(), now));
            return Some((Lane::Meta, alloc::vec![self.scan_foreign()], Task::Scan));
        }
        None
    }

    pub(super) fn task_done(
        &mut self,
        task: Task,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        self.live.now = cx.now.mono;
        if let Some(error) = replies.iter().find_map(Reply::error) {
            self.live.busy = false;
            for id in core::mem::take(&mut self.live.reclaiming) {
                self.live.reclaim_later(id, cx.now.mono);
            }
            self.live.scanned(cx);
            return Step::Fail(self.refused(&error, "background work"));
        }
        match task {
            Task::Scan => {
                if let Some(more) = self.scan_done(replies, cx) {
                    return Step::Work(more);
                }
            }
            Task::Sweep => {
                self.swept(replies, cx);
                if let Some(work) = self.ask_restore(replies) {
                    // The rest is for the next sweep.
                    return Step::Work(work);
                }
                if let Some(work) = self.ask_dead(replies) {
                    return Step::Work(work);
                }
            }
            Task::Restore(aside) => {
                let commands = self.restore(&aside, replies, self.gone_before(cx.now.mono));
                if !commands.is_empty() {
                    let text = format!("{} files are restored after a crash", commands.len());
                    cx.notice(Level::Info, text);
                    self.drop_all(cx);
                    let ticket = Ticket::Task(Task::Housekeeping);
                    return Step::Work(Self::work(Lane::Bulk, commands, ticket));
                }
            }
            Task::Reclaim => {
                let commands = replies.first().map(|found| self.removal(found)).unwrap_or_default();
                if !commands.is_empty() {
                    let ticket = Ticket::Task(Task::Housekeeping);
                    return Step::Work(Self::work(Lane::Bulk, commands, ticket));
                }
            }
            Task::Keep => {
                let commands = self.outdated(replies);
                if !commands.is_empty() {
                    let ticket = Ticket::Task(Task::Housekeeping);
                    return Step::Work(Self::work(Lane::Bulk, commands, ticket));
                }
            }
            Task::Trim(files) => {
                let commands = self.trim_dead(&files, replies);
                let ticket = Ticket::Task(Task::Housekeeping);
                return Step::Work(Self::work(Lane::Bulk, commands, ticket));
            }
            Task::Repath(walk) => {
                if let Some((commands, walk)) = self.repathed(walk, replies) {
                    let ticket = Ticket::Task(Task::Repath(walk));
                    return Step::Work(Self::work(Lane::Bulk, commands, ticket));
                }
            }
            Task::Housekeeping => {}
        }
        self.live.busy = false;
        self.live.reclaiming.clear();
        Step::Done(Outcome::Done)
    }

    fn scan_done(&mut self, replies: &[Reply], cx: &mut Cx<Mongo>) -> Option<Work<Self>> {
        let (docs, cursor) = replies.first().map(Reply::batch).unwrap_or_default();
        let Some((mut index, started)) = self.live.scan.take() else {
            // What it was to find has changed meanwhile: once more.
            self.live.next_scan = Some(cx.now.mono);
            return None;
        };
        core::mem::swap(&mut self.foreign, &mut index);
        for doc in &docs {
            self.take_foreign(doc, cx);
        }
        core::mem::swap(&mut self.foreign, &mut index);
        if cursor != 0 && index.len() < self.options.foreign_files {
            self.live.scan = Some((index, started));
            let commands = alloc::vec![self.scan_more(cursor)];
            return Some(Self::work(Lane::Meta, commands, Ticket::Task(Task::Scan)));
        }
        let changed = self.foreign.differences(&index);
        self.foreign = index;
        if !changed.is_empty() {
            self.epoch = Epoch(self.epoch.0 + 1);
        }
        for key in changed {
            self.taint_key(&key, cx);
        }
        let took = cx.now.mono.since(started) * RESCAN_SHARE;
        self.live.next_scan = Some(cx.now.mono.after(RESCAN_EVERY.max(took)));
        None
    }

    /// Where a foreign file is, for messages.
    #[must_use]
    pub fn foreign_path(key: &[u8]) -> String {
        path_of(key)
    }
}
