//! Decisions at work: the simplest layout there could be, and the kernel in front of it. Also an
//! example of an [`Executor`].

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use crate::decide::testing::{Leases, ME};
use crate::decide::{
    Answer, Caps, Change, Check, Decision, Fact, Facts, Held, Missing, Plan, Reply as Ready, View,
    Want, decide,
};
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{
    Attr, Kind, Name, OpenFlags, Request, Response, SetAttr, SetTime, StatFs, Whence, XattrMode,
};
use crate::sim::ops::{Executor, How, Op, Outcome, Path, Reply, Slot, Summary};
use crate::time::Wall;

/// A layout that keeps everything in maps, and the kernel in front of it.
#[derive(Debug)]
pub(super) struct Store {
    caps: Caps,
    names: BTreeMap<(Ino, Name), Ino>,
    attrs: BTreeMap<Ino, Attr>,
    bytes: BTreeMap<Ino, Vec<u8>>,
    xattrs: BTreeMap<(Ino, Name), Bytes>,
    next: u64,
    open: BTreeMap<Slot, Open>,
    now: Wall,
}

#[derive(Debug)]
enum Open {
    File { ino: Ino, write: bool, append: bool },
    Stream { ino: Ino, after: Option<Name> },
}

impl Open {
    fn ino(&self) -> Ino {
        match self {
            Open::File { ino, .. } | Open::Stream { ino, .. } => *ino,
        }
    }
}

impl Held for Store {
    fn is_held(&self, ino: Ino) -> bool {
        self.open.values().any(|open| open.ino() == ino)
    }
}

/// What a request came to, as the kernel sees it.
enum Done {
    Nothing,
    Attr(Attr),
    NoEntry,
    Ready(Response),
}

impl Done {
    fn attr(self) -> Result<Attr, Errno> {
        match self {
            Done::Attr(attr) => Ok(attr),
            _ => Err(Errno::ENOENT),
        }
    }
}

impl Store {
    pub(super) fn new(caps: Caps) -> Store {
        let at = Wall(0);
        let root = Attr {
            ino: Ino::ROOT,
            kind: Kind::Dir,
            perm: 0o755,
            nlink: if caps.dir_nlink { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: at,
            mtime: at,
            ctime: at,
        };
        Store {
            caps,
            names: BTreeMap::new(),
            attrs: BTreeMap::from([(Ino::ROOT, root)]),
            bytes: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            next: 2,
            open: BTreeMap::new(),
            now: at,
        }
    }

    /// The transaction machine in short: it leases nothing, and assumes until a check fails.
    fn ask(&mut self, request: &Request) -> Result<Done, Errno> {
        let mut fresh = Facts::new();
        let mut assume = true;
        loop {
            let cached = Leases(Facts::new());
            let (caps, now, read_only) = (self.caps, self.now, false);
            let view =
                View { fresh: &fresh, cached: &cached, caps, now, read_only, assume, held: self };
            match decide(request, &view) {
                Err(Missing(wants)) => {
                    for want in wants {
                        if let Fact::Entry(Some(ino)) = self.fact(&want) {
                            fresh.insert(Want::Attr(ino), self.fact(&Want::Attr(ino)));
                        }
                        let fact = self.fact(&want);
                        fresh.insert(want, fact);
                    }
                }
                Ok(Decision::Commit(plan)) if !plan.checks.iter().all(|c| self.holds(c)) => {
                    assert!(assume, "fresh facts speak for a check that fails: {plan:?}");
                    fresh.clear();
                    assume = false;
                }
                Ok(Decision::Commit(plan)) => return Ok(self.commit(plan)),
                Ok(Decision::Elsewhere) => panic!("{request:?}"),
                Ok(Decision::Reply(reply)) => {
                    return Ok(match reply? {
                        Ready::Ready(response) => Done::Ready(response),
                        Ready::Entry(attr) | Ready::Attr(attr) => Done::Attr(attr),
                        Ready::OpenExisting(attr) => Done::Attr(attr),
                        Ready::NoEntry => Done::NoEntry,
                    });
                }
            }
        }
    }

    fn fact(&self, want: &Want) -> Fact {
        match want {
            Want::Entry(dir, name) => Fact::Entry(self.names.get(&(*dir, name.clone())).copied()),
            Want::Attr(ino) => Fact::Attr(self.attrs.get(ino).copied()),
            Want::Empty(dir) => Fact::Empty(!self.names.keys().any(|(d, _)| d == dir)),
            Want::Below { dir, ancestor } => Fact::Below(self.below(*dir, *ancestor)),
            Want::Target(ino) => {
                Fact::Target(self.bytes.get(ino).cloned().unwrap_or_default().into())
            }
            Want::Xattr(ino, name) => Fact::Xattr(self.xattrs.get(&(*ino, name.clone())).cloned()),
            Want::XattrNames(ino) => Fact::XattrNames(
                self.xattrs.keys().filter(|(i, _)| i == ino).map(|(_, n)| n.clone()).collect(),
            ),
            Want::StatFs => Fact::StatFs(StatFs::default()),
            // Everything is data.
            Want::Seek(_, offset, Whence::Data) => Fact::Seek(Some(*offset)),
            Want::Seek(_, _, Whence::Hole) => Fact::Seek(None),
            Want::FreshIno(..) => Fact::FreshIno(Ino(self.next)),
        }
    }

    fn below(&self, dir: Ino, ancestor: Ino) -> bool {
        let up = |at| self.names.iter().find(|(_, ino)| **ino == at).map(|((dir, _), _)| *dir);
        let mut at = Some(dir);
        while let Some(ino) = at {
            if ino == ancestor {
                return true;
            }
            at = up(ino);
        }
        false
    }

    fn holds(&self, check: &Check) -> bool {
        match check {
            Check::LiveDir(ino) => {
                self.attrs.get(ino).is_some_and(|a| a.kind == Kind::Dir && a.nlink > 0)
            }
            Check::Live(ino) => self.attrs.contains_key(ino),
            Check::Links(ino, links) => self.attrs[ino].nlink == *links,
            Check::Free(dir, name) => !self.names.contains_key(&(*dir, name.clone())),
            Check::Leads(dir, name, ino) => self.names.get(&(*dir, name.clone())) == Some(ino),
            Check::Empty(dir) => self.fact(&Want::Empty(*dir)) == Fact::Empty(true),
            Check::NotBelow { dir, ancestor } => !self.below(*dir, *ancestor),
            Check::Xattr(ino, name, mode) => {
                let there = self.xattrs.contains_key(&(*ino, name.clone()));
                *mode == XattrMode::Any || there == (*mode == XattrMode::Replace)
            }
        }
    }

    fn commit(&mut self, plan: Plan) -> Done {
        for change in plan.changes {
            self.change(change);
        }
        match plan.answer {
            Answer::Done => Done::Nothing,
            Answer::Written(bytes) => Done::Ready(Response::Written(bytes)),
            Answer::Entry(ino) | Answer::Created(ino) | Answer::Attr(ino) => {
                Done::Attr(self.attrs[&ino])
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Create { dir, name, attr, target } => {
                self.next += 1;
                self.names.insert((dir, name), attr.ino);
                self.attrs.insert(attr.ino, attr);
                self.bytes.insert(attr.ino, target.unwrap_or_default().to_vec());
            }
            Change::Link { ino, dir, name } => {
                self.names.insert((dir, name), ino);
                self.attr(ino).nlink += 1;
            }
            Change::Unlink { dir, name, ino, kind, last, held } => {
                assert_eq!(self.names.remove(&(dir, name)), Some(ino));
                let attr = self.attr(ino);
                attr.nlink = if kind == Kind::Dir { 0 } else { attr.nlink - 1 };
                assert_eq!(last, attr.nlink == 0);
                if last && !held {
                    self.forget(ino);
                }
            }
            Change::Rename { dir, name, to_dir, to_name, ino, .. } => {
                assert_eq!(self.names.remove(&(dir, name)), Some(ino));
                assert_eq!(self.names.insert((to_dir, to_name), ino), None);
            }
            Change::Exchange { a, b } => {
                assert_eq!(self.names.insert((a.0, a.1), b.2), Some(a.2));
                assert_eq!(self.names.insert((b.0, b.1), a.2), Some(b.2));
            }
            Change::SetAttr { ino, patch } => {
                let attr = self.attr(ino);
                attr.perm = patch.perm.unwrap_or(attr.perm);
                attr.uid = patch.uid.unwrap_or(attr.uid);
                attr.gid = patch.gid.unwrap_or(attr.gid);
                attr.size = patch.size.unwrap_or(attr.size);
                attr.atime = patch.atime.unwrap_or(attr.atime);
                attr.mtime = patch.mtime.unwrap_or(attr.mtime);
                attr.ctime = patch.ctime.unwrap_or(attr.ctime);
                if let Some(size) = patch.size {
                    self.bytes.entry(ino).or_default().resize(size as usize, 0);
                }
            }
            Change::Touch { dir, at, nlink } => {
                let attr = self.attr(dir);
                (attr.mtime, attr.ctime) = (at, at);
                attr.nlink = attr.nlink.checked_add_signed(nlink).unwrap();
            }
            Change::Zero { ino, from, to } => {
                let bytes = self.bytes.entry(ino).or_default();
                let to = (to as usize).min(bytes.len());
                bytes[from as usize..to].fill(0);
            }
            Change::Grow { ino, size } => {
                let attr = self.attr(ino);
                attr.size = attr.size.max(size);
                let size = attr.size as usize;
                self.bytes.entry(ino).or_default().resize(size, 0);
            }
            Change::Copy { from, to, length } => {
                let (start, end) = (from.1 as usize, (from.1 + length) as usize);
                let piece = self.bytes[&from.0][start..end].to_vec();
                let bytes = self.bytes.entry(to.0).or_default();
                let (start, end) = (to.1 as usize, (to.1 + length) as usize);
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(&piece);
            }
            Change::Xattr { ino, name, value, at } => {
                self.attr(ino).ctime = at;
                match value {
                    Some(value) => self.xattrs.insert((ino, name), value),
                    None => self.xattrs.remove(&(ino, name)),
                };
            }
        }
    }

    fn attr(&mut self, ino: Ino) -> &mut Attr {
        self.attrs.get_mut(&ino).unwrap()
    }

    fn forget(&mut self, ino: Ino) {
        self.attrs.remove(&ino);
        self.bytes.remove(&ino);
        self.xattrs.retain(|(i, _), _| *i != ino);
    }

    /// An inode that nothing leads to.
    pub(super) fn lost(&self) -> Option<Ino> {
        let lost = |ino: &&Ino| {
            let named = **ino == Ino::ROOT || self.names.values().any(|named| named == *ino);
            !named && !self.is_held(**ino)
        };
        self.attrs.keys().find(lost).copied()
    }

    // The kernel's part.

    fn walk(&mut self, path: &[Name]) -> Result<Attr, Errno> {
        let mut at = self.attrs[&Ino::ROOT];
        for name in path {
            at = self.ask(&Request::Lookup { parent: at.ino, name: name.clone() })?.attr()?;
        }
        Ok(at)
    }

    fn spot(&mut self, path: &Path, root: Errno) -> Result<(Ino, Name), Errno> {
        let (name, parents) = path.0.split_last().ok_or(root)?;
        match self.walk(parents)? {
            Attr { kind: Kind::Dir, ino, .. } => Ok((ino, name.clone())),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn close(&mut self, slot: Slot) -> Reply {
        let ino = self.open.remove(&slot).ok_or(Errno::EBADF)?.ino();
        if self.attrs[&ino].nlink == 0 && !self.is_held(ino) {
            self.forget(ino);
        }
        Ok(Outcome::Done)
    }

    fn file(&self, slot: Slot) -> Result<(Ino, bool, bool), Errno> {
        match self.open.get(&slot) {
            Some(Open::File { ino, write, append }) => Ok((*ino, *write, *append)),
            _ => Err(Errno::EBADF),
        }
    }

    fn set(&mut self, ino: Ino, set: SetAttr) -> Reply {
        self.ask(&Request::SetAttr { ino, set, caller: ME }).map(|_| Outcome::Done)
    }

    fn done(&mut self, request: Request) -> Reply {
        self.ask(&request).map(|_| Outcome::Done)
    }

    fn try_run(&mut self, op: &Op) -> Reply {
        let caller = ME;
        match op {
            Op::Open { slot, path, how } => {
                let _ = self.close(*slot);
                let (parent, name) = self.spot(path, Errno::EISDIR)?;
                let lookup = Request::Lookup { parent, name: name.clone() };
                let found = self.ask(&lookup)?.attr().ok();
                if how.create.is_some() && how.exclusive && found.is_some() {
                    return Err(Errno::EEXIST);
                }
                match found.map(|attr| attr.kind) {
                    None | Some(Kind::File) => {}
                    Some(Kind::Dir) => return Err(Errno::EISDIR),
                    Some(Kind::Symlink) => return Err(Errno::ELOOP),
                    Some(_) => return Err(Errno::ENXIO),
                }
                let attr = match (how.create, found) {
                    (Some(perm), _) => {
                        let How { exclusive, write, truncate, append, .. } = *how;
                        let flags = OpenFlags { write, truncate, append, exclusive };
                        self.ask(&Request::Create { parent, name, perm, flags, caller })?.attr()?
                    }
                    (None, found) => found.ok_or(Errno::ENOENT)?,
                };
                if how.truncate && found.is_some() {
                    self.set(attr.ino, SetAttr { size: Some(0), ..SetAttr::default() })?;
                }
                let (write, append) = (how.write, how.append);
                self.open.insert(*slot, Open::File { ino: attr.ino, write, append });
                Ok(Outcome::Done)
            }
            Op::Close { slot } => self.close(*slot),
            Op::Read { slot, offset, len } => {
                let bytes = &self.bytes[&self.file(*slot)?.0];
                let rest = bytes.get(*offset as usize..).unwrap_or_default();
                Ok(Outcome::Bytes(rest[..rest.len().min(*len as usize)].to_vec()))
            }
            Op::Write { slot, offset, data } => {
                let (ino, write, append) = self.file(*slot)?;
                if !write || data.is_empty() {
                    return if write { Ok(Outcome::Written(0)) } else { Err(Errno::EBADF) };
                }
                let bytes = self.bytes.entry(ino).or_default();
                let start = if append { bytes.len() } else { *offset as usize };
                let end = start + data.len();
                if end as u64 > self.caps.max_file_size {
                    return Err(Errno::EFBIG);
                }
                bytes.resize(bytes.len().max(end), 0);
                bytes[start..end].copy_from_slice(data);
                let (size, now) = (bytes.len() as u64, self.now);
                let attr = self.attr(ino);
                (attr.size, attr.mtime, attr.ctime) = (size, now, now);
                Ok(Outcome::Written(data.len() as u64))
            }
            Op::Fsync { slot } => self.file(*slot).map(|_| Outcome::Done),
            // Not generated where there are no holes.
            Op::Fallocate { .. } | Op::Seek { .. } | Op::CopyRange { .. } => Err(Errno::EOPNOTSUPP),
            Op::FTruncate { slot, size } => {
                let (ino, write, _) = self.file(*slot)?;
                if !write {
                    return Err(Errno::EINVAL);
                }
                self.set(ino, SetAttr { size: Some(*size), ..SetAttr::default() })
            }
            Op::Truncate { path, size } => {
                let ino = self.walk(&path.0)?.ino;
                self.set(ino, SetAttr { size: Some(*size), ..SetAttr::default() })
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
                let ino = self.walk(&from.0)?.ino;
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
                let attr = self.walk(&path.0)?;
                Ok(Outcome::Stat(self.summary(attr)))
            }
            Op::FStat { slot } => {
                let ino = self.open.get(slot).ok_or(Errno::EBADF)?.ino();
                let attr = self.ask(&Request::GetAttr { ino })?.attr()?;
                Ok(Outcome::Stat(self.summary(attr)))
            }
            Op::ReadLink { path } => {
                let ino = self.walk(&path.0)?.ino;
                self.bytes_of(&Request::ReadLink { ino }).map(Outcome::Bytes)
            }
            Op::Chmod { path, perm } => {
                let ino = self.walk(&path.0)?.ino;
                self.set(ino, SetAttr { perm: Some(*perm), ..SetAttr::default() })
            }
            Op::Chown { path, uid, gid } => {
                let ino = self.walk(&path.0)?.ino;
                self.set(ino, SetAttr { uid: *uid, gid: *gid, ..SetAttr::default() })
            }
            Op::Utimens { path, atime, mtime } => {
                let ino = self.walk(&path.0)?.ino;
                let (atime, mtime) = (atime.map(SetTime::At), mtime.map(SetTime::At));
                self.set(ino, SetAttr { atime, mtime, ..SetAttr::default() })
            }
            Op::GetXattr { path, name } => {
                let (ino, name) = (self.walk(&path.0)?.ino, name.clone());
                self.bytes_of(&Request::GetXattr { ino, name }).map(Outcome::Bytes)
            }
            Op::ListXattr { path } => {
                let ino = self.walk(&path.0)?.ino;
                let list = self.bytes_of(&Request::ListXattr { ino })?;
                let names = list.split(|b| *b == 0).filter(|name| !name.is_empty());
                Ok(Outcome::Names(names.map(Name::from).collect()))
            }
            Op::SetXattr { path, name, value, mode } => {
                let (ino, name, mode) = (self.walk(&path.0)?.ino, name.clone(), *mode);
                let value = Bytes::copy_from_slice(value);
                self.done(Request::SetXattr { ino, name, value, mode })
            }
            Op::RemoveXattr { path, name } => {
                let (ino, name) = (self.walk(&path.0)?.ino, name.clone());
                self.done(Request::RemoveXattr { ino, name })
            }
            Op::OpenDir { slot, path } => {
                let _ = self.close(*slot);
                let attr = self.walk(&path.0)?;
                if attr.kind != Kind::Dir {
                    return Err(Errno::ENOTDIR);
                }
                self.open.insert(*slot, Open::Stream { ino: attr.ino, after: None });
                Ok(Outcome::Done)
            }
            Op::ReadDir { slot, count } => {
                let Some(Open::Stream { ino, after }) = self.open.get_mut(slot) else {
                    return Err(Errno::EBADF);
                };
                let start = match after.clone() {
                    Some(name) => Bound::Excluded((*ino, name)),
                    None => Bound::Included((*ino, Name::from(""))),
                };
                let rest = self.names.range((start, Bound::Unbounded));
                let mut rest = rest.map(|((dir, name), _)| (dir, name)).take_while(|e| e.0 == ino);
                let names: Vec<Name> =
                    rest.by_ref().take(usize::from(*count)).map(|(_, name)| name.clone()).collect();
                *after = names.last().cloned().or(after.take());
                Ok(Outcome::Page { end: rest.next().is_none(), names })
            }
            Op::RewindDir { slot } => match self.open.get_mut(slot) {
                Some(Open::Stream { after, .. }) => {
                    *after = None;
                    Ok(Outcome::Done)
                }
                _ => Err(Errno::EBADF),
            },
        }
    }

    fn bytes_of(&mut self, request: &Request) -> Result<Vec<u8>, Errno> {
        match self.ask(request)? {
            Done::Ready(
                Response::Target(bytes) | Response::Xattr(bytes) | Response::XattrNames(bytes),
            ) => Ok(bytes.to_vec()),
            _ => panic!("{request:?}"),
        }
    }

    fn summary(&self, attr: Attr) -> Summary {
        let bytes = || self.bytes.get(&attr.ino).cloned();
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
            contents: if attr.kind == Kind::File { bytes() } else { None },
            target: if attr.kind == Kind::Symlink { bytes() } else { None },
            xattrs: None,
            first: None,
        }
    }
}

impl Executor for Store {
    fn run(&mut self, op: &Op, now: Wall) -> Reply {
        self.now = now;
        self.try_run(op)
    }

    fn tree(&mut self) -> BTreeMap<Path, Summary> {
        let mut todo = alloc::vec![(Path::default(), Ino::ROOT)];
        let mut tree = BTreeMap::new();
        while let Some((path, ino)) = todo.pop() {
            let mut summary = self.summary(self.attrs[&ino]);
            let xattrs = self.xattrs.iter().filter(|((i, _), _)| *i == ino);
            summary.xattrs = Some(xattrs.map(|((_, n), v)| (n.clone(), v.to_vec())).collect());
            todo.extend(
                self.names
                    .iter()
                    .filter(|((dir, _), _)| *dir == ino)
                    .map(|((_, name), ino)| (path.join(name.clone()), *ino)),
            );
            tree.insert(path, summary);
        }
        tree
    }
}
