//! Outside suites on a volume.

use crate::mount::Mount;
use crate::outside::{Fsx, fsx, pjdfstest};
use crate::server::Server;
use crate::volume;

/// `open` with `O_RDONLY | O_TRUNC` of a program that runs: with `FUSE_ATOMIC_O_TRUNC` the kernel
/// sends the open, and so the truncation, before it looks whether somebody runs the file. Without
/// it every rewrite of a file would take a round trip more.
const KNOWN: [&str; 1] = ["open::etxtbsy"];

#[test]
fn pjdfstest_finds_nothing() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &["-o", "allow_other"], &[]);
    pjdfstest(&mount, &[], &KNOWN);
}

#[test]
fn fsx_reads_what_it_wrote() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let some = Fsx { seed: 1, operations: 8000, length: 256 << 10, most: 64 << 10, holes: true };
    fsx(&mount, &some);
}

/// Over many blocks.
#[test]
fn fsx_reads_what_it_wrote_in_a_long_file() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let some = Fsx { seed: 2, operations: 3000, length: 2 << 20, most: 300_000, holes: true };
    fsx(&mount, &some);
}
