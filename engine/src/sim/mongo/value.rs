//! BSON values as the server keeps them: owned trees with the order of documents, and the order
//! in which the server sorts and compares values of any types.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;

use crate::backend::bson::{Doc, DocBuf, Malformed, Value};

/// A value. `==` is identity, types included; [`compare`] is the server's order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Val {
    MinKey,
    /// Of an index key: an empty array stood there.
    Undefined,
    Null,
    Int32(i32),
    Int64(i64),
    Double(f64),
    Decimal([u8; 16]),
    Str(Vec<u8>),
    Doc(Document),
    Array(Vec<Val>),
    Binary(u8, Bytes),
    ObjectId([u8; 12]),
    Bool(bool),
    Date(i64),
    Timestamp(u32, u32),
    Regex(Vec<u8>, Vec<u8>),
    /// A type that is only stored: its tag and bytes.
    Other(u8, Vec<u8>),
    MaxKey,
}

/// A document: fields in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Document(pub(super) Vec<(String, Val)>);

impl Val {
    pub(super) fn of(value: &Value<'_>) -> Val {
        match value {
            Value::Double(it) => Val::Double(*it),
            Value::Str(it) => Val::Str(it.to_vec()),
            Value::Document(it) => Val::Doc(Document::of(it)),
            Value::Array(it) => Val::Array(it.iter().map(|it| Val::of(&it.value)).collect()),
            Value::Binary { subtype, data } => Val::Binary(*subtype, data.clone()),
            Value::ObjectId(it) => Val::ObjectId(*it),
            Value::Bool(it) => Val::Bool(*it),
            Value::DateTime(it) => Val::Date(*it),
            Value::Null => Val::Null,
            Value::Regex(pattern, options) => Val::Regex(pattern.to_vec(), options.to_vec()),
            Value::Int32(it) => Val::Int32(*it),
            Value::Timestamp(seconds, ordinal) => Val::Timestamp(*seconds, *ordinal),
            Value::Int64(it) => Val::Int64(*it),
            Value::Decimal128(it) => Val::Decimal(*it),
            Value::MinKey => Val::MinKey,
            Value::MaxKey => Val::MaxKey,
            Value::Other(tag, raw) => Val::Other(*tag, raw.to_vec()),
        }
    }

    pub(super) fn str(text: &str) -> Val {
        Val::Str(text.as_bytes().to_vec())
    }

    pub(super) fn write(&self, name: &str, body: &mut DocBuf) {
        match self {
            Val::MinKey => body.value(name, &Value::MinKey),
            Val::Undefined => body.value(name, &Value::Other(UNDEFINED, &[])),
            Val::Null => body.null(name),
            Val::Int32(it) => body.i32(name, *it),
            Val::Int64(it) => body.i64(name, *it),
            Val::Double(it) => body.f64(name, *it),
            Val::Decimal(it) => body.value(name, &Value::Decimal128(*it)),
            Val::Str(it) => body.str(name, it),
            Val::Doc(it) => {
                body.begin(name);
                it.write(body);
                body.end()
            }
            Val::Array(items) => {
                body.begin_array(name);
                for (n, item) in items.iter().enumerate() {
                    item.write(&format!("{n}"), body);
                }
                body.end()
            }
            Val::Binary(subtype, data) => body.binary(name, *subtype, data.clone()),
            Val::ObjectId(it) => body.object_id(name, *it),
            Val::Bool(it) => body.bool(name, *it),
            Val::Date(it) => body.date_time(name, *it),
            Val::Timestamp(seconds, ordinal) => body.timestamp(name, *seconds, *ordinal),
            Val::Regex(pattern, options) => body.value(name, &Value::Regex(pattern, options)),
            Val::Other(tag, raw) => body.value(name, &Value::Other(*tag, raw)),
            Val::MaxKey => body.value(name, &Value::MaxKey),
        };
    }

    /// Any number as a whole one, as the server reads options.
    pub(super) fn as_i64(&self) -> Option<i64> {
        match self {
            Val::Int32(it) => Some(i64::from(*it)),
            Val::Int64(it) => Some(*it),
            Val::Double(it) if it.is_finite() => Some(*it as i64),
            _ => None,
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Val::Int32(_) | Val::Int64(_) | Val::Double(_) | Val::Decimal(_))
    }

    /// How the server reads a flag, and a condition.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Val::Bool(it) => *it,
            Val::Null | Val::Undefined => false,
            Val::Int32(it) => *it != 0,
            Val::Int64(it) => *it != 0,
            Val::Double(it) => *it != 0.0,
            _ => true,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Val::Str(text) => core::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(super) fn as_doc(&self) -> Option<&Document> {
        match self {
            Val::Doc(doc) => Some(doc),
            _ => None,
        }
    }

    /// Bytes of the value in BSON, without its name and type.
    pub(super) fn size(&self) -> usize {
        match self {
            Val::MinKey | Val::MaxKey | Val::Null | Val::Undefined => 0,
            Val::Bool(_) => 1,
            Val::Int32(_) => 4,
            Val::Int64(_) | Val::Double(_) | Val::Date(_) | Val::Timestamp(..) => 8,
            Val::ObjectId(_) => 12,
            Val::Decimal(_) => 16,
            Val::Str(it) => 5 + it.len(),
            Val::Doc(it) => it.size(),
            Val::Array(items) => {
                let names = (0..items.len()).map(|n| n.checked_ilog10().unwrap_or(0) as usize + 3);
                5 + names.sum::<usize>() + items.iter().map(Val::size).sum::<usize>()
            }
            Val::Binary(_, data) => 5 + data.len(),
            Val::Regex(pattern, options) => pattern.len() + options.len() + 2,
            Val::Other(_, raw) => raw.len(),
        }
    }

    /// Where its type stands in the server's order.
    pub(super) fn class(&self) -> u8 {
        match self {
            Val::MinKey => 0,
            Val::Undefined => 1,
            Val::Null => 5,
            Val::Int32(_) | Val::Int64(_) | Val::Double(_) | Val::Decimal(_) => 10,
            Val::Str(_) => 15,
            Val::Doc(_) => 20,
            Val::Array(_) => 25,
            Val::Binary(..) => 30,
            Val::ObjectId(_) => 35,
            Val::Bool(_) => 40,
            Val::Date(_) => 45,
            Val::Timestamp(..) => 47,
            Val::Regex(..) => 50,
            Val::Other(..) => 60,
            Val::MaxKey => 127,
        }
    }

    /// The type's name, as error messages have it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Val::MinKey => "minKey",
            Val::Undefined => "undefined",
            Val::Null => "null",
            Val::Int32(_) => "int",
            Val::Int64(_) => "long",
            Val::Double(_) => "double",
            Val::Decimal(_) => "decimal",
            Val::Str(_) => "string",
            Val::Doc(_) => "object",
            Val::Array(_) => "array",
            Val::Binary(..) => "binData",
            Val::ObjectId(_) => "objectId",
            Val::Bool(_) => "bool",
            Val::Date(_) => "date",
            Val::Timestamp(..) => "timestamp",
            Val::Regex(..) => "regex",
            Val::Other(..) => "other",
            Val::MaxKey => "maxKey",
        }
    }
}

/// The tag of the deprecated type that index keys still have.
const UNDEFINED: u8 = 0x06;

/// Whole numbers against doubles without losing a bit of either.
fn compare_mixed(whole: i64, double: f64) -> Ordering {
    if double.is_nan() {
        return Ordering::Greater;
    }
    const TWO_63: f64 = (1u64 << 63) as f64;
    if double >= TWO_63 {
        return Ordering::Less;
    }
    if double < -TWO_63 {
        return Ordering::Greater;
    }
    let floor = double as i64;
    let rest = double - floor as f64;
    whole.cmp(&floor).then(if rest > 0.0 {
        Ordering::Less
    } else if rest < 0.0 {
        Ordering::Greater
    } else {
        Ordering::Equal
    })
}

fn compare_numbers(a: &Val, b: &Val) -> Ordering {
    let whole = |it: &Val| match it {
        Val::Int32(it) => Some(i64::from(*it)),
        Val::Int64(it) => Some(*it),
        _ => None,
    };
    match (whole(a), whole(b), a, b) {
        (Some(a), Some(b), _, _) => a.cmp(&b),
        (Some(a), None, _, Val::Double(b)) => compare_mixed(a, *b),
        (None, Some(b), Val::Double(a), _) => compare_mixed(b, *a).reverse(),
        (_, _, Val::Double(a), Val::Double(b)) => {
            a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
        }
        // Decimals are only stored.
        (_, _, Val::Decimal(a), Val::Decimal(b)) => a.cmp(b),
        (_, _, Val::Decimal(_), _) => Ordering::Greater,
        _ => Ordering::Less,
    }
}

/// The server's order of values of any types ("Comparison/Sort Order").
pub(super) fn compare(a: &Val, b: &Val) -> Ordering {
    let classes = a.class().cmp(&b.class());
    if classes != Ordering::Equal {
        return classes;
    }
    match (a, b) {
        (Val::Str(a), Val::Str(b)) => a.cmp(b),
        (Val::Doc(a), Val::Doc(b)) => compare_docs(a, b),
        (Val::Array(a), Val::Array(b)) => {
            let elements = a.iter().zip(b).map(|(a, b)| compare(a, b));
            elements.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        // The length comes first, then the subtype.
        (Val::Binary(x, a), Val::Binary(y, b)) => {
            a.len().cmp(&b.len()).then(x.cmp(y)).then_with(|| a.cmp(b))
        }
        (Val::ObjectId(a), Val::ObjectId(b)) => a.cmp(b),
        (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
        (Val::Date(a), Val::Date(b)) => a.cmp(b),
        (Val::Timestamp(a, x), Val::Timestamp(b, y)) => (a, x).cmp(&(b, y)),
        (Val::Regex(a, x), Val::Regex(b, y)) => (a, x).cmp(&(b, y)),
        (Val::Other(a, x), Val::Other(b, y)) => (a, x).cmp(&(b, y)),
        _ if a.is_number() => compare_numbers(a, b),
        _ => Ordering::Equal,
    }
}

/// Field by field: the type, the name, the value.
fn compare_docs(a: &Document, b: &Document) -> Ordering {
    for ((name, x), (other, y)) in a.0.iter().zip(&b.0) {
        let order =
            x.class().cmp(&y.class()).then_with(|| name.cmp(other)).then_with(|| compare(x, y));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.0.len().cmp(&b.0.len())
}

impl Document {
    pub(super) fn of(doc: &Doc) -> Document {
        let field = |it: crate::backend::bson::Element<'_>| {
            (String::from_utf8_lossy(it.name).into_owned(), Val::of(&it.value))
        };
        Document(doc.iter().map(field).collect())
    }

    pub(super) fn write(&self, body: &mut DocBuf) {
        for (name, value) in &self.0 {
            value.write(name, body);
        }
    }

    /// As BSON.
    pub(super) fn doc(&self) -> Result<Doc, Malformed> {
        let mut body = DocBuf::new();
        self.write(&mut body);
        body.finish_doc()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Val> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Val> {
        self.0.iter_mut().find(|(it, _)| it == name).map(|(_, value)| value)
    }

    /// Puts a value in place of the field's, or behind all others.
    pub(super) fn set(&mut self, name: &str, value: Val) {
        match self.get_mut(name) {
            Some(place) => *place = value,
            None => self.0.push((String::from(name), value)),
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Val> {
        let at = self.0.iter().position(|(it, _)| it == name)?;
        Some(self.0.remove(at).1)
    }

    /// The same with one more field.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: Val) -> Document {
        self.0.push((String::from(name), value));
        self
    }

    /// Bytes in BSON.
    pub(super) fn size(&self) -> usize {
        5 + self.0.iter().map(|(name, value)| name.len() + 2 + value.size()).sum::<usize>()
    }

    pub(super) fn id(&self) -> Val {
        self.get("_id").cloned().unwrap_or(Val::Null)
    }
}

/// Values in the server's order, as keys of maps.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) Vec<Val>);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> Ordering {
        let parts = self.0.iter().zip(&other.0).map(|(a, b)| compare(a, b));
        parts.fold(Ordering::Equal, Ordering::then).then(self.0.len().cmp(&other.0.len()))
    }
}

/// A dotted path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path(pub(super) Vec<String>);

impl Path {
    pub(super) fn of(text: &str) -> Path {
        Path(text.split('.').map(String::from).collect())
    }

    pub(super) fn text(&self) -> String {
        self.0.join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_all_types_have_one_order() {
        let sorted = [
            Val::MinKey,
            Val::Undefined,
            Val::Null,
            Val::Double(f64::NAN),
            Val::Double(-1e300),
            Val::Int64(i64::MIN),
            Val::Int32(-1),
            Val::Double(0.5),
            Val::Int64(1),
            Val::Int64((1 << 53) + 1),
            Val::Double(1e300),
            Val::str("a"),
            Val::str("b"),
            Val::Doc(Document::default()),
            Val::Array(Vec::new()),
            Val::Binary(0, Bytes::from_static(b"z")),
            Val::Binary(0, Bytes::from_static(b"aa")),
            Val::ObjectId([0; 12]),
            Val::Bool(false),
            Val::Bool(true),
            Val::Date(0),
            Val::Timestamp(0, 1),
            Val::MaxKey,
        ];
        for (a, x) in sorted.iter().enumerate() {
            for (b, y) in sorted.iter().enumerate() {
                assert_eq!(compare(x, y), a.cmp(&b), "{x:?} and {y:?}");
            }
        }
        let same = [Val::Int32(3), Val::Int64(3), Val::Double(3.0)];
        assert!(same.iter().all(|it| compare(it, &same[0]) == Ordering::Equal));
        let exact = (Val::Int64((1 << 53) + 1), Val::Double((1u64 << 53) as f64));
        assert_eq!(compare(&exact.0, &exact.1), Ordering::Greater);
    }

    #[test]
    fn documents_keep_their_bytes() {
        let mut body = DocBuf::new();
        body.i32("a", 1).begin("b").i64("c", 2).begin_array("d").str("0", "x").end().end();
        body.null("e").date_time("f", 5).object_id("g", [7; 12]).f64("h", 0.5);
        body.binary("i", 4, Bytes::from_static(b"data")).timestamp("j", 1, 2).bool("k", true);
        let doc = body.finish_doc().unwrap();
        let read = Document::of(&doc);
        assert_eq!(read.doc().unwrap(), doc);
        assert_eq!(read.size(), doc.as_bytes().len());
    }
}
