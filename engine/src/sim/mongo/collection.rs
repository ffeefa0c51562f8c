//! A collection: documents, their indexes, and how a query finds its way through them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use super::failure::{BAD_VALUE, Failure};
use super::filter::{Condition, Filter};
use super::index::{Directed, Index, RecordId};
use super::value::{Document, Path, Val, compare};

/// Documents and indexes; the first index is that of `_id`.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    pub(super) docs: BTreeMap<RecordId, Arc<Document>>,
    pub(super) indexes: Vec<Index>,
    /// Bytes of all documents.
    pub(super) bytes: u64,
}

impl Default for Collection {
    fn default() -> Collection {
        let indexes = Vec::from([Index::of_ids()]);
        Collection { docs: BTreeMap::new(), indexes, bytes: 0 }
    }
}

/// A change of one document, checked and ready: keys that go and come, by index.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) record: RecordId,
    pub(super) new: Option<Arc<Document>>,
    /// For each index the keys before and after.
    pub(super) keys: Vec<(Vec<Directed>, Vec<Directed>)>,
}

impl Collection {
    /// What a change comes to in the indexes. `None` for a document that goes.
    pub(super) fn prepare(
        &self,
        record: RecordId,
        new: Option<Arc<Document>>,
    ) -> Result<Prepared, Failure> {
        let old = self.docs.get(&record);
        let mut keys = Vec::with_capacity(self.indexes.len());
        for index in &self.indexes {
            let of = |doc: Option<&Arc<Document>>| match doc {
                Some(doc) => index.keys(doc),
                None => Ok(Vec::new()),
            };
            keys.push((of(old)?, of(new.as_ref())?));
        }
        Ok(Prepared { record, new, keys })
    }

    /// The index in which another document has a key of this one.
    pub(super) fn taken(&self, change: &Prepared, namespace: &str) -> Option<Failure> {
        self.indexes.iter().zip(&change.keys).find_map(|(index, (_, new))| {
            let (_, key) = index.taken(new, change.record)?;
            Some(index.duplicate(namespace, &key))
        })
    }

    /// Makes the change. What was there before is handed back.
    pub(super) fn apply(&mut self, change: Prepared) -> Option<Arc<Document>> {
        for (index, (old, new)) in self.indexes.iter_mut().zip(&change.keys) {
            if old != new {
                index.drop(old, change.record);
                index.add(new, change.record);
            }
        }
        let old = match change.new {
            Some(new) => {
                self.bytes += new.size() as u64;
                self.docs.insert(change.record, new)
            }
            None => self.docs.remove(&change.record),
        };
        self.bytes -= old.as_ref().map_or(0, |old| old.size() as u64);
        old
    }

    /// Puts a document back as it was, without asking.
    pub(super) fn restore(&mut self, record: RecordId, doc: Option<Arc<Document>>) {
        // It was there before, so its keys can be had.
        if let Ok(change) = self.prepare(record, doc) {
            self.apply(change);
        }
    }

    /// The document with this `_id`.
    pub(super) fn by_id(&self, id: &Val) -> Option<&Arc<Document>> {
        let filter = Filter::Field(Path::of("_id"), Condition::Eq(id.clone()));
        self.docs.get(self.find(&filter, None, 1).first()?)
    }

    pub(super) fn index(&self, name: &str) -> Option<&Index> {
        self.indexes.iter().find(|index| index.name == name)
    }

    /// Documents that match, in the order of the plan, at most `limit` of them.
    pub(super) fn find(
        &self,
        filter: &Filter,
        hint: Option<&Index>,
        limit: usize,
    ) -> Vec<RecordId> {
        let matching =
            |record: &RecordId| self.docs.get(record).is_some_and(|doc| filter.matches(doc));
        let fields = filter.fields();
        let planned = hint.or_else(|| self.plan(&fields));
        match planned {
            None => self.docs.keys().copied().filter(matching).take(limit).collect(),
            Some(index) => {
                let mut seen = BTreeSet::new();
                let mut found = Vec::new();
                for record in scan(index, &fields) {
                    if found.len() >= limit {
                        break;
                    }
                    if seen.insert(record) && matching(&record) {
                        found.push(record);
                    }
                }
                found
            }
        }
    }

    /// The index that narrows most: the most fields that are equal to something, then a range.
    fn plan(&self, fields: &[(&Path, &Condition)]) -> Option<&Index> {
        let mut best: Option<(usize, &Index)> = None;
        for index in &self.indexes {
            if index.partial.as_ref().is_some_and(|it| !implied(it, fields)) {
                continue;
            }
            let mut score = 0;
            for bounds in bounds(index, fields) {
                match bounds {
                    Bounds::Equal(_) => score += 2,
                    Bounds::Some(_) => {
                        score += 1;
                        break;
                    }
                    Bounds::All => break,
                }
            }
            if score > best.as_ref().map_or(0, |(score, _)| *score) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    }

    pub(super) fn hint(&self, hint: &Val) -> Result<Option<&Index>, Failure> {
        let found = match hint {
            Val::Str(_) => self.index(hint.as_text().unwrap_or_default()),
            Val::Doc(keys) if keys.get("$natural").is_some() => return Ok(None),
            Val::Doc(keys) => self
                .indexes
                .iter()
                .find(|index| index.spec.get("key") == Some(&Val::Doc(keys.clone()))),
            _ => return Err(Failure::new(9, "Hint must be a string or an object")),
        };
        match found {
            Some(index) => Ok(Some(index)),
            None => {
                let message = "error processing query: planner returned error :: caused by :: hint \
                               provided does not correspond to an existing index";
                Err(Failure::new(BAD_VALUE, message))
            }
        }
    }
}

/// What is asked of one field of an index.
enum Bounds<'a> {
    /// It is equal to this.
    Equal(&'a Val),
    /// All of these hold.
    Some(Vec<&'a Condition>),
    /// Nothing.
    All,
}

/// Whether a partial index holds all that the conditions find.
fn implied(partial: &Filter, fields: &[(&Path, &Condition)]) -> bool {
    partial.fields().iter().all(|(path, condition)| {
        fields.iter().any(|(at, asked)| {
            at == path
                && match (condition, asked) {
                    (Condition::Exists, Condition::Eq(value)) => !matches!(value, Val::Null),
                    (Condition::Exists, Condition::Compare(_, equal, value)) => {
                        !(*equal && matches!(value, Val::Null))
                    }
                    (Condition::Exists, Condition::In(values)) => !values.contains(&Val::Null),
                    (a, b) => a == b,
                }
        })
    })
}

/// The conditions on each field of an index. As soon as documents have several keys, those on
/// different fields count together only inside one `$elemMatch`.
fn bounds<'a>(index: &Index, fields: &[(&'a Path, &'a Condition)]) -> Vec<Bounds<'a>> {
    let usable = |it: &Condition| match it {
        Condition::Eq(value) => !matches!(value, Val::Array(_) | Val::Null),
        Condition::Compare(..) => true,
        Condition::In(values) => !values.iter().any(|it| matches!(it, Val::Array(_) | Val::Null)),
        _ => false,
    };
    let direct = |path: &Path| {
        let here = fields.iter().filter(|(at, it)| *at == path && usable(it));
        here.map(|(_, it)| *it).collect::<Vec<&'a Condition>>()
    };
    // The `$elemMatch` whose conditions lie on the index's own paths.
    let element = fields.iter().find_map(|(at, it)| match it {
        Condition::ElemMatch(inner)
            if index.fields.iter().all(|(path, _)| path.0.starts_with(&at.0)) =>
        {
            Some((at.0.len(), inner.fields()))
        }
        _ => None,
    });
    let mut out = Vec::new();
    for (n, (path, _)) in index.fields.iter().enumerate() {
        let mut all = match &element {
            Some((depth, inner)) => {
                let rest = &path.0[*depth..];
                let here = inner.iter().filter(|(at, it)| at.0 == rest && usable(it));
                here.map(|(_, it)| *it).collect()
            }
            None => Vec::new(),
        };
        if all.is_empty() && (n == 0 || index.multikey == 0) {
            all = direct(path);
            if index.multikey > 0 {
                // Two conditions may be met by two elements.
                all.truncate(1);
            }
        }
        let equal = all.iter().find_map(|it| match it {
            Condition::Eq(value) => Some(value),
            _ => None,
        });
        out.push(match equal {
            Some(value) => Bounds::Equal(value),
            None if all.is_empty() => Bounds::All,
            None => Bounds::Some(all),
        });
    }
    out
}

/// The records in an index's order whose keys are within the bounds.
fn scan<'a>(
    index: &'a Index,
    fields: &[(&'a Path, &'a Condition)],
) -> impl Iterator<Item = RecordId> + 'a {
    let bounds = bounds(index, fields);
    let mut start = Vec::new();
    for (bound, (_, down)) in bounds.iter().zip(&index.fields) {
        match bound {
            Bounds::Equal(value) => start.push((*value).clone()),
            Bounds::Some(all) if !down => {
                let lower = all.iter().filter_map(|it| lowest(it));
                start.extend(lower.max_by(|a, b| compare(a, b)).cloned());
                break;
            }
            _ => break,
        }
    }
    // What the keys begin with for sure.
    let prefix: Vec<Val> = bounds
        .iter()
        .map_while(|it| match it {
            Bounds::Equal(value) => Some((*value).clone()),
            _ => None,
        })
        .collect();
    let from = (index.directed(start), RecordId(0));
    let range = index.entries.range((Bound::Included(from), Bound::Unbounded));
    range
        .take_while(move |(key, _)| prefix.iter().zip(&key.0.0).all(|(a, b)| compare(a, b).is_eq()))
        .filter(move |(key, _)| {
            bounds.iter().zip(&key.0.0).all(|(bound, part)| match bound {
                Bounds::Equal(value) => compare(value, part).is_eq(),
                Bounds::Some(all) => all.iter().all(|it| it.meets(Some(part), &mut None)),
                Bounds::All => true,
            })
        })
        .map(|(_, record)| *record)
}

/// The value before which nothing can meet a condition.
fn lowest(condition: &Condition) -> Option<&Val> {
    match condition {
        Condition::Compare(core::cmp::Ordering::Greater, _, value) => Some(value),
        Condition::In(values) => values.iter().min_by(|a, b| compare(a, b)),
        _ => None,
    }
}

/// All collections, by namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) collections: BTreeMap<String, Collection>,
}

impl Store {
    pub(super) fn get(&self, namespace: &str) -> Option<&Collection> {
        self.collections.get(namespace)
    }

    /// A collection is made by the first that puts something into it.
    pub(super) fn make(&mut self, namespace: &str) -> &mut Collection {
        if !self.collections.contains_key(namespace) {
            self.collections.insert(String::from(namespace), Collection::default());
        }
        self.collections.entry(String::from(namespace)).or_default()
    }

    /// Bytes of all documents.
    pub(super) fn bytes(&self) -> u64 {
        self.collections.values().map(|it| it.bytes).sum()
    }
}
