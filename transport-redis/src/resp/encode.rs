//! Commands to bytes. Heads are written by hand into one buffer; a large argument is never
//! copied but takes its own place in the `writev`.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Arguments from this length are sent from where they are.
const OWN_SLICE: usize = 4 * 1024;
/// An emptied buffer above this is given back.
const KEEP: usize = 64 * 1024;

/// Bytes on their way out, in order.
///
/// ```
/// use dbmount_transport_redis::resp::Outbox;
/// let mut outbox = Outbox::default();
/// outbox.command(2);
/// outbox.text(b"GET");
/// outbox.argument(&"greeting".into());
/// assert_eq!(outbox.len(), b"*2\r\n$3\r\nGET\r\n$8\r\ngreeting\r\n".len());
/// ```
#[derive(Debug, Default)]
pub struct Outbox {
    /// Finished pieces, then `open`.
    chunks: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
}

impl Outbox {
    /// Bytes not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Begins a command of so many arguments, its name included.
    pub fn command(&mut self, arguments: usize) {
        self.head(b'*', arguments);
    }

    /// Adds a short argument.
    pub fn text(&mut self, argument: &[u8]) {
        self.head(b'$', argument.len());
        self.open.reserve(argument.len() + 2);
        self.open.put_slice(argument);
        self.open.put_slice(b"\r\n");
        self.len += argument.len() + 2;
    }

    /// Adds a number as an argument.
    pub fn number(&mut self, number: usize) {
        let (digits, from) = decimal(number);
        self.text(&digits[from..]);
    }

    /// Adds an argument of any length.
    pub fn argument(&mut self, argument: &Bytes) {
        if argument.len() < OWN_SLICE {
            return self.text(argument);
        }
        self.head(b'$', argument.len());
        self.chunks.push_back(self.open.split().freeze());
        self.chunks.push_back(argument.clone());
        self.open.put_slice(b"\r\n");
        self.len += argument.len() + 2;
    }

    fn head(&mut self, marker: u8, number: usize) {
        let (digits, from) = decimal(number);
        let digits = &digits[from..];
        self.open.reserve(digits.len() + 3);
        self.open.put_u8(marker);
        self.open.put_slice(digits);
        self.open.put_slice(b"\r\n");
        self.len += digits.len() + 3;
    }

    /// Lays the next bytes into `slices`; returns how many slices and how many bytes those are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> (usize, usize) {
        let pieces = self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.open[..]]);
        let (mut count, mut bytes) = (0, 0);
        for (slot, piece) in slices.iter_mut().zip(pieces.filter(|piece| !piece.is_empty())) {
            *slot = IoSlice::new(piece);
            count += 1;
            bytes += piece.len();
        }
        (count, bytes)
    }

    /// So many bytes were written.
    pub fn advance(&mut self, mut written: usize) {
        self.len -= written;
        while let Some(chunk) = self.chunks.front_mut() {
            if written < chunk.len() {
                chunk.advance(written);
                return;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
        self.open.advance(written);
        if self.open.is_empty() {
            if self.open.capacity() > KEEP {
                self.open = BytesMut::new();
            } else {
                self.open.clear();
            }
        }
    }
}

/// The decimal digits of a number, at the end of the array from the index on.
fn decimal(mut number: usize) -> ([u8; 20], usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return (digits, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICES: usize = 16;

    fn bytes(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (count, _) = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_large_argument_is_not_copied() {
        let value = Bytes::from(vec![b'x'; 1 << 20]);
        let mut outbox = Outbox::default();
        outbox.command(3);
        outbox.text(b"SET");
        outbox.text(b"key");
        outbox.argument(&value);
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (count, len) = outbox.slices(&mut slices);
        assert_eq!((count, len), (3, outbox.len()));
        assert_eq!(slices[0][..], b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1048576\r\n"[..]);
        assert_eq!(slices[1].as_ptr(), value.as_ptr());
        assert_eq!(slices[2][..], b"\r\n"[..]);
    }

    #[test]
    fn any_cut_of_the_writes_gives_the_same_bytes() {
        let fill = |outbox: &mut Outbox| {
            for len in [0, 1, OWN_SLICE - 1, OWN_SLICE, OWN_SLICE + 1] {
                outbox.command(len);
                outbox.argument(&Bytes::from(vec![b'a'; len]));
                outbox.number(len);
            }
        };
        let mut whole = Outbox::default();
        fill(&mut whole);
        let whole = bytes(&whole);
        for step in [1, 2, 3, 7, 4096, 5000] {
            let mut outbox = Outbox::default();
            fill(&mut outbox);
            let mut got = Vec::new();
            while !outbox.is_empty() {
                let now = bytes(&outbox);
                let n = now.len().min(step);
                got.extend_from_slice(&now[..n]);
                outbox.advance(n);
            }
            assert_eq!(got, whole);
        }
    }
}
