//! kubeboot: a machine becomes a Kubernetes node by itself.
//!
//! Reading order and invariants: `docs/architecture.md`.

pub mod archive;
pub mod balancer;
pub mod certificates;
pub mod commands;
pub mod discovery;
pub mod disk;
pub mod enrolment;
pub mod etcd;
pub mod exit;
pub mod facts;
pub mod health;
pub mod host;
pub mod kubernetes;
pub mod mesh;
pub mod node_removal;
pub mod operators;
pub mod paths;
pub mod plan;
pub mod preflight;
pub mod release;
pub mod settings;
pub mod slots;
pub mod sources;
pub mod timeline;
pub mod token;
pub mod words;
