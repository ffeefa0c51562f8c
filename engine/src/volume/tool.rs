//! Procedures over a whole volume that are no filesystem operations: checking, reclaiming, telling
//! figures. They do no IO, like everything here: commands come out, replies go in.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::redis::{Command, Reply};
use crate::engine::Progress;

use super::key::{Key, Keyspace, MountId, number};
use super::record::{Super, VERSION};

/// Such a procedure. One batch is under way at a time.
pub trait Tool {
    /// What to ask next; `None` when it has come to its end.
    fn poll(&mut self) -> Option<Vec<Command>>;

    /// Takes the replies to what was asked last, one a command.
    ///
    /// # Errors
    /// One line that says why it cannot go on.
    fn handle(&mut self, replies: Vec<Reply>) -> Result<(), String>;

    /// How far it is.
    fn progress(&self) -> Progress;
}

/// Runs a procedure to its end over whatever executes commands.
///
/// # Errors
/// Those of [`Tool::handle`].
pub fn run(
    tool: &mut impl Tool,
    mut execute: impl FnMut(Vec<Command>) -> Vec<Reply>,
) -> Result<(), String> {
    while let Some(commands) = tool.poll() {
        tool.handle(execute(commands))?;
    }
    Ok(())
}

/// What a reply to `HMGET` of the superblock's fields says.
///
/// # Errors
/// There is no volume, or it is not for this program.
pub(super) fn superblock(keys: &Keyspace, reply: Option<&Reply>) -> Result<Super, String> {
    let name = keys.name();
    if let Some(line) = reply.and_then(Reply::as_error) {
        return Err(format!("volume {name}: the superblock cannot be read: {line}"));
    }
    let values = reply.and_then(Reply::as_array).unwrap_or_default();
    let found = Super::parse(values).map_err(|corrupt| {
        format!(
            "volume {name}: {}: {}; without it nothing else can be understood. Put back the \
             field of {{{name}}}:super (`dbmount format` of a scratch volume shows what it is like)",
            corrupt.at, corrupt.what
        )
    })?;
    match found {
        None => Err(format!("there is no volume {name} here")),
        Some(it) if it.version > VERSION => Err(format!(
            "volume {name} has format {}, and this dbmount knows formats up to {VERSION}; use a \
             newer dbmount",
            it.version
        )),
        Some(it) => Ok(it),
    }
}

/// Some fields of a hash.
pub(super) fn hmget(key: Bytes, fields: &[&'static str]) -> Command {
    let fields = fields.iter().map(|name| Bytes::from_static(name.as_bytes()));
    Command::plain([Bytes::from_static(b"HMGET"), key].into_iter().chain(fields))
}

/// The mounts that a volume has.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// The server's time, in milliseconds since the epoch.
    pub time: u64,
    /// When each lease ends, on that clock.
    pub leases: BTreeMap<MountId, u64>,
    /// Members that are no mounts.
    pub(super) litter: Vec<Bytes>,
}

impl Sessions {
    /// The question; `TIME` belongs to it.
    pub(super) fn ask(keys: &Keyspace) -> Command {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let sessions = keys.key(Key::Sessions);
        Command::plain([word("ZRANGE"), sessions, word("0"), word("-1"), word("WITHSCORES")])
    }

    /// From the replies to both.
    pub(super) fn read(sessions: Option<&Reply>, time: Option<&Reply>) -> Sessions {
        let time = time.and_then(Reply::as_array).unwrap_or_default();
        let part = |at: usize| time.get(at).and_then(Reply::as_bytes).and_then(number).unwrap_or(0);
        let time = part(0).saturating_mul(1000).saturating_add(part(1) / 1000);
        let mut read = Sessions { time, ..Sessions::default() };
        for (member, score) in scored(sessions.and_then(Reply::as_array).unwrap_or_default()) {
            let member = member.as_bytes().unwrap_or_default();
            match (number(member), whole(score)) {
                (Some(mount), Some(until)) => {
                    read.leases.insert(MountId(mount), until);
                }
                _ => read.litter.push(Bytes::copy_from_slice(member)),
            }
        }
        read
    }

    /// Those whose lease has not ended.
    pub fn alive(&self) -> impl Iterator<Item = MountId> {
        self.leases.iter().filter(|(_, until)| **until > self.time).map(|(mount, _)| *mount)
    }
}

/// Members and scores: RESP2 has them in turn, RESP3 in pairs.
pub(super) fn scored(items: &[Reply]) -> Vec<(&Reply, &Reply)> {
    let flat: Vec<&Reply> = items
        .iter()
        .flat_map(|it| {
            it.as_array().map_or_else(|| core::slice::from_ref(it).iter(), <[Reply]>::iter)
        })
        .collect();
    flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// A score that is a whole number.
pub(super) fn whole(reply: &Reply) -> Option<u64> {
    let text = core::str::from_utf8(reply.as_bytes()?).ok()?;
    let score: f64 = text.parse().ok()?;
    // As far as doubles are exact.
    ((0.0..9e15).contains(&score) && (score as u64) as f64 == score).then_some(score as u64)
}
