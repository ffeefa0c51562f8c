//! Directories to mount on: what is there already, what is left of a mount that died, and
//! unmounting.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// One line of `/proc/self/mountinfo`, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the device.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type with the subtype, such as `fuse.dbmount`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
}

impl Mount {
    /// Whether it is a FUSE filesystem of any program.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// Every mount that this process sees; of those on one directory, the topmost comes last.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse_mountinfo(&fs::read("/proc/self/mountinfo")?))
}

/// What is mounted on exactly this (canonical) directory.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounted_on(point: &Path) -> io::Result<Option<Mount>> {
    Ok(mounts()?.into_iter().rev().find(|mount| mount.point == point))
}

fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    fields.find(|field| *field == b"-")?;
    let kind = fields.next()?;
    let source = fields.next()?;
    Some(Mount {
        device: lossy(device),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        kind: lossy(&unescape(kind)),
        source: lossy(&unescape(source)),
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// A directory that can be mounted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its absolute path without symlinks.
    pub path: PathBuf,
    /// What the user should know about it, a line each.
    pub notes: Vec<String>,
}

/// How many dead mounts, one over the other, are taken away before giving up.
const MAX_STALE: usize = 8;

/// Checks that a directory can be mounted on; a dead FUSE mount on it is taken away.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub fn prepare(dir: &Path) -> Result<Ready, String> {
    let shown = dir.display();
    let mut notes = Vec::new();
    for _ in 0..=MAX_STALE {
        let path = match fs::metadata(dir) {
            Ok(meta) if !meta.is_dir() => {
                return Err(format!("{shown} is not a directory; name one to mount on"));
            }
            Ok(_) => fs::canonicalize(dir).map_err(|error| format!("{shown}: {error}"))?,
            Err(error) if is_stale(&error) => {
                let path = locate(dir).map_err(|error| format!("{shown}: {error}"))?;
                let was = mounted_on(&path).ok().flatten();
                unmount(&path, true).map_err(|error| {
                    format!(
                        "{shown} is left over from a mount that died, and cannot be unmounted: \
                         {error}; run `umount -l {shown}` as root"
                    )
                })?;
                let of = was.map(|mount| format!(" of {}", mount.source)).unwrap_or_default();
                notes.push(format!("took over {shown} from a dead mount{of}"));
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(format!("{shown} does not exist; make it with `mkdir -p {shown}`"));
            }
            Err(error) => return Err(format!("{shown}: {}", plain(&error))),
        };
        let mounted = mounted_on(&path).map_err(|error| format!("/proc: {}", plain(&error)))?;
        if let Some(mount) = mounted {
            return Err(format!(
                "{shown} has {} ({}) mounted on it already; unmount that first or name another \
                 directory",
                mount.source, mount.kind
            ));
        }
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            notes.push(format!("{shown} is not empty; what is in it is hidden while mounted"));
        }
        return Ok(Ready { path, notes });
    }
    Err(format!("{shown} has too many dead mounts on it; run `umount -l {shown}` as root"))
}

/// The text of an error without the number that the standard library adds.
#[must_use]
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// "Transport endpoint is not connected": a FUSE mount whose process is gone.
fn is_stale(error: &io::Error) -> bool {
    let dead = [Errno::NOTCONN, Errno::CONNABORTED];
    dead.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The canonical path of a directory that itself answers nothing any more.
///
/// # Errors
/// When the directory that holds it cannot be resolved.
pub fn locate(dir: &Path) -> io::Result<PathBuf> {
    if let Ok(path) = fs::canonicalize(dir) {
        return Ok(path);
    }
    let absolute = std::path::absolute(dir)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Ok(absolute),
    }
}

/// Why unmounting failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnmountError {
    /// Some process has a file open in it or its working directory there.
    Busy,
    /// Anything else, in words.
    Other(String),
}

impl std::fmt::Display for UnmountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UnmountError::Busy => f.write_str("it is in use"),
            UnmountError::Other(why) => f.write_str(why),
        }
    }
}

/// Unmounts what is on a directory; `lazy` takes it out of the tree now and lets go of it when
/// the last process does. Goes through `fusermount3` where the user has no right to unmount.
///
/// # Errors
/// See [`UnmountError`].
pub fn unmount(point: &Path, lazy: bool) -> Result<(), UnmountError> {
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazy {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy),
        Err(Errno::PERM) => unmount_by_helper(point, lazy),
        Err(Errno::INVAL) => Err(UnmountError::Other("nothing is mounted there".into())),
        Err(error) => Err(UnmountError::Other(plain(&error.into()))),
    }
}

fn unmount_by_helper(point: &Path, lazy: bool) -> Result<(), UnmountError> {
    let mut command = helper();
    command.arg("-u").stdin(Stdio::null()).env("LC_ALL", "C");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(point).output().map_err(|error| {
        UnmountError::Other(format!(
            "fusermount3 cannot be run ({}); install the package fuse3, or unmount as root",
            plain(&error)
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("fusermount3 failed").trim().to_owned();
    if line.contains("busy") { Err(UnmountError::Busy) } else { Err(UnmountError::Other(line)) }
}

/// The set-user-id program that mounts for users who may not; `FUSERMOUNT_PATH` names another.
pub(crate) fn helper() -> Command {
    let named = std::env::var_os("FUSERMOUNT_PATH");
    Command::new(named.as_deref().unwrap_or(OsStr::from_bytes(b"fusermount3")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = b"36 35 98:0 / /mnt\\040one rw,noatime shared:1 - fuse.dbmount redis://h/0 rw\n\
            37 35 0:44 / /x rw - tmpfs tmpfs rw\nnonsense\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt one"));
        assert_eq!(mounts[0].kind, "fuse.dbmount");
        assert_eq!(mounts[0].source, "redis://h/0");
        assert_eq!(mounts[0].device, "98:0");
        assert!(mounts[0].is_fuse() && !mounts[1].is_fuse());
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for (raw, plain) in [("a\\134b", "a\\b"), ("a\\9", "a\\9"), ("\\", "\\"), ("\\01", "\\01")]
        {
            assert_eq!(unescape(raw.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn an_empty_directory_is_ready_and_a_full_one_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let empty = prepare(dir.path()).unwrap();
        assert_eq!(empty.path, fs::canonicalize(dir.path()).unwrap());
        assert!(empty.notes.is_empty());
        fs::write(dir.path().join("f"), "").unwrap();
        let full = prepare(dir.path()).unwrap();
        assert!(full.notes[0].contains("is not empty"), "{:?}", full.notes);
    }

    #[test]
    fn what_cannot_be_mounted_on_is_said_in_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, said) in [
            (dir.path().join("missing"), "does not exist; make it with `mkdir -p"),
            (file.clone(), "is not a directory"),
            (file.join("below"), "Not a directory"),
            (PathBuf::from("/proc"), "has proc (proc) mounted on it already"),
        ] {
            let error = prepare(&path).unwrap_err();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains('\n') && !error.contains("os error"), "{error}");
        }
    }

    #[test]
    fn a_relative_path_is_located() {
        let here = fs::canonicalize(".").unwrap();
        assert_eq!(locate(Path::new(".")).unwrap(), here);
        assert_eq!(locate(Path::new("./no-such")).unwrap(), here.join("no-such"));
    }
}
