//! The transport against servers that lie, stall and break off.
#![allow(clippy::unwrap_used, reason = "the hostile servers are test code too")]

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Client, Server};
use dbmount_engine::backend::redis::{Command, Reply};
use dbmount_engine::contract::{Fault, Mode};
use dbmount_engine::id::Lane;
use dbmount_transport_redis::Options;
use dbmount_transport_redis::resp::{Decoder, Frame, Limits};

/// Answers every command with what `answer` says; an empty answer closes the connection.
fn server(answer: impl Fn(&[String]) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:hunter2@127.0.0.1:{}", listener.local_addr().unwrap().port());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(stream.unwrap(), &*answer));
        }
    });
    url
}

fn serve(mut stream: TcpStream, answer: &dyn Fn(&[String]) -> Vec<u8>) {
    let mut decoder = Decoder::new(Limits::default());
    let mut buffer = [0; 4096];
    loop {
        let n = std::io::Read::read(&mut stream, &mut buffer).unwrap_or(0);
        if n == 0 {
            return;
        }
        decoder.receive(&mut &buffer[..n]).unwrap();
        while let Some(Frame::Reply(command)) = decoder.next_frame().unwrap() {
            let words = command
                .as_array()
                .unwrap()
                .iter()
                .map(|word| String::from_utf8_lossy(word.as_bytes().unwrap()).into_owned());
            let bytes = answer(&words.collect::<Vec<_>>());
            if bytes.is_empty() || stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_lying_server_costs_the_connection_and_no_more() {
    let long = format!("+{}", "x".repeat(20_000));
    let lies: Vec<(&str, &str)> = vec![
        ("+OK\r\n+OK\r\n+OK\r\n", "nothing had asked"),
        ("$9223372036854775807\r\n", "over the limit"),
        ("*9223372036854775807\r\n", "over the limit"),
        (
            "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n\
          *1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n\
          *1\r\n*1\r\n*1\r\n",
            "nested deeper",
        ),
        ("\0\0\0", "begins with"),
        (&long, "longer than"),
        ("*1\r\n>2\r\n", "a push stands inside"),
        ("", "closed"),
    ];
    for (lie, says) in lies {
        let bytes = lie.as_bytes().to_vec();
        let url = server(move |words| match words[0].as_str() {
            "LIE" => bytes.clone(),
            "WHAT" => b"$4\r\nwell\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        });
        let client = Client::up(&url);
        let lied_to = client.submit(Lane::Meta, Mode::Independent, vec![Command::plain(["LIE"])]);
        let line = client.sink.down(Lane::Meta);
        assert!(line.contains(says) && !line.contains('\n'), "{line}");
        let replies = client.sink.replies(lied_to);
        let ok = vec![Reply::Status("OK".into())];
        assert!(replies == Err(Fault::Unknown) || replies == Ok(ok), "{replies:?}");
        // It comes back, and what follows is not mixed up with what was.
        client.sink.take();
        client.sink.up(Lane::Meta);
        assert_eq!(client.one(&["WHAT"]), Reply::Bulk("well".into()));
    }
}

#[test]
fn a_server_that_is_not_ready_yet_is_waited_for() {
    for excuse in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MASTERDOWN Link with MASTER is down\r\n",
        "-ERR max number of clients reached\r\n",
    ] {
        let asked = AtomicUsize::new(0);
        let url = server(move |words| {
            let early = asked.fetch_add(usize::from(words[0] == "PING"), Ordering::Relaxed) < 6;
            match words[0] == "PING" && early {
                true => excuse.as_bytes().to_vec(),
                false => b"+OK\r\n".to_vec(),
            }
        });
        let client = Client::start(&url, Options::default());
        let line = client.sink.down(Lane::Meta);
        assert!(line.contains(excuse.trim_end().trim_start_matches('-')), "{line}");
        client.sink.all_up();
    }
}

#[test]
fn an_error_that_repeats_the_password_is_not_passed_on() {
    let url = server(|words| match words[0].as_str() {
        "HELLO" => format!("-ERR what is '{}'?\r\n", words.join(" ")).into_bytes(),
        _ => b"+OK\r\n".to_vec(),
    });
    let client = Client::start(&url, Options::default());
    let line = client.sink.down(Lane::Push);
    assert!(line.contains("what is") && !line.contains("hunter2"), "{line}");
}

#[test]
fn garbage_during_the_hand_shake_is_not_trusted() {
    let url = server(|words| match words[0].as_str() {
        "HELLO" => b"$100000000\r\n".to_vec(),
        _ => b"+OK\r\n".to_vec(),
    });
    let client = Client::start(&url, Options::default());
    assert!(client.sink.refused(Lane::Push).contains("not a Redis server"));
    // Silence is no answer either, and a connection that ends at once none at all.
    let client = Client::start(&server(|_| Vec::new()), Options::default());
    assert!(client.sink.down(Lane::Push).contains("went away"));
}

/// A value that takes longer than any patience with silence is not given up while it moves.
#[test]
fn a_slow_line_is_not_a_dead_server() {
    const LEN: usize = 24 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut got = 0;
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let n = std::io::Read::read(&mut stream, &mut buffer).unwrap_or(0);
                    if n == 0 {
                        return;
                    }
                    got += n;
                    if n < 1000 && got < LEN {
                        // The hand-shake and the pings, one write each.
                        let commands = buffer[..n].iter().filter(|&&b| b == b'*').count();
                        stream.write_all("+OK\r\n".repeat(commands).as_bytes()).unwrap();
                    } else if got > LEN {
                        return stream.write_all(b"+STORED\r\n").unwrap();
                    } else {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
            });
        }
    });
    let second = std::time::Duration::from_secs(1);
    let options = Options { ping_after: second, ping_timeout: second, ..Options::default() };
    let client = Client::start(&url, options);
    client.sink.all_up();
    let set = Command::plain([b"SET".to_vec(), b"k".to_vec(), vec![b'x'; LEN]]);
    let replies = client.ask(Lane::Bulk, Mode::Independent, vec![set]);
    assert_eq!(replies, [Reply::Status("STORED".into())]);
}

#[test]
fn a_cluster_is_refused_for_now() {
    let server = Server::start(&["--cluster-enabled", "yes"]);
    let client = Client::start(&server.url(), Options::default());
    assert!(client.sink.refused(Lane::Push).contains("cluster mode"));
}

#[test]
fn a_server_that_refuses_later_is_asked_again() {
    let mut server = Server::start(&[]);
    let url = format!("redis://:pw@127.0.0.1:{}/0", server.port);
    let client = Client::up(&url);
    server.kill();
    client.sink.down(Lane::Meta);
    client.sink.take();
    // It comes back with another password, which is set right by hand.
    server.again();
    client.sink.all_up();
    assert_eq!(client.one(&["PING"]), Reply::Status("PONG".into()));
    assert_eq!(server.cli(&["CONFIG", "SET", "requirepass", "other"]), "OK");
    server.cli(&["-a", "other", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(client.sink.refused(Lane::Meta).contains("refuses the password"));
    client.sink.take();
    assert_eq!(server.cli(&["-a", "other", "CONFIG", "SET", "requirepass", "pw"]), "OK");
    client.sink.up(Lane::Meta);
    assert_eq!(client.one(&["PING"]), Reply::Status("PONG".into()));
}
