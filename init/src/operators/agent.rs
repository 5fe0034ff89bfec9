//! The few messages of the ssh-agent protocol that are needed (RFC 9987): which keys there are, and a signature.
//!
//! On the socket a message stands behind its length (32 bits).

use crate::enrolment::ssh::{self, Fields};

/// Bytes of an agent's message at most, as OpenSSH has it (`AGENT_MAX_LEN`).
pub const LONGEST: usize = 256 << 10;
/// Keys of an agent that are looked at, at most.
const KEYS: usize = 64;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Why an agent is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Useless {
    /// It says no: it is locked, has no such key any more, or its owner said no.
    #[error("ssh-agent refuses: it is locked, has the key no more, or was told not to sign")]
    Refused,
    /// What it said is no answer.
    #[error("ssh-agent's answer can't be read")]
    Nonsense,
}

/// Asks for the keys.
pub fn identities() -> Vec<u8> {
    vec![REQUEST_IDENTITIES]
}

/// Asks for a signature by `key` (the ssh wire form), without flags.
pub fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    [&[SIGN_REQUEST][..], &ssh::strings(&[key, message]), &[0; 4]].concat()
}

/// The keys in an answer to [`identities`], the ssh wire form, of the kinds that a control plane takes.
///
/// # Errors
/// [`Useless`].
pub fn keys(answer: &[u8]) -> Result<Vec<Vec<u8>>, Useless> {
    let (count, rest) = body(answer, IDENTITIES_ANSWER)?.split_first_chunk::<4>().ok_or(Useless::Nonsense)?;
    let mut fields = Fields(rest);
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (Some(key), Some(_comment)) = (fields.string(), fields.string()) else { return Err(Useless::Nonsense) };
        if ssh::kind(key).is_ok() && keys.len() < KEYS {
            keys.push(key.to_vec());
        }
    }
    fields.end().map(|()| keys).ok_or(Useless::Nonsense)
}

/// The signature (the ssh wire form) in an answer to [`sign`].
///
/// # Errors
/// [`Useless`].
pub fn signature(answer: &[u8]) -> Result<Vec<u8>, Useless> {
    Fields(body(answer, SIGN_RESPONSE)?).last().map(<[u8]>::to_vec).ok_or(Useless::Nonsense)
}

fn body(answer: &[u8], wanted: u8) -> Result<&[u8], Useless> {
    match answer.split_first() {
        Some((&kind, body)) if kind == wanted => Ok(body),
        Some((&FAILURE, _)) => Err(Useless::Refused),
        _ => Err(Useless::Nonsense),
    }
}
