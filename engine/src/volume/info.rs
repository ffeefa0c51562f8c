//! What there is to tell about a volume: what it was made like, how full it is, who uses it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::backend::redis::{Command, Reply};
use crate::engine::Progress;

use super::key::{Key, Keyspace, number};
use super::record::Super;
use super::tool::{Sessions, Tool, hmget, superblock};

/// Asks for it, in one round trip.
#[derive(Clone, Debug)]
pub struct Info {
    keys: Keyspace,
    asked: bool,
    figures: Option<Figures>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What `format` decided.
    pub superblock: Super,
    /// Files, directories and links there are.
    pub inodes: u64,
    /// Bytes in files.
    pub bytes: u64,
    /// Inodes that lost their last name and wait for who has them open.
    pub graves: u64,
    /// Pieces of contents that wait to be removed.
    pub queue: u64,
    /// The mounts.
    pub sessions: Sessions,
}

impl Info {
    /// Of the volume of these keys.
    #[must_use]
    pub fn new(keys: Keyspace) -> Info {
        Info { keys, asked: false, figures: None }
    }

    /// The answer, once it has come.
    #[must_use]
    pub fn into_figures(self) -> Option<Figures> {
        self.figures
    }
}

impl Tool for Info {
    fn poll(&mut self) -> Option<Vec<Command>> {
        let key = |key| self.keys.key(key);
        let plain = |word: &'static str, of| Command::plain([word.into(), key(of)]);
        (!core::mem::replace(&mut self.asked, true)).then(|| {
            Vec::from([
                hmget(key(Key::Super), &Super::FIELDS),
                hmget(key(Key::Usage), &["inodes", "bytes"]),
                plain("ZCARD", Key::Graves),
                plain("HLEN", Key::Queue),
                Sessions::ask(&self.keys),
                Command::plain(["TIME"]),
            ])
        })
    }

    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String> {
        let superblock = superblock(&self.keys, replies.first())?;
        if let Some(line) = Reply::error_among(&replies) {
            let name = self.keys.name();
            return Err(alloc::format!("volume {name}: the server says: {line}"));
        }
        let usage = replies.get(1).and_then(Reply::as_array).unwrap_or_default();
        let used = |at: usize| usage.get(at).and_then(Reply::as_bytes).and_then(number);
        let counted = |at: usize| super::count(replies.get(at)).unwrap_or(0);
        self.figures = Some(Figures {
            superblock,
            inodes: used(0).unwrap_or(0),
            bytes: used(1).unwrap_or(0),
            graves: counted(2),
            queue: counted(3),
            sessions: Sessions::read(replies.get(4), replies.get(5)),
        });
        Ok(())
    }

    fn progress(&self) -> Progress {
        Progress { finished: self.figures.is_some(), ..Progress::default() }
    }
}
