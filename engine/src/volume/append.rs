//! Bytes put at the end of a file (`O_APPEND`), where other mounts write to it as well. The script
//! writes only when the contents still have the length that this mount knows, and tells the one
//! they have otherwise: each time somebody else was quicker, it is tried again from there.

use alloc::boxed::Box;
use alloc::format;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Layout, Outcome, Step, Work, WriteOut};
use crate::time::Wall;

use super::clean::Then;
use super::key::{DataId, Key};
use super::record::Stamp;
use super::{FILE_LIMIT, TOKEN_SLOTS, Ticket, Volume, count, decimal, scripts};

/// How often others may be quicker; each time one of them has got on.
const TRIES: u32 = 256;

/// Bytes on their way to the end of a file.
#[derive(Clone, Debug)]
pub struct Appending {
    ino: Ino,
    data: Bytes,
    mtime: Wall,
    token: Token,
    tries: u32,
    /// The contents that are written into, and the change's stamp.
    sent: (DataId, Stamp),
}

impl Appending {
    pub(super) fn new(ino: Ino, data: Bytes, mtime: Wall, token: Token) -> Appending {
        Appending { ino, data, mtime, token, tries: 0, sent: (DataId(0), Stamp::default()) }
    }
}

impl Volume {
    pub(super) fn start_append(
        &mut self,
        mut appending: Appending,
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Appending { ino, data, mtime, token, tries, .. } = &appending;
        let Some(node) = self.tree.get(*ino) else { return Step::fail(Errno::ESTALE) };
        if *tries >= TRIES {
            return Step::fail(Errno::EBUSY);
        }
        let (size, into) = (node.size, node.data);
        let reach = size.saturating_add(data.len() as u64);
        if reach > FILE_LIMIT {
            return Step::fail(Errno::EFBIG);
        }
        let out = WriteOut {
            replace: false,
            extents: alloc::vec![(size, data.clone())],
            mtime: *mtime,
            publish: true,
            ..WriteOut::default()
        };
        let stamp = self.next_stamp();
        let mut keys: Args = smallvec![
            self.key(Key::Inode(*ino)),
            self.key(Key::Usage),
            self.key(Key::Tokens(self.mount))
        ];
        let mut args: Args = smallvec![
            Bytes::from_static(b"a"),
            stamp.to_bytes(),
            Bytes::from(format!("{}", mtime.0)),
            decimal(reach),
            decimal(ino.0),
            decimal(into.0),
            decimal(size),
            decimal(self.capacity),
            decimal(token.serial % TOKEN_SLOTS),
            decimal(token.serial),
        ];
        self.add_pieces(into, &self.pieces(&out), &mut keys, &mut args);
        self.own(*ino, cx.now.mono);
        appending.sent = (into, stamp);
        let command = Command::Script { script: &scripts::WRITE, keys, args };
        let ticket = Ticket::Append(Box::new(appending));
        let work = Self::work(Lane::Bulk, alloc::vec![command], ticket);
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    pub(super) fn append_given_up(&mut self, appending: &Appending, cx: &mut Cx<Redis>) {
        self.change_given_up(appending.sent.1, &[appending.ino], cx);
    }

    pub(super) fn appended(
        &mut self,
        mut appending: Appending,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let (ino, (into, stamp)) = (appending.ino, appending.sent);
        let doing = format!("appending to {}", self.describe(ino));
        if let Some(line) = Reply::error_among(replies) {
            return Step::Fail(self.refused(line, &doing));
        }
        let answer = replies.first().and_then(Reply::as_array).unwrap_or_default();
        let (first, second) = (count(answer.get(1)), count(answer.get(2)));
        match (answer.first().and_then(Reply::as_bytes), first, second) {
            (Some(b"ok"), Some(size), _) => {
                let former = answer.get(2).and_then(Reply::as_bytes);
                let former = former.map_or(Stamp::default(), Stamp::parse);
                self.stamped(ino, Some(former), stamp, cx);
                self.wrote(ino, into, size, appending.mtime);
                Step::Done(Outcome::Wrote { size, published: true })
            }
            (Some(b"moved"), Some(data), Some(size)) => {
                if let Some(node) = self.tree.get_mut(ino) {
                    (node.data, node.size) = (DataId(data), size);
                }
                appending.tries += 1;
                self.start_append(appending, cx)
            }
            (Some(b"stale"), Some(size), Some(stale)) => {
                appending.tries += 1;
                let then = Then::Append(Box::new(appending));
                self.start_clean(ino, (size, stale), into, then, cx)
            }
            (Some(b"gone"), ..) => Step::fail(Errno::ESTALE),
            (Some(b"full"), ..) => Step::Fail(self.full(&doing)),
            _ => Step::Fail(self.odd(&doing, replies.first())),
        }
    }
}
