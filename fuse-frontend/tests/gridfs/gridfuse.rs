//! A bucket that the old GridFUSE program filled, mounted by its command line: read as it was
//! meant, changed in place, and left alone where nothing was changed.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::mount::Mount;
use crate::server::{BUCKET, DB, Server, on_both};

on_both!(its_buckets_are_read_and_written);

/// What GridFUSE stores, field by field: `stat`, `dirname` and `visible` beside GridFS's own, with
/// the checksum that drivers of its time wrote. Directories are documents, the root among them, the
/// target of a symlink is its contents, and what is deleted is only made invisible: a rewrite hides
/// all that has the name and leaves an empty revision and a full one.
const MAKE: &str = r#"
import datetime, stat
def ent(path, mode, data=b"", visible=True, at=1400000000):
    dirname = os.path.split(path)[0] if path else None
    id = ObjectId()
    size = 262144
    for n in range(0, len(data), size):
        chunks.insert_one({"files_id": id, "n": n // size, "data": data[n:n + size]})
    files.insert_one({"_id": id, "filename": path, "dirname": dirname, "visible": visible,
        "stat": {"st_mode": mode, "st_ino": 0, "st_dev": 0, "st_nlink": 1, "st_uid": 1234,
                 "st_gid": 4321, "st_size": 0, "st_atime": at + 0.0, "st_mtime": at + 0.5,
                 "st_ctime": at + 0.25},
        "chunkSize": size, "length": len(data), "md5": hashlib.md5(data).hexdigest(),
        "uploadDate": datetime.datetime.fromtimestamp(at, datetime.timezone.utc)})
ent("", stat.S_IFDIR | 0o355)
ent("path", stat.S_IFDIR | 0o750)
ent("path/to", stat.S_IFDIR | 0o755)
ent("path/to/nowhere", stat.S_IFDIR | 0o755)
ent("empty", stat.S_IFDIR | 0o700)
ent("guy", stat.S_IFREG | 0o640, b"hithere\n")
ent("path/to/nowhere/guy", stat.S_IFREG | 0o644, b"x" * 300000)
ent("path/quiet", stat.S_IFREG | 0o444, b"not touched")
ent("gal", stat.S_IFLNK | 0o777, b"path/to/nowhere/guy")
ent("dangling", stat.S_IFLNK | 0o777, b"no/such")
ent("deleted", stat.S_IFREG | 0o644, b"gone", visible=False)
ent("rewritten", stat.S_IFREG | 0o644, b"old", visible=False)
ent("rewritten", stat.S_IFREG | 0o644, b"", at=1410000000)
ent("rewritten", stat.S_IFREG | 0o644, b"the new", at=1420000000)
ent("nothing", stat.S_IFREG | 0o600)
"#;

/// What nobody changes, to the byte.
const UNTOUCHED: &str = r#"
for doc in files.find({"$or": [{"filename": {"$in": ["", "path/quiet", "dangling", "deleted", "empty"]}},
                               {"filename": "rewritten", "length": {"$in": [0, 3]}}]}).sort("_id"):
    print(bson.encode(doc).hex())
"#;

fn its_buckets_are_read_and_written(server: &Server) {
    server.python(MAKE, &[]);
    let before = server.python(UNTOUCHED, &[]);
    assert_eq!(before.lines().count(), 7);
    let node = server.address();
    let mount = || Mount::named(&["--node", &node, "--db", DB, "--coll", BUCKET], &[], &[]);
    let mounted = mount();
    assert_eq!(
        mounted.sh("find . | LC_ALL=C sort"),
        ".\n./dangling\n./empty\n./gal\n./guy\n./nothing\n./path\n./path/quiet\n./path/to\n\
         ./path/to/nowhere\n./path/to/nowhere/guy\n./rewritten\n"
    );
    assert_eq!(
        mounted.sh("stat -c '%n %F %a %u %g %s %Y' guy path gal nothing path/quiet"),
        "guy regular file 640 1234 4321 8 1400000000\n\
         path directory 750 1234 4321 0 1400000000\n\
         gal symbolic link 777 1234 4321 19 1400000000\n\
         nothing regular empty file 600 1234 4321 0 1400000000\n\
         path/quiet regular file 444 1234 4321 11 1400000000\n"
    );
    assert_eq!(fs::metadata(mounted.at("guy")).unwrap().mtime_nsec(), 500_000_000);
    assert_eq!(mounted.sh("readlink gal dangling"), "path/to/nowhere/guy\nno/such\n");
    assert_eq!(fs::read(mounted.at("gal")).unwrap(), vec![b'x'; 300_000], "through the link");
    assert_eq!(mounted.sh("cat guy rewritten nothing"), "hithere\nthe new");
    // Every way to change one.
    mounted.sh(
        "echo more >> guy; echo again > rewritten; mv gal path/gal2; ln path/to/nowhere/guy hard
         chmod 600 path/to/nowhere/guy; rm nothing; mkdir path/new; echo in > path/new/file
         mv path/to way",
    );
    let follows = "until(lambda: files.count_documents({'filename': 'way/nowhere/guy'}) == 1)";
    server.python(follows, &[]);
    mounted.end();
    assert_eq!(server.python(UNTOUCHED, &[]), before, "what was not changed is as it was");
    let checked = server.python(
        r#"
assert read("guy") == b"hithere\nmore\n", read("guy")
assert read("rewritten") == b"again\n"
assert read("path/new/file") == b"in\n"
assert read("way/nowhere/guy") == b"x" * 300000
assert read("path/quiet") == b"not touched"
for name in ["nothing", "gal", "path/gal2", "path", "path/to", "way", "path/to/nowhere/guy"]:
    assert not list(bucket.find({"filename": name})), name
for doc in files.find({"metadata.dbmount.kind": "file"}):
    data = bucket.open_download_stream(doc["_id"]).read()
    assert doc.get("md5") in (None, hashlib.md5(data).hexdigest()), doc
guy = files.find_one({"filename": "guy"})
assert guy["stat"]["st_uid"] == 1234 and guy["metadata"]["dbmount"]["uid"] == 1234, guy
print("as it should be")
"#,
        &[],
    );
    assert_eq!(checked, "as it should be\n");
    let mounted = mount();
    assert_eq!(
        mounted.sh("cat guy rewritten path/new/file; readlink path/gal2 dangling; ls -A empty"),
        "hithere\nmore\nagain\nin\npath/to/nowhere/guy\nno/such\n"
    );
    assert_eq!(mounted.sh("stat -c '%a %u %h %s' hard"), "600 1234 2 300000\n");
    mounted.end();
}
