//! Files of other programs: an index of the documents without an inode, by the path that their
//! `filename` spells. `/` makes directories, which nobody stored.
//!
//! A name that cannot be a file's is shown percent-encoded behind `%:`; a file whose name is also
//! the prefix of others is `%self` in the directory of that name.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::Hasher;

use sha1_smol::Sha1;
use siphasher::sip::SipHasher13;

use crate::id::Ino;
use crate::op::{Attr, Kind, Name};

use super::document::{Content, FileDoc, Id, Stat, Whose, foreign_attr, is_name};
use super::options::Options;

/// The name of a file whose own name is taken by the directory of the same name.
pub const SELF_NAME: &[u8] = b"%self";
/// What a name begins with that had to be encoded.
const ENCODED: &[u8] = b"%:";
/// Numbers of foreign inodes have this bit, those of ours are below it. The bits above it stay
/// free, so that every number is positive on the server.
pub(super) const FOREIGN_BIT: u64 = 1 << 61;

/// Shown components joined by NUL, which sorts a directory's entries before its neighbours.
pub(super) type Key = Vec<u8>;

/// A file of another program.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: Id,
    pub(super) filename: Vec<u8>,
    pub(super) content: Result<Content, &'static str>,
    pub(super) uploaded: i64,
    pub(super) stat: Option<Stat>,
}

impl Entry {
    pub(super) fn kind(&self) -> Kind {
        self.stat.map_or(Kind::File, |stat| stat.kind)
    }
}

/// All of them, the newest revision of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    files: BTreeMap<Key, Entry>,
}

/// What a foreign name leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    /// The key of the file or directory.
    pub(super) key: Key,
    /// It is the file that shares its key with a directory.
    pub(super) own: bool,
    pub(super) attr: Attr,
}

/// The component as it is shown: bijective up to the digest of very long names.
fn shown(component: &[u8]) -> Vec<u8> {
    let reserved = component.starts_with(ENCODED) || component == SELF_NAME;
    if is_name(component) && !reserved {
        return component.to_vec();
    }
    let mut name = ENCODED.to_vec();
    for &byte in component {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || byte >= 0x80 {
            name.push(byte);
        } else {
            name.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    if name.len() > Name::MAX {
        let digest: String = Sha1::from(component)
            .digest()
            .bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        name = [ENCODED, b"~", digest.as_bytes()].concat();
    }
    name
}

/// The key of a filename.
pub(super) fn key_of(filename: &[u8]) -> Key {
    let shown: Vec<Vec<u8>> = filename.split(|byte| *byte == b'/').map(shown).collect();
    shown.join(&0)
}

/// The key of a name in a directory.
pub(super) fn below(dir: &[u8], name: &[u8]) -> Key {
    if dir.is_empty() { name.to_vec() } else { [dir, &[0], name].concat() }
}

/// The number of a foreign inode: the same at every mount.
pub(super) fn ino_of(key: &[u8], own: bool) -> Ino {
    let mut hasher = SipHasher13::new();
    hasher.write(key);
    hasher.write_u8(u8::from(own));
    Ino((hasher.finish() & (FOREIGN_BIT - 1)) | FOREIGN_BIT)
}

impl Foreign {
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The keys at which another index has something else.
    pub(super) fn differences(&self, other: &Foreign) -> Vec<Key> {
        let differs = |(key, entry): (&Key, &Entry), other: &Foreign| {
            (other.files.get(key) != Some(entry)).then(|| key.clone())
        };
        let mut keys: Vec<Key> = self.files.iter().filter_map(|it| differs(it, other)).collect();
        keys.extend(other.files.iter().filter_map(|it| differs(it, self)));
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Takes a document in, unless a newer revision is there.
    pub(super) fn insert(&mut self, file: FileDoc) -> Option<Key> {
        let Whose::Foreign(stat) = file.whose else { return None };
        // Without a name it is nowhere; GridFUSE's root has the empty one.
        let filename = file.filename.filter(|it| !it.is_empty())?;
        let key = key_of(&filename);
        let FileDoc { id, content, uploaded, .. } = file;
        let newer = self.files.get(&key).is_some_and(|it| it.uploaded > uploaded && it.id != id);
        if !newer {
            let entry = Entry { id, filename, content, uploaded, stat };
            self.files.insert(key.clone(), entry);
        }
        Some(key)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.files.get(key)
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.files.remove(key)
    }

    /// Everything below one key is below another now. Returns whether there was anything.
    pub(super) fn move_below(&mut self, from: &[u8], to: &[u8]) -> bool {
        let base = below(from, b"");
        let range = self.files.range(base.clone()..).take_while(|(key, _)| key.starts_with(&base));
        let keys: Vec<Key> = range.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            if let Some(mut entry) = self.files.remove(key) {
                let depth = base.iter().filter(|byte| **byte == 0).count();
                let mut rest = entry.filename.splitn(depth + 1, |byte| *byte == b'/');
                let rest = rest.nth(depth).unwrap_or_default();
                let path: Vec<u8> =
                    to.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect();
                entry.filename = [&path[..], b"/", rest].concat();
                self.files.insert(below(to, &key[base.len()..]), entry);
            }
        }
        !keys.is_empty()
    }

    /// The key that a document is under.
    pub(super) fn key_of_id(&self, id: &Id) -> Option<Key> {
        self.files.iter().find(|(_, it)| it.id == *id).map(|(key, _)| key.clone())
    }

    /// Whether there is anything below a key.
    pub(super) fn has_below(&self, key: &[u8]) -> bool {
        let from = below(key, b"");
        self.files.range(from.clone()..).next().is_some_and(|(it, _)| it.starts_with(&from))
    }

    /// What a name in the directory of this key leads to.
    pub(super) fn lookup(&self, dir: &[u8], name: &Name, options: &Options) -> Option<Found> {
        if name.as_bytes() == SELF_NAME && !dir.is_empty() {
            let entry = self.files.get(dir).filter(|it| it.kind() != Kind::Dir)?;
            return Some(found(dir.to_vec(), true, entry, options));
        }
        let key = below(dir, name.as_bytes());
        if self.has_below(&key) {
            return Some(self.directory(key, options));
        }
        let entry = self.files.get(&key)?;
        Some(found(key, false, entry, options))
    }

    /// The directory of this key, stored or implied.
    pub(super) fn directory(&self, key: Key, options: &Options) -> Found {
        let stat = self.files.get(&key).and_then(|it| it.stat).filter(|it| it.kind == Kind::Dir);
        let uploaded = match self.files.get(&key) {
            Some(entry) => entry.uploaded,
            None => self.files.range(below(&key, b"")..).next().map_or(0, |(_, it)| it.uploaded),
        };
        let ino = ino_of(&key, false);
        let attr = foreign_attr(ino, Kind::Dir, 0, uploaded, stat.as_ref(), options);
        Found { key, own: false, attr }
    }

    /// The entry of a directory behind this name, in the order of the bytes. [`SELF_NAME`] comes
    /// first of all.
    pub(super) fn next(
        &self,
        dir: &[u8],
        after: Option<&Name>,
        options: &Options,
    ) -> Option<(Name, Found)> {
        let own = Name::from(SELF_NAME);
        let after = match after {
            None => {
                if let Some(found) = self.lookup(dir, &own, options) {
                    return Some((own, found));
                }
                None
            }
            Some(name) if *name == own => None,
            Some(name) => Some(name),
        };
        let base = below(dir, b"");
        let from = match after {
            None => base.clone(),
            Some(name) => [&below(dir, name.as_bytes())[..], &[1]].concat(),
        };
        let (key, _) = self.files.range(from..).next().filter(|(key, _)| key.starts_with(&base))?;
        let name = key[base.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = Name::from(name);
        let found = self.lookup(dir, &name, options)?;
        Some((name, found))
    }
}

fn found(key: Key, own: bool, entry: &Entry, options: &Options) -> Found {
    let size = entry.content.map_or(0, |content| content.length);
    let ino = ino_of(&key, own);
    let kind = entry.kind();
    let attr = foreign_attr(ino, kind, size, entry.uploaded, entry.stat.as_ref(), options);
    Found { key, own, attr }
}

/// A key as a path, for messages.
pub(super) fn path_of(key: &[u8]) -> String {
    let parts = key.split(|byte| *byte == 0);
    parts.map(|part| format!("/{}", part.escape_ascii())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::bson::DocBuf;

    fn file(id: i32, filename: &str, uploaded: i64) -> FileDoc {
        let mut doc = DocBuf::new();
        doc.i32("_id", id).str("filename", filename).i32("length", 3).i32("chunkSize", 4);
        doc.date_time("uploadDate", uploaded);
        FileDoc::parse(&doc.finish_doc().unwrap()).unwrap()
    }

    fn index(names: &[&str]) -> Foreign {
        let mut index = Foreign::default();
        for (n, name) in names.iter().enumerate() {
            index.insert(file(n as i32, name, n as i64));
        }
        index
    }

    fn list(index: &Foreign, dir: &[u8]) -> Vec<String> {
        let options = Options::default();
        let mut names = Vec::new();
        let mut after = None;
        while let Some((name, found)) = index.next(dir, after.as_ref(), &options) {
            let mark = if found.attr.kind == Kind::Dir { "/" } else { "" };
            names.push(format!("{name}{mark}"));
            assert_eq!(index.lookup(dir, &name, &options), Some(found));
            after = Some(name);
        }
        names
    }

    #[test]
    fn slashes_make_directories() {
        let index = index(&["a/b/c", "a/x!", "a/x", "a/x/y", "z"]);
        assert_eq!(list(&index, b""), ["a/", "z"]);
        assert_eq!(list(&index, b"a"), ["b/", "x/", "x!"]);
        assert_eq!(list(&index, b"a\0x"), ["%self", "y"]);
        assert_eq!(list(&index, b"z"), ["%self"], "asked only of what is shown as a directory");
        assert!(list(&index, b"q").is_empty());
    }

    #[test]
    fn names_that_are_none_are_still_reachable_and_distinct() {
        let long = "n".repeat(300);
        let names = ["/abs", "a//b", "../up", "%self", "%:", "a/.", &long, ""];
        let index = index(&names);
        assert_eq!(index.len(), names.len() - 1, "the empty name is GridFUSE's root");
        let shown = list(&index, b"");
        assert!(shown.iter().all(|it| it.len() <= 256), "{shown:?}");
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert!(shown.contains(&String::from("%:%25self")));
        assert_eq!(list(&index, b"%:"), ["abs"]);
        assert_eq!(list(&index, b"a"), ["%:/", "%:%2E"]);
    }

    #[test]
    fn the_newest_revision_counts() {
        let mut index = Foreign::default();
        for (id, uploaded) in [(1, 5), (2, 9), (3, 7)] {
            index.insert(file(id, "a", uploaded));
        }
        assert_eq!(index.get(b"a").map(|it| it.uploaded), Some(9));
        assert_eq!(index.len(), 1);
    }
}
