//! What does not fit together. Rules run in this order, each over what those before it have mended:
//! records, names and the tree (`names.rs`), contents, link counts, what belongs to inodes and
//! mounts, counters.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::Command;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;
use crate::volume::FILE_LIMIT;
use crate::volume::key::{DataId, Key, Keyspace, MountId};
use crate::volume::record::{Inode, Stamp, kind_letter};

use super::gather::USAGE;
use super::survey::{Node, Survey};
use super::{Finding, Report};

/// Directories above one that a path in a message has at most.
const DEEPEST: usize = 256;

/// Judges a survey.
pub(super) fn judge(keys: &Keyspace, survey: Survey, now: Wall) -> Report {
    let numbers = survey.inodes.keys().map(|ino| ino.0);
    let data = survey.inodes.values().map(|node| node.inode.data.0);
    let blocks = survey.blocks.keys().chain(survey.queue.keys()).map(|data| data.0);
    let used = numbers.chain(data).chain(blocks).filter(|n| *n < NUMBERS).max().unwrap_or(1);
    let given = survey.usage[2].filter(|n| *n < NUMBERS).unwrap_or(0);
    let mut judge = Judge {
        keys,
        now,
        last_number: used.max(given),
        survey,
        findings: Vec::new(),
        names: BTreeMap::new(),
        lost: None,
        lost_names: BTreeSet::new(),
        stamps: 0,
    };
    judge.foreign();
    judge.records();
    judge.names();
    judge.contents();
    judge.links();
    judge.belongings();
    judge.counters();
    judge.report()
}

/// No number is given out from here on: one that is this large was never counted up to, and the
/// server's integers have an end.
const NUMBERS: u64 = 1 << 53;

pub(super) struct Judge<'a> {
    pub(super) keys: &'a Keyspace,
    pub(super) survey: Survey,
    pub(super) now: Wall,
    /// The names of each inode: directory and name.
    pub(super) names: BTreeMap<Ino, Vec<(Ino, Name)>>,
    /// Lost+found, once it was needed, and the names in it.
    pub(super) lost: Option<Ino>,
    pub(super) lost_names: BTreeSet<Name>,
    findings: Vec<(Option<Ino>, Finding)>,
    last_number: u64,
    stamps: u64,
}

impl Judge<'_> {
    // ---- saying and mending

    /// Something is wrong about an inode or a key.
    pub(super) fn find(
        &mut self,
        at: Option<Ino>,
        key: Key,
        what: impl Into<String>,
        fix: Option<Vec<Command>>,
    ) {
        let finding = Finding { what: what.into(), key: self.keys.key(key), path: None, fix };
        self.findings.push((at, finding));
    }

    /// A command on a key of the volume.
    pub(super) fn command<A: Into<Bytes>>(
        &self,
        word: &'static str,
        key: Key,
        args: impl IntoIterator<Item = A>,
    ) -> Command {
        let head = [Bytes::from_static(word.as_bytes()), self.keys.key(key)];
        Command::plain(head.into_iter().chain(args.into_iter().map(Into::into)))
    }

    /// Fields of an inode, and a stamp that no mount has made, so that whoever has it cached
    /// sees that it has changed.
    pub(super) fn set(&mut self, ino: Ino, pairs: Vec<(&'static str, Bytes)>) -> Command {
        self.stamps += 1;
        let serial = self.now.0.unsigned_abs().saturating_add(self.stamps);
        let stamp = Stamp { mount: MountId(0), serial }.to_bytes();
        let words = pairs.into_iter().chain([("change", stamp)]);
        let words = words.flat_map(|(name, value)| [Bytes::from_static(name.as_bytes()), value]);
        self.command("HSET", Key::Inode(ino), words.collect::<Vec<Bytes>>())
    }

    pub(super) fn decimal(n: u64) -> Bytes {
        Bytes::from(format!("{n}"))
    }

    /// A number that nothing has.
    pub(super) fn fresh(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// A record for an inode that has none, for its owner to look at: root's, and nobody else's.
    pub(super) fn make(&mut self, ino: Ino, kind: Kind, size: u64, data: DataId) -> Command {
        let perm = if kind == Kind::Dir { 0o700 } else { 0o600 };
        let attr = Attr {
            ino,
            kind,
            perm,
            nlink: if kind == Kind::Dir { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
        };
        let parent = (kind == Kind::Dir).then_some(Ino::ROOT);
        let mut inode = Inode::new(attr, parent, Stamp::default());
        inode.data = data;
        self.survey.inodes.insert(ino, Node { inode, bad: Vec::new(), target: None });
        let pairs = inode.pairs().into_iter().filter(|(name, _)| *name != "change").collect();
        self.set(ino, pairs)
    }

    // ---- records

    fn foreign(&mut self) {
        for (key, what) in core::mem::take(&mut self.survey.foreign) {
            let finding = Finding { what, key, path: None, fix: None };
            self.findings.push((None, finding));
        }
        for (key, member) in core::mem::take(&mut self.survey.litter) {
            let word = match key {
                Key::Queue => "HDEL",
                _ => "ZREM",
            };
            let what = format!("\"{}\" means nothing here", member.escape_ascii());
            let fix = self.command(word, key, [member]);
            self.find(None, key, what, Some(Vec::from([fix])));
        }
    }

    /// Fields that are missing or cannot be are made up so that nothing is lost.
    fn records(&mut self) {
        let damaged: Vec<Ino> = self
            .survey
            .inodes
            .iter()
            .filter(|(_, node)| !node.bad.is_empty())
            .map(|(ino, _)| *ino)
            .collect();
        let mut named: BTreeMap<Ino, Kind> = BTreeMap::new();
        for entry in self.survey.dirs.values().flatten().filter(|_| !damaged.is_empty()) {
            if let Some(member) = &entry.member {
                named.insert(member.ino, member.kind);
            }
        }
        for ino in damaged {
            self.record(ino, named.get(&ino).copied());
        }
        let symlinks: Vec<(Ino, Option<u64>, u64)> = self
            .survey
            .inodes
            .iter()
            .filter(|(_, node)| node.inode.attr.kind == Kind::Symlink)
            .map(|(ino, node)| (*ino, node.target, node.inode.attr.size))
            .filter(|(_, target, size)| *target != Some(*size))
            .collect();
        for (ino, target, _) in symlinks {
            let (what, kind, size) = match target {
                Some(len) => ("symlink whose size is not its target's length", Kind::Symlink, len),
                None => ("symlink without a target, made an empty file", Kind::File, 0),
            };
            let pairs = Vec::from([
                ("kind", Bytes::from_static(kind_letter(kind))),
                ("size", Self::decimal(size)),
            ]);
            let fix = self.set(ino, pairs);
            if let Some(node) = self.survey.inodes.get_mut(&ino) {
                (node.inode.attr.kind, node.inode.attr.size) = (kind, size);
            }
            self.find(Some(ino), Key::Inode(ino), what, Some(Vec::from([fix])));
        }
    }

    fn record(&mut self, ino: Ino, named: Option<Kind>) {
        let Some(node) = self.survey.inodes.get_mut(&ino) else { return };
        let bad = core::mem::take(&mut node.bad);
        let (target, now) = (node.target, self.now);
        let attr = &mut node.inode.attr;
        if bad.contains(&"kind") {
            attr.kind = match named {
                _ if self.survey.dirs.contains_key(&ino) => Kind::Dir,
                _ if target.is_some() => Kind::Symlink,
                Some(kind) => kind,
                None => Kind::File,
            };
        }
        if bad.contains(&"mode") {
            attr.perm = if attr.kind == Kind::Dir { 0o700 } else { 0o600 };
        }
        if bad.contains(&"data") {
            node.inode.data = DataId(ino.0);
        }
        let end = self.survey.blocks.get(&node.inode.data).map_or(0, |extent| extent.end);
        if bad.contains(&"size") {
            attr.size = match attr.kind {
                Kind::File => end.min(FILE_LIMIT),
                Kind::Symlink => target.unwrap_or(0),
                _ => 0,
            };
        }
        if bad.contains(&"stale") {
            node.inode.stale = if end > attr.size { end } else { 0 };
        }
        for (name, time) in
            [("atime", &mut attr.atime), ("mtime", &mut attr.mtime), ("ctime", &mut attr.ctime)]
        {
            if bad.contains(&name) {
                *time = now;
            }
        }
        // The others are numbers that 0 stands in for; how many names it has is counted later.
        let inode = node.inode;
        let pairs: Vec<(&'static str, Bytes)> = inode.pairs();
        let mut gone: Vec<Bytes> = Vec::new();
        let mut set = Vec::new();
        for name in &bad {
            match pairs.iter().find(|(field, _)| field == name) {
                Some((field, value)) => set.push((*field, value.clone())),
                None => gone.push(Bytes::from_static(name.as_bytes())),
            }
        }
        let mut fix = Vec::from([self.set(ino, set)]);
        if !gone.is_empty() {
            fix.push(self.command("HDEL", Key::Inode(ino), gone));
        }
        let what = format!("inode {}: bad {}", ino.0, bad.join(", "));
        self.find(Some(ino), Key::Inode(ino), what, Some(fix));
    }

    // ---- link counts

    /// Each inode counts its names; a directory two, and one for each directory in it.
    fn links(&mut self) {
        let mut subdirs: BTreeMap<Ino, u32> = BTreeMap::new();
        for (ino, names) in &self.names {
            let is_dir = |node: &Node| node.inode.attr.kind == Kind::Dir;
            if self.survey.inodes.get(ino).is_some_and(is_dir) {
                for (dir, _) in names {
                    let count = subdirs.entry(*dir).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        let inos: Vec<Ino> = self.survey.inodes.keys().copied().collect();
        for ino in inos {
            let Some(node) = self.survey.inodes.get(&ino) else { continue };
            let attr = node.inode.attr;
            let names = self.names.get(&ino).map_or(0, Vec::len);
            let right = match attr.kind {
                _ if names == 0 && ino != Ino::ROOT => 0,
                Kind::Dir => subdirs.get(&ino).map_or(2, |n| n.saturating_add(2)),
                _ => u32::try_from(names).unwrap_or(u32::MAX),
            };
            if attr.nlink != right {
                let what = format!("inode {} counts {} links and has {right}", ino.0, attr.nlink);
                let fix = self.set(ino, Vec::from([("nlink", Self::decimal(u64::from(right)))]));
                self.find(Some(ino), Key::Inode(ino), what, Some(Vec::from([fix])));
            }
            let grave = self.survey.graves.contains(&ino);
            if right == 0 && !grave {
                let what = format!("inode {} has no name and nothing will remove it", ino.0);
                let fix = self.command(
                    "ZADD",
                    Key::Graves,
                    [Bytes::from_static(b"-1"), Self::decimal(ino.0)],
                );
                self.find(Some(ino), Key::Graves, what, Some(Vec::from([fix])));
            }
            if right > 0 && grave {
                self.no_grave(ino, "has names and is to be removed");
            }
        }
        let empty: Vec<Ino> = self
            .survey
            .graves
            .iter()
            .filter(|ino| !self.survey.inodes.contains_key(ino))
            .copied()
            .collect();
        for ino in empty {
            self.no_grave(ino, "is to be removed and is not there");
        }
    }

    fn no_grave(&mut self, ino: Ino, what: &str) {
        let fix = self.command("ZREM", Key::Graves, [Self::decimal(ino.0)]);
        let what = format!("inode {} {what}", ino.0);
        self.find(Some(ino), Key::Graves, what, Some(Vec::from([fix])));
    }

    // ---- contents

    fn contents(&mut self) {
        let mut owners: BTreeMap<DataId, Ino> = BTreeMap::new();
        let files: Vec<Inode> = self
            .survey
            .inodes
            .values()
            .map(|node| node.inode)
            .filter(|inode| inode.attr.kind == Kind::File)
            .collect();
        for inode in &files {
            if let Some(other) = owners.insert(inode.data, inode.attr.ino) {
                let what = format!(
                    "inodes {} and {} have the same contents, number {}",
                    other.0, inode.attr.ino.0, inode.data.0
                );
                self.find(Some(other), Key::Inode(inode.attr.ino), what, None);
            }
            self.file(inode);
        }
        let queued: Vec<(DataId, Option<u64>)> =
            self.survey.queue.iter().map(|(data, length)| (*data, *length)).collect();
        for (data, length) in queued {
            if let Some(owner) = owners.get(&data) {
                let what = format!(
                    "contents {} are to be removed and are those of inode {}",
                    data.0, owner.0
                );
                let fix = self.command("HDEL", Key::Queue, [Self::decimal(data.0)]);
                self.find(Some(*owner), Key::Queue, what, Some(Vec::from([fix])));
            } else {
                let end = self.survey.blocks.get(&data).map_or(0, |extent| extent.end);
                if length.is_none_or(|length| length < end) {
                    let what = format!("contents {} are to be removed and reach further", data.0);
                    let to = [Self::decimal(data.0), Self::decimal(end)];
                    let fix = self.command("HSET", Key::Queue, to);
                    self.find(None, Key::Queue, what, Some(Vec::from([fix])));
                }
            }
        }
        self.orphans(&owners);
    }

    fn file(&mut self, inode: &Inode) {
        let (ino, size) = (inode.attr.ino, inode.attr.size);
        let Some(extent) = self.survey.blocks.get(&inode.data).cloned() else { return };
        let reach = size.max(inode.stale);
        if extent.end > reach {
            let what = format!(
                "inode {} holds bytes up to {} beyond its end at {size}",
                ino.0, extent.end
            );
            let fix = self.set(ino, Vec::from([("stale", Self::decimal(extent.end))]));
            self.find(Some(ino), Key::Inode(ino), what, Some(Vec::from([fix])));
        }
        for (n, len) in extent.overlong {
            let block = self.survey.superblock.as_ref().map_or(0, |it| u64::from(it.block));
            let what = format!("block {n} of inode {} is {len} bytes, more than {block}", ino.0);
            self.find(Some(ino), Key::Block(inode.data, n), what, None);
        }
    }

    /// Contents that no inode has and nothing removes: their record was lost.
    fn orphans(&mut self, owners: &BTreeMap<DataId, Ino>) {
        let orphans: Vec<(DataId, u64)> = self
            .survey
            .blocks
            .iter()
            .filter(|(data, _)| !owners.contains_key(data) && !self.survey.queue.contains_key(data))
            .map(|(data, extent)| (*data, extent.end))
            .collect();
        for (data, end) in orphans {
            let ino = if self.survey.inodes.contains_key(&Ino(data.0)) || data.0 <= 1 {
                Ino(self.fresh())
            } else {
                Ino(data.0)
            };
            let mut fix = Vec::from([self.make(ino, Kind::File, end.min(FILE_LIMIT), data)]);
            fix.extend(self.adopt(ino));
            let what = format!(
                "contents {} of {end} bytes belong to no inode, put into lost+found",
                data.0
            );
            self.find(Some(ino), Key::Block(data, 0), what, Some(fix));
        }
    }

    // ---- what belongs to inodes and mounts

    fn belongings(&mut self) {
        let there = |ino: &&Ino| {
            !self.survey.inodes.contains_key(ino) && !self.survey.unreadable.contains(ino)
        };
        let xattrs: Vec<Ino> = self.survey.xattrs.iter().filter(there).copied().collect();
        let locks: Vec<Ino> = self.survey.locks.iter().filter(there).copied().collect();
        for (inos, key) in
            [(xattrs, Key::Xattrs as fn(Ino) -> Key), (locks, Key::Locks as fn(Ino) -> Key)]
        {
            for ino in inos {
                let fix = Command::plain([Bytes::from_static(b"DEL"), self.keys.key(key(ino))]);
                let what = format!("belongs to inode {}, which is not there", ino.0);
                self.find(None, key(ino), what, Some(Vec::from([fix])));
            }
        }
        let gone = |mount: &&MountId| !self.survey.sessions.leases.contains_key(mount);
        let held: Vec<MountId> = self.survey.held.iter().filter(gone).copied().collect();
        let tokens: Vec<MountId> = self.survey.tokens.iter().filter(gone).copied().collect();
        let locked: Vec<MountId> = self.survey.locked.iter().filter(gone).copied().collect();
        for (mounts, key) in [
            (held, Key::Held as fn(MountId) -> Key),
            (tokens, Key::Tokens as fn(MountId) -> Key),
            (locked, Key::Locked as fn(MountId) -> Key),
        ] {
            for mount in mounts {
                let fix = Command::plain([Bytes::from_static(b"DEL"), self.keys.key(key(mount))]);
                let what = format!("belongs to mount {}, which has ended", mount.0);
                self.find(None, key(mount), what, Some(Vec::from([fix])));
            }
        }
    }

    // ---- counters

    fn counters(&mut self) {
        let inodes = self.survey.inodes.len() as u64;
        let bytes = self.survey.inodes.values().map(|node| node.inode.attr);
        let bytes = bytes.filter(|attr| attr.kind == Kind::File);
        let bytes = bytes.fold(0u64, |sum, attr| sum.saturating_add(attr.size));
        let mounts = self.survey.sessions.leases.keys().map(|mount| mount.0);
        let mounts = mounts.filter(|n| *n < NUMBERS).max().unwrap_or(0);
        let exact = |have: Option<u64>, want| have == Some(want);
        let least = |have: Option<u64>, want| have.is_some_and(|n| n >= want && n < NUMBERS);
        let [has_inodes, has_bytes, has_ino, has_mount] = self.survey.usage;
        let rules = [
            (USAGE[0], has_inodes, inodes, exact(has_inodes, inodes)),
            (USAGE[1], has_bytes, bytes, exact(has_bytes, bytes)),
            (USAGE[2], has_ino, self.last_number, least(has_ino, self.last_number)),
            (USAGE[3], has_mount, mounts, least(has_mount, mounts)),
        ];
        for (field, has, want, right) in rules {
            if right {
                continue;
            }
            let has = has.map_or_else(|| String::from("no number"), |n| format!("{n}"));
            let what = format!("the counter {field} is {has} and should be {want}");
            let words = [Bytes::from_static(field.as_bytes()), Self::decimal(want)];
            let fix = self.command("HSET", Key::Usage, words);
            self.find(None, Key::Usage, what, Some(Vec::from([fix])));
        }
    }

    // ---- the end

    /// How a user would find an inode, through its first names.
    fn path(&self, ino: Ino) -> Option<String> {
        let mut names: Vec<&Name> = Vec::new();
        let (mut at, mut seen) = (ino, BTreeSet::new());
        while at != Ino::ROOT {
            if names.len() > DEEPEST || !seen.insert(at) {
                return None;
            }
            let (dir, name) = self.names.get(&at)?.first()?;
            names.push(name);
            at = *dir;
        }
        if names.is_empty() {
            return Some(String::from("/"));
        }
        Some(names.iter().rev().map(|name| format!("/{name}")).collect())
    }

    fn report(mut self) -> Report {
        let findings = core::mem::take(&mut self.findings);
        let findings = findings.into_iter().map(|(at, mut finding)| {
            finding.path = at.and_then(|ino| self.path(ino));
            finding
        });
        let findings = findings.collect();
        let attrs = || self.survey.inodes.values().map(|node| node.inode.attr);
        let files = attrs().filter(|attr| attr.kind == Kind::File);
        Report {
            findings,
            mounts: self.survey.sessions.alive().collect(),
            inodes: self.survey.inodes.len() as u64,
            dirs: attrs().filter(|attr| attr.kind == Kind::Dir).count() as u64,
            bytes: files.fold(0, |sum: u64, attr| sum.saturating_add(attr.size)),
            blocks: self.survey.blocks.values().map(|extent| extent.count).sum(),
        }
    }
}
