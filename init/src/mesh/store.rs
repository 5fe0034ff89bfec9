//! The records that a node holds: one for each subject, and never an older one after a newer, unless who signed the newer
//! was removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::announcement::{Handle, NodeId};
use super::random::mix;
use super::record::{About, Kind, Rank, Record, Refused, about};
use crate::certificates::Unix;

/// Parts into which the store is divided for comparing: by the first six bits of [`About`].
pub const PARTS: usize = 64;
/// All records together, in bytes as sent.
pub const MAX_STORED: usize = 8 * 1024 * 1024;

struct Kept {
    rank: Rank,
    record: Arc<Record>,
}

/// The records of a node.
pub struct Store {
    kept: BTreeMap<About, Kept>,
    counts: BTreeMap<Kind, usize>,
    bytes: usize,
    removed: BTreeSet<NodeId>,
    removed_handles: BTreeSet<Handle>,
    parts: [u64; PARTS],
    digest: u64,
}

impl Default for Store {
    fn default() -> Self {
        Store {
            kept: BTreeMap::new(),
            counts: BTreeMap::new(),
            bytes: 0,
            removed: BTreeSet::new(),
            removed_handles: BTreeSet::new(),
            parts: [0; PARTS],
            digest: 0,
        }
    }
}

/// In which part a subject is.
pub(super) fn part(about: About) -> usize {
    (about.0 >> 58) as usize
}

fn size(record: &Record) -> usize {
    record.subject.len() + record.body.len() + 256
}

fn contribution(about: About, rank: Rank) -> u64 {
    mix(about.0 ^ mix(rank.epoch ^ mix(rank.hash)))
}

impl Store {
    /// Takes a verified record if it is newer than what is held about its subject.
    ///
    /// # Errors
    /// It is not, its signer was removed, or there is no room.
    pub fn accept(&mut self, record: Arc<Record>) -> Result<(), Refused> {
        let (about, rank) = (record.about(), record.rank());
        if record.kind != Kind::Removal && self.removed.contains(&record.certificate.signer) {
            return Err(Refused::SignerRemoved);
        }
        let held = self.kept.get(&about);
        if let Some(held) = held.filter(|held| held.rank >= rank) {
            return Err(Refused::Stale { found: rank.epoch, held: held.rank.epoch });
        }
        let (count, most) = (self.counts.get(&record.kind).copied().unwrap_or_default(), record.kind.most());
        let before = held.map_or(0, |kept| size(&kept.record));
        if held.is_none() && count >= most || self.bytes - before + size(&record) > MAX_STORED {
            return Err(Refused::Full { most });
        }
        self.forget(about);
        *self.counts.entry(record.kind).or_default() += 1;
        self.bytes += size(&record);
        self.turn(about, rank);
        let removed = record.removed();
        self.kept.insert(about, Kept { rank, record });
        if let Some(id) = removed {
            self.remove(id);
        }
        Ok(())
    }

    /// A removal's effect: what the removed control plane signed counts for nothing, whatever its epoch, but for removals.
    /// Whoever learns of both in the other order refuses the record, and an exchange brings both to the same.
    fn remove(&mut self, id: NodeId) {
        self.removed.insert(id);
        self.removed_handles.insert(id.handle());
        let void = |kept: &Kept| kept.record.kind != Kind::Removal && kept.record.certificate.signer == id;
        let void: Vec<About> = self.kept.iter().filter(|(_, kept)| void(kept)).map(|(about, _)| *about).collect();
        void.into_iter().for_each(|about| self.forget(about));
    }

    fn forget(&mut self, about: About) {
        if let Some(kept) = self.kept.remove(&about) {
            self.bytes -= size(&kept.record);
            *self.counts.entry(kept.record.kind).or_default() -= 1;
            self.turn(about, kept.rank);
        }
    }

    /// Adds a record to the digests, or takes it out.
    fn turn(&mut self, about: About, rank: Rank) {
        let contribution = contribution(about, rank);
        self.parts[part(about)] ^= contribution;
        self.digest ^= contribution;
    }

    /// Whether a node was removed.
    pub fn is_removed(&self, id: &NodeId) -> bool {
        self.removed.contains(id)
    }

    /// Whether a node with that handle was removed.
    pub fn is_removed_handle(&self, handle: Handle) -> bool {
        self.removed_handles.contains(&handle)
    }

    /// The record about a subject, whether it has force or not.
    pub fn get(&self, kind: Kind, subject: &[u8]) -> Option<&Arc<Record>> {
        self.by(about(kind, subject))
    }

    /// The record about a subject if it still has force.
    pub fn in_force(&self, kind: Kind, subject: &[u8], unix: Unix) -> Option<&Arc<Record>> {
        self.get(kind, subject).filter(|record| record.in_force(unix))
    }

    pub(super) fn by(&self, about: About) -> Option<&Arc<Record>> {
        self.kept.get(&about).map(|kept| &kept.record)
    }

    /// The rank that a further record about it has to exceed.
    pub fn rank(&self, about: About) -> Option<Rank> {
        self.kept.get(&about).map(|kept| kept.rank)
    }

    /// Every record, by what it is about.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.kept.values().map(|kept| &kept.record)
    }

    /// What is held above `after`, in order.
    pub(super) fn ranks_after(&self, after: Option<About>) -> impl Iterator<Item = (About, Rank)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.kept.range((from, std::ops::Bound::Unbounded)).map(|(about, kept)| (*about, kept.rank))
    }

    /// A digest of each part.
    pub fn parts(&self) -> &[u64; PARTS] {
        &self.parts
    }

    /// A digest of the whole, the same where the same records are held.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// How many records are held.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}
