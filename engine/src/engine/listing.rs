//! Directory listings: a page at a time, from a place in the directory rather than an index, so
//! that entries that come and go meanwhile neither hide nor repeat the others.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::errno::Errno;
use crate::id::{Fh, Ino, OpId};
use crate::layout::{Epoch, Layout, Listed, Outcome, Step};
use crate::op::{Attr, DirEntry, Entry, Kind, Name, Request, Response};
use crate::time::Duration;

use super::batches::Owner;
use super::facts::Overlay;
use super::{Engine, Handle, State};

/// Entries whose exact place is remembered behind the reader.
const RECENT: usize = 4096;
/// Farther back, the place of every so many-th entry is.
const ANCHOR_EVERY: u64 = 1024;
/// The offset after `.` and `..`; entries of the directory count on from here.
const FIRST: u64 = 2;

/// An open directory.
#[derive(Clone, Debug)]
pub(super) struct DirHandle<L: Layout> {
    pub(super) ino: Ino,
    /// The offset of the next entry of `buffer`.
    at: u64,
    /// Fetched and not yet handed out.
    buffer: VecDeque<Listed<L>>,
    /// Where to go on when the buffer is empty; `None` at the end.
    next: Option<L::Cursor>,
    /// The place after the entry with the offset, for those handed out last.
    recent: VecDeque<(u64, L::Cursor)>,
    anchors: BTreeMap<u64, L::Cursor>,
}

impl<L: Layout> DirHandle<L> {
    fn new(ino: Ino) -> Self {
        DirHandle {
            ino,
            at: FIRST,
            buffer: VecDeque::new(),
            next: Some(L::Cursor::default()),
            recent: VecDeque::new(),
            anchors: BTreeMap::new(),
        }
    }

    fn handed_out(&mut self, offset: u64, place: L::Cursor) {
        if offset.is_multiple_of(ANCHOR_EVERY) {
            self.anchors.insert(offset, place.clone());
        }
        self.recent.push_back((offset, place));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Goes to an offset. Returns how many entries to pass over from the place that is known.
    fn seek(&mut self, offset: u64) -> u64 {
        if offset == self.at {
            return 0;
        }
        self.buffer.clear();
        if let Some((_, place)) = self.recent.iter().find(|(at, _)| *at == offset) {
            self.next = Some(place.clone());
            self.recent.retain(|(at, _)| *at <= offset);
            self.at = offset;
            return 0;
        }
        self.recent.clear();
        let (at, place) = match self.anchors.range(..=offset).next_back() {
            Some((&at, place)) => (at, place.clone()),
            None => (FIRST, L::Cursor::default()),
        };
        self.next = Some(place);
        self.at = at;
        offset.saturating_sub(at)
    }
}

/// A listing request in progress.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    fh: Fh,
    /// Entries to pass over first.
    skip: u64,
}

impl<L: Layout> Engine<L> {
    pub(super) fn start_open_dir(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Request::OpenDir { ino } = op.request else { return };
        let fh = self.new_handle(Handle::Dir(DirHandle::new(ino)));
        let opened = crate::op::Opened { fh, keep_cache: false, direct_io: false };
        self.finish(id, Ok(Response::Opened(opened)));
    }

    pub(super) fn start_read_dir(&mut self, id: OpId) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        let Request::ReadDir { fh, offset, .. } = op.request else { return };
        let Some(Handle::Dir(dir)) = self.handles.get_mut(&fh) else {
            self.finish(id, Err(Errno::EBADF));
            return;
        };
        let ino = dir.ino;
        if offset == 0 {
            *dir = DirHandle::new(ino);
        }
        let skip = dir.seek(offset.max(FIRST));
        op.state = State::Listing(Listing { fh, skip });
        if offset == 0 {
            self.accessed(ino);
        }
        self.run_listing(id);
    }

    fn run_listing(&mut self, id: OpId) {
        loop {
            let Some(op) = self.ops.get_mut(&id) else { return };
            let State::Listing(listing) = &mut op.state else { return };
            let Some(Handle::Dir(dir)) = self.handles.get_mut(&listing.fh) else {
                self.finish(id, Err(Errno::EBADF));
                return;
            };
            while listing.skip > 0
                && let Some(passed) = dir.buffer.pop_front()
            {
                listing.skip -= 1;
                dir.at += 1;
                let at = dir.at;
                dir.handed_out(at, passed.after);
            }
            if !dir.buffer.is_empty() || dir.next.is_none() {
                self.answer_listing(id);
                return;
            }
            let Some(from) = dir.next.clone() else { return };
            let ino = dir.ino;
            let limit = self.cx.config.listing_entries;
            match self.layout.list(ino, &from, limit, &mut self.cx) {
                Step::Work(work) => {
                    self.submit(Owner::Op(id), work);
                    return;
                }
                other => {
                    let since = self.layout.epoch();
                    if !self.listing_outcome(id, other, since) {
                        return;
                    }
                }
            }
        }
    }

    pub(super) fn listing_step(&mut self, id: OpId, step: Step<L>, since: Epoch) {
        match step {
            Step::Work(work) => self.submit(Owner::Op(id), work),
            other => {
                if self.listing_outcome(id, other, since) {
                    self.run_listing(id);
                }
            }
        }
    }

    /// Takes a page. Returns whether the listing goes on.
    fn listing_outcome(&mut self, id: OpId, step: Step<L>, since: Epoch) -> bool {
        let page = match step {
            Step::Done(Outcome::Page(page)) => page,
            Step::Park => {
                self.park(id);
                return false;
            }
            Step::Fail(failure) => {
                self.fail(id, failure);
                return false;
            }
            Step::Done(_) | Step::Work(_) => {
                self.finish(id, Err(Errno::EIO));
                return false;
            }
        };
        let Some(op) = self.ops.get(&id) else { return false };
        let State::Listing(listing) = &op.state else { return false };
        let Some(Handle::Dir(dir)) = self.handles.get_mut(&listing.fh) else {
            self.finish(id, Err(Errno::EBADF));
            return false;
        };
        let ino = dir.ino;
        let facts: Vec<(Name, Attr)> = page
            .entries
            .iter()
            .filter_map(|it| it.attr.map(|attr| (it.name.clone(), attr)))
            .collect();
        dir.buffer.extend(page.entries);
        dir.next = page.next;
        for (name, attr) in facts {
            let lease = self.layout.entry_lease(ino, &name, Some(attr.ino), since);
            self.learn_entry(ino, name, Some(attr.ino), lease);
            let until = self.cx.now.mono.after(self.layout.attr_lease(attr.ino, since));
            self.cx.facts.learn_attr(attr, until);
        }
        true
    }

    /// Hands out what fits into the kernel's buffer.
    fn answer_listing(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let Request::ReadDir { ino, fh, offset, budget, plus } = op.request else { return };
        let mut room = budget as usize;
        let mut entries = Vec::new();
        let dots = [(0, ".", ino), (1, "..", self.layout.parent(ino))];
        for (at, name, of) in dots.into_iter().skip(offset.min(FIRST) as usize) {
            let name = Name::from(name);
            room = room.saturating_sub(DirEntry::cost(name.as_bytes().len(), plus));
            entries.push(DirEntry { ino: of, offset: at + 1, kind: Kind::Dir, name, entry: None });
        }
        let now = self.cx.now.mono;
        let since = self.layout.epoch();
        let Some(Handle::Dir(dir)) = self.handles.get_mut(&fh) else { return };
        while let Some(listed) = dir.buffer.front() {
            let cost = DirEntry::cost(listed.name.as_bytes().len(), plus);
            if cost > room {
                break;
            }
            room -= cost;
            let Some(listed) = dir.buffer.pop_front() else { break };
            dir.at += 1;
            let at = dir.at;
            dir.handed_out(at, listed.after);
            let entry = listed.attr.filter(|_| plus).map(|told| {
                // The fact cache knows whether the attributes are still true; if not, the kernel
                // may use them for this moment only.
                let held = self.cx.facts.attr(told.ino, now);
                let attr = self.files.dress(held.unwrap_or(told));
                let lease = |lease| if held.is_some() { lease } else { Duration::ZERO };
                Entry {
                    attr,
                    entry_ttl: lease(self.layout.entry_lease(
                        ino,
                        &listed.name,
                        Some(attr.ino),
                        since,
                    )),
                    attr_ttl: lease(self.layout.attr_lease(attr.ino, since)),
                }
            });
            entries.push(DirEntry {
                ino: listed.ino,
                offset: at,
                kind: listed.kind,
                name: listed.name,
                entry,
            });
        }
        self.finish(id, Ok(Response::Dir(entries)));
    }
}
