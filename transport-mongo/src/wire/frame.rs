//! Message headers, and cutting a byte stream into frames. Lengths are checked before anything
//! is allocated for them; large frames are handed on without a copy.

use bytes::Bytes;

use super::compressed;
use super::limits::{HEADER_LEN, Limits};
use super::msg::Message;
use crate::error::PeerError;

/// Numbers a request on its connection; the reply names it in `responseTo`. Wraps around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub i32);

/// The opcodes in use since 5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// OP_MSG, 2013.
    Msg,
    /// OP_COMPRESSED, 2012.
    Compressed,
}

impl Op {
    /// The number on the wire.
    pub const fn code(self) -> i32 {
        match self {
            Op::Msg => 2013,
            Op::Compressed => 2012,
        }
    }

    /// The opcode of this number.
    ///
    /// # Errors
    /// Any other opcode: OP_REPLY and its kin went with 5.1, and we never send what they answer.
    pub fn from_code(code: i32) -> Result<Op, PeerError> {
        match code {
            2013 => Ok(Op::Msg),
            2012 => Ok(Op::Compressed),
            _ => Err(PeerError::new("an opcode that is neither OP_MSG nor OP_COMPRESSED", 12)),
        }
    }
}

/// The 16 bytes in front of every message, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Header {
    /// The whole message with this header, in bytes.
    pub len: usize,
    /// The sender's number for it.
    pub id: RequestId,
    /// The request it answers, 0 for none.
    pub response_to: RequestId,
    /// What follows.
    pub op: Op,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// A length shorter than the header or over `limits.max_message`, or an unknown opcode.
    pub fn decode(raw: &[u8; HEADER_LEN], limits: &Limits) -> Result<Header, PeerError> {
        let word = |at: usize| i32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let len = usize::try_from(word(0)).unwrap_or(0);
        if len < HEADER_LEN {
            return Err(PeerError::new("a message shorter than its header", 0));
        }
        if len > limits.max_message {
            return Err(PeerError::new("a message over maxMessageSizeBytes", 0));
        }
        let op = Op::from_code(word(12))?;
        Ok(Header { len, id: RequestId(word(4)), response_to: RequestId(word(8)), op })
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut raw = [0; HEADER_LEN];
        raw[..4].copy_from_slice(&(self.len as u32).to_le_bytes());
        raw[4..8].copy_from_slice(&self.id.0.to_le_bytes());
        raw[8..12].copy_from_slice(&self.response_to.0.to_le_bytes());
        raw[12..].copy_from_slice(&self.op.code().to_le_bytes());
        raw
    }
}

/// One whole message off the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Bytes,
}

impl Frame {
    /// Decodes the frame, decompressing it first if need be.
    ///
    /// # Errors
    /// Whatever [`compressed::decompress`] and [`Message::decode`] find wrong.
    pub fn message(&self, limits: &Limits) -> Result<Message, PeerError> {
        match self.header.op {
            Op::Msg => Message::decode(&self.body),
            Op::Compressed => Message::decode(&compressed::decompress(&self.body, limits)?),
        }
    }
}

/// Room for reading when no frame is under way.
const READ_AHEAD: usize = 64 * 1024;

/// What a header's claim alone may make us allocate; beyond it, as much again as has come.
const CLAIM_AHEAD: usize = 1024 * 1024;

/// Frames up to here are copied out, so that keeping a small reply does not keep a large buffer;
/// larger ones take the buffer with them.
const COPY_OUT: usize = 16 * 1024;

/// Cuts a byte stream into frames. Give it bytes through [`Framer::space`], take frames with
/// [`Framer::next_frame`] until there is none.
#[derive(Debug, Clone)]
pub struct Framer {
    buf: Vec<u8>,
    /// Bytes of `buf` already handed out.
    taken: usize,
    limits: Limits,
}

impl Framer {
    /// An empty framer.
    pub fn new(limits: Limits) -> Framer {
        Framer { buf: Vec::new(), taken: 0, limits }
    }

    /// Applies what the hello reply said.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The buffer to append read bytes to, with spare capacity. For a large frame it grows with
    /// what has come and not with what the header claims: a peer that claims 48 MB and sends
    /// nothing costs a megabyte.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.buf.drain(..self.taken);
            self.taken = 0;
        }
        let len = self.buf.len();
        let want = match self.peek() {
            Ok(Some(header)) => header.len.saturating_sub(len).clamp(1, CLAIM_AHEAD.max(len)),
            _ => READ_AHEAD,
        };
        if self.buf.capacity() - len < want {
            // Exact, so that a frame's buffer is the frame and not up to twice that.
            self.buf.reserve_exact(want.max(READ_AHEAD.saturating_sub(len)));
        }
        &mut self.buf
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// A header that breaks a bound. The stream cannot be read on after that.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, PeerError> {
        let Some(header) = self.peek()? else { return Ok(None) };
        let end = self.taken + header.len;
        if self.buf.len() < end {
            return Ok(None);
        }
        let from = self.taken + HEADER_LEN;
        if header.len <= COPY_OUT {
            let body = Bytes::copy_from_slice(&self.buf[from..end]);
            self.taken = end;
            if self.taken == self.buf.len() {
                self.buf.clear();
                self.taken = 0;
            }
            return Ok(Some(Frame { header, body }));
        }
        let rest = self.buf.split_off(end);
        let whole = Bytes::from(std::mem::replace(&mut self.buf, rest));
        self.taken = 0;
        Ok(Some(Frame { header, body: whole.slice(from..end) }))
    }

    fn peek(&self) -> Result<Option<Header>, PeerError> {
        match self.buf[self.taken..].first_chunk::<HEADER_LEN>() {
            Some(raw) => Header::decode(raw, &self.limits).map(Some),
            None => Ok(None),
        }
    }
}
