//! Drivers and the mount on the same files: what one writes the other reads, bit for bit.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::driver;
use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::{run, until, wait};

on_both!(
    drivers_read_what_is_written,
    uploads_are_files_like_others,
    an_edit_keeps_what_is_the_users,
    a_reader_of_the_bucket_never_meets_a_mixture,
    a_reader_of_the_mount_never_meets_a_mixture,
    another_mount_never_meets_a_mixture,
);

/// Everything of the GridFS specification that a files document and its chunks must be.
const EXACT: &str = r#"
for name in sys.stdin.read().split("\n") if not args else args:
    doc = files.find_one({"filename": name})
    assert type(doc["length"]) is Int64 and type(doc["chunkSize"]) is int, doc
    assert type(doc["uploadDate"]).__name__ == "datetime" and "md5" not in doc, doc
    want = [min(doc["chunkSize"], doc["length"] - at) for at in range(0, doc["length"], doc["chunkSize"])]
    have = list(chunks.find({"files_id": doc["_id"]}).sort("n"))
    assert [len(it["data"]) for it in have] == want, (name, doc)
    assert all(type(it["n"]) is int and set(it) == {"_id", "files_id", "n", "data"} for it in have)
    data = read(name)
    assert len(data) == doc["length"]
    print(name, doc["chunkSize"], hashlib.md5(data).hexdigest())
"#;

fn drivers_read_what_is_written(server: &Server) {
    let mount = Mount::new(server);
    mount.sh("mkdir -p d/e; for size in 0 1 262143 262144 262145 1048576 3000001; do
           head -c $size /dev/urandom > d/e/$size; done");
    // Written in the middle, cut, made longer, appended to, and with holes.
    mount.sh("cd d/e; for size in 1 262144 1048576 3000001; do
           for how in mid cut longer more hole; do cp $size $how.$size; done
           printf 0123456789 | dd of=mid.$size bs=1 seek=262140 conv=notrunc status=none
           truncate -s 262143 cut.$size; truncate -s +1000000 longer.$size
           head -c 700000 /dev/urandom >> more.$size
           printf x | dd of=hole.$size bs=1 seek=4000000 conv=notrunc status=none; done
         sync -f .");
    let names = mount.sh("find d -type f -printf '%p\n'");
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names.len(), 27);
    let mut told: Vec<String> = server.python(EXACT, &names).lines().map(str::to_owned).collect();
    let mut want: Vec<String> = names
        .iter()
        .map(|name| {
            let sum = mount.sh(&format!("md5sum < {name}"));
            format!("{name} 262144 {}", sum.split(' ').next().unwrap())
        })
        .collect();
    told.sort();
    want.sort();
    assert_eq!(told, want);
    // The indexes that the specification wants are there.
    let indexes = "print([sorted(list(it['key'].items()) for it in all.list_indexes())[-1] for all in (chunks,)],
                         [('filename', 1), ('uploadDate', 1)] in [list(it['key'].items()) for it in files.list_indexes()])";
    assert_eq!(server.python(indexes, &[]), "[[('files_id', 1), ('n', 1)]] True\n");
    mount.end();
    server.checks_clean();
}

/// Uploads of every sort; prints name and checksum.
const UPLOAD: &str = r#"
def upload(name, data, **more):
    with bucket.open_upload_stream(name, **more) as stream:
        stream.write(data)
    print(name, hashlib.md5(data).hexdigest())
    return stream._id
upload("plain.txt", b"plain\n")
upload("a/b/c.txt", b"below\n" * 100000)
upload("both", b"a file"); upload("both/below", b"and a prefix")
upload("empty", b"")
upload("small chunks", os.urandom(5001), chunk_size_bytes=1000)
upload("\u00fcml\u00e4ut/\u4e2d", b"unicode")
upload("a blank/and 100%", b"odd")
for n in range(3):
    upload("revised", b"revision %d" % n)
    time.sleep(0.005)
for n, id in enumerate(["a string", 7, Int64(1 << 40), 2.5, {"a": 1, "b": [1]}, bson.Binary(b"xyz"), True]):
    with bucket.open_upload_stream_with_id(id, "ids/%d" % n, metadata={"owner": "ada", "n": n}) as stream:
        stream.write(b"with an id")
    print("ids/%d" % n, hashlib.md5(b"with an id").hexdigest())
"#;

fn uploads_are_files_like_others(server: &Server) {
    let before = server.python(UPLOAD, &[]);
    let mount = Mount::new(server);
    let check = |uploaded: &str| {
        for line in uploaded.lines() {
            let (name, sum) = line.rsplit_once(' ').unwrap();
            if line.starts_with("revised") && !line.contains(NEWEST) {
                continue;
            }
            let shown = if name == "both" { "both/%self" } else { name };
            until("it is there", || mount.at(shown).is_file());
            let out = run(std::process::Command::new("md5sum").arg(mount.at(shown))).ok();
            assert_eq!(out.split(' ').next().unwrap(), sum, "{name}");
        }
    };
    check(&before);
    assert_eq!(
        mount.sh("find . -type f | LC_ALL=C sort"),
        "./a blank/and 100%\n./a/b/c.txt\n./both/%self\n./both/below\n./empty\n./ids/0\n./ids/1\n\
         ./ids/2\n./ids/3\n./ids/4\n./ids/5\n./ids/6\n./plain.txt\n./revised\n./small chunks\n\
         ./\u{fc}ml\u{e4}ut/\u{4e2d}\n"
    );
    assert_eq!(fs::read(mount.at("revised")).unwrap(), b"revision 2");
    // Looking changes nothing.
    mount.end();
    assert_eq!(
        server.python("print(files.count_documents({'metadata.dbmount': {'$exists': True}}))", &[]),
        "1\n",
        "only the root is ours"
    );
}

/// The checksum of `revision 2`.
const NEWEST: &str = "5ddfc96dbe7a1a52192e4907f0351890";

fn an_edit_keeps_what_is_the_users(server: &Server) {
    server.python(
        r#"
for n, id in enumerate(["a string", {"a": 1}, ObjectId()]):
    for how in ["append", "middle", "rewrite", "replace", "chmod", "rename"]:
        key = id if how == "append" else {"of": id, "how": how}
        with bucket.open_upload_stream_with_id(key, "in/%s%d" % (how, n), chunk_size_bytes=1000,
                metadata={"owner": "ada", "tags": ["x", {"y": 1.5}], "n": n}) as stream:
            stream.write(b"0123456789" * 250)
"#,
        &[],
    );
    let mount = Mount::new(server);
    for n in 0..3 {
        let at = |how: &str| mount.at(format!("in/{how}{n}"));
        File::options().append(true).open(at("append")).unwrap().write_all(b"more").unwrap();
        let file = File::options().write(true).open(at("middle")).unwrap();
        file.write_all_at(b"MIDDLE", 998).unwrap();
        drop(file);
        fs::write(at("rewrite"), "new").unwrap();
        // As editors save.
        fs::write(mount.at("in/.tmp"), "replaced").unwrap();
        fs::rename(mount.at("in/.tmp"), at("replace")).unwrap();
        mount.sh(&format!("chmod 600 in/chmod{n}; mv in/rename{n} moved{n}"));
    }
    mount.end();
    let checked = server.python(
        r#"
old = b"0123456789" * 250
for n, id in enumerate(["a string", {"a": 1}, None]):
    want = {"in/append": old + b"more", "in/middle": old[:998] + b"MIDDLE" + old[1004:],
            "in/rewrite": b"new", "in/replace": b"replaced", "in/chmod": old, "moved": old}
    for name, data in want.items():
        name += str(n)
        assert read(name) == data, (name, read(name))
        found = list(files.find({"filename": name}))
        assert len(found) == 1, found
        doc = found[0]
        if not name.startswith("in/replace"):
            metadata = dict(doc["metadata"])
            del metadata["dbmount"]
            assert metadata == {"owner": "ada", "tags": ["x", {"y": 1.5}], "n": n}, doc
            # A rewrite is a new revision, and may have a new id.
            if id is not None and "rewrite" not in name:
                key = id if "append" in name else id
                have = doc["_id"] if "append" in name else doc["_id"]["of"]
                assert have == key, doc
        if "append" in name or "middle" in name:
            assert doc["chunkSize"] == 1000, doc
assert files.count_documents({"filename": {"$exists": True}}) == 18
print("kept")
"#,
        &[],
    );
    assert_eq!(checked, "kept\n");
    server.checks_clean();
    let mount = Mount::new(server);
    assert_eq!(mount.sh("stat -c %a in/chmod0; ls in | wc -l; cat in/rewrite1"), "600\n15\nnew");
}

/// For how long one side rewrites.
const REWRITING: Duration = Duration::from_secs(3);
/// Some chunks and a part of one.
const MUCH: usize = 700_000;

fn a_reader_of_the_bucket_never_meets_a_mixture(server: &Server) {
    let mount = Mount::new(server);
    fs::write(mount.at("f"), vec![b'a'; MUCH]).unwrap();
    let script = r#"
reads, seen = 0, set()
while not os.path.exists(args[0]):
    data = read("f")
    assert len(data) in (700000, 300000), len(data)
    assert len(set(data)) == 1, "a mixture"
    reads += 1
    seen.add(data[:1])
print(reads, len(seen))
"#;
    let stop = mount.point().parent().unwrap().join("stop");
    let arguments = [stop.to_str().unwrap()];
    let reader = driver::command(&server.address(), script, &arguments)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut reader = reader.unwrap();
    let start = Instant::now();
    let mut rewrites = 0;
    // Some ways to rewrite: truncated, and replaced by rename; of two lengths.
    while start.elapsed() < REWRITING && reader.try_wait().unwrap().is_none() {
        let byte = b'a' + (rewrites % 26) as u8;
        let data = vec![byte; if rewrites % 3 == 0 { 300_000 } else { MUCH }];
        if rewrites % 2 == 0 {
            fs::write(mount.at("f"), data).unwrap();
        } else {
            fs::write(mount.at("g"), data).unwrap();
            fs::rename(mount.at("g"), mount.at("f")).unwrap();
        }
        rewrites += 1;
    }
    fs::write(&stop, "").unwrap();
    assert_eq!(wait(&mut reader, Duration::from_secs(60), "the reader"), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader.stdout.take().unwrap(), &mut said).unwrap();
    println!("{rewrites} rewrites; reads, different contents: {said}");
    mount.end();
    server.checks_clean();
}

fn another_mount_never_meets_a_mixture(server: &Server) {
    let (writer, reader) = (Mount::new(server), Mount::new(server));
    fs::write(writer.at("f"), vec![b'a'; MUCH]).unwrap();
    until("the other has it", || reader.at("f").exists());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut seen = std::collections::BTreeSet::new();
    let (rewrites, reads) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut rewrites = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let data = vec![
                    b'a' + (rewrites % 26) as u8;
                    if rewrites % 3 == 0 { 300_000 } else { MUCH }
                ];
                if rewrites % 4 != 0 {
                    fs::write(writer.at("f"), data).unwrap();
                } else {
                    fs::write(writer.at("g"), data).unwrap();
                    fs::rename(writer.at("g"), writer.at("f")).unwrap();
                }
                rewrites += 1;
            }
            rewrites
        });
        let start = Instant::now();
        let (mut reads, mut wrong) = (0, None);
        while start.elapsed() < REWRITING && wrong.is_none() && !writing.is_finished() {
            // Piece by piece, so that a rewrite comes in between.
            let mut data = Vec::new();
            let mut file = File::open(reader.at("f")).unwrap();
            let mut piece = vec![0; 50_000];
            loop {
                match std::io::Read::read(&mut file, &mut piece).unwrap() {
                    0 => break,
                    n => data.extend_from_slice(&piece[..n]),
                }
            }
            let whole = [300_000, MUCH].contains(&data.len());
            if !whole || data.iter().any(|byte| *byte != data[0]) {
                wrong =
                    Some(format!("{} bytes, {:?} to {:?}", data.len(), data.first(), data.last()));
            }
            seen.extend(data.first().copied());
            reads += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let rewrites = writing.join().unwrap();
        assert_eq!(wrong, None, "a mixture");
        (rewrites, reads)
    });
    println!("{rewrites} rewrites; {reads} reads of {} contents", seen.len());
    let newest = fs::read(writer.at("f")).unwrap();
    until("the newest shows", || fs::read(reader.at("f")).unwrap() == newest);
    writer.end();
    reader.end();
    server.checks_clean();
}

fn a_reader_of_the_mount_never_meets_a_mixture(server: &Server) {
    let script = r#"
n = 0
while not os.path.exists(args[0]):
    bucket.upload_from_stream("f", bytes([97 + n % 26]) * (300000 if n % 3 else 700000))
    n += 1
    # The newest revision is told by milliseconds.
    time.sleep(0.005)
print(n)
"#;
    let dir = tempfile::tempdir().unwrap();
    let stop = dir.path().join("stop");
    server.python("bucket.upload_from_stream('f', b'a' * 700000)", &[]);
    let mount = Mount::new(server);
    let arguments = [stop.to_str().unwrap()];
    let writer = driver::command(&server.address(), script, &arguments)
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut writer = writer.unwrap();
    let start = Instant::now();
    let (mut reads, mut seen) = (0, std::collections::BTreeSet::new());
    while start.elapsed() < REWRITING && writer.try_wait().unwrap().is_none() {
        let data = fs::read(mount.at("f")).unwrap();
        assert!([300_000, MUCH].contains(&data.len()), "{} bytes", data.len());
        assert!(data.iter().all(|byte| *byte == data[0]), "a mixture");
        seen.insert(data[0]);
        reads += 1;
    }
    fs::write(&stop, "").unwrap();
    assert_eq!(wait(&mut writer, Duration::from_secs(60), "the writer"), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut writer.stdout.take().unwrap(), &mut said).unwrap();
    println!("{} uploads; {reads} reads of {} contents", said.trim(), seen.len());
    let newest = server.python("print(hashlib.md5(read('f')).hexdigest())", &[]);
    until("the newest shows", || {
        let sum = mount.sh("md5sum < f");
        sum.split(' ').next() == Some(newest.trim())
    });
    mount.end();
}
