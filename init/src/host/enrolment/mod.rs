//! Enrolment on the wire: TLS and messages for both sides, and the server that a control plane runs.

pub mod channel;
pub mod cluster;
pub mod issue;
pub mod server;
pub mod store;
pub mod tls;

#[cfg(test)]
pub(crate) mod tests;
