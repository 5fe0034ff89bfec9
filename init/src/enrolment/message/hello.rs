//! The first two messages: who connects for what, and who answers, a control plane or a worker.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{KEY, SIGNATURE};
use crate::certificates::Unix;
use crate::enrolment::statement::Statement;
use crate::enrolment::transcript::HINT;
use crate::enrolment::wire::{Malformed, Reader, Writer};
use crate::plan::record::Cluster;
use crate::token::Joiner;

/// The version from which on there are statements: a worker gets one with its grant, and shows it to operators.
pub const STATEMENTS: u8 = 2;

/// The versions of the protocol that a side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl Versions {
    /// What this release speaks.
    pub const SPOKEN: Versions = Versions { oldest: 1, newest: STATEMENTS };
    /// What a worker speaks: who speaks nothing as new would not know what its proof is.
    pub const OF_A_WORKER: Versions = Versions { oldest: STATEMENTS, newest: STATEMENTS };

    /// The newest that both speak. Both sides compute it from both ranges, which the server signs: who changes a range
    /// on the way to get an older version breaks the signature.
    pub fn agreed(self, other: Versions) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    pub(super) fn write(self, to: &mut Writer) {
        to.array(&[self.oldest, self.newest]);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [oldest, newest] = from.array("versions")?;
        if oldest > newest { Err(Malformed::Form("versions")) } else { Ok(Versions { oldest, newest }) }
    }
}

/// What somebody connects for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To become a node, with a token.
    Join(Joiner),
    /// To get new certificates as a node that is one already, with the node key alone.
    Return,
    /// To command the cluster, with an ssh key.
    Operate,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Purpose; 4] =
        [Purpose::Join(Joiner::Worker), Purpose::Join(Joiner::ControlPlane), Purpose::Return, Purpose::Operate];

    fn code(self) -> u8 {
        match self {
            Purpose::Join(joiner) => joiner_code(joiner),
            Purpose::Return => 3,
            Purpose::Operate => 4,
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let field = "purpose";
        let found = from.byte(field)?;
        Purpose::ALL.into_iter().find(|one| one.code() == found).ok_or(Malformed::Unknown { field, found })
    }
}

pub(in crate::enrolment) fn joiner_code(joiner: Joiner) -> u8 {
    match joiner {
        Joiner::Worker => 1,
        Joiner::ControlPlane => 2,
    }
}

pub(in crate::enrolment) fn read_joiner(field: &'static str, from: &mut Reader<'_>) -> Result<Joiner, Malformed> {
    match from.byte(field)? {
        1 => Ok(Joiner::Worker),
        2 => Ok(Joiner::ControlPlane),
        found => Err(Malformed::Unknown { field, found }),
    }
}

/// The first message, from who connects. Says nothing that depends on a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub versions: Versions,
    /// What it wants.
    pub purpose: Purpose,
    /// Fresh random bytes.
    pub nonce: [u8; KEY],
    /// Which cluster it means ([`crate::enrolment::transcript::hint`]).
    pub hint: [u8; HINT],
}

/// The server's answer: who the cluster is, and a signature by its identity key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What the server speaks.
    pub versions: Versions,
    /// Fresh random bytes.
    pub nonce: [u8; KEY],
    /// The server's clock.
    pub time: Unix,
    /// Who the cluster is.
    pub cluster: Founded,
    /// By the identity key, label [`crate::enrolment::transcript::Label::Server`], over the hello and the fields above.
    pub signature: [u8; SIGNATURE],
}

/// A worker's answer to an operator: who the cluster is, the cluster's word about this worker, and a signature by its node
/// key. Another message than [`Proof`], so that whoever expects a control plane's takes it for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerProof {
    /// What the worker speaks.
    pub versions: Versions,
    /// Fresh random bytes.
    pub nonce: [u8; KEY],
    /// The worker's clock.
    pub time: Unix,
    /// Who the cluster is.
    pub cluster: Founded,
    /// Which worker it is.
    pub statement: Statement,
    /// By the node key, label [`crate::enrolment::transcript::Label::Worker`], over the hello and the fields above.
    pub signature: [u8; SIGNATURE],
}

/// Who a cluster is: the fields of `cluster.json` (`plan::record::Cluster`) as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Its id.
    pub id: [u8; 16],
    /// When it was founded.
    pub founded: Unix,
    /// The founding key's public half.
    pub founding_key: [u8; KEY],
    /// The identity key's public half.
    pub identity_key: [u8; KEY],
    /// The founding key's signature over the identity key, the id and the moment.
    pub certificate: [u8; SIGNATURE],
}

impl Founded {
    /// What the cluster's record says, as bytes.
    ///
    /// # Errors
    /// A record that is none, in words.
    pub fn of(cluster: &Cluster) -> Result<Self, String> {
        let wrong = |what: &str| format!("the cluster's record is damaged: its {what} is not what it should be");
        let id = u128::from_str_radix(&cluster.id, 16).map_err(|_| wrong("id"))?;
        Ok(Founded {
            id: id.to_be_bytes(),
            founded: cluster.founded,
            founding_key: base64(&cluster.founding_key).ok_or_else(|| wrong("founding key"))?,
            identity_key: base64(&cluster.identity_key).ok_or_else(|| wrong("identity key"))?,
            certificate: base64(&cluster.certificate).ok_or_else(|| wrong("certificate"))?,
        })
    }
}

impl Founded {
    fn write(&self, to: &mut Writer) {
        to.array(&self.id);
        to.u64(self.founded);
        to.array(&self.founding_key);
        to.array(&self.identity_key);
        to.array(&self.certificate);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Founded {
            id: from.array("cluster id")?,
            founded: from.u64("founding")?,
            founding_key: from.array("founding key")?,
            identity_key: from.array("identity key")?,
            certificate: from.array("certificate")?,
        })
    }
}

fn base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

impl Hello {
    pub(super) fn write(&self, to: &mut Writer) {
        self.versions.write(to);
        to.byte(self.purpose.code());
        to.array(&self.nonce);
        to.array(&self.hint);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Hello {
            versions: Versions::read(from)?,
            purpose: Purpose::read(from)?,
            nonce: from.array("nonce")?,
            hint: from.array("hint")?,
        })
    }
}

impl Proof {
    /// Of an encoded proof, a worker's too, the part that its signature covers.
    pub fn signed_part(message: &[u8]) -> &[u8] {
        &message[..message.len().saturating_sub(SIGNATURE)]
    }

    pub(super) fn write(&self, to: &mut Writer) {
        self.versions.write(to);
        to.array(&self.nonce);
        to.u64(self.time);
        self.cluster.write(to);
        to.array(&self.signature);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Proof {
            versions: Versions::read(from)?,
            nonce: from.array("nonce")?,
            time: from.u64("time")?,
            cluster: Founded::read(from)?,
            signature: from.array("signature")?,
        })
    }
}

impl WorkerProof {
    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Malformed> {
        self.versions.write(to);
        to.array(&self.nonce);
        to.u64(self.time);
        self.cluster.write(to);
        self.statement.write(to)?;
        to.array(&self.signature);
        Ok(())
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(WorkerProof {
            versions: Versions::read(from)?,
            nonce: from.array("nonce")?,
            time: from.u64("time")?,
            cluster: Founded::read(from)?,
            statement: Statement::read(from)?,
            signature: from.array("signature")?,
        })
    }
}
