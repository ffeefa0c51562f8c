//! Where recorded and replayed outputs part, in words.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use bytes::Bytes;
use ciborium::Value;

use crate::backend::bson::Doc;

/// The first place at which a replay was not what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The input whose outputs differ, counted from 1.
    pub input: u64,
    /// Where in the outputs.
    pub place: String,
    /// The outputs in the log, a line each.
    pub recorded: Vec<String>,
    /// The outputs now, a line each.
    pub replayed: Vec<String>,
}

impl Difference {
    pub(super) fn unreadable(input: u64, why: String) -> Difference {
        let place = format!("the outputs cannot be read: {why}");
        Difference { input, place, recorded: Vec::new(), replayed: Vec::new() }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "input {}: the replay differs at {}", self.input, self.place)?;
        for (who, lines) in [("recorded", &self.recorded), ("replayed", &self.replayed)] {
            if lines.is_empty() {
                writeln!(f, "  {who}: nothing")?;
            }
            for line in lines {
                writeln!(f, "  {who}: {line}")?;
            }
        }
        Ok(())
    }
}

/// Compares outputs. What the log does not have because it is older than a field is not compared.
pub(super) fn compare(
    input: u64,
    recorded: &[Value],
    replayed: &[Value],
) -> Result<(), Box<Difference>> {
    let place = recorded.iter().zip(replayed).enumerate().find_map(|(at, (was, is))| {
        differs(was, is).map(|path| format!("output {}{path}", at + 1))
    });
    let place = match place {
        Some(place) => place,
        None if recorded.len() == replayed.len() => return Ok(()),
        None => format!("the number of outputs, {} and {}", recorded.len(), replayed.len()),
    };
    let lines = |values: &[Value]| values.iter().map(text).collect();
    Err(Box::new(Difference { input, place, recorded: lines(recorded), replayed: lines(replayed) }))
}

/// The path to the first difference.
fn differs(was: &Value, is: &Value) -> Option<String> {
    match (was, is) {
        (Value::Map(was), Value::Map(is)) => was.iter().find_map(|(key, value)| {
            let name = key.as_text().unwrap_or("?");
            match is.iter().find(|(other, _)| other == key) {
                Some((_, other)) => differs(value, other).map(|path| format!(".{name}{path}")),
                None => Some(format!(".{name}, which is not there")),
            }
        }),
        (Value::Array(was), Value::Array(is)) if was.len() == is.len() => {
            let pairs = was.iter().zip(is).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (was, is))| differs(was, is).map(|path| format!("[{at}]{path}")))
        }
        (was, is) => (was != is).then(String::new),
    }
}

/// A value in one line, as close to the `Debug` of what it stands for as its names allow.
fn text(value: &Value) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _always = tell(value, &mut out);
    out
}

/// Bytes of one string that are shown.
const SHOWN: usize = 200;

fn tell(value: &Value, out: &mut String) -> fmt::Result {
    match value {
        Value::Bytes(bytes) => match Doc::parse(Bytes::copy_from_slice(bytes)) {
            Ok(doc) => write!(out, "{doc:?}"),
            Err(_) => {
                write!(out, "\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
                if bytes.len() > SHOWN { write!(out, "…({} bytes)", bytes.len()) } else { Ok(()) }
            }
        },
        Value::Text(text) => write!(out, "{text}"),
        Value::Integer(number) => write!(out, "{}", i128::from(*number)),
        Value::Float(number) => write!(out, "{number}"),
        Value::Bool(it) => write!(out, "{it}"),
        Value::Null => write!(out, "-"),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                tell(item, out)?;
            }
            out.push(']');
            Ok(())
        }
        Value::Map(fields) => {
            // A variant is written as a map of its one name.
            if let [(Value::Text(name), value)] = fields.as_slice() {
                write!(out, "{name} ")?;
                return tell(value, out);
            }
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                tell(name, out)?;
                out.push_str(": ");
                tell(value, out)?;
            }
            out.push('}');
            Ok(())
        }
        other => {
            out.push_str(&format!("{other:?}").to_string());
            Ok(())
        }
    }
}
