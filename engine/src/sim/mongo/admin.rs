//! Commands about the server, its collections and their indexes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::collection::Collection;
use super::cx::{Cx, ok};
use super::failure::{
    Failure, INDEX_KEY_SPECS_CONFLICT, INDEX_NOT_FOUND, INDEX_OPTIONS_CONFLICT,
    NAMESPACE_NOT_FOUND, TYPE_MISMATCH,
};
use super::filter::Filter;
use super::index::{Index, RecordId};
use super::oplog::{Event, Write};
use super::request::{Request, SessionId};
use super::value::{Document, Path, Val};

/// The version that is imitated.
const VERSION: &str = "6.0.5";
/// The wire version of MongoDB 6.0.
const WIRE_VERSION: i32 = 17;
/// What `dbStats` says of the disk when it has no limit, in bytes.
const DISK: u64 = 1 << 40;

fn reply(mut fields: Document) -> Document {
    fields.0.extend(ok().0);
    fields
}

/// An id of the process or of the election: they change with the term.
fn of_term(head: u8, term: u32) -> Val {
    let mut id = [0; 12];
    id[0] = head;
    id[8..].copy_from_slice(&term.to_be_bytes());
    Val::ObjectId(id)
}

pub(super) fn hello(cx: &Cx<'_>) -> Document {
    let server = &cx.server;
    let host = Val::str("mem:27017");
    let version = Document::default()
        .with("processId", of_term(1, server.term))
        .with("counter", Val::Int64(6));
    let mut out = Document::default()
        .with("helloOk", Val::Bool(true))
        .with("isWritablePrimary", Val::Bool(server.primary))
        .with("topologyVersion", Val::Doc(version));
    if server.settings.replica_set {
        out.set("hosts", Val::Array(Vec::from([host.clone()])));
        out.set("setName", Val::str("mem"));
        out.set("setVersion", Val::Int32(1));
        out.set("secondary", Val::Bool(!server.primary));
        if server.primary {
            out.set("primary", host.clone());
            out.set("electionId", of_term(0x7f, server.term));
        }
        out.set("me", host);
    }
    out.set("maxBsonObjectSize", Val::Int32(16 << 20));
    out.set("maxMessageSizeBytes", Val::Int32(48_000_000));
    out.set("maxWriteBatchSize", Val::Int32(100_000));
    out.set("localTime", Val::Date(server.now.wall.0.div_euclid(1_000_000)));
    out.set("logicalSessionTimeoutMinutes", Val::Int32(30));
    out.set("connectionId", Val::Int32(cx.client.0 as i32));
    out.set("minWireVersion", Val::Int32(0));
    out.set("maxWireVersion", Val::Int32(WIRE_VERSION));
    out.set("readOnly", Val::Bool(false));
    reply(out)
}

pub(super) fn build_info() -> Document {
    let numbers = [6, 0, 5, 0].map(Val::Int32);
    reply(
        Document::default()
            .with("version", Val::str(VERSION))
            .with("versionArray", Val::Array(numbers.into()))
            .with("maxBsonObjectSize", Val::Int32(16 << 20)),
    )
}

pub(super) fn kill_sessions(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    let Some(Val::Array(sessions)) = request.get("killSessions") else {
        return Err(Failure::new(TYPE_MISMATCH, "killSessions takes an array"));
    };
    for session in sessions {
        if let Some(Ok(id)) = session.as_doc().map(Document::doc) {
            cx.server.abort(&SessionId(id.as_bytes().to_vec()));
        }
    }
    Ok(ok())
}

fn of_db<'a>(cx: &'a Cx<'_>, db: &str) -> impl Iterator<Item = (&'a String, &'a Collection)> {
    let prefix = format!("{db}.");
    cx.server.store.collections.iter().filter(move |(name, _)| name.starts_with(&prefix))
}

/// A whole number as the server writes sizes: doubles.
fn size(bytes: u64) -> Val {
    Val::Double(bytes as f64)
}

pub(super) fn db_stats(cx: &Cx<'_>, request: &Request) -> Document {
    let all = || of_db(cx, &request.db);
    let objects: usize = all().map(|(_, it)| it.docs.len()).sum();
    let bytes: u64 = all().map(|(_, it)| it.bytes).sum();
    let indexes: usize = all().map(|(_, it)| it.indexes.len()).sum();
    let disk = match cx.server.settings.disk {
        0 => DISK,
        disk => disk,
    };
    reply(
        Document::default()
            .with("db", Val::str(&request.db))
            .with("collections", Val::Int64(all().count() as i64))
            .with("views", Val::Int64(0))
            .with("objects", Val::Int64(objects as i64))
            .with("avgObjSize", size(bytes / (objects as u64).max(1)))
            .with("dataSize", size(bytes))
            .with("storageSize", size(bytes))
            .with("indexes", Val::Int64(indexes as i64))
            .with("indexSize", size(0))
            .with("totalSize", size(bytes))
            .with("scaleFactor", size(1))
            .with("fsUsedSize", size(cx.server.store.bytes()))
            .with("fsTotalSize", size(disk)),
    )
}

pub(super) fn coll_stats(cx: &Cx<'_>, request: &Request) -> Result<Document, Failure> {
    let namespace = request.namespace()?;
    let found = cx.server.store.get(&namespace);
    let (bytes, count) = found.map_or((0, 0), |it| (it.bytes, it.docs.len()));
    let indexes = found.map_or(0, |it| it.indexes.len());
    Ok(reply(
        Document::default()
            .with("ns", Val::str(&namespace))
            .with("size", Val::Int64(bytes as i64))
            .with("count", Val::Int64(count as i64))
            .with("storageSize", Val::Int64(bytes as i64))
            .with("nindexes", Val::Int32(indexes as i32)),
    ))
}

pub(super) fn create(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&[])?;
    let namespace = request.namespace()?;
    if cx.server.store.get(&namespace).is_some() {
        return Err(Failure::new(48, format!("Collection {namespace} already exists.")));
    }
    cx.server.store.make(&namespace);
    cx.log.other = true;
    Ok(ok())
}

pub(super) fn create_indexes(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["indexes"])?;
    let namespace = request.namespace()?;
    let specs = request.documents("indexes")?;
    let specs = specs.iter().map(parse_index).collect::<Result<Vec<_>, _>>()?;
    let made = cx.server.store.get(&namespace).is_none();
    let collection = cx.server.store.make(&namespace);
    let before = collection.indexes.len();
    for mut index in specs {
        if find_same(collection, &index)? {
            continue;
        }
        for (record, doc) in &collection.docs {
            let keys = index.keys(doc)?;
            if let Some((_, key)) = index.taken(&keys, *record) {
                return Err(index.duplicate(&namespace, &key));
            }
            index.add(&keys, *record);
        }
        collection.indexes.push(index);
        cx.log.other = true;
    }
    let after = collection.indexes.len();
    let mut out = Document::default()
        .with("numIndexesBefore", Val::Int32(before as i32))
        .with("numIndexesAfter", Val::Int32(after as i32))
        .with("createdCollectionAutomatically", Val::Bool(made));
    if before == after {
        out.set("note", Val::str("all indexes already exist"));
    }
    Ok(reply(out))
}

fn parse_index(spec: &Document) -> Result<Index, Failure> {
    let Some(Val::Doc(keys)) = spec.get("key") else {
        return Err(Failure::new(9, "The 'key' field is a required property of an index"));
    };
    let Some(name) = spec.get("name").and_then(Val::as_text) else {
        return Err(Failure::new(9, "The 'name' field is a required property of an index"));
    };
    let mut fields = Vec::new();
    for (path, direction) in &keys.0 {
        match direction.as_i64() {
            Some(1) => fields.push((Path::of(path), false)),
            Some(-1) => fields.push((Path::of(path), true)),
            _ => return Err(Failure::not_simulated("an index that is neither 1 nor -1")),
        }
    }
    for (option, _) in &spec.0 {
        if !["key", "name", "unique", "partialFilterExpression", "v"].contains(&option.as_str()) {
            return Err(Failure::not_simulated(&format!("the option {option} of an index")));
        }
    }
    let unique = spec.get("unique").is_some_and(Val::is_true);
    let partial = match spec.get("partialFilterExpression") {
        Some(Val::Doc(filter)) => Some(Filter::parse(filter)?),
        _ => None,
    };
    let mut shown = Document::default().with("v", Val::Int32(2));
    shown.set("key", Val::Doc(keys.clone()));
    shown.set("name", Val::str(name));
    for option in ["unique", "partialFilterExpression"] {
        if let Some(value) = spec.get(option) {
            shown.set(option, value.clone());
        }
    }
    Ok(Index::new(String::from(name), fields, unique, partial, shown))
}

/// Whether the index is there already.
fn find_same(collection: &Collection, new: &Index) -> Result<bool, Failure> {
    let alike = |it: &Index| {
        it.fields == new.fields && it.partial == new.partial && it.unique == new.unique
    };
    if let Some(old) = collection.index(&new.name) {
        if alike(old) {
            return Ok(true);
        }
        let text = format!(
            "An existing index has the same name as the requested index. When index names are not \
             specified, they are auto generated and can cause conflicts. Please refer to our \
             documentation. Requested index: {}, existing index: {}",
            new.name, old.name
        );
        return Err(Failure::new(INDEX_KEY_SPECS_CONFLICT, text));
    }
    if new.fields.len() == 1 && new.fields[0].0.text() == "_id" {
        return Ok(true);
    }
    match collection.indexes.iter().find(|it| alike(it)) {
        Some(old) => {
            let text = format!("Index already exists with a different name: {}", old.name);
            Err(Failure::new(INDEX_OPTIONS_CONFLICT, text))
        }
        None => Ok(false),
    }
}

pub(super) fn drop_indexes(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["index"])?;
    let namespace = request.namespace()?;
    let Some(collection) = cx.server.store.collections.get_mut(&namespace) else {
        return Err(Failure::new(NAMESPACE_NOT_FOUND, format!("ns not found {namespace}")));
    };
    let before = collection.indexes.len();
    match request.get("index").and_then(Val::as_text) {
        Some("*") => collection.indexes.truncate(1),
        Some("_id_") => return Err(Failure::new(72, "cannot drop _id index")),
        Some(name) => collection.indexes.retain(|it| it.name != name),
        None => return Err(Failure::not_simulated("dropIndexes by keys")),
    }
    if collection.indexes.len() == before
        && request.get("index").and_then(Val::as_text) != Some("*")
    {
        let name = request.get("index").and_then(Val::as_text).unwrap_or_default();
        return Err(Failure::new(INDEX_NOT_FOUND, format!("index not found with name [{name}]")));
    }
    cx.log.other = true;
    Ok(reply(Document::default().with("nIndexesWas", Val::Int32(before as i32))))
}

pub(super) fn list_indexes(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["cursor"])?;
    let namespace = request.namespace()?;
    let Some(collection) = cx.server.store.get(&namespace) else {
        return Err(Failure::new(NAMESPACE_NOT_FOUND, format!("ns does not exist: {namespace}")));
    };
    let specs: Vec<Val> = collection.indexes.iter().map(|it| Val::Doc(it.spec.clone())).collect();
    Ok(whole(&namespace, specs))
}

fn whole(namespace: &str, docs: Vec<Val>) -> Document {
    let cursor = Document::default()
        .with("id", Val::Int64(0))
        .with("ns", Val::str(namespace))
        .with("firstBatch", Val::Array(docs));
    reply(Document::default().with("cursor", Val::Doc(cursor)))
}

pub(super) fn list_collections(cx: &Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["cursor", "filter", "nameOnly", "authorizedCollections"])?;
    let filter = Filter::parse(&request.doc("filter")?)?;
    let docs = of_db(cx, &request.db).map(|(namespace, _)| {
        let name = namespace.split_once('.').map_or("", |(_, name)| name);
        Document::default().with("name", Val::str(name)).with("type", Val::str("collection"))
    });
    let docs = docs.filter(|doc| filter.matches(doc)).map(Val::Doc).collect();
    Ok(whole(&format!("{}.$cmd.listCollections", request.db), docs))
}

pub(super) fn drop(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&[])?;
    let namespace = request.namespace()?;
    let Some(gone) = remove(cx, &namespace) else {
        return Err(Failure::new(NAMESPACE_NOT_FOUND, "ns not found"));
    };
    let count = Val::Int32(gone.indexes.len() as i32);
    Ok(reply(Document::default().with("nIndexesWas", count).with("ns", Val::str(&namespace))))
}

fn remove(cx: &mut Cx<'_>, namespace: &str) -> Option<Collection> {
    let gone = cx.server.store.collections.remove(namespace)?;
    cx.log.other = true;
    let event = Event::Drop;
    let record = RecordId(0);
    cx.log.writes.push(Write { namespace: namespace.into(), record, old: None, event });
    Some(gone)
}

pub(super) fn drop_database(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    let all: Vec<String> = of_db(cx, &request.db).map(|(name, _)| name.clone()).collect();
    let mut out = Document::default();
    if !all.is_empty() {
        out.set("dropped", Val::str(&request.db));
    }
    for namespace in all {
        remove(cx, &namespace);
    }
    Ok(reply(out))
}
