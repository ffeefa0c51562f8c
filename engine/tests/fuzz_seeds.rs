//! The seeds of the fuzz targets, inputs that once failed among them, run as tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dbmount_engine::sim::fuzz;
use dbmount_engine::sim::generate::Random;
use dbmount_transport_mongo::fuzz as mongo;
use dbmount_transport_redis::fuzz as redis;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Runs a body on every seed of a target; with `DBMOUNT_FUZZ_CHANGES=N`, on N changes of each too,
/// where there is no libFuzzer at hand.
fn each(target: &str, body: fn(&[u8])) {
    let dir = folder().join("seeds").join(target);
    let changes = std::env::var("DBMOUNT_FUZZ_CHANGES").ok().and_then(|n| n.parse().ok());
    let mut seeds = 0;
    for file in fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display())) {
        let file = file.expect("an entry").path();
        let seed = fs::read(&file).expect("a seed");
        for n in 0..=changes.unwrap_or(0) {
            let data = changed(&seed, n);
            // The last one that is shown is the one that failed.
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{} change {n}: {hex}", file.display());
            body(&data);
        }
        seeds += 1;
    }
    assert!(seeds > 0, "{target} has no seeds");
}

/// The seed itself, and then with bytes changed, taken out, and doubled.
fn changed(seed: &[u8], n: u64) -> Vec<u8> {
    let mut data = seed.to_vec();
    let mut random = Random(n);
    for _ in 0..n.min(1 + n % 24) {
        let (what, at) = (random.next(), random.next() as usize % data.len().max(1));
        match what % 4 {
            _ if data.is_empty() => data.push(what as u8),
            0 => data.insert(at, (what >> 8) as u8),
            1 => drop(data.remove(at)),
            2 => {
                let end = (at + (what >> 8) as usize % 16).min(data.len());
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            _ => data[at] = (what >> 8) as u8,
        }
    }
    data
}

macro_rules! targets {
    ($($target:ident: $body:path,)*) => {
        $(
            #[test]
            fn $target() {
                each(stringify!($target), $body);
            }
        )*

        /// A target that is added must be added here too.
        #[test]
        fn every_target_is_here() {
            let files = fs::read_dir(folder().join("fuzz_targets")).expect("the targets");
            let names = files.map(|file| file.expect("an entry").path().with_extension(""));
            let there: BTreeSet<String> = names
                .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
                .collect();
            assert_eq!(there, BTreeSet::from([$(stringify!($target).to_owned()),*]));
        }
    };
}

targets! {
    operations_keys: fuzz::operations_keys,
    operations_gridfs: fuzz::operations_gridfs,
    operations_volume: fuzz::operations_volume,
    hostile_keys: fuzz::hostile_keys,
    hostile_gridfs: fuzz::hostile_gridfs,
    hostile_volume: fuzz::hostile_volume,
    alike: fuzz::alike,
    volume_records: fuzz::volume_records,
    replay_log: fuzz::replay_log,
    names: fuzz::names,
    resp_stream: redis::stream,
    redis_url: redis::url,
    mongo_stream: mongo::stream,
    mongo_message: mongo::message,
    mongo_uri: mongo::connection_string,
    bson: mongo::document,
}
