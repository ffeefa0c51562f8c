//! What goes into a log: everything, or everything but the contents of files.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::log::{Encoder, LogError};
use super::{Recipe, Recorded};
use crate::contract::{Batch, Input, Output};
use crate::id::BatchId;
use crate::op::{Request, Response};
use crate::time::Now;

/// Records a session.
#[derive(Clone, Debug)]
pub struct Recorder<L: Recorded> {
    encoder: Encoder,
    contents: bool,
    /// Batches on their way whose replies hold contents: which of their commands.
    asked: BTreeMap<BatchId, Vec<bool>>,
    _layout: core::marker::PhantomData<L>,
}

impl<L: Recorded> Recorder<L> {
    /// Begins a log. `program` tells people who wrote it; without `contents` those of files are
    /// left out.
    ///
    /// # Errors
    /// [`LogError::Unwritable`].
    pub fn new(recipe: &Recipe<L>, program: &str, contents: bool) -> Result<Self, LogError> {
        let encoder = Encoder::new(&recipe.head(program, contents)?)?;
        let asked = BTreeMap::new();
        Ok(Recorder { encoder, contents, asked, _layout: core::marker::PhantomData })
    }

    /// Something happens to the engine.
    ///
    /// # Errors
    /// As [`Encoder::input`].
    pub fn input(&mut self, now: Now, input: &Input<L::Backend>) -> Result<(), LogError> {
        if self.contents {
            return self.encoder.input(now, input);
        }
        let blank = self.blank_input(input);
        self.encoder.input(now, blank.as_ref().unwrap_or(input))
    }

    /// What came of it.
    ///
    /// # Errors
    /// As [`Encoder::outputs`].
    pub fn outputs(&mut self, outputs: &[Output<L::Backend>]) -> Result<(), LogError> {
        if self.contents {
            return self.encoder.outputs(outputs);
        }
        let outputs: Vec<_> = outputs.iter().map(|it| self.blank_output(it)).collect();
        self.encoder.outputs(&outputs)
    }

    /// See [`Encoder::take`].
    pub fn take(&mut self, all: bool) -> Vec<u8> {
        self.encoder.take(all)
    }

    fn blank_input(&mut self, input: &Input<L::Backend>) -> Option<Input<L::Backend>> {
        match input {
            Input::Request(op, Request::Write { ino, fh, offset, data }) => {
                let (ino, fh, offset, data) = (*ino, *fh, *offset, zeros(data.len()));
                Some(Input::Request(*op, Request::Write { ino, fh, offset, data }))
            }
            Input::Replies(id, replies) => {
                let asked = self.asked.remove(id)?;
                let replies = replies.as_ref().ok()?.iter().enumerate().map(|(at, reply)| {
                    match asked.get(at) {
                        Some(true) => L::blank_reply(reply),
                        _ => reply.clone(),
                    }
                });
                Some(Input::Replies(*id, Ok(replies.collect())))
            }
            _ => None,
        }
    }

    fn blank_output(&mut self, output: &Output<L::Backend>) -> Output<L::Backend> {
        match output {
            Output::Submit(batch) => {
                let asked: Vec<bool> = batch.commands.iter().map(L::asks_contents).collect();
                if asked.contains(&true) {
                    self.asked.insert(batch.id, asked);
                }
                let commands = batch.commands.iter().map(L::blank_command).collect();
                Output::Submit(Batch { commands, ..batch.clone() })
            }
            Output::Respond(op, Ok(Response::Data(data))) => {
                Output::Respond(*op, Ok(Response::Data(zeros(data.len()))))
            }
            other => other.clone(),
        }
    }
}

/// Takes the place of contents.
pub(crate) fn zeros(len: usize) -> Bytes {
    Bytes::from(alloc::vec![0; len])
}
