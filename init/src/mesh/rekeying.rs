//! How control planes come to one new mesh key after a removal. Each epoch's key may be made once, or the mesh falls into
//! two parts; so it is claimed by an object that the cluster's API compares and swaps. Pure: it says what to do.
//!
//! 1. The object's epoch is raised: whoever does that makes this epoch's key.
//! 2. The key's record and the key go to the mesh.
//! 3. Once the key is in use here, the removals that it answers are written into the object.
//!
//! Who dies between leaves a claim. Somebody makes the next epoch's key when the claim is a minute old.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::announcement::NodeId;
use crate::certificates::Unix;
use crate::enrolment::objects::{self, KIND, NAMESPACE};

/// The object's name, in the namespace of enrolment.
pub const NAME: &str = "mesh-key";
/// How long a claim keeps others from making a key, in seconds.
const CLAIM: u64 = 60;

/// What the cluster says of the mesh key: the object. Never the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rekeying {
    /// The newest epoch that somebody makes, or made, a key for.
    pub epoch: u64,
    /// When, until it is done; in seconds since 1970.
    pub claimed: Option<Unix>,
    /// The removals that a key was made after.
    pub removed: BTreeSet<NodeId>,
    /// What the server needs back, when the object is replaced.
    pub version: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Every removal was answered by a new key.
    Nothing,
    /// Somebody makes a key.
    Wait,
    /// Write this, and if nobody was faster make the key of its epoch.
    Claim(Rekeying),
    /// Write this: the key is made.
    Settle(Rekeying),
}

/// A claim of this control plane's, and the removals that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mine {
    /// The key's epoch.
    pub epoch: u64,
    /// Who was removed when it was claimed.
    pub removed: BTreeSet<NodeId>,
}

/// What to do, by the object, the removals there are, the epoch of the key that this node has, and its own claim.
pub fn next(found: &Rekeying, removed: &BTreeSet<NodeId>, held: u64, mine: Option<&Mine>, now: Unix) -> Next {
    if let Some(mine) = mine.filter(|mine| mine.epoch <= held && found.epoch >= mine.epoch && found.claimed.is_some()) {
        let claimed = if found.epoch == mine.epoch { None } else { found.claimed };
        // What was removed and is no more said to be needs no place here.
        let kept = found.removed.union(&mine.removed).filter(|id| removed.contains(id)).copied().collect();
        return Next::Settle(Rekeying { claimed, removed: kept, ..found.clone() });
    }
    if removed.is_subset(&found.removed) {
        return Next::Nothing;
    }
    if found.claimed.is_some_and(|claimed| now.abs_diff(claimed) < CLAIM) {
        return Next::Wait;
    }
    let epoch = found.epoch.max(held).saturating_add(1);
    Next::Claim(Rekeying { epoch, claimed: Some(now), ..found.clone() })
}

impl Rekeying {
    /// The object.
    pub fn object(&self) -> Value {
        let removed: Vec<String> = self.removed.iter().map(|id| objects::hex(&id.0)).collect();
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {KIND: NAME}},
            "data": {
                "epoch": self.epoch.to_string(),
                "claimed": self.claimed.map(|at| at.to_string()).unwrap_or_default(),
                "removed": removed.join(" "),
            },
        });
        objects::set_version(&mut object, self.version.as_ref());
        object
    }

    /// Reads an object.
    ///
    /// # Errors
    /// In words, with the fix: which field is not what kubeboot wrote.
    pub fn read(object: &Value) -> Result<Self, String> {
        let wrong = |field: &str| {
            format!(
                "ConfigMap {NAMESPACE}/{NAME} is damaged: its {field} is not what kubeboot wrote. Fix: kubectl -n \
                 {NAMESPACE} delete configmap {NAME}; the mesh then gets a new key"
            )
        };
        let text = |field: &str| object.pointer(&format!("/data/{field}")).and_then(Value::as_str).ok_or(wrong(field));
        let claimed = match text("claimed")? {
            "" => None,
            at => Some(at.parse().map_err(|_| wrong("claimed"))?),
        };
        let removed = text("removed")?.split_whitespace().map(|id| objects::unhex(id).map(NodeId));
        Ok(Rekeying {
            epoch: text("epoch")?.parse().map_err(|_| wrong("epoch"))?,
            claimed,
            removed: removed.collect::<Option<_>>().ok_or_else(|| wrong("removed"))?,
            version: objects::version(object),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Unix = 1_800_000_000;

    fn ids(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId([*number; 16])).collect()
    }

    #[test]
    fn a_removal_is_claimed_made_and_settled_and_then_there_is_nothing_to_do() {
        let (none, removed) = (Rekeying::default(), ids(&[1]));
        assert_eq!(next(&none, &ids(&[]), 1, None, NOW), Next::Nothing);
        let Next::Claim(claim) = next(&none, &removed, 1, None, NOW) else { panic!("expected a claim") };
        assert_eq!((claim.epoch, claim.claimed), (2, Some(NOW)));
        let mine = Mine { epoch: 2, removed: removed.clone() };
        assert_eq!(next(&claim, &removed, 1, Some(&mine), NOW + 5), Next::Wait, "its key is not in use yet");
        let Next::Settle(settled) = next(&claim, &removed, 2, Some(&mine), NOW + 5) else { panic!("expected an end") };
        assert_eq!((settled.epoch, settled.claimed, &settled.removed), (2, None, &removed));
        assert_eq!(next(&settled, &removed, 2, Some(&mine), NOW + 6), Next::Nothing);
        let Next::Claim(second) = next(&settled, &ids(&[1, 2]), 2, None, NOW + 7) else { panic!("expected a claim") };
        assert_eq!(second.epoch, 3, "a further removal waits for nothing");
    }

    #[test]
    fn who_sees_a_claim_waits_a_minute_and_then_makes_the_next_epochs_key() {
        let claim = Rekeying { epoch: 2, claimed: Some(NOW), ..Rekeying::default() };
        let removed = ids(&[1]);
        for held in [1, 2] {
            assert_eq!(next(&claim, &removed, held, None, NOW + CLAIM - 1), Next::Wait);
        }
        let Next::Claim(next) = next(&claim, &removed, 1, None, NOW + CLAIM) else { panic!("expected a claim") };
        assert_eq!(next.epoch, 3, "what the first has made by then may be known to some");
    }

    #[test]
    fn a_removal_that_came_while_a_key_was_made_gets_its_own() {
        let claim = Rekeying { epoch: 2, claimed: Some(NOW), ..Rekeying::default() };
        let (mine, both) = (Mine { epoch: 2, removed: ids(&[1]) }, ids(&[1, 2]));
        let Next::Settle(settled) = next(&claim, &both, 2, Some(&mine), NOW) else { panic!("expected an end") };
        assert_eq!(settled.removed, ids(&[1]));
        assert!(matches!(next(&settled, &both, 2, None, NOW), Next::Claim(claim) if claim.epoch == 3));
    }

    #[test]
    fn the_object_reads_back_and_a_damaged_one_says_its_fix() {
        let version = Some("5".to_owned());
        for claimed in [None, Some(NOW)] {
            let rekeying = Rekeying { epoch: 7, claimed, removed: ids(&[1, 2]), version: version.clone() };
            assert_eq!(Rekeying::read(&rekeying.object()), Ok(rekeying));
        }
        let mut object = Rekeying::default().object();
        object["data"]["removed"] = json!("0011");
        let why = Rekeying::read(&object).expect_err("no id");
        assert!(why.contains("its removed") && why.contains("delete configmap mesh-key"), "{why}");
    }
}
