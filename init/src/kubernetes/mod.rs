//! What a node's Kubernetes is configured with, as text: static pods, component configuration, kubeconfigs, add-ons.
//!
//! Everything in [`renders`] is made anew at each boot from the frozen settings and the seat, and lies on a tmpfs:
//! nothing stale or planted survives, and the configuration changes with the binaries that read it.

pub mod addons;
pub mod containerd;
pub mod encryption;
pub mod firewall;
pub mod kubeconfig;
pub mod kubelet;
pub mod network;
pub mod policies;
pub mod static_pods;
pub mod yaml;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::etcd::Membership;
use crate::plan::record::Node;
use crate::settings::{Role, Settings};

/// The API server's port.
pub const API_PORT: u16 = 6443;
/// Where the API server's audit log goes; mode 0700.
pub const AUDIT_LOGS: &str = "/var/log/kubernetes";
/// The one image of ours: the pause image, and the base of every pod of ours. One name and tag forever.
pub const IMAGE: &str = "kubeboot.local/pause:1";

/// What all of a node's configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site<'a> {
    /// The settings in force.
    pub settings: &'a Settings,
    /// The node.
    pub node: &'a Node,
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: &'a str,
    /// Of a control plane that joined: which member of etcd's it is.
    pub membership: Option<Membership>,
    /// MTU of the interface that has the node's address, in bytes.
    pub mtu: u32,
    /// Whether the machine has a directory of certificate authorities, `/etc/ssl/certs`.
    pub host_authorities: bool,
    /// For each static pod by name, a digest of the files that it reads only when it starts: a changed one has to
    /// restart it.
    pub inputs: BTreeMap<&'static str, String>,
}

/// A file that is rendered at each boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Render {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// All of it.
    pub contents: String,
}

impl Render {
    fn new(path: impl Into<String>, contents: impl Into<String>) -> Self {
        Render { path: path.into(), mode: 0o644, contents: contents.into() }
    }

    fn private(path: impl Into<String>, contents: impl Into<String>) -> Self {
        Render { path: path.into(), mode: 0o600, contents: contents.into() }
    }
}

/// Directories that rendered files lie in, in the order in which they are made. All are on a tmpfs.
pub fn directories(site: &Site<'_>) -> Vec<(String, u32)> {
    let config = crate::paths::RENDERED;
    let mut directories = vec![
        (crate::paths::RUN.to_owned(), 0o755),
        (config.to_owned(), 0o755),
        (policies::DIRECTORY.to_owned(), 0o755),
        (containerd::REGISTRIES.to_owned(), 0o755),
        (crate::paths::MANIFESTS.to_owned(), 0o700),
    ];
    directories.extend(containerd::registry_directories(site).into_iter().map(|path| (path, 0o755)));
    directories
}

/// Everything that boot renders, in the order in which it is written: first what the container runtime needs to start, last
/// what the kubelet acts on as soon as it is there. A worker has no static pods; on a control plane the agent adds
/// [`later`].
pub fn renders(site: &Site<'_>) -> Vec<Render> {
    let mut renders = runtime(site);
    if site.is_control_plane() {
        renders.extend(policies::renders());
    }
    renders.extend(network::renders(site));
    renders.extend(firewall::renders(site));
    renders.extend(kubelet::renders(site));
    renders.extend(static_pods::first(site));
    renders
}

/// What the agent renders once the API server answers.
pub fn later(site: &Site<'_>) -> Vec<Render> {
    static_pods::later(site)
}

/// The container runtime's part of [`renders`], which needs no certificate.
pub fn runtime(site: &Site<'_>) -> Vec<Render> {
    containerd::renders(site)
}

/// The URL of the API server at `address`.
pub fn server(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, API_PORT))
}

/// `address:port`, with brackets where IPv6 needs them.
pub fn endpoint(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

/// The loopback address of `address`'s family: where a node's services listen for the node itself.
pub fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

impl Site<'_> {
    /// Whether the node runs a control plane.
    pub fn is_control_plane(&self) -> bool {
        self.settings.role != Some(Role::Worker)
    }

    /// Whether etcd may run here: on a founder, and on a control plane that is on record as a member. Of the others' etcd
    /// one without a record would know nothing, and begin a cluster of its own with this one's keys.
    pub fn has_etcd(&self) -> bool {
        match self.settings.role {
            Some(Role::Worker) => false,
            Some(Role::ControlPlane) => self.membership.is_some(),
            Some(Role::Init) | None => true,
        }
    }

    /// Whether an API server can serve here: not beside a member of etcd's that has no vote yet, which answers nobody.
    pub fn has_api_server(&self) -> bool {
        self.has_etcd() && self.membership.as_ref().is_none_or(|membership| membership.voter)
    }

    /// The address of the cluster's DNS Service: the tenth of the Services' block.
    pub fn dns(&self) -> IpAddr {
        let block = self.settings.cluster.service_cidr;
        block.nth(10).unwrap_or(block.address)
    }

    /// The loopback address of the node address's family.
    fn loopback(&self) -> IpAddr {
        loopback(self.node.address)
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::*;
    use crate::settings::Inputs;

    /// The settings of a machine that was given nothing but its role.
    pub(crate) fn settings() -> Settings {
        let validated = crate::settings::validate(Inputs::merge(Vec::new()));
        let mut settings = validated.unwrap_or_else(|_| panic!("defaults are valid")).settings;
        settings.role = Some(crate::settings::Role::Init);
        settings
    }

    pub(crate) fn node() -> Node {
        Node {
            name: "one".into(),
            address: "192.0.2.10".parse().unwrap(),
            machine_id: "0123456789abcdef0123456789abcdef".into(),
        }
    }

    pub(crate) fn site<'a>(settings: &'a Settings, node: &'a Node) -> Site<'a> {
        Site {
            settings,
            node,
            cluster: "00112233445566778899aabbccddeeff",
            membership: None,
            mtu: 1500,
            host_authorities: true,
            inputs: static_pods::NAMES.into_iter().map(|name| (name, "0123456789abcdef".to_owned())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(renders: &[Render]) -> String {
        renders.iter().map(|one| format!("=== {} {:04o}\n{}", one.path, one.mode, one.contents)).collect()
    }

    #[test]
    fn everything_that_a_founder_renders() {
        let (settings, node) = (sample::settings(), sample::node());
        let site = sample::site(&settings, &node);
        for render in renders(&site).into_iter().chain(static_pods::later(&site)) {
            let name = render.path.trim_start_matches('/').replace('/', "_");
            insta::assert_snapshot!(name, show(&[render]));
        }
    }

    #[test]
    fn a_worker_renders_no_static_pod_and_nothing_of_the_api_servers() {
        let (mut settings, node) = (sample::settings(), sample::node());
        let of_a_founder = renders(&sample::site(&settings, &node));
        settings.role = Some(Role::Worker);
        let site = sample::site(&settings, &node);
        let of_a_worker = renders(&site);
        let paths = |renders: &[Render]| -> Vec<String> { renders.iter().map(|one| one.path.clone()).collect() };
        insta::assert_snapshot!(paths(&of_a_worker).join("\n"));
        assert!(later(&site).is_empty() && of_a_worker.iter().all(|one| of_a_founder.contains(one)));
    }

    #[test]
    fn every_file_has_its_directory() {
        let (settings, node) = (sample::settings(), sample::node());
        let site = sample::site(&settings, &node);
        let made: Vec<String> = directories(&site).into_iter().map(|(path, _)| path).collect();
        for render in renders(&site) {
            let (parent, _) = render.path.rsplit_once('/').unwrap();
            assert!(made.iter().any(|path| path == parent), "{} is in no directory of ours", render.path);
        }
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets_wherever_a_port_follows() {
        let (mut settings, mut node) = (sample::settings(), sample::node());
        settings.cluster.pod_cidr = "fd00:1::/56".parse().unwrap();
        settings.cluster.service_cidr = "fd00:2::/112".parse().unwrap();
        node.address = "2001:db8::10".parse().unwrap();
        let site = sample::site(&settings, &node);
        let all = show(&renders(&site));
        assert!(all.contains("https://[2001:db8::10]:2380"));
        assert!(all.contains("https://[::1]:2379"));
        assert!(!all.contains("2001:db8::10:"), "an address and a port run together");
        insta::assert_snapshot!(show(&network::renders(&site)));
    }

    #[test]
    fn a_cni_of_the_users_own_gets_the_field() {
        let (mut settings, node) = (sample::settings(), sample::node());
        settings.network.backend = crate::settings::Backend::None;
        settings.proxy = crate::settings::ProxyMode::None;
        let site = sample::site(&settings, &node);
        assert_eq!(network::renders(&site), []);
        let runtime = show(&runtime(&site));
        assert!(runtime.contains("/opt/cni/bin") && !runtime.contains("conf_template"), "{runtime}");
    }
}
