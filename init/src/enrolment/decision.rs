//! Whether a machine is admitted: a function of what it asks, of what the cluster knows, and of the time.
//!
//! Nothing is said about the rest of a request before its token or node key is accepted, so who has neither learns
//! nothing of names, addresses or versions. And a node key that is enrolled under the asked name in the asked role needs
//! no token: that makes the exchange repeatable, because a machine whose grant was lost on the way asks again, and a use
//! of its token is not taken twice.

use std::net::IpAddr;

use super::message::{Ask, Purpose};
use super::reason::{Reason, TokenFault, Window};
use crate::certificates::expiry::BACKDATE;
use crate::certificates::{DAY, Unix};
use crate::facts::rfc1123_problem;
use crate::release::Version;
use crate::settings::Cidr;
use crate::token::{Joiner, SECRET, fingerprint};

/// How long after the founding the tokens of the seed are good, in seconds.
pub const WINDOW: u64 = DAY;
/// By how much two clocks may differ, in seconds: well within what certificates are backdated by
/// (`certificates::expiry::BACKDATE`), and more than two machines that ask for the time at boot are ever apart.
pub const CLOCKS: u64 = 10 * 60;
const _: () = assert!(CLOCKS < BACKDATE);
/// By how many minor versions a kubelet may be older than an API server (Kubernetes' version skew policy).
pub(super) const KUBELET_OLDER: u32 = 3;

/// Where a token came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// From the founder's seed.
    Founding,
    /// Made later, by this user.
    Created {
        /// The user's name.
        by: String,
    },
}

/// The public half of a join token, as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// What it admits.
    pub kind: Joiner,
    /// The join key's public half.
    pub key: [u8; 32],
    /// The first second at which it is no longer good.
    pub expires: Unix,
    /// How many more machines it admits; none: any number.
    pub uses_left: Option<u32>,
    /// Where it came from.
    pub origin: Origin,
}

impl TokenRecord {
    /// The record of a token from the founder's seed; `expect` is how many machines it is to admit, if that was said.
    pub fn founding(kind: Joiner, key: [u8; 32], founded: Unix, expect: Option<u32>) -> Self {
        let expires = founded.saturating_add(WINDOW);
        TokenRecord { kind, key, expires, uses_left: expect, origin: Origin::Founding }
    }

    /// What names it.
    pub fn id(&self) -> [u8; SECRET] {
        fingerprint(&self.key)
    }
}

/// A node that is enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Joiner,
    /// Its node key's public half.
    pub key: [u8; 32],
    /// Its address.
    pub address: IpAddr,
}

/// What is looked up for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// The token's id, if one was presented.
    pub token: Option<[u8; SECRET]>,
    /// The asked name, which a stranger chose.
    pub name: String,
    /// The asking key.
    pub node_key: [u8; 32],
    /// The asked address.
    pub address: IpAddr,
}

/// What the cluster knows that matters to one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The token with the presented id.
    pub token: Option<TokenRecord>,
    /// The node with the asked name.
    pub named: Option<NodeRecord>,
    /// The node with the asking key.
    pub keyed: Option<NodeRecord>,
    /// Whether the asking key was removed from the cluster.
    pub removed: bool,
    /// The name of the node with the asked address.
    pub address_of: Option<String>,
}

/// What holds for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// When it was founded.
    pub founded: Unix,
    /// The oldest API server's release.
    pub oldest: Version,
    /// The newest API server's release.
    pub newest: Version,
    /// Addresses that are no machine's: of pods and of services.
    pub ranges: Vec<Cidr>,
}

/// A request that is granted: what the cluster has to write down, at once or not at all, before anything is issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The node as it is to be on record.
    pub node: NodeRecord,
    /// The token of which a use is taken; none for a node that is on record already.
    pub takes: Option<[u8; SECRET]>,
}

/// Decides. `verified` is whether the token's signature is good, by the key that the found token has.
///
/// # Errors
/// The first thing that stands against it.
pub fn decide(
    site: &Site,
    now: Unix,
    purpose: Purpose,
    ask: &Ask,
    verified: bool,
    found: &Found,
) -> Result<Admission, Reason> {
    let known = found.keyed.as_ref().filter(|node| !found.removed && node.name == ask.name);
    let (role, takes) = match purpose {
        Purpose::Join(role) if known.is_some_and(|node| node.role == role) => (role, None),
        Purpose::Join(role) => {
            let token = token(site, now, role, verified, found.token.as_ref())?;
            newcomer(ask, found)?;
            (role, Some(token))
        }
        Purpose::Return => (returning(ask, found)?, None),
        Purpose::Operate => return Err(Reason::Unexpected { expected: "an operator's key", found: "ask" }),
    };
    address(site, ask, role, found)?;
    if now.abs_diff(ask.time) > CLOCKS {
        return Err(Reason::Clock { ours: now, theirs: ask.time });
    }
    if !goes_with(site, role, purpose == Purpose::Return, ask.release) {
        return Err(Reason::Skew { role, theirs: ask.release, oldest: site.oldest, newest: site.newest });
    }
    let node = NodeRecord { name: ask.name.clone(), role, key: ask.node_key, address: ask.address };
    Ok(Admission { node, takes })
}

/// Whether the token admits a machine of that role now. Every fault but one has the same answer for the joiner.
fn token(
    site: &Site,
    now: Unix,
    role: Joiner,
    verified: bool,
    token: Option<&TokenRecord>,
) -> Result<[u8; SECRET], Reason> {
    let Some(token) = token else { return Err(Reason::Token(TokenFault::Unknown)) };
    let window = site.founded.saturating_add(WINDOW);
    let ends = if token.origin == Origin::Founding { token.expires.min(window) } else { token.expires };
    // What the founding window's end is called matters only to who holds the token: verified comes first.
    let founding = token.origin == Origin::Founding && token.kind == Joiner::ControlPlane;
    let fault = if !verified {
        TokenFault::Signature
    } else if token.kind != role {
        TokenFault::Kind(token.kind)
    } else if now >= ends {
        match founding {
            true => return Err(Reason::WindowClosed(Window::Time)),
            false => TokenFault::Expired { ago: now - ends },
        }
    } else if token.uses_left == Some(0) {
        match founding {
            true => return Err(Reason::WindowClosed(Window::Count)),
            false => TokenFault::UsedUp,
        }
    } else if role == Joiner::ControlPlane && !founding && token.uses_left != Some(1) {
        TokenFault::NotSingle
    } else {
        return Ok(token.id());
    };
    Err(Reason::Token(fault))
}

/// Whether a machine that is no node yet may become one under its name.
fn newcomer(ask: &Ask, found: &Found) -> Result<(), Reason> {
    if found.removed {
        return Err(Reason::Removed);
    }
    if let Some(node) = &found.keyed {
        return Err(Reason::OtherNode { name: node.name.clone(), role: node.role });
    }
    if let Some(node) = &found.named {
        return Err(Reason::NameTaken { name: node.name.clone(), role: node.role, address: node.address });
    }
    rfc1123_problem(&ask.name).map_or(Ok(()), |problem| Err(Reason::Name(problem)))
}

/// As what a returning node is on record.
fn returning(ask: &Ask, found: &Found) -> Result<Joiner, Reason> {
    if found.removed {
        return Err(Reason::Removed);
    }
    match &found.keyed {
        None => Err(Reason::UnknownNode),
        Some(node) if node.name == ask.name => Ok(node.role),
        Some(node) => Err(Reason::OtherNode { name: node.name.clone(), role: node.role }),
    }
}

/// Whether the address can be this node's.
fn address(site: &Site, ask: &Ask, role: Joiner, found: &Found) -> Result<(), Reason> {
    let address = ask.address;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let nobodys = address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local;
    if nobodys || site.ranges.iter().any(|range| range.contains(address)) {
        return Err(Reason::Address(address));
    }
    match (&found.address_of, &found.keyed) {
        (Some(name), _) if *name != ask.name => Err(Reason::AddressTaken { address, by: name.clone() }),
        // etcd's members know each other by their addresses.
        (_, Some(node)) if role == Joiner::ControlPlane && node.address != address => {
            Err(Reason::Moved { from: node.address, to: address })
        }
        _ => Ok(()),
    }
}

/// Whether a release goes with the cluster's API servers. A worker's kubelet is never newer than the oldest of them and
/// at most three minors older than the newest (Kubernetes' version skew policy); a control plane runs a minor that the
/// cluster runs already, because a new minor comes by an upgrade and not by a new machine. A worker that returns may be as
/// new as the newest: it runs already, and without certificates it ends, also where the oldest is off and never comes back.
fn goes_with(site: &Site, role: Joiner, returns: bool, release: Version) -> bool {
    let oldest = match role {
        Joiner::Worker => site.newest.minor.saturating_sub(KUBELET_OLDER),
        Joiner::ControlPlane => site.oldest.minor,
    };
    let newest = match role {
        Joiner::Worker if !returns => site.oldest.minor,
        Joiner::Worker | Joiner::ControlPlane => site.newest.minor,
    };
    release.major == site.newest.major && (oldest..=newest).contains(&release.minor)
}
