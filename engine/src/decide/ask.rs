//! How a rule asks for what it stands on: names, directories, inodes, and why it stops.

use crate::decide::plan::{Change, Patch};
use crate::decide::view::{Missing, View, Want};
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name};

/// Why a rule ends early. Both stand in one type so that rules are straight lines of `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Facts are missing.
    Missing(Missing),
    /// This is the answer.
    Errno(Errno),
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Stop {
        Stop::Missing(missing)
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Errno(errno)
    }
}

/// Two questions at once: facts that either lacks are asked for together.
///
/// An errno of the first stands whatever the second comes to; an errno of the second only once the
/// first is answered. So the precedence of errors does not depend on which facts came first.
pub(super) fn both<A, B>(a: Result<A, Stop>, b: Result<B, Stop>) -> Result<(A, B), Stop> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(Stop::Missing(a)), Err(Stop::Missing(b))) => Err(a.and(b).into()),
        (Err(stop), _) | (Ok(_), Err(stop)) => Err(stop),
    }
}

/// A live inode, whether or not it still has a name.
///
/// One that is gone is `ESTALE`: for a path, the kernel then walks it again with
/// revalidation (`LOOKUP_REVAL`) and finds what is there now.
pub(super) fn inode(view: &View<'_>, ino: Ino) -> Result<Attr, Stop> {
    gone_is(view, ino, Errno::ESTALE)
}

/// A directory in which names can be made.
///
/// POSIX: a component of the path prefix that does not exist is `ENOENT`, one that is no directory
/// `ENOTDIR`. A directory that was removed while someone stands in it (link count 0) takes no
/// names: `ENOENT`, as `mkdir(2)` has it on Linux.
pub(super) fn directory(view: &View<'_>, ino: Ino) -> Result<Attr, Stop> {
    let attr = gone_is(view, ino, Errno::ENOENT)?;
    match attr.kind {
        Kind::Dir if attr.nlink == 0 => Err(Errno::ENOENT.into()),
        Kind::Dir => Ok(attr),
        _ => Err(Errno::ENOTDIR.into()),
    }
}

fn gone_is(view: &View<'_>, ino: Ino, errno: Errno) -> Result<Attr, Stop> {
    match view.attr(ino)? {
        Some(attr) => Ok(attr),
        None if view.is_fresh(&Want::Attr(ino)) => Err(errno.into()),
        // A lease is no reason to call something dead.
        None => Err(Missing(alloc::vec![Want::Attr(ino)]).into()),
    }
}

/// What `name` in `dir` leads to.
///
/// A name whose inode is gone is asked for again, as one of the two facts may be an old lease;
/// if it is so even in a fresh answer, someone removed it in between: `ESTALE`.
pub(super) fn named(view: &View<'_>, dir: Ino, name: &Name) -> Result<Option<Attr>, Stop> {
    let Some(ino) = view.entry(dir, name)? else { return Ok(None) };
    let want = Want::Entry(dir, name.clone());
    match view.attr(ino)? {
        Some(attr) => Ok(Some(attr)),
        None if view.is_fresh(&want) => Err(Errno::ESTALE.into()),
        None => Err(Missing(alloc::vec![want]).into()),
    }
}

/// As [`named`], and `dir` is held to be a directory as far as that is known. Where the name must
/// be asked for, so is the directory, in the same round; where the name is at hand, nobody waits
/// for the directory: the checks of the plan see to it.
pub(super) fn looked_up(view: &View<'_>, dir: Ino, name: &Name) -> Result<Option<Attr>, Stop> {
    let found = named(view, dir, name);
    match directory(view, dir) {
        Err(Stop::Missing(missing)) => match found {
            Err(Stop::Missing(_)) => both(Err(missing.into()), found).map(|((), found)| found),
            found => found,
        },
        known => known.and(found),
    }
}

/// A name that may be looked up or made: `.` and `..` are not among them.
///
/// `dots` is the error for those two; POSIX has one for each operation.
pub(super) fn name(name: &Name, dots: Errno) -> Result<(), Errno> {
    match name.as_bytes() {
        // pathname(7): the empty name leads nowhere.
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(dots),
        bytes if bytes.len() > Name::MAX => Err(Errno::ENAMETOOLONG),
        bytes if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// The mount may be changed.
pub(super) fn writable(view: &View<'_>) -> Result<(), Errno> {
    if view.read_only { Err(Errno::EROFS) } else { Ok(()) }
}

/// The entries of `dir` changed, and with them the number of its subdirectories by `subdirs`
/// (POSIX, for each operation that makes or removes names: the directory's last data modification
/// and last status change are marked for update).
pub(super) fn touch(view: &View<'_>, dir: Ino, subdirs: i32) -> Change {
    Change::Touch { dir, at: view.now, nlink: if view.caps.dir_nlink { subdirs } else { 0 } }
}

/// The status of `ino` changed, and nothing else that `stat` shows.
pub(super) fn mark_ctime(view: &View<'_>, ino: Ino) -> Change {
    Change::SetAttr { ino, patch: Patch { ctime: Some(view.now), ..Patch::default() } }
}
