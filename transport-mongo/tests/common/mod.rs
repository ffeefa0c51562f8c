//! Finding and walking the official specification tests, and turning their JSON into BSON.
//!
//! `DBMOUNT_SPEC_TESTS` names the folder. A clone without it passes its own tests and says so;
//! a name that leads nowhere is a mistake and fails.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

/// The cases of one specification, by file, or `None` when they are not at hand.
pub(crate) fn files(folder: &str) -> Option<Vec<(String, Json)>> {
    let Some(root) = std::env::var_os("DBMOUNT_SPEC_TESTS") else {
        println!("{folder}: the specification's cases were not there: DBMOUNT_SPEC_TESTS is unset");
        return None;
    };
    let root = PathBuf::from(root);
    let mut found = Vec::new();
    gather(&root.join(folder), &mut found);
    assert!(!found.is_empty(), "DBMOUNT_SPEC_TESTS is set but holds no {folder}");
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a readable case");
        let name = path.strip_prefix(&root).expect("under the root").display().to_string();
        (name, serde_json::from_str(&text).expect("a case is JSON"))
    };
    Some(found.into_iter().map(read).collect())
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| {
        panic!("DBMOUNT_SPEC_TESTS is set but {} cannot be read: {e}", folder.display())
    });
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "json") {
            found.push(path);
        }
    }
}

/// Counts what ran, and what was left out against the list of reasons.
pub(crate) struct Tally {
    spec: &'static str,
    left_out: &'static [(&'static str, &'static str)],
    ran: usize,
    skipped: usize,
    failures: Vec<String>,
    unused: Vec<bool>,
}

impl Tally {
    /// `left_out`: a piece of the case's name, and why it does not run.
    pub(crate) fn new(
        spec: &'static str,
        left_out: &'static [(&'static str, &'static str)],
    ) -> Tally {
        let unused = vec![true; left_out.len()];
        Tally { spec, left_out, ran: 0, skipped: 0, failures: Vec::new(), unused }
    }

    /// Runs one case unless it is left out.
    pub(crate) fn case(&mut self, name: &str, run: impl FnOnce() -> Result<(), String>) {
        if let Some(i) = self.left_out.iter().position(|(piece, _)| name.contains(piece)) {
            self.unused[i] = false;
            self.skipped += 1;
            println!("{}: left out: {name}: {}", self.spec, self.left_out[i].1);
            return;
        }
        self.ran += 1;
        if let Err(why) = run() {
            self.failures.push(format!("{name}: {why}"));
        }
    }

    /// Prints the counts; fails on failures, on nothing run, and on exclusions that match
    /// nothing any more.
    pub(crate) fn finish(self) {
        println!("{}: {} cases run, {} left out", self.spec, self.ran, self.skipped);
        let failures = self.failures.join("\n");
        assert!(self.failures.is_empty(), "{} failed:\n{failures}", self.failures.len());
        assert!(self.ran > 0, "no case ran");
        let stale: Vec<_> =
            self.unused.iter().zip(self.left_out).filter(|(unused, _)| **unused).collect();
        assert!(stale.is_empty(), "exclusions that match no case: {stale:?}");
    }
}

/// An error unless both are equal.
#[track_caller]
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    got: T,
    want: T,
) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}
