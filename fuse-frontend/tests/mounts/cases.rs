//! What is tried on real mounts, one function each.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{
    CWD, RenameFlags, XattrFlags, getxattr, getxattr_query, listxattr, listxattr_query,
    renameat_with, setxattr,
};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::place::{Place, end, signal, text, until};

/// A test gets a place of its own.
pub(crate) type Test = fn(&Place);

/// All of them, by name.
pub(crate) const TESTS: [(&str, Test); 15] = [
    ("files_and_directories", files_and_directories),
    ("large_directories_are_listed_whole", large_directories_are_listed_whole),
    ("attributes_and_times", attributes_and_times),
    ("extended_attributes", extended_attributes),
    ("locks_and_seeks_work_in_the_kernel", locks_and_seeks_work_in_the_kernel),
    ("invalidations_reach_the_kernel", invalidations_reach_the_kernel),
    ("the_background_answers_before_the_command_returns", background),
    ("the_foreground_ends_with_a_signal", foreground),
    ("mount_calls_it_as_a_helper", as_a_mount_helper),
    ("a_write_back_error_is_an_exit_status", write_back_error),
    ("no_secret_is_shown", no_secret_is_shown),
    ("a_dead_mount_is_taken_over", a_dead_mount_is_taken_over),
    ("a_panic_leaves_no_dead_mount", a_panic_leaves_no_dead_mount),
    ("a_busy_mount_is_taken_away", a_busy_mount_is_taken_away),
    ("mistakes_are_said_in_one_line", mistakes_are_said_in_one_line),
];

fn files_and_directories(place: &Place) {
    place.mount(&[]);
    fs::write(place.at("f"), "hello").unwrap();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "hello");
    let mut file = File::options().append(true).open(place.at("f")).unwrap();
    file.write_all(b" world").unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "hello world");
    fs::write(place.at("f"), "new").unwrap();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "new", "O_TRUNC");

    let large: Vec<u8> = (0..5_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    fs::write(place.at("large"), &large).unwrap();
    assert!(fs::read(place.at("large")).unwrap() == large);

    fs::create_dir(place.at("d")).unwrap();
    fs::rename(place.at("f"), place.at("d/g")).unwrap();
    fs::write(place.at("h"), "h").unwrap();
    let (g, h) = (place.at("d/g"), place.at("h"));
    let exists = renameat_with(CWD, &g, CWD, &h, RenameFlags::NOREPLACE);
    assert_eq!(exists, Err(Errno::EXIST));
    renameat_with(CWD, &g, CWD, &h, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(&g).unwrap(), "h");
    assert_eq!(fs::remove_dir(place.at("d")).unwrap_err().raw_os_error(), Some(39), "ENOTEMPTY");
    fs::remove_file(&g).unwrap();
    fs::remove_dir(place.at("d")).unwrap();
    assert!(!place.at("d").exists());

    symlink("h", place.at("link")).unwrap();
    assert_eq!(fs::read_link(place.at("link")).unwrap(), Path::new("h"));
    fs::hard_link(&h, place.at("hard")).unwrap();
    assert_eq!(fs::metadata(&h).unwrap().nlink(), 2);
    let odd = OsStr::new("odd \u{fc}\n name");
    fs::write(place.point.join(odd), "").unwrap();
    let names: Vec<_> =
        fs::read_dir(&place.point).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.iter().any(|name| name == odd));

    let figures = rustix::fs::statvfs(&place.point).unwrap();
    assert_eq!((figures.f_blocks * figures.f_frsize, figures.f_namemax), (1 << 30, 255));
}

fn large_directories_are_listed_whole(place: &Place) {
    const MANY: usize = 3000;
    place.mount(&[]);
    for number in 0..MANY {
        // Names of many lengths, so that pages end at every place of the buffer.
        let name = format!("{number:05}{}", "x".repeat(number % 97));
        File::create(place.at(&name)).unwrap();
    }
    for _ in 0..2 {
        let mut names: Vec<_> =
            fs::read_dir(&place.point).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), MANY);
    }
    // With attributes (`ls -l`).
    let listed = Command::new("ls").arg("-l").arg(&place.point).output().unwrap();
    assert_eq!(text(&listed.stdout).lines().count(), MANY + 1);
}

fn attributes_and_times(place: &Place) {
    place.mount(&[]);
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    File::create(place.at("f")).unwrap();
    fs::create_dir(place.at("d")).unwrap();
    rustix::process::umask(old);
    assert_eq!(fs::metadata(place.at("f")).unwrap().mode(), 0o100_640, "the umask is applied");
    assert_eq!(fs::metadata(place.at("d")).unwrap().mode(), 0o040_750);
    fs::set_permissions(place.at("f"), PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().mode(), 0o104_755);

    for (given, seconds, nanos) in [
        ("2020-01-02 03:04:05.678901234 UTC", 1_577_934_245, 678_901_234),
        ("1969-12-31 23:59:58.25 UTC", -2, 250_000_000),
    ] {
        let touched = Command::new("touch").args(["-d", given]).arg(place.at("f")).status();
        assert!(touched.unwrap().success());
        let meta = fs::metadata(place.at("f")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanos));
        assert_eq!((meta.atime(), meta.atime_nsec()), (seconds, nanos));
    }
    fs::write(place.at("f"), [0; 1025]).unwrap();
    let meta = fs::metadata(place.at("f")).unwrap();
    assert_eq!((meta.size(), meta.blocks()), (1025, 3));
    File::options().write(true).open(place.at("f")).unwrap().set_len(10).unwrap();
    assert_eq!(fs::metadata(place.at("f")).unwrap().size(), 10);

    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, place.at("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(fs::metadata(place.at("fifo")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(place.at("fifo")).unwrap().uid(), rustix::process::getuid().as_raw());
}

fn extended_attributes(place: &Place) {
    place.mount(&[]);
    let file = place.at("f");
    File::create(&file).unwrap();
    setxattr(&file, "user.a", b"12345", XattrFlags::CREATE).unwrap();
    assert_eq!(setxattr(&file, "user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&file, "user.b", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(getxattr_query(&file, "user.a"), Ok(5), "no buffer asks for the length");
    assert_eq!(getxattr(&file, "user.a", &mut [0u8; 4]), Err(Errno::RANGE));
    let mut value = [0u8; 9];
    assert_eq!(getxattr(&file, "user.a", &mut value), Ok(5));
    assert_eq!(&value[..5], b"12345");
    assert_eq!(getxattr(&file, "user.none", &mut value), Err(Errno::NODATA));
    assert_eq!(listxattr_query(&file), Ok(7));
    assert_eq!(listxattr(&file, &mut [0u8; 3]), Err(Errno::RANGE));
    rustix::fs::removexattr(&file, "user.a").unwrap();
    assert_eq!(listxattr_query(&file), Ok(0));
    // Answered by the machine's timer alone.
    assert_eq!(getxattr(&file, "user.test.sleep", &mut value), Ok(5));
}

fn locks_and_seeks_work_in_the_kernel(place: &Place) {
    use rustix::fs::{FlockOperation, SeekFrom, fcntl_lock, flock, seek};
    place.mount(&[]);
    fs::write(place.at("f"), "0123456789").unwrap();
    let one = File::options().read(true).write(true).open(place.at("f")).unwrap();
    let two = File::options().read(true).write(true).open(place.at("f")).unwrap();
    flock(&one, FlockOperation::LockExclusive).unwrap();
    assert_eq!(flock(&two, FlockOperation::NonBlockingLockExclusive), Err(Errno::AGAIN));
    fcntl_lock(&one, FlockOperation::NonBlockingLockExclusive).unwrap();
    // Asked twice: the first answer is for the whole life of the mount.
    for _ in 0..2 {
        assert_eq!(seek(&one, SeekFrom::Data(3)), Ok(3));
        assert_eq!(seek(&one, SeekFrom::Hole(3)), Ok(10));
        assert_eq!(seek(&one, SeekFrom::Data(10)), Err(Errno::NXIO));
    }
    // Not there, and not said for good of anything else.
    let grow = rustix::fs::fallocate(&one, rustix::fs::FallocateFlags::empty(), 0, 20);
    assert_eq!(grow, Err(Errno::OPNOTSUPP));
    fs::copy(place.at("f"), place.at("copy")).unwrap();
    assert_eq!(fs::read_to_string(place.at("copy")).unwrap(), "0123456789");
}

fn invalidations_reach_the_kernel(place: &Place) {
    place.mount(&[]);
    for name in ["f", "g"] {
        fs::write(place.at(name), "ours").unwrap();
        assert_eq!(fs::read_to_string(place.at(name)).unwrap(), "ours");
    }
    let open = File::open(place.at("f")).unwrap();
    let root = place.point.as_path();
    setxattr(root, "user.test.change", b"f", XattrFlags::empty()).unwrap();
    until(|| open.metadata().unwrap().len() == 18);
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "changed by another");
    setxattr(root, "user.test.remove", b"g", XattrFlags::empty()).unwrap();
    until(|| !place.at("g").exists());
}

fn background(place: &Place) {
    let said = place.mount(&["-o", "noatime,noexec,_netdev", "--read-only"]);
    assert_eq!(said, "dbmount: this is a test\n");
    let (fsname, kind, options) = place.mounted_as().unwrap();
    assert_eq!((fsname.as_str(), kind.as_str()), ("redis://h:1/0", "fuse.dbmount"));
    for option in ["ro", "noatime", "noexec", "nosuid", "nodev", "default_permissions"] {
        assert!(options.split(',').any(|given| given == option), "{option} in {options}");
    }
    assert_eq!(fs::write(place.at("f"), "").unwrap_err().raw_os_error(), Some(30), "EROFS");

    let point = place.point.to_str().unwrap();
    let again = place.run(&["mount", "redis://h:1/0", point]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(
        text(&again.stderr),
        format!(
            "dbmount: {point} has redis://h:1/0 (fuse.dbmount) mounted on it already; unmount \
             that first or name another directory\n"
        )
    );
    let gone = place.run(&["umount", point]);
    assert!(gone.status.success(), "{}", text(&gone.stderr));
    assert!(!place.is_mounted());
    until(|| place.log().contains("everything is written back"));
    let twice = place.run(&["umount", point]);
    assert_eq!(twice.status.code(), Some(1));
    assert_eq!(text(&twice.stderr), format!("dbmount: nothing is mounted on {point}\n"));
}

fn foreground(place: &Place) {
    fs::write(place.at("hidden"), "").unwrap();
    for end_signal in [Signal::TERM, Signal::INT] {
        let mut child = place.mount_child("mem:", &["-o", "fsname=named"]);
        assert_eq!(place.mounted_as().unwrap().0, "named");
        until(|| !place.at("hidden").exists());
        signal(&child, Signal::USR1);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let hidden = lines.next().unwrap();
        assert!(hidden.contains("is not empty; what is in it is hidden"), "{hidden}");
        assert!(lines.any(|line| line.contains("0 operations in progress")));
        signal(&child, end_signal);
        let last = lines.last().unwrap();
        assert!(last.contains("everything is written back"), "{last}");
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!place.is_mounted());
    }
}

fn as_a_mount_helper(place: &Place) {
    let helper = place.root.path().join("mount.dbmount");
    symlink(std::env::current_exe().unwrap(), &helper).unwrap();
    let point = place.point.to_str().unwrap();
    let call = |words: &[&str]| {
        let mut command = std::process::Command::new(&helper);
        let output = command.args(words).env("XDG_STATE_HOME", place.root.path()).output();
        let output = output.unwrap();
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(call(&["mem:", point, "-f", "-o", "rw"]).0, Some(0), "only a check");
    assert!(!place.is_mounted());
    let (status, said) = call(&["mem:", point, "-n", "-o", "ro,nofail,prefix=a:", "-t", "dbmount"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(place.mounted_as().unwrap().2.starts_with("ro,"));
    assert_eq!(call(&["mem:", point]).0, Some(32), "mounted already");
    assert_eq!(call(&["mem:", point, "-o", "bogus"]).0, Some(1));
}

fn write_back_error(place: &Place) {
    let child = place.mount_child("mem:", &[]);
    let root = place.point.as_path();
    setxattr(root, "user.test.fail-detach", b"", XattrFlags::empty()).unwrap();
    signal(&child, Signal::TERM);
    let (status, said) = end(child);
    assert_eq!(status, 1, "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("dbmount: not everything could be written back: "), "{said}");
    assert!(!place.is_mounted());
}

fn no_secret_is_shown(place: &Place) {
    const SECRET: &str = "s3cret";
    let password = |place: &Place| {
        let mut value = [0u8; 64];
        let len = getxattr(place.point.as_path(), "user.test.password", &mut value).unwrap();
        text(&value[..len])
    };
    let shows = |pid: u32| {
        ["cmdline", "environ"].iter().any(|file| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            text(&bytes).contains(SECRET)
        })
    };
    // In the URL, in the foreground.
    let child = place.mount_child(&format!("redis://:{SECRET}@h/0"), &[]);
    assert_eq!(place.mounted_as().unwrap().0, "redis://h/0");
    assert!(!shows(child.id()));
    signal(&child, Signal::TERM);
    let (status, said) = end(child);
    assert!(status == 0 && !said.contains(SECRET), "{said}");

    // In the environment.
    let point = place.point.to_str().unwrap();
    let mut command = place.command(&["mount", "-f", "-vvv", "redis://h/0", point]);
    let child = command.env("DBMOUNT_PASSWORD", SECRET).stderr(Stdio::piped()).spawn().unwrap();
    until(|| place.is_mounted());
    assert!(!shows(child.id()));
    assert_eq!(password(place), SECRET);
    signal(&child, Signal::TERM);
    let (status, said) = end(child);
    assert_eq!(status, 0);
    let ours = said.lines().filter(|line| !line.contains(" fuser"));
    assert!(ours.filter(|line| line.contains(SECRET)).count() == 0, "{said}");

    // In a file.
    let file = place.root.path().join("password");
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    place.mount(&["-o", &format!("password-file={}", file.display())]);
    assert_eq!(password(place), SECRET);
    assert!(!place.log().contains(SECRET));
}

fn a_dead_mount_is_taken_over(place: &Place) {
    let mut child = place.mount_child("mem:", &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::metadata(&place.point).unwrap_err().raw_os_error(), Some(107), "ENOTCONN");
    let said = place.mount(&[]);
    assert!(said.contains("took over") && said.contains("a dead mount of mem:volume"), "{said}");
    fs::write(place.at("f"), "alive").unwrap();

    // And `umount` takes away one that nobody takes over.
    dbmount::mountpoint::unmount(&place.point, false).unwrap();
    let mut child = place.mount_child("mem:", &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.run(&["umount", place.point.to_str().unwrap()]).status.success());
    assert!(!place.is_mounted());
}

fn a_panic_leaves_no_dead_mount(place: &Place) {
    place.mount(&[]);
    assert!(fs::metadata(place.at("panic")).is_err());
    until(|| !place.is_mounted());
    until(|| place.log().contains("asked for by a test"));
}

fn a_busy_mount_is_taken_away(place: &Place) {
    let child = place.mount_child("mem:", &[]);
    let point = place.point.to_str().unwrap();
    let busy = File::create(place.at("f")).unwrap();
    let refused = place.run(&["umount", point]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use"), "{}", text(&refused.stderr));
    signal(&child, Signal::TERM);
    let (status, said) = end(child);
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("is in use; it is taken out of the tree now"), "{said}");
    assert!(!place.is_mounted());
    drop(busy);

    let child = place.mount_child("mem:", &[]);
    let busy = File::create(place.at("f")).unwrap();
    assert!(place.run(&["umount", "--lazy", point]).status.success());
    assert!(!place.is_mounted());
    drop(busy);
    // The last user is gone, so the process ends by itself.
    assert_eq!(end(child).0, 0);
}

fn mistakes_are_said_in_one_line(place: &Place) {
    let point = place.point.to_str().unwrap();
    let file = place.root.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let table: [(&[&str], i32, &str); 14] = [
        (&["mount", "localhost", point], 2, "\"localhost\" is not a source; examples: redis://"),
        (&["mount", "mongodb+srv://h/d.b", point], 2, "mongodb+srv:// is not there yet"),
        (&["mount", "-o", "bogus", "mem:", point], 2, "the mount option \"bogus\" is not known"),
        (&["mount", "mem:"], 2, "name what to mount and a directory: SOURCE DIR"),
        (&["mount", "--nonsense", "mem:", point], 2, "unexpected argument '--nonsense' found"),
        (&["mount", "--umask", "9", "mem:", point], 2, "an octal number"),
        (&["mount", "--timeout", "0", "mem:", point], 2, "0 is not in 1..=86400"),
        (&["mount", "mem:", "/no/such"], 1, "/no/such does not exist; make it with `mkdir -p"),
        (&["mount", "mem:", file], 1, "is not a directory"),
        (&["mount", "--password-file", "/no/such", "mem:", point], 1, "the password file /no/such"),
        (&["mount", "--log", "/proc/no", "mem:", point], 1, "the log file /proc/no"),
        (&["mount", "redis://unreachable", point], 1, "does not answer; is it running?"),
        (&["mount", "redis://refused", point], 1, "the password is wrong; name it with"),
        (&["umount", "/proc"], 1, "/proc has proc (proc) on it, which is not ours"),
    ];
    for (words, status, said) in table {
        for more in [None, Some("-f")] {
            if more.is_some() && words[0] == "umount" {
                continue;
            }
            let mut words = words.to_vec();
            words.extend(more);
            let output = place.run(&words);
            let line = text(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{words:?}: {line}");
            assert!(line.starts_with("dbmount: ") && line.contains(said), "{words:?}: {line}");
            assert_eq!(line.lines().count(), 1, "{words:?}: {line}");
            assert!(!place.is_mounted());
        }
    }
}
