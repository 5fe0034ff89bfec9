//! One connection: a client's socket and a server's, and bytes both ways.
//!
//! No byte is kept here. What can be read is looked at (`MSG_PEEK`), sent on as far as the other side takes it, and only
//! so much is then taken from the socket (`MSG_TRUNC`, tcp(7): discarded without being copied). So a slow reader slows
//! the writer down through the kernel's own buffers, and a connection needs no memory of ours but its entry.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

/// Most chunks that one direction moves before others get their turn.
const BURST: usize = 4;

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Who connected to this machine's port.
    Client,
    /// The API server.
    Server,
}

/// Bytes from one side to the other.
#[derive(Debug, Clone, Copy, Default)]
struct Direction {
    /// The sender has ended, and the receiver was told.
    ended: bool,
    /// The receiver takes nothing just now.
    blocked: bool,
}

/// A connection, once its server has answered.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) client: TcpStream,
    pub(super) server: Option<TcpStream>,
    /// The server, or the one that is being tried.
    pub(super) address: SocketAddr,
    /// Those that were tried in vain.
    pub(super) tried: Vec<SocketAddr>,
    /// Whether the server has answered.
    pub(super) open: bool,
    /// What epoll was asked for, for each side; empty when it was not asked.
    pub(super) watched: [EpollFlags; 2],
    up: Direction,
    down: Direction,
}

impl Pipe {
    /// A client whose server is still to be found.
    pub(super) fn new(client: TcpStream, address: SocketAddr) -> Self {
        Pipe {
            client,
            server: None,
            address,
            tried: Vec::new(),
            open: false,
            watched: [EpollFlags::empty(); 2],
            up: Direction::default(),
            down: Direction::default(),
        }
    }

    /// What has to be watched for on each side. A side for which that is nothing may not be watched at all: the kernel
    /// would tell of its end again and again.
    pub(super) fn wanted(&self) -> [EpollFlags; 2] {
        if !self.open {
            return [EpollFlags::empty(), EpollFlags::EPOLLOUT];
        }
        let flags = |reads: Direction, writes: Direction| {
            let mut flags = EpollFlags::empty();
            flags.set(EpollFlags::EPOLLIN, !reads.ended && !reads.blocked);
            flags.set(EpollFlags::EPOLLOUT, writes.blocked);
            flags
        };
        [flags(self.up, self.down), flags(self.down, self.up)]
    }

    /// Moves what can be moved after an event on `side`. False when the connection is over, in order.
    ///
    /// # Errors
    /// One side broke off.
    pub(super) fn pump(&mut self, side: Side, events: EpollFlags, buffer: &mut [u8]) -> io::Result<bool> {
        let Some(server) = &self.server else { return Ok(true) };
        let broken = events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let reads = events.contains(EpollFlags::EPOLLIN) || broken;
        let writes = events.contains(EpollFlags::EPOLLOUT) || broken;
        let (up, down) = match side {
            Side::Client => (reads, writes),
            Side::Server => (writes, reads),
        };
        if up {
            carry(&self.client, server, &mut self.up, buffer)?;
        }
        if down {
            carry(server, &self.client, &mut self.down, buffer)?;
        }
        Ok(!(self.up.ended && self.down.ended))
    }

    /// Makes the end of this connection a reset for both sides, not an end in order: the client must not take what it
    /// has got for all of it.
    pub(super) fn break_off(&self) {
        let now = libc::linger { l_onoff: 1, l_linger: 0 };
        for socket in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            // It is closed in any case.
            let _ = setsockopt(socket, sockopt::Linger, &now);
        }
    }
}

fn carry(from: &TcpStream, to: &TcpStream, direction: &mut Direction, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..BURST {
        if direction.ended {
            return Ok(());
        }
        let found = match from.peek(buffer) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                direction.blocked = false;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if found == 0 {
            // Its other direction goes on: half of the connection is closed (RFC 9293, 3.6).
            *direction = Direction { ended: true, blocked: false };
            return match to.shutdown(Shutdown::Write) {
                Err(error) if error.kind() != ErrorKind::NotConnected => Err(error),
                _ => Ok(()),
            };
        }
        let sent = match (&*to).write(&buffer[..found]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(from, &mut buffer[..sent])?;
        direction.blocked = sent < found;
        if direction.blocked {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes what was seen before from a socket.
fn take(from: &TcpStream, seen: &mut [u8]) -> io::Result<()> {
    let mut left = seen.len();
    while left > 0 {
        match recv(from.as_raw_fd(), &mut seen[..left], MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(taken) => left -= taken.min(left),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
