//! The certificates of a node as a list: what `kubeboot status` shows, and what the agent's timer goes by.

use crate::certificates::expiry::Listed;
use crate::certificates::{Authority, Fault, Inspected, Leaf, Unix, check};
use crate::kubernetes::{self, kubeconfig};

use super::founder::Founder;
use super::sight::Sight;
use super::state;
use super::worker::AUTHORITIES;

/// Every certificate: the authorities', the node's, the operators'.
pub fn certificates(founder: &Founder, sight: &Sight, now: Unix) -> Vec<Listed> {
    let authorities = Authority::ALL.into_iter().map(|authority| known(authority, sight, now));
    let leaves = founder.leaves().into_iter().map(|leaf| {
        let path = leaf.form().certificate();
        listed(leaf.name(), path, certificate(founder, sight, leaf, path), false, now)
    });
    let operators = founder.operators().into_iter().map(|key| {
        let path = key.path();
        listed(&key.request().common_name, &path, state::file(sight, &path).and_then(check::inspect), false, now)
    });
    authorities.chain(leaves).chain(operators).collect()
}

/// A worker's certificates: those of the authorities that it knows, and the node's.
pub fn certificates_of_worker(sight: &Sight, now: Unix) -> Vec<Listed> {
    let authorities = AUTHORITIES.into_iter().map(|authority| known(authority, sight, now));
    let leaves = Leaf::OF_EVERY_NODE.into_iter().map(|leaf| {
        let path = leaf.form().certificate();
        listed(leaf.name(), path, state::file(sight, path).and_then(check::inspect), false, now)
    });
    authorities.chain(leaves).collect()
}

fn known(authority: Authority, sight: &Sight, now: Unix) -> Listed {
    let path = authority.certificate();
    listed(authority.common_name(), path, state::file(sight, path).and_then(check::inspect), true, now)
}

fn certificate(founder: &Founder, sight: &Sight, leaf: Leaf, path: &str) -> Result<Inspected, Fault> {
    let text = state::file(sight, path)?;
    if !matches!(leaf.form(), crate::certificates::Form::Kubeconfig { .. }) {
        return check::inspect(text);
    }
    let ca = state::file(sight, leaf.request(&founder.subject()).authority.certificate())?;
    let server = kubernetes::server(founder.node.address);
    let (certificate, _) = kubeconfig::taken_apart(text, leaf, &server, ca).map_err(Fault::Unreadable)?;
    check::inspect(&certificate)
}

fn listed(name: &str, path: &str, found: Result<Inspected, Fault>, authority: bool, now: Unix) -> Listed {
    let found = found.ok();
    let (validity, stagger) = (found.as_ref().map(|one| one.validity), found.map_or(0, |one| one.stagger));
    Listed {
        name: name.to_owned(),
        path: path.to_owned(),
        validity,
        standing: validity.map(|validity| validity.standing(now, stagger)),
        authority,
        renew_at: validity.filter(|_| !authority).map(|validity| validity.renew_at(stagger)),
    }
}
