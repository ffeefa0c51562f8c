//! The pipe against a server that is played by hand: what is sent when, and what outlives a lost
//! connection.

use dbmount_engine::backend::mongo::{Command, Concern, Expect, Reply};
use dbmount_engine::contract::{Fault, Mode};
use dbmount_engine::id::Lane;
use dbmount_engine::time::Mono;

use super::*;
use crate::wire::build::DocBuf;
use crate::wire::doc::{Doc, Value};
use crate::wire::limits::Limits;
use crate::wire::msg::{Flags, Message};

/// A pipe, and the wire it is on.
struct Wire {
    pipe: Pipe,
    next_id: i32,
    inputs: Vec<Input<Mongo>>,
}

const SET: Abilities = Abilities { numbers: true, says_secondary: false };
const ALONE: Abilities = Abilities { numbers: false, says_secondary: false };

fn wire(abilities: Abilities) -> Wire {
    let mut pipe = Pipe::new(1000, [7; 16]);
    pipe.connected(abilities);
    Wire { pipe, next_id: 1, inputs: Vec::new() }
}

fn find() -> Command {
    Command::on("find", "db", "fs.files")
}

fn update(concern: Concern) -> Command {
    let mut command = Command::on("update", "db", "fs.files");
    command.concern = concern;
    command.retryable = true;
    command
}

fn batch(id: u64, mode: Mode, commands: Vec<Command>) -> Batch<Mongo> {
    Batch { id: BatchId(id), lane: Lane::Meta, mode, deadline: Mono::NEVER, commands }
}

fn ok(n: i32) -> Doc {
    let mut doc = DocBuf::new();
    doc.i32("n", n).i32("ok", 1);
    doc.finish_doc().unwrap()
}

fn refusal(code: i32, label: Option<&str>) -> Doc {
    let mut doc = DocBuf::new();
    doc.i32("ok", 0).i32("code", code);
    if let Some(label) = label {
        doc.begin_array("errorLabels").str("0", label).end();
    }
    doc.finish_doc().unwrap()
}

impl Wire {
    fn push(&mut self, id: u64, mode: Mode, commands: Vec<Command>) {
        self.pipe.push(batch(id, mode, commands));
    }

    /// All that may be sent now, as the server sees it.
    fn sent(&mut self) -> Vec<Doc> {
        let mut sent = Vec::new();
        while let Some(command) = self.pipe.next(0) {
            let id = RequestId(self.next_id);
            self.next_id += 1;
            let bytes = command.encode(id, &Limits::default()).unwrap().concat();
            self.pipe.sent(id);
            sent.push(Doc::parse(bytes.slice(21..)).unwrap());
        }
        sent
    }

    fn names(&mut self) -> Vec<String> {
        let name = |doc: &Doc| {
            let first = doc.iter().next().unwrap();
            String::from_utf8(first.name.to_vec()).unwrap()
        };
        self.sent().iter().map(name).collect()
    }

    /// The server answers the oldest request that has no answer; whether it is to be left.
    fn answer(&mut self, body: Doc) -> bool {
        let response_to = self.pipe.awaited.oldest().unwrap();
        let message = Message { flags: Flags::NONE, body, sequences: Vec::new() };
        let incoming = Incoming { id: RequestId(9), response_to, message };
        self.pipe.on_message(incoming, 0, &mut self.inputs).unwrap().is_some()
    }

    fn lose(&mut self, next: Abilities) {
        self.pipe.lost(0, &mut self.inputs);
        self.pipe.connected(next);
    }

    /// The batches that have ended since it was last asked.
    fn ended(&mut self) -> Vec<(u64, Result<usize, Fault>)> {
        let ended = |input| match input {
            Input::Replies(id, result) => (id.0, result.map(|replies| replies.len())),
            other => panic!("{other:?}"),
        };
        self.inputs.drain(..).map(ended).collect()
    }
}

/// Session and number of a command.
fn number(doc: &Doc) -> Option<(Vec<u8>, i64)> {
    let lsid = doc.get("lsid")?;
    let id = lsid.as_doc()?.get("id")?.as_binary()?.to_vec();
    Some((id, doc.get("txnNumber")?.as_i64()?))
}

#[test]
fn batches_travel_together_and_in_order() {
    let mut wire = wire(ALONE);
    wire.push(1, Mode::Ordered, vec![find(), find()]);
    wire.push(2, Mode::Independent, vec![find().expecting(Expect::Success), find()]);
    assert_eq!(wire.names().len(), 4, "nothing relies on anything");
    for _ in 0..4 {
        wire.answer(ok(1));
    }
    assert_eq!(wire.ended(), [(1, Ok(2)), (2, Ok(2))]);
    assert!(wire.pipe.is_idle());
}

#[test]
fn what_relies_on_a_reply_waits_for_it_and_keeps_others_waiting() {
    let mut wire = wire(ALONE);
    let first = update(Concern::Acknowledged).expecting(Expect::Count(1));
    wire.push(1, Mode::Ordered, vec![first.clone(), find()]);
    wire.push(2, Mode::Ordered, vec![find()]);
    assert_eq!(wire.names(), ["update"]);
    wire.answer(ok(1));
    assert_eq!(wire.names(), ["find", "find"], "the rest, and the batch behind");
    wire.answer(ok(1));
    wire.answer(ok(1));
    assert_eq!(wire.ended(), [(1, Ok(2)), (2, Ok(1))]);
    wire.push(3, Mode::Ordered, vec![first, find()]);
    wire.push(4, Mode::Ordered, vec![find()]);
    assert_eq!(wire.names(), ["update"]);
    wire.answer(ok(0));
    let Some(Input::Replies(_, Ok(replies))) = wire.inputs.first() else { panic!() };
    assert_eq!(replies[1], Reply::Skipped);
    assert_eq!(wire.names(), ["find"]);
}

#[test]
fn bytes_on_the_wire_are_bounded_and_one_batch_always_goes() {
    let mut wire = wire(ALONE);
    let large = || {
        let mut command = find();
        command.body().str("comment", "x".repeat(5000));
        command
    };
    wire.push(1, Mode::Ordered, vec![large()]);
    wire.push(2, Mode::Ordered, vec![large()]);
    wire.push(3, Mode::Ordered, vec![find()]);
    for id in 1..=3 {
        assert_eq!(wire.names().len(), 1);
        wire.answer(ok(1));
        assert_eq!(wire.ended(), [(id, Ok(1))]);
    }
}

#[test]
fn a_numbered_write_goes_on_with_its_number_and_others_are_unknown() {
    let mut wire = wire(SET);
    let plain = Command::on("update", "db", "fs.chunks");
    let concern = Concern::Acknowledged;
    wire.push(1, Mode::Ordered, vec![update(concern), update(concern), find()]);
    wire.push(2, Mode::Ordered, vec![plain]);
    let first = wire.sent();
    assert_eq!(first.len(), 4);
    assert_ne!(number(&first[0]), number(&first[1]), "one number at a time for each session");
    assert_eq!(number(&first[2]), None);
    wire.answer(ok(1));
    wire.lose(SET);
    assert_eq!(wire.ended(), [(2, Err(Fault::Unknown))]);
    let again = wire.sent();
    assert_eq!(again.len(), 2, "what was answered is not sent again");
    assert_eq!(number(&again[0]), number(&first[1]));
    wire.answer(ok(1));
    wire.answer(ok(1));
    assert_eq!(wire.ended(), [(1, Ok(3))]);
    // Numbers are used one after another.
    wire.push(3, Mode::Ordered, vec![update(concern)]);
    let next = wire.sent();
    assert!(!first.iter().chain(&again).any(|it| number(it) == number(&next[0])));
}

#[test]
fn a_write_to_a_standalone_is_unknown_when_the_connection_is_lost() {
    let mut wire = wire(ALONE);
    wire.push(1, Mode::Ordered, vec![update(Concern::Acknowledged)]);
    wire.push(2, Mode::Ordered, vec![find()]);
    assert_eq!(number(&wire.sent()[0]), None);
    // Not sent yet at all: it waits.
    wire.pipe.push(batch(3, Mode::Ordered, vec![update(Concern::Acknowledged)]));
    wire.lose(ALONE);
    assert_eq!(wire.ended(), [(1, Err(Fault::Unknown))]);
    assert_eq!(wire.names(), ["find", "update"]);
}

#[test]
fn a_server_that_is_no_primary_any_more_is_left_and_nothing_is_lost() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Ordered, vec![update(Concern::Durable), find()]);
    let first = wire.sent();
    assert!(wire.answer(refusal(10_107, None)));
    wire.lose(SET);
    assert_eq!(wire.ended(), []);
    let again = wire.sent();
    assert_eq!(number(&again[0]), number(&first[0]));
    // The write was done, but the stepdown came before the majority had it.
    let mut late = DocBuf::new();
    late.i32("n", 1).i32("ok", 1).begin("writeConcernError").i32("code", 11_602).end();
    assert!(wire.answer(late.finish_doc().unwrap()));
    wire.lose(SET);
    assert_eq!(number(&wire.sent()[0]), number(&first[0]));
    assert!(!wire.answer(ok(1)));
    wire.answer(ok(1));
    assert_eq!(wire.ended(), [(1, Ok(2))]);
}

#[test]
fn a_server_that_keeps_asking_for_a_retry_is_not_retried_for_ever() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Ordered, vec![update(Concern::Durable)]);
    let mut asked = 0;
    loop {
        assert_eq!(wire.names(), ["update"]);
        if !wire.answer(refusal(6, Some("RetryableWriteError"))) {
            break;
        }
        asked += 1;
        wire.lose(SET);
    }
    assert_eq!(asked, 3);
    assert_eq!(wire.ended(), [(1, Ok(1))], "the last answer is handed on");
}

#[test]
fn a_transaction_commits_when_all_is_well_and_else_aborts() {
    let mut wire = wire(SET);
    let expecting = || update(Concern::Durable).expecting(Expect::Count(1));
    for (id, n, last) in [(1, 1, "commitTransaction"), (2, 0, "abortTransaction")] {
        wire.push(id, Mode::Atomic, vec![expecting(), update(Concern::Durable)]);
        wire.push(id + 10, Mode::Ordered, vec![find()]);
        let sent = wire.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].get("startTransaction"), Some(Value::Bool(true)));
        assert!(sent[0].get("writeConcern").is_none(), "the commit alone states one");
        wire.answer(ok(n));
        if n == 1 {
            assert_eq!(wire.names(), ["update"]);
            wire.answer(ok(1));
        }
        assert_eq!(wire.names(), [last, "find"]);
        wire.answer(ok(1));
        wire.answer(ok(1));
        assert_eq!(wire.ended(), [(id, Ok(2)), (id + 10, Ok(1))]);
    }
}

#[test]
fn a_transaction_lost_before_its_commit_begins_anew_and_its_locks_are_let_go() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Atomic, vec![update(Concern::Durable), update(Concern::Durable)]);
    let first = wire.sent();
    wire.answer(ok(1));
    wire.lose(SET);
    let again = wire.sent();
    assert_eq!(number(&again[0]), number(&first[0]), "the abort of the old one comes first");
    assert!(again[0].get("abortTransaction").is_some());
    assert_eq!(again.len(), 3);
    assert_eq!(again[1].get("startTransaction"), Some(Value::Bool(true)));
    assert_ne!(number(&again[1]), number(&first[0]));
    wire.answer(refusal(251, Some("TransientTransactionError")));
    wire.answer(ok(1));
    wire.answer(ok(1));
    assert_eq!(wire.names(), ["commitTransaction"]);
    wire.answer(ok(1));
    assert_eq!(wire.ended(), [(1, Ok(2))]);
    assert!(wire.pipe.is_idle());
}

#[test]
fn a_commit_without_an_answer_is_asked_for_again() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Atomic, vec![update(Concern::Acknowledged)]);
    let first = wire.sent();
    wire.answer(ok(1));
    assert_eq!(wire.names(), ["commitTransaction"]);
    wire.lose(SET);
    let again = wire.sent();
    assert_eq!(again.len(), 1, "the commands are not sent again");
    assert_eq!(number(&again[0]), number(&first[0]));
    let concern = format!("{:?}", again[0].get("writeConcern"));
    assert!(concern.contains("majority"), "{concern}");
    // Open, as far as this server knows: once more, on the same connection.
    let unknown = "UnknownTransactionCommitResult";
    assert!(!wire.answer(refusal(64, Some(unknown))));
    assert_eq!(wire.names(), ["commitTransaction"]);
    wire.answer(ok(1));
    assert_eq!(wire.ended(), [(1, Ok(1))]);
    // It turns out never to have happened: every command says so.
    wire.push(2, Mode::Atomic, vec![update(Concern::Acknowledged)]);
    wire.sent();
    wire.answer(ok(1));
    wire.sent();
    wire.lose(SET);
    wire.sent();
    assert!(!wire.answer(refusal(251, Some("TransientTransactionError"))));
    let Some(Input::Replies(_, Ok(replies))) = wire.inputs.first() else { panic!() };
    assert!(replies[0].error().unwrap().has_label("TransientTransactionError"));
    // And one that stays open is the engine's to settle.
    wire.inputs.clear();
    wire.push(3, Mode::Atomic, vec![update(Concern::Acknowledged)]);
    wire.sent();
    wire.answer(ok(1));
    for _ in 0..4 {
        assert_eq!(wire.names(), ["commitTransaction"]);
        wire.answer(refusal(50, Some(unknown)));
    }
    assert_eq!(wire.ended(), [(3, Err(Fault::Unknown))]);
}

#[test]
fn a_conflict_within_a_transaction_is_handed_on() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Atomic, vec![update(Concern::Durable), update(Concern::Durable)]);
    wire.sent();
    let conflict = || refusal(112, Some("TransientTransactionError"));
    assert!(!wire.answer(conflict()));
    assert!(!wire.answer(conflict()));
    assert_eq!(wire.names(), ["abortTransaction"]);
    wire.answer(refusal(251, None));
    let Some(Input::Replies(_, Ok(replies))) = wire.inputs.first() else { panic!() };
    assert_eq!(replies[0].error().unwrap().code, 112);
}

#[test]
fn what_nobody_waits_for_is_not_sent_and_its_transaction_is_ended() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Ordered, vec![find()]);
    wire.pipe.abandon(BatchId(1), 0);
    assert_eq!(wire.names().len(), 0);
    wire.push(2, Mode::Atomic, vec![update(Concern::Durable).expecting(Expect::Success), find()]);
    wire.push(3, Mode::Ordered, vec![find()]);
    wire.sent();
    wire.pipe.abandon(BatchId(2), 0);
    wire.answer(ok(1));
    assert_eq!(wire.names(), ["abortTransaction", "find"]);
    wire.pipe.abandon(BatchId(3), 0);
    wire.answer(ok(1));
    wire.answer(ok(1));
    assert_eq!(wire.ended(), []);
    assert!(wire.pipe.is_idle());
}

#[test]
fn reads_from_a_secondary_say_that_they_know() {
    let mut wire = wire(Abilities { numbers: true, says_secondary: true });
    wire.push(1, Mode::Ordered, vec![find(), update(Concern::Acknowledged)]);
    let sent = wire.sent();
    assert!(sent[0].get("$readPreference").is_some() && sent[1].get("$readPreference").is_none());
}

#[test]
fn what_is_over_the_bounds_ends_its_batch_and_nothing_else() {
    let mut wire = wire(SET);
    wire.push(1, Mode::Ordered, vec![find(), find(), find()]);
    wire.push(2, Mode::Ordered, vec![find()]);
    wire.pipe.next(0).unwrap();
    wire.pipe.sent(RequestId(100));
    wire.pipe.next(0).unwrap();
    let misuse = Misuse::DocumentTooLarge { size: 17, max: 16 };
    wire.pipe.not_sendable(&misuse, 0, &mut wire.inputs);
    assert_eq!(wire.names(), ["find"], "the batch behind");
    wire.answer(ok(1));
    let Some(Input::Replies(BatchId(1), Ok(replies))) = wire.inputs.first() else { panic!() };
    assert!(replies[0].error().is_none() && replies[2] == Reply::Skipped);
    assert_eq!(replies[1].error().unwrap().code, 10_334);
    wire.answer(ok(1));
    assert!(wire.pipe.is_idle());
}

#[test]
fn a_reply_to_nothing_is_the_servers_mistake() {
    let mut wire = wire(SET);
    let message = Message { flags: Flags::NONE, body: ok(1), sequences: Vec::new() };
    let incoming = Incoming { id: RequestId(9), response_to: RequestId(5), message };
    assert!(wire.pipe.on_message(incoming, 0, &mut wire.inputs).is_err());
}
