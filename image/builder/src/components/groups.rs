//! The table of components.

use std::path::{Path, PathBuf};

/// Where a program goes in a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `bin/`
    Bin,
    /// `cni/bin/`
    CniBin,
}

impl Place {
    /// The folder's name in the release.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Bin => "bin",
            Self::CniBin => "cni/bin",
        }
    }
}

/// One binary and the names it is called by.
#[derive(Debug)]
pub struct Program {
    /// The file's name.
    pub name: &'static str,
    /// The Go package, within or beyond the group's own module.
    pub package: &'static str,
    /// Hard links to it: a multi-call binary's other names.
    pub links: &'static [&'static str],
    /// Where it goes.
    pub place: Place,
}

impl Program {
    /// Each file that this program is in a release, and the file it is made of. A multi-call binary's own name is left
    /// out where official binaries take its place.
    pub fn files(&self, folder: &Path, official: Option<&Path>) -> Vec<(String, PathBuf)> {
        let separate = official == Some(folder);
        let names = std::iter::once(self.name).chain(self.links.iter().copied());
        names
            .filter(|name| !(separate && *name == "kube"))
            .map(|name| {
                (format!("{}/{name}", self.place.folder()), folder.join(if separate { name } else { self.name }))
            })
            .collect()
    }
}

/// Programs that one go.mod pins.
#[derive(Debug)]
pub struct Group {
    /// Its name, that of its folder below `image/components/`, and that in a release's manifest.
    pub name: &'static str,
    /// The module whose version is the group's.
    pub module: &'static str,
    /// What is built.
    pub programs: &'static [Program],
    /// Build tags.
    pub tags: &'static [&'static str],
    /// Whether it is C too, then linked statically, and the packages of the build machine that this takes.
    pub cgo: Option<&'static [&'static str]>,
    /// A variable that the linker sets to the version with a leading `v`; none where the sources have the version.
    pub version_variable: Option<&'static str>,
    /// The program that says the group's version, and the arguments that make it.
    pub version_command: (&'static str, &'static [&'static str]),
}

const fn program(name: &'static str, package: &'static str, links: &'static [&'static str]) -> Program {
    Program { name, package, links, place: Place::Bin }
}

const fn plugin(name: &'static str, package: &'static str) -> Program {
    Program { name, package, links: &[], place: Place::CniBin }
}

/// Kubernetes' six programs, each a binary of its own, as upstream publishes them; without symbols, as ours are. No part
/// of [`GROUPS`]: it serves where official binaries are asked for and can't be downloaded.
pub(super) const SEPARATE_KUBERNETES: Group = Group {
    name: "kube",
    module: "k8s.io/kubernetes",
    programs: &[
        program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", &[]),
        program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", &[]),
        program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", &[]),
        program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", &[]),
        program("kubectl", "k8s.io/kubernetes/cmd/kubectl", &[]),
        program("kubelet", "k8s.io/kubernetes/cmd/kubelet", &[]),
    ],
    tags: &["selinux", "notest", "grpcnotrace"],
    cgo: None,
    version_variable: None,
    version_command: ("kubelet", &["--version"]),
};

/// Every group, the longest build first.
pub const GROUPS: &[Group] = &[
    Group {
        name: "kube",
        module: "k8s.io/kubernetes",
        programs: &[program(
            "kube",
            ".",
            &["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"],
        )],
        tags: &["selinux", "notest", "grpcnotrace"],
        cgo: None,
        version_variable: None, // several, in build.rs
        version_command: ("kube", &["kubelet", "--version"]),
    },
    Group {
        name: "etcd",
        module: "go.etcd.io/etcd/server/v3",
        programs: &[program("etcd", ".", &["etcdctl"])],
        tags: &["grpcnotrace"],
        cgo: None,
        version_variable: None,
        version_command: ("etcd", &["--version"]),
    },
    Group {
        name: "containerd",
        module: "github.com/containerd/containerd/v2",
        programs: &[program("containerd", ".", &["ctr"])],
        tags: &["grpcnotrace", "urfave_cli_no_docs", "netgo", "osusergo"],
        cgo: None,
        version_variable: Some("github.com/containerd/containerd/v2/version.Version"),
        version_command: ("containerd", &["--version"]),
    },
    Group {
        name: "shim",
        module: "github.com/containerd/containerd/v2",
        programs: &[program(
            "containerd-shim-runc-v2",
            "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
            &[],
        )],
        tags: &["grpcnotrace", "no_grpc"],
        cgo: None,
        version_variable: Some("github.com/containerd/containerd/v2/version.Version"),
        version_command: ("containerd-shim-runc-v2", &["-v"]),
    },
    Group {
        name: "runc",
        module: "github.com/opencontainers/runc",
        programs: &[program("runc", "github.com/opencontainers/runc", &[])],
        tags: &["seccomp", "urfave_cli_no_docs", "netgo", "osusergo"],
        cgo: Some(&["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"]),
        version_variable: None,
        version_command: ("runc", &["--version"]),
    },
    Group {
        name: "cni",
        module: "github.com/containernetworking/plugins",
        programs: &[
            plugin("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            plugin("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            plugin("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
            plugin("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        ],
        tags: &[],
        cgo: None,
        version_variable: Some("github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion"),
        version_command: ("bridge", &[]),
    },
    Group {
        name: "coredns",
        module: "github.com/coredns/coredns",
        programs: &[program("coredns", ".", &[])],
        tags: &["grpcnotrace"],
        cgo: None,
        version_variable: Some("github.com/coredns/coredns/coremain.gitTag"),
        version_command: ("coredns", &["-version"]),
    },
    Group {
        name: "flannel",
        module: "github.com/flannel-io/flannel",
        programs: &[program("flanneld", ".", &[])],
        tags: &["grpcnotrace"],
        cgo: None,
        version_variable: Some("github.com/flannel-io/flannel/pkg/version.Version"),
        version_command: ("flanneld", &["--version"]),
    },
];
