//! `CLIENT TRACKING ON BCAST`: who wants to hear of which keys, and what they have not heard yet.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;

use super::server::{ClientId, Server};
use crate::backend::redis::Push;

/// Who listens, by prefix, and the keys written since the last end of a turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracking {
    prefixes: BTreeMap<Bytes, Broadcast>,
}

/// One prefix.
#[derive(Clone, Debug, Default)]
struct Broadcast {
    clients: BTreeSet<ClientId>,
    /// Who wrote each key last; no one when it expired or a script did.
    keys: BTreeMap<Bytes, Option<ClientId>>,
}

/// A client's own side of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracked {
    pub(super) broadcast: bool,
    pub(super) noloop: bool,
    pub(super) prefixes: Vec<Bytes>,
}

impl Tracking {
    pub(super) fn listen(&mut self, client: ClientId, prefix: &Bytes) {
        self.prefixes.entry(prefix.clone()).or_default().clients.insert(client);
    }

    pub(super) fn forget(&mut self, client: ClientId, tracked: &Tracked) {
        for prefix in &tracked.prefixes {
            if let Some(broadcast) = self.prefixes.get_mut(prefix) {
                broadcast.clients.remove(&client);
                if broadcast.clients.is_empty() {
                    self.prefixes.remove(prefix);
                }
            }
        }
    }

    /// A key was written.
    pub(super) fn remember(&mut self, key: &[u8], writer: Option<ClientId>) {
        for (prefix, broadcast) in &mut self.prefixes {
            if key.starts_with(prefix) {
                match broadcast.keys.get_mut(key) {
                    Some(last) => *last = writer,
                    None => {
                        broadcast.keys.insert(Bytes::copy_from_slice(key), writer);
                    }
                }
            }
        }
    }
}

impl Server {
    /// Ends the turn of the event loop: every listening client is sent, in one push a prefix, the
    /// keys that were written since the last one. [`take_pushes`](Self::take_pushes) and
    /// [`tick`](Self::tick) do it too.
    pub fn end_turn(&mut self) {
        for broadcast in self.tracking.prefixes.values_mut() {
            let keys = core::mem::take(&mut broadcast.keys);
            if keys.is_empty() {
                continue;
            }
            for id in &broadcast.clients {
                let Some(client) = self.clients.get_mut(id) else { continue };
                let noloop = client.tracked.as_ref().is_some_and(|tracked| tracked.noloop);
                let told = keys.iter().filter(|(_, writer)| !(noloop && **writer == Some(*id)));
                let told: Vec<Bytes> = told.map(|(key, _)| key.clone()).collect();
                if !told.is_empty() {
                    client.tell(Push::Invalidate(told));
                }
            }
        }
    }

    /// Tells every tracking client to forget everything, at once rather than at the turn's end.
    pub(super) fn invalidate_all(&mut self) {
        for client in self.clients.values_mut().filter(|client| client.tracked.is_some()) {
            client.tell(Push::InvalidateAll);
        }
    }

    /// What the server has said unasked to this client since the last call, oldest first.
    /// Ends the turn first.
    pub fn take_pushes(&mut self, client: ClientId) -> Vec<Push> {
        self.end_turn();
        let pushes =
            self.clients.get_mut(&client).map(|client| core::mem::take(&mut client.pushes));
        pushes.map(Vec::from).unwrap_or_default()
    }
}
