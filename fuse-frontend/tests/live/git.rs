//! What redisfuse called done: git's whole life in a keyspace, files beside files of longer
//! names, a compiler, empty directories, and writes in the middle of values.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::mount::Mount;
use crate::resp::Value;
use crate::server::Server;
use crate::shell::{needs, sh};

/// A file's permission bits.
fn mode(path: impl AsRef<std::path::Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_repository_lives_across_mounts() {
    needs("git", "git");
    let server = Server::new();
    let mount = Mount::new(&server);
    mount.sh("echo hello > hello; echo hi > hi
         git init -q -b main; git add *; git commit -q -m first
         git fsck --full --strict");
    // Modes that git keeps, and a file that differs from the defaults in nothing else.
    mount.sh("printf '#!/bin/sh\\necho ran\\n' > run.sh; chmod 755 run.sh
         mkdir -p lib/deep; echo deep > lib/deep/file.c; ln -s lib/deep/file.c link
         git add -A; git commit -q -m second; git gc -q; git tag v1; ./run.sh");
    assert_eq!(mount.sh("git status --porcelain"), "");

    let elsewhere = tempfile::tempdir().unwrap();
    let clone = format!(
        "git clone -q '{}' clone; cd clone; git fsck --full --strict; cat hello lib/deep/file.c",
        mount.point().display()
    );
    assert_eq!(sh(elsewhere.path(), &clone), "hello\ndeep\n");

    // And the other way: a push into the keyspace.
    sh(
        &elsewhere.path().join("clone"),
        "git checkout -q -b side; echo more > more.txt; git add -A; git commit -q -m third
         git push -q origin side",
    );
    assert_eq!(mount.sh("git log --format=%s side -1"), "third\n");
    mount.end();

    let mount = Mount::new(&server);
    mount.sh("git fsck --full --strict");
    assert_eq!(mount.sh("git status --porcelain"), "", "a remount changes nothing git looks at");
    assert_eq!(mode(mount.at("run.sh")), 0o755, "modes are kept");
    assert_eq!(mode(mount.at("hello")), 0o644);
    assert_eq!(mount.sh("./run.sh; cat link"), "ran\ndeep\n");
    assert_eq!(mount.sh("git merge -q side; cat more.txt"), "more\n");
    mount.end();
}

#[test]
fn a_name_with_an_extension_is_a_field_unless_its_bare_key_is_no_hash() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();

    mount.sh("echo hello > hello; echo hello > hello.hello");
    assert_eq!(mount.sh("cat hello.hello"), "hello\n");
    assert_eq!(client.get("hello"), b"hello\n");
    assert_eq!(client.get("hello.hello"), b"hello\n", "beside a string it is a string");
    assert_eq!(client.keys(), ["hello", "hello.hello"]);

    client.say("FLUSHDB");
    crate::shell::until("the flush shows", || !mount.at("hello").exists());
    mount.sh("echo hello > hello.hello");
    assert_eq!(mount.sh("cat hello.hello; ls"), "hello\nhello.hello\n");
    assert_eq!(
        client.say("HGETALL hello").list(),
        [Value::Text(b"hello".to_vec()), Value::Text(b"hello\n".to_vec())]
    );
    assert_eq!(client.keys(), ["hello"], "without it, a field of a hash");

    // And then the file `hello` has room in that hash, as the field without a name.
    mount.sh("echo hi > hello");
    assert_eq!(mount.sh("cat hello hello.hello; ls"), "hi\nhello\nhello\nhello.hello\n");
    assert_eq!(client.run(&["HGET", "hello", ""]).bytes(), b"hi\n");
}

#[test]
fn a_compiler_makes_its_output_beside_its_source() {
    needs("cc", "gcc");
    let server = Server::new();
    let mount = Mount::new(&server);
    mount
        .sh("printf '#include <stdio.h>\\nint main(void) { puts(\"made\"); return 0; }\\n' > foo.c
         cc -o foo foo.c");
    assert_eq!(
        mount.sh("./foo; cc -c foo.c; cc -o foo foo.o; ./foo; ls"),
        "made\nmade\nfoo\nfoo.c\nfoo.o\n"
    );
    assert_eq!(server.client().say("TYPE foo").bytes(), b"hash");
    mount.end();
    let mount = Mount::new(&server);
    assert_eq!(mount.sh("./foo"), "made\n", "it is executable after a remount too");
}

#[test]
fn empty_directories_survive_a_remount() {
    let server = Server::new();
    let mount = Mount::new(&server);
    mount.sh("mkdir -p key1/key2/key3/key4; mkdir -m 700 private");
    mount.end();
    let mount = Mount::new(&server);
    assert!(mount.at("key1/key2/key3/key4").is_dir());
    assert_eq!(mount.sh("ls -A key1/key2/key3/key4; find key1 | wc -l").trim(), "4");
    assert_eq!(mode(mount.at("private")), 0o700);
    // A directory that keys imply lives as long as they do, or as it was made.
    mount.sh("echo x > key1/key2/key3/key4/f; rm key1/key2/key3/key4/f");
    assert!(mount.at("key1/key2/key3/key4").is_dir(), "it was made; its last file is not its end");
    mount.sh("rmdir -p key1/key2/key3/key4; rmdir private");
    mount.end();
    assert_eq!(server.client().everything(), [""; 0], "nothing of them is left behind");
}

#[test]
fn writes_in_the_middle_change_only_what_they_write() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();
    client.run(&["SET", "text", "0123456789"]);
    client.run(&["HSET", "h", "f", "0123456789", "g", "other"]);
    for file in ["text", "h.f"] {
        let dd = format!("printf abc | dd of={file} bs=1 seek=4 conv=notrunc status=none");
        mount.sh(&dd);
        assert_eq!(mount.sh(&format!("cat {file}")), "0123abc789");
    }
    assert_eq!(client.get("text"), b"0123abc789");
    assert_eq!(client.say("HGET h f").bytes(), b"0123abc789");
    assert_eq!(client.say("HGET h g").bytes(), b"other");

    // Beyond the end: a hole is zeros.
    for file in ["text", "h.f"] {
        mount.sh(&format!("printf Z | dd of={file} bs=1 seek=12 conv=notrunc status=none"));
        assert_eq!(fs::read(mount.at(file)).unwrap(), b"0123abc789\0\0Z");
    }
    assert_eq!(client.get("text"), b"0123abc789\0\0Z");
    assert_eq!(client.say("HGET h f").bytes(), b"0123abc789\0\0Z");
}
