//! A whole deployment: a monitor thread for each server, the topology they report into, and a
//! pool for each server that is selected.
//!
//! The rules are all in [`crate::topology`]; here are only threads, the clock and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::link::link_error;
use super::{Connection, Monitor, Pool, PoolBounds, Pooled, Sender, Setup, random};
use crate::error::{AuthError, Error, Misuse, Sent};
use crate::topology::{
    ApplicationError, Criteria, ErrorKind, HandshakeStage, LOCAL_THRESHOLD_MS, PoolGeneration,
    ServerDescription, ServerType, Topology, TopologyType, in_latency_window, is_recovering,
    pick_by_load,
};
use crate::uri::{ConnectionString, MonitoringMode, ServerAddress};

/// How soon a server may be asked again after a failure (SDAM monitoring spec,
/// `minHeartbeatFrequencyMS`). Asked for by a waiting operation, as every failure is.
const MIN_HEARTBEAT: Duration = Duration::from_millis(500);

/// `heartbeatFrequencyMS` unless the connection string says otherwise.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A deployment being watched. Clones share it; the last one dropped ends its threads.
#[derive(Debug, Clone)]
pub struct Deployment(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The servers as the user named them, for messages.
    hosts: String,
    setup: Setup,
    bounds: PoolBounds,
    mode: MonitoringMode,
    heartbeat: Duration,
    threshold_ms: f64,
    begun: Instant,
    state: Mutex<State>,
    /// Something in the topology changed, or a check was asked for.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    topology: Topology,
    pools: BTreeMap<ServerAddress, Pool>,
    /// Servers with a monitor thread.
    monitors: BTreeMap<ServerAddress, Watch>,
    /// Servers whose polling monitor is to ask again at once.
    urgent: BTreeSet<ServerAddress>,
    /// Tells the monitors of one address apart: a server may leave and come back.
    next_watch: u64,
    /// Connections outside the pools, to be closed when their generation is of the past.
    lanes: Vec<(ServerAddress, PoolGeneration, Sender)>,
}

/// A monitor thread as the deployment knows it.
#[derive(Debug)]
struct Watch {
    id: u64,
    /// Interrupts its connection, once it has one.
    closer: Option<Sender>,
}

impl Watch {
    fn close(&self) {
        self.closer.iter().for_each(Sender::close);
    }
}

impl State {
    /// The entry of this very monitor, `None` when it is not wanted any more.
    fn watch(&mut self, address: &ServerAddress, id: u64) -> Option<&mut Watch> {
        self.monitors.get_mut(address).filter(|watch| watch.id == id)
    }
}

impl Deployment {
    /// Begins to watch the servers of a connection string. Returns at once; [`Self::select`]
    /// waits for what it needs.
    ///
    /// # Errors
    /// As [`Setup::from_uri`]; [`Misuse::Unsupported`] for an SRV string not yet resolved.
    pub fn start(uri: &ConnectionString) -> Result<Deployment, Error> {
        if uri.srv.is_some() {
            return Err(Misuse::Unsupported("mongodb+srv without resolving it first").into());
        }
        let options = &uri.options;
        let threshold = options.local_threshold.map(|t| t.as_secs_f64() * 1000.0);
        let state = State {
            topology: Topology::from_uri(uri),
            pools: BTreeMap::new(),
            monitors: BTreeMap::new(),
            urgent: BTreeSet::new(),
            next_watch: 0,
            lanes: Vec::new(),
        };
        let hosts: Vec<String> = uri.hosts.iter().map(ToString::to_string).collect();
        let deployment = Deployment(Arc::new(Inner {
            hosts: hosts.join(","),
            setup: Setup::from_uri(uri)?,
            bounds: PoolBounds::from_options(options),
            mode: options.server_monitoring_mode.unwrap_or_default(),
            heartbeat: options.heartbeat_frequency.unwrap_or(HEARTBEAT),
            threshold_ms: threshold.unwrap_or(LOCAL_THRESHOLD_MS),
            begun: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }));
        let mut state = deployment.0.state();
        deployment.0.follow_topology(&mut state, &Arc::downgrade(&deployment.0))?;
        drop(state);
        Ok(deployment)
    }

    /// The topology as it is known now.
    pub fn topology(&self) -> Topology {
        self.0.state().topology.clone()
    }

    /// Waits until `content` likes the topology and gives its answer; `None` at the deadline.
    pub fn wait_for<T>(
        &self,
        deadline: Instant,
        mut content: impl FnMut(&Topology) -> Option<T>,
    ) -> Option<T> {
        self.wait_for_state(deadline, |state| content(&state.topology))
    }

    fn wait_for_state<T>(
        &self,
        deadline: Instant,
        mut content: impl FnMut(&State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.0.state();
        loop {
            if let Some(answer) = content(&state) {
                return Some(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The server to send an operation to: suitable, near, and of two such the less busy one.
    /// Waits for one to appear.
    ///
    /// # Errors
    /// [`Error::Misuse`] for criteria no server can satisfy or a deployment of versions we do
    /// not speak; [`Error::Link`] as not sent when the deadline comes first, with what is known
    /// of each server in its words.
    pub fn select(
        &self,
        criteria: Criteria<'_>,
        avoid: &[ServerAddress],
        deadline: Instant,
    ) -> Result<Pool, Error> {
        let random = u64::from_le_bytes(random()?);
        let heartbeat_ms = self.0.heartbeat.as_millis() as i64;
        let selected = self.wait_for_state(deadline, |state| {
            let topology = &state.topology;
            if topology.incompatible().is_some() {
                let why = "a server whose wire versions are not among ours";
                return Some(Err(Misuse::Unsupported(why)));
            }
            let suitable = match topology.suitable(criteria, heartbeat_ms, avoid) {
                Ok(suitable) => suitable,
                Err(misuse) => return Some(Err(misuse)),
            };
            let window = in_latency_window(&suitable, self.0.threshold_ms);
            let load = |address: &ServerAddress| state.pools.get(address).map_or(0, Pool::in_use);
            pick_by_load(&window, load, random).map(|server| Ok(server.address.clone()))
        });
        match selected {
            Some(address) => Ok(self.0.pool(&address?)),
            None => {
                let why = io::Error::new(io::ErrorKind::TimedOut, self.explain());
                Err(link_error(Sent::No, why))
            }
        }
    }

    /// Selects a server and takes a connection to it out of its pool.
    ///
    /// # Errors
    /// As [`Self::select`] and [`Pool::check_out`].
    pub fn check_out(
        &self,
        criteria: Criteria<'_>,
        avoid: &[ServerAddress],
        deadline: Instant,
    ) -> Result<Pooled, Error> {
        let pool = self.select(criteria, avoid, deadline)?;
        let generation = self.0.state().topology.generation(pool.address());
        pool.check_out(deadline).inspect_err(|error| {
            // Half-open connections have no hello to tell the version; what counts is the stage.
            let stage = HandshakeStage::BeforeHandshakeCompletes;
            self.report(pool.address(), generation, i32::MAX, stage, error);
        })
    }

    /// A connection outside any pool, for a lane of its own (metadata, bulk, change stream), and
    /// the generation to report its errors under. It is closed when its monitor finds the server
    /// dead, so whoever waits for a reply without a deadline learns it.
    ///
    /// # Errors
    /// As [`Self::check_out`].
    pub fn connect(
        &self,
        criteria: Criteria<'_>,
        deadline: Instant,
    ) -> Result<(Connection, PoolGeneration), Error> {
        let address = self.select(criteria, &[], deadline)?.address().clone();
        let generation = self.0.state().topology.generation(&address);
        let until = deadline.min(Instant::now() + self.0.bounds.connect_timeout);
        match Connection::open(&address, &self.0.setup, until) {
            Ok(connection) => {
                let mut state = self.0.state();
                state.lanes.push((address, generation, connection.sender()));
                // It may have died meanwhile.
                self.0.changed(&mut state);
                Ok((connection, generation))
            }
            Err(error) => {
                let stage = HandshakeStage::BeforeHandshakeCompletes;
                self.report(&address, generation, i32::MAX, stage, &error);
                Err(error)
            }
        }
    }

    /// Waits until it shows whether there is any server to speak to. Gives the error when there
    /// is none: every one that was named has been asked, and none can be used.
    pub fn hopeless(&self, deadline: Instant) -> Option<Error> {
        let none = self.wait_for(deadline, |topology| {
            let unknown = |it: &ServerDescription| it.server_type == ServerType::Unknown;
            let asked = topology.servers().all(|it| !unknown(it) || it.error.is_some());
            let any = topology.servers().any(|it| !unknown(it));
            (any || asked).then_some(!any)
        });
        // Time that is up says nothing: selection then does.
        (none == Some(true)).then(|| {
            let why = io::Error::new(io::ErrorKind::NotFound, self.explain());
            link_error(Sent::No, why)
        })
    }

    /// Tells the topology of an error that an operation met, so that a lost primary is noticed
    /// before its monitor notices. Errors that say nothing about the server are ignored.
    pub fn report(
        &self,
        address: &ServerAddress,
        generation: PoolGeneration,
        max_wire_version: i32,
        stage: HandshakeStage,
        error: &Error,
    ) {
        let kind = match error {
            Error::Link(link) if link.source.kind() == io::ErrorKind::TimedOut => {
                ErrorKind::Timeout
            }
            Error::Link(_) => ErrorKind::Network,
            Error::Server(reply) => ErrorKind::Command(reply.clone()),
            Error::Peer(_) => ErrorKind::Network,
            Error::Auth(AuthError::Refused(reply)) if is_recovering(reply) => {
                ErrorKind::Command(reply.clone())
            }
            // Wrong credentials are wrong on every server; the server itself is well.
            Error::Auth(_) | Error::Misuse(_) => return,
        };
        let error = ApplicationError { generation, max_wire_version, stage, kind };
        let mut state = self.0.state();
        if state.topology.on_application_error(address, &error) {
            state.urgent.insert(address.clone());
            // A broken link may be the server's end: the monitor's own check is given up and
            // begun anew (SDAM spec, "Network error when reading or writing"). After a state
            // change it need not be: the server itself sends the news.
            if error.kind == ErrorKind::Network
                && let Some(watch) = state.monitors.get(address)
            {
                watch.close();
            }
            self.0.changed(&mut state);
        }
    }

    /// What is known of each server, for a message: "h:27017 cannot be reached (Connection
    /// refused)", and what to do.
    pub fn explain(&self) -> String {
        let state = self.0.state();
        let mut known: Vec<String> = state
            .topology
            .servers()
            .map(|it| match (&it.error, it.server_type) {
                (Some(error), _) => format!("{}: {error}", it.address),
                (None, ServerType::Unknown) => format!("{}: no answer yet", it.address),
                (None, kind) => format!("{}: {}", it.address, kind.in_words()),
            })
            .collect();
        let removed = state.topology.last_removal();
        known.extend(removed.map(|(address, why)| format!("{address}: {why}")));
        let reached = state.topology.servers().any(|it| it.server_type != ServerType::Unknown);
        let advice = match (removed, reached) {
            (None, true) => "an election is going on, or too few of the members are up",
            (None, false) => "is mongod running there, and is the address right?",
            (Some(_), _) => "correct replicaSet in the connection string, or leave it out",
        };
        format!("no server to use; {}; {advice}", known.join(", "))
    }

    /// An error of a connection in one line for a user: who, what, and what to do.
    pub fn describe(&self, error: &Error) -> String {
        let hosts = &self.0.hosts;
        match error {
            Error::Auth(AuthError::Refused(refusal)) => format!(
                "{hosts}: the server refuses this user ({}); check the user name, the password, \
                 authSource and authMechanism",
                refusal.message
            ),
            Error::Link(link) if link.sent == Sent::No => link.source.to_string(),
            error => format!("{hosts}: {}", plainly(error)),
        }
    }
}

/// An error in words for a user.
fn plainly(error: &Error) -> String {
    let Error::Link(link) = error else {
        return match error {
            Error::Peer(_) => "it does not speak MongoDB's protocol".to_owned(),
            error => error.to_string(),
        };
    };
    match link.source.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            "it closed the connection; a server that wants TLS does that, and so does another \
             kind of server"
                .to_owned()
        }
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => {
            let text = link.source.to_string();
            // The number is for programs.
            text.split(" (os error").next().unwrap_or_default().to_owned()
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.monitors.values().for_each(Watch::close);
        state.pools.values().for_each(Pool::close);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is changed in whole steps, so a panic elsewhere leaves it right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, state: &mut State) {
        for (address, pool) in &state.pools {
            pool.clear(state.topology.generation(address));
        }
        let State { topology, lanes, .. } = state;
        lanes.retain(|(address, generation, sender)| {
            let current = topology.generation(address) <= *generation;
            if !current {
                sender.close();
            }
            current && !sender.is_closed()
        });
        self.changed.notify_all();
    }

    fn pool(&self, address: &ServerAddress) -> Pool {
        let mut state = self.state();
        let make = || Pool::new(address.clone(), self.setup.clone(), self.bounds);
        let pool = state.pools.entry(address.clone()).or_insert_with(make).clone();
        // A new pool starts where the topology is.
        pool.clear(state.topology.generation(address));
        pool
    }

    /// Starts monitors for new servers and ends what belongs to servers that are gone.
    fn follow_topology(&self, state: &mut State, this: &Weak<Inner>) -> Result<(), Error> {
        let State { topology, monitors, pools, next_watch, .. } = state;
        pools.retain(|address, pool| {
            let known = topology.server(address).is_some();
            if !known {
                pool.close();
            }
            known
        });
        monitors.retain(|address, watch| {
            let known = topology.server(address).is_some();
            if !known {
                watch.close();
            }
            known
        });
        // A load balancer is not monitored: its address is all there is to know.
        if topology.topology_type() == TopologyType::LoadBalanced {
            return Ok(());
        }
        for server in topology.servers() {
            let address = server.address.clone();
            if monitors.contains_key(&address) {
                continue;
            }
            let (this, at, id) = (this.clone(), address.clone(), *next_watch);
            *next_watch += 1;
            std::thread::Builder::new()
                .name("mongo-monitor".to_owned())
                .spawn(move || watch(&this, &at, id))
                .map_err(|source| link_error(Sent::No, source))?;
            monitors.insert(address, Watch { id, closer: None });
        }
        Ok(())
    }
}

/// A monitor thread: asks until its server or the whole deployment is gone. Between waits it
/// holds no strong reference, so that dropping the deployment ends it.
fn watch(deployment: &Weak<Inner>, address: &ServerAddress, id: u64) {
    loop {
        let Some(inner) = deployment.upgrade() else { return };
        let (setup, mode) = (inner.setup.clone(), inner.mode);
        let (beat, timeout) = (inner.heartbeat, inner.bounds.connect_timeout);
        drop(inner);
        let why = match Monitor::open(address, &setup, mode, beat, timeout) {
            Ok((monitor, first)) => match hear_out(deployment, (address, id), monitor, first, beat)
            {
                Some(error) => error,
                None => return,
            },
            Err(error) => error,
        };
        let Some(inner) = deployment.upgrade() else { return };
        let mut state = inner.state();
        match state.watch(address, id) {
            Some(watch) => watch.closer = None,
            None => return,
        }
        state.topology.on_check_failed(address, &plainly(&why));
        inner.changed(&mut state);
        drop(state);
        drop(inner);
        std::thread::sleep(MIN_HEARTBEAT);
    }
}

/// Reports what a monitor hears until it fails (why is given back) or is not wanted any more.
fn hear_out(
    deployment: &Weak<Inner>,
    (address, id): (&ServerAddress, u64),
    mut monitor: Monitor,
    first: super::Heard,
    beat: Duration,
) -> Option<Error> {
    let mut heard = first;
    let mut closer = Some(monitor.closer());
    loop {
        {
            let inner = deployment.upgrade()?;
            let mut state = inner.state();
            let watch = state.watch(address, id)?;
            if closer.is_some() {
                watch.closer = closer.take();
            }
            let now_ms = inner.begun.elapsed().as_millis() as i64;
            state.urgent.remove(address);
            state.topology.on_hello(address, &heard.reply, heard.rtt_ms, now_ms);
            // A thread that cannot be started is tried again with the next reply.
            let _ = inner.follow_topology(&mut state, deployment);
            inner.changed(&mut state);
        }
        if !monitor.waits() {
            pause(deployment, (address, id), beat)?;
        }
        match monitor.hear() {
            Ok(news) => heard = news,
            Err(error) => return Some(error),
        }
    }
}

/// Waits for the next heartbeat, or less long when the server is to be asked at once. `None`
/// when nobody wants to know any more.
fn pause(
    deployment: &Weak<Inner>,
    (address, id): (&ServerAddress, u64),
    beat: Duration,
) -> Option<()> {
    let until = Instant::now() + beat;
    while Instant::now() < until {
        {
            let inner = deployment.upgrade()?;
            let mut state = inner.state();
            state.watch(address, id)?;
            if state.urgent.remove(address) {
                drop(state);
                std::thread::sleep(MIN_HEARTBEAT);
                return Some(());
            }
        }
        std::thread::sleep(MIN_HEARTBEAT.min(until.saturating_duration_since(Instant::now())));
    }
    Some(())
}
