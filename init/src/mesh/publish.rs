//! What a control plane publishes: which records are due, and how they are signed.

use std::collections::BTreeSet;

use super::announcement::NodeId;
use super::keys::MeshKey;
use super::record::{Certificate, Kind, Record};
use super::roll::Roll;
use super::store::Store;
use crate::certificates::{DAY, Unix};
use crate::enrolment::Sign;
use crate::plan::record::Endpoints;

/// How long the lists of API servers and of operators have force, in seconds. They are signed again when half of that is
/// over.
const LIFE: u64 = 7 * DAY;
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
    /// Who the operators are, if that is known.
    pub operators: Option<People>,
}

/// Who the operators are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People {
    /// On the cluster's record.
    pub on_record: Roll,
    /// Of this control plane's settings alone.
    pub of_settings: Roll,
}

/// A record that is not signed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it is about.
    pub kind: Kind,
    /// Which of its kind.
    pub subject: Vec<u8>,
    /// Greater than that of what is held, and of a list greater than all that was signed before it.
    pub epoch: u64,
    /// When its force ends.
    pub expiry: Unix,
    /// What it says.
    pub body: Vec<u8>,
}

/// The records that have to be signed so that the mesh says what is wanted, beside those that it holds. `me` signs them.
pub fn due(held: &Store, wanted: &Wanted, me: NodeId, now: Unix) -> Vec<Draft> {
    let missing = wanted.removed.iter().filter(|id| !held.is_removed(id)).take(REMOVALS);
    let removal = |id: &NodeId| Draft {
        kind: Kind::Removal,
        subject: id.0.to_vec(),
        epoch: 1,
        expiry: Unix::MAX,
        body: Vec::new(),
    };
    let endpoints = wanted.endpoints.as_ref().map(|servers| servers.text().into_bytes());
    let endpoints = endpoints.and_then(|body| list_due(held, Kind::Endpoints, &[], body, now));
    let operators = wanted.operators.iter().flat_map(|people| operators_due(held, people, me, now));
    missing.map(removal).chain(endpoints).chain(operators).collect()
}

fn operators_due(held: &Store, people: &People, me: NodeId, now: Unix) -> Vec<Draft> {
    let kind = Kind::Operators;
    let on_record = list_due(held, kind, &[], people.on_record.bytes(), now);
    // Settings that never named anybody need no record to say so.
    let says = !people.of_settings.is_empty() || held.get(kind, &me.0).is_some();
    let of_settings = says.then(|| list_due(held, kind, &me.0, people.of_settings.bytes(), now)).flatten();
    on_record.into_iter().chain(of_settings).collect()
}

/// A list that has force for a while, if the one that is held says something else or not for long enough.
///
/// Its epoch is the moment it is signed, or more. When a control plane is removed, nodes forget what it signed, and so no
/// longer know how far the epochs had come: counted anew from 1, a list would give way to any older one that somebody kept
/// and that another control plane signed. By the moment it outranks all that was signed before, by clocks that were right.
/// What a clock that was ahead signed is outranked as long as it, or a later one, is held; once those are forgotten, not
/// before time has passed it. Where a control plane then meets it, it signs the next above it at once.
fn list_due(held: &Store, kind: Kind, subject: &[u8], body: Vec<u8>, now: Unix) -> Option<Draft> {
    let held = held.get(kind, subject);
    let fresh = |record: &Record| {
        record.body == body
            && record.in_force(now.saturating_add(LIFE / 2))
            // By a clock that was ahead: it would never be signed again, and would have force that long after a removal.
            && record.expiry <= now.saturating_add(LIFE + DAY)
            // Counted, by an older release.
            && record.epoch.saturating_add(DAY) >= record.issued
    };
    if held.is_some_and(|record| fresh(record)) {
        return None;
    }
    let epoch = held.map_or(0, |record| record.epoch).saturating_add(1).max(now);
    Some(Draft { kind, subject: subject.to_vec(), epoch, expiry: now.saturating_add(LIFE), body })
}

/// Who the operators are by the mesh's records, as they were looked at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operators {
    /// Who.
    pub roll: Roll,
    /// When the first of these records loses its force: then they are looked at again, or nobody is an operator.
    pub until: Unix,
}

/// The operators that the mesh's records name: who is on the cluster's record, and who the settings of a control plane name
/// and was not removed. None without a record of the former that has force: then nobody says who was removed.
pub fn operators(held: &Store, now: Unix) -> Option<Operators> {
    let on_record = held.in_force(Kind::Operators, &[], now)?;
    // What a clock that was ahead signed is looked at again too.
    let (mut roll, mut until) = (on_record.operators()?, on_record.expiry.min(now.saturating_add(LIFE)));
    for record in held.records().filter(|record| !record.subject.is_empty() && record.in_force(now)) {
        if let Some(of_settings) = record.operators() {
            roll.listed.extend(of_settings.listed);
            until = until.min(record.expiry);
        }
    }
    Some(Operators { roll, until })
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
    use crate::mesh::record::Refused;
    use crate::token::{Joiner, Seed, SigningKey};

    const CLUSTER: [u8; 16] = [1; 16];
    const NOW: Unix = 1_800_000_000;
    const ME: NodeId = NodeId([2; 16]);

    fn signer(number: u8) -> SigningKey {
        Seed::new([number; 16]).join_token(Joiner::Worker).join_key()
    }

    fn sign(draft: Draft, now: Unix) -> Record {
        sign_by(ME, draft, now)
    }

    fn sign_by(who: NodeId, draft: Draft, now: Unix) -> Record {
        let (identity, key) = (signer(1), signer(2));
        let certificate = certify(&CLUSTER, who, key.public(), now, &identity);
        let record = draft.sign(&CLUSTER, certificate, now, &key);
        assert_eq!(record.verify(&CLUSTER, &identity.public()), Ok(()));
        record
    }

    fn wanted(server: &str) -> Wanted {
        Wanted {
            endpoints: Some(Endpoints::of([server.parse().expect("an address")])),
            removed: BTreeSet::from([NodeId([7; 16])]),
            operators: None,
        }
    }

    fn publish(store: &mut Store, wanted: &Wanted, now: Unix) -> Vec<(Kind, u64)> {
        let drafts = due(store, wanted, ME, now);
        let published = drafts.iter().map(|draft| (draft.kind, draft.epoch)).collect();
        for draft in drafts {
            store.accept(Arc::new(sign(draft, now))).expect("newer");
        }
        published
    }

    #[test]
    fn what_is_said_already_is_not_said_again_until_half_of_its_life_is_over() {
        let (mut store, one) = (Store::default(), wanted("192.0.2.1:6443"));
        assert_eq!(publish(&mut store, &one, NOW), [(Kind::Removal, 1), (Kind::Endpoints, NOW)]);
        assert_eq!(publish(&mut store, &one, NOW + LIFE / 2 - 1), []);
        assert_eq!(publish(&mut store, &one, NOW + LIFE / 2), [(Kind::Endpoints, NOW + LIFE / 2)]);
        // By a clock that is behind the one before.
        let next = [(Kind::Endpoints, NOW + LIFE / 2 + 1)];
        assert_eq!(publish(&mut store, &wanted("192.0.2.2:6443"), NOW), next);
        assert_eq!(publish(&mut store, &Wanted::default(), NOW), []);
        assert_eq!(endpoints(&store, NOW), wanted("192.0.2.2:6443").endpoints);
        assert_eq!(endpoints(&store, NOW + LIFE), None, "without force it leads nobody");
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

    /// Keys by their numbers; they need not be any for what is shown here.
    fn roll(listed: &[u8], removed: &[&[u8]]) -> Roll {
        let digest = |key: &&[u8]| {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
            digest.as_ref().try_into().expect("32 bytes")
        };
        Roll { listed: listed.iter().map(|key| vec![*key]).collect(), removed: removed.iter().map(digest).collect() }
    }

    fn people(on_record: Roll, of_settings: Roll) -> Wanted {
        Wanted { operators: Some(People { on_record, of_settings }), ..Wanted::default() }
    }

    #[test]
    fn operators_are_who_is_on_record_or_in_some_settings_and_was_not_removed() {
        let mut store = Store::default();
        assert_eq!(operators(&store, NOW), None);
        publish(&mut store, &people(roll(&[1], &[]), roll(&[2, 3], &[])), NOW);
        let admitted = |store: &Store, now| {
            let found = operators(store, now);
            found.map(|found| (1..=4).filter(|key| found.roll.admits(&[*key])).collect::<Vec<u8>>())
        };
        assert_eq!(admitted(&store, NOW), Some(vec![1, 2, 3]));
        assert_eq!(operators(&store, NOW).map(|found| found.until), Some(NOW + LIFE));
        // Another control plane removes one whom only this one's settings name; this one is down and says nothing more.
        let drafts = due(&store, &people(roll(&[1, 4], &[&[2]]), Roll::default()), NodeId([9; 16]), NOW);
        assert_eq!(drafts.len(), 1, "settings that name nobody are not said");
        drafts.into_iter().for_each(|draft| store.accept(Arc::new(sign(draft, NOW))).expect("newer"));
        assert_eq!(admitted(&store, NOW), Some(vec![1, 3, 4]));
        assert_eq!(admitted(&store, NOW + LIFE), None, "without force nobody is an operator");
        // What the settings name no more is said once.
        let now = people(roll(&[1, 4], &[&[2]]), Roll::default());
        assert_eq!(publish(&mut store, &now, NOW), [(Kind::Operators, NOW + 1)]);
        assert_eq!(admitted(&store, NOW), Some(vec![1, 4]));
        assert_eq!(publish(&mut store, &now, NOW), []);
    }

    /// What one control plane wants on record and signs.
    fn signed_on_record(store: &Store, listed: &[u8], who: NodeId, now: Unix) -> Arc<Record> {
        let draft = due(store, &people(roll(listed, &[]), Roll::default()), who, now).remove(0);
        assert_eq!((draft.kind, draft.subject.len()), (Kind::Operators, 0));
        Arc::new(sign_by(who, draft, now))
    }

    fn removal(who: NodeId) -> Arc<Record> {
        let wanted = Wanted { removed: BTreeSet::from([who]), ..Wanted::default() };
        Arc::new(sign(due(&Store::default(), &wanted, ME, NOW).remove(0), NOW))
    }

    #[test]
    fn a_removed_operator_is_not_back_when_who_signed_the_removal_is_removed_too() {
        let (one, two, eve) = (NodeId([21; 16]), NodeId([22; 16]), 5);
        let mut store = Store::default();
        let mut old = Vec::new();
        // Several, so that to count anew would not come up to them.
        for (at, listed) in (0..4).zip([&[1][..], &[1, eve], &[1], &[1, eve]]) {
            old.push(signed_on_record(&store, listed, two, NOW + at));
            store.accept(old[old.len() - 1].clone()).expect("newer");
        }
        let without = signed_on_record(&store, &[1], one, NOW + 60);
        store.accept(without).expect("newer");
        store.accept(removal(one)).expect("no removal is held");
        assert_eq!(operators(&store, NOW + 90), None, "what the removed one signed is void");
        let again = signed_on_record(&store, &[1], ME, NOW + 90);
        store.accept(again).expect("the first");
        for record in old {
            assert!(matches!(store.accept(record), Err(Refused::Stale { .. })));
        }
        assert!(operators(&store, NOW + 90).is_some_and(|found| !found.roll.admits(&[eve]) && found.roll.admits(&[1])));
    }

    #[test]
    fn api_servers_that_were_are_not_back_when_who_signed_the_newer_is_removed() {
        let (one, two) = (NodeId([21; 16]), NodeId([22; 16]));
        let mut store = Store::default();
        let sign = |store: &Store, server, who, now| {
            let servers = Wanted { removed: BTreeSet::new(), ..wanted(server) };
            Arc::new(sign_by(who, due(store, &servers, who, now).remove(0), now))
        };
        for (server, now) in [("192.0.2.1:6443", NOW), ("192.0.2.2:6443", NOW + 1)] {
            store.accept(sign(&store, server, two, now)).expect("newer");
        }
        let old = store.get(Kind::Endpoints, &[]).expect("held").clone();
        store.accept(sign(&store, "192.0.2.3:6443", one, NOW + 60)).expect("newer");
        store.accept(removal(one)).expect("no removal is held");
        store.accept(sign(&store, "192.0.2.3:6443", ME, NOW + 90)).expect("the first");
        assert!(store.accept(old).is_err());
        assert_eq!(endpoints(&store, NOW + 90), wanted("192.0.2.3:6443").endpoints);
    }

    #[test]
    fn what_an_older_release_counted_is_signed_again_once() {
        let (mut store, all) = (Store::default(), people(roll(&[1], &[]), Roll::default()));
        let counted = Draft { epoch: 5, ..due(&store, &all, ME, NOW).remove(0) };
        store.accept(Arc::new(sign(counted, NOW))).expect("the first");
        assert_eq!(publish(&mut store, &all, NOW + 1), [(Kind::Operators, NOW + 1)]);
        // Between the draft and its signature the second may end.
        let late = sign(due(&Store::default(), &all, ME, NOW).remove(0), NOW + 2);
        let mut store = Store::default();
        store.accept(Arc::new(late)).expect("the first");
        assert_eq!(publish(&mut store, &all, NOW + 2), []);
    }

    #[test]
    fn what_a_clock_that_was_ahead_signed_is_signed_again() {
        let (mut store, all, ahead) = (Store::default(), people(roll(&[1], &[]), Roll::default()), NOW + 365 * DAY);
        publish(&mut store, &all, ahead);
        assert_eq!(operators(&store, NOW).map(|found| found.until), Some(NOW + LIFE));
        assert_eq!(publish(&mut store, &all, NOW), [(Kind::Operators, ahead + 1)]);
        assert_eq!(publish(&mut store, &all, NOW), []);
        assert_eq!(operators(&store, NOW + LIFE), None);
        // A clock that is a little ahead is no reason.
        let mut store = Store::default();
        publish(&mut store, &all, NOW + DAY);
        assert_eq!(publish(&mut store, &all, NOW), []);
    }

    #[test]
    fn settings_are_said_by_who_has_them_alone() {
        let mut draft = due(&Store::default(), &people(Roll::default(), roll(&[2], &[])), ME, NOW).remove(1);
        assert_eq!(draft.subject, ME.0);
        draft.subject = vec![8; 16];
        assert_eq!(Record::parse(&sign(draft, NOW).bytes()).map_err(|why| why.0), Err("subject"));
    }
}
