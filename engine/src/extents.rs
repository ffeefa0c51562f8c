//! Byte ranges of a file that are not on the server yet.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

/// Non-overlapping ranges by offset. Neighbouring appends grow one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    ranges: BTreeMap<u64, BytesMut>,
    bytes: usize,
}

impl Extents {
    /// How many bytes all ranges hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Where the last range ends; 0 when there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(at, data)| at + data.len() as u64)
    }

    /// Puts `data` at `offset`, over what was there.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        if let Some((&at, range)) = self.ranges.range_mut(..=offset).next_back() {
            let range_end = at + range.len() as u64;
            if end <= range_end {
                let from = (offset - at) as usize;
                range[from..from + data.len()].copy_from_slice(data);
                return;
            }
        }
        self.clear(offset, end);
        self.bytes += data.len();
        if let Some((&at, range)) = self.ranges.range_mut(..offset).next_back()
            && at + range.len() as u64 == offset
        {
            range.extend_from_slice(data);
            return;
        }
        self.ranges.insert(offset, BytesMut::from(data));
    }

    /// Takes away what lies in `from..to`.
    pub fn clear(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        if let Some((&at, range)) = self.ranges.range_mut(..from).next_back() {
            let range_end = at + range.len() as u64;
            if range_end > from {
                let mut tail = range.split_off((from - at) as usize);
                if range_end > to {
                    let kept = tail.split_off((to - from) as usize);
                    self.ranges.insert(to, kept);
                }
                self.bytes -= tail.len();
            }
        }
        let inside: Vec<u64> = self.ranges.range(from..to).map(|(&at, _)| at).collect();
        for at in inside {
            let Some(mut range) = self.ranges.remove(&at) else { continue };
            if at + range.len() as u64 > to {
                let kept = range.split_off((to - at) as usize);
                self.ranges.insert(to, kept);
            }
            self.bytes -= range.len();
        }
    }

    /// Copies what lies in the window over `into`, whose first byte is at `offset`.
    pub fn overlay(&self, offset: u64, into: &mut [u8]) {
        let end = offset + into.len() as u64;
        let first = self.ranges.range(..=offset).next_back().map_or(offset, |(&at, _)| at);
        for (&at, range) in self.ranges.range(first..end) {
            let from = at.max(offset);
            let to = (at + range.len() as u64).min(end);
            if from < to {
                into[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&range[(from - at) as usize..(to - at) as usize]);
            }
        }
    }

    /// Whether one range covers all of `from..to`.
    #[must_use]
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.ranges
            .range(..=from)
            .next_back()
            .is_some_and(|(&at, range)| at + range.len() as u64 >= to)
    }

    /// Any byte of `from..to` is here.
    #[must_use]
    pub fn touches(&self, from: u64, to: u64) -> bool {
        self.ranges
            .range(..to)
            .next_back()
            .is_some_and(|(&at, range)| at + range.len() as u64 > from)
    }
}

/// Ranges on their way to the server: frozen, shared with the commands that carry them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    ranges: Vec<(u64, Bytes)>,
}

impl Frozen {
    /// Takes the first ranges out of `extents`, up to `limit` bytes.
    pub fn take(extents: &mut Extents, limit: usize) -> Frozen {
        let mut frozen = Frozen::default();
        let mut room = limit;
        while room > 0
            && let Some((at, mut data)) = extents.ranges.pop_first()
        {
            if data.len() > room {
                let rest = data.split_off(room);
                extents.ranges.insert(at + room as u64, rest);
            }
            room -= data.len();
            extents.bytes -= data.len();
            frozen.ranges.push((at, data.freeze()));
        }
        frozen
    }

    /// Puts the ranges back under what was written since.
    pub fn give_back(self, extents: &mut Extents) {
        let newer = core::mem::take(extents);
        for (at, data) in self.ranges {
            extents.write(at, &data);
        }
        for (at, data) in newer.ranges {
            extents.write(at, &data);
        }
    }

    /// The ranges in ascending order.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, Bytes)] {
        &self.ranges
    }

    /// How many bytes all ranges hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ranges.iter().map(|(_, data)| data.len()).sum()
    }

    /// Where the last range ends; 0 when there is none.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |(at, data)| at + data.len() as u64)
    }

    /// Copies what lies in the window over `into`, whose first byte is at `offset`.
    pub fn overlay(&self, offset: u64, into: &mut [u8]) {
        let end = offset + into.len() as u64;
        for (at, range) in &self.ranges {
            let from = (*at).max(offset);
            let to = (at + range.len() as u64).min(end);
            if from < to {
                into[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&range[(from - at) as usize..(to - at) as usize]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Extents over a base read exactly like a flat array that took the same writes.
        #[test]
        fn reads_like_a_flat_array(
            ops in prop::collection::vec((0u64..64, 1usize..24, any::<u8>(), any::<bool>()), 1..40)
        ) {
            let mut extents = Extents::default();
            let mut flat = [None::<u8>; 96];
            for (at, len, byte, clear) in ops {
                let end = at + len as u64;
                if clear {
                    extents.clear(at, end);
                } else {
                    extents.write(at, &alloc::vec![byte; len]);
                }
                flat[at as usize..end as usize].fill(if clear { None } else { Some(byte) });
            }
            let mut seen = [0u8; 96];
            extents.overlay(0, &mut seen);
            for (i, want) in flat.iter().enumerate() {
                prop_assert_eq!(seen[i], want.unwrap_or(0));
                prop_assert_eq!(extents.touches(i as u64, i as u64 + 1), want.is_some());
            }
            prop_assert_eq!(extents.bytes(), flat.iter().flatten().count());
            let end = flat.iter().rposition(Option::is_some).map_or(0, |i| i as u64 + 1);
            prop_assert_eq!(extents.end(), end);
            let mut partial = [0u8; 10];
            extents.overlay(7, &mut partial);
            prop_assert_eq!(&partial[..], &seen[7..17]);
            let mut back = extents.clone();
            let frozen = Frozen::take(&mut back, 13);
            prop_assert!(frozen.bytes() <= 13);
            prop_assert_eq!(frozen.bytes() + back.bytes(), extents.bytes());
            let mut again = [0u8; 96];
            frozen.overlay(0, &mut again);
            back.overlay(0, &mut again);
            prop_assert_eq!(again, seen);
            frozen.give_back(&mut back);
            let mut given_back = [0u8; 96];
            back.overlay(0, &mut given_back);
            prop_assert_eq!(given_back, seen);
        }
    }
}
