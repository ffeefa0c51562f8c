//! The kernel in front of a mount: paths walked by lookups, descriptors, references given back,
//! and, if wanted, the caches whose leases the engine answers for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::contract::Invalidation;
use crate::errno::Errno;
use crate::id::{Fh, Ino};
use crate::op::{
    Attr, Caller, DirEntry, Entry, Kind, Name, OpenFlags, Request, Response, SetAttr, SetTime,
};
use crate::sim::ops::{Executor, How, Op, Outcome, Path, Reply, Slot, Summary};
use crate::time::{Duration, Mono, Wall};

use super::World;

/// Who asks, in all requests: the owner of what has no record, with [`super::Setup`]'s defaults.
pub const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1 };

/// What the kernel remembers of a mount.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Lookups that were counted and not given back.
    looked: BTreeMap<Ino, u64>,
    open: BTreeMap<Slot, Open>,
    caches: bool,
    /// Where a name leads, and until when that may be believed.
    entries: BTreeMap<(Ino, Name), (Option<Ino>, Mono)>,
    attrs: BTreeMap<Ino, (Attr, Mono)>,
}

#[derive(Clone, Debug)]
enum Open {
    File { ino: Ino, fh: Fh, write: bool, append: bool, chain: Vec<Ino> },
    Stream { ino: Ino, fh: Fh, offset: u64, chain: Vec<Ino> },
}

impl Open {
    fn ino(&self) -> Ino {
        match self {
            Open::File { ino, .. } | Open::Stream { ino, .. } => *ino,
        }
    }

    /// The directories above, which a file that is open keeps.
    fn chain(&self) -> &[Ino] {
        match self {
            Open::File { chain, .. } | Open::Stream { chain, .. } => chain,
        }
    }
}

impl Kernel {
    pub(super) fn new(caches: bool) -> Kernel {
        Kernel {
            looked: BTreeMap::new(),
            open: BTreeMap::new(),
            caches,
            entries: BTreeMap::new(),
            attrs: BTreeMap::new(),
        }
    }

    pub(super) fn invalidate(&mut self, what: &Invalidation) {
        match what {
            Invalidation::Inode(ino) => {
                self.attrs.remove(ino);
            }
            Invalidation::Entry { parent, name } => {
                self.entries.remove(&(*parent, name.clone()));
            }
        }
    }

    fn learn(&mut self, parent: Ino, name: &Name, entry: &Entry, now: Mono) {
        if self.caches {
            let ino = entry.attr.ino;
            let until = now.after(entry.entry_ttl);
            self.entries.insert((parent, name.clone()), (Some(ino), until));
            self.attrs.insert(ino, (entry.attr, now.after(entry.attr_ttl)));
        }
    }

    fn learn_absent(&mut self, parent: Ino, name: &Name, ttl: Duration, now: Mono) {
        if self.caches && !ttl.is_zero() {
            self.entries.insert((parent, name.clone()), (None, now.after(ttl)));
        }
    }

    /// The inodes that are referred to.
    fn held(&self) -> BTreeSet<Ino> {
        let mut held: BTreeSet<Ino> = self.open.values().map(Open::ino).collect();
        held.extend(self.open.values().flat_map(|open| open.chain().iter().copied()));
        for ((parent, _), (found, _)) in &self.entries {
            held.insert(*parent);
            held.extend(found);
        }
        held
    }
}

/// A mount of a [`World`] as programs use it.
#[derive(Debug)]
pub struct Fs<'a> {
    world: &'a mut World,
    at: usize,
}

impl<'a> Fs<'a> {
    pub(super) fn new(world: &'a mut World, at: usize) -> Self {
        Fs { world, at }
    }

    fn kernel(&mut self) -> &mut Kernel {
        &mut self.world.mounts[self.at].kernel
    }

    fn now(&self) -> Mono {
        self.world.now.mono
    }

    /// Asks the engine. What the kernel knows changes with the answer.
    fn ask(&mut self, request: Request) -> Result<Response, Errno> {
        self.distrust(&request);
        let answer = self.world.request(self.at, request.clone());
        // An answer that was on its way when something else changed says nothing about that.
        self.distrust(&request);
        let now = self.now();
        let kernel = self.kernel();
        match (&answer, &request) {
            (
                Ok(Response::Entry(entry) | Response::Created(entry, _)),
                Request::Lookup { parent, name }
                | Request::Create { parent, name, .. }
                | Request::Mkdir { parent, name, .. }
                | Request::Mknod { parent, name, .. }
                | Request::Symlink { parent, name, .. },
            ) => {
                *kernel.looked.entry(entry.attr.ino).or_default() += 1;
                kernel.learn(*parent, name, entry, now);
            }
            (Ok(Response::NoEntry(ttl)), Request::Lookup { parent, name }) => {
                kernel.learn_absent(*parent, name, *ttl, now);
            }
            (Ok(Response::Dir(entries)), _) => {
                for entry in entries.iter().filter_map(|it| it.entry) {
                    *kernel.looked.entry(entry.attr.ino).or_default() += 1;
                }
            }
            (Ok(Response::Attr(attr, ttl)), _) if kernel.caches => {
                kernel.attrs.insert(attr.ino, (*attr, now.after(*ttl)));
            }
            (Ok(Response::Done), Request::Rename { parent, name, to_parent, to_name, .. }) => {
                // The name moves with its lease.
                if let Some(moved) = kernel.entries.remove(&(*parent, name.clone())) {
                    kernel.entries.insert((*to_parent, to_name.clone()), moved);
                }
            }
            _ => {}
        }
        answer
    }

    /// What a request changes is not believed any more.
    fn distrust(&mut self, request: &Request) {
        let kernel = self.kernel();
        let mut changed = Vec::new();
        match request {
            Request::Create { parent, name, .. }
            | Request::Mkdir { parent, name, .. }
            | Request::Mknod { parent, name, .. }
            | Request::Symlink { parent, name, .. }
            | Request::Unlink { parent, name }
            | Request::Rmdir { parent, name } => {
                changed.push(*parent);
                let gone = kernel.entries.remove(&(*parent, name.clone()));
                changed.extend(gone.and_then(|(ino, _)| ino));
            }
            Request::Rename { parent, name, to_parent, to_name, .. } => {
                changed.extend([*parent, *to_parent]);
                let moved = kernel.entries.get(&(*parent, name.clone()));
                changed.extend(moved.and_then(|(ino, _)| *ino));
                let gone = kernel.entries.remove(&(*to_parent, to_name.clone()));
                changed.extend(gone.and_then(|(ino, _)| ino));
            }
            Request::SetAttr { ino, .. }
            | Request::SetXattr { ino, .. }
            | Request::RemoveXattr { ino, .. }
            | Request::Write { ino, .. }
            | Request::Open { ino, flags: OpenFlags { truncate: true, .. } } => changed.push(*ino),
            _ => {}
        }
        for ino in changed {
            kernel.attrs.remove(&ino);
        }
    }

    fn done(&mut self, request: Request) -> Reply {
        self.ask(request).map(|_| Outcome::Done)
    }

    // ---- paths

    fn getattr(&mut self, ino: Ino) -> Result<Attr, Errno> {
        let now = self.now();
        if let Some((attr, until)) = self.kernel().attrs.get(&ino)
            && *until > now
        {
            return Ok(*attr);
        }
        match self.ask(Request::GetAttr { ino })? {
            Response::Attr(attr, _) => Ok(attr),
            other => panic!("getattr: {other:?}"),
        }
    }

    fn lookup(&mut self, parent: Ino, name: &Name) -> Result<Option<Attr>, Errno> {
        let now = self.now();
        if let Some((found, until)) = self.kernel().entries.get(&(parent, name.clone()))
            && *until > now
        {
            return match *found {
                Some(ino) => self.getattr(ino).map(Some),
                None => Ok(None),
            };
        }
        match self.ask(Request::Lookup { parent, name: name.clone() })? {
            Response::Entry(entry) => Ok(Some(entry.attr)),
            Response::NoEntry(_) => Ok(None),
            other => panic!("lookup: {other:?}"),
        }
    }

    /// The inodes from the root to the last name, which must all be there.
    fn walk(&mut self, path: &[Name]) -> Result<Vec<Attr>, Errno> {
        let mut chain = alloc::vec![self.getattr(Ino::ROOT)?];
        for name in path {
            let Some(dir) = chain.last().filter(|attr| attr.kind == Kind::Dir) else {
                return Err(Errno::ENOTDIR);
            };
            let found = self.lookup(dir.ino, name)?;
            chain.push(found.ok_or(Errno::ENOENT)?);
        }
        Ok(chain)
    }

    fn find(&mut self, path: &Path) -> Result<Attr, Errno> {
        self.walk(&path.0)?.pop().ok_or(Errno::ENOENT)
    }

    /// The directory of the last name; `root` is for the path that has none.
    fn spot(&mut self, path: &Path, root: Errno) -> Result<(Ino, Name), Errno> {
        let (name, parents) = path.0.split_last().ok_or(root)?;
        match self.walk(parents)?.last() {
            Some(Attr { kind: Kind::Dir, ino, .. }) => Ok((*ino, name.clone())),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Gives back the references that nothing stands on.
    fn give_back(&mut self) {
        let kernel = self.kernel();
        let held = kernel.held();
        let looked = core::mem::take(&mut kernel.looked);
        let (keep, give): (BTreeMap<_, _>, BTreeMap<_, _>) =
            looked.into_iter().partition(|(ino, _)| held.contains(ino));
        kernel.looked = keep;
        for (ino, count) in give {
            self.kernel().attrs.remove(&ino);
            if self.world.mounts[self.at].doom != Some(0) {
                self.world.start(self.at, Request::Forget { ino, count });
            }
        }
    }

    // ---- descriptors

    /// Closes all descriptors and forgets all that was remembered.
    pub fn close_all(&mut self) {
        let slots: Vec<Slot> = self.kernel().open.keys().copied().collect();
        for slot in slots {
            let _ = self.close(slot);
        }
        self.kernel().entries.clear();
        self.kernel().attrs.clear();
        self.give_back();
    }

    fn close(&mut self, slot: Slot) -> Reply {
        match self.kernel().open.remove(&slot).ok_or(Errno::EBADF)? {
            Open::File { ino, fh, .. } => {
                let flushed = self.done(Request::Flush { ino, fh });
                self.done(Request::Release { ino, fh })?;
                flushed
            }
            Open::Stream { ino, fh, .. } => self.done(Request::ReleaseDir { ino, fh }),
        }
    }

    fn file(&mut self, slot: Slot) -> Result<(Ino, Fh, bool, bool), Errno> {
        match self.kernel().open.get(&slot) {
            Some(Open::File { ino, fh, write, append, .. }) => Ok((*ino, *fh, *write, *append)),
            _ => Err(Errno::EBADF),
        }
    }

    fn open(&mut self, slot: Slot, path: &Path, how: &How) -> Reply {
        let _ = self.close(slot);
        let (name, parents) = path.0.split_last().ok_or(Errno::EISDIR)?;
        let chain = self.walk(parents)?;
        let parent = match chain.last() {
            Some(Attr { kind: Kind::Dir, ino, .. }) => *ino,
            _ => return Err(Errno::ENOTDIR),
        };
        let chain = chain.iter().map(|attr| attr.ino).collect();
        let found = self.lookup(parent, name)?;
        let How { exclusive, write, truncate, append, .. } = *how;
        let truncate = truncate && write;
        let flags = OpenFlags { write, truncate, append, exclusive };
        let (ino, fh) = match (how.create, found) {
            (Some(_), Some(_)) if exclusive => return Err(Errno::EEXIST),
            (None, None) => return Err(Errno::ENOENT),
            (Some(perm), None) => {
                let (name, caller) = (name.clone(), CALLER);
                match self.ask(Request::Create { parent, name, perm, flags, caller })? {
                    Response::Created(entry, opened) => (entry.attr.ino, opened.fh),
                    other => panic!("create: {other:?}"),
                }
            }
            (_, Some(attr)) => {
                match attr.kind {
                    Kind::File => {}
                    Kind::Dir => return Err(Errno::EISDIR),
                    Kind::Symlink => return Err(Errno::ELOOP),
                    _ => return Err(Errno::ENXIO),
                }
                match self.ask(Request::Open { ino: attr.ino, flags })? {
                    Response::Opened(opened) => (attr.ino, opened.fh),
                    other => panic!("open: {other:?}"),
                }
            }
        };
        self.kernel().open.insert(slot, Open::File { ino, fh, write, append, chain });
        Ok(Outcome::Done)
    }

    fn read(&mut self, ino: Ino, fh: Fh, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        let mut size = len;
        if self.kernel().caches {
            // The page cache goes no further than the length it believes in.
            let end = self.getattr(ino)?.size;
            size = u32::try_from(end.saturating_sub(offset)).unwrap_or(len).min(len);
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        match self.ask(Request::Read { ino, fh, offset, size })? {
            Response::Data(bytes) => Ok(bytes.to_vec()),
            other => panic!("read: {other:?}"),
        }
    }

    fn write(&mut self, slot: Slot, offset: u64, data: &[u8]) -> Reply {
        let (ino, fh, write, append) = self.file(slot)?;
        if !write {
            return Err(Errno::EBADF);
        }
        if data.is_empty() {
            return Ok(Outcome::Written(0));
        }
        let offset = if append { self.getattr(ino)?.size } else { offset };
        let data = Bytes::copy_from_slice(data);
        match self.ask(Request::Write { ino, fh, offset, data })? {
            Response::Written(n) => Ok(Outcome::Written(u64::from(n))),
            other => panic!("write: {other:?}"),
        }
    }

    fn list(&mut self, slot: Slot, count: u16) -> Reply {
        let mut names = Vec::new();
        loop {
            let Some(Open::Stream { ino, fh, offset, .. }) = self.kernel().open.get(&slot) else {
                return Err(Errno::EBADF);
            };
            let (ino, fh, offset) = (*ino, *fh, *offset);
            let plus = count.is_multiple_of(2);
            let budget = DirEntry::cost(Name::MAX, plus) * usize::from(count.clamp(2, 40));
            let budget = u32::try_from(budget).unwrap_or(u32::MAX);
            let entries = match self.ask(Request::ReadDir { ino, fh, offset, budget, plus }) {
                Ok(Response::Dir(entries)) => entries,
                // The directory was removed: Linux says so, for POSIX the stream ends.
                Err(Errno::ENOENT) => Vec::new(),
                Err(errno) => return Err(errno),
                other => panic!("readdir: {other:?}"),
            };
            let used: usize =
                entries.iter().map(|it| DirEntry::cost(it.name.as_bytes().len(), plus)).sum();
            assert!(used <= budget as usize, "more entries than there is room for");
            let end = entries.is_empty();
            for entry in entries {
                if names.len() == usize::from(count) {
                    break;
                }
                let Some(Open::Stream { offset, .. }) = self.kernel().open.get_mut(&slot) else {
                    return Err(Errno::EBADF);
                };
                assert!(entry.offset > *offset, "offsets do not ascend: {entry:?}");
                *offset = entry.offset;
                if !matches!(entry.name.as_bytes(), b"." | b"..") {
                    names.push(entry.name);
                }
            }
            if end || !names.is_empty() {
                return Ok(Outcome::Page { names, end });
            }
        }
    }

    fn set(&mut self, ino: Ino, set: SetAttr) -> Reply {
        self.done(Request::SetAttr { ino, set, caller: CALLER })
    }

    fn bytes_of(&mut self, request: Request) -> Result<Vec<u8>, Errno> {
        match self.ask(request)? {
            Response::Target(bytes) | Response::Xattr(bytes) | Response::XattrNames(bytes) => {
                Ok(bytes.to_vec())
            }
            other => panic!("{other:?}"),
        }
    }

    fn xattr_names(&mut self, ino: Ino) -> Result<Vec<Name>, Errno> {
        let list = self.bytes_of(Request::ListXattr { ino })?;
        let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
        Ok(names.map(Name::from).collect())
    }

    // ---- operations

    fn try_run(&mut self, op: &Op) -> Reply {
        let caller = CALLER;
        match op {
            Op::Open { slot, path, how } => self.open(*slot, path, how),
            Op::Close { slot } => self.close(*slot),
            Op::Read { slot, offset, len } => {
                let (ino, fh, ..) = self.file(*slot)?;
                self.read(ino, fh, *offset, *len).map(Outcome::Bytes)
            }
            Op::Write { slot, offset, data } => self.write(*slot, *offset, data),
            Op::Fsync { slot } => {
                let (ino, fh, ..) = self.file(*slot)?;
                self.done(Request::Fsync { ino, fh, data_only: false })
            }
            Op::FTruncate { slot, size } => {
                let (ino, _, write, _) = self.file(*slot)?;
                if !write {
                    return Err(Errno::EINVAL);
                }
                self.set(ino, SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Op::Truncate { path, size } => {
                let ino = self.find(path)?.ino;
                self.set(ino, SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Op::Mkdir { path, perm } => {
                let (parent, name) = self.spot(path, Errno::EEXIST)?;
                self.done(Request::Mkdir { parent, name, perm: *perm, caller })
            }
            Op::Mknod { path, kind, perm } => {
                let (parent, name) = self.spot(path, Errno::EEXIST)?;
                let (kind, perm) = (*kind, *perm);
                self.done(Request::Mknod { parent, name, kind, perm, rdev: 0, caller })
            }
            Op::Symlink { path, target } => {
                let (parent, name) = self.spot(path, Errno::EEXIST)?;
                let target = Bytes::copy_from_slice(target);
                self.done(Request::Symlink { parent, name, target, caller })
            }
            Op::Link { from, to } => {
                let ino = self.find(from)?.ino;
                let (parent, name) = self.spot(to, Errno::EEXIST)?;
                self.done(Request::Link { ino, parent, name })
            }
            Op::Unlink { path } => {
                let (parent, name) = self.spot(path, Errno::EISDIR)?;
                self.done(Request::Unlink { parent, name })
            }
            Op::Rmdir { path } => {
                let (parent, name) = self.spot(path, Errno::EBUSY)?;
                self.done(Request::Rmdir { parent, name })
            }
            Op::Rename { from, to, mode } => {
                let (parent, name) = self.spot(from, Errno::EBUSY)?;
                let (to_parent, to_name) = self.spot(to, Errno::EBUSY)?;
                self.done(Request::Rename { parent, name, to_parent, to_name, mode: *mode })
            }
            Op::Stat { path } => {
                let attr = self.find(path)?;
                self.stat(attr)
            }
            Op::FStat { slot } => {
                let ino = self.kernel().open.get(slot).ok_or(Errno::EBADF)?.ino();
                let attr = self.getattr(ino)?;
                self.stat(attr)
            }
            Op::ReadLink { path } => {
                let ino = self.find(path)?.ino;
                self.bytes_of(Request::ReadLink { ino }).map(Outcome::Bytes)
            }
            Op::Chmod { path, perm } => {
                let ino = self.find(path)?.ino;
                self.set(ino, SetAttr { perm: Some(*perm), ..SetAttr::default() })
            }
            Op::Chown { path, uid, gid } => {
                let ino = self.find(path)?.ino;
                self.set(ino, SetAttr { uid: *uid, gid: *gid, ..SetAttr::default() })
            }
            Op::Utimens { path, atime, mtime } => {
                let ino = self.find(path)?.ino;
                let (atime, mtime) = (atime.map(SetTime::At), mtime.map(SetTime::At));
                self.set(ino, SetAttr { atime, mtime, ..SetAttr::default() })
            }
            Op::GetXattr { path, name } => {
                let (ino, name) = (self.find(path)?.ino, name.clone());
                self.bytes_of(Request::GetXattr { ino, name }).map(Outcome::Bytes)
            }
            Op::ListXattr { path } => {
                let ino = self.find(path)?.ino;
                Ok(Outcome::Names(self.xattr_names(ino)?.into_iter().collect()))
            }
            Op::SetXattr { path, name, value, mode } => {
                let (ino, name, mode) = (self.find(path)?.ino, name.clone(), *mode);
                let value = Bytes::copy_from_slice(value);
                self.done(Request::SetXattr { ino, name, value, mode })
            }
            Op::RemoveXattr { path, name } => {
                let (ino, name) = (self.find(path)?.ino, name.clone());
                self.done(Request::RemoveXattr { ino, name })
            }
            Op::OpenDir { slot, path } => {
                let _ = self.close(*slot);
                let chain = self.walk(&path.0)?;
                let ino = match chain.last() {
                    Some(Attr { kind: Kind::Dir, ino, .. }) => *ino,
                    _ => return Err(Errno::ENOTDIR),
                };
                let chain = chain.iter().map(|attr| attr.ino).collect();
                match self.ask(Request::OpenDir { ino })? {
                    Response::Opened(opened) => {
                        let stream = Open::Stream { ino, fh: opened.fh, offset: 0, chain };
                        self.kernel().open.insert(*slot, stream);
                        Ok(Outcome::Done)
                    }
                    other => panic!("opendir: {other:?}"),
                }
            }
            Op::ReadDir { slot, count } => self.list(*slot, *count),
            Op::RewindDir { slot } => match self.kernel().open.get_mut(slot) {
                Some(Open::Stream { offset, .. }) => {
                    *offset = 0;
                    Ok(Outcome::Done)
                }
                _ => Err(Errno::EBADF),
            },
        }
    }

    fn stat(&mut self, attr: Attr) -> Reply {
        let mut summary = summary(&attr);
        if attr.kind == Kind::Symlink {
            summary.target = Some(self.bytes_of(Request::ReadLink { ino: attr.ino })?);
        }
        Ok(Outcome::Stat(summary))
    }

    /// Everything about one path.
    fn look(&mut self, path: &Path, attr: &Attr) -> Result<Summary, Errno> {
        let mut summary = summary(attr);
        let ino = attr.ino;
        match attr.kind {
            Kind::Symlink => summary.target = Some(self.bytes_of(Request::ReadLink { ino })?),
            Kind::File => {
                let how = How::default();
                let slot = Slot(u8::MAX);
                self.open(slot, path, &how)?;
                let (ino, fh, ..) = self.file(slot)?;
                let size = u32::try_from(attr.size + 9).unwrap_or(u32::MAX);
                let contents = self.read(ino, fh, 0, size);
                self.close(slot)?;
                summary.contents = Some(contents?);
            }
            _ => {}
        }
        let mut xattrs = BTreeMap::new();
        for name in self.xattr_names(ino)? {
            let value = self.bytes_of(Request::GetXattr { ino, name: name.clone() })?;
            xattrs.insert(name, value);
        }
        summary.xattrs = Some(xattrs);
        Ok(summary)
    }

    fn find_and_look(&mut self, path: &Path) -> Result<(Attr, Summary), Errno> {
        let attr = self.find(path)?;
        Ok((attr, self.look(path, &attr)?))
    }

    /// The kernel meets `ESTALE`: it walks the path again, and believes nothing this time.
    fn doubt_all(&mut self) {
        self.kernel().entries.clear();
        self.kernel().attrs.clear();
    }

    /// As [`Executor::tree`], or why it cannot be told.
    pub fn try_tree(&mut self) -> Result<BTreeMap<Path, Summary>, (Path, Errno)> {
        let mut tree = BTreeMap::new();
        let mut firsts: BTreeMap<Ino, Path> = BTreeMap::new();
        let mut todo = alloc::vec![Path::default()];
        while let Some(path) = todo.pop() {
            let at = |errno| (path.clone(), errno);
            let mut seen = self.find_and_look(&path);
            if seen == Err(Errno::ESTALE) {
                self.doubt_all();
                seen = self.find_and_look(&path);
            }
            let (attr, mut summary) = seen.map_err(at)?;
            if attr.kind == Kind::Dir {
                let slot = Slot(u8::MAX);
                self.try_run(&Op::OpenDir { slot, path: path.clone() }).map_err(at)?;
                loop {
                    let page = self.list(slot, 1000).map_err(at)?;
                    let Outcome::Page { names, end } = page else { break };
                    todo.extend(names.into_iter().map(|name| path.join(name)));
                    if end {
                        break;
                    }
                }
                self.close(slot).map_err(at)?;
            }
            let first = firsts.entry(attr.ino).or_insert_with(|| path.clone());
            if path < *first {
                first.clone_from(&path);
            }
            summary.first = Some(first.clone());
            let again = tree.insert(path.clone(), summary);
            assert!(again.is_none(), "{path} is listed twice");
        }
        self.give_back();
        Ok(tree)
    }
}

impl Executor for Fs<'_> {
    fn run(&mut self, op: &Op, now: Wall) -> Reply {
        self.world.set_wall(now);
        let mut reply = self.try_run(op);
        if reply == Err(Errno::ESTALE) {
            self.doubt_all();
            reply = self.try_run(op);
        }
        self.give_back();
        reply
    }

    fn tree(&mut self) -> BTreeMap<Path, Summary> {
        match self.try_tree() {
            Ok(tree) => tree,
            Err((path, errno)) => panic!("{path} cannot be read: {errno}"),
        }
    }
}

fn summary(attr: &Attr) -> Summary {
    Summary {
        kind: attr.kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        size: attr.size,
        nlink: Some(attr.nlink),
        mtime: Some(attr.mtime),
        ctime: Some(attr.ctime),
        contents: None,
        target: None,
        xattrs: None,
        first: None,
    }
}
