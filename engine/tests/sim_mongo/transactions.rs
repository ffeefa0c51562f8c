//! Sessions: transactions that meet each other and plain writes, and writes that are numbered.

use bytes::Bytes;
use dbmount_engine::backend::bson::DocBuf;
use dbmount_engine::backend::mongo::{Command, Concern};
use dbmount_engine::sim::generate::Random;
use dbmount_engine::sim::ops::shrink;

use crate::commands::{Step, cases, indexes, step};
use crate::compare::{DB, Pair, whole};
use crate::values::chance;

/// What happens in or beside a session.
#[derive(Clone, Debug)]
enum Act {
    /// A command of no session.
    Plain(Step),
    /// A command in the transaction of a session, which it begins if need be.
    In(u8, Step),
    Commit(u8),
    Abort(u8),
    /// A numbered write, sent so many times.
    Numbered(u8, Step, u32),
}

const SESSIONS: u8 = 3;

#[derive(Clone, Default)]
struct Numbers {
    number: i64,
    open: bool,
}

fn add_session(body: &mut DocBuf, session: u8, number: i64) {
    let id = Bytes::from(vec![session; 16]);
    body.begin("lsid").binary("id", 4, id).end().i64("txnNumber", number);
}

fn end(name: &'static str, session: u8, number: i64) -> Command {
    let mut body = DocBuf::new();
    body.i32(name, 1).str("$db", "admin");
    add_session(&mut body, session, number);
    body.bool("autocommit", false);
    let mut command = Command::of(name, body);
    command.concern = Concern::Acknowledged;
    command
}

fn play(pair: &mut Pair, collection: &str, from: i64, acts: &[Act]) -> Option<String> {
    let drop = Command::on("drop", DB, collection);
    let mut sessions = vec![Numbers { number: from, open: false }; SESSIONS.into()];
    pair.on_real(&drop);
    pair.on_sim(&drop);
    // Transactions read what a majority has: without the indexes there, they would be refused
    // until the server has caught up.
    let mut begin = indexes().command(collection);
    begin.concern = Concern::Durable;
    let mut commands = vec![begin];
    for act in acts {
        match act {
            Act::Plain(step) => {
                let mut command = step.command(collection);
                // A write that waits here and not there ends with an error.
                command.body().i32("maxTimeMS", 3000);
                commands.push(command);
            }
            Act::In(session, step) => {
                let numbers = &mut sessions[usize::from(*session)];
                let begins = !numbers.open;
                numbers.number += i64::from(begins);
                numbers.open = true;
                let mut command = step.command(collection);
                command.concern = Concern::None;
                add_session(command.body(), *session, numbers.number);
                command.body().bool("autocommit", false);
                if begins {
                    command.body().bool("startTransaction", true);
                }
                commands.push(command);
            }
            Act::Commit(session) | Act::Abort(session) => {
                let numbers = &mut sessions[usize::from(*session)];
                numbers.open = false;
                let commit = matches!(act, Act::Commit(_));
                let name = if commit { "commitTransaction" } else { "abortTransaction" };
                commands.push(end(name, *session, numbers.number));
            }
            Act::Numbered(session, step, times) => {
                let numbers = &mut sessions[usize::from(*session)];
                numbers.number += 1;
                numbers.open = false;
                let mut command = step.command(collection);
                add_session(command.body(), *session, numbers.number);
                commands.extend((0..*times).map(|_| command.clone()));
            }
        }
    }
    let (mut result, mut ambiguous) = (None, false);
    for command in &commands {
        if let Err(why) = pair.check(command) {
            result = Some(why);
            break;
        }
        if pair.ambiguous {
            ambiguous = true;
            break;
        }
    }
    // Nothing stays open, or the next collection cannot be dropped.
    for (session, numbers) in sessions.iter().enumerate() {
        for number in from + 1..=numbers.number {
            let abort = end("abortTransaction", session as u8, number);
            pair.on_sim(&abort);
            pair.on_real(&abort);
        }
    }
    let documents = |pair: &mut Pair| match ambiguous {
        true => None,
        false => pair.check_documents(collection).err(),
    };
    result.or_else(|| documents(pair)).map(|why| {
        let sent: Vec<String> = commands.iter().map(whole).collect();
        format!("{}\n{why}", sent.join("\n"))
    })
}

fn writes(random: &mut Random) -> Step {
    loop {
        let step = step(random);
        if matches!(step.name, "insert" | "update" | "delete" | "findAndModify") {
            return step;
        }
    }
}

fn hold_to(
    pair: &mut Pair,
    name: &str,
    seeds: core::ops::Range<u64>,
    act: impl Fn(&mut Random) -> Act,
) {
    let mut number = 0;
    for seed in seeds {
        let mut random = Random(seed);
        let acts: Vec<Act> = (0..60).map(|_| act(&mut random)).collect();
        let collection = format!("{name}{seed}");
        let mut fails = |acts: &[Act]| {
            number += 1000;
            play(pair, &collection, number, acts)
        };
        let Some(first) = fails(&acts) else { continue };
        let acts = shrink(acts, |acts| fails(acts).is_some());
        panic!("seed {seed}:\n{}", fails(&acts).unwrap_or(first));
    }
}

#[test]
fn transactions_meet_each_other() {
    let mut pair = Pair::replica_set();
    hold_to(&mut pair, "t", 0..cases(20), |random| {
        let session = (random.next() % u64::from(SESSIONS)) as u8;
        match random.next() % 10 {
            0 | 1 => Act::Plain(writes(random)),
            2 => Act::Commit(session),
            3 if chance(random, 60) => Act::Abort(session),
            _ => loop {
                let step = step(random);
                // Counting is not for transactions.
                if step.name != "count" {
                    break Act::In(session, step);
                }
            },
        }
    });
}

#[test]
fn numbered_writes_happen_once() {
    let mut pair = Pair::replica_set();
    hold_to(&mut pair, "n", 0..cases(12), |random| {
        let session = (random.next() % u64::from(SESSIONS)) as u8;
        let mut step = writes(random);
        // Several statements are done again only as far as they failed, which is not simulated.
        for (_, value) in &mut step.fields {
            if let crate::values::V::List(items) = value {
                items.truncate(1);
            }
        }
        Act::Numbered(session, step, 1 + (random.next() % 2) as u32)
    });
}

#[test]
fn a_standalone_numbers_nothing() {
    let mut pair = Pair::standalone();
    hold_to(&mut pair, "n", 0..2, |random| Act::Numbered(0, writes(random), 1));
    hold_to(&mut pair, "t", 0..2, |random| Act::In(0, writes(random)));
}
