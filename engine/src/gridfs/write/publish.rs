//! A new revision of a file: written aside, then put in the place of the old one in one step.

use alloc::format;

use crate::backend::bson::{Doc, DocBuf, Value};
use crate::backend::mongo::{Command, Expect, Mongo};
use crate::contract::Mode;
use crate::engine::Cx;
use crate::errno::Errno;
use crate::layout::{Failure, Layout, Outcome, Step};
use crate::time::Wall;

use super::super::document::{Id, number, write_token};
use super::super::{GridFs, OURS, ours, statement};
use super::{ATTEMPTS, Stage, Writing};

impl GridFs {
    /// Chunks of a revision that is not there yet belong to this.
    pub(super) fn placeholder(&self, writing: &Writing, at: Wall) -> Command {
        self.update(|it| {
            it.begin("q");
            writing.id.write("_id", it);
            it.end().begin("u").begin("$setOnInsert");
            it.i64("length", 0).i32("chunkSize", writing.new.chunk as i32);
            it.begin("metadata").begin("dbmount").i32("v", 1).begin("gone");
            it.i64("s", self.session as i64).i64("t", at.0.div_euclid(1_000_000));
            it.end().end().end().end().end().bool("upsert", true);
        })
        .expecting(Expect::Count(1))
    }

    pub(super) fn ask_old(&mut self, mut writing: Writing) -> Step<Self> {
        writing.attempts += 1;
        if writing.attempts > ATTEMPTS {
            let text = format!("{}: others keep changing it", self.describe(writing.ino));
            return Step::Fail(Failure { errno: Errno::EBUSY, text: Some(text) });
        }
        let mut find = self.files("find");
        find.body().begin("filter").i64(&ours("ino"), writing.ino.0 as i64).end();
        find.body().i32("limit", 1).bool("singleBatch", true);
        writing.stage = Stage::Asking;
        self.send(writing, alloc::vec![find], Mode::Ordered)
    }

    /// The new revision takes the inode and its names, and everything else that is not contents.
    pub(super) fn publish(
        &mut self,
        mut writing: Writing,
        old: &Doc,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let id = old.get("_id").as_ref().and_then(Id::of);
        let metadata = old.get("metadata").and_then(|it| it.as_doc().cloned());
        let inode = metadata.as_ref().and_then(|it| it.get("dbmount")?.as_doc().cloned());
        let (Some(id), Some(metadata), Some(inode)) = (id, metadata, inode) else {
            return Step::Fail(self.vanished(writing.ino, "writing"));
        };
        if id == writing.id {
            // It had been published, and the reply was lost.
            return self.published(writing);
        }
        let uploaded = match old.get("uploadDate") {
            Some(Value::DateTime(at)) => at.saturating_add(1),
            _ => i64::MIN,
        };
        // Its names or owner may have changed since it was written.
        let changed = inode.get("ctime").as_ref().and_then(number).unwrap_or(i64::MIN);
        let uploaded = uploaded.max(writing.mtime.0.div_euclid(1_000_000));
        let retire = statement(|it| {
            it.begin("q");
            id.write("_id", it);
            it.i64(&ours("ino"), writing.ino.0 as i64);
            if let Some(writer) = inode.get("w") {
                it.value(&ours("w"), &writer);
            }
            it.end().begin_array("u").begin("0").begin("$set").begin("metadata");
            it.begin_array("$mergeObjects").str("0", "$metadata").begin("1").begin("dbmount");
            it.i32("v", 1).begin("gone").i64("s", self.session as i64);
            it.i64("t", self.lease_clock(cx.now.mono).0.div_euclid(1_000_000));
            it.i64("for", writing.ino.0 as i64).str("was", format!("${OURS}"));
            it.end().end().end().end().end().end().end().end();
        });
        let enter = statement(|it| {
            it.begin("q");
            writing.id.write("_id", it);
            if self.transactions {
                it.begin(&ours("gone")).bool("$exists", true).end();
            }
            it.end().begin("u");
            writing.id.write("_id", it);
            it.i64("length", writing.new.length as i64).i32("chunkSize", writing.new.chunk as i32);
            it.date_time("uploadDate", uploaded);
            GridFs::write_kept(old, it);
            it.begin("metadata");
            copy_but(&metadata, &["dbmount"], it);
            it.begin("dbmount");
            let attrs = &writing.attrs;
            let set = [
                ("mode", attrs.perm.map(i64::from)),
                ("uid", attrs.uid.map(i64::from)),
                ("gid", attrs.gid.map(i64::from)),
                ("atime", attrs.atime.map(|it| it.0)),
                ("mtime", Some(attrs.mtime.unwrap_or(writing.mtime).0)),
                ("ctime", Some(attrs.ctime.unwrap_or(writing.mtime).0.max(changed))),
            ];
            let set = set.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
            let mut left_out = alloc::vec!["w", "revs", "turn"];
            left_out.extend(set.clone().map(|(name, _)| name));
            copy_but(&inode, &left_out, it);
            for (name, value) in set {
                it.i64(name, value);
            }
            if self.options.keep_revisions > 0 || inode.get("revs").is_some() {
                it.bool("revs", true);
            }
            write_token("w", writing.token, it);
            it.end().end().end().bool("upsert", !self.transactions);
        });
        let command = self.updates(self.files("update"), alloc::vec![retire, enter]);
        let mut commands = alloc::vec![command.expecting(Expect::Count(2))];
        // Who took this writer for dead has removed the chunks.
        let mut alive = self.files("find");
        alive.body().begin("filter");
        writing.id.write("_id", alive.body());
        alive.body().begin(&ours("gone")).bool("$exists", true).end().end();
        alive.body().begin("projection").i32("_id", 1).end().i32("limit", 1);
        alive.body().bool("singleBatch", true);
        // In a transaction it would be undone with the rest; why is asked the second time only.
        if !self.transactions || writing.attempts > 1 {
            commands.insert(0, alive.expecting(Expect::Found(1)));
        }
        writing.stage = Stage::Publishing { old: id };
        self.send(writing, commands, self.several())
    }

    pub(super) fn published(&mut self, writing: Writing) -> Step<Self> {
        if let Some(node) = self.tree.get_mut(writing.ino) {
            node.staged = None;
            // What this mount writes, its own readers see.
            node.unpin();
            node.content = Ok(writing.new);
            writing.attrs.apply_to(&mut node.attr);
            node.revisions |= self.options.keep_revisions > 0;
        }
        self.tree.set_id(writing.ino, &writing.id);
        self.acknowledged(writing.ino, writing.token);
        Step::Done(Outcome::Wrote { size: writing.new.length, published: true })
    }

    /// The revision that was being written is gone.
    pub(super) fn taken_for_dead(&mut self, writing: Writing) -> Step<Self> {
        if let Some(node) = self.tree.get_mut(writing.ino) {
            node.staged = None;
        }
        let text = format!(
            "{}: this mount was away for so long that another removed what it was writing",
            self.describe(writing.ino)
        );
        Step::Fail(Failure { errno: Errno::EIO, text: Some(text) })
    }
}

/// Fields of a document but for these.
fn copy_but(doc: &Doc, left_out: &[&str], body: &mut DocBuf) {
    for element in doc {
        let Ok(name) = core::str::from_utf8(element.name) else { continue };
        if !left_out.contains(&name) {
            body.value(name, &element.value);
        }
    }
}
