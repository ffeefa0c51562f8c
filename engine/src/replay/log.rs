//! The format of a log: entries in frames, frames in bytes. Reading is fed with bytes as they come
//! and holds one frame.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher as _;

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use twox_hash::xxhash3_64::Hasher;

use super::Head;
use crate::backend::Backend;
use crate::contract::{Input, Output};
use crate::time::{Mono, Now, Wall};

/// The version of the format that is written. All versions up to it can be read.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8] = b"dbmount replay log ";
/// A frame is closed when it holds so many bytes.
const FRAME: usize = 64 << 10;
/// A larger frame holds contents of files, which are not worth the time to compress.
const PACKED: usize = 256 << 10;
/// The most one frame can hold: one input, with a reply of the largest size.
const LARGEST: usize = 1 << 30;
/// Compression never does better than this (LZ4 block format).
const DENSEST: usize = 255;
/// Of a frame before its bytes: length, length as packed, digest of both and the packed bytes.
const FRAME_HEAD: usize = 16;
/// Of an entry before its bytes: kind and length.
const ENTRY_HEAD: usize = 5;

const INPUT: u8 = b'i';
const OUTPUTS: u8 = b'o';

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// It is no log.
    Foreign,
    /// It was written by a newer program, in this format.
    Newer(u32),
    /// It is of a layout that this program does not know.
    Layout(String),
    /// It does not make sense.
    Corrupt {
        /// In bytes from its beginning.
        at: u64,
        /// What does not.
        what: String,
    },
    /// Something cannot be written into a log.
    Unwritable(String),
}

impl LogError {
    pub(super) fn unwritable(error: &dyn fmt::Display) -> LogError {
        LogError::Unwritable(error.to_string())
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Foreign => {
                write!(f, "not a replay log; `dbmount mount --record FILE` writes them")
            }
            LogError::Newer(format) => write!(
                f,
                "written in format {format} by a newer dbmount; this one reads up to {FORMAT}"
            ),
            LogError::Layout(name) => {
                write!(f, "a log of the layout {name:?}, which this dbmount does not know")
            }
            LogError::Corrupt { at, what } => write!(f, "corrupt at byte {at}: {what}"),
            LogError::Unwritable(what) => write!(f, "cannot be written into a log: {what}"),
        }
    }
}

impl core::error::Error for LogError {}

/// Turns a session into the bytes of a log.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// Entries of the frame that is open.
    open: Vec<u8>,
    /// Frames that are closed, and not taken yet.
    closed: Vec<u8>,
    last: Now,
    /// Frames over so many bytes are stored as they are.
    packed: usize,
}

impl Encoder {
    /// Begins a log.
    ///
    /// # Errors
    /// [`LogError::Unwritable`].
    pub fn new(head: &Head) -> Result<Encoder, LogError> {
        let mut encoder = Encoder {
            open: Vec::new(),
            closed: format!("{}{FORMAT}\n", MAGIC.escape_ascii()).into_bytes(),
            last: head.now,
            // Zeros in place of contents pack well.
            packed: if head.contents { PACKED } else { LARGEST },
        };
        write(head, &mut encoder.open)?;
        encoder.close();
        Ok(encoder)
    }

    /// What happened to the engine, and when.
    ///
    /// # Errors
    /// [`LogError::Unwritable`]; nothing of it is in the log then.
    pub fn input<B: Backend>(&mut self, now: Now, input: &Input<B>) -> Result<(), LogError> {
        let mono = now.mono.0.wrapping_sub(self.last.mono.0) as i64;
        // The two clocks mostly go at the same rate.
        let wall = now.wall.0.wrapping_sub(self.last.wall.0).wrapping_sub(mono);
        self.entry(INPUT, &(mono, wall, input))?;
        self.last = now;
        Ok(())
    }

    /// What came of the last input.
    ///
    /// # Errors
    /// As [`input`](Self::input).
    pub fn outputs<B: Backend>(&mut self, outputs: &[Output<B>]) -> Result<(), LogError> {
        self.entry(OUTPUTS, &outputs)
    }

    fn entry(&mut self, kind: u8, value: &impl Serialize) -> Result<(), LogError> {
        let start = self.open.len();
        self.open.push(kind);
        self.open.extend_from_slice(&[0; ENTRY_HEAD - 1]);
        let written = write(value, &mut self.open);
        let len = self.open.len() - start - ENTRY_HEAD;
        let fits = match written {
            Ok(()) if len <= LARGEST - FRAME => Ok(()),
            Ok(()) => Err(LogError::Unwritable(format!("an entry of {len} bytes"))),
            Err(error) => Err(error),
        };
        if fits.is_err() {
            self.open.truncate(start);
            return fits;
        }
        let len = (len as u32).to_le_bytes();
        self.open[start + 1..start + ENTRY_HEAD].copy_from_slice(&len);
        if self.open.len() >= FRAME {
            self.close();
        }
        Ok(())
    }

    /// Closes the open frame.
    fn close(&mut self) {
        let raw = self.open.len();
        if raw == 0 {
            return;
        }
        let squeezed = (raw <= self.packed)
            .then(|| lz4_flex::block::compress(&self.open))
            .filter(|it| it.len() < raw);
        let packed = squeezed.as_ref().unwrap_or(&self.open);
        let mut lens = [0; 8];
        lens[..4].copy_from_slice(&(raw as u32).to_le_bytes());
        lens[4..].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        self.closed.extend_from_slice(&lens);
        self.closed.extend_from_slice(&digest(&lens, packed).to_le_bytes());
        self.closed.extend_from_slice(packed);
        self.open.clear();
        // One large input must not stay in memory for the rest of the session.
        self.open.shrink_to(2 * FRAME);
    }

    /// The bytes of the frames that are closed by now; with `all`, of everything.
    pub fn take(&mut self, all: bool) -> Vec<u8> {
        if all {
            self.close();
        }
        core::mem::take(&mut self.closed)
    }
}

fn digest(lens: &[u8], packed: &[u8]) -> u64 {
    let mut hasher = Hasher::new();
    hasher.write(lens);
    hasher.write(packed);
    hasher.finish()
}

pub(super) fn write(value: &impl Serialize, to: &mut Vec<u8>) -> Result<(), LogError> {
    ciborium::into_writer(value, to).map_err(|error| LogError::unwritable(&error))
}

/// Reads exactly one value.
pub(super) fn read<T: DeserializeOwned>(mut from: &[u8]) -> Result<T, String> {
    let value = ciborium::from_reader(&mut from).map_err(|error| match error {
        ciborium::de::Error::Semantic(_, what) => what,
        ciborium::de::Error::RecursionLimitExceeded => String::from("nested too deep"),
        other => format!("not CBOR: {other:?}"),
    })?;
    match from {
        [] => Ok(value),
        rest => Err(format!("{} bytes too many", rest.len())),
    }
}

/// What comes next in a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<B: Backend> {
    /// Something happened to the engine.
    Input(Now, Input<B>),
    /// What came of it, as [`Player`](super::Player) takes it.
    Outputs(Bytes),
    /// More of the log is needed: [`Decoder::feed`], or [`Decoder::end`].
    More,
    /// The log is over. It was torn if so many bytes are left at its end.
    End {
        /// Bytes of a frame that was not written to its end.
        torn: u64,
    },
}

/// Reads a log.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    fed: BytesMut,
    ended: bool,
    /// What of the log has been used up, in bytes.
    at: u64,
    /// What is left of the frame at hand.
    frame: Bytes,
    begun: bool,
    last: Now,
    /// Bytes of a frame that is not whole, and of what comes after it.
    tail: Option<u64>,
}

impl Decoder {
    /// A decoder that has been fed nothing.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Some more of the log.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed.extend_from_slice(bytes);
    }

    /// There is no more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The beginning of the log; `None` when more of it is needed. Called until it is there, and
    /// before [`next`](Self::next).
    ///
    /// # Errors
    /// [`LogError`]: it is no log, or none for this program.
    pub fn head(&mut self) -> Result<Option<Head>, LogError> {
        if !self.begun {
            let known = self.fed.len().min(MAGIC.len());
            if self.fed[..known] != MAGIC[..known] || (self.ended && known < MAGIC.len()) {
                return Err(LogError::Foreign);
            }
            // A version has at most ten digits.
            let line = self.fed.iter().take(MAGIC.len() + 11).position(|&byte| byte == b'\n');
            let Some(line) = line else {
                let foreign = self.ended || self.fed.len() > MAGIC.len() + 10;
                return if foreign { Err(LogError::Foreign) } else { Ok(None) };
            };
            let version = core::str::from_utf8(&self.fed[MAGIC.len()..line]).ok();
            let version: u32 = version.and_then(|it| it.parse().ok()).ok_or(LogError::Foreign)?;
            if version > FORMAT || version == 0 {
                return Err(LogError::Newer(version));
            }
            self.take(line + 1);
            self.begun = true;
        }
        let at = self.at;
        if !self.next_frame()? {
            if self.ended {
                return Err(self.corrupt(at, "it ends before it begins"));
            }
            return Ok(None);
        }
        let head: Head = read(&self.frame).map_err(|what| LogError::Corrupt { at, what })?;
        self.frame.clear();
        self.last = head.now;
        Ok(Some(head))
    }

    /// The next entry.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    #[allow(clippy::should_implement_trait, reason = "an iterator has no type parameter here")]
    pub fn next<B: Backend>(&mut self) -> Result<Entry<B>, LogError> {
        while self.frame.is_empty() {
            if !self.next_frame()? {
                let torn = self.tail.unwrap_or(0) + self.fed.len() as u64;
                return Ok(if self.ended { Entry::End { torn } } else { Entry::More });
            }
        }
        let at = self.at;
        let broken = || LogError::Corrupt { at, what: String::from("an entry is cut off") };
        if self.frame.len() < ENTRY_HEAD {
            return Err(broken());
        }
        let kind = self.frame.get_u8();
        let len = self.frame.get_u32_le() as usize;
        if len > self.frame.len() {
            return Err(broken());
        }
        let entry = self.frame.split_to(len);
        match kind {
            INPUT => {
                let (mono, wall, input): (i64, i64, Input<B>) =
                    read(&entry).map_err(|what| self.corrupt(at, &format!("an input: {what}")))?;
                let last = self.last;
                self.last = Now {
                    mono: Mono(last.mono.0.wrapping_add(mono as u64)),
                    wall: Wall(last.wall.0.wrapping_add(mono).wrapping_add(wall)),
                };
                Ok(Entry::Input(self.last, input))
            }
            OUTPUTS => Ok(Entry::Outputs(entry)),
            other => Err(self.corrupt(at, &format!("an entry of the unknown kind {other:#04x}"))),
        }
    }

    fn corrupt(&self, at: u64, what: &str) -> LogError {
        LogError::Corrupt { at, what: String::from(what) }
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.at += len as u64;
        self.fed.split_to(len).freeze()
    }

    /// Goes to the next frame if all of it is there. One at the very end that does not fit its
    /// digest was torn as much as one that is too short: a crashed machine leaves either, and
    /// zeros behind it.
    fn next_frame(&mut self) -> Result<bool, LogError> {
        if self.tail.is_some() || self.fed.starts_with(&[0; FRAME_HEAD]) {
            return self.only_zeros(String::from("zeros between frames"));
        }
        if self.fed.len() < FRAME_HEAD {
            return Ok(false);
        }
        let number = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&self.fed[at..at + 4]);
            u32::from_le_bytes(bytes) as usize
        };
        let (raw, packed) = (number(0), number(4));
        let dense = packed.saturating_mul(DENSEST).saturating_add(64);
        if raw == 0 || packed == 0 || raw > LARGEST || packed > raw || raw > dense {
            self.bad(FRAME_HEAD);
            return self.only_zeros(String::from("no frame begins here"));
        }
        let len = FRAME_HEAD + packed;
        if self.fed.len() < len {
            return Ok(false);
        }
        if !self.is_whole(len) {
            if self.fed.len() == len && !self.ended {
                return Ok(false);
            }
            self.bad(len);
            return self.only_zeros(String::from("the bytes do not fit their digest"));
        }
        let at = self.at;
        let mut frame = self.take(len);
        frame.advance(FRAME_HEAD);
        if raw != packed {
            let unpacked = lz4_flex::block::decompress(&frame, raw)
                .map_err(|error| self.corrupt(at, &format!("{error}")))?;
            if unpacked.len() != raw {
                return Err(self.corrupt(at, "not as long as it says"));
            }
            frame = Bytes::from(unpacked);
        }
        self.frame = frame;
        Ok(true)
    }

    /// What is left of the log must be the debris of its last frame, which began here.
    fn bad(&mut self, len: usize) {
        self.tail = Some(len as u64);
        self.fed.advance(len);
    }

    /// Where a crash met an append, a file system may leave zeros; anything else is no tear.
    fn only_zeros(&mut self, otherwise: String) -> Result<bool, LogError> {
        if self.fed.iter().any(|&byte| byte != 0) {
            return Err(self.corrupt(self.at, &otherwise));
        }
        self.tail = Some(self.tail.unwrap_or(0) + self.fed.len() as u64);
        self.fed.clear();
        Ok(false)
    }

    fn is_whole(&self, len: usize) -> bool {
        let mut said = [0; 8];
        said.copy_from_slice(&self.fed[8..FRAME_HEAD]);
        u64::from_le_bytes(said) == digest(&self.fed[..8], &self.fed[FRAME_HEAD..len])
    }
}
