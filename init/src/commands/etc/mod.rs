//! `kubeboot etc`, in the initrd: gives the real root an `/etc` that can be written, and its few persisted files.
//!
//! The lower layer is the image's `/etc`; the upper one is a tmpfs that goes at power-off. So nothing planted there
//! outlives a boot, and what has to live is written anew, here and by `kubeboot boot`.

use std::io;
use std::path::Path;

use crate::exit::Exit;
use crate::host::root::Root;
use crate::host::{files, machine_id, mounts};
use crate::paths;

/// Where the overlay's upper layer and its work folder live; `/run` moves on into the real root.
const LAYER: &str = "/run/kubeboot/etc";

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The real root, with `/var` mounted in it
    #[arg(long, default_value = "/sysroot")]
    sysroot: std::path::PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match prepare(&Root::system(), &Root::at(&args.sysroot)) {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("kubeboot: {error}");
            Exit::Failure
        }
    }
}

fn prepare(initrd: &Root, real: &Root) -> Result<(), String> {
    let var = real.path("/var");
    if !mounts::is_mount_point(&var) {
        return Err(format!(
            "can't prepare /etc: expected the partition kubeboot-var mounted on {}, found nothing mounted there. The \
             machine can't keep any state. Fix: give the disk at least 4 GiB of free room, so that the partition can \
             be made at first boot",
            var.display()
        ));
    }
    if super::reset::resume(real)? {
        println!("kubeboot: this machine was reset: it starts as at its first boot");
    }
    overlay(initrd, real).map_err(|error| {
        format!(
            "can't mount an overlay on {}: {error}. /etc stays read-only and the machine can't become a node. Fix: \
             boot an image whose initrd has the overlay module",
            real.path("/etc").display()
        )
    })?;
    identify(real)?;
    name(real);
    Ok(())
}

fn overlay(initrd: &Root, real: &Root) -> io::Result<()> {
    let (upper, work) = (initrd.path(LAYER).join("upper"), initrd.path(LAYER).join("work"));
    files::make_folder(&initrd.path(paths::RUN), 0o755)?;
    files::make_folder(&initrd.path(LAYER), 0o755)?;
    files::make_folder(&upper, 0o755)?;
    files::make_folder(&work, 0o700)?;
    let etc = real.path("/etc");
    mounts::overlay(&etc, &upper, &work, &etc)
}

/// machine-id: made once, kept on `/var`, written into `/etc` before the real systemd starts and reads it.
fn identify(real: &Root) -> Result<(), String> {
    let state = real.path(paths::STATE);
    let kept = real.path(paths::MACHINE_ID);
    let failed = |error: io::Error| {
        format!("can't keep the machine-id in {}: {error}. Fix: check the disk that holds /var", kept.display())
    };
    // The file system is empty at first boot; systemd-tmpfiles comes later and agrees on these modes.
    files::make_folder(&real.path("/var/lib"), 0o755).map_err(failed)?;
    files::make_folder(&state, 0o700).map_err(failed)?;
    let id = match machine_id::parse(&files::read_optional(&kept).map_err(failed)?.unwrap_or_default()) {
        Some(id) => id,
        None => {
            if files::exists(&kept) {
                eprintln!(
                    "kubeboot: {} is damaged: expected 32 hexadecimal digits. It is made anew; the machine's journal \
                     starts a new folder and its DHCP address may change",
                    kept.display()
                );
            }
            let id = machine_id::generate().map_err(failed)?;
            files::write_atomic(&kept, machine_id::text(&id).as_bytes(), 0o444).map_err(failed)?;
            id
        }
    };
    write(&real.path("/etc/machine-id"), &machine_id::text(&id), 0o444)
}

/// The node's pinned name, once there is one. Without it the image's own name stays until `kubeboot boot` sets one.
fn name(real: &Root) {
    let pinned = files::read_optional(&real.path(paths::NODE)).ok().flatten();
    let node: Option<serde_json::Value> = pinned.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // A damaged node.json is named by `kubeboot boot`, which knows what can be done about it.
    if let Some(name) = node.as_ref().and_then(|node| node.get("name")).and_then(|name| name.as_str())
        && let Err(error) = write(&real.path("/etc/hostname"), &format!("{name}\n"), 0o644)
    {
        eprintln!("kubeboot: {error}");
    }
}

/// Into the tmpfs layer: there is nothing to make last.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    files::write_volatile(path, text.as_bytes(), mode)
        .map_err(|error| format!("can't write {}: {error}. Fix: see whether /run is full (df /run)", path.display()))
}
