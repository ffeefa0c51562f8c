//! Generated commands on small documents: queries, updates by operators and by pipelines, unique
//! and partial indexes over arrays of documents, batches.

use dbmount_engine::backend::mongo::{Command, Concern};
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::ops::shrink;

use crate::compare::{DB, Pair};
use crate::values::{V, chance, doc, list, one, pick, text};

/// A command in the making: its name, and fields behind the collection's name.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) fields: Vec<(&'static str, V)>,
}

impl Step {
    pub(crate) fn command(&self, collection: &str) -> Command {
        let mut command = Command::on(self.name, DB, collection);
        for (name, value) in &self.fields {
            value.write(name, command.body());
        }
        let writes = ["insert", "update", "delete", "findAndModify", "createIndexes"];
        if writes.contains(&self.name) {
            command.concern = Concern::Acknowledged;
        }
        command
    }
}

const PATHS: [&str; 12] = [
    "a",
    "b",
    "b.c",
    "links",
    "links.p",
    "links.n",
    "links.0",
    "tags",
    "x.y.z",
    "links.0.p",
    "_id",
    "d",
];

fn scalar(random: &mut Random) -> V {
    match random.next() % 14 {
        0 | 1 => V::Int(random.next() as i32 % 3),
        2 => V::Long(random.next() as i64 % 3),
        3 => V::Double((random.next() % 5) as f64 / 2.0),
        4 | 5 => text(pick(random, &["a", "b", "ä", ""])),
        6 => V::Null,
        7 => V::Bool(chance(random, 50)),
        8 => V::Id(random.next() as u8 % 2),
        9 => V::Bytes(vec![random.next() as u8 % 2; random.next() as usize % 3]),
        10 => V::Date(random.next() as i64 % 2),
        11 => V::Long(i64::MAX - 1),
        12 => V::Int(i32::MAX),
        _ => V::Int(1),
    }
}

fn link(random: &mut Random) -> V {
    doc([("p", V::Int(random.next() as i32 % 3)), ("n", name(random))])
}

fn name(random: &mut Random) -> V {
    match random.next() % 5 {
        0 => V::Bytes(vec![0xff; 1 + random.next() as usize % 2]),
        _ => text(pick(random, &["a", "b", "c"])),
    }
}

fn links(random: &mut Random) -> V {
    V::List((0..random.next() % 4).map(|_| link(random)).collect())
}

/// A value that the field might well have.
fn value_for(random: &mut Random, path: &str) -> V {
    match path {
        "_id" => id(random),
        "links" if chance(random, 85) => links(random),
        "links.0" if chance(random, 80) => link(random),
        "links.p" | "links.0.p" if chance(random, 85) => V::Int(random.next() as i32 % 3),
        "links.n" if chance(random, 85) => name(random),
        "tags" if chance(random, 70) => {
            V::List((0..random.next() % 3).map(|_| scalar(random)).collect())
        }
        "b" if chance(random, 50) => one("c", scalar(random)),
        "x.y.z" if chance(random, 10) => doc([("q", scalar(random)), ("r", scalar(random))]),
        _ => scalar(random),
    }
}

fn id(random: &mut Random) -> V {
    V::Int(random.next() as i32 % 12)
}

fn document(random: &mut Random) -> V {
    let mut fields = vec![("_id".to_owned(), id(random))];
    for field in ["a", "b", "links", "tags", "d"] {
        if chance(random, 60) {
            fields.push((field.to_owned(), value_for(random, field)));
        }
    }
    V::Doc(fields)
}

fn condition(random: &mut Random, path: &str) -> V {
    let value = |random: &mut Random| value_for(random, path);
    match random.next() % 12 {
        0..=3 => value(random),
        4 => {
            let operator = pick(random, &["$gt", "$gte", "$lt", "$lte", "$ne", "$eq"]);
            one(operator, value(random))
        }
        5 => {
            let from = value(random);
            doc([("$gte", from), ("$lt", value(random))])
        }
        6 => {
            let values = (0..1 + random.next() % 3).map(|_| value(random)).collect();
            one(pick(random, &["$in", "$nin"]), V::List(values))
        }
        7 => one("$exists", V::Bool(chance(random, 50))),
        8 => one("$size", V::Int(random.next() as i32 % 3)),
        9 => one("$not", one(pick(random, &["$gt", "$lt", "$in"]), V::List(vec![value(random)])))
            .tidy_not(value(random)),
        10 => one("$elemMatch", link_filter(random)),
        _ => one("$not", one("$elemMatch", link_filter(random))),
    }
}

impl V {
    /// `$gt` and `$lt` under `$not` take the value itself.
    fn tidy_not(self, value: V) -> V {
        match self {
            V::Doc(fields) if format!("{fields:?}").contains("$in") => V::Doc(fields),
            _ => one("$not", one("$gt", value)),
        }
    }
}

fn link_filter(random: &mut Random) -> V {
    let p = V::Int(random.next() as i32 % 3);
    match random.next() % 4 {
        0 => one("p", p),
        1 => doc([("p", p), ("n", one("$gt", name(random)))]),
        2 => doc([("p", p), ("n", one("$in", V::List(vec![name(random), name(random)])))]),
        _ => doc([("p", p), ("n", name(random))]),
    }
}

fn filter(random: &mut Random) -> V {
    if chance(random, 10) {
        return V::Doc(Vec::new());
    }
    let mut fields: Vec<(String, V)> = Vec::new();
    for _ in 0..1 + random.next() % 2 {
        let path = pick(random, &PATHS);
        if !fields.iter().any(|(name, _)| name == path) {
            fields.push((path.to_owned(), condition(random, path)));
        }
    }
    if chance(random, 8) {
        let operator = pick(random, &["$or", "$and", "$nor"]);
        let both = (0..2).map(|_| {
            let path = pick(random, &PATHS);
            one(path, condition(random, path))
        });
        fields.push((operator.to_owned(), V::List(both.collect())));
    }
    V::Doc(fields)
}

/// A filter that finds one document at most: of several, which comes first is nobody's promise.
fn of_one(random: &mut Random) -> V {
    let V::Doc(mut fields) = filter(random) else { unreachable!("a filter is a document") };
    fields.retain(|(name, _)| name != "_id");
    fields.insert(0, ("_id".to_owned(), id(random)));
    V::Doc(fields)
}

fn projection(random: &mut Random) -> V {
    let flag = V::Int((random.next() % 2) as i32);
    let mut fields: Vec<(String, V)> = Vec::new();
    for path in ["a", "b.c", "links.p", "d"] {
        if chance(random, 40) {
            fields.push((path.to_owned(), flag.clone()));
        }
    }
    if chance(random, 30) {
        fields.push(("_id".to_owned(), V::Int((random.next() % 2) as i32)));
    }
    V::Doc(fields)
}

fn operators(random: &mut Random) -> V {
    let mut all: Vec<(String, V)> = Vec::new();
    for _ in 0..1 + random.next() % 2 {
        let operator = pick(
            random,
            &[
                "$set",
                "$set",
                "$unset",
                "$inc",
                "$max",
                "$min",
                "$push",
                "$pull",
                "$setOnInsert",
                "$addToSet",
            ],
        );
        if all.iter().any(|(name, _)| name == operator) {
            continue;
        }
        let mut fields: Vec<(String, V)> = Vec::new();
        for _ in 0..1 + random.next() % 3 {
            let mut path = pick(
                random,
                &[
                    "a",
                    "b",
                    "b.c",
                    "links",
                    "links.$.p",
                    "links.$.n",
                    "links.1.n",
                    "tags",
                    "x.y.z",
                    "x.y.w",
                    "new",
                    "tags.2",
                ],
            );
            if matches!(operator, "$push" | "$pull" | "$addToSet") {
                path = pick(random, &["links", "tags", "a", "new.list"]);
            }
            if fields.iter().any(|(name, _)| name == path) {
                continue;
            }
            let value = match operator {
                "$inc" => pick(random, &[V::Int(1), V::Long(2), V::Double(0.5), text("x")]),
                "$unset" => text(""),
                "$push" | "$addToSet" if path == "links" => link(random),
                "$push" | "$addToSet" if chance(random, 20) => {
                    one("$each", V::List(vec![scalar(random), scalar(random)]))
                }
                "$pull" if path == "links" => link_filter(random),
                "$pull" if chance(random, 30) => one("$gte", scalar(random)),
                "$push" | "$pull" | "$addToSet" => scalar(random),
                _ => value_for(random, &path.replace(".$", "")),
            };
            fields.push((path.to_owned(), value));
        }
        all.push((operator.to_owned(), V::Doc(fields)));
    }
    V::Doc(all)
}

fn expression(random: &mut Random, depth: u32) -> V {
    let path = |random: &mut Random| text(pick(random, &["$a", "$b", "$b.c", "$d", "$none"]));
    let array = |random: &mut Random| text(pick(random, &["$links", "$tags", "$none"]));
    let literal = |value: V| one("$literal", value);
    if depth == 0 {
        return if chance(random, 50) { path(random) } else { literal(scalar(random)) };
    }
    let inner = |random: &mut Random| expression(random, depth - 1);
    match random.next() % 11 {
        0 => {
            let parts = vec![text("$b"), one("e", inner(random))];
            one("$mergeObjects", V::List(parts))
        }
        1 => {
            let empty = list([array(random), V::List(Vec::new())]);
            let more = V::List(vec![literal(link(random))]);
            one("$concatArrays", list([one("$ifNull", empty), more]))
        }
        2 => {
            let condition = one("$ne", list([text("$$this.n"), literal(name(random))]));
            let input = one("$ifNull", list([text("$links"), V::List(Vec::new())]));
            one("$filter", doc([("input", input), ("cond", condition)]))
        }
        3 => one("$ifNull", list([path(random), inner(random)])),
        4 => {
            let operator = pick(random, &["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]);
            one(operator, list([path(random), inner(random)]))
        }
        5 => one("$cond", list([inner(random), inner(random), inner(random)])),
        6 => one("$concat", list([path(random), literal(text("-z"))])),
        7 => {
            let input = one("$ifNull", list([literal(text("héllo")), text("")]));
            one("$substrBytes", list([input, V::Int((random.next() % 4) as i32), V::Int(-1)]))
        }
        8 => one("$not", list([inner(random)])),
        9 => one("$and", list([inner(random), inner(random)])),
        _ => doc([("f", inner(random)), ("g", V::Int(1))]),
    }
}

fn pipeline(random: &mut Random) -> V {
    let mut stages = Vec::new();
    for _ in 0..1 + random.next() % 2 {
        stages.push(match random.next() % 6 {
            0 => one("$unset", text(pick(random, &["a", "b.c", "links.n", "tags"]))),
            1 => one("$project", doc([("a", V::Int(1)), ("links", V::Int(1))])),
            _ => {
                let path = pick(random, &["a", "b", "b.c", "new", "links", "x.y", "tags"]);
                one(pick(random, &["$set", "$addFields"]), one(path, expression(random, 2)))
            }
        });
    }
    V::List(stages)
}

fn update(random: &mut Random) -> V {
    match random.next() % 10 {
        0 => match document(random) {
            // The document keeps its `_id` unless it is told otherwise.
            V::Doc(mut fields) if chance(random, 70) => {
                fields.remove(0);
                V::Doc(fields)
            }
            whole => whole,
        },
        1 | 2 => pipeline(random),
        _ => operators(random),
    }
}

fn statement_of_update(random: &mut Random) -> V {
    let upsert = chance(random, 15);
    let multi = chance(random, 40);
    let filter = match (upsert, multi) {
        (true, _) => one("_id", id(random)),
        (false, true) => filter(random),
        (false, false) => of_one(random),
    };
    let mut update = update(random);
    while multi && format!("{update:?}").contains("links") {
        // Which of several gets a unique key is nobody's promise.
        update = self::update(random);
    }
    let mut fields = vec![("q".to_owned(), filter), ("u".to_owned(), update)];
    if multi {
        fields.push(("multi".to_owned(), V::Bool(true)));
    }
    if upsert {
        fields.push(("upsert".to_owned(), V::Bool(true)));
    }
    V::Doc(fields)
}

/// A few statements.
fn some(random: &mut Random, one: fn(&mut Random) -> V) -> V {
    let count = if chance(random, 70) { 1 } else { 2 + random.next() % 3 };
    V::List((0..count).map(|_| one(random)).collect())
}

fn statement_of_delete(random: &mut Random) -> V {
    match chance(random, 50) {
        true => doc([("q", filter(random)), ("limit", V::Int(0))]),
        false => doc([("q", of_one(random)), ("limit", V::Int(1))]),
    }
}

/// Any command on the collection.
pub(crate) fn step(random: &mut Random) -> Step {
    let (name, mut fields) = match random.next() % 20 {
        0..=4 => ("insert", vec![("documents", some(random, document))]),
        5..=10 => ("update", vec![("updates", some(random, statement_of_update))]),
        11 => ("delete", vec![("deletes", some(random, statement_of_delete))]),
        12 => {
            let mut fields = vec![("query", filter(random)), ("sort", one("_id", V::Int(1)))];
            if chance(random, 30) {
                fields.push(("remove", V::Bool(true)));
            } else {
                fields.push(("update", update(random)));
                fields.push(("new", V::Bool(chance(random, 50))));
            }
            ("findAndModify", fields)
        }
        13 => ("count", vec![("query", filter(random))]),
        14 => {
            let up = one("_id", V::Int(if chance(random, 50) { 1 } else { -1 }));
            let stages = vec![
                one("$match", filter(random)),
                one("$sort", up),
                one("$project", doc([("a", V::Int(1)), ("b", V::Int(1)), ("links", V::Int(1))])),
                one("$limit", V::Int(1 + (random.next() % 4) as i32)),
            ];
            ("aggregate", vec![("pipeline", V::List(stages)), ("cursor", V::Doc(Vec::new()))])
        }
        15 => {
            let lookup = doc([
                ("from", text("self")),
                ("startWith", text("$links.p")),
                ("connectFromField", text("links.p")),
                ("connectToField", text("a")),
                ("as", text("above")),
            ]);
            let stages = vec![
                one("$match", one("a", V::Int((random.next() % 3) as i32))),
                one("$graphLookup", lookup),
                one("$match", one("above.a", V::Int((random.next() % 3) as i32))),
                one("$project", one("_id", V::Int(1))),
            ];
            ("aggregate", vec![("pipeline", V::List(stages)), ("cursor", V::Doc(Vec::new()))])
        }
        _ => {
            let mut fields = vec![("filter", filter(random))];
            if chance(random, 40) {
                fields.push(("projection", projection(random)));
            }
            if chance(random, 20) {
                let keys = doc([("a", V::Int(1)), ("_id", V::Int(-1))]);
                fields.push(("sort", keys));
                if chance(random, 50) {
                    fields.push(("limit", V::Int(1 + (random.next() % 3) as i32)));
                    fields.push(("skip", V::Int((random.next() % 3) as i32)));
                }
            } else if chance(random, 15) {
                // As a directory is listed: in the order of the index on names.
                let p = V::Int((random.next() % 3) as i32);
                let inner = doc([("p", p.clone()), ("n", one("$gt", name(random)))]);
                let mut filter = vec![("links.p".to_owned(), p)];
                if chance(random, 60) {
                    // Of `links.p: p` the server makes a plan of its own, in another order.
                    filter[0].1 = one("$exists", V::Bool(true));
                    filter.push(("links".to_owned(), one("$elemMatch", inner)));
                }
                fields = vec![("filter", V::Doc(filter)), ("hint", text("names"))];
                fields.push(("limit", V::Int(1 + (random.next() % 4) as i32)));
            }
            ("find", fields)
        }
    };
    if matches!(name, "insert" | "update" | "delete") && chance(random, 25) {
        fields.push(("ordered", V::Bool(false)));
    }
    Step { name, fields }
}

/// The indexes that the layout makes, on the fields here.
pub(crate) fn indexes() -> Step {
    let index = |name: &str, keys: V, unique: bool, exists: Option<&str>| {
        let mut spec = vec![("key".to_owned(), keys), ("name".to_owned(), text(name))];
        if unique {
            spec.push(("unique".to_owned(), V::Bool(true)));
        }
        if let Some(field) = exists {
            let exists = one(field, one("$exists", V::Bool(true)));
            spec.push(("partialFilterExpression".to_owned(), exists));
        }
        V::Doc(spec)
    };
    let (up, down) = (V::Int(1), V::Int(-1));
    let names = doc([("links.p", up.clone()), ("links.n", up.clone())]);
    let all = vec![
        index("names", names, true, Some("links.p")),
        index("d", one("d", up.clone()), true, Some("d")),
        index("ab", doc([("a", up), ("b", down)]), false, None),
    ];
    Step { name: "createIndexes", fields: vec![("indexes", V::List(all))] }
}

/// Begins with an empty collection on both.
fn clear(pair: &mut Pair, collection: &str) {
    let drop = Command::on("drop", DB, collection);
    pair.on_real(&drop);
    pair.on_sim(&drop);
}

/// Begins anew, with the indexes that the steps begin with.
fn begin(pair: &mut Pair, collection: &str, steps: &[Step]) {
    clear(pair, collection);
    if let Some(first) = steps.first().filter(|it| it.name == "createIndexes") {
        pair.on_real(&first.command(collection));
        pair.on_sim(&first.command(collection));
    }
}

/// The command of a step on a collection, which may look into itself.
fn on(step: &Step, collection: &str) -> Command {
    let mut named = step.clone();
    for (_, value) in &mut named.fields {
        *value = renamed(value, collection);
    }
    named.command(collection)
}

/// Runs steps on a collection of their own. What differs first.
fn differ(pair: &mut Pair, collection: &str, steps: &[Step]) -> Option<String> {
    clear(pair, collection);
    for step in steps {
        if let Err(why) = pair.check(&on(step, collection)) {
            return Some(why);
        }
        if pair.ambiguous {
            begin(pair, collection, steps);
        }
    }
    pair.check_documents(collection).err()
}

/// Everything that differs: after a difference all begins anew.
fn differences(pair: &mut Pair, collection: &str, steps: &[Step]) -> Vec<String> {
    let mut all = Vec::new();
    clear(pair, collection);
    for step in steps {
        let checked = pair.check(&on(step, collection));
        let ambiguous = pair.ambiguous;
        let checked = checked.and_then(|()| match ambiguous {
            true => Ok(()),
            false => pair.check_documents(collection),
        });
        if checked.is_err() || ambiguous {
            begin(pair, collection, steps);
        }
        all.extend(checked.err());
    }
    all
}

fn renamed(value: &V, to: &str) -> V {
    match value {
        V::Str(it) if it == "self" => text(to),
        V::List(items) => V::List(items.iter().map(|it| renamed(it, to)).collect()),
        V::Doc(fields) => {
            V::Doc(fields.iter().map(|(name, it)| (name.clone(), renamed(it, to))).collect())
        }
        other => other.clone(),
    }
}

/// `DBMOUNT_CASES` makes it so many times as many.
pub(crate) fn cases(usual: u64) -> u64 {
    let times = std::env::var("DBMOUNT_CASES").ok().and_then(|times| times.parse().ok());
    usual * times.unwrap_or(1)
}

fn hold_to(mut pair: Pair, seeds: core::ops::Range<u64>) {
    let (mut all, mut shortest) = (Vec::new(), None);
    for seed in seeds {
        let mut random = Random(seed);
        let mut steps = vec![indexes()];
        steps.extend((0..200).map(|_| step(&mut random)));
        if seed % 4 == 0 {
            steps.remove(0);
            steps.retain(|it| !it.fields.iter().any(|(name, _)| *name == "hint"));
        }
        let collection = format!("c{seed}");
        let found = differences(&mut pair, &collection, &steps);
        if found.is_empty() {
            continue;
        }
        all.extend(found);
        if shortest.is_none() && differ(&mut pair, &collection, &steps).is_some() {
            let steps = shrink(steps, |steps| differ(&mut pair, &collection, steps).is_some());
            let commands = steps.iter().map(|it| crate::compare::whole(&on(it, &collection)));
            shortest = Some(commands.collect::<Vec<_>>().join("\n"));
        }
    }
    let shortest = shortest.unwrap_or_default();
    assert!(
        all.is_empty(),
        "{} differences:\n{}\nshortest:\n{shortest}",
        all.len(),
        all.join("\n")
    );
}

#[test]
fn commands_on_a_standalone() {
    hold_to(Pair::standalone(), 0..cases(12));
}

#[test]
fn commands_on_a_replica_set() {
    hold_to(Pair::replica_set(), 1000..1000 + cases(12));
}
