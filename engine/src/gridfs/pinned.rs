//! Who reads a file that is rewritten reads the revision that it opened, to its end: another mount
//! keeps the chunks of what it replaced for [`GRACE`], and a driver removes nothing at all. The
//! next open finds the new revision, and the kernel's pages of the old one are not kept for it.
//!
//! The kernel's pages belong to an inode, not to a handle: an open while others read takes the new
//! revision for all of them.

use crate::backend::mongo::Mongo;
use crate::engine::Cx;
use crate::id::Ino;
use crate::op::Kind;
use crate::time::Mono;

use super::GridFs;
use super::document::{Content, Id};
use super::live::GRACE;
use super::tree::Node;

/// The revision that the readers of an inode have opened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pinned {
    pub(super) id: Id,
    pub(super) content: Content,
    /// A newer one was seen; this one counts until then.
    until: Option<Mono>,
}

impl Node {
    /// The inode is opened: what there is of it now counts. Writers go by what there is at every
    /// time.
    pub(super) fn pin(&mut self, write: bool) {
        let pinned = match (&self.id, self.content) {
            (Some(id), Ok(content)) if !write && self.may_be_pinned() => {
                Some(Pinned { id: id.clone(), content, until: None })
            }
            _ => None,
        };
        self.unseen = self.old_pages || self.is_outlived();
        self.old_pages = false;
        self.pinned = pinned;
    }

    /// A file that nobody here is writing anew.
    fn may_be_pinned(&self) -> bool {
        self.attr.kind == Kind::File && self.staged.is_none()
    }

    /// What there is of it now counts for everybody who has it open.
    pub(super) fn unpin(&mut self) {
        self.old_pages |= self.is_outlived();
        self.pinned = None;
    }

    /// Readers read an older revision than there is.
    pub(super) fn is_outlived(&self) -> bool {
        self.pinned.as_ref().is_some_and(|pinned| Some(&pinned.id) != self.id.as_ref())
    }

    /// Somebody else has changed it.
    pub(super) fn outdate(&mut self, now: Mono) {
        if let Some(pinned) = &mut self.pinned {
            pinned.until.get_or_insert(now.after(GRACE));
        }
    }

    /// Its document was seen; the length that readers go by when that is another.
    pub(super) fn seen(
        &mut self,
        id: &Id,
        content: Result<Content, &'static str>,
        open: bool,
        now: Mono,
    ) -> Option<u64> {
        self.unseen = false;
        self.old_pages |= self.id.as_ref().is_some_and(|old| old != id);
        let pinned = self.pinned.as_mut()?;
        if pinned.id == *id {
            pinned.until = None;
            if let Ok(content) = content {
                pinned.content = content;
            }
            return None;
        }
        let until = *pinned.until.get_or_insert(now.after(GRACE));
        if !open || until <= now {
            self.pinned = None;
            return None;
        }
        Some(pinned.content.length)
    }
}

impl GridFs {
    /// Ends what has been pinned for long enough.
    pub(super) fn unpin_outdated(&mut self, ino: Ino, cx: &mut Cx<Mongo>) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        let until = node.pinned.as_ref().and_then(|pinned| pinned.until);
        if until.is_some_and(|until| until <= cx.now.mono) {
            node.unpin();
            cx.invalidate_inode(ino);
        }
    }
}
