//! Tells the kernel what to forget, from a thread of its own: the kernel may hold a directory's
//! lock until a request is answered, so a request handler that waited for it would never return.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::{fmt, io};

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
    order: VecDeque<Item>,
    waiting: HashSet<Invalidation>,
    /// Something has left the queue and is being told.
    telling: bool,
    closed: bool,
}

/// What is done in its turn.
enum Item {
    /// The kernel is told.
    Tell(Invalidation),
    /// Somebody has waited until the kernel was told.
    Then(Box<dyn FnOnce() + Send>),
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Tell(item) => item.fmt(f),
            Item::Then(_) => f.write_str("Then"),
        }
    }
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
                queue.order.push_back(Item::Tell(item));
            }
        }
        if !queue.order.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Does something once the kernel was told all that is queued now: at once, when nothing is.
    pub fn then(&self, work: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.closed || (queue.order.is_empty() && !queue.telling) {
            drop(queue);
            work();
        } else {
            queue.order.push_back(Item::Then(Box::new(work)));
            self.changed.notify_one();
        }
    }

    /// The next one, waiting for it; `None` once [`close`](Self::close) was called. Whoever takes
    /// one has told the kernel when it comes for the next.
    ///
    /// It leaves the queue before the kernel is told: what changes while the kernel is being told
    /// must be told again.
    pub fn next(&self) -> Option<Invalidation> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.telling = false;
        loop {
            if queue.closed {
                return None;
            }
            match queue.order.pop_front() {
                Some(Item::Tell(item)) => {
                    queue.waiting.remove(&item);
                    queue.telling = true;
                    return Some(item);
                }
                Some(Item::Then(work)) => {
                    drop(queue);
                    work();
                    queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                None => {}
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nothing more goes to the kernel: it is unmounted.
    pub fn close(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        let left = std::mem::take(&mut queue.order);
        queue.waiting.clear();
        self.changed.notify_all();
        drop(queue);
        for item in left {
            if let Item::Then(work) = item {
                work();
            }
        }
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
    fn what_is_to_follow_waits_for_what_was_queued_and_for_nothing_else() {
        let queue = Invalidations::new();
        let (done, order) = std::sync::mpsc::channel();
        let then = |n: u32| {
            let done = done.clone();
            queue.then(move || done.send(n).unwrap());
        };
        then(1);
        assert_eq!(order.try_recv(), Ok(1), "nothing is queued");
        queue.push([Invalidation::Inode(Ino(2))]);
        then(2);
        assert!(order.try_recv().is_err());
        queue.next();
        then(3);
        assert!(order.try_recv().is_err(), "the kernel is being told");
        queue.push([Invalidation::Inode(Ino(3))]);
        then(4);
        queue.next();
        assert_eq!([order.try_recv(), order.try_recv()], [Ok(2), Ok(3)]);
        queue.close();
        assert_eq!(order.try_recv(), Ok(4), "nobody waits for ever");
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
