//! Tokens: signing keys in a form that people can type, not passwords (`docs/architecture.md`).
//!
//! `kb1s-…` is a seed: from it come, offline, the key that certifies a new cluster's identity once (the founding key)
//! and the join tokens of the founding window. `kb1c-…` and `kb1w-…` are join tokens for a control plane and a worker: a
//! join key, and the fingerprint of the key that vouches for the cluster. No token is, or derives, a Kubernetes
//! credential. Nothing here has `Debug`, and every secret is wiped when dropped.

mod derive;
mod text;

pub use derive::{SigningKey, fingerprint};
pub use text::{TokenError, Typo};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of secret in a token, and bytes of a fingerprint: 128 bits each.
pub const SECRET: usize = 16;

/// What a token is for; the letter after `kb1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `s`
    Seed,
    /// `c`
    ControlPlane,
    /// `w`
    Worker,
}

/// What a join token admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joiner {
    /// A further control plane.
    ControlPlane,
    /// A worker.
    Worker,
}

impl From<Joiner> for Kind {
    fn from(joiner: Joiner) -> Kind {
        match joiner {
            Joiner::ControlPlane => Kind::ControlPlane,
            Joiner::Worker => Kind::Worker,
        }
    }
}

/// The founder's secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SECRET]);

impl Seed {
    /// A seed from 16 random bytes.
    pub fn new(random: [u8; SECRET]) -> Self {
        Seed(random)
    }

    /// The text form, `kb1s-` and six groups of five. Secret.
    pub fn text(&self) -> Zeroizing<String> {
        text::encode(Kind::Seed, &[&self.0])
    }

    /// The key that certifies the new cluster's identity key once.
    pub fn founding_key(&self) -> SigningKey {
        derive::founding_key(&self.0)
    }

    /// The join token of the founding window.
    pub fn join_token(&self, joiner: Joiner) -> JoinToken {
        JoinToken {
            joiner,
            key: derive::join_secret(&self.0, joiner),
            fingerprint: fingerprint(&self.founding_key().public()),
        }
    }
}

/// A join key and the fingerprint of the key that vouches for the cluster.
#[derive(Clone)]
pub struct JoinToken {
    joiner: Joiner,
    key: Zeroizing<[u8; SECRET]>,
    fingerprint: [u8; SECRET],
}

impl JoinToken {
    /// A token made after the founding, from 16 random bytes, for the cluster with this identity key.
    pub fn new(joiner: Joiner, random: [u8; SECRET], identity: &[u8; 32]) -> Self {
        JoinToken { joiner, key: Zeroizing::new(random), fingerprint: fingerprint(identity) }
    }

    /// What it admits.
    pub fn joiner(&self) -> Joiner {
        self.joiner
    }

    /// The text form, `kb1c-` or `kb1w-` and twelve groups of five. Secret.
    pub fn text(&self) -> Zeroizing<String> {
        text::encode(self.joiner.into(), &[&self.key, &self.fingerprint])
    }

    /// The key that a joiner proves; the cluster stores its public half only.
    pub fn join_key(&self) -> SigningKey {
        derive::join_key(&self.key, self.joiner)
    }

    /// Fingerprint of the key that vouches for the cluster: of the founding key for tokens derived from a seed.
    pub fn fingerprint(&self) -> &[u8; SECRET] {
        &self.fingerprint
    }
}

/// Any token.
#[derive(Clone)]
pub enum Token {
    /// `kb1s-…`
    Seed(Seed),
    /// `kb1c-…`, `kb1w-…`
    Join(JoinToken),
}

impl Token {
    /// Reads a token's text. Case, blanks at the ends and hyphens between characters do not matter; `O` is read as `0`,
    /// `I` and `L` as `1`. Fails with the place of the typing error where that can be told, and never with any part of
    /// the token.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        let (kind, blocks) = text::decode(text)?;
        let joiner = match kind {
            Kind::Seed => return Ok(Token::Seed(Seed(*blocks[0]))),
            Kind::ControlPlane => Joiner::ControlPlane,
            Kind::Worker => Joiner::Worker,
        };
        Ok(Token::Join(JoinToken { joiner, key: blocks[0].clone(), fingerprint: *blocks[1] }))
    }

    /// What the token is for.
    pub fn kind(&self) -> Kind {
        match self {
            Token::Seed(_) => Kind::Seed,
            Token::Join(token) => token.joiner.into(),
        }
    }
}

#[cfg(test)]
mod tests;
