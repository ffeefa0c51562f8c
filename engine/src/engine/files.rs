//! Open files: writing, write-back, flush and truncation at open.
//!
//! What programs write is held as extents and sent when there is enough of it, when it gets old,
//! when room runs out, and at flush and fsync, which wait for it and tell the first error since
//! the handle's last look. One write of a file is under way at a time. Where the layout wants it,
//! attributes that are set on what is still to be written travel with it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::contract::Level;
use crate::decide::Patch;
use crate::errno::Errno;
use crate::extents::{Extents, Frozen};
use crate::id::{Fh, Ino, OpId};
use crate::layout::{Layout, Outcome, Step, WriteOut};
use crate::op::{Attr, Opened, Request, Response};
use crate::time::{Mono, Wall};

use super::batches::Owner;
use super::facts::{Overlay, modified};
use super::{Engine, Handle, State, Timer};

/// What is known of a file beyond its attributes.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    dirty: Extents,
    /// The dirty extents are all there is: truncated at open, not yet told to the server.
    replace: bool,
    /// Written and not published: the length it will have.
    staged: Option<u64>,
    mtime: Wall,
    /// Attributes that go with the contents.
    attrs: Patch,
    dirty_since: Option<Mono>,
    sending: Option<Sending>,
    /// Errors of write-back so far, and the last of them.
    errors: u64,
    last_error: Option<Errno>,
    /// The last write-back failed for good: it is tried again only when asked.
    failed: bool,
    /// Its last name is gone; the contents go with the last handle.
    unlinked: bool,
    waiters: Vec<OpId>,
    pub(super) blocks: BTreeMap<u64, Bytes>,
    /// Bytes of a block, for as long as there are any; 0 before.
    pub(super) block: u64,
    /// When blocks were kept last, by `Engine::blocks_kept`.
    pub(super) kept: u64,
    /// Until when the blocks may be believed.
    pub(super) blocks_until: Mono,
    /// Blocks on their way, with `writes` as it was when they were asked for.
    pub(super) fetching: BTreeMap<u64, u64>,
    pub(super) readers: Vec<OpId>,
    pub(super) next_read: u64,
    /// Counts what was written to the server, so that contents read meanwhile are not kept.
    pub(super) writes: u64,
}

#[derive(Clone, Debug)]
struct Sending {
    frozen: Frozen,
    replace: bool,
    attrs: Patch,
}

impl File {
    /// Something is not on the server yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.has_contents() || self.sending.is_some() || !self.attrs.is_empty()
    }

    /// Contents that are not on the server, or not where others read them.
    fn has_contents(&self) -> bool {
        let sending = |it: &Sending| it.replace || it.frozen.bytes() > 0;
        self.replace
            || !self.dirty.is_empty()
            || self.staged.is_some()
            || self.sending.as_ref().is_some_and(sending)
    }

    /// Attributes that are not on the server yet.
    pub(super) fn has_attrs(&self) -> bool {
        !self.attrs.is_empty() || self.sending.as_ref().is_some_and(|it| !it.attrs.is_empty())
    }

    /// Attributes set now can go with contents that are still to be sent. A new revision takes
    /// its time, and what is unlinked is not sent at all.
    pub(super) fn takes_attrs(&self) -> bool {
        let new = self.hides_base() || self.staged.is_some();
        !self.dirty.is_empty() && !new && !self.failed && !self.unlinked
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.is_dirty() || !self.waiters.is_empty() || !self.readers.is_empty()
    }

    /// The server's contents do not count: they are about to be replaced.
    pub(super) fn hides_base(&self) -> bool {
        self.replace || self.sending.as_ref().is_some_and(|it| it.replace)
    }

    pub(super) fn covers(&self, from: u64, to: u64) -> bool {
        self.dirty.covers(from, to)
    }

    pub(super) fn touches(&self, from: u64, to: u64) -> bool {
        self.dirty.touches(from, to)
            || self.sending.as_ref().is_some_and(|it| {
                it.frozen.ranges().iter().any(|(at, d)| *at < to && at + d.len() as u64 > from)
            })
    }

    /// The end of what is written and not on the server.
    pub(super) fn dirty_end(&self) -> u64 {
        if self.replace {
            return self.dirty.end();
        }
        let sending = self.sending.as_ref().map_or(0, |it| it.frozen.end());
        sending.max(self.dirty.end())
    }

    /// Copies what is not on the server over `into`, whose first byte is at `offset`.
    pub(super) fn overlay(&self, offset: u64, into: &mut [u8]) {
        if !self.replace
            && let Some(sending) = &self.sending
        {
            sending.frozen.overlay(offset, into);
        }
        self.dirty.overlay(offset, into);
    }
}

impl Overlay for BTreeMap<Ino, File> {
    fn dress(&self, attr: Attr) -> Attr {
        match self.get(&attr.ino) {
            Some(file) if file.is_dirty() => {
                let mut attr = attr;
                if file.has_contents() {
                    let known = file.staged.unwrap_or(attr.size);
                    let base = if file.hides_base() { 0 } else { known };
                    attr = modified(attr, base.max(file.dirty_end()), file.mtime);
                }
                let sending = file.sending.iter().map(|it| &it.attrs);
                sending.chain([&file.attrs]).for_each(|patch| amend(&mut attr, patch));
                attr
            }
            _ => attr,
        }
    }
}

/// Attributes that were set while contents were on their way: a ctime never goes back.
fn amend(attr: &mut Attr, patch: &Patch) {
    let ctime = attr.ctime;
    patch.apply_to(attr);
    attr.ctime = attr.ctime.max(ctime);
}

impl<L: Layout> Engine<L> {
    // ---- open and release

    pub(super) fn start_open(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Request::Open { ino, flags } = op.request else { return };
        if (flags.write || flags.truncate) && self.cx.config.read_only {
            self.finish(id, Err(Errno::EROFS));
            return;
        }
        if let Err(errno) = self.layout.open(ino, flags.write || flags.truncate) {
            self.finish(id, Err(errno));
            return;
        }
        let opened = self.open_file(ino, flags.append);
        if flags.truncate {
            self.truncate_lazily(ino);
        }
        self.finish(id, Ok(Response::Opened(opened)));
    }

    pub(super) fn open_file(&mut self, ino: Ino, append: bool) -> Opened {
        let errors_seen = self.files.get(&ino).map_or(0, |file| file.errors);
        self.cx.inodes.opened(ino);
        let append = append && self.layout.caps().append;
        let fh = self.new_handle(Handle::File { ino, errors_seen, append });
        let lease = self.layout.attr_lease(ino, self.layout.epoch());
        if lease.is_zero() {
            self.drop_blocks(ino);
            // What is on its way was asked for before.
            if let Some(file) = self.files.get_mut(&ino) {
                file.writes += 1;
            }
        }
        let keep_cache = lease > self.cx.config.lease_polled;
        // The kernel would keep what is appended where it believes the end to be.
        Opened { fh, keep_cache, direct_io: append }
    }

    /// `O_TRUNC`: the file is empty from now on; the server learns it with the next write-back,
    /// so that a rewrite is one step for every other reader.
    pub(super) fn truncate_lazily(&mut self, ino: Ino) {
        let now = self.cx.now;
        let file = self.files.entry(ino).or_default();
        self.dirty_bytes -= file.dirty.bytes();
        file.dirty = Extents::default();
        file.replace = true;
        file.mtime = now.wall;
        self.block_bytes -= file.blocks.values().map(Bytes::len).sum::<usize>();
        file.blocks.clear();
        self.mark_dirty(ino);
    }

    pub(super) fn start_release(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Request::Release { ino, fh, owner } = op.request else { return };
        if let Some(owner) = owner {
            self.release_locks(ino, owner);
        }
        if self.handles.remove(&fh).is_some() && self.cx.inodes.closed(ino) {
            self.last_close(ino);
            // The kernel keeps the pages of what is closed; here only what is open is cached.
            if self.files.get(&ino).is_some_and(|file| !file.is_in_use()) {
                self.drop_file(ino);
            }
        }
        self.finish(id, Ok(Response::Done));
        self.forget_if_unused(ino);
    }

    fn last_close(&mut self, ino: Ino) {
        if self.layout.is_held(ino) {
            // Another mount may have removed it.
            self.files.entry(ino).or_default().unlinked = true;
        }
        let Some(file) = self.files.get_mut(&ino) else { return };
        if file.unlinked {
            self.dirty_bytes -= file.dirty.bytes();
            file.dirty = Extents::default();
            file.attrs = Patch::default();
            file.replace = false;
            file.staged = None;
            if file.sending.is_none() {
                self.layout.release(ino, &mut self.cx);
            }
        } else if file.failed && file.is_dirty() {
            self.drop_dirty(ino);
        } else {
            self.flush_file(ino, true);
        }
    }

    /// The last name of an inode went away.
    pub(super) fn unlinked(&mut self, ino: Ino, held: bool) {
        if held && self.cx.inodes.is_open(ino) {
            self.files.entry(ino).or_default().unlinked = true;
            return;
        }
        self.drop_file(ino);
        if held {
            // The last handle went while the name did: nobody else will say so.
            self.layout.release(ino, &mut self.cx);
        }
    }

    /// Forgets contents and dirty data of an inode.
    pub(super) fn drop_file(&mut self, ino: Ino) {
        if let Some(file) = self.files.remove(&ino) {
            let sending = file.sending.as_ref().map_or(0, |it| it.frozen.bytes());
            self.dirty_bytes -= file.dirty.bytes() + sending;
            self.block_bytes -= file.blocks.values().map(Bytes::len).sum::<usize>();
            for id in file.waiters {
                self.finish_flush(id);
            }
            for id in file.readers {
                self.start(id);
            }
            self.make_room();
        }
    }

    /// What could not be written is given up, and said.
    fn drop_dirty(&mut self, ino: Ino) {
        let path = self.layout.describe(ino);
        let Some(file) = self.files.get_mut(&ino) else { return };
        let bytes = file.dirty.bytes();
        let why = file.last_error.unwrap_or(Errno::EIO);
        self.dirty_bytes -= bytes;
        file.dirty = Extents::default();
        file.attrs = Patch::default();
        file.replace = false;
        file.staged = None;
        file.failed = false;
        file.dirty_since = None;
        self.cx.facts.forget_attr(ino);
        let text = alloc::format!(
            "{path}: {bytes} bytes could not be written ({why}) and are lost; the program was told",
        );
        self.cx.notice(Level::Error, text);
        self.layout.release(ino, &mut self.cx);
        self.make_room();
    }

    // ---- writing

    pub(super) fn start_write(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let Request::Write { ino, fh, offset, data } = &op.request else { return };
        let (ino, offset, data) = (*ino, *offset, data.clone());
        let append = match self.handles.get(fh) {
            Some(Handle::File { ino: of, append, .. }) if *of == ino => *append,
            _ => {
                self.finish(id, Err(Errno::EBADF));
                return;
            }
        };
        let end = offset.saturating_add(data.len() as u64);
        if end > self.layout.caps().max_file_size {
            self.finish(id, Err(Errno::EFBIG));
            return;
        }
        if append {
            self.start_append(id, ino, &data);
            return;
        }
        let file = self.files.entry(ino).or_default();
        let full =
            self.dirty_bytes > 0 && self.dirty_bytes + data.len() > self.cx.config.dirty_bytes;
        // What the server does not take is not piled up: it is tried again, and the writer told.
        let stuck = file.failed && file.dirty.bytes() >= self.cx.config.flush_bytes;
        // Who waits for what was written so far would never see the end of a fast writer.
        let awaited = file.is_dirty() && !file.waiters.is_empty();
        if full || stuck || awaited {
            op.state = State::WriteRoom;
            self.write_room.push(id);
            if stuck {
                self.flush_file(ino, true);
            }
            if full {
                self.flush_for_room();
            }
            return;
        }
        let before = file.dirty.bytes();
        file.dirty.write(offset, &data);
        file.mtime = self.cx.now.wall;
        if !file.attrs.is_empty() {
            file.attrs.mtime = None;
            file.attrs.ctime = Some(file.mtime);
        }
        let after = file.dirty.bytes();
        self.dirty_bytes = self.dirty_bytes + after - before;
        self.mark_dirty(ino);
        if after >= self.cx.config.flush_bytes {
            self.flush_file(ino, false);
        }
        self.finish(id, Ok(Response::Written(data.len() as u32)));
    }

    /// `O_APPEND`: the end of the file is where the server says, at the moment of the write, so
    /// appends are not held back; what was written elsewhere in the file goes first.
    fn start_append(&mut self, id: OpId, ino: Ino, data: &Bytes) {
        if self.files.get(&ino).is_some_and(File::is_dirty) {
            self.wait_for_flush(id, ino);
            return;
        }
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Append;
        }
        let token = self.next_token();
        match self.layout.append(ino, data, self.cx.now.wall, token, &mut self.cx) {
            Step::Work(work) => self.submit(Owner::Op(id), work),
            other => self.append_step(id, other),
        }
    }

    pub(super) fn append_step(&mut self, id: OpId, step: Step<L>) {
        let Some(Request::Write { ino, data, .. }) = self.ops.get(&id).map(|op| &op.request) else {
            return;
        };
        let (ino, bytes) = (*ino, data.len() as u32);
        match step {
            Step::Work(work) => self.submit(Owner::Op(id), work),
            Step::Done(Outcome::Wrote { size, .. }) => {
                let now = self.cx.now.wall;
                self.contents_changed(ino);
                self.cx.facts.amend_attr(ino, |attr| *attr = modified(*attr, size, now));
                self.finish(id, Ok(Response::Written(bytes)));
            }
            Step::Done(_) | Step::Park => self.finish(id, Err(Errno::EIO)),
            Step::Fail(failure) => self.fail(id, failure),
        }
    }

    fn mark_dirty(&mut self, ino: Ino) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        if file.dirty_since.is_none() {
            file.dirty_since = Some(self.cx.now.mono);
            let at = self.cx.now.mono.after(self.cx.config.flush_age);
            self.timers.insert((at, Timer::FlushAge(ino)));
        }
    }

    pub(super) fn flush_aged(&mut self, ino: Ino) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        file.dirty_since = None;
        if file.is_dirty() && !file.failed {
            self.flush_file(ino, false);
        }
    }

    /// Room runs out: every file sends what it has.
    fn flush_for_room(&mut self) {
        let dirty: Vec<Ino> = self
            .files
            .iter()
            .filter(|(_, file)| !file.dirty.is_empty() && file.sending.is_none())
            .map(|(&ino, _)| ino)
            .collect();
        for ino in dirty {
            self.flush_file(ino, false);
        }
    }

    /// Writers that waited for room try again.
    fn make_room(&mut self) {
        for id in core::mem::take(&mut self.write_room) {
            self.start(id);
        }
    }

    // ---- write-back

    pub(super) fn start_flush(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let (Request::Flush { ino, .. } | Request::Fsync { ino, .. }) = op.request else { return };
        if self.files.get(&ino).is_some_and(|file| file.is_dirty() && !file.unlinked) {
            self.wait_for_flush(id, ino);
        } else {
            self.finish_flush(id);
        }
    }

    pub(super) fn wait_for_flush(&mut self, id: OpId, ino: Ino) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Flush;
        }
        if let Some(file) = self.files.get_mut(&ino) {
            file.waiters.push(id);
        }
        self.flush_file(ino, true);
    }

    /// The request does not wait for write-back any more.
    pub(super) fn forget_waiter(&mut self, id: OpId) {
        for file in self.files.values_mut() {
            file.waiters.retain(|it| *it != id);
        }
        self.make_room();
    }

    /// A commit that stood in the way of write-back may have ended.
    pub(super) fn flush_deferred(&mut self, ino: Ino) {
        let awaited = self.files.get(&ino).is_some_and(|file| !file.waiters.is_empty());
        self.flush_file(ino, awaited || !self.cx.inodes.is_open(ino));
    }

    /// Starts sending what is dirty, unless some of it is on its way. `asked`: even when the last
    /// attempt failed.
    pub(super) fn flush_file(&mut self, ino: Ino, asked: bool) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let something = file.replace
            || !file.dirty.is_empty()
            || (!file.attrs.is_empty() && file.staged.is_none())
            || (asked && file.staged.is_some());
        if file.sending.is_some() || !something || (file.failed && !asked) {
            return;
        }
        if self.ops.values().any(|op| matches!(&op.state, State::Txn(txn) if txn.moves(ino))) {
            self.deferred.insert(ino);
            return;
        }
        let frozen = Frozen::take(&mut file.dirty, self.layout.write_bytes());
        let last = file.dirty.is_empty();
        let publish = asked && last;
        // Those of a new revision are seen with it.
        let with = publish || (last && !file.replace && file.staged.is_none());
        let attrs = if with { core::mem::take(&mut file.attrs) } else { Patch::default() };
        let out = WriteOut {
            replace: file.replace,
            extents: frozen.ranges().to_vec(),
            mtime: file.mtime,
            attrs,
            publish,
        };
        file.sending = Some(Sending { frozen, replace: core::mem::take(&mut file.replace), attrs });
        match self.layout.write(ino, &out, &mut self.cx) {
            Step::Work(work) => self.submit(Owner::Flush(ino), work),
            other => self.flush_step(ino, other),
        }
    }

    pub(super) fn flush_step(&mut self, ino: Ino, step: Step<L>) {
        match step {
            Step::Work(work) => self.submit(Owner::Flush(ino), work),
            Step::Done(Outcome::Wrote { size, published }) => self.flushed(ino, size, published),
            Step::Fail(failure) => {
                if let Some(text) = failure.text {
                    self.cx.notice(Level::Error, text);
                }
                self.flush_failed(ino, failure.errno);
            }
            Step::Done(_) | Step::Park => self.flush_failed(ino, Errno::EIO),
        }
    }

    fn flushed(&mut self, ino: Ino, size: u64, published: bool) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let wrote = file.has_contents();
        let Some(sending) = file.sending.take() else { return };
        self.dirty_bytes -= sending.frozen.bytes();
        file.failed = false;
        file.staged = (!published).then_some(size);
        file.writes += 1;
        // Blocks that were read before this write are brought up to date or dropped.
        let block = file.block.max(1);
        // The file has ended in the last ones; there may be zeros behind that now.
        let ends = |(n, data): &(&u64, &Bytes)| {
            data.len() < block as usize && **n * block + (data.len() as u64) < size
        };
        let ended: Vec<u64> = file.blocks.iter().rev().take_while(ends).map(|(&n, _)| n).collect();
        for n in ended {
            if let Some(old) = file.blocks.remove(&n) {
                self.block_bytes -= old.len();
            }
        }
        for (at, data) in sending.frozen.ranges() {
            let touched: Vec<u64> = file
                .blocks
                .range(at / block..=(at + data.len() as u64) / block)
                .map(|(&n, _)| n)
                .collect();
            for n in touched {
                if let Some(old) = file.blocks.remove(&n) {
                    self.block_bytes -= old.len();
                }
            }
        }
        let mtime = file.mtime;
        let clean = !file.is_dirty();
        let unlinked_and_closed = file.unlinked && !self.cx.inodes.is_open(ino);
        self.cx.facts.amend_attr(ino, |attr| {
            if wrote {
                *attr = modified(*attr, size, mtime);
            }
            amend(attr, &sending.attrs);
        });
        self.make_room();
        if unlinked_and_closed {
            self.layout.release(ino, &mut self.cx);
        }
        if clean {
            self.wake_flushers(ino);
        } else {
            let Some(file) = self.files.get(&ino) else { return };
            let asked = !file.waiters.is_empty() || !self.cx.inodes.is_open(ino);
            let full = file.dirty.bytes() >= self.cx.config.flush_bytes;
            if asked || full || !self.write_room.is_empty() {
                self.flush_file(ino, asked);
            }
        }
        self.forget_if_unused(ino);
    }

    fn flush_failed(&mut self, ino: Ino, errno: Errno) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        if let Some(sending) = file.sending.take() {
            self.dirty_bytes -= sending.frozen.bytes() + file.dirty.bytes();
            file.attrs = sending.attrs.then(file.attrs);
            if file.replace {
                // Truncated again meanwhile: what failed does not matter any more.
            } else {
                file.replace = sending.replace;
                sending.frozen.give_back(&mut file.dirty);
            }
            self.dirty_bytes += file.dirty.bytes();
        }
        file.errors += 1;
        file.last_error = Some(errno);
        file.failed = true;
        let detaching = self.ops.values().any(|op| op.request == Request::Detach);
        self.lost |= detaching;
        if !self.cx.inodes.is_open(ino) || detaching {
            self.drop_dirty(ino);
        }
        self.wake_flushers(ino);
        // A writer that waits for room cannot get it from this file: it is told so.
        for id in core::mem::take(&mut self.write_room) {
            let of = match self.ops.get(&id).map(|op| &op.request) {
                Some(Request::Write { ino, .. }) => *ino,
                _ => continue,
            };
            if of == ino {
                self.finish(id, Err(errno));
            } else {
                self.write_room.push(id);
            }
        }
        self.forget_if_unused(ino);
    }

    fn wake_flushers(&mut self, ino: Ino) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let waiters = core::mem::take(&mut file.waiters);
        if waiters.is_empty() {
            return;
        }
        for id in waiters {
            self.finish_flush(id);
        }
        self.make_room();
    }

    /// Write-back of a file has come to an end for one who waited for it.
    pub(super) fn finish_flush(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        match op.request {
            // What was written under a lock is there before the lock goes.
            Request::Flush { ino, owner, .. } if self.has_locks(ino, owner) => {
                self.queue_lock(id, ino);
            }
            Request::Flush { .. } | Request::Fsync { .. } => self.finish_close(id),
            Request::Unlock { ino, .. } => self.queue_lock(id, ino),
            Request::SetAttr { ino, .. }
            | Request::Fallocate { ino, .. }
            | Request::Seek { ino, .. }
            | Request::Write { ino, .. } => self.start_after_flush(id, [ino, ino]),
            Request::CopyRange { ino, to_ino, .. } => self.start_after_flush(id, [ino, to_ino]),
            // Detach looks at all files anew, a change of names at where they lead.
            _ => self.start(id),
        }
    }

    /// What stands on what was written goes on, or fails with it.
    fn start_after_flush(&mut self, id: OpId, on: [Ino; 2]) {
        let failed = on.iter().find_map(|ino| self.files.get(ino).filter(|it| it.failed));
        match failed.and_then(|it| it.last_error) {
            Some(errno) => self.finish(id, Err(errno)),
            None => self.start(id),
        }
    }

    /// Nothing is left to wait for but the errors there were.
    pub(super) fn finish_close(&mut self, id: OpId) {
        let (ino, fh, fsync) = match self.ops.get(&id).map(|op| &op.request) {
            Some(Request::Flush { ino, fh, .. }) => (*ino, *fh, false),
            Some(Request::Fsync { ino, fh, .. }) => (*ino, *fh, true),
            _ => return,
        };
        match self.first_error(ino, fh) {
            Ok(()) if fsync || self.layout.unsure(ino) => self.start_sync(id, ino),
            result => self.finish(id, result.map(|()| Response::Done)),
        }
    }

    /// The error of write-back that the handle has not been told, once.
    fn first_error(&mut self, ino: Ino, fh: Fh) -> Result<(), Errno> {
        let Some(file) = self.files.get(&ino) else { return Ok(()) };
        let Some(Handle::File { errors_seen, .. }) = self.handles.get_mut(&fh) else {
            return Ok(());
        };
        if *errors_seen < file.errors {
            *errors_seen = file.errors;
            return Err(file.last_error.unwrap_or(Errno::EIO));
        }
        Ok(())
    }

    pub(super) fn wait_for_files(&mut self, id: OpId) {
        if let Some(file) = self.files.values_mut().find(|file| file.is_dirty()) {
            file.waiters.push(id);
        }
    }

    /// Whether attributes of a file that are set now go with its contents.
    pub(super) fn takes_attrs(&self, ino: Ino) -> bool {
        self.layout.caps().attrs_with_data && self.files.get(&ino).is_some_and(File::takes_attrs)
    }

    /// Attributes are set with the contents that are still to be written, which a close or an
    /// fsync waits for: a copy sets the times, the owner and the mode of each file right before
    /// it closes it.
    pub(super) fn set_with_data(&mut self, ino: Ino, patch: &Patch) {
        if let Some(file) = self.files.get_mut(&ino) {
            file.attrs = file.attrs.then(*patch);
        }
    }

    /// Attributes were set on the server: what is still to be written must not undo them.
    pub(super) fn attrs_set(&mut self, ino: Ino, patch: &Patch) {
        if let Some(mtime) = patch.mtime
            && let Some(file) = self.files.get_mut(&ino)
        {
            file.mtime = mtime;
        }
        if patch.atime.is_some() {
            self.cx.facts.forget_access(ino);
        }
        if patch.size.is_some() {
            self.contents_changed(ino);
        }
    }

    /// The contents were changed on the server, not by writing them: what was read is void, and
    /// so is what is on its way here.
    pub(super) fn contents_changed(&mut self, ino: Ino) {
        self.drop_blocks(ino);
        if let Some(file) = self.files.get_mut(&ino) {
            file.writes += 1;
        }
    }
}
