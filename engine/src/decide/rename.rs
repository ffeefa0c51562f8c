//! Rename: replace, refuse to replace, exchange (`renameat2(2)`).

use alloc::vec;

use crate::decide::ask::{self, Stop, both};
use crate::decide::plan::{Answer, Change, Check, Decision, Plan};
use crate::decide::remove::{not_root, removal};
use crate::decide::view::View;
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name, RenameMode, Response};

/// A directory and a name in it.
type Spot<'a> = (Ino, &'a Name);

pub(super) fn rename(
    view: &View<'_>,
    from: Spot<'_>,
    to: Spot<'_>,
    mode: RenameMode,
) -> Result<Decision, Stop> {
    // rename(2) on Linux: EBUSY for `.` and `..` (POSIX says EINVAL).
    ask::name(from.1, Errno::EBUSY)?;
    ask::name(to.1, Errno::EBUSY)?;
    // renameat2(2): EINVAL, the filesystem does not support one of the flags.
    if mode == RenameMode::Exchange && !view.caps.exchange {
        return Err(Errno::EINVAL.into());
    }
    ask::writable(view)?;
    let (source, target) =
        both(ask::looked_up(view, from.0, from.1), ask::looked_up(view, to.0, to.1))?;
    let source = source.ok_or(Errno::ENOENT)?;
    not_root(&source)?;
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => Err(Errno::EEXIST.into()),
        (RenameMode::Exchange, None) => Err(Errno::ENOENT.into()),
        // POSIX rename: if both lead to the same existing file, it does nothing and succeeds.
        (_, Some(target)) if target.ino == source.ino => Ok(super::ready(Response::Done)),
        (RenameMode::Exchange, Some(target)) => exchange(view, (from, source), (to, target)),
        (_, target) => replace(view, (from, source), to, target),
    }
}

fn replace(
    view: &View<'_>,
    (from, source): (Spot<'_>, Attr),
    to: Spot<'_>,
    target: Option<Attr>,
) -> Result<Decision, Stop> {
    let is_dir = source.kind == Kind::Dir;
    let loops = Loops::of(from.0, to.0, &source);
    if let Some(target) = &target {
        not_root(target)?;
        // POSIX rename: a directory replaces only an empty directory, anything else only what is
        // no directory. That the source is above the target outweighs these (Linux's
        // `lock_rename`), and here is time to ask.
        let refused = match (is_dir, target.kind == Kind::Dir) {
            (true, false) => Some(Errno::ENOTDIR),
            (false, true) => Some(Errno::EISDIR),
            (true, true) if !view.empty_enough(target.ino)? => Some(Errno::ENOTEMPTY),
            _ => None,
        };
        if let Some(errno) = refused {
            return Err(if loops.surely(view)? { Errno::EINVAL } else { errno }.into());
        }
    }
    if loops.perhaps(view)? {
        return Err(Errno::EINVAL.into());
    }
    let replaces_dir = target.is_some_and(|t| t.kind == Kind::Dir);
    let moves_dir = is_dir && from.0 != to.0;
    if moves_dir && !replaces_dir {
        room_for_subdir(view, to.0)?;
    }

    let mut checks = vec![Check::Leads(from.0, from.1.clone(), source.ino), Check::LiveDir(to.0)];
    checks.extend(loops.check());
    let mut changes = vec![];
    match &target {
        Some(target) => {
            let (more, removed) = removal(view, to.0, to.1, target);
            checks.extend(more);
            changes.extend(removed);
        }
        None => checks.push(Check::Free(to.0, to.1.clone())),
    }
    changes.push(Change::Rename {
        dir: from.0,
        name: from.1.clone(),
        to_dir: to.0,
        to_name: to.1.clone(),
        ino: source.ino,
        kind: source.kind,
    });
    if view.caps.rename_ctime {
        changes.push(ask::mark_ctime(view, source.ino));
    }
    // `..` of a directory that moves counts for its new parent; that of a replaced one is gone.
    let leaves = -i32::from(moves_dir);
    let arrives = i32::from(moves_dir) - i32::from(replaces_dir);
    touch_both(view, (from.0, leaves), (to.0, arrives), &mut changes);
    Ok(Decision::Commit(Plan { checks, changes, once: true, answer: Answer::Done }))
}

fn exchange(
    view: &View<'_>,
    (from, source): (Spot<'_>, Attr),
    (to, target): (Spot<'_>, Attr),
) -> Result<Decision, Stop> {
    not_root(&target)?;
    // Neither may come to lie below itself.
    let (down, up) = (Loops::of(from.0, to.0, &source), Loops::of(to.0, from.0, &target));
    let (down_loops, up_loops) = both(down.perhaps(view), up.perhaps(view))?;
    if down_loops || up_loops {
        return Err(Errno::EINVAL.into());
    }
    let subdir = |attr: &Attr| i32::from(attr.kind == Kind::Dir);
    let grows = subdir(&source) - subdir(&target);
    if from.0 != to.0 && grows != 0 {
        room_for_subdir(view, if grows > 0 { to.0 } else { from.0 })?;
    }

    let mut checks = vec![
        Check::Leads(from.0, from.1.clone(), source.ino),
        Check::Leads(to.0, to.1.clone(), target.ino),
    ];
    checks.extend(down.check());
    checks.extend(up.check());
    let mut changes = vec![Change::Exchange {
        a: (from.0, from.1.clone(), source.ino),
        b: (to.0, to.1.clone(), target.ino),
    }];
    if view.caps.rename_ctime {
        changes.push(ask::mark_ctime(view, source.ino));
        changes.push(ask::mark_ctime(view, target.ino));
    }
    touch_both(view, (from.0, -grows), (to.0, grows), &mut changes);
    Ok(Decision::Commit(Plan { checks, changes, once: true, answer: Answer::Done }))
}

/// POSIX rename: the times of both parents are marked for update. Deltas of one and the same
/// directory add up.
fn touch_both(
    view: &View<'_>,
    from: (Ino, i32),
    to: (Ino, i32),
    changes: &mut alloc::vec::Vec<Change>,
) {
    if from.0 == to.0 {
        changes.push(ask::touch(view, from.0, from.1 + to.1));
    } else {
        changes.push(ask::touch(view, from.0, from.1));
        changes.push(ask::touch(view, to.0, to.1));
    }
}

/// POSIX rename: EMLINK, the link count of the new parent would exceed {LINK_MAX}. Nobody waits
/// for the parent's attributes only for this.
fn room_for_subdir(view: &View<'_>, dir: Ino) -> Result<(), Errno> {
    match view.attr(dir) {
        Ok(Some(attr)) if view.caps.dir_nlink && attr.nlink >= view.caps.max_links => {
            Err(Errno::EMLINK)
        }
        _ => Ok(()),
    }
}

/// Whether a move makes a directory its own ancestor (rename(2): EINVAL). The kernel prevents it
/// among its own renames; two mounts can still do it to each other.
enum Loops {
    /// It is no directory, or stays where it is, or goes to the root, which is below nothing.
    Never,
    /// It goes into itself.
    Always,
    /// It does if the one is below the other.
    If { dir: Ino, ancestor: Ino },
}

impl Loops {
    fn of(from: Ino, to: Ino, moved: &Attr) -> Loops {
        if moved.kind != Kind::Dir || from == to || to == Ino::ROOT {
            Loops::Never
        } else if to == moved.ino {
            Loops::Always
        } else {
            Loops::If { dir: to, ancestor: moved.ino }
        }
    }

    fn surely(&self, view: &View<'_>) -> Result<bool, Stop> {
        match *self {
            Loops::Never => Ok(false),
            Loops::Always => Ok(true),
            Loops::If { dir, ancestor } => Ok(view.below(dir, ancestor)?),
        }
    }

    /// As [`surely`](Self::surely), but not asked while it may be assumed not to.
    fn perhaps(&self, view: &View<'_>) -> Result<bool, Stop> {
        match self.surely(view) {
            Err(Stop::Missing(_)) if view.assume => Ok(false),
            known => known,
        }
    }

    fn check(&self) -> Option<Check> {
        match *self {
            Loops::Never | Loops::Always => None,
            Loops::If { dir, ancestor } => Some(Check::NotBelow { dir, ancestor }),
        }
    }
}
