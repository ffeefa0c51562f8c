//! What goes wrong in a world by itself: which troubles there are, how often each comes, and how
//! often it did.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::id::Lane;
use crate::sim::generate::Random;
use crate::time::{Duration, Mono};

use super::World;
use super::site::{Server, Site};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// A connection breaks; some of what was on its way still arrives.
    Cut,
    /// A connection stands still, now and then for longer than a request may take.
    Stall,
    /// A push comes twice.
    Twice,
    /// What the server had to tell is lost, and it says so.
    PushesLost,
    /// The server does nothing for a while.
    Slow,
    /// The server refuses what it is told for a while: it is busy, or a lock cannot be had.
    Refusal,
    /// The server has forgotten all scripts.
    ScriptsForgotten,
    /// Another server takes over in good order: every connection breaks, transactions are aborted.
    Election,
    /// Another server takes over, or the same one starts again, without the last of the writes
    /// that were acknowledged.
    Loss,
    /// The server aborts all transactions.
    Abort,
    /// The clock on the wall of a mount is set, forth or back.
    Clock,
    /// The server gives up a key for want of memory.
    Eviction,
    /// Memory or disk of the server are full, until this comes again.
    Full,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 13] = [
        Trouble::Cut,
        Trouble::Stall,
        Trouble::Twice,
        Trouble::PushesLost,
        Trouble::Slow,
        Trouble::Refusal,
        Trouble::ScriptsForgotten,
        Trouble::Election,
        Trouble::Loss,
        Trouble::Abort,
        Trouble::Clock,
        Trouble::Eviction,
        Trouble::Full,
    ];

    /// How many of a thousand steps it usually comes in (of [`Twice`](Trouble::Twice): pushes).
    /// One that costs much is rare, so that there is something for it to destroy.
    const fn usual(self) -> u16 {
        match self {
            Trouble::Cut => 30,
            Trouble::Twice => 100,
            Trouble::Abort => 20,
            Trouble::PushesLost | Trouble::Refusal | Trouble::ScriptsForgotten => 8,
            Trouble::Clock => 6,
            Trouble::Stall | Trouble::Slow | Trouble::Full | Trouble::Eviction => 4,
            Trouble::Election => 3,
            Trouble::Loss => 2,
        }
    }
}

/// What the network and the server do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Weather {
    /// Lanes and mounts take turns at random. Otherwise whatever is sent arrives at once.
    pub reorders: bool,
    rates: [u16; Trouble::ALL.len()],
}

impl Weather {
    /// Everything arrives at once and in order.
    pub const CALM: Weather = Weather { reorders: false, rates: [0; Trouble::ALL.len()] };
    /// Whatever is sent arrives in its own time, on each lane in order, and once.
    pub const UNORDERED: Weather = Weather { reorders: true, ..Weather::CALM };
    /// The same, but pushes may come twice.
    pub const BREEZE: Weather = Weather::UNORDERED.with(Trouble::Twice);
    /// Lanes break and stand still.
    pub const STORM: Weather = Weather::BREEZE.with(Trouble::Cut).with(Trouble::Stall);

    /// The same with one trouble more, as often as is usual.
    #[must_use]
    pub const fn with(self, trouble: Trouble) -> Weather {
        self.at(trouble, trouble.usual())
    }

    const fn at(mut self, trouble: Trouble, rate: u16) -> Weather {
        self.rates[trouble as usize] = rate;
        self
    }

    /// The weather of a seed: of the troubles that there may be, each is left out (one in three),
    /// usual, or much more frequent.
    #[must_use]
    pub fn swarm(seed: u64, among: &[Trouble]) -> Weather {
        let mut random = Random(seed ^ 0x57a7);
        among.iter().fold(Weather::UNORDERED, |weather, &trouble| match random.next() % 9 {
            0..=2 => weather,
            3 => weather.at(trouble, trouble.usual() * 4),
            _ => weather.with(trouble),
        })
    }

    /// The same without anything that goes wrong.
    #[must_use]
    pub fn untroubled(self) -> Weather {
        let twice = self.rate(Trouble::Twice);
        Weather { reorders: self.reorders, ..Weather::CALM }.at(Trouble::Twice, twice)
    }

    /// How many of a thousand steps a trouble comes in.
    #[must_use]
    pub fn rate(&self, trouble: Trouble) -> u16 {
        self.rates[trouble as usize]
    }
}

/// How often each trouble has come. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Rc<RefCell<BTreeMap<Trouble, u64>>>);

impl Tally {
    pub(super) fn count(&self, trouble: Trouble) {
        *self.0.borrow_mut().entry(trouble).or_default() += 1;
    }

    /// The counts so far; what has not come is not in there.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Trouble, u64> {
        self.0.borrow().clone()
    }

    /// Those of some troubles that have not come.
    #[must_use]
    pub fn missing(&self, among: &[Trouble]) -> Vec<Trouble> {
        let counts = self.0.borrow();
        among.iter().copied().filter(|it| !counts.contains_key(it)).collect()
    }
}

impl<S: Site> World<S> {
    /// Perhaps something goes wrong.
    pub(super) fn misfortune(&mut self) {
        let mut draw = self.random.next() % 1000;
        for trouble in Trouble::ALL {
            let rate = u64::from(self.weather.rate(trouble));
            match trouble {
                // It comes with the pushes.
                Trouble::Twice => {}
                _ if draw < rate => {
                    self.strike(trouble);
                    return;
                }
                _ => draw -= rate,
            }
        }
    }

    /// Something goes wrong, where it can.
    pub(super) fn strike(&mut self, trouble: Trouble) {
        let draw = self.random.next();
        let struck = match trouble {
            Trouble::Cut | Trouble::Stall => self.strike_lane(trouble),
            Trouble::Slow => {
                self.server_still_until = self.while_from_now();
                true
            }
            Trouble::PushesLost => self.lose_pushes(),
            Trouble::Election | Trouble::Loss => {
                let until = self.while_from_now();
                for at in 0..self.mounts.len() {
                    for lane in Lane::ALL {
                        self.cut_unless_down(at, lane, until);
                    }
                }
                let now = self.now;
                self.server.trouble(now, trouble, draw);
                self.losses += u64::from(trouble == Trouble::Loss);
                true
            }
            Trouble::Clock => self.set_a_clock(draw),
            Trouble::Twice => false,
            Trouble::Refusal
            | Trouble::ScriptsForgotten
            | Trouble::Abort
            | Trouble::Eviction
            | Trouble::Full => {
                let now = self.now;
                let struck = self.server.trouble(now, trouble, draw);
                self.collect_pushes();
                struck
            }
        };
        if struck {
            self.tally.count(trouble);
        }
    }

    /// Mostly sooner than a request may take, sometimes later.
    fn while_from_now(&mut self) -> Mono {
        let millis = match self.random.next() % 8 {
            0 => 20_000 + self.random.next() % 40_000,
            _ => 1 + self.random.next() % 100,
        };
        self.now.mono.after(Duration::from_millis(millis))
    }

    fn strike_lane(&mut self, trouble: Trouble) -> bool {
        if self.mounts.is_empty() {
            return false;
        }
        let at = self.random.next() as usize % self.mounts.len();
        let lane = Lane::ALL[self.random.next() as usize % Lane::ALL.len()];
        if self.wire(at, lane).back_at.is_some() {
            return false;
        }
        let until = self.while_from_now();
        if trouble == Trouble::Stall {
            self.wire(at, lane).still_until = until;
        } else {
            self.cut(at, lane, true, until);
        }
        true
    }

    fn cut_unless_down(&mut self, at: usize, lane: Lane, until: Mono) {
        if self.wire(at, lane).back_at.is_none() {
            self.cut(at, lane, true, until);
        }
    }

    fn lose_pushes(&mut self) -> bool {
        let waiting = |it: &super::Mount<S>| {
            it.wires.get(&Lane::Push).is_some_and(|wire| !wire.pushes.is_empty())
        };
        let Some(at) = self.mounts.iter().position(waiting) else { return false };
        let wire = self.wire(at, Lane::Push);
        wire.pushes.clear();
        wire.pushes.extend(S::Server::pushes_lost());
        true
    }

    /// The clock of a mount goes by seconds, hours or years, from what it shows by rights.
    fn set_a_clock(&mut self, draw: u64) -> bool {
        const SECOND: i64 = 1_000_000_000;
        let by = [SECOND, 100 * SECOND, 86_400 * SECOND, 300_000_000 * SECOND];
        let by = by[draw as usize % by.len()];
        let skew = match draw >> 8 & 3 {
            0 => 0,
            1 => -by,
            _ => by,
        };
        let at = (draw >> 16) as usize % self.mounts.len().max(1);
        self.mounts.get_mut(at).is_some_and(|mount| {
            mount.skew = skew;
            true
        })
    }

    /// What was full has room again, and nothing is refused.
    pub fn relieve(&mut self) {
        self.server.relieve();
        self.server.obey();
    }

    /// How often acknowledged writes were lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Something that the next loss does not take when the server has secured it until then.
    pub fn mark(&mut self, mark: usize) {
        self.mark = mark;
    }

    /// The mark that was set when the server last secured what it had: all that was acknowledged
    /// before it outlives any loss.
    #[must_use]
    pub fn secured(&self) -> usize {
        self.secured
    }

    /// No loss takes what there is now.
    pub fn secure_all(&mut self) {
        self.server.secure();
        self.secured = self.mark;
    }

    /// A server that may lose writes secures what it has, now and then.
    pub(super) fn secure(&mut self) {
        if self.weather.rate(Trouble::Loss) > 0 && self.random.next().is_multiple_of(16) {
            self.secure_all();
        }
    }
}
