//! A tree like that of an installed program: copied onto the mount, and removed.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::Bench;
use crate::table::{Limit, Measure, Table};
use crate::timing::{self, Random, Samples};

const FOLDERS: u32 = 500;
const FILES: u32 = 5300;
const LINKS: u32 = 200;

pub(crate) fn measure(bench: &Bench<'_>, table: &mut Table) -> Result<(), String> {
    let from = bench.dir.join("tree");
    if !from.exists() {
        generate(&from).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    let mount = bench.mount()?;
    let to = mount.at("tree");
    let inodes = 1 + FOLDERS + FILES + LINKS;
    let mut samples = Samples::default();
    for _ in 0..bench.options.runs {
        samples
            .add("cp -a of a tree", run(Command::new("cp").arg("-a").arg(&from).arg(&to), inodes)?);
        samples.add("rm -rf of it", run(Command::new("rm").arg("-rf").arg(&to), inodes)?);
    }
    mount.unmount()?;
    for (name, value) in samples.medians() {
        let measure = Measure { name, unit: "inode/s", limit: Limit::Script };
        table.add(bench.target, measure, value);
    }
    Ok(())
}

fn run(command: &mut Command, inodes: u32) -> Result<f64, String> {
    timing::check()?;
    let start = Instant::now();
    let output = command.output().map_err(|error| error.to_string())?;
    let rate = timing::rate(inodes, start);
    if output.status.success() {
        return Ok(rate);
    }
    Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("it failed").to_owned())
}

/// Folders up to four deep, files from nothing to 40 KiB (most of them small), some symlinks.
fn generate(root: &Path) -> io::Result<()> {
    let mut random = Random::new(42);
    let body = random.bytes(40 << 10);
    let mut folders = vec![(root.to_owned(), 0)];
    fs::create_dir(root)?;
    for n in 0..FOLDERS {
        let (parent, depth) = &folders[random.below(folders.len() as u64) as usize];
        let (path, depth) = (parent.join(format!("package{n}")), depth + 1);
        fs::create_dir(&path)?;
        if depth < 4 {
            folders.push((path, depth));
        }
    }
    for n in 0..FILES {
        let (folder, _) = &folders[random.below(folders.len() as u64) as usize];
        let suffix = [".py", ".py", ".pyc", ".txt", "", ".so"][random.below(6) as usize];
        let most = if random.below(10) == 0 { body.len() } else { 6 << 10 };
        let size = random.below(most as u64) as usize;
        fs::write(folder.join(format!("module{n}{suffix}")), &body[..size])?;
    }
    for n in 0..LINKS {
        let (folder, _) = &folders[random.below(folders.len() as u64) as usize];
        symlink(format!("../module{n}.py"), folder.join(format!("link{n}")))?;
    }
    Ok(())
}
