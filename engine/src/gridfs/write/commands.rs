//! The commands that writing is made of: chunks, the length that reveals them, and the mark that
//! the two do not fit to each other for a moment.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::mongo::{Command, Expect, Mongo};
use crate::engine::Cx;
use crate::time::{Duration, Wall};

use super::super::document::{Id, write_token};
use super::super::{GridFs, ours, sequence, statement};
use super::Writing;

/// For how long a file that was made by this mount is trusted to be marked still: others take the
/// writer for dead after a minute.
const MARK_TRUST: Duration = Duration::from_secs(20);

impl GridFs {
    /// The length and the times; what a plan sets along with a length.
    pub(super) fn reveal(&self, writing: &Writing) -> Command {
        let patch = writing.patch();
        let shorter = writing.new.length < writing.old.length;
        // Where the mark is missing, who took this for dead has removed the chunks.
        let marked = writing.grows();
        self.update(|it| {
            it.begin("q");
            writing.id.write("_id", it);
            if marked {
                it.begin(&ours("wr")).bool("$exists", true).end();
            }
            it.end().begin("u").begin("$set");
            if shorter && !self.transactions {
                it.begin(&ours("wr")).i64("s", self.session as i64);
                it.i64("t", writing.mtime.0.div_euclid(1_000_000)).end();
            }
            if shorter {
                it.i64("length", writing.new.length as i64);
            }
            let written = Some(writing.mtime).filter(|_| !writing.is_bare());
            if let Some(mtime) = patch.mtime.or(written) {
                it.i64(&ours("mtime"), mtime.0);
            }
            for (field, value) in
                [("mode", patch.perm.map(u32::from)), ("uid", patch.uid), ("gid", patch.gid)]
            {
                if let Some(value) = value {
                    it.i64(&ours(field), i64::from(value));
                }
            }
            if let Some(at) = patch.atime {
                it.i64(&ours("atime"), at.0);
            }
            write_token(&ours("w"), writing.token, it);
            it.end().begin("$max");
            if !shorter {
                it.i64("length", writing.new.length as i64);
            }
            it.i64(&ours("ctime"), patch.ctime.unwrap_or(writing.mtime).0);
            it.end();
            // Old drivers wrote a checksum, which is not that of the contents any more.
            it.begin("$unset").str("md5", "");
            if marked {
                it.str(&ours("wr"), "");
            }
            it.end().end();
        })
        .expecting(Expect::Count(1))
    }

    /// Makes a file shorter: the length, the last chunk, and those behind it.
    pub(super) fn trim(&self, writing: &Writing, last: Option<Bytes>) -> Vec<Command> {
        let mut commands = Vec::new();
        if !writing.staged {
            commands.push(self.reveal(writing));
        }
        let kept = writing.new.chunks();
        if let Some(data) = last {
            commands.push(self.cut_chunk(&writing.id, kept.saturating_sub(1), data));
        }
        commands.push(self.delete_chunks(&writing.id, kept));
        if !writing.staged && !self.transactions {
            commands.push(self.unmark(&writing.id));
        }
        commands
    }

    /// The last chunk of a file that has become shorter.
    pub(in crate::gridfs) fn cut_chunk(&self, id: &Id, n: u64, data: Bytes) -> Command {
        let update = statement(|it| {
            it.begin("q");
            id.write("files_id", it);
            it.i32("n", n as i32).end();
            it.begin("u").begin("$set").binary("data", 0, data).end().end();
        });
        self.updates(self.chunks("update"), alloc::vec![update]).expecting(Expect::Success)
    }

    /// Chunks from `kept` on.
    pub(in crate::gridfs) fn delete_chunks(&self, id: &Id, kept: u64) -> Command {
        let mut delete = self.chunks("delete");
        let behind = statement(|it| {
            it.begin("q");
            id.write("files_id", it);
            it.begin("n").i64("$gte", kept as i64).end().end().i32("limit", 0);
        });
        sequence(&mut delete, "deletes", alloc::vec![behind]);
        delete.concern = self.concern;
        delete.expecting(Expect::Success)
    }

    /// Says that chunks and length do not fit to each other for a moment: who finds this long
    /// after knows that the writer died.
    pub(super) fn mark(&self, id: &Id, at: Wall) -> Command {
        self.update(|it| {
            it.begin("q");
            id.write("_id", it);
            it.end().begin("u").begin("$set").begin(&ours("wr")).i64("s", self.session as i64);
            it.i64("t", at.0.div_euclid(1_000_000)).end().end().end();
        })
    }

    /// Whether the document has been marked since the file was made, not long ago. It is so once:
    /// the length takes the mark away.
    pub(super) fn is_marked(&mut self, writing: &Writing, cx: &Cx<Mongo>) -> bool {
        let node = self.tree.get_mut(writing.ino).filter(|_| writing.attempts == 0);
        let since = node.and_then(|node| node.marked.take());
        since.is_some_and(|since| cx.now.mono.since(since) < MARK_TRUST)
    }

    pub(super) fn unmark(&self, id: &Id) -> Command {
        self.update(|it| {
            it.begin("q");
            id.write("_id", it);
            it.end().begin("u").begin("$unset").str(&ours("wr"), "").end().end();
        })
    }
}
