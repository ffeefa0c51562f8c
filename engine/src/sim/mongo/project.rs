//! Projections: which fields of a document are shown.

use alloc::string::String;
use alloc::vec::Vec;

use super::expr::{Expr, Scope};
use super::failure::Failure;
use super::value::{Document, Path, Val};

/// A projection, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Projection {
    /// The named fields are all there is, and not all that is left out.
    include: bool,
    /// `_id` goes the other way than the rest.
    id: bool,
    paths: Vec<Path>,
    /// Fields that are computed: of an aggregation only.
    computed: Vec<(Path, Expr)>,
}

impl Projection {
    pub(super) fn parse(doc: &Document) -> Result<Projection, Failure> {
        let (mut include, mut id) = (None, None);
        let (mut paths, mut computed) = (Vec::new(), Vec::new());
        for (name, value) in &doc.0 {
            if name.contains('$') {
                return Err(Failure::not_simulated("a projection with $"));
            }
            let flag = match value {
                Val::Bool(_) | Val::Int32(_) | Val::Int64(_) | Val::Double(_) => value.is_true(),
                Val::Doc(_) | Val::Str(_) => {
                    computed.push((Path::of(name), Expr::parse(value)?));
                    include = Some(true);
                    continue;
                }
                _ => return Err(Failure::not_simulated("a projection by a value of this type")),
            };
            if name == "_id" {
                id = Some(flag);
                continue;
            }
            if include.is_some_and(|it| it != flag) {
                let kind = if flag { "inclusion" } else { "exclusion" };
                let message =
                    alloc::format!("Cannot do {kind} on field {name} in the other projection");
                return Err(Failure::new(if flag { 31_253 } else { 31_254 }, message));
            }
            include = Some(flag);
            paths.push(Path::of(name));
        }
        // A lone `_id` decides for all.
        let include = include.unwrap_or_else(|| id == Some(true));
        let id = id.unwrap_or(true);
        Ok(Projection { include, id, paths, computed })
    }

    pub(super) fn apply(&self, doc: &Document) -> Result<Document, Failure> {
        let paths: Vec<&[String]> = self.paths.iter().map(|it| &it.0[..]).collect();
        let mut out = if self.include { include(doc, &paths) } else { exclude(doc, &paths) };
        match (self.id, doc.get("_id")) {
            (false, _) => drop(out.remove("_id")),
            (true, Some(id)) if out.get("_id").is_none() => {
                out.0.insert(0, (String::from("_id"), id.clone()));
            }
            _ => {}
        }
        for (path, expr) in &self.computed {
            if let Some(value) = expr.eval(&Scope::new(doc))? {
                super::update::put(&mut out, &path.0, value);
            }
        }
        Ok(out)
    }
}

/// The paths below a field; `None` inside when the field itself is one of them.
fn below<'a>(paths: &[&'a [String]], name: &str) -> Option<Option<Vec<&'a [String]>>> {
    let inner: Vec<&[String]> =
        paths.iter().filter(|it| it[0] == name).map(|it| &it[1..]).collect();
    match inner.iter().any(|it| it.is_empty()) {
        _ if inner.is_empty() => None,
        true => Some(None),
        false => Some(Some(inner)),
    }
}

fn include(doc: &Document, paths: &[&[String]]) -> Document {
    let mut out = Document::default();
    for (name, value) in &doc.0 {
        match below(paths, name) {
            None => {}
            Some(None) => out.0.push((name.clone(), value.clone())),
            Some(Some(inner)) => {
                if let Some(value) = include_in(value, &inner) {
                    out.0.push((name.clone(), value));
                }
            }
        }
    }
    out
}

/// What has no fields of that name is not shown.
fn include_in(value: &Val, paths: &[&[String]]) -> Option<Val> {
    match value {
        Val::Doc(doc) => Some(Val::Doc(include(doc, paths))),
        Val::Array(items) => {
            Some(Val::Array(items.iter().filter_map(|it| include_in(it, paths)).collect()))
        }
        _ => None,
    }
}

fn exclude(doc: &Document, paths: &[&[String]]) -> Document {
    let mut out = Document::default();
    for (name, value) in &doc.0 {
        match below(paths, name) {
            None => out.0.push((name.clone(), value.clone())),
            Some(None) => {}
            Some(Some(inner)) => out.0.push((name.clone(), exclude_in(value, &inner))),
        }
    }
    out
}

fn exclude_in(value: &Val, paths: &[&[String]]) -> Val {
    match value {
        Val::Doc(doc) => Val::Doc(exclude(doc, paths)),
        Val::Array(items) => Val::Array(items.iter().map(|it| exclude_in(it, paths)).collect()),
        other => other.clone(),
    }
}
