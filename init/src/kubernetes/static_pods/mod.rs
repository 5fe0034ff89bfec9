//! etcd and the three control plane components as static pods: kubeadm's flags, labels, probes, ports and paths
//! (`k8s.io/kubernetes/cmd/kubeadm/app/phases/{etcd,controlplane}`, `util/staticpod`), run from the seat.
//!
//! What differs from kubeadm, and why: the image is ours and holds nothing, the program comes from the seat through a
//! read-only mount; probes ask sooner, since they are what a Ready node waits for; containers have no capability and
//! a read-only root. And the manifests come in two parts: controller-manager and scheduler could only crash, or wait,
//! before there is an API server, and either takes the CPU that it needs to start.

mod apiserver;
mod controller_manager;
mod etcd;
mod scheduler;

use serde_json::{Value, json};

use super::{IMAGE, Render, Site, yaml};
use crate::paths;

/// The pods' names, in the order in which they need each other.
pub const NAMES: [&str; 4] = [etcd::NAME, apiserver::NAME, controller_manager::NAME, scheduler::NAME];

/// The manifests that boot renders: what the API server is made of. Beside a member of etcd's that has no vote yet there
/// is no API server; when it has one, the agent renders these again.
pub fn first(site: &Site<'_>) -> Vec<Render> {
    let etcd = site.has_etcd().then(|| render(site, &etcd::pod(site)));
    let api_server = site.has_api_server().then(|| render(site, &apiserver::pod(site)));
    etcd.into_iter().chain(api_server).collect()
}

/// The manifests that the agent renders when the local API server is ready.
pub fn later(site: &Site<'_>) -> Vec<Render> {
    if !site.has_api_server() {
        return Vec::new();
    }
    vec![render(site, &controller_manager::pod(site)), render(site, &scheduler::pod())]
}

fn render(site: &Site<'_>, pod: &Pod) -> Render {
    Render::private(format!("{}/{}.yaml", paths::MANIFESTS, pod.name), yaml::text(&pod.manifest(site)))
}

/// For each pod the files that it reads only when it starts: when one is renewed, the pod has to start anew.
pub fn inputs(name: &str) -> &'static [&'static str] {
    match name {
        apiserver::NAME => apiserver::INPUTS,
        controller_manager::NAME => controller_manager::INPUTS,
        scheduler::NAME => scheduler::INPUTS,
        _ => &[],
    }
}

/// A static pod with one container.
struct Pod {
    name: &'static str,
    annotations: Vec<(&'static str, String)>,
    flags: Vec<(&'static str, String)>,
    cpu: &'static str,
    memory: Option<&'static str>,
    port: u16,
    probes: Probes,
    mounts: Vec<Mount>,
    environment: Vec<(&'static str, String)>,
}

/// Who is asked how the component is.
struct Probes {
    host: String,
    scheme: &'static str,
    live: &'static str,
    ready: Option<&'static str>,
}

/// A path of the host at the same place in the container.
struct Mount {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    writable: bool,
}

impl Mount {
    fn directory(name: &'static str, path: &'static str) -> Self {
        Mount { name, path, kind: "Directory", writable: false }
    }

    fn file(name: &'static str, path: &'static str) -> Self {
        Mount { name, path, kind: "File", writable: false }
    }

    fn writable(self) -> Self {
        Mount { writable: true, ..self }
    }
}

const SEAT: Mount = Mount { name: "kubeboot-slot", path: paths::SEAT, kind: "Directory", writable: false };

/// How long a component may take to start before it is started anew: seconds, one probe each two.
const START: u32 = 600;

impl Pod {
    fn manifest(&self, site: &Site<'_>) -> Value {
        let mut annotations: serde_json::Map<String, Value> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        if let Some(digest) = site.inputs.get(self.name) {
            annotations.insert("kubeboot.local/inputs".to_owned(), json!(digest));
        }
        let mounts: Vec<&Mount> = self.mounts.iter().chain([&SEAT]).collect();
        let spec = json!({
            "containers": [self.container(&mounts)],
            "hostNetwork": true,
            "priority": 2_000_001_000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": mounts.iter().map(|mount| json!({
                "name": mount.name,
                "hostPath": {"path": mount.path, "type": mount.kind},
            })).collect::<Vec<_>>(),
        });
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": "kube-system",
                "annotations": annotations,
                "labels": {"component": self.name, "tier": "control-plane"},
            },
            "spec": spec,
        })
    }

    fn container(&self, mounts: &[&Mount]) -> Value {
        let mut flags = self.flags.clone();
        flags.sort();
        let program = [format!("{}/bin/{}", paths::SEAT, self.name)];
        let flags = flags.into_iter().map(|(name, value)| format!("--{name}={value}"));
        let mut requests = json!({"cpu": self.cpu});
        if let Some(memory) = self.memory {
            requests["memory"] = json!(memory);
        }
        let mut container = json!({
            "name": self.name,
            "image": IMAGE,
            "imagePullPolicy": "Never",
            "command": program.into_iter().chain(flags).collect::<Vec<_>>(),
            "ports": [{"name": "probe-port", "containerPort": self.port, "protocol": "TCP"}],
            "resources": {"requests": requests},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
            "startupProbe": self.probes.probe(self.probes.live, 2, START / 2),
            "livenessProbe": self.probes.probe(self.probes.live, 10, 8),
            "volumeMounts": mounts.iter().map(|mount| mount.inside()).collect::<Vec<_>>(),
        });
        if let Some(path) = self.probes.ready {
            container["readinessProbe"] = self.probes.probe(path, 5, 3);
        }
        if !self.environment.is_empty() {
            let variable = |(name, value): &(&str, String)| json!({"name": name, "value": value});
            container["env"] = self.environment.iter().map(variable).collect();
        }
        container
    }
}

impl Probes {
    fn probe(&self, path: &str, period: u32, failures: u32) -> Value {
        json!({
            "httpGet": {"host": self.host, "path": path, "port": "probe-port", "scheme": self.scheme},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": 15,
        })
    }
}

impl Mount {
    fn inside(&self) -> Value {
        json!({"name": self.name, "mountPath": self.path, "readOnly": !self.writable})
    }
}

/// Cipher suites of TLS 1.2 that the CIS benchmark accepts and our ECDSA keys can use; those of TLS 1.3 are fixed.
pub(super) const CIPHER_SUITES: [&str; 3] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];
