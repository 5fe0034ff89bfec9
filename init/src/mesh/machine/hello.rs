//! Hellos: how a node finds the mesh, and how two processes that do not know each other's salts come to do so.

use std::collections::VecDeque;
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
/// How often a node that is alone asks, at first and at most; and one that is not asks one of the addresses.
const FIRST_WAIT: Time = SECOND;
const MAX_WAIT: Time = 15 * SECOND;
const REMIND: Time = 60 * SECOND;
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
        self.hellos.seeds = addresses.iter().copied().filter(|address| *address != own).take(MAX_SEEDS).collect();
        self.hellos.wait = FIRST_WAIT;
        self.hellos.join_at = if self.hellos.seeds.is_empty() { Time::MAX } else { now };
        self.hello_tick(now);
    }

    pub(super) fn hello_tick(&mut self, now: Time) {
        if now < self.hellos.join_at {
            return;
        }
        if self.members.live() == 0 {
            for at in 0..self.hellos.seeds.len() {
                self.ask(now, self.hellos.seeds[at], true, 0);
            }
            self.hellos.join_at = now + self.random.jittered(self.hellos.wait);
            self.hellos.wait = (self.hellos.wait * 2).min(MAX_WAIT);
        } else {
            // Should the address be another group's, this joins the two.
            let seed = self.hellos.seeds[self.random.below(self.hellos.seeds.len())];
            let known = |member: &super::Member| member.announcement.address == seed && member.state != State::Down;
            if !self.members.iter().any(known) {
                self.ask(now, seed, true, 0);
            }
            self.hellos.join_at = now + self.random.jittered(REMIND);
            self.hellos.wait = FIRST_WAIT;
        }
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

    fn ask(&mut self, now: Time, to: SocketAddr, joining: bool, epoch: u64) {
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
        let Some(body) = open_hello(&self.ring, header, bytes) else { return };
        let Ok(hello) = Hello::parse(&body) else { return };
        let Ok(announcement) = Announcement::parse(hello.announcement) else { return };
        if !header.accepted {
            // A member that was away while the key changed: it gets the new one over a stream, which needs no mesh key.
            let handle = announcement.id.handle();
            let known = self.members.get(handle).is_some_and(|member| member.announcement.id == announcement.id);
            if hello.why == Why::Ask && known {
                self.learn_announcement(now, announcement);
                self.seek(now, handle);
            }
            return;
        }
        match hello.why {
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
                let Some(member) = self.meet(now, (from, header.epoch), announcement) else { return };
                self.members.set_shown(member, header.epoch);
                if joining {
                    self.seek(now, member);
                }
                self.retry_held(now, from);
            }
            Why::Newer => {
                if announcement.id == self.me.id
                    && let Some(announcement) = self.verifier.announcement(announcement)
                {
                    self.other_process(now, &announcement);
                }
            }
        }
    }

    /// Learns an announcement that its node sent itself. Says who it is, unless it is nobody to speak with.
    fn meet(&mut self, now: Time, from: (SocketAddr, u64), announcement: Announcement) -> Option<Handle> {
        let member = announcement.id.handle();
        if announcement.id == self.me.id {
            if announcement.life() != self.me.life()
                && let Some(announcement) = self.verifier.announcement(announcement)
            {
                self.other_process(now, &announcement);
            }
            return None;
        }
        if self.store.is_removed(&announcement.id) {
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
