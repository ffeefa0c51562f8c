//! Which chunks a write touches, and what they are to hold.

use super::*;

fn writing(old: u64, extents: &[(u64, &'static [u8])]) -> Writing {
    let end = extents.last().map_or(0, |(at, data)| at + data.len() as u64);
    let content = |length| Content { length, chunk: 4 };
    Writing {
        ino: Ino(5),
        id: Id::made(Wall(0), 1, 1),
        old: content(old),
        new: content(old.max(end)),
        extents: extents.iter().map(|(at, data)| (*at, Bytes::from_static(data))).collect(),
        replace: false,
        staged: false,
        publish: false,
        mtime: Wall(0),
        attrs: Patch::default(),
        token: Token { session: 1, serial: 1 },
        life: 0,
        next: 0,
        attempts: 0,
        plan: None,
        stage: Stage::Staging,
    }
}

fn touched(writing: &Writing) -> Vec<u64> {
    let mut all = Vec::new();
    let mut from = 0;
    while let Some(n) = writing.touched(from) {
        all.push(n);
        from = n + 1;
    }
    all
}

#[test]
fn only_what_changes_is_written_and_no_hole_is_left() {
    for (old, extents, chunks) in [
        (0, &[][..], &[][..]),
        (0, &[(0, &b"abcd"[..])], &[0]),
        (0, &[(0, b"abcde")], &[0, 1]),
        (10, &[(5, b"x")], &[1]),
        (10, &[(3, b"xy")], &[0, 1]),
        (10, &[(1, b"x"), (9, b"y")], &[0, 2]),
        // Behind the end: the old last chunk is filled up, and those in between are zeros.
        (10, &[(17, b"x")], &[2, 3, 4]),
        (8, &[(17, b"x")], &[2, 3, 4]),
        (10, &[(10, b"x")], &[2]),
    ] {
        let writing = writing(old, extents);
        assert_eq!(touched(&writing), chunks, "{old} {extents:?}");
    }
}

#[test]
fn chunks_are_composed_of_what_was_there_and_what_was_written() {
    let base = Bytes::from_static(b"0123");
    let middle = writing(10, &[(5, b"xy")]);
    assert_eq!(&middle.compose(1, Some(&base))[..], b"0xy3");
    let grown = writing(10, &[(17, b"x")]);
    assert_eq!(&grown.compose(2, Some(&Bytes::from_static(b"89")))[..], b"89\0\0");
    assert_eq!(&grown.compose(3, None)[..], b"\0\0\0\0");
    assert_eq!(&grown.compose(4, None)[..], b"\0x");
    // Bytes that a crashed writer left behind the end do not come back.
    assert_eq!(&grown.compose(2, Some(&Bytes::from_static(b"89zz")))[..], b"89\0\0");
}

#[test]
fn whole_chunks_are_not_copied() {
    let data: &'static [u8] = b"abcdefgh";
    let writing = writing(0, &[(0, data)]);
    let second = writing.compose(1, None);
    assert_eq!(second.as_ptr(), data[4..].as_ptr());
}
