//! Bodies of the fuzz targets: each takes arbitrary bytes and asserts what must hold for all of
//! them. They live here so that a target is one line and the tests run them too.
//!
//! | file | what is fed |
//! |---|---|
//! | `hostile.rs` | requests in any order, and a server that answers anything |
//! | `forge.rs` | what such a server says |
//! | `alike.rs` | the same operations on all layouts |
//! | `records.rs` | the records of a volume |

mod alike;
mod forge;
mod hostile;
mod records;

use alloc::format;
use alloc::vec::Vec;

pub use forge::Forge;
use hostile::hostile;

use crate::keys::name::{NAME_MAX, Naming, Reading, SELF_NAME};
use crate::replay::{Decoder, Entry, Player, Recipe, Recorded, Visit, trace_input, trace_output};
use crate::sim::generate::{Draw, Swarm};
use crate::sim::harness::{Bucket, Disk, Keyspace, Site, Weather};
use crate::sim::ops::Op;
use crate::sim::play::{Stage, Step, against_model, in_a_storm};
use crate::time::Wall;

/// The most operations of one run, so that a run stays short.
const OPERATIONS: usize = 48;
/// The most inputs of a log that are played.
const INPUTS: u64 = 10_000;

/// Numbers out of the fuzzer's bytes; zeros when they are used up.
#[derive(Clone, Debug)]
pub struct Numbers<'a>(&'a [u8]);

impl<'a> Numbers<'a> {
    /// All numbers of `data`.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Numbers(data)
    }

    /// Whether there is nothing left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Two bytes.
    pub fn short(&mut self) -> u32 {
        u32::from(self.byte()) | u32::from(self.byte()) << 8
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Some of the bytes themselves.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let len = self.below(most + 1).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some
    }
}

/// The bodies of one layout, made here once: a target that made them itself would compile the whole
/// engine again.
macro_rules! layout {
    ($operations:ident, $hostile:ident, $site:ty) => {
        /// Plays operations on this layout, see the module.
        pub fn $operations(data: &[u8]) {
            operations::<$site>(data);
        }

        /// Says odd things to this layout, see the module.
        pub fn $hostile(data: &[u8]) {
            hostile::<$site>(data);
        }
    };
}

layout!(operations_keys, hostile_keys, Keyspace);
layout!(operations_gridfs, hostile_gridfs, Bucket);
layout!(operations_volume, hostile_volume, Disk);

/// Operations on a mount, which does what the model does, in any weather, and over remounts when
/// the weather is good.
fn operations<S: Site>(data: &[u8]) {
    let mut numbers = Numbers::new(data);
    let weather = [Weather::CALM, Weather::BREEZE, Weather::STORM][numbers.below(3)];
    let stage = Stage::<S>::new(u64::from(numbers.short()), weather);
    let swarm = Swarm::all();
    let mut model = stage.model();
    let mut steps: Vec<Step<S>> = Vec::new();
    while !numbers.is_empty() && steps.len() < OPERATIONS {
        let verb = numbers.byte();
        if verb == u8::MAX && weather != Weather::STORM {
            for (slot, _) in model.slots() {
                model.apply(&Op::Close { slot }, Wall(0));
            }
            steps.push(Step::Remount(0));
            continue;
        }
        let (a, b, c) = (numbers.short(), numbers.short(), numbers.short());
        let op = swarm.op(Draw { verb: u32::from(verb), a, b, c: c << 16 | c }, &model);
        model.apply(&op, Wall(steps.len() as i64));
        steps.push(Step::Run(0, op));
    }
    let wrong = match weather == Weather::STORM {
        true => in_a_storm(&stage, &steps),
        false => against_model(&stage, &steps),
    };
    if let Some(why) = wrong {
        panic!("{why}\nseed {} in {weather:?}, after {steps:#?}", stage.seed);
    }
}

/// Plays operations on all layouts, which come to the same.
pub fn alike(data: &[u8]) {
    alike::alike(data);
}

/// Keys and records of a volume, whatever they hold.
pub fn volume_records(data: &[u8]) {
    records::records(data);
}

/// A log of a session, whatever it holds.
pub fn replay_log(data: &[u8]) {
    struct Play(Decoder);

    impl Visit for Play {
        type Done = ();

        fn visit<L: Recorded>(mut self, recipe: Recipe<L>) {
            let mut player = Player::new(&recipe);
            while player.inputs() < INPUTS {
                match self.0.next() {
                    Ok(Entry::Input(now, input)) => {
                        let _ = trace_input(&input);
                        for output in player.input(now, input) {
                            let _ = trace_output(output);
                        }
                    }
                    Ok(Entry::Outputs(recorded)) => {
                        if let Err(difference) = player.compare(&recorded) {
                            let _ = format!("{difference}");
                            return;
                        }
                    }
                    Ok(Entry::More) => self.0.end(),
                    Ok(Entry::End { .. }) | Err(_) => return,
                }
            }
        }
    }

    let mut decoder = Decoder::new();
    // In two pieces, so that what is not there yet is met.
    let (one, two) = data.split_at(data.len() / 2);
    decoder.feed(one);
    let mut head = decoder.head();
    if let Ok(None) = head {
        decoder.feed(two);
        decoder.end();
        head = decoder.head();
    } else {
        decoder.feed(two);
        decoder.end();
    }
    if let Ok(Some(head)) = head {
        let _ = head.visit(Play(decoder));
    }
}

/// The rules of names: what has a name has one only, and a name means one thing only.
pub fn names(data: &[u8]) {
    let mut numbers = Numbers::new(data);
    let Ok(naming) = Naming::new(numbers.byte()) else { return };
    let field = numbers.bytes(NAME_MAX);
    let text = numbers.0;
    let component: Vec<u8> =
        text.iter().copied().filter(|&byte| byte != naming.delimiter()).collect();
    let legal = |name: &[u8]| {
        (1..=NAME_MAX).contains(&name.len())
            && !name.iter().any(|byte| matches!(byte, b'/' | 0))
            && !matches!(name, b"." | b"..")
    };

    let name = naming.encode_component(&component);
    assert!(legal(&name), "{name:?}");
    match naming.decode(&name) {
        Reading::Plain { component: back, .. } => assert_eq!(back, component),
        Reading::Shortened(short) => assert!(component.starts_with(&short.prefix)),
        other => panic!("{component:?} is {name:?}, which is {other:?}"),
    }

    let name = naming.encode_field(&component, field);
    assert!(legal(&name), "{name:?}");
    match naming.decode(&name) {
        Reading::Plain { field: Some(back), .. } => {
            assert_eq!((&back.component[..], &back.field[..]), (&component[..], field));
        }
        Reading::Shortened(short) => assert!(component.starts_with(&short.prefix)),
        other => panic!("{field:?} of {component:?} is {name:?}, which is {other:?}"),
    }

    match naming.decode(text) {
        Reading::OwnValue => assert_eq!(text, SELF_NAME),
        Reading::Plain { component, field } => {
            assert_eq!(naming.encode_component(&component), text);
            if let Some(back) = field {
                assert_eq!(naming.encode_field(&back.component, &back.field), text);
            }
        }
        Reading::Field(back) => {
            assert_eq!(naming.encode_shadowed(&back.component, &back.field), text);
        }
        Reading::Shortened(_) | Reading::Nothing => {}
    }
}
