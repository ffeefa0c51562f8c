//! `-o` as mount(8) and mount.fuse pass it, and the argument order of a mount helper.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::kernel::MountOptions;

/// What the words of `-o` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// How the kernel mounts. Its `fsname` counts only when [`named`](Self::named) is set.
    pub mount: MountOptions,
    /// `fsname=` was given.
    pub named: bool,
    /// `allow_root`: root and the owner may come in.
    pub root_only: bool,
    /// Keep access times (`atime`, `relatime`); `None` when nothing was said.
    pub atime: Option<bool>,
    /// Mark each access (`strictatime`).
    pub strict_atime: bool,
}

/// Options of mount(8) and fstab(5) that say nothing to a filesystem.
const IGNORED: [&str; 20] = [
    "rw",
    "async",
    "auto",
    "noauto",
    "user",
    "users",
    "nouser",
    "owner",
    "group",
    "defaults",
    "_netdev",
    "nofail",
    "default_permissions",
    "soft",
    "norelatime",
    "diratime",
    "nodiratime",
    "nolazytime",
    "silent",
    "loud",
];

/// Long options that may stand in `-o` too, with whether they take a value.
const LONG: [(&str, bool); 22] = [
    ("log", true),
    ("uid", true),
    ("gid", true),
    ("umask", true),
    ("password-file", true),
    ("timeout", true),
    ("cache-size", true),
    ("prefix", true),
    ("delimiter", true),
    ("ignore", true),
    ("attrs", true),
    ("string-suffix", true),
    ("allow-delete", false),
    ("record", true),
    ("record-sizes-only", false),
    ("node", true),
    ("db", true),
    ("coll", true),
    ("chunk-size", true),
    ("keep-revisions", true),
    ("quiet", false),
    ("verbose", false),
];

/// Understands the words of `-o`. A later word overrules an earlier one, as in mount(8).
///
/// # Errors
/// One line that names the word that is not understood.
pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Flags, String> {
    let mut flags = Flags::default();
    for word in words {
        apply(&mut flags, word.as_ref())?;
    }
    Ok(flags)
}

fn apply(flags: &mut Flags, word: &str) -> Result<(), String> {
    let mount = &mut flags.mount;
    match word {
        "" => {}
        "ro" => mount.read_only = true,
        "rw" => mount.read_only = false,
        "suid" => mount.suid = true,
        "nosuid" => mount.suid = false,
        "dev" => mount.dev = true,
        "nodev" => mount.dev = false,
        "exec" => mount.exec = true,
        "noexec" => mount.exec = false,
        "sync" => mount.sync = true,
        "async" => mount.sync = false,
        "dirsync" => mount.dirsync = true,
        "noatime" => (mount.noatime, flags.atime) = (true, Some(false)),
        "atime" | "relatime" | "strictatime" => {
            (mount.noatime, flags.atime) = (false, Some(true));
            flags.strict_atime = word == "strictatime";
        }
        "nostrictatime" => flags.strict_atime = false,
        "allow_other" => mount.allow_other = true,
        "allow_root" => (mount.allow_other, flags.root_only) = (true, true),
        "remount" => {
            return Err("a mounted filesystem cannot be changed (-o remount); \
                        unmount it and mount it again"
                .to_owned());
        }
        _ => match word.split_once('=') {
            Some(("fsname", name)) => {
                name.clone_into(&mut mount.fsname);
                flags.named = true;
            }
            Some(("subtype", name)) => name.clone_into(&mut mount.subtype),
            Some(("comment", _)) => {}
            _ if word.starts_with("x-") || word.starts_with("X-") || IGNORED.contains(&word) => {}
            _ => {
                return Err(format!(
                    "the mount option {word:?} is not known; `dbmount help mount` lists them"
                ));
            }
        },
    }
    Ok(())
}

/// What the program was called to do, as arguments for `clap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Program name, subcommand, arguments.
    pub arguments: Vec<OsString>,
    /// Called as a helper of mount(8), whose exit statuses it then speaks.
    pub helper: bool,
    /// Only check (`mount -f`).
    pub fake: bool,
}

/// Brings the ways in which mount(8) and mount.fuse(8) call a helper into the order of the
/// command line:
///
/// - `mount.dbmount SOURCE DIR [-sfnv] [-N SPACE] [-o OPTIONS] [-t TYPE]`
/// - `dbmount SOURCE DIR [-o OPTIONS]`
///
/// and takes long options out of `-o`.
#[must_use]
pub fn invocation(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let mut given = arguments.into_iter();
    let program = given.next().unwrap_or_else(|| "dbmount".into());
    let called = Path::new(&program).file_name().unwrap_or_default();
    let helper = called.as_bytes().starts_with(b"mount.");
    let rest: Vec<OsString> = given.collect();
    let mut arguments = vec![OsString::from("dbmount")];
    let mut fake = false;
    if helper {
        arguments.push("mount".into());
        let mut words = rest.into_iter();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"-f" => fake = true,
                // Sloppiness and /etc/mtab: there is nothing of either here.
                b"-n" | b"-s" => {}
                b"-t" | b"-N" => drop(words.next()),
                _ => arguments.push(word),
            }
        }
    } else {
        if rest.first().is_some_and(|first| looks_like_source(first)) {
            arguments.push("mount".into());
        }
        arguments.extend(rest);
    }
    if arguments.get(1).is_some_and(|command| command == "mount") {
        arguments = lift_long_options(arguments);
    }
    Invocation { arguments, helper, fake }
}

fn looks_like_source(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    bytes.starts_with(b"mem:") || bytes.windows(3).any(|three| three == b"://")
}

/// `-o ro,prefix=a` becomes `-o ro --prefix=a`: one definition for both ways to say it.
fn lift_long_options(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(arguments.len());
    let mut words = arguments.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            out.push(word);
            out.extend(words);
            break;
        }
        let list = match word.as_bytes() {
            b"-o" | b"--options" => match words.next() {
                Some(list) => list,
                None => {
                    out.push(word);
                    break;
                }
            },
            [b'-', b'o', list @ ..] => OsStr::from_bytes(list).to_owned(),
            _ => {
                out.push(word);
                continue;
            }
        };
        let Some(list) = list.to_str() else {
            out.extend(["-o".into(), list]);
            continue;
        };
        let (long, plain): (Vec<&str>, Vec<&str>) =
            list.split(',').partition(|option| is_long(option));
        if !plain.is_empty() {
            out.extend(["-o".into(), plain.join(",").into()]);
        }
        out.extend(long.into_iter().map(|option| OsString::from(format!("--{option}"))));
    }
    out
}

fn is_long(option: &str) -> bool {
    LONG.iter().any(|(name, valued)| match option.split_once('=') {
        Some((given, _)) => *valued && given == *name,
        None => !*valued && option == *name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> Result<Flags, String> {
        parse(&list.split(',').collect::<Vec<_>>())
    }

    #[test]
    fn the_options_of_mount_mean_what_they_say() {
        type Check = fn(&Flags) -> bool;
        let table: [(&str, Check); 18] = [
            ("", |f| *f == Flags::default()),
            ("rw,auto,noauto,user,_netdev,nofail,x-systemd.automount,defaults", |f| {
                *f == Flags::default()
            }),
            ("ro", |f| f.mount.read_only),
            ("ro,rw", |f| !f.mount.read_only),
            ("suid,dev", |f| f.mount.suid && f.mount.dev),
            ("suid,dev,nosuid,nodev", |f| !f.mount.suid && !f.mount.dev),
            ("noexec", |f| !f.mount.exec),
            ("noexec,exec", |f| f.mount.exec),
            ("noatime", |f| f.mount.noatime && f.atime == Some(false)),
            ("relatime", |f| !f.mount.noatime && f.atime == Some(true)),
            ("strictatime", |f| f.strict_atime && f.atime == Some(true)),
            ("strictatime,relatime", |f| !f.strict_atime && f.atime == Some(true)),
            ("sync,dirsync", |f| f.mount.sync && f.mount.dirsync),
            ("allow_other", |f| f.mount.allow_other && !f.root_only),
            ("allow_root", |f| f.mount.allow_other && f.root_only),
            ("default_permissions", |f| *f == Flags::default()),
            ("fsname=a=b", |f| f.named && f.mount.fsname == "a=b"),
            ("subtype=other", |f| f.mount.subtype == "other" && !f.named),
        ];
        for (list, check) in table {
            let flags = parsed(list).unwrap();
            assert!(check(&flags), "{list}: {flags:?}");
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        for list in ["bogus", "ro,bogus", "bogus=1,rw", "RO"] {
            let word = list.split(',').find(|word| !["ro", "rw"].contains(word)).unwrap();
            let error = parsed(list).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(parsed("remount,ro").unwrap_err().contains("unmount it"));
    }

    fn order(words: &str) -> String {
        let call = invocation(words.split(' ').map(OsString::from));
        let words: Vec<_> = call.arguments.iter().map(|word| word.to_str().unwrap()).collect();
        let marks = [(call.helper, " [helper]"), (call.fake, " [fake]")];
        let marks = marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark);
        words.join(" ") + &marks.collect::<String>()
    }

    #[test]
    fn every_way_to_be_called_comes_to_one_order() {
        for (given, wanted) in [
            ("dbmount mount mem: /m", "dbmount mount mem: /m"),
            ("dbmount mem: /m -o ro", "dbmount mount mem: /m -o ro"),
            ("/usr/bin/dbmount redis://h/0 /m", "dbmount mount redis://h/0 /m"),
            (
                "/sbin/mount.dbmount redis://h /m -n -s -o rw,prefix=a -t dbmount",
                "dbmount mount redis://h /m -o rw --prefix=a [helper]",
            ),
            ("mount.dbmount mem: /m -f -v", "dbmount mount mem: /m -v [helper] [fake]"),
            ("dbmount mount -f mem: /m", "dbmount mount -f mem: /m"),
            ("dbmount umount /m", "dbmount umount /m"),
            ("dbmount", "dbmount"),
            ("dbmount --help", "dbmount --help"),
            ("dbmount mount -oro,uid=3 mem: /m", "dbmount mount -o ro --uid=3 mem: /m"),
            ("dbmount mount -o allow-delete mem: /m", "dbmount mount --allow-delete mem: /m"),
            ("dbmount mount -o prefix mem: /m", "dbmount mount -o prefix mem: /m"),
            ("dbmount mount -- -o uid=3", "dbmount mount -- -o uid=3"),
            ("dbmount mount mem: /m -o", "dbmount mount mem: /m -o"),
        ] {
            assert_eq!(order(given), wanted, "{given}");
        }
    }
}
