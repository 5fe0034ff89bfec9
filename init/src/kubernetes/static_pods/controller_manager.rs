//! kube-controller-manager (`kube-controller-manager --help`; kubeadm's `phases/controlplane/manifests.go`).

use std::net::IpAddr;

use super::{Mount, Pod, Probes};
use crate::certificates::DAY;
use crate::kubernetes::Site;
use crate::kubernetes::kubelet::VOLUME_PLUGINS;
use crate::settings::Cidr;

pub(super) const NAME: &str = "kube-controller-manager";

const KUBECONFIG: &str = "/etc/kubernetes/controller-manager.conf";

/// Read once at start.
pub(super) const INPUTS: &[&str] = &[KUBECONFIG];

pub(super) fn pod(site: &Site<'_>) -> Pod {
    let mut mounts = vec![
        Mount::directory("k8s-certs", "/etc/kubernetes/pki"),
        Mount::file("kubeconfig", KUBECONFIG),
        Mount { kind: "DirectoryOrCreate", ..Mount::directory("flexvolume-dir", VOLUME_PLUGINS) },
    ];
    if site.host_authorities {
        mounts.push(Mount::directory("ca-certs", "/etc/ssl/certs"));
    }
    Pod {
        name: NAME,
        annotations: Vec::new(),
        flags: flags(site),
        cpu: "200m",
        memory: None,
        port: 10257,
        probes: Probes { host: "127.0.0.1".to_owned(), scheme: "HTTPS", live: "/healthz", ready: None },
        mounts,
        environment: Vec::new(),
    }
}

fn flags(site: &Site<'_>) -> Vec<(&'static str, String)> {
    let pki = |file: &str| format!("/etc/kubernetes/pki/{file}");
    let cluster = &site.settings.cluster;
    let mut flags = vec![
        ("allocate-node-cidrs", "true".to_owned()),
        ("authentication-kubeconfig", KUBECONFIG.to_owned()),
        ("authorization-kubeconfig", KUBECONFIG.to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("client-ca-file", pki("ca.crt")),
        ("cluster-cidr", cluster.pod_cidr.to_string()),
        ("cluster-name", "kubernetes".to_owned()),
        // For users alone: nodes' certificates come from kubeboot, and without an authority no one can have a kubelet's
        // signed here, whoever approves it.
        ("cluster-signing-duration", format!("{}h", 7 * DAY / 3600)),
        ("cluster-signing-kube-apiserver-client-cert-file", pki("ca.crt")),
        ("cluster-signing-kube-apiserver-client-key-file", pki("ca.key")),
        // It would approve requests for kubelets' certificates without a look at the names in them.
        ("controllers", "*,-certificatesigningrequest-approving-controller".to_owned()),
        ("flex-volume-plugin-dir", VOLUME_PLUGINS.to_owned()),
        // Each of its fifty controllers asks for a ServiceAccount and a token before the first one starts; at the
        // default of 20 requests a second a new node waits ten seconds for its block of addresses.
        ("kube-api-burst", "400".to_owned()),
        ("kube-api-qps", "200".to_owned()),
        ("kubeconfig", KUBECONFIG.to_owned()),
        ("leader-elect", "true".to_owned()),
        ("profiling", "false".to_owned()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("root-ca-file", pki("ca.crt")),
        ("service-account-private-key-file", pki("sa.key")),
        ("service-cluster-ip-range", cluster.service_cidr.to_string()),
        ("terminated-pod-gc-threshold", "1000".to_owned()),
        ("use-service-account-credentials", "true".to_owned()),
    ];
    flags.extend(node_mask(cluster.pod_cidr));
    flags
}

/// Length of the prefix of each node's block, where Kubernetes' own (24 and 64) does not fit the pods' block: it may
/// not be shorter than the block's, nor longer by more than 16 bits.
fn node_mask(pods: Cidr) -> Option<(&'static str, String)> {
    let (flag, default) = match pods.address {
        IpAddr::V4(_) => ("node-cidr-mask-size", 24),
        IpAddr::V6(_) => ("node-cidr-mask-size-ipv6", 64),
    };
    let fitting = default.clamp(pods.prefix, pods.prefix.saturating_add(16));
    (fitting != default).then(|| (flag, fitting.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_blocks_fit_into_the_pods_block() {
        let mask = |text: &str| node_mask(text.parse().unwrap()).map(|(_, mask)| mask);
        assert_eq!(mask("10.244.0.0/16"), None);
        assert_eq!(mask("10.0.0.0/8"), None);
        assert_eq!(mask("10.244.1.0/25").as_deref(), Some("25"));
        assert_eq!(mask("fd00::/56"), None);
        assert_eq!(mask("fd00::/40").as_deref(), Some("56"));
    }
}
