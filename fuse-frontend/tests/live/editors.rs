//! Editors and the ways they save; files that are open while their names go.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::mount::Mount;
use crate::resp::Value;
use crate::server::Server;
use crate::shell::{needs, until};

#[test]
fn vim_saves_strings_and_fields() {
    needs("vim", "vim-tiny");
    let server = Server::new();
    let mut client = server.client();
    client.run(&["SET", "notes", "one\ntwo\n"]);
    client.run(&["HSET", "page", "html", "one\ntwo\n", "css", "kept"]);
    client.say("SET with:in one");
    let mount = Mount::new(&server);
    for file in ["notes", "page.html"] {
        // Its usual way (backup by rename or by copy as it thinks fit), and both by force.
        for backup in ["auto", "no", "yes"] {
            mount.sh(&format!(
                "vim -u NONE -i NONE -n -es -c 'set backupcopy={backup} writebackup' \
                 -c '%s/t/T/ge' -c \"\\$put ='{backup}'\" -c 'wq' {file} </dev/null"
            ));
        }
        // With a swap file, as by default.
        mount.sh(&format!(
            "vim -u NONE -i NONE -es -c \"\\$put ='swap'\" -c 'wq' {file} </dev/null"
        ));
    }
    let want = b"one\nTwo\nauTo\nno\nyes\nswap\n";
    assert_eq!(client.get("notes").escape_ascii().to_string(), want.escape_ascii().to_string());
    assert_eq!(client.say("HGET page html").bytes(), want);
    assert_eq!(client.say("HGET page css").bytes(), b"kept");
    assert_eq!(mount.sh("ls -A"), "notes\npage.css\npage.html\nwith\n", "no litter of the editor");
    assert_eq!(client.say("TYPE page").bytes(), b"hash", "no key changes its type");
    assert_eq!(client.say("TYPE notes").bytes(), b"string");
}

#[test]
fn sed_saves_by_rename_and_a_ttl_stays() {
    let server = Server::new();
    let mut client = server.client();
    client.say("SET s old EX 1000");
    client.say("HSET h f old g kept");
    client.say("EXPIRE h 1000");
    client.say("SET plain old");
    let mount = Mount::new(&server);
    mount.sh("sed -i s/old/new/ s h.f plain");
    assert_eq!(client.get("s"), b"new");
    assert_eq!(client.say("HGET h f").bytes(), b"new");
    assert_eq!(client.say("HGET h g").bytes(), b"kept");
    let left = |client: &mut crate::resp::Client, key: &str| client.run(&["TTL", key]).int();
    for key in ["s", "h"] {
        let ttl = left(&mut client, key);
        assert!((900..=1000).contains(&ttl), "{key}: a save by rename keeps the TTL: {ttl}");
    }
    assert_eq!(left(&mut client, "plain"), -1, "and gives none");
    // In place, at the end, truncated and written anew: the same.
    mount.sh("echo more >> s; echo anew > s; truncate -s 2 s; printf x | dd of=s conv=notrunc status=none");
    assert_eq!(client.get("s"), b"xn");
    assert!((900..=1000).contains(&left(&mut client, "s")));
    // A copy is a new file.
    mount.sh("cp s copy");
    assert_eq!(left(&mut client, "copy"), -1);
}

#[test]
fn no_save_turns_a_collection_into_a_string() {
    let server = Server::new();
    let mut client = server.client();
    client.say("RPUSH list a b");
    client.say("SADD set m");
    let mount = Mount::new(&server);
    let refused =
        |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(13), "EACCES: {error}");
    for name in ["list", "set"] {
        refused(File::options().write(true).open(mount.at(name)).unwrap_err());
        refused(fs::write(mount.at(name), "x").unwrap_err());
        refused(fs::remove_file(mount.at(name)).unwrap_err());
        refused(fs::rename(mount.at(name), mount.at("other")).unwrap_err());
        fs::write(mount.at("tmp"), "x").unwrap();
        refused(fs::rename(mount.at("tmp"), mount.at(name)).unwrap_err());
    }
    assert_eq!(client.say("LRANGE list 0 -1").list().len(), 2);
    assert_eq!(client.say("TYPE set").bytes(), b"set");
    assert_eq!(mount.sh("cat list set"), "a\nb\nm\n");
    let size = fs::metadata(mount.at("list")).unwrap().len();
    assert_eq!(size, 4, "stat gives the size of what cat prints");
}

#[test]
fn an_open_file_outlives_its_name() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::new(&server);
    for name in ["string", "hash.field", "dir/below"] {
        fs::create_dir_all(mount.at("dir")).unwrap();
        let path = mount.at(name);
        fs::write(&path, "0123456789").unwrap();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!path.exists());
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "0123456789", "an unlinked file is read on");
        file.write_all(b" and on").unwrap();
        file.sync_all().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        read.clear();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "0123456789 and on", "and written on");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.set_len(3).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);

        // A new file of the same name is another file.
        fs::write(&path, "new").unwrap();
        let mut two = [0; 2];
        file.read_exact_at(&mut two, 0).unwrap();
        assert_eq!(&two, b"01");
        file.write_all_at(b"XX", 0).unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");

        // Replaced by a rename while it is open.
        let open = File::open(&path).unwrap();
        fs::write(mount.at("other"), "other").unwrap();
        fs::rename(mount.at("other"), &path).unwrap();
        let mut three = [0; 3];
        open.read_exact_at(&mut three, 0).unwrap();
        assert_eq!(&three, b"new", "the old one is read on");
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        drop(open);
    }
    mount.sh("rm -r *");
    mount.end();
    assert_eq!(client.everything(), [""; 0], "what was unlinked goes when it is closed");
}

#[test]
fn a_temporary_file_without_a_name_for_long() {
    // What `sort`, `git` and shells' here-documents do: make, unlink, use, forget.
    let server = Server::new();
    let mount = Mount::new(&server);
    let path = mount.at("tmp");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let large: Vec<u8> = (0..1_500_000u32).map(|n| (n >> 7) as u8).collect();
    file.write_all(&large).unwrap();
    file.rewind().unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == large);
    drop(file);
    mount.end();
    assert_eq!(server.client().everything(), [""; 0]);
}

#[test]
fn appending_truncating_and_writing_beyond_the_end() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::new(&server);
    for name in ["s", "h.f"] {
        let path = mount.at(name);
        let value = |client: &mut crate::resp::Client| match name {
            "s" => client.get("s"),
            _ => client.say("HGET h f").bytes(),
        };
        // Two that append, in turns, overwrite nothing.
        let mut how = File::options();
        how.append(true).create(true);
        let (mut one, mut two) = (how.open(&path).unwrap(), how.open(&path).unwrap());
        for n in 0..20 {
            let file = if n % 2 == 0 { &mut one } else { &mut two };
            file.write_all(format!("{n};").as_bytes()).unwrap();
        }
        drop((one, two));
        let all: String = (0..20).map(|n| format!("{n};")).collect();
        assert_eq!(value(&mut client), all.as_bytes());

        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(value(&mut client), b"0;1;", "truncate is there at once");
        file.set_len(6).unwrap();
        assert_eq!(value(&mut client), b"0;1;\0\0", "what it grows by is zeros");
        file.write_all_at(b"end", 10).unwrap();
        file.sync_all().unwrap();
        assert_eq!(value(&mut client), b"0;1;\0\0\0\0\0\0end");
        file.set_len(0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        drop(file);
        assert_eq!(value(&mut client), b"");
        assert!(path.exists(), "an empty file is a file");

        // O_TRUNC of an open file: both see it.
        fs::write(&path, "contents").unwrap();
        let reader = File::open(&path).unwrap();
        File::create(&path).unwrap();
        assert_eq!(reader.metadata().unwrap().len(), 0);
    }
}

#[test]
fn renames_between_strings_and_fields() {
    let server = Server::new();
    let mut client = server.client();
    let mount = Mount::new(&server);
    fs::write(mount.at("plain"), "value").unwrap();
    fs::rename(mount.at("plain"), mount.at("h.f")).unwrap();
    assert_eq!(
        client.say("HGETALL h"),
        Value::List(vec![Value::Text(b"f".to_vec()), Value::Text(b"value".to_vec())])
    );
    fs::rename(mount.at("h.f"), mount.at("back")).unwrap();
    assert_eq!(client.keys(), ["back"]);
    fs::write(mount.at("x.lock"), "locked").unwrap();
    assert_eq!(client.get("x.lock"), b"locked", "*.lock is a string");
    fs::rename(mount.at("x.lock"), mount.at("x")).unwrap();
    assert_eq!(client.get("x"), b"locked");

    // NOREPLACE, and a directory in the way.
    let (x, back) = (mount.at("x"), mount.at("back"));
    let taken = renameat_with(CWD, &x, CWD, &back, RenameFlags::NOREPLACE);
    assert_eq!(taken, Err(rustix::io::Errno::EXIST));
    fs::create_dir(mount.at("d")).unwrap();
    assert_eq!(fs::rename(&x, mount.at("d")).unwrap_err().raw_os_error(), Some(21), "EISDIR");
    assert_eq!(fs::rename(mount.at("d"), &x).unwrap_err().raw_os_error(), Some(20), "ENOTDIR");
    let hard = fs::hard_link(&x, mount.at("hard")).unwrap_err();
    assert_eq!(hard.raw_os_error(), Some(1), "hard links: EPERM");
}

#[test]
fn a_large_directory_is_listed_and_deleted_at_once() {
    const MANY: usize = 20_000;
    let server = Server::new();
    let mut client = server.client();
    let keys: Vec<_> =
        (0..MANY).map(|n| vec!["SET".into(), format!("d:{n:05}"), "x".into()]).collect();
    client.pipeline(&keys);
    client.say("SET d:last:one x");
    let mount = Mount::new(&server);
    until("it is there", || mount.at("d").is_dir());
    // POSIX: what is there from the first to the last readdir is returned once, whatever comes
    // and goes meanwhile. Every second one is deleted as it is seen; none may be missed.
    let mut seen = std::collections::BTreeSet::new();
    for entry in fs::read_dir(mount.at("d")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if let Ok(number) = name.parse::<usize>()
            && number % 2 == 0
        {
            fs::remove_file(entry.path()).unwrap();
        }
        assert!(seen.insert(name.clone()), "{name} came twice");
    }
    assert_eq!(seen.len(), MANY + 1);
    assert_eq!(fs::read_dir(mount.at("d")).unwrap().count(), MANY / 2 + 1);
    assert_eq!(client.keys().len(), MANY / 2 + 1);
    mount.sh("rm -r d");
    mount.end();
    assert_eq!(client.everything(), [""; 0]);
}

#[test]
fn memory_that_is_mapped_is_the_file() {
    needs("python3", "python3");
    let server = Server::new();
    let mut client = server.client();
    client.run(&["SET", "s", &"0123456789".repeat(1000)]);
    client.run(&["HSET", "h", "f", &"0123456789".repeat(1000)]);
    let mount = Mount::new(&server);
    for name in ["s", "h.f"] {
        mount.sh(&format!(
            "python3 -c '
import mmap
with open(\"{name}\", \"r+b\") as file, mmap.mmap(file.fileno(), 0) as memory:
    assert memory[9990:] == b\"0123456789\"
    memory[5000:5003] = b\"abc\"
    memory.flush()
    assert open(\"{name}\", \"rb\").read()[4999:5004] == b\"9abc3\"
    memory[0:1] = b\"X\"
'"
        ));
    }
    let (string, field) = (client.get("s"), client.say("HGET h f").bytes());
    for value in [string, field] {
        assert_eq!(value.len(), 10_000);
        assert_eq!((&value[..3], &value[4999..5004]), (&b"X12"[..], &b"9abc3"[..]));
    }
}
