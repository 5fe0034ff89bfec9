//! The API server's policies: what is audited, who may be anonymous, which pods are warned about.

use serde_json::{Value, json};

use super::{Render, yaml};

/// Where they lie; the API server's pod mounts it.
pub const DIRECTORY: &str = "/run/kubeboot/config/apiserver";
/// `--audit-policy-file`
pub const AUDIT: &str = "/run/kubeboot/config/apiserver/audit-policy.yaml";
/// `--admission-control-config-file`
pub const ADMISSION: &str = "/run/kubeboot/config/apiserver/admission.yaml";
/// `--authentication-config`
pub const AUTHENTICATION: &str = "/run/kubeboot/config/apiserver/authentication.yaml";

/// The files.
pub fn renders() -> Vec<Render> {
    [(AUDIT, audit()), (ADMISSION, admission()), (AUTHENTICATION, authentication())]
        .map(|(path, value)| Render::private(path, yaml::text(&value)))
        .into()
}

/// `audit.k8s.io/v1`: who did what, without the bodies, which hold secrets. What components say to each other all day
/// is left out: it is most of the volume and none of the news.
fn audit() -> Value {
    let components = [
        "system:apiserver",
        "system:kube-controller-manager",
        "system:kube-proxy",
        "system:kube-scheduler",
        "system:serviceaccount:kube-system:generic-garbage-collector",
        "system:serviceaccount:kube-system:namespace-controller",
        "system:serviceaccount:kube-system:resourcequota-controller",
    ];
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"]},
            {"level": "None", "resources": [
                {"group": "", "resources": ["events"]},
                {"group": "events.k8s.io", "resources": ["events"]},
                {"group": "coordination.k8s.io", "resources": ["leases"]},
            ]},
            {"level": "None", "users": components, "verbs": ["get", "list", "watch"]},
            {"level": "None", "userGroups": ["system:nodes"], "verbs": ["get", "list", "watch"], "resources": [
                {"group": "", "resources": ["nodes", "pods", "services", "configmaps"]},
                {"group": "storage.k8s.io"}, {"group": "node.k8s.io"},
            ]},
            {"level": "None", "userGroups": ["system:nodes"], "resources": [
                {"group": "", "resources": ["nodes/status", "pods/status"]},
            ]},
            {"level": "Metadata"},
        ],
    })
}

/// PodSecurity: everything runs, and what is not `baseline` is warned about and audited
/// (`pod-security.admission.config.k8s.io/v1`).
fn admission() -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    "enforce": "privileged",
                    "enforce-version": "latest",
                    "audit": "baseline",
                    "audit-version": "latest",
                    "warn": "baseline",
                    "warn-version": "latest",
                },
                "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": ["kube-system"]},
            },
        }],
    })
}

/// Without credentials only health can be asked for (KEP-4633).
fn authentication() -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [],
        "anonymous": {
            "enabled": true,
            "conditions": [{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}],
        },
    })
}
