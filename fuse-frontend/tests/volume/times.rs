//! Access times: `relatime`, and what the other options of mount(8) make of it.

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::until;
use crate::volume;

/// Past the kernel's cache, which does not say who reads from it.
const READ: &str = "dd if=f of=/dev/null iflag=direct status=none";

fn atime(mount: &Mount, of: &str) -> String {
    mount.sh(&format!("stat -c %x {of}"))
}

#[test]
fn access_times_follow_changes() {
    let server = Server::new();
    let url = volume(&server);
    let (mount, other) = (Mount::of(&url, &[], &[]), Mount::of(&url, &[], &[]));
    mount.sh("echo text >f; touch -a -d 2001-02-03 f");
    assert!(atime(&mount, "f").starts_with("2001"));
    mount.sh(READ);
    let read = atime(&mount, "f");
    assert!(!read.starts_with("2001"), "read for the first time since it was changed: {read}");
    let ctime = mount.sh("stat -c %z f");
    mount.sh(READ);
    assert_eq!(atime(&mount, "f"), read, "and not for the first time");
    until("the other mount knows of it", || atime(&other, "f") == read);
    assert_eq!(mount.sh("stat -c %z f"), ctime, "reading changes nothing else");
    mount.sh("echo more >>f");
    mount.sh(READ);
    let again = atime(&mount, "f");
    assert_ne!(again, read, "changed since");
    mount.sh("mkdir d; touch -a -d 2001-02-03 d; ls d");
    let listed = atime(&mount, "d");
    assert!(!listed.starts_with("2001"), "{listed}");
    // Nothing is left behind when it ends before anybody was told.
    mount.end();
    let mount = Mount::of(&url, &[], &[]);
    assert_eq!((atime(&mount, "f"), atime(&mount, "d")), (again, listed));
}

#[test]
fn access_times_are_as_the_options_have_them() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &["-o", "noatime"], &[]);
    mount.sh("echo text >f; touch -a -d 2001-02-03 f");
    mount.sh(READ);
    assert!(atime(&mount, "f").starts_with("2001"));
    mount.end();
    let mount = Mount::of(&url, &["-o", "strictatime"], &[]);
    mount.sh(READ);
    let read = atime(&mount, "f");
    assert!(!read.starts_with("2001"), "{read}");
    mount.sh(READ);
    assert_ne!(atime(&mount, "f"), read, "each time");
}
