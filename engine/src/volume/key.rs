//! The keys of a volume: their names, and what a name says.
//!
//! | key | type | what it holds |
//! |---|---|---|
//! | `{NAME}:super` | hash | what `format` decided, see [`Super`](super::record::Super) |
//! | `{NAME}:usage` | hash | `inodes`, `bytes` in use; `ino`, `mount`, `grave`: the last numbers given out |
//! | `{NAME}:i:INO` | hash | an inode, see [`Inode`](super::record::Inode) |
//! | `{NAME}:d:INO` | sorted set | the names in a directory, see [`Member`](super::record::Member) |
//! | `{NAME}:x:INO` | hash | extended attributes |
//! | `{NAME}:s` | sorted set | the mounts there are, by when their lease ends (server time, ms) |
//! | `{NAME}:t:MOUNT` | hash | which commits of a mount were applied: slot to serial; `seen`: up to which grave it has looked |
//! | `{NAME}:o:MOUNT` | set | inodes without a name that the mount has open |
//! | `{NAME}:g` | sorted set | inodes without a name, numbered (see `scripts/reap.lua`) |
//! | `{NAME}:q` | hash | contents to remove: data number to length |
//! | `{NAME}:l:INO` | hash | locks on an inode: mount to records, see `scripts/lock.lua` |
//! | `{NAME}:k:MOUNT` | set | inodes of which the mount has locked something |
//! | `NAME:b:{DATA:N}` | string | block `N` of some contents; what is missing of it is zeros |
//!
//! All but the blocks share one hash tag, so that one script can change them; blocks spread over
//! a cluster, each under a tag of its own.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Ino;

/// Identifies contents: an inode's own number, or another one after they were replaced. Never
/// used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataId(pub u64);

/// Numbers the mounts that a volume has ever had. Never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MountId(pub u64);

/// The keys of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keyspace {
    name: String,
    /// `{NAME}:`
    tagged: String,
}

/// What a key of a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the variants are the rows of the module's table")]
pub enum Key {
    Super,
    Usage,
    Inode(Ino),
    Dir(Ino),
    Xattrs(Ino),
    Sessions,
    Tokens(MountId),
    Held(MountId),
    Graves,
    Queue,
    Locks(Ino),
    Locked(MountId),
    Block(DataId, u64),
}

impl Keyspace {
    /// The longest name a volume may have, in bytes.
    pub const NAME_MAX: usize = 64;

    /// The keys of the volume of this name.
    ///
    /// # Errors
    /// One line that says why there can be no such volume: the name stands between braces in every
    /// key, and in command lines.
    pub fn new(name: &str) -> Result<Keyspace, String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > Self::NAME_MAX || !name.chars().all(plain) {
            return Err(format!(
                "{name:?} is no name for a volume: use up to {} bytes of letters, digits, '-', \
                 '_' and '.'",
                Self::NAME_MAX
            ));
        }
        Ok(Keyspace { name: String::from(name), tagged: format!("{{{name}}}:") })
    }

    /// The volume's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of a key.
    #[must_use]
    pub fn key(&self, key: Key) -> Bytes {
        // Numbers are at most 20 digits.
        let mut text = String::with_capacity(self.tagged.len() + 48);
        let Keyspace { name, tagged } = self;
        let _infallible = match key {
            Key::Super => write!(text, "{tagged}super"),
            Key::Usage => write!(text, "{tagged}usage"),
            Key::Inode(ino) => write!(text, "{tagged}i:{}", ino.0),
            Key::Dir(ino) => write!(text, "{tagged}d:{}", ino.0),
            Key::Xattrs(ino) => write!(text, "{tagged}x:{}", ino.0),
            Key::Sessions => write!(text, "{tagged}s"),
            Key::Tokens(mount) => write!(text, "{tagged}t:{}", mount.0),
            Key::Held(mount) => write!(text, "{tagged}o:{}", mount.0),
            Key::Graves => write!(text, "{tagged}g"),
            Key::Queue => write!(text, "{tagged}q"),
            Key::Locks(ino) => write!(text, "{tagged}l:{}", ino.0),
            Key::Locked(mount) => write!(text, "{tagged}k:{}", mount.0),
            Key::Block(data, n) => write!(text, "{name}:b:{{{}:{n}}}", data.0),
        };
        Bytes::from(text)
    }

    /// What all keys but the blocks begin with; scripts make the keys of inodes from it.
    #[must_use]
    pub fn prefix(&self) -> Bytes {
        Bytes::copy_from_slice(self.tagged.as_bytes())
    }

    /// What all blocks begin with.
    #[must_use]
    pub fn block_prefix(&self) -> Bytes {
        Bytes::from(format!("{}:b:{{", self.name))
    }

    /// The beginnings of keys whose changes tell a mount all that it must know: every change of
    /// names, attributes or contents changes an inode; and who has lost his last name is in the graves.
    #[must_use]
    pub fn tracked(&self) -> Vec<Bytes> {
        ["i:", "l:", "g"].map(|kind| Bytes::from(format!("{}{kind}", self.tagged))).to_vec()
    }

    /// What the key of this name is; `None` for a key of another volume, or of none.
    #[must_use]
    pub fn parse(&self, key: &[u8]) -> Option<Key> {
        if let Some(block) = key.strip_prefix(&self.block_prefix()[..]) {
            let (data, n) = split_at_colon(block.strip_suffix(b"}")?)?;
            return Some(Key::Block(DataId(number(data)?), number(n)?));
        }
        let rest = key.strip_prefix(self.tagged.as_bytes())?;
        match rest {
            b"super" => return Some(Key::Super),
            b"usage" => return Some(Key::Usage),
            b"s" => return Some(Key::Sessions),
            b"g" => return Some(Key::Graves),
            b"q" => return Some(Key::Queue),
            _ => {}
        }
        let (kind, n) = split_at_colon(rest)?;
        let n = number(n)?;
        Some(match kind {
            b"i" => Key::Inode(Ino(n)),
            b"d" => Key::Dir(Ino(n)),
            b"x" => Key::Xattrs(Ino(n)),
            b"t" => Key::Tokens(MountId(n)),
            b"o" => Key::Held(MountId(n)),
            b"l" => Key::Locks(Ino(n)),
            b"k" => Key::Locked(MountId(n)),
            _ => return None,
        })
    }
}

impl TryFrom<String> for Keyspace {
    type Error = String;

    fn try_from(name: String) -> Result<Keyspace, String> {
        Keyspace::new(&name)
    }
}

impl From<Keyspace> for String {
    fn from(keys: Keyspace) -> String {
        keys.name
    }
}

fn split_at_colon(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b':')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A decimal number as we write it: no sign, no leading zeros.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let canonical = digits == b"0" || (!digits.starts_with(b"0") && !digits.starts_with(b"+"));
    if canonical { core::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Key; 13] = [
        Key::Super,
        Key::Usage,
        Key::Inode(Ino(1)),
        Key::Dir(Ino(20)),
        Key::Xattrs(Ino(u64::MAX)),
        Key::Sessions,
        Key::Tokens(MountId(3)),
        Key::Held(MountId(0)),
        Key::Graves,
        Key::Queue,
        Key::Locks(Ino(7)),
        Key::Locked(MountId(4)),
        Key::Block(DataId(9), 300),
    ];

    #[test]
    fn a_key_says_what_it_is() {
        let keys = Keyspace::new("home").unwrap();
        for key in ALL {
            assert_eq!(keys.parse(&keys.key(key)), Some(key), "{:?}", keys.key(key));
        }
        assert_eq!(keys.key(Key::Inode(Ino(17))), "{home}:i:17");
        assert_eq!(keys.key(Key::Block(DataId(17), 2)), "home:b:{17:2}");
    }

    #[test]
    fn keys_of_others_are_none_of_ours() {
        let keys = Keyspace::new("home").unwrap();
        let other = Keyspace::new("home2").unwrap();
        for key in ALL {
            assert_eq!(keys.parse(&other.key(key)), None);
        }
        for text in ["", "home", "{home}:", "{home}:i:", "{home}:i:01", "{home}:i:-1", "{home}:z:1"]
        {
            assert_eq!(keys.parse(text.as_bytes()), None, "{text}");
        }
        for text in ["{home}:i:1:2", "home:b:{1}", "home:b:{1:2", "home:b:{1:x}", "{home}:supers"] {
            assert_eq!(keys.parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn names_that_would_break_a_key_are_refused() {
        let long = "n".repeat(65);
        for name in ["", "a{b", "a}b", "a:b", "a/b", "a b", "a\nb", long.as_str()] {
            assert!(Keyspace::new(name).is_err(), "{name:?}");
        }
        for name in ["a", "home-2_x.y", "größe"] {
            assert!(Keyspace::new(name).is_ok(), "{name:?}");
        }
    }
}
