//! Runs a procedure over a whole volume (`dbmount fsck` and its kin) on a real server: the same
//! driver and connections as a mount's, with the procedure in the engine's place.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use dbmount_engine::backend::redis::{Command, Redis};
use dbmount_engine::contract::Link;
use dbmount_engine::decide::Caps;
use dbmount_engine::engine::{Credit, InFlight, Progress};
use dbmount_engine::volume::tool::Tool;
use dbmount_engine::{Batch, BatchId, Input, Lane, Mode, Mono, Now, Output};
use dbmount_transport_redis::{Endpoint, Options};

use crate::driver::Driver;
use crate::machine::{Clock, Machine};

/// Runs it to its end and gives it back; `watch` is told how far it is after each batch.
///
/// # Errors
/// One line: the server cannot be used, was lost, or did not answer a batch within `timeout`; or
/// the procedure cannot go on.
pub fn run<T: Tool + Send + 'static>(
    endpoint: Endpoint,
    options: Options,
    tool: T,
    timeout: Duration,
    mut watch: impl FnMut(&Progress),
) -> Result<T, String> {
    let (events, told) = channel();
    let machine = Running {
        tool: Some(tool),
        out: VecDeque::new(),
        batches: 0,
        timeout,
        mono: Mono::default(),
        events,
    };
    let driver = Driver::start(machine, Clock::start(), |driver| {
        crate::redis::connect(endpoint, options, driver)
    });
    let driver: Arc<Driver<Running<T>>> = driver.map_err(|error| error.to_string())?;
    let ended = follow(&told, timeout, &mut watch);
    driver.shutdown();
    ended
}

fn follow<T>(
    told: &Receiver<Event<T>>,
    timeout: Duration,
    watch: &mut impl FnMut(&Progress),
) -> Result<T, String> {
    loop {
        match told.recv_timeout(timeout) {
            Ok(Event::Further(progress)) => watch(&progress),
            Ok(Event::Ended(tool)) => return Ok(tool),
            Ok(Event::Failed(line)) => return Err(line),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = timeout.as_secs();
                return Err(format!("the server did not answer within {seconds} s (--timeout)"));
            }
            Err(RecvTimeoutError::Disconnected) => return Err("it ended unasked".to_owned()),
        }
    }
}

enum Event<T> {
    Further(Progress),
    Ended(T),
    Failed(String),
}

/// The procedure in the driver's hands.
struct Running<T> {
    /// Taken when it has ended.
    tool: Option<T>,
    out: VecDeque<Output<Redis>>,
    batches: u64,
    timeout: Duration,
    mono: Mono,
    events: Sender<Event<T>>,
}

impl<T: Tool> Running<T> {
    fn go_on(&mut self) {
        let Some(tool) = &mut self.tool else { return };
        match tool.poll() {
            Some(commands) => self.submit(commands),
            None => {
                if let Some(tool) = self.tool.take() {
                    self.tell(Event::Ended(tool));
                }
            }
        }
    }

    fn submit(&mut self, commands: Vec<Command>) {
        self.batches += 1;
        self.out.push_back(Output::Submit(Batch {
            id: BatchId(self.batches),
            lane: Lane::Meta,
            mode: Mode::Ordered,
            deadline: self.mono.after(self.timeout),
            commands,
        }));
    }

    fn fail(&mut self, line: String) {
        if self.tool.take().is_some() {
            self.tell(Event::Failed(line));
        }
    }

    /// Whoever does not listen any more has given up.
    fn tell(&self, event: Event<T>) {
        let _heard = self.events.send(event);
    }
}

impl<T: Tool + Send + 'static> Machine for Running<T> {
    type Backend = Redis;

    fn handle(&mut self, now: Now, input: Input<Redis>) {
        self.mono = now.mono;
        match input {
            Input::Link(Lane::Meta, Link::Up { .. }) if self.batches == 0 => self.go_on(),
            Input::Link(_, Link::Down(line) | Link::Refused(line)) => self.fail(line),
            Input::Replies(_, Ok(replies)) => {
                let Some(tool) = &mut self.tool else { return };
                match tool.handle(replies) {
                    Ok(()) => {
                        let progress = tool.progress();
                        self.tell(Event::Further(progress));
                        self.go_on();
                    }
                    Err(line) => self.fail(line),
                }
            }
            Input::Replies(_, Err(_)) => self.fail("the connection was lost".to_owned()),
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Output<Redis>> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    fn credit(&self) -> Credit {
        Credit { ops: 0, bytes: 0 }
    }

    fn in_flight(&self) -> Vec<InFlight> {
        Vec::new()
    }

    fn caps(&self) -> Caps {
        // There is no kernel to ask.
        Caps::LEAST
    }

    fn progress(&self) -> Progress {
        self.tool
            .as_ref()
            .map_or(Progress { finished: true, ..Progress::default() }, Tool::progress)
    }
}

impl<T> fmt::Debug for Running<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("batches", &self.batches).finish_non_exhaustive()
    }
}
