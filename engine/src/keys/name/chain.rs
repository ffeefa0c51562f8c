//! The escape chains under every rule of [`super`]: `%T`, and `%25…T` for a literal `%T`.
//!
//! A chain token is one `%`, then any number of `25`, then its tail. It holds no second
//! `%`, so tokens never overlap and each `%` is looked at once. Escaping a literal token
//! adds one `25` and unescaping removes one, which leaves exactly the token without any
//! `25` free to stand for the byte that cannot be written.

use alloc::borrow::Cow;
use alloc::vec::Vec;

/// One link of a chain.
pub(super) const LINK: &[u8] = b"25";

/// Where the run `%2525…` that starts at `start` (the index of a `%`) ends.
pub(super) fn run_end(text: &[u8], start: usize) -> usize {
    let mut end = start + 1;
    while text[end..].starts_with(LINK) {
        end += LINK.len();
    }
    end
}

/// Whether the whole text is `%`, `%25`, `%2525`…
pub(super) fn is_bare_run(text: &[u8]) -> bool {
    text.first() == Some(&b'%') && run_end(text, 0) == text.len()
}

/// The byte that two uppercase hex digits at the start of `text` spell.
fn tail(text: &[u8]) -> Option<u8> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    match text {
        [high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// Where the first token for `byte` starts, at any chain length.
pub(super) fn find_token(text: &[u8], byte: u8) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'%' {
            at += 1;
            continue;
        }
        let end = run_end(text, at);
        if tail(&text[end..]) == Some(byte) {
            return Some(at);
        }
        at = end;
    }
    None
}

/// Appends `text` to `out` with every byte of `set` as its `%XX`, and literal tokens of
/// `set` one link longer.
///
/// A `.` at the very start stays: only the key reading of a hash field escapes dots, and
/// it never splits there.
pub(super) fn escape(text: &[u8], set: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    let mut copied = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'%' {
            let end = run_end(text, at);
            if tail(&text[end..]).is_some_and(|b| set.contains(&b)) {
                out.extend_from_slice(&text[copied..=at]);
                out.extend_from_slice(LINK);
                copied = at + 1;
                at = end + 2;
            } else {
                at = end;
            }
        } else if set.contains(&byte) && !(byte == b'.' && at == 0) {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend_from_slice(&text[copied..at]);
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
            at += 1;
            copied = at;
        } else {
            at += 1;
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// The inverse of [`escape`].
pub(super) fn unescape<'a>(text: &'a [u8], set: &[u8]) -> Cow<'a, [u8]> {
    if set.is_empty() || !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    let mut copied = 0;
    while at < text.len() {
        if text[at] != b'%' {
            at += 1;
            continue;
        }
        let end = run_end(text, at);
        match tail(&text[end..]) {
            Some(byte) if set.contains(&byte) => {
                if end == at + 1 {
                    out.extend_from_slice(&text[copied..at]);
                    out.push(byte);
                    copied = end + 2;
                } else {
                    out.extend_from_slice(&text[copied..=at]);
                    copied = at + 1 + LINK.len();
                }
                at = end + 2;
            }
            _ => at = end,
        }
    }
    out.extend_from_slice(&text[copied..]);
    Cow::Owned(out)
}

/// Makes the chain whose `%` is at `start` one link longer.
pub(super) fn lengthen(text: &mut Vec<u8>, start: usize) {
    text.splice(start + 1..start + 1, LINK.iter().copied());
}

/// The text with the chain whose `%` is at `start` one link shorter. The chain has one.
pub(super) fn shorten(text: &[u8], start: usize) -> Vec<u8> {
    debug_assert!(text[start + 1..].starts_with(LINK), "a chain with no link");
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..=start]);
    out.extend_from_slice(&text[start + 1 + LINK.len()..]);
    out
}

/// The largest cut of `text` at or below `max` that splits no escape and, where it can,
/// no UTF-8 character. `max` is below the text's length.
pub(super) fn cut(text: &[u8], max: usize) -> usize {
    let mut cut = 0;
    while cut < max {
        let mut end = cut + 1;
        if text[cut] == b'%' {
            end = run_end(text, cut);
            if tail(&text[end..]).is_some() {
                end += 2;
            }
        }
        if end > max {
            break;
        }
        cut = end;
    }
    // Every byte of a multi-byte character is a unit of its own above, so stepping back
    // over them still lands between units.
    let back = text[..=cut].iter().rev().take(3).take_while(|&&b| b & 0xC0 == 0x80).count();
    match cut.checked_sub(back) {
        Some(lead) if back > 0 && text[lead] >= 0xC0 => lead,
        _ => cut,
    }
}
