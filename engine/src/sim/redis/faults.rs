//! What may go wrong with a server: scripts forgotten, writes lost in a failover, keys evicted,
//! memory full, commands refused.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::db::Db;
use super::fail;
use super::server::{ClientId, Server};
use super::tracking::Tracking;
use crate::backend::redis::{Command, Reply};

/// What a server says while a script of somebody else takes long.
const BUSY: &str = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or \
                    SHUTDOWN NOSAVE.";

/// What has gone wrong, or will.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// What a replica has that will take over.
    replica: Vec<Db>,
    /// Scripts whose text has been sent, by their names.
    scripts: BTreeSet<&'static str>,
    /// So many of the next commands are refused.
    refusals: usize,
}

impl Server {
    /// The replica has all that there is now.
    pub fn replicate(&mut self) {
        self.faults.replica.clone_from(&self.databases);
    }

    /// The server dies, and its replica goes on with what it has: all that was there at the last
    /// [`replicate`](Self::replicate). It knows no scripts and no connections.
    pub fn fail_over(&mut self) {
        self.databases.clone_from(&self.faults.replica);
        let count = self.settings.databases.max(1);
        self.databases.resize_with(count, Db::default);
        self.clients.clear();
        self.tracking = Tracking::default();
        self.forget_scripts();
        self.version += 1;
    }

    /// As `SCRIPT FLUSH` does.
    pub fn forget_scripts(&mut self) {
        self.loaded.clear();
        self.faults.scripts.clear();
    }

    /// Whether the server has the script of a command that a connection sends: by its digest if it
    /// has sent the text before, else `by_text`, and then it has it. True of any other command.
    pub fn has_script(&mut self, client: ClientId, command: &Command, by_text: bool) -> bool {
        let Command::Script { script, .. } = command else { return true };
        let first = self.client(client).scripts.insert(script.name);
        if first || by_text {
            self.faults.scripts.insert(script.name);
        }
        self.faults.scripts.contains(script.name)
    }

    /// Lets only so many more bytes in.
    pub fn fill(&mut self, bytes: u64) {
        self.settings.maxmemory = (self.used_memory() + bytes).max(1);
    }

    /// There is room without end.
    pub fn relieve(&mut self) {
        self.settings.maxmemory = 0;
    }

    /// So many of the next commands are to be refused, by who asks
    /// [`take_refusal`](Self::take_refusal) first.
    pub fn refuse_next(&mut self, commands: usize) {
        self.faults.refusals = commands;
    }

    /// The answer to a command that is refused.
    pub fn take_refusal(&mut self) -> Option<Reply> {
        self.faults.refusals = self.faults.refusals.checked_sub(1)?;
        Some(fail(BUSY))
    }

    /// Gives up a key of the first database, as an eviction policy does for want of memory: the
    /// `n`th, counted round. Whether there was one.
    pub fn evict(&mut self, n: usize) -> bool {
        let keys = self.keys(0);
        let Some(key) = keys.get(n % keys.len().max(1)) else { return false };
        self.expire(0, key);
        true
    }
}
