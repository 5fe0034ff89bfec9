//! Why somebody was refused, for the server's log; and what of it the other side may know.

use std::fmt;
use std::net::IpAddr;

use super::decision::CLOCKS;
use super::message::{Refusal, Versions};
use super::releases::Releases;
use super::ssh::SshFault;
use super::wire::Malformed;
use crate::certificates::Unix;
use crate::facts::NameProblem;
use crate::release::Version;
use crate::token::Joiner;

/// What is wrong with a token. The joiner learns only that it is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// No such token.
    Unknown,
    /// The signature is not by its key.
    Signature,
    /// It admits another role.
    Kind(Joiner),
    /// It has expired.
    Expired {
        /// By so many seconds.
        ago: u64,
    },
    /// It has no uses left.
    UsedUp,
    /// It admits more than one control plane.
    NotSingle,
}

/// What ended the founding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Its time.
    Time,
    /// The expected machines have joined.
    Count,
}

/// Why somebody was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The hint fits no fingerprint of this cluster on this connection.
    OtherCluster,
    /// No common version of the protocol.
    Versions {
        /// What is spoken here.
        ours: Versions,
        /// What the other side speaks.
        theirs: Versions,
    },
    /// A worker was asked to take a machine in.
    Worker,
    /// A worker has no word of the cluster's about itself that is good now.
    NoStatement,
    /// Not a message.
    Message(Malformed),
    /// A message out of its turn.
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// A joiner without a token, or a returning node with one.
    Form,
    /// The node key's signature is not for this connection, role and exchange.
    NodeSignature,
    /// The token is not good.
    Token(TokenFault),
    /// The founding window for control planes has ended.
    WindowClosed(Window),
    /// A returning node that is no node.
    UnknownNode,
    /// The node key was removed.
    Removed,
    /// The node key is a node's with another name or role.
    OtherNode {
        /// The node's name.
        name: String,
        /// Its role.
        role: Joiner,
    },
    /// Another machine has the name.
    NameTaken {
        /// The name.
        name: String,
        /// Its role.
        role: Joiner,
        /// Its address.
        address: IpAddr,
    },
    /// The name is none that a node can have.
    Name(NameProblem),
    /// The address is none that a node can have.
    Address(IpAddr),
    /// Another node has the address.
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The node.
        by: String,
    },
    /// A control plane came back with another address.
    Moved {
        /// The one on record.
        from: IpAddr,
        /// The new one.
        to: IpAddr,
    },
    /// The clocks differ by too much.
    Clock {
        /// The server's.
        ours: Unix,
        /// The joiner's.
        theirs: Unix,
    },
    /// Its Kubernetes does not go with the cluster's.
    Skew {
        /// What it wants to be.
        role: Joiner,
        /// Its release.
        theirs: Version,
        /// The oldest API server's.
        oldest: Version,
        /// The newest API server's.
        newest: Version,
    },
    /// A certificate request asks for something else than it may.
    Request(String),
    /// The ssh signature is not good.
    OperatorSignature(SshFault),
    /// The ssh key is no operator's.
    NotAnOperator,
    /// Others took uses of the token at the same time, again and again.
    Contended,
    /// The host could not look, write or issue; with its reason.
    Host(String),
    /// Nothing came in time.
    TimedOut,
}

impl Reason {
    /// What the other side may know of it; none: nothing is said.
    pub fn public(&self) -> Option<Refusal> {
        Some(match self {
            Reason::OtherCluster => Refusal::OtherCluster,
            Reason::Versions { ours, .. } => Refusal::Versions(*ours),
            Reason::Message(_) | Reason::Unexpected { .. } | Reason::Form | Reason::Name(_) | Reason::Request(_) => {
                Refusal::Malformed
            }
            Reason::NodeSignature | Reason::Token(_) | Reason::UnknownNode | Reason::Worker => Refusal::NotAccepted,
            Reason::OperatorSignature(_) | Reason::NotAnOperator => Refusal::NotAccepted,
            Reason::WindowClosed(_) => Refusal::WindowClosed,
            Reason::Removed => Refusal::Removed,
            Reason::OtherNode { .. } => Refusal::OtherNode,
            Reason::NameTaken { .. } => Refusal::NameTaken,
            Reason::Address(_) | Reason::AddressTaken { .. } | Reason::Moved { .. } => Refusal::Address,
            Reason::Clock { .. } => Refusal::Clock,
            Reason::Skew { oldest, newest, .. } => Refusal::Skew { oldest: *oldest, newest: *newest },
            Reason::Contended | Reason::Host(_) | Reason::NoStatement => Refusal::Busy,
            Reason::TimedOut => return None,
        })
    }
}

/// The role in words.
pub fn role(joiner: Joiner) -> &'static str {
    match joiner {
        Joiner::Worker => "worker",
        Joiner::ControlPlane => "control plane",
    }
}

/// So many seconds, as people say it where the exact number does not matter.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenFault::Unknown => f.write_str("its token is unknown: never made here, revoked, or long expired"),
            TokenFault::Signature => f.write_str("its token's signature is not for this connection and exchange"),
            TokenFault::Kind(kind) => write!(f, "its token admits a {}", role(*kind)),
            TokenFault::Expired { ago } => write!(f, "its token expired {} ago", span(*ago)),
            TokenFault::UsedUp => f.write_str("its token has no uses left"),
            TokenFault::NotSingle => {
                f.write_str("its token would admit more than one control plane, which only the founding window's may")
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::OtherCluster => f.write_str(
                "it means another cluster, or somebody stands between: its hint fits no fingerprint of this cluster on \
                 this connection",
            ),
            Reason::Versions { ours, theirs: Versions { oldest, newest } } => {
                write!(f, "it speaks versions {oldest} to {newest}, this server {} to {}", ours.oldest, ours.newest)
            }
            Reason::Worker => f.write_str("this is a worker, which takes no machine in: control planes do"),
            Reason::NoStatement => f.write_str(
                "this worker can't prove what it is: it has no statement of the cluster's that is good now. Its agent asks a \
                 control plane for one, within half an hour",
            ),
            Reason::Message(malformed) => write!(f, "what it sent is no message: {malformed}"),
            Reason::Unexpected { expected, found } => write!(f, "expected {expected}, found {found}"),
            Reason::Form => f.write_str("a joiner presents a token and a returning node none: this was the other way"),
            Reason::NodeSignature => {
                f.write_str("its node key's signature is not for this connection, role and exchange")
            }
            Reason::Token(fault) => fault.fmt(f),
            Reason::WindowClosed(Window::Time) => f.write_str(
                "the founding window for control planes ended 24 h after the founding. Fix: a fresh token, from kubeboot \
                 token create --role control-plane",
            ),
            Reason::WindowClosed(Window::Count) => f.write_str(
                "as many control planes as were expected have joined. Fix: a fresh token, from kubeboot token create \
                 --role control-plane",
            ),
            Reason::UnknownNode => f.write_str("no node has its key"),
            Reason::Removed => f.write_str("its node key was removed from the cluster"),
            Reason::OtherNode { name, role: as_role } => {
                write!(f, "its node key is that of the {} {name}", role(*as_role))
            }
            Reason::NameTaken { name, role: as_role, address } => {
                let other = role(*as_role);
                write!(f, "another machine has its name: a {other} at {address}. ")?;
                write!(f, "Fix, if that one is gone: kubeboot --node ADDRESS node remove {name}, with this machine's address")
            }
            Reason::Name(problem) => write!(f, "its name is none that a node can have: {problem}"),
            Reason::Address(address) => write!(f, "its address {address} is none that a node can have"),
            Reason::AddressTaken { address, by } => write!(f, "its address {address} is that of the node {by}"),
            Reason::Moved { from, to } => write!(f, "it is the control plane at {from} and comes with {to}"),
            Reason::Clock { ours, theirs } => {
                let way = if theirs < ours { "behind" } else { "ahead of" };
                let (by, most) = (span(ours.abs_diff(*theirs)), span(CLOCKS));
                write!(f, "its clock is {by} {way} this one's; at most {most} are allowed")
            }
            Reason::Skew { role: as_role, theirs, oldest, newest } => {
                let releases = Releases { oldest: *oldest, newest: *newest };
                let of = if oldest == newest { "of" } else { "from" };
                write!(f, "its release {theirs} as a {} does not go with API servers {of} {releases}", role(*as_role))
            }
            Reason::Request(why) => write!(f, "its certificate request is not what it may ask for: {why}"),
            Reason::OperatorSignature(fault) => write!(f, "its ssh signature is not good: {fault}"),
            Reason::NotAnOperator => f.write_str("its ssh key is no operator's"),
            Reason::Contended => f.write_str("others used the same token at the same moment; it may try again"),
            Reason::Host(why) => f.write_str(why),
            Reason::TimedOut => f.write_str("nothing came in time"),
        }
    }
}
