//! The disk that the machine was started from, found through sysfs: from the device that is mounted, through dm-verity
//! below it, to the partitions that carry it, and from them to their disk.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::root::Root;
use super::{files, process};
use crate::disk::{Checked, Disk, Partition, Trouble, checked, flags, uevent};

/// Most devices that are followed from the mounted one down to a disk.
const FOLLOWED: usize = 16;
/// sysfs counts in units of so many bytes, whatever the disk's sectors are.
const SECTOR: u64 = 512;
/// How long a check may take. A large disk that was not left in order takes minutes, a damaged one longer.
const CHECK: Duration = Duration::from_secs(4 * 60 * 60);
/// How long systemd-repart may take to say what it would do.
const ASK: Duration = Duration::from_secs(30);

/// The disks that carry the file system mounted at `mounted`: one, unless its data and its hash tree were found on two.
///
/// # Errors
/// In words: what is mounted there does not lead to partitions of a disk.
pub fn carrying(system: &Root, mounted: &Path) -> Result<Vec<Disk>, String> {
    let found = std::fs::metadata(mounted).map_err(|error| format!("can't look at {}: {error}", mounted.display()))?;
    disks(system, &format!("{}:{}", major(found.dev()), minor(found.dev())))
}

/// The disks below a block device, `MAJOR:MINOR`.
fn disks(system: &Root, device: &str) -> Result<Vec<Disk>, String> {
    let link = system.path("/sys/dev/block").join(device);
    let mut left = vec![followed(&link)?];
    let mut disks = BTreeSet::new();
    for _ in 0..FOLLOWED {
        let Some(device) = left.pop() else {
            return disks.iter().map(|disk: &PathBuf| disk_at(disk).map_err(|error| error.to_string())).collect();
        };
        // Only a device that is made of others has any here (Documentation/ABI/testing/sysfs-block).
        let below = files::list(&device.join("slaves")).unwrap_or_default();
        if !below.is_empty() {
            for one in below {
                left.push(followed(&one)?);
            }
        } else if let (true, Some(disk)) = (is_partition(&device), device.parent()) {
            disks.insert(disk.to_owned());
        } else {
            let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(format!("expected partitions of a disk below it, found {name}"));
        }
    }
    Err(format!("expected at most {FOLLOWED} devices below it, found more"))
}

fn followed(link: &Path) -> Result<PathBuf, String> {
    std::fs::canonicalize(link).map_err(|error| format!("can't follow {}: {error}", link.display()))
}

fn is_partition(folder: &Path) -> bool {
    files::exists(&folder.join("partition"))
}

fn disk_at(folder: &Path) -> io::Result<Disk> {
    let mut partitions = Vec::new();
    for below in files::list(folder)? {
        if is_partition(&below) {
            let (device, label) = named(&below)?;
            let (start, bytes) = (sectors(&below.join("start"))?, sectors(&below.join("size"))?);
            partitions.push(Partition { device, label, start, bytes });
        }
    }
    Ok(Disk { device: named(folder)?.0, bytes: sectors(&folder.join("size"))?, partitions })
}

/// Name below `/dev`, and label.
fn named(folder: &Path) -> io::Result<(String, String)> {
    let path = folder.join("uevent");
    let text = std::fs::read_to_string(&path).map_err(|error| naming(&path, &error))?;
    let (device, label) = uevent(&text);
    let device = device.ok_or_else(|| naming(&path, &"expected DEVNAME, found none"))?;
    Ok((device.to_owned(), label.unwrap_or_default().to_owned()))
}

/// A size in a file of sysfs, in bytes.
fn sectors(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path).map_err(|error| naming(path, &error))?;
    let number = text.trim().parse::<u64>().map_err(|error| naming(path, &error))?;
    Ok(number.saturating_mul(SECTOR))
}

fn naming(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Checks the ext4 file system on `device`, as the kernel command line asks. What e2fsck says goes to the journal.
///
/// # Errors
/// [`Trouble::Damaged`]: it has errors that are left.
pub fn check(device: &Path, command_line: &str) -> Result<Checked, Trouble> {
    let Some(flags) = flags(command_line) else { return Ok(Checked::InOrder) };
    let name = device.to_string_lossy();
    let mut arguments = flags;
    arguments.push(&name);
    let done = match process::output("e2fsck", &arguments, CHECK) {
        Ok(done) => done,
        Err(failure) => return Ok(Checked::Not(failure.to_string())),
    };
    let said = format!("{}{}", done.stdout, done.stderr);
    print!("{said}");
    checked(done.status.code(), &said).map_err(|said| Trouble::Damaged { device: name.into_owned(), said })
}

/// Why systemd-repart does not make the partitions that lack, in its own words. It is asked what it would do, and does
/// nothing.
pub fn repart_says() -> String {
    match process::run("systemd-repart", &["--dry-run=yes"], ASK) {
        Ok(_) => "it would make it now".to_owned(),
        Err(failure) => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that stands for a machine with sysfs.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Machine(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(machine.root().path("/sys/dev/block")).unwrap();
            machine
        }

        fn root(&self) -> Root {
            Root::at(self.0.path())
        }

        fn put(&self, path: &str, contents: &str) {
            let path = self.root().path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }

        /// A disk of 6 GiB with partitions: number, label, device number.
        fn disk(&self, folder: &str, name: &str, separator: &str, partitions: &[(u32, &str, &str)]) {
            self.put(&format!("{folder}/size"), "12582912\n");
            self.put(&format!("{folder}/uevent"), &format!("DEVNAME={name}\nDEVTYPE=disk\n"));
            self.put(&format!("{folder}/queue/rotational"), "0\n");
            std::fs::create_dir_all(self.root().path(format!("{folder}/slaves"))).unwrap();
            for (number, label, device) in partitions {
                let part = format!("{folder}/{name}{separator}{number}");
                self.put(&format!("{part}/partition"), &format!("{number}\n"));
                self.put(&format!("{part}/start"), &format!("{}\n", number * 2048));
                self.put(&format!("{part}/size"), "2048\n");
                let label = if label.is_empty() { String::new() } else { format!("PARTNAME={label}\n") };
                self.put(&format!("{part}/uevent"), &format!("DEVNAME={name}{separator}{number}\n{label}"));
                self.link(device, &part);
            }
        }

        fn link(&self, device: &str, folder: &str) {
            symlink(self.root().path(folder), self.root().path("/sys/dev/block").join(device)).unwrap();
        }

        /// dm-verity on two partitions.
        fn verity(&self, below: &[&str]) {
            let folder = "/sys/devices/virtual/block/dm-0";
            std::fs::create_dir_all(self.root().path(format!("{folder}/slaves"))).unwrap();
            self.link("253:0", folder);
            for part in below {
                let name = Path::new(part).file_name().unwrap();
                symlink(self.root().path(part), self.root().path(format!("{folder}/slaves")).join(name)).unwrap();
            }
        }
    }

    const VDA: &str = "/sys/devices/pci0000:00/0000:00:03.0/virtio1/block/vda";

    #[test]
    fn a_verity_root_leads_to_its_disk_and_no_other() {
        let machine = Machine::new();
        let vdb = VDA.replace("vda", "vdb");
        machine.disk(&vdb, "vdb", "", &[(1, "kubeboot-var", "254:17")]);
        machine.disk(VDA, "vda", "", &[(1, "", "254:1"), (2, "root", "254:2"), (3, "verity", "254:3")]);
        machine.verity(&[&format!("{VDA}/vda2"), &format!("{VDA}/vda3")]);
        let found = disks(&machine.root(), "253:0").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].device.as_str(), found[0].bytes), ("vda", 6 << 30));
        let mut partitions = found[0].partitions.clone();
        partitions.sort_by_key(|one| one.start);
        let names: Vec<_> = partitions.iter().map(|one| (one.device.as_str(), one.label.as_str())).collect();
        assert_eq!(names, [("vda1", ""), ("vda2", "root"), ("vda3", "verity")]);
        assert_eq!((partitions[1].start, partitions[1].bytes), (2 << 20, 1 << 20));
    }

    #[test]
    fn names_of_nvme_and_of_user_mode_linux() {
        let machine = Machine::new();
        let nvme = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
        machine.disk(nvme, "nvme0n1", "p", &[(2, "root", "259:2"), (3, "verity", "259:3")]);
        machine.verity(&[&format!("{nvme}/nvme0n1p2"), &format!("{nvme}/nvme0n1p3")]);
        assert_eq!(disks(&machine.root(), "253:0").unwrap()[0].device, "nvme0n1");
        // A root without dm-verity is a partition itself.
        machine.disk("/sys/devices/platform/uml-blkdev.0/block/ubda", "ubda", "", &[(2, "root", "98:2")]);
        assert_eq!(disks(&machine.root(), "98:2").unwrap()[0].partitions[0].device, "ubda2");
    }

    #[test]
    fn a_hash_tree_on_another_disk_is_seen() {
        let machine = Machine::new();
        let vdb = VDA.replace("vda", "vdb");
        machine.disk(&vdb, "vdb", "", &[(3, "verity", "254:19")]);
        machine.disk(VDA, "vda", "", &[(2, "root", "254:2")]);
        machine.verity(&[&format!("{VDA}/vda2"), &format!("{vdb}/vdb3")]);
        let names: Vec<_> = disks(&machine.root(), "253:0").unwrap().into_iter().map(|disk| disk.device).collect();
        assert_eq!(names, ["vda", "vdb"]);
    }

    #[test]
    fn what_is_no_partition_is_named() {
        let machine = Machine::new();
        machine.disk(VDA, "vda", "", &[]);
        machine.link("254:0", VDA);
        let error = disks(&machine.root(), "254:0").unwrap_err();
        assert_eq!(error, "expected partitions of a disk below it, found vda");
        assert!(disks(&machine.root(), "0:25").unwrap_err().contains("can't follow"), "a tmpfs has no device");
    }

    #[test]
    fn devices_that_lead_to_themselves_end() {
        let machine = Machine::new();
        machine.verity(&["/sys/devices/virtual/block/dm-0"]);
        assert!(disks(&machine.root(), "253:0").unwrap_err().contains("at most 16"));
    }
}
