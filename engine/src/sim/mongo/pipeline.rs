//! Stages of aggregation pipelines, and of updates by one.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::expr::{Expr, Scope};
use super::failure::Failure;
use super::filter::{Filter, walk};
use super::project::Projection;
use super::value::{Document, Key, Path, Val, compare};

/// Finds the documents of a collection in which a field has one of these values.
pub(super) type Find<'a> = &'a dyn Fn(&str, &Path, &[Val]) -> Vec<Document>;

/// A stage, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stage {
    Set(Fields),
    Unset(Vec<Path>),
    ReplaceWith(Expr),
    Project(Projection),
    Match(Filter),
    Limit(usize),
    Skip(usize),
    Sort(Document),
    Count(String),
    GraphLookup(Lookup),
}

/// Fields to set: nested documents reach into documents that are there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Fields(Vec<(String, Field)>);

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Value(Expr),
    Inner(Fields),
}

/// `$graphLookup`: follows links from document to document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lookup {
    pub(super) from: String,
    start: Expr,
    connect_from: Path,
    connect_to: Path,
    into: Path,
    max_depth: Option<i64>,
}

impl Stage {
    /// A stage of an update.
    pub(super) fn of_update(value: &Val) -> Result<Stage, Failure> {
        match Stage::parse(value)? {
            stage @ (Stage::Set(_)
            | Stage::Unset(_)
            | Stage::ReplaceWith(_)
            | Stage::Project(_)) => Ok(stage),
            other => {
                let message = format!("{other:?} is not allowed to be used within an update");
                Err(Failure::new(super::failure::INVALID_OPTIONS, message))
            }
        }
    }

    pub(super) fn parse(value: &Val) -> Result<Stage, Failure> {
        let Some(Document(stage)) = value.as_doc() else {
            let message = "Each element of the 'pipeline' array must be an object";
            return Err(Failure::new(super::failure::TYPE_MISMATCH, message));
        };
        let [(name, argument)] = &stage[..] else {
            let message = "A pipeline stage specification object must contain exactly one field.";
            return Err(Failure::new(40_323, message));
        };
        let document = || {
            let wrong = || Failure::new(40_272, format!("{name} specification must be an object"));
            argument.as_doc().ok_or_else(wrong)
        };
        let count = || match argument.as_i64() {
            Some(count) if count >= 0 => Ok(count as usize),
            _ => Err(Failure::new(5_107_201, format!("invalid argument to {name} stage"))),
        };
        Ok(match name.as_str() {
            "$set" | "$addFields" => Stage::Set(Fields::parse(document()?)?),
            "$unset" => {
                let path = |it: &Val| match it.as_text() {
                    Some(path) => Ok(Path::of(path)),
                    None => Err(Failure::new(31_002, "$unset specification must be a string")),
                };
                Stage::Unset(match argument {
                    Val::Array(items) => items.iter().map(path).collect::<Result<_, _>>()?,
                    one => Vec::from([path(one)?]),
                })
            }
            "$replaceWith" => Stage::ReplaceWith(Expr::parse(argument)?),
            "$replaceRoot" => {
                let root = document()?.get("newRoot");
                let root = root.ok_or_else(|| Failure::new(40_414, "newRoot is missing"))?;
                Stage::ReplaceWith(Expr::parse(root)?)
            }
            "$project" => Stage::Project(Projection::parse(document()?)?),
            "$match" => Stage::Match(Filter::parse(document()?)?),
            "$limit" => Stage::Limit(count()?),
            "$skip" => Stage::Skip(count()?),
            "$sort" => Stage::Sort(document()?.clone()),
            "$count" => Stage::Count(String::from(argument.as_text().unwrap_or("count"))),
            "$graphLookup" => Stage::GraphLookup(Lookup::parse(document()?)?),
            other => return Err(Failure::not_simulated(&format!("the stage {other}"))),
        })
    }

    /// What becomes of one document.
    pub(super) fn rewrite(&self, doc: &Document) -> Result<Document, Failure> {
        match self {
            Stage::Set(fields) => fields.apply(doc, &Scope::new(doc)),
            Stage::Unset(paths) => {
                let mut out = doc.clone();
                paths.iter().for_each(|path| unset(&mut out, &path.0));
                Ok(out)
            }
            Stage::ReplaceWith(expr) => match expr.eval(&Scope::new(doc))? {
                Some(Val::Doc(doc)) => Ok(doc),
                _ => {
                    let message = "'newRoot' expression must evaluate to an object";
                    Err(Failure::new(40_228, message))
                }
            },
            Stage::Project(projection) => projection.apply(doc),
            _ => Ok(doc.clone()),
        }
    }

    /// What becomes of all documents. `find` looks into another collection of the database.
    pub(super) fn run(
        &self,
        mut docs: Vec<Document>,
        find: Find<'_>,
    ) -> Result<Vec<Document>, Failure> {
        match self {
            Stage::Match(filter) => docs.retain(|doc| filter.matches(doc)),
            Stage::Limit(count) => docs.truncate(*count),
            Stage::Skip(count) => drop(docs.drain(..docs.len().min(*count))),
            Stage::Sort(keys) => sort(&mut docs, keys)?,
            Stage::Count(name) => {
                let count = Val::Int32(docs.len() as i32);
                let none = docs.is_empty();
                docs = Vec::from([Document::default().with(name, count)]);
                docs.truncate(usize::from(!none));
            }
            Stage::GraphLookup(lookup) => {
                for doc in &mut docs {
                    let found = lookup.follow(doc, find)?;
                    super::update::put(doc, &lookup.into.0, Val::Array(found));
                }
            }
            each => {
                let rewritten = docs.iter().map(|doc| each.rewrite(doc));
                docs = rewritten.collect::<Result<_, _>>()?;
            }
        }
        Ok(docs)
    }
}

impl Fields {
    fn parse(doc: &Document) -> Result<Fields, Failure> {
        let mut fields = Fields::default();
        for (name, value) in &doc.0 {
            let path = Path::of(name);
            fields.add(&path.0, value)?;
        }
        Ok(fields)
    }

    fn add(&mut self, path: &[String], value: &Val) -> Result<(), Failure> {
        let Some((first, rest)) = path.split_first() else { return Ok(()) };
        let nested = value.as_doc().filter(|doc| {
            rest.is_empty() && doc.0.first().is_some_and(|(name, _)| !name.starts_with('$'))
        });
        if rest.is_empty() && nested.is_none() {
            self.0.push((first.clone(), Field::Value(Expr::parse(value)?)));
            return Ok(());
        }
        let known = self.0.iter_mut().find(|(name, _)| name == first);
        let at = match known {
            Some((_, field)) => field,
            None => {
                self.0.push((first.clone(), Field::Inner(Fields::default())));
                match self.0.last_mut() {
                    Some((_, field)) => field,
                    None => return Ok(()),
                }
            }
        };
        let Field::Inner(inner) = at else {
            let message = format!("Invalid $addFields :: caused by :: path collision at {first}");
            return Err(Failure::new(31_250, message));
        };
        match nested {
            Some(doc) => {
                doc.0.iter().try_for_each(|(name, value)| inner.add(&Path::of(name).0, value))
            }
            None => inner.add(rest, value),
        }
    }

    fn apply(&self, doc: &Document, scope: &Scope<'_>) -> Result<Document, Failure> {
        let mut out = doc.clone();
        for (name, field) in &self.0 {
            let value = match field {
                Field::Value(expr) => expr.eval(scope)?,
                Field::Inner(fields) => Some(fields.apply_in(doc.get(name), scope)?),
            };
            match value {
                Some(value) => out.set(name, value),
                None => drop(out.remove(name)),
            }
        }
        Ok(out)
    }

    fn apply_in(&self, value: Option<&Val>, scope: &Scope<'_>) -> Result<Val, Failure> {
        Ok(match value {
            Some(Val::Doc(doc)) => Val::Doc(self.apply(doc, scope)?),
            Some(Val::Array(items)) => {
                let items = items.iter().map(|it| self.apply_in(Some(it), scope));
                Val::Array(items.collect::<Result<_, _>>()?)
            }
            _ => Val::Doc(self.apply(&Document::default(), scope)?),
        })
    }
}

fn unset(doc: &mut Document, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        doc.remove(first);
    } else if let Some(value) = doc.get_mut(first) {
        unset_in(value, rest);
    }
}

fn unset_in(value: &mut Val, path: &[String]) {
    match value {
        Val::Doc(doc) => unset(doc, path),
        Val::Array(items) => items.iter_mut().for_each(|it| unset_in(it, path)),
        _ => {}
    }
}

/// Sorts by fields, 1 up and -1 down. Of an array its first (or last) element counts.
pub(super) fn sort(docs: &mut [Document], keys: &Document) -> Result<(), Failure> {
    let mut by = Vec::new();
    for (name, direction) in &keys.0 {
        match direction.as_i64() {
            Some(direction @ (1 | -1)) => by.push((Path::of(name), direction == 1)),
            _ => {
                let message = "$sort key ordering must be 1 (for ascending) or -1 (for descending)";
                return Err(Failure::new(15_975, message));
            }
        }
    }
    let key = |doc: &Document, path: &Path, up: bool| {
        let mut best: Option<Val> = None;
        walk(doc, &path.0, true, &mut |found, index| {
            let found = found.cloned().unwrap_or(Val::Null);
            let whole = matches!(found, Val::Array(_)) && index.is_none();
            let better = |best: &Val| compare(&found, best).is_lt() == up;
            if !whole && best.as_ref().is_none_or(better) {
                best = Some(found);
            }
            false
        });
        best.unwrap_or(Val::Undefined)
    };
    docs.sort_by(|a, b| {
        let orders = by.iter().map(|(path, up)| {
            let order = compare(&key(a, path, *up), &key(b, path, *up));
            if *up { order } else { order.reverse() }
        });
        orders.fold(core::cmp::Ordering::Equal, core::cmp::Ordering::then)
    });
    Ok(())
}

impl Lookup {
    fn parse(doc: &Document) -> Result<Lookup, Failure> {
        let missing = |name: &str| {
            Failure::new(40_105, format!("$graphLookup requires '{name}' to be specified"))
        };
        let text = |name: &str| match doc.get(name).and_then(Val::as_text) {
            Some(text) => Ok(text),
            None => Err(missing(name)),
        };
        if doc.get("restrictSearchWithMatch").is_some() || doc.get("depthField").is_some() {
            return Err(Failure::not_simulated("these options of $graphLookup"));
        }
        Ok(Lookup {
            from: String::from(text("from")?),
            start: Expr::parse(doc.get("startWith").ok_or_else(|| missing("startWith"))?)?,
            connect_from: Path::of(text("connectFromField")?),
            connect_to: Path::of(text("connectToField")?),
            into: Path::of(text("as")?),
            max_depth: doc.get("maxDepth").and_then(Val::as_i64),
        })
    }

    /// Every document that is reached, each once; those of a nearer round before the others.
    fn follow(&self, doc: &Document, find: Find<'_>) -> Result<Vec<Val>, Failure> {
        let mut frontier: Vec<Val> = match self.start.eval(&Scope::new(doc))? {
            Some(Val::Array(items)) => items,
            Some(value) => Vec::from([value]),
            None => Vec::new(),
        };
        let mut reached = BTreeSet::new();
        let mut found = Vec::new();
        let mut depth = 0;
        while !frontier.is_empty() && self.max_depth.is_none_or(|max| depth <= max) {
            let mut next = Vec::new();
            for candidate in find(&self.from, &self.connect_to, &frontier) {
                if !reached.insert(Key(Vec::from([candidate.id()]))) {
                    continue;
                }
                let path = Expr::Path(String::from("ROOT"), self.connect_from.0.clone());
                match path.eval(&Scope::new(&candidate))? {
                    Some(Val::Array(items)) => next.extend(items),
                    Some(value) => next.push(value),
                    None => {}
                }
                found.push(Val::Doc(candidate));
            }
            frontier = next;
            depth += 1;
        }
        Ok(found)
    }
}
