//! Servers die, are restarted and hold elections in the middle of a copy: what a program is
//! writing meanwhile arrives whole, and once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dbmount_transport_mongo::wire::command::Command;

use crate::driver;
use crate::mongod::{Mongod, connect, primary_of, replica_set, set_uri, soon};
use crate::mount::Mount;
use crate::server::{BUCKET, DB};
use crate::shell::{shell, until, wait};
use crate::tree;

/// An election takes a while on a busy machine.
const LONG: Duration = Duration::from_secs(140);

fn namespace() -> String {
    format!("{DB}.{BUCKET}")
}

/// Copies a tree into a mount of these servers, with something done to them when a part of it has
/// arrived. Then the two are the same, also for the next mount, and the bucket is clean: nothing is
/// there twice and nothing half.
fn copy_while(url: &str, mut servers: Vec<Mongod>, disturb: impl FnOnce(&mut [Mongod])) {
    let dir = tempfile::tempdir().unwrap();
    let from = tree::make(dir.path());
    let from = Path::new(&from);
    let mount = Mount::of(url, &[], &[]);
    let words = format!("cp -a {} tree", from.display());
    let mut copying = shell(mount.point(), &words).spawn().unwrap();
    let some = || fs::read_dir(mount.at("tree/lib")).is_ok_and(|entries| entries.count() > 3);
    until("a part has arrived", some);
    disturb(&mut servers);
    let status = wait(&mut copying, LONG, "cp -a");
    assert_eq!(status, Some(0), "cp -a; the mount said: {}", mount.said());
    tree::assert_same(from, &mount.at("tree"), "the copy");
    mount.end();
    let again = Mount::of(url, &[], &[]);
    tree::assert_same(from, &again.at("tree"), "the next mount");
    again.end();
    let at = primary(&servers);
    let found = driver::run(&servers[at].tcp().to_string(), driver::CHECK, &[]);
    assert_eq!(found, "", "the bucket is not clean");
}

fn primary(servers: &[Mongod]) -> usize {
    let mut at = None;
    until("there is a primary", || {
        at = primary_of(servers);
        at.is_some()
    });
    at.unwrap()
}

#[test]
fn a_copy_outlives_the_death_of_the_primary() {
    let servers = replica_set(3);
    copy_while(&set_uri(&servers, &namespace()), servers, |servers| {
        servers[primary(servers)].kill();
    });
}

#[test]
fn a_copy_outlives_stepdowns() {
    let servers = replica_set(3);
    // One seed is enough: it tells of the others.
    let url = format!("{}?replicaSet=rs", servers[2].uri(&namespace()));
    copy_while(&url, servers, |servers| {
        for _ in 0..2 {
            let mut primary = connect(&servers[primary(servers)].tcp(), "mongodb://h/");
            let mut down = Command::of("replSetStepDown", "admin", |body, field| {
                body.i32(field, 10);
            });
            down.body().i32("secondaryCatchUpPeriodSecs", 5);
            // Nobody may have caught up yet: then it stays.
            let _ = primary.call(down, Some(soon()));
        }
    });
}

#[test]
fn a_copy_outlives_a_restart_of_a_standalone() {
    let server = Mongod::start(&[]);
    // On a standalone what is not fsynced is only as safe as is asked for.
    let url = format!("{}?w=majority&journal=true", server.uri(&namespace()));
    copy_while(&url, vec![server], |servers| {
        servers[0].kill();
        servers[0].start_again();
    });
}
