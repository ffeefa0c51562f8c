//! The thread of a lane: it connects, reads, delivers, and connects again.

use std::mem;
use std::thread;
use std::time::{Duration, Instant};

use dbmount_engine::backend::mongo::Mongo;
use dbmount_engine::contract::{Input, Link};

use super::Shared;
use super::job::Abilities;
use crate::connection::{Connection, Receiver, Sender};
use crate::error::Error;
use crate::hello::HelloReply;
use crate::topology::{Criteria, HandshakeStage, PoolGeneration};

/// After so many messages in a row the engine gets what there is.
const MESSAGES: usize = 64;

/// Runs a lane until it is closed.
pub(super) fn run(shared: &Shared) {
    let mut search = Search::default();
    while let Some((connection, generation)) = search.connect(shared) {
        let address = connection.address().clone();
        let (sender, mut receiver, hello) = connection.split();
        if !begin(shared, &sender, &hello) {
            return sender.close();
        }
        let error = converse(shared, &mut receiver);
        sender.close();
        hang_up(shared);
        if shared.is_closing() {
            return;
        }
        let stage = HandshakeStage::AfterHandshakeCompletes;
        let wire = hello.max_wire_version;
        shared.deployment.report(&address, generation, wire, stage, &error);
        if matches!(error, Error::Server(_)) {
            // It said that it is not the one to ask, and may be the only one there is.
            rest(shared, shared.options.pause);
        }
    }
}

/// Whether the lane is still open.
fn begin(shared: &Shared, sender: &Sender, hello: &HelloReply) -> bool {
    let mut state = shared.lock();
    if state.closing {
        return false;
    }
    state.pipe.connected(Abilities {
        numbers: shared.retry_writes && hello.has_transactions(),
        says_secondary: hello.set_name.is_some() && !hello.is_writable_primary && !hello.is_mongos,
    });
    state.sender = Some(sender.clone());
    // What the last connection left goes before what the engine sends again.
    state.send(shared.now_ms());
    let mut inputs = mem::take(&mut state.ready);
    drop(state);
    inputs.push(Input::Link(shared.lane, Link::Up { pushes: false }));
    shared.deliver(inputs);
    true
}

/// Reads until the connection is of no more use.
fn converse(shared: &Shared, receiver: &mut Receiver) -> Error {
    loop {
        let mut inputs = Vec::new();
        let result = listen(shared, receiver, &mut inputs);
        inputs.append(&mut shared.lock().ready);
        shared.deliver(inputs);
        if let Err(error) = result {
            return error;
        }
    }
}

/// Waits for a message and takes what came along with it, and sends what that makes room for.
fn listen(
    shared: &Shared,
    receiver: &mut Receiver,
    inputs: &mut Vec<Input<Mongo>>,
) -> Result<(), Error> {
    let mut next = receiver.receive(None)?;
    for left in (0..MESSAGES).rev() {
        let Some(incoming) = next else { break };
        {
            let mut state = shared.lock();
            let now_ms = shared.now_ms();
            if let Some(refusal) = state.pipe.on_message(incoming, now_ms, inputs)? {
                return Err(Error::Server(refusal));
            }
            state.send(now_ms);
        }
        // What is not taken now is still there for the next wait.
        next = if left > 0 { receiver.buffered()? } else { None };
    }
    Ok(())
}

/// Ends what cannot go on with the next connection.
fn hang_up(shared: &Shared) {
    let mut state = shared.lock();
    state.sender = None;
    let mut inputs = mem::take(&mut state.ready);
    state.pipe.lost(shared.now_ms(), &mut inputs);
    drop(state);
    shared.deliver(inputs);
}

/// The search for a server to connect to.
#[derive(Debug, Default)]
pub(super) struct Search {
    was_up: bool,
    /// What the engine was told last, so as not to tell it again.
    told: Option<Link>,
}

impl Search {
    /// Connects, for as long as it takes; `None` when the lane is closed.
    pub(super) fn connect(&mut self, shared: &Shared) -> Option<(Connection, PoolGeneration)> {
        while !shared.is_closing() {
            let deadline = Instant::now() + shared.options.select;
            let deployment = &shared.deployment;
            // Who has just asked to mount would rather know at once.
            let found = match deployment.hopeless(deadline).filter(|_| !self.was_up) {
                Some(error) => Err(error),
                None => deployment.connect(Criteria::Write, deadline),
            };
            let error = match found {
                Ok(found) => {
                    (self.was_up, self.told) = (true, None);
                    return Some(found);
                }
                Err(error) => error,
            };
            let line = deployment.describe(&error);
            let (link, pause) = match error {
                Error::Auth(_) | Error::Misuse(_) => (Link::Refused(line), REFUSED_AGAIN),
                _ => (Link::Down(line), shared.options.pause),
            };
            if self.told.as_ref() != Some(&link) {
                shared.tell(link.clone());
                self.told = Some(link);
            }
            rest(shared, pause);
        }
        None
    }
}

/// How often a server that said no is asked again.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// The longest sleep of a thread that is to end when its lane is closed.
const NAP: Duration = Duration::from_millis(100);

/// Sleeps, but not on when the lane is closed.
pub(super) fn rest(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || shared.is_closing() {
            return;
        }
        thread::sleep(left.min(NAP));
    }
}
