//! Cleans up after a run, however it ends: a process that waits for the end of its parent, Ctrl-C and a kill included.
//!
//! Machines need no cleaning: they end with the process that started them.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use crate::machine::network;

/// The first argument that makes this executable a janitor: `<this> CLEAN <process id> <folder>`.
const CLEAN: &str = "--clean-up-after";

/// A janitor at work; when this is dropped, the folder is gone.
pub struct Janitor(Child);

impl Janitor {
    /// Starts one that removes what lies in `folder`, and this process's networks.
    ///
    /// # Errors
    /// It can't be started.
    pub fn hire(folder: &Path) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(CLEAN).arg(std::process::id().to_string()).arg(folder);
        // A group of its own: Ctrl-C is not for it. Its standard input ends when this process does.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        command.spawn().context("can't start what cleans up after this run").map(Self)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It says itself what it could not do.
        let _ = self.0.wait();
    }
}

/// Is a janitor, when the arguments ask for that. The program calls this first in its `main`, and ends when it gets a
/// status.
#[must_use]
pub fn work_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != CLEAN {
        return None;
    }
    let arguments: Vec<OsString> = arguments.collect();
    let [process, folder] = arguments.as_slice() else { return Some(ExitCode::FAILURE) };
    // Nothing is ever written there: this returns at its end.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    network::remove(&process.to_string_lossy());
    match clean(Path::new(folder)) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

/// Unmounts what is mounted in a folder, and removes it.
fn clean(folder: &Path) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("can't list mounts")?;
    for point in mounts(&table, folder) {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("can't unmount {}", point.display()))?;
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Mount points in a folder, from a table as /proc/self/mountinfo has it (proc_pid_mountinfo(5)), the last one first.
fn mounts(table: &str, folder: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(folder)).collect();
    points.reverse();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_in_the_folder_is_unmounted() {
        let table = "22 1 0:2 / / rw - ext4 /dev/vda rw\n40 22 7:0 / /shm/7/a.var rw - ext4 /dev/loop0 rw\n\
                     41 40 7:1 / /shm/7/a.var/b rw - ext4 /dev/loop1 rw\n42 22 7:2 / /shm/77/a.var rw - ext4 /dev/loop2 rw\n";
        let expected = ["/shm/7/a.var/b", "/shm/7/a.var"].map(PathBuf::from);
        assert_eq!(mounts(table, Path::new("/shm/7")), expected);
    }

    #[test]
    fn a_folder_that_is_gone_already_is_clean() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("run");
        std::fs::create_dir_all(inner.join("stage")).unwrap();
        clean(&inner).unwrap();
        assert!(!inner.exists());
        clean(&inner).unwrap();
    }
}
