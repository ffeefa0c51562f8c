//! The inodes a mount knows: where their documents and contents are, and by which names.

use alloc::vec::Vec;

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::id::Ino;
use crate::layout::Epoch;
use crate::op::{Attr, Kind, Name};
use crate::time::Mono;

use super::document::{Content, Id, Link, blank};
use super::durable::Ack;
use super::foreign::{Key, below};
use super::pinned::Pinned;

/// Paths deeper than this are not followed: they are cycles.
const DEPTH: usize = 4096;

/// An inode as last seen.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The name it was last reached by.
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) attr: Attr,
    /// Of its files document; a directory that is only implied has none, nor has a root that
    /// nothing was ever stored of.
    pub(super) id: Option<Id>,
    pub(super) content: Result<Content, &'static str>,
    pub(super) target: Bytes,
    /// Every name, for our own documents.
    pub(super) links: Vec<Link>,
    /// It is another program's: the key in the index, and whether it is the file that shares its
    /// key with a directory.
    pub(super) foreign: Option<(Key, bool)>,
    /// Of the last change that might be lost.
    pub(super) unsafe_ack: Option<Ack>,
    /// It is another program's newer revision of this inode of ours, and has its name.
    pub(super) over: Option<Ino>,
    /// The names of its extended attributes as they were known then.
    pub(super) xattrs: Option<(Vec<Name>, Epoch, Mono)>,
    /// Old revisions of it are kept under its `filename`.
    pub(super) revisions: bool,
    /// What its readers have opened, see `pinned.rs`.
    pub(super) pinned: Option<Pinned>,
    /// The kernel may have pages of contents that are no more.
    pub(super) old_pages: bool,
    /// It was opened anew, and what the kernel knows of its attributes may be older than that.
    pub(super) unseen: bool,
    /// A new revision that is being written.
    pub(super) staged: Option<Staged>,
    /// Since when its document says that this mount is writing it (see `wr`), from its first
    /// moment on.
    pub(super) marked: Option<Mono>,
    /// Its last name is gone.
    pub(super) gone: bool,
    /// The last change by somebody else: of itself, and of a name in it.
    pub(super) tainted: Epoch,
    pub(super) names_tainted: Epoch,
}

/// A new revision of a file, of which chunks are on the server and no document yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Staged {
    pub(super) id: Id,
    pub(super) content: Content,
    /// The life of the server in which its chunks were acknowledged.
    pub(super) life: u64,
}

impl Node {
    pub(super) fn new(parent: Ino, name: Name, attr: Attr) -> Self {
        Node {
            parent,
            name,
            attr,
            id: None,
            content: Ok(Content { length: attr.size, chunk: super::options::CHUNK_SIZE }),
            target: Bytes::new(),
            links: Vec::new(),
            foreign: None,
            unsafe_ack: None,
            over: None,
            xattrs: None,
            revisions: false,
            pinned: None,
            old_pages: false,
            unseen: false,
            staged: None,
            marked: None,
            gone: false,
            tainted: Epoch::default(),
            names_tainted: Epoch::default(),
        }
    }
}

/// All known inodes. The root is always there.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: HashMap<Ino, Node, FxBuildHasher>,
    by_id: HashMap<Id, Ino, FxBuildHasher>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut nodes = HashMap::default();
        let root = blank(Ino::ROOT, Kind::Dir);
        nodes.insert(Ino::ROOT, Node::new(Ino::ROOT, Name::from("/"), root));
        Tree { nodes, by_id: HashMap::default() }
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// See `Node::unpin`.
    pub(super) fn unpin(&mut self, ino: Ino) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.unpin();
        }
    }

    pub(super) fn by_id(&self, id: &Id) -> Option<Ino> {
        self.by_id.get(id).copied()
    }

    /// The node of an inode, made when there is none.
    pub(super) fn node(&mut self, parent: Ino, name: &Name, attr: Attr) -> &mut Node {
        let new = || Node::new(parent, name.clone(), attr);
        self.nodes.entry(attr.ino).or_insert_with(new)
    }

    pub(super) fn set_id(&mut self, ino: Ino, id: &Id) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        if node.id.as_ref() == Some(id) {
            return;
        }
        if let Some(old) = node.id.replace(id.clone()) {
            self.by_id.remove(&old);
        }
        self.by_id.insert(id.clone(), ino);
    }

    pub(super) fn forget(&mut self, ino: Ino) {
        if ino == Ino::ROOT {
            return;
        }
        if let Some(node) = self.nodes.remove(&ino)
            && let Some(id) = node.id
        {
            self.by_id.remove(&id);
        }
    }

    pub(super) fn inos(&self) -> Vec<Ino> {
        let mut inos: Vec<Ino> = self.nodes.keys().copied().collect();
        inos.sort_unstable();
        inos
    }

    /// The names from the root down to an inode, `None` when it has no known way up.
    pub(super) fn path(&self, ino: Ino) -> Option<Vec<&Name>> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let node = self.nodes.get(&at).filter(|node| !node.gone)?;
            names.push(&node.name);
            at = node.parent;
            if names.len() > DEPTH {
                return None;
            }
        }
        names.reverse();
        Some(names)
    }

    /// The first directory on the way up from this one of which nothing is known.
    pub(super) fn unknown_above(&self, dir: Ino) -> Option<Ino> {
        let mut at = dir;
        for _ in 0..DEPTH {
            match self.nodes.get(&at) {
                None => return Some(at),
                Some(node) if at != Ino::ROOT && node.foreign.is_none() => at = node.parent,
                Some(_) => return None,
            }
        }
        None
    }

    /// The key of a directory in the index of foreign files.
    pub(super) fn key(&self, dir: Ino) -> Option<Key> {
        let names = self.path(dir)?;
        Some(names.iter().fold(Key::new(), |key, name| below(&key, name.as_bytes())))
    }

    /// The `filename` of a name in a directory: its path without the leading slash.
    pub(super) fn filename(&self, dir: Ino, name: &Name) -> Option<Vec<u8>> {
        let mut names = self.path(dir)?;
        names.push(name);
        Some(names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/'))
    }

    pub(super) fn is_below(&self, dir: Ino, ancestor: Ino) -> bool {
        let mut at = dir;
        for _ in 0..DEPTH {
            if at == ancestor {
                return true;
            }
            match self.nodes.get(&at) {
                Some(node) if at != Ino::ROOT => at = node.parent,
                _ => return false,
            }
        }
        true
    }
}
