//! `kubeboot reset`: returns the machine to its first boot.
//!
//! The command only writes a marker. The state is removed when the machine starts next, in the initrd, before anything
//! uses it: nothing is mounted or running there, and after a power cut the next start goes on with it.

use std::io;
use std::path::Path;

use crate::exit::Exit;
use crate::host::console::{self, Console};
use crate::host::root::Root;
use crate::host::{clock, files, machine_id, mounts, removal, sources};
use crate::paths;
use crate::sources::reset::{self, Verdict};
use crate::words::Block;

/// What is removed below `/var`, beside [`paths::STATE`]: what a node's programs keep there.
const REMOVED: [&str; 11] = [
    paths::ETCD_DATA,
    paths::KUBELET,
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/lib/flannel",
    "/var/log/pods",
    "/var/log/containers",
    "/var/log/kubernetes",
    "/var/lib/kube-proxy",
    // The CNI plugins that a pod brought: they run as root. And what was said under the old machine-id.
    "/var/opt/cni",
    "/var/log/journal",
];

/// The command's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubeboot reset          asks first\n  kubeboot reset --yes    does not ask")]
pub struct Args {
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let root = Root::system();
    if !args.yes {
        match confirmed(&root) {
            Ok(true) => {}
            Ok(false) => {
                println!("Nothing was changed.");
                return Exit::Success;
            }
            Err(error) => {
                eprintln!("kubeboot: {error}. Nothing was changed. Fix: kubeboot reset --yes");
                return Exit::BadInput;
            }
        }
    }
    let marker = root.path(paths::RESET);
    let text = format!("asked for at {} seconds since 1970\n", clock::unix());
    match files::write_atomic(&marker, text.as_bytes(), 0o600) {
        Ok(()) => {
            println!(
                "This machine forgets its cluster when it starts next. Start it now with: systemctl reboot\nUntil then \
                 it runs on, and removing {} calls the reset off.",
                paths::RESET
            );
            Exit::Success
        }
        Err(error) => {
            eprintln!("kubeboot: can't write {}: {error}. Nothing was changed. Fix: check /var", paths::RESET);
            Exit::Failure
        }
    }
}

fn confirmed(root: &Root) -> Result<bool, String> {
    if !console::is_interactive() {
        return Err("expected a terminal to ask on, found none".to_owned());
    }
    println!(
        "This returns the machine to its first boot. It removes, at the next start:\n  the cluster's keys and \
         identity, etcd's data, the kubelet's and containerd's data, staged releases, and this\n  machine's id. On the \
         only control plane of a cluster, that is the cluster. Where there are others, remove this node first, on one of\n  \
         them: kubeboot node remove NAME. Else etcd counts its member as lost. It can't be undone."
    );
    match Console::open(root).ask("Type reset to go on: ") {
        Ok(Some(answer)) => Ok(answer.trim() == "reset"),
        Ok(None) => Err("expected an answer, found nobody to ask".to_owned()),
        Err(error) => Err(format!("can't ask: {error}")),
    }
}

/// In the initrd: removes what a reset was asked for. True when one was.
///
/// # Errors
/// Something can't be removed. The marker stays, so that the machine never goes on with half of its state.
pub(super) fn resume(initrd: &Root, real: &Root) -> Result<bool, Block> {
    let marker = real.path(paths::RESET);
    order(initrd, real, &marker);
    if !files::exists(&marker) {
        return Ok(false);
    }
    let removed = remove(real).and_then(|()| files::remove(&marker));
    removed.map(|()| true).map_err(|error| Block {
        what: "The reset that was asked for can't be finished".to_owned(),
        why: vec![format!("what is to be removed below {} can't be: {error}", real.path("/var").display())],
        state: "The machine does not go on with half of its state; the next start tries again.".to_owned(),
        fix: vec!["check the disk that holds /var, or replace it.".to_owned()],
    })
}

/// Takes an order of the kernel command line or a credential as if the command had been run. It is on disk before
/// anything is removed: the order names an id that is among the first things to go.
fn order(initrd: &Root, real: &Root, marker: &Path) {
    if files::exists(marker) {
        return;
    }
    match reset::judge(sources::reset(initrd).as_deref(), id(real).as_deref()) {
        Verdict::Nothing => {}
        Verdict::Other(words) => eprintln!("kubeboot: {words}"),
        Verdict::Reset => {
            if let Err(error) = files::write_atomic(marker, b"asked for by kubeboot.reset=\n", 0o600) {
                eprintln!(
                    "kubeboot: can't write {}: {error}. Nothing was reset; the next start tries again. Fix: check the disk \
                     that holds /var",
                    paths::RESET
                );
            }
        }
    }
}

/// The id that `kubeboot.reset=` must name on this machine; none when there is nothing to reset.
pub(super) fn id(root: &Root) -> Option<String> {
    let read = |path: &str| files::read_optional(&root.path(path)).ok().flatten();
    let machine = read(paths::MACHINE_ID).and_then(|contents| machine_id::parse(&contents));
    reset::expected(read(paths::CLUSTER).as_deref(), machine)
}

fn remove(real: &Root) -> io::Result<()> {
    for path in REMOVED {
        let path = real.path(path);
        // A volume of the operator's own (etcd's disk): its contents go, its mount point stays.
        let own = mounts::is_mount_point(&path);
        if own { removal::empty_folder(&path, &[])? } else { removal::remove_tree(&path)? }
    }
    let marker = real.path(paths::RESET);
    removal::empty_folder(&real.path(paths::STATE), marker.file_name().as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::removal::tests::nest;

    fn machine() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for path in ["/var", "/var/lib", "/var/log", paths::STATE, paths::ETCD_DATA, paths::RELEASES, "/var/lib/other"]
        {
            files::make_folder(&root.path(path), 0o700).unwrap();
        }
        for path in
            [paths::NODE, paths::WAS_READY, paths::MACHINE_ID, "/var/lib/etcd/db", "/var/lib/other/kept", paths::SLOTS]
        {
            files::write_atomic(&root.path(path), b"x", 0o600).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn nothing_is_removed_that_was_not_asked_for() {
        let (_folder, root) = machine();
        assert_eq!(resume(&root, &root), Ok(false));
        assert!(files::exists(&root.path(paths::NODE)));
    }

    #[test]
    fn a_reset_removes_kubeboots_state_and_nothing_else() {
        let (_folder, root) = machine();
        for path in ["/var/opt", "/var/opt/cni", "/var/log/journal", "/var/log/journal/00ff"] {
            files::make_folder(&root.path(path), 0o700).unwrap();
        }
        files::write_atomic(&root.path(paths::RESET), b"", 0o600).unwrap();
        assert_eq!(resume(&root, &root), Ok(true));
        assert_eq!(files::list(&root.path(paths::STATE)).unwrap(), Vec::<std::path::PathBuf>::new());
        for gone in [paths::ETCD_DATA, "/var/opt/cni", "/var/log/journal"] {
            assert!(!files::exists(&root.path(gone)), "{gone}");
        }
        assert!(files::exists(&root.path("/var/lib/other/kept")));
        assert_eq!(resume(&root, &root), Ok(false));
    }

    #[test]
    fn an_order_on_the_command_line_holds_once() {
        let (_folder, root) = machine();
        files::make_folder(&root.path("/proc"), 0o755).unwrap();
        let machine = "0123456789abcdef0123456789abcdef";
        let line = |id: &str| {
            let text = format!("quiet kubeboot.role=init kubeboot.reset={id}\n");
            files::write_volatile(&root.path("/proc/cmdline"), text.as_bytes(), 0o600).unwrap();
        };
        let id_is = |id: &str| files::write_atomic(&root.path(paths::MACHINE_ID), id.as_bytes(), 0o444).unwrap();
        id_is(machine);
        line("fedcba9876543210fedcba9876543210");
        assert_eq!(resume(&root, &root), Ok(false));
        assert!(files::exists(&root.path(paths::NODE)));
        line(machine);
        assert_eq!(resume(&root, &root), Ok(true));
        assert_eq!(files::list(&root.path(paths::STATE)).unwrap(), Vec::<std::path::PathBuf>::new());
        assert_eq!(resume(&root, &root), Ok(false));
        // The next cluster on this disk has other ids: the order does nothing to it.
        id_is("00112233445566778899aabbccddeeff");
        files::write_atomic(&root.path(paths::NODE), b"x", 0o600).unwrap();
        assert_eq!(resume(&root, &root), Ok(false));
        assert!(files::exists(&root.path(paths::NODE)));
    }

    /// A pod can make these in any volume of its own that lies on the node's disk.
    #[test]
    fn no_pod_can_nest_folders_so_deep_that_they_stop_a_reset() {
        let (_folder, root) = machine();
        files::make_folder(&root.path(paths::KUBELET), 0o700).unwrap();
        nest(&root.path(paths::KUBELET), 2000, &"n".repeat(200));
        files::write_atomic(&root.path(paths::RESET), b"", 0o600).unwrap();
        assert_eq!(resume(&root, &root), Ok(true));
        assert!(!files::exists(&root.path(paths::KUBELET)));
    }

    #[test]
    fn a_reset_that_was_cut_goes_on() {
        let (_folder, root) = machine();
        files::write_atomic(&root.path(paths::RESET), b"", 0o600).unwrap();
        removal::remove_tree(&root.path(paths::ETCD_DATA)).unwrap();
        files::remove(&root.path(paths::NODE)).unwrap();
        assert_eq!(resume(&root, &root), Ok(true));
        assert!(!files::exists(&root.path(paths::MACHINE_ID)));
    }
}
