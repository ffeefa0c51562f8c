//! The thread of the push lane: keeps the change stream, where there is one.

use std::time::{Duration, Instant};

use dbmount_engine::backend::mongo::Push;
use dbmount_engine::contract::{Input, Link};

use super::Shared;
use super::reader::{Search, rest};
use crate::change_stream::{AfterError, ChangeStream};
use crate::connection::Connection;
use crate::error::{CHANGE_STREAM_HISTORY_LOST, Error, ServerError};
use crate::topology::HandshakeStage;

/// How long the server holds a `getMore` when nothing happens.
const AWAIT: Duration = Duration::from_secs(1);

/// Runs the lane until it is closed, or there turn out to be no change streams.
pub(super) fn run(shared: &Shared, mut stream: ChangeStream) {
    let mut search = Search::default();
    while let Some((mut connection, generation)) = search.connect(shared) {
        {
            let mut state = shared.lock();
            if state.closing {
                return connection.close();
            }
            state.sender = Some(connection.sender());
        }
        let error = match listen(shared, &mut connection, &mut stream) {
            Ok(()) => return shared.tell(Link::Up { pushes: false }),
            Err(error) => error,
        };
        connection.close();
        shared.lock().sender = None;
        if shared.is_closing() {
            return;
        }
        let (address, wire) = (connection.address(), connection.hello().max_wire_version);
        let stage = HandshakeStage::AfterHandshakeCompletes;
        shared.deployment.report(address, generation, wire, stage, &error);
        match (stream.on_error(&error), &error) {
            // The stream is not to blame for bytes that make no sense.
            (_, Error::Peer(_)) | (AfterError::Restart | AfterError::Resume, _) => {}
            (AfterError::Unavailable | AfterError::Fatal, _) => {
                return shared.tell(Link::Up { pushes: false });
            }
        }
        shared.tell(Link::Down(shared.deployment.describe(&error)));
        rest(shared, shared.options.pause);
    }
}

/// Hands on events until something breaks; `Ok` when there are none to be had.
fn listen(
    shared: &Shared,
    connection: &mut Connection,
    stream: &mut ChangeStream,
) -> Result<(), Error> {
    if !connection.hello().has_transactions() {
        return Ok(());
    }
    let within = || Some(Instant::now() + shared.options.timeout + AWAIT);
    let mut reply = connection.call(stream.open(), within())?;
    shared.tell(Link::Up { pushes: true });
    loop {
        let events = stream.on_reply(&reply)?;
        shared.deliver(events.into_iter().map(|event| Input::Push(Push::Change(event))).collect());
        if !stream.is_open() {
            return Err(ended().into());
        }
        reply = connection.call(stream.more(AWAIT.as_millis() as i64, false), within())?;
    }
}

/// What it watched was dropped or renamed: the stream ends there, and can be opened afresh.
fn ended() -> ServerError {
    let message = "the collection was dropped or renamed".to_owned();
    ServerError { code: CHANGE_STREAM_HISTORY_LOST, message, ..ServerError::default() }
}
