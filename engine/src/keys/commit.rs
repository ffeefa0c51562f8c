//! Plans committed, and what the commit script's verdict means for the index.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Args, Redis, Reply};
use crate::decide::{Change, Facts, Patch, Plan};
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Outcome, Step};
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;

use super::lower::{Program, Way, is_explicit, status_changed};
use super::place::{Place, first_version, orphan_key, xattr_key};
use super::record::{Record, SELF_FIELD};
use super::tree::What;
use super::{Keys, Ticket};

/// A plan on its way to the server.
#[derive(Clone, Debug)]
pub struct Committing {
    plan: Plan,
    /// The directory prefixes of the side hashes among the script's keys, by index.
    sides: Vec<(usize, Vec<u8>)>,
    /// What each letter of the script's `places` is about, in order.
    letters: Vec<(Way, Place)>,
    /// The keys it may change.
    keys: Args,
    /// What the count of a side hash starts at that it makes.
    first: i64,
}

impl Keys {
    pub(super) fn start_commit(
        &mut self,
        plan: &Plan,
        token: Token,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if let Some((from, to)) = renamed_dir(plan) {
            return self.start_rename_dir(plan, from, to, token, cx);
        }
        match self.lower(plan, token) {
            Ok(Some(program)) => self.send_program(plan.clone(), program, token, cx),
            Ok(None) => Step::Done(Outcome::Conflict),
            Err(failure) => Step::Fail(failure),
        }
    }

    fn send_program(
        &mut self,
        plan: Plan,
        program: Program,
        token: Token,
        cx: &Cx<Redis>,
    ) -> Step<Self> {
        let (sides, letters) = (program.sides.clone(), program.letters.clone());
        let (keys, first) = (program.keys.clone(), first_version(token));
        let committing = Committing { plan, sides, letters, keys, first };
        if program.checks.is_empty() && program.changes.is_empty() {
            // Nothing of it is kept on the server.
            self.apply(&committing.plan, &committing.letters, "");
            return Step::Done(Outcome::Applied(Facts::new()));
        }
        self.live.own_keys(&committing.keys, cx.now.mono);
        let once = committing.plan.once;
        let command = program.command(token, once);
        let ticket = Ticket::Commit(Box::new(committing));
        Step::Work(Self::work(Lane::Meta, alloc::vec![command], ticket))
    }

    // ---- the verdict

    pub(super) fn committed(
        &mut self,
        committing: Committing,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let reply = replies.first();
        if let Some(line) = reply.and_then(Reply::as_error) {
            return Step::Fail(self.refused(line, "changing"));
        }
        let answer = reply.and_then(Reply::as_array).unwrap_or_default();
        match answer.first().and_then(Reply::as_bytes) {
            Some(b"no") => return Step::Done(Outcome::Conflict),
            Some(b"ok") => {
                let letters = answer.get(1).and_then(Reply::as_bytes).unwrap_or_default();
                let letters = core::str::from_utf8(letters).unwrap_or_default();
                self.apply(&committing.plan, &committing.letters, letters);
                for pair in answer.get(2..).unwrap_or_default().chunks_exact(2) {
                    let (Some(index), Some(version)) = (pair[0].as_int(), pair[1].as_int()) else {
                        continue;
                    };
                    let side = committing.sides.iter().find(|(at, _)| *at as i64 == index);
                    if let Some((_, prefix)) = side {
                        self.side_written(prefix, version, Some(committing.first), cx);
                    }
                }
            }
            // It was applied before, and its reply was lost: where things went must be seen.
            Some(b"done") => {
                self.apply(&committing.plan, &committing.letters, "");
                for (_, place) in &committing.letters {
                    self.live.refresh_place(place);
                }
                for (_, prefix) in &committing.sides {
                    self.live.refresh_side(prefix);
                }
            }
            _ => return Step::Fail(self.odd("commit", reply)),
        }
        self.live.own_keys(&committing.keys, cx.now.mono);
        Step::Done(Outcome::Applied(Facts::new()))
    }

    /// Brings tree, index and memory up to date with a plan that was applied.
    pub(super) fn apply(&mut self, plan: &Plan, places: &[(Way, Place)], letters: &str) {
        for ((way, place), letter) in places.iter().zip(letters.chars()) {
            self.place_changed(*way, place, letter);
        }
        let mut letter = letters.chars();
        for change in &plan.changes {
            match change {
                Change::Create { dir, name, attr, target } => {
                    let what = match attr.kind {
                        Kind::Dir => What::Dir,
                        Kind::File => made(letter.next()),
                        _ => What::Side,
                    };
                    self.tree.attach(*dir, name, attr.ino, what, *attr);
                    let has_record = !self.is_default(&Record::of(attr, None));
                    if let Some(node) = self.tree.get_mut(attr.ino) {
                        node.target = target.clone().unwrap_or_default();
                        node.has_record = has_record;
                    }
                    self.applied_create(*dir, name, attr, target.as_ref());
                }
                Change::Unlink { dir, name, ino, kind, held, .. } => {
                    let moved_over = plan.changes.iter().any(|it| {
                        matches!(it, Change::Rename { to_dir, to_name, .. }
                            if to_dir == dir && to_name == name)
                    });
                    if *kind != Kind::Dir && !moved_over {
                        letter.next();
                    }
                    self.applied_unlink(*dir, name, *ino, *kind, *held);
                }
                Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
                    if *kind != Kind::Dir {
                        letter.next();
                        let went = letter.next();
                        let node = self.tree.get_mut(*ino).filter(|it| it.what != What::Side);
                        if let Some(node) = node {
                            node.what = made(went);
                        }
                        self.applied_move(*dir, name, *to_dir, to_name);
                    }
                    self.tree.rename(*dir, name, *to_dir, to_name);
                }
                Change::SetAttr { ino, patch } => self.applied_setattr(*ino, patch),
                Change::Touch { dir, at, .. } => self.applied_touch(*dir, *at),
                Change::Xattr { ino, value, at, .. } => {
                    if let (Ok(key), Some(_)) = (self.xattrs_of(*ino), value) {
                        self.index_xattrs(&key, true);
                    }
                    self.applied_setattr(*ino, &status_changed(*at));
                }
                Change::Link { .. }
                | Change::Exchange { .. }
                | Change::Zero { .. }
                | Change::Grow { .. }
                | Change::Copy { .. } => {}
            }
        }
    }

    /// The letters of the script, see `scripts/commit.lua`.
    fn place_changed(&mut self, way: Way, place: &Place, letter: char) {
        let (key, there) = match (way, letter) {
            (Way::In, 's') => (&place.full, true),
            (Way::In, 'f') => (&place.bare, true),
            (Way::Out, 's' | 'c') => (&place.full, false),
            (Way::Out, 'g') => (&place.bare, false),
            _ => return,
        };
        if let Some(key) = key {
            self.index_key(key, there);
        }
    }

    fn applied_create(&mut self, dir: Ino, name: &Name, attr: &Attr, target: Option<&Bytes>) {
        let Ok(spot) = self.spot(dir, name) else { return };
        let record = Record::of(attr, target);
        match attr.kind {
            Kind::Dir => {
                let Some(below) = spot.place.dir else { return };
                // In memory too, a directory is there because it has a side hash of its own.
                self.index_side(&below, true);
                if !self.stores_records() {
                    self.memory.put(&below, SELF_FIELD, record);
                }
            }
            Kind::File => {
                if self.is_default(&record) || !self.stores_records() {
                    self.memory.put(&spot.prefix, name.as_bytes(), record);
                } else {
                    self.memory.remove(&spot.prefix, name.as_bytes());
                }
            }
            _ => {
                self.index_side(&spot.prefix, true);
                if !self.stores_records() {
                    self.memory.put(&spot.prefix, name.as_bytes(), record);
                }
            }
        }
    }

    fn applied_unlink(&mut self, dir: Ino, name: &Name, ino: Ino, kind: Kind, held: bool) {
        if let Ok(spot) = self.spot(dir, name) {
            if kind == Kind::Dir {
                if let Some(below) = &spot.place.dir {
                    self.index_side(below, false);
                    self.memory.remove(below, SELF_FIELD);
                }
            } else {
                self.memory.remove(&spot.prefix, name.as_bytes());
            }
            self.keep_dir(dir, &spot.prefix);
        }
        if kind == Kind::Dir {
            self.tree.remove_dir(dir, name);
        } else {
            self.tree.detach(dir, name);
        }
        let session = self.live.session();
        if held
            && let Some(node) = self.tree.get_mut(ino)
            && matches!(node.what, What::String | What::Field | What::Value)
        {
            let key = orphan_key(session, ino);
            node.what = What::String;
            self.live.keep_orphan(key.clone());
            // What was written and not published is the newer of the two.
            match node.stage.take() {
                Some(stage) => {
                    node.orphan = Some(stage);
                    self.live.drop_orphan(key);
                }
                None => node.orphan = Some(key),
            }
        }
    }

    /// The script has marked a directory that was emptied.
    fn keep_dir(&mut self, dir: Ino, prefix: &[u8]) {
        if dir != Ino::ROOT && !self.index.is_dir(prefix) {
            self.index_side(prefix, true);
        }
    }

    fn applied_move(&mut self, dir: Ino, name: &Name, to_dir: Ino, to_name: &Name) {
        let (Ok(from), Ok(to)) = (self.spot(dir, name), self.spot(to_dir, to_name)) else { return };
        let record = self.memory.remove(&from.prefix, name.as_bytes());
        self.memory.remove(&to.prefix, to_name.as_bytes());
        if let Some(record) = record {
            self.memory.put(&to.prefix, to_name.as_bytes(), record);
        }
        let key = xattr_key(&from.prefix, name.as_bytes());
        if self.index.contains_xattrs(&key) {
            self.index_xattrs(&key, false);
            self.index_xattrs(&xattr_key(&to.prefix, to_name.as_bytes()), true);
        }
        let is_side = self.tree.child(dir, name).and_then(|ino| self.tree.get(ino));
        if is_side.is_some_and(|node| node.what == What::Side) {
            self.index_side(&to.prefix, true);
        }
        self.keep_dir(dir, &from.prefix);
    }

    fn applied_setattr(&mut self, ino: Ino, patch: &Patch) {
        let Some(node) = self.tree.get_mut(ino) else { return };
        patch.apply_to(&mut node.attr);
        node.has_record |= is_explicit(patch);
        // Whatever has its name now is another file.
        if node.detached {
            return;
        }
        let (what, parent, name, attr) = (node.what, node.parent, node.name.clone(), node.attr);
        let Some(prefix) = (match what {
            What::Dir => self.dir_prefix(ino),
            _ => self.dir_prefix(parent),
        }) else {
            return;
        };
        let field = if what == What::Dir { SELF_FIELD } else { name.as_bytes() };
        if self.stores_records() && is_explicit(patch) {
            self.memory.remove(&prefix, field);
            self.index_side(&prefix, true);
        } else if let Some(record) = self.memory.get_mut(&prefix, field) {
            record.apply(patch);
        } else if !self.stores_records() || what == What::Dir || !self.index.contains_side(&prefix)
        {
            self.memory.put(&prefix, field, Record::of(&attr, None));
        }
    }

    fn applied_touch(&mut self, dir: Ino, at: Wall) {
        let Some(node) = self.tree.get_mut(dir) else { return };
        node.attr.mtime = at;
        node.attr.ctime = at;
        let attr = node.attr;
        if let Some(prefix) = self.dir_prefix(dir) {
            self.memory.put(&prefix, SELF_FIELD, Record::of(&attr, None));
        }
    }
}

/// The directory rename in a plan, if it is one: (directory, name) from and to.
fn renamed_dir(plan: &Plan) -> Option<((Ino, Name), (Ino, Name))> {
    plan.changes.iter().find_map(|change| match change {
        Change::Rename { dir, name, to_dir, to_name, kind: Kind::Dir, .. } => {
            Some(((*dir, name.clone()), (*to_dir, to_name.clone())))
        }
        _ => None,
    })
}

fn made(letter: Option<char>) -> What {
    match letter {
        Some('s') => What::String,
        Some('f') => What::Field,
        _ => What::Value,
    }
}
