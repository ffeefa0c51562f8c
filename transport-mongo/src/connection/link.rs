//! The two halves of a connection: any thread sends, one thread receives.
//!
//! A sender writes straight to the socket and never blocks: what a full socket does not take is
//! queued and left to the receiver's poll. So the thread that submits pays one system call and
//! the reader never waits for a write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::socket::{Ready, Socket, Waker, wait};
use crate::error::{Error, LinkError, Misuse, PeerError, Sent};
use crate::wire::command::Command;
use crate::wire::frame::{Framer, RequestId};
use crate::wire::limits::Limits;
use crate::wire::msg::Message;

/// Bytes that may wait for a full socket; a submission over it is refused as not sent.
pub const MAX_QUEUED: usize = 96 * 1024 * 1024;

#[derive(Debug)]
struct Shared {
    socket: Socket,
    waker: Waker,
    out: Mutex<Out>,
}

/// A part of a message that waits for the socket.
#[derive(Debug)]
struct Piece {
    of: RequestId,
    /// No byte of its message has been sent.
    untouched: bool,
    bytes: Bytes,
}

#[derive(Debug)]
struct Out {
    queue: VecDeque<Piece>,
    queued: usize,
    next_id: i32,
    limits: Limits,
    closed: bool,
}

impl Shared {
    fn out(&self) -> MutexGuard<'_, Out> {
        // A panic elsewhere does not make the queue wrong: it is changed in whole steps.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends from the queue until it is empty or the socket is full.
    fn flush(&self, out: &mut Out) -> io::Result<()> {
        while !out.queue.is_empty() {
            let sent = {
                let pieces: smallvec::SmallVec<[IoSlice<'_>; 16]> =
                    out.queue.iter().map(|piece| IoSlice::new(&piece.bytes)).collect();
                self.socket.send(&pieces)?
            };
            if sent == 0 {
                break;
            }
            out.consume(sent);
        }
        Ok(())
    }
}

impl Out {
    fn consume(&mut self, mut sent: usize) {
        self.queued -= sent;
        let mut begun = None;
        while let Some(front) = self.queue.front_mut() {
            if sent == 0 {
                break;
            }
            begun = Some(front.of);
            if sent < front.bytes.len() {
                front.bytes.advance(sent);
                break;
            }
            sent -= front.bytes.len();
            self.queue.pop_front();
        }
        // What is left of the last message touched stands at the front.
        let rest = self.queue.iter_mut().take_while(|piece| Some(piece.of) == begun);
        rest.for_each(|piece| piece.untouched = false);
    }
}

/// The sending half. Clones share the connection and its order.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Shared>);

/// The receiving half: one thread's.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    framer: Framer,
}

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The server's number for it: the next reply of an exhaust stream answers this.
    pub id: RequestId,
    /// The request it answers.
    pub response_to: RequestId,
    /// The message.
    pub message: Message,
}

/// Makes the two halves of a connected socket.
pub(super) fn link(socket: Socket) -> io::Result<(Sender, Receiver)> {
    let limits = Limits::default();
    let out = Out { queue: VecDeque::new(), queued: 0, next_id: 1, limits, closed: false };
    let shared = Arc::new(Shared { socket, waker: Waker::new()?, out: Mutex::new(out) });
    Ok((Sender(shared.clone()), Receiver { shared, framer: Framer::new(limits) }))
}

impl Sender {
    /// Sends a command, or queues what the socket does not take now. Never blocks on the
    /// network.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a command over the server's bounds; [`Error::Link`] as not sent when
    /// the link is down or [`MAX_QUEUED`] is reached, as unknown when it breaks halfway.
    pub fn send(&self, command: Command) -> Result<RequestId, Error> {
        let mut out = self.0.out();
        if out.closed {
            return Err(link_error(Sent::No, io::ErrorKind::NotConnected.into()));
        }
        let id = RequestId(out.next_id);
        let message = command.encode(id, &out.limits)?;
        let len = message.len();
        if out.queued + len > MAX_QUEUED {
            return Err(link_error(Sent::No, io::ErrorKind::WouldBlock.into()));
        }
        // Stays positive: 0 means "answers nothing".
        out.next_id = out.next_id.checked_add(1).unwrap_or(1);
        let waiting = !out.queue.is_empty();
        out.queued += len;
        let piece = |bytes| Piece { of: id, untouched: true, bytes };
        out.queue.extend(message.into_parts().into_iter().map(piece));
        if waiting {
            return Ok(id);
        }
        match self.0.flush(&mut out) {
            Ok(()) => {
                if !out.queue.is_empty() {
                    self.0.waker.wake();
                }
                Ok(id)
            }
            Err(source) => {
                // The queue was empty before, so what is left of it is this message's.
                let sent = if out.queued == len { Sent::No } else { Sent::Unknown };
                out.closed = true;
                Err(link_error(sent, source))
            }
        }
    }

    /// Ends the connection; its receiver wakes up with an error.
    pub fn close(&self) {
        self.0.out().closed = true;
        self.0.socket.shut_down();
        self.0.waker.wake();
    }

    /// Makes the receiver return from its wait as if the time were up.
    pub fn wake(&self) {
        self.0.waker.wake();
    }

    /// Whether no byte of this request has been sent: after the link broke, it is known not to
    /// have been executed and may be sent again freely.
    pub fn never_sent(&self, id: RequestId) -> bool {
        self.0.out().queue.iter().any(|piece| piece.of == id && piece.untouched)
    }

    /// Whether it is closed, from whichever side.
    pub fn is_closed(&self) -> bool {
        self.0.out().closed
    }

    /// Bytes that wait for the socket.
    pub fn queued(&self) -> usize {
        self.0.out().queued
    }
}

impl Receiver {
    /// The next message, or `None` when `until` has come or the sending half woke it; call it
    /// again then. Sends on what waits for the socket meanwhile.
    ///
    /// # Errors
    /// [`Error::Link`] when the link is down: whatever was sent and not answered is open, unless
    /// [`Sender::never_sent`] says otherwise.
    /// [`Error::Peer`] when the server breaks the protocol; the link is then closed.
    pub fn receive(&mut self, until: Option<Instant>) -> Result<Option<Incoming>, Error> {
        match self.try_receive(until) {
            Err(error) => {
                self.shared.out().closed = true;
                self.shared.socket.shut_down();
                Err(error)
            }
            received => received,
        }
    }

    /// The next message, if all of it is here already: nothing is read.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub fn buffered(&mut self) -> Result<Option<Incoming>, Error> {
        self.framed().inspect_err(|_| {
            self.shared.out().closed = true;
            self.shared.socket.shut_down();
        })
    }

    fn framed(&mut self) -> Result<Option<Incoming>, Error> {
        let Some(frame) = self.framer.next_frame()? else { return Ok(None) };
        let message = frame.message(self.framer.limits())?;
        let header = frame.header;
        Ok(Some(Incoming { id: header.id, response_to: header.response_to, message }))
    }

    fn try_receive(&mut self, until: Option<Instant>) -> Result<Option<Incoming>, Error> {
        let unknown = |source| link_error(Sent::Unknown, source);
        let mut woken = false;
        loop {
            if let Some(incoming) = self.framed()? {
                return Ok(Some(incoming));
            }
            if woken {
                return Ok(None);
            }
            let for_write = !self.shared.out().queue.is_empty();
            let ready =
                wait(&self.shared.socket, &self.shared.waker, for_write, until).map_err(unknown)?;
            if ready.writable {
                let mut out = self.shared.out();
                self.shared.flush(&mut out).map_err(unknown)?;
            }
            if ready.readable {
                let got = self.shared.socket.receive(self.framer.space()).map_err(unknown)?;
                if got == Some(0) {
                    return Err(unknown(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            woken = ready.woken || ready == Ready::default();
        }
    }

    /// Applies the bounds of the hello reply to both halves.
    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.shared.out().limits = limits;
        // What comes in is bounded by our own bound alone: a reply may be as large as a message,
        // and servers do not count their replies against what they accept.
        self.framer.set_limits(Limits { max_message: Limits::default().max_message, ..limits });
    }

    /// Whether the idle link is still good.
    pub(super) fn is_quiet(&self) -> bool {
        !self.shared.out().closed && self.shared.socket.is_quiet()
    }
}

pub(crate) fn link_error(sent: Sent, source: io::Error) -> Error {
    Error::Link(LinkError { sent, source })
}

/// Requests under way on one connection, to be matched with replies by `responseTo`. A reply
/// with `moreToCome` moves its entry to the id the next one will answer.
#[derive(Debug, Clone)]
pub struct InFlight<T> {
    entries: VecDeque<(RequestId, T)>,
    capacity: usize,
}

impl<T> InFlight<T> {
    /// Room for so many requests.
    pub fn new(capacity: usize) -> InFlight<T> {
        InFlight { entries: VecDeque::new(), capacity }
    }

    /// Whether another request may be sent.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.capacity
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The request that has waited longest.
    pub fn oldest(&self) -> Option<RequestId> {
        self.entries.front().map(|(id, _)| *id)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes a request that has been sent.
    ///
    /// # Errors
    /// There is no room: [`InFlight::has_room`] was not asked.
    pub fn insert(&mut self, id: RequestId, request: T) -> Result<(), Misuse> {
        if !self.has_room() {
            return Err(Misuse::Session("more requests in flight than the bound allows"));
        }
        self.entries.push_back((id, request));
        Ok(())
    }

    /// What a reply answers. Servers answer in order, so the first entry is looked at first. A
    /// stream's request is given to `keep` by reference and stays; else it is taken out.
    ///
    /// # Errors
    /// It answers nothing that was asked.
    pub fn answer(&mut self, reply: &Incoming) -> Result<Answer<'_, T>, PeerError> {
        let more = reply.message.flags.has(crate::wire::msg::Flags::MORE_TO_COME);
        let at = self.entries.iter().position(|(id, _)| *id == reply.response_to);
        let nothing = PeerError::new("a reply to nothing that was asked", 8);
        let at = at.ok_or(nothing)?;
        if more {
            let (id, request) = self.entries.get_mut(at).ok_or(nothing)?;
            *id = reply.id;
            return Ok(Answer::More(request));
        }
        let (_, request) = self.entries.remove(at).ok_or(nothing)?;
        Ok(Answer::Last(request))
    }

    /// All that is under way, oldest first, when the link is gone.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.entries.drain(..).map(|(_, request)| request)
    }
}

/// The request a reply answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a, T> {
    /// The only or last reply: the request is done.
    Last(T),
    /// One of a stream: more will come without asking.
    More(&'a mut T),
}
