//! Between the engine's words and the kernel's: errors, attributes, times, flags. Each list is
//! one exhaustive match, so that a new variant does not compile until it is placed here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dbmount_engine::lock::{Lock, LockKind, LockMode};
use dbmount_engine::op::{FallocateMode, OpenFlags, RenameMode, SetTime, Whence, XattrMode};
use dbmount_engine::{Attr, Caller, Errno, Kind, LockOwner, Wall};
use fuser::{FileAttr, FileType, FopenFlags, INodeNo, RenameFlags, TimeOrNow};
use rustix::fs::{OFlags, XattrFlags};

use crate::machine::wall;

/// What `st_blksize` says for a regular file. Programs size their buffers by it, and without a
/// write-back cache in the kernel each buffer is one request.
const FILE_BLOCK: u32 = 128 << 10;
/// What `st_blksize` says for everything else.
const OTHER_BLOCK: u32 = 4096;

/// The number of an error on this system.
#[must_use]
pub fn errno(errno: Errno) -> fuser::Errno {
    match errno {
        Errno::EACCES => fuser::Errno::EACCES,
        Errno::EAGAIN => fuser::Errno::EAGAIN,
        Errno::EBADF => fuser::Errno::EBADF,
        Errno::EBUSY => fuser::Errno::EBUSY,
        Errno::EDQUOT => fuser::Errno::EDQUOT,
        Errno::EEXIST => fuser::Errno::EEXIST,
        Errno::EFBIG => fuser::Errno::EFBIG,
        Errno::EINTR => fuser::Errno::EINTR,
        Errno::EINVAL => fuser::Errno::EINVAL,
        Errno::EIO => fuser::Errno::EIO,
        Errno::EISDIR => fuser::Errno::EISDIR,
        Errno::ELOOP => fuser::Errno::ELOOP,
        Errno::EMLINK => fuser::Errno::EMLINK,
        Errno::ENAMETOOLONG => fuser::Errno::ENAMETOOLONG,
        Errno::ENODATA => fuser::Errno::ENODATA,
        Errno::ENODEV => fuser::Errno::ENODEV,
        Errno::ENOENT => fuser::Errno::ENOENT,
        Errno::ENOLCK => fuser::Errno::ENOLCK,
        Errno::ENOMEM => fuser::Errno::ENOMEM,
        Errno::ENOSPC => fuser::Errno::ENOSPC,
        Errno::ENOSYS => fuser::Errno::ENOSYS,
        Errno::ENOTDIR => fuser::Errno::ENOTDIR,
        Errno::ENOTEMPTY => fuser::Errno::ENOTEMPTY,
        Errno::ENXIO => fuser::Errno::ENXIO,
        Errno::EOPNOTSUPP => fuser::Errno::EOPNOTSUPP,
        Errno::EOVERFLOW => fuser::Errno::EOVERFLOW,
        Errno::EPERM => fuser::Errno::EPERM,
        Errno::ERANGE => fuser::Errno::ERANGE,
        Errno::EROFS => fuser::Errno::EROFS,
        Errno::ESTALE => fuser::Errno::ESTALE,
        Errno::ETIMEDOUT => fuser::Errno::ETIMEDOUT,
        Errno::ETXTBSY => fuser::Errno::ETXTBSY,
        Errno::EXDEV => fuser::Errno::EXDEV,
        Errno::E2BIG => fuser::Errno::E2BIG,
    }
}

/// A kind of file in the kernel's terms.
#[must_use]
pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in the `S_IFMT` bits of a mode, as `mknod` has it; `None` for bits that no file has.
#[must_use]
pub fn kind_of_mode(mode: u32) -> Option<Kind> {
    use rustix::fs::FileType as Type;
    match Type::from_raw_mode(mode) {
        Type::RegularFile => Some(Kind::File),
        Type::Directory => Some(Kind::Dir),
        Type::Symlink => Some(Kind::Symlink),
        Type::Fifo => Some(Kind::Fifo),
        Type::Socket => Some(Kind::Socket),
        Type::CharacterDevice => Some(Kind::CharDevice),
        Type::BlockDevice => Some(Kind::BlockDevice),
        // `mknod(2)`: zero means a regular file.
        Type::Unknown if mode & !0o7777 == 0 => Some(Kind::File),
        Type::Unknown => None,
    }
}

/// The permission bits of a mode.
#[must_use]
pub fn perm_of_mode(mode: u32) -> u16 {
    // Masked to twelve bits.
    (mode & 0o7777) as u16
}

/// Attributes as the kernel takes them.
#[must_use]
pub fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: if attr.kind == Kind::File { FILE_BLOCK } else { OTHER_BLOCK },
        flags: 0,
    }
}

/// A stand-in for attributes that are not known: the kernel must be given no time to keep them.
#[must_use]
pub fn unknown_attr(ino: INodeNo, kind: Kind) -> FileAttr {
    let never = Wall::default();
    let attr = Attr {
        ino: dbmount_engine::Ino(ino.0),
        kind,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        atime: never,
        mtime: never,
        ctime: never,
    };
    file_attr(&attr)
}

/// A time as the standard library has it.
#[must_use]
pub fn system_time(wall: Wall) -> SystemTime {
    let distance = Duration::from_nanos(wall.0.unsigned_abs());
    if wall.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// A time that `utimensat` sets.
///
/// fuser 0.18 decodes times before the epoch as `-(seconds) - nanoseconds` where the kernel means
/// `-(seconds) + nanoseconds`; the two parts are still told apart, so this puts them together
/// again as they were meant.
#[must_use]
pub fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(match UNIX_EPOCH.duration_since(time) {
            Ok(before) if !before.is_zero() => {
                let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |s| -s);
                Wall::from_parts(seconds, before.subsec_nanos())
            }
            _ => wall(time),
        }),
    }
}

/// The process that asks.
#[must_use]
pub fn caller(request: &fuser::Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask: 0 }
}

/// The flags of `open(2)` that mean something to the engine.
#[must_use]
pub fn open_flags(raw: i32) -> OpenFlags {
    let flags = OFlags::from_bits_retain(raw.cast_unsigned());
    OpenFlags {
        write: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
        truncate: flags.contains(OFlags::TRUNC),
        append: flags.contains(OFlags::APPEND),
        exclusive: flags.contains(OFlags::EXCL),
    }
}

/// What the kernel is told of an opened file.
#[must_use]
pub fn opened_flags(opened: &dbmount_engine::op::Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags
}

/// The flags of `renameat2(2)`; `None` for what no filesystem here can do (`RENAME_WHITEOUT`) and
/// for combinations that exclude each other.
#[must_use]
pub fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

/// The flags of `setxattr(2)`; `None` for unknown ones.
#[must_use]
pub fn xattr_mode(raw: i32) -> Option<XattrMode> {
    let flags = XattrFlags::from_bits_retain(raw.cast_unsigned());
    if flags.is_empty() {
        Some(XattrMode::Any)
    } else if flags == XattrFlags::CREATE {
        Some(XattrMode::Create)
    } else if flags == XattrFlags::REPLACE {
        Some(XattrMode::Replace)
    } else {
        None
    }
}

/// The mode of `fallocate(2)`; `None` for operations that the engine has no word for.
#[must_use]
pub fn fallocate_mode(raw: i32) -> Option<FallocateMode> {
    use rustix::fs::FallocateFlags as Flags;
    let flags = Flags::from_bits_retain(raw.cast_unsigned());
    let known = Flags::KEEP_SIZE | Flags::PUNCH_HOLE | Flags::ZERO_RANGE;
    known.contains(flags).then(|| FallocateMode {
        keep_size: flags.contains(Flags::KEEP_SIZE),
        punch_hole: flags.contains(Flags::PUNCH_HOLE),
        zero_range: flags.contains(Flags::ZERO_RANGE),
    })
}

/// What `lseek(2)` looks for; `None` for what the kernel answers by itself.
#[must_use]
pub fn whence(raw: i32) -> Option<Whence> {
    // <linux/fs.h>: SEEK_DATA, SEEK_HOLE.
    match raw {
        3 => Some(Whence::Data),
        4 => Some(Whence::Hole),
        _ => None,
    }
}

// <asm-generic/fcntl.h>
const F_RDLCK: i32 = 0;
const F_WRLCK: i32 = 1;
const F_UNLCK: i32 = 2;

/// What a lock excludes, `Some(None)` for giving one up; `None` for what is no lock.
#[must_use]
pub fn lock_mode(raw: i32) -> Option<Option<LockMode>> {
    match raw {
        F_RDLCK => Some(Some(LockMode::Shared)),
        F_WRLCK => Some(Some(LockMode::Exclusive)),
        F_UNLCK => Some(None),
        _ => None,
    }
}

/// A lock; the kernel's ranges hold their last byte.
#[must_use]
pub fn lock(
    kind: LockKind,
    mode: LockMode,
    (start, last): (u64, u64),
    owner: LockOwner,
    pid: u32,
) -> Lock {
    let end = last.saturating_add(1).min(Lock::END);
    Lock { kind, mode, start, end, owner, pid }
}

/// A lock as `F_GETLK` shows it: start, last byte, type and process. None at all is one that is
/// not held.
#[must_use]
pub fn shown_lock(lock: Option<Lock>) -> (u64, u64, i32, u32) {
    match lock {
        Some(Lock { mode, start, end, pid, .. }) => {
            let typ = if mode == LockMode::Shared { F_RDLCK } else { F_WRLCK };
            (start, end - 1, typ, pid)
        }
        None => (0, Lock::END - 1, F_UNLCK, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_survive_the_kernel_interface() {
        // What fuser makes of the timespec { -2 s, 800 ms }, which is 1.2 s before the epoch.
        let decoded = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let set = set_time(TimeOrNow::SpecificTime(decoded));
        assert_eq!(set, SetTime::At(Wall(-1_200_000_000)));
        assert_eq!(system_time(Wall(-1_200_000_000)), UNIX_EPOCH - Duration::from_millis(1200));
    }

    #[test]
    fn times_at_and_after_the_epoch_are_taken_as_they_are() {
        for nanos in [0, 1, 1_700_000_000_123_456_789] {
            let time = system_time(Wall(nanos));
            assert_eq!(set_time(TimeOrNow::SpecificTime(time)), SetTime::At(Wall(nanos)));
        }
        assert_eq!(set_time(TimeOrNow::Now), SetTime::Now);
    }

    #[test]
    fn blocks_are_counted_up() {
        let mut attr = Attr {
            ino: dbmount_engine::Ino(2),
            kind: Kind::File,
            perm: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            atime: Wall(0),
            mtime: Wall(0),
            ctime: Wall(0),
        };
        for (size, blocks) in [(0, 0), (1, 1), (512, 1), (513, 2)] {
            attr.size = size;
            assert_eq!(file_attr(&attr).blocks, blocks);
        }
    }

    #[test]
    fn flags_outside_the_known_ones_are_refused() {
        assert_eq!(rename_mode(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(rename_mode(RenameFlags::all()), None);
        assert_eq!(xattr_mode(3), None);
        assert_eq!(fallocate_mode(0x08), None, "FALLOC_FL_COLLAPSE_RANGE");
        assert_eq!(kind_of_mode(0o644), Some(Kind::File));
        assert_eq!(kind_of_mode(0o010_644), Some(Kind::Fifo));
        assert_eq!(kind_of_mode(0o030_644), None);
    }

    #[test]
    fn locks_survive_there_and_back() {
        let end = i64::MAX as u64;
        let whole = lock(LockKind::Flock, LockMode::Exclusive, (0, end), LockOwner(1), 7);
        assert!(whole.is_whole());
        assert_eq!(shown_lock(Some(whole)), (0, end, F_WRLCK, 7));
        let byte = lock(LockKind::Record, LockMode::Shared, (5, 5), LockOwner(1), 7);
        assert_eq!((byte.start, byte.end), (5, 6));
        assert_eq!(shown_lock(Some(byte)), (5, 5, F_RDLCK, 7));
        assert_eq!(shown_lock(None).2, F_UNLCK);
        assert_eq!(lock_mode(F_UNLCK), Some(None));
        assert_eq!(lock_mode(9), None);
    }

    #[test]
    fn open_flags_are_told_apart() {
        let flags = open_flags((OFlags::RDWR | OFlags::TRUNC).bits().cast_signed());
        assert!(flags.write && flags.truncate && !flags.append && !flags.exclusive);
        assert!(!open_flags(0).write);
    }
}
