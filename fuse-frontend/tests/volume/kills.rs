//! `kill -9` of the program and of its server at random points of a fixed workload: it mounts
//! again, the check finds nothing, what was acknowledged is whole.
//!
//! `DBMOUNT_KILL_ROUNDS=50 DBMOUNT_KILL_SEED=7` plays more of it by hand; a failure names its seed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::mount::{Mount, dbmount, take_away};
use crate::server::Server;
use crate::shell::{LIMIT, needs, until, wait, within};
use crate::volume;

/// Works in a directory until its input ends, and notes in a file what was acknowledged:
/// `whole NAME SEED LENGTH` after an fsync, `save NAME VERSION` after a save by rename, `odd TEXT`
/// for an error that nobody should see.
const WORK: &str = r"
import errno, os, random, select, sys
root, log, seed = sys.argv[1], open(sys.argv[2], 'a', buffering=1), int(sys.argv[3])
rand = random.Random(seed)
os.chdir(root)
# EPERM: a directory is linked.
ORDINARY = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL,
    errno.EPERM}
AWAY = {errno.EIO, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNABORTED}

def put(name, text, flags=0):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        at = 0
        while at < len(text):
            at += os.pwrite(fd, text[at:at + 131072], at)
        os.fsync(fd)
    finally:
        os.close(fd)

def whole(n):
    name, length = 'whole%d' % n, rand.choice([0, 1, 4096, 70000, 131072, 300001])
    put(name, random.Random(n).randbytes(length))
    log.write('whole %s %d %d\n' % (name, n, length))

def save(n):
    name, length = 'save%d' % rand.randrange(4), rand.choice([10, 5000, 200000])
    body = b'%d %d\n' % (n, length) + random.Random(n).randbytes(length)
    put('save.new', body, os.O_TRUNC)
    os.rename('save.new', name)
    log.write('save %s %d\n' % (name, n))

def pick():
    return rand.choice(['a', 'b', 'c', 'a/a', 'a/b', 'b/a', 'b/c', 'c/a', 'a/a/a', 'b/c/d'])

def churn(n):
    a, b = pick(), pick()
    how = rand.randrange(12)
    if how <= 1: os.mkdir(a)
    elif how == 2: os.rmdir(a)
    elif how <= 4: os.rename(a, b)
    elif how == 5: os.link(a, b)
    elif how == 6: os.unlink(a)
    elif how == 7: os.symlink('x', a)
    elif how == 8: os.truncate(a, rand.choice([0, 5, 100000, 400000]))
    elif how == 9: os.setxattr(a, 'user.n', b'%d' % n)
    else:
        with open(a, rand.choice(['ab', 'wb', 'r+b'])) as f:
            f.write(rand.randbytes(rand.choice([3, 3000, 150000])))

n = seed * 1000000
while not select.select([sys.stdin], [], [], 0)[0]:
    n += 1
    what = rand.choice([whole, save, churn, churn, churn, churn])
    try:
        what(n)
    except OSError as error:
        if error.errno in AWAY: log.write('away %d %s\n' % (error.errno, what.__name__))
        elif error.errno not in ORDINARY or what is not churn:
            log.write('odd %s: %s\n' % (what.__name__, error))
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED): break
";

/// Reads everything that was acknowledged, and everything else as well.
const CHECK: &str = r"
import os, random, sys
root, log = sys.argv[1], open(sys.argv[2])
os.chdir(root)
def read(name):
    with open(name, 'rb') as f: return f.read()
saves = {}
for line in log:
    word, *rest = line.split()
    if word == 'whole' and 'durable' in sys.argv:
        name, seed, length = rest[0], int(rest[1]), int(rest[2])
        assert os.path.exists(name), name + ' is not there'
        assert read(name) == random.Random(seed).randbytes(length), name + ' is not whole'
    elif word == 'save': saves[rest[0]] = int(rest[1])
for name in ['save%d' % n for n in range(4)]:
    if not os.path.exists(name):
        assert name not in saves or 'durable' not in sys.argv, name + ' is not there'
        continue
    head, body = read(name).split(b'\n', 1)
    version, length = map(int, head.split())
    assert len(body) == length and body == random.Random(version).randbytes(length), name
    assert version >= saves.get(name, 0) or 'durable' not in sys.argv, name + ' is an old one'
for dir, dirs, files in os.walk('.', onerror=lambda error: sys.exit(str(error))):
    for name in files:
        path = os.path.join(dir, name)
        if not os.path.islink(path): assert len(read(path)) == os.stat(path).st_size, path
";

/// The worker, and what it noted.
struct Work {
    child: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
}

impl Work {
    fn start(dir: &Path, log: PathBuf, seed: u64) -> Work {
        needs("python3", "python3");
        File::create(&log).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", WORK])
            .args([dir, &log])
            .arg(seed.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Work { input: child.stdin.take(), child, log }
    }

    /// How many lines it has noted.
    fn noted(&self) -> usize {
        fs::read_to_string(&self.log).unwrap().lines().count()
    }

    /// Ends it; nothing that it met may be out of the ordinary.
    fn end(&mut self, round: &str) {
        drop(self.input.take());
        let status = wait(&mut self.child, LIMIT, "the worker");
        assert_eq!(status, Some(0), "{round}");
        let noted = fs::read_to_string(&self.log).unwrap();
        let odd = noted.lines().find(|line| line.starts_with("odd"));
        assert_eq!(odd, None, "{round}");
    }
}

/// Numbers that a seed decides.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // The multiplier is Knuth's (MMIX).
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Mount,
    Server,
    Both,
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn kill(mount: Mount) {
    kill_process(Pid::from_raw(mount.pid() as i32).unwrap(), Signal::KILL).unwrap();
    take_away(mount.point());
}

fn checked(url: &str, round: &str) -> Duration {
    let start = Instant::now();
    let check = dbmount(&["fsck", url]);
    assert_eq!(check.status, Some(0), "{round}: {}{}", check.out, check.err);
    start.elapsed()
}

/// `durable`: what the server acknowledged survives its death.
fn kills(appendfsync: &str, durable: bool) {
    let rounds = number("DBMOUNT_KILL_ROUNDS", 4);
    let seed = number("DBMOUNT_KILL_SEED", 1);
    let mut random = Random(seed);
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", appendfsync]);
    let url = volume(&server);
    let logs = tempfile::tempdir().unwrap();
    let mut kept: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let mut mount = Mount::of(&url, &["--timeout", "10"], &[]);
        let victim = [Victim::Mount, Victim::Server, Victim::Both][(random.below(3)) as usize];
        let (lines, micros) = (random.below(60) as usize, random.below(20_000));
        let shown =
            format!("seed {seed}, round {round}, {victim:?} after {lines} lines + {micros} us");
        println!("{shown}");
        let dir = mount.at(format!("round{round}"));
        fs::create_dir(&dir).unwrap();
        let log = logs.path().join(round.to_string());
        kept.insert(round, log.clone());
        let mut work = Work::start(&dir, log, seed * 1000 + round);
        until("the worker has come so far", || work.noted() >= lines);
        // Any point is as good as another: this only makes them different ones.
        std::thread::sleep(Duration::from_micros(micros));
        if victim != Victim::Mount {
            server.kill();
        }
        if victim != Victim::Server {
            kill(mount);
            work.end(&shown);
            if victim == Victim::Both {
                server.start_again();
            }
            longest = longest.max(checked(&url, &shown));
            mount = Mount::of(&url, &["--timeout", "10"], &[]);
        } else {
            server.start_again();
            let before = work.noted();
            within(LIMIT, "the mount is back by itself", || work.noted() > before);
            work.end(&shown);
        }
        longest = longest.max(checked(&url, &shown));
        let safe = durable || victim == Victim::Mount;
        for (of, log) in &kept {
            let dir = mount.at(format!("round{of}"));
            let mut check = Command::new("python3");
            check.args(["-c", CHECK]).args([&dir, log]).current_dir("/");
            if safe && dir.exists() {
                check.arg("durable");
            }
            if dir.exists() || safe {
                let ended = crate::shell::run(&mut check);
                assert_eq!(ended.status, Some(0), "{shown}, of {of}: {}{}", ended.out, ended.err);
            }
        }
        if !safe {
            // What a server lost before is no loss of later rounds.
            kept.clear();
        }
        if let Some((old, _)) = kept.pop_first().filter(|(old, _)| *old < round) {
            mount.sh(&format!("rm -rf round{old}"));
        }
        mount.end();
        longest = longest.max(checked(&url, &shown));
    }
    println!("{rounds} rounds; the longest check took {longest:?}");
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("rm -rf round*");
    mount.end();
    // The leases of those that were killed end.
    let mut redis = server.client();
    for mount in redis.say("ZRANGE {test}:s 0 -1").list() {
        redis.run(&[b"ZADD".as_slice(), b"{test}:s", b"1", &mount.bytes()]);
    }
    dbmount(&["gc", &url]).ok();
    checked(&url, "at the end");
    let keys = server.client().everything();
    let left = keys.iter().filter(|key| key.starts_with("test:b:")).count();
    assert_eq!(left, 0, "blocks of files that are gone: {keys:?}");
}

#[test]
fn nothing_acknowledged_is_lost_where_the_server_syncs_always() {
    kills("always", true);
}

#[test]
fn nothing_is_torn_where_the_server_syncs_every_second() {
    kills("everysec", false);
}
