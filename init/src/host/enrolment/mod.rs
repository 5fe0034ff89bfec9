//! Enrolment on the wire: TLS and messages for both sides, and the server that control planes and workers run.

pub mod channel;
pub mod cluster;
pub mod issue;
pub mod server;
pub mod store;
pub mod tls;
pub mod worker;

#[cfg(test)]
pub(crate) mod tests;
