//! The live view: the index is built once by SCAN, kept true by `CLIENT TRACKING BCAST`, and built
//! anew when pushes may have been missed. Servers without tracking are scanned again and again.
//!
//! A push names a key, not what happened to it. Facts about it are dropped at once; what is there
//! now is asked for (many keys in one batch), and the kernel is told of names that came or went.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Command, Push, Redis, Reply};
use crate::contract::{Level, Link};
use crate::engine::{Cx, Progress};
use crate::id::{Ino, Lane};
use crate::layout::{Epoch, Outcome, Step, Work};
use crate::op::Name;
use crate::time::{Duration, Mono};

use super::index::Index;
use super::place::{Place, renames_key, side_key};
use super::tree::What;
use super::{ECHO_WINDOW, Keys, ORPHAN_LEASE, RESERVED, Ticket};

/// Keys a SCAN step looks at: 0.4 ms of the server's time.
const SCAN_COUNT: &str = "1000";
/// Keys that are looked at anew in one batch.
const REFRESH_KEYS: usize = 512;
/// Keys just written here that are remembered; an echo of more counts as a foreign change.
const OWN_KEYS: usize = 16_384;
/// How often a server without pushes is scanned, at the most.
const RESCAN_EVERY: Duration = Duration::from_secs(2);
/// A scan takes at most this share of the time between scans.
const RESCAN_SHARE: u32 = 4;

/// What the live view needs to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    session: u64,
    attached: bool,
    /// The index has been whole once.
    ready: bool,
    /// The push lane is up; whether pushes come on it.
    link: Option<bool>,
    scan: Option<Scan>,
    /// Scans so far.
    scans: u64,
    /// Keys in the database, for progress.
    total: Option<u64>,
    /// Keys and side hashes to look at anew.
    keys: BTreeSet<Vec<u8>>,
    sides: BTreeSet<Vec<u8>>,
    refreshing: bool,
    /// Side hashes' versions after our last change or look.
    versions: BTreeMap<Vec<u8>, i64>,
    /// Everything that was known before is void.
    dropped: Epoch,
    orphans: BTreeSet<Bytes>,
    dropped_orphans: Vec<Bytes>,
    /// Until when an invalidation of a key is most likely the echo of a write of ours. By key: all
    /// fields of a hash are told of as one.
    own: BTreeMap<Bytes, Mono>,
    /// A directory is renamed stepwise: until then keys are not looked at anew, or the directory
    /// would be seen to vanish key by key under those who have files open in it.
    hold: Option<Mono>,
    next_heartbeat: Option<Mono>,
    next_scan: Option<Mono>,
    renames_checked: bool,
    now: Mono,
    pushed_lease: Duration,
    polled_lease: Duration,
}

/// A scan of the keyspace under way.
#[derive(Clone, Debug)]
struct Scan {
    cursor: Bytes,
    /// Reserved keys of a mount with a prefix are found by a second pass.
    reserved: bool,
    index: Index,
    /// What was learnt of otherwise meanwhile: replies on the way may be older than that.
    touched: BTreeSet<Vec<u8>>,
    in_flight: bool,
    /// Tells replies to its own steps from those to a scan that it took the place of.
    number: u64,
    started: Mono,
    /// Pushes were missed before it: when it is done nothing known before is believed.
    recovers: bool,
}

/// Work of the live view's own accord.
#[derive(Clone, Debug)]
pub enum Task {
    /// `SCAN` (and once `DBSIZE`).
    Scan {
        /// `DBSIZE` is asked along.
        first: bool,
        /// The scan that this is a step of.
        number: u64,
    },
    /// `TYPE` of each key; `EXISTS` and the version of each side hash.
    Refresh {
        /// Keys.
        keys: Vec<Vec<u8>>,
        /// Directory prefixes.
        sides: Vec<Vec<u8>>,
    },
    /// `HGETALL` of the renames that were interrupted.
    Renames,
    /// Nothing is learnt from the replies.
    Housekeeping,
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
    fn drop_everything(&mut self, cx: &mut Cx<Redis>) {
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

    // ---- tasks

    pub(super) fn next_task(&mut self, cx: &mut Cx<Redis>) -> Option<Work<Self>> {
        self.live.now = cx.now.mono;
        if !self.live.attached {
            return None;
        }
        if self.live.hold.is_some_and(|at| at <= cx.now.mono) {
            self.live.hold = None;
        }
        if self.live.next_scan.is_some_and(|at| at <= cx.now.mono) {
            self.live.next_scan = None;
            self.start_scan(cx);
        }
        let commands_and_task = self
            .scan_step()
            .or_else(|| self.refresh_step())
            .or_else(|| self.renames_step())
            .or_else(|| self.housekeeping_step(cx));
        let (commands, task) = commands_and_task?;
        Some(Self::work(Lane::Meta, commands, Ticket::Task(task)))
    }

    pub(super) fn start_scan(&mut self, cx: &mut Cx<Redis>) {
        let recovers = self.live.link == Some(true) && self.live.ready;
        let index = Index::new(self.options.naming.delimiter(), &self.options.prefix);
        self.live.scans += 1;
        self.live.scan = Some(Scan {
            cursor: Bytes::from_static(b"0"),
            reserved: false,
            index,
            touched: BTreeSet::new(),
            in_flight: false,
            number: self.live.scans,
            started: cx.now.mono,
            recovers,
        });
        self.live.next_scan = None;
    }

    fn scan_step(&mut self) -> Option<(Vec<Command>, Task)> {
        let prefix = &self.options.prefix;
        let scan = self.live.scan.as_mut().filter(|scan| !scan.in_flight)?;
        scan.in_flight = true;
        let first = self.live.total.is_none();
        let mut command = alloc::vec![
            Bytes::from_static(b"SCAN"),
            scan.cursor.clone(),
            Bytes::from_static(b"COUNT"),
            Bytes::from_static(SCAN_COUNT.as_bytes()),
        ];
        if !prefix.is_empty() {
            let only = if scan.reserved { RESERVED } else { prefix };
            command.push(Bytes::from_static(b"MATCH"));
            command.push(Bytes::from(starts_with_pattern(only)));
        }
        let mut commands = alloc::vec![Command::plain(command)];
        if first {
            commands.push(Command::plain(["DBSIZE"]));
        }
        Some((commands, Task::Scan { first, number: scan.number }))
    }

    fn refresh_step(&mut self) -> Option<(Vec<Command>, Task)> {
        if self.live.hold.is_some()
            || self.live.refreshing
            || (self.live.keys.is_empty() && self.live.sides.is_empty())
        {
            return None;
        }
        self.live.refreshing = true;
        let mut keys = Vec::new();
        while keys.len() < REFRESH_KEYS
            && let Some(key) = self.live.keys.pop_first()
        {
            keys.push(key);
        }
        let mut sides = Vec::new();
        while sides.len() < REFRESH_KEYS
            && let Some(side) = self.live.sides.pop_first()
        {
            sides.push(side);
        }
        let mut commands = Vec::new();
        for key in &keys {
            let key = Bytes::copy_from_slice(key);
            commands.push(Command::Plain(smallvec![Bytes::from_static(b"TYPE"), key]));
        }
        for prefix in &sides {
            let side = side_key(prefix);
            let version = Bytes::from_static(b"/v");
            commands.push(Command::Plain(smallvec![Bytes::from_static(b"EXISTS"), side.clone()]));
            commands.push(Command::Plain(smallvec![Bytes::from_static(b"HGET"), side, version]));
        }
        Some((commands, Task::Refresh { keys, sides }))
    }

    fn renames_step(&mut self) -> Option<(Vec<Command>, Task)> {
        if !self.live.ready || self.live.renames_checked || self.options.read_only {
            return None;
        }
        self.live.renames_checked = true;
        let command = Command::Plain(smallvec![Bytes::from_static(b"HGETALL"), renames_key()]);
        Some((alloc::vec![command], Task::Renames))
    }

    fn housekeeping_step(&mut self, cx: &Cx<Redis>) -> Option<(Vec<Command>, Task)> {
        let gone = core::mem::take(&mut self.live.dropped_orphans);
        if !gone.is_empty() {
            let command = core::iter::once(Bytes::from_static(b"DEL")).chain(gone);
            return Some((alloc::vec![Command::plain(command)], Task::Housekeeping));
        }
        if self.live.next_heartbeat.is_none_or(|at| at > cx.now.mono) {
            return None;
        }
        self.live.next_heartbeat = None;
        if self.live.orphans.is_empty() {
            return None;
        }
        self.live.next_heartbeat = Some(cx.now.mono.after(ORPHAN_LEASE / 3));
        let lease = Bytes::from(format!("{}", ORPHAN_LEASE.as_millis()));
        let renew = |key: &Bytes| {
            Command::Plain(smallvec![Bytes::from_static(b"PEXPIRE"), key.clone(), lease.clone()])
        };
        Some((self.live.orphans.iter().map(renew).collect(), Task::Housekeeping))
    }

    pub(super) fn task_done(
        &mut self,
        task: Task,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        match task {
            Task::Scan { first, number } => self.scanned(first, number, replies, cx),
            Task::Refresh { keys, sides } => {
                self.live.refreshing = false;
                let (types, rest) = replies.split_at_checked(keys.len()).unwrap_or_default();
                for (key, reply) in keys.iter().zip(types) {
                    // An error (a cluster's MOVED, a right taken away) says nothing about it.
                    if let Some(kind) = reply.as_bytes() {
                        self.key_seen(key, kind != b"none", cx);
                    }
                }
                for (prefix, pair) in sides.iter().zip(rest.chunks_exact(2)) {
                    let there = pair[0].as_int() == Some(1);
                    let version = if there { pair[1].as_int().unwrap_or(-1) } else { 0 };
                    self.side_seen(prefix, there, version, cx);
                }
                Step::Done(Outcome::Done)
            }
            Task::Renames => self.finish_renames(replies, cx),
            Task::Housekeeping => Step::Done(Outcome::Done),
        }
    }

    fn scanned(
        &mut self,
        first: bool,
        number: u64,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if first {
            self.live.total = replies.get(1).and_then(Reply::as_int).map(|n| n.max(0) as u64);
        }
        let delimiter = self.options.naming.delimiter();
        // A step of a scan that was begun anew meanwhile says nothing about this one.
        let Some(scan) = self.live.scan.as_mut().filter(|scan| scan.number == number) else {
            return Step::Done(Outcome::Done);
        };
        scan.in_flight = false;
        if let Some(line) = replies.first().and_then(Reply::as_error) {
            let failure = self.refused(line, "building the index");
            self.live.scan = None;
            self.live.next_scan = Some(cx.now.mono.after(RESCAN_EVERY));
            return Step::Fail(failure);
        }
        let Some([cursor, keys]) = replies.first().and_then(Reply::as_array) else {
            return Step::Fail(self.odd("SCAN", replies.first()));
        };
        let cursor = Bytes::copy_from_slice(cursor.as_bytes().unwrap_or(b"0"));
        for key in keys.as_array().unwrap_or_default().iter().filter_map(Reply::as_bytes) {
            if scan.touched.contains(key) {
                continue;
            }
            match key.strip_prefix(RESERVED) {
                None if key.starts_with(&self.options.prefix) => {
                    scan.index.insert_key(key);
                }
                None => {}
                Some(own) => {
                    if let Some(dir) = own.strip_prefix(b"a:") {
                        let below = dir.starts_with(&self.options.prefix);
                        if below && (dir.is_empty() || dir.last() == Some(&delimiter)) {
                            scan.index.insert_side(dir);
                        }
                    } else if own.starts_with(b"x:") {
                        scan.index.set_xattrs(key, true);
                    }
                }
            }
        }
        let through = cursor == b"0"[..];
        scan.cursor = cursor;
        if !through {
            return Step::Done(Outcome::Done);
        }
        if !self.options.prefix.is_empty() && !scan.reserved {
            scan.reserved = true;
            return Step::Done(Outcome::Done);
        }
        self.scan_through(cx);
        Step::Done(Outcome::Done)
    }

    fn scan_through(&mut self, cx: &mut Cx<Redis>) {
        let Some(scan) = self.live.scan.take() else { return };
        let took = cx.now.mono.since(scan.started);
        self.index = scan.index;
        // A reply that crossed a `FLUSHDB` tells of what was there before.
        let sides = [RESERVED, b"a:"].concat();
        for key in &scan.touched {
            match key.strip_prefix(&sides[..]) {
                Some(prefix) => self.live.refresh_side(prefix),
                None => self.live.refresh_key(key),
            }
        }
        if !self.live.ready {
            self.live.ready = true;
            cx.wake();
            let secs = took.as_secs_f64();
            let text = format!("the index is complete: {} keys in {secs:.2} s", self.index.len());
            cx.notice(Level::Info, text);
        } else if scan.recovers {
            self.drop_everything(cx);
            self.drop_vanished_dirs(cx);
        } else {
            cx.forget_all();
        }
        if self.live.link != Some(true) {
            let pause = RESCAN_EVERY.max(took * RESCAN_SHARE);
            self.live.next_scan = Some(cx.now.mono.after(pause));
        }
    }

    /// Directories that were known and are not in a new index.
    fn drop_vanished_dirs(&mut self, cx: &mut Cx<Redis>) {
        for ino in self.tree.inos() {
            let Some(node) = self.tree.get(ino) else { continue };
            if node.what != What::Dir || node.detached || ino == Ino::ROOT {
                continue;
            }
            let (parent, name) = (node.parent, node.name.clone());
            if self.dir_prefix(ino).is_none_or(|prefix| !self.index.is_dir(&prefix)) {
                self.tree.detach(parent, &name);
                cx.invalidate_entry(parent, name);
            }
        }
    }

    // ---- what a second look shows

    fn key_seen(&mut self, key: &[u8], there: bool, cx: &mut Cx<Redis>) {
        if self.index_key(key, there) {
            self.path_changed(key, cx);
        }
    }

    fn side_seen(&mut self, prefix: &[u8], there: bool, version: i64, cx: &mut Cx<Redis>) {
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

    /// A side hash was changed by us and has this version now (0: it is gone).
    pub(super) fn side_written(&mut self, prefix: &[u8], version: i64, cx: &mut Cx<Redis>) {
        self.index_side(prefix, version > 0);
        let known = self.live.versions.get(prefix).copied().unwrap_or(0);
        if version == known + 1 || version == 0 {
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

/// A pattern for keys that start with these bytes.
fn starts_with_pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for &byte in prefix {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern.push(b'*');
    pattern
}
