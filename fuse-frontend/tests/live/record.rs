//! Sessions recorded on real mounts of real servers play again without them.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dbmount_engine::backend::mongo::Mongo;
use dbmount_engine::backend::redis::Redis;
use dbmount_engine::replay::{Decoder, Entry};
use dbmount_engine::{Input, Request};

use crate::mongod::Mongod;
use crate::mount::{Mount, dbmount};
use crate::server::Server;
use crate::shell::until;

/// Nobody may find this in a log without contents.
const SECRET: &str = "attack at dawn, and bring the marmalade";

/// What every recorded session does: a little of everything.
fn work(mount: &Mount) {
    let sh = |script: &str| mount.sh(script);
    sh("mkdir -p docs/deep && echo hello > docs/greeting.txt && cat docs/greeting.txt");
    sh(&format!("echo '{SECRET}' > secret && cat secret && echo '{SECRET}' >> secret"));
    sh("mv docs/greeting.txt docs/deep/moved.txt && ln -s deep/moved.txt docs/link");
    sh("chmod 600 docs/deep/moved.txt && touch -d 2001-02-03 docs && ls -lR . >/dev/null");
    sh("head -c 300000 /dev/zero > large && truncate -s 100000 large && wc -c large");
    let file = fs::File::options().read(true).write(true).open(mount.at("large")).unwrap();
    file.write_all_at(SECRET.as_bytes(), 50_000).unwrap();
    file.sync_all().unwrap();
    drop(file);
    sh("cp large copy && cmp large copy && rm large && ! ls missing 2>/dev/null");
    sh("rm -r docs");
}

/// The arguments for a record, and where it goes. A folder that is named in the environment
/// keeps the logs, to become test data.
fn record(dir: &Path, name: &str) -> (PathBuf, Vec<String>) {
    let keep = std::env::var_os("DBMOUNT_KEEP_LOGS").map(PathBuf::from);
    let file = keep.as_deref().unwrap_or(dir).join(name);
    let words = vec!["--record".to_owned(), file.display().to_string()];
    (file, words)
}

fn session(source: &str, name: &str, sizes_only: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (file, mut words) = record(dir.path(), name);
    words.extend(sizes_only.then(|| "--record-sizes-only".to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mount = Mount::of(source, &words, &[]);
    work(&mount);
    mount.end();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds what the mount holds");
    let played = dbmount(&["replay", "--trace", file.to_str().unwrap()]);
    assert_eq!(played.status, Some(0), "{}\n{}", played.out, played.err);
    assert!(played.out.contains("everything came out as recorded"), "{}", played.out);
    assert!(played.out.contains("moved.txt"), "names are in it: {}", played.out);
    assert_eq!(holds_secret(&fs::read(&file).unwrap()), !sizes_only);
}

/// Whether a log holds the contents anywhere. It is compressed, so it is taken apart.
fn holds_secret(log: &[u8]) -> bool {
    let mut decoder = Decoder::new();
    decoder.feed(log);
    decoder.end();
    let head = decoder.head().unwrap().unwrap();
    let found = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes());
    let mut holds = false;
    loop {
        let (request, outputs) = match head.layout.as_str() {
            "keys" => match decoder.next::<Redis>().unwrap() {
                Entry::Input(_, Input::Request(_, request)) => (Some(request), Bytes::new()),
                Entry::Input(_, other) => (None, Bytes::from(format!("{other:?}"))),
                Entry::Outputs(outputs) => (None, outputs),
                Entry::More | Entry::End { .. } => return holds,
            },
            _ => match decoder.next::<Mongo>().unwrap() {
                Entry::Input(_, Input::Request(_, request)) => (Some(request), Bytes::new()),
                Entry::Input(_, Input::Replies(_, Ok(replies))) => {
                    let docs: Vec<_> =
                        replies.iter().map(|it| it.doc().as_bytes().clone()).collect();
                    (None, Bytes::from(docs.concat()))
                }
                Entry::Input(..) => (None, Bytes::new()),
                Entry::Outputs(outputs) => (None, outputs),
                Entry::More | Entry::End { .. } => return holds,
            },
        };
        holds |= found(&outputs);
        if let Some(Request::Write { data, .. }) = request {
            holds |= found(&data);
        }
    }
}

#[test]
fn a_session_on_redis_plays_again() {
    session(&Server::new().url(), "keys.log", false);
}

#[test]
fn a_session_on_redis_without_contents_plays_again() {
    session(&Server::new().url(), "keys-sizes.log", true);
}

#[test]
fn a_session_on_mongodb_plays_again() {
    session(&Mongod::start(&[]).uri("db.fs"), "gridfs.log", false);
}

#[test]
fn a_session_on_mongodb_without_contents_plays_again() {
    session(&Mongod::start(&[]).uri("db.fs"), "gridfs-sizes.log", true);
}

#[test]
fn a_log_is_never_written_over_and_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (file, point) = (dir.path().join("log"), dir.path().join("mnt"));
    fs::write(&file, "something dear").unwrap();
    fs::create_dir(&point).unwrap();
    let (file, point) = (file.to_str().unwrap(), point.to_str().unwrap());
    let ended = dbmount(&["mount", "-f", "--record", file, "mem:keys", point]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.err.contains("exists already"), "{}", ended.err);
    let ended = dbmount(&["replay", file]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.err.contains("not a replay log"), "{}", ended.err);
    assert_eq!(fs::read_to_string(file).unwrap(), "something dear");
}

/// A mount that is killed leaves a log that plays up to its last moment.
#[test]
fn a_killed_mount_leaves_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let file = file.to_str().unwrap();
    let mount = Mount::of("mem:keys", &["--record", file], &[]);
    mount.sh("for n in $(seq 50); do echo $n > f$n; done");
    let played = || dbmount(&["replay", file]);
    let count = |out: &str| out.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or(0);
    until("what was done is in the log", || count(&played().out) > 100);
    let pid = rustix::process::Pid::from_raw(mount.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    drop(mount);
    let played = played();
    assert_eq!(played.status, Some(0), "{}", played.err);
    assert!(count(&played.out) > 100, "{}", played.out);
    let some = dbmount(&["replay", "--until", "7", file]);
    assert!(some.out.contains(" 7 inputs"), "{}", some.out);
}
