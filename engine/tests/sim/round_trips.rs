//! The table of round trips in the engine's documentation is this test's data: each operation is
//! run with warm caches, and its batches are counted.

use std::collections::BTreeSet;

use bytes::Bytes;
use dbmount_engine::id::{Fh, LockOwner};
use dbmount_engine::op::{OpenFlags, RenameMode, SetAttr, XattrMode};
use dbmount_engine::sim::harness::{CALLER, Weather};
use dbmount_engine::{Ino, Kind, Name, Request, Response};

use crate::check::{Setup, World};

const TABLE: &str = include_str!("../../src/engine/round_trips.md");

/// A mount of a few files, whose names the kernel has looked up.
struct Warm {
    world: World,
    file: Ino,
    field: Ino,
    dir: Ino,
    link: Ino,
}

impl Warm {
    fn new() -> Warm {
        let mut world = World::new(1, Weather::CALM);
        world.redis(["SET", "file", "text"]);
        world.redis(["SET", "other", "text"]);
        world.redis(["HSET", "main", "c", "text"]);
        world.redis(["SET", "dir:in", "text"]);
        world.mount(&Setup::default());
        let mut warm =
            Warm { world, file: Ino::ROOT, field: Ino::ROOT, dir: Ino::ROOT, link: Ino::ROOT };
        let (parent, caller) = (Ino::ROOT, CALLER);
        warm.ask(Request::GetAttr { ino: parent });
        let target = Bytes::from("file");
        warm.ask(Request::Symlink { parent, name: name("link"), target, caller });
        warm.ask(Request::Mkdir { parent, name: name("empty"), perm: 0o755, caller });
        warm.ask(Request::Lookup { parent, name: name("new") });
        warm.ask(Request::Lookup { parent, name: name("empty") });
        warm.ask(Request::Lookup { parent, name: name("other") });
        warm.file = warm.look("file");
        warm.field = warm.look("main.c");
        warm.dir = warm.look("dir");
        warm.link = warm.look("link");
        warm.world.settle();
        warm
    }

    fn ask(&mut self, request: Request) -> Response {
        self.world
            .request(0, request.clone())
            .unwrap_or_else(|errno| panic!("{request:?}: {errno}"))
    }

    fn look(&mut self, text: &str) -> Ino {
        match self.ask(Request::Lookup { parent: Ino::ROOT, name: name(text) }) {
            Response::Entry(entry) => entry.attr.ino,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn open(&mut self, ino: Ino) -> Fh {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        match self.ask(Request::Open { ino, flags }) {
            Response::Opened(opened) => opened.fh,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, ino: Ino) -> Fh {
        let fh = self.open(ino);
        self.ask(Request::Write { ino, fh, offset: 2, data: Bytes::from("data") });
        fh
    }

    fn open_dir(&mut self) -> Fh {
        match self.ask(Request::OpenDir { ino: Ino::ROOT }) {
            Response::Opened(opened) => opened.fh,
            other => panic!("{other:?}"),
        }
    }

    /// The request of a row of the table, with everything that comes before it done.
    fn request(&mut self, row: &str) -> Request {
        let (parent, caller) = (Ino::ROOT, CALLER);
        let (file, dir) = (self.file, self.dir);
        let to = |name: &str, to: &str| Request::Rename {
            parent,
            name: Name::from(name),
            to_parent: parent,
            to_name: Name::from(to),
            mode: RenameMode::Replace,
        };
        let set = |set| Request::SetAttr { ino: file, set, caller };
        let open = |truncate| {
            let flags = OpenFlags { write: true, truncate, ..OpenFlags::default() };
            Request::Open { ino: file, flags }
        };
        let owner = LockOwner(0);
        match row {
            "lookup of a name" => Request::Lookup { parent: dir, name: name("in") },
            "lookup of a name that was just looked up" => {
                Request::Lookup { parent, name: name("file") }
            }
            "getattr after a change by another program" => {
                self.world.sleep(std::time::Duration::from_secs(1));
                self.world.redis(["SET", "file", "changed"]);
                self.world.settle();
                Request::GetAttr { ino: file }
            }
            "create" => {
                let flags = OpenFlags { write: true, ..OpenFlags::default() };
                Request::Create { parent, name: name("new"), perm: 0o644, flags, caller }
            }
            "mkdir" => Request::Mkdir { parent, name: name("new"), perm: 0o755, caller },
            "mknod" => {
                let (kind, perm, rdev) = (Kind::Fifo, 0o644, 0);
                Request::Mknod { parent, name: name("new"), kind, perm, rdev, caller }
            }
            "symlink" => {
                let target = Bytes::from("file");
                Request::Symlink { parent, name: name("new"), target, caller }
            }
            "readlink" => Request::ReadLink { ino: self.link },
            "unlink" => Request::Unlink { parent, name: name("file") },
            "rmdir" => Request::Rmdir { parent, name: name("empty") },
            "rename" => to("file", "new"),
            "rename over a file" => to("file", "other"),
            "rename of a directory" => to("dir", "new"),
            "setattr" => set(SetAttr { perm: Some(0o600), ..SetAttr::default() }),
            "truncate" => set(SetAttr { size: Some(2), ..SetAttr::default() }),
            "setxattr" => {
                let (name, value) = (name("user.a"), Bytes::from("value"));
                Request::SetXattr { ino: file, name, value, mode: XattrMode::Any }
            }
            "getxattr" => Request::GetXattr { ino: file, name: name("user.redis.type") },
            "listxattr" => Request::ListXattr { ino: file },
            "statfs" => Request::StatFs,
            "opendir" => Request::OpenDir { ino: parent },
            "readdir, a page" => {
                let fh = self.open_dir();
                Request::ReadDir { ino: parent, fh, offset: 0, budget: 4096, plus: true }
            }
            "releasedir" => Request::ReleaseDir { ino: parent, fh: self.open_dir() },
            "open" => open(false),
            "open with truncation" => open(true),
            "read, cold" => Request::Read { ino: file, fh: self.open(file), offset: 0, size: 4096 },
            "read, again" => {
                let read = self.request("read, cold");
                self.ask(read.clone());
                read
            }
            "write" => {
                let fh = self.open(file);
                Request::Write { ino: file, fh, offset: 2, data: Bytes::from("data") }
            }
            "flush of a string" => Request::Flush { ino: file, fh: self.write(file), owner },
            "flush of a hash field" => {
                let ino = self.field;
                Request::Flush { ino, fh: self.write(ino), owner }
            }
            "flush of what is clean" => Request::Flush { ino: file, fh: self.open(file), owner },
            "fsync" => Request::Fsync { ino: file, fh: self.write(file), data_only: false },
            "release" => {
                let flush = self.request("flush of a string");
                let Request::Flush { ino, fh, .. } = flush else { panic!("{flush:?}") };
                self.ask(flush);
                Request::Release { ino, fh, owner: None }
            }
            other => panic!("no operation is called {other:?}"),
        }
    }
}

fn name(text: &str) -> Name {
    Name::from(text)
}

#[test]
fn round_trips_are_as_the_table_says() {
    let mut seen = BTreeSet::new();
    for line in TABLE.lines().skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, batches] = cells[..] else { panic!("{line:?}") };
        assert!(seen.insert(row), "{row} stands twice");
        let mut warm = Warm::new();
        let request = warm.request(row);
        warm.world.settle();
        // Counted until it is answered: what the layout looks at of its own accord comes later, and
        // nobody waits for it.
        warm.ask(request);
        let took = warm.world.last_batches(0);
        assert_eq!(took.len(), batches.parse::<usize>().unwrap(), "{row}: {took:?}");
    }
    assert!(seen.len() > 30, "rows are missing");
}
