//! Wants to questions, answers to facts. What this mount knows of a directory answers without a
//! question.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::decide::{Fact, Facts, Want};
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Epoch, Failure, Outcome, Step, Work};
use crate::op::{Name, StatFs, Whence};

use super::key::Key;
use super::record::{Inode, Member, is_acl};
use super::{FILE_LIMIT, Ticket, Volume, count, decimal, scripts};

/// How many directories up is looked for another.
const DEEPEST: u64 = 4096;

/// How many blocks one step of a search looks at.
const SOUGHT: u64 = 256;

/// Questions on their way.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Answered already.
    known: Facts,
    /// What each reply is about.
    wants: Vec<Want>,
    since: Epoch,
}

/// The fields of an inode, as arguments.
pub(super) fn inode_fields() -> impl Iterator<Item = Bytes> {
    Inode::FIELDS.into_iter().map(|field| Bytes::from_static(field.as_bytes()))
}

impl Volume {
    pub(super) fn start_fetch(&mut self, wants: &[Want]) -> Step<Self> {
        let mut asked = Asked { known: Facts::new(), wants: Vec::new(), since: self.epoch };
        let mut commands = Vec::new();
        for want in wants {
            if let Some(fact) = self.known(want) {
                asked.known.insert(want.clone(), fact);
            } else {
                commands.push(self.question(want));
                asked.wants.push(want.clone());
            }
        }
        if commands.is_empty() {
            return Step::Done(Outcome::Facts(asked.known));
        }
        let work = Self::work(Lane::Meta, commands, Ticket::Facts(asked));
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    fn known(&mut self, want: &Want) -> Option<Fact> {
        match want {
            Want::Entry(dir, name) if self.live.is_live() => {
                let found = self.tree.entry(*dir, name)?;
                if found.is_none() {
                    // So that the kernel may be told, and told of a change.
                    self.tree.learn_name(*dir, name, None);
                }
                Some(Fact::Entry(found.map(|(_, ino)| ino)))
            }
            Want::FreshIno(..) => self.fresh_number().map(|n| Fact::FreshIno(Ino(n))),
            Want::Xattr(ino, name) if self.live.is_live() && is_acl(name) => {
                let has_none = self.tree.get(*ino)?.acl == Some(false);
                has_none.then_some(Fact::Xattr(None))
            }
            _ => None,
        }
    }

    fn question(&self, want: &Want) -> Command {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        match want {
            Want::Entry(dir, name) => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                let mut args: Args = smallvec![self.inode_prefix(), name];
                args.extend(inode_fields());
                let keys = smallvec![self.key(Key::Dir(*dir))];
                Command::Script { script: &scripts::LOOK, keys, args }
            }
            Want::Attr(ino) => self.read_inode(*ino),
            Want::Empty(dir) => Command::plain([word("EXISTS"), self.key(Key::Dir(*dir))]),
            Want::Below { dir, .. } => Command::Script {
                script: &scripts::CHAIN,
                keys: smallvec![self.key(Key::Inode(*dir))],
                args: smallvec![self.inode_prefix(), decimal(dir.0), decimal(DEEPEST)],
            },
            Want::Target(ino) => {
                Command::plain([word("HGET"), self.key(Key::Inode(*ino)), word("target")])
            }
            Want::Xattr(ino, name) => {
                let name = Bytes::copy_from_slice(name.as_bytes());
                Command::plain([word("HGET"), self.key(Key::Xattrs(*ino)), name])
            }
            Want::XattrNames(ino) => Command::plain([word("HKEYS"), self.key(Key::Xattrs(*ino))]),
            Want::StatFs => Command::Script {
                script: &scripts::FIGURES,
                keys: smallvec![self.key(Key::Usage)],
                args: smallvec![],
            },
            Want::FreshIno(..) => self.ask_for_numbers(),
            Want::Seek(ino, from, whence) => self.seek(*ino, *from, *whence),
        }
    }

    /// What the keys of inodes begin with.
    pub(super) fn inode_prefix(&self) -> Bytes {
        Bytes::from([&self.keys.prefix()[..], b"i:"].concat())
    }

    /// Looks for data or a hole, some blocks at a time.
    fn seek(&self, ino: Ino, from: u64, whence: Whence) -> Command {
        let letter: &'static [u8] = match whence {
            Whence::Data => b"d",
            Whence::Hole => b"h",
        };
        Command::Script {
            script: &scripts::SEEK,
            keys: smallvec![self.key(Key::Inode(ino))],
            args: smallvec![
                self.keys.block_prefix(),
                decimal(ino.0),
                decimal(u64::from(self.block)),
                decimal(from.min(FILE_LIMIT)),
                Bytes::from_static(letter),
                decimal(SOUGHT),
            ],
        }
    }

    pub(super) fn read_inode(&self, ino: Ino) -> Command {
        let head = [Bytes::from_static(b"HMGET"), self.key(Key::Inode(ino))];
        Command::plain(head.into_iter().chain(inode_fields()))
    }

    pub(super) fn fetched(
        &mut self,
        asked: Asked,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Asked { known: mut facts, wants, since } = asked;
        let mut again = Asked { known: Facts::new(), wants: Vec::new(), since };
        let mut commands = Vec::new();
        for (want, reply) in wants.iter().zip(replies) {
            if let (Want::Seek(ino, _, whence), Some([Reply::Int(2), on])) =
                (want, reply.as_array())
            {
                commands.push(self.seek(*ino, count(Some(on)).unwrap_or(u64::MAX), *whence));
                again.wants.push(want.clone());
                continue;
            }
            if let Err(failure) = self.answer(want, reply, &mut facts, since, cx) {
                return Step::Fail(failure);
            }
        }
        if !commands.is_empty() {
            again.known = facts;
            return Step::Work(Self::work(Lane::Meta, commands, Ticket::Facts(again)));
        }
        Step::Done(Outcome::Facts(facts))
    }

    fn answer(
        &mut self,
        want: &Want,
        reply: &Reply,
        facts: &mut Facts,
        since: Epoch,
        cx: &mut Cx<Redis>,
    ) -> Result<(), Failure> {
        let odd = |volume: &Self| volume.odd(&format!("asking for {want:?}"), Some(reply));
        if reply.as_error().is_some() {
            return Err(odd(self));
        }
        let fact = match want {
            Want::Entry(dir, name) => match reply {
                Reply::Nil => {
                    self.tree.learn_name(*dir, name, None);
                    Fact::Entry(None)
                }
                Reply::Array(found) => {
                    let member =
                        found.first().and_then(Reply::as_bytes).ok_or_else(|| odd(self))?;
                    let member =
                        Member::parse(*dir, member).map_err(|corrupt| self.corrupt(&corrupt))?;
                    let values = found.get(1).and_then(Reply::as_array).unwrap_or_default();
                    let at = Some((*dir, name.clone()));
                    let attr = self.take_inode(member.ino, values, at, since, cx)?;
                    self.tree.learn_name(*dir, name, Some((member.kind, member.ino)));
                    facts.insert(Want::Attr(member.ino), attr);
                    Fact::Entry(Some(member.ino))
                }
                _ => return Err(odd(self)),
            },
            Want::Attr(ino) => {
                let values = reply.as_array().ok_or_else(|| odd(self))?;
                self.take_inode(*ino, values, None, since, cx)?
            }
            Want::Empty(_) => Fact::Empty(reply.as_int() == Some(0)),
            Want::Below { dir, ancestor } => {
                let chain = reply.as_array().ok_or_else(|| odd(self))?;
                Fact::Below(self.take_chain(*dir, *ancestor, chain))
            }
            Want::Target(_) => match reply {
                Reply::Bulk(target) => Fact::Target(target.clone()),
                _ => Fact::Target(Bytes::new()),
            },
            Want::Xattr(..) => match reply {
                Reply::Bulk(value) => Fact::Xattr(Some(value.clone())),
                _ => Fact::Xattr(None),
            },
            Want::XattrNames(_) => {
                let names = reply.as_array().ok_or_else(|| odd(self))?;
                let mut names: Vec<Name> =
                    names.iter().filter_map(Reply::as_bytes).map(Name::from).collect();
                names.sort_unstable();
                Fact::XattrNames(names)
            }
            Want::StatFs => Fact::StatFs(self.figures(reply).ok_or_else(|| odd(self))?),
            Want::Seek(..) => match reply.as_array() {
                Some([Reply::Int(1), at]) => Fact::Seek(count(Some(at))),
                _ => Fact::Seek(None),
            },
            Want::FreshIno(..) => {
                // Another question may have brought some meanwhile.
                if self.numbers.0 >= self.numbers.1 && !self.take_numbers(Some(reply)) {
                    return Err(odd(self));
                }
                let fresh = self.fresh_number().ok_or_else(|| odd(self))?;
                Fact::FreshIno(Ino(fresh))
            }
        };
        facts.insert(want.clone(), fact);
        Ok(())
    }

    /// An inode as the server has just told of it.
    pub(super) fn take_inode(
        &mut self,
        ino: Ino,
        values: &[Reply],
        at: Option<(Ino, Name)>,
        since: Epoch,
        cx: &mut Cx<Redis>,
    ) -> Result<Fact, Failure> {
        let parsed = Inode::parse(ino, values).map_err(|corrupt| self.corrupt(&corrupt))?;
        let Some(inode) = parsed else { return Ok(Fact::Attr(None)) };
        self.told(&inode, at, since, cx);
        Ok(Fact::Attr(Some(inode.attr)))
    }

    /// Remembers the directories above one; whether `ancestor` is one of them, or it itself.
    fn take_chain(&mut self, dir: Ino, ancestor: Ino, chain: &[Reply]) -> bool {
        let ups = chain.iter().filter_map(|up| count(Some(up))).map(Ino);
        let (mut at, mut below) = (dir, dir == ancestor);
        for up in ups {
            if let Some(node) = self.tree.get_mut(at) {
                node.parent = up;
            }
            below |= up == ancestor;
            at = up;
        }
        below
    }

    /// Figures for `statfs`: the limits of the volume, or else the server's memory.
    fn figures(&self, reply: &Reply) -> Option<StatFs> {
        let items = reply.as_array()?;
        let [inodes, bytes, used, most, system] =
            [0, 1, 2, 3, 4].map(|n| count(items.get(n)).unwrap_or(0));
        let memory = if most > 0 { most } else { system };
        let room = memory.saturating_sub(used);
        let (bytes_total, bytes_free) = match (self.capacity, memory) {
            (0, 0) => (bytes + (1 << 40), 1 << 40),
            (0, _) => (bytes + room, room),
            (capacity, 0) => (capacity, capacity.saturating_sub(bytes)),
            (capacity, _) => (capacity, capacity.saturating_sub(bytes).min(room)),
        };
        // An inode and its name take some 256 bytes of the server.
        let files_free = match self.inodes {
            0 => bytes_free / 256,
            limit => limit.saturating_sub(inodes),
        };
        Some(StatFs { bytes_total, bytes_free, files_total: inodes + files_free, files_free })
    }
}
