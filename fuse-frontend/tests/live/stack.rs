//! A development stack on a mount, as far as it is the same on every server: a Python environment,
//! a crate built by cargo.

use std::path::{Path, PathBuf};

use crate::mount::Mount;
use crate::shell::{needs, run_within, sh, shell};

/// A Python with pip.
pub(crate) fn python() -> PathBuf {
    let named = std::env::var_os("DBMOUNT_PYTHON").unwrap_or_else(|| {
        panic!(
            "DBMOUNT_PYTHON must name a python3 that has PyMongo. One way to get one: \
             python3 -m venv target/ci/venv && target/ci/venv/bin/pip install pymongo==4.20.1"
        )
    });
    Path::new(&named).to_owned()
}

/// Makes a virtual environment and installs a package there.
#[track_caller]
pub(crate) fn python_environment(mount: &Mount) {
    needs("python3", "python3 python3-venv");
    let dir = tempfile::tempdir().expect("a directory");
    wheel(dir.path());
    let wheel = dir.path().join("greet-1.0-py3-none-any.whl");
    // With a pip of elsewhere, as one of its own takes most of a minute to be written.
    let script = format!(
        "python3 -m venv --without-pip env
         '{}' -m pip --python env/bin/python install -q --no-index --disable-pip-version-check '{}'
         env/bin/greet; env/bin/python -c 'import greet; print(greet.__file__)'",
        python().display(),
        wheel.display()
    );
    let said = mount.sh(&script);
    assert!(said.starts_with("hello from a wheel\n"), "{said}");
    assert!(said.contains("env/lib/python3"), "{said}");
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

/// Makes a crate, builds, runs and tests it. Its program is `small/target/debug/small`, which says
/// `built`.
#[track_caller]
pub(crate) fn cargo_builds(mount: &Mount) {
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
}
