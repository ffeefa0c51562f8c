//! The transport against a real server.

use std::time::Duration;

use crate::common::{Client, Server, free_port};
use bytes::Bytes;
use dbmount_engine::backend::redis::{Command, Push, Reply, Script};
use dbmount_engine::contract::{Fault, Input, Link, Mode};
use dbmount_engine::id::Lane;
use dbmount_transport_redis::Options;

static ADD: Script = Script { name: "add", body: "return redis.call('INCRBY', KEYS[1], ARGV[1])" };
static PUT: Script = Script {
    name: "put",
    body: "redis.call('SET', KEYS[1], ARGV[1]) return redis.status_reply('DONE')",
};

fn script(script: &'static Script, key: &'static str, arg: &'static str) -> Command {
    Command::Script {
        script,
        keys: [Bytes::from_static(key.as_bytes())].into_iter().collect(),
        args: [Bytes::from_static(arg.as_bytes())].into_iter().collect(),
    }
}

fn ok() -> Reply {
    Reply::Status("OK".into())
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

fn with_scripts() -> Options {
    Options { scripts: vec![&ADD, &PUT], ..Options::default() }
}

#[test]
fn batches_are_answered_in_the_order_they_were_sent() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let ids: Vec<_> = (0..500)
        .map(|_| client.submit(Lane::Meta, Mode::Ordered, vec![Command::plain(["INCR", "n"])]))
        .collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(client.sink.replies(*id), Ok(vec![Reply::Int(n as i64 + 1)]));
    }
    let order: Vec<_> = client
        .sink
        .take()
        .into_iter()
        .filter_map(|input| match input {
            Input::Replies(id, _) => Some(id),
            _ => None,
        })
        .collect();
    assert_eq!(order, ids);
}

#[test]
fn ten_thousand_commands_in_one_batch() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let set = |n| Command::plain(["SET".into(), format!("key:{n}"), format!("value {n}")]);
    let replies = client.ask(Lane::Meta, Mode::Independent, (0..10_000).map(set).collect());
    assert!(replies.iter().all(|reply| *reply == ok()) && replies.len() == 10_000);
    let get = |n| Command::plain(["GET".into(), format!("key:{n}")]);
    let replies = client.ask(Lane::Meta, Mode::Ordered, (0..10_000).map(get).collect());
    for (n, reply) in replies.iter().enumerate() {
        assert_eq!(*reply, bulk(&format!("value {n}")));
    }
}

#[test]
fn large_values_go_both_ways() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let value: Bytes = (0..8 << 20).map(|n: u32| (n * 7 + n / 251) as u8).collect();
    for (name, lane) in [("a", Lane::Bulk), ("b", Lane::Meta)] {
        let set = Command::plain([Bytes::from("SET"), Bytes::from(name), value.clone()]);
        // Several of them, so that they wait for their turn.
        let ids: Vec<_> =
            (0..4).map(|_| client.submit(lane, Mode::Independent, vec![set.clone()])).collect();
        let get = Command::plain(["GET", name]);
        let gets: Vec<_> =
            (0..3).map(|_| client.submit(lane, Mode::Independent, vec![get.clone()])).collect();
        for id in ids {
            assert_eq!(client.sink.replies(id), Ok(vec![ok()]));
        }
        for id in gets {
            assert!(client.sink.replies(id) == Ok(vec![Reply::Bulk(value.clone())]));
        }
        // And lengths on both sides of every threshold.
        for len in [0, 1, 1023, 1024, 1025, 4095, 4096, 16382, 16383, 16384, 65535, 65536, 70_000] {
            let value = value.slice(..len);
            let set = Command::plain([Bytes::from("SET"), Bytes::from("c"), value.clone()]);
            let get = Command::plain(["GET", "c"]);
            let replies = client.ask(lane, Mode::Ordered, vec![set, get]);
            assert!(replies == [ok(), Reply::Bulk(value)], "{len}");
        }
    }
}

#[test]
fn scripts_survive_script_flush() {
    let server = Server::start(&[]);
    let client = Client::start(&server.url(), with_scripts());
    client.sink.all_up();
    let add = |arg| script(&ADD, "n", arg);
    assert_eq!(client.ask(Lane::Meta, Mode::Independent, vec![add("1")]), [Reply::Int(1)]);
    // By digest: the server was told at connect.
    assert!(!server.cli(&["INFO", "commandstats"]).contains("cmdstat_eval:"));

    assert_eq!(server.cli(&["SCRIPT", "FLUSH"]), "OK");
    let mixed = vec![add("10"), Command::plain(["SET", "k", "v"]), add("100")];
    let replies = client.ask(Lane::Meta, Mode::Independent, mixed);
    assert_eq!(replies, [Reply::Int(11), ok(), Reply::Int(111)]);

    assert_eq!(server.cli(&["SCRIPT", "FLUSH"]), "OK");
    let ordered = vec![script(&PUT, "n", "5"), add("1"), script(&PUT, "m", "7")];
    let replies = client.ask(Lane::Meta, Mode::Ordered, ordered);
    assert_eq!(
        replies,
        [Reply::Status("DONE".into()), Reply::Int(6), Reply::Status("DONE".into())]
    );

    // Order cannot be kept any more here, so nobody may believe that it was.
    assert_eq!(server.cli(&["SCRIPT", "FLUSH"]), "OK");
    let id = client.submit(Lane::Meta, Mode::Ordered, vec![add("1"), Command::plain(["GET", "n"])]);
    assert_eq!(client.sink.replies(id), Err(Fault::Unknown));
    assert_eq!(client.one(&["GET", "n"]), bulk("6"));
}

#[test]
fn scripts_that_were_not_announced_work_too() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let commands = vec![script(&ADD, "n", "1"), script(&ADD, "n", "1")];
    let replies = client.ask(Lane::Bulk, Mode::Ordered, commands);
    assert_eq!(replies, [Reply::Int(1), Reply::Int(2)]);
}

#[test]
fn transactions_are_all_or_nothing() {
    let server = Server::start(&[]);
    let client = Client::start(&server.url(), with_scripts());
    client.sink.all_up();
    server.cli(&["SCRIPT", "FLUSH"]);
    let commands = vec![Command::plain(["SET", "n", "1"]), script(&ADD, "n", "1")];
    let replies = client.ask(Lane::Meta, Mode::Atomic, commands);
    assert_eq!(replies, [ok(), Reply::Int(2)]);
    let commands = vec![Command::plain(["SET", "n", "9"]), Command::plain(["NOSUCH"])];
    let replies = client.ask(Lane::Meta, Mode::Atomic, commands);
    assert!(replies[0].as_error().unwrap().starts_with("EXECABORT"), "{replies:?}");
    assert!(replies[1].as_error().unwrap().contains("unknown command"), "{replies:?}");
    assert_eq!(client.one(&["GET", "n"]), bulk("2"));
}

#[test]
fn replies_look_the_same_under_both_protocols() {
    let server = Server::start(&[]);
    let old = Server::start(&["--rename-command", "HELLO", ""]);
    let answers = [&server, &old].map(|server| {
        let client = Client::up(&server.url());
        let questions: &[&[&str]] = &[
            &["HSET", "h", "f", "1", "g", "2"],
            &["HGETALL", "h"],
            &["SADD", "s", "x"],
            &["SMEMBERS", "s"],
            &["ZADD", "z", "1.5", "m"],
            &["ZSCORE", "z", "m"],
            &["ZSCORE", "z", "none"],
            &["GET", "none"],
            &["LPOP", "none", "1"],
            &["GET", "h"],
            &["EVAL", "return {1, 'a', false, {}, redis.status_reply('S')}", "0"],
            &["COMMAND", "INFO", "none"],
            &[],
        ];
        questions.iter().map(|words| client.one(words)).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][1], Reply::Array(["f", "1", "g", "2"].map(bulk).to_vec()));
    assert_eq!(answers[0][5], bulk("1.5"));
    assert!(answers[0].last().unwrap().as_error().is_some());
}

#[test]
fn a_server_without_resp3_gives_no_pushes() {
    let server = Server::start(&["--rename-command", "HELLO", "", "--requirepass", "pw"]);
    let url = format!("redis://:pw@127.0.0.1:{}/3", server.port);
    let client = Client::start(&url, Options::default());
    assert!(!client.sink.up(Lane::Push));
    client.sink.all_up();
    assert_eq!(client.one(&["SET", "k", "v"]), ok());
    assert_eq!(server.cli(&["-a", "pw", "-n", "3", "GET", "k"]), "v");
    assert!(server.cli(&["-a", "pw", "CLIENT", "LIST"]).contains("name=dbmount"));

    let wrong = Client::start(&server.url(), Options::default());
    assert!(wrong.sink.refused(Lane::Meta).contains("asks for a password"));
    let url = format!("redis://:no@127.0.0.1:{}/3", server.port);
    let wrong = Client::start(&url, Options::default());
    assert!(wrong.sink.refused(Lane::Meta).contains("refuses the password"));
}

#[test]
fn what_cannot_be_cured_is_refused_in_one_line() {
    let server = Server::start(&["--requirepass", "right"]);
    let port = server.port;
    for (url, says) in [
        (format!("redis://127.0.0.1:{port}/0"), "asks for a password"),
        (format!("redis://:hunter2@127.0.0.1:{port}/0"), "refuses the password of user 'default'"),
        (format!("redis://bob:hunter2@127.0.0.1:{port}/0"), "of user 'bob'"),
        (format!("redis://:right@127.0.0.1:{port}/16"), "has no database 16"),
    ] {
        let client = Client::start(&url, Options::default());
        for lane in Lane::ALL {
            let line = client.sink.refused(lane);
            assert!(line.contains(says), "{line}");
            assert!(line.contains(&format!("redis://127.0.0.1:{port}/")), "{line}");
            assert!(!line.contains("hunter2") && !line.contains("right"), "{line}");
            assert!(!line.contains('\n'));
        }
        // And batches are still answered.
        let id = client.submit(Lane::Meta, Mode::Independent, vec![Command::plain(["PING"])]);
        assert_eq!(client.sink.replies(id), Err(Fault::NotSent));
    }
    let client = Client::up(&format!("redis://:right@127.0.0.1:{port}/15"));
    assert_eq!(client.one(&["PING"]), Reply::Status("PONG".into()));
}

#[test]
fn what_is_no_redis_server_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let other = std::thread::spawn(move || {
        for _ in ["metadata and pushes", "bulk"] {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    });
    let client = Client::start(&format!("redis://127.0.0.1:{port}"), Options::default());
    for lane in Lane::ALL {
        let line = client.sink.refused(lane);
        assert!(line.contains("is not a Redis server"), "{line}");
    }
    other.join().unwrap();
}

#[test]
fn a_user_without_a_right_is_told_which() {
    let server = Server::start(&[]);
    let set = |name: &str, rules: &[&str]| {
        let mut args = vec!["ACL", "SETUSER", name, "on", ">pw", "~*", "+@all"];
        args.extend(rules);
        assert_eq!(server.cli(&args), "OK");
        format!("redis://{name}:pw@127.0.0.1:{}/1", server.port)
    };
    let client = Client::start(&set("blind", &["-client|tracking"]), with_scripts());
    assert!(!client.sink.up(Lane::Push));
    client.sink.all_up();
    assert_eq!(client.one(&["ACL", "WHOAMI"]), bulk("blind"));

    let client = Client::start(&set("fixed", &["-select"]), Options::default());
    let line = client.sink.refused(Lane::Push);
    assert!(line.contains("'fixed'") && line.contains("+select"), "{line}");

    // Without SCRIPT LOAD and PING all the rest works.
    let client = Client::start(&set("bare", &["-script|load", "-ping"]), with_scripts());
    client.sink.all_up();
    let replies = client.ask(Lane::Meta, Mode::Independent, vec![script(&ADD, "n", "4")]);
    assert_eq!(replies, [Reply::Int(4)]);
}

#[test]
fn a_server_that_comes_late_is_found() {
    let port = free_port();
    let client = Client::start(&format!("redis://127.0.0.1:{port}"), Options::default());
    for lane in Lane::ALL {
        let line = client.sink.down(lane);
        assert!(line.contains(&port.to_string()) && line.contains("refused"), "{line}");
    }
    let id = client.submit(Lane::Meta, Mode::Independent, vec![Command::plain(["PING"])]);
    assert_eq!(client.sink.replies(id), Err(Fault::NotSent));
    let _server = Server::start_on(port, &[]).expect("the port was free");
    client.sink.all_up();
    assert_eq!(client.one(&["PING"]), Reply::Status("PONG".into()));
}

#[test]
fn a_killed_server_faults_what_was_sent_and_comes_back() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let client = Client::start(&server.url(), with_scripts());
    client.sink.all_up();
    assert_eq!(client.one(&["SET", "kept", "1"]), ok());
    for round in 0..3 {
        client.sink.take();
        server.freeze();
        let incr = || vec![Command::plain(["INCR", "n"])];
        let small = [(); 2].map(|()| client.submit(Lane::Meta, Mode::Independent, incr()));
        let value = Bytes::from(vec![b'x'; 32 << 20]);
        let set = || vec![Command::plain([Bytes::from("SET"), Bytes::from("big"), value.clone()])];
        let first = client.submit(Lane::Bulk, Mode::Independent, set());
        let second = client.submit(Lane::Bulk, Mode::Independent, set());
        server.kill();
        for id in [small[0], small[1], first] {
            assert_eq!(client.sink.replies(id), Err(Fault::Unknown), "round {round}");
        }
        assert_eq!(client.sink.replies(second), Err(Fault::NotSent));
        for lane in Lane::ALL {
            let line = client.sink.down(lane);
            assert!(line.contains(&server.url()), "{line}");
        }
        // Down comes behind the faults of its lane.
        let inputs = client.sink.take();
        let at = |wanted: &dyn Fn(&Input<_>) -> bool| inputs.iter().position(wanted).unwrap();
        let down = at(&|i| matches!(i, Input::Link(Lane::Bulk, Link::Down(_))));
        assert!(at(&|i| matches!(i, Input::Replies(id, _) if *id == second)) < down);
        let id = client.submit(Lane::Bulk, Mode::Independent, vec![Command::plain(["PING"])]);
        assert_eq!(client.sink.replies(id), Err(Fault::NotSent));
        server.again();
        client.sink.all_up();
        assert!(client.sink.up(Lane::Push));
        assert_eq!(client.one(&["GET", "kept"]), bulk("1"));
        // The new server has lost the scripts, and has been told them again.
        let replies = client.ask(Lane::Meta, Mode::Ordered, vec![script(&ADD, "m", "1")]);
        assert_eq!(replies, [Reply::Int(round + 1)]);
    }
}

#[test]
fn a_server_that_hangs_is_noticed() {
    let server = Server::start(&[]);
    let options = Options {
        ping_after: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let client = Client::start(&server.url(), options);
    client.sink.all_up();
    server.freeze();
    let line = client.sink.down(Lane::Push);
    assert!(line.contains("no sign of life"), "{line}");
    client.sink.take();
    let line = client.sink.down(Lane::Push);
    assert!(line.contains("did not answer in time"), "{line}");
}

#[test]
fn writes_of_others_are_pushed() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    assert!(client.sink.up(Lane::Push));
    server.cli(&["SET", "a:b", "1"]);
    let key = Bytes::from("a:b");
    client.sink.push(|push| matches!(push, Push::Invalidate(keys) if keys.contains(&key)));
    server.cli(&["MSET", "x", "1", "y", "2"]);
    client.sink.push(|push| matches!(push, Push::Invalidate(keys) if keys.len() == 2));
    server.cli(&["FLUSHALL"]);
    client.sink.push(|push| *push == Push::InvalidateAll);
    // The lane takes commands as well.
    let replies = client.ask(Lane::Push, Mode::Independent, vec![Command::plain(["DBSIZE"])]);
    assert_eq!(replies, [Reply::Int(0)]);

    let options = Options { tracking_prefixes: vec!["in:".into()], ..Options::default() };
    let client = Client::start(&server.url(), options);
    client.sink.all_up();
    server.cli(&["SET", "out:1", "1"]);
    server.cli(&["SET", "in:1", "1"]);
    let push = client.sink.push(|_| true);
    assert_eq!(push, Push::Invalidate(vec!["in:1".into()]));
}

#[test]
fn unix_sockets_work() {
    let server = Server::start(&[]);
    let client = Client::up(&format!("unix://{}?db=2", server.socket().display()));
    assert!(client.sink.up(Lane::Push));
    assert_eq!(client.one(&["SET", "k", "v"]), ok());
    assert_eq!(server.cli(&["-n", "2", "GET", "k"]), "v");
    let client = Client::start("unix:///nonexistent/redis.sock", Options::default());
    assert!(client.sink.down(Lane::Meta).contains("no such socket"));
}

#[test]
fn names_are_looked_up() {
    let server = Server::start(&[]);
    let client = Client::up(&format!("redis://localhost:{}", server.port));
    assert_eq!(client.one(&["PING"]), Reply::Status("PONG".into()));
}

#[test]
fn abandoned_batches_are_not_answered() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let slow = Command::plain(["BLPOP", "none", "0.2"]);
    let gone = client.submit(Lane::Meta, Mode::Independent, vec![slow]);
    let kept = client.submit(Lane::Meta, Mode::Independent, vec![Command::plain(["PING"])]);
    client.transport.abandon(gone);
    assert_eq!(client.sink.replies(kept), Ok(vec![Reply::Status("PONG".into())]));
    let inputs = client.sink.take();
    assert!(!inputs.iter().any(|input| matches!(input, Input::Replies(id, _) if *id == gone)));
}

#[test]
fn an_empty_batch_is_answered() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    assert_eq!(client.ask(Lane::Meta, Mode::Atomic, vec![]), []);
}

#[test]
fn shutdown_ends_everything_in_time() {
    let server = Server::start(&[]);
    let client = Client::up(&server.url());
    let slow = Command::plain(["BLPOP", "none", "0"]);
    let id = client.submit(Lane::Meta, Mode::Independent, vec![slow]);
    let started = std::time::Instant::now();
    client.transport.shutdown();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(client.sink.replies(id), Err(Fault::Unknown));
    client.transport.shutdown();
    // Neither does a server that never answers hold it up.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let client = Client::start(&url, Options::default());
    let _first = listener.accept().unwrap();
    let started = std::time::Instant::now();
    drop(client);
    assert!(started.elapsed() < Duration::from_secs(2));
}
