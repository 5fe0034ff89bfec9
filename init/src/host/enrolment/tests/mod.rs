//! The real server on loopback: real sockets, real TLS, objects in memory; and who attacks it.

mod agent;
pub(crate) mod real;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, Connection};
use zeroize::Zeroizing;

use crate::certificates::{Authority, profile, sample};
use crate::enrolment::Keys;
use crate::enrolment::decision::{Admission, Found, NodeRecord, Origin, Site, Sought, TokenRecord};
use crate::enrolment::failure::{Failure, Impostor};
use crate::enrolment::gate::Limits;
use crate::enrolment::joiner::{Credential, Enrolled, Event, Joiner, Machine, Step};
use crate::enrolment::message::{Founded, Grant, Refusal, most};
use crate::enrolment::server::{As, Issue, Setup, Taken};
use crate::enrolment::taking::{Answer, Call};
use crate::enrolment::tests::takings;
use crate::enrolment::tests::world::{Way, Wire, World, bytes, honest, key};
use crate::enrolment::transcript::Exporter;
use crate::host::enrolment::channel::{Broken, Channel, Times};
use crate::host::enrolment::store::{Objects, Store};
use crate::host::enrolment::{server, tls};
use crate::host::{clock, random, wait};
use crate::mesh::MeshKey;
use crate::settings::Cidr;
use crate::token::{JoinToken, Joiner as Role, SECRET, Seed, SigningKey};

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct InMemory(Mutex<takings::Objects>);

impl InMemory {
    pub(crate) fn new() -> Self {
        InMemory(Mutex::new(takings::Objects::new()))
    }
}

impl Objects for InMemory {
    fn call(&self, call: &Call) -> Result<Answer, String> {
        Ok(self.0.lock().unwrap().call(call))
    }
}

struct Cluster {
    identity: SigningKey,
    founded: Founded,
    site: Site,
    store: Store,
    objects: Arc<InMemory>,
    authorities: BTreeMap<Authority, sample::Signer>,
    strangers: Vec<Cidr>,
    breaks_for: Option<&'static str>,
}

impl server::Cluster for Cluster {
    fn key(&self) -> &(dyn Keys + Send + Sync) {
        &self.identity
    }

    fn setup(&self, exporter: Exporter) -> Setup {
        Setup {
            serves: As::ControlPlane,
            cluster: self.founded.clone(),
            site: self.site.clone(),
            exporter,
            nonce: random::bytes(),
        }
    }

    fn strangers(&self) -> Vec<Cidr> {
        self.strangers.clone()
    }

    fn look(&self, sought: &Sought) -> Result<Found, String> {
        assert_ne!(self.breaks_for, Some(sought.name.as_str()), "a fault of kubeboot's own");
        self.store.look(sought)
    }

    fn take(&self, admission: &Admission) -> Result<Taken, String> {
        self.store.take(admission, clock::unix())
    }

    fn issue(&self, admission: &Admission, certificates: &[Issue]) -> Result<Grant, String> {
        let issue = |issue: &Issue| self.authorities[&issue.request.authority].issue(&issue.request, &issue.spki);
        let certificates: Vec<String> = certificates.iter().map(issue).collect();
        let wanted = [Authority::Cluster, Authority::KubeletServing];
        Ok(Grant {
            role: admission.node.role,
            mesh_key: MeshKey::new(1, Zeroizing::new([7; 32])),
            endpoints: vec!["192.0.2.10:6443".parse().unwrap()],
            settings: String::new(),
            authorities: wanted.map(|one| (one, self.authorities[&one].certificate.clone())).into(),
            certificates: certificates.try_into().unwrap(),
            keys: Vec::new(),
            statement: None,
        })
    }
}

/// A server that runs, and what it logs.
struct Running {
    address: SocketAddr,
    cluster: Arc<Cluster>,
    log: Arc<Mutex<Vec<String>>>,
    token: JoinToken,
}

/// Everything comes from loopback here: one source.
fn limits() -> Limits {
    Limits { of_one: 256, burst: 100_000, ..Limits::default() }
}

fn cluster() -> Cluster {
    let World { cluster: founded, mut site, seed, .. } = World::new();
    let founding = seed.founding_key();
    let now = clock::unix();
    let record = crate::plan::record::Cluster::unsigned([1; 16], now, &founding.public(), &key(8).public());
    let certificate = founding.sign(&record.certified());
    site.founded = now;
    let founded = Founded { founded: now, certificate, ..founded };
    let authorities = [Authority::Cluster, Authority::KubeletServing];
    let authorities = authorities.map(|which| (which, sample::Signer::new(which, now))).into();
    let objects = Arc::new(InMemory(Mutex::new(takings::Objects::new())));
    let store = Store::new(objects.clone());
    let founder =
        NodeRecord { name: "cp-1".into(), role: Role::ControlPlane, key: [9; 32], address: [192, 0, 2, 10].into() };
    store.record(&founder, now).unwrap();
    Cluster { identity: key(8), founded, site, store, objects, authorities, strangers: Vec::new(), breaks_for: None }
}

fn is_enrolled(store: &Store, name: &str) -> bool {
    store.node(name).unwrap().is_some_and(|node| node.enrolled)
}

/// Starts a server for a cluster with a token for so many workers.
fn run(cluster: Cluster, uses: Option<u32>, limits: Limits, times: Times) -> Running {
    let token = JoinToken::new(Role::Worker, [3; SECRET], &cluster.founded.identity_key);
    let record = TokenRecord {
        kind: Role::Worker,
        key: token.join_key().public(),
        expires: clock::unix() + 3600,
        uses_left: uses,
        origin: Origin::Created { by: "ada".into() },
    };
    assert!(cluster.store.create_token(record).unwrap());
    let (cluster, log) = (Arc::new(cluster), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, lines) = (listener.local_addr().unwrap(), log.clone());
    let hear = Box::new(move |line: &str| lines.lock().unwrap().push(line.to_owned()));
    server::start(listener, cluster.clone(), limits, times, hear).unwrap();
    Running { address, cluster, log, token }
}

fn served() -> Running {
    run(cluster(), None, limits(), Times::default())
}

impl Running {
    /// The first line of the log that has this in it.
    fn logged(&self, part: &str) -> String {
        let line = wait::until(&format!("a line with {part:?}"), LIMIT, Duration::from_millis(2), || {
            let lines = self.log.lock().unwrap();
            lines.iter().find(|line| line.contains(part)).cloned().ok_or_else(|| format!("{lines:#?}"))
        });
        line.unwrap_or_else(|late| panic!("{late}"))
    }

    fn join(&self, name: &str, number: u8) -> Result<Box<Enrolled>, Failure> {
        join(&self.address, name, number, self.token.clone())
    }
}

/// A machine that joins there, as the real one does; its address comes from its number.
pub(crate) fn join(address: &SocketAddr, name: &str, number: u8, token: JoinToken) -> Result<Box<Enrolled>, Failure> {
    join_from(address, name, [192, 0, 2, number].into(), token)
}

fn join_from(address: &SocketAddr, name: &str, own: IpAddr, token: JoinToken) -> Result<Box<Enrolled>, Failure> {
    let channel = Channel::connect(address, tls::client().unwrap(), Times::default()).unwrap();
    exchange(channel, machine(name, own), token)
}

fn machine(name: &str, address: IpAddr) -> Machine {
    let requests = profile::of_every_node(name, address, &node_key(name).public())
        .map(|(_, request)| sample::signing_request(&request, |_| {}));
    Machine { name: name.into(), address, release: "1.37.2-4".parse().unwrap(), requests }
}

/// The node key of the machine with that name.
fn node_key(name: &str) -> SigningKey {
    Seed::new(bytes(name)[..SECRET].try_into().unwrap()).founding_key()
}

fn exchange(channel: Channel, machine: Machine, token: JoinToken) -> Result<Box<Enrolled>, Failure> {
    exchange_by(channel, machine, token, &mut honest)
}

/// The same, where somebody has the wire inside of this one TLS connection.
fn exchange_by(channel: Channel, machine: Machine, token: JoinToken, wire: Wire<'_>) -> Result<Box<Enrolled>, Failure> {
    exchange_with(channel, machine, Credential::Token(token), wire)
}

/// The same, with a token or the node key alone.
fn exchange_with(
    mut channel: Channel,
    machine: Machine,
    credential: Credential,
    wire: Wire<'_>,
) -> Result<Box<Enrolled>, Failure> {
    let node = node_key(&machine.name);
    let (mut joiner, hello) = Joiner::start(machine, credential, &node, channel.exporter(), random::bytes());
    let mut said = Zeroizing::new(hello);
    for turn in 0.. {
        let arrives = wire(Way::ToServer, turn, said.to_vec());
        if arrives.is_some_and(|message| channel.send(&message).is_err()) {
            return Err(Failure::Ended { proven: turn > 0 });
        }
        let heard = channel.receive(joiner.most()).map(|message| wire(Way::ToJoiner, turn, message.to_vec()));
        let step = match heard {
            Ok(Some(message)) => joiner.handle(clock::unix(), &Event::Message(&message)),
            Err(Broken::TimedOut) => joiner.handle(clock::unix(), &Event::TimedOut),
            Ok(None) | Err(_) => joiner.handle(clock::unix(), &Event::Closed),
        };
        match step {
            Step::Send(message) => said = message,
            Step::Enrolled(enrolled) => {
                channel.close();
                return Ok(enrolled);
            }
            Step::Failed(failure) => return Err(failure),
        }
    }
    unreachable!("a joiner ends an exchange after two round trips")
}

#[test]
fn a_machine_joins_over_the_network_and_is_on_record() {
    let server = served();
    let enrolled = server.join("w-1", 11).unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(enrolled.grant.endpoints, ["192.0.2.10:6443".parse().unwrap()]);
    assert_eq!(enrolled.cluster.id, "01".repeat(16));
    let line = server.logged("admitted");
    assert!(line.starts_with("enrolment: 127.0.0.1: admitted worker w-1 (192.0.2.11) with token "), "{line}");
    let nodes = server.cluster.objects.0.lock().unwrap().nodes();
    let node = nodes.iter().find(|node| node.record.name == "w-1").unwrap();
    assert!(node.enrolled && node.record.key == node_key("w-1").public());
    let store = &server.cluster.store;
    assert!(is_enrolled(store, "w-1") && !is_enrolled(store, "w-2"));
}

#[test]
fn a_machine_whose_grant_was_lost_asks_again_and_takes_no_second_use() {
    let server = run(cluster(), Some(1), limits(), Times::default());
    assert!(server.join("w-1", 11).is_ok());
    assert!(server.join("w-1", 11).is_ok());
    assert!(matches!(server.join("w-2", 12), Err(Failure::Refused { refusal: Refusal::NotAccepted, .. })));
    assert!(server.logged("w-2").contains("its token has no uses left"));
}

#[test]
fn names_and_addresses_of_others_are_not_given_out_again() {
    let server = served();
    let refused = |name: &str, number: u8| match server.join(name, number) {
        Err(Failure::Refused { refusal, .. }) => refusal,
        _ => panic!("{name} was not refused"),
    };
    assert_eq!(refused("cp-1", 11), Refusal::NameTaken);
    assert_eq!(refused("w-1", 10), Refusal::Address);
    assert_eq!(refused("../token-0", 11), Refusal::Malformed);
    assert_eq!(refused("w-1?x=y", 11), Refusal::Malformed);
    assert_eq!(server.cluster.objects.0.lock().unwrap().nodes().len(), 1);
}

#[test]
fn a_removed_machine_is_taken_in_no_more_and_the_log_says_why() {
    let server = served();
    assert!(server.join("w-1", 11).is_ok());
    let nodes = server.cluster.objects.0.lock().unwrap().nodes();
    let node = nodes.into_iter().find(|node| node.record.name == "w-1").unwrap();
    let store = &server.cluster.store;
    store.bar(&node.record, clock::unix()).unwrap();
    assert_eq!(store.forget("w-1"), Ok(true));
    match server.join("w-1", 11) {
        Err(Failure::Refused { refusal: Refusal::Removed, .. }) => {}
        _ => panic!("a removed machine was not refused as one"),
    }
    assert!(server.logged("its node key was removed").contains("w-1"));
    assert!(!is_enrolled(store, "w-1"));
    assert!(server.join("w-2", 12).is_ok());
}

#[test]
fn of_many_machines_at_once_as_many_join_as_the_token_admits() {
    let server = run(cluster(), Some(12), limits(), Times::default());
    let (address, token) = (server.address, server.token.clone());
    let joins: Vec<_> = (0..16)
        .map(|number| {
            let token = token.clone();
            thread::spawn(move || join(&address, &format!("w-{number}"), 20 + number, token).is_ok())
        })
        .collect();
    let joined = joins.into_iter().filter_map(|join| join.join().ok()).filter(|joined| *joined).count();
    assert_eq!(joined, 12);
    let nodes = server.cluster.objects.0.lock().unwrap().nodes();
    assert_eq!(nodes.iter().filter(|node| node.enrolled).count(), 13);
    assert_eq!(nodes.len(), 13);
}

/// Ends TLS on both sides and passes every byte of what is inside on, both ways.
pub(crate) fn man_in_the_middle(server: SocketAddr) -> SocketAddr {
    relay(Channel::connect(&server, tls::client().unwrap(), Times::default()).unwrap(), honest)
}

/// Ends TLS on both sides and passes on what this wire makes of what is inside. `real` is the side to the server.
fn relay(
    mut real: Channel,
    mut wire: impl FnMut(Way, usize, Vec<u8>) -> Option<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut victim = Channel::accept(socket, tls::server().unwrap(), Times::default()).unwrap();
        for turn in 0.. {
            let Ok(said) = victim.receive(most::ASK) else { break };
            let Some(message) = wire(Way::ToServer, turn, said.to_vec()) else { break };
            real.send(&message).unwrap();
            let Ok(answer) = real.receive(most::GRANT) else { break };
            let Some(answer) = wire(Way::ToJoiner, turn, answer.to_vec()) else { break };
            victim.send(&answer).unwrap();
        }
        victim.close();
    });
    address
}

#[test]
fn who_ends_tls_on_both_sides_fails_on_both() {
    let server = served();
    let failed = join(&man_in_the_middle(server.address), "w-1", 11, server.token.clone());
    // It passes the server's own words on: no cluster that this connection means is here.
    assert!(matches!(failed, Err(Failure::Unproven(Refusal::OtherCluster))));
    assert!(server.logged("refused").contains("somebody stands between"));
    assert_eq!(server.cluster.objects.0.lock().unwrap().nodes().len(), 1);
}

#[test]
fn a_server_that_has_a_workers_token_can_not_pose_as_the_cluster() {
    let mut rogue = cluster();
    rogue.identity = key(66);
    let rogue = run(rogue, None, limits(), Times::default());
    assert!(matches!(rogue.join("w-1", 11), Err(Failure::Impostor(Impostor::Signature))));
}

#[test]
fn a_thousand_half_open_connections_do_not_keep_an_honest_machine_out() {
    let server = run(cluster(), None, Limits { of_one: 64, ..limits() }, Times::default());
    let address = server.address;
    let (opened, wait) = mpsc::channel();
    let attack = thread::spawn(move || {
        let mut open = Vec::new();
        for number in 0..1000 {
            open.extend(TcpStream::connect(address));
            if number == 500 {
                opened.send(()).unwrap();
            }
        }
        open
    });
    wait.recv().unwrap();
    join_patiently(&server, "w-1", 11);
    let open = attack.join().unwrap();
    assert!(open.len() > 900, "only {} connections were opened", open.len());
    // They are all still open, and in nobody's way.
    join_patiently(&server, "w-2", 12);
    server.logged("its place was given to a newcomer");
}

/// Joins as a machine does: who is crowded out before it has shown anything comes again.
fn join_patiently(server: &Running, name: &str, number: u8) {
    let joined = wait::until(&format!("{name} to get in"), LIMIT, Duration::from_millis(2), || {
        let channel = Channel::connect(&server.address, tls::client().unwrap(), Times::default());
        let channel = channel.map_err(|broken| format!("{broken:?}"))?;
        exchange(channel, machine(name, [192, 0, 2, number].into()), server.token.clone())
            .map_err(|failure| format!("{failure:?}"))
    });
    joined.map(drop).unwrap_or_else(|late| panic!("{late}"));
}

#[test]
fn a_length_that_no_message_has_ends_the_connection_before_more_is_read() {
    let server = served();
    let mut channel = Channel::connect(&server.address, tls::client().unwrap(), Times::default()).unwrap();
    // A hello that announces one byte more than it may have: the channel writes the length in front.
    channel.send(&[0; most::HELLO + 1]).unwrap();
    assert!(channel.receive(most::REFUSAL).is_ok_and(|refusal| refusal[..] == [1, 7, 3]));
    assert_eq!(channel.receive(most::REFUSAL).map(drop), Err(Broken::Closed));
    assert!(server.logged("its message is 54 long, expected at most 53").contains("refused somebody"));
}

#[test]
fn who_sends_a_byte_now_and_then_is_not_waited_for() {
    let times = Times { patience: Duration::from_millis(150), whole: Duration::from_millis(250) };
    let server = run(cluster(), None, limits(), times);
    // One never ends its TLS handshake, one never ends its hello.
    let slow = TcpStream::connect(server.address).unwrap();
    // The head of a TLS record that announces more than will ever come.
    let mut record = [22, 3, 1, 1, 0].into_iter().chain(std::iter::repeat(0));
    drip(&slow, || (&slow).write_all(&[record.next().unwrap_or_default()]));
    assert!(server.logged("no TLS connection").contains("nothing came in time"));

    let config = tls::client().unwrap();
    let mut tls: Connection = ClientConnection::new(config, tls::name()).unwrap().into();
    let mut socket = TcpStream::connect(server.address).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    // A hello is announced.
    tls.writer().write_all(&[0, 0, 0, 53]).unwrap();
    drip(&socket, || {
        tls.writer().write_all(&[0])?;
        tls.write_tls(&mut &socket).map(drop)
    });
    assert!(server.logged("refused somebody").contains("nothing came in time"));
}

/// Sends a byte each time that the other side has said nothing for a moment, until it has ended the connection. It is
/// patient for 150 ms, with each message, and for 250 ms in all: bytes that come in between change nothing of that.
fn drip(mut socket: &TcpStream, mut send: impl FnMut() -> std::io::Result<()>) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let ended = wait::until("the other side to have enough of it", Duration::from_secs(2), Duration::ZERO, || {
        if send().is_err() {
            return Ok(());
        }
        match socket.read(&mut [0; 256]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("it says something".to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err("it waits".to_owned()),
            Err(_) => Ok(()),
        }
    });
    ended.unwrap_or_else(|late| panic!("{late}"));
}

#[test]
fn a_fault_in_one_connection_ends_that_one_alone() {
    let server = run(Cluster { breaks_for: Some("w-1"), ..cluster() }, None, limits(), Times::default());
    assert!(matches!(server.join("w-1", 11), Err(Failure::Ended { .. })));
    assert!(server.logged("fault of kubeboot's own").contains("127.0.0.1"));
    assert!(server.join("w-2", 12).is_ok());
}

#[test]
fn pods_are_not_served_and_who_comes_too_fast_is_told_off_once() {
    let ranges = vec!["127.0.0.0/8".parse().unwrap()];
    let server = run(Cluster { strangers: ranges, ..cluster() }, None, limits(), Times::default());
    let mut socket = TcpStream::connect(server.address).unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap_or_default(), 0);
    assert!(server.logged("127.0.0.1").contains("a pod's address"));

    let server = run(cluster(), None, Limits { burst: 2, each_second: 0, ..limits() }, Times::default());
    for _ in 0..5 {
        let socket = TcpStream::connect(server.address).unwrap();
        let _ = socket.shutdown(Shutdown::Write);
        let _ = (&socket).read(&mut [0]);
    }
    server.logged("too fast");
    assert_eq!(server.log.lock().unwrap().iter().filter(|line| line.contains("too fast")).count(), 1);
}

#[test]
fn tls_is_of_version_1_3_with_the_hybrid_key_exchange_and_is_never_taken_up_again() {
    let server = served();
    no_session_is_taken_up_again(|| TcpStream::connect(server.address).unwrap());
}

/// Two connections of a client that would take the first one's session up again.
fn no_session_is_taken_up_again(mut connect: impl FnMut() -> TcpStream) {
    let mut config = ClientConfig::clone(&tls::client().unwrap());
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut tls = ClientConnection::new(config.clone(), tls::name()).unwrap();
        let mut socket = connect();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        assert_eq!(tls.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let group = tls.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(rustls::NamedGroup::X25519MLKEM768));
        // What it would need for that comes after the handshake: read until the server ends the connection.
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        tls.writer().write_all(&[0xff; 4]).unwrap();
        while tls.complete_io(&mut socket).is_ok_and(|(read, _)| read > 0) {
            let _ = tls.reader().read(&mut [0; 512]);
        }
        assert_eq!(tls.tls13_tickets_received(), 0);
    }
}
