//! Every certificate of a control plane: its files, subject, names, use, signer and lifetime.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::DAY;
use crate::token::fingerprint;

/// A certificate authority of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authority {
    /// Signs the API server's serving certificate and every client of it.
    Cluster,
    /// Signs the API server as a client of aggregated API servers.
    FrontProxy,
    /// Signs everything that speaks to etcd.
    Etcd,
    /// Signs what kubelets serve with, and nothing else.
    KubeletServing,
}

impl Authority {
    /// Every authority, in the order in which they are made.
    pub const ALL: [Authority; 4] =
        [Authority::Cluster, Authority::FrontProxy, Authority::Etcd, Authority::KubeletServing];

    /// How long an authority is valid, in seconds.
    pub const LIFETIME: u64 = 3650 * DAY;

    /// The subject's common name.
    pub fn common_name(self) -> &'static str {
        match self {
            Authority::Cluster => "kubernetes",
            Authority::FrontProxy => "front-proxy-ca",
            Authority::Etcd => "etcd-ca",
            Authority::KubeletServing => "kubelet-serving-ca",
        }
    }

    /// Where its certificate is.
    pub fn certificate(self) -> &'static str {
        match self {
            Authority::Cluster => "/etc/kubernetes/pki/ca.crt",
            Authority::FrontProxy => "/etc/kubernetes/pki/front-proxy-ca.crt",
            Authority::Etcd => "/etc/kubernetes/pki/etcd/ca.crt",
            Authority::KubeletServing => "/etc/kubernetes/pki/kubelet-serving-ca.crt",
        }
    }

    /// Where its private key is.
    pub fn key(self) -> &'static str {
        match self {
            Authority::Cluster => "/etc/kubernetes/pki/ca.key",
            Authority::FrontProxy => "/etc/kubernetes/pki/front-proxy-ca.key",
            Authority::Etcd => "/etc/kubernetes/pki/etcd/ca.key",
            Authority::KubeletServing => "/etc/kubernetes/pki/kubelet-serving-ca.key",
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.common_name())
    }
}

/// A certificate that an authority signs for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaf {
    /// What the API server serves with.
    Apiserver,
    /// The API server as a client of kubelets.
    ApiserverKubeletClient,
    /// The API server as a client of aggregated API servers.
    FrontProxyClient,
    /// The API server as a client of etcd.
    ApiserverEtcdClient,
    /// What etcd serves its clients with.
    EtcdServer,
    /// What etcd members speak to each other with.
    EtcdPeer,
    /// Health probes of etcd by hand (`etcdctl`).
    EtcdHealthcheckClient,
    /// The administrator: bound by RBAC to `cluster-admin`.
    Admin,
    /// The administrator who RBAC can't lock out.
    SuperAdmin,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
    /// The kubelet as a client of the API server.
    KubeletClient,
    /// What the kubelet serves with.
    KubeletServing,
    /// kube-proxy.
    KubeProxy,
    /// flanneld.
    Flannel,
}

/// In which files a certificate and its key are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A certificate and a key, a file each.
    Pair {
        /// The certificate, mode 0644.
        certificate: &'static str,
        /// The key, mode 0600.
        key: &'static str,
    },
    /// One file with the certificate and then the key, mode 0600: client-go and the kubelet reload such a file while
    /// they run, and it can't be half renewed.
    Joined {
        /// The file.
        path: &'static str,
    },
    /// Inside a kubeconfig of kubeadm's name, mode 0600.
    Kubeconfig {
        /// The file.
        path: &'static str,
    },
}

impl Form {
    /// The files of this form, the one that makes it complete last.
    pub fn paths(self) -> Vec<&'static str> {
        match self {
            Form::Pair { certificate, key } => vec![key, certificate],
            Form::Joined { path } | Form::Kubeconfig { path } => vec![path],
        }
    }

    /// The file that holds the certificate.
    pub fn certificate(self) -> &'static str {
        match self {
            Form::Pair { certificate, .. } => certificate,
            Form::Joined { path } | Form::Kubeconfig { path } => path,
        }
    }
}

/// What a certificate may be used for (RFC 5280, extended key usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// `clientAuth`
    Client,
    /// `serverAuth`
    Server,
    /// Both: etcd's servers are clients of themselves and of their peers.
    Both,
}

/// A subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum San {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl San {
    /// An address if it reads as one, else a DNS name.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| San::Dns(text.to_owned()), San::Ip)
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            San::Dns(name) => f.write_str(name),
            San::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// What the names in a node's certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The node's name.
    pub node: String,
    /// The node's address.
    pub address: IpAddr,
    /// The address of the Service `kubernetes`.
    pub service: IpAddr,
    /// The cluster's DNS domain.
    pub dns_domain: String,
    /// Further names of the API server, as the settings have them.
    pub extra_sans: Vec<String>,
}

/// What a certificate has to say: the input of issuing, and what one on disk is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Request {
    /// Who signs it.
    pub authority: Authority,
    /// The subject's common name: for a client, its user name.
    pub common_name: String,
    /// The subject's organizations: for a client, its groups.
    pub organizations: Vec<String>,
    /// The subject's unique identifier ([`UID`]), if it has one: for a client, its UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Subject alternative names.
    pub names: Vec<San>,
    /// What it may be used for.
    pub purpose: Purpose,
    /// How long it is valid, in seconds.
    pub lifetime: u64,
}

/// Life of a certificate that only control planes have, in seconds.
const CONTROL_PLANE: u64 = 365 * DAY;
/// Life of a certificate that every node has, in seconds.
pub const NODE: u64 = 7 * DAY;

/// What the kubelet serves with, `tlsCertFile`.
pub const KUBELET_SERVING: Form =
    Form::Pair { certificate: "/var/lib/kubelet/pki/kubelet.crt", key: "/var/lib/kubelet/pki/kubelet.key" };

impl Leaf {
    /// Every certificate of a control plane, in the order in which a founder makes them.
    pub const ALL: [Leaf; 15] = [
        Leaf::KubeletClient,
        Leaf::KubeletServing,
        Leaf::EtcdServer,
        Leaf::EtcdPeer,
        Leaf::EtcdHealthcheckClient,
        Leaf::ApiserverEtcdClient,
        Leaf::Apiserver,
        Leaf::ApiserverKubeletClient,
        Leaf::FrontProxyClient,
        Leaf::ControllerManager,
        Leaf::Scheduler,
        Leaf::Admin,
        Leaf::SuperAdmin,
        Leaf::KubeProxy,
        Leaf::Flannel,
    ];

    /// The certificates that every node has, in the order in which a joiner asks for them.
    pub const OF_EVERY_NODE: [Leaf; 4] = [Leaf::KubeletClient, Leaf::KubeletServing, Leaf::KubeProxy, Leaf::Flannel];

    /// Its name, as kubeadm's `certs check-expiration` has it.
    pub fn name(self) -> &'static str {
        match self {
            Leaf::Apiserver => "apiserver",
            Leaf::ApiserverKubeletClient => "apiserver-kubelet-client",
            Leaf::FrontProxyClient => "front-proxy-client",
            Leaf::ApiserverEtcdClient => "apiserver-etcd-client",
            Leaf::EtcdServer => "etcd-server",
            Leaf::EtcdPeer => "etcd-peer",
            Leaf::EtcdHealthcheckClient => "etcd-healthcheck-client",
            Leaf::Admin => "admin.conf",
            Leaf::SuperAdmin => "super-admin.conf",
            Leaf::ControllerManager => "controller-manager.conf",
            Leaf::Scheduler => "scheduler.conf",
            Leaf::KubeletClient => "kubelet-client",
            Leaf::KubeletServing => "kubelet-serving",
            Leaf::KubeProxy => "kube-proxy",
            Leaf::Flannel => "flannel",
        }
    }

    /// In which files it is kept.
    pub fn form(self) -> Form {
        match self {
            Leaf::Apiserver => Form::Pair {
                certificate: "/etc/kubernetes/pki/apiserver.crt",
                key: "/etc/kubernetes/pki/apiserver.key",
            },
            Leaf::ApiserverKubeletClient => Form::Pair {
                certificate: "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
                key: "/etc/kubernetes/pki/apiserver-kubelet-client.key",
            },
            Leaf::FrontProxyClient => Form::Pair {
                certificate: "/etc/kubernetes/pki/front-proxy-client.crt",
                key: "/etc/kubernetes/pki/front-proxy-client.key",
            },
            Leaf::ApiserverEtcdClient => Form::Pair {
                certificate: "/etc/kubernetes/pki/apiserver-etcd-client.crt",
                key: "/etc/kubernetes/pki/apiserver-etcd-client.key",
            },
            Leaf::EtcdServer => Form::Pair {
                certificate: "/etc/kubernetes/pki/etcd/server.crt",
                key: "/etc/kubernetes/pki/etcd/server.key",
            },
            Leaf::EtcdPeer => Form::Pair {
                certificate: "/etc/kubernetes/pki/etcd/peer.crt",
                key: "/etc/kubernetes/pki/etcd/peer.key",
            },
            Leaf::EtcdHealthcheckClient => Form::Pair {
                certificate: "/etc/kubernetes/pki/etcd/healthcheck-client.crt",
                key: "/etc/kubernetes/pki/etcd/healthcheck-client.key",
            },
            Leaf::Admin => Form::Kubeconfig { path: "/etc/kubernetes/admin.conf" },
            Leaf::SuperAdmin => Form::Kubeconfig { path: "/etc/kubernetes/super-admin.conf" },
            Leaf::ControllerManager => Form::Kubeconfig { path: "/etc/kubernetes/controller-manager.conf" },
            Leaf::Scheduler => Form::Kubeconfig { path: "/etc/kubernetes/scheduler.conf" },
            Leaf::KubeletClient => Form::Joined { path: "/var/lib/kubelet/pki/kubelet-client-current.pem" },
            Leaf::KubeletServing => KUBELET_SERVING,
            Leaf::KubeProxy => Form::Joined { path: "/etc/kubernetes/pki/kube-proxy.pem" },
            Leaf::Flannel => Form::Joined { path: "/etc/kubernetes/pki/flannel.pem" },
        }
    }

    /// What it has to say for `subject`.
    pub fn request(self, subject: &Subject) -> Request {
        let cluster = |common_name, organization| client(Authority::Cluster, common_name, organization, CONTROL_PLANE);
        let etcd = |common_name| client(Authority::Etcd, common_name, None, CONTROL_PLANE);
        match self {
            Leaf::Apiserver => Request {
                names: subject.apiserver_names(),
                purpose: Purpose::Server,
                ..cluster("kube-apiserver", None)
            },
            // No group: RBAC binds this very user to `system:kubelet-api-admin` and to nothing more.
            Leaf::ApiserverKubeletClient => cluster("kube-apiserver-kubelet-client", None),
            Leaf::FrontProxyClient => client(Authority::FrontProxy, "front-proxy-client", None, CONTROL_PLANE),
            Leaf::ApiserverEtcdClient => etcd("kube-apiserver-etcd-client"),
            Leaf::EtcdServer | Leaf::EtcdPeer => {
                Request { names: subject.etcd_names(), purpose: Purpose::Both, ..etcd(&subject.node) }
            }
            Leaf::EtcdHealthcheckClient => etcd("kube-etcd-healthcheck-client"),
            Leaf::Admin => cluster("kubernetes-admin", Some("kubeadm:cluster-admins")),
            Leaf::SuperAdmin => cluster("kubernetes-super-admin", Some("system:masters")),
            Leaf::ControllerManager => cluster("system:kube-controller-manager", None),
            Leaf::Scheduler => cluster("system:kube-scheduler", None),
            Leaf::KubeletClient => kubelet_client(&subject.node),
            Leaf::KubeletServing => kubelet_serving(&subject.node, subject.address),
            Leaf::KubeProxy => kube_proxy(),
            Leaf::Flannel => flannel(&subject.node),
        }
    }
}

/// The certificates that every node has, whatever its role, in the order in which a joiner asks for them, and what they
/// say for the node of this name, address and node key (Ed25519, public half).
pub fn of_every_node(node: &str, address: IpAddr, key: &[u8; 32]) -> [(Leaf, Request); 4] {
    let [client, serving, proxy, network] = Leaf::OF_EVERY_NODE;
    let of_key = |request| Request { uid: Some(node_uid(key)), ..request };
    [
        (client, of_key(kubelet_client(node))),
        (serving, kubelet_serving(node, address)),
        (proxy, of_key(kube_proxy())),
        (network, of_key(flannel(node))),
    ]
}

/// The subject's attribute that Kubernetes takes a client's UID from (`k8s.io/apimachinery/pkg/apis/asn1`, since 1.33).
pub const UID: [u64; 8] = [1, 3, 6, 1, 4, 1, 57683, 2];

/// What the UID of a machine begins with.
pub const NODE_UID: &str = "kubeboot:node:";

/// The UID of the machine with this node key. It gives no right: by it the API server knows a machine that was removed,
/// whatever its name, as long as its certificates live (`kubernetes/addons/removed`).
pub fn node_uid(key: &[u8; 32]) -> String {
    let digits: String = fingerprint(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{NODE_UID}{digits}")
}

fn client(authority: Authority, common_name: &str, organization: Option<&str>, lifetime: u64) -> Request {
    Request {
        authority,
        common_name: common_name.to_owned(),
        organizations: organization.map(str::to_owned).into_iter().collect(),
        uid: None,
        names: Vec::new(),
        purpose: Purpose::Client,
        lifetime,
    }
}

fn kubelet_client(node: &str) -> Request {
    client(Authority::Cluster, &format!("system:node:{node}"), Some("system:nodes"), NODE)
}

fn kubelet_serving(node: &str, address: IpAddr) -> Request {
    Request {
        names: vec![San::Dns(node.to_owned()), San::Ip(address)],
        purpose: Purpose::Server,
        ..client(Authority::KubeletServing, &format!("system:node:{node}"), Some("system:nodes"), NODE)
    }
}

fn kube_proxy() -> Request {
    client(Authority::Cluster, "system:kube-proxy", Some("kubeboot:kube-proxy"), NODE)
}

/// flanneld is the node itself to the API server, with a key of its own: as a user of another name it would need a right
/// to change every node, where NodeRestriction holds a node to its own.
fn flannel(node: &str) -> Request {
    kubelet_client(node)
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Subject {
    /// The names by which clients reach the API server, kubeadm's and the settings'.
    fn apiserver_names(&self) -> Vec<San> {
        let mut names = vec![
            San::Dns(self.node.clone()),
            San::Dns("kubernetes".to_owned()),
            San::Dns("kubernetes.default".to_owned()),
            San::Dns("kubernetes.default.svc".to_owned()),
            San::Dns(format!("kubernetes.default.svc.{}", self.dns_domain)),
            San::Ip(self.service),
            San::Ip(self.address),
        ];
        names.extend(self.extra_sans.iter().map(|name| San::parse(name)));
        distinct(names)
    }

    /// The names by which etcd is reached, kubeadm's.
    fn etcd_names(&self) -> Vec<San> {
        distinct(vec![
            San::Dns(self.node.clone()),
            San::Dns("localhost".to_owned()),
            San::Ip(self.address),
            San::Ip(std::net::Ipv4Addr::LOCALHOST.into()),
            San::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
        ])
    }
}

/// The same names in the same order, each once.
fn distinct(names: Vec<San>) -> Vec<San> {
    let mut seen: Vec<San> = Vec::with_capacity(names.len());
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn subject() -> Subject {
        Subject {
            node: "one".into(),
            address: "192.0.2.10".parse().unwrap(),
            service: "10.96.0.1".parse().unwrap(),
            dns_domain: "cluster.local".into(),
            extra_sans: vec!["api.example.org".into(), "192.0.2.10".into(), "2001:db8::1".into()],
        }
    }

    #[test]
    fn every_certificate_of_a_founder() {
        let mut table = String::new();
        for leaf in Leaf::ALL {
            let request = leaf.request(&subject());
            let names: Vec<_> = request.names.iter().map(San::to_string).collect();
            let days = request.lifetime / DAY;
            writeln!(
                table,
                "{leaf}: CN={} O={:?} {:?} by {} for {days} d\n  {}\n  {}",
                request.common_name,
                request.organizations,
                request.purpose,
                request.authority,
                leaf.form().paths().join(" "),
                names.join(" "),
            )
            .unwrap();
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn only_kubelets_are_signed_by_the_kubelet_serving_authority() {
        for leaf in Leaf::ALL {
            let by = leaf.request(&subject()).authority == Authority::KubeletServing;
            assert_eq!(by, leaf == Leaf::KubeletServing, "{leaf}");
        }
    }

    #[test]
    fn no_two_certificates_share_a_file() {
        let mut paths: Vec<_> = Leaf::ALL.iter().flat_map(|leaf| leaf.form().paths()).collect();
        paths.extend(Authority::ALL.iter().flat_map(|authority| [authority.certificate(), authority.key()]));
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
    }
}
