//! The tables of round trips in the documentation of the GridFS and the volume layout are this
//! test's data; and a mount that changes something has nothing to tell its own kernel.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::id::{Fh, LockOwner};
use dbmount_engine::op::{OpenFlags, RenameMode, SetAttr, SetTime, XattrMode};
use dbmount_engine::sim::harness::{Bucket, CALLER, Disk, Setup, Site, Weather, World};
use dbmount_engine::{Ino, Kind, Name, Request, Response, Wall};

const BUCKET: &str = include_str!("../../src/gridfs/round_trips.md");
const DISK: &str = include_str!("../../src/volume/round_trips.md");

/// A mount of a few files, whose names the kernel has looked up; a second mount is another program.
struct Warm<S: Site> {
    world: World<S>,
    file: Ino,
    dir: Ino,
    link: Ino,
}

impl<S: Site> Warm<S> {
    fn new(seed: u64, weather: Weather) -> Warm<S> {
        let mut world = World::new(seed, weather);
        world.mount(&Setup::default());
        let other = world.mount(&Setup::default());
        let mut warm = Warm { world, file: Ino::ROOT, dir: Ino::ROOT, link: Ino::ROOT };
        let (parent, caller) = (Ino::ROOT, CALLER);
        for dir in ["dir", "empty"] {
            warm.ask(other, Request::Mkdir { parent, name: name(dir), perm: 0o755, caller });
        }
        let target = Bytes::from("file");
        warm.ask(other, Request::Symlink { parent, name: name("link"), target, caller });
        let dir = warm.look(other, parent, "dir");
        for (parent, text) in [(parent, "file"), (parent, "other"), (dir, "in")] {
            let (ino, fh) = warm.create(other, parent, text);
            warm.write(other, ino, fh, b"some text");
            warm.ask(other, Request::Flush { ino, fh, owner: LockOwner(0) });
            warm.ask(other, Request::Release { ino, fh, owner: None });
        }
        warm.world.settle();
        warm.ask(0, Request::GetAttr { ino: parent });
        warm.ask(0, Request::Lookup { parent, name: name("new") });
        for text in ["empty", "other"] {
            warm.look(0, parent, text);
        }
        warm.file = warm.look(0, parent, "file");
        warm.dir = warm.look(0, parent, "dir");
        warm.link = warm.look(0, parent, "link");
        warm.world.settle();
        warm
    }

    fn ask(&mut self, at: usize, request: Request) -> Response {
        self.world
            .request(at, request.clone())
            .unwrap_or_else(|errno| panic!("{request:?}: {errno}"))
    }

    fn look(&mut self, at: usize, parent: Ino, text: &str) -> Ino {
        match self.ask(at, Request::Lookup { parent, name: name(text) }) {
            Response::Entry(entry) => entry.attr.ino,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn create(&mut self, at: usize, parent: Ino, text: &str) -> (Ino, Fh) {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let name = name(text);
        match self.ask(at, Request::Create { parent, name, perm: 0o644, flags, caller: CALLER }) {
            Response::Created(entry, opened) => (entry.attr.ino, opened.fh),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn write(&mut self, at: usize, ino: Ino, fh: Fh, data: &'static [u8]) {
        self.ask(at, Request::Write { ino, fh, offset: 2, data: Bytes::from_static(data) });
    }

    fn open(&mut self, ino: Ino, truncate: bool) -> Fh {
        let flags = OpenFlags { write: true, truncate, ..OpenFlags::default() };
        match self.ask(0, Request::Open { ino, flags }) {
            Response::Opened(opened) => opened.fh,
            other => panic!("{other:?}"),
        }
    }

    /// The request of a row of the table, with everything that comes before it done.
    fn request(&mut self, row: &str) -> Request {
        let (parent, caller) = (Ino::ROOT, CALLER);
        let (file, dir, owner) = (self.file, self.dir, LockOwner(0));
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
        match row {
            "lookup of a name" => Request::Lookup { parent: dir, name: name("in") },
            "lookup of a name in a new directory" => {
                let made = Request::Mkdir { parent, name: name("new"), perm: 0o755, caller };
                let Response::Entry(entry) = self.ask(0, made) else { panic!("no directory") };
                Request::Lookup { parent: entry.attr.ino, name: name("none") }
            }
            "getattr of a new file" => Request::GetAttr { ino: self.create(0, parent, "new").0 },
            "lookup of a name that was just looked up" => {
                Request::Lookup { parent, name: name("file") }
            }
            "getattr after a change by another program" => {
                let ino = self.look(1, parent, "file");
                let set = SetAttr { perm: Some(0o640), ..SetAttr::default() };
                self.ask(1, Request::SetAttr { ino, set, caller });
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
            "link" => Request::Link { ino: file, parent, name: name("new") },
            "exchange" => Request::Rename {
                parent,
                name: name("file"),
                to_parent: parent,
                to_name: name("other"),
                mode: RenameMode::Exchange,
            },
            "readlink" => Request::ReadLink { ino: self.link },
            "unlink" => Request::Unlink { parent, name: name("file") },
            "rmdir" => Request::Rmdir { parent, name: name("empty") },
            "rename" => to("file", "new"),
            "rename over a file" => to("file", "other"),
            "rename of a directory" => to("dir", "new"),
            "setattr" => set(SetAttr { perm: Some(0o600), ..SetAttr::default() }),
            "setattr of a file that is being written" => {
                let (ino, fh) = self.create(0, parent, "new");
                self.write(0, ino, fh, b"data");
                let time = Some(SetTime::At(Wall(5)));
                let set = SetAttr { perm: Some(0o600), mtime: time, ..SetAttr::default() };
                Request::SetAttr { ino, set, caller }
            }
            "truncate" => set(SetAttr { size: Some(2), ..SetAttr::default() }),
            "setxattr" => {
                let (name, value) = (name("user.a"), Bytes::from("value"));
                Request::SetXattr { ino: file, name, value, mode: XattrMode::Any }
            }
            "getxattr, none there" => Request::GetXattr { ino: file, name: name("user.a") },
            "listxattr" => Request::ListXattr { ino: file },
            "statfs" => Request::StatFs,
            "opendir" => Request::OpenDir { ino: parent },
            "readdir of a directory made here" => {
                let made = Request::Mkdir { parent, name: name("new"), perm: 0o755, caller };
                let Response::Entry(entry) = self.ask(0, made) else { panic!("no directory") };
                let ino = entry.attr.ino;
                for text in ["a", "b"] {
                    self.create(0, ino, text);
                }
                let fh = match self.ask(0, Request::OpenDir { ino }) {
                    Response::Opened(opened) => opened.fh,
                    other => panic!("{other:?}"),
                };
                Request::ReadDir { ino, fh, offset: 0, budget: 4096, plus: true }
            }
            "readdir, a page" => {
                let fh = match self.ask(0, Request::OpenDir { ino: Ino::ROOT }) {
                    Response::Opened(opened) => opened.fh,
                    other => panic!("{other:?}"),
                };
                Request::ReadDir { ino: parent, fh, offset: 0, budget: 4096, plus: true }
            }
            "open" => open(false),
            "open with truncation" => open(true),
            "read, cold" => {
                let fh = self.open(file, false);
                Request::Read { ino: file, fh, offset: 0, size: 4096 }
            }
            "read of what was just written" => {
                let (ino, fh) = self.create(0, parent, "new");
                self.write(0, ino, fh, b"data");
                self.ask(0, Request::Flush { ino, fh, owner });
                Request::Read { ino, fh, offset: 0, size: 4096 }
            }
            "getattr of what was just written" => {
                let Request::Read { ino, .. } = self.request("read of what was just written")
                else {
                    unreachable!("it is a read")
                };
                Request::GetAttr { ino }
            }
            "write" => {
                let fh = self.open(file, false);
                Request::Write { ino: file, fh, offset: 2, data: Bytes::from("data") }
            }
            "flush of a new file" => {
                let (ino, fh) = self.create(0, parent, "new");
                self.write(0, ino, fh, b"data");
                Request::Flush { ino, fh, owner }
            }
            "flush of a changed part" | "flush of a rewritten file" => {
                let fh = self.open(file, row.ends_with("file"));
                self.write(0, file, fh, b"data");
                Request::Flush { ino: file, fh, owner }
            }
            "flush of what is clean" => {
                let fh = self.open(file, false);
                Request::Flush { ino: file, fh, owner }
            }
            "fsync" => {
                let (ino, fh) = self.create(0, parent, "new");
                self.write(0, ino, fh, b"data");
                Request::Fsync { ino, fh, data_only: false }
            }
            "fsync of what is safe" => {
                let request = self.request("fsync");
                self.ask(0, request.clone());
                request
            }
            "fsync of a directory" => {
                self.create(0, parent, "new");
                Request::FsyncDir { ino: parent }
            }
            other => panic!("no operation is called {other:?}"),
        }
    }
}

fn name(text: &str) -> Name {
    Name::from(text)
}

/// The rows of a table: what is done, and how many batches it takes.
fn rows(table: &str) -> impl Iterator<Item = (&str, usize)> {
    table.lines().skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, batches] = cells[..] else { panic!("{line:?}") };
        (row, batches.parse().expect("a number of batches"))
    })
}

fn are_as_it_says<S: Site>(table: &str) {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for (row, batches) in rows(table) {
        assert!(seen.insert(row), "{row} stands twice");
        let mut warm: Warm<S> = Warm::new(1, Weather::CALM);
        let request = warm.request(row);
        warm.world.settle();
        // That there is no such attribute is an answer too.
        let _answer = warm.world.request(0, request);
        let took = warm.world.last_batches(0);
        if took.len() != batches {
            wrong.push(format!("{row}: {} instead of {batches}: {took:?}", took.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 30, "rows are missing");
}

#[test]
fn round_trips_to_a_bucket_are_as_the_table_says() {
    are_as_it_says::<Bucket>(BUCKET);
}

#[test]
fn round_trips_to_a_volume_are_as_the_table_says() {
    are_as_it_says::<Disk>(DISK);
}

/// An echo that is taken for a change by others costs the kernel what it remembers, and the next
/// look at it a round trip.
#[test]
fn the_kernel_is_not_told_of_its_own_changes() {
    let mut wrong = BTreeSet::new();
    for (row, _) in rows(DISK).filter(|(row, _)| !row.contains("by another program")) {
        for seed in 0..8 {
            let mut warm: Warm<Disk> = Warm::new(seed, Weather::UNORDERED);
            let request = warm.request(row);
            let _answer = warm.world.request(0, request);
            // What is taken for an echo is made sure of.
            warm.world.sleep(Duration::from_millis(100));
            let told = warm.world.last_invalidations(0);
            if !told.is_empty() {
                wrong.insert(format!("{row}: {told:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_file_is_copied_into_a_bucket_with_four_commands() {
    let mut warm: Warm<Bucket> = Warm::new(1, Weather::CALM);
    let parent = Ino::ROOT;
    let sent = |warm: &Warm<Bucket>| -> usize {
        warm.world.last_batches(0).iter().map(|batch| batch.commands.len()).sum()
    };
    let (ino, fh) = warm.create(0, parent, "new");
    // The document, and its directory's times.
    assert_eq!(sent(&warm), 2);
    warm.write(0, ino, fh, b"data");
    let none = SetAttr::default();
    let at = |time| Some(SetTime::At(Wall(time)));
    for set in [
        SetAttr { atime: at(4), mtime: at(5), ..none },
        SetAttr { uid: Some(6), gid: Some(7), ..none },
        SetAttr { perm: Some(0o640), ..none },
    ] {
        warm.ask(0, Request::SetAttr { ino, set, caller: CALLER });
        assert_eq!(sent(&warm), 0);
    }
    warm.ask(0, Request::Flush { ino, fh, owner: LockOwner(0) });
    // The chunk, and the length with the attributes.
    assert_eq!(sent(&warm), 2);
    warm.ask(0, Request::Release { ino, fh, owner: None });
    assert_eq!(sent(&warm), 0);
    warm.world.settle();
    let copied = warm.look(1, parent, "new");
    let Response::Attr(attr, _) = warm.ask(1, Request::GetAttr { ino: copied }) else {
        panic!("no attributes")
    };
    let times = (attr.atime, attr.mtime);
    assert_eq!((times, attr.size), ((Wall(4), Wall(5)), 6));
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o640, 6, 7));
}
