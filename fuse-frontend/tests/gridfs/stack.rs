//! A development stack on the mount: git's whole life, a Python environment, cargo, sqlite3.

use std::path::Path;

use crate::driver;
use crate::mount::Mount;
use crate::server::{Server, on_both};
use crate::shell::{needs, run_within, sh, shell};

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
    needs("python3", "python3 python3-venv");
    let dir = tempfile::tempdir().unwrap();
    wheel(dir.path());
    let mount = Mount::new(server);
    let wheel = dir.path().join("greet-1.0-py3-none-any.whl");
    // With a pip of elsewhere, as one of its own takes most of a minute to be written.
    let script = format!(
        "python3 -m venv --without-pip env
         '{}' -m pip --python env/bin/python install -q --no-index --disable-pip-version-check '{}'
         env/bin/greet; env/bin/python -c 'import greet; print(greet.__file__)'",
        driver::python().display(),
        wheel.display()
    );
    let said = mount.sh(&script);
    assert!(said.starts_with("hello from a wheel\n"), "{said}");
    assert!(said.contains("env/lib/python3"), "{said}");
    mount.end();
    server.checks_clean();
}

/// A wheel with one module and one command.
fn wheel(dir: &Path) {
    sh(
        dir,
        r#"python3 - <<'EOF'
import zipfile
info = "greet-1.0.dist-info"
with zipfile.ZipFile("greet-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("greet.py", "def main():\n    print('hello from a wheel')\n")
    wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n")
    wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "/entry_points.txt", "[console_scripts]\ngreet = greet:main\n")
    names = wheel.namelist() + [info + "/RECORD"]
    wheel.writestr(info + "/RECORD", "".join(name + ",,\n" for name in names))
EOF"#,
    );
}

fn cargo_builds_on_it(server: &Server) {
    let mount = Mount::new(server);
    let home = std::env::var("HOME").unwrap_or_default();
    let toolchain =
        |name: &str, below: &str| std::env::var(name).unwrap_or_else(|_| format!("{home}/{below}"));
    let script = format!(
        "export CARGO_HOME='{}' RUSTUP_HOME='{}'
         mkdir -p small/src; cd small
         printf '[package]\\nname = \"small\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[workspace]\\n' > Cargo.toml
         printf 'pub mod other;\\nfn main() {{ println!(\"{{}}\", small::other::word()); }}\\n' > src/main.rs
         sed -i 's/^pub mod other;$//' src/main.rs; echo 'pub mod other;' > src/lib.rs
         printf 'pub fn word() -> &'\"'\"'static str {{ \"built\" }}\\n#[test]\\nfn it() {{ assert_eq!(word(), \"built\"); }}\\n' > src/other.rs
         unset RUSTC_WRAPPER CARGO_TARGET_DIR RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
         cargo run -q --offline; cargo test -q --offline > log 2>&1 || {{ cat log; exit 1; }}
         cargo build --offline 2>&1 | grep -c Compiling || true",
        toolchain("CARGO_HOME", ".cargo"),
        toolchain("RUSTUP_HOME", ".rustup"),
    );
    let limit = std::time::Duration::from_secs(140);
    let said = run_within(limit, &mut shell(mount.point(), &script)).ok();
    assert_eq!(said, "built\n0\n", "and a second build has nothing to do");
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
