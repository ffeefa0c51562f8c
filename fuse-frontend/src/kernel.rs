//! Mounting: `/dev/fuse` and `mount(2)` where the process may, `fusermount3` where it may not.
//!
//! fuser can mount by itself. It is not used for that because at the end of a session it unmounts
//! its path again even when the mount is gone already, and so could take away a mount that
//! somebody put there meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::mountpoint::{helper, mounted_on, plain};

const DEVICE: &str = "/dev/fuse";

/// How a filesystem is mounted: what `mount(8)` shows and what the kernel enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What is mounted, in `/proc/mounts`. Holds no credentials.
    pub fsname: String,
    /// The part of the type after `fuse.`.
    pub subtype: String,
    /// Nothing can be changed.
    pub read_only: bool,
    /// Set-user-id bits count.
    pub suid: bool,
    /// Device nodes work.
    pub dev: bool,
    /// Programs can be run.
    pub exec: bool,
    /// Access times are never set.
    pub noatime: bool,
    /// Every write is synchronous.
    pub sync: bool,
    /// Every change of a directory is synchronous.
    pub dirsync: bool,
    /// Users other than the one who mounted may come in.
    pub allow_other: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            fsname: "dbmount".into(),
            subtype: "dbmount".into(),
            read_only: false,
            suid: false,
            dev: false,
            exec: true,
            noatime: false,
            sync: false,
            dirsync: false,
            allow_other: false,
        }
    }
}

impl MountOptions {
    fn flags(&self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, !self.suid);
        flags.set(MountFlags::NODEV, !self.dev);
        flags.set(MountFlags::NOEXEC, !self.exec);
        flags.set(MountFlags::NOATIME, self.noatime);
        flags.set(MountFlags::SYNCHRONOUS, self.sync);
        flags.set(MountFlags::DIRSYNC, self.dirsync);
        flags
    }

    /// As `fusermount3 -o` takes them. It sets `nosuid` and `nodev` by itself, for it mounts for
    /// users who could use them to become root.
    fn helper_argument(&self) -> String {
        let mut words = vec![
            format!("fsname={}", escape(&self.fsname)),
            format!("subtype={}", escape(&self.subtype)),
            "default_permissions".to_owned(),
        ];
        for (given, word) in [
            (self.read_only, "ro"),
            (self.suid, "suid"),
            (self.dev, "dev"),
            (!self.exec, "noexec"),
            (self.noatime, "noatime"),
            (self.sync, "sync"),
            (self.dirsync, "dirsync"),
            (self.allow_other, "allow_other"),
        ] {
            if given {
                words.push(word.to_owned());
            }
        }
        words.join(",")
    }
}

/// `fusermount3` splits its options at commas that no backslash protects.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,")
}

/// Mounts on a (canonical) directory and returns the device to serve it from. The mount ends when
/// the last copy of the device is closed, though the directory then answers "not connected" until
/// it is unmounted.
///
/// # Errors
/// One line that says what is wrong and what to do.
pub fn mount(point: &Path, options: &MountOptions) -> Result<OwnedFd, String> {
    let device = open_device()?;
    let meta =
        point.metadata().map_err(|error| format!("{}: {}", point.display(), plain(&error)))?;
    // Permissions are checked by the kernel, from the attributes that the engine gives.
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        meta.mode() & 0o170_000,
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let kind = format!("fuse.{}", options.subtype);
    let data = std::ffi::CString::new(data).map_err(|_| "an option holds a NUL".to_owned())?;
    let fsname = options.fsname.as_str();
    match rustix::mount::mount(fsname, point, kind, options.flags(), data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => mount_by_helper(point, options),
        Err(Errno::NODEV) => {
            Err("the kernel has no FUSE; load it with `modprobe fuse` as root".to_owned())
        }
        Err(error) => Err(format!("cannot mount on {}: {}", point.display(), plain(&error.into()))),
    }
}

/// The device is opened by whoever mounts, through the helper too.
fn open_device() -> Result<OwnedFd, String> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(file) => Ok(OwnedFd::from(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
            "{DEVICE} is missing; load FUSE with `modprobe fuse` as root, or give it to the \
             container with `--device {DEVICE} --cap-add SYS_ADMIN`"
        )),
        Err(error) => Err(format!(
            "{DEVICE} cannot be opened ({}); you need read and write permission on it \
             (`chmod 666 {DEVICE}` as root)",
            plain(&error)
        )),
    }
}

fn mount_by_helper(point: &Path, options: &MountOptions) -> Result<OwnedFd, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| plain(&error))?;
    // The helper finds its end by number; it is closed here as soon as the helper runs.
    fcntl_setfd(&theirs, FdFlags::empty()).map_err(|error| plain(&error.into()))?;
    let child = helper()
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .env("LC_ALL", "C")
        .arg("-o")
        .arg(options.helper_argument())
        .arg("--")
        .arg(point)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            format!(
                "fusermount3 cannot be run ({}); install the package fuse3, or mount as root",
                plain(&error)
            )
        })?;
    drop(theirs);
    let device = receive_device(&ours);
    let output = child.wait_with_output().map_err(|error| plain(&error))?;
    if let (Ok(Some(device)), true) = (device, output.status.success()) {
        return Ok(device);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("fusermount3 failed").trim();
    if line.contains("user_allow_other") {
        return Err("allow_other needs the line `user_allow_other` in /etc/fuse.conf, \
                    or mount as root"
            .to_owned());
    }
    Err(format!("cannot mount on {}: {line}", point.display()))
}

/// The helper sends the opened device over the socket; `None` when it ended without.
fn receive_device(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut data = [IoSliceMut::new(&mut byte)];
    loop {
        match recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let device = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

/// Lets the kernel read ahead as far as one request goes. FUSE itself is capped at 128 KiB; root
/// can lift that in sysfs, and for others it stays.
pub fn raise_readahead(point: &Path) {
    const KIBIBYTES: &str = "1024";
    let Ok(Some(mount)) = mounted_on(point) else { return };
    let setting = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    let written = File::options()
        .write(true)
        .open(&setting)
        .and_then(|mut file| io::Write::write_all(&mut file, KIBIBYTES.as_bytes()));
    if let Err(error) = written {
        tracing::debug!(setting, %error, "read-ahead stays at the kernel's own");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_gets_its_options_protected() {
        let options = MountOptions {
            fsname: "redis://a,b\\c".into(),
            read_only: true,
            allow_other: true,
            ..MountOptions::default()
        };
        assert_eq!(
            options.helper_argument(),
            "fsname=redis://a\\,b\\\\c,subtype=dbmount,default_permissions,ro,allow_other"
        );
    }

    #[test]
    fn the_defaults_are_the_safe_ones() {
        let flags = MountOptions::default().flags();
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV);
    }
}
