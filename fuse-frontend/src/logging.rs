//! The log: to the terminal in the foreground, to a file in the background.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::mountpoint::plain;

/// How much is logged: `-q`, or how often `-v` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verbosity {
    /// Only errors.
    pub quiet: bool,
    /// How often `-v` was given.
    pub more: u8,
}

impl Verbosity {
    fn targets(self) -> Targets {
        let (ours, fuser) = match (self.quiet, self.more) {
            (true, _) => (LevelFilter::ERROR, LevelFilter::ERROR),
            (false, 0) => (LevelFilter::INFO, LevelFilter::WARN),
            (false, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
            (false, 2) => (LevelFilter::TRACE, LevelFilter::WARN),
            // A line for each request of the kernel.
            (false, _) => (LevelFilter::TRACE, LevelFilter::DEBUG),
        };
        Targets::new().with_default(ours).with_target("fuser", fuser)
    }
}

/// Logs to standard error from now on.
pub fn to_stderr(verbosity: Verbosity) {
    let format = layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    install(tracing_subscriber::registry().with(format.with_filter(verbosity.targets())));
}

/// Logs to the end of a file from now on. It is readable for its owner alone: it may name keys.
///
/// # Errors
/// One line that says why the file cannot be written.
pub fn to_file(path: &Path, verbosity: Verbosity) -> Result<(), String> {
    let file = open(path)
        .map_err(|error| format!("the log file {}: {}", path.display(), plain(&error)))?;
    let format = layer().with_writer(file).with_ansi(false);
    install(tracing_subscriber::registry().with(format.with_filter(verbosity.targets())));
    Ok(())
}

fn install(subscriber: impl SubscriberInitExt) {
    // Only a test that logs already can be in the way.
    let _kept = subscriber.try_init();
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Where a mount in the background logs when nothing else was said: a file for each directory, in
/// the user's state directory, or below `/var/log` for root.
///
/// # Errors
/// One line when the user has no home.
pub fn default_file(point: &Path) -> Result<PathBuf, String> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty());
    let directory = if let Some(state) = state {
        PathBuf::from(state)
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/log")
    } else if let Some(home) = std::env::var_os("HOME").filter(|dir| !dir.is_empty()) {
        Path::new(&home).join(".local/state")
    } else {
        return Err("there is no place for the log, since HOME is not set; name a file with \
                    --log FILE"
            .to_owned());
    };
    Ok(directory.join("dbmount").join(file_name(point)))
}

/// `/mnt/redis` logs to `mnt-redis.log`; whatever is odd in a name becomes `_`.
fn file_name(point: &Path) -> String {
    let path = point.as_os_str().as_bytes();
    let mut name: String = path
        .iter()
        .skip_while(|byte| **byte == b'/')
        .map(|&byte| match byte {
            b'/' => '-',
            b'.' | b'-' | b'_' => char::from(byte),
            _ if byte.is_ascii_alphanumeric() => char::from(byte),
            _ => '_',
        })
        .take(200)
        .collect();
    name.push_str(".log");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_names_its_log() {
        for (point, name) in [
            ("/mnt/redis", "mnt-redis.log"),
            ("/", ".log"),
            ("/a b/ü", "a_b-__.log"),
            ("/x/.y", "x-.y.log"),
        ] {
            assert_eq!(file_name(Path::new(point)), name);
        }
    }
}
