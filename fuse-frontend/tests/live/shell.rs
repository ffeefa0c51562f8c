//! Programs that the tests start, and waiting: nothing here waits without an end.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any single step of a test takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at something that should come about.
const LOOK: Duration = Duration::from_millis(1);

/// Waits until something is so; how long that took.
#[track_caller]
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) -> Duration {
    within(LIMIT, what, done)
}

/// Waits until something is so, for no longer than this; how long it took.
#[track_caller]
pub(crate) fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(LOOK);
    }
    start.elapsed()
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// What it printed; a test fails when the program did.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status == Some(0), "status {:?}\n{}{}", self.status, self.out, self.err);
        self.out
    }
}

/// Runs a program to its end, which must come in time.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ended {
    run_within(LIMIT, command)
}

#[track_caller]
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = format!("{command:?}");
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let status = wait(&mut child, limit, &shown);
    Ended { status, out: out.join().unwrap(), err: err.join().unwrap() }
}

/// Waits for a child; one that does not end in time is killed, and the test fails.
#[track_caller]
pub(crate) fn wait(child: &mut Child, limit: Duration, shown: &str) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > limit {
            let _gone = child.kill();
            panic!("still running after {limit:?}: {shown}");
        }
        thread::sleep(LOOK);
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).unwrap();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A script for `sh`, in a directory, which stops at the first command that fails. What it
/// printed.
#[track_caller]
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    try_sh(dir, script).ok()
}

#[track_caller]
pub(crate) fn try_sh(dir: &Path, script: &str) -> Ended {
    run(&mut shell(dir, script))
}

/// The same, not started yet.
pub(crate) fn shell(dir: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-euc", script]).current_dir(dir);
    // No settings of whoever runs the tests.
    command.env("LC_ALL", "C").env("HOME", "/nonexistent").env("TZ", "UTC");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for who in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{who}_NAME"), "T")
            .env(format!("GIT_{who}_EMAIL"), "t@example.com");
    }
    command
}

/// Fails the test when a program is not there, saying what brings it.
#[track_caller]
pub(crate) fn needs(program: &str, package: &str) {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|dir| dir.join(program).is_file());
    assert!(found, "{program} is not there; apt-get install {package}");
}
