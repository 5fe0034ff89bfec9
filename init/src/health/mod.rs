//! Gates: what must hold before a release counts as healthy on this node. Pure rules over observed values.
//!
//! Every gate says what it observed, passing or not, so that `kubeboot status` shows numbers and names, not just
//! colours.

pub mod control_planes;
pub mod dns;
mod seen;

use serde::{Deserialize, Serialize};

pub use seen::{Condition, NodeSeen, PodSeen, Seen, has_ready_endpoint, node_from, pods_from};

/// What this node and this release should come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The node's name.
    pub node: String,
    /// The id of this boot.
    pub boot: String,
    /// The version that the kubelet should report, `v1.37.2`.
    pub kubelet: String,
    /// Names of the static pods of this node, such as `etcd`; empty on a worker.
    pub static_pods: Vec<String>,
    /// Whether kube-proxy is kubeboot's to run.
    pub proxy: bool,
    /// Whether flannel is kubeboot's to run; if not, the network is the user's own.
    pub flannel: bool,
    /// Whether CoreDNS is kubeboot's to run, and the name to ask it for.
    pub dns: Option<String>,
}

/// The verdict of one gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The gate's name.
    pub gate: String,
    /// Whether it passes.
    pub pass: bool,
    /// What was observed.
    pub observed: String,
}

/// Names of the gates, in the order in which they come to pass.
pub const GATES: [&str; 9] =
    ["api", "etcd", "kubelet", "static-pods", "network", "flannel", "kube-proxy", "system-pods", "dns"];

/// What is observed of a gate that nobody has looked at, because what it builds on does not pass.
pub const NOT_ASKED: &str = "not asked yet";

/// Judges every gate that applies to this node.
pub fn judge(expected: &Expected, seen: &Seen) -> Vec<Verdict> {
    GATES
        .into_iter()
        .filter_map(|gate| rule(gate, expected, seen).map(|result| (gate, result)))
        .map(|(gate, result)| {
            let pass = result.is_ok();
            let observed = result.unwrap_or_else(|observed| observed);
            Verdict { gate: gate.to_owned(), pass, observed }
        })
        .collect()
}

/// Whether all of them pass. No verdict at all is no pass.
pub fn all_pass(verdicts: &[Verdict]) -> bool {
    !verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.pass)
}

/// `Ok` and `Err` both carry what was observed; none when the gate does not apply.
fn rule(gate: &str, expected: &Expected, seen: &Seen) -> Option<Result<String, String>> {
    let control_plane = !expected.static_pods.is_empty();
    match gate {
        "api" => Some(answer(&seen.api)),
        "etcd" => control_plane.then(|| answer(&seen.etcd)),
        "kubelet" => Some(kubelet(expected, seen)),
        "static-pods" => control_plane.then(|| static_pods(expected, seen)),
        "network" => Some(network(seen)),
        "flannel" => expected.flannel.then(|| answer(&seen.flannel)),
        "kube-proxy" => expected.proxy.then(|| answer(&seen.proxy)),
        "system-pods" => Some(system_pods(expected, seen)),
        "dns" => expected.dns.as_ref().map(|_| answer(&seen.dns)),
        _ => None,
    }
}

fn answer(answer: &Option<Result<String, String>>) -> Result<String, String> {
    answer.clone().unwrap_or_else(|| Err(NOT_ASKED.to_owned()))
}

fn node(seen: &Seen) -> Result<&NodeSeen, String> {
    match &seen.node {
        None => Err(NOT_ASKED.to_owned()),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(node)) => Ok(node),
    }
}

fn kubelet(expected: &Expected, seen: &Seen) -> Result<String, String> {
    let node = node(seen)?;
    if node.kubelet != expected.kubelet {
        return Err(format!("expected kubelet {}, found {}", expected.kubelet, node.kubelet));
    }
    if node.boot != expected.boot {
        // etcd remembers the node as it was when the machine went down, Ready in most cases.
        return Err(format!("what is known of {} is from before this boot", expected.node));
    }
    match &node.ready {
        None => Err("the kubelet has not reported yet".to_owned()),
        Some(Condition { status: true, .. }) => Ok(format!("{} is Ready, kubelet {}", expected.node, node.kubelet)),
        Some(Condition { reason, message, .. }) => Err(format!("{} is not Ready: {reason}: {message}", expected.node)),
    }
}

fn static_pods(expected: &Expected, seen: &Seen) -> Result<String, String> {
    let pods = pods(seen)?;
    let mut missing = Vec::new();
    for name in &expected.static_pods {
        let full = format!("{name}-{}", expected.node);
        match pods.iter().find(|pod| pod.name == full && pod.mirror) {
            None => missing.push(format!("{name} is not reported")),
            Some(pod) if !pod.runs() => missing.push(format!("{name} is {}", pod.words())),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Ok(format!("{} are ready", expected.static_pods.join(", ")))
    } else {
        Err(missing.join("; "))
    }
}

/// Every pod of kube-system on this node, CoreDNS and the user's own included.
fn system_pods(expected: &Expected, seen: &Seen) -> Result<String, String> {
    let pods = pods(seen)?;
    let waiting: Vec<String> = pods
        .iter()
        .filter(|pod| !pod.runs() && !pod.finished)
        .map(|pod| format!("{} is {}", pod.name, pod.words()))
        .collect();
    if !waiting.is_empty() {
        return Err(waiting.join("; "));
    }
    // Before the add-ons are applied there is nothing that could be unready.
    if expected.dns.is_some() && !pods.iter().any(|pod| pod.dns) && !seen.dns.as_ref().is_some_and(Result::is_ok) {
        return Err("no CoreDNS pod on this node, and none answers from elsewhere".to_owned());
    }
    Ok(format!("{} pods of kube-system run", pods.iter().filter(|pod| !pod.finished).count()))
}

fn network(seen: &Seen) -> Result<String, String> {
    let node = node(seen)?;
    if node.pod_cidrs.is_empty() {
        return Err("no pod network is assigned to the node yet".to_owned());
    }
    if let Some(Condition { status: true, reason, message }) = &node.network_unavailable {
        return Err(format!("NetworkUnavailable: {reason}: {message}"));
    }
    Ok(format!("pods get addresses of {}", node.pod_cidrs.join(", ")))
}

fn pods(seen: &Seen) -> Result<&[PodSeen], String> {
    match &seen.pods {
        None => Err(NOT_ASKED.to_owned()),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(pods)) => Ok(pods),
    }
}

#[cfg(test)]
mod tests;
