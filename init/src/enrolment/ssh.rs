//! Signatures by ssh keys, as ssh-agent and `ssh-keygen -Y sign` make them.
//!
//! What is signed is never our message itself but OpenSSH's SSHSIG wrapping of its hash under a namespace
//! (`PROTOCOL.sshsig`), so an agent that signs for us can't be made to sign a login, and a login can't be replayed here.
//! Keys and signatures: RFC 4253 §6.6 and RFC 8709 (Ed25519), RFC 5656 §3.1 (ECDSA), `PROTOCOL.u2f` (keys on a FIDO token,
//! whose signature covers flags and a counter).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The SSHSIG namespace: `ssh-keygen -Y sign -n enrolment-1@kubeboot`.
pub const NAMESPACE: &str = "enrolment-1@kubeboot";

/// The FIDO flag that says that a person touched the token (`PROTOCOL.u2f`, `SSH_SK_USER_PRESENCE_REQD`).
const USER_PRESENT: u8 = 1;

/// What is wrong with an ssh signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SshFault {
    /// The key can't be read.
    Key,
    /// The key is of a kind that is not taken.
    Kind,
    /// The signature can't be read, or is of another kind than the key.
    Form,
    /// Nobody touched the FIDO token.
    NotPresent,
    /// It is no signature of this key over this message.
    Wrong,
}

impl fmt::Display for SshFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SshFault::Key => "its public key can't be read",
            SshFault::Kind => {
                "its kind is none of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, sk-ssh-ed25519@openssh.com"
            }
            SshFault::Form => "it can't be read, or is of another kind than its key",
            SshFault::NotPresent => "nobody touched the FIDO token",
            SshFault::Wrong => "it is not by this key over this exchange",
        })
    }
}

/// What an agent is asked to sign for `message`: the SSHSIG wrapping of its SHA-512.
pub fn wrapped(message: &[u8]) -> Vec<u8> {
    let hash = digest::digest(&digest::SHA512, message);
    [b"SSHSIG".to_vec(), strings(&[NAMESPACE.as_bytes(), b"", b"sha512", hash.as_ref()])].concat()
}

/// `SHA256:…` as `ssh-keygen -l` prints it.
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, key)))
}

/// The kind of a public key (the ssh wire form), if it is one whose signatures [`verify`] can take.
///
/// # Errors
/// [`SshFault::Key`], [`SshFault::Kind`].
pub fn kind(key: &[u8]) -> Result<&'static str, SshFault> {
    let mut fields = Fields(key);
    let is_whole = |key: Option<&[u8]>, length: usize| match key.is_some_and(|key| key.len() == length) {
        true => Ok(()),
        false => Err(SshFault::Key),
    };
    match fields.string().ok_or(SshFault::Key)? {
        b"ssh-ed25519" => is_whole(fields.last(), 32).map(|()| "ssh-ed25519"),
        b"ecdsa-sha2-nistp256" => is_whole(point(fields, b"nistp256"), 65).map(|()| "ecdsa-sha2-nistp256"),
        b"ecdsa-sha2-nistp384" => is_whole(point(fields, b"nistp384"), 97).map(|()| "ecdsa-sha2-nistp384"),
        b"sk-ssh-ed25519@openssh.com" => {
            is_whole(fields.string(), 32)?;
            fields.last().map(|_| "sk-ssh-ed25519@openssh.com").ok_or(SshFault::Key)
        }
        _ => Err(SshFault::Kind),
    }
}

/// The ssh wire form of these strings.
pub fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let length = |part: &[u8]| u32::try_from(part.len()).expect("keys and signatures are short").to_be_bytes();
    parts.iter().flat_map(|part| [&length(part), *part].concat()).collect()
}

/// Verifies `signature` (the ssh wire form) by `key` (the ssh wire form) over `message`.
///
/// # Errors
/// [`SshFault`].
pub fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SshFault> {
    let mut key = Fields(key);
    let kind = key.string().ok_or(SshFault::Key)?;
    let mut fields = Fields(signature);
    let signed_as = fields.string().ok_or(SshFault::Form)?;
    let value = fields.string().ok_or(SshFault::Form)?;
    if signed_as != kind {
        return Err(SshFault::Form);
    }
    let data = wrapped(message);
    match kind {
        b"ssh-ed25519" => {
            let public = key.last().ok_or(SshFault::Key)?;
            fields.end().ok_or(SshFault::Form)?;
            verifies(&ED25519, public, &data, value)
        }
        b"ecdsa-sha2-nistp256" => {
            fields.end().ok_or(SshFault::Form)?;
            let public = point(key, b"nistp256").ok_or(SshFault::Key)?;
            verifies(&ECDSA_P256_SHA256_FIXED, public, &data, &fixed::<32>(value).ok_or(SshFault::Form)?)
        }
        b"ecdsa-sha2-nistp384" => {
            fields.end().ok_or(SshFault::Form)?;
            let public = point(key, b"nistp384").ok_or(SshFault::Key)?;
            verifies(&ECDSA_P384_SHA384_FIXED, public, &data, &fixed::<48>(value).ok_or(SshFault::Form)?)
        }
        b"sk-ssh-ed25519@openssh.com" => {
            let public = key.string().ok_or(SshFault::Key)?;
            let application = key.last().ok_or(SshFault::Key)?;
            let told: [u8; 5] = fields.0.try_into().map_err(|_| SshFault::Form)?;
            if told[0] & USER_PRESENT == 0 {
                return Err(SshFault::NotPresent);
            }
            let sha = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
            let covered = [sha(application).as_ref(), &told, sha(&data).as_ref()].concat();
            verifies(&ED25519, public, &covered, value)
        }
        _ => Err(SshFault::Kind),
    }
}

fn verifies(by: &'static dyn VerificationAlgorithm, key: &[u8], data: &[u8], value: &[u8]) -> Result<(), SshFault> {
    UnparsedPublicKey::new(by, key).verify(data, value).map_err(|_| SshFault::Wrong)
}

/// The point of an ECDSA key on the named curve, uncompressed.
fn point<'a>(mut key: Fields<'a>, curve: &[u8]) -> Option<&'a [u8]> {
    let named = key.string()?;
    let point = key.last()?;
    (named == curve && point.first() == Some(&4)).then_some(point)
}

/// Two numbers of the ssh wire format as two big-endian numbers of `N` bytes each.
fn fixed<const N: usize>(value: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(value);
    let mut out = Vec::with_capacity(2 * N);
    for _ in 0..2 {
        // RFC 4251 §5, mpint: positive ones have a zero byte in front where the first bit is set, and only there.
        let number = match fields.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|first| first & 0x80 != 0) => rest,
            [first, ..] if first & 0x80 != 0 => return None,
            [] | [0, ..] => return None,
            plain => plain,
        };
        out.resize(out.len() + N.checked_sub(number.len())?, 0);
        out.extend(number);
    }
    fields.end()?;
    Some(out)
}

/// Fields of the ssh wire format (RFC 4251 §5).
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next string.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (string, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(string)
    }

    /// The next string, after which nothing may follow.
    pub(crate) fn last(mut self) -> Option<&'a [u8]> {
        let string = self.string()?;
        self.end()?;
        Some(string)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests;
