//! Servers that are full, that evict, that do not let this user do everything; volumes that are
//! not there, or of another format: what a person sees.

use crate::mount::{Mount, dbmount};
use crate::server::Server;
use crate::shell::until;
use crate::volume;

/// Fills the server in two ways, and says where the errors came; whatever was acknowledged before
/// stays whole, and what was told to be lost is as written or zeros.
const FILL: &str = r"
import errno, os, sys
def full(step, *args):
    try: step(*args)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        return True
    return False
def put(name, n, length):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for at in range(0, length, 65536):
            os.pwrite(fd, bytes([n % 250 + 1]) * min(65536, length - at), at)
        os.fsync(fd)
    finally: os.close(fd)
def whole(name, n, length):
    with open(name, 'rb') as f: return f.read() == bytes([n % 250 + 1]) * length
assert full(put, 'large', 1, 32 << 20), 'a large file'
with open('large', 'rb') as f: assert set(f.read()) <= {0, 2}, 'it is torn'
# Small ones, until not even an inode is left.
n = 0
while not full(put, 'small%d' % n, n, 20000): n += 1
for m in range(n): assert whole('small%d' % m, m, 20000), m
while not full(os.mkdir, 'dir%d' % n): n += 1
assert full(os.setxattr, 'kept', 'user.a', b'x' * 60000)
def append():
    with open('kept', 'ab') as f: f.write(b'y' * 100000)
assert full(append)
# What takes no memory works.
assert whole('kept', 7, 300000)
os.rename('kept', 'moved')
os.chmod('moved', 0o600)
os.truncate('moved', 200000)
assert whole('moved', 7, 200000)
for name in os.listdir('.'):
    if os.path.isdir(name): os.rmdir(name)
    elif name != 'moved': os.unlink(name)
assert os.listdir('.') == ['moved']
";

#[test]
fn a_full_server_says_so_and_removing_helps() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("head -c 300000 /dev/zero | tr '\\0' '\\10' >kept; sync kept");
    let mut redis = server.client();
    let info = String::from_utf8(redis.say("INFO memory").bytes()).unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.trim().parse::<u64>().unwrap() + (6 << 20);
    redis.say(&format!("CONFIG SET maxmemory {limit}"));
    std::fs::write(mount.point().parent().unwrap().join("fill.py"), FILL).unwrap();
    mount.sh("python3 ../fill.py");
    assert_eq!(dbmount(&["fsck", &url]).status, Some(0));
    until("there is room again", || {
        !redis
            .keys()
            .iter()
            .any(|key| key.contains(":b:") && !key.ends_with(":0}") && !key.ends_with(":1}"))
    });
    mount.sh("head -c 3000000 /dev/zero >again; sync again; rm again");
    assert!(mount.said().contains("raise maxmemory"), "{}", mount.said());
    mount.end();
    assert_eq!(dbmount(&["fsck", &url]).status, Some(0));
}

/// Mounts, which must be refused, and returns why.
#[track_caller]
fn refused(source: &str, more: &[&str]) -> String {
    let point = tempfile::tempdir().unwrap();
    let mut words = vec!["mount", source, point.path().to_str().unwrap()];
    words.extend(more);
    let ended = dbmount(&words);
    assert_ne!(ended.status, Some(0), "{}{}", ended.out, ended.err);
    assert!(!crate::mount::is_mounted(point.path()));
    assert_eq!(ended.err.trim_end().lines().count(), 1, "one line: {}", ended.err);
    ended.err
}

#[test]
fn a_server_that_evicts_is_refused_unless_forced() {
    let server = Server::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let url = format!("{}?volume=test", server.url());
    let said = dbmount(&["format", &url]);
    assert!(said.err.contains("allkeys-lru"), "{}", said.err);
    dbmount(&["format", "--force", &url]).ok();
    let said = refused(&url, &[]);
    assert!(said.contains("set it to noeviction") && said.contains("--force"), "{said}");
    assert!(dbmount(&["help", "mount"]).ok().contains("--force"));
    let mount = Mount::of(&url, &["--force"], &[]);
    assert!(mount.said().contains("it removes keys"), "{}", mount.said());
    mount.end();
}

#[test]
fn a_user_gets_what_he_may_have_or_is_told_what_to_ask_for() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("echo text >file");
    mount.end();
    let mut redis = server.client();
    for rule in [
        "reader ~* +@read +@connection +@scripting +info +client",
        "stranger ~other:* +@all",
        "blockless ~{test}:* +@all",
        "limited ~* +@all -zadd -hincrby -hget",
        "scriptless ~* +@all -@scripting",
        "owner ~{test}:* ~test:b:* +@all -@admin -@dangerous +info",
    ] {
        let (user, rules) = rule.split_once(' ').unwrap();
        redis.say(&format!("ACL SETUSER {user} on >pass {rules}"));
    }
    let of = |user| format!("redis://{user}:pass@127.0.0.1:{}/0?volume=test", server.port());
    for (user, parts) in [
        ("stranger", &["~{test}:*"][..]),
        ("blockless", &["may not touch", "~{test}:* ~test:b:*"]),
        ("limited", &["HGET, HINCRBY, ZADD", "+hget +hincrby +zadd ~{test}:* ~test:b:*"]),
        ("scriptless", &["may not run scripts", "+eval +evalsha"]),
    ] {
        let said = refused(&of(user), &[]);
        assert!(parts.iter().all(|part| said.contains(part)), "{user}: {said}");
    }
    let mount = Mount::of(&of("reader"), &[], &[]);
    assert!(mount.said().contains("this user may only read"), "{}", mount.said());
    assert_eq!(mount.sh("cat file; ls"), "text\nfile\n");
    let said = crate::shell::try_sh(mount.point(), "echo x >other");
    assert!(said.err.contains("Read-only file system"), "{}", said.err);
    mount.end();
    let mount = Mount::of(&of("owner"), &[], &[]);
    mount.sh("echo more >>file; head -c 1000000 /dev/zero >big; rm big");
    mount.end();
    assert_eq!(dbmount(&["fsck", &url]).status, Some(0));
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let server = Server::new();
    let url = volume(&server);
    let said = refused(&format!("{}?volume=tset", server.url()), &[]);
    assert!(said.contains("there is no volume tset here; make one with `dbmount format"), "{said}");
    let said = dbmount(&["format", &url]);
    assert!(
        said.err.contains("there is a volume test already; nothing was changed"),
        "{}",
        said.err
    );
    let mut redis = server.client();
    redis.say("HSET {test}:super v 99");
    let said = refused(&url, &[]);
    assert!(said.contains("has format 99") && said.contains("use a newer dbmount"), "{said}");
    redis.say("HSET {test}:super v nonsense");
    let said = refused(&url, &[]);
    assert!(said.contains("volume test"), "{said}");
    redis.say("DEL {test}:super");
    redis.say("SET {test}:super x");
    let said = refused(&url, &[]);
    assert!(said.contains("WRONGTYPE"), "{said}");
    let said = refused(&format!("{}?volume=a/b", server.url()), &[]);
    assert!(said.contains("no name for a volume"), "{said}");
}
