//! Anti-entropy: when a push-pull is made, with whom, and what each side of it does.

use std::collections::VecDeque;

use super::{Mesh, make_room};
use crate::mesh::announcement::{Handle, NodeId};
use crate::mesh::keys::MeshKey;
use crate::mesh::members::{Claim, State};
use crate::mesh::packet::Update;
use crate::mesh::record::{About, Rank, Record};
use crate::mesh::sync::{BATCH, Cursor, Exchange, Message, NEWS, PAGE, Parts, Summary, Versions};
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
/// Records asked for in one message: they may be long.
const RECORDS: usize = 8;

enum Phase {
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
struct Wants {
    give_members: Vec<Handle>,
    give_records: Vec<About>,
    members: Vec<Handle>,
    records: Vec<(About, Rank)>,
    /// Of the other's newest mesh key.
    key_epoch: u64,
    /// Whether keys were exchanged.
    key_done: bool,
}

struct Stream {
    id: StreamId,
    peer: Handle,
    opened_here: bool,
    phase: Phase,
    rounds: u32,
    ends: Time,
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

    fn transmit(&mut self, stream: StreamId, message: &Message<'_>) {
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

    /// A page of what this node holds in the parts that differ.
    fn page(&self, parts: Parts, cursor: Cursor) -> Versions {
        let mut page = Versions { key_epoch: self.ring.newest().epoch, parts, ..Versions::default() };
        let mut members = Vec::new();
        if !cursor.members_done {
            members = self.claims_after(&parts, cursor.member);
        }
        page.members_done = members.len() <= PAGE;
        members.truncate(PAGE);
        let room = PAGE - members.len();
        page.members = members;
        if page.members_done {
            let records = self.store.ranks_after(cursor.record).filter(|(about, _)| parts.record(*about));
            let mut records: Vec<(About, Rank)> = records.take(room + 1).collect();
            page.done = records.len() <= room;
            records.truncate(room);
            page.records = records;
        }
        page
    }

    /// Claims about members above `after`, in order.
    fn claims_after(&self, parts: &Parts, after: Option<Handle>) -> Vec<(Handle, Claim)> {
        let all = self.members.iter().map(|member| (member.announcement.id.handle(), member.claim()));
        let wanted = all.filter(|(at, _)| parts.member(*at) && after.is_none_or(|after| *at > after));
        let mut members: Vec<(Handle, Claim)> = wanted.collect();
        members.sort_unstable_by_key(|(at, _)| *at);
        members
    }

    /// Compares a page with what this node holds. Says where the next one begins, if there is one.
    fn compare(&mut self, now: Time, wants: &mut Wants, cursor: Cursor, page: &Versions) -> Option<Cursor> {
        wants.key_epoch = page.key_epoch;
        self.told_epoch = self.told_epoch.max(page.key_epoch);
        if !cursor.members_done {
            self.compare_members(now, wants, cursor, page);
        }
        let next_member = page.members.last().map(|(member, _)| *member).or(cursor.member);
        let next_record = page.records.last().map(|(about, _)| *about).or(cursor.record);
        if page.members_done {
            self.compare_records(wants, cursor, page);
        }
        let next = Cursor { member: next_member, record: next_record, members_done: page.members_done };
        // A page that does not lead on would be asked for again and again.
        (!page.done && next != cursor).then_some(next)
    }

    fn compare_members(&mut self, now: Time, wants: &mut Wants, cursor: Cursor, page: &Versions) {
        let last = page.members.last().map(|(member, _)| *member);
        let within = |at: Handle| page.members_done || last.is_some_and(|last| at <= last);
        let mine = self.claims_after(&page.parts, cursor.member);
        let mut theirs = page.members.iter().copied().peekable();
        let mut take = Vec::new();
        for (at, held) in mine.into_iter().filter(|(at, _)| within(*at)) {
            while let Some((other, claim)) = theirs.next_if(|(other, _)| *other < at) {
                take.push((other, claim, None));
            }
            match theirs.next_if(|(other, _)| *other == at) {
                Some((_, claim)) if claim > held => take.push((at, claim, Some(held))),
                Some((_, claim)) if claim == held => {}
                Some(_) => wants.give_members.push(at),
                None if held.state != State::Down => wants.give_members.push(at),
                None => {}
            }
        }
        take.extend(theirs.map(|(other, claim)| (other, claim, None)));
        for (at, claim, held) in take {
            match held {
                _ if self.store.is_removed_handle(at) => {}
                None if claim.state != State::Down => wants.members.push(at),
                Some(held) if held.life != claim.life => wants.members.push(at),
                Some(_) => {
                    let accuser = (claim.state == State::Suspect).then_some((Handle(0), 0));
                    self.take_update(now, &Update::Brief { member: at, claim, accuser }, None);
                    if at == self.me.id.handle() {
                        wants.give_members.push(at);
                    }
                }
                None => {}
            }
        }
    }

    fn compare_records(&self, wants: &mut Wants, cursor: Cursor, page: &Versions) {
        let last = page.records.last().map(|(about, _)| *about);
        let within = |about: About| page.done || last.is_some_and(|last| about <= last);
        let mine = self.store.ranks_after(cursor.record);
        for (about, rank) in mine.filter(|(about, _)| page.parts.record(*about) && within(*about)) {
            let theirs = page.records.binary_search_by_key(&about, |(about, _)| *about);
            if theirs.is_err() || theirs.is_ok_and(|at| page.records[at].1 < rank) {
                wants.give_records.push(about);
            }
        }
        let lacking = |(about, rank): &&(About, Rank)| self.store.rank(*about).is_none_or(|held| held < *rank);
        wants.records.extend(page.records.iter().filter(lacking));
    }

    /// Gives the next of what the other lacks and asks for the next of what is wanted. False when nothing is left.
    fn exchange(&mut self, stream: &mut Stream, mut wants: Wants) -> bool {
        let ours = self.ring.newest().epoch;
        let keys = !wants.key_done && wants.key_epoch != ours;
        let nothing = wants.give_members.is_empty() && wants.give_records.is_empty();
        if nothing && wants.members.is_empty() && wants.records.is_empty() && !keys {
            return false;
        }
        wants.key_done = true;
        let give: Vec<Handle> = wants.give_members.drain(..BATCH.min(wants.give_members.len())).collect();
        let records: Vec<About> = wants.give_records.drain(..1.min(wants.give_records.len())).collect();
        let members: Vec<Handle> = wants.members.drain(..BATCH.min(wants.members.len())).collect();
        let asked = wants.records.iter().take(RECORDS).map(|(about, _)| *about).collect();
        let theirs = if keys { wants.key_epoch } else { u64::MAX };
        self.give(stream, give.into_iter(), records.into_iter(), (members, asked), theirs);
        stream.phase = Phase::Exchanging(wants);
        true
    }

    /// Sends members and records as far as they fit, wants, and the key if the other's is older.
    fn give(
        &mut self,
        stream: &Stream,
        members: impl Iterator<Item = Handle>,
        records: impl Iterator<Item = About>,
        (want_members, want_records): (Vec<Handle>, Vec<About>),
        their_epoch: u64,
    ) {
        let (mut whole, mut size) = (Vec::new(), 0);
        for member in members.take(BATCH).filter_map(|member| self.members.get(member)) {
            let bytes = member.announcement.bytes();
            size += bytes.len() + 8;
            whole.push((member.claim(), bytes));
        }
        let mut signed = Vec::new();
        for record in records.filter_map(|about| self.store.by(about)) {
            let bytes = record.bytes();
            size += bytes.len() + 3;
            if size > NEWS {
                break;
            }
            signed.push(bytes);
        }
        let members = whole.iter().map(|(claim, announcement)| Update::Full {
            incarnation: claim.incarnation,
            state: claim.state,
            announcement,
        });
        let news = members.chain(signed.iter().map(|record| Update::Record(record))).collect();
        let newest = self.ring.newest();
        let key = (their_epoch < newest.epoch).then(|| (newest.epoch, newest.secret().clone()));
        let exchange = Exchange { news, members: want_members, records: want_records, key };
        let message = Message::Exchange(exchange);
        self.transmit(stream.id, &message);
    }

    fn take_exchange(&mut self, now: Time, peer: Handle, exchange: &Exchange<'_>) {
        for update in &exchange.news {
            self.take_update(now, update, Some(peer));
        }
        if let Some((epoch, secret)) = &exchange.key {
            self.take_key(now, MeshKey::new(*epoch, secret.clone()));
        }
    }
}
