//! What `/proc` tells of the process that waits for a request, where the FUSE protocol (or fuser)
//! does not.

use std::fs;

use dbmount_engine::lock::LockKind;

/// The number of the system call `flock` here; `None` where it is not known.
const FLOCK: Option<u64> = if cfg!(target_arch = "x86_64") {
    Some(73)
} else if cfg!(any(target_arch = "aarch64", target_arch = "riscv64")) {
    Some(32)
} else {
    None
};

/// Which family a lock over a whole file is of. The kernel says so in `FUSE_LK_FLOCK`, which fuser
/// 0.18 does not hand on; but whoever asks is inside the system call, and its number tells. A
/// process that cannot be looked at (another user's, where only root may) is held to use `flock`,
/// which knows no other range, while record locks over whole files are rare.
#[must_use]
pub fn lock_kind(tid: u32) -> LockKind {
    match (fs::read_to_string(format!("/proc/{tid}/syscall")), FLOCK) {
        (Ok(line), Some(flock)) => kind_in(&line, flock),
        _ => LockKind::Flock,
    }
}

/// The line holds the number and the arguments, or `running`.
fn kind_in(line: &str, flock: u64) -> LockKind {
    match line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()) {
        Some(number) if number != flock => LockKind::Record,
        _ => LockKind::Flock,
    }
}

/// Whether a thread has a signal to take, or is gone: then it must not be kept waiting. fuser
/// answers `FUSE_INTERRUPT` by "not there", and the kernel then never sends it again.
#[must_use]
pub fn is_interrupted(tid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => has_signal(&status),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// A signal that is pending for the thread or its process, and neither blocked nor ignored.
fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk") & !mask("SigIgn") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_system_call_tells_the_family() {
        assert_eq!(kind_in("73 0x3 0x2 0x0 0x0 0x0 0x0 0x7ffc 0x7f1b", 73), LockKind::Flock);
        assert_eq!(kind_in("72 0x3 0x26 0x7ffc 0x0 0x0 0x0 0x7ffc 0x7f1b", 73), LockKind::Record);
        assert_eq!(kind_in("running", 73), LockKind::Flock);
    }

    #[test]
    fn only_a_signal_that_can_be_taken_counts() {
        let status = |pending: u64, shared: u64, blocked: u64, ignored: u64| {
            format!(
                "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n\
                 SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000000000000000\n"
            )
        };
        assert!(!has_signal(&status(0, 0, 0, 0)));
        assert!(has_signal(&status(1 << 8, 0, 0, 0)), "SIGKILL");
        assert!(has_signal(&status(0, 1 << 1, 0, 0)), "SIGINT to the process");
        assert!(!has_signal(&status(1 << 1, 0, 1 << 1, 0)), "blocked");
        assert!(!has_signal(&status(0, 1 << 16, 0, 1 << 16)), "ignored");
        assert!(!has_signal("nonsense"));
    }

    #[test]
    fn this_thread_has_no_signal_and_one_that_never_was_does_not_wait() {
        assert!(!is_interrupted(std::process::id()));
        assert!(is_interrupted(u32::MAX));
    }
}
