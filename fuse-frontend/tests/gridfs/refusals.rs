//! What cannot work: one line on standard error that says what is wrong and what to do, and
//! nothing changed on the server.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::driver;
use crate::mongod::Mongod;
use crate::mount::{Mount, dbmount, is_mounted};
use crate::server::Server;
use crate::shell::{self, until};

/// Tries to mount, and expects one line with all of these words.
#[track_caller]
fn refused(source: &str, more: &[&str], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let point = dir.path().canonicalize().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    for way in [&["--log", log.path().to_str().unwrap()][..], &["--foreground"]] {
        let usual = ["mount", source, point.to_str().unwrap(), "--timeout", "3"];
        let arguments = [&usual, way, more].concat();
        let start = Instant::now();
        let ended = dbmount(&arguments);
        assert!(start.elapsed() < Duration::from_secs(45), "it does not take forever to say so");
        let said = ended.err.trim_end();
        assert!(matches!(ended.status, Some(1 | 2)), "{arguments:?}: {ended:?}");
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        assert!(said.starts_with("dbmount: "), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} in: {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
        assert!(!is_mounted(&point), "{arguments:?}");
        println!("{said}");
    }
}

#[test]
fn sources_that_are_none() {
    refused("mongodb://127.0.0.1", &[], &["DB.BUCKET"]);
    refused("mongodb:127.0.0.1/db.fs", &[], &["mongodb://"]);
    refused("mongodb://127.0.0.1:notaport/db.fs", &[], &["port"]);
    refused("mongodb://u:s3/cret@127.0.0.1/db.fs", &[], &["127.0.0.1"]);
    refused("mongodb://no-such-host.invalid/db.fs", &[], &["no-such-host.invalid"]);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    refused(&format!("mongodb://127.0.0.1:{port}/db.fs"), &[], &[&port.to_string()]);
}

#[test]
fn names_and_sets_that_are_not_there() {
    let server = Server::set();
    let host = server.address();
    refused(&format!("mongodb://{host}/files.docs?replicaSet=other"), &[], &["other"]);
    refused(&format!("mongodb://{host}/files.do$cs"), &[], &["do$cs"]);
    refused(&format!("mongodb://{host}/files."), &[], &["bucket"]);
    refused(&format!("mongodb://{host}/fi les.docs"), &[], &["fi les"]);
    let long = "b".repeat(300);
    refused(&format!("mongodb://{host}/files.{long}"), &[], &["too long"]);
    assert_eq!(
        server.python("print([n for n in client.list_database_names() if n not in ('admin', 'config', 'local')])", &[]),
        "[]\n",
        "nothing is made on the server"
    );
}

/// A server that asks for a password, with users of many rights.
fn guarded() -> Mongod {
    let mongod = Mongod::start(&["--auth", "--setParameter", "enableTestCommands=1"]);
    driver::run(
        &mongod.tcp().to_string(),
        r#"
client.admin.command("createUser", "root", pwd="s3cret", roles=["root"])
client = pymongo.MongoClient(host, username="root", password="s3cret")
admin = client.admin
def user(name, roles, **more):
    admin.command("createUser", name, pwd="s3cret", roles=roles, **more)
user("writer", [{"role": "readWrite", "db": DB}])
user("reader", [{"role": "read", "db": DB}])
user("nobody", [])
user("old", [{"role": "readWrite", "db": DB}], mechanisms=["SCRAM-SHA-1"])
user("p:w/@d", [{"role": "readWrite", "db": DB}])
gridfs.GridFSBucket(client[DB], BUCKET).upload_from_stream("f", b"x")
"#,
        &[],
    );
    mongod
}

/// All that is in the database, to be compared.
fn everything(mongod: &Mongod) -> String {
    let script = r#"
client = pymongo.MongoClient(host, username="root", password="s3cret")
for name in sorted(client[DB].list_collection_names()):
    all = client[DB][name]
    print(name, sorted(all.index_information()), [bson.encode(doc).hex() for doc in all.find()])
"#;
    driver::run(&mongod.tcp().to_string(), script, &[])
}

#[test]
fn passwords_mechanisms_and_rights() {
    let mongod = guarded();
    let before = everything(&mongod);
    let url = |user: &str, more: &str| format!("mongodb://{user}{}/files.docs{more}", mongod.tcp());
    let admin = "?authSource=admin";
    refused(&url("writer:wr0ng@", admin), &[], &["user name", "password"]);
    refused(&url("stranger:s3cret@", admin), &[], &["user name", "password"]);
    refused(&url("writer:s3cret@", "?authSource=files"), &[], &["authSource"]);
    refused(&url("", ""), &[], &["user"]);
    for mechanism in ["PLAIN", "MONGODB-X509", "BOGUS"] {
        let more = format!("{admin}&authMechanism={mechanism}");
        refused(&url("writer:s3cret@", &more), &[], &[mechanism]);
    }
    refused(
        &url("old:s3cret@", "?authSource=admin&authMechanism=SCRAM-SHA-256"),
        &[],
        &["authMechanism"],
    );
    refused(&url("nobody:s3cret@", admin), &[], &["read", "files"]);
    assert_eq!(everything(&mongod), before, "nothing is changed on the server");

    // One who may only read can mount to read, and is told.
    let mount = Mount::of(&url("reader:s3cret@", admin), &[], &[]);
    assert!(
        mount.said().contains("read-only") && mount.said().contains("readWrite"),
        "{}",
        mount.said()
    );
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    for refused in [
        fs::write(mount.at("g"), "y").unwrap_err(),
        fs::write(mount.at("f"), "y").unwrap_err(),
        fs::remove_file(mount.at("f")).unwrap_err(),
        fs::rename(mount.at("f"), mount.at("g")).unwrap_err(),
    ] {
        assert_eq!(refused.raw_os_error(), Some(30), "EROFS: {refused}");
    }
    mount.end();
    assert_eq!(everything(&mongod), before, "nothing is changed on the server");

    // And who asks for it.
    let mount = Mount::of(&url("writer:s3cret@", admin), &["--read-only"], &[]);
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
    assert!(fs::write(mount.at("g"), "y").is_err());
    mount.end();
    assert_eq!(everything(&mongod), before, "nothing is changed on the server");

    for (user, more, variables) in [
        ("writer:s3cret@", admin, vec![]),
        ("writer@", admin, vec![("DBMOUNT_PASSWORD", "s3cret")]),
        ("old:s3cret@", admin, vec![]),
        ("old:s3cret@", "?authSource=admin&authMechanism=SCRAM-SHA-1", vec![]),
        ("p%3Aw%2F%40d:s3cret@", admin, vec![]),
    ] {
        let mount = Mount::of(&url(user, more), &[], &variables);
        fs::write(mount.at("g"), user).unwrap();
        assert_eq!(fs::read_to_string(mount.at("g")).unwrap(), user);
        let cmdline = fs::read_to_string(format!("/proc/{}/cmdline", mount.pid())).unwrap();
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        for shown in [&cmdline, &mounts, &mount.said()] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
        mount.end();
    }
}

#[test]
fn a_full_disk_is_enospc_and_nothing_is_lost() {
    let server = Server::set();
    let mount = Mount::with(&server, &["--timeout", "5"]);
    fs::write(mount.at("before"), vec![b'b'; 600_000]).unwrap();
    let full = |mode: &str, commands: &str| {
        let script = format!(
            "client.admin.command('configureFailPoint', 'failCommand', mode={mode}, data={{
                 'failCommands': {commands}, 'errorCode': 14031}})"
        );
        server.python(&script, &[]);
    };
    full("'alwaysOn'", "['insert', 'update', 'findAndModify']");
    let write = |name: &str, byte: u8| {
        let mut file = fs::File::create(mount.at(name))?;
        file.write_all(&vec![byte; 600_000]).and_then(|()| file.sync_all())
    };
    let errors = [
        write("new", b'n').unwrap_err(),
        fs::create_dir(mount.at("dir")).unwrap_err(),
        write("before", b'x').unwrap_err(),
        fs::rename(mount.at("before"), mount.at("after")).unwrap_err(),
        fs::File::options()
            .append(true)
            .open(mount.at("before"))
            .and_then(|mut file| file.write_all(b"more").and_then(|()| file.sync_all()))
            .unwrap_err(),
    ];
    for (n, error) in errors.iter().enumerate() {
        assert_eq!(error.raw_os_error(), Some(28), "{n}: ENOSPC: {error}");
    }
    until("the log says what to do", || mount.said().contains("free space on the server"));
    let told = shell::sh(mount.point(), "cp /bin/sh other 2>&1 || echo failed");
    assert!(told.contains("No space left on device"), "{told}");
    full("'off'", "[]");
    assert_eq!(fs::read(mount.at("before")).unwrap().len(), 600_000);
    assert!(fs::read(mount.at("before")).unwrap().iter().all(|byte| *byte == b'b'));
    fs::write(mount.at("new"), vec![b'y'; 600_000]).unwrap();
    mount.sh("cp /bin/sh other; cmp /bin/sh other; rm other before");
    mount.end();
    let mount = Mount::new(&server);
    assert_eq!(mount.sh("ls; wc -c < new"), "new\n600000\n");
    mount.end();
}
