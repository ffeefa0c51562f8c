//! The official retryable writes cases against a real replica set of one member, by fail points,
//! through the lanes a mount uses.
//!
//! Needs `--features live-tests`, `DBMOUNT_MONGOD`, and `DBMOUNT_SPEC_TESTS` for the cases.

mod common;
#[path = "common/ejson.rs"]
mod ejson;
mod mongod;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use common::{Tally, files};
use dbmount_engine::backend::mongo::{Command, Concern, Expect, Mongo, Reply};
use dbmount_engine::contract::{Batch, Fault, Input, Mode};
use dbmount_engine::id::{BatchId, Lane};
use dbmount_engine::time::Mono;
use dbmount_transport_mongo::change_stream::ChangeStream;
use dbmount_transport_mongo::connection::Connection;
use dbmount_transport_mongo::lanes::{Options, Sink, Transport};
use dbmount_transport_mongo::uri::ConnectionString;
use dbmount_transport_mongo::wire::command::{Command as WireCommand, CursorBatch};
use dbmount_transport_mongo::wire::doc::Doc;
use mongod::{connect, replica_set, soon};
use serde_json::Value as Json;

const DB: &str = "retryable-writes-tests";
const COLL: &str = "coll";

/// The server at hand, for `runOnRequirements`.
const VERSION: &str = "6.0.5";

const LEFT_OUT: &[(&str, &str)] = &[
    ("handshakeError", "is about a driver's pool, which lanes do not use"),
    ("client-bulkWrite", "needs MongoDB 8.0"),
    ("aggregate-out-merge", "no mount sends $out or $merge"),
    ("unacknowledged", "no mount sends w: 0"),
    ("retryWrites option is false", "makes a second client; `tests/lanes.rs` has it"),
    ("never committed", "gives up after one retry; a mount goes on until the operation's deadline"),
    ("multiple network errors", "the same"),
    ("fails after multiple", "the same"),
    ("two connection failures", "the same"),
    ("NoWritesPerformed", "the same"),
    ("pre-4.4", "needs MongoDB 4.2"),
    (
        "fails if server does not return RetryableWriteError",
        "of a server that shuts down; a mount asks again, with the same number, label or not",
    ),
];

struct Replies(SyncSender<Result<Vec<Reply>, Fault>>);

impl Sink for Replies {
    fn deliver(&self, inputs: Vec<Input<Mongo>>) {
        for input in inputs {
            if let Input::Replies(_, result) = input {
                // The test may be through.
                let _ = self.0.send(result);
            }
        }
    }
}

struct Bench {
    transport: Transport,
    replies: Receiver<Result<Vec<Reply>, Fault>>,
    admin: Connection,
    next: u64,
}

#[test]
fn retryable_writes() {
    let Some(files) = files("retryable-writes") else { return };
    let mut tally = Tally::new("retryable-writes", LEFT_OUT);
    let server = replica_set(1).remove(0);
    let uri = format!("mongodb://{}/?replicaSet=rs&heartbeatFrequencyMS=500", server.tcp());
    let uri = ConnectionString::parse(&uri).expect("a connection string");
    let (sender, replies) = sync_channel(16);
    let stream = ChangeStream::new(DB, Some(COLL), Doc::empty());
    let sink = Arc::new(Replies(sender));
    let transport = Transport::start(&uri, stream, Options::default(), sink).expect("threads");
    let admin = connect(&server.tcp(), "mongodb://h/");
    let mut bench = Bench { transport, replies, admin, next: 1 };
    for (name, file) in files {
        for case in file["tests"].as_array().expect("a list") {
            let name = format!("{name}: {}", case["description"].as_str().expect("a text"));
            tally.case(&name, || bench.run(&file, case));
        }
    }
    tally.finish();
    bench.transport.shutdown();
}

impl Bench {
    fn run(&mut self, file: &Json, case: &Json) -> Result<(), String> {
        for required in [file, case].map(|it| &it["runOnRequirements"]) {
            if let Some(any) = required.as_array() {
                assert!(any.iter().any(fits), "left out by name, not here: {required}");
            }
        }
        self.fill(file);
        let mut failing = None;
        let mut result = Ok(());
        for operation in case["operations"].as_array().expect("a list") {
            let (name, arguments) =
                (operation["name"].as_str().expect("a text"), &operation["arguments"]);
            if name == "failPoint" {
                let point = &arguments["failPoint"];
                failing = point["configureFailPoint"].as_str();
                self.fail_point(point);
                continue;
            }
            result = result.and(self.operate(name, arguments, operation));
        }
        if let Some(name) = failing {
            self.fail_point(&serde_json::json!({"configureFailPoint": name, "mode": "off"}));
        }
        result?;
        for wanted in case["outcome"].as_array().into_iter().flatten() {
            let mut find = WireCommand::on("find", DB, COLL);
            find.body().begin("sort").i32("_id", 1).end();
            let reply = self.admin.call(find, Some(soon())).expect("an answer");
            let found: Vec<String> = CursorBatch::from_reply(&reply)
                .expect("a cursor")
                .docs()
                .map(|doc| format!("{doc:?}"))
                .collect();
            let documents = wanted["documents"].as_array().expect("a list");
            let wanted: Vec<String> =
                documents.iter().map(|it| format!("{:?}", ejson::doc(it))).collect();
            common::same("outcome", found, wanted)?;
        }
        Ok(())
    }

    fn fill(&mut self, file: &Json) {
        let mut empty = WireCommand::on("delete", DB, COLL);
        empty.body().begin_array("deletes").begin("0").begin("q").end().i32("limit", 0).end().end();
        self.admin.call(empty, Some(soon())).expect("an answer");
        for data in file["initialData"].as_array().into_iter().flatten() {
            let documents = data["documents"].as_array().expect("a list");
            if documents.is_empty() {
                continue;
            }
            let mut insert = WireCommand::on("insert", DB, COLL);
            insert.body().begin_array("documents");
            for (i, document) in documents.iter().enumerate() {
                insert.body().doc(&i.to_string(), &ejson::doc(document));
            }
            insert.body().end();
            self.admin.call(insert, Some(soon())).expect("an answer");
        }
    }

    fn fail_point(&mut self, point: &Json) {
        let point = ejson::doc(point);
        let command = WireCommand::of("configureFailPoint", "admin", |body, _| {
            for element in &point {
                body.value(str::from_utf8(element.name).expect("a name"), &element.value);
            }
        });
        self.admin.call(command, Some(soon())).expect("an answer");
    }

    fn operate(&mut self, name: &str, arguments: &Json, case: &Json) -> Result<(), String> {
        let mut mode = Mode::Ordered;
        let commands = match arguments["requests"].as_array() {
            Some(requests) => {
                if arguments["ordered"] == false {
                    mode = Mode::Independent;
                }
                let one = |request: &Json| {
                    let (name, arguments) =
                        request.as_object().and_then(|it| it.iter().next()).expect("an operation");
                    command(name, arguments)
                };
                requests.iter().map(one).collect()
            }
            None => vec![command(name, arguments)],
        };
        let id = BatchId(self.next);
        self.next += 1;
        let deadline = Mono::NEVER;
        self.transport.submit(Batch { id, lane: Lane::Meta, mode, deadline, commands });
        let result =
            self.replies.recv_timeout(Duration::from_secs(60)).map_err(|e| e.to_string())?;
        let errors: Vec<_> = match &result {
            Ok(replies) => replies.iter().filter_map(Reply::error).collect(),
            Err(fault) => return Err(format!("{fault:?}")),
        };
        let wanted = &case["expectError"];
        if wanted.is_null() {
            return if errors.is_empty() { Ok(()) } else { Err(format!("{errors:?}")) };
        }
        let Some(error) = errors.first() else { return Err("no error".to_owned()) };
        for label in wanted["errorLabelsContain"].as_array().into_iter().flatten() {
            common::same("label", error.has_label(label.as_str().expect("a text")), true)?;
        }
        for label in wanted["errorLabelsOmit"].as_array().into_iter().flatten() {
            common::same("label", error.has_label(label.as_str().expect("a text")), false)?;
        }
        Ok(())
    }
}

/// Whether the server at hand is meant: versions of two or three numbers.
fn fits(required: &Json) -> bool {
    let parts =
        |text: &str| text.split('.').map(|n| n.parse().expect("a number")).collect::<Vec<u32>>();
    let version = parts(VERSION);
    let least = required["minServerVersion"].as_str().is_none_or(|it| parts(it) <= version);
    let most = required["maxServerVersion"].as_str().is_none_or(|it| parts(it) >= version);
    let sets = required["topologies"].as_array();
    least && most && sets.is_none_or(|it| it.iter().any(|kind| kind == "replicaset"))
}

/// A driver's operation as the command it is. Those that write one document may be numbered.
fn command(name: &str, arguments: &Json) -> Command {
    let verb = match name {
        "insertOne" | "insertMany" => "insert",
        "updateOne" | "updateMany" | "replaceOne" => "update",
        "deleteOne" | "deleteMany" => "delete",
        "findOneAndUpdate" | "findOneAndReplace" | "findOneAndDelete" => "findAndModify",
        other => panic!("an operation {other}"),
    };
    let mut command = Command::on(verb, DB, COLL).expecting(Expect::Success);
    command.retryable = !matches!(name, "updateMany" | "deleteMany");
    command.concern = Concern::Acknowledged;
    let many = !command.retryable;
    let change = || {
        let change = &arguments["update"];
        ejson::doc(if change.is_null() { &arguments["replacement"] } else { change })
    };
    let body = command.body();
    match verb {
        "insert" => {
            body.begin_array("documents");
            let one = std::slice::from_ref(&arguments["document"]);
            let documents = arguments["documents"].as_array().map_or(one, Vec::as_slice);
            for (i, document) in documents.iter().enumerate() {
                body.doc(&i.to_string(), &ejson::doc(document));
            }
            body.end();
            if arguments["ordered"] == false {
                body.bool("ordered", false);
            }
        }
        "update" => {
            body.begin_array("updates").begin("0").doc("q", &ejson::doc(&arguments["filter"]));
            body.doc("u", &change()).bool("multi", many);
            body.bool("upsert", arguments["upsert"] == true).end().end();
        }
        "delete" => {
            body.begin_array("deletes").begin("0").doc("q", &ejson::doc(&arguments["filter"]));
            body.i32("limit", i32::from(!many)).end().end();
        }
        _ => {
            body.doc("query", &ejson::doc(&arguments["filter"]));
            if name == "findOneAndDelete" {
                body.bool("remove", true);
            } else {
                body.doc("update", &change());
            }
        }
    }
    command
}
