//! Programs that need what a volume can hold: databases, and copies with everything.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::{needs, run, run_within};
use crate::stack::{cargo_builds, python_environment};
use crate::volume;

#[test]
fn sqlite_keeps_its_books_in_both_modes() {
    needs("sqlite3", "sqlite3");
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    for mode in ["delete", "wal"] {
        mount.sh(&format!(
            "sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t (n INTEGER);'
             for w in 1 2 3; do
                 (for n in $(seq 10); do
                     sqlite3 -cmd '.timeout 60000' {mode}.db 'BEGIN IMMEDIATE;
                         INSERT INTO t SELECT count(*) FROM t; COMMIT;' || exit 1
                 done) &
                 pids=\"${{pids:-}} $!\"
             done
             for pid in $pids; do wait $pid; done"
        ));
        let rows = mount.sh(&format!("sqlite3 {mode}.db 'SELECT count(DISTINCT n) FROM t'"));
        assert_eq!(rows, "30\n", "{mode}");
        assert_eq!(mount.sh(&format!("sqlite3 {mode}.db 'PRAGMA integrity_check'")), "ok\n");
    }
}

#[test]
fn cargo_builds_on_it() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    cargo_builds(&mount);
    mount.end();
    assert_eq!(Mount::of(&url, &[], &[]).sh("small/target/debug/small"), "built\n");
}

#[test]
fn python_environments_live_on_it() {
    let server = Server::new();
    let url = volume(&server);
    python_environment(&Mount::of(&url, &[], &[]));
}

/// A server with its data directory on the mount, as a user of its own, who is let in.
#[test]
fn postgresql_lives_on_it() {
    let bin = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let bin = bin.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").exists());
    let bin = bin.expect("PostgreSQL is not there; apt-get install postgresql");
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &["-o", "allow_other"], &[]);
    fs::set_permissions(mount.point().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let sockets = tempfile::tempdir().unwrap();
    fs::set_permissions(sockets.path(), Permissions::from_mode(0o777)).unwrap();
    mount.sh("mkdir db && chown nobody db && chmod 700 db");
    let script = format!(
        "export PATH={bin}:$PATH PGHOST={sockets} PGDATA={db} PGUSER=nobody
         initdb --auth=trust --no-instructions >{sockets}/initdb
         pg_ctl start -w -t 60 -l {sockets}/log -o '-k {sockets} -c listen_addresses='
         trap 'pg_ctl stop -w -m immediate' EXIT
         pgbench -q -i -s 1 postgres
         pgbench -c 4 -t 25 postgres | grep 'actually processed: 100/100'
         pg_ctl restart -w -t 60 -l {sockets}/log
         psql -Atc 'SELECT count(*) FROM pgbench_history' postgres
         trap - EXIT
         pg_ctl stop -w -m fast",
        bin = bin.display(),
        sockets = sockets.path().display(),
        db = mount.at("db").display(),
    );
    let mut command = Command::new("runuser");
    command.args(["-u", "nobody", "--", "sh", "-euc", &script]).current_dir("/");
    let ended = run_within(Duration::from_secs(120), command.env("LC_ALL", "C"));
    assert_eq!(ended.status, Some(0), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.contains("\n100\n"), "{}", ended.out);
}

/// Everything there is about a file, there and back.
const FULL: &str = "mkdir -p a/sub && cd a
    head -c 300000 /dev/urandom >plain
    ln plain hard && ln -s plain soft && mkfifo pipe
    truncate -s 5M sparse && printf end >>sparse
    printf x >sub/mode && chmod 6751 sub/mode && chmod 1777 sub
    setfattr -n user.note -v 'some text' plain
    printf y >'odd name'
    find . -depth -exec touch -h -d '2001-02-03 04:05:06.123456789' {} +";

#[test]
fn rsync_and_tar_carry_everything_there_and_back() {
    needs("rsync", "rsync");
    needs("setfattr", "attr");
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let local = tempfile::tempdir().unwrap();
    crate::shell::sh(local.path(), FULL);
    let at = |dir: &str| format!("{}/{dir}", local.path().display());
    let on = |dir: &str| format!("{}/{dir}", mount.point().display());
    let list = |dir: &str| {
        let script = "find . -printf '%p %y %m %n %U %G %s %T@ %l\\n' | grep -v '^. d' | sed \
                      's/^\\(.* d [0-9]*\\) [0-9]* \\([0-9]* [0-9]*\\) [0-9]*/\\1 \\2/' | sort
                      find . -type f -exec sha1sum {} + | sort; getfattr -R -d . | sort";
        crate::shell::sh(dir.as_ref(), script)
    };
    let want = list(&at("a"));
    run(Command::new("rsync").args(["-aHXS", &at("a/"), &on("there")])).ok();
    assert_eq!(list(&on("there")), want);
    run(Command::new("rsync").args(["-aHXS", &on("there/"), &at("back")])).ok();
    assert_eq!(list(&at("back")), want);
    let checked = run(Command::new("rsync").args(["-aHXScni", &at("a/"), &on("there")])).ok();
    assert_eq!(checked, "", "nothing is left to do");

    mount.sh(&format!(
        "mkdir tar && tar --format=posix --xattrs --sparse -C {} -c . | tar --xattrs -pC tar -x",
        at("a")
    ));
    assert_eq!(list(&on("tar")), want);
    mount.sh(&format!(
        "mkdir {0} && tar --format=posix --xattrs --sparse -C tar -c . | tar --xattrs -pC {0} -x",
        at("tar")
    ));
    assert_eq!(list(&at("tar")), want);
}
