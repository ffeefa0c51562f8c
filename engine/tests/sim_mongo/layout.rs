//! The GridFS layout's own batches: an engine plays over the simulated server, and what it sent is
//! sent to a real one, reply by reply.

use std::sync::{Arc, Mutex, PoisonError};

use dbmount_engine::backend::mongo::{Command, Concern, Expect, Mongo, Push, Reply};
use dbmount_engine::contract::Mode;
use dbmount_engine::gridfs::{GridFs, Options};
use dbmount_engine::sim::harness::{self, Bucket, ClientId, Progress, Setup, Site, Weather};
use dbmount_engine::sim::mongo::{Server, Settings, change_stream};
use dbmount_engine::sim::ops::Executor;
use dbmount_engine::sim::play::{Stage, Step, operations};
use dbmount_engine::{Batch, Now, Wall};
use dbmount_transport_mongo::session::{Lsid, Session};
use dbmount_transport_mongo::uri::WriteConcern;
use dbmount_transport_mongo::wire::command::Command as WireCommand;

use crate::commands::cases;
use crate::compare::Pair;
use crate::mongod::soon;

/// What was sent, and what the simulated server answered.
type Log = Vec<(Batch<Mongo>, Vec<Reply>)>;

/// A simulated server that writes down what it is asked.
#[derive(Clone, Debug)]
struct Recorder {
    sim: Server,
    log: Arc<Mutex<Log>>,
}

impl harness::Server for Recorder {
    type Backend = Mongo;

    /// Whole: a real server gets them one after the other.
    type Running = Batch<Mongo>;

    fn begin(&mut self, _client: ClientId, batch: Batch<Mongo>) -> Batch<Mongo> {
        batch
    }

    fn step(&mut self, now: Now, client: ClientId, batch: &mut Batch<Mongo>) -> Progress<Mongo> {
        let replies = self.sim.run(now, client.into(), batch);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.push((batch.clone(), replies.clone()));
        Progress::Done(replies)
    }

    fn command(&mut self, now: Now, client: ClientId, command: &Command) -> Reply {
        self.sim.execute(now, client.into(), command)
    }

    fn take_pushes(&mut self, client: ClientId) -> Vec<Push> {
        self.sim.take_pushes(client.into())
    }

    fn tick(&mut self, now: Now) {
        self.sim.tick(now);
    }

    fn disconnect(&mut self, client: ClientId) {
        self.sim.disconnect(client.into());
    }
}

/// A bucket on a recorder: a replica set, or a standalone.
#[derive(Clone, Debug)]
enum Recorded<const SET: bool> {}

impl<const SET: bool> Site for Recorded<SET> {
    type Layout = GridFs;
    type Options = Options;
    type Server = Recorder;

    const NAME: &'static str = "recorded";
    const KEEPS_TIMES: bool = true;

    fn server(now: Now) -> Recorder {
        let settings = Settings { replica_set: SET, ..Settings::default() };
        Recorder { sim: Server::with_settings(now, settings), log: Arc::default() }
    }

    fn options() -> Options {
        Bucket::options()
    }

    fn subscribe(server: &mut Recorder, now: Now, client: ClientId, setup: &Setup<Self>) -> bool {
        let command = change_stream(&setup.options.db, &setup.options.files());
        server.sim.watch(now, client.into(), &command)
    }
}

/// Plays some operations and hands over what was sent.
fn record<const SET: bool>(seed: u64) -> Log {
    let stage = Stage::<Recorded<SET>>::new(seed, Weather::CALM);
    let steps = operations(&stage, 120);
    let mut world = stage.world();
    for (n, step) in steps.iter().enumerate() {
        if let Step::Run(at, op) = step {
            // What comes of it is judged elsewhere.
            let _ = world.fs(*at).run(op, Wall(n as i64 + 1));
        }
    }
    world.fs(0).close_all();
    world.settle();
    let log = world.server().log.lock().unwrap_or_else(PoisonError::into_inner);
    log.clone()
}

/// About the server itself, which is another one here.
const NOT_COMPARED: [&str; 5] = ["hello", "dbStats", "collStats", "buildInfo", "serverStatus"];

/// Sends a batch as a transport does, and compares its replies.
fn send(pair: &mut Pair, batch: &Batch<Mongo>, replies: &[Reply]) -> Result<(), String> {
    // A session of its own, as a number is used once in each.
    let mut session = Session::new(Lsid::new(u128::from(batch.id.0).to_be_bytes()));
    let atomic = batch.mode == Mode::Atomic;
    if atomic {
        session.start_transaction().expect("a transaction");
    }
    let mut failed = false;
    for (command, sim) in batch.commands.iter().zip(replies) {
        let Reply::Doc(sim) = sim else {
            failed = true;
            break;
        };
        let mut wire = command.clone();
        if !atomic {
            let concern = wire.concern;
            concern.write(wire.body());
        }
        let mut wire = WireCommand::from(wire);
        if atomic {
            session.decorate(&mut wire).expect("in a transaction");
        }
        let real = pair.real.call_raw(wire, Some(soon())).expect("a reply");
        if !NOT_COMPARED.contains(&command.name()) {
            pair.same(command, sim, &real)?;
        }
        let real = Reply::Doc(real);
        failed |= real.error().is_some()
            || batch.mode != Mode::Independent && !real.meets(command.expect);
        if batch.mode != Mode::Independent && command.expect != Expect::Anything && failed {
            break;
        }
    }
    if atomic {
        let end = if failed {
            session.abort()
        } else {
            let one = batch.commands.iter().map(|it| it.concern).max();
            let safe = one == Some(Concern::Durable);
            session
                .commit(&WriteConcern { journal: safe.then_some(true), ..WriteConcern::default() })
        };
        if let Some(end) = end.expect("an end") {
            let reply = pair.real.call_raw(end, Some(soon())).expect("a reply");
            let reply = Reply::Doc(reply);
            if !failed && let Some(error) = reply.error() {
                return Err(format!("the commit fails there: {error}"));
            }
        }
    }
    Ok(())
}

fn hold_to(mut pair: Pair, record: fn(u64) -> Log, seeds: core::ops::Range<u64>) {
    for seed in seeds {
        for name in ["fs.files", "fs.chunks"] {
            pair.on_real(&Command::on("drop", "test", name));
        }
        for (n, (batch, replies)) in record(seed).iter().enumerate() {
            let mut batch = batch.clone();
            batch.id.0 = seed * 100_000 + n as u64;
            if let Err(why) = send(&mut pair, &batch, replies) {
                panic!("seed {seed}, batch {n}, {:?}: {why}", batch.mode);
            }
        }
    }
}

#[test]
fn what_the_layout_sends_to_a_standalone() {
    hold_to(Pair::standalone(), record::<false>, 0..cases(4));
}

#[test]
fn what_the_layout_sends_to_a_replica_set() {
    hold_to(Pair::replica_set(), record::<true>, 100..100 + cases(4));
}
