//! How a machine becomes a node, and how an operator is known: the exchange on TCP port 7440 (`docs/enrolment.md`).
//!
//! This room is the protocol alone: events in, messages and effects out. It has no network, files, clock or random
//! source; the TLS exporter, the time, nonces, keys and what the cluster knows come in as values.
//!
//! What always holds:
//! - The exchange has two round trips: hello and proof, then a request (or an operator's signature) and its answer. No side
//!   reads a message that does not belong to its state, nor more bytes than that message may have.
//! - Every signature is over `label ‖ exporter ‖ transcript`. It is good on one connection, in one place of one exchange,
//!   for one role.
//! - Nothing that depends on a secret is sent before the server has proven to be the cluster's; and a server shows the
//!   cluster's identity only to who names its fingerprint on this very connection.
//! - What was proven on a connection holds for what follows on it, because its exporter was signed. So a grant has no
//!   signature of its own.
//! - Whatever is wrong with a token, the server does the same and says the same.
//! - Secrets are wiped when they are dropped, and nothing that holds one has `Debug`.

pub mod decision;
pub mod failure;
pub mod gate;
pub mod joiner;
pub mod message;
pub mod noise;
pub mod note;
pub mod objects;
pub mod operator;
pub mod pace;
mod proven;
pub mod reason;
pub mod releases;
pub mod seeking;
pub mod server;
pub mod ssh;
pub mod statement;
pub mod taking;
pub mod transcript;
mod wire;

pub use wire::Malformed;

use std::time::Duration;

use crate::certificates::check;
use crate::token::SigningKey;

/// TCP: enrolment and operators. The mesh has the same port by UDP ([`crate::mesh::PORT`]).
pub const PORT: u16 = 7440;
/// How long a side waits for the other's next message.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long an exchange takes at most, the server's own work included.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An Ed25519 key that can sign, wherever it is kept.
pub trait Sign {
    /// The public half.
    fn public(&self) -> [u8; 32];
    /// Signs a message.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// A server's operations with keys: the identity's, and verification.
pub trait Keys: Sign {
    /// Whether `signature` over `message` is that Ed25519 key's.
    fn verify(&self, key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        check::ed25519_verifies(key, message, signature)
    }
}

impl Sign for SigningKey {
    fn public(&self) -> [u8; 32] {
        SigningKey::public(self)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        SigningKey::sign(self, message)
    }
}

impl Keys for SigningKey {}

#[cfg(test)]
pub(crate) mod tests;
