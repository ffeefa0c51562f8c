//! Directory pages: our documents in the order of the index on names, then other programs' files.
//!
//! A page is everything in a range of names. A document is found once for each page even when
//! several of its names are in the range, so each page hands out the names up to its own end.

use alloc::format;
use alloc::vec::Vec;

use crate::backend::bson::Doc;
use crate::backend::mongo::{Command, Mongo, Reply};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane};
use crate::layout::{self, Epoch, Listed, Outcome, Step};
use crate::op::Name;

use super::document::{FileDoc, Whose, write_text};
use super::foreign::Found;
use super::{GridFs, Ticket, ours};

/// A place in a directory. Strings come before binary names, as in the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cursor {
    /// Before everything.
    #[default]
    Start,
    /// Behind this name that is UTF-8.
    Text(Name),
    /// Before the names that are not.
    Binary,
    /// Behind this one.
    BinaryAfter(Name),
    /// Behind this name of another program's file, or before all of them.
    Foreign(Option<Name>),
}

/// A page on its way here.
#[derive(Clone, Debug)]
pub struct Asked {
    dir: Ino,
    from: Cursor,
    limit: usize,
    pub(super) since: Epoch,
}

/// Where a name stands in the index: strings by their bytes, then binary names, shorter first
/// (BSON's order of binary data).
fn order(name: &Name) -> (bool, usize, &[u8]) {
    let binary = core::str::from_utf8(name.as_bytes()).is_err();
    (binary, if binary { name.as_bytes().len() } else { 0 }, name.as_bytes())
}

fn place(name: Name) -> Cursor {
    if order(&name).0 { Cursor::BinaryAfter(name) } else { Cursor::Text(name) }
}

impl GridFs {
    pub(super) fn start_list(
        &mut self,
        dir: Ino,
        from: &Cursor,
        limit: usize,
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let ours = self.tree.get(dir).is_none_or(|node| node.foreign.is_none());
        let from = match from {
            Cursor::Start if !ours => Cursor::Foreign(None),
            from => from.clone(),
        };
        let asked = Asked { dir, from, limit, since: self.epoch };
        let command = match &asked.from {
            Cursor::Foreign(after) => {
                let names: Vec<Name> =
                    self.foreign_page(&asked, after).into_iter().map(|(name, _)| name).collect();
                if !ours || names.is_empty() {
                    return self.list_foreign(&asked, &[], cx);
                }
                self.ask_taken(dir, &names)
            }
            from => self.ask_page(dir, from, limit),
        };
        Step::Work(Self::work(Lane::Meta, alloc::vec![command], Ticket::List(asked)))
    }

    fn ask_page(&self, dir: Ino, from: &Cursor, limit: usize) -> Command {
        let mut find = self.find_page(limit, |it| {
            it.i64(&ours("links.p"), dir.0 as i64);
            let (operator, name) = match from {
                Cursor::Text(name) | Cursor::BinaryAfter(name) => ("$gt", Some(name)),
                Cursor::Binary => ("$gte", None),
                Cursor::Start | Cursor::Foreign(_) => return,
            };
            // A comparison matches values of its own type only.
            it.begin(&ours("links")).begin("$elemMatch").i64("p", dir.0 as i64).begin("n");
            match name {
                Some(name) => write_text(operator, name.as_bytes(), it),
                None => {
                    it.binary(operator, 0, bytes::Bytes::new());
                }
            }
            it.end().end().end();
        });
        if !self.options.read_only {
            // No sort: it could not use the index on an array. The order is the index's own. A
            // bucket that was never written to through a mount does not have it.
            find.body().str("hint", "dbmount_names");
        }
        find
    }

    /// Which of these names documents of ours have.
    fn ask_taken(&self, dir: Ino, names: &[Name]) -> Command {
        self.find(names.len(), |it| {
            it.i64(&ours("links.p"), dir.0 as i64);
            it.begin(&ours("links")).begin("$elemMatch").i64("p", dir.0 as i64).begin("n");
            it.begin_array("$in");
            for (n, name) in names.iter().enumerate() {
                write_text(&format!("{n}"), name.as_bytes(), it);
            }
            it.end().end().end().end();
        })
    }

    pub(super) fn listed(
        &mut self,
        asked: Asked,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let Some(reply) = replies.first() else { return Step::fail(Errno::EIO) };
        if let Some(error) = reply.error() {
            return Step::Fail(self.refused(&error, "listing a directory"));
        }
        let (docs, cursor) = reply.batch();
        let Asked { dir, from, limit, .. } = &asked;
        let after = match from {
            Cursor::Foreign(_) => {
                let taken = docs.iter().flat_map(|doc| self.names_in(*dir, doc, cx)).collect();
                let taken: Vec<Name> = taken;
                return self.list_foreign(&asked, &taken, cx);
            }
            Cursor::Text(name) | Cursor::BinaryAfter(name) => Some(name),
            Cursor::Start | Cursor::Binary => None,
        };
        let text_only = matches!(from, Cursor::Text(_));
        let mut found = Vec::new();
        let mut end: Option<Name> = None;
        for doc in &docs {
            let mut names = self.names_in(*dir, doc, cx);
            names.retain(|name| after.is_none_or(|after| order(name) > order(after)));
            names.retain(|name| !text_only || !order(name).0);
            names.sort_by(|a, b| order(a).cmp(&order(b)));
            if let Some(first) = names.first()
                && end.as_ref().is_none_or(|end| order(first) > order(end))
            {
                end = Some(first.clone());
            }
            found.extend(names.into_iter().map(|name| (name, doc)));
        }
        // A reply holds 16 MiB; its cursor is left to the server, as the next page has its own.
        let full = docs.len() >= *limit || cursor != 0;
        if full && let Some(end) = &end {
            found.retain(|(name, _)| order(name) <= order(end));
        }
        found.sort_by(|a, b| order(&a.0).cmp(&order(&b.0)));
        let mut entries: Vec<Listed<Self>> = Vec::new();
        for (name, doc) in found {
            let Some(attr) = self.see(doc, Some((*dir, &name)), cx) else { continue };
            let after = place(name.clone());
            entries.push(Listed { name, ino: attr.ino, kind: attr.kind, attr: Some(attr), after });
        }
        let next = match end {
            Some(end) if full => Some(place(end)),
            _ if text_only => Some(Cursor::Binary),
            _ => {
                let key = self.foreign_key(*dir);
                let more =
                    key.is_some_and(|key| self.foreign.next(&key, None, &self.options).is_some());
                more.then_some(Cursor::Foreign(None))
            }
        };
        Step::Done(Outcome::Page(layout::Page { entries, next }))
    }

    /// The names by which a document of ours is shown in a directory.
    fn names_in(&mut self, dir: Ino, doc: &Doc, cx: &mut Cx<Mongo>) -> Vec<Name> {
        match FileDoc::parse(doc) {
            Ok(FileDoc { whose: Whose::Ours(inode), .. }) => {
                let links = inode.links.into_iter().filter(|link| link.parent == dir);
                let names = links.map(|link| link.name);
                names.filter(|name| !self.is_outdone(doc, dir, name)).collect()
            }
            Ok(_) => Vec::new(),
            Err(bad) => {
                self.complain(&bad, cx);
                Vec::new()
            }
        }
    }

    /// The next names of other programs' files.
    fn foreign_page(&self, asked: &Asked, after: &Option<Name>) -> Vec<(Name, Found)> {
        let Some(key) = self.foreign_key(asked.dir) else { return Vec::new() };
        let mut page: Vec<(Name, Found)> = Vec::new();
        while page.len() < asked.limit {
            let after = page.last().map(|(name, _)| name).or(after.as_ref());
            let Some(next) = self.foreign.next(&key, after, &self.options) else { break };
            page.push(next);
        }
        page
    }

    /// Documents of ours outshine other programs' files of the same name.
    fn list_foreign(&mut self, asked: &Asked, taken: &[Name], cx: &mut Cx<Mongo>) -> Step<Self> {
        let Cursor::Foreign(after) = &asked.from else { return Step::fail(Errno::EIO) };
        let page = self.foreign_page(asked, after);
        let last = page.last().map(|(name, _)| Cursor::Foreign(Some(name.clone())));
        let next = last.filter(|_| page.len() >= asked.limit);
        let mut entries: Vec<Listed<Self>> = Vec::new();
        for (name, found) in page {
            if taken.contains(&name) {
                continue;
            }
            let attr = self.see_foreign(asked.dir, &name, found, cx);
            let after = Cursor::Foreign(Some(name.clone()));
            entries.push(Listed { name, ino: attr.ino, kind: attr.kind, attr: Some(attr), after });
        }
        Step::Done(Outcome::Page(layout::Page { entries, next }))
    }
}
