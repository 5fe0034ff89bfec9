//! Renewing what is due while the node runs, and letting those know who read it only when they start.

use super::files;
use super::founder::{self, Unfinished};
use super::node::ThisNode;
use super::root::Root;
use crate::certificates::Leaf;
use crate::kubernetes::{Site, static_pods};
use crate::plan::{Founder, Step};
use crate::timeline::What;

/// What was renewed.
#[derive(Debug, Default)]
pub struct Renewed {
    /// A line for each thing that was done; empty when nothing was due.
    pub words: Vec<String>,
    /// Operators' certificates to publish again.
    pub operators: Vec<What>,
    /// Whether the kubelet's own client certificate is among them. It renews that itself, so it had expired: a kubelet
    /// that runs with it reaches nothing, and reads another only when it starts.
    pub kubelet: bool,
}

/// Renews what is due: the same plan as at boot. kubelet, kube-proxy and flanneld read their files again by themselves;
/// static pods start anew when their manifest's digest of these files changes.
///
/// # Errors
/// In words, with the state that was left.
pub fn renew(root: &Root, this: &ThisNode) -> Result<Renewed, String> {
    if !this.is_control_plane() {
        return Ok(Renewed::default());
    }
    let founder = as_founder(this);
    let steps = founder::renew(root, &founder).map_err(|error: Unfinished| error.to_string())?;
    if steps.is_empty() {
        return Ok(Renewed::default());
    }
    let operators = match steps.iter().any(|step| matches!(step, Step::Operator { .. })) {
        true => founder::operators(root, &founder),
        false => Vec::new(),
    };
    let mut words: Vec<String> =
        steps.iter().filter(|step| **step != Step::Flush).map(|step| format!("{step} ({})", step.because())).collect();
    for path in static_pods(root, this)? {
        words.push(format!("{path} is rendered again: its pod starts anew with the new certificates"));
    }
    let kubelet = steps.iter().any(|step| matches!(step, Step::Issue { leaf: Leaf::KubeletClient, .. }));
    Ok(Renewed { words, operators, kubelet })
}

/// What the node's files are compared with: the frozen settings and the pinned node.
pub fn as_founder(this: &ThisNode) -> Founder {
    Founder { settings: this.settings.clone(), node: this.node.clone(), given: None, frozen: this.frozen.text() }
}

/// Renders every static pod, those that wait for the API server too, and returns the manifests that were written: the
/// kubelet starts these pods, or starts them anew.
///
/// # Errors
/// In words: the file, and what the system said.
pub fn static_pods(root: &Root, this: &ThisNode) -> Result<Vec<String>, String> {
    let site = site(root, this);
    let manifests = [static_pods::first(&site), static_pods::later(&site)].concat();
    founder::render(root, &site, &manifests)
}

fn site<'a>(root: &Root, this: &'a ThisNode) -> Site<'a> {
    Site {
        settings: &this.settings,
        node: &this.node,
        cluster: &this.cluster.id,
        // Static pods use the host's network: no interface's MTU is in their manifests.
        mtu: 0,
        host_authorities: founder::host_authorities(root),
        inputs: founder::inputs(root),
    }
}

/// Whether the static pods that wait for the API server were started at this boot.
pub fn later_pods_run(root: &Root, this: &ThisNode) -> bool {
    let later = static_pods::later(&site(root, this));
    later.iter().any(|render| files::exists(&root.path(&render.path)))
}

/// Whether the machine has name servers that CoreDNS can forward to.
pub fn has_name_servers(root: &Root) -> bool {
    let text = files::read_optional(&root.path("/run/systemd/resolve/resolv.conf")).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(|line| line.trim_start().starts_with("nameserver"))
}
