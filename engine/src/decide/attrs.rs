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
/// In nanoseconds.
const DAY: i64 = 24 * 3600 * 1_000_000_000;

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

/// Whether a program that reads marks the access time under `relatime` (mount(8)): when the last
/// change is not older, or the last access was a day ago. Linux's `relatime_need_update`.
#[must_use]
pub fn marks_access(attr: &Attr, now: Wall) -> bool {
    attr.atime <= attr.mtime
        || attr.atime <= attr.ctime
        || now.0.saturating_sub(attr.atime.0) >= DAY
}

/// truncate(2): EISDIR for a directory, EINVAL for what is no regular file, EFBIG.
pub(super) fn may_resize(view: &View<'_>, attr: &Attr, size: u64) -> Result<(), Errno> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{ME, Twist::*, World, check, row};
    use crate::op::Request;

    const KEEP: SetAttr =
        SetAttr { perm: None, uid: None, gid: None, size: None, atime: None, mtime: None };

    fn set(ino: u64, set: SetAttr) -> Request {
        Request::SetAttr { ino: Ino(ino), set, caller: ME }
    }

    #[test]
    fn accesses_are_marked_after_changes_and_once_a_day() {
        let read = |atime, mtime, ctime, now| {
            let (atime, mtime, ctime) = (Wall(atime), Wall(mtime), Wall(ctime));
            let Some(attr) = World::new(&[]).attr(Ino(2)) else { return false };
            marks_access(&Attr { atime, mtime, ctime, ..attr }, Wall(now))
        };
        assert!(read(5, 5, 5, 6), "the first time");
        assert!(read(5, 6, 1, 7), "written since");
        assert!(read(5, 1, 6, 7), "changed since");
        assert!(!read(5, 4, 4, DAY), "read since");
        assert!(read(5, 4, 4, DAY + 5), "a day ago");
        assert!(!read(5, 4, 4, i64::MIN), "a clock that was set back");
    }

    #[test]
    fn reading() {
        let get = |ino| Request::GetAttr { ino: Ino(ino) };
        check(&[
            row("stat: attributes", get(2), "attr #2"),
            row("stat: of the root", get(1), "attr #1"),
            row("fstat: of a file without a name", get(92), "attr #92"),
            row("gone is ESTALE, so that the path is walked again", get(90), "ESTALE"),
        ]);
    }

    #[test]
    fn setting() {
        let perm = |perm| SetAttr { perm: Some(perm), ..KEEP };
        let size = |size| SetAttr { size: Some(size), ..KEEP };
        let uid = |uid| SetAttr { uid: Some(uid), ..KEEP };
        let gid = |gid| SetAttr { gid: Some(gid), ..KEEP };
        let at = |time| Some(SetTime::At(Wall(time)));
        check(&[
            row("chmod: marks ctime", set(2, perm(0o600)), "live #2 => set #2 0600 c=7 => attr #2"),
            row(
                "chmod: all twelve bits, and no others",
                set(2, perm(0o17_777)),
                "live #2 => set #2 7777 c=7 => attr #2",
            ),
            row("chmod: a directory", set(3, perm(0o700)), "live #3 => set #3 0700 c=7 => attr #3"),
            row("fchmodat(2): EOPNOTSUPP of a symlink", set(9, perm(0o600)), "EOPNOTSUPP"),
            row("chown: marks ctime", set(2, uid(1)), "live #2 => set #2 uid=1 c=7 => attr #2"),
            row(
                "chown: set-user-ID and set-group-ID go",
                set(13, uid(1)),
                "live #13 => set #13 0755 uid=1 c=7 => attr #13",
            ),
            row(
                "chgrp: they go too",
                set(13, gid(1)),
                "live #13 => set #13 0755 gid=1 c=7 => attr #13",
            ),
            row(
                "chown(2): set-group-ID without group execution stays",
                set(14, uid(1)),
                "live #14 => set #14 uid=1 c=7 => attr #14",
            ),
            row(
                "chown(2): a directory keeps its bits",
                set(12, uid(1)),
                "live #12 => set #12 uid=1 c=7 => attr #12",
            ),
            row(
                "a mode that comes along stands",
                set(13, SetAttr { uid: Some(1), ..perm(0o4755) }),
                "live #13 => set #13 4755 uid=1 c=7 => attr #13",
            ),
            row(
                "lchown: a symlink has an owner",
                set(9, uid(1)),
                "live #9 => set #9 uid=1 c=7 => attr #9",
            ),
            row(
                "truncate: marks mtime and ctime, and is not done twice",
                set(2, size(0)),
                "once: live #2 => set #2 size=0 m=7 c=7 => attr #2",
            ),
            row(
                "ftruncate, O_TRUNC: also to the length there is",
                set(2, size(4)),
                "once: live #2 => set #2 size=4 m=7 c=7 => attr #2",
            ),
            row(
                "truncate: a time that comes along stands",
                set(2, SetAttr { mtime: at(3), ..size(9) }),
                "once: live #2 => set #2 size=9 m=3 c=7 => attr #2",
            ),
            row(
                "ftruncate: a file without a name",
                set(92, size(1)),
                "once: live #92 => set #92 size=1 m=7 c=7 => attr #92",
            ),
            row(
                "truncate: the longest file",
                set(2, size(1 << 20)),
                "once: live #2 => set #2 size=1048576 m=7 c=7 => attr #2",
            ),
            row("truncate: EFBIG", set(2, size((1 << 20) + 1)), "EFBIG"),
            row("truncate: EISDIR", set(3, size(0)), "EISDIR"),
            row("truncate: EINVAL of a fifo", set(11, size(0)), "EINVAL"),
            row("truncate: EINVAL of a symlink", set(9, size(0)), "EINVAL"),
            row(
                "utimensat: marks ctime",
                set(2, SetAttr { atime: at(1), mtime: at(-2), ..KEEP }),
                "live #2 => set #2 a=1 m=-2 c=7 => attr #2",
            ),
            row(
                "utimensat: UTIME_NOW",
                set(2, SetAttr { mtime: Some(SetTime::Now), ..KEEP }),
                "live #2 => set #2 m=7 c=7 => attr #2",
            ),
            row("nothing to set: nothing is marked", set(2, KEEP), "attr #2"),
            row("nothing to set: no EROFS", set(2, KEEP), "attr #2").with(&[ReadOnly]),
            row("chmod: EROFS", set(2, perm(0o600)), "EROFS").with(&[ReadOnly]),
            row("EROFS before EISDIR", set(3, size(0)), "EROFS").with(&[ReadOnly]),
            row("gone is ESTALE", set(90, perm(0o600)), "ESTALE"),
        ]);
    }
}
