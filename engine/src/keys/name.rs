//! The bijection between Redis keys and path names: how a piece of a key, or a hash and
//! its field, is written as one file name, and what a file name can mean.
//!
//! A key splits at the delimiter (`:` unless told otherwise) into *components*; each is
//! one name of a path. A hash field adds a dot: field `sample` of hash `post-update` is
//! the file `post-update.sample`. Nearly every name is its component as it stands; this
//! is the rest:
//!
//! | in the key                                      | in the file name             |
//! |-------------------------------------------------|------------------------------|
//! | `/`                                             | `%2F`                        |
//! | NUL                                             | `%00`                        |
//! | `%3A` (the delimiter's hex)                     | `:` (the delimiter)          |
//! | an empty component                              | `%`                          |
//! | the components `.` and `..`                     | `%2E` and `%2E%2E`           |
//! | a hash's `.`, unless it is the first byte       | `%2E`                        |
//! | the own value of a key that is also a directory | `%self`, in that directory   |
//! | a field whose name a string already has         | the field's name + `%field`  |
//! | anything whose name would exceed 255 bytes      | its start + `%~` + its SHA-1 |
//!
//! A key that holds such an escape *literally* gets one `25` more after the `%` (`%2F` is
//! shown as `%252F`, that one as `%25252F`, and so on), and a key that holds a literal
//! `%25…3A` one less; a `%` that begins none of these stays as it is, so `100%` and
//! `a%20b` are their own names. Of the rules only `/`, NUL, the delimiter and a hash's
//! dots apply anywhere in a name; the empty, `.`, `..` and `%self` apply to a whole name,
//! `%field` and `%~…` to its end. With `/` as the delimiter, its two rules fall away from
//! components, which then cannot hold a `/`; fields still can.
//!
//! So every component has one name, and every legal name that is not `%self` and does
//! not end in `%field` or `%~` + 40 hex digits is the name of exactly one component.
//! Every hash field has one name too. The two kinds overlap on purpose: `a.b` is the
//! string `a.b` or field `b` of `a`, and the caller says which exists.
//!
//! The rules are layers, each a bijection, applied in the order of
//! [`Naming::full_component`] and undone in the opposite order. That is why none can
//! disturb another, whatever byte the delimiter is.

mod chain;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::slice;
use serde::{Deserialize, Serialize};

use sha1_smol::Sha1;

/// The longest name Linux passes to a filesystem, in bytes.
pub const NAME_MAX: usize = 255;

/// The name, inside the directory of a key, of that key's own value.
pub const SELF_NAME: &[u8] = b"%self";

/// What ends the name of a field whose plain name a string has.
pub const FIELD_SUFFIX: &[u8] = b"%field";

/// What stands between the start of a shortened name and its digest.
const DIGEST_MARK: &[u8] = b"%~";
/// Bytes of the digest in hex.
const DIGEST_HEX: usize = 40;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What a field's text escapes, whatever the delimiter.
const FIELD_SET: &[u8] = b"/\0";

/// A delimiter that [`Naming::new`] refuses.
///
/// `%`, NUL and `.` have meanings of their own in names. An ASCII digit is part of its
/// own escape (`2` is `%32`), so no component could hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDelimiter(pub u8);

impl fmt::Display for BadDelimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the delimiter cannot be '{}': it must not be '%', '.', NUL or a digit",
            self.0.escape_ascii()
        )
    }
}

impl core::error::Error for BadDelimiter {}

/// A field of the hash whose key ends in `component`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashField {
    /// The last component of the hash's key, raw.
    pub component: Vec<u8>,
    /// The field, raw; it may be empty.
    pub field: Vec<u8>,
}

/// What a shortened name tells about the key it stands for.
///
/// To find that key, go through the directory's components that start with `prefix`: the
/// match is the one whose `encode_*` is this very name. An index may compare digests
/// first, see [`digest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortened {
    /// Raw bytes that the component of every match starts with, as a string's key and as
    /// a hash's. May be empty.
    pub prefix: Vec<u8>,
    /// The SHA-1 of the full name, without [`FIELD_SUFFIX`].
    pub digest: [u8; 20],
    /// It ends in [`FIELD_SUFFIX`]: only hash fields can match.
    pub explicit_field: bool,
}

/// Everything a file name can mean, see [`Naming::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// [`SELF_NAME`]: the own value of the key that is this directory.
    OwnValue,
    /// An ordinary name.
    Plain {
        /// The raw component of the key or directory that has this name.
        component: Vec<u8>,
        /// The hash field that has this name, unless a string has it already.
        field: Option<HashField>,
    },
    /// A name with [`FIELD_SUFFIX`]: this hash field, whatever string shadows it.
    Field(HashField),
    /// A name that ends in a digest.
    Shortened(Shortened),
    /// Not the name of anything, and nothing can be made under it: not a legal name, or a
    /// reserved suffix behind what is not a field's name.
    Nothing,
}

/// The naming rules for one delimiter.
///
/// ```
/// use dbmount_engine::keys::name::{Naming, Reading};
///
/// let naming = Naming::default();
/// assert_eq!(naming.encode_component(b"100%"), b"100%");
/// assert_eq!(naming.encode_component(b"a/b"), b"a%2Fb");
/// assert_eq!(naming.encode_component(b"a%2Fb"), b"a%252Fb");
/// assert_eq!(naming.encode_field(b"post-update", b"sample"), b"post-update.sample");
///
/// let Reading::Plain { component, field } = naming.decode(b".profile.bak") else { panic!() };
/// assert_eq!(component, b".profile.bak");
/// let field = field.unwrap();
/// assert_eq!((&field.component[..], &field.field[..]), (&b".profile"[..], &b"bak"[..]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Naming {
    delimiter: u8,
}

impl TryFrom<u8> for Naming {
    type Error = BadDelimiter;

    fn try_from(delimiter: u8) -> Result<Self, BadDelimiter> {
        Naming::new(delimiter)
    }
}

impl From<Naming> for u8 {
    fn from(naming: Naming) -> u8 {
        naming.delimiter
    }
}

impl Default for Naming {
    /// The rules for `:`.
    fn default() -> Self {
        Self { delimiter: b':' }
    }
}

impl Naming {
    /// The rules for `delimiter`.
    pub fn new(delimiter: u8) -> Result<Self, BadDelimiter> {
        match delimiter {
            b'%' | b'.' | 0 | b'0'..=b'9' => Err(BadDelimiter(delimiter)),
            _ => Ok(Self { delimiter }),
        }
    }

    /// The byte that keys split at.
    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// The name of a string, a collection or a directory, at most [`NAME_MAX`] bytes.
    ///
    /// `component` holds no delimiter.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// let naming = Naming::default();
    /// assert_eq!(naming.encode_component(b""), b"%");
    /// assert_eq!(naming.encode_component(b".."), b"%2E%2E");
    /// assert_eq!(naming.encode_component(b"12%3A30"), b"12:30");
    /// assert_eq!(naming.encode_component(&[b'x'; 300]).len(), 255);
    /// ```
    pub fn encode_component(&self, component: &[u8]) -> Vec<u8> {
        fit(self.full_component(component), b"")
    }

    /// The name of a hash's field, at most [`NAME_MAX`] bytes.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// let naming = Naming::default();
    /// assert_eq!(naming.encode_field(b"foo", b"c"), b"foo.c");
    /// assert_eq!(naming.encode_field(b"foo", b""), b"foo");
    /// assert_eq!(naming.encode_field(b"v1.2", b"tar.gz"), b"v1%2E2.tar.gz");
    /// ```
    pub fn encode_field(&self, component: &[u8], field: &[u8]) -> Vec<u8> {
        fit(self.full_field(component, field), b"")
    }

    /// The name of a field whose [`encode_field`](Self::encode_field) name a string has,
    /// at most [`NAME_MAX`] bytes. No component and no other field has it.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// assert_eq!(Naming::default().encode_shadowed(b"foo", b"c"), b"foo.c%field");
    /// ```
    pub fn encode_shadowed(&self, component: &[u8], field: &[u8]) -> Vec<u8> {
        fit(self.full_field(component, field), FIELD_SUFFIX)
    }

    /// The name of a component before shortening, of any length.
    pub fn full_component(&self, component: &[u8]) -> Vec<u8> {
        let text = self.show_delimiters(component);
        let mut name = Vec::with_capacity(text.len() + FIELD_SUFFIX.len());
        chain::escape(&text, self.component_set(), &mut name);
        match &name[..] {
            b"" => name.push(b'%'),
            b"." => name = b"%2E".to_vec(),
            b".." => name = b"%2E%2E".to_vec(),
            [b'%', ..] if is_whole_tail(&name[chain::run_end(&name, 0)..]) => {
                chain::lengthen(&mut name, 0);
            }
            _ => {}
        }
        close(&mut name);
        name
    }

    /// The name of a hash field before shortening, of any length.
    pub fn full_field(&self, component: &[u8], field: &[u8]) -> Vec<u8> {
        let text = self.show_delimiters(component);
        let mut name = Vec::with_capacity(text.len() + 1 + field.len() + FIELD_SUFFIX.len());
        chain::escape(&text, self.hash_set(), &mut name);
        // A nameless hash needs a mark even before a dot: `.x` is no field of it.
        if name.is_empty() {
            name.push(b'%');
        } else if chain::is_bare_run(&name) {
            chain::lengthen(&mut name, 0);
        } else if field.is_empty() {
            // The whole name is the hash's. Literal `%2E`s have their link already.
            match &name[..] {
                b"." => name = b"%2E".to_vec(),
                b".%2E" => name = b"%2E%2E".to_vec(),
                [b'%', ..] if &name[chain::run_end(&name, 0)..] == b"self" => {
                    chain::lengthen(&mut name, 0);
                }
                _ => {}
            }
        }
        if !field.is_empty() {
            name.push(b'.');
            chain::escape(field, FIELD_SET, &mut name);
        }
        close(&mut name);
        name
    }

    /// The component that a name of any length, before shortening, stands for: the inverse of
    /// [`full_component`](Self::full_component). Of a field's name it is the component whose
    /// string would shadow that field.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// let naming = Naming::default();
    /// let field = naming.full_field(b"v1.2", b"a:b");
    /// assert_eq!(naming.component_of(&field), b"v1%2E2.a%3Ab");
    /// assert_eq!(naming.full_component(b"v1%2E2.a%3Ab"), field);
    /// ```
    pub fn component_of(&self, full_name: &[u8]) -> Vec<u8> {
        self.decode_component(full_name)
    }

    /// What a name can mean.
    ///
    /// ```
    /// use dbmount_engine::keys::name::{Naming, Reading};
    ///
    /// let naming = Naming::default();
    /// assert_eq!(naming.decode(b"%self"), Reading::OwnValue);
    /// // A string only: the dot is its last byte.
    /// let h = Reading::Plain { component: b"h.".to_vec(), field: None };
    /// assert_eq!(naming.decode(b"h."), h);
    /// assert!(matches!(naming.decode(b"a.b%field"), Reading::Field(_)));
    /// let long = naming.encode_component(&[b'x'; 300]);
    /// let Reading::Shortened(short) = naming.decode(&long) else { panic!() };
    /// assert!(short.prefix.iter().all(|&b| b == b'x'));
    /// ```
    pub fn decode(&self, name: &[u8]) -> Reading {
        if !is_legal(name) {
            return Reading::Nothing;
        }
        if name == SELF_NAME {
            return Reading::OwnValue;
        }
        if let Some(start) = name.strip_suffix(FIELD_SUFFIX) {
            return match split_digest(start) {
                Some((start, digest)) => Reading::Shortened(self.shortened(start, digest, true)),
                None => self.decode_field(start).map_or(Reading::Nothing, Reading::Field),
            };
        }
        if let Some((start, digest)) = split_digest(name) {
            return Reading::Shortened(self.shortened(start, digest, false));
        }
        Reading::Plain { component: self.decode_component(name), field: self.decode_field(name) }
    }

    /// The key of a component in a directory. `prefix` is what the directory's keys start
    /// with: nothing for the root, [`dir_prefix`](Self::dir_prefix) for any other.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// let naming = Naming::default();
    /// let hooks = naming.dir_prefix(b".git:hooks");
    /// assert_eq!(naming.join_key(&hooks, b"pre-commit"), b".git:hooks:pre-commit");
    /// assert_eq!(naming.join_key(b"", b".git"), b".git");
    /// ```
    pub fn join_key(&self, prefix: &[u8], component: &[u8]) -> Vec<u8> {
        debug_assert!(self.is_component(component), "a component of several");
        [prefix, component].concat()
    }

    /// What the keys start with that lie in the directory of `key`.
    pub fn dir_prefix(&self, key: &[u8]) -> Vec<u8> {
        [key, &[self.delimiter]].concat()
    }

    /// The components of a key: at least one, and any may be empty.
    ///
    /// ```
    /// # use dbmount_engine::keys::name::Naming;
    /// let naming = Naming::default();
    /// assert!(naming.split_key(b"a::b").eq([&b"a"[..], b"", b"b"]));
    /// assert!(naming.split_key(b"").eq([b""]));
    /// ```
    pub fn split_key<'k>(
        &self,
        key: &'k [u8],
    ) -> impl DoubleEndedIterator<Item = &'k [u8]> + use<'k> {
        let delimiter = self.delimiter;
        key.split(move |&b| b == delimiter)
    }

    /// The component of a legal name that ends in no reserved suffix.
    fn decode_component(&self, name: &[u8]) -> Vec<u8> {
        let open = open(name);
        let text = match &open[..] {
            b"%" => Cow::Borrowed(&b""[..]),
            b"%2E" => Cow::Borrowed(&b"."[..]),
            b"%2E%2E" => Cow::Borrowed(&b".."[..]),
            [b'%', ..] if is_whole_tail(&open[chain::run_end(&open, 0)..]) => {
                Cow::Owned(chain::shorten(&open, 0))
            }
            text => Cow::Borrowed(text),
        };
        self.hide_delimiters(&chain::unescape(&text, self.component_set()))
    }

    /// The field of a name; `None` where no field has it.
    fn decode_field(&self, name: &[u8]) -> Option<HashField> {
        // What stood before a suffix may be no name at all, or end in another suffix.
        let reserved = name == SELF_NAME || closing(name).is_some_and(|(_, links)| links == 0);
        if !is_legal(name) || reserved {
            return None;
        }
        let name = open(name);
        let (head, field) = match split(&name) {
            Some((_, b"")) => return None,
            Some((head, field)) => (head, field),
            None => (&name[..], &b""[..]),
        };
        let component = if chain::is_bare_run(head) {
            match head {
                b"%" => Vec::new(),
                _ => chain::shorten(head, 0),
            }
        } else {
            let text = match head {
                b"%2E" if field.is_empty() => Cow::Borrowed(&b"."[..]),
                b"%2E%2E" if field.is_empty() => Cow::Borrowed(&b".."[..]),
                // A first dot is written as it is, except in these two.
                [b'%', b'2', b'E', ..] => return None,
                b".%2E" if field.is_empty() => return None,
                [b'%', ..] if field.is_empty() && &head[chain::run_end(head, 0)..] == b"self" => {
                    Cow::Owned(chain::shorten(head, 0))
                }
                _ => chain::unescape(head, self.hash_set()),
            };
            self.hide_delimiters(&text)
        };
        Some(HashField { component, field: chain::unescape(field, FIELD_SET).into_owned() })
    }

    /// What a name tells that is `start` and a digest.
    fn shortened(&self, start: &[u8], digest: [u8; 20], explicit_field: bool) -> Shortened {
        // Up to the first dot, written or escaped, a string's and a hash's name agree.
        let dot = split(start).map_or(start.len(), |(head, _)| head.len());
        let common = &start[..dot];
        let common = &common[..chain::find_token(common, b'.').unwrap_or(dot)];
        // Only a mark for a nameless hash could differ before that.
        let prefix = if chain::is_bare_run(common) {
            Vec::new()
        } else {
            self.hide_delimiters(&chain::unescape(common, self.component_set()))
        };
        Shortened { prefix, digest, explicit_field }
    }

    /// A component as text in which the delimiter may stand: `%3A` becomes `:`.
    ///
    /// It is unescaping, because here the key is the side that cannot hold the byte.
    fn show_delimiters<'a>(&self, component: &'a [u8]) -> Cow<'a, [u8]> {
        debug_assert!(self.is_component(component), "a component of several");
        chain::unescape(component, self.delimiter_set())
    }

    /// The inverse of [`show_delimiters`](Self::show_delimiters).
    fn hide_delimiters(&self, text: &[u8]) -> Vec<u8> {
        let mut component = Vec::with_capacity(text.len());
        chain::escape(text, self.delimiter_set(), &mut component);
        component
    }

    fn is_component(&self, component: &[u8]) -> bool {
        !component.contains(&self.delimiter)
    }

    /// What a name holds and a component cannot.
    fn delimiter_set(&self) -> &[u8] {
        match self.delimiter {
            b'/' => b"",
            _ => slice::from_ref(&self.delimiter),
        }
    }

    /// What a component holds and a name cannot.
    fn component_set(&self) -> &'static [u8] {
        match self.delimiter {
            b'/' => b"\0",
            _ => b"/\0",
        }
    }

    /// What a component holds and a hash's part of a name cannot.
    fn hash_set(&self) -> &'static [u8] {
        match self.delimiter {
            b'/' => b"\0.",
            _ => b"/\0.",
        }
    }
}

/// The SHA-1 that a shortened name carries, of the name [`Naming::full_component`] or
/// [`Naming::full_field`].
///
/// Equal digests make a candidate; the name is its own only if `encode_*` gives it, since
/// the digest could also stand behind a foreign start or be that of a name that fits.
///
/// ```
/// use dbmount_engine::keys::name::{Naming, Reading, digest};
///
/// let naming = Naming::default();
/// let key = [b'x'; 300];
/// let Reading::Shortened(short) = naming.decode(&naming.encode_component(&key)) else { panic!() };
/// assert_eq!(short.digest, digest(&naming.full_component(&key)));
/// ```
pub fn digest(full_name: &[u8]) -> [u8; 20] {
    Sha1::from(full_name).digest().bytes()
}

/// The name made of `full` and `suffix`, shortened where it does not fit.
fn fit(mut full: Vec<u8>, suffix: &[u8]) -> Vec<u8> {
    if full.len() + suffix.len() > NAME_MAX {
        let digest = digest(&full);
        let room = NAME_MAX - DIGEST_MARK.len() - DIGEST_HEX - suffix.len();
        // No cut falls into a reserved ending: the longest tail is shorter than what the
        // digest displaces, so its run ends beyond the room.
        full.truncate(chain::cut(&full, room));
        full.extend_from_slice(DIGEST_MARK);
        full.extend(
            digest.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
        );
    }
    full.extend_from_slice(suffix);
    full
}

/// Splits a shortened name before its mark.
fn split_digest(name: &[u8]) -> Option<(&[u8], [u8; 20])> {
    let (start, hex) = name.split_last_chunk::<DIGEST_HEX>()?;
    let start = start.strip_suffix(DIGEST_MARK)?;
    let mut digest = [0; 20];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        for &b in pair {
            *byte = *byte << 4 | hex_digit(b)?;
        }
    }
    Some((start, digest))
}

fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    }
}

/// Whether this, behind a run that starts the text, makes a reserved whole text.
fn is_whole_tail(tail: &[u8]) -> bool {
    matches!(tail, b"" | b"2E" | b"2E%2E" | b"self")
}

/// Whether this, behind a run and at the end of the text, makes a reserved suffix.
fn is_end_tail(tail: &[u8]) -> bool {
    match tail {
        b"field" => true,
        [b'~', hex @ ..] => hex.len() == DIGEST_HEX && hex.iter().all(|&b| hex_digit(b).is_some()),
        _ => false,
    }
}

/// Where the reserved suffix that `text` ends in starts, and how many links it has.
fn closing(text: &[u8]) -> Option<(usize, usize)> {
    // A suffix holds one `%`, so it can only start at the last one.
    let start = text.iter().rposition(|&b| b == b'%')?;
    let end = chain::run_end(text, start);
    is_end_tail(&text[end..]).then(|| (start, (end - start) / chain::LINK.len()))
}

/// Gives a literal reserved suffix one link more.
fn close(name: &mut Vec<u8>) {
    if let Some((start, _)) = closing(name) {
        chain::lengthen(name, start);
    }
}

/// The inverse of [`close`], for a name that ends in no bare reserved suffix.
fn open(name: &[u8]) -> Cow<'_, [u8]> {
    match closing(name) {
        Some((start, _)) => Cow::Owned(chain::shorten(name, start)),
        None => Cow::Borrowed(name),
    }
}

/// Splits a field's name at the first dot that is not its first byte.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = 1 + name.iter().skip(1).position(|&b| b == b'.')?;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Whether the kernel can ask for this name.
fn is_legal(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= NAME_MAX
        && !name.contains(&b'/')
        && !name.contains(&0)
}
