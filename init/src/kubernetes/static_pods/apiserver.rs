//! kube-apiserver (`kube-apiserver --help`; kubeadm's `phases/controlplane/manifests.go`).

use super::{CIPHER_SUITES, Mount, Pod, Probes};
use crate::kubernetes::containerd::proxies;
use crate::kubernetes::{API_PORT, AUDIT_LOGS, Site, encryption, endpoint, policies};
use crate::settings::has_password;

pub(super) const NAME: &str = "kube-apiserver";

/// Serving and client certificates are reloaded; these are not.
pub(super) const INPUTS: &[&str] = &["/etc/kubernetes/pki/sa.pub", "/etc/kubernetes/pki/apiserver-kubelet-client.crt"];

pub(super) fn pod(site: &Site<'_>) -> Pod {
    let address = site.node.address;
    let mut mounts = vec![
        Mount::directory("k8s-certs", "/etc/kubernetes/pki"),
        Mount::directory("encryption", "/etc/kubernetes/encryption"),
        Mount::directory("policies", policies::DIRECTORY),
        Mount::directory("audit-logs", AUDIT_LOGS).writable(),
    ];
    if site.host_authorities {
        mounts.push(Mount::directory("ca-certs", "/etc/ssl/certs"));
    }
    Pod {
        name: NAME,
        annotations: vec![(
            "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint",
            endpoint(address, API_PORT),
        )],
        flags: [flags(site), hardening()].concat(),
        cpu: "250m",
        memory: None,
        port: API_PORT,
        probes: Probes { host: address.to_string(), scheme: "HTTPS", live: "/livez", ready: Some("/readyz") },
        mounts,
        // Webhooks and identity providers may be outside. Whoever may get pods reads this: no passwords.
        environment: proxies(site, |url| !has_password(url)),
    }
}

/// kubeadm's flags.
fn flags(site: &Site<'_>) -> Vec<(&'static str, String)> {
    let pki = |file: &str| format!("/etc/kubernetes/pki/{file}");
    vec![
        ("advertise-address", site.node.address.to_string()),
        ("allow-privileged", "true".to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("client-ca-file", pki("ca.crt")),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("etcd-cafile", pki("etcd/ca.crt")),
        ("etcd-certfile", pki("apiserver-etcd-client.crt")),
        ("etcd-keyfile", pki("apiserver-etcd-client.key")),
        ("etcd-servers", format!("https://{}", endpoint(site.loopback(), 2379))),
        // A separate authority: what a kubelet serves with can never pose as an API server.
        ("kubelet-certificate-authority", pki("kubelet-serving-ca.crt")),
        ("kubelet-client-certificate", pki("apiserver-kubelet-client.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname".to_owned()),
        ("proxy-client-cert-file", pki("front-proxy-client.crt")),
        ("proxy-client-key-file", pki("front-proxy-client.key")),
        ("requestheader-allowed-names", "front-proxy-client".to_owned()),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-".to_owned()),
        ("requestheader-group-headers", "X-Remote-Group".to_owned()),
        ("requestheader-username-headers", "X-Remote-User".to_owned()),
        ("secure-port", API_PORT.to_string()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", site.settings.cluster.dns_domain)),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-cluster-ip-range", site.settings.cluster.service_cidr.to_string()),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
    ]
}

/// What the CIS benchmark asks for beyond kubeadm's defaults.
fn hardening() -> Vec<(&'static str, String)> {
    vec![
        ("admission-control-config-file", policies::ADMISSION.to_owned()),
        ("audit-log-maxage", "30".to_owned()),
        ("audit-log-maxbackup", "10".to_owned()),
        ("audit-log-maxsize", "100".to_owned()),
        ("audit-log-path", format!("{AUDIT_LOGS}/audit.log")),
        ("audit-policy-file", policies::AUDIT.to_owned()),
        ("authentication-config", policies::AUTHENTICATION.to_owned()),
        ("encryption-provider-config", encryption::PATH.to_owned()),
        ("profiling", "false".to_owned()),
        ("tls-cipher-suites", CIPHER_SUITES.join(",")),
        ("tls-min-version", "VersionTLS12".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{sample, static_pods};

    #[test]
    fn only_the_api_server_has_a_proxy_and_none_with_a_password() {
        let (mut settings, node) = (sample::settings(), sample::node());
        settings.egress.http_proxy = Some("http://proxy.example.org:3128".into());
        settings.egress.https_proxy = Some("http://ann:secret@proxy.example.org:3128".into());
        let site = sample::site(&settings, &node);
        let variables: Vec<&str> = pod(&site).environment.iter().map(|(name, _)| *name).collect();
        assert_eq!(variables, ["HTTP_PROXY", "NO_PROXY"]);
        for render in static_pods::first(&site).iter().chain(&static_pods::later(&site)) {
            assert!(!render.contents.contains("secret"), "{}", render.path);
            assert_eq!(render.contents.contains("proxy.example.org"), render.path.contains(NAME), "{}", render.path);
        }
    }
}
