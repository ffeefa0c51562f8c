//! Mounts of simulated servers: nothing to install, gone at unmount.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::mount::Mount;

#[test]
fn a_simulated_bucket_is_a_filesystem() {
    let mount = Mount::of("mem:gridfs", &[], &[]);
    let at = |name: &str| mount.at(name);
    fs::create_dir_all(at("a/b")).unwrap();
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
    fs::write(at("a/b/large"), &large).unwrap();
    fs::write(at("a/small"), "one").unwrap();
    fs::write(at("a/small"), "two, longer").unwrap();
    fs::hard_link(at("a/small"), at("a/b/same")).unwrap();
    symlink("b/large", at("a/link")).unwrap();
    fs::set_permissions(at("a/small"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::rename(at("a"), at("c")).unwrap();
    assert!(fs::read(at("c/link")).unwrap() == large);
    assert_eq!(fs::read_to_string(at("c/b/same")).unwrap(), "two, longer");
    let same = fs::metadata(at("c/b/same")).unwrap();
    assert_eq!((same.nlink(), same.mode() & 0o7777), (2, 0o640));
    for n in 0..300 {
        fs::write(at(&format!("c/{n}")), "").unwrap();
    }
    let names = fs::read_dir(at("c")).unwrap().count();
    assert_eq!(names, 303);
    assert_eq!(fs::remove_dir(at("c")).unwrap_err().raw_os_error(), Some(39), "ENOTEMPTY");
    fs::remove_dir_all(at("c")).unwrap();
    assert_eq!(fs::read_dir(at("")).unwrap().count(), 0);
    assert!(!Path::new(&at("c")).exists());
}
