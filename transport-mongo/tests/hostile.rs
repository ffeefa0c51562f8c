//! Whatever a server or a user sends, above the codec: arbitrary replies and connection strings
//! end as values or typed errors, never as a panic, and never grow what is kept.

use bytes::Bytes;
use dbmount_transport_mongo::auth::conversation::{Conversation, Step};
use dbmount_transport_mongo::auth::scram::KeyCache;
use dbmount_transport_mongo::change_stream::ChangeStream;
use dbmount_transport_mongo::error::ServerError;
use dbmount_transport_mongo::fuzz;
use dbmount_transport_mongo::hello::HelloReply;
use dbmount_transport_mongo::session::ClusterClock;
use dbmount_transport_mongo::topology::{Criteria, Topology};
use dbmount_transport_mongo::uri::{
    ConnectionString, Mechanism, ReadPreference, ReadPreferenceMode, ServerAddress,
};
use dbmount_transport_mongo::wire::build::DocBuf;
use dbmount_transport_mongo::wire::command::CursorBatch;
use dbmount_transport_mongo::wire::doc::{Doc, Value};
use proptest::prelude::*;

/// Field names that something looks for, so that arbitrary replies mean something.
const NAMES: [&str; 36] = [
    "ok",
    "code",
    "codeName",
    "errmsg",
    "errorLabels",
    "writeErrors",
    "writeConcernError",
    "topologyVersion",
    "processId",
    "counter",
    "cursor",
    "id",
    "firstBatch",
    "nextBatch",
    "postBatchResumeToken",
    "_id",
    "operationTime",
    "$clusterTime",
    "clusterTime",
    "hosts",
    "me",
    "primary",
    "setName",
    "setVersion",
    "electionId",
    "tags",
    "isWritablePrimary",
    "secondary",
    "maxWireVersion",
    "lastWrite",
    "lastWriteDate",
    "saslSupportedMechs",
    "conversationId",
    "done",
    "payload",
    "passives",
];

#[derive(Debug, Clone)]
enum Node {
    Str(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Id([u8; 12]),
    Time(u32, u32),
    Date(i64),
    Bin(Vec<u8>),
    Doc(Vec<(usize, Node)>),
    Array(Vec<Node>),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        "[ab.:/\\[\\]0-9]{0,8}".prop_map(Node::Str),
        prop_oneof![Just(0), Just(1), Just(17), Just(-1), any::<i64>()].prop_map(Node::Int),
        prop_oneof![Just(1.0), Just(0.0), any::<f64>()].prop_map(Node::Double),
        any::<bool>().prop_map(Node::Bool),
        prop_oneof![Just([0; 12]), any::<[u8; 12]>()].prop_map(Node::Id),
        any::<(u32, u32)>().prop_map(|(s, o)| Node::Time(s, o)),
        any::<i64>().prop_map(Node::Date),
        "[rsi=,nonceAB4096+/]{0,40}".prop_map(|text| Node::Bin(text.into_bytes())),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec((0..NAMES.len(), inner.clone()), 0..5).prop_map(Node::Doc),
            proptest::collection::vec(inner, 0..5).prop_map(Node::Array),
        ]
    })
}

fn write(out: &mut DocBuf, name: &str, node: &Node) {
    match node {
        Node::Str(text) => drop_chain(out.str(name, text)),
        Node::Int(n) => drop_chain(out.i64(name, *n)),
        Node::Double(d) => drop_chain(out.f64(name, *d)),
        Node::Bool(b) => drop_chain(out.bool(name, *b)),
        Node::Id(id) => drop_chain(out.object_id(name, *id)),
        Node::Time(seconds, ordinal) => drop_chain(out.timestamp(name, *seconds, *ordinal)),
        Node::Date(ms) => drop_chain(out.date_time(name, *ms)),
        Node::Bin(data) => drop_chain(out.binary(name, 0, Bytes::from(data.clone()))),
        Node::Doc(fields) => {
            out.begin(name);
            fields.iter().for_each(|(i, node)| write(out, NAMES[*i], node));
            out.end();
        }
        Node::Array(items) => {
            out.begin_array(name);
            items.iter().enumerate().for_each(|(i, node)| write(out, &i.to_string(), node));
            out.end();
        }
    }
}

fn drop_chain(_: &mut DocBuf) {}

fn reply() -> impl Strategy<Value = Doc> {
    proptest::collection::vec((0..NAMES.len(), node()), 0..14).prop_map(|fields| {
        let mut out = DocBuf::new();
        fields.iter().for_each(|(i, node)| write(&mut out, NAMES[*i], node));
        out.finish_doc().expect("well-formed")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn arbitrary_replies_never_panic(replies in proptest::collection::vec(reply(), 1..6)) {
        let seed = ServerAddress::parse("a").expect("an address");
        let mut topology = Topology::new(std::slice::from_ref(&seed), Some("a"), false, false);
        let mut stream = ChangeStream::new("db", None, Doc::empty());
        let mut clock = ClusterClock::default();
        for reply in &replies {
            if let Some(error) = ServerError::from_reply(reply) {
                let _ = (error.to_string(), stream.on_error(&error.into()));
            }
            if let Ok(hello) = HelloReply::from_doc(reply) {
                topology.on_hello(&seed, &hello, Some(1.0), 0);
            }
            let _ = (CursorBatch::from_reply(reply), stream.on_reply(reply), stream.open());
            clock.observe(reply);
            let nearest = ReadPreference { mode: ReadPreferenceMode::Nearest, ..Default::default() };
            prop_assert!(topology.suitable(Criteria::Read(&nearest), 10_000, &[]).is_ok());
        }
        prop_assert!(topology.servers().count() <= 3 * 128 + 1);
    }

    #[test]
    fn arbitrary_sasl_replies_never_authenticate(replies in proptest::collection::vec(reply(), 1..4)) {
        let uri = ConnectionString::parse("mongodb://user:pencil@h/").expect("a uri");
        let credential = uri.credential.expect("a credential");
        let mut conversation =
            Conversation::new(&credential, Mechanism::ScramSha256, "nonce").expect("begun");
        let mut cache = KeyCache::default();
        for reply in &replies {
            match conversation.on_reply(reply, &mut cache) {
                Ok(Step::Send(_, next)) => conversation = next,
                Ok(Step::Done) => return Err(TestCaseError::fail("authenticated by chance")),
                Err(_) => break,
            }
        }
    }

    #[test]
    fn the_fuzz_targets_hold(mut data in proptest::collection::vec(any::<u8>(), 5..300)) {
        fuzz::stream(&data);
        fuzz::message(&data);
        fuzz::connection_string(&data);
        let len = data.len();
        data[..4].copy_from_slice(&(len as u32).to_le_bytes());
        data[len - 1] = 0;
        fuzz::document(&data);
    }

    #[test]
    fn arbitrary_connection_strings_never_panic(text in "(mongodb(\\+srv)?://)?[a-z@:/?&=%,.\\[\\]0-9é$]{0,60}") {
        if let Ok(uri) = ConnectionString::parse(&text) {
            let _ = (uri.namespace(), format!("{uri:?}"));
        }
        let _ = ServerAddress::parse(&text);
    }
}

#[test]
fn a_list_of_labels_and_a_message_are_kept_bounded() {
    let mut doc = DocBuf::new();
    doc.f64("ok", 0.0).str("errmsg", "x".repeat(1_000_000)).begin_array("errorLabels");
    for i in 0..10_000 {
        doc.str(&i.to_string(), "label".repeat(1000));
    }
    doc.end();
    let error = ServerError::from_reply(&doc.finish_doc().unwrap()).unwrap();
    assert!(error.message.len() <= 1024 && error.labels.len() <= 16);
    assert!(error.labels.iter().all(|label| label.len() <= 1024));
    assert_eq!(Doc::empty().get("x"), None::<Value<'_>>);
}
