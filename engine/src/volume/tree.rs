//! What a mount knows of a volume: inodes, and the names in directories.
//!
//! A directory that this mount made, or has listed from one end to the other, is known wholly for
//! as long as its stamp shows that only this mount changes it: what is not among its names does
//! not exist, and nobody has to be asked.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::id::Ino;
use crate::layout::Epoch;
use crate::op::{Kind, Name};
use crate::time::{Mono, Wall};

use super::key::DataId;
use super::record::{Inode, Stamp};

/// The most names to remember, in all directories. What is not remembered gets short leases.
const NAMES: usize = 1 << 18;
/// The most names of a directory that are remembered not to exist.
const ABSENT: usize = 4096;
/// Inodes that nobody knew when a push named them; of more, the oldest push counts for all.
const STRAYS: usize = 4096;

/// An inode this mount knows.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// A directory it is in, and its name there.
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) nlink: u32,
    pub(super) size: u64,
    pub(super) ctime: Wall,
    pub(super) data: DataId,
    pub(super) stale: u64,
    /// Whether it may have ACLs; `None` when others have changed it since that was known.
    pub(super) acl: Option<bool>,
    /// The state of it that is known.
    pub(super) stamp: Stamp,
    /// Facts that were asked for before this are not leased.
    pub(super) tainted: Epoch,
    /// Until when a push is most likely the echo of a change of ours.
    pub(super) own_until: Mono,
    /// It has lost its last name and is open here: the server knows that it must be kept.
    pub(super) held: bool,
    /// It has lost its last name, and it was said that nothing here has it open.
    pub(super) doomed: bool,
    pub(super) dir: Option<alloc::boxed::Box<Dir>>,
}

/// The names in a directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    /// There are no others.
    pub(super) complete: bool,
    pub(super) names: BTreeMap<Name, (Kind, Ino)>,
    pub(super) absent: BTreeSet<Name>,
    /// A listing that began at one end and has come to this entry, and when it began.
    pub(super) listed: Option<(Vec<u8>, Epoch)>,
    /// Others change it: its names are to be looked at again.
    pub(super) suspect: bool,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: HashMap<Ino, Node, FxBuildHasher>,
    names: usize,
    strays: BTreeMap<Ino, Epoch>,
    /// As if all inodes that are not known had been pushed then.
    strays_floor: Epoch,
}

impl Tree {
    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All inodes, in order.
    pub(super) fn inos(&self) -> Vec<Ino> {
        let mut inos: Vec<Ino> = self.nodes.keys().copied().collect();
        inos.sort_unstable();
        inos
    }

    /// An inode was read from the server, by a question asked at `since`. `at` is where.
    pub(super) fn learn(&mut self, inode: &Inode, at: Option<(Ino, Name)>) {
        let attr = &inode.attr;
        let tainted = self.strays.remove(&attr.ino).unwrap_or(self.strays_floor);
        let node = self.nodes.entry(attr.ino).or_insert_with(|| Node {
            kind: attr.kind,
            parent: Ino::ROOT,
            name: Name::from(""),
            nlink: 0,
            size: 0,
            ctime: attr.ctime,
            data: inode.data,
            stale: 0,
            acl: None,
            stamp: inode.change,
            tainted,
            own_until: Mono(0),
            held: false,
            doomed: false,
            dir: None,
        });
        node.nlink = attr.nlink;
        node.doomed &= attr.nlink == 0;
        node.size = attr.size;
        node.ctime = attr.ctime;
        node.data = inode.data;
        node.stale = inode.stale;
        node.acl = Some(inode.acl);
        node.stamp = inode.change;
        if let Some(parent) = inode.parent {
            node.parent = parent;
        }
        if let Some((dir, name)) = at {
            (node.parent, node.name) = (dir, name);
        }
    }

    /// A push named an inode that is not known.
    pub(super) fn stray(&mut self, ino: Ino, epoch: Epoch) {
        if self.strays.len() >= STRAYS {
            self.strays.clear();
            self.strays_floor = epoch;
        }
        self.strays.insert(ino, epoch);
    }

    /// Whatever is on its way is not to be leased.
    pub(super) fn taint_strays(&mut self, epoch: Epoch) {
        self.strays.clear();
        self.strays_floor = epoch;
    }

    pub(super) fn forget(&mut self, ino: Ino) {
        if ino == Ino::ROOT {
            return;
        }
        if let Some(node) = self.nodes.remove(&ino)
            && let Some(dir) = node.dir
        {
            self.names -= dir.names.len() + dir.absent.len();
        }
    }

    fn dir(&mut self, ino: Ino) -> Option<&mut Dir> {
        let node = self.nodes.get_mut(&ino)?;
        (node.kind == Kind::Dir).then(|| &mut **node.dir.get_or_insert_default())
    }

    /// An inode was just made here; a directory has no names yet. Returns whether a push has named
    /// it already: on its own connection that may come before the reply.
    pub(super) fn made(&mut self, inode: &Inode, at: (Ino, Name)) -> bool {
        let pushed = self.strays.remove(&inode.attr.ino).is_some();
        self.learn(inode, Some(at));
        if let Some(dir) = self.dir(inode.attr.ino) {
            dir.complete = true;
        }
        pushed
    }

    /// Where a name leads, if that is known: `Some(None)` when it does not exist.
    pub(super) fn entry(&self, dir: Ino, name: &Name) -> Option<Option<(Kind, Ino)>> {
        let dir = self.nodes.get(&dir)?.dir.as_ref()?;
        if dir.suspect {
            return None;
        }
        match dir.names.get(name) {
            Some(found) => Some(Some(*found)),
            None => (dir.complete || dir.absent.contains(name)).then_some(None),
        }
    }

    /// The names of a directory that come after one, in order; `None` unless it is known wholly.
    pub(super) fn names_after(
        &self,
        dir: Ino,
        name: Option<&Name>,
    ) -> Option<impl Iterator<Item = (&Name, (Kind, Ino))>> {
        let dir = self.nodes.get(&dir)?.dir.as_ref()?;
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        let names = dir.names.range((from, Bound::Unbounded));
        (dir.complete && !dir.suspect).then(|| names.map(|(name, found)| (name, *found)))
    }

    /// Whether the name's fate is remembered, so that others' changes of it can be told.
    pub(super) fn remembers(&self, dir: Ino, name: &Name, there: bool) -> bool {
        let Some(dir) = self.nodes.get(&dir).and_then(|node| node.dir.as_ref()) else {
            return false;
        };
        !dir.suspect && if there { dir.names.contains_key(name) } else { dir.absent.contains(name) }
    }

    /// A name leads there, or nowhere.
    pub(super) fn learn_name(&mut self, dir: Ino, name: &Name, found: Option<(Kind, Ino)>) {
        let room = self.names < NAMES;
        let Some(dir) = self.dir(dir) else { return };
        let before = dir.names.len() + dir.absent.len();
        match found {
            Some(found) => {
                dir.absent.remove(name);
                if room || dir.names.contains_key(name) {
                    dir.names.insert(name.clone(), found);
                } else {
                    dir.complete = false;
                }
            }
            None => {
                dir.names.remove(name);
                if room && dir.absent.len() < ABSENT {
                    dir.absent.insert(name.clone());
                }
            }
        }
        let after = dir.names.len() + dir.absent.len();
        self.names = self.names + after - before;
    }

    /// A page of a listing begun at `since` went from one entry to another; `None` is an end of
    /// the directory. When all of it has been seen and nobody else changed it, it is known wholly.
    pub(super) fn listed(&mut self, dir: Ino, from: &[u8], to: Option<&[u8]>, since: Epoch) {
        let tainted = self.nodes.get(&dir).map_or(Epoch(u64::MAX), |node| node.tainted);
        let Some(dir) = self.dir(dir) else { return };
        let began = match dir.listed.take() {
            _ if from.is_empty() => Some(since),
            Some((at, began)) if at == from => Some(began),
            _ => None,
        };
        let Some(began) = began.filter(|began| tainted <= *began && !dir.suspect) else { return };
        match to {
            Some(to) => dir.listed = Some((to.to_vec(), began)),
            None => dir.complete = true,
        }
    }

    /// Others changed the directory: what is known of it must be looked at again. Returns whether
    /// there is anything to look at.
    pub(super) fn suspect(&mut self, dir: Ino) -> bool {
        let Some(dir) = self.dir(dir) else { return false };
        dir.complete = false;
        dir.listed = None;
        dir.suspect = !(dir.names.is_empty() && dir.absent.is_empty());
        dir.suspect
    }

    /// All names that are remembered of a directory, whether they exist or not.
    pub(super) fn names_of(&self, dir: Ino) -> Vec<Name> {
        let Some(dir) = self.nodes.get(&dir).and_then(|node| node.dir.as_ref()) else {
            return Vec::new();
        };
        dir.names.keys().chain(&dir.absent).cloned().collect()
    }

    /// All names that are remembered of a directory, whether they exist or not; they are
    /// forgotten.
    pub(super) fn take_names(&mut self, dir: Ino) -> Vec<Name> {
        let Some(dir) = self.dir(dir) else { return Vec::new() };
        let dir = core::mem::take(dir);
        self.names -= dir.names.len() + dir.absent.len();
        dir.names.into_keys().chain(dir.absent).collect()
    }

    /// All there is in a suspect directory has been listed. Returns the names that are not what
    /// they were taken for.
    pub(super) fn looked_again(
        &mut self,
        ino: Ino,
        now: BTreeMap<Name, (Kind, Ino)>,
        whole: bool,
    ) -> Vec<Name> {
        let names = self.names;
        let Some(dir) = self.dir(ino) else { return Vec::new() };
        let before = dir.names.len() + dir.absent.len();
        let mut changed: Vec<Name> = dir
            .names
            .iter()
            .filter(|(name, was)| now.get(*name) != Some(*was))
            .map(|(name, _)| name.clone())
            .collect();
        changed.extend(dir.absent.iter().filter(|name| now.contains_key(*name)).cloned());
        dir.absent.retain(|name| !now.contains_key(name));
        dir.suspect = false;
        let fits = names - before + now.len() + dir.absent.len() <= NAMES;
        if fits {
            dir.names = now;
            dir.complete = whole;
        } else {
            dir.names.retain(|name, was| now.get(name) == Some(was));
        }
        let after = dir.names.len() + dir.absent.len();
        self.names = self.names + after - before;
        changed
    }

    /// The directories above one, nearest first, up to the root; `None` if some are not known.
    pub(super) fn chain(&self, dir: Ino) -> Option<Vec<Ino>> {
        let (mut chain, mut at) = (Vec::new(), dir);
        while at != Ino::ROOT {
            at = self.nodes.get(&at)?.parent;
            chain.push(at);
            // Two mounts may have told us of a loop between them that was never there.
            if chain.len() > self.nodes.len() {
                return None;
            }
        }
        Some(chain)
    }

    /// A path for messages.
    pub(super) fn path(&self, ino: Ino) -> Option<alloc::string::String> {
        let (mut names, mut at) = (Vec::new(), ino);
        while at != Ino::ROOT {
            let node = self.nodes.get(&at)?;
            names.push(alloc::format!("/{}", node.name));
            at = node.parent;
            if names.len() > self.nodes.len() {
                return None;
            }
        }
        names.reverse();
        Some(if names.is_empty() { alloc::string::String::from("/") } else { names.concat() })
    }
}
