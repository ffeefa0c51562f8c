//! Procedures over a whole volume that are no filesystem operations: checking, reclaiming, telling
//! figures. They do no IO, like everything here: commands come out, replies go in.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::backend::redis::{Command, Reply};
use crate::engine::Progress;

use super::key::Keyspace;
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
