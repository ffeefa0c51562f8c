//! The first look at the server: what it is and can, what the user may do; indexes and the root
//! made when missing; the files of other programs read in.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::backend::bson::{Doc, DocBuf};
use crate::backend::mongo::{Command, Concern, Mongo, Reply};
use crate::contract::Level;
use crate::engine::Cx;
use crate::id::{Ino, Lane, Token};
use crate::layout::{Failure, Outcome, Step};
use crate::op::{Attached, Kind};

use super::document::{FileDoc, VERSION, Whose, blank, number, write_attr, write_token};
use super::{GridFs, OURS, Ticket, ours};

/// The wire version of MongoDB 4.2: update pipelines and transactions on any deployment.
const OLDEST: i64 = 8;
/// Documents in one batch of the index of foreign files.
const SCAN_BATCH: i32 = 10_000;

/// How far attaching is.
#[derive(Clone, Debug)]
pub enum Stage {
    /// `hello` and a query.
    Looking,
    /// Indexes and the root.
    Making(Attached),
    /// The files of other programs, and how often that was begun anew.
    Loading(Attached, u32),
}

/// An index: its name, keys (1 each), whether it is unique, and the field that must exist.
type Index = (&'static str, &'static [&'static str], bool, Option<&'static str>);

/// What lookups, listings and reclaiming stand on. The first is the GridFS specification's.
const FILES_INDEXES: [Index; 8] = [
    ("filename_1_uploadDate_1", &["filename", "uploadDate"], false, None),
    (
        "dbmount_names",
        &["metadata.dbmount.links.p", "metadata.dbmount.links.n"],
        true,
        Some("metadata.dbmount.links.p"),
    ),
    ("dbmount_ino", &["metadata.dbmount.ino"], true, Some("metadata.dbmount.ino")),
    ("dbmount_foreign", &["metadata.dbmount.ino", "filename"], false, None),
    ("dbmount_gone", &["metadata.dbmount.gone.t"], false, Some("metadata.dbmount.gone.t")),
    ("dbmount_revisions", &["metadata.dbmount.rev"], false, Some("metadata.dbmount.rev")),
    ("dbmount_writing", &["metadata.dbmount.wr.t"], false, Some("metadata.dbmount.wr.t")),
    ("dbmount_moved", &["metadata.dbmount.moved"], false, Some("metadata.dbmount.moved")),
];
const CHUNKS_INDEX: Index = ("files_id_1_n_1", &["files_id", "n"], true, None);

/// `CursorNotFound`, `CursorKilled`, `QueryPlanKilled`: the server that had the cursor is not there
/// any more, or is no primary any more.
const CURSOR_GONE: [i32; 3] = [43, 237, 175];
/// So often the index of foreign files is begun anew: elections do not follow on each other for
/// ever.
const SCANS: u32 = 8;

/// `IndexOptionsConflict` and `IndexKeySpecsConflict`: somebody made it under another name.
const EXISTS: [i32; 2] = [85, 86];

impl GridFs {
    pub(super) fn start_attach(&mut self, cx: &mut Cx<Mongo>) -> Step<Self> {
        self.options.read_only |= cx.config.read_only;
        self.session = cx.seed;
        self.live.attached(cx);
        let mut look = self.files("find");
        look.body().begin("filter").end().i32("limit", 1).bool("singleBatch", true);
        let commands = alloc::vec![Command::new("hello", "admin"), look];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach(Stage::Looking)))
    }

    pub(super) fn attached(
        &mut self,
        stage: Stage,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        match stage {
            Stage::Looking => self.looked(replies, cx),
            Stage::Making(attached) => self.made(attached, replies),
            Stage::Loading(attached, scans) => self.loading(attached, scans, replies, cx),
        }
    }

    fn looked(&mut self, replies: &[Reply], cx: &mut Cx<Mongo>) -> Step<Self> {
        let [hello, look] = replies else { return odd("attaching") };
        if let Some(error) = hello.error() {
            return refused(format!("the server does not answer hello: {error}"));
        }
        let hello = hello.doc();
        let wire = hello.get("maxWireVersion").as_ref().and_then(number).unwrap_or(0);
        if wire < OLDEST {
            return refused(format!(
                "this server is too old (wire version {wire}); dbmount needs MongoDB 4.2 or later"
            ));
        }
        let (db, bucket) = (&self.options.db, &self.options.bucket);
        if let Some(error) = look.error() {
            return refused(match error.code {
                13 | 18 => format!(
                    "this user may not read {db}.{bucket}; grant it readWrite (or read) on {db}"
                ),
                // InvalidNamespace.
                73 => format!("{db}.{bucket} cannot be a bucket: {}", error.message),
                _ => format!("{db}.{bucket} cannot be read: {error}"),
            });
        }
        let is = |name: &str| hello.get(name).and_then(|it| it.as_bool()) == Some(true);
        let sharded = hello.get("msg").is_some_and(|it| it.as_str() == Some("isdbgrid"));
        let sessions = hello.get("logicalSessionTimeoutMinutes").is_some();
        self.transactions = sessions && (hello.get("setName").is_some() || sharded);
        self.durable.learn(&hello);
        let several = sharded || data_members(&hello) > 1;
        let safest = if several { Concern::Durable } else { Concern::Acknowledged };
        self.concern = self.options.concern.unwrap_or(safest);
        let mut attached = Attached { read_only: self.options.read_only, notes: Vec::new() };
        if !is("isWritablePrimary") && !is("ismaster") {
            attached.read_only = true;
            attached.notes.push(String::from(
                "this server is a secondary: the mount is read-only; name the replica set to write",
            ));
        } else if !self.transactions && !attached.read_only {
            attached.notes.push(String::from(
                "this server is a standalone: changes of several documents are done one after \
                 another, and changes of others show after a second; a replica set has \
                 transactions and tells of changes",
            ));
        }
        if attached.read_only {
            return self.load(attached, cx);
        }
        let commands = self.making(cx);
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach(Stage::Making(attached))))
    }

    /// The indexes, one command each so that one that is there already does not stop the others,
    /// and the root.
    fn making(&mut self, cx: &Cx<Mongo>) -> Vec<Command> {
        let mut commands: Vec<Command> = FILES_INDEXES
            .iter()
            .map(|index| create_index(self.files("createIndexes"), index, self.concern))
            .collect();
        commands.push(create_index(self.chunks("createIndexes"), &CHUNKS_INDEX, self.concern));
        let mut root = blank(Ino::ROOT, Kind::Dir);
        root.perm = 0o777 & !self.options.umask;
        (root.uid, root.gid) = (self.options.uid, self.options.gid);
        (root.atime, root.mtime, root.ctime) = (self.born.wall, self.born.wall, self.born.wall);
        let id = self.new_id(cx.now.wall);
        let token = Token { session: self.session, serial: 0 };
        commands.push(self.update(|it| {
            it.begin("q").i64(&ours("ino"), Ino::ROOT.0 as i64).end();
            it.begin("u").begin("$setOnInsert");
            id.write("_id", it);
            it.i64("length", 0).i32("chunkSize", super::CHUNK_SIZE as i32);
            it.date_time("uploadDate", self.born.wall.0.div_euclid(1_000_000));
            // The filter sets `ino`, so the fields beside it are set one by one.
            let mut attr = DocBuf::new();
            write_attr(&root, &mut attr);
            if let Ok(attr) = attr.finish_doc() {
                for element in attr.iter().filter(|it| it.name != b"ino") {
                    let name = String::from_utf8_lossy(element.name).to_string();
                    it.value(&ours(&name), &element.value);
                }
            }
            it.i32(&ours("v"), VERSION as i32).begin_array(&ours("links")).end();
            write_token(&ours("w"), token, it);
            it.end().end().bool("upsert", true);
        }));
        commands
    }

    fn made(&mut self, mut attached: Attached, replies: &[Reply]) -> Step<Self> {
        for reply in replies {
            let Some(error) = reply.error() else { continue };
            let (db, bucket) = (&self.options.db, &self.options.bucket);
            match error.code {
                code if EXISTS.contains(&code) => {}
                // Another mount made the root at the same moment.
                11_000 if error.message.contains("dbmount_ino") => {}
                // A broken upload. Without the index everything works, if slowly.
                11_000 if error.message.contains(CHUNKS_INDEX.0) => {
                    attached.notes.push(format!(
                        "{db}.{bucket}.chunks has several chunks of one number, so that the index \
                         that finds them fast cannot be made: {error}"
                    ));
                }
                13 => {
                    attached.read_only = true;
                    attached.notes.push(format!(
                        "this user may not write {db}.{bucket}: the mount is read-only; grant it \
                         readWrite on {db} to write"
                    ));
                    break;
                }
                _ => {
                    return refused(format!(
                        "the indexes of {db}.{bucket} cannot be made: {error}"
                    ));
                }
            }
        }
        let commands = alloc::vec![self.scan_foreign()];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach(Stage::Loading(attached, 0))))
    }

    fn load(&mut self, attached: Attached, _cx: &mut Cx<Mongo>) -> Step<Self> {
        let commands = alloc::vec![self.scan_foreign()];
        Step::Work(Self::work(Lane::Meta, commands, Ticket::Attach(Stage::Loading(attached, 0))))
    }

    /// All documents without an inode. `null` matches what is missing, and has an index.
    pub(super) fn scan_foreign(&self) -> Command {
        let mut find = self.files("find");
        find.body().begin("filter").null(&ours("ino")).end();
        find.body().begin("projection").i32("filename", 1).i32("length", 1).i32("chunkSize", 1);
        find.body().i32("uploadDate", 1).i32("stat", 1).i32("visible", 1).i32(OURS, 1).end();
        find.body().i32("batchSize", SCAN_BATCH);
        find
    }

    pub(super) fn scan_more(&self, cursor: i64) -> Command {
        let mut body = DocBuf::new();
        body.i64("getMore", cursor).str("collection", self.options.files());
        body.str("$db", &self.options.db).i32("batchSize", SCAN_BATCH);
        Command::of("getMore", body)
    }

    fn loading(
        &mut self,
        attached: Attached,
        scans: u32,
        replies: &[Reply],
        cx: &mut Cx<Mongo>,
    ) -> Step<Self> {
        let Some(reply) = replies.first() else { return odd("reading the bucket") };
        if let Some(error) = reply.error() {
            if CURSOR_GONE.contains(&error.code) && scans < SCANS {
                self.foreign = super::Foreign::default();
                let commands = alloc::vec![self.scan_foreign()];
                let ticket = Ticket::Attach(Stage::Loading(attached, scans + 1));
                return Step::Work(Self::work(Lane::Meta, commands, ticket));
            }
            return refused(format!("the bucket cannot be read: {error}"));
        }
        let (docs, cursor) = reply.batch();
        for doc in docs {
            self.take_foreign(&doc, cx);
        }
        if cursor != 0 && self.foreign.len() < self.options.foreign_files {
            let commands = alloc::vec![self.scan_more(cursor)];
            let ticket = Ticket::Attach(Stage::Loading(attached, scans));
            return Step::Work(Self::work(Lane::Meta, commands, ticket));
        }
        self.live.scanned(cx);
        self.live.writable(!attached.read_only);
        self.options.read_only = attached.read_only;
        Step::Done(Outcome::Attached(attached))
    }

    /// A document without an inode, into the index.
    pub(super) fn take_foreign(&mut self, doc: &Doc, cx: &mut Cx<Mongo>) {
        match FileDoc::parse(doc) {
            Ok(FileDoc { whose: Whose::Ours(_) | Whose::Passing | Whose::Hidden, .. }) => {}
            Ok(_) if self.foreign.len() >= self.options.foreign_files => {
                let bound = self.options.foreign_files;
                let text = format!("more than {bound} files of other programs: the rest is hidden");
                self.live.say_once("foreign_files", text, cx);
            }
            Ok(file) => {
                self.foreign.insert(file);
            }
            Err(bad) => self.complain(&bad, cx),
        }
    }

    /// Unlinked files that are still held go now; there is nobody to hold them any more.
    pub(super) fn start_detach(&mut self, cx: &mut Cx<Mongo>) -> Step<Self> {
        let (mut ids, held) = self.live.take_all_reclaims();
        ids.extend(held.iter().filter_map(|ino| self.tree.get(*ino)?.id.clone()));
        if ids.is_empty() || self.options.read_only {
            return self.leave(Vec::new());
        }
        cx.notice(Level::Info, format!("{} unlinked files are being removed", ids.len()));
        let commands = alloc::vec![self.ask_gone(&ids)];
        Step::Work(Self::work(Lane::Bulk, commands, Ticket::Detach))
    }

    /// Which of them are gone is known.
    pub(super) fn detaching(&mut self, replies: &[Reply]) -> Step<Self> {
        let commands = replies.first().map(|found| self.removal(found)).unwrap_or_default();
        self.leave(commands)
    }

    /// The last commands. What was acknowledged is safe when they are answered.
    fn leave(&mut self, mut commands: Vec<Command>) -> Step<Self> {
        commands.extend(self.unmark_all());
        if !self.all_is_safe() {
            commands.push(self.barrier());
        }
        if commands.is_empty() {
            return Step::Done(Outcome::Done);
        }
        Step::Work(Self::work(Lane::Bulk, commands, Ticket::Nothing))
    }
}

/// Members of a replica set that hold data and can become its primary, or could once.
fn data_members(hello: &Doc) -> usize {
    let count = |field: &str| hello.get(field).and_then(|it| Some(it.as_array()?.iter().count()));
    count("hosts").unwrap_or(0) + count("passives").unwrap_or(0)
}

fn create_index(
    mut command: Command,
    (name, keys, unique, exists): &Index,
    concern: Concern,
) -> Command {
    let body = command.body();
    body.begin_array("indexes").begin("0").begin("key");
    for key in *keys {
        body.i32(key, 1);
    }
    body.end().str("name", name);
    if *unique {
        body.bool("unique", true);
    }
    if let Some(field) = exists {
        body.begin("partialFilterExpression").begin(field).bool("$exists", true).end().end();
    }
    body.end().end();
    command.concern = concern;
    command
}

fn refused(line: String) -> Step<GridFs> {
    Step::Done(Outcome::Refused(line))
}

fn odd(what: &str) -> Step<GridFs> {
    let text = format!("{what}: the server's reply makes no sense");
    Step::Fail(Failure { errno: crate::errno::Errno::EIO, text: Some(text) })
}
