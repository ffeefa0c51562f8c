//! Programs on a mount: each operation as the requests that the kernel makes of it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::errno::Errno;
use crate::id::{Fh, Ino, LockOwner};
use crate::op::{Attr, DirEntry, Kind, Name, OpenFlags, Request, Response, SetAttr, SetTime};
use crate::sim::ops::{Executor, How, Op, Outcome, Path, Reply, Slot, Summary};
use crate::time::Wall;

use super::kernel::{CALLER, Fs, Open};
use super::site::Site;

impl<S: Site> Fs<'_, S> {
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
                let flushed = self.done(Request::Flush { ino, fh, owner: LockOwner(0) });
                self.done(Request::Release { ino, fh, owner: None })?;
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
            Op::Fallocate { slot, offset, len, mode } => {
                let (ino, fh, write, _) = self.file(*slot)?;
                if !write {
                    return Err(Errno::EBADF);
                }
                let (offset, length, mode) = (*offset, *len, *mode);
                self.done(Request::Fallocate { ino, fh, offset, length, mode })
            }
            Op::Seek { slot, offset, whence } => {
                let (ino, fh, ..) = self.file(*slot)?;
                let (offset, whence) = (*offset, *whence);
                match self.ask(Request::Seek { ino, fh, offset, whence })? {
                    Response::Offset(at) => Ok(Outcome::Offset(at)),
                    other => panic!("seek: {other:?}"),
                }
            }
            Op::CopyRange { slot, offset, to, to_offset, len } => {
                let ((ino, fh, ..), (to_ino, to_fh, write, append)) =
                    (self.file(*slot)?, self.file(*to)?);
                if !write || append {
                    return Err(Errno::EBADF);
                }
                let (offset, to_offset, length) = (*offset, *to_offset, *len);
                let request =
                    Request::CopyRange { ino, fh, offset, to_ino, to_fh, to_offset, length };
                match self.ask(request)? {
                    Response::Written(n) => Ok(Outcome::Written(u64::from(n))),
                    other => panic!("copy_file_range: {other:?}"),
                }
            }
            Op::Mkdir { path, perm } => {
                let (parent, name) = self.spot(path, Errno::EEXIST)?;
                self.done(Request::Mkdir { parent, name, perm: *perm, caller })
            }
            Op::Mknod { path, kind, perm, rdev } => {
                let (parent, name) = self.spot(path, Errno::EEXIST)?;
                let (kind, perm, rdev) = (*kind, *perm, *rdev);
                self.done(Request::Mknod { parent, name, kind, perm, rdev, caller })
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
            let (attr, summary) = seen.map_err(at)?;
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
            let again = tree.insert(path.clone(), (attr.ino, summary));
            assert!(again.is_none(), "{path} is listed twice");
        }
        self.give_back();
        let finished = tree.into_iter().map(|(path, (ino, mut summary))| {
            summary.first = firsts.get(&ino).cloned();
            (path, summary)
        });
        Ok(finished.collect())
    }
}

impl<S: Site> Executor for Fs<'_, S> {
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
            Err((path, errno)) => {
                let said = self.world.notices(self.at).last();
                panic!("{path} cannot be read: {errno}; {said:?}")
            }
        }
    }
}

fn summary(attr: &Attr) -> Summary {
    Summary {
        kind: attr.kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
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
