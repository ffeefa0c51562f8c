//! What a command's function works with: the selected database, typed access to its keys, and
//! the one place where a modification is told to trackers.

use alloc::boxed::Box;

use bytes::Bytes;

use super::db::{Db, Entry};
use super::server::{ClientId, Server};
use super::value::{Hash, List, Set, Stream, Text, Value, Zset};
use super::{WRONGTYPE, fail};
use crate::backend::redis::Reply;

/// The surroundings of one command.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) server: &'a mut Server,
    /// The selected database.
    pub(super) db: usize,
    /// Who asked.
    pub(super) client: ClientId,
    /// Who counts as the writer for `NOLOOP`: nobody inside a script.
    pub(super) writer: Option<ClientId>,
    /// Whether replies take their RESP3 shape where the two differ in more than name.
    pub(super) resp3: bool,
}

impl Cx<'_> {
    pub(super) fn database(&mut self) -> &mut Db {
        &mut self.server.databases[self.db]
    }

    /// Removes the key if its time has passed: done before anything looks at a key.
    fn settle(&mut self, key: &[u8]) {
        let now = self.server.millis();
        if self.server.databases[self.db].is_due(key, now) {
            self.server.expire(self.db, key);
        }
    }

    /// A key's entry.
    pub(super) fn get(&mut self, key: &[u8]) -> Option<&Entry> {
        self.settle(key);
        self.database().get(key)
    }

    pub(super) fn exists(&mut self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// Tells whoever tracks the key that it was written.
    pub(super) fn signal(&mut self, key: &[u8]) {
        self.server.version += 1;
        self.server.tracking.remember(key, self.writer);
    }

    /// Ends a change made in place.
    pub(super) fn modified(&mut self, key: &[u8]) {
        self.database().reweigh(key);
        self.signal(key);
    }

    /// Ends a removal of elements: a collection that became empty goes with its key.
    pub(super) fn shrunk(&mut self, key: &[u8], empty: bool) {
        if empty {
            self.database().remove(key);
            self.signal(key);
        } else {
            self.modified(key);
        }
    }

    /// Puts a value in place of whatever was there.
    pub(super) fn put(&mut self, key: &Bytes, value: Value, expires: Option<i64>) {
        self.database().insert(key, value, expires);
        self.signal(key);
    }

    /// Removes a key. Whether it was there.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.settle(key);
        let there = self.database().remove(key).is_some();
        if there {
            self.signal(key);
        }
        there
    }
}

/// Typed access to a key: to read it, to change it, and to change it after making it if need be.
/// A caller that changes something ends with `modified`.
macro_rules! typed {
    ($read:ident, $edit:ident, $make:ident, $variant:ident, $type:ty, $new:expr) => {
        impl Cx<'_> {
            pub(super) fn $read(&mut self, key: &[u8]) -> Result<Option<&$type>, Reply> {
                match self.get(key).map(|entry| &entry.value) {
                    None => Ok(None),
                    Some(Value::$variant(value)) => Ok(Some(value)),
                    Some(_) => Err(fail(WRONGTYPE)),
                }
            }

            pub(super) fn $edit(&mut self, key: &[u8]) -> Result<Option<&mut $type>, Reply> {
                self.settle(key);
                match self.database().get_mut(key) {
                    None => Ok(None),
                    Some(Value::$variant(value)) => Ok(Some(value)),
                    Some(_) => Err(fail(WRONGTYPE)),
                }
            }

            pub(super) fn $make(&mut self, key: &Bytes) -> Result<&mut $type, Reply> {
                if !self.exists(key) {
                    self.database().insert(key, Value::$variant($new), None);
                }
                // It is there now, so only its type can be wrong.
                self.$edit(key)?.ok_or_else(|| fail(WRONGTYPE))
            }
        }
    };
}

typed!(text, text_mut, text_or_new, Text, Text, Text::empty());
typed!(hash, hash_mut, hash_or_new, Hash, Hash, Box::<Hash>::default());
typed!(list, list_mut, list_or_new, List, List, Box::<List>::default());
typed!(set, set_mut, set_or_new, Set, Set, Box::<Set>::default());
typed!(zset, zset_mut, zset_or_new, Zset, Zset, Box::<Zset>::default());
typed!(stream, stream_mut, stream_or_new, Stream, Stream, Box::<Stream>::default());
