//! Requests that may wait for ever, and the threads that wait for them: a signal ends the wait.
//!
//! The kernel would say so in `FUSE_INTERRUPT`, but fuser answers the first one with "not there"
//! and there is never another; without this, a process that waits for a lock could not be killed.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dbmount_engine::OpId;

use crate::process;

/// How often the threads are looked at, while there are any.
const EVERY: Duration = Duration::from_millis(200);

/// Who waits. Its bound is that of the engine's own operations.
#[derive(Debug, Default)]
pub struct Interrupts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<OpId, u32>,
    closed: bool,
}

impl Interrupts {
    /// A thread waits for a request. One of another PID namespace has no number here, and cannot
    /// be looked at.
    pub fn watch(&self, op: OpId, tid: u32) {
        if tid != 0 {
            self.lock().waiting.insert(op, tid);
            self.changed.notify_one();
        }
    }

    /// The request was answered.
    pub fn done(&self, op: OpId) {
        self.lock().waiting.remove(&op);
    }

    /// The next requests whose threads have a signal to take, each once, waiting for them; `None`
    /// once [`close`](Self::close) was called.
    pub fn next(&self) -> Option<Vec<OpId>> {
        let mut state = self.lock();
        loop {
            while state.waiting.is_empty() && !state.closed {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return None;
            }
            let waiting = state.waiting.clone();
            drop(state);
            let interrupted: Vec<OpId> = waiting
                .into_iter()
                .filter(|(_, tid)| process::is_interrupted(*tid))
                .map(|(op, _)| op)
                .collect();
            state = self.lock();
            if !interrupted.is_empty() {
                for op in &interrupted {
                    state.waiting.remove(op);
                }
                return Some(interrupted);
            }
            if !state.closed {
                let waited = self.changed.wait_timeout(state, EVERY);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Nobody is watched any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_named_once_and_who_waits_is_not() {
        let interrupts = Interrupts::default();
        interrupts.watch(OpId(1), std::process::id());
        interrupts.watch(OpId(2), u32::MAX);
        interrupts.watch(OpId(3), 0);
        assert_eq!(interrupts.next(), Some(vec![OpId(2)]));
        assert_eq!(interrupts.lock().waiting, BTreeMap::from([(OpId(1), std::process::id())]));
        interrupts.done(OpId(1));
        interrupts.close();
        assert_eq!(interrupts.next(), None);
    }
}
