//! Reading chunks: one query by `files_id` and a range of `n`. What comes back is held to the
//! length that the document states; when it does not fit, the document is read again once, as
//! another writer may have been there.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::backend::bson::{Doc, DocBuf, Value};
use crate::backend::mongo::{Command, Mongo, Reply};
use crate::engine::Cx;
use crate::errno::Errno;
use crate::id::{Ino, Lane};
use crate::layout::{Data, Failure, Layout, Outcome, Step};

use super::document::{Content, FileDoc, Id, Whose, number};
use super::{GridFs, Ticket};

/// Chunks are asked for so many bytes a query.
const REPLY_BYTES: u64 = 8 << 20;

/// How often a file is read again whose length is another one each time: somebody keeps appending.
const ATTEMPTS: u32 = 16;

/// A range on its way here.
#[derive(Clone, Debug)]
pub struct Reading {
    ino: Ino,
    offset: u64,
    len: u64,
    id: Id,
    content: Content,
    /// The document was asked for along with the chunks.
    again: bool,
    /// It says that somebody is writing: the last chunk may be ahead of the length.
    writing: bool,
    attempts: u32,
}

impl GridFs {
    pub(super) fn start_read(&mut self, ino: Ino, offset: u64, len: u32) -> Step<Self> {
        let Some((id, content)) = self.contents(ino) else { return Step::fail(Errno::ESTALE) };
        let Ok(content) = content else { return Step::fail(Errno::EIO) };
        let len = u64::from(len);
        self.ask_chunks(Reading {
            ino,
            offset,
            len,
            id,
            content,
            again: false,
            writing: false,
            attempts: 0,
        })
    }

    /// Where the contents of an inode are: the revision that is being written, if there is one,
    /// or the one that readers have opened.
    pub(super) fn contents(&self, ino: Ino) -> Option<(Id, Result<Content, &'static str>)> {
        let node = self.tree.get(ino)?;
        Some(match (&node.staged, &node.pinned) {
            (Some(staged), _) => (staged.id.clone(), Ok(staged.content)),
            (None, Some(pinned)) => (pinned.id.clone(), Ok(pinned.content)),
            (None, None) => (node.id.clone()?, node.content),
        })
    }

    fn ask_chunks(&mut self, reading: Reading) -> Step<Self> {
        let Reading { offset, len, content, .. } = reading;
        let end = (offset + len).min(content.length);
        if offset >= end && !reading.again {
            let data = Data { offset, bytes: Bytes::new(), end: true };
            return Step::Done(Outcome::Data(data));
        }
        let chunk = u64::from(content.chunk);
        let mut commands = Vec::new();
        if reading.again {
            commands.push(match self.tree.get(reading.ino) {
                Some(node) if node.foreign.is_none() => self.find_ino(reading.ino),
                _ => self.find(1, |it| reading.id.write("_id", it)),
            });
        }
        // A reply holds at most 16 MiB, so large chunks are asked for one by one.
        let (mut first, last) = (offset / chunk, end.saturating_sub(1) / chunk);
        let step = (REPLY_BYTES / chunk).max(1);
        while first <= last {
            let to = (first + step - 1).min(last);
            commands.push(self.find_chunks(&reading.id, first, to));
            first = to + 1;
        }
        Step::Work(Self::work(Lane::Bulk, commands, Ticket::Read(reading)))
    }

    pub(super) fn find_chunks(&self, id: &Id, first: u64, last: u64) -> Command {
        let mut find = self.chunks("find");
        let count = (last.saturating_sub(first) + 1) as i64;
        let body = find.body();
        body.begin("filter");
        id.write("files_id", body);
        body.begin("n").i64("$gte", first as i64).i64("$lte", last as i64).end().end();
        body.begin("sort").i32("n", 1).end();
        body.begin("projection").i32("_id", 0).i32("n", 1).i32("data", 1).end();
        body.i64("batchSize", count + 1).bool("singleBatch", true);
        find
    }

    pub(super) fn data_read(
        &mut self,
        mut reading: Reading,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        if let Some(error) = replies.iter().find_map(Reply::error) {
            let what = format!("reading {}", self.describe(reading.ino));
            return Step::Fail(self.refused(&error, &what));
        }
        let length = reading.content.length;
        if reading.again {
            let (docs, _) = replies.first().map(Reply::batch).unwrap_or_default();
            let Some(doc) = docs.first() else {
                return Step::Fail(self.vanished(reading.ino, "reading"));
            };
            let Ok(FileDoc { id, content: Ok(content), whose, .. }) = FileDoc::parse(doc) else {
                return Step::fail(Errno::EIO);
            };
            reading.writing = false;
            if let Whose::Ours(inode) = whose {
                reading.writing = inode.writing;
                self.see(doc, None, cx);
            }
            let moved = id != reading.id || content.chunk != reading.content.chunk;
            (reading.id, reading.content) = (id, content);
            if moved {
                // Another revision, as the one that was opened is gone: its own chunks are wanted.
                if let Some(node) = self.tree.get_mut(reading.ino) {
                    node.unpin();
                }
                reading.again = false;
                return self.ask_chunks(reading);
            }
        }
        let of_chunks = replies.iter().skip(usize::from(reading.again));
        let docs: Vec<Doc> = of_chunks.flat_map(|reply| reply.batch().0).collect();
        match assemble(&docs, &reading) {
            Ok(data) => Step::Done(Outcome::Data(data)),
            // What was appended between the two looks shows in the length at the next.
            Err(_)
                if !reading.again
                    || (reading.content.length != length && reading.attempts < ATTEMPTS) =>
            {
                reading.again = true;
                reading.attempts += 1;
                self.ask_chunks(reading)
            }
            Err(what) => {
                let path = self.describe(reading.ino);
                let text = format!("{path}: {}: {what}", reading.id.show());
                Step::Fail(Failure { errno: Errno::EIO, text: Some(text) })
            }
        }
    }
}

/// Chunks by number. A number that comes twice, or is none, says what is wrong.
pub(super) fn chunks_of(docs: &[Doc]) -> Result<Vec<(u64, Bytes)>, String> {
    let mut chunks: Vec<(u64, Bytes)> = Vec::with_capacity(docs.len());
    for doc in docs {
        let (mut n, mut data) = (None, None);
        for element in doc {
            match (element.name, &element.value) {
                (b"n", value) => n = number(value).and_then(|n| u64::try_from(n).ok()),
                (b"data", Value::Binary { data: bytes, .. }) => data = Some(bytes.clone()),
                _ => {}
            }
        }
        let Some(n) = n else { return Err(String::from("a chunk has no number")) };
        let Some(data) = data else { return Err(format!("chunk {n} has no data")) };
        if chunks.last().is_some_and(|(last, _)| *last >= n) {
            return Err(format!("chunk {n} is there twice"));
        }
        chunks.push((n, data));
    }
    Ok(chunks)
}

/// The range out of its chunks. More than asked for is handed over when a chunk holds it.
fn assemble(docs: &[Doc], reading: &Reading) -> Result<Data, String> {
    let Reading { offset, len, content, .. } = reading;
    let chunk = u64::from(content.chunk);
    let end = (offset + len).min(content.length);
    if *offset >= end {
        return Ok(Data { offset: *offset, bytes: Bytes::new(), end: true });
    }
    let chunks = chunks_of(docs)?;
    let (first, last) = (offset / chunk, (end - 1) / chunk);
    let mut parts: Vec<Bytes> = Vec::with_capacity(chunks.len());
    for want in first..=last {
        let found = chunks.iter().find(|(n, _)| *n == want);
        let Some((_, data)) = found else { return Err(format!("chunk {want} is missing")) };
        let must = content.chunk_len(want);
        if data.len() < must {
            return Err(format!("chunk {want} is {} bytes instead of {must}", data.len()));
        }
        // A writer puts chunks before the length that reveals them, and says so meanwhile.
        let ahead = reading.writing && want + 1 == content.chunks();
        if data.len() > must && !ahead {
            return Err(format!("chunk {want} is {} bytes instead of {must}", data.len()));
        }
        parts.push(data.slice(..must));
    }
    let bytes = match parts.as_slice() {
        [one] => one.clone(),
        many => Bytes::from(many.concat()),
    };
    let offset = first * chunk;
    let ends = offset + bytes.len() as u64 >= content.length;
    Ok(Data { offset, bytes, end: ends })
}

/// Writes a chunk document.
pub(super) fn write_chunk(id: &Id, n: u64, data: Bytes, body: &mut DocBuf) {
    id.write("files_id", body);
    body.i32("n", n as i32).binary("data", 0, data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: Value<'static>, data: &'static [u8]) -> Doc {
        let mut doc = DocBuf::new();
        doc.value("n", &n).binary("data", 0, Bytes::from_static(data));
        doc.finish_doc().unwrap()
    }

    fn reading(offset: u64, len: u64, length: u64) -> Reading {
        let id = Id::of(&Value::Int32(1)).unwrap();
        let content = Content { length, chunk: 4 };
        let (again, writing, attempts) = (false, false, 0);
        Reading { ino: Ino(5), offset, len, id, content, again, writing, attempts }
    }

    #[test]
    fn ranges_are_put_together_from_whole_chunks() {
        let docs = [chunk(Value::Int32(1), b"4567"), chunk(Value::Double(2.0), b"89")];
        let data = assemble(&docs, &reading(5, 100, 10)).unwrap();
        assert_eq!((data.offset, &data.bytes[..], data.end), (4, &b"456789"[..], true));
        let data = assemble(&docs, &reading(5, 2, 10)).unwrap();
        assert_eq!((data.offset, &data.bytes[..], data.end), (4, &b"4567"[..], false));
        let data = assemble(&[], &reading(10, 5, 10)).unwrap();
        assert!(data.end && data.bytes.is_empty());
        // Another is appending to it.
        let longer = [chunk(Value::Int32(2), b"89ab")];
        let appending = Reading { writing: true, ..reading(8, 4, 10) };
        assert_eq!(&assemble(&longer, &appending).unwrap().bytes[..], b"89");
    }

    #[test]
    fn chunks_that_make_no_sense_are_told() {
        let good = || chunk(Value::Int64(0), b"0123");
        for (docs, what) in [
            (alloc::vec![good()], "chunk 1 is missing"),
            (alloc::vec![chunk(Value::Int32(1), b"4567")], "chunk 0 is missing"),
            (alloc::vec![good(), chunk(Value::Int32(1), b"456")], "chunk 1 is 3 bytes"),
            (alloc::vec![chunk(Value::Int32(0), b"01234")], "chunk 0 is 5 bytes"),
            (alloc::vec![good(), good()], "chunk 0 is there twice"),
            (alloc::vec![chunk(Value::Str(b"0"), b"0123")], "a chunk has no number"),
            (alloc::vec![chunk(Value::Int32(-1), b"0123")], "a chunk has no number"),
            (alloc::vec![Doc::empty()], "a chunk has no number"),
        ] {
            for writing in [false, true] {
                let reading = Reading { writing, ..reading(0, 8, 10) };
                let error = assemble(&docs, &reading).unwrap_err();
                assert!(error.starts_with(what), "{error}, not {what}");
            }
        }
        let longer = [chunk(Value::Int32(2), b"89ab")];
        let error = assemble(&longer, &reading(8, 4, 10)).unwrap_err();
        assert_eq!(error, "chunk 2 is 4 bytes instead of 2", "and nobody is writing");
    }
}
