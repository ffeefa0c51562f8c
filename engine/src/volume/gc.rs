//! Removes at once what mounts remove in the background: contents that nobody can reach any more,
//! and what dead mounts held.
//!
//! It may be stopped at any point and run again, and beside mounts: a piece of contents is taken
//! off the queue after its blocks are gone.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Reply};
use crate::engine::Progress;

use super::key::{DataId, Key, Keyspace, number};
use super::record::Super;
use super::tool::{Sessions, Tool, hmget, superblock};
use super::{count, decimal, scripts};

/// Blocks that are removed together.
const BLOCKS: u64 = 512;
/// Graves that are looked at together.
const GRAVES: u64 = 256;

/// What it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Look,
    Reap,
    Scan,
    Remove,
    Done,
}

/// Reclaims a volume.
#[derive(Clone, Debug)]
pub struct Gc {
    keys: Keyspace,
    stage: Stage,
    block: u64,
    cursor: Bytes,
    /// Contents, up to where they may reach.
    todo: VecDeque<(DataId, u64)>,
    /// What is left of those that are being removed.
    under_way: Vec<(DataId, u64)>,
    /// Mounts that are alive.
    alive: usize,
    /// Pieces of contents that were removed, and keys of blocks that went with them.
    contents: u64,
    blocks: u64,
}

impl Gc {
    /// Of the volume of these keys.
    #[must_use]
    pub fn new(keys: Keyspace) -> Gc {
        Gc {
            keys,
            stage: Stage::Look,
            block: 0,
            cursor: Bytes::from_static(b"0"),
            todo: VecDeque::new(),
            under_way: Vec::new(),
            alive: 0,
            contents: 0,
            blocks: 0,
        }
    }

    /// Contents that were removed, blocks that went with them, and mounts that are alive.
    #[must_use]
    pub fn done(&self) -> (u64, u64, usize) {
        (self.contents, self.blocks, self.alive)
    }

    /// As a mount that leaves: what dead mounts held is let go of, and what all that are alive have
    /// seen is laid to rest.
    fn reap(&self) -> Command {
        let keys =
            [Key::Sessions, Key::Graves, Key::Queue, Key::Usage].map(|key| self.keys.key(key));
        let mut args: Args = smallvec![self.keys.prefix(), decimal(0), decimal(0), decimal(GRAVES)];
        args.extend([decimal(0), decimal(0), decimal(0)]);
        Command::Script { script: &scripts::REAP, keys: keys.into_iter().collect(), args }
    }

    fn scan(&self) -> Command {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let queue = self.keys.key(Key::Queue);
        Command::plain([word("HSCAN"), queue, self.cursor.clone(), word("COUNT"), word("512")])
    }

    /// Blocks first, then their place in the queue.
    fn remove(&mut self) -> Vec<Command> {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let queue = self.keys.key(Key::Queue);
        let mut unlink: Args = smallvec![word("UNLINK")];
        let mut after = Vec::new();
        let mut room = BLOCKS;
        while room > 0
            && let Some((data, length)) = self.todo.pop_front()
        {
            let blocks = length.div_ceil(self.block);
            let from = blocks.saturating_sub(room);
            unlink.extend((from..blocks).map(|n| self.keys.key(Key::Block(data, n))));
            room -= blocks - from;
            let field = decimal(data.0);
            after.push(if from == 0 {
                Command::plain([word("HDEL"), queue.clone(), field])
            } else {
                let left = decimal(from * self.block);
                Command::plain([word("HSET"), queue.clone(), field, left])
            });
            self.under_way.push((data, from * self.block));
        }
        let mut commands = Vec::new();
        if unlink.len() > 1 {
            commands.push(Command::Plain(unlink));
        }
        commands.extend(after);
        commands
    }
}

impl Tool for Gc {
    fn poll(&mut self) -> Option<Vec<Command>> {
        match self.stage {
            Stage::Look => Some(Vec::from([
                hmget(self.keys.key(Key::Super), &Super::FIELDS),
                Sessions::ask(&self.keys),
                Command::plain(["TIME"]),
            ])),
            Stage::Reap => Some(Vec::from([self.reap()])),
            Stage::Scan => Some(Vec::from([self.scan()])),
            Stage::Remove => Some(self.remove()),
            Stage::Done => None,
        }
    }

    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String> {
        let failed = |line: &str| format!("volume {}: the server says: {line}", self.keys.name());
        if self.stage != Stage::Look
            && let Some(line) = Reply::error_among(&replies)
        {
            return Err(failed(line));
        }
        self.stage = match self.stage {
            Stage::Look => {
                self.block = u64::from(superblock(&self.keys, replies.first())?.block);
                if let Some(line) = Reply::error_among(&replies) {
                    return Err(failed(line));
                }
                let sessions = Sessions::read(replies.get(1), replies.get(2));
                self.alive = sessions.alive().count();
                Stage::Reap
            }
            Stage::Reap => {
                let answer = replies.first().and_then(Reply::as_array).unwrap_or_default();
                if count(answer.get(4)) == Some(1) { Stage::Reap } else { Stage::Scan }
            }
            Stage::Scan => {
                let page = replies.first().and_then(Reply::as_array).unwrap_or_default();
                let pairs = page.get(1).and_then(Reply::as_array).unwrap_or_default();
                for pair in pairs.chunks_exact(2) {
                    let [data, length] = [0, 1].map(|at| pair[at].as_bytes().and_then(number));
                    // What is no number is for the check to mend.
                    self.todo.extend(data.map(DataId).zip(length));
                }
                let next = page.first().and_then(Reply::as_bytes).unwrap_or(b"0");
                self.cursor = Bytes::copy_from_slice(next);
                match (self.todo.is_empty(), next == b"0") {
                    (false, _) => Stage::Remove,
                    (true, false) => Stage::Scan,
                    (true, true) => Stage::Done,
                }
            }
            Stage::Remove => {
                let gone = replies.first().and_then(Reply::as_int).unwrap_or(0);
                self.blocks += u64::try_from(gone).unwrap_or(0);
                for (data, left) in core::mem::take(&mut self.under_way) {
                    if left > 0 {
                        self.todo.push_front((data, left));
                    } else {
                        self.contents += 1;
                    }
                }
                match (self.todo.is_empty(), &self.cursor[..] == b"0") {
                    (false, _) => Stage::Remove,
                    (true, false) => Stage::Scan,
                    (true, true) => Stage::Done,
                }
            }
            Stage::Done => Stage::Done,
        };
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress { done: self.blocks, total: None, finished: self.stage == Stage::Done }
    }
}
