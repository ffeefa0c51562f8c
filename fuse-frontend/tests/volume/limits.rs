//! The limits a volume was made with: `df` shows them, and what goes over them by one fails.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

use crate::mount::{Mount, dbmount};
use crate::server::Server;

const MIB: u64 = 1 << 20;

/// A mount of a new volume with these limits.
fn limited(server: &Server, limits: &[&str]) -> Mount {
    let url = format!("{}?volume=limited", server.url());
    dbmount(&[&["format"], limits, &[&url]].concat()).ok();
    Mount::of(&url, &[], &[])
}

fn df(mount: &Mount, what: &str) -> Vec<u64> {
    let told = mount.sh(&format!("df -B1 --output={what} . | tail -n 1"));
    told.split_whitespace().map(|n| n.parse().expect("a figure")).collect()
}

/// One more byte does not fit; whichever of write and close says so.
fn is_full(at: &Path, offset: u64) -> bool {
    let file = File::options().write(true).open(at).expect("the file is there");
    let written = file.write_all_at(b"x", offset).and_then(|()| file.sync_all());
    match written {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(Errno::NOSPC.raw_os_error()) => true,
        Err(error) => panic!("{}: {error}", at.display()),
    }
}

#[test]
fn bytes_are_counted_exactly() {
    let server = Server::new();
    let mount = limited(&server, &["--capacity", "8M"]);
    assert_eq!(df(&mount, "size,used,avail"), [8 * MIB, 0, 8 * MIB]);
    mount.sh("head -c 3M /dev/urandom >a");
    assert_eq!(df(&mount, "size,used,avail"), [8 * MIB, 3 * MIB, 5 * MIB]);
    mount.sh("head -c 5M /dev/urandom >b; sync b");
    assert_eq!(df(&mount, "avail"), [0]);
    assert!(is_full(&mount.at("b"), 5 * MIB), "a byte more");
    assert!(!is_full(&mount.at("b"), 5 * MIB - 1), "what is there can be written over");
    assert!(File::create(mount.at("empty")).is_ok(), "an empty file takes no bytes");
    assert!(is_full(&mount.at("empty"), 0));
    let grown =
        File::options().write(true).open(mount.at("a")).and_then(|it| it.set_len(3 * MIB + 1));
    let errno = grown.expect_err("a length counts, with or without holes").raw_os_error();
    assert_eq!(errno, Some(Errno::NOSPC.raw_os_error()));
    mount.sh("cmp -n 5242879 b b; truncate -s 1M a");
    assert_eq!(df(&mount, "used,avail"), [6 * MIB, 2 * MIB]);
    mount.sh("head -c 2M /dev/zero >c; sync c; rm b");
    assert_eq!(df(&mount, "used,avail"), [3 * MIB, 5 * MIB]);
    mount.sh("rm a c empty");
    assert_eq!(df(&mount, "used,avail"), [0, 8 * MIB]);
}

#[test]
fn inodes_are_counted_exactly() {
    let server = Server::new();
    let mount = limited(&server, &["--inodes", "20"]);
    assert_eq!(df(&mount, "itotal,iused,iavail"), [20, 1, 19], "the root is one");
    mount.sh("mkdir d; ln -s d s; mkfifo p; seq 16 | sed s,^,d/, | xargs touch; ln d/1 hard");
    assert_eq!(df(&mount, "itotal,iused,iavail"), [20, 20, 0]);
    let full = Some(Errno::NOSPC.raw_os_error());
    let refused = |made: std::io::Result<()>| made.expect_err("one too many").raw_os_error();
    assert_eq!(refused(File::create(mount.at("more")).map(drop)), full);
    assert_eq!(refused(fs::create_dir(mount.at("more"))), full);
    assert_eq!(refused(std::os::unix::fs::symlink("d", mount.at("more"))), full);
    fs::hard_link(mount.at("d/2"), mount.at("link")).expect("a name more is no inode more");
    fs::remove_file(mount.at("link")).expect("a name goes");
    assert_eq!(df(&mount, "iavail"), [0], "an inode with a name is one");
    fs::remove_file(mount.at("d/3")).expect("an inode goes");
    assert_eq!(df(&mount, "iavail"), [1]);
    File::create(mount.at("more")).expect("there is room for one again");
    assert_eq!(refused(fs::create_dir(mount.at("dir"))), full);
}
