//! What processes of one host see of each other's changes to a file: mapped, read and written; and
//! of what has lost its name.

use std::process::Command;

use crate::mount::Mount;
use crate::server::Server;
use crate::shell::run;
use crate::volume;

/// Two processes, one of which maps the file and the other reads and writes, then both map it.
const MAPPED: &str = r"
import mmap, os, sys
path, append = sys.argv[1], sys.argv[2] == 'append'
with open(path, 'wb') as f: f.write(b'.' * 300000)
there, back = os.pipe(), os.pipe()
def tell(pipe): os.write(pipe[1], b'x')
def hear(pipe): assert os.read(pipe[0], 1) == b'x'
child = os.fork()
if child == 0:
    try:
        fd = os.open(path, os.O_RDWR | (os.O_APPEND if append else 0))
        m = mmap.mmap(fd, 300000)
        assert m[:4] == b'....'
        tell(back); hear(there)
        assert m[1000:1005] == b'write', m[1000:1005]
        assert m[200000:200005] == b'write', m[200000:200005]
        m[5000:5006] = b'mapped'
        m[250000:250006] = b'mapped'
        tell(back); hear(there)
        assert m[9000:9004] == b'both', m[9000:9004]
        m[9000:9004] = b'same'
        tell(back); hear(there)
        m.flush()
        os._exit(0)
    finally:
        os._exit(1)
fd = os.open(path, os.O_RDWR)
hear(back)
os.pwrite(fd, b'write', 1000)
os.pwrite(fd, b'write', 200000)
tell(there); hear(back)
assert os.pread(fd, 6, 5000) == b'mapped'
assert os.pread(fd, 6, 250000) == b'mapped'
m = mmap.mmap(fd, 300000)
m[9000:9004] = b'both'
tell(there); hear(back)
assert m[9000:9004] == b'same'
assert os.pread(fd, 4, 9000) == b'same'
tell(there)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
";

fn python(script: &str, arguments: &[&str]) {
    run(Command::new("python3").args(["-c", script]).args(arguments)).ok();
}

#[test]
fn mapped_and_read_and_written_it_is_one_file() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let path = mount.at("mapped");
    python(MAPPED, &[path.to_str().expect("a path in UTF-8"), "plain"]);
    mount.end();
    let mount = Mount::of(&url, &[], &[]);
    let read = "cut -c 1001-1005,5001-5006,9001-9004,200001-200005,250001-250006 mapped";
    assert_eq!(mount.sh(read), "writemappedsamewritemapped\n", "and on the server");
}

/// A file that is open for appending can be mapped as well.
#[test]
fn what_is_appended_to_can_be_mapped() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let path = mount.at("mapped");
    python(MAPPED, &[path.to_str().expect("a path in UTF-8"), "append"]);
}

/// POSIX rmdir: a directory that somebody has open or stands in goes on to exist, and nothing can
/// be made in it.
#[test]
fn a_removed_directory_can_be_looked_at_while_it_is_open() {
    let server = Server::new();
    let url = volume(&server);
    let mount = Mount::of(&url, &[], &[]);
    let script = r"
import errno, os, sys
os.chdir(sys.argv[1])
os.mkdir('open'); os.mkdir('cwd'); os.mkdir('over'); os.mkdir('new')
fd, over = os.open('open', os.O_RDONLY), os.open('over', os.O_RDONLY)
before = os.fstat(fd)
os.rmdir('open')
os.rename('new', 'over')
for gone in fd, over:
    now = os.fstat(gone)
    assert now.st_nlink == 0, now
    assert (now.st_mode, now.st_uid) == (before.st_mode, before.st_uid), now
    assert os.listdir(gone) == []
assert os.fstat(fd).st_ino == before.st_ino
os.mkdir('open')
assert os.stat('open').st_nlink == 2 and os.fstat(fd).st_nlink == 0
os.chdir('cwd')
os.rmdir('../cwd')
assert os.stat('.').st_nlink == 0
for make in (lambda: os.mkdir('x'), lambda: open('x', 'w'), lambda: os.symlink('a', 'x')):
    try: make()
    except OSError as error: assert error.errno == errno.ENOENT, error
    else: assert False, 'made in a directory that is gone'
";
    python(script, &[mount.point().to_str().expect("a path in UTF-8")]);
}
