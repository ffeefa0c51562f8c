//! Work of the layout's own accord: building the index by SCAN, looking again at what pushes
//! name, finishing renames, keeping what open handles need.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Command, Redis, Reply};
use crate::contract::Level;
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Outcome, Step, Work};
use crate::time::{Duration, Mono};

use super::index::Index;
use super::place::{renames_key, side_key};
use super::tree::What;
use super::{Keys, ORPHAN_LEASE, RESERVED, Ticket};

/// Keys a SCAN step looks at: 0.4 ms of the server's time.
const SCAN_COUNT: &str = "1000";
/// Keys that are looked at anew in one batch.
const REFRESH_KEYS: usize = 512;
/// How often a server without pushes is scanned, at the most.
const RESCAN_EVERY: Duration = Duration::from_secs(2);
/// A scan takes at most this share of the time between scans.
const RESCAN_SHARE: u32 = 4;
/// A scan of the keyspace under way.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) cursor: Bytes,
    /// Reserved keys of a mount with a prefix are found by a second pass.
    pub(super) reserved: bool,
    pub(super) index: Index,
    /// What was learnt of otherwise meanwhile: replies on the way may be older than that.
    pub(super) touched: BTreeSet<Vec<u8>>,
    pub(super) in_flight: bool,
    /// Tells replies to its own steps from those to a scan that it took the place of.
    pub(super) number: u64,
    pub(super) started: Mono,
    /// Pushes were missed before it: when it is done nothing known before is believed.
    pub(super) recovers: bool,
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

impl Keys {
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
