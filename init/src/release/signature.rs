//! Who may sign releases, and whether one of them signed this. The format is minisign's: Ed25519 over a BLAKE2b digest.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{Error, PublicKey, Signature};

/// The most keys that a key file may have.
const KEYS_LIMIT: usize = 16;

/// The name of a key, as minisign prints it: sixteen upper-case hexadecimal digits. It identifies, it proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

/// The public keys that may sign releases. Two at least are shipped, so that one can be rotated out.
#[derive(Debug, Clone)]
pub struct Keys(Vec<(KeyId, PublicKey)>);

/// A key file that is not used, or a signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A line of the key file is no key.
    #[error("line {line} of the release keys is no minisign public key")]
    BadKey {
        /// Counted from 1.
        line: usize,
    },
    /// Fewer than one key or more than is sane.
    #[error("the release keys file has {found} keys. Expected 1 to {KEYS_LIMIT}")]
    KeyCount {
        /// How many.
        found: usize,
    },
    /// Not minisign's text form.
    #[error("the release's signature is damaged: it is not in minisign's form")]
    Malformed,
    /// Signed by somebody else.
    #[error("the release is signed with none of the keys that this machine trusts ({})", list(.trusted))]
    UnknownKey {
        /// Keys that would have been right.
        trusted: Vec<KeyId>,
    },
    /// The manifest is not what was signed.
    #[error("the release's manifest is not what was signed: it was changed, or the signature belongs to another")]
    Mismatch,
}

fn list(keys: &[KeyId]) -> String {
    keys.iter().map(KeyId::to_string).collect::<Vec<_>>().join(", ")
}

impl Keys {
    /// Reads a key file: one key in base64 a line. Empty lines, `#` comments and minisign's own `untrusted comment:`
    /// lines are skipped.
    ///
    /// # Errors
    /// A line is something else, or there is no key.
    pub fn parse(text: &str) -> Result<Self, SignatureError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("untrusted comment:") {
                continue;
            }
            let bad = SignatureError::BadKey { line: index + 1 };
            let key = PublicKey::from_base64(line).map_err(|_| bad.clone())?;
            keys.push((key_id(line).ok_or(bad)?, key));
        }
        if keys.is_empty() || keys.len() > KEYS_LIMIT {
            return Err(SignatureError::KeyCount { found: keys.len() });
        }
        Ok(Self(keys))
    }

    /// The keys' names.
    #[must_use]
    pub fn ids(&self) -> Vec<KeyId> {
        self.0.iter().map(|(id, _)| *id).collect()
    }

    /// Checks that one of the keys signed exactly `message`, and says which.
    ///
    /// # Errors
    /// The signature is malformed, by another key, or over another message.
    pub fn verify(&self, message: &[u8], signature: &str) -> Result<KeyId, SignatureError> {
        let signature = Signature::decode(signature).map_err(|_| SignatureError::Malformed)?;
        for (id, key) in &self.0 {
            match key.verify(message, &signature, false) {
                Ok(()) => return Ok(*id),
                Err(Error::UnexpectedKeyId) => {}
                Err(_) => return Err(SignatureError::Mismatch),
            }
        }
        Err(SignatureError::UnknownKey { trusted: self.ids() })
    }
}

/// The name within a public key: two bytes of algorithm, eight of name (little-endian), then the key.
fn key_id(line: &str) -> Option<KeyId> {
    let bytes = STANDARD.decode(line).ok()?;
    Some(KeyId(u64::from_le_bytes(bytes.get(2..10)?.try_into().ok()?)))
}
