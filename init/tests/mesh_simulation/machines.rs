//! Machines: what is on their disks, the process that runs on them, and who signs.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use kubeboot::mesh::record::{About, Certificate, Kind};
use kubeboot::mesh::{Announcement, Authority, Mesh, MeshKey, Node, NodeId, Record, Refused, Setup, Time, Verifier};
use zeroize::Zeroizing;

/// A small generator of numbers (SplitMix64): the world's, not the mesh's.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
    }

    /// True `share` times in a million.
    pub fn millionth(&mut self, share: u64) -> bool {
        self.roll() % 1_000_000 < share
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.roll() as u8)
    }
}

/// A key pair for who signs.
pub struct Signer(Ed25519KeyPair);

impl Signer {
    pub fn new(seed: [u8; 32]) -> Self {
        Signer(Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes"))
    }

    pub fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("32 bytes")
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("64 bytes")
    }
}

/// The real verifier, with a memory that all machines share: a world of thousands verifies each signature once.
#[derive(Clone)]
pub struct Remembering {
    pub authority: Authority,
    announcements: Arc<Mutex<HashMap<[u8; 64], Arc<Announcement>>>>,
    records: Arc<Mutex<HashMap<[u8; 64], Arc<Record>>>>,
}

impl Remembering {
    pub fn new(authority: Authority) -> Self {
        Remembering { authority, announcements: Arc::default(), records: Arc::default() }
    }
}

impl Verifier for Remembering {
    fn announcement(&self, announcement: Announcement) -> Option<Arc<Announcement>> {
        let mut known = self.announcements.lock().expect("one thread");
        if let Some(known) = known.get(&announcement.signature).filter(|known| ***known == announcement) {
            return Some(known.clone());
        }
        let verified = self.authority.announcement(announcement)?;
        known.insert(verified.signature, verified.clone());
        Some(verified)
    }

    fn record(&self, record: Record) -> Result<Arc<Record>, Refused> {
        let mut known = self.records.lock().expect("one thread");
        if let Some(known) = known.get(&record.signature).filter(|known| ***known == record) {
            return Ok(known.clone());
        }
        let verified = self.authority.record(record)?;
        known.insert(verified.signature, verified.clone());
        Ok(verified)
    }
}

/// What survives a restart.
#[derive(Clone)]
pub struct Disk {
    pub generation: u32,
    pub key: MeshKey,
    pub records: BTreeMap<About, Arc<Record>>,
}

/// A process of the mesh.
pub struct Process {
    pub number: u64,
    pub mesh: Mesh,
    pub wake: Time,
    /// How far its clock is ahead of the world's.
    pub ahead: Time,
    /// Until when it stands still.
    pub still_until: Time,
    pub started: Time,
}

/// A machine.
pub struct Machine {
    pub node_seed: [u8; 32],
    pub id: NodeId,
    pub address: SocketAddr,
    pub disk: Disk,
    pub process: Option<Process>,
    /// Which side of a partition it is on.
    pub side: u8,
    /// Whether it is a copy of another machine.
    pub copy: bool,
    /// Whether its node key was removed from the cluster.
    pub removed: bool,
    /// Whether it is of another cluster: it says so in what it signs, and believes whatever it is told.
    pub foreign: bool,
}

pub const CLUSTER: [u8; 16] = *b"simulated mesh 1";
/// The cluster of foreign machines.
pub const FOREIGN: [u8; 16] = *b"simulated mesh 2";

/// Who believes everything: what an attacker holds is not held up by its own checks.
pub struct Credulous;

impl Verifier for Credulous {
    fn announcement(&self, announcement: Announcement) -> Option<Arc<Announcement>> {
        Some(Arc::new(announcement))
    }

    fn record(&self, record: Record) -> Result<Arc<Record>, Refused> {
        Ok(Arc::new(record))
    }
}

impl Machine {
    pub fn new(dice: &mut Dice, address: SocketAddr, key: MeshKey) -> Self {
        let node_seed = dice.bytes();
        let id = NodeId::of(&Signer::new(node_seed).public());
        let disk = Disk { generation: 0, key, records: BTreeMap::new() };
        Machine { node_seed, id, address, disk, process: None, side: 0, copy: false, removed: false, foreign: false }
    }

    /// Starts a process with what the disk says.
    pub fn start(&mut self, now: Time, number: u64, dice: &mut Dice, verifier: &Remembering) {
        self.disk.generation += 1;
        let signer = Signer::new(self.node_seed);
        let node = Node {
            key: signer.public(),
            address: self.address,
            control_plane: false,
            name: format!("machine-{}", self.address.ip().to_string().replace('.', "-")).into_boxed_str(),
        };
        let setup = Setup {
            cluster: if self.foreign { FOREIGN } else { CLUSTER },
            node,
            generation: self.disk.generation,
            seed: dice.bytes(),
            key: self.disk.key.clone(),
            sign: Box::new(move |message| signer.sign(message)),
            verifier: if self.foreign { Box::new(Credulous) } else { Box::new(verifier.clone()) },
            records: self.disk.records.values().map(|record| record.bytes()).collect(),
        };
        let mesh = Mesh::new(now, setup).expect("a name that fits");
        self.process = Some(Process { number, mesh, wake: Time::MAX, ahead: 0, still_until: 0, started: now });
    }

    /// Whether a process runs here that takes part.
    pub fn is_up(&self) -> bool {
        !self.removed && !self.foreign && self.process.as_ref().is_some_and(|process| !process.mesh.is_silent())
    }
}

/// The control planes' side: the identity, a record key, and what was signed.
pub struct Signers {
    pub identity: Signer,
    record_key: Signer,
    /// The control plane whose record key it is.
    pub signer: NodeId,
    pub epochs: BTreeMap<Kind, u64>,
    pub newest_key: MeshKey,
    /// The commitment of each key that was made.
    pub made: BTreeMap<u64, [u8; 32]>,
    /// Key epochs whose predecessors have no grace.
    pub without_grace: Vec<u64>,
}

impl Signers {
    pub fn new(dice: &mut Dice) -> Self {
        let (identity, record_key) = (Signer::new(dice.bytes()), Signer::new(dice.bytes()));
        let signer = NodeId(dice.bytes());
        let newest_key = MeshKey::new(1, Zeroizing::new(dice.bytes()));
        let made = [(1, newest_key.commitment())].into();
        Signers { identity, record_key, signer, epochs: BTreeMap::new(), newest_key, made, without_grace: Vec::new() }
    }

    pub fn next_epoch(&mut self, kind: Kind) -> u64 {
        let epoch = self.epochs.entry(kind).or_insert(if kind == Kind::MeshKey { 1 } else { 0 });
        *epoch += 1;
        *epoch
    }

    pub fn record(&self, kind: Kind, subject: &[u8], epoch: u64, body: Vec<u8>) -> Record {
        self.record_of(CLUSTER, kind, subject, epoch, body)
    }

    /// A record as these signers make it for a cluster.
    pub fn record_of(&self, cluster: [u8; 16], kind: Kind, subject: &[u8], epoch: u64, body: Vec<u8>) -> Record {
        let (key, not_after) = (self.record_key.public(), 2_000_000_000);
        let certificate = Certificate {
            signer: self.signer,
            key,
            not_after,
            signature: self.identity.sign(&Certificate::signed(&cluster, &self.signer, &key, not_after)),
        };
        let mut record = Record {
            kind,
            cluster,
            subject: subject.to_vec(),
            epoch,
            issued: 1_800_000_000,
            expiry: if kind == Kind::Removal { u64::MAX } else { 1_900_000_000 },
            body,
            certificate,
            signature: [0; 64],
        };
        record.signature = self.record_key.sign(&record.signed());
        record
    }

    /// A new mesh key and the record that commits to it.
    pub fn rekey(&mut self, dice: &mut Dice, grace: bool) -> (Record, MeshKey) {
        let epoch = self.next_epoch(Kind::MeshKey);
        let key = MeshKey::new(epoch, Zeroizing::new(dice.bytes()));
        let mut body = key.commitment().to_vec();
        body.push(u8::from(grace));
        if !grace {
            self.without_grace.push(epoch);
        }
        self.made.insert(epoch, key.commitment());
        self.newest_key = key.clone();
        (self.record(Kind::MeshKey, &[], epoch, body), key)
    }
}
