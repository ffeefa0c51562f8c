//! `dbmount fsck`, `gc` and `info` on a real server: what they print, and their exit statuses.

use crate::mount::{Mount, dbmount};
use crate::server::Server;
use crate::shell::until;
use crate::volume;

const CLEAN: Option<i32> = Some(0);
/// fsck(8): corrected, left uncorrected, operational error, usage error.
const CORRECTED: Option<i32> = Some(1);
const UNCORRECTED: Option<i32> = Some(4);
const OPERATIONAL: Option<i32> = Some(8);
const USAGE: Option<i32> = Some(16);

#[test]
fn a_volume_in_use_is_clean_and_described() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("mkdir -p a/b; echo one > a/one; ln a/one a/b/same; ln -s b a/link; head -c 300000 /dev/zero > big");
    let checked = dbmount(&["fsck", &url]);
    assert_eq!(checked.status, CLEAN, "{}{}", checked.out, checked.err);
    assert!(checked.out.contains("6 inodes, 3 of them directories"), "{}", checked.out);
    assert!(checked.out.contains("1 mount is alive"), "{}", checked.out);
    let told = dbmount(&["info", "--json", &url]).ok();
    assert!(told.contains("\"volume\":\"test\"") && told.contains("\"inodes\":6"), "{told}");
    let told = dbmount(&["info", &url]).ok();
    assert!(told.contains("alive, 0 dead"), "{told}");
    mount.end();
    assert_eq!(dbmount(&["fsck", &url]).status, CLEAN);
}

#[test]
fn damage_is_named_mended_and_then_gone() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("mkdir d; echo kept > d/file; echo other > d/other");
    mount.end();
    let mut redis = server.client();
    let dir =
        String::from_utf8(redis.say("ZRANGE {test}:d:1 0 -1").list()[0].clone().bytes()).unwrap();
    let dir = dir.strip_prefix("d\0d").unwrap().to_owned();
    redis.say(&format!("DEL {{test}}:d:{dir}"));
    redis.say("HSET {test}:usage bytes 1");

    let checked = dbmount(&["fsck", &url]);
    assert_eq!(checked.status, UNCORRECTED, "{}", checked.out);
    assert!(checked.out.contains("has no name, put into lost+found"), "{}", checked.out);
    assert!(checked.out.contains("the counter bytes is 1 and should be 11"), "{}", checked.out);
    assert_eq!(dbmount(&["fsck", &url]).out, checked.out, "nothing is changed unasked");

    let mended = dbmount(&["fsck", "--repair", &url]);
    assert_eq!(mended.status, CORRECTED, "{}{}", mended.out, mended.err);
    assert_eq!(dbmount(&["fsck", &url]).status, CLEAN);
    let mount = Mount::of(&url, &[], &[]);
    assert_eq!(mount.sh("cat lost+found/* | sort"), "kept\nother\n");
}

#[test]
fn a_living_mount_is_not_mended_under_its_feet() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    server.client().say("HSET {test}:usage bytes 1");
    let refused = dbmount(&["fsck", "--repair", &url]);
    assert_eq!(refused.status, OPERATIONAL, "{}", refused.out);
    assert!(refused.err.contains("1 mount is alive; unmount first"), "{}", refused.err);
    drop(mount);
    assert_eq!(dbmount(&["fsck", "--repair", "--force", &url]).status, CORRECTED);
}

#[test]
fn what_cannot_be_checked_is_said() {
    let server = Server::new();
    let none = format!("{}?volume=none", server.url());
    let said = dbmount(&["fsck", &none]);
    assert_eq!(said.status, OPERATIONAL);
    assert!(said.err.contains("there is no volume none here"), "{}", said.err);
    assert_eq!(dbmount(&["fsck", &server.url()]).status, USAGE, "no volume is named");
    let gone = dbmount(&["fsck", "unix:///nonexistent/socket?volume=test"]);
    assert_eq!(gone.status, OPERATIONAL, "{}", gone.err);
    server.client().say("HSET {none}:super v 9 uuid 0");
    let newer = dbmount(&["fsck", &none]);
    assert!(newer.err.contains("use a newer dbmount"), "{}", newer.err);
}

#[test]
fn what_removed_files_leave_is_reclaimed_at_once() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    mount.sh("head -c 3000000 /dev/urandom > big; sync big");
    // Its blocks wait in the queue when it dies right after.
    mount.sh("rm big");
    drop(mount);
    dbmount(&["gc", &url]).ok();
    let blocks = |server: &Server| {
        let keys = server.client().keys();
        keys.iter().filter(|key| key.starts_with("test:b:")).count()
    };
    until("no block is left", || blocks(&server) == 0);
    assert_eq!(dbmount(&["fsck", &url]).status, CLEAN);
}
