//! `filename`s below a directory that was renamed: one inode after the other, as a name made
//! meanwhile at the old path is none of them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::backend::bson::DocBuf;
use crate::backend::mongo::{Command, Reply};
use crate::id::Ino;
use crate::op::Kind;

use super::super::document::{FileDoc, Id, Link, Whose, write_link, write_text};
use super::super::{GridFs, ours, statement};

/// Documents of one page.
const PAGE: i64 = 1000;

/// A tree whose files get the `filename`s of their paths.
#[derive(Clone, Debug)]
pub struct Walk {
    root: Ino,
    /// Directories below it that were found and not looked into yet, with their paths.
    dirs: VecDeque<(Ino, Vec<u8>)>,
    /// The one that is being looked into, and the cursor on it.
    dir: (Ino, Vec<u8>),
    cursor: i64,
    /// The first reply is to updates.
    updated: bool,
    /// Only the mark is left to be taken away.
    done: bool,
}

impl GridFs {
    /// The first page of a walk; `None` when the directory has no path any more.
    pub(super) fn start_repath(&self, root: Ino) -> Option<(Vec<Command>, Walk)> {
        let node = self.tree.get(root).filter(|node| !node.gone)?;
        let path = self.tree.filename(node.parent, &node.name)?;
        let walk = Walk {
            root,
            dirs: VecDeque::new(),
            dir: (root, path),
            cursor: 0,
            updated: false,
            done: false,
        };
        Some((alloc::vec![self.ask_children(root)], walk))
    }

    fn ask_children(&self, dir: Ino) -> Command {
        let mut find = self.files("find");
        let body = find.body();
        body.begin("filter").i64(&ours("links.p"), dir.0 as i64).end();
        body.begin("projection").i32(&ours("xattrs"), 0).i32(&ours("target"), 0).end();
        body.i64("batchSize", PAGE);
        find
    }

    /// Takes a page in, and asks for the next.
    pub(super) fn repathed(
        &self,
        mut walk: Walk,
        replies: &[Reply],
    ) -> Option<(Vec<Command>, Walk)> {
        if walk.done {
            return None;
        }
        let (docs, cursor) =
            replies.get(usize::from(walk.updated)).map(Reply::batch).unwrap_or_default();
        let mut statements: Vec<DocBuf> = Vec::new();
        let (dir, path) = &walk.dir;
        for doc in &docs {
            let Ok(FileDoc { id, filename, whose: Whose::Ours(inode), .. }) = FileDoc::parse(doc)
            else {
                continue;
            };
            // The first name of a file is the one that it has as its `filename`.
            let Some(first) = inode.links.first().filter(|link| link.parent == *dir) else {
                continue;
            };
            let here = [path, &b"/"[..], first.name.as_bytes()].concat();
            match inode.attr.kind {
                Kind::Dir => walk.dirs.push_back((inode.attr.ino, here)),
                Kind::File if filename.as_ref() != Some(&here) => {
                    statements.push(rename_file(&id, first, &here));
                    if inode.revisions {
                        statements.push(rename_kept(inode.attr.ino, &here));
                    }
                }
                _ => {}
            }
        }
        walk.updated = !statements.is_empty();
        let mut commands = Vec::new();
        if walk.updated {
            commands.push(self.updates(self.files("update"), statements));
        }
        if cursor != 0 {
            commands.push(self.scan_more(cursor));
        } else if let Some((dir, path)) = walk.dirs.pop_front() {
            commands.push(self.ask_children(dir));
            walk.dir = (dir, path);
        } else {
            walk.done = true;
            let root = walk.root;
            commands.push(self.update(|it| {
                it.begin("q").i64(&ours("ino"), root.0 as i64).end();
                it.begin("u").begin("$unset").str(&ours("moved"), "").end().end();
            }));
        }
        walk.cursor = cursor;
        Some((commands, walk))
    }
}

/// Nothing happens to a file that has moved on.
fn rename_file(id: &Id, first: &Link, filename: &[u8]) -> DocBuf {
    statement(|it| {
        it.begin("q");
        id.write("_id", it);
        it.begin(&ours("links.0"));
        write_link(first, it);
        it.end().end().begin("u").begin("$set");
        write_text("filename", filename, it);
        it.end().end();
    })
}

fn rename_kept(ino: Ino, filename: &[u8]) -> DocBuf {
    statement(|it| {
        it.begin("q").i64(&ours("rev"), ino.0 as i64).end().begin("u").begin("$set");
        write_text("filename", filename, it);
        it.end().end().bool("multi", true);
    })
}
