//! etcd (`etcd --help`; kubeadm's `phases/etcd/local.go`).

use super::{Mount, Pod, Probes};
use crate::etcd::{CLIENT_PORT, PEER_PORT};
use crate::kubernetes::{Site, endpoint};
use crate::paths;

pub(super) const NAME: &str = "etcd";

const METRICS: u16 = 2381;

/// Whom etcd finds the others by at its first start.
fn initial_cluster(site: &Site<'_>, peer: &str) -> String {
    match &site.membership {
        None => format!("{}={peer}", site.node.name),
        Some(membership) => {
            let members = membership.initial_cluster.iter().map(|(name, url)| format!("{name}={url}"));
            members.collect::<Vec<_>>().join(",")
        }
    }
}

pub(super) fn pod(site: &Site<'_>) -> Pod {
    let url = |address, port| format!("https://{}", endpoint(address, port));
    let (address, loopback) = (site.node.address, site.loopback());
    let (client, peer) = (url(address, CLIENT_PORT), url(address, PEER_PORT));
    let pki = |file: &str| format!("/etc/kubernetes/pki/etcd/{file}");
    let flags = vec![
        ("advertise-client-urls", client.clone()),
        ("cert-file", pki("server.crt")),
        ("client-cert-auth", "true".to_owned()),
        ("data-dir", paths::ETCD_DATA.to_owned()),
        ("feature-gates", "InitialCorruptCheck=true".to_owned()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", initial_cluster(site, &peer)),
        ("initial-cluster-state", if site.membership.is_some() { "existing" } else { "new" }.to_owned()),
        // Members of different clusters never talk to each other, even if their addresses were mixed up.
        ("initial-cluster-token", site.cluster.to_owned()),
        ("key-file", pki("server.key")),
        ("listen-client-urls", format!("{},{client}", url(loopback, CLIENT_PORT))),
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

#[cfg(test)]
mod tests {
    use crate::etcd::{Member, Membership};
    use crate::kubernetes::{renders, sample};

    #[test]
    fn a_member_that_joins_finds_the_others_and_has_an_api_server_only_with_a_vote() {
        let (mut settings, node) = (sample::settings(), sample::node());
        settings.role = Some(crate::settings::Role::ControlPlane);
        let mut site = sample::site(&settings, &node);
        let pods = |all: &[crate::kubernetes::Render]| {
            all.iter().filter(|render| render.path.starts_with(crate::paths::MANIFESTS)).count()
        };
        assert_eq!(pods(&renders(&site)), 0, "no record, no etcd: it would begin a cluster of its own");
        assert!(crate::kubernetes::later(&site).is_empty());
        let founder = Member {
            id: 1,
            name: "zero".into(),
            peers: vec!["https://192.0.2.9:2380".into()],
            clients: Vec::new(),
            learner: false,
        };
        let membership = Membership::learner(7, "one", "https://192.0.2.10:2380", &[founder]);
        site.membership = Some(membership.clone());
        let learner = renders(&site);
        let pod = learner.iter().find(|render| render.path.ends_with("/etcd.yaml")).expect("etcd runs");
        let flags = "--initial-cluster=one=https://192.0.2.10:2380,zero=https://192.0.2.9:2380";
        assert!(pod.contents.contains(flags) && pod.contents.contains("--initial-cluster-state=existing"));
        let has_api_server =
            |all: &[crate::kubernetes::Render]| all.iter().any(|render| render.path.ends_with("/kube-apiserver.yaml"));
        assert!(!has_api_server(&learner));
        site.membership = Some(membership.promoted());
        let voter = renders(&site);
        assert!(has_api_server(&voter) && voter.contains(pod), "a vote changes nothing of etcd's pod");
    }
}
