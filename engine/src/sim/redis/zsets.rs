//! Commands on sorted sets.

use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::keyspace::ScanOptions;
use super::lists::index_range;
use super::text::{decimal, format_f64, parse_f64, parse_i64};
use super::{Answer, NOT_AN_INTEGER, SYNTAX, count, fail};
use crate::backend::redis::Reply;

fn score(value: f64) -> Reply {
    Reply::Bulk(format_f64(value).into())
}

/// A score as a listpack keeps it and `ZSCAN` shows it: a whole one is an integer.
fn packed_score(value: f64) -> Reply {
    const WHOLE: f64 = (i64::MAX / 2) as f64;
    let whole = value as i64;
    if value.abs() < WHOLE && whole as f64 == value {
        return Reply::Bulk(decimal(whole));
    }
    score(value)
}

/// `ZADD key [NX|XX] [GT|LT] [CH] score member …`
pub(super) fn zadd(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (mut nx, mut xx, mut gt, mut lt, mut ch) = (false, false, false, false, false);
    let mut at = 2;
    while let Some(option) = args.get(at) {
        match &option.to_ascii_uppercase()[..] {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            b"CH" => ch = true,
            _ => break,
        }
        at += 1;
    }
    let pairs = &args[at..];
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err(fail(SYNTAX));
    }
    if nx && xx {
        return Err(fail("ERR XX and NX options at the same time are not compatible"));
    }
    if (nx && (gt || lt)) || (gt && lt) {
        return Err(fail("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    let parsed = pairs.chunks_exact(2).map(|pair| Some((parse_f64(&pair[0])?, &pair[1])));
    let parsed: Option<Vec<(f64, &Bytes)>> = parsed.collect();
    let parsed = parsed.ok_or_else(|| fail("ERR value is not a valid float"))?;
    if xx && cx.zset(&args[1])?.is_none() {
        return Ok(Reply::Int(0));
    }
    let zset = cx.zset_or_new(&args[1])?;
    let (mut added, mut updated) = (0, 0);
    for (new, member) in parsed {
        match zset.scores.get(member).copied() {
            None if xx => {}
            None => {
                zset.insert(member, new);
                added += 1;
            }
            Some(old) if nx || (gt && new <= old) || (lt && new >= old) || new == old => {}
            Some(_) => {
                zset.insert(member, new);
                updated += 1;
            }
        }
    }
    if added + updated > 0 {
        cx.modified(&args[1]);
    }
    Ok(count(if ch { added + updated } else { added }))
}

pub(super) fn zrem(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let Some(zset) = cx.zset_mut(&args[1])? else { return Ok(Reply::Int(0)) };
    let mut removed = 0;
    for member in &args[2..] {
        removed += usize::from(zset.remove(member));
    }
    let empty = zset.scores.len() == 0;
    if removed > 0 {
        cx.shrunk(&args[1], empty);
    }
    Ok(count(removed))
}

pub(super) fn zcard(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(count(cx.zset(&args[1])?.map_or(0, |zset| zset.scores.len())))
}

pub(super) fn zscore(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let found = cx.zset(&args[1])?.and_then(|zset| zset.scores.get(&args[2]).copied());
    Ok(found.map_or(Reply::Nil, score))
}

/// `ZRANGE key start stop [REV] [WITHSCORES]`
pub(super) fn zrange(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (mut reverse, mut with_scores) = (false, false);
    for option in &args[4..] {
        match &option.to_ascii_uppercase()[..] {
            b"REV" => reverse = true,
            b"WITHSCORES" => with_scores = true,
            _ => return Err(fail(SYNTAX)),
        }
    }
    let start = parse_i64(&args[2]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let stop = parse_i64(&args[3]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let nested = cx.resp3;
    let mut items = Vec::new();
    let Some(zset) = cx.zset(&args[1])? else { return Ok(Reply::Array(items)) };
    let (from, to) = index_range(start, stop, zset.scores.len()).unwrap_or((0, 0));
    let mut visit = |member: &Bytes, value: f64| {
        let member = Reply::Bulk(member.clone());
        match (with_scores, nested) {
            (false, _) => items.push(member),
            // RESP3 has an array for each pair.
            (true, true) => items.push(Reply::Array([member, score(value)].into())),
            (true, false) => items.extend([member, score(value)]),
        }
    };
    let order = zset.order.iter().map(|((_, member), value)| (member, *value));
    if reverse {
        order.rev().skip(from).take(to - from).for_each(|(member, value)| visit(member, value));
    } else {
        order.skip(from).take(to - from).for_each(|(member, value)| visit(member, value));
    }
    Ok(Reply::Array(items))
}

/// One end of a range by member: a member, and whether it belongs to the range.
enum Lex {
    Least,
    Most,
    At(Bytes, bool),
}

impl Lex {
    fn parse(text: &Bytes) -> Result<Lex, Reply> {
        match text.first() {
            Some(b'-') if text.len() == 1 => Ok(Lex::Least),
            Some(b'+') if text.len() == 1 => Ok(Lex::Most),
            Some(b'[') => Ok(Lex::At(text.slice(1..), true)),
            Some(b'(') => Ok(Lex::At(text.slice(1..), false)),
            _ => Err(fail("ERR min or max not valid string range item")),
        }
    }
}

/// One end of a range by score.
fn parse_bound(text: &Bytes) -> Result<(f64, bool), Reply> {
    let invalid = || fail("ERR min or max is not a float");
    let (digits, inclusive) = match text.strip_prefix(b"(") {
        Some(digits) => (digits, false),
        None => (&text[..], true),
    };
    // `strtod` takes nothing for 0.
    let value = if digits.is_empty() { Some(0.0) } else { parse_f64(digits) };
    let value = value.filter(|value| !value.is_nan()).ok_or_else(invalid)?;
    Ok((value, inclusive))
}

/// `LIMIT offset count` at the end of a range by member or score. A negative count is no limit.
fn parse_limit(args: &[Bytes]) -> Result<(usize, usize), Reply> {
    match args {
        [] => Ok((0, usize::MAX)),
        [word, offset, limit] if word.eq_ignore_ascii_case(b"limit") => {
            let number = |text| parse_i64(text).ok_or_else(|| fail(NOT_AN_INTEGER));
            let (offset, limit) = (number(offset)?, number(limit)?);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            // A negative offset skips more than there can be.
            Ok(usize::try_from(offset).map_or((0, 0), |offset| (offset, limit)))
        }
        _ => Err(fail(SYNTAX)),
    }
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`; all scores are the same.
pub(super) fn zrangebylex(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (skip, take) = parse_limit(&args[4..])?;
    let (min, max) = (Lex::parse(&args[2])?, Lex::parse(&args[3])?);
    let Some(zset) = cx.zset(&args[1])? else { return Ok(Reply::Array(Vec::new())) };
    let Some(((least, _), _)) = zset.order.first_key_value() else {
        return Ok(Reply::Array(Vec::new()));
    };
    let start = match &min {
        Lex::Least => Bytes::new(),
        Lex::Most => return Ok(Reply::Array(Vec::new())),
        Lex::At(member, _) => member.clone(),
    };
    let after_min = |member: &Bytes| match &min {
        Lex::At(min, false) => member > min,
        _ => true,
    };
    let before_max = |member: &Bytes| match &max {
        Lex::Least => false,
        Lex::Most => true,
        Lex::At(max, true) => member <= max,
        Lex::At(max, false) => member < max,
    };
    let members = zset.order.range((*least, start)..).map(|((_, member), _)| member);
    let members = members.filter(|it| after_min(it)).take_while(|it| before_max(it));
    Ok(Reply::Array(members.skip(skip).take(take).cloned().map(Reply::Bulk).collect()))
}

/// `ZRANGEBYSCORE key min max [LIMIT offset count]`
pub(super) fn zrangebyscore(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let (skip, take) = parse_limit(&args[4..])?;
    let ((min, min_in), (max, max_in)) = (parse_bound(&args[2])?, parse_bound(&args[3])?);
    let Some(zset) = cx.zset(&args[1])? else { return Ok(Reply::Array(Vec::new())) };
    let within = |score: f64| {
        (if min_in { score >= min } else { score > min })
            && (if max_in { score <= max } else { score < max })
    };
    let found = zset.order.iter().filter(|(_, score)| within(**score));
    let members = found.map(|((_, member), _)| Reply::Bulk(member.clone()));
    Ok(Reply::Array(members.skip(skip).take(take).collect()))
}

pub(super) fn zscan(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let cursor = ScanOptions::cursor(&args[2])?;
    let Some(zset) = cx.zset(&args[1])? else { return Ok(ScanOptions::nothing()) };
    let options = ScanOptions::parse(&args[3..], false)?;
    let mut items = Vec::new();
    let next = if zset.is_packed() {
        for ((_, member), value) in &zset.order {
            if options.matches(member) {
                items.extend([Reply::Bulk(member.clone()), packed_score(*value)]);
            }
        }
        0
    } else {
        zset.scores.scan(cursor, options.count, |member, value| {
            if options.matches(member) {
                items.extend([Reply::Bulk(member.clone()), score(*value)]);
            }
        })
    };
    Ok(ScanOptions::page(next, items))
}
