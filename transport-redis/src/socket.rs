//! A stream socket that never blocks, and the bell that wakes the thread that waits for it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};

use crate::resp::Source;

/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(4);
const KEEPALIVE_COUNT: u32 = 3;

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Begins to connect over TCP. Writable when that is done; see [`Socket::error`] then.
    pub(crate) fn tcp(address: SocketAddr) -> io::Result<Socket> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = stream(family)?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        sockopt::set_socket_keepalive(&fd, true)?;
        sockopt::set_tcp_keepidle(&fd, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&fd, KEEPALIVE_EVERY)?;
        sockopt::set_tcp_keepcnt(&fd, KEEPALIVE_COUNT)?;
        sockopt::set_tcp_user_timeout(&fd, USER_TIMEOUT.as_millis() as u32)?;
        match net::connect(&fd, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Socket(fd)),
            Err(e) => Err(e.into()),
        }
    }

    /// Connects to a Unix socket.
    pub(crate) fn unix(path: &Path) -> io::Result<Socket> {
        let fd = stream(AddressFamily::UNIX)?;
        net::connect(&fd, &SocketAddrUnix::new(path)?)?;
        Ok(Socket(fd))
    }

    /// What became of connecting.
    pub(crate) fn error(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(&self.0)??)
    }

    /// Writes what fits.
    pub(crate) fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(net::sendmsg(&self.0, slices, &mut SendAncillaryBuffer::default(), flags)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Source for &Socket {
    fn fill(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let (n, _) = net::recv(&self.0, room, RecvFlags::DONTWAIT)?;
        Ok(n)
    }

    fn append(&mut self, body: &mut Vec<u8>) -> io::Result<usize> {
        let (n, _) = net::recv(&self.0, spare_capacity(body), RecvFlags::DONTWAIT)?;
        Ok(n)
    }
}

fn stream(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Wakes a thread out of [`wait`].
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> io::Result<Bell> {
        Ok(Bell(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    pub(crate) fn ring(&self) {
        // It can only fail by being full, and then it rings already.
        let _ = write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// Sleeps until the socket is ready, the bell rings, or the deadline is there; returns what the
/// socket is ready for.
pub(crate) fn wait(
    bell: &Bell,
    socket: Option<(&Socket, PollFlags)>,
    deadline: Option<Instant>,
) -> io::Result<PollFlags> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
    });
    let mut both;
    let mut alone;
    let fds: &mut [PollFd<'_>] = match socket {
        Some((socket, flags)) => {
            both = [PollFd::new(&bell.0, PollFlags::IN), PollFd::new(socket, flags)];
            &mut both
        }
        None => {
            alone = [PollFd::new(&bell.0, PollFlags::IN)];
            &mut alone
        }
    };
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    if fds[0].revents().contains(PollFlags::IN) {
        let _ = read(&bell.0, &mut [0; 8]);
    }
    Ok(fds.get(1).map_or(PollFlags::empty(), PollFd::revents))
}
