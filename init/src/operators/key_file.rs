//! Private keys as OpenSSH keeps them (`PROTOCOL.key`, `openssh-key-v1`): Ed25519 without a passphrase. Others an agent
//! signs with.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::enrolment::ssh::{self, Fields};

/// Bytes of such a file at most.
pub const LONGEST: usize = 16 << 10;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
const KIND: &[u8] = b"ssh-ed25519";

/// Why a file holds no key that can be used without an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is no private key of OpenSSH's form.
    #[error("expected a private key of OpenSSH's form, found something else")]
    Form,
    /// A passphrase protects it. Its public key (wire form) is readable.
    #[error("a passphrase protects it; ssh-agent can sign with it, after: ssh-add")]
    Encrypted(Vec<u8>),
    /// It is of another kind. Its public key (wire form) is readable.
    #[error("its kind is not ssh-ed25519; ssh-agent can sign with it, after: ssh-add")]
    Kind(Vec<u8>),
}

/// An Ed25519 ssh key that can sign. No `Debug`: it holds a secret.
pub struct FileKey {
    pair: Ed25519KeyPair,
    public: Vec<u8>,
}

impl FileKey {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let blob = unwrapped(text).ok_or(Unusable::Form)?;
        let (cipher, public, private) = parts(&blob).ok_or(Unusable::Form)?;
        if cipher != b"none" {
            return Err(Unusable::Encrypted(public.to_vec()));
        }
        if Fields(public).string() != Some(KIND) {
            return Err(Unusable::Kind(public.to_vec()));
        }
        let seed = seed(private, public).ok_or(Unusable::Form)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| Unusable::Form)?;
        let key = FileKey { public: ssh::strings(&[KIND, pair.public_key().as_ref()]), pair };
        // A private half that is another key's would sign what nobody takes.
        if key.public == public { Ok(key) } else { Err(Unusable::Form) }
    }

    /// The public key (the ssh wire form).
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs, in the ssh wire form.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        ssh::strings(&[KIND, self.pair.sign(message).as_ref()])
    }
}

/// The bytes within the armour.
fn unwrapped(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() > LONGEST {
        return None;
    }
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let mut encoded = Zeroizing::new(Vec::with_capacity(body.len()));
    encoded.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut blob = Zeroizing::new(vec![0; body.len()]);
    let length = STANDARD.decode_slice(&*encoded, &mut blob).ok()?;
    blob.truncate(length);
    Some(blob)
}

/// Cipher, public key and private part of a file with one key.
fn parts(blob: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut fields = Fields(blob.strip_prefix(MAGIC)?);
    let cipher = fields.string()?;
    let (_function, _options) = (fields.string()?, fields.string()?);
    let (count, rest) = fields.0.split_first_chunk::<4>()?;
    if u32::from_be_bytes(*count) != 1 {
        return None;
    }
    fields = Fields(rest);
    let public = fields.string()?;
    Some((cipher, public, fields.last()?))
}

/// The seed in the private part of a key without a passphrase: two equal numbers, the key, its comment, and 1, 2, 3… up to
/// the cipher's block.
fn seed(private: &[u8], public: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let (numbers, rest) = private.split_first_chunk::<8>()?;
    if numbers[..4] != numbers[4..] {
        return None;
    }
    let mut fields = Fields(rest);
    let (kind, half, both) = (fields.string()?, fields.string()?, fields.string()?);
    let _comment = fields.string()?;
    let is_padding = fields.0.len() < 8 && fields.0.iter().zip(1u8..).all(|(found, wanted)| *found == wanted);
    let (seed, end) = both.split_first_chunk::<32>()?;
    let fits = kind == KIND && end == half && public == ssh::strings(&[KIND, half]) && is_padding;
    fits.then(|| Zeroizing::new(*seed))
}
