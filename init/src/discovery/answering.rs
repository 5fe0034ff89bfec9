//! The control plane's side: who is answered, and how often.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::message::{Answer, Asked, Key};
use crate::enrolment::pace::Pace;
use crate::token::{SECRET, fingerprint};

/// Answers that one source gets in a burst, and then each second.
const OF_ONE: (u32, u32) = (16, 2);
/// Answers to everybody, as well.
const OF_ALL: (u32, u32) = (64, 32);
/// Queries whose nonces are remembered: each is answered once.
const REMEMBERED: usize = 256;
/// How often it is told at most what got no answer.
const TELL: Duration = Duration::from_secs(60);

/// What a control plane answers with.
pub struct Answering {
    keys: [Key; 2],
    me: Answer,
    answered: VecDeque<[u8; 32]>,
    of_one: Pace<IpAddr>,
    of_all: Pace<()>,
    unanswered: Unanswered,
    /// When that was told last.
    told: Option<Duration>,
}

/// Queries that opened and got no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Unanswered {
    /// Sent again, as they were before.
    again: u64,
    /// More than are answered.
    beyond: u64,
    /// Where the last of them says that it comes from.
    last: Option<IpAddr>,
}

impl Answering {
    /// Answers `me` to who knows the fingerprint of one of the cluster's two keys.
    pub fn new(me: Answer, founding_key: &[u8; 32], identity_key: &[u8; 32]) -> Self {
        let key = |public: &[u8; 32]| -> [u8; SECRET] { fingerprint(public) };
        Answering {
            keys: [Key::of(&key(founding_key)), Key::of(&key(identity_key))],
            me,
            answered: VecDeque::new(),
            of_one: Pace::new(OF_ONE.0, OF_ONE.1),
            of_all: Pace::new(OF_ALL.0, OF_ALL.1),
            unanswered: Unanswered::default(),
            told: None,
        }
    }

    /// The answer to a message at `now`, on any clock that only runs forward; none for what gets none. `random` is never
    /// used twice.
    ///
    /// Paces are looked at only once a query has opened: noise in a machine's name takes nothing from it.
    pub fn answer(&mut self, now: Duration, from: IpAddr, message: &[u8], random: &[u8; 32]) -> Option<Vec<u8>> {
        let asked = Asked::open(&self.keys, message)?;
        if self.answered.contains(&asked.nonce) {
            self.unanswered.again += 1;
            self.unanswered.last = Some(from);
            return None;
        }
        if !self.of_one.allow(now, from) || !self.of_all.allow(now, ()) {
            self.unanswered.beyond += 1;
            self.unanswered.last = Some(from);
            return None;
        }
        self.answered.truncate(REMEMBERED - 1);
        self.answered.push_front(asked.nonce);
        Some(asked.seal(&self.me, random))
    }

    /// What an operator should hear of queries that got no answer since the last time; once a minute at most. What no key
    /// opens is not among it: another cluster's machines may ask on the same network.
    pub fn complaint(&mut self, now: Duration) -> Option<String> {
        let early = self.told.is_some_and(|told| now.saturating_sub(told) < TELL);
        let last = self.unanswered.last.filter(|_| !early)?;
        self.told = Some(now);
        let Unanswered { again, beyond, .. } = std::mem::take(&mut self.unanswered);
        let kinds = [
            (again, "that were recorded and sent again, or came twice"),
            (beyond, "that were more than are answered in a second"),
        ];
        let told = kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let told = told.collect::<Vec<_>>().join(", ");
        Some(format!("gave no answer to queries: {told}. The last says that it comes from {last}"))
    }
}
