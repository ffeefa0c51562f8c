//! Names looked up and made: lookup, readlink, create, mknod, mkdir, symlink, link.

use alloc::vec;

use bytes::Bytes;

use crate::decide::acl;
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
    let (attr, list) = new.inode(view, Kind::File, perm & ALL_PERM, caller)?;
    // Applied a second time, the name is not free, and the file is found and opened: that is
    // right unless the caller was promised to be the one who made it.
    Ok(new.plan(view, attr, None, list, flags.exclusive, Answer::Created(attr.ino)))
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
    let (mut attr, list) = new.inode(view, kind, perm & ALL_PERM, caller)?;
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        attr.rdev = rdev;
    }
    Ok(new.plan(view, attr, None, list, true, Answer::Entry(attr.ino)))
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
    let (attr, list) = new.inode(view, Kind::Dir, perm & DIR_PERM, caller)?;
    Ok(new.plan(view, attr, None, list, true, Answer::Entry(attr.ino)))
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
    Ok(new.plan(view, attr, Some(target.clone()), None, true, Answer::Entry(attr.ino)))
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

/// Where a new inode is to go, the number it is to have, and the default ACL there.
struct Place<'a> {
    dir: Attr,
    name: &'a Name,
    ino: Ino,
    default: Option<Bytes>,
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

/// What is called `name` already, and the place for what is to be. The directory, the name, a
/// fresh number and the default ACL are asked for at once; the latter two are not waited for when
/// the name is taken.
fn place<'a>(
    view: &View<'_>,
    parent: Ino,
    name: &'a Name,
) -> Result<(Option<Attr>, Result<Place<'a>, Stop>), Stop> {
    let fresh = match ask::writable(view) {
        Ok(()) => both(view.fresh_ino(parent, name).map_err(Stop::from), default_acl(view, parent)),
        Err(errno) => Err(errno.into()),
    };
    let known = both(ask::directory(view, parent), ask::named(view, parent, name));
    let known = match known {
        Err(Stop::Missing(_)) => both(known, fresh.clone()).map(|(known, _)| known),
        known => known,
    };
    let (dir, found) = known?;
    Ok((found, fresh.map(|(ino, default)| Place { dir, name, ino, default })))
}

fn default_acl(view: &View<'_>, dir: Ino) -> Result<Option<Bytes>, Stop> {
    if view.caps.acls { Ok(view.xattr(dir, &acl::DEFAULT.into())?) } else { Ok(None) }
}

impl Place<'_> {
    /// A new inode here but a symlink, which has no permissions: its attributes, and its access
    /// ACL. Where there is a default ACL, that takes the place of the umask (`acl(5)`, "Object
    /// creation and default ACLs").
    fn inode(
        &self,
        view: &View<'_>,
        kind: Kind,
        perm: u16,
        caller: Caller,
    ) -> Result<(Attr, Option<Bytes>), Errno> {
        let (perm, list) = match &self.default {
            None => (perm & !caller.umask, None),
            Some(default) => {
                let (perm, listed) = acl::inherited(default, perm)?;
                (perm, listed.then(|| default.clone()))
            }
        };
        Ok((self.attr(view, kind, perm, caller), list))
    }

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
        access: Option<Bytes>,
        once: bool,
        answer: Answer,
    ) -> Decision {
        let dir = self.dir.ino;
        let is_dir = attr.kind == Kind::Dir;
        let mut changes = vec![Change::Create { dir, name: self.name.clone(), attr, target }];
        // A directory hands the default on.
        let default = self.default.filter(|_| is_dir);
        for (name, value) in [(acl::ACCESS, access), (acl::DEFAULT, default)] {
            if value.is_some() {
                let (ino, name, at) = (attr.ino, name.into(), view.now);
                changes.push(Change::Xattr { ino, name, value, at });
            }
        }
        changes.push(ask::touch(view, dir, i32::from(is_dir)));
        let checks = vec![Check::LiveDir(dir), Check::Free(dir, self.name.clone())];
        Decision::Commit(Plan { checks, changes, once, answer })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::decide::testing::{ME, Twist::*, check, row};
    use crate::op::Request;

    fn lookup(parent: u64, name: impl Into<Name>) -> Request {
        Request::Lookup { parent: Ino(parent), name: name.into() }
    }

    fn create(parent: u64, name: impl Into<Name>, perm: u16) -> Request {
        open(parent, name, perm, OpenFlags { write: true, ..OpenFlags::default() })
    }

    fn open(parent: u64, name: impl Into<Name>, perm: u16, flags: OpenFlags) -> Request {
        Request::Create { parent: Ino(parent), name: name.into(), perm, flags, caller: ME }
    }

    fn mkdir(parent: u64, name: impl Into<Name>, perm: u16) -> Request {
        Request::Mkdir { parent: Ino(parent), name: name.into(), perm, caller: ME }
    }

    fn mknod(parent: u64, name: impl Into<Name>, kind: Kind) -> Request {
        let (parent, name) = (Ino(parent), name.into());
        Request::Mknod { parent, name, kind, perm: 0o644, rdev: 5, caller: ME }
    }

    fn symlink(parent: u64, name: impl Into<Name>, target: &[u8]) -> Request {
        let (parent, name, target) = (Ino(parent), name.into(), Bytes::copy_from_slice(target));
        Request::Symlink { parent, name, target, caller: ME }
    }

    fn link(ino: u64, parent: u64, name: impl Into<Name>) -> Request {
        Request::Link { ino: Ino(ino), parent: Ino(parent), name: name.into() }
    }

    fn long(len: usize) -> Vec<u8> {
        alloc::vec![b'n'; len]
    }

    #[test]
    fn looking_up() {
        check(&[
            row("a name that exists", lookup(1, "file"), "entry #2"),
            row("a name that does not", lookup(1, "none"), "no entry"),
            row("{NAME_MAX} is allowed", lookup(1, long(255)), "no entry"),
            row("POSIX 4.16: ENAMETOOLONG over {NAME_MAX}", lookup(1, long(256)), "ENAMETOOLONG"),
            row("POSIX 4.16: ENOTDIR below a file", lookup(2, "x"), "ENOTDIR"),
            row("ENOTDIR below a symlink", lookup(9, "x"), "ENOTDIR"),
            row("ENOENT in a removed directory", lookup(91, "x"), "ENOENT"),
            row("ENOENT in a directory that is gone", lookup(90, "x"), "ENOENT"),
            row("a name whose inode is gone for sure: ESTALE", lookup(1, "stale"), "ESTALE"),
            row("the empty name: ENOENT", lookup(1, ""), "ENOENT"),
            row("a name with a slash: EINVAL", lookup(1, "a/b"), "EINVAL"),
            row("a name with NUL: EINVAL", lookup(1, "a\0b"), "EINVAL"),
            row("`.` is the kernel's", lookup(1, "."), "EINVAL"),
            row("`..` is the kernel's", lookup(1, ".."), "EINVAL"),
            row("reading needs no writable mount", lookup(1, "file"), "entry #2").with(&[ReadOnly]),
            row("ENAMETOOLONG before ENOTDIR", lookup(2, long(256)), "ENAMETOOLONG"),
        ]);
    }

    #[test]
    fn reading_links() {
        let read = |ino| Request::ReadLink { ino: Ino(ino) };
        check(&[
            row("readlink: the target", read(9), "target file"),
            row("readlink: EINVAL of a file", read(2), "EINVAL"),
            row("readlink: EINVAL of a directory", read(1), "EINVAL"),
            row("readlink: gone is ESTALE", read(90), "ESTALE"),
        ]);
    }

    #[test]
    fn what_new_inodes_are_allowed() {
        let caller = Caller { umask: 0o027, ..ME };
        let create = |parent, perm| {
            let (parent, flags) = (Ino(parent), OpenFlags { write: true, ..OpenFlags::default() });
            Request::Create { parent, name: "new".into(), perm, flags, caller }
        };
        let mkdir =
            |parent, perm| Request::Mkdir { parent: Ino(parent), name: "new".into(), perm, caller };
        check(&[
            row(
                "open O_CREAT: without the bits of the umask",
                create(1, 0o666),
                "dir #1, free #1/new => create #1/new File #100 0640 10:20 n1 s0, touch #1 \
                 => created #100",
            ),
            row(
                "acl(5): a default list takes the place of the umask, and is the access list",
                create(22, 0o666),
                "dir #22, free #22/new => create #22/new File #100 0660 10:20 n1 s0, \
                 list #100 system.posix_acl_access, touch #22 => created #100",
            ),
            row(
                "acl(5): a default list that names nobody is in the mode",
                create(23, 0o666),
                "dir #23, free #23/new => create #23/new File #100 0644 10:20 n1 s0, touch #23 \
                 => created #100",
            ),
            row(
                "acl(5): a directory hands its default list on",
                mkdir(22, 0o777),
                "once: dir #22, free #22/new => create #22/new Dir #100 0660 10:20 n2 s0, \
                 list #100 system.posix_acl_access, list #100 system.posix_acl_default, \
                 touch #22 +1 => entry #100",
            ),
            row(
                "a symlink has no permissions",
                symlink(22, "new", b"file"),
                "once: dir #22, free #22/new => create #22/new Symlink #100 0777 10:20 n1 s4 \
                 -> b\"file\", touch #22 => entry #100",
            ),
            row(
                "where there are no lists, none is handed on",
                create(22, 0o666),
                "dir #22, free #22/new => create #22/new File #100 0640 10:20 n1 s0, touch #22 \
                 => created #100",
            )
            .with(&[NoAcls]),
        ]);
    }

    #[test]
    fn creating() {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let exclusive = OpenFlags { exclusive: true, ..flags };
        let truncate = OpenFlags { truncate: true, write: false, ..flags };
        let read = OpenFlags::default();
        check(&[
            row(
                "open O_CREAT: owner and group are the caller's, size 0, one link, parent touched",
                create(1, "new", 0o644),
                "dir #1, free #1/new => create #1/new File #100 0644 10:20 n1 s0, touch #1 \
                 => created #100",
            ),
            row(
                "open O_EXCL: who is promised to be the maker asks once",
                open(1, "new", 0o600, exclusive),
                "once: dir #1, free #1/new => create #1/new File #100 0600 10:20 n1 s0, touch #1 \
                 => created #100",
            ),
            row(
                "inode(7): in a set-group-ID directory the group is handed on, the bit is not",
                create(12, "new", 0o644),
                "dir #12, free #12/new => create #12/new File #100 0644 10:77 n1 s0, touch #12 \
                 => created #100",
            ),
            row(
                "only permission bits are taken",
                create(1, "new", 0o170_644),
                "dir #1, free #1/new => create #1/new File #100 0644 10:20 n1 s0, touch #1 \
                 => created #100",
            ),
            row("open O_CREAT: an existing file is opened", create(1, "file", 0o644), "open #2"),
            row("open O_CREAT|O_EXCL: EEXIST", open(1, "file", 0, exclusive), "EEXIST"),
            row("O_EXCL: EEXIST of a directory too", open(1, "dir", 0, exclusive), "EEXIST"),
            row("O_EXCL: EEXIST of a symlink too", open(1, "link", 0, exclusive), "EEXIST"),
            row("open O_CREAT: EISDIR of a directory", create(1, "dir", 0o644), "EISDIR"),
            row("a symlink the kernel knew not of: again", create(1, "link", 0o644), "ESTALE"),
            row("a fifo the kernel knew not of: again", create(1, "fifo", 0o644), "ESTALE"),
            row("ENOENT in a removed directory", create(91, "new", 0o644), "ENOENT"),
            row("ENOENT in a directory that is gone", create(90, "new", 0o644), "ENOENT"),
            row("ENOTDIR below a file", create(2, "new", 0o644), "ENOTDIR"),
            row("ENAMETOOLONG", create(1, long(256), 0o644), "ENAMETOOLONG"),
            row("ENAMETOOLONG before ENOTDIR", create(2, long(256), 0o644), "ENAMETOOLONG"),
            row("EISDIR of `.`", create(1, ".", 0o644), "EISDIR"),
            row("EROFS for a new file", create(1, "new", 0o644), "EROFS").with(&[ReadOnly]),
            row("EROFS to write an old one", create(1, "file", 0), "EROFS").with(&[ReadOnly]),
            row("EROFS to truncate", open(1, "file", 0, truncate), "EROFS").with(&[ReadOnly]),
            row("no EROFS to read", open(1, "file", 0, read), "open #2").with(&[ReadOnly]),
            row("EEXIST before EROFS", open(1, "file", 0, exclusive), "EEXIST").with(&[ReadOnly]),
            row("ENOTDIR before EROFS", create(2, "new", 0), "ENOTDIR").with(&[ReadOnly]),
            row("ENAMETOOLONG before EROFS", create(1, long(256), 0), "ENAMETOOLONG")
                .with(&[ReadOnly]),
        ]);
    }

    #[test]
    fn making_directories() {
        check(&[
            row(
                "mkdir: two links, and one more for the parent",
                mkdir(1, "new", 0o755),
                "once: dir #1, free #1/new => create #1/new Dir #100 0755 10:20 n2 s0, \
                 touch #1 +1 => entry #100",
            ),
            row(
                "a layout that counts no subdirectories: one link, none for the parent",
                mkdir(1, "new", 0o755),
                "once: dir #1, free #1/new => create #1/new Dir #100 0755 10:20 n1 s0, \
                 touch #1 => entry #100",
            )
            .with(&[NoDirNlink]),
            row(
                "inode(7): a directory in a set-group-ID directory has its group and the bit",
                mkdir(12, "new", 0o755),
                "once: dir #12, free #12/new => create #12/new Dir #100 2755 10:77 n2 s0, \
                 touch #12 +1 => entry #100",
            ),
            row(
                "mkdir(2): the sticky bit can be asked for, the set-id bits cannot",
                mkdir(1, "new", 0o7777),
                "once: dir #1, free #1/new => create #1/new Dir #100 1777 10:20 n2 s0, \
                 touch #1 +1 => entry #100",
            ),
            row("mkdir: EEXIST of a directory", mkdir(1, "dir", 0), "EEXIST"),
            row("mkdir: EEXIST of a file", mkdir(1, "file", 0), "EEXIST"),
            row("mkdir: EEXIST of a symlink", mkdir(1, "link", 0), "EEXIST"),
            row("mkdir: EEXIST of `.`", mkdir(1, ".", 0), "EEXIST"),
            row("mkdir: ENOENT in a removed directory", mkdir(91, "new", 0), "ENOENT"),
            row("mkdir: ENOENT in one that is gone", mkdir(90, "new", 0), "ENOENT"),
            row("mkdir: ENOTDIR", mkdir(2, "new", 0), "ENOTDIR"),
            row("mkdir: EMLINK of a full parent", mkdir(15, "new", 0), "EMLINK"),
            row("mkdir: ENAMETOOLONG", mkdir(1, long(256), 0), "ENAMETOOLONG"),
            row("mkdir: EROFS", mkdir(1, "new", 0), "EROFS").with(&[ReadOnly]),
            row("EEXIST before EROFS: mkdir -p", mkdir(1, "dir", 0), "EEXIST").with(&[ReadOnly]),
            row("a name whose inode is gone for sure: ESTALE", mkdir(1, "stale", 0), "ESTALE"),
        ]);
    }

    #[test]
    fn making_nodes() {
        check(&[
            row(
                "mknod: a regular file, without a device number",
                mknod(1, "new", Kind::File),
                "once: dir #1, free #1/new => create #1/new File #100 0644 10:20 n1 s0, touch #1 \
                 => entry #100",
            ),
            row(
                "mknod: a fifo, without a device number",
                mknod(1, "new", Kind::Fifo),
                "once: dir #1, free #1/new => create #1/new Fifo #100 0644 10:20 n1 s0, touch #1 \
                 => entry #100",
            ),
            row(
                "mknod: a device, with its number",
                mknod(1, "new", Kind::CharDevice),
                "once: dir #1, free #1/new => create #1/new CharDevice #100 0644 10:20 n1 s0 dev 5, \
                 touch #1 => entry #100",
            ),
            row("mknod(2): EPERM of a directory", mknod(1, "new", Kind::Dir), "EPERM"),
            row("mknod(2): EINVAL of a symlink", mknod(1, "new", Kind::Symlink), "EINVAL"),
            row("mknod: EEXIST", mknod(1, "file", Kind::Fifo), "EEXIST"),
            row("mknod(2): EPERM of a node that cannot be", mknod(1, "new", Kind::Socket), "EPERM")
                .with(&[NoSpecialFiles]),
            row("EEXIST before that EPERM", mknod(1, "file", Kind::Socket), "EEXIST")
                .with(&[NoSpecialFiles]),
            row(
                "files are no special files",
                mknod(1, "new", Kind::File),
                "once: dir #1, free #1/new => create #1/new File #100 0644 10:20 n1 s0, touch #1 \
                 => entry #100",
            )
            .with(&[NoSpecialFiles]),
            row("mknod: ENOTDIR", mknod(2, "new", Kind::File), "ENOTDIR"),
            row("mknod: ENOENT", mknod(91, "new", Kind::File), "ENOENT"),
            row("mknod: EROFS", mknod(1, "new", Kind::File), "EROFS").with(&[ReadOnly]),
        ]);
    }

    #[test]
    fn making_symlinks() {
        check(&[
            row(
                "symlink: 0777, as long as its target",
                symlink(1, "new", b"to/x"),
                "once: dir #1, free #1/new => create #1/new Symlink #100 0777 10:20 n1 s4 \
                 -> b\"to/x\", touch #1 => entry #100",
            ),
            row("symlink: EEXIST", symlink(1, "link", b"x"), "EEXIST"),
            row("symlink(2): ENOENT of an empty target", symlink(1, "new", b""), "ENOENT"),
            row(
                "symlink: ENAMETOOLONG of a target over {PATH_MAX}",
                symlink(1, "new", &long(4096)),
                "ENAMETOOLONG",
            ),
            row("no NUL in a target", symlink(1, "new", b"a\0b"), "EINVAL"),
            row("symlink: ENAMETOOLONG of the name", symlink(1, long(256), b"x"), "ENAMETOOLONG"),
            row("symlink: ENOTDIR", symlink(2, "new", b"x"), "ENOTDIR"),
            row("symlink: ENOENT", symlink(91, "new", b"x"), "ENOENT"),
            row("symlink: EROFS", symlink(1, "new", b"x"), "EROFS").with(&[ReadOnly]),
        ]);
    }

    #[test]
    fn linking() {
        check(&[
            row(
                "link: marks the file's ctime and the directory's times",
                link(2, 1, "new"),
                "once: dir #1, free #1/new, live #2 => link #1/new=#2, set #2 c=7, touch #1 \
                 => entry #2",
            ),
            row(
                "link: a symlink itself can have further names",
                link(9, 1, "new"),
                "once: dir #1, free #1/new, live #9 => link #1/new=#9, set #9 c=7, touch #1 \
                 => entry #9",
            ),
            row("link: EEXIST", link(2, 1, "other"), "EEXIST"),
            row("link: EEXIST of itself", link(2, 1, "file"), "EEXIST"),
            row("link: EPERM of a directory", link(3, 1, "new"), "EPERM"),
            row("link: EPERM of the root", link(1, 3, "new"), "EPERM"),
            row("EEXIST before EPERM", link(3, 1, "other"), "EEXIST"),
            row("link: EMLINK", link(16, 1, "new"), "EMLINK"),
            row("link(2): EPERM without hard links", link(2, 1, "new"), "EPERM")
                .with(&[NoHardLinks]),
            row("link: ENOENT of what has no name left", link(92, 1, "new"), "ENOENT"),
            row("link: gone is ESTALE", link(90, 1, "new"), "ESTALE"),
            row("EEXIST before what is gone", link(90, 1, "other"), "EEXIST"),
            row("link: ENOTDIR", link(2, 17, "new"), "ENOTDIR"),
            row("link: ENOENT in a removed directory", link(2, 91, "new"), "ENOENT"),
            row("link: ENAMETOOLONG", link(2, 1, long(256)), "ENAMETOOLONG"),
            row("link: EROFS", link(2, 1, "new"), "EROFS").with(&[ReadOnly]),
            row("link: EEXIST before EROFS", link(2, 1, "other"), "EEXIST").with(&[ReadOnly]),
        ]);
    }
}
