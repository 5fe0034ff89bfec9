//! Why an exchange failed, for the side that began it: what the console says, and what to do about it.

use super::decision::KUBELET_OLDER;
use super::message::{Purpose, Refusal, Versions};
use super::operator::Peer;
use super::reason::{role, span};
use super::releases::Releases;
use super::statement::Fault;
use super::wire::Malformed;
use crate::certificates::Unix;
use crate::release::Version;
use crate::token::{Joiner, Kind};
use crate::words::Block;

/// Why a server has not proven to be the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impostor {
    /// The founding key has not certified the identity key that was shown.
    Certificate,
    /// What was shown is another cluster's: neither key has the known fingerprint.
    Fingerprint,
    /// The signature is not by the identity key, or a worker's by its node key, over this connection and exchange.
    Signature,
    /// The cluster has never said of anybody what a worker's statement says.
    Statement(Fault),
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The token is not for the role that this machine is to have.
    TokenKind {
        /// The role.
        role: Joiner,
        /// What the token is for.
        found: Kind,
    },
    /// What came is no message of this protocol.
    Nonsense(Malformed),
    /// A message out of its turn.
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
    /// A refusal by somebody who has not proven to be the cluster's.
    Unproven(Refusal),
    /// Somebody claims to be the cluster and is not.
    Impostor(Impostor),
    /// The cluster refuses this machine.
    Refused {
        /// Why.
        refusal: Refusal,
        /// This machine's clock.
        ours: Unix,
        /// The server's clock, a moment before.
        theirs: Unix,
    },
    /// The cluster refuses this operator.
    NotAdmitted {
        /// Why.
        refusal: Refusal,
        /// Who refuses.
        by: Peer,
    },
    /// What the cluster said of a worker does not hold now.
    Stated {
        /// The worker's name.
        name: String,
        /// Why not.
        fault: Fault,
    },
    /// The cluster admits this machine, and what it sent is not right; with what.
    BadGrant(String),
    /// What this machine wants to send does not fit the protocol.
    Own(Malformed),
    /// The other side closed the connection.
    Ended {
        /// Whether it had proven to be the cluster's.
        proven: bool,
    },
    /// Nothing came in time.
    TimedOut {
        /// Whether the other side had proven to be the cluster's.
        proven: bool,
    },
}

/// What a text about a failure tells besides.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What was wanted.
    pub purpose: Purpose,
    /// Whom it was wanted from, `ADDRESS:PORT`.
    pub server: &'a str,
    /// This machine's name.
    pub name: &'a str,
    /// This machine's release.
    pub release: Version,
}

/// The parts of a text.
struct Text {
    why: String,
    fix: Vec<String>,
}

fn text(why: impl Into<String>, fix: &[&str]) -> Text {
    Text { why: why.into(), fix: fix.iter().map(|line| (*line).to_owned()).collect() }
}

const TRY_AGAIN: &str = "none needed: it is tried again by itself";

impl Failure {
    /// Whether trying again by itself may help, so that a machine goes on waiting for its cluster: a clock is set, a name
    /// or an address becomes free, control planes are upgraded. What an impostor says never ends the waiting: it would be a way to keep machines out.
    pub fn may_pass(&self) -> bool {
        match self {
            Failure::Refused { refusal, .. } => {
                matches!(
                    refusal,
                    Refusal::Busy | Refusal::Clock | Refusal::NameTaken | Refusal::Address | Refusal::Skew { .. }
                )
            }
            Failure::NotAdmitted { refusal, .. } => *refusal == Refusal::Busy,
            Failure::Own(_) | Failure::TokenKind { .. } => false,
            _ => true,
        }
    }

    /// The text.
    pub fn block(&self, about: &Context<'_>) -> Block {
        let Text { why, fix } = match self {
            Failure::Refused { refusal, ours, theirs } => refused(*refusal, *ours, *theirs, about),
            Failure::NotAdmitted { refusal, by } => not_admitted(*refusal, by),
            Failure::Stated { name, fault } => stated(name, *fault, about),
            Failure::Unproven(refusal) => unproven(*refusal, about),
            Failure::TokenKind { role, found } => token_kind(*role, *found),
            Failure::Impostor(impostor) => self::impostor(*impostor, about),
            other => broken(other, about),
        };
        let what = match about.purpose {
            Purpose::Join(_) => "Unable to join",
            Purpose::Return => "Unable to return to the cluster",
            Purpose::Operate => "Unable to command the cluster",
        };
        let state = match about.purpose {
            Purpose::Operate => "Nothing was sent but public keys.".to_owned(),
            _ if self.may_pass() => "Nothing was changed on this machine. It goes on trying.".to_owned(),
            _ => "Nothing was changed on this machine.".to_owned(),
        };
        Block { what: what.to_owned(), why: vec![why], state, fix }
    }
}

/// A control plane's refusal of a machine.
fn refused(refusal: Refusal, ours: Unix, theirs: Unix, about: &Context<'_>) -> Text {
    let name = about.name;
    match refusal {
        Refusal::NotAccepted if about.purpose == Purpose::Return => text(
            format!("the cluster at {} does not know this machine's key", about.server),
            &["kubeboot reset on this machine, then join with a fresh token, from: kubeboot token create"],
        ),
        Refusal::NotAccepted => text(
            "no control plane here accepts this token",
            &["check the token, or make a new one with: kubeboot token create"],
        ),
        Refusal::WindowClosed => text(
            "the time in which control planes join with the founder's token is over",
            &["make a fresh token for this one machine with: kubeboot token create --role control-plane"],
        ),
        Refusal::NameTaken => text(
            format!("the cluster has another machine with the name {name}"),
            &[
                "give this machine another name with kubeboot.name=",
                &format!(
                    "or, if the other one is gone for good, take it out from an operator's machine with: kubeboot --node {} node remove {name}",
                    about.server
                ),
            ],
        ),
        Refusal::OtherNode => text(
            format!("this machine is a node of the cluster already, under another name than {name} or in another role"),
            &["start it with its old name and role, or start over with: kubeboot reset"],
        ),
        Refusal::Removed => text(
            "this machine was removed from the cluster, and its key with it",
            &["to join it again as a new machine: kubeboot reset, and a fresh token from: kubeboot token create"],
        ),
        Refusal::Address => text(
            "this machine's address can't be a node's of this cluster: it is local, a pod's or a service's, another \
             node's, or not the one that a control plane joined with",
            &["give the machine the address it had, or an address of its own"],
        ),
        Refusal::Clock => clock(ours, theirs),
        Refusal::Skew { oldest, newest } => skew(oldest, newest, about),
        Refusal::Malformed => text(
            format!(
                "the control plane at {} finds this machine's request not what it may ask for; its log says why",
                about.server
            ),
            &["compare the releases of both; read the journal of kubeboot-agent there"],
        ),
        Refusal::Busy => {
            text(format!("the control plane at {} is busy, or is just starting", about.server), &[TRY_AGAIN])
        }
        Refusal::OtherCluster | Refusal::Versions(_) => unproven(refusal, about),
    }
}

fn token_kind(joiner: Joiner, found: Kind) -> Text {
    let (is, prefix) = match found {
        Kind::Seed => ("the founder's seed", "kb1s"),
        Kind::ControlPlane => ("a control plane's", "kb1c"),
        Kind::Worker => ("a worker's", "kb1w"),
    };
    let (wanted, create) = match joiner {
        Joiner::Worker => ("kb1w", "kubeboot token create"),
        Joiner::ControlPlane => ("kb1c", "kubeboot token create --role control-plane"),
    };
    let role = role(joiner);
    text(
        format!("this machine is to be a {role}, and its token is {is} ({prefix}-…)"),
        &[&format!("give it a token that begins with {wanted}-, from {create}, or the other role")],
    )
}

fn clock(ours: Unix, theirs: Unix) -> Text {
    let way = if ours < theirs { "behind" } else { "ahead of" };
    let by = span(ours.abs_diff(theirs));
    text(
        format!("this machine's clock is {by} {way} the cluster's"),
        &[
            "set the clock: the machine's own in its firmware or hypervisor, or give a time server with ntp in user-data",
        ],
    )
}

fn skew(oldest: Version, newest: Version, about: &Context<'_>) -> Text {
    let runs = Releases { oldest, newest };
    let fix = match about.purpose {
        Purpose::Join(Joiner::ControlPlane) => {
            format!("start this machine with a release of Kubernetes {}.{}", newest.major, newest.minor)
        }
        purpose => format!(
            "start this machine with a release of Kubernetes {major}.{} to {major}.{}, or upgrade the control planes first, \
             and remove those that are lost",
            newest.minor.saturating_sub(KUBELET_OLDER),
            if purpose == Purpose::Return { newest.minor } else { oldest.minor },
            major = oldest.major
        ),
    };
    text(format!("this machine has release {}, the cluster runs {runs}", about.release), &[&fix])
}

/// A server's refusal of an operator.
fn not_admitted(refusal: Refusal, by: &Peer) -> Text {
    match (refusal, by) {
        (Refusal::NotAccepted, Peer::Worker { name }) => text(
            format!("to the worker {name} this ssh key is no operator's of the cluster"),
            &[
                "use a key that is one (ssh-add -l lists the agent's), by --identity",
                "or let another operator add yours at a control plane: kubeboot operator add; workers hear of it within a \
                 minute, those that are cut off once they are not any more",
            ],
        ),
        (Refusal::Busy, Peer::Worker { name }) => text(
            format!("the worker {name} can't tell now who is an operator"),
            &["try again in a moment; control planes say it, and their word is good for 7 days"],
        ),
        (_, Peer::Worker { name }) => text(
            format!("the worker {name} can't read the request; its log says why"),
            &["use the kubeboot of its release"],
        ),
        (refusal, Peer::ControlPlane) => not_admitted_here(refusal),
    }
}

/// A control plane's.
fn not_admitted_here(refusal: Refusal) -> Text {
    match refusal {
        Refusal::NotAccepted => text(
            "this ssh key is no operator's of the cluster",
            &[
                "use a key that is one (ssh-add -l lists the agent's), by --identity",
                "or let another operator add yours: kubeboot operator add",
                "or start a control plane with it: kubeboot.operator=",
            ],
        ),
        Refusal::Busy => text("the control plane is busy", &["try again in a moment"]),
        _ => text("the control plane can't read the request; its log says why", &["use the kubeboot of its release"]),
    }
}

/// The cluster's word about a worker that is no good now.
fn stated(name: &str, fault: Fault, about: &Context<'_>) -> Text {
    let server = about.server;
    match fault {
        Fault::Ended { ago } => text(
            format!("what the cluster said of the worker {name}, which answers at {server}, ended {} ago", span(ago)),
            &[
                "a worker that was removed stays so; one that reaches a control plane again gets a new word within half an \
                 hour: see kubeboot members at a control plane",
                "compare this machine's clock with the cluster's",
            ],
        ),
        _ => text(
            format!("what the cluster said of the worker {name}, which answers at {server}, is from the future"),
            &["set this machine's clock; if it is right, the cluster's is not"],
        ),
    }
}

/// A refusal by somebody who may be anybody.
fn unproven(refusal: Refusal, about: &Context<'_>) -> Text {
    let server = about.server;
    match refusal {
        Refusal::OtherCluster => text(
            format!(
                "what answers at {server} does not serve the cluster that is meant; or somebody stands between, and could \
                 not show that it does"
            ),
            &[
                match about.purpose {
                    Purpose::Operate => {
                        "check that the address is a control plane's of the cluster, and the fingerprint its own"
                    }
                    _ => "check that the address is a control plane's of the cluster that the token is from",
                },
                "if it is, look for who intercepts the connection: the log of the real control plane names every attempt that it refused",
            ],
        ),
        Refusal::Versions(Versions { oldest, newest }) => text(
            format!(
                "what answers at {server} speaks versions {oldest} to {newest} of the protocol, this machine others"
            ),
            &["use releases that are closer together on both"],
        ),
        Refusal::Busy if about.purpose == Purpose::Operate => text(
            format!("what answers at {server} can't prove now that it is of the cluster"),
            &[
                "a worker that joined by an older release gets what it takes within half an hour, once a control plane answers",
                "ask a control plane meanwhile; on the worker's console stand its address and state",
            ],
        ),
        _ => text(
            format!("what answers at {server} refuses before it has proven to be the cluster's"),
            &["check that the address is a control plane's of the cluster that is meant"],
        ),
    }
}

fn impostor(impostor: Impostor, about: &Context<'_>) -> Text {
    let server = about.server;
    let why = match impostor {
        Impostor::Certificate => "shows an identity that no founder has certified",
        Impostor::Fingerprint => "shows the identity of another cluster",
        Impostor::Signature => "shows the cluster's identity and can't prove it on this connection",
        Impostor::Statement(Fault::Role) => "shows a control plane's statement where only a worker shows one",
        Impostor::Statement(_) => "shows a worker's statement that the cluster has not signed",
    };
    text(
        format!("WARNING: what answers at {server} poses as the cluster: it {why}"),
        &["look for a machine that stands between this one and the cluster; nothing secret was sent to it"],
    )
}

/// What no side meant.
fn broken(failure: &Failure, about: &Context<'_>) -> Text {
    let server = about.server;
    let again = if about.purpose == Purpose::Operate { "try again in a moment" } else { TRY_AGAIN };
    let other = "check that the address and port are a control plane's, port 7440";
    match failure {
        Failure::Nonsense(malformed) => {
            text(format!("what answers at {server} does not speak this protocol: {malformed}"), &[other])
        }
        Failure::Unexpected { expected, found } => {
            text(format!("what answers at {server} sent {found} instead of {expected}"), &[other])
        }
        Failure::BadGrant(why) => text(
            format!("the control plane at {server} sent what this machine can't use: {why}"),
            &["compare the clocks and the releases of both; read the journal of kubeboot-agent there"],
        ),
        Failure::Own(malformed) => text(
            format!("this machine's own request can't be sent: {malformed}"),
            &["give it a shorter name with kubeboot.name=, or report this as a bug"],
        ),
        Failure::TimedOut { proven: true } => {
            text(format!("the control plane at {server} does not answer in time"), &[again])
        }
        Failure::TimedOut { .. } => text(format!("what is at {server} does not answer in time"), &[other]),
        Failure::Ended { proven: true } => {
            text(format!("the control plane at {server} closed the connection"), &[again])
        }
        _ => text(format!("what is at {server} closed the connection"), &[other]),
    }
}
