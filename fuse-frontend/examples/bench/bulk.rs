//! Large files, on a keyspace as a string and as a field of a hash: written and read whole, and in
//! random pieces of 4 KiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags, fadvise};

use crate::Bench;
use crate::mounts::Mount;
use crate::table::{Limit, Measure, Table};
use crate::timing::{self, Random, Samples, each_within};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// How many random pieces, and for how long at most.
const PIECES: u32 = 10_000;
const PIECES_FOR: Duration = Duration::from_secs(2);

/// A kind of file: its name, and the names of what is measured on it.
struct Shape {
    name: &'static str,
    write: &'static str,
    read: &'static str,
    read_piece: &'static str,
    write_piece: &'static str,
    write_pieces: &'static str,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "large",
        write: "sequential write, string",
        read: "sequential read, string",
        read_piece: "4 KiB random read, string",
        write_piece: "4 KiB random write+fsync, string",
        write_pieces: "4 KiB random writes, fsync, string",
    },
    Shape {
        name: "name.bin",
        write: "sequential write, hash field",
        read: "sequential read, hash field",
        read_piece: "4 KiB random read, hash field",
        write_piece: "4 KiB random write+fsync, hash field",
        write_pieces: "4 KiB random writes, fsync, hash f.",
    },
];

pub(crate) fn measure(bench: &Bench<'_>, table: &mut Table) -> Result<(), String> {
    // Elsewhere one file is like another.
    let shapes = if bench.target.has_fields() { &SHAPES[..] } else { &SHAPES[..1] };
    for shape in shapes {
        let mut mount = bench.mount()?;
        let mut samples = Samples::default();
        for run in 0..bench.options.runs {
            mount = one_run(bench, mount, shape, run, &mut samples)
                .map_err(|line| format!("{}: {line}", shape.name))?;
        }
        mount.unmount()?;
        for (name, value) in samples.medians() {
            let (unit, limit) = match name {
                name if name == shape.write => ("MiB/s", Limit::WriteMib),
                name if name == shape.read => ("MiB/s", Limit::ReadMib),
                name if name == shape.write_piece || name == shape.write_pieces => {
                    ("/s", Limit::WritePage)
                }
                _ => ("/s", Limit::ReadPage),
            };
            table.add(bench.target, Measure { name, unit, limit }, value);
        }
    }
    Ok(())
}

fn one_run(
    bench: &Bench<'_>,
    mount: Mount,
    shape: &Shape,
    run: u32,
    samples: &mut Samples,
) -> Result<Mount, String> {
    let mib = bench.options.mib;
    let path = mount.at(shape.name);
    let plainly = |error: io::Error| error.to_string();

    samples.add(shape.write, write_whole(&path, mib)?);
    let mount = bench.remount(mount)?;
    samples.add(shape.read, read_whole(&path, mib)?);

    let mount = bench.remount(mount)?;
    let mut random = Random::new(u64::from(run) + 1);
    let pages = u64::from(mib) * (MIB / PAGE) as u64;
    let mut page = vec![0; PAGE];
    let direct = i32::try_from(OFlags::DIRECT.bits()).map_err(|error| error.to_string())?;
    let file = OpenOptions::new().read(true).custom_flags(direct).open(&path).map_err(plainly)?;
    let rate = each_within(PIECES, PIECES_FOR, |_| {
        file.read_exact_at(&mut page, random.below(pages) * PAGE as u64)
    })?;
    samples.add(shape.read_piece, rate);

    let file = OpenOptions::new().write(true).open(&path).map_err(plainly)?;
    let rate = each_within(PIECES, PIECES_FOR, |_| {
        file.write_all_at(&page, random.below(pages) * PAGE as u64)?;
        file.sync_data()
    })?;
    samples.add(shape.write_piece, rate);

    let (start, mut pieces) = (Instant::now(), 0);
    while pieces < PIECES && start.elapsed() < PIECES_FOR {
        timing::check()?;
        file.write_all_at(&page, random.below(pages) * PAGE as u64).map_err(plainly)?;
        pieces += 1;
    }
    file.sync_data().map_err(plainly)?;
    samples.add(shape.write_pieces, timing::rate(pieces, start));
    drop(file);
    fs::remove_file(&path).map_err(plainly)?;
    Ok(mount)
}

/// Writes a new file, to the server; MiB a second.
fn write_whole(path: &Path, mib: u32) -> Result<f64, String> {
    let body = Random::new(7).bytes(MIB);
    let start = Instant::now();
    let write = || {
        let mut file = File::create(path)?;
        for _ in 0..mib {
            file.write_all(&body)?;
        }
        file.sync_all()
    };
    write().map_err(|error| format!("writing: {error}"))?;
    Ok(timing::rate(mib, start))
}

/// Reads a file that the kernel has nothing of; MiB a second.
fn read_whole(path: &Path, mib: u32) -> Result<f64, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    fadvise(&file, 0, None, Advice::DontNeed).map_err(|error| error.to_string())?;
    let mut body = vec![0; MIB];
    let start = Instant::now();
    for _ in 0..mib {
        timing::check()?;
        (&file).read_exact(&mut body).map_err(|error| format!("reading: {error}"))?;
    }
    Ok(timing::rate(mib, start))
}
