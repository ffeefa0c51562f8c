//! Commands that read: `find`, `getMore`, `aggregate`, `count`, `killCursors`.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;

use super::cursor::{Cursor, FIRST_BATCH, Source};
use super::cx::{Cx, ok};
use super::failure::{Failure, TYPE_MISMATCH};
use super::filter::{Condition, Filter};
use super::oplog::Stream;
use super::pipeline::{Stage, sort};
use super::project::Projection;
use super::request::Request;
use super::value::{Document, Path, Val};

pub(super) fn find(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&[
        "filter",
        "projection",
        "sort",
        "limit",
        "skip",
        "batchSize",
        "singleBatch",
        "hint",
    ])?;
    let namespace = request.namespace()?;
    let filter = Filter::parse(&request.doc("filter")?)?;
    let projection = Projection::parse(&request.doc("projection")?)?;
    let all =
        request.get("projection").is_none_or(|it| it.as_doc().is_some_and(|it| it.0.is_empty()));
    let order = request.doc("sort")?;
    let limit = request.count("limit")?.filter(|limit| *limit > 0);
    let skip = request.count("skip")?.unwrap_or(0);
    let batch = request.count("batchSize")?;
    let wanted = limit.map_or(usize::MAX, |limit| limit.saturating_add(skip));
    let mut docs: Vec<Document> = Vec::new();
    if let Some(collection) = cx.server.store.get(&namespace) {
        let hint = match request.get("hint") {
            Some(hint) => collection.hint(hint)?,
            None => None,
        };
        let wanted = if order.0.is_empty() { wanted } else { usize::MAX };
        let found = collection.find(&filter, hint, wanted);
        docs = found
            .iter()
            .filter_map(|it| collection.docs.get(it))
            .map(|it| (**it).clone())
            .collect();
    }
    sort(&mut docs, &order)?;
    let docs = docs.into_iter().skip(skip).take(limit.unwrap_or(usize::MAX));
    let shown = |doc: Document| if all { Ok(doc) } else { projection.apply(&doc) };
    let docs = docs.map(shown).collect::<Result<VecDeque<_>, _>>()?;
    let cursor = Cursor { namespace, source: Source::Found(docs) };
    let id = cx.open_cursor(cursor);
    // As many as fit was asked for only when nothing else was.
    let first = batch.unwrap_or(FIRST_BATCH);
    cx.batch(id, "firstBatch", first, request.flag("singleBatch", false))
}

pub(super) fn get_more(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["collection", "batchSize"])?;
    let id = request.get("getMore").and_then(Val::as_i64).unwrap_or(0);
    let collection = request.get("collection").and_then(Val::as_text).unwrap_or_default();
    let namespace = format!("{}.{collection}", request.db);
    if let Some(cursor) = cx.server.cursors.get(&id)
        && cursor.namespace != namespace
    {
        let text = format!(
            "Requested getMore on namespace '{namespace}', but cursor belongs to a different \
             namespace {}",
            cursor.namespace
        );
        return Err(Failure::new(13, text));
    }
    let limit = request.count("batchSize")?.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    cx.batch(id, "nextBatch", limit, false)
}

pub(super) fn kill_cursors(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["cursors"])?;
    let Some(Val::Array(ids)) = request.get("cursors") else {
        return Err(Failure::new(40_414, "BSON field 'killCursors.cursors' is missing"));
    };
    let (mut killed, mut unknown) = (Vec::new(), Vec::new());
    for id in ids {
        let gone = id.as_i64().and_then(|id| cx.server.cursors.remove(&id));
        if gone.is_some() { &mut killed } else { &mut unknown }.push(id.clone());
    }
    let none = || Val::Array(Vec::new());
    let mut reply = Document::default()
        .with("cursorsKilled", Val::Array(killed))
        .with("cursorsNotFound", Val::Array(unknown))
        .with("cursorsAlive", none())
        .with("cursorsUnknown", none());
    reply.0.extend(ok().0);
    Ok(reply)
}

pub(super) fn count(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["query"])?;
    let namespace = request.namespace()?;
    let filter = Filter::parse(&request.doc("query")?)?;
    let found = cx.server.store.get(&namespace);
    let n = found.map_or(0, |it| it.find(&filter, None, usize::MAX).len());
    let mut reply = Document::default().with("n", Val::Int32(n as i32));
    reply.0.extend(ok().0);
    Ok(reply)
}

pub(super) fn aggregate(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Failure> {
    request.only(&["pipeline", "cursor", "hint", "allowDiskUse"])?;
    let namespace = match request.fields.0.first() {
        Some((_, Val::Str(_))) => request.namespace()?,
        _ => {
            let message = "Invalid command format: the 'aggregate' field must specify a collection \
                           name or 1";
            return Err(match request.get("aggregate").and_then(Val::as_i64) {
                Some(1) => Failure::not_simulated("an aggregation over a database"),
                _ => Failure::new(super::failure::FAILED_TO_PARSE, message),
            });
        }
    };
    let Some(Val::Array(stages)) = request.get("pipeline") else {
        return Err(Failure::new(TYPE_MISMATCH, "'pipeline' option must be specified as an array"));
    };
    let options = match request.get("cursor") {
        Some(Val::Doc(options)) => options.clone(),
        _ => {
            let message = "The 'cursor' option is required, except for aggregate with the explain \
                           argument";
            return Err(Failure::new(super::failure::FAILED_TO_PARSE, message));
        }
    };
    let batch = options.get("batchSize").and_then(Val::as_i64);
    let batch = batch.map_or(FIRST_BATCH, |it| it.max(0) as usize);
    let changes = stages.first().and_then(Val::as_doc).and_then(|it| it.get("$changeStream"));
    if let Some(changes) = changes {
        let options = changes.as_doc().cloned().unwrap_or_default();
        if !cx.server.settings.replica_set {
            let message = "The $changeStream stage is only supported on replica sets";
            return Err(Failure::new(40_573, message));
        }
        let stages = stages[1..].iter().map(Stage::parse).collect::<Result<_, _>>()?;
        let stream = Stream::open(&namespace, &options, &cx.server.log)?;
        let source = Source::Changes(stream, stages);
        let id = cx.open_cursor(Cursor { namespace, source });
        return cx.batch(id, "firstBatch", batch, false);
    }
    let stages = stages.iter().map(Stage::parse).collect::<Result<Vec<_>, _>>()?;
    let docs = run(cx, &namespace, &stages, request)?;
    let id = cx.open_cursor(Cursor { namespace, source: Source::Found(docs.into()) });
    cx.batch(id, "firstBatch", batch, false)
}

fn run(
    cx: &Cx<'_>,
    namespace: &str,
    stages: &[Stage],
    request: &Request,
) -> Result<Vec<Document>, Failure> {
    let store = &cx.server.store;
    let look = |name: &str, path: &Path, values: &[Val]| {
        let Some(collection) = store.get(&format!("{}.{name}", request.db)) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for value in values {
            let filter = Filter::Field(path.clone(), Condition::Eq(value.clone()));
            found.extend(collection.find(&filter, None, usize::MAX));
        }
        found.sort_unstable();
        found.dedup();
        let docs = found.iter().filter_map(|it| collection.docs.get(it));
        docs.map(|it| (**it).clone()).collect::<Vec<Document>>()
    };
    // The first stage finds its documents by an index.
    let (first, rest) = match stages.split_first() {
        Some((Stage::Match(filter), rest)) => (filter.clone(), rest),
        _ => (Filter::And(Vec::new()), stages),
    };
    let mut docs = Vec::new();
    if let Some(collection) = store.get(namespace) {
        let hint = match request.get("hint") {
            Some(hint) => collection.hint(hint)?,
            None => None,
        };
        let found = collection.find(&first, hint, usize::MAX);
        let found = found.iter().filter_map(|it| collection.docs.get(it));
        docs = found.map(|it| (**it).clone()).collect();
    }
    for stage in rest {
        docs = stage.run(docs, &look)?;
    }
    Ok(docs)
}
