//! The state machine that ties the parts: what a node of the mesh does about what happens.

mod exchange;
mod hello;
mod news;
mod probe;
mod rival;
mod streams;
mod update;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::announcement::{Announcement, Handle, Node, NodeId};
use super::envelope::{Header, MAX_BODY, Sealer};
use super::keys::{MeshKey, Ring};
use super::members::{Member, Members, State};
use super::packet::{Body, Message, Update};
use super::random::Random;
use super::store::Store;
use super::{Action, Event, MILLISECOND, Malformed, SECOND, Setup, Sign, Time, Verifier};
use hello::Hellos;
use news::News;
use probe::Probing;
use rival::Rival;
use streams::Streams;
pub use update::Suspicion;

pub use news::MAX_NEWS;

/// How often news is sent while there is any, and to how many.
const GOSSIP_PERIOD: Time = 250 * MILLISECOND;
const GOSSIP_FANOUT: usize = 3;
/// How often one of those that are down is tried, so that the halves of a partition find each other.
const RECONNECT_PERIOD: Time = 10 * SECOND;
/// How often noise is looked into.
const NOISE_PERIOD: Time = 10 * SECOND;
/// How long one that is down is remembered.
const FORGET_AFTER: Time = 24 * 3600 * SECOND;
/// A tick that comes this late says that the machine stood still.
const PAUSE: Time = 2 * SECOND;
/// How long nobody is suspected after a key without grace, or after standing still.
const TRUCE: Time = 15 * SECOND;

/// A node of the mesh.
pub struct Mesh {
    cluster: [u8; 16],
    node: Node,
    sign: Sign,
    verifier: Box<dyn Verifier + Send>,
    random: Random,
    me: Arc<Announcement>,
    ring: Ring,
    sealer: Sealer,
    members: Members,
    store: Store,
    news: News,
    hellos: Hellos,
    probing: Probing,
    streams: Streams,
    suspicions: BTreeMap<Handle, Suspicion>,
    next_suspicion: Time,
    gossip_at: Time,
    reconnect_at: Time,
    truce_until: Time,
    noise_at: Time,
    /// A key that came before its record.
    candidate: Option<MeshKey>,
    /// The newest epoch of a mesh key that a member said it has.
    told_epoch: u64,
    renewals: u32,
    rival: Option<Rival>,
    silent: bool,
    counts: Counts,
    last: Time,
    wake: Time,
    out: Vec<Action>,
}

/// What a mesh has counted since it started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Sealed packets that were taken.
    pub accepted: u64,
    /// Packets that nobody with a known mesh key made.
    pub noise: u64,
    /// Packets that were opened before, or that a removed node or a key without grace sealed.
    pub refused: u64,
    /// Packets that waited for their sender's announcement.
    pub held: u64,
    /// Records that no control plane of the cluster signed.
    pub forged: u64,
}

impl Counts {
    /// What an operator should hear of what was dropped since; nothing if nothing was.
    pub fn complaint(&self, before: &Counts) -> Option<String> {
        let kinds = [
            (self.noise - before.noise, "packets that no member made"),
            (
                self.refused - before.refused,
                "packets that were sent again, or that a removed node or an old mesh key sealed",
            ),
            (self.forged - before.forged, "records that no control plane of this cluster signed"),
        ];
        let dropped = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let dropped: Vec<String> = dropped.collect();
        (!dropped.is_empty()).then(|| format!("dropped {}", dropped.join(", ")))
    }
}

/// Sizes of what a mesh holds, all of which are bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queues {
    /// Pieces of news.
    pub news: usize,
    /// Packets that wait for their sender's announcement.
    pub held: usize,
    /// Questions without an answer.
    pub asked: usize,
    /// Pings that are made for others.
    pub relays: usize,
    /// Streams.
    pub streams: usize,
    /// Members.
    pub members: usize,
    /// Records.
    pub records: usize,
}

impl Queues {
    /// The bounds.
    pub const MOST: Queues = Queues {
        news: MAX_NEWS,
        held: hello::MAX_HELD,
        asked: hello::MAX_ASKED,
        relays: probe::MAX_RELAYS,
        streams: streams::MAX_STREAMS,
        members: super::members::MAX_MEMBERS,
        records: 16_384 + 1_024 + 3,
    };
}

impl Mesh {
    /// A node that knows itself and its records. What it has to do at once comes with the first event.
    ///
    /// # Errors
    /// The node's name is none.
    pub fn new(now: Time, setup: Setup) -> Result<Self, Malformed> {
        let mut random = Random::new(setup.seed);
        let Setup { cluster, node, generation, key, sign, verifier, records, .. } = setup;
        let me = Arc::new(Announcement::new(&cluster, &node, generation, random.secret(), &sign)?);
        let members = Members::new(me.clone(), &mut random);
        let mut mesh = Mesh {
            probing: Probing::new(now + random.below(SECOND as usize) as Time),
            reconnect_at: now + random.below(RECONNECT_PERIOD as usize) as Time,
            cluster,
            node,
            sign,
            verifier,
            me,
            ring: Ring::new(key),
            sealer: Sealer::new(),
            members,
            store: Store::default(),
            news: News::default(),
            hellos: Hellos::new(now),
            streams: Streams::new(now),
            suspicions: BTreeMap::new(),
            next_suspicion: Time::MAX,
            gossip_at: Time::MAX,
            truce_until: 0,
            noise_at: 0,
            candidate: None,
            told_epoch: 0,
            renewals: 0,
            rival: None,
            silent: false,
            counts: Counts::default(),
            last: now,
            wake: Time::MAX,
            out: Vec::new(),
            random,
        };
        for record in records {
            mesh.take_record(now, &record, None);
        }
        mesh.out.retain(|action| !matches!(action, Action::Record(_)));
        Ok(mesh)
    }

    /// What to do about an event at a time.
    pub fn handle(&mut self, now: Time, event: Event<'_>) -> Vec<Action> {
        let now = now.max(self.last);
        self.last = now;
        if !self.silent {
            self.notice_pause(now);
            if matches!(event, Event::Tick) {
                self.wake = Time::MAX;
            }
            self.dispatch(now, event);
        }
        let wake = if self.silent { Time::MAX } else { self.next_wake() };
        if wake != self.wake && !self.silent {
            self.out.push(Action::Wake(wake));
        }
        self.wake = wake;
        std::mem::take(&mut self.out)
    }

    fn dispatch(&mut self, now: Time, event: Event<'_>) {
        match event {
            Event::Tick => self.tick(now),
            Event::Packet { from, bytes } => self.packet(now, from, bytes),
            Event::Opened(stream) => self.stream_opened(now, stream),
            Event::Accepted { stream, peer } => self.stream_accepted(now, stream, peer),
            Event::Message { stream, bytes } => self.stream_message(now, stream, bytes),
            Event::Closed(stream) => self.streams.forget(stream),
            Event::Join(addresses) => self.join(now, addresses),
            Event::Publish(record) => self.take_record(now, record, None),
            Event::Key(key) => self.take_key(now, key.clone()),
        }
    }

    /// A machine that stood still has not listened: what it waited for may have come and gone.
    fn notice_pause(&mut self, now: Time) {
        let late = now.saturating_sub(self.wake);
        if late < PAUSE {
            return;
        }
        self.wake = Time::MAX;
        self.truce_until = self.truce_until.max(now + TRUCE);
        self.suspicions.values_mut().for_each(|suspicion| suspicion.put_off(late + TRUCE));
        self.next_suspicion = self.suspicions.values().map(|s| s.deadline).min().unwrap_or(Time::MAX);
        self.probing.abandon(now);
    }

    fn tick(&mut self, now: Time) {
        self.ring.prune(now);
        self.expire_suspicions(now);
        self.probe_tick(now);
        self.hello_tick(now);
        self.rival_tick(now);
        if now >= self.gossip_at {
            for to in self.members.some(GOSSIP_FANOUT, self.me.id.handle(), &mut self.random) {
                self.send(now, to, Message::Gossip);
            }
            let more = !self.news.is_empty();
            self.gossip_at = if more { now + self.random.jittered(GOSSIP_PERIOD) } else { Time::MAX };
        }
        if now >= self.reconnect_at {
            self.reconnect_at = now + self.random.jittered(RECONNECT_PERIOD);
            self.members.forget_before(now.saturating_sub(FORGET_AFTER));
            match self.members.one_down() {
                // A stream needs no mesh key: perhaps one of the two has a newer one. It is likely this node's that is old
                // where most others are down.
                Some(down) if self.members.most_are_down() || self.random.below(2) == 0 => self.seek(now, down),
                Some(down) => {
                    self.ping(now, down);
                }
                None => {}
            }
        }
        // Last, because what stands above may want a stream.
        self.stream_tick(now);
    }

    fn next_wake(&self) -> Time {
        self.timers().into_iter().min().unwrap_or(Time::MAX)
    }

    /// When each part wants to be woken: suspicions, news, those down, probes, hellos, streams, another process.
    pub fn timers(&self) -> [Time; 7] {
        let (probe, hello, stream) = (self.probing.next(), self.hellos.next(), self.streams.next());
        let rival = self.rival.as_ref().map_or(Time::MAX, Rival::next);
        [self.next_suspicion, self.gossip_at, self.reconnect_at, probe, hello, stream, rival]
    }

    /// The digest of everything that this node knows.
    pub fn digest(&self) -> u64 {
        self.members.digest() ^ self.store.digest().rotate_left(32)
    }

    fn packet(&mut self, now: Time, from: SocketAddr, bytes: &[u8]) {
        let Some(header) = Header::read(&self.ring, now, bytes) else {
            return self.noise(now, from);
        };
        if header.is_hello() {
            self.hello_packet(now, from, &header, bytes);
        } else if !self.sealed_packet(now, &header, bytes) {
            self.hold(now, from, bytes, header.epoch);
        }
    }

    /// Noise from where a member listens: perhaps that one has a newer mesh key. A stream, which needs none, will tell.
    fn noise(&mut self, now: Time, from: SocketAddr) {
        self.counts.noise += 1;
        if now < self.noise_at {
            return;
        }
        let there = self.members.iter().find(|member| member.announcement.address == from);
        if let Some(peer) = there.map(|member| member.announcement.id.handle()) {
            self.noise_at = now + self.random.jittered(NOISE_PERIOD);
            self.seek(now, peer);
        }
    }

    /// False if the packet may be one of a process that is not known yet.
    fn sealed_packet(&mut self, now: Time, header: &Header, bytes: &[u8]) -> bool {
        let member = header.handle;
        if self.store.is_removed_handle(member) || member == self.me.id.handle() {
            self.counts.refused += 1;
            return true;
        }
        if !header.accepted {
            self.counts.refused += 1;
            // Who seals with a key that has no grace lacks the new one.
            if self.members.get(member).is_some() {
                self.seek(now, member);
            }
            return true;
        }
        let me = self.me.clone();
        let Some((announcement, session)) = self.members.session(member) else { return false };
        if let Some(body) = session.open(&self.ring, header, &announcement, &me, bytes) {
            self.counts.accepted += 1;
            self.members.set_shown(member, header.epoch);
            self.sealed_body(now, member, &body);
            return true;
        }
        let seen = session.has_seen(announcement.life(), header.counter);
        self.counts.refused += u64::from(seen);
        seen
    }

    /// What a member sealed for this process.
    fn sealed_body(&mut self, now: Time, from: Handle, body: &[u8]) {
        let Ok(body) = Body::parse(body) else { return };
        self.probing.heard = now;
        for update in &body.updates {
            self.take_update(now, update, Some(from));
        }
        if self.silent {
            return;
        }
        match body.message {
            Message::Ping(number) => self.send(now, from, Message::Ack(number)),
            Message::Ack(number) => self.acknowledged(now, from, number),
            Message::PingFor(number, target) => self.ping_for(now, from, number, target),
            Message::AckFor(number) => self.acknowledged_for(number),
            Message::Gossip => {}
        }
        let thought_down = self.members.get(from).is_some_and(|member| member.state == State::Down);
        if thought_down && !matches!(body.message, Message::Ping(_)) {
            self.send(now, from, Message::Gossip);
        }
        self.compare_digest(now, from, body.digest);
    }

    /// Seals a message for a member, with what news fits; one that is suspect or down is told so first.
    fn send(&mut self, now: Time, to: Handle, message: Message) {
        let Some(member) = self.members.get(to) else { return };
        let (announcement, claim, shown) = (member.announcement.clone(), member.claim(), member.shown);
        let mut body = message.begin(self.digest());
        if claim.state != State::Alive {
            let accuser = (claim.state == State::Suspect).then_some((self.me.id.handle(), 0));
            Update::Brief { member: to, claim, accuser }.write(&mut body);
        }
        self.news.fill(&mut body, MAX_BODY, now);
        match self.sealer.seal((&self.ring, now), &self.me, (&announcement, shown), &body) {
            Some(packet) => self.out.push(Action::Send { to: announcement.address, packet }),
            None => self.renew(now, self.me.generation.saturating_add(1)),
        }
    }

    /// Times that a piece of news is passed on: enough that each member gets it with near certainty.
    fn times(&self) -> usize {
        6 + self.rounds()
    }

    /// Binary logarithm of the number of members.
    fn rounds(&self) -> usize {
        (usize::BITS - self.members.live().leading_zeros()) as usize
    }

    /// What this node says of itself.
    pub fn me(&self) -> &Arc<Announcement> {
        &self.me
    }

    /// Who is in the mesh.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// A member by its id.
    pub fn member(&self, id: &NodeId) -> Option<&Member> {
        self.members.get(id.handle()).filter(|member| member.announcement.id == *id)
    }

    /// The records.
    pub fn records(&self) -> &Store {
        &self.store
    }

    /// The newest mesh key's epoch.
    pub fn key_epoch(&self) -> u64 {
        self.ring.newest().epoch
    }

    /// Whether a member said that it has a newer mesh key, and has not given it: that one does not know this node. The host
    /// then gets the key by enrolment, and starts a mesh anew with it.
    pub fn is_behind(&self) -> bool {
        self.told_epoch > self.key_epoch()
    }

    /// Who is suspected, and by whom first as far as is known here.
    pub fn suspicions(&self) -> impl Iterator<Item = (Handle, &Suspicion)> {
        self.suspicions.iter().map(|(handle, suspicion)| (*handle, suspicion))
    }

    /// Whether it fell silent: the node was removed or displaced.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The epoch of the mesh key that it seals with for who showed none.
    pub fn sending_epoch(&self, now: Time) -> u64 {
        self.ring.sending(now, 0).epoch
    }

    /// How much it holds.
    pub fn queues(&self) -> Queues {
        Queues {
            news: self.news.len(),
            held: self.hellos.held.len(),
            asked: self.hellos.asked.len(),
            relays: self.probing.relays.len(),
            streams: self.streams.len(),
            members: self.members.known(),
            records: self.store.len(),
        }
    }
}

/// Drops from the front of a queue until there is room for one more.
fn make_room<T>(queue: &mut VecDeque<T>, most: usize) {
    while queue.len() >= most {
        queue.pop_front();
    }
}
