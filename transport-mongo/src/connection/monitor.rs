//! Watching one server: a connection of its own on which hello is asked again and again, or
//! streamed by the server as soon as something changes.
//!
//! Source: the SDAM monitoring specification.

use std::io;
use std::time::{Duration, Instant};

use super::link::link_error;
use super::{Connection, Sender, Setup};
use crate::error::{Error, Sent};
use crate::hello::{self, HelloReply};
use crate::uri::{MonitoringMode, ServerAddress};
use crate::wire::frame::RequestId;

/// A connection that watches one server.
#[derive(Debug)]
pub struct Monitor {
    connection: Connection,
    heartbeat: Duration,
    timeout: Duration,
    mode: MonitoringMode,
    /// The hello reply heard last, for its `topologyVersion`.
    last: HelloReply,
    /// Where the stream's next reply will come in, while one runs.
    stream: Option<RequestId>,
}

/// What a monitor heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// The reply.
    pub reply: HelloReply,
    /// Its round trip in milliseconds, when there was one: the server chooses when to send a
    /// streamed reply.
    pub rtt_ms: Option<f64>,
}

impl Monitor {
    /// Connects without credentials. What the handshake said comes with it.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open(
        address: &ServerAddress,
        setup: &Setup,
        mode: MonitoringMode,
        heartbeat: Duration,
        timeout: Duration,
    ) -> Result<(Monitor, Heard), Error> {
        let begun = Instant::now();
        let connection = Connection::open(address, &setup.anonymous(), begun + timeout)?;
        let reply = connection.hello().clone();
        // Connecting and the handshake are two round trips over TCP, one over a unix socket;
        // halving would be wrong for the one and right for the other, so it is an upper bound.
        let heard = Heard { reply: reply.clone(), rtt_ms: Some(millis(begun.elapsed())) };
        let monitor = Monitor { connection, heartbeat, timeout, mode, last: reply, stream: None };
        Ok((monitor, heard))
    }

    /// Waits for the next news: at once in polling mode (the caller waits between calls), within
    /// a heartbeat in streaming mode.
    ///
    /// # Errors
    /// The server did not answer, or not with a hello. The monitor is then of no more use.
    pub fn hear(&mut self) -> Result<Heard, Error> {
        let streaming = self.mode != MonitoringMode::Poll && self.last.topology_version.is_some();
        let heard = if streaming { self.streamed()? } else { self.polled()? };
        self.last = heard.reply.clone();
        Ok(heard)
    }

    /// Whether [`Monitor::hear`] itself waits for news; else the caller waits a heartbeat.
    pub fn waits(&self) -> bool {
        self.mode != MonitoringMode::Poll && self.last.topology_version.is_some()
    }

    /// Closes its connection from any thread: [`Monitor::hear`] then fails.
    pub fn closer(&self) -> Sender {
        self.connection.sender()
    }

    fn polled(&mut self) -> Result<Heard, Error> {
        let begun = Instant::now();
        let command = hello::check(self.connection.hello_name, None, 0, false);
        let reply = self.connection.call(command, Some(begun + self.timeout))?;
        let reply = HelloReply::from_doc(&reply)?;
        Ok(Heard { reply, rtt_ms: Some(millis(begun.elapsed())) })
    }

    fn streamed(&mut self) -> Result<Heard, Error> {
        let id = match self.stream {
            Some(id) => id,
            None => {
                let version = self.last.topology_version;
                let await_ms = i64::try_from(self.heartbeat.as_millis()).unwrap_or(10_000);
                let command = hello::check(self.connection.hello_name, version, await_ms, true);
                self.connection.submit(command)?
            }
        };
        // The server answers within a heartbeat even when nothing changes.
        let deadline = Instant::now() + self.heartbeat + self.timeout;
        let (reply, next) = loop {
            match self.connection.next_of_stream(id, Some(deadline))? {
                Some(reply) => break reply,
                None if Instant::now() < deadline => {}
                None => {
                    self.connection.close();
                    return Err(link_error(Sent::Unknown, io::ErrorKind::TimedOut.into()));
                }
            }
        };
        self.stream = next;
        Ok(Heard { reply: HelloReply::from_doc(&reply)?, rtt_ms: None })
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
