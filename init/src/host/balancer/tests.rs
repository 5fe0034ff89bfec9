//! With real sockets on loopback, and times that are shorter than a machine's.

mod loss;
mod silence;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn};
use nix::sys::socket::{Backlog, bind, listen, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::host::wait;

const PACE: Pace = Pace {
    most: 4096,
    look: Duration::from_millis(10),
    dial: Duration::from_millis(100),
    connect: Duration::from_millis(150),
    answer: Duration::from_millis(300),
    times: Times {
        check: Duration::from_millis(40),
        check_again: Duration::from_millis(20),
        hold: Duration::from_millis(20),
        longest_hold: Duration::from_millis(100),
        steady: Duration::from_secs(1),
        hung: Duration::from_millis(200),
        drain: Duration::from_millis(200),
        dwell: Duration::from_secs(30),
    },
};
const SOON: Duration = Duration::from_secs(5);

/// The cluster's authority.
struct Authority(Issuer<'static, KeyPair>, String);

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = parameters.self_signed(&key).unwrap().pem();
    Authority(Issuer::new(parameters, key), pem)
}

impl Authority {
    fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["kubernetes.default.svc".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

const READY: u8 = 0;
const UNREADY: u8 = 1;
/// Takes no connection more, as a machine that is off; those that it has stay open.
const FROZEN: u8 = 2;
const STOPPED: u8 = 3;

/// An API server as far as the balancer sees one. To a client, which never speaks TLS here, it says its name.
struct Server {
    address: SocketAddr,
    mode: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(authority: &Authority, name: u8) -> Self {
        Self::at(authority, name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn at(authority: &Authority, name: u8, address: SocketAddr) -> Self {
        let SocketAddr::V4(wanted) = address else { panic!("IPv4 here") };
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
        // Waits for a connection, and looks now and then whether it is still to.
        nix::sys::socket::setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(5)).unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(wanted)).unwrap();
        // So short that it can be filled.
        listen(&socket, Backlog::new(1).unwrap()).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let (mode, config) = (Arc::new(AtomicU8::new(READY)), authority.server());
        let seen = Arc::clone(&mode);
        let thread = std::thread::spawn(move || {
            loop {
                match (seen.load(Ordering::Relaxed), listener.accept()) {
                    (STOPPED, _) => return,
                    (_, Err(_)) => {}
                    (_, Ok((socket, _))) => {
                        let (mode, config) = (Arc::clone(&seen), Arc::clone(&config));
                        std::thread::spawn(move || serve(socket, name, &mode, config));
                    }
                }
                let thawed = wait::until("its thaw", 4 * SOON, Duration::from_millis(1), || {
                    if seen.load(Ordering::Relaxed) == FROZEN { Err("frozen".to_owned()) } else { Ok(()) }
                });
                thawed.unwrap();
            }
        });
        Server { address, mode, thread: Some(thread) }
    }

    fn is(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is(STOPPED);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(socket: TcpStream, name: u8, mode: &AtomicU8, config: Arc<ServerConfig>) {
    // What the listener is patient for is not its connections' affair.
    socket.set_read_timeout(None).unwrap();
    let mut first = [0];
    if !matches!(socket.peek(&mut first), Ok(1)) {
        return;
    }
    if first[0] == 22 {
        check(socket, mode, config)
    } else {
        let _ = talk(socket, name, mode);
    }
}

/// Answers health checks until it is frozen or stopped.
fn check(socket: TcpStream, mode: &AtomicU8, config: Arc<ServerConfig>) {
    socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    let (mut request, mut byte) = (Vec::new(), [0]);
    while mode.load(Ordering::Relaxed) < FROZEN {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            _ => return,
        }
        if request.ends_with(b"\r\n\r\n") {
            assert_eq!(request, crate::balancer::REQUEST);
            request.clear();
            let answer: &[u8] = match mode.load(Ordering::Relaxed) {
                READY => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                _ => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1\r\n\r\nx",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

/// `?` is answered with the name, and further bytes are sent back. `h` is answered after the client's end, with all that
/// it said.
fn talk(mut socket: TcpStream, name: u8, mode: &AtomicU8) -> io::Result<()> {
    let mut first = [0];
    socket.read_exact(&mut first)?;
    if first[0] == b'h' {
        let mut said = Vec::new();
        socket.read_to_end(&mut said)?;
        return socket.write_all(&said);
    }
    socket.write_all(&[name])?;
    socket.set_read_timeout(Some(Duration::from_millis(5)))?;
    let mut bytes = [0; 64];
    while mode.load(Ordering::Relaxed) != STOPPED {
        match socket.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(count) => socket.write_all(&bytes[..count])?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A list in this very order, which what the balancer thinks is told in.
fn listed(servers: &[SocketAddr]) -> String {
    Endpoints { servers: servers.to_vec(), ..Endpoints::of([]) }.text()
}

/// A balancer that runs until it is dropped.
struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    /// How often it has looked at its files.
    looks: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(authority: &Authority, servers: &[SocketAddr], pace: Pace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("endpoints"), listed(servers)).unwrap();
        std::fs::write(path("ca"), &authority.1).unwrap();
        let files = Files { endpoints: path("endpoints"), authority: path("ca"), view: path("view") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut shell = Shell::new(listener, files, pace).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let looks = Arc::new(AtomicU64::new(0));
        let (stopped, looked) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let next = shell.next_look;
                shell.turn(Duration::from_millis(10)).unwrap();
                looked.fetch_add(u64::from(shell.next_look != next), Ordering::Relaxed);
            }
        });
        Running { address, folder, stop, looks, thread: Some(thread) }
    }

    /// Waits until it has looked at its files so often again.
    fn await_looks(&self, count: u64) {
        let before = self.looks.load(Ordering::Relaxed);
        let done = wait::until(&format!("{count} looks"), SOON, Duration::from_millis(2), || {
            let looks = self.looks.load(Ordering::Relaxed) - before;
            if looks >= count { Ok(()) } else { Err(format!("{looks}")) }
        });
        done.unwrap();
    }

    fn list(&self, servers: &[SocketAddr]) {
        let path = self.folder.path().join("endpoints");
        crate::host::files::write_volatile(&path, listed(servers).as_bytes(), 0o600).unwrap();
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A connection whose server has said its name.
    fn named(&self) -> io::Result<(TcpStream, u8)> {
        let mut stream = self.connect();
        let mut name = [0];
        stream.write_all(b"?")?;
        stream.read_exact(&mut name)?;
        Ok((stream, name[0]))
    }

    /// Waits until new connections go to a server.
    fn await_server(&self, name: u8) -> TcpStream {
        let found = wait::until("the other server", SOON, Duration::from_millis(2), || match self.named() {
            Ok((stream, found)) if found == name => Ok(stream),
            other => Err(format!("{other:?}")),
        });
        found.unwrap()
    }

    /// Waits until it thinks so of each server.
    fn await_health(&self, expected: &[&str]) {
        let path = self.folder.path().join("view");
        let done = wait::until(&format!("{expected:?}"), SOON, Duration::from_millis(2), || {
            let text = std::fs::read(&path).map_err(|error| error.to_string())?;
            let view: View = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            let health: Vec<&str> = view.servers.iter().map(|server| server.health.as_str()).collect();
            if health == expected { Ok(()) } else { Err(format!("{view:?}")) }
        });
        done.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Two servers, A and B, and a balancer that finds both healthy.
fn two() -> (Authority, [Server; 2], Running) {
    let authority = authority();
    let servers = [b'A', b'B'].map(|name| Server::start(&authority, name));
    let running = Running::start(&authority, &[servers[0].address, servers[1].address], PACE);
    running.await_health(&["healthy", "healthy"]);
    (authority, servers, running)
}

/// The server that a connection reached, and the other's name.
fn sides(servers: &[Server; 2], name: u8) -> (&Server, u8) {
    if name == b'A' { (&servers[0], b'B') } else { (&servers[1], b'A') }
}

/// Waits until a connection breaks off.
fn await_end(mut stream: TcpStream) -> io::Result<usize> {
    stream.read(&mut [0; 8])
}

#[test]
fn half_of_a_connection_can_be_closed_and_the_other_goes_on() {
    let (_authority, _servers, running) = two();
    let mut client = running.connect();
    client.write_all(b"hwhat was said").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "what was said");
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let (_authority, _servers, running) = two();
    let mut client = running.connect();
    let said: Vec<u8> = (0..6 << 20_u32).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let expected = said.clone();
    let written = std::thread::spawn(move || {
        writer.write_all(b"h").unwrap();
        writer.write_all(&said).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    written.join().unwrap();
    // Nothing is read until the balancer can get rid of no more.
    let (mut room, mut before) = (vec![0; 8 << 20], 0);
    let full = wait::until("the client's queue to be full", SOON, Duration::from_millis(20), || {
        let queued = client.peek(&mut room).map_err(|error| error.to_string())?;
        let grows = std::mem::replace(&mut before, queued) != queued;
        if grows || queued == 0 { Err(format!("{queued} bytes are queued")) } else { Ok(()) }
    });
    full.unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert!(heard == expected, "{} bytes", heard.len());
}

#[test]
fn a_server_that_ends_is_left_at_once() {
    let (_authority, mut servers, running) = two();
    let (client, name) = running.named().unwrap();
    let (_, other) = sides(&servers, name);
    let at = usize::from(name == b'B');
    servers[at].is(STOPPED);
    let _ = servers[at].thread.take().unwrap().join();
    servers[at].thread = Some(std::thread::spawn(|| {}));
    // Its own connections end with it; new ones go to the other without an error.
    assert!(matches!(await_end(client), Ok(0) | Err(_)));
    assert_eq!(running.named().unwrap().1, other);
}

#[test]
fn connections_to_a_server_from_which_nothing_comes_back_are_cut() {
    let (_authority, servers, running) = two();
    let (client, name) = running.named().unwrap();
    let (server, other) = sides(&servers, name);
    server.is(FROZEN);
    // Its queue fills; then the kernel answers no connection any more.
    let fill: Vec<_> = (0..4).map(|_| sockets::connect(server.address, sockets::CHECK).unwrap()).collect();
    let end = await_end(client);
    assert!(matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset), "{end:?}");
    assert_eq!(running.named().unwrap().1, other);
    drop(fill);
}

#[test]
fn a_server_that_is_not_ready_gets_nothing_new_and_keeps_what_it_has_for_a_while() {
    let (_authority, servers, running) = two();
    let (mut client, name) = running.named().unwrap();
    let (server, other) = sides(&servers, name);
    server.is(UNREADY);
    drop(running.await_server(other));
    client.write_all(b"still").unwrap();
    let mut heard = [0; 5];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still");
    assert!(await_end(client).is_err(), "not for ever");
    server.is(READY);
    running.await_health(&["healthy", "healthy"]);
}

#[test]
fn where_none_is_healthy_all_are_tried_and_the_first_that_is_back_serves() {
    let authority = authority();
    let gone: Vec<SocketAddr> =
        (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()).collect();
    let running = Running::start(&authority, &gone, PACE);
    running.await_health(&["unreachable", "unreachable"]);
    assert!(running.named().is_err());
    let server = Server::at(&authority, b'A', gone[1]);
    server.is(UNREADY);
    assert_eq!(running.named().unwrap().1, b'A', "not healthy, and better than none");
    server.is(READY);
    running.await_health(&["unreachable", "healthy"]);
}

#[test]
fn a_server_that_left_the_list_drains() {
    let (_authority, servers, running) = two();
    let (mut client, name) = running.named().unwrap();
    let (server, other) = sides(&servers, name);
    let kept = servers.iter().find(|one| one.address != server.address).unwrap();
    running.list(&[kept.address]);
    running.await_health(&["healthy", "healthy"]);
    drop(running.await_server(other));
    client.write_all(b"still").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    assert!(await_end(client).is_err());
    running.await_health(&["healthy"]);
}

#[test]
fn a_list_that_can_not_be_read_changes_nothing() {
    let (_authority, _servers, running) = two();
    crate::host::files::write_volatile(&running.folder.path().join("endpoints"), b"{\"format\":", 0o600).unwrap();
    running.await_looks(3);
    running.named().unwrap();
    running.await_health(&["healthy", "healthy"]);
}

#[test]
fn a_server_with_a_certificate_of_another_authority_is_not_healthy() {
    let (own, other) = (authority(), authority());
    let servers = [Server::start(&other, b'A'), Server::start(&own, b'B')];
    let running = Running::start(&own, &[servers[0].address, servers[1].address], PACE);
    running.await_health(&["unwell", "healthy"]);
    for _ in 0..5 {
        assert_eq!(running.named().unwrap().1, b'B');
    }
}

#[test]
fn what_is_more_than_the_most_waits_until_another_has_gone() {
    let authority = authority();
    let server = Server::start(&authority, b'A');
    let running = Running::start(&authority, &[server.address], Pace { most: 2, ..PACE });
    let (first, second) = (running.named().unwrap(), running.named().unwrap());
    let mut third = running.connect();
    third.write_all(b"?").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    third.set_read_timeout(Some(SOON)).unwrap();
    drop(first);
    third.read_exact(&mut [0]).unwrap();
    drop(second);
}
