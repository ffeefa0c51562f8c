//! Directory listings: stable while entries come and go, and no larger than a page.

use std::collections::BTreeSet;

use bytes::Bytes;
use dbmount_engine::config::Config;
use dbmount_engine::id::Fh;
use dbmount_engine::op::DirEntry;
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::harness::{CALLER, Weather};
use dbmount_engine::{Ino, Name, Request, Response};

use crate::check::{Setup, World};

/// Room for one entry with the longest name, and for few with short ones.
const SMALL: u32 = 512;

fn open(world: &mut World) -> Fh {
    match world.request(0, Request::OpenDir { ino: Ino::ROOT }) {
        Ok(Response::Opened(opened)) => opened.fh,
        other => panic!("{other:?}"),
    }
}

fn page(world: &mut World, fh: Fh, offset: u64, budget: u32, plus: bool) -> Vec<DirEntry> {
    let request = Request::ReadDir { ino: Ino::ROOT, fh, offset, budget, plus };
    let entries = match world.request(0, request) {
        Ok(Response::Dir(entries)) => entries,
        other => panic!("{other:?}"),
    };
    for entry in entries.iter().filter_map(|it| it.entry) {
        world.start(0, Request::Forget { ino: entry.attr.ino, count: 1 });
    }
    entries
}

/// Entries that come and go during a listing neither hide nor repeat the others.
#[test]
fn a_listing_is_stable_while_entries_come_and_go() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let mut world = World::new(seed, Weather::BREEZE);
        // Some stay; of every kind that a directory lists.
        let mut stay = BTreeSet::new();
        for n in 0..60 {
            let name = match n % 4 {
                0 => {
                    world.redis([format!("SET s{n} v").as_str()].iter().flat_map(|it| {
                        it.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()))
                    }));
                    format!("s{n}")
                }
                1 => {
                    let fields = [format!("h{}", n % 8), format!("f{n}"), "v".into()];
                    world.redis(["HSET".into()].into_iter().chain(fields.map(Bytes::from)));
                    format!("h{}.f{n}", n % 8)
                }
                2 => {
                    let key = Bytes::from(format!("d{n}:x"));
                    world.redis(["SET".into(), key, "v".into()]);
                    format!("d{n}")
                }
                _ => format!("l{n}"),
            };
            stay.insert(name);
        }
        let listing_entries = 1 + random.next() as usize % 9;
        let config = Config { listing_entries, ..Config::default() };
        world.mount(&Setup { config, ..Setup::default() });
        for name in stay.iter().filter(|name| name.starts_with('l')) {
            let (name, target, caller) = (Name::from(&name[..]), Bytes::from("s0"), CALLER);
            let request = Request::Symlink { parent: Ino::ROOT, name, target, caller };
            assert!(world.request(0, request).is_ok());
        }
        let fh = open(&mut world);
        let (mut offset, mut seen) = (0, BTreeSet::new());
        loop {
            let entries = page(&mut world, fh, offset, SMALL, random.next().is_multiple_of(2));
            if entries.is_empty() {
                break;
            }
            // Now and then not all of a page is used, and the next one starts before its end.
            let used = match random.next() % 3 {
                0 => 1 + random.next() as usize % entries.len(),
                _ => entries.len(),
            };
            for entry in &entries[..used] {
                let name = String::from_utf8(entry.name.as_bytes().to_vec()).unwrap();
                let passes = name.starts_with('t');
                assert!(seen.insert(name.clone()) || passes, "seed {seed}: {name} comes twice");
                offset = entry.offset;
            }
            // Others come and go, before and behind the reader.
            for _ in 0..random.next() % 4 {
                let key = Bytes::from(format!("t{}", random.next() % 40));
                match random.next() % 4 {
                    0 => world.redis(["SET".into(), key, "v".into()]),
                    1 => world.redis(["DEL".into(), key]),
                    2 => world.redis(["HSET".into(), key, "f".into(), "v".into()]),
                    _ => {
                        let hash = Bytes::from(format!("h{}", 1 + random.next() % 2 * 4));
                        let field = Bytes::from(format!("t{}", random.next() % 40));
                        match random.next() % 2 {
                            0 => world.redis(["HDEL".into(), hash, field]),
                            _ => world.redis(["HSET".into(), hash, field, "v".into()]),
                        }
                    }
                };
            }
        }
        let missing: Vec<&String> = stay.difference(&seen).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?} never came");
    }
}

/// A large directory is paged through without being held whole.
#[test]
fn a_large_directory_comes_in_pages() {
    const KEYS: usize = 100_000;
    const FACTS: usize = 2_000;
    let mut world = World::new(1, Weather::CALM);
    for first in (0..KEYS).step_by(1000) {
        let pairs = (first..first + 1000).flat_map(|n| [format!("k{n}"), String::from("v")]);
        world.redis(["MSET".into()].into_iter().chain(pairs.map(Bytes::from)));
    }
    let config = Config { fact_entries: FACTS, ..Config::default() };
    let limit = config.listing_entries;
    world.mount(&Setup { config, ..Setup::default() });
    world.settle();
    assert_eq!(world.engine_of(0).layout().keys(), KEYS);
    let fh = open(&mut world);
    let before = world.batches(0);
    let (mut offset, mut count) = (0, 0);
    loop {
        let entries = page(&mut world, fh, offset, 32 << 10, true);
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        count += entries.iter().filter(|it| it.name.as_bytes().starts_with(b"k")).count();
        let known = world.engine_of(0).layout().inodes();
        assert!(known <= FACTS + 2 * limit, "{known} inodes are remembered");
    }
    assert_eq!(count, KEYS);
    let pages = world.batches(0) - before;
    assert!(pages <= 2 + KEYS.div_ceil(limit) as u64, "{pages} round trips");
}
