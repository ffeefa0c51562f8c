//! Two mounts of one volume at work in the same directories: nobody meets an error that one
//! filesystem would not give him, both see the same tree afterwards, and the check finds nothing.
//!
//! `DBMOUNT_TOGETHER_SECONDS=60` goes on for longer.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::mount::{Mount, dbmount};
use crate::server::Server;
use crate::shell::{LIMIT, needs, until, wait};
use crate::volume;

/// Works on a few names that everybody works on, and on one directory of its own in which nobody
/// else may be seen to have been. Says what it met that it should not have.
const WORK: &str = r"
import errno, os, random, sys, time
root, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
rand = random.Random(seed)
os.chdir(root)
# What others may have done first; EPERM: a directory is linked; ELOOP, EINVAL: of symlinks, and of
# a directory that would be moved into itself. ESTALE: a directory on the path was removed through
# the other mount, the kernel walked the path once more, and lost again; as on NFS.
ORDINARY = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR,
    errno.EPERM, errno.EINVAL, errno.ELOOP, errno.ESTALE}
own, mine, count = 'own%d' % seed, set(), 0
os.mkdir(own)

def pick():
    return '/'.join(rand.choice('abcd') for _ in range(rand.choice([1, 2, 2, 3])))

def theirs():
    a, b = pick(), pick()
    how = rand.randrange(13)
    if how <= 1: os.mkdir(a)
    elif how == 2: os.rmdir(a)
    elif how <= 4: os.rename(a, b)
    elif how == 5: os.link(a, b)
    elif how <= 7: os.unlink(a)
    elif how == 8: os.symlink('b', a)
    elif how == 9: list(os.scandir(a))
    elif how == 10: os.stat(a)
    elif how == 11:
        with open(a, 'rb') as f: f.read()
    else:
        with open(a, rand.choice(['ab', 'wb'])) as f: f.write(b'x' * rand.choice([5, 3000, 150000]))

def ours():
    name = rand.choice('abcdefgh')
    path = own + '/' + name
    if name in mine:
        if rand.random() < 0.5:
            os.unlink(path)
        else:
            os.rename(path, own + '/' + name.upper())
            os.unlink(own + '/' + name.upper())
        mine.discard(name)
    else:
        with open(path, 'xb') as f: f.write(name.encode())
        mine.add(name)
    assert set(os.listdir(own)) == mine, (os.listdir(own), mine)

end = time.monotonic() + seconds
while time.monotonic() < end:
    count += 1
    if rand.random() < 0.2: ours()
    else:
        try: theirs()
        except OSError as error:
            if error.errno not in ORDINARY: raise
print(count)
";

fn work(mount: &Mount, seed: u64, seconds: u64) -> Child {
    Command::new("python3")
        .args(["-c", WORK])
        .arg(mount.point())
        .args([seed.to_string(), seconds.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// Everything there is, with sizes, links and contents.
const TREE: &str = "find . -mindepth 1 -printf '%p %y %m %n %s %l\\n' | sed 's/^\\([^ ]* d [0-9]* \
                    [0-9]*\\) [0-9]*/\\1/' | sort
                    find . -type f -exec sha1sum {} + | sort";

#[test]
fn two_mounts_in_the_same_directories_stay_one_filesystem() {
    needs("python3", "python3");
    let seconds = std::env::var("DBMOUNT_TOGETHER_SECONDS").map_or(8, |it| it.parse().unwrap());
    let server = Server::new();
    let url = volume(&server);
    let mounts = [Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[])];
    let mut workers: Vec<Child> =
        (0..8).map(|n| work(&mounts[n as usize % 2], n, seconds)).collect();
    for child in &mut workers {
        let status = wait(child, LIMIT + Duration::from_secs(seconds), "a worker");
        assert_eq!(status, Some(0), "it says what it met above");
    }
    let mut trees = [String::new(), String::new()];
    until("both see the same", || {
        trees = mounts.each_ref().map(|mount| mount.sh(TREE));
        trees[0] == trees[1]
    });
    println!("{} lines in the tree", trees[0].lines().count());
    let check = dbmount(&["fsck", &url]);
    assert_eq!(check.status, Some(0), "{}{}", check.out, check.err);
    // Nothing waits for anybody to unmount. What a rewrite lost to another stays in the queue
    // until its turn comes, which is for `gc`.
    mounts[0].sh("rm -rf *");
    let mut redis = server.client();
    until("what was removed is gone", || {
        dbmount(&["gc", &url]).ok();
        redis.keys().iter().all(|key| !key.contains(":b:"))
    });
    assert_eq!(redis.say("ZCARD {test}:g").int(), 0);
    for mount in mounts {
        mount.end();
    }
    let check = dbmount(&["fsck", &url]);
    assert_eq!(check.status, Some(0), "{}{}", check.out, check.err);
}

/// `rm -rf` of many files gives the memory back at once, whoever else has the volume mounted.
#[test]
fn what_is_removed_beside_another_mount_is_freed_at_once() {
    let server = Server::new();
    let url = volume(&server);
    let (one, two) = (Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[]));
    one.sh("mkdir d; cd d; head -c 2000000 /dev/urandom | split -b 1000 -a 4 -; echo open >kept");
    until("the other sees them", || two.sh("ls d | wc -l") == "2001\n");
    let (open, name) = (two.at("d/kept"), two.at("d/xaaa"));
    let reader = std::fs::File::open(&open).unwrap();
    let mut redis = server.client();
    one.sh("rm -rf d");
    until("all blocks but those that are open are gone", || {
        redis.keys().iter().filter(|key| key.contains(":b:")).count() == 1
    });
    assert_eq!(std::io::read_to_string(&reader).unwrap(), "open\n");
    assert!(!name.exists());
    drop(reader);
    until("and the last one", || !redis.keys().iter().any(|key| key.contains(":b:")));
    assert_eq!(redis.say("ZCARD {test}:g").int(), 0);
}
