//! Trees copied in and out: `cp -a`, `tar`, `rsync`, `rm -rf`, with links, modes and times.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{LIMIT, needs, run_within, sh, shell};

/// For the whole 6,000 inodes of a virtual environment by hand, name one:
/// `DBMOUNT_LIVE_TREE=/path/to/venv cargo test --release --test live copies`.
const TREE: &str = "DBMOUNT_LIVE_TREE";
/// A tree that somebody brought takes longer.
const WHOLE: Duration = Duration::from_secs(1200);

/// Where a tree to copy is, and how long each step may take. It has a Python environment with
/// parts of the standard library in it, and all that is odd.
fn tree(dir: &Path) -> (String, Duration) {
    if let Ok(tree) = std::env::var(TREE) {
        return (tree, WHOLE);
    }
    needs("python3", "python3-venv");
    sh(
        dir,
        "python3 -m venv --without-pip tree
         stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')
         for part in json email importlib unittest xml sqlite3; do
           [ -d $stdlib/$part ] && cp -a $stdlib/$part tree/lib/ || true
         done
         cp $stdlib/s*.py tree/lib/
         cd tree; mkdir -p empty/deeper odd
         ln -s ../lib/json odd/link; ln -s nowhere odd/dangling; ln -s / odd/absolute
         echo '#!/bin/sh' > odd/run; chmod 755 odd/run; echo x > odd/secret; chmod 600 odd/secret
         echo x > odd/suid; chmod 4711 odd/suid; echo x > odd/none; chmod 000 odd/none
         mkdir odd/sticky odd/closed; chmod 1777 odd/sticky; chmod 500 odd/closed
         : > odd/nothing; echo x > odd/.hidden; echo x > odd/a.b.c; echo x > odd/a; echo x > odd/a.b
         echo x > 'odd/with blank'; echo x > 'odd/100%'; echo x > odd/12:30; echo x > odd/%2F
         head -c 2500000 /dev/urandom > odd/large.bin
         touch -d '2001-02-03 04:05:06.789012345' odd/run odd/large.bin odd/sticky
         touch -h -d '1999-12-31 23:59:59.5' odd/link odd/dangling
         touch -d '1980-01-01' empty/deeper empty odd",
    );
    (dir.join("tree").to_str().unwrap().to_owned(), LIMIT)
}

/// Kind, mode, owner, size (of files), time, and target of everything below, for a comparison.
/// Where modes are not asked, a difference is still found by `diff`.
const LIST: &str = "find . ! -name . -printf '%P\\t%y%m %U:%G %T@ %l\\n' | LC_ALL=C sort";

#[test]
fn a_tree_goes_in_and_out_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, limit) = tree(dir.path());
    let server = Server::new();
    let mount = Mount::new(&server);
    let run = |place: &Path, script: &str| run_within(limit, &mut shell(place, script)).ok();
    let inodes = run(Path::new(&tree), "find . | wc -l");
    println!("a tree of {} inodes", inodes.trim());
    let start = std::time::Instant::now();
    run(mount.point(), &format!("cp -a '{tree}' copy"));
    println!("cp -a in: {:?}", start.elapsed());
    let want = run(Path::new(&tree), LIST);
    let differences = |have: &str| {
        let pairs = have.lines().zip(want.lines()).filter(|(have, want)| have != want);
        pairs
            .map(|(have, want)| format!("{have}\n    instead of {want}"))
            .take(10)
            .collect::<Vec<_>>()
    };
    let have = run(&mount.at("copy"), LIST);
    assert!(have == want, "kinds, modes, owners, times and targets: {:#?}", differences(&have));
    run(mount.point(), &format!("diff -r --no-dereference '{tree}' copy"));
    mount.end();

    // All of it is on the server, not only in this mount.
    let mount = Mount::new(&server);
    let have = run(&mount.at("copy"), LIST);
    assert!(have == want, "after a remount: {:#?}", differences(&have));
    let back = dir.path().join("back");
    let start = std::time::Instant::now();
    run(mount.point(), &format!("cp -a copy '{}'", back.display()));
    println!("cp -a back: {:?}", start.elapsed());
    run(dir.path(), &format!("diff -r --no-dereference '{tree}' back"));
    let have = run(&back, LIST);
    assert!(have == want, "and back: {:#?}", differences(&have));

    // Moved as a whole, then removed.
    run(mount.point(), "mv copy moved; ! test -e copy");
    run(mount.point(), &format!("diff -r --no-dereference '{tree}' moved"));
    let start = std::time::Instant::now();
    run(mount.point(), "rm -rf moved");
    println!("rm -rf: {:?}", start.elapsed());
    assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 0);
    mount.end();
    assert_eq!(server.client().everything(), [""; 0], "rm -rf leaves nothing behind");
}

#[test]
fn rsync_moves_nothing_the_second_time() {
    needs("rsync", "rsync");
    let dir = tempfile::tempdir().unwrap();
    let (tree, limit) = tree(dir.path());
    let server = Server::new();
    let mount = Mount::new(&server);
    let sync = format!("rsync -a --itemize-changes '{tree}/' synced/");
    let run = |script: &str| run_within(limit, &mut shell(mount.point(), script)).ok();
    assert!(run(&sync).lines().count() > 100);
    assert_eq!(run(&sync), "", "the second moves nothing");
    assert_eq!(run(&format!("rsync -ac --itemize-changes '{tree}/' synced/")), "", "by contents");
    if std::env::var_os(TREE).is_some() {
        return;
    }
    // One change is one change.
    run("echo y >> synced/odd/a; rm synced/odd/a.b");
    let third = run(&sync);
    let names: Vec<_> = third.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!(names.contains(&"odd/a") && names.contains(&"odd/a.b"), "{third}");
    assert!(names.len() <= 3, "and perhaps their directory's time: {third}");
    assert_eq!(run(&sync), "");
    mount.end();
    let mount = Mount::new(&server);
    let again = run_within(limit, &mut shell(mount.point(), &sync)).ok();
    assert_eq!(again, "", "nor after a remount");
}

#[test]
fn tar_unpacks_and_packs() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, limit) = tree(dir.path());
    let server = Server::new();
    let mount = Mount::new(&server);
    sh(dir.path(), &format!("tar -C '{tree}' -cf in.tar ."));
    let run = |script: &str| run_within(limit, &mut shell(mount.point(), script)).ok();
    let archive = dir.path().join("in.tar");
    run(&format!("mkdir out; cd out; tar xpf '{}'; tar df '{0}'", archive.display()));
    run(&format!("diff -r --no-dereference '{tree}' out"));
    let mut lists = [Path::new(&tree), &mount.at("out")]
        .map(|place| run_within(limit, &mut shell(place, LIST)).ok());
    for list in &mut lists {
        // tar keeps whole seconds, the file's own format no more.
        *list = list.lines().map(whole_seconds).collect();
    }
    assert_eq!(lists[0], lists[1]);
    run(&format!("tar cf '{}' out", dir.path().join("out.tar").display()));
}

/// A line of [`LIST`] with its time cut to seconds.
fn whole_seconds(line: &str) -> String {
    let (head, tail) = line.split_once('.').unwrap_or((line, ""));
    match head.split_once('\t') {
        // The name has a dot, too.
        None => format!("{head}.{}", whole_seconds(tail)),
        Some(_) => format!("{head} {}\n", tail.split_once(' ').unwrap_or_default().1),
    }
}
