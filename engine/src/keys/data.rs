//! Reading and writing values, in ranges, on the server.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane};
use crate::layout::{Data, Failure, Outcome, Step, WriteOut};

use super::place::{Place, side_key};
use super::tree::What;
use super::{ECHO_WINDOW, Keys, Ticket, scripts};

/// A range on its way here.
#[derive(Clone, Debug)]
pub struct Reading {
    ino: Ino,
    offset: u64,
    len: u64,
    /// What to send when the key turns out to be no string any more.
    fallback: Option<Command>,
}

/// Extents on their way to the server.
#[derive(Clone, Debug)]
pub struct Writing {
    ino: Ino,
    /// The directory of the side hash that may have been changed along.
    dir: Vec<u8>,
    replace: bool,
    mtime: crate::time::Wall,
    /// For the index, when the value is made anew.
    place: Place,
}

impl Keys {
    /// Where the contents of an inode are: under its name or, when that is gone, its orphan key.
    fn contents(&self, ino: Ino) -> Option<(Place, Vec<u8>, Bytes)> {
        let node = self.tree.get(ino)?;
        if let Some(orphan) = &node.orphan {
            let place = Place { full: Some(orphan.clone()), string: true, ..Place::default() };
            return Some((place, Vec::new(), Bytes::new()));
        }
        if node.detached {
            return None;
        }
        let prefix = self.dir_prefix(node.parent)?;
        let place = self.place(node.parent, &node.name)?;
        Some((place, prefix, Bytes::copy_from_slice(node.name.as_bytes())))
    }

    pub(super) fn start_data_read(&mut self, ino: Ino, offset: u64, len: u32) -> Step<Self> {
        let Some((place, ..)) = self.contents(ino) else { return Step::fail(Errno::ESTALE) };
        let what = self.tree.get(ino).map(|node| node.what);
        // Text that is made from a collection is read whole: two pieces of it made at different
        // times might not fit together.
        let (offset, len) = match what {
            Some(What::Collection) => (0, self.value_limit),
            _ => (offset, u64::from(len)),
        };
        let number = |n: u64| Bytes::from(format!("{n}"));
        let script = Command::Script {
            script: &scripts::READ,
            keys: smallvec![place.full.clone().unwrap_or_default(), place.bare.unwrap_or_default()],
            args: smallvec![place.field, number(offset), number(len)],
        };
        let (command, fallback) = match (what, place.full) {
            (Some(What::String), Some(full)) => {
                let last = number(offset + len - 1);
                let range = smallvec![Bytes::from_static(b"GETRANGE"), full, number(offset), last];
                (Command::Plain(range), Some(script))
            }
            _ => (script, None),
        };
        let reading = Reading { ino, offset, len, fallback };
        Step::Work(Self::work(Lane::Bulk, alloc::vec![command], Ticket::Read(reading)))
    }

    pub(super) fn data_read(&mut self, reading: Reading, replies: Vec<Reply>) -> Step<Self> {
        let what = || format!("reading {}", crate::layout::Layout::describe(self, reading.ino));
        match replies.into_iter().next() {
            Some(Reply::Bulk(bytes)) => {
                let end = (bytes.len() as u64) < reading.len;
                Step::Done(Outcome::Data(Data { offset: reading.offset, bytes, end }))
            }
            // The value is gone; for who has it open it is empty.
            Some(Reply::Nil) => Step::Done(Outcome::Data(Data {
                offset: reading.offset,
                bytes: Bytes::new(),
                end: true,
            })),
            Some(Reply::Error(line))
                if line.starts_with("WRONGTYPE") && reading.fallback.is_some() =>
            {
                let again = Reading { fallback: None, ..reading.clone() };
                let commands = reading.fallback.into_iter().collect();
                Step::Work(Self::work(Lane::Bulk, commands, Ticket::Read(again)))
            }
            Some(Reply::Error(line)) => Step::Fail(self.refused(&line, &what())),
            other => Step::Fail(self.odd(&what(), other.as_ref())),
        }
    }

    pub(super) fn start_data_write(
        &mut self,
        ino: Ino,
        out: &WriteOut,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Some((place, dir, name)) = self.contents(ino) else {
            return Step::Fail(self.gone(ino));
        };
        let side =
            if self.stores_records() && !name.is_empty() { side_key(&dir) } else { Bytes::new() };
        let mut args: Args = smallvec![
            place.field.clone(),
            name,
            Bytes::from_static(if out.replace { b"r" } else { b"w" }),
            Bytes::from_static(place.wish().as_bytes()),
            Bytes::from(format!("{}", out.mtime.0)),
            Bytes::from(format!("{}", self.value_limit)),
        ];
        for (offset, data) in &out.extents {
            args.push(Bytes::from(format!("{offset}")));
            args.push(data.clone());
        }
        let keys = smallvec![
            place.full.clone().unwrap_or_default(),
            place.bare.clone().unwrap_or_default(),
            side
        ];
        let command = Command::Script { script: &scripts::WRITE, keys, args };
        if let Some(node) = self.tree.get_mut(ino) {
            node.own_until = cx.now.mono.after(ECHO_WINDOW);
        }
        let writing = Writing { ino, dir, replace: out.replace, mtime: out.mtime, place };
        Step::Work(Self::work(Lane::Bulk, alloc::vec![command], Ticket::Write(writing)))
    }

    pub(super) fn data_written(
        &mut self,
        writing: Writing,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let ino = writing.ino;
        let what = || format!("writing {}", crate::layout::Layout::describe(self, ino));
        let reply = replies.first();
        if let Some(line) = reply.and_then(Reply::as_error) {
            return Step::Fail(self.refused(line, &what()));
        }
        let answer = reply.and_then(Reply::as_array).unwrap_or_default();
        match answer.first().and_then(Reply::as_bytes) {
            Some(b"ok") => {}
            Some(b"gone") => return Step::Fail(self.gone(ino)),
            Some(b"collection") => {
                let text = format!("{}: there is a collection now, nothing was written", what());
                return Step::Fail(Failure { errno: Errno::EACCES, text: Some(text) });
            }
            Some(b"big") => {
                let text = format!(
                    "{}: over the server's limit of {} bytes for a value (proto-max-bulk-len)",
                    what(),
                    self.value_limit
                );
                return Step::Fail(Failure { errno: Errno::EFBIG, text: Some(text) });
            }
            _ => return Step::Fail(self.odd(&what(), reply)),
        }
        let size = answer.get(1).and_then(Reply::as_int).and_then(|n| u64::try_from(n).ok());
        let Some(size) = size else { return Step::Fail(self.odd(&what(), reply)) };
        let version = answer.get(2).and_then(Reply::as_int).unwrap_or(-1);
        let has_record = version >= 0;
        if has_record {
            self.side_written(&writing.dir, version, cx);
        }
        if writing.replace {
            // It may have been gone, and made again.
            self.live.refresh_place(&writing.place);
        }
        if let Some(node) = self.tree.get_mut(ino) {
            node.own_until = cx.now.mono.after(ECHO_WINDOW);
            node.attr.size = size;
            node.attr.mtime = writing.mtime;
            node.attr.ctime = node.attr.ctime.max(writing.mtime);
        }
        if !has_record {
            self.remember_times(ino);
        }
        Step::Done(Outcome::Wrote { size })
    }

    fn gone(&self, ino: Ino) -> Failure {
        let path = crate::layout::Layout::describe(self, ino);
        let text = format!("{path}: deleted on the server while it was being written");
        Failure { errno: Errno::ESTALE, text: Some(text) }
    }

    /// Keeps the attributes of a file that has no record, for as long as the session lasts.
    pub(super) fn remember_times(&mut self, ino: Ino) {
        let Some(node) = self.tree.get(ino) else { return };
        if node.detached || node.what == What::Dir {
            return;
        }
        let (attr, name) = (node.attr, node.name.clone());
        if let Some(prefix) = self.dir_prefix(node.parent) {
            let record = super::Record::of(&attr, None);
            self.memory.put(&prefix, name.as_bytes(), record);
        }
    }
}
