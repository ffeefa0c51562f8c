//! OP_COMPRESSED (opcode 2012): decoding, and the commands that must never travel so.
//!
//! Source: the OP_COMPRESSED specification. Bodies are mostly file contents, which are sent
//! uncopied; compressing them would copy, so we send nothing compressed and decode what a
//! server (or a proxy) chooses to send so.

use std::io::Read;

use bytes::Bytes;

use super::frame::Op;
use super::limits::{HEADER_LEN, Limits};
use crate::error::PeerError;

/// The compressors of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// No compression: for tests and proxies.
    Noop,
    /// Snappy, raw format.
    Snappy,
    /// Zlib (RFC 1950).
    Zlib,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compressor {
    /// The compressor with this id on the wire.
    pub const fn from_id(id: u8) -> Option<Compressor> {
        match id {
            0 => Some(Compressor::Noop),
            1 => Some(Compressor::Snappy),
            2 => Some(Compressor::Zlib),
            3 => Some(Compressor::Zstd),
            _ => None,
        }
    }

    /// The compressor of this name in a connection string or a hello reply.
    pub fn from_name(name: &str) -> Option<Compressor> {
        match name {
            "snappy" => Some(Compressor::Snappy),
            "zlib" => Some(Compressor::Zlib),
            "zstd" => Some(Compressor::Zstd),
            _ => None,
        }
    }
}

/// Commands that carry secrets or set up the connection (OP_COMPRESSED spec, "Messages not
/// allowed to be compressed").
const NEVER: [&str; 13] = [
    "hello",
    "ismaster",
    "saslstart",
    "saslcontinue",
    "getnonce",
    "authenticate",
    "createuser",
    "updateuser",
    "copydbsaslstart",
    "copydbgetnonce",
    "copydb",
    "logout",
    "createrole",
];

/// Whether a command may be sent compressed at all. Names compare without case.
pub fn may_compress(command: &str) -> bool {
    !NEVER.iter().any(|never| never.eq_ignore_ascii_case(command))
}

/// Original opcode, uncompressed size, compressor id.
const INNER_HEAD: usize = 9;

/// Takes the body of an OP_COMPRESSED and gives back the body of the OP_MSG inside.
///
/// # Errors
/// An inner opcode other than OP_MSG, a stated size over `limits` (checked before anything is
/// allocated), an unknown compressor, corrupt data, or a size that turns out different.
pub fn decompress(body: &Bytes, limits: &Limits) -> Result<Bytes, PeerError> {
    let Some(head) = body.first_chunk::<INNER_HEAD>() else {
        return Err(PeerError::new("OP_COMPRESSED shorter than its head", 0));
    };
    let word = |at: usize| i32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if word(0) != Op::Msg.code() {
        return Err(PeerError::new("OP_COMPRESSED around something other than OP_MSG", 0));
    }
    let size = usize::try_from(word(4)).unwrap_or(usize::MAX);
    if size > limits.max_message - HEADER_LEN {
        return Err(PeerError::new("OP_COMPRESSED with an uncompressedSize out of bounds", 4));
    }
    let compressor = Compressor::from_id(head[8])
        .ok_or(PeerError::new("OP_COMPRESSED by an unknown compressor", 8))?;
    let data = body.slice(INNER_HEAD..);
    let out = match compressor {
        Compressor::Noop => data,
        Compressor::Snappy => snappy(&data, size)?,
        Compressor::Zlib => read_all(flate2::read::ZlibDecoder::new(&data[..]), size)?,
        Compressor::Zstd => zstd(&data, size)?,
    };
    if out.len() != size {
        return Err(WRONG_SIZE);
    }
    Ok(out)
}

const CORRUPT: PeerError = PeerError::new("OP_COMPRESSED with corrupt data", INNER_HEAD);
const WRONG_SIZE: PeerError =
    PeerError::new("OP_COMPRESSED whose data has another size than it states", 4);

fn snappy(data: &[u8], size: usize) -> Result<Bytes, PeerError> {
    // The length inside the data is a second claim; it must agree before it is allocated.
    if snap::raw::decompress_len(data).map_err(|_| CORRUPT)? != size {
        return Err(WRONG_SIZE);
    }
    snap::raw::Decoder::new().decompress_vec(data).map(Bytes::from).map_err(|_| CORRUPT)
}

fn zstd(data: &[u8], size: usize) -> Result<Bytes, PeerError> {
    // The decoder allocates the window a frame asks for, so its claim is checked first.
    let window = zstd_window(data).ok_or(CORRUPT)?;
    if window > (size as u64).max(ZSTD_LEAST_WINDOW) {
        return Err(WRONG_SIZE);
    }
    let decoder = ruzstd::decoding::StreamingDecoder::new(data).map_err(|_| CORRUPT)?;
    read_all(decoder, size)
}

/// Encoders may ask for more than the content needs, but the reference encoder sizes the window
/// to the content; 8 MiB is what every decoder must support (RFC 8878, section 3.1.1.1.2).
const ZSTD_LEAST_WINDOW: u64 = 8 * 1024 * 1024;

/// The window a zstd frame header asks for, in bytes (RFC 8878, section 3.1.1.1).
fn zstd_window(data: &[u8]) -> Option<u64> {
    if data.get(..4)? != [0x28, 0xb5, 0x2f, 0xfd] {
        return None;
    }
    let descriptor = *data.get(4)?;
    if descriptor & 0x20 == 0 {
        let window = *data.get(5)?;
        let base = 1u64 << (10 + u32::from(window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: the window is the content, whose size follows the dictionary id.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (len, add) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let mut raw = [0; 8];
    raw[..len].copy_from_slice(data.get(at..at + len)?);
    Some(u64::from_le_bytes(raw).saturating_add(add))
}

/// Reads at most one byte over `size`: enough to see that there is more.
fn read_all(from: impl Read, size: usize) -> Result<Bytes, PeerError> {
    let mut out = Vec::with_capacity(size);
    from.take(size as u64 + 1).read_to_end(&mut out).map_err(|_| CORRUPT)?;
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn wrap(id: u8, size: usize, data: &[u8]) -> Bytes {
        let mut body = 2013i32.to_le_bytes().to_vec();
        body.extend_from_slice(&(size as u32).to_le_bytes());
        body.push(id);
        body.extend_from_slice(data);
        Bytes::from(body)
    }

    fn packed(id: u8, plain: &[u8]) -> Vec<u8> {
        match id {
            1 => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            2 => {
                let mut to =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            3 => ruzstd::encoding::compress_to_vec(
                plain,
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
            _ => plain.to_vec(),
        }
    }

    #[test]
    fn every_compressor_comes_back() {
        let limits = Limits::default();
        for plain in [vec![], b"hello".to_vec(), vec![42; 300_000]] {
            for id in 0..4 {
                let body = wrap(id, plain.len(), &packed(id, &plain));
                assert_eq!(decompress(&body, &limits).unwrap(), plain, "compressor {id}");
            }
        }
    }

    #[test]
    fn a_size_out_of_bounds_is_refused_before_allocating() {
        let limits = Limits::default();
        for size in [usize::MAX & 0xffff_ffff, 0x7fff_ffff, limits.max_message - HEADER_LEN + 1] {
            for id in 0..4 {
                assert_eq!(decompress(&wrap(id, size, &[]), &limits).unwrap_err().at, 4);
            }
        }
    }

    #[test]
    fn a_size_that_lies_is_refused() {
        let limits = Limits::default();
        let plain = vec![1; 1000];
        for id in 0..4 {
            for lie in [0, 999, 1001, 1_000_000] {
                let body = wrap(id, lie, &packed(id, &plain));
                assert!(decompress(&body, &limits).is_err(), "compressor {id} said {lie}");
            }
        }
    }

    #[test]
    fn damaged_data_is_refused_or_read_and_never_panics() {
        let limits = Limits::default();
        let plain: Vec<u8> = (0..2000u32).map(|n| (n * n) as u8).collect();
        for id in 1..4 {
            let good = packed(id, &plain);
            for at in 0..good.len() {
                assert!(decompress(&wrap(id, plain.len(), &good[..at]), &limits).is_err());
                let mut bad = good.clone();
                bad[at] ^= 0x55;
                let _ = decompress(&wrap(id, plain.len(), &bad), &limits);
            }
        }
    }

    #[test]
    fn a_zstd_window_over_the_stated_size_is_refused() {
        // Window descriptor 0xff: exponent 31, mantissa 7, 3.75 TiB.
        let data = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 1, 0, 0];
        assert_eq!(decompress(&wrap(3, 10, &data), &Limits::default()), Err(WRONG_SIZE));
        // A single segment of 8 bytes content size, all ones.
        let data = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &[0xff; 8]].concat();
        assert_eq!(decompress(&wrap(3, 10, &data), &Limits::default()), Err(WRONG_SIZE));
    }

    #[test]
    fn an_inner_opcode_or_compressor_out_of_the_list_is_refused() {
        let mut nested = wrap(0, 0, &[]).to_vec();
        nested[..4].copy_from_slice(&2012i32.to_le_bytes());
        assert_eq!(decompress(&Bytes::from(nested), &Limits::default()).unwrap_err().at, 0);
        assert_eq!(decompress(&wrap(4, 0, &[]), &Limits::default()).unwrap_err().at, 8);
    }

    #[test]
    fn secrets_are_never_compressed() {
        for name in ["hello", "isMaster", "saslStart", "saslContinue", "authenticate", "createUser"]
        {
            assert!(!may_compress(name), "{name}");
        }
        assert!(may_compress("insert"));
    }
}
