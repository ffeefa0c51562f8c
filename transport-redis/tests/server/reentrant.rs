//! As the engine is driven: one lock, held by whoever delivers or submits.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dbmount_engine::backend::redis::{Command, Redis, Reply};
use dbmount_engine::contract::{Batch, Input, Link, Mode};
use dbmount_engine::id::{BatchId, Lane};
use dbmount_engine::time::Mono;
use dbmount_transport_redis::{Options, Sink, Transport};

use crate::common::{PATIENCE, Server};

const THREADS: u64 = 4;
const EACH: u64 = 2000;

/// Every answer under its lock leads to the next submit under the same lock.
struct Engine {
    transport: OnceLock<Transport>,
    state: Mutex<State>,
    tell: Mutex<Sender<&'static str>>,
}

#[derive(Default)]
struct State {
    next: u64,
    up: usize,
    /// Submitted and not answered, in order.
    open: VecDeque<BatchId>,
    answered: u64,
}

impl Engine {
    fn submit(&self, state: &mut State) {
        let id = BatchId(state.next);
        state.next += 1;
        state.open.push_back(id);
        // Now and then one that does not fit the socket's buffer.
        let size = if id.0.is_multiple_of(97) { 300_000 } else { 10 };
        let echo = Command::plain([b"ECHO".to_vec(), vec![b'x'; size]]);
        let (lane, mode, deadline) = (Lane::Meta, Mode::Independent, Mono::NEVER);
        let commands = vec![Command::plain(["INCR", "n"]), echo];
        let transport = self.transport.get().expect("set before the first submit");
        transport.submit(Batch { id, lane, mode, deadline, commands });
    }

    fn tell(&self, what: &'static str) {
        self.tell.lock().expect("not poisoned").send(what).expect("the test waits");
    }
}

struct Handle(Arc<Engine>);

impl Sink for Handle {
    fn deliver(&self, inputs: Vec<Input<Redis>>) {
        let engine = &self.0;
        let mut state = engine.state.lock().expect("not poisoned");
        for input in inputs {
            match input {
                Input::Link(_, Link::Up { .. }) => {
                    state.up += 1;
                    if state.up == Lane::ALL.len() {
                        engine.tell("up");
                    }
                }
                Input::Replies(id, replies) => {
                    let replies = replies.expect("the server stays up");
                    state.answered += 1;
                    assert_eq!(state.open.pop_front(), Some(id));
                    assert_eq!(replies[0], Reply::Int(state.answered as i64));
                    if state.answered == 2 * THREADS * EACH {
                        engine.tell("done");
                    } else if state.next < 2 * THREADS * EACH {
                        engine.submit(&mut state);
                    }
                }
                _ => {}
            }
        }
    }
}

#[test]
fn threads_and_answers_submit_under_one_lock() {
    let server = Server::start(&[]);
    let (tell, told) = channel();
    let (transport, state) = (OnceLock::new(), Mutex::default());
    let engine = Arc::new(Engine { transport, state, tell: Mutex::new(tell) });
    let url = format!("unix://{}", server.socket().display()).parse().expect("a URL");
    let sink = Arc::new(Handle(engine.clone()));
    let transport = Transport::start(url, Options::default(), sink).expect("threads");
    engine.transport.set(transport).expect("set once");
    assert_eq!(told.recv_timeout(PATIENCE), Ok("up"));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut state = engine.state.lock().expect("not poisoned");
                    if state.next < 2 * THREADS * EACH {
                        engine.submit(&mut state);
                    }
                }
            });
        }
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok("done"));
    assert!(told.recv_timeout(Duration::ZERO).is_err());
    engine.transport.get().expect("set").shutdown();
}
