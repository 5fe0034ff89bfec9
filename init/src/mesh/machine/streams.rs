//! Anti-entropy: when a push-pull is made, with whom, and what each side of it does.

use std::collections::VecDeque;

use super::exchange::RECORDS;
use super::{Mesh, make_room};
use crate::mesh::announcement::{Handle, NodeId};
use crate::mesh::packet::Update;
use crate::mesh::record::{About, Rank, Record};
use crate::mesh::sync::{Cursor, Exchange, Message, Parts, Summary, Versions};
use crate::mesh::{Action, MILLISECOND, SECOND, StreamId, Time};

/// Streams that are open at once: those opened, and those accepted.
const MAX_OPENED: usize = 4;
const MAX_ACCEPTED: usize = 12;
pub const MAX_STREAMS: usize = MAX_OPENED + MAX_ACCEPTED;
/// Accepted ones of who is no member: they leave room for members.
const MAX_STRANGERS: usize = 4;
/// A stream on which nothing comes for so long is closed.
const IDLE: Time = 15 * SECOND;
/// Messages that a push-pull may take in each direction.
const MAX_ROUNDS: u32 = 1024;
/// Digests differ for a moment after each piece of news: a push-pull is made when they do for longer, and seldom.
const SETTLE: Time = 2 * SECOND;
const SYNC_PERIOD: Time = 8 * SECOND;
/// Members with whom one is to be made at once.
const MAX_SOUGHT: usize = 16;
/// How often those are looked at while no stream is free.
const RETRY: Time = 500 * MILLISECOND;
/// Not sought again so soon.
const SOUGHT_AGAIN: Time = 2 * SECOND;

pub(super) enum Phase {
    /// Not open yet.
    Connecting,
    /// The other's pages are compared.
    Comparing(Wants, Cursor),
    /// What is lacking goes to and fro.
    Exchanging(Wants),
    /// The other asks.
    Serving { parts: Option<Parts>, key_epoch: u64 },
    /// Somebody asks whom this node does not know as a member: anybody can make a node key. It gets nothing, and what it
    /// brings is taken as far as a control plane signed it: it may be a member that has a newer mesh key than this node.
    Listening,
}

/// What is still to be given and got.
#[derive(Default)]
pub(super) struct Wants {
    pub(super) give_members: Vec<Handle>,
    pub(super) give_records: Vec<About>,
    pub(super) members: Vec<Handle>,
    pub(super) records: Vec<(About, Rank)>,
    /// Of the other's newest mesh key.
    pub(super) key_epoch: u64,
    /// Whether keys were exchanged.
    pub(super) key_done: bool,
}

pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) peer: Handle,
    pub(super) opened_here: bool,
    pub(super) phase: Phase,
    pub(super) rounds: u32,
    pub(super) ends: Time,
}

/// A member that held something else than this node.
struct Difference {
    since: Time,
    peer: Handle,
    /// Whether it was pinged, to see if it still does.
    asked: bool,
}

/// The streams of a node, and when the next push-pull is due.
pub(super) struct Streams {
    streams: Vec<Stream>,
    next_id: u64,
    sought: VecDeque<Handle>,
    recent: VecDeque<(Handle, Time)>,
    differing: Option<Difference>,
    allowed_at: Time,
    look_at: Time,
}

impl Streams {
    pub(super) fn new(now: Time) -> Self {
        Streams {
            streams: Vec::new(),
            next_id: 1 << 63,
            sought: VecDeque::new(),
            recent: VecDeque::new(),
            differing: None,
            allowed_at: now,
            look_at: Time::MAX,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn next(&self) -> Time {
        let idle = self.streams.iter().map(|stream| stream.ends).min().unwrap_or(Time::MAX);
        let due = self.differing.as_ref().map_or(Time::MAX, |of| (of.since + SETTLE).max(self.allowed_at));
        idle.min(due).min(self.look_at)
    }

    pub(super) fn forget(&mut self, id: StreamId) {
        self.streams.retain(|stream| stream.id != id);
    }

    fn opened(&self) -> usize {
        self.streams.iter().filter(|stream| stream.opened_here).count()
    }
}

impl Mesh {
    /// Notes whether a member holds something else than this node.
    pub(super) fn compare_digest(&mut self, now: Time, from: Handle, digest: u64) {
        let equal = digest == self.digest();
        match &mut self.streams.differing {
            None if !equal => self.streams.differing = Some(Difference { since: now, peer: from, asked: false }),
            Some(of) if of.peer == from && equal => self.streams.differing = None,
            Some(of) if of.peer == from && of.asked => {
                self.streams.differing = None;
                self.streams.allowed_at = now + self.random.jittered(SYNC_PERIOD);
                self.connect(now, from);
            }
            Some(of) if !of.asked && !equal => of.peer = from,
            Some(_) | None => {}
        }
    }

    /// Wants a push-pull with a member at once, but for one that was sought just before.
    pub(super) fn seek(&mut self, now: Time, peer: Handle) {
        self.streams.recent.retain(|(_, at)| now - at < SOUGHT_AGAIN);
        let again = self.streams.recent.iter().any(|(recent, _)| *recent == peer);
        if again || self.streams.sought.contains(&peer) || self.streams.sought.len() >= MAX_SOUGHT {
            return;
        }
        make_room(&mut self.streams.recent, 4 * MAX_SOUGHT);
        self.streams.recent.push_back((peer, now));
        self.streams.sought.push_back(peer);
        self.streams.look_at = self.streams.look_at.min(now);
    }

    pub(super) fn stream_tick(&mut self, now: Time) {
        let late: Vec<StreamId> =
            self.streams.streams.iter().filter(|stream| stream.ends <= now).map(|stream| stream.id).collect();
        late.into_iter().for_each(|stream| self.close_stream(stream));
        let allowed_at = self.streams.allowed_at;
        match &mut self.streams.differing {
            Some(of) if now < (of.since + SETTLE).max(allowed_at) => {}
            // No answer; whoever differs will be seen again.
            Some(of) if of.asked => self.streams.differing = None,
            Some(of) => {
                (of.asked, of.since) = (true, now);
                let peer = of.peer;
                self.ping(now, peer);
            }
            None => {}
        }
        if now >= self.streams.look_at {
            while self.streams.opened() < MAX_OPENED
                && let Some(peer) = self.streams.sought.pop_front()
            {
                self.connect(now, peer);
            }
            self.streams.look_at = if self.streams.sought.is_empty() { Time::MAX } else { now + RETRY };
        }
    }

    fn connect(&mut self, now: Time, peer: Handle) {
        let busy = self.streams.streams.iter().any(|stream| stream.peer == peer && stream.opened_here);
        let Some(member) = self.members.get(peer) else { return };
        if busy || self.streams.opened() >= MAX_OPENED || peer == self.me.id.handle() {
            return;
        }
        let (id, address) = (member.announcement.id, member.announcement.address);
        let stream = StreamId(self.streams.next_id);
        self.streams.next_id += 1;
        let phase = Phase::Connecting;
        self.streams.streams.push(Stream { id: stream, peer, opened_here: true, phase, rounds: 0, ends: now + IDLE });
        self.out.push(Action::Connect { stream, peer: id, address });
    }

    fn close_stream(&mut self, id: StreamId) {
        if self.streams.streams.iter().any(|stream| stream.id == id) {
            self.streams.forget(id);
            self.out.push(Action::Close(id));
        }
    }

    pub(super) fn close_streams_with(&mut self, peer: Handle) {
        let with = self.streams.streams.iter().filter(|stream| stream.peer == peer);
        let with: Vec<StreamId> = with.map(|stream| stream.id).collect();
        with.into_iter().for_each(|stream| self.close_stream(stream));
    }

    pub(super) fn stream_opened(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.streams.iter_mut().find(|stream| stream.id == id) else { return };
        if !matches!(stream.phase, Phase::Connecting) {
            return;
        }
        stream.phase = Phase::Comparing(Wants::default(), Cursor::default());
        stream.ends = now + IDLE;
        let summary = Summary {
            key_epoch: self.ring.newest().epoch,
            members: Box::new(*self.members.parts()),
            records: Box::new(*self.store.parts()),
        };
        self.transmit(id, &Message::Summary(summary));
    }

    pub(super) fn stream_accepted(&mut self, now: Time, id: StreamId, peer: NodeId) {
        let accepted = self.streams.streams.iter().filter(|stream| !stream.opened_here).count();
        if accepted >= MAX_ACCEPTED || self.store.is_removed(&peer) || id.0 >= 1 << 63 {
            self.out.push(Action::Close(id));
            return;
        }
        let strangers = self.streams.streams.iter().filter(|stream| matches!(stream.phase, Phase::Listening)).count();
        if strangers >= MAX_STRANGERS && self.member(&peer).is_none() {
            self.out.push(Action::Close(id));
            return;
        }
        let phase = match self.member(&peer) {
            Some(_) => Phase::Serving { parts: None, key_epoch: u64::MAX },
            None => Phase::Listening,
        };
        let peer = peer.handle();
        self.streams.streams.push(Stream { id, peer, opened_here: false, phase, rounds: 0, ends: now + IDLE });
    }

    pub(super) fn transmit(&mut self, stream: StreamId, message: &Message<'_>) {
        self.out.push(Action::Transmit { stream, bytes: message.bytes() });
    }

    pub(super) fn stream_message(&mut self, now: Time, id: StreamId, bytes: &[u8]) {
        let Some(at) = self.streams.streams.iter().position(|stream| stream.id == id) else { return };
        let mut stream = self.streams.streams.swap_remove(at);
        stream.rounds += 1;
        stream.ends = now + IDLE;
        let keep = match Message::parse(bytes) {
            Ok(message) if stream.rounds <= MAX_ROUNDS => self.converse(now, &mut stream, message),
            _ => false,
        };
        if self.silent || !keep || self.store.is_removed_handle(stream.peer) {
            self.out.push(Action::Close(id));
        } else {
            self.streams.streams.push(stream);
        }
    }

    /// Does what a message asks for, and says the next. False when the stream has come to its end, good or bad.
    fn converse(&mut self, now: Time, stream: &mut Stream, message: Message<'_>) -> bool {
        match (&mut stream.phase, message) {
            (Phase::Serving { parts, key_epoch }, Message::Summary(summary)) if parts.is_none() => {
                let differing = Parts::differing(&summary, self.members.parts(), self.store.parts());
                *parts = Some(differing);
                *key_epoch = summary.key_epoch;
                let page = self.page(differing, Cursor::default());
                self.transmit(stream.id, &Message::Versions(page));
                true
            }
            (Phase::Serving { parts: Some(parts), .. }, Message::More(cursor)) => {
                let page = self.page(*parts, cursor);
                self.transmit(stream.id, &Message::Versions(page));
                true
            }
            (Phase::Serving { key_epoch, .. }, Message::Exchange(exchange)) => {
                let theirs = *key_epoch;
                self.take_exchange(now, stream.peer, &exchange);
                if self.silent {
                    return false;
                }
                let members = exchange.members.iter().copied();
                self.give(stream, members, exchange.records.iter().copied(), (Vec::new(), Vec::new()), theirs);
                true
            }
            (Phase::Listening, Message::Summary(_)) => {
                let parts = Parts { members: [0; 4], records: u64::MAX };
                let key_epoch = self.ring.newest().epoch;
                let nothing = Versions { key_epoch, parts, members_done: true, done: true, ..Versions::default() };
                self.transmit(stream.id, &Message::Versions(nothing));
                true
            }
            (Phase::Listening, Message::Exchange(mut exchange)) => {
                exchange.news.retain(|update| matches!(update, Update::Record(_)));
                self.take_exchange(now, stream.peer, &exchange);
                self.transmit(stream.id, &Message::Exchange(Exchange::default()));
                true
            }
            (Phase::Comparing(wants, cursor), Message::Versions(versions)) => {
                let (mut wants, cursor) = (std::mem::take(wants), *cursor);
                let next = self.compare(now, &mut wants, cursor, &versions);
                match next {
                    Some(cursor) => {
                        stream.phase = Phase::Comparing(wants, cursor);
                        self.transmit(stream.id, &Message::More(cursor));
                        true
                    }
                    None => self.exchange(stream, wants),
                }
            }
            (Phase::Exchanging(wants), Message::Exchange(exchange)) => {
                let mut wants = std::mem::take(wants);
                self.take_exchange(now, stream.peer, &exchange);
                let given = |about: &About| {
                    let mut records = exchange.news.iter().filter_map(|update| match update {
                        Update::Record(bytes) => Record::parse(bytes).ok(),
                        _ => None,
                    });
                    records.any(|record| record.about() == *about)
                };
                let none = !exchange.news.iter().any(|update| matches!(update, Update::Record(_)));
                let asked = if none { RECORDS.min(wants.records.len()) } else { 0 };
                wants.records.drain(..asked);
                wants.records.retain(|(about, _)| !given(about));
                self.exchange(stream, wants)
            }
            _ => false,
        }
    }
}
