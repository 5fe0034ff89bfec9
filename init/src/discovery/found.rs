//! Who has answered.

use std::collections::BTreeSet;

use super::{Answer, ClusterId};
use crate::enrolment::objects::hex;
use crate::enrolment::seeking::Host;

/// Answers that are kept at most.
pub const MOST: usize = 16;
/// Of one cluster at most: its control planes never hide that there is another cluster.
pub const MOST_OF_ONE: usize = 8;

/// The control planes that have answered, sorted by cluster, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found(BTreeSet<Answer>);

impl Found {
    /// Keeps an answer, while there is room.
    pub fn add(&mut self, answer: Answer) {
        let of_one = self.0.iter().filter(|one| one.cluster == answer.cluster).count();
        if self.0.len() < MOST && of_one < MOST_OF_ONE {
            self.0.insert(answer);
        }
    }

    /// Keeps only the answers of some clusters.
    pub fn retain(&mut self, keep: impl Fn(&ClusterId) -> bool) {
        self.0.retain(|answer| keep(&answer.cluster));
    }

    /// The clusters, each once.
    pub fn clusters(&self) -> Vec<ClusterId> {
        self.0.iter().map(|answer| answer.cluster).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whom to ask to be admitted.
    pub fn hosts(&self) -> Vec<Host> {
        self.0.iter().map(|one| Host { name: one.address.ip().to_string(), port: one.address.port() }).collect()
    }

    /// Each cluster in words: its id and where it answered from.
    pub fn words(&self) -> Vec<String> {
        let addresses = |cluster: &ClusterId| -> Vec<String> {
            self.0.iter().filter(|one| one.cluster == *cluster).map(|one| one.address.to_string()).collect()
        };
        let line = |cluster: &ClusterId| format!("{} at {}", hex(cluster), addresses(cluster).join(", "));
        self.clusters().iter().map(line).collect()
    }
}
