//! A simulated server and a real one side by side, and what counts as the same answer.

use std::time::{SystemTime, UNIX_EPOCH};

use dbmount_engine::backend::bson::{Doc, Value};
use dbmount_engine::backend::mongo::{Command, Concern, Reply};
use dbmount_engine::sim::mongo::{ClientId, Server, Settings};
use dbmount_engine::{Mono, Now, Wall};
use dbmount_transport_mongo::connection::Connection;
use dbmount_transport_mongo::wire::command::Command as WireCommand;

use crate::mongod::{Mongod, connect, replica_set, soon};
use crate::values::{show, show_doc};

/// The simulator's own connection.
pub(crate) const SIM: ClientId = ClientId(1);
/// The database of all collections here.
pub(crate) const DB: &str = "t";

/// The same connection to two servers.
pub(crate) struct Pair {
    pub(crate) sim: Server,
    pub(crate) real: Connection,
    /// How many replies were compared.
    pub(crate) compared: u64,
    /// An update of many documents has met an error: which of them it had changed by then is
    /// nobody's promise.
    pub(crate) ambiguous: bool,
    /// Keep the processes alive.
    _servers: Vec<Mongod>,
}

/// The real clock: both servers must see the same.
pub(crate) fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let nanos = i64::try_from(since.as_nanos()).expect("before 2262");
    Now { mono: Mono(nanos as u64), wall: Wall(nanos) }
}

impl Drop for Pair {
    fn drop(&mut self) {
        println!("{} replies compared", self.compared);
    }
}

impl Pair {
    pub(crate) fn standalone() -> Pair {
        Pair::of(vec![Mongod::start(&["--setParameter", "enableTestCommands=1"])], false)
    }

    pub(crate) fn replica_set() -> Pair {
        Pair::of(replica_set(1), true)
    }

    fn of(servers: Vec<Mongod>, replica_set: bool) -> Pair {
        let real = connect(&servers[0].tcp(), "mongodb://h/");
        let settings = Settings { replica_set, ..Settings::default() };
        let sim = Server::with_settings(now(), settings);
        Pair { sim, real, compared: 0, ambiguous: false, _servers: servers }
    }

    pub(crate) fn on_real(&mut self, command: &Command) -> Doc {
        let mut command = command.clone();
        let concern = command.concern;
        concern.write(command.body());
        let reply = self.real.call_raw(WireCommand::from(command.clone()), Some(soon()));
        reply.unwrap_or_else(|error| panic!("{}: {error}", whole(&command)))
    }

    pub(crate) fn on_sim(&mut self, command: &Command) -> Doc {
        self.sim.execute(now(), SIM, command).doc()
    }

    /// Runs a command on both. What differs, if anything does. What would wait on the real server
    /// is not sent there.
    pub(crate) fn check(&mut self, command: &Command) -> Result<(), String> {
        let Some(Reply::Doc(sim)) = self.sim.attempt(now(), SIM, command) else { return Ok(()) };
        let real = self.on_real(command);
        let many = command.name() == "update" && whole(command).contains("multi: true");
        self.ambiguous = many && Reply::Doc(real.clone()).error().is_some();
        if self.ambiguous && Reply::Doc(sim.clone()).error().is_some() {
            // Another document may have met another error.
            self.compared += 1;
            return Ok(());
        }
        self.same(command, &sim, &real)
    }

    /// Compares two replies to a command.
    pub(crate) fn same(&mut self, command: &Command, sim: &Doc, real: &Doc) -> Result<(), String> {
        self.compared += 1;
        let body = command.document().expect("a document");
        let ordered = ["sort", "hint"].iter().any(|it| body.get(it).is_some());
        let (is, should) = (tidy(sim, ordered), tidy(real, ordered));
        if is == should {
            return Ok(());
        }
        Err(format!(
            "{}\n  simulated: {is}\n  real:      {should}\n  the words: {:?} and {:?}",
            whole(command),
            words(sim),
            words(real),
        ))
    }

    /// Compares all documents of a collection.
    pub(crate) fn check_documents(&mut self, collection: &str) -> Result<(), String> {
        let mut find = Command::on("find", DB, collection);
        find.body().i32("batchSize", 10_000);
        self.check(&find)
    }
}

/// A command, whole.
pub(crate) fn whole(command: &Command) -> String {
    let mut text = show_doc(&command.document().expect("a document"));
    for sequence in &command.sequences {
        let docs = sequence.docs.iter().map(|it| Doc::parse(it.concat()).expect("a document"));
        let docs: Vec<String> = docs.map(|it| show_doc(&it)).collect();
        text.push_str(&format!(" {}: [{}]", sequence.name, docs.join(", ")));
    }
    if command.concern != Concern::None {
        text.push_str(&format!(" {:?}", command.concern));
    }
    text
}

fn words(reply: &Doc) -> String {
    let inner = reply.get("writeErrors").and_then(|it| {
        let first = it.as_array()?.iter().next()?.value;
        first.as_doc().cloned()
    });
    let of = |doc: &Doc| Some(doc.get("errmsg")?.as_str()?.to_owned());
    of(reply).or_else(|| inner.as_ref().and_then(of)).unwrap_or_default()
}

/// What is not compared: times and places, and the words of errors, which only people read.
const LEFT_OUT: [&str; 10] = [
    "$clusterTime",
    "operationTime",
    "opTime",
    "electionId",
    "errmsg",
    "postBatchResumeToken",
    "commitQuorum",
    "topologyVersion",
    "errInfo",
    "recoveryToken",
];

/// A reply as it is compared: fields by name, a batch sorted unless it was asked for in an order.
pub(crate) fn tidy(reply: &Doc, ordered: bool) -> String {
    let mut fields: Vec<String> = Vec::new();
    for element in reply {
        let name = String::from_utf8_lossy(element.name).into_owned();
        if LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        let shown = match (name.as_str(), &element.value) {
            ("cursor", Value::Document(cursor)) => tidy_cursor(cursor, ordered),
            ("writeErrors", Value::Array(errors)) => {
                let errors = errors.iter().filter_map(|it| it.value.as_doc().cloned());
                format!("{:?}", errors.map(|it| tidy(&it, true)).collect::<Vec<_>>())
            }
            ("errorLabels", Value::Array(labels)) => {
                let mut labels: Vec<String> = labels.iter().map(|it| show(&it.value)).collect();
                labels.sort();
                labels.join(" ")
            }
            (_, value) => show(value),
        };
        fields.push(format!("{name}: {shown}"));
    }
    fields.sort();
    format!("{{{}}}", fields.join(", "))
}

fn tidy_cursor(cursor: &Doc, ordered: bool) -> String {
    let mut fields = Vec::new();
    for element in cursor {
        match (element.name, &element.value) {
            (b"id", value) => {
                let open = value.as_i64() != Some(0);
                fields.push(format!("open: {open}"));
            }
            (b"firstBatch" | b"nextBatch", Value::Array(items)) => {
                let mut items: Vec<String> = items.iter().map(|it| show(&it.value)).collect();
                if !ordered {
                    items.sort();
                }
                fields.push(items.join(" "));
            }
            (b"ns", value) => fields.push(show(value)),
            _ => {}
        }
    }
    fields.sort();
    fields.join(", ")
}
