//! The live view: `CLIENT TRACKING BCAST` tells which inodes were changed, not by whom.
//!
//! Every change of names, attributes or contents puts a new stamp on the inode (of names: on the
//! directory), and a commit is told the stamp that its own replaces: so this mount sees whether
//! others have been there in between. A push of what was just changed here is taken for the echo
//! of that, and made sure of a little later; any other voids what is known at once.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::backend::redis::{Push, Redis};
use crate::contract::Link;
use crate::decide::{Change, Plan};
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::Epoch;
use crate::op::{Kind, Name};
use crate::time::{Duration, Mono};

use super::Volume;
use super::key::{DataId, Key};
use super::record::{Inode, Stamp};

/// For how long after a change of ours a push is taken for its echo.
const ECHO_WINDOW: Duration = Duration::from_millis(200);
/// How long until what was taken for an echo is made sure of.
const VERIFY_AFTER: Duration = Duration::from_millis(10);
/// Contents to be removed that are remembered; the queue on the server has them all.
const RECLAIMED: usize = 65_536;
/// Changes that were given up and are remembered: more than can be on their way.
const GIVEN_UP: usize = 4096;
/// How long contents to be removed are collected.
const RECLAIM_AFTER: Duration = Duration::from_millis(20);

/// What the live view needs to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) attached: bool,
    /// Nothing may be written: no lease, no work of its own.
    pub(super) read_only: bool,
    /// The push lane is up; whether pushes come on it.
    link: Option<bool>,
    /// Everything that was known before is void.
    dropped: Epoch,
    /// Inodes whose stamps are to be looked at.
    pub(super) verify: BTreeSet<Ino>,
    pub(super) verify_at: Option<Mono>,
    pub(super) verifying: bool,
    /// Directories whose names are to be looked at, and from when on.
    pub(super) look_again: BTreeMap<Ino, Mono>,
    pub(super) looking: bool,
    /// Serials of changes of ours of which nobody knows whether they were made.
    given_up: BTreeSet<u64>,
    /// Open inodes that lost their last name elsewhere: the server is to be told.
    pub(super) holds: BTreeSet<Ino>,
    /// Held inodes that were closed.
    pub(super) let_go: BTreeSet<Ino>,
    /// Up to which grave it is known what is open here; and up to which the server was told.
    pub(super) seen: u64,
    pub(super) told: u64,
    pub(super) reap_at: Option<Mono>,
    pub(super) reaping: bool,
    /// Contents to be removed, with the blocks that are left.
    pub(super) reclaim: VecDeque<(DataId, u64)>,
    pub(super) reclaim_at: Option<Mono>,
    pub(super) reclaiming: bool,
    pub(super) scan_at: Option<Mono>,
    pub(super) taking_numbers: bool,
    now: Mono,
    pushed_lease: Duration,
    polled_lease: Duration,
}

impl Live {
    /// Pushes keep true what is known.
    pub(super) fn is_live(&self) -> bool {
        self.link == Some(true)
    }

    pub(super) fn now(&self) -> Mono {
        self.now
    }

    pub(super) fn attached(&mut self, cx: &Cx<Redis>) {
        self.attached = true;
        self.pushed_lease = cx.config.lease_pushed;
        self.polled_lease = cx.config.lease_polled;
        self.now = cx.now.mono;
        if !self.read_only {
            self.reap_at = Some(cx.now.mono);
            self.scan_at = Some(cx.now.mono);
        }
    }

    pub(super) fn due(&self) -> Option<Mono> {
        if !self.attached {
            return None;
        }
        let when = |at: Option<Mono>, busy: bool| at.filter(|_| !busy);
        let looks = self.look_again.values().min().copied();
        [
            when(self.verify_at, self.verifying),
            when(looks, self.looking),
            when(self.reap_at, self.reaping),
            when(self.reclaim_at, self.reclaiming),
            when(self.scan_at, self.reclaiming),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn set_now(&mut self, now: Mono) {
        self.now = now;
    }

    /// Contents of this length are to be removed.
    pub(super) fn reclaim(&mut self, data: DataId, length: u64, now: Mono) {
        if length > 0 && self.reclaim.len() < RECLAIMED {
            self.reclaim.push_back((data, length));
            self.reclaim_at.get_or_insert(now.after(RECLAIM_AFTER));
        }
    }

    /// There is an inode without a name.
    pub(super) fn look_at_graves(&mut self, now: Mono) {
        let at = now.after(RECLAIM_AFTER);
        self.reap_at = Some(self.reap_at.map_or(at, |due| due.min(at)));
    }

    /// A held inode was closed.
    pub(super) fn let_go(&mut self, ino: Ino) {
        self.holds.remove(&ino);
        self.let_go.insert(ino);
        self.look_at_graves(self.now);
    }
}

impl Volume {
    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epoch
    }

    // ---- leases

    pub(super) fn lease_of_entry(
        &self,
        dir: Ino,
        name: &Name,
        found: Option<Ino>,
        since: Epoch,
    ) -> Duration {
        let live = &self.live;
        let crossed = self.tree.get(dir).is_none_or(|node| node.tainted > since);
        if crossed || live.dropped > since {
            return Duration::ZERO;
        }
        if live.is_live() && self.tree.remembers(dir, name, found.is_some()) {
            live.pushed_lease
        } else {
            live.polled_lease
        }
    }

    pub(super) fn lease_of_attr(&self, ino: Ino, since: Epoch) -> Duration {
        let live = &self.live;
        match self.tree.get(ino) {
            Some(node) if node.tainted <= since && live.dropped <= since => {
                if live.is_live() {
                    live.pushed_lease
                } else {
                    live.polled_lease
                }
            }
            _ => Duration::ZERO,
        }
    }

    // ---- stamps

    /// An inode is being changed here, or just was.
    pub(super) fn own(&mut self, ino: Ino, now: Mono) {
        if let Some(node) = self.tree.get_mut(ino) {
            node.own_until = now.after(ECHO_WINDOW);
        }
    }

    /// Whether a change is not one that this mount knows of: by another mount, or given up here.
    pub(super) fn is_foreign(&self, stamp: Stamp) -> bool {
        stamp.mount != self.mount || self.live.given_up.contains(&stamp.serial)
    }

    /// A change was sent, and nobody learns whether it was made; it may still be.
    pub(super) fn change_given_up(&mut self, stamp: Stamp, inos: &[Ino], cx: &mut Cx<Redis>) {
        if self.live.given_up.len() >= GIVEN_UP {
            self.live.given_up.pop_first();
        }
        self.live.given_up.insert(stamp.serial);
        for ino in inos {
            self.changed_by_others(*ino, cx);
        }
    }

    /// A change of ours put `new` in place of `former`, which is not known when the change was
    /// only heard of later.
    pub(super) fn stamped(
        &mut self,
        ino: Ino,
        former: Option<Stamp>,
        new: Stamp,
        cx: &mut Cx<Redis>,
    ) {
        let mount = self.mount;
        let Some(node) = self.tree.get(ino) else { return };
        let known = node.stamp;
        if former.is_none_or(|former| former != known && self.is_foreign(former)) {
            self.changed_by_others(ino, cx);
        }
        let newer = known.mount == mount && known.serial > new.serial;
        if let Some(node) = self.tree.get_mut(ino)
            && !newer
        {
            node.stamp = new;
        }
    }

    /// The server has told of an inode, asked at `since`.
    pub(super) fn told(
        &mut self,
        inode: &Inode,
        at: Option<(Ino, Name)>,
        since: Epoch,
        cx: &mut Cx<Redis>,
    ) {
        let ino = inode.attr.ino;
        if let Some(node) = self.tree.get(ino) {
            // It may be older than what is known by now.
            if node.tainted > since {
                return;
            }
            if node.stamp != inode.change && self.is_foreign(inode.change) {
                self.changed_by_others(ino, cx);
            }
        }
        self.tree.learn(inode, at);
        if inode.attr.nlink == 0 && cx.is_open(ino) {
            self.hold(ino);
        }
    }

    /// A stamp was seen on a directory.
    pub(super) fn seen(&mut self, dir: Ino, stamp: Stamp, cx: &mut Cx<Redis>) {
        let Some(node) = self.tree.get(dir) else { return };
        if node.stamp != stamp && self.is_foreign(stamp) {
            self.changed_by_others(dir, cx);
            if let Some(node) = self.tree.get_mut(dir) {
                node.stamp = stamp;
            }
        }
    }

    /// It has no name any more and is open here: it must be kept, and the server know it.
    pub(super) fn hold(&mut self, ino: Ino) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        if !node.held && !self.live.read_only {
            node.held = true;
            self.live.holds.insert(ino);
            self.live.look_at_graves(self.live.now);
        }
    }

    /// An inode has lost its last name. Unless it is open here, it can be opened no more: the
    /// kernel may still remember a name that led to it.
    pub(super) fn see_grave(&mut self, ino: Ino, cx: &mut Cx<Redis>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        if cx.is_open(ino) {
            self.hold(ino);
            return;
        }
        node.doomed = true;
        if node.nlink == 0 {
            // It was removed here, or that is known already.
            return;
        }
        let (parent, name) = (node.parent, node.name.clone());
        if self.tree.entry(parent, &name).flatten().is_some_and(|(_, at)| at == ino) {
            cx.invalidate_entry(parent, name);
        }
        self.changed_by_others(ino, cx);
    }

    /// What is known of an inode may be wrong.
    pub(super) fn changed_by_others(&mut self, ino: Ino, cx: &mut Cx<Redis>) {
        let epoch = self.next_epoch();
        let Some(node) = self.tree.get_mut(ino) else { return };
        node.tainted = epoch;
        node.acl = None;
        let is_dir = node.kind == Kind::Dir;
        cx.invalidate_inode(ino);
        if cx.is_open(ino) && !is_dir {
            self.verify(ino, cx.now.mono);
        }
        if is_dir {
            for name in self.tree.names_of(ino) {
                cx.forget_entry(ino, &name);
            }
            self.suspect(ino, cx);
        }
    }

    /// The names in a directory are looked at again, where the kernel may remember them.
    fn suspect(&mut self, dir: Ino, cx: &Cx<Redis>) {
        if !cx.is_known(dir) {
            self.tree.take_names(dir);
        } else if self.tree.suspect(dir) {
            self.live.look_again.entry(dir).or_insert(cx.now.mono);
        }
    }

    pub(super) fn verify(&mut self, ino: Ino, now: Mono) {
        self.live.verify.insert(ino);
        self.live.verify_at.get_or_insert(now.after(VERIFY_AFTER));
    }

    /// A plan stood on what is not so: names it is about are not believed any more.
    pub(super) fn forget_names_of(&mut self, ino: Ino, plan: &Plan, cx: &mut Cx<Redis>) {
        let about = plan.changes.iter().any(|change| match change {
            Change::Create { dir, .. }
            | Change::Link { dir, .. }
            | Change::Unlink { dir, .. }
            | Change::Touch { dir, .. } => *dir == ino,
            Change::Rename { dir, to_dir, .. } => *dir == ino || *to_dir == ino,
            Change::Exchange { a, b } => a.0 == ino || b.0 == ino,
            Change::SetAttr { .. }
            | Change::Xattr { .. }
            | Change::Zero { .. }
            | Change::Grow { .. }
            | Change::Copy { .. } => false,
        });
        if about {
            self.suspect(ino, cx);
        }
    }

    // ---- links and pushes

    pub(super) fn link_changed(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Redis>) {
        if lane == Lane::Meta && matches!(link, Link::Up { .. }) {
            self.enter_again(cx);
        }
        if lane != Lane::Push {
            return;
        }
        let was = self.live.link;
        self.live.link = match link {
            Link::Up { pushes } => Some(*pushes),
            Link::Down(_) | Link::Refused(_) => None,
        };
        if was == Some(true) || (self.live.attached && self.live.link.is_some()) {
            // From now on nothing is told, or something may have been missed.
            self.drop_everything(cx);
        }
    }

    /// The server may have come back without what it was told last: this mount, its numbers, what
    /// it holds.
    fn enter_again(&mut self, cx: &Cx<Redis>) {
        if !self.live.attached || self.live.read_only {
            return;
        }
        let held = |ino: &Ino| self.tree.get(*ino).is_some_and(|node| node.held);
        let holds: Vec<Ino> = self.tree.inos().into_iter().filter(held).collect();
        self.live.holds.extend(holds);
        (self.live.seen, self.live.told) = (0, 0);
        self.live.reap_at = Some(cx.now.mono);
    }

    pub(super) fn pushed(&mut self, push: &Push, cx: &mut Cx<Redis>) {
        match push {
            Push::Invalidate(keys) => {
                let epoch = self.next_epoch();
                for key in keys {
                    match self.keys.parse(key) {
                        Some(Key::Inode(ino)) => self.inode_pushed(ino, epoch, cx),
                        Some(Key::Locks(ino)) => cx.unlocked(ino),
                        Some(Key::Graves) => self.live.look_at_graves(cx.now.mono),
                        _ => {}
                    }
                }
            }
            Push::InvalidateAll => self.drop_everything(cx),
            Push::Message { .. } => {}
        }
    }

    fn inode_pushed(&mut self, ino: Ino, epoch: Epoch, cx: &mut Cx<Redis>) {
        match self.tree.get(ino) {
            None => self.tree.stray(ino, epoch),
            Some(node) if cx.now.mono < node.own_until => self.verify(ino, cx.now.mono),
            Some(_) => self.changed_by_others(ino, cx),
        }
    }

    /// Nothing that was known is believed any more, here and in the kernel.
    fn drop_everything(&mut self, cx: &mut Cx<Redis>) {
        let epoch = self.next_epoch();
        self.live.dropped = epoch;
        self.tree.taint_strays(epoch);
        cx.forget_all();
        cx.unlocked_all();
        for ino in self.tree.inos() {
            self.changed_by_others(ino, cx);
        }
    }

    // ---- what a second look shows

    /// A stamp that was to be made sure of; `None` when the inode is gone.
    pub(super) fn verified(&mut self, ino: Ino, stamp: Option<(Stamp, bool)>, cx: &mut Cx<Redis>) {
        let Some(node) = self.tree.get(ino) else { return };
        match stamp {
            Some((stamp, nameless)) => {
                if nameless && cx.is_open(ino) {
                    self.hold(ino);
                } else if node.stamp != stamp
                    && self.is_foreign(stamp)
                    && node.tainted <= self.epoch
                {
                    self.note_change(ino, stamp, cx);
                }
            }
            None => self.changed_by_others(ino, cx),
        }
    }

    fn note_change(&mut self, ino: Ino, stamp: Stamp, cx: &mut Cx<Redis>) {
        let open = cx.is_open(ino);
        self.changed_by_others(ino, cx);
        if open {
            // It has just been made sure of.
            self.live.verify.remove(&ino);
        }
        if let Some(node) = self.tree.get_mut(ino) {
            node.stamp = stamp;
        }
    }

    /// Names that are not what they were taken for.
    pub(super) fn names_changed(&mut self, dir: Ino, names: Vec<Name>, cx: &mut Cx<Redis>) {
        for name in names {
            cx.invalidate_entry(dir, name);
        }
    }
}
