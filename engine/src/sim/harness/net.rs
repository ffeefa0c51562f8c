//! The network of a [`World`]: lanes in order, which break and stand still as the seed has it.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backend::Backend;
use crate::contract::{Batch, Fault, Input, Link, Mode};
use crate::id::{BatchId, Lane};
use crate::time::{Duration, Mono};

use super::World;
use super::site::{BackendOf, ClientId, Server, Site};

/// The connection of a lane.
#[derive(Clone, Debug)]
pub(super) struct Wire<B: Backend> {
    client: Option<ClientId>,
    /// It is down until then.
    pub(super) back_at: Option<Mono>,
    /// Nothing moves on it until then.
    pub(super) still_until: Mono,
    /// Sent, and not executed yet; of the first, the commands that are left.
    pub(super) batches: VecDeque<Batch<B>>,
    /// The replies to the commands of the first batch that were executed.
    begun: Vec<B::Reply>,
    /// Executed, and not heard of yet.
    pub(super) replies: VecDeque<(BatchId, Vec<B::Reply>)>,
    pub(super) pushes: VecDeque<B::Push>,
}

impl<B: Backend> Default for Wire<B> {
    fn default() -> Self {
        Wire {
            client: None,
            back_at: None,
            still_until: Mono::default(),
            batches: VecDeque::new(),
            begun: Vec::new(),
            replies: VecDeque::new(),
            pushes: VecDeque::new(),
        }
    }
}

impl<S: Site> World<S> {
    pub(super) fn wire(&mut self, at: usize, lane: Lane) -> &mut Wire<BackendOf<S>> {
        self.mounts[at].wires.entry(lane).or_default()
    }

    /// Sets up a lane and tells that it is there.
    pub(super) fn connect(&mut self, at: usize, lane: Lane) {
        let client = ClientId(self.clients);
        self.clients += 1;
        let setup = &self.mounts[at].setup;
        let pushes = setup.tracking
            && (lane != Lane::Push || S::subscribe(&mut self.server, self.now, client, setup));
        let wire = self.wire(at, lane);
        *wire = Wire { client: Some(client), ..Wire::default() };
        self.input(at, Input::Link(lane, Link::Up { pushes }));
    }

    /// The server executes a batch, or its next command: unless it is atomic, those of others may
    /// come between its own.
    pub(super) fn execute(&mut self, at: usize, lane: Lane) {
        let reorders = self.weather.reorders;
        let wire = self.wire(at, lane);
        let (Some(client), Some(mut piece)) = (wire.client, wire.batches.pop_front()) else {
            return;
        };
        if reorders && piece.mode != Mode::Atomic {
            let rest = piece.commands.split_off(1);
            if !rest.is_empty() {
                wire.batches.push_front(Batch { commands: rest, ..piece.clone() });
            }
        }
        let replies = self.server.run(self.now, client, &piece);
        assert_eq!(replies.len(), piece.commands.len(), "{piece:?}");
        let wire = self.wire(at, lane);
        wire.begun.extend(replies);
        if wire.batches.front().is_none_or(|next| next.id != piece.id) {
            let replies = core::mem::take(&mut wire.begun);
            wire.replies.push_back((piece.id, replies));
        }
        self.collect_pushes();
    }

    /// Puts what the server has said unasked on its way.
    pub(super) fn collect_pushes(&mut self) {
        for at in 0..self.mounts.len() {
            let Some(client) = self.wire(at, Lane::Push).client else { continue };
            for push in self.server.take_pushes(client) {
                let twice = self.random.next() % 1000 < u64::from(self.weather.duplicates);
                let wire = self.wire(at, Lane::Push);
                wire.pushes.extend(twice.then(|| push.clone()));
                wire.pushes.push_back(push);
            }
        }
    }

    /// Perhaps a lane breaks or stands still.
    pub(super) fn misfortune(&mut self) {
        let draw = self.random.next() % 1000;
        let cut = draw < u64::from(self.weather.cuts);
        let stall = !cut && draw < u64::from(self.weather.cuts + self.weather.stalls);
        if !(cut || stall) || self.mounts.is_empty() {
            return;
        }
        let at = self.random.next() as usize % self.mounts.len();
        let lane = Lane::ALL[self.random.next() as usize % Lane::ALL.len()];
        if self.wire(at, lane).back_at.is_some() {
            return;
        }
        // Mostly shorter than a request may take, sometimes longer.
        let millis = match self.random.next() % 8 {
            0 => 20_000 + self.random.next() % 40_000,
            _ => 1 + self.random.next() % 100,
        };
        let until = self.now.mono.after(Duration::from_millis(millis));
        if stall {
            self.wire(at, lane).still_until = until;
        } else {
            self.cut(at, lane, until);
        }
    }

    fn cut(&mut self, at: usize, lane: Lane, until: Mono) {
        let mut faults = self.drop_wire(at, lane);
        self.wire(at, lane).back_at = Some(until);
        // Whoever is told of one fault may send the next batch before the lane is known to be down.
        while !faults.is_empty() {
            for (batch, fault) in faults {
                self.input(at, Input::Replies(batch, Err(fault)));
            }
            let wire = self.wire(at, lane);
            faults = wire.batches.drain(..).map(|batch| (batch.id, Fault::NotSent)).collect();
        }
        self.input(at, Input::Link(lane, Link::Down(String::from("the connection broke"))));
        let stray = self.wire(at, lane).batches.pop_front();
        assert!(stray.is_none(), "sent on a lane that is down: {stray:?}");
    }

    /// Ends a connection somewhere in what is on its way: the server executes some more of it, all
    /// that it said is lost, and the rest was never sent.
    pub(super) fn drop_wire(&mut self, at: usize, lane: Lane) -> Vec<(BatchId, Fault)> {
        let wire = core::mem::take(self.wire(at, lane));
        let mut faults: Vec<(BatchId, Fault)> =
            wire.replies.iter().map(|(id, _)| (*id, Fault::Unknown)).collect();
        let mut arrives = true;
        let mut begun = !wire.begun.is_empty();
        for mut batch in wire.batches {
            let fault = if core::mem::take(&mut begun) { Fault::Unknown } else { Fault::NotSent };
            let (Some(client), true) = (wire.client, arrives) else {
                faults.push((batch.id, fault));
                continue;
            };
            match self.random.next() % 4 {
                0 => {
                    arrives = false;
                    faults.push((batch.id, fault));
                    continue;
                }
                1 => {
                    arrives = false;
                    let some = self.random.next() as usize % (batch.commands.len() + 1);
                    let some = if batch.mode == Mode::Atomic { 0 } else { some };
                    batch.commands.truncate(some);
                }
                _ => {}
            }
            self.server.run(self.now, client, &batch);
            faults.push((batch.id, Fault::Unknown));
        }
        if let Some(client) = wire.client {
            self.server.disconnect(client);
        }
        self.collect_pushes();
        faults
    }
}
