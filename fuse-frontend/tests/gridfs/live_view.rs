//! What a driver does shows in a mount that has everything in its caches: pushed by a replica
//! set's change stream, asked for from time to time on a standalone server.

use crate::mount::Mount;
use crate::server::{Server, on_both};

on_both!(a_drivers_changes_show, two_mounts_see_each_other);

/// Each change, and how long it took to show, in milliseconds.
const CHANGES: &str = r#"
root = args[0]
def at(name):
    return os.path.join(root, name)
def shows(what, done):
    print("%s: %.1f ms" % (what, 1000 * until(done, 15)), flush=True)
for n in range(3):
    name = "up%d/file" % n
    assert not os.path.exists(at(name)) and not os.path.exists(at("up%d" % n))
    old = set(os.listdir(root))
    bucket.upload_from_stream(name, b"one")
    shows("an upload", lambda: within(at(name)) == b"one")
    shows("in the listing", lambda: "up%d" % n in os.listdir(root))
    bucket.upload_from_stream(name, b"two, and longer")
    shows("a newer revision", lambda: within(at(name)) == b"two, and longer")
    assert os.stat(at(name)).st_size == 15
    for doc in list(files.find({"filename": name})):
        bucket.rename(doc["_id"], "to%d" % n)
    shows("a rename", lambda: within(at("to%d" % n)) == b"two, and longer" and not os.path.exists(at(name)))
    with open(at("to%d" % n), "a") as file:
        file.write("!")
    assert read("to%d" % n) == b"two, and longer!"
    bucket.upload_from_stream("to%d" % n, b"three")
    shows("a revision of an edited file", lambda: within(at("to%d" % n)) == b"three")
    for doc in list(files.find({"filename": "to%d" % n})):
        bucket.delete(doc["_id"])
    shows("a delete", lambda: not os.path.exists(at("to%d" % n)))
    shows("out of the listing", lambda: "to%d" % n not in os.listdir(root))
"#;

fn a_drivers_changes_show(server: &Server) {
    let mount = Mount::new(server);
    print!("{}", server.python(CHANGES, &[mount.point().to_str().unwrap()]));
    mount.end();
}

fn two_mounts_see_each_other(server: &Server) {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use crate::shell::until;

    let (one, two) = (Mount::new(server), Mount::new(server));
    let read = |mount: &Mount, name: &str| fs::read_to_string(mount.at(name)).unwrap_or_default();
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert!(!to.at("f").exists());
        fs::write(from.at("f"), "first").unwrap();
        let delay = until("a new file", || read(to, "f") == "first");
        println!("a new file: seen by the other mount after {} ms", delay.as_millis());
        fs::write(from.at("f"), "second").unwrap();
        let delay = until("new contents", || read(to, "f") == "second");
        println!("new contents: {} ms", delay.as_millis());
        fs::set_permissions(from.at("f"), PermissionsExt::from_mode(0o640)).unwrap();
        until("a mode", || fs::metadata(to.at("f")).unwrap().permissions().mode() & 0o777 == 0o640);
        fs::create_dir_all(from.at("d/e")).unwrap();
        until("directories", || to.at("d/e").is_dir());
        fs::rename(from.at("f"), from.at("d/e/g")).unwrap();
        until("a rename", || !to.at("f").exists() && read(to, "d/e/g") == "second");
        fs::rename(from.at("d"), from.at("moved")).unwrap();
        until("a directory's rename", || !to.at("d").exists() && read(to, "moved/e/g") == "second");
        fs::hard_link(from.at("moved/e/g"), from.at("h")).unwrap();
        until("a hard link", || read(to, "h") == "second");
        fs::remove_dir_all(from.at("moved")).unwrap();
        fs::remove_file(from.at("h")).unwrap();
        until("removal", || !to.at("moved").exists() && !to.at("h").exists());
        until("an empty listing", || fs::read_dir(to.point()).unwrap().count() == 0);
    }
    // O_EXCL: of two that make one name, one wins.
    for n in 0..20 {
        let made = std::thread::scope(|scope| {
            let threads = [&one, &two].map(|mount| {
                scope.spawn(move || {
                    let mut how = fs::File::options();
                    how.write(true).create_new(true).open(mount.at(format!("x{n}"))).is_ok()
                })
            });
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "x{n}: {made:?}");
    }
    one.end();
    two.end();
    server.checks_clean();
}
