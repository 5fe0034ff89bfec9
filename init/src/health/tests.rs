//! Each gate, passing and failing, on answers of the shape that the Kubernetes API gives.

use serde_json::{Value, json};

use super::*;

const BOOT: &str = "7d1c1e7e-7f3c-4a9e-9a53-0a51d8f1c001";

fn expected() -> Expected {
    Expected {
        node: "cp-1".into(),
        boot: BOOT.into(),
        kubelet: "v1.37.2".into(),
        static_pods: vec!["etcd".into(), "kube-apiserver".into()],
        proxy: true,
        flannel: true,
        dns: Some("kubernetes.default.svc.cluster.local".into()),
    }
}

fn node(ready: &str, version: &str) -> Value {
    json!({
        "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {
            "nodeInfo": {"kubeletVersion": version, "bootID": BOOT},
            "addresses": [{"type": "Hostname", "address": "cp-1"}, {"type": "InternalIP", "address": "10.0.2.15"}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletNotReady", "message": "cni not ready"}],
        },
    })
}

fn pod(name: &str, mirror: bool, ready: bool) -> Value {
    let annotations = if mirror { json!({"kubernetes.io/config.mirror": "x"}) } else { json!({}) };
    let labels = if name.starts_with("coredns") { json!({"k8s-app": "kube-dns"}) } else { json!({}) };
    let (status, state) = match ready {
        true => ("True", json!({"running": {"startedAt": "2026-11-23T07:00:00Z"}})),
        false => ("False", json!({"waiting": {"reason": "CrashLoopBackOff"}})),
    };
    json!({
        "metadata": {"name": name, "annotations": annotations, "labels": labels},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}],
            "containerStatuses": [{"name": "main", "containerID": format!("containerd://{name}"), "state": state}]},
    })
}

/// On a machine that started each of these pods' containers at this boot.
fn pods_of(pods: &Value) -> Vec<PodSeen> {
    let names = ["etcd-cp-1", "kube-apiserver-cp-1", "coredns-5d", "job-1", "coredns-old"];
    pods_from(pods, &names.map(str::to_owned).into())
}

fn healthy() -> Seen {
    let pods = json!({"items": [
        pod("etcd-cp-1", true, true), pod("kube-apiserver-cp-1", true, true), pod("coredns-5d", false, true),
    ]});
    let good = |text: &str| Some(Ok(text.to_owned()));
    Seen {
        api: good("ready"),
        etcd: good("healthy"),
        node: Some(Ok(node_from(&node("True", "v1.37.2")))),
        pods: Some(Ok(pods_of(&pods))),
        flannel: good("10.244.0.0/24"),
        proxy: good("healthy"),
        dns: good("10.96.0.1"),
    }
}

fn table(expected: &Expected, seen: &Seen) -> String {
    let line = |verdict: Verdict| {
        format!("{:<12} {} {}\n", verdict.gate, if verdict.pass { "pass" } else { "FAIL" }, verdict.observed)
    };
    judge(expected, seen).into_iter().map(line).collect()
}

#[test]
fn a_healthy_node_passes_every_gate() {
    assert!(all_pass(&judge(&expected(), &healthy())));
    insta::assert_snapshot!(table(&expected(), &healthy()));
}

#[test]
fn nothing_observed_is_nothing_passed() {
    insta::assert_snapshot!(table(&expected(), &Seen::default()));
    assert!(!all_pass(&[]));
}

#[test]
fn each_gate_says_what_it_saw() {
    let pods = json!({"items": [pod("etcd-cp-1", true, false), pod("kube-apiserver-cp-1", false, true)]});
    let mut node = node("False", "v1.37.2");
    node["spec"]["podCIDRs"] = json!([]);
    let bad = |text: &str| Some(Err(text.to_owned()));
    let seen = Seen {
        api: bad("connection refused"),
        etcd: bad("503: no leader"),
        node: Some(Ok(node_from(&node))),
        pods: Some(Ok(pods_of(&pods))),
        flannel: bad("no lease"),
        proxy: bad("connection refused"),
        dns: bad("no answer within 1 s"),
    };
    insta::assert_snapshot!(table(&expected(), &seen));
}

#[test]
fn a_kubelet_of_another_version_fails_although_it_is_ready() {
    let seen = Seen { node: Some(Ok(node_from(&node("True", "v1.36.3")))), ..healthy() };
    let failed: Vec<_> = judge(&expected(), &seen).into_iter().filter(|verdict| !verdict.pass).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].observed, "expected kubelet v1.37.2, found v1.36.3");
}

#[test]
fn a_node_with_the_users_own_network_has_no_gates_for_ours() {
    let own = Expected { proxy: false, flannel: false, dns: None, static_pods: vec![], ..expected() };
    let gates: Vec<_> = judge(&own, &healthy()).into_iter().map(|verdict| verdict.gate).collect();
    assert_eq!(gates, ["api", "kubelet", "network", "system-pods"]);
}

#[test]
fn a_pod_that_ends_does_not_hold_the_gate() {
    let mut done = pod("job-1", false, false);
    done["status"]["phase"] = json!("Succeeded");
    let mut leaving = pod("coredns-old", false, false);
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-23T07:00:00Z");
    let mut seen = healthy();
    if let Some(Ok(pods)) = &mut seen.pods {
        pods.extend(pods_of(&json!({"items": [done, leaving]})));
    }
    assert!(all_pass(&judge(&expected(), &seen)));
}

#[test]
fn what_etcd_remembers_of_the_boot_before_passes_no_gate() {
    let mut before = node("True", "v1.37.2");
    before["status"]["nodeInfo"]["bootID"] = json!("0d1c1e7e-7f3c-4a9e-9a53-0a51d8f1c002");
    let pods = json!({"items": [
        pod("etcd-cp-1", true, true), pod("kube-apiserver-cp-1", true, true), pod("coredns-5d", false, true),
    ]});
    // The kubelet has started etcd again, and nothing else yet.
    let pods = pods_from(&pods, &["etcd-cp-1".to_owned()].into());
    let seen = Seen { node: Some(Ok(node_from(&before))), pods: Some(Ok(pods)), ..healthy() };
    let failed: Vec<_> = judge(&expected(), &seen).into_iter().filter(|verdict| !verdict.pass).collect();
    let told: Vec<_> = failed.iter().map(|verdict| (verdict.gate.as_str(), verdict.observed.as_str())).collect();
    assert_eq!(
        told,
        [
            ("kubelet", "what is known of cp-1 is from before this boot"),
            ("static-pods", "kube-apiserver is known from before this boot, when main ran"),
            (
                "system-pods",
                "kube-apiserver-cp-1 is known from before this boot, when main ran; coredns-5d is known from before this \
                 boot, when main ran"
            ),
        ]
    );
}
