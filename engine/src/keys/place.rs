//! Where the value of a name can be, and the reserved keys beside it.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::id::{Ino, Token};
use crate::op::Name;

use super::name::{NAME_MAX, Reading};
use super::{Keys, RESERVED};

/// The string key and the hash field that a name can stand for. See `scripts/place.lua`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The key of a string (or collection) of this name.
    pub(super) full: Option<Bytes>,
    /// The key of the hash, and the field in it.
    pub(super) bare: Option<Bytes>,
    pub(super) field: Bytes,
    /// The prefix of the keys below, if the name is a directory's.
    pub(super) dir: Option<Bytes>,
    /// A new file prefers to be a string.
    pub(super) string: bool,
}

impl Place {
    /// The two keys as scripts take them.
    pub(super) fn both_keys(&self) -> [Bytes; 2] {
        let or_none = |key: &Option<Bytes>| key.clone().unwrap_or(Bytes::from_static(RESERVED));
        [or_none(&self.full), or_none(&self.bare)]
    }

    /// The keys that can hold the value.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.full.iter().chain(&self.bare)
    }

    /// What the scripts call the wish.
    pub(super) fn wish(&self) -> &'static str {
        if self.string { "s" } else { "f" }
    }
}

/// The side hash of a directory.
pub(super) fn side_key(dir: &[u8]) -> Bytes {
    Bytes::from([RESERVED, b"a:", dir].concat())
}

/// At which the count of changes of a side hash starts that a commit makes or moves: no other
/// commit's is the same, nor is any count that started there. A Lua number holds 53 bits.
pub(super) fn first_version(token: Token) -> i64 {
    let session = (token.session & 0xffff_ffff) << 20;
    (session | (token.serial & 0xf_ffff)).max(2) as i64
}

/// The hash with the extended attributes of a name, or with an empty name of the directory.
pub(super) fn xattr_key(dir: &[u8], name: &[u8]) -> Bytes {
    Bytes::from([RESERVED, b"x:", dir, b"/", name].concat())
}

/// Where the contents of an unlinked file are kept while it is open.
pub(super) fn orphan_key(session: u64, ino: Ino) -> Bytes {
    Bytes::from([RESERVED, alloc::format!("o:{session:016x}:{}", ino.0).as_bytes()].concat())
}

/// Where a large field is written to until it is published.
pub(super) fn stage_key(session: u64, ino: Ino) -> Bytes {
    Bytes::from([RESERVED, alloc::format!("w:{session:016x}:{}", ino.0).as_bytes()].concat())
}

/// The commits of a mount that must not be applied twice.
pub(super) fn session_key(session: u64) -> Bytes {
    Bytes::from([RESERVED, alloc::format!("s:{session:016x}").as_bytes()].concat())
}

/// Directory renames that are under way stepwise.
pub(super) fn renames_key() -> Bytes {
    Bytes::from([RESERVED, b"r"].concat())
}

/// What shortened names stand for, as far as it was met. That never changes, so nothing here gets
/// stale, and all of it may be dropped at any time.
#[derive(Clone, Debug, Default)]
pub(super) struct LongNames {
    components: HashMap<Vec<u8>, Box<[u8]>, FxBuildHasher>,
}

impl LongNames {
    /// So many are kept.
    const MOST: usize = 1 << 18;

    fn key(prefix: &[u8], name: &[u8]) -> Vec<u8> {
        // No name holds a slash.
        [prefix, b"/", name].concat()
    }

    fn get(&self, prefix: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        self.components.get(&Self::key(prefix, name)).map(|component| component.to_vec())
    }

    pub(super) fn insert(&mut self, prefix: &[u8], name: &[u8], component: &[u8]) {
        if self.components.len() >= Self::MOST {
            self.components.clear();
        }
        self.components.insert(Self::key(prefix, name), Box::from(component));
    }
}

impl Keys {
    /// The prefix of the keys in a directory; `None` when the directory is gone.
    pub(super) fn dir_prefix(&self, dir: Ino) -> Option<Vec<u8>> {
        let mut prefix = self.options.prefix.clone();
        for node in self.tree.path(dir)? {
            match &node.component {
                Some(component) => prefix.extend_from_slice(component),
                None => {
                    let component = self.component(&prefix, node.name.as_bytes())?;
                    prefix.extend_from_slice(&component);
                }
            }
            prefix.push(self.options.naming.delimiter());
        }
        Some(prefix)
    }

    /// The component that a name stands for as a directory.
    fn component(&self, prefix: &[u8], name: &[u8]) -> Option<Vec<u8>> {
        match self.options.naming.decode(name) {
            Reading::Plain { component, .. } => Some(component),
            Reading::Shortened(short) if !short.explicit_field => {
                self.find_long(prefix, name, &short.prefix)
            }
            _ => None,
        }
    }

    /// The component below `prefix` whose name is shortened to `name`.
    fn find_long(&self, prefix: &[u8], name: &[u8], start: &[u8]) -> Option<Vec<u8>> {
        if let Some(component) = self.long_names.borrow().get(prefix, name) {
            return Some(component);
        }
        let naming = self.options.naming;
        let from = [prefix, start].concat();
        let keys = self.index.keys_below(&from);
        let sides = self.index.sides_below(&from);
        let mut last: &[u8] = &[];
        let mut found = None;
        let mut known = self.long_names.borrow_mut();
        for key in keys.chain(sides) {
            let rest = &key[prefix.len()..];
            let component = rest.split(|byte| *byte == naming.delimiter()).next().unwrap_or(rest);
            // Escapes make three bytes of one: what is shorter than this is never shortened.
            // Neighbours have their first components in common.
            if component.len() * 3 <= NAME_MAX || component == last {
                continue;
            }
            last = component;
            let encoded = naming.encode_component(component);
            if encoded == name {
                found = Some(component.to_vec());
            }
            // The others with this beginning are most likely asked for next.
            known.insert(prefix, &encoded, component);
        }
        found
    }

    /// Where the value of `name` in `dir` can be. `None` when the directory is gone, or nothing
    /// can have this name.
    pub(super) fn place(&self, dir: Ino, name: &Name) -> Option<Place> {
        let prefix = self.dir_prefix(dir)?;
        let mut place = self.place_in(dir, &prefix, name)?;
        let reserved =
            |key: &Option<Bytes>| key.as_ref().is_some_and(|key| key.starts_with(RESERVED));
        let is_reserved = reserved(&place.full) || reserved(&place.bare);
        // A key may have the name; a directory may not.
        place.dir = place.dir.filter(|dir| !dir.starts_with(RESERVED));
        (!is_reserved).then_some(place)
    }

    fn place_in(&self, dir: Ino, prefix: &[u8], name: &Name) -> Option<Place> {
        let key = |component: &[u8]| Bytes::from([prefix, component].concat());
        let below = |component: &[u8]| {
            Bytes::from([prefix, component, &[self.options.naming.delimiter()]].concat())
        };
        match self.options.naming.decode(name.as_bytes()) {
            Reading::OwnValue => {
                if dir == Ino::ROOT {
                    return None;
                }
                let node = self.tree.get(dir)?;
                let own = self.place(node.parent, &node.name)?;
                Some(Place { dir: None, ..own })
            }
            Reading::Plain { component, field } => {
                let string = match &field {
                    None => true,
                    Some(it) => it.field.is_empty() || self.options.wants_string(name.as_bytes()),
                };
                let (bare, field) = match field {
                    Some(it) => (Some(key(&it.component)), Bytes::from(it.field)),
                    None => (None, Bytes::new()),
                };
                let dir = Some(below(&component));
                Some(Place { full: Some(key(&component)), bare, field, dir, string })
            }
            Reading::Field(it) => Some(Place {
                full: None,
                bare: Some(key(&it.component)),
                field: Bytes::from(it.field),
                dir: None,
                string: false,
            }),
            Reading::Shortened(short) => {
                // As with any name it can be both, and both may be there.
                let field = self.long_fields.get(&(dir, name.clone()));
                let component = match self.tree.component(dir, name) {
                    Some(component) => Some(component.to_vec()),
                    // Listed as a field, it is one: a key of the same name would have been listed
                    // in its place.
                    None if short.explicit_field || field.is_some() => None,
                    None => self.find_long(prefix, name.as_bytes(), &short.prefix),
                };
                if component.is_none() && field.is_none() {
                    return None;
                }
                Some(Place {
                    full: component.as_deref().map(key),
                    bare: field.map(|(component, _)| key(component)),
                    field: field.map_or_else(Bytes::new, |(_, it)| Bytes::copy_from_slice(it)),
                    dir: component.as_deref().map(below),
                    string: component.is_some(),
                })
            }
            Reading::Nothing => None,
        }
    }
}
