//! Enrolment on the wire: TLS and messages for both sides, and the server that a control plane runs.

pub mod channel;
pub mod tls;
