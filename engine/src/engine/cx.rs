//! What the machines and the layout share: the clock, the configuration, the facts, the outputs.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;

use crate::backend::Backend;
use crate::config::Config;
use crate::contract::{Invalidation, Level, Notice, Output};
use crate::errno::Errno;
use crate::id::{Ino, OpId};
use crate::op::{Attr, Name, Response};
use crate::time::Now;

use super::facts::FactCache;
use super::inodes::Inodes;

/// The engine's side of a layout's work.
#[derive(Clone, Debug)]
pub struct Cx<B: Backend> {
    /// The time of the input that is being handled.
    pub now: Now,
    /// Bounds and policies.
    pub config: Config,
    /// The seed the engine was made with: identifies this mount among all mounts of the server.
    pub seed: u64,
    pub(super) facts: FactCache,
    pub(super) inodes: Inodes,
    pub(super) out: VecDeque<Output<B>>,
    wake: bool,
    /// Inodes whose cached contents are void.
    pub(super) stale_data: alloc::vec::Vec<Ino>,
    /// Files whose locks other mounts may have changed; `None` stands for all of them.
    unlocked: Option<BTreeSet<Ino>>,
}

impl<B: Backend> Cx<B> {
    pub(super) fn new(config: Config, seed: u64, now: Now) -> Self {
        let facts = FactCache::new(config.fact_entries);
        Cx {
            now,
            config,
            seed,
            facts,
            inodes: Inodes::default(),
            out: VecDeque::new(),
            wake: false,
            stale_data: alloc::vec::Vec::new(),
            unlocked: Some(BTreeSet::new()),
        }
    }

    /// What is remembered of an inode may be wrong: here and, if the kernel knows it, there.
    pub fn invalidate_inode(&mut self, ino: Ino) {
        self.facts.forget_attr(ino);
        self.stale_data.push(ino);
        if self.inodes.is_known(ino) {
            self.out.push_back(Output::Invalidate(Invalidation::Inode(ino)));
        }
    }

    /// What is remembered of a name may be wrong, that it does not exist included.
    pub fn invalidate_entry(&mut self, parent: Ino, name: Name) {
        self.facts.forget_entry(parent, &name);
        if self.inodes.is_known(parent) {
            self.out.push_back(Output::Invalidate(Invalidation::Entry { parent, name }));
        }
    }

    /// The attributes of an inode, while a lease on them is good.
    #[must_use]
    pub fn leased_attr(&self, ino: Ino) -> Option<Attr> {
        self.facts.attr(ino, self.now.mono)
    }

    /// Forgets the facts about an inode without telling the kernel, which knows better (it has
    /// just been answered) or does not mind.
    pub fn forget_attr(&mut self, ino: Ino) {
        self.facts.forget_attr(ino);
    }

    /// Forgets the fact about a name.
    pub fn forget_entry(&mut self, parent: Ino, name: &Name) {
        self.facts.forget_entry(parent, name);
    }

    /// Forgets every fact.
    pub fn forget_all(&mut self) {
        self.facts.clear();
    }

    /// Whether the kernel holds a reference to the inode.
    #[must_use]
    pub fn is_known(&self, ino: Ino) -> bool {
        self.inodes.is_known(ino)
    }

    /// Whether a handle is open on the inode.
    #[must_use]
    pub fn is_open(&self, ino: Ino) -> bool {
        self.inodes.is_open(ino)
    }

    /// What made procedures end with `Step::Park` has changed: they are started again.
    pub fn wake(&mut self) {
        self.wake = true;
    }

    /// Another mount may have changed its locks on a file: who waits for one is tried again.
    pub fn unlocked(&mut self, ino: Ino) {
        if let Some(inos) = &mut self.unlocked {
            inos.insert(ino);
        }
    }

    /// Another mount may have changed any of its locks, or has ended.
    pub fn unlocked_all(&mut self) {
        self.unlocked = None;
    }

    pub(super) fn take_unlocked(&mut self, all: impl Iterator<Item = Ino>) -> BTreeSet<Ino> {
        let told = self.unlocked.replace(BTreeSet::new());
        told.unwrap_or_else(|| all.collect())
    }

    pub(super) fn take_wake(&mut self) -> bool {
        core::mem::take(&mut self.wake)
    }

    /// A line for the log.
    pub fn notice(&mut self, level: Level, text: String) {
        self.out.push_back(Output::Notice(Notice { level, text }));
    }

    pub(super) fn respond(&mut self, id: OpId, result: Result<Response, Errno>) {
        self.out.push_back(Output::Respond(id, result));
    }
}
