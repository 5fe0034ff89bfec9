//! The streams of a node: which there are, by the tokens that epoll(7) knows them by, and how many there may be.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use rustls::{ClientConnection, ServerConnection};

use super::stream::{Expected, Progress, Stage, Stream};
use super::tls::{self, Tls};
use crate::enrolment::gate::{self, Arrival, Gate, Limits};
use crate::host::balancer::sockets::{Watch, connect_from};
use crate::host::wait;
use crate::mesh::{NodeId, StreamId, stream_address};

/// The first token of a stream; smaller ones are the driver's.
pub const FIRST_TOKEN: u64 = 16;
/// How many streams others may have open at once, and how fast they may open them. The mesh itself accepts twelve.
const LIMITS: Limits = Limits { all: 24, of_one: 12, burst: 64, each_second: 32 };
/// Streams that are taken in one go.
const BURST: usize = 16;
/// How long TCP and TLS may take together.
const GREETING: Duration = Duration::from_secs(10);
/// How long what was said last may take to get through.
const ENDING: Duration = Duration::from_secs(2);
/// Pause when nobody can be taken.
const PAUSE: Duration = Duration::from_millis(10);
/// How the kernel watches over a stream, on which the mesh itself waits no longer than 15 s.
const WATCH: Watch = Watch { ask: 5, patience: 15_000 };

/// What came of a stream.
pub enum Happened {
    /// A stream that was opened here is open.
    Opened(StreamId),
    /// Somebody opened one.
    Accepted(StreamId, NodeId),
    /// A message came in.
    Message(StreamId, zeroize::Zeroizing<Vec<u8>>),
    /// It has ended.
    Closed(StreamId),
}

struct Held {
    stream: Stream,
    /// Its place among those that others opened.
    place: Option<gate::Id>,
}

/// The streams.
pub struct Streams {
    tls: Tls,
    own: IpAddr,
    held: BTreeMap<u64, Held>,
    next: u64,
    gate: Gate,
}

impl Streams {
    /// None yet. `own` is the address that this node's streams come from.
    pub fn new(tls: Tls, own: IpAddr) -> Self {
        Streams { tls, own, held: BTreeMap::new(), next: FIRST_TOKEN, gate: Gate::new(LIMITS) }
    }

    /// When the first has to be open, or ended.
    pub fn deadline(&self) -> Option<Duration> {
        let due = |held: &&Held| held.stream.stage != Stage::Open;
        self.held.values().filter(due).map(|held| held.stream.deadline).min()
    }

    /// Opens a stream to a node that takes packets at an address.
    ///
    /// # Errors
    /// It can't even begin.
    pub fn open(
        &mut self,
        epoll: &Epoll,
        now: Duration,
        (id, peer): (StreamId, NodeId),
        packets: SocketAddr,
    ) -> io::Result<()> {
        let socket = connect_from(Some(self.own), stream_address(packets), WATCH)?;
        let client = ClientConnection::new(self.tls.client.clone(), tls::name()).map_err(io::Error::other)?;
        let expected = Expected { peer: Some(peer), id };
        let stream = Stream::new(socket, client.into(), Stage::Connecting, expected, now + GREETING);
        self.insert(epoll, stream, None)
    }

    /// Takes whoever wants to open one now, as far as there are places.
    pub fn accept(&mut self, epoll: &Epoll, now: Duration, listener: &TcpListener) -> Vec<Happened> {
        let mut happened = Vec::new();
        for _ in 0..BURST {
            let (socket, from) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // As without file descriptors: epoll would tell of it again at once, and again.
                    wait::pause_for(PAUSE);
                    break;
                }
            };
            let Arrival::Admitted { id, dropped } = self.gate.arrive(now, from.ip()) else { continue };
            if let Some(dropped) = dropped {
                let token = self.held.iter().find(|(_, held)| held.place == Some(dropped)).map(|(token, _)| *token);
                happened.extend(token.and_then(|token| self.remove(epoll, token)).map(Happened::Closed));
                self.gate.leave(dropped);
            }
            if self.admit(epoll, now, socket, id).is_err() {
                self.gate.leave(id);
            }
        }
        happened
    }

    fn admit(&mut self, epoll: &Epoll, now: Duration, socket: TcpStream, place: gate::Id) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let server = ServerConnection::new(self.tls.server.clone()).map_err(io::Error::other)?;
        let expected = Expected { peer: None, id: StreamId(self.next) };
        let stream = Stream::new(socket, server.into(), Stage::Greeting, expected, now + GREETING);
        self.insert(epoll, stream, Some(place))
    }

    fn insert(&mut self, epoll: &Epoll, mut stream: Stream, place: Option<gate::Id>) -> io::Result<()> {
        let token = self.next;
        stream.watched = stream.interest();
        epoll.add(&stream.socket, EpollEvent::new(stream.watched, token))?;
        self.next += 1;
        self.held.insert(token, Held { stream, place });
        Ok(())
    }

    /// A socket is readable or writable.
    pub fn go_on(&mut self, epoll: &Epoll, token: u64) -> Vec<Happened> {
        let Some(held) = self.held.get_mut(&token) else { return Vec::new() };
        let expected = held.stream.expected;
        let Progress { proven, messages, ended } = held.stream.go_on();
        let mut happened = Vec::new();
        if let Some(peer) = proven {
            if let Some(place) = held.place {
                self.gate.advance(place, gate::Stage::Spoke);
            }
            happened.push(match expected.peer {
                Some(_) => Happened::Opened(expected.id),
                None => Happened::Accepted(expected.id, peer),
            });
        }
        happened.extend(messages.into_iter().map(|message| Happened::Message(expected.id, message)));
        if ended.is_some() || self.watch(epoll, token).is_err() {
            happened.extend(self.remove(epoll, token).map(Happened::Closed));
        }
        happened
    }

    /// The other end of a stream is a member: its place is not given to another.
    pub fn is_a_members(&mut self, id: StreamId) {
        let place = self.token(id).and_then(|token| self.held.get(&token)?.place);
        if let Some(place) = place {
            self.gate.advance(place, gate::Stage::Accepted);
        }
    }

    /// Sends a message. What happened is that the stream ended, if it can't be.
    pub fn send(&mut self, epoll: &Epoll, id: StreamId, message: &[u8]) -> Option<Happened> {
        let token = self.token(id)?;
        let sent = self.held.get_mut(&token)?.stream.send(message);
        match sent.and_then(|()| self.watch(epoll, token)) {
            Ok(()) => None,
            Err(_) => self.remove(epoll, token).map(Happened::Closed),
        }
    }

    /// The mesh is through with a stream. What waits is still sent.
    pub fn end(&mut self, epoll: &Epoll, now: Duration, id: StreamId) {
        let Some(token) = self.token(id) else { return };
        let Some(held) = self.held.get_mut(&token) else { return };
        if held.stream.end(now + ENDING) || self.watch(epoll, token).is_err() {
            self.remove(epoll, token);
        }
    }

    /// Ends those whose time is over.
    pub fn expire(&mut self, epoll: &Epoll, now: Duration) -> Vec<Happened> {
        let late = |held: &Held| held.stream.stage != Stage::Open && held.stream.deadline <= now;
        let late: Vec<u64> = self.held.iter().filter(|(_, held)| late(held)).map(|(token, _)| *token).collect();
        late.into_iter().filter_map(|token| self.remove(epoll, token)).map(Happened::Closed).collect()
    }

    fn token(&self, id: StreamId) -> Option<u64> {
        self.held.iter().find(|(_, held)| held.stream.expected.id == id).map(|(token, _)| *token)
    }

    fn watch(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        let Some(Held { stream, .. }) = self.held.get_mut(&token) else { return Ok(()) };
        let wanted: EpollFlags = stream.interest();
        if wanted != stream.watched {
            epoll.modify(&stream.socket, &mut EpollEvent::new(wanted, token))?;
            stream.watched = wanted;
        }
        Ok(())
    }

    /// Lets a stream go. Says which, if the mesh still thinks that it has it.
    fn remove(&mut self, epoll: &Epoll, token: u64) -> Option<StreamId> {
        let Held { stream, place } = self.held.remove(&token)?;
        let _ = epoll.delete(&stream.socket);
        if let Some(place) = place {
            self.gate.leave(place);
        }
        (stream.stage != Stage::Ending).then_some(stream.expected.id)
    }
}
