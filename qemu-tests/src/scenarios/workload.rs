//! What people do with a cluster: pods from an image that came on a volume, names, Services, logs, exec, port-forward.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::kubectl::Kubectl;
use crate::oci::BUSYBOX;
use crate::scenario::Founded;

const LIMIT: Duration = Duration::from_secs(180);

/// Starts pods and uses them.
///
/// # Errors
/// Something does not work; the message says what.
pub fn run(founded: &Founded) -> Result<()> {
    let kubectl = &founded.kubectl;
    kubectl.wait_for("the default service account", LIMIT, &["get", "serviceaccount", "default"], |_| true)?;
    kubectl.apply(&pods())?;
    kubectl.wait_for_pods("default", LIMIT)?;
    let name = ["nslookup", "kubernetes.default.svc.cluster.local"];
    let mut looked_up = String::new();
    crate::wait::until("CoreDNS to resolve kubernetes.default.svc", LIMIT, Duration::from_secs(2), || {
        crate::wait::Look::from_result(kubectl.exec("client", &name).map(|answer| looked_up = answer))
    })?;
    ensure!(looked_up.contains("10.96.0.1"), "nslookup answered: {looked_up}");
    let ask = ["wget", "-q", "-T", "20", "-O", "-", "http://web/"];
    let mut page = String::new();
    // kube-proxy hears of an endpoint a moment after it is ready; until then it refuses connections.
    crate::wait::until("the Service web to reach its pod", LIMIT, Duration::from_secs(2), || {
        crate::wait::Look::from_result(kubectl.exec("client", &ask).map(|answer| page = answer))
    })?;
    ensure!(page.contains("a page from the pod"), "the Service answered: {page}");
    let short = kubectl.exec("client", &["wget", "-q", "-T", "20", "-O", "-", "http://web.default.svc/"])?;
    ensure!(short == page, "the Service answered by its longer name: {short}");
    let logs = kubectl.run(&["logs", "client"])?;
    ensure!(logs.contains("the client started"), "kubectl logs gave: {logs}");
    let forwarded = kubectl.forward("pod/web", 80)?.fetch(LIMIT)?;
    ensure!(forwarded == page, "the forwarded port answered: {forwarded}");
    Ok(())
}

fn pods() -> String {
    let pod = |name: &str, command: &[&str]| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "app": name } },
            // Process 1 of its own, a program of busybox's would not hear that it is to end.
            "spec": { "shareProcessNamespace": true, "terminationGracePeriodSeconds": 1, "containers": [
                { "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": command },
            ] },
        })
    };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
    });
    let serve = ["httpd", "-f", "-p", "80", "-h", "/www"];
    let wait = ["sh", "-c", "echo the client started; exec sleep 86400"];
    json!({ "apiVersion": "v1", "kind": "List", "items": [service, pod("web", &serve), pod("client", &wait)] })
        .to_string()
}

/// Runs a command of the only node itself, as root in its own root directory, by way of a privileged pod.
///
/// # Errors
/// The pod does not start, or the command fails.
pub fn on_node(kubectl: &Kubectl, command: &[&str]) -> Result<String> {
    on(kubectl, None, command)
}

/// The same on the node of a name.
///
/// # Errors
/// As [`on_node`].
pub fn on(kubectl: &Kubectl, node: Option<&str>, command: &[&str]) -> Result<String> {
    let name = node.map_or_else(|| "node".to_owned(), |node| format!("node-{node}"));
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "hostPID": true, "hostNetwork": true, "terminationGracePeriodSeconds": 1,
            "tolerations": [{ "operator": "Exists" }],
            "volumes": [{ "name": "root", "hostPath": { "path": "/" } }],
            "containers": [{
                "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "86400"],
                "securityContext": { "privileged": true },
                "volumeMounts": [{ "name": "root", "mountPath": "/host", "mountPropagation": "HostToContainer" }],
            }],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    }
    kubectl.wait_for("the default service account", LIMIT, &["get", "serviceaccount", "default"], |_| true)?;
    kubectl.apply(&pod.to_string())?;
    kubectl.wait_for_pods("default", LIMIT)?;
    // Process 1 has the namespaces of the node. By env, because busybox's nsenter takes an applet of its own before the
    // node's program of that name; with the node's PATH, because the pod's is another.
    let enter = ["nsenter", "-t", "1", "-m", "-u", "-i", "-n", "--", "/usr/bin/env", "PATH=/usr/sbin:/usr/bin"];
    kubectl.exec(&name, &[&enter, command].concat())
}

/// Runs the node's own kubeboot on the node of a name, or on the only one.
///
/// # Errors
/// As [`on_node`].
pub fn kubeboot(kubectl: &Kubectl, node: Option<&str>, words: &[&str]) -> Result<String> {
    on(kubectl, node, &[&["/run/kubeboot/slot/bin/kubeboot"], words].concat())
}
