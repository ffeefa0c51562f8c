//! Query filters: what a document must be like to be found.
//!
//! A path leads through arrays: `links.p` is the `p` of every element of `links`. Whatever it
//! leads to is held against each condition, and the array itself too.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::failure::{BAD_VALUE, Failure};
use super::value::{Document, Path, Val, compare};

/// A filter, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Nor(Vec<Filter>),
    Field(Path, Condition),
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Eq(Val),
    /// An order that the comparison with the value must give, and values that are equal match too.
    Compare(Ordering, bool, Val),
    In(Vec<Val>),
    Exists,
    Size(i64),
    /// An element of an array that is a document matches.
    ElemMatch(Box<Filter>),
    /// An element of an array meets all of these.
    ElemMeets(Vec<Condition>),
    /// Not all of these hold.
    Not(Vec<Condition>),
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(BAD_VALUE, message)
}

impl Filter {
    pub(super) fn parse(doc: &Document) -> Result<Filter, Failure> {
        let mut all = Vec::new();
        for (name, value) in &doc.0 {
            match name.as_str() {
                "$and" => all.push(Filter::And(several(name, value)?)),
                "$or" => all.push(Filter::Or(several(name, value)?)),
                "$nor" => all.push(Filter::Nor(several(name, value)?)),
                "$comment" => {}
                operator if operator.starts_with('$') => {
                    return Err(Failure::not_simulated(&alloc::format!(
                        "the top-level query operator {operator}"
                    )));
                }
                path => {
                    let path = Path::of(path);
                    let conditions = conditions(value)?;
                    all.extend(conditions.into_iter().map(|it| Filter::Field(path.clone(), it)));
                }
            }
        }
        Ok(Filter::And(all))
    }

    pub(super) fn matches(&self, doc: &Document) -> bool {
        self.find(doc, &mut None)
    }

    /// Whether it matches; `at` becomes the element that an update's `$` stands for.
    pub(super) fn find(&self, doc: &Document, at: &mut Option<usize>) -> bool {
        match self {
            Filter::And(all) => all.iter().all(|it| it.find(doc, at)),
            Filter::Or(any) => any.iter().any(|it| it.find(doc, at)),
            Filter::Nor(none) => !none.iter().any(|it| it.matches(doc)),
            Filter::Field(path, condition) => condition.holds(doc, path, at),
        }
    }

    /// The conditions that must all hold, as far as they stand side by side.
    pub(super) fn fields(&self) -> Vec<(&Path, &Condition)> {
        match self {
            Filter::And(all) => all.iter().flat_map(Filter::fields).collect(),
            Filter::Field(path, condition) => Vec::from([(path, condition)]),
            Filter::Or(_) | Filter::Nor(_) => Vec::new(),
        }
    }
}

fn several(operator: &str, value: &Val) -> Result<Vec<Filter>, Failure> {
    let Val::Array(items) = value else {
        return Err(bad(alloc::format!("{operator} must be an array")));
    };
    if items.is_empty() {
        return Err(bad("$and/$or/$nor must be a nonempty array"));
    }
    let parse = |it: &Val| match it {
        Val::Doc(doc) => Filter::parse(doc),
        _ => Err(bad("$or/$and/$nor entries need to be full objects")),
    };
    items.iter().map(parse).collect()
}

fn is_operators(value: &Val) -> Option<&Document> {
    value.as_doc().filter(|doc| doc.0.first().is_some_and(|(name, _)| name.starts_with('$')))
}

fn conditions(value: &Val) -> Result<Vec<Condition>, Failure> {
    if let Val::Regex(..) = value {
        return Err(Failure::not_simulated("regular expressions"));
    }
    match is_operators(value) {
        Some(operators) => operators.0.iter().map(|(name, value)| condition(name, value)).collect(),
        None => Ok(Vec::from([Condition::Eq(value.clone())])),
    }
}

fn condition(operator: &str, value: &Val) -> Result<Condition, Failure> {
    let not = |condition| Condition::Not(Vec::from([condition]));
    Ok(match operator {
        "$eq" => Condition::Eq(value.clone()),
        "$ne" => not(Condition::Eq(value.clone())),
        "$lt" => Condition::Compare(Ordering::Less, false, value.clone()),
        "$lte" => Condition::Compare(Ordering::Less, true, value.clone()),
        "$gt" => Condition::Compare(Ordering::Greater, false, value.clone()),
        "$gte" => Condition::Compare(Ordering::Greater, true, value.clone()),
        "$in" | "$nin" => {
            let Val::Array(items) = value else {
                return Err(bad(alloc::format!("{operator} needs an array")));
            };
            if operator == "$in" {
                Condition::In(items.clone())
            } else {
                not(Condition::In(items.clone()))
            }
        }
        "$exists" if value.is_true() => Condition::Exists,
        "$exists" => not(Condition::Exists),
        "$size" => match value.as_i64() {
            Some(size) if size >= 0 => Condition::Size(size),
            Some(_) => return Err(bad("Failed to parse $size. Expected a non-negative number")),
            None => return Err(bad("Failed to parse $size. Expected a number")),
        },
        "$not" => match is_operators(value) {
            Some(_) => Condition::Not(conditions(value)?),
            None => return Err(bad("$not needs a regex or a document")),
        },
        "$elemMatch" => {
            let Val::Doc(inner) = value else {
                return Err(bad("$elemMatch needs an Object"));
            };
            let logical = ["$and", "$or", "$nor"];
            let by_value =
                is_operators(value).is_some() && !logical.contains(&inner.0[0].0.as_str());
            if by_value {
                Condition::ElemMeets(conditions(value)?)
            } else {
                Condition::ElemMatch(Box::new(Filter::parse(inner)?))
            }
        }
        other => {
            return Err(Failure::not_simulated(&alloc::format!("the query operator {other}")));
        }
    })
}

impl Condition {
    /// Whether it needs the array as a whole rather than its elements.
    fn of_arrays(&self) -> bool {
        matches!(
            self,
            Condition::Exists
                | Condition::Size(_)
                | Condition::ElemMatch(_)
                | Condition::ElemMeets(_)
        )
    }

    fn holds(&self, doc: &Document, path: &Path, at: &mut Option<usize>) -> bool {
        if let Condition::Not(inner) = self {
            return !inner.iter().all(|it| it.holds(doc, path, &mut None));
        }
        walk(doc, &path.0, !self.of_arrays(), &mut |found, index| {
            let mut inside = None;
            let meets = self.meets(found, &mut inside);
            if meets && inside.or(index).is_some() {
                *at = inside.or(index);
            }
            meets
        })
    }

    /// Whether one value meets it.
    pub(super) fn meets(&self, found: Option<&Val>, at: &mut Option<usize>) -> bool {
        let nothing = matches!(found, None | Some(Val::Null | Val::Undefined));
        match self {
            Condition::Eq(Val::Null) => nothing,
            Condition::Eq(value) => found.is_some_and(|it| compare(it, value) == Ordering::Equal),
            Condition::Compare(_, equal, Val::Null) => *equal && nothing,
            Condition::Compare(order, equal, value) => found.is_some_and(|it| {
                let nan = |it: &Val| matches!(it, Val::Double(it) if it.is_nan());
                if nan(it) != nan(value) {
                    return false;
                }
                let comparable =
                    it.class() == value.class() || matches!(value, Val::MinKey | Val::MaxKey);
                let found = compare(it, value);
                comparable && (found == *order || *equal && found == Ordering::Equal)
            }),
            Condition::In(values) => {
                values.iter().any(|it| Condition::Eq(it.clone()).meets(found, at))
            }
            Condition::Exists => found.is_some(),
            Condition::Size(size) => {
                matches!(found, Some(Val::Array(items)) if items.len() as i64 == *size)
            }
            Condition::ElemMatch(filter) => {
                let Some(Val::Array(items)) = found else { return false };
                let mut docs = items.iter().enumerate();
                let found = docs.find(|(_, it)| it.as_doc().is_some_and(|it| filter.matches(it)));
                *at = found.map(|(index, _)| index);
                found.is_some()
            }
            Condition::ElemMeets(all) => {
                let Some(Val::Array(items)) = found else { return false };
                let meets = |it: &Val| all.iter().all(|condition| condition.met_by(it));
                *at = items.iter().position(meets);
                at.is_some()
            }
            Condition::Not(all) => !all.iter().all(|it| it.meets(found, &mut None)),
        }
    }

    fn met_by(&self, value: &Val) -> bool {
        self.meets(Some(value), &mut None)
    }
}

/// Hands over everything a path leads to, with the index in the outermost array on the way, until
/// `found` says that it is enough. `spread`: an array at the end is its elements, too.
pub(super) fn walk(
    doc: &Document,
    path: &[String],
    spread: bool,
    found: &mut dyn FnMut(Option<&Val>, Option<usize>) -> bool,
) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match doc.get(first) {
        None => found(None, None),
        Some(value) => into(value, rest, spread, found),
    }
}

fn into(
    value: &Val,
    rest: &[String],
    spread: bool,
    found: &mut dyn FnMut(Option<&Val>, Option<usize>) -> bool,
) -> bool {
    match value {
        Val::Doc(doc) if !rest.is_empty() => walk(doc, rest, spread, found),
        Val::Array(items) if rest.is_empty() => {
            let mut each = items.iter().enumerate();
            spread && each.any(|(n, it)| found(Some(it), Some(n))) || found(Some(value), None)
        }
        Val::Array(items) => {
            let index = rest[0].parse::<usize>().ok();
            items.iter().enumerate().any(|(n, item)| {
                let mut inner = |it: Option<&Val>, _: Option<usize>| found(it, Some(n));
                if let Val::Doc(doc) = item
                    && walk(doc, rest, spread, &mut inner)
                {
                    return true;
                }
                if index != Some(n) {
                    return false;
                }
                // An index that is named is no match of an update's `$`.
                match (&rest[1..], item) {
                    ([], item) => found(Some(item), None),
                    (more, Val::Doc(doc)) => walk(doc, more, spread, found),
                    (more, item @ Val::Array(_)) => into(item, more, spread, found),
                    _ => false,
                }
            })
        }
        value if rest.is_empty() => found(Some(value), None),
        _ => found(None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::bson::DocBuf;

    fn document(write: impl FnOnce(&mut DocBuf) -> &mut DocBuf) -> Document {
        let mut body = DocBuf::new();
        write(&mut body);
        Document::of(&body.finish_doc().unwrap())
    }

    /// `{links: [{p: 1, n: "a"}, {p: 2, n: "b"}], e: [], x: 5}`
    fn sample() -> Document {
        document(|it| {
            it.begin_array("links");
            it.begin("0").i32("p", 1).str("n", "a").end();
            it.begin("1").i64("p", 2).str("n", "b").end();
            it.end().begin_array("e").end().i32("x", 5)
        })
    }

    fn matches(write: impl FnOnce(&mut DocBuf) -> &mut DocBuf) -> (bool, Option<usize>) {
        let filter = Filter::parse(&document(write)).unwrap();
        let mut at = None;
        (filter.find(&sample(), &mut at), at)
    }

    #[test]
    fn paths_lead_through_arrays() {
        assert_eq!(matches(|it| it.f64("links.p", 2.0)), (true, Some(1)));
        let both = |p, n| {
            matches(|it| it.begin("links").begin("$elemMatch").i32("p", p).str("n", n).end().end())
        };
        assert_eq!(both(2, "b"), (true, Some(1)));
        assert!(!both(1, "b").0);
        let apart = matches(|it| it.i32("links.p", 1).str("links.n", "b"));
        assert!(apart.0);
        assert!(!matches(|it| it.null("links.p")).0);
        assert!(matches(|it| it.null("links.q")).0);
        assert!(matches(|it| it.null("x.y")).0);
        assert!(!matches(|it| it.null("e.p")).0);
        let exists =
            |path: &str, there| matches(|it| it.begin(path).bool("$exists", there).end()).0;
        assert!(exists("links.p", true) && !exists("e.p", true) && exists("e", true));
        assert!(exists("e.p", false) && !exists("x", false));
    }

    #[test]
    fn comparisons_keep_to_their_type() {
        let compare = |operator: &str, value: Val| {
            matches(|it| {
                it.begin("x");
                value.write(operator, it);
                it.end()
            })
            .0
        };
        assert!(compare("$gt", Val::Double(4.5)) && !compare("$gt", Val::Int32(5)));
        assert!(compare("$gte", Val::Int64(5)) && !compare("$lt", Val::str("a")));
        assert!(compare("$lt", Val::MaxKey) && compare("$in", Val::Array([Val::Int32(5)].into())));
        assert!(compare("$ne", Val::Int32(4)) && !compare("$ne", Val::Int32(5)));
    }

    #[test]
    fn what_is_not_built_is_refused() {
        let unknown = document(|it| it.begin("x").i32("$mod", 1).end());
        assert!(Filter::parse(&unknown).unwrap_err().message.starts_with("not simulated"));
    }
}
