//! The only door to files, network, processes, clock and randomness.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the shell that effects live in")]

#[cfg(test)]
pub(crate) mod apart;
pub mod api;
pub mod balancer;
pub mod batch;
pub mod clock;
pub mod console;
pub mod discovery;
pub mod disk;
pub mod enrolment;
pub mod etcd;
pub mod execute;
pub mod facts;
pub mod files;
pub mod founder;
pub mod gates;
pub mod joining;
pub mod keys;
pub mod machine_id;
pub mod mesh;
pub mod mounts;
pub mod node;
pub mod node_removal;
pub mod observe;
pub mod oci;
pub mod operators;
pub mod os;
pub mod probe;
pub mod process;
pub mod random;
pub mod reconcile;
pub mod releases;
pub mod removal;
pub mod renewal;
pub mod report;
pub mod root;
#[cfg(test)]
pub(crate) mod sample;
pub mod seat;
pub mod sources;
pub mod systemd;
pub mod wait;
pub mod worker;
