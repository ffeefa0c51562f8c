//! A server that dies and comes back under a mount: programs get errors in time, the log says
//! why, the mount works again by itself, and what `fsync` acknowledged is there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{run_within, shell, until, within};

/// What one operation may take.
const TIMEOUT: &str = "2";
/// The same where the server is never away for long, and only its disk may be slow: it waits for
/// that with every write.
const SLOW_DISK: &str = "10";
/// What a few may that the kernel lets into one directory in turn: the first waits for the whole
/// timeout, and the others less, as the server is known to be away then.
const IN_TIME: Duration = Duration::from_secs(15);

/// A server that keeps what it acknowledged, as far as it is asked to.
fn durable() -> Server {
    Server::with(&["--appendonly", "yes", "--appendfsync", "always"])
}

#[test]
fn copying_survives_a_kill_and_a_restart() {
    let mut server = durable();
    let mount = Mount::with(&server, &["--timeout", SLOW_DISK]);
    let from = tempfile::tempdir().unwrap();
    for n in 0..400 {
        let line = format!("{n}\n");
        fs::write(from.path().join(format!("{n}.txt")), line.repeat(2000 + n)).unwrap();
    }
    // Acknowledged before.
    let synced: Vec<_> = (0..20)
        .map(|n| {
            let (name, value) = (format!("synced{n}"), format!("value {n}").repeat(1000));
            let mut file = File::create(mount.at(&name)).unwrap();
            file.write_all(value.as_bytes()).unwrap();
            file.sync_all().unwrap();
            (name, value)
        })
        .collect();

    // Two that copy, one that lists, while the server is killed again and again.
    let script = format!(
        "cp -r '{}' copy 2>&1 || true; cp -r '{0}' other 2>&1 || true",
        from.path().display()
    );
    let copied = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            let start = Instant::now();
            let ended = run_within(Duration::from_secs(100), &mut shell(mount.point(), &script));
            (ended, start.elapsed())
        });
        let listing = scope.spawn(|| {
            let list = "for n in $(seq 30); do ls -lR . >/dev/null 2>&1 || true; done";
            run_within(Duration::from_secs(100), &mut shell(mount.point(), list))
        });
        for kill in 0..2 {
            let copied = || fs::read_dir(mount.at("copy")).map_or(0, Iterator::count);
            let last = copied();
            // In the middle of it, whatever came of the kill before.
            let start = Instant::now();
            while copied() < last + 20 && !copying.is_finished() && start.elapsed() < IN_TIME {
                std::thread::yield_now();
            }
            println!("kill {kill}: {} files were there", copied());
            server.kill();
            server.start_again();
        }
        assert_eq!(listing.join().unwrap().status, Some(0));
        copying.join().unwrap()
    });
    println!("cp took {:?} and said:\n{}", copied.1, copied.0.out);
    for line in copied.0.out.lines() {
        let expected = ["Input/output error", "No such file", "File exists", "Stale file handle"];
        assert!(expected.iter().any(|error| line.contains(error)), "{line}");
    }
    within(IN_TIME, "the mount is back by itself", || fs::write(mount.at("back"), "x").is_ok());
    for (name, value) in &synced {
        assert!(fs::read_to_string(mount.at(name)).unwrap() == *value, "{name} was synced");
        assert!(server.client().get(name) == value.as_bytes());
    }
    // The log says what happened, in lines that name the server.
    let said = mount.said();
    assert!(said.contains("lost the connection to"), "{said}");
    // A second copy is whole.
    mount.sh(&format!(
        "rm -rf copy other; cp -r '{}' copy; diff -r '{0}' copy",
        from.path().display()
    ));
    mount.end();
}

#[test]
fn no_program_hangs_while_the_server_is_away() {
    let mut server = durable();
    server.client().say("SET there x");
    let mount = Mount::with(&server, &["--timeout", TIMEOUT]);
    fs::write(mount.at("cached"), "cached").unwrap();
    let open = File::options().read(true).write(true).open(mount.at("there")).unwrap();
    server.kill();
    let in_time = |what: &str, result: std::io::Result<()>| {
        let error = result.expect_err(what);
        assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{what}: EIO or ETIMEDOUT: {error}");
    };
    // Each of these on a thread of its own, so that their waits are one.
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| in_time("open(O_CREAT)", File::create(mount.at("new")).map(drop)));
        scope.spawn(|| in_time("mkdir", fs::create_dir(mount.at("dir"))));
        scope.spawn(|| in_time("unlink", fs::remove_file(mount.at("there"))));
        scope.spawn(|| in_time("rename", fs::rename(mount.at("cached"), mount.at("moved"))));
        scope.spawn(|| in_time("stat", fs::metadata(mount.at("never/seen")).map(drop)));
        scope.spawn(|| in_time("fsync", open.write_all_at(b"y", 0).and_then(|()| open.sync_all())));
        scope.spawn(|| {
            let list =
                fs::read_dir(mount.point()).and_then(|all| all.collect::<Result<Vec<_>, _>>());
            in_time("readdir", list.map(drop));
        });
    });
    let took = start.elapsed();
    println!("everything failed within {took:?}");
    assert!(took < IN_TIME, "the deadline is {TIMEOUT} s: {took:?}");
    // A program can be ended meanwhile.
    let read = format!("cat '{}'", mount.at("new2").display());
    let mut stuck = shell(std::env::temp_dir().as_path(), &read).spawn().unwrap();
    let _maybe_over = stuck.kill();
    crate::shell::wait(&mut stuck, IN_TIME, "a killed program");

    // Or the server that is started here would inherit it, and wait for itself to close it.
    drop(open);
    server.start_again();
    within(IN_TIME, "it is back", || fs::read_to_string(mount.at("there")).is_ok());
    fs::write(mount.at("after"), "x").unwrap();
    assert_eq!(server.client().get("after"), b"x");
    until("the log says so", || mount.said().contains("lost the connection to"));
}

#[test]
fn a_short_absence_is_not_an_error() {
    let mut server = durable();
    let mount = Mount::with(&server, &["--timeout", "30"]);
    for n in 0..5 {
        server.kill();
        // In a process of its own: a file of the mount that is open here would be flushed by every
        // process that is started from here, the server's as well.
        let append = format!(
            "echo {n} | dd of=f oflag=append conv=notrunc,fsync status=none; mkdir d{n}; mv d{n} e{n}"
        );
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| run_within(IN_TIME, &mut shell(mount.point(), &append)));
            server.start_again();
            writing.join().unwrap().ok();
        });
        // Once, although it is not known whether a first attempt arrived.
        let lines: String = (0..=n).map(|n| format!("{n}\n")).collect();
        assert_eq!(server.client().get("f"), lines.as_bytes());
    }
    assert_eq!(mount.sh("ls"), "e0\ne1\ne2\ne3\ne4\nf\n");
}

#[test]
fn what_changed_while_the_connection_was_lost_shows() {
    let mut server = durable();
    let mut client = server.client();
    client.say("SET a:b old");
    client.say("SET gone x");
    let mount = Mount::with(&server, &["--timeout", TIMEOUT]);
    assert_eq!(fs::read_to_string(mount.at("a/b")).unwrap(), "old");
    assert!(mount.at("gone").exists() && !mount.at("new").exists());
    // No pushes come while all connections but ours are cut, again and again.
    client.say("MULTI");
    for line in [
        "CLIENT KILL TYPE normal SKIPME yes",
        "CLIENT KILL TYPE pubsub SKIPME yes",
        "SET a:b new",
        "DEL gone",
        "SET new x",
    ] {
        client.say(line);
    }
    client.say("EXEC");
    let delay = within(IN_TIME, "what changed", || {
        fs::read_to_string(mount.at("a/b")).is_ok_and(|text| text == "new")
            && !mount.at("gone").exists()
            && mount.at("new").exists()
    });
    println!("after a cut: seen after {} ms", delay.as_millis());
    server.kill();
    server.start_again();
    server.client().say("SET a:b newer");
    within(IN_TIME, "the server is back", || {
        fs::read_to_string(mount.at("a/b")).is_ok_and(|text| text == "newer")
    });
}
