//! `dbmount umount`: like `fusermount3 -u`, with a reason when it does not work.

use super::Failure;
use super::args::UmountArgs;
use crate::mountpoint::{UnmountError, locate, mounted_on, plain, unmount};

pub(super) fn run(args: &UmountArgs) -> Result<(), Failure> {
    let shown = args.directory.display();
    let failed = |line: String| Err(Failure::Failed(line));
    let point = match locate(&args.directory) {
        Ok(point) => point,
        Err(error) => return failed(format!("{shown}: {}", plain(&error))),
    };
    match mounted_on(&point) {
        Ok(Some(mount)) if mount.is_fuse() => {}
        Ok(Some(mount)) => {
            return failed(format!(
                "{shown} has {} ({}) on it, which is not ours; use umount(8)",
                mount.source, mount.kind
            ));
        }
        Ok(None) if point.exists() => return failed(format!("nothing is mounted on {shown}")),
        Ok(None) => return failed(format!("{shown} does not exist")),
        Err(error) => return failed(format!("/proc: {}", plain(&error))),
    }
    match unmount(&point, args.lazy) {
        Ok(()) => Ok(()),
        Err(UnmountError::Busy) => failed(format!(
            "{shown} is in use (`fuser -vm {shown}` shows by whom); end that, or use --lazy"
        )),
        Err(UnmountError::Other(why)) => failed(format!("{shown} cannot be unmounted: {why}")),
    }
}
