//! Lanes against real servers, and against what is no server for them.
//!
//! Needs `--features live-tests` and `DBMOUNT_MONGOD`.

mod mongod;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dbmount_engine::backend::mongo::{Command, Concern, Mongo, Reply};
use dbmount_engine::contract::{Batch, Fault, Input, Link, Mode};
use dbmount_engine::id::{BatchId, Lane};
use dbmount_engine::time::Mono;
use dbmount_transport_mongo::change_stream::ChangeStream;
use dbmount_transport_mongo::lanes::{Options, Sink, Transport};
use dbmount_transport_mongo::uri::ConnectionString;
use dbmount_transport_mongo::wire::build::DocBuf;
use dbmount_transport_mongo::wire::command::Command as WireCommand;
use dbmount_transport_mongo::wire::doc::Doc;
use mongod::{Mongod, connect, primary_of, replica_set, set_uri, soon};

/// Anything that works, works within this.
const LONG: Duration = Duration::from_secs(90);

struct Inputs(Sender<Input<Mongo>>);

impl Sink for Inputs {
    fn deliver(&self, inputs: Vec<Input<Mongo>>) {
        // The test may be through.
        inputs.into_iter().for_each(|input| drop(self.0.send(input)));
    }
}

struct Lanes {
    transport: Transport,
    inputs: Receiver<Input<Mongo>>,
}

impl Lanes {
    fn of(uri: &str) -> Lanes {
        let (sender, inputs) = channel();
        let uri = ConnectionString::parse(uri).expect("a connection string");
        let stream = ChangeStream::new("db", Some("fs.files"), Doc::empty());
        let sink = Arc::new(Inputs(sender));
        let transport = Transport::start(&uri, stream, Options::default(), sink).expect("threads");
        Lanes { transport, inputs }
    }

    fn submit(&self, id: u64, lane: Lane, mode: Mode, commands: Vec<Command>) {
        let (id, deadline) = (BatchId(id), Mono::NEVER);
        self.transport.submit(Batch { id, lane, mode, deadline, commands });
    }

    fn next(&self) -> Input<Mongo> {
        self.inputs.recv_timeout(LONG).expect("an input in time")
    }

    /// The next batch that ends.
    fn ended(&self) -> (u64, Result<Vec<Reply>, Fault>) {
        loop {
            if let Input::Replies(id, result) = self.next() {
                return (id.0, result);
            }
        }
    }

    /// The first line about why there is no connection.
    fn line(&self) -> Link {
        loop {
            match self.next() {
                Input::Link(_, Link::Up { .. }) => panic!("it connects"),
                Input::Link(_, link) => return link,
                _ => {}
            }
        }
    }
}

fn find() -> Command {
    let mut find = Command::on("find", "db", "counters");
    find.body().i32("limit", 1);
    find
}

/// Adds one to a counter: whether it was done twice shows.
fn add(counter: i32, concern: Concern) -> Command {
    let mut command = Command::on("update", "db", "counters");
    let body = command.body();
    body.begin_array("updates").begin("0").begin("q").i32("_id", counter).end();
    body.begin("u").begin("$inc").i32("n", 1).end().end().bool("upsert", true).end().end();
    command.concern = concern;
    command.retryable = true;
    command
}

fn counters(server: &Mongod) -> Vec<(i64, i64)> {
    let mut find = WireCommand::on("find", "db", "counters");
    find.body().begin("sort").i32("_id", 1).end();
    let mut connection = connect(&server.tcp(), "mongodb://h/");
    let reply = Reply::Doc(connection.call(find, Some(soon())).expect("an answer"));
    let number =
        |doc: &Doc, name: &str| doc.get(name).and_then(|it| it.as_i64()).expect("a number");
    reply.batch().0.iter().map(|doc| (number(doc, "_id"), number(doc, "n"))).collect()
}

fn primary(servers: &[Mongod]) -> usize {
    let give_up = Instant::now() + LONG;
    loop {
        match primary_of(servers) {
            Some(at) => return at,
            None => assert!(Instant::now() < give_up, "no primary was elected"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Keeps adding, ones and pairs, on both lanes, while `disturb` does its work on another thread;
/// every addition must be there once.
fn count_while(servers: &[Mongod], uri: &str, disturb: impl FnOnce() + Send) {
    let lanes = Lanes::of(uri);
    let mut id = 0;
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let disturbing = scope.spawn(disturb);
        while !disturbing.is_finished() || rounds < 20 {
            let mut open = Vec::new();
            for (counter, lane) in [(1, Lane::Meta), (2, Lane::Bulk)] {
                for concern in [Concern::Acknowledged, Concern::Durable] {
                    // What is only acknowledged may be rolled back; it goes where that shows not.
                    let counter = if concern == Concern::Durable { counter } else { 9 };
                    open.push((lane, Mode::Ordered, vec![add(counter, concern), find()]));
                }
            }
            let pair = vec![add(3, Concern::Durable), add(4, Concern::Durable)];
            open.push((Lane::Meta, Mode::Atomic, pair));
            let mut waiting = std::collections::BTreeMap::new();
            for (lane, mode, commands) in open {
                id += 1;
                lanes.submit(id, lane, mode, commands.clone());
                waiting.insert(id, (lane, mode, commands));
            }
            while !waiting.is_empty() {
                let (done, result) = lanes.ended();
                let (lane, mode, commands) = waiting.remove(&done).expect("one that was submitted");
                let replies = result.expect("nothing here is ever unknown");
                let errors: Vec<_> = replies.iter().filter_map(Reply::error).collect();
                // A transaction that did not happen is tried anew, as the engine does.
                let conflict = errors.iter().any(|it| it.has_label("TransientTransactionError"));
                if mode == Mode::Atomic && conflict {
                    id += 1;
                    lanes.submit(id, lane, mode, commands.clone());
                    waiting.insert(id, (lane, mode, commands));
                    continue;
                }
                assert!(errors.is_empty(), "{errors:?}");
            }
            rounds += 1;
        }
        disturbing.join().expect("it did its work");
    });
    let found = counters(&servers[primary(servers)]);
    let safe: Vec<_> = found.into_iter().filter(|(counter, _)| *counter != 9).collect();
    assert_eq!(safe, [1, 2, 3, 4].map(|counter| (counter, rounds)), "each once");
    println!("{rounds} rounds, nothing lost and nothing twice");
    lanes.transport.shutdown();
}

#[test]
fn nothing_applies_twice_across_stepdowns() {
    let servers = replica_set(3);
    count_while(&servers, &set_uri(&servers, ""), || {
        for _ in 0..3 {
            let mut old = connect(&servers[primary(&servers)].tcp(), "mongodb://h/");
            let mut down = WireCommand::of("replSetStepDown", "admin", |body, field| {
                body.i32(field, 10);
            });
            down.body().i32("secondaryCatchUpPeriodSecs", 8);
            // Nobody may have caught up in time: then it stays.
            let _ = old.call(down, Some(soon()));
            std::thread::sleep(Duration::from_millis(500));
        }
    });
}

#[test]
fn a_primary_that_freezes_is_left_for_another() {
    let servers = replica_set(3);
    let uri = format!("{}&heartbeatFrequencyMS=1000&connectTimeoutMS=2000", set_uri(&servers, ""));
    let at = primary(&servers);
    let pid = rustix::process::Pid::from_raw(servers[at].pid() as i32).unwrap();
    let signal = |signal| rustix::process::kill_process(pid, signal).unwrap();
    count_while(&servers, &uri, || {
        signal(rustix::process::Signal::STOP);
        let others: Vec<&Mongod> =
            servers.iter().filter(|it| it.pid() != servers[at].pid()).collect();
        let give_up = Instant::now() + LONG;
        while !others
            .iter()
            .any(|it| connect(&it.tcp(), "mongodb://h/").hello().is_writable_primary)
        {
            assert!(Instant::now() < give_up, "no primary was elected");
            std::thread::sleep(Duration::from_millis(50));
        }
        // Some additions on the new one, before the old one is back.
        std::thread::sleep(Duration::from_secs(3));
        signal(rustix::process::Signal::CONT);
    });
}

/// Has a server take for ever over a command.
fn block(server: &Mongod, command: &str) {
    let point = WireCommand::of("configureFailPoint", "admin", |body, field| {
        body.str(field, "failCommand").str("mode", "alwaysOn").begin("data");
        body.begin_array("failCommands").str("0", command).end();
        body.bool("blockConnection", true).i32("blockTimeMS", 600_000).end();
    });
    connect(&server.tcp(), "mongodb://h/").call(point, Some(soon())).expect("an answer");
}

#[test]
fn what_is_not_numbered_is_unknown_after_a_restart_and_the_rest_goes_on() {
    let mut server = Mongod::start(&["--setParameter", "enableTestCommands=1"]);
    let lanes = Lanes::of(&server.uri(""));
    lanes.submit(1, Lane::Meta, Mode::Ordered, vec![add(1, Concern::Durable)]);
    assert!(matches!(lanes.ended(), (1, Ok(_))));
    // The server takes its time, and dies over it.
    block(&server, "find");
    lanes.submit(2, Lane::Meta, Mode::Ordered, vec![find()]);
    lanes.submit(3, Lane::Bulk, Mode::Ordered, vec![find(), add(1, Concern::Durable)]);
    server.kill();
    server.start_again();
    let mut ended = [lanes.ended(), lanes.ended()];
    ended.sort_by_key(|(id, _)| *id);
    assert!(matches!(&ended[0], (2, Ok(_))), "a read is sent again: {:?}", ended[0]);
    assert!(matches!(&ended[1], (3, Err(Fault::Unknown))), "a write is not: {:?}", ended[1]);
    lanes.transport.shutdown();
}

#[test]
fn metadata_does_not_wait_for_bulk_data() {
    let server = Mongod::start(&["--setParameter", "enableTestCommands=1"]);
    let lanes = Lanes::of(&server.uri(""));
    block(&server, "count");
    lanes.submit(1, Lane::Bulk, Mode::Ordered, vec![Command::on("count", "db", "counters")]);
    for id in 2..20 {
        lanes.submit(id, Lane::Meta, Mode::Ordered, vec![find(), find()]);
    }
    for id in 2..20 {
        let (done, result) = lanes.ended();
        assert_eq!((done, result.map(|it| it.len())), (id, Ok(2)), "in order");
    }
    // Shutdown does not wait for the server either.
    let begun = Instant::now();
    lanes.transport.shutdown();
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn without_retry_writes_a_lost_write_is_unknown() {
    let server = replica_set(1).remove(0);
    let lanes = Lanes::of(&format!("mongodb://{}/?replicaSet=rs&retryWrites=false", server.tcp()));
    let point = WireCommand::of("configureFailPoint", "admin", |body, field| {
        body.str(field, "failCommand").begin("mode").i32("times", 1).end().begin("data");
        body.begin_array("failCommands").str("0", "update").end();
        body.bool("closeConnection", true).end();
    });
    connect(&server.tcp(), "mongodb://h/").call(point, Some(soon())).expect("an answer");
    lanes.submit(1, Lane::Meta, Mode::Ordered, vec![add(1, Concern::Acknowledged)]);
    assert_eq!(lanes.ended(), (1, Err(Fault::Unknown)));
    lanes.submit(2, Lane::Meta, Mode::Ordered, vec![add(1, Concern::Acknowledged)]);
    assert!(matches!(lanes.ended(), (2, Ok(_))));
    assert_eq!(counters(&server), [(1, 1)]);
}

#[test]
fn a_secondary_spoken_to_directly_can_be_read() {
    let servers = replica_set(2);
    let writer = Lanes::of(&set_uri(&servers, ""));
    writer.submit(1, Lane::Meta, Mode::Ordered, vec![add(1, Concern::Durable)]);
    assert!(matches!(writer.ended(), (1, Ok(_))));
    let other = servers.iter().position(|it| it.pid() != servers[primary(&servers)].pid());
    let uri = format!("mongodb://{}/?directConnection=true", servers[other.unwrap()].tcp());
    let reader = Lanes::of(&uri);
    reader.submit(1, Lane::Meta, Mode::Ordered, vec![find()]);
    let (_, replies) = reader.ended();
    let replies = replies.unwrap();
    assert!(replies[0].error().is_none(), "{replies:?}");
}

/// A server that answers every connection with `answer`, after it has heard something.
fn pretender(answer: impl Fn(&mut TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut heard = [0; 4096];
            if stream.read(&mut heard).is_ok_and(|got| got > 0) {
                answer(&mut stream);
            }
        }
    });
    port
}

/// What a server of 3.4 says to hello.
fn old(stream: &mut TcpStream) {
    let mut body = DocBuf::new();
    body.bool("ismaster", true).i32("minWireVersion", 0).i32("maxWireVersion", 5).i32("ok", 1);
    let body = body.finish().expect("a document").concat();
    let mut message = Vec::new();
    message.extend((16 + 5 + body.len() as i32).to_le_bytes());
    // The first request of a connection is number 1.
    message.extend(1i32.to_le_bytes());
    message.extend(1i32.to_le_bytes());
    message.extend(2013i32.to_le_bytes());
    message.extend(0u32.to_le_bytes());
    message.push(0);
    message.extend(&body);
    // Whoever hung up does not want it.
    let _ = stream.write_all(&message);
    let _ = stream.read(&mut [0; 64]);
}

#[test]
fn what_cannot_be_reached_is_said_in_one_line_and_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("its address")
        .port();
    let http = pretender(|stream| drop(stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")));
    let redis = pretender(|stream| drop(stream.write_all(b"-ERR unknown command\r\n")));
    let tls = pretender(|_| ());
    let alone = Mongod::start(&["--auth"]);
    let of_a_set = replica_set(1).remove(0);
    for (uri, port, said, what_to_do) in [
        (format!("127.0.0.1:{nobody}/"), nobody, "refused", "is the address right?"),
        (format!("127.0.0.1:{nobody}/?replicaSet=rs"), nobody, "refused", "is mongod running"),
        (format!("127.0.0.1:{http}/"), http, "does not speak MongoDB's protocol", "address"),
        (format!("127.0.0.1:{redis}/"), redis, "does not speak MongoDB's protocol", "address"),
        (format!("127.0.0.1:{tls}/"), tls, "wants TLS", "address"),
        (format!("{}/?replicaSet=rs", alone.tcp()), 0, "not in a replica set", "leave it out"),
        (format!("{}/?replicaSet=other", of_a_set.tcp()), 0, "of another name", "replicaSet"),
        (format!("u:wrong@{}/", alone.tcp()), 0, "refuses this user", "check the user name"),
        (format!("127.0.0.1:{}/", pretender(old)), 0, "older than", "4.2"),
    ] {
        let begun = Instant::now();
        let lanes = Lanes::of(&format!("mongodb://{uri}"));
        let (Link::Down(line) | Link::Refused(line)) = lanes.line() else { panic!() };
        println!("{uri}: {line}");
        assert!(line.contains(said) && line.contains(what_to_do), "{uri}: {line}");
        assert!(!line.contains('\n') && !line.contains("os error"), "{line}");
        assert!(port == 0 || line.contains(&port.to_string()), "names the host: {line}");
        // Generous, for a busy machine; a search for a primary would take its five seconds.
        assert!(begun.elapsed() < Duration::from_secs(20), "{uri}: {:?}", begun.elapsed());
    }
    let tls = ConnectionString::parse("mongodb://h/?tls=true").expect("a connection string");
    let (sender, _inputs) = channel();
    let stream = ChangeStream::new("db", None, Doc::empty());
    let refused = Transport::start(&tls, stream, Options::default(), Arc::new(Inputs(sender)));
    assert!(refused.unwrap_err().to_string().contains("leave out tls=true"));
}
