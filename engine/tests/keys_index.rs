//! The first index over the simulated server, when the connections come up in any order.

#![cfg(feature = "sim")]

use std::collections::VecDeque;

use dbmount_engine::backend::redis::{Command, Redis};
use dbmount_engine::contract::Link;
use dbmount_engine::engine::Engine;
use dbmount_engine::keys::{Keys, Options};
use dbmount_engine::sim::redis::{ClientId, Server};
use dbmount_engine::{Batch, Config, Input, Lane, Now, OpId, Output, Request};

const KEYS: usize = 5500;

fn up(lane: Lane) -> Input<Redis> {
    Input::Link(lane, Link::Up { pushes: lane == Lane::Push })
}

/// How many keys are known when the connection for pushes comes up after so many batches.
fn indexed(batches_before_pushes: usize) -> usize {
    let now = Now::default();
    let mut server = Server::new(now);
    let client = ClientId(1);
    for n in 0..KEYS {
        let set = ["SET".into(), format!("dir:f{n}").into(), "x".into()];
        server.execute(now, client, &Command::Plain(set.into_iter().collect()));
    }
    let mut engine = Engine::new(Config::default(), Keys::new(Options::default(), now), 1, now);
    let mut batches: VecDeque<Batch<Redis>> = VecDeque::new();
    let first = [up(Lane::Meta), up(Lane::Bulk), Input::Request(OpId(1), Request::Attach)];
    let mut inputs = VecDeque::from(first);
    let mut done = 0;
    loop {
        if let Some(input) = inputs.pop_front() {
            engine.handle(now, input);
            while let Some(output) = engine.poll() {
                if let Output::Submit(batch) = output {
                    batches.push_back(batch);
                }
            }
        } else if done == batches_before_pushes {
            // While the next batch is on its way.
            done += 1;
            inputs.push_back(up(Lane::Push));
        } else if let Some(batch) = batches.pop_front() {
            done += 1;
            let replies = server.run(now, client, &batch);
            inputs.push_back(Input::Replies(batch.id, Ok(replies)));
        } else {
            assert!(engine.progress().finished);
            return engine.layout().keys();
        }
    }
}

#[test]
fn a_scan_that_is_begun_anew_misses_nothing() {
    for batches in 0..12 {
        assert_eq!(indexed(batches), KEYS, "pushes after {batches} batches");
    }
}
