//! What signatures are made over, and how the two sides recognise that they mean the same cluster.
//!
//! Every signature is over `label ‖ exporter ‖ transcript`: the label says who signs and as what, so a signature can't
//! serve in another place; the exporter belongs to one TLS connection, so it can't serve on another; the transcript is
//! every byte that was said before, so nothing can have been changed, cut or put in.

use aws_lc_rs::{constant_time, digest, hmac};

use super::message::Purpose;
use crate::token::{Joiner, SECRET};

/// The label of the TLS exporter (RFC 8446 §7.5), without a context.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-kubeboot-enrolment-1";

/// What a TLS connection alone has: 32 bytes that both of its ends, and nobody else, can derive.
pub type Exporter = [u8; 32];

/// Who signs, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// The server, with the cluster's identity key.
    Server,
    /// A joiner, with its token's join key.
    Token(Joiner),
    /// A joiner or a returning node, with its node key.
    Node(Purpose),
    /// An operator, with an ssh key, to a control plane.
    Operator,
    /// A worker, with its node key, to an operator.
    Worker,
    /// An operator, with an ssh key, to a worker.
    OperatorOfWorker,
}

impl Label {
    /// The label's bytes. None is a prefix of another, because each ends in its only zero byte.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Label::Server => b"kubeboot enrolment 1 server\0",
            Label::Token(Joiner::Worker) => b"kubeboot enrolment 1 token of a worker\0",
            Label::Token(Joiner::ControlPlane) => b"kubeboot enrolment 1 token of a control plane\0",
            Label::Node(Purpose::Join(Joiner::Worker)) => b"kubeboot enrolment 1 new worker\0",
            Label::Node(Purpose::Join(Joiner::ControlPlane)) => b"kubeboot enrolment 1 new control plane\0",
            Label::Node(Purpose::Return) => b"kubeboot enrolment 1 returning node\0",
            Label::Operator | Label::Node(Purpose::Operate) => b"kubeboot enrolment 1 operator\0",
            Label::Worker => b"kubeboot enrolment 2 worker\0",
            Label::OperatorOfWorker => b"kubeboot enrolment 2 operator of a worker\0",
        }
    }
}

/// A running hash over messages, each behind its length.
#[derive(Clone)]
pub struct Transcript(digest::Context);

impl Transcript {
    /// Of nothing said yet.
    pub fn new() -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"kubeboot enrolment 1 transcript\0");
        Transcript(context)
    }

    /// Takes in a message, or the part of one that stands before its signatures.
    pub fn add(&mut self, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("messages are bounded");
        self.0.update(&length.to_be_bytes());
        self.0.update(message);
    }

    /// What `label` signs after one more part.
    pub fn signed(&self, part: &[u8], label: Label, exporter: &Exporter) -> Vec<u8> {
        let mut whole = self.clone();
        whole.add(part);
        [label.bytes(), exporter, whole.0.finish().as_ref()].concat()
    }
}

impl Default for Transcript {
    fn default() -> Self {
        Transcript::new()
    }
}

/// Bytes of a [`hint`].
pub const HINT: usize = 16;

/// Which cluster is meant, said so that only who knows the fingerprint already can tell, and on this connection only.
///
/// So a server shows its identity to nobody who does not know it, and a man in the middle who does not know the
/// fingerprint learns nothing: his two connections have two exporters, and a hint that he passes on fits neither cluster.
pub fn hint(fingerprint: &[u8; SECRET], exporter: &Exporter) -> [u8; HINT] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, fingerprint));
    context.update(b"kubeboot enrolment 1 hint\0");
    context.update(exporter);
    context.sign().as_ref()[..HINT].try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// Whether a hint means the cluster of one of these fingerprints. Looks at all of them, in the same time.
pub fn is_meant(found: &[u8; HINT], fingerprints: &[[u8; SECRET]], exporter: &Exporter) -> bool {
    let same = |one| constant_time::verify_slices_are_equal(&hint(one, exporter), found).is_ok();
    fingerprints.iter().map(same).fold(false, |any, one| any | one)
}
