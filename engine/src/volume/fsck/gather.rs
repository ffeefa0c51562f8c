//! Reads everything: two `SCAN`s that find the keys, and what the keys hold, many at a time. No
//! command takes the server long; nothing is written.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Reply};
use crate::engine::Progress;
use crate::id::Ino;
use crate::op::{Attr, Kind};
use crate::time::Wall;
use crate::volume::FILE_LIMIT;
use crate::volume::key::{DataId, Key, Keyspace, number};
use crate::volume::record::{Inode, Member, Stamp, Super};
use crate::volume::tool::{Sessions, Tool, hmget, scored, superblock, whole};

use super::survey::{Entry, Node, Survey};

/// Keys that one `SCAN` looks at.
const SCANNED: &str = "1000";
/// Members of a set that are read together.
const PAGE: u64 = 1024;
/// Questions that are sent together.
const PIPELINE: usize = 512;

/// A question, and with it what its reply is about.
#[derive(Clone, Debug)]
enum Ask {
    Super,
    Time,
    DbSize,
    Usage,
    Sessions,
    /// The keys of a pattern, from a cursor.
    Scan(Pattern, Bytes),
    Inode(Ino),
    /// Names from an index on.
    Dir(Ino, u64),
    Graves(u64),
    Queue(Bytes),
    Block(DataId, u64),
}

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Records,
    Blocks,
}

/// Reads a volume.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    keys: Keyspace,
    asks: VecDeque<Ask>,
    sent: Vec<Ask>,
    survey: Survey,
    /// Keys of the database, to tell how far it is; and those that were looked at twice, once by
    /// each scan.
    total: u64,
    seen: u64,
    scans_left: u8,
}

impl Gather {
    /// Of the volume of these keys.
    pub(super) fn new(keys: Keyspace) -> Gather {
        Gather {
            keys,
            asks: [Ask::Super].into(),
            sent: Vec::new(),
            survey: Survey::default(),
            total: 0,
            seen: 0,
            scans_left: 2,
        }
    }

    /// What was read.
    pub(super) fn into_survey(self) -> Survey {
        self.survey
    }

    fn command(&self, ask: &Ask) -> Command {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let decimal = |n: u64| Bytes::from(format!("{n}"));
        let key = |key: Key| self.keys.key(key);
        match ask {
            Ask::Super => hmget(key(Key::Super), &Super::FIELDS),
            Ask::Time => Command::plain(["TIME"]),
            Ask::DbSize => Command::plain(["DBSIZE"]),
            Ask::Usage => hmget(key(Key::Usage), &USAGE),
            Ask::Sessions => Sessions::ask(&self.keys),
            Ask::Scan(pattern, cursor) => {
                let start = match pattern {
                    Pattern::Records => self.keys.prefix(),
                    Pattern::Blocks => self.keys.block_prefix(),
                };
                // No character of a volume's name means anything in a pattern.
                let pattern = Bytes::from([&start[..], b"*"].concat());
                let rest = [word("MATCH"), pattern, word("COUNT"), word(SCANNED)];
                Command::plain([word("SCAN"), cursor.clone()].into_iter().chain(rest))
            }
            Ask::Inode(ino) => {
                let names: Vec<&'static str> =
                    Inode::FIELDS.into_iter().chain(["target"]).collect();
                hmget(key(Key::Inode(*ino)), &names)
            }
            Ask::Dir(ino, from) => Command::plain([
                word("ZRANGE"),
                key(Key::Dir(*ino)),
                decimal(*from),
                decimal(from + PAGE - 1),
                word("WITHSCORES"),
            ]),
            Ask::Graves(from) => Command::plain([
                word("ZRANGE"),
                key(Key::Graves),
                decimal(*from),
                decimal(from + PAGE - 1),
            ]),
            Ask::Queue(cursor) => Command::plain([
                word("HSCAN"),
                key(Key::Queue),
                cursor.clone(),
                word("COUNT"),
                word(SCANNED),
            ]),
            Ask::Block(data, n) => {
                Command::plain([word("STRLEN"), self.keys.key(Key::Block(*data, *n))])
            }
        }
    }

    fn answer(&mut self, ask: Ask, reply: &Reply) -> Result<(), String> {
        if let Some(line) = reply.as_error() {
            return self.refused(&ask, line);
        }
        let items = reply.as_array().unwrap_or_default();
        let text = |at: usize| items.get(at).and_then(Reply::as_bytes);
        match ask {
            Ask::Super => {
                self.survey.superblock = Some(superblock(&self.keys, Some(reply))?);
                let start = || Bytes::from_static(b"0");
                self.asks.extend([
                    Ask::Time,
                    Ask::DbSize,
                    Ask::Usage,
                    Ask::Sessions,
                    Ask::Graves(0),
                    Ask::Queue(start()),
                    Ask::Scan(Pattern::Records, start()),
                    Ask::Scan(Pattern::Blocks, start()),
                ]);
            }
            Ask::Time => self.survey.sessions.time = Sessions::read(None, Some(reply)).time,
            Ask::DbSize => self.total = reply.as_int().and_then(|n| n.try_into().ok()).unwrap_or(0),
            Ask::Usage => {
                self.survey.usage = [0, 1, 2, 3].map(|at| text(at).and_then(number));
            }
            Ask::Sessions => {
                let time = self.survey.sessions.time;
                self.survey.sessions = Sessions { time, ..Sessions::read(Some(reply), None) };
                for member in core::mem::take(&mut self.survey.sessions.litter) {
                    self.survey.litter.push((Key::Sessions, member));
                }
            }
            Ask::Scan(pattern, _) => self.scanned(pattern, items),
            Ask::Inode(ino) => self.inode(ino, items),
            Ask::Dir(ino, from) => {
                let entries = self.survey.dirs.entry(ino).or_default();
                let page = scored(items);
                let full = page.len() as u64 >= PAGE;
                for (member, score) in page {
                    let raw = Bytes::copy_from_slice(member.as_bytes().unwrap_or_default());
                    let member = Member::parse(ino, &raw).ok();
                    entries.push(Entry { raw, member, misplaced: whole(score) != Some(0) });
                }
                if full {
                    self.asks.push_front(Ask::Dir(ino, from + PAGE));
                }
            }
            Ask::Graves(from) => {
                for member in items.iter().filter_map(Reply::as_bytes) {
                    match number(member) {
                        Some(ino) => {
                            self.survey.graves.insert(Ino(ino));
                        }
                        None => self.litter(Key::Graves, member),
                    }
                }
                if items.len() as u64 >= PAGE {
                    self.asks.push_back(Ask::Graves(from + PAGE));
                }
            }
            Ask::Queue(_) => {
                let pairs = items.get(1).and_then(Reply::as_array).unwrap_or_default();
                for pair in pairs.chunks(2) {
                    let field = pair[0].as_bytes().unwrap_or_default();
                    let length = pair.get(1).and_then(Reply::as_bytes).and_then(number);
                    match number(field) {
                        Some(data) => {
                            self.survey.queue.insert(DataId(data), length);
                        }
                        None => self.litter(Key::Queue, field),
                    }
                }
                if let Some(next) = text(0).filter(|next| *next != b"0") {
                    self.asks.push_back(Ask::Queue(Bytes::copy_from_slice(next)));
                }
            }
            Ask::Block(data, n) => {
                let len = reply.as_int().and_then(|len| u64::try_from(len).ok()).unwrap_or(0);
                let block = self.block();
                if len > 0 {
                    let extent = self.survey.blocks.entry(data).or_default();
                    extent.count += 1;
                    let end = n.saturating_mul(block).saturating_add(len.min(block));
                    extent.end = extent.end.max(end);
                    if len > block {
                        extent.overlong.push((n, len));
                    }
                }
            }
        }
        Ok(())
    }

    fn block(&self) -> u64 {
        self.survey.superblock.as_ref().map_or(1, |it| u64::from(it.block))
    }

    fn litter(&mut self, key: Key, what: &[u8]) {
        self.survey.litter.push((key, Bytes::copy_from_slice(what)));
    }

    fn scanned(&mut self, pattern: Pattern, items: &[Reply]) {
        let found = items.get(1).and_then(Reply::as_array).unwrap_or_default();
        for key in found.iter().filter_map(Reply::as_bytes) {
            match self.keys.parse(key) {
                Some(key) => self.found(key),
                None => {
                    let what = String::from("no key of this format");
                    self.survey.foreign.push((Bytes::copy_from_slice(key), what));
                }
            }
        }
        self.seen += SCANNED.parse::<u64>().unwrap_or(1);
        match items.first().and_then(Reply::as_bytes) {
            Some(next) if next != b"0" => {
                // What was found is asked for first, so that little waits.
                self.asks.push_back(Ask::Scan(pattern, Bytes::copy_from_slice(next)));
            }
            _ => self.scans_left = self.scans_left.saturating_sub(1),
        }
    }

    /// A key is there. `SCAN` may tell of one twice.
    fn found(&mut self, key: Key) {
        let survey = &mut self.survey;
        match key {
            Key::Super | Key::Usage | Key::Sessions | Key::Graves | Key::Queue => {}
            Key::Inode(ino) => {
                if !survey.inodes.contains_key(&ino) {
                    self.asks.push_front(Ask::Inode(ino));
                }
            }
            Key::Dir(ino) => {
                if !survey.dirs.contains_key(&ino) && !survey.unreadable.contains(&ino) {
                    survey.dirs.insert(ino, Vec::new());
                    self.asks.push_front(Ask::Dir(ino, 0));
                }
            }
            Key::Xattrs(ino) => {
                survey.xattrs.insert(ino);
            }
            Key::Locks(ino) => {
                survey.locks.insert(ino);
            }
            Key::Held(mount) => {
                survey.held.insert(mount);
            }
            Key::Tokens(mount) => {
                survey.tokens.insert(mount);
            }
            Key::Locked(mount) => {
                survey.locked.insert(mount);
            }
            Key::Block(data, n) => self.asks.push_front(Ask::Block(data, n)),
        }
    }

    fn inode(&mut self, ino: Ino, values: &[Reply]) {
        if values.iter().all(|value| value.as_bytes().is_none()) {
            // Gone since the scan, or a hash without any field of an inode.
            return;
        }
        let target = values.get(Inode::FIELDS.len()).and_then(Reply::as_bytes);
        let fields = &values[..Inode::FIELDS.len().min(values.len())];
        let (inode, mut bad) = lenient(ino, fields);
        if inode.attr.kind == Kind::File && inode.attr.size > FILE_LIMIT {
            bad.push("size");
        }
        if inode.stale > FILE_LIMIT {
            bad.push("stale");
        }
        let target = target.map(|target| target.len() as u64);
        self.survey.inodes.insert(ino, Node { inode, bad, target });
    }

    /// An error line. One key that holds something of another type is a finding; anything else
    /// ends the check.
    fn refused(&mut self, ask: &Ask, line: &str) -> Result<(), String> {
        let key = match ask {
            Ask::Inode(ino) => Key::Inode(*ino),
            Ask::Dir(ino, _) => Key::Dir(*ino),
            Ask::Block(data, n) => Key::Block(*data, *n),
            Ask::Usage => Key::Usage,
            Ask::Sessions => Key::Sessions,
            Ask::Graves(_) => Key::Graves,
            Ask::Queue(_) => Key::Queue,
            Ask::Super | Ask::Time | Ask::DbSize | Ask::Scan(..) => {
                return Err(format!("volume {}: the server says: {line}", self.keys.name()));
            }
        };
        let shown = self.keys.key(key);
        if !line.starts_with("WRONGTYPE") {
            return Err(format!("{}: the server says: {line}", shown.escape_ascii()));
        }
        if let Ask::Inode(ino) | Ask::Dir(ino, _) = ask {
            self.survey.unreadable.insert(*ino);
            self.survey.dirs.remove(ino);
        }
        self.survey.foreign.push((shown, "a key of another type than it should be".to_string()));
        Ok(())
    }
}

impl Tool for Gather {
    fn poll(&mut self) -> Option<Vec<Command>> {
        let n = self.asks.len().min(PIPELINE);
        self.sent = self.asks.drain(..n).collect();
        let commands: Vec<Command> = self.sent.iter().map(|ask| self.command(ask)).collect();
        (!commands.is_empty()).then_some(commands)
    }

    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String> {
        let sent = core::mem::take(&mut self.sent);
        for (ask, reply) in sent.into_iter().zip(&replies) {
            self.answer(ask, reply)?;
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        // Both scans go over all keys of the database.
        let total = self.total * 2;
        Progress { done: self.seen.min(total), total: Some(total), finished: self.scans_left == 0 }
    }
}

/// The fields of `usage`, in the order of [`Survey::usage`].
pub(super) const USAGE: [&str; 4] = ["inodes", "bytes", "ino", "mount"];

/// An inode from fields of which some may be wrong; and which those are.
fn lenient(ino: Ino, values: &[Reply]) -> (Inode, Vec<&'static str>) {
    if let Ok(Some(inode)) = Inode::parse(ino, values) {
        return (inode, Vec::new());
    }
    let attr = Attr {
        ino,
        kind: Kind::File,
        perm: 0o600,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        atime: Wall(0),
        mtime: Wall(0),
        ctime: Wall(0),
    };
    let blank = Inode::new(attr, None, Stamp::default());
    let good = blank.pairs();
    let template = |name: &str| {
        let value = good.iter().find(|(field, _)| *field == name);
        value.map_or(Reply::Nil, |(_, value)| Reply::Bulk(value.clone()))
    };
    let mut repaired: Vec<Reply> = Inode::FIELDS.iter().map(|name| template(name)).collect();
    let mut bad = Vec::new();
    for (at, name) in Inode::FIELDS.into_iter().enumerate() {
        let kept =
            core::mem::replace(&mut repaired[at], values.get(at).cloned().unwrap_or(Reply::Nil));
        if !matches!(Inode::parse(ino, &repaired), Ok(Some(_))) {
            repaired[at] = kept;
            bad.push(name);
        }
    }
    match Inode::parse(ino, &repaired) {
        Ok(Some(inode)) => (inode, bad),
        _ => (blank, Inode::FIELDS.to_vec()),
    }
}
