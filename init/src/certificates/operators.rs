//! Operators: ssh public keys that may command the cluster, and the client certificates issued for them.
//!
//! A certificate is issued for the operator's own public key, so that it is public data: of use only to who holds the
//! private half, which never was on the machine.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::DAY;
use super::profile::{Authority, Purpose, Request};

/// How long an operator's certificate is valid, in seconds.
pub const LIFETIME: u64 = 30 * DAY;

/// Where operators' certificates are kept; public, mode 0755.
pub const DIRECTORY: &str = "/var/lib/kubeboot/operators";

/// One ssh public key that TLS can use too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorKey {
    /// SHA-256 of the key's wire form, as `ssh-keygen -l` hashes it.
    digest: [u8; 32],
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The public key's bits as they stand in a certificate.
    pub public_key: Vec<u8>,
}

/// Why an ssh public key can't be an operator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Not `type base64 [comment]`.
    #[error("not an ssh public key: expected \"type base64 [comment]\"")]
    Form,
    /// The base64 part says something else than the type in front of it, or is damaged.
    #[error("damaged ssh public key of type {0}")]
    Damaged(String),
    /// No TLS client certificate can be issued for such a key.
    #[error("ssh keys of type {0} can't hold a client certificate; expected ssh-ed25519 or ecdsa-sha2-nistp256/384")]
    Kind(String),
}

/// DER in front of the key bits: SEQUENCE { SEQUENCE { algorithm }, BIT STRING } (RFC 8410, RFC 5480).
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
pub(super) const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];

impl OperatorKey {
    /// Reads one line of `authorized_keys` without options: `type base64 [comment]` (RFC 4253 §6.6, RFC 5656 §3.1,
    /// RFC 8709 §4).
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn parse(line: &str) -> Result<Self, Unfit> {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(encoded)) = (words.next(), words.next()) else { return Err(Unfit::Form) };
        let (curve, prefix, length): (Option<&str>, &[u8], usize) = match kind {
            "ssh-ed25519" => (None, ED25519_PREFIX, 32),
            "ecdsa-sha2-nistp256" => (Some("nistp256"), P256_PREFIX, 65),
            "ecdsa-sha2-nistp384" => (Some("nistp384"), P384_PREFIX, 97),
            other if other.chars().all(|c| c.is_ascii_alphanumeric() || "-@.".contains(c)) => {
                return Err(Unfit::Kind(other.to_owned()));
            }
            _ => return Err(Unfit::Form),
        };
        let damaged = || Unfit::Damaged(kind.to_owned());
        let wire = STANDARD.decode(encoded).map_err(|_| damaged())?;
        let (named, rest) = string(&wire).ok_or_else(damaged)?;
        let (curve_named, rest) = if curve.is_some() { string(rest).ok_or_else(damaged)? } else { (&[][..], rest) };
        let (key, rest) = string(rest).ok_or_else(damaged)?;
        let fits = named == kind.as_bytes()
            && curve.is_none_or(|curve| curve.as_bytes() == curve_named && key.first() == Some(&4))
            && key.len() == length
            && rest.is_empty();
        if !fits {
            return Err(damaged());
        }
        Ok(OperatorKey { digest: Sha256::digest(&wire).into(), spki: [prefix, key].concat(), public_key: key.to_vec() })
    }

    /// `SHA256:…` as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(self.digest))
    }

    /// The file that holds its certificate.
    pub fn path(&self) -> String {
        format!("{DIRECTORY}/{}.crt", URL_SAFE_NO_PAD.encode(self.digest))
    }

    /// What its certificate says.
    pub fn request(&self) -> Request {
        Request {
            authority: Authority::Cluster,
            common_name: format!("operator:{}", &STANDARD_NO_PAD.encode(self.digest)[..12]),
            organizations: vec!["kubeadm:cluster-admins".to_owned()],
            uid: None,
            names: Vec::new(),
            purpose: Purpose::Client,
            lifetime: LIFETIME,
        }
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// A string of the ssh wire format (RFC 4251 §5) and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Made with ssh-keygen for this test; the private halves were deleted.
    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFtyLNW11EJMUPiwRcHaaW9KjV8Vl09jxBNwH+DyAUnb ada@example.org";
    const P256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBCPlFGXVwCdD2Mlrd6dvjfZuW/Kk9+Dyyu3BUvc9+UsvQkTY/3ODr498Nmvky0s90GM+vKaAhD1Nr9SeC1ohpr4=";
    const P384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBAhuxxhvNE4Y3yOvO5mmoHaKkeZ8iOY0X8U1EoFRZRIpPFQrzv4PYL/2Yp38KLN8zKPpd1Vq+1eCb66z5+dWx7rGGHx0MuXVqGCsTwkD+W0IWC2xZjCw++n06KGa9wN0Mg== c";

    #[test]
    fn fingerprints_are_those_of_ssh_keygen() {
        let fingerprints = [ED25519, P256, P384].map(|line| OperatorKey::parse(line).unwrap().fingerprint());
        assert_eq!(
            fingerprints,
            [
                "SHA256:5C+RSPN3nlxuQnSYrL963odKVePs0jLcRwhfsuwNN18",
                "SHA256:rC8KpNBu1c+F3c1Qs2QQHLin/T5Am7r/Z1Zw3tJKEbk",
                "SHA256:y8L1xPg3p4HtPXvV7Ra0k4Swf2YhHSPhGz0GFOl+wio"
            ]
        );
    }

    #[test]
    fn keys_that_tls_can_not_use_are_refused_with_their_kind() {
        let error = OperatorKey::parse("sk-ssh-ed25519@openssh.com AAAA").unwrap_err();
        assert_eq!(error, Unfit::Kind("sk-ssh-ed25519@openssh.com".into()));
        assert_eq!(OperatorKey::parse("ssh-ed25519"), Err(Unfit::Form));
        let mislabelled = ED25519.replace("ssh-ed25519 ", "ecdsa-sha2-nistp256 ");
        assert_eq!(OperatorKey::parse(&mislabelled), Err(Unfit::Damaged("ecdsa-sha2-nistp256".into())));
    }

    proptest! {
        #[test]
        fn a_changed_key_never_parses_as_the_same(position in 0usize..60, byte: u8) {
            let key = OperatorKey::parse(ED25519).unwrap();
            let mut line = ED25519.as_bytes().to_vec();
            prop_assume!(line[12 + position] != byte && !byte.is_ascii_whitespace());
            line[12 + position] = byte;
            let changed = std::str::from_utf8(&line).ok().and_then(|line| OperatorKey::parse(line).ok());
            prop_assert_ne!(changed, Some(key));
        }

        #[test]
        fn no_line_makes_it_panic(line: String) {
            let _ = OperatorKey::parse(&line);
            let _ = OperatorKey::parse(&format!("ssh-ed25519 {}", STANDARD.encode(&line)));
        }
    }
}
