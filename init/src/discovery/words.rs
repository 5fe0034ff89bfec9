//! What is said of it.

use std::net::IpAddr;

use super::{ClusterId, Found, GROUP_IPV4, GROUP_IPV6, PORT};
use crate::enrolment::objects::hex;
use crate::words::Block;

/// Where a machine with this address has looked.
pub fn place(address: IpAddr) -> String {
    let groups = match address {
        IpAddr::V4(_) => format!("{GROUP_IPV4} and {GROUP_IPV6}"),
        IpAddr::V6(_) => GROUP_IPV6.to_string(),
    };
    format!("on the local network of {address} (multicast to {groups}, UDP port {PORT})")
}

/// Two clusters answer to one token: reasons and fixes for who joins.
pub(crate) fn several(clusters: &[String]) -> (Vec<String>, Vec<&'static str>) {
    let mut why = vec!["several clusters answer to this token: one seed was used to found more than one".to_owned()];
    why.extend(clusters.iter().map(|cluster| format!("cluster {cluster}")));
    let fix = vec![
        "name a control plane of the one that is meant: kubeboot.join=HOST",
        "and reset the machines of the other, which nobody should join: kubeboot reset",
    ];
    (why, fix)
}

/// Why a founder does not found: its seed has a cluster.
pub fn founded_already(found: &Found) -> Block {
    Block {
        what: "A cluster of this seed exists already".to_owned(),
        why: found.words().iter().map(|cluster| format!("cluster {cluster}")).collect(),
        state: "Nothing was founded on this machine.".to_owned(),
        fix: vec![
            "to add this machine to it: kubeboot.role=control-plane, with a token of that kind (kb1c-…)".to_owned(),
            "to found another cluster: a new seed, from kubeboot token generate".to_owned(),
            "to found this one anew: reset the machines of the one that exists first (kubeboot reset)".to_owned(),
        ],
    }
}

/// Two clusters were founded from one seed.
pub(super) fn two(own: &ClusterId, others: &Found) -> String {
    format!(
        "two clusters were founded from one seed: this one, {}, and {}. Machines that join with a token of the seed may \
         come to either. Fix: decide which one stays, and reset every machine of the other (kubeboot reset)",
        hex(own),
        others.words().join(", and ")
    )
}

/// The other cluster does not answer any more.
pub(super) fn gone(others: &Found) -> String {
    format!("the other cluster of this cluster's seed does not answer any more: {}", others.words().join(", and "))
}
