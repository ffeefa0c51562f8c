//! POSIX access control lists (`acl(5)`), in the form in which the kernel hands them in.
//!
//! The mode of an inode is the only truth about its owner, its mask and others: what is kept of an
//! access list says who else is named, and gets those three from the mode when it is read. So
//! `chmod` need not know of lists, and neither order of a `chmod` and a `setfacl` loses anything.
//! Who may do what is the kernel's part (`FUSE_POSIX_ACL`).

use alloc::vec::Vec;

use bytes::Bytes;

use crate::errno::Errno;

/// The list that says who may do what.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Of a directory: the list that what is made in it begins with.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

// <linux/posix_acl_xattr.h>: a version, and entries of tag, permissions and id, little-endian.
const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

// <linux/posix_acl.h>
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a list says in the words of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// `0777`: of the owner, the mask (without one, the group), and others.
    pub(super) perm: u16,
    /// The mode says it all: nobody is named beside, and there is no mask.
    pub(super) minimal: bool,
}

/// Looks through a list as `posix_acl_valid` in Linux does: each entry in its place.
///
/// # Errors
/// `EINVAL` for what is no list; `EOPNOTSUPP` for a later version of the format.
pub(super) fn summary(list: &[u8]) -> Result<Summary, Errno> {
    let (head, entries) = list.split_at_checked(HEADER).ok_or(Errno::EINVAL)?;
    if head != VERSION.to_le_bytes() {
        return Err(Errno::EOPNOTSUPP);
    }
    if entries.len() % ENTRY != 0 {
        return Err(Errno::EINVAL);
    }
    let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
    let (mut named, mut least) = (false, USER_OBJ);
    for entry in entries.chunks_exact(ENTRY) {
        let (tag, perm) = tag_and_perm(entry);
        let alone = match tag {
            USER_OBJ => Some(&mut owner),
            GROUP_OBJ => Some(&mut group),
            MASK => Some(&mut mask),
            OTHER => Some(&mut other),
            USER | GROUP => None,
            _ => return Err(Errno::EINVAL),
        };
        if perm > 0o7 || tag < least {
            return Err(Errno::EINVAL);
        }
        least = tag;
        named |= alone.is_none();
        if alone.is_some_and(|it| it.replace(perm).is_some()) {
            return Err(Errno::EINVAL);
        }
    }
    let (Some(owner), Some(group), Some(other)) = (owner, group, other) else {
        return Err(Errno::EINVAL);
    };
    if named && mask.is_none() {
        return Err(Errno::EINVAL);
    }
    let perm = owner << 6 | mask.unwrap_or(group) << 3 | other;
    Ok(Summary { perm, minimal: mask.is_none() })
}

/// An access list as it reads with a mode: `__posix_acl_chmod_masq` in Linux. What is no list is
/// left as it is, for the kernel to refuse.
pub(super) fn with_mode(list: &Bytes, perm: u16) -> Bytes {
    if summary(list).is_err() {
        return list.clone();
    }
    let tags = || list[HEADER..].chunks_exact(ENTRY).map(|entry| tag_and_perm(entry).0);
    let masked = tags().any(|tag| tag == MASK);
    let mut list = Vec::from(&list[..]);
    for entry in list[HEADER..].chunks_exact_mut(ENTRY) {
        let perm = match tag_and_perm(entry).0 {
            USER_OBJ => perm >> 6,
            MASK => perm >> 3,
            GROUP_OBJ if !masked => perm >> 3,
            OTHER => perm,
            _ => continue,
        };
        entry[2..4].copy_from_slice(&(perm & 0o7).to_le_bytes());
    }
    Bytes::from(list)
}

/// What a new inode begins with, asked for with `perm`, in a directory with this default list: its
/// mode, and whether the list becomes its access list. `__posix_acl_create_masq` in Linux; the
/// umask counts for nothing then.
///
/// # Errors
/// `EIO` for what is no list.
pub(super) fn inherited(list: &[u8], perm: u16) -> Result<(u16, bool), Errno> {
    let summary = summary(list).map_err(|_| Errno::EIO)?;
    Ok((perm & (summary.perm | !0o777), !summary.minimal))
}

fn tag_and_perm(entry: &[u8]) -> (u16, u16) {
    let half = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
    (half(0), half(2))
}

/// A list from tags, permissions and ids, for tests.
#[cfg(test)]
pub(super) fn list(entries: &[(u16, u16, u32)]) -> Bytes {
    let mut list = Vec::from(VERSION.to_le_bytes());
    for (tag, perm, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&perm.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    Bytes::from(list)
}

/// `u::rw-,u:5:rwx,g::r--,m::rw-,o::---`, for tests.
#[cfg(test)]
pub(super) fn some() -> Bytes {
    list(&[(1, 6, NOBODY), (2, 7, 5), (4, 4, NOBODY), (0x10, 6, NOBODY), (0x20, 0, NOBODY)])
}

/// `u::rw-,g::r-x,o::r--`, which a mode says as well, for tests.
#[cfg(test)]
pub(super) fn minimal() -> Bytes {
    list(&[(1, 6, NOBODY), (4, 5, NOBODY), (0x20, 4, NOBODY)])
}

/// `ACL_UNDEFINED_ID`.
#[cfg(test)]
const NOBODY: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_in_the_words_of_a_mode() {
        assert_eq!(summary(&some()), Ok(Summary { perm: 0o660, minimal: false }));
        assert_eq!(summary(&minimal()), Ok(Summary { perm: 0o654, minimal: true }));
        let masked = list(&[(1, 7, 0), (4, 7, 0), (0x10, 1, 0), (0x20, 0, 0)]);
        assert_eq!(summary(&masked), Ok(Summary { perm: 0o710, minimal: false }));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let (u, n, g, m, o) = ((1, 6, 0), (2, 6, 5), (4, 4, 0), (0x10, 6, 0), (0x20, 0, 0));
        for (what, bad) in [
            ("no entries", list(&[])),
            ("no others", list(&[u, g])),
            ("no owner", list(&[g, o])),
            ("two owners", list(&[u, u, g, o])),
            ("two masks", list(&[u, g, m, m, o])),
            ("somebody is named and there is no mask", list(&[u, n, g, o])),
            ("out of order", list(&[u, g, n, m, o])),
            ("no such permission", list(&[(1, 8, 0), g, o])),
            ("no such tag", list(&[u, g, o, (0x40, 0, 0)])),
            ("two tags at once", list(&[u, (3, 6, 5), g, m, o])),
            ("cut off", minimal().slice(..HEADER + 3)),
            ("nothing", Bytes::new()),
        ] {
            assert_eq!(summary(&bad), Err(Errno::EINVAL), "{what}");
        }
        assert_eq!(summary(&[3, 0, 0, 0]), Err(Errno::EOPNOTSUPP), "another version");
    }

    #[test]
    fn chmod_is_seen_in_the_list() {
        let want = list(&[
            (1, 7, NOBODY),
            (2, 7, 5),
            (4, 4, NOBODY),
            (0x10, 1, NOBODY),
            (0x20, 5, NOBODY),
        ]);
        assert_eq!(with_mode(&some(), 0o4715), want, "the mask, not the group, follows");
        assert_eq!(summary(&with_mode(&minimal(), 0o640)), summary_of(0o640));
        let odd = Bytes::from_static(b"odd");
        assert_eq!(with_mode(&odd, 0o777), odd);
    }

    fn summary_of(perm: u16) -> Result<Summary, Errno> {
        Ok(Summary { perm, minimal: true })
    }

    #[test]
    fn a_new_inode_gets_what_both_allow() {
        assert_eq!(inherited(&some(), 0o2777), Ok((0o2660, true)));
        assert_eq!(inherited(&some(), 0o604), Ok((0o600, true)));
        assert_eq!(inherited(&minimal(), 0o666), Ok((0o644, false)));
        assert_eq!(inherited(b"odd", 0o666), Err(Errno::EIO));
    }
}
