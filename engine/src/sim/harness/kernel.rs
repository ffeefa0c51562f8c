//! The kernel in front of a mount: paths walked by lookups, references given back and, if wanted,
//! the caches whose leases the engine answers for.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::contract::Invalidation;
use crate::errno::Errno;
use crate::id::{Fh, Ino};
use crate::op::{Attr, Caller, Entry, Kind, Name, OpenFlags, RenameMode, Request, Response};
use crate::sim::ops::{Outcome, Path, Reply, Slot};
use crate::time::{Duration, Mono};

use super::World;
use super::site::Site;

/// Who asks, in all requests: the owner of what has no record, with [`super::Setup`]'s defaults.
pub const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1, umask: 0 };

/// What the kernel remembers of a mount.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Lookups that were counted and not given back.
    looked: BTreeMap<Ino, u64>,
    pub(super) open: BTreeMap<Slot, Open>,
    pub(super) caches: bool,
    /// Where a name leads, and until when that may be believed.
    pub(super) entries: BTreeMap<(Ino, Name), (Option<Ino>, Mono)>,
    pub(super) attrs: BTreeMap<Ino, (Attr, Mono)>,
}

#[derive(Clone, Debug)]
pub(super) enum Open {
    File { ino: Ino, fh: Fh, write: bool, append: bool, chain: Vec<Ino> },
    Stream { ino: Ino, fh: Fh, offset: u64, chain: Vec<Ino> },
}

impl Open {
    pub(super) fn ino(&self) -> Ino {
        match self {
            Open::File { ino, .. } | Open::Stream { ino, .. } => *ino,
        }
    }

    /// The directories above, which a file that is open keeps.
    pub(super) fn chain(&self) -> &[Ino] {
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
pub struct Fs<'a, S: Site> {
    pub(super) world: &'a mut World<S>,
    pub(super) at: usize,
}

impl<'a, S: Site> Fs<'a, S> {
    pub(super) fn new(world: &'a mut World<S>, at: usize) -> Self {
        Fs { world, at }
    }

    pub(super) fn kernel(&mut self) -> &mut Kernel {
        &mut self.world.mounts[self.at].kernel
    }

    pub(super) fn now(&self) -> Mono {
        self.world.now.mono
    }

    /// Asks the engine. What the kernel knows changes with the answer.
    pub(super) fn ask(&mut self, request: Request) -> Result<Response, Errno> {
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
                | Request::Symlink { parent, name, .. }
                | Request::Link { parent, name, .. },
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
            (Ok(Response::Done), Request::Rename { parent, name, to_parent, to_name, mode }) => {
                // The name moves with its lease, and so does the other when they change places.
                let (from, to) = ((*parent, name.clone()), (*to_parent, to_name.clone()));
                let (moved, other) = (kernel.entries.remove(&from), kernel.entries.remove(&to));
                let same = moved.map(|it| it.0) == other.map(|it| it.0);
                if *mode == RenameMode::Exchange || same {
                    kernel.entries.extend(other.map(|other| (from, other)));
                }
                kernel.entries.extend(moved.map(|moved| (to, moved)));
            }
            _ => {}
        }
        answer
    }

    /// What a request changes is not believed any more.
    fn distrust(&mut self, request: &Request) {
        let kernel = self.kernel();
        let mut changed = Vec::new();
        let unknown = match request {
            Request::Unlink { parent, name } | Request::Rename { parent, name, .. } => {
                !kernel.entries.contains_key(&(*parent, name.clone()))
            }
            _ => false,
        };
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
                // A real kernel would have looked the name up.
                if gone.is_none() {
                    kernel.attrs.clear();
                }
            }
            Request::Rename { parent, name, to_parent, to_name, mode } => {
                changed.extend([*parent, *to_parent]);
                let moved = kernel.entries.get(&(*parent, name.clone())).copied();
                changed.extend(moved.and_then(|(ino, _)| ino));
                let at = (*to_parent, to_name.clone());
                let there = kernel.entries.get(&at).copied();
                // Two names of one file stay both.
                let stays =
                    *mode == RenameMode::Exchange || moved.map(|it| it.0) == there.map(|it| it.0);
                if !stays {
                    kernel.entries.remove(&at);
                }
                changed.extend(there.and_then(|(ino, _)| ino));
            }
            Request::Link { ino, parent, name } => {
                changed.extend([*ino, *parent]);
                kernel.entries.remove(&(*parent, name.clone()));
            }
            Request::SetAttr { ino, .. }
            | Request::SetXattr { ino, .. }
            | Request::RemoveXattr { ino, .. }
            | Request::Write { ino, .. }
            | Request::Fallocate { ino, .. }
            | Request::CopyRange { to_ino: ino, .. }
            | Request::Open { ino, flags: OpenFlags { truncate: true, .. } } => changed.push(*ino),
            _ => {}
        }
        if unknown {
            // The real one has looked up what it is about.
            kernel.attrs.clear();
        }
        for ino in changed {
            kernel.attrs.remove(&ino);
        }
    }

    pub(super) fn done(&mut self, request: Request) -> Reply {
        self.ask(request).map(|_| Outcome::Done)
    }

    // ---- paths

    pub(super) fn getattr(&mut self, ino: Ino) -> Result<Attr, Errno> {
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

    pub(super) fn lookup(&mut self, parent: Ino, name: &Name) -> Result<Option<Attr>, Errno> {
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
    pub(super) fn walk(&mut self, path: &[Name]) -> Result<Vec<Attr>, Errno> {
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

    /// The inode that a path leads to.
    ///
    /// # Errors
    ///
    /// As a walk along the path comes to.
    pub fn ino(&mut self, path: &Path) -> Result<Ino, Errno> {
        self.find(path).map(|attr| attr.ino)
    }

    pub(super) fn find(&mut self, path: &Path) -> Result<Attr, Errno> {
        self.walk(&path.0)?.pop().ok_or(Errno::ENOENT)
    }

    /// The directory of the last name; `root` is for the path that has none.
    pub(super) fn spot(&mut self, path: &Path, root: Errno) -> Result<(Ino, Name), Errno> {
        let (name, parents) = path.0.split_last().ok_or(root)?;
        match self.walk(parents)?.last() {
            Some(Attr { kind: Kind::Dir, ino, .. }) => Ok((*ino, name.clone())),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Gives back the references that nothing stands on.
    pub(super) fn give_back(&mut self) {
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
}
