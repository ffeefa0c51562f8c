//! Commands that write: `insert`, `update`, `delete`, `findAndModify`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::cx::{Cx, ok};
use super::failure::{
    BAD_VALUE, BSON_OBJECT_TOO_LARGE, FAILED_TO_PARSE, Failure, INVALID_OPTIONS, Stop, TRANSIENT,
};
use super::filter::Filter;
use super::index::RecordId;
use super::oplog::Event;
use super::pipeline::sort;
use super::project::Projection;
use super::request::Request;
use super::update::{Update, seed};
use super::value::{Document, Val};

/// The largest document a client may insert, in bytes.
const MAX_INSERT: usize = 16 << 20;
/// Statements a command may hold.
const MAX_STATEMENTS: usize = 100_000;

/// Refuses commands that cannot be numbered.
pub(super) fn check_retryable(request: &Request) -> Result<(), Failure> {
    let name = request.name.as_str();
    if ["insert", "update", "delete", "findAndModify"].contains(&name) {
        return Ok(());
    }
    let text = format!(
        "txnNumber may only be provided for multi-document transactions and retryable write \
         commands. autocommit:false was not provided, and {name} is not a retryable write command."
    );
    Err(Failure::new(50_768, text))
}

/// Refuses a numbered statement that changes many documents.
fn check_numbered(cx: &Cx<'_>, many: bool) -> Result<(), Failure> {
    if many && cx.numbered {
        let text = "Cannot use (or request) retryable writes with multi=true";
        return Err(Failure::new(INVALID_OPTIONS, text));
    }
    Ok(())
}

/// Works through statements: stops at the first that fails, if they are ordered.
fn each_statement(
    cx: &mut Cx<'_>,
    request: &Request,
    statements: Vec<Document>,
    mut one: impl FnMut(&mut Cx<'_>, usize, &Document) -> Result<(), Stop>,
) -> Result<Vec<Val>, Stop> {
    if statements.is_empty() || statements.len() > MAX_STATEMENTS {
        let text = format!(
            "Write batch sizes must be between 1 and 100000. Got {} operations.",
            statements.len()
        );
        return Err(Failure::new(16, text).into());
    }
    let ordered = request.flag("ordered", true);
    let mut errors = Vec::new();
    for (index, statement) in statements.iter().enumerate() {
        match one(cx, index, statement) {
            Ok(()) => {}
            Err(Stop::Refused(failure)) if !failure.labels.contains(&TRANSIENT) => {
                errors.push(failure.write_error(index));
                // A transaction is over with the first error.
                if ordered || cx.missed.is_some() {
                    break;
                }
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(errors)
}

fn answer(n: usize, more: Document, errors: Vec<Val>) -> Document {
    let mut reply = Document::default().with("n", Val::Int32(n as i32));
    reply.0.extend(more.0);
    if !errors.is_empty() {
        reply.set("writeErrors", Val::Array(errors));
    }
    reply.0.extend(ok().0);
    reply
}

pub(super) fn insert(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Stop> {
    request.only(&["documents", "ordered", "bypassDocumentValidation"])?;
    let namespace: Arc<str> = request.namespace()?.into();
    let documents = request.documents("documents")?;
    let mut n = 0;
    let errors = each_statement(cx, request, documents, |cx, _, doc| {
        let size = doc.size();
        if size > MAX_INSERT {
            let text = format!(
                "object to insert too large. size in bytes: {size}, max size: {MAX_INSERT}"
            );
            return Err(Failure::new(BAD_VALUE, text).into());
        }
        let doc = with_id(cx, doc.clone())?;
        add(cx, &namespace, doc)?;
        n += 1;
        Ok(())
    })?;
    Ok(answer(n, Document::default(), errors))
}

fn add(cx: &mut Cx<'_>, namespace: &Arc<str>, doc: Document) -> Result<(), Stop> {
    let doc = Arc::new(doc);
    let record = cx.new_record();
    cx.put(namespace, record, Some(doc.clone()), Event::Insert(doc))
}

/// `_id` is there and the first field.
fn with_id(cx: &mut Cx<'_>, mut doc: Document) -> Result<Document, Failure> {
    let id = match doc.remove("_id") {
        Some(Val::Array(_)) => {
            let text = "The '_id' value cannot be of type array";
            return Err(Failure::new(super::failure::BAD_VALUE, text));
        }
        Some(id) => id,
        None => cx.new_id(),
    };
    doc.0.insert(0, (String::from("_id"), id));
    Ok(doc)
}

/// What one statement of an update has done.
#[derive(Debug, Default)]
struct Updated {
    matched: usize,
    modified: usize,
    /// The `_id` of what was made.
    made: Option<Val>,
    /// The document before and after.
    images: (Option<Arc<Document>>, Option<Arc<Document>>),
}

/// An update of the documents that match.
struct Updating<'a> {
    namespace: &'a Arc<str>,
    filter: Filter,
    update: Update,
    multi: bool,
    upsert: bool,
    hint: Option<&'a Val>,
}

impl Updating<'_> {
    fn run(&self, cx: &mut Cx<'_>, order: &Document) -> Result<Updated, Stop> {
        let limit = if self.multi || !order.0.is_empty() { usize::MAX } else { 1 };
        let mut records = self.records(cx, limit)?;
        if !order.0.is_empty() {
            records = first_in_order(cx, self.namespace, &records, order)?;
        }
        let mut done = Updated::default();
        for record in records {
            let Some(old) = document(cx, self.namespace, record) else { continue };
            let mut at = None;
            self.filter.find(&old, &mut at);
            let (new, description) = self.update.apply(&old, at, false)?;
            done.matched += 1;
            let new = Arc::new(new);
            done.images = (Some(old.clone()), Some(new.clone()));
            if *new == *old {
                continue;
            }
            let event = match self.update.is_logged_whole(&description, &new) {
                true => Event::Replace(new.clone()),
                false => Event::Update(new.id(), description),
            };
            cx.put(self.namespace, record, Some(new), event).map_err(too_large)?;
            done.modified += 1;
        }
        if done.matched == 0 && self.upsert {
            let made = self.make(cx)?;
            done.made = Some(made.id());
            done.images = (None, Some(Arc::new(made.clone())));
            add(cx, self.namespace, made)?;
        }
        Ok(done)
    }

    fn records(&self, cx: &Cx<'_>, limit: usize) -> Result<Vec<RecordId>, Failure> {
        let Some(collection) = cx.server.store.get(self.namespace) else { return Ok(Vec::new()) };
        let hint = match self.hint {
            Some(hint) => collection.hint(hint)?,
            None => None,
        };
        Ok(collection.find(&self.filter, hint, limit))
    }

    /// The document of an upsert.
    fn make(&self, cx: &mut Cx<'_>) -> Result<Document, Stop> {
        let seed = seed(&self.filter)?;
        let (made, _) = match &self.update {
            Update::Replace(_) => {
                let id = seed.get("_id").map(|id| (String::from("_id"), id.clone()));
                self.update.apply(&Document(id.into_iter().collect()), None, true)?
            }
            update => update.apply(&seed, None, true)?,
        };
        Ok(with_id(cx, made)?)
    }
}

fn too_large(stop: Stop) -> Stop {
    match stop {
        Stop::Refused(failure) if failure.code == BSON_OBJECT_TOO_LARGE => {
            let text = "Resulting document after update is larger than 16777216";
            Failure::new(17_419, text).into()
        }
        stop => stop,
    }
}

fn document(cx: &Cx<'_>, namespace: &str, record: RecordId) -> Option<Arc<Document>> {
    cx.server.store.get(namespace)?.docs.get(&record).cloned()
}

fn first_in_order(
    cx: &Cx<'_>,
    namespace: &str,
    records: &[RecordId],
    order: &Document,
) -> Result<Vec<RecordId>, Failure> {
    let mut docs: Vec<Document> = Vec::new();
    for record in records {
        docs.extend(document(cx, namespace, *record).map(|it| (*it).clone()));
    }
    sort(&mut docs, order)?;
    let first = docs.first().map(Document::id);
    let is_first =
        |record: &&RecordId| document(cx, namespace, **record).map(|it| it.id()) == first;
    Ok(records.iter().find(is_first).copied().into_iter().collect())
}

/// Refuses fields of a statement that are not known here.
fn only(statement: &Document, command: &str, known: &[&str]) -> Result<(), Failure> {
    match statement.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(Failure::not_simulated(&format!("the field {name} of a statement of {command}")))
        }
        None => Ok(()),
    }
}

fn query(statement: &Document) -> Result<Filter, Failure> {
    match statement.get("q") {
        Some(Val::Doc(query)) => Filter::parse(query),
        _ => Err(Failure::new(40_414, "BSON field 'q' is missing but a required field")),
    }
}

pub(super) fn update(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Stop> {
    request.only(&["updates", "ordered", "bypassDocumentValidation"])?;
    let namespace: Arc<str> = request.namespace()?.into();
    let statements = request.documents("updates")?;
    let (mut n, mut modified) = (0, 0);
    let mut upserted = Vec::new();
    let errors = each_statement(cx, request, statements, |cx, index, statement| {
        only(statement, "update", &["q", "u", "multi", "upsert", "hint"])?;
        let flag = |name: &str| statement.get(name).is_some_and(Val::is_true);
        check_numbered(cx, flag("multi"))?;
        let missing = || Failure::new(40_414, "BSON field 'u' is missing but a required field");
        // The server reads the update before the filter.
        let update = Update::parse(statement.get("u").ok_or_else(missing)?)?;
        if flag("multi") && update.is_replacement() {
            let text = "multi update is not supported for replacement-style update";
            return Err(Failure::new(FAILED_TO_PARSE, text).into());
        }
        let updating = Updating {
            namespace: &namespace,
            filter: query(statement)?,
            update,
            multi: flag("multi"),
            upsert: flag("upsert"),
            hint: statement.get("hint"),
        };
        let done = updating.run(cx, &Document::default())?;
        n += done.matched + usize::from(done.made.is_some());
        modified += done.modified;
        if let Some(id) = done.made {
            let made = Document::default().with("index", Val::Int32(index as i32)).with("_id", id);
            upserted.push(Val::Doc(made));
        }
        Ok(())
    })?;
    let mut more = Document::default();
    if !upserted.is_empty() {
        more.set("upserted", Val::Array(upserted));
    }
    more.set("nModified", Val::Int32(modified as i32));
    Ok(answer(n, more, errors))
}

pub(super) fn delete(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Stop> {
    request.only(&["deletes", "ordered"])?;
    let namespace: Arc<str> = request.namespace()?.into();
    let statements = request.documents("deletes")?;
    let mut n = 0;
    let errors = each_statement(cx, request, statements, |cx, _, statement| {
        only(statement, "delete", &["q", "limit", "hint"])?;
        let limit = match statement.get("limit").and_then(Val::as_i64) {
            Some(0) => usize::MAX,
            Some(1) => 1,
            Some(_) => {
                let text =
                    "The limit field in delete objects must be 0 or 1. Got a different value";
                return Err(Failure::new(FAILED_TO_PARSE, text).into());
            }
            None => {
                let text = "BSON field 'delete.deletes.limit' is missing but a required field";
                return Err(Failure::new(40_414, text).into());
            }
        };
        check_numbered(cx, limit > 1)?;
        let filter = query(statement)?;
        let mut records = Vec::new();
        if let Some(collection) = cx.server.store.get(&namespace) {
            let hint = match statement.get("hint") {
                Some(hint) => collection.hint(hint)?,
                None => None,
            };
            records = collection.find(&filter, hint, limit);
        }
        for record in records {
            n += usize::from(remove(cx, &namespace, record)?.is_some());
        }
        Ok(())
    })?;
    Ok(answer(n, Document::default(), errors))
}

fn remove(
    cx: &mut Cx<'_>,
    namespace: &Arc<str>,
    record: RecordId,
) -> Result<Option<Arc<Document>>, Stop> {
    let Some(old) = document(cx, namespace, record) else { return Ok(None) };
    cx.put(namespace, record, None, Event::Delete(old.id()))?;
    Ok(Some(old))
}

pub(super) fn find_and_modify(cx: &mut Cx<'_>, request: &Request) -> Result<Document, Stop> {
    request.only(&["query", "sort", "remove", "update", "new", "fields", "upsert", "hint"])?;
    let namespace: Arc<str> = request.namespace()?.into();
    // The server reads the update before the filter.
    let update = request.get("update").map(Update::parse).transpose()?;
    let filter = Filter::parse(&request.doc("query")?)?;
    let order = request.doc("sort")?;
    let fields = request.doc("fields")?;
    let shown = |doc: Option<Arc<Document>>| match doc {
        None => Ok(Val::Null),
        Some(doc) if fields.0.is_empty() => Ok(Val::Doc((*doc).clone())),
        Some(doc) => Projection::parse(&fields)?.apply(&doc).map(Val::Doc),
    };
    let mut last = Document::default();
    let value = match (request.flag("remove", false), update) {
        (true, None) => {
            let mut records = match cx.server.store.get(&namespace) {
                Some(collection) => collection.find(&filter, None, usize::MAX),
                None => Vec::new(),
            };
            if !order.0.is_empty() {
                records = first_in_order(cx, &namespace, &records, &order)?;
            }
            let removed = match records.first() {
                Some(record) => remove(cx, &namespace, *record)?,
                None => None,
            };
            last.set("n", Val::Int32(i32::from(removed.is_some())));
            shown(removed)?
        }
        (false, Some(update)) => {
            let updating = Updating {
                namespace: &namespace,
                filter,
                update,
                multi: false,
                upsert: request.flag("upsert", false),
                hint: request.get("hint"),
            };
            let done = updating.run(cx, &order)?;
            let n = done.matched + usize::from(done.made.is_some());
            last.set("n", Val::Int32(n as i32));
            last.set("updatedExisting", Val::Bool(done.matched > 0));
            if let Some(id) = done.made {
                last.set("upserted", id);
            }
            let (before, after) = done.images;
            shown(if request.flag("new", false) { after } else { before })?
        }
        (true, Some(_)) => {
            let text = "Cannot specify both an update and remove=true";
            return Err(Failure::new(FAILED_TO_PARSE, text).into());
        }
        (false, None) => {
            let text = "Either an update or remove=true must be specified";
            return Err(Failure::new(FAILED_TO_PARSE, text).into());
        }
    };
    let mut reply =
        Document::default().with("lastErrorObject", Val::Doc(last)).with("value", value);
    reply.0.extend(ok().0);
    Ok(reply)
}
