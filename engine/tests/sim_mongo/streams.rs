//! Change streams: the same writes make the same events.

use dbmount_engine::backend::bson::{Doc, DocBuf};
use dbmount_engine::backend::mongo::{Command, Concern, Reply};
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::mongo::change_stream;

use crate::commands::{Step, cases, indexes, step};
use crate::compare::{DB, Pair};
use crate::mongod::soon;
use crate::values::{V, doc, show, text};

/// What an event says beside when and where in the log it stands.
fn tidy(event: &Doc) -> String {
    let mut fields = Vec::new();
    for element in event {
        let name = String::from_utf8_lossy(element.name).into_owned();
        if ["_id", "clusterTime", "wallTime", "lsid", "txnNumber"].contains(&name.as_str()) {
            continue;
        }
        let mut shown = show(&element.value);
        if name == "updateDescription" {
            let description = element.value.as_doc().expect("a document");
            let parts = description.iter().map(|part| {
                let mut inner: Vec<String> = match (part.value.as_doc(), part.value.as_array()) {
                    (Some(fields), _) => fields
                        .iter()
                        .map(|it| {
                            format!("{}: {}", String::from_utf8_lossy(it.name), show(&it.value))
                        })
                        .collect(),
                    (_, Some(items)) => items.iter().map(|it| show(&it.value)).collect(),
                    _ => Vec::new(),
                };
                inner.sort();
                format!("{} {inner:?}", String::from_utf8_lossy(part.name))
            });
            shown = parts.collect::<Vec<_>>().join(" ");
        }
        fields.push(format!("{name}: {shown}"));
    }
    fields.sort();
    fields.join(", ")
}

fn more(cursor: i64, collection: &str) -> Command {
    let mut body = DocBuf::new();
    body.i64("getMore", cursor).str("collection", collection).str("$db", DB).i32("maxTimeMS", 500);
    Command::of("getMore", body)
}

/// Reads a stream until an event is about this document.
fn read(
    cursor: i64,
    collection: &str,
    last: &str,
    mut ask: impl FnMut(&Command) -> Doc,
) -> Vec<String> {
    let (mut events, until) = (Vec::new(), soon());
    while !events.last().is_some_and(|it: &String| it.contains(last)) {
        assert!(std::time::Instant::now() < until, "the last event does not come: {events:#?}");
        let reply = Reply::Doc(ask(&more(cursor, collection)));
        assert!(reply.error().is_none(), "{reply:?}");
        events.extend(reply.batch().0.iter().map(tidy));
    }
    events
}

fn last_insert() -> Step {
    let document = doc([("_id", text("the last one"))]);
    Step { name: "insert", fields: vec![("documents", V::List(vec![document]))] }
}

#[test]
fn the_same_writes_make_the_same_events() {
    let mut pair = Pair::replica_set();
    let mut wrong = Vec::new();
    for seed in 0..cases(8) {
        let collection = format!("s{seed}");
        let mut random = Random(seed ^ 0x57e4);
        pair.check(&indexes().command(&collection)).expect("indexes");
        let plain = {
            let mut command = Command::on("aggregate", DB, &collection);
            command.body().begin_array("pipeline").begin("0").begin("$changeStream");
            command.body().end().end().end().begin("cursor").end();
            command
        };
        let open = [plain, change_stream(DB, &collection)];
        let cursors: Vec<(i64, i64)> = open
            .iter()
            .map(|open| {
                let (sim, real) = (pair.on_sim(open), pair.on_real(open));
                (Reply::Doc(sim).batch().1, Reply::Doc(real).batch().1)
            })
            .collect();
        let writes = (0..80).map(|_| step(&mut random));
        for step in
            writes.filter(|it| matches!(it.name, "insert" | "update" | "delete" | "findAndModify"))
        {
            let mut command = step.command(&collection);
            command.concern = Concern::Durable;
            pair.check(&command).expect("the same reply");
            if pair.ambiguous {
                break;
            }
        }
        let mut command = last_insert().command(&collection);
        command.concern = Concern::Durable;
        pair.check(&command).expect("the same reply");
        for (on_sim, on_real) in cursors {
            let sim = read(on_sim, &collection, "the last one", |it| pair.on_sim(it));
            let real = read(on_real, &collection, "the last one", |it| pair.on_real(it));
            pair.compared += real.len() as u64;
            for (sim, real) in sim.iter().zip(&real) {
                if sim != real {
                    wrong.push(format!("seed {seed}\n  simulated: {sim}\n  real:      {real}"));
                }
            }
            if sim.len() != real.len() {
                wrong.push(format!("seed {seed}: {} events, not {}", sim.len(), real.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_stream_ends_with_its_collection() {
    let mut pair = Pair::replica_set();
    pair.check(&last_insert().command("gone")).expect("the same reply");
    let open = change_stream(DB, "gone");
    let (sim, real) = (pair.on_sim(&open), pair.on_real(&open));
    let (sim, real) = (Reply::Doc(sim).batch().1, Reply::Doc(real).batch().1);
    pair.check(&Command::on("drop", DB, "gone")).expect("the same reply");
    let sim = read(sim, "gone", "invalidate", |it| pair.on_sim(it));
    let real = read(real, "gone", "invalidate", |it| pair.on_real(it));
    assert_eq!(sim, real);
}

#[test]
fn a_standalone_has_none() {
    let mut pair = Pair::standalone();
    pair.check(&change_stream(DB, "any")).expect("the same refusal");
}
