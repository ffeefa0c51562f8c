//! Server sessions: ids for reuse, transaction numbers, transactions, the cluster's clock.
//!
//! Sources: the driver sessions, retryable writes and transactions specifications.

use bytes::Bytes;

use crate::error::Misuse;
use crate::uri::{WriteAck, WriteConcern};
use crate::wire::build::DocBuf;
use crate::wire::command::Command;
use crate::wire::doc::{Doc, Value};

/// Names a session to the server: a random UUID. Made when the pool is empty, reused until it
/// would expire, ended when the pool is dropped with [`SessionPool::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lsid([u8; 16]);

impl Lsid {
    /// Random bytes as a version 4 UUID.
    pub fn new(mut random: [u8; 16]) -> Lsid {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        Lsid(random)
    }

    fn write(&self, name: &str, body: &mut DocBuf) {
        body.begin(name).binary("id", UUID, Bytes::copy_from_slice(&self.0)).end();
    }
}

/// The binary subtype of UUIDs.
const UUID: u8 = 4;

/// Numbers the retryable writes and transactions of one session. Rises by one each; the server
/// refuses one lower than the last it saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnNumber(pub i64);

/// What the session is in the middle of. One at a time: the server keeps one `txnNumber` for
/// each session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
enum Doing {
    /// Nothing numbered.
    #[default]
    Nothing,
    /// A retryable write whose outcome is not known yet.
    Write,
    /// A transaction without a command yet.
    Starting,
    /// A transaction the server knows of.
    InTransaction,
    /// A commit whose outcome is not known yet; it may be sent again.
    Committing,
}

/// One session in use. Not shared: two commands with one `txnNumber` would be one to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    lsid: Lsid,
    txn_number: TxnNumber,
    doing: Doing,
    /// Something went wrong on the network while it was in use: the server may still be busy
    /// with it, so it is not reused (sessions spec, "dirty").
    dirty: bool,
}

impl Session {
    /// A session of this id that has done nothing yet.
    pub fn new(lsid: Lsid) -> Session {
        Session { lsid, txn_number: TxnNumber(0), doing: Doing::Nothing, dirty: false }
    }

    /// Its id.
    pub fn lsid(&self) -> Lsid {
        self.lsid
    }

    /// The number of the write or transaction under way or last done.
    pub fn txn_number(&self) -> TxnNumber {
        self.txn_number
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        matches!(self.doing, Doing::Starting | Doing::InTransaction)
    }

    /// Marks it as not to be reused.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Numbers a write so that sending it twice applies it once. The same `Command` is sent
    /// again on a retry; [`Session::settle`] says when its outcome is known.
    ///
    /// # Errors
    /// A write or transaction of this session is still open.
    pub fn number_write(&mut self, command: &mut Command) -> Result<TxnNumber, Misuse> {
        if self.doing != Doing::Nothing {
            return Err(Misuse::Session("a numbered write or transaction is still open"));
        }
        self.doing = Doing::Write;
        self.txn_number.0 += 1;
        self.lsid.write("lsid", command.body());
        command.body().i64("txnNumber", self.txn_number.0);
        Ok(self.txn_number)
    }

    /// The outcome of the numbered write or of the commit is known.
    pub fn settle(&mut self) {
        if matches!(self.doing, Doing::Write | Doing::Committing) {
            self.doing = Doing::Nothing;
        }
    }

    /// Begins a transaction. Nothing is sent: its first command starts it on the server.
    ///
    /// # Errors
    /// A write or transaction of this session is still open.
    pub fn start_transaction(&mut self) -> Result<TxnNumber, Misuse> {
        if self.doing != Doing::Nothing {
            return Err(Misuse::Session("a numbered write or transaction is still open"));
        }
        self.doing = Doing::Starting;
        self.txn_number.0 += 1;
        Ok(self.txn_number)
    }

    /// Adds the session's fields to any command: inside a transaction those of the transaction
    /// (the first of them starts it), else the id alone.
    ///
    /// # Errors
    /// A commit of this session is still open.
    pub fn decorate(&mut self, command: &mut Command) -> Result<(), Misuse> {
        let starts = match self.doing {
            Doing::Committing => return Err(Misuse::Session("a commit is still open")),
            Doing::Starting => true,
            Doing::InTransaction => false,
            Doing::Nothing | Doing::Write => {
                self.lsid.write("lsid", command.body());
                return Ok(());
            }
        };
        self.write_transaction(command.body());
        if starts {
            self.doing = Doing::InTransaction;
            command.body().bool("startTransaction", true);
        }
        Ok(())
    }

    fn write_transaction(&self, body: &mut DocBuf) {
        self.lsid.write("lsid", body);
        body.i64("txnNumber", self.txn_number.0).bool("autocommit", false);
    }

    /// The command that commits, `None` when the transaction has sent nothing and there is
    /// nothing to commit. Asked again before [`Session::settle`], it gives the retry, which
    /// waits for a majority whatever `concern` says (transactions spec, "commitTransaction").
    ///
    /// # Errors
    /// No transaction is open.
    pub fn commit(&mut self, concern: &WriteConcern) -> Result<Option<Command>, Misuse> {
        let again = match self.doing {
            Doing::Starting => {
                self.doing = Doing::Nothing;
                return Ok(None);
            }
            Doing::InTransaction => false,
            Doing::Committing => true,
            Doing::Nothing | Doing::Write => {
                return Err(Misuse::Session("no transaction to commit"));
            }
        };
        self.doing = Doing::Committing;
        let mut command = Command::new("commitTransaction", "admin");
        self.write_transaction(command.body());
        if again {
            let safe = WriteConcern {
                w: Some(WriteAck::Mode("majority".to_owned())),
                timeout: concern.timeout.or(Some(std::time::Duration::from_secs(10))),
                ..concern.clone()
            };
            write_concern(&safe, command.body());
        } else {
            write_concern(concern, command.body());
        }
        Ok(Some(command))
    }

    /// The command that aborts, `None` when the transaction has sent nothing. Its outcome does
    /// not matter: the server aborts by itself after a minute.
    ///
    /// # Errors
    /// No transaction is open.
    pub fn abort(&mut self) -> Result<Option<Command>, Misuse> {
        match std::mem::take(&mut self.doing) {
            Doing::Starting => Ok(None),
            Doing::InTransaction => {
                let mut command = Command::new("abortTransaction", "admin");
                self.write_transaction(command.body());
                Ok(Some(command))
            }
            other => {
                self.doing = other;
                Err(Misuse::Session("no transaction to abort"))
            }
        }
    }
}

/// Writes a write concern; nothing at all for the server's default.
pub fn write_concern(concern: &WriteConcern, body: &mut DocBuf) {
    if *concern == WriteConcern::default() {
        return;
    }
    let body = body.begin("writeConcern");
    match &concern.w {
        // The connection string's bound on numbers keeps this in range.
        Some(WriteAck::Nodes(nodes)) => body.i32("w", i32::try_from(*nodes).unwrap_or(1)),
        Some(WriteAck::Mode(mode)) => body.str("w", mode),
        None => body,
    };
    if let Some(journal) = concern.journal {
        body.bool("j", journal);
    }
    if let Some(timeout) = concern.timeout {
        body.i64("wtimeout", i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
    }
    body.end();
}

/// Sessions for reuse, the last used first. Holds at most [`SessionPool::CAPACITY`]; what comes
/// back beyond that is forgotten, and the server lets it expire.
#[derive(Debug, Clone, Default)]
pub struct SessionPool {
    idle: Vec<(Session, i64)>,
}

/// A session is not reused within its last minute (sessions spec, "Server session pool").
const LAST_MINUTE_MS: i64 = 60_000;

impl SessionPool {
    /// The most sessions kept: as many as writes run at once.
    pub const CAPACITY: usize = 256;

    /// A session to use: the last one returned that does not expire within a minute, else a new
    /// one from `random`. `timeout_minutes` is the topology's `logicalSessionTimeoutMinutes`.
    pub fn take(&mut self, timeout_minutes: i64, now_ms: i64, random: [u8; 16]) -> Session {
        let live_ms = timeout_minutes.saturating_mul(60_000) - LAST_MINUTE_MS;
        self.idle.retain(|(_, used_ms)| now_ms - used_ms < live_ms);
        match self.idle.pop() {
            Some((session, _)) => session,
            None => Session::new(Lsid::new(random)),
        }
    }

    /// Gives a session back. One that is dirty or in the middle of something is forgotten.
    pub fn give_back(&mut self, session: Session, now_ms: i64) {
        let clean = !session.dirty && session.doing == Doing::Nothing;
        if clean && self.idle.len() < SessionPool::CAPACITY {
            self.idle.push((session, now_ms));
        }
    }

    /// How many wait for reuse.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The command that ends all idle sessions on the server, `None` when there is none.
    pub fn end(&mut self) -> Option<Command> {
        if self.idle.is_empty() {
            return None;
        }
        Some(Command::of("endSessions", "admin", |body, name| {
            body.begin_array(name);
            for (i, (session, _)) in self.idle.drain(..).enumerate() {
                session.lsid.write(&i.to_string(), body);
            }
            body.end();
        }))
    }
}

/// The newest `$clusterTime` seen, sent back with every command so that a member which lags
/// knows (sessions spec, "Gossipping the cluster time").
#[derive(Debug, Clone, Default)]
pub struct ClusterClock {
    newest: Option<((u32, u32), Doc)>,
}

impl ClusterClock {
    /// Looks for a newer time in a reply.
    pub fn observe(&mut self, reply: &Doc) {
        let Some(Value::Document(time)) = reply.get("$clusterTime") else { return };
        let Some(Value::Timestamp(seconds, ordinal)) = time.get("clusterTime") else { return };
        let stamp = (seconds, ordinal);
        if self.newest.as_ref().is_none_or(|(newest, _)| *newest < stamp) {
            // Detached: the reply it came in may be a large one.
            self.newest = Some((stamp, time.detached()));
        }
    }

    /// Adds the newest time to a command for a replica set or mongos.
    pub fn decorate(&self, command: &mut Command) {
        if let Some((_, time)) = &self.newest {
            command.body().doc("$clusterTime", time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::RequestId;
    use crate::wire::limits::Limits;

    fn body(command: Command) -> Doc {
        let bytes = command.encode(RequestId(1), &Limits::default()).unwrap().concat();
        Doc::parse(bytes.slice(21..)).unwrap()
    }

    fn ping() -> Command {
        Command::new("ping", "admin")
    }

    #[test]
    fn one_number_at_a_time() {
        let mut session = Session::new(Lsid::new([1; 16]));
        let mut write = ping();
        assert_eq!(session.number_write(&mut write).unwrap(), TxnNumber(1));
        assert!(session.number_write(&mut ping()).is_err());
        assert!(session.start_transaction().is_err());
        let sent = body(write);
        assert_eq!(sent.get("txnNumber"), Some(Value::Int64(1)));
        assert!(sent.get("lsid").is_some() && sent.get("autocommit").is_none());
        session.settle();
        assert_eq!(session.number_write(&mut ping()).unwrap(), TxnNumber(2));
    }

    #[test]
    fn a_transaction_starts_once_and_its_commit_can_be_sent_again() {
        let mut session = Session::new(Lsid::new([1; 16]));
        session.start_transaction().unwrap();
        let (mut first, mut second) = (ping(), ping());
        session.decorate(&mut first).unwrap();
        session.decorate(&mut second).unwrap();
        let (first, second) = (body(first), body(second));
        assert_eq!(first.get("startTransaction"), Some(Value::Bool(true)));
        assert_eq!(second.get("startTransaction"), None);
        for sent in [&first, &second] {
            assert_eq!(sent.get("autocommit"), Some(Value::Bool(false)));
            assert_eq!(sent.get("txnNumber"), Some(Value::Int64(1)));
        }
        let one = WriteConcern { w: Some(WriteAck::Nodes(1)), ..Default::default() };
        let commit = body(session.commit(&one).unwrap().unwrap());
        let w = |doc: &Doc| {
            let concern = doc.get("writeConcern").unwrap();
            format!("{:?}", concern.as_doc().unwrap().get("w"))
        };
        assert_eq!(w(&commit), "Some(Int32(1))");
        assert!(session.decorate(&mut ping()).is_err());
        let again = body(session.commit(&one).unwrap().unwrap());
        assert!(w(&again).contains("Str"), "majority on a retry");
        session.settle();
        assert!(session.commit(&one).is_err());
        assert!(session.abort().is_err());
    }

    #[test]
    fn an_empty_transaction_sends_nothing() {
        let mut session = Session::new(Lsid::new([1; 16]));
        session.start_transaction().unwrap();
        assert_eq!(session.commit(&WriteConcern::default()), Ok(None));
        session.start_transaction().unwrap();
        assert_eq!(session.abort(), Ok(None));
        session.start_transaction().unwrap();
        session.decorate(&mut ping()).unwrap();
        assert_eq!(session.abort().unwrap().unwrap().name(), "abortTransaction");
    }

    #[test]
    fn the_pool_reuses_the_latest_and_forgets_the_old_and_the_dirty() {
        let mut pool = SessionPool::default();
        let (a, b) = (pool.take(30, 0, [1; 16]), pool.take(30, 0, [2; 16]));
        let (a_id, b_id) = (a.lsid(), b.lsid());
        assert_ne!(a_id, b_id);
        pool.give_back(a, 0);
        pool.give_back(b, 1000);
        assert_eq!(pool.take(30, 2000, [3; 16]).lsid(), b_id);
        // 29 minutes later the other one is in its last minute.
        assert_ne!(pool.take(30, 29 * 60_000, [4; 16]).lsid(), a_id);
        let mut dirty = pool.take(30, 0, [5; 16]);
        dirty.mark_dirty();
        pool.give_back(dirty, 0);
        let mut busy = pool.take(30, 0, [6; 16]);
        busy.start_transaction().unwrap();
        pool.give_back(busy, 0);
        assert_eq!(pool.idle(), 0);
        assert!(pool.end().is_none());
        let one = pool.take(30, 0, [7; 16]);
        pool.give_back(one, 0);
        let end = body(pool.end().unwrap());
        assert_eq!(end.iter().next().unwrap().name, b"endSessions");
        assert_eq!(end.get("endSessions").unwrap().as_array().unwrap().iter().count(), 1);
    }

    #[test]
    fn the_clock_only_goes_forward() {
        let mut clock = ClusterClock::default();
        let reply = |seconds| {
            let mut doc = DocBuf::new();
            doc.begin("$clusterTime").timestamp("clusterTime", seconds, 1).end();
            doc.finish_doc().unwrap()
        };
        for seconds in [5, 9, 7] {
            clock.observe(&reply(seconds));
        }
        let mut command = ping();
        clock.decorate(&mut command);
        let time = body(command);
        let time = time.get("$clusterTime").unwrap();
        assert_eq!(time.as_doc().unwrap().get("clusterTime"), Some(Value::Timestamp(9, 1)));
    }
}
