//! Which control planes a cluster has, and which of them it has lost.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

/// Where the API lists them: the nodes with kubeadm's label.
pub const PATH: &str = "/api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane";

/// A control plane as its Node object says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlPlane {
    /// The node's name.
    pub name: String,
    /// Its address, if it has said one.
    pub address: Option<IpAddr>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Since when it is what it is, as Kubernetes writes moments; empty if that is not known.
    pub since: String,
}

/// Those in a NodeList.
pub fn control_planes(nodes: &Value) -> Vec<ControlPlane> {
    let items = nodes.get("items").and_then(Value::as_array).into_iter().flatten();
    items.filter_map(read).collect()
}

fn read(node: &Value) -> Option<ControlPlane> {
    let of_type = |pointer: &str, wanted: &str| {
        let list = node.pointer(pointer).and_then(Value::as_array)?;
        list.iter().find(|one| one.get("type").and_then(Value::as_str) == Some(wanted))
    };
    let text = |value: Option<&Value>, field: &str| value?.get(field)?.as_str().map(str::to_owned);
    let ready = of_type("/status/conditions", "Ready");
    Some(ControlPlane {
        name: node.pointer("/metadata/name")?.as_str()?.to_owned(),
        address: text(of_type("/status/addresses", "InternalIP"), "address").and_then(|text| text.parse().ok()),
        ready: text(ready, "status").as_deref() == Some("True"),
        since: text(ready, "lastTransitionTime").unwrap_or_default(),
    })
}

/// What is lost, and the exact commands that replace it; nothing when all are Ready.
pub fn replacing(all: &[ControlPlane]) -> Vec<String> {
    let (well, lost): (Vec<&ControlPlane>, Vec<&ControlPlane>) = all.iter().partition(|one| one.ready);
    let mut lines = Vec::new();
    for one in lost {
        let since = if one.since.is_empty() { String::new() } else { format!(" since {}", one.since) };
        lines.push(format!("{} does not answer{since}. If that machine does not come back:", one.name));
        let Some(other) = well.first() else {
            lines.push("  no other control plane is Ready; bring one back first".to_owned());
            continue;
        };
        // Nobody can log in to a node: an operator commands it from where the key is.
        let join = other.address.map_or_else(|| other.name.clone(), |address| address.to_string());
        lines.push(format!("  an operator: kubeboot --node {join} node remove {}", one.name));
        lines.push(format!("  an operator: kubeboot --node {join} token create --role control-plane"));
        lines.push(format!(
            "  a new machine: kubeboot.role=control-plane kubeboot.join={join} kubeboot.name={}, and the token as the \
             credential kubeboot.token",
            one.name
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str) -> Value {
        json!({
            "metadata": {"name": name},
            "status": {
                "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.0.0.11"}],
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": ready, "lastTransitionTime": "2026-11-29T23:00:00Z"},
                ],
            },
        })
    }

    #[test]
    fn what_is_lost_is_named_with_the_commands_that_replace_it() {
        let all =
            control_planes(&json!({"items": [node("cp-1", "Unknown"), node("cp-2", "True"), node("cp-3", "True")]}));
        insta::assert_snapshot!(replacing(&all).join("\n"));
        assert_eq!(replacing(&all[1..]), [""; 0]);
        let none_left = replacing(&all[..1]).join("\n");
        assert!(none_left.contains("no other control plane is Ready"), "{none_left}");
    }

    #[test]
    fn a_node_that_said_nothing_yet_is_not_ready() {
        let found = control_planes(&json!({"items": [{"metadata": {"name": "new"}}]}));
        assert_eq!(found, [ControlPlane { name: "new".into(), address: None, ready: false, since: String::new() }]);
        assert!(control_planes(&json!({})).is_empty());
    }
}
