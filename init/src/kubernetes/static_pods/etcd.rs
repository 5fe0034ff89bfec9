//! etcd (`etcd --help`; kubeadm's `phases/etcd/local.go`).

use super::{Mount, Pod, Probes};
use crate::kubernetes::{Site, endpoint};
use crate::paths;

pub(super) const NAME: &str = "etcd";

const METRICS: u16 = 2381;

pub(super) fn pod(site: &Site<'_>) -> Pod {
    let url = |address, port| format!("https://{}", endpoint(address, port));
    let (address, loopback) = (site.node.address, site.loopback());
    let (client, peer) = (url(address, 2379), url(address, 2380));
    let pki = |file: &str| format!("/etc/kubernetes/pki/etcd/{file}");
    let flags = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", pki("server.crt")),
        ("client-cert-auth", "true".to_owned()),
        ("data-dir", paths::ETCD_DATA.to_owned()),
        ("feature-gates", "InitialCorruptCheck=true".to_owned()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("{}={peer}", site.node.name)),
        // Members of different clusters never talk to each other, even if their addresses were mixed up.
        ("initial-cluster-token", site.cluster.to_owned()),
        ("key-file", pki("server.key")),
        ("listen-client-urls", format!("{},{client}", url(loopback, 2379))),
        ("listen-metrics-urls", format!("http://{}", endpoint(loopback, METRICS))),
        ("listen-peer-urls", peer),
        ("name", site.node.name.clone()),
        ("peer-cert-file", pki("peer.crt")),
        ("peer-client-cert-auth", "true".to_owned()),
        ("peer-key-file", pki("peer.key")),
        ("peer-trusted-ca-file", pki("ca.crt")),
        ("snapshot-count", "10000".to_owned()),
        ("tls-min-version", "TLS1.3".to_owned()),
        ("trusted-ca-file", pki("ca.crt")),
        ("watch-progress-notify-interval", "5s".to_owned()),
    ];
    Pod {
        name: NAME,
        annotations: vec![("kubeadm.kubernetes.io/etcd.advertise-client-urls", client)],
        flags,
        cpu: "100m",
        memory: Some("100Mi"),
        port: METRICS,
        // A learner is alive but never ready: startup and liveness ask /livez.
        probes: Probes { host: loopback.to_string(), scheme: "HTTP", live: "/livez", ready: Some("/readyz") },
        mounts: vec![
            Mount::directory("etcd-certs", "/etc/kubernetes/pki/etcd"),
            Mount::directory("etcd-data", paths::ETCD_DATA).writable(),
        ],
        environment: Vec::new(),
    }
}
