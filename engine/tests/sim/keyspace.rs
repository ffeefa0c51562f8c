//! What a keyspace implies by the bijection: the tree that a mount must show, computed from the
//! server's keys alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dbmount_engine::backend::redis::Reply;
use dbmount_engine::keys::{Options, RESERVED};
use dbmount_engine::sim::ops::{Path, Summary};
use dbmount_engine::{Kind, Name};

use crate::check::World;

/// What is compared of a file: its kind, and its contents or target.
pub(crate) type Shown = BTreeMap<Path, (Kind, Vec<u8>)>;

pub(crate) fn shown(tree: BTreeMap<Path, Summary>) -> Shown {
    let bytes = |it: Summary| (it.kind, it.contents.or(it.target).unwrap_or_default());
    tree.into_iter().map(|(path, it)| (path, bytes(it))).collect()
}

fn words(world: &mut World, words: &[&[u8]]) -> Reply {
    world.redis(words.iter().map(|word| Bytes::copy_from_slice(word)))
}

fn list(reply: &Reply) -> Vec<Vec<u8>> {
    let items = reply.as_array().expect("several").iter();
    // Members come with their scores as pairs.
    let flat = items.flat_map(|item| match item.as_array() {
        Some(_) => list(item),
        None => vec![item.as_bytes().expect("a text").to_vec()],
    });
    flat.collect()
}

/// The text of a list, set or sorted set.
fn text(world: &mut World, key: &[u8], kind: &[u8]) -> Vec<u8> {
    let escape = |item: &[u8]| -> Vec<u8> {
        let escaped = item.iter().map(|byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            byte => vec![*byte],
        });
        escaped.flatten().collect()
    };
    let mut lines: Vec<Vec<u8>> = match kind {
        b"list" => list(&words(world, &[b"LRANGE", key, b"0", b"-1"])),
        b"set" => list(&words(world, &[b"SMEMBERS", key])),
        _ => {
            let pairs = list(&words(world, &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]));
            pairs.chunks(2).map(|it| [&it[1], &b" "[..], &it[0]].concat()).collect()
        }
    };
    lines.iter_mut().for_each(|line| *line = escape(line));
    if kind == b"set" {
        lines.sort();
    }
    lines.into_iter().flat_map(|line| [line, vec![b'\n']].concat()).collect()
}

/// The tree that the keys of a server imply.
pub(crate) fn implied(world: &mut World, options: &Options) -> Shown {
    let options = options.clone().normalised();
    let (naming, delimiter) = (options.naming, options.naming.delimiter());
    let all = world.server().keys(0);
    let side_head = [RESERVED, b"a:"].concat();
    let sides: Vec<(Bytes, Vec<u8>)> = all
        .iter()
        .filter_map(|key| Some((key.clone(), key.strip_prefix(&side_head[..])?.to_vec())))
        .filter_map(|(key, dir)| Some((key, dir.strip_prefix(&options.prefix[..])?.to_vec())))
        .collect();
    let keys: Vec<(Bytes, Vec<u8>)> = all
        .iter()
        .filter(|key| !key.starts_with(RESERVED))
        .filter_map(|key| Some((key.clone(), key.strip_prefix(&options.prefix[..])?.to_vec())))
        .collect();
    let split = |rest: &[u8]| -> (Path, Vec<u8>) {
        let mut components: Vec<Vec<u8>> =
            rest.split(|byte| *byte == delimiter).map(<[u8]>::to_vec).collect();
        let last = components.pop().expect("a component");
        let names = components.iter().map(|it| Name::from(naming.encode_component(it)));
        (Path(names.collect()), last)
    };
    let mut dirs: BTreeSet<Path> = BTreeSet::from([Path::default()]);
    for (_, rest) in keys.iter().chain(&sides) {
        let (dir, _) = split(rest);
        dirs.extend((0..=dir.0.len()).map(|n| Path(dir.0[..n].to_vec())));
    }
    let mut shown: Shown = dirs.iter().map(|dir| (dir.clone(), (Kind::Dir, Vec::new()))).collect();
    let own = Name::from(dbmount_engine::keys::name::SELF_NAME);
    let mut put = |path: Path, kind: Kind, bytes: Vec<u8>| {
        let path = if dirs.contains(&path) { path.join(own.clone()) } else { path };
        let before = shown.insert(path.clone(), (kind, bytes));
        assert_eq!(before, None, "two things at {path}");
    };
    let mut taken: BTreeSet<Path> = BTreeSet::new();
    for (key, rest) in &keys {
        let (dir, component) = split(rest);
        let kind = words(world, &[b"TYPE", key]).as_bytes().expect("a text").to_vec();
        let mut file = |name: Vec<u8>, bytes: Vec<u8>| {
            let path = dir.join(Name::from(name));
            taken.insert(path.clone());
            put(path, Kind::File, bytes);
        };
        match &kind[..] {
            b"none" => {}
            b"string" => {
                let value = words(world, &[b"GET", key]).as_bytes().expect("a text").to_vec();
                file(naming.encode_component(&component), value);
            }
            b"hash" => {
                for pair in list(&words(world, &[b"HGETALL", key])).chunks(2) {
                    let (field, value) = (&pair[0], pair[1].clone());
                    let full = [&key[..], b".", field].concat();
                    let full = words(world, &[b"TYPE", &full]).as_bytes().expect("a text").to_vec();
                    let shadowed = !field.is_empty() && !matches!(&full[..], b"none" | b"hash");
                    file(
                        match shadowed {
                            true => naming.encode_shadowed(&component, field),
                            false => naming.encode_field(&component, field),
                        },
                        value,
                    );
                }
            }
            kind => {
                let text = text(world, key, kind);
                file(naming.encode_component(&component), text);
            }
        }
    }
    for (key, rest) in &sides {
        let (dir, _) = split(rest);
        for pair in list(&words(world, &[b"HGETALL", key])).chunks(2) {
            let mut fields = pair[1].splitn(9, |byte| *byte == b' ');
            let kind = match fields.next() {
                Some(b"l") => Kind::Symlink,
                Some(b"p") => Kind::Fifo,
                Some(b"s") => Kind::Socket,
                Some(b"c") => Kind::CharDevice,
                Some(b"b") => Kind::BlockDevice,
                _ => continue,
            };
            let path = dir.join(Name::from(&pair[0][..]));
            if !taken.contains(&path) && !dirs.contains(&path) {
                put(path, kind, fields.nth(7).unwrap_or_default().to_vec());
            }
        }
    }
    shown
}

/// The first path at which two trees differ.
pub(crate) fn difference(should: &Shown, is: &Shown) -> Option<String> {
    let paths: BTreeSet<&Path> = should.keys().chain(is.keys()).collect();
    let path = paths.into_iter().find(|path| should.get(path) != is.get(path))?;
    Some(format!("{path}: {:?}, should be {:?}", is.get(path), should.get(path)))
}
