//! What news does: claims, announcements, records and keys, each taken only if it is greater than what is held.

use super::news::Subject;
use super::{Mesh, TRUCE};
use crate::mesh::announcement::{Announcement, Handle, Life, NodeId};
use crate::mesh::envelope::MAX_BODY;
use crate::mesh::keys::MeshKey;
use crate::mesh::members::{Claim, Outcome, State};
use crate::mesh::packet::Update;
use crate::mesh::record::{Kind, Record};
use crate::mesh::{Action, MILLISECOND, SECOND, Time};

/// How long a suspected member has to object: this, and more for each doubling of the mesh.
const SUSPICION: Time = 3 * SECOND;
const SUSPICION_EACH: Time = 400 * MILLISECOND;
/// The least that is left of it to who hears late.
const SUSPICION_LEAST: Time = 500 * MILLISECOND;
/// To how many a node that got a key without grace hands it on at once.
const KEY_FANOUT: usize = 4;
/// Longest record that news carries; a longer one is left to anti-entropy.
const MAX_NEWS_RECORD: usize = MAX_BODY / 2;

/// Somebody got no answer from a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// Who.
    pub accuser: Handle,
    /// When, by this node's clock.
    pub begun: Time,
    /// When the member counts as down, if it does not object.
    pub deadline: Time,
    life: Life,
    incarnation: u32,
    /// Whether the deadline was put off, for this node could not listen or not be heard: then perhaps the member has not
    /// heard of it.
    put_off: bool,
}

impl Suspicion {
    /// Gives the member more time to object.
    pub(super) fn put_off(&mut self, by: Time) {
        self.deadline += by;
        self.put_off = true;
    }
}

impl Mesh {
    pub(super) fn take_update(&mut self, now: Time, update: &Update<'_>, from: Option<Handle>) {
        match *update {
            Update::Full { incarnation, state, announcement } => {
                if let Ok(announcement) = Announcement::parse(announcement) {
                    self.take_announcement(now, announcement, incarnation, state);
                }
            }
            Update::Brief { member, claim, .. } if member == self.me.id.handle() => self.about_me(now, claim),
            Update::Brief { member, claim, accuser } => {
                let accuser = accuser.map(|(by, age)| (by, now.saturating_sub(Time::from(age) * 100 * MILLISECOND)));
                self.claim(now, member, claim, accuser);
            }
            Update::Record(record) => self.take_record(now, record, from),
        }
    }

    fn take_announcement(&mut self, now: Time, announcement: Announcement, incarnation: u32, state: State) {
        let (member, claim) = (announcement.id.handle(), Claim { life: announcement.life(), incarnation, state });
        if announcement.id == self.me.id {
            if claim.life == self.me.life() {
                self.about_me(now, claim);
            } else if let Some(announcement) = self.verifier.announcement(announcement) {
                self.other_process(now, &announcement, false);
            }
            return;
        }
        let known = self.members.get(member).map(|member| member.claim());
        let unwanted = known.is_none() && state == State::Down || known.is_some_and(|known| claim <= known);
        if unwanted || self.store.is_removed(&announcement.id) {
            return;
        }
        let Some(verified) = self.verifier.announcement(announcement) else { return };
        if let Outcome::Held(before) = self.members.learn(verified, claim, now, &mut self.random) {
            let whole = known.is_none_or(|known| known.life != claim.life);
            self.changed(now, member, before, whole, None);
        }
    }

    /// Takes a claim about another node. True if it holds now.
    pub(super) fn claim(&mut self, now: Time, member: Handle, claim: Claim, accuser: Option<(Handle, Time)>) -> bool {
        let outcome = self.members.apply(member, claim, now, &mut self.random);
        let Outcome::Held(before) = outcome else { return false };
        self.changed(now, member, before, false, accuser);
        true
    }

    /// A member's claim is another one now: passes it on, minds the suspicion, tells the host.
    pub(super) fn changed(
        &mut self,
        now: Time,
        handle: Handle,
        before: Option<State>,
        whole: bool,
        accuser: Option<(Handle, Time)>,
    ) {
        let Some(member) = self.members.get(handle) else { return };
        let (claim, announcement) = (member.claim(), member.announcement.clone());
        let mut begun = None;
        let mut accused = None;
        if claim.state == State::Suspect {
            let (by, at) = accuser.unwrap_or((self.me.id.handle(), now));
            self.suspect(now, handle, claim, by, at);
            accused = Some((by, 0));
            begun = Some(at);
        } else {
            self.suspicions.remove(&handle);
        }
        let mut bytes = Vec::new();
        if whole {
            let announcement = announcement.bytes();
            let update =
                Update::Full { incarnation: claim.incarnation, state: claim.state, announcement: &announcement };
            update.write(&mut bytes);
            begun = None;
        } else {
            Update::Brief { member: handle, claim, accuser: accused }.write(&mut bytes);
        }
        self.pass_on(now, Subject::Member(handle), bytes, begun);
        if before != Some(claim.state) {
            self.out.push(Action::Member { id: announcement.id, state: claim.state });
        }
    }

    pub(super) fn pass_on(&mut self, now: Time, subject: Subject, bytes: Vec<u8>, begun: Option<Time>) {
        let times = self.times();
        self.news.add(subject, bytes, begun, times);
        let soon = now + self.random.jittered(40 * MILLISECOND);
        self.gossip_at = self.gossip_at.min(soon);
    }

    fn suspect(&mut self, now: Time, handle: Handle, claim: Claim, accuser: Handle, begun: Time) {
        let deadline = (begun + self.time_to_object()).max(now + SUSPICION_LEAST);
        let put_off = deadline < self.truce_until;
        let deadline = deadline.max(self.truce_until);
        let Claim { life, incarnation, .. } = claim;
        self.suspicions.insert(handle, Suspicion { accuser, begun, deadline, life, incarnation, put_off });
        self.next_suspicion = self.next_suspicion.min(deadline);
    }

    fn time_to_object(&self) -> Time {
        SUSPICION + self.rounds() as Time * SUSPICION_EACH
    }

    pub(super) fn expire_suspicions(&mut self, now: Time) {
        if now < self.next_suspicion {
            return;
        }
        let due = self.suspicions.iter().filter(|(_, suspicion)| suspicion.deadline <= now);
        let due: Vec<(Handle, Suspicion)> = due.map(|(handle, suspicion)| (*handle, *suspicion)).collect();
        for (handle, suspicion) in due {
            if suspicion.put_off {
                self.accuse_again(now, handle, suspicion);
                continue;
            }
            let Suspicion { life, incarnation, .. } = suspicion;
            self.claim(now, handle, Claim { life, incarnation, state: State::Down }, None);
            self.suspicions.remove(&handle);
        }
        self.next_suspicion = self.suspicions.values().map(|s| s.deadline).min().unwrap_or(Time::MAX);
    }

    /// Says once more that a member is suspected, to itself and to others, and gives it the time to object once more.
    fn accuse_again(&mut self, now: Time, handle: Handle, of: Suspicion) {
        let claim = Claim { life: of.life, incarnation: of.incarnation, state: State::Suspect };
        self.suspect(now, handle, claim, of.accuser, now);
        let mut bytes = Vec::new();
        Update::Brief { member: handle, claim, accuser: Some((of.accuser, 0)) }.write(&mut bytes);
        self.pass_on(now, Subject::Member(handle), bytes, Some(now));
        self.ping(now, handle);
    }

    /// Somebody claims something about this process: objects to everything but that it is alive.
    fn about_me(&mut self, now: Time, claim: Claim) {
        let me = self.me.id.handle();
        let Some(mine) = self.members.get(me).map(|member| member.claim()) else { return };
        if claim.life != mine.life || claim <= mine {
            return;
        }
        let Some(incarnation) = claim.incarnation.checked_add(1) else {
            return self.renew(now, self.me.generation.saturating_add(1));
        };
        let claim = Claim { incarnation, state: State::Alive, ..mine };
        self.members.apply(me, claim, now, &mut self.random);
        let mut bytes = Vec::new();
        Update::Brief { member: me, claim, accuser: None }.write(&mut bytes);
        self.pass_on(now, Subject::Member(me), bytes, None);
    }

    /// Takes a record if it is newer than what is held, and does what it says.
    pub(super) fn take_record(&mut self, now: Time, bytes: &[u8], from: Option<Handle>) {
        let Ok(record) = Record::parse(bytes) else { return };
        if self.store.rank(record.about()).is_some_and(|held| held >= record.rank()) {
            return;
        }
        let Ok(record) = self.verifier.record(record) else {
            self.counts.forged += 1;
            return;
        };
        if self.store.accept(record.clone()).is_err() {
            return;
        }
        if bytes.len() <= MAX_NEWS_RECORD {
            let mut news = Vec::new();
            Update::Record(bytes).write(&mut news);
            self.pass_on(now, Subject::Record(record.about()), news, None);
        }
        self.out.push(Action::Record(record.clone()));
        if let Some(id) = record.removed() {
            self.evict(id);
        }
        if record.kind == Kind::MeshKey {
            self.install_candidate(now);
            if self.lacks_key()
                && let Some(from) = from
            {
                self.seek(now, from);
            }
        }
    }

    /// A removal's effect on who is removed.
    fn evict(&mut self, id: NodeId) {
        if id == self.me.id {
            self.silent = true;
            self.out.push(Action::Removed);
            return;
        }
        let handle = id.handle();
        if self.members.forget(handle) {
            self.suspicions.remove(&handle);
            self.news.forget(Subject::Member(handle));
            self.out.push(Action::Evicted(id));
        }
        self.close_streams_with(handle);
    }

    /// Whether a record speaks of a newer mesh key than this node has.
    pub(super) fn lacks_key(&self) -> bool {
        let record = self.store.get(Kind::MeshKey, &[]);
        record.is_some_and(|record| record.epoch > self.ring.newest().epoch)
    }

    /// Takes a mesh key if a record commits to it.
    pub(super) fn take_key(&mut self, now: Time, key: MeshKey) {
        if key.epoch > self.ring.newest().epoch {
            self.candidate = Some(key);
            self.install_candidate(now);
        }
    }

    pub(super) fn install_candidate(&mut self, now: Time) {
        let Some((commitment, grace, epoch)) = self.store.get(Kind::MeshKey, &[]).and_then(|record| {
            let (commitment, grace) = record.mesh_key()?;
            Some((commitment, grace, record.epoch))
        }) else {
            return;
        };
        let fits = |key: &MeshKey| key.epoch == epoch && key.commitment() == commitment;
        let Some(key) = self.candidate.take_if(|key| fits(key)) else { return };
        if !self.ring.install(now, key.clone(), grace) {
            return;
        }
        self.out.push(Action::Key(key));
        if !grace {
            // Whoever lacks it can't be heard: nobody is suspected for a while.
            self.truce_until = now + TRUCE;
            self.suspicions.values_mut().for_each(|suspicion| suspicion.put_off(TRUCE));
            for peer in self.members.some(KEY_FANOUT, self.me.id.handle(), &mut self.random) {
                self.seek(now, peer);
            }
        }
    }
}
