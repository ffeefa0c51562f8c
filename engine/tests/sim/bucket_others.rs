//! A bucket that drivers use too, and that crashed mounts have left things in.

use std::time::Duration;

use bytes::Bytes;
use dbmount_engine::backend::bson::{Doc, DocBuf};
use dbmount_engine::backend::mongo::{Command, Sequence};
use dbmount_engine::gridfs::Options;
use dbmount_engine::id::{Fh, LockOwner};
use dbmount_engine::op::{OpenFlags, SetAttr};
use dbmount_engine::sim::harness::{Bucket, CALLER, Setup, Site, Weather, World};
use dbmount_engine::{Ino, Name, Request, Response};

/// Later than anything that the simulated clock shows: milliseconds.
const LATER: i64 = 4_000_000_000_000;

struct Place {
    world: World<Bucket>,
}

impl Place {
    fn new(options: Options) -> Place {
        let mut world = World::new(7, Weather::CALM);
        world.mount(&Setup { options, ..Setup::default() });
        Place { world }
    }

    fn ask(&mut self, request: Request) -> Response {
        self.world
            .request(0, request.clone())
            .unwrap_or_else(|errno| panic!("{request:?}: {errno}"))
    }

    fn look(&mut self, name: &str) -> (Ino, u32) {
        let parent = Ino::ROOT;
        match self.ask(Request::Lookup { parent, name: Name::from(name) }) {
            Response::Entry(entry) => (entry.attr.ino, entry.attr.nlink),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn open(&mut self, ino: Ino, truncate: bool) -> Fh {
        let flags = OpenFlags { write: true, truncate, ..OpenFlags::default() };
        match self.ask(Request::Open { ino, flags }) {
            Response::Opened(opened) => opened.fh,
            other => panic!("{other:?}"),
        }
    }

    /// Writes a file as a program does: made or truncated, written, closed.
    fn write(&mut self, name: &str, data: &'static str) -> Ino {
        let (parent, name) = (Ino::ROOT, Name::from(name));
        let flags = OpenFlags { write: true, truncate: true, ..OpenFlags::default() };
        let request = Request::Create { parent, name, perm: 0o644, flags, caller: CALLER };
        let Response::Created(entry, opened) = self.ask(request) else { panic!("not created") };
        let (ino, fh) = (entry.attr.ino, opened.fh);
        self.ask(Request::Write { ino, fh, offset: 0, data: Bytes::from(data) });
        self.ask(Request::Flush { ino, fh, owner: LockOwner(0) });
        self.ask(Request::Release { ino, fh, owner: None });
        ino
    }

    fn read(&mut self, ino: Ino, fh: Fh) -> String {
        match self.ask(Request::Read { ino, fh, offset: 0, size: 4096 }) {
            Response::Data(data) => String::from_utf8(data.to_vec()).expect("text"),
            other => panic!("{other:?}"),
        }
    }

    /// A write of another program.
    fn write_docs(&mut self, name: &'static str, on: &str, field: &'static str, doc: DocBuf) {
        let mut command = Command::on(name, &Bucket::options().db, on);
        let docs = vec![doc.finish().expect("a sound document")];
        command.sequences.push(Sequence { name: field.into(), docs });
        let reply = self.world.command(&command);
        assert!(reply.error().is_none(), "{reply:?}");
    }

    /// What a driver's upload makes of a text.
    fn upload(&mut self, id: i32, filename: &str, text: &'static str) {
        let mut chunk = DocBuf::new();
        chunk.i32("files_id", id).i32("n", 0).binary("data", 0, Bytes::from(text));
        self.write_docs("insert", "fs.chunks", "documents", chunk);
        let mut file = DocBuf::new();
        file.i32("_id", id).i64("length", text.len() as i64).i32("chunkSize", 261_120);
        file.date_time("uploadDate", LATER).str("filename", filename);
        self.write_docs("insert", "fs.files", "documents", file);
        self.world.settle();
    }

    fn find(&mut self, on: &str, filter: impl FnOnce(&mut DocBuf)) -> Vec<Doc> {
        let mut find = Command::on("find", &Bucket::options().db, on);
        find.body().begin("filter");
        filter(find.body());
        find.body().end();
        self.world.command(&find).batch().0
    }
}

#[test]
fn a_newer_revision_by_a_driver_takes_the_place_of_a_file() {
    let mut place = Place::new(Bucket::options());
    let old = place.write("a", "ours");
    let reader = place.open(old, false);
    place.upload(1, "a", "theirs");
    let (new, _) = place.look("a");
    assert_ne!(new, old, "it is an inode of its own");
    let fh = place.open(new, false);
    assert_eq!(place.read(new, fh), "theirs");
    assert_eq!(place.read(old, reader), "ours", "who has the old one open goes on reading it");
    // Adopted, it has the name for good.
    let set = SetAttr { perm: Some(0o600), ..SetAttr::default() };
    place.ask(Request::SetAttr { ino: new, set, caller: CALLER });
    place.world.settle();
    assert_eq!(place.look("a"), (new, 1));
    assert_eq!(place.read(old, reader), "ours");
    let kept = place.find("fs.files", |it| {
        it.i32("_id", 1).i32("metadata.dbmount.mode", 0o600);
    });
    assert_eq!(kept.len(), 1, "in place: the driver's own document");
}

#[test]
fn so_many_revisions_are_kept_and_go_with_the_file() {
    let mut place = Place::new(Options { keep_revisions: 2, ..Bucket::options() });
    for text in ["one", "two!", "three", "four!!", "five"] {
        place.write("a", text);
        place.world.sleep(Duration::from_secs(1));
    }
    let by_name = |place: &mut Place, name: &str| {
        let docs = place.find("fs.files", |it| {
            it.str("filename", name);
        });
        let length = |doc: &Doc| doc.get("length").and_then(|it| it.as_i64());
        let mut lengths: Vec<_> = docs.iter().filter_map(length).collect();
        lengths.sort_unstable();
        lengths
    };
    place.world.sleep(Duration::from_secs(30));
    assert_eq!(by_name(&mut place, "a"), [4, 5, 6], "the file and two older ones");
    let parent = Ino::ROOT;
    place.ask(Request::Rename {
        parent,
        name: "a".into(),
        to_parent: parent,
        to_name: "b".into(),
        mode: dbmount_engine::op::RenameMode::Replace,
    });
    assert_eq!(by_name(&mut place, "b"), [4, 5, 6], "they follow a rename");
    place.ask(Request::Unlink { parent, name: "b".into() });
    place.world.sleep(Duration::from_secs(900));
    // What the sweep found then goes with the next batch.
    place.world.sleep(Duration::from_secs(1));
    assert!(by_name(&mut place, "b").is_empty());
    let chunks = place.find("fs.chunks", |_| {});
    assert!(chunks.is_empty(), "nothing is left: {chunks:?}");
}

#[test]
fn a_half_written_file_is_cut_to_its_length() {
    let mut place = Place::new(Bucket::options());
    let ino = place.write("a", "whole");
    // A mount has died between the chunks and the length.
    let found = place.find("fs.files", |it| {
        it.i64("metadata.dbmount.ino", ino.0 as i64);
    });
    let id = found[0].get("_id").unwrap();
    let mut update = DocBuf::new();
    update.begin("q").value("files_id", &id).i32("n", 0).end();
    update.begin("u").begin("$set").binary("data", 0, Bytes::from("whole and more")).end().end();
    place.write_docs("update", "fs.chunks", "updates", update);
    let mut extra = DocBuf::new();
    extra.value("files_id", &id).i32("n", 1).binary("data", 0, Bytes::from("more"));
    place.write_docs("insert", "fs.chunks", "documents", extra);
    let mut mark = DocBuf::new();
    mark.begin("q").value("_id", &id).end().begin("u").begin("$set");
    mark.begin("metadata.dbmount.wr").i64("s", 99).i64("t", 1).end().end().end();
    place.write_docs("update", "fs.files", "updates", mark);

    place.world.sleep(Duration::from_secs(150));
    let chunks = place.find("fs.chunks", |_| {});
    assert_eq!(chunks.len(), 1);
    let data = chunks[0].get("data");
    let holds = matches!(
        &data,
        Some(dbmount_engine::backend::bson::Value::Binary { data, .. }) if data == "whole"
    );
    assert!(holds, "{data:?}");
    let marked = place.find("fs.files", |it| {
        it.begin("metadata.dbmount.wr").bool("$exists", true).end();
    });
    assert!(marked.is_empty());
}

#[test]
fn filenames_follow_a_directory_and_nothing_else() {
    let mut place = Place::new(Bucket::options());
    let (parent, caller) = (Ino::ROOT, CALLER);
    place.upload(1, "d/theirs", "a driver's");
    place.ask(Request::GetAttr { ino: parent });
    let (dir, _) = place.look("d");
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let name = Name::from("ours");
    place.ask(Request::Create { parent: dir, name, perm: 0o644, flags, caller });
    place.ask(Request::Rename {
        parent,
        name: "d".into(),
        to_parent: parent,
        to_name: "e".into(),
        mode: dbmount_engine::op::RenameMode::Replace,
    });
    place.world.settle();
    for filename in ["e/theirs", "e/ours"] {
        let found = place.find("fs.files", |it| {
            it.str("filename", filename);
        });
        assert_eq!(found.len(), 1, "{filename}");
    }
    place.upload(2, "d/late", "made at the old path");
    place.world.sleep(Duration::from_secs(10));
    let late = place.find("fs.files", |it| {
        it.str("filename", "d/late");
    });
    assert_eq!(late.len(), 1);
}
