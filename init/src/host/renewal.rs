//! Renewing what is due while the node runs, and letting those know who read it only when they start.

use super::etcd::Word;
use super::execute::Failed;
use super::files;
use super::founder::{self, Unfinished};
use super::joining::{self, Asker, By, Granted, known_hosts};
use super::node::ThisNode;
use super::operators::kept;
use super::root::Root;
use super::{clock, worker};
use crate::certificates::Leaf;
use crate::certificates::expiry::Listed;
use crate::enrolment::seeking::Host;
use crate::kubernetes::{Site, static_pods};
use crate::mesh::MeshKey;
use crate::plan::worker::{When, plan, split};
use crate::plan::{Founder, Step, Worker};
use crate::timeline::What;

/// What was renewed.
#[derive(Debug, Default)]
pub struct Renewed {
    /// A line for each thing that was done; empty when nothing was due.
    pub words: Vec<String>,
    /// Operators' certificates to publish again.
    pub operators: Vec<What>,
    /// Whether the kubelet's client certificate is among them. A kubelet looks at it every five minutes only; where it had
    /// expired nothing would work until then.
    pub kubelet: bool,
}

/// Renews what is due: the same plan as at boot. kubelet, kube-proxy and flanneld read their files again by themselves;
/// static pods start anew when their manifest's digest of these files changes.
///
/// # Errors
/// In words, with the state that was left.
pub fn renew(root: &Root, this: &ThisNode) -> Result<Renewed, String> {
    if !this.is_control_plane() {
        return renew_worker(root, this);
    }
    let mut founder = as_founder(this);
    kept::apply(root, &mut founder.settings);
    let steps = founder::renew(root, &founder).map_err(|error: Unfinished| error.to_string())?;
    if steps.is_empty() {
        return Ok(Renewed::default());
    }
    let operators = match steps.iter().any(|step| matches!(step, Step::Operator { .. })) {
        true => founder::operators(root, &founder),
        false => Vec::new(),
    };
    let mut words = words(&steps);
    for path in static_pods(root, this)? {
        words.push(format!("{path} is rendered again: its pod starts anew with the new certificates"));
    }
    let kubelet = steps.iter().any(|step| matches!(step, Step::Issue { leaf: Leaf::KubeletClient, .. }));
    Ok(Renewed { words, operators, kubelet })
}

fn words(steps: &[Step]) -> Vec<String> {
    steps.iter().filter(|step| **step != Step::Flush).map(|step| format!("{step} ({})", step.because())).collect()
}

/// A worker asks a control plane for what is due, by its node key.
fn renew_worker(root: &Root, this: &ThisNode) -> Result<Renewed, String> {
    let _lock = founder::lock(root).map_err(|error| Unfinished::Lock(error).to_string())?;
    let worker = as_worker(this);
    let steps = plan(&worker, &worker::look(root, &worker), clock::unix(), When::Due).map_err(|why| why.to_string())?;
    let (before, after) = split(&steps).unwrap_or((&steps, &[]));
    let failed = |error: Failed| error.to_string();
    worker::act(root, before, None, |_, _| {}).map_err(failed)?;
    let mut words = words(&steps);
    if !after.is_empty() {
        let granted = come_back(root, this, known_hosts(root, &this.settings.join))?;
        worker::act(root, after, Some(&granted), |_, _| {}).map_err(failed)?;
        if granted.enrolled.grant.statement.is_none() {
            words.push(
                "the control plane gave no word about this node, by which operators know it: its release is older. It is asked \
                 again every half hour"
                    .to_owned(),
            );
        }
    }
    let kubelet =
        steps.iter().any(|step| matches!(step, Step::Return { leaves, .. } if leaves.contains(&Leaf::KubeletClient)));
    Ok(Renewed { words, operators: Vec::new(), kubelet })
}

/// Asks a control plane where the API servers are: for a worker that reaches none where they were.
///
/// # Errors
/// In words; what was known before still is.
pub fn ask_where(root: &Root, this: &ThisNode) -> Result<(), String> {
    let _lock = founder::lock(root).map_err(|error| Unfinished::Lock(error).to_string())?;
    let because = "no API server answers where they were".to_owned();
    let steps = [Step::Return { leaves: Vec::new(), because }, Step::Flush];
    let granted = come_back(root, this, known_hosts(root, &this.settings.join))?;
    worker::act(root, &steps, Some(&granted), |_, _| {}).map_err(|error| error.to_string())
}

/// Asks the control planes whether this machine is a node of the cluster, and where the API servers are. Nothing is
/// written.
pub fn is_node(root: &Root, this: &ThisNode) -> Word {
    let hosts = known_hosts(root, &this.settings.join);
    returning(root, this, hosts).map_or_else(Word::Later, Asker::is_node)
}

/// Whom [`is_node`] asks, for people.
pub fn whom(root: &Root, this: &ThisNode) -> String {
    let join = &this.settings.join;
    joining::whom(&known_hosts(root, join), join, this.node.address)
}

/// Asks one of these control planes for the newest mesh key: for one of them that was away while it was replaced.
///
/// # Errors
/// In words; nothing was changed.
pub fn mesh_key(root: &Root, this: &ThisNode, hosts: Vec<Host>) -> Result<MeshKey, String> {
    come_back(root, this, hosts).map(|granted| granted.enrolled.grant.mesh_key)
}

/// What a control plane gives this node again, asked once by its node key.
fn come_back(root: &Root, this: &ThisNode, hosts: Vec<Host>) -> Result<Granted, String> {
    returning(root, this, hosts)?.ask_once().map_err(|block| block.line())
}

/// This node, before it asks these control planes by its node key.
fn returning(root: &Root, this: &ThisNode, hosts: Vec<Host>) -> Result<Asker, String> {
    let release = this.seat.version.parse().map_err(|error: crate::release::VersionError| error.to_string())?;
    let by = By::NodeKey(this.cluster.clone());
    Asker::new(root, by, &this.node, release, hosts, this.frozen.clone())
}

/// What a worker's files are compared with.
pub fn as_worker(this: &ThisNode) -> Worker {
    Worker { node: this.node.clone() }
}

/// Every certificate of the node, and the clock that they are judged by.
pub fn certificates(root: &Root, this: &ThisNode) -> (Vec<Listed>, u64) {
    match this.is_control_plane() {
        true => founder::certificates(root, &as_founder(this)),
        false => worker::certificates(root, &as_worker(this)),
    }
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

/// Renders the static pods that the API server is made of, and returns the manifests that were written.
///
/// # Errors
/// In words: the file, and what the system said.
pub fn first_pods(root: &Root, this: &ThisNode) -> Result<Vec<String>, String> {
    let site = site(root, this);
    founder::render(root, &site, &static_pods::first(&site))
}

/// What this node's manifests are rendered from.
pub(super) fn site<'a>(root: &Root, this: &'a ThisNode) -> Site<'a> {
    Site {
        settings: &this.settings,
        node: &this.node,
        cluster: &this.cluster.id,
        membership: this.membership.clone(),
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
