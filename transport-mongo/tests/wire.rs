//! The wire codec against hand-made vectors, against the `bson` crate as an oracle, and against
//! hostile bytes: truncation at every byte, wrong lengths, deep nesting.

use std::io::Read;

use bytes::Bytes;
use dbmount_transport_mongo::error::Misuse;
use dbmount_transport_mongo::wire::build::{DocBuf, Segments};
use dbmount_transport_mongo::wire::command::{Command, CursorBatch};
use dbmount_transport_mongo::wire::doc::{Doc, Value};
use dbmount_transport_mongo::wire::frame::{Framer, Header, Op, RequestId};
use dbmount_transport_mongo::wire::limits::{HEADER_LEN, Limits, MAX_DEPTH};
use dbmount_transport_mongo::wire::msg::{Flags, Message, Request, Sequence};
use proptest::prelude::*;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("digits");
        u8::from_str_radix(text, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// `{hello: 1, $db: "admin"}` as request 7, and what it must look like byte for byte.
const HELLO: &str = "34000000 07000000 00000000 dd070000  00000000  00
    1f000000 10 68656c6c6f00 01000000 02 24646200 06000000 61646d696e00 00";

#[test]
fn hello_encodes_to_its_vector() {
    let sent = Command::new("hello", "admin").encode(RequestId(7), &Limits::default()).unwrap();
    assert_eq!(sent.concat(), hex(HELLO));
}

#[test]
fn hello_decodes_from_its_vector() {
    let mut framer = Framer::new(Limits::default());
    framer.space().extend_from_slice(&hex(HELLO));
    let frame = framer.next_frame().unwrap().unwrap();
    assert_eq!(
        frame.header,
        Header { len: 52, id: RequestId(7), response_to: RequestId(0), op: Op::Msg }
    );
    let message = frame.message(framer.limits()).unwrap();
    assert_eq!(message.body.get("hello"), Some(Value::Int32(1)));
    assert_eq!(message.body.get("$db"), Some(Value::Str(b"admin")));
    assert_eq!(framer.next_frame().unwrap(), None);
}

#[test]
fn a_checksum_and_both_flags_are_tolerated() {
    let body = hex("03000100 00 0500000000 deadbeef");
    let message = Message::decode(&body).unwrap();
    assert!(message.flags.has(Flags::CHECKSUM_PRESENT));
    assert!(message.flags.has(Flags::MORE_TO_COME));
    assert!(message.flags.has(Flags::EXHAUST_ALLOWED));
    assert!(message.body.is_empty());
}

#[test]
fn unknown_required_flags_are_refused_and_optional_ones_dropped() {
    assert!(Message::decode(&hex("04000000 00 0500000000")).is_err());
    assert_eq!(Message::decode(&hex("0000feff 00 0500000000")).unwrap().flags, Flags::NONE);
}

#[test]
fn sections_come_in_any_order_and_broken_ones_are_refused() {
    let sequence = "01 13000000 646f637300 0500000000 0500000000";
    let before = Message::decode(&hex(&format!("00000000 {sequence} 00 0500000000"))).unwrap();
    let after = Message::decode(&hex(&format!("00000000 00 0500000000 {sequence}"))).unwrap();
    assert_eq!(before, after);
    assert_eq!(before.sequences[0].0, "docs");
    assert_eq!(before.sequences[0].1.len(), 2);
    for bad in [
        "",
        "000000",
        "00000000",
        "01000000 000000",
        "00000000 00 0500000000 00 0500000000",
        "00000000 02 0500000000",
        "00000000 00 0500000000 01 04000000",
        "00000000 00 0500000000 01 ffffffff 6100",
        "00000000 00 0500000000 01 06000000 6161",
        "00000000 00 0500000000 01 07000000 6100 05",
    ] {
        assert!(Message::decode(&hex(bad)).is_err(), "{bad}");
    }
}

#[test]
fn headers_out_of_bounds_are_refused_before_anything_is_allocated() {
    for (len, op) in [
        (0u32, 2013),
        (15, 2013),
        (48_000_001, 2013),
        (0x7fff_ffff, 2013),
        (0xffff_ffff, 2013),
        (36, 1),
        (36, 2004),
    ] {
        let mut framer = Framer::new(Limits::default());
        let mut raw = [0; HEADER_LEN];
        raw[..4].copy_from_slice(&len.to_le_bytes());
        raw[12..].copy_from_slice(&i32::to_le_bytes(op));
        framer.space().extend_from_slice(&raw);
        assert!(framer.next_frame().is_err(), "{len} {op}");
        assert!(framer.space().capacity() <= 128 * 1024);
    }
}

#[test]
fn a_claim_alone_allocates_little() {
    let mut framer = Framer::new(Limits::default());
    let header =
        Header { len: 48_000_000, id: RequestId(1), response_to: RequestId(1), op: Op::Msg };
    framer.space().extend_from_slice(&header.encode());
    for come in [0, 100_000, 5_000_000] {
        framer.space().extend(std::iter::repeat_n(0, come));
        assert_eq!(framer.next_frame().unwrap(), None);
        let room = framer.space();
        assert!(room.capacity() <= 2 * room.len() + 1024 * 1024 + 16, "{}", room.capacity());
        assert!(room.capacity() > room.len());
    }
}

#[test]
fn a_chunk_travels_both_ways_without_a_copy() {
    let payload = Bytes::from(vec![9u8; 255 * 1024]);
    let mut chunk = DocBuf::new();
    chunk.i32("n", 3).binary("data", 0, payload.clone());
    let mut insert = Command::on("insert", "db", "fs.chunks");
    insert.body().begin("writeConcern").i32("w", 1).end();
    insert.sequence("documents", vec![chunk.finish().unwrap()]);
    let sent = insert.encode(RequestId(1), &Limits::default()).unwrap();
    assert_eq!(sent.parts().len(), 3, "head, payload, tail");
    assert_eq!(sent.parts()[1].as_ptr(), payload.as_ptr());

    let mut framer = Framer::new(Limits::default());
    let wire = sent.concat();
    let mut from = &wire[..];
    let frame = loop {
        let room = framer.space();
        let take = (room.capacity() - room.len()).min(from.len());
        from.take(take as u64).read_to_end(room).unwrap();
        from = &from[take..];
        if let Some(frame) = framer.next_frame().unwrap() {
            break frame;
        }
    };
    let message = frame.message(framer.limits()).unwrap();
    let doc = &message.sequences[0].1[0];
    let data = doc.get("data").unwrap().as_binary().unwrap().clone();
    assert_eq!(data, payload);
    let (start, at) = (frame.body.as_ptr() as usize, data.as_ptr() as usize);
    assert!((start..start + frame.body.len()).contains(&at), "a slice of the receive buffer");
}

#[test]
fn what_is_over_a_bound_is_never_built() {
    let limits = Limits { max_message: 100_000, max_document: 20_000, max_batch: 2 };
    let doc = |size: usize| {
        let mut doc = DocBuf::new();
        doc.binary("d", 0, Bytes::from(vec![0; size]));
        doc.finish().unwrap()
    };
    let send = |docs: Vec<Segments>| {
        let mut insert = Command::on("insert", "d", "c");
        insert.sequence("documents", docs);
        insert.encode(RequestId(1), &limits)
    };
    assert!(matches!(send(vec![doc(40_000)]), Err(Misuse::DocumentTooLarge { .. })));
    assert!(matches!(send(vec![doc(1), doc(1), doc(1)]), Err(Misuse::BatchTooLarge { .. })));
    let limits = Limits { max_message: 40_000, ..limits };
    let mut insert = Command::on("insert", "d", "c");
    insert.sequence("documents", vec![doc(20_000), doc(20_000)]);
    let over = insert.encode(RequestId(1), &limits);
    assert!(matches!(over, Err(Misuse::MessageTooLarge { .. })));
}

#[test]
fn a_cursor_is_found_in_its_reply() {
    let mut reply = DocBuf::new();
    reply.begin("cursor").begin_array("firstBatch").begin("0").i32("n", 1).end().end();
    reply.i64("id", 77).str("ns", "d.c").begin("postBatchResumeToken").str("_data", "x").end();
    reply.end().f64("ok", 1.0);
    let batch = CursorBatch::from_reply(&reply.finish_doc().unwrap()).unwrap();
    assert_eq!((batch.id, batch.docs().count()), (77, 1));
    assert_eq!(batch.resume_token.unwrap().get("_data"), Some(Value::Str(b"x")));
    assert_eq!(CursorBatch::from_reply(&Doc::empty()), None);
}

/// One of every type, built by the `bson` crate.
fn one_of_each() -> Vec<u8> {
    use bson::{
        Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp, doc, oid::ObjectId,
    };
    let mut inner = Document::new();
    inner.insert("min", Bson::MinKey);
    inner.insert("max", Bson::MaxKey);
    inner.insert("undefined", Bson::Undefined);
    inner.insert("symbol", Bson::Symbol("s".into()));
    inner.insert("code", Bson::JavaScriptCode("f()".into()));
    let scoped = bson::JavaScriptCodeWithScope { code: "g()".into(), scope: doc! { "x": 1 } };
    inner.insert("scoped", Bson::JavaScriptCodeWithScope(scoped));
    let pattern: bson::raw::CString = "a.b".try_into().expect("no NUL");
    let options: bson::raw::CString = "im".try_into().expect("no NUL");
    let whole = doc! {
        "double": 1.5, "string": "text", "doc": inner, "array": [1, "two", { "three": 3 }],
        "bin": Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![1; 16] },
        "oid": ObjectId::from_bytes([7; 12]), "yes": true, "no": false,
        "date": DateTime::from_millis(-1), "null": Bson::Null,
        "regex": Regex { pattern, options }, "i32": -5,
        "ts": Timestamp { time: 3, increment: 4 }, "i64": i64::MAX,
        "dec": Decimal128::from_bytes([3; 16]), "": "",
    };
    whole.to_vec().expect("encodes")
}

#[test]
fn every_type_reads_as_the_bson_crate_wrote_it_and_writes_back_the_same() {
    let bytes = Bytes::from(one_of_each());
    let doc = Doc::parse(bytes.clone()).unwrap();
    assert_eq!(doc.get("regex"), Some(Value::Regex(b"a.b", b"im")));
    assert_eq!(doc.get("ts"), Some(Value::Timestamp(3, 4)));
    assert_eq!(doc.get("date"), Some(Value::DateTime(-1)));
    assert_eq!(doc.get("oid"), Some(Value::ObjectId([7; 12])));
    assert_eq!(doc.get("i64").unwrap().as_i64(), Some(i64::MAX));
    assert_eq!(rewrite(&doc).finish().unwrap().concat(), bytes);
}

/// Reads every element and writes it again, going into documents and arrays.
fn rewrite(doc: &Doc) -> DocBuf {
    fn copy(from: &Doc, to: &mut DocBuf) {
        for element in from {
            let name = std::str::from_utf8(element.name).expect("our own names");
            match &element.value {
                Value::Document(inner) => {
                    to.begin(name);
                    copy(inner, to);
                    to.end();
                }
                Value::Array(inner) => {
                    to.begin_array(name);
                    copy(inner, to);
                    to.end();
                }
                value => {
                    to.value(name, value);
                }
            }
        }
    }
    let mut out = DocBuf::new();
    copy(doc, &mut out);
    out
}

#[test]
fn truncation_at_every_byte_is_an_error_and_never_a_panic() {
    let bytes = one_of_each();
    for len in 0..bytes.len() {
        assert!(Doc::parse(Bytes::copy_from_slice(&bytes[..len])).is_err(), "cut at {len}");
        // The same with the outer length made to fit, so that the cut is met further inside.
        if len > 5 {
            let mut cut = bytes[..len].to_vec();
            cut[..4].copy_from_slice(&(len as u32).to_le_bytes());
            cut[len - 1] = 0;
            walk(Doc::parse(Bytes::from(cut)));
        }
    }
}

#[test]
fn every_byte_replaced_by_every_awkward_one_never_panics() {
    let bytes = one_of_each();
    for at in 0..bytes.len() {
        for byte in [0, 1, 3, 4, 5, 0x0c, 0x0f, 0x7f, 0x80, 0xff] {
            let mut bad = bytes.clone();
            bad[at] = byte;
            walk(Doc::parse(Bytes::from(bad)));
        }
    }
}

/// Touches every value of a document that parsed.
fn walk<E>(doc: Result<Doc, E>) {
    if let Ok(doc) = doc {
        for element in &doc {
            match element.value {
                Value::Document(inner) | Value::Array(inner) => walk::<()>(Ok(inner)),
                value => drop((value.as_i64(), value.as_f64(), value.as_str().is_some())),
            }
        }
    }
}

#[test]
fn deep_nesting_is_refused_and_the_cap_itself_is_not() {
    let nested = |depth: usize| {
        let mut bytes = vec![5, 0, 0, 0, 0];
        for _ in 1..depth {
            let len = bytes.len() + 8;
            let mut outer = (len as u32).to_le_bytes().to_vec();
            outer.extend_from_slice(&[3, b'd', 0]);
            outer.append(&mut bytes);
            outer.push(0);
            bytes = outer;
        }
        Doc::parse(Bytes::from(bytes))
    };
    assert!(nested(MAX_DEPTH).is_ok());
    assert!(nested(MAX_DEPTH + 1).is_err());
    assert!(nested(100_000).is_err(), "no recursion, no stack to overflow");
}

/// A value tree within BSON's bounds.
fn value() -> impl Strategy<Value = bson::Bson> {
    use bson::Bson;
    let leaf = prop_oneof![
        any::<f64>().prop_map(Bson::Double),
        ".{0,12}".prop_map(Bson::String),
        any::<bool>().prop_map(Bson::Boolean),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<i64>().prop_map(|ms| Bson::DateTime(bson::DateTime::from_millis(ms))),
        any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(bson::oid::ObjectId::from_bytes(id))),
        Just(Bson::Null),
        proptest::collection::vec(any::<u8>(), 0..9000).prop_map(|bytes| {
            Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes })
        }),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Bson::Array),
            proptest::collection::vec(("[a-z$.]{0,6}", inner), 0..6)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn documents_round_trip(fields in proptest::collection::vec(("[a-z]{1,8}", value()), 0..6)) {
        let whole: bson::Document = fields.into_iter().collect();
        let bytes = Bytes::from(whole.to_vec().unwrap());
        let doc = Doc::parse(bytes.clone()).unwrap();
        prop_assert_eq!(rewrite(&doc).finish().unwrap().concat(), bytes);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_agree_with_the_oracle(
        mut bytes in proptest::collection::vec(any::<u8>(), 5..200)
    ) {
        let len = bytes.len();
        bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
        bytes[len - 1] = 0;
        let ours = Doc::parse(Bytes::from(bytes.clone()));
        // The oracle is stricter about UTF-8 and the insides of deprecated types, never laxer.
        let theirs = bson::RawDocument::from_bytes(&bytes)
            .ok().and_then(|raw| bson::Document::try_from(raw).ok());
        prop_assert!(theirs.is_none() || ours.is_ok());
        walk(ours);
    }

    #[test]
    fn messages_round_trip_through_any_cutting_of_the_stream(
        sizes in proptest::collection::vec(0usize..40_000, 1..6),
        cuts in proptest::collection::vec(1usize..9000, 1..20),
    ) {
        let limits = Limits::default();
        let mut wire = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let mut doc = DocBuf::new();
            doc.binary("data", 0, Bytes::from(vec![i as u8; *size]));
            let mut body = DocBuf::new();
            body.i32("insert", i as i32);
            let request = Request {
                flags: Flags::NONE,
                body: body.finish().unwrap(),
                sequences: vec![Sequence { name: "d".into(), docs: vec![doc.finish().unwrap()] }],
            };
            wire.extend_from_slice(&request.encode(RequestId(i as i32), &limits).unwrap().concat());
        }
        let mut framer = Framer::new(limits);
        let mut got = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            framer.space().extend_from_slice(now);
            rest = later;
            while let Some(frame) = framer.next_frame().unwrap() {
                got.push(frame.message(&limits).unwrap());
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got.len(), sizes.len());
        for (i, (message, size)) in got.iter().zip(&sizes).enumerate() {
            prop_assert_eq!(message.body.get("insert"), Some(Value::Int32(i as i32)));
            let data = message.sequences[0].1[0].get("data").unwrap();
            prop_assert_eq!(data.as_binary().unwrap(), &vec![i as u8; *size]);
        }
    }

    #[test]
    fn arbitrary_frames_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(&Bytes::from(bytes.clone()));
        let mut framer = Framer::new(Limits::default());
        framer.space().extend_from_slice(&bytes);
        while let Ok(Some(frame)) = framer.next_frame() {
            let _ = frame.message(framer.limits());
        }
    }
}
