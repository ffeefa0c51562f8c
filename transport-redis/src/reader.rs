//! The thread of a connection: it connects, reads, delivers, and connects again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dbmount_engine::backend::redis::Redis;
use dbmount_engine::contract::{Input, Link};
use dbmount_engine::id::Lane;
use rustix::event::PollFlags;

use crate::handshake::{self, Connected, Failure, is_transient, plainly};
use crate::lane::Shared;
use crate::resp::{self, Decoder, Frame};
use crate::socket::{Socket, wait};

/// After so many reads in a row the engine gets what there is.
const READS: usize = 16;
/// A connection that lived for so long was a good one: the next pause is a short one again.
const GOOD: Duration = Duration::from_secs(1);
/// How often a server that said no, after having said yes before, is asked again.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// Runs a connection until it is closed.
pub(crate) fn run(shared: &Shared) {
    shared.adopt();
    let mut pause = shared.options.retry_first;
    let mut was_up = false;
    // What the engine was told last, so as not to tell it again.
    let mut told = None;
    while shared.deliver_ready() {
        let started = Instant::now();
        let (link, wait_for) = match handshake::connect(shared) {
            Ok(connected) => {
                was_up = true;
                told = None;
                let reason = serve(shared, connected);
                if started.elapsed() > GOOD {
                    pause = shared.options.retry_first;
                }
                (reason.map(Link::Down), Some(pause))
            }
            Err(Failure::Down(line)) => (Some(Link::Down(line)), Some(pause)),
            Err(Failure::Refused(line)) => {
                (Some(Link::Refused(line)), was_up.then_some(REFUSED_AGAIN))
            }
            Err(Failure::Closing) => (None, None),
        };
        let Some(link) = link else { break };
        if told.as_ref() != Some(&link) {
            tracing::debug!(lane = ?shared.lane, ?link, "no connection");
            hang_up(shared, Some(link.clone()));
            told = Some(link);
        }
        if !rest(shared, wait_for.map(jittered)) {
            break;
        }
        pause = (pause * 2).min(shared.options.retry_cap);
    }
    hang_up(shared, None);
}

/// Gives every batch its fault and then tells what became of the connection.
fn hang_up(shared: &Shared, link: Option<Link>) {
    let mut state = shared.lock();
    state.socket = None;
    state.broken = None;
    state.writing = false;
    state.corked = false;
    let mut inputs = Vec::new();
    state.pipe.fail(&mut inputs);
    inputs.append(&mut state.ready);
    drop(state);
    if let Some(link) = link {
        inputs.extend(shared.lanes().iter().map(|lane| Input::Link(*lane, link.clone())));
    }
    shared.deliver(inputs);
}

/// Sleeps, answering batches meanwhile; for ever without a pause. Whether the lane stays open.
fn rest(shared: &Shared, pause: Option<Duration>) -> bool {
    let until = pause.map(|pause| Instant::now() + pause);
    loop {
        if !shared.deliver_ready() {
            return false;
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        if wait(&shared.bell, None, until).is_err() {
            // For want of memory; without a pause this would be a busy loop.
            thread::sleep(shared.options.retry_first);
        }
    }
}

/// Between three quarters and all of a pause, so that many clients do not come at once.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 256;
    pause * (768 + random as u32) / 1024
}

/// Serves a connection until it is lost; the reason, or `None` when the lane is closed.
fn serve(shared: &Shared, connected: Connected) -> Option<String> {
    let Connected { socket, mut decoder, pushes, script_flags, scripts, early } = connected;
    let mut state = shared.lock();
    if state.closing {
        return None;
    }
    state.pipe.script_flags(script_flags);
    scripts.iter().for_each(|script| state.pipe.loaded(script));
    state.socket = Some(Arc::clone(&socket));
    state.writing = false;
    let mut inputs = mem::take(&mut state.ready);
    drop(state);
    tracing::debug!(lane = ?shared.lane, pushes, endpoint = %shared.endpoint, "connected");
    let up = |lane: &Lane| Link::Up { pushes: pushes && *lane == Lane::Push };
    inputs.extend(shared.lanes().iter().map(|lane| Input::Link(*lane, up(lane))));
    inputs.extend(early);
    let result = converse(shared, &socket, &mut decoder, inputs);
    match result {
        Ok(()) => None,
        Err(why) => Some(format!("lost the connection to {}: {why}", shared.endpoint)),
    }
}

/// Reads and writes until the lane is closed (`Ok`) or the connection lost (why).
fn converse(
    shared: &Shared,
    socket: &Socket,
    decoder: &mut Decoder,
    mut inputs: Vec<Input<Redis>>,
) -> Result<(), String> {
    let mut frames = Vec::new();
    let mut heard = Instant::now();
    let mut pinged = false;
    // The hand-shake may have read further than its own replies.
    let mut result = take_frames(decoder, &mut frames);
    loop {
        if let Err(why) = settle(shared, &mut frames, &mut inputs) {
            result = result.and(Err(why));
        }
        if inputs.len() > 1 {
            shared.lock().corked = true;
        }
        shared.deliver(mem::take(&mut inputs));
        result?;
        let mut flags = PollFlags::IN;
        {
            let mut state = shared.lock();
            if mem::take(&mut state.corked) && !state.writing {
                state.flush();
            }
            if state.closing {
                return Ok(());
            }
            if let Some(error) = &state.broken {
                // What the server said before that may be waiting still.
                let why = describe(error);
                drop(state);
                let _ = receive(socket, decoder, &mut frames);
                let _ = settle(shared, &mut frames, &mut inputs);
                shared.deliver(mem::take(&mut inputs));
                return Err(why);
            }
            inputs.append(&mut state.ready);
            state.writing = state.pipe.has_output();
            if state.writing {
                flags |= PollFlags::OUT;
            }
        }
        if !inputs.is_empty() {
            result = Ok(());
            continue;
        }
        let patience = if pinged { shared.options.ping_timeout } else { shared.options.ping_after };
        let deadline = heard + patience;
        let ready = wait(&shared.bell, Some((socket, flags)), Some(deadline))
            .map_err(|e| format!("poll: {e}"))?;
        if ready.contains(PollFlags::OUT) {
            let mut state = shared.lock();
            let before = state.pipe.written();
            state.flush();
            if state.pipe.written() > before {
                // It takes what we send: a long value on a slow line, not a dead server.
                heard = Instant::now();
            }
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            heard = Instant::now();
            pinged = false;
            result = receive(socket, decoder, &mut frames);
            continue;
        }
        result = Ok(());
        if Instant::now() >= deadline {
            if pinged {
                return Err("the server gives no sign of life".into());
            }
            let mut state = shared.lock();
            state.pipe.ping();
            if !state.writing {
                state.flush();
            }
            heard = Instant::now();
            pinged = true;
        }
    }
}

/// Reads what is there, up to a bound. What came before an error is in `frames`.
fn receive(socket: &Socket, decoder: &mut Decoder, frames: &mut Vec<Frame>) -> Result<(), String> {
    let mut source = socket;
    for _ in 0..READS {
        match decoder.receive(&mut source) {
            Ok((0, _)) => return Err("the server closed it".into()),
            Ok((_, more)) => {
                take_frames(decoder, frames)?;
                if !more {
                    break;
                }
            }
            Err(e) if is_transient(&e) => break,
            Err(e) => return Err(describe(&e)),
        }
    }
    Ok(())
}

fn take_frames(decoder: &mut Decoder, frames: &mut Vec<Frame>) -> Result<(), String> {
    loop {
        match decoder.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return Ok(()),
            Err(e) => return Err(format!("it sent what is not the Redis protocol: {e}")),
        }
    }
}

/// Turns frames into inputs, and sends what their replies have made room for.
fn settle(
    shared: &Shared,
    frames: &mut Vec<Frame>,
    inputs: &mut Vec<Input<Redis>>,
) -> Result<(), String> {
    if frames.is_empty() {
        return Ok(());
    }
    let mut state = shared.lock();
    let mut result = Ok(());
    for frame in frames.drain(..) {
        match frame {
            Frame::Push(fields) => inputs.extend(resp::push(fields).map(Input::Push)),
            Frame::Reply(reply) => {
                if let Err(e) = state.pipe.on_reply(reply, inputs) {
                    result = Err(e.to_string());
                    break;
                }
            }
        }
    }
    if state.pipe.has_output() && !state.writing {
        state.flush();
    }
    result
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "the server reset it".into(),
        _ => plainly(error),
    }
}
