//! A real redis-server of the test's own, and a small blocking client for it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use dbmount_engine::backend::redis::{Command, Push, Reply};

/// A redis-server on a unix socket in a directory of its own; both are gone at drop.
#[derive(Debug)]
pub(crate) struct RealServer {
    process: Child,
    dir: PathBuf,
}

impl RealServer {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> RealServer {
        static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dbmount-sim-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the server's socket");
        let process = Process::new("redis-server")
            .env("LC_ALL", "C")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(dir.join("s"))
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is needed: apt-get install redis-server");
        let server = RealServer { process, dir };
        for _ in 0..500 {
            if UnixStream::connect(server.dir.join("s")).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server did not come up within five seconds");
    }

    /// A new connection that speaks this version of RESP.
    pub(crate) fn connect(&self, protocol: u8) -> RealClient {
        let stream = UnixStream::connect(self.dir.join("s")).expect("the server accepts");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        let mut client = RealClient { stream: BufReader::new(stream), pushes: VecDeque::new() };
        let hello = client.execute(&Command::plain(["HELLO".into(), protocol.to_string()]));
        assert!(hello.as_array().is_some(), "{hello:?}");
        client
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the server may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct RealClient {
    stream: BufReader<UnixStream>,
    pushes: VecDeque<Push>,
}

impl RealClient {
    /// Sends a command and waits for its reply; pushes before it are kept.
    pub(crate) fn execute(&mut self, command: &Command) -> Reply {
        self.send(command);
        self.receive()
    }

    /// Sends a command. A script goes as `EVAL`.
    pub(crate) fn send(&mut self, command: &Command) {
        let parts: Vec<Vec<u8>> = match command {
            Command::Plain(args) => args.iter().map(|arg| arg.to_vec()).collect(),
            Command::Script { script, keys, args } => {
                let head = [b"EVAL".to_vec(), script.body.into(), keys.len().to_string().into()];
                head.into_iter().chain(keys.iter().chain(args).map(|arg| arg.to_vec())).collect()
            }
        };
        let mut out = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(&part);
            out.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&out).expect("the server reads");
    }

    /// The next reply.
    pub(crate) fn receive(&mut self) -> Reply {
        loop {
            if let Some(reply) = self.frame() {
                return reply;
            }
        }
    }

    /// The pushes that came before now.
    pub(crate) fn take_pushes(&mut self) -> Vec<Push> {
        self.execute(&Command::plain(["PING"]));
        std::mem::take(&mut self.pushes).into()
    }

    /// A reply, or nothing when it was a push.
    fn frame(&mut self) -> Option<Reply> {
        let (kind, text) = self.line();
        let number = || text.parse::<i64>().expect("a length");
        Some(match kind {
            b'+' => Reply::Status(text),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(number()),
            b'_' => Reply::Nil,
            b'#' => Reply::Int((text == "t").into()),
            b',' | b'(' => Reply::Bulk(text.into()),
            b'$' | b'=' => match number() {
                -1 => Reply::Nil,
                len => {
                    let mut bytes = vec![0; len as usize + 2];
                    self.stream.read_exact(&mut bytes).expect("a whole bulk string");
                    bytes.truncate(len as usize);
                    // A verbatim string begins with its format and a colon.
                    Reply::Bulk(if kind == b'=' { bytes.split_off(4) } else { bytes }.into())
                }
            },
            b'*' | b'~' => match number() {
                -1 => Reply::Nil,
                len => self.elements(len),
            },
            b'%' => self.elements(number() * 2),
            b'>' => {
                let items = self.elements(number());
                self.pushes.extend(push(items.as_array().expect("an array")));
                return None;
            }
            other => panic!("unknown reply type {:?}", char::from(other)),
        })
    }

    fn elements(&mut self, len: i64) -> Reply {
        Reply::Array((0..len).map(|_| self.receive()).collect())
    }

    fn line(&mut self) -> (u8, String) {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("the server answers");
        assert!(line.ends_with(b"\r\n"), "the server closed the connection");
        line.truncate(line.len() - 2);
        (line[0], String::from_utf8_lossy(&line[1..]).into_owned())
    }
}

/// A push; nothing for the confirmation of a subscription.
fn push(items: &[Reply]) -> Option<Push> {
    let bytes = |reply: &Reply| bytes::Bytes::copy_from_slice(reply.as_bytes().expect("bytes"));
    Some(match (items[0].as_bytes(), items) {
        (Some(b"subscribe" | b"unsubscribe"), _) => return None,
        (Some(b"invalidate"), [_, Reply::Nil]) => Push::InvalidateAll,
        (Some(b"invalidate"), [_, Reply::Array(keys)]) => {
            Push::Invalidate(keys.iter().map(bytes).collect())
        }
        (Some(b"message"), [_, channel, payload]) => {
            Push::Message { channel: bytes(channel), payload: bytes(payload) }
        }
        _ => panic!("unknown push {items:?}"),
    })
}
