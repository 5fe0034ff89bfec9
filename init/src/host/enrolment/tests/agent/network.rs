//! Two network namespaces that a veth pair joins: the machine's, and that of everybody else, with as many addresses as
//! somebody wants to come from.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt::SendTimeout,
};
use nix::sys::time::TimeVal;

use super::*;
use crate::enrolment::PORT;
use crate::host::process;

/// The machine's address: of none of the cluster's ranges.
pub(super) const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The other end of the cable.
pub(super) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where everybody else comes from: what RFC 2544 keeps for measurements.
const SOURCES: &str = "198.18.0.0/15";

fn ip(words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    process::run("ip", &words, LIMIT).unwrap_or_else(|failure| panic!("{words:?}: {failure}"));
}

/// Lays the cable from the namespace of this thread, which becomes the machine's, to that of the process.
pub(super) fn of_machine() {
    ip("link set lo up");
    ip(&format!("link add cable type veth peer name outside netns {}", std::process::id()));
    ip(&format!("address add {MACHINE}/24 dev cable"));
    ip("link set cable up");
    ip(&format!("route add {SOURCES} via {OUTSIDE}"));
}

/// The end outside. All the addresses of [`SOURCES`] are its own.
pub(super) fn of_everybody_else() {
    ip("link set lo up");
    ip(&format!("address add {OUTSIDE}/24 dev outside"));
    ip("link set outside up");
    ip(&format!("route add local {SOURCES} dev lo"));
}

/// Where the agent serves.
pub(super) fn agent() -> SocketAddr {
    (MACHINE, PORT).into()
}

/// Addresses that nobody has come from yet: the agent's limits are for each.
#[derive(Default)]
pub(super) struct Sources(u32);

impl Sources {
    pub(super) fn next(&mut self) -> Ipv4Addr {
        self.0 += 1;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + self.0)
    }
}

/// A connection to the agent from this address. The standard library can't choose it.
pub(super) fn dial(from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It bounds connect(2) too: socket(7).
    let patience = TimeVal::new(LIMIT.as_secs().try_into().unwrap(), 0);
    setsockopt(&socket, SendTimeout, &patience)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(MACHINE, PORT)))?;
    setsockopt(&socket, SendTimeout, &TimeVal::new(0, 0))?;
    Ok(socket.into())
}

/// The same, through TLS.
pub(super) fn channel(from: Ipv4Addr) -> Result<Channel, Broken> {
    let begun = Instant::now();
    let socket = dial(from)?;
    let tls = ClientConnection::new(tls::client().unwrap(), tls::name())?;
    Channel::over(socket, tls.into(), begun, Times::default())
}

/// As many open files as may be: everybody outside is one process.
pub(super) fn many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// How long a step of this test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);
