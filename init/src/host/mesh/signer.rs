//! A control plane's record key: made anew by each process, certified by the cluster's identity.

use crate::certificates::Unix;
use crate::enrolment::Sign as _;
use crate::host::enrolment::issue;
use crate::host::keys::{self, Ed25519};
use crate::host::root::Root;
use crate::mesh::publish::{Draft, SIGNER_LIFE, certify};
use crate::mesh::record::Certificate;
use crate::mesh::{NodeId, Record};
use crate::paths;

/// A record key and its certificate. Holds a secret: no Debug.
pub struct Signer {
    cluster: [u8; 16],
    key: Ed25519,
    certificate: Certificate,
}

impl Signer {
    /// Makes a record key and has it certified by the identity key on disk, which is not kept.
    ///
    /// # Errors
    /// In words: the identity key can't be read, or no key can be made.
    pub fn new(root: &Root, cluster: [u8; 16], node: NodeId, now: Unix) -> Result<Self, String> {
        let identity = issue::key(root, paths::IDENTITY_KEY)?;
        let pem = keys::ed25519().map_err(|error| error.to_string())?;
        let key = Ed25519::load(pem.as_bytes()).map_err(|error| error.to_string())?;
        let certificate = certify(&cluster, node, key.public(), now, &identity);
        Ok(Signer { cluster, key, certificate })
    }

    /// Whether it is of use for long enough: else another one is made.
    pub fn lasts(&self, now: Unix) -> bool {
        let left = self.certificate.not_after.saturating_sub(now);
        // A clock that was set back leaves one that is valid for too long.
        (SIGNER_LIFE / 2..=SIGNER_LIFE).contains(&left)
    }

    /// Signs a record.
    pub fn sign(&self, draft: Draft, now: Unix) -> Record {
        draft.sign(&self.cluster, self.certificate, now, &self.key)
    }
}
