//! Many small files in one directory: made, looked at, rewritten, read, renamed, removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::Bench;
use crate::table::{Limit, Measure, Table};
use crate::timing::{Samples, each, rate};

const BODY: [u8; 100] = [b'x'; 100];
/// How often a listing that lacks something is taken before all is given up.
const LISTINGS: u32 = 5;

/// Everything that is measured here, and what bounds it.
const MEASURES: [(&str, Limit); 15] = [
    ("create, empty", Limit::Script),
    ("stat, after create", Limit::Get),
    ("stat, again", Limit::Get),
    ("ls -l", Limit::Get),
    ("rewrite 100 B and close", Limit::Script),
    ("read 100 B", Limit::Get),
    ("rename", Limit::Script),
    ("unlink", Limit::Script),
    ("create with 100 B, name.ext", Limit::Script),
    ("unlink, name.ext", Limit::Script),
    ("mkdir", Limit::Script),
    ("rmdir", Limit::Script),
    ("ls -l, after remount", Limit::Get),
    ("stat, after remount", Limit::Get),
    ("read 100 B, after remount", Limit::Get),
];

pub(crate) fn measure(bench: &Bench<'_>, table: &mut Table) -> Result<(), String> {
    let mut samples = Samples::default();
    let mount = bench.mount()?;
    for run in 0..bench.options.runs {
        warm(&mount.at(&format!("run{run}")), bench.options.files, &mut samples)?;
    }
    if bench.target.is_kept() {
        let files = bench.options.files;
        let dir = mount.at("cold");
        let name = |i| dir.join(format!("f{i:06}"));
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        each(files, |i| fs::write(name(i), BODY))?;
        let mut mount = mount;
        for _ in 0..bench.options.runs {
            mount = bench.remount(mount)?;
            samples.add("ls -l, after remount", list(&dir, files)?);
            mount = bench.remount(mount)?;
            samples.add("stat, after remount", each(files, |i| fs::metadata(name(i)).map(drop))?);
            mount = bench.remount(mount)?;
            samples.add("read 100 B, after remount", each(files, |i| read(&name(i)))?);
        }
        mount.unmount()?;
    } else {
        mount.unmount()?;
    }
    for (name, value) in samples.medians() {
        let known = MEASURES.iter().find(|(known, _)| *known == name);
        let limit = known.map_or(Limit::None, |(_, limit)| *limit);
        table.add(bench.target, Measure { name, unit: "/s", limit }, value);
    }
    Ok(())
}

fn warm(dir: &Path, files: u32, samples: &mut Samples) -> Result<(), String> {
    fs::create_dir(dir).map_err(|error| error.to_string())?;
    let name = |i: u32| dir.join(format!("f{i:06}"));
    let renamed = |i: u32| dir.join(format!("g{i:06}"));
    let field = |i: u32| dir.join(format!("h{i:06}.txt"));
    let folder = |i: u32| dir.join(format!("d{i:06}"));
    let paths = |of: &dyn Fn(u32) -> PathBuf| (0..files).map(of).collect::<Vec<_>>();
    let (names, moved, fields, folders) =
        (paths(&name), paths(&renamed), paths(&field), paths(&folder));
    let mut run = |measure: &'static str, work: &mut dyn FnMut(usize) -> io::Result<()>| {
        let rate =
            each(files, |i| work(i as usize)).map_err(|line| format!("{measure}: {line}"))?;
        samples.add(measure, rate);
        Ok::<(), String>(())
    };
    run("create, empty", &mut |i| File::create_new(&names[i]).map(drop))?;
    run("stat, after create", &mut |i| fs::metadata(&names[i]).map(drop))?;
    run("stat, again", &mut |i| fs::metadata(&names[i]).map(drop))?;
    run("rewrite 100 B and close", &mut |i| {
        OpenOptions::new().write(true).truncate(true).open(&names[i])?.write_all(&BODY)
    })?;
    run("read 100 B", &mut |i| read(&names[i]))?;
    let listed = list(dir, files)?;
    run("rename", &mut |i| fs::rename(&names[i], &moved[i]))?;
    run("unlink", &mut |i| fs::remove_file(&moved[i]))?;
    run("create with 100 B, name.ext", &mut |i| fs::write(&fields[i], BODY))?;
    run("unlink, name.ext", &mut |i| fs::remove_file(&fields[i]))?;
    run("mkdir", &mut |i| fs::create_dir(&folders[i]))?;
    run("rmdir", &mut |i| fs::remove_dir(&folders[i]))?;
    samples.add("ls -l", listed);
    fs::remove_dir(dir).map_err(|error| error.to_string())
}

fn read(path: &Path) -> io::Result<()> {
    let mut body = [0; BODY.len()];
    File::open(path)?.read_exact(&mut body)
}

/// Reads the directory and the attributes of everything in it, as `ls -l` does. A listing that
/// lacks something is told and taken again, so that one fault does not cost all other figures.
fn list(dir: &Path, files: u32) -> Result<f64, String> {
    let mut seen = 0;
    for attempt in 1..=LISTINGS {
        let start = Instant::now();
        seen = list_once(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        if seen == files {
            return Ok(rate(files, start));
        }
        eprintln!("FAULT: {}: {seen} of {files} are listed (attempt {attempt})", dir.display());
    }
    Err(format!("{}: {seen} entries are listed of {files}", dir.display()))
}

fn list_once(dir: &Path) -> io::Result<u32> {
    let mut seen = 0;
    for entry in fs::read_dir(dir)? {
        entry?.metadata()?;
        seen += 1;
    }
    Ok(seen)
}
