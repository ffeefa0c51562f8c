//! Sessions: writes that are numbered so that they happen once, and transactions.
//!
//! A transaction writes into the collections themselves for as long as nobody else comes in
//! between. Then it is set aside: it goes on in a copy of everything as it sees it, and its writes
//! are taken back until it commits. Who writes what an open transaction has written is refused (if
//! in a transaction of its own) or waits; so commits never fail.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::collection::{Prepared, Store};
use super::failure::{Failure, TRANSIENT, WRITE_CONFLICT};
use super::index::{Directed, RecordId};
use super::oplog::Write;
use super::request::SessionId;
use super::value::Document;

/// What a session has done last.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) number: i64,
    pub(super) state: State,
    /// For forgetting the oldest.
    pub(super) used: u64,
}

#[derive(Clone, Debug)]
pub(super) enum State {
    /// Nothing that is numbered.
    Idle,
    /// A numbered write, and what was answered.
    Wrote(Document),
    InTransaction,
    Committed,
    Aborted,
}

/// Something only one transaction at a time may write: a document, or a key of a unique index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    Record(Arc<str>, RecordId),
    Key(Arc<str>, String, Directed),
}

/// A transaction that has begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Open {
    pub(super) number: i64,
    pub(super) writes: Vec<Write>,
    pub(super) claims: BTreeSet<Claim>,
    /// What others have written since it was set aside.
    pub(super) missed: BTreeSet<Claim>,
    /// Everything as it sees it, since it was set aside.
    pub(super) view: Option<Store>,
}

/// What a change claims.
pub(super) fn claims(namespace: &Arc<str>, store: &Store, change: &Prepared) -> Vec<Claim> {
    let mut claims = Vec::from([Claim::Record(namespace.clone(), change.record)]);
    let Some(collection) = store.get(namespace) else { return claims };
    for (index, (old, new)) in collection.indexes.iter().zip(&change.keys) {
        if !index.unique {
            continue;
        }
        let changed = old.iter().filter(|it| !new.contains(it));
        let changed = changed.chain(new.iter().filter(|it| !old.contains(it)));
        claims.extend(
            changed.map(|key| Claim::Key(namespace.clone(), index.name.clone(), key.clone())),
        );
    }
    claims
}

/// Takes writes back, the last first.
pub(super) fn take_back(store: &mut Store, writes: &[Write]) {
    for write in writes.iter().rev() {
        store.make(&write.namespace).restore(write.record, write.old.clone());
    }
}

impl Open {
    /// Sets it aside: its writes are nobody else's from here on.
    pub(super) fn set_aside(&mut self, store: &mut Store) {
        if self.view.is_none() {
            self.view = Some(store.clone());
            take_back(store, &self.writes);
        }
    }

    /// Makes its writes everybody's.
    pub(super) fn merge(&mut self, store: &mut Store) {
        let Some(view) = self.view.take() else { return };
        let mut done = BTreeSet::new();
        let records: Vec<_> =
            self.writes.iter().map(|it| (it.namespace.clone(), it.record)).collect();
        // What it removed goes first, as others may have its keys.
        let mut later = Vec::new();
        for (namespace, record) in records {
            if !done.insert((namespace.clone(), record)) {
                continue;
            }
            let last = view.get(&namespace).and_then(|it| it.docs.get(&record).cloned());
            store.make(&namespace).restore(record, None);
            later.push((namespace, record, last));
        }
        for (namespace, record, last) in later {
            if last.is_some() {
                store.make(&namespace).restore(record, last);
            }
        }
    }
}

/// The refusal of a transaction that wants to write what another has written.
pub(super) fn write_conflict() -> Failure {
    let message = "WriteConflict error: this operation conflicted with another operation. Please \
                   retry your operation or multi-document transaction.";
    Failure::new(WRITE_CONFLICT, message).labelled(TRANSIENT)
}

/// A session as a map's key, and its place in line.
pub(super) fn oldest<'a>(
    sessions: impl Iterator<Item = (&'a SessionId, &'a Session)>,
) -> Option<SessionId> {
    let settled = sessions.filter(|(_, it)| !matches!(it.state, State::InTransaction));
    settled.min_by_key(|(_, it)| it.used).map(|(id, _)| id.clone())
}
