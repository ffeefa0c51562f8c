//! What is on its way on one connection: batches become bytes, replies find their batch. No IO.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Redis, Reply, Script};
use dbmount_engine::contract::{Batch, Fault, Input, Mode};
use dbmount_engine::id::BatchId;

use crate::resp::{Outbox, ProtocolError};

/// How many slices one write takes.
const SLICES: usize = 64;

/// The commands of one connection, from submit to reply.
#[derive(Debug)]
pub(crate) struct Pipeline {
    out: Outbox,
    /// Bytes put into `out` and bytes the socket took, since the connection was made.
    encoded: u64,
    written: u64,
    /// In the order of their commands on the wire.
    wire: VecDeque<Job>,
    /// Beyond the bound; not encoded yet.
    waiting: VecDeque<Batch<Redis>>,
    /// The weight of what is on the wire, and what it is kept below.
    weight: usize,
    bound: usize,
    scripts: Scripts,
}

/// A batch on the wire.
#[derive(Debug)]
struct Job {
    /// `None` when nobody waits for it.
    id: Option<BatchId>,
    mode: Mode,
    /// Where its first byte is in the stream.
    start: u64,
    weight: usize,
    /// Replies still to come.
    expected: usize,
    replies: Vec<Reply>,
    /// Kept while one of them may have to be sent again.
    commands: Vec<Command>,
    /// The commands that were sent again, by index; their replies are what is expected now.
    again: Option<Vec<usize>>,
}

/// The reply of a job that has all its replies.
enum Outcome {
    Done(Result<Vec<Reply>, Fault>),
    /// The server did not know the scripts of these commands.
    Again(Vec<usize>),
}

impl Pipeline {
    /// `bound` is the weight in bytes above which batches wait.
    pub(crate) fn new(bound: usize) -> Pipeline {
        Pipeline {
            out: Outbox::default(),
            encoded: 0,
            written: 0,
            wire: VecDeque::new(),
            waiting: VecDeque::new(),
            weight: 0,
            bound,
            scripts: Scripts::default(),
        }
    }

    /// Takes a batch of at least one command.
    pub(crate) fn push(&mut self, batch: Batch<Redis>) {
        if self.waiting.is_empty() && self.admits(weight(&batch)) {
            self.start(batch);
        } else {
            self.waiting.push_back(batch);
        }
    }

    /// Asks for a sign of life.
    pub(crate) fn ping(&mut self) {
        let start = self.encoded;
        self.encode(|out, _| {
            out.command(1);
            out.text(b"PING");
        });
        self.wire.push_back(Job {
            id: None,
            mode: Mode::Independent,
            start,
            weight: 0,
            expected: 1,
            replies: Vec::new(),
            commands: Vec::new(),
            again: None,
        });
    }

    /// Nobody waits for this batch any more.
    pub(crate) fn abandon(&mut self, id: BatchId) {
        if let Some(at) = self.waiting.iter().position(|batch| batch.id == id) {
            self.waiting.remove(at);
        } else if let Some(job) = self.wire.iter_mut().find(|job| job.id == Some(id)) {
            job.id = None;
            job.commands = Vec::new();
        }
    }

    /// Bytes are waiting for the socket.
    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// How many bytes the socket took since the connection was made.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes until all is written or the socket is full.
    pub(crate) fn flush(
        &mut self,
        mut send: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let (count, offered) = self.out.slices(&mut slices);
            let sent = match send(&slices[..count]) {
                Ok(sent) => sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.out.advance(sent);
            self.written += sent as u64;
            if sent < offered {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives a reply to the oldest command without one; what that finishes goes to `inputs`.
    pub(crate) fn on_reply(
        &mut self,
        reply: Reply,
        inputs: &mut Vec<Input<Redis>>,
    ) -> Result<(), ProtocolError> {
        let job = self.wire.front_mut().ok_or(ProtocolError::Unasked)?;
        job.expected -= 1;
        if job.id.is_some() {
            match &job.again {
                None => job.replies.push(reply),
                Some(again) => {
                    let at = again[again.len() - 1 - job.expected];
                    job.replies[at] = reply;
                }
            }
        }
        if job.expected > 0 {
            return Ok(());
        }
        let Some(mut job) = self.wire.pop_front() else { return Ok(()) };
        self.weight -= job.weight;
        if let Some(id) = job.id {
            match job.outcome() {
                Outcome::Done(result) => inputs.push(Input::Replies(id, result)),
                Outcome::Again(indexes) => self.resend(job, indexes),
            }
        }
        while let Some(next) = self.waiting.front() {
            if !self.admits(weight(next)) {
                break;
            }
            let Some(batch) = self.waiting.pop_front() else { break };
            self.start(batch);
        }
        Ok(())
    }

    /// The connection is lost: every batch gets its fault, oldest first.
    pub(crate) fn fail(&mut self, inputs: &mut Vec<Input<Redis>>) {
        for job in self.wire.drain(..) {
            let Some(id) = job.id else { continue };
            let fault = if self.written > job.start { Fault::Unknown } else { Fault::NotSent };
            inputs.push(Input::Replies(id, Err(fault)));
        }
        for batch in self.waiting.drain(..) {
            inputs.push(Input::Replies(batch.id, Err(Fault::NotSent)));
        }
        self.out = Outbox::default();
        (self.encoded, self.written, self.weight) = (0, 0, 0);
        self.scripts.forget();
    }

    /// Whether the server of the new connection knows the flags of scripts.
    pub(crate) fn script_flags(&mut self, flags: bool) {
        if self.scripts.flags != flags {
            self.scripts = Scripts { flags, known: Vec::new() };
        }
    }

    /// A script that the server of this connection has.
    pub(crate) fn loaded(&mut self, script: &'static Script) {
        let at = self.scripts.find(script);
        self.scripts.known[at].loaded = true;
    }

    /// One batch is always let through, whatever its weight.
    fn admits(&self, weight: usize) -> bool {
        self.weight == 0 || self.weight.saturating_add(weight) <= self.bound
    }

    fn start(&mut self, mut batch: Batch<Redis>) {
        let start = self.encoded;
        let weight = weight(&batch);
        self.weight += weight;
        let atomic = batch.mode == Mode::Atomic;
        let mut scripts = false;
        self.encode(|out, known| {
            if atomic {
                out.command(1);
                out.text(b"MULTI");
            }
            for command in &batch.commands {
                scripts |= matches!(command, Command::Script { .. });
                // Within MULTI a NOSCRIPT would show when the rest is done already.
                encode(out, known, command, atomic);
            }
            if atomic {
                out.command(1);
                out.text(b"EXEC");
            }
        });
        let expected = batch.commands.len() + if atomic { 2 } else { 0 };
        if atomic || !scripts {
            batch.commands = Vec::new();
        }
        self.wire.push_back(Job {
            id: Some(batch.id),
            mode: batch.mode,
            start,
            weight,
            expected,
            replies: Vec::with_capacity(expected),
            commands: batch.commands,
            again: None,
        });
    }

    /// Sends some commands of a job again, with the bodies of their scripts.
    fn resend(&mut self, mut job: Job, indexes: Vec<usize>) {
        self.encode(|out, known| {
            for &at in &indexes {
                encode(out, known, &job.commands[at], true);
            }
        });
        // Its first commands were written long ago.
        job.start = 0;
        job.expected = indexes.len();
        job.commands = Vec::new();
        job.again = Some(indexes);
        self.weight += job.weight;
        self.wire.push_back(job);
    }

    fn encode(&mut self, put: impl FnOnce(&mut Outbox, &mut Scripts)) {
        let before = self.out.len();
        put(&mut self.out, &mut self.scripts);
        self.encoded += (self.out.len() - before) as u64;
    }
}

impl Job {
    fn outcome(&mut self) -> Outcome {
        let replies = std::mem::take(&mut self.replies);
        if self.mode == Mode::Atomic {
            return Outcome::Done(Ok(unpack(replies)));
        }
        if self.again.is_some() || self.commands.is_empty() {
            return Outcome::Done(Ok(replies));
        }
        let unknown = |at: &usize| {
            matches!(self.commands[*at], Command::Script { .. })
                && replies[*at].as_error().is_some_and(|line| line.starts_with("NOSCRIPT"))
        };
        let again: Vec<usize> = (0..replies.len()).filter(unknown).collect();
        match again.first() {
            None => return Outcome::Done(Ok(replies)),
            // What was to come after the missing script has been executed before it.
            Some(first) if self.mode == Mode::Ordered && again.len() < replies.len() - first => {
                return Outcome::Done(Err(Fault::Unknown));
            }
            Some(_) => {}
        }
        self.replies = replies;
        Outcome::Again(again)
    }
}

/// From the replies to `MULTI`, the commands and `EXEC` to those of the commands.
fn unpack(mut replies: Vec<Reply>) -> Vec<Reply> {
    let exec = replies.pop().unwrap_or(Reply::Nil);
    let multi = replies.remove(0);
    match exec {
        Reply::Array(items) if items.len() == replies.len() => items,
        exec => {
            let line = match (multi, exec) {
                (Reply::Error(line), _) | (_, Reply::Error(line)) => line,
                _ => "EXECABORT the transaction was not executed".into(),
            };
            let why = |reply| match reply {
                error @ Reply::Error(_) => error,
                _ => Reply::Error(line.clone()),
            };
            replies.into_iter().map(why).collect()
        }
    }
}

/// What a batch weighs on the wire: what it carries, or what it asks for where that shows.
fn weight(batch: &Batch<Redis>) -> usize {
    let one = |command: &Command| command.weight().max(asked(command));
    batch.commands.iter().map(one).fold(1, usize::saturating_add)
}

/// How many bytes a `GETRANGE key start end` may answer.
fn asked(command: &Command) -> usize {
    let Command::Plain(args) = command else { return 0 };
    let [name, _, start, end] = &args[..] else { return 0 };
    if !name.eq_ignore_ascii_case(b"GETRANGE") {
        return 0;
    }
    let number = |bytes: &Bytes| str::from_utf8(bytes).ok()?.parse::<usize>().ok();
    match (number(start), number(end)) {
        (Some(start), Some(end)) => end.saturating_sub(start).saturating_add(1),
        _ => 0,
    }
}

fn encode(out: &mut Outbox, scripts: &mut Scripts, command: &Command, by_body: bool) {
    match command {
        // Without even a name: the server would not answer it. Let it say that this is none.
        Command::Plain(args) if args.is_empty() => {
            out.command(1);
            out.text(b"");
        }
        Command::Plain(args) => {
            out.command(args.len());
            args.iter().for_each(|arg| out.argument(arg));
        }
        Command::Script { script, keys, args } => {
            out.command(3 + keys.len() + args.len());
            let at = scripts.find(script);
            let known = &mut scripts.known[at];
            if known.loaded && !by_body {
                out.text(b"EVALSHA");
                out.text(known.digest.as_bytes());
            } else {
                out.text(b"EVAL");
                out.argument(&Bytes::from_static(known.text.as_bytes()));
                // From here on the server has it: it executes in order.
                known.loaded = true;
            }
            out.number(keys.len());
            keys.iter().chain(args).for_each(|arg| out.argument(arg));
        }
    }
}

/// The text of a script as a server takes it: before Redis 7.0 the line with its flags is a syntax
/// error, and what the flags allow is allowed anyway.
pub(crate) fn script_text(script: &'static Script, flags: bool) -> &'static str {
    match script.body.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") && !flags => rest,
        _ => script.body,
    }
}

/// The scripts seen so far: a few, so a list will do.
#[derive(Debug, Default)]
struct Scripts {
    known: Vec<Known>,
    /// The server knows flags.
    flags: bool,
}

#[derive(Debug)]
struct Known {
    script: &'static Script,
    text: &'static str,
    digest: String,
    /// The server has it, as far as we know.
    loaded: bool,
}

impl Scripts {
    fn find(&mut self, script: &'static Script) -> usize {
        if let Some(at) = self.known.iter().position(|known| std::ptr::eq(known.script, script)) {
            return at;
        }
        let text = script_text(script, self.flags);
        let digest = sha1_smol::Sha1::from(text).digest().to_string();
        self.known.push(Known { script, text, digest, loaded: false });
        self.known.len() - 1
    }

    fn forget(&mut self) {
        self.known.iter_mut().for_each(|known| known.loaded = false);
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
