//! Permissions: kubeadm's binding for administrators, and those of what kubeboot runs beside the API server.

use serde_json::{Value, json};

/// The set's name.
pub const NAME: &str = "kubeboot";

const API: &str = "rbac.authorization.k8s.io";

/// The objects.
pub fn objects() -> Vec<Value> {
    vec![
        // kubeadm's; operators' certificates are of this group too.
        binding("kubeadm:cluster-admins", "cluster-admin", &group("kubeadm:cluster-admins")),
        binding("kubeboot:kube-apiserver", "system:kubelet-api-admin", &user("kube-apiserver-kubelet-client")),
        // flanneld is its node to the API server, so that NodeRestriction holds it to that node: it writes no other, and of
        // its own neither taints nor restricted labels. What it reads beside is how to reach the others.
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": "ClusterRole",
            "metadata": {"name": "kubeboot:flannel"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}],
        }),
        binding("kubeboot:flannel", "kubeboot:flannel", &group("system:nodes")),
        // A worker's balancer follows the API servers, which are no secret: every pod gets their Service's address.
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": "Role",
            "metadata": {"name": "kubeboot:api-servers", "namespace": "default"},
            "rules": [{
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "resourceNames": ["kubernetes"],
                "verbs": ["get"],
            }],
        }),
        json!({
            "apiVersion": format!("{API}/v1"),
            "kind": "RoleBinding",
            "metadata": {"name": "kubeboot:api-servers", "namespace": "default"},
            "roleRef": {"apiGroup": API, "kind": "Role", "name": "kubeboot:api-servers"},
            "subjects": [group("system:nodes")],
        }),
    ]
}

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{API}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}

fn group(name: &str) -> Value {
    json!({"apiGroup": API, "kind": "Group", "name": name})
}

fn user(name: &str) -> Value {
    json!({"apiGroup": API, "kind": "User", "name": name})
}
