//! Outside suites on a bucket.

use crate::mount::Mount;
use crate::outside::{Fsx, fsx};
use crate::server::{Server, on_both};

on_both!(fsx_reads_what_it_wrote);

fn fsx_reads_what_it_wrote(server: &Server) {
    let mount = Mount::of(&server.url(), &[], &[]);
    let some = Fsx { seed: 3, operations: 4000, length: 1 << 20, most: 200_000, holes: false };
    fsx(&mount, &some);
    mount.end();
    server.checks_clean();
}
