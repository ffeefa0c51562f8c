//! What changes or asks about contents without reading or writing them: fallocate, lseek for data
//! and holes, copy_file_range. The machines see to it that everything written is on the server
//! before these are decided.

use alloc::vec;
use alloc::vec::Vec;

use crate::decide::ask::{self, Stop};
use crate::decide::attrs::may_resize;
use crate::decide::plan::{Answer, Change, Check, Decision, Patch, Plan};
use crate::decide::ready;
use crate::decide::view::{Missing, View};
use crate::errno::Errno;
use crate::id::Ino;
use crate::op::{FallocateMode, Response, Whence};

/// fallocate(2). A database reserves nothing ahead of a write: `ENOSPC` comes with the write, and
/// what is left of an allocation is the length of the file.
pub(super) fn allocate(
    view: &View<'_>,
    ino: Ino,
    offset: u64,
    length: u64,
    mode: FallocateMode,
) -> Result<Decision, Stop> {
    ask::writable(view)?;
    let zeros = mode.punch_hole || mode.zero_range;
    // EOPNOTSUPP, the filesystem does not support the operation: the caller writes zeros instead.
    // A hole is only ever punched into the length there is, and not while zeroing.
    let impossible = mode.punch_hole && (mode.zero_range || !mode.keep_size);
    if impossible || (zeros && !view.caps.holes) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    // EINVAL, len was less than or equal to 0.
    if length == 0 {
        return Err(Errno::EINVAL.into());
    }
    let attr = ask::inode(view, ino)?;
    // EFBIG, offset+len exceeds the maximum file size.
    let end = offset.checked_add(length).ok_or(Errno::EFBIG)?;
    may_resize(view, &attr, end)?;
    let grows = !mode.keep_size && end > attr.size;
    let mut changes = Vec::new();
    if zeros && offset < attr.size {
        changes.push(Change::Zero { ino, from: offset, to: end });
    }
    if grows && view.caps.holes {
        changes.push(Change::Grow { ino, size: end });
    }
    let size = (grows && !view.caps.holes).then_some(end);
    if changes.is_empty() && size.is_none() {
        return Ok(ready(Response::Done));
    }
    changes.push(modified(view, ino, size));
    Ok(Decision::Commit(Plan {
        checks: vec![Check::Live(ino)],
        changes,
        // Another may have written there since.
        once: true,
        answer: Answer::Done,
    }))
}

/// lseek(2): ENXIO when the offset is beyond the end of the file or, for data, when only a hole
/// follows. Without holes all of a file is data, up to the hole that every file ends with.
pub(super) fn seek(
    view: &View<'_>,
    ino: Ino,
    offset: u64,
    whence: Whence,
) -> Result<Decision, Stop> {
    let found = if view.caps.holes {
        ask::both(ask::inode(view, ino), view.seek(ino, offset, whence).map_err(Stop::from))
    } else {
        ask::inode(view, ino).map(|attr| {
            let found = if whence == Whence::Data { offset } else { attr.size };
            (attr, Some(found))
        })
    };
    let (attr, found) = found?;
    if offset >= attr.size {
        return Err(Errno::ENXIO.into());
    }
    let at = match whence {
        Whence::Data => found.filter(|at| *at < attr.size).ok_or(Errno::ENXIO)?,
        Whence::Hole => found.map_or(attr.size, |at| at.min(attr.size)),
    };
    Ok(ready(Response::Offset(at)))
}

/// copy_file_range(2). Answering `ENOSYS` makes the kernel copy through reads and writes.
pub(super) fn copy(
    view: &View<'_>,
    from: (Ino, u64),
    to: (Ino, u64),
    length: u64,
) -> Result<Decision, Stop> {
    ask::writable(view)?;
    if view.caps.max_copy == 0 {
        return Err(Errno::ENOSYS.into());
    }
    let both = Missing::both(view.attr(from.0), view.attr(to.0)).map_err(Stop::from);
    both?;
    let (source, target) = (ask::inode(view, from.0)?, ask::inode(view, to.0)?);
    may_resize(view, &source, 0)?;
    // "If fd_in's file offset is at or past the end of file, no bytes are copied."
    let length = length.min(view.caps.max_copy).min(u64::from(u32::MAX));
    let length = length.min(source.size.saturating_sub(from.1));
    let end = to.1.checked_add(length).ok_or(Errno::EFBIG)?;
    may_resize(view, &target, end)?;
    if length == 0 {
        return Ok(ready(Response::Written(0)));
    }
    // EINVAL, the source and target ranges overlap.
    if from.0 == to.0 && from.1 < end && to.1 < from.1 + length {
        return Err(Errno::EINVAL.into());
    }
    let mut changes = vec![Change::Copy { from, to, length }];
    if end > target.size {
        changes.push(Change::Grow { ino: to.0, size: end });
    }
    changes.push(modified(view, to.0, None));
    let mut checks = vec![Check::Live(to.0)];
    if from.0 != to.0 {
        checks.push(Check::Live(from.0));
    }
    Ok(Decision::Commit(Plan {
        checks,
        changes,
        once: true,
        answer: Answer::Written(length as u32),
    }))
}

/// The contents changed now.
fn modified(view: &View<'_>, ino: Ino, size: Option<u64>) -> Change {
    let now = Some(view.now);
    Change::SetAttr { ino, patch: Patch { size, mtime: now, ctime: now, ..Patch::default() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::testing::{Twist::*, check, row};
    use crate::id::Fh;
    use crate::op::Request;

    const PLAIN: FallocateMode =
        FallocateMode { keep_size: false, punch_hole: false, zero_range: false };
    const KEEP: FallocateMode = FallocateMode { keep_size: true, ..PLAIN };
    const PUNCH: FallocateMode = FallocateMode { punch_hole: true, ..KEEP };
    const ZERO: FallocateMode = FallocateMode { zero_range: true, ..PLAIN };

    #[test]
    fn allocating() {
        let allocate = |ino, offset, length, mode| {
            let ino = Ino(ino);
            Request::Fallocate { ino, fh: Fh(1), offset, length, mode }
        };
        check(&[
            row(
                "fallocate: makes the file longer",
                allocate(2, 2, 8, PLAIN),
                "once: live #2 => grow #2 10, set #2 m=7 c=7",
            ),
            row(
                "fallocate: also where there are no holes",
                allocate(2, 2, 8, PLAIN),
                "once: live #2 => set #2 size=10 m=7 c=7",
            )
            .with(&[NoHoles]),
            row("fallocate: what is there already", allocate(2, 0, 4, PLAIN), "Done"),
            row("FALLOC_FL_KEEP_SIZE: reserves nothing", allocate(2, 0, 9, KEEP), "Done"),
            row(
                "FALLOC_FL_PUNCH_HOLE: the length stays",
                allocate(2, 1, 8, PUNCH),
                "once: live #2 => zero #2 1..9, set #2 m=7 c=7",
            ),
            row("FALLOC_FL_PUNCH_HOLE: behind the end", allocate(2, 4, 8, PUNCH), "Done"),
            row(
                "FALLOC_FL_PUNCH_HOLE: only with FALLOC_FL_KEEP_SIZE",
                allocate(2, 1, 2, FallocateMode { keep_size: false, ..PUNCH }),
                "EOPNOTSUPP",
            ),
            row(
                "FALLOC_FL_ZERO_RANGE: makes the file longer",
                allocate(2, 1, 8, ZERO),
                "once: live #2 => zero #2 1..9, grow #2 9, set #2 m=7 c=7",
            ),
            row(
                "FALLOC_FL_ZERO_RANGE: unless told not to",
                allocate(2, 1, 8, FallocateMode { keep_size: true, ..ZERO }),
                "once: live #2 => zero #2 1..9, set #2 m=7 c=7",
            ),
            row("fallocate(2): EOPNOTSUPP", allocate(2, 1, 8, ZERO), "EOPNOTSUPP").with(&[NoHoles]),
            row("fallocate(2): EINVAL of no length", allocate(2, 1, 0, PLAIN), "EINVAL"),
            row("fallocate(2): EFBIG", allocate(2, 1, 1 << 20, PLAIN), "EFBIG"),
            row("fallocate(2): EFBIG of what has no end", allocate(2, 1, u64::MAX, PLAIN), "EFBIG"),
            row("fallocate(2): EROFS", allocate(2, 1, 8, PLAIN), "EROFS").with(&[ReadOnly]),
            row("gone is ESTALE", allocate(90, 1, 8, PLAIN), "ESTALE"),
        ]);
    }

    #[test]
    fn seeking() {
        let seek = |offset, whence| Request::Seek { ino: Ino(2), fh: Fh(1), offset, whence };
        // The file has 4 bytes; the first two are a hole.
        check(&[
            row("SEEK_DATA: behind the hole", seek(0, Whence::Data), "Offset(2)"),
            row("SEEK_DATA: in data", seek(3, Whence::Data), "Offset(3)"),
            row("SEEK_HOLE: in a hole", seek(1, Whence::Hole), "Offset(1)"),
            row("SEEK_HOLE: the one at the end", seek(2, Whence::Hole), "Offset(4)"),
            row("lseek(2): ENXIO at the end", seek(4, Whence::Data), "ENXIO"),
            row("lseek(2): ENXIO at the end", seek(4, Whence::Hole), "ENXIO"),
            row("SEEK_DATA: all is data", seek(1, Whence::Data), "Offset(1)").with(&[NoHoles]),
            row("SEEK_HOLE: all is data", seek(1, Whence::Hole), "Offset(4)").with(&[NoHoles]),
        ]);
    }

    #[test]
    fn copying() {
        let copy = |from: (u64, u64), to: (u64, u64), length| Request::CopyRange {
            ino: Ino(from.0),
            fh: Fh(1),
            offset: from.1,
            to_ino: Ino(to.0),
            to_fh: Fh(2),
            to_offset: to.1,
            length,
        };
        check(&[
            row(
                "copy_file_range: up to the end of the source",
                copy((2, 1), (6, 3), 100),
                "once: live #6, live #2 => copy #2+1 to #6+3 3, grow #6 6, set #6 m=7 c=7 => wrote 3",
            ),
            row(
                "copy_file_range: within the target",
                copy((2, 1), (6, 0), 2),
                "once: live #6, live #2 => copy #2+1 to #6+0 2, set #6 m=7 c=7 => wrote 2",
            ),
            row(
                "copy_file_range: within one file",
                copy((2, 0), (2, 2), 2),
                "once: live #2 => copy #2+0 to #2+2 2, set #2 m=7 c=7 => wrote 2",
            ),
            row("copy_file_range(2): EINVAL of an overlap", copy((2, 0), (2, 1), 2), "EINVAL"),
            row("copy_file_range: at the end", copy((2, 4), (6, 0), 9), "Written(0)"),
            row("copy_file_range(2): EFBIG", copy((2, 0), (6, 1 << 20), 9), "EFBIG"),
            row("copy_file_range(2): EISDIR", copy((3, 0), (6, 0), 9), "EISDIR"),
            row("copy_file_range(2): EISDIR", copy((2, 0), (3, 0), 9), "EISDIR"),
            row("copy_file_range(2): EROFS", copy((2, 0), (6, 0), 9), "EROFS").with(&[ReadOnly]),
            row("not on the server", copy((2, 0), (6, 0), 9), "ENOSYS").with(&[NoHoles]),
            row("gone is ESTALE", copy((90, 0), (6, 0), 9), "ESTALE"),
        ]);
    }
}
