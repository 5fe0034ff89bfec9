//! What is still to be done on this machine, as data: what should be, compared with what is.
//!
//! Every boot makes a plan by the same path. A plan holds only what outlives a power-off; what goes at power-off is
//! rendered anew at each boot (`kubernetes::renders`). On a finished machine the plan is empty.

pub mod control_plane;
pub mod founder;
mod listing;
mod parts;
pub mod record;
pub mod sight;
mod state;
pub mod worker;

use std::fmt;

use serde::Serialize;

use crate::certificates::{Authority, Fault, Leaf, OperatorKey, Request};
use crate::paths;

pub use founder::{Founder, plan};
pub use listing::{certificates, certificates_of_worker};
pub use sight::{Entry, Sight};
pub use worker::Worker;

/// One thing to do. Steps hold no secret: keys are made where they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Step {
    /// Remove a file that nothing refers to.
    Remove {
        /// The file.
        path: String,
        /// Why.
        because: String,
    },
    /// Make a directory, or give it its mode.
    Directory {
        /// The directory; its parent exists.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Give a file its mode.
    Mode {
        /// The file.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Write a file that holds no secret.
    Write {
        /// The file.
        path: String,
        /// Permission bits.
        mode: u32,
        /// All of it.
        contents: String,
        /// Why.
        because: String,
    },
    /// Make the seed of a cluster whose founder was given none.
    Seed,
    /// Make the cluster's identity key.
    Identity,
    /// Write who the cluster is: an id, and the identity key certified by the founding key.
    Cluster,
    /// Make a certificate authority: key and self-signed certificate.
    Authority {
        /// Which.
        authority: Authority,
        /// Why.
        because: String,
    },
    /// Make the key that signs ServiceAccount tokens.
    ServiceAccountKey {
        /// Why.
        because: String,
    },
    /// Write the public half of the key that signs ServiceAccount tokens.
    ServiceAccountPublicKey {
        /// Why.
        because: String,
    },
    /// Make the key that encrypts Secrets in etcd.
    EncryptionKey {
        /// Why.
        because: String,
    },
    /// Make a key and have an authority sign a certificate for it.
    Issue {
        /// Which.
        leaf: Leaf,
        /// What it has to say.
        request: Request,
        /// Why.
        because: String,
    },
    /// Sign a certificate for an operator's public key.
    Operator {
        /// Fingerprint of the ssh key, `SHA256:…`.
        key: String,
        /// The key itself.
        #[serde(skip)]
        public: OperatorKey,
        /// Why.
        because: String,
    },
    /// Make the key by which the cluster knows this machine again.
    NodeKey {
        /// Why.
        because: String,
    },
    /// Become a node of the cluster: ask a control plane, and write who the cluster is and the certificates that it grants.
    Join {
        /// Why.
        because: String,
    },
    /// Ask a control plane again, by the node key: for certificates, and where the API servers are.
    Return {
        /// Which certificates are written.
        leaves: Vec<Leaf>,
        /// Why.
        because: String,
    },
    /// Freeze the settings: this machine's own, and those that the cluster's nodes share, which came with the grant.
    Freeze {
        /// Why.
        because: String,
    },
    /// Put what was written so far in place, and go on when it is on disk.
    Flush,
}

impl Step {
    /// Why it is done; empty for steps that need no reason.
    pub fn because(&self) -> &str {
        match self {
            Step::Remove { because, .. }
            | Step::Write { because, .. }
            | Step::Authority { because, .. }
            | Step::ServiceAccountKey { because }
            | Step::ServiceAccountPublicKey { because }
            | Step::EncryptionKey { because }
            | Step::Issue { because, .. }
            | Step::Operator { because, .. }
            | Step::NodeKey { because }
            | Step::Join { because }
            | Step::Return { because, .. }
            | Step::Freeze { because } => because,
            Step::Directory { .. } | Step::Mode { .. } | Step::Seed | Step::Identity | Step::Cluster | Step::Flush => {
                ""
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Remove { path, .. } => write!(f, "remove {path}"),
            Step::Directory { path, mode } => write!(f, "directory {path}, mode {mode:04o}"),
            Step::Mode { path, mode } => write!(f, "mode {mode:04o} for {path}"),
            Step::Write { path, .. } => write!(f, "write {path}"),
            Step::Seed => f.write_str("make the cluster's seed"),
            Step::Identity => f.write_str("make the cluster's identity key"),
            Step::Cluster => f.write_str("found the cluster: id and certified identity"),
            Step::Authority { authority, .. } => write!(f, "make certificate authority {authority}"),
            Step::ServiceAccountKey { .. } => f.write_str("make the ServiceAccount signing key"),
            Step::ServiceAccountPublicKey { .. } => f.write_str("write the ServiceAccount public key"),
            Step::EncryptionKey { .. } => f.write_str("make the key that encrypts Secrets at rest"),
            Step::Issue { leaf, .. } => write!(f, "issue certificate {leaf}"),
            Step::Operator { key, .. } => write!(f, "issue a certificate for operator {key}"),
            Step::NodeKey { .. } => f.write_str("make this machine's node key"),
            Step::Join { .. } => f.write_str("join the cluster: its record, authorities and this node's certificates"),
            Step::Return { leaves, .. } if leaves.is_empty() => {
                f.write_str("ask a control plane where the API servers are, and for its word about this node")
            }
            Step::Return { leaves, .. } => {
                let names: Vec<&str> = leaves.iter().map(|leaf| leaf.name()).collect();
                write!(f, "ask a control plane for certificates again: {}", names.join(", "))
            }
            Step::Freeze { .. } => write!(f, "write {}: this machine's settings and the cluster's", paths::FROZEN),
            Step::Flush => f.write_str("wait until all this is on disk"),
        }
    }
}

/// Stored state that kubeboot will not replace by itself, or can't judge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Something that can't be made again is missing or damaged, and the cluster was founded with it.
    #[error("{path} ({what}) is {found}. It can't be made again: the cluster was founded with it")]
    Irreplaceable {
        /// The file.
        path: String,
        /// What it is.
        what: String,
        /// What is wrong.
        found: String,
    },
    /// Something that a worker can't get again is missing or damaged.
    #[error("{path} ({what}) is {found}. It can't be made again: the cluster knows this machine by it")]
    Lost {
        /// The file.
        path: String,
        /// What it is.
        what: String,
        /// What is wrong.
        found: String,
    },
    /// etcd's data is not there, and it was once.
    #[error(
        "{path} ({what}) is {found}, and this machine's cluster was Ready with it. etcd is not started: it would \
         begin an empty cluster under the same name"
    )]
    EtcdGone {
        /// The file or folder.
        path: String,
        /// What it is.
        what: String,
        /// What is wrong.
        found: String,
    },
    /// The machine is to found a cluster, and was joining one when it was interrupted.
    #[error("{path} is of a cluster that this machine was joining when it was interrupted, and now it is to found one")]
    Joining {
        /// The cluster's record.
        path: String,
    },
    /// By this clock a certificate authority is not valid yet.
    #[error("{path} ({what}) is not valid yet by this machine's clock, which is at {now} (seconds since 1970)")]
    Clock {
        /// The file.
        path: String,
        /// What it is.
        what: String,
        /// The clock.
        now: u64,
    },
}

impl Damaged {
    /// What to do about it.
    pub fn fix(&self) -> Vec<String> {
        match self {
            Damaged::Irreplaceable { path, .. } => {
                vec![
                    format!("restore {path} from a backup and restart the machine,"),
                    "or give the cluster up with: kubeboot reset".to_owned(),
                ]
            }
            Damaged::Lost { path, .. } => {
                vec![
                    format!("restore {path} from a backup and restart the machine,"),
                    "or join again as a new machine, with a fresh token, after: kubeboot reset".to_owned(),
                ]
            }
            Damaged::EtcdGone { .. } => {
                vec![
                    format!("restore {} from a snapshot or a backup and restart the machine,", paths::ETCD_DATA),
                    "or, where other control planes live: kubeboot node remove NAME on one of them, then here kubeboot \
                     reset, and join anew;"
                        .to_owned(),
                    "or give the cluster up with: kubeboot reset".to_owned(),
                ]
            }
            Damaged::Joining { .. } => {
                vec![
                    "go on joining: kubeboot.role=control-plane, with its token,".to_owned(),
                    "or found a cluster after: kubeboot reset".to_owned(),
                ]
            }
            Damaged::Clock { .. } => {
                vec!["set the clock, or let the machine reach a time server, and restart it.".to_owned()]
            }
        }
    }

    fn new(path: &str, what: impl Into<String>, found: impl Into<String>) -> Self {
        Damaged::Irreplaceable { path: path.to_owned(), what: what.into(), found: found.into() }
    }

    fn lost(path: &str, what: &str, found: impl Into<String>) -> Self {
        Damaged::Lost { path: path.to_owned(), what: what.to_owned(), found: found.into() }
    }

    fn of_fault(path: &str, what: &str, fault: &Fault, now: u64) -> Self {
        match fault {
            Fault::NotYetValid => Damaged::Clock { path: path.to_owned(), what: what.to_owned(), now },
            fault => Damaged::new(path, what, fault.to_string()),
        }
    }
}
