//! Why the server does not do what it was asked.

use super::{Versions, read_version, write_version};
use crate::enrolment::wire::{Malformed, Reader, Writer};
use crate::release::Version;

/// Why the server does not do what it was asked: as much as the other side may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No cluster that is meant is served here. Comes before the server's proof, so anybody may have said it.
    OtherCluster,
    /// No version of the protocol is common. Comes before the server's proof.
    Versions(Versions),
    /// The message is none, or what it asks for is not what its sender may ask for.
    Malformed,
    /// The token, the node key or the operator's key is none that is accepted.
    NotAccepted,
    /// The founding window for control planes has ended.
    WindowClosed,
    /// Another machine has this name.
    NameTaken,
    /// This machine's key belongs to a node with another name or role.
    OtherNode,
    /// This machine's key was removed from the cluster.
    Removed,
    /// The address can't be a node's, or belongs to another.
    Address,
    /// The clocks differ by too much.
    Clock,
    /// The release's Kubernetes does not go with the cluster's.
    Skew {
        /// The oldest API server.
        oldest: Version,
        /// The newest API server.
        newest: Version,
    },
    /// Not now; it may work in a while.
    Busy,
}

impl Refusal {
    pub(super) fn write(&self, to: &mut Writer) {
        to.byte(match self {
            Refusal::OtherCluster => 1,
            Refusal::Versions(_) => 2,
            Refusal::Malformed => 3,
            Refusal::NotAccepted => 4,
            Refusal::WindowClosed => 5,
            Refusal::NameTaken => 6,
            Refusal::OtherNode => 7,
            Refusal::Removed => 8,
            Refusal::Address => 9,
            Refusal::Clock => 10,
            Refusal::Skew { .. } => 11,
            Refusal::Busy => 12,
        });
        match self {
            Refusal::Versions(versions) => versions.write(to),
            Refusal::Skew { oldest, newest } => {
                write_version(*oldest, to);
                write_version(*newest, to);
            }
            _ => {}
        }
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte("refusal")? {
            1 => Refusal::OtherCluster,
            2 => Refusal::Versions(Versions::read(from)?),
            3 => Refusal::Malformed,
            4 => Refusal::NotAccepted,
            5 => Refusal::WindowClosed,
            6 => Refusal::NameTaken,
            7 => Refusal::OtherNode,
            8 => Refusal::Removed,
            9 => Refusal::Address,
            10 => Refusal::Clock,
            11 => Refusal::Skew { oldest: read_version(from)?, newest: read_version(from)? },
            12 => Refusal::Busy,
            found => return Err(Malformed::Unknown { field: "refusal", found }),
        })
    }
}
