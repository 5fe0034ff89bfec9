//! What a machine that joined etcd keeps of its membership: `/var/lib/kubeboot/etcd.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Member, initial_cluster};

/// A membership. On disk before etcd starts for the first time: a machine that has data of etcd's and no such record did
/// not join (it founded), or was interrupted before it was a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Membership {
    /// Version of this record's form.
    pub format: u32,
    /// The member's id.
    pub id: u64,
    /// Whether it has a vote: only then the API server beside it can serve.
    pub voter: bool,
    /// Who is a member beside this one, and itself: name and peer URL. etcd wants to hear this at its first start. Until then
    /// it follows the members that there are; later etcd passes it over, and it stays as it is, so that the pod does.
    pub initial_cluster: BTreeMap<String, String>,
}

/// The form that this version writes.
const FORMAT: u32 = 1;

impl Membership {
    /// A new learner's.
    pub fn learner(id: u64, name: &str, peer: &str, members: &[Member]) -> Self {
        Membership { format: FORMAT, id, voter: false, initial_cluster: initial_cluster((name, peer), members) }
    }

    /// The same member with a vote.
    #[must_use]
    pub fn promoted(self) -> Self {
        Membership { voter: true, ..self }
    }

    /// The record as it is written.
    pub fn text(&self) -> String {
        format!("{}\n", serde_json::to_string_pretty(self).unwrap_or_default())
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Membership = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("expected format {FORMAT}, found {}", record.format));
        }
        Ok(record)
    }
}
