//! Documents that no driver would write: each is left out or answers EIO, is named in the log, and
//! is left as it is; everything else works.

use std::fs;

use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::until;

on_both!(malformed_documents_are_left_alone);

/// Inserts them and prints the name under which each might show, its `_id` as the log would name
/// it (empty where nothing is wrong enough to say), and whether it can be read.
const INSERT: &str = r#"
import datetime
now = datetime.datetime(2024, 1, 1)
def insert(name, data=b"12345678", sizes=None, **changes):
    id = ("" if "good" in name else "bad ") + name
    doc = {"_id": id, "length": Int64(len(data)), "chunkSize": 4, "uploadDate": now, "filename": name}
    doc.update(changes)
    doc = {key: value for key, value in doc.items() if value is not None}
    files.insert_one(doc)
    for n in range(0, len(data), 4):
        chunks.insert_one({"files_id": id, "n": n // 4, "data": data[n:n + 4]})
    return id
def bad(name, said=True, **changes):
    id = insert(name, **changes)
    print(name, json.dumps(id) if said else "", sep="\t")
    return id
bad("length negative", length=Int64(-1))
bad("length text", length="8")
bad("length fraction", length=7.5)
bad("length nan", length=float("nan"))
bad("length huge", length=Int64(1 << 62))
bad("chunk size zero", chunkSize=0)
bad("chunk size negative", chunkSize=-4)
bad("chunk size huge", chunkSize=Int64(1 << 40))
bad("chunk size text", chunkSize="4")
id = bad("first missing"); chunks.delete_one({"files_id": id, "n": 0})
id = bad("last missing"); chunks.delete_one({"files_id": id, "n": 1})
id = bad("chunk short"); chunks.update_one({"files_id": id, "n": 0}, {"$set": {"data": b"123"}})
id = bad("last short"); chunks.update_one({"files_id": id, "n": 1}, {"$set": {"data": b"567"}})
id = bad("chunk long"); chunks.update_one({"files_id": id, "n": 0}, {"$set": {"data": b"12345"}})
id = bad("last long", data=b"123456"); chunks.update_one({"files_id": id, "n": 1}, {"$set": {"data": b"5678"}})
id = bad("data text"); chunks.update_one({"files_id": id, "n": 0}, {"$set": {"data": "1234"}})
id = bad("data missing"); chunks.update_one({"files_id": id, "n": 0}, {"$unset": {"data": 1}})
id = bad("number text"); chunks.update_one({"files_id": id, "n": 0}, {"$set": {"n": "0"}})
bad("ours text", metadata={"dbmount": "x"})
def ours(name, **changes):
    doc = {"v": 1, "ino": Int64(int.from_bytes(hashlib.md5(name.encode()).digest()[:7], "big")), "kind": "file", "mode": 420, "uid": 0, "gid": 0,
        "atime": Int64(0), "mtime": Int64(0), "ctime": Int64(0), "btime": Int64(0), "links": [{"p": Int64(1), "n": name}]}
    doc.update(changes)
    return {"dbmount": doc}
bad("version", metadata=ours("version", v=99))
bad("inode negative", metadata=ours("inode negative", ino=Int64(-5)))
bad("inode text", metadata=ours("inode text", ino="x"))
bad("kind", metadata=ours("kind", kind="door"))
bad("mode text", metadata=ours("mode text", mode="rwx"))
bad("time text", metadata=ours("time text", mtime="now"))
bad("slash", metadata=ours("slash", links=[{"p": Int64(1), "n": "a/b"}]))
bad("dots", metadata=ours("dots", links=[{"p": Int64(1), "n": ".."}]))
bad("nul", metadata=ours("nul", links=[{"p": Int64(1), "n": "a\0b"}]))
# These are nowhere, and nobody looks there.
for name, more in {
    "links text": {"links": "x"},
    "parent text": {"links": [{"p": "x", "n": "parent text"}]},
    "parent gone": {"links": [{"p": Int64(123456), "n": "x"}]},
    "cycle a": {"ino": Int64(5001), "kind": "dir", "links": [{"p": Int64(5002), "n": "a"}]},
    "cycle b": {"ino": Int64(5002), "kind": "dir", "links": [{"p": Int64(5001), "n": "b"}]},
    "own parent": {"ino": Int64(5003), "kind": "dir", "links": [{"p": Int64(5003), "n": "me"}]},
}.items():
    bad(name, said=False, data=b"", metadata=ours(name, **more))
files.insert_one({"_id": "bad number name", "length": 0, "chunkSize": 4, "uploadDate": now, "filename": 7})
files.insert_one({"_id": "bad no name", "length": 0, "chunkSize": 4, "uploadDate": now})
files.insert_one({"_id": "bad nothing"})
# A name in a cycle that can be reached: in the root, and below itself.
files.insert_one({"_id": "bad loop", "length": Int64(0), "chunkSize": 4, "uploadDate": now, "metadata":
    ours("loop", ino=Int64(5004), kind="dir", links=[{"p": Int64(1), "n": "loop"}, {"p": Int64(5004), "n": "inner"}])})
for name in ["good", "below/good"]:
    insert(name)
insert("good of any number", length=8.0, chunkSize=Int64(4), uploadDate="yesterday", metadata="text")
insert("good decimal", length=bson.Decimal128("8"), chunkSize=bson.Decimal128("4"))
"#;

/// Every document that was inserted, to the byte.
const SNAPSHOT: &str = r#"
for all in (files, chunks):
    for doc in all.find({"$or": [{"_id": {"$regex": "^bad"}}, {"files_id": {"$regex": "^bad"}}]}).sort("_id"):
        print(bson.encode(doc).hex())
"#;

fn malformed_documents_are_left_alone(server: &Server) {
    // The indexes are made before.
    Mount::new(server).end();
    let inserted = server.python(INSERT, &[]);
    let before = server.python(SNAPSHOT, &[]);
    let mount = Mount::new(server);
    for name in ["good", "below/good", "good of any number", "good decimal"] {
        until("good files are there", || mount.at(name).exists());
        assert_eq!(fs::read(mount.at(name)).unwrap(), b"12345678", "{name}");
    }
    // Listing everything comes to an end, a loop that is on the server or not.
    let listed = mount.sh("ls -lR . 2>/dev/null | wc -l || true; timeout 20 find . -maxdepth 6 >/dev/null 2>&1 || true");
    assert!(listed.trim().parse::<usize>().unwrap() > 5);
    for line in inserted.lines() {
        let (name, id) = line.split_once('\t').unwrap();
        match fs::read(mount.at(name)) {
            Ok(bytes) => panic!("{name} reads as {bytes:?}"),
            Err(error) => {
                let errno = error.raw_os_error().unwrap();
                assert!([2, 5].contains(&errno), "{name}: EIO or ENOENT: {error}");
            }
        }
        let id = id.trim_matches('"');
        if !id.is_empty() {
            until(&format!("the log names {id}"), || mount.said().contains(id));
        }
    }
    // Everything else works.
    mount.sh("echo more >> good; mkdir new; cp good new/; mv below elsewhere; rm elsewhere/good; rm -r new");
    mount.end();
    let after = server.python(SNAPSHOT, &[]);
    let changed: Vec<_> = before.lines().zip(after.lines()).filter(|(b, a)| b != a).collect();
    assert!(before == after, "they are left as they are: {changed:#?}");
}
