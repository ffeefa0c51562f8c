//! A mount of the release binary, or of the rival it is measured beside: started, waited for,
//! unmounted and ended, whatever happens.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::timing;

const MOUNTING: Duration = Duration::from_secs(30);
const ENDING: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// A binary to measure.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// Ours.
    Dbmount(PathBuf),
    /// JuiceFS, whose metadata and data are both kept in Redis.
    Juicefs(PathBuf),
}

impl Program {
    /// `target/release/dbmount`, when this is `target/release/examples/bench`.
    pub(crate) fn beside_this() -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let folder = this.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        let program = folder.join("dbmount");
        let Ok(built) = fs::metadata(&program).and_then(|data| data.modified()) else {
            return Err(format!(
                "{} is not there; build it with `cargo build --release -p dbmount`",
                program.display()
            ));
        };
        // `cargo run --example` builds the library anew and not the binary.
        let minutes = built.elapsed().unwrap_or_default().as_secs() / 60;
        eprintln!("{}, built {minutes} min ago", program.display());
        if cfg!(debug_assertions) {
            eprintln!("this is a debug build: run it with --release for figures that mean much");
        }
        Ok(Program::Dbmount(program))
    }

    fn path(&self) -> &Path {
        match self {
            Program::Dbmount(path) | Program::Juicefs(path) => path,
        }
    }

    /// Makes a volume. `data` is where the rival keeps what is in the files.
    pub(crate) fn format(&self, source: &str, data: &str) -> Result<(), String> {
        let mut command = Command::new(self.path());
        command.arg("format");
        match self {
            Program::Dbmount(_) => command.arg(source),
            // What is deleted would be kept for a day, and fill the server.
            Program::Juicefs(_) => command
                .args(["--storage", "redis", "--bucket", data, "--trash-days", "0"])
                .args([source, "bench"]),
        };
        finish(&mut command).map_err(|line| format!("{source} cannot be formatted: {line}"))
    }

    /// Mounts a source in a folder of its own below `dir`, in the foreground of a child process.
    pub(crate) fn mount(&self, source: &str, dir: &Path) -> Result<Mount, String> {
        let point = dir.join("mnt");
        fs::create_dir_all(&point).map_err(|error| format!("{}: {error}", point.display()))?;
        let before = device(&point).ok_or("the mountpoint cannot be looked at")?;
        let errors = dir.join("mount.err");
        let stderr = File::create(&errors).map_err(|error| error.to_string())?;
        let mut command = Command::new(self.path());
        command.arg("mount");
        match self {
            Program::Dbmount(_) => {
                command.args(["--foreground", "--log"]).arg(dir.join("dbmount.log"))
            }
            Program::Juicefs(_) => {
                command.args(["--no-usage-report", "--cache-dir"]).arg(dir.join("juicefs-cache"))
            }
        };
        let started = Instant::now();
        let child = command
            .arg(source)
            .arg(&point)
            .env_remove("DBMOUNT_PASSWORD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.path().display()))?;
        let mut mount = Mount { child, point, program: self.clone(), started, ended: false };
        while device(&mount.point).is_none_or(|now| now == before) {
            timing::check()?;
            let ended = mount.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || started.elapsed() > MOUNTING {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                return Err(format!("{source} cannot be mounted: {}", said.trim()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(mount)
    }
}

/// Runs a command to its end; what it said when it failed.
fn finish(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|data| data.dev())
}

/// A mount, and the process that serves it. Dropping it takes both away.
#[derive(Debug)]
pub(crate) struct Mount {
    child: Child,
    point: PathBuf,
    program: Program,
    started: Instant,
    ended: bool,
}

impl Mount {
    /// A path in it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.point.join(path)
    }

    /// When its process was started.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What its process holds in memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, String> {
        let file = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"))
            .and_then(|number| number.trim().parse::<u64>().ok());
        kib.map(|kib| kib << 10).ok_or_else(|| format!("{file} has no VmRSS"))
    }

    /// Unmounts and waits for the end of the process.
    pub(crate) fn unmount(mut self) -> Result<(), String> {
        self.take_away(false)?;
        match wait_for(&mut self.child, ENDING) {
            Some(status) => {
                self.ended = true;
                if status.success() { Ok(()) } else { Err(format!("the mount ended: {status}")) }
            }
            None => Err("the mount did not end after it was unmounted".to_owned()),
        }
    }

    fn take_away(&self, lazy: bool) -> Result<(), String> {
        let by_force = match self.program {
            Program::Dbmount(_) => "--lazy",
            Program::Juicefs(_) => "--force",
        };
        let mut command = Command::new(self.program.path());
        finish(command.arg("umount").args(lazy.then_some(by_force)).arg(&self.point))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.take_away(false).is_err() {
            let _gone = self.take_away(true);
        }
        end(&mut self.child);
        // Without a process an entry that is left answers "not connected": try once more.
        let _gone = self.take_away(true);
    }
}

/// Ends a child process, by its number: asked first, then made to.
pub(crate) fn end(child: &mut Child) {
    if wait_for(child, Duration::from_secs(2)).is_some() {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _asked = kill_process(pid, Signal::TERM);
    }
    if wait_for(child, Duration::from_secs(5)).is_none() {
        let _killed = child.kill();
        let _status = child.wait();
    }
}

fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}
