//! Trees in and out: `cp -a`, `rsync -aH`, `tar`, `mv`, `rm -rf`, with links, modes and times.

use std::fs;
use std::time::Instant;

use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::{needs, sh};
use crate::tree::{self, assert_same};

on_both!(
    cp_keeps_everything,
    rsync_moves_nothing_the_second_time,
    tar_unpacks_and_packs,
    a_moved_directory_keeps_what_is_in_it,
);

/// The bytes that drivers read are those of the files, under their paths.
const READ_ALL: &str = r#"
root, count = os.fsencode(args[0]), 0
for doc in bucket.find({"filename": {"$exists": True}}):
    name = doc.filename if isinstance(doc.filename, bytes) else doc.filename.encode()
    with open(os.path.join(root, name), "rb") as file:
        assert file.read() == doc.read(), name
    count += 1
print(count)
"#;

fn cp_keeps_everything(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    let tree = std::path::Path::new(&tree);
    let mount = Mount::new(server);
    println!("{} inodes", sh(tree, "find . | wc -l").trim());
    let start = Instant::now();
    mount.sh(&format!("cp -a '{}' tree", tree.display()));
    println!("cp -a in: {:?}", start.elapsed());
    assert_same(tree, &mount.at("tree"), "right after cp -a");
    mount.end();

    let mount = Mount::new(server);
    assert_same(tree, &mount.at("tree"), "after a remount");
    let names = sh(tree, "find . -type f -printf '%i\\n' | sort -u | wc -l");
    let point = mount.point().to_str().unwrap();
    assert_eq!(server.python(READ_ALL, &[point]), names, "drivers read every file");
    let back = dir.path().join("back");
    mount.sh(&format!("cp -a tree '{}'", back.display()));
    assert_same(tree, &back, "and back");
    mount.sh("rm -rf tree");
    assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 0);
    mount.end();
    server.checks_clean();
}

fn rsync_moves_nothing_the_second_time(server: &Server) {
    needs("rsync", "rsync");
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    let mount = Mount::new(server);
    let sync = format!("rsync -aHX --modify-window=-1 --itemize-changes '{tree}/' synced/");
    assert!(mount.sh(&sync).lines().count() > 400);
    assert_eq!(mount.sh(&sync), "", "the second moves nothing");
    assert_eq!(mount.sh(&sync.replace("-aHX", "-aHXc")), "", "by contents");
    assert_same(tree.as_ref(), &mount.at("synced"), "after rsync");
    // One change is one change.
    mount.sh("echo y >> synced/odd/.hidden; rm synced/odd/a.b.c");
    let third = mount.sh(&sync);
    assert!(third.contains("odd/.hidden") && third.contains("odd/a.b.c"), "{third}");
    assert!(third.lines().count() <= 3, "and perhaps their directory's time: {third}");
    mount.end();
    let mount = Mount::new(server);
    assert_eq!(mount.sh(&sync), "", "nor after a remount");
    mount.end();
    server.checks_clean();
}

fn tar_unpacks_and_packs(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // POSIX archives keep the nanoseconds.
    sh(dir.path(), "tar -C tree --format=posix -cf in.tar .");
    let mount = Mount::new(server);
    mount.sh(&format!("mkdir out; tar -C out -xpf '{0}'; tar -C out -df '{0}'", at("in.tar")));
    assert_same(tree.as_ref(), &mount.at("out"), "unpacked on the mount");
    mount.sh(&format!("tar -C out --format=posix -cf '{}' .", at("out.tar")));
    sh(dir.path(), "mkdir again; tar -C again -xpf out.tar");
    assert_same(tree.as_ref(), &dir.path().join("again"), "packed on the mount");
    mount.end();
    server.checks_clean();
}

fn a_moved_directory_keeps_what_is_in_it(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    let mount = Mount::new(server);
    // A binary filename has no place in a server's string expression.
    sh(tree.as_ref(), "rm odd/*not?utf-8");
    mount.sh(&format!("cp -a '{tree}' tree; mkdir to; mv tree to/moved; ! test -e tree"));
    assert_same(tree.as_ref(), &mount.at("to/moved"), "moved");
    mount.sh("mv to/moved/lib/a to/moved/lib/z; mv to/moved/lib/z to/moved/lib/a; mv to there");
    mount.end();
    let mount = Mount::new(server);
    let point = mount.point().to_str().unwrap();
    let names = sh(tree.as_ref(), "find . -type f -printf '%i\\n' | sort -u | wc -l");
    // What the first mount has not come to is the second one's to finish.
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut found = server.python(READ_ALL, &[point]);
    while found != names && std::time::Instant::now() < give_up {
        found = server.python(READ_ALL, &[point]);
    }
    assert_eq!(found, names, "drivers find every file at its new path");
    mount.end();
    server.checks_clean();
}
