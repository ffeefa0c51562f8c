//! Outside suites on a bucket.

use crate::mount::Mount;
use crate::outside::{Fsx, fsx, pjdfstest};
use crate::server::{Server, on_both};

on_both!(fsx_reads_what_it_wrote, pjdfstest_finds_nothing);

/// All but `open::interact_2gb`: a bucket has no holes, so it writes two gigabytes of zeros.
const CASES: [&str; 16] = [
    "ch",
    "ftruncate",
    "link",
    "mk",
    "posix_fallocate",
    "rename",
    "rmdir",
    "truncate",
    "utimensat",
    "open::c",
    "open::e",
    "open::f",
    "open::o",
    "open::p",
    "open::s",
    "open::u",
];

fn pjdfstest_finds_nothing(server: &Server) {
    let mount = Mount::of(&server.url(), &["-o", "allow_other"], &[]);
    // As on a volume.
    let mut known = vec!["open::etxtbsy"];
    if !server.url().contains("replicaSet") {
        // Without transactions a rename does not count the directories in a directory.
        known.push("rename::updates_link_parent");
    }
    pjdfstest(&mount, &CASES, &known);
}

fn fsx_reads_what_it_wrote(server: &Server) {
    let mount = Mount::of(&server.url(), &[], &[]);
    let some = Fsx { seed: 3, operations: 4000, length: 1 << 20, most: 200_000, holes: false };
    fsx(&mount, &some);
    mount.end();
    server.checks_clean();
}
