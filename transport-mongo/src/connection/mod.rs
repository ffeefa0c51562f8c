//! Connections: the only place with sockets. Connecting, the handshake, one command at a time,
//! and the two halves for everything faster.

mod deployment;
mod link;
mod monitor;
mod pool;
mod socket;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use deployment::Deployment;
pub use link::{Answer, InFlight, Incoming, MAX_QUEUED, Receiver, Sender};
pub use monitor::{Heard, Monitor};
pub use pool::{Pool, PoolBounds, Pooled};

use crate::auth::conversation::{Conversation, Step, choose};
use crate::auth::scram::{KeyCache, NONCE_BYTES, nonce};
use crate::error::{AuthError, COMMAND_NOT_FOUND, Error, Misuse, PeerError, Sent, ServerError};
use crate::hello::{self, HelloName, HelloReply};
use crate::uri::{ConnectionString, Credential, Mechanism, Secret, ServerAddress};
use crate::wire::command::Command;
use crate::wire::doc::Doc;
use crate::wire::frame::RequestId;
use crate::wire::msg::{Flags, Message};
use link::link;
pub(crate) use link::link_error;
use socket::Socket;

/// What every connection of one deployment has in common.
#[derive(Clone)]
pub struct Setup {
    /// Sent in the handshake, for the server's logs.
    pub app_name: Option<String>,
    /// Whom to authenticate as; monitors never do.
    pub credential: Option<Credential>,
    /// Whether a load balancer stands in between.
    pub load_balanced: bool,
    keys: Arc<Mutex<KeyCache>>,
}

impl Setup {
    /// From a connection string.
    ///
    /// # Errors
    /// [`Error::Misuse`] for TLS, which is not there yet, and [`Error::Auth`] for a mechanism
    /// outside the SCRAM family: better now than at the first connection.
    pub fn from_uri(uri: &ConnectionString) -> Result<Setup, Error> {
        if uri.options.tls == Some(true) {
            return Err(Misuse::Tls.into());
        }
        if uri.options.proxy_host.is_some() {
            return Err(Misuse::Unsupported("a SOCKS5 proxy").into());
        }
        if let Some(mechanism) = uri.credential.as_ref().and_then(|c| c.mechanism) {
            crate::auth::scram::Hash::of(mechanism)?;
        }
        Ok(Setup {
            app_name: uri.options.app_name.clone(),
            credential: uri.credential.clone(),
            load_balanced: uri.options.load_balanced == Some(true),
            keys: Arc::default(),
        })
    }

    /// The same without credentials, for a monitor.
    fn anonymous(&self) -> Setup {
        Setup { credential: None, ..self.clone() }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("app_name", &self.app_name)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// An authenticated connection, used by one thread until it is split.
#[derive(Debug)]
pub struct Connection {
    address: ServerAddress,
    sender: Sender,
    receiver: Receiver,
    hello: HelloReply,
    hello_name: HelloName,
    /// What was submitted and not waited for yet, with the reply if it came early. A reply to
    /// anything else is the server's mistake, so this never outgrows what was asked.
    expected: BTreeMap<RequestId, Option<Message>>,
}

impl Connection {
    /// Connects, shakes hands and authenticates, all before `deadline`: two round trips with
    /// SCRAM, one without.
    ///
    /// # Errors
    /// [`Error::Link`] when the server cannot be reached or does not answer in time,
    /// [`Error::Auth`] when it refuses the credentials or cannot prove itself,
    /// [`Error::Misuse`] for a server too old or too new.
    pub fn open(
        address: &ServerAddress,
        setup: &Setup,
        deadline: Instant,
    ) -> Result<Connection, Error> {
        let not_sent = |source| link_error(Sent::No, source);
        let socket = Socket::connect(address, deadline).map_err(not_sent)?;
        let (sender, receiver) = link(socket).map_err(not_sent)?;
        let mut connection = Connection {
            address: address.clone(),
            sender,
            receiver,
            hello: HelloReply::default(),
            hello_name: HelloName::Hello,
            expected: BTreeMap::new(),
        };
        connection.shake_hands(setup, deadline)?;
        Ok(connection)
    }

    fn shake_hands(&mut self, setup: &Setup, deadline: Instant) -> Result<(), Error> {
        let credential = setup.credential.as_ref();
        let speculative = match credential {
            None => None,
            // Without a named mechanism SHA-256 is the likely one.
            Some(c) => {
                let mechanism = c.mechanism.unwrap_or(Mechanism::ScramSha256);
                match Conversation::new(c, mechanism, &fresh_nonce()?) {
                    // The password may still be good for SHA-1, which does not prepare it.
                    Err(AuthError::Prohibited) if c.mechanism.is_none() => None,
                    started => Some(started?),
                }
            }
        };
        // The list of mechanisms is needed only where none is named.
        let user = credential.filter(|c| c.mechanism.is_none()).map(|c| {
            let name = c.username.as_ref().map_or("", Secret::reveal);
            format!("{}.{name}", c.source)
        });
        let hello = |name| {
            let app_name = setup.app_name.as_deref();
            let user = user.as_deref();
            hello::handshake(name, app_name, user, speculative.as_ref(), setup.load_balanced)
        };
        let reply = match self.call(hello(HelloName::Hello), Some(deadline)) {
            Err(Error::Server(error)) if error.code == COMMAND_NOT_FOUND => {
                self.hello_name = HelloName::IsMaster;
                self.call(hello(HelloName::IsMaster), Some(deadline))?
            }
            reply => reply?,
        };
        self.hello = HelloReply::from_doc(&reply)?;
        if !self.hello.compatible() {
            let old = self.hello.max_wire_version < hello::MIN_WIRE_VERSION;
            let what =
                if old { "a server older than MongoDB 4.2" } else { "a server as new as this" };
            return Err(Misuse::Unsupported(what).into());
        }
        self.receiver.set_limits(self.hello.limits);
        match credential {
            // An arbiter has no users (authentication spec).
            Some(credential) if !self.hello.arbiter_only => {
                self.authenticate(credential, speculative, setup, deadline)
            }
            _ => Ok(()),
        }
    }

    fn authenticate(
        &mut self,
        credential: &Credential,
        speculative: Option<Conversation>,
        setup: &Setup,
        deadline: Instant,
    ) -> Result<(), Error> {
        let begun = self.hello.speculative_authenticate.take().zip(speculative);
        let (mut reply, mut conversation) = match begun {
            Some((reply, conversation)) => (reply, conversation),
            None => {
                let supported = self.hello.sasl_supported_mechs.as_deref();
                let mechanism = choose(credential, supported);
                let conversation = Conversation::new(credential, mechanism, &fresh_nonce()?)?;
                (self.call_sasl(conversation.start(), deadline)?, conversation)
            }
        };
        loop {
            let step = {
                let mut keys = setup.keys.lock().unwrap_or_else(PoisonError::into_inner);
                conversation.on_reply(&reply, &mut keys)?
            };
            match step {
                Step::Done => return Ok(()),
                Step::Send(command, next) => {
                    reply = self.call_sasl(*command, deadline)?;
                    conversation = next;
                }
            }
        }
    }

    fn call_sasl(&mut self, command: Command, deadline: Instant) -> Result<Doc, Error> {
        self.call(command, Some(deadline)).map_err(|error| match error {
            Error::Server(refusal) => AuthError::Refused(refusal).into(),
            other => other,
        })
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// As [`Connection::call_raw`], and [`Error::Server`] for any error in the reply: `ok: 0`,
    /// a write error or a write concern error.
    pub fn call(&mut self, command: Command, deadline: Option<Instant>) -> Result<Doc, Error> {
        let reply = self.call_raw(command, deadline)?;
        match ServerError::from_reply(&reply) {
            Some(error) => Err(error.into()),
            None => Ok(reply),
        }
    }

    /// Sends one command and waits for its reply, whatever it says.
    ///
    /// # Errors
    /// [`Error::Misuse`] before anything is sent; [`Error::Link`] when the link breaks or the
    /// deadline passes (the connection is then closed: a late reply would be taken for another);
    /// [`Error::Peer`] when the server breaks the protocol.
    pub fn call_raw(&mut self, command: Command, deadline: Option<Instant>) -> Result<Doc, Error> {
        let id = self.submit(command)?;
        self.wait_for(id, deadline)
    }

    /// Sends a command and returns at once; [`Connection::wait_for`] waits for the reply, unless
    /// the command wants none. Many can be under way.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn submit(&mut self, command: Command) -> Result<RequestId, Error> {
        let wants_reply = !command.flags().has(Flags::MORE_TO_COME);
        let id = self.sender.send(command)?;
        if wants_reply {
            self.expected.insert(id, None);
        }
        Ok(id)
    }

    /// Waits for the reply to `id`, setting aside replies to other requests.
    ///
    /// # Errors
    /// As [`Connection::call_raw`].
    pub fn wait_for(&mut self, id: RequestId, deadline: Option<Instant>) -> Result<Doc, Error> {
        loop {
            match self.expected.remove(&id) {
                Some(Some(message)) => return Ok(message.body),
                Some(None) => self.expected.insert(id, None),
                None => return Err(Misuse::Session("waiting for what was not submitted").into()),
            };
            let Some(incoming) = self.receiver.receive(deadline)? else {
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    self.sender.close();
                    return Err(link_error(Sent::Unknown, io::ErrorKind::TimedOut.into()));
                }
                continue;
            };
            match self.expected.get_mut(&incoming.response_to) {
                Some(place) if place.is_none() => *place = Some(incoming.message),
                _ => return Err(UNASKED.into()),
            }
        }
    }

    /// The next reply of an exhaust stream that `id` (a request, or the last reply) began, and
    /// the id to wait for next, `None` when it was the last.
    ///
    /// # Errors
    /// As [`Connection::call_raw`], but a deadline that passes leaves the connection as it is
    /// and gives `Ok(None)`.
    pub fn next_of_stream(
        &mut self,
        id: RequestId,
        deadline: Option<Instant>,
    ) -> Result<Option<(Doc, Option<RequestId>)>, Error> {
        let Some(incoming) = self.receiver.receive(deadline)? else { return Ok(None) };
        if incoming.response_to != id {
            return Err(UNASKED.into());
        }
        self.expected.remove(&id);
        let more = incoming.message.flags.has(Flags::MORE_TO_COME);
        Ok(Some((incoming.message.body, more.then_some(incoming.id))))
    }

    /// Where it leads.
    pub fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// What the server said of itself in the handshake.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// Whether it can be used again: open, and nothing unasked has come in.
    pub fn is_quiet(&self) -> bool {
        self.expected.is_empty() && self.receiver.is_quiet()
    }

    /// Ends it from any thread.
    pub fn close(&self) {
        self.sender.close();
    }

    /// A sender that shares this connection, to wake or close it from elsewhere.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The two halves, for one thread that receives and others that send.
    pub fn split(self) -> (Sender, Receiver, HelloReply) {
        (self.sender, self.receiver, self.hello)
    }
}

const UNASKED: PeerError = PeerError::new("a reply to nothing that was asked", 8);

/// Fresh random bytes for ids: nonces, session ids.
///
/// # Errors
/// The system has none.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(link_error(Sent::No, io::Error::other(error.to_string()))),
    }
}

fn fresh_nonce() -> Result<String, Error> {
    random::<NONCE_BYTES>().map(|bytes| nonce(&bytes))
}
