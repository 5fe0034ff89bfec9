//! Every path that kubeboot reads or writes on a machine, in one place.
//!
//! Constants are absolute; `host::Root` joins them below another root in tests.

use std::path::{Path, PathBuf};

/// What survives: kubeboot's own state, mode 0700.
pub const STATE: &str = "/var/lib/kubeboot";
/// Who the cluster is: id, founding record, public halves only. JSON. Written before etcd starts, never again.
pub const CLUSTER: &str = "/var/lib/kubeboot/cluster.json";
/// The cluster's identity key (Ed25519, PKCS#8 PEM), mode 0600.
pub const IDENTITY_KEY: &str = "/var/lib/kubeboot/identity.key";
/// The public halves of the seed's join tokens, mode 0600, until the cluster has them. JSON. Without it the founding
/// window is lost, and nothing else.
pub const FOUNDING_TOKENS: &str = "/var/lib/kubeboot/founding-tokens.json";
/// The key that seals the mesh's messages, mode 0600: its epoch, 8 bytes big-endian, and 32 bytes.
pub const MESH_KEY: &str = "/var/lib/kubeboot/mesh.key";
/// What the mesh keeps besides its key, mode 0700: the generation, and a file for each record.
pub const MESH: &str = "/var/lib/kubeboot/mesh";
/// How often this node's mesh has started; its number is on disk before it is said.
pub const MESH_GENERATION: &str = "/var/lib/kubeboot/mesh/generation";
/// A seed that the founder made itself, mode 0600, kept only until it was shown and the node was Ready once.
pub const SEED: &str = "/var/lib/kubeboot/seed";
/// The settings as first applied, with origins, mode 0600. JSON.
pub const FROZEN: &str = "/var/lib/kubeboot/settings.json";
/// Who the node is: name, address, machine-id, pinned at first boot. JSON.
pub const NODE: &str = "/var/lib/kubeboot/node.json";
/// The key by which the cluster knows this machine again (Ed25519, PKCS#8 PEM), mode 0600. Made before it asks to join.
pub const NODE_KEY: &str = "/var/lib/kubeboot/node.key";
/// Where the API servers are: for the balancer, and for whoever asks a control plane. JSON.
pub const ENDPOINTS: &str = "/var/lib/kubeboot/endpoints.json";
/// Of a control plane that joined: which member of etcd's it is. JSON. Written before its etcd starts for the first time.
pub const ETCD_MEMBERSHIP: &str = "/var/lib/kubeboot/etcd.json";
/// Says that the node was Ready once: from then on etcd's data may not be missing. Written once.
pub const WAS_READY: &str = "/var/lib/kubeboot/was-ready";
/// Made by the initrd at first boot.
pub const MACHINE_ID: &str = "/var/lib/kubeboot/machine-id";
/// Slots, tries and verdicts. JSON.
pub const SLOTS: &str = "/var/lib/kubeboot/slots.json";
/// Releases on `/var`, content-addressed: `<sha256 of the file>.release`.
pub const RELEASES: &str = "/var/lib/kubeboot/releases";
/// Boot counter, the one thing that a boot of a finished machine writes; its agent writes in [`MESH`].
pub const BOOTS: &str = "/var/lib/kubeboot/boots";
/// Fingerprints of operators that were removed from the cluster, one a line, whatever the settings say.
pub const REMOVED_OPERATORS: &str = "/var/lib/kubeboot/removed-operators";
/// The operators on the cluster's record, as a control plane saw them last, a line of `authorized_keys` each, mode 0600: for
/// when its API server does not come up.
pub const LISTED_OPERATORS: &str = "/var/lib/kubeboot/listed-operators";
/// What the cluster says of this worker, for operators: which node key it has, as what, until when. In the form of
/// `enrolment/statement`; no secret.
pub const STATEMENT: &str = "/var/lib/kubeboot/statement";
/// Asks the next start, in the initrd, to remove all state.
pub const RESET: &str = "/var/lib/kubeboot/reset";
/// Bound over /etc/kubernetes at boot.
pub const KUBERNETES_STATE: &str = "/var/lib/kubeboot/kubernetes";
/// kubeadm's directory.
pub const KUBERNETES: &str = "/etc/kubernetes";
/// kubeadm's certificates and keys.
pub const PKI: &str = "/etc/kubernetes/pki";
/// The cluster's certificate authority, as every node has it.
pub const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";
/// tmpfs, rendered at each boot.
pub const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// etcd's data.
pub const ETCD_DATA: &str = "/var/lib/etcd";
/// etcd's database, made when it starts for the first time.
pub const ETCD_DATABASE: &str = "/var/lib/etcd/member/snap/db";
/// Where etcd keeps its write-ahead log, `*.wal`: made after the database, and before anything is promised to a client.
pub const ETCD_LOG: &str = "/var/lib/etcd/member/wal";
/// The kubelet's root directory.
pub const KUBELET: &str = "/var/lib/kubelet";

/// The factory release, baked into the image.
pub const FACTORY: &str = "/usr/lib/kubeboot/factory.release";
/// Lowest-priority settings, baked into the image.
pub const BAKED: &str = "/usr/lib/kubeboot/kubeboot.toml";
/// Public keys that may sign releases, one minisign key a line.
pub const RELEASE_KEYS: &str = "/usr/lib/kubeboot/release-keys";
/// What the OS image says of itself: version, compatibility. TOML.
pub const OS_RELEASE: &str = "/usr/lib/kubeboot/os.toml";

/// What goes at power-off; mode 0755.
pub const RUN: &str = "/run/kubeboot";
/// The seat: the release in use, mounted read-only.
pub const SEAT: &str = "/run/kubeboot/slot";
/// Which release sits there and why. JSON.
pub const SEAT_FACTS: &str = "/run/kubeboot/seat.json";
/// Configuration of the node's services (containerd, kubelet, kube-proxy, flannel, CNI), made at each boot.
pub const RENDERED: &str = "/run/kubeboot/config";
/// Every event of this boot, one JSON object a line: steps, phases, health.
pub const EVENTS: &str = "/run/kubeboot/events.jsonl";
/// The last error that the console showed, for `status` and `systemctl status`.
pub const LAST_ERROR: &str = "/run/kubeboot/error.json";
/// Health as last observed. JSON.
pub const HEALTH: &str = "/run/kubeboot/health.json";
/// What the balancer of a worker thinks of the API servers. JSON.
pub const BALANCER: &str = "/run/kubeboot-balancer/view.json";
/// Name of the serial device that gets every event too, such as `ttyS1`; missing when there is none.
pub const REPORT_DEVICE: &str = "/run/kubeboot/report-device";
/// Where the agent answers `kubeboot members`, mode 0600. One JSON document for each connection.
pub const MEMBERS_SOCKET: &str = "/run/kubeboot/members.sock";
/// What `kubeboot init` or the prompt was given, mode 0600. TOML, the source that wins over every other.
pub const BY_HAND: &str = "/run/kubeboot/by-hand.toml";

/// `.NAME.kubeboot-new` beside the file: one name, so that a torn attempt is overwritten by the next, never collected.
///
/// # Errors
/// A path without a name.
pub fn temporary_beside(path: &Path) -> std::io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "expected a file's path"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".kubeboot-new");
    Ok(path.with_file_name(hidden))
}
/// The settings in force at this boot, without origins and secrets. JSON.
pub const IN_FORCE: &str = "/run/kubeboot/settings.json";
