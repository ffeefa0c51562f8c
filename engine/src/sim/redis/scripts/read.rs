//! The twins of the scripts that only read: `stat.lua`, `read.lua`, `xattr.lua`, `probe.lua`.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;

use super::super::keyspace::ScanOptions;
use super::super::text::parse_i64;
use super::super::{SYNTAX, count, fail};
use super::place::{Arguments, Place, What};
use super::{ScriptContext, malformed, text};
use crate::backend::redis::Reply;

/// Hashes with more fields are not listed field by field.
const LISTED_FIELDS: i64 = 256;

/// `read.lua`
pub(super) fn read(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let place = Place::of_keys(keys, args.first())?;
    let number = |n: usize| args.get(n).and_then(|arg| parse_i64(arg));
    let (Some(first), Some(length)) = (number(1), number(2)) else {
        return Err(malformed("not a number"));
    };
    let part = |len: usize| {
        let from = usize::try_from(first).unwrap_or(0).min(len);
        (from, from.saturating_add(usize::try_from(length).unwrap_or(0)).min(len))
    };
    Ok(match s.resolve(&place).0 {
        None => Reply::Nil,
        Some(What::String) => {
            let last = super::super::text::decimal(first.saturating_add(length).saturating_sub(1));
            s.redis("GETRANGE", &[place.full()?, &args[1], &last])?
        }
        Some(What::Field) => {
            let value = s.cx.hash(place.bare()?)?.and_then(|hash| hash.get(&place.field));
            let Some(value) = value else { return Ok(Reply::Nil) };
            let (from, to) = part(value.len());
            Reply::Bulk(value.slice(from, to))
        }
        Some(What::Collection) => {
            let text = s.render(place.full()?);
            let (from, to) = part(text.len());
            Reply::Bulk(text.slice(from..to))
        }
    })
}

/// `stat.lua`
pub(super) fn stat(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let mut arguments = Arguments::new(keys, args, 0);
    let side = keys.first().ok_or_else(|| malformed("no side hash"))?;
    let mut answers = Vec::new();
    while arguments.peek().is_some() {
        answers.push(match &arguments.arg()?[..] {
            b"N" => Reply::Array(name(s, side, &mut arguments)?),
            b"L" => Reply::Array(listed(s, side, &mut arguments)?),
            b"H" => Reply::Array(scanned(s, side, &mut arguments)?),
            b"D" => Reply::Array(directory(s, arguments.key()?)?.into()),
            b"V" => count(s.inhabitants(arguments.some_key()?)?),
            _ => continue,
        });
    }
    Ok(Reply::Array(answers))
}

fn directory(s: &mut ScriptContext<'_>, dir: Option<&Bytes>) -> Result<[Reply; 2], Reply> {
    let Some(dir) = dir else { return Ok([Reply::Int(0), Reply::Nil]) };
    let has = s.redis("EXISTS", &[dir])?;
    Ok([has, s.redis("HGET", &[dir, &Bytes::from_static(b"/")])?])
}

fn name(
    s: &mut ScriptContext<'_>,
    side: &Bytes,
    arguments: &mut Arguments<'_>,
) -> Result<Vec<Reply>, Reply> {
    let (name, place) = (arguments.arg()?, arguments.place()?);
    let (what, kind) = s.resolve(&place);
    let (letter, size, at) = match what {
        None => ("-", Reply::Int(0), None),
        Some(What::String) => {
            let full = place.full()?;
            ("s", s.redis("STRLEN", &[full])?, Some(full))
        }
        Some(What::Field) => {
            let bare = place.bare()?;
            ("f", s.redis("HSTRLEN", &[bare, &place.field])?, Some(bare))
        }
        Some(What::Collection) => {
            let full = place.full()?;
            ("c", count(s.render(full).len()), Some(full))
        }
    };
    let ttl = at.map_or(Ok(Reply::Int(-1)), |at| s.redis("PTTL", &[at]))?;
    let [has, dir_record] = directory(s, arguments.key()?)?;
    let record = s.redis("HGET", &[side, name])?;
    Ok(Vec::from([text(letter), size, text(kind), record, has, dir_record, ttl]))
}

fn listed(
    s: &mut ScriptContext<'_>,
    side: &Bytes,
    arguments: &mut Arguments<'_>,
) -> Result<Vec<Reply>, Reply> {
    let (name, prefix, key) = (arguments.arg()?, arguments.arg()?, arguments.some_key()?);
    let kind = s.typeof_key(Some(key));
    let ttl = s.redis("PTTL", &[key])?;
    let size = match kind {
        "string" => s.redis("STRLEN", &[key])?,
        "hash" => {
            let fields = s.number("HLEN", &[key])?;
            let mut answer = Vec::from([text(kind), Reply::Int(fields), ttl]);
            if fields <= LISTED_FIELDS {
                add_fields(s, side, prefix, key, 0, usize::MAX, &mut answer)?;
            }
            return Ok(answer);
        }
        "none" => Reply::Int(0),
        _ => count(s.render(key).len()),
    };
    Ok(Vec::from([text(kind), size, ttl, s.redis("HGET", &[side, name])?]))
}

fn scanned(
    s: &mut ScriptContext<'_>,
    side: &Bytes,
    arguments: &mut Arguments<'_>,
) -> Result<Vec<Reply>, Reply> {
    let (prefix, key) = (arguments.arg()?, arguments.some_key()?);
    let (cursor, most) = (ScanOptions::cursor(arguments.arg()?)?, arguments.number()?);
    if s.typeof_key(Some(key)) != "hash" {
        return Ok(Vec::from([text("0"), Reply::Int(-1)]));
    }
    let most = usize::try_from(most).ok().filter(|most| *most > 0);
    let most = most.ok_or_else(|| fail(SYNTAX))?;
    let mut answer = Vec::from([Reply::Nil, s.redis("PTTL", &[key])?]);
    let next = add_fields(s, side, prefix, key, cursor, most, &mut answer)?;
    answer[0] = Reply::Bulk(format!("{next}").into());
    Ok(answer)
}

/// Adds fields of a hash from a cursor on, each with its size, its record and whether it is
/// shadowed; the next cursor.
fn add_fields(
    s: &mut ScriptContext<'_>,
    side: &Bytes,
    prefix: &Bytes,
    key: &Bytes,
    cursor: u64,
    most: usize,
    answer: &mut Vec<Reply>,
) -> Result<u64, Reply> {
    let mut fields = Vec::new();
    let Some(hash) = s.cx.hash(key)? else { return Ok(0) };
    let next = hash.scan(cursor, most, &mut |field, value| {
        fields.push((field.clone(), value.len()));
    });
    for (field, size) in fields {
        let named = if field.is_empty() {
            prefix.clone()
        } else {
            Bytes::from([prefix, &b"."[..], &field].concat())
        };
        let record = s.redis("HGET", &[side, &named])?;
        // A string or collection of the same name hides the field.
        let shadowed = !field.is_empty() && {
            let full = Bytes::from([key, &b"."[..], &field].concat());
            !matches!(s.typeof_key(Some(&full)), "none" | "hash")
        };
        answer.extend([Reply::Bulk(field), count(size), record, Reply::Int(shadowed.into())]);
    }
    Ok(next)
}

/// `xattr.lua`
pub(super) fn xattr(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let place = Place::of_keys(keys, args.first())?;
    let x = keys.get(2).ok_or_else(|| malformed("three keys"))?;
    let (what, kind) = s.resolve(&place);
    let at = if what == Some(What::Field) { &place.bare } else { &place.full };
    let mut answer = Vec::new();
    if args.len() > 1 {
        for name in &args[1..] {
            answer.push(match (made(s, name, &place, what, kind)?, x.is_empty()) {
                (Some(value), _) => value,
                (None, true) => Reply::Nil,
                (None, false) => s.redis("HGET", &[x, name])?,
            });
        }
        return Ok(Reply::Array(answer));
    }
    if !x.is_empty()
        && let Reply::Array(names) = s.redis("HKEYS", &[x])?
    {
        answer = names;
    }
    if what.is_some()
        && let Some(at) = at
    {
        answer.extend([text("user.redis.encoding"), text("user.redis.sha1")]);
        if s.number("PTTL", &[at])? >= 0 {
            answer.push(text("user.redis.ttl"));
        }
        answer.push(text("user.redis.type"));
    }
    Ok(Reply::Array(answer))
}

/// The value of an attribute that is made here; `None` for every other name.
fn made(
    s: &mut ScriptContext<'_>,
    name: &[u8],
    place: &Place,
    what: Option<What>,
    kind: &'static str,
) -> Result<Option<Reply>, Reply> {
    let Some(name) = name.strip_prefix(b"user.redis.") else { return Ok(None) };
    if !matches!(name, b"type" | b"encoding" | b"ttl" | b"sha1") {
        return Ok(None);
    }
    let Some(what) = what else { return Ok(Some(Reply::Nil)) };
    let at = if what == What::Field { place.bare()? } else { place.full()? };
    Ok(Some(match name {
        b"type" => text(kind),
        b"encoding" => s.redis("OBJECT", &[&Bytes::from_static(b"ENCODING"), at])?,
        b"ttl" => match s.number("PTTL", &[at])? {
            ..0 => Reply::Nil,
            ttl => Reply::Bulk(format!("{}.{:03}", ttl / 1000, ttl % 1000).into()),
        },
        _ => {
            let value = match what {
                What::Collection => s.render(place.full()?),
                _ => s.value_of(place, what)?,
            };
            Reply::Bulk(sha1_smol::Sha1::from(&value).digest().to_string().into())
        }
    }))
}

/// `probe.lua`: everyone may do everything here, so it comes to what the tries themselves do.
pub(super) fn probe(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let key = keys.first().ok_or_else(|| malformed("no key"))?;
    if args.first().is_some_and(|mode| &mode[..] == b"write") {
        let word = Bytes::from_static;
        for (name, rest) in [
            ("DEL", &[][..]),
            ("SET", &[word(b""), word(b"XX"), word(b"KEEPTTL")]),
            ("SETRANGE", &[word(b"0"), word(b"")]),
            ("HDEL", &[word(b"f")]),
            ("PEXPIRE", &[word(b"1000")]),
            ("HSET", &[word(b"f"), word(b"1")]),
            ("HINCRBY", &[word(b"f"), word(b"1")]),
            ("DEL", &[]),
        ] {
            let all: Vec<&Bytes> = core::iter::once(key).chain(rest).collect();
            // What a try comes to says nothing here: only a refused permission would.
            let _ = s.redis(name, &all);
        }
    }
    Ok(Reply::Array(Vec::new()))
}
