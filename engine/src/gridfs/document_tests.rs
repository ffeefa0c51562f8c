//! Tables of files documents: ours, other programs', GridFUSE's, hostile ones.

use super::*;

fn doc(write: impl FnOnce(&mut DocBuf)) -> Doc {
    let mut body = DocBuf::new();
    write(&mut body);
    body.finish_doc().unwrap()
}

fn driver_file(change: impl FnOnce(&mut DocBuf)) -> Result<FileDoc, Bad> {
    FileDoc::parse(&doc(|it| {
        it.object_id("_id", [7; 12]).str("filename", "docs/a.txt").date_time("uploadDate", 5);
        change(it);
    }))
}

/// A decimal of this coefficient and exponent.
fn decimal(negative: bool, coefficient: u64, exponent: i32) -> Value<'static> {
    let high = (u64::from(negative) << 63) | (((exponent + 6176) as u64) << 49);
    Value::Decimal128(((u128::from(high) << 64) | u128::from(coefficient)).to_le_bytes())
}

#[test]
fn numbers_of_every_type() {
    for (value, want) in [
        (Value::Int32(5), Some(5)),
        (Value::Int64(1 << 40), Some(1 << 40)),
        (Value::Double(7.0), Some(7)),
        (Value::Double(7.5), None),
        (Value::Double(f64::NAN), None),
        (Value::Double(1e300), None),
        (decimal(false, 42, 0), Some(42)),
        (decimal(true, 42, 1), Some(-420)),
        (decimal(false, 4200, -2), Some(42)),
        (decimal(false, 42, -1), None),
        (decimal(false, 0, 6000), Some(0)),
        (decimal(false, 1, 40), None),
        (Value::Decimal128([0xff; 16]), None),
        (Value::Str(b"5"), None),
        (Value::Null, None),
    ] {
        assert_eq!(number(&value), want, "{value:?}");
    }
}

#[test]
fn what_a_driver_writes() {
    let file = driver_file(|it| {
        it.f64("length", 10.0).i32("chunkSize", 4);
    })
    .unwrap();
    assert_eq!(file.filename.as_deref(), Some(&b"docs/a.txt"[..]));
    let content = file.content.unwrap();
    assert_eq!((content.chunks(), content.chunk_len(0), content.chunk_len(2)), (3, 4, 2));
    assert_eq!((content.chunk_len(3), content.chunk_len(u64::MAX)), (0, 0));
    assert_eq!(file.whose, Whose::Foreign(None));
    assert_eq!(file.id.show(), "ObjectId(070707070707070707070707)");
}

#[test]
fn contents_that_make_no_sense() {
    for (length, chunk) in [
        (Value::Int64(-1), Value::Int32(4)),
        (Value::Str(b"10"), Value::Int32(4)),
        (Value::Int64(10), Value::Int32(0)),
        (Value::Int64(10), Value::Int32(-4)),
        (Value::Int64(10), Value::Double(0.5)),
        (Value::Int64(10), Value::Int64(1 << 40)),
        (Value::Int64(i64::MAX), Value::Int32(1)),
    ] {
        let file = driver_file(|it| {
            it.value("length", &length).value("chunkSize", &chunk);
        });
        assert!(file.unwrap().content.is_err(), "{length:?} {chunk:?}");
    }
}

#[test]
fn ids_of_any_type_tell_files_apart() {
    let mut seen = Vec::new();
    for value in [
        Value::Int32(1),
        Value::Int64(1),
        Value::Str(b"1"),
        Value::Null,
        Value::Binary { subtype: 4, data: Bytes::from_static(&[1; 16]) },
        Value::Document(Doc::empty()),
    ] {
        let id = Id::of(&value).unwrap();
        assert!(!seen.contains(&id), "{value:?}");
        let back = doc(|it| id.write("files_id", it));
        assert_eq!(back.get("files_id"), Some(value));
        seen.push(id);
    }
}

#[test]
fn our_own_come_back_as_they_were_written() {
    let attr = Attr {
        perm: 0o2755,
        nlink: 5,
        uid: 1000,
        gid: u32::MAX,
        atime: Wall(-1),
        mtime: Wall(2_000_000),
        ctime: Wall(3),
        ..blank(Ino(1 << 60), Kind::Dir)
    };
    let link = Link { parent: Ino(1), name: Name::from(&b"caf\xe9"[..]) };
    let id = Id::made(Wall(0), 1, 2);
    let token = Token { session: u64::MAX, serial: 9 };
    let new = NewFile {
        id: &id,
        attr: &attr,
        link: Some(&link),
        filename: None,
        target: None,
        chunk: 4096,
        token,
        writing: None,
    };
    let stored = doc(|it| new.write(it));
    let file = FileDoc::parse(&stored).unwrap();
    let Whose::Ours(inode) = file.whose else { panic!("{file:?}") };
    assert_eq!((inode.attr, inode.writer), (attr, Some(token)));
    assert_eq!(inode.links, core::slice::from_ref(&link));

    let symlink = Attr { size: 6, ..blank(Ino(7), Kind::Symlink) };
    let target = Some(&b"../\xff/b"[..]);
    let new = NewFile { attr: &symlink, target, link: None, ..new };
    let file = FileDoc::parse(&doc(|it| new.write(it))).unwrap();
    let Whose::Ours(inode) = file.whose else { panic!("{file:?}") };
    assert_eq!((&inode.target[..], inode.attr.size), (&b"../\xff/b"[..], 6));
}

#[test]
fn inodes_that_make_no_sense_are_left_out() {
    let ours = |change: &dyn Fn(&mut DocBuf)| {
        driver_file(|it| {
            it.begin("metadata").begin("dbmount").i32("v", 1);
            change(it);
            it.end().end();
        })
    };
    let link = |name: Value<'static>| {
        move |it: &mut DocBuf| {
            it.i64("ino", 5).str("kind", "file").begin_array("links");
            it.begin("0").i64("p", 1).value("n", &name).end().end();
        }
    };
    assert!(ours(&link(Value::Str(b"good"))).is_ok());
    for name in [&b"a/b"[..], b"", b".", b"..", b"a\0b", &[b'n'; 256]] {
        assert!(ours(&link(Value::Str(name))).is_err(), "{name:?}");
    }
    assert!(ours(&link(Value::Int32(5))).is_err());
    let bad: [&dyn Fn(&mut DocBuf); 6] = [
        &|it| {
            it.i64("ino", 0).str("kind", "file");
        },
        &|it| {
            it.i64("ino", -5).str("kind", "file");
        },
        &|it| {
            it.str("ino", "x").str("kind", "file");
        },
        &|it| {
            it.i64("ino", 5).str("kind", "door");
        },
        &|it| {
            it.i64("ino", 5).str("kind", "file").i32("links", 1);
        },
        &|it| {
            it.i64("ino", 5).str("kind", "file").str("mtime", "now");
        },
    ];
    for (n, change) in bad.iter().enumerate() {
        let bad = ours(change).unwrap_err();
        assert!(bad.id.contains("0707"), "{n}: {bad:?}");
    }
    assert_eq!(ours(&|_| ()).unwrap().whose, Whose::Passing);
    let newer = driver_file(|it| {
        it.begin("metadata").begin("dbmount").i32("v", 2).i64("ino", 5).end().end();
    });
    assert!(newer.is_err());
    let odd = driver_file(|it| {
        it.begin("metadata").i32("dbmount", 1).end();
    });
    assert!(odd.is_err());
    // Metadata of a user that is no document at all is none of our business.
    assert!(
        driver_file(|it| {
            it.str("metadata", "x");
        })
        .is_ok()
    );
}

#[test]
fn what_gridfuse_wrote() {
    let stat = |mode: i32, visible: bool| {
        driver_file(|it| {
            it.begin("stat").i32("st_mode", mode).i32("st_uid", 7).f64("st_mtime", 1.5).end();
            it.str("dirname", "docs").bool("visible", visible);
        })
        .unwrap()
        .whose
    };
    let Whose::Foreign(Some(dir)) = stat(0o040_755, true) else { panic!("no directory") };
    assert_eq!((dir.kind, dir.perm, dir.uid, dir.gid), (Kind::Dir, 0o755, Some(7), None));
    assert_eq!(dir.mtime, Some(Wall(1_500_000_000)));
    assert!(matches!(stat(0o120_777, true), Whose::Foreign(Some(it)) if it.kind == Kind::Symlink));
    assert_eq!(stat(0o100_644, false), Whose::Hidden);
}
