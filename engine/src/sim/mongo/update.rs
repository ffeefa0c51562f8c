//! Updates: what becomes of a document, and how a change stream describes it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::expr::add;
use super::failure::{
    BAD_VALUE, CONFLICTING_UPDATE_OPERATORS, FAILED_TO_PARSE, Failure, IMMUTABLE_FIELD,
    PATH_NOT_VIABLE, TYPE_MISMATCH,
};
use super::filter::{Condition, Filter};
use super::pipeline::Stage;
use super::value::{Document, Path, Val, compare};

/// An update, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Update {
    Replace(Document),
    Modify(Vec<(Path, Operator)>),
    Pipeline(Vec<Stage>),
}

/// What is done to one field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operator {
    Set(Val),
    /// Only of a document that is being made.
    SetOnInsert(Val),
    Unset,
    Inc(Val),
    /// Keeps whichever comes later (or earlier) in the order of values.
    Extreme(Ordering, Val),
    Push(Vec<Val>),
    AddToSet(Vec<Val>),
    Pull(Pull),
}

/// Which elements `$pull` takes away.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pull {
    Equal(Val),
    Matching(Filter),
    Meeting(Vec<Condition>),
}

/// How a change stream tells of an update (`updateDescription`).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Description {
    pub(super) updated: Vec<(String, Val)>,
    pub(super) removed: Vec<String>,
    /// Arrays that lost their ends, and their lengths since.
    pub(super) truncated: Vec<(String, usize)>,
}

/// Bytes of a log entry that holds a difference, beside it (`kSizeOfDeltaOplogEntryMetadata`).
const DELTA_METADATA: usize = 15;

impl Update {
    pub(super) fn parse(value: &Val) -> Result<Update, Failure> {
        match value {
            Val::Array(stages) => {
                Ok(Update::Pipeline(stages.iter().map(Stage::of_update).collect::<Result<_, _>>()?))
            }
            Val::Doc(doc) if doc.0.first().is_some_and(|(name, _)| name.starts_with('$')) => {
                let mut all: Vec<(Path, Operator)> = Vec::new();
                for (operator, fields) in &doc.0 {
                    let Val::Doc(fields) = fields else {
                        let found = fields.type_name();
                        return Err(Failure::new(
                            FAILED_TO_PARSE,
                            format!(
                                "Modifiers operate on fields but we found type {found} instead."
                            ),
                        ));
                    };
                    for (path, value) in &fields.0 {
                        let parsed = Path::of(path);
                        let operator = Operator::parse(operator, path, value)?;
                        check_conflicts(&parsed, &all)?;
                        all.push((parsed, operator));
                    }
                }
                Ok(Update::Modify(all))
            }
            Val::Doc(doc) => Ok(Update::Replace(doc.clone())),
            _ => Err(Failure::new(
                FAILED_TO_PARSE,
                "Update argument must be either an object or an array",
            )),
        }
    }

    pub(super) fn is_replacement(&self) -> bool {
        matches!(self, Update::Replace(_))
    }

    /// Whether it is logged as the whole new document: one that is given whole, and one made by a
    /// pipeline when the difference takes no less room.
    pub(super) fn is_logged_whole(&self, description: &Description, new: &Document) -> bool {
        match self {
            Update::Replace(_) => true,
            Update::Modify(_) => false,
            Update::Pipeline(_) => description.weight("") + DELTA_METADATA >= new.size(),
        }
    }

    /// The document after it. `at` is what `$` stands for.
    pub(super) fn apply(
        &self,
        old: &Document,
        at: Option<usize>,
        inserting: bool,
    ) -> Result<(Document, Description), Failure> {
        let (new, description) = match self {
            Update::Replace(with) => (replace(old, with), Description::default()),
            Update::Modify(operators) => modify(old, operators, at, inserting)?,
            Update::Pipeline(stages) => {
                let mut new = old.clone();
                for stage in stages {
                    new = stage.rewrite(&new)?;
                }
                if new.get("_id").is_none()
                    && let Some(id) = old.get("_id")
                {
                    new.0.insert(0, (String::from("_id"), id.clone()));
                }
                let description = super::diff::between(old, &new);
                (new, description)
            }
        };
        let kept = match (old.get("_id"), new.get("_id")) {
            (Some(old), Some(new)) => old == new,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if !kept {
            let message =
                "Performing an update on the path '_id' would modify the immutable field '_id'";
            return Err(Failure::new(IMMUTABLE_FIELD, message));
        }
        Ok((new, description))
    }
}

fn replace(old: &Document, with: &Document) -> Document {
    let mut new = with.clone();
    let given = new.remove("_id");
    if let Some(id) = given.or_else(|| old.get("_id").cloned()) {
        new.0.insert(0, (String::from("_id"), id));
    }
    new
}

impl Operator {
    fn parse(operator: &str, path: &str, value: &Val) -> Result<Operator, Failure> {
        let number = |value: &Val| {
            if value.is_number() {
                return Ok(value.clone());
            }
            let shown = value.type_name();
            let message =
                format!("Cannot increment with non-numeric argument: {{{path}: {shown}}}");
            Err(Failure::new(TYPE_MISMATCH, message))
        };
        Ok(match operator {
            "$set" => Operator::Set(value.clone()),
            "$setOnInsert" => Operator::SetOnInsert(value.clone()),
            "$unset" => Operator::Unset,
            "$inc" => Operator::Inc(number(value)?),
            "$max" => Operator::Extreme(Ordering::Greater, value.clone()),
            "$min" => Operator::Extreme(Ordering::Less, value.clone()),
            "$push" => Operator::Push(each(value)?),
            "$addToSet" => Operator::AddToSet(each(value)?),
            "$pull" => Operator::Pull(match value {
                Val::Doc(doc) if doc.0.first().is_some_and(|(it, _)| it.starts_with('$')) => {
                    let named = Document::default().with("x", value.clone());
                    let Filter::And(parts) = Filter::parse(&named)? else {
                        return Err(Failure::not_simulated("this $pull"));
                    };
                    let condition = |it| match it {
                        Filter::Field(_, condition) => Some(condition),
                        _ => None,
                    };
                    Pull::Meeting(parts.into_iter().filter_map(condition).collect())
                }
                Val::Doc(doc) => Pull::Matching(Filter::parse(doc)?),
                other => Pull::Equal(other.clone()),
            }),
            other => return Err(Failure::not_simulated(&format!("the update operator {other}"))),
        })
    }

    /// Whether a path that cannot be is simply left alone.
    fn is_lenient(&self) -> bool {
        matches!(self, Operator::Unset)
    }

    fn edit(&self, path: &Path, found: Option<&Val>) -> Result<Edit, Failure> {
        let array = |name: &str| {
            let found = found.map_or("missing", Val::type_name);
            Failure::new(
                BAD_VALUE,
                format!(
                    "The field '{}' must be an array but is of type {found} ({name})",
                    path.text()
                ),
            )
        };
        Ok(match (self, found) {
            (Operator::Set(value) | Operator::SetOnInsert(value), found) => match found {
                Some(old) if old == value => Edit::Keep,
                _ => Edit::Put(value.clone()),
            },
            (Operator::Unset, None) => Edit::Keep,
            (Operator::Unset, Some(_)) => Edit::Remove,
            (Operator::Inc(by), None) => Edit::Put(by.clone()),
            (Operator::Inc(by), Some(old)) if old.is_number() => {
                let sum = add(old, by, false);
                let whole = |it: &Val| matches!(it, Val::Int32(_) | Val::Int64(_));
                if whole(old) && whole(by) && !whole(&sum) {
                    let message = format!("Failed to apply $inc operations to '{}'", path.text());
                    return Err(Failure::new(BAD_VALUE, message));
                }
                if sum == *old { Edit::Keep } else { Edit::Put(sum) }
            }
            (Operator::Inc(_), Some(old)) => {
                let message = format!(
                    "Cannot apply $inc to a value of non-numeric type. The field '{}' is of type {}",
                    path.text(),
                    old.type_name()
                );
                return Err(Failure::new(TYPE_MISMATCH, message));
            }
            (Operator::Extreme(wanted, value), Some(old)) if compare(value, old) != *wanted => {
                Edit::Keep
            }
            (Operator::Extreme(_, value), _) => Edit::Put(value.clone()),
            (Operator::Push(values), None) => Edit::Put(Val::Array(values.clone())),
            (Operator::Push(values), Some(Val::Array(_))) => Edit::Append(values.clone()),
            (Operator::Push(_), Some(_)) => return Err(array("$push")),
            (Operator::AddToSet(values), found) => {
                let there: &[Val] = match found {
                    None => &[],
                    Some(Val::Array(items)) => items,
                    Some(_) => return Err(array("$addToSet")),
                };
                let mut new: Vec<Val> = Vec::new();
                for value in values {
                    let known = |it: &Val| compare(it, value).is_eq();
                    if !there.iter().any(known) && !new.iter().any(known) {
                        new.push(value.clone());
                    }
                }
                match (found, new.is_empty()) {
                    (None, _) => Edit::Put(Val::Array(new)),
                    (Some(_), true) => Edit::Keep,
                    (Some(_), false) => Edit::Append(new),
                }
            }
            (Operator::Pull(_), None) => Edit::Keep,
            (Operator::Pull(pull), Some(Val::Array(items))) => {
                let kept: Vec<Val> = items.iter().filter(|it| !pull.takes(it)).cloned().collect();
                if kept.len() == items.len() { Edit::Keep } else { Edit::Put(Val::Array(kept)) }
            }
            (Operator::Pull(_), Some(_)) => {
                return Err(Failure::new(BAD_VALUE, "Cannot apply $pull to a non-array value"));
            }
        })
    }
}

impl Pull {
    fn takes(&self, item: &Val) -> bool {
        match self {
            Pull::Equal(value) => compare(item, value).is_eq(),
            Pull::Matching(filter) => item.as_doc().is_some_and(|it| filter.matches(it)),
            Pull::Meeting(all) => all.iter().all(|it| it.meets(Some(item), &mut None)),
        }
    }
}

/// The values of `$push` and `$addToSet`.
fn each(value: &Val) -> Result<Vec<Val>, Failure> {
    let Val::Doc(doc) = value else { return Ok(Vec::from([value.clone()])) };
    match (doc.get("$each"), doc.0.len()) {
        (Some(Val::Array(items)), 1) => Ok(items.clone()),
        (Some(_), _) => Err(Failure::not_simulated("modifiers of $push beside $each")),
        (None, _) => Ok(Vec::from([value.clone()])),
    }
}

/// No path may lead to, or through, what another changes.
fn check_conflicts(path: &Path, before: &[(Path, Operator)]) -> Result<(), Failure> {
    let text = path.text();
    if path.0.iter().any(String::is_empty) {
        let message = format!("The update path '{text}' contains an empty field name");
        return Err(Failure::new(56, message));
    }
    for (other, _) in before {
        if path.0.iter().zip(&other.0).all(|(a, b)| a == b) {
            let shorter = if path.0.len() < other.0.len() { path } else { other };
            let shorter = shorter.text();
            let message =
                format!("Updating the path '{text}' would create a conflict at '{shorter}'");
            return Err(Failure::new(CONFLICTING_UPDATE_OPERATORS, message));
        }
    }
    Ok(())
}

fn modify(
    old: &Document,
    operators: &[(Path, Operator)],
    at: Option<usize>,
    inserting: bool,
) -> Result<(Document, Description), Failure> {
    let mut all: Vec<&(Path, Operator)> = operators.iter().collect();
    // The server works through fields in the order of their names.
    all.sort_by(|(a, _), (b, _)| compare_paths(a, b));
    let mut new = old.clone();
    let mut touched: Vec<(Path, bool)> = Vec::new();
    for (path, operator) in all {
        let path = resolve(path, at)?;
        if matches!(operator, Operator::SetOnInsert(_)) && !inserting {
            continue;
        }
        let mut editing = Editing { path: &path, operator, old };
        match editing.doc(&mut new, 0)? {
            Changed::Nothing => {}
            Changed::Set(depth) => touched.push((Path(path.0[..depth].to_vec()), false)),
            Changed::Grown(from, count) => {
                for n in from..from + count {
                    let mut place = path.0.clone();
                    place.push(format!("{n}"));
                    touched.push((Path(place), false));
                }
            }
            Changed::Removed => touched.push((path, true)),
        }
    }
    let mut description = Description::default();
    for (path, removed) in touched {
        let name = path.text();
        if removed {
            description.removed.push(name);
        } else if !description.updated.iter().any(|(it, _)| *it == name)
            && let Some(value) = look(&new, &path.0)
        {
            description.updated.push((name, value.clone()));
        }
    }
    Ok((new, description))
}

/// `$` stands for the element that the filter has found.
fn resolve(path: &Path, at: Option<usize>) -> Result<Path, Failure> {
    let mut path = path.clone();
    for part in &mut path.0 {
        if part == "$" {
            let missing = "The positional operator did not find the match needed from the query.";
            *part = format!("{}", at.ok_or_else(|| Failure::new(BAD_VALUE, missing))?);
        } else if part.starts_with('$') {
            return Err(Failure::not_simulated("array filters"));
        }
    }
    Ok(path)
}

/// Names of fields in numeric order where both are numbers, else by their bytes.
fn compare_paths(a: &Path, b: &Path) -> Ordering {
    let order = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => a.cmp(b),
    };
    let parts = a.0.iter().zip(&b.0).map(|(a, b)| order(a, b));
    parts.fold(Ordering::Equal, Ordering::then).then(a.0.len().cmp(&b.0.len()))
}

fn look<'a>(doc: &'a Document, path: &[String]) -> Option<&'a Val> {
    let (first, rest) = path.split_first()?;
    let mut value = doc.get(first)?;
    for part in rest {
        value = match value {
            Val::Doc(doc) => doc.get(part)?,
            Val::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value)
}

/// What an operator wants done to a field.
enum Edit {
    Keep,
    Put(Val),
    Append(Vec<Val>),
    Remove,
}

/// What was done: how many parts of the path lead to the place that changed.
enum Changed {
    Nothing,
    Set(usize),
    /// Elements were added behind so many.
    Grown(usize, usize),
    Removed,
}

/// An array is not filled up with more nulls than this (`kMaxPaddingAllowed`).
const PADDING: usize = 1_500_000;

struct Editing<'a> {
    path: &'a Path,
    operator: &'a Operator,
    old: &'a Document,
}

impl Editing<'_> {
    fn ask(&self, found: Option<&Val>) -> Result<Edit, Failure> {
        self.operator.edit(self.path, found)
    }

    fn doc(&mut self, doc: &mut Document, depth: usize) -> Result<Changed, Failure> {
        let name = &self.path.0[depth];
        let last = depth + 1 == self.path.0.len();
        match doc.get_mut(name) {
            Some(value) if last => match self.ask(Some(value))? {
                Edit::Remove => {
                    doc.remove(name);
                    Ok(Changed::Removed)
                }
                edit => Ok(carry_out(value, edit, depth + 1)),
            },
            Some(value) => self.value(value, depth + 1),
            None => match self.ask(None)? {
                Edit::Put(value) => {
                    doc.set(name, self.nest(value, depth + 1));
                    Ok(Changed::Set(depth + 1))
                }
                _ => Ok(Changed::Nothing),
            },
        }
    }

    fn value(&mut self, value: &mut Val, depth: usize) -> Result<Changed, Failure> {
        match value {
            Val::Doc(doc) => self.doc(doc, depth),
            Val::Array(items) => self.array(items, depth),
            _ if self.operator.is_lenient() => Ok(Changed::Nothing),
            other => Err(self.not_viable(other, depth)),
        }
    }

    fn array(&mut self, items: &mut Vec<Val>, depth: usize) -> Result<Changed, Failure> {
        let last = depth + 1 == self.path.0.len();
        let Ok(index) = self.path.0[depth].parse::<usize>() else {
            if self.operator.is_lenient() {
                return Ok(Changed::Nothing);
            }
            return Err(self.not_viable(&Val::Array(items.clone()), depth));
        };
        match items.get_mut(index) {
            Some(value) if last => match self.ask(Some(value))? {
                Edit::Remove => {
                    // A hole would move what stands behind it.
                    *value = Val::Null;
                    Ok(Changed::Set(depth + 1))
                }
                edit => Ok(carry_out(value, edit, depth + 1)),
            },
            Some(value) => self.value(value, depth + 1),
            None => match self.ask(None)? {
                Edit::Put(value) => {
                    if index > items.len() + PADDING {
                        return Err(Failure::new(
                            BAD_VALUE,
                            "can't backfill more than 1500000 elements",
                        ));
                    }
                    items.resize(index, Val::Null);
                    items.push(self.nest(value, depth + 1));
                    Ok(Changed::Set(depth + 1))
                }
                _ => Ok(Changed::Nothing),
            },
        }
    }

    /// The documents that must be made on the way to a value.
    fn nest(&self, value: Val, depth: usize) -> Val {
        let parts = self.path.0[depth..].iter().rev();
        parts.fold(value, |inner, name| Val::Doc(Document::default().with(name, inner)))
    }

    fn not_viable(&self, found: &Val, depth: usize) -> Failure {
        let (field, parent) = (&self.path.0[depth], &self.path.0[depth - 1]);
        let found = found.type_name();
        let id = self.old.get("_id").map_or("missing", Val::type_name);
        Failure::new(
            PATH_NOT_VIABLE,
            format!("Cannot create field '{field}' in element {{{parent}: {found}}} (_id: {id})"),
        )
    }
}

fn carry_out(value: &mut Val, edit: Edit, depth: usize) -> Changed {
    match (edit, value) {
        (Edit::Put(new), value) => {
            *value = new;
            Changed::Set(depth)
        }
        (Edit::Append(mut more), Val::Array(items)) => {
            let (from, count) = (items.len(), more.len());
            items.append(&mut more);
            if count == 0 { Changed::Nothing } else { Changed::Grown(from, count) }
        }
        (Edit::Keep | Edit::Append(_) | Edit::Remove, _) => Changed::Nothing,
    }
}

/// Puts a value at a path, making documents on the way.
pub(super) fn put(doc: &mut Document, path: &[String], value: Val) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        doc.set(first, value);
        return;
    }
    match doc.get_mut(first) {
        Some(Val::Doc(inner)) => put(inner, rest, value),
        _ => {
            let mut inner = Document::default();
            put(&mut inner, rest, value);
            doc.set(first, Val::Doc(inner));
        }
    }
}

/// The document that an upsert begins with: the fields that the filter says are equal to
/// something.
pub(super) fn seed(filter: &Filter) -> Result<Document, Failure> {
    let mut doc = Document::default();
    for (path, condition) in filter.fields() {
        if let Condition::Eq(value) = condition {
            put(&mut doc, &path.0, value.clone());
        }
    }
    Ok(doc)
}
