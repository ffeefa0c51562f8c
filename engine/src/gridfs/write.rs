//! Writing: extents become chunks, chunks first and then the length that reveals them.
//!
//! A partial overwrite edits chunks in place. A rewrite from nothing goes into a new revision
//! under an `_id` of its own, which takes the place of the old one in one step when the writer
//! flushes: no reader sees half of it. What the new revision's chunks belong to until then is a
//! document marked `gone`, so that a crash leaves nothing that reclaiming does not find.

mod commands;
mod publish;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::bson::Doc;
use crate::backend::mongo::{Command, Concern, Expect, Mongo, Reply};
use crate::contract::Mode;
use crate::decide::{Change, Patch, Plan};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Failure, Layout, Outcome, Step, Work, WriteOut};
use crate::time::Wall;

use super::adopt::Adopting;
use super::data::{chunks_of, write_chunk};
use super::document::{Content, Id};
use super::tree::Staged;
use super::{GridFs, Ticket, sequence, statement};

/// Bytes of chunks in one batch: well below the 48 MB of a message.
const BATCH_BYTES: u64 = 8 << 20;
/// How often publishing is tried anew when others change the document meanwhile.
const ATTEMPTS: u32 = 8;
/// Tokens of writes are apart from those of commits.
pub(super) const WRITE_TOKEN: u64 = 1 << 62;

/// A file's contents on their way to the server.
#[derive(Clone, Debug)]
pub struct Writing {
    ino: Ino,
    id: Id,
    old: Content,
    new: Content,
    extents: Vec<(u64, Bytes)>,
    /// They are all there is to be.
    replace: bool,
    /// Into a revision that no reader sees yet.
    staged: bool,
    /// Make it the file's revision when it is written.
    publish: bool,
    mtime: Wall,
    /// Attributes that go along.
    attrs: Patch,
    token: Token,
    /// The life of the server in which this began.
    life: u64,
    /// The chunk to go on with.
    next: u64,
    attempts: u32,
    /// A length that is set: the plan it is part of.
    plan: Option<(Box<Plan>, Token)>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Adopting(Adopting),
    /// The placeholder of a new revision.
    Staging,
    /// Chunks that are edited: their numbers, all of the batch.
    Fetching(Vec<u64>),
    /// Chunks, and behind the last of them the length.
    Putting {
        batch: Vec<u64>,
        base: Vec<(u64, Bytes)>,
        upsert: bool,
    },
    /// The last chunk of a shorter file.
    Cutting,
    Trimming,
    /// The document whose fields the new revision takes over.
    Asking,
    Publishing {
        old: Id,
    },
}

impl GridFs {
    pub(super) fn start_write(
        &mut self,
        ino: Ino,
        out: &WriteOut,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        self.tree.unpin(ino);
        let Some((id, Ok(content))) = self.contents(ino) else {
            return Step::Fail(self.vanished(ino, "writing"));
        };
        let serial = self.next_serial() | WRITE_TOKEN;
        let mut writing = Writing {
            ino,
            id,
            old: content,
            new: content,
            extents: out.extents.clone(),
            replace: out.replace,
            staged: self.tree.get(ino).is_some_and(|node| node.staged.is_some()),
            publish: out.publish,
            mtime: out.mtime,
            attrs: out.attrs,
            token: Token { session: self.session, serial },
            life: self.durable.life(),
            next: 0,
            attempts: 0,
            plan: None,
            stage: Stage::Staging,
        };
        if self.is_unsure(ino) {
            return self.sync_before(writing);
        }
        if self.tree.get(ino).is_some_and(|node| node.foreign.is_some()) {
            return match self.adopt(&[ino], writing.token, cx) {
                Ok((adopting, commands)) => {
                    writing.stage = Stage::Adopting(adopting);
                    self.send(writing, commands, Mode::Ordered)
                }
                Err(failure) => Step::Fail(failure),
            };
        }
        self.begin_write(writing, cx)
    }

    /// From the start: a server has died meanwhile, and may have taken with it what it had
    /// acknowledged of this. `doc` is the file's document as it is now.
    pub(super) fn write_anew(
        &mut self,
        writing: Writing,
        doc: Option<&Doc>,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        if let Some(doc) = doc {
            // The staged revision may have been published, and the reply lost.
            let id = doc.get("_id").as_ref().and_then(Id::of);
            if let Some(node) = self.tree.get_mut(writing.ino)
                && node.staged.as_ref().is_some_and(|staged| Some(&staged.id) == id.as_ref())
            {
                node.staged = None;
            }
            self.see(doc, None, cx);
        }
        let out = WriteOut {
            replace: writing.replace,
            extents: writing.extents,
            mtime: writing.mtime,
            attrs: writing.attrs,
            publish: writing.publish,
        };
        self.start_write(writing.ino, &out, cx)
    }

    fn begin_write(&mut self, mut writing: Writing, cx: &mut Cx<Mongo>) -> Step<Self> {
        let gone = self.tree.get(writing.ino).is_some_and(|node| node.gone);
        let end = writing.extents.last().map_or(0, |(at, data)| at + data.len() as u64);
        if writing.replace && writing.old.length > 0 && !gone {
            // A second rewrite before the first was published gets a revision of its own too.
            if let Some(staged) = self.tree.get_mut(writing.ino).and_then(|it| it.staged.take()) {
                self.live.reclaim(staged.id);
            }
            writing.id = self.new_id(cx.now.wall);
            writing.old.length = 0;
            writing.new.length = end;
            writing.staged = true;
            writing.stage = Stage::Staging;
            let command = self.placeholder(&writing, self.lease_clock(cx.now.mono));
            return self.send(writing, alloc::vec![command], Mode::Ordered);
        }
        writing.new.length = writing.old.length.max(end);
        self.next_batch(writing, cx)
    }

    /// A length is set: shorter cuts, longer fills with zeros.
    pub(super) fn start_resize(
        &mut self,
        ino: Ino,
        size: u64,
        plan: Plan,
        token: Token,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        self.tree.unpin(ino);
        let Some((id, Ok(old))) = self.contents(ino) else {
            return Step::Fail(self.vanished(ino, "resizing"));
        };
        let new = Content { length: size, ..old };
        let mut writing = Writing {
            ino,
            id,
            old,
            new,
            extents: Vec::new(),
            replace: false,
            staged: self.tree.get(ino).is_some_and(|node| node.staged.is_some()),
            publish: false,
            mtime: cx.now.wall,
            attrs: Patch::default(),
            token,
            life: self.durable.life(),
            next: 0,
            attempts: 0,
            plan: Some((Box::new(plan), token)),
            stage: Stage::Cutting,
        };
        let rest = size % u64::from(old.chunk);
        if size >= old.length {
            return self.next_batch(writing, cx);
        }
        if rest == 0 {
            writing.stage = Stage::Trimming;
            let commands = self.trim(&writing, None);
            return self.send(writing, commands, self.several());
        }
        let last = size / u64::from(old.chunk);
        let command = self.find_chunks(&writing.id, last, last);
        self.send(writing, alloc::vec![command], Mode::Ordered)
    }

    fn several(&self) -> Mode {
        if self.transactions { Mode::Atomic } else { Mode::Ordered }
    }

    fn send(&self, writing: Writing, commands: Vec<Command>, mode: Mode) -> Step<Self> {
        let ticket = Ticket::Write(Box::new(writing));
        Step::Work(Work { lane: Lane::Bulk, mode, commands, ticket })
    }

    /// The next chunks to write, or the end.
    fn next_batch(&mut self, mut writing: Writing, cx: &mut Cx<Mongo>) -> Step<Self> {
        let limit = (BATCH_BYTES / u64::from(writing.new.chunk)).max(1) as usize;
        let mut batch = Vec::new();
        while batch.len() < limit
            && let Some(n) = writing.touched(writing.next)
        {
            batch.push(n);
            writing.next = n + 1;
        }
        let edited = |n: &u64| writing.old.chunk_len(*n) > 0 && writing.covering(*n).is_none();
        let edits: Vec<u64> = batch.iter().copied().filter(edited).collect();
        if edits.is_empty() {
            return self.put(writing, batch, Vec::new(), false, cx);
        }
        let commands = edits.iter().map(|n| self.find_chunks(&writing.id, *n, *n)).collect();
        writing.stage = Stage::Fetching(batch);
        self.send(writing, commands, Mode::Ordered)
    }

    fn put(
        &mut self,
        mut writing: Writing,
        batch: Vec<u64>,
        base: Vec<(u64, Bytes)>,
        upsert: bool,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let (mut fresh, mut changed) = (Vec::new(), Vec::new());
        for &n in &batch {
            let old = base.iter().find(|(at, _)| *at == n).map(|(_, data)| data);
            let data = writing.compose(n, old);
            if writing.old.chunk_len(n) == 0 && !upsert {
                fresh.push(statement(|it| write_chunk(&writing.id, n, data, it)));
            } else {
                changed.push(statement(|it| {
                    it.begin("q");
                    writing.id.write("files_id", it);
                    it.i32("n", n as i32).end();
                    it.begin("u").begin("$set").binary("data", 0, data).end().end();
                    it.bool("upsert", true);
                }));
            }
        }
        let mut commands = Vec::new();
        if writing.grows() && !batch.is_empty() && !self.is_marked(&writing, cx) {
            commands.push(self.mark(&writing.id, self.lease_clock(cx.now.mono)));
        }
        if !fresh.is_empty() {
            let mut insert = self.chunks("insert");
            sequence(&mut insert, "documents", fresh);
            insert.concern = self.concern;
            commands.push(insert.expecting(Expect::Success));
        }
        if !changed.is_empty() {
            let update = self.updates(self.chunks("update"), changed);
            commands.push(update.expecting(Expect::Success));
        }
        let done = writing.touched(writing.next).is_none();
        if done && !writing.staged {
            commands.push(self.reveal(&writing));
        }
        if commands.is_empty() {
            return self.written(writing, cx);
        }
        writing.stage = Stage::Putting { batch, base, upsert };
        self.send(writing, commands, Mode::Ordered)
    }

    pub(super) fn data_written(
        &mut self,
        mut writing: Writing,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        if self.concern != Concern::Durable && writing.life != self.durable.life() {
            // A length is set anew by deciding anew.
            return match writing.plan {
                Some(_) => Step::Done(Outcome::Conflict),
                None => self.sync_before(writing),
            };
        }
        let error = replies.iter().find_map(Reply::error);
        let stage = core::mem::replace(&mut writing.stage, Stage::Staging);
        if let Stage::Adopting(adopting) = stage {
            return match self.adopted(adopting, replies, cx) {
                Ok(()) => self.begin_write(writing, cx),
                Err(Some(failure)) => Step::Fail(failure),
                Err(None) => Step::Fail(self.vanished(writing.ino, "writing")),
            };
        }
        if let Some(error) = error {
            let duplicate = error.code == 11_000;
            return match stage {
                // Chunks that were left behind the end, or that a lost batch did write.
                Stage::Putting { batch, base, upsert: false } if duplicate => {
                    self.put(writing, batch, base, true, cx)
                }
                Stage::Publishing { .. }
                    if duplicate || error.has_label("TransientTransactionError") =>
                {
                    self.ask_old(writing)
                }
                Stage::Trimming if error.has_label("TransientTransactionError") => {
                    Step::Done(Outcome::Conflict)
                }
                _ => {
                    let what = format!("writing {}", self.describe(writing.ino));
                    Step::Fail(self.refused(&error, &what))
                }
            };
        }
        match stage {
            Stage::Adopting(_) => Step::fail(Errno::EIO),
            Stage::Staging => {
                let life = self.durable.life();
                let staged = Staged { id: writing.id.clone(), content: writing.old, life };
                if let Some(node) = self.tree.get_mut(writing.ino) {
                    node.staged = Some(staged);
                }
                self.live.stages(writing.ino);
                self.next_batch(writing, cx)
            }
            Stage::Fetching(batch) => {
                let docs: Vec<Doc> = replies.iter().flat_map(|reply| reply.batch().0).collect();
                let edited =
                    |n: &&u64| writing.old.chunk_len(**n) > 0 && writing.covering(**n).is_none();
                let base = match chunks_of(&docs) {
                    Ok(base) => base,
                    Err(what) => return self.broken(&writing, &what),
                };
                for n in batch.iter().filter(edited) {
                    let must = writing.old.chunk_len(*n);
                    let there =
                        base.iter().find(|(at, _)| at == n).map_or(0, |(_, data)| data.len());
                    if there < must {
                        let what = format!("chunk {n} is {there} bytes instead of {must}");
                        return self.broken(&writing, &what);
                    }
                }
                self.put(writing, batch, base, false, cx)
            }
            Stage::Putting { .. } => {
                if writing.touched(writing.next).is_some() {
                    return self.next_batch(writing, cx);
                }
                // The document that reveals them must have been there.
                if !writing.staged && replies.last().is_none_or(|reply| reply.count() != 1) {
                    writing.attempts += 1;
                    if !writing.grows() || writing.attempts > ATTEMPTS {
                        return Step::Fail(self.vanished(writing.ino, "writing"));
                    }
                    // Another writer was faster, or took this one for dead.
                    writing.next = 0;
                    return self.next_batch(writing, cx);
                }
                self.written(writing, cx)
            }
            Stage::Cutting => {
                let docs: Vec<Doc> = replies.iter().flat_map(|reply| reply.batch().0).collect();
                let keep = (writing.new.length % u64::from(writing.new.chunk)) as usize;
                let last = chunks_of(&docs).ok().and_then(|it| it.into_iter().next());
                let Some((_, data)) = last.filter(|(_, data)| data.len() >= keep) else {
                    return self.broken(&writing, "the chunk to cut is missing or short");
                };
                let commands = self.trim(&writing, Some(data.slice(..keep)));
                writing.stage = Stage::Trimming;
                self.send(writing, commands, self.several())
            }
            Stage::Trimming => {
                if !writing.staged && replies.first().is_none_or(|reply| reply.count() != 1) {
                    return Step::Done(Outcome::Conflict);
                }
                self.written(writing, cx)
            }
            Stage::Asking => {
                let old = replies.first().and_then(|reply| reply.batch().0.into_iter().next());
                match old {
                    Some(old) => self.publish(writing, &old, cx),
                    None => Step::Fail(self.vanished(writing.ino, "writing")),
                }
            }
            Stage::Publishing { old } => {
                if replies.last().is_none_or(|reply| reply.count() != 2) {
                    let there = replies.first().is_some_and(|it| !it.batch().0.is_empty());
                    if !there && writing.attempts > 1 {
                        return self.taken_for_dead(writing);
                    }
                    return self.ask_old(writing);
                }
                match self.options.keep_revisions {
                    0 => self.live.reclaim_later(old, cx.now.mono),
                    _ => self.live.keep(old, writing.ino),
                }
                self.published(writing)
            }
        }
    }

    fn broken(&self, writing: &Writing, what: &str) -> Step<Self> {
        let path = self.describe(writing.ino);
        let text = format!("{path}: {}: {what}; nothing was written", writing.id.show());
        Step::Fail(Failure { errno: Errno::EIO, text: Some(text) })
    }

    /// All chunks are there, and the length that reveals them if readers see it.
    fn written(&mut self, writing: Writing, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.live.wrote(writing.token, cx.now.mono);
        if !writing.staged {
            self.acknowledged(writing.ino, writing.token);
        }
        if let Some(node) = self.tree.get_mut(writing.ino) {
            node.unpin();
            match &mut node.staged {
                Some(staged) if writing.staged => staged.content = writing.new,
                _ => {
                    node.content = Ok(writing.new);
                    writing.attrs.apply_to(&mut node.attr);
                }
            }
            node.attr.size = writing.new.length;
        }
        if let Some((plan, _)) = &writing.plan {
            let attrs = plan.changes.iter().find_map(|change| match change {
                Change::SetAttr { ino, patch } => Some((*ino, *patch)),
                _ => None,
            });
            if let Some((ino, patch)) = attrs
                && let Some(node) = self.tree.get_mut(ino)
            {
                patch.apply_to(&mut node.attr);
            }
            return Step::Done(Outcome::Applied(crate::decide::Facts::new()));
        }
        if writing.staged && writing.publish {
            return self.ask_old(writing);
        }
        let published = !writing.staged;
        Step::Done(Outcome::Wrote { size: writing.new.length, published })
    }
}

impl Writing {
    pub(super) fn ino(&self) -> Ino {
        self.ino
    }

    fn patch(&self) -> Patch {
        let plan = self.plan.as_ref().map(|(plan, _)| &plan.changes);
        let patches = plan.into_iter().flatten().filter_map(|change| match change {
            Change::SetAttr { ino, patch } if *ino == self.ino => Some(*patch),
            _ => None,
        });
        patches.last().unwrap_or(self.attrs)
    }

    /// Nothing but attributes.
    fn is_bare(&self) -> bool {
        self.extents.is_empty() && !self.replace && self.plan.is_none()
    }

    /// Chunks are there before the length that reveals them.
    fn grows(&self) -> bool {
        !self.staged && self.new.length > self.old.length
    }

    /// The first chunk from `from` on that must be written: one with new bytes, or one that the
    /// file grows through.
    fn touched(&self, from: u64) -> Option<u64> {
        let chunk = u64::from(self.new.chunk);
        let by_data =
            self.extents.iter().filter(|(_, data)| !data.is_empty()).find_map(|(at, data)| {
                let last = (at + data.len() as u64 - 1) / chunk;
                (last >= from).then(|| from.max(at / chunk))
            });
        let grown = from.max(self.old.length / chunk);
        let by_growth =
            (self.new.length > self.old.length && grown < self.new.chunks()).then_some(grown);
        [by_data, by_growth].into_iter().flatten().min()
    }

    /// The extent that holds all of a chunk.
    fn covering(&self, n: u64) -> Option<Bytes> {
        let from = n * u64::from(self.new.chunk);
        let len = self.new.chunk_len(n) as u64;
        let (at, data) = self.extents.iter().rev().find(|(at, _)| *at <= from)?;
        let skip = from - at;
        (skip + len <= data.len() as u64).then(|| data.slice(skip as usize..(skip + len) as usize))
    }

    /// What a chunk is to hold: a slice of what was written where that is all of it.
    fn compose(&self, n: u64, base: Option<&Bytes>) -> Bytes {
        if let Some(whole) = self.covering(n) {
            return whole;
        }
        let from = n * u64::from(self.new.chunk);
        let mut data = alloc::vec![0; self.new.chunk_len(n)];
        if let Some(base) = base {
            let kept = base.len().min(self.old.chunk_len(n)).min(data.len());
            data[..kept].copy_from_slice(&base[..kept]);
        }
        let end = from + data.len() as u64;
        for (at, bytes) in &self.extents {
            let (start, stop) = ((*at).max(from), (at + bytes.len() as u64).min(end));
            if start < stop {
                data[(start - from) as usize..(stop - from) as usize]
                    .copy_from_slice(&bytes[(start - at) as usize..(stop - at) as usize]);
            }
        }
        Bytes::from(data)
    }
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
