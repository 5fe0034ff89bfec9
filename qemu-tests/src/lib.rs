//! Tests of kubeboot on real machines: what a scenario is, the machines it runs on, and how runs are reported.
//!
//! A scenario asks for a machine by what it needs (firmware, credentials, several machines) and never learns which
//! backend gave it: QEMU (the real image: firmware, boot loader, verity) or user-mode Linux (quick, several at once).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this crate runs on the build machine: it starts machines, and reads and writes files itself"
)]

pub mod apt;
pub mod benchmark;
pub mod cli;
pub mod command;
pub mod disk;
pub mod fast;
pub mod janitor;
pub mod kubectl;
pub mod lab;
pub mod machine;
pub mod oci;
pub mod qemu;
pub mod random;
pub mod runner;
pub mod scenario;
pub mod scenarios;
pub mod subject;
pub mod transcript;
pub mod uml;
pub mod volumes;
pub mod wait;
