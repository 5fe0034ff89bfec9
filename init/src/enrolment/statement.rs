//! A worker's statement: the cluster's word that a node key is a worker's of that name, and until when. A control plane gives
//! it with the grant, and the worker shows it to operators (`docs/enrolment.md`).
//!
//! The cluster's identity key signs it, not a record key that the identity certifies: whoever holds a record key has the
//! identity key on his disk, so a link between the two would keep nothing safe, and who checks the chain would need to know
//! of one certificate more, when that ends, and which control planes were removed.

use super::Sign;
use super::decision::NodeRecord;
use super::message::{KEY, SIGNATURE, joiner_code, read_joiner};
use super::wire::{Malformed, Reader, Writer};
use crate::certificates::expiry::{BACKDATE, Standing, Validity};
use crate::certificates::{Unix, check, profile};
use crate::facts::NAME;
use crate::token::Joiner;

/// The form of the file, its first byte.
const FORM: u8 = 1;
/// What the identity's signature is over begins with it. Ends in its only zero byte, and is the beginning of nothing else
/// that this key signs.
const LABEL: &[u8] = b"kubeboot node statement 1\0";
/// How long a statement is good, in seconds: as long as a node's certificates, with which it is renewed.
pub const LIFE: u64 = profile::NODE;

/// The cluster's word about a node key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What the node is. Only workers have one: a control plane proves itself by the identity key.
    pub role: Joiner,
    /// Its name.
    pub name: String,
    /// Its node key's public half.
    pub key: [u8; KEY],
    /// The last second at which it is good.
    pub not_after: Unix,
    /// By the cluster's identity key, over [`Statement::signed`].
    pub signature: [u8; SIGNATURE],
}

/// Why a statement is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The identity key did not sign these words for this cluster.
    #[error("the cluster's identity did not sign its statement")]
    Forged,
    /// It is good, and not a worker's.
    #[error("its statement is not a worker's")]
    Role,
    /// It was good.
    #[error("its statement ended {ago} s ago")]
    Ended {
        /// So many seconds ago.
        ago: u64,
    },
    /// It ends later than any that was made by now.
    #[error("its statement comes from the future")]
    Future,
}

impl Statement {
    /// Bytes of the fields at most.
    pub const MOST: usize = 1 + 2 + NAME + KEY + 8 + SIGNATURE;

    /// Says it of a node that was admitted at `now`.
    pub fn of(cluster: &[u8; 16], node: &NodeRecord, now: Unix, identity: &dyn Sign) -> Self {
        let not_after = now.saturating_add(LIFE);
        let (role, name, key) = (node.role, node.name.clone(), node.key);
        let mut statement = Statement { role, name, key, not_after, signature: [0; SIGNATURE] };
        statement.signature = identity.sign(&statement.signed(cluster));
        statement
    }

    /// What the identity key signs: the label, the cluster and every field. The one that has no fixed length is the last.
    pub fn signed(&self, cluster: &[u8; 16]) -> Vec<u8> {
        let (role, not_after) = ([joiner_code(self.role)], self.not_after.to_be_bytes());
        [LABEL, cluster, &role, &self.key, &not_after, self.name.as_bytes()].concat()
    }

    /// Whether it is that cluster's word about a worker, and good now.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn verify(&self, cluster: &[u8; 16], identity: &[u8; KEY], now: Unix) -> Result<(), Fault> {
        match self.standing(now) {
            _ if !check::ed25519_verifies(identity, &self.signed(cluster), &self.signature) => Err(Fault::Forged),
            _ if self.role != Joiner::Worker => Err(Fault::Role),
            Standing::Expired => Err(Fault::Ended { ago: now - self.not_after }),
            Standing::NotYetValid => Err(Fault::Future),
            Standing::Good | Standing::Due => Ok(()),
        }
    }

    /// Whether it is about this node.
    pub fn is_of(&self, role: Joiner, name: &str, key: &[u8; KEY]) -> bool {
        self.role == role && self.name == name && self.key == *key
    }

    /// Where it stands in its life: renewed when a certificate would be that was issued with it.
    pub fn standing(&self, now: Unix) -> Standing {
        let not_before = self.not_after.saturating_sub(LIFE + BACKDATE);
        Validity { not_before, not_after: self.not_after }.standing(now, self.signature[0])
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Malformed> {
        to.byte(joiner_code(self.role));
        to.label("statement's name", NAME, &self.name)?;
        to.array(&self.key);
        to.u64(self.not_after);
        to.array(&self.signature);
        Ok(())
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Statement {
            role: read_joiner("statement's role", from)?,
            name: from.label("statement's name", NAME)?.to_owned(),
            key: from.array("statement's node key")?,
            not_after: from.u64("statement's end")?,
            signature: from.array("statement's signature")?,
        })
    }

    /// The file.
    ///
    /// # Errors
    /// A name that is none.
    pub fn file(&self) -> Result<Vec<u8>, Malformed> {
        let mut to = Writer::new(1 + Statement::MOST);
        to.byte(FORM);
        self.write(&mut to)?;
        to.end().map(|bytes| bytes.to_vec())
    }

    /// Reads the file. Nothing is verified here.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(file: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader::new(file);
        match from.byte("form")? {
            FORM => {}
            found => return Err(Malformed::Unknown { field: "form", found }),
        }
        let statement = Statement::read(&mut from)?;
        from.end()?;
        Ok(statement)
    }
}
