//! Adoption: the first change to a file of another program makes it an inode, in place. The
//! directories that its name implies are stored along with it.

use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::DocBuf;
use crate::backend::mongo::{Command, Expect, Mongo, Reply};
use crate::decide::{Change, Check, Plan};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Token};
use crate::layout::{Failure, Layout};
use crate::op::Kind;

use super::document::{
    Id, Link, NewFile, VERSION, write_attr, write_link, write_text, write_token,
};
use super::{GridFs, OURS, ours, sequence, statement};

/// What is being adopted, in the order of the commands; `None` is a link count that follows.
#[derive(Clone, Debug)]
pub(super) struct Adopting {
    inos: Vec<Option<(Ino, Id)>>,
}

impl GridFs {
    /// The inodes of other programs that a plan changes or puts something into.
    pub(super) fn foreign_in(&self, plan: &Plan) -> Vec<Ino> {
        let mut inos = Vec::new();
        for check in &plan.checks {
            match check {
                Check::LiveDir(ino) | Check::Live(ino) | Check::Leads(_, _, ino) => inos.push(*ino),
                _ => {}
            }
        }
        for change in &plan.changes {
            match change {
                Change::Create { dir, .. } | Change::Touch { dir, .. } => inos.push(*dir),
                Change::SetAttr { ino, .. } | Change::Xattr { ino, .. } => inos.push(*ino),
                Change::Link { ino, dir, .. } => inos.extend([*ino, *dir]),
                Change::Unlink { dir, ino, .. } => inos.extend([*dir, *ino]),
                Change::Rename { dir, to_dir, ino, .. } => inos.extend([*dir, *to_dir, *ino]),
                Change::Exchange { a, b } => inos.extend([a.0, a.2, b.0, b.2]),
                // Not among the capabilities of this layout.
                Change::Zero { .. } | Change::Grow { .. } | Change::Copy { .. } => {}
            }
        }
        let foreign = |ino: &Ino| self.tree.get(*ino).is_some_and(|it| it.foreign.is_some());
        inos.retain(foreign);
        inos
    }

    /// The commands that adopt these inodes, directories above them first.
    pub(super) fn adopt(
        &mut self,
        inos: &[Ino],
        token: Token,
        cx: &mut Cx<Mongo>,
    ) -> Result<(Adopting, Vec<Command>), Failure> {
        let mut order: Vec<Ino> = Vec::new();
        for &ino in inos {
            let mut up = Vec::new();
            let mut at = ino;
            while let Some(node) = self.tree.get(at).filter(|node| node.foreign.is_some()) {
                if order.contains(&at) || up.contains(&at) {
                    break;
                }
                up.push(at);
                at = node.parent;
            }
            order.extend(up.into_iter().rev());
        }
        let mut adopting = Adopting { inos: Vec::new() };
        let mut commands = Vec::new();
        for ino in order {
            let Some(node) = self.tree.get(ino).cloned() else { continue };
            let link = Link { parent: node.parent, name: node.name.clone() };
            if node.attr.kind == Kind::Symlink && node.target.is_empty() {
                let text = format!("{}: read the link before changing it", self.describe(ino));
                return Err(Failure { errno: Errno::EIO, text: Some(text) });
            }
            let stored = node.foreign.as_ref().and_then(|(key, own)| {
                let entry = self.foreign.get(key)?;
                (*own || entry.kind() == node.attr.kind).then(|| entry.id.clone())
            });
            match stored {
                Some(id) => {
                    if let Some(over) = node.over {
                        let displaced = self.displace(over, &link, token, cx);
                        adopting.inos.extend(displaced.iter().map(|_| None));
                        commands.extend(displaced);
                    }
                    commands.push(self.adopt_file(&id, &node, &link, token));
                    adopting.inos.push(Some((ino, id)));
                }
                None => {
                    let id = self.new_id(cx.now.wall);
                    let new = NewFile {
                        id: &id,
                        attr: &node.attr,
                        link: Some(&link),
                        filename: None,
                        target: None,
                        chunk: self.options.chunk_size,
                        token,
                        writing: None,
                    };
                    let mut insert = self.files("insert");
                    sequence(&mut insert, "documents", alloc::vec![statement(|it| new.write(it))]);
                    insert.concern = self.concern;
                    insert.retryable = self.is_numbered();
                    commands.push(insert.expecting(Expect::Count(1)));
                    adopting.inos.push(Some((ino, id)));
                }
            }
            if node.attr.kind == Kind::Dir {
                commands.push(self.update(|it| {
                    it.begin("q").i64(&ours("ino"), node.parent.0 as i64).end();
                    it.begin("u").begin("$inc").i32(&ours("nlink"), 1).end().begin("$set");
                    write_token(&ours("w"), token, it);
                    it.end().end();
                }));
                adopting.inos.push(None);
            }
        }
        Ok((adopting, commands))
    }

    /// Takes a name from an inode of ours of which another program uploaded a newer revision. With
    /// its last name it goes, as when a file is renamed over it.
    fn displace(&self, ino: Ino, link: &Link, token: Token, cx: &Cx<Mongo>) -> Vec<Command> {
        let taken = |last: bool, it: &mut DocBuf| {
            it.begin("q").i64(&ours("ino"), ino.0 as i64).begin(&ours("links"));
            it.begin("$elemMatch");
            write_link(link, it);
            it.end();
            if last {
                it.i32("$size", 1);
            }
            it.end().end();
        };
        let last = self.update(|it| {
            taken(true, it);
            it.begin("u").begin("$set").begin_array(&ours("links")).end().begin(&ours("gone"));
            it.i64("s", self.session as i64)
                .i64("t", self.lease_clock(cx.now.mono).0.div_euclid(1_000_000))
                .end();
            write_token(&ours("w"), token, it);
            it.end().begin("$unset").str("filename", "").end().end();
        });
        let node = self.tree.get(ino);
        let other = node.and_then(|node| node.links.iter().find(|it| *it != link));
        let filename = other.and_then(|it| self.tree.filename(it.parent, &it.name));
        let one_of_several = self.update(|it| {
            taken(false, it);
            it.begin("u").begin("$pull").begin(&ours("links"));
            write_link(link, it);
            it.end().end().begin("$set");
            if let Some(filename) = &filename {
                write_text("filename", filename, it);
            }
            write_token(&ours("w"), token, it);
            it.end().end();
        });
        let mut commands = alloc::vec![last, one_of_several];
        if other.is_none() && node.is_some_and(|node| node.revisions) {
            commands.push(self.give_up_kept(ino));
        }
        commands.into_iter().map(|it| it.expecting(Expect::Success)).collect()
    }

    /// What [`displace`](Self::displace) has done.
    fn displaced(&mut self, ino: Ino, link: &Link, cx: &mut Cx<Mongo>) {
        let held = cx.is_open(ino);
        cx.invalidate_inode(ino);
        let Some(node) = self.tree.get_mut(ino) else { return };
        node.links.retain(|it| it != link);
        if let Some(other) = node.links.first() {
            (node.parent, node.name) = (other.parent, other.name.clone());
            return;
        }
        node.gone = true;
        node.attr.nlink = 0;
        let id = node.id.clone();
        match id {
            _ if held => self.live.hold(ino),
            Some(id) => self.live.reclaim_later(id, cx.now.mono),
            None => {}
        }
    }

    /// Puts `metadata.dbmount` into a document, beside whatever else is in its metadata. A
    /// pipeline, since metadata that is null or missing has no fields to set.
    fn adopt_file(&self, id: &Id, node: &super::tree::Node, link: &Link, token: Token) -> Command {
        let update = self.update(|it| {
            it.begin("q");
            id.write("_id", it);
            it.null(OURS).end();
            it.begin_array("u").begin("0").begin("$set").begin("metadata");
            it.begin_array("$mergeObjects").str("0", "$metadata").begin("1").begin("dbmount");
            it.begin("$literal").i32("v", VERSION as i32);
            // Numbers of implied directories count their subdirectories from here on.
            write_attr(&node.attr, it);
            it.begin_array("links").begin("0");
            write_link(link, it);
            it.end().end();
            if node.attr.kind == Kind::Symlink {
                write_text("target", &node.target, it);
            }
            write_token("w", token, it);
            it.end().end().end().end().end().end().end();
            if node.attr.kind != Kind::File {
                // GridFUSE's, which would not follow renames: only files have one.
                it.begin("1").str("$unset", "filename").end();
            }
            it.end();
        });
        update.expecting(Expect::Count(1))
    }

    /// `Err(None)`: somebody else was faster; what there is now must be looked at.
    pub(super) fn adopted(
        &mut self,
        adopting: Adopting,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Result<(), Option<Failure>> {
        let mut result = Ok(());
        for (adopted, reply) in adopting.inos.iter().zip(replies) {
            let Some((ino, id)) = adopted else { continue };
            let error = reply.error();
            if error.is_none() && reply.count() == 1 {
                let Some(node) = self.tree.get_mut(*ino) else { continue };
                let link = Link { parent: node.parent, name: node.name.clone() };
                node.links = alloc::vec![link.clone()];
                node.foreign = None;
                let over = node.over.take();
                self.tree.set_id(*ino, id);
                // Its link count has grown.
                cx.forget_attr(link.parent);
                if let Some(over) = over {
                    self.displaced(over, &link, cx);
                }
                continue;
            }
            result = match error {
                Some(error) if error.code != 11_000 => {
                    let what = format!("adopting {}", self.describe(*ino));
                    Err(Some(self.refused(&error, &what)))
                }
                _ => {
                    // The document, or one of its name, is another mount's inode now.
                    if let Some(node) = self.tree.get_mut(*ino) {
                        let key = node.foreign.take().map(|(key, _)| key);
                        if let Some(key) = key {
                            self.foreign.remove(&key);
                            self.live.rescan_soon();
                        }
                    }
                    cx.invalidate_inode(*ino);
                    Err(None)
                }
            };
            break;
        }
        result
    }

    /// Writes the fields of a document that a new revision takes over from the old one: all but
    /// what the contents decide.
    pub(super) fn write_kept(old: &crate::backend::bson::Doc, body: &mut DocBuf) {
        for element in old {
            let Ok(name) = core::str::from_utf8(element.name) else { continue };
            if !matches!(name, "_id" | "length" | "chunkSize" | "uploadDate" | "md5" | "metadata") {
                body.value(name, &element.value);
            }
        }
    }
}
