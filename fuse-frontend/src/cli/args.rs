//! The command line as `clap` reads it, with the examples that its help teaches.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use dbmount_engine::gridfs;

use crate::nodes;

const ABOUT: &str = "Mount a database as a filesystem: a Redis keyspace as files, a GridFS bucket as a tree, a POSIX \
     volume kept in Redis";

const EXAMPLES: &str = "\
Examples:
  dbmount mount redis://127.0.0.1:6379/0 /mnt/redis   mount, and return when it answers
  ls /mnt/redis; echo hello > /mnt/redis/greeting     keys are files, `:` is `/`
  dbmount umount /mnt/redis                           unmount

  dbmount format 'redis://127.0.0.1:6379/0?volume=home'
  dbmount mount 'redis://127.0.0.1:6379/0?volume=home' /mnt/home
                                                      a POSIX filesystem whose disk is Redis

  dbmount fsck 'redis://127.0.0.1:6379/0?volume=home' check it; --repair mends it

  dbmount mount mongodb://127.0.0.1/db.bucket /mnt/bucket
                                                      a GridFS bucket, beside its drivers

  dbmount mount -f mem: /mnt/scratch                  nothing to install, gone at unmount

`dbmount help mount` tells about sources and options.";

const MOUNT_EXAMPLES: &str = "\
Sources:
  redis://[USER:PASSWORD@]HOST[:PORT][/DB]   a Redis server over TCP
  unix:///PATH/TO/redis.sock[?db=DB]         a Redis server over a unix socket
  mongodb://[USER:PASSWORD@]HOST[:PORT]/DB.BUCKET
                                             a GridFS bucket; several hosts of a replica
                                             set are separated by commas
  redis://HOST[:PORT][/DB]?volume=NAME       a volume, made by `dbmount format`; with a socket:
                                             unix:///PATH?db=DB&volume=NAME
  mem: (or mem:volume)                       a volume on a simulated Redis in this process, gone
                                             at unmount
  mem:keys, mem:gridfs                       a keyspace, a bucket on simulated servers

Examples:
  dbmount mount redis://127.0.0.1:6379/0 /mnt/redis
  dbmount mount --read-only --prefix user: redis://cache.example.com /mnt/users
  DBMOUNT_PASSWORD=secret dbmount mount redis://db.example.com /mnt/redis
  dbmount mount --password-file /etc/dbmount.pw unix:///run/redis/redis.sock /mnt/redis
  dbmount mount --chunk-size 1M 'mongodb://a,b,c/media.fs?replicaSet=rs0' /mnt/media
  dbmount mount --node a --node b --db media --coll fs /mnt/media   as GridFUSE had it
  dbmount mount -f -v mem: /mnt/scratch              stay in the foreground, log to the terminal
  dbmount mount -o ro,allow_other,prefix=user: redis://127.0.0.1 /mnt/users

In /etc/fstab (after `ln -s $(which dbmount) /sbin/mount.dbmount`):
  redis://127.0.0.1/0  /mnt/redis  dbmount  _netdev,nofail,password-file=/etc/dbmount.pw  0 0

Mount options (-o), as mount(8) passes them:
  ro rw suid nosuid dev nodev exec noexec atime noatime relatime strictatime sync async dirsync
  allow_other allow_root default_permissions fsname=NAME subtype=NAME
  auto noauto user users nouser owner group defaults _netdev nofail x-*   (taken, and ignored)
  Long options without their dashes work here too: prefix=user:, timeout=10, uid=1000

The password is taken from --password-file, else from the URL, else from DBMOUNT_PASSWORD. It is
never shown: not in `ps`, not in /proc/mounts, not in the log.

Exit status: 0 mounted (with -f: unmounted cleanly), 1 failed, 2 wrong usage.
As mount.dbmount, called by mount(8): 0, 32 failed, 1 wrong usage.

Signals: SIGTERM and SIGINT write everything back and unmount; a second one gives up on writing
back. SIGUSR1 logs what is in progress.";

const FORMAT_EXAMPLES: &str = "\
Examples:
  dbmount format 'redis://127.0.0.1:6379/0?volume=home'
  dbmount format --capacity 20G --inodes 1000000 'unix:///run/redis/redis.sock?db=0&volume=shared'

A volume that is there already is never touched. The server must not evict keys (maxmemory-policy
noeviction); see `--force`. The root of the volume belongs to whoever makes it.

Exit status: 0 made, 1 failed, 2 wrong usage.";

const FSCK_HELP: &str = "\
Reads every record of the volume, not the contents, and names all that does not fit together: the
path, what is wrong, and the key. Nothing is changed without --repair.

Examples:
  dbmount fsck redis://127.0.0.1/0?volume=home
  dbmount fsck --repair unix:///run/redis/redis.sock?volume=home

Exit status, as of fsck(8): 0 clean, 1 mended, 4 something is left, 8 it could not be checked,
16 wrong usage.";

const UMOUNT_EXAMPLES: &str = "\
Examples:
  dbmount umount /mnt/redis
  dbmount umount --lazy /mnt/redis    take it away although programs still use it

Exit status: 0 unmounted, 1 failed, 2 wrong usage.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  dbmount mount --record /tmp/session.log redis://127.0.0.1 /mnt/redis
  dbmount replay /tmp/session.log
  dbmount replay --trace --until 500 /tmp/session.log

Exit status: 0 everything came out as recorded, 1 it did not or the log cannot be read, 2 wrong
usage. A log that was torn by a crash is played up to the tear.";

const SELFTEST_EXAMPLES: &str = "\
Examples:
  dbmount selftest --layout gridfs
  dbmount selftest --layout volume --seeds 1000000 --seed 7000000

Nothing outside this process is touched. A failure is told with its seed, the shortest sequence of
steps that shows it, and logs for `dbmount replay`.

Exit status: 0 nothing was wrong, 1 something was, 2 wrong usage.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "dbmount", version, about = ABOUT, after_help = EXAMPLES)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Mount a database on a directory
    #[command(after_long_help = MOUNT_EXAMPLES, after_help = "`dbmount help mount` has examples.")]
    Mount(Box<MountArgs>),
    /// Make a volume on a Redis server
    #[command(after_help = FORMAT_EXAMPLES)]
    Format(FormatArgs),
    /// Check a volume, and with --repair mend it; nothing may have it mounted then
    #[command(after_help = FSCK_HELP)]
    Fsck(FsckArgs),
    /// Remove at once what mounts of a volume remove in the background
    #[command(after_help = "What deleted and rewritten files left is removed by every mount, a \
        little at a time; this does it now, and may be stopped and run again.\n\
        Exit status: 0 done, 1 failed, 2 wrong usage.")]
    Gc(VolumeArgs),
    /// Tell how a volume was made, how full it is, and who has it mounted
    Info(InfoArgs),
    /// Unmount a directory
    #[command(alias = "unmount", after_help = UMOUNT_EXAMPLES)]
    Umount(UmountArgs),
    /// Play a recorded session again, without a server, and compare what comes of it
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Play random operations, accidents and crashes on a simulated server, and compare with what
    /// POSIX says
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(SelftestArgs),
    /// The process that serves a mount; started by `mount`, which hands it everything on its
    /// standard input. The arguments only say in `ps` what it serves.
    #[command(hide = true)]
    Serve {
        /// For `ps`.
        source: Option<String>,
        /// For `ps`.
        directory: Option<PathBuf>,
    },
}

/// `dbmount mount`.
#[derive(Clone, Debug, Args)]
pub(super) struct MountArgs {
    /// What to mount (`redis://HOST[:PORT][/DB][?volume=NAME]`, `unix:///PATH[?db=DB]`,
    /// `mongodb://HOST/DB.BUCKET`, `mem:`), and the directory to mount it on. With --node, the
    /// directory alone
    #[arg(value_names = ["SOURCE", "DIR"], num_args = 1..=2, required = true)]
    pub place: Vec<OsString>,

    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// Mount options as mount(8) passes them, separated by commas
    #[arg(short = 'o', long = "options", value_name = "OPT,…", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Log more; twice for every operation, three times for every request of the kernel
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log and show only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Log to this file. In the background the default is $XDG_STATE_HOME/dbmount/DIR.log, or
    /// /var/log/dbmount/DIR.log for root
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,

    /// Allow no changes
    #[arg(long)]
    pub read_only: bool,
    /// Let other users in (permissions still count)
    #[arg(long)]
    pub allow_other: bool,
    /// Owner of what has no owner of its own [default: you]
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Group of what has no group of its own [default: yours]
    #[arg(long, value_name = "GID")]
    pub gid: Option<u32>,
    /// Permission bits, in octal, taken from what has no mode of its own
    #[arg(long, value_name = "OCTAL", default_value = "022", value_parser = octal)]
    pub umask: u16,

    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How long an operation may wait for the server
    #[arg(long, value_name = "SECS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
    /// Fail operations with an error when the server does not answer in time (the default)
    #[arg(long)]
    pub soft: bool,
    /// Bytes of file contents to keep in memory, such as 64M or 1G
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub cache_size: usize,

    /// Record the session in this file, for `dbmount replay`; it will hold all that is read and
    /// written
    #[arg(long, value_name = "FILE", help_heading = "Recording")]
    pub record: Option<PathBuf>,
    /// Leave contents of files out of the record: only their lengths. Names, symlink targets,
    /// attributes and extended attributes are in it all the same
    #[arg(long, requires = "record", help_heading = "Recording")]
    pub record_sizes_only: bool,

    /// Show only the keys that begin with this, without it
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "Keys")]
    pub prefix: String,
    /// What separates directories in a key
    #[arg(long, value_name = "TEXT", default_value = ":", value_parser = delimiter, help_heading = "Keys")]
    pub delimiter: String,
    /// Refuse to make files with names like this (such as .DS_Store or '._*'); repeatable
    #[arg(long, value_name = "PATTERN", help_heading = "Keys")]
    pub ignore: Vec<String>,
    /// Where modes, owners and times are kept that Redis has no place for
    #[arg(long, value_enum, default_value_t = AttrStore::Stored, help_heading = "Keys")]
    pub attrs: AttrStore,
    /// New files with this suffix are strings and never hash fields; repeatable
    #[arg(long, value_name = "SUFFIX", default_value = ".lock", help_heading = "Keys")]
    pub string_suffix: Vec<String>,
    /// Let lists, sets, sorted sets and streams be removed
    #[arg(long, help_heading = "Keys")]
    pub allow_delete: bool,

    /// A server of the bucket, `[mongodb://]HOST[:PORT][/DB[/COLL]]`, in place of SOURCE;
    /// repeatable for the members of a replica set
    #[arg(long, value_name = "CONNECTION", help_heading = "GridFS")]
    pub node: Vec<String>,
    /// The database, whatever SOURCE or --node say [default: gridfs]
    #[arg(long, value_name = "DATABASE", help_heading = "GridFS")]
    pub db: Option<String>,
    /// The bucket, whatever SOURCE or --node say [default: fs]
    #[arg(long, value_name = "COLLECTION", help_heading = "GridFS")]
    pub coll: Option<String>,
    /// Bytes in a chunk of a new file, 4K to 8M; existing files keep theirs
    #[arg(long, value_name = "SIZE", default_value = "256K", value_parser = chunk_size,
          help_heading = "GridFS")]
    pub chunk_size: u32,
    /// How many old revisions of a rewritten file to keep for drivers that ask for them
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "GridFS")]
    pub keep_revisions: u32,

    /// Use a server although it may evict keys when its memory is full, and files with them
    #[arg(long, help_heading = "Volumes")]
    pub force: bool,
}

impl MountArgs {
    /// What to mount, and on which directory.
    ///
    /// # Errors
    /// One line that says what is missing or too much.
    pub(super) fn source_and_directory(&self) -> Result<(String, PathBuf), String> {
        let (db, coll) = (self.db.as_deref(), self.coll.as_deref());
        let (source, directory) = match (&self.node[..], &self.place[..]) {
            ([], [source, directory]) => {
                let source = source.to_str().ok_or("the source is not UTF-8")?;
                (nodes::with_namespace(source, db, coll)?, directory)
            }
            ([], _) => return Err("name what to mount and a directory: SOURCE DIR".to_owned()),
            (nodes, [directory]) => (nodes::connection_string(nodes, db, coll)?, directory),
            _ => return Err("--node stands in place of SOURCE: name only a directory".to_owned()),
        };
        Ok((source, PathBuf::from(directory)))
    }
}

/// `dbmount format`.
#[derive(Clone, Debug, Args)]
pub(super) struct FormatArgs {
    /// Where to make it: `redis://HOST[:PORT][/DB]?volume=NAME`, `unix:///PATH?db=DB&volume=NAME`
    pub source: String,
    /// Bytes of a data block, a power of two from 4K to 16M
    #[arg(long, value_name = "SIZE", default_value = "128K", value_parser = size)]
    pub block_size: usize,
    /// The most that all files may hold together, such as 20G [default: what the server's memory
    /// holds]. A sparse file counts with its length
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub capacity: Option<usize>,
    /// The most files, directories and links there may be [default: no limit]
    #[arg(long, value_name = "N")]
    pub inodes: Option<u64>,
    /// Use a server although it may evict keys when its memory is full, and files with them
    #[arg(long)]
    pub force: bool,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How long to wait for the server
    #[arg(long, value_name = "SECS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
}

/// Which volume, for commands that are done to one.
#[derive(Clone, Debug, Args)]
pub(super) struct VolumeArgs {
    /// Which: `redis://HOST[:PORT][/DB]?volume=NAME`, `unix:///PATH?db=DB&volume=NAME`
    pub source: String,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// How long the server may take for an answer
    #[arg(long, value_name = "SECS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
}

/// `dbmount fsck`.
#[derive(Clone, Debug, Args)]
pub(super) struct FsckArgs {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// Mend what can be mended without losing contents; what has no name goes to /lost+found
    #[arg(long)]
    pub repair: bool,
    /// Mend although a mount seems to be alive
    #[arg(long, requires = "repair")]
    pub force: bool,
}

/// `dbmount info`.
#[derive(Clone, Debug, Args)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    pub volume: VolumeArgs,
    /// As one JSON object, in bytes and nanoseconds
    #[arg(long)]
    pub json: bool,
}

/// `dbmount replay`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReplayArgs {
    /// A log that `mount --record` has written
    pub file: PathBuf,
    /// Print what happened and what came of it, a line each
    #[arg(short, long)]
    pub trace: bool,
    /// Stop after so many inputs
    #[arg(long, value_name = "N")]
    pub until: Option<u64>,
}

/// `dbmount selftest`.
#[derive(Clone, Debug, Args)]
pub(super) struct SelftestArgs {
    /// What to play on
    #[arg(long, value_enum)]
    pub layout: SelftestLayout,
    /// How many seeds to play
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

/// What a selftest plays on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SelftestLayout {
    /// A Redis keyspace
    Keys,
    /// A GridFS bucket on a replica set
    Gridfs,
    /// A GridFS bucket on a standalone server
    GridfsStandalone,
    /// A volume in Redis
    Volume,
}

/// Where attributes are kept that the server has no place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AttrStore {
    /// On the server, under the prefix `.dbmount:`
    Stored,
    /// In memory, until unmounted
    Session,
}

/// `dbmount umount`.
#[derive(Clone, Debug, Args)]
pub(super) struct UmountArgs {
    /// The directory that something is mounted on
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Take it out of the tree now, and let go of it when the last program does
    #[arg(short = 'z', long, visible_short_alias = 'l')]
    pub lazy: bool,
}

fn octal(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 => Ok(bits),
        _ => Err("an octal number from 000 to 777 is wanted, such as 022".to_owned()),
    }
}

fn delimiter(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("at least one character is wanted, such as : or /".to_owned());
    }
    Ok(text.to_owned())
}

/// A number of bytes: digits and, if wanted, K, M, G or T (powers of 1024).
fn size(text: &str) -> Result<usize, String> {
    let upper = text.to_ascii_uppercase();
    let plain = upper.trim_end_matches('B').trim_end_matches('I');
    let (digits, shift) = match plain.char_indices().last() {
        Some((at, 'K')) => (&plain[..at], 10),
        Some((at, 'M')) => (&plain[..at], 20),
        Some((at, 'G')) => (&plain[..at], 30),
        Some((at, 'T')) => (&plain[..at], 40),
        _ => (plain, 0),
    };
    digits
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number of bytes is wanted, such as 1048576, 512K, 64M or 1G".to_owned())
}

fn chunk_size(text: &str) -> Result<u32, String> {
    let bytes = u32::try_from(size(text)?).unwrap_or(u32::MAX);
    if gridfs::CHUNK_SIZES.contains(&bytes) {
        return Ok(bytes);
    }
    let (least, most) = (gridfs::CHUNK_SIZES.start() >> 10, gridfs::CHUNK_SIZES.end() >> 20);
    Err(format!("a size from {least}K to {most}M is wanted: a chunk is one document"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("17", 17), ("512k", 512 << 10), ("64M", 64 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1X", "99999999999T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_chunk_fits_into_a_document() {
        assert_eq!(chunk_size("255K"), Ok(255 << 10));
        for text in ["1K", "0", "9M", "4G", "x"] {
            assert!(chunk_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_stand_in_place_of_a_source() {
        let parse = |words: &[&str]| {
            let words = ["dbmount", "mount"].iter().chain(words);
            match Cli::try_parse_from(words).map_err(|error| error.to_string())?.command {
                Command::Mount(args) => args.source_and_directory(),
                _ => Err("no mount".to_owned()),
            }
        };
        let place = |source: &str| Ok((source.to_owned(), PathBuf::from("/m")));
        assert_eq!(parse(&["mem:", "/m"]), place("mem:"));
        assert_eq!(parse(&["--node=h", "/m"]), place("mongodb://h/gridfs.fs"));
        let two = ["--node", "a", "--node", "b", "--db", "d", "--coll", "c", "/m"];
        assert_eq!(parse(&two), place("mongodb://a,b/d.c"));
        assert_eq!(parse(&["--coll", "c", "mongodb://h/d", "/m"]), place("mongodb://h/d.c"));
        for words in [&["/m"][..], &["--node=h", "mem:", "/m"], &["--db=x", "mem:", "/m"], &[]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn umasks_are_octal() {
        assert_eq!(octal("022"), Ok(0o022));
        assert_eq!(octal("777"), Ok(0o777));
        for text in ["", "8", "1000", "-1", "rwx"] {
            assert!(octal(text).is_err(), "{text}");
        }
    }
}
