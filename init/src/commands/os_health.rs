//! `kubeboot os-health`: the OS image's verdict, before `boot-complete.target`: kubeboot runs and `/var` is writable.
//!
//! The release's verdict is another one (`kubeboot health`): a machine that waits for its cluster has a good OS.

use crate::exit::Exit;
use crate::host::root::Root;
use crate::host::{files, systemd};
use crate::paths;

/// A file that is written, synced and removed.
const PROBE: &str = "/var/lib/kubeboot/.os-health";

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Exit {
    match check(&Root::system()) {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("kubeboot: {error}");
            Exit::Failure
        }
    }
}

fn check(root: &Root) -> Result<(), String> {
    let probe = root.path(PROBE);
    files::write_atomic(&probe, b"", 0o600)
        .and_then(|()| files::remove(&probe))
        .map_err(|error| format!("{} is not writable: {error}. Fix: check the disk that holds /var", paths::STATE))?;
    let unit = systemd::properties(Some("kubeboot-slot.service"), &["ActiveState", "Result"])
        .map_err(|error| error.to_string())?;
    match unit.get("ActiveState").map(String::as_str) {
        Some("failed") => Err("kubeboot-slot.service failed: no release could be seated".to_owned()),
        _ => Ok(()),
    }
}
