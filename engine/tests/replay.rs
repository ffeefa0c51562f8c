//! Sessions are recorded and played again; logs that are cut, changed or foreign say so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Redis};
use dbmount_engine::config::Config;
use dbmount_engine::contract::{Input, Link, Output};
use dbmount_engine::engine::Engine;
use dbmount_engine::keys::{Keys, Options};
use dbmount_engine::op::{OpenFlags, Request, Response};
use dbmount_engine::replay::{
    Decoder, Difference, Entry, LogError, Player, Recipe, Recorder, trace_input,
};
use dbmount_engine::sim::redis::{ClientId, Server};
use dbmount_engine::{Caller, Ino, Lane, LockOwner, Mono, Now, OpId, Wall};

/// A mount of a simulated server whose session is recorded.
struct Session {
    engine: Engine<Keys>,
    server: Server,
    recorder: Recorder<Keys>,
    now: Now,
    ops: u64,
}

const SECRET: &[u8] = b"nobody must read this in a log without contents";

impl Session {
    fn new(contents: bool) -> Session {
        let now = Now { mono: Mono(5), wall: Wall(1_700_000_000_000_000_000) };
        let options = Options { prefix: b"app".to_vec(), ..Options::default() };
        let recipe = Recipe { config: Config::default(), options, seed: 42, now };
        let mut session = Session {
            engine: recipe.engine(),
            server: Server::new(now),
            recorder: Recorder::new(&recipe, "a test", contents).unwrap(),
            now,
            ops: 0,
        };
        for lane in Lane::ALL {
            session.input(Input::Link(lane, Link::Up { pushes: false }));
        }
        assert!(matches!(session.ask(Request::Attach), Response::Attached(_)));
        session
    }

    fn input(&mut self, input: Input<Redis>) -> Vec<Response> {
        let mut queue = vec![input];
        let mut responses = Vec::new();
        while let Some(input) = queue.pop() {
            self.now.mono.0 += 1000;
            self.now.wall.0 += 1003;
            self.recorder.input(self.now, &input).unwrap();
            self.engine.handle(self.now, input);
            let outputs: Vec<Output<Redis>> = core::iter::from_fn(|| self.engine.poll()).collect();
            self.recorder.outputs(&outputs).unwrap();
            for output in outputs {
                match output {
                    Output::Submit(batch) => {
                        let replies = self.server.run(self.now, ClientId(1), &batch);
                        queue.insert(0, Input::Replies(batch.id, Ok(replies)));
                    }
                    Output::Respond(_, response) => responses.push(response.unwrap()),
                    _ => {}
                }
            }
        }
        responses
    }

    fn ask(&mut self, request: Request) -> Response {
        self.ops += 1;
        self.input(Input::Request(OpId(self.ops), request)).pop().unwrap()
    }

    /// Some of everything that moves contents, small and large.
    fn work(&mut self) {
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        for (name, size) in
            [("string", 40), ("field.txt", 2000), ("large", 600 << 10), ("big.f", 300 << 10)]
        {
            let (parent, name, caller) = (Ino::ROOT, name.into(), Caller::default());
            let created = self.ask(Request::Create { parent, name, perm: 0o600, flags, caller });
            let Response::Created(entry, opened) = created else { panic!("{created:?}") };
            let (ino, fh) = (entry.attr.ino, opened.fh);
            let contents: Vec<u8> = SECRET.iter().copied().cycle().take(size).collect();
            for (n, piece) in contents.chunks(128 << 10).enumerate() {
                let (offset, data) = ((n << 17) as u64, Bytes::copy_from_slice(piece));
                self.ask(Request::Write { ino, fh, offset, data });
            }
            self.ask(Request::Flush { ino, fh, owner: LockOwner(0) });
            self.ask(Request::Write { ino, fh, offset: 3, data: Bytes::from_static(SECRET) });
            self.ask(Request::Flush { ino, fh, owner: LockOwner(0) });
            self.ask(Request::Release { ino, fh, owner: None });
            let opened = self.ask(Request::Open { ino, flags: OpenFlags::default() });
            let Response::Opened(opened) = opened else { panic!("{opened:?}") };
            let read = Request::Read { ino, fh: opened.fh, offset: 0, size: 4096 };
            let Response::Data(data) = self.ask(read) else { panic!("no data") };
            assert!(data.windows(7).any(|it| it == &SECRET[..7]));
            self.ask(Request::Release { ino, fh: opened.fh, owner: None });
        }
        let push = [b"app:list".as_slice(), SECRET].map(Bytes::copy_from_slice);
        let push = [Bytes::from_static(b"RPUSH")].into_iter().chain(push);
        self.server.execute(self.now, ClientId(9), &Command::plain(push));
    }

    fn log(&mut self) -> Vec<u8> {
        self.recorder.take(true)
    }
}

/// What a log came to.
#[derive(Debug)]
struct Played {
    inputs: u64,
    torn: u64,
    difference: Option<Difference>,
    raw: Vec<u8>,
}

fn play(log: &[u8], piece: usize) -> Result<Played, LogError> {
    let mut decoder = Decoder::new();
    let mut pieces = log.chunks(piece);
    let mut feed = |decoder: &mut Decoder| match pieces.next() {
        Some(piece) => decoder.feed(piece),
        None => decoder.end(),
    };
    let head = loop {
        match decoder.head()? {
            Some(head) => break head,
            None => feed(&mut decoder),
        }
    };
    let mut player = Player::<Keys>::new(&Recipe::of(&head)?);
    let mut raw = Vec::new();
    let mut played = Played { inputs: 0, torn: 0, difference: None, raw: Vec::new() };
    loop {
        match decoder.next()? {
            Entry::More => feed(&mut decoder),
            Entry::Input(now, input) => {
                raw.extend_from_slice(format!("{input:?}").as_bytes());
                assert!(!trace_input(&input).is_empty());
                player.input(now, input);
            }
            Entry::Outputs(recorded) => {
                raw.extend_from_slice(&recorded);
                if let Err(difference) = player.compare(&recorded) {
                    played.difference = Some(*difference);
                    break;
                }
            }
            Entry::End { torn } => {
                played.torn = torn;
                break;
            }
        }
    }
    Ok(Played { inputs: player.inputs(), raw, ..played })
}

#[test]
fn a_session_plays_again() {
    let mut session = Session::new(true);
    session.work();
    let log = session.log();
    for piece in [7, 4096, usize::MAX] {
        let played = play(&log, piece).unwrap();
        assert_eq!(played.difference, None);
        assert_eq!(played.torn, 0);
        assert!(played.inputs > 50, "{}", played.inputs);
        assert!(played.raw.windows(SECRET.len()).any(|it| it == SECRET));
    }
}

#[test]
fn contents_can_be_left_out() {
    let mut session = Session::new(false);
    session.work();
    let log = session.log();
    let played = play(&log, 1 << 16).unwrap();
    assert_eq!(played.difference.map(|it| it.to_string()), None);
    for part in SECRET.chunks_exact(11) {
        assert!(!played.raw.windows(11).any(|it| it == part), "contents are in the log");
    }
    // Nearly a megabyte was written.
    assert!(log.len() < 60 << 10, "{} bytes", log.len());
}

#[test]
fn a_torn_log_plays_up_to_the_tear() {
    let mut session = Session::new(true);
    let start = session.log();
    session.work();
    let log = [start.clone(), session.log()].concat();
    let all = play(&log, usize::MAX).unwrap().inputs;
    let mut seen = 0;
    let cuts = (start.len()..log.len()).step_by(log.len() / 20);
    for cut in cuts.chain([start.len() + 1, log.len() - 1]) {
        for tail in [&[][..], &[0; 5000]] {
            let torn = [&log[..cut], tail].concat();
            let played = play(&torn, 1 << 20).unwrap();
            assert_eq!(played.difference, None);
            assert!(played.inputs <= all);
            seen = seen.max(played.inputs);
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_changed_log_is_corrupt_and_never_a_panic() {
    let mut session = Session::new(true);
    let log = session.log();
    for at in 0..log.len() {
        let mut changed = log.clone();
        changed[at] ^= 1 << (at % 8);
        match play(&changed, usize::MAX) {
            Ok(played) => assert!(played.torn > 0, "byte {at}: nobody noticed"),
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
}

#[test]
fn what_is_no_log_is_told() {
    for (text, said) in [
        (&b""[..], "not a replay log"),
        (b"dbmount", "not a replay log"),
        (b"\x7fELF\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "not a replay log"),
        (b"dbmount replay log x\n", "not a replay log"),
        (b"dbmount replay log 1\n", "it ends before it begins"),
        (b"dbmount replay log 2\n", "format 2 by a newer dbmount"),
        (b"dbmount replay log 1\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "corrupt at byte 21"),
    ] {
        let error = play(text, 3).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Another engine does not do what was recorded: both sides are told.
#[test]
fn the_first_difference_is_told_with_both_sides() {
    let mut session = Session::new(true);
    session.work();
    let log = session.log();
    let mut decoder = Decoder::new();
    decoder.feed(&log);
    decoder.end();
    let head = decoder.head().unwrap().unwrap();
    let mut recipe = Recipe::<Keys>::of(&head).unwrap();
    recipe.options.umask = 0o077;
    let mut player = Player::new(&recipe);
    let difference = loop {
        match decoder.next().unwrap() {
            Entry::Input(now, input) => {
                player.input(now, input);
            }
            Entry::Outputs(recorded) => {
                if let Err(difference) = player.compare(&recorded) {
                    break difference;
                }
            }
            end => panic!("no difference: {end:?}"),
        }
    };
    assert!(difference.input > 3 && difference.recorded.len() == difference.replayed.len());
    assert_ne!(difference.recorded, difference.replayed);
    let text = difference.to_string();
    assert!(text.contains("the replay differs at output 1"), "{text}");
    assert!(text.contains("recorded: ") && text.contains("replayed: "), "{text}");
}
