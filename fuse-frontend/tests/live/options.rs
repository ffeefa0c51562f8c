//! The choices of `dbmount mount`, each on a real server.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
use rustix::io::Errno;

use crate::mount::{Mount, dbmount, mounted_as, take_away};
use crate::server::Server;
use crate::shell::{until, within};

/// What the kernel makes of an operation that fails.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn names(mount: &Mount) -> Vec<String> {
    let entries = fs::read_dir(mount.point()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn xattr(path: &std::path::Path, name: &str) -> Result<String, Errno> {
    let mut value = [0u8; 256];
    let length = getxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).into_owned())
}

#[test]
fn read_only_changes_nothing() {
    let server = Server::new();
    let mut client = server.client();
    client.say("SET s x");
    client.say("HSET h f x");
    for ro in [&["--read-only"][..], &["-o", "ro"]] {
        let mount = Mount::with(&server, ro);
        assert_eq!(fs::read_to_string(mount.at("s")).unwrap(), "x");
        assert_eq!(errno(fs::write(mount.at("s"), "y")), 30, "EROFS");
        assert_eq!(errno(fs::write(mount.at("new"), "y")), 30);
        assert_eq!(errno(fs::remove_file(mount.at("h.f"))), 30);
        assert_eq!(errno(fs::create_dir(mount.at("d"))), 30);
        assert_eq!(errno(fs::rename(mount.at("s"), mount.at("t"))), 30);
        assert!(mounted_as(mount.point()).unwrap()[2].split(',').any(|option| option == "ro"));
        // What others change shows all the same.
        client.say("SET s y");
        within(Duration::from_secs(2), "a change", || fs::read(mount.at("s")).unwrap() == b"y");
        client.say("SET s x");
        mount.end();
        assert_eq!(client.everything(), ["h", "s"]);
    }
}

#[test]
fn a_prefix_is_a_keyspace_of_its_own() {
    let server = Server::new();
    let mut client = server.client();
    for key in ["user:1:name", "user:2", "username", "other"] {
        client.run(&["SET", key, "x"]);
    }
    for prefix in ["user:", "user"] {
        let mount = Mount::with(&server, &["--prefix", prefix]);
        assert_eq!(names(&mount), ["1", "2"], "whole components only");
        fs::write(mount.at("3"), "new").unwrap();
        fs::create_dir(mount.at("empty")).unwrap();
        assert_eq!(client.get("user:3"), b"new");
        client.say("SET user:4 theirs");
        client.say("SET not:shown x");
        within(Duration::from_secs(2), "a foreign key", || {
            mount.at("4").exists() && names(&mount) == ["1", "2", "3", "4", "empty"]
        });
        mount.sh("rm 3 4; rmdir empty");
        mount.end();
        client.say("DEL not:shown");
        assert_eq!(client.everything(), ["other", "user:1:name", "user:2", "username"]);
    }
}

#[test]
fn another_delimiter_makes_other_directories() {
    let server = Server::new();
    let mut client = server.client();
    client.say("SET a/b/c 1");
    client.say("SET x:y 2");
    let mount = Mount::with(&server, &["--delimiter", "/"]);
    assert_eq!(names(&mount), ["a", "x:y"]);
    assert_eq!(fs::read_to_string(mount.at("a/b/c")).unwrap(), "1");
    fs::create_dir(mount.at("new")).unwrap();
    fs::write(mount.at("new/f"), "3").unwrap();
    assert_eq!(client.get("new/f"), b"3");
    mount.end();
    let mount = Mount::with(&server, &["--delimiter", "|"]);
    assert_eq!(fs::read_to_string(mount.at("a%2Fb%2Fc")).unwrap(), "1");
}

#[test]
fn ignored_names_cannot_be_made() {
    let server = Server::new();
    server.client().say("SET .DS_Store theirs");
    let mount = Mount::with(&server, &["--ignore", ".DS_Store", "--ignore", "._*"]);
    assert_eq!(errno(fs::write(mount.at("._x"), "y")), 1, "EPERM");
    assert_eq!(errno(fs::create_dir(mount.at("._d"))), 1);
    fs::write(mount.at("x"), "y").unwrap();
    assert_eq!(errno(fs::rename(mount.at("x"), mount.at("._x"))), 1);
    assert_eq!(fs::read_to_string(mount.at(".DS_Store")).unwrap(), "theirs", "what is there shows");
}

#[test]
fn attributes_of_a_session_leave_no_keys() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::with(&server, &["--attrs", "session"]);
    mount.sh("echo x > f; chmod 600 f; touch -d @1000000000 f; mkdir d; ln -s f link
         test \"$(stat -c '%a %Y' f)\" = '600 1000000000'; cat link; ls d");
    assert_eq!(client.keys(), ["f"], "nothing of it is on the server");
    mount.end();
    assert_eq!(client.everything(), ["f"]);
    let mount = Mount::new(&server);
    assert_eq!(fs::metadata(mount.at("f")).unwrap().mode(), 0o100_644);
    assert_eq!(names(&mount), ["f"]);
}

#[test]
fn collections_can_be_deleted_when_that_is_allowed() {
    let server = Server::new();
    let mut client = server.client();
    client.say("RPUSH list a");
    client.say("XADD d:stream 1-0 f v");
    let mount = Mount::with(&server, &["--allow-delete"]);
    assert_eq!(errno(fs::write(mount.at("list"), "x")), 13, "writing stays EACCES");
    fs::remove_file(mount.at("list")).unwrap();
    mount.sh("rm -r d");
    assert_eq!(client.keys(), [""; 0]);
}

#[test]
fn suffixes_make_strings() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::with(&server, &["--string-suffix", ".json", "--string-suffix", ".txt"]);
    mount.sh("echo 1 > a.json; echo 2 > b.txt; echo 3 > c.md");
    assert_eq!(client.keys(), ["a.json", "b.txt", "c"]);
    assert_eq!(client.get("a.json"), b"1\n");
    assert_eq!(client.say("TYPE c").bytes(), b"hash");
}

#[test]
fn owner_and_mode_of_what_has_none() {
    let server = Server::new();
    server.client().say("SET d:f x");
    let more = ["--uid", "1234", "--gid", "2345", "--umask", "027", "-o", "allow_other"];
    let mount = Mount::with(&server, &more);
    until("it is there", || mount.at("d/f").exists());
    let shown = mount.sh("stat -c '%u:%g %a' . d d/f");
    assert_eq!(shown, "1234:2345 750\n1234:2345 750\n1234:2345 640\n");
    // What somebody makes is theirs, and kept.
    mount.sh("echo x > mine; chown 7:8 mine");
    assert_eq!(mount.sh("stat -c '%u:%g' mine"), "7:8\n");
    mount.end();
    let mount = Mount::with(&server, &more);
    assert_eq!(mount.sh("stat -c '%u:%g' mine"), "7:8\n");
}

#[test]
fn df_shows_the_servers_figures() {
    let server = Server::with(&["--maxmemory", "64mb"]);
    let mut client = server.client();
    for n in 0..100 {
        client.run(&["SET", &format!("k{n}"), &"x".repeat(10_000)]);
    }
    let mount = Mount::new(&server);
    let figures = rustix::fs::statvfs(mount.point()).unwrap();
    let (total, free) = (figures.f_blocks * figures.f_frsize, figures.f_bfree * figures.f_frsize);
    assert_eq!(total, 64 << 20, "maxmemory is the size");
    let used = total - free;
    assert!((1_000_000..16_000_000).contains(&used), "used_memory is what is used: {used}");
    assert_eq!(figures.f_files - figures.f_ffree, 100, "keys are the files");
    assert_eq!(figures.f_namemax, 255);
    assert!(mount.sh("df -h .").contains("64M"));
}

#[test]
fn what_redis_knows_of_a_value_is_an_xattr() {
    let server = Server::new();
    let mut client = server.client();
    client.say("SET s 12345 PX 100000");
    client.say("HSET h f abc");
    client.say("RPUSH l a b");
    let mount = Mount::new(&server);
    let (s, h, l) = (mount.at("s"), mount.at("h.f"), mount.at("l"));
    assert_eq!(xattr(&s, "user.redis.type").unwrap(), "string");
    assert_eq!(xattr(&s, "user.redis.encoding").unwrap(), "int");
    assert_eq!(xattr(&h, "user.redis.type").unwrap(), "hash");
    assert_eq!(xattr(&l, "user.redis.type").unwrap(), "list");
    let ttl: f64 = xattr(&s, "user.redis.ttl").unwrap().parse().unwrap();
    assert!((90.0..=100.0).contains(&ttl), "in seconds: {ttl}");
    assert_eq!(xattr(&h, "user.redis.ttl"), Err(Errno::NODATA), "none is none");
    for (path, text) in [(&s, "12345"), (&h, "abc"), (&l, "a\nb\n")] {
        let sum = crate::shell::sh(mount.point(), &format!("printf '{text}' | sha1sum"));
        assert_eq!(xattr(path, "user.redis.sha1").unwrap(), sum.split(' ').next().unwrap());
    }
    // A copy of the file must not try to set what the server makes up.
    assert_eq!(listxattr(&s, &mut [0u8; 64][..]), Ok(0), "it is not listed");
    // They are the server's; others are ours, and stay.
    let refused = setxattr(&s, "user.redis.type", b"x", XattrFlags::empty());
    assert!(refused.is_err(), "what the server says cannot be set");
    setxattr(&s, "user.mine", b"kept", XattrFlags::empty()).unwrap();
    assert_eq!(listxattr(&s, &mut [0u8; 64][..]), Ok("user.mine\0".len()));
    mount.end();
    let mount = Mount::new(&server);
    assert_eq!(xattr(&mount.at("s"), "user.mine").unwrap(), "kept");
    assert!((90..=100).contains(&client.say("TTL s").int()), "the TTL is kept");
}

#[test]
fn in_the_background_by_default() {
    let server = Server::new();
    server.client().say("SET f x");
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().canonicalize().unwrap().join("mnt");
    fs::create_dir(&point).unwrap();
    let (shown, log) = (point.to_str().unwrap(), dir.path().join("log"));
    let told = dbmount(&["mount", "--log", log.to_str().unwrap(), &server.url(), shown]);
    // Whatever fails below, it does not stay.
    struct Gone<'a>(&'a std::path::Path);
    impl Drop for Gone<'_> {
        fn drop(&mut self) {
            take_away(self.0);
        }
    }
    let _gone = Gone(&point);
    told.ok();
    assert_eq!(fs::read_to_string(point.join("f")).unwrap(), "x", "it answers when that returned");
    fs::write(point.join("g"), "y").unwrap();
    let [source, kind, options] = mounted_as(&point).unwrap();
    assert_eq!(kind, "fuse.dbmount");
    assert_eq!(source, server.url());
    assert!(options.contains("default_permissions"), "{options}");
    dbmount(&["umount", shown]).ok();
    assert!(mounted_as(&point).is_none());
    assert_eq!(server.client().get("g"), b"y");
    until("the last word is in the log", || {
        fs::read_to_string(&log).unwrap().contains("everything is written back")
    });
}
