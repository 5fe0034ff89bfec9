//! kube-scheduler (`kube-scheduler --help`; kubeadm's `phases/controlplane/manifests.go`).

use super::{Mount, Pod, Probes};

pub(super) const NAME: &str = "kube-scheduler";

const KUBECONFIG: &str = "/etc/kubernetes/scheduler.conf";

/// Read once at start.
pub(super) const INPUTS: &[&str] = &[KUBECONFIG];

pub(super) fn pod() -> Pod {
    let flag = |name, value: &str| (name, value.to_owned());
    Pod {
        name: NAME,
        annotations: Vec::new(),
        flags: vec![
            flag("authentication-kubeconfig", KUBECONFIG),
            flag("authorization-kubeconfig", KUBECONFIG),
            flag("bind-address", "127.0.0.1"),
            flag("kubeconfig", KUBECONFIG),
            flag("leader-elect", "true"),
            flag("profiling", "false"),
        ],
        cpu: "100m",
        memory: None,
        port: 10259,
        probes: Probes { host: "127.0.0.1".to_owned(), scheme: "HTTPS", live: "/livez", ready: Some("/readyz") },
        mounts: vec![Mount::file("kubeconfig", KUBECONFIG)],
        environment: Vec::new(),
    }
}
