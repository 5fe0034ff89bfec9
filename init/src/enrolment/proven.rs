//! The server's proof, as who connected judges it: before it is good, nothing that depends on a secret is sent. A machine
//! takes a control plane's alone, an operator a worker's too.

use super::failure::{Failure, Impostor};
use super::message::{Founded, Hello, Message, Proof, Purpose, Refusal, STATEMENTS, Versions, WorkerProof};
use super::statement::Fault;
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

/// Who has proven to be of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A control plane.
    ControlPlane,
    /// A worker.
    Worker {
        /// Its name. Of visible characters only.
        name: String,
    },
}

/// A server that has proven to be the cluster's.
pub(super) struct Proven {
    pub(super) cluster: Cluster,
    pub(super) peer: Peer,
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

    /// Judges the answer to the hello, which has to be a control plane's.
    pub(super) fn answered(self, bytes: &[u8]) -> Result<Proven, Failure> {
        match Message::decode(bytes).map_err(Failure::Nonsense)? {
            Message::Proof(proof) => self.by_a_control_plane(bytes, &proof),
            Message::Refusal(refusal) => Err(Failure::Unproven(refusal)),
            other => Err(Failure::Unexpected { expected: "proof", found: other.name() }),
        }
    }

    /// Judges the answer to the hello at `now`, which may be any node's.
    pub(super) fn answered_by_any(self, now: Unix, bytes: &[u8]) -> Result<Proven, Failure> {
        match Message::decode(bytes).map_err(Failure::Nonsense)? {
            Message::WorkerProof(proof) => self.by_a_worker(now, bytes, &proof),
            _ => self.answered(bytes),
        }
    }

    fn by_a_control_plane(self, bytes: &[u8], proof: &Proof) -> Result<Proven, Failure> {
        if self.versions.agreed(proof.versions).is_none() {
            return Err(Failure::Unproven(Refusal::Versions(proof.versions)));
        }
        let cluster = vouched(&proof.cluster, &self.fingerprint).map_err(Failure::Impostor)?;
        self.signed(bytes, &proof.cluster.identity_key, Label::Server, &proof.signature)?;
        Ok(self.proven(bytes, cluster, proof.time, Peer::ControlPlane))
    }

    /// The fingerprint vouches for the identity key, that for the statement, and the statement for the node key.
    fn by_a_worker(self, now: Unix, bytes: &[u8], proof: &WorkerProof) -> Result<Proven, Failure> {
        if self.versions.agreed(proof.versions).is_none_or(|agreed| agreed < STATEMENTS) {
            return Err(Failure::Unproven(Refusal::Versions(proof.versions)));
        }
        let cluster = vouched(&proof.cluster, &self.fingerprint).map_err(Failure::Impostor)?;
        let (claimed, statement) = (&proof.cluster, &proof.statement);
        statement.verify(&claimed.id, &claimed.identity_key, now).map_err(|fault| match fault {
            // What the cluster has never said of anybody is somebody's lie; what it said once may be of a worker that was
            // removed, or heard no control plane for long.
            Fault::Forged | Fault::Role => Failure::Impostor(Impostor::Statement(fault)),
            Fault::Ended { .. } | Fault::Future => Failure::Stated { name: statement.name.clone(), fault },
        })?;
        self.signed(bytes, &statement.key, Label::Worker, &proof.signature)?;
        let peer = Peer::Worker { name: statement.name.clone() };
        Ok(self.proven(bytes, cluster, proof.time, peer))
    }

    /// Whether that key signed the message, under that label, on this connection.
    fn signed(&self, bytes: &[u8], key: &[u8; 32], label: Label, signature: &[u8; 64]) -> Result<(), Failure> {
        let signed = self.transcript.signed(Proof::signed_part(bytes), label, &self.exporter);
        match check::ed25519_verifies(key, &signed, signature) {
            true => Ok(()),
            false => Err(Failure::Impostor(Impostor::Signature)),
        }
    }

    fn proven(self, bytes: &[u8], cluster: Cluster, time: Unix, peer: Peer) -> Proven {
        let Opened { exporter, mut transcript, .. } = self;
        transcript.add(bytes);
        Proven { cluster, peer, time, exporter, transcript }
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
