//! The model's names: how they are made, moved and taken away, and what that does to times and to
//! directory streams that are being read.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Handle, Id, Model, Node};
use crate::errno::Errno;
use crate::op::{Kind, Name, RenameMode};
use crate::sim::ops::{Outcome, Path, Reply};
use crate::time::Wall;

impl Model {
    pub(super) fn link(&mut self, from: &Path, to: &Path, now: Wall) -> Reply {
        let id = self.find(from)?;
        let (dir, name) = self.free(to)?;
        if self.nodes[&id].kind == Kind::Dir || !self.caps.hard_links {
            return Err(Errno::EPERM);
        }
        if self.nlink(id) >= self.caps.max_links {
            return Err(Errno::EMLINK);
        }
        self.node(id).ctime = now;
        self.attach(dir, name, id, now);
        Ok(Outcome::Done)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path, mode: RenameMode, now: Wall) -> Reply {
        let (from_dir, from_name) = self.spot(from)?.ok_or(Errno::EBUSY)?;
        let (to_dir, to_name) = self.spot(to)?.ok_or(Errno::EBUSY)?;
        let source = self.child(from_dir, &from_name)?.ok_or(Errno::ENOENT)?;
        let target = self.child(to_dir, &to_name)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if target == Some(source) {
            return Ok(Outcome::Done);
        }
        // rename: a directory below itself. renameat2(2): a flag that is not supported.
        let unsupported = mode == RenameMode::Exchange && !self.caps.exchange;
        if unsupported || self.reaches(source, to_dir) {
            return Err(Errno::EINVAL);
        }
        let is_dir = |model: &Model, id: Id| model.nodes[&id].kind == Kind::Dir;
        let across = from_dir != to_dir;
        let full = |model: &Model, dir: Id| {
            across && model.caps.dir_nlink && model.nlink(dir) >= model.caps.max_links
        };
        if let (RenameMode::Exchange, Some(target)) = (mode, target) {
            if self.reaches(target, from_dir) {
                return Err(Errno::EINVAL);
            }
            let kinds = (is_dir(self, source), is_dir(self, target));
            let fuller = match kinds {
                (true, false) => full(self, to_dir),
                (false, true) => full(self, from_dir),
                _ => false,
            };
            if fuller {
                return Err(Errno::EMLINK);
            }
            self.detach(from_dir, &from_name, now);
            self.detach(to_dir, &to_name, now);
            self.attach(from_dir, from_name, target, now);
            self.attach(to_dir, to_name, source, now);
            self.renamed(target, now);
        } else {
            match target.map(|target| (is_dir(self, source), is_dir(self, target), target)) {
                Some((true, false, _)) => return Err(Errno::ENOTDIR),
                Some((false, true, _)) => return Err(Errno::EISDIR),
                Some((true, true, target)) if !self.nodes[&target].entries.is_empty() => {
                    return Err(Errno::ENOTEMPTY);
                }
                Some((true, true, _)) => {}
                _ if is_dir(self, source) && full(self, to_dir) => return Err(Errno::EMLINK),
                _ => {}
            }
            self.detach(from_dir, &from_name, now);
            if target.is_some() {
                self.unlink(to_dir, &to_name, now);
            }
            self.attach(to_dir, to_name, source, now);
        }
        self.renamed(source, now);
        Ok(Outcome::Done)
    }

    fn renamed(&mut self, id: Id, now: Wall) {
        if self.caps.rename_ctime {
            self.node(id).ctime = now;
        }
    }

    /// Whether `below` is `above` or lies below it.
    fn reaches(&self, above: Id, below: Id) -> bool {
        above == below || self.nodes[&above].entries.values().any(|id| self.reaches(*id, below))
    }

    pub(super) fn make(&mut self, dir: Id, name: Name, kind: Kind, perm: u16, now: Wall) -> Id {
        let id = Id(self.next);
        self.next += 1;
        let parent = &self.nodes[&dir];
        let inherits = parent.perm & 0o2000 != 0;
        let node = Node {
            kind,
            perm: if inherits && kind == Kind::Dir { perm | 0o2000 } else { perm },
            uid: self.caller.uid,
            gid: if inherits { parent.gid } else { self.caller.gid },
            rdev: 0,
            mtime: now,
            ctime: now,
            bytes: Vec::new(),
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
        };
        self.nodes.insert(id, node);
        self.attach(dir, name, id, now);
        id
    }

    fn attach(&mut self, dir: Id, name: Name, id: Id, now: Wall) {
        for handle in self.handles.values_mut() {
            match handle {
                Handle::Stream { id, ever, .. } if *id == dir => {
                    ever.insert(name.clone());
                }
                _ => {}
            }
        }
        self.entries_changed(dir, now).insert(name, id);
    }

    fn detach(&mut self, dir: Id, name: &Name, now: Wall) -> Option<Id> {
        for handle in self.handles.values_mut() {
            match handle {
                Handle::Stream { id, always, .. } if *id == dir => {
                    always.remove(name);
                }
                _ => {}
            }
        }
        self.entries_changed(dir, now).remove(name)
    }

    /// A name goes away for good, or as the target of a rename.
    pub(super) fn unlink(&mut self, dir: Id, name: &Name, now: Wall) {
        if let Some(id) = self.detach(dir, name, now)
            && self.nodes[&id].kind != Kind::Dir
            && self.nlink(id) > 0
        {
            // unlink: what keeps a name has its status changed.
            self.node(id).ctime = now;
        }
    }

    fn entries_changed(&mut self, dir: Id, now: Wall) -> &mut BTreeMap<Name, Id> {
        let node = self.node(dir);
        (node.mtime, node.ctime) = (now, now);
        &mut node.entries
    }
}
