//! What must go, and what crashed mounts and servers left behind: documents without names, names
//! that were taken and not given on, `filename`s below renamed directories.

use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::{Doc, DocBuf, Value};
use crate::backend::mongo::{Command, Expect, Mongo, Reply};
use crate::contract::Level;
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::Work;
use crate::time::Mono;

use super::super::data::chunks_of;
use super::super::document::{Content, FileDoc, Id, Whose, write_text, write_token};
use super::super::write::WRITE_TOKEN;
use super::super::{GridFs, OURS, Ticket, ours, sequence, statement};
use super::{ASIDE, Aside, GONE_LEASE, MARK_LEASE, MARKS, RECLAIM, Task, WRITE_LEASE};

impl GridFs {
    /// Asks which of these documents are gone indeed: nothing else is ever removed.
    pub(in crate::gridfs) fn ask_gone(&self, ids: &[Id]) -> Command {
        let mut find = self.files("find");
        let body = find.body();
        body.begin("filter");
        write_ids("_id", ids, body);
        body.begin(&ours("gone")).bool("$exists", true).end().end();
        body.begin("projection").i32("_id", 1).end();
        body.i64("batchSize", ids.len() as i64 + 1).bool("singleBatch", true);
        find
    }

    /// Removes what [`ask_gone`](Self::ask_gone) has found: chunks first, so that none is ever
    /// without a document.
    pub(in crate::gridfs) fn removal(&self, found: &Reply) -> Vec<Command> {
        let docs = found.batch().0;
        let ids: Vec<Id> =
            docs.iter().filter_map(|doc| doc.get("_id").as_ref().and_then(Id::of)).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let mut chunks = self.chunks("delete");
        let all = statement(|it| {
            it.begin("q");
            write_ids("files_id", &ids, it);
            it.end().i32("limit", 0);
        });
        sequence(&mut chunks, "deletes", alloc::vec![all]);
        chunks.concern = self.concern;
        let mut files = self.files("delete");
        let these = statement(|it| {
            it.begin("q");
            write_ids("_id", &ids, it);
            it.begin(&ours("gone")).bool("$exists", true).end().end().i32("limit", 0);
        });
        sequence(&mut files, "deletes", alloc::vec![these]);
        files.concern = self.concern;
        alloc::vec![chunks.expecting(Expect::Success), files]
    }

    pub(super) fn heartbeat(&mut self, cx: &Cx<Mongo>) -> Option<(Lane, Vec<Command>, Task)> {
        let tree = &self.tree;
        self.live.held.retain(|ino| cx.is_open(*ino) && tree.get(*ino).is_some_and(|it| it.gone));
        self.live.staging.retain(|ino| tree.get(*ino).is_some_and(|it| it.staged.is_some()));
        let id = |ino: &Ino| match tree.get(*ino)? {
            node if node.gone => node.id.clone(),
            node => node.staged.as_ref().map(|staged| staged.id.clone()),
        };
        let held = self.live.held.iter().chain(&self.live.staging);
        let held: Vec<Id> = held.filter_map(id).collect();
        if held.is_empty() {
            self.live.next_heartbeat = None;
            return None;
        }
        self.live.next_heartbeat = Some(cx.now.mono.after(GONE_LEASE / 3));
        let alive = statement(|it| {
            it.begin("q");
            write_ids("_id", &held, it);
            it.begin(&ours("gone")).bool("$exists", true).end().end();
            it.begin("u").begin("$set");
            it.i64(&ours("gone.t"), self.lease_clock(cx.now.mono).0.div_euclid(1_000_000));
            it.end().end().bool("multi", true);
        });
        let command = self.updates(self.files("update"), alloc::vec![alive]);
        Some((Lane::Meta, alloc::vec![command], Task::Housekeeping))
    }

    /// Files that were made a while ago and not written are not being written, for all that others
    /// need to know. The token is for nothing but to tell this from changes by others.
    pub(super) fn unmark_idle(&mut self, now: Mono) -> Option<Command> {
        let many = self.live.marked.len() > MARKS;
        let (oldest, _) = self.live.marked.front()?;
        let due = many || oldest.after(MARK_LEASE) <= now;
        due.then(|| self.unmark_all())?
    }

    pub(in crate::gridfs) fn unmark_all(&mut self) -> Option<Command> {
        let all = core::mem::take(&mut self.live.marked);
        let idle = |(_, ino): (Mono, Ino)| match self.tree.get_mut(ino) {
            Some(node) => node.marked.take().map(|_| ino),
            None => Some(ino),
        };
        let idle: Vec<Ino> = all.into_iter().filter_map(idle).collect();
        if idle.is_empty() {
            return None;
        }
        let token = Token { session: self.session, serial: self.next_serial() | WRITE_TOKEN };
        let unmark = statement(|it| {
            it.begin("q").begin(&ours("ino")).begin_array("$in");
            for (n, ino) in idle.iter().enumerate() {
                it.i64(&format!("{n}"), ino.0 as i64);
            }
            it.end().end().i64(&ours("wr.s"), self.session as i64).end();
            it.begin("u").begin("$unset").str(&ours("wr"), "").end().begin("$set");
            write_token(&ours("w"), token, it);
            it.end().end().bool("multi", true);
        });
        Some(self.updates(self.files("update"), alloc::vec![unmark]))
    }

    /// Who was gone before this, in milliseconds, is held by nobody any more.
    pub(super) fn gone_before(&self, now: Mono) -> i64 {
        self.lease_clock(now).0.div_euclid(1_000_000) - GONE_LEASE.as_millis() as i64
    }

    /// What crashed mounts left behind.
    pub(super) fn sweep(&self, cx: &Cx<Mongo>) -> Vec<Command> {
        let before = self.gone_before(cx.now.mono);
        let mut gone = self.files("find");
        gone.body().begin("filter").begin(&ours("gone.t")).i64("$lt", before).end();
        // What stepped aside for another is judged first, see `restore`.
        gone.body().null(&ours("gone.for")).end();
        gone.body().begin("projection").i32("_id", 1).i32(&ours("gone"), 1).end();
        gone.body().i32("limit", RECLAIM as i32);
        let mut moved = self.files("find");
        moved.body().begin("filter").begin(&ours("moved")).bool("$exists", true).end().end();
        moved.body().begin("projection").i32(&ours("xattrs"), 0).end();
        moved.body().i32("limit", RECLAIM as i32);
        let mut aside = self.files("find");
        let before = before + (GONE_LEASE - ASIDE).as_millis() as i64;
        aside.body().begin("filter").begin(&ours("gone.t")).i64("$lt", before).end();
        aside.body().begin(&ours("gone.for")).bool("$exists", true).end().end();
        aside.body().begin("projection").i32("_id", 1).i32(&ours("gone"), 1).end();
        aside.body().i32("limit", RECLAIM as i32);
        let mut half = self.files("find");
        let now = self.lease_clock(cx.now.mono);
        let before = now.0.div_euclid(1_000_000) - WRITE_LEASE.as_millis() as i64;
        half.body().begin("filter").begin(&ours("wr.t")).i64("$lt", before).end().end();
        half.body().begin("projection").i32("length", 1).i32("chunkSize", 1).i32(&ours("wr"), 1);
        half.body().end().i32("limit", RECLAIM as i32);
        let mut asked = alloc::vec![gone, moved, aside, half];
        for find in &mut asked {
            // Without a size, the only batch ends after 101 documents.
            find.body().i32("batchSize", RECLAIM as i32).bool("singleBatch", true);
        }
        asked
    }

    /// Asks for the inodes for which documents stepped aside.
    pub(super) fn ask_restore(&self, replies: &[Reply]) -> Option<Work<Self>> {
        let docs = replies.get(2).map(|reply| reply.batch().0).unwrap_or_default();
        let mut aside = Vec::new();
        let mut commands = Vec::new();
        for doc in &docs {
            let id = doc.get("_id").as_ref().and_then(Id::of);
            let gone = doc.get("metadata").and_then(|it| {
                it.as_doc()?.get("dbmount")?.as_doc()?.get("gone")?.as_doc().cloned()
            });
            let (Some(id), Some(gone)) = (id, gone) else { continue };
            let Some(ino) = gone.get("for").and_then(|it| it.as_i64()) else { continue };
            commands.push(self.find(1, |it| {
                it.i64(&ours("ino"), ino);
            }));
            aside.push(Aside { id, gone });
        }
        let ticket = Ticket::Task(Task::Restore(aside));
        (!commands.is_empty()).then(|| Self::work(Lane::Bulk, commands, ticket))
    }

    /// Gives back what a server took away and did not replace before it crashed: a revision whose
    /// inode nobody has, a name whose new owner still has its old one.
    /// What did come is reclaimed like all that is gone.
    pub(super) fn restore(
        &mut self,
        aside: &[Aside],
        replies: &[Reply],
        before: i64,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        for (Aside { id, gone }, reply) in aside.iter().zip(replies) {
            let restores = commands.len();
            let there = reply.batch().0.into_iter().next();
            let text = |doc: &Doc, name: &str| match doc.get(name) {
                Some(Value::Str(it)) => Some(it.to_vec()),
                Some(Value::Binary { data, .. }) => Some(data.to_vec()),
                _ => None,
            };
            let link = |doc: &Doc| Some((doc.get("p")?.as_i64()?, text(doc, "n")?));
            let matching = |it: &mut DocBuf| {
                it.begin("q");
                id.write("_id", it);
                it.begin(&ours("gone.for")).bool("$exists", true).end().end();
            };
            match (gone.get("was"), there) {
                (Some(Value::Document(was)), None) => commands.push(self.update(|it| {
                    matching(it);
                    it.begin_array("u").begin("0").begin("$set").begin("metadata");
                    it.begin_array("$mergeObjects").str("0", "$metadata").begin("1");
                    it.begin("dbmount").doc("$literal", &was).end().end().end().end();
                    it.end().end().end();
                })),
                (None, Some(there)) => {
                    let from = gone.get("from").and_then(|it| link(it.as_doc()?));
                    // What cannot be read is not judged.
                    let Some(place) = link(gone) else { continue };
                    let Ok(FileDoc { whose: Whose::Ours(inode), .. }) = FileDoc::parse(&there)
                    else {
                        continue;
                    };
                    let stayed = inode
                        .links
                        .iter()
                        .any(|it| Some((it.parent.0 as i64, it.name.as_bytes().to_vec())) == from);
                    if stayed {
                        commands.push(self.update(|it| {
                            matching(it);
                            it.begin("u").begin("$push").begin(&ours("links"));
                            it.i64("p", place.0);
                            write_text("n", &place.1, it);
                            it.end().end().begin("$unset").str(&ours("gone"), "").end();
                            if let Some(filename) = text(gone, "filename") {
                                it.begin("$set");
                                write_text("filename", &filename, it);
                                it.end();
                            }
                            it.end();
                        }));
                    }
                }
                _ => {}
            }
            let old = gone.get("t").and_then(|it| it.as_i64()).is_some_and(|at| at < before);
            if old && commands.len() == restores {
                self.live.reclaim(id.clone());
            }
        }
        commands
    }

    pub(super) fn swept(&mut self, replies: &[Reply], cx: &mut Cx<Mongo>) {
        let gone = replies.first().map(|reply| reply.batch().0).unwrap_or_default();
        if gone.len() >= RECLAIM {
            self.live.sweep_soon();
        }
        if !gone.is_empty() {
            cx.notice(Level::Info, format!("removing {} files that were unlinked", gone.len()));
        }
        for doc in &gone {
            if let Some(id) = doc.get("_id").as_ref().and_then(Id::of) {
                self.live.reclaim(id);
            }
        }
        let moved = replies.get(1).map(|reply| reply.batch().0).unwrap_or_default();
        for doc in &moved {
            if let Some(attr) = self.see(doc, None, cx) {
                self.live.repath(attr.ino);
            }
        }
    }

    /// Asks for the last chunks of files that a dead writer left half written: those that were
    /// appended are behind what the length says.
    pub(super) fn ask_dead(&self, replies: &[Reply]) -> Option<Work<Self>> {
        let docs = replies.get(3).map(|reply| reply.batch().0).unwrap_or_default();
        let files: Vec<HalfWritten> = docs.iter().filter_map(HalfWritten::of).collect();
        let last = |it: &HalfWritten| {
            let last = it.content.chunks().saturating_sub(1);
            self.find_chunks(&it.id, last, last)
        };
        let commands: Vec<Command> = files.iter().map(last).collect();
        let ticket = Ticket::Task(Task::Trim(files));
        (!commands.is_empty()).then(|| Self::work(Lane::Bulk, commands, ticket))
    }

    /// Cuts them to their lengths.
    pub(super) fn trim_dead(&self, files: &[HalfWritten], replies: &[Reply]) -> Vec<Command> {
        let mut commands = Vec::new();
        for (file, reply) in files.iter().zip(replies) {
            let kept = file.content.chunks();
            let must = file.content.chunk_len(kept.saturating_sub(1));
            let chunks = chunks_of(&reply.batch().0).unwrap_or_default();
            if let Some((n, data)) =
                chunks.first().filter(|(n, data)| n + 1 == kept && data.len() > must)
            {
                commands.push(self.cut_chunk(&file.id, *n, data.slice(..must)));
            }
            commands.push(self.delete_chunks(&file.id, kept));
            commands.push(self.update(|it| {
                it.begin("q");
                file.id.write("_id", it);
                it.i64("length", file.content.length as i64).doc(&ours("wr"), &file.mark);
                it.end().begin("u").begin("$unset").str(&ours("wr"), "").end().end();
            }));
        }
        commands
    }

    /// A revision that was replaced stays under its `filename`; then those that are too many.
    pub(super) fn keep(&self, id: &Id, of: Ino) -> Vec<Command> {
        let stay = self.update(|it| {
            it.begin("q");
            id.write("_id", it);
            it.begin(&ours("gone")).bool("$exists", true).end().end();
            it.begin("u").begin("$set").begin(OURS).i32("v", 1).i64("rev", of.0 as i64);
            it.end().end().end();
        });
        let mut outdated = self.files("find");
        let body = outdated.body();
        body.begin("filter").i64(&ours("rev"), of.0 as i64).end();
        body.begin("sort").i32("uploadDate", -1).end();
        body.i64("skip", i64::from(self.options.keep_revisions)).i32("limit", RECLAIM as i32);
        body.begin("projection").i32("_id", 1).end();
        body.i32("batchSize", RECLAIM as i32).bool("singleBatch", true);
        alloc::vec![stay.expecting(Expect::Success), outdated]
    }

    /// Gives up the revisions that are too many.
    pub(super) fn outdated(&mut self, replies: &[Reply]) -> Vec<Command> {
        let docs = replies.get(1).map(|reply| reply.batch().0).unwrap_or_default();
        let ids: Vec<Id> =
            docs.iter().filter_map(|doc| doc.get("_id").as_ref().and_then(Id::of)).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        for id in &ids {
            self.live.reclaim(id.clone());
        }
        let all = statement(|it| {
            it.begin("q");
            write_ids("_id", &ids, it);
            it.begin(&ours("rev")).bool("$exists", true).end().end();
            it.begin("u").begin("$set").begin(&ours("gone"));
            it.i64("s", self.session as i64).i64("t", 0).end().end();
            it.begin("$unset").str(&ours("rev"), "").end().end().bool("multi", true);
        });
        alloc::vec![self.updates(self.files("update"), alloc::vec![all])]
    }
}

/// A file whose writer died between its chunks and its length.
#[derive(Clone, Debug)]
pub struct HalfWritten {
    id: Id,
    content: Content,
    mark: Doc,
}

impl HalfWritten {
    fn of(doc: &Doc) -> Option<Self> {
        let file = FileDoc::parse(doc).ok()?;
        let ours = doc.get("metadata")?.as_doc()?.get("dbmount")?.as_doc()?.clone();
        let mark = ours.get("wr")?.as_doc()?.clone();
        Some(HalfWritten { id: file.id, content: file.content.ok()?, mark })
    }
}

fn write_ids(field: &str, ids: &[Id], body: &mut DocBuf) {
    body.begin(field).begin_array("$in");
    for (n, id) in ids.iter().enumerate() {
        id.write(&format!("{n}"), body);
    }
    body.end().end();
}
