//! Replies that somebody waits for, each of the type that its request wants, and the one match
//! from the engine's responses to the kernel's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use dbmount_engine::op::{DirEntry, Entry, Opened, StatFs};
use dbmount_engine::{Errno, Ino, Name, Response};
use fuser::{FileHandle, Generation, INodeNo};

use crate::convert::{errno, file_attr, file_type, opened_flags, shown_lock, unknown_attr};

/// Inode numbers are never given to another file while the kernel knows them.
const GENERATION: Generation = Generation(0);
/// The unit in which `statvfs` counts.
const STATFS_BLOCK: u32 = 4096;

/// Somebody who waits for the answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// Success or failure, nothing else.
    Empty(fuser::ReplyEmpty),
    /// A looked-up or created name.
    Entry(fuser::ReplyEntry),
    /// Attributes.
    Attr(fuser::ReplyAttr),
    /// Bytes: contents, or the target of a symlink.
    Data(fuser::ReplyData),
    /// A handle.
    Open(fuser::ReplyOpen),
    /// A created name and a handle on it.
    Create(fuser::ReplyCreate),
    /// How much was written.
    Write(fuser::ReplyWrite),
    /// A page of names.
    Directory(fuser::ReplyDirectory),
    /// A page of names and attributes.
    DirectoryPlus(fuser::ReplyDirectoryPlus),
    /// Figures of the filesystem.
    Statfs(fuser::ReplyStatfs),
    /// An extended attribute or a list of them, into a buffer of so many bytes; into none, its
    /// length.
    Xattr(fuser::ReplyXattr, u32),
    /// Where data or a hole begins.
    Lseek(fuser::ReplyLseek),
    /// The lock that stands in the way.
    Lock(fuser::ReplyLock),
    /// That a lock is had. Given after the kernel has forgotten what it was told to.
    Locked(fuser::ReplyEmpty),
    /// The driver itself.
    Call(SyncSender<Result<Response, Errno>>),
}

impl Reply {
    /// Answers. Inodes whose lookup the engine counted but the kernel will not hear of are added
    /// to `unsent`.
    pub fn send(self, result: Result<Response, Errno>, unsent: &mut Vec<Ino>) {
        let response = match (self, result) {
            (Reply::Call(sender), result) => {
                // The caller may have given up waiting.
                let _gone = sender.send(result);
                return;
            }
            (reply, Ok(Response::NoEntry(ttl))) => return reply.no_entry(ttl),
            (reply, Ok(response)) => reply.answer(response, unsent),
            (reply, Err(error)) => return reply.fail(errno(error)),
        };
        if let Err(mismatch) = response {
            let (reply, response) = *mismatch;
            tracing::error!(?response, "a response that does not fit its request");
            reply.fail(fuser::Errno::EIO);
        }
    }

    /// The one match from responses to replies. Hands both back when they do not belong together,
    /// which is a defect of the engine.
    fn answer(
        self,
        response: Response,
        unsent: &mut Vec<Ino>,
    ) -> Result<(), Box<(Reply, Response)>> {
        match (self, response) {
            (Reply::Empty(reply) | Reply::Locked(reply), Response::Done) => reply.ok(),
            (Reply::Entry(reply), Response::Entry(entry)) => reply.entry_with_ttls(
                &entry.attr_ttl,
                &entry.entry_ttl,
                &file_attr(&entry.attr),
                GENERATION,
            ),
            (Reply::Attr(reply), Response::Attr(attr, ttl)) => reply.attr(&ttl, &file_attr(&attr)),
            (Reply::Data(reply), Response::Data(bytes) | Response::Target(bytes)) => {
                reply.data(&bytes);
            }
            (Reply::Open(reply), Response::Opened(opened)) => {
                reply.opened(FileHandle(opened.fh.0), opened_flags(&opened));
            }
            (Reply::Create(reply), Response::Created(entry, opened)) => {
                created(reply, &entry, &opened);
            }
            (Reply::Write(reply), Response::Written(count)) => reply.written(count),
            (Reply::Directory(reply), Response::Dir(entries)) => directory(reply, &entries),
            (Reply::DirectoryPlus(reply), Response::Dir(entries)) => {
                directory_plus(reply, &entries, unsent);
            }
            (Reply::Statfs(reply), Response::StatFs(figures)) => statfs(reply, &figures),
            (Reply::Xattr(reply, room), Response::Xattr(value) | Response::XattrNames(value)) => {
                xattr(reply, room, &value);
            }
            (Reply::Lseek(reply), Response::Offset(at)) => {
                // Offsets are within a file, whose length is one of `off_t`.
                reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
            }
            (Reply::Lock(reply), Response::Lock(lock)) => {
                let (start, last, typ, pid) = shown_lock(lock);
                reply.locked(start, last, typ, pid);
            }
            (reply, response) => return Err(Box::new((reply, response))),
        }
        Ok(())
    }

    /// A name that does not exist, which the kernel may remember: an entry without an inode. Only
    /// `lookup` may be told so; whoever else asked gets the plain error.
    fn no_entry(self, ttl: Duration) {
        match self {
            Reply::Entry(reply) if !ttl.is_zero() => {
                let nothing = unknown_attr(INodeNo(0), dbmount_engine::Kind::File);
                reply.entry_with_ttls(&Duration::ZERO, &ttl, &nothing, GENERATION);
            }
            reply => reply.fail(fuser::Errno::ENOENT),
        }
    }

    /// Answers with an error.
    pub fn fail(self, error: fuser::Errno) {
        match self {
            Reply::Empty(reply) | Reply::Locked(reply) => reply.error(error),
            Reply::Lseek(reply) => reply.error(error),
            Reply::Lock(reply) => reply.error(error),
            Reply::Entry(reply) => reply.error(error),
            Reply::Attr(reply) => reply.error(error),
            Reply::Data(reply) => reply.error(error),
            Reply::Open(reply) => reply.error(error),
            Reply::Create(reply) => reply.error(error),
            Reply::Write(reply) => reply.error(error),
            Reply::Directory(reply) => reply.error(error),
            Reply::DirectoryPlus(reply) => reply.error(error),
            Reply::Statfs(reply) => reply.error(error),
            Reply::Xattr(reply, _) => reply.error(error),
            Reply::Call(sender) => {
                let _gone = sender.send(Err(Errno::EIO));
            }
        }
    }
}

/// fuser takes one lifetime for both here; the shorter one is true for both.
fn shared_ttl(entry: &Entry) -> Duration {
    entry.attr_ttl.min(entry.entry_ttl)
}

fn created(reply: fuser::ReplyCreate, entry: &Entry, opened: &Opened) {
    reply.created(
        &shared_ttl(entry),
        &file_attr(&entry.attr),
        GENERATION,
        FileHandle(opened.fh.0),
        opened_flags(opened),
    );
}

/// The kernel goes on after the last entry it got, so what does not fit is simply asked for again.
fn directory(mut reply: fuser::ReplyDirectory, entries: &[DirEntry]) {
    for entry in entries {
        let name = os_str(&entry.name);
        if reply.add(INodeNo(entry.ino.0), entry.offset, file_type(entry.kind), name) {
            break;
        }
    }
    reply.ok();
}

fn directory_plus(
    mut reply: fuser::ReplyDirectoryPlus,
    entries: &[DirEntry],
    unsent: &mut Vec<Ino>,
) {
    let mut full = false;
    for line in entries {
        if !full {
            let (attr, ttl) = match &line.entry {
                Some(entry) => (file_attr(&entry.attr), shared_ttl(entry)),
                // `.` and `..`, which the kernel does not count as looked up. Anything else it
                // looks up by name before it believes it, since the lifetime is zero.
                None => (unknown_attr(INodeNo(line.ino.0), line.kind), Duration::ZERO),
            };
            let ino = INodeNo(line.ino.0);
            full = reply.add(ino, line.offset, os_str(&line.name), &ttl, &attr, GENERATION);
        }
        if full && line.entry.is_some() {
            unsent.push(line.ino);
        }
    }
    reply.ok();
}

fn statfs(reply: fuser::ReplyStatfs, figures: &StatFs) {
    let block = u64::from(STATFS_BLOCK);
    let free = figures.bytes_free / block;
    reply.statfs(
        figures.bytes_total / block,
        free,
        free,
        figures.files_total,
        figures.files_free,
        STATFS_BLOCK,
        // `NAME_MAX` is 255.
        Name::MAX as u32,
        STATFS_BLOCK,
    );
}

/// `getxattr(2)`: a buffer of no bytes asks for the length, one that is too short is `ERANGE`.
fn xattr(reply: fuser::ReplyXattr, room: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(_) => reply.error(fuser::Errno::E2BIG),
    }
}

fn os_str(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}
