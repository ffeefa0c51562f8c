//! Commands about the server: `INFO`, `CONFIG`, `SCRIPT` and the like.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;

use super::cx::Cx;
use super::text::{c_text, glob, parse_i64};
use super::{Answer, NOT_AN_INTEGER, SYNTAX, command, fail, status};
use crate::backend::redis::Reply;

/// The version that is simulated.
pub(super) const VERSION: &str = "7.0.15";

/// How many commands that version has.
const COMMANDS: i64 = 240;

/// A container called without a subcommand: its arity has been refused before it comes here.
pub(super) fn container(_: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    Err(fail(SYNTAX))
}

pub(super) fn ping(_: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    match args {
        [_] => Ok(status("PONG")),
        [_, text] => Ok(Reply::Bulk(text.clone())),
        _ => Err(command::arity("ping")),
    }
}

pub(super) fn echo(_: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    Ok(Reply::Bulk(args[1].clone()))
}

pub(super) fn time(cx: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    let (seconds, nanos) = cx.server.now.wall.parts();
    let part = |n: i64| Reply::Bulk(super::text::decimal(n));
    Ok(Reply::Array([part(seconds), part(i64::from(nanos / 1000))].into()))
}

pub(super) fn wait(_: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    parse_i64(&args[1]).ok_or_else(|| fail(NOT_AN_INTEGER))?;
    let timeout = parse_i64(&args[2]);
    let timeout = timeout.ok_or_else(|| fail("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(fail("ERR timeout is negative"));
    }
    // There are no replicas to wait for.
    Ok(Reply::Int(0))
}

pub(super) fn acl_whoami(_: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    Ok(Reply::Bulk(Bytes::from_static(b"default")))
}

pub(super) fn command_count(_: &mut Cx<'_>, _: &[Bytes]) -> Answer {
    Ok(Reply::Int(COMMANDS))
}

pub(super) fn config_get(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let settings = &cx.server.settings;
    let all: BTreeMap<&'static str, String> = BTreeMap::from([
        ("appendfsync", String::from("everysec")),
        ("appendonly", String::from("no")),
        ("databases", settings.databases.to_string()),
        ("maxmemory", settings.maxmemory.to_string()),
        ("maxmemory-policy", String::from("noeviction")),
        ("proto-max-bulk-len", settings.proto_max_bulk_len.to_string()),
        ("save", String::new()),
    ]);
    let mut items = Vec::new();
    for (name, value) in all {
        let exact = args[2..].iter().find(|arg| arg.eq_ignore_ascii_case(name.as_bytes()));
        let matches = |arg: &Bytes| glob(&arg.to_ascii_lowercase(), name.as_bytes());
        if exact.is_some() || args[2..].iter().any(matches) {
            // A name that was asked for comes back in its own spelling.
            let name = exact.cloned().unwrap_or(Bytes::from_static(name.as_bytes()));
            items.push(Reply::Bulk(name));
            items.push(Reply::Bulk(value.into()));
        }
    }
    Ok(Reply::Array(items))
}

/// A size as `redis.conf` has it: `100`, `1k`, `1kb`, `64mb`, `1g`.
fn parse_size(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    if digits.is_empty() {
        // As `memtoull` has it.
        return Some(0);
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// `CONFIG SET` of `maxmemory` and `proto-max-bulk-len`; the policy can only stay what it is.
pub(super) fn config_set(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    if args.len() % 2 == 1 {
        return Err(fail(SYNTAX));
    }
    let mut settings = cx.server.settings.clone();
    for pair in args[2..].chunks_exact(2) {
        let name = String::from_utf8_lossy(c_text(&pair[0], usize::MAX)).to_ascii_lowercase();
        let size = parse_size(&pair[1]);
        let refused = |why: &str| {
            let line = format!("ERR CONFIG SET failed (possibly related to argument '{name}')");
            Reply::Error(format!("{line} - {why}"))
        };
        let memory = "argument must be a memory value";
        match name.as_str() {
            "maxmemory" => settings.maxmemory = size.ok_or_else(|| refused(memory))?,
            "proto-max-bulk-len" => {
                settings.proto_max_bulk_len = size.ok_or_else(|| refused(memory))?;
            }
            "maxmemory-policy" if &pair[1][..] == b"noeviction" => {}
            "maxmemory-policy" => {
                return Err(refused(
                    "argument(s) must be one of the following: volatile-lru, volatile-lfu, \
                     volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, \
                     noeviction",
                ));
            }
            _ => {
                let given = String::from_utf8_lossy(c_text(&pair[0], usize::MAX));
                let line = "ERR Unknown option or number of arguments for CONFIG SET";
                return Err(command::error_line(format!("{line} - '{given}'").as_bytes()));
            }
        }
    }
    cx.server.settings = settings;
    Ok(status("OK"))
}

pub(super) fn script_load(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let digest = sha1_smol::Sha1::from(&args[2]).digest().to_string();
    cx.server.loaded.insert(digest.clone());
    Ok(Reply::Bulk(digest.into()))
}

pub(super) fn script_exists(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let loaded = |digest: &Bytes| {
        let digest = String::from_utf8_lossy(digest).to_ascii_lowercase();
        Reply::Int(cx.server.loaded.contains(&digest).into())
    };
    Ok(Reply::Array(args[2..].iter().map(loaded).collect()))
}

pub(super) fn script_flush(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    let mode = args.get(2).map(|mode| mode.to_ascii_lowercase());
    if args.len() > 3 || !matches!(mode.as_deref(), None | Some(b"sync" | b"async")) {
        return Err(fail("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    cx.server.forget_scripts();
    Ok(status("OK"))
}

/// `INFO [section …]`
pub(super) fn info(cx: &mut Cx<'_>, args: &[Bytes]) -> Answer {
    const ALL: [&str; 7] =
        ["server", "clients", "memory", "persistence", "stats", "replication", "cluster"];
    let asked: Vec<String> =
        args[1..].iter().map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase()).collect();
    let everything = asked.is_empty()
        || asked.iter().any(|name| matches!(name.as_str(), "all" | "default" | "everything"));
    let mut text = String::new();
    for name in ALL.into_iter().chain(["keyspace"]) {
        if everything || asked.iter().any(|asked| asked == name) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            for line in section(cx, name) {
                text.push_str(&line);
                text.push_str("\r\n");
            }
        }
    }
    Ok(Reply::Bulk(text.into()))
}

fn section(cx: &Cx<'_>, name: &str) -> Vec<String> {
    let server = &cx.server;
    let mut title = String::from("# ");
    title.push_str(&name[..1].to_ascii_uppercase());
    title.push_str(&name[1..]);
    let mut lines = Vec::from([title]);
    let mut line = |name: &str, value: &dyn core::fmt::Display| {
        let mut text = String::from(name);
        // Writing into a string cannot fail.
        let _ = write!(text, ":{value}");
        lines.push(text);
    };
    match name {
        "server" => {
            let uptime = server.now.mono.since(server.started).as_secs();
            line("redis_version", &VERSION);
            line("redis_mode", &"standalone");
            line("os", &"simulated");
            line("arch_bits", &64);
            line("process_id", &1);
            line("run_id", &"0".repeat(40));
            line("tcp_port", &0);
            line("server_time_usec", &server.now.wall.0.div_euclid(1000));
            line("uptime_in_seconds", &uptime);
            line("uptime_in_days", &(uptime / 86400));
        }
        "clients" => {
            let tracking = server.clients.values().filter(|client| client.tracked.is_some());
            line("connected_clients", &server.clients.len());
            line("tracking_clients", &tracking.count());
        }
        "memory" => {
            line("used_memory", &server.used_memory());
            line("used_memory_dataset", &server.used_memory());
            line("total_system_memory", &0);
            line("maxmemory", &server.settings.maxmemory);
            line("maxmemory_policy", &"noeviction");
        }
        "persistence" => {
            line("loading", &0);
            line("rdb_bgsave_in_progress", &0);
            line("rdb_last_bgsave_status", &"ok");
            line("aof_enabled", &0);
            line("aof_last_write_status", &"ok");
        }
        "stats" => {
            line("total_commands_processed", &server.executed);
            line("expired_keys", &server.expired);
            line("evicted_keys", &0);
        }
        "replication" => {
            line("role", &"master");
            line("connected_slaves", &0);
            line("master_repl_offset", &0);
        }
        "cluster" => line("cluster_enabled", &0),
        _ => {
            for (index, db) in server.databases.iter().enumerate() {
                if db.keys.len() > 0 {
                    let (keys, volatile) = (db.keys.len(), db.volatile());
                    let value = format!("keys={keys},expires={volatile},avg_ttl=0");
                    line(&format!("db{index}"), &value);
                }
            }
        }
    }
    lines
}
