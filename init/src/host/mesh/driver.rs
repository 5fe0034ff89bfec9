//! The mesh's thread: one epoll(7), sockets that do not block. What is to be done, `crate::mesh` decides.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use zeroize::Zeroizing;

use super::members::Answering;
use super::signer::Signer;
use super::streams::{FIRST_TOKEN, Happened, Streams};
use super::tls::Tls;
use super::{Config, Order, Shared, disk};
use crate::certificates::Unix;
use crate::enrolment::Sign as _;
use crate::host::keys::{self, Ed25519};
use crate::host::{clock, files, random};
use crate::mesh::envelope::MAX_PACKET;
use crate::mesh::publish::{self, Draft, Operators, Wanted};
use crate::mesh::view::View;
use crate::mesh::{Action, Authority, Counts, Event, Mesh, MeshKey, Node, NodeId, Setup, State, Time, stream_address};
use crate::paths;

/// What epoll(7) knows the sockets by that are no stream's.
const PACKETS: u64 = 0;
const STREAMS: u64 = 1;
const MEMBERS: u64 = 2;
const WAKE: u64 = 3;
/// Most events, and most packets, that are taken in one go.
const EVENTS: usize = 64;
const PACKETS_AT_ONCE: usize = 256;
/// How often it is looked whether records still have force.
const LOOK: Duration = Duration::from_secs(60);
/// How often it is told what was dropped, at most.
const TOLD: Duration = Duration::from_secs(60);
/// Longest pause, whatever the mesh says.
const TURN: Duration = Duration::from_secs(10);

/// How it ended.
pub enum Ended {
    /// Nobody holds the handle any more.
    Left,
    /// There is a newer mesh key on disk, which only a new mesh can begin with: no record commits to it here.
    NewerKey,
}

/// Everything that the mesh holds open.
pub struct Driver<'a> {
    config: &'a Config,
    shared: Arc<Shared>,
    mesh: Mesh,
    epoll: Epoll,
    packets: UdpSocket,
    listener: TcpListener,
    answering: Answering,
    streams: Streams,
    signer: Option<Signer>,
    /// The mesh key in use.
    key: MeshKey,
    /// Where the mesh was told to look.
    seeds: Vec<SocketAddr>,
    wake: Time,
    /// Packets that were accepted when it was looked last.
    accepted: u64,
    /// What was counted when it was last told what was dropped, and from when on it is told again.
    told: (Counts, Duration),
    /// When the records are looked at again: at once after one came, and now and then because they lose their force.
    look_at: Duration,
    /// Who was said to be down.
    down: BTreeSet<NodeId>,
    silent: Option<String>,
}

fn micros(now: Duration) -> Time {
    Time::try_from(now.as_micros()).unwrap_or(Time::MAX)
}

impl<'a> Driver<'a> {
    /// Reads what is on disk, counts the start, and opens the sockets.
    ///
    /// # Errors
    /// In words: a file that is missing or damaged, a port that is in use.
    pub fn start(config: &'a Config, shared: Arc<Shared>) -> Result<Self, String> {
        let root = &config.root;
        let pem = files::read_optional(&root.path(paths::NODE_KEY));
        let pem = pem.map_err(|error| format!("read {}: {error}", paths::NODE_KEY))?.map(Zeroizing::new);
        let pem = pem.ok_or_else(|| format!("{} does not exist", paths::NODE_KEY))?;
        let bad = |error: keys::KeyError| format!("{}: {error}", paths::NODE_KEY);
        let node_key = Ed25519::load(&pem).map_err(bad)?;
        let tls = Tls::new(&keys::der(&pem).map_err(bad)?)?;
        let key = disk::mesh_key(root)?;
        let held = key.clone();
        let address = config.address;
        let packets = UdpSocket::bind(address).map_err(|error| format!("listen on UDP {address}: {error}"))?;
        let streams = stream_address(address);
        let listener = TcpListener::bind(streams).map_err(|error| format!("listen on TCP {streams}: {error}"))?;
        let answering = Answering::new(&config.members);
        let answering = answering.map_err(|error| format!("listen at {}: {error}", config.members.display()))?;
        let node = Node {
            key: node_key.public(),
            address,
            control_plane: config.control_plane,
            name: config.name.clone().into_boxed_str(),
        };
        let setup = Setup {
            cluster: config.cluster,
            node,
            generation: disk::next_generation(root)?,
            seed: random::bytes(),
            key,
            sign: Box::new(move |message| node_key.sign(message)),
            verifier: Box::new(Authority { cluster: config.cluster, identity: config.identity }),
            records: disk::records(root)?,
        };
        let mesh = Mesh::new(micros(clock::monotonic()), setup);
        let mesh = mesh.map_err(|why| format!("the mesh can't say who this node is ({}): {why}", config.name))?;
        let failed = |error: io::Error| format!("watch the mesh's sockets: {error}");
        let epoll = Driver::watch(&packets, &listener, &answering, &shared).map_err(failed)?;
        let streams = Streams::new(tls, address.ip());
        Ok(Driver {
            config,
            shared,
            mesh,
            epoll,
            packets,
            listener,
            answering,
            streams,
            signer: None,
            key: held,
            seeds: Vec::new(),
            wake: 0,
            accepted: 0,
            told: (Counts::default(), Duration::ZERO),
            look_at: Duration::ZERO,
            down: BTreeSet::new(),
            silent: None,
        })
    }

    fn watch(packets: &UdpSocket, listener: &TcpListener, answering: &Answering, shared: &Shared) -> io::Result<Epoll> {
        packets.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let readable = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(packets, readable(PACKETS))?;
        epoll.add(listener, readable(STREAMS))?;
        epoll.add(&answering.listener, readable(MEMBERS))?;
        epoll.add(&shared.wake, readable(WAKE))?;
        Ok(epoll)
    }

    /// Takes part, as long as somebody holds the handle.
    ///
    /// # Errors
    /// In words: epoll's own, or a generation that can't be written down.
    pub fn run(mut self, orders: &Receiver<Order>) -> Result<Ended, String> {
        // What it has to do at once comes with the first event.
        self.tell(Event::Tick)?;
        loop {
            let mut events = [EpollEvent::empty(); EVENTS];
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(format!("wait for the mesh's sockets: {error}")),
            };
            // First: a tick that comes late says that the machine stood still, so others' packets must not delay it.
            let now = clock::monotonic();
            if micros(now) >= self.wake {
                self.tell(Event::Tick)?;
            }
            for event in &events[..count] {
                match event.data() {
                    PACKETS => self.receive()?,
                    STREAMS => {
                        let happened = self.streams.accept(&self.epoll, now, &self.listener);
                        self.happened(happened)?;
                    }
                    MEMBERS => self
                        .answering
                        .answer(|| View::of(&self.mesh, micros(clock::monotonic()), self.silent.as_deref())),
                    WAKE => drop(self.shared.wake.read()),
                    token @ FIRST_TOKEN.. => {
                        let happened = self.streams.go_on(&self.epoll, token);
                        self.happened(happened)?;
                    }
                    _ => {}
                }
            }
            self.seek()?;
            let expired = self.streams.expire(&self.epoll, now);
            self.happened(expired)?;
            loop {
                match orders.try_recv() {
                    Ok(order) => {
                        if let Some(ended) = self.obey(order)? {
                            return Ok(ended);
                        }
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(Ended::Left),
                }
            }
            self.stand();
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let now = clock::monotonic();
        let wake = Duration::from_micros(self.wake);
        let next = self.streams.deadline().map_or(wake, |deadline| deadline.min(wake)).min(self.look_at);
        // Rounded up: a wait that ends early would turn in vain.
        let pause = next.saturating_sub(now).min(TURN).as_micros().div_ceil(1000);
        EpollTimeout::from(u16::try_from(pause).unwrap_or(u16::MAX))
    }

    /// Tells the mesh where to look, when that is elsewhere than before.
    fn seek(&mut self) -> Result<(), String> {
        let seeds = self.shared.seeds().clone();
        if seeds != self.seeds {
            self.tell(Event::Join(&seeds))?;
            self.seeds = seeds;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), String> {
        // One byte more than the longest, so that a longer one is seen to be.
        let mut bytes = [0; MAX_PACKET + 1];
        for _ in 0..PACKETS_AT_ONCE {
            match self.packets.recv_from(&mut bytes) {
                Ok((count, _)) if count > MAX_PACKET => {}
                Ok((count, from)) => self.tell(Event::Packet { from, bytes: &bytes[..count] })?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An answer to an earlier packet: nobody listens there. The mesh finds out by itself.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn happened(&mut self, happened: impl IntoIterator<Item = Happened>) -> Result<(), String> {
        for what in happened {
            match &what {
                Happened::Opened(id) => self.tell(Event::Opened(*id))?,
                Happened::Accepted(id, peer) => {
                    if self.mesh.member(peer).is_some() {
                        self.streams.is_a_members(*id);
                    }
                    self.tell(Event::Accepted { stream: *id, peer: *peer })?;
                }
                Happened::Message(id, bytes) => self.tell(Event::Message { stream: *id, bytes })?,
                Happened::Closed(id) => self.tell(Event::Closed(*id))?,
            }
        }
        Ok(())
    }

    /// Tells the mesh what happened, and does what it says.
    fn tell(&mut self, event: Event<'_>) -> Result<(), String> {
        let mut actions: VecDeque<Action> = self.mesh.handle(micros(clock::monotonic()), event).into();
        while let Some(action) = actions.pop_front() {
            let closed = match action {
                Action::Connect { stream, peer, address } => {
                    let opened = self.streams.open(&self.epoll, clock::monotonic(), (stream, peer), address);
                    opened.is_err().then_some(stream)
                }
                Action::Transmit { stream, bytes } => match self.streams.send(&self.epoll, stream, &bytes) {
                    Some(Happened::Closed(closed)) => Some(closed),
                    _ => None,
                },
                other => {
                    self.act(other)?;
                    None
                }
            };
            if let Some(closed) = closed {
                actions.extend(self.mesh.handle(micros(clock::monotonic()), Event::Closed(closed)));
            }
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        let root = &self.config.root;
        match action {
            // A packet that does not get away is like one that is lost, which the mesh knows how to live with.
            Action::Send { to, packet } => drop(self.packets.send_to(&packet, to)),
            Action::Wake(at) => self.wake = at,
            Action::Close(stream) => self.streams.end(&self.epoll, clock::monotonic(), stream),
            Action::Member { id, state } => self.say_member(id, state),
            Action::Record(record) => {
                self.look_at = Duration::ZERO;
                self.try_to(disk::write_record(root, &record));
            }
            Action::Evicted(id) => {
                self.down.remove(&id);
                self.shared.log(&format!("mesh: a node was removed: node key {}", hex(&id)));
            }
            Action::Key(key) => {
                self.shared.log(&format!("mesh: its key is that of epoch {} now", key.epoch));
                self.try_to(disk::write_mesh_key(root, &key));
                self.key = key;
            }
            // Nothing that follows may be done before it is on disk.
            Action::Generation(generation) => disk::write_generation(root, generation)?,
            Action::Displaced { by } => self.fall_silent(format!(
                "another machine uses this node's key, at {by}. Fix: reset the one that is the copy (kubeboot reset)"
            )),
            Action::Removed => self.fall_silent(
                "this node was removed from the cluster. Fix, to take it in again: kubeboot reset, and a fresh token"
                    .to_owned(),
            ),
            Action::Connect { .. } | Action::Transmit { .. } => {}
        }
        Ok(())
    }

    /// Who stops answering is said, and who answers again. Who comes and goes as it should is not.
    fn say_member(&mut self, id: NodeId, state: State) {
        let name = self.mesh.member(&id).map(|member| member.announcement.name.to_string()).unwrap_or_default();
        let line = match state {
            State::Down if self.down.insert(id) => format!("mesh: {name} does not answer any more"),
            State::Alive if self.down.remove(&id) => format!("mesh: {name} answers again"),
            _ => return,
        };
        self.shared.log(&line);
    }

    fn fall_silent(&mut self, why: String) {
        self.shared.log(&format!("mesh: this node takes no part any more: {why}"));
        self.silent = Some(why);
        self.wake = Time::MAX;
    }

    /// What can't be written holds as long as this process, and is said.
    fn try_to(&self, done: Result<(), String>) {
        if let Err(why) = done {
            self.shared.log(&format!("mesh: {why}"));
        }
    }

    fn obey(&mut self, order: Order) -> Result<Option<Ended>, String> {
        match order {
            Order::Publish(wanted) => self.publish(&wanted)?,
            Order::Rekey(epoch) => self.rekey(epoch)?,
            Order::LookAtKey => match disk::mesh_key(&self.config.root) {
                Ok(key) if key.epoch > self.key.epoch => return Ok(Some(Ended::NewerKey)),
                Ok(key) if key.epoch == self.key.epoch => {}
                // Enrolment looked before the mesh wrote its newer one down, and wrote after that.
                Ok(_) => self.try_to(disk::write_mesh_key(&self.config.root, &self.key)),
                Err(why) => self.try_to(Err(why)),
            },
        }
        Ok(None)
    }

    fn publish(&mut self, wanted: &Wanted) -> Result<(), String> {
        for draft in publish::due(self.mesh.records(), wanted, self.mesh.me().id, clock::unix()) {
            self.sign_and_tell(draft)?;
        }
        Ok(())
    }

    fn rekey(&mut self, epoch: u64) -> Result<(), String> {
        if epoch <= self.mesh.key_epoch() {
            return Ok(());
        }
        let key = MeshKey::new(epoch, Zeroizing::new(random::bytes()));
        if self.sign_and_tell(publish::of_key(&key, false))? {
            self.tell(Event::Key(&key))?;
        }
        Ok(())
    }

    /// True if it was signed: the identity key was there.
    fn sign_and_tell(&mut self, draft: Draft) -> Result<bool, String> {
        let now = clock::unix();
        if self.signer.as_ref().is_none_or(|signer| !signer.lasts(now)) {
            let made = Signer::new(&self.config.root, self.config.cluster, self.mesh.me().id, now);
            self.signer = made.map_err(|why| self.try_to(Err(format!("no record can be signed: {why}")))).ok();
        }
        let Some(signer) = &self.signer else { return Ok(false) };
        let record = signer.sign(draft, now).bytes();
        self.tell(Event::Publish(&record))?;
        Ok(true)
    }

    /// Leaves for the agent how things stand.
    fn stand(&mut self) {
        let accepted = self.mesh.counts().accepted;
        let now = clock::monotonic();
        let mut standing = self.shared.standing();
        if accepted != self.accepted {
            standing.heard = now;
        }
        if now >= self.look_at {
            standing.endpoints = publish::endpoints(self.mesh.records(), clock::unix());
            standing.operators = publish::operators(self.mesh.records(), clock::unix()).map(Arc::new);
            self.look_at = now + pause(standing.operators.as_deref(), clock::unix());
        }
        standing.met = accepted > 0;
        standing.key_epoch = self.mesh.key_epoch();
        standing.behind = self.mesh.is_behind();
        standing.silent.clone_from(&self.silent);
        self.accepted = accepted;
        drop(standing);
        self.tell_dropped(now);
    }

    /// Says what was dropped, at once and then at most every [`TOLD`].
    fn tell_dropped(&mut self, now: Duration) {
        let counts = self.mesh.counts();
        if now < self.told.1 {
            return;
        }
        if let Some(complaint) = counts.complaint(&self.told.0) {
            self.shared.log(&format!("mesh: {complaint}"));
            self.told = (counts, now + TOLD);
        }
    }
}

/// How long the operators are not looked at again: not beyond the end of the first record that says who they are. Others
/// may go on to have force, and until then nobody is served.
fn pause(operators: Option<&Operators>, unix: Unix) -> Duration {
    let left = operators.map_or(Duration::MAX, |found| Duration::from_secs(found.until.saturating_sub(unix)));
    left.clamp(Duration::from_secs(1), LOOK)
}

fn hex(id: &NodeId) -> String {
    crate::enrolment::objects::hex(&id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Roll;

    #[test]
    fn operators_are_looked_at_again_when_the_first_of_their_records_ends() {
        let ends_in = |seconds: u64| {
            let found = Operators { roll: Roll::default(), until: 1000 + seconds };
            pause(Some(&found), 1000).as_secs()
        };
        assert_eq!([0, 1, 20, 60, 7 * 86_400].map(ends_in), [1, 1, 20, 60, 60]);
        assert_eq!(pause(None, 1000), LOOK);
    }
}
