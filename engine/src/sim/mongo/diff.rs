//! What has changed between two versions of a document, as an update by a pipeline is logged.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::update::Description;
use super::value::{Document, Val};

/// The difference, by dotted paths.
pub(super) fn between(old: &Document, new: &Document) -> Description {
    let mut description = Description::default();
    docs(old, new, "", &mut description);
    description
}

fn at(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { String::from(name) } else { format!("{prefix}.{name}") }
}

/// Fields that stand in the same order are compared; what is elsewhere is new.
fn docs(old: &Document, new: &Document, prefix: &str, out: &mut Description) {
    let mut deleted: Vec<&String> = Vec::new();
    let (mut before, mut after) = (old.0.iter().peekable(), new.0.iter().peekable());
    let mut inserted = Vec::new();
    while let (Some((name, was)), Some((other, is))) = (before.peek(), after.peek()) {
        if name != other {
            deleted.push(name);
            before.next();
            continue;
        }
        if was != is {
            values(was, is, &at(prefix, name), out);
        }
        before.next();
        after.next();
    }
    deleted.extend(before.map(|(name, _)| name));
    for (name, value) in after {
        deleted.retain(|it| *it != name);
        inserted.push((at(prefix, name), value.clone()));
    }
    out.updated.extend(inserted);
    out.removed.extend(deleted.into_iter().map(|name| at(prefix, name)));
}

fn values(was: &Val, is: &Val, path: &str, out: &mut Description) {
    let mut inner = Description::default();
    match (was, is) {
        (Val::Doc(was), Val::Doc(is)) => docs(was, is, path, &mut inner),
        (Val::Array(was), Val::Array(is)) => arrays(was, is, path, &mut inner),
        _ => {
            out.updated.push((String::from(path), is.clone()));
            return;
        }
    }
    // A difference that is longer than the value is not worth its while.
    if inner.weight(path) >= is.size() {
        out.updated.push((String::from(path), is.clone()));
    } else {
        out.updated.extend(inner.updated);
        out.removed.extend(inner.removed);
        out.truncated.extend(inner.truncated);
    }
}

fn arrays(was: &[Val], is: &[Val], path: &str, out: &mut Description) {
    for (n, value) in is.iter().enumerate() {
        let place = format!("{path}.{n}");
        match was.get(n) {
            Some(old) if old == value => {}
            Some(old) => values(old, value, &place, out),
            None => out.updated.push((place, value.clone())),
        }
    }
    if is.len() < was.len() {
        out.truncated.push((String::from(path), is.len()));
    }
}

impl Description {
    /// About the bytes of the logged form below a path.
    pub(super) fn weight(&self, path: &str) -> usize {
        let skipped = if path.is_empty() { 0 } else { path.len() + 1 };
        let name = |it: &str| it.len().saturating_sub(skipped) + 2;
        let updated = self.updated.iter().map(|(at, value)| name(at) + value.size());
        let removed = self.removed.iter().map(|at| name(at) + 1);
        let sections = [self.updated.is_empty(), self.removed.is_empty()];
        let sections = sections.iter().filter(|empty| !**empty).count() * 8;
        5 + sections + updated.sum::<usize>() + removed.sum::<usize>() + 11 * self.truncated.len()
    }
}
