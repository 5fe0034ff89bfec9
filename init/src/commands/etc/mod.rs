//! `kubeboot etc`, in the initrd: mounts `/var`, and gives the real root an `/etc` that can be written, and its few
//! persisted files.
//!
//! The lower layer is the image's `/etc`; the upper one is a tmpfs that goes at power-off. So nothing planted there
//! outlives a boot, and what has to live is written anew, here and by `kubeboot boot`.

mod var;

use std::io;
use std::path::Path;

use crate::exit::Exit;
use crate::host::console::Console;
use crate::host::report::Report;
use crate::host::root::Root;
use crate::host::{files, machine_id, mounts, wait};
use crate::paths;
use crate::settings::validate;
use crate::sources::{self, Gathered};
use crate::timeline::What;
use crate::words::{self, Block};

/// Where the overlay's upper layer and its work folder live; `/run` moves on into the real root.
const LAYER: &str = "/run/kubeboot/etc";

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The real root
    #[arg(long, default_value = "/sysroot")]
    sysroot: std::path::PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    let initrd = Root::system();
    let mut console = Console::open(&initrd);
    let Err(block) = prepare(&initrd, &Root::at(&args.sysroot), &mut console) else { return Exit::Success };
    report(&initrd, &block);
    console.say(|paint| block.text(paint));
    // Without /var and /etc there is nothing to go on to, and nobody can log in here: the fix is the last thing on the
    // screen, and stays there.
    wait::for_a_signal();
    Exit::Failure
}

/// For whoever listens on the report device. Of the sources only the kernel command line can be read this early.
fn report(initrd: &Root, block: &Block) {
    let command_line = files::read_optional(&initrd.path("/proc/cmdline")).ok().flatten().unwrap_or_default();
    let gathered = Gathered { command_line: command_line.into(), ..Gathered::default() };
    let message = block.line();
    // The file of events is made first: the device gets what is in it.
    Report::open(initrd).emit(What::Error { command: "etc".to_owned(), message });
    if let Some(device) = validate(sources::parse(&gathered)).ok().and_then(|found| found.settings.report)
        && let Err(error) = Report::configure(initrd, &device)
    {
        println!("kubeboot: events can't be sent to {device}: {error}");
    }
}

fn prepare(initrd: &Root, real: &Root, console: &mut Console) -> Result<(), Block> {
    var::mount(initrd, real, |note| console.say(|paint| words::note(note, paint)))
        .map_err(|trouble| trouble.block())?;
    if super::reset::resume(initrd, real)? {
        println!("kubeboot: this machine was reset: it starts as at its first boot");
    }
    overlay(initrd, real).map_err(|error| {
        let why = format!("an overlay can't be mounted on {}: {error}", real.path("/etc").display());
        stopped(why, "boot an image whose initrd has the overlay module.")
    })?;
    identify(real)?;
    name(real);
    Ok(())
}

fn stopped(why: String, fix: &str) -> Block {
    Block {
        what: "This machine's /etc could not be prepared".to_owned(),
        why: vec![why],
        state: "The machine does not start any further. What is on /var is as it was.".to_owned(),
        fix: vec![fix.to_owned()],
    }
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
fn identify(real: &Root) -> Result<(), Block> {
    let state = real.path(paths::STATE);
    let kept = real.path(paths::MACHINE_ID);
    let failed = |error: io::Error| {
        let why = format!("the machine-id can't be kept in {}: {error}", kept.display());
        stopped(why, "check the disk that holds /var, and start the machine again.")
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
        && let Err(block) = write(&real.path("/etc/hostname"), &format!("{name}\n"), 0o644)
    {
        eprintln!("kubeboot: {}", block.line());
    }
}

/// Into the tmpfs layer: there is nothing to make last.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Block> {
    files::write_volatile(path, text.as_bytes(), mode).map_err(|error| {
        let why = format!("{} can't be written: {error}", path.display());
        stopped(why, "give the machine more memory: /run has no room.")
    })
}
