//! BSON documents as they came off the wire: checked once, then read in place. Binary values
//! are slices of the receive buffer, never copies.

use alloc::string::String;
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, PeerError};

/// A whole, well-formed BSON document or array inside a shared buffer.
///
/// Its only constructor checks the whole tree, so reading it cannot fail. Strings and names are
/// bytes: a server does not check them for UTF-8, and one bad name in one stored document must
/// not make the whole reply unreadable.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct Doc(Bytes);

/// One name and value of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Element<'a> {
    /// The field name, or the decimal index inside an array; not checked for UTF-8.
    pub name: &'a [u8],
    /// What it holds.
    pub value: Value<'a>,
}

/// A BSON value (bsonspec.org 1.1). Deprecated types are kept whole as [`Value::Other`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// 64-bit binary floating point.
    Double(f64),
    /// A string without its trailing NUL; not checked for UTF-8.
    Str(&'a [u8]),
    /// An embedded document.
    Document(Doc),
    /// An array: a document whose names are 0, 1, 2 and so on.
    Array(Doc),
    /// Binary data: a slice of the buffer the document came in.
    Binary {
        /// The subtype byte: 0 generic, 4 UUID, and so on.
        subtype: u8,
        /// The data. Subtype 2 (old binary) keeps its inner length.
        data: Bytes,
    },
    /// A 12-byte object id.
    ObjectId([u8; 12]),
    /// True or false.
    Bool(bool),
    /// UTC milliseconds since the epoch.
    DateTime(i64),
    /// The null value.
    Null,
    /// A regular expression and its options.
    Regex(&'a [u8], &'a [u8]),
    /// 32-bit integer.
    Int32(i32),
    /// An internal timestamp: seconds, then an ordinal within the second.
    Timestamp(u32, u32),
    /// 64-bit integer.
    Int64(i64),
    /// 128-bit decimal floating point, as its 16 bytes.
    Decimal128([u8; 16]),
    /// Below all other values.
    MinKey,
    /// Above all other values.
    MaxKey,
    /// A deprecated type (undefined, DBPointer, code, symbol): its type byte and raw bytes.
    Other(u8, &'a [u8]),
}

/// Type bytes of BSON values.
pub(crate) mod tag {
    pub(crate) const DOUBLE: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const DOCUMENT: u8 = 0x03;
    pub(crate) const ARRAY: u8 = 0x04;
    pub(crate) const BINARY: u8 = 0x05;
    pub(crate) const UNDEFINED: u8 = 0x06;
    pub(crate) const OBJECT_ID: u8 = 0x07;
    pub(crate) const BOOL: u8 = 0x08;
    pub(crate) const DATE_TIME: u8 = 0x09;
    pub(crate) const NULL: u8 = 0x0a;
    pub(crate) const REGEX: u8 = 0x0b;
    pub(crate) const DB_POINTER: u8 = 0x0c;
    pub(crate) const CODE: u8 = 0x0d;
    pub(crate) const SYMBOL: u8 = 0x0e;
    pub(crate) const CODE_WITH_SCOPE: u8 = 0x0f;
    pub(crate) const INT32: u8 = 0x10;
    pub(crate) const TIMESTAMP: u8 = 0x11;
    pub(crate) const INT64: u8 = 0x12;
    pub(crate) const DECIMAL128: u8 = 0x13;
    pub(crate) const MAX_KEY: u8 = 0x7f;
    pub(crate) const MIN_KEY: u8 = 0xff;
}

const TWO_63: f64 = (1u64 << 63) as f64;

/// The bytes of `{}`.
pub(crate) const EMPTY: &[u8] = &[5, 0, 0, 0, 0];

impl Doc {
    /// Takes `bytes` as exactly one document. Nothing is copied or allocated.
    ///
    /// # Errors
    /// The first rule of BSON that is broken anywhere in the tree, nesting deeper than
    /// [`MAX_DEPTH`] among them.
    pub fn parse(bytes: Bytes) -> Result<Doc, PeerError> {
        check(&bytes)?;
        Ok(Doc(bytes))
    }

    /// Splits one document off the front of `bytes` and returns it with what follows.
    ///
    /// # Errors
    /// As [`Doc::parse`], and when `bytes` ends before the document does.
    pub fn split_off(bytes: &Bytes) -> Result<(Doc, Bytes), PeerError> {
        let len = document_len(bytes, 0)?;
        let doc = Doc::parse(bytes.slice(..len))?;
        Ok((doc, bytes.slice(len..)))
    }

    /// The empty document.
    pub fn empty() -> Doc {
        Doc(Bytes::from_static(EMPTY))
    }

    /// The encoded bytes, length prefix and trailing NUL included.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The elements in their stored order. Walk a document once rather than look each field up.
    pub fn iter(&self) -> Elements<'_> {
        Elements { doc: &self.0, at: 4 }
    }

    /// The first value under `name`, by walking the document.
    pub fn get(&self, name: &str) -> Option<Value<'_>> {
        self.iter().find(|e| e.name == name.as_bytes()).map(|e| e.value)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.0.len() <= EMPTY.len()
    }

    /// A copy in memory of its own, so that keeping it does not keep the receive buffer.
    pub fn detached(&self) -> Doc {
        Doc(Bytes::copy_from_slice(&self.0))
    }
}

impl TryFrom<Bytes> for Doc {
    type Error = PeerError;

    fn try_from(bytes: Bytes) -> Result<Doc, PeerError> {
        Doc::parse(bytes)
    }
}

impl From<Doc> for Bytes {
    fn from(doc: Doc) -> Bytes {
        doc.0
    }
}

impl<'a> IntoIterator for &'a Doc {
    type Item = Element<'a>;
    type IntoIter = Elements<'a>;
    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

impl Value<'_> {
    /// Any numeric type as an integer: a double only when it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::Int32(n) => Some(i64::from(n)),
            Value::Int64(n) => Some(n),
            // The upper bound is exclusive: 2^63 itself does not fit.
            Value::Double(d) if (-TWO_63..TWO_63).contains(&d) && (d as i64) as f64 == d => {
                Some(d as i64)
            }
            _ => None,
        }
    }

    /// Any numeric type but decimal as a double; booleans as 0 and 1, as the server reads them.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::Double(d) => Some(d),
            Value::Int32(n) => Some(f64::from(n)),
            Value::Int64(n) => Some(n as f64),
            Value::Bool(b) => Some(f64::from(u8::from(b))),
            _ => None,
        }
    }

    /// A boolean, or a number read as the server reads it: 0 is false.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(b) => Some(b),
            _ => self.as_f64().map(|d| d != 0.0),
        }
    }

    /// A string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(bytes) => core::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An embedded document (not an array).
    pub fn as_doc(&self) -> Option<&Doc> {
        match self {
            Value::Document(doc) => Some(doc),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Doc> {
        match self {
            Value::Array(doc) => Some(doc),
            _ => None,
        }
    }

    /// Binary data of any subtype.
    pub fn as_binary(&self) -> Option<&Bytes> {
        match self {
            Value::Binary { data, .. } => Some(data),
            _ => None,
        }
    }
}

/// Walks a document's elements.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    doc: &'a Bytes,
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        // `Doc::parse` has checked every length, so an error here cannot happen; if it did,
        // the walk would end instead of panicking.
        let shape = element(self.doc, self.at).ok()??;
        self.at = shape.value_at + shape.value_len;
        Some(Element {
            name: &self.doc[shape.name_at..shape.value_at - 1],
            value: self.read(&shape),
        })
    }
}

impl<'a> Elements<'a> {
    fn read(&self, shape: &Shape) -> Value<'a> {
        let raw: &'a [u8] = &self.doc[shape.value_at..shape.value_at + shape.value_len];
        let inner = || Doc(self.doc.slice(shape.value_at..shape.value_at + shape.value_len));
        match shape.tag {
            tag::DOUBLE => Value::Double(f64::from_le_bytes(fixed(raw))),
            tag::STRING => Value::Str(&raw[4..raw.len() - 1]),
            tag::DOCUMENT => Value::Document(inner()),
            tag::ARRAY => Value::Array(inner()),
            tag::BINARY => Value::Binary {
                subtype: raw[4],
                data: self.doc.slice(shape.value_at + 5..shape.value_at + shape.value_len),
            },
            tag::OBJECT_ID => Value::ObjectId(fixed(raw)),
            tag::BOOL => Value::Bool(raw[0] != 0),
            tag::DATE_TIME => Value::DateTime(i64::from_le_bytes(fixed(raw))),
            tag::NULL => Value::Null,
            tag::REGEX => {
                let split = raw.iter().position(|b| *b == 0).unwrap_or(raw.len() - 1);
                Value::Regex(&raw[..split], &raw[split + 1..raw.len() - 1])
            }
            tag::INT32 => Value::Int32(i32::from_le_bytes(fixed(raw))),
            tag::TIMESTAMP => {
                let both = u64::from_le_bytes(fixed(raw));
                Value::Timestamp((both >> 32) as u32, both as u32)
            }
            tag::INT64 => Value::Int64(i64::from_le_bytes(fixed(raw))),
            tag::DECIMAL128 => Value::Decimal128(fixed(raw)),
            tag::MIN_KEY => Value::MinKey,
            tag::MAX_KEY => Value::MaxKey,
            other => Value::Other(other, raw),
        }
    }
}

/// The first `N` bytes of a value whose length has been checked.
fn fixed<const N: usize>(raw: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[..N]);
    out
}

/// Where one element's parts stand.
struct Shape {
    tag: u8,
    name_at: usize,
    value_at: usize,
    value_len: usize,
}

/// Checks a whole tree without recursion: nested documents go on a list of open ends.
fn check(bytes: &[u8]) -> Result<(), PeerError> {
    if document_len(bytes, 0)? != bytes.len() {
        return Err(PeerError::new("bytes after the end of a document", bytes.len()));
    }
    let mut ends = [0usize; MAX_DEPTH];
    ends[0] = bytes.len();
    let mut open = 1;
    let mut at = 4;
    while open > 0 {
        let end = ends[open - 1];
        let Some(shape) = element(&bytes[..end], at)? else {
            open -= 1;
            at = end;
            continue;
        };
        let value_end = shape.value_at + shape.value_len;
        match shape.tag {
            tag::DOCUMENT | tag::ARRAY => {
                if open == MAX_DEPTH {
                    return Err(PeerError::new("documents nested too deep", at));
                }
                ends[open] = value_end;
                open += 1;
                at = shape.value_at + 4;
            }
            tag::BOOL if bytes[shape.value_at] > 1 => {
                return Err(PeerError::new("a boolean that is neither 0 nor 1", shape.value_at));
            }
            _ => at = value_end,
        }
    }
    Ok(())
}

/// The stated length of the document at `at`, known to lie inside `bytes` and to end in a NUL.
fn document_len(bytes: &[u8], at: usize) -> Result<usize, PeerError> {
    let len = length(bytes, at)?;
    if len < EMPTY.len() {
        return Err(PeerError::new("a document shorter than five bytes", at));
    }
    match bytes.get(at + len - 1) {
        Some(0) => Ok(len),
        Some(_) => Err(PeerError::new("a document without its final NUL", at)),
        None => Err(PeerError::new("a document longer than its room", at)),
    }
}

/// A four-byte length that is not negative.
fn length(bytes: &[u8], at: usize) -> Result<usize, PeerError> {
    match bytes.get(at..at + 4) {
        Some(raw) => usize::try_from(i32::from_le_bytes(fixed(raw)))
            .map_err(|_| PeerError::new("a negative length", at)),
        None => Err(PeerError::new("a length cut short", at)),
    }
}

/// The offset just behind the NUL of the cstring at `at`.
fn after_cstring(bytes: &[u8], at: usize) -> Result<usize, PeerError> {
    match bytes.get(at..).and_then(|rest| rest.iter().position(|b| *b == 0)) {
        Some(nul) => Ok(at + nul + 1),
        None => Err(PeerError::new("a cstring without its NUL", at)),
    }
}

/// The length of a length-prefixed, NUL-terminated string with both.
fn string_len(bytes: &[u8], at: usize) -> Result<usize, PeerError> {
    let len = length(bytes, at)?;
    if len == 0 {
        return Err(PeerError::new("a string without room for its NUL", at));
    }
    match bytes.get(at + 4 + len - 1) {
        Some(0) => Ok(4 + len),
        Some(_) => Err(PeerError::new("a string without its final NUL", at)),
        None => Err(PeerError::new("a string longer than its room", at)),
    }
}

/// The element at `at` of the document that ends with `bytes`, or `None` at its end.
fn element(bytes: &[u8], at: usize) -> Result<Option<Shape>, PeerError> {
    let tag = *bytes.get(at).ok_or(PeerError::new("a document cut short", at))?;
    if tag == 0 {
        return if at + 1 == bytes.len() {
            Ok(None)
        } else {
            Err(PeerError::new("a document that ends before its length", at))
        };
    }
    // The document's own final NUL is not part of any element.
    let room = bytes.len() - 1;
    let body = &bytes[..room];
    let value_at = after_cstring(body, at + 1)?;
    let value_len = value_len(body, value_at, tag)?;
    if value_len > room - value_at {
        return Err(PeerError::new("a value longer than its room", value_at));
    }
    Ok(Some(Shape { tag, name_at: at + 1, value_at, value_len }))
}

fn value_len(body: &[u8], at: usize, tag: u8) -> Result<usize, PeerError> {
    Ok(match tag {
        tag::NULL | tag::UNDEFINED | tag::MIN_KEY | tag::MAX_KEY => 0,
        tag::BOOL => 1,
        tag::INT32 => 4,
        tag::DOUBLE | tag::DATE_TIME | tag::TIMESTAMP | tag::INT64 => 8,
        tag::OBJECT_ID => 12,
        tag::DECIMAL128 => 16,
        tag::STRING | tag::CODE | tag::SYMBOL => string_len(body, at)?,
        tag::DB_POINTER => string_len(body, at)? + 12,
        tag::DOCUMENT | tag::ARRAY => document_len(body, at)?,
        tag::BINARY => length(body, at)? + 5,
        tag::REGEX => after_cstring(body, after_cstring(body, at)?)? - at,
        // Its inner string and scope are never looked into, so only its room matters.
        tag::CODE_WITH_SCOPE => length(body, at)?.max(14),
        _ => return Err(PeerError::new("an unknown type of value", at)),
    })
}

impl fmt::Debug for Doc {
    /// Extended-JSON-like, cut after 16 elements and two levels, binary as its length: a log
    /// line, not a dump of file contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self, f, 0)
    }
}

fn show(doc: &Doc, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
    if depth > 2 {
        return f.write_str("{..}");
    }
    f.write_str("{")?;
    for (i, element) in doc.iter().enumerate() {
        if i == 16 {
            f.write_str(", ..")?;
            break;
        }
        let name = String::from_utf8_lossy(element.name);
        write!(f, "{}{name}: ", if i == 0 { "" } else { ", " })?;
        match &element.value {
            Value::Document(inner) | Value::Array(inner) => show(inner, f, depth + 1)?,
            Value::Binary { subtype, data } => write!(f, "Binary({subtype}, {} B)", data.len())?,
            Value::Str(bytes) => {
                write!(f, "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(64)]))?;
            }
            other => write!(f, "{other:?}")?,
        }
    }
    f.write_str("}")
}
