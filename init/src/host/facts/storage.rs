//! The file system of `/var`, and how long it takes to make a small write last.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::statvfs::statvfs;

use super::Root;
use crate::facts::{Fact, FileSystem, WriteLatency, procfs};

/// As much as etcd writes for a small commit: the size that its documentation has a disk tested with.
const WRITE_BYTES: usize = 2300;
/// At most so many writes.
const WRITES: usize = 60;
/// No write starts after this time: a boot waits for it. The write under way then ends in its own time.
const BUDGET: Duration = Duration::from_millis(150);
/// But so many are made even on a slow disk: with fewer, one stall would be the median.
const LEAST: usize = 5;
/// Unless they take longer than this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Name of the probe file, where a file without a name can't be had.
const PROBE: &str = ".kubeboot-probe";

/// What holds `/var`.
pub(super) fn var(root: &Root, mounts: &Result<String, String>) -> Fact<FileSystem> {
    let find = || {
        let mounts = mounts.as_ref().map_err(Clone::clone)?;
        let mount = procfs::mount_of(mounts, "/var").ok_or("found no mount for /var in /proc/self/mountinfo")?;
        let usage = statvfs(&root.path("/var")).map_err(|error| format!("can't ask for the space on /var: {error}"))?;
        let unit = usage.fragment_size();
        Ok(FileSystem {
            mount_point: mount.point,
            kind: mount.kind,
            source: mount.source,
            read_only: mount.read_only,
            total: unit.saturating_mul(usage.blocks()),
            available: unit.saturating_mul(usage.blocks_available()),
            inodes: usage.files(),
            inodes_free: usage.files_available(),
        })
    };
    find().into()
}

/// Writes a probe file below `/var` as etcd writes its log, and times each write. The file has no name where the file
/// system can do that, so that not even a power cut leaves it behind.
pub(super) fn write_latency(root: &Root) -> Result<WriteLatency, String> {
    let folder = root.path("/var/lib");
    let mut probe = ProbeFile::create(&folder).map_err(|error| format!("can't make a probe file on /var: {error}"))?;
    let block = [0x6b; WRITE_BYTES];
    let (start, mut micros) = (Instant::now(), Vec::with_capacity(WRITES));
    while goes_on(micros.len(), start.elapsed()) {
        let before = Instant::now();
        let written = probe.file.write_all(&block).and_then(|()| probe.file.sync_data());
        written.map_err(|error| format!("can't write the probe file on /var: {error}"))?;
        micros.push(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    WriteLatency::of(micros).ok_or_else(|| "no write to /var was made".to_owned())
}

/// Whether another write is made after so many in so much time.
fn goes_on(made: usize, elapsed: Duration) -> bool {
    made < WRITES && elapsed < if made < LEAST { PATIENCE } else { BUDGET }
}

/// A file that is gone when it is dropped.
struct ProbeFile {
    file: File,
    name: Option<PathBuf>,
}

impl ProbeFile {
    fn create(folder: &Path) -> std::io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o600);
        if let Ok(file) = options.clone().custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC).open(folder) {
            return Ok(ProbeFile { file, name: None });
        }
        let name = folder.join(PROBE);
        let file = options.create(true).truncate(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(&name)?;
        Ok(ProbeFile { file, name: Some(name) })
    }
}

impl Drop for ProbeFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = fs::remove_file(name)
        {
            eprintln!("kubeboot: can't remove the probe file {}: {error}", name.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join("var/lib")).expect("a folder");
        let latency = write_latency(&Root::at(folder.path())).expect("a figure");
        assert!(latency.writes >= 1 && latency.writes as usize <= WRITES);
        assert!(latency.p50 <= latency.p99);
        assert_eq!(fs::read_dir(folder.path().join("var/lib")).expect("a folder").count(), 0);
    }

    #[test]
    fn a_slow_disk_gets_enough_writes_for_a_median_and_a_dead_one_an_end() {
        assert!(goes_on(0, Duration::ZERO) && goes_on(WRITES - 1, BUDGET / 2));
        assert!(!goes_on(WRITES, Duration::ZERO) && !goes_on(LEAST, BUDGET));
        assert!(goes_on(LEAST - 1, Duration::from_secs(4)) && !goes_on(1, PATIENCE));
    }

    #[test]
    fn a_named_probe_is_removed_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join(PROBE);
        let probe = ProbeFile { file: File::create(&name).expect("a file"), name: Some(name.clone()) };
        drop(probe);
        assert!(!name.exists());
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = write_latency(&Root::at(folder.path())).expect_err("no /var");
        assert!(error.starts_with("can't make a probe file on /var: "), "{error}");
    }
}
