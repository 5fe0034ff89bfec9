//! What sits at `/run/kubeboot/slot`.

use super::{Root, text_if_there};
use crate::facts::{Fact, Seat, procfs};
use crate::paths;
use crate::slots::SeatFacts;

/// Programs of every release; without one of them some node service can't start.
const PROGRAMS: &[&str] = &[
    "bin/containerd",
    "bin/containerd-shim-runc-v2",
    "bin/coredns",
    "bin/etcd",
    "bin/flanneld",
    "bin/kube-apiserver",
    "bin/kube-controller-manager",
    "bin/kube-proxy",
    "bin/kube-scheduler",
    "bin/kubeboot",
    "bin/kubelet",
    "bin/runc",
    "cni/bin/bridge",
    "cni/bin/host-local",
    "cni/bin/loopback",
    "cni/bin/portmap",
    "images/kubeboot.tar",
];

/// Looks at the mount, the record of `kubeboot slot`, and the programs.
pub(super) fn gather(root: &Root, mounts: &Result<String, String>) -> Fact<Seat> {
    let find = || {
        let mounts = mounts.as_ref().map_err(Clone::clone)?;
        let mount = procfs::mount_of(mounts, paths::SEAT).filter(|mount| mount.point == paths::SEAT);
        let Some(mount) = mount else { return Ok(Seat::default()) };
        let missing = PROGRAMS.iter().filter(|program| !root.path(paths::SEAT).join(program).exists());
        Ok(Seat {
            mounted: Some(mount.kind),
            read_only: mount.read_only,
            record: record(root),
            missing: missing.map(|program| (*program).to_owned()).collect(),
        })
    };
    find().into()
}

/// What `kubeboot slot` recorded; none if it recorded nothing.
fn record(root: &Root) -> Option<Result<SeatFacts, String>> {
    match text_if_there(root, paths::SEAT_FACTS) {
        Ok(text) if text.is_empty() => None,
        Ok(text) => Some(
            serde_json::from_str(&text).map_err(|error| format!("{} can't be understood: {error}", paths::SEAT_FACTS)),
        ),
        Err(error) => Some(Err(error)),
    }
}
