//! What faults take away, and what they leave.

use alloc::string::String;

use super::*;
use crate::backend::mongo::{Concern, Push};
use crate::time::Mono;

const CLIENT: ClientId = ClientId(1);

fn insert(id: i32, concern: Concern) -> Command {
    let mut insert = Command::on("insert", "t", "fs.files");
    insert.body().begin_array("documents").begin("0").i32("_id", id).end().end();
    insert.concern = concern;
    insert
}

fn lagging(replica_set: bool) -> Server {
    let settings = Settings { replica_set, lag: Duration::from_millis(100), disk: 0 };
    Server::with_settings(Now::default(), settings)
}

fn at(millis: u64) -> Now {
    Now { mono: Mono(millis * 1_000_000), ..Now::default() }
}

#[test]
fn a_crash_loses_what_was_not_safe() {
    for replica_set in [true, false] {
        let mut server = lagging(replica_set);
        server.execute(at(0), CLIENT, &insert(1, Concern::Acknowledged));
        server.execute(at(1), CLIENT, &insert(2, Concern::Durable));
        server.execute(at(2), CLIENT, &insert(3, Concern::Acknowledged));
        assert_eq!(server.unsafe_writes(), 1);
        server.crash(at(3));
        assert_eq!(server.documents("t.fs.files").len(), 2, "what stood before a safe write is");
        server.execute(at(4), CLIENT, &insert(3, Concern::Acknowledged));
        server.tick(at(200));
        server.crash(at(201));
        assert_eq!(server.documents("t.fs.files").len(), 3, "time makes it safe");
    }
}

#[test]
fn a_stream_shows_what_is_safe() {
    let mut server = lagging(true);
    assert!(server.watch(at(0), CLIENT, &super::super::change_stream("t", "fs.files")));
    server.execute(at(0), CLIENT, &insert(1, Concern::Acknowledged));
    assert!(server.take_pushes(CLIENT).is_empty());
    server.tick(at(100));
    assert!(matches!(server.take_pushes(CLIENT)[..], [Push::Change(_)]));
    server.crash(at(101));
    assert!(server.take_pushes(CLIENT).is_empty(), "its connection is gone");
}

#[test]
fn refusals_leave_nothing() {
    let mut server = Server::new(Now::default());
    let code = |reply: Reply| reply.error().map_or((0, String::new()), |it| (it.code, it.message));
    server.step_down();
    let refused = code(server.execute(at(0), CLIENT, &insert(1, Concern::Durable)));
    assert_eq!(refused, (NOT_WRITABLE_PRIMARY, String::from("not primary")));
    server.step_up();
    server.set_disk(10);
    let refused = code(server.execute(at(0), CLIENT, &insert(1, Concern::Durable)));
    assert_eq!(refused.0, super::super::failure::OUT_OF_DISK_SPACE);
    assert!(server.documents("t.fs.files").is_empty());
    server.set_disk(0);
    assert_eq!(code(server.execute(at(0), CLIENT, &insert(1, Concern::Durable))).0, 0);
    let unknown = code(server.execute(at(0), CLIENT, &Command::new("mapReduce", "t")));
    assert!(unknown.1.starts_with("not simulated"), "{unknown:?}");
}
