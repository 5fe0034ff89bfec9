//! Who may be what in a cluster, and for how long: the certificates of a node as data, and the rules by which one on
//! disk is kept, renewed or refused.
//!
//! File names and subjects are kubeadm's (`k8s.io/kubernetes/cmd/kubeadm/app/phases/certs`), so that existing tools
//! and documents fit. What differs: ECDSA P-256 everywhere, random 128-bit serials, a certificate authority of its own
//! for what kubelets serve with (else a kubelet could pose as an API server), and node certificates of seven days.

pub mod check;
pub mod expiry;
pub mod operators;
pub mod profile;
#[cfg(test)]
pub mod sample;
pub mod signing_request;

pub use check::{Fault, Inspected};
pub use expiry::{Standing, Validity, renewals};
pub use operators::OperatorKey;
pub use profile::{Authority, Form, Leaf, Purpose, Request, San, Subject};

/// Wall-clock time in seconds since 1970-01-01T00:00:00Z.
pub type Unix = u64;

/// Seconds in a day.
pub const DAY: u64 = 24 * 60 * 60;
