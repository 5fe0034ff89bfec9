//! Pods' network: flannel, kube-proxy, and the template of the node's CNI configuration.

use serde_json::{Value, json};

use super::{Render, Site, endpoint, yaml};
use crate::paths;
use crate::settings::{Backend, Cidr, ProxyMode};

/// The files: none of a part that the user brings.
pub fn renders(site: &Site<'_>) -> Vec<Render> {
    let mut renders = Vec::new();
    if site.settings.network.backend != Backend::None {
        renders.push(Render::new(FLANNEL, json_text(&flannel(site))));
        let arguments = format!(
            "FLANNELD_ARGS=--kubeconfig=/etc/kubernetes/flannel.conf --node-name={} --node-ip={} --net-conf={FLANNEL}\n",
            site.node.name, site.node.address
        );
        renders.push(Render::new(format!("{}/flanneld.env", paths::RENDERED), arguments));
    }
    if site.settings.proxy != ProxyMode::None {
        renders.push(Render::new(format!("{}/kube-proxy.yaml", paths::RENDERED), yaml::text(&proxy(site))));
    }
    renders
}

/// flannel's `net-conf.json`.
const FLANNEL: &str = "/run/kubeboot/config/flannel.json";

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// `net-conf.json` (flannel's Documentation/configuration.md).
fn flannel(site: &Site<'_>) -> Value {
    let pods = site.settings.cluster.pod_cidr;
    let backend = match site.settings.network.backend {
        Backend::Vxlan | Backend::None => "vxlan",
        Backend::HostGw => "host-gw",
        Backend::Wireguard => "wireguard",
    };
    let mut config = json!({"EnableNFTables": true, "Backend": {"Type": backend}});
    if pods.address.is_ipv4() {
        config["Network"] = json!(pods.to_string());
    } else {
        config["EnableIPv4"] = json!(false);
        config["EnableIPv6"] = json!(true);
        config["IPv6Network"] = json!(pods.to_string());
    }
    config
}

/// `kubeproxy.config.k8s.io/v1alpha1`, KubeProxyConfiguration.
fn proxy(site: &Site<'_>) -> Value {
    let any = if site.node.address.is_ipv4() { "0.0.0.0" } else { "::" };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": any,
        "clientConnection": {"kubeconfig": "/etc/kubernetes/kube-proxy.conf"},
        "clusterCIDR": site.settings.cluster.pod_cidr,
        "detectLocalMode": "ClusterCIDR",
        "enableProfiling": false,
        "healthzBindAddress": endpoint(any.parse().unwrap_or(site.node.address), 10256),
        "hostnameOverride": site.node.name,
        "metricsBindAddress": endpoint(site.loopback(), 10249),
    })
}

/// What a pod's packets grow by on the way to another node, in bytes.
fn overhead(backend: Backend, ipv4: bool) -> u32 {
    match (backend, ipv4) {
        (Backend::Vxlan, true) => 50,
        (Backend::Vxlan, false) => 70,
        (Backend::Wireguard, true) => 60,
        (Backend::Wireguard, false) => 80,
        (Backend::HostGw | Backend::None, _) => 0,
    }
}

/// What a node gets of the pods' block: the controller-manager's defaults for `--node-cidr-mask-size-ipv4` and `-ipv6`.
const NODE_PREFIX: (u8, u8) = (24, 64);

/// The block of addresses that the first node of a cluster gets from the controller-manager: the first one.
pub fn first_block(pods: Cidr) -> Cidr {
    pods.first(if pods.address.is_ipv4() { NODE_PREFIX.0 } else { NODE_PREFIX.1 })
}

/// What gives the first node of a cluster its block; none when it has one, or when it is not the only node (then a
/// block may be another's). `nodes` is a NodeList of at least two, if there are so many.
pub fn first_block_patch(nodes: &Value, node: &str, pods: Cidr) -> Option<Value> {
    let items = nodes.get("items")?.as_array()?;
    let [only] = items.as_slice() else { return None };
    let has_block = only.pointer("/spec/podCIDR").is_some();
    let own = only.pointer("/metadata/name")?.as_str()? == node;
    let block = first_block(pods);
    (own && !has_block).then(|| json!({"spec": {"podCIDR": block, "podCIDRs": [block]}}))
}

/// containerd fills in the node's block (its `docs/cri/config.md`, "CNI Config Template"), as soon as the kubelet
/// knows it: that makes the node Ready. There is no variable for the MTU, so it is written in.
///
/// host-local's notes lie on a tmpfs: after a power cut no pod is left that could still have its address.
pub fn cni_template(site: &Site<'_>) -> String {
    let network = &site.settings.network;
    let uplink = network.mtu.unwrap_or(site.mtu);
    let mtu = uplink.saturating_sub(overhead(network.backend, site.node.address.is_ipv4()));
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "kubeboot",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "mtu": {mtu},
      "ipam": {{
        "type": "host-local",
        "dataDir": "/run/kubeboot/cni/networks",
        "ranges": [{{{{range $i, $range := .PodCIDRRanges}}}}{{{{if $i}}}}, {{{{end}}}}[{{"subnet": "{{{{$range}}}}"}}]{{{{end}}}}],
        "routes": [{{{{range $i, $route := .Routes}}}}{{{{if $i}}}}, {{{{end}}}}{{"dst": "{{{{$route}}}}"}}{{{{end}}}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}, "backend": "nftables"}}
  ]
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_template_is_json_once_it_is_filled_in() {
        let (settings, node) = (sample::settings(), sample::node());
        let template = cni_template(&sample::site(&settings, &node));
        let mut filled = String::new();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").unwrap();
            filled.push_str(before);
            filled.push_str(match action {
                "$range" => "10.244.0.0/24",
                "$route" => "0.0.0.0/0",
                "if $i" => "\u{0}",
                _ => "",
            });
            rest = after;
        }
        // The first round of a range writes no comma.
        filled.push_str(rest);
        let filled = filled.replace("\u{0}, ", "");
        let value: Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["plugins"][0]["mtu"], 1450);
        assert_eq!(value["plugins"][0]["ipam"]["ranges"], json!([[{"subnet": "10.244.0.0/24"}]]));
        assert_eq!(value["plugins"][0]["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}]));
    }

    #[test]
    fn only_a_single_node_without_a_block_gets_the_first_one() {
        let pods: Cidr = "10.244.0.0/16".parse().unwrap();
        let node = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
        let patch = |items: &[Value]| first_block_patch(&json!({"items": items}), "one", pods);
        let (fresh, other) = (node("one", json!({})), node("two", json!({})));
        let block = json!({"spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}});
        assert_eq!(patch(std::slice::from_ref(&fresh)), Some(block));
        assert_eq!(patch(&[]), None);
        assert_eq!(patch(&[fresh, other.clone()]), None);
        assert_eq!(patch(&[other]), None);
        assert_eq!(patch(&[node("one", json!({"podCIDR": "10.244.7.0/24"}))]), None);
    }

    #[test]
    fn the_uplinks_mtu_is_the_settings_if_they_have_one() {
        let (mut settings, node) = (sample::settings(), sample::node());
        settings.network.mtu = Some(9000);
        settings.network.backend = Backend::HostGw;
        assert!(cni_template(&sample::site(&settings, &node)).contains("\"mtu\": 9000"));
    }
}
