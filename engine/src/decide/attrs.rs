//! Attributes read and set: getattr, and chmod, chown, truncate and utimens in one (setattr).

use alloc::vec;

use crate::decide::ask::{self, Stop};
use crate::decide::plan::{Answer, Change, Check, Decision, Patch, Plan, Reply};
use crate::decide::view::View;
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, SetAttr, SetTime};
use crate::time::Wall;

const ALL_PERM: u16 = 0o7777;
const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXEC: u16 = 0o0010;

pub(super) fn get(view: &View<'_>, ino: Ino) -> Result<Decision, Stop> {
    Ok(Decision::Reply(Ok(Reply::Attr(ask::inode(view, ino)?))))
}

pub(super) fn set(view: &View<'_>, ino: Ino, set: &SetAttr) -> Result<Decision, Stop> {
    if *set == SetAttr::default() {
        return get(view, ino);
    }
    ask::writable(view)?;
    let attr = ask::inode(view, ino)?;
    if let Some(size) = set.size {
        may_resize(view, &attr, size)?;
    }
    // chmod(2), fchmodat(2): EOPNOTSUPP, the mode of a symbolic link cannot be changed.
    if set.perm.is_some() && attr.kind == Kind::Symlink {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let at = |time: SetTime| match time {
        SetTime::Now => view.now,
        SetTime::At(time) => time,
    };
    // POSIX truncate marks mtime and ctime; O_TRUNC and ftruncate do so even if the length stays
    // (open(2), POSIX ftruncate), and FUSE does not tell which of them asks, so all of them do.
    // A time given along with a length wins.
    let resized: Option<Wall> = set.size.map(|_| view.now);
    let patch = Patch {
        perm: set.perm.map(|perm| perm & ALL_PERM).or_else(|| after_chown(&attr, set)),
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime: set.atime.map(at),
        mtime: set.mtime.map(at).or(resized),
        // POSIX chmod, chown, futimens: each marks the last status change, which nobody sets.
        ctime: Some(view.now),
    };
    Ok(Decision::Commit(Plan {
        checks: vec![Check::Live(ino)],
        changes: vec![Change::SetAttr { ino, patch }],
        // Values can be set twice. A length cannot: in between, another may have written past it.
        once: set.size.is_some(),
        answer: Answer::Attr(ino),
    }))
}

/// truncate(2): EISDIR for a directory, EINVAL for what is no regular file, EFBIG.
fn may_resize(view: &View<'_>, attr: &Attr, size: u64) -> Result<(), Errno> {
    match attr.kind {
        Kind::File if size > view.caps.max_file_size => Err(Errno::EFBIG),
        Kind::File => Ok(()),
        Kind::Dir => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

/// chown(2): a new owner or group takes the set-user-ID bit from what is no directory, and the
/// set-group-ID bit where the group may execute (without that it once meant mandatory locking).
/// Linux does so for root too. A kernel without `FUSE_HANDLE_KILLPRIV` sends the mode along by
/// itself when it knows of the bits; this covers bits that it does not know of.
fn after_chown(attr: &Attr, set: &SetAttr) -> Option<u16> {
    if (set.uid.is_none() && set.gid.is_none()) || attr.kind == Kind::Dir {
        return None;
    }
    let mut perm = attr.perm & !SET_UID;
    if perm & GROUP_EXEC != 0 {
        perm &= !SET_GID;
    }
    (perm != attr.perm).then_some(perm)
}
