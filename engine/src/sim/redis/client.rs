//! Commands about the connection itself: its name, its protocol, what it tracks and listens to.

use alloc::vec::Vec;

use bytes::Bytes;

use super::cx::Cx;
use super::text::{c_text, parse_i64};
use super::tracking::Tracked;
use super::{Answer, SYNTAX, count, fail, status};
use crate::backend::redis::{Push, Reply};

fn text(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

/// `HELLO [2|3 [AUTH user password] [SETNAME name]]`; any password will do.
pub(super) fn hello(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mut resp3 = cx.resp3;
    if let Some(version) = args.get(1) {
        resp3 = match parse_i64(version) {
            Some(2) => false,
            Some(3) => true,
            Some(_) => return Err(fail("NOPROTO unsupported protocol version")),
            None => return Err(fail("ERR Protocol version is not an integer or out of range")),
        };
    }
    let mut at = 2;
    while at < args.len() {
        if args[at].eq_ignore_ascii_case(b"auth") && at + 2 < args.len() {
            at += 3;
        } else if args[at].eq_ignore_ascii_case(b"setname") && at + 1 < args.len() {
            set_name(cx, &args[at + 1])?;
            at += 2;
        } else {
            let mut line = b"ERR Syntax error in HELLO option '".to_vec();
            line.extend_from_slice(c_text(&args[at], usize::MAX));
            line.push(b'\'');
            return Err(super::command::error_line(&line));
        }
    }
    let id = cx.client;
    cx.server.client(id).resp3 = resp3;
    let id = i64::try_from(id.0).unwrap_or(i64::MAX);
    let proto = Reply::Int(if resp3 { 3 } else { 2 });
    Ok(Reply::Array(Vec::from([
        text("server"),
        text("redis"),
        text("version"),
        text(super::admin::VERSION),
        text("proto"),
        proto,
        text("id"),
        Reply::Int(id),
        text("mode"),
        text("standalone"),
        text("role"),
        text("master"),
        text("modules"),
        Reply::Array(Vec::new()),
    ])))
}

pub(super) fn id(cx: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    Ok(Reply::Int(i64::try_from(cx.client.0).unwrap_or(i64::MAX)))
}

fn set_name(cx: &mut Cx<'_>, name: &Bytes) -> Result<(), Reply> {
    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(fail(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    let id = cx.client;
    cx.server.client(id).name = name.clone();
    Ok(())
}

pub(super) fn setname(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    set_name(cx, &args[2])?;
    Ok(status("OK"))
}

pub(super) fn getname(cx: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    let id = cx.client;
    let name = cx.server.client(id).name.clone();
    Ok(if name.is_empty() { Reply::Nil } else { Reply::Bulk(name) })
}

pub(super) fn no_evict(_: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let known = args[2].eq_ignore_ascii_case(b"on") || args[2].eq_ignore_ascii_case(b"off");
    // Nothing is ever evicted here.
    if known { Ok(status("OK")) } else { Err(fail(SYNTAX)) }
}

/// `CLIENT TRACKING ON|OFF [BCAST] [PREFIX prefix …] [NOLOOP]`
pub(super) fn tracking(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mut wanted = Tracked::default();
    let mut at = 3;
    while at < args.len() {
        match &args[at].to_ascii_lowercase()[..] {
            b"bcast" => wanted.broadcast = true,
            b"noloop" => wanted.noloop = true,
            b"prefix" if at + 1 < args.len() => {
                at += 1;
                wanted.prefixes.push(args[at].clone());
            }
            _ => return Err(fail(SYNTAX)),
        }
        at += 1;
    }
    let id = cx.client;
    let current = cx.server.client(id).tracked.clone();
    match &args[2].to_ascii_lowercase()[..] {
        b"on" => {}
        b"off" => {
            if let Some(current) = current {
                cx.server.tracking.forget(id, &current);
                cx.server.client(id).tracked = None;
            }
            return Ok(status("OK"));
        }
        _ => return Err(fail(SYNTAX)),
    }
    if !wanted.broadcast && !wanted.prefixes.is_empty() {
        return Err(fail("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if current.as_ref().is_some_and(|current| current.broadcast != wanted.broadcast) {
        return Err(fail(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, \
             and then re-enabling it with a different mode.",
        ));
    }
    let mut all = current.map(|current| current.prefixes).unwrap_or_default();
    // The first in this order is the one an error names.
    all.sort_unstable();
    check_overlaps(&all, &wanted.prefixes)?;
    if wanted.broadcast && wanted.prefixes.is_empty() {
        // No prefix is the prefix of everything.
        wanted.prefixes.push(Bytes::new());
    }
    for prefix in wanted.prefixes {
        cx.server.tracking.listen(id, &prefix);
        if !all.contains(&prefix) {
            all.push(prefix);
        }
    }
    cx.server.client(id).tracked = Some(Tracked { prefixes: all, ..wanted });
    Ok(status("OK"))
}

/// Refuses prefixes of which one begins with another: a key would be told twice.
fn check_overlaps(current: &[Bytes], new: &[Bytes]) -> Result<(), Reply> {
    let overlap = |a: &Bytes, b: &Bytes| a.starts_with(b) || b.starts_with(a);
    let complain = |prefix: &Bytes, kind: &str, other: &Bytes, end: &str| {
        let mut line = b"ERR Prefix '".to_vec();
        line.extend_from_slice(c_text(prefix, usize::MAX));
        line.extend_from_slice(kind.as_bytes());
        line.extend_from_slice(c_text(other, usize::MAX));
        line.extend_from_slice(end.as_bytes());
        super::command::error_line(&line)
    };
    const END: &str = "'. Prefixes for a single client must not overlap.";
    for (i, prefix) in new.iter().enumerate() {
        if let Some(old) = current.iter().find(|old| overlap(old, prefix)) {
            return Err(complain(prefix, "' overlaps with an existing prefix '", old, END));
        }
        if let Some(other) = new[i + 1..].iter().find(|other| overlap(other, prefix)) {
            let kind = "' overlaps with another provided prefix '";
            return Err(complain(prefix, kind, other, END));
        }
    }
    Ok(())
}

pub(super) fn publish(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mut receivers = 0;
    for client in cx.server.clients.values_mut() {
        if client.channels.contains(&args[1]) {
            client.tell(Push::Message { channel: args[1].clone(), payload: args[2].clone() });
            receivers += 1;
        }
    }
    Ok(count(receivers))
}

fn confirmation(kind: &'static str, channel: Reply, channels: usize) -> Reply {
    Reply::Array([text(kind), channel, count(channels)].into())
}

pub(super) fn subscribe(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let id = cx.client;
    let client = cx.server.client(id);
    client.channels.extend(args[1..].iter().cloned());
    let channel = args.last().cloned().map_or(Reply::Nil, Reply::Bulk);
    Ok(confirmation("subscribe", channel, client.channels.len()))
}

pub(super) fn unsubscribe(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let id = cx.client;
    let client = cx.server.client(id);
    if args.len() == 1 {
        client.channels.clear();
        return Ok(confirmation("unsubscribe", Reply::Nil, 0));
    }
    for channel in &args[1..] {
        client.channels.remove(channel);
    }
    let channel = args.last().cloned().map_or(Reply::Nil, Reply::Bulk);
    Ok(confirmation("unsubscribe", channel, client.channels.len()))
}
