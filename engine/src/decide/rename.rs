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
        // `lock_rename`).
        let refused = match (is_dir, target.kind == Kind::Dir) {
            (true, false) => Some(Errno::ENOTDIR),
            (false, true) => Some(Errno::EISDIR),
            // Its parent holds at least itself, also where the layout counts what is left.
            (true, true) if target.ino == from.0 => Some(Errno::ENOTEMPTY),
            (true, true) if !view.empty_enough(target.ino)? => Some(Errno::ENOTEMPTY),
            _ => None,
        };
        if let Some(errno) = refused {
            return Err(loops.or(view, errno)?.into());
        }
    }
    if loops.perhaps(view)? {
        return Err(Errno::EINVAL.into());
    }
    let replaces_dir = target.is_some_and(|t| t.kind == Kind::Dir);
    let moves_dir = is_dir && from.0 != to.0;
    if moves_dir && !replaces_dir && is_full(view, to.0) {
        return Err(loops.or(view, Errno::EMLINK)?.into());
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
    // renameat2(2): EINVAL, the filesystem does not support one of the flags. Names that are not
    // there come before it, as the kernel finds those itself.
    if !view.caps.exchange {
        return Err(Errno::EINVAL.into());
    }
    // Neither may come to lie below itself.
    let (down, up) = (Loops::of(from.0, to.0, &source), Loops::of(to.0, from.0, &target));
    let (down_loops, up_loops) = both(down.perhaps(view), up.perhaps(view))?;
    if down_loops || up_loops {
        return Err(Errno::EINVAL.into());
    }
    let subdir = |attr: &Attr| i32::from(attr.kind == Kind::Dir);
    let grows = subdir(&source) - subdir(&target);
    if from.0 != to.0 && grows != 0 {
        let (dir, loops) = if grows > 0 { (to.0, &down) } else { (from.0, &up) };
        if is_full(view, dir) {
            return Err(loops.or(view, Errno::EMLINK)?.into());
        }
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
fn is_full(view: &View<'_>, dir: Ino) -> bool {
    let attr = view.attr(dir).ok().flatten();
    view.caps.dir_nlink && attr.is_some_and(|attr| attr.nlink >= view.caps.max_links)
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

    /// The error to give where `errno` stands against the move: a loop outweighs it, and here is
    /// time to ask.
    fn or(&self, view: &View<'_>, errno: Errno) -> Result<Errno, Stop> {
        Ok(if self.surely(view)? { Errno::EINVAL } else { errno })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{Twist::*, check, row};
    use crate::op::Request;

    fn mv(from: (u64, &str), to: (u64, &str)) -> Request {
        moved(from, to, RenameMode::Replace)
    }

    fn keep(from: (u64, &str), to: (u64, &str)) -> Request {
        moved(from, to, RenameMode::NoReplace)
    }

    fn swap(from: (u64, &str), to: (u64, &str)) -> Request {
        moved(from, to, RenameMode::Exchange)
    }

    fn moved(from: (u64, &str), to: (u64, &str), mode: RenameMode) -> Request {
        let (parent, name) = (Ino(from.0), from.1.into());
        Request::Rename { parent, name, to_parent: Ino(to.0), to_name: to.1.into(), mode }
    }

    #[test]
    fn moving() {
        check(&[
            row(
                "rename: within a directory, its times are marked once, and the file's ctime",
                mv((1, "file"), (1, "new")),
                "once: leads #1/file=#2, dir #1, free #1/new => \
                 rename #1/file to #1/new File #2, set #2 c=7, touch #1",
            ),
            row(
                "a layout where ctime is dear marks none",
                mv((1, "file"), (1, "new")),
                "once: leads #1/file=#2, dir #1, free #1/new => \
                 rename #1/file to #1/new File #2, touch #1",
            )
            .with(&[NoRenameCtime]),
            row(
                "rename: across directories, the times of both",
                mv((1, "file"), (3, "new")),
                "once: leads #1/file=#2, dir #3, free #3/new => \
                 rename #1/file to #3/new File #2, set #2 c=7, touch #1, touch #3",
            ),
            row(
                "rename: a directory's `..` counts for its new parent",
                mv((1, "empty"), (3, "new")),
                "once: leads #1/empty=#7, dir #3, not #3 below #7, free #3/new => \
                 rename #1/empty to #3/new Dir #7, set #7 c=7, touch #1 -1, touch #3 +1",
            ),
            row(
                "nothing lies above the root",
                mv((4, "deep"), (1, "new")),
                "once: leads #4/deep=#5, dir #1, free #1/new => \
                 rename #4/deep to #1/new Dir #5, set #5 c=7, touch #4 -1, touch #1 +1",
            ),
            row(
                "rename: a directory with contents moves as it is",
                mv((1, "dir"), (7, "new")),
                "once: leads #1/dir=#3, dir #7, not #7 below #3, free #7/new => \
                 rename #1/dir to #7/new Dir #3, set #3 c=7, touch #1 -1, touch #7 +1",
            ),
            row("rename: ENOENT", mv((1, "none"), (1, "new")), "ENOENT"),
            row("rename: ENOENT from a removed directory", mv((91, "x"), (1, "new")), "ENOENT"),
            row("rename: ENOENT into a removed directory", mv((1, "file"), (91, "x")), "ENOENT"),
            row("rename: ENOTDIR into a file", mv((1, "file"), (17, "x")), "ENOTDIR"),
            row("rename: ENOTDIR out of a file", mv((2, "x"), (1, "new")), "ENOTDIR"),
            row("rename: EINVAL into itself", mv((1, "dir"), (3, "new")), "EINVAL"),
            row("rename: EINVAL below itself", mv((1, "dir"), (5, "new")), "EINVAL"),
            row("rename: EMLINK of a full new parent", mv((1, "dir"), (15, "new")), "EMLINK"),
            row("EINVAL before EMLINK", mv((1, "dir"), (20, "new")), "EINVAL"),
            row("rename(2): EBUSY of `.`", mv((1, "."), (1, "new")), "EBUSY"),
            row("rename(2): EBUSY onto `..`", mv((1, "file"), (1, "..")), "EBUSY"),
            row("EBUSY of the root", mv((3, "up to the root"), (1, "new")), "EBUSY"),
            row("rename: EROFS", mv((1, "file"), (1, "new")), "EROFS").with(&[ReadOnly]),
            row("EROFS before ENOENT", mv((1, "none"), (1, "new")), "EROFS").with(&[ReadOnly]),
            row("a source that is gone: ESTALE", mv((1, "stale"), (1, "new")), "ESTALE"),
            row("a target that is gone: ESTALE", mv((1, "file"), (1, "stale")), "ESTALE"),
        ]);
    }

    #[test]
    fn replacing() {
        check(&[
            row(
                "rename: a file replaces a file",
                mv((1, "file"), (1, "other")),
                "once: leads #1/file=#2, dir #1, leads #1/other=#17, links #17=1 => \
                 unlink #1/other File #17 last, rename #1/file to #1/other File #2, \
                 set #2 c=7, touch #1",
            ),
            row(
                "rename: an open target keeps its contents",
                mv((1, "file"), (1, "other")),
                "once: leads #1/file=#2, dir #1, leads #1/other=#17, links #17=1 => \
                 unlink #1/other File #17 last held, rename #1/file to #1/other File #2, \
                 set #2 c=7, touch #1",
            )
            .with(&[Held(17)]),
            row(
                "rename: a target with further names loses one",
                mv((1, "file"), (1, "h2")),
                "once: leads #1/file=#2, dir #1, leads #1/h2=#10, links #10=2 => \
                 unlink #1/h2 File #10, set #10 c=7, rename #1/file to #1/h2 File #2, \
                 set #2 c=7, touch #1",
            ),
            row(
                "rename: a file replaces a symlink, not its target",
                mv((1, "file"), (1, "link")),
                "once: leads #1/file=#2, dir #1, leads #1/link=#9, links #9=1 => \
                 unlink #1/link Symlink #9 last, rename #1/file to #1/link File #2, \
                 set #2 c=7, touch #1",
            ),
            row(
                "rename: a directory replaces an empty one; the parent has one less",
                mv((1, "dir"), (1, "empty")),
                "once: leads #1/dir=#3, dir #1, leads #1/empty=#7, empty #7 => \
                 unlink #1/empty Dir #7 last, rename #1/dir to #1/empty Dir #3, \
                 set #3 c=7, touch #1 -1",
            ),
            row(
                "rename: across, the old parent has one less, the new one as many",
                mv((1, "empty"), (4, "deep")),
                "once: leads #1/empty=#7, dir #4, not #4 below #7, leads #4/deep=#5, empty #5 => \
                 unlink #4/deep Dir #5 last, rename #1/empty to #4/deep Dir #7, \
                 set #7 c=7, touch #1 -1, touch #4",
            ),
            row("rename: two names of one file: nothing", mv((1, "h1"), (1, "h2")), "Done"),
            row("rename: a name onto itself: nothing", mv((1, "file"), (1, "file")), "Done"),
            row("rename: a directory onto itself: nothing", mv((1, "dir"), (1, "dir")), "Done"),
            row("rename: ENOTDIR, directory onto file", mv((1, "dir"), (1, "file")), "ENOTDIR"),
            row("rename: EISDIR, file onto directory", mv((1, "file"), (1, "empty")), "EISDIR"),
            row("EISDIR before ENOTEMPTY", mv((1, "file"), (1, "dir")), "EISDIR"),
            row("rename: ENOTEMPTY", mv((1, "empty"), (1, "dir")), "ENOTEMPTY"),
            row("rename: ENOTEMPTY onto the parent", mv((3, "sub"), (1, "dir")), "ENOTEMPTY"),
            row("EINVAL before ENOTDIR", mv((1, "dir"), (4, "leaf")), "EINVAL"),
            row("EINVAL before ENOTEMPTY", mv((1, "dir"), (3, "sub")), "EINVAL"),
            row("EINVAL below itself onto an empty one", mv((1, "dir"), (4, "deep")), "EINVAL"),
            row("EBUSY onto the root", mv((1, "empty"), (3, "up to the root")), "EBUSY"),
            row("RENAME_NOREPLACE: EEXIST", keep((1, "file"), (1, "other")), "EEXIST"),
            row("NOREPLACE: EEXIST of itself", keep((1, "h1"), (1, "h2")), "EEXIST"),
            row("EEXIST before EISDIR", keep((1, "file"), (1, "dir")), "EEXIST"),
            row("ENOENT before EEXIST", keep((1, "none"), (1, "other")), "ENOENT"),
            row(
                "RENAME_NOREPLACE: a free name is taken",
                keep((1, "file"), (1, "new")),
                "once: leads #1/file=#2, dir #1, free #1/new => \
                 rename #1/file to #1/new File #2, set #2 c=7, touch #1",
            ),
        ]);
    }

    #[test]
    fn exchanging() {
        check(&[
            row(
                "RENAME_EXCHANGE: two files",
                swap((1, "file"), (1, "other")),
                "once: leads #1/file=#2, leads #1/other=#17 => \
                 exchange #1/file #2 #1/other #17, set #2 c=7, set #17 c=7, touch #1",
            ),
            row(
                "RENAME_EXCHANGE: file and directory; each parent counts its own",
                swap((3, "inner"), (1, "empty")),
                "once: leads #3/inner=#6, leads #1/empty=#7, not #3 below #7 => \
                 exchange #3/inner #6 #1/empty #7, set #6 c=7, set #7 c=7, \
                 touch #3 +1, touch #1 -1",
            ),
            row(
                "RENAME_EXCHANGE: two directories leave the counts as they are",
                swap((4, "deep"), (1, "empty")),
                "once: leads #4/deep=#5, leads #1/empty=#7, not #4 below #7 => \
                 exchange #4/deep #5 #1/empty #7, set #5 c=7, set #7 c=7, touch #4, touch #1",
            ),
            row("EXCHANGE: with itself, nothing", swap((1, "h1"), (1, "h2")), "Done"),
            row("EXCHANGE: EINVAL with what is below", swap((1, "dir"), (4, "deep")), "EINVAL"),
            row("EXCHANGE: EINVAL with what is above", swap((4, "deep"), (1, "dir")), "EINVAL"),
            row("EXCHANGE: EINVAL with one's own entry", swap((1, "dir"), (3, "inner")), "EINVAL"),
            row("EXCHANGE: ENOENT of the first", swap((1, "none"), (1, "file")), "ENOENT"),
            row("EXCHANGE: ENOENT of the second", swap((1, "file"), (1, "none")), "ENOENT"),
            row("EXCHANGE: EBUSY of the root", swap((1, "file"), (3, "up to the root")), "EBUSY"),
            row("EXCHANGE: EMLINK of a full parent", swap((15, "x"), (1, "empty")), "EMLINK"),
            row("EXCHANGE: EMLINK, the other way", swap((1, "empty"), (15, "x")), "EMLINK"),
            row(
                "renameat2(2): EINVAL where it cannot be",
                swap((1, "file"), (1, "other")),
                "EINVAL",
            )
            .with(&[NoExchange]),
            row("EXCHANGE: ENOENT before that", swap((1, "file"), (1, "none")), "ENOENT")
                .with(&[NoExchange]),
            row("EXCHANGE: EROFS", swap((1, "file"), (1, "other")), "EROFS").with(&[ReadOnly]),
        ]);
    }
}
