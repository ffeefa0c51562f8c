//! The first index of a keyspace that is there already: how fast, and what it takes in memory.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use crate::server::Over;
use crate::table::{Limit, Measure, Table};
use crate::{Bench, Target, timing};

/// Memory is looked at when what the scan took for itself was given back.
const CALM: Duration = Duration::from_millis(500);

pub(crate) fn measure(bench: &Bench<'_>, table: &mut Table) -> Result<(), String> {
    if !bench.target.is_keyspace() {
        // It starts empty.
        return Ok(());
    }
    let keys = bench.options.keys;
    let mount = bench.mount()?;
    wait_for_index(&mount.at("nothing"))?;
    std::thread::sleep(CALM);
    let empty = mount.resident()?;
    mount.unmount()?;

    bench.server.populate(keys)?;
    let mut rates = Vec::new();
    let mut grown = Vec::new();
    for _ in 0..bench.options.runs {
        timing::check()?;
        let mount = bench.mount()?;
        wait_for_index(&mount.at("nothing"))?;
        rates.push(timing::rate(keys, mount.started()));
        std::thread::sleep(CALM);
        grown.push(mount.resident()?.saturating_sub(empty) as f64 / f64::from(keys));
        mount.unmount()?;
    }
    let scan = bench.server.scan_rate(keys)?;
    let over = if bench.target == Target::RedisTcp { Over::Tcp } else { Over::Unix };
    table.limit(Limit::Scan, over, scan);
    let rate = Measure { name: "first index", unit: "key/s", limit: Limit::Scan };
    table.add(bench.target, rate, timing::median(rates));
    let memory = Measure { name: "memory of the index", unit: "B/key", limit: Limit::None };
    table.add(bench.target, memory, timing::median(grown));
    Ok(())
}

/// That nothing has a name is known only when every key was seen.
fn wait_for_index(absent: &std::path::Path) -> Result<(), String> {
    loop {
        timing::check()?;
        match fs::symlink_metadata(absent) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Ok(_) => return Err(format!("{} is there", absent.display())),
            // An index that takes longer than an operation may.
            Err(_) => {}
        }
    }
}
