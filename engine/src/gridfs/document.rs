//! Files documents: reading them whoever wrote them, and writing our own.
//!
//! A document says what it is in three ways: `metadata.dbmount` (ours), `stat` and `visible` at
//! its root (the old GridFUSE program), or neither (any driver). What a reader of the GridFS
//! specification needs is at the root in all of them.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::bson::{Doc, DocBuf, Value};
use crate::id::{Ino, Token};
use crate::op::{Attr, Kind, Name};
use crate::time::Wall;

use super::options::Options;

/// The largest chunk a document can hold, and so the largest chunk size that makes sense.
const CHUNK_MAX: i64 = 16 << 20;

/// The `_id` of a files document, of any type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(Doc);

impl Id {
    pub(super) fn of(value: &Value<'_>) -> Option<Id> {
        let mut doc = DocBuf::new();
        doc.value("", value);
        doc.finish_doc().ok().map(Id)
    }

    /// An `_id` of our own: seconds, then what no other mount and no other call has.
    pub(super) fn made(at: Wall, session: u64, serial: u64) -> Id {
        let mut id = [0; 12];
        id[..4].copy_from_slice(&(at.parts().0 as u32).to_be_bytes());
        id[4..9].copy_from_slice(&session.to_be_bytes()[3..]);
        id[9..].copy_from_slice(&(serial as u32).to_be_bytes()[1..]);
        Id::of(&Value::ObjectId(id)).unwrap_or_else(|| Id(Doc::empty()))
    }

    pub(super) fn write(&self, name: &str, body: &mut DocBuf) {
        if let Some(element) = self.0.iter().next() {
            body.value(name, &element.value);
        }
    }

    /// For messages, as a shell would print it.
    pub(super) fn show(&self) -> String {
        match self.0.iter().next().map(|it| it.value) {
            Some(Value::ObjectId(id)) => {
                let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("ObjectId({hex})")
            }
            Some(Value::Str(text)) => format!("{:?}", String::from_utf8_lossy(text)),
            Some(Value::Int32(n)) => format!("{n}"),
            Some(Value::Int64(n)) => format!("{n}"),
            Some(other) => format!("{other:?}"),
            None => String::from("(no _id)"),
        }
    }
}

/// A name of an inode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Link {
    pub(super) parent: Ino,
    pub(super) name: Name,
}

/// How the contents are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub(super) length: u64,
    pub(super) chunk: u32,
}

impl Content {
    /// How many chunks there are.
    pub(super) fn chunks(self) -> u64 {
        self.length.div_ceil(u64::from(self.chunk))
    }

    /// How many bytes chunk `n` must hold: all but the last are full.
    pub(super) fn chunk_len(self, n: u64) -> usize {
        let chunk = u64::from(self.chunk);
        self.length.saturating_sub(n.saturating_mul(chunk)).min(chunk) as usize
    }
}

/// A files document, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileDoc {
    pub(super) id: Id,
    pub(super) filename: Option<Vec<u8>>,
    /// What is wrong with the length or the chunk size is said, and the file cannot be opened.
    pub(super) content: Result<Content, &'static str>,
    /// UTC milliseconds.
    pub(super) uploaded: i64,
    pub(super) whose: Whose,
}

/// Who wrote it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Whose {
    /// This program: an inode.
    Ours(Inode),
    /// This program: a document that is on its way in or out.
    Passing,
    /// Another program. GridFUSE says more of a file than a driver does.
    Foreign(Option<Stat>),
    /// GridFUSE: deleted.
    Hidden,
}

/// `metadata.dbmount` of an inode.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inode {
    /// The attributes; the size is the content's.
    pub(super) attr: Attr,
    pub(super) links: Vec<Link>,
    pub(super) target: Bytes,
    /// The commit that wrote it last.
    pub(super) writer: Option<Token>,
    /// Its last name is gone.
    pub(super) gone: bool,
    /// Old revisions of it are kept.
    pub(super) revisions: bool,
    /// Its chunks and its length do not fit to each other: somebody is writing.
    pub(super) writing: bool,
    /// The names of its extended attributes.
    pub(super) xattrs: Vec<Name>,
}

/// `stat` of a GridFUSE document.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) perm: u16,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) atime: Option<Wall>,
    pub(super) mtime: Option<Wall>,
    pub(super) ctime: Option<Wall>,
}

/// A document that cannot be shown at all: its `_id` and what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bad {
    pub(super) id: String,
    pub(super) what: &'static str,
}

/// Any numeric type as an integer, decimal among them (GridFS specification: "length",
/// "chunkSize" may be of any numeric type).
pub(super) fn number(value: &Value<'_>) -> Option<i64> {
    let Value::Decimal128(bytes) = value else { return value.as_i64() };
    let bits = u128::from_le_bytes(*bytes);
    let high = (bits >> 64) as u64;
    // Infinities, NaN and the non-canonical large coefficients have both of these bits set.
    if high >> 61 & 3 == 3 {
        return None;
    }
    let exponent = i32::try_from(high >> 49 & 0x3fff).ok()? - 6176;
    let mut coefficient = bits & ((1 << 113) - 1);
    for _ in 0..exponent.unsigned_abs() {
        if coefficient == 0 {
            break;
        }
        if exponent > 0 {
            coefficient = coefficient.checked_mul(10)?;
        } else if coefficient.is_multiple_of(10) {
            coefficient /= 10;
        } else {
            return None;
        }
    }
    let magnitude = i64::try_from(coefficient).ok()?;
    Some(if high >> 63 == 1 { -magnitude } else { magnitude })
}

/// A name as it is stored: a string, or binary when it is not UTF-8.
pub(super) fn write_text(field: &str, text: &[u8], body: &mut DocBuf) {
    match core::str::from_utf8(text) {
        Ok(text) => body.str(field, text),
        Err(_) => body.binary(field, 0, Bytes::copy_from_slice(text)),
    };
}

fn text<'a>(value: &'a Value<'_>) -> Option<&'a [u8]> {
    match value {
        Value::Str(text) => Some(text),
        Value::Binary { data, .. } => Some(data),
        _ => None,
    }
}

const KINDS: [(&str, Kind); 7] = [
    ("file", Kind::File),
    ("dir", Kind::Dir),
    ("symlink", Kind::Symlink),
    ("fifo", Kind::Fifo),
    ("socket", Kind::Socket),
    ("chr", Kind::CharDevice),
    ("blk", Kind::BlockDevice),
];

/// How a kind is stored.
pub(super) fn kind_word(kind: Kind) -> &'static str {
    KINDS.iter().find(|(_, it)| *it == kind).map_or("file", |(word, _)| word)
}

/// Whether bytes can be the name of a directory entry.
pub(super) fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= Name::MAX
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl FileDoc {
    /// Reads a document.
    pub(super) fn parse(doc: &Doc) -> Result<FileDoc, Bad> {
        let (mut id, mut filename, mut uploaded) = (None, None, 0);
        let (mut length, mut chunk) = (Some(0), Some(i64::from(super::options::CHUNK_SIZE)));
        let (mut metadata, mut stat, mut visible) = (None, None, true);
        for element in doc {
            match (element.name, &element.value) {
                (b"_id", value) => id = Id::of(value),
                (b"filename", value) => filename = text(value).map(<[u8]>::to_vec),
                (b"length", value) => length = number(value),
                (b"chunkSize", value) => chunk = number(value),
                (b"uploadDate", Value::DateTime(at)) => uploaded = *at,
                (b"metadata", Value::Document(doc)) => metadata = Some(doc.clone()),
                (b"stat", Value::Document(doc)) => stat = Stat::parse(doc),
                (b"visible", value) => visible = value.as_bool() != Some(false),
                _ => {}
            }
        }
        let Some(id) = id else {
            return Err(Bad { id: String::from("(no _id)"), what: "it has no _id" });
        };
        let content = content(length, chunk);
        let ours = metadata.as_ref().and_then(|it| it.get("dbmount"));
        let whose = match ours {
            Some(Value::Document(ours)) if ours.get("ino").is_some() => {
                let size = content.map_or(0, |content| content.length);
                match Inode::parse(&ours, size) {
                    Ok(inode) => Whose::Ours(inode),
                    Err(what) => return Err(Bad { id: id.show(), what }),
                }
            }
            Some(Value::Document(_)) => Whose::Passing,
            Some(_) => {
                return Err(Bad { id: id.show(), what: "metadata.dbmount is no document" });
            }
            None if !visible => Whose::Hidden,
            None => Whose::Foreign(stat),
        };
        Ok(FileDoc { id, filename, content, uploaded, whose })
    }
}

fn content(length: Option<i64>, chunk: Option<i64>) -> Result<Content, &'static str> {
    let length = length.ok_or("length is no whole number")?;
    let chunk = chunk.ok_or("chunkSize is no whole number")?;
    let length = u64::try_from(length).map_err(|_| "length is negative")?;
    if !(1..=CHUNK_MAX).contains(&chunk) {
        return Err("chunkSize is not between 1 and 16 MiB");
    }
    let content = Content { length, chunk: chunk as u32 };
    // `n` is a 32-bit integer (GridFS specification).
    if content.chunks() > i32::MAX as u64 {
        return Err("length is more than 2^31 chunks");
    }
    Ok(content)
}

impl Inode {
    fn parse(doc: &Doc, size: u64) -> Result<Inode, &'static str> {
        let mut attr = blank(Ino(0), Kind::File);
        let mut kind = None;
        let mut inode = Inode {
            attr,
            links: Vec::new(),
            target: Bytes::new(),
            writer: None,
            gone: false,
            revisions: false,
            writing: false,
            xattrs: Vec::new(),
        };
        let mut dir_nlink = 2;
        for element in doc {
            let value = &element.value;
            let unsigned = || number(value).and_then(|n| u32::try_from(n).ok());
            let time = || number(value).map(Wall).ok_or("a time is no number");
            match element.name {
                b"v" if number(value).is_none_or(|v| v > VERSION) => {
                    return Err("metadata.dbmount is of a newer version");
                }
                b"ino" => {
                    let ino = number(value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
                    attr.ino = Ino(ino.ok_or("metadata.dbmount.ino is no inode number")?);
                }
                b"kind" => {
                    let word = value.as_str().unwrap_or_default();
                    kind = KINDS.iter().find(|(it, _)| *it == word).map(|(_, kind)| *kind);
                }
                b"mode" => attr.perm = unsigned().ok_or("the mode is no number")? as u16 & 0o7777,
                b"uid" => attr.uid = unsigned().ok_or("the uid is no number")?,
                b"gid" => attr.gid = unsigned().ok_or("the gid is no number")?,
                b"nlink" => dir_nlink = unsigned().ok_or("nlink is no number")?,
                b"rdev" => attr.rdev = unsigned().ok_or("rdev is no number")?,
                b"atime" => attr.atime = time()?,
                b"mtime" => attr.mtime = time()?,
                b"ctime" => attr.ctime = time()?,
                b"target" => {
                    inode.target = text(value).map(Bytes::copy_from_slice).unwrap_or_default()
                }
                b"links" => inode.links = links(value)?,
                b"w" => inode.writer = value.as_doc().and_then(token),
                b"gone" => inode.gone = true,
                b"revs" => inode.revisions = true,
                b"wr" => inode.writing = true,
                b"xattrs" => inode.xattrs = xattr_names(value),
                _ => {}
            }
        }
        attr.kind = kind.ok_or("metadata.dbmount.kind is none that there is")?;
        attr.nlink = match attr.kind {
            _ if inode.gone => 0,
            Kind::Dir => dir_nlink.max(2),
            _ => inode.links.len() as u32,
        };
        attr.size = match attr.kind {
            Kind::File => size,
            Kind::Symlink => inode.target.len() as u64,
            _ => 0,
        };
        inode.attr = attr;
        Ok(inode)
    }
}

fn links(value: &Value<'_>) -> Result<Vec<Link>, &'static str> {
    let array = value.as_array().ok_or("metadata.dbmount.links is no array")?;
    let mut links = Vec::new();
    for element in array {
        let doc = element.value.as_doc().ok_or("a link is no document")?;
        let parent = doc.get("p").as_ref().and_then(number).and_then(|n| u64::try_from(n).ok());
        let parent = Ino(parent.ok_or("the directory of a link is no inode number")?);
        let value = doc.get("n");
        let name = value.as_ref().and_then(text).ok_or("the name of a link is no text")?;
        if !is_name(name) {
            return Err("the name of a link cannot be a file's name");
        }
        links.push(Link { parent, name: Name::from(name) });
    }
    Ok(links)
}

fn xattr_names(value: &Value<'_>) -> Vec<Name> {
    let Some(array) = value.as_array() else { return Vec::new() };
    let name = |doc: &Doc| doc.get("n").as_ref().and_then(text).map(Name::from);
    array.iter().filter_map(|it| name(it.value.as_doc()?)).collect()
}

/// A token as it is stored: `{s: session, n: serial}`.
pub(super) fn token(doc: &Doc) -> Option<Token> {
    let session = number(&doc.get("s")?)? as u64;
    let serial = number(&doc.get("n")?)? as u64;
    Some(Token { session, serial })
}

/// Writes a token.
pub(super) fn write_token(field: &str, token: Token, body: &mut DocBuf) {
    body.begin(field).i64("s", token.session as i64).i64("n", token.serial as i64).end();
}

impl Stat {
    /// `S_IFMT` of `st_mode` tells the kind; times are seconds with a fraction.
    fn parse(doc: &Doc) -> Option<Stat> {
        let mode = number(&doc.get("st_mode")?)?;
        let kind = match mode & 0o170_000 {
            0o040_000 => Kind::Dir,
            0o120_000 => Kind::Symlink,
            0o100_000 | 0 => Kind::File,
            _ => return None,
        };
        let id = |name| {
            let value = doc.get(name)?;
            u32::try_from(number(&value)?).ok()
        };
        let time = |name| {
            let seconds = doc.get(name)?.as_f64().filter(|it| it.is_finite() && *it != 0.0)?;
            Some(Wall((seconds * 1e9) as i64))
        };
        Some(Stat {
            kind,
            perm: (mode & 0o7777) as u16,
            uid: id("st_uid"),
            gid: id("st_gid"),
            atime: time("st_atime"),
            mtime: time("st_mtime"),
            ctime: time("st_ctime"),
        })
    }
}

/// Attributes of which nothing is known but the number and the kind.
pub(super) fn blank(ino: Ino, kind: Kind) -> Attr {
    Attr {
        ino,
        kind,
        perm: 0,
        nlink: if kind == Kind::Dir { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        atime: Wall(0),
        mtime: Wall(0),
        ctime: Wall(0),
    }
}

/// The attributes of a file of another program, or of a directory that its name implies.
pub(super) fn foreign_attr(
    ino: Ino,
    kind: Kind,
    size: u64,
    uploaded: i64,
    stat: Option<&Stat>,
    options: &Options,
) -> Attr {
    let at = Wall(uploaded.saturating_mul(1_000_000));
    let all = if kind == Kind::Dir { 0o777 } else { 0o666 };
    let default = if kind == Kind::Symlink { 0o777 } else { all & !options.umask };
    Attr {
        perm: stat.map_or(default, |it| it.perm),
        uid: stat.and_then(|it| it.uid).unwrap_or(options.uid),
        gid: stat.and_then(|it| it.gid).unwrap_or(options.gid),
        size,
        atime: stat.and_then(|it| it.atime).unwrap_or(at),
        mtime: stat.and_then(|it| it.mtime).unwrap_or(at),
        ctime: stat.and_then(|it| it.ctime).unwrap_or(at),
        ..blank(ino, kind)
    }
}

/// The version of `metadata.dbmount` that is written here.
pub(super) const VERSION: i64 = 1;

/// What a new files document is made of.
#[derive(Clone, Debug)]
pub(super) struct NewFile<'a> {
    pub(super) id: &'a Id,
    pub(super) attr: &'a Attr,
    pub(super) link: Option<&'a Link>,
    /// The full path of the first name, for regular files only: GridFS listings show files.
    pub(super) filename: Option<&'a [u8]>,
    pub(super) target: Option<&'a [u8]>,
    pub(super) chunk: u32,
    pub(super) token: Token,
    /// It is open for writing, in this session since this millisecond: see `wr`.
    pub(super) writing: Option<(u64, i64)>,
}

impl NewFile<'_> {
    /// Writes the fields of the document.
    pub(super) fn write(&self, body: &mut DocBuf) {
        self.id.write("_id", body);
        body.i64("length", 0).i32("chunkSize", self.chunk as i32);
        body.date_time("uploadDate", self.attr.mtime.0.div_euclid(1_000_000));
        if let Some(filename) = self.filename {
            write_text("filename", filename, body);
        }
        body.begin("metadata").begin("dbmount").i32("v", VERSION as i32);
        write_attr(self.attr, body);
        body.begin_array("links");
        if let Some(link) = self.link {
            body.begin("0");
            write_link(link, body);
            body.end();
        }
        body.end();
        if let Some(target) = self.target {
            write_text("target", target, body);
        }
        if let Some((session, at)) = self.writing {
            body.begin("wr").i64("s", session as i64).i64("t", at).end();
        }
        write_token("w", self.token, body);
        body.end().end();
    }
}

/// Writes `p` and `n` of a link.
pub(super) fn write_link(link: &Link, body: &mut DocBuf) {
    body.i64("p", link.parent.0 as i64);
    write_text("n", link.name.as_bytes(), body);
}

/// Writes the attributes of `metadata.dbmount`.
pub(super) fn write_attr(attr: &Attr, body: &mut DocBuf) {
    body.i64("ino", attr.ino.0 as i64).str("kind", kind_word(attr.kind));
    body.i32("mode", i32::from(attr.perm));
    body.i64("uid", i64::from(attr.uid)).i64("gid", i64::from(attr.gid));
    if attr.kind == Kind::Dir {
        body.i32("nlink", attr.nlink as i32);
    }
    if attr.rdev != 0 {
        body.i64("rdev", i64::from(attr.rdev));
    }
    body.i64("atime", attr.atime.0).i64("mtime", attr.mtime.0).i64("ctime", attr.ctime.0);
    body.i64("btime", attr.ctime.0);
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
