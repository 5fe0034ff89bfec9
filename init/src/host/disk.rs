//! The disk that the machine was started from, found through sysfs: from the device that is mounted, through dm-verity
//! below it, to the partitions that carry it, and from them to their disk. Sizes are the kernel's, labels the table's.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{major, minor};

use super::root::Root;
use super::{files, process};
use crate::disk::gpt::{self, Named};
use crate::disk::{Checked, Disk, Partition, Trouble, checked, flags};

/// Most devices that are followed from the mounted one down to a disk.
const FOLLOWED: usize = 16;
/// sysfs counts in units of so many bytes, whatever the disk's blocks are.
const SECTOR: u64 = 512;
/// The longest logical block that a disk may have, in bytes.
const LARGEST_BLOCK: u64 = 64 << 10;
/// How long a check may take. A large disk that was not left in order takes minutes, a damaged one longer.
const CHECK: Duration = Duration::from_secs(4 * 60 * 60);
/// How long systemd-repart may take to say what it would do.
const ASK: Duration = Duration::from_secs(30);

/// The disks that carry the file system mounted at `mounted`: one, unless its data and its hash tree were found on two.
///
/// # Errors
/// In words: what is mounted there does not lead to partitions of a disk, or the disk's table can't be read.
pub fn carrying(system: &Root, mounted: &Path) -> Result<Vec<Disk>, String> {
    let found = std::fs::metadata(mounted).map_err(|error| format!("can't look at {}: {error}", mounted.display()))?;
    disks(system, &format!("{}:{}", major(found.dev()), minor(found.dev())))
}

/// The disks below a block device, `MAJOR:MINOR`.
fn disks(system: &Root, device: &str) -> Result<Vec<Disk>, String> {
    let untold = |why: String| format!("it can't be told which disk carries the root: {why}");
    let folders = folders(&system.path("/sys/dev/block").join(device)).map_err(untold)?;
    folders.iter().map(|folder| disk_at(system, folder)).collect()
}

/// Their folders in sysfs.
fn folders(device: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut left = vec![followed(device)?];
    let mut disks = BTreeSet::new();
    for _ in 0..FOLLOWED {
        let Some(device) = left.pop() else { return Ok(disks) };
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

fn disk_at(system: &Root, folder: &Path) -> Result<Disk, String> {
    let device = name(folder)?;
    let block = number(&folder.join("queue/logical_block_size"))?;
    let table = table(&system.path("/dev").join(&device), block)
        .map_err(|why| format!("the partition table of {device} can't be read: {why}"))?;
    let mut partitions = Vec::new();
    let below = files::list(folder).map_err(|error| format!("can't list {}: {error}", folder.display()))?;
    for below in below.iter().filter(|below| is_partition(below)) {
        let start = number(&below.join("start"))?.saturating_mul(SECTOR);
        let bytes = number(&below.join("size"))?.saturating_mul(SECTOR);
        let number = number(&below.join("partition"))?;
        let is_it = |one: &&Named| u64::from(one.number) == number && one.first_block.saturating_mul(block) == start;
        let label = table.iter().find(is_it).map(|one| one.label.clone()).unwrap_or_default();
        partitions.push(Partition { device: name(below)?, label, start, bytes });
    }
    Ok(Disk { device, bytes: number(&folder.join("size"))?.saturating_mul(SECTOR), partitions })
}

/// The partitions in a disk's table. `block` is the length of its logical blocks in bytes.
fn table(device: &Path, block: u64) -> Result<Vec<Named>, String> {
    let length = usize::try_from(block).ok().filter(|length| (SECTOR..=LARGEST_BLOCK).contains(&(*length as u64)));
    let length = length.ok_or_else(|| format!("its blocks have {block} bytes"))?;
    let file = File::open(device).map_err(|error| error.to_string())?;
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, at).map(|()| bytes).map_err(|error| error.to_string())
    };
    let header = gpt::header(&read(block, length)?)?;
    gpt::partitions(&header, &read(header.first_block.saturating_mul(block), header.bytes)?)
}

/// Name below `/dev`.
fn name(folder: &Path) -> Result<String, String> {
    let text = text(&folder.join("uevent"))?;
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(str::to_owned).ok_or_else(|| format!("expected DEVNAME in {}/uevent, found none", folder.display()))
}

fn number(path: &Path) -> Result<u64, String> {
    text(path)?.trim().parse().map_err(|error| format!("expected a number in {}: {error}", path.display()))
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))
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

        fn put(&self, path: &str, contents: &[u8]) {
            let path = self.root().path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }

        /// A disk of 6 GiB with partitions: number, label, device number.
        fn disk(&self, folder: &str, name: &str, separator: &str, partitions: &[(u32, &str, &str)]) {
            self.put(&format!("{folder}/size"), b"12582912\n");
            self.put(&format!("{folder}/uevent"), format!("DEVNAME={name}\nDEVTYPE=disk\n").as_bytes());
            self.put(&format!("{folder}/queue/logical_block_size"), b"512\n");
            std::fs::create_dir_all(self.root().path(format!("{folder}/slaves"))).unwrap();
            for (number, _, device) in partitions {
                let part = format!("{folder}/{name}{separator}{number}");
                self.put(&format!("{part}/partition"), format!("{number}\n").as_bytes());
                self.put(&format!("{part}/start"), format!("{}\n", number * 2048).as_bytes());
                self.put(&format!("{part}/size"), b"2048\n");
                self.put(&format!("{part}/uevent"), format!("DEVNAME={name}{separator}{number}\n").as_bytes());
                self.link(device, &part);
            }
            let table: Vec<_> =
                partitions.iter().map(|(number, label, _)| (*number, u64::from(number * 2048), *label)).collect();
            let (header, list) = gpt::sample(&table);
            self.put(&format!("/dev/{name}"), &[vec![0; 512], header, list].concat());
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
        assert!(error.ends_with(": expected partitions of a disk below it, found vda"), "{error}");
        assert!(disks(&machine.root(), "0:25").unwrap_err().contains("can't follow"), "a tmpfs has no device");
    }

    #[test]
    fn a_table_that_is_damaged_or_another_ones_is_not_believed() {
        let machine = Machine::new();
        machine.disk(VDA, "vda", "", &[(2, "root", "254:2")]);
        let whole = std::fs::read(machine.root().path("/dev/vda")).unwrap();
        let mut damaged = whole.clone();
        damaged[600] ^= 1;
        machine.put("/dev/vda", &damaged);
        let error = disks(&machine.root(), "254:2").unwrap_err();
        assert_eq!(error, "the partition table of vda can't be read: the checksum of its header is wrong");
        machine.put("/dev/vda", &whole[..2000]);
        assert!(disks(&machine.root(), "254:2").unwrap_err().starts_with("the partition table of vda can't be read: "));
        // The kernel has a partition elsewhere than the table says: the label is not that partition's.
        machine.put("/dev/vda", &whole);
        machine.put(&format!("{VDA}/vda2/start"), b"2048\n");
        assert_eq!(disks(&machine.root(), "254:2").unwrap()[0].partitions[0].label, "");
    }

    #[test]
    fn blocks_of_4096_bytes() {
        let machine = Machine::new();
        machine.disk(VDA, "vda", "", &[(2, "root", "254:2")]);
        machine.put(&format!("{VDA}/queue/logical_block_size"), b"4096\n");
        let (header, list) = gpt::sample(&[(2, 512, "root")]);
        machine.put("/dev/vda", &[vec![0; 4096], header, vec![0; 4096 - 512], list].concat());
        assert_eq!(disks(&machine.root(), "254:2").unwrap()[0].partitions[0].label, "root");
    }

    #[test]
    fn devices_that_lead_to_themselves_end() {
        let machine = Machine::new();
        machine.verity(&["/sys/devices/virtual/block/dm-0"]);
        assert!(disks(&machine.root(), "253:0").unwrap_err().contains("at most 16"));
    }
}
