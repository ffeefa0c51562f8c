//! Names that go away: unlink and rmdir, and the part of rename that replaces a target.

use alloc::vec;
use alloc::vec::Vec;

use crate::decide::ask::{self, Stop};
use crate::decide::plan::{Answer, Change, Check, Decision, Plan};
use crate::decide::view::View;
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name};

pub(super) fn unlink(view: &View<'_>, parent: Ino, name: &Name) -> Result<Decision, Stop> {
    // unlink(2): EISDIR, pathname refers to a directory (Linux; POSIX says EPERM).
    ask::name(name, Errno::EISDIR)?;
    ask::writable(view)?;
    let found = ask::looked_up(view, parent, name)?.ok_or(Errno::ENOENT)?;
    not_root(&found)?;
    if found.kind == Kind::Dir {
        return Err(Errno::EISDIR.into());
    }
    plan(view, parent, name, &found)
}

pub(super) fn rmdir(view: &View<'_>, parent: Ino, name: &Name) -> Result<Decision, Stop> {
    // rmdir(2): EINVAL, pathname has . as last component; ENOTEMPTY, it has .. there.
    let dots = if name.as_bytes() == b"." { Errno::EINVAL } else { Errno::ENOTEMPTY };
    ask::name(name, dots)?;
    ask::writable(view)?;
    let found = ask::looked_up(view, parent, name)?.ok_or(Errno::ENOENT)?;
    not_root(&found)?;
    if found.kind != Kind::Dir {
        return Err(Errno::ENOTDIR.into());
    }
    // rmdir(2): ENOTEMPTY; POSIX allows EEXIST as well.
    if !view.empty_enough(found.ino)? {
        return Err(Errno::ENOTEMPTY.into());
    }
    plan(view, parent, name, &found)
}

/// rmdir(2), rename(2): EBUSY, the directory is a mount point.
pub(super) fn not_root(attr: &Attr) -> Result<(), Errno> {
    if attr.ino == Ino::ROOT { Err(Errno::EBUSY) } else { Ok(()) }
}

/// Takes `name` away from `found`: what must hold for it, and what changes but the directory.
pub(super) fn removal(
    view: &View<'_>,
    dir: Ino,
    name: &Name,
    found: &Attr,
) -> (Vec<Check>, Vec<Change>) {
    let Attr { ino, kind, nlink, .. } = *found;
    let is_dir = kind == Kind::Dir;
    let many = !is_dir && view.caps.hard_links;
    let last = !many || nlink <= 1;
    let mut checks = vec![Check::Leads(dir, name.clone(), ino)];
    if is_dir {
        checks.push(Check::Empty(ino));
    } else if many {
        // A link made elsewhere meanwhile must not lose its contents.
        checks.push(Check::Links(ino, nlink));
    }
    let held = last && view.held.is_held(ino);
    let mut changes = vec![Change::Unlink { dir, name: name.clone(), ino, kind, last, held }];
    if !last {
        // POSIX unlink: if the link count is not 0, the file's last status change is marked.
        changes.push(ask::mark_ctime(view, ino));
    }
    (checks, changes)
}

fn plan(view: &View<'_>, dir: Ino, name: &Name, found: &Attr) -> Result<Decision, Stop> {
    let (checks, mut changes) = removal(view, dir, name, found);
    changes.push(ask::touch(view, dir, -i32::from(found.kind == Kind::Dir)));
    Ok(Decision::Commit(Plan { checks, changes, once: true, answer: Answer::Done }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{Twist::*, check, row};
    use crate::op::Request;

    fn unlink(parent: u64, name: &str) -> Request {
        Request::Unlink { parent: Ino(parent), name: name.into() }
    }

    fn rmdir(parent: u64, name: &str) -> Request {
        Request::Rmdir { parent: Ino(parent), name: name.into() }
    }

    #[test]
    fn unlinking() {
        let long = alloc::string::String::from_utf8(alloc::vec![b'n'; 256]).unwrap();
        check(&[
            row(
                "unlink: the last name takes the file along and marks the directory's times",
                unlink(1, "file"),
                "once: leads #1/file=#2, links #2=1 => unlink #1/file File #2 last, touch #1",
            ),
            row(
                "unlink: a file that has further names stays, its ctime is marked",
                unlink(1, "h1"),
                "once: leads #1/h1=#10, links #10=2 => unlink #1/h1 File #10, set #10 c=7, \
                 touch #1",
            ),
            row(
                "unlink: an open file's contents stay until it is closed",
                unlink(1, "file"),
                "once: leads #1/file=#2, links #2=1 => unlink #1/file File #2 last held, touch #1",
            )
            .with(&[Held(2)]),
            row(
                "an open file that keeps a name is not in danger",
                unlink(1, "h1"),
                "once: leads #1/h1=#10, links #10=2 => unlink #1/h1 File #10, set #10 c=7, \
                 touch #1",
            )
            .with(&[Held(10)]),
            row(
                "where there are no hard links nobody counts them",
                unlink(1, "file"),
                "once: leads #1/file=#2 => unlink #1/file File #2 last, touch #1",
            )
            .with(&[NoHardLinks]),
            row(
                "unlink: a symlink goes itself",
                unlink(1, "link"),
                "once: leads #1/link=#9, links #9=1 => unlink #1/link Symlink #9 last, touch #1",
            ),
            row(
                "unlink: a fifo",
                unlink(1, "fifo"),
                "once: leads #1/fifo=#11, links #11=1 => unlink #1/fifo Fifo #11 last, touch #1",
            ),
            row("unlink: ENOENT", unlink(1, "none"), "ENOENT"),
            row("unlink(2): EISDIR of a directory", unlink(1, "dir"), "EISDIR"),
            row("unlink(2): EISDIR of `..`", unlink(1, ".."), "EISDIR"),
            row("unlink: EBUSY of the root", unlink(3, "up to the root"), "EBUSY"),
            row("unlink: ENOTDIR below a file", unlink(2, "x"), "ENOTDIR"),
            row("unlink: ENOENT in a removed directory", unlink(91, "x"), "ENOENT"),
            row("unlink: ENAMETOOLONG", unlink(1, &long), "ENAMETOOLONG"),
            row("unlink: EROFS", unlink(1, "file"), "EROFS").with(&[ReadOnly]),
            row("unlink(2): EROFS before ENOENT", unlink(1, "none"), "EROFS").with(&[ReadOnly]),
            row("ENAMETOOLONG before EROFS", unlink(1, &long), "ENAMETOOLONG").with(&[ReadOnly]),
            row("unlink: gone is ESTALE", unlink(1, "stale"), "ESTALE"),
        ]);
    }

    #[test]
    fn removing_directories() {
        check(&[
            row(
                "rmdir: an empty directory, and one link less for the parent",
                rmdir(1, "empty"),
                "once: leads #1/empty=#7, empty #7 => unlink #1/empty Dir #7 last, touch #1 -1",
            ),
            row(
                "rmdir: one that somebody stands in is held",
                rmdir(1, "empty"),
                "once: leads #1/empty=#7, empty #7 => unlink #1/empty Dir #7 last held, touch #1 -1",
            )
            .with(&[Held(7)]),
            row(
                "a layout that counts no subdirectories",
                rmdir(1, "empty"),
                "once: leads #1/empty=#7, empty #7 => unlink #1/empty Dir #7 last, touch #1",
            )
            .with(&[NoDirNlink]),
            row("rmdir: ENOTEMPTY", rmdir(1, "dir"), "ENOTEMPTY"),
            row("rmdir: ENOENT", rmdir(1, "none"), "ENOENT"),
            row("rmdir: ENOTDIR of a file", rmdir(1, "file"), "ENOTDIR"),
            row("rmdir: ENOTDIR of a symlink to a directory", rmdir(1, "link"), "ENOTDIR"),
            row("rmdir: ENOTDIR below a file", rmdir(2, "x"), "ENOTDIR"),
            row("rmdir: EINVAL of `.`", rmdir(1, "."), "EINVAL"),
            row("rmdir(2): ENOTEMPTY of `..`", rmdir(1, ".."), "ENOTEMPTY"),
            row("rmdir: EBUSY of the root", rmdir(3, "up to the root"), "EBUSY"),
            row("rmdir: ENOENT in a removed directory", rmdir(91, "x"), "ENOENT"),
            row("rmdir: EROFS", rmdir(1, "empty"), "EROFS").with(&[ReadOnly]),
            row("rmdir(2): EROFS before ENOTEMPTY", rmdir(1, "dir"), "EROFS").with(&[ReadOnly]),
            row("rmdir: gone is ESTALE", rmdir(1, "stale"), "ESTALE"),
        ]);
    }
}
