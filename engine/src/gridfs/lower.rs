//! Plans lowered to commands.
//!
//! Every plan has one primary command, nearly always one update of one document: its reply is
//! the verdict. Around it stand what directories must follow (times, link counts) and the checks
//! that an update's own filter cannot hold. The names are guarded by the unique index.
//!
//! A name is made before its directory is touched, and a directory is marked as gone before it is
//! looked into for entries: so whichever of `mkdir d/x` and `rmdir d` comes second sees the other
//! one, without a transaction.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::DocBuf;
use crate::backend::mongo::{Command, Expect};
use crate::contract::Mode;
use crate::decide::{Answer, Change, Check, Patch, Plan};
use crate::id::{Ino, Token};
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;

use super::document::{Id, Link, NewFile, write_link, write_text, write_token};
use super::facts::match_link;
use super::{GridFs, OURS, ours, sequence, statement};

/// Commands that apply a plan.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) commands: Vec<Command>,
    /// Which of them is the verdict, and how many documents it must have changed.
    pub(super) primary: usize,
    pub(super) count: i64,
    /// Its document: carries the token when it was applied.
    pub(super) ino: Ino,
    /// Commands that must have matched one document (or found none) too, or all is undone.
    pub(super) must: Vec<usize>,
    /// What takes the primary command back.
    pub(super) undo: Vec<Command>,
    pub(super) mode: Mode,
    /// The document that it makes.
    pub(super) id: Option<Id>,
    /// It is more than one document and its directory's times.
    several: bool,
}

/// The parts of a plan, sorted.
#[derive(Default)]
struct Parts<'a> {
    touches: Vec<(Ino, Wall, i32)>,
    patches: BTreeMap<Ino, Patch>,
    unlink: Option<Unlink<'a>>,
    links: BTreeMap<Ino, u32>,
    live: Vec<Ino>,
    empty: Vec<Ino>,
    not_below: Vec<(Ino, Ino)>,
}

#[derive(Clone, Copy)]
struct Unlink<'a> {
    dir: Ino,
    name: &'a Name,
    ino: Ino,
    last: bool,
}

fn sort(plan: &Plan) -> Parts<'_> {
    let mut parts = Parts::default();
    for check in &plan.checks {
        match check {
            Check::LiveDir(dir) => parts.live.push(*dir),
            Check::Links(ino, count) => drop(parts.links.insert(*ino, *count)),
            Check::Empty(dir) => parts.empty.push(*dir),
            Check::NotBelow { dir, ancestor } => parts.not_below.push((*dir, *ancestor)),
            // These stand in the filters of the updates and in the unique index.
            Check::Live(_) | Check::Free(..) | Check::Leads(..) | Check::Xattr(..) => {}
        }
    }
    for change in &plan.changes {
        match change {
            Change::Touch { dir, at, nlink } => parts.touches.push((*dir, *at, *nlink)),
            Change::SetAttr { ino, patch } => drop(parts.patches.insert(*ino, *patch)),
            Change::Unlink { dir, name, ino, last, .. } => {
                parts.unlink = Some(Unlink { dir: *dir, name, ino: *ino, last: *last });
            }
            _ => {}
        }
    }
    parts
}

/// Sets what a patch sets, but for the length.
fn write_patch(patch: &Patch, body: &mut DocBuf) {
    if let Some(perm) = patch.perm {
        body.i32(&ours("mode"), i32::from(perm));
    }
    for (field, value) in [("uid", patch.uid), ("gid", patch.gid)] {
        if let Some(value) = value {
            body.i64(&ours(field), i64::from(value));
        }
    }
    for (field, value) in [("atime", patch.atime), ("mtime", patch.mtime), ("ctime", patch.ctime)] {
        if let Some(value) = value {
            body.i64(&ours(field), value.0);
        }
    }
}

fn match_ino(ino: Ino, body: &mut DocBuf) {
    body.i64(&ours("ino"), ino.0 as i64);
}

impl GridFs {
    /// The commands of a plan, `None` when it holds nothing to do.
    pub(super) fn lower(&mut self, plan: &Plan, token: Token, at: Wall) -> Option<Program> {
        let parts = sort(plan);
        let mut program = plan.changes.iter().find_map(|change| match change {
            Change::Create { dir, name, attr, target } => {
                let opened = matches!(plan.answer, Answer::Created(_));
                let target = target.as_deref();
                Some(self.lower_create(&link(*dir, name), attr, target, opened, token, at))
            }
            Change::Link { ino, dir, name } => {
                Some(self.lower_link(*ino, &link(*dir, name), &parts, token))
            }
            Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
                let (from, to) = (link(*dir, name), link(*to_dir, to_name));
                Some(self.lower_rename(&from, &to, *ino, *kind, &parts, token, at))
            }
            Change::Exchange { a, b } => Some(self.lower_exchange(a, b, &parts, token)),
            Change::Xattr { ino, name, value, at } => {
                Some(self.lower_xattr(*ino, name, value.as_deref(), *at, plan, token))
            }
            _ => None,
        });
        if program.is_none() {
            program = match (&parts.unlink, parts.patches.iter().next()) {
                (Some(unlink), _) => Some(self.lower_unlink(unlink, &parts, token, at)),
                (None, Some((ino, patch))) => Some(self.lower_setattr(*ino, patch, token)),
                (None, None) => None,
            };
        }
        let mut program = program?;
        self.add_checks(&parts, &mut program);
        self.add_touches(&parts, token, &mut program);
        self.choose_mode(&parts, &mut program);
        Some(program)
    }

    /// One statement of an update that is the verdict.
    fn primary(&self, ino: Ino, statements: Vec<DocBuf>) -> Program {
        let count = statements.len() as i64;
        let mut command = self.updates(self.files("update"), statements);
        command.retryable = self.is_numbered();
        Program {
            commands: alloc::vec![command],
            primary: 0,
            count,
            ino,
            must: Vec::new(),
            undo: Vec::new(),
            mode: Mode::Ordered,
            id: None,
            several: false,
        }
    }

    fn lower_create(
        &mut self,
        link: &Link,
        attr: &Attr,
        target: Option<&[u8]>,
        opened: bool,
        token: Token,
        at: Wall,
    ) -> Program {
        let id = self.new_id(at);
        let filename = match attr.kind {
            Kind::File => self.tree.filename(link.parent, &link.name),
            _ => None,
        };
        let new = NewFile {
            id: &id,
            attr,
            link: Some(link),
            filename: filename.as_deref(),
            target,
            chunk: self.options.chunk_size,
            token,
            writing: opened.then(|| (self.session, at.0.div_euclid(1_000_000))),
        };
        let mut insert = self.files("insert");
        sequence(&mut insert, "documents", alloc::vec![statement(|it| new.write(it))]);
        insert.concern = self.concern;
        insert.retryable = self.is_numbered();
        let mut delete = self.files("delete");
        let this = statement(|it| {
            it.begin("q");
            id.write("_id", it);
            it.end().i32("limit", 1);
        });
        sequence(&mut delete, "deletes", alloc::vec![this]);
        delete.concern = self.concern;
        let mut program = self.primary(attr.ino, Vec::new());
        program.commands = alloc::vec![insert];
        program.count = 1;
        program.undo = alloc::vec![delete];
        program.id = Some(id);
        program
    }

    fn lower_link(&self, ino: Ino, new: &Link, parts: &Parts<'_>, token: Token) -> Program {
        let update = statement(|it| {
            it.begin("q");
            match_ino(ino, it);
            it.null(&ours("gone")).begin(&ours("links")).begin("$not").begin("$elemMatch");
            write_link(new, it);
            it.end().end().end().end();
            it.begin("u").begin("$push").begin(&ours("links"));
            write_link(new, it);
            it.end().end().begin("$set");
            write_patch(&parts.patches.get(&ino).copied().unwrap_or_default(), it);
            write_token(&ours("w"), token, it);
            it.end().end();
        });
        let mut program = self.primary(ino, alloc::vec![update]);
        program.undo = alloc::vec![self.update(|it| {
            it.begin("q");
            match_ino(ino, it);
            it.end().begin("u").begin("$pull").begin(&ours("links"));
            write_link(new, it);
            it.end().end().end();
        })];
        program
    }

    /// A name goes; with the last one the document is marked as gone, and removed with its chunks
    /// when nobody has it open. `moving`: another inode gets the name in the same step.
    fn remove_name(
        &self,
        unlink: &Unlink<'_>,
        parts: &Parts<'_>,
        (token, at): (Token, Wall),
        moving: Option<(Ino, &Link)>,
    ) -> DocBuf {
        let Unlink { dir, name, ino, last } = *unlink;
        let gone = link(dir, name);
        let node = self.tree.get(ino);
        let next = node.and_then(|node| {
            let first = node.links.first()?;
            let other = node.links.iter().find(|it| **it != gone)?;
            (*first == gone && node.attr.kind == Kind::File)
                .then(|| self.tree.filename(other.parent, &other.name))?
        });
        let is_file = node.is_some_and(|node| node.attr.kind == Kind::File);
        let filename = self.tree.filename(dir, name).filter(|_| is_file);
        statement(|it| {
            it.begin("q");
            match_ino(ino, it);
            it.begin(&ours("links")).begin("$elemMatch");
            write_link(&gone, it);
            it.end();
            if let Some(links) = parts.links.get(&ino) {
                it.i64("$size", i64::from(*links));
            }
            it.end().end().begin("u");
            if !last {
                it.begin("$pull").begin(&ours("links"));
                write_link(&gone, it);
                it.end().end();
            }
            it.begin("$set");
            write_patch(&parts.patches.get(&ino).copied().unwrap_or_default(), it);
            if last {
                it.begin_array(&ours("links")).end().begin(&ours("gone"));
                it.i64("s", self.session as i64).i64("t", at.0.div_euclid(1_000_000));
                write_link(&gone, it);
                if let Some((ino, from)) = moving {
                    // A server that crashes between the two leaves this to be found.
                    it.i64("for", ino.0 as i64).begin("from");
                    write_link(from, it);
                    it.end();
                    if let Some(filename) = &filename {
                        write_text("filename", filename, it);
                    }
                }
                it.end();
            } else if let Some(filename) = next {
                write_text("filename", &filename, it);
            }
            write_token(&ours("w"), token, it);
            it.end();
            if last {
                it.begin("$unset").str("filename", "").end();
            }
            it.end();
        })
    }

    /// Gives an inode the name back that `remove_name` took.
    fn restore_name(&self, unlink: &Unlink<'_>, token: Token) -> Command {
        let was = link(unlink.dir, unlink.name);
        let node = self.tree.get(unlink.ino);
        let filename = node
            .filter(|node| node.attr.kind == Kind::File)
            .and_then(|_| self.tree.filename(unlink.dir, unlink.name));
        self.update(|it| {
            it.begin("q");
            match_ino(unlink.ino, it);
            write_token(&ours("w"), token, it);
            it.end().begin("u").begin("$push").begin(&ours("links"));
            write_link(&was, it);
            it.end().end().begin("$unset").str(&ours("gone"), "").end();
            if let Some(filename) = filename {
                it.begin("$set");
                write_text("filename", &filename, it);
                it.end();
            }
            it.end();
        })
    }

    fn lower_unlink(
        &self,
        unlink: &Unlink<'_>,
        parts: &Parts<'_>,
        token: Token,
        at: Wall,
    ) -> Program {
        let removal = self.remove_name(unlink, parts, (token, at), None);
        let mut program = self.primary(unlink.ino, alloc::vec![removal]);
        program.undo = alloc::vec![self.restore_name(unlink, token)];
        let filename = self.tree.filename(unlink.dir, unlink.name);
        self.add_revisions(unlink.dir, unlink.name, filename, None, &mut program);
        if unlink.last {
            self.add_kept(unlink.ino, None, &mut program);
        }
        program
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a rename and the commit's own")]
    fn lower_rename(
        &self,
        from: &Link,
        to: &Link,
        ino: Ino,
        kind: Kind,
        parts: &Parts<'_>,
        token: Token,
        at: Wall,
    ) -> Program {
        let node = self.tree.get(ino);
        let first = node.is_none_or(|it| it.links.len() <= 1 || it.links.first() == Some(from));
        let new_path = self.tree.filename(to.parent, &to.name);
        let old_path = self.tree.filename(from.parent, &from.name);
        let moving = statement(|it| {
            it.begin("q");
            match_ino(ino, it);
            match_link(from.parent, from.name.as_bytes(), it);
            it.end().begin("u").begin("$set");
            it.i64(&ours("links.$.p"), to.parent.0 as i64);
            write_text(&ours("links.$.n"), to.name.as_bytes(), it);
            write_patch(&parts.patches.get(&ino).copied().unwrap_or_default(), it);
            match (&new_path, &old_path) {
                (Some(path), _) if kind == Kind::File && first => write_text("filename", path, it),
                (Some(_), Some(old)) if kind == Kind::Dir => write_text(&ours("moved"), old, it),
                _ => {}
            }
            write_token(&ours("w"), token, it);
            it.end().end();
        });
        let back = self.update(|it| {
            it.begin("q");
            match_ino(ino, it);
            match_link(to.parent, to.name.as_bytes(), it);
            write_token(&ours("w"), token, it);
            it.end().begin("u").begin("$set");
            it.i64(&ours("links.$.p"), from.parent.0 as i64);
            write_text(&ours("links.$.n"), from.name.as_bytes(), it);
            match &old_path {
                Some(path) if kind == Kind::File && first => write_text("filename", path, it),
                _ => {}
            }
            it.end().end();
        });
        let Some(unlink) = &parts.unlink else {
            let mut program = self.primary(ino, alloc::vec![moving]);
            program.undo = alloc::vec![back];
            if first {
                self.add_kept(ino, new_path.as_deref(), &mut program);
            }
            if kind == Kind::Dir {
                self.add_foreign_below(&[(from, to)], &mut program);
            }
            self.add_revisions(from.parent, &from.name, old_path, new_path, &mut program);
            return program;
        };
        // Both stand in one command, so that the server does the one right behind the other.
        let removal = self.remove_name(unlink, parts, (token, at), Some((ino, from)));
        let mut program = self.primary(ino, alloc::vec![removal, moving]);
        if let Some(command) = program.commands.first_mut() {
            command.retryable = false;
        }
        program.undo = alloc::vec![back, self.restore_name(unlink, token)];
        if first {
            self.add_kept(ino, new_path.as_deref(), &mut program);
        }
        if unlink.last {
            self.add_kept(unlink.ino, None, &mut program);
        }
        if kind == Kind::Dir {
            self.add_foreign_below(&[(from, to)], &mut program);
        }
        self.add_revisions(to.parent, &to.name, new_path, None, &mut program);
        program
    }

    /// By way of a place that nobody can see: only in a transaction.
    fn lower_exchange(
        &self,
        a: &(Ino, Name, Ino),
        b: &(Ino, Name, Ino),
        parts: &Parts<'_>,
        token: Token,
    ) -> Program {
        let aside = Link { parent: Ino(0), name: Name::from(&*format!("{}", token.serial)) };
        let place = |it: &(Ino, Name, Ino)| link(it.0, &it.1);
        let moves =
            [(a.2, place(a), aside.clone()), (b.2, place(b), place(a)), (a.2, aside, place(b))];
        let statements = moves.iter().map(|(ino, from, to)| {
            let file = self.tree.get(*ino).is_some_and(|node| node.attr.kind == Kind::File);
            let path = self.tree.filename(to.parent, &to.name).filter(|_| file && to.parent.0 != 0);
            statement(|it| {
                it.begin("q");
                match_ino(*ino, it);
                match_link(from.parent, from.name.as_bytes(), it);
                it.end().begin("u").begin("$set");
                it.i64(&ours("links.$.p"), to.parent.0 as i64);
                write_text(&ours("links.$.n"), to.name.as_bytes(), it);
                write_patch(&parts.patches.get(ino).copied().unwrap_or_default(), it);
                if let Some(path) = path {
                    write_text("filename", &path, it);
                }
                write_token(&ours("w"), token, it);
                it.end().end();
            })
        });
        let statements = statements.collect();
        let mut program = self.primary(a.2, statements);
        program.mode = Mode::Atomic;
        let nowhere = Link { parent: Ino::ROOT, name: Name::from(&*format!(".{}", token.serial)) };
        let (at_a, at_b) = (place(a), place(b));
        let moves = [(&at_a, &nowhere), (&at_b, &at_a), (&nowhere, &at_b)];
        self.add_foreign_below(&moves, &mut program);
        program
    }

    fn lower_setattr(&self, ino: Ino, patch: &Patch, token: Token) -> Program {
        let update = statement(|it| {
            it.begin("q");
            match_ino(ino, it);
            it.end().begin("u").begin("$set");
            write_patch(patch, it);
            write_token(&ours("w"), token, it);
            it.end().end();
        });
        self.primary(ino, alloc::vec![update])
    }

    /// One attribute of the array is replaced by a pipeline, which needs no second step.
    fn lower_xattr(
        &self,
        ino: Ino,
        name: &Name,
        value: Option<&[u8]>,
        at: Wall,
        plan: &Plan,
        token: Token,
    ) -> Program {
        let mode = plan.checks.iter().find_map(|check| match check {
            Check::Xattr(_, _, mode) => Some(*mode),
            _ => None,
        });
        let field = format!("${}", ours("xattrs"));
        let update = statement(|it| {
            it.begin("q");
            match_ino(ino, it);
            let there = mode.map(|mode| mode == crate::op::XattrMode::Replace);
            if let Some(there) = there {
                it.begin(&ours("xattrs"));
                if !there {
                    it.begin("$not");
                }
                it.begin("$elemMatch");
                write_text("n", name.as_bytes(), it);
                it.end();
                if !there {
                    it.end();
                }
                it.end();
            }
            it.end().begin_array("u").begin("0").begin("$set").begin(&ours("xattrs"));
            it.begin_array("$concatArrays");
            it.begin("0").begin("$filter").begin("input").begin_array("$ifNull");
            it.str("0", &field).begin_array("1").end().end().end();
            it.begin("cond").begin_array("$ne").str("0", "$$this.n").begin("1");
            write_text("$literal", name.as_bytes(), it);
            it.end().end().end().end().end();
            it.begin_array("1");
            if let Some(value) = value {
                it.begin("0").begin("n");
                write_text("$literal", name.as_bytes(), it);
                it.end().begin("v");
                it.binary("$literal", 0, bytes::Bytes::copy_from_slice(value)).end().end();
            }
            it.end().end().end();
            it.i64(&ours("ctime"), at.0);
            write_token(&ours("w"), token, it);
            it.end().end().end();
        });
        self.primary(ino, alloc::vec![update])
    }

    /// The revisions that are kept of a file have its `filename`, and go with it.
    fn add_kept(&self, ino: Ino, filename: Option<&[u8]>, program: &mut Program) {
        if !self.tree.get(ino).is_some_and(|node| node.revisions) {
            return;
        }
        program.commands.push(match filename {
            Some(filename) => self.move_kept(ino, filename),
            None => self.give_up_kept(ino),
        });
    }

    fn move_kept(&self, ino: Ino, filename: &[u8]) -> Command {
        let all = statement(|it| {
            it.begin("q").i64(&ours("rev"), ino.0 as i64).end().begin("u").begin("$set");
            write_text("filename", filename, it);
            it.end().end().bool("multi", true);
        });
        self.updates(self.files("update"), alloc::vec![all])
    }

    /// They go with the next sweep.
    pub(super) fn give_up_kept(&self, ino: Ino) -> Command {
        let all = statement(|it| {
            it.begin("q").i64(&ours("rev"), ino.0 as i64).end().begin("u").begin("$set");
            it.begin(&ours("gone")).i64("s", self.session as i64).i64("t", 0).end().end();
            it.begin("$unset").str(&ours("rev"), "").str("filename", "").end().end();
            it.bool("multi", true);
        });
        self.updates(self.files("update"), alloc::vec![all])
    }

    /// Files of other programs below a directory have no inodes: their `filename`s follow by their
    /// prefix, in the same step.
    fn add_foreign_below(&self, moves: &[(&Link, &Link)], program: &mut Program) {
        let has = |link: &&Link| {
            let key = self.foreign_key_of(link.parent, &link.name);
            key.is_some_and(|key| self.foreign.has_below(&key))
        };
        if !moves.iter().any(|(from, _)| has(from)) {
            return;
        }
        for (from, to) in moves {
            let old = self.tree.filename(from.parent, &from.name);
            let new = self.tree.filename(to.parent, &to.name);
            let (Some(old), Some(new)) = (old, new) else { continue };
            let below = statement(|it| {
                it.begin("q").null(&ours("ino")).begin("filename");
                write_text("$gte", &[&old[..], b"/"].concat(), it);
                write_text("$lt", &[&old[..], b"0"].concat(), it);
                it.end().end().begin_array("u").begin("0").begin("$set").begin("filename");
                it.begin_array("$concat").begin("0");
                write_text("$literal", &new, it);
                it.end().begin("1").begin_array("$substrBytes").str("0", "$filename");
                it.i64("1", old.len() as i64).i32("2", -1).end().end();
                it.end().end().end().end().end().bool("multi", true);
            });
            program.commands.push(self.updates(self.files("update"), alloc::vec![below]));
            program.several = true;
        }
    }

    /// Older revisions by other programs follow the name they are under: to its new place, or
    /// away with it.
    fn add_revisions(
        &self,
        dir: Ino,
        name: &Name,
        filename: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
        program: &mut Program,
    ) {
        let key = self.foreign_key_of(dir, name);
        let Some(entry) = key.and_then(|key| self.foreign.get(&key)) else { return };
        if filename.as_ref() != Some(&entry.filename) {
            return;
        }
        let all = statement(|it| {
            it.begin("q").null(&ours("ino")).null(OURS);
            write_text("filename", &entry.filename, it);
            it.end().begin_array("u").begin("0").begin("$set");
            match &to {
                Some(to) => {
                    it.begin("filename");
                    write_text("$literal", to, it);
                    it.end();
                }
                None => {
                    it.begin("metadata").begin_array("$mergeObjects").str("0", "$metadata");
                    it.begin("1").begin("dbmount").i32("v", 1).begin("gone");
                    it.i64("s", self.session as i64).i64("t", 0).end().end().end().end().end();
                }
            }
            it.end().end();
            if to.is_none() {
                it.begin("1").str("$unset", "filename").end();
            }
            it.end().bool("multi", true);
        });
        program.commands.push(self.updates(self.files("update"), alloc::vec![all]));
    }

    fn add_checks(&self, parts: &Parts<'_>, program: &mut Program) {
        let mut first: Vec<Command> =
            parts.not_below.iter().map(|(dir, above)| self.ask_below(*dir, *above)).collect();
        if !self.transactions {
            // To take something back is for races only: who dies before would leave a directory
            // gone and what is in it without a way up.
            first.extend(parts.empty.iter().map(|dir| self.find_child(*dir)));
        }
        for check in first {
            program.commands.insert(0, check.expecting(Expect::Found(0)));
            program.primary += 1;
            program.must.iter_mut().for_each(|it| *it += 1);
            program.must.push(0);
        }
        for dir in &parts.empty {
            program.must.push(program.commands.len());
            program.commands.push(self.find_child(*dir).expecting(Expect::Found(0)));
        }
    }

    fn add_touches(&self, parts: &Parts<'_>, token: Token, program: &mut Program) {
        for (dir, at, nlink) in &parts.touches {
            let update = self.update(|it| {
                it.begin("q");
                match_ino(*dir, it);
                it.null(&ours("gone")).end().begin("u").begin("$set");
                it.i64(&ours("mtime"), at.0).i64(&ours("ctime"), at.0);
                write_token(&ours("w"), token, it);
                it.end();
                if *nlink != 0 {
                    it.begin("$inc").i32(&ours("nlink"), *nlink).end();
                }
                it.end();
            });
            if parts.live.contains(dir) {
                program.must.push(program.commands.len());
                program.commands.push(update.expecting(Expect::Count(1)));
            } else {
                program.commands.push(update);
            }
        }
    }

    /// Times of directories alone are no reason for a transaction: creates in one directory would
    /// meet each other there. Link counts, checks and several documents are.
    fn choose_mode(&self, parts: &Parts<'_>, program: &mut Program) {
        let counted = parts.touches.iter().any(|(_, _, nlink)| *nlink != 0);
        let checked = !parts.empty.is_empty() || !parts.not_below.is_empty();
        let several = counted || checked || program.several || program.count > 1;
        if program.mode == Mode::Atomic || (several && self.transactions) {
            program.mode = Mode::Atomic;
        }
        let commands = program.commands.len();
        if let Some(primary) = program.commands.get_mut(program.primary)
            && several
            && commands > 1
        {
            // What stands behind relies on it.
            primary.expect = Expect::Count(program.count);
        } else if !several {
            // All of them travel together; the replies tell what to take back.
            program.commands.iter_mut().for_each(|it| it.expect = Expect::Anything);
        }
    }
}

fn link(dir: Ino, name: &Name) -> Link {
    Link { parent: dir, name: name.clone() }
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
