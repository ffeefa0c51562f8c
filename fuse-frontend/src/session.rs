//! The life of a mount: reach the server, mount, serve until a signal or an unmount, write
//! everything back, end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dbmount_engine::engine::Progress;
use dbmount_engine::op::Attached;
use dbmount_engine::{Errno, Request, Response};
use fuser::{Session, SessionACL};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use crate::adapter::Adapter;
use crate::driver::Driver;
use crate::kernel::{self, MountOptions};
use crate::machine::Machine;
use crate::mountpoint::{UnmountError, plain, unmount};

/// FUSE workers. One reads the next request while the other is in the engine; more made a single
/// client slower.
const WORKERS: usize = 2;
/// How often progress is looked at while there is any.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Added to the engine's own deadline before the driver stops believing that it will answer.
const GRACE: Duration = Duration::from_secs(5);
/// How long the workers may take to end once the kernel has let go of the mount.
const WORKERS_END: Duration = Duration::from_secs(2);

/// What to mount where.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory, canonical.
    pub point: PathBuf,
    /// How it is mounted.
    pub options: MountOptions,
    /// Besides the owner only root may come in (`allow_root`).
    pub root_only: bool,
    /// What the user should know about the directory, a line each.
    pub notes: Vec<String>,
    /// The engine's deadline for one operation.
    pub timeout: Duration,
}

/// Who is told how a mount comes along.
pub trait Report {
    /// Background work goes on, or is finished.
    fn progress(&mut self, progress: &Progress);
    /// Something the user should know once.
    fn note(&mut self, line: &str);
    /// The mount answers. `false` when whoever asked for it is gone, so that it is not wanted.
    fn ready(&mut self) -> bool;
    /// Nothing more will be reported. A failure is for the caller of [`serve`] to tell.
    fn close(&mut self);
}

/// Whether the mount is in the tree and ours, so that a panic knows what to take away.
static MOUNTED: AtomicBool = AtomicBool::new(false);

enum Event {
    /// A signal asks to end.
    Terminate,
    /// A signal asks what is going on.
    Status,
    /// The kernel let go of the mount.
    Ended(io::Result<()>),
}

/// Mounts, serves and unmounts. Returns when the mount is gone and everything is written back.
///
/// # Errors
/// One line that says what went wrong and what to do.
pub fn serve<M: Machine>(
    driver: &Arc<Driver<M>>,
    plan: &Plan,
    report: &mut dyn Report,
) -> Result<(), String> {
    let (sender, events) = channel();
    let signals = watch_signals(sender.clone()).map_err(|error| plain(&error))?;
    let result = serve_until_end(driver, plan, report, sender, &events);
    driver.shutdown();
    signals.close();
    result
}

fn serve_until_end<M: Machine>(
    driver: &Arc<Driver<M>>,
    plan: &Plan,
    report: &mut dyn Report,
    sender: Sender<Event>,
    events: &Receiver<Event>,
) -> Result<(), String> {
    driver.spawn_timer().map_err(|error| plain(&error))?;
    driver.spawn_interrupts().map_err(|error| plain(&error))?;
    let attached = attach(driver, plan, report, events)?;
    let mut options = plan.options.clone();
    options.read_only |= attached.read_only;
    for note in plan.notes.iter().chain(&attached.notes) {
        report.note(note);
    }
    let session = match connect_kernel(driver, plan, &options, sender) {
        Ok(session) => session,
        Err(line) => {
            // Nothing was written, but sessions on the server are to be given up.
            let _unmounted = detach(driver, plan, events);
            return Err(line);
        }
    };
    tracing::info!("{} is mounted on {}", options.fsname, plan.point.display());
    let ended = if report.ready() {
        run(driver, report, events)
    } else {
        tracing::warn!("the command that asked for this mount was interrupted");
        Err(Stop::Asked)
    };
    driver.invalidations().close();
    match ended {
        Ok(()) => tracing::info!("{} was unmounted", plan.point.display()),
        Err(Stop::Asked) => leave(plan, session, events),
        Err(Stop::Failed(error)) => {
            tracing::error!(%error, "the connection to the kernel failed");
            let _gone = unmount(&plan.point, true);
        }
    }
    MOUNTED.store(false, Ordering::SeqCst);
    // Unmounting comes first, so that this is the last word: nothing can be written any more.
    detach(driver, plan, events)?;
    tracing::info!("everything is written back");
    report.close();
    Ok(())
}

/// Asks the engine to reach its server, showing progress meanwhile.
fn attach<M: Machine>(
    driver: &Driver<M>,
    plan: &Plan,
    report: &mut dyn Report,
    events: &Receiver<Event>,
) -> Result<Attached, String> {
    let answer = driver.call(Request::Attach);
    let asked = Instant::now();
    loop {
        match answer.recv_timeout(PROGRESS_EVERY) {
            Ok(Ok(Response::Attached(attached))) => return Ok(attached),
            Ok(Ok(Response::Refused(line))) => return Err(line),
            Ok(Ok(other)) => {
                return Err(format!("the engine answered {other:?}; please report it"));
            }
            Ok(Err(errno)) => return Err(format!("the server cannot be used: {errno}")),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the engine gave up".to_owned()),
        }
        let progress = driver.progress();
        if let Ok(Event::Terminate) = events.try_recv() {
            return Err("interrupted before anything was mounted".to_owned());
        }
        if progress.done > 0 {
            // A long first index is not a server that does not answer.
            report.progress(&progress);
        } else if asked.elapsed() > plan.timeout + GRACE {
            return Err(format!(
                "the server did not answer within {} s; is it running and reachable?",
                plan.timeout.as_secs()
            ));
        }
    }
}

/// Mounts, exchanges the first words with the kernel, and starts the threads that serve it.
fn connect_kernel<M: Machine>(
    driver: &Arc<Driver<M>>,
    plan: &Plan,
    options: &MountOptions,
    sender: Sender<Event>,
) -> Result<JoinHandle<()>, String> {
    let device = kernel::mount(&plan.point, options)?;
    MOUNTED.store(true, Ordering::SeqCst);
    let started = start_session(driver, plan, device, sender);
    match started {
        Ok(session) => {
            kernel::raise_readahead(&plan.point);
            Ok(session)
        }
        Err(error) => {
            MOUNTED.store(false, Ordering::SeqCst);
            let _gone = unmount(&plan.point, true);
            Err(format!("the kernel does not accept the mount: {}", plain(&error)))
        }
    }
}

fn start_session<M: Machine>(
    driver: &Arc<Driver<M>>,
    plan: &Plan,
    device: std::os::fd::OwnedFd,
    sender: Sender<Event>,
) -> io::Result<JoinHandle<()>> {
    let mut config = fuser::Config::default();
    config.n_threads = Some(WORKERS);
    config.clone_fd = true;
    // The kernel itself lets in nobody but the owner unless the mount says `allow_other`.
    let acl = if plan.root_only { SessionACL::RootAndOwner } else { SessionACL::All };
    let session = Session::from_fd(Adapter::new(Arc::clone(driver)), device, acl, config)?;
    driver.invalidations().spawn(session.notifier())?;
    std::thread::Builder::new().name("session".into()).spawn(move || {
        // Nobody listens any more when the process is on its way out.
        let _gone = sender.send(Event::Ended(session.run()));
    })
}

/// Why serving stopped while the mount is still there.
enum Stop {
    Asked,
    Failed(io::Error),
}

/// Waits for the end of the mount; `Ok` when the kernel side is gone already.
fn run<M: Machine>(
    driver: &Driver<M>,
    report: &mut dyn Report,
    events: &Receiver<Event>,
) -> Result<(), Stop> {
    let mut indexing = true;
    loop {
        let event = if indexing {
            let progress = driver.progress();
            report.progress(&progress);
            if progress.finished {
                indexing = false;
                report.close();
            }
            match events.recv_timeout(PROGRESS_EVERY) {
                Err(RecvTimeoutError::Timeout) => continue,
                other => other.map_err(|_| ()),
            }
        } else {
            events.recv().map_err(|_| ())
        };
        match event {
            Ok(Event::Terminate) => return Err(Stop::Asked),
            Ok(Event::Status) => log_status(driver),
            Ok(Event::Ended(Ok(()))) => return Ok(()),
            Ok(Event::Ended(Err(error))) => return Err(Stop::Failed(error)),
            Err(()) => return Err(Stop::Failed(io::Error::other("the session thread is gone"))),
        }
    }
}

/// Unmounts on request. Files that are open stay with the programs that have them only until the
/// process ends, which it does as soon as everything is written back.
fn leave(plan: &Plan, session: JoinHandle<()>, events: &Receiver<Event>) {
    let shown = plan.point.display();
    match unmount(&plan.point, false) {
        Ok(()) => {
            // The workers end when the kernel closes the connection; give them that moment, so
            // that releases which are under way still reach the engine.
            let limit = Instant::now() + WORKERS_END;
            while !session.is_finished() && Instant::now() < limit {
                if let Ok(Event::Ended(_)) = events.recv_timeout(WORKERS_END) {
                    break;
                }
            }
        }
        Err(UnmountError::Busy) => {
            tracing::warn!(
                "{shown} is in use; it is taken out of the tree now, and programs that still have \
                 files open in it will get errors"
            );
            if let Err(error) = unmount(&plan.point, true) {
                tracing::error!("{shown} cannot be unmounted: {error}");
            }
        }
        Err(UnmountError::Other(error)) => {
            tracing::error!("{shown} cannot be unmounted: {error}");
        }
    }
}

/// Writes everything back. A second signal gives up on it.
fn detach<M: Machine>(
    driver: &Driver<M>,
    plan: &Plan,
    events: &Receiver<Event>,
) -> Result<(), String> {
    let answer = driver.call(Request::Detach);
    let asked = Instant::now();
    loop {
        match answer.recv_timeout(PROGRESS_EVERY) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(errno)) => {
                return Err(format!(
                    "not everything could be written back: {}; see the log for which files",
                    describe(errno)
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the engine gave up".to_owned()),
        }
        match events.try_recv() {
            Ok(Event::Terminate) => {
                return Err("ended by a second signal; what was not written back is lost".into());
            }
            Ok(Event::Status) => log_status(driver),
            Ok(Event::Ended(_)) | Err(_) => {}
        }
        if asked.elapsed() > plan.timeout + GRACE {
            return Err(format!(
                "the server did not take what was to be written back within {} s; it is lost",
                plan.timeout.as_secs()
            ));
        }
    }
}

fn describe(errno: Errno) -> String {
    let error = io::Error::from_raw_os_error(crate::convert::errno(errno).code());
    format!("{} ({errno})", plain(&error))
}

/// Answers `SIGUSR1`: what is pending goes to the log, for mounts that seem to hang.
fn log_status<M: Machine>(driver: &Driver<M>) {
    let pending = driver.in_flight();
    tracing::info!("{} operations in progress", pending.len());
    for op in pending {
        tracing::info!(
            "{:?} {} waits for {} for {} ms",
            op.op,
            op.what,
            op.waits_for,
            op.age.as_millis()
        );
    }
}

fn watch_signals(sender: Sender<Event>) -> io::Result<Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    let handle = signals.handle();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            let event = if signal == SIGUSR1 { Event::Status } else { Event::Terminate };
            if sender.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(handle)
}

/// A panic is a defect, and the state it leaves cannot be trusted: it is logged, the mount is
/// taken out of the tree so that no program hangs on it, and the process ends.
pub fn end_on_panic(point: &Path) {
    let point = point.to_owned();
    std::panic::set_hook(Box::new(move |info| {
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!("{info}\n{trace}");
        eprintln!("dbmount: internal error: {info}; please report it with the log");
        crate::record::save_before_exit();
        if MOUNTED.load(Ordering::SeqCst) {
            let _gone = unmount(&point, true);
        }
        std::process::exit(1);
    }));
}
