//! Batches to bytes and replies to batches, without a server.

use dbmount_engine::id::Lane;
use dbmount_engine::time::Mono;

use super::*;

static ONE: Script = Script { name: "one", body: "return 1" };
static TWO: Script = Script { name: "two", body: "return 2" };

fn script(script: &'static Script) -> Command {
    Command::Script { script, keys: Default::default(), args: Default::default() }
}

fn batch(id: u64, mode: Mode, commands: impl IntoIterator<Item = Command>) -> Batch<Redis> {
    Batch {
        id: BatchId(id),
        lane: Lane::Meta,
        mode,
        deadline: Mono::NEVER,
        commands: commands.into_iter().collect(),
    }
}

/// Writes at most `room` bytes; returns them as text.
fn flush(pipe: &mut Pipeline, mut room: usize) -> String {
    let mut text = Vec::new();
    pipe.flush(|slices| {
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut sent = 0;
        for slice in slices {
            let n = slice.len().min(room);
            text.extend_from_slice(&slice[..n]);
            (room, sent) = (room - n, sent + n);
        }
        Ok(sent)
    })
    .unwrap();
    String::from_utf8(text).unwrap().replace("\r\n", " ")
}

fn reply(pipe: &mut Pipeline, replies: &[Reply]) -> Vec<Input<Redis>> {
    let mut inputs = Vec::new();
    for reply in replies {
        pipe.on_reply(reply.clone(), &mut inputs).unwrap();
    }
    inputs
}

fn int(n: i64) -> Reply {
    Reply::Int(n)
}

fn noscript() -> Reply {
    Reply::Error("NOSCRIPT No matching script.".into())
}

fn loaded() -> Pipeline {
    let mut pipe = Pipeline::new(usize::MAX);
    pipe.loaded(&ONE);
    pipe.loaded(&TWO);
    pipe
}

#[test]
fn replies_find_their_batch_in_order() {
    let mut pipe = Pipeline::new(usize::MAX);
    pipe.push(batch(1, Mode::Independent, [Command::plain(["A"]), Command::plain(["B", "x"])]));
    pipe.push(batch(2, Mode::Independent, [Command::plain(["C"])]));
    assert_eq!(flush(&mut pipe, 999), "*1 $1 A *2 $1 B $1 x *1 $1 C ");
    let got = reply(&mut pipe, &[int(1), int(2), int(3)]);
    let want = [
        Input::Replies(BatchId(1), Ok(vec![int(1), int(2)])),
        Input::Replies(BatchId(2), Ok(vec![int(3)])),
    ];
    assert_eq!(got, want);
    assert_eq!(pipe.on_reply(int(4), &mut Vec::new()), Err(ProtocolError::Unasked));
}

#[test]
fn an_abandoned_batch_takes_its_replies_silently() {
    let mut pipe = Pipeline::new(usize::MAX);
    pipe.push(batch(1, Mode::Independent, [Command::plain(["A"]), Command::plain(["B"])]));
    pipe.push(batch(2, Mode::Independent, [Command::plain(["C"])]));
    pipe.abandon(BatchId(1));
    let got = reply(&mut pipe, &[int(1), int(2), int(3)]);
    assert_eq!(got, [Input::Replies(BatchId(2), Ok(vec![int(3)]))]);
}

#[test]
fn faults_tell_whether_a_byte_left() {
    let mut pipe = Pipeline::new(40);
    for id in 1..=3 {
        pipe.push(batch(id, Mode::Independent, [Command::plain(["PING"])]));
    }
    pipe.push(batch(4, Mode::Independent, [Command::plain([vec![b'x'; 40]])]));
    pipe.abandon(BatchId(2));
    // All of 1 and 2, none of 3.
    let len = "*1 $4 PING ".len() + 3;
    assert_eq!(flush(&mut pipe, 2 * len).len(), 2 * (len - 3));
    let mut inputs = Vec::new();
    pipe.fail(&mut inputs);
    let want = [
        Input::Replies(BatchId(1), Err(Fault::Unknown)),
        Input::Replies(BatchId(3), Err(Fault::NotSent)),
        Input::Replies(BatchId(4), Err(Fault::NotSent)),
    ];
    assert_eq!(inputs, want);
    // One byte is enough not to know.
    pipe.push(batch(5, Mode::Independent, [Command::plain(["PING"])]));
    flush(&mut pipe, 1);
    inputs.clear();
    pipe.fail(&mut inputs);
    assert_eq!(inputs, [Input::Replies(BatchId(5), Err(Fault::Unknown))]);
}

#[test]
fn the_bound_holds_batches_back_and_lets_them_go_in_order() {
    let mut pipe = Pipeline::new(100);
    let big = |id| batch(id, Mode::Independent, [Command::plain([vec![b'0' + id as u8; 150]])]);
    let read = Command::plain(["GETRANGE", "k", "0", "80"]);
    pipe.push(big(1));
    pipe.push(big(2));
    pipe.push(batch(3, Mode::Independent, [read.clone()]));
    pipe.push(batch(4, Mode::Independent, [read]));
    let sent = flush(&mut pipe, 9999);
    assert!(sent.contains("111") && !sent.contains("222"));
    assert_eq!(reply(&mut pipe, &[int(1)]).len(), 1);
    let sent = flush(&mut pipe, 9999);
    assert!(sent.contains("222") && !sent.contains("GETRANGE"));
    pipe.abandon(BatchId(3));
    assert_eq!(reply(&mut pipe, &[int(2)]).len(), 1);
    assert_eq!(flush(&mut pipe, 9999).matches("GETRANGE").count(), 1);
    assert_eq!(reply(&mut pipe, &[int(4)]), [Input::Replies(BatchId(4), Ok(vec![int(4)]))]);
    assert!(pipe.wire.is_empty() && pipe.weight == 0);
}

#[test]
fn a_script_goes_by_body_first_and_by_digest_then() {
    let mut pipe = Pipeline::new(usize::MAX);
    pipe.push(batch(1, Mode::Ordered, [script(&ONE), script(&ONE)]));
    let digest = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    assert_eq!(
        flush(&mut pipe, 999),
        format!("*3 $4 EVAL $8 return 1 $1 0 *3 $7 EVALSHA $40 {digest} $1 0 ")
    );
}

#[test]
fn a_missing_script_is_sent_again_in_its_place() {
    let mut pipe = loaded();
    let commands = [script(&ONE), Command::plain(["A"]), script(&TWO)];
    pipe.push(batch(1, Mode::Independent, commands));
    pipe.push(batch(2, Mode::Independent, [Command::plain(["B"])]));
    flush(&mut pipe, 999);
    assert_eq!(reply(&mut pipe, &[noscript(), int(10), noscript()]), []);
    let again = flush(&mut pipe, 999);
    assert_eq!(again, "*3 $4 EVAL $8 return 1 $1 0 *3 $4 EVAL $8 return 2 $1 0 ");
    let got = reply(&mut pipe, &[int(20), int(1), int(2)]);
    let want = [
        Input::Replies(BatchId(2), Ok(vec![int(20)])),
        Input::Replies(BatchId(1), Ok(vec![int(1), int(10), int(2)])),
    ];
    assert_eq!(got, want);
}

#[test]
fn ordered_scripts_are_sent_again_only_while_order_holds() {
    let mut pipe = loaded();
    pipe.push(batch(1, Mode::Ordered, [Command::plain(["A"]), script(&ONE), script(&TWO)]));
    flush(&mut pipe, 999);
    assert_eq!(reply(&mut pipe, &[int(0), noscript(), noscript()]), []);
    flush(&mut pipe, 999);
    let want = Input::Replies(BatchId(1), Ok(vec![int(0), int(1), int(2)]));
    assert_eq!(reply(&mut pipe, &[int(1), int(2)]), [want]);

    let mut pipe = loaded();
    pipe.push(batch(2, Mode::Ordered, [script(&ONE), Command::plain(["A"])]));
    let got = reply(&mut pipe, &[noscript(), int(0)]);
    assert_eq!(got, [Input::Replies(BatchId(2), Err(Fault::Unknown))]);
}

#[test]
fn a_lost_connection_during_the_second_try_is_unknown() {
    let mut pipe = loaded();
    pipe.push(batch(1, Mode::Independent, [script(&ONE)]));
    flush(&mut pipe, 999);
    reply(&mut pipe, &[noscript()]);
    let mut inputs = Vec::new();
    pipe.fail(&mut inputs);
    assert_eq!(inputs, [Input::Replies(BatchId(1), Err(Fault::Unknown))]);
}

#[test]
fn a_transaction_is_unpacked() {
    let mut pipe = loaded();
    let ok = || Reply::Status("OK".into());
    let queued = || Reply::Status("QUEUED".into());
    let commands = [Command::plain(["A"]), script(&ONE)];
    pipe.push(batch(1, Mode::Atomic, commands.clone()));
    assert_eq!(
        flush(&mut pipe, 999),
        "*1 $5 MULTI *1 $1 A *3 $4 EVAL $8 return 1 $1 0 *1 $4 EXEC "
    );
    let replies = [ok(), queued(), queued(), Reply::Array(vec![int(1), int(2)])];
    let want = Input::Replies(BatchId(1), Ok(vec![int(1), int(2)]));
    assert_eq!(reply(&mut pipe, &replies), [want]);

    pipe.push(batch(2, Mode::Atomic, commands));
    let bad = Reply::Error("ERR unknown command".into());
    let abort = Reply::Error("EXECABORT discarded".into());
    let want = Input::Replies(BatchId(2), Ok(vec![bad.clone(), abort.clone()]));
    assert_eq!(reply(&mut pipe, &[ok(), bad, queued(), abort]), [want]);
}
