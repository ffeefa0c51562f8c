//! Inputs and outputs as lines for the user.

use alloc::format;
use alloc::string::String;

use crate::backend::Backend;
use crate::contract::{Input, Output};
use crate::op::Response;

/// What happens to the engine, in one line.
#[must_use]
pub fn trace_input<B: Backend>(input: &Input<B>) -> String {
    match input {
        Input::Request(op, request) => format!("request {}: {}", op.0, request.summary()),
        Input::Cancel(op) => format!("request {}: its caller was interrupted", op.0),
        Input::Replies(batch, Ok(replies)) => format!("batch {}: answered {replies:?}", batch.0),
        Input::Replies(batch, Err(fault)) => format!("batch {}: failed, {fault:?}", batch.0),
        Input::Push(push) => format!("push: {push:?}"),
        Input::Link(lane, link) => format!("lane {lane:?}: {link:?}"),
        Input::Tick => String::from("tick"),
    }
}

/// What comes of it, in one line.
#[must_use]
pub fn trace_output<B: Backend>(output: &Output<B>) -> String {
    match output {
        Output::Submit(batch) => format!(
            "batch {}: sent on {:?}, {:?}: {:?}",
            batch.id.0, batch.lane, batch.mode, batch.commands
        ),
        Output::Abandon(batch) => format!("batch {}: no longer wanted", batch.0),
        Output::Respond(op, Ok(Response::Data(data))) => {
            format!("request {}: {} bytes", op.0, data.len())
        }
        Output::Respond(op, Ok(response)) => format!("request {}: {response:?}", op.0),
        Output::Respond(op, Err(errno)) => format!("request {}: {errno}", op.0),
        Output::Invalidate(what) => format!("invalidate {what:?}"),
        Output::Notice(notice) => format!("{:?}: {}", notice.level, notice.text),
    }
}
