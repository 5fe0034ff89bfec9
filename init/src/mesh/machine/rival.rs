//! Two processes with one node key (a copy of the machine's state, or a state that was set back): one is left.

use std::sync::Arc;

use super::Mesh;
use super::news::Subject;
use crate::mesh::announcement::Announcement;
use crate::mesh::envelope::Sealer;
use crate::mesh::members::{Claim, State};
use crate::mesh::packet::Update;
use crate::mesh::{Action, SECOND, Time};

/// How often a process gives way by a newer generation before it asks whether the other one is there.
const MAX_RENEWALS: u32 = 3;
/// How often it asks, and how long it waits each time.
const TIMES: u32 = 5;
const PAUSE: Time = SECOND;

/// Another process of this node's key, of which nothing is known but that it was there once.
pub(super) struct Rival {
    announcement: Announcement,
    left: u32,
    at: Time,
}

impl Rival {
    /// When it is asked again.
    pub(super) fn next(&self) -> Time {
        self.at
    }
}

impl Mesh {
    /// Another process announced itself with this node's key. This process takes a newer generation; if the other one does
    /// so too, in the end one falls silent. That is one which had an answer of the other: what others tell may be of a
    /// process that ended, and who gives way to that leaves nobody.
    pub(super) fn other_process(&mut self, now: Time, other: &Announcement, answers: bool) {
        if other.life() <= self.me.life() {
            return;
        }
        if self.renewals < MAX_RENEWALS {
            self.renewals += 1;
            self.renew(now, other.generation.saturating_add(1));
        } else if answers {
            self.silent = true;
            self.out.push(Action::Displaced { by: other.address });
        } else if self.rival.as_ref().is_none_or(|rival| rival.announcement.life() < other.life()) {
            self.rival = Some(Rival { announcement: other.clone(), left: TIMES, at: now });
        }
    }

    /// Asks whether the other process is there. If it is not, this one takes a newer generation after all.
    pub(super) fn rival_tick(&mut self, now: Time) {
        let Some(rival) = self.rival.as_mut().filter(|rival| rival.at <= now) else { return };
        if rival.left > 0 {
            (rival.left, rival.at) = (rival.left - 1, now + PAUSE);
            let address = rival.announcement.address;
            self.ask(now, address, false, 0);
        } else {
            let generation = rival.announcement.generation.saturating_add(1);
            self.renew(now, generation);
        }
    }

    /// Becomes a new process in everybody's eyes: new generation, new salt, hence new keys and counters.
    pub(super) fn renew(&mut self, now: Time, generation: u32) {
        self.rival = None;
        let salt = self.random.secret();
        let Ok(me) = Announcement::new(&self.cluster, &self.node, generation, salt, &self.sign) else { return };
        self.me = Arc::new(me);
        self.sealer = Sealer::new();
        self.out.push(Action::Generation(generation));
        let claim = Claim { life: self.me.life(), incarnation: 0, state: State::Alive };
        self.members.learn(self.me.clone(), claim, now, &mut self.random);
        let (mut bytes, announcement) = (Vec::new(), self.me.bytes());
        Update::Full { incarnation: 0, state: State::Alive, announcement: &announcement }.write(&mut bytes);
        self.pass_on(now, Subject::Member(self.me.id.handle()), bytes, None);
    }
}
