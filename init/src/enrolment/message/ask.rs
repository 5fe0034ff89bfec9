//! What comes after the server's proof: a machine that asks to be a node, or an operator.

use std::net::IpAddr;

use super::{FORM, KEY, KIND_OPERATOR, SIGNATURE, SIGNING_REQUEST, SSH, most, read_version, write_version};
use crate::certificates::Unix;
use crate::enrolment::wire::{Malformed, Reader, Writer};
use crate::facts::NAME;
use crate::release::Version;
use crate::token::SECRET;

/// A machine asks to be a node: from a joiner or a returning node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The sender's clock.
    pub time: Unix,
    /// The node's name.
    pub name: String,
    /// The address by which other machines reach it.
    pub address: IpAddr,
    /// Its release.
    pub release: Version,
    /// Its node key's public half.
    pub node_key: [u8; KEY],
    /// Requests for the certificates that every node has (PKCS #10, DER), in the order of
    /// `certificates::profile::of_every_node`.
    pub requests: [Vec<u8>; 4],
    /// By the node key, label [`crate::enrolment::transcript::Label::Node`], over all before and the fields above.
    pub node_signature: [u8; SIGNATURE],
    /// The token, for a joiner; none for a returning node.
    pub token: Option<Presented>,
}

/// A token as it is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Fingerprint of its join key ([`crate::token::fingerprint`]).
    pub id: [u8; SECRET],
    /// By its join key, label [`crate::enrolment::transcript::Label::Token`], over the same as the node's signature.
    pub signature: [u8; SIGNATURE],
}

/// An operator's proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The ssh public key (RFC 4253 §6.6).
    pub key: Vec<u8>,
    /// An ssh signature ([`crate::enrolment::ssh`]) over label [`crate::enrolment::transcript::Label::Operator`], all before and the key.
    pub signature: Vec<u8>,
}

impl Ask {
    /// Of an encoded request, the part that its signatures cover.
    pub fn signed_part<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        let signatures = if self.token.is_some() { 2 * SIGNATURE } else { SIGNATURE };
        &message[..message.len().saturating_sub(signatures)]
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Malformed> {
        to.u64(self.time);
        to.label("name", NAME, &self.name)?;
        to.address(self.address);
        write_version(self.release, to);
        to.array(&self.node_key);
        for request in &self.requests {
            to.bytes("certificate request", SIGNING_REQUEST, request)?;
        }
        match &self.token {
            None => to.byte(0),
            Some(token) => {
                to.byte(1);
                to.array(&token.id);
            }
        }
        to.array(&self.node_signature);
        if let Some(token) = &self.token {
            to.array(&token.signature);
        }
        Ok(())
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let time = from.u64("time")?;
        let name = from.label("name", NAME)?.to_owned();
        let address = from.address("address")?;
        let release = read_version(from)?;
        let node_key = from.array("node key")?;
        let mut requests = [const { Vec::new() }; 4];
        for request in &mut requests {
            *request = from.bytes("certificate request", SIGNING_REQUEST)?.to_vec();
        }
        let id = match from.byte("token")? {
            0 => None,
            1 => Some(from.array("token id")?),
            found => return Err(Malformed::Unknown { field: "token", found }),
        };
        let node_signature = from.array("node signature")?;
        let token = match id {
            None => None,
            Some(id) => Some(Presented { id, signature: from.array("token signature")? }),
        };
        Ok(Ask { time, name, address, release, node_key, requests, node_signature, token })
    }
}

impl Operator {
    /// The part that its signature covers: all before it.
    ///
    /// # Errors
    /// The key is too long.
    pub fn signed_part(&self) -> Result<Vec<u8>, Malformed> {
        let mut to = Writer::new(most::OPERATOR);
        to.array(&[FORM, KIND_OPERATOR]);
        to.bytes("ssh key", SSH, &self.key)?;
        Ok(to.end()?.to_vec())
    }

    pub(super) fn write(&self, to: &mut Writer) -> Result<(), Malformed> {
        to.bytes("ssh key", SSH, &self.key)?;
        to.bytes("ssh signature", SSH, &self.signature)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Operator {
            key: from.bytes("ssh key", SSH)?.to_vec(),
            signature: from.bytes("ssh signature", SSH)?.to_vec(),
        })
    }
}
