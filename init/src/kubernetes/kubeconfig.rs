//! kubeconfigs (`client.config.k8s.io/v1`, as `kubectl config view` prints them).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::certificates::{Authority, Leaf};

/// The name under which every kubeconfig of this cluster knows it, kubeadm's.
const CLUSTER: &str = "kubernetes";

/// The kubelet's.
pub const KUBELET: &str = "/etc/kubernetes/kubelet.conf";
/// kube-proxy's.
pub const KUBE_PROXY: &str = "/etc/kubernetes/kube-proxy.conf";
/// flanneld's.
pub const FLANNEL: &str = "/etc/kubernetes/flannel.conf";

/// Where a worker finds an API server: its own balancer.
pub const BALANCER: &str = "https://127.0.0.1:7445";
/// The name by which an API server is known through the balancer: every one's certificate has it, and none's has loopback.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// The user's name in a kubeconfig, kubeadm's.
fn user(leaf: Leaf) -> &'static str {
    match leaf {
        Leaf::Admin => "kubernetes-admin",
        Leaf::SuperAdmin => "kubernetes-super-admin",
        Leaf::ControllerManager => "system:kube-controller-manager",
        Leaf::Scheduler => "system:kube-scheduler",
        other => other.name(),
    }
}

/// A kubeconfig that holds the certificate and key themselves, as kubeadm writes it. Secret.
pub fn embedded(leaf: Leaf, server: &str, ca: &[u8], certificate: &[u8], key: &[u8]) -> Zeroizing<String> {
    let user = user(leaf);
    let mut text = Zeroizing::new(String::with_capacity(8 << 10));
    text.push_str(&head(server, &format!("certificate-authority-data: {}", STANDARD.encode(ca)), user));
    push_identity(&mut text, certificate, key);
    text
}

/// The user's certificate and key, the last lines of a kubeconfig.
fn push_identity(text: &mut Zeroizing<String>, certificate: &[u8], key: &[u8]) {
    text.push_str(CERTIFICATE);
    text.push_str(&STANDARD.encode(certificate));
    text.push('\n');
    text.push_str(KEY);
    text.push_str(&Zeroizing::new(STANDARD.encode(key)));
    text.push('\n');
}

/// A person's kubeconfig: one user, and for each control plane a cluster and a context, so that it is of use while one of
/// them is left. Secret. `servers` are URLs; the first is the one that is used if nothing is said.
///
/// Names stand in quotes: YAML would read `123` as a number.
pub fn of_person(name: &str, servers: &[String], ca: &[u8], certificate: &[u8], key: &[u8]) -> Zeroizing<String> {
    let ca = STANDARD.encode(ca);
    let cluster = |server: &String| match servers {
        [_] => CLUSTER.to_owned(),
        _ => {
            let place = server.trim_start_matches("https://").replace([':', '[', ']'], "-");
            format!("{CLUSTER}-{}", place.trim_matches('-'))
        }
    };
    let mut text = Zeroizing::new(String::with_capacity((8 << 10) + servers.len() * (ca.len() + 512)));
    text.push_str("apiVersion: v1\nkind: Config\nclusters:\n");
    for server in servers {
        let cluster = cluster(server);
        text.push_str(&format!(
            "- name: {cluster}\n  cluster:\n    certificate-authority-data: {ca}\n    server: {server}\n"
        ));
    }
    text.push_str("contexts:\n");
    for cluster in servers.iter().map(cluster) {
        text.push_str(&format!(
            "- name: \"{name}@{cluster}\"\n  context:\n    cluster: {cluster}\n    user: \"{name}\"\n"
        ));
    }
    let current = servers.first().map(cluster).unwrap_or_default();
    text.push_str(&format!("current-context: \"{name}@{current}\"\nusers:\n- name: \"{name}\"\n  user:\n"));
    push_identity(&mut text, certificate, key);
    text
}

const CERTIFICATE: &str = "    client-certificate-data: ";
const KEY: &str = "    client-key-data: ";

/// The certificate and the key in a kubeconfig that [`embedded`] made; an error unless all the rest is what it would
/// be now.
///
/// # Errors
/// What is wrong, in words.
pub fn taken_apart(text: &[u8], leaf: Leaf, server: &str, ca: &[u8]) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), String> {
    let lines = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let field = |label: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(label));
        let encoded = line.ok_or_else(|| format!("no {}in it", label.trim_start()))?;
        STANDARD.decode(encoded).map(Zeroizing::new).map_err(|error| format!("{}{error}", label.trim_start()))
    };
    let (certificate, key) = (field(CERTIFICATE)?, field(KEY)?);
    if embedded(leaf, server, ca, &certificate, &key).as_bytes() != text {
        return Err("it differs from what it should be".to_owned());
    }
    Ok((certificate.to_vec(), key))
}

/// A kubeconfig that refers to files, so that what renews them need not touch it, and clients reload them. No secret.
fn by_reference(leaf: Leaf, server: &str, ca: &str, certificate_and_key: &str) -> String {
    format!(
        "{}    client-certificate: {certificate_and_key}\n    client-key: {certificate_and_key}\n",
        head(server, &format!("certificate-authority: {ca}"), user(leaf))
    )
}

/// The server of a worker's programs, which reach the API servers through the balancer; for [`of_node`].
pub fn through_balancer() -> String {
    format!("{BALANCER}\n    tls-server-name: {SERVER_NAME}")
}

/// The kubeconfigs of a node's programs: whose, where, and what is in it. They refer to files.
pub fn of_node(server: &str) -> [(Leaf, &'static str, String); 3] {
    [(Leaf::KubeletClient, KUBELET), (Leaf::KubeProxy, KUBE_PROXY), (Leaf::Flannel, FLANNEL)].map(|(leaf, path)| {
        (leaf, path, by_reference(leaf, server, Authority::Cluster.certificate(), leaf.form().certificate()))
    })
}

fn head(server: &str, authority: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {CLUSTER}
  cluster:
    {authority}
    server: {server}
contexts:
- name: {user}@{CLUSTER}
  context:
    cluster: {CLUSTER}
    user: {user}
current-context: {user}@{CLUSTER}
users:
- name: {user}
  user:
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_taken_apart_only_if_nothing_else_in_it_changed() {
        let text = embedded(Leaf::Admin, "https://192.0.2.10:6443", b"ca", b"certificate", b"key");
        insta::assert_snapshot!(text.as_str());
        let taken = taken_apart(text.as_bytes(), Leaf::Admin, "https://192.0.2.10:6443", b"ca").unwrap();
        assert_eq!((taken.0.as_slice(), taken.1.as_slice()), (&b"certificate"[..], &b"key"[..]));
        for (server, ca) in [("https://192.0.2.11:6443", &b"ca"[..]), ("https://192.0.2.10:6443", b"cb")] {
            assert!(taken_apart(text.as_bytes(), Leaf::Admin, server, ca).is_err());
        }
        for length in 0..text.len() {
            let cut = &text.as_bytes()[..length];
            assert!(taken_apart(cut, Leaf::Admin, "https://192.0.2.10:6443", b"ca").is_err(), "{length}");
        }
    }

    #[test]
    fn a_worker_asks_its_balancer_and_expects_an_api_server() {
        let [(_, _, of_the_kubelet), ..] = of_node(&through_balancer());
        insta::assert_snapshot!(of_the_kubelet);
    }

    #[test]
    fn by_reference_holds_paths_only() {
        insta::assert_snapshot!(by_reference(
            Leaf::KubeProxy,
            "https://[2001:db8::1]:6443",
            "/etc/kubernetes/pki/ca.crt",
            "/etc/kubernetes/pki/kube-proxy.pem"
        ));
    }
}
