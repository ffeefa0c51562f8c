//! Elections, restarts and a server that vanishes, in the middle of a copy.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use dbmount_transport_mongo::wire::command::{Command, CursorBatch};

use crate::mongod::{Mongod, connect, primary_of, replica_set, set_uri, soon};
use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{sh, shell, until, wait};

/// An election takes a while on a busy machine.
const LONG: Duration = Duration::from_secs(150);

/// A tree of some hundred files of many sizes, with links and modes.
fn tree(at: &Path) {
    for dir in 0..12 {
        let dir = at.join(format!("dir{dir}"));
        fs::create_dir_all(dir.join("sub")).unwrap();
        for file in 0..20 {
            let len = [0, 5, 1000, 70_000, 300_000][file % 5] + file;
            let mut text = String::with_capacity(len + 32);
            while text.len() < len {
                write!(text, "{} {file} {};", dir.display(), text.len()).unwrap();
            }
            text.truncate(len);
            fs::write(dir.join(format!("file{file}")), text).unwrap();
        }
    }
    sh(
        at,
        "ln dir1/file1 dir2/hard; ln -s ../dir3/file3 dir4/soft; chmod 640 dir5/*; chmod 700 dir6",
    );
}

/// Copies a tree into a mount, with something done when a part of it has arrived; then the two
/// are the same, also for the next mount.
fn copy_while(server: &Server, disturb: impl FnOnce(&Mount)) {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let mount = Mount::new(server);
    let words = format!("cp -a {} copy", from.path().display());
    let mut copying = shell(mount.point(), &words).spawn().unwrap();
    until("a part has arrived", || mount.at("copy/dir4").exists());
    disturb(&mount);
    let status = wait(&mut copying, LONG, "cp -a");
    assert_eq!(status, Some(0), "cp -a; the mount said: {}", mount.said());
    same(from.path(), &mount);
    mount.end();
    let again = Mount::new(server);
    same(from.path(), &again);
    again.end();
}

fn same(from: &Path, mount: &Mount) {
    let script = |what: &str| format!("{what} | sort");
    let copy = mount.at("copy");
    sh(mount.point(), &format!("diff -r --no-dereference {} copy", from.display()));
    let attributes = script("find . -printf '%p %y %m %n %s %T@ %l\\n'");
    // The size of a directory is each filesystem's own.
    let plain = |text: String| {
        let lines = text.lines().map(|line| match line.split_once(" d ") {
            Some((name, rest)) => {
                let words: Vec<&str> = rest.split(' ').collect();
                format!("{name} d {} {} {}", words[0], words[1], words[3])
            }
            None => line.to_owned(),
        });
        lines.collect::<Vec<_>>()
    };
    let (want, got) = (plain(sh(from, &attributes)), plain(sh(&copy, &attributes)));
    for (want, got) in want.iter().zip(&got) {
        assert_eq!(want, got);
    }
    assert_eq!(want.len(), got.len());
}

/// Every chunk has a file, every file all of its chunks and no more, and no name is there twice.
fn nothing_twice(servers: &[Mongod]) {
    let at = primary_of(servers).expect("a primary");
    let mut connection = connect(&servers[at].tcp(), "mongodb://h/");
    let mut all = |collection: &str, fields: &[&str]| {
        let mut find = Command::on("find", "db", collection);
        find.body().begin("projection");
        for field in fields {
            find.body().i32(field, 1);
        }
        find.body().end().i32("batchSize", 100_000);
        let reply = connection.call(find, Some(soon())).unwrap();
        let batch = CursorBatch::from_reply(&reply).unwrap();
        assert_eq!(batch.id, 0, "all of it in one batch");
        batch.docs().collect::<Vec<_>>()
    };
    let number = |doc: &dbmount_transport_mongo::wire::doc::Doc, field: &str| {
        doc.get(field).and_then(|it| it.as_i64()).unwrap_or_default()
    };
    let mut files = std::collections::BTreeMap::new();
    let mut names = std::collections::BTreeSet::new();
    for doc in all("fs.files", &["length", "chunkSize", "metadata.dbmount.links"]) {
        let id = format!("{:?}", doc.get("_id").unwrap());
        let (length, size) = (number(&doc, "length"), number(&doc, "chunkSize"));
        let chunks = if size == 0 { 0 } else { (length + size - 1) / size };
        files.insert(id, (0..chunks).collect::<std::collections::BTreeSet<_>>());
        let metadata = doc.get("metadata").and_then(|it| it.as_doc().cloned());
        let ours = metadata.and_then(|it| it.get("dbmount")?.as_doc().cloned());
        let links = ours.and_then(|it| it.get("links")?.as_array().cloned());
        for link in links.iter().flat_map(|links| links.iter()) {
            let name = format!("{:?}", link.value);
            assert!(names.insert(name.clone()), "twice: {name}");
        }
    }
    for doc in all("fs.chunks", &["files_id", "n"]) {
        let id = format!("{:?}", doc.get("files_id").unwrap());
        let wanted = files.get_mut(&id).unwrap_or_else(|| panic!("no file {id}"));
        assert!(wanted.remove(&number(&doc, "n")), "a chunk twice or too many: {doc:?}");
    }
    let missing: Vec<_> = files.iter().filter(|(_, chunks)| !chunks.is_empty()).collect();
    assert!(missing.is_empty(), "chunks missing: {missing:?}");
}

#[test]
fn a_copy_outlives_the_death_of_the_primary() {
    let mut servers = replica_set(3);
    let server = Server(set_uri(&servers, "db.fs"));
    copy_while(&server, |_| {
        let at = primary_of(&servers).expect("a primary");
        servers[at].kill();
    });
    nothing_twice(&servers);
}

#[test]
fn a_copy_outlives_stepdowns() {
    let servers = replica_set(3);
    // One seed is enough: it tells of the others.
    let server = Server(format!("{}?replicaSet=rs", servers[2].uri("db.fs")));
    copy_while(&server, |_| {
        for _ in 0..2 {
            let mut at = None;
            until("there is a primary", || {
                at = primary_of(&servers);
                at.is_some()
            });
            let mut primary = connect(&servers[at.unwrap()].tcp(), "mongodb://h/");
            let mut down = Command::of("replSetStepDown", "admin", |body, field| {
                body.i32(field, 10);
            });
            down.body().i32("secondaryCatchUpPeriodSecs", 5);
            // Nobody may have caught up yet: then it stays.
            let _ = primary.call(down, Some(soon()));
        }
    });
    nothing_twice(&servers);
}

#[test]
fn a_copy_outlives_a_restart_of_a_standalone() {
    let mut servers = vec![Mongod::start(&[])];
    let server = Server(servers[0].uri("db.fs"));
    copy_while(&server, |_| {
        servers[0].kill();
        servers[0].start_again();
    });
    nothing_twice(&servers);
}
