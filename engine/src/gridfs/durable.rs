//! What the server has acknowledged and may still lose in a crash, and how that ends.
//!
//! On several members every change waits for a majority, and nothing here has anything to do. On a
//! single server a change is acknowledged before it is in the journal, and an fsync sends one more
//! write that changes nothing and waits for majority and journal: that covers everything which that
//! server acknowledged before. Whether it is still that server is told by the process in its
//! `hello`; after a crash the last change of the inode is looked for. Changes are lost from the
//! end, so when that one is there, all before it are.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::{Doc, Value};
use crate::backend::mongo::{Command, Concern, Expect, Mongo, Reply};
use crate::contract::Mode;
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Failure, Layout, Outcome, Step, Work};

use super::document::{FileDoc, Id, Whose, number};
use super::write::Writing;
use super::{GridFs, Ticket, ours};

/// A process of a server (`topologyVersion.processId`, MongoDB 4.4).
pub(super) type Process = [u8; 12];

/// The last change of an inode that a server acknowledged and might lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    token: Token,
    life: u64,
    number: u64,
}

/// What is known to be safe.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    process: Option<Process>,
    /// Acknowledgements so far, and how many of them are safe.
    acks: u64,
    safe: u64,
    /// For each life of the server that ended, as far as is known, how many were safe then. A
    /// lost connection may have been the end of one.
    ended: Vec<u64>,
}

/// A check that nothing was lost, and what is to be done when it was not.
#[derive(Clone, Debug)]
pub struct Syncing {
    ino: Ino,
    acks: u64,
    /// The revision whose chunks are counted.
    staged: Option<Id>,
    then: Option<Box<Writing>>,
}

impl Durable {
    /// The current life of the server.
    pub(super) fn life(&self) -> u64 {
        self.ended.len() as u64
    }

    /// A connection was lost, or the server says that it is another process.
    pub(super) fn life_ended(&mut self) {
        self.ended.push(self.safe);
    }

    pub(super) fn learn(&mut self, hello: &Doc) {
        let process = process(hello);
        if self.process.is_some() && self.process != process {
            self.life_ended();
        }
        self.process = process;
    }

    fn is_safe(&self, ack: Ack) -> bool {
        let safe = self.ended.get(ack.life as usize).copied().unwrap_or(self.safe);
        ack.number <= safe
    }

    /// A server died, as far as is known, with this unsafe.
    fn is_doubtful(&self, ack: Ack) -> bool {
        ack.life != self.life() && !self.is_safe(ack)
    }
}

fn process(hello: &Doc) -> Option<Process> {
    match hello.get("topologyVersion")?.as_doc()?.get("processId")? {
        Value::ObjectId(id) => Some(id),
        _ => None,
    }
}

impl GridFs {
    /// A change of ours that wrote its token into an inode's document was acknowledged.
    pub(super) fn acknowledged(&mut self, ino: Ino, token: Token) {
        if self.concern == Concern::Durable {
            return;
        }
        self.durable.acks += 1;
        let ack = Ack { token, life: self.durable.life(), number: self.durable.acks };
        if let Some(node) = self.tree.get_mut(ino) {
            node.unsafe_ack = Some(ack);
        }
    }

    /// Whether something of an inode may have been lost.
    pub(super) fn is_unsure(&self, ino: Ino) -> bool {
        let Some(node) = self.tree.get(ino) else { return false };
        let life = self.durable.life();
        node.unsafe_ack.is_some_and(|ack| self.durable.is_doubtful(ack))
            || self.concern != Concern::Durable
                && node.staged.as_ref().is_some_and(|staged| staged.life != life)
    }

    pub(super) fn start_sync(&mut self, ino: Ino) -> Step<Self> {
        let ack = self.tree.get(ino).and_then(|node| node.unsafe_ack);
        let at_risk = ack.is_some_and(|ack| !self.durable.is_safe(ack));
        if self.concern == Concern::Durable || !(at_risk || self.is_unsure(ino)) {
            return Step::Done(Outcome::Done);
        }
        self.sync(ino, None)
    }

    /// Looks whether what was acknowledged is still there before more is written on top of it.
    pub(super) fn sync_before(&mut self, writing: Writing) -> Step<Self> {
        self.sync(writing.ino(), Some(Box::new(writing)))
    }

    fn sync(&mut self, ino: Ino, then: Option<Box<Writing>>) -> Step<Self> {
        let mut commands = alloc::vec![
            self.barrier(),
            Command::new("hello", "admin"),
            self.find_ino(ino).expecting(Expect::Anything),
        ];
        let staged = self.tree.get(ino).and_then(|node| node.staged.as_ref());
        let staged = staged.map(|staged| staged.id.clone());
        commands.extend(staged.as_ref().map(|id| self.measure(id)));
        let syncing = Syncing { ino, acks: self.durable.acks, staged, then };
        let ticket = Ticket::Sync(syncing);
        Step::Work(Work { lane: Lane::Bulk, mode: Mode::Independent, commands, ticket })
    }

    /// A write that changes nothing: its write concern waits for all that came before it.
    pub(super) fn barrier(&self) -> Command {
        let mut command = self.update(|it| {
            it.begin("q").i64(&ours("ino"), Ino::ROOT.0 as i64).end();
            it.begin("u").begin("$setOnInsert").i32(&ours("v"), 1).end().end();
        });
        command.concern = Concern::Durable;
        command
    }

    /// How many chunks there are of a revision, and how many bytes in them.
    fn measure(&self, id: &Id) -> Command {
        let mut aggregate = self.chunks("aggregate");
        let body = aggregate.body();
        body.begin_array("pipeline").begin("0").begin("$match");
        id.write("files_id", body);
        body.end().end().begin("1").begin("$group").null("_id");
        body.begin("n").i32("$sum", 1).end();
        body.begin("bytes").begin("$sum").str("$binarySize", "$data").end().end();
        body.end().end().end().begin("cursor").end();
        aggregate
    }

    pub(super) fn synced(
        &mut self,
        syncing: Syncing,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let Syncing { ino, acks, staged, then } = syncing;
        if let Some(error) = replies.iter().take(3).find_map(Reply::error) {
            let what = format!("making {} durable", self.describe(ino));
            return Step::Fail(self.refused(&error, &what));
        }
        let [_, hello, found, rest @ ..] = replies else { return Step::fail(Errno::EIO) };
        self.durable.learn(&hello.doc());
        let doc = found.batch().0.into_iter().next();
        let (id, writer) = match doc.as_ref().map(FileDoc::parse) {
            Some(Ok(FileDoc { id, whose: Whose::Ours(inode), .. })) => (Some(id), inode.writer),
            _ => (None, None),
        };
        let Some(node) = self.tree.get_mut(ino) else { return Step::fail(Errno::ESTALE) };
        let ack = node.unsafe_ack;
        // A later change of ours tells as well: its reply may have been lost.
        let is_there = |ack: Ack| {
            writer.is_some_and(|writer| {
                writer.session == ack.token.session && writer.serial >= ack.token.serial
            })
        };
        let mut lost = ack.is_some_and(|ack| self.durable.is_doubtful(ack) && !is_there(ack));
        let life = self.durable.life();
        if let (Some(of), Some(now)) = (staged, &mut node.staged)
            && now.id == of
            && id.as_ref() != Some(&of)
        {
            lost |= now.life != life && !measures(rest.first(), now.content);
            now.life = life;
        }
        if lost {
            let node = self.tree.get_mut(ino);
            let staged = node.and_then(|node| {
                node.unsafe_ack = None;
                node.staged.take()
            });
            if let Some(staged) = staged {
                self.live.reclaim(staged.id);
            }
            cx.invalidate_inode(ino);
            let text = format!(
                "{}: the server crashed and lost what it had acknowledged; write it again",
                self.describe(ino)
            );
            return Step::Fail(Failure { errno: Errno::EIO, text: Some(text) });
        }
        if ack.is_none_or(|ack| ack.number <= acks)
            && let Some(node) = self.tree.get_mut(ino)
        {
            node.unsafe_ack = None;
        }
        self.durable.safe = self.durable.safe.max(acks);
        match then {
            Some(writing) => self.write_anew(*writing, doc.as_ref(), cx),
            None => Step::Done(Outcome::Done),
        }
    }

    /// For an unmount: the last changes survive too.
    pub(super) fn all_is_safe(&self) -> bool {
        self.concern == Concern::Durable || self.durable.safe >= self.durable.acks
    }
}

/// Whether the chunks are all there.
fn measures(reply: Option<&Reply>, content: super::document::Content) -> bool {
    let figure = |name: &str| {
        let doc = reply?.batch().0.into_iter().next()?;
        number(&doc.get(name)?).and_then(|it| u64::try_from(it).ok())
    };
    let chunks = figure("n").unwrap_or(0);
    chunks == content.chunks() && figure("bytes").unwrap_or(0) == content.length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(life: u64, number: u64) -> Ack {
        Ack { token: Token { session: 1, serial: number }, life, number }
    }

    #[test]
    fn what_was_safe_when_a_server_died_stays_safe() {
        let mut durable = Durable { acks: 5, safe: 3, ..Durable::default() };
        assert!(durable.is_safe(ack(0, 3)) && !durable.is_safe(ack(0, 4)));
        assert!(!durable.is_doubtful(ack(0, 4)), "the same server will still be asked");
        durable.life_ended();
        assert!(durable.is_doubtful(ack(0, 4)) && !durable.is_doubtful(ack(0, 3)));
        // What the new one acknowledges and makes safe says nothing about what the old one did.
        (durable.acks, durable.safe) = (9, 9);
        assert!(durable.is_safe(ack(1, 8)) && durable.is_doubtful(ack(0, 5)));
    }
}
