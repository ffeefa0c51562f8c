//! The first look at the server: what it is, what the user may do there, what it can hold; and
//! the last, when the mount ends.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::engine::Cx;
use crate::id::Lane;
use crate::layout::{Outcome, Step};
use crate::op::Attached;

use super::place::session_key;
use super::{Keys, RESERVED, Ticket, scripts};

/// `SET … KEEPTTL` and `SCAN … TYPE` came with this version.
const OLDEST: (u32, u32) = (6, 0);

impl Keys {
    pub(super) fn start_attach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        self.options.read_only |= cx.config.read_only;
        let rights = if self.options.read_only { "read" } else { "write" };
        let probe: Args = smallvec![Bytes::from([RESERVED, b"probe"].concat())];
        let commands = alloc::vec![
            Command::plain(["INFO", "server"]),
            Command::plain(["INFO", "replication"]),
            Command::plain(["INFO", "cluster"]),
            Command::plain(["CONFIG", "GET", "proto-max-bulk-len"]),
            Command::plain(["SCAN", "0", "COUNT", "1"]),
            Command::plain(["TYPE", ".dbmount:probe"]),
            Command::plain(["GETRANGE", ".dbmount:probe", "0", "0"]),
            Command::Script {
                script: &scripts::PROBE,
                keys: probe,
                args: smallvec![Bytes::from_static(rights.as_bytes())],
            },
        ];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach))
    }

    pub(super) fn attached(&mut self, replies: &[Reply], cx: &mut Cx<Redis>) -> Step<Self> {
        let [server, replication, cluster, limit, scan, kind, range, probe] = replies else {
            return Step::Fail(self.odd("attaching", replies.first()));
        };
        if let Some(version) = figure(server, "redis_version")
            && !is_recent(&version)
        {
            let (major, minor) = OLDEST;
            return refused(format!(
                "this is Redis {version}; dbmount needs {major}.{minor} or later"
            ));
        }
        if figure(cluster, "cluster_enabled").as_deref() == Some("1") {
            return refused(String::from(
                "this server is part of a Redis Cluster, which dbmount cannot mount yet; use a \
                 server that is not in cluster mode",
            ));
        }
        for (command, reply) in [("SCAN", scan), ("TYPE", kind), ("GETRANGE", range)] {
            if let Some(line) = reply.as_error() {
                return refused(lacks(command, line));
            }
        }
        let replica = figure(replication, "role").as_deref() == Some("slave");
        let mut attached = Attached { read_only: replica, notes: Vec::new() };
        if replica {
            attached.notes.push(String::from(
                "this server is a replica: the mount is read-only; mount its master to write",
            ));
        }
        if let Some(line) = probe.as_error() {
            // A replica runs no script that might write; it was not asked for rights either.
            let only_replica = replica && line.contains("READONLY");
            if !only_replica {
                return refused(lacks("EVALSHA", line));
            }
        }
        let lacking: Vec<&str> = probe
            .as_array()
            .unwrap_or_default()
            .iter()
            .filter_map(|name| core::str::from_utf8(name.as_bytes()?).ok())
            .collect();
        if !lacking.is_empty() {
            let names = lacking.join(", ");
            let grants = lacking.iter().map(|name| format!("+{}", name.to_lowercase()));
            let grants = grants.collect::<Vec<_>>().join(" ");
            let writing =
                ["SET", "SETRANGE", "HSET", "HINCRBY", "HDEL", "DEL", "RENAME", "PEXPIRE"];
            let way_out = if lacking.iter().all(|name| writing.contains(name)) {
                " or mount with --read-only"
            } else {
                ""
            };
            return refused(format!(
                "this user may not run {names}; grant it (ACL SETUSER … {grants}){way_out}"
            ));
        }
        if let Some(value) = limit.as_array().and_then(|pair| pair.get(1)?.as_int()) {
            self.value_limit = u64::try_from(value).unwrap_or(self.value_limit);
        }
        self.live.attached(cx);
        self.start_scan(cx);
        Step::Done(Outcome::Attached(attached))
    }

    /// Lets go of what only a living mount needs.
    pub(super) fn start_detach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        if self.options.read_only || cx.config.read_only {
            return Step::Done(Outcome::Done);
        }
        let mut keys: Vec<Bytes> = self.live.orphans().cloned().collect();
        keys.push(session_key(cx.seed));
        let command = core::iter::once(Bytes::from_static(b"DEL")).chain(keys);
        Step::Work(Self::work(Lane::Meta, alloc::vec![Command::plain(command)], Ticket::Nothing))
    }
}

fn refused(line: String) -> Step<Keys> {
    Step::Done(Outcome::Refused(line))
}

fn lacks(command: &str, line: &str) -> String {
    if line.contains("NOPERM") || line.contains("no permission") {
        let lower = command.to_lowercase();
        format!("this user may not run {command}; grant it (ACL SETUSER … +{lower})")
    } else {
        format!("{command} does not work on this server: {line}")
    }
}

/// A figure of an `INFO` section.
fn figure(info: &Reply, name: &str) -> Option<String> {
    let text = core::str::from_utf8(info.as_bytes()?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(String::from(line.trim()))
}

fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found >= OLDEST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (version, recent) in
            [("7.0.15", true), ("6.0.0", true), ("5.0.14", false), ("10.1", true), ("", false)]
        {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
