//! The naming of keys is a bijection: examples, small scopes in full, and arbitrary bytes.

use std::collections::HashMap;

use dbmount_engine::keys::name::{
    BadDelimiter, FIELD_SUFFIX, HashField, NAME_MAX, Naming, Reading, SELF_NAME, digest,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const HEX40: &[u8] = b"0123456789abcdef0123456789abcdef01234567";
const TILDE: &[u8] = b"~0123456789abcdef0123456789abcdef01234567";

/// What the rules are made of, and what almost matches them.
const PIECES: &[&[u8]] = &[
    b"%", b"25", b"2F", b"00", b"3A", b"2E", b"field", TILDE, b"self", b".", b"/", b"\0", b":",
    b"a",
];

fn is_legal(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0)
}

fn ends_in_digest(name: &[u8]) -> bool {
    name.len() >= 42
        && name[name.len() - 42..].starts_with(b"%~")
        && name[name.len() - 40..].iter().all(|b| b"0123456789abcdef".contains(b))
}

fn is_reserved(name: &[u8]) -> bool {
    name == SELF_NAME || name.ends_with(FIELD_SUFFIX) || ends_in_digest(name)
}

/// The names that no field has although they are not reserved.
fn is_string_only(name: &[u8]) -> bool {
    let dot = name.iter().skip(1).position(|&b| b == b'.').map(|i| i + 1);
    dot == Some(name.len() - 1)
        || name.starts_with(b"%2E") && name != b"%2E" && name != b"%2E%2E"
        || name == b".%2E"
}

fn without(delimiter: u8, text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&b| b != delimiter).collect()
}

fn field(component: &[u8], field: &[u8]) -> HashField {
    HashField { component: component.to_vec(), field: field.to_vec() }
}

fn show(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

/// Every rule that one component obeys.
fn check_component(naming: Naming, component: &[u8]) {
    let name = naming.encode_component(component);
    let full = naming.full_component(component);
    let what = || format!("{naming:?} {} -> {}", show(component), show(&name));
    assert!(is_legal(&name), "{}", what());
    match naming.decode(&name) {
        Reading::Plain { component: back, .. } => {
            assert_eq!(show(&back), show(component), "{}", what());
            assert_eq!(name, full, "{}", what());
        }
        Reading::Shortened(short) => {
            assert!(full.len() > NAME_MAX, "{}", what());
            assert!(!short.explicit_field, "{}", what());
            assert_eq!(short.digest, digest(&full), "{}", what());
            assert!(component.starts_with(&short.prefix), "{}: {}", what(), show(&short.prefix));
        }
        other => panic!("{}: {other:?}", what()),
    }
}

/// Every rule that one hash field obeys.
fn check_field(naming: Naming, component: &[u8], text: &[u8]) {
    let want = field(component, text);
    let name = naming.encode_field(component, text);
    let full = naming.full_field(component, text);
    let what = || format!("{naming:?} {} {} -> {}", show(component), show(text), show(&name));
    assert!(is_legal(&name), "{}", what());
    match naming.decode(&name) {
        Reading::Plain { field: back, .. } => {
            assert_eq!(back.as_ref(), Some(&want), "{}", what());
            assert_eq!(name, full, "{}", what());
        }
        Reading::Shortened(short) => {
            assert!(full.len() > NAME_MAX, "{}", what());
            assert!(!short.explicit_field, "{}", what());
            assert_eq!(short.digest, digest(&full), "{}", what());
            assert!(component.starts_with(&short.prefix), "{}: {}", what(), show(&short.prefix));
        }
        other => panic!("{}: {other:?}", what()),
    }

    let name = naming.encode_shadowed(component, text);
    assert!(is_legal(&name), "shadowed {}", show(&name));
    assert!(name.ends_with(FIELD_SUFFIX), "shadowed {}", show(&name));
    match naming.decode(&name) {
        Reading::Field(back) => {
            assert_eq!(back, want, "shadowed {}", show(&name));
            assert_eq!(name, [&full, FIELD_SUFFIX].concat());
        }
        Reading::Shortened(short) => {
            assert!(full.len() + FIELD_SUFFIX.len() > NAME_MAX);
            assert!(short.explicit_field, "shadowed {}", show(&name));
            assert_eq!(short.digest, digest(&full));
            assert!(component.starts_with(&short.prefix), "shadowed {}", show(&name));
        }
        other => panic!("shadowed {}: {other:?}", show(&name)),
    }
}

/// Every rule that one name obeys, legal or not.
fn check_name(naming: Naming, name: &[u8]) {
    let what = || format!("{naming:?} {}", show(name));
    match naming.decode(name) {
        Reading::OwnValue => assert_eq!(name, SELF_NAME),
        Reading::Plain { component, field } => {
            assert!(is_legal(name) && !is_reserved(name), "{}", what());
            assert!(!component.contains(&naming.delimiter()), "{}", what());
            assert_eq!(show(&naming.encode_component(&component)), show(name), "{}", what());
            assert_eq!(field.is_none(), is_string_only(name), "{}: {field:?}", what());
            if let Some(HashField { component, field }) = field {
                assert!(!component.contains(&naming.delimiter()), "{}", what());
                assert_eq!(
                    show(&naming.encode_field(&component, &field)),
                    show(name),
                    "{}",
                    what()
                );
            }
        }
        Reading::Field(HashField { component, field }) => {
            assert_eq!(naming.encode_shadowed(&component, &field), name, "{}", what());
        }
        Reading::Shortened(short) => {
            let start = name.strip_suffix(FIELD_SUFFIX);
            assert_eq!(start.is_some(), short.explicit_field, "{}", what());
            let name = start.unwrap_or(name);
            assert!(ends_in_digest(name), "{}", what());
        }
        Reading::Nothing => assert!(!is_legal(name) || name.ends_with(FIELD_SUFFIX), "{}", what()),
    }
}

/// Calls `each` with every text of at most `max` pieces.
fn every_text(pieces: &[&[u8]], max: usize, each: &mut dyn FnMut(&[u8])) {
    fn go(pieces: &[&[u8]], left: usize, text: &mut Vec<u8>, each: &mut dyn FnMut(&[u8])) {
        each(text);
        if left > 0 {
            for piece in pieces {
                let len = text.len();
                text.extend_from_slice(piece);
                go(pieces, left - 1, text, each);
                text.truncate(len);
            }
        }
    }
    go(pieces, max, &mut Vec::new(), each);
}

#[test]
fn every_short_text_of_token_bytes() {
    const BYTES: &[&[u8]] = &[b"%", b"2", b"5", b"E", b".", b":", b"/", b"a"];
    for delimiter in [b':', b'/', b'E', b'a'] {
        let naming = Naming::new(delimiter).unwrap();
        every_text(BYTES, 5, &mut |text| {
            check_name(naming, text);
            let component = without(delimiter, text);
            check_component(naming, &component);
            check_field(naming, &component, b"");
            check_field(naming, b"", text);
            check_field(naming, b"h", text);
        });
    }
}

#[test]
fn every_short_text_of_tokens() {
    let naming = Naming::default();
    every_text(PIECES, 4, &mut |text| {
        check_name(naming, text);
        let component = without(b':', text);
        check_component(naming, &component);
        check_field(naming, &component, b"");
        check_field(naming, &component, b"f.%field");
    });
}

#[test]
fn every_delimiter() {
    for delimiter in 0..=255 {
        let Ok(naming) = Naming::new(delimiter) else {
            assert!(b"%.\x000123456789".contains(&delimiter));
            assert_eq!(Naming::new(delimiter), Err(BadDelimiter(delimiter)));
            continue;
        };
        let own = [delimiter];
        let hex = format!("{delimiter:02X}");
        let pieces: &[&[u8]] =
            &[&own, hex.as_bytes(), b"%", b"25", b"2F", b"2E", b"E", b"field", b"self", b".", b"/"];
        every_text(pieces, 3, &mut |text| {
            check_name(naming, text);
            let component = without(delimiter, text);
            check_component(naming, &component);
            check_field(naming, &component, b"");
            check_field(naming, b"%", text);
        });
    }
}

#[test]
fn no_two_share_a_name() {
    let naming = Naming::default();
    let mut texts = Vec::new();
    every_text(PIECES, 2, &mut |text| texts.push(text.to_vec()));
    texts.sort();
    texts.dedup();

    let mut components = HashMap::new();
    let mut fields = HashMap::new();
    let mut shadows = HashMap::new();
    for component in texts.iter().filter(|text| !text.contains(&b':')) {
        let old = components.insert(naming.encode_component(component), component);
        assert_eq!(old, None, "{}", show(component));
        for field in &texts {
            let (key, name) = ((component, field), naming.encode_field(component, field));
            assert_eq!(fields.insert(name, key), None, "{key:?}");
            let name = naming.encode_shadowed(component, field);
            assert_eq!(shadows.insert(name, key), None, "{key:?}");
        }
    }
    for name in shadows.keys() {
        assert!(!components.contains_key(name) && !fields.contains_key(name), "{}", show(name));
    }
}

#[test]
fn ordinary_names_stay() {
    let names: &[&[u8]] = &[
        b"a",
        b"README",
        b"foo-bar_baz",
        b"with space",
        b"new\nline",
        b"-",
        b"~",
        b".git",
        b"...",
        b".a",
        b"..a",
        b"a.b.c",
        "größe".as_bytes(),
        "日本".as_bytes(),
        b"\xff\xfe\x80",
        b"100%",
        b"a%20b",
        b"%41",
        b"%%",
        b"%2f",
        b"%3a",
        b"50%.5",
        b"%2",
        b"%25x",
        b"%2525%",
        b"self",
        b"%selfie",
        b"a%self",
        b"field",
        b"%fields",
        b"%~",
        b"a%~abc",
        b"%2Ex",
        b"%2E.x",
        b"a\\b",
        b"*?[x]",
        b"{user}",
        b"#1",
        b"a%252",
        b"%Field",
    ];
    let naming = Naming::default();
    for name in names {
        assert_eq!(show(&naming.encode_component(name)), show(name));
    }
    // Nothing in a field but these two bytes needs an escape, and its dots never do.
    for field in names {
        let want = [b"h.", *field].concat();
        assert_eq!(show(&naming.encode_field(b"h", field)), show(&want));
    }
    assert_eq!(naming.encode_field(b"h", b"10:30"), b"h.10:30");
}

#[test]
fn component_examples() {
    let naming = Naming::default();
    let tilde = [b"x%", TILDE].concat();
    let tilde_25 = [b"x%25", TILDE].concat();
    let examples: &[(&[u8], &[u8])] = &[
        (b"", b"%"),
        (b"%", b"%25"),
        (b"%25", b"%2525"),
        (b".", b"%2E"),
        (b"..", b"%2E%2E"),
        (b"%2E", b"%252E"),
        (b"%2E%2E", b"%252E%2E"),
        (b"%252E%2E", b"%25252E%2E"),
        (b"%self", b"%25self"),
        (b"%25self", b"%2525self"),
        (b"a/b", b"a%2Fb"),
        (b"/", b"%2F"),
        (b"a%2Fb", b"a%252Fb"),
        (b"a%252Fb", b"a%25252Fb"),
        (b"%/2F", b"%%2F2F"),
        (b"a\0b", b"a%00b"),
        (b"a%00b", b"a%2500b"),
        (b"12%3A30", b"12:30"),
        (b"12%253A30", b"12%3A30"),
        (b"12%25253A30", b"12%253A30"),
        (b"x%field", b"x%25field"),
        (b"%field", b"%25field"),
        (b"x%25field", b"x%2525field"),
        (&tilde, &tilde_25),
        (b"/%field", b"%2F%25field"),
    ];
    for (component, name) in examples {
        assert_eq!(show(&naming.encode_component(component)), show(name));
        check_component(naming, component);
        check_name(naming, name);
    }

    let slash = Naming::new(b'/').unwrap();
    for same in [&b"a%2Fb"[..], b"a:b", b"a%3Ab"] {
        assert_eq!(slash.encode_component(same), same);
    }
    assert_eq!(slash.encode_field(b"h%2F", b"a/b%2F"), b"h%2F.a%2Fb%252F");
    assert_eq!(Naming::new(b'|').unwrap().encode_component(b"a%7Cb:c"), b"a|b:c");
}

#[test]
fn field_examples() {
    let naming = Naming::default();
    let examples: &[(&[u8], &[u8], &[u8])] = &[
        (b"post-update", b"sample", b"post-update.sample"),
        (b".profile", b"bak", b".profile.bak"),
        (b".git", b"", b".git"),
        (b"", b"", b"%"),
        (b"%", b"", b"%25"),
        (b"", b"x", b"%.x"),
        (b"%", b"x", b"%25.x"),
        (b".x", b"", b".x"),
        (b".", b"", b"%2E"),
        (b".", b"x", b"..x"),
        (b".", b".", b"..."),
        (b"..", b"", b"%2E%2E"),
        (b"..", b"x", b".%2E.x"),
        (b"%2E", b"", b"%252E"),
        (b".%2E", b"", b".%252E"),
        (b"%self", b"", b"%25self"),
        (b"%self", b"x", b"%self.x"),
        (b"h", b"%self", b"h.%self"),
        (b"v1.2", b"tar.gz", b"v1%2E2.tar.gz"),
        (b"v1.", b"x", b"v1%2E.x"),
        (b"v1%2E2", b"x", b"v1%252E2.x"),
        (b"h", b"%2E", b"h.%2E"),
        (b"h", b".", b"h.."),
        (b"h", b"a/b\0%2F:%3A", b"h.a%2Fb%00%252F:%3A"),
        (b"h", b"x%field", b"h.x%25field"),
        (b"h%field", b"x", b"h%field.x"),
        (b"h%field", b"", b"h%25field"),
        (b"a%3Ab", b"x", b"a:b.x"),
    ];
    for (component, field, name) in examples {
        assert_eq!(show(&naming.encode_field(component, field)), show(name));
        check_field(naming, component, field);
        check_name(naming, name);
    }
}

#[test]
fn reading_examples() {
    let naming = Naming::default();
    let plain = |component: &[u8], field: Option<HashField>| Reading::Plain {
        component: component.to_vec(),
        field,
    };
    assert_eq!(
        naming.decode(b"post-update.sample"),
        plain(b"post-update.sample", Some(field(b"post-update", b"sample")))
    );
    assert_eq!(naming.decode(b".git"), plain(b".git", Some(field(b".git", b""))));
    assert_eq!(
        naming.decode(b".profile.bak"),
        plain(b".profile.bak", Some(field(b".profile", b"bak")))
    );
    for string_only in [&b"h."[..], b".h.", b"%2Ex.y", b"%2E.x", b".%2E", b"%."] {
        assert_eq!(naming.decode(string_only), plain(string_only, None));
    }
    assert_eq!(naming.decode(b"%self"), Reading::OwnValue);
    assert_eq!(naming.decode(b"h.x%field"), Reading::Field(field(b"h", b"x")));
    assert_eq!(naming.decode(b"h%field"), Reading::Field(field(b"h", b"")));
    assert_eq!(naming.decode(b"%%field"), Reading::Field(field(b"", b"")));
    let nothing: &[&[u8]] = &[
        b"",
        b".",
        b"..",
        b"a/b",
        b"a\0",
        &[b'x'; 256],
        b"%field",
        b".%field",
        b"..%field",
        b"h.%field",
        b"%self%field",
        b"h%field%field",
    ];
    for name in nothing {
        assert_eq!(naming.decode(name), Reading::Nothing, "{}", show(name));
    }
    let short = [b"abc.d%~", HEX40].concat();
    let Reading::Shortened(short) = naming.decode(&short) else {
        panic!("not shortened");
    };
    assert_eq!(short.prefix, b"abc");
    assert_eq!(short.digest[..2], [0x01, 0x23]);
    let upper = [b"abc%~", &HEX40.to_ascii_uppercase()[..]].concat();
    assert_eq!(naming.encode_component(&upper), upper);
}

#[test]
fn long_names() {
    let naming = Naming::default();
    let prefix = |component: &[u8]| match naming.decode(&naming.encode_component(component)) {
        Reading::Shortened(short) => short.prefix,
        other => panic!("{other:?}"),
    };
    assert_eq!(naming.encode_component(&[b'x'; 255]), [b'x'; 255]);
    assert_eq!(naming.encode_component(&[b'x'; 256]).len(), 255);
    assert_eq!(prefix(&[b'x'; 256]), [b'x'; 213]);
    // 85 of these fit 255 bytes; a cut keeps whole escapes.
    check_component(naming, &[b'/'; 85]);
    assert_eq!(prefix(&[b'/'; 86]), [b'/'; 71]);
    assert_eq!(prefix("é".repeat(200).as_bytes()), "é".repeat(106).as_bytes());
    assert_eq!(prefix("xx€".repeat(200).as_bytes()), ("xx€".repeat(42) + "xx").as_bytes());
    let emoji = |n| "xx".to_owned() + &"😀".repeat(n);
    assert_eq!(prefix(emoji(100).as_bytes()), emoji(52).as_bytes());
    assert_eq!(prefix(&[0x80; 300]), [0x80; 213]);
    assert_eq!(prefix(&[&b"%"[..], &b"25".repeat(200)].concat()), b"");

    // The suffix of a shadowed field survives, and the digest is the field's own.
    let shadowed = naming.encode_shadowed(b"h", &[b'x'; 250]);
    assert_eq!(shadowed.len(), 255);
    assert!(shadowed.ends_with(b"%field"));
    let Reading::Shortened(short) = naming.decode(&shadowed) else {
        panic!("not shortened");
    };
    assert_eq!(short.digest, digest(&naming.encode_field(b"h", &[b'x'; 250])));
    assert_eq!(short.prefix, b"h");

    // Around every place where the cut can fall: tokens of any length, at any distance.
    for pad in 180..260 {
        for links in [0, 1, 2, 5, 20, 110] {
            for tail in PIECES {
                for end in [&b""[..], b"x", &[b'y'; 80]] {
                    let run = [b"%", &b"25".repeat(links)[..]].concat();
                    let text = [&vec![b'x'; pad][..], &run, tail, end].concat();
                    for text in [&text[..], &text[pad..]] {
                        let component = without(b':', text);
                        check_component(naming, &component);
                        check_field(naming, &component, b"");
                        check_field(naming, &component, b"f");
                        check_field(naming, b"%", text);
                        check_name(naming, text);
                    }
                }
            }
        }
    }
}

#[test]
fn keys_join_and_split() {
    let naming = Naming::default();
    let join = |components: &[&[u8]]| {
        let (last, dirs) = components.split_last().unwrap();
        let mut prefix = Vec::new();
        for dir in dirs {
            prefix = naming.dir_prefix(&naming.join_key(&prefix, dir));
        }
        naming.join_key(&prefix, last)
    };
    for key in [&b""[..], b":", b"a", b"a:", b":a", b"a::b", b".git:hooks:post-update"] {
        let components: Vec<_> = naming.split_key(key).collect();
        assert_eq!(join(&components), key);
    }
}

/// Bytes in which the rules meet often.
fn text(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => select(&b"%25FEA3410./:~fields\0"[..]).prop_map(|b| vec![b]),
        3 => select(PIECES).prop_map(<[u8]>::to_vec),
        1 => any::<u8>().prop_map(|b| vec![b]),
    ];
    vec(piece, 0..max).prop_map(|pieces| pieces.concat())
}

fn naming() -> impl Strategy<Value = Naming> {
    prop_oneof![
        2 => Just(b':'),
        1 => Just(b'/'),
        1 => select(&b"|,-_ EFAf~sil\n\xff"[..]),
        1 => any::<u8>(),
    ]
    .prop_filter_map("a bad delimiter", |d| Naming::new(d).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn components_and_fields(naming in naming(), c in text(12), f in text(12)) {
        let c = without(naming.delimiter(), &c);
        check_component(naming, &c);
        check_field(naming, &c, &f);
    }

    #[test]
    fn names(naming in naming(), name in text(12)) {
        check_name(naming, &name);
        // Most texts above are not legal; this one mostly is.
        check_name(naming, &without(0, &without(b'/', &name)));
    }

    #[test]
    fn long_components_and_fields(
        naming in naming(), c in text(300), f in text(300), pad in 0..260usize,
    ) {
        let c = without(naming.delimiter(), &[&vec![b'x'; pad][..], &c].concat());
        check_component(naming, &c);
        check_field(naming, &c, &f);
    }

    /// Pairs that differ in one place, where a bijection is most likely to break.
    #[test]
    fn neighbours_differ(
        a in text(6), b in text(6), x in text(3), y in text(3), pad in select(&[0usize, 300][..]),
    ) {
        let naming = Naming::default();
        let pad = vec![b'p'; pad];
        let one = without(b':', &[&a[..], &pad, &x, &b].concat());
        let two = without(b':', &[&a[..], &pad, &y, &b].concat());
        if one != two {
            prop_assert_ne!(naming.encode_component(&one), naming.encode_component(&two));
            prop_assert_ne!(naming.encode_field(&one, &b), naming.encode_field(&two, &b));
            prop_assert_ne!(naming.encode_field(&b"h"[..], &one), naming.encode_field(b"h", &two));
            prop_assert_ne!(naming.encode_shadowed(&one, &b), naming.encode_shadowed(&two, &b));
            prop_assert_ne!(naming.encode_field(&one, b""), naming.encode_field(&two, &b));
        }
    }
}
