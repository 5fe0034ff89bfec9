//! The server's proof, as who connected judges it: before it is good, nothing that depends on a secret is sent.

use super::failure::{Failure, Impostor};
use super::message::{Founded, Hello, Message, Proof, Purpose, Versions};
use super::transcript::{Exporter, Label, Transcript, hint};
use crate::certificates::{Unix, check};
use crate::plan::record::Cluster;
use crate::token::{SECRET, fingerprint};

/// An exchange whose hello was sent.
pub(super) struct Opened {
    exporter: Exporter,
    transcript: Transcript,
    versions: Versions,
    /// Of the key that vouches for the cluster.
    fingerprint: [u8; SECRET],
}

/// A server that has proven to be the cluster's.
pub(super) struct Proven {
    pub(super) cluster: Cluster,
    pub(super) time: Unix,
    exporter: Exporter,
    transcript: Transcript,
}

impl Opened {
    /// Begins an exchange. Returns it and the hello.
    pub(super) fn new(
        versions: Versions,
        purpose: Purpose,
        fingerprint: [u8; SECRET],
        exporter: Exporter,
        nonce: [u8; 32],
    ) -> (Self, Vec<u8>) {
        let hello = Hello { versions, purpose, nonce, hint: hint(&fingerprint, &exporter) };
        let bytes = Message::Hello(hello).encode().expect("a hello has fixed fields").to_vec();
        let mut transcript = Transcript::new();
        transcript.add(&bytes);
        (Opened { exporter, transcript, versions, fingerprint }, bytes)
    }

    /// Judges the answer to the hello.
    pub(super) fn answered(self, bytes: &[u8]) -> Result<Proven, Failure> {
        let proof = match Message::decode(bytes).map_err(Failure::Nonsense)? {
            Message::Proof(proof) => proof,
            Message::Refusal(refusal) => return Err(Failure::Unproven(refusal)),
            other => return Err(Failure::Unexpected { expected: "proof", found: other.name() }),
        };
        if self.versions.agreed(proof.versions).is_none() {
            return Err(Failure::Unproven(super::message::Refusal::Versions(proof.versions)));
        }
        let cluster = vouched(&proof.cluster, &self.fingerprint).map_err(Failure::Impostor)?;
        let signed = self.transcript.signed(Proof::signed_part(bytes), Label::Server, &self.exporter);
        if !check::ed25519_verifies(&proof.cluster.identity_key, &signed, &proof.signature) {
            return Err(Failure::Impostor(Impostor::Signature));
        }
        let Opened { exporter, mut transcript, .. } = self;
        transcript.add(bytes);
        Ok(Proven { cluster, time: proof.time, exporter, transcript })
    }
}

impl Proven {
    /// What `label` signs after one more part.
    pub(super) fn signed(&self, part: &[u8], label: Label) -> Vec<u8> {
        self.transcript.signed(part, label, &self.exporter)
    }
}

/// Whether the fingerprint vouches for the claimed identity key: it is that key's own, or that of a founding key which
/// certified it.
fn vouched(claimed: &Founded, fingerprint_known: &[u8; SECRET]) -> Result<Cluster, Impostor> {
    let mut cluster = Cluster::unsigned(claimed.id, claimed.founded, &claimed.founding_key, &claimed.identity_key);
    cluster.certify(&claimed.certificate);
    let certified = check::ed25519_verifies(&claimed.founding_key, &cluster.certified(), &claimed.certificate);
    match (fingerprint(&claimed.identity_key), fingerprint(&claimed.founding_key)) {
        _ if !certified => Err(Impostor::Certificate),
        (identity, founding) if identity == *fingerprint_known || founding == *fingerprint_known => Ok(cluster),
        _ => Err(Impostor::Fingerprint),
    }
}
