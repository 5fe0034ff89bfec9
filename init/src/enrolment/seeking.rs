//! Whom a machine asks, and what it says while nobody has admitted it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::PORT;
use super::failure::{Context, Failure};
use super::message::{Purpose, Refusal};
use crate::discovery;
use crate::release::Version;
use crate::token::Joiner;
use crate::words::Block;

/// Hosts that are asked in one round, at most.
pub const HOSTS: usize = 16;
/// Addresses of one host that are tried, at most.
pub const ADDRESSES: usize = 4;

/// A host to ask, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// A name or an address.
    pub name: String,
    /// Its port.
    pub port: u16,
}

impl Host {
    /// An address with the port of enrolment.
    pub fn at(address: IpAddr) -> Self {
        Host { name: address.to_string(), port: PORT }
    }
}

impl FromStr for Host {
    type Err = std::convert::Infallible;

    /// Reads what the setting `join` takes: a name or an address, with or without a port, IPv6 with a port in brackets.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(Host { name: address.ip().to_string(), port: address.port() });
        }
        let split = text.parse::<IpAddr>().is_err().then(|| text.rsplit_once(':')).flatten();
        let with_port = split.and_then(|(name, port)| Some((name, port.parse().ok()?)));
        let (name, port) = with_port.unwrap_or((text, PORT));
        Ok(Host { name: name.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            _ => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// Why one host did not admit a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Its name leads to no address.
    Unresolved {
        /// The name.
        name: String,
        /// What the system said.
        why: String,
    },
    /// Nobody there speaks enrolment.
    Unreachable {
        /// The address and port.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// It admits the machine, and sends settings that this release can't use. Asking again would bring the same.
    Unusable {
        /// The address and port.
        server: String,
        /// What is wrong with them.
        why: String,
    },
    /// The exchange failed.
    Failed {
        /// The address and port.
        server: String,
        /// Why.
        failure: Failure,
    },
    /// Nobody was named, and nobody on the local network has answered.
    Unfound {
        /// Where it was looked.
        place: String,
        /// Why that was not possible, if it was not.
        why: Option<String>,
    },
    /// More than one cluster on the local network answers to the token.
    Several {
        /// Each cluster's id and addresses.
        clusters: Vec<String>,
    },
}

impl Trouble {
    /// Whether asking again by itself may help.
    fn may_pass(&self) -> bool {
        match self {
            Trouble::Failed { failure, .. } => failure.may_pass(),
            Trouble::Unusable { .. } | Trouble::Several { .. } => false,
            Trouble::Unresolved { .. } | Trouble::Unreachable { .. } | Trouble::Unfound { .. } => true,
        }
    }

    /// Whether nobody there has said anything that matters: somebody elsewhere may know more.
    pub fn is_silence(&self) -> bool {
        let busy = |failure: &Failure| matches!(failure, Failure::Refused { refusal: Refusal::Busy, .. });
        match self {
            Trouble::Unresolved { .. } | Trouble::Unreachable { .. } => true,
            // A control plane whose API server does not come up, perhaps for ever, says only that.
            Trouble::Failed { failure, .. } => busy(failure),
            _ => false,
        }
    }

    /// How much it tells: what a control plane says itself is worth more than that nobody answers.
    fn weight(&self) -> u8 {
        match self {
            one if !one.may_pass() => 0,
            Trouble::Failed { failure: Failure::Refused { .. } | Failure::Impostor(_), .. } => 1,
            Trouble::Failed { .. } => 2,
            Trouble::Unreachable { .. } => 3,
            Trouble::Unresolved { .. } | Trouble::Unfound { .. } => 4,
            // Final ones have their weight above.
            Trouble::Unusable { .. } | Trouble::Several { .. } => 0,
        }
    }

    fn block(&self, about: &About<'_>) -> Block {
        let (why, fix) = match self {
            Trouble::Failed { server, failure } => return failure.block(&about.context(server)),
            Trouble::Several { clusters } => discovery::words::several(clusters),
            Trouble::Unresolved { name, why } => (
                vec![format!("the name {name} leads to no address: {why}")],
                vec!["correct the name (kubeboot.join=), or give an address; a name needs a name server that knows it"],
            ),
            Trouble::Unusable { server, why } => (
                vec![format!("the control plane at {server} sent settings that this release can't use: {why}")],
                vec!["compare the releases of both, and boot this machine with a newer one"],
            ),
            Trouble::Unreachable { server, why } => (
                vec![format!("no control plane answers at {server}: {why}")],
                vec![
                    "start that control plane; or correct the address (kubeboot.join=), or let TCP port 7440 through to it",
                ],
            ),
            Trouble::Unfound { place, why } => (
                vec![match why {
                    None => format!("no control plane of its cluster answers {place}"),
                    Some(why) => format!("this machine can't look for control planes {place}: {why}"),
                }],
                vec![
                    "start a control plane on this network",
                    "or give the name or address of one that is elsewhere: kubeboot.join=HOST; by hand: kubeboot join HOST",
                ],
            ),
        };
        let state = if self.may_pass() { GOES_ON } else { STAYS };
        let fix = fix.into_iter().map(str::to_owned).collect();
        Block { what: about.what().to_owned(), why, state: state.to_owned(), fix }
    }
}

const STAYS: &str = "Nothing was changed on this machine.";
const GOES_ON: &str = "Nothing was changed on this machine. It goes on trying.";

/// Who asks, for what.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// What is wanted.
    pub purpose: Purpose,
    /// The machine's name.
    pub name: &'a str,
    /// The machine's release.
    pub release: Version,
}

impl About<'_> {
    fn context<'a>(&'a self, server: &'a str) -> Context<'a> {
        Context { purpose: self.purpose, server, name: self.name, release: self.release }
    }

    fn what(&self) -> &'static str {
        match self.purpose {
            Purpose::Return => "Unable to return to the cluster",
            _ => "Unable to join",
        }
    }
}

/// Whether a round of asking was in vain for good: a control plane refused for a reason that does not pass.
pub fn is_final(troubles: &[Trouble]) -> bool {
    troubles.iter().any(|trouble| !trouble.may_pass())
}

/// What a round came to that admitted nobody: every reason, what tells most first, and what helps against that one.
pub fn block(troubles: &[Trouble], about: &About<'_>) -> Block {
    let mut troubles: Vec<&Trouble> = troubles.iter().collect();
    troubles.sort_by_key(|trouble| trouble.weight());
    let mut blocks = troubles.iter().map(|trouble| trouble.block(about));
    let mut first = blocks.next().expect("a round that admitted nobody has a reason");
    for other in blocks {
        for why in other.why {
            if !first.why.contains(&why) {
                first.why.push(why);
            }
        }
    }
    first
}

/// There is no token.
pub fn no_token(role: Joiner) -> Block {
    let (prefix, create) = match role {
        Joiner::Worker => ("kb1w", "kubeboot token create"),
        Joiner::ControlPlane => ("kb1c", "kubeboot token create --role control-plane"),
    };
    Block {
        what: "Unable to join".to_owned(),
        why: vec!["this machine was given no token, and it is no node yet".to_owned()],
        state: STAYS.to_owned(),
        fix: vec![format!(
            "give it a token that begins with {prefix}-, from {create}, as the credential kubeboot.token or by kubeboot.token="
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolment::failure::Impostor;
    use crate::enrolment::message::Refusal;
    use crate::words::Paint;

    fn about() -> About<'static> {
        About { purpose: Purpose::Join(Joiner::Worker), name: "w-1", release: "1.37.2-4".parse().unwrap() }
    }

    fn failed(server: &str, failure: Failure) -> Trouble {
        Trouble::Failed { server: server.to_owned(), failure }
    }

    #[test]
    fn hosts_are_read_as_the_setting_takes_them() {
        let cases = [
            ("10.0.0.10", "10.0.0.10", PORT, "10.0.0.10:7440"),
            ("10.0.0.10:7", "10.0.0.10", 7, "10.0.0.10:7"),
            ("fd00::1", "fd00::1", PORT, "[fd00::1]:7440"),
            ("[fd00::1]:7", "fd00::1", 7, "[fd00::1]:7"),
            ("cp-1.example", "cp-1.example", PORT, "cp-1.example:7440"),
            ("cp-1:7441", "cp-1", 7441, "cp-1:7441"),
        ];
        for (text, name, port, shown) in cases {
            let Ok(host) = text.parse::<Host>();
            assert_eq!((host.name.as_str(), host.port, host.to_string().as_str()), (name, port, shown), "{text}");
        }
    }

    #[test]
    fn every_text_of_who_asked_in_vain() {
        let refused = Failure::Refused { refusal: Refusal::NotAccepted, ours: 0, theirs: 0 };
        let unreachable = |server: &str| Trouble::Unreachable {
            server: server.into(),
            why: "Connection refused (os error 111)".into(),
        };
        let unresolved = Trouble::Unresolved { name: "cp-1".into(), why: "no such host".into() };
        let rounds = [
            vec![Trouble::Unfound { place: "on the local network".into(), why: None }],
            vec![Trouble::Unfound { place: "on the local network".into(), why: Some("no multicast".into()) }],
            vec![Trouble::Several { clusters: vec!["11 at 10.0.0.10:7440".into(), "22 at 10.0.0.20:7440".into()] }],
            vec![unresolved.clone()],
            vec![unreachable("10.0.0.10:7440")],
            vec![unresolved.clone(), unreachable("10.0.0.10:7440"), failed("10.0.0.11:7440", refused)],
            vec![Trouble::Unusable { server: "10.0.0.10:7440".into(), why: "format 2".into() }],
            vec![unresolved, failed("10.0.0.12:7440", Failure::Impostor(Impostor::Fingerprint))],
        ];
        let texts: Vec<String> = rounds
            .iter()
            .map(|round| format!("final: {}\n{}", is_final(round), block(round, &about()).text(Paint::Plain)))
            .collect();
        insta::assert_snapshot!(format!("{}\n{}", texts.join("\n"), no_token(Joiner::Worker).text(Paint::Plain)));
    }

    #[test]
    fn nobody_without_a_proof_ends_the_waiting() {
        let rounds = [
            failed("a:1", Failure::Unproven(Refusal::OtherCluster)),
            failed("a:1", Failure::Impostor(Impostor::Signature)),
            failed("a:1", Failure::Ended { proven: false }),
        ];
        assert!(rounds.iter().all(|trouble| !is_final(std::slice::from_ref(trouble))));
    }
}
