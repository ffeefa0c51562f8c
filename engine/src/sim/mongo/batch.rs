//! Batches: several commands of the engine at once, as a transport would send them.

use alloc::vec::Vec;

use super::server::{ClientId, Server, batch_lsid, batch_session};
use crate::backend::bson::DocBuf;
use crate::backend::mongo::{Command, Concern, Expect, Mongo, Push, Reply};
use crate::contract::{Batch, Mode};
use crate::time::Now;

/// A batch on its way through the server: between any two of its commands others may run, and the
/// connection may break.
#[derive(Clone, Debug)]
pub struct Running {
    batch: Batch<Mongo>,
    replies: Vec<Reply>,
    /// The transaction of an atomic batch.
    number: Option<i64>,
    /// A reply was not what the commands behind it rely on.
    stopped: bool,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A command was executed; there is more to do.
    Executed,
    /// The next command waits for a transaction to end: let others go first.
    Waits,
    /// All is done; [`Running::replies`] has the replies.
    Done,
}

impl Running {
    /// One reply a command, in order, once it is done.
    #[must_use]
    pub fn replies(self) -> Vec<Reply> {
        self.replies
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &Batch<Mongo> {
        &self.batch
    }
}

impl Server {
    /// Takes a batch in; [`step`](Self::step) executes it. `Mode::Atomic` is a transaction.
    #[must_use]
    pub fn begin(&mut self, client: ClientId, batch: &Batch<Mongo>) -> Running {
        let number = (batch.mode == Mode::Atomic).then(|| {
            let client = self.clients.entry(client).or_default();
            client.transactions += 1;
            client.transactions
        });
        Running { batch: batch.clone(), replies: Vec::new(), number, stopped: false }
    }

    /// Executes the next command of a batch, or ends its transaction.
    pub fn step(&mut self, now: Now, client: ClientId, running: &mut Running) -> Progress {
        let at = running.replies.len();
        let Some(command) = running.batch.commands.get(at).filter(|_| !running.stopped) else {
            return self.finish(now, client, running);
        };
        let mut command = command.clone();
        if let Some(number) = running.number {
            // Only the commit states how safe it is to be.
            command.concern = Concern::None;
            write_transaction(command.body(), client, number);
            if at == 0 {
                command.body().bool("startTransaction", true);
            }
        }
        let refusal = self.take_refusal(running.number.is_some());
        let Some(reply) = refusal.or_else(|| self.attempt(now, client, &command)) else {
            return Progress::Waits;
        };
        let expect = match running.batch.mode {
            Mode::Independent => Expect::Anything,
            Mode::Ordered | Mode::Atomic => command.expect,
        };
        running.stopped = !reply.meets(expect);
        running.replies.push(reply);
        Progress::Executed
    }

    fn finish(&mut self, now: Now, client: ClientId, running: &mut Running) -> Progress {
        let count = running.batch.commands.len();
        let whole =
            running.replies.len() == count && running.replies.iter().all(|it| it.error().is_none());
        running.replies.resize(count, Reply::Skipped);
        let Some(number) = running.number.take() else { return Progress::Done };
        if !whole || running.stopped {
            self.abort(&batch_session(client));
            return Progress::Done;
        }
        let mut body = DocBuf::new();
        body.i32("commitTransaction", 1).str("$db", "admin");
        write_transaction(&mut body, client, number);
        let mut commit = Command::of("commitTransaction", body);
        let concerns = running.batch.commands.iter().map(|it| it.concern);
        commit.concern = concerns.max().unwrap_or_default();
        let verdict = self.execute(now, client, &commit);
        if verdict.error().is_some() {
            running.replies = alloc::vec![verdict; count];
        }
        Progress::Done
    }

    /// Executes a whole batch: one reply a command, in order. Whatever stands behind a command
    /// whose reply is not what it expects is skipped. What waits for a transaction is refused as a
    /// conflict.
    pub fn run(&mut self, now: Now, client: ClientId, batch: &Batch<Mongo>) -> Vec<Reply> {
        let mut running = self.begin(client, batch);
        loop {
            match self.step(now, client, &mut running) {
                Progress::Executed => {}
                Progress::Done => return running.replies,
                Progress::Waits => {
                    let conflict = super::transaction::write_conflict().reply();
                    running.replies.push(super::server::reply(conflict));
                    running.stopped = running.batch.mode != Mode::Independent;
                }
            }
        }
    }

    /// Opens a change stream for a client, as the transport opens one:
    /// [`take_pushes`](Self::take_pushes) hands over its events. Whether there is one: a
    /// standalone has none.
    pub fn watch(&mut self, now: Now, client: ClientId, command: &Command) -> bool {
        let reply = self.execute(now, client, command);
        if reply.error().is_some() {
            return false;
        }
        let (_, cursor) = reply.batch();
        self.clients.entry(client).or_default().watching = Some(cursor);
        true
    }

    /// What the change stream of a client has to tell since the last call.
    pub fn take_pushes(&mut self, client: ClientId) -> Vec<Push> {
        let Some(cursor) = self.clients.get(&client).and_then(|it| it.watching) else {
            return Vec::new();
        };
        let Some(namespace) = self.cursors.get(&cursor).map(|it| it.namespace.clone()) else {
            self.clients.entry(client).or_default().watching = None;
            return Vec::from([Push::Lost]);
        };
        let (db, collection) = namespace.split_once('.').unwrap_or(("", ""));
        let mut body = DocBuf::new();
        body.i64("getMore", cursor).str("collection", collection).str("$db", db);
        let reply = self.execute(self.now, client, &Command::of("getMore", body));
        let (events, id) = reply.batch();
        let mut pushes: Vec<Push> = events.into_iter().map(Push::Change).collect();
        if reply.error().is_some() || id == 0 {
            self.clients.entry(client).or_default().watching = None;
            pushes.push(Push::Lost);
        }
        pushes
    }
}

fn write_transaction(body: &mut DocBuf, client: ClientId, number: i64) {
    body.begin("lsid").binary("id", 4, batch_lsid(client)).end();
    body.i64("txnNumber", number).bool("autocommit", false);
}

/// The command that opens the change stream which the transport would open for a bucket.
#[must_use]
pub fn change_stream(db: &str, collection: &str) -> Command {
    let mut command = Command::on("aggregate", db, collection);
    let body = command.body();
    body.begin_array("pipeline").begin("0").begin("$changeStream");
    body.str("fullDocument", "updateLookup").end().end();
    for (n, stage) in crate::gridfs::change_stream_pipeline().iter().enumerate() {
        body.value(&alloc::format!("{}", n + 1), &stage.value);
    }
    body.end().begin("cursor").end();
    command
}
