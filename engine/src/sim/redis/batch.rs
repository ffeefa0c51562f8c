//! Batches: several commands of the engine at once, as a transport would send them.

use alloc::vec::Vec;

use super::server::{ClientId, Server};
use super::{OOM, fail};
use crate::backend::redis::{Command, Redis, Reply};
use crate::contract::{Batch, Mode};
use crate::time::Now;

/// What `EXEC` says when a command was refused while it was queued.
const ABORTED: &str = "EXECABORT Transaction discarded because of previous errors.";

impl Server {
    /// Executes a batch for a client: one reply a command, in order.
    ///
    /// `Mode::Atomic` is `MULTI` … `EXEC`: when a command is refused while it is queued (unknown,
    /// wrong arity, or any at all on a full server), nothing is executed, that command's reply is
    /// its error and every other command's is the `EXECABORT` line. An error of a command while
    /// it is executed is its own reply, and the others stand.
    pub fn run(&mut self, now: Now, client: ClientId, batch: &Batch<Redis>) -> Vec<Reply> {
        self.now = now;
        if batch.mode == Mode::Atomic {
            let refusals: Vec<_> =
                batch.commands.iter().map(|command| self.refuse(command)).collect();
            if refusals.iter().any(Option::is_some) {
                let reply = |refusal: Option<Reply>| refusal.unwrap_or_else(|| fail(ABORTED));
                return refusals.into_iter().map(reply).collect();
            }
        }
        batch.commands.iter().map(|command| self.execute(now, client, command)).collect()
    }

    /// Why `MULTI` would not queue a command.
    fn refuse(&self, command: &Command) -> Option<Reply> {
        if let Command::Plain(args) = command
            && let Err(error) = self.admit(args)
        {
            return Some(error);
        }
        self.is_full().then(|| fail(OOM))
    }
}
