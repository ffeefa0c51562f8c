//! Names looked up and made: lookup, readlink, create, mknod, mkdir, symlink, link.

use alloc::vec;

use bytes::Bytes;

use crate::decide::ask::{self, Stop, both};
use crate::decide::plan::{Answer, Change, Check, Decision, Plan, Reply};
use crate::decide::ready;
use crate::decide::view::View;
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Caller, Kind, Name, OpenFlags, Response};

/// `PATH_MAX` without its terminating NUL: the longest target of a symlink.
const TARGET_MAX: usize = 4095;
const SET_GID: u16 = 0o2000;
/// `vfs_mkdir` on Linux keeps only these of what `mkdir(2)` is asked for.
const DIR_PERM: u16 = 0o1777;
const ALL_PERM: u16 = 0o7777;

pub(super) fn lookup(view: &View<'_>, parent: Ino, name: &Name) -> Result<Decision, Stop> {
    // Without FUSE_EXPORT_SUPPORT the kernel resolves `.` and `..` itself.
    ask::name(name, Errno::EINVAL)?;
    Ok(Decision::Reply(Ok(match ask::looked_up(view, parent, name)? {
        Some(attr) => Reply::Entry(attr),
        None => Reply::NoEntry,
    })))
}

pub(super) fn read_link(view: &View<'_>, ino: Ino) -> Result<Decision, Stop> {
    let attr = ask::inode(view, ino);
    let target = match &attr {
        // readlink(2): EINVAL, the named file is not a symbolic link.
        Ok(attr) if attr.kind != Kind::Symlink => return Err(Errno::EINVAL.into()),
        _ => view.target(ino).map_err(Stop::from),
    };
    let (_, target) = both(attr, target)?;
    Ok(ready(Response::Target(target)))
}

/// `open` with `O_CREAT`.
pub(super) fn create(
    view: &View<'_>,
    parent: Ino,
    name: &Name,
    perm: u16,
    flags: OpenFlags,
    caller: Caller,
) -> Result<Decision, Stop> {
    // open(2): O_CREAT and an existing directory is EISDIR.
    ask::name(name, Errno::EISDIR)?;
    let (found, new) = place(view, parent, name)?;
    if let Some(found) = found {
        return match found.kind {
            // open(2): EEXIST, pathname already exists and O_CREAT and O_EXCL were used.
            _ if flags.exclusive => Err(Errno::EEXIST.into()),
            Kind::Dir => Err(Errno::EISDIR.into()),
            Kind::File if flags.write || flags.truncate => {
                ask::writable(view)?;
                Ok(Decision::Reply(Ok(Reply::OpenExisting(found))))
            }
            Kind::File => Ok(Decision::Reply(Ok(Reply::OpenExisting(found)))),
            // The kernel believed the name free. Looking again it will follow the symlink or open
            // the device itself; FUSE_CREATE may only answer with a regular file.
            _ => Err(Errno::ESTALE.into()),
        };
    }
    let new = new?;
    let attr = new.attr(view, Kind::File, perm & ALL_PERM, caller);
    // Applied a second time, the name is not free, and the file is found and opened: that is
    // right unless the caller was promised to be the one who made it.
    Ok(new.plan(view, attr, None, flags.exclusive, Answer::Created(attr.ino)))
}

/// `node` is the kind, the permission bits and the device number.
pub(super) fn mknod(
    view: &View<'_>,
    parent: Ino,
    name: &Name,
    (kind, perm, rdev): (Kind, u16, u32),
    caller: Caller,
) -> Result<Decision, Stop> {
    match kind {
        // mknod(2) and Linux's `may_mknod`.
        Kind::Dir => return Err(Errno::EPERM.into()),
        Kind::Symlink => return Err(Errno::EINVAL.into()),
        Kind::File | Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {}
    }
    let new = free_place(view, parent, name)?;
    // mknod(2): EPERM, the filesystem does not support the type of node requested.
    if kind != Kind::File && !view.caps.special_files {
        return Err(Errno::EPERM.into());
    }
    let mut attr = new.attr(view, kind, perm & ALL_PERM, caller);
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        attr.rdev = rdev;
    }
    Ok(new.plan(view, attr, None, true, Answer::Entry(attr.ino)))
}

pub(super) fn mkdir(
    view: &View<'_>,
    parent: Ino,
    name: &Name,
    perm: u16,
    caller: Caller,
) -> Result<Decision, Stop> {
    let new = free_place(view, parent, name)?;
    // POSIX mkdir: EMLINK, the link count of the parent directory would exceed {LINK_MAX}.
    if view.caps.dir_nlink && new.dir.nlink >= view.caps.max_links {
        return Err(Errno::EMLINK.into());
    }
    let attr = new.attr(view, Kind::Dir, perm & DIR_PERM, caller);
    Ok(new.plan(view, attr, None, true, Answer::Entry(attr.ino)))
}

pub(super) fn symlink(
    view: &View<'_>,
    parent: Ino,
    name: &Name,
    target: &Bytes,
    caller: Caller,
) -> Result<Decision, Stop> {
    // symlink(2): ENOENT, target is the empty string; ENAMETOOLONG, target is too long.
    match target.len() {
        0 => return Err(Errno::ENOENT.into()),
        1..=TARGET_MAX if target.contains(&0) => return Err(Errno::EINVAL.into()),
        1..=TARGET_MAX => {}
        _ => return Err(Errno::ENAMETOOLONG.into()),
    }
    let new = free_place(view, parent, name)?;
    // symlink(7): the permissions of a symlink are always 0777 and never used. POSIX: st_size is
    // the length of the target.
    let mut attr = new.attr(view, Kind::Symlink, 0o777, caller);
    attr.size = target.len() as u64;
    Ok(new.plan(view, attr, Some(target.clone()), true, Answer::Entry(attr.ino)))
}

/// A further name of `ino`.
pub(super) fn link(view: &View<'_>, ino: Ino, parent: Ino, name: &Name) -> Result<Decision, Stop> {
    ask::name(name, Errno::EEXIST)?;
    let known = both(ask::directory(view, parent), ask::named(view, parent, name));
    // POSIX link: EEXIST; what there is to link matters no more then.
    if let Ok((_, Some(_))) = known {
        return Err(Errno::EEXIST.into());
    }
    let (_, source) = both(known, ask::inode(view, ino))?;
    ask::writable(view)?;
    // link(2): EPERM, oldpath is a directory; EPERM, the filesystem does not support hard links.
    if source.kind == Kind::Dir || !view.caps.hard_links {
        return Err(Errno::EPERM.into());
    }
    // Linux's `vfs_link`: what has lost its last name gets no new one.
    if source.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    if source.nlink >= view.caps.max_links {
        return Err(Errno::EMLINK.into());
    }
    Ok(Decision::Commit(Plan {
        checks: vec![Check::LiveDir(parent), Check::Free(parent, name.clone()), Check::Live(ino)],
        changes: vec![
            Change::Link { ino, dir: parent, name: name.clone() },
            // POSIX link: marks the last status change of the file, and both times of the
            // directory.
            ask::mark_ctime(view, ino),
            ask::touch(view, parent, 0),
        ],
        once: true,
        answer: Answer::Entry(ino),
    }))
}

/// Where a new inode is to go, and the number it is to have.
struct Place<'a> {
    dir: Attr,
    name: &'a Name,
    ino: Ino,
}

/// The place for a new inode, where nothing is yet.
///
/// An existing name beats `EROFS`, as in Linux's `filename_create`: `mkdir -p` over an existing
/// tree goes through on a read-only mount.
fn free_place<'a>(view: &View<'_>, parent: Ino, name: &'a Name) -> Result<Place<'a>, Stop> {
    // mkdir(2), mknod(2), symlink(2): `.` and `..` exist.
    ask::name(name, Errno::EEXIST)?;
    match place(view, parent, name)? {
        (Some(_), _) => Err(Errno::EEXIST.into()),
        (None, new) => new,
    }
}

/// What is called `name` already, and the place for what is to be. The directory, the name and a
/// fresh number are asked for at once; a number is not waited for when the name is taken.
fn place<'a>(
    view: &View<'_>,
    parent: Ino,
    name: &'a Name,
) -> Result<(Option<Attr>, Result<Place<'a>, Stop>), Stop> {
    let fresh = match ask::writable(view) {
        Ok(()) => view.fresh_ino(parent, name).map_err(Stop::from),
        Err(errno) => Err(errno.into()),
    };
    let known = both(ask::directory(view, parent), ask::named(view, parent, name));
    let known = match known {
        Err(Stop::Missing(_)) => both(known, fresh.clone()).map(|(known, _)| known),
        known => known,
    };
    let (dir, found) = known?;
    Ok((found, fresh.map(|ino| Place { dir, name, ino })))
}

impl Place<'_> {
    /// The attributes of a new inode here.
    ///
    /// POSIX open, mkdir, mknod: the owner is the effective (on Linux the filesystem) user id of
    /// the caller. inode(7): in a set-group-ID directory the group is the directory's, and new
    /// directories carry the bit on. That a caller outside that group gets no set-group-ID
    /// executable is the kernel's part (`mode_strip_sgid`): only it knows the caller's groups.
    fn attr(&self, view: &View<'_>, kind: Kind, perm: u16, caller: Caller) -> Attr {
        let inherits = self.dir.perm & SET_GID != 0;
        let is_dir = kind == Kind::Dir;
        Attr {
            ino: self.ino,
            kind,
            perm: if inherits && is_dir { perm | SET_GID } else { perm },
            nlink: if is_dir && view.caps.dir_nlink { 2 } else { 1 },
            uid: caller.uid,
            gid: if inherits { self.dir.gid } else { caller.gid },
            rdev: 0,
            size: 0,
            atime: view.now,
            mtime: view.now,
            ctime: view.now,
        }
    }

    fn plan(
        self,
        view: &View<'_>,
        attr: Attr,
        target: Option<Bytes>,
        once: bool,
        answer: Answer,
    ) -> Decision {
        let dir = self.dir.ino;
        let subdirs = i32::from(attr.kind == Kind::Dir);
        Decision::Commit(Plan {
            checks: vec![Check::LiveDir(dir), Check::Free(dir, self.name.clone())],
            changes: vec![
                Change::Create { dir, name: self.name.clone(), attr, target },
                ask::touch(view, dir, subdirs),
            ],
            once,
            answer,
        })
    }
}
