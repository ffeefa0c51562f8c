//! Time as plain integers. The engine never asks for the time; the driver hands it in.

pub use core::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time in nanoseconds since an origin the driver chooses (its own start).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

impl Mono {
    /// A deadline that never comes.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// This instant moved `by` into the future, saturating at [`Mono::NEVER`].
    #[must_use]
    pub fn after(self, by: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Wall-clock time in nanoseconds since the Unix epoch; negative before 1970.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub i64);

impl Wall {
    /// From whole seconds and nanoseconds within the second (as `timespec` has them).
    #[must_use]
    pub fn from_parts(seconds: i64, nanos: u32) -> Wall {
        Wall(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos)))
    }

    /// Whole seconds, rounded towards minus infinity, and the nanoseconds within the second.
    #[must_use]
    pub fn parts(self) -> (i64, u32) {
        let nanos = self.0.rem_euclid(1_000_000_000);
        (self.0.div_euclid(1_000_000_000), nanos as u32)
    }
}

/// The two clocks at the moment of an input.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Now {
    /// For deadlines, leases and timers.
    pub mono: Mono,
    /// For timestamps that files carry.
    pub wall: Wall,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip_on_both_sides_of_the_epoch() {
        for nanos in [-1_500_000_001, -1, 0, 1, 1_999_999_999] {
            let (s, n) = Wall(nanos).parts();
            assert_eq!(Wall::from_parts(s, n), Wall(nanos));
            assert!(n < 1_000_000_000);
        }
    }
}
