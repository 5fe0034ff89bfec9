//! What a control plane publishes: which records are due, and how they are signed.

use std::collections::BTreeSet;

use super::announcement::NodeId;
use super::keys::MeshKey;
use super::record::{Certificate, Kind, Record};
use super::store::Store;
use crate::certificates::{DAY, Unix};
use crate::enrolment::Sign;
use crate::plan::record::Endpoints;

/// How long the list of API servers has force, in seconds. It is signed again when half of that is over.
const ENDPOINTS_LIFE: u64 = 7 * DAY;
/// How long a control plane may sign records with one record key, in seconds.
pub const SIGNER_LIFE: u64 = 30 * DAY;
/// Removals that are published in one go; what is left comes with the next.
const REMOVALS: usize = 64;

/// What the cluster says, as its API has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The API servers, if they are known.
    pub endpoints: Option<Endpoints>,
    /// Whose node keys are removed.
    pub removed: BTreeSet<NodeId>,
}

/// A record that is not signed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is about.
    pub kind: Kind,
    /// Which of its kind.
    pub subject: Vec<u8>,
    /// Greater than that of what is held.
    pub epoch: u64,
    /// When its force ends.
    pub expiry: Unix,
    /// What it says.
    pub body: Vec<u8>,
}

/// The records that have to be signed so that the mesh says what is wanted, beside those that it holds.
pub fn due(held: &Store, wanted: &Wanted, now: Unix) -> Vec<Draft> {
    let missing = wanted.removed.iter().filter(|id| !held.is_removed(id)).take(REMOVALS);
    let removal = |id: &NodeId| Draft {
        kind: Kind::Removal,
        subject: id.0.to_vec(),
        epoch: 1,
        expiry: Unix::MAX,
        body: Vec::new(),
    };
    let endpoints = wanted.endpoints.as_ref().and_then(|endpoints| endpoints_due(held, endpoints, now));
    missing.map(removal).chain(endpoints).collect()
}

fn endpoints_due(held: &Store, wanted: &Endpoints, now: Unix) -> Option<Draft> {
    let (kind, body, expiry) = (Kind::Endpoints, wanted.text().into_bytes(), now.saturating_add(ENDPOINTS_LIFE));
    let held = held.get(kind, &[]);
    let fresh = |record: &Record| record.body == body && record.in_force(now.saturating_add(ENDPOINTS_LIFE / 2));
    if held.is_some_and(|record| fresh(record)) {
        return None;
    }
    let epoch = held.map_or(0, |record| record.epoch).saturating_add(1);
    Some(Draft { kind, subject: Vec::new(), epoch, expiry, body })
}

/// The API servers that the mesh's record names, if it has force.
pub fn endpoints(held: &Store, now: Unix) -> Option<Endpoints> {
    held.in_force(Kind::Endpoints, &[], now).and_then(|record| Endpoints::parse(&record.body).ok())
}

/// The record that commits to a mesh key. After a removal the key before has no grace.
pub fn of_key(key: &MeshKey, grace: bool) -> Draft {
    let mut body = key.commitment().to_vec();
    body.push(u8::from(grace));
    Draft { kind: Kind::MeshKey, subject: Vec::new(), epoch: key.epoch, expiry: Unix::MAX, body }
}

/// The identity's word that this control plane may sign records with that record key.
pub fn certify(cluster: &[u8; 16], signer: NodeId, key: [u8; 32], now: Unix, identity: &dyn Sign) -> Certificate {
    let not_after = now.saturating_add(SIGNER_LIFE);
    let signature = identity.sign(&Certificate::signed(cluster, &signer, &key, not_after));
    Certificate { signer, key, not_after, signature }
}

impl Draft {
    /// Signs it with the record key that the certificate is for.
    pub fn sign(self, cluster: &[u8; 16], certificate: Certificate, now: Unix, record_key: &dyn Sign) -> Record {
        let Draft { kind, subject, epoch, expiry, body } = self;
        let (cluster, signature) = (*cluster, [0; 64]);
        let mut record = Record { kind, cluster, subject, epoch, issued: now, expiry, body, certificate, signature };
        record.signature = record_key.sign(&record.signed());
        record
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;
    use crate::token::{Joiner, Seed, SigningKey};

    const CLUSTER: [u8; 16] = [1; 16];
    const NOW: Unix = 1_800_000_000;

    fn signer(number: u8) -> SigningKey {
        Seed::new([number; 16]).join_token(Joiner::Worker).join_key()
    }

    fn sign(draft: Draft, now: Unix) -> Record {
        let (identity, key) = (signer(1), signer(2));
        let certificate = certify(&CLUSTER, NodeId([2; 16]), key.public(), now, &identity);
        let record = draft.sign(&CLUSTER, certificate, now, &key);
        assert_eq!(record.verify(&CLUSTER, &identity.public()), Ok(()));
        record
    }

    fn wanted(server: &str) -> Wanted {
        Wanted {
            endpoints: Some(Endpoints::of([server.parse().expect("an address")])),
            removed: BTreeSet::from([NodeId([7; 16])]),
        }
    }

    fn publish(store: &mut Store, wanted: &Wanted, now: Unix) -> Vec<(Kind, u64)> {
        let drafts = due(store, wanted, now);
        let published = drafts.iter().map(|draft| (draft.kind, draft.epoch)).collect();
        for draft in drafts {
            store.accept(Arc::new(sign(draft, now))).expect("newer");
        }
        published
    }

    #[test]
    fn what_is_said_already_is_not_said_again_until_half_of_its_life_is_over() {
        let (mut store, one) = (Store::default(), wanted("192.0.2.1:6443"));
        assert_eq!(publish(&mut store, &one, NOW), [(Kind::Removal, 1), (Kind::Endpoints, 1)]);
        assert_eq!(publish(&mut store, &one, NOW + ENDPOINTS_LIFE / 2 - 1), []);
        assert_eq!(publish(&mut store, &one, NOW + ENDPOINTS_LIFE / 2), [(Kind::Endpoints, 2)]);
        assert_eq!(publish(&mut store, &wanted("192.0.2.2:6443"), NOW), [(Kind::Endpoints, 3)]);
        assert_eq!(publish(&mut store, &Wanted::default(), NOW), []);
        assert_eq!(endpoints(&store, NOW), wanted("192.0.2.2:6443").endpoints);
        assert_eq!(endpoints(&store, NOW + ENDPOINTS_LIFE), None, "without force it leads nobody");
    }

    #[test]
    fn a_mesh_key_is_committed_to_in_the_form_that_nodes_take() {
        let key = MeshKey::new(4, Zeroizing::new([4; 32]));
        let record = sign(of_key(&key, false), NOW);
        assert_eq!((record.epoch, record.mesh_key()), (4, Some((key.commitment(), false))));
        assert_eq!(Record::parse(&record.bytes()).as_ref(), Ok(&record));
    }

    #[test]
    fn many_removals_are_said_a_part_at_a_time() {
        let (mut store, mut all) = (Store::default(), Wanted::default());
        all.removed.extend((0..100).map(|number| NodeId([number; 16])));
        assert_eq!([0, 0, 0].map(|_| publish(&mut store, &all, NOW).len()), [REMOVALS, 100 - REMOVALS, 0]);
    }
}
