//! Plans lowered to programs of the commit script.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command};
use crate::decide::{Change, Check, Patch, Plan};
use crate::errno::Errno;
use crate::id::{Ino, Token};
use crate::layout::{Failure, Layout};
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;

use super::place::{Place, first_version, orphan_key, session_key, side_key, xattr_key};
use super::record::{self, Record, SELF_FIELD};
use super::tree::What;
use super::{Keys, ORPHAN_LEASE, TOKEN_LEASE, TOKEN_SLOTS, scripts};

/// Which way a value went at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// A program of the commit script under construction.
pub(super) struct Program {
    pub(super) keys: Args,
    pub(super) checks: Vec<Bytes>,
    pub(super) changes: Vec<Bytes>,
    pub(super) sides: Vec<(usize, Vec<u8>)>,
    pub(super) letters: Vec<(Way, Place)>,
    /// It frees memory, and is let through on a full server.
    freeing: bool,
}

/// Where a name is, with all that a step of the script wants to know of it.
#[derive(Clone)]
pub(super) struct Spot {
    pub(super) dir: Ino,
    pub(super) prefix: Vec<u8>,
    pub(super) name: Name,
    pub(super) place: Place,
}

impl Program {
    fn new(session: Bytes) -> Self {
        Program {
            keys: smallvec![session],
            checks: Vec::new(),
            changes: Vec::new(),
            sides: Vec::new(),
            letters: Vec::new(),
            freeing: false,
        }
    }

    /// The number of a key in `KEYS`, as the script counts.
    pub(super) fn key(&mut self, key: Option<Bytes>) -> Bytes {
        let Some(key) = key else { return Bytes::from_static(b"0") };
        let at = match self.keys.iter().skip(1).position(|it| *it == key) {
            Some(at) => at + 2,
            None => {
                self.keys.push(key);
                self.keys.len()
            }
        };
        Bytes::from(format!("{at}"))
    }

    fn side(&mut self, prefix: &[u8]) -> Bytes {
        let at = self.key(Some(side_key(prefix)));
        let index = self.keys.iter().position(|it| *it == side_key(prefix)).map_or(0, |at| at + 1);
        if !self.sides.iter().any(|(known, _)| *known == index) {
            self.sides.push((index, prefix.to_vec()));
        }
        at
    }

    fn place(&mut self, place: &Place) -> [Bytes; 3] {
        [self.key(place.full.clone()), self.key(place.bare.clone()), place.field.clone()]
    }

    pub(super) fn command(self, token: Token, once: bool) -> Command {
        let mut args: Args = if once {
            smallvec![
                Bytes::from(format!("{}", token.serial % TOKEN_SLOTS)),
                Bytes::from(format!("{}", token.serial)),
                Bytes::from(format!("{}", TOKEN_LEASE.as_millis()))
            ]
        } else {
            let zero = Bytes::from_static(b"0");
            smallvec![zero.clone(), zero.clone(), zero]
        };
        args.push(Bytes::from(format!("{}", first_version(token))));
        args.extend(self.checks);
        args.extend(self.changes);
        let script = if self.freeing { &scripts::COMMIT_FREEING } else { &scripts::COMMIT };
        Command::Script { script, keys: self.keys, args }
    }
}

fn word(word: &'static str) -> Bytes {
    Bytes::from_static(word.as_bytes())
}

fn number(n: u64) -> Bytes {
    Bytes::from(format!("{n}"))
}

impl Keys {
    /// A program with the session key if a second application would do harm.
    pub(super) fn program(&self, once: bool, token: Token) -> Program {
        Program::new(if once { session_key(token.session) } else { Bytes::new() })
    }

    /// The plan as a program; `None` when it is known here that a check does not hold.
    pub(super) fn lower(&mut self, plan: &Plan, token: Token) -> Result<Option<Program>, Failure> {
        let mut program = self.program(plan.once, token);
        for check in &plan.checks {
            if !self.lower_check(check, &mut program)? {
                return Ok(None);
            }
        }
        let moves_over = |dir: &Ino, name: &Name| {
            plan.changes.iter().any(|change| {
                matches!(change, Change::Rename { to_dir, to_name, .. }
                    if to_dir == dir && to_name == name)
            })
        };
        let mut held = false;
        for change in &plan.changes {
            match change {
                // The move itself replaces its target, which keeps its type and TTL.
                Change::Unlink { dir, name, held: open, .. } if moves_over(dir, name) => {
                    held = *open;
                }
                other => self.lower_change(other, held, token, &mut program)?,
            }
        }
        Ok(Some(program))
    }

    /// Returns whether the check holds as far as is known here.
    pub(super) fn lower_check(
        &self,
        check: &Check,
        program: &mut Program,
    ) -> Result<bool, Failure> {
        match check {
            // A directory exists as long as anything is in it; making something in one that was
            // removed elsewhere makes it anew.
            Check::LiveDir(dir) => {
                if self.dir_prefix(*dir).is_none() {
                    return Err(errno(Errno::ENOENT));
                }
            }
            Check::Live(ino) => {
                let Some(node) = self.tree.get(*ino) else { return Ok(false) };
                if node.what == What::Dir || node.orphan.is_some() {
                    return Ok(true);
                }
                return self.check_is(node.parent, &node.name, node.what, program);
            }
            Check::Links(..) => {}
            Check::Free(dir, name) => {
                let spot = self.spot(*dir, name)?;
                if spot.place.dir.as_ref().is_some_and(|dir| self.index.is_dir(dir)) {
                    return Ok(false);
                }
                if self.memory.get(&spot.prefix, name.as_bytes()).is_some_and(is_side) {
                    return Ok(false);
                }
                let place = program.place(&spot.place);
                let side = program.side(&spot.prefix);
                let below = program.key(spot.place.dir.as_ref().map(|dir| side_key(dir)));
                program.checks.push(word("free"));
                program.checks.extend(place);
                program.checks.extend([side, name_bytes(name), below]);
            }
            Check::Leads(dir, name, ino) => {
                let Some(node) = self.tree.get(*ino) else { return Ok(false) };
                if self.tree.child(*dir, name) != Some(*ino) {
                    return Ok(false);
                }
                return self.check_is(*dir, name, node.what, program);
            }
            Check::Empty(dir) => {
                let Some(prefix) = self.dir_prefix(*dir) else { return Ok(false) };
                if !self.index.is_empty_dir(&prefix)
                    || self.memory.inhabitants(&prefix).next().is_some()
                {
                    return Ok(false);
                }
                if self.stores_records() {
                    let side = program.side(&prefix);
                    program.checks.extend([word("void"), side]);
                }
            }
            Check::NotBelow { dir, ancestor } => {
                if self.tree.is_below(*dir, *ancestor) {
                    return Err(errno(Errno::EINVAL));
                }
            }
            Check::Xattr(ino, name, mode) => {
                let yes = match mode {
                    crate::op::XattrMode::Any => return Ok(true),
                    crate::op::XattrMode::Create => "0",
                    crate::op::XattrMode::Replace => "1",
                };
                let x = self.xattrs_of(*ino)?;
                let x = program.key(Some(x));
                program.checks.extend([word("has"), x, name_bytes(name), word(yes)]);
            }
        }
        Ok(true)
    }

    /// The name still leads to something of this kind. Keys have no identity beyond that.
    fn check_is(
        &self,
        dir: Ino,
        name: &Name,
        what: What,
        program: &mut Program,
    ) -> Result<bool, Failure> {
        let spot = self.spot(dir, name)?;
        let letter = match what {
            What::Dir => {
                let is_dir = spot.place.dir.as_ref().is_some_and(|dir| self.index.is_dir(dir));
                return Ok(is_dir);
            }
            What::String | What::Field | What::Value => "v",
            What::Collection => "c",
            What::Side => {
                if !self.stores_records() {
                    return Ok(self.memory.get(&spot.prefix, name.as_bytes()).is_some());
                }
                let Some(ino) = self.tree.child(dir, name) else { return Ok(false) };
                match self.tree.get(ino).map(|node| record::letter(node.attr.kind)) {
                    Some('l') => "l",
                    Some('p') => "p",
                    Some('s') => "s",
                    Some('c') => "c",
                    Some('b') => "b",
                    _ => return Ok(false),
                }
            }
        };
        let place = program.place(&spot.place);
        let side = program.side(&spot.prefix);
        program.checks.push(word("is"));
        program.checks.extend(place);
        program.checks.extend([side, name_bytes(name), word(letter)]);
        Ok(true)
    }

    pub(super) fn spot(&self, dir: Ino, name: &Name) -> Result<Spot, Failure> {
        let prefix = self.dir_prefix(dir).ok_or_else(|| errno(Errno::ENOENT))?;
        let place = self.place(dir, name).ok_or_else(|| self.reserved(dir, name))?;
        Ok(Spot { dir, prefix, name: name.clone(), place })
    }

    fn reserved(&self, dir: Ino, name: &Name) -> Failure {
        let dir = self.describe(dir);
        let text = format!("{dir}/{name}: this name is reserved, no key can have it");
        Failure { errno: Errno::EPERM, text: Some(text) }
    }

    pub(super) fn xattrs_of(&self, ino: Ino) -> Result<Bytes, Failure> {
        let gone = || errno(Errno::ESTALE);
        let node = self.tree.get(ino).ok_or_else(gone)?;
        if node.what == What::Dir {
            return Ok(xattr_key(&self.dir_prefix(ino).ok_or_else(gone)?, b""));
        }
        let prefix = self.dir_prefix(node.parent).ok_or_else(gone)?;
        Ok(xattr_key(&prefix, node.name.as_bytes()))
    }

    pub(super) fn lower_change(
        &self,
        change: &Change,
        held: bool,
        token: Token,
        program: &mut Program,
    ) -> Result<(), Failure> {
        match change {
            Change::Create { dir, name, attr, target } => {
                if self.options.is_ignored(name.as_bytes()) {
                    return Err(errno(Errno::EPERM));
                }
                let spot = self.spot(*dir, name)?;
                if attr.kind == Kind::Dir && spot.place.dir.is_none() {
                    return Err(self.reserved(*dir, name));
                }
                self.lower_create(&spot, attr, target.as_ref(), program);
            }
            Change::Unlink { dir, name, ino, kind, held, .. } => {
                let spot = self.spot(*dir, name)?;
                if *kind == Kind::Dir {
                    self.lower_rmdir(&spot, program);
                } else {
                    self.lower_remove(&spot, *ino, *held, token, program)?;
                }
                self.mark_if_emptied(&spot, program);
                program.freeing = true;
            }
            Change::Rename { dir, name, to_dir, to_name, ino, .. } => {
                if self.options.is_ignored(to_name.as_bytes()) {
                    return Err(errno(Errno::EPERM));
                }
                let (from, to) = (self.spot(*dir, name)?, self.spot(*to_dir, to_name)?);
                self.lower_move(&from, &to, *ino, held, token, program)?;
                self.mark_if_emptied(&from, program);
                // It needs no more room than there was before.
                program.freeing = true;
            }
            Change::SetAttr { ino, patch } => self.lower_setattr(*ino, patch, program)?,
            Change::Touch { dir, at, .. } => {
                // The directory has a record, or a step before this one marks it with one.
                if self.stores_records()
                    && let Some(prefix) = self.dir_prefix(*dir)
                {
                    let side = program.side(&prefix);
                    let at = Bytes::from(format!("{}", at.0));
                    program.changes.extend([word("touch"), side, at]);
                }
            }
            Change::Xattr { ino, name, value, at } => {
                let x = self.xattrs_of(*ino)?;
                let x = program.key(Some(x));
                match value {
                    Some(value) => {
                        let name = name_bytes(name);
                        program.changes.extend([word("xset"), x, name, value.clone()]);
                    }
                    None => program.changes.extend([word("xdel"), x, name_bytes(name)]),
                }
                self.lower_setattr(*ino, &status_changed(*at), program)?;
            }
            // None of these is among the capabilities of this layout.
            Change::Link { .. }
            | Change::Exchange { .. }
            | Change::Zero { .. }
            | Change::Grow { .. }
            | Change::Copy { .. } => return Err(errno(Errno::EPERM)),
        }
        Ok(())
    }

    fn lower_create(
        &self,
        spot: &Spot,
        attr: &Attr,
        target: Option<&Bytes>,
        program: &mut Program,
    ) {
        let record = Record::of(attr, target);
        match attr.kind {
            Kind::File => {
                let text = if self.is_default(&record) || !self.stores_records() {
                    Bytes::new()
                } else {
                    record.format()
                };
                let place = program.place(&spot.place);
                program.checks.push(word("room"));
                program.checks.extend(place.clone());
                program.checks.push(word(spot.place.wish()));
                let side = program.side(&spot.prefix);
                program.changes.push(word("make"));
                program.changes.extend(place);
                let wish = word(spot.place.wish());
                program.changes.extend([wish, side, name_bytes(&spot.name), text]);
                program.letters.push((Way::In, spot.place.clone()));
            }
            Kind::Dir => {
                if self.stores_records()
                    && let Some(dir) = &spot.place.dir
                {
                    let side = program.side(dir);
                    let steps = [word("mark"), side, record.format(), word("0")];
                    program.changes.extend(steps);
                }
            }
            _ => {
                if self.stores_records() {
                    let side = program.side(&spot.prefix);
                    let name = name_bytes(&spot.name);
                    program.changes.extend([word("record"), side, name, record.format()]);
                }
            }
        }
    }

    fn lower_rmdir(&self, spot: &Spot, program: &mut Program) {
        let Some(dir) = &spot.place.dir else { return };
        let side = program.side(dir);
        let x = program.key(Some(xattr_key(dir, b"")));
        program.changes.extend([word("unmark"), side, x]);
    }

    fn lower_remove(
        &self,
        spot: &Spot,
        ino: Ino,
        held: bool,
        token: Token,
        program: &mut Program,
    ) -> Result<(), Failure> {
        let what = self.tree.get(ino).map(|node| node.what);
        if what == Some(What::Collection) && !self.options.allow_delete {
            return Err(errno(Errno::EACCES));
        }
        let has_value = !matches!(what, Some(What::Side | What::Collection));
        let orphan = (held && has_value).then(|| orphan_key(token.session, ino));
        let place = program.place(&spot.place);
        let side = program.side(&spot.prefix);
        let x = self.xattr_if_any(spot);
        let x = program.key(x);
        let orphan = program.key(orphan);
        let lease = number(ORPHAN_LEASE.as_millis() as u64);
        program.changes.push(word("remove"));
        program.changes.extend(place);
        program.changes.extend([side, name_bytes(&spot.name), x, orphan, lease]);
        program.letters.push((Way::Out, spot.place.clone()));
        Ok(())
    }

    fn lower_move(
        &self,
        from: &Spot,
        to: &Spot,
        ino: Ino,
        held: bool,
        token: Token,
        program: &mut Program,
    ) -> Result<(), Failure> {
        let is_collection = |ino: Option<Ino>| {
            let node = ino.and_then(|ino| self.tree.get(ino));
            node.is_some_and(|node| node.what == What::Collection)
        };
        let target = self.tree.child(to.dir, &to.name);
        // Text must not take the place of what it was made from, nor a name that cannot hold it.
        if is_collection(Some(ino)) || is_collection(target) {
            return Err(errno(Errno::EACCES));
        }
        let from_place = program.place(&from.place);
        let from_side = program.side(&from.prefix);
        let to_place = program.place(&to.place);
        let to_side = program.side(&to.prefix);
        if self.tree.get(ino).is_some_and(|node| node.what != What::Side) {
            program.checks.push(word("room"));
            program.checks.extend(to_place.clone());
            program.checks.push(word(to.place.wish()));
        }
        let from_x = program.key(Some(xattr_key(&from.prefix, from.name.as_bytes())));
        let to_x = program.key(Some(xattr_key(&to.prefix, to.name.as_bytes())));
        let orphan = target.filter(|_| held).map(|target| orphan_key(token.session, target));
        let orphan = program.key(orphan);
        let lease = number(ORPHAN_LEASE.as_millis() as u64);
        program.changes.push(word("move"));
        program.changes.extend(from_place);
        program.changes.extend([from_side, name_bytes(&from.name), from_x]);
        program.changes.extend(to_place);
        program.changes.extend([to_side, name_bytes(&to.name), to_x]);
        program.changes.extend([word(to.place.wish()), orphan, lease]);
        program.letters.push((Way::Out, from.place.clone()));
        program.letters.push((Way::In, to.place.clone()));
        Ok(())
    }

    /// A directory that only its last key implied goes on to exist when that is taken away here.
    fn mark_if_emptied(&self, spot: &Spot, program: &mut Program) {
        if spot.dir == Ino::ROOT || !self.stores_records() {
            return;
        }
        let gone = match spot.place.dir.as_ref().filter(|dir| self.index.is_dir(dir)) {
            Some(_) => None,
            None => [&spot.place.full, &spot.place.bare]
                .into_iter()
                .flatten()
                .find(|key| self.index.contains_key(key)),
        };
        let emptied = match gone {
            Some(key) => self.index.is_empty_without(&spot.prefix, key),
            // What goes is a subdirectory or a side record: others may still be there, and then
            // a mark too many does no harm.
            None => true,
        };
        if emptied {
            let side = program.side(&spot.prefix);
            let node = self.tree.get(spot.dir);
            let record = match node {
                Some(node) => Record::of(&node.attr, None),
                None => self.default_record(Kind::Dir),
            };
            let unless = program.key(spot.place.bare.clone());
            program.changes.extend([word("mark"), side, record.format(), unless]);
        }
    }

    fn lower_setattr(&self, ino: Ino, patch: &Patch, program: &mut Program) -> Result<(), Failure> {
        let gone = || errno(Errno::ESTALE);
        let node = self.tree.get(ino).ok_or_else(gone)?;
        let place = match &node.orphan {
            Some(orphan) => Place { full: Some(orphan.clone()), ..Place::default() },
            None if node.what == What::Dir => Place::default(),
            None if node.detached => return Err(gone()),
            None => self.spot(node.parent, &node.name)?.place,
        };
        if let Some(size) = patch.size {
            if node.what == What::Collection {
                return Err(errno(Errno::EACCES));
            }
            let place = program.place(&place);
            program.changes.push(word("length"));
            program.changes.extend(place);
            program.changes.push(number(size));
        }
        if !self.stores_records() || node.orphan.is_some() {
            return Ok(());
        }
        let (prefix, name) = if node.what == What::Dir {
            let prefix = self.dir_prefix(ino).ok_or_else(gone)?;
            (prefix, Bytes::from_static(SELF_FIELD))
        } else {
            let prefix = self.dir_prefix(node.parent).ok_or_else(gone)?;
            (prefix, name_bytes(&node.name))
        };
        // Only what a user sets is worth a record; what follows from another change goes into a
        // record that is there.
        let base = if is_explicit(patch) {
            Record::of(&node.attr, None).format()
        } else if self.index.contains_side(&prefix) {
            Bytes::new()
        } else {
            return Ok(());
        };
        let side = program.side(&prefix);
        program.changes.extend([word("patch"), side, name, base]);
        for (field, value) in record::patched_fields(patch) {
            program.changes.extend([word(field), value]);
        }
        program.changes.push(word(";"));
        Ok(())
    }

    fn xattr_if_any(&self, spot: &Spot) -> Option<Bytes> {
        let key = xattr_key(&spot.prefix, spot.name.as_bytes());
        self.index.contains_xattrs(&key).then_some(key)
    }

    pub(super) fn is_default(&self, record: &Record) -> bool {
        let default = self.default_record(record.kind);
        record.perm == default.perm && record.uid == default.uid && record.gid == default.gid
    }
}

/// What a change of extended attributes does to the others.
pub(super) fn status_changed(at: Wall) -> Patch {
    Patch { ctime: Some(at), ..Patch::default() }
}

/// Somebody set these values; they do not just follow from another change.
pub(super) fn is_explicit(patch: &Patch) -> bool {
    let times = patch.atime.is_some() || (patch.mtime.is_some() && patch.size.is_none());
    patch.perm.is_some() || patch.uid.is_some() || patch.gid.is_some() || times
}

fn is_side(record: &Record) -> bool {
    !matches!(record.kind, Kind::File | Kind::Dir)
}

fn name_bytes(name: &Name) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn errno(errno: Errno) -> Failure {
    Failure { errno, text: None }
}
