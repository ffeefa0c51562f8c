//! Extended attributes (`xattr(7)`): get, list, set, remove, and whose they are.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::decide::acl;
use crate::decide::ask::{self, Stop, both};
use crate::decide::plan::{Answer, Change, Check, Decision, Patch, Plan};
use crate::decide::ready;
use crate::decide::view::View;
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{Attr, Kind, Name, Response, XattrMode};

/// `XATTR_NAME_MAX`.
const NAME_MAX: usize = 255;

/// What an attribute's name says about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// `user.`: regular files and directories only.
    User,
    /// `trusted.`: the kernel lets only the superuser ask.
    Trusted,
    /// The list of who may do what.
    Access,
    /// The list that new inodes begin with.
    Default,
    /// `security.` and `system.`: there are no others. Reading says so (the kernel asks for
    /// `security.capability` on each write, `ls` for ACLs on each file); setting is not supported,
    /// which `cp -a` and `rsync -X` take for what it is.
    Absent,
    /// Made up by the layout: can be read only.
    Reserved,
}

pub(super) fn get(view: &View<'_>, ino: Ino, name: &Name) -> Result<Decision, Stop> {
    let space = space(view, name)?;
    if space == Space::Absent {
        return Err(Errno::ENODATA.into());
    }
    // What may not have attributes has none, so the kind need not be known.
    let value = match view.xattr(ino, name) {
        Ok(None) => return Err(Errno::ENODATA.into()),
        Ok(Some(value)) if space != Space::Access => value,
        Err(missing) if space != Space::Access => return Err(missing.into()),
        value => {
            let value = value.map_err(Stop::from);
            let (value, attr) = both(value, ask::inode(view, ino))?;
            acl::with_mode(&value.ok_or(Errno::ENODATA)?, attr.perm)
        }
    };
    Ok(ready(Response::Xattr(value)))
}

pub(super) fn list(view: &View<'_>, ino: Ino) -> Result<Decision, Stop> {
    if view.caps.max_xattr_size == 0 {
        return Ok(ready(Response::XattrNames(Bytes::new())));
    }
    let names = view.xattr_names(ino)?;
    let mut list = Vec::with_capacity(names.iter().map(|name| name.as_bytes().len() + 1).sum());
    for name in &names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    Ok(ready(Response::XattrNames(list.into())))
}

pub(super) fn set(
    view: &View<'_>,
    ino: Ino,
    name: &Name,
    value: &Bytes,
    mode: XattrMode,
) -> Result<Decision, Stop> {
    // The order is that of Linux's `setxattr_copy` and `vfs_setxattr`: the name, the mount, whether
    // there may be such an attribute here, and then the filesystem's own limits.
    named(name)?;
    ask::writable(view)?;
    let space = settable(view, name)?;
    let (attr, present) = both(ask::inode(view, ino), presence(view, ino, name, mode))?;
    suits(space, attr.kind)?;
    // setxattr(2): E2BIG, the size of value exceeds a filesystem-specific limit.
    if value.len() > view.caps.max_xattr_size {
        return Err(Errno::E2BIG.into());
    }
    let list = match space {
        Space::Access | Space::Default => Some(acl::summary(value)?),
        _ => None,
    };
    match (mode, present) {
        // setxattr(2): EEXIST and ENODATA.
        (XattrMode::Create, Some(true)) => return Err(Errno::EEXIST.into()),
        (XattrMode::Replace, Some(false)) => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    let mut checks = vec![Check::Live(ino)];
    if mode != XattrMode::Any {
        checks.push(Check::Xattr(ino, name.clone(), mode));
    }
    let says_more = !(space == Space::Access && list.is_some_and(|list| list.minimal));
    let value = says_more.then(|| value.clone());
    let mut plan = plan(view, checks, ino, name, value, mode == XattrMode::Create);
    if let (Space::Access, Some(list)) = (space, list) {
        plan.changes.push(Change::SetAttr { ino, patch: granted(view, &attr, list.perm) });
    }
    Ok(Decision::Commit(plan))
}

/// acl(5), "Correspondence between ACL entries and file permission bits": what the list says of
/// the owner, the mask and others are the file's permissions from now on.
fn granted(view: &View<'_>, attr: &Attr, perm: u16) -> Patch {
    let perm = attr.perm & !0o777 | perm;
    Patch { perm: Some(perm), ctime: Some(view.now), ..Patch::default() }
}

pub(super) fn remove(view: &View<'_>, ino: Ino, name: &Name) -> Result<Decision, Stop> {
    named(name)?;
    ask::writable(view)?;
    let space = settable(view, name)?;
    let present = presence(view, ino, name, XattrMode::Replace);
    let (attr, present) = both(ask::inode(view, ino), present)?;
    suits(space, attr.kind)?;
    if present == Some(false) {
        return Err(Errno::ENODATA.into());
    }
    let checks = vec![Check::Live(ino), Check::Xattr(ino, name.clone(), XattrMode::Replace)];
    Ok(Decision::Commit(plan(view, checks, ino, name, None, true)))
}

fn plan(
    view: &View<'_>,
    checks: Vec<Check>,
    ino: Ino,
    name: &Name,
    value: Option<Bytes>,
    once: bool,
) -> Plan {
    // Linux's filesystems mark ctime for it.
    let changes = vec![Change::Xattr { ino, name: name.clone(), value, at: view.now }];
    Plan { checks, changes, once, answer: Answer::Done }
}

/// Whether the attribute is there, where the mode makes that matter.
fn presence(view: &View<'_>, ino: Ino, name: &Name, mode: XattrMode) -> Result<Option<bool>, Stop> {
    match mode {
        XattrMode::Any => Ok(None),
        XattrMode::Create | XattrMode::Replace => Ok(Some(view.xattr(ino, name)?.is_some())),
    }
}

/// xattr(7): `user.` attributes are for regular files and directories only; EPERM, as Linux's
/// `xattr_permission` answers. Symlinks have no ACLs, and only directories have default ones: what
/// Linux's `set_posix_acl` answers.
fn suits(space: Space, kind: Kind) -> Result<(), Errno> {
    match (space, kind) {
        (Space::User, Kind::File | Kind::Dir) => Ok(()),
        (Space::User, _) => Err(Errno::EPERM),
        (Space::Access | Space::Default, Kind::Symlink) => Err(Errno::EOPNOTSUPP),
        (Space::Default, Kind::Dir) => Ok(()),
        (Space::Default, _) => Err(Errno::EACCES),
        _ => Ok(()),
    }
}

fn settable(view: &View<'_>, name: &Name) -> Result<Space, Errno> {
    match space(view, name)? {
        Space::Absent => Err(Errno::EOPNOTSUPP),
        Space::Reserved => Err(Errno::EPERM),
        space => Ok(space),
    }
}

fn space(view: &View<'_>, name: &Name) -> Result<Space, Errno> {
    named(name)?;
    let bytes = name.as_bytes();
    let space = if view.caps.acls && bytes == acl::ACCESS {
        Space::Access
    } else if view.caps.acls && bytes == acl::DEFAULT {
        Space::Default
    } else if bytes.starts_with(b"security.") || bytes.starts_with(b"system.") {
        Space::Absent
    } else if view.caps.max_xattr_size == 0 {
        return Err(Errno::EOPNOTSUPP);
    } else if view.caps.reserved_xattrs.iter().any(|prefix| bytes.starts_with(prefix)) {
        Space::Reserved
    } else if bytes.starts_with(b"user.") {
        Space::User
    } else if bytes.starts_with(b"trusted.") {
        Space::Trusted
    } else {
        // xattr(7): EOPNOTSUPP, the namespace prefix of name is not valid.
        return Err(Errno::EOPNOTSUPP);
    };
    // Linux's `xattr_resolve_name`: a prefix alone is no name.
    if bytes.ends_with(b".") && bytes.iter().filter(|b| **b == b'.').count() == 1 {
        return Err(Errno::EINVAL);
    }
    Ok(space)
}

/// setxattr(2), getxattr(2): ERANGE for a name that is empty or too long.
fn named(name: &Name) -> Result<(), Errno> {
    match name.as_bytes().len() {
        1..=NAME_MAX => Ok(()),
        _ => Err(Errno::ERANGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{Twist::*, check, row};
    use crate::op::Request;

    fn get(ino: u64, name: &str) -> Request {
        Request::GetXattr { ino: Ino(ino), name: name.into() }
    }

    fn put(ino: u64, name: &str, mode: XattrMode) -> Request {
        let value = Bytes::from_static(b"value");
        Request::SetXattr { ino: Ino(ino), name: name.into(), value, mode }
    }

    fn set(ino: u64, name: &str) -> Request {
        put(ino, name, XattrMode::Any)
    }

    fn rm(ino: u64, name: &str) -> Request {
        Request::RemoveXattr { ino: Ino(ino), name: name.into() }
    }

    fn long() -> alloc::string::String {
        alloc::format!("user.{:0>251}", 1)
    }

    #[test]
    fn reading() {
        let list = |ino| Request::ListXattr { ino: Ino(ino) };
        check(&[
            row("getxattr(2): the value", get(2, "user.set"), "xattr v"),
            row("getxattr(2): ENODATA", get(2, "user.none"), "ENODATA"),
            row("a made-up one can be read", get(2, "user.redis.ttl"), "xattr 9"),
            row("xattr(7): a symlink has no user attributes", get(9, "user.set"), "ENODATA"),
            row("what the kernel asks on each write", get(2, "security.capability"), "ENODATA"),
            row("what ls asks", get(2, "system.posix_acl_access"), "ENODATA"),
            row("the same where there are no lists", get(21, "system.posix_acl_access"), "ENODATA")
                .with(&[NoAcls]),
            row(
                "acl(5): the owner, the mask and others are as the mode has them",
                get(21, "system.posix_acl_access"),
                "xattr \\x02\\x00\\x00\\x00\
                 \\x01\\x00\\x06\\x00\\xff\\xff\\xff\\xff\
                 \\x02\\x00\\x07\\x00\\x05\\x00\\x00\\x00\
                 \\x04\\x00\\x04\\x00\\xff\\xff\\xff\\xff\
                 \\x10\\x00\\x01\\x00\\xff\\xff\\xff\\xff\
                 \x20\\x00\\x05\\x00\\xff\\xff\\xff\\xff",
            ),
            row("lists are listed", list(21), "xattrs system.posix_acl_access\\x00"),
            row("the same where there are no attributes", get(2, "security.selinux"), "ENODATA")
                .with(&[NoXattrs]),
            row("trusted attributes are kept", get(2, "trusted.none"), "ENODATA"),
            row("xattr(7): EOPNOTSUPP of another namespace", get(2, "other.x"), "EOPNOTSUPP"),
            row("EOPNOTSUPP where there are none", get(2, "user.set"), "EOPNOTSUPP")
                .with(&[NoXattrs]),
            row("ERANGE of the empty name", get(2, ""), "ERANGE"),
            row("ERANGE over XATTR_NAME_MAX", get(2, &long()), "ERANGE"),
            row("EINVAL of a namespace alone", get(2, "user."), "EINVAL"),
            row(
                "listxattr(2): names, each with NUL",
                list(2),
                "xattrs user.redis.ttl\\x00user.set\\x00",
            ),
            row("listxattr(2): none", list(17), "xattrs "),
            row("listxattr(2): none where there can be none", list(2), "xattrs ").with(&[NoXattrs]),
        ]);
    }

    #[test]
    fn setting() {
        use XattrMode::{Create, Replace};
        let big = |ino| Request::SetXattr {
            ino: Ino(ino),
            name: "user.big".into(),
            value: Bytes::from_static(&[b'v'; 45]),
            mode: XattrMode::Any,
        };
        check(&[
            row("setxattr(2): a new one", set(2, "user.new"), "live #2 => xattr #2 user.new=value"),
            row(
                "setxattr(2): one that is there is replaced",
                set(2, "user.set"),
                "live #2 => xattr #2 user.set=value",
            ),
            row(
                "XATTR_CREATE: a new one, and once",
                put(2, "user.new", Create),
                "once: live #2, no xattr #2 user.new => xattr #2 user.new=value",
            ),
            row("XATTR_CREATE: EEXIST", put(2, "user.set", Create), "EEXIST"),
            row(
                "XATTR_REPLACE: one that is there",
                put(2, "user.set", Replace),
                "live #2, xattr #2 user.set => xattr #2 user.set=value",
            ),
            row("XATTR_REPLACE: ENODATA", put(2, "user.new", Replace), "ENODATA"),
            row("a directory", set(3, "user.new"), "live #3 => xattr #3 user.new=value"),
            row(
                "trusted attributes on anything",
                set(9, "trusted.new"),
                "live #9 => xattr #9 trusted.new=value",
            ),
            row("xattr(7): EPERM, user attributes on a symlink", set(9, "user.x"), "EPERM"),
            row("xattr(7): EPERM, user attributes on a fifo", set(11, "user.x"), "EPERM"),
            row("EPERM before ENODATA", put(9, "user.x", Replace), "EPERM"),
            row("a made-up one is read-only: EPERM", set(2, "user.redis.ttl"), "EPERM"),
            row("the whole prefix is", set(2, "user.redis.new"), "EPERM"),
            row("EOPNOTSUPP of security", set(2, "security.capability"), "EOPNOTSUPP"),
            row("EOPNOTSUPP of ACLs", set(2, "system.posix_acl_access"), "EOPNOTSUPP")
                .with(&[NoAcls]),
            row("EOPNOTSUPP of another namespace", set(2, "other.x"), "EOPNOTSUPP"),
            row("EOPNOTSUPP where there are none", set(2, "user.x"), "EOPNOTSUPP")
                .with(&[NoXattrs]),
            row("setxattr(2): E2BIG", big(2), "E2BIG"),
            row("EPERM before E2BIG", big(9), "EPERM"),
            row("ERANGE of the empty name", set(2, ""), "ERANGE"),
            row("ERANGE over XATTR_NAME_MAX", set(2, &long()), "ERANGE"),
            row("EROFS", set(2, "user.x"), "EROFS").with(&[ReadOnly]),
            row("ERANGE before EROFS", set(2, ""), "ERANGE").with(&[ReadOnly]),
            row("EROFS before EOPNOTSUPP", set(2, "other.x"), "EROFS").with(&[ReadOnly]),
            row("gone is ESTALE", set(90, "user.x"), "ESTALE"),
        ]);
    }

    #[test]
    fn setting_lists() {
        let give = |ino, name: &str, list: Bytes| Request::SetXattr {
            ino: Ino(ino),
            name: name.into(),
            value: list,
            mode: XattrMode::Any,
        };
        let access = |ino, list| give(ino, "system.posix_acl_access", list);
        let default = |ino, list| give(ino, "system.posix_acl_default", list);
        check(&[
            row(
                "acl(5): the mode says what the list says of the owner, the mask and others",
                access(13, acl::some()),
                "live #13 => list #13 system.posix_acl_access, set #13 6660 c=7",
            ),
            row(
                "one that names nobody is the mode",
                access(21, acl::minimal()),
                "live #21 => no xattr #21 system.posix_acl_access, set #21 4654 c=7",
            ),
            row(
                "a default list is not about the directory itself",
                default(3, acl::some()),
                "live #3 => list #3 system.posix_acl_default",
            ),
            row("a default list of a file: EACCES", default(2, acl::some()), "EACCES"),
            row("a symlink has none: EOPNOTSUPP", access(9, acl::some()), "EOPNOTSUPP"),
            row("EINVAL of what is no list", access(2, Bytes::from_static(b"v")), "EINVAL"),
            row("EROFS", access(2, acl::some()), "EROFS").with(&[ReadOnly]),
            row("gone is ESTALE", access(90, acl::some()), "ESTALE"),
        ]);
    }

    #[test]
    fn removing() {
        check(&[
            row(
                "removexattr(2): and once",
                rm(2, "user.set"),
                "once: live #2, xattr #2 user.set => no xattr #2 user.set",
            ),
            row("removexattr(2): ENODATA", rm(2, "user.none"), "ENODATA"),
            row("a made-up one stays: EPERM", rm(2, "user.redis.ttl"), "EPERM"),
            row("EPERM on a symlink", rm(9, "user.x"), "EPERM"),
            row("EOPNOTSUPP of ACLs", rm(2, "system.posix_acl_default"), "EOPNOTSUPP")
                .with(&[NoAcls]),
            row("a list that is not there", rm(2, "system.posix_acl_access"), "ENODATA"),
            row(
                "without its list a file keeps its mode",
                rm(21, "system.posix_acl_access"),
                "once: live #21, xattr #21 system.posix_acl_access => \
                 no xattr #21 system.posix_acl_access",
            ),
            row("EROFS", rm(2, "user.set"), "EROFS").with(&[ReadOnly]),
            row("ERANGE", rm(2, ""), "ERANGE"),
            row("gone is ESTALE", rm(90, "user.x"), "ESTALE"),
        ]);
    }
}
