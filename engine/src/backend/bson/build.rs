//! Writing BSON by hand into segments: heads are one growing buffer, large payloads stay where
//! they are and go to `writev` as segments of their own.

use alloc::vec::Vec;

use bytes::Bytes;

use super::doc::{Doc, Value, tag};
use super::{MAX_DEPTH, Malformed};

/// Payloads shorter than this are copied into the head: one more iovec costs more than that.
pub const INLINE_PAYLOAD: usize = 4096;

/// Encoded bytes in order, ready for `writev`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segments {
    parts: Vec<Bytes>,
    len: usize,
}

impl Segments {
    /// The pieces, in order; none of them is empty.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// The pieces, given away.
    pub fn into_parts(self) -> Vec<Bytes> {
        self.parts
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Everything in one buffer: a copy unless there is a single piece.
    pub fn concat(&self) -> Bytes {
        match self.parts.as_slice() {
            [one] => one.clone(),
            many => {
                let mut all = Vec::with_capacity(self.len);
                many.iter().for_each(|part| all.extend_from_slice(part));
                Bytes::from(all)
            }
        }
    }

    pub(crate) fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }
}

/// Builds segments: small pieces are gathered into one buffer, large ones are kept by reference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gather {
    /// The heads, back to back.
    buf: Vec<u8>,
    /// Where in `buf` each payload belongs.
    cuts: Vec<(usize, Bytes)>,
    /// Bytes in all payloads.
    payload: usize,
}

impl Gather {
    /// Bytes so far, payloads included.
    pub fn len(&self) -> usize {
        self.buf.len() + self.payload
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a copy.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Adds a payload: by reference from [`INLINE_PAYLOAD`] bytes on.
    pub fn share(&mut self, bytes: Bytes) {
        if bytes.len() < INLINE_PAYLOAD {
            self.copy(&bytes);
        } else {
            self.payload += bytes.len();
            self.cuts.push((self.buf.len(), bytes));
        }
    }

    /// Adds what is gathered already.
    pub fn append(&mut self, segments: Segments) {
        segments.parts.into_iter().for_each(|part| self.share(part));
    }

    /// Everything, in order.
    pub fn finish(self) -> Segments {
        let head = Bytes::from(self.buf);
        let mut out = Segments::default();
        let mut from = 0;
        for (at, payload) in self.cuts {
            out.push(head.slice(from..at));
            out.push(payload);
            from = at;
        }
        out.push(head.slice(from..));
        out
    }

    fn patch(&mut self, at: usize, len: usize) {
        // Checked against the document bound when finished, so the cast cannot lose anything
        // that is ever sent.
        self.buf[at..at + 4].copy_from_slice(&(len as u32).to_le_bytes());
    }
}

/// A document being written. Methods chain; a mistake is remembered and reported by
/// [`DocBuf::finish`], so that a call site stays one expression.
///
/// ```
/// use dbmount_engine::backend::bson::DocBuf;
/// let mut doc = DocBuf::new();
/// doc.str("filename", "a.txt").i64("length", 3).begin("metadata").bool("x", true).end();
/// assert_eq!(doc.finish().unwrap().len(), 60);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocBuf {
    out: Gather,
    /// For each open document: where its length stands in the heads, and how many payload bytes
    /// stood before it.
    open: Vec<(usize, usize)>,
    wrong: Option<Malformed>,
}

impl Default for DocBuf {
    fn default() -> DocBuf {
        DocBuf::new()
    }
}

impl DocBuf {
    /// An empty document.
    pub fn new() -> DocBuf {
        let mut doc = DocBuf { out: Gather::default(), open: Vec::new(), wrong: None };
        doc.open_here();
        doc
    }

    /// Bytes written so far, payloads included, the closing NULs of open documents not.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether no element has been written.
    pub fn is_empty(&self) -> bool {
        self.out.len() == 4
    }

    /// Adds a string. Not checked for UTF-8: names of files are not.
    pub fn str(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut DocBuf {
        let value = value.as_ref();
        self.name(tag::STRING, name);
        self.out.copy(&(value.len() as u32 + 1).to_le_bytes());
        self.out.copy(value);
        self.out.copy(&[0]);
        self
    }

    /// Adds a 32-bit integer.
    pub fn i32(&mut self, name: &str, value: i32) -> &mut DocBuf {
        self.fixed(tag::INT32, name, &value.to_le_bytes())
    }

    /// Adds a 64-bit integer.
    pub fn i64(&mut self, name: &str, value: i64) -> &mut DocBuf {
        self.fixed(tag::INT64, name, &value.to_le_bytes())
    }

    /// Adds a double.
    pub fn f64(&mut self, name: &str, value: f64) -> &mut DocBuf {
        self.fixed(tag::DOUBLE, name, &value.to_le_bytes())
    }

    /// Adds a boolean.
    pub fn bool(&mut self, name: &str, value: bool) -> &mut DocBuf {
        self.fixed(tag::BOOL, name, &[u8::from(value)])
    }

    /// Adds a null.
    pub fn null(&mut self, name: &str) -> &mut DocBuf {
        self.fixed(tag::NULL, name, &[])
    }

    /// Adds an object id.
    pub fn object_id(&mut self, name: &str, value: [u8; 12]) -> &mut DocBuf {
        self.fixed(tag::OBJECT_ID, name, &value)
    }

    /// Adds a date: UTC milliseconds since the epoch.
    pub fn date_time(&mut self, name: &str, millis: i64) -> &mut DocBuf {
        self.fixed(tag::DATE_TIME, name, &millis.to_le_bytes())
    }

    /// Adds a timestamp: seconds and ordinal.
    pub fn timestamp(&mut self, name: &str, seconds: u32, ordinal: u32) -> &mut DocBuf {
        let both = (u64::from(seconds) << 32) | u64::from(ordinal);
        self.fixed(tag::TIMESTAMP, name, &both.to_le_bytes())
    }

    /// Adds binary data. From [`INLINE_PAYLOAD`] bytes on it is not copied.
    pub fn binary(&mut self, name: &str, subtype: u8, data: Bytes) -> &mut DocBuf {
        self.name(tag::BINARY, name);
        self.out.copy(&(data.len() as u32).to_le_bytes());
        self.out.copy(&[subtype]);
        self.out.share(data);
        self
    }

    /// Adds an embedded document.
    pub fn doc(&mut self, name: &str, doc: &Doc) -> &mut DocBuf {
        self.name(tag::DOCUMENT, name);
        self.out.share(doc.as_bytes().clone());
        self
    }

    /// Adds an array.
    pub fn array(&mut self, name: &str, array: &Doc) -> &mut DocBuf {
        self.name(tag::ARRAY, name);
        self.out.share(array.as_bytes().clone());
        self
    }

    /// Adds a value as it was read.
    pub fn value(&mut self, name: &str, value: &Value<'_>) -> &mut DocBuf {
        match value {
            Value::Double(v) => self.f64(name, *v),
            Value::Str(v) => self.str(name, v),
            Value::Document(v) => self.doc(name, v),
            Value::Array(v) => self.array(name, v),
            Value::Binary { subtype, data } => self.binary(name, *subtype, data.clone()),
            Value::ObjectId(v) => self.object_id(name, *v),
            Value::Bool(v) => self.bool(name, *v),
            Value::DateTime(v) => self.date_time(name, *v),
            Value::Null => self.null(name),
            Value::Regex(pattern, options) => {
                self.name(tag::REGEX, name);
                for part in [pattern, options] {
                    self.out.copy(part);
                    self.out.copy(&[0]);
                }
                self
            }
            Value::Int32(v) => self.i32(name, *v),
            Value::Timestamp(seconds, ordinal) => self.timestamp(name, *seconds, *ordinal),
            Value::Int64(v) => self.i64(name, *v),
            Value::Decimal128(v) => self.fixed(tag::DECIMAL128, name, v),
            Value::MinKey => self.fixed(tag::MIN_KEY, name, &[]),
            Value::MaxKey => self.fixed(tag::MAX_KEY, name, &[]),
            Value::Other(tag, raw) => self.fixed(*tag, name, raw),
        }
    }

    /// Opens an embedded document; [`DocBuf::end`] closes it.
    pub fn begin(&mut self, name: &str) -> &mut DocBuf {
        self.name(tag::DOCUMENT, name);
        self.open_here();
        self
    }

    /// Opens an array; its elements' names are "0", "1" and so on; [`DocBuf::end`] closes it.
    pub fn begin_array(&mut self, name: &str) -> &mut DocBuf {
        self.name(tag::ARRAY, name);
        self.open_here();
        self
    }

    /// Closes the innermost open document or array.
    pub fn end(&mut self) -> &mut DocBuf {
        if self.open.len() > 1 {
            self.close();
        } else {
            self.wrong(Malformed::Unbalanced);
        }
        self
    }

    /// The finished document.
    ///
    /// # Errors
    /// The first mistake made while writing, documents left open among them, and a length that
    /// no BSON document can state.
    pub fn finish(mut self) -> Result<Segments, Malformed> {
        if self.open.len() != 1 {
            self.wrong(Malformed::Unbalanced);
        }
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        self.close();
        let max = i32::MAX as usize;
        match self.out.len() {
            size if size > max => Err(Malformed::TooLarge { size, max }),
            _ => Ok(self.out.finish()),
        }
    }

    /// The finished document in one piece, for reading.
    ///
    /// # Errors
    /// As [`DocBuf::finish`]; what is written through this type is well-formed otherwise, but
    /// values taken over from elsewhere are checked again.
    pub fn finish_doc(self) -> Result<Doc, Malformed> {
        Doc::parse(self.finish()?.concat()).map_err(|_| Malformed::TooDeep)
    }

    fn fixed(&mut self, tag: u8, name: &str, value: &[u8]) -> &mut DocBuf {
        self.name(tag, name);
        self.out.copy(value);
        self
    }

    fn name(&mut self, tag: u8, name: &str) {
        if name.as_bytes().contains(&0) {
            self.wrong(Malformed::NulInName);
        }
        self.out.copy(&[tag]);
        self.out.copy(name.as_bytes());
        self.out.copy(&[0]);
    }

    fn open_here(&mut self) {
        if self.open.len() >= MAX_DEPTH {
            self.wrong(Malformed::TooDeep);
        }
        self.open.push((self.out.buf.len(), self.out.payload));
        self.out.copy(&[0; 4]);
    }

    fn close(&mut self) {
        self.out.copy(&[0]);
        if let Some((at, payload)) = self.open.pop() {
            let len = self.out.buf.len() - at + self.out.payload - payload;
            self.out.patch(at, len);
        }
    }

    fn wrong(&mut self, wrong: Malformed) {
        self.wrong.get_or_insert(wrong);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_large_payload_is_not_copied() {
        let chunk = Bytes::from(vec![7u8; 100_000]);
        let mut doc = DocBuf::new();
        doc.i32("n", 0).begin("inner").binary("data", 0, chunk.clone()).end().bool("after", true);
        let segments = doc.finish().unwrap();
        assert_eq!(segments.parts().len(), 3);
        assert_eq!(segments.parts()[1].as_ptr(), chunk.as_ptr());
        let read = Doc::parse(segments.concat()).unwrap();
        let inner = read.get("inner").unwrap();
        assert_eq!(inner.as_doc().unwrap().get("data").unwrap().as_binary(), Some(&chunk));
        assert_eq!(read.get("after"), Some(Value::Bool(true)));
    }

    #[test]
    fn reading_hands_back_slices_of_the_same_buffer() {
        let mut doc = DocBuf::new();
        doc.binary("data", 0, Bytes::from_static(b"payload"));
        let bytes = doc.finish().unwrap().concat();
        let read = Doc::parse(bytes.clone()).unwrap();
        let value = read.get("data").unwrap();
        let start = bytes.as_ptr() as usize;
        let data = value.as_binary().unwrap().as_ptr() as usize;
        assert!((start..start + bytes.len()).contains(&data));
    }

    #[test]
    fn mistakes_are_reported_at_the_end() {
        let mut doc = DocBuf::new();
        doc.i32("a\0b", 1);
        assert_eq!(doc.finish().unwrap_err(), Malformed::NulInName);
        let mut doc = DocBuf::new();
        doc.begin("open");
        assert_eq!(doc.finish().unwrap_err(), Malformed::Unbalanced);
        let mut doc = DocBuf::new();
        doc.end();
        assert_eq!(doc.finish().unwrap_err(), Malformed::Unbalanced);
        let mut doc = DocBuf::new();
        (0..MAX_DEPTH).for_each(|_| {
            doc.begin("d");
        });
        (0..MAX_DEPTH).for_each(|_| {
            doc.end();
        });
        assert_eq!(doc.finish().unwrap_err(), Malformed::TooDeep);
    }
}
