//! Outside suites on a mount: pjdfstest (what POSIX says of each call) and fsx (what is read is
//! what was written, whatever was done in between).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mount::Mount;
use crate::shell::run_within;

/// Where `.ci/test` puts the suites.
const SUITES: &str = "DBMOUNT_SUITES";
/// Less than the test runner allows a test.
const LIMIT: Duration = Duration::from_secs(140);

/// A program of the suites. One that is not there fails the test.
#[track_caller]
fn suite(name: &str, version: &str) -> PathBuf {
    let get = format!(
        "run .ci/test, or: cargo install --locked --root DIR {name}@{version} (which needs Debian's \
         libacl1-dev) and set {SUITES} to DIR/bin"
    );
    let dir = std::env::var_os(SUITES).unwrap_or_else(|| panic!("{SUITES} is not set; {get}"));
    let program = Path::new(&dir).join(name);
    assert!(program.is_file(), "{} is not there; {get}", program.display());
    program
}

const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
# Above the grain of the kernel's clock.
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"], ["daemon", "daemon"]]
"#;

/// What may be left out, and why.
const SKIPPED: [(&str, &str); 2] = [
    // It goes through mount(8), which mounts a FUSE filesystem a second time instead.
    ("::erofs_", "remounts"),
    // A FUSE filesystem has no way to tell the kernel.
    ("link::link_count_max", "LINK_MAX"),
];

/// Runs pjdfstest on a mount that others may use: the cases that have one of `only` in their names
/// (all of them when there are none). `unless` are cases that may fail.
#[track_caller]
pub(crate) fn pjdfstest(mount: &Mount, only: &[&str], unless: &[&str]) {
    let program = suite("pjdfstest", "0.2.2");
    let dir = tempfile::tempdir().expect("a directory for the configuration");
    let config = dir.path().join("pjdfstest.toml");
    fs::write(&config, PJDFSTEST).expect("the configuration is written");
    // The suite's other users walk through here.
    for dir in [dir.path(), mount.point().parent().expect("a mount has a directory")] {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("the directory is opened");
    }
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("-s").arg(dir.path()).arg("-p").arg(mount.point());
    command.args(only);
    let ended = run_within(LIMIT, command.env("NO_COLOR", "1"));

    let (mut passed, mut left_out, mut failed) = (0, Vec::new(), Vec::new());
    for line in ended.out.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            [_, "ok"] => passed += 1,
            [case, "skipped"] => left_out.push(case),
            [case, "FAILED"] => failed.push(case),
            _ => {}
        }
    }
    println!("{passed} passed, left out: {left_out:?}, failed: {failed:?}");
    // The suite has about as many; none of them is to go missing.
    assert!(passed > 350, "only {passed} cases passed\n{}{}", ended.out, ended.err);
    left_out.retain(|case| !SKIPPED.iter().any(|(part, _)| case.contains(part)));
    assert!(left_out.is_empty(), "left out for no known reason: {left_out:?}\n{}", ended.out);
    failed.retain(|case| !unless.contains(case));
    assert!(failed.is_empty(), "{failed:?}\n{}", ended.out);
}

/// How often fsx does what: more for what this filesystem has of its own.
const OPERATIONS: &str = "
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 3
sendfile = 3
posix_fadvise = 1
copy_file_range = 5
";

/// A run of fsx.
pub(crate) struct Fsx {
    pub(crate) seed: u32,
    pub(crate) operations: u32,
    /// The longest the file gets, and the most one operation is about, in bytes.
    pub(crate) length: u32,
    pub(crate) most: u32,
    /// With holes punched.
    pub(crate) holes: bool,
}

/// Runs fsx on a file of a mount.
#[track_caller]
pub(crate) fn fsx(mount: &Mount, fsx: &Fsx) {
    let ended = try_fsx(mount, fsx, &[]);
    let log = format!("{}{}\nthe mount said:\n{}", ended.out, ended.err, mount.said());
    assert!(ended.status == Some(0), "seed {}: {:?}\n{log}", fsx.seed, ended.status);
    // A bug that the suite puts in itself, by leaving out one of these steps, is noticed: the
    // first of them that changes something.
    let blind = Fsx { operations: 200, ..*fsx };
    let notices = |step: u32| {
        let ended = try_fsx(mount, &blind, &["--inject", &step.to_string()]);
        ended.status != Some(0)
    };
    assert!((100..120).any(notices), "fsx notices nothing");
}

#[track_caller]
fn try_fsx(mount: &Mount, fsx: &Fsx, more: &[&str]) -> crate::shell::Ended {
    let Fsx { seed, operations, length, most, holes } = fsx;
    let dir = tempfile::tempdir().expect("a directory for the configuration");
    let config = dir.path().join("fsx.toml");
    let sizes = format!("flen = {length}\n[opsize]\nmin = 0\nmax = {most}\nalign = 1\n");
    let punch = if *holes { "punch_hole = 5\n" } else { "" };
    fs::write(&config, [&sizes, OPERATIONS, punch].concat()).expect("the configuration is written");
    let mut command = Command::new(suite("fsx", "0.3.2"));
    command.arg("-f").arg(&config).arg("-P").arg(dir.path()).args(more);
    command.args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
    run_within(LIMIT, command.arg(mount.at(format!("fsx.{seed}"))))
}
