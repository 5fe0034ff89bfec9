//! Records: what a control plane signed and the mesh carries. Gossip only advises; a record binds.

use aws_lc_rs::digest;

use super::announcement::NodeId;
use super::roll::Roll;
use super::wire::{Malformed, Reader, put_bytes};
use crate::certificates::{Unix, check};

/// Longest body, in bytes.
pub const MAX_RECORD_BODY: usize = 16 * 1024;
/// Longest subject, in bytes.
const MAX_SUBJECT: usize = 64;
/// Longest encoded record.
pub const MAX_RECORD: usize = 1 + 1 + 16 + 1 + MAX_SUBJECT + 24 + 2 + MAX_RECORD_BODY + CERTIFICATE + 64;
const CERTIFICATE: usize = 16 + 32 + 8 + 64;
/// The form that this version writes and reads.
const FORMAT: u8 = 1;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Where the API servers are.
    Endpoints,
    /// The authorities' certificates.
    CaBundle,
    /// A node key that is a member no more, for good. The subject is the node's id.
    Removal,
    /// How a release fared. The subject is the release's digest.
    Verdict,
    /// Which mesh key is the newest: its commitment, and whether the one before has a grace. Its epoch is the key's.
    MeshKey,
    /// Who the operators are: without a subject those on the cluster's record and who was removed, else those that the
    /// settings of one control plane name. That subject is its node id, and nobody else signs it.
    Operators,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] =
        [Kind::Endpoints, Kind::CaBundle, Kind::Removal, Kind::Verdict, Kind::MeshKey, Kind::Operators];

    fn number(self) -> u8 {
        match self {
            Kind::Endpoints => 1,
            Kind::CaBundle => 2,
            Kind::Removal => 3,
            Kind::Verdict => 4,
            Kind::MeshKey => 5,
            Kind::Operators => 6,
        }
    }

    /// How many subjects of a kind a node keeps.
    pub fn most(self) -> usize {
        match self {
            Kind::Endpoints | Kind::CaBundle | Kind::MeshKey => 1,
            Kind::Removal => 16_384,
            Kind::Verdict => 1_024,
            Kind::Operators => 65,
        }
    }

    fn subject_fits(self, subject: &[u8]) -> bool {
        match self {
            Kind::Endpoints | Kind::CaBundle | Kind::MeshKey => subject.is_empty(),
            Kind::Removal => subject.len() == 16,
            Kind::Verdict => (1..=MAX_SUBJECT).contains(&subject.len()),
            Kind::Operators => matches!(subject.len(), 0 | 16),
        }
    }
}

/// The cluster identity's word that a control plane may sign records, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate {
    /// The control plane.
    pub signer: NodeId,
    /// Its record key's public half (Ed25519).
    pub key: [u8; 32],
    /// Last moment that a record of it may be dated.
    pub not_after: Unix,
    /// By the cluster identity.
    pub signature: [u8; 64],
}

impl Certificate {
    /// What the identity signs: a label, the cluster and every field.
    pub fn signed(cluster: &[u8; 16], signer: &NodeId, key: &[u8; 32], not_after: Unix) -> Vec<u8> {
        let mut out = b"kubeboot mesh record key 1".to_vec();
        out.extend_from_slice(cluster);
        out.extend_from_slice(&signer.0);
        out.extend_from_slice(key);
        out.extend_from_slice(&not_after.to_be_bytes());
        out
    }
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// The cluster that it is for.
    pub cluster: [u8; 16],
    /// Which of its kind; empty where there is one only.
    pub subject: Vec<u8>,
    /// Of two about one subject the greater holds.
    pub epoch: u64,
    /// When it was signed.
    pub issued: Unix,
    /// From then on it has no force, though it still keeps older ones away. A removal never expires.
    pub expiry: Unix,
    /// What it says.
    pub body: Vec<u8>,
    /// Who may sign it.
    pub certificate: Certificate,
    /// By the certificate's key over [`Record::signed`].
    pub signature: [u8; 64],
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It can't be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Another cluster's.
    #[error("it is another cluster's")]
    Foreign,
    /// The identity did not certify its signer.
    #[error("the cluster identity did not certify its signer")]
    Uncertified,
    /// Its signature does not verify.
    #[error("its signature does not verify")]
    Forged,
    /// It was dated after its signer's certificate ended, or after its own end.
    #[error("it is dated after its end or its signer's")]
    Dates,
    /// Its signer is a control plane that was removed.
    #[error("its signer was removed from the cluster")]
    SignerRemoved,
    /// What is held about that subject is as new or newer.
    #[error("its epoch {found} is not above {held}, which is held")]
    Stale {
        /// Of the record.
        found: u64,
        /// Of the one that is held.
        held: u64,
    },
    /// No room for a further subject of its kind.
    #[error("no room: {most} of its kind are held")]
    Full {
        /// The bound.
        most: usize,
    },
}

impl Record {
    /// What the record key signs: a label and every field but the signature.
    pub fn signed(&self) -> Vec<u8> {
        let mut out = b"kubeboot mesh record 1".to_vec();
        self.fields(&mut out);
        out
    }

    /// Its one encoding. The subject and body are within their bounds.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_RECORD.min(512 + self.body.len()));
        self.fields(&mut out);
        out.extend_from_slice(&self.signature);
        out
    }

    fn fields(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        out.push(self.kind.number());
        out.extend_from_slice(&self.cluster);
        put_bytes(out, &self.subject);
        for number in [self.epoch, self.issued, self.expiry] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put_bytes(out, &self.body);
        let certificate = &self.certificate;
        out.extend_from_slice(&certificate.signer.0);
        out.extend_from_slice(&certificate.key);
        out.extend_from_slice(&certificate.not_after.to_be_bytes());
        out.extend_from_slice(&certificate.signature);
    }

    /// Reads one. Nothing is verified here.
    ///
    /// # Errors
    /// The first field that is not as it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(bytes);
        if from.byte("format")? != FORMAT {
            return Err(Malformed("format"));
        }
        let number = from.byte("kind")?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.number() == number).ok_or(Malformed("kind"))?;
        let cluster = from.array("cluster")?;
        let subject = from.bytes("subject", MAX_SUBJECT)?.to_vec();
        if !kind.subject_fits(&subject) {
            return Err(Malformed("subject"));
        }
        let (epoch, issued, expiry) = (from.u64("epoch")?, from.u64("issued")?, from.u64("expiry")?);
        let body = from.bytes("body", MAX_RECORD_BODY)?.to_vec();
        let certificate = Certificate {
            signer: NodeId(from.array("signer")?),
            key: from.array("record key")?,
            not_after: from.u64("record key's end")?,
            signature: from.array("record key's signature")?,
        };
        let signature = from.array("signature")?;
        from.end()?;
        let record = Record { kind, cluster, subject, epoch, issued, expiry, body, certificate, signature };
        match kind {
            Kind::MeshKey if record.mesh_key().is_none() => Err(Malformed("body")),
            Kind::Operators if record.operators().is_none() => Err(Malformed("body")),
            Kind::Operators if !record.subject.is_empty() && record.subject != record.certificate.signer.0 => {
                Err(Malformed("subject"))
            }
            Kind::Removal if expiry != Unix::MAX || !record.body.is_empty() => Err(Malformed("expiry")),
            _ => Ok(record),
        }
    }

    /// Verifies everything about it that stands in itself. No clock is asked: every node comes to the same answer.
    ///
    /// # Errors
    /// What is wrong.
    pub fn verify(&self, cluster: &[u8; 16], identity: &[u8; 32]) -> Result<(), Refused> {
        if &self.cluster != cluster {
            return Err(Refused::Foreign);
        }
        let Certificate { signer, key, not_after, signature } = &self.certificate;
        if !check::ed25519_verifies(identity, &Certificate::signed(cluster, signer, key, *not_after), signature) {
            return Err(Refused::Uncertified);
        }
        if !check::ed25519_verifies(key, &self.signed(), &self.signature) {
            return Err(Refused::Forged);
        }
        if self.issued > *not_after || self.issued > self.expiry {
            return Err(Refused::Dates);
        }
        Ok(())
    }

    /// Whether it still has force.
    pub fn in_force(&self, unix: Unix) -> bool {
        unix < self.expiry
    }

    /// Who is removed, if it is a removal.
    pub fn removed(&self) -> Option<NodeId> {
        let id = self.subject.as_slice().try_into().ok()?;
        (self.kind == Kind::Removal).then_some(NodeId(id))
    }

    /// The commitment to a mesh key and whether the one before has a grace, if it is about that.
    pub fn mesh_key(&self) -> Option<([u8; 32], bool)> {
        let (commitment, rest) = self.body.split_first_chunk()?;
        match (self.kind, rest) {
            (Kind::MeshKey, [0]) => Some((*commitment, false)),
            (Kind::MeshKey, [1]) => Some((*commitment, true)),
            _ => None,
        }
    }

    /// Who the operators are, if it is about that.
    pub fn operators(&self) -> Option<Roll> {
        (self.kind == Kind::Operators).then(|| Roll::parse(&self.body).ok()).flatten()
    }

    /// What it is about, as a number: the first bytes of SHA-256 over kind and subject.
    pub fn about(&self) -> About {
        about(self.kind, &self.subject)
    }

    /// Its rank among those about one subject: the epoch, then, for two of one epoch, its hash.
    pub fn rank(&self) -> Rank {
        Rank { epoch: self.epoch, hash: first(&self.bytes()) }
    }
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct About(pub u64);

/// Which of two records about one subject holds: the greater. Two control planes that used one epoch at once come to
/// one record everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// The record's epoch.
    pub epoch: u64,
    /// The first bytes of its SHA-256.
    pub hash: u64,
}

/// What records of a kind about a subject go by.
pub fn about(kind: Kind, subject: &[u8]) -> About {
    About(first(&[&[kind.number()], subject].concat()))
}

fn first(bytes: &[u8]) -> u64 {
    let hash = digest::digest(&digest::SHA256, bytes);
    u64::from_be_bytes(*hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes"))
}
