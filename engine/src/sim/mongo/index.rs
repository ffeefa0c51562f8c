//! Indexes: the keys a document has in one, and uniqueness.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::failure::{CANNOT_INDEX_PARALLEL_ARRAYS, DUPLICATE_KEY, Failure};
use super::filter::Filter;
use super::value::{Document, Key, Path, Val};

/// A document's place in its collection, given in the order of insertion and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId(pub(super) u64);

/// An index and its entries.
#[derive(Clone, Debug)]
pub(super) struct Index {
    pub(super) name: String,
    /// Paths, and whether they go down.
    pub(super) fields: Vec<(Path, bool)>,
    pub(super) unique: bool,
    pub(super) partial: Option<Filter>,
    /// As it was created, for `listIndexes` and to compare with.
    pub(super) spec: Document,
    pub(super) entries: BTreeSet<(Directed, RecordId)>,
    /// How many documents have several keys: while there are any, conditions on two fields may
    /// be met by two elements of an array.
    pub(super) multikey: usize,
    /// Entries by key alone, where that is unique.
    unique_keys: BTreeMap<Directed, RecordId>,
}

/// A key in an index whose fields may go down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directed(pub(super) Key, u32);

impl PartialOrd for Directed {
    fn partial_cmp(&self, other: &Directed) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Directed {
    fn cmp(&self, other: &Directed) -> core::cmp::Ordering {
        if self.1 == 0 {
            return self.0.cmp(&other.0);
        }
        for (n, (a, b)) in self.0.0.iter().zip(&other.0.0).enumerate() {
            let order = super::value::compare(a, b);
            if order.is_ne() {
                return if self.1 >> n & 1 == 1 { order.reverse() } else { order };
            }
        }
        self.0.0.len().cmp(&other.0.0.len())
    }
}

impl Index {
    pub(super) fn new(
        name: String,
        fields: Vec<(Path, bool)>,
        unique: bool,
        partial: Option<Filter>,
        spec: Document,
    ) -> Index {
        let (entries, unique_keys) = (BTreeSet::new(), BTreeMap::new());
        Index { name, fields, unique, partial, spec, entries, multikey: 0, unique_keys }
    }

    /// The index that every collection has.
    pub(super) fn of_ids() -> Index {
        let key = Document::default().with("_id", Val::Int32(1));
        let spec = Document::default()
            .with("v", Val::Int32(2))
            .with("key", Val::Doc(key))
            .with("name", Val::str("_id_"));
        let fields = Vec::from([(Path::of("_id"), false)]);
        Index::new(String::from("_id_"), fields, true, None, spec)
    }

    pub(super) fn directed(&self, key: Vec<Val>) -> Directed {
        let down = self.fields.iter().enumerate().filter(|(_, (_, down))| *down);
        Directed(Key(key), down.fold(0, |bits, (n, _)| bits | 1 << n))
    }

    /// The keys of a document: none when the index does not hold it, several when an array is on
    /// the way.
    pub(super) fn keys(&self, doc: &Document) -> Result<Vec<Directed>, Failure> {
        if self.partial.as_ref().is_some_and(|filter| !filter.matches(doc)) {
            return Ok(Vec::new());
        }
        let paths: Vec<&[String]> = self.fields.iter().map(|(path, _)| &path.0[..]).collect();
        let root = Val::Doc(doc.clone_shallow(&paths));
        let places: Vec<Place<'_>> =
            paths.iter().map(|path| Place::Way(Some(&root), path)).collect();
        let mut keys = BTreeSet::new();
        self.expand(places, &mut keys)?;
        Ok(keys.into_iter().collect())
    }

    fn expand(&self, places: Vec<Place<'_>>, keys: &mut BTreeSet<Directed>) -> Result<(), Failure> {
        let places: Vec<Place<'_>> = places.into_iter().map(Place::advance).collect();
        // The array that the paths have come to, if any: they must all have come to the same one.
        let mut array: Option<&Vec<Val>> = None;
        for place in &places {
            let Some(found) = place.array() else { continue };
            if array.is_some_and(|it| !core::ptr::eq(it, found)) {
                let message = "cannot index parallel arrays";
                return Err(Failure::new(CANNOT_INDEX_PARALLEL_ARRAYS, message));
            }
            array = Some(found);
        }
        let Some(items) = array else {
            keys.insert(self.directed(places.into_iter().map(Place::value).collect()));
            return Ok(());
        };
        if items.is_empty() {
            let empty = |place: Place<'_>| match place {
                Place::Way(Some(Val::Array(_)), []) => Val::Undefined,
                place => place.value(),
            };
            keys.insert(self.directed(places.into_iter().map(empty).collect()));
            return Ok(());
        }
        for (n, item) in items.iter().enumerate() {
            let inside = |place: &Place<'_>| place.array().is_some();
            let each = places.iter().map(|place| match place {
                place if !inside(place) => place.clone(),
                Place::Way(_, []) => Place::End(item.clone()),
                Place::Way(_, rest) => match rest[0].parse::<usize>() {
                    Ok(index) if !matches!(item, Val::Doc(_)) => match index == n {
                        true => Place::Way(Some(item), &rest[1..]),
                        false => Place::End(Val::Null),
                    },
                    _ => Place::Way(Some(item), rest),
                },
                Place::End(value) => Place::End(value.clone()),
            });
            self.expand(each.collect(), keys)?;
        }
        Ok(())
    }

    /// Who has one of these keys, other than the document itself.
    pub(super) fn taken(&self, keys: &[Directed], by: RecordId) -> Option<(RecordId, Key)> {
        if !self.unique {
            return None;
        }
        keys.iter().find_map(|key| match self.unique_keys.get(key) {
            Some(owner) if *owner != by => Some((*owner, key.0.clone())),
            _ => None,
        })
    }

    pub(super) fn add(&mut self, keys: &[Directed], record: RecordId) {
        for key in keys {
            self.entries.insert((key.clone(), record));
            if self.unique {
                self.unique_keys.insert(key.clone(), record);
            }
        }
        self.multikey += usize::from(keys.len() > 1);
    }

    pub(super) fn drop(&mut self, keys: &[Directed], record: RecordId) {
        for key in keys {
            self.entries.remove(&(key.clone(), record));
            if self.unique {
                self.unique_keys.remove(key);
            }
        }
        self.multikey -= usize::from(keys.len() > 1);
    }

    /// The refusal of a second document with the same key.
    pub(super) fn duplicate(&self, namespace: &str, key: &Key) -> Failure {
        let name = &self.name;
        let mut pattern = Document::default();
        let mut value = Document::default();
        let mut shown = Vec::new();
        for ((path, down), part) in self.fields.iter().zip(&key.0) {
            pattern.set(&path.text(), Val::Int32(if *down { -1 } else { 1 }));
            value.set(&path.text(), part.clone());
            shown.push(format!("{}: {}", path.text(), show(part)));
        }
        let shown = shown.join(", ");
        let message = format!(
            "E11000 duplicate key error collection: {namespace} index: {name} dup key: {{ {shown} }}"
        );
        let mut failure = Failure::new(DUPLICATE_KEY, message);
        failure.extra.set("keyPattern", Val::Doc(pattern));
        failure.extra.set("keyValue", Val::Doc(value));
        failure
    }
}

/// A value as the server writes it into messages; the usual types only.
fn show(value: &Val) -> String {
    match value {
        Val::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Val::Int32(it) => format!("{it}"),
        Val::Int64(it) => format!("{it}"),
        Val::Null => String::from("null"),
        Val::ObjectId(id) => {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("ObjectId('{hex}')")
        }
        Val::Binary(subtype, data) => {
            let hex: String = data.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("BinData({subtype}, {hex})")
        }
        other => format!("{other:?}"),
    }
}

/// Where one path of an index has come to.
#[derive(Clone)]
enum Place<'a> {
    /// A value (nothing: there is none), and the rest of the path.
    Way(Option<&'a Val>, &'a [String]),
    /// The key's part is known.
    End(Val),
}

impl<'a> Place<'a> {
    /// Goes on through documents, up to an array or the end.
    fn advance(self) -> Place<'a> {
        let Place::Way(mut value, mut rest) = self else { return self };
        while let (Some(Val::Doc(doc)), [first, more @ ..]) = (value, rest) {
            (value, rest) = (doc.get(first), more);
        }
        Place::Way(value, rest)
    }

    fn array(&self) -> Option<&'a Vec<Val>> {
        match self {
            Place::Way(Some(Val::Array(items)), _) => Some(items),
            _ => None,
        }
    }

    fn value(self) -> Val {
        match self {
            Place::End(value) => value,
            Place::Way(Some(value), []) => value.clone(),
            Place::Way(..) => Val::Null,
        }
    }
}

impl Document {
    /// A copy of what these paths begin with, so that no contents are copied along.
    fn clone_shallow(&self, paths: &[&[String]]) -> Document {
        let wanted = |name: &String| paths.iter().any(|path| path.first() == Some(name));
        Document(self.0.iter().filter(|(name, _)| wanted(name)).cloned().collect())
    }
}
