//! Discovery's sockets. Queries leave by multicast; control planes hear them at sockets that are bound to the groups, so
//! that nothing which is sent to a machine itself ever gets there, and answer from the same port.

pub mod serving;

#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{clock, random};
use crate::discovery::{Answer, Found, GROUP_IPV4, GROUP_IPV6, Key, MESSAGE, PORT, Query};

/// Datagrams that are taken in one go.
const AT_ONCE: usize = 64;
/// How long answers to one query are waited for; then the next query is sent, in case one was lost.
const ROUND: Duration = Duration::from_millis(500);

/// Where queries go from a machine, and where it hears those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The machine's own address and the group.
    ipv4: Option<(Ipv4Addr, SocketAddrV4)>,
    /// The group, with the interface as its scope.
    ipv6: Option<SocketAddrV6>,
}

impl Place {
    /// The network of the interface that has this address.
    ///
    /// # Errors
    /// In words: no interface has it.
    pub fn of(address: IpAddr) -> Result<Self, String> {
        let all = getifaddrs().map_err(|error| format!("can't list addresses: getifaddrs: {error}"))?;
        let has = |at: &nix::ifaddrs::InterfaceAddress| {
            let own = at.address.as_ref();
            match address {
                IpAddr::V4(ip) => own.and_then(|own| own.as_sockaddr_in()).is_some_and(|own| own.ip() == ip),
                IpAddr::V6(ip) => own.and_then(|own| own.as_sockaddr_in6()).is_some_and(|own| own.ip() == ip),
            }
        };
        let interface = all.into_iter().find(has).ok_or_else(|| format!("no interface has the address {address}"))?;
        let index = if_nametoindex(interface.interface_name.as_str())
            .map_err(|error| format!("the interface {} can't be found: {error}", interface.interface_name))?;
        let ipv4 = match address {
            IpAddr::V4(ip) => Some((ip, SocketAddrV4::new(GROUP_IPV4, PORT))),
            IpAddr::V6(_) => None,
        };
        Ok(Place { ipv4, ipv6: Some(SocketAddrV6::new(GROUP_IPV6, PORT, 0, index)) })
    }

    /// A socket for each family that this machine has, made by the one or the other.
    ///
    /// # Errors
    /// In words: neither could be made.
    fn open<T>(
        &self,
        ipv4: impl Fn(Ipv4Addr, SocketAddrV4) -> io::Result<T>,
        ipv6: impl Fn(SocketAddrV6) -> io::Result<T>,
    ) -> Result<Vec<T>, String> {
        let of_ipv4 = self.ipv4.map(|(own, group)| (SocketAddr::from(group), ipv4(own, group)));
        let of_ipv6 = self.ipv6.map(|group| (SocketAddr::from(group), ipv6(group)));
        let (mut sockets, mut wrong) = (Vec::new(), Vec::new());
        for (group, made) in [of_ipv4, of_ipv6].into_iter().flatten() {
            match made {
                Ok(socket) => sockets.push(socket),
                Err(error) => wrong.push(format!("{group}: {error}")),
            }
        }
        // A machine without IPv6, or with IPv6 alone, has one.
        if sockets.is_empty() { Err(format!("no multicast: {}", wrong.join("; "))) } else { Ok(sockets) }
    }

    /// Where others' queries are heard.
    fn ears(&self) -> Result<Vec<UdpSocket>, String> {
        self.open(
            |own, group| {
                let socket = UdpSocket::bind(group)?;
                if group.ip().is_multicast() {
                    socket.join_multicast_v4(group.ip(), &own)?;
                }
                socket.set_nonblocking(true).map(|()| socket)
            },
            |group| {
                let socket = UdpSocket::bind(group)?;
                socket.join_multicast_v6(group.ip(), group.scope_id())?;
                socket.set_nonblocking(true).map(|()| socket)
            },
        )
    }
}

/// What is readable of the sockets that it watches, by their place among them.
struct Watched(Epoll);

impl Watched {
    fn new<'a>(sockets: impl Iterator<Item = &'a UdpSocket>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (place, socket) in sockets.enumerate() {
            epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, place as u64))?;
        }
        Ok(Watched(epoll))
    }

    /// Waits for at most `limit` until something is readable.
    fn wait(&self, limit: Duration) -> io::Result<Vec<usize>> {
        let mut events = [EpollEvent::empty(); 8];
        let limit = EpollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX);
        match self.0.wait(&mut events, limit) {
            Ok(count) => Ok(events[..count].iter().map(|event| event.data() as usize).collect()),
            Err(Errno::EINTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Takes what has come, a bounded amount of it. True when there may be more.
fn drain(socket: &UdpSocket, mut take: impl FnMut(SocketAddr, &[u8])) -> bool {
    // One byte more than a message: what is longer is seen to be.
    let mut buffer = [0; MESSAGE + 1];
    for _ in 0..AT_ONCE {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => take(from, &buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // An ICMP message about something that was sent before; the next call has the next datagram.
            Err(_) => {}
        }
    }
    true
}

/// Asks, and collects the answers.
pub struct Asking {
    sockets: Vec<(UdpSocket, SocketAddr)>,
    /// For each socket the query that was sent there last.
    queries: Vec<Query>,
}

impl Asking {
    /// Opens the sockets.
    ///
    /// # Errors
    /// In words: there is no multicast here.
    pub fn open(place: &Place) -> Result<Self, String> {
        let sockets = place.open(
            |own, group| {
                // The kernel sends to the group by the interface that has the socket's address.
                let socket = UdpSocket::bind((own, 0))?;
                socket.set_multicast_ttl_v4(1)?;
                socket.set_nonblocking(true).map(|()| (socket, group.into()))
            },
            |group| {
                // Its hop limit is 1 already (RFC 3493 §5.2), and the group's scope is the link.
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                socket.set_nonblocking(true).map(|()| (socket, group.into()))
            },
        )?;
        Ok(Asking { sockets, queries: Vec::new() })
    }

    /// Sends a query by each socket. Answers to earlier ones open no more.
    ///
    /// # Errors
    /// In words: none could be sent.
    pub fn ask(&mut self, key: &Key) -> Result<(), String> {
        self.queries = self.sockets.iter().map(|_| Query::new(key, random::bytes())).collect();
        let mut wrong = Vec::new();
        for ((socket, group), query) in self.sockets.iter().zip(&self.queries) {
            if let Err(error) = socket.send_to(&query.message(), group) {
                wrong.push(format!("{group}: {error}"));
            }
        }
        if wrong.len() < self.sockets.len() { Ok(()) } else { Err(format!("send a query: {}", wrong.join("; "))) }
    }

    /// Takes the answers that have come. True when there may be more.
    fn hear(&self, mut take: impl FnMut(Answer)) -> bool {
        let mut more = false;
        for ((socket, group), query) in self.sockets.iter().zip(&self.queries) {
            more |= drain(socket, |from, message| {
                // From discovery's port only, which pods can't send from.
                if let Some(answer) = query.open(message).filter(|_| from.port() == group.port()) {
                    take(answer);
                }
            });
        }
        more
    }
}

/// Looks for control planes that know this key, from the network of `address`, for so long.
///
/// # Errors
/// In words: there is no multicast here.
pub fn look(address: IpAddr, key: &Key, limit: Duration) -> Result<Found, String> {
    look_at(&Place::of(address)?, key, limit)
}

fn look_at(place: &Place, key: &Key, limit: Duration) -> Result<Found, String> {
    let mut asking = Asking::open(place)?;
    let watching = |error: io::Error| format!("watch discovery's sockets: {error}");
    let watched = Watched::new(asking.sockets.iter().map(|(socket, _)| socket)).map_err(watching)?;
    let mut found = Found::default();
    let end = clock::monotonic() + limit;
    while clock::monotonic() < end {
        asking.ask(key)?;
        let round = end.min(clock::monotonic() + ROUND);
        loop {
            let left = round.saturating_sub(clock::monotonic());
            if left.is_zero() {
                break;
            }
            watched.wait(left).map_err(watching)?;
            asking.hear(|answer| found.add(answer));
        }
    }
    Ok(found)
}
