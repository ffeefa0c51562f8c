//! `--record`: the session of a mount, written to a file as it happens.
//!
//! A [`Recording`] stands between the driver and the engine and puts what goes in and comes out
//! into a queue; contents are shared, not copied. A thread of its own turns that into a log. It is
//! woken once for many inputs, since a wake-up costs more than all the rest.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dbmount_engine::backend::Backend;
use dbmount_engine::decide::Caps;
use dbmount_engine::engine::{Credit, Engine, InFlight, Progress};
use dbmount_engine::replay::{Recipe, Recorded, Recorder};
use dbmount_engine::{Input, Mono, Now, Output, Request};

use crate::machine::{Machine, Wire};
use crate::mountpoint::plain;

/// Bytes that wait for the writer; the mount waits while there are more.
const MOST: usize = 32 << 20;
/// With so many bytes waiting the writer is woken.
const WAKE: usize = 1 << 20;
/// The longest that anything waits for the writer.
const AGE: Duration = Duration::from_millis(50);
/// What one entry is taken to weigh beside its contents.
const ENTRY: usize = 256;
/// How long a process that has to end waits for the writer.
const LAST: Duration = Duration::from_secs(5);

/// What the user wants recorded, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The log; it must not exist.
    pub file: PathBuf,
    /// Contents of files are replaced by zeros.
    pub sizes_only: bool,
}

/// An engine whose session may be recorded.
#[derive(Debug)]
pub struct Recording<L: Recorded> {
    engine: Engine<L>,
    log: Option<Log<L>>,
}

#[derive(Debug)]
struct Log<L: Recorded> {
    queue: Arc<Queue<L::Backend>>,
    /// Of the input at hand.
    outputs: Vec<Output<L::Backend>>,
    /// An input was handed in, and not all of its outputs are taken.
    open: bool,
}

/// Makes the engine of a recipe, and starts the log if one is wanted.
///
/// # Errors
/// One line that says why the file cannot be written.
pub fn start<L>(
    recipe: &Recipe<L>,
    wanted: Option<&Record>,
) -> Result<(Recording<L>, Writer), String>
where
    L: Recorded + Send + 'static,
    L::Backend: Wire,
{
    let engine = recipe.engine();
    let Some(wanted) = wanted else {
        return Ok((Recording { engine, log: None }, Writer { end: None }));
    };
    let shown = wanted.file.display();
    let failed = |error: &io::Error| format!("--record {shown}: {}", plain(error));
    // It holds what the mount holds, so nobody else may read it.
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&wanted.file);
    let file = open.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("--record {shown}: it exists already, and a log is never written over")
        }
        _ => failed(&error),
    })?;
    let program = concat!("dbmount ", env!("CARGO_PKG_VERSION"));
    let recorder = Recorder::new(recipe, program, !wanted.sizes_only)
        .map_err(|error| format!("--record {shown}: {error}"))?;
    let queue = Arc::new(Queue::default());
    let thread = std::thread::Builder::new().name("record".into());
    let run = {
        let (queue, path) = (Arc::clone(&queue), wanted.file.clone());
        move || write_log(&queue, recorder, file, &path)
    };
    let thread = thread.spawn(run).map_err(|error| failed(&error))?;
    let closer: Arc<dyn Close> = queue.clone();
    // A process serves one mount.
    let _first = CURRENT.set(Arc::clone(&closer));
    let log = Log { queue, outputs: Vec::new(), open: false };
    let recording = Recording { engine, log: Some(log) };
    Ok((recording, Writer { end: Some((closer, thread)) }))
}

/// The end of a log.
pub struct Writer {
    end: Option<(Arc<dyn Close>, JoinHandle<()>)>,
}

impl Writer {
    /// Waits until all there is has been written; hands through how serving ended.
    pub fn of<T>(self, served: T) -> T {
        if let Some((queue, thread)) = self.end {
            queue.close();
            // A writer that panicked has ended the process.
            let _ended = thread.join();
        }
        served
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", if self.end.is_some() { "writing" } else { "none" })
    }
}

static CURRENT: OnceLock<Arc<dyn Close>> = OnceLock::new();

/// Writes what there is before the process ends in a panic: the input that led to it above all.
pub fn save_before_exit() {
    if let Some(queue) = CURRENT.get() {
        queue.close();
        queue.wait_written();
    }
}

trait Close: Send + Sync {
    fn close(&self);
    fn wait_written(&self);
}

#[derive(Debug)]
enum Item<B: Backend> {
    Input(Now, Input<B>),
    Outputs(Vec<Output<B>>),
}

#[derive(Debug)]
struct Queue<B: Backend> {
    state: Mutex<State<B>>,
    /// There is enough to be written, or the end.
    ready: Condvar,
    /// Something was taken away, or written.
    room: Condvar,
}

#[derive(Debug)]
struct State<B: Backend> {
    items: Vec<Item<B>>,
    bytes: usize,
    closed: bool,
    written: bool,
    /// Nothing can be written any more, and nobody should wait.
    failed: bool,
}

impl<B: Backend> Default for Queue<B> {
    fn default() -> Self {
        let (items, bytes) = (Vec::new(), 0);
        let state = State { items, bytes, closed: false, written: false, failed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new(), room: Condvar::new() }
    }
}

impl<B: Backend> Queue<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the writer is too far behind.
    fn push(&self, item: Item<B>, bytes: usize) {
        let mut state = self.lock();
        while state.bytes > MOST && !state.failed && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed || state.closed {
            return;
        }
        let (before, empty) = (state.bytes, state.items.is_empty());
        state.items.push(item);
        state.bytes += ENTRY + bytes;
        if empty || (before < WAKE && state.bytes >= WAKE) {
            self.ready.notify_one();
        }
    }

    /// What has come together; `None` when the session is over and all is taken.
    fn take(&self) -> Option<Vec<Item<B>>> {
        let mut state = self.lock();
        while state.items.is_empty() && !state.closed {
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        // The first item is there; the rest of a burst comes along.
        let few = |state: &mut State<B>| state.bytes < WAKE && !state.closed;
        let waited = self.ready.wait_timeout_while(state, AGE, few);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        if state.items.is_empty() {
            return None;
        }
        state.bytes = 0;
        self.room.notify_all();
        Some(std::mem::take(&mut state.items))
    }

    fn end(&self, failed: bool) {
        let mut state = self.lock();
        (state.failed, state.written) = (failed, true);
        state.items = Vec::new();
        self.room.notify_all();
    }
}

impl<B: Wire> Close for Queue<B> {
    fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
        self.room.notify_all();
    }

    fn wait_written(&self) {
        let state = self.lock();
        let waited = self.room.wait_timeout_while(state, LAST, |state| !state.written);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn write_log<L: Recorded>(
    queue: &Queue<L::Backend>,
    mut recorder: Recorder<L>,
    mut file: File,
    path: &Path,
) {
    let written = (|| -> Result<(), String> {
        let mut save = |recorder: &mut Recorder<L>, all: bool| {
            file.write_all(&recorder.take(all)).map_err(|error| plain(&error))
        };
        save(&mut recorder, true)?;
        while let Some(items) = queue.take() {
            for item in items {
                let put = match item {
                    Item::Input(now, input) => recorder.input(now, &input),
                    Item::Outputs(outputs) => recorder.outputs(&outputs),
                };
                put.map_err(|error| error.to_string())?;
                save(&mut recorder, false)?;
            }
            save(&mut recorder, true)?;
        }
        Ok(())
    })();
    if let Err(why) = &written {
        tracing::error!(
            "--record {}: {why}; nothing more is recorded, and the mount goes on without",
            path.display()
        );
    }
    queue.end(written.is_err());
}

impl<L> Machine for Recording<L>
where
    L: Recorded + Send + 'static,
    L::Backend: Wire,
{
    type Backend = L::Backend;

    fn handle(&mut self, now: Now, input: Input<L::Backend>) {
        if let Some(log) = &mut self.log {
            // Before it is handled, so that an input that the engine dies of is in the log.
            log.queue.push(Item::Input(now, input.clone()), weight::<L>(&input));
            log.open = true;
        }
        self.engine.handle(now, input);
    }

    fn poll(&mut self) -> Option<Output<L::Backend>> {
        let output = self.engine.poll();
        if let Some(log) = &mut self.log {
            match &output {
                Some(output) => log.outputs.push(output.clone()),
                None if log.open => {
                    log.open = false;
                    // Their contents are those of inputs, and weigh nothing of their own.
                    let outputs = std::mem::take(&mut log.outputs);
                    let bytes = outputs.len() * ENTRY;
                    log.queue.push(Item::Outputs(outputs), bytes);
                }
                None => {}
            }
        }
        output
    }

    fn poll_timeout(&self) -> Option<Mono> {
        self.engine.poll_timeout()
    }

    fn credit(&self) -> Credit {
        self.engine.credit()
    }

    fn in_flight(&self) -> Vec<InFlight> {
        self.engine.in_flight()
    }

    fn progress(&self) -> Progress {
        self.engine.progress()
    }

    fn caps(&self) -> Caps {
        self.engine.layout().caps()
    }
}

/// The contents that an input keeps in memory while it waits for the writer.
fn weight<L: Recorded>(input: &Input<L::Backend>) -> usize {
    match input {
        Input::Request(_, Request::Write { data, .. }) => data.len(),
        Input::Replies(_, Ok(replies)) => replies.iter().map(L::weigh).sum(),
        _ => 0,
    }
}
