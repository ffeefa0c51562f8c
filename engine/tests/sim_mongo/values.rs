//! Values that commands are generated from: written out to send, printed to read.

use std::fmt;

use bytes::Bytes;
use dbmount_engine::backend::bson::{Doc, DocBuf, Value};
use dbmount_engine::sim::generate::Random;

/// A value.
#[derive(Clone, PartialEq)]
pub(crate) enum V {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Str(String),
    Date(i64),
    Id(u8),
    Bytes(Vec<u8>),
    List(Vec<V>),
    Doc(Vec<(String, V)>),
}

/// A document.
pub(crate) fn doc<const N: usize>(fields: [(&str, V); N]) -> V {
    V::Doc(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A document with one field whose name is made up.
pub(crate) fn one(name: impl Into<String>, value: V) -> V {
    V::Doc(vec![(name.into(), value)])
}

pub(crate) fn list<const N: usize>(items: [V; N]) -> V {
    V::List(items.into())
}

pub(crate) fn text(text: &str) -> V {
    V::Str(text.to_owned())
}

impl V {
    pub(crate) fn write(&self, name: &str, body: &mut DocBuf) {
        match self {
            V::Null => body.null(name),
            V::Bool(it) => body.bool(name, *it),
            V::Int(it) => body.i32(name, *it),
            V::Long(it) => body.i64(name, *it),
            V::Double(it) => body.f64(name, *it),
            V::Str(it) => body.str(name, it),
            V::Date(it) => body.date_time(name, *it),
            V::Id(it) => body.object_id(name, [*it; 12]),
            V::Bytes(it) => body.binary(name, 0, Bytes::from(it.clone())),
            V::List(items) => {
                body.begin_array(name);
                for (n, item) in items.iter().enumerate() {
                    item.write(&n.to_string(), body);
                }
                body.end()
            }
            V::Doc(fields) => {
                body.begin(name);
                for (name, value) in fields {
                    value.write(name, body);
                }
                body.end()
            }
        };
    }
}

impl fmt::Debug for V {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = DocBuf::new();
        self.write("v", &mut body);
        let doc = body.finish_doc().expect("a document");
        let value = doc.get("v").expect("it was written");
        f.write_str(&show(&value))
    }
}

/// A value with its types, whole.
pub(crate) fn show(value: &Value<'_>) -> String {
    match value {
        Value::Document(doc) => show_doc(doc),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|it| show(&it.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Value::Int32(it) => format!("{it}"),
        Value::Int64(it) => format!("{it}L"),
        Value::Double(it) => format!("{it:?}"),
        Value::Bool(it) => format!("{it}"),
        Value::Null => "null".to_owned(),
        Value::ObjectId(id) => format!("id:{:02x}{:02x}", id[0], id[11]),
        Value::Binary { subtype, data } if data.len() > 64 => {
            let sum = data.iter().fold(0u64, |sum, it| sum * 31 % 65_521 + u64::from(*it));
            format!("bin:{subtype}:{}B:{sum}", data.len())
        }
        other => format!("{other:?}"),
    }
}

/// The same for a document.
pub(crate) fn show_doc(doc: &Doc) -> String {
    let fields =
        doc.iter().map(|it| format!("{}: {}", String::from_utf8_lossy(it.name), show(&it.value)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

/// One of these.
pub(crate) fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.next() as usize % from.len()].clone()
}

/// Whether something happens that does so many times of a hundred.
pub(crate) fn chance(random: &mut Random, of_hundred: u64) -> bool {
    random.next() % 100 < of_hundred
}
