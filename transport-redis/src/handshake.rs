//! From an address to a connection that is of use: find, connect, greet, authenticate, select,
//! track. The thread stays answerable all the while.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use dbmount_engine::backend::redis::{Redis, Reply, Script};
use dbmount_engine::contract::Input;
use dbmount_engine::id::Lane;
use rustix::event::PollFlags;

use crate::lane::Shared;
use crate::pipeline::script_text;
use crate::resp::{self, Decoder, Frame, Limits, Outbox, ProtocolError};
use crate::socket::{Socket, wait};
use crate::url::{Address, Endpoint};

/// A connection that is of use.
pub(crate) struct Connected {
    pub(crate) socket: Arc<Socket>,
    /// It may hold bytes already.
    pub(crate) decoder: Decoder,
    /// The server will send invalidations.
    pub(crate) pushes: bool,
    /// It knows the flags in the first line of a script (Redis 7.0).
    pub(crate) script_flags: bool,
    /// The scripts that it has for certain.
    pub(crate) scripts: Vec<&'static Script>,
    /// Pushes that came before the hand-shake ended.
    pub(crate) early: Vec<Input<Redis>>,
}

/// Why there is no connection. Each reason is one line for the user.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again may help.
    Down(String),
    /// It cannot.
    Refused(String),
    /// Nobody wants one any more.
    Closing,
}

/// What a server may send before we know that it is one.
const LIMITS: Limits = Limits { bulk: 64 << 10, frame: 256 << 10, elements: 4096 };

/// Makes the connection of a lane.
pub(crate) fn connect(shared: &Shared) -> Result<Connected, Failure> {
    let deadline = Instant::now() + shared.options.connect_timeout;
    let socket = match &shared.endpoint.address {
        Address::Unix(path) => Socket::unix(path).map_err(|e| unreachable(shared, &e))?,
        Address::Tcp { host, port } => {
            let addresses = resolve(shared, host, *port, deadline)?;
            connect_any(shared, &addresses, deadline)?
        }
    };
    let deadline = Instant::now() + shared.options.handshake_timeout;
    let decoder = Decoder::new(LIMITS);
    let mut talk = Talk {
        shared,
        socket: &socket,
        decoder,
        deadline,
        heard: false,
        script_flags: false,
        early: Vec::new(),
    };
    let resp3 = talk.greet()?;
    let (pushes, scripts) = talk.set_up(resp3)?;
    let (mut decoder, script_flags, early) = (talk.decoder, talk.script_flags, talk.early);
    decoder.set_limits(shared.options.limits);
    Ok(Connected { socket: Arc::new(socket), decoder, pushes, script_flags, scripts, early })
}

/// Waits for the socket, delivering meanwhile what can be delivered.
fn wait_for(
    shared: &Shared,
    socket: Option<(&Socket, PollFlags)>,
    deadline: Instant,
    doing: &str,
) -> Result<(), Failure> {
    loop {
        let ready = wait(&shared.bell, socket, Some(deadline)).map_err(|e| internal(&e))?;
        if !shared.deliver_ready() {
            return Err(Failure::Closing);
        }
        if !ready.is_empty() || socket.is_none() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let endpoint = &shared.endpoint;
            return Err(Failure::Down(format!("{endpoint} did not answer in time ({doing})")));
        }
    }
}

fn resolve(
    shared: &Shared,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<Vec<SocketAddr>, Failure> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    // The system's resolver cannot be interrupted; this thread must stay answerable.
    let (tell, told) = mpsc::channel();
    let (host, bell) = (host.to_owned(), shared.bell.clone());
    let name = "redis-resolve".to_owned();
    let looked_up = thread::Builder::new().name(name).spawn(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Vec::from_iter);
        let _ = tell.send(found);
        bell.ring();
    });
    looked_up.map_err(|e| internal(&e))?;
    loop {
        match told.try_recv() {
            Ok(Ok(found)) if found.is_empty() => {
                return Err(Failure::Down(format!("{}: the host has no address", shared.endpoint)));
            }
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(e)) => {
                return Err(Failure::Down(format!(
                    "cannot find the host of {}: {e}",
                    shared.endpoint
                )));
            }
            Err(_) if Instant::now() >= deadline => {
                return Err(Failure::Down(format!(
                    "cannot find the host of {}: the name service does not answer",
                    shared.endpoint
                )));
            }
            Err(_) => wait_for(shared, None, deadline, "name lookup")?,
        }
    }
}

/// Tries the addresses one after the other, each with its share of the time.
fn connect_any(
    shared: &Shared,
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<Socket, Failure> {
    let mut last = Failure::Down(format!("{}: the host has no address", shared.endpoint));
    for (at, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - at) as u32;
        let attempt = Socket::tcp(*address).map_err(|e| unreachable(shared, &e));
        let attempt = attempt.and_then(|socket| {
            wait_for(shared, Some((&socket, PollFlags::OUT)), now + share, "connecting")?;
            socket.error().map_err(|e| unreachable(shared, &e))?;
            Ok(socket)
        });
        match attempt {
            Err(Failure::Down(line)) => last = Failure::Down(line),
            other => return other,
        }
    }
    Err(last)
}

/// A conversation in turns.
struct Talk<'a> {
    shared: &'a Shared,
    socket: &'a Socket,
    decoder: Decoder,
    deadline: Instant,
    /// A whole frame came: it is a Redis server.
    heard: bool,
    script_flags: bool,
    early: Vec<Input<Redis>>,
}

impl Talk<'_> {
    /// Agrees on a protocol and authenticates. Whether that protocol is RESP3.
    fn greet(&mut self) -> Result<bool, Failure> {
        let Endpoint { user, password, client_name, .. } = &*self.shared.endpoint;
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        let credentials = (user.is_some() || password.is_some()).then(|| {
            let password = password.as_ref().map_or(&b""[..], |secret| secret.expose());
            (user.as_deref().unwrap_or("default").as_bytes(), password)
        });
        if let Some((user, password)) = credentials {
            hello.extend([b"AUTH", user, password]);
        }
        hello.extend([b"SETNAME", client_name.as_bytes()]);
        match self.ask(&[&hello])?.remove(0) {
            Reply::Error(line) if line.starts_with("NOPROTO") || is_unknown(&line, "hello") => {}
            Reply::Error(line) => return Err(self.refusal("HELLO", &line)),
            fields => return self.check_server(&fields).map(|()| true),
        }
        tracing::info!(endpoint = %self.shared.endpoint, "no RESP3 here; falling back to RESP2");
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        match credentials {
            Some((name, password)) if user.is_some() => {
                commands.push(vec![b"AUTH", name, password]);
            }
            Some((_, password)) => commands.push(vec![b"AUTH", password]),
            None => {}
        }
        commands.push(vec![b"CLIENT", b"SETNAME", client_name.as_bytes()]);
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let replies = self.ask(&commands)?;
        match (&replies[..], credentials) {
            // A server without a password is told of it, and works.
            ([Reply::Error(line), _], Some(_)) if line.contains("no password is set") => {
                tracing::warn!(endpoint = %self.shared.endpoint, "the server asks for no password");
            }
            ([Reply::Error(line), _], Some(_)) => return Err(self.refusal("AUTH", line)),
            _ => {}
        }
        Ok(false)
    }

    /// Looks through the reply to HELLO for a server of a kind that we cannot use.
    fn check_server(&mut self, fields: &Reply) -> Result<(), Failure> {
        let fields = fields.as_array().unwrap_or_default();
        let field = |name: &[u8]| {
            let pair = fields.chunks_exact(2).find(|pair| pair[0].as_bytes() == Some(name));
            let value = pair.and_then(|pair| pair[1].as_bytes()).unwrap_or_default();
            String::from_utf8_lossy(value).into_owned()
        };
        let endpoint = &self.shared.endpoint;
        let (mode, role, version) = (field(b"mode"), field(b"role"), field(b"version"));
        tracing::debug!(%endpoint, lane = ?self.shared.lane, version, mode, role, "greeted");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.script_flags = major.is_some_and(|major| major >= 7);
        match mode.as_str() {
            "cluster" => Err(Failure::Refused(format!(
                "{endpoint} is in cluster mode, which is not supported yet; \
                 use a server without cluster-enabled"
            ))),
            "sentinel" => Err(Failure::Refused(format!(
                "{endpoint} is a Sentinel; give the address of the server it watches over"
            ))),
            _ => Ok(()),
        }
    }

    /// Everything behind authentication, in one flight. Whether invalidations will come, and
    /// which scripts the server took.
    fn set_up(&mut self, resp3: bool) -> Result<(bool, Vec<&'static Script>), Failure> {
        let Shared { endpoint, options, lane, .. } = self.shared;
        let db = endpoint.db.to_string();
        let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"PING"]];
        let select = endpoint.db != 0;
        if select {
            commands.push(vec![b"SELECT", db.as_bytes()]);
        }
        let wanted = *lane == Lane::Meta && options.tracking;
        let track = wanted && resp3;
        if track {
            let mut tracking: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
            for prefix in &options.tracking_prefixes {
                tracking.extend([b"PREFIX", &prefix[..]]);
            }
            commands.push(tracking);
        }
        for script in &options.scripts {
            let text = script_text(script, self.script_flags);
            commands.push(vec![b"SCRIPT", b"LOAD", text.as_bytes()]);
        }
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let mut replies = self.ask(&commands)?.into_iter();
        // PING tells a server that is still loading, or that waits for a password (under RESP2
        // nothing else has asked yet). A user who may not ping may still do all the rest.
        match replies.next() {
            Some(Reply::Error(line)) if !line.starts_with("NOPERM") => {
                return Err(self.refusal("PING", &line));
            }
            _ => {}
        }
        if select && let Some(Reply::Error(line)) = replies.next() {
            return Err(self.refusal("SELECT", &line));
        }
        let pushes = track && self.accepted("CLIENT TRACKING", replies.next());
        if wanted && !pushes {
            tracing::warn!(%endpoint, "changes by other clients are only seen by looking again");
        }
        let scripts = options.scripts.iter().copied();
        let scripts = scripts.zip(replies).filter(|(script, reply)| {
            if let Some(line) = reply.as_error() {
                tracing::debug!(%endpoint, script = script.name, line, "SCRIPT LOAD was refused");
            }
            reply.as_error().is_none()
        });
        Ok((pushes, scripts.map(|(script, _)| script).collect()))
    }

    /// Whether an optional command worked; if not, the log says why.
    fn accepted(&self, command: &str, reply: Option<Reply>) -> bool {
        match reply {
            Some(Reply::Error(line)) => {
                tracing::warn!(endpoint = %self.shared.endpoint, "{command} was refused: {line}");
                false
            }
            reply => reply.is_some(),
        }
    }

    /// Sends commands in one flight and waits for as many replies.
    fn ask(&mut self, commands: &[&[&[u8]]]) -> Result<Vec<Reply>, Failure> {
        let mut out = Outbox::default();
        for command in commands {
            out.command(command.len());
            command.iter().for_each(|argument| out.text(argument));
        }
        let mut replies = Vec::with_capacity(commands.len());
        while replies.len() < commands.len() {
            match self.decoder.next_frame() {
                Ok(Some(Frame::Reply(reply))) => {
                    self.heard = true;
                    replies.push(reply);
                    continue;
                }
                Ok(Some(Frame::Push(fields))) => {
                    self.early.extend(resp::push(fields).map(Input::Push));
                    continue;
                }
                Ok(None) => {}
                Err(e) => return Err(self.not_redis(&e)),
            }
            let mut flags = PollFlags::IN;
            if !out.is_empty() {
                flags |= PollFlags::OUT;
            }
            wait_for(self.shared, Some((self.socket, flags)), self.deadline, "hand-shake")?;
            self.write(&mut out)?;
            let mut source = self.socket;
            match self.decoder.receive(&mut source) {
                Ok((0, _)) => return Err(self.closed("it closed the connection")),
                Ok(_) => {}
                Err(e) if is_transient(&e) => {}
                Err(e) => return Err(self.closed(plainly(&e))),
            }
        }
        Ok(replies)
    }

    fn write(&self, out: &mut Outbox) -> Result<(), Failure> {
        while !out.is_empty() {
            let mut slices = [io::IoSlice::new(&[])];
            out.slices(&mut slices);
            match self.socket.send(&slices) {
                Ok(n) => out.advance(n),
                Err(e) if is_transient(&e) => return Ok(()),
                // What the server said before it hung up tells more: read on.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn closed(&self, why: impl fmt::Display) -> Failure {
        let hint = if self.heard { "" } else { " (is it a Redis server, and one without TLS?)" };
        Failure::Down(format!("{} went away during the hand-shake: {why}{hint}", self.endpoint()))
    }

    fn not_redis(&self, error: &ProtocolError) -> Failure {
        let endpoint = self.endpoint();
        if self.heard {
            return Failure::Down(format!(
                "{endpoint} sent what is not the Redis protocol: {error}"
            ));
        }
        Failure::Refused(format!(
            "what answers at {endpoint} is not a Redis server, or wants TLS ({error}); \
             check host and port"
        ))
    }

    /// What an error line of a server means for the connection.
    fn refusal(&self, command: &str, line: &str) -> Failure {
        let endpoint = self.endpoint();
        let line = &without_password(line, endpoint);
        let user = self.shared.endpoint.user.as_deref().unwrap_or("default");
        let code = line.split(' ').next().unwrap_or_default();
        // Servers older than 6 have no codes here.
        let lower = line.to_ascii_lowercase();
        let wrong_pass = code == "WRONGPASS" || lower.contains("invalid password");
        Failure::Refused(match code {
            _ if wrong_pass => {
                format!("{endpoint} refuses the password of user '{user}', or the user")
            }
            "NOAUTH" => format!(
                "{endpoint} asks for a password: give it as redis://USER:PASSWORD@…, in \
                 DBMOUNT_PASSWORD or with --password-file"
            ),
            "NOPERM" => format!(
                "{endpoint} does not let user '{user}' use {command}: grant it with \
                 ACL SETUSER {user} +{}",
                command.to_ascii_lowercase()
            ),
            "DENIED" => {
                format!("{endpoint} is in protected mode and lets no other host in: {line}")
            }
            _ if command == "SELECT" && lower.contains("out of range") => {
                format!("{endpoint} has no database {}", self.shared.endpoint.db)
            }
            _ if command == "SELECT" && code == "ERR" => {
                format!("{endpoint}: cannot use database {}: {line}", self.shared.endpoint.db)
            }
            _ if command == "AUTH" && lower.contains("wrong number of arguments") => {
                format!("{endpoint} knows no user names: leave '{user}' out")
            }
            _ => return Failure::Down(format!("{endpoint} answers {command} with: {line}")),
        })
    }

    fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }
}

/// Some errors repeat the arguments of the command.
fn without_password(line: &str, endpoint: &Endpoint) -> String {
    let secret = endpoint.password.as_ref().map_or(&b""[..], |secret| secret.expose());
    match str::from_utf8(secret) {
        Ok(secret) if !secret.is_empty() => line.replace(secret, "…"),
        _ => line.to_owned(),
    }
}

fn is_unknown(line: &str, command: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("unknown") && line.contains("command") && line.contains(command)
        || line.contains("unsupported command")
}

/// Without the number that Rust adds.
pub(crate) fn plainly(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn unreachable(shared: &Shared, error: &io::Error) -> Failure {
    let hint = match (error.kind(), &shared.endpoint.address) {
        (io::ErrorKind::ConnectionRefused, _) => " (is the server running?)",
        (io::ErrorKind::NotFound, Address::Unix(_)) => {
            " (no such socket: is the server running, and its 'unixsocket' set?)"
        }
        (io::ErrorKind::PermissionDenied, Address::Unix(_)) => {
            " (see 'unixsocketperm' in the server's configuration)"
        }
        _ => "",
    };
    Failure::Down(format!("cannot reach {}: {}{hint}", shared.endpoint, plainly(error)))
}

fn internal(error: &io::Error) -> Failure {
    Failure::Down(format!("cannot connect for want of something local: {error}"))
}
