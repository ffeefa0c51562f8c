//! Other clients of the server: what they do shows in the mount, although the kernel had looked
//! before; what the mount writes is theirs when `close` returned.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::time::Duration;

use crate::mount::Mount;
use crate::resp::Client;
use crate::server::Server;
use crate::shell::within;

/// Generous; what was measured is printed.
const SOON: Duration = Duration::from_secs(2);

/// Does something as another client, and measures how long the mount takes to show it.
#[track_caller]
fn shows(client: &mut Client, command: &str, seen: impl FnMut() -> bool) {
    client.say(command);
    let delay = within(SOON, command, seen);
    println!("{command}: seen after {} µs", delay.as_micros());
}

fn text(mount: &Mount, name: &str) -> String {
    fs::read_to_string(mount.at(name)).unwrap_or_else(|error| error.to_string())
}

fn names(mount: &Mount, dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(mount.at(dir)) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A push names a key; the listing has it when it was looked at, a name that is asked for at once.
#[track_caller]
fn lists(mount: &Mount, dir: &str, want: &[&str]) {
    within(SOON, &format!("{dir:?} lists {want:?}"), || names(mount, dir) == want);
}

#[test]
fn what_others_do_shows_although_the_kernel_looked_before() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();

    // The kernel knows now that none of these is there, and what the root lists.
    for absent in ["a", "a/b", "h.f", "s", "t", "gone"] {
        assert!(!mount.at(absent).exists());
    }
    assert_eq!(names(&mount, ""), [""; 0]);

    shows(&mut client, "SET a:b 1", || text(&mount, "a/b") == "1");
    lists(&mount, "", &["a"]);
    lists(&mount, "a", &["b"]);
    shows(&mut client, "HSET h f v", || text(&mount, "h.f") == "v");
    lists(&mount, "", &["a", "h.f"]);

    // Changed: the size and the contents were in the kernel's caches.
    assert_eq!(fs::metadata(mount.at("a/b")).unwrap().len(), 1);
    shows(&mut client, "SET a:b longer", || text(&mount, "a/b") == "longer");
    assert_eq!(fs::metadata(mount.at("a/b")).unwrap().len(), 6);
    shows(&mut client, "SET a:b LONGER", || text(&mount, "a/b") == "LONGER");
    shows(&mut client, "APPEND a:b !", || text(&mount, "a/b") == "LONGER!");
    shows(&mut client, "HSET h f w", || text(&mount, "h.f") == "w");
    shows(&mut client, "HSET h g 2", || text(&mount, "h.g") == "2");
    lists(&mount, "", &["a", "h.f", "h.g"]);

    // A file that is open, read before, and changed by another.
    let mut open = File::open(mount.at("a/b")).unwrap();
    let mut whole = String::new();
    open.read_to_string(&mut whole).unwrap();
    shows(&mut client, "SETRANGE a:b 0 l", || {
        let mut whole = String::new();
        open.rewind().unwrap();
        open.read_to_string(&mut whole).unwrap();
        whole == "lONGER!"
    });
    drop(open);

    shows(&mut client, "RENAME a:b s", || {
        !mount.at("a/b").exists() && text(&mount, "s") == "lONGER!"
    });
    assert!(!mount.at("a").exists(), "a directory lives as long as keys imply it");
    shows(&mut client, "HDEL h g", || !mount.at("h.g").exists());
    shows(&mut client, "DEL h", || !mount.at("h.f").exists());
    lists(&mount, "", &["s"]);

    shows(&mut client, "RPUSH t one", || text(&mount, "t") == "one\n");
    shows(&mut client, "RPUSH t two", || text(&mount, "t") == "one\ntwo\n");

    // Type changes: a string becomes a directory and a directory a string.
    shows(&mut client, "SET s:below 1", || text(&mount, "s/below") == "1");
    lists(&mount, "s", &["%self", "below"]);
    assert_eq!(text(&mount, "s/%self"), "lONGER!");
    shows(&mut client, "DEL s:below", || text(&mount, "s") == "lONGER!");

    // All at once, and below directories too.
    for n in 0..100 {
        client.run(&["SET", &format!("many:{n}"), "x"]);
    }
    within(SOON, "a hundred keys", || names(&mount, "many").len() == 100);
    shows(&mut client, "FLUSHDB", || names(&mount, "").is_empty());
    assert!(!mount.at("many/7").exists());
    assert!(!mount.at("s").exists());
    shows(&mut client, "SET many:7 again", || text(&mount, "many/7") == "again");
    shows(&mut client, "FLUSHALL", || !mount.at("many").exists());
}

#[test]
fn what_expires_goes_away() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();
    client.say("SET short x");
    client.say("SET dir:short x");
    client.say("HSET h f x");
    within(SOON, "they show", || names(&mount, "") == ["dir", "h.f", "short"]);
    assert_eq!(text(&mount, "short"), "x");
    client.say("PEXPIRE dir:short 300");
    client.say("PEXPIRE h 300");
    client.say("PEXPIRE short 300");
    // Nobody touches the keys meanwhile but the mount itself, by looking.
    let delay = within(SOON, "it expires", || !mount.at("short").exists());
    println!("EXPIRE of 300 ms: seen after {} ms", delay.as_millis());
    assert!(delay >= Duration::from_millis(250), "not before its time: {delay:?}");
    within(SOON, "the listing is empty", || names(&mount, "").is_empty());
    assert!(!mount.at("dir/short").exists() && !mount.at("h.f").exists());
}

#[test]
fn what_is_written_is_another_clients_when_close_returned() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();
    for n in 0..50 {
        let (name, value) = (format!("f{n}"), format!("value {n}"));
        let mut file = File::create(mount.at(&name)).unwrap();
        file.write_all(value.as_bytes()).unwrap();
        drop(file);
        assert_eq!(client.get(&name), value.as_bytes());
        fs::rename(mount.at(&name), mount.at(format!("g{n}"))).unwrap();
        assert_eq!(client.get(format!("g{n}")), value.as_bytes());
    }
    // Larger than what one write brings.
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n >> 8) as u8).collect();
    fs::write(mount.at("large"), &large).unwrap();
    assert!(client.get("large") == large);
    fs::write(mount.at("field.large"), &large).unwrap();
    assert!(client.say("HGET field large").bytes() == large);
    mount.sh("rm -r *");
    mount.end();
    assert_eq!(client.everything(), [""; 0]);
}

#[test]
fn a_plain_file_is_one_key_and_nothing_else() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let mut client = server.client();
    mount.sh("echo x > f");
    assert_eq!(client.keys(), ["f"]);
    assert_eq!(client.get("f"), b"x\n");
    mount.sh("echo y > f; echo z >> f; cat f; ls -l");
    assert_eq!(client.keys(), ["f"]);
    assert_eq!(client.get("f"), b"y\nz\n");
    mount.end();
    assert_eq!(client.everything(), ["f"], "the end of a mount leaves nothing behind either");
}

#[test]
fn what_is_deleted_while_it_is_rewritten_is_there_or_the_program_is_told() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::new(&server);
    for round in 0..100 {
        client.run(&["SET", "h", "string"]);
        client.run(&["SET", "h.f", "string"]);
        within(SOON, "the old one", || text(&mount, "h.f") == "string");
        let mut rewritten = File::create(mount.at("h.f")).unwrap();
        rewritten.write_all(b"anew").unwrap();
        client.say("DEL h h.f");
        let synced = rewritten.sync_all();
        drop(rewritten);
        match synced {
            // No string is beside it any more: made anew it is a field, and reads as one. One who
            // opens it before the deletion is dealt with may be told ESTALE.
            Ok(()) => {
                assert_eq!(client.say("HGET h f").bytes(), b"anew", "round {round}");
                within(SOON, "the new one", || text(&mount, "h.f") == "anew");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(116), "ESTALE: {error}");
                assert!(!mount.at("h.f").exists(), "round {round}");
            }
        }
        client.say("DEL h");
    }
}
