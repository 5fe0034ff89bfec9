//! What was observed, as values; and how answers of the Kubernetes API become them.

use std::collections::BTreeSet;

use serde_json::Value;

/// Observations. `None` means that nobody has looked yet; in a `Result`, both sides say what was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `/readyz` of the API server that this node uses.
    pub api: Option<Result<String, String>>,
    /// etcd's own health.
    pub etcd: Option<Result<String, String>>,
    /// This node's object.
    pub node: Option<Result<NodeSeen, String>>,
    /// The pods of kube-system on this node.
    pub pods: Option<Result<Vec<PodSeen>, String>>,
    /// flannel's lease for this node.
    pub flannel: Option<Result<String, String>>,
    /// kube-proxy's own health.
    pub proxy: Option<Result<String, String>>,
    /// The answer of the cluster's DNS service to a question asked from this node.
    pub dns: Option<Result<String, String>>,
}

/// A Node's parts that gates look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Condition `Ready`.
    pub ready: Option<Condition>,
    /// Condition `NetworkUnavailable`.
    pub network_unavailable: Option<Condition>,
    /// `status.nodeInfo.bootID`.
    pub boot: String,
    /// `status.nodeInfo.kubeletVersion`.
    pub kubelet: String,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<String>,
    /// Address of type InternalIP, the first.
    pub address: Option<String>,
}

/// A condition of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Whether its status is `True`.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A Pod's parts that gates look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Whether it stands for a static pod.
    pub mirror: bool,
    /// Whether it belongs to the cluster's DNS.
    pub dns: bool,
    /// Whether every container is ready.
    pub ready: bool,
    /// Whether it ran to its end, or is on its way out.
    pub finished: bool,
    /// `status.phase`.
    pub phase: String,
    /// Why its first container that does not run waits.
    pub waiting: Option<String>,
    /// The first container that is said to run and does not: it ran before this boot.
    pub gone: Option<String>,
}

impl PodSeen {
    /// Whether every container is ready, and was started at this boot.
    pub fn runs(&self) -> bool {
        self.ready && self.gone.is_none()
    }

    /// Its standing in words.
    pub fn words(&self) -> String {
        if let Some(container) = &self.gone {
            return format!("known from before this boot, when {container} ran");
        }
        match &self.waiting {
            Some(reason) => format!("{} ({reason})", self.phase),
            None if self.phase == "Running" => "running, not ready".to_owned(),
            None => self.phase.clone(),
        }
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn condition(object: &Value, kind: &str) -> Option<Condition> {
    let found = list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)?;
    Some(Condition {
        status: text(found, "/status") == "True",
        reason: text(found, "/reason"),
        message: text(found, "/message"),
    })
}

/// From a Node object.
pub fn node_from(node: &Value) -> NodeSeen {
    let addresses = list(node, "/status/addresses").iter();
    NodeSeen {
        ready: condition(node, "Ready"),
        network_unavailable: condition(node, "NetworkUnavailable"),
        boot: text(node, "/status/nodeInfo/bootID"),
        kubelet: text(node, "/status/nodeInfo/kubeletVersion"),
        pod_cidrs: list(node, "/spec/podCIDRs").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        address: addresses
            .filter(|address| text(address, "/type") == "InternalIP")
            .map(|address| text(address, "/address"))
            .next(),
    }
}

/// Whether an EndpointSliceList has an endpoint that is ready.
pub fn has_ready_endpoint(slices: &Value) -> bool {
    let endpoints = list(slices, "/items").iter().flat_map(|slice| list(slice, "/endpoints"));
    endpoints.into_iter().any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) == Some(true))
}

/// From a PodList. `here` are the ids of the containers that were started at this boot: after an unclean stop the API
/// server still has what the kubelet said last. Ids, because times would be those of a clock that may have been set since.
pub fn pods_from(pods: &Value, here: &BTreeSet<String>) -> Vec<PodSeen> {
    list(pods, "/items").iter().map(|pod| pod_from(pod, here)).collect()
}

fn pod_from(pod: &Value, here: &BTreeSet<String>) -> PodSeen {
    let phase = text(pod, "/status/phase");
    let containers = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let statuses = containers.into_iter().flat_map(|pointer| list(pod, pointer));
    // `containerd://ID` (v1.ContainerStatus).
    let started =
        |status: &Value| text(status, "/containerID").split_once("://").is_some_and(|(_, id)| here.contains(id));
    let gone = statuses
        .clone()
        .find(|status| status.pointer("/state/running").is_some() && !started(status))
        .map(|status| text(status, "/name"));
    let waiting = statuses.map(|status| text(status, "/state/waiting/reason")).find(|reason| !reason.is_empty());
    PodSeen {
        name: text(pod, "/metadata/name"),
        mirror: pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some(),
        dns: text(pod, "/metadata/labels/k8s-app") == "kube-dns",
        ready: condition(pod, "Ready").is_some_and(|ready| ready.status),
        finished: matches!(phase.as_str(), "Succeeded" | "Failed")
            || pod.pointer("/metadata/deletionTimestamp").is_some(),
        phase,
        waiting,
        gone,
    }
}
