//! Sockets: connecting within a deadline, sending without blocking, waiting.

use std::io::{self, IoSlice};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::uri::ServerAddress;

/// How long a full backlog of a unix socket is left alone before the next try.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// Idle time before the kernel asks whether the peer is still there: middleboxes forget silent
/// links, and a monitor may be silent for long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Pieces of one message handed to the kernel at once; its own bound (IOV_MAX) is 1024.
const MOST_PIECES: usize = 512;

/// A connected socket.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Connects. Names are resolved by the system, which no deadline bounds; every address the
    /// name has is tried in turn.
    pub(super) fn connect(address: &ServerAddress, deadline: Instant) -> io::Result<Socket> {
        match address {
            ServerAddress::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, left(deadline)?) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            let socket = Socket(stream.into());
                            rustix::net::sockopt::set_socket_keepalive(&socket.0, true)?;
                            rustix::net::sockopt::set_tcp_keepidle(&socket.0, KEEPALIVE_IDLE)?;
                            return Ok(socket);
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            ServerAddress::Unix(path) => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let family = AddressFamily::UNIX;
                let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                let address = SocketAddrUnix::new(path.as_str())?;
                // A unix connect succeeds at once or says that the backlog is full.
                while let Err(error) = rustix::net::connect(&fd, &address) {
                    if error != rustix::io::Errno::AGAIN {
                        return Err(error.into());
                    }
                    std::thread::sleep(BACKLOG_PAUSE.min(left(deadline)?));
                }
                let stream = UnixStream::from(fd);
                stream.set_nonblocking(false)?;
                Ok(Socket(stream.into()))
            }
        }
    }

    /// Sends what the socket takes without blocking; 0 when it is full.
    pub(super) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let pieces = &pieces[..pieces.len().min(MOST_PIECES)];
        let mut no_fds = SendAncillaryBuffer::default();
        loop {
            match rustix::net::sendmsg(&self.0, pieces, &mut no_fds, flags) {
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::AGAIN) => return Ok(0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends what has arrived to the spare capacity of `buf`; `None` when nothing has.
    pub(super) fn receive(&self, buf: &mut Vec<u8>) -> io::Result<Option<usize>> {
        loop {
            let room = rustix::buffer::spare_capacity(buf);
            match rustix::net::recv(&self.0, room, RecvFlags::DONTWAIT) {
                Ok((got, _)) => return Ok(Some(got)),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the link both ways; a thread that waits on it wakes up.
    pub(super) fn shut_down(&self) {
        // Failing means that it is down already.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }

    /// Whether the idle socket is still good: neither closed by the peer nor holding bytes
    /// nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN | PollFlags::RDHUP)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Wakes a thread out of [`wait`].
#[derive(Debug)]
pub(super) struct Waker(OwnedFd);

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        Ok(Waker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn wake(&self) {
        // It can only fail by being full of wake-ups already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

/// What [`wait`] saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) woken: bool,
}

/// Waits until the socket is readable (or writable, if asked), the waker woke it, or `until`.
/// Nothing set means that the time is up.
pub(super) fn wait(
    socket: &Socket,
    waker: &Waker,
    for_write: bool,
    until: Option<Instant>,
) -> io::Result<Ready> {
    let wanted = if for_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
    loop {
        let mut fds = [PollFd::new(&socket.0, wanted), PollFd::new(&waker.0, PollFlags::IN)];
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().min(i32::MAX as u64) as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let events = fds[0].revents();
        let woken = fds[1].revents().contains(PollFlags::IN);
        if woken {
            waker.clear();
        }
        // An error or hang-up shows as readable: the read then says which.
        let broken = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let readable = events.intersects(PollFlags::IN | broken);
        return Ok(Ready { readable, writable: events.contains(PollFlags::OUT), woken });
    }
}
