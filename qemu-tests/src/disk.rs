//! Disk images of machines that are switched off: copied, compared, and damaged on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use image_builder::cache::sha256_file;
use image_builder::command::{output, run};
use serde_json::Value;

/// GPT label of the partition that carries a machine's state.
const VAR: &str = "kubeboot-var";

/// Copies a disk image, sharing what the file system can share and leaving holes as holes.
///
/// # Errors
/// The copy can't be made.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut cp = Command::new("cp");
    run(cp.args(["--reflink=auto", "--sparse=always"]).args([from, to]), &format!("copy {}", from.display()))
}

/// A machine's new disk: the image with room behind it, where the first boot makes `/var`.
///
/// # Errors
/// The copy can't be made or enlarged.
pub fn fresh(image: &Path, to: &Path, mebibytes: u64) -> Result<()> {
    copy(image, to)?;
    let length = fs::metadata(to).with_context(|| format!("can't look at {}", to.display()))?.len();
    ensure!(mebibytes << 20 >= length, "a disk of {mebibytes} MiB is smaller than the image of {length} bytes");
    enlarge(to, mebibytes)
}

/// Makes a disk larger.
///
/// # Errors
/// The file can't be changed.
pub fn enlarge(disk: &Path, mebibytes: u64) -> Result<()> {
    let file = fs::File::options().write(true).open(disk).with_context(|| format!("can't open {}", disk.display()))?;
    file.set_len(mebibytes << 20).with_context(|| format!("can't enlarge {}", disk.display()))
}

/// Where an ext4 file system of 4 KiB blocks has its superblock and the copy of it that e2fsck tries first, in bytes
/// (the kernel's Documentation/filesystems/ext4/blockgroup.rst).
const SUPERBLOCKS: [u64; 2] = [1024, 32768 * 4096];
/// Length of a superblock in bytes.
const SUPERBLOCK: usize = 1024;

/// Takes the superblocks off the file system of `/var`: neither the kernel nor e2fsck knows it any more.
///
/// # Errors
/// The disk has no such partition, or can't be written.
pub fn spoil_var(disk: &Path) -> Result<()> {
    let (start, _) = partition(disk, VAR)?;
    let file = fs::File::options().write(true).open(disk).with_context(|| format!("can't open {}", disk.display()))?;
    for place in SUPERBLOCKS {
        file.write_all_at(&[0; SUPERBLOCK], start + place)
            .with_context(|| format!("can't damage {}", disk.display()))?;
    }
    Ok(())
}

/// Whether the partition for `/var` is as [`spoil_var`] left it.
///
/// # Errors
/// The disk has no such partition, or can't be read.
pub fn is_spoilt(disk: &Path) -> Result<bool> {
    let (start, _) = partition(disk, VAR)?;
    let file = fs::File::open(disk).with_context(|| format!("can't open {}", disk.display()))?;
    for place in SUPERBLOCKS {
        let mut found = [1; SUPERBLOCK];
        file.read_exact_at(&mut found, start + place).with_context(|| format!("can't read {}", disk.display()))?;
        if found != [0; SUPERBLOCK] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file system of `/var` of a stopped machine, mounted on the host until dropped.
pub struct Var {
    mount: PathBuf,
}

impl Var {
    /// Mounts it to be read. What a power cut left in its journal is not replayed, and nothing is written.
    ///
    /// # Errors
    /// The disk has no such partition yet, or it can't be mounted (which needs root).
    pub fn read(disk: &Path) -> Result<Self> {
        Self::mount(disk, "ro,noload")
    }

    /// Mounts it to be changed.
    ///
    /// # Errors
    /// As for [`Var::read`].
    pub fn write(disk: &Path) -> Result<Self> {
        Self::mount(disk, "rw")
    }

    fn mount(disk: &Path, mode: &str) -> Result<Self> {
        let (start, size) = partition(disk, VAR)?;
        let mount = disk.with_extension("var");
        fs::create_dir_all(&mount).with_context(|| format!("can't make {}", mount.display()))?;
        let options = format!("{mode},loop,offset={start},sizelimit={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "ext4", "-o", &options]).args([disk, &mount]);
        run(&mut command, &format!("mount the partition {VAR} of {}", disk.display()))?;
        Ok(Self { mount })
    }

    /// A file in it; `path` is as on the machine, such as `/var/lib/kubeboot/boots`.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        let below = path.trim_start_matches('/');
        self.mount.join(below.strip_prefix("var/").unwrap_or(below))
    }

    /// Takes all its room but so many MiB.
    ///
    /// # Errors
    /// There is less room than that already, or the file can't be made.
    pub fn fill(&self, leave: u64) -> Result<()> {
        let state = nix::sys::statvfs::statvfs(&self.mount).context("can't ask how full /var is")?;
        let free = state.blocks_available() * state.fragment_size();
        ensure!(free > leave << 20, "/var has only {free} bytes left");
        let length = free - (leave << 20);
        let mut fill = Command::new("fallocate");
        run(fill.args(["-l", &length.to_string()]).arg(self.mount.join("filler")), "fill /var")
    }

    /// What is below a folder: for each path (relative) its mode, owner, and contents' digest or link's target.
    ///
    /// # Errors
    /// Something can't be read.
    pub fn digest(&self, path: &str) -> Result<BTreeMap<String, String>> {
        let top = self.path(path);
        let mut found = BTreeMap::new();
        let mut left = vec![top.clone()];
        while let Some(folder) = left.pop() {
            let entries = fs::read_dir(&folder).with_context(|| format!("can't list {}", folder.display()))?;
            for entry in entries {
                let path = entry.with_context(|| format!("can't list {}", folder.display()))?.path();
                let name = path.strip_prefix(&top).unwrap_or(&path).to_string_lossy().into_owned();
                found.insert(name, describe(&path)?);
                if path.is_dir() && !path.is_symlink() {
                    left.push(path);
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Var {
    fn drop(&mut self) {
        // A mount that stays is seen by the next use of the disk, which then fails with its own message.
        let _ = run(Command::new("umount").arg(&self.mount), "unmount");
        let _ = fs::remove_dir(&self.mount);
    }
}

fn describe(path: &Path) -> Result<String> {
    let facts = fs::symlink_metadata(path).with_context(|| format!("can't look at {}", path.display()))?;
    let contents = if facts.is_symlink() {
        fs::read_link(path)?.display().to_string()
    } else if facts.is_file() {
        sha256_file(path)?
    } else {
        String::new()
    };
    Ok(format!("{:o} {}:{} {contents}", facts.permissions().mode(), facts.uid(), facts.gid()))
}

/// Every difference between two digests, a line each.
#[must_use]
pub fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("{name} is gone"));
    let other = after.iter().filter_map(|(name, now)| match before.get(name) {
        None => Some(format!("{name} is new")),
        Some(was) if was != now => Some(format!("{name} was {was}, is {now}")),
        Some(_) => None,
    });
    gone.chain(other).collect()
}

/// First byte and length in bytes of the partition with a GPT label.
fn partition(disk: &Path, label: &str) -> Result<(u64, u64)> {
    let table = output(Command::new("sfdisk").arg("--json").arg(disk), "read the partition table")?;
    let table: Value = serde_json::from_str(&table).context("sfdisk gave no JSON")?;
    let partitions = table["partitiontable"]["partitions"].as_array().cloned().unwrap_or_default();
    let found = partitions
        .iter()
        .find(|partition| partition["name"] == label)
        .with_context(|| format!("{} has no partition labelled {label}", disk.display()))?;
    let sector = table["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
    let number = |key: &str| found[key].as_u64().with_context(|| format!("sfdisk gives no {key} of {label}"));
    Ok((number("start")? * sector, number("size")? * sector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_what_is_new_changed_and_gone() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let (before, after) = (map(&[("a", "1"), ("b", "1"), ("c", "1")]), map(&[("a", "1"), ("b", "2"), ("d", "1")]));
        assert_eq!(differences(&before, &after), ["c is gone", "b was 1, is 2", "d is new"]);
    }

    #[test]
    fn a_partition_is_found_by_its_label() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk.raw");
        fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
        let table = b"label: gpt\nstart=2048, size=2048, name=esp\nstart=4096, size=1024, name=kubeboot-var\n";
        crate::command::output_with_input(Command::new("sfdisk").arg("-q").arg(&disk), table).unwrap();
        assert_eq!(partition(&disk, VAR).unwrap(), (4096 * 512, 1024 * 512));
        assert!(partition(&disk, "other").unwrap_err().to_string().contains("labelled other"));
    }
}
