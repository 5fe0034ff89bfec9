//! Sockets that do not block.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect as connect_to, getsockopt,
    setsockopt, socket, sockopt,
};
use nix::{getsockopt_impl, libc, sockopt_impl};

/// How the kernel watches over a connection to a server.
#[derive(Debug, Clone, Copy)]
pub(in crate::host) struct Watch {
    /// After so many seconds of silence the other machine is asked whether it is there (`TCP_KEEPIDLE`), and as often
    /// again (`TCP_KEEPINTVL`).
    pub(in crate::host) ask: u32,
    /// What is not acknowledged for so many milliseconds ends the connection (`TCP_USER_TIMEOUT`); so do questions
    /// without an answer.
    pub(in crate::host) patience: u32,
}

/// For a health check's connection: it notices within three seconds that a machine is gone, by two questions without an
/// answer, as long as nothing else is under way.
pub(super) const CHECK: Watch = Watch { ask: 1, patience: 2500 };
/// After so much silence on a [`CHECK`]'s connection a question of the kernel's is without an answer. On a living one
/// somebody was heard a second and a round trip ago at most.
pub(super) const UNANSWERED: Duration = Duration::from_millis(1300);
/// For a client's: the checks notice first. This bounds what remains when no server is left to turn to; longer than the
/// minute for which a slow reader at the other end may take nothing.
pub(super) const CLIENT: Watch = Watch { ask: 15, patience: 90_000 };

// The beginning of `struct tcp_info` (linux/tcp.h): eight bytes, then words of 32 bits. The kernel writes as much as is asked for.
sockopt_impl!(
    /// What the kernel knows of a TCP connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u32; 15]
);
/// `tcpi_last_data_recv`, in milliseconds: how long ago the other side sent data.
const LAST_DATA: usize = 13;
/// `tcpi_last_ack_recv`, in milliseconds: how long ago it acknowledged something, a question of the kernel's too.
const LAST_ACK: usize = 14;

/// How long nothing has come from the other side, as the kernel reckons when it asks: data need not acknowledge anything. No
/// time if it does not say.
pub(super) fn silence(socket: &TcpStream) -> Duration {
    getsockopt(socket, TcpInfo)
        .map_or(Duration::ZERO, |info| Duration::from_millis(info[LAST_DATA].min(info[LAST_ACK]).into()))
}

/// Begins to connect; the socket is writable when that has ended, and `take_error` then says how.
///
/// # Errors
/// It can't even begin: no route, no more sockets.
pub(super) fn connect(address: SocketAddr, watch: Watch) -> io::Result<TcpStream> {
    connect_from(None, address, watch)
}

/// [`connect`], from one of this machine's addresses.
///
/// # Errors
/// As [`connect`]; and the address is none of this machine's.
pub(in crate::host) fn connect_from(own: Option<IpAddr>, address: SocketAddr, watch: Watch) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, SockProtocol::Tcp)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(&socket, sockopt::KeepAlive, &true)?;
    setsockopt(&socket, sockopt::TcpKeepIdle, &watch.ask)?;
    setsockopt(&socket, sockopt::TcpKeepInterval, &watch.ask)?;
    setsockopt(&socket, sockopt::TcpUserTimeout, &watch.patience)?;
    if let Some(own) = own {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    }
    match connect_to(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}
