//! Requests in any order and a server that answers anything: the engine answers every request, and
//! nothing makes it panic.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::{Forge, Numbers};
use crate::config::Config;
use crate::contract::{Batch, Fault, Input, Link, Output};
use crate::engine::Engine;
use crate::id::{Fh, Ino, Lane, LockOwner, OpId};
use crate::lock::{Lock, LockKind, LockMode};
use crate::op::{
    Caller, FallocateMode, Kind, Name, OpenFlags, RenameMode, Request, Response, SetAttr, SetTime,
    Whence, XattrMode,
};
use crate::replay::Recipe;
use crate::sim::harness::{BackendOf, ClientId, Server, Site};
use crate::time::{Duration, Mono, Now, Wall};

/// The most things that happen in one run.
const STEPS: usize = 300;
/// Inputs after which a request that is not answered never will be.
const END: usize = 20_000;
/// The connection of the mount.
const CLIENT: ClientId = ClientId(7);

struct Run<'a, S: Site> {
    numbers: Numbers<'a>,
    engine: Engine<S::Layout>,
    server: S::Server,
    now: Now,
    batches: VecDeque<Batch<BackendOf<S>>>,
    /// Asked, and not answered yet.
    pending: BTreeSet<OpId>,
    ops: u64,
    inos: Vec<Ino>,
    fhs: Vec<Fh>,
}

/// Plays `data` as requests, replies and accidents.
pub(super) fn hostile<S: Site>(data: &[u8])
where
    BackendOf<S>: Forge,
{
    let now = Now { mono: Mono(1), wall: Wall(1_600_000_000_000_000_000) };
    let mut numbers = Numbers::new(data);
    // Small bounds are met sooner.
    let config = Config {
        max_ops: 64,
        cache_bytes: 64 << 10,
        dirty_bytes: 64 << 10,
        flush_bytes: 16 << 10,
        block_bytes: 4 << 10,
        readahead_bytes: 16 << 10,
        fact_entries: 32,
        listing_entries: 1 + numbers.below(8),
        ..Config::default()
    };
    let recipe = Recipe::<S::Layout> { config, options: S::options(), seed: 42, now };
    let engine = recipe.engine();
    let mut run = Run::<S> {
        numbers,
        engine,
        server: S::server(now),
        now,
        batches: VecDeque::new(),
        pending: BTreeSet::new(),
        ops: 0,
        inos: alloc::vec![Ino::ROOT, Ino(2), Ino(u64::MAX)],
        fhs: alloc::vec![Fh(0), Fh(1), Fh(u64::MAX)],
    };
    for lane in Lane::ALL {
        run.input(Input::Link(lane, Link::Up { pushes: true }));
    }
    run.ask(Request::Attach);
    let mut steps = 0;
    while !run.numbers.is_empty() && steps < STEPS {
        run.step();
        steps += 1;
    }
    run.end();
}

impl<S: Site> Run<'_, S>
where
    BackendOf<S>: Forge,
{
    fn input(&mut self, input: Input<BackendOf<S>>) {
        self.now.mono = self.now.mono.after(Duration::from_micros(50));
        self.now.wall.0 += 50_000;
        self.engine.handle(self.now, input);
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Submit(batch) => self.batches.push_back(batch),
                Output::Respond(op, answer) => {
                    assert!(self.pending.remove(&op), "{op:?}: nobody waits for {answer:?}");
                    self.learn(&answer);
                }
                Output::Abandon(_) | Output::Invalidate(_) | Output::Notice(_) => {}
            }
        }
    }

    fn learn<E>(&mut self, answer: &Result<Response, E>) {
        let Ok(answer) = answer else { return };
        let (ino, fh) = match answer {
            Response::Entry(entry) => (Some(entry.attr.ino), None),
            Response::Created(entry, opened) => (Some(entry.attr.ino), Some(opened.fh)),
            Response::Opened(opened) => (None, Some(opened.fh)),
            _ => (None, None),
        };
        self.inos.extend(ino);
        self.fhs.extend(fh);
    }

    fn ask(&mut self, request: Request) {
        self.ops += 1;
        let op = OpId(self.ops);
        if !matches!(request, Request::Forget { .. }) {
            self.pending.insert(op);
        }
        self.input(Input::Request(op, request));
    }

    fn step(&mut self) {
        match self.numbers.below(16) {
            0..6 => {
                let request = self.request();
                self.ask(request);
            }
            6..12 => self.answer(true),
            12 => {
                let fault = [Fault::NotSent, Fault::Unknown][self.numbers.below(2)];
                if let Some(batch) = self.batches.pop_front() {
                    self.input(Input::Replies(batch.id, Err(fault)));
                }
            }
            13 => {
                let push = BackendOf::<S>::push(&mut self.numbers);
                self.input(Input::Push(push));
            }
            14 => {
                let lane = Lane::ALL[self.numbers.below(3)];
                let link = match self.numbers.below(4) {
                    0 => Link::Down(String::from("gone")),
                    1 => Link::Refused(String::from("no")),
                    _ => Link::Up { pushes: self.numbers.below(2) == 0 },
                };
                // What was on a lane that goes down has had its replies.
                if !matches!(link, Link::Up { .. }) {
                    while let Some(at) = self.batches.iter().position(|it| it.lane == lane) {
                        if let Some(batch) = self.batches.remove(at) {
                            self.input(Input::Replies(batch.id, Err(Fault::Unknown)));
                        }
                        if self.batches.len() > STEPS {
                            break;
                        }
                    }
                }
                self.input(Input::Link(lane, link));
            }
            _ => match self.numbers.below(3) {
                0 => {
                    let op = OpId(1 + u64::from(self.numbers.byte()) % self.ops.max(1));
                    self.input(Input::Cancel(op));
                }
                1 => {
                    self.now.mono = self.now.mono.after(Duration::from_millis(700));
                    self.input(Input::Tick);
                }
                _ => {
                    let due = self.engine.poll_timeout().unwrap_or(self.now.mono);
                    self.now.mono = self.now.mono.max(due);
                    self.input(Input::Tick);
                }
            },
        }
    }

    /// Answers one of the batches, with lies or without.
    fn answer(&mut self, lies: bool) {
        if self.batches.is_empty() {
            return;
        }
        let at = if lies { self.numbers.below(self.batches.len().min(256)) } else { 0 };
        let Some(batch) = self.batches.remove(at) else { return };
        let mut replies = self.server.run(self.now, CLIENT, &batch);
        if lies {
            for reply in &mut replies {
                *reply = BackendOf::<S>::reply(&mut self.numbers, reply);
            }
        }
        self.input(Input::Replies(batch.id, Ok(replies)));
    }

    /// Whatever has happened, every request ends.
    fn end(&mut self) {
        for lane in Lane::ALL {
            self.input(Input::Link(lane, Link::Up { pushes: true }));
        }
        // Who waits for a lock, or for a mount that is never granted, gives up.
        for op in self.pending.clone() {
            self.input(Input::Cancel(op));
        }
        for _ in 0..END {
            let Some(due) = self.engine.poll_timeout() else { break };
            if self.pending.is_empty() {
                return;
            }
            if self.batches.is_empty() {
                self.now.mono = self.now.mono.max(due);
                self.input(Input::Tick);
            }
            self.answer(false);
        }
        self.input(Input::Link(Lane::Meta, Link::Refused(String::from("no more"))));
        let left = self.engine.in_flight();
        assert!(self.pending.is_empty(), "never answered: {:?}, {left:?}", self.pending);
    }

    fn ino(&mut self) -> Ino {
        let len = self.inos.len().min(200);
        let at = self.numbers.below(len);
        self.inos[self.inos.len() - 1 - at]
    }

    fn fh(&mut self) -> Fh {
        let len = self.fhs.len().min(200);
        let at = self.numbers.below(len);
        self.fhs[self.fhs.len() - 1 - at]
    }

    fn name(&mut self) -> Name {
        match self.numbers.below(8) {
            0 => Name::from(self.numbers.bytes(32)),
            n => Name::from(["a", "b", "a.c", "d", "d.x", ".git", "%self", "e:f"][n]),
        }
    }

    fn request(&mut self) -> Request {
        let caller = Caller { uid: 1000, gid: 1000, pid: 1, umask: 0 };
        let (ino, parent) = (self.ino(), self.ino());
        let name = self.name();
        let small = |numbers: &mut Numbers<'_>| u64::from(numbers.short());
        let far = |numbers: &mut Numbers<'_>| match numbers.below(8) {
            0 => u64::MAX - u64::from(numbers.byte()),
            1 => 1 << 62,
            _ => u64::from(numbers.short()),
        };
        let numbers = &mut self.numbers;
        match numbers.below(34) {
            0 | 1 => Request::Lookup { parent, name },
            2 => Request::Forget { ino, count: small(numbers) },
            3 => Request::GetAttr { ino },
            4 => {
                let set = SetAttr {
                    perm: (numbers.below(2) == 0).then_some(0o4711),
                    uid: (numbers.below(4) == 0).then_some(0),
                    gid: None,
                    size: (numbers.below(2) == 0).then(|| far(numbers)),
                    atime: None,
                    mtime: (numbers.below(3) == 0).then_some(SetTime::At(Wall(i64::MIN))),
                };
                Request::SetAttr { ino, set, caller }
            }
            5 => Request::ReadLink { ino },
            6 => {
                let kind = [Kind::Fifo, Kind::File, Kind::CharDevice][numbers.below(3)];
                Request::Mknod { parent, name, kind, perm: 0o644, rdev: 9, caller }
            }
            7 => Request::Mkdir { parent, name, perm: 0o755, caller },
            8 => {
                let target = Bytes::copy_from_slice(numbers.bytes(64));
                Request::Symlink { parent, name, target, caller }
            }
            9 => Request::Unlink { parent, name },
            10 => Request::Rmdir { parent, name },
            11 | 12 => {
                let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = mode[numbers.below(3)];
                let (to_parent, to_name) = (self.ino(), self.name());
                Request::Rename { parent, name, to_parent, to_name, mode }
            }
            13 => Request::Link { ino, parent, name },
            14 | 15 => {
                let flags = OpenFlags {
                    write: true,
                    truncate: numbers.below(2) == 0,
                    exclusive: numbers.below(2) == 0,
                    ..OpenFlags::default()
                };
                Request::Create { parent, name, perm: 0o600, flags, caller }
            }
            16 => {
                let flags = OpenFlags {
                    write: numbers.below(2) == 0,
                    truncate: numbers.below(4) == 0,
                    append: numbers.below(4) == 0,
                    ..OpenFlags::default()
                };
                Request::Open { ino, flags }
            }
            17 => {
                let (offset, size) = (far(numbers), numbers.short());
                Request::Read { ino, fh: self.fh(), offset, size }
            }
            18 | 19 => {
                let (offset, len) = (far(numbers), numbers.short() as usize % 20_000);
                let data = Bytes::from(alloc::vec![b'x'; len]);
                Request::Write { ino, fh: self.fh(), offset, data }
            }
            20 => {
                let owner = LockOwner(numbers.below(3) as u64);
                Request::Flush { ino, fh: self.fh(), owner }
            }
            21 => {
                let owner = (numbers.below(2) == 0).then_some(LockOwner(1));
                Request::Release { ino, fh: self.fh(), owner }
            }
            22 => Request::Fsync { ino, fh: self.fh(), data_only: false },
            23 => {
                let (offset, length) = (far(numbers), far(numbers));
                let mode = FallocateMode {
                    keep_size: numbers.below(2) == 0,
                    punch_hole: numbers.below(2) == 0,
                    zero_range: numbers.below(2) == 0,
                };
                Request::Fallocate { ino, fh: self.fh(), offset, length, mode }
            }
            24 => Request::OpenDir { ino },
            25 => {
                let (offset, budget) = (far(numbers), numbers.short());
                let plus = numbers.below(2) == 0;
                Request::ReadDir { ino, fh: self.fh(), offset, budget, plus }
            }
            26 => Request::ReleaseDir { ino, fh: self.fh() },
            27 => [Request::StatFs, Request::FsyncDir { ino }][numbers.below(2)].clone(),
            28 => {
                let value = Bytes::copy_from_slice(numbers.bytes(64));
                let mode = [XattrMode::Any, XattrMode::Create][numbers.below(2)];
                Request::SetXattr { ino, name: "user.a".into(), value, mode }
            }
            29 => {
                let (offset, to_offset, length) = (far(numbers), far(numbers), far(numbers));
                let to_ino = self.ino();
                let (fh, to_fh) = (self.fh(), self.fh());
                Request::CopyRange { ino, fh, offset, to_ino, to_fh, to_offset, length }
            }
            30 => {
                let (offset, whence) = (far(numbers), [Whence::Data, Whence::Hole]);
                let whence = whence[numbers.below(2)];
                Request::Seek { ino, fh: self.fh(), offset, whence }
            }
            31 | 32 => {
                let start = far(numbers);
                let lock = Lock {
                    kind: [LockKind::Record, LockKind::Flock][numbers.below(2)],
                    mode: [LockMode::Shared, LockMode::Exclusive][numbers.below(2)],
                    start,
                    end: if numbers.below(2) == 0 { Lock::END } else { far(numbers) },
                    owner: LockOwner(numbers.below(3) as u64),
                    pid: 1,
                };
                match numbers.below(4) {
                    0 => Request::GetLock { ino, lock },
                    1 => Request::Unlock { ino, lock },
                    n => Request::SetLock { ino, lock, wait: n == 2 },
                }
            }
            _ => match numbers.below(4) {
                0 => Request::GetXattr { ino, name: "user.a".into() },
                1 => Request::GetXattr { ino, name: "user.redis.ttl".into() },
                2 => Request::RemoveXattr { ino, name: "user.a".into() },
                _ => Request::ListXattr { ino },
            },
        }
    }
}
