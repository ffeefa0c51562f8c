//! A small filesystem in memory behind the engine's API: enough for the driver, the adapter and
//! the command line to be tested without an engine. Each request goes over the transport and back
//! before it is answered.

#![allow(unreachable_pub, dead_code, reason = "each test program uses a part of this")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dbmount::driver::Driver;
use dbmount::machine::{Clock, Machine, Sink};
use dbmount::sim::{SimServer, SimTransport};
use dbmount::source::{Opener, Serve, Settings, Source};
use dbmount_engine::backend::redis::{Command, Push, Redis, Reply};
use dbmount_engine::decide::Caps;
use dbmount_engine::engine::{Credit, InFlight, Progress};
use dbmount_engine::op::{
    Attached, DirEntry, Entry, Opened, RenameMode, SetAttr, SetTime, StatFs, XattrMode,
};
use dbmount_engine::{
    Attr, Batch, BatchId, Duration, Errno, Fh, Ino, Input, Invalidation, Kind, Lane, Mode, Mono,
    Name, Now, OpId, Output, Request, Response, Wall,
};

/// How long the kernel may keep everything: for ever, so that only invalidations change it.
const LONG: Duration = Duration::from_secs(3600);

/// Answers `+OK` to everything.
pub struct Echo;

impl SimServer<Redis> for Echo {
    fn execute(&mut self, _now: Now, batch: &Batch<Redis>) -> Vec<Reply> {
        batch.commands.iter().map(|_| Reply::Status("OK".into())).collect()
    }

    fn take_pushes(&mut self) -> Vec<Push> {
        Vec::new()
    }
}

struct Node {
    attr: Attr,
    data: Vec<u8>,
    children: BTreeMap<Vec<u8>, Ino>,
    xattrs: BTreeMap<Vec<u8>, Bytes>,
}

/// The machine.
pub struct Memory {
    nodes: HashMap<Ino, Node>,
    next: u64,
    now: Now,
    under_way: BTreeMap<BatchId, (OpId, Request)>,
    sleepers: Vec<(Mono, OpId)>,
    batches: u64,
    out: VecDeque<Output<Redis>>,
    /// What `credit` says of operations.
    pub max_ops: usize,
    /// What the last `Detach` is answered.
    fail_detach: bool,
    /// What `Attach` is answered instead.
    refuse: Option<String>,
}

type Answer = Result<Response, Errno>;

impl Memory {
    /// An empty root.
    pub fn new(now: Now) -> Self {
        let mut memory = Memory {
            nodes: HashMap::new(),
            next: 1,
            now,
            under_way: BTreeMap::new(),
            sleepers: Vec::new(),
            batches: 0,
            out: VecDeque::new(),
            max_ops: 64,
            fail_detach: false,
            refuse: None,
        };
        memory.make(Kind::Dir, 0o755, 0, 0);
        memory
    }

    fn make(&mut self, kind: Kind, perm: u16, uid: u32, gid: u32) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        let now = self.now.wall;
        let attr = Attr {
            ino,
            kind,
            perm,
            nlink: if kind == Kind::Dir { 2 } else { 1 },
            uid,
            gid,
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
        };
        let node =
            Node { attr, data: Vec::new(), children: BTreeMap::new(), xattrs: BTreeMap::new() };
        self.nodes.insert(ino, node);
        ino
    }

    fn node(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)
    }

    fn entry(&mut self, ino: Ino) -> Result<Entry, Errno> {
        let node = self.node(ino)?;
        node.attr.size = node.data.len() as u64;
        Ok(Entry { attr: node.attr, entry_ttl: LONG, attr_ttl: LONG })
    }

    fn child(&mut self, parent: Ino, name: &Name) -> Result<Ino, Errno> {
        self.node(parent)?.children.get(name.as_bytes()).copied().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: Ino, name: &Name, ino: Ino) -> Result<Entry, Errno> {
        let children = &mut self.node(parent)?.children;
        if children.insert(name.as_bytes().to_vec(), ino).is_some() {
            return Err(Errno::EEXIST);
        }
        self.entry(ino)
    }

    fn answer(&mut self, request: Request) -> Answer {
        let opened = Opened { fh: Fh(7), keep_cache: false, direct_io: false };
        Ok(match request {
            Request::Attach if self.refuse.is_some() => {
                Response::Refused(self.refuse.clone().unwrap_or_default())
            }
            Request::Attach => Response::Attached(Attached {
                read_only: false,
                notes: vec!["this is a test".into()],
            }),
            Request::Detach if self.fail_detach => return Err(Errno::EIO),
            Request::Lookup { name, .. } if name.as_bytes() == b"panic" => {
                panic!("asked for by a test")
            }
            Request::Lookup { parent, name } => match self.child(parent, &name) {
                Ok(ino) => Response::Entry(self.entry(ino)?),
                Err(_) => Response::NoEntry(LONG),
            },
            Request::GetAttr { ino } => Response::Attr(self.entry(ino)?.attr, LONG),
            Request::SetAttr { ino, set, .. } => {
                self.set_attr(ino, &set)?;
                Response::Attr(self.entry(ino)?.attr, LONG)
            }
            Request::ReadLink { ino } => Response::Target(self.node(ino)?.data.clone().into()),
            Request::Mknod { parent, name, kind, perm, rdev, caller } => {
                let ino = self.make(kind, perm, caller.uid, caller.gid);
                self.node(ino)?.attr.rdev = rdev;
                Response::Entry(self.add(parent, &name, ino)?)
            }
            Request::Mkdir { parent, name, perm, caller } => {
                let ino = self.make(Kind::Dir, perm, caller.uid, caller.gid);
                Response::Entry(self.add(parent, &name, ino)?)
            }
            Request::Symlink { parent, name, target, caller } => {
                let ino = self.make(Kind::Symlink, 0o777, caller.uid, caller.gid);
                self.node(ino)?.data = target.to_vec();
                Response::Entry(self.add(parent, &name, ino)?)
            }
            Request::Create { parent, name, perm, caller, .. } => {
                let ino = self.make(Kind::File, perm, caller.uid, caller.gid);
                Response::Created(self.add(parent, &name, ino)?, opened)
            }
            Request::Unlink { parent, name } => {
                self.child(parent, &name)?;
                self.node(parent)?.children.remove(name.as_bytes());
                Response::Done
            }
            Request::Rmdir { parent, name } => {
                let ino = self.child(parent, &name)?;
                if !self.node(ino)?.children.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.node(parent)?.children.remove(name.as_bytes());
                Response::Done
            }
            Request::Rename { parent, name, to_parent, to_name, mode } => {
                let ino = self.child(parent, &name)?;
                let other = self.child(to_parent, &to_name).ok();
                if mode == RenameMode::NoReplace && other.is_some() {
                    return Err(Errno::EEXIST);
                }
                self.node(parent)?.children.remove(name.as_bytes());
                self.node(to_parent)?.children.insert(to_name.as_bytes().to_vec(), ino);
                if let (RenameMode::Exchange, Some(other)) = (mode, other) {
                    self.node(parent)?.children.insert(name.as_bytes().to_vec(), other);
                }
                Response::Done
            }
            Request::Link { ino, parent, name } => {
                self.node(ino)?.attr.nlink += 1;
                Response::Entry(self.add(parent, &name, ino)?)
            }
            Request::Open { ino, flags } => {
                if flags.truncate {
                    self.node(ino)?.data.clear();
                }
                Response::Opened(opened)
            }
            Request::OpenDir { .. } => Response::Opened(opened),
            Request::Read { ino, offset, size, .. } => {
                let data = &self.node(ino)?.data;
                let from = data.len().min(offset as usize);
                let to = data.len().min(from + size as usize);
                Response::Data(Bytes::copy_from_slice(&data[from..to]))
            }
            Request::Write { ino, offset, data, .. } => {
                let now = self.now.wall;
                let node = self.node(ino)?;
                let from = offset as usize;
                let to = from + data.len();
                node.data.resize(node.data.len().max(to), 0);
                node.data[from..to].copy_from_slice(&data);
                (node.attr.mtime, node.attr.ctime) = (now, now);
                Response::Written(data.len() as u32)
            }
            Request::ReadDir { ino, offset, budget, plus, .. } => {
                Response::Dir(self.list(ino, offset, budget as usize, plus)?)
            }
            Request::StatFs => Response::StatFs(StatFs {
                bytes_total: 1 << 30,
                bytes_free: 1 << 29,
                files_total: 1000,
                files_free: 999,
            }),
            Request::GetXattr { ino, name } => {
                let value = self.node(ino)?.xattrs.get(name.as_bytes()).cloned();
                Response::Xattr(value.ok_or(Errno::ENODATA)?)
            }
            Request::ListXattr { ino } => {
                let mut names = Vec::new();
                for name in self.node(ino)?.xattrs.keys() {
                    names.extend_from_slice(name);
                    names.push(0);
                }
                Response::XattrNames(names.into())
            }
            Request::SetXattr { ino, name, value, mode } => {
                self.by_others(&name, &value)?;
                let xattrs = &mut self.node(ino)?.xattrs;
                let there = xattrs.contains_key(name.as_bytes());
                match mode {
                    XattrMode::Create if there => return Err(Errno::EEXIST),
                    XattrMode::Replace if !there => return Err(Errno::ENODATA),
                    _ => xattrs.insert(name.as_bytes().to_vec(), value),
                };
                Response::Done
            }
            Request::RemoveXattr { ino, name } => {
                let removed = self.node(ino)?.xattrs.remove(name.as_bytes());
                removed.map(|_| Response::Done).ok_or(Errno::ENODATA)?
            }
            Request::Fallocate { .. } => return Err(Errno::EOPNOTSUPP),
            Request::Seek { .. }
            | Request::CopyRange { .. }
            | Request::GetLock { .. }
            | Request::SetLock { .. }
            | Request::Unlock { .. } => return Err(Errno::ENOSYS),
            Request::Forget { .. }
            | Request::Detach
            | Request::Flush { .. }
            | Request::Release { .. }
            | Request::Fsync { .. }
            | Request::FsyncDir { .. }
            | Request::ReleaseDir { .. } => Response::Done,
        })
    }

    /// Extended attributes that make the machine do what only another client could.
    fn by_others(&mut self, name: &Name, value: &[u8]) -> Result<(), Errno> {
        match name.as_bytes() {
            b"user.test.change" => {
                let ino = self.child(Ino::ROOT, &Name::from(value))?;
                self.node(ino)?.data = b"changed by another".to_vec();
                self.out.push_back(Output::Invalidate(Invalidation::Inode(ino)));
            }
            b"user.test.remove" => {
                self.node(Ino::ROOT)?.children.remove(value);
                let name = Name::from(value);
                let entry = Invalidation::Entry { parent: Ino::ROOT, name };
                self.out.push_back(Output::Invalidate(entry));
            }
            b"user.test.fail-detach" => self.fail_detach = true,
            _ => {}
        }
        Ok(())
    }

    fn set_attr(&mut self, ino: Ino, set: &SetAttr) -> Result<(), Errno> {
        let now = self.now.wall;
        let time = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(wall) => wall,
        };
        let Node { attr, data, .. } = self.node(ino)?;
        attr.perm = set.perm.unwrap_or(attr.perm);
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime = set.atime.map_or(attr.atime, time);
        attr.mtime = set.mtime.map_or(attr.mtime, time);
        attr.ctime = now;
        if let Some(size) = set.size {
            data.resize(size as usize, 0);
        }
        Ok(())
    }

    /// Offsets are inode numbers and three, so that they stay when others come and go.
    fn list(
        &mut self,
        dir: Ino,
        offset: u64,
        budget: usize,
        plus: bool,
    ) -> Result<Vec<DirEntry>, Errno> {
        let mut lines = vec![(dir, 1, Name::from(".")), (dir, 2, Name::from(".."))];
        let children = &self.node(dir)?.children;
        let named = children.iter().map(|(name, ino)| (*ino, ino.0 + 3, Name::from(&name[..])));
        lines.extend(named);
        lines.sort_by_key(|(_, offset, _)| *offset);
        let (mut entries, mut spent) = (Vec::new(), 0);
        for (ino, at, name) in lines.into_iter().filter(|(_, at, _)| *at > offset) {
            spent += DirEntry::cost(name.as_bytes().len(), plus);
            if spent > budget {
                break;
            }
            let entry = self.entry(ino)?;
            let known = plus && at > 2;
            entries.push(DirEntry {
                ino,
                offset: at,
                kind: entry.attr.kind,
                name,
                entry: known.then_some(entry),
            });
        }
        Ok(entries)
    }
}

impl Machine for Memory {
    type Backend = Redis;

    fn handle(&mut self, now: Now, input: Input<Redis>) {
        self.now = now;
        let due: Vec<_> = {
            let (due, later) = self.sleepers.drain(..).partition(|(at, _)| *at <= now.mono);
            self.sleepers = later;
            due
        };
        for (_, op) in due {
            self.out.push_back(Output::Respond(op, Ok(Response::Xattr("slept".into()))));
        }
        match input {
            Input::Request(_, Request::Forget { .. }) => {}
            Input::Request(op, Request::GetXattr { name, .. })
                if name.as_bytes() == b"user.test.sleep" =>
            {
                self.sleepers.push((now.mono.after(Duration::from_millis(20)), op));
            }
            Input::Request(op, request) => {
                self.batches += 1;
                let id = BatchId(self.batches);
                self.under_way.insert(id, (op, request));
                self.out.push_back(Output::Submit(Batch {
                    id,
                    lane: Lane::Meta,
                    mode: Mode::Independent,
                    deadline: Mono::NEVER,
                    commands: vec![Command::plain(["PING"])],
                }));
            }
            Input::Replies(id, _) => {
                if let Some((op, request)) = self.under_way.remove(&id) {
                    let answer = self.answer(request);
                    self.out.push_back(Output::Respond(op, answer));
                }
            }
            Input::Cancel(_) | Input::Push(_) | Input::Link(..) | Input::Tick => {}
        }
    }

    fn poll(&mut self) -> Option<Output<Redis>> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        self.sleepers.iter().map(|(at, _)| *at).min()
    }

    fn credit(&self) -> Credit {
        let busy = self.under_way.len() + self.sleepers.len();
        Credit { ops: self.max_ops.saturating_sub(busy), bytes: usize::MAX }
    }

    fn caps(&self) -> Caps {
        Caps::LEAST
    }

    fn in_flight(&self) -> Vec<InFlight> {
        Vec::new()
    }

    fn progress(&self) -> Progress {
        Progress { done: 3, total: Some(3), finished: true }
    }
}

/// A driver of a machine over an echoing server.
pub fn driver_of(machine: Memory, clock: Clock) -> Arc<Driver<Memory>> {
    let started: Result<_, std::convert::Infallible> =
        Driver::start(machine, clock, |_| Ok(Box::new(SimTransport::new(Echo, clock))));
    let driver = started.unwrap();
    driver.deliver(SimTransport::<Redis, Echo>::links_up());
    driver
}

/// Serves every source from [`Memory`], but for one that cannot be reached.
pub struct MemoryOpener;

impl Opener for MemoryOpener {
    fn open(&self, source: &Source, settings: &Settings, serve: impl Serve) -> Result<(), String> {
        if source.to_string().contains("unreachable") {
            return Err("redis://unreachable does not answer; is it running?".into());
        }
        let clock = Clock::start();
        let mut machine = Memory::new(clock.now());
        if source.to_string().contains("refused") {
            machine.refuse = Some("the password is wrong; name it with --password-file".into());
        }
        let password = settings.password.clone().unwrap_or_default();
        if let Ok(root) = machine.node(Ino::ROOT) {
            root.attr.uid = settings.keys.uid;
            root.attr.mtime = Wall(0);
            root.xattrs.insert(b"user.test.password".to_vec(), password.into());
        }
        serve.serve(driver_of(machine, clock))
    }
}
