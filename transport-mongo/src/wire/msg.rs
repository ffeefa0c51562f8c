//! OP_MSG (opcode 2013): one body document and any number of document sequences.
//!
//! Source: the OP_MSG specification and the MongoDB wire protocol reference.

use bytes::Bytes;

use super::build::{Gather, Segments};
use super::doc::Doc;
use super::frame::{Header, Op, RequestId};
use super::limits::{COMMAND_SLACK, HEADER_LEN, Limits, MAX_BATCH};
use crate::error::{Misuse, PeerError};

/// The flag bits of an OP_MSG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// Nothing set.
    pub const NONE: Flags = Flags(0);
    /// A CRC-32C of the message stands behind its last section.
    pub const CHECKSUM_PRESENT: Flags = Flags(1);
    /// Another message follows without a reply or request in between.
    pub const MORE_TO_COME: Flags = Flags(1 << 1);
    /// The client takes several replies to this request.
    pub const EXHAUST_ALLOWED: Flags = Flags(1 << 16);

    /// The bits a receiver must know: an unknown one among them is an error.
    const REQUIRED: u32 = 0xffff;

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether every bit of `other` is set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The raw bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Takes bits off the wire.
    ///
    /// # Errors
    /// An unknown bit among the required ones (0 to 15); unknown optional bits are dropped, as
    /// the specification demands.
    pub fn from_wire(bits: u32) -> Result<Flags, PeerError> {
        let known = Flags::CHECKSUM_PRESENT.0 | Flags::MORE_TO_COME.0;
        if bits & Flags::REQUIRED & !known != 0 {
            return Err(PeerError::new("an unknown required flag in OP_MSG", HEADER_LEN));
        }
        Ok(Flags(bits & (known | Flags::EXHAUST_ALLOWED.0)))
    }
}

pub use dbmount_engine::backend::mongo::Sequence;

/// A request to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The flag bits; a checksum is never written.
    pub flags: Flags,
    /// The command document, `$db` included.
    pub body: Segments,
    /// Its document sequences.
    pub sequences: Vec<Sequence>,
}

impl Request {
    /// Encodes the message with its header. Payloads are not copied.
    ///
    /// # Errors
    /// A document, batch or message over `limits`.
    pub fn encode(self, id: RequestId, limits: &Limits) -> Result<Segments, Misuse> {
        check_document(self.body.len(), limits.max_document + COMMAND_SLACK)?;
        let mut total = HEADER_LEN + 4 + 1 + self.body.len();
        for sequence in &self.sequences {
            if sequence.docs.len() > limits.max_batch {
                let (size, max) = (sequence.docs.len(), limits.max_batch);
                return Err(Misuse::BatchTooLarge { size, max });
            }
            if sequence.name.as_bytes().contains(&0) {
                return Err(Misuse::NulInName);
            }
            total += 1 + sequence_len(sequence);
            for doc in &sequence.docs {
                // An update statement is a command's part around one document.
                check_document(doc.len(), limits.max_document + COMMAND_SLACK)?;
            }
        }
        if total > limits.max_message {
            return Err(Misuse::MessageTooLarge { size: total, max: limits.max_message });
        }
        let mut out = Gather::default();
        out.copy(&Header { len: total, id, response_to: RequestId(0), op: Op::Msg }.encode());
        out.copy(&self.flags.bits().to_le_bytes());
        out.copy(&[0]);
        out.append(self.body);
        for sequence in self.sequences {
            out.copy(&[1]);
            out.copy(&(sequence_len(&sequence) as u32).to_le_bytes());
            out.copy(sequence.name.as_bytes());
            out.copy(&[0]);
            sequence.docs.into_iter().for_each(|doc| out.append(doc));
        }
        debug_assert_eq!(out.len(), total, "the header states what follows");
        Ok(out.finish())
    }
}

fn sequence_len(sequence: &Sequence) -> usize {
    4 + sequence.name.len() + 1 + sequence.docs.iter().map(Segments::len).sum::<usize>()
}

fn check_document(size: usize, max: usize) -> Result<(), Misuse> {
    if size > max { Err(Misuse::DocumentTooLarge { size, max }) } else { Ok(()) }
}

/// How many document sequences one message may carry; no server sends any.
const MAX_SEQUENCES: usize = 16;

/// A message off the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its flags.
    pub flags: Flags,
    /// The one kind 0 section.
    pub body: Doc,
    /// The kind 1 sections: name and documents.
    pub sequences: Vec<(Bytes, Vec<Doc>)>,
}

impl Message {
    /// Decodes what follows the header of an OP_MSG. The documents are slices of `body`. A
    /// checksum is tolerated and not verified: TCP and TLS have their own.
    ///
    /// # Errors
    /// Any broken rule: unknown required flags, unknown section kinds, no body or two, lengths
    /// that do not fit, malformed BSON.
    pub fn decode(body: &Bytes) -> Result<Message, PeerError> {
        let bits = body.get(..4).and_then(|raw| raw.try_into().ok()).map(u32::from_le_bytes);
        let flags = Flags::from_wire(bits.ok_or(PeerError::new("OP_MSG without flags", 0))?)?;
        let mut rest = body.slice(4..);
        if flags.has(Flags::CHECKSUM_PRESENT) {
            match rest.len().checked_sub(4) {
                Some(len) => rest.truncate(len),
                None => return Err(PeerError::new("OP_MSG without its checksum", 4)),
            }
        }
        let mut found = None;
        let mut sequences = Vec::new();
        while let Some(kind) = rest.first().copied() {
            rest = rest.slice(1..);
            match kind {
                0 if found.is_some() => return Err(PeerError::new("OP_MSG with two bodies", 0)),
                0 => {
                    let (doc, after) = Doc::split_off(&rest)?;
                    found = Some(doc);
                    rest = after;
                }
                1 if sequences.len() == MAX_SEQUENCES => {
                    return Err(PeerError::new("OP_MSG with too many document sequences", 0));
                }
                1 => {
                    let (sequence, after) = decode_sequence(&rest)?;
                    sequences.push(sequence);
                    rest = after;
                }
                _ => return Err(PeerError::new("OP_MSG section of unknown kind", 0)),
            }
        }
        let body = found.ok_or(PeerError::new("OP_MSG without a body", 0))?;
        Ok(Message { flags, body, sequences })
    }
}

fn decode_sequence(rest: &Bytes) -> Result<((Bytes, Vec<Doc>), Bytes), PeerError> {
    let cut = PeerError::new("OP_MSG document sequence longer than its room", 0);
    let stated = rest.get(..4).and_then(|raw| raw.try_into().ok()).map(u32::from_le_bytes);
    let len = stated.ok_or(cut)? as usize;
    if len < 5 || len > rest.len() {
        return Err(cut);
    }
    let section = rest.slice(4..len);
    let Some(nul) = section.iter().position(|b| *b == 0) else {
        return Err(PeerError::new("OP_MSG document sequence without a name", 0));
    };
    let name = section.slice(..nul);
    let mut docs = Vec::new();
    let mut left = section.slice(nul + 1..);
    while !left.is_empty() {
        // A handle is larger than the smallest document: without a cap, many tiny documents
        // would take several times the memory of their message.
        if docs.len() == MAX_BATCH {
            return Err(PeerError::new("OP_MSG document sequence of too many documents", 0));
        }
        let (doc, after) = Doc::split_off(&left)?;
        docs.push(doc);
        left = after;
    }
    Ok(((name, docs), rest.slice(len..)))
}
