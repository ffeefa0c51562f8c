//! A POSIX filesystem in memory, written from the standard and the manual pages alone: what the
//! engine over any layout is held to.
//!
//! It knows nothing of `decide` and takes no care to be fast: link counts are counted, and what
//! nothing leads to is swept away after each operation.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use crate::decide::Caps;
use crate::errno::Errno;
use crate::op::{Caller, Kind, Name, XattrMode};
use crate::sim::ops::{How, ModelReply, Op, Outcome, Path, Reply, Slot, Summary};
use crate::time::Wall;

mod holes;
mod names;
#[cfg(test)]
mod tests;

const ROOT: Id = Id(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    kind: Kind,
    perm: u16,
    uid: u32,
    gid: u32,
    rdev: u32,
    mtime: Wall,
    ctime: Wall,
    /// Contents of a file, target of a symlink.
    bytes: Vec<u8>,
    entries: BTreeMap<Name, Id>,
    xattrs: BTreeMap<Name, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Handle {
    File { id: Id, write: bool, append: bool },
    Stream { id: Id, always: BTreeSet<Name>, ever: BTreeSet<Name> },
}

impl Handle {
    fn id(&self) -> Id {
        match self {
            Handle::File { id, .. } | Handle::Stream { id, .. } => *id,
        }
    }
}

/// An ideal filesystem, as far as `caps` lets it be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    caps: Caps,
    caller: Caller,
    nodes: BTreeMap<Id, Node>,
    handles: BTreeMap<Slot, Handle>,
    next: u64,
}

impl Model {
    /// An empty filesystem. `root` tells of the root directory: what of it is `None` is not.
    #[must_use]
    pub fn new(caps: Caps, caller: Caller, root: &Summary) -> Model {
        let node = Node {
            kind: Kind::Dir,
            perm: root.perm,
            uid: root.uid,
            gid: root.gid,
            rdev: 0,
            mtime: root.mtime.unwrap_or_default(),
            ctime: root.ctime.unwrap_or_default(),
            bytes: Vec::new(),
            entries: BTreeMap::new(),
            xattrs: root.xattrs.clone().unwrap_or_default(),
        };
        let nodes = BTreeMap::from([(ROOT, node)]);
        Model { caps, caller, nodes, handles: BTreeMap::new(), next: 2 }
    }

    /// What the layout that this stands for can hold.
    #[must_use]
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Runs `op` at the time `now`.
    pub fn apply(&mut self, op: &Op, now: Wall) -> ModelReply {
        if let Op::ReadDir { slot, .. } = op {
            return match self.handles.get(slot) {
                Some(Handle::Stream { always, ever, .. }) => {
                    ModelReply::Stream { always: always.clone(), ever: ever.clone() }
                }
                _ => ModelReply::Is(Err(Errno::EBADF)),
            };
        }
        if let Op::Seek { slot, offset, whence } = op {
            return self.seek(*slot, *offset, *whence);
        }
        let reply = self.call(op, now);
        self.sweep();
        ModelReply::Is(reply)
    }

    /// Everything there is, the root included.
    #[must_use]
    pub fn tree(&self) -> BTreeMap<Path, Summary> {
        let mut tree = BTreeMap::new();
        let mut firsts: BTreeMap<Id, Path> = BTreeMap::new();
        for (path, id) in self.walk_all() {
            let first = firsts.entry(id).or_insert_with(|| path.clone()).clone();
            let mut summary = self.summary(id);
            let node = &self.nodes[&id];
            summary.first = Some(first);
            summary.xattrs = Some(node.xattrs.clone());
            summary.contents = (node.kind == Kind::File).then(|| node.bytes.clone());
            tree.insert(path, summary);
        }
        tree
    }

    /// Every path there is and what it leads to, in order, the root first.
    #[must_use]
    pub fn paths(&self) -> Vec<(Path, Kind)> {
        self.walk_all().into_iter().map(|(path, id)| (path, self.nodes[&id].kind)).collect()
    }

    /// Every slot in use, and whether it is a directory stream.
    #[must_use]
    pub fn slots(&self) -> Vec<(Slot, bool)> {
        let is_stream = |handle: &Handle| matches!(handle, Handle::Stream { .. });
        self.handles.iter().map(|(slot, handle)| (*slot, is_stream(handle))).collect()
    }

    /// Every slot of a file that still has a name, and the first of its names.
    #[must_use]
    pub fn open_paths(&self) -> Vec<(Slot, Path)> {
        let all = self.walk_all();
        let named = |handle: &Handle| match handle {
            Handle::File { id, .. } => all.iter().find(|(_, i)| i == id),
            Handle::Stream { .. } => None,
        };
        let open = |(slot, handle): (&Slot, _)| Some((*slot, named(handle)?.0.clone()));
        self.handles.iter().filter_map(open).collect()
    }

    /// Whether the file that a slot of `later` leads to is here already as it is there, names and
    /// all.
    #[must_use]
    pub fn holds_file_of(&self, later: &Model, slot: Slot) -> bool {
        let Some(id) = later.handles.get(&slot).map(Handle::id) else { return false };
        let names = |model: &Model| {
            let nodes = model.nodes.iter();
            let found = nodes.flat_map(|(dir, node)| {
                let here = node.entries.iter().filter(|(_, it)| **it == id);
                here.map(|(name, _)| (*dir, name.clone())).collect::<Vec<_>>()
            });
            found.collect::<Vec<_>>()
        };
        self.nodes.get(&id) == later.nodes.get(&id) && names(self) == names(later)
    }

    /// Takes over what a file was found to hold, and its mode and owner.
    pub fn adopt(&mut self, path: &Path, found: &Summary) {
        if let (Ok(node), Some(bytes)) = (self.found(path), &found.contents) {
            node.bytes.clone_from(bytes);
            (node.perm, node.uid, node.gid) = (found.perm, found.uid, found.gid);
        }
    }

    fn walk_all(&self) -> Vec<(Path, Id)> {
        let mut all = vec![(Path::default(), ROOT)];
        let mut at = 0;
        while let Some((path, id)) = all.get(at).cloned() {
            let entries = self.nodes[&id].entries.iter();
            all.extend(entries.map(|(name, id)| (path.join(name.clone()), *id)));
            at += 1;
        }
        all.sort();
        all
    }

    fn call(&mut self, op: &Op, now: Wall) -> Reply {
        match op {
            Op::Open { slot, path, how } => {
                self.handles.remove(slot);
                let id = self.open(path, how, now)?;
                let (write, append) = (how.write, how.append);
                self.handles.insert(*slot, Handle::File { id, write, append });
                Ok(Outcome::Done)
            }
            Op::Close { slot } => match self.handles.remove(slot) {
                Some(_) => Ok(Outcome::Done),
                None => Err(Errno::EBADF),
            },
            Op::Read { slot, offset, len } => {
                let (id, ..) = self.file(*slot)?;
                let bytes = &self.nodes[&id].bytes;
                let start = bytes.len().min(*offset as usize);
                let end = bytes.len().min(start + *len as usize);
                Ok(Outcome::Bytes(bytes[start..end].to_vec()))
            }
            Op::Write { slot, offset, data } => self.write(*slot, *offset, data, now),
            Op::Fsync { slot } => self.file(*slot).map(|_| Outcome::Done),
            Op::FTruncate { slot, size } => {
                let (id, write, _) = self.file(*slot)?;
                // ftruncate(2): EINVAL or EBADF for what is not open for writing; Linux EINVAL.
                if !write {
                    return Err(Errno::EINVAL);
                }
                self.resize(id, *size, now)
            }
            Op::Truncate { path, size } => {
                let id = self.find(path)?;
                self.resize(id, *size, now)
            }
            Op::Fallocate { slot, offset, len, mode } => {
                self.allocate(*slot, (*offset, *len), *mode, now)
            }
            Op::CopyRange { slot, offset, to, to_offset, len } => {
                self.copy((*slot, *offset), (*to, *to_offset), *len, now)
            }
            Op::Mkdir { path, perm } => {
                let (dir, name) = self.free(path)?;
                if self.caps.dir_nlink && self.nlink(dir) >= self.caps.max_links {
                    return Err(Errno::EMLINK);
                }
                self.make(dir, name, Kind::Dir, perm & 0o1777, now);
                Ok(Outcome::Done)
            }
            Op::Mknod { path, kind, perm, rdev } => {
                match kind {
                    Kind::Dir => return Err(Errno::EPERM),
                    Kind::Symlink => return Err(Errno::EINVAL),
                    _ => {}
                }
                let (dir, name) = self.free(path)?;
                if *kind != Kind::File && !self.caps.special_files {
                    return Err(Errno::EPERM);
                }
                let id = self.make(dir, name, *kind, perm & 0o7777, now);
                if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                    self.node(id).rdev = *rdev;
                }
                Ok(Outcome::Done)
            }
            Op::Symlink { path, target } => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                if target.len() > 4095 {
                    return Err(Errno::ENAMETOOLONG);
                }
                let (dir, name) = self.free(path)?;
                let id = self.make(dir, name, Kind::Symlink, 0o777, now);
                self.node(id).bytes.clone_from(target);
                Ok(Outcome::Done)
            }
            Op::Link { from, to } => self.link(from, to, now),
            Op::Unlink { path } => {
                let (dir, name, id) = self.entry(path)?.ok_or(Errno::EISDIR)?;
                let id = id.ok_or(Errno::ENOENT)?;
                if self.nodes[&id].kind == Kind::Dir {
                    return Err(Errno::EISDIR);
                }
                self.unlink(dir, &name, now);
                Ok(Outcome::Done)
            }
            Op::Rmdir { path } => {
                let (dir, name, id) = self.entry(path)?.ok_or(Errno::EBUSY)?;
                let id = id.ok_or(Errno::ENOENT)?;
                if self.nodes[&id].kind != Kind::Dir {
                    return Err(Errno::ENOTDIR);
                }
                if !self.nodes[&id].entries.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.unlink(dir, &name, now);
                Ok(Outcome::Done)
            }
            Op::Rename { from, to, mode } => self.rename(from, to, *mode, now),
            Op::Stat { path } => Ok(Outcome::Stat(self.summary(self.find(path)?))),
            Op::FStat { slot } => {
                let handle = self.handles.get(slot).ok_or(Errno::EBADF)?;
                Ok(Outcome::Stat(self.summary(handle.id())))
            }
            Op::ReadLink { path } => {
                let node = &self.nodes[&self.find(path)?];
                if node.kind != Kind::Symlink {
                    return Err(Errno::EINVAL);
                }
                Ok(Outcome::Bytes(node.bytes.clone()))
            }
            Op::Chmod { path, perm } => {
                let node = self.found(path)?;
                if node.kind == Kind::Symlink {
                    return Err(Errno::EOPNOTSUPP);
                }
                (node.perm, node.ctime) = (perm & 0o7777, now);
                Ok(Outcome::Done)
            }
            Op::Chown { path, uid, gid } => self.chown(path, *uid, *gid, now),
            Op::Utimens { path, atime, mtime } => {
                let node = self.found(path)?;
                // utimensat(2): with UTIME_OMIT for both, nothing is changed.
                if atime.is_some() || mtime.is_some() {
                    node.mtime = mtime.unwrap_or(node.mtime);
                    node.ctime = now;
                }
                Ok(Outcome::Done)
            }
            Op::GetXattr { path, name } => {
                let node = &self.nodes[&self.find(path)?];
                self.xattr_name(name)?;
                Ok(Outcome::Bytes(node.xattrs.get(name).ok_or(Errno::ENODATA)?.clone()))
            }
            Op::ListXattr { path } => {
                let node = &self.nodes[&self.find(path)?];
                Ok(Outcome::Names(node.xattrs.keys().cloned().collect()))
            }
            Op::SetXattr { path, name, value, mode } => {
                self.set_xattr(path, name, Some(value), *mode, now)
            }
            Op::RemoveXattr { path, name } => {
                self.set_xattr(path, name, None, XattrMode::Replace, now)
            }
            Op::OpenDir { slot, path } => {
                self.handles.remove(slot);
                let id = self.find(path)?;
                if self.nodes[&id].kind != Kind::Dir {
                    return Err(Errno::ENOTDIR);
                }
                self.handles.insert(*slot, self.stream(id));
                Ok(Outcome::Done)
            }
            Op::RewindDir { slot } => {
                let Some(Handle::Stream { id, .. }) = self.handles.get(slot) else {
                    return Err(Errno::EBADF);
                };
                self.handles.insert(*slot, self.stream(*id));
                Ok(Outcome::Done)
            }
            // Answered by `apply`: what it comes to is not one reply.
            Op::ReadDir { .. } | Op::Seek { .. } => Err(Errno::EBADF),
        }
    }

    // Contents.

    fn open(&mut self, path: &Path, how: &How, now: Wall) -> Result<Id, Errno> {
        let Some((dir, name, found)) = self.entry(path)? else { return Err(Errno::EISDIR) };
        let Some(id) = found else {
            let perm = how.create.ok_or(Errno::ENOENT)?;
            return Ok(self.make(dir, name, Kind::File, perm & 0o7777, now));
        };
        if how.create.is_some() && how.exclusive {
            return Err(Errno::EEXIST);
        }
        match self.nodes[&id].kind {
            Kind::File => {}
            Kind::Dir => return Err(Errno::EISDIR),
            Kind::Symlink => return Err(Errno::ELOOP),
            _ => return Err(Errno::ENXIO),
        }
        if how.write && how.truncate {
            self.resize(id, 0, now)?;
        }
        Ok(id)
    }

    fn file(&self, slot: Slot) -> Result<(Id, bool, bool), Errno> {
        match self.handles.get(&slot) {
            Some(Handle::File { id, write, append }) => Ok((*id, *write, *append)),
            _ => Err(Errno::EBADF),
        }
    }

    fn write(&mut self, slot: Slot, offset: u64, data: &[u8], now: Wall) -> Reply {
        let (id, write, append) = self.file(slot)?;
        if !write {
            return Err(Errno::EBADF);
        }
        // POSIX write: with nbyte 0, nothing else happens.
        if data.is_empty() {
            return Ok(Outcome::Written(0));
        }
        let max = self.caps.max_file_size;
        let node = self.node(id);
        let start = if append { node.bytes.len() as u64 } else { offset };
        if start.saturating_add(data.len() as u64) > max {
            return Err(Errno::EFBIG);
        }
        let (start, end) = (start as usize, start as usize + data.len());
        if node.bytes.len() < end {
            node.bytes.resize(end, 0);
        }
        node.bytes[start..end].copy_from_slice(data);
        (node.mtime, node.ctime) = (now, now);
        Ok(Outcome::Written(data.len() as u64))
    }

    fn resize(&mut self, id: Id, size: u64, now: Wall) -> Reply {
        let max = self.caps.max_file_size;
        let node = self.node(id);
        match node.kind {
            Kind::File if size > max => return Err(Errno::EFBIG),
            Kind::File => {}
            Kind::Dir => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        node.bytes.resize(size as usize, 0);
        (node.mtime, node.ctime) = (now, now);
        Ok(Outcome::Done)
    }

    // Attributes.

    fn chown(&mut self, path: &Path, uid: Option<u32>, gid: Option<u32>, now: Wall) -> Reply {
        let node = self.found(path)?;
        if uid.is_none() && gid.is_none() {
            return Ok(Outcome::Done);
        }
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        if node.kind != Kind::Dir {
            // chown(2): both set-id bits, but the group's stays where the group may not execute.
            let dropped = if node.perm & 0o010 != 0 { 0o6000 } else { 0o4000 };
            node.perm &= !dropped;
        }
        node.ctime = now;
        Ok(Outcome::Done)
    }

    fn xattr_name(&self, name: &Name) -> Result<(), Errno> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > 255 {
            return Err(Errno::ERANGE);
        }
        if self.caps.max_xattr_size == 0 || !bytes.starts_with(b"user.") {
            return Err(Errno::EOPNOTSUPP);
        }
        if bytes == b"user." { Err(Errno::EINVAL) } else { Ok(()) }
    }

    fn set_xattr(
        &mut self,
        path: &Path,
        name: &Name,
        value: Option<&Vec<u8>>,
        mode: XattrMode,
        now: Wall,
    ) -> Reply {
        let id = self.find(path)?;
        self.xattr_name(name)?;
        let reserved = self.caps.reserved_xattrs;
        if reserved.iter().any(|prefix| name.as_bytes().starts_with(prefix)) {
            return Err(Errno::EPERM);
        }
        let max = self.caps.max_xattr_size;
        let node = self.node(id);
        if !matches!(node.kind, Kind::File | Kind::Dir) {
            return Err(Errno::EPERM);
        }
        if value.is_some_and(|value| value.len() > max) {
            return Err(Errno::E2BIG);
        }
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EEXIST),
            (XattrMode::Replace, false) => return Err(Errno::ENODATA),
            _ => {}
        }
        match value {
            Some(value) => node.xattrs.insert(name.clone(), value.clone()),
            None => node.xattrs.remove(name),
        };
        node.ctime = now;
        Ok(Outcome::Done)
    }

    fn summary(&self, id: Id) -> Summary {
        let node = &self.nodes[&id];
        Summary {
            kind: node.kind,
            perm: node.perm,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.bytes.len() as u64,
            nlink: Some(self.nlink(id)),
            mtime: Some(node.mtime),
            ctime: Some(node.ctime),
            contents: None,
            target: (node.kind == Kind::Symlink).then(|| node.bytes.clone()),
            xattrs: None,
            first: None,
        }
    }

    /// How many names lead here; of a directory, its own, its `.`, and each subdirectory's `..`.
    fn nlink(&self, id: Id) -> u32 {
        let names = self.nodes.values().flat_map(|n| n.entries.values()).filter(|i| **i == id);
        let names = names.count() as u32 + u32::from(id == ROOT);
        let node = &self.nodes[&id];
        if node.kind != Kind::Dir || names == 0 {
            names
        } else if self.caps.dir_nlink {
            let is_dir = |id: &&Id| self.nodes[*id].kind == Kind::Dir;
            2 + node.entries.values().filter(is_dir).count() as u32
        } else {
            1
        }
    }

    // Resolution.

    fn node(&mut self, id: Id) -> &mut Node {
        // What names and handles lead to is there: `sweep` takes only what they do not.
        match self.nodes.get_mut(&id) {
            Some(node) => node,
            None => unreachable!("a name or handle leads to {id:?}, which is gone"),
        }
    }

    fn found(&mut self, path: &Path) -> Result<&mut Node, Errno> {
        let id = self.find(path)?;
        Ok(self.node(id))
    }

    fn find(&self, path: &Path) -> Result<Id, Errno> {
        path.0.iter().try_fold(ROOT, |at, name| self.child(at, name)?.ok_or(Errno::ENOENT))
    }

    fn child(&self, dir: Id, name: &Name) -> Result<Option<Id>, Errno> {
        if self.nodes[&dir].kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        if name.as_bytes().len() > Name::MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(self.nodes[&dir].entries.get(name).copied())
    }

    /// The directory and the name in it; `None` for the root, which has no name.
    fn spot(&self, path: &Path) -> Result<Option<(Id, Name)>, Errno> {
        let Some((name, parents)) = path.0.split_last() else { return Ok(None) };
        let dir = self.find(&Path(parents.to_vec()))?;
        match self.nodes[&dir].kind {
            Kind::Dir => Ok(Some((dir, name.clone()))),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// As `spot`, and what is there.
    fn entry(&self, path: &Path) -> Result<Option<(Id, Name, Option<Id>)>, Errno> {
        let Some((dir, name)) = self.spot(path)? else { return Ok(None) };
        let found = self.child(dir, &name)?;
        Ok(Some((dir, name, found)))
    }

    fn free(&self, path: &Path) -> Result<(Id, Name), Errno> {
        match self.entry(path)? {
            Some((dir, name, None)) => Ok((dir, name)),
            _ => Err(Errno::EEXIST),
        }
    }

    fn stream(&self, id: Id) -> Handle {
        let names: BTreeSet<Name> = self.nodes[&id].entries.keys().cloned().collect();
        Handle::Stream { id, always: names.clone(), ever: names }
    }

    /// POSIX close, unlink: with its last name and its last descriptor a file is gone.
    fn sweep(&mut self) {
        let mut live: BTreeSet<Id> = self.handles.values().map(Handle::id).collect();
        live.extend(self.walk_all().into_iter().map(|(_, id)| id));
        self.nodes.retain(|id, _| live.contains(id));
    }
}
