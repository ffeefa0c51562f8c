//! Names: what entries lead to, whether all directories hang together, and lost+found for what
//! has no name.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::Command;
use crate::id::Ino;
use crate::op::{Kind, Name};
use crate::volume::FILE_LIMIT;
use crate::volume::key::{DataId, Key};
use crate::volume::record::{Member, member};

use super::judge::Judge;
use super::survey::Entry;

/// Where what has no name gets one.
const LOST: &str = "lost+found";

impl Judge<'_> {
    pub(super) fn names(&mut self) {
        self.root();
        self.holders();
        self.entries();
        self.tree();
        self.parents();
        self.nameless();
    }

    fn root(&mut self) {
        let root = Ino::ROOT;
        if self.survey.unreadable.contains(&root) {
            return;
        }
        let kind = self.survey.inodes.get(&root).map(|node| node.inode.attr.kind);
        if kind != Some(Kind::Dir) {
            let what = if kind.is_none() { "there is no root" } else { "the root is no directory" };
            let fix = self.make(root, Kind::Dir, 0, DataId(root.0));
            self.find(Some(root), Key::Inode(root), what, Some(Vec::from([fix])));
        }
    }

    /// Names are in directories.
    fn holders(&mut self) {
        let holders: Vec<(Ino, bool)> =
            self.survey.dirs.iter().map(|(ino, entries)| (*ino, entries.is_empty())).collect();
        for (ino, empty) in holders {
            let kind = self.survey.inodes.get(&ino).map(|node| node.inode.attr.kind);
            if kind == Some(Kind::Dir) || self.survey.unreadable.contains(&ino) {
                continue;
            }
            if kind.is_none() && !empty {
                let fix = self.make(ino, Kind::Dir, 0, DataId(ino.0));
                let what = format!("directory {} has lost its inode, made anew", ino.0);
                self.find(Some(ino), Key::Dir(ino), what, Some(Vec::from([fix])));
                continue;
            }
            // Whatever it named gets another name below.
            self.survey.dirs.remove(&ino);
            let fix = Command::plain([Bytes::from_static(b"DEL"), self.keys.key(Key::Dir(ino))]);
            let what = format!("names in inode {}, which is no directory", ino.0);
            self.find(Some(ino), Key::Dir(ino), what, Some(Vec::from([fix])));
        }
    }

    /// Each entry leads to an inode of its kind, and has its name for itself.
    fn entries(&mut self) {
        let dirs: Vec<Ino> = self.survey.dirs.keys().copied().collect();
        for dir in dirs {
            let entries = self.survey.dirs.get_mut(&dir).map(core::mem::take).unwrap_or_default();
            let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
            let mut taken: BTreeSet<Name> = BTreeSet::new();
            for entry in entries {
                if let Some(entry) = self.entry(dir, entry, &mut taken) {
                    kept.push(entry);
                }
            }
            for member in kept.iter().filter_map(|entry| entry.member.as_ref()) {
                self.names.entry(member.ino).or_default().push((dir, member.name.clone()));
            }
            self.survey.dirs.insert(dir, kept);
        }
    }

    fn entry(&mut self, dir: Ino, entry: Entry, taken: &mut BTreeSet<Name>) -> Option<Entry> {
        let remove = self.command("ZREM", Key::Dir(dir), [entry.raw.clone()]);
        let Some(mut member) = entry.member.clone() else {
            let what = format!("bad entry \"{}\", removed", entry.raw.escape_ascii());
            self.find(Some(dir), Key::Dir(dir), what, Some(Vec::from([remove])));
            return None;
        };
        let Member { name, ino, .. } = member.clone();
        if self.survey.unreadable.contains(&ino) {
            taken.insert(name);
            return Some(entry);
        }
        let mut fix = Vec::new();
        let mut what: Vec<alloc::string::String> = Vec::new();
        if ino == Ino::ROOT {
            let what = format!("entry {name} leads to the root, removed");
            self.find(Some(dir), Key::Dir(dir), what, Some(Vec::from([remove])));
            return None;
        }
        let found = self.survey.inodes.get(&ino).map(|node| node.inode.attr.kind);
        let kind = match found {
            Some(kind) => kind,
            None => {
                // The contents say what was there, if there are any.
                let contents = self.survey.blocks.get(&DataId(ino.0)).map(|extent| extent.end);
                let lost = contents.filter(|_| {
                    member.kind == Kind::File && !self.survey.queue.contains_key(&DataId(ino.0))
                });
                let Some(end) = lost else {
                    let what = format!("entry {name} leads to inode {}, which is not there", ino.0);
                    self.find(Some(dir), Key::Dir(dir), what, Some(Vec::from([remove])));
                    return None;
                };
                fix.push(self.make(ino, Kind::File, end.min(FILE_LIMIT), DataId(ino.0)));
                what.push(format!("{name} has lost its inode {}, made anew", ino.0));
                Kind::File
            }
        };
        if kind != member.kind {
            what.push(format!("entry {name} has another kind than inode {}", ino.0));
            member.kind = kind;
        }
        if !taken.insert(name.clone()) {
            member.name = free_name(&name, ino, taken);
            taken.insert(member.name.clone());
            what.push(format!("there are two entries {name}, one renamed {}", member.name));
        }
        if entry.misplaced {
            what.push(format!("entry {name} is not in order"));
        }
        if what.is_empty() {
            return Some(entry);
        }
        let raw = member.to_bytes();
        if raw != entry.raw {
            fix.push(remove);
        }
        if raw != entry.raw || entry.misplaced {
            fix.push(self.command("ZADD", Key::Dir(dir), [Bytes::from_static(b"0"), raw.clone()]));
        }
        self.find(Some(dir), Key::Dir(dir), what.join("; "), Some(fix));
        Some(Entry { raw, member: Some(member), misplaced: false })
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.survey.inodes.get(&ino).is_some_and(|node| node.inode.attr.kind == Kind::Dir)
    }

    /// Directories, with those that name them: one each, and from the root to all of them.
    fn tree(&mut self) {
        let several: Vec<Ino> = self
            .names
            .iter()
            .filter(|(ino, names)| names.len() > 1 && self.is_dir(**ino))
            .map(|(ino, _)| *ino)
            .collect();
        for ino in several {
            let parent = self.survey.inodes.get(&ino).and_then(|node| node.inode.parent);
            let names = self.names.get(&ino).cloned().unwrap_or_default();
            let keep = names.iter().position(|(dir, _)| Some(*dir) == parent).unwrap_or(0);
            for (_, (dir, name)) in names.into_iter().enumerate().filter(|(at, _)| *at != keep) {
                let what = format!("directory {} has another name, removed", ino.0);
                self.cut(ino, dir, &name, what);
            }
        }
        // Whatever is not reached hangs on directories without a name, or on rings.
        loop {
            let reached = self.reached();
            let lost: Vec<Ino> = self
                .survey
                .inodes
                .keys()
                .filter(|ino| self.is_dir(**ino) && !reached.contains(ino))
                .filter(|ino| !self.is_buried(**ino))
                .copied()
                .collect();
            let Some(&first) = lost.first() else { return };
            let nameless = |ino: &Ino| self.names.get(ino).is_none_or(Vec::is_empty);
            let mut tops: Vec<Ino> = lost.iter().copied().filter(nameless).collect();
            if tops.is_empty() {
                if let Some((dir, name)) = self.names.get(&first).and_then(|it| it.first()).cloned()
                {
                    let what = format!("directory {} is below itself, cut out", first.0);
                    self.cut(first, dir, &name, what);
                }
                tops.push(first);
            }
            for ino in tops {
                let fix = self.adopt(ino);
                let what = format!("directory {} has no name, put into {LOST}", ino.0);
                self.find(Some(ino), Key::Inode(ino), what, Some(fix));
            }
        }
    }

    /// A directory that was removed and is empty, and waits for who has it open.
    fn is_buried(&self, ino: Ino) -> bool {
        let nlink = self.survey.inodes.get(&ino).map(|node| node.inode.attr.nlink);
        let empty = self.survey.dirs.get(&ino).is_none_or(Vec::is_empty);
        nlink == Some(0) && empty && self.names.get(&ino).is_none_or(Vec::is_empty)
    }

    fn reached(&self) -> BTreeSet<Ino> {
        let mut reached = BTreeSet::from([Ino::ROOT]);
        let mut todo = Vec::from([Ino::ROOT]);
        while let Some(dir) = todo.pop() {
            let entries = self.survey.dirs.get(&dir).into_iter().flatten();
            for member in entries.filter_map(|entry| entry.member.as_ref()) {
                if self.is_dir(member.ino) && reached.insert(member.ino) {
                    todo.push(member.ino);
                }
            }
        }
        reached
    }

    fn cut(&mut self, ino: Ino, dir: Ino, name: &Name, what: alloc::string::String) {
        let raw = member(name, Kind::Dir, ino);
        if let Some(entries) = self.survey.dirs.get_mut(&dir) {
            entries.retain(|entry| entry.raw != raw);
        }
        if let Some(names) = self.names.get_mut(&ino) {
            names.retain(|at| *at != (dir, name.clone()));
        }
        let fix = self.command("ZREM", Key::Dir(dir), [raw]);
        self.find(Some(dir), Key::Dir(dir), what, Some(Vec::from([fix])));
    }

    /// Each directory knows the one it is in; the root is its own.
    fn parents(&mut self) {
        let dirs: Vec<(Ino, Option<Ino>)> = self
            .survey
            .inodes
            .iter()
            .filter(|(_, node)| node.inode.attr.kind == Kind::Dir)
            .map(|(ino, node)| (*ino, node.inode.parent))
            .collect();
        for (ino, parent) in dirs {
            let named = self.names.get(&ino).and_then(|names| names.first()).map(|(dir, _)| *dir);
            let right = if ino == Ino::ROOT { Some(ino) } else { named };
            if let Some(right) = right.filter(|right| Some(*right) != parent) {
                let what = format!("directory {} does not know that it is in {}", ino.0, right.0);
                let fix = self.set(ino, Vec::from([("parent", Self::decimal(right.0))]));
                if let Some(node) = self.survey.inodes.get_mut(&ino) {
                    node.inode.parent = Some(right);
                }
                self.find(Some(ino), Key::Inode(ino), what, Some(Vec::from([fix])));
            }
        }
    }

    /// What counts names and has none.
    fn nameless(&mut self) {
        let lost: Vec<Ino> = self
            .survey
            .inodes
            .iter()
            .filter(|(ino, node)| {
                let attr = node.inode.attr;
                attr.kind != Kind::Dir
                    && attr.nlink > 0
                    && self.names.get(ino).is_none_or(Vec::is_empty)
            })
            .map(|(ino, _)| *ino)
            .collect();
        for ino in lost {
            let fix = self.adopt(ino);
            let what = format!("inode {} has no name, put into {LOST}", ino.0);
            self.find(Some(ino), Key::Inode(ino), what, Some(fix));
        }
    }

    /// Gives an inode a name in lost+found, which is made when there is none.
    pub(super) fn adopt(&mut self, ino: Ino) -> Vec<Command> {
        let mut fix = Vec::new();
        let lost = self.lost_and_found(&mut fix);
        let kind = self.survey.inodes.get(&ino).map_or(Kind::File, |node| node.inode.attr.kind);
        let wanted = Name::from(format!("#{}", ino.0).as_str());
        let taken = &mut self.lost_names;
        let name = if taken.contains(&wanted) { free_name(&wanted, ino, taken) } else { wanted };
        taken.insert(name.clone());
        fix.push(self.enter(lost, &name, kind, ino));
        if kind == Kind::Dir {
            fix.push(self.set(ino, Vec::from([("parent", Self::decimal(lost.0))])));
            if let Some(node) = self.survey.inodes.get_mut(&ino) {
                node.inode.parent = Some(lost);
            }
        }
        fix
    }

    fn enter(&mut self, dir: Ino, name: &Name, kind: Kind, ino: Ino) -> Command {
        let raw = member(name, kind, ino);
        let entry = Entry {
            raw: raw.clone(),
            member: Some(Member { name: name.clone(), kind, ino }),
            misplaced: false,
        };
        self.survey.dirs.entry(dir).or_default().push(entry);
        self.names.entry(ino).or_default().push((dir, name.clone()));
        self.command("ZADD", Key::Dir(dir), [Bytes::from_static(b"0"), raw])
    }

    /// The directory; the first time it is looked for, and the names in it are learnt.
    fn lost_and_found(&mut self, fix: &mut Vec<Command>) -> Ino {
        if let Some(lost) = self.lost {
            return lost;
        }
        let names = |judge: &Self, dir: Ino| -> BTreeMap<Name, Ino> {
            let entries = judge.survey.dirs.get(&dir).into_iter().flatten();
            let members = entries.filter_map(|entry| entry.member.as_ref());
            members.map(|member| (member.name.clone(), member.ino)).collect()
        };
        let in_root = names(self, Ino::ROOT);
        let wanted = Name::from(LOST);
        let there = in_root.get(&wanted).copied().filter(|ino| self.is_dir(*ino));
        let lost = there.unwrap_or_else(|| {
            let ino = Ino(self.fresh());
            let taken: BTreeSet<Name> = in_root.into_keys().collect();
            let name =
                if taken.contains(&wanted) { free_name(&wanted, ino, &taken) } else { wanted };
            fix.push(self.make(ino, Kind::Dir, 0, DataId(ino.0)));
            fix.push(self.enter(Ino::ROOT, &name, Kind::Dir, ino));
            ino
        });
        self.lost = Some(lost);
        self.lost_names = names(self, lost).into_keys().collect();
        lost
    }
}

/// A name like one that is taken.
fn free_name(name: &Name, ino: Ino, taken: &BTreeSet<Name>) -> Name {
    let kept = &name.as_bytes()[..name.as_bytes().len().min(200)];
    (0u64..)
        .map(|n| {
            let tail = if n == 0 { format!("#{}", ino.0) } else { format!("#{}.{n}", ino.0) };
            Name::from([kept, tail.as_bytes()].concat())
        })
        .find(|name| !taken.contains(name))
        .unwrap_or_else(|| name.clone())
}
