//! Locks between mounts: which are held here, one change of a file's locks on its way at a time,
//! and who waits for a lock of another mount to go.
//!
//! A lock is a promise about data too. Before one is given up, what was written under it is on the
//! server; when one is had, the layout has said whether what was read before still counts. A waiter is tried again when
//! the layout tells of a change, never by the clock.

use alloc::collections::VecDeque;

use crate::contract::Level;
use crate::errno::Errno;
use crate::id::{Ino, LockOwner, OpId};
use crate::layout::{Layout, LockChange, Outcome, Step};
use crate::lock::{Lock, LockTable};
use crate::op::{Request, Response};

use super::batches::Owner;
use super::files::File;
use super::{Engine, State};

/// The locks of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileLocks {
    /// What this mount holds.
    table: LockTable,
    attempt: Option<Attempt>,
    /// Owners that closed the file, and nobody waits for it.
    closed: VecDeque<LockOwner>,
    /// Requests to be tried, oldest first.
    queue: VecDeque<OpId>,
    /// Requests that a lock keeps out, oldest first.
    blocked: VecDeque<OpId>,
}

/// A change on its way.
#[derive(Clone, Debug)]
struct Attempt {
    /// Who waits for it; nobody any more when it was cancelled.
    op: Option<OpId>,
    /// What this mount holds when it succeeds.
    table: LockTable,
    /// Without anybody to tell it is to be undone: a lock that nobody knows of.
    undo: bool,
    /// Others changed their locks meanwhile: what it says of them is old.
    crossed: bool,
}

impl FileLocks {
    fn is_idle(&self) -> bool {
        self.table.is_empty()
            && self.attempt.is_none()
            && self.closed.is_empty()
            && self.queue.is_empty()
            && self.blocked.is_empty()
    }

    /// Who was kept out is tried again, before those that came later.
    fn try_blocked(&mut self) {
        while let Some(id) = self.blocked.pop_back() {
            self.queue.push_front(id);
        }
    }
}

impl<L: Layout> Engine<L> {
    pub(super) fn start_lock(&mut self, id: OpId) {
        let Some(op) = self.ops.get(&id) else { return };
        let (ino, gives_up) = match op.request {
            Request::GetLock { ino, .. } | Request::SetLock { ino, .. } => (ino, false),
            Request::Unlock { ino, .. } => (ino, true),
            _ => return,
        };
        if !self.layout.caps().locks {
            self.finish(id, Err(Errno::ENOSYS));
        } else if gives_up && self.files.get(&ino).is_some_and(File::is_dirty) {
            self.wait_for_flush(id, ino);
        } else {
            self.queue_lock(id, ino);
        }
    }

    pub(super) fn queue_lock(&mut self, id: OpId, ino: Ino) {
        if let Some(op) = self.ops.get_mut(&id) {
            op.state = State::Lock;
        }
        self.locks.entry(ino).or_default().queue.push_back(id);
        self.next_lock(ino);
    }

    /// Whether closing takes locks away.
    pub(super) fn has_locks(&self, ino: Ino, owner: LockOwner) -> bool {
        self.locks.get(&ino).is_some_and(|it| {
            it.table.has(owner) || it.attempt.as_ref().is_some_and(|it| it.table.has(owner))
        })
    }

    /// The owner closed the file, and nobody waits for what that takes.
    pub(super) fn release_locks(&mut self, ino: Ino, owner: LockOwner) {
        if self.has_locks(ino, owner) {
            self.locks.entry(ino).or_default().closed.push_back(owner);
            self.next_lock(ino);
        }
    }

    /// Other mounts may have changed their locks on these files.
    pub(super) fn try_blocked_locks(&mut self) {
        for ino in self.cx.take_unlocked(self.locks.keys().copied()) {
            let Some(locks) = self.locks.get_mut(&ino) else { continue };
            if let Some(attempt) = &mut locks.attempt {
                attempt.crossed = true;
            }
            locks.try_blocked();
            self.next_lock(ino);
        }
    }

    /// Starts the next change of a file's locks, when none is on its way.
    fn next_lock(&mut self, ino: Ino) {
        loop {
            let Some(locks) = self.locks.get_mut(&ino) else { return };
            if locks.attempt.is_some() {
                return;
            }
            let mut table = locks.table.clone();
            if let Some(owner) = locks.closed.pop_front() {
                if table.release(owner) {
                    let hold = Some(table.locks().to_vec());
                    self.attempt_lock(ino, None, table, LockChange { wanted: None, hold });
                    return;
                }
                continue;
            }
            let Some(id) = locks.queue.pop_front() else { break };
            let Some(request) = self.ops.get(&id).map(|op| op.request.clone()) else { continue };
            let change = match request {
                Request::GetLock { lock, .. } => {
                    if let Some(by) = table.conflict(&lock).copied() {
                        self.finish(id, Ok(Response::Lock(Some(by))));
                        continue;
                    }
                    LockChange { wanted: Some(lock), hold: None }
                }
                Request::SetLock { lock, wait, .. } => {
                    if table.conflict(&lock).is_some() {
                        self.kept_out(id, ino, wait);
                        continue;
                    }
                    table.set(lock);
                    if table == locks.table {
                        self.finish(id, Ok(Response::Done));
                        continue;
                    }
                    if self.too_many(ino, &table) {
                        self.finish(id, Err(Errno::ENOLCK));
                        continue;
                    }
                    LockChange { wanted: Some(lock), hold: Some(table.locks().to_vec()) }
                }
                Request::Unlock { lock, .. } => {
                    table.unset(&lock);
                    if table == locks.table {
                        self.finish(id, Ok(Response::Done));
                        continue;
                    }
                    if self.too_many(ino, &table) {
                        self.finish(id, Err(Errno::ENOLCK));
                        continue;
                    }
                    LockChange { wanted: None, hold: Some(table.locks().to_vec()) }
                }
                Request::Flush { owner, .. } => {
                    if !table.release(owner) {
                        self.finish_close(id);
                        continue;
                    }
                    LockChange { wanted: None, hold: Some(table.locks().to_vec()) }
                }
                _ => continue,
            };
            self.attempt_lock(ino, Some(id), table, change);
            return;
        }
        if self.locks.get(&ino).is_some_and(FileLocks::is_idle) {
            self.locks.remove(&ino);
        }
    }

    /// POSIX fcntl: ENOLCK, the lock or unlock request would make the number of locked regions
    /// exceed a limit.
    fn too_many(&self, ino: Ino, after: &LockTable) -> bool {
        let before = self.locks.get(&ino).map_or(0, |it| it.table.locks().len());
        let after = after.locks().len();
        after > before && after > self.cx.config.file_locks
    }

    fn attempt_lock(&mut self, ino: Ino, op: Option<OpId>, table: LockTable, change: LockChange) {
        let Some(locks) = self.locks.get_mut(&ino) else { return };
        let undo = change.wanted.is_some() && change.hold.is_some();
        locks.attempt = Some(Attempt { op, table, undo, crossed: false });
        match self.layout.lock(ino, &change, &mut self.cx) {
            Step::Work(work) => self.submit(Owner::Lock(ino), work),
            other => self.lock_step(ino, other),
        }
    }

    pub(super) fn lock_step(&mut self, ino: Ino, step: Step<L>) {
        let step = match step {
            Step::Work(work) => {
                self.submit(Owner::Lock(ino), work);
                return;
            }
            step => step,
        };
        let Some(locks) = self.locks.get_mut(&ino) else { return };
        let Some(Attempt { op, table, undo, crossed }) = locks.attempt.take() else { return };
        match step {
            Step::Done(Outcome::Locked(Ok(()))) => {
                if op.is_none() && undo {
                    // Its caller is gone: as it was before.
                    let before = locks.table.clone();
                    let hold = Some(before.locks().to_vec());
                    self.attempt_lock(ino, None, before, LockChange { wanted: None, hold });
                    return;
                }
                let changed = locks.table != table;
                locks.table = table;
                if changed {
                    // Others of this mount may have waited for just this.
                    locks.try_blocked();
                }
                if let Some(id) = op {
                    self.lock_answered(id);
                }
            }
            Step::Done(Outcome::Locked(Err(by))) => {
                if let Some(id) = op {
                    match self.ops.get(&id).map(|op| &op.request) {
                        Some(Request::GetLock { .. }) => {
                            self.finish(id, Ok(Response::Lock(Some(Lock { pid: 0, ..by }))));
                        }
                        Some(Request::SetLock { wait: true, .. }) if crossed => {
                            locks.queue.push_front(id);
                        }
                        Some(Request::SetLock { wait, .. }) => {
                            let wait = *wait;
                            self.kept_out(id, ino, wait);
                        }
                        _ => {}
                    }
                }
            }
            Step::Fail(failure) => {
                if op.is_none() {
                    // Nobody is there to try again; the end of the session takes it.
                    locks.table = table;
                }
                if let Some(text) = failure.text {
                    self.cx.notice(Level::Error, text);
                }
                self.lock_failed(op, failure.errno);
            }
            Step::Done(_) | Step::Park | Step::Work(_) => self.lock_failed(op, Errno::EIO),
        }
        self.next_lock(ino);
    }

    fn lock_failed(&mut self, op: Option<OpId>, errno: Errno) {
        let Some(id) = op else { return };
        match self.ops.get(&id).map(|op| &op.request) {
            // The descriptor is closed whatever becomes of its locks.
            Some(Request::Flush { .. }) => self.finish_close(id),
            _ => self.finish(id, Err(errno)),
        }
    }

    /// The server did as it was asked.
    fn lock_answered(&mut self, id: OpId) {
        match self.ops.get(&id).map(|op| &op.request) {
            Some(Request::GetLock { .. }) => self.finish(id, Ok(Response::Lock(None))),
            Some(Request::Flush { .. }) => self.finish_close(id),
            _ => self.finish(id, Ok(Response::Done)),
        }
    }

    fn kept_out(&mut self, id: OpId, ino: Ino, wait: bool) {
        if wait && let Some(locks) = self.locks.get_mut(&ino) {
            locks.blocked.push_back(id);
        } else {
            // POSIX fcntl, F_SETLK: EACCES or EAGAIN; flock(2): EWOULDBLOCK, which is EAGAIN.
            self.finish(id, Err(Errno::EAGAIN));
        }
    }

    /// The request is answered before its time.
    pub(super) fn give_up_lock(&mut self, id: OpId) {
        for locks in self.locks.values_mut() {
            locks.queue.retain(|it| *it != id);
            locks.blocked.retain(|it| *it != id);
            if let Some(attempt) = locks.attempt.as_mut().filter(|it| it.op == Some(id)) {
                attempt.op = None;
            }
        }
        self.locks.retain(|_, it| !it.is_idle());
    }
}
