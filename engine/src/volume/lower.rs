//! Plans to steps of the commit script. What a plan changes of one inode becomes one step.

use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command};
use crate::decide::{Change, Check, Patch, Plan};
use crate::id::{Ino, Token};
use crate::op::{Kind, Name, XattrMode};

use super::key::Key;
use super::record::{Inode, Stamp, is_acl, member};
use super::{TOKEN_SLOTS, Volume, decimal, scripts};

/// How many directories above one a plan can check; deeper moves ask again and again.
const DEEPEST: usize = 2048;

/// What the script answers beside stamps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Dropped(Ino),
    Sized(Ino, u64),
    Grown(Ino, u64),
}

/// A plan in the script's words.
#[derive(Clone, Debug)]
pub(super) struct Program {
    keys: Args,
    args: Args,
    freeing: bool,
    pub(super) stamp: Stamp,
    /// The inodes whose former stamps are answered, in order.
    pub(super) seen: Vec<Ino>,
    /// Those of them that get the new stamp.
    pub(super) changed: Vec<Ino>,
    pub(super) results: Vec<Answered>,
}

/// What is to be set of one inode.
struct Set {
    ino: Ino,
    fields: Vec<(&'static str, Bytes)>,
    nlink: i64,
}

struct Lowering<'a> {
    volume: &'a mut Volume,
    program: Program,
    sets: Vec<Set>,
}

impl Volume {
    /// `None` when the plan stands on what this mount does not know (any more).
    pub(super) fn lower(&mut self, plan: &Plan, token: Token) -> Option<Program> {
        let mount = self.mount;
        // Always there, as rights may be given by key: a plan that does no harm when it is applied
        // twice names no slot instead.
        let slot = if plan.once { decimal(token.serial % TOKEN_SLOTS) } else { Bytes::new() };
        let keys: Args = smallvec![
            self.key(Key::Tokens(mount)),
            self.key(Key::Usage),
            self.key(Key::Sessions),
            self.key(Key::Graves),
            self.key(Key::Queue),
            self.key(Key::Held(mount)),
        ];
        let stamp = self.next_stamp();
        let args: Args = smallvec![
            slot,
            decimal(token.serial),
            stamp.to_bytes(),
            decimal(self.capacity),
            decimal(self.inodes),
        ];
        let program = Program {
            keys,
            args,
            freeing: true,
            stamp,
            seen: Vec::new(),
            changed: Vec::new(),
            results: Vec::new(),
        };
        let mut lowering = Lowering { volume: self, program, sets: Vec::new() };
        for check in &plan.checks {
            lowering.check(check)?;
        }
        for change in &plan.changes {
            lowering.precondition(change);
        }
        for change in &plan.changes {
            lowering.change(change)?;
        }
        Some(lowering.finish())
    }
}

impl Program {
    pub(super) fn command(&self) -> Command {
        let script = if self.freeing { &scripts::COMMIT_FREEING } else { &scripts::COMMIT };
        Command::Script { script, keys: self.keys.clone(), args: self.args.clone() }
    }
}

impl Lowering<'_> {
    fn word(&mut self, word: &'static str) {
        self.program.args.push(Bytes::from_static(word.as_bytes()));
    }

    fn arg(&mut self, arg: Bytes) {
        self.program.args.push(arg);
    }

    /// Points to a key.
    fn key(&mut self, key: Key) {
        let key = self.volume.key(key);
        let at = self.program.keys.iter().position(|it| *it == key).unwrap_or_else(|| {
            self.program.keys.push(key);
            self.program.keys.len() - 1
        });
        self.arg(decimal(at as u64 + 1));
    }

    /// Points to an inode whose stamp is told.
    fn look(&mut self, ino: Ino) {
        if !self.program.seen.contains(&ino) {
            self.program.seen.push(ino);
        }
        self.key(Key::Inode(ino));
    }

    fn entry(&mut self, name: &Name, ino: Ino) -> Option<Bytes> {
        let kind = self.volume.tree.get(ino)?.kind;
        Some(member(name, kind, ino))
    }

    fn check(&mut self, check: &Check) -> Option<()> {
        match check {
            Check::LiveDir(dir) => {
                self.word("dir");
                self.look(*dir);
            }
            Check::Live(ino) => {
                self.word("live");
                self.look(*ino);
            }
            Check::Links(ino, n) => {
                self.word("links");
                self.look(*ino);
                self.arg(decimal(u64::from(*n)));
            }
            Check::Free(dir, name) => {
                self.word("free");
                self.key(Key::Dir(*dir));
                self.arg(Bytes::copy_from_slice(name.as_bytes()));
            }
            Check::Leads(dir, name, ino) => {
                let entry = self.entry(name, *ino)?;
                self.word("leads");
                self.key(Key::Dir(*dir));
                self.arg(entry);
            }
            Check::Empty(dir) => {
                self.word("empty");
                self.key(Key::Dir(*dir));
            }
            Check::NotBelow { dir, ancestor } => self.not_below(*dir, *ancestor)?,
            Check::Xattr(ino, name, mode) => {
                self.word("has");
                self.key(Key::Xattrs(*ino));
                self.arg(Bytes::copy_from_slice(name.as_bytes()));
                self.arg(decimal(u64::from(*mode == XattrMode::Replace)));
            }
        }
        Some(())
    }

    /// The directories above `dir` are those this mount knows, and `ancestor` is not among them.
    fn not_below(&mut self, dir: Ino, ancestor: Ino) -> Option<()> {
        let chain = self.volume.tree.chain(dir)?;
        if dir == ancestor || chain.contains(&ancestor) || chain.len() > DEEPEST {
            return None;
        }
        let mut at = dir;
        for up in chain {
            self.word("parent");
            self.key(Key::Inode(at));
            self.arg(decimal(up.0));
            at = up;
        }
        Some(())
    }

    /// What the volume's limits say about a change.
    fn precondition(&mut self, change: &Change) {
        match change {
            Change::Create { attr, .. } => {
                self.word("fresh");
                self.key(Key::Inode(attr.ino));
                self.word("room");
                self.arg(decimal(1));
            }
            Change::Zero { ino, .. } => self.holds(*ino),
            Change::Copy { from, to, .. } => {
                self.holds(from.0);
                if from.0 != to.0 {
                    self.holds(to.0);
                }
            }
            Change::Grow { ino, size }
            | Change::SetAttr { ino, patch: Patch { size: Some(size), .. } } => {
                self.word("fits");
                self.key(Key::Inode(*ino));
                self.arg(decimal(*size));
            }
            _ => {}
        }
    }

    fn change(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::Create { dir, name, attr, target } => {
                self.program.freeing = false;
                let parent = (attr.kind == Kind::Dir).then_some(*dir);
                let mut fields = Inode::new(*attr, parent, self.program.stamp).pairs();
                if let Some(target) = target {
                    fields.push(("target", target.clone()));
                }
                self.word("new");
                self.key(Key::Inode(attr.ino));
                self.fields(fields);
                self.add(*dir, member(name, attr.kind, attr.ino));
            }
            Change::Link { ino, dir, name } => {
                self.program.freeing = false;
                let entry = self.entry(name, *ino)?;
                self.add(*dir, entry);
                self.set(*ino).nlink += 1;
            }
            Change::Unlink { dir, name, ino, kind, last, held } => {
                self.remove(*dir, member(name, *kind, *ino));
                if *last {
                    self.drop_inode(*ino, *kind, *held);
                } else {
                    self.set(*ino).nlink -= 1;
                }
            }
            Change::Rename { dir, name, to_dir, to_name, ino, kind } => {
                self.remove(*dir, member(name, *kind, *ino));
                self.add(*to_dir, member(to_name, *kind, *ino));
                self.moved(*ino, *kind, *dir, *to_dir);
            }
            Change::Exchange { a, b } => {
                let (at_a, at_b) = (self.entry(&a.1, a.2)?, self.entry(&b.1, b.2)?);
                let (to_a, to_b) = (self.entry(&a.1, b.2)?, self.entry(&b.1, a.2)?);
                self.remove(a.0, at_a);
                self.remove(b.0, at_b);
                self.add(a.0, to_a);
                self.add(b.0, to_b);
                let kind = |lowering: &Self, ino| Some(lowering.volume.tree.get(ino)?.kind);
                let (of_a, of_b) = (kind(self, a.2)?, kind(self, b.2)?);
                self.moved(a.2, of_a, a.0, b.0);
                self.moved(b.2, of_b, b.0, a.0);
            }
            Change::SetAttr { ino, patch } => self.patch(*ino, patch),
            // Not among the capabilities of this layout.
            Change::Zero { ino, from, to } => self.zero(*ino, *from, *to)?,
            Change::Grow { ino, size } => {
                self.program.freeing = false;
                self.word("grow");
                self.key(Key::Inode(*ino));
                self.arg(decimal(ino.0));
                self.arg(decimal(*size));
                self.program.results.push(Answered::Grown(*ino, *size));
            }
            Change::Copy { from, to, length } => self.copy(*from, *to, *length)?,
            Change::Touch { dir, at, nlink } => {
                let at = Bytes::from(alloc::format!("{}", at.0));
                let set = self.set(*dir);
                set.fields.extend([("mtime", at.clone()), ("ctime", at)]);
                set.nlink += i64::from(*nlink);
            }
            Change::Xattr { ino, name, value, at } => {
                let listed = is_acl(name);
                let name = Bytes::copy_from_slice(name.as_bytes());
                match value {
                    Some(value) => {
                        self.program.freeing = false;
                        if listed {
                            self.set(*ino).fields.push(("acl", decimal(1)));
                        }
                        self.word("xset");
                        self.key(Key::Xattrs(*ino));
                        self.arg(name);
                        self.arg(value.clone());
                    }
                    None => {
                        self.word("xdel");
                        self.key(Key::Xattrs(*ino));
                        self.arg(name);
                    }
                }
                let at = Bytes::from(alloc::format!("{}", at.0));
                self.set(*ino).fields.push(("ctime", at));
            }
        }
        Some(())
    }

    /// The blocks that a change is about are those of the contents.
    fn holds(&mut self, ino: Ino) {
        let data = self.volume.tree.get(ino).map_or(ino.0, |node| node.data.0);
        self.word("holds");
        self.key(Key::Inode(ino));
        self.arg(decimal(ino.0));
        self.arg(decimal(data));
    }

    fn zero(&mut self, ino: Ino, from: u64, to: u64) -> Option<()> {
        let block = u64::from(self.volume.block);
        let node = self.volume.tree.get(ino)?;
        // Behind the end there is nothing.
        let (data, to) = (node.data, to.min(node.size));
        let mut at = from;
        while at < to {
            let (n, start) = (at / block, at % block);
            let end = to.min((n + 1) * block);
            let whole = start == 0 && end == (n + 1) * block;
            self.word("zero");
            self.key(Key::Block(data, n));
            self.arg(if whole { Bytes::from_static(b"-1") } else { decimal(start) });
            self.arg(decimal(end - at));
            at = end;
        }
        Some(())
    }

    fn copy(&mut self, from: (Ino, u64), to: (Ino, u64), length: u64) -> Option<()> {
        self.program.freeing = false;
        let block = u64::from(self.volume.block);
        let source = self.volume.tree.get(from.0)?.data;
        let target = self.volume.tree.get(to.0)?.data;
        let mut done = 0;
        while done < length {
            let (at, to_at) = (from.1 + done, to.1 + done);
            let room = (block - at % block).min(block - to_at % block);
            let piece = room.min(length - done);
            self.word("copy");
            self.key(Key::Block(source, at / block));
            self.arg(decimal(at % block));
            self.arg(decimal(piece));
            self.key(Key::Block(target, to_at / block));
            self.arg(decimal(to_at % block));
            done += piece;
        }
        Some(())
    }

    fn set(&mut self, ino: Ino) -> &mut Set {
        let at = self.sets.iter().position(|set| set.ino == ino).unwrap_or_else(|| {
            self.sets.push(Set { ino, fields: Vec::new(), nlink: 0 });
            self.sets.len() - 1
        });
        &mut self.sets[at]
    }

    fn add(&mut self, dir: Ino, entry: Bytes) {
        self.word("add");
        self.key(Key::Dir(dir));
        self.arg(entry);
    }

    fn remove(&mut self, dir: Ino, entry: Bytes) {
        self.word("rem");
        self.key(Key::Dir(dir));
        self.arg(entry);
    }

    fn moved(&mut self, ino: Ino, kind: Kind, from: Ino, to: Ino) {
        if kind == Kind::Dir && from != to {
            self.set(ino).fields.push(("parent", decimal(to.0)));
        }
    }

    fn drop_inode(&mut self, ino: Ino, kind: Kind, held: bool) {
        self.word("drop");
        self.look(ino);
        self.key(Key::Xattrs(ino));
        self.arg(decimal(ino.0));
        self.arg(decimal(u64::from(held)));
        // The only block of a small file goes along.
        let block = self.volume.block;
        let small = self.volume.tree.get(ino).filter(|node| {
            let reach = node.size.max(node.stale);
            kind == Kind::File && reach > 0 && reach <= u64::from(block)
        });
        match small.map(|node| node.data) {
            Some(data) => {
                self.key(Key::Block(data, 0));
                self.arg(decimal(data.0));
            }
            None => {
                self.arg(decimal(0));
                self.arg(decimal(0));
            }
        }
        self.arg(decimal(u64::from(block)));
        self.program.changed.push(ino);
        self.program.results.push(Answered::Dropped(ino));
    }

    fn patch(&mut self, ino: Ino, patch: &Patch) {
        if let Some(size) = patch.size {
            let known = self.volume.tree.get(ino).map_or(0, |node| node.size);
            self.program.freeing &= size <= known;
            self.word("size");
            self.key(Key::Inode(ino));
            self.arg(decimal(ino.0));
            self.arg(decimal(size));
            // Asked for before the plan was lowered when there is none left.
            let fresh = self.volume.fresh_number().unwrap_or(ino.0);
            self.arg(decimal(fresh));
            self.program.results.push(Answered::Sized(ino, size));
        }
        let number = |n: Option<u32>| n.map(|n| decimal(u64::from(n)));
        let time = |at: crate::time::Wall| Bytes::from(alloc::format!("{}", at.0));
        let fields = [
            ("mode", number(patch.perm.map(u32::from))),
            ("uid", number(patch.uid)),
            ("gid", number(patch.gid)),
            ("atime", patch.atime.map(time)),
            ("mtime", patch.mtime.map(time)),
            ("ctime", patch.ctime.map(time)),
        ];
        let set = self.set(ino);
        set.fields.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }

    fn fields(&mut self, fields: Vec<(&'static str, Bytes)>) {
        self.arg(decimal(fields.len() as u64 * 2));
        for (name, value) in fields {
            self.word(name);
            self.arg(value);
        }
    }

    fn finish(mut self) -> Program {
        for Set { ino, fields, nlink } in core::mem::take(&mut self.sets) {
            self.word("set");
            self.look(ino);
            self.fields(fields);
            self.program.changed.push(ino);
            if nlink != 0 {
                self.word("inc");
                self.key(Key::Inode(ino));
                self.arg(Bytes::from(alloc::format!("{nlink}")));
            }
        }
        self.program
    }
}
