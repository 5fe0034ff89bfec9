//! The control planes' watch for another cluster of their seed.

use std::time::Duration;

use super::{ClusterId, Found, words};
use crate::certificates::Unix;

/// Between queries while the cluster is young: the other founder was started about then.
const OFTEN: Duration = Duration::from_secs(30);
/// Between queries later on.
const RARELY: Duration = Duration::from_secs(600);
/// How long a cluster is young, in seconds.
const YOUNG: u64 = 24 * 3600;
/// How often it is said again while it lasts.
const AGAIN: Duration = Duration::from_secs(600);
/// Queries in vain after which the other cluster counts as gone: packets are lost.
const IN_VAIN: u32 = 3;

/// Something to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// There is another cluster of the same seed; in words.
    Two(String),
    /// It does not answer any more; in words.
    Gone(String),
    /// What asked and got no answer; in words.
    Unanswered(String),
}

/// Whether another cluster answers to this one's founding key.
pub struct Watch {
    own: ClusterId,
    founded: Unix,
    /// The other clusters that answered last.
    others: Found,
    in_vain: u32,
    /// When it was said last.
    said: Duration,
}

impl Watch {
    /// Of the cluster with this id, founded then.
    pub fn new(own: ClusterId, founded: Unix) -> Self {
        Watch { own, founded, others: Found::default(), in_vain: 0, said: Duration::ZERO }
    }

    /// How long until the next query. `jitter` is random: control planes do not ask in step.
    pub fn pause(&self, now: Unix, jitter: u8) -> Duration {
        let young = now.saturating_sub(self.founded) < YOUNG;
        let pause = if young || self.has_twin() { OFTEN } else { RARELY };
        pause.mul_f64(1.0 + f64::from(jitter) / 1024.0)
    }

    /// Whether another cluster answered.
    pub fn has_twin(&self) -> bool {
        self.others != Found::default()
    }

    /// Whether an answer is worth keeping: the own cluster's control planes are expected.
    pub fn concerns(&self, cluster: &ClusterId) -> bool {
        *cluster != self.own
    }

    /// What a query at `now` (any clock that only runs forward) came to.
    pub fn heard(&mut self, now: Duration, others: Found) -> Option<News> {
        if others == Found::default() {
            self.in_vain += 1;
            if !self.has_twin() || self.in_vain < IN_VAIN {
                return None;
            }
            let gone = std::mem::take(&mut self.others);
            return Some(News::Gone(words::gone(&gone)));
        }
        self.in_vain = 0;
        let new = others.clusters() != self.others.clusters();
        self.others = others;
        if !new && now.saturating_sub(self.said) < AGAIN {
            return None;
        }
        self.said = now;
        Some(News::Two(words::two(&self.own, &self.others)))
    }
}
