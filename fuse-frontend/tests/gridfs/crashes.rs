//! `kill -9` of the program in the middle of things: the tree mounts again, nothing that was
//! synced is lost, nothing is there in part, and what is left over is found and removed.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::mount::{Mount, take_away};
use crate::server::{Server, on_both};
use crate::shell::{LIMIT, shell, until, wait, within};
use crate::tree::{self, assert_same};

on_both!(killed_during_cp, killed_during_renames_and_removals);

impl Mount {
    /// As the kernel's OOM killer would end it.
    fn kill(self) {
        kill_process(Pid::from_raw(self.pid() as i32).unwrap(), Signal::KILL).unwrap();
        take_away(self.point());
    }
}

/// A transaction that was under way keeps others from its documents until the server ends it, after
/// a minute; that minute is a second here.
const A_SECOND: &str = "client.admin.command('setParameter', 1, transactionLifetimeLimitSeconds=1)";

/// What nobody holds any more is removed an hour later: that hour passes.
const AN_HOUR: &str = r#"
hour = Int64(3600 * 1000 + 60000)
files.update_many({"metadata.dbmount.gone.t": {"$exists": True}}, [{"$set":
    {"metadata.dbmount.gone.t": {"$subtract": ["$metadata.dbmount.gone.t", hour]}}}])
"#;

/// Whatever a crash leaves, no chunk is ever without a document and no name leads nowhere.
fn recovers(server: &Server) {
    server.python(AN_HOUR, &[]);
    let mount = Mount::new(server);
    let left = "print(list(files.find({'$or': [{'metadata.dbmount.gone': {'$exists': True}},
                                               {'metadata.dbmount.moved': {'$exists': True}}]})))";
    within(LIMIT / 2, "what was left over is removed", || server.python(left, &[]) == "[]\n");
    mount.end();
    server.checks_clean();
}

fn killed_during_cp(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    let mut synced = Vec::new();
    server.python(A_SECOND, &[]);
    for round in 0..2 {
        let mount = Mount::new(server);
        for n in 0..5 {
            let (name, value) =
                (format!("synced{round}.{n}"), format!("{round} {n}").repeat(90_000));
            let mut file = File::create(mount.at(&name)).unwrap();
            file.write_all(value.as_bytes()).unwrap();
            file.sync_all().unwrap();
            synced.push((name, value));
        }
        let to = format!("copy{round}");
        let mut copying = shell(mount.point(), &format!("cp -a '{tree}' {to}"))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let there = |at: &Path| fs::read_dir(at.join("lib")).map_or(0, |all| all.count());
        // Early, and late.
        until("some of it is copied", || {
            there(&mount.at(&to)) > round * 5 || copying.try_wait().unwrap().is_some()
        });
        mount.kill();
        let _failed = wait(&mut copying, LIMIT, "cp");

        let mount = Mount::new(server);
        for (name, value) in &synced {
            assert!(fs::read_to_string(mount.at(name)).unwrap() == *value, "{name} was synced");
        }
        // What is there can be read to its end; and a second copy makes it whole.
        mount.sh(&format!("tar -cf /dev/null {to} && cp -a '{tree}/.' {to}/"));
        assert_same(tree.as_ref(), &mount.at(&to), "copied again");
        mount.end();
    }
    recovers(server);
}

fn killed_during_renames_and_removals(server: &Server) {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree::make(dir.path());
    server.python(A_SECOND, &[]);
    for round in 0..2 {
        let mount = Mount::new(server);
        mount.sh(&format!("rm -rf a b kept; cp -a '{tree}/lib' a; cp -a a kept"));
        let script = "while :; do mv a b; ln b/a/file1.py b/hard; mv b/a b/z; mv b/z b/a; rm b/hard
             echo x > new; mv new b/a/over; rm b/a/over; mv b a; done";
        let mut moving =
            shell(mount.point(), script).stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut rounds = 0;
        until("it has gone round", || {
            rounds += usize::from(mount.at("b/z").exists() || mount.at("b/hard").exists());
            rounds > round * 2 || moving.try_wait().unwrap().is_some()
        });
        mount.kill();
        let _failed = wait(&mut moving, LIMIT, "mv");
        // And in the middle of removing.
        let mount = Mount::new(server);
        let all = mount.sh("ls");
        let lines: Vec<_> = all.lines().filter(|name| ["a", "b"].contains(name)).collect();
        assert_eq!(lines.len(), 1, "it is at one place: {all}");
        let moved = lines[0].to_owned();
        let count = mount.sh(&format!("find {moved} | grep -v -e /hard -e /over | wc -l"));
        assert_eq!(count, mount.sh("find kept | wc -l"), "and nothing of it is lost");
        let removal = format!("rm -rf {moved}");
        let mut removing =
            shell(mount.point(), &removal).stderr(std::process::Stdio::null()).spawn().unwrap();
        until("some of it is removed", || {
            fs::read_dir(mount.at(&moved)).map_or(0, Iterator::count) < 6
                || removing.try_wait().unwrap().is_some()
        });
        mount.kill();
        let _failed = wait(&mut removing, LIMIT, "rm");
        let mount = Mount::new(server);
        let place = mount.at("kept");
        assert_same(&Path::new(&tree).join("lib"), &place, "what nobody touched");
        mount.end();
    }
    recovers(server);
}
