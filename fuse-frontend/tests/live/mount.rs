//! A mount of a test's own: the built program in the foreground, unmounted at the end whatever
//! happened.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::server::Server;
use crate::shell::{self, Ended, needs, run, until};

/// A mount that a test did not end by now hangs, and the test with it.
const LIFE: Duration = Duration::from_secs(150);
/// What is run by hand on much more (see `hostile.rs` and `copies.rs`) may take longer.
const LONG_LIFE: Duration = Duration::from_secs(3600);

/// The program, with nothing of its user's.
pub(crate) fn program(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbmount"));
    command.args(words).env_remove("DBMOUNT_PASSWORD").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn dbmount(words: &[&str]) -> Ended {
    run(&mut program(words))
}

/// A directory, and the server's keys on it.
pub(crate) struct Mount {
    dir: TempDir,
    point: PathBuf,
    child: Child,
    /// Dropped when the test is through, which lets the watch go.
    _watch: Sender<()>,
}

impl Mount {
    pub(crate) fn new(server: &Server) -> Self {
        Mount::with(server, &[])
    }

    /// With these arguments beside.
    #[track_caller]
    pub(crate) fn with(server: &Server, more: &[&str]) -> Self {
        Mount::of(&server.url(), more, &[])
    }

    /// Of any source, with these variables in the environment.
    #[track_caller]
    pub(crate) fn of(source: &str, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Mount::named(&[source], more, variables)
    }

    /// Of what these arguments name.
    #[track_caller]
    pub(crate) fn named(source: &[&str], more: &[&str], variables: &[(&str, &str)]) -> Self {
        needs("fusermount3", "fuse3");
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join("mnt");
        fs::create_dir(&point).unwrap();
        let point = point.canonicalize().unwrap();
        let log = dir.path().join("log");
        let mut words = vec!["mount", "--foreground"];
        words.extend(source);
        words.push(point.to_str().unwrap());
        words.extend(more);
        let mut child = program(&words)
            .envs(variables.iter().copied())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        until("the mount is there", || {
            let ended = child.try_wait().unwrap();
            let said = || fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none(), "{words:?}: {ended:?}\n{}", said());
            is_mounted(&point)
        });
        let (watch, dropped) = channel();
        let by_hand = ["DBMOUNT_LIVE_KEYS", "DBMOUNT_LIVE_TREE"].map(std::env::var_os);
        let life = if by_hand.iter().any(Option::is_some) { LONG_LIFE } else { LIFE };
        let pid = Pid::from_child(&child);
        thread::spawn(move || {
            if dropped.recv_timeout(life) == Err(RecvTimeoutError::Timeout) {
                // Whoever hangs on it gets ENOTCONN now.
                let _ended = kill_process(pid, Signal::KILL);
            }
        });
        Mount { dir, point, child, _watch: watch }
    }

    /// Where it is mounted.
    pub(crate) fn point(&self) -> &Path {
        &self.point
    }

    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point.join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// A script in the mounted directory; what it printed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        shell::sh(&self.point, script)
    }

    /// Ends it as `kill` does. Everything is written back then, and it exits with 0.
    #[track_caller]
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = shell::wait(&mut self.child, shell::LIMIT, "dbmount, after SIGTERM");
        assert_eq!(status, Some(0), "{}", self.said());
        assert!(!is_mounted(&self.point), "it takes its mount away");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the mount said:\n{}", self.said());
        }
        take_away(&self.point);
        // It ends by itself when its mount is gone; a test that failed does not wait for that.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Takes everything off a directory.
pub(crate) fn take_away(point: &Path) {
    while is_mounted(point) {
        if let Err(error) = dbmount::mountpoint::unmount(point, true) {
            eprintln!("{} cannot be unmounted: {error}", point.display());
            return;
        }
    }
}

/// Source, type and options of the mount on a directory, as `/proc/mounts` has them.
pub(crate) fn mounted_as(point: &Path) -> Option<[String; 3]> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let (source, on, kind, options) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        (Path::new(&on) == point).then_some([source, kind, options])
    })
}

pub(crate) fn is_mounted(point: &Path) -> bool {
    mounted_as(point).is_some()
}
