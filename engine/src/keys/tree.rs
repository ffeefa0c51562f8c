//! The inodes a mount knows: which name each has, in which directory, and what is there.
//!
//! A keys mount has no inode numbers on the server. A number is made from the path at which an
//! inode is first seen, so that it is the same after a remount, and stays with it through renames
//! for as long as anybody remembers it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use siphasher::sip::SipHasher13;

use crate::id::Ino;
use crate::layout::Epoch;
use crate::op::{Attr, Kind, Name};
use crate::time::Mono;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Dir,
    /// A string key.
    String,
    /// A value of which it is not known (or not certain) whether it is a string or a field.
    Value,
    /// A field of a hash.
    Field,
    /// A list, set, sorted set, stream or module type, shown as text.
    Collection,
    /// A symlink or special file: a side record and nothing else.
    Side,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) what: What,
    /// As last seen.
    pub(super) attr: Attr,
    /// What a shortened name stands for; to find it again is a walk over all that it could be.
    pub(super) component: Option<Box<[u8]>>,
    /// Of a symlink.
    pub(super) target: Bytes,
    /// When the key expires.
    pub(super) expires: Option<Mono>,
    /// The last invalidation that was about it.
    pub(super) tainted: Epoch,
    /// Its name is gone (or leads elsewhere now).
    pub(super) detached: bool,
    /// Where the contents are kept while handles are open on it, after its name went.
    pub(super) orphan: Option<Bytes>,
    /// Where a large field is written to until it is published.
    pub(super) stage: Option<Bytes>,
    /// It has a record on the server.
    pub(super) has_record: bool,
    /// Of a directory.
    children: BTreeMap<Name, Ino>,
    /// Of a directory: the last invalidation that was about a name in it.
    pub(super) children_tainted: Epoch,
    /// Of a directory: the last invalidation of its side hash.
    pub(super) side_tainted: Epoch,
    /// Of a directory: names that were looked up and not there, for the kernel to be told when
    /// they might be.
    absent: BTreeSet<Name>,
}

/// Absent names of one directory that are remembered; for more, the kernel asks each time.
const ABSENT: usize = 1024;

/// All known inodes. The root is always there.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: HashMap<Ino, Node, FxBuildHasher>,
}

impl Tree {
    pub(super) fn new(root: Attr) -> Self {
        let mut nodes = HashMap::default();
        nodes.insert(Ino::ROOT, Node::new(Ino::ROOT, Name::from("/"), What::Dir, root));
        Tree { nodes }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    pub(super) fn child(&self, dir: Ino, name: &Name) -> Option<Ino> {
        self.nodes.get(&dir)?.children.get(name).copied()
    }

    pub(super) fn children(&self, dir: Ino) -> impl Iterator<Item = (&Name, Ino)> {
        self.nodes
            .get(&dir)
            .into_iter()
            .flat_map(|node| node.children.iter().map(|(name, &ino)| (name, ino)))
    }

    /// The known children whose names start with `prefix`.
    pub(super) fn children_with(&self, dir: Ino, prefix: &[u8]) -> Vec<(Name, Ino)> {
        let Some(node) = self.nodes.get(&dir) else { return Vec::new() };
        node.children
            .range(Name::from(prefix)..)
            .take_while(|(name, _)| name.as_bytes().starts_with(prefix))
            .map(|(name, &ino)| (name.clone(), ino))
            .collect()
    }

    pub(super) fn inos(&self) -> Vec<Ino> {
        let mut all: Vec<Ino> = self.nodes.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// A number for a new inode that is first seen at this path.
    pub(super) fn fresh_ino(&self, dir_prefix: &[u8], name: &[u8]) -> Ino {
        for salt in 0u64.. {
            let mut hasher = SipHasher13::new_with_keys(0x6462_6d6f_756e_7431, salt);
            (dir_prefix, name).hash(&mut hasher);
            // 0 and 1 have a meaning; the top bit is left to programs that keep it in a signed
            // integer.
            let ino = Ino(hasher.finish() >> 1);
            if ino > Ino::ROOT && !self.nodes.contains_key(&ino) {
                return ino;
            }
        }
        Ino(2)
    }

    /// Makes `ino` the child of `dir` under `name`. What had the name loses it.
    pub(super) fn attach(&mut self, dir: Ino, name: &Name, ino: Ino, what: What, attr: Attr) {
        self.detach(dir, name);
        let node =
            self.nodes.entry(ino).or_insert_with(|| Node::new(dir, name.clone(), what, attr));
        node.parent = dir;
        node.name = name.clone();
        node.what = what;
        node.attr = attr;
        node.detached = false;
        if let Some(dir) = self.nodes.get_mut(&dir) {
            dir.absent.remove(name);
            dir.children.insert(name.clone(), ino);
        }
    }

    /// The name was looked up and not there.
    pub(super) fn remember_absent(&mut self, dir: Ino, name: &Name) {
        if let Some(dir) = self.nodes.get_mut(&dir)
            && dir.absent.len() < ABSENT
        {
            dir.absent.insert(name.clone());
        }
    }

    /// Takes the names that were not there, to tell the kernel that they might be now.
    pub(super) fn take_absent(&mut self, dir: Ino) -> BTreeSet<Name> {
        self.nodes.get_mut(&dir).map(|dir| core::mem::take(&mut dir.absent)).unwrap_or_default()
    }

    /// The name leads nowhere any more. Its inode is remembered until it is forgotten.
    pub(super) fn detach(&mut self, dir: Ino, name: &Name) -> Option<Ino> {
        let ino = self.nodes.get_mut(&dir)?.children.remove(name)?;
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.detached = true;
        }
        Some(ino)
    }

    /// As `detach`, of a directory that is removed: who stands in it sees that.
    pub(super) fn remove_dir(&mut self, dir: Ino, name: &Name) {
        if let Some(ino) = self.detach(dir, name)
            && let Some(node) = self.nodes.get_mut(&ino)
        {
            node.attr.nlink = 0;
        }
    }

    pub(super) fn rename(&mut self, dir: Ino, name: &Name, to_dir: Ino, to_name: &Name) {
        let is_dir = |ino| self.nodes.get(&ino).is_some_and(|node| node.what == What::Dir);
        if self.child(to_dir, to_name).is_some_and(is_dir) {
            self.remove_dir(to_dir, to_name);
        } else {
            self.detach(to_dir, to_name);
        }
        let Some(ino) = self.nodes.get_mut(&dir).and_then(|node| node.children.remove(name)) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.parent = to_dir;
            node.name = to_name.clone();
            node.component = None;
        }
        if let Some(dir) = self.nodes.get_mut(&to_dir) {
            dir.absent.remove(to_name);
            dir.children.insert(to_name.clone(), ino);
        }
    }

    /// Nobody remembers the inode. A directory with known children stays until they go.
    pub(super) fn forget(&mut self, ino: Ino) {
        let Some(node) = self.nodes.get(&ino) else { return };
        if ino == Ino::ROOT || !node.children.is_empty() {
            return;
        }
        let (parent, name) = (node.parent, node.name.clone());
        self.nodes.remove(&ino);
        if let Some(parent) = self.nodes.get_mut(&parent)
            && parent.children.get(&name) == Some(&ino)
        {
            parent.children.remove(&name);
        }
    }

    /// Whether `dir` is `ancestor` or below it.
    pub(super) fn is_below(&self, dir: Ino, ancestor: Ino) -> bool {
        let mut at = dir;
        loop {
            if at == ancestor {
                return true;
            }
            match self.nodes.get(&at) {
                Some(node) if at != Ino::ROOT => at = node.parent,
                _ => return false,
            }
        }
    }

    /// What a shortened name in a directory stands for, if it was met before.
    pub(super) fn component(&self, dir: Ino, name: &Name) -> Option<&[u8]> {
        self.get(self.child(dir, name)?)?.component.as_deref()
    }

    /// The inodes from below the root to this one; `None` when one of them is gone.
    pub(super) fn path(&self, ino: Ino) -> Option<Vec<&Node>> {
        let mut nodes = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let node = self.nodes.get(&at)?;
            if node.detached {
                return None;
            }
            nodes.push(node);
            at = node.parent;
        }
        nodes.reverse();
        Some(nodes)
    }
}

impl Node {
    fn new(parent: Ino, name: Name, what: What, attr: Attr) -> Self {
        Node {
            parent,
            name,
            what,
            attr,
            component: None,
            target: Bytes::new(),
            expires: None,
            tainted: Epoch(0),
            detached: false,
            orphan: None,
            stage: None,
            has_record: false,
            children: BTreeMap::new(),
            children_tainted: Epoch(0),
            side_tainted: Epoch(0),
            absent: BTreeSet::new(),
        }
    }

    pub(super) fn knows_absent(&self, name: &Name) -> bool {
        self.absent.contains(name)
    }

    /// The same kind of file as far as the kernel is concerned, which never lets an inode change
    /// that.
    pub(super) fn is_same_kind(&self, kind: Kind) -> bool {
        self.attr.kind == kind
    }
}
