//! What must go, and what crashed mounts and servers left behind: documents without names, names
//! that were taken and not given on, `filename`s below renamed directories.

use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::{Doc, DocBuf, Value};
use crate::backend::mongo::{Command, Expect, Mongo, Reply};
use crate::contract::Level;
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::Work;

use super::super::document::{FileDoc, Id, Whose, write_text};
use super::super::{GridFs, Ticket, ours, sequence, statement};
use super::{ASIDE, Aside, GONE_LEASE, RECLAIM, Task};

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
        let held: Vec<Ino> = self.live.held.iter().copied().collect();
        if held.is_empty() {
            self.live.next_heartbeat = None;
            return None;
        }
        self.live.next_heartbeat = Some(cx.now.mono.after(GONE_LEASE / 3));
        let alive = statement(|it| {
            it.begin("q").begin(&ours("ino")).begin_array("$in");
            for (n, ino) in held.iter().enumerate() {
                it.i64(&format!("{n}"), ino.0 as i64);
            }
            it.end().end().begin(&ours("gone")).bool("$exists", true).end().end();
            it.begin("u").begin("$set");
            it.i64(&ours("gone.t"), cx.now.wall.0.div_euclid(1_000_000));
            it.end().end().bool("multi", true);
        });
        let command = self.updates(self.files("update"), alloc::vec![alive]);
        Some((Lane::Meta, alloc::vec![command], Task::Housekeeping))
    }

    /// What crashed mounts left behind.
    pub(super) fn sweep(&self, cx: &Cx<Mongo>) -> Vec<Command> {
        let before = gone_before(cx);
        let mut gone = self.files("find");
        gone.body().begin("filter").begin(&ours("gone.t")).i64("$lt", before).end();
        // What stepped aside for another is judged first, see `restore`.
        gone.body().null(&ours("gone.for")).end();
        gone.body().begin("projection").i32("_id", 1).i32(&ours("gone"), 1).end();
        gone.body().i32("limit", RECLAIM as i32).bool("singleBatch", true);
        let mut moved = self.files("find");
        moved.body().begin("filter").begin(&ours("moved")).bool("$exists", true).end().end();
        moved.body().begin("projection").i32(&ours("xattrs"), 0).end();
        moved.body().i32("limit", RECLAIM as i32).bool("singleBatch", true);
        let mut aside = self.files("find");
        let before = before + (GONE_LEASE - ASIDE).as_millis() as i64;
        aside.body().begin("filter").begin(&ours("gone.t")).i64("$lt", before).end();
        aside.body().begin(&ours("gone.for")).bool("$exists", true).end().end();
        aside.body().begin("projection").i32("_id", 1).i32(&ours("gone"), 1).end();
        aside.body().i32("limit", RECLAIM as i32).bool("singleBatch", true);
        alloc::vec![gone, moved, aside]
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
            self.live.swept = false;
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
            let Some(attr) = self.see(doc, None, cx) else { continue };
            let old = doc.get("metadata").and_then(|it| {
                match it.as_doc()?.get("dbmount")?.as_doc()?.get("moved")? {
                    Value::Str(path) => Some(path.to_vec()),
                    _ => None,
                }
            });
            let node = self.tree.get(attr.ino);
            let new = node.and_then(|node| self.tree.filename(node.parent, &node.name));
            if let (Some(old), Some(new)) = (old, new) {
                self.live.repath(attr.ino, old, new);
            }
        }
    }

    /// One pipeline update for every `filename` below a directory that was renamed, whoever's
    /// the files are; then the mark is taken away.
    pub(super) fn repath(&self, ino: Ino, old: &[u8], new: &[u8]) -> Vec<Command> {
        let prefix = [old, b"/"].concat();
        let after = [old, b"0"].concat();
        let below = statement(|it| {
            it.begin("q").begin("filename");
            write_text("$gte", &prefix, it);
            write_text("$lt", &after, it);
            it.end().end().begin_array("u").begin("0").begin("$set").begin("filename");
            it.begin_array("$concat").begin("0");
            write_text("$literal", new, it);
            it.end().begin("1").begin_array("$substrBytes").str("0", "$filename");
            it.i64("1", old.len() as i64).i32("2", -1).end().end();
            it.end().end().end().end().end().bool("multi", true);
        });
        let done = self.update(|it| {
            it.begin("q").i64(&ours("ino"), ino.0 as i64);
            write_text(&ours("moved"), old, it);
            it.end().begin("u").begin("$unset").str(&ours("moved"), "").end().end();
        });
        let below = self.updates(self.files("update"), alloc::vec![below]);
        alloc::vec![below.expecting(Expect::Success), done]
    }
}

fn write_ids(field: &str, ids: &[Id], body: &mut DocBuf) {
    body.begin(field).begin_array("$in");
    for (n, id) in ids.iter().enumerate() {
        id.write(&format!("{n}"), body);
    }
    body.end().end();
}

/// Who was gone before this, in milliseconds, is held by nobody any more.
pub(super) fn gone_before(cx: &Cx<Mongo>) -> i64 {
    cx.now.wall.0.div_euclid(1_000_000) - GONE_LEASE.as_millis() as i64
}
