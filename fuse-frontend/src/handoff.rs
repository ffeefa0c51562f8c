//! From the command that the user gave to the process that serves: a new run of this program that
//! gets everything on its standard input, so that `ps` and `/proc/PID/environ` show no secret, and
//! that tells how it comes along over its standard output.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use dbmount_engine::engine::Progress;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::mountpoint::plain;
use crate::session::Report;

/// The variable that may hold a password.
pub const PASSWORD_VARIABLE: &str = "DBMOUNT_PASSWORD";

/// The first field, so that nothing else is taken for a hand-over.
const MAGIC: &[u8] = b"dbmount-serve-1";

/// What the serving process is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Handoff {
    /// The command line as the user gave it, in the order of [`crate::cli::options::invocation`].
    pub arguments: Vec<OsString>,
    /// What [`PASSWORD_VARIABLE`] held.
    pub password: Option<OsString>,
}

/// Neither the command line nor the password may get into a log.
impl std::fmt::Debug for Handoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handoff({} arguments)", self.arguments.len())
    }
}

impl Handoff {
    /// Fields end with NUL, which no argument and no variable can hold.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let (given, password) = match &self.password {
            Some(password) => (b"1".as_slice(), password.as_bytes()),
            None => (b"0".as_slice(), b"".as_slice()),
        };
        let arguments = self.arguments.iter().map(|argument| argument.as_bytes());
        for field in [MAGIC, given, password].into_iter().chain(arguments) {
            out.extend_from_slice(field);
            out.push(0);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.strip_suffix(b"\0")?.split(|&byte| byte == 0);
        if fields.next()? != MAGIC {
            return None;
        }
        let given = fields.next()?;
        let password = fields.next()?;
        Some(Handoff {
            password: (given == b"1").then(|| OsStr::from_bytes(password).to_owned()),
            arguments: fields.map(|field| OsString::from_vec(field.to_vec())).collect(),
        })
    }

    /// Reads what the starting process left on standard input, and lets go of it.
    ///
    /// # Errors
    /// One line when somebody else started this process.
    pub fn receive() -> Result<Self, String> {
        const ALIEN: &str = "`serve` is started by `dbmount mount` alone; use that";
        if io::stdin().is_terminal() {
            return Err(ALIEN.to_owned());
        }
        let mut bytes = Vec::new();
        // As much as the kernel takes for a command line and its environment.
        let most = 4 << 20;
        io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(|error| plain(&error))?;
        let handoff = Handoff::decode(&bytes).ok_or_else(|| ALIEN.to_owned())?;
        let null = File::open("/dev/null").map_err(|error| plain(&error))?;
        rustix::stdio::dup2_stdin(null).map_err(|error| plain(&error.into()))?;
        Ok(handoff)
    }

    /// This program again, with this on its standard input; `source` and `directory` are what
    /// `ps` shows.
    fn command(&self, source: &str, directory: &Path) -> io::Result<Command> {
        let mut memory = File::from(memfd_create("dbmount", MemfdFlags::CLOEXEC)?);
        memory.write_all(&self.encode())?;
        memory.rewind()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg0("dbmount")
            .arg("serve")
            .arg(source)
            .arg(directory)
            .env_remove(PASSWORD_VARIABLE)
            .stdin(memory);
        Ok(command)
    }

    /// Becomes the serving process, in the foreground and under the same process id.
    ///
    /// # Errors
    /// Why that could not be done; on success this does not return.
    pub fn become_server(&self, source: &str, directory: &Path) -> String {
        match self.command(source, directory) {
            Ok(mut command) => plain(&command.exec()),
            Err(error) => plain(&error),
        }
    }

    /// Starts the serving process in the background.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn start_server(&self, source: &str, directory: &Path) -> Result<Started, String> {
        let start = || -> io::Result<Started> {
            let mut command = self.command(source, directory)?;
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let pipe = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
            Ok(Started { child, lines: BufReader::new(pipe) })
        };
        start().map_err(|error| format!("cannot start the serving process: {}", plain(&error)))
    }
}

/// A serving process in the background, as its starter sees it.
#[derive(Debug)]
pub struct Started {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// What a serving process in the background tells its starter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// How far the first index is.
    Progress(Progress),
    /// Something the user should know.
    Note(String),
    /// The mount answers.
    Ready,
    /// It failed, with this one line.
    Failed(String),
}

impl Started {
    /// The next piece of news; `None` when there will be none.
    pub fn news(&mut self) -> Option<News> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Some(news) = News::decode(line.trim_end_matches('\n')) {
                return Some(news);
            }
        }
    }

    /// How a serving process ended that told nothing.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl News {
    fn encode(&self) -> String {
        match self {
            News::Progress(Progress { done, total, finished }) => {
                let total = total.map_or("-".to_owned(), |total| total.to_string());
                format!("progress {done} {total} {finished}")
            }
            News::Note(line) => format!("note {}", one_line(line)),
            News::Ready => "ready".to_owned(),
            News::Failed(line) => format!("failed {}", one_line(line)),
        }
    }

    fn decode(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "progress" => {
                let mut fields = rest.split(' ');
                let done = fields.next()?.parse().ok()?;
                let total = fields.next()?.parse().ok();
                let finished = fields.next()? == "true";
                Some(News::Progress(Progress { done, total, finished }))
            }
            "note" => Some(News::Note(rest.to_owned())),
            "ready" => Some(News::Ready),
            "failed" => Some(News::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Reports from the serving process to its starter, until the starter has heard enough.
#[derive(Debug)]
pub struct PipeReport {
    last: Option<Progress>,
    open: bool,
}

impl PipeReport {
    /// Reports over standard output.
    #[must_use]
    pub fn new() -> Self {
        PipeReport { last: None, open: true }
    }

    /// Tells a failure, which ends the reporting.
    pub fn failed(&mut self, line: &str) {
        self.tell(&News::Failed(line.to_owned()));
        self.close();
    }

    fn tell(&mut self, news: &News) {
        if !self.open {
            return;
        }
        let mut pipe = io::stdout().lock();
        let told = writeln!(pipe, "{}", news.encode()).and_then(|()| pipe.flush());
        // The starter does not wait for the whole index unless somebody watches.
        self.open = told.is_ok();
    }
}

impl Default for PipeReport {
    fn default() -> Self {
        Self::new()
    }
}

impl Report for PipeReport {
    fn progress(&mut self, progress: &Progress) {
        if self.last.as_ref() != Some(progress) {
            self.tell(&News::Progress(*progress));
            self.last = Some(*progress);
        }
    }

    fn note(&mut self, line: &str) {
        tracing::info!("{line}");
        self.tell(&News::Note(line.to_owned()));
    }

    fn ready(&mut self) -> bool {
        self.tell(&News::Ready);
        // Whoever captures what the starting command prints waits until every copy of its
        // standard error is closed.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _kept = rustix::stdio::dup2_stderr(null);
        }
        self.open
    }

    fn close(&mut self) {
        self.open = false;
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _kept = rustix::stdio::dup2_stdout(null);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_survives_the_way() {
        for password in [None, Some(OsString::new()), Some(OsString::from("s3 cret\n"))] {
            let handoff = Handoff {
                arguments: vec!["dbmount".into(), "".into(), OsString::from_vec(vec![0xff, b'\n'])],
                password,
            };
            assert_eq!(Handoff::decode(&handoff.encode()), Some(handoff));
        }
        for bytes in [b"".as_slice(), b"\0", b"hello\0", b"dbmount-serve-1\0", MAGIC] {
            assert_eq!(Handoff::decode(bytes), None);
        }
    }

    #[test]
    fn news_survive_the_way() {
        let progress = Progress { done: 5, total: Some(9), finished: false };
        for news in [
            News::Progress(progress),
            News::Progress(Progress { total: None, finished: true, ..progress }),
            News::Note("a b".into()),
            News::Ready,
            News::Failed("no server".into()),
        ] {
            assert_eq!(News::decode(&news.encode()), Some(news));
        }
        assert_eq!(
            News::decode(&News::Note("a\nb".into()).encode()),
            Some(News::Note("a b".into()))
        );
        assert_eq!(News::decode("progress x"), None);
    }
}
