//! What a file with holes can do: fallocate, copy_file_range, lseek for data and holes.

use super::Model;
use crate::errno::Errno;
use crate::op::{FallocateMode, Whence};
use crate::sim::ops::{ModelReply, Outcome, Reply, Slot};
use crate::time::Wall;

impl Model {
    /// fallocate(2), on what can have holes.
    pub(super) fn allocate(
        &mut self,
        slot: Slot,
        (offset, len): (u64, u64),
        mode: FallocateMode,
        now: Wall,
    ) -> Reply {
        let (id, write, _) = self.file(slot)?;
        if !write {
            return Err(Errno::EBADF);
        }
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let max = self.caps.max_file_size;
        let node = self.node(id);
        let (size, end) = (node.bytes.len() as u64, offset.saturating_add(len));
        if end > max {
            return Err(Errno::EFBIG);
        }
        let zeros = mode.punch_hole || mode.zero_range;
        let cleared = zeros && offset < size;
        if cleared {
            node.bytes[offset as usize..end.min(size) as usize].fill(0);
        }
        let grows = !mode.keep_size && end > size;
        if grows {
            node.bytes.resize(end as usize, 0);
        }
        if cleared || grows {
            (node.mtime, node.ctime) = (now, now);
        }
        Ok(Outcome::Done)
    }

    /// copy_file_range(2).
    pub(super) fn copy(
        &mut self,
        from: (Slot, u64),
        to: (Slot, u64),
        len: u64,
        now: Wall,
    ) -> Reply {
        let ((source, ..), (target, write, append)) = (self.file(from.0)?, self.file(to.0)?);
        // EBADF: fd_out is not open for writing, or O_APPEND is set for it.
        if !write || append {
            return Err(Errno::EBADF);
        }
        let bytes = &self.nodes[&source].bytes;
        let size = bytes.len() as u64;
        let len = len.min(size.saturating_sub(from.1));
        if len == 0 {
            return Ok(Outcome::Written(0));
        }
        let (end, to_end) = (from.1 + len, to.1.saturating_add(len));
        // EINVAL: the same file, and the ranges overlap.
        if source == target && from.1 < to_end && to.1 < end {
            return Err(Errno::EINVAL);
        }
        if to_end > self.caps.max_file_size {
            return Err(Errno::EFBIG);
        }
        let copied = bytes[from.1 as usize..end as usize].to_vec();
        let node = self.node(target);
        if (node.bytes.len() as u64) < to_end {
            node.bytes.resize(to_end as usize, 0);
        }
        node.bytes[to.1 as usize..to_end as usize].copy_from_slice(&copied);
        (node.mtime, node.ctime) = (now, now);
        Ok(Outcome::Written(len))
    }

    /// lseek(2): any run of zeros may be a hole, or data.
    pub(super) fn seek(&self, slot: Slot, offset: u64, whence: Whence) -> ModelReply {
        let id = match self.file(slot) {
            Ok((id, ..)) => id,
            Err(errno) => return ModelReply::Is(Err(errno)),
        };
        let bytes = &self.nodes[&id].bytes;
        let (from, size) = (offset as usize, bytes.len());
        if offset >= size as u64 {
            return ModelReply::Is(Err(Errno::ENXIO));
        }
        let first = bytes[from..].iter().position(|byte| *byte != 0).map(|at| from + at);
        let is_place = |at: &usize| match whence {
            Whence::Data => *at <= first.unwrap_or(size - 1),
            // Every file ends with a hole.
            Whence::Hole => bytes.get(*at).is_none_or(|byte| *byte == 0),
        };
        let places = (from..=size).filter(is_place).map(|at| at as u64).collect();
        ModelReply::Place { places, nowhere: whence == Whence::Data && first.is_none() }
    }
}
