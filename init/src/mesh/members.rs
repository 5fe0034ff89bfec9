//! Who is in the mesh, as this node knows: a claim for each member, of which the greatest holds.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use super::Time;
use super::announcement::{Announcement, Handle, Life};
use super::envelope::Session;
use super::random::{Random, mix};

/// Members that a node keeps, those that are down included.
pub const MAX_MEMBERS: usize = 8192;
/// Parts into which members are divided for comparing: by the handle's first byte.
pub const PARTS: usize = 256;

/// What is thought of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It answers.
    Alive,
    /// Somebody got no answer from it; it may still object.
    Suspect,
    /// It did not object in time.
    Down,
}

/// A statement about a member. Of two the greater holds, so in whatever order they come the outcome is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Of which of its processes.
    pub life: Life,
    /// Raised by the member itself, each time it objects.
    pub incarnation: u32,
    /// What is claimed.
    pub state: State,
}

/// A member.
pub struct Member {
    /// What it said of itself.
    pub announcement: Arc<Announcement>,
    /// The greatest claim about it.
    pub incarnation: u32,
    /// What is thought of it.
    pub state: State,
    /// When that began.
    pub since: Time,
    /// Smoothed time from ping to answer in microseconds, zero if it was never measured here.
    pub round_trip: u32,
    /// The last 16 bits of the epoch of the mesh key that it sealed with last.
    pub(super) shown: u16,
    /// Position in the list of those that are probed; none for this node itself and for those down.
    place: Option<u32>,
    session: Option<Box<Session>>,
}

impl Member {
    /// The claim that holds.
    pub fn claim(&self) -> Claim {
        Claim { life: self.announcement.life(), incarnation: self.incarnation, state: self.state }
    }
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It says nothing new.
    Old,
    /// It holds now; what was thought before, if the member was known.
    Held(Option<State>),
    /// Nothing is known of that member, or of that process, and the claim does not say it.
    Unknown,
    /// No room.
    Full,
}

/// Spreads handles with a number that is this process's: they are chosen by who makes a node key.
#[derive(Clone)]
struct Spread(u64);

impl BuildHasher for Spread {
    type Hasher = Spread;

    fn build_hasher(&self) -> Spread {
        self.clone()
    }
}

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = mix(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }
}

/// The members that a node knows, itself included.
pub struct Members {
    me: Handle,
    slots: Vec<Member>,
    index: HashMap<Handle, u32, Spread>,
    /// Slots of members that are alive or suspect, this node's not.
    live: Vec<u32>,
    /// Slots of members that are down.
    down: usize,
    /// Next to be probed.
    cursor: usize,
    /// Which of those that are down was tried last.
    down_cursor: usize,
    parts: [u64; PARTS],
    digest: u64,
}

/// In which part a member is.
pub(super) fn part(handle: Handle) -> usize {
    (handle.0 >> 56) as usize
}

impl Members {
    /// Only this node.
    pub(super) fn new(me: Arc<Announcement>, random: &mut Random) -> Self {
        let handle = me.id.handle();
        let mut members = Members {
            me: handle,
            slots: Vec::new(),
            index: HashMap::with_hasher(Spread(random.number())),
            live: Vec::new(),
            down: 0,
            cursor: 0,
            down_cursor: 0,
            parts: [0; PARTS],
            digest: 0,
        };
        members.insert(me, 0, State::Alive, 0, random);
        members
    }

    /// A member.
    pub fn get(&self, handle: Handle) -> Option<&Member> {
        self.index.get(&handle).and_then(|slot| self.slots.get(*slot as usize))
    }

    pub(super) fn set_round_trip(&mut self, handle: Handle, measured: Time) {
        let measured = u32::try_from(measured).unwrap_or(u32::MAX).max(1);
        if let Some(member) = self.slot(handle) {
            let before = if member.round_trip == 0 { measured } else { member.round_trip };
            member.round_trip = before - before / 8 + measured / 8;
        }
    }

    pub(super) fn set_shown(&mut self, handle: Handle, epoch: u64) {
        if let Some(member) = self.slot(handle) {
            member.shown = epoch as u16;
        }
    }

    fn slot(&mut self, handle: Handle) -> Option<&mut Member> {
        self.index.get(&handle).and_then(|slot| self.slots.get_mut(*slot as usize))
    }

    /// A member's announcement and session.
    pub(super) fn session(&mut self, handle: Handle) -> Option<(Arc<Announcement>, &mut Session)> {
        let member = self.slot(handle)?;
        let session = member.session.get_or_insert_with(|| Box::new(Session::new()));
        Some((member.announcement.clone(), session))
    }

    /// Everybody that is known, this node included.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter()
    }

    /// How many are alive or suspect, this node not counted.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// How many are known, this node included.
    pub fn known(&self) -> usize {
        self.slots.len()
    }

    /// A digest of each part, over those that are alive or suspect.
    pub fn parts(&self) -> &[u64; PARTS] {
        &self.parts
    }

    /// A digest of the whole, the same where the same members are known.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Applies a claim about a process that is known.
    pub(super) fn apply(&mut self, handle: Handle, claim: Claim, now: Time, random: &mut Random) -> Outcome {
        match self.get(handle).map(Member::claim) {
            None => Outcome::Unknown,
            Some(held) if claim <= held => Outcome::Old,
            Some(held) if claim.life != held.life => Outcome::Unknown,
            Some(held) => {
                self.turn(handle);
                if let Some(member) = self.slot(handle) {
                    member.incarnation = claim.incarnation;
                    member.state = claim.state;
                    member.since = if held.state == claim.state { member.since } else { now };
                }
                self.turn(handle);
                self.relist(handle, held.state, random);
                Outcome::Held(Some(held.state))
            }
        }
    }

    /// Applies a claim with the verified announcement of its process.
    pub(super) fn learn(
        &mut self,
        announcement: Arc<Announcement>,
        claim: Claim,
        now: Time,
        random: &mut Random,
    ) -> Outcome {
        let handle = announcement.id.handle();
        let Some(held) = self.get(handle) else {
            if self.slots.len() >= MAX_MEMBERS && !self.forget_oldest() {
                return Outcome::Full;
            }
            self.insert(announcement, claim.incarnation, claim.state, now, random);
            return Outcome::Held(None);
        };
        if held.announcement.id != announcement.id {
            return Outcome::Full;
        }
        let before = held.claim();
        if claim <= before {
            return Outcome::Old;
        }
        self.turn(handle);
        if let Some(member) = self.slot(handle) {
            member.since = if before.state == claim.state { member.since } else { now };
            member.incarnation = claim.incarnation;
            member.state = claim.state;
            if before.life != claim.life {
                member.announcement = announcement;
                member.session = None;
                member.round_trip = 0;
            }
        }
        self.turn(handle);
        self.relist(handle, before.state, random);
        Outcome::Held(Some(before.state))
    }

    fn insert(
        &mut self,
        announcement: Arc<Announcement>,
        incarnation: u32,
        state: State,
        now: Time,
        random: &mut Random,
    ) {
        let handle = announcement.id.handle();
        let slot = self.slots.len() as u32;
        let member = Member {
            announcement,
            incarnation,
            state,
            since: now,
            round_trip: 0,
            shown: 0,
            place: None,
            session: None,
        };
        self.slots.push(member);
        self.index.insert(handle, slot);
        self.turn(handle);
        // As if it had been down: one that is live is listed, one that is down is counted.
        self.down += 1;
        self.relist(handle, State::Down, random);
    }

    /// Adds a member to the digests, or takes it out. Those down are in none.
    fn turn(&mut self, handle: Handle) {
        let Some(member) = self.get(handle).filter(|member| member.state != State::Down) else { return };
        let life = member.announcement.life();
        let contribution = mix(handle.0 ^ mix(life.0 ^ mix(u64::from(member.incarnation))));
        self.parts[part(handle)] ^= contribution;
        self.digest ^= contribution;
    }

    /// Lists a member where it belongs after its state changed.
    fn relist(&mut self, handle: Handle, before: State, random: &mut Random) {
        let Some(slot) = self.index.get(&handle).copied() else { return };
        let state = self.slots[slot as usize].state;
        self.down += usize::from(state == State::Down);
        self.down -= usize::from(before == State::Down);
        match (self.slots[slot as usize].place, state) {
            (Some(_), State::Down) => self.unlist(slot),
            (None, State::Alive | State::Suspect) if handle != self.me => {
                // At a random place among those still to be probed in this round.
                self.live.push(slot);
                let last = self.live.len() - 1;
                let from = self.cursor.min(last);
                let other = from + random.below(last - from + 1);
                self.live.swap(last, other);
                self.place(last);
                self.place(other);
            }
            _ => {}
        }
    }

    fn place(&mut self, at: usize) {
        if let Some(slot) = self.live.get(at) {
            self.slots[*slot as usize].place = Some(at as u32);
        }
    }

    fn unlist(&mut self, slot: u32) {
        if let Some(at) = self.slots[slot as usize].place.take() {
            self.live.swap_remove(at as usize);
            self.place(at as usize);
        }
    }

    /// Forgets a member: it was removed, or there is no room.
    pub(super) fn forget(&mut self, handle: Handle) -> bool {
        if handle == self.me {
            return false;
        }
        let Some(slot) = self.index.get(&handle).copied() else { return false };
        self.turn(handle);
        self.unlist(slot);
        self.index.remove(&handle);
        let gone = self.slots.swap_remove(slot as usize);
        self.down -= usize::from(gone.state == State::Down);
        if let Some(moved) = self.slots.get(slot as usize) {
            let (handle, place) = (moved.announcement.id.handle(), moved.place);
            self.index.insert(handle, slot);
            if let Some(place) = place {
                self.live[place as usize] = slot;
            }
        }
        true
    }

    /// Forgets who is down for the longest time. False if nobody is.
    fn forget_oldest(&mut self) -> bool {
        let down = self.slots.iter().filter(|member| member.state == State::Down);
        let oldest = down.min_by_key(|member| member.since).map(|member| member.announcement.id.handle());
        oldest.is_some_and(|handle| self.forget(handle))
    }

    /// Forgets who is down since before `since`.
    pub(super) fn forget_before(&mut self, since: Time) {
        if self.down == 0 {
            return;
        }
        let old = |member: &&Member| member.state == State::Down && member.since < since;
        let handles: Vec<Handle> = self.slots.iter().filter(old).map(|m| m.announcement.id.handle()).collect();
        handles.into_iter().for_each(|handle| {
            self.forget(handle);
        });
    }

    /// Who is to be probed next: each once in a round, in an order that is anew for each round.
    pub(super) fn next(&mut self, random: &mut Random) -> Option<Handle> {
        if self.cursor >= self.live.len() {
            self.cursor = 0;
            for at in (1..self.live.len()).rev() {
                let other = random.below(at + 1);
                self.live.swap(at, other);
            }
            (0..self.live.len()).for_each(|at| self.place(at));
        }
        let slot = *self.live.get(self.cursor)?;
        self.cursor += 1;
        Some(self.slots[slot as usize].announcement.id.handle())
    }

    /// Up to `count` different members that are alive or suspect, `except` not among them.
    pub(super) fn some(&self, count: usize, except: Handle, random: &mut Random) -> Vec<Handle> {
        let mut chosen: Vec<Handle> = Vec::with_capacity(count);
        for _ in 0..count * 4 {
            if chosen.len() == count || self.live.is_empty() {
                break;
            }
            let slot = self.live[random.below(self.live.len())];
            let handle = self.slots[slot as usize].announcement.id.handle();
            if handle != except && !chosen.contains(&handle) {
                chosen.push(handle);
            }
        }
        chosen
    }

    /// One of those that are down, each in turn.
    pub(super) fn one_down(&mut self) -> Option<Handle> {
        if self.down == 0 {
            return None;
        }
        self.down_cursor = (self.down_cursor + 1) % self.down;
        let mut down = self.slots.iter().filter(|member| member.state == State::Down);
        down.nth(self.down_cursor).map(|member| member.announcement.id.handle())
    }

    /// Whether more are down than live, this node not counted.
    pub(super) fn most_are_down(&self) -> bool {
        self.down > self.live.len()
    }
}
