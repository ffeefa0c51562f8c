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
