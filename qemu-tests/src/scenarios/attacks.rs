//! Attacks that need pods and a worker: they share one cluster.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubeboot::enrolment::PORT;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::join::{FOUNDER, Tokens, WORKER, await_node, founder_of, use_both, worker_of};
use super::{founder, workload};
use crate::kubectl::Kubectl;
use crate::machine::network::Network;
use crate::oci::BUSYBOX;
use crate::scenario::{Needs, ONE, Scenario, Stage, stop_all};
use crate::transcript::last_lines;
use crate::wait::{Look, until};

/// What a node's log says of a pod's packet that was dropped.
const KEPT: &str = "kubeboot: kept a pod from this port: ";
const LIMIT: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);

/// The scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "Pods and a worker that was taken over get nothing by tokens, by IPv6 or by certificate requests",
    needs: Needs { machines: 2, ..ONE },
    long: false,
    run: attacks_fail,
}];

fn attacks_fail(stage: &mut Stage) -> Result<()> {
    let tokens = Tokens::new(stage);
    let images = founder::images(stage)?;
    let (spec, mut worker) = (founder_of(stage, &tokens, &images)?, worker_of(stage, &tokens, &images)?);
    // Where every pod can read it.
    worker.credentials.clear();
    worker.words.push(format!("kubeboot.token={}", tokens.worker()));
    let machine = stage.start(spec)?;
    let mut worker = stage.start(worker)?;
    let mut founded = stage.ready(machine)?;
    let kubectl = &founded.kubectl;
    await_node(kubectl, WORKER, &*worker)
        .and_then(|()| use_both(kubectl))
        .and_then(|()| pods_are_kept_from_every_node(kubectl))
        .and_then(|()| no_service_leads_to_enrolment(kubectl))
        .and_then(|()| no_pod_sends_past_the_rules(kubectl))
        .and_then(|()| containers_start_as_containerd_would_have_them(kubectl))
        .and_then(|()| no_token_is_a_credential_of_kubernetes(kubectl, &tokens))
        .and_then(|()| by_requests(kubectl))
        .inspect_err(|_| kubectl.describe(&stage.folder.join("cluster.log")))?;
    stop_all([&mut *worker, &mut *founded.machine])
}

/// Pods of both kinds, on both machines, ask for the port of enrolment; the rules that drop this count it. The worker,
/// which is no pod, joined through the same port.
///
/// # Errors
/// A pod's packet is not dropped.
pub(super) fn pods_are_kept_from_enrolment(kubectl: &Kubectl) -> Result<()> {
    let founder = Network::address(0);
    for (node, of_pods) in [(FOUNDER, "input"), (WORKER, "forward")] {
        is_dropped(kubectl, node, &format!("client-{node}"), of_pods, &founder)?;
        is_dropped(kubectl, node, &format!("node-{node}"), "output", &founder)?;
        is_logged(kubectl, Some(node))?;
    }
    Ok(())
}

/// The kernel's log of a node, or of the only one, names a pod that asked.
fn is_logged(kubectl: &Kubectl, node: Option<&str>) -> Result<()> {
    let log = workload::on(kubectl, node, &["journalctl", "--dmesg", "--output=cat", "--no-pager"])?;
    let told = |line: &str| line.contains(KEPT) && line.contains(&format!("DPT={PORT} "));
    ensure!(log.lines().any(told), "the log of {node:?} names no pod that asked:\n{}", last_lines(&log, 20));
    Ok(())
}

/// A pod of the only node asks for the port of enrolment there, and the kernel's log names it: with the image's own kernel,
/// which user-mode Linux's is not.
///
/// # Errors
/// It is not named.
pub(super) fn a_pod_is_logged(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let query = "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}";
    let address = kubectl.run(&["get", "nodes", "-o", query])?;
    // Nothing comes back: that it fails is meant.
    let _ = kubectl.exec(pod, &["nc", "-w", "3", &address, &PORT.to_string()]);
    is_logged(kubectl, None)
}

/// The same at the worker, which serves operators there, and by IPv6.
fn pods_are_kept_from_every_node(kubectl: &Kubectl) -> Result<()> {
    pods_are_kept_from_enrolment(kubectl)?;
    let worker = Network::address(1);
    is_dropped(kubectl, WORKER, &format!("client-{WORKER}"), "input", &worker)?;
    is_dropped(kubectl, WORKER, &format!("node-{WORKER}"), "output", &worker)?;
    for (node, other) in [(FOUNDER, WORKER), (WORKER, FOUNDER)] {
        // The pods' network has IPv4 addresses here; but every interface has a link-local address of IPv6, too.
        let bridge = in_use(&workload::on(kubectl, Some(node), &INTERFACES)?, LINK_LOCAL, |name| name == "cni0")?;
        let pod = in_use(&kubectl.exec(&format!("client-{node}"), &INTERFACES)?, LINK_LOCAL, |name| name != "lo")?;
        is_dropped(kubectl, node, &format!("client-{node}"), "input", &format!("{}%{}", bridge.0, pod.1))?;
        let (there, here) = (on_the_network(kubectl, other)?, on_the_network(kubectl, node)?);
        is_dropped(kubectl, node, &format!("node-{node}"), "output", &format!("{}%{}", there.0, here.1))?;
    }
    Ok(())
}

/// A machine's link-local address on the network of all of them. A kernel command line with a fixed address leaves the
/// interface without one, so it gets one.
fn on_the_network(kubectl: &Kubectl, node: &str) -> Result<(Ipv6Addr, String)> {
    let links = workload::on(kubectl, Some(node), &["ls", "/sys/class/net"])?;
    let link = links.split_whitespace().find(|name| is_link(name)).with_context(|| format!("no network in {links}"))?;
    let look = || in_use(&workload::on(kubectl, Some(node), &INTERFACES)?, LINK_LOCAL, is_link);
    look().or_else(|_| with_address(kubectl, node, link, "fe80", LINK_LOCAL))
}

/// An address of IPv6 that stands in a URL, which one with a zone does not: a machine's, on the network of all of them.
fn unique_local_of(kubectl: &Kubectl, node: &str) -> Result<Ipv6Addr> {
    let (_, link) = on_the_network(kubectl, node)?;
    with_address(kubectl, node, &link, "fd77", UNIQUE_LOCAL).map(|(address, _)| address)
}

fn is_link(name: &str) -> bool {
    name.starts_with("en") || name.starts_with("vec")
}

/// Gives a machine's link an address with this prefix, and waits until it is in use.
fn with_address(kubectl: &Kubectl, node: &str, link: &str, prefix: &str, kind: Kind) -> Result<(Ipv6Addr, String)> {
    let address = format!("{prefix}::77:{}/64", if node == FOUNDER { 1 } else { 2 });
    kubectl.exec(&format!("node-{node}"), &["ip", "-6", "address", "add", &address, "dev", link])?;
    let look = || in_use(&workload::on(kubectl, Some(node), &INTERFACES)?, kind, is_link);
    until(&format!("{node} to have {address}"), LIMIT, PAUSE, || Look::from_result(look()))
}

const INTERFACES: [&str; 2] = ["cat", "/proc/net/if_inet6"];

/// A kind of addresses.
type Kind = fn(&Ipv6Addr) -> bool;
const LINK_LOCAL: Kind = Ipv6Addr::is_unicast_link_local;
const UNIQUE_LOCAL: Kind = Ipv6Addr::is_unique_local;

/// What the kernel says of an address that it still looks for twins of (IFA_F_TENTATIVE).
const TENTATIVE: u8 = 0x40;

/// The first address of this kind that an interface has in use, and the interface's name.
fn in_use(interfaces: &str, kind: Kind, wanted: impl Fn(&str) -> bool) -> Result<(Ipv6Addr, String)> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok().map(Ipv6Addr::from)?;
        let name = words.next_back()?;
        let flags = u8::from_str_radix(words.next_back()?, 16).ok()?;
        (flags & TENTATIVE == 0 && kind(&address) && wanted(name)).then(|| (address, name.to_owned()))
    };
    interfaces.lines().find_map(of).with_context(|| format!("no such address in:\n{interfaces}"))
}

/// A Service may lead to a machine's port of enrolment, and who asks for it by another machine's address comes as that machine.
///
/// # Errors
/// It gets there.
fn no_service_leads_to_enrolment(kubectl: &Kubectl) -> Result<()> {
    let (founder, port) = (Network::address(0), 31_440);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "led" },
        "spec": { "type": "NodePort", "ports": [{ "port": 80, "targetPort": PORT, "nodePort": port }] },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": "led", "labels": { "kubernetes.io/service-name": "led" } },
        "endpoints": [{ "addresses": [founder] }], "ports": [{ "port": PORT }],
    });
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": [service, slice] }).to_string())?;
    let client = format!("client-{WORKER}");
    // kube-proxy hears of a Service a moment later; until then its port is closed.
    until("who comes by a Service to be dropped", LIMIT, PAUSE, || {
        Look::from_result(is_dropped_at(kubectl, FOUNDER, &client, "input", (&founder, port)))
    })
}

/// Packets that the rules do not see are sent by packet(7): a pod that asks for no rights can't, on either network. One that is
/// given all of them can.
///
/// # Errors
/// A pod may.
fn no_pod_sends_past_the_rules(kubectl: &Kubectl) -> Result<()> {
    for (node, other) in [(FOUNDER, 1), (WORKER, 0)] {
        let plain = format!("plain-{node}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": plain },
            "spec": {
                "hostNetwork": true, "terminationGracePeriodSeconds": 1, "tolerations": [{ "operator": "Exists" }],
                "nodeSelector": { "kubernetes.io/hostname": node },
                "containers": [{
                    "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "86400"],
                }],
            },
        });
        kubectl.apply(&pod.to_string())?;
        kubectl.wait_for_pods("default", LIMIT)?;
        is_dropped(kubectl, node, &plain, "output", &Network::address(other))?;
        let link = on_the_network(kubectl, node)?.1;
        let ask = |pod: &str, link: &str| {
            kubectl.exec(pod, &["arping", "-c", "1", "-w", "20", "-I", link, &Network::address(other)])
        };
        for (pod, link) in [(plain, link.as_str()), (format!("client-{node}"), "eth0")] {
            let said = ask(&pod, link);
            let refused = said.as_ref().is_err_and(|error| format!("{error:#}").contains("not permitted"));
            ensure!(refused, "{pod} sent a packet past the rules: {said:?}");
        }
        ask(&format!("node-{node}"), &link).context("a privileged pod could not ask, so the refusals say nothing")?;
    }
    Ok(())
}

/// What containers start from is what the release's own containerd would take, but for the right that they are to lack, and for
/// what the kubelet names for each pod.
///
/// # Errors
/// It is not: containerd has changed its own.
fn containers_start_as_containerd_would_have_them(kubectl: &Kubectl) -> Result<()> {
    let shown = |command: &[&str]| -> Result<Value> {
        let text = workload::on(kubectl, Some(WORKER), command)?;
        serde_json::from_str(&text).with_context(|| format!("{command:?} said: {text}"))
    };
    let ours = shown(&["cat", kubeboot::kubernetes::containerd::BASE_SPEC])?;
    let mut theirs = shown(&["/run/kubeboot/slot/bin/ctr", "oci", "spec"])?;
    for of_each_pod in ["maskedPaths", "readonlyPaths", "cgroupsPath"] {
        theirs["linux"].as_object_mut().context("it is of Linux")?.remove(of_each_pod);
    }
    let process = theirs["process"].as_object_mut().context("it has a process")?;
    process.remove("rlimits");
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut).context("it has capabilities")?;
    for set in sets.values_mut().filter_map(Value::as_array_mut) {
        set.retain(|capability| capability != "CAP_NET_RAW");
    }
    ensure!(ours == theirs, "containers start from {ours}, and containerd's own is {theirs}");
    Ok(())
}

/// A pod on a node asks an address for the port of enrolment, and a rule of this chain there drops it.
fn is_dropped(kubectl: &Kubectl, node: &str, pod: &str, chain: &str, address: &str) -> Result<()> {
    is_dropped_at(kubectl, node, pod, chain, (address, PORT))
}

/// The same, by way of another port.
fn is_dropped_at(kubectl: &Kubectl, node: &str, pod: &str, chain: &str, (address, port): (&str, u16)) -> Result<()> {
    let rules = || workload::on(kubectl, Some(node), &["nft", "list", "table", "inet", "kubeboot"]);
    let before = dropped(&rules()?, chain);
    // Whether nc calls it a failure is its own affair.
    let said = kubectl.exec(pod, &["nc", "-w", "3", address, &port.to_string()]);
    let said = said.unwrap_or_else(|error| error.to_string());
    let after = rules()?;
    ensure!(
        dropped(&after, chain) > before,
        "{pod} asked {address} for port {port} ({said}), and no rule of {node}'s chain {chain} dropped it:\n{after}"
    );
    Ok(())
}

/// How many packets the rules of a chain have dropped, by what nft lists.
fn dropped(rules: &str, chain: &str) -> u64 {
    let head = format!("chain {chain} {{");
    // A rule has braces of its own; only the chain's end stands alone on its line.
    let rules = rules.lines().skip_while(|line| line.trim() != head).take_while(|line| line.trim() != "}");
    let counted =
        rules.filter_map(|rule| rule.split_once("counter packets ")?.1.split_whitespace().next()?.parse::<u64>().ok());
    counted.sum()
}

/// The API server takes no token for anybody, from neither machine's pods, and by IPv6 neither. The pods' network has no
/// addresses of IPv6 here but those with a zone, which stand in no URL: by IPv6 those on the machines' network ask.
fn no_token_is_a_credential_of_kubernetes(kubectl: &Kubectl, tokens: &Tokens) -> Result<()> {
    let read = kubectl.exec(&format!("client-{WORKER}"), &["cat", "/proc/cmdline"])?;
    ensure!(read.contains(tokens.worker()), "the worker's command line has no token: {read}");
    let (ipv4, ipv6) = (Network::address(0), unique_local_of(kubectl, FOUNDER)?);
    unique_local_of(kubectl, WORKER)?;
    for (node, pod) in [FOUNDER, WORKER].iter().flat_map(|node| [(node, "client"), (node, "node")]) {
        let hosts = [Some(ipv4.clone()), (pod == "node").then(|| format!("[{ipv6}]"))];
        for (host, token) in hosts.iter().flatten().flat_map(|host| tokens.secrets().map(|token| (host, token))) {
            let url = format!("https://{host}:6443/api/v1/namespaces/kube-system/secrets");
            let header = format!("Authorization: Bearer {token}");
            let ask = ["wget", "-q", "-T", "20", "--no-check-certificate", "--header", &header, "-O", "-", &url];
            let said = kubectl.exec(&format!("{pod}-{node}"), &ask);
            let refused = said.as_ref().is_err_and(|error| format!("{error:#}").contains("401"));
            ensure!(refused, "{pod}-{node} asked {url} with a token, and was answered: {said:?}");
        }
    }
    Ok(())
}

/// A worker that was taken over, with its kubelet's credentials, asks Kubernetes for certificates of others'.
///
/// # Errors
/// A request is not refused, or not for the reason that it should be.
fn by_requests(kubectl: &Kubectl) -> Result<()> {
    let of_kubelets = "kubelets' certificates are issued by kubeboot alone";
    let of_nodes = "a node gets its certificates from kubeboot";
    // NodeRestriction comes first, with others' names.
    let others = "can only create a node CSR with CN=system:node:worker";
    for (number, request) in Request::all().iter().enumerate() {
        let object = request.object(number)?.to_string();
        let create = format!(
            "echo {} | base64 -d | KUBECONFIG=/etc/kubernetes/kubelet.conf /run/kubeboot/slot/bin/kubectl create -f -",
            BASE64.encode(&object)
        );
        refused(request, &[of_nodes, others], &workload::on(kubectl, Some(WORKER), &["sh", "-c", &create]))?;
        // Nor does somebody get one who may approve what he asks for.
        if request.signer != CLIENT {
            refused(request, &[of_kubelets], &kubectl.apply(&object).map(|()| "created".to_owned()))?;
        }
    }
    let left = kubectl.run(&["get", "certificatesigningrequests", "-o", "name"])?;
    ensure!(left.is_empty(), "these requests wait for somebody to approve them: {left}");
    let asked = format!("system:node:{WORKER}.*{of_nodes}");
    until("the audit log to name who asked", LIMIT, PAUSE, || {
        let log = workload::on(kubectl, Some(FOUNDER), &["grep", "-c", &asked, "/var/log/kubernetes/audit.log"]);
        Look::from_result(log)
    })
    .map(drop)
}

fn refused(request: &Request, reasons: &[&str], said: &Result<String>) -> Result<()> {
    let text = said.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    let refused = reasons.iter().any(|reason| text.contains(reason));
    ensure!(refused, "{request:?} was not refused with one of {reasons:?}: {said:?}");
    Ok(())
}

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// What a certificate is asked for.
#[derive(Debug)]
struct Request {
    signer: &'static str,
    name: String,
    organization: &'static str,
    addresses: Vec<String>,
    uri: Option<&'static str>,
}

impl Request {
    /// A foreign name, extra addresses and a URI, the loopback's, the Service's, a control plane's; and an administrator's.
    fn all() -> Vec<Self> {
        let of = |signer, node: &str, addresses: &[&str], uri| Request {
            signer,
            name: format!("system:node:{node}"),
            organization: "system:nodes",
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            uri,
        };
        let (own, control_plane) = (Network::address(1), Network::address(0));
        let administrator = Request {
            signer: CLIENT,
            name: "kubernetes-admin".to_owned(),
            organization: "kubeadm:cluster-admins",
            addresses: Vec::new(),
            uri: None,
        };
        vec![
            of(KUBELET_CLIENT, WORKER, &[], None),
            of(KUBELET_CLIENT, FOUNDER, &[], None),
            of(KUBELET_SERVING, WORKER, &[&own, &control_plane], None),
            of(KUBELET_SERVING, WORKER, &[&own, "127.0.0.1"], None),
            of(KUBELET_SERVING, WORKER, &[&own, "10.96.0.1"], None),
            of(KUBELET_SERVING, WORKER, &[&own], Some("spiffe://cluster.local/ns/kube-system/sa/default")),
            of(KUBELET_SERVING, FOUNDER, &[&control_plane], None),
            administrator,
        ]
    }

    fn object(&self, number: usize) -> Result<Value> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name.as_str());
        params.distinguished_name.push(DnType::OrganizationName, self.organization);
        for address in &self.addresses {
            params.subject_alt_names.push(SanType::IpAddress(address.parse()?));
        }
        if let Some(uri) = self.uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        let request = params.serialize_request(&KeyPair::generate()?).context("make a certificate request")?;
        let usage = if self.signer == KUBELET_SERVING { "server auth" } else { "client auth" };
        Ok(json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": { "name": format!("request-{number}") },
            "spec": {
                "request": BASE64.encode(request.pem()?), "signerName": self.signer,
                "usages": ["digital signature", usage],
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_read_with_their_interface() {
        let interfaces = "00000000000000000000000000000001 01 80 10 80       lo\n\
                          fe800000000000000077 02 40 20 80 bad\n\
                          fe800000000000000077fffe00000001 02 40 20 c0     eth0\n\
                          fe800000000000000077fffe000000aa 02 40 20 80     eth0\n";
        let found = in_use(interfaces, LINK_LOCAL, |name| name != "lo").unwrap();
        assert_eq!(found, ("fe80::77:fffe:0:aa".parse().unwrap(), "eth0".to_owned()));
        assert!(in_use(interfaces, LINK_LOCAL, |name| name == "cni0").is_err());
        assert!(in_use(interfaces, UNIQUE_LOCAL, |_| true).is_err());
        let with_another = format!("{interfaces}fd770000000000000000000000770001 02 40 00 80     eth0\n");
        assert_eq!(
            in_use(&with_another, UNIQUE_LOCAL, |_| true).unwrap(),
            ("fd77::77:1".parse().unwrap(), "eth0".to_owned())
        );
    }

    #[test]
    fn packets_are_counted_for_each_chain_alone() {
        let rules = "table inet kubeboot {\n\tchain input {\n\t\ttype filter hook input priority -10; policy accept;\n\t\tth { 6, 17 } \
                     counter packets 2 bytes 120 drop\n\t\tb counter packets 3 bytes 9 drop\n\t}\n\tchain output {\n\t\tc \
                     counter packets 7 bytes 1 drop\n\t}\n}\n";
        assert_eq!((dropped(rules, "input"), dropped(rules, "output"), dropped(rules, "forward")), (5, 7, 0));
    }
}
