//! Reading: cached blocks, read-ahead for a sequential reader, exact ranges for a random one.

use bytes::Bytes;

use crate::errno::Errno;
use crate::id::{Ino, OpId};
use crate::layout::{Data, Epoch, Layout, Outcome, Step};
use crate::op::{Request, Response};
use crate::time::Mono;

use super::batches::Owner;
use super::{Engine, State};

impl<L: Layout> Engine<L> {
    pub(super) fn start_read(&mut self, id: OpId) {
        let Some(Request::Read { ino, offset, size, .. }) = self.ops.get(&id).map(|op| &op.request)
        else {
            return;
        };
        let (ino, offset, size) = (*ino, *offset, *size);
        self.accessed(ino);
        if self.files.get(&ino).is_some_and(|file| file.blocks_until <= self.cx.now.mono) {
            self.drop_blocks(ino);
        }
        let known = self.cx.facts.attr(ino, self.cx.now.mono).map(|attr| {
            use super::facts::Overlay;
            self.files.dress(attr).size
        });
        let limit = known.unwrap_or(u64::MAX);
        let end = offset.saturating_add(u64::from(size)).min(limit);
        if offset >= end {
            self.finish(id, Ok(Response::Data(Bytes::new())));
            return;
        }
        let block = self.block_of(ino);
        let file = self.files.entry(ino).or_default();
        if file.hides_base() || file.covers(offset, end) {
            let end = if file.hides_base() { end.min(file.dirty_end()) } else { end };
            let data = self.compose(ino, offset, end.max(offset));
            self.finish(id, Ok(Response::Data(data)));
            return;
        }
        let (first, last) = (offset / block, (end - 1) / block);
        let have = (first..=last).all(|n| file.blocks.contains_key(&n));
        let sequential = offset == 0 || offset == file.next_read;
        file.next_read = end;
        if have {
            if sequential {
                self.read_ahead(ino, last + 1, limit);
            }
            let data = self.compose(ino, offset, end);
            self.finish(id, Ok(Response::Data(data)));
            return;
        }
        let Some(op) = self.ops.get_mut(&id) else { return };
        let coming = (first..=last).any(|n| file.fetching.contains_key(&n));
        let whole = self.layout.reads_whole(ino);
        if !sequential && !coming && !whole && end - offset < block {
            // A random reader wants these bytes, not the block around them.
            op.state = State::Piece;
            match self.layout.read(ino, offset, (end - offset) as u32, &mut self.cx) {
                Step::Work(work) => self.submit(Owner::Op(id), work),
                other => self.piece_step(id, other),
            }
            return;
        }
        op.state = State::Blocks;
        file.readers.push(id);
        self.fetch_blocks(ino, first, last + 1);
        if sequential {
            self.read_ahead(ino, last + 1, limit);
        }
    }

    /// Bytes of the file's blocks. What is cached or on its way keeps the size it was asked by.
    fn block_of(&mut self, ino: Ino) -> u64 {
        let told = self.layout.block_bytes(ino).unwrap_or(self.cx.config.block_bytes);
        let file = self.files.entry(ino).or_default();
        if file.block == 0 || (file.blocks.is_empty() && file.fetching.is_empty()) {
            file.block = u64::from(told.max(1));
        }
        file.block
    }

    fn read_ahead(&mut self, ino: Ino, from: u64, size: u64) {
        let block = self.block_of(ino);
        if size == u64::MAX || self.layout.reads_whole(ino) {
            return;
        }
        let ahead = u64::from(self.cx.config.readahead_bytes) / block;
        let to = (from + ahead).min(size.div_ceil(block));
        // Only when half of the window is used up: one larger fetch instead of many small ones.
        let file = self.files.entry(ino).or_default();
        let there = |n: &u64| file.blocks.contains_key(n) || file.fetching.contains_key(n);
        if (from..to).filter(|n| there(n)).count() as u64 * 2 > ahead {
            return;
        }
        self.fetch_blocks(ino, from, to);
    }

    /// Fetches those of the blocks that are neither here nor on their way.
    fn fetch_blocks(&mut self, ino: Ino, from: u64, to: u64) {
        let block = self.block_of(ino);
        let file = self.files.entry(ino).or_default();
        if self.layout.reads_whole(ino) && !file.fetching.is_empty() {
            // All of it is on its way.
            return;
        }
        let mut n = from;
        while n < to {
            let file = self.files.entry(ino).or_default();
            if file.blocks.contains_key(&n) || file.fetching.contains_key(&n) {
                n += 1;
                continue;
            }
            let first = n;
            while n < to && !file.blocks.contains_key(&n) && !file.fetching.contains_key(&n) {
                file.fetching.insert(n, file.writes);
                n += 1;
            }
            let owner = Owner::Blocks { ino, first, count: n - first };
            let len = ((n - first) * block) as u32;
            match self.layout.read(ino, first * block, len, &mut self.cx) {
                Step::Work(work) => self.submit(owner, work),
                other => {
                    let since = self.layout.epoch();
                    self.route(owner, other, since);
                }
            }
        }
    }

    pub(super) fn blocks_step(
        &mut self,
        ino: Ino,
        first: u64,
        count: u64,
        step: Step<L>,
        since: Epoch,
    ) {
        let result = match step {
            Step::Work(work) => {
                self.submit(Owner::Blocks { ino, first, count }, work);
                return;
            }
            Step::Done(Outcome::Data(data)) => Ok(data),
            Step::Done(_) | Step::Park => Err(Errno::EIO),
            Step::Fail(failure) => {
                if let Some(text) = failure.text {
                    self.cx.notice(crate::contract::Level::Error, text);
                }
                Err(failure.errno)
            }
        };
        let lease = self.layout.attr_lease(ino, since);
        let keep = !lease.is_zero();
        let Some(file) = self.files.get_mut(&ino) else { return };
        // What was written while the fetch was on its way may be missing from it.
        let crossed = (first..first + count).any(|n| file.fetching.get(&n) != Some(&file.writes));
        for n in first..first + count {
            file.fetching.remove(&n);
        }
        let readers = core::mem::take(&mut file.readers);
        let data = match result {
            Ok(data) => data,
            Err(errno) => {
                for id in readers {
                    if self.reads_blocks(id, first, count) {
                        self.finish(id, Err(errno));
                    } else {
                        self.wait_again(ino, id);
                    }
                }
                return;
            }
        };
        if !crossed {
            let until = if keep { self.cx.now.mono.after(lease) } else { Mono::NEVER };
            let older = if file.blocks.is_empty() { Mono::NEVER } else { file.blocks_until };
            file.blocks_until = until.min(older);
            self.keep_blocks(ino, first, count, &data);
        }
        for id in readers {
            self.start(id);
        }
        if !keep && !crossed {
            self.drop_blocks(ino);
        }
        self.bound_blocks();
    }

    fn reads_blocks(&self, id: OpId, first: u64, count: u64) -> bool {
        match self.ops.get(&id).map(|op| &op.request) {
            Some(Request::Read { ino, offset, size, .. }) => {
                let block = self.files.get(ino).map_or(1, |file| file.block.max(1));
                let end = offset.saturating_add(u64::from(*size));
                offset / block < first + count && end > first * block
            }
            _ => false,
        }
    }

    fn wait_again(&mut self, ino: Ino, id: OpId) {
        if let Some(file) = self.files.get_mut(&ino) {
            file.readers.push(id);
        }
    }

    fn keep_blocks(&mut self, ino: Ino, first: u64, count: u64, data: &Data) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let block = file.block.max(1);
        let data_end = data.offset + data.bytes.len() as u64;
        // A layout may hand over more than was asked for; whole blocks of it are kept too.
        let last =
            if data.end { (first + count).max(data_end.div_ceil(block)) } else { first + count };
        let from = data.offset.div_ceil(block).min(first);
        for n in from..last {
            let at = (n * block).clamp(data.offset, data_end);
            let to = ((n + 1) * block).clamp(data.offset, data_end);
            let bytes = data.bytes.slice((at - data.offset) as usize..(to - data.offset) as usize);
            self.block_bytes += bytes.len();
            if let Some(old) = file.blocks.insert(n, bytes) {
                self.block_bytes -= old.len();
            }
        }
        self.blocks_kept += 1;
        file.kept = self.blocks_kept;
        self.block_queue.push_back((ino, file.kept));
        // Most files are closed long before the cache is full.
        if self.block_queue.len() > 2 * self.files.len() {
            let files = &self.files;
            self.block_queue
                .retain(|(ino, kept)| files.get(ino).is_some_and(|it| it.kept == *kept));
        }
    }

    pub(super) fn drop_blocks(&mut self, ino: Ino) {
        if let Some(file) = self.files.get_mut(&ino) {
            self.block_bytes -= file.blocks.values().map(Bytes::len).sum::<usize>();
            file.blocks.clear();
        }
    }

    /// Drops the blocks of the files that were filled longest ago.
    fn bound_blocks(&mut self) {
        // The file filled last stays, however large: what a layout hands over whole it would have
        // to hand over whole again for the next read.
        for _ in 1..self.block_queue.len() {
            if self.block_bytes <= self.cx.config.cache_bytes {
                return;
            }
            let Some((ino, kept)) = self.block_queue.pop_front() else { return };
            let Some(file) = self.files.get(&ino).filter(|file| file.kept == kept) else {
                continue;
            };
            // A reader that waits for more would fetch these again, and then those, for ever.
            if file.readers.is_empty() {
                self.drop_blocks(ino);
            } else {
                self.block_queue.push_back((ino, kept));
            }
        }
    }

    pub(super) fn piece_step(&mut self, id: OpId, step: Step<L>) {
        match step {
            Step::Work(work) => self.submit(Owner::Op(id), work),
            Step::Done(Outcome::Data(data)) => {
                let Some(op) = self.ops.get(&id) else { return };
                let Request::Read { ino, offset, size, .. } = op.request else { return };
                let data = self.compose_piece(ino, offset, u64::from(size), &data);
                self.finish(id, Ok(Response::Data(data)));
            }
            Step::Done(_) | Step::Park => self.finish(id, Err(Errno::EIO)),
            Step::Fail(failure) => self.fail(id, failure),
        }
    }

    /// A piece with what is not on the server yet laid over it.
    fn compose_piece(&self, ino: Ino, offset: u64, size: u64, data: &Data) -> Bytes {
        let skip = offset.saturating_sub(data.offset).min(data.bytes.len() as u64) as usize;
        let got = data.bytes.slice(skip..);
        let got = got.slice(..got.len().min(size as usize));
        let file = self.files.get(&ino);
        // Nobody who asks in good faith comes near the largest number there is.
        let (most, end) = (offset.saturating_add(size), offset.saturating_add(got.len() as u64));
        let over = file.filter(|it| it.touches(offset, most) || it.dirty_end() > end);
        let Some(file) = over else { return got };
        let end = most.min(file.dirty_end().max(end));
        let mut whole = alloc::vec![0; (end - offset) as usize];
        whole[..got.len()].copy_from_slice(&got);
        file.overlay(offset, &mut whole);
        Bytes::from(whole)
    }

    /// The range from blocks and what is not on the server yet; short at the end of the file.
    fn compose(&self, ino: Ino, offset: u64, end: u64) -> Bytes {
        if offset >= end {
            return Bytes::new();
        }
        let Some(file) = self.files.get(&ino) else { return Bytes::new() };
        let block = file.block.max(1);
        // Even what is written behind the range reveals that there are zeros in it.
        let dirty = file.dirty_end() > offset;
        if !dirty && offset / block == (end - 1) / block {
            let Some(bytes) = file.blocks.get(&(offset / block)) else { return Bytes::new() };
            let from = ((offset % block) as usize).min(bytes.len());
            let to = (from + (end - offset) as usize).min(bytes.len());
            return bytes.slice(from..to);
        }
        let mut whole = alloc::vec![0; (end - offset) as usize];
        let mut reach = 0;
        if !file.hides_base() {
            for (&n, bytes) in file.blocks.range(offset / block..=(end - 1) / block) {
                let at = (n * block).max(offset);
                let to = (n * block + bytes.len() as u64).min(end);
                if at < to {
                    whole[(at - offset) as usize..(to - offset) as usize].copy_from_slice(
                        &bytes[(at - n * block) as usize..(to - n * block) as usize],
                    );
                    reach = (to - offset) as usize;
                }
            }
        }
        file.overlay(offset, &mut whole);
        let dirty_reach = file.dirty_end().clamp(offset, end) - offset;
        whole.truncate(reach.max(dirty_reach as usize));
        Bytes::from(whole)
    }

    /// Contents that an invalidation has voided.
    pub(super) fn void_stale_data(&mut self) {
        for ino in core::mem::take(&mut self.cx.stale_data) {
            self.drop_blocks(ino);
        }
    }
}
