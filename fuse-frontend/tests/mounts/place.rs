//! Where a test mounts, and how it calls the program and looks at what came of it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory to mount on and one for the log; unmounted at the end, whatever happened.
pub(crate) struct Place {
    pub(crate) root: tempfile::TempDir,
    pub(crate) point: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("mnt");
        fs::create_dir(&point).unwrap();
        Place { point: point.canonicalize().unwrap(), root }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(words).env("XDG_STATE_HOME", self.root.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.root.path().join("log")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Mounts in the background.
    pub(crate) fn mount(&self, more: &[&str]) -> String {
        let log = self.log_file();
        let mut words = vec!["mount", "--log", log.to_str().unwrap()];
        words.extend(more);
        words.extend(["redis://h:1/0", self.point.to_str().unwrap()]);
        let output = self.run(&words);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(self.is_mounted(), "{said}");
        said
    }

    /// Mounts in the foreground of a child.
    pub(crate) fn mount_child(&self, source: &str, more: &[&str]) -> Child {
        let mut words = vec!["mount", "-f"];
        words.extend(more);
        words.extend([source, self.point.to_str().unwrap()]);
        let child = self.command(&words).stderr(Stdio::piped()).spawn().unwrap();
        until(|| self.is_mounted());
        child
    }

    pub(crate) fn mounted_as(&self) -> Option<(String, String, String)> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        mounts.lines().rev().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            (Path::new(fields[1]) == self.point)
                .then(|| (fields[0].to_owned(), fields[2].to_owned(), fields[3].to_owned()))
        })
    }

    pub(crate) fn is_mounted(&self) -> bool {
        self.mounted_as().is_some()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.is_mounted() {
            dbmount::mountpoint::unmount(&self.point, true).unwrap();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn until(done: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "this should have happened by now");
        std::thread::yield_now();
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

pub(crate) fn end(mut child: Child) -> (i32, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code().unwrap_or(-1), said)
}
