//! What a hostile server says: anything that its protocol can carry, mostly near the truth.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Numbers;
use crate::backend::Backend;
use crate::backend::bson::{Doc, DocBuf, Value};
use crate::backend::mongo::{self, Mongo};
use crate::backend::redis::{self, Redis};

/// How deep a forged value is, at most.
const DEPTH: usize = 4;
/// Numbers that something may trip over.
const INTS: [i64; 12] =
    [0, 1, -1, 2, 7, 255, 4096, i32::MAX as i64, i32::MAX as i64 + 1, i64::MAX, i64::MIN, 1 << 40];

/// A kind of server that can lie.
pub trait Forge: Backend {
    /// A reply made of what an honest server would have said.
    fn reply(numbers: &mut Numbers<'_>, honest: &Self::Reply) -> Self::Reply;

    /// Something said unasked.
    fn push(numbers: &mut Numbers<'_>) -> Self::Push;
}

fn int(numbers: &mut Numbers<'_>) -> i64 {
    match numbers.below(4) {
        0 => numbers.short().into(),
        _ => INTS[numbers.below(INTS.len())],
    }
}

impl Forge for Redis {
    fn reply(numbers: &mut Numbers<'_>, honest: &redis::Reply) -> redis::Reply {
        bend(numbers, honest, DEPTH)
    }

    fn push(numbers: &mut Numbers<'_>) -> redis::Push {
        let key = |numbers: &mut Numbers<'_>| Bytes::copy_from_slice(numbers.bytes(32));
        match numbers.below(4) {
            0 => redis::Push::InvalidateAll,
            1 => redis::Push::Message { channel: key(numbers), payload: key(numbers) },
            _ => {
                let count = numbers.below(4);
                redis::Push::Invalidate((0..count).map(|_| key(numbers)).collect())
            }
        }
    }
}

/// Half of all replies, and most parts of the others, stay as they are.
fn bend(numbers: &mut Numbers<'_>, honest: &redis::Reply, depth: usize) -> redis::Reply {
    use redis::Reply;
    match (numbers.below(8), honest) {
        (0..4, Reply::Array(items)) if depth > 0 => {
            let mut items = items.clone();
            match (numbers.below(6), items.len()) {
                (0, _) => items.push(invent(numbers, depth - 1)),
                (1, 1..) => drop(items.pop()),
                (2, len @ 1..) => drop(items.remove(numbers.below(len.min(256)))),
                (_, len @ 1..) => {
                    let at = numbers.below(len.min(256));
                    items[at] = bend(numbers, &items[at].clone(), depth - 1);
                }
                _ => {}
            }
            Reply::Array(items)
        }
        (4, Reply::Bulk(bytes)) => Reply::Bulk(bytes.slice(..numbers.below(256).min(bytes.len()))),
        (5, Reply::Bulk(bytes)) => {
            Reply::Bulk(Bytes::from([&bytes[..], numbers.bytes(64)].concat()))
        }
        (6, Reply::Int(n)) => Reply::Int(n.wrapping_add(int(numbers))),
        (7, _) => invent(numbers, depth),
        _ => honest.clone(),
    }
}

fn invent(numbers: &mut Numbers<'_>, depth: usize) -> redis::Reply {
    use redis::Reply;
    const ERRORS: [&str; 13] = [
        "ERR wrong",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "NOSCRIPT No matching script.",
        "NOPERM this user has no permissions",
        "READONLY You can't write against a read only replica.",
        "LOADING Redis is loading the dataset in memory",
        "MOVED 3999 127.0.0.1:6381",
        "MASTERDOWN Link with MASTER is down",
        "BUSY Redis is busy running a script.",
        "EXECABORT Transaction discarded because of previous errors.",
        "MISCONF Redis is configured to save RDB snapshots",
        "",
    ];
    match numbers.below(8) {
        0 => Reply::Nil,
        1 | 2 => Reply::Int(int(numbers)),
        3 => Reply::Bulk(Bytes::copy_from_slice(numbers.bytes(64))),
        4 => Reply::Bulk(Bytes::from(alloc::format!("{}", int(numbers)))),
        5 => Reply::Status(String::from_utf8_lossy(numbers.bytes(8)).into_owned()),
        6 => Reply::Error(String::from(ERRORS[numbers.below(ERRORS.len())])),
        _ if depth == 0 => Reply::Nil,
        _ => {
            let count = numbers.below(5);
            Reply::Array((0..count).map(|_| invent(numbers, depth - 1)).collect())
        }
    }
}

impl Forge for Mongo {
    fn reply(numbers: &mut Numbers<'_>, honest: &mongo::Reply) -> mongo::Reply {
        match (numbers.below(8), honest) {
            (0..3, mongo::Reply::Doc(doc)) => mongo::Reply::Doc(twist(numbers, doc, 12)),
            (3, _) => mongo::Reply::Doc(refusal(numbers)),
            (4, _) => mongo::Reply::Doc(made_up(numbers, DEPTH)),
            (5, _) => mongo::Reply::Skipped,
            _ => honest.clone(),
        }
    }

    fn push(numbers: &mut Numbers<'_>) -> mongo::Push {
        match numbers.below(4) {
            0 => mongo::Push::Lost,
            1 => mongo::Push::Change(made_up(numbers, DEPTH)),
            _ => {
                let mut event = DocBuf::new();
                const KINDS: [&str; 7] =
                    ["insert", "update", "replace", "delete", "drop", "rename", "invalidate"];
                event.str("operationType", KINDS[numbers.below(KINDS.len())]);
                event.begin("documentKey");
                value(numbers, "_id", &mut event, 1);
                event.end();
                event.begin("fullDocument");
                value(numbers, "_id", &mut event, 1);
                fields(numbers, &mut event, DEPTH);
                event.end();
                mongo::Push::Change(finished(event))
            }
        }
    }
}

/// Names that something looks for, so that what is made up means something.
const NAMES: [&str; 44] = [
    "_id",
    "ok",
    "n",
    "nModified",
    "cursor",
    "id",
    "firstBatch",
    "nextBatch",
    "code",
    "codeName",
    "errmsg",
    "errorLabels",
    "writeErrors",
    "writeConcernError",
    "index",
    "value",
    "length",
    "chunkSize",
    "uploadDate",
    "filename",
    "metadata",
    "dbmount",
    "v",
    "ino",
    "kind",
    "mode",
    "uid",
    "gid",
    "nlink",
    "rdev",
    "atime",
    "mtime",
    "ctime",
    "btime",
    "links",
    "p",
    "target",
    "xattrs",
    "w",
    "gone",
    "moved",
    "data",
    "files_id",
    "dirname",
];

fn finished(doc: DocBuf) -> Doc {
    // Too deep or too large: then nothing is as good.
    doc.finish_doc().unwrap_or_else(|_| Doc::empty())
}

fn refusal(numbers: &mut Numbers<'_>) -> Doc {
    const CODES: [i32; 12] = [11_000, 112, 251, 50, 91, 10_107, 13_435, 40_573, 26, 20, 64, 16_500];
    let mut doc = DocBuf::new();
    let code = CODES[numbers.below(CODES.len())];
    match numbers.below(3) {
        0 => {
            doc.i32("ok", 0).i32("code", code).str("errmsg", "no");
            doc.begin_array("errorLabels").str("0", "TransientTransactionError").end();
        }
        1 => {
            doc.i32("ok", 1).i32("n", 0).begin_array("writeErrors").begin("0");
            doc.i32("index", 0).i32("code", code).str("errmsg", "no").end().end();
        }
        _ => {
            doc.i32("ok", 1).i32("n", 1).begin("writeConcernError").i32("code", code).end();
        }
    }
    finished(doc)
}

fn made_up(numbers: &mut Numbers<'_>, depth: usize) -> Doc {
    let mut doc = DocBuf::new();
    fields(numbers, &mut doc, depth);
    finished(doc)
}

fn fields(numbers: &mut Numbers<'_>, doc: &mut DocBuf, depth: usize) {
    for _ in 0..numbers.below(6) {
        let name = NAMES[numbers.below(NAMES.len())];
        value(numbers, name, doc, depth);
    }
}

fn value(numbers: &mut Numbers<'_>, name: &str, doc: &mut DocBuf, depth: usize) {
    match numbers.below(12) {
        0 => doc.i32(name, int(numbers) as i32),
        1 => doc.i64(name, int(numbers)),
        2 => doc.f64(name, [0.5, -1.0, f64::NAN, f64::INFINITY, 1e300][numbers.below(5)]),
        3 => doc.bool(name, numbers.below(2) == 0),
        4 => doc.null(name),
        5 => doc.str(name, numbers.bytes(24)),
        6 => doc.binary(name, 0, Bytes::copy_from_slice(numbers.bytes(24))),
        7 => doc.date_time(name, int(numbers)),
        8 => doc.object_id(name, [numbers.byte(); 12]),
        9 if depth > 0 => {
            doc.begin_array(name);
            for at in 0..numbers.below(4) {
                value(numbers, &alloc::format!("{at}"), doc, depth - 1);
            }
            doc.end()
        }
        _ if depth > 0 => {
            doc.begin(name);
            fields(numbers, doc, depth - 1);
            doc.end()
        }
        _ => doc.i32(name, 1),
    };
}

/// A document with one of its values changed, taken away, or said twice.
fn twist(numbers: &mut Numbers<'_>, honest: &Doc, depth: usize) -> Doc {
    let mut doc = DocBuf::new();
    let count = honest.iter().count();
    let at = numbers.below(count.min(256));
    for (n, element) in honest.iter().enumerate() {
        let Ok(name) = core::str::from_utf8(element.name) else { continue };
        if n != at {
            doc.value(name, &element.value);
            continue;
        }
        match (numbers.below(6), &element.value) {
            (0..4, Value::Document(inner)) if depth > 0 => {
                doc.doc(name, &twist(numbers, inner, depth - 1));
            }
            (0..4, Value::Array(inner)) if depth > 0 => {
                doc.array(name, &twist(numbers, inner, depth - 1));
            }
            (4, _) => {}
            (5, it) => {
                doc.value(name, it);
                value(numbers, name, &mut doc, 1);
            }
            _ => value(numbers, name, &mut doc, 2),
        }
    }
    let more: Vec<u8> = numbers.bytes(2).to_vec();
    if more.len() == 2 {
        value(numbers, NAMES[usize::from(more[0]) % NAMES.len()], &mut doc, 2);
    }
    finished(doc)
}
