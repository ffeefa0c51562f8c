//! The live view: the index is built once by SCAN, kept true by `CLIENT TRACKING BCAST`, and built
//! anew when pushes may have been missed. Servers without tracking are scanned again and again.
//!
//! A push names a key, not what happened to it. Facts about it are dropped at once; what is there
//! now is asked for (many keys in one batch), and the kernel is told of names that came or went.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Push, Redis};
use crate::contract::Link;
use crate::engine::{Cx, Progress};
use crate::id::{Ino, Lane};
use crate::layout::Epoch;
use crate::op::Name;
use crate::time::{Duration, Mono};

use super::index::Index;
use super::place::{Place, side_key};
use super::tasks::Scan;
use super::tree::What;
use super::{ECHO_WINDOW, Keys, ORPHAN_LEASE, RESERVED};

/// Keys just written here that are remembered; an echo of more counts as a foreign change.
const OWN_KEYS: usize = 16_384;

/// What the live view needs to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) session: u64,
    pub(super) attached: bool,
    /// The index has been whole once.
    pub(super) ready: bool,
    /// The push lane is up; whether pushes come on it.
    pub(super) link: Option<bool>,
    pub(super) scan: Option<Scan>,
    /// Scans so far.
    pub(super) scans: u64,
    /// Keys in the database, for progress.
    pub(super) total: Option<u64>,
    /// Keys and side hashes to look at anew.
    pub(super) keys: BTreeSet<Vec<u8>>,
    pub(super) sides: BTreeSet<Vec<u8>>,
    pub(super) refreshing: bool,
    /// Side hashes' versions after our last change or look.
    pub(super) versions: BTreeMap<Vec<u8>, i64>,
    /// Everything that was known before is void.
    pub(super) dropped: Epoch,
    pub(super) orphans: BTreeSet<Bytes>,
    pub(super) dropped_orphans: Vec<Bytes>,
    /// Until when an invalidation of a key is most likely the echo of a write of ours. By key: all
    /// fields of a hash are told of as one.
    pub(super) own: BTreeMap<Bytes, Mono>,
    /// A directory is renamed stepwise: until then keys are not looked at anew, or the directory
    /// would be seen to vanish key by key under those who have files open in it.
    pub(super) hold: Option<Mono>,
    pub(super) next_heartbeat: Option<Mono>,
    pub(super) next_scan: Option<Mono>,
    pub(super) renames_checked: bool,
    pub(super) now: Mono,
    pub(super) pushed_lease: Duration,
    pub(super) polled_lease: Duration,
}
impl Live {
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Pushes keep true what is known.
    pub(super) fn is_live(&self) -> bool {
        self.ready && self.link == Some(true)
    }

    pub(super) fn dropped_since(&self, since: Epoch) -> bool {
        self.dropped > since
    }

    pub(super) fn pushed(&self) -> Duration {
        self.pushed_lease
    }

    pub(super) fn polled(&self) -> Duration {
        self.polled_lease
    }

    pub(super) fn now(&self) -> Mono {
        self.now
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    /// These keys are being written here, or just were.
    pub(super) fn own_keys<'a>(&mut self, keys: impl IntoIterator<Item = &'a Bytes>, now: Mono) {
        let until = now.after(ECHO_WINDOW);
        for key in keys.into_iter().filter(|key| !key.is_empty() && !key.starts_with(RESERVED)) {
            if self.own.len() >= OWN_KEYS {
                self.own.retain(|_, until| *until > now);
            }
            if self.own.len() < OWN_KEYS {
                self.own.insert(key.clone(), until);
            }
        }
    }

    fn is_own(&self, key: &[u8], now: Mono) -> bool {
        self.own.get(key).is_some_and(|until| now < *until)
    }

    pub(super) fn keep_orphan(&mut self, key: Bytes) {
        self.orphans.insert(key);
        self.next_heartbeat.get_or_insert(self.now.after(ORPHAN_LEASE / 3));
    }

    pub(super) fn drop_orphan(&mut self, key: Bytes) {
        self.orphans.remove(&key);
        self.dropped_orphans.push(key);
    }

    pub(super) fn orphans(&self) -> impl Iterator<Item = &Bytes> {
        self.orphans.iter().chain(&self.dropped_orphans)
    }

    /// The key is gone from the server already.
    pub(super) fn forget_orphan(&mut self, key: &Bytes) {
        self.orphans.remove(key);
    }

    /// The keys of a place are looked at anew.
    pub(super) fn refresh_place(&mut self, place: &Place) {
        for key in [&place.full, &place.bare].into_iter().flatten() {
            self.refresh_key(key);
        }
    }

    pub(super) fn refresh_key(&mut self, key: &[u8]) {
        if !key.starts_with(RESERVED) {
            self.keys.insert(key.to_vec());
        }
    }

    pub(super) fn refresh_side(&mut self, prefix: &[u8]) {
        self.sides.insert(prefix.to_vec());
    }

    pub(super) fn forget_version(&mut self, prefix: &[u8]) {
        self.versions.remove(prefix);
    }

    /// Looks at no keys for as long as a step may take, or goes on to look at them.
    pub(super) fn hold(&mut self, until: Option<Mono>) {
        self.hold = until;
    }

    pub(super) fn check_renames_again(&mut self) {
        self.renames_checked = false;
    }

    pub(super) fn due(&self) -> Option<Mono> {
        [self.next_heartbeat, self.next_scan, self.hold].into_iter().flatten().min()
    }

    pub(super) fn progress(&self, indexed: usize) -> Progress {
        let done = self.scan.as_ref().map_or(indexed, |scan| scan.index.len());
        Progress { done: done as u64, total: self.total, finished: self.ready }
    }

    pub(super) fn attached(&mut self, cx: &Cx<Redis>) {
        self.session = cx.seed;
        self.attached = true;
        self.pushed_lease = cx.config.lease_pushed;
        self.polled_lease = cx.config.lease_polled;
        self.now = cx.now.mono;
    }
}

impl Keys {
    // ---- the index, and the one that is being built

    pub(super) fn index_key(&mut self, key: &[u8], there: bool) -> bool {
        let set = |index: &mut Index| {
            if there { index.insert_key(key) } else { index.remove_key(key) }
        };
        if let Some(scan) = &mut self.live.scan {
            set(&mut scan.index);
            scan.touched.insert(key.to_vec());
        }
        set(&mut self.index)
    }

    pub(super) fn index_side(&mut self, prefix: &[u8], there: bool) -> bool {
        let set = |index: &mut Index| {
            if there { index.insert_side(prefix) } else { index.remove_side(prefix) }
        };
        if let Some(scan) = &mut self.live.scan {
            set(&mut scan.index);
            scan.touched.insert(side_key(prefix).to_vec());
        }
        set(&mut self.index)
    }

    pub(super) fn index_xattrs(&mut self, key: &[u8], there: bool) {
        if let Some(scan) = &mut self.live.scan {
            scan.index.set_xattrs(key, there);
            scan.touched.insert(key.to_vec());
        }
        self.index.set_xattrs(key, there);
    }

    // ---- links and pushes

    pub(super) fn link_changed(&mut self, lane: Lane, link: &Link, cx: &mut Cx<Redis>) {
        if lane != Lane::Push {
            return;
        }
        let was = self.live.link;
        self.live.link = match link {
            Link::Up { pushes } => Some(*pushes),
            Link::Down(_) | Link::Refused(_) => None,
        };
        if was == Some(true) {
            // From now on nothing is told.
            self.drop_everything(cx);
        }
        if self.live.attached && self.live.link.is_some() {
            self.start_scan(cx);
        }
    }

    pub(super) fn pushed(&mut self, push: Push, cx: &mut Cx<Redis>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        match push {
            Push::Invalidate(keys) => {
                for key in keys {
                    self.key_pushed(&key, cx);
                }
            }
            Push::InvalidateAll => {
                self.drop_everything(cx);
                if self.live.attached {
                    self.start_scan(cx);
                }
            }
            Push::Message { .. } => {}
        }
    }

    fn key_pushed(&mut self, key: &[u8], cx: &mut Cx<Redis>) {
        if let Some(own) = key.strip_prefix(RESERVED) {
            if let Some(prefix) = own.strip_prefix(b"a:")
                && prefix.starts_with(&self.options.prefix)
            {
                // Its version tells exactly whether this is the echo of a change of ours; until it
                // is known, nothing is dropped, or every create would void its directory.
                self.live.sides.insert(prefix.to_vec());
            } else if own.starts_with(b"x:") {
                // Only to know that there is one when its directory is renamed; a hash that is
                // gone does no harm there.
                self.index_xattrs(key, true);
            }
            return;
        }
        if !key.starts_with(&self.options.prefix) {
            return;
        }
        self.live.keys.insert(key.to_vec());
        let echo = self.live.is_own(key, cx.now.mono);
        let epoch = self.epoch;
        let Some((dir, names)) = self.names_of(key) else { return };
        if let Some(node) = self.tree.get_mut(dir) {
            node.children_tainted = epoch;
        }
        for (parent, name, ino) in names {
            cx.forget_entry(parent, &name);
            let Some(node) = ino.and_then(|ino| self.tree.get_mut(ino)) else { continue };
            node.tainted = epoch;
            if !echo && node.what != What::Dir {
                node.attr.mtime = cx.now.wall;
                node.attr.ctime = cx.now.wall;
            }
            let (what, ino) = (node.what, node.attr.ino);
            if what == What::Dir {
                continue;
            }
            if !echo {
                self.remember_times(ino);
            }
            cx.invalidate_inode(ino);
            // Which fields of a hash came or went is not told.
            if what == What::Field && !echo {
                cx.invalidate_entry(parent, name);
            }
        }
    }

    /// The directory that a key is in, as far as it is known, and the names there that the key
    /// can be about: (directory, name, inode if known).
    #[allow(clippy::type_complexity, reason = "two callers, both take it apart at once")]
    fn names_of(&self, key: &[u8]) -> Option<(Ino, Vec<(Ino, Name, Option<Ino>)>)> {
        let naming = self.options.naming;
        let rest = key.strip_prefix(self.options.prefix.as_slice())?;
        let mut dir = Ino::ROOT;
        let mut components = naming.split_key(rest).peekable();
        while let Some(component) = components.next() {
            let name = Name::from(naming.encode_component(component));
            let child = self.tree.child(dir, &name);
            if components.peek().is_some() {
                match child {
                    Some(child) => dir = child,
                    // Nobody has been there: only the name of the directory can matter.
                    None => return Some((dir, alloc::vec![(dir, name, None)])),
                }
                continue;
            }
            let mut names = alloc::vec![(dir, name.clone(), child)];
            if let Some(child) = child {
                let own = Name::from(super::name::SELF_NAME);
                if let Some(ino) = self.tree.child(child, &own) {
                    names.push((child, own, Some(ino)));
                }
            }
            let fields = naming.full_field(component, b"");
            for (field, ino) in self.tree.children_with(dir, &fields[..fields.len().min(200)]) {
                if field != name {
                    names.push((dir, field, Some(ino)));
                }
            }
            return Some((dir, names));
        }
        None
    }

    /// The known directory of a prefix.
    fn find_dir(&self, prefix: &[u8]) -> Option<Ino> {
        let naming = self.options.naming;
        let rest = prefix.strip_prefix(self.options.prefix.as_slice())?;
        let Some(rest) = rest.strip_suffix(&[naming.delimiter()]) else {
            return rest.is_empty().then_some(Ino::ROOT);
        };
        naming.split_key(rest).try_fold(Ino::ROOT, |dir, component| {
            self.tree.child(dir, &Name::from(naming.encode_component(component)))
        })
    }

    /// Nothing that was known is believed any more, here and in the kernel.
    pub(super) fn drop_everything(&mut self, cx: &mut Cx<Redis>) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.live.dropped = self.epoch;
        self.live.versions.clear();
        cx.forget_all();
        for ino in self.tree.inos() {
            for name in self.tree.take_absent(ino) {
                cx.invalidate_entry(ino, name);
            }
            let Some(node) = self.tree.get(ino) else { continue };
            let (parent, name, is_file) = (node.parent, node.name.clone(), node.what != What::Dir);
            cx.invalidate_inode(ino);
            // A directory that is still there keeps its place: programs may stand in it. One that
            // is gone is found out when the index is whole again.
            if is_file && ino != Ino::ROOT && !node.detached {
                cx.invalidate_entry(parent, name);
            }
        }
    }

    // ---- what a second look shows

    pub(super) fn key_seen(&mut self, key: &[u8], there: bool, cx: &mut Cx<Redis>) {
        if self.index_key(key, there) {
            self.path_changed(key, cx);
        }
    }

    pub(super) fn side_seen(
        &mut self,
        prefix: &[u8],
        there: bool,
        version: i64,
        cx: &mut Cx<Redis>,
    ) {
        let came_or_went = self.index_side(prefix, there);
        let known = self.live.versions.get(prefix).copied().unwrap_or(0);
        if version != known || version < 0 {
            self.side_changed(prefix, version, cx);
        }
        if came_or_went {
            let path = prefix.strip_suffix(&[self.options.naming.delimiter()]).unwrap_or(prefix);
            let path = path.to_vec();
            self.path_changed(&path, cx);
        }
    }

    /// A side hash was changed by us and has this version now (0: it is gone; `first`: it was
    /// made).
    pub(super) fn side_written(
        &mut self,
        prefix: &[u8],
        version: i64,
        first: Option<i64>,
        cx: &mut Cx<Redis>,
    ) {
        self.index_side(prefix, version > 0);
        let known = self.live.versions.get(prefix).copied().unwrap_or(0);
        let made = known == 0 && Some(version) == first;
        if made || version == known + 1 || version == 0 {
            self.set_version(prefix, version);
        } else {
            // Somebody else has changed it in between, and the push may still be on its way.
            self.side_changed(prefix, version, cx);
        }
    }

    fn set_version(&mut self, prefix: &[u8], version: i64) {
        if version > 0 {
            self.live.versions.insert(prefix.to_vec(), version);
        } else {
            self.live.versions.remove(prefix);
        }
    }

    /// Somebody else changed records of a directory; which is not told.
    fn side_changed(&mut self, prefix: &[u8], version: i64, cx: &mut Cx<Redis>) {
        self.set_version(prefix, version);
        let Some(dir) = self.find_dir(prefix) else { return };
        let epoch = self.epoch;
        if let Some(node) = self.tree.get_mut(dir) {
            node.tainted = epoch;
            node.side_tainted = epoch;
            node.children_tainted = epoch;
        }
        cx.invalidate_inode(dir);
        for name in self.tree.take_absent(dir) {
            cx.invalidate_entry(dir, name);
        }
        let children: Vec<(Name, Ino)> =
            self.tree.children(dir).map(|(name, ino)| (name.clone(), ino)).collect();
        for (name, ino) in children {
            let Some(node) = self.tree.get(ino) else { continue };
            if node.what == What::Dir {
                continue;
            }
            let is_side = node.what == What::Side;
            cx.invalidate_inode(ino);
            if is_side {
                cx.invalidate_entry(dir, name);
            }
        }
    }

    /// A key or side hash came or went: names along its path may have, too.
    fn path_changed(&mut self, path: &[u8], cx: &mut Cx<Redis>) {
        let naming = self.options.naming;
        let Some(rest) = path.strip_prefix(self.options.prefix.as_slice()) else { return };
        let mut dir = Ino::ROOT;
        let mut prefix = self.options.prefix.clone();
        let components: Vec<Vec<u8>> = naming.split_key(rest).map(<[u8]>::to_vec).collect();
        for (n, component) in components.iter().enumerate() {
            let name = Name::from(naming.encode_component(component));
            prefix.extend_from_slice(component);
            prefix.push(naming.delimiter());
            let last = n + 1 == components.len();
            let child = self.tree.child(dir, &name);
            let is_dir = self.index.is_dir(&prefix);
            let was_dir =
                child.and_then(|ino| self.tree.get(ino)).map(|node| node.what == What::Dir);
            if last || was_dir != Some(is_dir) {
                // A directory that stays one is left alone: programs may stand in it.
                if was_dir != Some(true) || !is_dir {
                    // A file that is there stays what it is for those who have it open: it may be
                    // one of ours whose reply was lost.
                    let stays = last && was_dir == Some(false) && self.index.contains_key(path);
                    self.name_changed(dir, &name, stays, cx);
                }
                return;
            }
            match child {
                Some(child) => dir = child,
                None => return,
            }
        }
    }

    fn name_changed(&mut self, dir: Ino, name: &Name, stays: bool, cx: &mut Cx<Redis>) {
        let known = if stays { self.tree.child(dir, name) } else { self.tree.detach(dir, name) };
        if let Some(ino) = known {
            cx.invalidate_inode(ino);
        }
        let epoch = self.epoch;
        if let Some(node) = self.tree.get_mut(dir) {
            node.children_tainted = epoch;
            node.attr.mtime = node.attr.mtime.max(cx.now.wall);
            node.attr.ctime = node.attr.ctime.max(cx.now.wall);
        }
        cx.invalidate_inode(dir);
        cx.invalidate_entry(dir, name.clone());
    }
}
