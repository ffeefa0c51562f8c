//! What a user may choose about a keys mount.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::name::Naming;

/// The choices, with the defaults of the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Splits keys into paths.
    pub naming: Naming,
    /// Only keys that start with this are shown; empty, or ending in the delimiter.
    pub prefix: Vec<u8>,
    /// New files with these suffixes are strings, whatever their extension.
    pub string_suffixes: Vec<Vec<u8>>,
    /// Names that may not be created, as shell patterns with `*` and `?`.
    pub ignore: Vec<Vec<u8>>,
    /// Where what Redis cannot hold is kept.
    pub attrs: Attrs,
    /// Lists, sets, sorted sets and streams may be unlinked.
    pub allow_delete: bool,
    /// Nothing is to be written: commands for it are not asked for at attach.
    pub read_only: bool,
    /// Owner of what has no record of its own.
    pub uid: u32,
    /// Group of what has no record of its own.
    pub gid: u32,
    /// Taken from the permissions of what has no record of its own.
    pub umask: u16,
    /// The most keys that one script renames with a directory; more go stepwise.
    pub tree_keys: usize,
    /// How many modification times of files without a record are remembered.
    pub remembered_times: usize,
}

/// Where modes, owners, times, symlinks, empty directories and xattrs are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attrs {
    /// In side hashes on the server, written only when they differ from the defaults.
    #[default]
    Stored,
    /// In memory, until the mount ends.
    Session,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            naming: Naming::default(),
            prefix: Vec::new(),
            string_suffixes: alloc::vec![b".lock".to_vec()],
            ignore: Vec::new(),
            attrs: Attrs::default(),
            allow_delete: false,
            read_only: false,
            uid: 0,
            gid: 0,
            umask: 0o022,
            tree_keys: 4096,
            remembered_times: 1 << 20,
        }
    }
}

impl Options {
    /// Makes `prefix` end in the delimiter, so that it names a directory.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let delimiter = self.naming.delimiter();
        if !self.prefix.is_empty() && self.prefix.last() != Some(&delimiter) {
            self.prefix.push(delimiter);
        }
        self
    }

    pub(super) fn is_ignored(&self, name: &[u8]) -> bool {
        self.ignore.iter().any(|pattern| glob(pattern, name))
    }

    /// A new file of this name prefers to be a string.
    pub(super) fn wants_string(&self, name: &[u8]) -> bool {
        self.string_suffixes.iter().any(|suffix| name.ends_with(suffix))
    }
}

/// Shell pattern matching with `*` and `?`.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the last `*` took one byte more.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, at)) = retry {
            p = after;
            t = at + 1;
            retry = Some((after, at + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, matches) in [
            ("._*", "._x", true),
            ("._*", "a._x", false),
            (".DS_Store", ".DS_Store", true),
            ("*.swp", ".a.swp", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("?", "", false),
            ("*", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }
}
