//! The volume layout over the simulated Redis.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Reply};
use crate::sim::redis;
use crate::time::Now;
use crate::volume::fsck::Fsck;
use crate::volume::key::Keyspace;
use crate::volume::{Format, Options, Volume, tool};

use super::keyspace::REDIS;
use super::site::{ClientId, Site};
use super::{CALLER, Sabotage, Setup, Trouble};

/// A volume, made by whoever mounts it first.
#[derive(Clone, Copy, Debug)]
pub enum Disk {}

impl Site for Disk {
    type Layout = Volume;
    type Options = Options;
    type Server = redis::Server;

    const NAME: &'static str = "volume";
    const KEEPS_TIMES: bool = true;
    const TROUBLES: &'static [Trouble] = &REDIS;

    fn server(now: Now) -> redis::Server {
        redis::Server::new(now)
    }

    /// Small blocks, so that small files have several.
    fn options() -> Options {
        let keys = Keyspace::new("disk").unwrap_or_else(|why| unreachable!("{why}"));
        let (uid, gid) = (CALLER.uid, CALLER.gid);
        let format = Format { block: 4 << 10, uid, gid, keep: true, ..Format::default() };
        Options { format: Some(format), ..Options::new(keys) }
    }

    /// What a mount wants to hear of, as the frontend chooses it.
    fn subscribe(
        server: &mut redis::Server,
        now: Now,
        client: ClientId,
        setup: &Setup<Self>,
    ) -> bool {
        let mut words = Vec::from(["CLIENT", "TRACKING", "ON", "BCAST"].map(Bytes::from));
        for prefix in setup.options.keys.tracked() {
            words.extend([Bytes::from_static(b"PREFIX"), prefix]);
        }
        server.execute(now, client.into(), &Command::plain(words));
        true
    }

    fn inspect(execute: &mut dyn FnMut(&Command) -> Reply, now: Now) -> Option<String> {
        let mut fsck = Fsck::new(Self::options().keys, now.wall);
        let run = |commands: Vec<Command>| commands.iter().map(&mut *execute).collect();
        if let Err(why) = tool::run(&mut fsck, run) {
            return Some(why);
        }
        let findings = fsck.into_report().findings;
        (!findings.is_empty()).then(|| {
            let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    fn tamper(sabotage: Sabotage, command: &mut Command) {
        sabotage.redis(command);
    }
}
