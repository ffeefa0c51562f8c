//! POSIX ACLs: who is let in, what `chmod` and the umask mean for them, and copies that keep them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::mount::{Mount, dbmount};
use crate::server::Server;
use crate::shell::{needs, run, sh};
use crate::volume;

/// A mount that others may use.
fn shared(url: &str) -> Mount {
    needs("setfacl", "acl");
    let mount = Mount::of(url, &["-o", "allow_other"], &[]);
    let dir = mount.point().parent().expect("a mount has a directory");
    fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("the directory is opened");
    mount
}

/// Tells how a script ends that somebody else runs.
const AS: &str = "as() {
    user=$1; shift
    runuser -u \"$user\" -- sh -c \"$*\" >/dev/null 2>&1 && echo yes || echo no
}
";

#[test]
fn who_is_named_is_let_in() {
    let server = Server::new();
    let url = volume(&server);
    let mount = shared(&url);
    let told = mount.sh(&format!(
        "{AS} umask 022
        echo text >f; chmod 600 f; mkdir d; chmod 700 d; echo text >d/in
        as nobody cat f; setfacl -m u:nobody:rw f; as nobody cat f; as nobody 'echo more >>f'
        as games cat f; setfacl -m g:games:r f; as games cat f; as games 'echo more >>f'
        as nobody ls d; setfacl -m u:nobody:x d; as nobody cat d/in; as nobody ls d
        setfacl -x u:nobody f; as nobody cat f; as games cat f
        setfacl -b f; as games cat f; stat -c %A f"
    ));
    let want = "no yes yes no yes no no yes no no yes no -rw-------";
    assert_eq!(told.split_whitespace().collect::<Vec<_>>().join(" "), want);
}

#[test]
fn chmod_and_the_mask_are_one() {
    let server = Server::new();
    let url = volume(&server);
    let mount = shared(&url);
    let told = mount.sh(&format!(
        "{AS} echo text >f; chmod 640 f; setfacl -m u:nobody:rw,g::- f
        getfacl -cE f; stat -c %a f; chmod 604 f; getfacl -cE f; as nobody cat f
        chmod 664 f; as nobody 'echo more >>f'; setfacl -m m::r f; stat -c %a f
        as nobody 'echo more >>f'; as nobody cat f; setfacl -m u::r f; stat -c '%a %A' f"
    ));
    // Where the mask is empty, Linux takes who is named for one of the others; and setfacl makes
    // a new mask. So it is on every filesystem.
    let want = "user::rw-\nuser:nobody:rw-\ngroup::---\nmask::rw-\nother::---\n\n660\n\
                user::rw-\nuser:nobody:rw-\ngroup::---\nmask::---\nother::r--\n\nyes\n\
                yes\n644\nno\nyes\n464 -r--rw-r--\n";
    assert_eq!(told, want);
}

/// And the other mount of the volume, and the next one, see them.
#[test]
fn default_lists_are_handed_on_instead_of_the_umask() {
    let server = Server::new();
    let url = volume(&server);
    let (mount, other) = (shared(&url), shared(&url));
    mount.sh("umask 077; mkdir d plain; setfacl -d -m u:nobody:rwx,g::rx,o::- d
        mkdir d/sub; echo text >d/file; mkfifo d/fifo; ln -s file d/link; echo text >plain/file
        umask 000; echo text >d/open; mkdir plain/dir");
    let list = "getfacl -cE d/sub d/file d/fifo d/open; stat -c '%a %n' plain/file plain/dir";
    let listed = |perm: &str, mask: &str, default: &str| {
        format!("user::{perm}\nuser:nobody:rwx\ngroup::r-x\nmask::{mask}\nother::---\n{default}\n")
    };
    let default = "default:user::rwx\ndefault:user:nobody:rwx\ndefault:group::r-x\n\
                   default:mask::rwx\ndefault:other::---\n";
    let want = listed("rwx", "rwx", default)
        + &listed("rw-", "rw-", "")
        + &listed("rw-", "rw-", "")
        + &listed("rw-", "rw-", "")
        + "600 plain/file\n777 plain/dir\n";
    assert_eq!(mount.sh(list), want);
    assert_eq!(other.sh(list), want);
    // A default list that another mount has set counts here at once.
    other.sh("setfacl -d -m u:games:r plain");
    crate::shell::until("the other's list is seen", || {
        mount.sh("rm -f plain/new; echo >plain/new; getfacl -cE plain/new").contains("games")
    });
    mount.end();
    other.end();
    assert_eq!(shared(&url).sh(list), want);
    let checked = dbmount(&["fsck", &url]);
    assert_eq!(checked.status, Some(0), "{}{}", checked.out, checked.err);
}

#[test]
fn rsync_and_tar_carry_lists_there_and_back() {
    needs("rsync", "rsync");
    let server = Server::new();
    let url = volume(&server);
    let mount = shared(&url);
    let local = tempfile::tempdir().expect("a directory");
    let (here, there) = (local.path().display(), mount.point().display());
    sh(
        local.path(),
        "mkdir -p a/sub && cd a && echo text >f && ln f hard && ln -s f soft
        truncate -s 3M sparse && printf end >>sparse
        setfattr -n user.note -v 'some text' f
        setfacl -m u:nobody:rw,g:games:r f
        setfacl -d -m u:nobody:rwx,o::- sub && echo text >sub/in && chmod 2770 sub",
    );
    let list = |dir: String| sh(dir.as_ref(), "getfacl -R . | sort; getfattr -Rd . | sort");
    let want = list(format!("{here}/a"));
    assert!(want.contains("default:user:nobody:rwx"), "{want}");
    for (from, to) in [
        (format!("{here}/a"), format!("{there}/there")),
        (format!("{there}/there"), format!("{here}/back")),
    ] {
        run(Command::new("rsync").args(["-aHAXS", &format!("{from}/"), &to])).ok();
        assert_eq!(list(to), want);
    }
    let again = ["-aHAXScni", &format!("{here}/a/"), &format!("{there}/there")];
    assert_eq!(run(Command::new("rsync").args(again)).ok(), "", "nothing is left to do");
    let tar = "tar --format=posix --xattrs --acls --sparse";
    mount.sh(&format!(
        "mkdir tar {here}/tar && {tar} -C {here}/a -c . | {tar} -pC tar -x
        {tar} -C tar -c . | {tar} -pC {here}/tar -x"
    ));
    assert_eq!(list(format!("{there}/tar")), want);
    assert_eq!(list(format!("{here}/tar")), want);
}
