//! A query and an answer, and how they are sealed: who has no token sees noise of one length.
//!
//! ```text
//! query  = nonce 32  ‖ ChaCha20-Poly1305(HKDF(key, "query"  ‖ nonce), body 64) ‖ tag 16
//! answer = random 32 ‖ ChaCha20-Poly1305(HKDF(key, "answer" ‖ nonce ‖ random), body 64) ‖ tag 16
//! ```
//!
//! Each message has a key of its own, so the cipher's nonce is always zero. An answer's key depends on the query's nonce:
//! no other query's answer opens. Both are of one length, so that nobody is sent more than was asked in his name.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use super::ClusterId;
use crate::mesh::wire::{Malformed, Reader, put_address};
use crate::token::SECRET;

/// Length of a message's body, in bytes.
pub const BODY: usize = 64;
/// Length of every message, in bytes.
pub const MESSAGE: usize = NONCE + BODY + TAG;

const NONCE: usize = 32;
const TAG: usize = 16;
/// The form of both bodies that this release speaks.
const FORM: u8 = 1;

/// What the messages about one cluster are sealed with. Who has the fingerprint has it. No Debug.
#[derive(Clone)]
pub struct Key(Prk);

impl Key {
    /// From the fingerprint of the key that vouches for the cluster: the founding key's, or the identity's.
    pub fn of(fingerprint: &[u8; SECRET]) -> Self {
        Key(Salt::new(HKDF_SHA256, b"kubeboot discovery 1").extract(fingerprint))
    }

    fn cipher(&self, info: &[&[u8]]) -> LessSafeKey {
        let mut key = Zeroizing::new([0; 32]);
        let okm = self.0.expand(info, HKDF_SHA256);
        okm.and_then(|okm| okm.fill(key.as_mut())).expect("HKDF-SHA256 gives 32 bytes");
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).expect("ChaCha20 has 32 bytes of key"))
    }

    fn query(&self, nonce: &[u8; NONCE]) -> LessSafeKey {
        self.cipher(&[b"query", nonce])
    }

    fn answer(&self, nonce: &[u8; NONCE], random: &[u8; NONCE]) -> LessSafeKey {
        self.cipher(&[b"answer", nonce, random])
    }
}

fn seal(key: &LessSafeKey, head: &[u8; NONCE], body: &[u8; BODY]) -> Vec<u8> {
    let mut message = Vec::with_capacity(MESSAGE);
    message.extend_from_slice(head);
    message.extend_from_slice(body);
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut message[NONCE..]).expect("far below 2³² bytes");
    message.extend_from_slice(tag.as_ref());
    message
}

/// The part before the body, of a message of the right length.
fn head(message: &[u8]) -> Option<&[u8; NONCE]> {
    message.first_chunk().filter(|_| message.len() == MESSAGE)
}

fn open(key: &LessSafeKey, message: &[u8]) -> Option<[u8; BODY]> {
    let mut sealed = message.get(NONCE..)?.to_vec();
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.first_chunk().copied()
}

/// What a query says: nothing but its form. The rest of its body is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryBody;

impl QueryBody {
    /// The body.
    pub fn bytes(&self) -> [u8; BODY] {
        padded(&[FORM])
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Another form, or bytes that are not zero after it.
    pub fn parse(bytes: &[u8; BODY]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        form(&mut reader)?;
        padding(reader, BODY - 1)?;
        Ok(QueryBody)
    }
}

/// A control plane that takes machines in, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// Its cluster's id.
    pub cluster: ClusterId,
    /// Where it serves enrolment.
    pub address: SocketAddr,
}

impl Answer {
    /// The body.
    pub fn bytes(&self) -> [u8; BODY] {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&self.cluster);
        put_address(&mut bytes, self.address);
        padded(&bytes)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Another form, an address that no machine is reached by, or bytes that are not zero after it.
    pub fn parse(bytes: &[u8; BODY]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        form(&mut reader)?;
        let cluster = reader.array("cluster id")?;
        let address = reader.address("address")?;
        if !is_of_a_machine(address) {
            return Err(Malformed("address"));
        }
        let answer = Answer { cluster, address };
        let length = match address.ip() {
            IpAddr::V4(_) => 1 + 16 + 1 + 4 + 2,
            IpAddr::V6(_) => 1 + 16 + 1 + 16 + 2,
        };
        padding(reader, BODY - length)?;
        Ok(answer)
    }
}

/// Whether it can be a node's address: an answer never sends anybody to himself or to many.
fn is_of_a_machine(address: SocketAddr) -> bool {
    let local = match address.ip() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let ip = address.ip();
    address.port() != 0 && !local && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

fn form(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    if reader.byte("form")? == FORM { Ok(()) } else { Err(Malformed("form")) }
}

fn padded(bytes: &[u8]) -> [u8; BODY] {
    let mut body = [0; BODY];
    body[..bytes.len()].copy_from_slice(bytes);
    body
}

fn padding(mut reader: Reader<'_>, length: usize) -> Result<(), Malformed> {
    if reader.take("padding", length)?.iter().any(|byte| *byte != 0) {
        return Err(Malformed("padding"));
    }
    reader.end()
}

/// A query that is under way: only answers to it open.
pub struct Query {
    key: Key,
    nonce: [u8; NONCE],
}

impl Query {
    /// A query about the clusters of `key`. `nonce` is random and never used twice.
    pub fn new(key: &Key, nonce: [u8; NONCE]) -> Self {
        Query { key: key.clone(), nonce }
    }

    /// The message.
    pub fn message(&self) -> Vec<u8> {
        seal(&self.key.query(&self.nonce), &self.nonce, &QueryBody.bytes())
    }

    /// Opens an answer. None for what is none, or is one to another query.
    pub fn open(&self, message: &[u8]) -> Option<Answer> {
        let body = open(&self.key.answer(&self.nonce, head(message)?), message)?;
        Answer::parse(&body).ok()
    }
}

/// A query that somebody sent, opened.
pub(super) struct Asked<'a> {
    key: &'a Key,
    pub(super) nonce: [u8; NONCE],
}

impl<'a> Asked<'a> {
    /// Opens a query with one of these keys. None for what is none, or is about others.
    pub(super) fn open(keys: &'a [Key], message: &[u8]) -> Option<Self> {
        let nonce = *head(message)?;
        let opens = |key: &&Key| open(&key.query(&nonce), message).is_some_and(|body| QueryBody::parse(&body).is_ok());
        keys.iter().find(opens).map(|key| Asked { key, nonce })
    }

    /// Seals an answer to it. `random` is never used twice.
    pub(super) fn seal(&self, answer: &Answer, random: &[u8; NONCE]) -> Vec<u8> {
        seal(&self.key.answer(&self.nonce, random), random, &answer.bytes())
    }
}
