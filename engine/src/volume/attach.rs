//! The first look at the server: whether it can hold a volume, whether this one is there, what
//! the user may do; a volume made; and the last, when the mount ends.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Outcome, Step};
use crate::op::{Attached, Attr, Kind};
use crate::time::Duration;

use super::key::{DataId, Key, MountId};
use super::options::Format;
use super::record::{Inode, Stamp, Super, VERSION};
use super::{LEASE, NUMBERS, Ticket, Volume, count, decimal, scripts};

/// `ZRANGEBYLEX` and scripts that write after reading are older; six is the oldest with ACLs and
/// with `UNLINK` in scripts for certain.
const OLDEST: u64 = 6;

/// How far attaching has come.
#[derive(Clone, Debug)]
pub enum Stage {
    /// The server and the superblock.
    Look,
    /// The volume is being made.
    Format(Attached),
    /// A number for the mount.
    Enter(Attached),
}

impl Volume {
    pub(super) fn start_attach(&mut self, cx: &mut Cx<Redis>) -> Step<Self> {
        self.options.read_only |= cx.config.read_only;
        self.look(Stage::Look)
    }

    fn look(&self, stage: Stage) -> Step<Self> {
        let rights = if self.options.read_only { "read" } else { "write" };
        let probed = Bytes::from([&self.keys.prefix()[..], b"probe"].concat());
        let block = self.block_key(DataId(0), 0);
        let head = [Bytes::from_static(b"HMGET"), self.key(Key::Super)];
        let fields = Super::FIELDS.into_iter().map(|name| Bytes::from_static(name.as_bytes()));
        let commands = alloc::vec![
            Command::plain(["INFO", "server"]),
            Command::plain(["INFO", "replication"]),
            Command::plain(["INFO", "cluster"]),
            Command::plain(["INFO", "memory"]),
            Command::plain(head.into_iter().chain(fields)),
            Command::Script {
                script: &scripts::PROBE,
                keys: smallvec![probed, block],
                args: smallvec![Bytes::from_static(rights.as_bytes())],
            },
        ];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach(stage)))
    }

    pub(super) fn attached(
        &mut self,
        stage: Stage,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        match stage {
            Stage::Look => match self.looked_at(replies, cx) {
                Ok(step) => step,
                Err(line) => refused(line),
            },
            Stage::Format(attached) => match replies.first() {
                // Made, or made by somebody else meanwhile: what it is like is to be seen.
                Some(Reply::Int(made)) => {
                    if *made == 0 && !self.options.format.is_some_and(|format| format.keep) {
                        return refused(self.exists());
                    }
                    self.options.format = None;
                    let _ = attached;
                    self.look(Stage::Look)
                }
                other => Step::Fail(self.odd("making the volume", other)),
            },
            Stage::Enter(attached) => {
                let numbers = replies.first().and_then(Reply::as_array).unwrap_or_default();
                let mount = count(numbers.first());
                let (Some(mount), true) = (mount, self.take_numbers(numbers.get(1))) else {
                    return Step::Fail(self.odd("entering the volume", replies.first()));
                };
                self.mount = MountId(mount);
                self.live.attached(cx);
                Step::Done(Outcome::Attached(attached))
            }
        }
    }

    /// What the server is like; what comes next, or the line that refuses.
    fn looked_at(&mut self, replies: &[Reply], cx: &mut Cx<Redis>) -> Result<Step<Self>, String> {
        let [server, replication, cluster, memory, superblock, probe] = replies else {
            return Ok(Step::Fail(self.odd("attaching", replies.first())));
        };
        let version = figure(server, "redis_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if major.is_some_and(|major| major < OLDEST) {
            return Err(format!("this is Redis {version}; a volume needs {OLDEST}.0 or later"));
        }
        if figure(cluster, "cluster_enabled").as_deref() == Some("1") {
            return Err(String::from(
                "this server is part of a Redis Cluster, which dbmount cannot mount yet; use a \
                 server that is not in cluster mode",
            ));
        }
        if let Some(line) = superblock.as_error() {
            return Err(format!(
                "the superblock cannot be read: {line}; grant +hmget on ~{{{}}}:*",
                self.keys.name()
            ));
        }
        let replica = figure(replication, "role").as_deref() == Some("slave");
        let mut attached = Attached { read_only: replica, notes: Vec::new() };
        if replica {
            attached.notes.push(String::from(
                "this server is a replica: the mount is read-only; mount its master to write",
            ));
            self.options.read_only = true;
        }
        self.rights(probe, &mut attached)?;
        self.memory(memory, &mut attached)?;
        let values = superblock.as_array().unwrap_or_default();
        let found = Super::parse(values)
            .map_err(|corrupt| format!("volume {}: {corrupt}", self.keys.name()))?;
        let Some(found) = found else {
            return match self.options.format {
                Some(format) => {
                    format.check()?;
                    Ok(self.format(&format, attached, cx))
                }
                None => Err(format!(
                    "there is no volume {0} here; make one with `dbmount format \
                     redis://…?volume={0}`",
                    self.keys.name()
                )),
            };
        };
        if self.options.format.is_some_and(|format| !format.keep) {
            return Err(self.exists());
        }
        if found.version > VERSION {
            return Err(format!(
                "volume {} has format {}, and this dbmount knows formats up to {VERSION}; use a \
                 newer dbmount",
                self.keys.name(),
                found.version
            ));
        }
        self.block = found.block;
        (self.capacity, self.inodes) = (found.capacity, found.inodes);
        self.live.read_only = self.options.read_only;
        if self.options.read_only {
            self.live.attached(cx);
            return Ok(Step::Done(Outcome::Attached(attached)));
        }
        let lease = Bytes::from(format!("{}", LEASE.as_millis()));
        let command = Command::Script {
            script: &scripts::ENTER,
            keys: smallvec![self.key(Key::Usage), self.key(Key::Sessions)],
            args: smallvec![decimal(NUMBERS), lease, self.keys.prefix()],
        };
        let ticket = Ticket::Attach(Stage::Enter(attached));
        Ok(Step::Work(Self::work(Lane::Meta, alloc::vec![command], ticket)))
    }

    fn exists(&self) -> String {
        format!(
            "there is a volume {} already; nothing was changed. Mount it, or choose another name",
            self.keys.name()
        )
    }

    /// Whether the user may do what a mount does.
    fn rights(&mut self, probe: &Reply, attached: &mut Attached) -> Result<(), String> {
        let name = self.keys.name();
        if let Some(line) = probe.as_error() {
            // A replica runs no script that might write; it was not asked for rights either.
            return if attached.read_only && line.contains("READONLY") {
                Ok(())
            } else if line.contains("access") {
                Err(format!(
                    "this user may not touch the keys of the volume: {line}; grant them (ACL \
                     SETUSER … ~{{{name}}}:* ~{name}:b:*)"
                ))
            } else {
                Err(format!("this user may not run scripts here: {line}; grant +eval +evalsha"))
            };
        }
        let answer = probe.as_array().unwrap_or_default();
        let refused = |at: usize| answer.get(at).and_then(Reply::as_array).unwrap_or_default();
        let text = |name: &Reply| Some(String::from(core::str::from_utf8(name.as_bytes()?).ok()?));
        let mut lacking: Vec<String> = refused(0).iter().filter_map(text).collect();
        if lacking.is_empty() && count(answer.get(2)) == Some(1) && self.options.format.is_none() {
            attached.notes.push(String::from(
                "this user may only read: the mount is read-only; to write, grant +@write (ACL \
                 SETUSER)",
            ));
            attached.read_only = true;
            self.options.read_only = true;
            return Ok(());
        }
        lacking.extend(refused(1).iter().filter_map(text));
        if lacking.is_empty() {
            return Ok(());
        }
        let grants: Vec<String> =
            lacking.iter().map(|name| format!("+{}", name.to_lowercase())).collect();
        Err(format!(
            "this user may not run {} on the keys of the volume; grant it (ACL SETUSER … {} \
             ~{{{name}}}:* ~{name}:b:*)",
            lacking.join(", "),
            grants.join(" "),
        ))
    }

    /// A server that evicts keys eats files.
    fn memory(&self, memory: &Reply, attached: &mut Attached) -> Result<(), String> {
        let Some(policy) = figure(memory, "maxmemory_policy") else { return Ok(()) };
        if policy == "noeviction" {
            return Ok(());
        }
        let line = format!(
            "the server's maxmemory-policy is {policy}: when its memory is full it removes keys, \
             and with them files"
        );
        if !self.options.force {
            return Err(format!(
                "{line}; set it to noeviction (CONFIG SET maxmemory-policy noeviction), or use \
                 --force"
            ));
        }
        attached.notes.push(line);
        Ok(())
    }

    fn format(&self, format: &Format, attached: Attached, cx: &Cx<Redis>) -> Step<Self> {
        let now = cx.now.wall;
        let superblock = Super {
            version: VERSION,
            uuid: format!("{:016x}{:016x}", cx.seed, now.0),
            block: format.block,
            created: now,
            capacity: format.capacity,
            inodes: format.inodes,
        };
        let attr = Attr {
            ino: Ino::ROOT,
            kind: Kind::Dir,
            perm: format.perm & 0o7777,
            nlink: 2,
            uid: format.uid,
            gid: format.gid,
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
        };
        let root = Inode::new(attr, Some(Ino::ROOT), Stamp::default()).pairs();
        let flat = |pairs: Vec<(&'static str, Bytes)>| {
            pairs.into_iter().flat_map(|(name, value)| [Bytes::from_static(name.as_bytes()), value])
        };
        let superblock: Vec<Bytes> = flat(superblock.pairs()).collect();
        let mut args: Args = smallvec![decimal(superblock.len() as u64)];
        args.extend(superblock);
        args.extend(flat(root));
        let keys = [Key::Super, Key::Usage, Key::Inode(Ino::ROOT)].map(|key| self.key(key));
        let command =
            Command::Script { script: &scripts::FORMAT, keys: keys.into_iter().collect(), args };
        let ticket = Ticket::Attach(Stage::Format(attached));
        Step::Work(Self::work(Lane::Meta, alloc::vec![command], ticket))
    }

    /// Lets go of what only a living mount needs.
    pub(super) fn start_detach(&mut self) -> Step<Self> {
        if self.options.read_only || self.mount == MountId(0) {
            return Step::Done(Outcome::Done);
        }
        self.live.attached = false;
        let command = self.reap(Duration::ZERO, &[], &[]);
        Step::Work(Self::work(Lane::Meta, alloc::vec![command], Ticket::Nothing))
    }
}

fn refused(line: String) -> Step<Volume> {
    Step::Done(Outcome::Refused(line))
}

/// A figure of an `INFO` section.
fn figure(info: &Reply, name: &str) -> Option<String> {
    let text = core::str::from_utf8(info.as_bytes()?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(String::from(line.trim()))
}
