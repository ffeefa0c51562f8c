//! What a metadata operation means: pure functions from the facts at hand to a decision.
//!
//! `decide(&Request, &View)` is straight-line Rust. A fact that is not at hand ends it with
//! [`Missing`]; the transaction machine fetches what is missing and decides again. With all facts
//! there, the decision is a reply (an errno too) or a [`Plan`]. POSIX rules stand here, once, for
//! all layouts; nothing here knows how a fact is stored.
//!
//! What is *not* here, because the kernel does it before it asks (`default_permissions`):
//! permission, ownership and the sticky bit; that `.` and `..` are no names; that a path does not
//! cross mounts (`EXDEV`); following symlinks (`ELOOP`); clearing set-id bits on write.

mod acl;
#[cfg(test)]
#[cfg(feature = "sim")]
mod against_model;
mod ask;
mod attrs;
mod contents;
mod names;
mod plan;
mod remove;
mod rename;
#[cfg(test)]
mod testing;
mod view;
mod xattrs;

pub use attrs::marks_access;
pub use plan::{Answer, Change, Check, Decision, Patch, Plan, Reply};
pub use view::{Cached, Caps, Fact, Facts, Held, Missing, View, Want};

use crate::op::{Request, Response};
use ask::Stop;

/// What `request` comes to, given the facts in `view`; or which facts it still takes.
///
/// The same request with the same view always gives the same decision. Only metadata operations
/// are decided; for all others the answer is [`Decision::Elsewhere`].
pub fn decide(request: &Request, view: &View<'_>) -> Result<Decision, Missing> {
    match run(request, view) {
        Ok(decision) => Ok(decision),
        Err(Stop::Errno(errno)) => Ok(Decision::Reply(Err(errno))),
        Err(Stop::Missing(missing)) => Err(missing),
    }
}

fn run(request: &Request, view: &View<'_>) -> Result<Decision, Stop> {
    match request {
        Request::Lookup { parent, name } => names::lookup(view, *parent, name),
        Request::GetAttr { ino } => attrs::get(view, *ino),
        // Ownership is checked by the kernel (`setattr_prepare`), so the caller decides nothing.
        Request::SetAttr { ino, set, caller: _ } => attrs::set(view, *ino, set),
        Request::Fallocate { ino, offset, length, mode, .. } => {
            contents::allocate(view, *ino, *offset, *length, *mode)
        }
        Request::Seek { ino, offset, whence, .. } => contents::seek(view, *ino, *offset, *whence),
        Request::CopyRange { ino, offset, to_ino, to_offset, length, .. } => {
            contents::copy(view, (*ino, *offset), (*to_ino, *to_offset), *length)
        }
        Request::ReadLink { ino } => names::read_link(view, *ino),
        Request::Mknod { parent, name, kind, perm, rdev, caller } => {
            names::mknod(view, *parent, name, (*kind, *perm, *rdev), *caller)
        }
        Request::Mkdir { parent, name, perm, caller } => {
            names::mkdir(view, *parent, name, *perm, *caller)
        }
        Request::Symlink { parent, name, target, caller } => {
            names::symlink(view, *parent, name, target, *caller)
        }
        Request::Create { parent, name, perm, flags, caller } => {
            names::create(view, *parent, name, *perm, *flags, *caller)
        }
        Request::Link { ino, parent, name } => names::link(view, *ino, *parent, name),
        Request::Unlink { parent, name } => remove::unlink(view, *parent, name),
        Request::Rmdir { parent, name } => remove::rmdir(view, *parent, name),
        Request::Rename { parent, name, to_parent, to_name, mode } => {
            rename::rename(view, (*parent, name), (*to_parent, to_name), *mode)
        }
        Request::StatFs => Ok(ready(Response::StatFs(view.statfs()?))),
        Request::GetXattr { ino, name } => xattrs::get(view, *ino, name),
        Request::ListXattr { ino } => xattrs::list(view, *ino),
        Request::SetXattr { ino, name, value, mode } => xattrs::set(view, *ino, name, value, *mode),
        Request::RemoveXattr { ino, name } => xattrs::remove(view, *ino, name),
        // Listed one by one: a new request must be sorted before it compiles.
        Request::Attach
        | Request::Detach
        | Request::Forget { .. }
        | Request::Open { .. }
        | Request::Read { .. }
        | Request::Write { .. }
        | Request::Flush { .. }
        | Request::Release { .. }
        | Request::Fsync { .. }
        | Request::GetLock { .. }
        | Request::SetLock { .. }
        | Request::Unlock { .. }
        | Request::OpenDir { .. }
        | Request::ReadDir { .. }
        | Request::ReleaseDir { .. }
        | Request::FsyncDir { .. } => Ok(Decision::Elsewhere),
    }
}

/// A reply that needs nothing filled in.
fn ready(response: Response) -> Decision {
    Decision::Reply(Ok(Reply::Ready(response)))
}

#[cfg(test)]
mod tests {
    use super::testing::{Leases, World, check, line, row};
    use super::*;
    use crate::id::{Fh, Ino, LockOwner};
    use crate::op::OpenFlags;

    #[test]
    fn other_requests() {
        let (ino, fh, owner) = (Ino(2), Fh(1), LockOwner(1));
        check(&[
            row("statvfs: figures", Request::StatFs, "statfs"),
            row("attach is no metadata operation", Request::Attach, "elsewhere"),
            row("forget is none", Request::Forget { ino, count: 1 }, "elsewhere"),
            row("open is none", Request::Open { ino, flags: OpenFlags::default() }, "elsewhere"),
            row("flush is none", Request::Flush { ino, fh, owner }, "elsewhere"),
            row("release is none", Request::Release { ino, fh, owner: None }, "elsewhere"),
            row("opendir is none", Request::OpenDir { ino: Ino::ROOT }, "elsewhere"),
        ]);
    }

    /// A lease that has grown old must not decide over life and death.
    #[test]
    fn a_leased_name_whose_inode_is_gone_is_asked_for_again() {
        let world = World::new(&[]);
        let name = || crate::op::Name::from("file");
        let entry = Want::Entry(Ino::ROOT, name());
        let leases = Leases(Facts::from([
            (entry.clone(), Fact::Entry(Some(Ino(90)))),
            (Want::Attr(Ino(90)), Fact::Attr(None)),
        ]));
        let request = Request::Lookup { parent: Ino::ROOT, name: name() };
        let missing = decide(&request, &world.view(&Facts::new(), &leases, true));
        assert_eq!(missing, Err(Missing(alloc::vec![Want::Attr(Ino::ROOT), entry.clone()])));

        // The answer leads elsewhere; its attributes came along.
        let root = world.fact_of(Ino::ROOT);
        let fresh = Facts::from([
            (entry, Fact::Entry(Some(Ino(2)))),
            (Want::Attr(Ino(2)), world.fact_of(Ino(2))),
            (Want::Attr(Ino::ROOT), root),
        ]);
        let decision = decide(&request, &world.view(&fresh, &leases, true)).unwrap();
        assert_eq!(line(&decision), "entry #2");
    }

    /// What is asked for together is asked for once.
    #[test]
    fn a_cold_rename_asks_for_both_sides_at_once() {
        let world = World::new(&[]);
        let request = Request::Rename {
            parent: Ino::ROOT,
            name: "file".into(),
            to_parent: Ino::ROOT,
            to_name: "other".into(),
            mode: crate::op::RenameMode::Replace,
        };
        let none = Leases(Facts::new());
        let missing = decide(&request, &world.view(&Facts::new(), &none, true));
        assert_eq!(
            missing,
            Err(Missing(alloc::vec![
                Want::Attr(Ino::ROOT),
                Want::Entry(Ino::ROOT, "file".into()),
                Want::Entry(Ino::ROOT, "other".into()),
            ]))
        );
    }
}
