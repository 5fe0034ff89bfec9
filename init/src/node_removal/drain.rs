//! Which pods of a node move (`kubectl drain`, `k8s.io/kubectl/pkg/drain/filters.go`).

use serde_json::{Value, json};

/// A pod by its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod made anew under the same name is another.
    pub uid: String,
}

impl Pod {
    fn of(object: &Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Some(Pod {
            namespace: text("/metadata/namespace")?,
            name: text("/metadata/name")?,
            uid: text("/metadata/uid")?,
        })
    }

    /// Where evictions of it are posted.
    pub fn eviction_path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}/eviction", self.namespace, self.name)
    }
}

/// The pods in a PodList that have to leave their node: not the node's own (static pods), not what a DaemonSet would start
/// there again, and not what has ended.
pub fn to_evict(pods: &Value) -> Vec<Pod> {
    let items = pods.get("items").and_then(Value::as_array).into_iter().flatten();
    items.filter(|pod| moves(pod)).filter_map(Pod::of).collect()
}

fn moves(pod: &Value) -> bool {
    let is_mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    let of_daemon_set = owners
        .filter(|owner| owner.get("controller").and_then(Value::as_bool).unwrap_or_default())
        .any(|owner| owner.get("kind").and_then(Value::as_str) == Some("DaemonSet"));
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    !is_mirror && !of_daemon_set && !matches!(phase, "Succeeded" | "Failed")
}

/// What asks a pod to leave (`policy/v1`): its disruption budget may refuse for now.
pub fn eviction(pod: &Pod) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    })
}
