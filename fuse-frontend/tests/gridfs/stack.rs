//! A development stack on the mount: git's whole life, a Python environment, cargo, sqlite3.

use crate::everywhere::{cargo_builds, python_environment};
use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::{needs, sh};

on_both!(git_lives_on_it, python_environments, cargo_builds_on_it, sqlite_with_a_rollback_journal);

fn git_lives_on_it(server: &Server) {
    needs("git", "git");
    let mount = Mount::new(server);
    mount.sh("mkdir work; cd work; git init -q -b main; echo hello > hello; mkdir -p lib/deep
         for n in $(seq 40); do echo line $n > lib/deep/$n.c; done
         printf '#!/bin/sh\\necho ran\\n' > run.sh; chmod 755 run.sh; ln -s lib/deep/1.c link
         git add -A; git commit -q -m first; git fsck --full --strict
         for n in $(seq 40); do echo more $n >> lib/deep/$n.c; done
         git commit -q -a -m second; git gc -q; git tag v1; ./run.sh");
    assert_eq!(mount.sh("cd work; git status --porcelain"), "");
    // Cloned beside it, which links the objects, and elsewhere; then a push back.
    mount.sh("git clone -q work beside; cd beside; git fsck --full --strict; git log --oneline");
    let elsewhere = tempfile::tempdir().unwrap();
    let from = mount.at("work");
    sh(
        elsewhere.path(),
        &format!(
            "git clone -q '{}' clone; cd clone; git fsck --full --strict; cat link
             git checkout -q -b side; echo more > more.txt; git add -A; git commit -q -m third
             git push -q origin side",
            from.display()
        ),
    );
    mount.end();

    let mount = Mount::new(server);
    mount.sh("cd work; git fsck --full --strict; git merge -q side; git gc -q --prune=now");
    assert_eq!(mount.sh("cd work; git status --porcelain"), "", "nothing git looks at has changed");
    assert_eq!(mount.sh("cd work; ./run.sh; cat link more.txt"), "ran\nline 1\nmore 1\nmore\n");
    mount.sh("cd work; git checkout -q v1; git switch -q main; git stash list; git fsck --strict");
    mount.end();
    server.checks_clean();
}

fn python_environments(server: &Server) {
    let mount = Mount::new(server);
    python_environment(&mount);
    mount.end();
    server.checks_clean();
}

fn cargo_builds_on_it(server: &Server) {
    let mount = Mount::new(server);
    cargo_builds(&mount);
    mount.end();
    let mount = Mount::new(server);
    assert_eq!(mount.sh("small/target/debug/small"), "built\n");
    mount.end();
    server.checks_clean();
}

fn sqlite_with_a_rollback_journal(server: &Server) {
    needs("sqlite3", "sqlite3");
    let mount = Mount::new(server);
    let sum = "SELECT count(*), sum(n), sum(length(t)) FROM x; PRAGMA integrity_check;";
    let made = mount.sh(&format!(
        "sqlite3 db \"PRAGMA journal_mode=delete; PRAGMA synchronous=full;
           CREATE TABLE x(n INTEGER PRIMARY KEY, t TEXT);
           BEGIN; WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<3000)
             INSERT INTO x SELECT i, hex(randomblob(100)) FROM c; COMMIT;
           CREATE INDEX t ON x(t);\"
         for n in 1 2 3 4 5; do
           sqlite3 db \"UPDATE x SET t = hex(randomblob(50)) WHERE n % 7 = $n;
             BEGIN; DELETE FROM x WHERE n > 10; ROLLBACK;\"
         done
         sqlite3 db \"DELETE FROM x WHERE n % 5 = 0; VACUUM; {sum}\""
    ));
    let made: Vec<_> = made.lines().collect();
    assert_eq!((made[0], made[2]), ("delete", "ok"), "{made:?}");
    assert!(made[1].starts_with("2400|3600000|"), "{made:?}");
    assert!(!mount.at("db-journal").exists());
    mount.end();
    let mount = Mount::new(server);
    let again = mount.sh(&format!("sqlite3 db '{sum}'"));
    assert_eq!(again.lines().collect::<Vec<_>>(), made[1..]);
    // A driver has the very same database.
    let copied = mount.point().parent().unwrap().join("copy");
    server.python("open(args[0], 'wb').write(read('db'))", &[copied.to_str().unwrap()]);
    let copy = format!("sqlite3 copy '{sum}'");
    assert_eq!(sh(copied.parent().unwrap(), &copy).lines().collect::<Vec<_>>(), made[1..]);
    mount.end();
    server.checks_clean();
}
