//! Checks a volume: reads all its records, names everything that does not fit together, and knows
//! the commands that mend it without losing contents.
//!
//! | file | what it is for |
//! |---|---|
//! | `gather.rs` | reads everything |
//! | `survey.rs` | what was read |
//! | `judge.rs` | what does not fit together, in the order in which it is mended |
//! | `names.rs` | the part of it that is about names: entries, the tree, lost+found |
//!
//! What is mended stays mended in the survey, so that later rules judge what will be there: an
//! inode whose record was lost is made anew from its blocks before anybody asks who names it.
//! A mount may be at work meanwhile; then what it has just changed may be named wrongly, and
//! nothing should be mended.

mod gather;
mod judge;
mod names;
mod survey;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::backend::redis::{Command, Reply};
use crate::engine::Progress;
use crate::time::Wall;

use super::key::{Keyspace, MountId};
use super::tool::Tool;
use gather::Gather;

/// Commands that are sent together when something is mended.
const PIPELINE: usize = 256;

/// Something that does not fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What, in a few words.
    pub what: String,
    /// The key that shows it.
    pub key: Bytes,
    /// Where in the tree, if it has a place there.
    pub path: Option<String>,
    /// What mends it, in order; `None` when nothing does without losing something.
    pub fix: Option<Vec<Command>>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        write!(f, "{} ({})", self.what, self.key.escape_ascii())
    }
}

/// A volume, read and judged.
#[derive(Clone, Debug)]
pub struct Report {
    /// What does not fit together, in the order in which it is to be mended.
    pub findings: Vec<Finding>,
    /// Mounts whose lease has not ended.
    pub mounts: Vec<MountId>,
    /// Inodes, and how many of them are directories.
    pub inodes: u64,
    /// Of those.
    pub dirs: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Blocks of contents.
    pub blocks: u64,
}

/// Checks the volume of some keys.
#[derive(Clone, Debug)]
pub struct Fsck {
    keys: Keyspace,
    gather: Gather,
    now: Wall,
}

impl Fsck {
    /// `now` is written into what must be made anew.
    #[must_use]
    pub fn new(keys: Keyspace, now: Wall) -> Fsck {
        Fsck { gather: Gather::new(keys.clone()), keys, now }
    }

    /// What became of it.
    #[must_use]
    pub fn into_report(self) -> Report {
        judge::judge(&self.keys, self.gather.into_survey(), self.now)
    }
}

impl Tool for Fsck {
    fn poll(&mut self) -> Option<Vec<Command>> {
        self.gather.poll()
    }

    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String> {
        self.gather.handle(replies)
    }

    fn progress(&self) -> Progress {
        self.gather.progress()
    }
}

/// Mends what a check has found and can be mended.
#[derive(Clone, Debug)]
pub struct Repair {
    commands: VecDeque<Command>,
    sent: Vec<Command>,
    done: u64,
    total: u64,
}

impl Repair {
    /// All of these findings.
    #[must_use]
    pub fn new(findings: &[Finding]) -> Repair {
        let commands: VecDeque<Command> =
            findings.iter().flat_map(|it| it.fix.iter().flatten().cloned()).collect();
        let total = commands.len() as u64;
        Repair { commands, sent: Vec::new(), done: 0, total }
    }
}

impl Tool for Repair {
    fn poll(&mut self) -> Option<Vec<Command>> {
        let n = self.commands.len().min(PIPELINE);
        self.sent = self.commands.drain(..n).collect();
        (n > 0).then(|| self.sent.clone())
    }

    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String> {
        for (command, reply) in self.sent.iter().zip(&replies) {
            if let Some(line) = reply.as_error() {
                return Err(alloc::format!("mending was refused: {command:?}: {line}"));
            }
        }
        self.done += replies.len() as u64;
        Ok(())
    }

    fn progress(&self) -> Progress {
        let finished = self.commands.is_empty();
        Progress { done: self.done, total: Some(self.total), finished }
    }
}
