//! Reading and writing blocks.
//!
//! A small write is one script that sets the blocks and the length together. A large one is a
//! transaction of plain commands behind the script that makes them count, so that megabytes do not
//! pass through the scripts' memory. Both are one round trip, and all or nothing. A read asks
//! beside the blocks whether the contents still are those: their number changes when they are
//! replaced, and the blocks of the old ones are removed in the background.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane};
use crate::layout::{Data, Failure, Outcome, Step, Work, WriteOut};

use super::clean::Then;
use super::key::{DataId, Key};
use super::record::Stamp;
use super::{Ticket, Volume, count, decimal, scripts};

/// What is no more than this goes with the metadata: nothing there waits long for it, and its push
/// comes with its reply.
const SMALL: usize = 16 << 10;
/// The most bytes that are passed through a script at a time.
const SCRIPTED: usize = 256 << 10;
/// The most pieces that one script writes.
const PIECES: usize = 1024;
/// The arguments of the write script that come before the pieces.
pub(super) const WRITE_HEAD: usize = 8;
/// How often something is tried again that others keep from coming to an end.
const TRIES: u32 = 16;

/// A range of a file on its way.
#[derive(Clone, Debug)]
pub struct Reading {
    ino: Ino,
    offset: u64,
    len: u32,
    data: DataId,
    tries: u32,
}

/// Extents on their way.
#[derive(Clone, Debug)]
pub struct Writing {
    ino: Ino,
    out: WriteOut,
    tries: u32,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// Fresh numbers, before anything can be written.
    Numbers,
    /// The removal of blocks that were written where they do not count; then the end, or again.
    Unwrite(Option<Errno>),
    /// The scripts are the first `scripts` commands; plain commands follow when `plain`.
    Extents { into: DataId, stamp: Stamp, scripts: usize, plain: bool },
}

/// A piece of a block: its number, where in it, the bytes.
pub(super) type Piece = (u64, u64, Bytes);

impl Volume {
    // ---- reading

    pub(super) fn start_data_read(&mut self, ino: Ino, offset: u64, len: u32) -> Step<Self> {
        self.read_again(ino, offset, len, 0)
    }

    fn read_again(&mut self, ino: Ino, offset: u64, len: u32, tries: u32) -> Step<Self> {
        let Some(node) = self.tree.get(ino) else { return Step::fail(Errno::ESTALE) };
        let (data, block) = (node.data, u64::from(self.block));
        let end = offset + u64::from(len);
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let mut commands = Vec::new();
        for n in offset / block..end.div_ceil(block) {
            let key = self.block_key(data, n);
            let from = offset.saturating_sub(n * block);
            let to = (end - n * block).min(block);
            commands.push(if from == 0 && to == block {
                Command::plain([word("GET"), key])
            } else {
                Command::plain([word("GETRANGE"), key, decimal(from), decimal(to - 1)])
            });
        }
        let fields = ["HMGET", "size", "data", "nlink"].map(word);
        let [command, size, of, nlink] = fields;
        commands.push(Command::plain([command, self.key(Key::Inode(ino)), size, of, nlink]));
        let ticket = Ticket::Read(Reading { ino, offset, len, data, tries });
        Step::Work(Self::work(Lane::Bulk, commands, ticket))
    }

    pub(super) fn data_read(&mut self, reading: Reading, mut replies: Vec<Reply>) -> Step<Self> {
        let Reading { ino, offset, len, data, tries } = reading;
        let what = format!("reading {}", crate::layout::Layout::describe(self, ino));
        if let Some(line) = Reply::error_among(&replies) {
            return Step::Fail(self.refused(line, &what));
        }
        let Some(Reply::Array(inode)) = replies.pop() else {
            return Step::Fail(self.odd(&what, None));
        };
        if inode.iter().all(|value| *value == Reply::Nil) {
            return Step::fail(Errno::ESTALE);
        }
        let Some(size) = count(inode.first()) else {
            return Step::Fail(self.odd(&what, inode.first()));
        };
        let now = DataId(count(inode.get(1)).unwrap_or(ino.0));
        if now != data {
            if tries >= TRIES {
                return Step::fail(Errno::EBUSY);
            }
            if let Some(node) = self.tree.get_mut(ino) {
                node.data = now;
            }
            return self.read_again(ino, offset, len, tries + 1);
        }
        let end = (offset + u64::from(len)).min(size).max(offset);
        let bytes = self.assemble(offset, end, replies);
        Step::Done(Outcome::Data(Data { offset, bytes, end: end >= size }))
    }

    /// The bytes from `offset` to `end`; blocks that are short or missing go on with zeros.
    fn assemble(&self, offset: u64, end: u64, blocks: Vec<Reply>) -> Bytes {
        let block = u64::from(self.block);
        let want = (end - offset) as usize;
        if let [Reply::Bulk(only)] = &blocks[..]
            && only.len() >= want
        {
            return only.slice(..want);
        }
        let mut bytes = Vec::with_capacity(want);
        for (n, reply) in (offset / block..).zip(blocks) {
            let to = (((n + 1) * block).min(end).max(offset) - offset) as usize;
            if let Some(piece) = reply.as_bytes() {
                let room = to.saturating_sub(bytes.len());
                bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            bytes.resize(to.max(bytes.len()), 0);
        }
        bytes.resize(want, 0);
        Bytes::from(bytes)
    }

    // ---- writing

    pub(super) fn start_data_write(
        &mut self,
        ino: Ino,
        out: WriteOut,
        tries: u32,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Some(node) = self.tree.get(ino) else { return Step::fail(Errno::ESTALE) };
        if tries >= TRIES {
            return Step::fail(Errno::EBUSY);
        }
        let (old, replace) = (node.data, out.replace && (node.size > 0 || node.stale > 0));
        let into = match (replace, self.fresh_number()) {
            (false, _) => old,
            (true, Some(fresh)) => DataId(fresh),
            (true, None) => {
                let commands = alloc::vec![self.ask_for_numbers()];
                let writing = Writing { ino, out, tries, what: What::Numbers };
                let ticket = Ticket::Write(Box::new(writing));
                return Step::Work(Self::work(Lane::Bulk, commands, ticket));
            }
        };
        let pieces = self.pieces(&out);
        let total: usize = pieces.iter().map(|(.., bytes)| bytes.len()).sum();
        let reach = out.extents.last().map_or(0, |(at, bytes)| at + bytes.len() as u64);
        let plain = total > SCRIPTED && total / pieces.len().max(1) >= 8 << 10;
        let stamp = self.next_stamp();
        let head = |how: &'static str, reach: u64| -> Args {
            smallvec![
                Bytes::from_static(how.as_bytes()),
                stamp.to_bytes(),
                Bytes::from(format!("{}", out.mtime.0)),
                decimal(reach),
                decimal(ino.0),
                decimal(into.0),
                Bytes::from_static(b"0"),
                decimal(self.capacity),
            ]
        };
        let how = if replace { "r" } else { "w" };
        let mut commands = Vec::new();
        if plain || pieces.is_empty() {
            commands.push(self.write_script(ino, into, head(how, reach), &[]));
        } else {
            for (n, group) in groups(&pieces).enumerate() {
                let end = group.last().map_or(reach, |(n, at, bytes)| {
                    n * u64::from(self.block) + at + bytes.len() as u64
                });
                let args = head(if n == 0 { how } else { "w" }, end);
                commands.push(self.write_script(ino, into, args, group));
            }
        }
        let scripts = commands.len();
        if plain {
            for (n, at, bytes) in pieces {
                let key = self.block_key(into, n);
                commands.push(if at == 0 && bytes.len() == self.block as usize {
                    Command::plain([Bytes::from_static(b"SET"), key, bytes])
                } else {
                    Command::plain([Bytes::from_static(b"SETRANGE"), key, decimal(at), bytes])
                });
            }
        }
        self.own(ino, cx.now.mono);
        let mode = match (plain, scripts) {
            (true, _) => Mode::Atomic,
            (false, 1) => Mode::Independent,
            (false, _) => Mode::Ordered,
        };
        let what = What::Extents { into, stamp, scripts, plain };
        let writing = Writing { ino, out, tries, what };
        let lane = if total <= SMALL { Lane::Meta } else { Lane::Bulk };
        let work = Self::work(lane, commands, Ticket::Write(Box::new(writing)));
        Step::Work(Work { mode, ..work })
    }

    /// What is to be written, cut at the ends of blocks.
    pub(super) fn pieces(&self, out: &WriteOut) -> Vec<Piece> {
        let block = u64::from(self.block);
        let mut pieces = Vec::new();
        for (offset, bytes) in &out.extents {
            let (mut offset, mut rest) = (*offset, bytes.clone());
            while !rest.is_empty() {
                let at = offset % block;
                let piece = rest.split_to(rest.len().min((block - at) as usize));
                let len = piece.len() as u64;
                pieces.push((offset / block, at, piece));
                offset += len;
            }
        }
        pieces
    }

    fn write_script(&self, ino: Ino, into: DataId, mut args: Args, pieces: &[Piece]) -> Command {
        let mut keys: Args =
            smallvec![self.key(Key::Inode(ino)), self.key(Key::Usage), self.key(Key::Queue)];
        self.add_pieces(into, pieces, &mut keys, &mut args);
        Command::Script { script: &scripts::WRITE, keys, args }
    }

    pub(super) fn add_pieces(
        &self,
        into: DataId,
        pieces: &[Piece],
        keys: &mut Args,
        args: &mut Args,
    ) {
        let mut last = None;
        for (n, at, bytes) in pieces {
            if last != Some(*n) {
                keys.push(self.block_key(into, *n));
                last = Some(*n);
            }
            args.push(decimal(keys.len() as u64));
            let whole = *at == 0 && bytes.len() == self.block as usize;
            args.push(if whole { Bytes::from_static(b"-1") } else { decimal(*at) });
            args.push(bytes.clone());
        }
    }

    pub(super) fn data_written(
        &mut self,
        writing: Writing,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Writing { ino, out, tries, what } = writing;
        let doing = format!("writing {}", crate::layout::Layout::describe(self, ino));
        if let Some(line) = Reply::error_among(replies) {
            return Step::Fail(self.refused(line, &doing));
        }
        let (into, stamp, scripts, plain) = match what {
            What::Extents { into, stamp, scripts, plain } => (into, stamp, scripts, plain),
            What::Numbers if self.take_numbers(replies.first()) => {
                return self.start_data_write(ino, out, tries, cx);
            }
            What::Numbers => return Step::Fail(self.odd(&doing, replies.first())),
            What::Unwrite(Some(Errno::ENOSPC)) => return Step::Fail(self.full(&doing)),
            What::Unwrite(Some(errno)) => return Step::fail(errno),
            What::Unwrite(None) => return self.start_data_write(ino, out, tries + 1, cx),
        };
        let mut size = 0;
        for reply in &replies[..scripts.min(replies.len())] {
            let answer = reply.as_array().unwrap_or_default();
            let (first, second) = (count(answer.get(1)), count(answer.get(2)));
            match answer.first().and_then(Reply::as_bytes) {
                Some(b"ok") => {
                    size = first.unwrap_or(0);
                    let former = answer.get(2).and_then(Reply::as_bytes);
                    let former = Some(former.map_or(Stamp::default(), Stamp::parse));
                    self.stamped(ino, former, stamp, cx);
                    self.wrote(ino, into, size, out.mtime);
                }
                Some(b"gone") => {
                    let gone = Some(Errno::ESTALE);
                    return self.unwrite(plain, into, (ino, out, tries), gone, cx);
                }
                Some(b"moved") => {
                    if let (Some(node), Some(data)) = (self.tree.get_mut(ino), first) {
                        node.data = DataId(data);
                        node.size = second.unwrap_or(node.size);
                    }
                    return self.unwrite(plain, into, (ino, out, tries), None, cx);
                }
                Some(b"stale") => match (first, second) {
                    (Some(size), Some(stale)) => {
                        let then = Then::Write(ino, out, tries + 1);
                        return self.start_clean(ino, (size, stale), into, then, cx);
                    }
                    _ => return Step::Fail(self.odd(&doing, Some(reply))),
                },
                // Pieces that follow are noted as stale, or stand under a number of their own.
                Some(b"full") => {
                    let replaced = self.tree.get(ino).is_some_and(|node| node.data != into);
                    if let (Some(node), Some(stale)) = (self.tree.get_mut(ino), second) {
                        node.stale = stale;
                    }
                    let full = Some(Errno::ENOSPC);
                    return self.unwrite(plain && replaced, into, (ino, out, tries), full, cx);
                }
                _ => return Step::Fail(self.odd(&doing, Some(reply))),
            }
        }
        Step::Done(Outcome::Wrote { size, published: true })
    }

    /// The contents are on the server.
    pub(super) fn wrote(&mut self, ino: Ino, into: DataId, size: u64, mtime: crate::time::Wall) {
        let epoch = self.next_epoch();
        let now = self.live.now();
        let Some(node) = self.tree.get_mut(ino) else { return };
        // What was asked before this, on another lane, may be answered with the length of before.
        node.tainted = epoch;
        let (before, reach) = (node.data, node.size.max(node.stale));
        node.data = into;
        node.size = size;
        node.ctime = node.ctime.max(mtime);
        if before != into {
            node.stale = 0;
            self.live.reclaim(before, reach, now);
        }
    }

    /// Removes blocks that were written where they do not count, then fails or tries again.
    fn unwrite(
        &mut self,
        plain: bool,
        into: DataId,
        (ino, out, tries): (Ino, WriteOut, u32),
        then: Option<Errno>,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        if !plain {
            return match then {
                Some(Errno::ENOSPC) => {
                    let what = format!("writing {}", crate::layout::Layout::describe(self, ino));
                    Step::Fail(self.full(&what))
                }
                Some(errno) => Step::Fail(Failure { errno, text: None }),
                None => self.start_data_write(ino, out, tries + 1, cx),
            };
        }
        let mut command: Args = smallvec![Bytes::from_static(b"UNLINK")];
        command.extend(self.pieces(&out).iter().map(|(n, ..)| self.block_key(into, *n)));
        let writing = Writing { ino, out, tries, what: What::Unwrite(then) };
        let ticket = Ticket::Write(Box::new(writing));
        Step::Work(Self::work(Lane::Bulk, alloc::vec![Command::Plain(command)], ticket))
    }
}

/// Pieces that one script takes together.
fn groups(pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
    let mut rest = pieces;
    core::iter::from_fn(move || {
        let mut bytes = 0;
        let n = rest
            .iter()
            .take(PIECES)
            .take_while(|(.., piece)| {
                bytes += piece.len();
                bytes <= SCRIPTED
            })
            .count();
        let (group, after) = rest.split_at(n.max(1).min(rest.len()));
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}
