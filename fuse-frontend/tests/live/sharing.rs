//! Two mounts of one server: each sees what the other does, and neither undoes it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::within;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn two_mounts_see_each_others_changes() {
    let server = Server::new();
    let (one, two) = (Mount::new(&server), Mount::new(&server));
    let read = |mount: &Mount, name: &str| fs::read_to_string(mount.at(name)).unwrap_or_default();

    // Both ways, and with what the other looked up before in its kernel's caches.
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert!(!to.at("f").exists());
        fs::write(from.at("f"), "first").unwrap();
        let delay = within(SOON, "a new file", || read(to, "f") == "first");
        println!("a new file: seen by the other mount after {} µs", delay.as_micros());
        fs::write(from.at("f"), "second").unwrap();
        within(SOON, "new contents", || read(to, "f") == "second");
        File::options().append(true).open(from.at("f")).unwrap().write_all(b" and more").unwrap();
        within(SOON, "appended contents", || read(to, "f") == "second and more");
        File::options().write(true).open(from.at("f")).unwrap().set_len(3).unwrap();
        within(SOON, "truncated", || fs::metadata(to.at("f")).unwrap().len() == 3);
        assert_eq!(read(to, "f"), "sec");

        fs::set_permissions(from.at("f"), PermissionsExt::from_mode(0o640)).unwrap();
        within(SOON, "a mode", || fs::metadata(to.at("f")).unwrap().mode() == 0o100_640);
        assert!(!to.at("d/e").exists());
        fs::create_dir_all(from.at("d/e")).unwrap();
        within(SOON, "directories", || to.at("d/e").is_dir());
        std::os::unix::fs::symlink("../f", from.at("d/link")).unwrap();
        within(SOON, "a symlink", || read(to, "d/link") == "sec");
        fs::rename(from.at("f"), from.at("d/e/g")).unwrap();
        within(SOON, "a rename", || !to.at("f").exists() && read(to, "d/e/g") == "sec");
        assert_eq!(fs::metadata(to.at("d/e/g")).unwrap().mode(), 0o100_640);
        fs::rename(from.at("d"), from.at("moved")).unwrap();
        within(SOON, "a directory's rename", || {
            !to.at("d").exists() && read(to, "moved/e/g") == "sec"
        });
        fs::remove_dir_all(from.at("moved")).unwrap();
        within(SOON, "removal", || !to.at("moved").exists());
        assert_eq!(fs::read_dir(to.point()).unwrap().count(), 0);
    }
    one.end();
    two.end();
    assert_eq!(server.client().everything(), [""; 0]);
}

#[test]
fn appends_and_creations_of_two_mounts_are_all_there() {
    let server = Server::new();
    let mounts = [Mount::new(&server), Mount::new(&server)];
    // O_EXCL: of two that make one name, one wins.
    let mut made = [0; 2];
    for n in 0..50 {
        let wins = mounts.each_ref().map(|mount| {
            let mut how = File::options();
            how.write(true).create_new(true).open(mount.at(format!("x{n}"))).is_ok()
        });
        assert_eq!(wins.iter().filter(|won| **won).count(), 1, "x{n}: {wins:?}");
        made[usize::from(wins[1])] += 1;
    }
    // And at the same time.
    let winners: Vec<usize> = std::thread::scope(|scope| {
        let threads = mounts.each_ref().map(|mount| {
            scope.spawn(move || {
                let made = (0..100).filter(|n| {
                    let mut how = File::options();
                    how.write(true).create_new(true).open(mount.at(format!("y{n}"))).is_ok()
                });
                made.count()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(winners.iter().sum::<usize>(), 100, "{winners:?}");
    for mount in &mounts {
        within(SOON, "150 files", || fs::read_dir(mount.point()).unwrap().count() == 150);
    }
}

#[test]
fn close_to_open_holds_between_mounts() {
    let server = Server::new();
    let (one, two) = (Mount::new(&server), Mount::new(&server));
    for n in 0..100u32 {
        fs::write(one.at("shared"), format!("{n}")).unwrap();
        // No retry: once this mount can see it at all, opening it after `close` shows the close.
        let read = || fs::read_to_string(two.at("shared")).unwrap_or_default();
        let delay = within(SOON, "the other's close", || read() == format!("{n}"));
        assert!(delay < Duration::from_millis(500), "{delay:?}");
    }
    // A file that is open in one and written by the other.
    let mut open = File::open(two.at("shared")).unwrap();
    let mut before = String::new();
    open.read_to_string(&mut before).unwrap();
    assert_eq!(before, "99");
    fs::remove_file(one.at("shared")).unwrap();
    within(SOON, "removal", || !two.at("shared").exists());
}
