//! PyMongo: the driver that stands for all other programs that use a bucket.

use std::process::Command;

use crate::everywhere::python;
use crate::server::{BUCKET, DB};
use crate::shell;

/// What every script can use.
const PRELUDE: &str = r#"
import hashlib, json, os, sys, time
import bson, gridfs, pymongo
from bson import Int64, ObjectId
from bson import json_util
host, DB, BUCKET, args = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
client = pymongo.MongoClient(host, directConnection=True, tz_aware=False)
db = client[DB]
files, chunks = db[BUCKET + ".files"], db[BUCKET + ".chunks"]
bucket = gridfs.GridFSBucket(db, BUCKET)

def read(name):
    return bucket.open_download_stream_by_name(name).read()

def until(done, limit=60):
    start = time.time()
    while not done():
        assert time.time() - start < limit, "not within %s s" % limit
        time.sleep(0.002)
    return time.time() - start

def within(path):
    """What a path of the mount has, or nothing."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
"#;

/// See `Server::checks_clean`.
pub(crate) const CHECK: &str = r#"
def key(id):
    return bson.encode({"": id})
docs = {key(doc["_id"]): doc for doc in files.find()}
held = {}
for chunk in chunks.find({}, {"files_id": 1, "n": 1, "size": {"$binarySize": "$data"}}):
    held.setdefault(key(chunk["files_id"]), {})[chunk["n"]] = chunk["size"]
for id in held.keys() - docs.keys():
    print("chunks without a file:", id, len(held[id]))
inos = {}
for id, doc in docs.items():
    length, size = doc["length"], doc["chunkSize"]
    if type(length) is not Int64 or type(size) is not int:
        print("length is int64 and chunkSize int32:", doc)
    full, rest = divmod(length, size)
    want = dict.fromkeys(range(full), size)
    if rest:
        want[full] = rest
    if held.get(id, {}) != want:
        print("chunks of", id, doc.get("filename"), "are", held.get(id, {}), "not", want)
    ours = doc.get("metadata", {}).get("dbmount")
    if ours is None:
        continue
    if "ino" not in ours or "gone" in ours or "moved" in ours:
        print("still on its way:", doc)
        continue
    if ours["ino"] in inos:
        print("two of one number:", ours["ino"])
    inos[ours["ino"]] = doc
for ino, doc in inos.items():
    ours = doc["metadata"]["dbmount"]
    if ino != 1 and not ours["links"]:
        print("without a name:", doc)
    for link in ours["links"]:
        at, steps = link["p"], 0
        # Foreign directories are implied by the names below them.
        while at != 1 and at < 1 << 61 and steps < 1000:
            parent = inos.get(at)
            if parent is None or parent["metadata"]["dbmount"]["kind"] != "dir":
                print("in no directory:", doc)
                break
            at, steps = parent["metadata"]["dbmount"]["links"][0]["p"], steps + 1
        if steps == 1000:
            print("in a cycle:", doc)
    if ours["kind"] == "file" and all(link["p"] < 1 << 61 for link in ours["links"]):
        names, link = [], ours["links"][0]
        while True:
            names.append(link["n"] if isinstance(link["n"], bytes) else link["n"].encode())
            if link["p"] == 1:
                break
            link = inos[link["p"]]["metadata"]["dbmount"]["links"][0]
        path = b"/".join(reversed(names))
        have = doc.get("filename")
        if (have if isinstance(have, bytes) else str(have).encode()) != path:
            print("its filename is", have, "and its path", path)
    if ours["kind"] != "file" and ("filename" in doc or doc["length"]):
        print("only files have a filename and contents:", doc)
"#;

/// A script, not started yet.
#[track_caller]
pub(crate) fn command(address: &str, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(python());
    command.args(["-c", &format!("{PRELUDE}{script}"), address, DB, BUCKET]);
    command.args(arguments);
    command
}

/// Runs a script to its end; what it printed.
#[track_caller]
pub(crate) fn run(address: &str, script: &str, arguments: &[&str]) -> String {
    shell::run(&mut command(address, script, arguments)).ok()
}
