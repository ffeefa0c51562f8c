//! `dbmount mount`: from arguments to a running mount, in the foreground or the background.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dbmount_engine::Config;

use super::Failure;
use super::args::{AttrStore, MountArgs};
use super::options::{self, Flags};
use crate::driver::Driver;
use crate::handoff::{Handoff, News, PASSWORD_VARIABLE, PipeReport};
use crate::logging::{self, Verbosity};
use crate::machine::Machine;
use crate::mountpoint::{self, plain};
use crate::record::Record;
use crate::session::{self, Plan, Report};
use crate::source::{
    GridfsOptions, KeysOptions, Opener, Serve, Settings, Source, VolumeOptions, read_password,
};
use crate::terminal::Terminal;

/// What the arguments ask for, checked as far as that needs neither server nor kernel.
struct Wanted {
    source: Source,
    directory: PathBuf,
    flags: Flags,
    read_only: bool,
}

impl Wanted {
    fn of(args: &MountArgs) -> Result<Self, Failure> {
        let (source, directory) = args.source_and_directory().map_err(Failure::Usage)?;
        let source = Source::parse(&source).map_err(Failure::Usage)?;
        let mut flags = options::parse(&args.options).map_err(Failure::Usage)?;
        if !flags.named {
            flags.mount.fsname = source.to_string();
        }
        flags.mount.allow_other |= args.allow_other;
        flags.mount.read_only |= args.read_only;
        let read_only = flags.mount.read_only;
        Ok(Wanted { source, directory, flags, read_only })
    }
}

/// What the user's command does: serve in the foreground, or start the server and wait until the
/// mount answers.
pub(super) fn run(
    opener: &impl Opener,
    args: &MountArgs,
    arguments: Vec<OsString>,
) -> Result<(), Failure> {
    let wanted = Wanted::of(args)?;
    let password = std::env::var_os(PASSWORD_VARIABLE);
    let shown = wanted.source.to_string();
    let secret = wanted.source.has_secret() || password.is_some();
    if args.foreground && !secret {
        return serve(opener, args, None);
    }
    let handoff = Handoff { arguments, password };
    if args.foreground {
        // The command line and environment of a process are for everyone to see.
        return Err(Failure::Failed(handoff.become_server(&shown, &wanted.directory)));
    }
    start(args, &handoff, &shown, &wanted.directory)
}

/// Starts the server in the background and waits for its news.
fn start(
    args: &MountArgs,
    handoff: &Handoff,
    shown: &str,
    directory: &Path,
) -> Result<(), Failure> {
    let mut terminal = Terminal::new(args.quiet);
    let mut server = handoff.start_server(shown, directory).map_err(Failure::Failed)?;
    let mut ready = false;
    while let Some(news) = server.news() {
        match news {
            News::Progress(progress) => terminal.progress(&progress),
            News::Note(line) => terminal.note(&line),
            News::Failed(line) => return Err(Failure::Failed(line)),
            News::Ready => ready = true,
        }
        // The mount answers while its names are still being read; who watches is shown the rest.
        if ready && !terminal.is_watched() {
            break;
        }
    }
    if ready {
        return Ok(());
    }
    let end = server.wait().map_or_else(|error| plain(&error), |status| status.to_string());
    Err(Failure::Failed(format!("the serving process ended before the mount answered ({end})")))
}

/// The serving process: everything that `mount` hands over, until the mount is gone.
pub(super) fn serve_handed_over(
    opener: &impl Opener,
    args: &MountArgs,
    password: Option<OsString>,
) -> Result<(), Failure> {
    if args.foreground {
        return serve(opener, args, password);
    }
    let mut report = PipeReport::new();
    // Away from the terminal: its signals and its end are not for this process.
    let detached = rustix::process::setsid().map_err(|error| plain(&error.into()));
    let served = detached.map_err(Failure::Failed).and_then(|_session| {
        let server = Server::prepare(args, password)?;
        let log = match &args.log {
            Some(file) => std::path::absolute(file).map_err(|error| failed(&error))?,
            None => logging::default_file(&server.plan.point).map_err(Failure::Failed)?,
        };
        logging::to_file(&log, server.verbosity).map_err(Failure::Failed)?;
        // No directory of the user's is kept busy.
        std::env::set_current_dir("/").map_err(|error| failed(&error))?;
        server.run(opener, &mut report)
    });
    if let Err(failure) = &served {
        tracing::error!("{failure}");
        report.failed(&failure.to_string());
    }
    served
}

fn serve(
    opener: &impl Opener,
    args: &MountArgs,
    password: Option<OsString>,
) -> Result<(), Failure> {
    let server = Server::prepare(args, password)?;
    match &args.log {
        Some(file) => logging::to_file(file, server.verbosity).map_err(Failure::Failed)?,
        None => logging::to_stderr(server.verbosity),
    }
    server.run(opener, &mut Terminal::new(args.quiet))
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::Failed(plain(error))
}

/// Everything that is needed to serve.
struct Server {
    source: Source,
    settings: Settings,
    plan: Plan,
    verbosity: Verbosity,
}

impl Server {
    fn prepare(args: &MountArgs, password: Option<OsString>) -> Result<Self, Failure> {
        let wanted = Wanted::of(args)?;
        let settings = settings(args, &wanted, password)?;
        let ready = mountpoint::prepare(&wanted.directory).map_err(Failure::Failed)?;
        let plan = Plan {
            point: ready.path,
            options: wanted.flags.mount,
            root_only: wanted.flags.root_only,
            notes: ready.notes,
            timeout: settings.config.op_timeout,
        };
        let verbosity = Verbosity { quiet: args.quiet, more: args.verbose };
        Ok(Server { source: wanted.source, settings, plan, verbosity })
    }

    fn run(self, opener: &impl Opener, report: &mut dyn Report) -> Result<(), Failure> {
        session::end_on_panic(&self.plan.point);
        let serve = InSession { plan: &self.plan, report };
        opener.open(&self.source, &self.settings, serve).map_err(Failure::Failed)
    }
}

struct InSession<'a> {
    plan: &'a Plan,
    report: &'a mut dyn Report,
}

impl Serve for InSession<'_> {
    fn serve<M: Machine>(self, driver: Arc<Driver<M>>) -> Result<(), String> {
        session::serve(&driver, self.plan, self.report)
    }
}

/// The password from the file; else, where the source names none, that of the environment.
pub(super) fn choose_password(
    file: Option<&PathBuf>,
    variable: Option<OsString>,
    source: &Source,
) -> Result<Option<String>, Failure> {
    match (file, variable) {
        (Some(file), _) => read_password(file).map(Some).map_err(Failure::Failed),
        (None, Some(password)) if !source.has_password() => {
            let text = password.into_string();
            let text =
                text.map_err(|_| Failure::Usage(format!("{PASSWORD_VARIABLE} is not UTF-8")))?;
            Ok(Some(text))
        }
        (None, _) => Ok(None),
    }
}

fn settings(
    args: &MountArgs,
    wanted: &Wanted,
    password: Option<OsString>,
) -> Result<Settings, Failure> {
    let password = choose_password(args.password_file.as_ref(), password, &wanted.source)?;
    let config = Config {
        read_only: wanted.read_only,
        op_timeout: Duration::from_secs(u64::from(args.timeout)),
        cache_bytes: args.cache_size,
        atime: wanted.flags.atime.unwrap_or(Config::default().atime),
        strict_atime: wanted.flags.strict_atime,
        ..Config::default()
    };
    let keys = KeysOptions {
        prefix: args.prefix.clone(),
        delimiter: args.delimiter.clone(),
        ignore: args.ignore.clone(),
        session_attrs: args.attrs == AttrStore::Session,
        string_suffixes: args.string_suffix.clone(),
        allow_delete: args.allow_delete,
        uid: args.uid.unwrap_or_else(|| rustix::process::getuid().as_raw()),
        gid: args.gid.unwrap_or_else(|| rustix::process::getgid().as_raw()),
        umask: args.umask,
    };
    let gridfs = GridfsOptions { chunk_size: args.chunk_size, keep_revisions: args.keep_revisions };
    // The serving process goes to another directory.
    let absolute = |file: &PathBuf| std::path::absolute(file).map_err(|error| failed(&error));
    let file = args.record.as_ref().map(absolute).transpose()?;
    let record = file.map(|file| Record { file, sizes_only: args.record_sizes_only });
    let volume = VolumeOptions { format: None, force: args.force };
    Ok(Settings { config, keys, gridfs, volume, password, record })
}
