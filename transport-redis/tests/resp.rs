//! The decoder against an oracle, and against bytes that no server would send.

use bytes::Bytes;
use dbmount_engine::backend::redis::{Push, Reply};
use dbmount_transport_redis::resp::{self, Decoder, Frame, Limits, ProtocolError};
use proptest::prelude::*;
use redis_protocol::resp2::types::OwnedFrame as Old;
use redis_protocol::resp3::types::OwnedFrame as New;

/// A value as a server means it.
#[derive(Clone, Debug)]
enum Value {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
    // RESP3 only.
    Bool(bool),
    Double(f64),
    Big(String),
    Verbatim(String),
    BlobError(String),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Attributed(Vec<(Value, Value)>, Box<Value>),
}

impl Value {
    fn encode(&self, old: bool, out: &mut Vec<u8>) {
        let mut put = |text: String| out.extend_from_slice(text.as_bytes());
        match self {
            Value::Status(text) => put(format!("+{text}\r\n")),
            Value::Error(text) => put(format!("-{text}\r\n")),
            Value::Int(n) => put(format!(":{n}\r\n")),
            Value::Bulk(bytes) => {
                put(format!("${}\r\n", bytes.len()));
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Value::Nil => put(if old { "$-1\r\n" } else { "_\r\n" }.into()),
            Value::Bool(b) => put(format!("#{}\r\n", if *b { 't' } else { 'f' })),
            Value::Double(n) => put(format!(",{n}\r\n")),
            Value::Big(text) => put(format!("({text}\r\n")),
            Value::Verbatim(text) => put(format!("={}\r\ntxt:{text}\r\n", text.len() + 4)),
            Value::BlobError(text) => put(format!("!{}\r\n{text}\r\n", text.len())),
            Value::Array(items) | Value::Set(items) => {
                let marker = if matches!(self, Value::Set(_)) { '~' } else { '*' };
                put(format!("{marker}{}\r\n", items.len()));
                items.iter().for_each(|item| item.encode(old, out));
            }
            Value::Map(pairs) | Value::Attributed(pairs, _) => {
                let marker = if matches!(self, Value::Map(_)) { '%' } else { '|' };
                put(format!("{marker}{}\r\n", pairs.len()));
                for (key, value) in pairs {
                    key.encode(old, out);
                    value.encode(old, out);
                }
                if let Value::Attributed(_, value) = self {
                    value.encode(old, out);
                }
            }
        }
    }

    fn bytes(&self, old: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(old, &mut out);
        out
    }

    /// What the engine should see of it.
    fn reply(&self) -> Reply {
        let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        match self {
            Value::Status(text) => Reply::Status(text.clone()),
            Value::Error(text) | Value::BlobError(text) => Reply::Error(text.clone()),
            Value::Int(n) => Reply::Int(*n),
            Value::Bulk(bytes) => Reply::Bulk(Bytes::copy_from_slice(bytes)),
            Value::Nil => Reply::Nil,
            Value::Bool(b) => Reply::Int((*b).into()),
            Value::Double(n) => text(&n.to_string()),
            Value::Big(digits) => text(digits),
            Value::Verbatim(body) => text(body),
            Value::Array(items) | Value::Set(items) => {
                Reply::Array(items.iter().map(Value::reply).collect())
            }
            Value::Map(pairs) => {
                Reply::Array(pairs.iter().flat_map(|(k, v)| [k.reply(), v.reply()]).collect())
            }
            Value::Attributed(_, value) => value.reply(),
        }
    }
}

fn scalar(old: bool) -> BoxedStrategy<Value> {
    let line = "[ -~]{0,20}";
    let common = prop_oneof![
        line.prop_map(Value::Status),
        "[A-Z]{1,9}[ -~]{0,20}".prop_map(Value::Error),
        any::<i64>().prop_map(Value::Int),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bulk),
        // On both sides of the lengths at which strings are treated otherwise.
        (1000_usize..1050).prop_map(|n| Value::Bulk(vec![b'\r'; n])),
        (16_300_usize..16_450).prop_map(|n| Value::Bulk(vec![b'\n'; n])),
        Just(Value::Nil),
    ];
    if old {
        return common.boxed();
    }
    prop_oneof![
        3 => common,
        1 => any::<bool>().prop_map(Value::Bool),
        1 => prop::num::f64::NORMAL.prop_map(Value::Double),
        1 => "-?[1-9][0-9]{0,40}".prop_map(Value::Big),
        1 => "[ -~]{0,20}".prop_map(Value::Verbatim),
        1 => "[A-Z]{1,9} [ -~]{0,20}".prop_map(Value::BlobError),
    ]
    .boxed()
}

fn old_value() -> impl Strategy<Value = Value> {
    scalar(true)
        .prop_recursive(4, 32, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
}

/// Only what the oracle keeps in order.
fn plain_value() -> impl Strategy<Value = Value> {
    scalar(false)
        .prop_recursive(4, 32, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Value::Array))
}

fn any_value() -> impl Strategy<Value = Value> {
    scalar(false).prop_recursive(4, 32, 6, |inner| {
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Set),
            pairs.clone().prop_map(Value::Map),
            (pairs, inner).prop_map(|(pairs, value)| Value::Attributed(pairs, Box::new(value))),
        ]
    })
}

/// Decodes in pieces of the given lengths (over and over).
fn decode(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, ProtocolError> {
    let mut decoder = Decoder::new(Limits::default());
    let (mut frames, mut rest, mut turn) = (Vec::new(), bytes, 0);
    while !rest.is_empty() {
        let (mut piece, behind) = rest.split_at(pieces[turn % pieces.len()].min(rest.len()));
        (rest, turn) = (behind, turn + 1);
        while !piece.is_empty() {
            decoder.receive(&mut piece).expect("there is room");
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
            // What it holds: its buffer, some arrays, and what really came.
            assert!(decoder.memory() < (8 << 20) + 32 * bytes.len());
        }
    }
    Ok(frames)
}

fn replies(bytes: &[u8]) -> Result<Vec<Reply>, ProtocolError> {
    let frames = decode(bytes, &[usize::MAX])?;
    let reply = |frame| match frame {
        Frame::Reply(reply) => Some(reply),
        Frame::Push(_) => None,
    };
    Ok(frames.into_iter().filter_map(reply).collect())
}

fn from_old(frame: Old) -> Reply {
    match frame {
        Old::SimpleString(text) => Reply::Status(String::from_utf8(text).expect("ASCII")),
        Old::Error(text) => Reply::Error(text),
        Old::Integer(n) => Reply::Int(n),
        Old::BulkString(bytes) => Reply::Bulk(bytes.into()),
        Old::Array(items) => Reply::Array(items.into_iter().map(from_old).collect()),
        Old::Null => Reply::Nil,
    }
}

fn from_new(frame: New) -> Reply {
    let text = |text: String| Reply::Bulk(text.into());
    match frame {
        New::SimpleString { data, .. } => Reply::Status(String::from_utf8(data).expect("ASCII")),
        New::SimpleError { data, .. } => Reply::Error(data),
        New::BlobError { data, .. } => Reply::Error(String::from_utf8(data).expect("ASCII")),
        New::Number { data, .. } => Reply::Int(data),
        New::Boolean { data, .. } => Reply::Int(data.into()),
        New::Double { data, .. } => text(data.to_string()),
        New::BigNumber { data, .. }
        | New::VerbatimString { data, .. }
        | New::BlobString { data, .. } => Reply::Bulk(data.into()),
        New::Null => Reply::Nil,
        New::Array { data, .. } => Reply::Array(data.into_iter().map(from_new).collect()),
        other => panic!("not generated: {other:?}"),
    }
}

proptest! {
    #[test]
    fn resp2_as_the_oracle_reads_it(value in old_value()) {
        let bytes = value.bytes(true);
        let (frame, used) = redis_protocol::resp2::decode::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(used, bytes.len());
        let ours = replies(&bytes);
        prop_assert_eq!(&ours, &Ok(vec![from_old(frame)]));
        prop_assert_eq!(ours, Ok(vec![value.reply()]));
    }

    #[test]
    fn resp3_as_the_oracle_reads_it(value in plain_value()) {
        let bytes = value.bytes(false);
        let oracle = redis_protocol::resp3::decode::complete::decode(&bytes).unwrap();
        let (frame, used) = oracle.unwrap();
        prop_assert_eq!(used, bytes.len());
        let ours = replies(&bytes);
        prop_assert_eq!(&ours, &Ok(vec![from_new(frame)]));
        prop_assert_eq!(ours, Ok(vec![value.reply()]));
    }

    #[test]
    fn any_value_in_any_pieces(
        values in prop::collection::vec(any_value(), 1..5),
        pieces in prop::collection::vec(1_usize..5000, 1..8),
    ) {
        let mut bytes = Vec::new();
        values.iter().for_each(|value| value.encode(false, &mut bytes));
        let want: Vec<_> = values.iter().map(|value| Frame::Reply(value.reply())).collect();
        prop_assert_eq!(&decode(&bytes, &[usize::MAX]), &Ok(want.clone()));
        prop_assert_eq!(decode(&bytes, &pieces), Ok(want));
    }

    #[test]
    fn a_value_cut_short_is_waited_for(value in any_value(), cut in any::<prop::sample::Index>()) {
        let bytes = value.bytes(false);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut], &[7]), Ok(vec![]));
    }

    #[test]
    fn random_bytes_do_no_harm(
        bytes in prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(b"+-:$*_#,(=!%~|>\r\n0123456789".to_vec()),
        ], 0..400),
        pieces in prop::collection::vec(1_usize..50, 1..4),
    ) {
        // However it is cut, the outcome is the same.
        prop_assert_eq!(decode(&bytes, &pieces), decode(&bytes, &[usize::MAX]));
    }

    #[test]
    fn damaged_values_do_no_harm(
        value in any_value(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = value.bytes(false);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = decode(&bytes, &[usize::MAX]);
        let _ = decode(&bytes, &[3, 1000]);
    }
}

#[test]
fn truncation_at_every_byte() {
    let bytes: &[u8] =
        b"%2\r\n+a\r\n*2\r\n:1\r\n$3\r\nxyz\r\n=7\r\ntxt:abc\r\n|1\r\n+k\r\n+v\r\n~1\r\n#t\r\n";
    for cut in 0..bytes.len() {
        assert_eq!(decode(&bytes[..cut], &[1]), Ok(vec![]), "at {cut}");
    }
    assert_eq!(decode(bytes, &[1]).map(|frames| frames.len()), Ok(1));
}

#[test]
fn what_is_wrong_is_named_once_and_for_ever() {
    let deep = "*1\r\n".repeat(33);
    let long = format!("+{}", "x".repeat(17_000));
    let cases: &[(&str, ProtocolError)] = &[
        ("HTTP/1.1 400", ProtocolError::Marker(b'H')),
        ("\x15\x03", ProtocolError::Marker(0x15)),
        ("+OK\n", ProtocolError::LineEnd),
        (&long, ProtocolError::LineTooLong),
        (":\r\n", ProtocolError::Malformed("".into())),
        (":1x\r\n", ProtocolError::Malformed("1x".into())),
        (":9223372036854775808\r\n", ProtocolError::Malformed("9223372036854775808".into())),
        ("$-2\r\n", ProtocolError::Malformed("-2".into())),
        ("~-1\r\n", ProtocolError::Malformed("-1".into())),
        ("$?\r\n", ProtocolError::Malformed("?".into())),
        ("#x\r\n", ProtocolError::Malformed("x".into())),
        ("_x\r\n", ProtocolError::Malformed("x".into())),
        (",1.x\r\n", ProtocolError::Malformed("1.x".into())),
        ("(-\r\n", ProtocolError::Malformed("-".into())),
        ("=3\r\nabc\r\n", ProtocolError::Malformed("abc".into())),
        ("$3\r\nabcde", ProtocolError::Unterminated),
        ("$9223372036854775807\r\n", ProtocolError::TooLong(9_223_372_036_854_775_807)),
        ("$600000000\r\n", ProtocolError::TooLong(600_000_000)),
        ("*9223372036854775807\r\n", ProtocolError::TooMany(9_223_372_036_854_775_807)),
        ("%9223372036854775807\r\n", ProtocolError::TooMany(18_446_744_073_709_551_614)),
        ("*2\r\n*16000000\r\n", ProtocolError::TooDeep),
        (&deep, ProtocolError::TooDeep),
        ("*1\r\n>1\r\n", ProtocolError::NestedPush),
        (">0\r\n", ProtocolError::NestedPush),
    ];
    for (bytes, error) in cases {
        if *bytes == "*2\r\n*16000000\r\n" {
            // Within the limit, and cheap: no memory is taken for what has not come.
            assert_eq!(decode(bytes.as_bytes(), &[usize::MAX]), Ok(vec![]));
            continue;
        }
        assert_eq!(decode(bytes.as_bytes(), &[usize::MAX]).as_ref(), Err(error), "{bytes:.40}");
        let mut decoder = Decoder::new(Limits::default());
        decoder.receive(&mut bytes.as_bytes()).expect("there is room");
        for _ in 0..2 {
            assert_eq!(decoder.next_frame().as_ref(), Err(error));
            decoder.receive(&mut &b"+OK\r\n"[..]).expect("there is room");
        }
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn limits_hold_for_a_reply_as_a_whole() {
    let limits = Limits { bulk: 10, frame: 25, elements: 5 };
    let decode = |bytes: &str| {
        let mut decoder = Decoder::new(limits);
        decoder.receive(&mut bytes.as_bytes()).expect("there is room");
        let mut last = Ok(None);
        for _ in 0..3 {
            last = decoder.next_frame();
        }
        last.map(|_| ())
    };
    let ten = "$10\r\n0123456789\r\n";
    assert_eq!(decode(&ten.repeat(3)), Ok(()));
    assert_eq!(decode("$11\r\n"), Err(ProtocolError::TooLong(11)));
    assert_eq!(decode(&format!("*3\r\n{}", ten.repeat(3))), Err(ProtocolError::TooLong(10)));
    assert_eq!(decode("*5\r\n"), Ok(()));
    assert_eq!(decode("%3\r\n"), Err(ProtocolError::TooMany(6)));
    assert_eq!(decode("*2\r\n*2\r\n:1\r\n:2\r\n*2\r\n"), Err(ProtocolError::TooMany(6)));
}

/// With a decoder that starts over at every read this would take hours.
#[test]
fn a_long_array_in_small_pieces_is_read_once() {
    let mut bytes = b"*300000\r\n".to_vec();
    (0..300_000).for_each(|n| bytes.extend_from_slice(format!(":{n}\r\n").as_bytes()));
    let frames = decode(&bytes, &[16]).expect("well formed");
    let [Frame::Reply(Reply::Array(items))] = &frames[..] else { panic!("{}", frames.len()) };
    assert_eq!(items.len(), 300_000);
    assert_eq!(items[299_999], Reply::Int(299_999));
}

#[test]
fn pushes_mean_what_the_engine_knows() {
    let meaning = |bytes: &str| match decode(bytes.as_bytes(), &[5]).expect("valid").remove(0) {
        Frame::Push(fields) => resp::push(fields),
        Frame::Reply(reply) => panic!("{reply:?}"),
    };
    assert_eq!(meaning(">2\r\n$10\r\ninvalidate\r\n_\r\n"), Some(Push::InvalidateAll));
    assert_eq!(
        meaning(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        Some(Push::Invalidate(vec!["a".into(), "b".into()]))
    );
    assert_eq!(meaning(">2\r\n+invalidate\r\n*1\r\n:1\r\n"), Some(Push::InvalidateAll));
    assert_eq!(
        meaning(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"),
        Some(Push::Message { channel: "c".into(), payload: "m".into() })
    );
    for unknown in
        [">1\r\n+invalidate\r\n", ">2\r\n:1\r\n:2\r\n", ">3\r\n+subscribe\r\n+c\r\n:1\r\n"]
    {
        assert_eq!(meaning(unknown), None);
    }
}
