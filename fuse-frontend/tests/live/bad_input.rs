//! What cannot work: one line on standard error that says what is wrong and what to do, the right
//! exit status, and nothing changed on the server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::mount::{Mount, dbmount, is_mounted, program, take_away};
use crate::server::Server;
use crate::shell::{run, until, within};

/// Where nothing will be mounted, we hope; taken off if it was.
struct Point {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Point {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("mnt");
        fs::create_dir(&path).unwrap();
        Point { dir, path }
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        take_away(&self.path);
    }
}

/// Tries to mount, both ways, and expects one line with all of these words. The line.
#[track_caller]
fn refused(source: &str, more: &[&str], status: i32, words: &[&str]) -> String {
    let point = Point::new();
    let shown = point.path.to_str().unwrap();
    refused_on(&point, shown, source, more, status, words)
}

#[track_caller]
fn refused_on(
    point: &Point,
    shown: &str,
    source: &str,
    more: &[&str],
    status: i32,
    words: &[&str],
) -> String {
    let log = point.dir.path().join("log");
    let mut said = String::new();
    for way in [&["--log", log.to_str().unwrap()][..], &["--foreground"]] {
        let arguments = [&["mount", source, shown, "--timeout", "3"], way, more].concat();
        let start = Instant::now();
        let ended = dbmount(&arguments);
        assert!(start.elapsed() < Duration::from_secs(20), "it does not take forever to say so");
        said = ended.err.trim_end().to_owned();
        assert_eq!(ended.status, Some(status), "{arguments:?}: {said}");
        assert_eq!(ended.out, "", "errors go to standard error");
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        assert!(said.starts_with("dbmount: "), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} in: {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
        assert!(!is_mounted(&point.path), "{arguments:?}");
    }
    let log = fs::read_to_string(&log).unwrap_or_default();
    assert!(!log.contains("s3cret"), "{log}");
    println!("{said}");
    said
}

/// A server with a few keys, which must be all there is in the end.
struct Untouched(Server);

impl Untouched {
    fn new(options: &[&str]) -> Self {
        let server = Server::with(options);
        server.client().say("SET f x");
        Untouched(server)
    }

    fn tcp(&self) -> String {
        format!("redis://127.0.0.1:{}", self.0.port())
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let mut client = self.0.client();
            let _only_where_it_is_asked_for = client.ask(&["AUTH", "s3cret"]);
            assert_eq!(client.everything(), ["f"], "nothing is changed on the server");
            assert_eq!(client.get("f"), b"x");
        }
    }
}

#[test]
fn a_source_that_is_none() {
    for source in ["localhost", "/dev/sda1", "http://127.0.0.1", "", "redis:h", "redis//h/0"] {
        refused(source, &[], 2, &["redis://"]);
    }
    refused("redis://127.0.0.1:notaport/0", &[], 1, &["port"]);
    refused("redis://127.0.0.1/notadb", &[], 1, &["notadb"]);
    refused("redis://u:s3cret@127.0.0.1/0?bogus=1", &[], 1, &["bogus"]);
    refused("redis://u:s3/cret@127.0.0.1/0", &[], 1, &["%2F"]);
}

#[test]
fn a_host_or_port_where_nobody_is() {
    refused("redis://no-such-host.invalid/0", &[], 1, &["no-such-host.invalid", "host"]);
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    refused(&format!("redis://127.0.0.1:{port}/0"), &[], 1, &[&port.to_string(), "running"]);
    refused("unix:///nonexistent/redis.sock", &[], 1, &["/nonexistent/redis.sock"]);
}

#[test]
fn what_is_no_redis_server() {
    // A web server answers, and something else says nothing at all.
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", web.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in web.incoming() {
            let Ok(mut stream) = stream else { return };
            let _asked = stream.read(&mut [0; 512]);
            let _told = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    refused(&url, &[], 1, &["Redis"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", silent.local_addr().unwrap());
    refused(&url, &[], 1, &["answer"]);
    drop(silent);
}

#[test]
fn a_password_that_is_wrong_or_missing() {
    let server = Server::with(&["--requirepass", "s3cret"]);
    let mut client = server.client();
    client.say("AUTH s3cret");
    client.say("SET f x");
    let server = Untouched(server);
    let (host, port) = ("127.0.0.1", server.0.port());
    refused(&server.tcp(), &[], 1, &["password"]);
    refused(&format!("redis://:wr0ng@{host}:{port}/0"), &[], 1, &["password"]);
    refused(&format!("redis://nobody:s3cret@{host}:{port}/0"), &[], 1, &["user", "password"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    refused(&server.tcp(), &["--password-file", file.to_str().unwrap()], 1, &["No such file"]);
    fs::write(&file, "wr0ng\n").unwrap();
    let said =
        refused(&server.tcp(), &["--password-file", file.to_str().unwrap()], 1, &["password"]);
    assert!(!said.contains("wr0ng"), "{said}");
}

#[test]
fn a_database_that_is_not_there() {
    let server = Untouched::new(&[]);
    refused(&format!("{}/99", server.tcp()), &[], 1, &["99"]);
    refused(&format!("{}?db=16", server.0.url()), &[], 1, &["16"]);
    // The others are databases of their own.
    let point = Point::new();
    let more = ["--log".to_owned(), point.dir.path().join("log").display().to_string()];
    let source = format!("{}/3", server.tcp());
    let words = ["mount", &source, point.path.to_str().unwrap(), &more[0], &more[1]];
    dbmount(&words).ok();
    assert_eq!(fs::read_dir(&point.path).unwrap().count(), 0);
    fs::write(point.path.join("g"), "y").unwrap();
    dbmount(&["umount", point.path.to_str().unwrap()]).ok();
    let mut client = server.0.client();
    client.say("SELECT 3");
    assert_eq!(client.get("g"), b"y");
}

#[test]
fn a_mountpoint_that_is_none() {
    let server = Untouched::new(&[]);
    let point = Point::new();
    let inside = |name: &str| point.dir.path().join(name).to_str().unwrap().to_owned();
    let url = server.0.url();
    refused_on(&point, &inside("missing"), &url, &[], 1, &["missing", "mkdir"]);
    fs::write(inside("file"), "").unwrap();
    refused_on(&point, &inside("file"), &url, &[], 1, &["file", "not a directory"]);

    // Not empty: allowed, and said.
    fs::write(point.path.join("hidden"), "").unwrap();
    let log = inside("log");
    let shown = point.path.to_str().unwrap();
    let told = dbmount(&["mount", &url, shown, "--log", &log]);
    assert_eq!(told.status, Some(0), "{told:?}");
    assert!(told.err.contains("not empty") && told.err.lines().count() == 1, "{told:?}");
    assert!(point.path.join("f").exists() && !point.path.join("hidden").exists());

    // Already mounted.
    let again = dbmount(&["mount", &url, shown, "--log", &log]);
    assert_eq!(again.status, Some(1), "{again:?}");
    assert!(again.err.contains("mounted on it already"), "{again:?}");
    assert!(again.err.lines().count() == 1 && again.err.contains("unmount"), "{again:?}");
    assert!(point.path.join("f").exists(), "the first is still there");
    dbmount(&["umount", shown]).ok();
    assert!(point.path.join("hidden").exists());
}

#[test]
fn a_server_in_cluster_mode() {
    let server = Server::with(&["--cluster-enabled", "yes"]);
    refused(&server.url(), &[], 1, &["cluster", "yet"]);
    assert_eq!(server.client().size(), 0);
}

#[test]
fn a_replica_is_read_only_and_that_is_said() {
    let master = Server::with(&["--repl-diskless-sync-delay", "0"]);
    master.client().say("SET f x");
    let port = master.port().to_string();
    let replica = Server::with(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let mut client = replica.client();
    until("the replica has it", || {
        client.ask(&["GET", "f"]) == crate::resp::Value::Text(b"x".to_vec())
    });
    let mount = Mount::new(&replica);
    until("it is there", || mount.at("f").exists());
    assert!(mount.said().contains("replica"), "{}", mount.said());
    assert!(mount.said().contains("read-only"), "{}", mount.said());
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    let refused = fs::write(mount.at("f"), "y").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "EROFS");
    master.client().say("SET g y");
    until("the master's changes show", || mount.at("g").exists());
    mount.end();
    assert_eq!(master.client().everything(), ["f", "g"]);
}

#[test]
fn a_user_who_lacks_a_command() {
    let server = Untouched::new(&[]);
    let mut client = server.0.client();
    let user = format!("redis://limited:s3cret@127.0.0.1:{}/0", server.0.port());
    for (lacks, named) in [
        ("-hset", "HSET"),
        ("-rename", "RENAME"),
        ("-scan", "SCAN"),
        ("-evalsha -eval -script", "EVAL"),
        ("-@write", "DEL"),
    ] {
        client.say("ACL SETUSER limited reset");
        client.say(&format!("ACL SETUSER limited on >s3cret ~* &* +@all {lacks}"));
        refused(&user, &[], 1, &[named, "ACL"]);
    }
    // One who may only read can mount to read.
    client.say("ACL SETUSER limited reset");
    client.say("ACL SETUSER limited on >s3cret ~* &* +@all -@write");
    let mount = Mount::of(&user, &["--read-only"], &[]);
    until("it is there", || mount.at("f").exists());
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    mount.end();
    client.say("ACL SETUSER limited reset");
    client.say("ACL SETUSER limited on >s3cret ~* &* +@all");
    let mount = Mount::of(&user, &[], &[]);
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    // A right that is taken away while it is mounted is an error that says so.
    client.say("ACL SETUSER limited -set -hset");
    let error = fs::write(mount.at("g"), "y").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(13), "EACCES: {error}");
    until("the log names it", || mount.said().contains("ACL SETUSER"));
}

#[test]
fn without_tracking_changes_show_later_and_that_is_said() {
    let server = Server::new();
    let mut client = server.client();
    client.say("SET f x");
    client.say("ACL SETUSER limited on >s3cret ~* &* +@all -client");
    let user = format!("redis://limited:s3cret@127.0.0.1:{}/0", server.port());
    let mount = Mount::of(&user, &[], &[]);
    until("it is said", || mount.said().contains("CLIENT TRACKING was refused"));
    assert!(mount.said().contains("only seen by looking again"), "{}", mount.said());
    assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
    assert!(!mount.at("d/g").exists());
    client.say("SET f other");
    client.say("SET d:g y");
    let delay = within(Duration::from_secs(10), "a change and a new key", || {
        fs::read(mount.at("f")).unwrap() == b"other" && mount.at("d/g").exists()
    });
    println!("without pushes: seen after {} ms", delay.as_millis());
    client.say("DEL d:g");
    within(Duration::from_secs(10), "a key gone", || !mount.at("d").exists());
    mount.end();
    assert_eq!(client.everything(), ["f"]);
}

#[test]
fn a_value_over_the_servers_limit() {
    let server = Server::new();
    let mut client = server.client();
    client.say("CONFIG SET proto-max-bulk-len 1mb");
    client.say("HSET h f old g kept");
    client.say("SET s old");
    let mount = Mount::new(&server);
    for name in ["s", "h.f", "new"] {
        let file =
            fs::File::options().create(true).write(true).truncate(false).open(mount.at(name));
        let mut file = file.unwrap();
        let result = file.write_all(&vec![b'x'; 3 << 20]).and_then(|()| file.sync_all());
        assert_eq!(result.unwrap_err().raw_os_error(), Some(27), "{name}: EFBIG");
        drop(file);
        let file = fs::File::options().write(true).open(mount.at(name)).unwrap();
        let result = file.set_len(2 << 20);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(27), "{name}: EFBIG of truncate");
    }
    // Up to the limit is fine, and what was there is not lost by what was refused.
    fs::write(mount.at("fits"), vec![b'y'; 1 << 20]).unwrap();
    assert_eq!(client.get("fits").len(), 1 << 20);
    assert_eq!(client.say("HGET h g").bytes(), b"kept");
    let end = |value: &[u8]| value.iter().rev().take(3).copied().collect::<Vec<_>>();
    for value in [client.get("s"), client.say("HGET h f").bytes()] {
        // What fitted of a large write may be there; what was there before and was not written
        // over is.
        assert!(value == b"old" || end(&value) == b"xxx", "{} bytes", value.len());
    }
    client.say("SET s old");
    let error = fs::copy(mount.at("fits"), mount.at("s")).map(|_| {
        let mut file = fs::File::options().append(true).open(mount.at("s")).unwrap();
        file.write_all(b"!").and_then(|()| file.sync_all())
    });
    assert_eq!(error.unwrap().unwrap_err().raw_os_error(), Some(27), "one byte too many");
    assert_eq!(client.get("s"), vec![b'y'; 1 << 20], "and nothing of it is lost");
    mount.sh("rm s new fits h.f");
}

#[test]
fn a_full_server_says_enospc_and_rm_still_works() {
    let server = Server::with(&["--maxmemory", "32mb", "--maxmemory-policy", "noeviction"]);
    let mut client = server.client();
    let mount = Mount::new(&server);
    fs::write(mount.at("before"), "kept").unwrap();
    fs::create_dir(mount.at("d")).unwrap();
    fs::write(mount.at("d/in.it"), "kept").unwrap();
    let mut full = None;
    for n in 0..64 {
        if let Err(error) = fs::File::create(mount.at(format!("d/{n}"))).and_then(|mut file| {
            file.write_all(&vec![b'x'; 1 << 20]).and_then(|()| file.sync_all())
        }) {
            full = Some(error);
            break;
        }
    }
    let full = full.expect("32 MiB do not take 64 MiB");
    assert_eq!(full.raw_os_error(), Some(28), "ENOSPC: {full}");
    until("the log says what to do", || mount.said().contains("raise maxmemory"));
    // `close` tells it as well, to a program that does not sync.
    let told = mount.sh("head -c 1000000 /dev/zero > more 2>&1 || echo failed; cp /bin/sh other 2>&1 || echo failed");
    assert!(told.contains("No space left on device"), "{told}");
    assert_eq!(fs::read_to_string(mount.at("before")).unwrap(), "kept");
    // Making room, by every way there is.
    fs::remove_file(mount.at("d/0")).unwrap();
    fs::remove_file(mount.at("d/in.it")).unwrap();
    mount.sh("rm -r d");
    assert!(!mount.at("d").exists());
    fs::write(mount.at("again"), vec![b'y'; 1 << 20]).unwrap();
    assert_eq!(client.get("again").len(), 1 << 20, "then there is room again");
    assert_eq!(client.get("before"), b"kept");
}

#[test]
fn no_password_is_shown_anywhere() {
    // Not that of other tests, whose commands run at the same time.
    const SECRET: &str = "hushhush";
    let server = Server::with(&["--requirepass", SECRET]);
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}/0", server.port());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let given = [
        (url(&format!(":{SECRET}@")), vec![], vec![]),
        (url(""), vec![], vec![("DBMOUNT_PASSWORD", SECRET)]),
        (url(""), vec!["--password-file", file.to_str().unwrap()], vec![]),
    ];
    for (source, more, variables) in given {
        let more = [&more[..], &["-vvv"]].concat();
        let mount = Mount::of(&source, &more, &variables);
        fs::write(mount.at("f"), "x").unwrap();
        assert_eq!(fs::read_to_string(mount.at("f")).unwrap(), "x");
        // Every process that is about: the program and what it may have started.
        for pid in pids() {
            if pid == std::process::id() {
                continue;
            }
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.starts_with("dbmount") {
                for what in ["cmdline", "environ"] {
                    let shown = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
                    let shown = String::from_utf8_lossy(&shown);
                    assert!(!shown.contains(SECRET), "/proc/{pid}/{what}: {shown}");
                }
            }
        }
        let ps = run(std::process::Command::new("ps").args(["axww", "-o", "args"])).ok();
        let ours = ps.lines().filter(|line| line.contains("dbmount"));
        assert_eq!(ours.filter(|line| line.contains(SECRET)).count(), 0, "{ps}");
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(SECRET));
        assert!(!mount.said().contains(SECRET), "{}", mount.said());
        assert!(Path::new(&format!("/proc/{}", mount.pid())).exists());
        mount.end();
    }
    // Nor in what is said about wrong usage.
    let ended =
        run(&mut program(&["mount", &url(&format!("u:{SECRET}@")), "/nonexistent", "--bogus"]));
    assert!(ended.status == Some(2) && !ended.err.contains(SECRET), "{ended:?}");
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
