//! Reading and writing values, in ranges, on the server.

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
use crate::layout::{Data, Epoch, Failure, Outcome, Step, Work, WriteOut};

use super::place::{Place, side_key, stage_key};
use super::tree::What;
use super::{Keys, ORPHAN_LEASE, Ticket, scripts};

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
    way: Way,
    /// A direct write made a string that somebody had deleted; it is being deleted again.
    unmade: bool,
}

/// How extents get to the server.
#[derive(Clone, Debug)]
enum Way {
    /// One script that finds the value, writes, and marks the times.
    Script,
    /// A large piece of a string without a record: the script engine's copies are saved.
    Direct { key: Bytes, first: u64, last: u64 },
    /// A large field: every change of a field copies all of it, so pieces go to a string of their
    /// own, which becomes the field when somebody waits for it.
    Staged { stage: Bytes, publish: bool },
}

/// Arguments of the write script before offset and data in turn.
pub(super) const WRITE_HEAD: usize = 6;
/// From here on a write is a large one.
const LARGE: usize = 256 << 10;

fn set_ranges<'a>(key: &'a Bytes, out: &'a WriteOut) -> impl Iterator<Item = Command> + 'a {
    out.extents.iter().map(|(offset, data)| {
        let offset = Bytes::from(format!("{offset}"));
        Command::Plain(smallvec![
            Bytes::from_static(b"SETRANGE"),
            key.clone(),
            offset,
            data.clone()
        ])
    })
}

impl Keys {
    /// Where the contents of an inode are read: where they are staged, else at home.
    fn contents(&self, ino: Ino) -> Option<(Place, What)> {
        let node = self.tree.get(ino)?;
        if let Some(stage) = &node.stage {
            let place = Place { full: Some(stage.clone()), string: true, ..Place::default() };
            return Some((place, What::String));
        }
        Some((self.home(ino)?.0, node.what))
    }

    /// Where the contents of an inode belong: under its name or, when that is gone, its orphan
    /// key; with the directory's prefix and the name of its record.
    fn home(&self, ino: Ino) -> Option<(Place, Vec<u8>, Bytes)> {
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

    /// Text that is made from a collection is read whole, since two pieces of it that were made at
    /// different times might not fit together; a large field, since the server would copy all of
    /// it for each piece.
    pub(super) fn is_read_whole(&self, ino: Ino) -> bool {
        match self.contents(ino) {
            Some((_, What::Collection)) => true,
            Some((_, What::Field)) => {
                self.tree.get(ino).is_some_and(|node| node.attr.size >= LARGE as u64)
            }
            _ => false,
        }
    }

    pub(super) fn start_data_read(&mut self, ino: Ino, offset: u64, len: u32) -> Step<Self> {
        let Some((place, what)) = self.contents(ino) else { return Step::fail(Errno::ESTALE) };
        let whole = self.is_read_whole(ino);
        let (offset, len) = if whole { (0, self.value_limit) } else { (offset, u64::from(len)) };
        let number = |n: u64| Bytes::from(format!("{n}"));
        let script = Command::Script {
            script: &scripts::READ,
            keys: place.both_keys().into_iter().collect(),
            args: smallvec![place.field.clone(), number(offset), number(len)],
        };
        let (command, fallback) = match (what, place.full) {
            (What::String, Some(full)) => {
                let last = number(offset + len - 1);
                let range = smallvec![Bytes::from_static(b"GETRANGE"), full, number(offset), last];
                (Command::Plain(range), Some(script))
            }
            (What::Field, _) if whole => match &place.bare {
                Some(bare) => {
                    let get = Bytes::from_static(b"HGET");
                    let whole = smallvec![get, bare.clone(), place.field.clone()];
                    (Command::Plain(whole), Some(script))
                }
                None => (script, None),
            },
            _ => (script, None),
        };
        let reading = Reading { ino, offset, len, fallback };
        Step::Work(Self::work(Lane::Bulk, alloc::vec![command], Ticket::Read(Box::new(reading))))
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
                Step::Work(Self::work(Lane::Bulk, commands, Ticket::Read(Box::new(again))))
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
        let Some((place, dir, name)) = self.home(ino) else {
            return Step::Fail(self.gone(ino));
        };
        let way = self.way_of(ino, &place, out);
        let side =
            if self.stores_records() && !name.is_empty() { side_key(&dir) } else { Bytes::new() };
        let size = self.tree.get(ino).map_or(0, |node| node.attr.size);
        let keys = |first: Option<&Bytes>| -> Args {
            first.cloned().into_iter().chain(place.both_keys()).collect()
        };
        let mtime = Bytes::from(format!("{}", out.mtime.0));
        let wish = Bytes::from_static(place.wish().as_bytes());
        let mut commands = Vec::new();
        match &way {
            Way::Script => {
                let mut args: Args = smallvec![
                    place.field.clone(),
                    name,
                    Bytes::from_static(if out.replace { b"r" } else { b"w" }),
                    wish,
                    mtime,
                    Bytes::from(format!("{}", self.value_limit)),
                ];
                for (offset, data) in &out.extents {
                    args.push(Bytes::from(format!("{offset}")));
                    args.push(data.clone());
                }
                let mut keys = keys(None);
                keys.push(side);
                commands.push(Command::Script { script: &scripts::WRITE, keys, args });
            }
            Way::Direct { key, .. } => {
                let exists = Bytes::from_static(b"EXISTS");
                commands.push(Command::Plain(smallvec![exists, key.clone()]));
                commands.extend(set_ranges(key, out));
            }
            Way::Staged { stage, publish } => {
                let keep = Bytes::from_static(if out.replace { b"0" } else { b"1" });
                let lease = Bytes::from(format!("{}", ORPHAN_LEASE.as_millis()));
                let length = Bytes::from(format!("{size}"));
                commands.push(Command::Script {
                    script: &scripts::STAGE,
                    keys: keys(Some(stage)),
                    args: smallvec![place.field.clone(), keep, length, lease],
                });
                commands.extend(set_ranges(stage, out));
                if *publish {
                    let mut keys = keys(Some(stage));
                    keys.push(side);
                    let args = smallvec![place.field.clone(), name, wish, mtime];
                    commands.push(Command::Script { script: &scripts::PUBLISH, keys, args });
                }
                self.live.keep_orphan(stage.clone());
            }
        }
        self.live.own_keys(place.keys(), cx.now.mono);
        if let (Way::Staged { stage, .. }, Some(node)) = (&way, self.tree.get_mut(ino)) {
            node.stage = Some(stage.clone());
        }
        let mode = match way {
            // Without the stage, which a script makes, the pieces must not be written; and a script
            // that the server does not know any more is no stage.
            Way::Direct { .. } | Way::Staged { .. } => Mode::Atomic,
            Way::Script => Mode::Ordered,
        };
        let writing =
            Writing { ino, dir, replace: out.replace, mtime: out.mtime, place, way, unmade: false };
        let work = Self::work(Lane::Bulk, commands, Ticket::Write(Box::new(writing)));
        Step::Work(Work { mode, ..work })
    }

    /// How some extents are best written.
    fn way_of(&self, ino: Ino, place: &Place, out: &WriteOut) -> Way {
        let Some(node) = self.tree.get(ino) else { return Way::Script };
        let bytes: usize = out.extents.iter().map(|(_, data)| data.len()).sum();
        let reach = out.extents.last().map_or(0, |(at, data)| at + data.len() as u64);
        if let Some(stage) = &node.stage {
            return Way::Staged { stage: stage.clone(), publish: out.publish };
        }
        let fits = reach <= self.value_limit;
        let large = bytes >= LARGE && fits;
        // Several changes of a large field: each would copy all of it.
        let scattered = out.extents.len() > 1 && node.attr.size >= LARGE as u64 && fits;
        match (node.what, &place.full) {
            (What::String, Some(key)) if large && !out.replace && !node.has_record => {
                let first = out.extents.first().map_or(0, |(at, _)| *at);
                Way::Direct { key: key.clone(), first, last: reach }
            }
            (What::Field, _) if (large && !out.publish) || scattered => {
                let stage = stage_key(self.live.session(), ino);
                Way::Staged { stage, publish: out.publish }
            }
            _ => Way::Script,
        }
    }

    pub(super) fn data_written(
        &mut self,
        writing: Writing,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let ino = writing.ino;
        let what = || format!("writing {}", crate::layout::Layout::describe(self, ino));
        // Why there is no stage counts, not that the pieces were refused for want of it.
        if let Way::Staged { .. } = writing.way {
            match replies.first().and_then(Reply::as_bytes) {
                Some(b"gone") => return Step::Fail(self.gone(ino)),
                Some(b"lost") => return Step::Fail(self.lost(ino)),
                _ => {}
            }
        }
        if let Some(line) = Reply::error_among(replies) {
            return Step::Fail(self.refused(line, &what()));
        }
        if writing.unmade {
            return Step::Fail(self.gone(ino));
        }
        let (last, published) = match &writing.way {
            Way::Script => (replies.last(), true),
            Way::Staged { publish, .. } => (replies.last(), *publish),
            Way::Direct { key, first, last } => {
                if replies.first().and_then(Reply::as_int) == Some(0) {
                    // It was deleted meanwhile, and has just been made again: nobody wants that,
                    // unless somebody else has put a value of his own there since.
                    let unmake = Command::Script {
                        script: &scripts::UNMAKE,
                        keys: smallvec![key.clone()],
                        args: smallvec![
                            Bytes::from(format!("{first}")),
                            Bytes::from(format!("{last}"))
                        ],
                    };
                    let gone = Ticket::Write(Box::new(Writing { unmade: true, ..writing.clone() }));
                    return Step::Work(Self::work(Lane::Bulk, alloc::vec![unmake], gone));
                }
                (replies.last(), true)
            }
        };
        let before = self.tree.get(ino).map_or(0, |node| node.attr.size);
        // A value that was gone may have been made anew as something else.
        let mut became = None;
        let (size, version) = match last {
            // Of SETRANGE; of the stage script when there were no extents.
            Some(Reply::Int(size)) => (u64::try_from(*size).ok(), -1),
            Some(Reply::Array(answer)) => {
                match answer.first().and_then(Reply::as_bytes) {
                    Some(b"ok") => {}
                    Some(b"gone") => return Step::Fail(self.gone(ino)),
                    Some(b"lost") => return Step::Fail(self.lost(ino)),
                    Some(b"collection") => {
                        let text =
                            format!("{}: there is a collection now, nothing was written", what());
                        return Step::Fail(Failure { errno: Errno::EACCES, text: Some(text) });
                    }
                    Some(b"big") => {
                        let text = format!(
                            "{}: over the server's limit of {} bytes for a value \
                             (proto-max-bulk-len)",
                            what(),
                            self.value_limit
                        );
                        return Step::Fail(Failure { errno: Errno::EFBIG, text: Some(text) });
                    }
                    _ => return Step::Fail(self.odd(&what(), last)),
                }
                let size = answer.get(1).and_then(Reply::as_int);
                let version = answer.get(2).and_then(Reply::as_int).unwrap_or(-1);
                became = match answer.get(3).and_then(Reply::as_bytes) {
                    Some(b"s") => Some(What::String),
                    Some(b"f") => Some(What::Field),
                    _ => None,
                };
                (size.and_then(|n| u64::try_from(n).ok()), version)
            }
            _ if writing.replace => (Some(0), -1),
            _ => (Some(before), -1),
        };
        let Some(size) = size else { return Step::Fail(self.odd(&what(), last)) };
        let has_record = version >= 0;
        if has_record {
            self.side_written(&writing.dir, version, None, cx);
        }
        if published && (writing.replace || matches!(writing.way, Way::Staged { .. })) {
            // It may have been gone, and made again.
            self.live.refresh_place(&writing.place);
        }
        self.live.own_keys(writing.place.keys(), cx.now.mono);
        let mut spent = None;
        // What was asked before this, on another lane, may be answered with the length of before.
        self.epoch = Epoch(self.epoch.0 + 1);
        let epoch = self.epoch;
        if let Some(node) = self.tree.get_mut(ino) {
            node.what = became.unwrap_or(node.what);
            node.tainted = epoch;
            node.attr.size = size;
            node.attr.mtime = writing.mtime;
            node.attr.ctime = node.attr.ctime.max(writing.mtime);
            if published {
                spent = node.stage.take();
            }
        }
        if let Some(stage) = spent {
            self.live.forget_orphan(&stage);
        }
        if !has_record {
            self.remember_times(ino);
        }
        Step::Done(Outcome::Wrote { size, published })
    }

    fn lost(&self, ino: Ino) -> Failure {
        let path = crate::layout::Layout::describe(self, ino);
        let text = format!(
            "{path}: what was written and not yet synced is gone from the server; write it again"
        );
        Failure { errno: Errno::EIO, text: Some(text) }
    }

    fn gone(&self, ino: Ino) -> Failure {
        let path = crate::layout::Layout::describe(self, ino);
        let text = format!("{path}: deleted on the server while it was being written");
        Failure { errno: Errno::ESTALE, text: Some(text) }
    }

    /// Keeps the attributes of a file that has no record, for as long as the session lasts.
    pub(super) fn remember_times(&mut self, ino: Ino) {
        let Some(node) = self.tree.get(ino) else { return };
        if node.detached || matches!(node.what, What::Dir | What::Side) {
            return;
        }
        let (attr, name) = (node.attr, node.name.clone());
        if let Some(prefix) = self.dir_prefix(node.parent) {
            let record = super::Record::of(&attr, None);
            self.memory.put(&prefix, name.as_bytes(), record);
        }
    }
}
