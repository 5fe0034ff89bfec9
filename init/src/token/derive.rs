//! Keys from secrets: HKDF-SHA256 (RFC 5869) to Ed25519 (RFC 8032).
//!
//! The labels are part of the format: changing one makes every token ever handed out worthless.

use aws_lc_rs::digest;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::{Joiner, SECRET};

const SALT: &[u8] = b"kubeboot token 1";

/// An Ed25519 key that came from a token.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    fn new(secret: &[u8; 32]) -> Self {
        SigningKey(Ed25519KeyPair::from_seed_unchecked(secret).expect("any 32 bytes are an Ed25519 seed"))
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// The short name of a public key: the first 128 bits of SHA-256 over a label and the key.
pub fn fingerprint(public: &[u8; 32]) -> [u8; SECRET] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"kubeboot fingerprint 1");
    context.update(public);
    context.finish().as_ref()[..SECRET].try_into().expect("SHA-256 has 32 bytes")
}

pub(super) fn founding_key(seed: &[u8; SECRET]) -> SigningKey {
    SigningKey::new(&expand(seed, "founding key"))
}

pub(super) fn join_secret(seed: &[u8; SECRET], joiner: Joiner) -> Zeroizing<[u8; SECRET]> {
    expand(
        seed,
        match joiner {
            Joiner::ControlPlane => "join token, control plane",
            Joiner::Worker => "join token, worker",
        },
    )
}

pub(super) fn join_key(secret: &[u8; SECRET], joiner: Joiner) -> SigningKey {
    SigningKey::new(&expand(
        secret,
        match joiner {
            Joiner::ControlPlane => "join key, control plane",
            Joiner::Worker => "join key, worker",
        },
    ))
}

struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(secret: &[u8; SECRET], label: &str) -> Zeroizing<[u8; N]> {
    let mut out = Zeroizing::new([0; N]);
    let key = Salt::new(HKDF_SHA256, SALT).extract(secret);
    key.expand(&[label.as_bytes()], Bytes(N))
        .and_then(|okm| okm.fill(out.as_mut()))
        .expect("HKDF-SHA256 gives up to 8160 bytes");
    out
}
