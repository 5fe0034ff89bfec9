//! containerd (`docs/cri/config.md` of containerd 2.x): runs from the seat, pulls through mirrors if there are any.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{IMAGE, Render, Site};
use crate::paths;
use crate::settings::Backend;

/// One folder a registry, each with a `hosts.toml`.
pub const REGISTRIES: &str = "/run/kubeboot/config/registry";
/// The template of the node's CNI configuration.
pub const CNI_TEMPLATE: &str = "/run/kubeboot/config/cni.template";

/// What every container starts from, before its pod's own wishes: OCI's runtime specification, as `config.json`.
pub const BASE_SPEC: &str = "/run/kubeboot/config/base-spec.json";
/// What a container's root may do if its pod asks for nothing: containerd's own list (`defaultUnixCaps` in pkg/oci/spec.go)
/// without `CAP_NET_RAW`. With that, on the host's network, it could send packets past nftables: the firewall's rules see
/// no packet socket.
const CAPABILITIES: [&str; 13] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const EXTRA_CAS: &str = "/run/kubeboot/config/registry-cas.pem";

/// The files.
pub fn renders(site: &Site<'_>) -> Vec<Render> {
    let own_network = site.settings.network.backend != Backend::None;
    let mut renders = Vec::new();
    if own_network {
        renders.push(Render::new(CNI_TEMPLATE, super::network::cni_template(site)));
    }
    renders.extend(registries(site));
    // A proxy address may hold a password.
    renders.push(Render::private(format!("{}/containerd.env", paths::RENDERED), environment(site)));
    renders.push(Render::new(BASE_SPEC, base_spec().to_string()));
    renders.push(Render::new(format!("{}/containerd.toml", paths::RENDERED), config(own_network)));
    renders
}

/// Where containerd keeps what it knows of the containers that run, one folder each, by id. On a tmpfs, so each was
/// started at this boot: `state` below, the runtime's plugin (containerd's core/runtime/v2/bundle.go), the namespace.
pub const CONTAINERS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

fn config(own_network: bool) -> String {
    let seat = paths::SEAT;
    // A plugin that the user brings writes to /opt/cni/bin and /etc/cni/net.d, as every one of them expects.
    let cni = if own_network {
        format!(
            "bin_dirs = ['{seat}/cni/bin']
conf_dir = '/run/kubeboot/cni/net.d'
conf_template = '{CNI_TEMPLATE}'"
        )
    } else {
        "bin_dirs = ['/opt/cni/bin']\nconf_dir = '/etc/cni/net.d'".to_owned()
    };
    format!(
        "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
oom_score = -999
# What a node does not need, and what would write to a read-only root.
disabled_plugins = [
  'io.containerd.image-verifier.v1.bindir',
  'io.containerd.internal.v1.opt',
  'io.containerd.monitor.container.v1.restart',
  'io.containerd.nri.v1.nri',
]

# A layer is on disk before containerd notes that it has it: else a power cut leaves empty files that it believes in,
# and every pod of that image fails from then on. The first is for whoever imports, the second for pulls.
[plugins.'io.containerd.service.v1.diff-service']
sync_fs = true

[plugins.'io.containerd.cri.v1.images']
image_pull_with_sync_fs = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{IMAGE}'

[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{REGISTRIES}'

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
runtime_path = '{seat}/bin/containerd-shim-runc-v2'
base_runtime_spec = '{BASE_SPEC}'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{seat}/bin/runc'
SystemdCgroup = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
{cni}
# One program less to run for each pod.
use_internal_loopback = true
"
    )
}

/// containerd's own specification (`populateDefaultUnixSpec` in pkg/oci/spec.go, without the limits and profiles that its
/// CRI plugin takes out), but for the capabilities. Paths that are hidden or read-only the kubelet names for each pod.
fn base_spec() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
    let memory = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let none = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "proc", &none),
            mount("/dev", "tmpfs", "tmpfs", &memory),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &none),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/run", "tmpfs", "tmpfs", &memory),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
        },
    })
}

/// The folders of registries that need one.
pub fn registry_directories(site: &Site<'_>) -> Vec<String> {
    let registry = &site.settings.registry;
    let mut names: Vec<&str> = registry.mirrors.keys().map(String::as_str).collect();
    if !registry.extra_cas.is_empty() && !names.contains(&"_default") {
        names.push("_default");
    }
    names.into_iter().map(|name| format!("{REGISTRIES}/{name}")).collect()
}

/// `hosts.toml` for each mirrored registry (containerd's `docs/hosts.md`), and the extra authorities for all.
fn registries(site: &Site<'_>) -> Vec<Render> {
    let registry = &site.settings.registry;
    let ca = if registry.extra_cas.is_empty() { String::new() } else { format!("ca = '{EXTRA_CAS}'\n") };
    let mut renders = Vec::new();
    if !ca.is_empty() {
        renders.push(Render::new(EXTRA_CAS, registry.extra_cas.join("\n")));
    }
    for directory in registry_directories(site) {
        let name = directory.rsplit('/').next().unwrap_or_default();
        let mut hosts = String::new();
        if name != "_default" {
            let upstream = if name == "docker.io" { "registry-1.docker.io" } else { name };
            let _ = writeln!(hosts, "server = {}", toml_text(&format!("https://{upstream}")));
        }
        hosts.push_str(&ca);
        for mirror in registry.mirrors.get(name).into_iter().flatten() {
            let _ = write!(hosts, "\n[host.{}]\ncapabilities = ['pull', 'resolve']\n{ca}", toml_text(mirror));
        }
        renders.push(Render::new(format!("{directory}/hosts.toml"), hosts));
    }
    renders
}

/// A TOML basic string.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn environment(site: &Site<'_>) -> String {
    let mut text = String::from("# Environment of containerd: the proxies, if the settings name any.\n");
    for (name, value) in proxies(site, |_| true) {
        // systemd.exec(5), EnvironmentFile=: within double quotes, these three are escaped.
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        let _ = writeln!(text, "{name}=\"{value}\"");
    }
    text
}

/// The variables of those proxies that are `wanted`, as Go programs read them. The cluster's own networks are never
/// reached through a proxy.
pub fn proxies(site: &Site<'_>, wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let egress = &site.settings.egress;
    let mut variables = Vec::new();
    for (name, url) in [("HTTP_PROXY", &egress.http_proxy), ("HTTPS_PROXY", &egress.https_proxy)] {
        variables.extend(url.clone().filter(|url| wanted(url)).map(|url| (name, url)));
    }
    if !variables.is_empty() {
        let cluster = &site.settings.cluster;
        let own = [
            "localhost".to_owned(),
            "127.0.0.0/8".to_owned(),
            "::1".to_owned(),
            site.node.address.to_string(),
            cluster.pod_cidr.to_string(),
            cluster.service_cidr.to_string(),
            ".svc".to_owned(),
            format!(".{}", cluster.dns_domain),
        ];
        variables.push(("NO_PROXY", egress.no_proxy.iter().cloned().chain(own).collect::<Vec<_>>().join(",")));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn mirrors_authorities_and_proxies() {
        let (mut settings, node) = (sample::settings(), sample::node());
        let mirrors = [
            ("docker.io".to_owned(), vec!["https://mirror.example.org".to_owned(), "http://10.0.0.5:5000".to_owned()]),
            ("quay.io".to_owned(), vec!["https://quay.example.org/v2/proxy".to_owned()]),
        ];
        settings.registry.mirrors = mirrors.into();
        settings.registry.extra_cas = vec!["-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n".into()];
        settings.egress.https_proxy = Some("http://user:p$ss@proxy.example.org:3128".into());
        settings.egress.no_proxy = vec!["example.org".into()];
        let site = sample::site(&settings, &node);
        let all: String = renders(&site)
            .iter()
            .filter(|one| !one.path.ends_with(".toml") || one.path.ends_with("hosts.toml"))
            .filter(|one| one.path != CNI_TEMPLATE && one.path != BASE_SPEC)
            .map(|one| format!("=== {}\n{}", one.path, one.contents))
            .collect();
        insta::assert_snapshot!(all);
    }

    #[test]
    fn the_configuration_is_toml() {
        for own_network in [true, false] {
            let parsed: Result<toml::Table, _> = config(own_network).parse();
            assert!(parsed.is_ok(), "{parsed:?}");
        }
    }
}
