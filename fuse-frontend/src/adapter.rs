//! The kernel's side: decodes each FUSE operation to a request of the engine. It holds no logic;
//! what an operation means is decided in the engine alone.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dbmount_engine::lock::{LockKind, LockMode};
use dbmount_engine::op::SetAttr;
use dbmount_engine::{Caller, Fh, Ino, LockOwner, Name, Request as Op};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, Request, TimeOrNow, WriteFlags,
};

use crate::convert;
use crate::driver::Driver;
use crate::machine::Machine;
use crate::process;
use crate::reply::Reply;

/// The most the kernel sends in one write, and the most it asks for in one read.
const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way without a process waiting for each (read-ahead,
/// asynchronous direct IO).
const MAX_BACKGROUND: u16 = 128;

/// What is asked of the kernel, where it has it.
///
/// Not among them: `EXPORT_SUPPORT` (NFS would look up `.` and `..` of inodes long forgotten),
/// `WRITEBACK_CACHE` (it halved sequential
/// writes, and hides from the engine when a file changed), `SETXATTR_EXT`, `HANDLE_KILLPRIV_V2`
/// and `ALLOW_IDMAP` (fuser 0.18 does not decode what the kernel then sends).
const WANTED: [InitFlags; 10] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // What is open for appending is not cached, and can be mapped all the same.
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
];

/// Asked for as well where locks hold between mounts. Without these the kernel keeps locks itself,
/// which is right for one mount.
const WANTED_FOR_LOCKS: [InitFlags; 2] = [InitFlags::FUSE_POSIX_LOCKS, InitFlags::FUSE_FLOCK_LOCKS];

/// Asked for as well where inodes have ACLs: the kernel checks them, and leaves the umask to the
/// engine, which knows where a default ACL takes its place. One without the other would be wrong.
const WANTED_FOR_ACLS: InitFlags = InitFlags::FUSE_POSIX_ACL.union(InitFlags::FUSE_DONT_MASK);

/// The minor version of the interface from which the kernel is known to ask for directories in
/// buffers as large as the program's own; before, in pages of memory.
const READDIR_SIZED_SINCE: u32 = 45;
/// The buffer of glibc's `readdir`.
const READDIR_SIZED: u32 = 32 << 10;
const READDIR_PAGE: u32 = 4096;

/// A filesystem whose every operation is a request to a driver.
#[derive(Debug)]
pub struct Adapter<M: Machine> {
    driver: Arc<Driver<M>>,
    /// What a page of a directory may take. fuser does not tell how large the kernel's buffer is;
    /// what does not fit is given back (see [`Reply::send`]).
    readdir_budget: u32,
    /// The kernel leaves the umask to the engine.
    masks: bool,
}

impl<M: Machine> Adapter<M> {
    /// An adapter to a driver.
    #[must_use]
    pub fn new(driver: Arc<Driver<M>>) -> Self {
        Adapter { driver, readdir_budget: READDIR_PAGE, masks: false }
    }

    /// Who makes something, and what it is not to be allowed.
    fn maker(&self, req: &Request, umask: u32) -> Caller {
        let umask = if self.masks { convert::perm_of_mode(umask) & 0o777 } else { 0 };
        Caller { umask, ..convert::caller(req) }
    }

    fn readdir_request(&self, ino: INodeNo, fh: FileHandle, offset: u64, plus: bool) -> Op {
        Op::ReadDir { ino: Ino(ino.0), fh: Fh(fh.0), offset, budget: self.readdir_budget, plus }
    }
}

impl<M: Machine> Filesystem for Adapter<M> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let for_locks: &[InitFlags] =
            if self.driver.caps().locks { &WANTED_FOR_LOCKS } else { &[] };
        for &flag in WANTED.iter().chain(for_locks) {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "this kernel does not have it");
            }
        }
        if self.driver.caps().acls {
            self.masks = config.add_capabilities(WANTED_FOR_ACLS).is_ok();
        }
        // Each setter refuses what is out of range with the nearest value in it.
        if let Err(nearest) = config.set_max_write(MAX_WRITE) {
            let _in_range = config.set_max_write(nearest);
        }
        if let Err(nearest) = config.set_max_readahead(MAX_WRITE) {
            let _in_range = config.set_max_readahead(nearest);
        }
        if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
            let _in_range = config.set_max_background(nearest);
        }
        let version = config.kernel_abi();
        if version.0 > 7 || version.1 >= READDIR_SIZED_SINCE {
            self.readdir_budget = READDIR_SIZED;
        }
        tracing::debug!(?version, "the kernel is connected");
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEntry) {
        let request = Op::Lookup { parent: Ino(parent.0), name: name_of(name) };
        self.driver.request(request, Reply::Entry(reply));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, count: u64) {
        self.driver.forget([(Ino(ino.0), count)]);
    }

    // `batch_forget`: fuser does not export the type of its argument's elements by name, so it
    // cannot be written here; its default calls `forget` for each.

    fn getattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: Option<FileHandle>,
        reply: fuser::ReplyAttr,
    ) {
        self.driver.request(Op::GetAttr { ino: Ino(ino.0) }, Reply::Attr(reply));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: fuser::ReplyAttr,
    ) {
        let set = SetAttr {
            perm: mode.map(convert::perm_of_mode),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        let request = Op::SetAttr { ino: Ino(ino.0), set, caller: convert::caller(req) };
        self.driver.request(request, Reply::Attr(reply));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: fuser::ReplyData) {
        self.driver.request(Op::ReadLink { ino: Ino(ino.0) }, Reply::Data(reply));
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: fuser::ReplyEntry,
    ) {
        let Some(kind) = convert::kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let request = Op::Mknod {
            parent: Ino(parent.0),
            name: name_of(name),
            kind,
            perm: convert::perm_of_mode(mode),
            rdev,
            caller: self.maker(req, umask),
        };
        self.driver.request(request, Reply::Entry(reply));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: fuser::ReplyEntry,
    ) {
        let request = Op::Mkdir {
            parent: Ino(parent.0),
            name: name_of(name),
            perm: convert::perm_of_mode(mode),
            caller: self.maker(req, umask),
        };
        self.driver.request(request, Reply::Entry(reply));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let request = Op::Unlink { parent: Ino(parent.0), name: name_of(name) };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let request = Op::Rmdir { parent: Ino(parent.0), name: name_of(name) };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: fuser::ReplyEntry,
    ) {
        let request = Op::Symlink {
            parent: Ino(parent.0),
            name: name_of(name),
            target: Bytes::copy_from_slice(target.as_os_str().as_bytes()),
            caller: convert::caller(req),
        };
        self.driver.request(request, Reply::Entry(reply));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let Some(mode) = convert::rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let request = Op::Rename {
            parent: Ino(parent.0),
            name: name_of(name),
            to_parent: Ino(to_parent.0),
            to_name: name_of(to_name),
            mode,
        };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: fuser::ReplyEntry,
    ) {
        let request = Op::Link { ino: Ino(ino.0), parent: Ino(parent.0), name: name_of(name) };
        self.driver.request(request, Reply::Entry(reply));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: fuser::ReplyOpen) {
        let request = Op::Open { ino: Ino(ino.0), flags: convert::open_flags(flags.0) };
        self.driver.request(request, Reply::Open(reply));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyData,
    ) {
        let request = Op::Read { ino: Ino(ino.0), fh: Fh(fh.0), offset, size };
        self.driver.request(request, Reply::Data(reply));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<fuser::LockOwner>,
        reply: fuser::ReplyWrite,
    ) {
        let data = Bytes::copy_from_slice(data);
        let request = Op::Write { ino: Ino(ino.0), fh: Fh(fh.0), offset, data };
        self.driver.request(request, Reply::Write(reply));
    }

    fn flush(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        lock_owner: fuser::LockOwner,
        reply: fuser::ReplyEmpty,
    ) {
        let owner = LockOwner(lock_owner.0);
        let request = Op::Flush { ino: Ino(ino.0), fh: Fh(fh.0), owner };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<fuser::LockOwner>,
        _flush: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let owner = lock_owner.map(|owner| LockOwner(owner.0));
        let request = Op::Release { ino: Ino(ino.0), fh: Fh(fh.0), owner };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let request = Op::Fsync { ino: Ino(ino.0), fh: Fh(fh.0), data_only };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: fuser::ReplyOpen) {
        self.driver.request(Op::OpenDir { ino: Ino(ino.0) }, Reply::Open(reply));
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectory,
    ) {
        let request = self.readdir_request(ino, fh, offset, false);
        self.driver.request(request, Reply::Directory(reply));
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: fuser::ReplyDirectoryPlus,
    ) {
        let request = self.readdir_request(ino, fh, offset, true);
        self.driver.request(request, Reply::DirectoryPlus(reply));
    }

    fn releasedir(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: fuser::ReplyEmpty,
    ) {
        let request = Op::ReleaseDir { ino: Ino(ino.0), fh: Fh(fh.0) };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _data_only: bool,
        reply: fuser::ReplyEmpty,
    ) {
        self.driver.request(Op::FsyncDir { ino: Ino(ino.0) }, Reply::Empty(reply));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: fuser::ReplyStatfs) {
        self.driver.request(Op::StatFs, Reply::Statfs(reply));
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: fuser::ReplyEmpty,
    ) {
        let Some(mode) = convert::xattr_mode(flags) else { return reply.error(Errno::EINVAL) };
        let value = Bytes::copy_from_slice(value);
        let request = Op::SetXattr { ino: Ino(ino.0), name: name_of(name), value, mode };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn getxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: fuser::ReplyXattr,
    ) {
        let request = Op::GetXattr { ino: Ino(ino.0), name: name_of(name) };
        self.driver.request(request, Reply::Xattr(reply, size));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: fuser::ReplyXattr) {
        self.driver.request(Op::ListXattr { ino: Ino(ino.0) }, Reply::Xattr(reply, size));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: fuser::ReplyEmpty) {
        let request = Op::RemoveXattr { ino: Ino(ino.0), name: name_of(name) };
        self.driver.request(request, Reply::Empty(reply));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: fuser::ReplyCreate,
    ) {
        let request = Op::Create {
            parent: Ino(parent.0),
            name: name_of(name),
            perm: convert::perm_of_mode(mode),
            flags: convert::open_flags(flags),
            caller: self.maker(req, umask),
        };
        self.driver.request(request, Reply::Create(reply));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: fuser::ReplyEmpty,
    ) {
        let Some(mode) = convert::fallocate_mode(mode) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let request = Op::Fallocate { ino: Ino(ino.0), fh: Fh(fh.0), offset, length, mode };
        self.driver.request(request, Reply::Empty(reply));
    }

    /// Only asked for `SEEK_DATA` and `SEEK_HOLE`.
    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: fuser::ReplyLseek,
    ) {
        let Some(whence) = convert::whence(whence) else { return reply.error(Errno::EINVAL) };
        // lseek(2): ENXIO, the offset is beyond the end, "or the offset is negative".
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let request = Op::Seek { ino: Ino(ino.0), fh: Fh(fh.0), offset, whence };
        self.driver.request(request, Reply::Lseek(reply));
    }

    fn getlk(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        owner: fuser::LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        reply: fuser::ReplyLock,
    ) {
        let Some(Some(mode)) = convert::lock_mode(typ) else { return reply.error(Errno::EINVAL) };
        // Only `fcntl(2)` asks; there is no such question in `flock(2)`.
        let kind = LockKind::Record;
        let lock = convert::lock(kind, mode, (start, end), LockOwner(owner.0), pid);
        self.driver.request(Op::GetLock { ino: Ino(ino.0), lock }, Reply::Lock(reply));
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        owner: fuser::LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        sleep: bool,
        reply: fuser::ReplyEmpty,
    ) {
        let Some(mode) = convert::lock_mode(typ) else { return reply.error(Errno::EINVAL) };
        let (owner, ino) = (LockOwner(owner.0), Ino(ino.0));
        let shared = mode.unwrap_or(LockMode::Shared);
        let mut lock = convert::lock(LockKind::Record, shared, (start, end), owner, pid);
        if mode.is_none() {
            self.driver.request(Op::Unlock { ino, lock }, Reply::Empty(reply));
            return;
        }
        if lock.is_whole() {
            lock.kind = process::lock_kind(req.pid());
        }
        let request = Op::SetLock { ino, lock, wait: sleep };
        if sleep {
            self.driver.request_interruptible(request, Reply::Locked(reply), req.pid());
        } else {
            self.driver.request(request, Reply::Locked(reply));
        }
    }

    /// No ioctl of ours; said of this one call, not of the mount.
    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// "Not there", for good: the kernel then holds every file for ready, as on a disk.
    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// There are no blocks of a device to map to.
    fn bmap(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _blocksize: u32,
        _index: u64,
        reply: fuser::ReplyBmap,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        to_ino: INodeNo,
        to_fh: FileHandle,
        to_offset: u64,
        length: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: fuser::ReplyWrite,
    ) {
        let request = Op::CopyRange {
            ino: Ino(ino.0),
            fh: Fh(fh.0),
            offset,
            to_ino: Ino(to_ino.0),
            to_fh: Fh(to_fh.0),
            to_offset,
            length,
        };
        self.driver.request(request, Reply::Write(reply));
    }
}

fn name_of(name: &OsStr) -> Name {
    Name::from(name.as_bytes())
}
