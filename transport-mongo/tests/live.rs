//! Against a real mongod: standalone, with users, as a replica set of one and of three.
//!
//! Needs `--features live-tests` and `DBMOUNT_MONGOD`.

mod mongod;

use std::time::{Duration, Instant};

use bytes::Bytes;
use dbmount_transport_mongo::change_stream::{AfterError, ChangeStream};
use dbmount_transport_mongo::connection::{
    Connection, Deployment, Pool, PoolBounds, Setup, random,
};
use dbmount_transport_mongo::error::{
    AuthError, CHANGE_STREAM_NEEDS_REPLICA_SET, DUPLICATE_KEY, Error, Misuse,
};
use dbmount_transport_mongo::retry;
use dbmount_transport_mongo::session::{Lsid, Session, SessionPool};
use dbmount_transport_mongo::topology::{Criteria, HandshakeStage, ServerType, is_not_primary};
use dbmount_transport_mongo::uri::{
    ConnectionString, ReadPreference, ReadPreferenceMode, WriteAck, WriteConcern,
};
use dbmount_transport_mongo::wire::build::{DocBuf, Segments};
use dbmount_transport_mongo::wire::command::{Command, CursorBatch};
use dbmount_transport_mongo::wire::doc::{Doc, Value};
use mongod::{Mongod, connect, replica_set, soon};

const CHUNK: usize = 255 * 1024;

fn chunk(n: i32, data: Bytes) -> Segments {
    let mut doc = DocBuf::new();
    doc.i32("_id", n).i32("files_id", 1).i32("n", n).binary("data", 0, data);
    doc.finish().expect("a document")
}

fn insert(docs: Vec<Segments>) -> Command {
    let mut command = Command::on("insert", "test", "fs.chunks");
    command.body().begin("writeConcern").i32("w", 1).end();
    command.sequence("documents", docs);
    command
}

fn small(id: i32) -> Command {
    insert(vec![chunk(id, Bytes::from_static(b"x"))])
}

/// Counts by a query: the count kept beside a collection includes uncommitted documents.
fn count(connection: &mut Connection) -> i64 {
    let mut command = Command::on("count", "test", "fs.chunks");
    command.body().begin("query").begin("n").i32("$gte", 0).end().end();
    let reply = connection.call(command, Some(soon())).expect("a count");
    reply.get("n").and_then(|n| n.as_i64()).expect("a number")
}

#[test]
fn chunks_travel_both_ways_over_tcp_and_unix() {
    let server = Mongod::start(&[]);
    for (round, address) in [server.tcp(), server.unix()].into_iter().enumerate() {
        let mut connection = connect(&address, "mongodb://h/");
        assert_eq!(connection.hello().limits.max_document, 16 * 1024 * 1024);
        assert!(!connection.hello().has_transactions());
        let base = round as i32 * 100;
        // 16 chunks in one message: more than the socket takes at once.
        let data = |n: i32| Bytes::from(vec![(base + n) as u8; CHUNK]);
        let docs = (0..16).map(|n| chunk(base + n, data(n))).collect();
        let reply = connection.call(insert(docs), Some(soon())).unwrap();
        assert_eq!(reply.get("n"), Some(Value::Int32(16)));
        // All reads at once, answered in whatever order they are waited for.
        let find = |n: i32| {
            let mut find = Command::on("find", "test", "fs.chunks");
            find.body().begin("filter").i32("_id", base + n).end().i32("limit", 1);
            find
        };
        let ids: Vec<_> = (0..16).map(|n| connection.submit(find(n)).unwrap()).collect();
        for (n, id) in ids.into_iter().enumerate().rev() {
            let reply = connection.wait_for(id, Some(soon())).unwrap();
            let batch = CursorBatch::from_reply(&reply).unwrap();
            let doc = batch.docs().next().unwrap();
            let got = doc.get("data").unwrap();
            assert_eq!(got.as_binary(), Some(&data(n as i32)));
        }
    }
}

#[test]
fn the_servers_refusals_are_told_apart() {
    let server = Mongod::start(&[]);
    let mut connection = connect(&server.tcp(), "mongodb://h/");
    connection.call(small(1), Some(soon())).unwrap();
    let error = connection.call(small(1), Some(soon())).unwrap_err();
    assert_eq!(error.server().unwrap().code, DUPLICATE_KEY);
    let unknown = Command::new("noSuchCommand", "test");
    let error = connection.call(unknown, Some(soon())).unwrap_err();
    assert_eq!(error.server().unwrap().code_name, "CommandNotFound");
    // What only replica sets have.
    let mut stream = ChangeStream::new("test", None, Doc::empty());
    let error = connection.call(stream.open(), Some(soon())).unwrap_err();
    assert_eq!(error.server().unwrap().code, CHANGE_STREAM_NEEDS_REPLICA_SET);
    assert_eq!(stream.on_error(&error), AfterError::Unavailable);
    let mut session = Session::new(Lsid::new(random().unwrap()));
    let mut write = small(2);
    session.number_write(&mut write).unwrap();
    let error = connection.call(write, Some(soon())).unwrap_err();
    assert!(retry::not_supported(error.server().unwrap()), "{error}");
    // A write that wants no reply leaves none behind.
    let mut unheard = Command::on("insert", "test", "fs.chunks");
    unheard.body().begin("writeConcern").i32("w", 0).end();
    unheard.sequence("documents", vec![chunk(9, Bytes::from_static(b"x"))]);
    unheard.without_reply();
    connection.submit(unheard).unwrap();
    connection.call(Command::new("ping", "admin"), Some(soon())).unwrap();
    assert!(connection.is_quiet());
    // Over the bound: never sent, and the connection stays good.
    let huge = insert(vec![chunk(3, Bytes::from(vec![0; 17 * 1024 * 1024]))]);
    let error = connection.call(huge, Some(soon())).unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::DocumentTooLarge { .. })));
    assert_eq!(count(&mut connection), 2);
}

#[test]
fn users_authenticate_by_both_hashes_and_wrong_ones_are_refused() {
    let server = Mongod::start(&["--auth"]);
    let mut admin = connect(&server.tcp(), "mongodb://h/");
    create_user(&mut admin, "root", "secret", &["SCRAM-SHA-1", "SCRAM-SHA-256"]);
    let mut admin = connect(&server.tcp(), "mongodb://root:secret@h/");
    create_user(&mut admin, "old", "pencil", &["SCRAM-SHA-1"]);
    create_user(&mut admin, "new", "pencil", &["SCRAM-SHA-256"]);
    create_user(&mut admin, "IX", "IX", &["SCRAM-SHA-256"]);
    create_user(&mut admin, "\u{2168}", "\u{2163}", &["SCRAM-SHA-256"]);
    create_user(&mut admin, "a=b,c@d:e/f", "g=h,i@j:k/l", &["SCRAM-SHA-256"]);
    for good in [
        "mongodb://root:secret@h/",
        "mongodb://root:secret@h/?authMechanism=SCRAM-SHA-1",
        "mongodb://root:secret@h/?authMechanism=SCRAM-SHA-256",
        "mongodb://old:pencil@h/",
        "mongodb://new:pencil@h/test.fs?authSource=admin",
        // The specification's names and passwords: names as they are, passwords prepared.
        "mongodb://IX:IX@h/",
        "mongodb://IX:I%C2%ADX@h/",
        "mongodb://%E2%85%A8:IV@h/",
        "mongodb://%E2%85%A8:I%C2%ADV@h/",
        "mongodb://a=b%2Cc%40d%3Ae%2Ff:g=h%2Ci%40j%3Ak%2Fl@h/",
    ] {
        let mut connection = connect(&server.unix(), good);
        // hello and saslContinue, if the guess of the mechanism was right; else one more.
        let next = connection.submit(Command::new("ping", "admin")).unwrap();
        let guessed = !good.starts_with("mongodb://old:");
        assert_eq!(next.0, if guessed { 3 } else { 4 }, "{good}");
        connection.wait_for(next, Some(soon())).unwrap();
        count(&mut connection);
    }
    for bad in [
        "mongodb://root:wrong@h/",
        "mongodb://nobody:secret@h/",
        "mongodb://root:secret@h/otherdb",
        "mongodb://old:pencil@h/?authMechanism=SCRAM-SHA-256",
        "mongodb://new:pencil@h/?authMechanism=SCRAM-SHA-1",
    ] {
        let setup = Setup::from_uri(&ConnectionString::parse(bad).unwrap()).unwrap();
        let error = Connection::open(&server.unix(), &setup, soon()).unwrap_err();
        assert!(matches!(&error, Error::Auth(AuthError::Refused(_))), "{bad}: {error}");
    }
    let mut nobody = connect(&server.unix(), "mongodb://h/");
    let error = nobody.call(small(1), Some(soon())).unwrap_err();
    assert_eq!(error.server().unwrap().code_name, "Unauthorized");
}

fn create_user(admin: &mut Connection, name: &str, password: &str, mechanisms: &[&str]) {
    let mut command = Command::of("createUser", "admin", |body, field| {
        body.str(field, name);
    });
    let body = command.body();
    body.str("pwd", password).begin_array("roles").str("0", "root").end();
    body.begin_array("mechanisms");
    for (i, mechanism) in mechanisms.iter().enumerate() {
        body.str(&i.to_string(), mechanism);
    }
    body.end();
    admin.call(command, Some(soon())).expect("a user");
}

#[test]
fn a_numbered_write_sent_twice_is_applied_once() {
    let server = replica_set(1).remove(0);
    let mut connection = connect(&server.tcp(), "mongodb://h/");
    let mut sessions = SessionPool::default();
    let mut session = sessions.take(30, 0, random().unwrap());
    for round in 1..=3 {
        let mut command = Command::on("update", "test", "numbers");
        command.body().begin_array("updates").begin("0");
        command.body().begin("q").i32("_id", 1).end().bool("upsert", true);
        command.body().begin("u").begin("$inc").i32("n", 1).end().end().end().end();
        session.number_write(&mut command).unwrap();
        let first = connection.call(command.clone(), Some(soon())).unwrap();
        let again = connection.call(command, Some(soon())).unwrap();
        assert_eq!(first.get("n"), again.get("n"));
        session.settle();
        let reply = connection.call(Command::on("find", "test", "numbers"), Some(soon())).unwrap();
        let doc = CursorBatch::from_reply(&reply).unwrap().docs().next().unwrap();
        assert_eq!(doc.get("n"), Some(Value::Int32(round)));
    }
    sessions.give_back(session, 0);
    connection.call(sessions.end().unwrap(), Some(soon())).unwrap();
}

#[test]
fn transactions_commit_whole_or_not_at_all() {
    let server = replica_set(1).remove(0);
    let mut connection = connect(&server.tcp(), "mongodb://h/");
    // A transaction reads a snapshot; a collection made a moment ago is not in it until a
    // majority has it.
    let mut create = Command::on("create", "test", "fs.chunks");
    create.body().begin("writeConcern").str("w", "majority").end();
    connection.call(create, Some(soon())).unwrap();
    connection.call(small(0), Some(soon())).unwrap();
    let majority =
        WriteConcern { w: Some(WriteAck::Mode("majority".into())), ..Default::default() };
    let mut session = Session::new(Lsid::new(random().unwrap()));
    let inside = |session: &mut Session, id: i32| {
        let mut command = Command::on("insert", "test", "fs.chunks");
        command.sequence("documents", vec![chunk(id, Bytes::from(vec![1; CHUNK]))]);
        session.decorate(&mut command).unwrap();
        command
    };
    session.start_transaction().unwrap();
    for id in [1, 2] {
        let command = inside(&mut session, id);
        connection.call(command, Some(soon())).unwrap();
    }
    assert_eq!(count(&mut connection), 1, "not seen from outside");
    let commit = session.commit(&majority).unwrap().unwrap();
    connection.call(commit, Some(soon())).unwrap();
    let again = session.commit(&majority).unwrap().unwrap();
    connection.call(again, Some(soon())).unwrap();
    session.settle();
    assert_eq!(count(&mut connection), 3);

    session.start_transaction().unwrap();
    let command = inside(&mut session, 4);
    connection.call(command, Some(soon())).unwrap();
    let abort = session.abort().unwrap().unwrap();
    connection.call(abort, Some(soon())).unwrap();
    assert_eq!(count(&mut connection), 3);

    // A conflict is transient: the whole transaction may be run again.
    let mut other = Session::new(Lsid::new(random().unwrap()));
    session.start_transaction().unwrap();
    other.start_transaction().unwrap();
    let command = inside(&mut session, 5);
    connection.call(command, Some(soon())).unwrap();
    let command = inside(&mut other, 5);
    let error = connection.call(command, Some(soon())).unwrap_err();
    assert!(retry::transaction(&error), "{error}");
    let abort = session.abort().unwrap().unwrap();
    connection.call(abort, Some(soon())).unwrap();
}

#[test]
fn a_change_stream_sees_writes_and_resumes() {
    let server = replica_set(1).remove(0);
    let mut writer = connect(&server.tcp(), "mongodb://h/");
    let mut watcher = connect(&server.tcp(), "mongodb://h/");
    writer.call(small(0), Some(soon())).unwrap();
    let mut stream = ChangeStream::new("test", Some("fs.chunks"), Doc::empty());
    let reply = watcher.call(stream.open(), Some(soon())).unwrap();
    assert!(stream.on_reply(&reply).unwrap().is_empty());
    let key = |event: &Doc| {
        let key = event.get("documentKey").and_then(|k| k.as_doc().cloned()).expect("a key");
        key.get("_id").and_then(|id| id.as_i64()).expect("a number")
    };
    let begun = Instant::now();
    writer.call(small(1), Some(soon())).unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        let reply = watcher.call(stream.more(1000, false), Some(soon())).unwrap();
        seen = stream.on_reply(&reply).unwrap();
    }
    println!("a w:1 write showed in the change stream after {:?}", begun.elapsed());
    assert_eq!(seen.iter().map(key).collect::<Vec<_>>(), [1]);
    // Lost without a word: nothing written meanwhile is missed.
    drop(watcher);
    writer.call(small(2), Some(soon())).unwrap();
    let mut watcher = connect(&server.tcp(), "mongodb://h/");
    let reply = watcher.call(stream.open(), Some(soon())).unwrap();
    let mut seen = stream.on_reply(&reply).unwrap();
    // The rest as a stream: one request, many replies.
    writer.call(small(3), Some(soon())).unwrap();
    let mut next = Some(watcher.submit(stream.more(500, true)).unwrap());
    while seen.len() < 2 {
        let id = next.expect("the stream goes on");
        let (reply, more) = watcher.next_of_stream(id, Some(soon())).unwrap().expect("in time");
        seen.extend(stream.on_reply(&reply).unwrap());
        next = more;
    }
    assert_eq!(seen.iter().map(key).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_slow_server_costs_the_deadline_and_the_pool_recovers() {
    let server = Mongod::start(&["--setParameter", "enableTestCommands=1"]);
    let uri = ConnectionString::parse("mongodb://h/").unwrap();
    let setup = Setup::from_uri(&uri).unwrap();
    let pool = Pool::new(server.tcp(), setup, PoolBounds::default());
    let mut fail = Command::of("configureFailPoint", "admin", |body, field| {
        body.str(field, "failCommand");
    });
    fail.body().begin("mode").i32("times", 1).end().begin("data");
    fail.body().begin_array("failCommands").str("0", "ping").end();
    fail.body().bool("blockConnection", true).i32("blockTimeMS", 1500).end();
    pool.check_out(soon()).unwrap().call(fail, Some(soon())).unwrap();
    let mut connection = pool.check_out(soon()).unwrap();
    let begun = Instant::now();
    let deadline = Some(begun + Duration::from_millis(200));
    let error = connection.call(Command::new("ping", "admin"), deadline).unwrap_err();
    assert!(matches!(error, Error::Link(_)) && begun.elapsed() < Duration::from_secs(1));
    drop(connection);
    assert_eq!(pool.idle(), 0, "a late reply must never be taken for another");
    let mut connection = pool.check_out(soon()).unwrap();
    connection.call(Command::new("ping", "admin"), Some(soon())).unwrap();
}

#[test]
fn a_new_primary_is_found_after_the_old_one_is_killed() {
    let mut servers = replica_set(3);
    // One seed is enough to learn the others.
    let seed = servers[1].tcp();
    let uri = format!("mongodb://{seed}/?replicaSet=rs&heartbeatFrequencyMS=500");
    let deployment = Deployment::start(&ConnectionString::parse(&uri).unwrap()).unwrap();
    let whole = deployment.wait_for(soon(), |t| {
        let secondaries = t.servers().filter(|s| s.server_type == ServerType::RsSecondary);
        (t.primary().is_some() && secondaries.count() == 2).then_some(())
    });
    assert!(whole.is_some(), "{}", deployment.explain());
    let mut writer = deployment.check_out(Criteria::Write, &[], soon()).unwrap();
    writer.call(small(1), Some(soon())).unwrap();
    let (old, generation) = (writer.address().clone(), writer.generation());
    let nearest =
        ReadPreference { mode: ReadPreferenceMode::Secondary, ..ReadPreference::default() };
    let reader = deployment.check_out(Criteria::Read(&nearest), &[], soon()).unwrap();
    assert_ne!(*reader.address(), old);

    let at = servers.iter().position(|s| s.tcp() == old).unwrap();
    let begun = Instant::now();
    drop(servers.remove(at));
    let error = writer.call(small(2), Some(soon())).unwrap_err();
    assert!(retry::write(&error, 17), "{error}");
    let stage = HandshakeStage::AfterHandshakeCompletes;
    deployment.report(&old, generation, 17, stage, &error);
    drop(writer);
    let mut writer = deployment.check_out(Criteria::Write, &[], soon()).unwrap();
    println!("a new primary {:?} after kill -9", begun.elapsed());
    assert_ne!(*writer.address(), old);
    writer.call(small(2), Some(soon())).unwrap();

    // A stepdown is said by the server itself: no connection breaks, nobody waits for a
    // heartbeat.
    let old = writer.address().clone();
    let mut down = Command::of("replSetStepDown", "admin", |body, field| {
        body.i32(field, 60);
    });
    down.body().i32("secondaryCatchUpPeriodSecs", 5);
    writer.call(down, Some(soon())).unwrap();
    let begun = Instant::now();
    let noticed = deployment.wait_for(soon(), |t| {
        (t.primary().is_none_or(|primary| primary.address != old)).then_some(())
    });
    assert!(noticed.is_some());
    println!("a stepdown was noticed {:?} after it", begun.elapsed());
    let error = writer.call(small(3), Some(soon())).unwrap_err();
    assert!(is_not_primary(error.server().unwrap()), "{error}");
}

#[test]
fn a_deployment_that_is_not_there_is_explained_at_the_deadline() {
    let server = Mongod::start(&[]);
    let uri = format!("mongodb://{}/?replicaSet=nosuchset", server.tcp());
    let deployment = Deployment::start(&ConnectionString::parse(&uri).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_millis(700);
    let error = deployment.select(Criteria::Write, &[], deadline).unwrap_err();
    assert!(error.not_sent() && error.to_string().contains("not in a replica set"), "{error}");
    let alone = Deployment::start(
        &ConnectionString::parse(&format!("mongodb://{}", server.tcp())).unwrap(),
    );
    let mut connection = alone.unwrap().connect(Criteria::Write, soon()).unwrap().0;
    connection.call(small(1), Some(soon())).unwrap();
}
