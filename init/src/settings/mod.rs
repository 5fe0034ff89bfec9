//! What the operator asked for: one [`Settings`] value, validated, with the origin of each key kept beside it.
//!
//! `Fragment` (everything optional, one per source) → `Inputs` (merged, with origins) → [`Settings`] (validated).

mod cidr;
pub mod frozen;
mod inputs;
pub mod keys;
mod origin;
mod problem;
mod rules;
pub mod shared;
mod validate;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use cidr::Cidr;
pub use inputs::{Fragment, Given, Inputs, OsFragment, Value};
pub use origin::{Origin, Source};
pub use problem::{Problem, Warning, quoted};
pub use rules::{has_password, is_dns_name, is_host, masked};
pub use validate::{Validated, report_device, validate};

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

/// Every validated setting. Secrets (the token) are kept apart, so that this value can be logged and frozen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// `role`; none when no source gave one.
    pub role: Option<Role>,
    /// `name`: the node's name, an RFC 1123 subdomain; none means the host name.
    pub name: Option<String>,
    /// `join`: hosts to join through.
    pub join: Vec<String>,
    /// `expect`: how many control planes the cluster is to have, the founder among them; none means any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u32>,
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
    #[serde(rename = "proxy.mode")]
    pub proxy: ProxyMode,
    /// `registry.*`
    pub registry: Registry,
    /// `http-proxy`, `https-proxy`, `no-proxy` for containerd and the API server.
    #[serde(flatten)]
    pub egress: Egress,
    /// `addons`: names of the add-ons to keep applied, in order; default `["coredns"]`.
    pub addons: Vec<String>,
    /// What the cloud-config keys outside `kubeboot:` ask of the operating system.
    pub os: Os,
}

impl Default for Settings {
    /// What holds when no source says anything.
    fn default() -> Self {
        Settings {
            role: None,
            name: None,
            join: Vec::new(),
            expect: None,
            operator: Vec::new(),
            report: None,
            cluster: Cluster::default(),
            node: Node::default(),
            api: Api::default(),
            network: Network { backend: Backend::Vxlan, mtu: None },
            proxy: ProxyMode::Nftables,
            registry: Registry::default(),
            egress: Egress::default(),
            addons: vec!["coredns".to_owned()],
            os: Os::default(),
        }
    }
}

/// `cluster.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cluster {
    /// `cluster.pod-cidr`, default 10.244.0.0/16.
    pub pod_cidr: Cidr,
    /// `cluster.service-cidr`, default 10.96.0.0/16. Its first address is the API server's, its tenth is DNS.
    pub service_cidr: Cidr,
    /// `cluster.dns-domain`, default `cluster.local`.
    pub dns_domain: String,
}

impl Default for Cluster {
    fn default() -> Self {
        let block = |a, b| Cidr { address: IpAddr::from([10, a, 0, 0]), prefix: b };
        Cluster { pod_cidr: block(244, 16), service_cidr: block(96, 16), dns_domain: "cluster.local".to_owned() }
    }
}

/// `node.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[serde(rename_all = "kebab-case")]
pub struct Api {
    /// `api.extra-sans`: further names and addresses in the API server's certificate.
    pub extra_sans: Vec<String>,
}

/// `network.*`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[serde(rename_all = "kebab-case")]
pub struct Registry {
    /// `registry.mirrors`: registry host → endpoints tried in order (URLs).
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// `registry.extra-cas`: PEM certificates trusted for registries.
    pub extra_cas: Vec<String>,
}

/// Proxies for outgoing HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[serde(rename_all = "kebab-case")]
pub struct Os {
    /// `hostname` / `fqdn`.
    pub hostname: Option<String>,
    /// `ssh_authorized_keys` (also `users[].ssh_authorized_keys`): operators, and logins of a debug image.
    pub ssh_authorized_keys: Vec<String>,
    /// `write_files`: below /etc only, never over a file of the image or of kubeboot.
    pub write_files: Vec<OsFile>,
    /// `ntp.servers`
    pub ntp_servers: Vec<String>,
    /// The volume's `network-config` as systemd-networkd files, for `/run/systemd/network`.
    pub network: Vec<NetworkFile>,
}

/// A file for systemd-networkd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkFile {
    /// File name below `/run/systemd/network`, such as `10-kubeboot-eth0.network`.
    pub name: String,
    /// The text (systemd.network(5), systemd.link(5)).
    pub text: String,
}

/// One entry of `write_files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OsFile {
    /// Absolute path below /etc.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Decoded contents; base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub contents: Vec<u8>,
}

/// Bytes as base64 text: a list of numbers would be four times as long.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
