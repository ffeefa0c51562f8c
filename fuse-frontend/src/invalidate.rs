//! Tells the kernel what to forget, from a thread of its own: the kernel may hold a directory's
//! lock until a request is answered, so a request handler that waited for it would never return.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use dbmount_engine::Invalidation;
use fuser::{INodeNo, Notifier};

/// Invalidations on their way to the kernel, each at most once.
///
/// Its bound is that of the engine's own tables: the engine names only inodes and names that the
/// kernel may remember, and one that is named again before the kernel was told takes no second
/// place.
#[derive(Debug, Default)]
pub struct Invalidations {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<Invalidation>,
    waiting: HashSet<Invalidation>,
    closed: bool,
}

impl Invalidations {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues invalidations; never blocks on the kernel.
    pub fn push(&self, items: impl IntoIterator<Item = Invalidation>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed {
            return;
        }
        for item in items {
            if queue.waiting.insert(item.clone()) {
                queue.order.push_back(item);
            }
        }
        if !queue.order.is_empty() {
            self.changed.notify_one();
        }
    }

    /// The next one, waiting for it; `None` once [`close`](Self::close) was called.
    ///
    /// It leaves the queue before the kernel is told: what changes while the kernel is being told
    /// must be told again.
    pub fn next(&self) -> Option<Invalidation> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(item) = queue.order.pop_front() {
                queue.waiting.remove(&item);
                return Some(item);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more goes to the kernel: it is unmounted.
    pub fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        queue.order.clear();
        queue.waiting.clear();
        self.changed.notify_all();
    }

    /// Starts the thread that empties the queue into the kernel, until [`close`](Self::close).
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(self: &Arc<Self>, notifier: Notifier) -> io::Result<JoinHandle<()>> {
        let queue = Arc::clone(self);
        std::thread::Builder::new().name("invalidate".into()).spawn(move || {
            while let Some(item) = queue.next() {
                if let Err(error) = tell(&notifier, &item) {
                    // The kernel has a reason of its own for each of these (it does not know the
                    // inode, or is being unmounted); the next lookup asks us anyway.
                    tracing::debug!(?item, %error, "invalidation not taken");
                }
            }
        })
    }
}

fn tell(notifier: &Notifier, item: &Invalidation) -> io::Result<()> {
    match item {
        // Offset and length zero: attributes and every cached page.
        Invalidation::Inode(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Invalidation::Entry { parent, name } => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use dbmount_engine::Ino;

    use super::*;

    #[test]
    fn duplicates_take_one_place_until_taken_out() {
        let queue = Invalidations::new();
        let (a, b) = (Invalidation::Inode(Ino(2)), Invalidation::Inode(Ino(3)));
        queue.push([a.clone(), b.clone(), a.clone()]);
        assert_eq!(queue.next(), Some(a.clone()));
        queue.push([a.clone(), b.clone()]);
        assert_eq!(queue.next(), Some(b));
        assert_eq!(queue.next(), Some(a));
    }

    #[test]
    fn a_closed_queue_ends_its_reader_and_takes_nothing() {
        let queue = Invalidations::new();
        queue.push([Invalidation::Inode(Ino(2))]);
        queue.close();
        queue.push([Invalidation::Inode(Ino(3))]);
        assert_eq!(queue.next(), None);
    }
}
