//! Directory pages, with the attributes of what the entries lead to, in one question each; none
//! where all of that is known.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::contract::Mode;
use crate::decide::Fact;
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Epoch, Listed, Outcome, Page, Step, Work};
use crate::op::Name;

use super::facts::inode_fields;
use super::key::Key;
use super::record::{Member, Stamp, member};
use super::{Ticket, Volume, decimal, scripts};

/// The most entries of a page: a script holds the server up for each.
const PAGE: usize = 128;

/// A page on its way.
#[derive(Clone, Debug)]
pub struct Asked {
    dir: Ino,
    from: Vec<u8>,
    limit: usize,
    since: Epoch,
}

impl Volume {
    pub(super) fn start_list(
        &mut self,
        dir: Ino,
        from: &[u8],
        limit: usize,
        cx: &Cx<Redis>,
    ) -> Step<Self> {
        let limit = limit.clamp(1, PAGE);
        if let Some(page) = self.known_page(dir, from, limit, cx) {
            return Step::Done(Outcome::Page(page));
        }
        let mut args: Args =
            smallvec![self.inode_prefix(), place_after(from), decimal(limit as u64)];
        args.extend(inode_fields());
        let keys = smallvec![self.key(Key::Dir(dir)), self.key(Key::Inode(dir))];
        let commands = alloc::vec![Command::Script { script: &scripts::PAGE, keys, args }];
        let asked = Asked { dir, from: from.to_vec(), limit, since: self.epoch };
        let work = Self::work(Lane::Meta, commands, Ticket::List(asked));
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    /// A page of a directory that is known wholly, if pushes keep that true and every entry's
    /// attributes are known as well.
    fn known_page(
        &self,
        dir: Ino,
        from: &[u8],
        limit: usize,
        cx: &Cx<Redis>,
    ) -> Option<Page<Self>> {
        // A name ends where its entry has the first NUL.
        let last = from.split(|byte| *byte == 0).next().filter(|name| !name.is_empty());
        let last = last.map(Name::from);
        let names = self.tree.names_after(dir, last.as_ref()).filter(|_| self.live.is_live())?;
        let mut entries: Vec<Listed<Self>> = Vec::new();
        for (name, (kind, ino)) in names.take(limit) {
            let attr = Some(cx.leased_attr(ino)?);
            let after = member(name, kind, ino).to_vec();
            entries.push(Listed { name: name.clone(), ino, kind, attr, after });
        }
        let next = entries.last().filter(|_| entries.len() == limit).map(|last| last.after.clone());
        Some(Page { entries, next })
    }

    pub(super) fn listed(
        &mut self,
        asked: &Asked,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let what = format!("listing directory {}", asked.dir.0);
        let Some((stamp, items)) =
            replies.first().and_then(Reply::as_array).and_then(<[Reply]>::split_first)
        else {
            return Step::Fail(self.odd(&what, replies.first()));
        };
        if let Some(stamp) = stamp.as_bytes() {
            self.seen(asked.dir, Stamp::parse(stamp), cx);
        }
        let mut entries: Vec<Listed<Self>> = Vec::with_capacity(items.len() / 2);
        for pair in items.chunks(2) {
            let Some(bytes) = pair.first().and_then(Reply::as_bytes) else {
                return Step::Fail(self.odd(&what, replies.first()));
            };
            let member = match Member::parse(asked.dir, bytes) {
                Ok(member) => member,
                Err(corrupt) => return Step::Fail(self.corrupt(&corrupt)),
            };
            let values = pair.get(1).and_then(Reply::as_array).unwrap_or_default();
            let at = Some((asked.dir, member.name.clone()));
            let attr = match self.take_inode(member.ino, values, at, asked.since, cx) {
                Ok(Fact::Attr(attr)) => attr,
                Ok(_) => None,
                Err(failure) => return Step::Fail(failure),
            };
            let Member { name, kind, ino } = member;
            self.tree.learn_name(asked.dir, &name, Some((kind, ino)));
            entries.push(Listed { name, ino, kind, attr, after: bytes.to_vec() });
        }
        let next = match entries.last() {
            Some(last) if entries.len() == asked.limit => Some(last.after.clone()),
            _ => None,
        };
        self.tree.listed(asked.dir, &asked.from, next.as_deref(), asked.since);
        Step::Done(Outcome::Page(Page { entries, next }))
    }
}

/// The range of `ZRANGEBYLEX` that begins behind an entry.
pub(super) fn place_after(entry: &[u8]) -> Bytes {
    if entry.is_empty() { Bytes::from_static(b"-") } else { Bytes::from([b"(", entry].concat()) }
}
