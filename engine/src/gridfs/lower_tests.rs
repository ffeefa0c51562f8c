//! Plans and the exact commands they come to.

use alloc::string::String;
use alloc::vec;

use super::*;
use crate::backend::bson::{Doc, Value};
use crate::backend::mongo::Concern;
use crate::decide::Answer;
use crate::gridfs::Options;
use crate::gridfs::document::blank;
use crate::layout::Layout;
use crate::op::XattrMode;
use crate::time::Now;

const TOKEN: Token = Token { session: 1, serial: 2 };
const T: &str = "w: {s: 1, n: 2}";

/// A document as text, whole, numbers without their types.
fn text(doc: &Doc) -> String {
    let parts: Vec<String> = doc
        .iter()
        .map(|element| {
            let name = String::from_utf8_lossy(element.name).replace(OURS, "@");
            format!("{name}: {}", value(&element.value))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn value(it: &Value<'_>) -> String {
    match it {
        Value::Document(doc) => text(doc),
        Value::Array(doc) => {
            let items: Vec<String> = doc.iter().map(|it| value(&it.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Str(it) => format!("'{}'", it.escape_ascii()).replace(OURS, "@"),
        Value::Binary { data, .. } => format!("b'{}'", data.escape_ascii()),
        Value::Int32(n) => format!("{n}"),
        Value::Int64(n) => format!("{n}"),
        Value::Bool(it) => format!("{it}"),
        Value::Null => String::from("null"),
        Value::ObjectId(_) => String::from("ID"),
        Value::DateTime(at) => format!("{at} ms"),
        other => format!("{other:?}"),
    }
}

/// A command: its name, the interesting part of its body, its statements, what is expected.
fn line(command: &Command) -> String {
    let body = command.document().unwrap();
    let rest: Vec<String> = body
        .iter()
        .filter(|it| !matches!(it.name, b"find" | b"update" | b"insert" | b"delete" | b"$db"))
        .filter(|it| !matches!(it.name, b"projection" | b"limit" | b"singleBatch"))
        .map(|it| format!(" {}: {}", String::from_utf8_lossy(it.name), value(&it.value)))
        .collect();
    let mut line = format!("{}{}", command.name(), rest.concat());
    for sequence in &command.sequences {
        for doc in &sequence.docs {
            line.push(' ');
            line.push_str(&text(&Doc::parse(doc.concat()).unwrap()));
        }
    }
    match command.expect {
        Expect::Anything => line,
        expect => format!("{line} -> {expect:?}"),
    }
}

/// A bucket in which `/d` (#2) holds the file `f` (#3), which is `/h` too; `/e` (#4) is empty.
fn bucket(transactions: bool) -> GridFs {
    let mut fs = GridFs::new(Options::default(), Now::default());
    fs.session = 1;
    fs.transactions = transactions;
    let mut put = |parent: u64, name: &str, ino: u64, kind| {
        let name = Name::from(name);
        let node = fs.tree.node(Ino(parent), &name, blank(Ino(ino), kind));
        node.links.push(Link { parent: Ino(parent), name });
    };
    put(1, "d", 2, Kind::Dir);
    put(2, "f", 3, Kind::File);
    put(1, "h", 3, Kind::File);
    put(1, "e", 4, Kind::Dir);
    fs
}

fn plan(checks: Vec<Check>, changes: Vec<Change>) -> Plan {
    Plan { checks, changes, once: true, answer: Answer::Done }
}

fn touch(dir: u64, nlink: i32) -> Change {
    Change::Touch { dir: Ino(dir), at: Wall(9), nlink }
}

fn touched(dir: u64) -> String {
    format!(
        "update {{q: {{@.ino: {dir}, @.gone: null}}, u: {{$set: {{@.mtime: 9, @.ctime: 9, @.{T}}}}}}}"
    )
}

/// Lowers on a standalone and with transactions, and compares command by command.
fn check(what: &str, plan: &Plan, modes: (Mode, Mode), want: &[&str]) {
    for (transactions, mode) in [(false, modes.0), (true, modes.1)] {
        let program = bucket(transactions).lower(plan, TOKEN, Wall(5_000_000)).unwrap();
        let lines: Vec<String> = program.commands.iter().map(line).collect();
        // Without transactions a directory is looked into before it is marked, too.
        let look = want.iter().find(|it| it.starts_with("find filter: {@.links.p"));
        let first = look.filter(|_| !transactions);
        let want: Vec<&str> = first.into_iter().chain(want).copied().collect();
        assert_eq!(lines, want, "{what}, transactions: {transactions}");
        assert_eq!(program.mode, mode, "{what}, transactions: {transactions}");
        for command in &program.commands {
            let writes = matches!(command.name(), "insert" | "update" | "delete");
            assert_eq!(command.concern != Concern::None, writes, "{what}: states its concern");
        }
    }
}

const ALWAYS: (Mode, Mode) = (Mode::Ordered, Mode::Ordered);
const WHERE_THERE: (Mode, Mode) = (Mode::Ordered, Mode::Atomic);

#[test]
fn a_file_is_an_insert_and_a_touch_that_travel_together() {
    let attr = Attr { ino: Ino(7), perm: 0o644, ..blank(Ino(7), Kind::File) };
    let name = || Name::from("n");
    let make = Change::Create { dir: Ino(2), name: name(), attr, target: None };
    let checks = vec![Check::LiveDir(Ino(2)), Check::Free(Ino(2), name())];
    let insert = format!(
        "insert {{_id: ID, length: 0, chunkSize: 262144, uploadDate: 0 ms, filename: 'd/n', \
         metadata: {{dbmount: {{v: 1, ino: 7, kind: 'file', mode: 420, uid: 0, gid: 0, atime: 0, \
         mtime: 0, ctime: 0, btime: 0, links: [{{p: 2, n: 'n'}}], {T}}}}}}}"
    );
    check("create", &plan(checks, vec![make, touch(2, 0)]), ALWAYS, &[&insert, &touched(2)]);
}

#[test]
fn link_counts_take_a_transaction_where_there_is_one() {
    let attr = blank(Ino(7), Kind::Dir);
    let name = Name::from("n");
    let make = Change::Create { dir: Ino(1), name, attr, target: None };
    let plan = plan(vec![Check::LiveDir(Ino(1))], vec![make, touch(1, 1)]);
    let program = bucket(true).lower(&plan, TOKEN, Wall(0)).unwrap();
    assert_eq!(program.mode, Mode::Atomic);
    let lines: Vec<String> = program.commands.iter().map(line).collect();
    assert!(lines[0].ends_with("-> Count(1)") && !lines[0].contains("filename"), "{}", lines[0]);
    assert!(lines[1].contains("$inc: {@.nlink: 1}") && lines[1].ends_with("-> Count(1)"));
}

#[test]
fn names_come_and_go_by_one_update() {
    let file = |name: &str, last| Change::Unlink {
        dir: Ino(2),
        name: Name::from(name),
        ino: Ino(3),
        kind: Kind::File,
        last,
        held: false,
    };
    let links = |n| vec![Check::Leads(Ino(2), Name::from("f"), Ino(3)), Check::Links(Ino(3), n)];
    let gone = format!(
        "update {{q: {{@.ino: 3, @.links: {{$elemMatch: {{p: 2, n: 'f'}}, $size: 1}}}}, \
         u: {{$set: {{@.links: [], @.gone: {{s: 1, t: 5, p: 2, n: 'f'}}, @.{T}}}, \
         $unset: {{filename: ''}}}}}}"
    );
    let last = plan(links(1), vec![file("f", true), touch(2, 0)]);
    check("unlink", &last, ALWAYS, &[&gone, &touched(2)]);
    let pull = format!(
        "update {{q: {{@.ino: 3, @.links: {{$elemMatch: {{p: 2, n: 'f'}}, $size: 2}}}}, \
         u: {{$pull: {{@.links: {{p: 2, n: 'f'}}}}, $set: {{filename: 'h', @.{T}}}}}}}"
    );
    let other = plan(links(2), vec![file("f", false), touch(2, 0)]);
    check("unlink of one of two", &other, ALWAYS, &[&pull, &touched(2)]);
    let push = format!(
        "update {{q: {{@.ino: 3, @.gone: null, @.links: {{$not: {{$elemMatch: {{p: 4, n: 'g'}}}}}}}}, \
         u: {{$push: {{@.links: {{p: 4, n: 'g'}}}}, $set: {{@.{T}}}}}}}"
    );
    let new = Change::Link { ino: Ino(3), dir: Ino(4), name: Name::from("g") };
    let link = plan(vec![Check::LiveDir(Ino(4))], vec![new, touch(4, 0)]);
    check("link", &link, ALWAYS, &[&push, &touched(4)]);
}

#[test]
fn a_directory_is_marked_before_it_is_looked_into() {
    let gone = Change::Unlink {
        dir: Ino(1),
        name: Name::from("e"),
        ino: Ino(4),
        kind: Kind::Dir,
        last: true,
        held: false,
    };
    let mark = format!(
        "update {{q: {{@.ino: 4, @.links: {{$elemMatch: {{p: 1, n: 'e'}}}}}}, \
         u: {{$set: {{@.links: [], @.gone: {{s: 1, t: 5, p: 1, n: 'e'}}, @.{T}}}, \
         $unset: {{filename: ''}}}}}} -> Count(1)"
    );
    let touch_it = touched(1).replace("2}}}}", "2}}, $inc: {@.nlink: -1}}}");
    let rmdir = plan(vec![Check::Empty(Ino(4))], vec![gone, touch(1, -1)]);
    let look = "find filter: {@.links.p: 4} -> Found(0)";
    check("rmdir", &rmdir, WHERE_THERE, &[&mark, look, &touch_it]);
}

#[test]
fn renames() {
    let rename = |ino, kind, from: (u64, &str), to: (u64, &str)| Change::Rename {
        dir: Ino(from.0),
        name: Name::from(from.1),
        to_dir: Ino(to.0),
        to_name: Name::from(to.1),
        ino: Ino(ino),
        kind,
    };
    let file = format!(
        "update {{q: {{@.ino: 3, @.links: {{$elemMatch: {{p: 2, n: 'f'}}}}}}, \
         u: {{$set: {{@.links.$.p: 4, @.links.$.n: b'\\xff', filename: b'e/\\xff', @.{T}}}}}}}"
    );
    let mut moved = rename(3, Kind::File, (2, "f"), (4, "x"));
    if let Change::Rename { to_name, .. } = &mut moved {
        *to_name = Name::from(&b"\xff"[..]);
    }
    let plain = plan(vec![Check::LiveDir(Ino(4))], vec![moved, touch(2, 0), touch(4, 0)]);
    check("a file", &plain, ALWAYS, &[&file, &touched(2), &touched(4)]);

    let dir = format!(
        "update {{q: {{@.ino: 2, @.links: {{$elemMatch: {{p: 1, n: 'd'}}}}}}, \
         u: {{$set: {{@.links.$.p: 1, @.links.$.n: 'D', @.moved: 'd', @.{T}}}}}}}"
    );
    let change = rename(2, Kind::Dir, (1, "d"), (1, "D"));
    check("a directory", &plan(vec![], vec![change, touch(1, 0)]), ALWAYS, &[&dir, &touched(1)]);

    // The name is free for the source only once the target has lost it: one command, two
    // statements, in this order.
    let over = Change::Unlink {
        dir: Ino(1),
        name: Name::from("h"),
        ino: Ino(9),
        kind: Kind::File,
        last: true,
        held: false,
    };
    let change = rename(3, Kind::File, (2, "f"), (1, "h"));
    let both = format!(
        "update {{q: {{@.ino: 9, @.links: {{$elemMatch: {{p: 1, n: 'h'}}}}}}, \
         u: {{$set: {{@.links: [], @.gone: {{s: 1, t: 5, p: 1, n: 'h', for: 3, from: {{p: 2, n: 'f'}}}}, @.{T}}}, \
         $unset: {{filename: ''}}}}}} \
         {{q: {{@.ino: 3, @.links: {{$elemMatch: {{p: 2, n: 'f'}}}}}}, \
         u: {{$set: {{@.links.$.p: 1, @.links.$.n: 'h', filename: 'h', @.{T}}}}}}} -> Count(2)"
    );
    let replacing = plan(vec![], vec![over, change, touch(2, 0), touch(1, 0)]);
    check("over another", &replacing, WHERE_THERE, &[&both, &touched(2), &touched(1)]);
}

#[test]
fn attributes() {
    let patch = Patch { perm: Some(0o600), mtime: Some(Wall(-5)), ..Patch::default() };
    let set = plan(vec![Check::Live(Ino(3))], vec![Change::SetAttr { ino: Ino(3), patch }]);
    let want =
        format!("update {{q: {{@.ino: 3}}, u: {{$set: {{@.mode: 384, @.mtime: -5, @.{T}}}}}}}");
    check("setattr", &set, ALWAYS, &[&want]);
    let xattr = |value: Option<&'static [u8]>| Change::Xattr {
        ino: Ino(3),
        name: Name::from("user.$k"),
        value: value.map(bytes::Bytes::from_static),
        at: Wall(9),
    };
    let stage = |value: &str| {
        format!(
            "u: [{{$set: {{@.xattrs: {{$concatArrays: [{{$filter: {{input: {{$ifNull: \
             ['$@.xattrs', []]}}, cond: {{$ne: ['$$this.n', {{$literal: 'user.$k'}}]}}}}}}, \
             [{value}]]}}, @.ctime: 9, @.{T}}}}}]}}"
        )
    };
    let create = Check::Xattr(Ino(3), Name::from("user.$k"), XattrMode::Create);
    let want = format!(
        "update {{q: {{@.ino: 3, @.xattrs: {{$not: {{$elemMatch: {{n: 'user.$k'}}}}}}}}, {}",
        stage("{n: {$literal: 'user.$k'}, v: {$literal: b'$v'}}")
    );
    check("setxattr", &plan(vec![create], vec![xattr(Some(b"$v"))]), ALWAYS, &[&want]);
    let there = Check::Xattr(Ino(3), Name::from("user.$k"), XattrMode::Replace);
    let want = format!(
        "update {{q: {{@.ino: 3, @.xattrs: {{$elemMatch: {{n: 'user.$k'}}}}}}, {}",
        stage("")
    );
    check("removexattr", &plan(vec![there], vec![xattr(None)]), ALWAYS, &[&want]);
}

#[test]
fn an_exchange_is_always_a_transaction() {
    let a = (Ino(1), Name::from("d"), Ino(2));
    let b = (Ino(1), Name::from("e"), Ino(4));
    let plan = plan(vec![], vec![Change::Exchange { a, b }]);
    let program = bucket(true).lower(&plan, TOKEN, Wall(0)).unwrap();
    assert_eq!((program.mode, program.count), (Mode::Atomic, 3));
    assert!(!bucket(false).caps().exchange && bucket(true).caps().exchange);
}

#[test]
fn nodes_have_a_way_up_or_none() {
    let mut fs = bucket(false);
    assert_eq!(fs.tree.filename(Ino(2), &Name::from("x")), Some(b"d/x".to_vec()));
    // A cycle, as a document may claim one.
    fs.tree.get_mut(Ino(2)).unwrap().parent = Ino(2);
    assert_eq!(fs.tree.filename(Ino(2), &Name::from("x")), None);
    assert!(fs.tree.is_below(Ino(2), Ino(9)), "walked for as long as any path may be");
}
