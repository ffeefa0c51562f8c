//! Aggregation expressions: values computed from a document.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::failure::Failure;
use super::value::{Document, Val, compare};

/// An expression, parsed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Literal(Val),
    /// A variable (`ROOT` for none) and the fields below it.
    Path(String, Vec<String>),
    Doc(Vec<(String, Expr)>),
    Array(Vec<Expr>),
    Call(Function, Vec<Expr>),
    /// `$filter` and `$map`: what each element is called, and what is done with it.
    Each {
        input: Box<Expr>,
        name: String,
        body: Box<Expr>,
        keep: bool,
    },
}

/// Functions that evaluate all of their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    MergeObjects,
    ConcatArrays,
    IfNull,
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
    And,
    Or,
    Not,
    Cond,
    Concat,
    SubstrBytes,
    StrLenBytes,
    Size,
    Add,
    Subtract,
    Max,
    Min,
    In,
    ArrayElemAt,
}

const FUNCTIONS: [(&str, Function); 23] = [
    ("$mergeObjects", Function::MergeObjects),
    ("$concatArrays", Function::ConcatArrays),
    ("$ifNull", Function::IfNull),
    ("$eq", Function::Eq),
    ("$ne", Function::Ne),
    ("$lt", Function::Lt),
    ("$lte", Function::Lte),
    ("$gt", Function::Gt),
    ("$gte", Function::Gte),
    ("$and", Function::And),
    ("$or", Function::Or),
    ("$not", Function::Not),
    ("$cond", Function::Cond),
    ("$concat", Function::Concat),
    ("$substrBytes", Function::SubstrBytes),
    ("$strLenBytes", Function::StrLenBytes),
    ("$size", Function::Size),
    ("$add", Function::Add),
    ("$subtract", Function::Subtract),
    ("$max", Function::Max),
    ("$min", Function::Min),
    ("$in", Function::In),
    ("$arrayElemAt", Function::ArrayElemAt),
];

/// What names stand for.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    pub(super) root: &'a Document,
    variables: Vec<(String, Val)>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(root: &'a Document) -> Scope<'a> {
        Scope { root, variables: Vec::new() }
    }
}

fn parse_failure(message: String) -> Failure {
    Failure::new(super::failure::FAILED_TO_PARSE, message)
}

impl Expr {
    pub(super) fn parse(value: &Val) -> Result<Expr, Failure> {
        Ok(match value {
            Val::Str(text) if text.starts_with(b"$$") => {
                let mut parts = String::from_utf8_lossy(&text[2..]).into_owned();
                let rest = parts.find('.').map(|dot| parts.split_off(dot).split_off(1));
                let fields = rest.map(|it| it.split('.').map(String::from).collect());
                Expr::Path(parts, fields.unwrap_or_default())
            }
            Val::Str(text) if text.starts_with(b"$") => {
                let path = String::from_utf8_lossy(&text[1..]).into_owned();
                Expr::Path(String::from("ROOT"), path.split('.').map(String::from).collect())
            }
            Val::Array(items) => {
                Expr::Array(items.iter().map(Expr::parse).collect::<Result<_, _>>()?)
            }
            Val::Doc(doc) => match doc.0.first() {
                Some((name, argument)) if name.starts_with('$') => {
                    if doc.0.len() > 1 {
                        let message = "an object representing an expression must have exactly one \
                                       field";
                        return Err(Failure::new(15_983, message));
                    }
                    Expr::call(name, argument)?
                }
                _ => {
                    let fields = doc
                        .0
                        .iter()
                        .map(|(name, value)| Expr::parse(value).map(|expr| (name.clone(), expr)));
                    Expr::Doc(fields.collect::<Result<_, _>>()?)
                }
            },
            other => Expr::Literal(other.clone()),
        })
    }

    fn call(name: &str, argument: &Val) -> Result<Expr, Failure> {
        match name {
            "$literal" | "$const" => return Ok(Expr::Literal(argument.clone())),
            "$filter" => return Expr::each(argument, "cond", true),
            "$map" => return Expr::each(argument, "in", false),
            _ => {}
        }
        let Some((_, function)) = FUNCTIONS.iter().find(|(it, _)| *it == name) else {
            return Err(Failure::not_simulated(&format!("the expression {name}")));
        };
        let arguments = match (argument, function) {
            (Val::Doc(named), Function::Cond) => {
                let part = |name: &str| match named.get(name) {
                    Some(value) => Expr::parse(value),
                    None => Err(parse_failure(format!("Missing '{name}' parameter to $cond"))),
                };
                Vec::from([part("if")?, part("then")?, part("else")?])
            }
            (Val::Array(items), _) => items.iter().map(Expr::parse).collect::<Result<_, _>>()?,
            (one, _) => Vec::from([Expr::parse(one)?]),
        };
        Ok(Expr::Call(*function, arguments))
    }

    fn each(argument: &Val, body: &str, keep: bool) -> Result<Expr, Failure> {
        let doc = argument.as_doc().ok_or_else(|| {
            Failure::new(28_646, "$filter only supports an object as its argument")
        })?;
        let part = |name: &str| {
            let missing = || Failure::new(28_648, format!("Missing '{name}' parameter"));
            Expr::parse(doc.get(name).ok_or_else(missing)?)
        };
        let name = doc.get("as").and_then(|it| it.as_text()).unwrap_or("this");
        Ok(Expr::Each {
            input: Box::new(part("input")?),
            name: String::from(name),
            body: Box::new(part(body)?),
            keep,
        })
    }

    /// The value, `None` for one that is missing.
    pub(super) fn eval(&self, scope: &Scope<'_>) -> Result<Option<Val>, Failure> {
        Ok(match self {
            Expr::Literal(value) => Some(value.clone()),
            Expr::Path(variable, fields) => match variable.as_str() {
                "REMOVE" => None,
                "ROOT" | "CURRENT" => fields_of(&Val::Doc(scope.root.clone()), fields),
                name => {
                    let found = scope.variables.iter().rev().find(|(it, _)| it == name);
                    let Some((_, value)) = found else {
                        let message = format!("Use of undefined variable: {name}");
                        return Err(Failure::new(17_276, message));
                    };
                    fields_of(value, fields)
                }
            },
            Expr::Doc(fields) => {
                let mut doc = Document::default();
                for (name, expr) in fields {
                    if let Some(value) = expr.eval(scope)? {
                        doc.set(name, value);
                    }
                }
                Some(Val::Doc(doc))
            }
            Expr::Array(items) => {
                let items = items.iter().map(|it| Ok(it.eval(scope)?.unwrap_or(Val::Null)));
                Some(Val::Array(items.collect::<Result<_, Failure>>()?))
            }
            // These look at no more than they need.
            Expr::Call(function @ (Function::And | Function::Or), arguments) => {
                let wanted = *function == Function::Or;
                for argument in arguments {
                    if argument.eval(scope)?.is_some_and(|it| it.is_true()) == wanted {
                        return Ok(Some(Val::Bool(wanted)));
                    }
                }
                Some(Val::Bool(!wanted))
            }
            Expr::Call(Function::IfNull, arguments) => {
                let mut value = None;
                for argument in arguments {
                    value = argument.eval(scope)?;
                    if !nullish(&value) {
                        break;
                    }
                }
                value
            }
            Expr::Call(Function::Cond, arguments) => {
                let [condition, yes, no] = &arguments[..] else {
                    let message = "Expression $cond takes exactly 3 arguments.";
                    return Err(Failure::new(16_020, message));
                };
                let holds = condition.eval(scope)?.is_some_and(|it| it.is_true());
                return if holds { yes } else { no }.eval(scope);
            }
            Expr::Call(function, arguments) => {
                let values = arguments.iter().map(|it| it.eval(scope));
                return function.apply(&values.collect::<Result<Vec<_>, _>>()?);
            }
            Expr::Each { input, name, body, keep } => {
                let items = match input.eval(scope)? {
                    None | Some(Val::Null) => return Ok(Some(Val::Null)),
                    Some(Val::Array(items)) => items,
                    Some(other) => {
                        let found = other.type_name();
                        let message = format!("input to $filter must be an array not {found}");
                        return Err(Failure::new(28_651, message));
                    }
                };
                let mut inner = scope.clone();
                let mut out = Vec::new();
                for item in items {
                    inner.variables.push((name.clone(), item.clone()));
                    let value = body.eval(&inner)?;
                    inner.variables.pop();
                    if !keep {
                        out.push(value.unwrap_or(Val::Null));
                    } else if value.is_some_and(|it| it.is_true()) {
                        out.push(item);
                    }
                }
                Some(Val::Array(out))
            }
        })
    }
}

/// Fields below a value; of an array, those of its elements.
fn fields_of(value: &Val, fields: &[String]) -> Option<Val> {
    let Some((first, rest)) = fields.split_first() else { return Some(value.clone()) };
    match value {
        Val::Doc(doc) => fields_of(doc.get(first)?, rest),
        Val::Array(items) => {
            Some(Val::Array(items.iter().filter_map(|it| fields_of(it, fields)).collect()))
        }
        _ => None,
    }
}

fn nullish(value: &Option<Val>) -> bool {
    matches!(value, None | Some(Val::Null | Val::Undefined))
}

fn compare_optional(a: &Option<Val>, b: &Option<Val>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(a, b),
        // What is missing comes before everything but MinKey.
        (None, None) => Ordering::Equal,
        (None, Some(Val::MinKey)) | (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
    }
}

impl Function {
    fn apply(self, values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
        let order = || match values {
            [a, b] => Ok(compare_optional(a, b)),
            _ => {
                let message = format!(
                    "Expression takes exactly 2 arguments. {} were passed in.",
                    values.len()
                );
                Err(Failure::new(16_020, message))
            }
        };
        let truth = |it: &Option<Val>| it.as_ref().is_some_and(Val::is_true);
        let boolean = |it: bool| Ok(Some(Val::Bool(it)));
        match self {
            Function::Eq => boolean(order()?.is_eq()),
            Function::Ne => boolean(order()?.is_ne()),
            Function::Lt => boolean(order()?.is_lt()),
            Function::Lte => boolean(order()?.is_le()),
            Function::Gt => boolean(order()?.is_gt()),
            Function::Gte => boolean(order()?.is_ge()),
            Function::Not => boolean(!values.iter().any(truth)),
            Function::And | Function::Or | Function::Cond | Function::IfNull => {
                Err(Failure::not_simulated("this use of a lazy expression"))
            }
            Function::MergeObjects => merge_objects(values),
            Function::ConcatArrays => concat_arrays(values),
            Function::Concat => concat(values),
            Function::SubstrBytes => substr(values),
            Function::StrLenBytes => match values {
                [Some(Val::Str(text))] => Ok(Some(Val::Int32(text.len() as i32))),
                _ => Err(Failure::new(34_473, "$strLenBytes requires a string argument")),
            },
            Function::Size => match values {
                [Some(Val::Array(items))] => Ok(Some(Val::Int32(items.len() as i32))),
                _ => Err(Failure::new(17_124, "The argument to $size must be an array")),
            },
            Function::Add | Function::Subtract => arithmetic(self, values),
            Function::Max | Function::Min => {
                let each: Vec<Val> = match values {
                    [Some(Val::Array(items))] => items.clone(),
                    many => many.iter().flatten().cloned().collect(),
                };
                let mut known = each.into_iter().filter(|it| !matches!(it, Val::Null));
                let first = known.next();
                let wanted = if self == Function::Max { Ordering::Greater } else { Ordering::Less };
                let best = first.map(|first| {
                    known.fold(first, |a, b| if compare(&b, &a) == wanted { b } else { a })
                });
                Ok(Some(best.unwrap_or(Val::Null)))
            }
            Function::In => match values {
                [Some(value), Some(Val::Array(items))] => {
                    boolean(items.iter().any(|it| compare(it, value).is_eq()))
                }
                [None, Some(Val::Array(_))] => boolean(false),
                _ => Err(Failure::new(40_081, "$in requires an array as a second argument")),
            },
            Function::ArrayElemAt => match values {
                [array, at] if nullish(array) || nullish(at) => Ok(Some(Val::Null)),
                [Some(Val::Array(items)), Some(at)] => {
                    let at = at.as_i64().unwrap_or(0);
                    let len = items.len() as i64;
                    let at = if at < 0 { len + at } else { at };
                    Ok(usize::try_from(at).ok().and_then(|at| items.get(at)).cloned())
                }
                _ => Err(Failure::new(28_689, "$arrayElemAt's first argument must be an array")),
            },
        }
    }
}

fn merge_objects(values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
    let mut merged = Document::default();
    for value in values {
        match value {
            it if nullish(it) => {}
            Some(Val::Doc(doc)) => doc.0.iter().for_each(|(name, it)| merged.set(name, it.clone())),
            other => {
                let found = other.as_ref().map_or("missing", Val::type_name);
                let message =
                    format!("$mergeObjects requires object inputs, but input is of type {found}");
                return Err(Failure::new(40_400, message));
            }
        }
    }
    Ok(Some(Val::Doc(merged)))
}

fn concat_arrays(values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
    let mut all = Vec::new();
    for value in values {
        match value {
            it if nullish(it) => return Ok(Some(Val::Null)),
            Some(Val::Array(items)) => all.extend(items.iter().cloned()),
            other => {
                let found = other.as_ref().map_or("missing", Val::type_name);
                let message = format!("$concatArrays only supports arrays, not {found}");
                return Err(Failure::new(28_664, message));
            }
        }
    }
    Ok(Some(Val::Array(all)))
}

fn concat(values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
    let mut all = Vec::new();
    for value in values {
        match value {
            it if nullish(it) => return Ok(Some(Val::Null)),
            Some(Val::Str(text)) => all.extend_from_slice(text),
            other => {
                let found = other.as_ref().map_or("missing", Val::type_name);
                return Err(Failure::new(
                    16_702,
                    format!("$concat only supports strings, not {found}"),
                ));
            }
        }
    }
    Ok(Some(Val::Str(all)))
}

/// `$substrBytes`: a negative length goes to the end; characters are never cut.
fn substr(values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
    let [text, from, len] = values else {
        return Err(Failure::new(16_020, "Expression $substrBytes takes exactly 3 arguments."));
    };
    let text = match text {
        it if nullish(it) => return Ok(Some(Val::Str(Vec::new()))),
        Some(Val::Str(text)) => text,
        _ => return Err(Failure::not_simulated("$substrBytes of what is no string")),
    };
    let number = |it: &Option<Val>, code: i32| {
        let number = it.as_ref().filter(|it| it.is_number()).and_then(Val::as_i64);
        number.ok_or_else(|| Failure::new(code, "$substrBytes: a position must be a number"))
    };
    let (from, len) = (number(from, 16_034)?, number(len, 16_035)?);
    let from = usize::try_from(from)
        .map_err(|_| Failure::new(50_752, "$substrBytes: starting index must be non-negative"))?;
    if from >= text.len() {
        return Ok(Some(Val::Str(Vec::new())));
    }
    let end =
        usize::try_from(len).map_or(text.len(), |len| from.saturating_add(len).min(text.len()));
    let inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    if inside(from) {
        let message = "$substrBytes:  Invalid range, starting index is a UTF-8 continuation byte.";
        return Err(Failure::new(28_656, message));
    }
    if inside(end) {
        let message =
            "$substrBytes:  Invalid range, ending index is in the middle of a UTF-8 character.";
        return Err(Failure::new(28_657, message));
    }
    Ok(Some(Val::Str(text[from..end].to_vec())))
}

fn arithmetic(function: Function, values: &[Option<Val>]) -> Result<Option<Val>, Failure> {
    let mut sum: Option<Val> = None;
    for value in values {
        if nullish(value) {
            return Ok(Some(Val::Null));
        }
        let Some(value) = value.as_ref().filter(|it| it.is_number()) else {
            return Err(Failure::new(14, "$add only supports numeric or date types"));
        };
        sum = Some(match sum {
            None => value.clone(),
            Some(sum) => add(&sum, value, function == Function::Subtract),
        });
    }
    Ok(Some(sum.unwrap_or(Val::Int32(0))))
}

/// The sum (or difference) in the wider of the two types, or the next one if it does not fit.
pub(super) fn add(a: &Val, b: &Val, subtract: bool) -> Val {
    let double = |it: &Val| match it {
        Val::Int32(it) => f64::from(*it),
        Val::Int64(it) => *it as f64,
        Val::Double(it) => *it,
        _ => f64::NAN,
    };
    let whole = |it: &Val| match it {
        Val::Int32(it) => Some(i64::from(*it)),
        Val::Int64(it) => Some(*it),
        _ => None,
    };
    if let (Some(x), Some(y)) = (whole(a), whole(b)) {
        let sum = if subtract { x.checked_sub(y) } else { x.checked_add(y) };
        if let Some(sum) = sum {
            let narrow = matches!((a, b), (Val::Int32(_), Val::Int32(_)));
            return match i32::try_from(sum) {
                Ok(sum) if narrow => Val::Int32(sum),
                _ => Val::Int64(sum),
            };
        }
    }
    let b = if subtract { -double(b) } else { double(b) };
    Val::Double(double(a) + b)
}
