//! The server on TCP port 7440, a control plane's or a worker's: takes connections in, and does for each what the exchange
//! asks.
//!
//! A thread for each connection, with a small stack; how many there are is bounded (`enrolment/gate`). What goes wrong in
//! one of them, a panic too, ends that connection and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::socket::Backlog;
use rustls::ServerConfig;

use super::channel::{Broken, Channel, Times};
use super::tls;
use crate::enrolment::Keys;
use crate::enrolment::decision::{Admission, Found, Sought};
use crate::enrolment::gate::{Arrival, Gate, Id, Limits, Stage};
use crate::enrolment::message::{Grant, Message, Refusal};
use crate::enrolment::noise::Noise;
use crate::enrolment::note::{Note, Outcome, Who};
use crate::enrolment::reason::Reason;
use crate::enrolment::server::{Effect, Event, Issue, Server as Exchange, Setup, Taken};
use crate::enrolment::transcript::Exporter;
use crate::host::operators::answers::{Answers, Caller};
use crate::host::operators::session;
use crate::host::{clock, wait};
use crate::settings::Cidr;
use crate::words;

/// A connection's stack: TLS with ML-KEM is what takes most of it.
const STACK: usize = 512 << 10;
/// Connections that the kernel holds until they are accepted, at most.
const QUEUE: i32 = 1024;
/// Rounds of effects of one message at most: each is a look, a taking or an issue, of which there are few.
const ROUNDS: usize = 20;
/// Pause when no connection can be accepted, as without file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What the server needs of the cluster.
pub trait Cluster: Send + Sync {
    /// The key that this machine proves itself with: the cluster's identity key, or a worker's node key.
    fn key(&self) -> &(dyn Keys + Send + Sync);
    /// What holds for a connection with this exporter.
    fn setup(&self, exporter: Exporter) -> Setup;
    /// Addresses from which nobody is served: pods'.
    fn strangers(&self) -> Vec<Cidr>;
    /// What is known that matters to a request.
    ///
    /// # Errors
    /// In words, for the log.
    fn look(&self, sought: &Sought) -> Result<Found, String>;
    /// Puts a node on record and takes a use of its token.
    ///
    /// # Errors
    /// In words, for the log.
    fn take(&self, admission: &Admission) -> Result<Taken, String>;
    /// Issues certificates and puts the grant together.
    ///
    /// # Errors
    /// In words, for the log.
    fn issue(&self, admission: &Admission, certificates: &[Issue]) -> Result<Grant, String>;
    /// Where operators' requests are done; none: they are not served here.
    fn desk(&self) -> Option<&dyn Answers> {
        None
    }
}

/// Listens on every address: IPv6 and IPv4 where the kernel has both, else IPv4.
///
/// # Errors
/// The port is in use.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    // The standard library leaves IPV6_V6ONLY as the kernel has it, off: a socket of both families.
    TcpListener::bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => TcpListener::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
    })
}

/// Where log lines go.
pub type Log = dyn Fn(&str) + Send + Sync;

/// What all connections share.
struct Shared {
    cluster: Arc<dyn Cluster>,
    tls: Arc<ServerConfig>,
    times: Times,
    log: Box<Log>,
    inner: Mutex<Inner>,
}

struct Inner {
    gate: Gate,
    sockets: BTreeMap<Id, TcpStream>,
    /// Of strangers, and of those who knew a fingerprint: what the former make it say does not drown the latter's lines.
    noise: [Noise; 2],
}

/// Serves from now on, in threads of its own, until the process ends.
///
/// # Errors
/// TLS can't be prepared, or there is no thread; in words.
pub fn start(
    listener: TcpListener,
    cluster: Arc<dyn Cluster>,
    limits: Limits,
    times: Times,
    log: Box<Log>,
) -> Result<(), String> {
    // The standard library's queue of 128 overflows in a crowd, and who finds it full tries again only after a second.
    let queue = Backlog::new(QUEUE).and_then(|queue| nix::sys::socket::listen(&listener, queue));
    queue.map_err(|error| format!("widen the queue of connections for enrolment: {error}"))?;
    let tls = tls::server().map_err(|error| error.to_string())?;
    let inner = Inner { gate: Gate::new(limits), sockets: BTreeMap::new(), noise: Default::default() };
    let shared = Arc::new(Shared { cluster, tls, times, log, inner: Mutex::new(inner) });
    let accepting = move || accept(&listener, &shared);
    let thread = std::thread::Builder::new().name("enrolment".to_owned()).stack_size(STACK);
    thread.spawn(accepting).map(drop).map_err(|error| format!("start a thread for enrolment: {error}"))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((socket, from)) => admit(socket, from.ip().to_canonical(), shared),
            Err(error) => {
                shared.hear(&format!("enrolment can't take connections: {error}"));
                wait::pause_for(PAUSE);
            }
        }
    }
}

/// Gives a connection its place and its thread, or lets it go.
fn admit(socket: TcpStream, from: IpAddr, shared: &Arc<Shared>) {
    if shared.cluster.strangers().iter().any(|range| range.contains(from)) {
        return shared.hear(&format!("enrolment: {from} is a pod's address: not served"));
    }
    let Ok(handle) = socket.try_clone() else { return };
    let id = {
        let mut inner = shared.inner();
        match inner.gate.arrive(clock::monotonic(), from) {
            Arrival::Admitted { id, dropped } => {
                // Its thread hears of it by the end of the stream.
                if let Some(socket) = dropped.and_then(|dropped| inner.sockets.remove(&dropped)) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                inner.sockets.insert(id, handle);
                id
            }
            Arrival::TooFast => {
                drop(inner);
                return shared.hear(&format!("enrolment: {from} opens connections too fast: not served for now"));
            }
            Arrival::Full => {
                drop(inner);
                return shared.hear(
                    "enrolment: every place is taken by machines that are being taken in, or by who ends slowly",
                );
            }
        }
    };
    let place = Place { id, shared: shared.clone() };
    let serve = move || {
        let place = place;
        // A panic has said on standard error where it was.
        if catch_unwind(AssertUnwindSafe(|| converse(socket, from, &place))).is_err() {
            place.shared.hear(&format!("enrolment: serving {from} failed, which is a fault of kubeboot's own"));
        }
    };
    let thread = std::thread::Builder::new().name(format!("enrolment-{id}")).stack_size(STACK);
    if let Err(error) = thread.spawn(serve) {
        shared.hear(&format!("enrolment: no thread for {from}: {error}"));
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a line about a stranger, unless somebody makes it come again and again.
    fn hear(&self, line: &str) {
        self.hear_of(false, line);
    }

    fn hear_of(&self, known: bool, line: &str) {
        let lines = self.inner().noise[usize::from(known)].hear(clock::monotonic(), line);
        for line in lines {
            (self.log)(&line);
        }
    }

    /// Logs what became of somebody. Who was admitted is always said.
    fn note(&self, from: IpAddr, note: &Note) {
        let line = format!("enrolment: {from}: {note}");
        match note.outcome {
            Outcome::Admitted => (self.log)(&line),
            Outcome::Refused(_) => self.hear_of(note.who.node.is_some() || note.who.operator.is_some(), &line),
        }
    }
}

/// A connection's place, free again when it ends in whatever way.
struct Place {
    id: Id,
    shared: Arc<Shared>,
}

impl Place {
    fn advance(&self, stage: Stage) -> bool {
        self.shared.inner().gate.advance(self.id, stage)
    }

    /// What to say of a connection that broke, whose place may have been given to another: then it was broken here.
    fn words(&self, why: &Broken) -> String {
        if self.is_given_away() {
            "its place was given to a newcomer, before it was accepted".to_owned()
        } else {
            words::one_line(&why.to_string())
        }
    }

    fn is_given_away(&self) -> bool {
        !self.shared.inner().sockets.contains_key(&self.id)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.shared.inner();
        inner.gate.leave(self.id);
        inner.sockets.remove(&self.id);
    }
}

/// One connection from its TLS handshake to its end.
fn converse(socket: TcpStream, from: IpAddr, place: &Place) {
    let shared = &place.shared;
    let mut channel = match Channel::accept(socket, shared.tls.clone(), shared.times) {
        Ok(channel) => channel,
        Err(why) => return shared.hear(&format!("enrolment: {from}: no TLS connection: {}", place.words(&why))),
    };
    place.advance(Stage::Spoke);
    let mut exchange = Exchange::new(shared.cluster.setup(channel.exporter()), shared.cluster.key());
    while exchange.most() > 0 {
        let effects = match channel.receive(exchange.most()) {
            Ok(message) => exchange.handle(clock::unix(), Event::Message(&message)),
            Err(Broken::Long(malformed)) => return too_long(channel, from, shared, malformed),
            Err(Broken::TimedOut | Broken::Closed) if !place.is_given_away() => {
                exchange.handle(clock::unix(), Event::TimedOut)
            }
            Err(why) => return shared.hear(&format!("enrolment: {from}: {}", place.words(&why))),
        };
        match carry_out(&mut exchange, effects, &mut channel, from, place) {
            After::Read => {}
            After::Close => break,
            After::Serve(who) => {
                if let Some(desk) = shared.cluster.desk() {
                    session::serve(&mut channel, desk, &who, from, &*shared.log);
                }
                break;
            }
        }
    }
    channel.close();
}

/// What follows a message's effects.
enum After {
    /// The next message is read.
    Read,
    /// The connection ends.
    Close,
    /// It is this operator's.
    Serve(Caller),
}

/// A message that is longer than it may be was not read; so nothing after it can be.
fn too_long(mut channel: Channel, from: IpAddr, shared: &Shared, malformed: crate::enrolment::Malformed) {
    let outcome = Outcome::Refused(Reason::Message(malformed));
    shared.note(from, &Note { who: Who::default(), outcome });
    if let Ok(refusal) = Message::Refusal(Refusal::Malformed).encode() {
        let _ = channel.send(&refusal);
    }
    channel.close();
}

/// Carries effects out, and those that come of them.
fn carry_out(
    exchange: &mut Exchange<'_>,
    mut effects: Vec<Effect>,
    channel: &mut Channel,
    from: IpAddr,
    place: &Place,
) -> After {
    let mut key = None;
    for _ in 0..ROUNDS {
        let mut next = None;
        // Who is refused has shown nothing by that.
        let ends = effects.iter().any(|effect| matches!(effect, Effect::Close));
        for effect in effects {
            match effect {
                Effect::Close => return After::Close,
                Effect::Send(message) => {
                    if let Err(why) = channel.send(&message) {
                        place
                            .shared
                            .hear(&format!("enrolment: {from}: an answer did not arrive: {}", place.words(&why)));
                    }
                    if !ends {
                        place.advance(Stage::Knows);
                    }
                }
                Effect::Log(note) => place.shared.note(from, &note),
                // Only after a key was found listed. Who is admitted is not dropped for a newcomer.
                Effect::Serve { operator } => {
                    place.advance(Stage::Accepted);
                    return After::Serve(Caller { name: operator, key });
                }
                asked => {
                    if let Effect::Find(found) = &asked {
                        key = Some(found.clone());
                    }
                    next = Some(answer(asked, place));
                }
            }
        }
        match next {
            Some(event) => effects = exchange.handle(clock::unix(), event),
            None => return After::Read,
        }
    }
    After::Close
}

/// Does what needs the cluster, unless the place was given to another meanwhile.
fn answer(asked: Effect, place: &Place) -> Event<'static> {
    let cluster = &place.shared.cluster;
    // A machine that is to be put on record has presented what is accepted.
    let stage = if matches!(asked, Effect::Take(_)) { Stage::Accepted } else { Stage::Knows };
    if !place.advance(stage) {
        return Event::Failed("its place was given to another".to_owned());
    }
    let answered = match asked {
        Effect::Look(sought) => cluster.look(&sought).map(|found| Event::Found(Box::new(found))),
        Effect::Take(admission) => cluster.take(&admission).map(Event::Taken),
        Effect::Issue { admission, certificates } => {
            cluster.issue(&admission, &certificates).map(|grant| Event::Issued(Box::new(grant)))
        }
        Effect::Find(key) => match cluster.desk() {
            Some(desk) => desk.is_operator(&key).map(Event::Listed),
            None => Err("operators are not served here".to_owned()),
        },
        _ => Err("a fault of kubeboot's own: nothing is known of this effect".to_owned()),
    };
    answered.unwrap_or_else(Event::Failed)
}
