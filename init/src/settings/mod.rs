//! What the operator asked for: one [`Settings`] value, validated, with the origin of each key kept beside it.
//!
//! `Fragment` (everything optional, one per source) → `Inputs` (merged, with origins) → [`Settings`] (validated).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a machine is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Founds the cluster and is its first control plane.
    Init,
    /// Joins as a further control plane.
    ControlPlane,
    /// Joins as a worker.
    Worker,
}

/// An address block such as `10.244.0.0/16`; the address is the block's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cidr {
    /// First address of the block.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// Every validated setting. Secrets (the token) are kept apart, so that this value can be logged and frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `role`; none when no source gave one.
    pub role: Option<Role>,
    /// `name`: the node's name, an RFC 1123 subdomain; none means the host name.
    pub name: Option<String>,
    /// `join`: hosts to join through.
    pub join: Vec<String>,
    /// `operator`: ssh public keys that may command the cluster, one `type base64 [comment]` each.
    pub operator: Vec<String>,
    /// `report`: serial device (such as `ttyS1`) that gets events as JSON lines, nothing secret.
    pub report: Option<String>,
    /// `cluster.*`
    pub cluster: Cluster,
    /// `node.*`
    pub node: Node,
    /// `api.*`
    pub api: Api,
    /// `network.*`
    pub network: Network,
    /// `proxy.mode`: how Services are served.
    pub proxy: ProxyMode,
    /// `registry.*`
    pub registry: Registry,
    /// `http-proxy`, `https-proxy`, `no-proxy` for containerd and the kubelet.
    pub egress: Egress,
    /// `addons`: names of the add-ons to keep applied, in order; default `["coredns"]`.
    pub addons: Vec<String>,
    /// What the cloud-config keys outside `kubeboot:` ask of the operating system.
    pub os: Os,
}

/// `cluster.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// `cluster.pod-cidr`, default 10.244.0.0/16.
    pub pod_cidr: Cidr,
    /// `cluster.service-cidr`, default 10.96.0.0/16. Its first address is the API server's, its tenth is DNS.
    pub service_cidr: Cidr,
    /// `cluster.dns-domain`, default `cluster.local`.
    pub dns_domain: String,
}

/// `node.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `node.ip`; none means the source address of the default route.
    pub ip: Option<IpAddr>,
    /// `node.labels`
    pub labels: BTreeMap<String, String>,
    /// `node.taints`, each `key[=value]:Effect`.
    pub taints: Vec<String>,
}

/// `api.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// `api.extra-sans`: further names and addresses in the API server's certificate.
    pub extra_sans: Vec<String>,
}

/// `network.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `network.backend`, default `vxlan`.
    pub backend: Backend,
    /// `network.mtu`: of the uplink, in bytes; none means the interface's own.
    pub mtu: Option<u32>,
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// flannel, VXLAN.
    Vxlan,
    /// flannel, plain routes on one layer-2 network.
    HostGw,
    /// flannel, WireGuard.
    Wireguard,
    /// The user's own CNI plugin.
    None,
}

/// `proxy.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyMode {
    /// kube-proxy with nftables.
    Nftables,
    /// No kube-proxy: the user's CNI serves Services.
    None,
}

/// `registry.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// `registry.mirrors`: registry host → endpoints tried in order (URLs).
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// `registry.extra-cas`: PEM certificates trusted for registries.
    pub extra_cas: Vec<String>,
}

/// Proxies for outgoing HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// `http-proxy`
    pub http_proxy: Option<String>,
    /// `https-proxy`
    pub https_proxy: Option<String>,
    /// `no-proxy`; the cluster's own networks are always added.
    pub no_proxy: Vec<String>,
}

/// cloud-config keys beside `kubeboot:` that are honoured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `hostname` / `fqdn`.
    pub hostname: Option<String>,
    /// `ssh_authorized_keys` (also `users[].ssh_authorized_keys`): operators, and logins of a debug image.
    pub ssh_authorized_keys: Vec<String>,
    /// `write_files`: below /etc only, never over a file of the image or of kubeboot.
    pub write_files: Vec<OsFile>,
    /// `ntp.servers`
    pub ntp_servers: Vec<String>,
}

/// One entry of `write_files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsFile {
    /// Absolute path below /etc.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Decoded contents.
    pub contents: Vec<u8>,
}
