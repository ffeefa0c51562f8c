//! Real mounts through the command line, over a scripted machine: what a user does at a shell.
//!
//! This is its own program: called with a command of `dbmount` it is `dbmount`, so that the
//! process which `mount` starts in the background is one that serves the scripted machine. Called
//! as a test it runs the functions of [`cases::TESTS`].

#[cfg(test)]
mod cases;
#[cfg(test)]
mod place;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;

use cases::TESTS;
use place::Place;
use support::MemoryOpener;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let first = arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let helper = arguments.first().is_some_and(|name| Path::new(name).ends_with("mount.dbmount"));
    if helper || ["mount", "umount", "serve"].contains(&first) {
        return dbmount::cli::run(&MemoryOpener, arguments);
    }
    // The part of libtest's command line that test runners use.
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    if words.contains(&"--list") {
        if !words.contains(&"--ignored") {
            TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    if !Path::new("/dev/fuse").exists() {
        eprintln!("/dev/fuse is missing: real mounts cannot be tested here");
        return ExitCode::FAILURE;
    }
    let filters: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = TESTS.iter().filter(|(name, _)| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(**filter))
    });
    let mut failed = 0;
    for (name, test) in wanted {
        let place = Place::new();
        let result = std::panic::catch_unwind(|| test(&place));
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        failed += usize::from(result.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
