//! The kubelet (`kubelet.config.k8s.io/v1beta1`, KubeletConfiguration).

use serde_json::{Value, json};

use super::static_pods::CIPHER_SUITES;
use super::{Render, Site, yaml};
use crate::certificates::profile::KUBELET_SERVING;
use crate::paths;

/// Where FlexVolume plugins may be put: the default lies on the read-only root.
pub const VOLUME_PLUGINS: &str = "/var/lib/kubelet/volume-plugins";

/// The files.
pub fn renders(site: &Site<'_>) -> Vec<Render> {
    vec![
        Render::new(format!("{}/kubelet.yaml", paths::RENDERED), yaml::text(&config(site))),
        Render::new(format!("{}/kubelet.env", paths::RENDERED), format!("KUBELET_ARGS={}\n", arguments(site))),
    ]
}

/// Flags that have no place in the configuration file, which the unit names. Names, addresses and labels hold no blanks.
fn arguments(site: &Site<'_>) -> String {
    let mut arguments = vec![
        "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
        format!("--hostname-override={}", site.node.name),
        format!("--node-ip={}", site.node.address),
    ];
    let labels: Vec<String> = own_labels(site).map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        arguments.push(format!("--node-labels={}", labels.join(",")));
    }
    arguments.join(" ")
}

/// The labels that a kubelet gives its own node; on a control plane the agent sets the others.
fn own_labels<'a>(site: &'a Site<'_>) -> impl Iterator<Item = (&'a String, &'a String)> {
    let all = site.is_control_plane();
    site.settings.node.labels.iter().filter(move |(key, _)| is_free(key) || (!all && is_kubelets(key)))
}

/// Whether a label is of no domain of Kubernetes'.
fn is_free(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let of = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    !of("kubernetes.io") && !of("k8s.io")
}

/// Whether a label is one of Kubernetes' that a kubelet may give its own node (`k8s.io/kubelet/pkg/apis`, well-known labels).
fn is_kubelets(key: &str) -> bool {
    let (domain, name) = key.split_once('/').unwrap_or(("", key));
    let of = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    of("kubelet.kubernetes.io")
        || of("node.kubernetes.io")
        || (domain == "topology.kubernetes.io" && matches!(name, "zone" | "region"))
}

/// The labels of the settings that a worker can't have: only the cluster's administrator may give them (NodeRestriction).
pub fn refused_labels(settings: &crate::settings::Settings) -> Vec<&str> {
    settings.node.labels.keys().map(String::as_str).filter(|key| !is_free(key) && !is_kubelets(key)).collect()
}

fn config(site: &Site<'_>) -> Value {
    let files = KUBELET_SERVING.paths();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "staticPodPath": paths::MANIFESTS,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "systemd",
        "clusterDNS": [site.dns()],
        "clusterDomain": site.settings.cluster.dns_domain,
        // The list of servers behind systemd-resolved's stub, which no pod can reach.
        "resolvConf": "/run/systemd/resolve/resolv.conf",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "readOnlyPort": 0,
        "tlsCertFile": files[1],
        "tlsPrivateKeyFile": files[0],
        "tlsCipherSuites": CIPHER_SUITES,
        "tlsMinVersion": "VersionTLS12",
        // kubeboot renews this node's certificates, all in one way, by what the node can prove: its keys on a control plane,
        // its node key on a worker. A request by an old certificate alone is approved to nobody: it would let a machine that
        // was removed renew for as long as another has its name.
        "rotateCertificates": false,
        "seccompDefault": true,
        "podPidsLimit": 4096,
        "streamingConnectionIdleTimeout": "4h0m0s",
        "failSwapOn": true,
        // kube-proxy and flannel use nftables; there are no iptables rules to keep up.
        "makeIPTablesUtilChains": false,
        "volumePluginDir": VOLUME_PLUGINS,
        "registerWithTaints": taints(site),
        "shutdownGracePeriod": "30s",
        "shutdownGracePeriodCriticalPods": "10s",
        "systemReserved": {"cpu": "50m", "memory": "128Mi"},
        "evictionHard": {
            "imagefs.available": "10%",
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "nodefs.inodesFree": "5%",
        },
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 5,
        "eventRecordQPS": 50,
    })
}

/// `node.taints`, each `key[=value]:Effect`.
fn taints(site: &Site<'_>) -> Vec<Value> {
    let taint = |text: &String| {
        let (key, effect) = text.rsplit_once(':')?;
        let (key, value) = key.split_once('=').unwrap_or((key, ""));
        Some(json!({"key": key, "value": value, "effect": effect}))
    };
    site.settings.node.taints.iter().filter_map(taint).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn labels_and_taints_of_the_settings() {
        let (mut settings, node) = (sample::settings(), sample::node());
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        settings.node.labels =
            [label("disk", "ssd"), label("example.org/zone", "a"), label("node-role.kubernetes.io/edge", "")].into();
        settings.node.taints = vec!["dedicated=edge:NoSchedule".into(), "quiet:NoExecute".into()];
        let site = sample::site(&settings, &node);
        assert!(arguments(&site).ends_with("--node-labels=disk=ssd,example.org/zone=a"), "{}", arguments(&site));
        let mut worker = settings.clone();
        worker.role = Some(crate::settings::Role::Worker);
        worker.node.labels.insert("topology.kubernetes.io/zone".into(), "b".into());
        let text = arguments(&sample::site(&worker, &node));
        assert!(text.ends_with("--node-labels=disk=ssd,example.org/zone=a,topology.kubernetes.io/zone=b"), "{text}");
        assert_eq!(refused_labels(&worker), ["node-role.kubernetes.io/edge"]);
        assert_eq!(
            taints(&site),
            [
                json!({"key": "dedicated", "value": "edge", "effect": "NoSchedule"}),
                json!({"key": "quiet", "value": "", "effect": "NoExecute"}),
            ]
        );
    }
}
