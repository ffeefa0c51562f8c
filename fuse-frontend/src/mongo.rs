//! MongoDB behind the driver: one thread and one connection a lane, and the change stream.
//!
//! A lane's thread connects, sends a batch, and waits for its replies: commands that nothing
//! relies on travel together, and those that something does are waited for. A lost connection
//! ends the batch as unknown, and the layout looks what became of it.

use std::fmt;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Queue, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dbmount_engine::backend::mongo::{Command, Concern, Expect, Mongo, Push, Reply, ServerError};
use dbmount_engine::contract::{Fault, Link, Mode};
use dbmount_engine::gridfs;
use dbmount_engine::{Batch, BatchId, Input, Lane};
use dbmount_transport_mongo::change_stream::{AfterError, ChangeStream};
use dbmount_transport_mongo::connection::{Connection, Deployment, Sender, random};
use dbmount_transport_mongo::error::Error;
use dbmount_transport_mongo::session::{Lsid, Session};
use dbmount_transport_mongo::topology::Criteria;
use dbmount_transport_mongo::uri::{ConnectionString, WriteAck, WriteConcern};
use dbmount_transport_mongo::wire::command::Command as WireCommand;

use crate::driver::Driver;
use crate::machine::{Machine, Sink, Transport};

/// How long to wait before connecting again.
const RECONNECT: Duration = Duration::from_millis(200);
/// How long one attempt to find a server may take before the user is told.
const SELECT: Duration = Duration::from_secs(5);
/// How long the server holds a `getMore` of the change stream when nothing happens.
const AWAIT_MS: i64 = 1000;
/// What a server says that is no primary any more, or is going down: a new connection is needed.
const STEPPED_DOWN: [i32; 8] = [10_107, 11_600, 11_602, 13_435, 13_436, 91, 189, 10_058];

/// Begins to watch the servers and starts a thread for each lane.
///
/// # Errors
/// A connection string that cannot be used, or threads that cannot be had.
pub fn connect<M: Machine<Backend = Mongo>>(
    uri: &ConnectionString,
    options: &gridfs::Options,
    timeout: Duration,
    driver: Arc<Driver<M>>,
) -> Result<Box<dyn Transport<Mongo>>, String> {
    let deployment = Deployment::start(uri).map_err(|error| error.to_string())?;
    let shared = Arc::new(Shared { deployment, timeout, state: Mutex::default() });
    let mut queues = Vec::new();
    for lane in [Lane::Meta, Lane::Bulk] {
        let (queue, batches) = channel();
        queues.push((lane, Mutex::new(queue)));
        let worker = Worker { lane, shared: shared.clone(), sink: driver.clone() };
        spawn("mongo-lane", move || worker.run(&batches)).map_err(|error| error.to_string())?;
    }
    let pipeline = gridfs::change_stream_pipeline();
    let stream = ChangeStream::new(&options.db, Some(&options.files()), pipeline).with_documents();
    let worker = Worker { lane: Lane::Push, shared: shared.clone(), sink: driver };
    spawn("mongo-watch", move || worker.watch(stream)).map_err(|error| error.to_string())?;
    Ok(Box::new(MongoTransport { shared, queues }))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

struct MongoTransport {
    shared: Arc<Shared>,
    queues: Vec<(Lane, Mutex<Queue<Batch<Mongo>>>)>,
}

impl Transport<Mongo> for MongoTransport {
    fn submit(&self, batch: Batch<Mongo>) {
        let queue = self.queues.iter().find(|(lane, _)| *lane == batch.lane);
        if let Some((_, queue)) = queue {
            // The thread ends only at shutdown, when nobody waits for an answer.
            let _ = queue.lock().unwrap_or_else(PoisonError::into_inner).send(batch);
        }
    }

    fn abandon(&self, _batch: BatchId) {}

    fn shutdown(&self) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        state.open.iter().for_each(|(_, sender)| sender.close());
    }
}

struct Shared {
    deployment: Deployment,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: bool,
    open: Vec<(Lane, Sender)>,
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Keeps a way to end the lane's connection from elsewhere.
    fn keep(&self, lane: Lane, connection: &Connection) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.retain(|(it, _)| *it != lane);
        if state.closed {
            connection.close();
        }
        state.open.push((lane, connection.sender()));
    }
}

/// The thread of a lane.
struct Worker<S> {
    lane: Lane,
    shared: Arc<Shared>,
    sink: Arc<S>,
}

impl<S: Sink<Mongo>> Worker<S> {
    fn deliver(&self, input: Input<Mongo>) {
        if !self.shared.is_closed() {
            self.sink.deliver(vec![input]);
        }
    }

    /// Connects, for as long as it takes; `None` when the mount ends.
    fn connect(&self) -> Option<Connection> {
        let mut told = String::new();
        while !self.shared.is_closed() {
            let deadline = Instant::now() + SELECT;
            match self.shared.deployment.connect(Criteria::Write, deadline) {
                Ok((connection, _)) => {
                    self.shared.keep(self.lane, &connection);
                    return Some(connection);
                }
                Err(error) => {
                    let why = error.to_string();
                    let link = match error {
                        Error::Auth(_) | Error::Misuse(_) => Link::Refused(why.clone()),
                        _ => Link::Down(why.clone()),
                    };
                    if told != why {
                        self.deliver(Input::Link(self.lane, link));
                        told = why;
                    }
                    std::thread::sleep(RECONNECT);
                }
            }
        }
        None
    }

    fn run(&self, batches: &Receiver<Batch<Mongo>>) {
        while let Some(mut connection) = self.connect() {
            self.deliver(Input::Link(self.lane, Link::Up { pushes: false }));
            let why = loop {
                let batch = match batches.recv_timeout(Duration::from_secs(1)) {
                    Ok(batch) => batch,
                    Err(RecvTimeoutError::Timeout) if self.shared.is_closed() => return,
                    Err(RecvTimeoutError::Timeout) if connection.is_quiet() => continue,
                    Err(RecvTimeoutError::Timeout) => break String::from("the server hung up"),
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                let id = batch.id;
                match execute(&mut connection, batch, self.shared.timeout) {
                    Ok(replies) => match replies.iter().find_map(stepped_down) {
                        None => self.deliver(Input::Replies(id, Ok(replies))),
                        // Nothing was done, but it is simplest to look.
                        Some(error) => {
                            self.deliver(Input::Replies(id, Err(Fault::Unknown)));
                            break error.to_string();
                        }
                    },
                    Err(error) => {
                        let not_sent = error.not_sent();
                        let fault = if not_sent { Fault::NotSent } else { Fault::Unknown };
                        self.deliver(Input::Replies(id, Err(fault)));
                        break error.to_string();
                    }
                }
            };
            connection.close();
            self.deliver(Input::Link(self.lane, Link::Down(why)));
        }
    }

    /// The change stream, where there is one.
    fn watch(&self, mut stream: ChangeStream) {
        while let Some(mut connection) = self.connect() {
            let why = match self.listen(&mut connection, &mut stream) {
                Ok(()) => return,
                Err(error) => error,
            };
            connection.close();
            match stream.on_error(&why) {
                AfterError::Unavailable | AfterError::Fatal => {
                    self.deliver(Input::Link(Lane::Push, Link::Up { pushes: false }));
                    return;
                }
                AfterError::Restart | AfterError::Resume => {
                    self.deliver(Input::Link(Lane::Push, Link::Down(why.to_string())));
                }
            }
            std::thread::sleep(RECONNECT);
        }
    }

    /// Hands on events until something breaks; `Ok` when there are none to be had.
    fn listen(&self, connection: &mut Connection, stream: &mut ChangeStream) -> Result<(), Error> {
        if !connection.hello().has_transactions() {
            self.deliver(Input::Link(Lane::Push, Link::Up { pushes: false }));
            return Ok(());
        }
        let timeout = self.shared.timeout;
        let within = || Some(Instant::now() + timeout + Duration::from_millis(AWAIT_MS as u64));
        let mut reply = connection.call(stream.open(), within())?;
        self.deliver(Input::Link(Lane::Push, Link::Up { pushes: true }));
        loop {
            let events = stream.on_reply(&reply)?;
            let pushes = events.into_iter().map(|event| Input::Push(Push::Change(event)));
            let pushes: Vec<_> = pushes.collect();
            if !pushes.is_empty() && !self.shared.is_closed() {
                self.sink.deliver(pushes);
            }
            reply = connection.call(stream.more(AWAIT_MS, false), within())?;
        }
    }
}

fn stepped_down(reply: &Reply) -> Option<ServerError> {
    reply.error().filter(|error| STEPPED_DOWN.contains(&error.code))
}

/// Executes a batch.
fn execute(
    connection: &mut Connection,
    batch: Batch<Mongo>,
    timeout: Duration,
) -> Result<Vec<Reply>, Error> {
    let deadline = Some(Instant::now() + timeout);
    if batch.mode != Mode::Atomic {
        return run(connection, batch.commands, batch.mode, None, deadline);
    }
    let concern = batch.commands.iter().map(|it| it.concern).max().unwrap_or_default();
    let count = batch.commands.len();
    let mut session = Session::new(Lsid::new(random()?));
    session.start_transaction()?;
    let replies = run(connection, batch.commands, Mode::Atomic, Some(&mut session), deadline)?;
    let whole = replies.iter().all(|it| *it != Reply::Skipped && it.error().is_none());
    if !whole || replies.len() < count {
        if let Some(abort) = session.abort()? {
            // The server aborts by itself when this is lost.
            connection.call_raw(abort, deadline)?;
        }
        return Ok(replies);
    }
    let concern = match concern {
        Concern::Durable => WriteConcern {
            w: Some(WriteAck::Mode("majority".to_owned())),
            journal: Some(true),
            ..WriteConcern::default()
        },
        _ => WriteConcern { w: Some(WriteAck::Nodes(1)), ..WriteConcern::default() },
    };
    let Some(commit) = session.commit(&concern)? else { return Ok(replies) };
    let verdict = Reply::Doc(connection.call_raw(commit, deadline)?);
    match verdict.error() {
        None => Ok(replies),
        // Nothing of it happened, or it is not known: the layout takes the one for a conflict and
        // looks for its token in the other case.
        Some(_) => Ok(vec![verdict; count]),
    }
}

/// Sends commands and waits for their replies. What nothing relies on travels with what follows.
fn run(
    connection: &mut Connection,
    commands: Vec<Command>,
    mode: Mode,
    mut session: Option<&mut Session>,
    deadline: Option<Instant>,
) -> Result<Vec<Reply>, Error> {
    let count = commands.len();
    let mut replies = Vec::with_capacity(count);
    let mut waiting = Vec::new();
    let mut commands = commands.into_iter().peekable();
    while let Some(mut command) = commands.next() {
        let expect = if mode == Mode::Independent { Expect::Anything } else { command.expect };
        if session.is_none() {
            let concern = command.concern;
            concern.write(command.body());
        }
        let mut command = WireCommand::from(command);
        if let Some(session) = &mut session {
            session.decorate(&mut command)?;
        }
        waiting.push((connection.submit(command)?, expect));
        if expect == Expect::Anything && commands.peek().is_some() {
            continue;
        }
        let mut met = true;
        for (id, expect) in waiting.drain(..) {
            let reply = Reply::Doc(connection.wait_for(id, deadline)?);
            met &= reply.meets(expect);
            replies.push(reply);
        }
        if !met {
            replies.resize(count, Reply::Skipped);
            return Ok(replies);
        }
    }
    Ok(replies)
}

impl fmt::Debug for MongoTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MongoTransport").finish_non_exhaustive()
    }
}
