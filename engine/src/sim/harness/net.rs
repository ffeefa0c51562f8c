//! The network of a [`World`]: lanes in order, and what becomes of what is on its way on them.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::contract::{Batch, Fault, Input, Link};
use crate::id::{BatchId, Lane};
use crate::time::{Duration, Mono};

use super::site::{BackendOf, ClientId, Progress, PushOf, ReplyOf, Server, Site};
use super::{Sabotage, Trouble, World};

/// The connection of a lane.
#[derive(Clone, Debug)]
pub(super) struct Wire<S: Site> {
    client: Option<ClientId>,
    /// It is down until then.
    pub(super) back_at: Option<Mono>,
    /// Nothing moves on it until then.
    pub(super) still_until: Mono,
    /// Sent, and not executed yet.
    pub(super) batches: VecDeque<Batch<BackendOf<S>>>,
    /// To be executed once more, after what was sent behind them.
    again: VecDeque<(BatchId, <S::Server as Server>::Running)>,
    /// Being executed.
    running: Option<(BatchId, <S::Server as Server>::Running)>,
    /// What is being executed waits for a batch of somebody else.
    waits: bool,
    /// Executed, and not heard of yet.
    pub(super) replies: VecDeque<(BatchId, Vec<ReplyOf<S>>)>,
    pub(super) pushes: VecDeque<PushOf<S>>,
}

impl<S: Site> Default for Wire<S> {
    fn default() -> Self {
        Wire {
            client: None,
            back_at: None,
            still_until: Mono::default(),
            batches: VecDeque::new(),
            again: VecDeque::new(),
            running: None,
            waits: false,
            replies: VecDeque::new(),
            pushes: VecDeque::new(),
        }
    }
}

impl<S: Site> Wire<S> {
    /// The server has something to do for it.
    pub(super) fn can_execute(&self) -> bool {
        let some = !self.batches.is_empty() || !self.again.is_empty();
        !self.waits && (self.running.is_some() || some)
    }
}

/// What breaks in the middle of something, see [`World::break_after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Break {
    /// The mount dies.
    Mount,
    /// The connection that was in use is lost.
    Connection,
}

impl<S: Site> World<S> {
    pub(super) fn wire(&mut self, at: usize, lane: Lane) -> &mut Wire<S> {
        self.mounts[at].wires.entry(lane).or_default()
    }

    /// Sets up a lane and tells that it is there.
    pub(super) fn connect(&mut self, at: usize, lane: Lane) {
        let client = ClientId(self.clients);
        self.clients += 1;
        let now = self.now;
        let setup = &self.mounts[at].setup;
        let pushes = setup.tracking
            && (lane != Lane::Push || S::subscribe(&mut self.server, now, client, setup));
        let wire = self.wire(at, lane);
        *wire = Wire { client: Some(client), ..Wire::default() };
        self.input(at, Input::Link(lane, Link::Up { pushes }));
    }

    /// The server executes a batch, or where there is weather its next command: those of others
    /// may come between.
    pub(super) fn execute(&mut self, at: usize, lane: Lane) {
        if self.breaks_now(at, lane) {
            return;
        }
        let once = self.weather.reorders || self.mounts[at].breaks.is_some();
        loop {
            match self.step_batch(at, lane) {
                Some(Progress::Executed) if !once => {}
                Some(Progress::Failed) => {
                    self.fail_batch(at, lane);
                    break;
                }
                Some(Progress::Done(_) | Progress::Executed | Progress::Again) => {
                    self.breaks_now(at, lane);
                    break;
                }
                Some(Progress::Waits) | None => break,
            }
        }
        self.collect_pushes();
    }

    /// The server executes the next command of a lane.
    fn step_batch(&mut self, at: usize, lane: Lane) -> Option<Progress<BackendOf<S>>> {
        let now = self.now;
        let (server, mount) = (&mut self.server, &mut self.mounts[at]);
        let wire = mount.wires.entry(lane).or_default();
        let Some(client) = wire.client else {
            wire.batches.clear();
            return None;
        };
        if wire.running.is_none()
            && !wire.again.is_empty()
            && (wire.batches.is_empty() || self.random.next().is_multiple_of(2))
        {
            wire.running = wire.again.pop_front();
        }
        if wire.running.is_none() {
            let mut batch = wire.batches.pop_front()?;
            if let Some(sabotage) = self.sabotage {
                batch.commands.iter_mut().for_each(|it| S::tamper(sabotage, it));
            }
            wire.running = Some((batch.id, server.begin(client, batch)));
        }
        let (id, running) = wire.running.as_mut()?;
        let (id, progress) = (*id, server.step(now, client, running));
        if progress == Progress::Waits {
            wire.waits = true;
            return Some(progress);
        }
        match &progress {
            Progress::Done(replies) => {
                wire.replies.push_back((id, replies.clone()));
                wire.running = None;
            }
            Progress::Again => wire.again.extend(wire.running.take()),
            Progress::Executed | Progress::Waits | Progress::Failed => {}
        }
        mount.executed += 1;
        if let Some((left, _)) = &mut mount.breaks {
            *left = left.saturating_sub(1);
        }
        self.wake_waiting();
        self.secure();
        Some(progress)
    }

    /// The batch in progress has come to nothing that can be told; the connection is as it was.
    fn fail_batch(&mut self, at: usize, lane: Lane) {
        let pushes = self.mounts[at].setup.tracking;
        if let Some((batch, _)) = self.wire(at, lane).running.take() {
            self.input(at, Input::Replies(batch, Err(Fault::Unknown)));
            self.input(at, Input::Link(lane, Link::Up { pushes }));
        }
    }

    /// Something has happened that others may have waited for.
    fn wake_waiting(&mut self) {
        for wire in self.mounts.iter_mut().flat_map(|mount| mount.wires.values_mut()) {
            wire.waits = false;
        }
    }

    /// How many commands the server has executed for a mount.
    #[must_use]
    pub fn executed(&self, at: usize) -> u64 {
        self.mounts[at].executed
    }

    /// When the server has executed so many further commands of a mount, and before it executes
    /// another one or anybody hears of them, something breaks.
    pub fn break_after(&mut self, at: usize, commands: u64, what: Break) {
        self.mounts[at].breaks = Some((commands, what));
    }

    fn breaks_now(&mut self, at: usize, lane: Lane) -> bool {
        let Some((0, what)) = self.mounts[at].breaks else { return false };
        self.mounts[at].breaks = None;
        match what {
            Break::Connection => {
                let until = self.now.mono.after(Duration::from_millis(10));
                self.cut(at, lane, false, until);
            }
            Break::Mount => {
                for lane in Lane::ALL {
                    self.drop_wire(at, lane, false);
                }
                self.mounts[at].doom = Some(0);
            }
        }
        true
    }

    /// Puts what the server has said unasked on its way.
    pub(super) fn collect_pushes(&mut self) {
        for at in 0..self.mounts.len() {
            let Some(client) = self.wire(at, Lane::Push).client else { continue };
            for push in self.server.take_pushes(client) {
                if self.sabotage == Some(Sabotage::PushesLost) {
                    continue;
                }
                let rate = u64::from(self.weather.rate(Trouble::Twice));
                let twice = rate > 0 && self.random.next() % 1000 < rate;
                if twice {
                    self.tally.count(Trouble::Twice);
                }
                let wire = self.wire(at, Lane::Push);
                wire.pushes.extend(twice.then(|| push.clone()));
                wire.pushes.push_back(push);
            }
        }
    }

    /// Something is on its way on a lane.
    pub(super) fn is_busy(&self, at: usize, lane: Lane) -> bool {
        self.mounts[at]
            .wires
            .get(&lane)
            .is_some_and(|it| it.can_execute() || !it.replies.is_empty())
    }

    /// A connection breaks as it is, and another can be had at once.
    pub(super) fn cut_now(&mut self, at: usize, lane: Lane) {
        let now = self.now.mono;
        self.cut(at, lane, false, now);
    }

    /// A connection breaks. Some of what is on its way may still arrive.
    pub(super) fn cut(&mut self, at: usize, lane: Lane, some: bool, until: Mono) {
        let mut faults = self.drop_wire(at, lane, some);
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

    /// Ends a connection somewhere in what is on its way: the server executes some more of it (if
    /// `some`), all that it said is lost, and the rest was never sent.
    pub(super) fn drop_wire(&mut self, at: usize, lane: Lane, some: bool) -> Vec<(BatchId, Fault)> {
        let mut unheard: Vec<BatchId> = Vec::new();
        let wire = self.wire(at, lane);
        unheard.extend(wire.running.as_ref().map(|(id, _)| *id));
        unheard.extend(wire.again.drain(..).map(|(id, _)| id));
        let sent = usize::from(wire.running.is_some()) + wire.batches.len();
        'batches: for n in 0..if some { sent } else { 0 } {
            let steps = match self.random.next() % 4 {
                0 if n > 0 || unheard.is_empty() => break,
                0 | 1 => self.random.next() % 4,
                _ => u64::MAX,
            };
            let wire = self.wire(at, lane);
            let next = wire.batches.front().map(|batch| batch.id);
            unheard.extend(next.filter(|_| wire.running.is_none()));
            for _ in 0..steps {
                match self.step_batch(at, lane) {
                    Some(Progress::Executed) => {}
                    Some(Progress::Done(_)) => continue 'batches,
                    Some(Progress::Again | Progress::Failed | Progress::Waits) | None => {
                        break 'batches;
                    }
                }
            }
            break;
        }
        let wire = core::mem::take(self.wire(at, lane));
        // What was executed is among both.
        let heard = wire.replies.iter().map(|(id, _)| *id).filter(|id| !unheard.contains(id));
        let mut faults: Vec<(BatchId, Fault)> = heard.map(|id| (id, Fault::Unknown)).collect();
        faults.extend(unheard.iter().map(|id| (*id, Fault::Unknown)));
        let rest = wire.batches.iter().map(|batch| batch.id);
        let rest = rest.filter(|id| !unheard.contains(id));
        faults.extend(rest.map(|id| (id, Fault::NotSent)));
        if let Some(client) = wire.client {
            self.server.disconnect(client);
            self.wake_waiting();
        }
        self.collect_pushes();
        faults
    }
}
