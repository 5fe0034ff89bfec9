//! Hellos: how a node finds the mesh, and how two processes that do not know each other's salts come to do so.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Mesh, make_room};
use crate::mesh::announcement::{Announcement, Handle};
use crate::mesh::envelope::{Header, open_hello, seal_hello};
use crate::mesh::members::{Claim, Outcome, State};
use crate::mesh::packet::{Hello, Message, Why};
use crate::mesh::{Action, SECOND, Time};

/// Packets that wait for the announcement of the process that sealed them, and for how long.
pub const MAX_HELD: usize = 32;
const HELD: Time = 2 * SECOND;
/// Questions without an answer, and for how long an answer is taken.
pub const MAX_ASKED: usize = 64;
const ASKED: Time = 5 * SECOND;
/// Addresses to look at.
const MAX_SEEDS: usize = 16;
/// How long a node waits between asking: at first, then twice as long each time, to the longest of who is alone and of who
/// is not.
const FIRST_WAIT: Time = SECOND;
const LONGEST_ALONE: Time = 15 * SECOND;
const LONGEST: Time = 60 * SECOND;
/// Addresses that a node which is not alone asks at once.
const ASKED_AT_ONCE: usize = 4;
/// Hellos that are sent in a second, whoever asks for them.
const RATE: u64 = 200;

pub(super) struct Held {
    from: SocketAddr,
    at: Time,
    bytes: Vec<u8>,
}

pub(super) struct Asked {
    challenge: [u8; 8],
    at: Time,
    /// Whether it was asked to find the mesh.
    joining: bool,
}

/// What is known of hellos.
pub(super) struct Hellos {
    seeds: Vec<SocketAddr>,
    join_at: Time,
    wait: Time,
    pub(super) held: VecDeque<Held>,
    pub(super) asked: VecDeque<Asked>,
    left: u64,
    filled: Time,
}

impl Hellos {
    pub(super) fn new(now: Time) -> Self {
        Hellos {
            seeds: Vec::new(),
            join_at: Time::MAX,
            wait: FIRST_WAIT,
            held: VecDeque::new(),
            asked: VecDeque::new(),
            left: RATE,
            filled: now,
        }
    }

    pub(super) fn next(&self) -> Time {
        self.join_at
    }

    /// Whether one more hello may be sent now.
    fn may_send(&mut self, now: Time) -> bool {
        let gained = (now - self.filled) / (SECOND / RATE);
        if gained > 0 {
            self.left = (self.left + gained).min(RATE);
            self.filled = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl Mesh {
    pub(super) fn join(&mut self, now: Time, addresses: &[SocketAddr]) {
        let own = self.me.address;
        let others: BTreeSet<SocketAddr> = addresses.iter().copied().filter(|address| *address != own).collect();
        self.hellos.seeds = others.into_iter().take(MAX_SEEDS).collect();
        self.hellos.wait = FIRST_WAIT;
        self.hellos.join_at = if self.hellos.seeds.is_empty() { Time::MAX } else { now };
        self.hello_tick(now);
    }

    /// Asks at the addresses where nobody is known. Who has met somebody asks on, at all of them in turn: whom it met may be
    /// cut off from the others as it is, and those may remember both at addresses where they are not any more.
    pub(super) fn hello_tick(&mut self, now: Time) {
        if now < self.hellos.join_at {
            return;
        }
        let alone = self.members.live() == 0;
        let (most, longest) = if alone { (MAX_SEEDS, LONGEST_ALONE) } else { (ASKED_AT_ONCE, LONGEST) };
        let mut strange = self.strange_seeds();
        let wait = if strange.is_empty() { longest } else { self.hellos.wait.min(longest) };
        strange.truncate(most);
        for seed in &strange {
            self.ask(now, *seed, true, 0);
        }
        self.hellos.seeds.retain(|seed| !strange.contains(seed));
        self.hellos.seeds.extend(strange);
        self.hellos.join_at = now + self.random.jittered(wait);
        self.hellos.wait = wait * 2;
    }

    /// The addresses to look at where no live member is, those first that were not asked for the longest time.
    fn strange_seeds(&self) -> Vec<SocketAddr> {
        let mut strange = self.hellos.seeds.clone();
        for member in self.members.iter().filter(|member| member.state != State::Down) {
            strange.retain(|seed| *seed != member.announcement.address);
            if strange.is_empty() {
                break;
            }
        }
        strange
    }

    /// Keeps a packet of a process that is not known, and asks whose it is.
    pub(super) fn hold(&mut self, now: Time, from: SocketAddr, bytes: &[u8], epoch: u64) {
        self.counts.held += 1;
        self.hellos.held.retain(|held| now - held.at < HELD);
        make_room(&mut self.hellos.held, MAX_HELD);
        let asked = self.hellos.held.iter().any(|held| held.from == from);
        self.hellos.held.push_back(Held { from, at: now, bytes: bytes.to_vec() });
        if !asked {
            self.ask(now, from, false, epoch);
        }
    }

    pub(super) fn ask(&mut self, now: Time, to: SocketAddr, joining: bool, epoch: u64) {
        self.hellos.asked.retain(|asked| now - asked.at < ASKED);
        make_room(&mut self.hellos.asked, MAX_ASKED);
        let challenge = self.random.secret();
        self.hellos.asked.push_back(Asked { challenge, at: now, joining });
        let me = self.me.clone();
        self.send_hello(now, (to, epoch), Why::Ask, challenge, &me);
    }

    fn send_hello(
        &mut self,
        now: Time,
        (to, epoch): (SocketAddr, u64),
        why: Why,
        challenge: [u8; 8],
        announcement: &Announcement,
    ) {
        if !self.hellos.may_send(now) {
            return;
        }
        let body = Hello { why, challenge, announcement: &announcement.bytes() }.bytes();
        let random = self.random.secret();
        let packet = seal_hello((&self.ring, now), epoch as u16, &random, &body);
        self.out.push(Action::Send { to, packet });
    }

    pub(super) fn hello_packet(&mut self, now: Time, from: SocketAddr, header: &Header, bytes: &[u8]) {
        let Some(body) = open_hello(&self.ring, header, bytes) else {
            self.counts.noise += 1;
            return;
        };
        let Ok(hello) = Hello::parse(&body) else { return };
        let Ok(announcement) = Announcement::parse(hello.announcement) else { return };
        if !header.accepted {
            // A member that was away while the key changed: it gets the new one over a stream, which needs no mesh key.
            let handle = announcement.id.handle();
            let known = self.members.get(handle).is_some_and(|member| member.announcement.id == announcement.id);
            if hello.why == Why::Ask && known {
                self.learn_announcement(now, announcement);
                self.seek(now, handle);
            } else {
                self.counts.refused += 1;
            }
            return;
        }
        match hello.why {
            Why::Ask if announcement.id == self.me.id => {
                self.asked_by_rival(now, (from, header.epoch), &hello, announcement)
            }
            Why::Ask => {
                if let Some(member) = self.meet(now, (from, header.epoch), announcement)
                    && !self.silent
                {
                    self.members.set_shown(member, header.epoch);
                    let me = self.me.clone();
                    self.send_hello(now, (from, header.epoch), Why::Tell, hello.challenge, &me);
                }
            }
            Why::Tell => {
                self.hellos.asked.retain(|asked| now - asked.at < ASKED);
                let of = |asked: &Asked| asked.challenge == hello.challenge;
                let Some(at) = self.hellos.asked.iter().position(of) else { return };
                let joining = self.hellos.asked.remove(at).is_some_and(|asked| asked.joining);
                if announcement.id == self.me.id {
                    return self.meet_rival(now, announcement, true);
                }
                let Some(member) = self.meet(now, (from, header.epoch), announcement) else { return };
                self.members.set_shown(member, header.epoch);
                if joining {
                    self.seek(now, member);
                }
                self.retry_held(now, from);
            }
            Why::Newer if announcement.id == self.me.id => self.meet_rival(now, announcement, false),
            Why::Newer => {}
        }
    }

    /// Another process of this node's key asks. One that gave way often does so to hear whether this one is there.
    fn asked_by_rival(&mut self, now: Time, to: (SocketAddr, u64), hello: &Hello<'_>, announcement: Announcement) {
        if announcement.life() > self.me.life() {
            self.meet_rival(now, announcement, false);
        } else if announcement.life() < self.me.life() && self.verifier.announcement(announcement).is_some() {
            let me = self.me.clone();
            self.send_hello(now, to, Why::Tell, hello.challenge, &me);
        }
    }

    fn meet_rival(&mut self, now: Time, announcement: Announcement, answers: bool) {
        if announcement.life() != self.me.life()
            && let Some(announcement) = self.verifier.announcement(announcement)
        {
            self.other_process(now, &announcement, answers);
        }
    }

    /// Learns an announcement that its node sent itself. Says who it is, unless it is nobody to speak with.
    fn meet(&mut self, now: Time, from: (SocketAddr, u64), announcement: Announcement) -> Option<Handle> {
        let member = announcement.id.handle();
        if self.store.is_removed(&announcement.id) {
            self.counts.refused += 1;
            return None;
        }
        let life = announcement.life();
        if let Some(known) = self.members.get(member)
            && life <= known.announcement.life()
        {
            let (known, state): (Arc<Announcement>, State) = (known.announcement.clone(), known.state);
            if known.id != announcement.id {
                return None;
            }
            if life < known.life() {
                self.send_hello(now, from, Why::Newer, [0; 8], &known);
                return None;
            }
            if state == State::Down {
                self.send(now, member, Message::Gossip);
            }
            return Some(member);
        }
        self.learn_announcement(now, announcement)
    }

    /// Learns a process that is not known or newer than the one that is, if its node signed the announcement and was not
    /// removed.
    fn learn_announcement(&mut self, now: Time, announcement: Announcement) -> Option<Handle> {
        if self.store.is_removed(&announcement.id) {
            return None;
        }
        let (member, life) = (announcement.id.handle(), announcement.life());
        if self.members.get(member).is_some_and(|member| member.announcement.life() == life) {
            return Some(member);
        }
        let verified = self.verifier.announcement(announcement)?;
        let claim = Claim { life, incarnation: 0, state: State::Alive };
        match self.members.learn(verified, claim, now, &mut self.random) {
            Outcome::Held(before) => {
                self.changed(now, member, before, true, None);
                Some(member)
            }
            Outcome::Old | Outcome::Unknown | Outcome::Full => None,
        }
    }

    /// Tries the packets that waited for an announcement from that address, each once.
    fn retry_held(&mut self, now: Time, from: SocketAddr) {
        let held = std::mem::take(&mut self.hellos.held);
        let (ready, rest): (Vec<Held>, Vec<Held>) = held.into_iter().partition(|held| held.from == from);
        self.hellos.held = rest.into();
        for packet in ready.iter().filter(|packet| now - packet.at < HELD) {
            if let Some(header) = Header::read(&self.ring, now, &packet.bytes) {
                self.sealed_packet(now, &header, &packet.bytes);
            }
        }
    }
}
