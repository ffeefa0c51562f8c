//! Another client of the server, as small as can be: the keyspace as `redis-cli` would show it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A reply, as the protocol has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Nil,
    Int(i64),
    /// Bulk and simple strings.
    Text(Vec<u8>),
    Error(String),
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Value::Text(bytes) => bytes,
            other => panic!("a string was expected: {other:?}"),
        }
    }

    pub(crate) fn int(self) -> i64 {
        match self {
            Value::Int(number) => number,
            other => panic!("a number was expected: {other:?}"),
        }
    }

    pub(crate) fn list(self) -> Vec<Value> {
        match self {
            Value::List(values) => values,
            other => panic!("a list was expected: {other:?}"),
        }
    }
}

/// A connection of its own, so that the mount sees a stranger.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// One command; an error reply is a failure of the test.
    pub(crate) fn run<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Value {
        match self.ask(words) {
            Value::Error(line) => panic!("the server refused a command of the test: {line}"),
            value => value,
        }
    }

    /// One command, and whatever the server says to it.
    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Value {
        self.send(words);
        self.receive().unwrap()
    }

    /// A command as it is typed: words between blanks.
    pub(crate) fn say(&mut self, line: &str) -> Value {
        self.run(&line.split(' ').collect::<Vec<_>>())
    }

    /// Whether there is a server that is through with loading, if only to ask for a password.
    pub(crate) fn answers(&mut self) -> bool {
        let mut out = Vec::new();
        encode(&mut out, &["PING"]);
        let sent = self.stream.get_mut().write_all(&out).is_ok();
        match sent.then(|| self.receive()) {
            Some(Ok(Value::Error(line))) => !line.starts_with("LOADING"),
            Some(Ok(_)) => true,
            _ => false,
        }
    }

    /// Many commands in few flights; none may fail.
    pub(crate) fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Value> {
        let mut replies = Vec::with_capacity(commands.len());
        for flight in commands.chunks(512) {
            let mut out = Vec::new();
            for words in flight {
                encode(&mut out, words);
            }
            self.stream.get_mut().write_all(&out).unwrap();
            for _ in flight {
                let reply = self.receive().unwrap();
                assert!(!matches!(reply, Value::Error(_)), "{reply:?}");
                replies.push(reply);
            }
        }
        replies
    }

    pub(crate) fn get(&mut self, key: impl AsRef<[u8]>) -> Vec<u8> {
        self.run(&[b"GET".as_slice(), key.as_ref()]).bytes()
    }

    pub(crate) fn size(&mut self) -> i64 {
        self.say("DBSIZE").int()
    }

    /// Every key but those of mounts that are alive (what they committed last), sorted.
    pub(crate) fn keys(&mut self) -> Vec<String> {
        let mut keys = self.everything();
        keys.retain(|key| !key.starts_with(".dbmount:s:"));
        keys
    }

    /// Every key there is, sorted.
    pub(crate) fn everything(&mut self) -> Vec<String> {
        let keys = self.say("KEYS *").list().into_iter();
        let mut keys: Vec<_> =
            keys.map(|key| String::from_utf8_lossy(&key.bytes()).into_owned()).collect();
        keys.sort();
        keys
    }

    fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) {
        let mut out = Vec::new();
        encode(&mut out, words);
        self.stream.get_mut().write_all(&out).unwrap();
    }

    fn receive(&mut self) -> std::io::Result<Value> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.len() < 3 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = &line[1..line.len() - 2];
        let number = || std::str::from_utf8(text).unwrap().parse::<i64>().unwrap();
        Ok(match line[0] {
            b'+' => Value::Text(text.to_vec()),
            b'-' => Value::Error(String::from_utf8_lossy(text).into_owned()),
            b':' => Value::Int(number()),
            b'$' => {
                let Ok(length) = usize::try_from(number()) else { return Ok(Value::Nil) };
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Value::Text(bytes)
            }
            b'*' => {
                let Ok(length) = usize::try_from(number()) else { return Ok(Value::Nil) };
                Value::List((0..length).map(|_| self.receive()).collect::<Result<_, _>>()?)
            }
            other => panic!("not a reply: {other}"),
        })
    }
}

fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[A]) {
    out.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        let word = word.as_ref();
        out.extend(format!("${}\r\n", word.len()).bytes());
        out.extend(word);
        out.extend(b"\r\n");
    }
}
