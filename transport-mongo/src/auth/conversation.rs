//! The commands that carry a SCRAM exchange: `speculativeAuthenticate` inside hello, `saslStart`
//! and `saslContinue`.
//!
//! Source: the authentication and handshake specifications.

use bytes::Bytes;

use super::scram::{self, ExpectServerFinal, ExpectServerFirst, Hash, KeyCache};
use crate::error::{AuthError, Error, PeerError};
use crate::uri::{Credential, Mechanism, Secret};
use crate::wire::command::Command;
use crate::wire::doc::{Doc, Value};

/// One authentication of one connection.
#[derive(Debug, Clone)]
pub struct Conversation {
    source: String,
    hash: Hash,
    first: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    ExpectServerFirst(ExpectServerFirst),
    ExpectServerFinal(ExpectServerFinal),
    /// The server is proven; only its empty message (or nothing) is still to come.
    Proven,
}

/// What to do after a reply.
#[derive(Debug)]
pub enum Step {
    /// Send this and hand its reply to the conversation.
    Send(Box<Command>, Conversation),
    /// Authenticated both ways.
    Done,
}

/// The subtype of payloads.
const BINARY_GENERIC: u8 = 0;

impl Conversation {
    /// Begins an exchange by `mechanism` ([`choose`] says which). `nonce` is fresh
    /// ([`scram::nonce`]).
    ///
    /// # Errors
    /// A mechanism outside the SCRAM family, or a password SASLprep refuses.
    pub fn new(
        credential: &Credential,
        mechanism: Mechanism,
        nonce: &str,
    ) -> Result<Conversation, AuthError> {
        let hash = Hash::of(mechanism)?;
        let username = credential.username.as_ref().map_or("", Secret::reveal);
        let Some(password) = credential.password.as_ref().map(Secret::reveal) else {
            return Err(AuthError::Exchange("SCRAM needs a password and none was given"));
        };
        let (first, state) = scram::start(hash, username, password, nonce)?;
        let source = credential.source.clone();
        Ok(Conversation { source, hash, first, state: State::ExpectServerFirst(state) })
    }

    /// The `saslStart` that begins the exchange when hello did not.
    pub fn start(&self) -> Command {
        let mut command = Command::new("saslStart", &self.source);
        self.write_start(command.body());
        command
    }

    /// Adds `speculativeAuthenticate` to a hello: a round trip less.
    pub fn speculate(&self, hello: &mut Command) {
        let body = hello.body();
        body.begin("speculativeAuthenticate").i32("saslStart", 1);
        self.write_start(body);
        body.str("db", &self.source).end();
    }

    fn write_start(&self, body: &mut crate::wire::build::DocBuf) {
        body.str("mechanism", self.hash.mechanism())
            .binary("payload", BINARY_GENERIC, Bytes::from(self.first.clone()))
            .begin("options")
            .bool("skipEmptyExchange", true)
            .end();
    }

    /// Takes the reply to `saslStart`, `saslContinue`, or the `speculativeAuthenticate` part of
    /// a hello reply.
    ///
    /// # Errors
    /// A reply of another shape, an exchange that breaks SCRAM, or a server that says it is done
    /// before it has proven itself.
    pub fn on_reply(mut self, reply: &Doc, cache: &mut KeyCache) -> Result<Step, Error> {
        let (mut id, mut done, mut payload) = (None, false, None);
        for element in reply {
            match (element.name, element.value) {
                (b"conversationId", value) => id = value.as_i64(),
                (b"done", value) => done = value.as_bool().unwrap_or(false),
                (b"payload", Value::Binary { data, .. }) => payload = Some(data),
                _ => {}
            }
        }
        let shape = PeerError::new("a SASL reply without conversationId and payload", 0);
        let (id, payload) = (id.ok_or(shape)?, payload.ok_or(shape)?);
        let (answer, state) = match self.state {
            State::ExpectServerFirst(_) if done => {
                return Err(AuthError::Exchange("done before the server has proven itself").into());
            }
            State::ExpectServerFirst(state) => {
                let (answer, state) = state.on_server_first(&payload, cache)?;
                (answer, State::ExpectServerFinal(state))
            }
            State::ExpectServerFinal(state) => {
                state.on_server_final(&payload)?;
                if done {
                    return Ok(Step::Done);
                }
                // A server that does not know skipEmptyExchange wants one more, empty.
                (Vec::new(), State::Proven)
            }
            State::Proven if done => return Ok(Step::Done),
            State::Proven => {
                return Err(AuthError::Exchange("not done after the whole exchange").into());
            }
        };
        let mut command = Command::new("saslContinue", &self.source);
        let body = command.body();
        // Back as it came: the server compares it as a 32-bit number.
        match i32::try_from(id) {
            Ok(id) => body.i32("conversationId", id),
            Err(_) => body.i64("conversationId", id),
        };
        body.binary("payload", BINARY_GENERIC, Bytes::from(answer));
        self.state = state;
        Ok(Step::Send(Box::new(command), self))
    }
}

/// The mechanism to use: the credential's own, else SCRAM-SHA-256 unless the server lists only
/// SCRAM-SHA-1 for this user (authentication spec, "Default Authentication Methods").
pub fn choose(credential: &Credential, supported: Option<&[String]>) -> Mechanism {
    let lists = |name: &str| supported.is_some_and(|list| list.iter().any(|m| m == name));
    match credential.mechanism {
        Some(mechanism) => mechanism,
        None if lists(Hash::Sha256.mechanism()) => Mechanism::ScramSha256,
        // A server that lists nothing knows no such user, or no list: SHA-1 is the fallback.
        None => Mechanism::ScramSha1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::ConnectionString;
    use crate::wire::build::DocBuf;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn conversation() -> Conversation {
        let uri = ConnectionString::parse("mongodb://user:pencil@h/").unwrap();
        let credential = uri.credential.unwrap();
        Conversation::new(&credential, Mechanism::ScramSha256, NONCE).unwrap()
    }

    fn reply(payload: &str, done: bool) -> Doc {
        let mut doc = DocBuf::new();
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        doc.i32("conversationId", 1).bool("done", done).binary("payload", 0, payload);
        doc.f64("ok", 1.0);
        doc.finish_doc().unwrap()
    }

    fn send(step: Result<Step, Error>) -> Conversation {
        match step.unwrap() {
            Step::Send(command, next) => {
                assert_eq!(command.name(), "saslContinue");
                next
            }
            Step::Done => panic!("done too early"),
        }
    }

    #[test]
    fn the_empty_exchange_is_skipped_or_answered() {
        let mut cache = KeyCache::default();
        let after_first = send(conversation().on_reply(&reply(SERVER_FIRST, false), &mut cache));
        let short = after_first.clone().on_reply(&reply(SERVER_FINAL, true), &mut cache);
        assert!(matches!(short, Ok(Step::Done)));
        let long = send(after_first.on_reply(&reply(SERVER_FINAL, false), &mut cache));
        assert!(matches!(long.clone().on_reply(&reply("", true), &mut cache), Ok(Step::Done)));
        assert!(long.on_reply(&reply("", false), &mut cache).is_err());
    }

    #[test]
    fn a_server_that_is_done_without_proof_is_refused() {
        let mut cache = KeyCache::default();
        assert!(conversation().on_reply(&reply(SERVER_FIRST, true), &mut cache).is_err());
        let state = send(conversation().on_reply(&reply(SERVER_FIRST, false), &mut cache));
        assert!(state.on_reply(&reply("", true), &mut cache).is_err());
        assert!(matches!(conversation().on_reply(&Doc::empty(), &mut cache), Err(Error::Peer(_))));
    }

    #[test]
    fn hello_carries_the_start_and_the_database() {
        let mut hello = Command::new("hello", "admin");
        conversation().speculate(&mut hello);
        let id = crate::wire::frame::RequestId(1);
        let bytes = hello.encode(id, &Default::default()).unwrap().concat();
        let doc = Doc::parse(bytes.slice(21..)).unwrap();
        let start = doc.get("speculativeAuthenticate").unwrap();
        let start = start.as_doc().unwrap();
        assert_eq!(start.get("saslStart"), Some(Value::Int32(1)));
        assert_eq!(start.get("db"), Some(Value::Str(b"admin")));
        assert_eq!(start.get("mechanism"), Some(Value::Str(b"SCRAM-SHA-256")));
    }

    #[test]
    fn the_mechanism_follows_the_credential_then_the_servers_list() {
        let uri = |text| ConnectionString::parse(text).unwrap().credential.unwrap();
        let named = uri("mongodb://u:p@h/?authMechanism=SCRAM-SHA-1");
        let open = uri("mongodb://u:p@h/");
        let both = ["SCRAM-SHA-1".to_owned(), "SCRAM-SHA-256".to_owned()];
        assert_eq!(choose(&named, Some(&both)), Mechanism::ScramSha1);
        assert_eq!(choose(&open, Some(&both)), Mechanism::ScramSha256);
        assert_eq!(choose(&open, Some(&both[..1])), Mechanism::ScramSha1);
        assert_eq!(choose(&open, None), Mechanism::ScramSha1);
    }
}
