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
        let (most, age) = (config.accesses, config.flush_age);
        match self.cx.facts.accessed(ino, now.wall) {
            1 => {
                self.timers.insert((now.mono.after(age), Timer::Accesses));
            }
            n if n >= most => self.tell_accesses(),
            _ => {}
        }
    }

    /// Tells the server of the accesses it does not know of.
    pub(super) fn tell_accesses(&mut self) {
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
