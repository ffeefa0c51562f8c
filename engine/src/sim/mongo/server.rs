//! The server as a value: its collections, sessions and clock, and how a command gets executed.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;

use super::collection::Store;
use super::cursor::Cursor;
use super::cx::{Cx, Log};
use super::failure::{
    Failure, ILLEGAL_OPERATION, LOCK_TIMEOUT, NO_SUCH_TRANSACTION, NOT_WRITABLE_PRIMARY, RETRYABLE,
    Stop, TRANSACTION_COMMITTED, TRANSACTION_TOO_OLD, TRANSIENT,
};
use super::oplog::Oplog;
use super::request::{Request, Safety, SessionId};
use super::transaction::{Open, Session, State, oldest, take_back, write_conflict};
use super::value::{Document, Val};
use crate::backend::bson::Doc;
use crate::backend::mongo::{Command, Reply};
use crate::time::{Duration, Now};

/// A connection, chosen by the caller. One that is new is connected by its first command;
/// [`Server::disconnect`] ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What `mongod.conf` and the machine would decide.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The primary of a replica set: sessions, transactions, change streams. Otherwise a
    /// standalone.
    pub replica_set: bool,
    /// How long a write that was acknowledged with `w: 1` takes until a majority (a standalone:
    /// the journal) has it. Change streams show it only then, and until then a crash loses it.
    pub lag: Duration,
    /// Bytes of documents that fit on the disk; 0 for no limit.
    pub disk: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { replica_set: true, lag: Duration::ZERO, disk: 0 }
    }
}

/// Sessions that are remembered.
const SESSIONS: usize = 10_000;

/// A MongoDB server in memory. See the [module](super) for what it promises.
#[derive(Clone, Debug)]
pub struct Server {
    pub(super) settings: Settings,
    pub(super) store: Store,
    pub(super) cursors: BTreeMap<i64, Cursor>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    pub(super) transactions: BTreeMap<SessionId, Open>,
    /// The transaction that writes into the collections themselves.
    in_place: Option<SessionId>,
    pub(super) log: Oplog,
    pub(super) now: Now,
    /// It takes writes.
    pub(super) primary: bool,
    /// Counts the elections, and the starts of the process.
    pub(super) term: u32,
    pub(super) next_record: u64,
    pub(super) next_id: u64,
    pub(super) next_cursor: i64,
    executed: u64,
    version: u64,
    /// So many of the next commands of batches are refused.
    refusals: usize,
}

/// A connection's state.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Transactions of batches that it has run.
    pub(super) transactions: i64,
    /// The cursor of the change stream it watches.
    pub(super) watching: Option<i64>,
}

impl Server {
    /// An empty primary of a replica set.
    #[must_use]
    pub fn new(now: Now) -> Server {
        Server::with_settings(now, Settings::default())
    }

    /// An empty server.
    #[must_use]
    pub fn with_settings(now: Now, settings: Settings) -> Server {
        Server {
            settings,
            store: Store::default(),
            cursors: BTreeMap::new(),
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            transactions: BTreeMap::new(),
            in_place: None,
            log: Oplog::default(),
            now,
            primary: true,
            term: 1,
            next_record: 1,
            next_id: 1,
            next_cursor: 1,
            executed: 0,
            version: 0,
            refusals: 0,
        }
    }

    // ---- looking

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts every change: the same value twice means nothing has changed.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many commands were executed.
    #[must_use]
    pub fn executed(&self) -> u64 {
        self.executed
    }

    /// Every document of a collection (`database.collection`), in the order of insertion.
    #[must_use]
    pub fn documents(&self, namespace: &str) -> Vec<Doc> {
        let collection = self.store.get(namespace);
        let docs = collection.into_iter().flat_map(|it| it.docs.values());
        docs.filter_map(|doc| doc.doc().ok()).collect()
    }

    /// How many acknowledged writes a crash would lose.
    #[must_use]
    pub fn unsafe_writes(&self) -> usize {
        self.log.unsafe_writes()
    }

    /// Whether a transaction is open. What it has written blocks others.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        !self.transactions.is_empty()
    }

    // ---- faults

    /// Sets how many bytes of documents fit on the disk; 0 for no limit.
    pub fn set_disk(&mut self, bytes: u64) {
        self.settings.disk = bytes;
    }

    /// Lets only so many more bytes on the disk.
    pub fn fill(&mut self, bytes: u64) {
        self.set_disk(self.store.bytes() + bytes.max(1));
    }

    /// Sets how long what is not written safely takes to be safe.
    pub fn set_lag(&mut self, lag: Duration) {
        self.settings.lag = lag;
    }

    /// Everything that was acknowledged is safe.
    pub fn all_safe(&mut self) {
        self.log.all_safe();
    }

    /// So many of the next commands of batches are refused: a lock cannot be had in time.
    pub fn refuse_next(&mut self, commands: usize) {
        self.refusals = commands;
    }

    pub(super) fn take_refusal(&mut self, in_transaction: bool) -> Option<Reply> {
        self.refusals = self.refusals.checked_sub(1)?;
        let text = "Unable to acquire a lock within a max lock request timeout";
        let failure = Failure::new(LOCK_TIMEOUT, text);
        let failure = if in_transaction { failure.labelled(TRANSIENT) } else { failure };
        Some(reply(failure.reply()))
    }

    /// Ends all transactions, as a server does that is short of something. Whether there were any.
    pub fn abort_transactions(&mut self) -> bool {
        let any = self.has_transactions();
        self.abort_all();
        any
    }

    /// The primary steps down: it refuses every write until [`step_up`](Self::step_up). Open
    /// transactions are aborted.
    pub fn step_down(&mut self) {
        self.primary = false;
        self.abort_all();
    }

    /// It is the primary again.
    pub fn step_up(&mut self) {
        self.primary = true;
        self.term += 1;
    }

    /// The server dies, and another member (of a standalone: the same one) goes on with what was
    /// safe. Cursors and transactions are gone; connections are for the caller to end.
    pub fn crash(&mut self, now: Now) {
        self.now = now;
        self.abort_all();
        for (session, number) in self.log.lose(&mut self.store) {
            let session = self.sessions.get_mut(&session);
            if let Some(session) = session.filter(|it| it.number == number) {
                session.state = State::Idle;
            }
        }
        if !self.settings.replica_set {
            self.sessions.clear();
        }
        self.cursors.clear();
        self.clients.clear();
        self.primary = true;
        self.term += 1;
        self.version += 1;
    }

    fn abort_all(&mut self) {
        let all: Vec<SessionId> = self.transactions.keys().cloned().collect();
        for id in all {
            self.abort(&id);
        }
    }

    // ---- driving

    /// Executes one command. A write to what an open transaction has written, for which the real
    /// server waits, is refused as a conflict; [`attempt`](Self::attempt) tells the two apart.
    pub fn execute(&mut self, now: Now, client: ClientId, command: &Command) -> Reply {
        match self.attempt(now, client, command) {
            Some(reply) => reply,
            None => reply(write_conflict().reply()),
        }
    }

    /// Executes one command; `None` when it waits for a transaction to end, and has done nothing.
    pub fn attempt(&mut self, now: Now, client: ClientId, command: &Command) -> Option<Reply> {
        self.tick(now);
        self.executed += 1;
        self.clients.entry(client).or_default();
        let outcome = match Request::read(command) {
            Ok(request) => self.request(client, &request),
            Err(failure) => Err(failure.into()),
        };
        match outcome {
            Ok(answer) => Some(reply(answer)),
            Err(Stop::Refused(failure)) => Some(reply(failure.reply())),
            Err(Stop::Waits) => None,
        }
    }

    /// Lets time pass: what lags becomes safe.
    pub fn tick(&mut self, now: Now) {
        self.now = now;
        self.log.settle(now.mono, self.settings.lag);
    }

    /// Ends a connection. A transaction that a batch had begun on it is aborted: a server does
    /// that by itself, though only after a minute.
    pub fn disconnect(&mut self, client: ClientId) {
        if let Some(gone) = self.clients.remove(&client) {
            if let Some(cursor) = gone.watching {
                self.cursors.remove(&cursor);
            }
            self.abort(&batch_session(client));
        }
    }

    fn request(&mut self, client: ClientId, request: &Request) -> Result<Document, Stop> {
        match (&request.session, request.number) {
            (Some(session), Some(number)) if request.transaction => {
                self.in_transaction(client, request, &session.clone(), number)
            }
            (Some(session), Some(number)) => {
                self.numbered(client, request, &session.clone(), number)
            }
            (None, Some(_)) => {
                let message = "Transaction number requires a session ID to also be specified";
                Err(Failure::new(super::failure::INVALID_OPTIONS, message).into())
            }
            (_, None) => self.plain(client, request, None),
        }
    }

    fn plain(
        &mut self,
        client: ClientId,
        request: &Request,
        numbered: Option<(SessionId, i64)>,
    ) -> Result<Document, Stop> {
        self.set_in_place_aside();
        let is_numbered = numbered.is_some();
        let mut cx =
            Cx { server: self, client, log: Log::default(), missed: None, numbered: is_numbered };
        let outcome = cx.run(request);
        let log = cx.log;
        match outcome {
            // Whatever it had done before it met the transaction is done again.
            Err(Stop::Waits) => {
                take_back(&mut self.store, &log.writes);
                Err(Stop::Waits)
            }
            outcome => {
                self.publish(log, request.safety, numbered.as_ref(), false);
                outcome
            }
        }
    }

    /// Makes writes known: to transactions that were set aside, and in the log.
    fn publish(
        &mut self,
        log: Log,
        safety: Safety,
        numbered: Option<&(SessionId, i64)>,
        transaction: bool,
    ) {
        for open in self.transactions.values_mut() {
            open.missed.extend(log.claims.iter().cloned());
        }
        self.version += log.writes.len() as u64 + u64::from(log.other);
        for write in log.writes {
            let now = (self.now.mono, self.now.wall);
            self.log.push(write, now, numbered.cloned(), transaction);
        }
        // A set's own default is a majority; a standalone's is its memory.
        let safe = match safety {
            Safety::Safe => true,
            Safety::Default => self.settings.replica_set,
            Safety::Memory => false,
        };
        if log.is_write && safe || self.settings.lag == Duration::ZERO {
            self.log.all_safe();
        }
    }

    // ---- sessions

    fn session(&mut self, id: &SessionId) -> &mut Session {
        if self.sessions.len() >= SESSIONS
            && !self.sessions.contains_key(id)
            && let Some(oldest) = oldest(self.sessions.iter())
        {
            self.sessions.remove(&oldest);
        }
        let used = self.executed;
        let session = self.sessions.entry(id.clone()).or_insert(Session {
            number: -1,
            state: State::Idle,
            used,
        });
        session.used = used;
        session
    }

    fn check_numbers(&self, request: &Request) -> Result<(), Failure> {
        if !self.settings.replica_set {
            let message = "Transaction numbers are only allowed on a replica set member or mongos";
            return Err(Failure::new(ILLEGAL_OPERATION, message));
        }
        if !self.primary {
            let label = if request.transaction { TRANSIENT } else { RETRYABLE };
            return Err(Failure::new(NOT_WRITABLE_PRIMARY, "not primary").labelled(label));
        }
        Ok(())
    }

    /// A write that happens once however often it is sent.
    fn numbered(
        &mut self,
        client: ClientId,
        request: &Request,
        id: &SessionId,
        number: i64,
    ) -> Result<Document, Stop> {
        self.check_numbers(request)?;
        super::write::check_retryable(request)?;
        let session = self.session(id);
        if number < session.number {
            let text = format!(
                "Retryable write with txnNumber {number} is prohibited on session because a newer \
                 retryable write with txnNumber {} has already started on this session.",
                session.number
            );
            return Err(Failure::new(TRANSACTION_TOO_OLD, text).into());
        }
        if number == session.number {
            match &session.state {
                State::Wrote(stored) => {
                    let first = Val::Int32(0);
                    return Ok(match request.name.as_str() {
                        "findAndModify" => stored.clone().with("retriedStmtId", first),
                        _ => stored.clone().with("retriedStmtIds", Val::Array(Vec::from([first]))),
                    });
                }
                State::Idle => {}
                State::InTransaction | State::Committed | State::Aborted => {
                    let text = format!("Cannot retry a transaction's number {number} as a write");
                    return Err(Failure::new(ILLEGAL_OPERATION, text).into());
                }
            }
        }
        if matches!(session.state, State::InTransaction) {
            self.abort(id);
        }
        let before = self.version;
        let answer = self.plain(client, request, Some((id.clone(), number)))?;
        let wrote = self.version > before && answer.get("writeErrors").is_none();
        let session = self.session(id);
        session.number = number;
        // What has written nothing is simply done again.
        session.state = if wrote { State::Wrote(answer.clone()) } else { State::Idle };
        Ok(answer)
    }

    // ---- transactions

    fn in_transaction(
        &mut self,
        client: ClientId,
        request: &Request,
        id: &SessionId,
        number: i64,
    ) -> Result<Document, Stop> {
        self.check_numbers(request)?;
        self.find_transaction(request, id, number)?;
        match request.name.as_str() {
            "commitTransaction" => return self.commit(request, id).map_err(Stop::Refused),
            "abortTransaction" => {
                self.abort(id);
                return Ok(super::cx::ok());
            }
            _ => {}
        }
        if self.in_place.as_ref().is_some_and(|it| it != id) {
            self.set_in_place_aside();
        }
        let Some(mut open) = self.transactions.remove(id) else {
            return Err(no_such_transaction(number).into());
        };
        match &mut open.view {
            Some(view) => core::mem::swap(view, &mut self.store),
            None => self.in_place = Some(id.clone()),
        }
        let missed = Some(core::mem::take(&mut open.missed));
        let mut cx = Cx { server: self, client, log: Log::default(), missed, numbered: false };
        let outcome = cx.run(request);
        open.missed = cx.missed.unwrap_or_default();
        open.writes.extend(cx.log.writes);
        open.claims.extend(cx.log.claims);
        if let Some(view) = &mut open.view {
            core::mem::swap(view, &mut self.store);
        }
        self.transactions.insert(id.clone(), open);
        let failed = match &outcome {
            Ok(answer) => answer.get("writeErrors").is_some(),
            Err(_) => true,
        };
        if failed {
            self.abort(id);
        }
        outcome
    }

    /// Begins a transaction, or looks whether it is there.
    fn find_transaction(
        &mut self,
        request: &Request,
        id: &SessionId,
        number: i64,
    ) -> Result<(), Failure> {
        let session = self.session(id);
        if number < session.number {
            let text = format!(
                "Cannot start transaction {number} on session because a newer transaction {} has \
                 already started.",
                session.number
            );
            return Err(Failure::new(TRANSACTION_TOO_OLD, text));
        }
        if request.starts {
            if number == session.number {
                let text =
                    format!("Cannot start a transaction at given transaction number {number}");
                return Err(Failure::new(117, text));
            }
            let begun = matches!(session.state, State::InTransaction);
            session.number = number;
            session.state = State::InTransaction;
            if begun {
                self.take_away(id);
            }
            self.transactions.insert(id.clone(), Open { number, ..Open::default() });
            return Ok(());
        }
        if number > session.number {
            return Err(no_such_transaction(number));
        }
        match (&session.state, request.name.as_str()) {
            (State::InTransaction, _) | (State::Committed, "commitTransaction") => Ok(()),
            (State::Committed, _) => {
                let text =
                    format!("Transaction with {{ txnNumber: {number} }} has been committed.");
                Err(Failure::new(TRANSACTION_COMMITTED, text))
            }
            (State::Aborted, _) => {
                let text = format!("Transaction with {{ txnNumber: {number} }} has been aborted.");
                Err(Failure::new(NO_SUCH_TRANSACTION, text).labelled(TRANSIENT))
            }
            (State::Idle | State::Wrote(_), _) => Err(no_such_transaction(number)),
        }
    }

    fn commit(&mut self, request: &Request, id: &SessionId) -> Result<Document, Failure> {
        let Some(mut open) = self.transactions.remove(id) else {
            // It had been committed, and its reply was lost.
            self.log.all_safe();
            return Ok(super::cx::ok());
        };
        match self.in_place.as_ref() == Some(id) {
            true => self.in_place = None,
            // Another one must not see what it has not seen.
            false => self.set_in_place_aside(),
        }
        open.merge(&mut self.store);
        let log = Log {
            writes: open.writes,
            claims: open.claims.into_iter().collect(),
            is_write: true,
            other: false,
        };
        let numbered = (id.clone(), open.number);
        self.publish(log, request.safety, Some(&numbered), true);
        self.session(id).state = State::Committed;
        Ok(super::cx::ok())
    }

    pub(super) fn abort(&mut self, id: &SessionId) {
        if self.take_away(id) {
            self.session(id).state = State::Aborted;
        }
    }

    /// Whether there was one.
    fn take_away(&mut self, id: &SessionId) -> bool {
        let Some(open) = self.transactions.remove(id) else { return false };
        if self.in_place.as_ref() == Some(id) {
            self.in_place = None;
        }
        if open.view.is_none() {
            take_back(&mut self.store, &open.writes);
        }
        true
    }

    fn set_in_place_aside(&mut self) {
        if let Some(id) = self.in_place.take()
            && let Some(open) = self.transactions.get_mut(&id)
        {
            open.set_aside(&mut self.store);
        }
    }
}

fn no_such_transaction(number: i64) -> Failure {
    let text = format!(
        "Given transaction number {number} does not match any in-progress transactions. The \
         active transaction number is -1"
    );
    Failure::new(NO_SUCH_TRANSACTION, text).labelled(TRANSIENT)
}

/// The session in which a client's batches run their transactions.
pub(super) fn batch_session(client: ClientId) -> SessionId {
    let id = Val::Binary(4, batch_lsid(client));
    let doc = Document::default().with("id", id).doc();
    SessionId(doc.map_or_else(|_| Vec::new(), |doc| doc.as_bytes().to_vec()))
}

/// The id of that session: never the random UUID of another.
pub(super) fn batch_lsid(client: ClientId) -> Bytes {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&client.0.to_be_bytes());
    Bytes::copy_from_slice(&id)
}

pub(super) fn reply(answer: Document) -> Reply {
    // What was put together from stored documents can be written again.
    Reply::Doc(answer.doc().unwrap_or_else(|_| Doc::empty()))
}

#[cfg(test)]
#[path = "fault_tests.rs"]
mod tests;
