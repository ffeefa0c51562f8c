//! Access times: marked here when a program reads, and told to the server later, many at a time.
//! Nobody waits for that, and a crash may lose it.

use alloc::vec;

use crate::decide::{Answer, Change, Check, Patch, Plan, marks_access};
use crate::id::Ino;
use crate::layout::{Layout, Step};
use crate::time::Wall;

use super::batches::Owner;
use super::facts::Overlay;
use super::{Engine, Timer};

impl<L: Layout> Engine<L> {
    /// A program reads from an inode.
    pub(super) fn accessed(&mut self, ino: Ino) {
        let config = &self.cx.config;
        if !config.atime || config.read_only || !self.layout.caps().atime {
            return;
        }
        // What is open has been looked up. One that nothing is remembered of is marked next time.
        let Some(attr) = self.cx.facts.last_known(ino) else { return };
        let now = self.cx.now;
        let attr = self.files.dress(self.cx.facts.with_access(attr));
        if !config.strict_atime && !marks_access(&attr, now.wall) {
            return;
        }
        let most = config.accesses;
        if self.cx.facts.accesses() >= most {
            self.tell_accesses();
        }
        // While the server is away, what is read from the cache beyond that is not marked.
        if self.cx.facts.accesses() < most && self.cx.facts.accessed(ino, now.wall) == 1 {
            self.tell_accesses_later();
        }
    }

    fn tell_accesses_later(&mut self) {
        let at = self.cx.now.mono.after(self.cx.config.flush_age);
        self.timers.insert((at, Timer::Accesses));
    }

    /// The oldest access is as old as it may get.
    pub(super) fn accesses_due(&mut self) {
        self.tell_accesses();
        if self.cx.facts.accesses() > 0 {
            self.tell_accesses_later();
        }
    }

    /// Tells the server of the accesses it does not know of, unless it is away: then they wait,
    /// rather than their batches.
    pub(super) fn tell_accesses(&mut self) {
        if self.links.values().any(Option::is_some) {
            return;
        }
        for (ino, at) in self.cx.facts.take_accessed() {
            let token = self.next_token();
            let step = self.layout.commit(&plan(ino, at), token, &mut self.cx);
            self.access_step(step);
        }
    }

    /// What came of it matters to nobody; it may not be there any more.
    pub(super) fn access_step(&mut self, step: Step<L>) {
        if let Step::Work(work) = step {
            self.submit(Owner::Access, work);
        }
    }
}

fn plan(ino: Ino, at: Wall) -> Plan {
    let patch = Patch { atime: Some(at), ..Patch::default() };
    Plan {
        checks: vec![Check::Live(ino)],
        changes: vec![Change::SetAttr { ino, patch }],
        once: false,
        answer: Answer::Done,
    }
}
