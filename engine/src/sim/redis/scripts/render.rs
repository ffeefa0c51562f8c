//! The twin of `render.lua`: collections as text, one element a line.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::text::format_f64;
use super::super::value::Value;
use super::ScriptContext;

/// Appends the element with `\` and newline escaped, and blanks too if it is one word of many.
fn escape(into: &mut Vec<u8>, element: &[u8], word: bool) {
    for byte in element {
        match byte {
            b'\\' => into.extend_from_slice(b"\\\\"),
            b'\n' => into.extend_from_slice(b"\\n"),
            b' ' if word => into.extend_from_slice(b"\\x20"),
            other => into.push(*other),
        }
    }
}

impl ScriptContext<'_> {
    /// The text of the collection under a key; nothing if there is none.
    pub(super) fn render(&mut self, key: &[u8]) -> Bytes {
        let mut text = Vec::new();
        match self.cx.get(key).map(|entry| &entry.value) {
            Some(Value::List(list)) => {
                for item in &list.items {
                    escape(&mut text, item, false);
                    text.push(b'\n');
                }
            }
            Some(Value::Set(set)) => {
                let mut lines = Vec::with_capacity(set.len());
                set.scan(0, usize::MAX, &mut |member| {
                    let mut line = Vec::with_capacity(member.len() + 1);
                    escape(&mut line, &member, false);
                    lines.push(line);
                });
                // They are sorted as they are shown.
                lines.sort_unstable();
                for line in lines {
                    text.extend_from_slice(&line);
                    text.push(b'\n');
                }
            }
            Some(Value::Zset(zset)) => {
                for ((_, member), score) in &zset.order {
                    text.extend_from_slice(format_f64(*score).as_bytes());
                    text.push(b' ');
                    escape(&mut text, member, false);
                    text.push(b'\n');
                }
            }
            Some(Value::Stream(stream)) => {
                for ((millis, sequence), fields) in &stream.entries {
                    text.extend_from_slice(alloc::format!("{millis}-{sequence}").as_bytes());
                    for field in fields {
                        text.push(b' ');
                        escape(&mut text, field, true);
                    }
                    text.push(b'\n');
                }
            }
            _ => {}
        }
        text.into()
    }
}
