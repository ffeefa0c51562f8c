//! Every legal file name can be made, and is the same name afterwards: in listings, for another
//! mount, after a rename, and gone after a removal.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::within;

/// Names that programs and people make, and some that they should not.
fn names() -> Vec<OsString> {
    let mut names: Vec<Vec<u8>> = [
        "plain",
        "a.b",
        "a.b.c",
        "a..b",
        ".hidden",
        ".hidden.txt",
        "..two",
        "...",
        "end.",
        "end..",
        "with blank",
        " ",
        "tab\there",
        "new\nline",
        "-rf",
        "--help",
        "*",
        "?",
        "\\",
        "'",
        "\"",
        "$HOME",
        "~",
        "#save#",
        "file~",
        ".#lock",
        "a:b",
        ":",
        "::",
        ":a",
        "a:",
        "12:30",
        "a:b.c",
        "100%",
        "%",
        "%%",
        "%2F",
        "%252F",
        "%00",
        "%3A",
        "%253A",
        "%2E",
        "%2E%2E",
        ".%2E",
        "a%2Eb",
        "a%2Eb.c",
        "%25self",
        "%self.x",
        "a%25field",
        "a%~0",
        "\u{fc}\u{1f980}.txt",
        "x.lock",
        "y.LOCK",
        ".gitignore",
        "core.1234",
        "lib.so.1.2.3",
        ".dbmount",
        "dbmount.x",
        "[a]",
        "{b}",
        "a^b",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.extend([b"\xff\xfe".to_vec(), b"a\x80.b".to_vec(), b"\x01".to_vec(), vec![b'n'; 255]]);
    names.push([&[b'm'; 250][..], b".ext"].concat());
    names.push([&b"k."[..], &[b'e'; 253][..]].concat());
    names.push([b'%', b'2', b'F'].repeat(85));
    names.iter().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

fn list(mount: &Mount) -> BTreeSet<OsString> {
    fs::read_dir(mount.point()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_file_of_any_name_is_what_it_was_made_as() {
    let server = Server::new();
    let mount = Mount::new(&server);
    // Each alone, so that no other is in its way.
    for name in names() {
        let (path, shown) = (mount.at(&name), name.as_bytes().escape_ascii());
        fs::write(&path, name.as_bytes()).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(list(&mount).into_iter().eq([name.clone()]), "{shown}: {:?}", list(&mount));
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{shown}");
        let keys = server.client().keys();
        assert_eq!(keys.len(), 1, "{shown}: one key and nothing else: {keys:?}");
        fs::rename(&path, mount.at("other")).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(list(&mount).into_iter().eq(["other"]), "{shown}: {:?}", list(&mount));
        fs::rename(mount.at("other"), &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{shown}");
        fs::remove_file(&path).unwrap();
        assert!(list(&mount).is_empty(), "{shown}: {:?}", list(&mount));
        assert_eq!(server.client().keys(), [""; 0], "{shown}");
    }
}

#[test]
fn directories_and_links_of_any_name() {
    let server = Server::new();
    let mount = Mount::new(&server);
    for name in names() {
        let (path, shown) = (mount.at(&name), name.as_bytes().escape_ascii());
        if name == ".dbmount" {
            // Below it are the mount's own keys.
            let refused = fs::create_dir(&path).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(1), "EPERM: {refused}");
            continue;
        }
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert!(list(&mount).into_iter().eq([name.clone()]), "{shown}: {:?}", list(&mount));
        fs::write(path.join("below.x"), "1").unwrap();
        assert_eq!(fs::read(path.join("below.x")).unwrap(), b"1", "{shown}");
        fs::rename(&path, mount.at("moved")).unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(fs::read(mount.at("moved/below.x")).unwrap(), b"1", "{shown}");
        fs::remove_dir_all(mount.at("moved")).unwrap();
        std::os::unix::fs::symlink(&name, &path).unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert!(list(&mount).into_iter().eq([name.clone()]), "{shown}: {:?}", list(&mount));
        assert_eq!(fs::read_link(&path).unwrap().as_os_str(), name, "{shown}");
        fs::remove_file(&path).unwrap();
        assert!(list(&mount).is_empty(), "{shown}: {:?}", list(&mount));
        assert_eq!(server.client().keys(), [""; 0], "{shown}");
    }
}

#[test]
fn all_of_them_side_by_side() {
    let server = Server::new();
    let (mount, other) = (Mount::new(&server), Mount::new(&server));
    for (round, all) in [names(), names().into_iter().rev().collect()].into_iter().enumerate() {
        for name in &all {
            let shown = name.as_bytes().escape_ascii();
            fs::write(mount.at(name), name.as_bytes()).unwrap_or_else(|e| panic!("{shown}: {e}"));
        }
        let want: BTreeSet<OsString> = all.iter().cloned().collect();
        for mount in [&mount, &other] {
            within(Duration::from_secs(5), "all names are listed", || list(mount) == want);
            for name in &all {
                let read = fs::read(mount.at(name)).unwrap();
                assert_eq!(read, name.as_bytes(), "{}", name.as_bytes().escape_ascii());
            }
        }
        for name in &all {
            fs::remove_file(mount.at(name)).unwrap();
        }
        assert!(list(&mount).is_empty(), "round {round}: {:?}", list(&mount));
        within(Duration::from_secs(5), "all are gone", || list(&other).is_empty());
        assert_eq!(server.client().keys(), [""; 0]);
    }
}

#[test]
fn names_that_cannot_be() {
    let server = Server::new();
    let mount = Mount::new(&server);
    let errno = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    let long = "n".repeat(256);
    assert_eq!(errno(fs::write(mount.at(&long), "")), 36, "ENAMETOOLONG");
    // Names that say of themselves to be somebody else's.
    let digest = format!("a%~{}", "0123456789".repeat(4));
    for name in ["%self", digest.as_str()] {
        let code = errno(fs::write(mount.at(name), "x"));
        assert!([1, 22].contains(&code), "{name}: EPERM or EINVAL: {code}");
        let code = errno(fs::create_dir(mount.at(name)));
        assert!([1, 22].contains(&code), "{name}: EPERM or EINVAL: {code}");
    }
    fs::create_dir(mount.at("d")).unwrap();
    assert_eq!(errno(fs::create_dir(mount.at("d/%self"))), 1, "EPERM");
    assert_eq!(errno(fs::create_dir(mount.at("x%field"))), 1, "EPERM");
    fs::rename(mount.at("d"), mount.at("x%field")).unwrap_err();
    fs::remove_dir(mount.at("d")).unwrap();
    // The mount's own keys are not there, and cannot be made.
    fs::set_permissions(mount.point(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    assert!(!mount.at(".dbmount").exists());
    assert_eq!(errno(fs::create_dir(mount.at(".dbmount"))), 1, "EPERM");
    assert!(!mount.at(".dbmount/a").exists());
    assert!(list(&mount).is_empty(), "{:?}", list(&mount));
}
