//! Locks and appends between two mounts of one volume.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{LIMIT, sh, shell, try_sh, until, wait};
use crate::volume;

/// Takes locks as it is told, a line each, and says what came of it.
const LOCKER: &str = r"
import fcntl, os, struct, sys
files = {}
for line in sys.stdin:
    how, path, kind, start, length = line.split()
    f = files.setdefault(path, None) or files.update({path: open(path, 'r+b')}) or files[path]
    wait = 0 if how in ('exw', 'un') else fcntl.LOCK_NB
    mode = {'ex': fcntl.LOCK_EX, 'sh': fcntl.LOCK_SH, 'un': fcntl.LOCK_UN}[how[:2]]
    try:
        if kind == 'flock':
            fcntl.flock(f, mode | wait)
        elif kind == 'get':
            lock = struct.pack('hhqqi', fcntl.F_WRLCK, 0, int(start), int(length), 0)
            lock = struct.unpack('hhqqi', fcntl.fcntl(f, fcntl.F_GETLK, lock))
            print(lock[0] == fcntl.F_UNLCK and 'free' or 'locked %d+%d' % lock[2:4], flush=True)
            continue
        else:
            fcntl.lockf(f, mode | wait, int(length), int(start))
        print('done', flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
";

/// A process with locks.
struct Locker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Locker {
    fn new() -> Locker {
        let mut child = Command::new("python3")
            .args(["-c", LOCKER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Locker { child, input, output: BufReader::new(output) }
    }

    fn tell(&mut self, how: &str, path: &Path, kind: &str, start: u64, length: u64) {
        writeln!(self.input, "{how} {} {kind} {start} {length}", path.display()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, how: &str, path: &Path, kind: &str, start: u64, length: u64) -> String {
        self.tell(how, path, kind, start, length);
        self.answer()
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

const BUSY: &str = "Resource temporarily unavailable";

#[test]
fn locks_of_one_mount_hold_on_the_other() {
    let server = Server::new();
    let url = volume(&server);
    let (one, two) = (Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[]));
    fs::write(one.at("f"), "0123456789").unwrap();
    until("the file is there", || two.at("f").exists());
    let (here, there) = (one.at("f"), two.at("f"));
    let (mut a, mut b) = (Locker::new(), Locker::new());

    assert_eq!(a.ask("ex", &here, "flock", 0, 0), "done");
    assert_eq!(b.ask("ex", &there, "flock", 0, 0), BUSY);
    assert_eq!(b.ask("sh", &there, "flock", 0, 0), BUSY);
    // flock(2): the two families do not know of each other, whoever asks.
    assert_eq!(a.ask("ex", &here, "fcntl", 0, 0), "done", "the holder itself");
    assert_eq!(a.ask("un", &here, "fcntl", 0, 0), "done");
    assert_eq!(
        b.ask("sh", &there, "flock", 0, 0),
        BUSY,
        "giving up one is not giving up the other"
    );
    assert_eq!(a.ask("un", &here, "flock", 0, 0), "done");
    assert_eq!(b.ask("sh", &there, "flock", 0, 0), "done");
    assert_eq!(b.ask("un", &there, "flock", 0, 0), "done");

    assert_eq!(a.ask("ex", &here, "fcntl", 2, 3), "done");
    assert_eq!(b.ask("ex", &there, "fcntl", 4, 2), BUSY);
    assert_eq!(b.ask("ex", &there, "fcntl", 5, 2), "done");
    assert_eq!(b.ask("ex", &there, "get", 0, 0), "locked 2+3");
    assert_eq!(a.ask("ex", &here, "get", 0, 0), "locked 5+2");
    assert_eq!(b.ask("ex", &there, "get", 0, 2), "free");

    // Who waits gets it when the other's process is gone.
    b.tell("exw", &there, "fcntl", 2, 1);
    drop(a);
    assert_eq!(b.answer(), "done");

    let mut c = Locker::new();
    assert_eq!(c.ask("sh", &here, "fcntl", 2, 1), BUSY);
    c.tell("exw", &here, "fcntl", 0, 0);
    assert_eq!(b.ask("un", &there, "fcntl", 0, 0), "done");
    assert_eq!(c.answer(), "done");
}

#[test]
fn a_process_that_waits_for_a_lock_can_be_killed() {
    let server = Server::new();
    let url = volume(&server);
    let (one, two) = (Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[]));
    fs::write(one.at("f"), "").unwrap();
    until("the file is there", || two.at("f").exists());
    let mut holder = Locker::new();
    assert_eq!(holder.ask("ex", &one.at("f"), "flock", 0, 0), "done");
    for signal in ["KILL", "TERM", "INT"] {
        let mut waiter = shell(two.point(), "exec flock f true").spawn().unwrap();
        let status = format!("/proc/{}/wchan", waiter.id());
        until("it waits", || {
            fs::read_to_string(&status).is_ok_and(|at| at.contains("request_wait"))
        });
        sh(two.point(), &format!("kill -{signal} {}", waiter.id()));
        assert_eq!(wait(&mut waiter, LIMIT, "flock, which was killed"), None, "{signal}");
    }
    // None of them left a lock behind.
    assert_eq!(holder.ask("un", &one.at("f"), "flock", 0, 0), "done");
    assert_eq!(holder.ask("ex", &one.at("f"), "flock", 0, 0), "done");
}

/// Whoever has the lock reads what the last one to have it wrote.
#[test]
fn counting_under_a_lock_loses_nothing() {
    const COUNT: &str = "for n in $(seq 25); do
        flock lock sh -c 'n=$(cat count); echo $((n + 1)) >count'
    done";
    let server = Server::new();
    let url = volume(&server);
    let (one, two) = (Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[]));
    one.sh("echo 0 >count; touch lock");
    until("the files are there", || two.at("lock").exists());
    let mut counting: Vec<Child> = [&one, &two, &one, &two]
        .into_iter()
        .map(|mount| shell(mount.point(), COUNT).spawn().unwrap())
        .collect();
    for child in &mut counting {
        assert_eq!(wait(child, LIMIT, "counting"), Some(0));
    }
    assert_eq!(one.sh("flock lock cat count"), "100\n");
}

#[test]
fn appends_of_both_mounts_are_all_there() {
    const LINES: usize = 200;
    let server = Server::new();
    let url = volume(&server);
    let mounts = [Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[])];
    fs::write(mounts[0].at("log"), "").unwrap();
    until("the file is there", || mounts[1].at("log").exists());
    std::thread::scope(|scope| {
        for (who, mount) in mounts.iter().enumerate() {
            scope.spawn(move || {
                let mut log = File::options().append(true).open(mount.at("log")).unwrap();
                for n in 0..LINES {
                    // One write for each line.
                    let line = format!("{n} of {who} {}\n", "x".repeat(n));
                    log.write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
    for mount in &mounts {
        let mut lines = 0;
        until("all lines are seen", || {
            lines = fs::read_to_string(mount.at("log")).unwrap().lines().count();
            lines == 2 * LINES
        });
        let log = fs::read_to_string(mount.at("log")).unwrap();
        for who in 0..mounts.len() {
            for n in 0..LINES {
                let line = format!("{n} of {who} {}\n", "x".repeat(n));
                assert!(log.contains(&line), "{line}");
            }
        }
    }
    let ended = try_sh(mounts[0].point(), "sort log | uniq -d | grep . && exit 1; true");
    assert_eq!(ended.status, Some(0), "{}", ended.out);
}
