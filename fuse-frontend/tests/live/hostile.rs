//! A keyspace that others made, with every kind of value under every kind of name: each key is
//! there exactly once, under the name that the naming rules give it, and reads back exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use dbmount_engine::keys::name::Naming;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{LIMIT, run_within, shell};

/// A million by hand: `DBMOUNT_LIVE_KEYS=1000000 cargo test --release --test live hostile`.
const KEYS: &str = "DBMOUNT_LIVE_KEYS";
const USUAL: usize = 3000;

/// What a key holds.
#[derive(Clone, Debug)]
enum Held {
    String(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    List(Vec<Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, i64>),
    Stream(Vec<(Vec<u8>, Vec<u8>)>),
}

type Keyspace = BTreeMap<Vec<u8>, Held>;

/// The same numbers at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Pieces of keys and fields that are hard on names.
fn pieces() -> Vec<Vec<u8>> {
    let mut pieces: Vec<Vec<u8>> = [
        "",
        "a",
        "b",
        "x",
        "y",
        "x.y",
        "a.b",
        ".",
        "..",
        "...",
        ".a",
        "a.",
        "a..b",
        "..a",
        "/",
        "a/b",
        "/etc",
        "\0",
        "a\0b",
        "\n",
        "a\nb",
        " ",
        " a ",
        "%",
        "%%",
        "100%",
        "%2F",
        "%252F",
        "%00",
        "%3A",
        "%253A",
        "%2E",
        "%2e",
        "%252E",
        "%2E%2E",
        ".%2E",
        "a%2Eb",
        "a%2Eb.c",
        "%self",
        "%25self",
        "%field",
        "a.b%field",
        "a%25field",
        "%~",
        "\\",
        "'\"$(x)`",
        "-rf",
        "*",
        "~",
        "\t",
        "\u{fc}\u{1f980}",
        ".git",
        "x.lock",
        "core.c",
        ".dbmount",
        "dbmount",
        "lost+found",
        "%~0123456789abcdef0123456789abcdef01234567",
        "a%~0123456789abcdef0123456789abcdef01234567",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    pieces.extend([b"\xff\xfe".to_vec(), b"a\x80b".to_vec(), b"\xc3".to_vec()]);
    for length in [254, 255, 256, 300, 1000] {
        pieces.push(vec![b'l'; length]);
        pieces.push([vec![b'/'; length / 3].as_slice(), b".e"].concat());
    }
    pieces
}

/// Keys that have met before, in pairs that are easy to mix up.
fn known_pairs() -> Keyspace {
    let mut space = Keyspace::new();
    let mut string = |key: &[u8]| drop(space.insert(key.to_vec(), Held::String(key.to_vec())));
    let long =
        |head: usize, tail: usize| [vec![b'p'; head], b".".to_vec(), vec![b'q'; tail]].concat();
    for key in [
        "both",
        ".dbmount",
        "both:below",
        "x.y",
        "x.y:z",
        ":",
        "::",
        "",
        "only::empty:",
        "h:below",
        "%2E%2E:x",
        "v1%2E2.c",
        "w1.2.c",
        "n.f:below",
        "%",
        "%25",
    ] {
        string(key.as_bytes());
    }
    string(&long(200, 100));
    string(&[&long(210, 100)[..], b":below"].concat());
    string(&[&vec![b'd'; 300][..], b":below"].concat());
    string(&vec![b'd'; 300]);
    let hashes: Vec<(Vec<u8>, Vec<Vec<u8>>)> = vec![
        (b"x".into(), vec![b"y".into(), b"".into()]),
        (b"h".into(), vec![b"".into(), b"f".into()]),
        (b"n".into(), vec![b"f".into()]),
        (b"v1.2".into(), vec![b"c".into()]),
        (b"w1.2".into(), vec![b"c".into()]),
        (b"wide".into(), (0..700).map(|n| format!("{n}").into()).collect()),
        (vec![b'p'; 200], vec![vec![b'q'; 100]]),
        (vec![b'p'; 210], vec![vec![b'q'; 100]]),
        (vec![b'p'; 220], vec![vec![b'q'; 100], vec![b'r'; 300]]),
    ];
    for (key, fields) in hashes {
        let fields = fields.into_iter().map(|field| (field.clone(), [b"of ", &field[..]].concat()));
        space.insert(key, Held::Hash(fields.collect()));
    }
    space
}

fn keyspace(count: usize) -> Keyspace {
    let (mut dice, pieces) = (Dice(1), pieces());
    let mut space = known_pairs();
    let mut serial = 0;
    while space.len() < count {
        serial += 1;
        let depth = 1 + dice.below(4);
        let mut key: Vec<Vec<u8>> = Vec::new();
        for _ in 0..depth {
            let mut piece = pieces[dice.below(pieces.len())].clone();
            if dice.below(3) == 0 {
                piece.extend(&pieces[dice.below(pieces.len())]);
            }
            if dice.below(4) == 0 || serial > count {
                piece.extend(format!("{serial}").bytes());
            }
            key.push(piece);
        }
        let key = key.join(&b':');
        if key.starts_with(dbmount_engine::keys::RESERVED) || space.contains_key(&key) {
            continue;
        }
        let mut piece = || pieces[dice.below(pieces.len())].clone();
        let three = [piece(), piece(), piece()];
        let held = match serial % 10 {
            0..=4 => Held::String(three[0].clone()),
            5 | 6 => Held::Hash(three.into_iter().map(|it| (it.clone(), it)).collect()),
            7 => Held::List(three.to_vec()),
            8 => match serial % 20 {
                8 => Held::Set(three.into_iter().collect()),
                _ => Held::Sorted(three.into_iter().zip([-3, 0, 5]).collect()),
            },
            _ => {
                let [a, b, _] = three;
                Held::Stream(vec![(a.clone(), b.clone()), (b, a)])
            }
        };
        space.insert(key, held);
    }
    space
}

/// What makes a key.
fn commands(key: &[u8], held: &Held) -> Vec<Vec<Vec<u8>>> {
    let words = |command: &str, rest: Vec<Vec<u8>>| {
        vec![[vec![command.as_bytes().to_vec(), key.to_vec()], rest].concat()]
    };
    match held {
        Held::String(value) => words("SET", vec![value.clone()]),
        Held::Hash(fields) => {
            words("HSET", fields.iter().flat_map(|(f, v)| [f.clone(), v.clone()]).collect())
        }
        Held::List(items) => words("RPUSH", items.clone()),
        Held::Set(items) => words("SADD", items.iter().cloned().collect()),
        Held::Sorted(items) => words(
            "ZADD",
            items.iter().flat_map(|(m, s)| [format!("{s}").into(), m.clone()]).collect(),
        ),
        Held::Stream(entries) => entries
            .iter()
            .zip(1..)
            .flat_map(|((f, v), n)| {
                words("XADD", vec![format!("{n}-0").into(), f.clone(), v.clone()])
            })
            .collect(),
    }
}

/// A collection as text: an element a line.
fn lines(held: &Held) -> Vec<u8> {
    let escape = |text: &[u8]| {
        let text = text.iter().map(|&byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            other => vec![other],
        });
        text.collect::<Vec<_>>().concat()
    };
    let word = |text: &[u8]| {
        let text = escape(text);
        text.split(|byte| *byte == b' ').collect::<Vec<_>>().join(&b"\\x20"[..])
    };
    let lines: Vec<Vec<u8>> = match held {
        Held::List(items) => items.iter().map(|item| escape(item)).collect(),
        Held::Set(items) => {
            // Sorted as they are shown.
            let lines: BTreeSet<_> = items.iter().map(|item| escape(item)).collect();
            lines.into_iter().collect()
        }
        Held::Sorted(items) => {
            let mut items: Vec<_> = items.iter().map(|(member, score)| (*score, member)).collect();
            items.sort();
            let line = |(score, member): (i64, &Vec<u8>)| {
                [format!("{score} ").as_bytes(), &escape(member)[..]].concat()
            };
            items.into_iter().map(line).collect()
        }
        Held::Stream(entries) => {
            let line = |((f, v), n): (&(Vec<u8>, Vec<u8>), i32)| {
                [format!("{n}-0 ").into_bytes(), word(f), b" ".to_vec(), word(v)].concat()
            };
            entries.iter().zip(1..).map(line).collect()
        }
        Held::String(_) | Held::Hash(_) => unreachable!("no collection"),
    };
    lines.into_iter().map(|line| [&line[..], b"\n"].concat()).collect::<Vec<_>>().concat()
}

/// Every path that the rules promise for these keys: what each file holds, `None` for directories.
fn promised(space: &Keyspace) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
    let naming = Naming::default();
    let mut dirs: BTreeSet<Vec<u8>> = BTreeSet::new();
    for key in space.keys() {
        for (at, _) in key.iter().enumerate().filter(|(_, byte)| **byte == b':') {
            dirs.insert(key[..at].to_vec());
        }
    }
    // The directory's path with a slash behind it, and the raw last component.
    let place = |key: &[u8]| {
        let mut components: Vec<_> = naming.split_key(key).collect();
        let last = components.pop().unwrap().to_vec();
        let mut path = Vec::new();
        for component in components {
            path.extend(naming.encode_component(component));
            path.push(b'/');
        }
        (path, last)
    };
    let mut paths = BTreeMap::new();
    let mut add = |path: Vec<u8>, held: Option<Vec<u8>>| {
        let shown = path.escape_ascii().to_string();
        assert!(paths.insert(path, held).is_none(), "two keys on one path: {shown}");
    };
    for dir in &dirs {
        let (path, last) = place(dir);
        add([path, naming.encode_component(&last)].concat(), None);
    }
    let dir_names: BTreeSet<Vec<u8>> = dirs
        .iter()
        .map(|dir| {
            let (path, last) = place(dir);
            [path, naming.encode_component(&last)].concat()
        })
        .collect();
    let values: BTreeSet<Vec<u8>> = space
        .iter()
        .filter(|(_, held)| !matches!(held, Held::Hash(_)))
        .map(|(key, _)| {
            let (path, last) = place(key);
            [path, naming.encode_component(&last)].concat()
        })
        .collect();
    let inside = |path: Vec<u8>| match dir_names.contains(&path) {
        true => [&path[..], b"/%self"].concat(),
        false => path,
    };
    for (key, held) in space {
        let (path, last) = place(key);
        match held {
            Held::Hash(fields) => {
                for (field, value) in fields {
                    let plain = [&path[..], &naming.encode_field(&last, field)].concat();
                    let path = match values.contains(&plain) {
                        true => [&path[..], &naming.encode_shadowed(&last, field)].concat(),
                        false => inside(plain),
                    };
                    add(path, Some(value.clone()));
                }
            }
            Held::String(value) => {
                add(inside([path, naming.encode_component(&last)].concat()), Some(value.clone()));
            }
            collection => {
                let path = inside([path, naming.encode_component(&last)].concat());
                add(path, Some(lines(collection)));
            }
        }
    }
    paths
}

/// Every path there is below a directory, as a walk finds it, and what it finds twice.
fn walk(root: &Path) -> (BTreeSet<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut found, mut twice) = (BTreeSet::new(), Vec::new());
    let mut todo = vec![Vec::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(OsStr::from_bytes(&dir))).unwrap() {
            let entry = entry.unwrap();
            let path = [&dir[..], &entry.file_name().into_vec()].concat();
            if entry.file_type().unwrap().is_dir() {
                todo.push([&path[..], b"/"].concat());
            }
            if !found.insert(path.clone()) {
                twice.push(path);
            }
        }
    }
    (found, twice)
}

#[test]
fn every_key_is_there_once_and_reads_back() {
    let count = std::env::var(KEYS).map_or(USUAL, |count| count.parse().unwrap());
    let space = keyspace(count);
    let server = Server::new();
    let mut client = server.client();
    let made: Vec<_> = space.iter().flat_map(|(key, held)| commands(key, held)).collect();
    client.pipeline(&made);
    assert_eq!(client.size(), space.len() as i64);
    drop(made);

    let start = std::time::Instant::now();
    let mount = Mount::with(&server, &["--read-only"]);
    let promised = promised(&space);
    let mut find = shell(mount.point(), "find . -print0 | tr -cd '\\0' | wc -c");
    let limit = LIMIT.max(std::time::Duration::from_millis(count as u64));
    let listed = run_within(limit, &mut find).ok();
    println!("{count} keys: mounted and found in {:?}", start.elapsed());

    // Names first: what is missing and what is too much says more than a number.
    let (found, twice) = walk(mount.point());
    let show = |path: &&Vec<u8>| path.escape_ascii().to_string();
    let missing: Vec<_> = promised.keys().filter(|path| !found.contains(*path)).collect();
    let surplus: Vec<_> = found.iter().filter(|path| !promised.contains_key(*path)).collect();
    assert!(
        missing.is_empty() && surplus.is_empty() && twice.is_empty(),
        "missing {:#?}\nsurplus {:#?}\ntwice {:#?}",
        missing.iter().map(show).take(20).collect::<Vec<_>>(),
        surplus.iter().map(show).take(20).collect::<Vec<_>>(),
        twice.iter().map(|path| show(&path)).take(20).collect::<Vec<_>>(),
    );
    assert_eq!(listed.trim(), (promised.len() + 1).to_string(), "find counts every one");

    let mut wrong = Vec::new();
    for (path, held) in &promised {
        let full = mount.at(OsStr::from_bytes(path));
        let shown = path.escape_ascii();
        let Some(held) = held else { continue };
        match (fs::symlink_metadata(&full), fs::read(&full)) {
            (Ok(meta), Ok(read)) => {
                if read != *held {
                    let (read, held) = (read.escape_ascii(), held.escape_ascii());
                    wrong.push(format!("{shown}: {read} instead of {held}"));
                } else if meta.len() != held.len() as u64 {
                    wrong.push(format!("{shown}: stat says {} of {}", meta.len(), held.len()));
                }
            }
            (stat, read) => wrong.push(format!("{shown}: {:?} {:?}", stat.err(), read.err())),
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);
    assert_eq!(client.size(), space.len() as i64, "looking leaves nothing behind");
    println!("{count} keys: read back after {:?}", start.elapsed());
}

#[test]
fn names_work_without_a_listing_before() {
    // Straight to a path, as a script that knows the rules goes, on a mount that listed nothing.
    let space = known_pairs();
    let server = Server::new();
    let made: Vec<_> = space.iter().flat_map(|(key, held)| commands(key, held)).collect();
    server.client().pipeline(&made);
    let mount = Mount::new(&server);
    for (path, held) in promised(&space) {
        let full = mount.at(OsStr::from_bytes(&path));
        if path.windows(2).any(|two| two == b"%~") {
            // A name that is the digest of a field's is known once its directory was listed.
            assert!(fs::read_dir(full.parent().unwrap()).unwrap().count() > 0);
        }
        let read = held.as_ref().map(|_| fs::read(&full).map_err(|error| error.to_string()));
        assert!(full.exists(), "{}", path.escape_ascii());
        assert_eq!(read, held.map(Ok), "{}", path.escape_ascii());
    }
}
