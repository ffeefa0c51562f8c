//! Locks between mounts: a hash beside the inode, with a field for each mount that has locked
//! something of it. Each mount keeps its own locks apart; the script only looks at those of others,
//! and a mount that has ended has none.

use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Command, Redis, Reply};
use crate::contract::Mode;
use crate::engine::Cx;
use crate::id::{Ino, Lane, LockOwner};
use crate::layout::{LockChange, Outcome, Step, Work};
use crate::lock::{Lock, LockKind, LockMode};

use super::key::Key;
use super::record::Stamp;
use super::{Ticket, Volume, decimal, scripts};

/// A change on its way.
#[derive(Clone, Copy, Debug)]
pub struct Locking {
    ino: Ino,
    /// A lock was wanted: whoever had it before may have written.
    wanted: bool,
}

impl Volume {
    pub(super) fn start_lock(&mut self, ino: Ino, change: &LockChange) -> Step<Self> {
        let hold = change.hold.as_deref();
        let records: Vec<u8> = hold.unwrap_or_default().iter().flat_map(record).collect();
        let keys = [Key::Locks(ino), Key::Sessions, Key::Inode(ino), Key::Locked(self.mount)];
        let command = Command::Script {
            script: &scripts::LOCK,
            keys: keys.into_iter().map(|key| self.key(key)).collect(),
            args: smallvec![
                decimal(self.mount.0),
                decimal(ino.0),
                change.wanted.as_ref().map(record).unwrap_or_default().into(),
                decimal(u64::from(hold.is_some())),
                Bytes::from(records),
            ],
        };
        let ticket = Ticket::Lock(Locking { ino, wanted: change.wanted.is_some() });
        let work = Self::work(Lane::Meta, alloc::vec![command], ticket);
        Step::Work(Work { mode: Mode::Independent, ..work })
    }

    pub(super) fn locked(
        &mut self,
        locking: Locking,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let Locking { ino, wanted } = locking;
        let answer = replies.first().and_then(Reply::as_array).unwrap_or_default();
        let what = answer.get(1).and_then(Reply::as_bytes);
        match (answer.first().and_then(Reply::as_bytes), what) {
            (Some(b"ok"), stamp) => {
                if wanted {
                    self.seen(ino, stamp.map_or(Stamp::default(), Stamp::parse), cx);
                }
                Step::Done(Outcome::Locked(Ok(())))
            }
            (Some(b"no"), Some(held)) => match parse(held) {
                Some(held) => Step::Done(Outcome::Locked(Err(held))),
                None => Step::Fail(self.odd("locking", replies.first())),
            },
            _ => Step::Fail(self.odd("locking", replies.first())),
        }
    }
}

/// A lock as the script has it.
fn record(lock: &Lock) -> Vec<u8> {
    let kind = match lock.kind {
        LockKind::Record => 'r',
        LockKind::Flock => 'f',
    };
    let mode = match lock.mode {
        LockMode::Shared => 's',
        LockMode::Exclusive => 'x',
    };
    format!("{kind}{mode}{:016x}{:016x}", lock.start, lock.end).into_bytes()
}

/// A lock of another mount; who has it there is not known.
fn parse(record: &[u8]) -> Option<Lock> {
    let text = core::str::from_utf8(record).ok()?;
    let kind = match text.get(..1)? {
        "r" => LockKind::Record,
        "f" => LockKind::Flock,
        _ => return None,
    };
    let mode = match text.get(1..2)? {
        "s" => LockMode::Shared,
        "x" => LockMode::Exclusive,
        _ => return None,
    };
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (start, end) = (number(text.get(2..18)?)?, number(text.get(18..34)?)?);
    (start < end).then_some(Lock { kind, mode, start, end, owner: LockOwner(0), pid: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let lock = Lock {
            kind: LockKind::Record,
            mode: LockMode::Exclusive,
            start: 0x7fff_ffff_ffff_fff0,
            end: Lock::END,
            owner: LockOwner(0),
            pid: 0,
        };
        let other = Lock { kind: LockKind::Flock, mode: LockMode::Shared, start: 0, ..lock };
        for lock in [lock, other] {
            assert_eq!(record(&lock).len(), 34);
            assert_eq!(parse(&record(&lock)), Some(lock));
        }
    }

    #[test]
    fn what_is_no_record_is_no_lock() {
        for text in
            ["", "rx", "zx00000000000000000000000000000001", "rx0000000000000000000000000000000"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        let mut empty = record(&parse(b"rx00000000000000000000000000000001").unwrap());
        empty[33] = b'0';
        assert_eq!(parse(&empty), None, "no bytes");
    }
}
