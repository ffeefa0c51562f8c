//! The twins of the Lua scripts: for each script the engine sends, a Rust function that does the
//! same, found by the script's name.

mod commit;
mod place;
mod read;
mod render;
mod volume;
mod write;

use bytes::Bytes;

use super::cx::Cx;
use super::server::{ClientId, Server};
use super::{OOM, command, fail};
use crate::backend::redis::{Args, Reply, Script};

/// A script in Rust: `KEYS` and `ARGV` in; the reply, or the error it raises.
///
/// The conversions of Lua to a reply are the twin's own: `nil` and `false` are [`Reply::Nil`],
/// `true` is `Int(1)`, a number is an integer cut towards zero, a table ends at its first `nil`.
pub type Twin = fn(&mut ScriptContext<'_>, &[Bytes], &[Bytes]) -> Result<Reply, Reply>;

/// The twin of the script of this name.
#[must_use]
pub fn twin(name: &str) -> Option<Twin> {
    let (_, twin) = TWINS.iter().find(|(known, _)| *known == name)?;
    Some(*twin)
}

/// Every script there is a twin of.
static TWINS: &[(&str, Twin)] = &[
    ("commit", commit::commit),
    ("commit-freeing", commit::commit),
    ("probe", read::probe),
    ("publish", write::publish),
    ("read", read::read),
    ("retree", commit::retree),
    ("stage", write::stage),
    ("stat", read::stat),
    ("unmake", write::unmake),
    ("volume-chain", volume::chain),
    ("volume-clean", volume::clean),
    ("volume-commit", volume::commit),
    ("volume-commit-freeing", volume::commit),
    ("volume-enter", volume::enter),
    ("volume-figures", volume::figures),
    ("volume-format", volume::format),
    ("volume-lock", volume::lock),
    ("volume-look", volume::look),
    ("volume-page", volume::page),
    ("volume-probe", volume::probe),
    ("volume-reap", volume::reap),
    ("volume-seek", volume::seek),
    ("volume-write", volume::write),
    ("write", write::write),
    ("xattr", read::xattr),
];

/// Runs a script for a client.
pub(super) fn run(
    server: &mut Server,
    client: ClientId,
    script: &Script,
    keys: &Args,
    args: &Args,
) -> Reply {
    let Some(twin) = twin(script.name) else {
        let name = script.name;
        return Reply::Error(alloc::format!("ERR the simulator has no twin of script '{name}'"));
    };
    let flags = Flags::of(script.body);
    let full = server.is_full();
    if full && flags.declared && !flags.allow_oom && !flags.no_writes {
        return fail(OOM);
    }
    let db = server.client(client).db;
    let cx = Cx { server, db, client, writer: None, resp3: false };
    let mut context = ScriptContext { cx, flags, full, dirty: false };
    twin(&mut context, keys, args).unwrap_or_else(|error| error)
}

/// What the first line of a script says.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// There is such a line, so the rules of 7.0 hold rather than those of before.
    declared: bool,
    allow_oom: bool,
    no_writes: bool,
}

impl Flags {
    /// Reads `#!lua flags=allow-oom,no-writes`.
    fn of(body: &str) -> Flags {
        let Some(line) = body.lines().next().and_then(|line| line.strip_prefix("#!lua")) else {
            return Flags::default();
        };
        let listed = line.split_whitespace().find_map(|word| word.strip_prefix("flags="));
        let has = |flag: &str| listed.is_some_and(|listed| listed.split(',').any(|f| f == flag));
        Flags { declared: true, allow_oom: has("allow-oom"), no_writes: has("no-writes") }
    }
}

/// What a script can do: call commands, one after the other. What it did before an error stays.
///
/// The twins of this crate also change values in place through `cx`, where Lua must fetch, edit
/// and store; that is only for scripts with a `#!lua` line, which are refused as a whole when
/// memory is short and need no check at each write.
#[derive(Debug)]
pub struct ScriptContext<'a> {
    cx: Cx<'a>,
    flags: Flags,
    /// Whether memory was short when it began.
    full: bool,
    /// Whether it has written: from then on a lack of memory no longer stops it.
    dirty: bool,
}

impl ScriptContext<'_> {
    /// `redis.call`: an error is raised, so `?` ends the script with it. Replies come in their
    /// RESP2 shape, as Lua sees them.
    pub fn call(&mut self, args: &[Bytes]) -> Result<Reply, Reply> {
        let spec = command::look_up(args).map_err(|error| match error.as_error() {
            Some(line) if line.starts_with("ERR wrong number") => {
                fail("ERR Wrong number of args calling Redis command from script")
            }
            _ => fail("ERR Unknown Redis command called from script"),
        })?;
        if spec.is_barred_from_scripts() {
            return Err(fail("ERR This Redis command is not allowed from script"));
        }
        if spec.writes() && self.flags.no_writes {
            return Err(fail("ERR Write commands are not allowed from read-only scripts."));
        }
        if spec.needs_memory() && self.full && !self.flags.allow_oom && !self.dirty {
            return Err(fail(OOM));
        }
        self.dirty |= spec.writes();
        (spec.run)(&mut self.cx, args)
    }

    /// `redis.pcall`: an error is a value like any other.
    pub fn pcall(&mut self, args: &[Bytes]) -> Reply {
        self.call(args).unwrap_or_else(|error| error)
    }

    /// A call whose name is a constant.
    fn redis(&mut self, name: &'static str, args: &[&Bytes]) -> Result<Reply, Reply> {
        let mut all = Args::with_capacity(args.len() + 1);
        all.push(Bytes::from_static(name.as_bytes()));
        all.extend(args.iter().map(|arg| (*arg).clone()));
        self.call(&all)
    }

    /// A call that answers with a number.
    fn number(&mut self, name: &'static str, args: &[&Bytes]) -> Result<i64, Reply> {
        Ok(self.redis(name, args)?.as_int().unwrap_or(0))
    }
}

/// What the Lua text would raise on arguments or records it was not made for. Its own words
/// depend on the line, so only the fact of an error is the same.
fn malformed(what: &str) -> Reply {
    Reply::Error(alloc::format!("ERR user_script: {what}"))
}

/// A Lua string as a reply.
fn text(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}
