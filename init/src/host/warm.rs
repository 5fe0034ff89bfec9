//! Brings the seat's programs into the page cache while boot waits for the disk and the network.
//!
//! They are compressed in the release, and each is needed in seconds: who starts them then finds them in memory.

use std::fs::File;
use std::io::Read;

use super::root::Root;
use crate::paths;

/// What starts first comes first. `kube` is also the kubelet and the API server: hard links of one file.
const PROGRAMS: [&str; 7] = [
    "bin/containerd",
    "images/kubeboot.tar",
    "bin/containerd-shim-runc-v2",
    "bin/runc",
    "bin/kube",
    "bin/etcd",
    "cni/bin/bridge",
];

/// Starts reading in a thread of its own, and returns at once. Ends with the process at the latest.
/// Reading is all it does: a file that is missing is somebody else's finding.
pub fn start(root: &Root) {
    let files = PROGRAMS.map(|name| root.path(paths::SEAT).join(name));
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        for mut file in files.iter().filter_map(|path| File::open(path).ok()) {
            while file.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
}
