//! A resumable decoder: it never looks twice at a byte, and large strings are read from the
//! socket straight into the memory they stay in.

use std::io;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use dbmount_engine::backend::redis::Reply;

use super::{Frame, Limits, ProtocolError, Source};

/// The receive buffer. Everything but large strings arrives here.
const BUFFER: usize = 64 * 1024;
/// Less room than this behind the received bytes, and they are moved to the front.
const MIN_ROOM: usize = 16 * 1024;
/// Shorter strings are copied out: a name that a cache keeps must not keep a buffer alive.
const COPY_BELOW: usize = 1024;
/// Strings from this length that have not wholly arrived get memory of their own. Shorter ones,
/// and lines, must fit into the buffer beside what is left to read.
const OWN_FROM: usize = 16 * 1024;
/// How far the memory for a string runs ahead of the bytes that came for it: a length is only a
/// claim.
const OWN_STEP: usize = 4 << 20;

/// Turns received bytes into [`Frame`]s.
///
/// ```
/// use dbmount_transport_redis::resp::{Decoder, Frame, Limits};
/// use dbmount_engine::backend::redis::Reply;
/// let mut decoder = Decoder::new(Limits::default());
/// decoder.receive(&mut &b"+OK\r\n:4"[..])?;
/// assert_eq!(decoder.next_frame()?, Some(Frame::Reply(Reply::Status("OK".into()))));
/// assert_eq!(decoder.next_frame()?, None);
/// decoder.receive(&mut &b"2\r\n"[..])?;
/// assert_eq!(decoder.next_frame()?, Some(Frame::Reply(Reply::Int(42))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Initialised from end to end, so that it can be read into; `start..filled` is received and
    /// not consumed.
    buf: BytesMut,
    start: usize,
    filled: usize,
    /// So many bytes from `start` are known to hold no line feed.
    scanned: usize,
    /// Strings were split off this buffer and may still be in use.
    shared: bool,
    state: State,
    /// The aggregates that are open, outermost first.
    stack: Vec<Level>,
    /// Elements and string bytes of the frame in progress, against the limits.
    elements: usize,
    payload: usize,
}

#[derive(Debug)]
enum State {
    /// At the start of a value's line.
    Line,
    /// Within a string that fits the buffer.
    Body(Text, usize),
    /// Within a string that has memory of its own; how much it needs, line end included.
    Own(Text, usize, Vec<u8>),
    /// Nothing more comes of it.
    Failed(ProtocolError),
}

/// What the bytes of a string are for.
#[derive(Clone, Copy, Debug)]
enum Text {
    Bulk,
    Error,
    Verbatim,
}

#[derive(Debug)]
struct Level {
    shape: Shape,
    left: usize,
    items: Vec<Reply>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Array,
    Push,
    /// Read and dropped; the value it speaks of follows.
    Attribute,
}

/// What a line said.
enum Token {
    Value(Reply),
    Text(Text, usize),
    Open(Shape, usize),
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits,
            buf: BytesMut::zeroed(BUFFER),
            start: 0,
            filled: 0,
            scanned: 0,
            shared: false,
            state: State::Line,
            stack: Vec::new(),
            elements: 0,
            payload: 0,
        }
    }

    /// Changes the limits, from the next value on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Reads once from `source`. Returns how many bytes came (0: the end) and whether all the
    /// room was used, so that more may be waiting.
    ///
    /// Take all frames with [`Decoder::next_frame`] before receiving again.
    ///
    /// # Errors
    /// Those of the source; `OutOfMemory` when the frames were not taken.
    pub fn receive(&mut self, source: &mut impl Source) -> io::Result<(usize, bool)> {
        if let State::Own(_, need, body) = &mut self.state {
            if body.len() == body.capacity() {
                body.reserve_exact((*need - body.len()).min(body.len().max(OWN_STEP)));
            }
            let n = source.append(body)?;
            let full = body.len() == body.capacity();
            if body.len() > *need {
                // An allocator may round up, and a source use it.
                let excess = body.split_off(*need);
                self.buf = BytesMut::from(&excess[..]);
                self.buf.resize(excess.len().max(BUFFER), 0);
                (self.start, self.filled, self.shared) = (0, excess.len(), false);
            }
            return Ok((n, full));
        }
        self.make_room();
        let room = &mut self.buf[self.filled..];
        if room.is_empty() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let size = room.len();
        let n = source.fill(room)?;
        self.filled += n;
        Ok((n, n == size))
    }

    /// How much memory it holds for what has not become a frame yet, without the strings of
    /// finished elements, which are no longer than what was received.
    #[must_use]
    pub fn memory(&self) -> usize {
        let own = match &self.state {
            State::Own(_, _, body) => body.capacity(),
            _ => 0,
        };
        let items: usize = self.stack.iter().map(|level| level.items.capacity()).sum();
        self.buf.capacity() + own + items * size_of::<Reply>()
    }

    fn make_room(&mut self) {
        if self.start == self.filled && !self.shared {
            (self.start, self.filled) = (0, 0);
        }
        if self.buf.len() - self.filled >= MIN_ROOM {
            return;
        }
        let pending = self.start..self.filled;
        let len = pending.len();
        if self.shared {
            let mut fresh = BytesMut::zeroed(BUFFER.max(len));
            fresh[..len].copy_from_slice(&self.buf[pending]);
            self.buf = fresh;
            self.shared = false;
        } else {
            self.buf.copy_within(pending, 0);
        }
        (self.start, self.filled) = (0, len);
    }

    /// The next whole frame, if its last byte has come.
    ///
    /// # Errors
    /// A [`ProtocolError`], and the same one ever after.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let result = self.advance();
        if let Err(error) = &result {
            self.state = State::Failed(error.clone());
            self.stack = Vec::new();
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            let value = match &mut self.state {
                State::Line => match self.take_line()? {
                    None => return Ok(None),
                    Some(Token::Value(value)) => value,
                    Some(Token::Text(text, len)) => {
                        self.expect_text(text, len)?;
                        continue;
                    }
                    Some(Token::Open(shape, count)) => match self.open(shape, count)? {
                        None => continue,
                        Some(value) => value,
                    },
                },
                State::Body(text, len) => {
                    let (text, len) = (*text, *len);
                    if self.filled - self.start < len + 2 {
                        return Ok(None);
                    }
                    let body = self.take_body(len)?;
                    self.state = State::Line;
                    finish(text, body)?
                }
                State::Own(text, need, body) => {
                    if body.len() < *need {
                        return Ok(None);
                    }
                    let text = *text;
                    let mut body = mem::take(body);
                    if !body.ends_with(b"\r\n") {
                        return Err(ProtocolError::Unterminated);
                    }
                    body.truncate(body.len() - 2);
                    self.state = State::Line;
                    finish(text, Bytes::from(body))?
                }
                State::Failed(error) => return Err(error.clone()),
            };
            if let Some(frame) = self.settle(value) {
                (self.elements, self.payload) = (0, 0);
                return Ok(Some(frame));
            }
        }
    }

    /// Reads the line of a value's head, when it is complete.
    fn take_line(&mut self) -> Result<Option<Token>, ProtocolError> {
        let pending = &self.buf[self.start..self.filled];
        let Some(&marker) = pending.first() else { return Ok(None) };
        // At once, rather than at the end of a line: what is no Redis server may never send one.
        if !b"+-:$*_#,(=!%~|>".contains(&marker) {
            return Err(ProtocolError::Marker(marker));
        }
        let Some(end) = pending[self.scanned..].iter().position(|&b| b == b'\n') else {
            self.scanned = pending.len();
            if self.scanned > Limits::LINE {
                return Err(ProtocolError::LineTooLong);
            }
            return Ok(None);
        };
        let end = self.scanned + end;
        if end > Limits::LINE {
            return Err(ProtocolError::LineTooLong);
        }
        if end < 2 || pending[end - 1] != b'\r' {
            return Err(ProtocolError::LineEnd);
        }
        let token = token(marker, &pending[1..end - 1])?;
        self.start += end + 1;
        self.scanned = 0;
        Ok(Some(token))
    }

    fn expect_text(&mut self, text: Text, len: usize) -> Result<(), ProtocolError> {
        self.payload = self.payload.saturating_add(len);
        if len > self.limits.bulk || self.payload > self.limits.frame {
            return Err(ProtocolError::TooLong(len as u64));
        }
        let here = self.filled - self.start;
        self.state = if len < OWN_FROM || here >= len + 2 {
            State::Body(text, len)
        } else {
            let mut body = Vec::with_capacity((len + 2).min(OWN_STEP));
            body.extend_from_slice(&self.buf[self.start..self.filled]);
            self.start = self.filled;
            State::Own(text, len + 2, body)
        };
        Ok(())
    }

    /// Takes a string of `len` bytes and its line end, both of which are here.
    fn take_body(&mut self, len: usize) -> Result<Bytes, ProtocolError> {
        let end = self.start + len;
        if &self.buf[end..end + 2] != b"\r\n" {
            return Err(ProtocolError::Unterminated);
        }
        if len < COPY_BELOW {
            let body = Bytes::copy_from_slice(&self.buf[self.start..end]);
            self.start = end + 2;
            return Ok(body);
        }
        self.buf.advance(self.start);
        let body = self.buf.split_to(len).freeze();
        self.buf.advance(2);
        self.filled -= end + 2;
        self.start = 0;
        self.shared = true;
        Ok(body)
    }

    /// Opens an aggregate; an empty one is a value already.
    fn open(&mut self, shape: Shape, count: usize) -> Result<Option<Reply>, ProtocolError> {
        self.elements = self.elements.saturating_add(count);
        if self.elements > self.limits.elements {
            return Err(ProtocolError::TooMany(self.elements as u64));
        }
        if shape == Shape::Push && (!self.stack.is_empty() || count == 0) {
            return Err(ProtocolError::NestedPush);
        }
        if count == 0 {
            return Ok((shape == Shape::Array).then(|| Reply::Array(Vec::new())));
        }
        if self.stack.len() == Limits::DEPTH {
            return Err(ProtocolError::TooDeep);
        }
        // The count is a claim too.
        let items = match shape {
            Shape::Attribute => Vec::new(),
            _ => Vec::with_capacity(count.min(1024)),
        };
        self.stack.push(Level { shape, left: count, items });
        Ok(None)
    }

    /// Puts a value where it belongs; a frame when that completes one.
    fn settle(&mut self, mut value: Reply) -> Option<Frame> {
        loop {
            let Some(level) = self.stack.last_mut() else { return Some(Frame::Reply(value)) };
            level.left -= 1;
            if level.shape != Shape::Attribute {
                level.items.push(value);
            }
            if level.left > 0 {
                return None;
            }
            let level = self.stack.pop()?;
            match level.shape {
                Shape::Array => value = Reply::Array(level.items),
                Shape::Push => return Some(Frame::Push(level.items)),
                Shape::Attribute => return None,
            }
        }
    }
}

/// The value of a string, now that it is whole.
fn finish(text: Text, mut body: Bytes) -> Result<Reply, ProtocolError> {
    Ok(match text {
        Text::Bulk => Reply::Bulk(body),
        Text::Error => Reply::Error(String::from_utf8_lossy(&body).into_owned()),
        Text::Verbatim => {
            if body.get(3) != Some(&b':') {
                return Err(malformed(&body));
            }
            body.advance(4);
            Reply::Bulk(body)
        }
    })
}

fn token(marker: u8, line: &[u8]) -> Result<Token, ProtocolError> {
    let text = || String::from_utf8_lossy(line).into_owned();
    let valid = |ok: bool| match ok {
        true => Ok(Token::Value(Reply::Bulk(Bytes::copy_from_slice(line)))),
        false => Err(malformed(line)),
    };
    Ok(match marker {
        b'+' => Token::Value(Reply::Status(text())),
        b'-' => Token::Value(Reply::Error(text())),
        b':' => Token::Value(Reply::Int(integer(line)?)),
        b'$' if line == b"-1" => Token::Value(Reply::Nil),
        b'*' if line == b"-1" => Token::Value(Reply::Nil),
        b'$' => Token::Text(Text::Bulk, length(line)?),
        b'!' => Token::Text(Text::Error, length(line)?),
        b'=' => Token::Text(Text::Verbatim, length(line)?),
        b'*' | b'~' => Token::Open(Shape::Array, length(line)?),
        b'%' => Token::Open(Shape::Array, pairs(line)?),
        b'|' => Token::Open(Shape::Attribute, pairs(line)?),
        b'>' => Token::Open(Shape::Push, length(line)?),
        b'_' if line.is_empty() => Token::Value(Reply::Nil),
        b'#' if line == b"t" => Token::Value(Reply::Int(1)),
        b'#' if line == b"f" => Token::Value(Reply::Int(0)),
        b',' => valid(str::from_utf8(line).is_ok_and(|text| text.parse::<f64>().is_ok()))?,
        b'(' => {
            let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
            valid(!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?
        }
        _ => return Err(malformed(line)),
    })
}

fn integer(line: &[u8]) -> Result<i64, ProtocolError> {
    let text = str::from_utf8(line).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| malformed(line))
}

fn length(line: &[u8]) -> Result<usize, ProtocolError> {
    if line.is_empty() || line.len() > 19 {
        return Err(malformed(line));
    }
    line.iter().try_fold(0_usize, |n, &digit| match digit {
        b'0'..=b'9' => n
            .checked_mul(10)
            .and_then(|n| n.checked_add(usize::from(digit - b'0')))
            .ok_or_else(|| malformed(line)),
        _ => Err(malformed(line)),
    })
}

fn pairs(line: &[u8]) -> Result<usize, ProtocolError> {
    let count = length(line)?;
    count.checked_mul(2).ok_or(ProtocolError::TooMany(count as u64))
}

fn malformed(line: &[u8]) -> ProtocolError {
    ProtocolError::Malformed(line[..line.len().min(40)].escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder) -> Bytes {
        match decoder.next_frame() {
            Ok(Some(Frame::Reply(Reply::Bulk(body)))) => body,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn middling_strings_are_slices_of_the_buffer_and_short_ones_are_not() {
        for (len, within) in [(10, false), (COPY_BELOW - 1, false), (COPY_BELOW, true)] {
            let mut decoder = Decoder::new(Limits::default());
            let text = format!("${len}\r\n{}\r\n", "x".repeat(len));
            decoder.receive(&mut text.as_bytes()).unwrap();
            let buffer = decoder.buf.as_ptr_range();
            let body = decode(&mut decoder);
            assert_eq!(buffer.contains(&body.as_ptr()), within, "{len}");
            assert_eq!(body.len(), len);
        }
    }

    #[test]
    fn a_large_string_is_read_where_it_stays() {
        let mut decoder = Decoder::new(Limits::default());
        let text = format!("$1048576\r\n{}\r\n+OK\r\n", "x".repeat(1 << 20));
        let (mut first, mut rest) = text.as_bytes().split_at(100);
        decoder.receive(&mut first).unwrap();
        assert_eq!(decoder.next_frame(), Ok(None));
        let State::Own(_, _, body) = &decoder.state else { panic!("{decoder:?}") };
        let place = body.as_ptr();
        // One read, although it is far more than the buffer holds.
        decoder.receive(&mut rest).unwrap();
        assert_eq!(decode(&mut decoder).as_ptr(), place);
        decoder.receive(&mut rest).unwrap();
        assert_eq!(decoder.next_frame(), Ok(Some(Frame::Reply(Reply::Status("OK".into())))));
    }

    #[test]
    fn claims_take_no_memory() {
        let cheap = BUFFER + OWN_STEP + Limits::DEPTH * 1024 * size_of::<Reply>();
        for claim in ["$500000000\r\n", "*16000000\r\n", "%8000000\r\n", ">16000000\r\n"] {
            let mut decoder = Decoder::new(Limits::default());
            decoder.receive(&mut claim.as_bytes()).unwrap();
            assert_eq!(decoder.next_frame(), Ok(None));
            assert!(decoder.memory() <= cheap, "{claim}: {}", decoder.memory());
        }
    }
}
