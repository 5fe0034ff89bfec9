//! The failure detector: SWIM's probes, direct and through others.

use std::collections::VecDeque;

use super::{Mesh, make_room};
use crate::mesh::announcement::Handle;
use crate::mesh::members::{Claim, State};
use crate::mesh::packet::Message;
use crate::mesh::{MILLISECOND, SECOND, Time};

/// How often a member is probed, and how long it has to answer: itself, then through others until the period ends.
const PROBE_PERIOD: Time = SECOND;
const DIRECT: Time = 400 * MILLISECOND;
/// How many others are asked.
const HELPERS: usize = 3;
/// Pings that are made for others at once, and for how long.
pub const MAX_RELAYS: usize = 64;
const RELAY: Time = 2 * SECOND;
/// A node that hears nothing at all takes its time: its own network may be the one that fails.
const MAX_STRAIN: u64 = 4;

struct Probe {
    target: Handle,
    claim: Claim,
    number: u32,
    sent: Time,
    helpers_at: Time,
    ends: Time,
    answered: bool,
}

pub(super) struct Relay {
    /// Of the ping that was made.
    number: u32,
    target: Handle,
    asker: Handle,
    /// Of the request.
    theirs: u32,
    ends: Time,
}

/// What the failure detector is at.
pub(super) struct Probing {
    current: Option<Probe>,
    next_at: Time,
    number: u32,
    pub(super) relays: VecDeque<Relay>,
    /// Suspected by this node: probed again before anybody else.
    accused: Option<(Handle, u32)>,
    /// When anything was last heard.
    pub(super) heard: Time,
    strain: u64,
}

impl Probing {
    pub(super) fn new(first: Time) -> Self {
        Probing {
            current: None,
            next_at: first,
            number: 0,
            relays: VecDeque::new(),
            accused: None,
            heard: 0,
            strain: 0,
        }
    }

    pub(super) fn abandon(&mut self, now: Time) {
        self.current = None;
        self.next_at = now;
    }

    pub(super) fn next(&self) -> Time {
        match &self.current {
            Some(probe) if !probe.answered => probe.helpers_at.min(self.next_at),
            _ => self.next_at,
        }
    }
}

impl Mesh {
    pub(super) fn probe_tick(&mut self, now: Time) {
        if let Some(probe) = &mut self.probing.current
            && !probe.answered
            && now >= probe.helpers_at
        {
            probe.helpers_at = Time::MAX;
            let (number, target) = (probe.number, probe.target);
            for helper in self.members.some(HELPERS, target, &mut self.random) {
                self.send(now, helper, Message::PingFor(number, target));
            }
        }
        if now >= self.probing.next_at {
            if let Some(probe) = self.probing.current.take() {
                self.conclude(now, &probe);
            }
            self.probe_next(now);
        }
    }

    fn probe_next(&mut self, now: Time) {
        let slower = self.probing.strain * PROBE_PERIOD / 2;
        self.probing.next_at = now + PROBE_PERIOD + slower;
        if self.lacks_key() {
            let some = self.members.some(1, self.me.id.handle(), &mut self.random);
            some.into_iter().for_each(|peer| self.seek(now, peer));
        }
        let again = self
            .probing
            .accused
            .take()
            .filter(|(handle, _)| self.members.get(*handle).is_some_and(|member| member.state == State::Suspect));
        let target = match again {
            Some((handle, left)) => {
                self.probing.accused = (left > 0).then_some((handle, left.saturating_sub(1)));
                Some(handle)
            }
            None => self.members.next(&mut self.random),
        };
        let Some((target, claim)) = target.and_then(|at| Some((at, self.members.get(at)?.claim()))) else { return };
        let number = self.ping(now, target);
        let (helpers_at, ends) = (now + DIRECT + slower / 2, self.probing.next_at);
        self.probing.current = Some(Probe { target, claim, number, sent: now, helpers_at, ends, answered: false });
    }

    pub(super) fn ping(&mut self, now: Time, target: Handle) -> u32 {
        self.probing.number = self.probing.number.wrapping_add(1);
        let number = self.probing.number;
        self.send(now, target, Message::Ping(number));
        number
    }

    fn conclude(&mut self, now: Time, probe: &Probe) {
        if probe.answered {
            self.probing.strain = self.probing.strain.saturating_sub(1);
            return;
        }
        if self.probing.heard <= probe.sent {
            self.probing.strain = (self.probing.strain + 1).min(MAX_STRAIN);
            if self.probing.strain > 1 {
                // Perhaps everybody else has a newer key: a stream tells.
                let some = self.members.some(1, probe.target, &mut self.random);
                some.into_iter().for_each(|peer| self.seek(now, peer));
            }
        }
        if now < self.truce_until || probe.ends > now {
            return;
        }
        let claim = Claim { state: State::Suspect, ..probe.claim };
        let me = self.me.id.handle();
        if self.claim(now, probe.target, claim, Some((me, now))) {
            self.probing.accused = Some((probe.target, 2));
        }
    }

    pub(super) fn acknowledged(&mut self, now: Time, from: Handle, number: u32) {
        if let Some(probe) = &mut self.probing.current
            && (probe.number, probe.target) == (number, from)
        {
            if !probe.answered {
                self.members.set_round_trip(from, now - probe.sent);
            }
            probe.answered = true;
        }
        let of = |relay: &Relay| (relay.number, relay.target) == (number, from);
        if let Some(at) = self.probing.relays.iter().position(of)
            && let Some(relay) = self.probing.relays.remove(at)
        {
            self.send(now, relay.asker, Message::AckFor(relay.theirs));
        }
    }

    pub(super) fn acknowledged_for(&mut self, number: u32) {
        if let Some(probe) = &mut self.probing.current
            && probe.number == number
        {
            probe.answered = true;
        }
    }

    pub(super) fn ping_for(&mut self, now: Time, asker: Handle, theirs: u32, target: Handle) {
        self.probing.relays.retain(|relay| relay.ends > now);
        if self.members.get(target).is_none() || target == self.me.id.handle() {
            return;
        }
        let number = self.ping(now, target);
        make_room(&mut self.probing.relays, MAX_RELAYS);
        self.probing.relays.push_back(Relay { number, target, asker, theirs, ends: now + RELAY });
    }
}
