//! Connections and pools against a server of the test's own, which misbehaves on demand.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dbmount_transport_mongo::connection::{
    Answer, Connection, Deployment, InFlight, Pool, PoolBounds, Setup,
};
use dbmount_transport_mongo::error::{AuthError, Error, Misuse, Sent};
use dbmount_transport_mongo::topology::{Criteria, PoolGeneration, TopologyType};
use dbmount_transport_mongo::uri::{ConnectionString, ServerAddress};
use dbmount_transport_mongo::wire::build::DocBuf;
use dbmount_transport_mongo::wire::command::Command;
use dbmount_transport_mongo::wire::doc::{Doc, Value};
use dbmount_transport_mongo::wire::frame::{Framer, Header, Op, RequestId};
use dbmount_transport_mongo::wire::limits::Limits;
use dbmount_transport_mongo::wire::msg::Message;

/// One end of the fake server's connection.
struct Peer {
    stream: TcpStream,
    framer: Framer,
}

impl Peer {
    /// The next request: its id and body.
    fn request(&mut self) -> Option<(RequestId, Message)> {
        loop {
            if let Some(frame) = self.framer.next_frame().expect("a frame") {
                let message = frame.message(self.framer.limits()).expect("a message");
                return Some((frame.header.id, message));
            }
            let mut bytes = [0; 65_536];
            let got = self.stream.read(&mut bytes).ok().filter(|got| *got > 0)?;
            self.framer.space().extend_from_slice(&bytes[..got]);
        }
    }

    fn reply(
        &mut self,
        to: RequestId,
        flags: u32,
        build: impl for<'a> FnOnce(&'a mut DocBuf) -> &'a mut DocBuf,
    ) {
        let mut doc = DocBuf::new();
        build(&mut doc);
        let body = doc.finish().expect("a document").concat();
        let header =
            Header { len: 21 + body.len(), id: RequestId(1000), response_to: to, op: Op::Msg };
        let head = [&header.encode()[..], &flags.to_le_bytes(), &[0]].concat();
        self.stream.write_all(&[&head[..], &body].concat()).expect("sent");
    }

    fn hello(&mut self) {
        if let Some((id, _)) = self.request() {
            self.reply(id, 0, |doc| {
                doc.f64("ok", 1.0).bool("isWritablePrimary", true).i32("maxWireVersion", 17);
                doc.i32("maxBsonObjectSize", 65_536)
            });
        }
    }
}

/// Serves connections one after the other, each by `serve`.
fn server(
    connections: usize,
    serve: impl Fn(usize, Peer) + Send + 'static,
) -> (ServerAddress, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let thread = std::thread::spawn(move || {
        for i in 0..connections {
            let (stream, _) = listener.accept().expect("a connection");
            serve(i, Peer { stream, framer: Framer::new(Limits::default()) });
        }
    });
    (ServerAddress::Tcp { host: "127.0.0.1".into(), port }, thread)
}

fn setup(uri: &str) -> Setup {
    Setup::from_uri(&ConnectionString::parse(uri).expect("a uri")).expect("a setup")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn open(address: &ServerAddress) -> Result<Connection, Error> {
    Connection::open(address, &setup("mongodb://h/"), soon())
}

fn ping() -> Command {
    Command::new("ping", "admin")
}

#[test]
fn replies_are_matched_by_response_to_in_any_order() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        let first = peer.request().unwrap().0;
        let second = peer.request().unwrap().0;
        peer.reply(second, 0, |doc| doc.f64("ok", 1.0).i32("n", 2));
        peer.reply(first, 0, |doc| doc.f64("ok", 1.0).i32("n", 1));
    });
    let mut connection = open(&address).unwrap();
    assert_eq!(connection.hello().limits.max_document, 65_536);
    let first = connection.submit(ping()).unwrap();
    let second = connection.submit(ping()).unwrap();
    let n = |doc: Doc| doc.get("n").and_then(|n| n.as_i64());
    assert_eq!(n(connection.wait_for(first, Some(soon())).unwrap()), Some(1));
    assert_eq!(n(connection.wait_for(second, Some(soon())).unwrap()), Some(2));
    thread.join().unwrap();
}

#[test]
fn the_servers_bounds_are_honoured_before_anything_is_sent() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        assert!(peer.request().is_none(), "nothing of the large document arrives");
    });
    let mut connection = open(&address).unwrap();
    let mut large = ping();
    large.body().binary("d", 0, Bytes::from(vec![0; 100_000]));
    let error = connection.call(large, Some(soon())).unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::DocumentTooLarge { .. })) && error.not_sent());
    drop(connection);
    thread.join().unwrap();
}

#[test]
fn a_silent_server_costs_the_deadline_and_no_more() {
    let (address, thread) = server(1, |_, mut peer| while peer.request().is_some() {});
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(200);
    let error = Connection::open(&address, &setup("mongodb://h/"), deadline).unwrap_err();
    assert!(matches!(&error, Error::Link(link) if link.sent == Sent::Unknown), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    thread.join().unwrap();
}

#[test]
fn a_server_that_is_not_there_is_an_error_that_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let tcp = ServerAddress::Tcp { host: "127.0.0.1".into(), port };
    let unix = ServerAddress::Unix("/nonexistent/mongodb-27017.sock".into());
    for address in [tcp, unix] {
        let error = open(&address).unwrap_err();
        assert!(error.not_sent(), "{error}");
    }
}

#[test]
fn a_broken_protocol_closes_the_connection_and_says_whose_fault_it_was() {
    type Break = fn(&mut Peer, RequestId);
    let breaks: [Break; 4] = [
        |peer, id| peer.reply(RequestId(id.0 + 77), 0, |doc| doc.f64("ok", 1.0)),
        |peer, id| peer.reply(id, 1 << 2, |doc| doc.f64("ok", 1.0)),
        |peer, _| peer.stream.write_all(&[0xff; 64]).unwrap(),
        |peer, id| {
            // A document that ends before its length.
            let header = Header { len: 27, id, response_to: id, op: Op::Msg }.encode();
            let body = [0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0];
            peer.stream.write_all(&[&header[..], &body].concat()).unwrap();
        },
    ];
    for (i, broken) in breaks.into_iter().enumerate() {
        let (address, thread) = server(1, move |_, mut peer| {
            peer.hello();
            let (id, _) = peer.request().unwrap();
            broken(&mut peer, id);
            while peer.request().is_some() {}
        });
        let mut connection = open(&address).unwrap();
        let error = connection.call(ping(), Some(soon())).unwrap_err();
        assert!(matches!(error, Error::Peer(_)), "break {i}: {error}");
        assert!(!connection.is_quiet());
        drop(connection);
        thread.join().unwrap();
    }
}

#[test]
fn a_link_that_breaks_leaves_the_outcome_open() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        peer.request();
    });
    let mut connection = open(&address).unwrap();
    let error = connection.call(ping(), Some(soon())).unwrap_err();
    assert!(matches!(&error, Error::Link(link) if link.sent == Sent::Unknown), "{error}");
    let error = connection.call(ping(), Some(soon())).unwrap_err();
    assert!(error.not_sent(), "after that nothing is sent any more: {error}");
    thread.join().unwrap();
}

#[test]
fn an_old_server_is_asked_by_the_old_name_and_one_too_old_is_refused() {
    let (address, thread) = server(2, |i, mut peer| {
        let (id, hello) = peer.request().unwrap();
        assert_eq!(hello.body.get("hello"), Some(Value::Int32(1)));
        peer.reply(id, 0, |doc| doc.f64("ok", 0.0).i32("code", 59));
        let (id, hello) = peer.request().unwrap();
        assert_eq!(hello.body.get("isMaster"), Some(Value::Int32(1)));
        let version = if i == 0 { 8 } else { 7 };
        peer.reply(id, 0, |doc| {
            doc.f64("ok", 1.0).bool("ismaster", true).i32("maxWireVersion", version)
        });
    });
    assert_eq!(open(&address).unwrap().hello().max_wire_version, 8);
    assert!(matches!(open(&address), Err(Error::Misuse(Misuse::Unsupported(_)))));
    thread.join().unwrap();
}

#[test]
fn a_refusal_of_the_credentials_is_an_authentication_error() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        let (id, start) = peer.request().unwrap();
        assert!(start.body.get("saslStart").is_some());
        peer.reply(id, 0, |doc| doc.f64("ok", 0.0).i32("code", 18).str("errmsg", "no"));
    });
    let error = Connection::open(&address, &setup("mongodb://u:p@h/"), soon()).unwrap_err();
    assert!(matches!(&error, Error::Auth(AuthError::Refused(_))), "{error}");
    assert_eq!(error.server().unwrap().code, 18);
    thread.join().unwrap();
}

#[test]
fn what_is_not_supported_is_said_before_connecting() {
    for uri in [
        "mongodb://h/?tls=true",
        "mongodb://h/?proxyHost=p",
        "mongodb://u:p@h/?authMechanism=PLAIN",
        "mongodb://h/?authMechanism=MONGODB-X509",
    ] {
        assert!(Setup::from_uri(&ConnectionString::parse(uri).unwrap()).is_err(), "{uri}");
    }
}

#[test]
fn the_halves_send_what_a_full_socket_did_not_take() {
    const LARGE: usize = 40_000;
    const COUNT: usize = 400;
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        // Let both sockets fill up first.
        std::thread::sleep(Duration::from_millis(300));
        for n in 0..COUNT {
            let (id, message) = peer.request().unwrap();
            let data = message.body.get("d").unwrap();
            assert_eq!(data.as_binary().unwrap(), &vec![n as u8; LARGE]);
            peer.reply(id, 0, |doc| doc.f64("ok", 1.0).i32("n", n as i32));
        }
    });
    let (sender, mut receiver, _) = open(&address).unwrap().split();
    let mut in_flight = InFlight::new(COUNT);
    for n in 0..COUNT {
        let mut command = ping();
        command.body().binary("d", 0, Bytes::from(vec![n as u8; LARGE]));
        in_flight.insert(sender.send(command).unwrap(), n).unwrap();
    }
    assert!(!in_flight.has_room());
    assert!(sender.queued() > 0, "more than the socket takes");
    while !in_flight.is_empty() {
        let Some(incoming) = receiver.receive(Some(soon())).unwrap() else { continue };
        let got = incoming.message.body.get("n").unwrap().as_i64();
        match in_flight.answer(&incoming).unwrap() {
            Answer::Last(n) => assert_eq!(got, Some(n as i64)),
            Answer::More(_) => panic!("no stream was asked for"),
        }
    }
    assert_eq!(sender.queued(), 0);
    thread.join().unwrap();
}

#[test]
fn what_never_left_is_known_when_the_link_breaks() {
    const LARGE: usize = 1 << 20;
    let (go, went) = std::sync::mpsc::channel::<()>();
    let (address, thread) = server(1, move |_, mut peer| {
        peer.hello();
        went.recv().unwrap();
    });
    let (sender, mut receiver, _) = open(&address).unwrap().split();
    let ids: Vec<_> = (0..40)
        .map(|_| {
            let mut command = ping();
            command.body().begin_array("d");
            for i in 0..16 {
                command.body().binary(&i.to_string(), 0, Bytes::from(vec![0; LARGE / 400]));
            }
            command.body().end();
            (0..10).map(|_| sender.send(command.clone()).unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let ids: Vec<_> = ids.into_iter().flatten().collect();
    go.send(()).unwrap();
    // The full socket has woken the receiver, which may come back empty-handed once.
    let ended = std::iter::repeat_with(|| receiver.receive(Some(soon()))).find_map(Result::err);
    assert!(matches!(ended, Some(Error::Link(_))));
    let sent: Vec<_> = ids.iter().map(|id| !sender.never_sent(*id)).collect();
    assert!(sent[0] && !sent[sent.len() - 1]);
    assert!(sent.is_sorted_by(|a, b| a >= b), "those that were sent come first");
    thread.join().unwrap();
}

#[test]
fn a_deployment_watches_selects_and_ends() {
    let (address, thread) = server(3, |_, mut peer| {
        std::thread::spawn(move || {
            peer.hello();
            while let Some((id, _)) = peer.request() {
                peer.reply(id, 0, |doc| {
                    doc.f64("ok", 1.0).bool("isWritablePrimary", true).i32("maxWireVersion", 17)
                });
            }
        });
    });
    let uri = ConnectionString::parse(&format!("mongodb://{address}/")).unwrap();
    let deployment = Deployment::start(&uri).unwrap();
    let mut pooled = deployment.check_out(Criteria::Write, &[], soon()).unwrap();
    pooled.call(ping(), Some(soon())).unwrap();
    assert_eq!(deployment.topology().topology_type(), TopologyType::Single);
    let (mut own, generation) = deployment.connect(Criteria::Write, soon()).unwrap();
    own.call(ping(), Some(soon())).unwrap();
    assert_eq!(generation, pooled.generation());
    drop((pooled, deployment));
    thread.join().unwrap();
}

#[test]
fn a_stream_stays_in_flight_until_its_last_reply() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        let (id, _) = peer.request().unwrap();
        // Both numbered 1000: the second answers the first.
        peer.reply(id, 1 << 1, |doc| doc.f64("ok", 1.0));
        peer.reply(RequestId(1000), 0, |doc| doc.f64("ok", 1.0));
    });
    let (sender, mut receiver, _) = open(&address).unwrap().split();
    let mut in_flight = InFlight::new(1);
    let mut command = ping();
    command.allow_exhaust();
    in_flight.insert(sender.send(command).unwrap(), "watch").unwrap();
    let mut next = || loop {
        if let Some(incoming) = receiver.receive(Some(soon())).expect("a reply") {
            return incoming;
        }
    };
    assert_eq!(in_flight.answer(&next()).unwrap(), Answer::More(&mut "watch"));
    assert_eq!(in_flight.answer(&next()).unwrap(), Answer::Last("watch"));
    assert!(in_flight.is_empty());
    thread.join().unwrap();
}

#[test]
fn another_thread_wakes_and_closes() {
    let (address, thread) = server(1, |_, mut peer| {
        peer.hello();
        while peer.request().is_some() {}
    });
    let (sender, mut receiver, _) = open(&address).unwrap().split();
    let other = {
        let sender = sender.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            sender.wake();
            std::thread::sleep(Duration::from_millis(50));
            sender.close();
        })
    };
    assert_eq!(receiver.receive(None).unwrap(), None);
    assert!(matches!(receiver.receive(None), Err(Error::Link(_))));
    assert!(sender.send(ping()).unwrap_err().not_sent());
    other.join().unwrap();
    thread.join().unwrap();
}

#[test]
fn a_pool_reuses_bounds_and_clears() {
    let (address, thread) = server(3, |_, mut peer| {
        std::thread::spawn(move || {
            peer.hello();
            while let Some((id, _)) = peer.request() {
                peer.reply(id, 0, |doc| doc.f64("ok", 1.0));
            }
        });
    });
    let bounds = PoolBounds { max_size: 2, ..Default::default() };
    let pool = Pool::new(address, setup("mongodb://h/"), bounds);
    let mut one = pool.check_out(soon()).unwrap();
    one.call(ping(), Some(soon())).unwrap();
    drop(one);
    assert_eq!((pool.total(), pool.idle()), (1, 1));
    let one = pool.check_out(soon()).unwrap();
    let two = pool.check_out(soon()).unwrap();
    let full = pool.check_out(Instant::now() + Duration::from_millis(50)).unwrap_err();
    assert!(full.not_sent());
    let waiting = {
        let pool = pool.clone();
        std::thread::spawn(move || pool.check_out(soon()).map(|c| c.generation()))
    };
    std::thread::sleep(Duration::from_millis(50));
    drop(one);
    assert_eq!(waiting.join().unwrap().unwrap(), PoolGeneration(0));
    pool.clear(PoolGeneration(1));
    assert_eq!((pool.total(), pool.idle()), (1, 0), "the idle one is closed");
    drop(two);
    assert_eq!(pool.total(), 0, "and the other when it comes back");
    let fresh = pool.check_out(soon()).unwrap();
    assert_eq!(fresh.generation(), PoolGeneration(1));
    let detached = fresh.detach().unwrap();
    assert_eq!(pool.total(), 0);
    drop(detached);
    pool.close();
    assert!(pool.check_out(soon()).is_err());
    thread.join().unwrap();
}
